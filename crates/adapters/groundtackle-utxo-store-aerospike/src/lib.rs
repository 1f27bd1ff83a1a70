#![doc = include_str!("../README.md")]

mod cells;
mod config;
mod error;
mod list;
mod record;
mod sentinel;
mod server;
mod store;
#[cfg(test)]
mod tests;
mod throttle;

pub use config::AerospikeUtxoStoreConfig;
pub use store::AerospikeUtxoStore;
