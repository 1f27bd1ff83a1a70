//! The bytes of heads, undo data, lists and intents. Nothing that is read is believed.

use std::collections::BTreeMap;

use groundtackle_chain::{BlockHash, OutPoint, TxOut, Txid};

use super::cells::{Body, CellKey, Guard, Mark, Page, Phase, Slot, Stored};
use super::intent::{Contents, Intent, IntentState};
use super::page_of;
use crate::digest::MuHash3072;
use crate::draft::{BlockUndo, Undo};
use crate::error::{Error, Result};
use crate::types::{MinedIn, Record, RecordOutput, SpentBy, Tip};

const FORMAT: u8 = 1;

const COINBASE: u8 = 1;
const LOCKED: u8 = 1 << 1;
const CONFLICTING: u8 = 1 << 2;
const FEE: u8 = 1 << 3;
const UNMINED: u8 = 1 << 4;
const PRESERVED: u8 = 1 << 5;
const HEIGHT: u8 = 1 << 6;

const ON_LONGEST_CHAIN: u8 = 1;
const KNOWN_BLOCK: u8 = 1 << 1;

const SPENT: u8 = 1;
const FROZEN: u8 = 1 << 1;
const REASSIGNED: u8 = 1 << 2;

const EXISTED: u8 = 1;
const ENTRY: u8 = 1 << 1;

const fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

/// A record without its outputs, and where those lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Without outputs.
    pub(super) record: Record,
    /// The pages after page 0.
    pub(super) pages: Vec<u32>,
}

struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Self {
        Self(vec![FORMAT])
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u32) {
        self.bytes(&number.to_be_bytes());
    }

    fn long(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }

    /// Memory holds fewer than 2^32 of anything here.
    fn count(&mut self, count: usize) {
        self.number(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn sized(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes(bytes);
    }

    fn mined(&mut self, mined: &MinedIn) {
        self.bytes(mined.block.unwrap_or(BlockHash::ZERO).as_bytes());
        self.number(mined.height);
        self.number(mined.subtree_index);
        self.byte(
            flag(mined.on_longest_chain, ON_LONGEST_CHAIN)
                | flag(mined.block.is_some(), KNOWN_BLOCK),
        );
    }

    fn record(&mut self, record: &Record) {
        self.byte(
            flag(record.coinbase, COINBASE)
                | flag(record.locked, LOCKED)
                | flag(record.conflicting, CONFLICTING)
                | flag(record.fee_sat.is_some(), FEE)
                | flag(record.unmined_since.is_some(), UNMINED)
                | flag(record.preserve_until.is_some(), PRESERVED),
        );
        self.long(record.size_bytes);
        self.number(record.lock_time);
        record.fee_sat.iter().for_each(|fee| self.long(*fee));
        let heights = record.unmined_since.iter().chain(&record.preserve_until);
        heights.for_each(|height| self.number(*height));
        self.count(record.mined_in.len());
        record.mined_in.iter().for_each(|mined| self.mined(mined));
        self.count(record.conflicting_children.len());
        let children = record.conflicting_children.iter();
        children.for_each(|child| self.bytes(child.as_bytes()));
        self.count(record.inputs.len());
        for outpoint in &record.inputs {
            self.bytes(outpoint.txid.as_bytes());
            self.number(outpoint.vout);
        }
    }

    fn output(&mut self, output: &RecordOutput) {
        self.number(output.vout);
        self.slot(&Slot {
            value_sat: output.output.value_sat,
            script: Stored::Here(output.output.script.as_bytes().to_vec()),
            mark: output.spent_by.map(|by| Mark { by, attempt: 0 }),
            frozen: output.frozen,
            spendable_from: output.spendable_from,
        });
    }

    fn slot(&mut self, slot: &Slot) {
        self.byte(
            flag(slot.mark.is_some(), SPENT)
                | flag(slot.frozen, FROZEN)
                | flag(slot.spendable_from.is_some(), REASSIGNED),
        );
        self.long(slot.value_sat);
        if let Some(mark) = slot.mark {
            self.bytes(mark.by.txid.as_bytes());
            self.number(mark.by.vin);
            self.long(mark.attempt);
        }
        slot.spendable_from.iter().for_each(|h| self.number(*h));
        self.stored(&slot.script);
    }

    fn stored(&mut self, stored: &Stored) {
        match stored {
            Stored::Here(bytes) => {
                self.byte(0);
                self.sized(bytes);
            }
            Stored::Apart { id, len } => {
                self.byte(1);
                self.long(*id);
                self.long(*len);
            }
        }
    }

    fn tip(&mut self, tip: Option<&Tip>) {
        self.byte(u8::from(tip.is_some()));
        if let Some(tip) = tip {
            self.number(tip.height);
            self.bytes(tip.hash.as_bytes());
            self.number(tip.median_time_past);
        }
    }

    fn key(&mut self, key: &CellKey) {
        match key {
            CellKey::Page { txid, page } => {
                self.byte(0);
                self.bytes(txid.as_bytes());
                self.number(*page);
            }
            CellKey::Chain => self.byte(1),
            CellKey::Undo(block) => {
                self.byte(2);
                self.bytes(block.as_bytes());
            }
            CellKey::Due { height, id } => {
                self.byte(3);
                self.number(*height);
                self.long(*id);
            }
            CellKey::Intent(id) => {
                self.byte(4);
                self.long(*id);
            }
            CellKey::Part { id, part } => {
                self.byte(5);
                self.long(*id);
                self.number(*part);
            }
        }
    }
}

/// What is left to read of a value.
pub(super) struct Reader<'a> {
    backend: &'static str,
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn open(backend: &'static str, what: &'static str, rest: &'a [u8]) -> Result<Self> {
        let mut reader = Self {
            backend,
            what,
            rest,
        };
        if reader.byte()? != FORMAT {
            return Err(reader.damaged("it has another format"));
        }
        Ok(reader)
    }

    fn damaged(&self, detail: &str) -> Error {
        Error::corrupt(self.backend, self.what, detail)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((array, rest)) = self.rest.split_first_chunk() else {
            return Err(self.damaged("it is cut short"));
        };
        self.rest = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn txid(&mut self) -> Result<Txid> {
        self.array().map(Txid::from_bytes)
    }

    fn hash(&mut self) -> Result<BlockHash> {
        self.array().map(BlockHash::from_bytes)
    }

    fn sized(&mut self) -> Result<Vec<u8>> {
        let length = self.number()? as usize;
        let Some((bytes, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.damaged("it is cut short"));
        };
        self.rest = rest;
        Ok(bytes.to_vec())
    }

    /// So many items as the next number says; a lie ends where the bytes do.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.number()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn option<T>(
        &mut self,
        there: bool,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Option<T>> {
        there.then(|| item(self)).transpose()
    }

    fn mined(&mut self) -> Result<MinedIn> {
        let block = self.hash()?;
        let (height, subtree_index, flags) = (self.number()?, self.number()?, self.byte()?);
        Ok(MinedIn {
            block: (flags & KNOWN_BLOCK != 0).then_some(block),
            height,
            subtree_index,
            on_longest_chain: flags & ON_LONGEST_CHAIN != 0,
        })
    }

    fn record(&mut self, txid: Txid) -> Result<Record> {
        let flags = self.byte()?;
        let (size_bytes, lock_time) = (self.long()?, self.number()?);
        let has = |flag| flags & flag != 0;
        let fee_sat = self.option(has(FEE), Self::long)?;
        let unmined_since = self.option(has(UNMINED), Self::number)?;
        let preserve_until = self.option(has(PRESERVED), Self::number)?;
        Ok(Record {
            txid,
            coinbase: has(COINBASE),
            fee_sat,
            size_bytes,
            lock_time,
            outputs: Vec::new(),
            mined_in: self.list(Self::mined)?,
            unmined_since,
            locked: has(LOCKED),
            conflicting: has(CONFLICTING),
            conflicting_children: self.list(Self::txid)?,
            preserve_until,
            inputs: self.list(|r| Ok(OutPoint::new(r.txid()?, r.number()?)))?,
        })
    }

    fn slot(&mut self) -> Result<Slot> {
        let flags = self.byte()?;
        let has = |flag| flags & flag != 0;
        let value_sat = self.long()?;
        let mark = self.option(has(SPENT), |r| {
            Ok(Mark {
                by: SpentBy {
                    txid: r.txid()?,
                    vin: r.number()?,
                },
                attempt: r.long()?,
            })
        })?;
        Ok(Slot {
            value_sat,
            mark,
            frozen: has(FROZEN),
            spendable_from: self.option(has(REASSIGNED), Self::number)?,
            script: self.stored()?,
        })
    }

    fn output(&mut self) -> Result<RecordOutput> {
        let vout = self.number()?;
        let slot = self.slot()?;
        let Stored::Here(script) = slot.script else {
            return Err(self.damaged("a script of it is elsewhere"));
        };
        Ok(RecordOutput {
            vout,
            output: TxOut {
                value_sat: slot.value_sat,
                script: script.into(),
            },
            spent_by: slot.mark.map(|mark| mark.by),
            frozen: slot.frozen,
            spendable_from: slot.spendable_from,
        })
    }

    fn stored(&mut self) -> Result<Stored> {
        Ok(match self.byte()? {
            0 => Stored::Here(self.sized()?),
            1 => Stored::Apart {
                id: self.long()?,
                len: self.long()?,
            },
            _ => return Err(self.damaged("a value of it is nowhere")),
        })
    }

    fn tip(&mut self) -> Result<Option<Tip>> {
        if self.byte()? == 0 {
            return Ok(None);
        }
        Ok(Some(Tip {
            height: self.number()?,
            hash: self.hash()?,
            median_time_past: self.number()?,
        }))
    }

    fn key(&mut self) -> Result<CellKey> {
        Ok(match self.byte()? {
            0 => CellKey::Page {
                txid: self.txid()?,
                page: self.number()?,
            },
            1 => CellKey::Chain,
            2 => CellKey::Undo(self.hash()?),
            3 => CellKey::Due {
                height: self.number()?,
                id: self.long()?,
            },
            4 => CellKey::Intent(self.long()?),
            5 => CellKey::Part {
                id: self.long()?,
                part: self.number()?,
            },
            _ => return Err(self.damaged("it names a cell of no known kind")),
        })
    }

    fn end<T>(self, value: T) -> Result<T> {
        if self.rest.is_empty() {
            Ok(value)
        } else {
            Err(self.damaged("it is longer than it should be"))
        }
    }
}

fn id_mark(id: &[u8; 32]) -> [u8; 8] {
    let mut mark = [0; 8];
    mark.iter_mut().zip(id).for_each(|(to, from)| *to = *from);
    mark
}

pub(super) fn pack_head(head: &Head) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.bytes(&id_mark(head.record.txid.as_bytes()));
    writer.record(&head.record);
    writer.count(head.pages.len());
    head.pages.iter().for_each(|page| writer.number(*page));
    writer.0
}

