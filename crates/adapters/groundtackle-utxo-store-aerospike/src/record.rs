//! Cells as Aerospike records.
//!
//! | bin | holds |
//! |---|---|
//! | `k` | the cell's key |
//! | `st` | its stamp |
//! | `lk` | its lock: the intent, and what becomes of the cell |
//! | `a` | a page's attempt |
//! | `gtp` | how far an unfinished thing is: a page that is pending or aborted, an intent; indexed |
//! | `g`, `h` | a page's guard: flags, and the height at which it is confirmed |
//! | `gtu`, `us` | of an unmined transaction: where it stands in the order, indexed; and since when |
//! | `hd` | a record's head |
//! | `o`, `s` | a page's outputs and their slots, by index; both are lists of one length |
//! | `b`, `gtd` | any other cell's value, and its kind and the height at which it is due; indexed |

use std::collections::BTreeMap;

use aerospike::{Bin, IndexMap, Record, Value};
use groundtackle_utxo_store::pending::{
    Body, Cell, CellKey, DueKind, Guard, Lock, Mark, Next, OUTPUTS_PER_PAGE, Page, Phase, Slot,
    Stored, pack_body, unpack_body,
};
use groundtackle_utxo_store::{Error, Result, SpentBy, Txid};

use crate::error::{BACKEND, corrupt};

pub(crate) const KEY: &str = "k";
pub(crate) const STAMP: &str = "st";
pub(crate) const LOCK: &str = "lk";
pub(crate) const ATTEMPT: &str = "a";
pub(crate) const UNFINISHED: &str = "gtp";
pub(crate) const FLAGS: &str = "g";
pub(crate) const HEIGHT: &str = "h";
pub(crate) const UNMINED: &str = "gtu";
pub(crate) const UNMINED_SINCE: &str = "us";
pub(crate) const HEAD: &str = "hd";
pub(crate) const OUTPUTS: &str = "o";
pub(crate) const SLOTS: &str = "s";
pub(crate) const BYTES: &str = "b";
pub(crate) const DUE: &str = "gtd";

pub(crate) const PENDING: i64 = 1;
pub(crate) const ABORTED: i64 = 2;
const INTENT: i64 = 3;

pub(crate) const COINBASE: i64 = 1;
pub(crate) const LOCKED: i64 = 2;
pub(crate) const CONFLICTING: i64 = 4;

const FROZEN: u8 = 1;
const REASSIGNED: u8 = 2;
const HELD: u8 = 4;

/// The slot that anybody may spend, as far as it goes.
pub(crate) const UNSPENT: [u8; 1] = [0];

/// Where a transaction stands among all: the first 63 bits of its identifier.
pub(crate) fn place_in_order(txid: &Txid) -> i64 {
    let first = txid.as_bytes().first_chunk().copied().unwrap_or_default();
    (u64::from_be_bytes(first) >> 1).cast_signed()
}

/// The index of an output in its page's lists.
pub(crate) const fn index_of(vout: u32) -> i64 {
    (vout % OUTPUTS_PER_PAGE) as i64
}

/// Where a cell that is due stands among all: each kind has a stretch of its own.
pub(crate) fn place_of_due(kind: DueKind, height: u32) -> i64 {
    let height = i64::from(height);
    match kind {
        DueKind::Undo => height,
        DueKind::List => height | 1 << 32,
    }
}

pub(crate) fn pack_mark(mark: &Mark) -> Vec<u8> {
    let mut bytes = mark.by.txid.as_bytes().to_vec();
    bytes.extend(mark.by.vin.to_be_bytes());
    bytes.extend(mark.attempt.to_be_bytes());
    bytes
}

/// A slot: one byte, or the mark alone, or the one followed by what it says.
fn pack_slot(slot: &Slot) -> Vec<u8> {
    let flag = |set, flag| if set { flag } else { 0 };
    let flags = flag(slot.frozen, FROZEN)
        | flag(slot.spendable_from.is_some(), REASSIGNED)
        | flag(slot.mark.is_some(), HELD);
    match (&slot.mark, flags) {
        (Some(mark), HELD) => pack_mark(mark),
        _ => {
            let mut bytes = vec![flags];
            bytes.extend(slot.mark.iter().flat_map(pack_mark));
            bytes.extend(slot.spendable_from.iter().flat_map(|h| h.to_be_bytes()));
            bytes
        }
    }
}

