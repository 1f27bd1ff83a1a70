#![doc = include_str!("../README.md")]
// Docs.rs tells at each item which feature brings it.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "bitcoin")]
mod bitcoin;
pub mod codec;
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
pub mod undo;

pub use codec::StoredCoin;
pub use decode::{DecodeError, DecodeOptions, decode_block, decode_transaction};
pub use error::Error;
pub use files::{BlockFiles, BlockFilesConfig, StartAfter};
pub use groundtackle_core::ByteSize;
pub use hash::{BlockHash, Txid};
pub use layout::unmask;
pub use model::{Block, BlockHeader, ChainBlock, OutPoint, Script, Transaction, TxOut};
pub use network::Network;
pub use pow::ProofOfWorkError;
pub use source::BlockSource;
pub use undo::{BlockUndo, UndoRecord};
