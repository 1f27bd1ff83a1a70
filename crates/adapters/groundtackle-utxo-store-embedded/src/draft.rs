//! A change being drawn up: what it has read, what it will write, and what that does to the digest.
//!
//! Everything is checked and changed here first. Committing writes it as one batch; dropping the
//! draft leaves the store as it was.

use std::collections::hash_map::Entry as Place;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;

use fjall::Snapshot;
use groundtackle_utxo_store::digest::coin_element;
use groundtackle_utxo_store::draft::{TxidHash, TxidMap};
use groundtackle_utxo_store::{BlockHash, Coin, OutPoint, Result, SpentBy, Tip, Txid, Verdict};

use crate::engine::{Change, Engine, MAX_VALUE_BYTES};
use crate::error::{Stop, corrupt};
use crate::record::{
    BlockUndo, Head, Inputs, Slot, TIP_KEY, TipState, block_key, chunk_of, decode_chunk,
    decode_head, decode_inputs, encode_chunk, encode_head, encode_inputs, encode_tip, encode_undo,
    encode_unmined, expiring_key, inputs_apart, inputs_key, number_key, read_number, record_key,
    split_expiring_key, undo_key, unmined_key,
};

/// Coins from which on it is worth to multiply on all cores.
const PARALLEL_COINS: usize = 256;

pub(crate) struct Draft<'a> {
    engine: &'a Engine,
    snapshot: Snapshot,
    pub(crate) state: TipState,
    tip_changed: bool,
    records: TxidMap<Cached>,
    /// What happens to the confirmed set: a coin that comes and goes leaves no trace.
    coins: HashMap<OutPoint, Delta, TxidHash>,
    /// Records to look at when pruning to a height.
    expiring: Vec<(u32, Txid)>,
    /// Changes of small keys.
    raw: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Undo data to write or to remove, and in how many parts the old one lies.
    undo: Vec<(Vec<u8>, Option<BlockUndo>, u32)>,
}

/// A record as it was and as it will be.
#[derive(Default)]
struct Cached {
    stored: Option<Stored>,
    now: Option<Entry>,
}

/// What is on the disk of a record that is there.
#[derive(Clone, Default)]
struct Stored {
    last_chunk: u32,
    /// Parts of the head, and of each later chunk that was read.
    parts: u32,
    later_parts: BTreeMap<u32, u32>,
    inputs_apart: bool,
    unmined: Option<(u32, bool)>,
}

/// A record under change.
pub(crate) struct Entry {
    pub(crate) head: Head,
    /// The head's chunk of slots, number 0.
    first: Chunk,
    /// The other chunks that were read.
    later: BTreeMap<u32, Chunk>,
    /// Of [`Inputs::Apart`], once read.
    inputs: Option<Vec<OutPoint>>,
    head_changed: bool,
    inputs_new: bool,
}

#[derive(Default)]
struct Chunk {
    slots: Vec<Slot>,
    changed: bool,
}

#[derive(Default)]
struct Delta {
    removed: Option<Coin>,
    added: Option<Coin>,
}

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No record: of a spender that means pruned, so confirmed long ago.
    Gone,
    Unmined,
    Confirmed(u32),
}

impl Cached {
    fn load(engine: &Engine, snapshot: &Snapshot, txid: &Txid) -> Result<Self> {
        let Some(value) = engine.get(snapshot, &record_key(txid, 0))? else {
            return Ok(Self::default());
        };
        let (head, slots) = decode_head(txid, value.bytes())?;
        let stored = Stored {
            last_chunk: head.last_chunk,
            parts: value.parts,
            later_parts: BTreeMap::new(),
            inputs_apart: head.inputs == Inputs::Apart,
            unmined: head.unmined_since.map(|since| (since, head.conflicting)),
        };
        let now = Entry {
            head,
            first: Chunk {
                slots,
                changed: false,
            },
            later: BTreeMap::new(),
            inputs: None,
            head_changed: false,
            inputs_new: false,
        };
        Ok(Self {
            stored: Some(stored),
            now: Some(now),
        })
    }
}

