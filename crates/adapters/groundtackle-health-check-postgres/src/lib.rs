#![doc = include_str!("../README.md")]

mod ask;
mod check;
mod config;
mod status;

pub use check::PostgresCheck;
pub use config::{PostgresCheckConfig, Role};
