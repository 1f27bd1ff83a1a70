//! What lies in the backend, and what is asked of it: one cell at a time.

use std::collections::BTreeMap;
use std::fmt::Debug;

use async_trait::async_trait;
use groundtackle_chain::{BlockHash, TxOut, Txid};

use crate::error::Result;
use crate::types::{Health, HealthDepth, SpentBy, UnminedTransaction};

/// Names a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CellKey {
    /// A page of a transaction's record. Page 0 has the head; page n has the outputs from n times
    /// [`OUTPUTS_PER_PAGE`](super::OUTPUTS_PER_PAGE) on.
    Page {
        /// The transaction.
        txid: Txid,
        /// The page's number.
        page: u32,
    },
    /// The tip and the running digest: one value.
    Chain,
    /// What taking a block back needs.
    Undo(BlockHash),
    /// Transactions at which a pruning to this height has to look.
    Due {
        /// The height.
        height: u32,
        /// Tells those of one height apart.
        id: u64,
    },
    /// A change to several cells that is under way.
    Intent(u64),
    /// A piece of a value that is too long for the cell it belongs to.
    Part {
        /// The value.
        id: u64,
        /// The piece's number.
        part: u32,
    },
}

impl CellKey {
    /// Page 0 of a transaction's record.
    pub const fn head(txid: Txid) -> Self {
        Self::Page { txid, page: 0 }
    }
}

/// What [`Cells::due`] lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueKind {
    /// [`CellKey::Undo`].
    Undo,
    /// [`CellKey::Due`].
    List,
}

impl DueKind {
    /// The kind of a cell, if it is of one.
    pub const fn of(key: &CellKey) -> Option<Self> {
        match key {
            CellKey::Undo(_) => Some(Self::Undo),
            CellKey::Due { .. } => Some(Self::List),
            _ => None,
        }
    }
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Drawn by lot at every change, so that whoever read the cell can tell whether it is the same.
    pub stamp: u64,
    /// Held by a change to several cells: nobody else changes the cell meanwhile.
    pub lock: Option<Lock>,
    /// What it holds; `None` in a cell that is there only because it is locked.
    pub body: Option<Body>,
}

/// A cell held by a change to several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The change's [`CellKey::Intent`].
    pub intent: u64,
    /// What becomes of the cell if the change is committed.
    pub next: Next,
}

/// What becomes of a locked cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It stays as it is.
    Keep,
    /// It goes.
    Delete,
    /// It holds this.
    Put(Body),
}

/// What a cell holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A page of a record.
    Page(Page),
    /// All else, encoded.
    Bytes {
        /// The height up to which [`Cells::due`] lists the cell.
        due: Option<u32>,
        /// The value.
        bytes: Stored,
    },
}

/// A value, here or in [`CellKey::Part`] cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Here.
    Here(Vec<u8>),
    /// In parts.
    Apart {
        /// Which.
        id: u64,
        /// Bytes in all.
        len: u64,
    },
}

/// How far a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its inputs are being marked: it is not there yet, and nothing spends from it.
    Pending,
    /// It is there.
    Live,
    /// It was given up: its marks are being taken back.
    Aborted,
}

/// A page of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Drawn by lot for each record: its marks name it. All pages of a record have the same.
    pub attempt: u64,
    /// How far the record is.
    pub phase: Phase,
    /// What spending from the page depends on besides the slot.
    pub guard: Guard,
    /// On page 0: the height since which no block of the longest chain holds the transaction.
    pub unmined_since: Option<u32>,
    /// On page 0: the record without its outputs, encoded.
    pub head: Option<Stored>,
    /// The page's outputs.
    pub slots: BTreeMap<u32, Slot>,
}

/// What spending depends on besides the slot; each page has a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// See [`Record::coinbase`](crate::Record::coinbase).
    pub coinbase: bool,
    /// See [`Record::locked`](crate::Record::locked).
    pub locked: bool,
    /// See [`Record::conflicting`](crate::Record::conflicting).
    pub conflicting: bool,
    /// The height at which the transaction is confirmed; on page 0, and of a coinbase on each.
    pub height: Option<u32>,
}

/// An output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The amount.
    pub value_sat: u64,
    /// The locking script.
    pub script: Stored,
    /// Who holds it, if that holds.
    pub mark: Option<Mark>,
    /// See [`RecordOutput::frozen`](crate::RecordOutput::frozen).
    pub frozen: bool,
    /// See [`RecordOutput::spendable_from`](crate::RecordOutput::spendable_from).
    pub spendable_from: Option<u32>,
}

/// The mark of a spender on an output. **It holds if the spender's record is there, live, with this
/// attempt**; a settled mark always holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The input.
    pub by: SpentBy,
    /// [`Page::attempt`] of the spender's record; 0 is settled: the spender has been pruned.
    pub attempt: u64,
}

/// A wish to mark one output.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The transaction that made the output.
    pub parent: Txid,
    /// The output's page.
    pub page: u32,
    /// The output.
    pub vout: u32,
    /// The mark to put.
    pub mark: Mark,
    /// The height of the block that would spend.
    pub height: u32,
    /// Blocks until a coinbase output may be spent.
    pub coinbase_maturity: u32,
    /// Whether locks don't bind.
    pub ignore_locked: bool,
    /// What the output has to be.
    pub expected: Option<TxOut>,
}

