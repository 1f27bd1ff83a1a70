//! What one block changed of the confirmed set, and what many did.

mod overlay;
mod parts;

use groundtackle_utxo_store::digest::{MuHash3072, coin_element};
use groundtackle_utxo_store::{BlockHash, Coin, Tip};

use crate::codec::{CodecError, Columns, Packer, read_coins, write_coins, write_numbers};

pub use overlay::{Overlay, OverlayError};
pub use parts::{Cutter, DeltaPart, Joiner};

const KIND: u8 = b'D';
const VERSION: u8 = 1;

/// What a block changed of the confirmed set: full coins both ways, so that it can be replayed and taken back, and a
/// digest can follow.
///
/// Forwards, what is spent is removed and then what is created is added; backwards the other way round. In this order
/// also the two coinbases of main net that overwrite an earlier one of the same identifier (BIP 30, heights 91,842 and
/// 91,880) need no rule of their own: the earlier coin is in `spent`, with its own height, and the new one in `created`.
///
/// A coin that the block both creates and spends is in neither: it is in no set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The block.
    pub tip: Tip,
    /// The block before.
    pub previous: BlockHash,
    /// Coins that the set has gained.
    pub created: Vec<Coin>,
    /// Coins that the set has lost.
    pub spent: Vec<Coin>,
}

impl Delta {
    /// Moves a digest of the set before the block to that of the set after it.
    pub fn forwards(&self, digest: &mut MuHash3072) {
        digest.remove_all(self.spent.iter().map(coin_element));
        digest.insert_all(self.created.iter().map(coin_element));
    }

    /// Moves a digest of the set after the block to that of the set before it.
    pub fn backwards(&self, digest: &mut MuHash3072) {
        digest.remove_all(self.created.iter().map(coin_element));
        digest.insert_all(self.spent.iter().map(coin_element));
    }
}

/// Encodes deltas in the order given, whether they follow each other or not.
///
/// # Errors
/// [`CodecError::TooManyCoins`]: let a [`Cutter`] make several segments of them.
pub fn encode_deltas(deltas: &[Delta]) -> Result<Vec<u8>, CodecError> {
    encode(deltas.iter().map(|delta| (0, true, delta)))
}

/// Decodes a segment of [`encode_deltas`], with the bounds of [`decode_coins`](crate::codec::decode_coins).
///
/// # Errors
/// [`CodecError`], also for a segment that has a part of a delta: that is for [`decode_parts`] and a [`Joiner`].
pub fn decode_deltas(segment: &[u8]) -> Result<Vec<Delta>, CodecError> {
    let parts = decode_parts(segment)?;
    parts
        .into_iter()
        .map(|part| match part {
            DeltaPart {
                number: 0,
                last: true,
                delta,
            } => Ok(delta),
            DeltaPart { number, delta, .. } => Err(CodecError::invalid(
                "the parts",
                format!(
                    "it has part {number} of block {}, and whole deltas are asked for",
                    delta.tip.hash
                ),
            )),
        })
        .collect()
}

/// Encodes what a [`Cutter`] made, in the order given.
///
/// # Errors
/// [`CodecError::TooManyCoins`], which no segment of a [`Cutter`] has.
pub fn encode_parts(parts: &[DeltaPart]) -> Result<Vec<u8>, CodecError> {
    encode(
        parts
            .iter()
            .map(|part| (part.number, part.last, &part.delta)),
    )
}

