//! What lies where: names of keys, and the fields of a cell.

use std::collections::BTreeMap;

use groundtackle_utxo_store::pending::{
    Body, Cell, CellKey, DueKind, Guard, Lock, Mark, Next, Page, Phase, Slot, Stored, pack_body,
    unpack_body,
};
use groundtackle_utxo_store::{BlockHash, Error, Result, SpentBy, Txid};
use redis::Value;

use super::{BACKEND, corrupt};
use crate::read::{array, bytes};

/// Hash slots of a cluster.
pub(crate) const SLOTS: u16 = 16_384;

/// Undo data and lists of what is due lie in so many buckets, since a pruning asks all of them.
const DUE_BUCKETS: usize = 16;

/// In every list, so that one that is missing has been lost.
pub(crate) const FIRST: &[u8] = b"!";

const COINBASE: u8 = 1;
const LOCKED: u8 = 1 << 1;
const CONFLICTING: u8 = 1 << 2;
const HEIGHT: u8 = 1 << 3;
const UNMINED: u8 = 1 << 4;
const HEAD: u8 = 1 << 5;

const FROZEN: u8 = 1;
const REASSIGNED: u8 = 1 << 1;

const HERE: u8 = 0;
const APART: u8 = 1;

const fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

fn damaged(detail: &str) -> Error {
    corrupt("a cell", detail)
}

/// The checksum by which a cluster places keys, from where a part of it has come.
fn crc16(from: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(from, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

/// What shares a hash slot.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    /// In braces, what all its keys begin with.
    tag: String,
    pub(crate) slot: u16,
}

impl Bucket {
    fn key(&self, id: &[u8]) -> Vec<u8> {
        [self.tag.as_bytes(), id].concat()
    }

    /// Its list.
    pub(crate) fn list(&self) -> Vec<u8> {
        self.key(b"list")
    }

    /// What a flush writes.
    pub(crate) fn flush(&self) -> Vec<u8> {
        self.key(b"flush")
    }

    /// What a probe makes and removes.
    pub(crate) fn probe(&self) -> [Vec<u8>; 2] {
        [self.key(b"probe"), self.key(b"probed")]
    }

    pub(crate) fn settings(&self) -> Vec<u8> {
        self.key(b"settings")
    }
}

/// The buckets, which lie at equal distances in the slots, in the order of the transactions in them.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    buckets: Vec<Bucket>,
}

impl Layout {
    /// `spread` is a power of two.
    pub(crate) fn new(prefix: &str, spread: u16) -> Result<Self> {
        let stride = SLOTS / spread.clamp(1, SLOTS);
        let begun = crc16(0, format!("{prefix}:").as_bytes());
        let mut found: BTreeMap<u16, Bucket> = BTreeMap::new();
        for number in 0_u32..1 << 24 {
            let end = format!("{number:x}");
            let slot = crc16(begun, end.as_bytes()) % SLOTS;
            if slot.is_multiple_of(stride) {
                let tag = format!("{{{prefix}:{end}}}");
                found.entry(slot).or_insert(Bucket { tag, slot });
            }
            if found.len() == usize::from(spread) {
                let buckets = found.into_values().collect();
                return Ok(Self { buckets });
            }
        }
        Err(Error::invalid_request(format!(
            "there are no names for all hash slots with prefix {prefix}; use another one"
        )))
    }

    pub(crate) fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// The buckets of what is due.
    pub(crate) fn due(&self) -> impl Iterator<Item = &Bucket> {
        let step = (self.buckets.len() / DUE_BUCKETS).max(1);
        self.buckets.iter().step_by(step)
    }

    /// The bucket for a number below 2^16.
    fn at(&self, number: u16) -> usize {
        (usize::from(number) * self.buckets.len()) >> 16
    }

    pub(crate) fn number_of(&self, txid: &Txid) -> usize {
        let [a, b, ..] = txid.as_bytes();
        self.at(u16::from_be_bytes([*a, *b]))
    }

