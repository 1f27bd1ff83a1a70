//! What is in a segment, once it is decrypted: coins, or what blocks changed.

use std::io::Read;

use ruzstd::decoding::StreamingDecoder;

/// Coins of a segment at most.
const MAX_COINS: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Coin {
    /// In internal order.
    pub(crate) txid: [u8; 32],
    pub(crate) vout: u32,
    pub(crate) height: u32,
    pub(crate) coinbase: bool,
    pub(crate) value_sat: u64,
    pub(crate) script: Vec<u8>,
}

/// What a block changed, or a part of that.
#[derive(Debug)]
pub(crate) struct Delta {
    pub(crate) hash: [u8; 32],
    pub(crate) previous: [u8; 32],
    pub(crate) height: u32,
    pub(crate) median_time_past: u32,
    pub(crate) part: u32,
    pub(crate) last: bool,
    pub(crate) created: Vec<Coin>,
    pub(crate) spent: Vec<Coin>,
}

/// Or what no writer makes.
pub(crate) type Decoded<T> = Result<T, &'static str>;

/// Of codec `coins.1`.
pub(crate) fn decode_coins(segment: &[u8]) -> Decoded<Vec<Coin>> {
    let mut columns = Columns::begin(segment, b'C')?;
    let coins = columns.coins()?;
    columns.finish()?;
    Ok(coins)
}

/// Of codec `deltas.1`.
pub(crate) fn decode_deltas(segment: &[u8]) -> Decoded<Vec<Delta>> {
    let mut columns = Columns::begin(segment, b'D')?;
    let count = columns.size()?;
    let mut hashes = columns.hashes(count)?.iter();
    let mut previous = columns.hashes(count)?.iter();
    let mut head = Vec::new();
    for _ in 0..6 {
        head.push(columns.numbers(count)?.into_iter());
    }
    let [heights, times, parts, lasts, created_counts, spent_counts] = head.as_mut_slice() else {
        return Err("its head");
    };
    let mut created = columns.coins()?.into_iter();
    let mut spent = columns.coins()?.into_iter();
    columns.finish()?;
    let mut deltas = Vec::new();
    for _ in 0..count {
        deltas.push(Delta {
            hash: *hashes.next().ok_or("its hashes")?,
            previous: *previous.next().ok_or("its hashes")?,
            height: small(heights.next())?,
            median_time_past: small(times.next())?,
            part: small(parts.next())?,
            last: match lasts.next() {
                Some(last @ (0 | 1)) => last == 1,
                _ => return Err("a mark of a last part is neither 0 nor 1"),
            },
            created: take(created_counts.next(), &mut created)?,
            spent: take(spent_counts.next(), &mut spent)?,
        });
    }
    match (created.next(), spent.next()) {
        (None, None) => Ok(deltas),
        _ => Err("coins belong to no block"),
    }
}

fn small(number: Option<u64>) -> Decoded<u32> {
    let number = number.and_then(|number| u32::try_from(number).ok());
    number.ok_or("a number of 32 bits is larger")
}

fn take(count: Option<u64>, coins: &mut std::vec::IntoIter<Coin>) -> Decoded<Vec<Coin>> {
    let count = count.and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|count| *count <= coins.len());
    Ok(coins
        .take(count.ok_or("fewer coins than announced")?)
        .collect())
}

/// What stands before and after the payload of each kind of script from 1 on, and the payload's length.
const KINDS: [(&[u8], usize, &[u8]); 8] = [
    (&[0x76, 0xa9, 0x14], 20, &[0x88, 0xac]),
    (&[0xa9, 0x14], 20, &[0x87]),
    (&[0x21, 0x02], 32, &[0xac]),
    (&[0x21, 0x03], 32, &[0xac]),
    (&[0x41, 0x04], 64, &[0xac]),
    (&[0x00, 0x14], 20, &[]),
    (&[0x00, 0x20], 32, &[]),
    (&[0x51, 0x20], 32, &[]),
];

struct Columns<'a>(&'a [u8]);

impl<'a> Columns<'a> {
    fn begin(segment: &'a [u8], kind: u8) -> Decoded<Self> {
        match segment {
            [found, 1, rest @ ..] if *found == kind => Ok(Self(rest)),
            _ => Err("it is of another kind or version"),
        }
    }

    const fn finish(self) -> Decoded<()> {
        match self.0 {
            [] => Ok(()),
            _ => Err("bytes follow its end"),
        }
    }

