//! The traits, one per power.
//!
//! All calls are batch-first: a slice in, one [`Outcome`] per item out, in order. Items of one call
//! take effect in order, so a later item sees what an earlier one did. An `Err` from the call itself
//! means that the outcome of no item is known.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_chain::{BlockHash, ChainBlock, OutPoint, Txid};

use crate::error::Result;
use crate::types::{
    Applied, Capabilities, Coin, Connected, Cursor, Disconnected, Fields, Health, HealthDepth,
    LongestChain, MinedIn, NewRecord, NewTransaction, OutputView, Page, Pruned, Reassignment,
    Record, Recovered, SetDigest, SpendOptions, Tip, UnminedTransaction,
};
use crate::verdict::Outcome;

/// Spends, creates and reads: what transaction validation needs.
#[async_trait]
pub trait SpendStore: Debug + Send + Sync + 'static {
    /// What the adapter can do. Constant for a store.
    fn capabilities(&self) -> Capabilities;

    /// Marks every input of each transaction as spent by it and creates its record, unmined.
    ///
    /// **Atomicity**: per transaction all or nothing; after a crash too, if need be by
    /// [`recover`](MaintenanceStore::recover). No output ever names a spender without a record.
    /// First seen wins, across batches and tasks: of many that want one output exactly one gets it.
    /// In one batch a child may follow its parent.
    /// **Idempotency**: repeating a transaction that is there and holds its inputs is
    /// [`Applied::Before`] without effect, also when a parent has been pruned since. One that was
    /// itself pruned is refused ([`Pruned`](crate::Verdict::Pruned)).
    /// **Cancel safety**: a dropped call leaves each transaction done or undone; repeat it.
    ///
    /// Verdicts: `MissingTransaction`, `MissingOutput`, `AlreadySpent`, `Frozen`, `FrozenUntil`,
    /// `ConflictingParent`, `Locked`, `Immature`, `OutputMismatch`, `Conflicting`, `Pruned`,
    /// `InvalidTransaction` (a coinbase, no inputs, an amount above 21 million coins, `expected` of
    /// another length than the inputs).
    ///
    /// # Errors
    /// When the store could not answer; see [`Error::retryability`](crate::Error::retryability).
    async fn spend_and_create(
        &self,
        transactions: &[NewTransaction],
        options: &SpendOptions,
    ) -> Result<Vec<Outcome<Applied>>>;

    /// Creates records without spending: a coinbase, coins of a snapshot, a conflicting
    /// transaction kept for later.
    ///
    /// **Atomicity**: per record. **Idempotency**: a record that has the same content already is
    /// [`Applied::Before`]; another one with that identifier is `AlreadyExists`.
    /// **Cancel safety**: a dropped call leaves each record created or not; repeat it.
    ///
    /// Verdicts: `AlreadyExists`, `Pruned` (as conflicting), `InvalidTransaction` (not a coinbase, a
    /// coinbase as conflicting, indexes not ascending, an unspendable output in a seed, an amount
    /// above 21 million coins).
    ///
    /// # Errors
    /// When the store could not answer.
    async fn create(&self, records: &[NewRecord]) -> Result<Vec<Outcome<Applied>>>;

    /// Marks every input of transactions that are on record as spent by them: the first half of
    /// letting a conflicting transaction win. It stays conflicting until unmarked.
    ///
    /// **Atomicity**: per transaction all or nothing. **Idempotency**: inputs it holds already stay
    /// so. **Cancel safety**: a dropped call leaves each transaction done or undone; repeat it.
    ///
    /// Verdicts: `UnknownTransaction`, and those of [`spend_and_create`](Self::spend_and_create)
    /// on inputs.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn spend(&self, txids: &[Txid], options: &SpendOptions) -> Result<Vec<Outcome<Applied>>>;

    /// Takes back what conflicting transactions hold, and nothing else: an output held by another
    /// spender stays, as does every lock, freeze and reassignment.
    ///
    /// **Atomicity**: per transaction. **Idempotency**: holding nothing is [`Applied::Before`].
    /// **Cancel safety**: a dropped call leaves each transaction done or undone; repeat it.
    ///
    /// Verdicts: `UnknownTransaction`, `NotConflicting` (its outputs could be spent while it holds
    /// nothing).
    ///
    /// # Errors
    /// When the store could not answer.
    async fn unspend(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>>;

    /// Removes unmined transactions for good and takes back what they hold: eviction.
    ///
    /// **Atomicity**: per transaction. **Idempotency**: an unknown transaction is
    /// [`Applied::Before`]. **Cancel safety**: a dropped call leaves each done or undone.
    ///
    /// Verdicts: `MinedOnLongestChain`, `StillSpent` (children go first).
    ///
    /// # Errors
    /// When the store could not answer.
    async fn remove(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>>;

    /// Reads records, `None` where there is none. What a write of this task acknowledged is seen.
    ///
    /// **Atomicity**: each record is one that existed at one moment; two of one call need not
    /// belong to the same moment. **Idempotency**, **cancel safety**: a read.
    ///
    /// # Errors
    /// When the store could not answer, or answered with another record than asked
    /// ([`Error::WrongRecord`](crate::Error::WrongRecord)).
    async fn records(&self, txids: &[Txid], fields: Fields) -> Result<Vec<Option<Record>>>;

    /// Reads outputs with all that a validator needs: amount, script, height, coinbase, state.
    ///
    /// **Atomicity**, **idempotency**, **cancel safety**: as [`records`](Self::records).
    ///
    /// Verdicts: `MissingTransaction`, `MissingOutput`.
    ///
    /// # Errors
    /// As [`records`](Self::records).
    async fn outputs(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<OutputView>>>;
}

/// Blocks, the longest chain and the tip.
#[async_trait]
pub trait BlockStore: Debug + Send + Sync + 'static {
    /// The block up to which the store is connected; `None` when empty.
    ///
    /// **Atomicity**: one value. **Idempotency**, **cancel safety**: a read.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn tip(&self) -> Result<Option<Tip>>;

    /// The block before the tip: what [`disconnect_block`](Self::disconnect_block) asks for and leads
    /// to. `None` for a genesis block, and where the tip can't be disconnected.
    ///
    /// **Atomicity**: one value, of the tip at that moment. **Idempotency**, **cancel safety**: a
    /// read.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn previous_tip(&self) -> Result<Option<Tip>>;

    /// Sets the tip as one value: after seeding, or for those who place transactions with
    /// [`set_mined`](Self::set_mined) themselves.
    ///
    /// **Atomicity**: one value. **Idempotency**: yes. **Cancel safety**: set or not.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn set_tip(&self, tip: &Tip) -> Result<()>;

    /// Records transactions as mined in a block. An entry of the same block is replaced. If it is on
    /// the longest chain, the transaction leaves the unmined ones and its other entries leave that
    /// chain; an entry that leaves it by being replaced makes the transaction unmined since the
    /// block's height.
    ///
    /// **Atomicity**: per transaction. **Idempotency**: yes. **Cancel safety**: each done or undone.
    ///
    /// Verdicts: `UnknownTransaction`, `Conflicting` (for the longest chain only).
    ///
    /// # Errors
    /// When the store could not answer.
    async fn set_mined(&self, txids: &[Txid], mined: &MinedIn) -> Result<Vec<Outcome<Applied>>>;

    /// Forgets that transactions are mined in a block. Where that was the longest chain's, they are
    /// unmined since `unmined_since`.
    ///
    /// **Atomicity**: per transaction. **Idempotency**: no such entry is [`Applied::Before`].
    /// **Cancel safety**: each done or undone.
    ///
    /// Verdicts: `UnknownTransaction`.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn unset_mined(
        &self,
        txids: &[Txid],
        block: &BlockHash,
        unmined_since: u32,
    ) -> Result<Vec<Outcome<Applied>>>;

    /// Marks transactions of a block as on the longest chain or off it: a reorganisation's way to
    /// keep what both branches hold. On takes other entries off and the transaction out of the
    /// unmined ones; off makes it unmined, if that entry was on.
    ///
    /// **Atomicity**: per transaction. **Idempotency**: yes. **Cancel safety**: each done or undone.
    ///
    /// Verdicts: `UnknownTransaction`, `NotMinedIn`, `Conflicting` (for on only).
    ///
    /// # Errors
    /// When the store could not answer.
    async fn set_longest_chain(
        &self,
        txids: &[Txid],
        block: &BlockHash,
        mark: LongestChain,
    ) -> Result<Vec<Outcome<Applied>>>;

    /// Connects the block that follows the tip: for each transaction in order spends its inputs,
    /// creates its record and marks it mined on the longest chain; then moves the tip. Transactions
    /// that are in the store unmined are marked only. Fees not known are filled in. Locks don't
    /// bind blocks; freezes, reassignments and maturity do. A genesis block creates nothing. The
    /// coinbase may replace one of the same identifier that is fully spent, or any where the block
    /// says so (BIP 30).
    ///
    /// **Atomicity**: the whole block with the tip, or nothing, if
    /// [`Capabilities::atomic_blocks`]; otherwise by steps which
    /// [`recover`](MaintenanceStore::recover) or a repetition completes, the tip last.
    /// **Idempotency**: connecting the tip again is [`Applied::Before`].
    /// **Cancel safety**: repeat the call.
    ///
    /// Verdicts: `NotNext`, or `InBlock` with the first transaction refused: an output missing,
    /// spent by another (mark that one conflicting and unspend it: blocks come first, the caller
    /// decides), frozen, immature, `Unconfirmed`; the transaction `Conflicting`, or
    /// `AlreadyExists` on the longest chain, or `Pruned`; `InvalidTransaction` (a coinbase that is
    /// not first, or the first that is none).
    ///
    /// # Errors
    /// When the store could not answer.
    async fn connect_block(&self, block: &ChainBlock) -> Result<Outcome<Connected>>;

    /// Takes back the tip, exactly: transactions that connecting it created are removed and what
    /// they spent is unspent; those that were there before are unmined since when they were; a
    /// replaced coinbase returns. A transaction that carries a lock, a freeze, a reassignment or a
    /// preservation, or an output of which something unmined spends, stays as unmined
    /// since the block's height, so that no mark is lost. One that `set_mined` has put into another
    /// block of the longest chain meanwhile stays mined there.
    /// `previous` is the block before, which tells a repetition from a mistake.
    ///
    /// **Atomicity**: as [`connect_block`](Self::connect_block). **Idempotency**: when `previous`
    /// is the tip already, [`Applied::Before`]. **Cancel safety**: repeat the call.
    ///
    /// Verdicts: `NotTip`, `NoUndo`, `StillSpent` (an unmined transaction spends the block's
    /// coinbase: mark it conflicting and unspend or remove it first).
    ///
    /// # Errors
    /// When the store could not answer.
    async fn disconnect_block(
        &self,
        block: &BlockHash,
        previous: &BlockHash,
    ) -> Result<Outcome<Disconnected>>;
}

