//! Deltas in segments of about one size, and back.

use std::mem;

use groundtackle_utxo_store::{BlockHash, Coin};

use super::Delta;
use crate::codec::{CodecError, MAX_SEGMENT_COINS, RAW_COIN_BYTES, raw_bytes};

/// What a delta takes in a segment beside its coins: two hashes and six small numbers.
const HEAD_BYTES: usize = 80;

/// A delta, or as much of one as fits in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaPart {
    /// Which part of its delta it is, from 0.
    pub number: u32,
    /// Whether it is the last one.
    pub last: bool,
    /// The block, and this part's coins.
    pub delta: Delta,
}

impl From<Delta> for DeltaPart {
    /// The whole delta as one part.
    fn from(delta: Delta) -> Self {
        Self {
            number: 0,
            last: true,
            delta,
        }
    }
}

/// Cuts deltas into segments of about one size, before they are encoded. What fits in a segment is not cut.
///
/// ```
/// use groundtackle_backup_utxo::delta::{Cutter, Joiner, encode_parts};
/// # use groundtackle_backup_utxo::delta::Delta;
/// # use groundtackle_utxo_store::{BlockHash, Tip};
/// # let tip = Tip { height: 1, hash: BlockHash::from_bytes([1; 32]), median_time_past: 0 };
/// # let deltas = [Delta { tip, previous: BlockHash::ZERO, created: vec![], spent: vec![] }];
///
/// let mut cutter = Cutter::new(4 << 20);
/// let mut segments = Vec::new();
/// for delta in deltas.clone() {
///     segments.extend(cutter.push(delta));
/// }
/// segments.extend(cutter.finish());
/// let bytes = encode_parts(&segments[0])?;
///
/// let mut joiner = Joiner::default();
/// for part in segments.concat() {
///     if let Some(delta) = joiner.push(part)? {
///         assert_eq!(delta, deltas[0]);
///     }
/// }
/// joiner.finish()?;
/// # Ok::<(), groundtackle_backup_utxo::codec::CodecError>(())
/// ```
#[derive(Debug)]
pub struct Cutter {
    segment_bytes: usize,
    parts: Vec<DeltaPart>,
    bytes: usize,
}

impl Cutter {
    /// Segments of about so many bytes, counted as [`raw_bytes`]: encoded, they are smaller. One coin that is larger
    /// makes a larger segment. The bound is 50 MiB, since a segment holds [`MAX_SEGMENT_COINS`].
    pub const fn new(segment_bytes: usize) -> Self {
        let most = MAX_SEGMENT_COINS * RAW_COIN_BYTES;
        Self {
            segment_bytes: if segment_bytes < most {
                segment_bytes
            } else {
                most
            },
            parts: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds a delta. Which segments are full now: none in most cases, several for a delta that needs them.
    pub fn push(&mut self, mut delta: Delta) -> Vec<Vec<DeltaPart>> {
        let mut full = Vec::new();
        let bytes = bytes_of(&delta);
        if self.bytes.saturating_add(bytes) > self.segment_bytes {
            full.extend(self.take());
        }
        let mut number: u32 = 0;
        let mut left = bytes;
        while left > self.segment_bytes {
            let mut part = Delta {
                created: Vec::new(),
                spent: Vec::new(),
                ..delta
            };
            let mut room = self.segment_bytes.saturating_sub(HEAD_BYTES);
            part.created = split(&mut delta.created, &mut room, true);
            let first = part.created.is_empty();
            part.spent = split(&mut delta.spent, &mut room, first);
            if delta.created.is_empty() && delta.spent.is_empty() {
                // One coin that is larger than a segment.
                delta = part;
                break;
            }
            full.push(vec![DeltaPart {
                number,
                last: false,
                delta: part,
            }]);
            number = number.saturating_add(1);
            left = bytes_of(&delta);
        }
        self.bytes = self.bytes.saturating_add(bytes_of(&delta));
        self.parts.push(DeltaPart {
            number,
            last: true,
            delta,
        });
        full
    }

    /// The segment that is left, if any.
    pub fn finish(mut self) -> Option<Vec<DeltaPart>> {
        self.take()
    }

    fn take(&mut self) -> Option<Vec<DeltaPart>> {
        self.bytes = 0;
        Some(mem::take(&mut self.parts)).filter(|parts| !parts.is_empty())
    }
}

fn bytes_of(delta: &Delta) -> usize {
    let coins = delta.created.iter().chain(&delta.spent);
    coins.fold(HEAD_BYTES, |sum, coin| sum.saturating_add(raw_bytes(coin)))
}

/// Takes coins from the front as long as there is room; the first one in any case, where it must make progress.
fn split(coins: &mut Vec<Coin>, room: &mut usize, progress: bool) -> Vec<Coin> {
    let fit = coins
        .iter()
        .enumerate()
        .take_while(|(index, coin)| match room.checked_sub(raw_bytes(coin)) {
            Some(rest) => {
                *room = rest;
                true
            }
            None => {
                let first = progress && *index == 0;
                *room = 0;
                first
            }
        })
        .count();
    let rest = coins.split_off(fit);
    mem::replace(coins, rest)
}

/// Joins parts again, one after the other, and refuses gaps: between parts, and between blocks.
#[derive(Debug, Default)]
pub struct Joiner {
    /// The last whole delta's block and height, as far as known.
    at: Option<(BlockHash, Option<u32>)>,
    parts: Option<(u32, Delta)>,
}

impl Joiner {
    /// The first delta must be of the block that follows this one. With [`Joiner::default`] it may be any.
    pub const fn after(block: BlockHash) -> Self {
        Self {
            at: Some((block, None)),
            parts: None,
        }
    }

    /// Adds the next part. The delta, if it was the last one of it.
    ///
    /// # Errors
    /// [`CodecError::Invalid`] for anything but the part that follows.
    pub fn push(&mut self, part: DeltaPart) -> Result<Option<Delta>, CodecError> {
        let DeltaPart {
            number,
            last,
            delta: mut next,
        } = part;
        let gap = |what: String| {
            CodecError::invalid(
                "the order of deltas",
                format!("{what} follows part {number} of block {}", next.tip.hash),
            )
        };
        let joined = match self.parts.take() {
            None if number == 0 => {
                if let Some((block, height)) = self.at {
                    let follows =
                        height.is_none_or(|height| height.checked_add(1) == Some(next.tip.height));
                    if next.previous != block || !follows {
                        return Err(gap(format!("after block {block} a gap, and then")));
                    }
                }
                next
            }
            Some((before, mut delta))
                if before.checked_add(1) == Some(number)
                    && delta.tip == next.tip
                    && delta.previous == next.previous =>
            {
                delta.created.append(&mut next.created);
                delta.spent.append(&mut next.spent);
                delta
            }
            None => return Err(gap("no earlier part; there".into())),
            Some((before, delta)) => {
                let block = delta.tip.hash;
                return Err(gap(format!("after part {before} of block {block} there")));
            }
        };
        if !last {
            self.parts = Some((number, joined));
            return Ok(None);
        }
        self.at = Some((joined.tip.hash, Some(joined.tip.height)));
        Ok(Some(joined))
    }

    /// After the last part.
    ///
    /// # Errors
    /// [`CodecError::Invalid`] where a delta is not whole.
    pub fn finish(self) -> Result<(), CodecError> {
        match self.parts {
            None => Ok(()),
            Some((number, delta)) => Err(CodecError::invalid(
                "the order of deltas",
                format!(
                    "block {} ends after part {number}, which is not its last",
                    delta.tip.hash
                ),
            )),
        }
    }
}
