//! What lies on disk. Numbers are VARINTs, amounts and scripts have Bitcoin Core's compact form.
//!
//! | key | value |
//! |---|---|
//! | `r`, txid, chunk 0 as `u32` BE | head, then the slots of outputs 0 to 31 |
//! | `r`, txid, chunk n as `u32` BE | the slots of outputs 32 n to 32 n + 31 |
//! | `r`, txid, `ffffffff` | inputs, where there are more than eight |
//! | `u`, txid | unmined since as `u32` BE, 1 if conflicting |
//! | `e`, height as `u32` BE, number as `u32` BE | txids: look at these records when pruning to that height |
//! | `x`, height as `u32` BE, block hash | what taking the block back needs |
//! | `b`, block hash | the block's number as `u32` BE: records name blocks by number |
//! | `n`, number as `u32` BE | the block's hash |
//! | `t` | tip and the running digest |
//! | `p`, key, part as `u32` BE | a part of a long value |
//!
//! Records, undo data and the tip end in a checksum, the CRC-32 of key and value, so that a value
//! under a wrong key shows. They begin with a byte that says whether the value is here (0) or in so
//! many parts (1, count): see [`MAX_VALUE_BYTES`](crate::engine::MAX_VALUE_BYTES).

mod undo;

use groundtackle_chain::codec::{
    LongScripts, compress_amount, decompress_amount, read_compact_script, read_script, read_varint,
    write_script, write_varint,
};
use groundtackle_chain::decode::{DecodeError, Reader};
use groundtackle_utxo_store::{
    BlockHash, Error, OutPoint, RecordOutput, Result, Script, SpentBy, TxOut, Txid,
};

use crate::error::corrupt;
pub(crate) use undo::{
    BlockUndo, TipState, Undo, decode_tip, decode_undo, encode_tip, encode_undo,
};

/// Outputs of one chunk: a spend rewrites its chunk only.
pub(crate) const CHUNK_OUTPUTS: u32 = 32;

/// Inputs kept in the head, which is rewritten with its slots.
const INLINE_INPUTS: usize = 8;

const INPUTS_CHUNK: u32 = u32::MAX;

pub(crate) const TIP_KEY: &[u8] = b"t";

/// Kinds of keys.
pub(crate) const RECORD_KIND: u8 = b'r';
pub(crate) const UNMINED_KIND: u8 = b'u';
pub(crate) const EXPIRING_KIND: u8 = b'e';
pub(crate) const UNDO_KIND: u8 = b'x';
const BLOCK_KIND: u8 = b'b';
const NUMBER_KIND: u8 = b'n';
pub(crate) const PART_KIND: u8 = b'p';

pub(crate) const fn chunk_of(vout: u32) -> u32 {
    vout / CHUNK_OUTPUTS
}

pub(crate) fn record_key(txid: &Txid, chunk: u32) -> [u8; 37] {
    let mut key = [RECORD_KIND; 37];
    let (head, tail) = key.split_at_mut(33);
    for (byte, of_txid) in head.iter_mut().skip(1).zip(txid.as_bytes()) {
        *byte = *of_txid;
    }
    tail.copy_from_slice(&chunk.to_be_bytes());
    key
}

pub(crate) fn inputs_key(txid: &Txid) -> [u8; 37] {
    record_key(txid, INPUTS_CHUNK)
}

pub(crate) fn unmined_key(txid: &Txid) -> Vec<u8> {
    [&[UNMINED_KIND], txid.as_bytes().as_slice()].concat()
}

pub(crate) fn expiring_key(height: u32, number: u32) -> Vec<u8> {
    [
        &[EXPIRING_KIND],
        height.to_be_bytes().as_slice(),
        &number.to_be_bytes(),
    ]
    .concat()
}

/// The height and the number of a list.
pub(crate) fn split_expiring_key(key: &[u8]) -> Result<(u32, u32)> {
    match key.split_last_chunk::<4>() {
        Some(([EXPIRING_KIND, a, b, c, d], number)) => Ok((
            u32::from_be_bytes([*a, *b, *c, *d]),
            u32::from_be_bytes(*number),
        )),
        _ => Err(bad_key(key)),
    }
}

pub(crate) fn read_expiring(value: &[u8]) -> Result<Vec<Txid>> {
    let (txids, rest) = value.as_chunks::<32>();
    if rest.is_empty() {
        Ok(txids.iter().copied().map(Txid::from_bytes).collect())
    } else {
        Err(corrupt(
            "a list of records to prune",
            "it has another length",
        ))
    }
}