/// Freezes and reassignments, as the alert system orders them.
#[async_trait]
pub trait AlertStore: Debug + Send + Sync + 'static {
    /// Freezes outputs: nothing spends them until unfrozen.
    ///
    /// **Atomicity**: per output. **Idempotency**: frozen ones are [`Applied::Before`].
    /// **Cancel safety**: each done or undone.
    ///
    /// Verdicts: `MissingTransaction`, `MissingOutput`, `AlreadySpent`.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn freeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>>;

    /// Takes freezes back. A reassigned output still waits for its height.
    ///
    /// **Atomicity**: per output. **Idempotency**: one that is not frozen is [`Applied::Before`].
    /// **Cancel safety**: each done or undone.
    ///
    /// Verdicts: `MissingTransaction`, `MissingOutput`.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn unfreeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>>;

    /// Gives frozen outputs a new locking script and unfreezes them; they can be spent **at** the
    /// height named. The set's digest has the new script.
    ///
    /// **Atomicity**: per output. **Idempotency**: the same reassignment again is
    /// [`Applied::Before`]. **Cancel safety**: each done or undone.
    ///
    /// Verdicts: `MissingTransaction`, `MissingOutput`, `AlreadySpent`, `NotFrozen`,
    /// `InvalidTransaction` (a script that can't be spent).
    ///
    /// # Errors
    /// When the store could not answer.
    async fn reassign(&self, reassignments: &[Reassignment]) -> Result<Vec<Outcome<Applied>>>;
}

