//! What the port promises.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod compile;
mod enumeration;
mod file_log;
mod independent;
mod log;
mod passing;
mod permit;
mod policies;
mod replay;
mod rules;
mod setting;
mod signed;
mod transitions;
mod when;
mod windows;
