//! Digests.
pub mod muhash;
mod num3072;