/// Locks and conflicts.
#[async_trait]
pub trait ConflictStore: Debug + Send + Sync + 'static {
    /// Locks or unlocks transactions: outputs of a locked one can't be spent, blocks excepted.
    ///
    /// **Atomicity**: per transaction. **Idempotency**: yes. **Cancel safety**: each done or undone.
    ///
    /// Verdicts: `UnknownTransaction`.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn set_locked(&self, txids: &[Txid], locked: bool) -> Result<Vec<Outcome<Applied>>>;

    /// Marks transactions and all their descendants as conflicting. What they hold stays theirs
    /// until [`unspend`](SpendStore::unspend). Returns the marked ones, those that were so before
    /// too: the transaction, then its descendants by generation, each generation in the order of
    /// its parents and their output indexes.
    ///
    /// **Atomicity**: per item the whole cascade. **Idempotency**: yes. **Cancel safety**: each
    /// done or undone, if need be by [`recover`](MaintenanceStore::recover).
    ///
    /// Verdicts: `UnknownTransaction`, `MinedOnLongestChain` (it or a descendant, a pruned one too).
    ///
    /// # Errors
    /// When the store could not answer.
    async fn mark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>>;

    /// Takes the mark back from transactions that hold all their inputs, each of which must belong
    /// to a transaction without the mark. Children keep theirs.
    ///
    /// **Atomicity**: per transaction. **Idempotency**: without the mark is [`Applied::Before`].
    /// **Cancel safety**: each done or undone.
    ///
    /// Verdicts: `UnknownTransaction`, `MissingTransaction`, `MissingOutput`, `AlreadySpent`,
    /// `ConflictingParent`, `NotSpending` (an input is unspent: call [`spend`](SpendStore::spend)).
    ///
    /// # Errors
    /// When the store could not answer.
    async fn unmark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>>;

    /// What a transaction would have to displace: those that hold an output it names, and their
    /// descendants, by generation. Empty where it holds all its inputs.
    ///
    /// **Atomicity**: as [`records`](SpendStore::records). **Idempotency**, **cancel safety**: a
    /// read.
    ///
    /// Verdicts: `UnknownTransaction`.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn counter_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>>;

    /// Conflicting transactions that name an output of the transaction, ascending: those that were
    /// created or marked as conflicting while it was on record.
    ///
    /// **Atomicity**: as [`records`](SpendStore::records). **Idempotency**, **cancel safety**: a
    /// read.
    ///
    /// Verdicts: `UnknownTransaction`.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn conflicting_children(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>>;
}

