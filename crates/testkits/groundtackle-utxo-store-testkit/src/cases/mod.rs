//! The cases. Each documents the promise it checks, in the port's words.

pub(crate) mod alerts;
pub(crate) mod blocks;
pub(crate) mod chain;
pub(crate) mod conflicts;
pub(crate) mod crashes;
pub(crate) mod formats;
pub(crate) mod halves;
pub(crate) mod incidents;
pub(crate) mod needs;
pub(crate) mod races;
pub(crate) mod retention;
pub(crate) mod scanning;
pub(crate) mod snapshots;
pub(crate) mod spending;
pub(crate) mod upkeep;

use groundtackle_utxo_store::{
    Applied, BlockHash, MinedIn, OutPoint, Outcome, SlotState, SpentBy, Transaction,
};

use crate::builder::TxBuilder;

/// Applied by this call.
pub(crate) const NOW: Outcome<Applied> = Ok(Applied::Now);
/// So before this call.
pub(crate) const BEFORE: Outcome<Applied> = Ok(Applied::Before);

/// A transaction that spends `outpoint` and pays once.
pub(crate) fn spender(tag: u64, outpoint: OutPoint) -> TxBuilder {
    TxBuilder::new(tag).spend(outpoint).pay(900)
}

/// Input `vin` of `tx`.
pub(crate) fn by(tx: &Transaction, vin: u32) -> SpentBy {
    SpentBy { txid: tx.txid, vin }
}

/// What a slot held by input `vin` of `tx` shows.
pub(crate) fn spent(tx: &Transaction, vin: u32) -> SlotState {
    SlotState::Spent(by(tx, vin))
}

/// An entry of a block that only its number tells from others.
pub(crate) fn mined_in(block: u8, height: u32, on_longest_chain: bool) -> MinedIn {
    MinedIn {
        block: Some(BlockHash::from_bytes([block; 32])),
        height,
        subtree_index: 0,
        on_longest_chain,
    }
}
