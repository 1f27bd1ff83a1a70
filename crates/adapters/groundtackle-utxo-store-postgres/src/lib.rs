#![doc = include_str!("../README.md")]

mod call;
mod coinbase;
mod config;
mod error;
mod prune;
mod read;
mod record;
mod scan;
mod schema;
mod session;
mod statements;
mod store;
mod tls;
mod write;

pub use coinbase::{CoinbaseOutputs, Reserved};
pub use config::{PostgresUtxoStoreConfig, Tls};
pub use store::PostgresUtxoStore;
