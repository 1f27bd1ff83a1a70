#![doc = include_str!("../README.md")]

mod call;
mod cluster;
mod config;
mod connection;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod prune;
mod read;
mod record;
mod scan;
mod server;
mod store;
mod write;

pub use cluster::{RedisCells, RedisClusterUtxoStore, RedisClusterUtxoStoreConfig};
pub use config::{Durability, RedisUtxoStoreConfig, Tls};
pub use store::RedisUtxoStore;