fn stored(stored: &Stored, bytes: &mut Vec<u8>) {
    match stored {
        Stored::Here(value) => {
            bytes.push(0);
            bytes.extend(value);
        }
        Stored::Apart { id, len } => {
            bytes.push(1);
            bytes.extend(id.to_be_bytes());
            bytes.extend(len.to_be_bytes());
        }
    }
}

fn pack_stored(value: &Stored) -> Value {
    let mut bytes = Vec::new();
    stored(value, &mut bytes);
    Value::Blob(bytes)
}

pub(crate) fn pack_output(value_sat: u64, script: &Stored) -> Vec<u8> {
    let mut bytes = value_sat.to_be_bytes().to_vec();
    stored(script, &mut bytes);
    bytes
}

pub(crate) const fn int(number: u64) -> Value {
    Value::Int(number.cast_signed())
}

fn pack_lock(lock: &Lock) -> Value {
    let mut bytes = lock.intent.to_be_bytes().to_vec();
    match &lock.next {
        Next::Keep => bytes.push(0),
        Next::Delete => bytes.push(1),
        Next::Put(body) => {
            bytes.push(2);
            bytes.extend(pack_body(body));
        }
    }
    Value::Blob(bytes)
}

/// All bins of a cell.
pub(crate) fn bins(key: &CellKey, cell: &Cell) -> Vec<Bin> {
    let mut bins = vec![
        Bin::new(KEY, Value::Blob(key.to_bytes())),
        Bin::new(STAMP, int(cell.stamp)),
    ];
    let mut put = |name, value| bins.push(Bin::new(name, value));
    if let Some(lock) = &cell.lock {
        put(LOCK, pack_lock(lock));
    }
    match &cell.body {
        None => {}
        Some(Body::Bytes { due, bytes }) => {
            put(BYTES, pack_stored(bytes));
            if let Some(due) = due {
                let kind = DueKind::of(key).unwrap_or(DueKind::List);
                put(DUE, Value::Int(place_of_due(kind, *due)));
            }
            if matches!(key, CellKey::Intent(_)) {
                put(UNFINISHED, Value::Int(INTENT));
            }
        }
        Some(Body::Page(page)) => {
            put(ATTEMPT, int(page.attempt));
            match page.phase {
                Phase::Live => {}
                Phase::Pending => put(UNFINISHED, Value::Int(PENDING)),
                Phase::Aborted => put(UNFINISHED, Value::Int(ABORTED)),
            }
            let guard = &page.guard;
            let flag = |set, flag| if set { flag } else { 0 };
            let flags = flag(guard.coinbase, COINBASE)
                | flag(guard.locked, LOCKED)
                | flag(guard.conflicting, CONFLICTING);
            put(FLAGS, Value::Int(flags));
            if let Some(height) = guard.height {
                put(HEIGHT, int(u64::from(height)));
            }
            if let (Some(since), CellKey::Page { txid, .. }) = (page.unmined_since, key) {
                put(UNMINED, Value::Int(place_in_order(txid)));
                put(UNMINED_SINCE, int(u64::from(since)));
            }
            if let Some(head) = &page.head {
                put(HEAD, pack_stored(head));
            }
            let last = page.slots.keys().next_back();
            let (mut outputs, mut slots) = (Vec::new(), Vec::new());
            if let Some(last) = last {
                let first = last - last % OUTPUTS_PER_PAGE;
                for vout in first..=*last {
                    // A gap is an output that can't be spent.
                    let slot = page.slots.get(&vout);
                    let output = slot.map(|slot| pack_output(slot.value_sat, &slot.script));
                    outputs.push(Value::Blob(output.unwrap_or_default()));
                    let slot = slot.map_or(vec![HELD], pack_slot);
                    slots.push(Value::Blob(slot));
                }
            }
            put(OUTPUTS, Value::List(outputs));
            put(SLOTS, Value::List(slots));
        }
    }
    bins
}

