#![doc = include_str!("../README.md")]

mod chain;
mod config;
mod draft;
mod engine;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod ops;
mod record;
mod rules;
mod scan;
mod store;
#[cfg(test)]
mod tests;

pub use config::{Durability, EmbeddedUtxoStoreConfig};
pub use store::EmbeddedUtxoStore;
