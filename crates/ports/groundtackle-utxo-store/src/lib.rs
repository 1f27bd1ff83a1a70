#![doc = include_str!("../README.md")]

mod attempts;
mod copy;
pub mod decorators;
pub mod digest;
pub mod draft;
mod error;
mod ext;
mod load;
mod memory;
pub mod pending;
pub mod snapshot;
mod store;
mod types;
mod verdict;

pub use attempts::Attempts;
pub use copy::{Copied, copy_set};
pub use error::{Error, Result};
pub use ext::{SetStatistics, StatisticsOptions, UtxoStoreExt};
pub use groundtackle_chain::{BlockHash, ChainBlock, OutPoint, Script, Transaction, TxOut, Txid};
pub use groundtackle_core::Retryability;
pub use load::{SetReader, SetWriter, unfinished_copy};
pub use memory::MemoryUtxoStore;
pub use store::{
    AlertStore, BlockStore, ConflictStore, MaintenanceStore, RetentionStore, ScanStore, SetScan,
    SpendStore, UtxoStore,
};
pub use types::{
    Applied, COINBASE_MATURITY, Capabilities, Coin, Connected, Cursor, Disconnected, Fields,
    Health, HealthDepth, LongestChain, MinedIn, NewRecord, NewTransaction, OutputView, Page,
    Pruned, Reassignment, Record, RecordOutput, Recovered, SetDigest, SlotState, SpendOptions,
    SpentBy, Tip, UnminedTransaction, UnspendableRule,
};
pub use verdict::{Outcome, Verdict};
