//! For adapters of backends that are read and written by batches: judge in memory, write once.
//!
//! A call is drawn up over what was read, and asks for more when it meets what was not:
//!
//! 1. Begin with the [`Reads`] that the call is sure to need ([`Reads::of_inputs`], for instance).
//! 2. Read all of them at once, and tell [`Loaded`] what is there.
//! 3. Run the [operations](ops) of the call over a new [`Draft`], item by item; see [`run`].
//! 4. [`Run::Incomplete`]: read what is missing too, and judge anew. It ends, since each round
//!    reads something new.
//! 5. [`Run::Done`]: write all [`Changes`] at once, provided that nothing read has changed since.
//!
//! How the adapter keeps what it has read from changing (locks in the order of [`Reads`], compare and
//! set, one writer) is its own affair. [`Changes::doubtful`] names what must be looked at once more
//! where a read could have missed a record that was being created.
//!
//! Single slots are read, never whole records, where that is enough: a parent may have a million.
//!
//! An adapter implements [`DraftStore`], [`call`](DraftStore::call) above all, and has
//! [`draft_store!`](crate::draft_store) make the store's traits of it.

mod blocks;
mod hash;
pub mod ops;
mod store;

use std::collections::hash_map::Entry as Place;
use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;

use groundtackle_chain::{BlockHash, OutPoint, Txid};
pub use hash::{TxidHash, TxidHasher, TxidMap};
use serde::{Deserialize, Serialize};
pub use store::{Call, DraftStore, Drafts, Operation, Pruning, page_of_unmined};

use crate::digest::{MuHash3072, coin_element};
use crate::error::Error;
use crate::types::{Coin, Fields, MinedIn, Record, RecordOutput, SpentBy, Tip, UnspendableRule};
use crate::verdict::{Outcome, Verdict};

/// Rounds of looking for what a call needs; each is a generation of a cascade.
pub const MOST_ROUNDS: usize = 100_000;

/// Coins from which on it is worth to multiply on all cores.
const PARALLEL_COINS: usize = 256;

/// What is to be read. Sets are ordered, so that who locks in their order can't lock another out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Records, without inputs and outputs.
    pub records: BTreeSet<Txid>,
    /// The inputs of records; each is among `records` too.
    pub inputs: BTreeSet<Txid>,
    /// All outputs of records; each is among `records` too.
    pub outputs: BTreeSet<Txid>,
    /// Single outputs; their transactions are among `records` too.
    pub slots: BTreeSet<OutPoint>,
    /// The undo data of blocks.
    pub undo: BTreeSet<BlockHash>,
}

impl Reads {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.inputs.is_empty()
            && self.outputs.is_empty()
            && self.slots.is_empty()
            && self.undo.is_empty()
    }

    /// A record.
    pub fn record(&mut self, txid: Txid) {
        self.records.insert(txid);
    }

    /// A record with its inputs and all its outputs.
    pub fn whole(&mut self, txid: Txid) {
        self.records.insert(txid);
        self.inputs.insert(txid);
        self.outputs.insert(txid);
    }

    /// A slot and its record.
    pub fn slot(&mut self, outpoint: OutPoint) {
        self.records.insert(outpoint.txid);
        self.slots.insert(outpoint);
    }

    /// A transaction that spends: its record, what it names, and the records that has.
    pub fn of_inputs(&mut self, txid: Txid, inputs: &[OutPoint]) {
        self.record(txid);
        inputs.iter().for_each(|outpoint| self.slot(*outpoint));
    }

    /// What `other` asks for too.
    pub fn extend(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        self.records.extend(other.records);
        self.inputs.extend(other.inputs);
        self.outputs.extend(other.outputs);
        self.slots.extend(other.slots);
        self.undo.extend(other.undo);
    }
}

/// What was read.
#[derive(Debug, Default)]
pub struct Loaded {
    asked: Reads,
    records: TxidMap<Box<Entry>>,
    undo: HashMap<BlockHash, BlockUndo>,
    tip: Option<Tip>,
}

impl Loaded {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tip, for blocks.
    pub const fn set_tip(&mut self, tip: Option<Tip>) {
        self.tip = tip;
    }