pub(crate) fn undo_key(height: u32, block: &BlockHash) -> Vec<u8> {
    [
        &[UNDO_KIND],
        height.to_be_bytes().as_slice(),
        block.as_bytes(),
    ]
    .concat()
}

/// The end of the keys of a kind that have a height up to this one.
pub(crate) fn end_of_height(kind: u8, height: u32) -> Vec<u8> {
    match height.checked_add(1) {
        Some(next) => [&[kind], next.to_be_bytes().as_slice()].concat(),
        None => vec![kind + 1],
    }
}

pub(crate) fn block_key(hash: &BlockHash) -> Vec<u8> {
    [&[BLOCK_KIND], hash.as_bytes().as_slice()].concat()
}

pub(crate) fn number_key(number: u32) -> Vec<u8> {
    [&[NUMBER_KIND], number.to_be_bytes().as_slice()].concat()
}

/// The transaction and chunk of a record's key; `None` for a chunk of inputs.
pub(crate) fn split_record_key(key: &[u8]) -> Result<(Txid, Option<u32>)> {
    let key_of_record = key.strip_prefix(&[RECORD_KIND]);
    let (txid, chunk) = key_of_record
        .and_then(<[u8]>::split_first_chunk::<32>)
        .ok_or_else(|| bad_key(key))?;
    let chunk = u32::from_be_bytes(chunk.try_into().map_err(|_| bad_key(key))?);
    Ok((
        Txid::from_bytes(*txid),
        (chunk != INPUTS_CHUNK).then_some(chunk),
    ))
}

fn bad_key(key: &[u8]) -> Error {
    corrupt("a key", format!("it has {} bytes", key.len()))
}

pub(crate) fn read_number(what: &str, value: &[u8]) -> Result<u32> {
    value
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| corrupt(what, "it has another length"))
}

pub(crate) fn read_hash(what: &str, value: &[u8]) -> Result<[u8; 32]> {
    value
        .try_into()
        .map_err(|_| corrupt(what, "it has another length"))
}

/// A block that a transaction is mined in, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mined {
    /// `None` for coins of a snapshot.
    pub(crate) block: Option<u32>,
    pub(crate) height: u32,
    pub(crate) subtree_index: u32,
    pub(crate) on_longest_chain: bool,
}

/// All of a record but its slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) coinbase: bool,
    pub(crate) locked: bool,
    pub(crate) conflicting: bool,
    pub(crate) fee_sat: Option<u64>,
    pub(crate) size_bytes: u64,
    pub(crate) lock_time: u32,
    pub(crate) inputs: Inputs,
    pub(crate) mined_in: Vec<Mined>,
    pub(crate) unmined_since: Option<u32>,
    pub(crate) conflicting_children: Vec<Txid>,
    pub(crate) preserve_until: Option<u32>,
    /// The last chunk of slots.
    pub(crate) last_chunk: u32,
}

/// An output and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) vout: u32,
    pub(crate) value_sat: u64,
    pub(crate) script: CompactScript,
    pub(crate) spent_by: Option<SpentBy>,
    pub(crate) frozen: bool,
    pub(crate) spendable_from: Option<u32>,
}

impl Slot {
    pub(crate) fn unspent(vout: u32, output: &TxOut) -> Self {
        Self {
            vout,
            value_sat: output.value_sat,
            script: CompactScript::new(&output.script),
            spent_by: None,
            frozen: false,
            spendable_from: None,
        }
    }

    pub(crate) fn output(&self) -> Result<TxOut> {
        Ok(TxOut {
            value_sat: self.value_sat,
            script: self.script.read()?,
        })
    }

    pub(crate) fn read(&self) -> Result<RecordOutput> {
        Ok(RecordOutput {
            vout: self.vout,
            output: self.output()?,
            spent_by: self.spent_by,
            frozen: self.frozen,
            spendable_from: self.spendable_from,
        })
    }
}

/// The bytes of a short script's compact form: all templates fit.
const SHORT_BYTES: usize = 38;

/// A script in compact form. Most slots that are read are written again without anybody asking for
/// their script, and one form can take a curve's square root to read.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum CompactScript {
    /// The length, then the bytes, then zeros.
    Short(u8, [u8; SHORT_BYTES]),
    Long(Box<[u8]>),
}

