#![doc = include_str!("../README.md")]

mod config;
mod error;
mod prune;
mod record;
mod scan;
mod schema;
mod session;
mod statements;
mod store;
mod tls;
mod write;

pub use config::{PostgresUtxoStoreConfig, Tls};
pub use store::PostgresUtxoStore;