    fn bytes(&mut self, count: usize) -> Decoded<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or("it is cut short")?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk().ok_or("it is cut short")?;
        self.0 = rest;
        Ok(*array)
    }

    fn size(&mut self) -> Decoded<usize> {
        let size = u32::from_le_bytes(self.array()?);
        usize::try_from(size).map_err(|_| "it is too large")
    }

    fn hashes(&mut self, count: usize) -> Decoded<&'a [[u8; 32]]> {
        let bytes = count.checked_mul(32).ok_or("it is too large")?;
        Ok(self.bytes(bytes)?.as_chunks().0)
    }

    /// So many; the caller has bounded that.
    fn numbers(&mut self, count: usize) -> Decoded<Vec<u64>> {
        let [planes] = self.array()?;
        let mut numbers = vec![0; count];
        for plane in 0..u32::from(planes) {
            let shift = plane.saturating_mul(8);
            if shift >= u64::BITS {
                return Err("a number has more than 8 bytes");
            }
            if count == 0 {
                continue;
            }
            let unpacked;
            let bytes = match self.array()? {
                [0] => self.bytes(count)?,
                [1] => {
                    let [byte] = self.array()?;
                    unpacked = vec![byte; count];
                    &unpacked
                }
                [2] => {
                    let length = self.size()?;
                    unpacked = unpack(self.bytes(length)?, count).ok_or("a frame of zstd")?;
                    &unpacked
                }
                _ => return Err("a plane of an unknown form"),
            };
            for (number, byte) in numbers.iter_mut().zip(bytes) {
                *number |= u64::from(*byte) << shift;
            }
        }
        Ok(numbers)
    }

    fn coins(&mut self) -> Decoded<Vec<Coin>> {
        let (count, runs) = (self.size()?, self.size()?);
        if count > MAX_COINS || runs > count {
            return Err("more coins than a segment holds, or more runs than coins");
        }
        let lengths = self.numbers(runs)?;
        let txids = self.hashes(runs)?;
        let heights = self.numbers(runs)?;
        let mut vouts = self.numbers(count)?.into_iter();
        let mut zeros = self.numbers(count)?.into_iter();
        let mut amounts = self.numbers(count)?.into_iter();
        let kinds = self.numbers(count)?;
        let raw = kinds.iter().filter(|kind| **kind == 0).count();
        let mut script_lengths = self.numbers(raw)?.into_iter();
        let mut kinds = kinds.into_iter();
        let mut coins = Vec::new();
        for ((length, txid), height) in lengths.into_iter().zip(txids).zip(heights) {
            // One more than is written; more than there are coins end below.
            for _ in 0..=length {
                let value_sat = small(zeros.next())
                    .ok()
                    .and_then(|zeros| 10_u64.checked_pow(zeros)?.checked_mul(amounts.next()?));
                let kind = kinds.next().and_then(|kind| usize::try_from(kind).ok());
                coins.push(Coin {
                    txid: *txid,
                    vout: small(vouts.next())?,
                    height: small(Some(height >> 1))?,
                    coinbase: height & 1 == 1,
                    value_sat: value_sat.ok_or("an amount has more than 64 bits")?,
                    script: self
                        .script(kind.ok_or("its kinds of scripts")?, &mut script_lengths)?,
                });
            }
        }
        match coins.len() == count {
            true => Ok(coins),
            false => Err("its runs are not its coins"),
        }
    }

    fn script(&mut self, kind: usize, lengths: &mut impl Iterator<Item = u64>) -> Decoded<Vec<u8>> {
        let Some(index) = kind.checked_sub(1) else {
            let length = lengths
                .next()
                .and_then(|length| usize::try_from(length).ok());
            return Ok(self
                .bytes(length.ok_or("the length of a script")?)?
                .to_vec());
        };
        let (before, length, after) = KINDS.get(index).ok_or("an unknown kind of script")?;
        Ok([before, self.bytes(*length)?, after].concat())
    }
}

/// Exactly so many bytes, of one frame.
fn unpack(mut packed: &[u8], count: usize) -> Option<Vec<u8>> {
    let mut frame = StreamingDecoder::new(&mut packed).ok()?;
    let mut bytes = vec![0; count];
    frame.read_exact(&mut bytes).ok()?;
    let ended = frame.read(&mut [0]).ok()? == 0;
    drop(frame);
    (ended && packed.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests;