    /// What was asked for: what is not put after this is not there.
    pub fn asked(&mut self, reads: Reads) {
        self.records.reserve(reads.records.len());
        self.asked.extend(reads);
    }

    /// What of a record was asked for so far.
    pub fn fields(&self, txid: &Txid) -> Fields {
        Fields {
            inputs: self.asked.inputs.contains(txid),
            outputs: self.asked.outputs.contains(txid),
        }
    }

    /// All that was asked for so far.
    pub const fn reads(&self) -> &Reads {
        &self.asked
    }

    /// Whether the record is there.
    pub fn has_record(&self, txid: &Txid) -> bool {
        self.records.contains_key(txid)
    }

    /// A record; its inputs and outputs count where they were asked for.
    pub fn put_record(&mut self, head: Record) {
        let Fields { inputs, outputs } = self.fields(&head.txid);
        self.put(head, inputs, outputs);
    }

    /// A record with its inputs and all its outputs, whether they were asked for or not.
    pub fn put_whole(&mut self, record: Record) {
        self.put(record, true, true);
    }

    fn put(&mut self, mut head: Record, with_inputs: bool, with_outputs: bool) {
        let txid = head.txid;
        let inputs = std::mem::take(&mut head.inputs);
        let outputs = std::mem::take(&mut head.outputs);
        let entry = self.records.entry(txid);
        let entry = entry.or_insert_with(|| Box::new(Entry::of(head)));
        if with_inputs {
            entry.inputs = Some(inputs);
        }
        entry.whole = with_outputs;
        entry.slots.reserve(outputs.len());
        outputs.into_iter().for_each(|output| entry.put(output));
    }

    /// An output; one of a record that is not there is ignored. Those of one record are best put ascending.
    pub fn put_output(&mut self, txid: Txid, output: RecordOutput) {
        if let Some(entry) = self.records.get_mut(&txid) {
            entry.put(output);
        }
    }

    /// A block's undo data.
    pub fn put_undo(&mut self, block: BlockHash, undo: BlockUndo) {
        self.undo.insert(block, undo);
    }
}

/// A record, as far as it was read, under change.
#[derive(Clone, Debug)]
struct Entry {
    /// Without inputs and outputs.
    head: Record,
    inputs: Option<Vec<OutPoint>>,
    /// Ascending. They are put in that order, mostly.
    slots: Vec<Slot>,
    /// Whether `slots` are all there are.
    whole: bool,
    head_changed: bool,
    /// Not in the store, or there with another content.
    new: bool,
}

#[derive(Clone, Debug)]
struct Slot {
    output: RecordOutput,
    changed: bool,
}

impl Entry {
    const fn of(head: Record) -> Self {
        Self {
            head,
            inputs: None,
            slots: Vec::new(),
            whole: false,
            head_changed: false,
            new: false,
        }
    }

    fn put(&mut self, output: RecordOutput) {
        let slot = Slot {
            output,
            changed: false,
        };
        let vout = slot.output.vout;
        if self.slots.last().is_none_or(|last| last.output.vout < vout) {
            self.slots.push(slot);
        } else if let Some(place) = self.slot_mut(vout) {
            *place = slot;
        } else if let Err(at) = self.find(vout) {
            self.slots.insert(at, slot);
        }
    }

    fn find(&self, vout: u32) -> Result<usize, usize> {
        self.slots
            .binary_search_by_key(&vout, |slot| slot.output.vout)
    }

    fn slot(&self, vout: u32) -> Option<&Slot> {
        self.slots.get(self.find(vout).ok()?)
    }

    fn slot_mut(&mut self, vout: u32) -> Option<&mut Slot> {
        let at = self.find(vout).ok()?;
        self.slots.get_mut(at)
    }

    fn new(mut record: Record) -> Self {
        let inputs = std::mem::take(&mut record.inputs);
        let outputs = std::mem::take(&mut record.outputs);
        let mut entry = Self::of(record);
        entry.slots.reserve(outputs.len());
        outputs.into_iter().for_each(|output| entry.put(output));
        Self {
            inputs: Some(inputs),
            whole: true,
            new: true,
            ..entry
        }
    }