/// What stays and what goes.
#[async_trait]
pub trait RetentionStore: Debug + Send + Sync + 'static {
    /// Lists transactions that no block of the longest chain holds, ascending by identifier;
    /// with `older_than` only those unmined since a height below it. At most `limit` a page, and at
    /// least one.
    ///
    /// **Atomicity**: a page is of one moment; pages need not be. What is unmined from the first
    /// page to the last is listed once. **Idempotency**, **cancel safety**: a read.
    ///
    /// # Errors
    /// When the store could not answer, or the cursor is of another adapter.
    async fn unmined(
        &self,
        older_than: Option<u32>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<UnminedTransaction>>;

    /// Keeps transactions from [`prune`](Self::prune) while its horizon is below `until_height`. The last call
    /// counts.
    ///
    /// **Atomicity**: per transaction. **Idempotency**: yes. **Cancel safety**: each done or undone.
    ///
    /// Verdicts: `UnknownTransaction`.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn preserve(&self, txids: &[Txid], until_height: u32) -> Result<Vec<Outcome<Applied>>>;

    /// Removes what nothing at or above `horizon` needs any more:
    /// records confirmed at or below it all of whose outputs are spent by transactions confirmed
    /// at or below it (or pruned before); conflicting records unmined since it or earlier
    /// of which nothing is spent and which hold nothing, until none is left; undo data of blocks
    /// at or below it, which can't be disconnected from then on. Preserved records stay, and what
    /// an unmined transaction spends stays. The confirmed set does not change.
    ///
    /// **Atomicity**: none across records; each removal is whole, and safe in any order.
    /// **Idempotency**: yes; counts are of this call. **Cancel safety**: repeat it.
    ///
    /// # Errors
    /// When the store could not answer; `InvalidRequest` for a horizon above the tip. Without a tip
    /// there is nothing to prune.
    async fn prune(&self, horizon: u32) -> Result<Pruned>;
}

