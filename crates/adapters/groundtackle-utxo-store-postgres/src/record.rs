//! Rows and what they mean.

use groundtackle_utxo_store::draft::{BlockUndo, Undo};
use groundtackle_utxo_store::{
    BlockHash, MinedIn, OutPoint, Record, RecordOutput, Result, SpentBy, Tip, TxOut, Txid,
};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use crate::error::corrupt;

const MINED_BYTES: usize = 41;
pub(crate) const INPUT_BYTES: usize = 36;

const ON_LONGEST_CHAIN: u8 = 1;
const KNOWN_BLOCK: u8 = 2;

/// A column that must be there and of that type.
pub(crate) fn column<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T> {
    row.try_get(at)
        .map_err(|error| corrupt("a row", error.to_string()))
}

pub(crate) fn hash(bytes: &[u8]) -> Result<[u8; 32]> {
    bytes
        .try_into()
        .map_err(|_| corrupt("a hash", format!("it has {} bytes", bytes.len())))
}

pub(crate) fn txid(row: &Row, at: usize) -> Result<Txid> {
    hash(column(row, at)?).map(Txid::from_bytes)
}

pub(crate) fn number(value: i64) -> Result<u32> {
    value
        .try_into()
        .map_err(|_| corrupt("a number", format!("{value} is out of its range")))
}

pub(crate) fn numbers(row: &Row, at: usize) -> Result<Option<u32>> {
    column::<Option<i64>>(row, at)?.map(number).transpose()
}

/// From three columns.
pub(crate) fn tip(row: &Row, at: usize) -> Result<Option<Tip>> {
    let (Some(height), Some(bytes), Some(median_time_past)) = (
        numbers(row, at)?,
        column::<Option<&[u8]>>(row, at + 1)?,
        numbers(row, at + 2)?,
    ) else {
        return Ok(None);
    };
    Ok(Some(Tip {
        height,
        hash: BlockHash::from_bytes(hash(bytes)?),
        median_time_past,
    }))
}

/// A record from the columns of the statement `records`; its inputs only where they were asked for.
pub(crate) fn record(row: &Row) -> Result<Record> {
    Ok(Record {
        txid: txid(row, 0)?,
        coinbase: column(row, 1)?,
        locked: column(row, 2)?,
        conflicting: column(row, 3)?,
        fee_sat: column::<Option<i64>>(row, 4)?.map(i64::cast_unsigned),
        size_bytes: column::<i64>(row, 5)?.cast_unsigned(),
        lock_time: number(column(row, 6)?)?,
        unmined_since: numbers(row, 7)?,
        preserve_until: numbers(row, 8)?,
        mined_in: mined_in(column(row, 9)?)?,
        conflicting_children: txids(column(row, 10)?)?,
        inputs: column::<Option<&[u8]>>(row, 11)?
            .map(inputs)
            .transpose()?
            .unwrap_or_default(),
        outputs: Vec::new(),
    })
}

/// From the columns `vout`, `value_sat`, `script`, `spent_by`, `spent_vin`, `frozen`,
/// `spendable_from`.
pub(crate) fn output(row: &Row, at: usize) -> Result<RecordOutput> {
    let spent_by = match (column::<Option<&[u8]>>(row, at + 3)?, numbers(row, at + 4)?) {
        (Some(txid), Some(vin)) => Some(SpentBy {
            txid: Txid::from_bytes(hash(txid)?),
            vin,
        }),
        (None, None) => None,
        _ => return Err(corrupt("an output", "half of its spender is missing")),
    };
    Ok(RecordOutput {
        vout: number(column(row, at)?)?,
        output: TxOut {
            value_sat: column::<i64>(row, at + 1)?.cast_unsigned(),
            script: column::<&[u8]>(row, at + 2)?.into(),
        },
        spent_by,
        frozen: column(row, at + 5)?,
        spendable_from: numbers(row, at + 6)?,
    })
}

/// A row's version: another transaction that changes the row makes another one.
struct Version(i32);

impl<'a> FromSql<'a> for Version {
    fn from_sql(
        _: &Type,
        raw: &'a [u8],
    ) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(i32::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::XID
    }
}

/// An output as it was read, in which version.
pub(crate) type Slot = (Txid, RecordOutput, i32);

/// From the columns of the statement `slots`.
pub(crate) fn slot(row: &Row) -> Result<Slot> {
    let Version(version) = column(row, 8)?;
    Ok((txid(row, 0)?, output(row, 1)?, version))
}