/// Decodes a segment of [`encode_parts`] or [`encode_deltas`], with the bounds of
/// [`decode_coins`](crate::codec::decode_coins).
///
/// # Errors
/// [`CodecError`], by what is wrong first.
pub fn decode_parts(segment: &[u8]) -> Result<Vec<DeltaPart>, CodecError> {
    let mut columns = Columns::begin(segment, KIND, VERSION)?;
    let count = columns.u32("the number of deltas")? as usize;
    // First, since there is a hash for each: more are not announced than there are bytes.
    let hashes = columns.hashes("the block hashes", count)?;
    let previous = columns.hashes("the hashes of the blocks before", count)?;
    let heights = columns.numbers("the blocks' heights", count)?;
    let times = columns.numbers("the median times past", count)?;
    let numbers = columns.numbers("the numbers of parts", count)?;
    let lasts = columns.numbers("the marks of last parts", count)?;
    let created_counts = columns.numbers("the counts of created coins", count)?;
    let spent_counts = columns.numbers("the counts of spent coins", count)?;
    let mut created = read_coins(&mut columns)?.into_iter();
    let mut spent = read_coins(&mut columns)?.into_iter();
    columns.finish()?;

    let tips = hashes.iter().zip(heights).zip(times);
    let places = numbers.into_iter().zip(lasts);
    let counts = created_counts.into_iter().zip(spent_counts);
    let mut parts = Vec::with_capacity(count);
    for (((((hash, height), time), previous), (number, last)), counts) in
        tips.zip(previous).zip(places).zip(counts)
    {
        parts.push(DeltaPart {
            number: small("the numbers of parts", number)?,
            last: match last {
                0 => false,
                1 => true,
                other => {
                    let detail = format!("{other} is neither 0 nor 1");
                    return Err(CodecError::invalid("the marks of last parts", detail));
                }
            },
            delta: Delta {
                tip: Tip {
                    height: small("the blocks' heights", height)?,
                    hash: BlockHash::from_bytes(*hash),
                    median_time_past: small("the median times past", time)?,
                },
                previous: BlockHash::from_bytes(*previous),
                created: take("the counts of created coins", counts.0, &mut created)?,
                spent: take("the counts of spent coins", counts.1, &mut spent)?,
            },
        });
    }
    match created.len().saturating_add(spent.len()) {
        0 => Ok(parts),
        left => Err(CodecError::invalid(
            "the counts of coins",
            format!("{left} coins belong to no delta"),
        )),
    }
}

fn encode<'a>(
    parts: impl ExactSizeIterator<Item = (u32, bool, &'a Delta)> + Clone,
) -> Result<Vec<u8>, CodecError> {
    let mut out = vec![KIND, VERSION];
    let mut packer = Packer::default();
    let count = u32::try_from(parts.len())
        .map_err(|_| CodecError::invalid("the number of deltas", "it needs more than 32 bits"))?;
    out.extend_from_slice(&count.to_le_bytes());
    for (_, _, delta) in parts.clone() {
        out.extend_from_slice(delta.tip.hash.as_bytes());
    }
    for (_, _, delta) in parts.clone() {
        out.extend_from_slice(delta.previous.as_bytes());
    }
    let mut column = |number: fn(u32, bool, &Delta) -> u64| {
        let numbers: Vec<_> = parts
            .clone()
            .map(|(place, last, delta)| number(place, last, delta))
            .collect();
        write_numbers(&mut out, &numbers, &mut packer);
    };
    column(|_, _, delta| delta.tip.height.into());
    column(|_, _, delta| delta.tip.median_time_past.into());
    column(|place, _, _| place.into());
    column(|_, last, _| last.into());
    column(|_, _, delta| delta.created.len() as u64);
    column(|_, _, delta| delta.spent.len() as u64);
    let created: Vec<_> = parts.clone().flat_map(|part| &part.2.created).collect();
    let spent: Vec<_> = parts.flat_map(|part| &part.2.spent).collect();
    write_coins(&mut out, created.into_iter(), &mut packer)?;
    write_coins(&mut out, spent.into_iter(), &mut packer)?;
    Ok(out)
}

fn small(what: &'static str, number: u64) -> Result<u32, CodecError> {
    u32::try_from(number)
        .map_err(|_| CodecError::invalid(what, format!("{number} is more than 32 bits")))
}

fn take(
    what: &'static str,
    count: u64,
    coins: &mut std::vec::IntoIter<Coin>,
) -> Result<Vec<Coin>, CodecError> {
    let left = coins.len();
    if count > left as u64 {
        let detail = format!("{count} are announced, and {left} are left");
        return Err(CodecError::invalid(what, detail));
    }
    Ok(coins.take(count as usize).collect())
}

#[cfg(test)]
mod tests;