/// The confirmed set: outputs of transactions mined on the longest chain that no such transaction
/// spends, whatever is in the mempool.
#[async_trait]
pub trait ScanStore: Debug + Send + Sync + 'static {
    /// Begins a scan.
    ///
    /// **Atomicity**: the scan sees one moment, tip included, if
    /// [`Capabilities::snapshot_scan`]; writers go on. **Idempotency**, **cancel safety**: a read.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn scan(&self) -> Result<Box<dyn SetScan>>;

    /// The digest of the confirmed set at the tip, as Bitcoin Core's `gettxoutsetinfo muhash`.
    ///
    /// **Atomicity**: digest and tip belong together. **Idempotency**, **cancel safety**: a read.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn digest(&self) -> Result<SetDigest>;
}

/// A scan under way: partitions can be read in parallel.
#[async_trait]
pub trait SetScan: Debug + Send + Sync {
    /// The tip the scan belongs to.
    fn tip(&self) -> Option<Tip>;

    /// How many partitions the set has; at least one.
    fn partitions(&self) -> u32;

    /// Reads the next coins of a partition, at most `limit` and at least one. Begin with `None`; `next` resumes, in
    /// a later scan too. Together the pages have each coin once. Order: see
    /// [`Capabilities::ordered_scan`]; coins of one transaction are next to each other, in one
    /// partition. An error ends nothing: the same page can be asked for again.
    ///
    /// # Errors
    /// When the store could not answer, or the cursor is of another adapter or partition.
    async fn page(
        &self,
        partition: u32,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Coin>>;
}

/// Upkeep.
#[async_trait]
pub trait MaintenanceStore: Debug + Send + Sync + 'static {
    /// Finishes or undoes what a crash interrupted. Run it at start; twice, or beside live traffic,
    /// is safe.
    ///
    /// **Atomicity**: per interrupted change. **Idempotency**: yes. **Cancel safety**: repeat it.
    ///
    /// # Errors
    /// When the store could not answer.
    async fn recover(&self) -> Result<Recovered>;

    /// Waits until all that was acknowledged is durable.
    ///
    /// **Atomicity**: none needed. **Idempotency**: yes. **Cancel safety**: repeat it.
    ///
    /// # Errors
    /// When durability could not be had: the store then refuses further writes.
    async fn flush(&self) -> Result<()>;

    /// How well the store is, with reasons.
    ///
    /// # Errors
    /// When not even that could be found out; count it as not ready.
    async fn health(&self, depth: HealthDepth) -> Result<Health>;
}

/// The whole store: what every adapter offers. Implemented for whatever has all the powers.
pub trait UtxoStore:
    SpendStore + BlockStore + AlertStore + ConflictStore + RetentionStore + ScanStore + MaintenanceStore
{
}

impl<S> UtxoStore for S where
    S: SpendStore
        + BlockStore
        + AlertStore
        + ConflictStore
        + RetentionStore
        + ScanStore
        + MaintenanceStore
        + ?Sized
{
}

