#![doc = include_str!("../README.md")]

mod database;
mod pool;
mod store;

pub use store::SqliteUtxoStore;
