//! Records, slots, coins and the tip: what a store keeps.

use groundtackle_chain::{BlockHash, OutPoint, Transaction, TxOut, Txid};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Blocks until a coinbase output may be spent: one made at height h can be spent at h + 100.
pub const COINBASE_MATURITY: u32 = 100;

/// The block up to which a store is connected, read and written as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tip {
    /// Blocks before this one.
    pub height: u32,
    /// The block's hash.
    pub hash: BlockHash,
    /// Median time past (BIP 113), in seconds since 1970.
    pub median_time_past: u32,
}

impl Tip {
    /// For adapters: what pruning asks of its horizon.
    ///
    /// # Errors
    /// `InvalidRequest` for one above this tip.
    pub fn check_horizon(&self, horizon: u32) -> Result<()> {
        if horizon > self.height {
            return Err(Error::invalid_request(format!(
                "the horizon {horizon} is above the tip at {}: prune at or below it",
                self.height
            )));
        }
        Ok(())
    }
}

/// The input that holds an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpentBy {
    /// The spending transaction.
    pub txid: Txid,
    /// The index of the input there.
    pub vin: u32,
}

/// What may be done with an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SlotState {
    /// Nobody holds it.
    Unspent,
    /// An input holds it.
    Spent(SpentBy),
    /// The alert system froze it.
    Frozen,
    /// The alert system gave it another locking script; otherwise as `Unspent`.
    Reassigned {
        /// The first height of a block that may spend it.
        spendable_from: u32,
    },
}

/// A spendable output of a record, and its slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordOutput {
    /// The index in the transaction.
    pub vout: u32,
    /// Amount and locking script; after a reassignment the new script.
    pub output: TxOut,
    /// The input that holds it.
    pub spent_by: Option<SpentBy>,
    /// Whether the alert system froze it. A spent output is never frozen.
    pub frozen: bool,
    /// The first height at which a reassigned output may be spent. It outlives freeze and spend, so
    /// that neither an unfreeze nor an unspend opens the output early.
    pub spendable_from: Option<u32>,
}

impl RecordOutput {
    /// An output that nobody has touched.
    pub const fn unspent(vout: u32, output: TxOut) -> Self {
        Self {
            vout,
            output,
            spent_by: None,
            frozen: false,
            spendable_from: None,
        }
    }

    /// The slot as one state: spent before frozen before reassigned.
    pub const fn state(&self) -> SlotState {
        match (self.spent_by, self.frozen, self.spendable_from) {
            (Some(by), _, _) => SlotState::Spent(by),
            (None, true, _) => SlotState::Frozen,
            (None, false, Some(spendable_from)) => SlotState::Reassigned { spendable_from },
            (None, false, None) => SlotState::Unspent,
        }
    }
}

/// A block that a transaction is mined in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MinedIn {
    /// The block; `None` for coins of a snapshot, which names heights only.
    pub block: Option<BlockHash>,
    /// Its height.
    pub height: u32,
    /// Which subtree of the block holds the transaction, for chains that have them; otherwise 0.
    pub subtree_index: u32,
    /// Whether the block is on the longest chain. At most one entry of a record is.
    pub on_longest_chain: bool,
}

/// What a store keeps of one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The transaction.
    pub txid: Txid,
    /// Whether it is a coinbase.
    pub coinbase: bool,
    /// The fee in satoshis: as the caller gave it, otherwise filled in by `connect_block`.
    pub fee_sat: Option<u64>,
    /// The transaction's size in bytes; 0 for coins of a snapshot.
    pub size_bytes: u64,
    /// The lock time field, raw.
    pub lock_time: u32,
    /// The outpoints it names; empty for a coinbase and for coins of a snapshot, and where
    /// [`Fields::inputs`] was not asked for.
    pub inputs: Vec<OutPoint>,
    /// The outputs that can be spent, ascending by index; empty where [`Fields::outputs`] was not
    /// asked for.
    pub outputs: Vec<RecordOutput>,
    /// The blocks it is mined in, in the order in which they were recorded.
    pub mined_in: Vec<MinedIn>,
    /// The height since which no block of the longest chain holds it; `None` while one does.
    pub unmined_since: Option<u32>,
    /// A locked transaction's outputs can't be spent, blocks excepted.
    pub locked: bool,
    /// A conflicting transaction's outputs can't be spent, and it need not hold its inputs. All
    /// others hold each of theirs.
    pub conflicting: bool,
    /// Conflicting transactions that name an output of this one, ascending; see
    /// [`conflicting_children`](crate::ConflictStore::conflicting_children).
    pub conflicting_children: Vec<Txid>,
    /// Kept by [`prune`](crate::RetentionStore::prune) below this horizon.
    pub preserve_until: Option<u32>,
}