impl CompactScript {
    pub(crate) fn new(script: &Script) -> Self {
        let mut compact = Vec::with_capacity(script.as_bytes().len() + 4);
        write_script(&mut compact, script.as_bytes());
        Self::from_compact(&compact)
    }

    fn from_compact(compact: &[u8]) -> Self {
        let mut bytes = [0; SHORT_BYTES];
        match (bytes.get_mut(..compact.len()), u8::try_from(compact.len())) {
            (Some(head), Ok(length)) => {
                head.copy_from_slice(compact);
                Self::Short(length, bytes)
            }
            _ => Self::Long(compact.into()),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }

    fn read(&self) -> Result<Script> {
        read_compact(self.as_bytes())
    }
}

fn read_compact(script: &[u8]) -> Result<Script> {
    read_script(&mut Reader::new(script), LongScripts::Keep)
        .map_err(|error| corrupt("a script", error.to_string()))
}

impl std::fmt::Debug for CompactScript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CompactScript({:02x?})", self.as_bytes())
    }
}

/// The outpoints that a transaction names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Inputs {
    Here(Vec<OutPoint>),
    /// Under a key of their own, since they never change.
    Apart,
}

impl Head {
    pub(crate) fn confirmed_height(&self) -> Option<u32> {
        self.mined_in
            .iter()
            .find(|mined| mined.on_longest_chain)
            .map(|mined| mined.height)
    }
}

/// Whether so many inputs are kept apart from the head.
pub(crate) const fn inputs_apart(count: usize) -> bool {
    count > INLINE_INPUTS
}

const COINBASE: u64 = 1;
const LOCKED: u64 = 1 << 1;
const CONFLICTING: u64 = 1 << 2;
const HAS_FEE: u64 = 1 << 3;
const UNMINED: u64 = 1 << 4;
const PRESERVED: u64 = 1 << 5;
const APART: u64 = 1 << 6;
const FLAGS_END: u64 = 1 << 7;

const SPENT: u64 = 1;
const FROZEN: u64 = 1 << 1;
const REASSIGNED: u64 = 1 << 2;

/// Appends a value and its checksum.
pub(crate) fn seal(out: &mut Vec<u8>, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let checksum = checksum(key, out.get(start..).unwrap_or_default());
    out.extend_from_slice(&checksum);
}

/// The bytes of one value.
#[cfg(any(test, fuzzing))]
pub(crate) fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(value);
    crc.finalize().to_le_bytes()
}

/// The value without its checksum, if that holds.
fn open<'a>(key: &[u8], value: &'a [u8], what: impl Fn() -> String) -> Result<Reader<'a>> {
    match value.split_last_chunk::<4>() {
        Some((value, sum)) if *sum == checksum(key, value) => Ok(Reader::new(value)),
        _ => Err(corrupt(what(), "its checksum does not fit key and value")),
    }
}

