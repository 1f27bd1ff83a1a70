//! Bitcoin Core's undo records: the coins that each block spent.

use crate::codec::{EncodeCoinError, StoredCoin, read_undo_coin, write_undo_coin};
use crate::decode::{DecodeError, Reader, write_compact_size};
use crate::hash::{BlockHash, sha256d_parts};
use crate::network::Network;

// Height, amount and script length of at least a byte each.
const MIN_COIN_BYTES: usize = 3;

/// The coins that a block spent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockUndo {
    /// For each transaction but the coinbase, in order: the coins that its inputs spent, in order.
    /// The block itself has their outpoints.
    pub transactions: Vec<Vec<StoredCoin>>,
}

impl BlockUndo {
    /// Decodes a record's body and nothing after it.
    ///
    /// # Errors
    /// [`DecodeError`], by what is wrong first.
    pub fn decode(undo: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(undo);
        let count = reader.count(1)?;
        let mut transactions = Vec::new();
        for _ in 0..count {
            let inputs = reader.count(MIN_COIN_BYTES)?;
            transactions.push(
                (0..inputs)
                    .map(|_| read_undo_coin(&mut reader))
                    .collect::<Result<_, _>>()?,
            );
        }
        reader.finish()?;
        Ok(Self { transactions })
    }

    /// The record's body, as Bitcoin Core writes it.
    ///
    /// # Errors
    /// [`EncodeCoinError`] if a coin has no compact form.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeCoinError> {
        let mut out = Vec::new();
        write_compact_size(&mut out, self.transactions.len() as u64);
        for coins in &self.transactions {
            write_compact_size(&mut out, coins.len() as u64);
            coins
                .iter()
                .try_for_each(|coin| write_undo_coin(&mut out, coin))?;
        }
        Ok(out)
    }
}

/// A record of an undo file (`rev*.dat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndoRecord<'a> {
    /// The record's body.
    pub undo: &'a [u8],
    /// The double SHA-256 of the previous block's hash and the body.
    pub checksum: [u8; 32],
}

impl<'a> UndoRecord<'a> {
    /// A record for `undo`, the body that belongs to the block after `previous`.
    pub fn new(previous: &BlockHash, undo: &'a [u8]) -> Self {
        Self {
            undo,
            checksum: sha256d_parts([previous.as_bytes(), undo]),
        }
    }

    /// Checks that the record is undamaged and belongs to the block after `previous`, and decodes
    /// its body.
    ///
    /// # Errors
    /// [`DecodeError::ChecksumMismatch`], or as [`BlockUndo::decode`].
    pub fn decode(&self, previous: &BlockHash) -> Result<BlockUndo, DecodeError> {
        if Self::new(previous, self.undo) != *self {
            return Err(DecodeError::ChecksumMismatch {
                previous: *previous,
            });
        }
        BlockUndo::decode(self.undo)
    }
}

/// The records of an undo file, in the order in which the node connected the blocks, up to its
/// end or the zeros that fill it. An error ends them.
///
/// `file` is the whole file with its obfuscation taken off, see [`unmask`](crate::unmask).
pub fn undo_records(
    file: &[u8],
    network: Network,
) -> impl Iterator<Item = Result<UndoRecord<'_>, DecodeError>> {
    let mut reader = Reader::new(file);
    std::iter::from_fn(move || {
        if reader.rest().iter().all(|byte| *byte == 0) {
            return None;
        }
        let record = read_record(&mut reader, network);
        if record.is_err() {
            reader = Reader::new(&[]);
        }
        Some(record)
    })
}

fn read_record<'a>(
    reader: &mut Reader<'a>,
    network: Network,
) -> Result<UndoRecord<'a>, DecodeError> {
    let magic = reader.array()?;
    if magic != network.magic() {
        return Err(DecodeError::UnknownMagic {
            offset: reader.position(),
            magic,
        });
    }
    let bytes = reader.u32()?;
    Ok(UndoRecord {
        undo: reader.bytes(bytes.into())?,
        checksum: reader.array()?,
    })
}
