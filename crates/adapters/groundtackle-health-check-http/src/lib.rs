#![doc = include_str!("../README.md")]

mod config;
mod json;
mod metrics;
mod page;
mod server;

pub use config::HttpHealthConfig;
pub use server::router;