    pub(crate) fn bucket_of(&self, key: &CellKey) -> Result<&Bucket> {
        let of_id = |id: u64| self.at((id >> 48) as u16);
        let number = match key {
            CellKey::Page { txid, .. } => self.number_of(txid),
            CellKey::Chain => 0,
            CellKey::Undo(block) => {
                let [a, ..] = block.as_bytes();
                self.at(u16::from(*a >> 4) << 12)
            }
            CellKey::Due { id, .. } => self.at(((id >> 60) << 12) as u16),
            CellKey::Intent(id) => of_id(*id),
            // The parts of one value lie apart too.
            CellKey::Part { id, part } => {
                of_id(id.wrapping_add(u64::from(*part).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            }
        };
        let bucket = self.buckets.get(number);
        bucket.ok_or_else(|| damaged("it has no bucket"))
    }

    /// The cell's key, and its bucket.
    pub(crate) fn key(&self, key: &CellKey) -> Result<(&Bucket, Vec<u8>)> {
        let bucket = self.bucket_of(key)?;
        Ok((bucket, bucket.key(&id(key))))
    }
}

/// What the cell is named in its bucket.
fn id(key: &CellKey) -> Vec<u8> {
    match key {
        CellKey::Page { txid, page: 0 } => [b"p", txid.as_bytes().as_slice()].concat(),
        CellKey::Page { txid, page } => {
            [b"p", txid.as_bytes().as_slice(), &page.to_be_bytes()].concat()
        }
        CellKey::Chain => b"chain".to_vec(),
        CellKey::Undo(block) => [b"u", block.as_bytes().as_slice()].concat(),
        CellKey::Due { height, id } => {
            [b"d".as_slice(), &height.to_be_bytes(), &id.to_be_bytes()].concat()
        }
        CellKey::Intent(id) => [b"i".as_slice(), &id.to_be_bytes()].concat(),
        CellKey::Part { id, part } => {
            [b"v".as_slice(), &id.to_be_bytes(), &part.to_be_bytes()].concat()
        }
    }
}

/// The cell that has this name.
pub(crate) fn key_of(id: &[u8]) -> Result<CellKey> {
    let (kind, rest) = id.split_first().unwrap_or((&0, &[]));
    let mut reader = Reader(rest);
    let key = match kind {
        b'p' => CellKey::Page {
            txid: Txid::from_bytes(reader.array()?),
            page: match reader.0.len() {
                0 => 0,
                _ => reader.number()?,
            },
        },
        b'u' => CellKey::Undo(BlockHash::from_bytes(reader.array()?)),
        b'd' => CellKey::Due {
            height: reader.number()?,
            id: reader.long()?,
        },
        b'i' => CellKey::Intent(reader.long()?),
        _ => return Err(damaged("a list has no such cells")),
    };
    reader.end(key)
}

/// Whether such cells are in their bucket's list at times.
pub(crate) const fn is_listed(key: &CellKey) -> bool {
    !matches!(key, CellKey::Chain | CellKey::Part { .. })
}

pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (found, rest) = self
            .0
            .split_first_chunk()
            .ok_or_else(|| damaged("it is cut short"))?;
        self.0 = rest;
        Ok(*found)
    }

