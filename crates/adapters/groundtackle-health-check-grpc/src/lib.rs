#![doc = include_str!("../README.md")]

mod config;
mod service;

pub use config::GrpcHealthConfig;
pub use service::{GrpcHealth, service};
pub use tonic_health::pb;
