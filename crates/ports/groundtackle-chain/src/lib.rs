//! Placeholder docs.
pub mod hash;
pub mod model;
pub use hash::{BlockHash, Txid};
pub use model::{Block, BlockHeader, ChainBlock, OutPoint, Script, Transaction, TxOut};