    fn byte(&mut self) -> Result<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(crate) fn number(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn end<T>(&self, value: T) -> Result<T> {
        match self.0.is_empty() {
            true => Ok(value),
            false => Err(damaged("it is too long")),
        }
    }

    fn stored(&mut self) -> Result<Stored> {
        match self.byte()? {
            HERE => Ok(Stored::Here(std::mem::take(&mut self.0).to_vec())),
            APART => Ok(Stored::Apart {
                id: self.long()?,
                len: self.long()?,
            }),
            _ => Err(damaged("a value is of no known kind")),
        }
    }
}

fn pack_stored(stored: &Stored) -> Vec<u8> {
    match stored {
        Stored::Here(bytes) => [&[HERE], bytes.as_slice()].concat(),
        Stored::Apart { id, len } => {
            [[APART].as_slice(), &id.to_be_bytes(), &len.to_be_bytes()].concat()
        }
    }
}

/// An output without its mark: all but the first five bytes never changes while it is spent.
fn pack_slot(slot: &Slot) -> Vec<u8> {
    let flags = flag(slot.frozen, FROZEN) | flag(slot.spendable_from.is_some(), REASSIGNED);
    let mut packed = vec![flags];
    packed.extend(slot.spendable_from.unwrap_or(0).to_be_bytes());
    packed.extend(pack_output(slot.value_sat, &slot.script));
    packed
}

/// What an output is.
pub(crate) fn pack_output(value_sat: u64, script: &Stored) -> Vec<u8> {
    [value_sat.to_be_bytes().as_slice(), &pack_stored(script)].concat()
}

fn unpack_slot(packed: &[u8]) -> Result<Slot> {
    let mut reader = Reader(packed);
    let (flags, height) = (reader.byte()?, reader.number()?);
    let slot = Slot {
        value_sat: reader.long()?,
        script: reader.stored()?,
        mark: None,
        frozen: flags & FROZEN != 0,
        spendable_from: (flags & REASSIGNED != 0).then_some(height),
    };
    reader.end(slot)
}

pub(crate) fn pack_mark(mark: &Mark) -> Vec<u8> {
    [
        mark.by.txid.as_bytes().as_slice(),
        &mark.by.vin.to_be_bytes(),
        &mark.attempt.to_be_bytes(),
    ]
    .concat()
}

fn unpack_mark(packed: &[u8]) -> Result<Mark> {
    let mut reader = Reader(packed);
    let mark = Mark {
        by: SpentBy {
            txid: Txid::from_bytes(reader.array()?),
            vin: reader.number()?,
        },
        attempt: reader.long()?,
    };
    reader.end(mark)
}

pub(crate) const fn pack_phase(phase: Phase) -> u8 {
    match phase {
        Phase::Pending => 0,
        Phase::Live => 1,
        Phase::Aborted => 2,
    }
}

fn pack_lock(lock: &Lock) -> Vec<u8> {
    let mut packed = lock.intent.to_be_bytes().to_vec();
    match &lock.next {
        Next::Keep => packed.push(0),
        Next::Delete => packed.push(1),
        Next::Put(body) => {
            packed.push(2);
            packed.extend(pack_body(body));
        }
    }
    packed
}

fn unpack_lock(packed: &[u8]) -> Result<Lock> {
    let mut reader = Reader(packed);
    let intent = reader.long()?;
    let next = match reader.byte()? {
        0 => Next::Keep,
        1 => Next::Delete,
        2 => Next::Put(unpack_body(BACKEND, std::mem::take(&mut reader.0))?),
        _ => return Err(damaged("a lock is of no known kind")),
    };
    reader.end(Lock { intent, next })
}

/// The field `s`, by which the script judges.
fn pack_state(cell: &Cell) -> Vec<u8> {
    let mut state = cell.stamp.to_be_bytes().to_vec();
    match &cell.body {
        None | Some(Body::Bytes { due: None, .. }) => {}
        Some(Body::Bytes { due: Some(due), .. }) => state.extend(due.to_be_bytes()),
        Some(Body::Page(page)) => {
            let guard = &page.guard;
            state.extend(page.attempt.to_be_bytes());
            state.push(pack_phase(page.phase));
            state.push(
                flag(guard.coinbase, COINBASE)
                    | flag(guard.locked, LOCKED)
                    | flag(guard.conflicting, CONFLICTING)
                    | flag(guard.height.is_some(), HEIGHT)
                    | flag(page.unmined_since.is_some(), UNMINED)
                    | flag(page.head.is_some(), HEAD),
            );
            state.extend(guard.height.unwrap_or(0).to_be_bytes());
            state.extend(page.unmined_since.unwrap_or(0).to_be_bytes());
        }
    }
    state
}

fn unpack_page(mut state: Reader<'_>) -> Result<Page> {
    let attempt = state.long()?;
    let phase = match state.byte()? {
        0 => Phase::Pending,
        1 => Phase::Live,
        2 => Phase::Aborted,
        _ => return Err(damaged("it is in no known phase")),
    };
    let (flags, height, since) = (state.byte()?, state.number()?, state.number()?);
    let has = |flag| flags & flag != 0;
    let page = Page {
        attempt,
        phase,
        guard: Guard {
            coinbase: has(COINBASE),
            locked: has(LOCKED),
            conflicting: has(CONFLICTING),
            height: has(HEIGHT).then_some(height),
        },
        unmined_since: has(UNMINED).then_some(since),
        head: None,
        slots: BTreeMap::new(),
    };
    state.end(page)
}

/// Name and value.
type Field = (Vec<u8>, Vec<u8>);

/// The field `s`, and the others.
pub(crate) fn pack_cell(cell: &Cell) -> (Vec<u8>, Vec<Field>) {
    let mut fields = Vec::new();
    if let Some(lock) = &cell.lock {
        fields.push((b"l".to_vec(), pack_lock(lock)));
    }
    match &cell.body {
        None => {}
        Some(Body::Bytes { bytes, .. }) => fields.push((b"b".to_vec(), pack_stored(bytes))),
        Some(Body::Page(page)) => {
            if let Some(head) = &page.head {
                fields.push((b"h".to_vec(), pack_stored(head)));
            }
            for (vout, slot) in &page.slots {
                fields.push((field(b'o', *vout), pack_slot(slot)));
                if let Some(mark) = &slot.mark {
                    fields.push((field(b'm', *vout), pack_mark(mark)));
                }
            }
        }
    }
    (pack_state(cell), fields)
}

fn field(kind: u8, vout: u32) -> Vec<u8> {
    [[kind].as_slice(), &vout.to_be_bytes()].concat()
}

/// A cell from all its fields; `None` where there are none.
pub(crate) fn unpack_cell(key: &CellKey, answer: Value) -> Result<Option<Cell>> {
    let mut parts = array(answer)?.into_iter();
    let (mut state, mut lock, mut head, mut value) = (None, None, None, None);
    let (mut slots, mut marks) = (BTreeMap::new(), Vec::new());
    while let Some(name) = parts.next() {
        let name = bytes(name)?.unwrap_or_default();
        let content = parts.next().map(bytes).transpose()?.flatten();
        let content = content.ok_or_else(|| damaged("a field has no value"))?;
        let vout = |name: &[u8]| {
            let mut reader = Reader(name);
            let vout = reader.number()?;
            reader.end(vout)
        };
        match name.split_first() {
            Some((b's', [])) => state = Some(content),
            Some((b'l', [])) => lock = Some(unpack_lock(&content)?),
            Some((b'h', [])) => head = Some(whole(&content)?),
            Some((b'b', [])) => value = Some(whole(&content)?),
            Some((b'o', name)) => drop(slots.insert(vout(name)?, unpack_slot(&content)?)),
            Some((b'm', name)) => marks.push((vout(name)?, unpack_mark(&content)?)),
            _ => return Err(damaged("it has an unknown field")),
        }
    }
    let Some(state) = state else {
        let none = lock.is_none() && head.is_none() && value.is_none();
        return match none && slots.is_empty() && marks.is_empty() {
            true => Ok(None),
            false => Err(damaged("it has no stamp")),
        };
    };
    let mut reader = Reader(&state);
    let stamp = reader.long()?;
    for (vout, mark) in marks {
        let slot = slots.get_mut(&vout);
        slot.ok_or_else(|| damaged("a mark has no output"))?.mark = Some(mark);
    }
    let bare = head.is_none() && slots.is_empty();
    let body = match (value, reader.0.len(), key) {
        (None, 0, _) if bare => None,
        (Some(bytes), 0, _) if bare => Some(Body::Bytes { due: None, bytes }),
        (Some(bytes), 4, _) if bare => Some(Body::Bytes {
            due: Some(reader.number()?),
            bytes,
        }),
        (None, _, CellKey::Page { .. }) => Some(Body::Page(Page {
            head,
            slots,
            ..unpack_page(reader)?
        })),
        _ => return Err(damaged("its stamp is of another kind")),
    };
    Ok(Some(Cell { stamp, lock, body }))
}

fn whole(packed: &[u8]) -> Result<Stored> {
    let mut reader = Reader(packed);
    let stored = reader.stored()?;
    reader.end(stored)
}

/// A stretch of a list: from, up to.
pub(crate) type Stretch = (Vec<u8>, Vec<u8>);

pub(crate) fn unfinished() -> Stretch {
    (b"[f".to_vec(), b"(g".to_vec())
}

/// What is due up to a height.
pub(crate) fn due(kind: DueKind, height: u32) -> Stretch {
    let kind = match kind {
        DueKind::Undo => b'b',
        DueKind::List => b'd',
    };
    let end = match height.checked_add(1) {
        Some(next) => [[b'(', kind].as_slice(), &next.to_be_bytes()].concat(),
        None => vec![b'(', kind + 1],
    };
    (vec![b'[', kind], end)
}

/// Transactions after one, of the kind that begins with a letter.
pub(crate) fn transactions(kind: u8, after: Option<&Txid>) -> Stretch {
    let from = match after {
        None => vec![b'[', kind],
        // The height behind it, if there is one, is none of 2^32.
        Some(txid) => [&[b'(', kind], txid.as_bytes().as_slice(), &[0xff; 5]].concat(),
    };
    (from, vec![b'(', kind + 1])
}

#[cfg(test)]
mod tests {
    use groundtackle_utxo_store::pending::CellKey;

