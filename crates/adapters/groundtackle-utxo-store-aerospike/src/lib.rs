#![doc = include_str!("../README.md")]

mod cells;
mod config;
mod error;
mod list;
mod record;
mod server;
mod store;
mod throttle;

pub use config::AerospikeUtxoStoreConfig;
pub use store::AerospikeUtxoStore;
