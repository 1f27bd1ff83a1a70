#![doc = include_str!("../README.md")]

mod ask;
mod check;
mod config;
mod info;

pub use check::RedisCheck;
pub use config::{RedisCheckConfig, Role};
