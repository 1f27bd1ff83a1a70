#![doc = include_str!("../README.md")]

pub mod decode;
pub mod error;
pub mod files;
pub mod hash;
mod index;
mod layout;
pub mod model;
pub mod network;
pub mod pow;
pub mod source;

pub use decode::{DecodeError, DecodeOptions, decode_block, decode_transaction};
pub use error::Error;
pub use files::{BlockFiles, BlockFilesConfig, StartAfter};
pub use hash::{BlockHash, Txid};
pub use model::{Block, BlockHeader, ChainBlock, OutPoint, Script, Transaction, TxOut};
pub use network::Network;
pub use pow::ProofOfWorkError;
pub use source::BlockSource;
