#![doc = include_str!("../README.md")]

mod answers;
mod check;
mod config;
pub mod sets;

pub use check::BitcoinCheck;
pub use config::{BitcoinProbe, Hash, KnownBlock};
pub use groundtackle_health_check_json_rpc::{Node, NodeUrl};
