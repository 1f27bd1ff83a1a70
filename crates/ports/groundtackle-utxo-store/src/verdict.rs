//! What a store answers about data, as opposed to about itself.

use groundtackle_chain::{BlockHash, OutPoint, Txid};
use serde::{Deserialize, Serialize};

use crate::types::{SpentBy, Tip};

/// The answer to one item of a batch: what was done, or the verdict why not.
pub type Outcome<T> = Result<T, Verdict>;

/// Why an item was refused. A verdict is about the data and final for the state it was judged
/// against; a store that could not answer returns an [`Error`](crate::Error) instead.
///
/// Where an item has several faults, the input with the lowest index decides, and for one outpoint
/// the order of the variants here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Verdict {
    /// No record of the transaction that should have made this output.
    #[error("{outpoint} can't be found: the store has no transaction {}", outpoint.txid)]
    MissingTransaction {
        /// The output that was wanted; its `txid` is the missing transaction.
        outpoint: OutPoint,
    },
    /// The transaction is there, and has no spendable output of that index.
    #[error("{outpoint} is not an output that can be spent")]
    MissingOutput {
        /// The output that was wanted.
        outpoint: OutPoint,
    },
    /// First seen wins: another transaction, or another input, holds the output.
    #[error("{outpoint} is already spent by input {} of {}", by.vin, by.txid)]
    AlreadySpent {
        /// The output that was wanted.
        outpoint: OutPoint,
        /// Who holds it.
        by: SpentBy,
    },
    /// The alert system froze the output.
    #[error("{outpoint} is frozen")]
    Frozen {
        /// The frozen output.
        outpoint: OutPoint,
    },
    /// The output was reassigned and can be spent **at** `height`.
    #[error("{outpoint} is reassigned and can be spent at height {height}")]
    FrozenUntil {
        /// The reassigned output.
        outpoint: OutPoint,
        /// The first height of a block that may spend it.
        height: u32,
    },
    /// The transaction that made the output conflicts with another one.
    #[error("{outpoint} belongs to a conflicting transaction")]
    ConflictingParent {
        /// The output of the conflicting transaction.
        outpoint: OutPoint,
    },
    /// The transaction that made the output is locked.
    #[error("{outpoint} belongs to a locked transaction")]
    Locked {
        /// The output of the locked transaction.
        outpoint: OutPoint,
    },
    /// A coinbase output that can be spent **at** the height named.
    #[error("{outpoint} is a coinbase output and immature{}", match spendable_at {
        Some(height) => format!(" until height {height}"),
        None => ", and its block is not on the longest chain".into(),
    })]
    Immature {
        /// The immature output.
        outpoint: OutPoint,
        /// The first height of a block that may spend it; `None` while its block is not on the
        /// longest chain.
        spendable_at: Option<u32>,
    },
    /// A block may spend only what it, or the chain below it, made.
    #[error("{outpoint} is not confirmed, so no block can spend it yet")]
    Unconfirmed {
        /// The output of an unmined transaction.
        outpoint: OutPoint,
    },
    /// The caller's idea of the output (amount and script) differs from the store's.
    #[error("{outpoint} has another amount or script than the spender expects")]
    OutputMismatch {
        /// The output that differs.
        outpoint: OutPoint,
    },
    /// No record of the transaction.
    #[error("the store has no transaction {txid}")]
    UnknownTransaction {
        /// The transaction asked for.
        txid: Txid,
    },
    /// A record of that transaction exists and is not what this call would leave behind.
    #[error("transaction {txid} exists already, in another state than this call would leave")]
    AlreadyExists {
        /// The transaction.
        txid: Txid,
    },
    /// The transaction was mined, and pruned since: it can't enter again as an unmined one.
    #[error("transaction {txid} was mined and has been pruned")]
    Pruned {
        /// The transaction.
        txid: Txid,
    },
    /// The transaction itself is marked conflicting.
    #[error("transaction {txid} is marked conflicting")]
    Conflicting {
        /// The transaction.
        txid: Txid,
    },
    /// The transaction must be marked conflicting first: as long as its outputs can be spent, it
    /// has to hold its inputs.
    #[error("transaction {txid} is not marked conflicting; mark it first")]
    NotConflicting {
        /// The transaction.
        txid: Txid,
    },
    /// The transaction is mined on the longest chain, which comes first.
    #[error("transaction {txid} is mined on the longest chain")]
    MinedOnLongestChain {
        /// The transaction.
        txid: Txid,
    },
    /// The transaction is not recorded as mined in that block.
    #[error("transaction {txid} is not recorded as mined in block {block}")]
    NotMinedIn {
        /// The transaction.
        txid: Txid,
        /// The block named.
        block: BlockHash,
    },
    /// Something still spends an output of what should go.
    #[error("{outpoint} is still spent by input {} of {}", by.vin, by.txid)]
    StillSpent {
        /// The output.
        outpoint: OutPoint,
        /// Who holds it.
        by: SpentBy,
    },
    /// The transaction does not hold an output that it names.
    #[error(
        "{outpoint} is unspent, so the transaction that names it can't be unmarked; spend it first"
    )]
    NotSpending {
        /// The output.
        outpoint: OutPoint,
    },
    /// Only a frozen output can be reassigned.
    #[error("{outpoint} is not frozen")]
    NotFrozen {
        /// The output.
        outpoint: OutPoint,
    },
    /// No store can keep such a transaction.
    #[error("transaction {txid} can't be stored: {reason}")]
    InvalidTransaction {
        /// The transaction.
        txid: Txid,
        /// What is wrong with it.
        reason: String,
    },
    /// The block does not follow the tip.
    #[error("block {block} does not follow the tip{}", match tip {
        Some(tip) => format!(" {} at height {}", tip.hash, tip.height),
        None => ": the store is empty and begins with a genesis block, or with a tip that was set".into(),
    })]
    NotNext {
        /// The block offered.
        block: BlockHash,
        /// The store's tip.
        tip: Option<Tip>,
    },
    /// Only the tip can be disconnected.
    #[error("block {block} is not the tip")]
    NotTip {
        /// The block named.
        block: BlockHash,
        /// The store's tip.
        tip: Option<Tip>,
    },
    /// What is needed to take the block back is not there: it was pruned, or never connected here.
    #[error(
        "block {block} can't be disconnected: the store has no undo data of it (pruned, or below where the set was seeded)"
    )]
    NoUndo {
        /// The block named.
        block: BlockHash,
    },
    /// A transaction of a block was refused, and with it the block.
    #[error("block {block} is refused because of its transaction {txid}")]
    InBlock {
        /// The block.
        block: BlockHash,
        /// The transaction of the block.
        txid: Txid,
        /// Why that transaction was refused.
        #[source]
        verdict: Box<Verdict>,
    },
}
