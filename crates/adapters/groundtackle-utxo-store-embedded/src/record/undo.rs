//! What taking a block back needs, and the tip.

use groundtackle_chain::codec::{read_varint, write_varint};
use groundtackle_chain::decode::{DecodeError, Reader};
use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::{BlockHash, Result, Tip, Txid};

use super::{
    Head, Mined, Slot, TIP_KEY, chunk_of, count, hash, number, out_of_range, parse, read_head,
    read_slots, seal, write_head, write_optional, write_slots,
};

/// What taking a block back needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BlockUndo {
    pub(crate) previous: Option<Tip>,
    pub(crate) transactions: Vec<(Txid, Undo)>,
    /// A replaced coinbase: its head and its slots.
    pub(crate) replaced: Option<(Head, Vec<Slot>)>,
}

/// What a block's transaction was before the block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Undo {
    Created,
    /// Unmined, with this in its head.
    Existed {
        unmined_since: Option<u32>,
        entry: Option<Mined>,
        fee_sat: Option<u64>,
    },
}

fn write_tip(out: &mut Vec<u8>, tip: Option<&Tip>) {
    match tip {
        None => out.push(0),
        Some(tip) => {
            out.push(1);
            out.extend_from_slice(tip.hash.as_bytes());
            write_varint(out, u64::from(tip.height));
            write_varint(out, u64::from(tip.median_time_past));
        }
    }
}

fn read_tip(reader: &mut Reader<'_>) -> Result<Option<Tip>, DecodeError> {
    match reader.u8()? {
        0 => Ok(None),
        1 => Ok(Some(Tip {
            hash: BlockHash::from_bytes(hash(reader)?),
            height: number(reader)?,
            median_time_past: number(reader)?,
        })),
        _ => Err(DecodeError::NumberOutOfRange {
            offset: reader.position(),
        }),
    }
}

pub(crate) fn encode_undo(out: &mut Vec<u8>, key: &[u8], undo: &BlockUndo) {
    seal(out, key, |out| write_undo(out, undo));
}

fn write_undo(out: &mut Vec<u8>, undo: &BlockUndo) {
    write_tip(out, undo.previous.as_ref());
    write_varint(out, undo.transactions.len() as u64);
    for (txid, how) in &undo.transactions {
        out.extend_from_slice(txid.as_bytes());
        match how {
            Undo::Created => out.push(0),
            Undo::Existed {
                unmined_since,
                entry,
                fee_sat,
            } => {
                out.push(
                    1 | u8::from(unmined_since.is_some()) << 1
                        | u8::from(entry.is_some()) << 2
                        | u8::from(fee_sat.is_some()) << 3,
                );
                write_optional(out, *unmined_since);
                if let Some(entry) = entry {
                    write_varint(out, u64::from(entry.height));
                    write_varint(out, u64::from(entry.subtree_index));
                }
                if let Some(fee_sat) = fee_sat {
                    write_varint(out, *fee_sat);
                }
            }
        }
    }
    match &undo.replaced {
        None => out.push(0),
        Some((head, slots)) => {
            out.push(1);
            write_head(out, head);
            write_varint(out, u64::from(head.last_chunk));
            for chunk in 0..=head.last_chunk {
                let slots: Vec<_> = slots
                    .iter()
                    .filter(|slot| chunk_of(slot.vout) == chunk)
                    .collect();
                write_slots(out, chunk, slots.into_iter());
            }
        }
    }
}

/// `block` is the number of the block that the undo data belongs to.
pub(crate) fn decode_undo(key: &[u8], block: Option<u32>, value: &[u8]) -> Result<BlockUndo> {
    parse(
        key,
        value,
        || "the undo data of a block".into(),
        |reader| {
            let previous = read_tip(reader)?;
            let count = count(reader, 33)?;
            let transactions = (0..count)
                .map(|_| {
                    let txid = Txid::from_bytes(hash(reader)?);
                    let flags = reader.u8()?;
                    if flags == 0 {
                        return Ok((txid, Undo::Created));
                    }
                    if flags & 1 == 0 || flags >= 1 << 4 {
                        return Err(out_of_range(reader));
                    }
                    let unmined_since = if flags & 2 == 0 {
                        None
                    } else {
                        Some(number(reader)?)
                    };
                    let entry = if flags & 4 == 0 {
                        None
                    } else {
                        let (height, subtree_index) = (number(reader)?, number(reader)?);
                        // Had it been on the longest chain the transaction would not have been unmined.
                        Some(Mined {
                            block,
                            height,
                            subtree_index,
                            on_longest_chain: false,
                        })
                    };
                    let fee_sat = if flags & 8 == 0 {
                        None
                    } else {
                        Some(read_varint(reader)?)
                    };
                    Ok((
                        txid,
                        Undo::Existed {
                            unmined_since,
                            entry,
                            fee_sat,
                        },
                    ))
                })
                .collect::<Result<_, DecodeError>>()?;
            let replaced = match reader.u8()? {
                0 => None,
                2.. => return Err(out_of_range(reader)),
                1 => {
                    let head = read_head(reader)?;
                    // It stands there twice.
                    if number(reader)? != head.last_chunk {
                        return Err(out_of_range(reader));
                    }
                    let mut slots = Vec::new();
                    for chunk in 0..=head.last_chunk {
                        slots.extend(read_slots(reader, chunk)?);
                    }
                    Some((head, slots))
                }
            };
            Ok(BlockUndo {
                previous,
                transactions,
                replaced,
            })
        },
    )
}

/// The tip, and the running digest if the store keeps one.
#[derive(Clone, Debug)]
pub(crate) struct TipState {
    pub(crate) tip: Option<Tip>,
    pub(crate) muhash: Option<MuHash3072>,
    /// The number that the next block gets.
    pub(crate) next_block: u32,
}

impl TipState {
    /// Of an empty store.
    pub(crate) fn new(incremental_digest: bool) -> Self {
        Self {
            tip: None,
            muhash: incremental_digest.then(MuHash3072::new),
            next_block: 0,
        }
    }
}

pub(crate) fn encode_tip(out: &mut Vec<u8>, state: &TipState) {
    seal(out, TIP_KEY, |out| {
        write_tip(out, state.tip.as_ref());
        write_varint(out, u64::from(state.next_block));
        if let Some(muhash) = &state.muhash {
            out.extend_from_slice(&muhash.to_bytes());
        }
    });
}

pub(crate) fn decode_tip(value: &[u8]) -> Result<TipState> {
    parse(
        TIP_KEY,
        value,
        || "the tip".into(),
        |reader| {
            let tip = read_tip(reader)?;
            let next_block = number(reader)?;
            let muhash = if reader.rest().is_empty() {
                None
            } else {
                // Zero is no digest, and none is no answer either: the store keeps one.
                let muhash = MuHash3072::from_bytes(&reader.array()?);
                Some(muhash.ok_or_else(|| out_of_range(reader))?)
            };
            Ok(TipState {
                tip,
                muhash,
                next_block,
            })
        },
    )
}