/// What is left to read of a blob.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn mark(&mut self) -> Option<Mark> {
        Some(Mark {
            by: SpentBy {
                txid: Txid::from_bytes(self.array()?),
                vin: u32::from_be_bytes(self.array()?),
            },
            attempt: u64::from_be_bytes(self.array()?),
        })
    }

    fn stored(&mut self) -> Option<Stored> {
        Some(match self.array()? {
            [0] => Stored::Here(std::mem::take(&mut self.0).to_vec()),
            [1] => Stored::Apart {
                id: u64::from_be_bytes(self.array()?),
                len: u64::from_be_bytes(self.array()?),
            },
            _ => return None,
        })
    }

    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

/// A record's bins; nothing in them is believed.
struct Bins<'a>(&'a IndexMap<String, Value>);

impl<'a> Bins<'a> {
    fn damaged(detail: &str) -> Error {
        corrupt("a record", detail)
    }

    fn blob(&self, name: &str) -> Result<Option<&'a [u8]>> {
        match self.0.get(name) {
            None | Some(Value::Nil) => Ok(None),
            Some(Value::Blob(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(Self::damaged("a bin is of another type")),
        }
    }

    fn key(&self) -> Result<CellKey> {
        self.blob(KEY)?
            .and_then(CellKey::from_bytes)
            .ok_or_else(|| Self::damaged("it has no key"))
    }

    fn int(&self, name: &str) -> Result<Option<i64>> {
        match self.0.get(name) {
            None | Some(Value::Nil) => Ok(None),
            Some(Value::Int(number)) => Ok(Some(*number)),
            Some(_) => Err(Self::damaged("a bin is of another type")),
        }
    }

    fn number(&self, name: &str) -> Result<Option<u32>> {
        let number = self.int(name)?.map(u32::try_from).transpose();
        number.map_err(|_| Bins::damaged("a number is out of its range"))
    }

    /// The height, without the kind.
    fn due(&self) -> Result<Option<u32>> {
        let height = |due: i64| u32::try_from(due & i64::from(u32::MAX));
        let due = self.int(DUE)?.map(height).transpose();
        due.map_err(|_| Bins::damaged("a number is out of its range"))
    }

    fn blobs(&self, name: &str) -> Result<Vec<&'a [u8]>> {
        let damaged = || Self::damaged("a list is none");
        let Some(Value::List(items)) = self.0.get(name) else {
            return Err(damaged());
        };
        let mut blobs = Vec::with_capacity(items.len());
        for item in items {
            let Value::Blob(bytes) = item else {
                return Err(damaged());
            };
            blobs.push(bytes.as_slice());
        }
        Ok(blobs)
    }

    fn lock(&self) -> Result<Option<Lock>> {
        let Some(bytes) = self.blob(LOCK)? else {
            return Ok(None);
        };
        let mut reader = Reader(bytes);
        let (Some(intent), Some([kind])) = (reader.array(), reader.array()) else {
            return Err(Self::damaged("its lock is cut short"));
        };
        let next = match kind {
            0 => Next::Keep,
            1 => Next::Delete,
            2 => Next::Put(unpack_body(BACKEND, reader.0)?),
            _ => return Err(Self::damaged("its lock is of no known kind")),
        };
        Ok(Some(Lock {
            intent: u64::from_be_bytes(intent),
            next,
        }))
    }

    fn stored(&self, name: &str) -> Result<Option<Stored>> {
        let Some(bytes) = self.blob(name)? else {
            return Ok(None);
        };
        let mut reader = Reader(bytes);
        let stored = reader.stored().and_then(|stored| reader.end(stored));
        let stored = stored.ok_or_else(|| Self::damaged("a value of it is none"))?;
        Ok(Some(stored))
    }