impl Entry {
    /// A record that does not exist yet. `head.inputs` and `head.last_chunk` are filled in.
    pub(crate) fn new(mut head: Head, inputs: Vec<OutPoint>, outputs: Vec<Slot>) -> Self {
        head.last_chunk = outputs.last().map_or(0, |output| chunk_of(output.vout));
        let new = |slots| Chunk {
            slots,
            changed: true,
        };
        let mut slots = outputs;
        let mut later = BTreeMap::new();
        if head.last_chunk > 0 {
            let at = slots.partition_point(|slot| chunk_of(slot.vout) == 0);
            for slot in slots.split_off(at) {
                later
                    .entry(chunk_of(slot.vout))
                    .or_insert_with(|| new(Vec::new()))
                    .slots
                    .push(slot);
            }
            for chunk in 1..=head.last_chunk {
                later.entry(chunk).or_insert_with(|| new(Vec::new()));
            }
        }
        let first = new(slots);
        let apart = inputs_apart(inputs.len());
        let (kept, inputs) = if apart {
            (Inputs::Apart, Some(inputs))
        } else {
            (Inputs::Here(inputs), None)
        };
        head.inputs = kept;
        Self {
            head,
            first,
            later,
            inputs,
            head_changed: true,
            inputs_new: apart,
        }
    }

    /// The slots that have been read.
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        std::iter::once(&self.first)
            .chain(self.later.values())
            .flat_map(|chunk| &chunk.slots)
    }

    fn chunk(&self, number: u32) -> Option<&Chunk> {
        match number {
            0 => Some(&self.first),
            number => self.later.get(&number),
        }
    }

    fn chunk_mut(&mut self, number: u32) -> Option<&mut Chunk> {
        match number {
            0 => Some(&mut self.first),
            number => self.later.get_mut(&number),
        }
    }

    pub(crate) fn slot(&self, vout: u32) -> Option<&Slot> {
        let slots = &self.chunk(chunk_of(vout))?.slots;
        slots.get(slots.binary_search_by_key(&vout, |slot| slot.vout).ok()?)
    }
}

impl<'a> Draft<'a> {
    pub(crate) fn new(engine: &'a Engine, state: TipState) -> Self {
        Self {
            engine,
            snapshot: engine.snapshot(),
            state,
            tip_changed: false,
            records: TxidMap::default(),
            coins: HashMap::default(),
            expiring: Vec::new(),
            raw: BTreeMap::new(),
            undo: Vec::new(),
        }
    }

    pub(crate) const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn load(&mut self, txid: Txid) -> Result<&mut Cached> {
        match self.records.entry(txid) {
            Place::Occupied(place) => Ok(place.into_mut()),
            Place::Vacant(place) => {
                Ok(place.insert(Cached::load(self.engine, &self.snapshot, &txid)?))
            }
        }
    }

    /// Reads records in order of their keys, which is quicker than in any other.
    pub(crate) fn read_ahead(&mut self, txids: impl Iterator<Item = Txid>) -> Result<()> {
        let mut txids: Vec<_> = txids.collect();
        txids.sort_unstable();
        txids.dedup();
        self.records.reserve(txids.len());
        txids
            .into_iter()
            .try_for_each(|txid| self.load(txid).map(drop))
    }

    /// The record, if there is one, with its head and first slots.
    pub(crate) fn entry(&mut self, txid: Txid) -> Result<Option<&Entry>> {
        Ok(self.load(txid)?.now.as_ref())
    }

    pub(crate) fn known(&mut self, txid: Txid) -> Result<&Entry, Stop> {
        self.entry(txid)?
            .ok_or(Stop::Verdict(Verdict::UnknownTransaction { txid }))
    }

    /// The head, to be changed in anything but the blocks it is mined in: see [`Self::mine`].
    pub(crate) fn head_mut(&mut self, txid: Txid) -> Result<Option<&mut Head>> {
        Ok(self.load(txid)?.now.as_mut().map(|entry| {
            entry.head_changed = true;
            &mut entry.head
        }))
    }

    fn load_chunk(&mut self, txid: Txid, chunk: u32) -> Result<Option<&mut Entry>> {
        let engine = self.engine;
        self.load(txid)?;
        let Some(Cached {
            stored,
            now: Some(entry),
        }) = self.records.get_mut(&txid)
        else {
            return Ok(None);
        };
        if chunk <= entry.head.last_chunk && entry.chunk(chunk).is_none() {
            let value = engine
                .get(&self.snapshot, &record_key(&txid, chunk))?
                .ok_or_else(|| {
                    corrupt(
                        format!("the record of {txid}"),
                        format!("its chunk {chunk} is missing"),
                    )
                })?;
            let slots = decode_chunk(&txid, chunk, value.bytes())?;
            entry.later.insert(
                chunk,
                Chunk {
                    slots,
                    changed: false,
                },
            );
            if let Some(stored) = stored {
                stored.later_parts.insert(chunk, value.parts);
            }
        }
        Ok(Some(entry))
    }