/// From the columns of the statement `slots_of_block`: what judging a block takes of a record, and its output if
/// it has it.
pub(crate) fn slot_of_block(row: &Row) -> Result<(Record, Option<Slot>)> {
    let confirmed = numbers(row, 12)?.map(|height| MinedIn {
        block: None,
        height,
        subtree_index: 0,
        on_longest_chain: true,
    });
    let head = Record {
        txid: txid(row, 0)?,
        coinbase: column(row, 9)?,
        locked: column(row, 10)?,
        conflicting: column(row, 11)?,
        fee_sat: None,
        size_bytes: 0,
        lock_time: 0,
        unmined_since: None,
        preserve_until: None,
        mined_in: confirmed.into_iter().collect(),
        conflicting_children: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
    };
    let there = column::<Option<i64>>(row, 2)?.is_some();
    Ok((head, there.then(|| slot(row)).transpose()?))
}

/// The versions in which outputs were read.
#[derive(Default)]
pub(crate) struct Seen(Vec<(OutPoint, i32)>);

impl Seen {
    pub(crate) fn put(&mut self, outpoint: OutPoint, version: i32) {
        self.0.push((outpoint, version));
    }

    /// Of those that change.
    pub(crate) fn versions(&mut self, slots: &[(Txid, RecordOutput)]) -> Result<Vec<i32>> {
        // What was read twice was judged as it was read last.
        self.0.sort_by_key(|(outpoint, _)| *outpoint);
        let version = |(txid, output): &(Txid, RecordOutput)| {
            let outpoint = OutPoint::new(*txid, output.vout);
            let after = self.0.partition_point(|(other, _)| *other <= outpoint);
            self.0
                .get(..after)
                .and_then(<[_]>::last)
                .filter(|(other, _)| *other == outpoint)
                .map(|(_, version)| *version)
                .ok_or_else(|| corrupt("an output", "it changes and was not read"))
        };
        slots.iter().map(version).collect()
    }
}

fn parts<const N: usize>(what: &str, bytes: &[u8]) -> Result<Vec<[u8; N]>> {
    let (parts, rest) = bytes.as_chunks::<N>();
    if rest.is_empty() {
        Ok(parts.to_vec())
    } else {
        Err(corrupt(what, format!("it has {} bytes", bytes.len())))
    }
}

/// Two parts of a whole of known length.
fn split<const A: usize>(bytes: &[u8]) -> Result<([u8; A], &[u8])> {
    let (head, tail) = bytes
        .split_first_chunk::<A>()
        .ok_or_else(|| corrupt("a row", "something in it is cut short"))?;
    Ok((*head, tail))
}

pub(crate) fn txids(bytes: &[u8]) -> Result<Vec<Txid>> {
    Ok(parts::<32>("a list of transactions", bytes)?
        .into_iter()
        .map(Txid::from_bytes)
        .collect())
}

pub(crate) fn pack_txids<'a>(txids: impl IntoIterator<Item = &'a Txid>) -> Vec<u8> {
    txids
        .into_iter()
        .flat_map(|txid| *txid.as_bytes())
        .collect()
}

pub(crate) fn inputs(bytes: &[u8]) -> Result<Vec<OutPoint>> {
    parts::<INPUT_BYTES>("a list of inputs", bytes)?
        .iter()
        .map(|part| {
            let (txid, rest) = split::<32>(part)?;
            let (vout, _) = split::<4>(rest)?;
            Ok(OutPoint::new(
                Txid::from_bytes(txid),
                u32::from_be_bytes(vout),
            ))
        })
        .collect()
}

pub(crate) fn pack_inputs(inputs: &[OutPoint]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(inputs.len() * INPUT_BYTES);
    for outpoint in inputs {
        bytes.extend_from_slice(outpoint.txid.as_bytes());
        bytes.extend_from_slice(&outpoint.vout.to_be_bytes());
    }
    bytes
}

fn mined_in(bytes: &[u8]) -> Result<Vec<MinedIn>> {
    parts::<MINED_BYTES>("a list of blocks", bytes)?
        .iter()
        .map(|part| mined(part))
        .collect()
}

fn mined(bytes: &[u8]) -> Result<MinedIn> {
    let (block, rest) = split::<32>(bytes)?;
    let (height, rest) = split::<4>(rest)?;
    let (subtree, rest) = split::<4>(rest)?;
    let ([flags], _) = split::<1>(rest)?;
    Ok(MinedIn {
        block: (flags & KNOWN_BLOCK != 0).then_some(BlockHash::from_bytes(block)),
        height: u32::from_be_bytes(height),
        subtree_index: u32::from_be_bytes(subtree),
        on_longest_chain: flags & ON_LONGEST_CHAIN != 0,
    })
}