/// The head of `txid`; of another transaction it is not believed.
pub(super) fn unpack_head(backend: &'static str, txid: Txid, bytes: &[u8]) -> Result<Head> {
    let mut reader = Reader::open(backend, "a record", bytes)?;
    let found: [u8; 8] = reader.array()?;
    if found != id_mark(txid.as_bytes()) {
        return Err(Error::WrongRecord {
            backend,
            asked: txid,
            got: format!("another one (marked {found:02x?})"),
        });
    }
    let record = reader.record(txid)?;
    let pages = reader.list(Reader::number)?;
    let ascend = pages.is_sorted_by(|a, b| a < b) && !pages.contains(&0);
    if !ascend {
        return Err(reader.damaged("its pages don't ascend"));
    }
    if pages.last().is_some_and(|last| *last > page_of(u32::MAX)) {
        return Err(reader.damaged("it has a page that no output can be on"));
    }
    reader.end(Head { record, pages })
}

pub(super) fn pack_undo(undo: &BlockUndo) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.number(undo.height);
    writer.tip(undo.previous.as_ref());
    writer.count(undo.transactions.len());
    for (txid, how) in &undo.transactions {
        writer.bytes(txid.as_bytes());
        match how {
            Undo::Created => writer.byte(0),
            Undo::Existed {
                unmined_since,
                entry,
                fee_sat,
            } => {
                writer.byte(
                    EXISTED
                        | flag(entry.is_some(), ENTRY)
                        | flag(fee_sat.is_some(), FEE)
                        | flag(unmined_since.is_some(), UNMINED),
                );
                unmined_since.iter().for_each(|since| writer.number(*since));
                entry.iter().for_each(|entry| writer.mined(entry));
                fee_sat.iter().for_each(|fee| writer.long(*fee));
            }
        }
    }
    writer.byte(u8::from(undo.replaced_coinbase.is_some()));
    if let Some(record) = &undo.replaced_coinbase {
        writer.bytes(record.txid.as_bytes());
        writer.record(record);
        writer.count(record.outputs.len());
        record
            .outputs
            .iter()
            .for_each(|output| writer.output(output));
    }
    writer.0
}