    /// Reads all chunks of slots.
    pub(crate) fn load_all(&mut self, txid: Txid) -> Result<()> {
        let last = self.entry(txid)?.map_or(0, |entry| entry.head.last_chunk);
        (1..=last).try_for_each(|chunk| self.load_chunk(txid, chunk).map(drop))
    }

    /// The slot of `outpoint` and its record.
    pub(crate) fn slot(&mut self, outpoint: OutPoint) -> Result<(&Entry, &Slot), Stop> {
        let entry: &Entry = match chunk_of(outpoint.vout) {
            0 => self.load(outpoint.txid)?.now.as_ref(),
            chunk => self.load_chunk(outpoint.txid, chunk)?.map(|entry| &*entry),
        }
        .ok_or(Verdict::MissingTransaction { outpoint })?;
        let slot = entry
            .slot(outpoint.vout)
            .ok_or(Verdict::MissingOutput { outpoint })?;
        Ok((entry, slot))
    }

    /// The slot of `outpoint`, to be changed in anything but what the digest is made of.
    pub(crate) fn slot_mut(&mut self, outpoint: OutPoint) -> Result<Option<&mut Slot>> {
        let number = chunk_of(outpoint.vout);
        let entry = match number {
            0 => self.load(outpoint.txid)?.now.as_mut(),
            number => self.load_chunk(outpoint.txid, number)?,
        };
        let Some(chunk) = entry.and_then(|entry| entry.chunk_mut(number)) else {
            return Ok(None);
        };
        chunk.changed = true;
        let at = chunk
            .slots
            .binary_search_by_key(&outpoint.vout, |slot| slot.vout);
        Ok(at.ok().and_then(|at| chunk.slots.get_mut(at)))
    }

    /// All slots, chunk by chunk.
    pub(crate) fn all_slots(&mut self, txid: Txid) -> Result<Vec<Slot>> {
        self.load_all(txid)?;
        Ok(self
            .entry(txid)?
            .map(|entry| entry.slots().cloned().collect())
            .unwrap_or_default())
    }

    /// The inputs, each with the mark that it makes.
    pub(crate) fn inputs(&mut self, txid: Txid) -> Result<Vec<(SpentBy, OutPoint)>> {
        self.load(txid)?;
        let Some(Cached {
            now: Some(entry), ..
        }) = self.records.get_mut(&txid)
        else {
            return Ok(Vec::new());
        };
        let inputs = match (&entry.head.inputs, &entry.inputs) {
            (Inputs::Here(inputs), _) | (Inputs::Apart, Some(inputs)) => inputs.clone(),
            (Inputs::Apart, None) => {
                let inputs = read_inputs(self.engine, &self.snapshot, &txid)?;
                entry.inputs = Some(inputs.clone());
                inputs
            }
        };
        Ok(inputs
            .into_iter()
            .zip(0..)
            .map(|(outpoint, vin)| (SpentBy { txid, vin }, outpoint))
            .collect())
    }

    pub(crate) fn standing(&mut self, txid: Txid) -> Result<Standing> {
        Ok(match self.entry(txid)? {
            None => Standing::Gone,
            Some(entry) => entry
                .head
                .confirmed_height()
                .map_or(Standing::Unmined, Standing::Confirmed),
        })
    }

    /// Puts a record that does not exist, or replaces one; its coins join the set.
    pub(crate) fn insert(&mut self, txid: Txid, entry: Entry) -> Result<()> {
        self.load(txid)?.now = Some(entry);
        if let Standing::Confirmed(height) = self.standing(txid)? {
            self.confirm(txid, height)?;
        }
        Ok(())
    }

    /// Takes a record away; its coins leave the set.
    pub(crate) fn delete(&mut self, txid: Txid) -> Result<()> {
        if let Standing::Confirmed(height) = self.standing(txid)? {
            self.unconfirm(txid, height)?;
        }
        self.forget(txid)
    }