    use super::*;

    #[test]
    fn slots_are_those_of_a_cluster() {
        // The specification's own example, and what CLUSTER KEYSLOT says.
        assert_eq!(crc16(0, b"123456789"), 0x31c3);
        assert_eq!(crc16(0, b"foo") % SLOTS, 12_182);
    }

    #[test]
    fn buckets_lie_at_equal_distances() {
        for (prefix, spread) in [("groundtackle", 1_024), ("a:b", 16), ("x", 16_384)] {
            let layout = Layout::new(prefix, spread).unwrap();
            assert_eq!(layout.buckets().len(), usize::from(spread));
            for (number, bucket) in (0_u16..).zip(layout.buckets()) {
                let tag = bucket.tag.trim_matches(['{', '}']);
                assert_eq!(bucket.slot, number * (SLOTS / spread));
                assert_eq!(crc16(0, tag.as_bytes()) % SLOTS, bucket.slot);
            }
            let dues: Vec<_> = layout.due().map(|bucket| bucket.slot).collect();
            for n in 0..=255 {
                let block = CellKey::Undo(BlockHash::from_bytes([n; 32]));
                let list = CellKey::Due {
                    height: 1,
                    id: u64::from(n) << 56 | 0xff_ffff,
                };
                for key in [block, list] {
                    let slot = layout.bucket_of(&key).unwrap().slot;
                    assert!(dues.contains(&slot), "{key:?}");
                    assert_eq!(key_of(&id(&key)).unwrap(), key);
                }
            }
        }
    }