impl Record {
    /// A copy without inputs and outputs.
    #[must_use]
    pub fn head(&self) -> Self {
        Self {
            txid: self.txid,
            coinbase: self.coinbase,
            fee_sat: self.fee_sat,
            size_bytes: self.size_bytes,
            lock_time: self.lock_time,
            inputs: Vec::new(),
            outputs: Vec::new(),
            mined_in: self.mined_in.clone(),
            unmined_since: self.unmined_since,
            locked: self.locked,
            conflicting: self.conflicting,
            conflicting_children: self.conflicting_children.clone(),
            preserve_until: self.preserve_until,
        }
    }

    /// The height at which the transaction is confirmed on the longest chain.
    pub fn confirmed_height(&self) -> Option<u32> {
        self.mined_in
            .iter()
            .find(|mined| mined.on_longest_chain)
            .map(|mined| mined.height)
    }
}

/// Which parts of a record to read. The rest of a record is small and always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fields {
    /// The outpoints it names.
    pub inputs: bool,
    /// The outputs and their slots: up to a million.
    pub outputs: bool,
}

impl Fields {
    /// The whole record.
    pub const ALL: Self = Self {
        inputs: true,
        outputs: true,
    };
    /// Neither inputs nor outputs.
    pub const META: Self = Self {
        inputs: false,
        outputs: false,
    };
}

/// An output of the confirmed set: what Bitcoin Core calls a coin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coin {
    /// Its name.
    pub outpoint: OutPoint,
    /// Amount and locking script.
    pub output: TxOut,
    /// The height of the block that made it.
    pub height: u32,
    /// Whether a coinbase made it.
    pub coinbase: bool,
}

/// An output with all that a validator needs to know about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputView {
    /// Its name.
    pub outpoint: OutPoint,
    /// Amount and locking script.
    pub output: TxOut,
    /// The height at which its transaction is confirmed on the longest chain.
    pub height: Option<u32>,
    /// Whether a coinbase made it.
    pub coinbase: bool,
    /// The slot.
    pub state: SlotState,
    /// Whether the transaction is locked.
    pub locked: bool,
    /// Whether the transaction is marked conflicting.
    pub conflicting: bool,
}

impl OutputView {
    /// An output and its record, whose own outputs don't count.
    pub fn new(record: &Record, slot: RecordOutput) -> Self {
        Self {
            outpoint: OutPoint::new(record.txid, slot.vout),
            state: slot.state(),
            output: slot.output,
            height: record.confirmed_height(),
            coinbase: record.coinbase,
            locked: record.locked,
            conflicting: record.conflicting,
        }
    }
}

/// A transaction that spends and creates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTransaction {
    /// The transaction.
    pub tx: Transaction,
    /// Its fee in satoshis, if the caller knows it; kept as given.
    pub fee_sat: Option<u64>,
    /// What the caller believes to spend, one per input; empty: not compared.
    pub expected: Vec<TxOut>,
}

impl From<Transaction> for NewTransaction {
    fn from(tx: Transaction) -> Self {
        Self {
            tx,
            fee_sat: None,
            expected: Vec::new(),
        }
    }
}

/// What a spend is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendOptions {
    /// The height of the block being built, the tip's plus one: outputs are spendable **at** a
    /// height. New records are unmined since this height.
    pub height: u32,
    /// Blocks until a coinbase output may be spent.
    pub coinbase_maturity: u32,
    /// Spend outputs of locked transactions too.
    pub ignore_locked: bool,
    /// Create the record locked.
    pub lock: bool,
}

impl SpendOptions {
    /// The usual rules for a block at `height`: maturity of 100 blocks, locks respected.
    pub const fn at(height: u32) -> Self {
        Self {
            height,
            coinbase_maturity: COINBASE_MATURITY,
            ignore_locked: false,
            lock: false,
        }
    }
}