pub(super) fn unpack_undo(backend: &'static str, bytes: &[u8]) -> Result<BlockUndo> {
    let mut reader = Reader::open(backend, "undo data", bytes)?;
    let (height, previous) = (reader.number()?, reader.tip()?);
    let transactions = reader.list(|r| {
        let (txid, flags) = (r.txid()?, r.byte()?);
        let has = |flag| flags & flag != 0;
        if !has(EXISTED) {
            return Ok((txid, Undo::Created));
        }
        let how = Undo::Existed {
            unmined_since: r.option(has(UNMINED), Reader::number)?,
            entry: r.option(has(ENTRY), Reader::mined)?,
            fee_sat: r.option(has(FEE), Reader::long)?,
        };
        Ok((txid, how))
    })?;
    let replaced = reader.byte()? != 0;
    let replaced_coinbase = reader.option(replaced, |r| {
        let txid = r.txid()?;
        let mut record = r.record(txid)?;
        record.outputs = r.list(Reader::output)?;
        Ok(Box::new(record))
    })?;
    reader.end(BlockUndo {
        height,
        previous,
        transactions,
        replaced_coinbase,
    })
}

pub(super) fn pack_chain(tip: Option<&Tip>, muhash: &MuHash3072) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.tip(tip);
    writer.bytes(&muhash.to_bytes());
    writer.0
}

pub(super) fn unpack_chain(
    backend: &'static str,
    bytes: &[u8],
) -> Result<(Option<Tip>, MuHash3072)> {
    let mut reader = Reader::open(backend, "the tip", bytes)?;
    let tip = reader.tip()?;
    let state = reader.array()?;
    let muhash =
        MuHash3072::from_bytes(&state).ok_or_else(|| reader.damaged("its digest is none"))?;
    reader.end((tip, muhash))
}

pub(super) fn pack_txids(txids: &[Txid]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.count(txids.len());
    txids.iter().for_each(|txid| writer.bytes(txid.as_bytes()));
    writer.0
}

pub(super) fn unpack_txids(backend: &'static str, bytes: &[u8]) -> Result<Vec<Txid>> {
    let mut reader = Reader::open(backend, "a list of transactions", bytes)?;
    let txids = reader.list(Reader::txid)?;
    reader.end(txids)
}

pub(super) fn pack_contents(contents: &Contents) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.count(contents.keys.len());
    contents.keys.iter().for_each(|key| writer.key(key));
    for parts in [&contents.dropped, &contents.new, &contents.old] {
        writer.count(parts.len());
        for (id, len) in parts {
            writer.long(*id);
            writer.long(*len);
        }
    }
    writer.0
}

pub(super) fn unpack_contents(backend: &'static str, bytes: &[u8]) -> Result<Contents> {
    let mut reader = Reader::open(backend, "what an intent names", bytes)?;
    let parts = |reader: &mut Reader<'_>| reader.list(|r| Ok((r.long()?, r.long()?)));
    let contents = Contents {
        keys: reader.list(Reader::key)?,
        dropped: parts(&mut reader)?,
        new: parts(&mut reader)?,
        old: parts(&mut reader)?,
    };
    reader.end(contents)
}

