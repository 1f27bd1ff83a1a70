#![doc = include_str!("../README.md")]

mod check;
mod config;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod info;
mod judge;
mod peers;

pub use check::AerospikeCheck;
pub use config::AerospikeCheckConfig;