    /// Takes a record away none of whose coins is in the set.
    pub(crate) fn forget(&mut self, txid: Txid) -> Result<()> {
        self.load(txid)?.now = None;
        Ok(())
    }

    /// Changes the blocks that a transaction is mined in, and lets the set follow.
    pub(crate) fn mine<T>(
        &mut self,
        txid: Txid,
        change: impl FnOnce(&mut Head) -> T,
    ) -> Result<Option<T>> {
        let before = self.standing(txid)?;
        let Some(head) = self.head_mut(txid)? else {
            return Ok(None);
        };
        let mut changed = head.clone();
        let answer = change(&mut changed);
        let after = changed
            .confirmed_height()
            .map_or(Standing::Unmined, Standing::Confirmed);
        if before != after
            && let Standing::Confirmed(height) = before
        {
            self.unconfirm(txid, height)?;
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
    fn confirm(&mut self, txid: Txid, height: u32) -> Result<()> {
        let mut touched = vec![txid];
        for (me, outpoint) in self.inputs(txid)? {
            touched.push(outpoint.txid);
            if let Some(coin) = self.held_coin(me, outpoint)? {
                self.remove_coin(coin);
            }
        }
        if self.state.muhash.is_some() {
            for coin in self.coins_of(txid, height)? {
                self.add_coin(coin);
            }
        }
        for txid in touched {
            // Of a record in several chunks only the pruning looks at all slots.
            if self.entry(txid)?.is_some_and(|entry| {
                entry.head.last_chunk > 0 || entry.slots().all(|slot| slot.spent_by.is_some())
            }) {
                self.expiring.push((height, txid));
            }
        }
        Ok(())
    }

    /// The transaction leaves the longest chain.
    fn unconfirm(&mut self, txid: Txid, height: u32) -> Result<()> {
        if self.state.muhash.is_some() {
            for coin in self.coins_of(txid, height)? {
                self.remove_coin(coin);
            }
        }
        for (me, outpoint) in self.inputs(txid)? {
            if let Some(coin) = self.held_coin(me, outpoint)? {
                self.add_coin(coin);
            }
        }
        Ok(())
    }

    /// The coin of `outpoint`, if `me` holds it and it is confirmed.
    fn held_coin(&mut self, me: SpentBy, outpoint: OutPoint) -> Result<Option<Coin>> {
        if self.state.muhash.is_none() {
            return Ok(None);
        }
        Ok(self
            .coin(outpoint)?
            .filter(|(_, by)| *by == Some(me))
            .map(|(coin, _)| coin))
    }

    /// An output of a confirmed transaction, and who holds it.
    pub(crate) fn coin(&mut self, outpoint: OutPoint) -> Result<Option<(Coin, Option<SpentBy>)>> {
        let (entry, slot) = match self.slot(outpoint) {
            Ok(found) => found,
            Err(Stop::Verdict(_)) => return Ok(None),
            Err(Stop::Error(error)) => return Err(error),
        };
        let Some(height) = entry.head.confirmed_height() else {
            return Ok(None);
        };
        let coin = Coin {
            outpoint,
            output: slot.output()?,
            height,
            coinbase: entry.head.coinbase,
        };
        Ok(Some((coin, slot.spent_by)))
    }

    /// The coins of a transaction that no confirmed one spends.
    fn coins_of(&mut self, txid: Txid, height: u32) -> Result<Vec<Coin>> {
        self.load_all(txid)?;
        let Some(entry) = self.entry(txid)? else {
            return Ok(Vec::new());
        };
        let coinbase = entry.head.coinbase;
        let coins = entry
            .slots()
            .map(|slot| {
                let coin = Coin {
                    outpoint: OutPoint::new(txid, slot.vout),
                    output: slot.output()?,
                    height,
                    coinbase,
                };
                Ok((coin, slot.spent_by))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut unspent = Vec::with_capacity(coins.len());
        for (coin, spent_by) in coins {
            let in_set = match spent_by {
                None => true,
                Some(by) => self.standing(by.txid)? == Standing::Unmined,
            };
            if in_set {
                unspent.push(coin);
            }
        }
        Ok(unspent)
    }

    pub(crate) fn add_coin(&mut self, coin: Coin) {
        let delta = self.coins.entry(coin.outpoint).or_default();
        match &delta.removed {
            Some(removed) if *removed == coin => delta.removed = None,
            _ => delta.added = Some(coin),
        }
    }

    pub(crate) fn remove_coin(&mut self, coin: Coin) {
        let delta = self.coins.entry(coin.outpoint).or_default();
        match &delta.added {
            Some(added) if *added == coin => delta.added = None,
            _ => delta.removed = Some(coin),
        }
    }

    /// Have the pruning look at a record when its horizon comes to `height`.
    pub(crate) fn look_at(&mut self, height: u32, txid: Txid) {
        self.expiring.push((height, txid));
    }

    pub(crate) fn looked_at(&mut self, key: Vec<u8>) {
        self.raw.insert(key, None);
    }

    pub(crate) const fn set_tip(&mut self, tip: Option<Tip>) {
        self.state.tip = tip;
        self.tip_changed = true;
    }

    /// The number that stands for a block in records.
    pub(crate) fn block_number(&mut self, block: &BlockHash) -> Result<u32> {
        if let Some(number) = self.known_block_number(block)? {
            return Ok(number);
        }
        let number = self.state.next_block;
        self.state.next_block = number.saturating_add(1);
        self.tip_changed = true;
        self.raw
            .insert(block_key(block), Some(number.to_be_bytes().to_vec()));
        self.raw
            .insert(number_key(number), Some(block.as_bytes().to_vec()));
        Ok(number)
    }

    /// The number of a block that some record has named.
    pub(crate) fn known_block_number(&self, block: &BlockHash) -> Result<Option<u32>> {
        let key = block_key(block);
        match self.raw.get(&key) {
            Some(value) => value
                .as_deref()
                .map(|value| read_number("a block's number", value))
                .transpose(),
            None => self
                .engine
                .get_raw(&self.snapshot, &key)?
                .map(|value| read_number("a block's number", &value))
                .transpose(),
        }
    }

    pub(crate) fn put_undo(&mut self, height: u32, block: &BlockHash, undo: BlockUndo) {
        self.undo.push((undo_key(height, block), Some(undo), 0));
    }

    pub(crate) fn remove_undo(&mut self, key: Vec<u8>, parts: u32) {
        self.undo.push((key, None, parts));
    }

    /// What the set's digest becomes. Coins that go are multiplied into the denominator.
    fn apply_coins(&mut self) {
        let Some(muhash) = &mut self.state.muhash else {
            return;
        };
        let elements = |pick: fn(&Delta) -> Option<&Coin>| {
            self.coins
                .values()
                .filter_map(pick)
                .map(coin_element)
                .collect::<Vec<_>>()
        };
        let added = elements(|delta| delta.added.as_ref());
        let removed = elements(|delta| delta.removed.as_ref());
        self.tip_changed |= !added.is_empty() || !removed.is_empty();
        if added.len() + removed.len() < PARALLEL_COINS {
            muhash.insert_all(&added);
            muhash.remove_all(&removed);
        } else {
            let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
            muhash.insert_parallel(&added, threads);
            muhash.remove_parallel(&removed, threads);
        }
    }

    /// Writes all of it as one batch, if anything changed, and gives the new tip and digest.
    pub(crate) fn commit(mut self, durable: bool) -> Result<TipState> {
        self.apply_coins();
        let mut change = self.engine.change();
        // The engine finds its place for a key faster near that of the last one.
        let mut records: Vec<_> = self.records.iter().collect();
        records.sort_unstable_by_key(|(txid, _)| **txid);
        for (txid, cached) in records {
            match (&cached.stored, &cached.now) {
                (None, None) => {}
                (Some(stored), None) => self.write_removal(&mut change, txid, stored)?,
                (stored, Some(entry)) => {
                    self.write_entry(&mut change, txid, stored.as_ref(), entry)?
                }
            }
        }
        self.list_expiring()?;
        for (key, value) in &self.raw {
            match value {
                Some(value) => change.put_raw(key, value),
                None => change.remove_raw(key),
            }
        }
        for (key, value, parts) in &self.undo {
            match value {
                Some(undo) => change.put(key, *parts, |out| {
                    encode_undo(out, key, undo);
                }),
                None => change.remove(key, *parts),
            }
        }
        if self.tip_changed {
            change.put(TIP_KEY, 0, |out| encode_tip(out, &self.state));
        }
        if !change.is_empty() {
            change.commit(durable)?;
        }
        Ok(self.state)
    }

    /// Adds lists behind those that a height has.
    fn list_expiring(&mut self) -> Result<()> {
        self.expiring.sort_unstable();
        self.expiring.dedup();
        for same in self.expiring.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((height, _)) = same.first() else {
                continue;
            };
            let (start, end) = (expiring_key(*height, 0), expiring_key(*height, u32::MAX));
            let last = self
                .engine
                .range(&self.snapshot, &start, &end)
                .next_back()
                .transpose()?;
            let next = match last {
                Some((key, _)) => split_expiring_key(&key)?.1.saturating_add(1),
                None => 0,
            };
            for (number, list) in (next..).zip(same.chunks(MAX_VALUE_BYTES / 32)) {
                let list: Vec<_> = list.iter().flat_map(|(_, txid)| *txid.as_bytes()).collect();
                self.raw.insert(expiring_key(*height, number), Some(list));
            }
        }
        Ok(())
    }

    fn write_entry(
        &self,
        change: &mut Change<'_>,
        txid: &Txid,
        stored: Option<&Stored>,
        entry: &Entry,
    ) -> Result<()> {
        let none = Stored::default();
        let old = stored.unwrap_or(&none);
        let replaced = entry.inputs_new
            || entry.head_changed
                && entry.first.changed
                && entry.later.values().all(|chunk| chunk.changed);
        if entry.first.changed || entry.head_changed {
            change.put(&record_key(txid, 0), old.parts, |out| {
                encode_head(out, txid, &entry.head, &entry.first.slots);
            });
        }
        for (number, chunk) in entry.later.iter().filter(|(_, chunk)| chunk.changed) {
            let key = record_key(txid, *number);
            let parts = match old.later_parts.get(number) {
                Some(parts) => *parts,
                None if *number <= old.last_chunk => self.parts(&key)?,
                None => 0,
            };
            change.put(&key, parts, |out| {
                encode_chunk(out, txid, *number, &chunk.slots);
            });
        }
        if replaced {
            for number in entry.head.last_chunk.saturating_add(1)..=old.last_chunk {
                let key = record_key(txid, number);
                let parts = self.parts(&key)?;
                change.remove(&key, parts);
            }
            if old.inputs_apart && entry.head.inputs != Inputs::Apart {
                let key = inputs_key(txid);
                let parts = self.parts(&key)?;
                change.remove(&key, parts);
            }
        }
        if let (true, Some(inputs)) = (entry.inputs_new, &entry.inputs) {
            let key = inputs_key(txid);
            let parts = if old.inputs_apart {
                self.parts(&key)?
            } else {
                0
            };
            change.put(&key, parts, |out| {
                encode_inputs(out, txid, inputs);
            });
        }
        let unmined = entry
            .head
            .unmined_since
            .map(|since| (since, entry.head.conflicting));
        if unmined != old.unmined {
            match unmined {
                Some((since, conflicting)) => {
                    change.put_raw(&unmined_key(txid), &encode_unmined(since, conflicting))
                }
                None => change.remove_raw(&unmined_key(txid)),
            }
        }
        Ok(())
    }

    fn write_removal(&self, change: &mut Change<'_>, txid: &Txid, stored: &Stored) -> Result<()> {
        for number in 0..=stored.last_chunk {
            let key = record_key(txid, number);
            let parts = match stored.later_parts.get(&number) {
                _ if number == 0 => stored.parts,
                Some(parts) => *parts,
                None => self.parts(&key)?,
            };
            change.remove(&key, parts);
        }
        if stored.inputs_apart {
            let key = inputs_key(txid);
            let parts = self.parts(&key)?;
            change.remove(&key, parts);
        }
        if stored.unmined.is_some() {
            change.remove_raw(&unmined_key(txid));
        }
        Ok(())
    }

    /// In how many parts a stored value lies.
    fn parts(&self, key: &[u8]) -> Result<u32> {
        Ok(self
            .engine
            .get(&self.snapshot, key)?
            .map_or(0, |value| value.parts))
    }
}

pub(crate) fn read_inputs(
    engine: &Engine,
    snapshot: &Snapshot,
    txid: &Txid,
) -> Result<Vec<OutPoint>> {
    let value = engine
        .get(snapshot, &inputs_key(txid))?
        .ok_or_else(|| corrupt(format!("the record of {txid}"), "its inputs are missing"))?;
    decode_inputs(txid, value.bytes())
}
