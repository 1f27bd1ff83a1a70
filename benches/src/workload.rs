//! What a UTXO store with one record per transaction reads and writes for a block.
//!
//! A record is about 20 bytes of header, 36 bytes per input, about 35 bytes per output and 36 more once that output
//! is spent. A block touches each record once: reads go through an overlay, and the block ends as one [`Batch`].

use crate::BoxError;
use crate::generator::{GenBlock, GenTx, is_unspendable};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

/// Key of a record: txid, then the number of the chunk, big-endian. Chunks past the first are for wide transactions.
pub type Key = [u8; 36];

/// Bytes of the value that is rewritten by every block: tip, counters, digest of the set.
pub const TIP_BYTES: usize = 1_024;

/// Key of a piece of a block's txids: height, then the number of the piece, both big-endian.
pub type PieceKey = [u8; 8];

const HEADER: usize = 20;
const SLOT: usize = 11;
const SPENT: usize = 36;

/// All that one block changes. It lands whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Height of the block.
    pub height: u32,
    /// Records to write, in key order.
    pub puts: Vec<(Key, Vec<u8>)>,
    /// Records to delete, in key order: fully spent long ago.
    pub deletes: Vec<Key>,
    /// The tip: height, number of records, filler in the size of a digest's state.
    pub tip: Vec<u8>,
    /// The block's txids in pieces, kept until the block is buried.
    pub undo: Vec<(PieceKey, Vec<u8>)>,
    /// Pieces of a buried block.
    pub undo_deletes: Vec<PieceKey>,
    /// Coins made.
    pub creates: u64,
    /// Coins spent.
    pub spends: u64,
}

/// Turns blocks into batches, and knows which records may go when.
#[derive(Debug, Clone)]
pub struct Workload {
    window: u32,
    undo_piece: usize,
    undo_pieces: VecDeque<Vec<PieceKey>>,
    fully_spent: VecDeque<Vec<[u8; 32]>>,
    records: u64,
}

impl Workload {
    /// Records are deleted `window` blocks after their last coin was spent. A block's txids are stored in values of
    /// at most `undo_piece` bytes.
    #[must_use]
    pub fn new(window: u32, undo_piece: usize) -> Self {
        Self {
            window,
            undo_piece: undo_piece.max(32),
            undo_pieces: VecDeque::new(),
            fully_spent: VecDeque::new(),
            records: 0,
        }
    }

    /// Reads what the block needs through `read`, and returns what it changes.
    ///
    /// `read` calls back with the record's bytes and answers whether there is one.
    ///
    /// # Errors
    ///
    /// When `read` fails, or when the store lost a record or a coin that the chain created: the store is broken.
    pub fn apply(
        &mut self,
        block: &GenBlock,
        mut read: impl FnMut(&Key, &mut dyn FnMut(&[u8])) -> Result<bool, BoxError>,
    ) -> Result<Batch, BoxError> {
        let mut overlay: HashMap<[u8; 32], Vec<u8>> = HashMap::with_capacity(block.txs.len() * 2);
        let mut batch = Batch {
            height: block.height,
            ..Batch::default()
        };
        let mut fully_spent = Vec::new();
        let mut txids = Vec::with_capacity(block.txs.len() * 32);
        for tx in &block.txs {
            for (vin, (parent, vout)) in (0_u32..).zip(&tx.inputs) {
                let record = match overlay.entry(*parent) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => {
                        let mut bytes = Vec::new();
                        let found = read(&key(parent), &mut |found| {
                            bytes.reserve(found.len() + SPENT);
                            bytes.extend_from_slice(found);
                        })?;
                        if !found {
                            return Err(format!("block {}: lost record", block.height).into());
                        }
                        entry.insert(bytes)
                    }
                };
                let unspent = spend(record, *vout, &tx.txid, vin)
                    .ok_or_else(|| format!("block {}: coin lost or spent", block.height))?;
                if unspent == 0 {
                    fully_spent.push(*parent);
                }
                batch.spends += 1;
            }
            let (record, coins) = encode(tx, block.height);
            batch.creates += u64::from(coins);
            txids.extend_from_slice(&tx.txid);
            overlay.insert(tx.txid, record);
        }
        self.records += block.txs.len() as u64;

        batch.undo = (0_u32..)
            .zip(txids.chunks(self.undo_piece))
            .map(|(piece, txids)| (piece_key(block.height, piece), txids.to_vec()))
            .collect();
        self.undo_pieces
            .push_back(batch.undo.iter().map(|(key, _)| *key).collect());
        self.fully_spent.push_back(fully_spent);
        if self.fully_spent.len() > self.window as usize {
            let old = self.fully_spent.pop_front().unwrap_or_default();
            batch.deletes = old.iter().map(key).collect();
            batch.deletes.sort_unstable();
            self.records -= batch.deletes.len() as u64;
            batch.undo_deletes = self.undo_pieces.pop_front().unwrap_or_default();
        }
        batch.puts = overlay
            .into_iter()
            .map(|(txid, bytes)| (key(&txid), bytes))
            .collect();
        // Both engines like sorted input; a store would sort too.
        batch.puts.sort_unstable_by_key(|(key, _)| *key);
        batch.tip = tip(block.height, self.records);
        Ok(batch)
    }
}