    fn slots(&self, page: u32) -> Result<BTreeMap<u32, Slot>> {
        let (outputs, slots) = (self.blobs(OUTPUTS)?, self.blobs(SLOTS)?);
        if outputs.len() != slots.len() || outputs.len() > OUTPUTS_PER_PAGE as usize {
            return Err(Self::damaged("its outputs and slots don't fit"));
        }
        let first = page.checked_mul(OUTPUTS_PER_PAGE);
        let first = first.ok_or_else(|| Self::damaged("its page is out of range"))?;
        let mut found = BTreeMap::new();
        for ((vout, output), slot) in (first..=u32::MAX).zip(outputs).zip(slots) {
            if output.is_empty() {
                continue;
            }
            let slot = slot_of(output, slot).ok_or_else(|| Self::damaged("an output is none"))?;
            found.insert(vout, slot);
        }
        Ok(found)
    }
}

fn slot_of(output: &[u8], slot: &[u8]) -> Option<Slot> {
    let mut reader = Reader(output);
    let value_sat = u64::from_be_bytes(reader.array()?);
    let script = reader.stored()?;
    reader.end(())?;
    let mut reader = Reader(slot);
    let flags = match slot.len() {
        44 => HELD,
        _ => {
            let [flags] = reader.array()?;
            flags
        }
    };
    let mark = match flags & HELD {
        0 => None,
        _ => Some(reader.mark()?),
    };
    let spendable_from = match flags & REASSIGNED {
        0 => None,
        _ => Some(u32::from_be_bytes(reader.array()?)),
    };
    reader.end(Slot {
        value_sat,
        script,
        mark,
        frozen: flags & FROZEN != 0,
        spendable_from,
    })
}

/// The key that a record says it has.
pub(crate) fn key_of(record: &Record) -> Result<CellKey> {
    Bins(&record.bins).key()
}

/// Since when the transaction of a record is unmined.
pub(crate) fn unmined_since_of(record: &Record) -> Result<u32> {
    let since = Bins(&record.bins).number(UNMINED_SINCE)?;
    since.ok_or_else(|| Bins::damaged("it is not unmined"))
}

/// The cell that was asked for; another one is not believed.
pub(crate) fn cell(key: &CellKey, record: &Record) -> Result<Cell> {
    cell_of(key, &Bins(&record.bins))
}

/// For the fuzz target: a record has more about it than its bins.
#[cfg(any(test, fuzzing))]
pub(crate) fn cell_of_bins(key: &CellKey, bins: &IndexMap<String, Value>) -> Result<Cell> {
    cell_of(key, &Bins(bins))
}

