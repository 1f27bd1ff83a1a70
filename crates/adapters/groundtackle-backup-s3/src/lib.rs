#![doc = include_str!("../README.md")]

mod config;
mod connect;
mod error;
mod look;
mod probe;
mod target;
mod upload;

pub use config::{
    AssumeRole, Checksum, Encryption, Retention, S3TargetConfig, StaticCredentials, Tls,
};
pub use target::S3Target;