/// Implements every trait of the store for a wrapper: `each_call!{ … }` lists all methods once, so
/// that neither a forwarding implementation nor a decorator can forget one.
///
/// `$body!(self, kind, name, items, call)` becomes each method's body. A `chunked` call takes a slice
/// of `items` and may be split; a `whole` one may not, and `items` says how many it is about; `scan`
/// is the one that answers with a scan. Without `$body` the wrapper only forwards.
///
/// Exported for the conformance kit's own wrappers; not part of the stable interface.
#[doc(hidden)]
#[macro_export]
macro_rules! forward_store {
    ([$($generics:tt)*] $wrapper:ty, $inner:ident) => {
        const _: () = {
            use $crate::__straight as straight;
            $crate::forward_store!([$($generics)*] $wrapper, $inner, straight);
        };
    };
    ([$($generics:tt)*] $wrapper:ty, $inner:ident, $body:ident) => {
        #[deny(clippy::missing_trait_methods)]
        #[async_trait::async_trait]
        impl<$($generics)*> $crate::SpendStore for $wrapper {
            fn capabilities(&self) -> $crate::Capabilities {
                self.$inner().capabilities()
            }
            async fn spend_and_create(
                &self,
                transactions: &[$crate::NewTransaction],
                options: &$crate::SpendOptions,
            ) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, spend_and_create, transactions, |part| self.$inner().spend_and_create(part, options))
            }
            async fn create(
                &self,
                records: &[$crate::NewRecord],
            ) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, create, records, |part| self.$inner().create(part))
            }
            async fn spend(
                &self,
                txids: &[$crate::Txid],
                options: &$crate::SpendOptions,
            ) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, spend, txids, |part| self.$inner().spend(part, options))
            }
            async fn unspend(&self, txids: &[$crate::Txid]) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, unspend, txids, |part| self.$inner().unspend(part))
            }
            async fn remove(&self, txids: &[$crate::Txid]) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, remove, txids, |part| self.$inner().remove(part))
            }
            async fn records(
                &self,
                txids: &[$crate::Txid],
                fields: $crate::Fields,
            ) -> $crate::Result<Vec<Option<$crate::Record>>> {
                $body!(self, chunked, records, txids, |part| self.$inner().records(part, fields))
            }
            async fn outputs(
                &self,
                outpoints: &[$crate::OutPoint],
            ) -> $crate::Result<Vec<$crate::Outcome<$crate::OutputView>>> {
                $body!(self, chunked, outputs, outpoints, |part| self.$inner().outputs(part))
            }
        }

        #[deny(clippy::missing_trait_methods)]
        #[async_trait::async_trait]
        impl<$($generics)*> $crate::BlockStore for $wrapper {
            async fn tip(&self) -> $crate::Result<Option<$crate::Tip>> {
                $body!(self, whole, tip, 1, || self.$inner().tip())
            }
            async fn previous_tip(&self) -> $crate::Result<Option<$crate::Tip>> {
                $body!(self, whole, previous_tip, 1, || self.$inner().previous_tip())
            }
            async fn set_tip(&self, tip: &$crate::Tip) -> $crate::Result<()> {
                $body!(self, whole, set_tip, 1, || self.$inner().set_tip(tip))
            }
            async fn set_mined(
                &self,
                txids: &[$crate::Txid],
                mined: &$crate::MinedIn,
            ) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, set_mined, txids, |part| self.$inner().set_mined(part, mined))
            }
            async fn unset_mined(
                &self,
                txids: &[$crate::Txid],
                block: &$crate::BlockHash,
                unmined_since: u32,
            ) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, unset_mined, txids, |part| self.$inner().unset_mined(part, block, unmined_since))
            }
            async fn set_longest_chain(
                &self,
                txids: &[$crate::Txid],
                block: &$crate::BlockHash,
                mark: $crate::LongestChain,
            ) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, set_longest_chain, txids, |part| self.$inner().set_longest_chain(part, block, mark))
            }
            async fn connect_block(
                &self,
                block: &$crate::ChainBlock,
            ) -> $crate::Result<$crate::Outcome<$crate::Connected>> {
                $body!(self, whole, connect_block, block.transactions.len(), || self.$inner().connect_block(block))
            }
            async fn disconnect_block(
                &self,
                block: &$crate::BlockHash,
                previous: &$crate::BlockHash,
            ) -> $crate::Result<$crate::Outcome<$crate::Disconnected>> {
                $body!(self, whole, disconnect_block, 1, || self.$inner().disconnect_block(block, previous))
            }
        }

        #[deny(clippy::missing_trait_methods)]
        #[async_trait::async_trait]
        impl<$($generics)*> $crate::AlertStore for $wrapper {
            async fn freeze(&self, outpoints: &[$crate::OutPoint]) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, freeze, outpoints, |part| self.$inner().freeze(part))
            }
            async fn unfreeze(&self, outpoints: &[$crate::OutPoint]) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, unfreeze, outpoints, |part| self.$inner().unfreeze(part))
            }
            async fn reassign(
                &self,
                reassignments: &[$crate::Reassignment],
            ) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, reassign, reassignments, |part| self.$inner().reassign(part))
            }
        }

        #[deny(clippy::missing_trait_methods)]
        #[async_trait::async_trait]
        impl<$($generics)*> $crate::ConflictStore for $wrapper {
            async fn set_locked(
                &self,
                txids: &[$crate::Txid],
                locked: bool,
            ) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, set_locked, txids, |part| self.$inner().set_locked(part, locked))
            }
            async fn mark_conflicting(
                &self,
                txids: &[$crate::Txid],
            ) -> $crate::Result<Vec<$crate::Outcome<Vec<$crate::Txid>>>> {
                $body!(self, chunked, mark_conflicting, txids, |part| self.$inner().mark_conflicting(part))
            }
            async fn unmark_conflicting(
                &self,
                txids: &[$crate::Txid],
            ) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, unmark_conflicting, txids, |part| self.$inner().unmark_conflicting(part))
            }
            async fn counter_conflicting(
                &self,
                txids: &[$crate::Txid],
            ) -> $crate::Result<Vec<$crate::Outcome<Vec<$crate::Txid>>>> {
                $body!(self, chunked, counter_conflicting, txids, |part| self.$inner().counter_conflicting(part))
            }
            async fn conflicting_children(
                &self,
                txids: &[$crate::Txid],
            ) -> $crate::Result<Vec<$crate::Outcome<Vec<$crate::Txid>>>> {
                $body!(self, chunked, conflicting_children, txids, |part| self.$inner().conflicting_children(part))
            }
        }

        #[deny(clippy::missing_trait_methods)]
        #[async_trait::async_trait]
        impl<$($generics)*> $crate::RetentionStore for $wrapper {
            async fn unmined(
                &self,
                older_than: Option<u32>,
                after: Option<&$crate::Cursor>,
                limit: usize,
            ) -> $crate::Result<$crate::Page<$crate::UnminedTransaction>> {
                $body!(self, whole, unmined, limit, || self.$inner().unmined(older_than, after, limit))
            }
            async fn preserve(
                &self,
                txids: &[$crate::Txid],
                until_height: u32,
            ) -> $crate::Result<Vec<$crate::Outcome<$crate::Applied>>> {
                $body!(self, chunked, preserve, txids, |part| self.$inner().preserve(part, until_height))
            }
            async fn prune(&self, horizon: u32) -> $crate::Result<$crate::Pruned> {
                $body!(self, whole, prune, 1, || self.$inner().prune(horizon))
            }
        }

        #[deny(clippy::missing_trait_methods)]
        #[async_trait::async_trait]
        impl<$($generics)*> $crate::ScanStore for $wrapper {
            async fn scan(&self) -> $crate::Result<Box<dyn $crate::SetScan>> {
                $body!(self, scan, scan, 1, || self.$inner().scan())
            }
            async fn digest(&self) -> $crate::Result<$crate::SetDigest> {
                $body!(self, whole, digest, 1, || self.$inner().digest())
            }
        }

        #[deny(clippy::missing_trait_methods)]
        #[async_trait::async_trait]
        impl<$($generics)*> $crate::MaintenanceStore for $wrapper {
            async fn recover(&self) -> $crate::Result<$crate::Recovered> {
                $body!(self, whole, recover, 1, || self.$inner().recover())
            }
            async fn flush(&self) -> $crate::Result<()> {
                $body!(self, whole, flush, 1, || self.$inner().flush())
            }
            async fn health(&self, depth: $crate::HealthDepth) -> $crate::Result<$crate::Health> {
                $body!(self, whole, health, 1, || self.$inner().health(depth))
            }
        }
    };
}
pub(crate) use forward_store;

/// The body of a method that only forwards.
#[doc(hidden)]
#[macro_export]
macro_rules! __straight {
    ($self:ident, chunked, $name:ident, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        $call.await
    }};
    ($self:ident, $kind:ident, $name:ident, $items:expr, || $call:expr) => {
        $call.await
    };
}

/// Gives shared pointers the one method that `forward_store` asks for.
trait Inner {
    type Store: UtxoStore + ?Sized;
    fn inner(&self) -> &Self::Store;
}

impl<S: UtxoStore + ?Sized> Inner for Arc<S> {
    type Store = S;
    fn inner(&self) -> &S {
        self
    }
}

impl<S: UtxoStore + ?Sized> Inner for Box<S> {
    type Store = S;
    fn inner(&self) -> &S {
        self
    }
}

impl<S: UtxoStore + ?Sized> Inner for &'static S {
    type Store = S;
    fn inner(&self) -> &S {
        self
    }
}

forward_store!([S: UtxoStore + ?Sized] Arc<S>, inner);
forward_store!([S: UtxoStore + ?Sized] Box<S>, inner);
forward_store!([S: UtxoStore + ?Sized] &'static S, inner);