fn cell_of(key: &CellKey, bins: &Bins<'_>) -> Result<Cell> {
    let found = bins.key()?;
    if found != *key {
        return Err(match key {
            CellKey::Page { txid, .. } => Error::WrongRecord {
                backend: BACKEND,
                asked: *txid,
                got: format!("that of {found:?}"),
            },
            _ => Bins::damaged("it is another one than asked"),
        });
    }
    let stamp = bins.int(STAMP)?;
    let stamp = stamp.ok_or_else(|| Bins::damaged("it has no stamp"))?;
    let body = match (bins.int(ATTEMPT)?, key) {
        (Some(attempt), CellKey::Page { page, .. }) => {
            let flags = bins.int(FLAGS)?.unwrap_or_default();
            Some(Body::Page(Page {
                attempt: attempt.cast_unsigned(),
                phase: match bins.int(UNFINISHED)? {
                    None => Phase::Live,
                    Some(PENDING) => Phase::Pending,
                    Some(ABORTED) => Phase::Aborted,
                    Some(_) => return Err(Bins::damaged("it is in no known phase")),
                },
                guard: Guard {
                    coinbase: flags & COINBASE != 0,
                    locked: flags & LOCKED != 0,
                    conflicting: flags & CONFLICTING != 0,
                    height: bins.number(HEIGHT)?,
                },
                unmined_since: bins.number(UNMINED_SINCE)?,
                head: bins.stored(HEAD)?,
                slots: bins.slots(*page)?,
            }))
        }
        (Some(_), _) => return Err(Bins::damaged("it should be no page")),
        (None, _) => {
            let due = bins.due()?;
            bins.stored(BYTES)?.map(|bytes| Body::Bytes { due, bytes })
        }
    };
    Ok(Cell {
        stamp: stamp.cast_unsigned(),
        lock: bins.lock()?,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TXID: Txid = Txid::from_bytes([7; 32]);

    fn read(key: &CellKey, bins: Vec<Bin>) -> Result<Cell> {
        let bins = bins.into_iter().map(|bin| (bin.name, bin.value));
        cell_of_bins(key, &bins.collect())
    }

    fn pages() -> Vec<(CellKey, Cell)> {
        let mark = Mark {
            by: SpentBy { txid: TXID, vin: 3 },
            attempt: u64::MAX,
        };
        let mut slots = BTreeMap::new();
        for n in 0..16_u32 {
            let slot = Slot {
                value_sat: u64::from(n) << 40,
                script: match n % 3 {
                    0 => Stored::Apart {
                        id: u64::MAX - 1,
                        len: 1 << 33,
                    },
                    _ => Stored::Here(vec![n as u8; n as usize]),
                },
                mark: (n & 1 != 0).then_some(mark),
                frozen: n & 2 != 0,
                spendable_from: (n & 4 != 0).then_some(n),
            };
            // With gaps, and on the second page.
            slots.insert(OUTPUTS_PER_PAGE + 2 * n, slot);
        }
        let page = Page {
            attempt: u64::MAX - 5,
            phase: Phase::Aborted,
            guard: Guard {
                coinbase: true,
                locked: true,
                conflicting: true,
                height: Some(u32::MAX),
            },
            unmined_since: Some(9),
            head: Some(Stored::Here(vec![1, 2, 3])),
            slots,
        };
        let key = |page| CellKey::Page { txid: TXID, page };
        let bytes = Body::Bytes {
            due: Some(77),
            bytes: Stored::Here(Vec::new()),
        };
        let lock = |next| Some(Lock { intent: 5, next });
        let cell = |lock, body| Cell {
            stamp: u64::MAX,
            lock,
            body,
        };
        let mut empty = page.clone();
        empty.slots.clear();
        (empty.phase, empty.head, empty.unmined_since) = (Phase::Live, None, None);
        empty.guard = Guard::default();
        vec![
            (key(1), cell(None, Some(Body::Page(page.clone())))),
            (key(0), cell(lock(Next::Keep), Some(Body::Page(empty)))),
            (key(1), cell(lock(Next::Put(Body::Page(page))), None)),
            (key(0), cell(lock(Next::Delete), None)),
            (
                CellKey::Due { height: 77, id: 1 },
                cell(None, Some(bytes.clone())),
            ),
            (CellKey::Intent(8), cell(None, Some(bytes.clone()))),
            (
                CellKey::Chain,
                cell(lock(Next::Put(bytes.clone())), Some(bytes)),
            ),
        ]
    }

    #[test]
    fn cells_read_as_they_were_written() {
        for (key, cell) in pages() {
            assert_eq!(read(&key, bins(&key, &cell)).unwrap(), cell, "{key:?}");
        }
    }

    #[test]
    fn a_record_of_another_key_is_not_believed() {
        for (key, cell) in pages() {
            let other = CellKey::Page {
                txid: Txid::from_bytes([8; 32]),
                page: 0,
            };
            let error = read(&other, bins(&key, &cell)).unwrap_err();
            assert!(matches!(error, Error::WrongRecord { .. }), "{error:?}");
        }
    }

    #[test]
    fn what_is_cut_short_or_of_another_type_is_not_believed() {
        for (key, cell) in pages() {
            let good = bins(&key, &cell);
            for at in 0..good.len() {
                let mut wrong = good.clone();
                wrong[at].value = Value::Float(1.5.into());
                let looked_at = good[at].name != UNMINED
                    && !matches!(key, CellKey::Intent(_) if good[at].name == UNFINISHED);
                if looked_at {
                    assert!(read(&key, wrong).is_err(), "{key:?}, {}", good[at].name);
                }
                let Value::Blob(bytes) = &good[at].value else {
                    continue;
                };
                for short in 0..bytes.len() {
                    let mut wrong = good.clone();
                    wrong[at].value = Value::Blob(bytes[..short].to_vec());
                    // Some are whole again: a shorter value. None may panic, or be what it was.
                    if let Ok(found) = read(&key, wrong) {
                        assert_ne!(found, cell, "{key:?}, {}", good[at].name);
                    }
                }
            }
        }
    }
}
