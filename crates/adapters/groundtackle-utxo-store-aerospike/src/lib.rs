#![doc = include_str!("../README.md")]

mod cells;
mod config;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
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