/// Whether a call changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Applied {
    /// It did.
    Now,
    /// All was so already.
    Before,
}

/// A record without spending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewRecord {
    /// A block's coinbase.
    Coinbase {
        /// The transaction.
        tx: Transaction,
        /// The block.
        mined: MinedIn,
    },
    /// Coins of a snapshot; what else the transaction had is not known.
    Seed {
        /// The transaction.
        txid: Txid,
        /// Whether it is a coinbase.
        coinbase: bool,
        /// The height at which it is confirmed.
        height: u32,
        /// The unspent outputs, ascending by index.
        outputs: Vec<(u32, TxOut)>,
    },
    /// A transaction that lost to another one, kept in case the other one falls. It holds none of
    /// its inputs.
    Conflicting {
        /// The transaction.
        tx: Transaction,
        /// Its fee in satoshis, if known.
        fee_sat: Option<u64>,
        /// The height since which it is known.
        unmined_since: u32,
    },
}

impl NewRecord {
    /// The transaction.
    pub const fn txid(&self) -> Txid {
        match self {
            Self::Coinbase { tx, .. } | Self::Conflicting { tx, .. } => tx.txid,
            Self::Seed { txid, .. } => *txid,
        }
    }
}

/// Gives an output a new owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reassignment {
    /// The output; it must be frozen.
    pub outpoint: OutPoint,
    /// Who may spend it from now on; the amount stays.
    pub script: groundtackle_chain::Script,
    /// The first height of a block that may spend it.
    pub spendable_from: u32,
}

/// Which mark to set for the longest chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LongestChain {
    /// The block is on it.
    On,
    /// The block has left it.
    Off {
        /// The height since which its transactions count as unmined.
        unmined_since: u32,
    },
}

/// A block that is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// Whether this call did it.
    pub applied: Applied,
    /// Slots created: outputs of the block that can be spent.
    pub created_outputs: u64,
    /// The coins spent, in the block's order; those made by the same block have its height. Where
    /// it was connected before, as far as the store still has undo data of it.
    pub spent: Vec<Coin>,
}

/// A block that was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnected {
    /// Whether this call did it.
    pub applied: Applied,
    /// Transactions of the block that stay in the store as unmined.
    pub kept_unmined: u64,
    /// The tip now.
    pub tip: Option<Tip>,
}

/// A transaction that no block of the longest chain holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnminedTransaction {
    /// The transaction.
    pub txid: Txid,
    /// The height since which.
    pub unmined_since: u32,
}

/// What [`prune`](crate::RetentionStore::prune) removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Records removed.
    pub records: u64,
    /// Blocks whose undo data was removed.
    pub blocks: u64,
}

impl Pruned {
    /// For adapters: the answer of a prune that removed this and then ended so. An error after anything has gone is
    /// [indeterminate](Error::after_effect), but for `InvalidRequest`: the tip has gone below the horizon meanwhile.
    ///
    /// # Errors
    /// The one it ended with.
    pub fn when(self, done: Result<()>, backend: &'static str) -> Result<Self> {
        match done {
            Err(error @ Error::InvalidRequest { .. }) => Err(error),
            Err(error) if self != Self::default() => Err(error.after_effect(backend, "prune")),
            done => done.map(|()| self),
        }
    }
}

/// What [`recover`](crate::MaintenanceStore::recover) found unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Changes finished.
    pub rolled_forward: u64,
    /// Changes undone.
    pub rolled_back: u64,
}

/// How well a store is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether reads and writes are expected to succeed.
    pub ready: bool,
    /// Why not, or what will soon be a problem. Empty where all is well.
    pub reasons: Vec<String>,
}

impl Health {
    /// For adapters: as it was when something was tried. An error is the reason, with its cause.
    pub fn of(tried: Result<()>) -> Self {
        let reason = |error: Error| match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        let reasons: Vec<_> = tried.err().into_iter().map(reason).collect();
        Self {
            ready: reasons.is_empty(),
            reasons,
        }
    }
}