fn parse<T>(
    key: &[u8],
    value: &[u8],
    what: impl Fn() -> String,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<T> {
    let mut reader = open(key, value, &what)?;
    let parsed = read(&mut reader).and_then(|parsed| reader.finish().map(|()| parsed));
    parsed.map_err(|error| corrupt(what(), error.to_string()))
}

fn parse_record<T>(
    txid: &Txid,
    key: &[u8],
    value: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<T> {
    parse(key, value, || format!("the record of {txid}"), read)
}

fn number(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let value = read_varint(reader)?;
    u32::try_from(value).map_err(|_| DecodeError::NumberOutOfRange {
        offset: reader.position(),
    })
}

fn out_of_range(reader: &Reader<'_>) -> DecodeError {
    DecodeError::NumberOutOfRange {
        offset: reader.position(),
    }
}

fn count(reader: &mut Reader<'_>, min_item_bytes: usize) -> Result<usize, DecodeError> {
    let claimed = read_varint(reader)?;
    let available = reader.rest().len();
    match usize::try_from(claimed)
        .ok()
        .filter(|count| count.saturating_mul(min_item_bytes) <= available)
    {
        Some(count) => Ok(count),
        None => Err(DecodeError::TooManyItems {
            offset: reader.position(),
            claimed,
            available,
        }),
    }
}

fn hash(reader: &mut Reader<'_>) -> Result<[u8; 32], DecodeError> {
    reader.array::<32>()
}

fn write_outpoints(out: &mut Vec<u8>, outpoints: &[OutPoint]) {
    write_varint(out, outpoints.len() as u64);
    for outpoint in outpoints {
        out.extend_from_slice(outpoint.txid.as_bytes());
        write_varint(out, u64::from(outpoint.vout));
    }
}

fn read_outpoints(reader: &mut Reader<'_>) -> Result<Vec<OutPoint>, DecodeError> {
    let count = count(reader, 33)?;
    (0..count)
        .map(|_| {
            Ok(OutPoint::new(
                Txid::from_bytes(hash(reader)?),
                number(reader)?,
            ))
        })
        .collect()
}

fn write_optional(out: &mut Vec<u8>, value: Option<u32>) {
    if let Some(value) = value {
        write_varint(out, u64::from(value));
    }
}

fn write_head(out: &mut Vec<u8>, head: &Head) {
    let flag = |set: bool, flag: u64| if set { flag } else { 0 };
    write_varint(
        out,
        flag(head.coinbase, COINBASE)
            | flag(head.locked, LOCKED)
            | flag(head.conflicting, CONFLICTING)
            | flag(head.fee_sat.is_some(), HAS_FEE)
            | flag(head.unmined_since.is_some(), UNMINED)
            | flag(head.preserve_until.is_some(), PRESERVED)
            | flag(head.inputs == Inputs::Apart, APART),
    );
    write_varint(out, head.size_bytes);
    write_varint(out, u64::from(head.lock_time));
    write_varint(out, u64::from(head.last_chunk));
    if let Some(fee_sat) = head.fee_sat {
        write_varint(out, fee_sat);
    }
    write_optional(out, head.unmined_since);
    write_optional(out, head.preserve_until);
    write_varint(out, head.mined_in.len() as u64);
    for mined in &head.mined_in {
        write_varint(out, mined.block.map_or(0, |block| u64::from(block) + 1));
        write_varint(
            out,
            u64::from(mined.height) << 1 | u64::from(mined.on_longest_chain),
        );
        write_varint(out, u64::from(mined.subtree_index));
    }
    write_varint(out, head.conflicting_children.len() as u64);
    for child in &head.conflicting_children {
        out.extend_from_slice(child.as_bytes());
    }
    if let Inputs::Here(inputs) = &head.inputs {
        write_outpoints(out, inputs);
    }
}

fn read_head(reader: &mut Reader<'_>) -> Result<Head, DecodeError> {
    let flags = read_varint(reader)?;
    if flags >= FLAGS_END {
        return Err(DecodeError::NumberOutOfRange {
            offset: reader.position(),
        });
    }
    let optional = |reader: &mut Reader<'_>, flag: u64| {
        if flags & flag == 0 {
            Ok(None)
        } else {
            number(reader).map(Some)
        }
    };
    let size_bytes = read_varint(reader)?;
    let lock_time = number(reader)?;
    let last_chunk = number(reader)?;
    if last_chunk > chunk_of(u32::MAX) {
        return Err(out_of_range(reader));
    }
    let fee_sat = if flags & HAS_FEE == 0 {
        None
    } else {
        Some(read_varint(reader)?)
    };
    let unmined_since = optional(reader, UNMINED)?;
    let preserve_until = optional(reader, PRESERVED)?;
    let mined_in = (0..count(reader, 3)?)
        .map(|_| {
            let block = read_varint(reader)?;
            let place = read_varint(reader)?;
            let range = |_| DecodeError::NumberOutOfRange { offset: 0 };
            Ok(Mined {
                block: block
                    .checked_sub(1)
                    .map(u32::try_from)
                    .transpose()
                    .map_err(range)?,
                height: u32::try_from(place >> 1).map_err(range)?,
                subtree_index: number(reader)?,
                on_longest_chain: place & 1 == 1,
            })
        })
        .collect::<Result<_, DecodeError>>()?;
    let children = count(reader, 32)?;
    let conflicting_children = (0..children)
        .map(|_| hash(reader).map(Txid::from_bytes))
        .collect::<Result<_, _>>()?;
    let inputs = if flags & APART == 0 {
        Inputs::Here(read_outpoints(reader)?)
    } else {
        Inputs::Apart
    };
    Ok(Head {
        coinbase: flags & COINBASE != 0,
        locked: flags & LOCKED != 0,
        conflicting: flags & CONFLICTING != 0,
        fee_sat,
        size_bytes,
        lock_time,
        inputs,
        mined_in,
        unmined_since,
        conflicting_children,
        preserve_until,
        last_chunk,
    })
}

fn write_slots<'a>(out: &mut Vec<u8>, chunk: u32, slots: impl ExactSizeIterator<Item = &'a Slot>) {
    write_varint(out, slots.len() as u64);
    for slot in slots {
        let flag = |set: bool, flag: u64| if set { flag } else { 0 };
        let state = flag(slot.spent_by.is_some(), SPENT)
            | flag(slot.frozen, FROZEN)
            | flag(slot.spendable_from.is_some(), REASSIGNED);
        write_varint(
            out,
            u64::from(
                slot.vout
                    .saturating_sub(chunk.saturating_mul(CHUNK_OUTPUTS)),
            ) << 3
                | state,
        );
        // Amounts were checked when the output came in.
        write_varint(out, compress_amount(slot.value_sat).unwrap_or(u64::MAX));
        out.extend_from_slice(slot.script.as_bytes());
        if let Some(by) = slot.spent_by {
            out.extend_from_slice(by.txid.as_bytes());
            write_varint(out, u64::from(by.vin));
        }
        write_optional(out, slot.spendable_from);
    }
}