    fn into_record(self) -> Record {
        Record {
            inputs: self.inputs.unwrap_or_default(),
            outputs: self.slots.into_iter().map(|slot| slot.output).collect(),
            ..self.head
        }
    }
}

/// What taking a block back needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockUndo {
    /// The block's height.
    pub height: u32,
    /// The tip before.
    pub previous: Option<Tip>,
    /// The block's transactions, in order.
    pub transactions: Vec<(Txid, Undo)>,
    /// The coinbase that the block's replaced.
    pub replaced_coinbase: Option<Box<Record>>,
}

/// What connecting did to one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Undo {
    /// It brought the transaction.
    Created,
    /// The transaction was there, unmined.
    Existed {
        /// Since when.
        unmined_since: Option<u32>,
        /// Its entry of that block.
        entry: Option<MinedIn>,
        /// Its fee, if known.
        fee_sat: Option<u64>,
    },
}

/// All that a call changes.
#[derive(Debug, Default)]
pub struct Changes {
    /// Records to delete with all their outputs: before anything is inserted.
    pub deleted: Vec<Txid>,
    /// Whole records to insert.
    pub inserted: Vec<Record>,
    /// Records of which anything but inputs and outputs changes; those two are left empty.
    pub heads: Vec<Record>,
    /// Outputs that change.
    pub slots: Vec<(Txid, RecordOutput)>,
    /// Coins that join the confirmed set.
    pub added: Vec<Coin>,
    /// Coins that leave it.
    pub removed: Vec<Coin>,
    /// Records at which a pruning to this height has to look. Those that a block confirms are not among
    /// them: its undo data has them.
    pub expiring: Vec<(u32, Txid)>,
    /// The tip, if it changes.
    pub tip: Option<Option<Tip>>,
    /// Undo data to write, or to remove.
    pub undo: Option<(BlockHash, Option<BlockUndo>)>,
    /// Transactions that hold an output and had no record, so that they count as pruned. Where records
    /// are not read after the outputs that name them, look again: if one is there, judge anew.
    pub doubtful: BTreeSet<Txid>,
}

impl Changes {
    /// All records at which a pruning to a height has to look, by height: those listed, and those that a block connected
    /// brought, or spent from.
    pub fn listed(&self) -> impl Iterator<Item = (u32, &Txid)> {
        let undo = self.undo.iter().filter_map(|(_, undo)| undo.as_ref());
        let of_block = undo.flat_map(|undo| {
            let brought = undo.transactions.iter().map(|(txid, _)| txid);
            let spent = self.removed.iter().map(|coin| &coin.outpoint.txid);
            brought.chain(spent).map(|txid| (undo.height, txid))
        });
        let listed = self.expiring.iter().map(|(height, txid)| (*height, txid));
        listed.chain(of_block)
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.deleted.is_empty()
            && self.inserted.is_empty()
            && self.heads.is_empty()
            && self.slots.is_empty()
            && self.added.is_empty()
            && self.removed.is_empty()
            && self.expiring.is_empty()
            && self.tip.is_none()
            && self.undo.is_none()
    }

    /// Whether the confirmed set or its tip changes.
    pub fn confirmed_set_changes(&self) -> bool {
        !self.added.is_empty() || !self.removed.is_empty() || self.tip.is_some()
    }

    /// Applies the coins that come and go to the set's digest.
    pub fn apply_coins(&self, muhash: &mut MuHash3072) {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.apply_coins_by(threads, muhash);
    }

    /// As [`apply_coins`](Self::apply_coins), with at most so many threads.
    pub fn apply_coins_by(&self, threads: NonZeroUsize, muhash: &mut MuHash3072) {
        let elements = |coins: &[Coin]| coins.iter().map(coin_element).collect::<Vec<_>>();
        let (added, removed) = (elements(&self.added), elements(&self.removed));
        if added.len() + removed.len() < PARALLEL_COINS {
            muhash.insert_all(&added);
            muhash.remove_all(&removed);
        } else {
            muhash.insert_parallel(&added, threads);
            muhash.remove_parallel(&removed, threads);
        }
    }
}