    fn flat(cell: &Cell) -> Value {
        let (state, fields) = pack_cell(cell);
        let all = std::iter::once((b"s".to_vec(), state)).chain(fields);
        let values = all.flat_map(|(name, value)| [name, value].map(Value::BulkString));
        Value::Array(values.collect())
    }

    #[test]
    fn cells_come_back_and_damaged_ones_are_found() {
        let txid = Txid::from_bytes([7; 32]);
        let mark = Mark {
            by: SpentBy { txid, vin: 9 },
            attempt: 11,
        };
        let slot = |mark, script, spendable_from| Slot {
            value_sat: 5,
            script,
            mark,
            frozen: spendable_from == Some(0),
            spendable_from,
        };
        let page = Page {
            attempt: 3,
            phase: Phase::Live,
            guard: Guard {
                coinbase: true,
                height: Some(77),
                ..Guard::default()
            },
            unmined_since: Some(4),
            head: Some(Stored::Here(vec![1, 2, 3])),
            slots: BTreeMap::from([
                (0, slot(Some(mark), Stored::Here(vec![]), None)),
                (511, slot(None, Stored::Apart { id: 1, len: 2 }, Some(0))),
            ]),
        };
        let bytes = |due| Body::Bytes {
            due,
            bytes: Stored::Here(vec![9; 40]),
        };
        let lock = |next| Lock { intent: 8, next };
        let bodies = [Body::Page(page), bytes(None), bytes(Some(u32::MAX))];
        let key = CellKey::Page { txid, page: 0 };
        for body in bodies.iter().cloned().map(Some).chain([None]) {
            let nexts = [Next::Keep, Next::Delete].into_iter();
            let nexts = nexts.chain(body.clone().map(Next::Put));
            for lock in nexts.map(|next| Some(lock(next))).chain([None]) {
                let stamp = 5;
                let cell = Cell {
                    stamp,
                    lock,
                    body: body.clone(),
                };
                let Value::Array(parts) = flat(&cell) else {
                    unreachable!("it is one")
                };
                let again = unpack_cell(&key, Value::Array(parts.clone())).unwrap();
                assert_eq!(again, Some(cell));
                // Cut anywhere, it never panics, and is never taken for itself.
                for at in 0..parts.len() {
                    for len in 0..64 {
                        let mut parts = parts.clone();
                        if let Some(Value::BulkString(part)) = parts.get_mut(at)
                            && len < part.len()
                        {
                            part.truncate(len);
                            let other = unpack_cell(&key, Value::Array(parts));
                            assert!(other.as_ref().ok() != Some(&again));
                        }
                    }
                }
            }
        }
        assert_eq!(unpack_cell(&key, Value::Array(Vec::new())).unwrap(), None);
    }
}