/// A slot as it lies there.
pub(crate) struct RawSlot<'a> {
    pub(crate) vout: u32,
    pub(crate) value_sat: u64,
    script: &'a [u8],
    pub(crate) spent_by: Option<SpentBy>,
    frozen: bool,
    spendable_from: Option<u32>,
}

impl RawSlot<'_> {
    pub(crate) fn output(&self) -> Result<TxOut> {
        Ok(TxOut {
            value_sat: self.value_sat,
            script: read_compact(self.script)?,
        })
    }
}

fn read_slot<'a>(
    reader: &mut Reader<'a>,
    chunk: u32,
    last: Option<u32>,
) -> Result<RawSlot<'a>, DecodeError> {
    let place = read_varint(reader)?;
    let vout = u32::try_from(place >> 3)
        .ok()
        .filter(|offset| *offset < CHUNK_OUTPUTS)
        .and_then(|offset| chunk.checked_mul(CHUNK_OUTPUTS)?.checked_add(offset))
        .filter(|vout| last.is_none_or(|last| last < *vout))
        .ok_or_else(|| out_of_range(reader))?;
    let value_sat = decompress_amount(read_varint(reader)?).ok_or_else(|| out_of_range(reader))?;
    let script = read_compact_script(reader)?;
    let spent_by = if place & SPENT == 0 {
        None
    } else {
        Some(SpentBy {
            txid: Txid::from_bytes(hash(reader)?),
            vin: number(reader)?,
        })
    };
    let spendable_from = if place & REASSIGNED == 0 {
        None
    } else {
        Some(number(reader)?)
    };
    Ok(RawSlot {
        vout,
        value_sat,
        script,
        spent_by,
        frozen: place & FROZEN != 0,
        spendable_from,
    })
}

fn read_slots(reader: &mut Reader<'_>, chunk: u32) -> Result<Vec<Slot>, DecodeError> {
    let count = count(reader, 3)?;
    let mut slots: Vec<Slot> = Vec::with_capacity(count);
    for _ in 0..count {
        let raw = read_slot(reader, chunk, slots.last().map(|last| last.vout))?;
        slots.push(Slot {
            vout: raw.vout,
            value_sat: raw.value_sat,
            script: CompactScript::from_compact(raw.script),
            spent_by: raw.spent_by,
            frozen: raw.frozen,
            spendable_from: raw.spendable_from,
        });
    }
    Ok(slots)
}

/// What the coins of a record have in common.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) txid: Txid,
    /// `None`: not in the set.
    pub(crate) height: Option<u32>,
    pub(crate) coinbase: bool,
}