/// How judging a call ended.
#[derive(Debug)]
pub enum Run<T> {
    /// Something was needed that had not been read.
    Incomplete(Reads),
    /// Each item has its answer.
    Done(Vec<Outcome<T>>, Box<Changes>),
}

/// Judges the items of a call in order, each seeing what those before it did.
pub fn run<I, T>(
    loaded: &Loaded,
    rule: UnspendableRule,
    items: &[I],
    mut judge: impl FnMut(&mut Draft<'_>, &I) -> Result<T, Stop>,
) -> Run<T> {
    let mut draft = Draft::new(loaded, rule);
    let mut outcomes = Vec::with_capacity(items.len());
    for item in items {
        match judge(&mut draft, item) {
            Ok(answer) => outcomes.push(Ok(answer)),
            Err(Stop::Verdict(verdict)) => outcomes.push(Err(verdict)),
            // Go on: the later items' needs can be read in the same round.
            Err(Stop::NotLoaded) => {}
        }
    }
    if draft.missing.is_empty() {
        Run::Done(outcomes, Box::new(draft.into_changes()))
    } else {
        Run::Incomplete(draft.missing)
    }
}

/// The error of a call that needs more than [`MOST_ROUNDS`].
pub fn too_deep(operation: Operation) -> Error {
    Error::invalid_request(format!(
        "{}: the cascade is deeper than {MOST_ROUNDS} generations; begin with a descendant",
        operation.action()
    ))
}

/// Judges a call where rounds cost little: `load` reads what is missing and tells [`Loaded`] what is there, until each
/// item has its answer. The changes are still to be written.
///
/// # Errors
/// That of `load`; `InvalidRequest` where the cascade is too deep.
pub fn judge<I: Clone, T, E: From<Error>>(
    call: Call<'_, I>,
    rule: UnspendableRule,
    tip: Option<Tip>,
    load: impl Fn(&Reads, &mut Loaded) -> Result<(), E>,
    judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop>,
) -> Result<(Vec<Outcome<T>>, Box<Changes>), E> {
    let (mut loaded, mut missing) = (Loaded::new(), call.reads);
    loaded.set_tip(tip);
    for _ in 0..MOST_ROUNDS {
        loaded.asked(missing.clone());
        load(&missing, &mut loaded)?;
        match run(&loaded, rule, &call.items, &judge) {
            Run::Incomplete(more) => missing = more,
            Run::Done(outcomes, changes) => return Ok((outcomes, changes)),
        }
    }
    Err(too_deep(call.operation).into())
}

/// For adapters: runs what takes a while where it hurts least: on a multi-thread runtime other tasks move on.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        _ => work(),
    }
}

/// Why an operation stops.
#[derive(Debug)]
pub enum Stop {
    /// The data don't allow it.
    Verdict(Verdict),
    /// Something has to be read first; the draft knows what.
    NotLoaded,
}

impl From<Verdict> for Stop {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

type Answer<T> = Result<T, Stop>;

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// No record: of a spender that means pruned, so confirmed long ago.
    Gone,
    Unmined,
    Confirmed(u32),
}

#[derive(Debug, Default)]
struct Delta {
    removed: Option<Coin>,
    added: Option<Coin>,
}

/// A change being drawn up over what was read.
#[derive(Debug)]
pub struct Draft<'a> {
    loaded: &'a Loaded,
    rule: UnspendableRule,
    /// Records that were looked at, as they will be.
    records: TxidMap<Option<Box<Entry>>>,
    missing: Reads,
    /// What happens to the confirmed set: a coin that comes and goes leaves no trace.
    coins: HashMap<OutPoint, Delta, TxidHash>,
    expiring: BTreeSet<(u32, Txid)>,
    in_block: bool,
    tip: Option<Option<Tip>>,
    undo: Option<(BlockHash, Option<BlockUndo>)>,
    doubtful: BTreeSet<Txid>,
}

impl<'a> Draft<'a> {
    fn new(loaded: &'a Loaded, rule: UnspendableRule) -> Self {
        Self {
            loaded,
            rule,
            records: TxidMap::with_capacity_and_hasher(
                loaded.asked.records.len(),
                TxidHash::default(),
            ),
            missing: Reads::new(),
            coins: HashMap::default(),
            expiring: BTreeSet::new(),
            in_block: false,
            tip: None,
            undo: None,
            doubtful: BTreeSet::new(),
        }
    }