pub(crate) fn pack_mined(mined_in: &[MinedIn]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(mined_in.len() * MINED_BYTES);
    for mined in mined_in {
        bytes.extend_from_slice(mined.block.unwrap_or(BlockHash::ZERO).as_bytes());
        bytes.extend_from_slice(&mined.height.to_be_bytes());
        bytes.extend_from_slice(&mined.subtree_index.to_be_bytes());
        bytes.push(
            flag(mined.on_longest_chain, ON_LONGEST_CHAIN)
                | flag(mined.block.is_some(), KNOWN_BLOCK),
        );
    }
    bytes
}

const fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

const EXISTED: u8 = 1;
const UNMINED: u8 = 2;
const FEE: u8 = 4;
const ENTRY: u8 = 8;

/// For each transaction its txid, a byte of flags, and what they announce.
pub(crate) fn pack_undo(transactions: &[(Txid, Undo)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(transactions.len() * 33);
    for (txid, how) in transactions {
        bytes.extend_from_slice(txid.as_bytes());
        let Undo::Existed {
            unmined_since,
            entry,
            fee_sat,
        } = how
        else {
            bytes.push(0);
            continue;
        };
        bytes.push(
            EXISTED
                | flag(unmined_since.is_some(), UNMINED)
                | flag(fee_sat.is_some(), FEE)
                | flag(entry.is_some(), ENTRY),
        );
        bytes.extend(unmined_since.iter().flat_map(|since| since.to_be_bytes()));
        bytes.extend(fee_sat.iter().flat_map(|fee| fee.to_be_bytes()));
        bytes.extend(entry.iter().flat_map(|entry| pack_mined(&[*entry])));
    }
    bytes
}

pub(crate) fn unpack_undo(mut bytes: &[u8]) -> Result<Vec<(Txid, Undo)>> {
    let mut transactions = Vec::with_capacity(bytes.len() / 33);
    while !bytes.is_empty() {
        let (txid, rest) = split::<32>(bytes)?;
        let ([flags], rest) = split::<1>(rest)?;
        bytes = rest;
        let mut how = Undo::Created;
        if flags & EXISTED != 0 {
            let (mut unmined_since, mut fee_sat, mut entry) = (None, None, None);
            if flags & UNMINED != 0 {
                let (since, rest) = split::<4>(bytes)?;
                (unmined_since, bytes) = (Some(u32::from_be_bytes(since)), rest);
            }
            if flags & FEE != 0 {
                let (fee, rest) = split::<8>(bytes)?;
                (fee_sat, bytes) = (Some(u64::from_be_bytes(fee)), rest);
            }
            if flags & ENTRY != 0 {
                let (part, rest) = split::<MINED_BYTES>(bytes)?;
                (entry, bytes) = (Some(mined(&part)?), rest);
            }
            how = Undo::Existed {
                unmined_since,
                entry,
                fee_sat,
            };
        }
        transactions.push((Txid::from_bytes(txid), how));
    }
    Ok(transactions)
}

/// From the columns of the statement `undo`.
pub(crate) fn undo(row: &Row) -> Result<(BlockHash, BlockUndo)> {
    let replaced = column::<Option<&str>>(row, 6)?
        .map(serde_json::from_str)
        .transpose()
        .map_err(|error| corrupt("a block's replaced coinbase", error.to_string()))?;
    Ok((
        BlockHash::from_bytes(hash(column(row, 0)?)?),
        BlockUndo {
            height: number(column(row, 1)?)?,
            previous: tip(row, 2)?,
            transactions: unpack_undo(column(row, 5)?)?,
            replaced_coinbase: replaced,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_data_reads_as_it_was_written() {
        let entry = MinedIn {
            block: Some(BlockHash::from_bytes([7; 32])),
            height: u32::MAX,
            subtree_index: 9,
            on_longest_chain: false,
        };
        let existed = |unmined_since, entry, fee_sat| Undo::Existed {
            unmined_since,
            entry,
            fee_sat,
        };
        let all: Vec<_> = [
            Undo::Created,
            existed(None, None, None),
            existed(Some(5), Some(entry), Some(u64::MAX)),
            existed(None, Some(entry), None),
            existed(Some(u32::MAX), None, Some(0)),
        ]
        .into_iter()
        .zip(1..)
        .map(|(how, n)| (Txid::from_bytes([n; 32]), how))
        .collect();
        let bytes = pack_undo(&all);
        assert_eq!(unpack_undo(&bytes).unwrap(), all);
        for end in (1..bytes.len()).filter(|end| *end != 33 && *end != 66) {
            let cut = unpack_undo(&bytes[..end]);
            assert!(cut.is_err() || cut.unwrap() != all, "{end}");
        }
    }
}
