#![doc = include_str!("../README.md")]

mod check;
mod config;
mod info;
mod judge;
mod peers;

pub use check::AerospikeCheck;
pub use config::AerospikeCheckConfig;
