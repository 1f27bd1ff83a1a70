#![doc = include_str!("../README.md")]

mod ask;
mod check;
mod config;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod info;

pub use check::RedisCheck;
pub use config::{RedisCheckConfig, Role};