/// Reads a chunk without keeping it, slot by slot until `each` has enough. Of the record's first chunk
/// the origin is read, of others it is known.
pub(crate) fn skim<'a>(
    txid: Txid,
    chunk: u32,
    value: &'a [u8],
    origin: Option<Origin>,
    mut each: impl FnMut(Origin, RawSlot<'a>) -> Result<bool>,
) -> Result<(Origin, bool)> {
    let key = record_key(&txid, chunk);
    let what = || format!("the record of {txid}");
    let damaged = |error: DecodeError| corrupt(what(), error.to_string());
    let mut reader = open(&key, value, what)?;
    let origin = match origin.filter(|_| chunk > 0) {
        Some(origin) => origin,
        None => {
            let (coinbase, height) = skim_head(&mut reader).map_err(damaged)?;
            Origin {
                txid,
                height,
                coinbase,
            }
        }
    };
    if origin.height.is_some() {
        let mut last = None;
        for _ in 0..count(&mut reader, 3).map_err(damaged)? {
            let slot = read_slot(&mut reader, chunk, last).map_err(damaged)?;
            last = Some(slot.vout);
            if !each(origin, slot)? {
                return Ok((origin, false));
            }
        }
        reader.finish().map_err(damaged)?;
    }
    Ok((origin, true))
}

/// As [`read_head`], but only whether it is a coinbase's and the height at which it is confirmed.
fn skim_head(reader: &mut Reader<'_>) -> Result<(bool, Option<u32>), DecodeError> {
    let flags = read_varint(reader)?;
    if flags >= FLAGS_END {
        return Err(out_of_range(reader));
    }
    let has = |flag: u64| usize::from(flags & flag != 0);
    // The size, the lock time, the last chunk; then what the flags announce.
    for _ in 0..3 + has(HAS_FEE) + has(UNMINED) + has(PRESERVED) {
        read_varint(reader)?;
    }
    let mut height = None;
    for _ in 0..count(reader, 3)? {
        read_varint(reader)?;
        let place = read_varint(reader)?;
        read_varint(reader)?;
        if height.is_none() && place & 1 == 1 {
            height = Some(u32::try_from(place >> 1).map_err(|_| out_of_range(reader))?);
        }
    }
    for _ in 0..count(reader, 32)? {
        hash(reader)?;
    }
    if flags & APART == 0 {
        for _ in 0..count(reader, 33)? {
            hash(reader)?;
            read_varint(reader)?;
        }
    }
    Ok((flags & COINBASE != 0, height))
}

pub(crate) fn encode_head(out: &mut Vec<u8>, txid: &Txid, head: &Head, slots: &[Slot]) {
    seal(out, &record_key(txid, 0), |out| {
        write_head(out, head);
        write_slots(out, 0, slots.iter());
    });
}

pub(crate) fn decode_head(txid: &Txid, value: &[u8]) -> Result<(Head, Vec<Slot>)> {
    parse_record(txid, &record_key(txid, 0), value, |reader| {
        Ok((read_head(reader)?, read_slots(reader, 0)?))
    })
}

pub(crate) fn encode_chunk(out: &mut Vec<u8>, txid: &Txid, chunk: u32, slots: &[Slot]) {
    seal(out, &record_key(txid, chunk), |out| {
        write_slots(out, chunk, slots.iter());
    });
}

pub(crate) fn decode_chunk(txid: &Txid, chunk: u32, value: &[u8]) -> Result<Vec<Slot>> {
    parse_record(txid, &record_key(txid, chunk), value, |reader| {
        read_slots(reader, chunk)
    })
}

pub(crate) fn encode_inputs(out: &mut Vec<u8>, txid: &Txid, inputs: &[OutPoint]) {
    seal(out, &inputs_key(txid), |out| write_outpoints(out, inputs));
}

pub(crate) fn decode_inputs(txid: &Txid, value: &[u8]) -> Result<Vec<OutPoint>> {
    parse_record(txid, &inputs_key(txid), value, read_outpoints)
}

pub(crate) fn encode_unmined(since: u32, conflicting: bool) -> [u8; 5] {
    let [a, b, c, d] = since.to_be_bytes();
    [a, b, c, d, u8::from(conflicting)]
}

pub(crate) fn decode_unmined(key: &[u8], value: &[u8]) -> Result<(Txid, u32, bool)> {
    let txid = match key {
        [_, txid @ ..] => Txid::from_bytes(txid.try_into().map_err(|_| bad_key(key))?),
        [] => return Err(bad_key(key)),
    };
    match value {
        [a, b, c, d, conflicting @ (0 | 1)] => Ok((
            txid,
            u32::from_be_bytes([*a, *b, *c, *d]),
            *conflicting == 1,
        )),
        _ => Err(corrupt(
            format!("the unmined entry of {txid}"),
            "it has another length or an unknown flag",
        )),
    }
}