impl Cell {
    /// Whether a claim on this cell is granted: what [`Cells::mark`] has to decide and do as one.
    /// `Some(true)`: put the mark and draw a stamp; `Some(false)`: it is there already.
    pub fn admits(&self, claim: &Claim) -> Option<bool> {
        let (None, Some(Body::Page(page))) = (&self.lock, &self.body) else {
            return None;
        };
        let slot = page.slots.get(&claim.vout)?;
        if slot.mark == Some(claim.mark) {
            return Some(false);
        }
        let guard = &page.guard;
        let ripe = !guard.coinbase
            || guard
                .height
                .and_then(|height| height.checked_add(claim.coinbase_maturity))
                .is_some_and(|height| height <= claim.height);
        let as_expected = claim.expected.as_ref().is_none_or(|expected| {
            expected.value_sat == slot.value_sat
                && matches!(&slot.script, Stored::Here(script) if script == expected.script.as_bytes())
        });
        let granted = slot.mark.is_none()
            && !slot.frozen
            && slot
                .spendable_from
                .is_none_or(|height| height <= claim.height)
            && page.phase == Phase::Live
            && !guard.conflicting
            && (!guard.locked || claim.ignore_locked)
            && ripe
            && as_expected;
        granted.then_some(true)
    }
}

/// A change to one cell, provided that it is as it was read.
#[derive(Clone, Debug)]
pub struct Write {
    /// Which.
    pub key: CellKey,
    /// The stamp it must have; `None`: it must not be there.
    pub expect: Option<u64>,
    /// What it is from then on; `None`: it goes.
    pub cell: Option<Cell>,
}

/// A record's step out of [`Phase::Pending`], in which it has page 0 only.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The transaction.
    pub txid: Txid,
    /// The attempt that page 0 must have.
    pub attempt: u64,
    /// To live, or to aborted.
    pub to: Phase,
}

/// A backend that changes one cell at a time: all that an adapter gives to
/// [`PendingUtxoStore`](super::PendingUtxoStore). [`MemoryCells`](super::MemoryCells) is the specification.
///
/// Each item of a call is atomic by itself and independent of the others: any of them may have been
/// carried out when a call fails, and it is repeated then. An error after any effect must be
/// [`Indeterminate`](groundtackle_core::Retryability::Indeterminate): others are told that nothing was applied. What was
/// carried out is seen by every later read, by key and by list, of any client.
///
/// Any call may be dropped at any await; what has been sent may still be carried out, and a late one
/// does no harm: conditions are on stamps, attempts and locks, which never return. "It is not there" does
/// return, so that a cell by which others are found, a record's head or an intent, is sent only once: the
/// backend must not repeat a [`write`](Self::write) by itself either.
#[async_trait]
pub trait Cells: Debug + Send + Sync + 'static {
    /// The adapter's name, for errors.
    fn backend(&self) -> &'static str;

    /// Whether the cells outlive this process: see
    /// [`Capabilities::persistent`](crate::Capabilities::persistent).
    fn is_persistent(&self) -> bool;

    /// Into how many partitions [`scan`](Self::scan) divides the records; at least one.
    fn partitions(&self) -> u32;

    /// The partition of a transaction's record.
    fn partition_of(&self, txid: &Txid) -> u32;

    /// Reads cells.
    ///
    /// # Errors
    /// When the backend could not answer for all of them.
    async fn read(&self, keys: &[CellKey]) -> Result<Vec<Option<Cell>>>;

    /// Writes cells that are as expected; says of each whether it was. A cell that has the new stamp already
    /// was written before its answer was lost: it counts as written now, and so is acknowledged by as many copies
    /// as any write. No two of one call are of one cell.
    ///
    /// # Errors
    /// When the fate of any item is not known.
    async fn write(&self, writes: &[Write]) -> Result<Vec<bool>>;

    /// Puts marks where [`Cell::admits`] grants them; says of each whether the mark is there now. It
    /// may refuse one that would be granted.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    async fn mark(&self, claims: &[Claim]) -> Result<Vec<bool>>;

    /// Takes marks back where they are and the cell is not locked, and draws a stamp; otherwise does
    /// nothing. Of the claims only place and mark count.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    async fn unmark(&self, claims: &[Claim]) -> Result<()>;

    /// Changes the phase of records that are pending in that attempt, and draws a stamp; says of each whether
    /// it was. One that is in the new phase of that attempt already counts as changed now, as with
    /// [`write`](Self::write). A pending record is never locked.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    async fn step(&self, steps: &[Step]) -> Result<Vec<bool>>;

    /// Live records that are unmined, ascending by transaction, at most `limit`.
    ///
    /// # Errors
    /// When the backend could not answer.
    async fn unmined(&self, after: Option<Txid>, limit: usize) -> Result<Vec<UnminedTransaction>>;

    /// Intents, and records that are not live, of one of as many partitions as a scan has: at most `limit`,
    /// in any order; fewer only where there are no more.
    ///
    /// # Errors
    /// When the backend could not answer.
    async fn unfinished(&self, partition: u32, limit: usize) -> Result<Vec<CellKey>>;

    /// Cells of a kind with [`Body::Bytes`] that are due at this height or below: at most `limit`, in any
    /// order; none only where there are none.
    ///
    /// # Errors
    /// When the backend could not answer.
    async fn due(&self, kind: DueKind, height: u32, limit: usize) -> Result<Vec<CellKey>>;

    /// Live records of a partition that are confirmed, in an order of the backend's own that does not
    /// change, after that of one: at most `limit`; fewer only at the partition's end.
    ///
    /// # Errors
    /// When the backend could not answer.
    async fn scan(&self, partition: u32, after: Option<Txid>, limit: usize) -> Result<Vec<Txid>>;

    /// Waits until all that was acknowledged is durable.
    ///
    /// # Errors
    /// When that could not be had.
    async fn flush(&self) -> Result<()>;

    /// How well the backend is.
    ///
    /// # Errors
    /// When not even that could be found out.
    async fn health(&self, depth: HealthDepth) -> Result<Health>;
}