    /// The record's place, once it was read.
    fn place(&mut self, txid: Txid) -> Answer<&mut Option<Box<Entry>>> {
        let place = match self.records.entry(txid) {
            Place::Occupied(place) => return Ok(place.into_mut()),
            Place::Vacant(place) => place,
        };
        let read = self.loaded.records.get(&txid);
        if read.is_none() && !self.loaded.asked.records.contains(&txid) {
            self.missing.record(txid);
            return Err(Stop::NotLoaded);
        }
        Ok(place.insert(read.cloned()))
    }

    fn entry(&mut self, txid: Txid) -> Answer<Option<&Entry>> {
        Ok(self.place(txid)?.as_deref())
    }

    fn known(&mut self, txid: Txid) -> Answer<&Entry> {
        self.entry(txid)?
            .ok_or(Stop::Verdict(Verdict::UnknownTransaction { txid }))
    }

    /// The head, to be changed in anything but the blocks it is mined in: see [`Self::mine`].
    fn head_mut(&mut self, txid: Txid) -> Answer<Option<&mut Record>> {
        Ok(self.place(txid)?.as_mut().map(|entry| {
            entry.head_changed = true;
            &mut entry.head
        }))
    }

    /// The slot of `outpoint` and its record.
    fn slot(&mut self, outpoint: OutPoint) -> Answer<(&Entry, &RecordOutput)> {
        // Twice, since a borrow that is returned lasts to the end of the function.
        let there = match self.place(outpoint.txid) {
            Ok(place) => place
                .as_ref()
                .map(|entry| (entry.slot(outpoint.vout).is_some(), entry.whole)),
            Err(stop) => {
                self.missing.slot(outpoint);
                return Err(stop);
            }
        };
        match there {
            None => return Err(Verdict::MissingTransaction { outpoint }.into()),
            Some((true, _)) => {}
            Some((false, whole)) if whole || self.loaded.asked.slots.contains(&outpoint) => {
                return Err(Verdict::MissingOutput { outpoint }.into());
            }
            Some((false, _)) => {
                self.missing.slot(outpoint);
                return Err(Stop::NotLoaded);
            }
        }
        self.entry(outpoint.txid)?
            .and_then(|entry| Some((entry, &entry.slot(outpoint.vout)?.output)))
            .ok_or(Stop::Verdict(Verdict::MissingOutput { outpoint }))
    }

    /// The slot of `outpoint`, to be changed in anything but what the digest is made of.
    fn slot_mut(&mut self, outpoint: OutPoint) -> Answer<Option<&mut RecordOutput>> {
        let slot = self
            .place(outpoint.txid)?
            .as_mut()
            .and_then(|entry| entry.slot_mut(outpoint.vout));
        Ok(slot.map(|slot| {
            slot.changed = true;
            &mut slot.output
        }))
    }

    /// A record with all its outputs, if it is there.
    fn whole_entry(&mut self, txid: Txid) -> Answer<Option<&Entry>> {
        if self
            .entry(txid)
            .is_ok_and(|entry| entry.is_none_or(|entry| entry.whole))
        {
            return self.entry(txid);
        }
        self.missing.record(txid);
        self.missing.outputs.insert(txid);
        Err(Stop::NotLoaded)
    }

    /// All outputs; none of a record that is not there.
    fn outputs(&mut self, txid: Txid) -> Answer<Vec<RecordOutput>> {
        let entry = self.whole_entry(txid)?;
        let slots = entry.into_iter().flat_map(|entry| &entry.slots);
        Ok(slots.map(|slot| slot.output.clone()).collect())
    }

    /// The inputs, each with the mark that it makes.
    fn inputs(&mut self, txid: Txid) -> Answer<Vec<(SpentBy, OutPoint)>> {
        let inputs = match self.entry(txid) {
            Ok(None) => Some(Vec::new()),
            Ok(Some(entry)) => entry.inputs.clone(),
            Err(_) => None,
        };
        let inputs = inputs.ok_or_else(|| {
            self.missing.record(txid);
            self.missing.inputs.insert(txid);
            Stop::NotLoaded
        })?;
        Ok((0..)
            .zip(inputs)
            .map(|(vin, outpoint)| (SpentBy { txid, vin }, outpoint))
            .collect())
    }

