#![doc = include_str!("../README.md")]

mod account;
mod amount;
mod answers;
mod config;
mod head;
mod node;
pub mod sets;

pub use account::EthereumAccountCheck;
pub use amount::{AccountAddress, Amount, Topic};
pub use config::{EthereumAccountProbe, EthereumProbe, EventProbe};
pub use groundtackle_health_check_json_rpc::{Node, NodeUrl};
pub use node::EthereumCheck;
