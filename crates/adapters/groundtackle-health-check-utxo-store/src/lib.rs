#![doc = include_str!("../README.md")]

mod check;
mod config;

pub use check::UtxoStoreCheck;
pub use config::UtxoStoreCheckConfig;