    fn standing(&mut self, txid: Txid) -> Answer<Standing> {
        Ok(match self.entry(txid)? {
            None => Standing::Gone,
            Some(entry) => entry
                .head
                .confirmed_height()
                .map_or(Standing::Unmined, Standing::Confirmed),
        })
    }

    /// How far one is who holds an output.
    fn standing_of_spender(&mut self, txid: Txid) -> Answer<Standing> {
        let standing = self.standing(txid)?;
        if standing == Standing::Gone {
            self.doubtful.insert(txid);
        }
        Ok(standing)
    }

    /// Puts a record that does not exist, or replaces one; its coins join the set.
    fn insert(&mut self, record: Record) -> Answer<()> {
        let txid = record.txid;
        *self.place(txid)? = Some(Box::new(Entry::new(record)));
        if let Standing::Confirmed(height) = self.standing(txid)? {
            self.confirm(txid, height)?;
        }
        Ok(())
    }

    /// Takes a record away; its coins leave the set.
    fn delete(&mut self, txid: Txid) -> Answer<()> {
        if matches!(self.standing(txid)?, Standing::Confirmed(_)) {
            self.unconfirm(txid)?;
        }
        self.forget(txid)
    }

    /// Takes a record away none of whose coins is in the set.
    fn forget(&mut self, txid: Txid) -> Answer<()> {
        *self.place(txid)? = None;
        Ok(())
    }

    /// Changes the blocks that a transaction is mined in, and lets the set follow.
    fn mine<T>(&mut self, txid: Txid, change: impl FnOnce(&mut Record) -> T) -> Answer<Option<T>> {
        let before = self.standing(txid)?;
        let Some(mut changed) = self.entry(txid)?.map(|entry| entry.head.clone()) else {
            return Ok(None);
        };
        let answer = change(&mut changed);
        let after = changed
            .confirmed_height()
            .map_or(Standing::Unmined, Standing::Confirmed);
        if before != after && matches!(before, Standing::Confirmed(_)) {
            self.unconfirm(txid)?;
        }
        if let Some(head) = self.head_mut(txid)? {
            *head = changed;
        }
        if before != after
            && let Standing::Confirmed(height) = after
        {
            self.confirm(txid, height)?;
        }
        Ok(Some(answer))
    }

    /// The transaction joins the longest chain: what it spends leaves the set, what it made joins.
    fn confirm(&mut self, txid: Txid, height: u32) -> Answer<()> {
        for coin in self.held_coins(txid)? {
            self.remove_coin(coin);
        }
        for coin in self.coins_of(txid)? {
            self.add_coin(coin);
        }
        if !self.in_block {
            let parents = self.inputs(txid)?;
            self.expiring.insert((height, txid));
            self.expiring
                .extend(parents.iter().map(|(_, outpoint)| (height, outpoint.txid)));
        }
        Ok(())
    }

    /// The transaction leaves the longest chain.
    fn unconfirm(&mut self, txid: Txid) -> Answer<()> {
        for coin in self.coins_of(txid)? {
            self.remove_coin(coin);
        }
        for coin in self.held_coins(txid)? {
            self.add_coin(coin);
        }
        Ok(())
    }

    /// The coins that a transaction holds.
    fn held_coins(&mut self, txid: Txid) -> Answer<Vec<Coin>> {
        let inputs = self.inputs(txid)?;
        let mut coins = Vec::with_capacity(inputs.len());
        self.each(inputs, |draft, (me, outpoint)| {
            let coin = draft.coin(outpoint)?;
            coins.extend(coin.filter(|(_, by)| *by == Some(me)).map(|(coin, _)| coin));
            Ok(())
        })?;
        Ok(coins)
    }

