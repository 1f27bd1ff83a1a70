#![doc = include_str!("../README.md")]

mod canary;
mod check;
mod config;
mod connect;
mod seen;

pub use check::S3Check;
pub use config::{S3CheckConfig, S3Credentials};