/// How deep to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthDepth {
    /// Cheap, touches no disk and no network: is this process able to answer?
    Liveness,
    /// Reads from the backend: can it answer, and will it go on?
    Readiness,
}

/// A page of a longer answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// For adapters: the first `limit` of items of which one more was asked for, to see whether there are more.
    pub fn first(limit: usize, mut items: Vec<T>, place: impl Fn(&T) -> Cursor) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(place);
        Self { items, next }
    }
}

/// A place in a scan: opaque, small, valid as long as the scan's store, and for the adapter that
/// made it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor(Vec<u8>);

impl Cursor {
    /// From an adapter's bytes.
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The adapter's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Txid> for Cursor {
    fn from(txid: Txid) -> Self {
        Self(txid.as_bytes().to_vec())
    }
}

impl From<OutPoint> for Cursor {
    fn from(outpoint: OutPoint) -> Self {
        let mut bytes = outpoint.txid.as_bytes().to_vec();
        bytes.extend_from_slice(&outpoint.vout.to_be_bytes());
        Self(bytes)
    }
}

impl Cursor {
    /// The transaction that a cursor made from one names.
    ///
    /// # Errors
    /// `InvalidRequest` when it was made from something else.
    pub fn txid(&self) -> Result<Txid> {
        <[u8; 32]>::try_from(self.as_bytes())
            .map(Txid::from_bytes)
            .map_err(|_| not_ours())
    }

    /// The outpoint that a cursor made from one names.
    ///
    /// # Errors
    /// `InvalidRequest` when it was made from something else.
    pub fn outpoint(&self) -> Result<OutPoint> {
        match self.as_bytes().split_first_chunk::<32>() {
            Some((txid, vout)) => match vout.try_into() {
                Ok(vout) => Ok(OutPoint::new(
                    Txid::from_bytes(*txid),
                    u32::from_be_bytes(vout),
                )),
                Err(_) => Err(not_ours()),
            },
            None => Err(not_ours()),
        }
    }
}

fn not_ours() -> Error {
    Error::invalid_request(
        "the cursor was made by another adapter or for another kind of scan; begin again without",
    )
}

/// The digest of the confirmed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetDigest {
    /// The tip it belongs to.
    pub tip: Option<Tip>,
    /// MuHash3072, internal order: print it reversed.
    pub muhash: [u8; 32],
}

/// Which outputs get no slot since nobody can ever spend them. It belongs to the chain, so a store
/// keeps it for life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UnspendableRule {
    /// As Bitcoin Core: scripts that begin with `OP_RETURN` or are longer than 10,000 bytes.
    #[default]
    Core,
    /// Scripts that begin with `OP_FALSE OP_RETURN`, of any length: chains that lifted the script
    /// limits. Digests agree with Core's only where no output falls under just one of the rules.
    FalseReturn,
}

impl UnspendableRule {
    /// Whether the rule denies `script` a slot.
    pub fn is_unspendable(self, script: &groundtackle_chain::Script) -> bool {
        match self {
            Self::Core => script.is_unspendable(),
            Self::FalseReturn => script
                .as_bytes()
                .starts_with(&[0x00, groundtackle_chain::model::OP_RETURN]),
        }
    }
}

/// What an adapter can do, for callers and for the conformance kit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The adapter's name.
    pub backend: &'static str,
    /// What was acknowledged outlives the process.
    pub persistent: bool,
    /// A scan sees the set as it was when it began, while writers go on.
    pub snapshot_scan: bool,
    /// A partition's coins come ascending by transaction identifier (internal bytes), then index, and
    /// partitions follow each other.
    pub ordered_scan: bool,
    /// [`digest`](crate::ScanStore::digest) is kept from change to change and costs no scan.
    pub incremental_digest: bool,
    /// A block is connected and disconnected whole or not at all; otherwise by resumable steps.
    pub atomic_blocks: bool,
    /// Items that one call may carry; larger calls are an error.
    pub max_batch_items: Option<usize>,
}

impl Capabilities {
    /// The least that an adapter can promise; set what it does better.
    pub const fn new(backend: &'static str) -> Self {
        Self {
            backend,
            persistent: false,
            snapshot_scan: false,
            ordered_scan: false,
            incremental_digest: false,
            atomic_blocks: false,
            max_batch_items: None,
        }
    }
}