    /// An output of a confirmed transaction, and who holds it.
    fn coin(&mut self, outpoint: OutPoint) -> Answer<Option<(Coin, Option<SpentBy>)>> {
        let Some((entry, slot)) = found(self.slot(outpoint))? else {
            return Ok(None);
        };
        Ok(entry.head.confirmed_height().map(|height| {
            let coin = Coin {
                outpoint,
                output: slot.output.clone(),
                height,
                coinbase: entry.head.coinbase,
            };
            (coin, slot.spent_by)
        }))
    }

    /// The coins of a confirmed transaction that no confirmed one spends.
    fn coins_of(&mut self, txid: Txid) -> Answer<Vec<Coin>> {
        let Some(entry) = self.whole_entry(txid)? else {
            return Ok(Vec::new());
        };
        let Some(height) = entry.head.confirmed_height() else {
            return Ok(Vec::new());
        };
        let coin = |slot: &Slot| Coin {
            outpoint: OutPoint::new(txid, slot.output.vout),
            output: slot.output.output.clone(),
            height,
            coinbase: entry.head.coinbase,
        };
        let (mut coins, mut spent) = (Vec::with_capacity(entry.slots.len()), Vec::new());
        for slot in &entry.slots {
            match slot.output.spent_by {
                None => coins.push(coin(slot)),
                Some(by) => spent.push((by.txid, coin(slot))),
            }
        }
        self.each(spent, |draft, (by, coin)| {
            if draft.standing_of_spender(by)? == Standing::Unmined {
                coins.push(coin);
            }
            Ok(())
        })?;
        Ok(coins)
    }

    /// Acts on all items even if one has not been read, so that all that is missing is known at once.
    fn each<I>(
        &mut self,
        items: impl IntoIterator<Item = I>,
        mut act: impl FnMut(&mut Self, I) -> Answer<()>,
    ) -> Answer<()> {
        let mut complete = true;
        for item in items {
            match act(self, item) {
                Ok(()) => {}
                Err(Stop::NotLoaded) => complete = false,
                verdict if complete => return verdict,
                _ => {}
            }
        }
        if complete {
            Ok(())
        } else {
            Err(Stop::NotLoaded)
        }
    }

    fn add_coin(&mut self, coin: Coin) {
        let delta = self.coins.entry(coin.outpoint).or_default();
        match &delta.removed {
            Some(removed) if *removed == coin => delta.removed = None,
            _ => delta.added = Some(coin),
        }
    }

    fn remove_coin(&mut self, coin: Coin) {
        let delta = self.coins.entry(coin.outpoint).or_default();
        match &delta.added {
            Some(added) if *added == coin => delta.added = None,
            _ => delta.removed = Some(coin),
        }
    }

    fn into_changes(self) -> Changes {
        let mut changes = Changes {
            expiring: self.expiring.into_iter().collect(),
            tip: self.tip,
            undo: self.undo,
            doubtful: self.doubtful,
            ..Changes::default()
        };
        // Grown by and by, they would be copied again and again.
        changes.added.reserve(self.coins.len());
        changes.removed.reserve(self.coins.len());
        changes.inserted.reserve(self.records.len());
        changes.slots.reserve(self.records.len());
        for delta in self.coins.into_values() {
            changes.added.extend(delta.added);
            changes.removed.extend(delta.removed);
        }
        let mut records: Vec<_> = self.records.into_iter().collect();
        records.sort_unstable_by_key(|(txid, _)| *txid);
        for (txid, entry) in records {
            let stored = self.loaded.records.contains_key(&txid);
            match entry {
                None if stored => changes.deleted.push(txid),
                None => {}
                Some(entry) if entry.new => {
                    if stored {
                        changes.deleted.push(txid);
                    }
                    changes.inserted.push(entry.into_record());
                }
                Some(entry) => {
                    let slots = entry.slots.into_iter().filter(|slot| slot.changed);
                    changes.slots.extend(slots.map(|slot| (txid, slot.output)));
                    if entry.head_changed {
                        changes.heads.push(entry.head);
                    }
                }
            }
        }
        changes
    }
}

/// What is there, if anything.
fn found<T>(slot: Answer<T>) -> Answer<Option<T>> {
    match slot {
        Ok(slot) => Ok(Some(slot)),
        Err(Stop::Verdict(_)) => Ok(None),
        Err(Stop::NotLoaded) => Err(Stop::NotLoaded),
    }
}