/// The key of a transaction's first chunk.
#[must_use]
pub fn key(txid: &[u8; 32]) -> Key {
    let mut key = [0; 36];
    for (to, from) in key.iter_mut().zip(txid) {
        *to = *from;
    }
    key
}

fn piece_key(height: u32, piece: u32) -> PieceKey {
    ((u64::from(height) << 32) | u64::from(piece)).to_be_bytes()
}

/// Height and number of records out of a tip value.
#[must_use]
pub fn read_tip(tip: &[u8]) -> Option<(u32, u64)> {
    let (height, rest) = tip.split_first_chunk::<4>()?;
    let (records, _) = rest.split_first_chunk::<8>()?;
    Some((u32::from_be_bytes(*height), u64::from_be_bytes(*records)))
}

fn tip(height: u32, records: u64) -> Vec<u8> {
    let mut tip = Vec::with_capacity(TIP_BYTES);
    tip.extend_from_slice(&height.to_be_bytes());
    tip.extend_from_slice(&records.to_be_bytes());
    // A digest's state is as good as random: no engine should gain by squeezing it.
    let mut rng = crate::generator::SplitMix64(u64::from(height));
    while tip.len() < TIP_BYTES {
        tip.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    tip.truncate(TIP_BYTES);
    tip
}

/// The record of a new transaction, and how many coins it makes.
fn encode(tx: &GenTx, height: u32) -> (Vec<u8>, u32) {
    let coins = tx
        .outputs
        .iter()
        .filter(|(_, script)| !is_unspendable(script))
        .count() as u32;
    let scripts: usize = tx.outputs.iter().map(|(_, script)| script.len()).sum();
    let mut record =
        Vec::with_capacity(HEADER + tx.inputs.len() * 36 + tx.outputs.len() * SLOT + scripts);
    record.extend_from_slice(&coins.to_le_bytes());
    record.extend_from_slice(&(tx.inputs.len() as u32).to_le_bytes());
    record.extend_from_slice(&(tx.outputs.len() as u32).to_le_bytes());
    record.extend_from_slice(&height.to_le_bytes());
    record.extend_from_slice(&1_u32.to_le_bytes());
    for (txid, vout) in &tx.inputs {
        record.extend_from_slice(txid);
        record.extend_from_slice(&vout.to_le_bytes());
    }
    for (value, script) in &tx.outputs {
        let script: &[u8] = if is_unspendable(script) { &[] } else { script };
        record.push(0);
        record.extend_from_slice(&value.to_le_bytes());
        record.extend_from_slice(&(script.len() as u16).to_le_bytes());
        record.extend_from_slice(script);
    }
    (record, coins)
}

/// Marks a slot as spent and returns how many coins the record has left. `None`: there is no such unspent coin.
fn spend(record: &mut Vec<u8>, vout: u32, by: &[u8; 32], vin: u32) -> Option<u32> {
    let number = |at: usize| -> Option<u32> {
        let bytes = record.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let unspent = number(0)?.checked_sub(1)?;
    let (inputs, slots) = (number(4)?, number(8)?);
    if vout >= slots {
        return None;
    }
    let mut at = HEADER + inputs as usize * 36;
    let mut left = vout;
    loop {
        let slot = record.get(at..)?;
        let state = *slot.first()?;
        let script = u16::from_le_bytes(*slot.get(9..)?.first_chunk::<2>()?);
        let end = at + SLOT + usize::from(script);
        if left > 0 {
            at = end + if state == 1 { SPENT } else { 0 };
            left -= 1;
            continue;
        }
        if state != 0 || end > record.len() {
            return None;
        }
        *record.get_mut(at)? = 1;
        let spender = by.iter().copied().chain(vin.to_le_bytes());
        record.splice(end..end, spender);
        record
            .first_chunk_mut::<4>()?
            .copy_from_slice(&unspent.to_le_bytes());
        return Some(unspent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coin_is_spent_once() {
        let tx = GenTx {
            txid: [1; 32],
            inputs: vec![([2; 32], 0)],
            outputs: vec![(5, vec![0x51; 34]), (0, vec![0x6a, 1]), (6, vec![0; 22])],
        };
        let (mut record, coins) = encode(&tx, 9);
        assert_eq!(coins, 2);
        assert_eq!(spend(&mut record, 0, &[3; 32], 0), Some(1));
        assert_eq!(spend(&mut record, 0, &[3; 32], 0), None);
        assert_eq!(spend(&mut record, 2, &[4; 32], 1), Some(0));
        assert_eq!(spend(&mut record, 3, &[4; 32], 1), None);
        assert_eq!(record.len(), HEADER + 36 + 3 * SLOT + 34 + 22 + 2 * SPENT);
    }
}