pub(super) fn pack_intent(intent: &Intent) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.byte(intent.state as u8);
    writer.stored(&intent.contents);
    writer.0
}

pub(super) fn unpack_intent(backend: &'static str, bytes: &[u8]) -> Result<Intent> {
    let mut reader = Reader::open(backend, "an intent", bytes)?;
    let intent = Intent {
        state: match reader.byte()? {
            0 => IntentState::Preparing,
            1 => IntentState::Committed,
            2 => IntentState::Aborted,
            _ => return Err(reader.damaged("it is in no known state")),
        },
        contents: reader.stored()?,
    };
    reader.end(intent)
}

impl CellKey {
    /// The key as bytes, for backends that name their records so.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer(Vec::with_capacity(37));
        writer.key(self);
        writer.0
    }

    /// The key that has these bytes, if there is one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader {
            backend: "",
            what: "a key",
            rest: bytes,
        };
        let key = reader.key().ok()?;
        reader.end(key).ok()
    }
}

/// A cell's content as one value, for backends that keep [`Next`](super::Next) so.
pub fn pack_body(body: &Body) -> Vec<u8> {
    let mut writer = Writer::new();
    match body {
        Body::Bytes { due, bytes } => {
            writer.byte(flag(due.is_some(), 1 << 1));
            due.iter().for_each(|due| writer.number(*due));
            writer.stored(bytes);
        }
        Body::Page(page) => {
            writer.byte(1);
            writer.long(page.attempt);
            writer.byte(page.phase as u8);
            let guard = &page.guard;
            writer.byte(
                flag(guard.coinbase, COINBASE)
                    | flag(guard.locked, LOCKED)
                    | flag(guard.conflicting, CONFLICTING)
                    | flag(guard.height.is_some(), HEIGHT)
                    | flag(page.unmined_since.is_some(), UNMINED)
                    | flag(page.head.is_some(), PRESERVED),
            );
            let heights = guard.height.iter().chain(&page.unmined_since);
            heights.for_each(|height| writer.number(*height));
            page.head.iter().for_each(|head| writer.stored(head));
            writer.count(page.slots.len());
            for (vout, slot) in &page.slots {
                writer.number(*vout);
                writer.slot(slot);
            }
        }
    }
    writer.0
}

/// What [`pack_body`] made.
///
/// # Errors
/// `Corrupt`, in the name of `backend`, for anything else.
pub fn unpack_body(backend: &'static str, bytes: &[u8]) -> Result<Body> {
    let mut reader = Reader::open(backend, "a cell", bytes)?;
    let kind = reader.byte()?;
    if kind & 1 == 0 {
        let body = Body::Bytes {
            due: reader.option(kind & 2 != 0, Reader::number)?,
            bytes: reader.stored()?,
        };
        return reader.end(body);
    }
    let attempt = reader.long()?;
    let phase = match reader.byte()? {
        0 => Phase::Pending,
        1 => Phase::Live,
        2 => Phase::Aborted,
        _ => return Err(reader.damaged("it is in no known phase")),
    };
    let flags = reader.byte()?;
    let has = |flag| flags & flag != 0;
    let guard = Guard {
        coinbase: has(COINBASE),
        locked: has(LOCKED),
        conflicting: has(CONFLICTING),
        height: reader.option(has(HEIGHT), Reader::number)?,
    };
    let unmined_since = reader.option(has(UNMINED), Reader::number)?;
    let head = reader.option(has(PRESERVED), Reader::stored)?;
    let slots: BTreeMap<u32, Slot> = reader
        .list(|r| Ok((r.number()?, r.slot()?)))?
        .into_iter()
        .collect();
    let pages = slots.keys().next().zip(slots.keys().next_back());
    if pages.is_some_and(|(first, last)| page_of(*first) != page_of(*last)) {
        return Err(reader.damaged("it has outputs of several pages"));
    }
    reader.end(Body::Page(Page {
        attempt,
        phase,
        guard,
        unmined_since,
        head,
        slots,
    }))
}

#[cfg(test)]
mod tests;
