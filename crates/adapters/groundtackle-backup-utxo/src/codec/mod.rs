//! Coins in columns: the bytes of a backup's coin segments.
//!
//! What differs from coin to coin without a pattern (transaction identifiers, key hashes) lies apart from what is small
//! and repeats (indexes, heights, amounts, kinds of scripts), and only the latter is compressed: hashes don't shrink,
//! and passing over them takes most of a general compressor's time. The bytes are specified in `docs/backup-format.md`.

mod columns;

use groundtackle_utxo_store::{Coin, OutPoint, Script, TxOut, Txid};

pub(crate) use columns::{Columns, Packer, write_numbers};

/// Coins of a segment at most. What decoding may take is bounded by it, whatever the bytes say.
pub const MAX_SEGMENT_COINS: usize = 1 << 20;

/// What a coin takes without any packing, beside its script: identifier 32, index 4, height and coinbase 4, amount 8,
/// length of the script 2.
pub const RAW_COIN_BYTES: usize = 50;

const KIND: u8 = b'C';
const VERSION: u8 = 1;

/// Bytes that are no segment, or coins that fit in none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// There are fewer bytes than the segment needs.
    #[error("the segment ends within {what}")]
    Truncated {
        /// What is cut short.
        what: &'static str,
    },
    /// There are more bytes than the segment has.
    #[error("{bytes} bytes follow the segment's end")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A newer version of the software wrote the segment.
    #[error(
        "the segment has format {found}, and this version reads up to {supported}; use a newer version"
    )]
    NewerFormat {
        /// The segment's format.
        found: u8,
        /// The newest format that this version reads.
        supported: u8,
    },
    /// No writer makes such bytes.
    #[error("{what} can't be what was written: {detail}")]
    Invalid {
        /// The part of the segment.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// More coins than a segment holds.
    #[error(
        "{coins} coins are more than a segment holds ({MAX_SEGMENT_COINS}); cut them into several"
    )]
    TooManyCoins {
        /// How many.
        coins: usize,
    },
}

impl CodecError {
    pub(crate) fn invalid(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid {
            what,
            detail: detail.into(),
        }
    }
}

/// The bytes of a coin without any packing: [`RAW_COIN_BYTES`] and its script.
pub fn raw_bytes(coin: &Coin) -> usize {
    RAW_COIN_BYTES.saturating_add(coin.output.script.as_bytes().len())
}

/// Encodes coins in the order given. The same coins give the same bytes, with the same release of zstd.
///
/// ```
/// use groundtackle_backup_utxo::codec::{decode_coins, encode_coins};
/// use groundtackle_utxo_store::{Coin, OutPoint, Script, TxOut, Txid};
///
/// let output = TxOut { value_sat: 5_000_000_000, script: Script::from_bytes(vec![0x51]) };
/// let outpoint = OutPoint::new(Txid::from_bytes([7; 32]), 0);
/// let coins = [Coin { outpoint, output, height: 1, coinbase: true }];
/// assert_eq!(decode_coins(&encode_coins(&coins)?)?, coins);
/// # Ok::<(), groundtackle_backup_utxo::codec::CodecError>(())
/// ```
///
/// # Errors
/// [`CodecError::TooManyCoins`].
pub fn encode_coins(coins: &[Coin]) -> Result<Vec<u8>, CodecError> {
    let mut out = vec![KIND, VERSION];
    write_coins(&mut out, coins.iter(), &mut Packer::default())?;
    Ok(out)
}

/// Decodes a segment of [`encode_coins`]. Any bytes end with coins or an error, and never take more memory than
/// [`MAX_SEGMENT_COINS`] coins and a few times the bytes.
///
/// # Errors
/// [`CodecError`], by what is wrong first.
pub fn decode_coins(segment: &[u8]) -> Result<Vec<Coin>, CodecError> {
    let mut columns = Columns::begin(segment, KIND, VERSION)?;
    let coins = read_coins(&mut columns)?;
    columns.finish()?;
    Ok(coins)
}

/// The columns of coins, without a header.
pub(crate) fn write_coins<'a>(
    out: &mut Vec<u8>,
    coins: impl ExactSizeIterator<Item = &'a Coin>,
    packer: &mut Packer,
) -> Result<(), CodecError> {
    let count = coins.len();
    let declared = u32::try_from(count)
        .ok()
        .filter(|_| count <= MAX_SEGMENT_COINS)
        .ok_or(CodecError::TooManyCoins { coins: count })?;
    let mut run_lengths = Vec::with_capacity(count);
    let mut txids = Vec::with_capacity(count.saturating_mul(32));
    let mut heights = Vec::with_capacity(count);
    let mut vouts = Vec::with_capacity(count);
    let mut exponents = Vec::with_capacity(count);
    let mut mantissas = Vec::with_capacity(count);
    let mut kinds = Vec::with_capacity(count);
    let mut lengths = Vec::new();
    let mut payloads = Vec::with_capacity(count.saturating_mul(32));
    let mut run: Option<(u64, &Txid)> = None;
    for coin in coins {
        let height = u64::from(coin.height) << 1 | u64::from(coin.coinbase);
        let txid = &coin.outpoint.txid;
        match run_lengths.last_mut() {
            Some(length) if run == Some((height, txid)) => *length += 1,
            _ => {
                run = Some((height, txid));
                run_lengths.push(0_u64);
                txids.extend_from_slice(txid.as_bytes());
                heights.push(height);
            }
        }
        vouts.push(u64::from(coin.outpoint.vout));
        let (mantissa, exponent) = split_amount(coin.output.value_sat);
        mantissas.push(mantissa);
        exponents.push(exponent);
        let (kind, payload) = split_script(coin.output.script.as_bytes());
        kinds.push(kind);
        // A copy of a length that is known beforehand takes no call.
        match (
            kind,
            payload.first_chunk::<20>(),
            payload.first_chunk::<32>(),
        ) {
            (1 | 2 | 6, Some(hash), _) => payloads.extend_from_slice(hash),
            (3 | 4 | 7 | 8, _, Some(key)) => payloads.extend_from_slice(key),
            _ => payloads.extend_from_slice(payload),
        }
        if kind == RAW {
            lengths.push(payload.len() as u64);
        }
    }

    // What is not hashes and payloads takes about ten bytes a coin.
    let small = count.saturating_mul(12).saturating_add(64);
    out.reserve(
        txids
            .len()
            .saturating_add(payloads.len())
            .saturating_add(small),
    );
    out.extend_from_slice(&declared.to_le_bytes());
    // No more than there are coins.
    out.extend_from_slice(&(heights.len() as u32).to_le_bytes());
    write_numbers(out, &run_lengths, packer);
    out.extend_from_slice(&txids);
    write_numbers(out, &heights, packer);
    write_numbers(out, &vouts, packer);
    write_numbers(out, &exponents, packer);
    write_numbers(out, &mantissas, packer);
    write_numbers(out, &kinds, packer);
    write_numbers(out, &lengths, packer);
    out.extend_from_slice(&payloads);
    Ok(())
}

pub(crate) fn read_coins(columns: &mut Columns<'_>) -> Result<Vec<Coin>, CodecError> {
    let count = columns.u32("the number of coins")? as usize;
    if count > MAX_SEGMENT_COINS {
        return Err(CodecError::TooManyCoins { coins: count });
    }
    let runs = columns.u32("the number of runs")? as usize;
    if runs > count {
        return Err(CodecError::invalid(
            "the number of runs",
            format!("{runs} runs of {count} coins"),
        ));
    }
    let run_lengths = columns.numbers("the run lengths", runs)?;
    let txids = columns.hashes("the transaction identifiers", runs)?;
    let heights = columns.numbers("the heights", runs)?;
    let mut vouts = columns.numbers("the indexes", count)?.into_iter();
    let mut exponents = columns.numbers("the amounts' zeros", count)?.into_iter();
    let mut mantissas = columns.numbers("the amounts", count)?.into_iter();
    let kinds = columns.numbers("the kinds of scripts", count)?;
    let raw = kinds.iter().filter(|kind| **kind == RAW).count();
    let mut lengths = columns.numbers("the script lengths", raw)?.into_iter();
    let mut kinds = kinds.into_iter();

    let mut scratch = Vec::new();
    let mut coins = Vec::with_capacity(count);
    for ((length, txid), code) in run_lengths.into_iter().zip(txids).zip(heights) {
        let height = u32::try_from(code >> 1)
            .map_err(|_| CodecError::invalid("the heights", format!("{} is none", code >> 1)))?;
        let end = (coins.len() as u64)
            .checked_add(length)
            .and_then(|end| end.checked_add(1))
            .filter(|end| *end <= count as u64)
            .ok_or_else(|| {
                CodecError::invalid("the run lengths", format!("they sum to more than {count}"))
            })?;
        while (coins.len() as u64) < end {
            // Each has as many as there are coins.
            let vout = vouts.next().unwrap_or_default();
            let vout = u32::try_from(vout)
                .map_err(|_| CodecError::invalid("the indexes", format!("{vout} is none")))?;
            let value_sat = join_amount(
                mantissas.next().unwrap_or_default(),
                exponents.next().unwrap_or_default(),
            )?;
            let kind = kinds.next().unwrap_or_default();
            let raw_length = || lengths.next().unwrap_or_default();
            let script = read_script(columns, kind, raw_length, &mut scratch)?;
            coins.push(Coin {
                outpoint: OutPoint::new(Txid::from_bytes(*txid), vout),
                output: TxOut { value_sat, script },
                height,
                coinbase: code & 1 == 1,
            });
        }
    }
    if coins.len() != count {
        return Err(CodecError::invalid(
            "the run lengths",
            format!(
                "they sum to {}, and {count} coins are announced",
                coins.len()
            ),
        ));
    }
    Ok(coins)
}

/// An amount without its zeros at the end, and how many they are. Any amount: Bitcoin Core's compact form, which says
/// the same in one number, ends at 21 million coins.
const fn split_amount(value_sat: u64) -> (u64, u64) {
    let (mut mantissa, mut exponent) = (value_sat, 0);
    while mantissa != 0 && mantissa.is_multiple_of(10) {
        mantissa /= 10;
        exponent += 1;
    }
    (mantissa, exponent)
}

fn join_amount(mantissa: u64, exponent: u64) -> Result<u64, CodecError> {
    u32::try_from(exponent)
        .ok()
        .and_then(|exponent| 10_u64.checked_pow(exponent))
        .and_then(|power| mantissa.checked_mul(power))
        .ok_or_else(|| {
            CodecError::invalid(
                "the amounts",
                format!("{mantissa} with {exponent} zeros is none"),
            )
        })
}

const RAW: u64 = 0;

/// What stands before and after the payload of a kind, and the payload's length.
type Template = (&'static [u8], usize, &'static [u8]);

/// The kinds from 1 on. Each is exact for any payload, valid as a key or not.
const TEMPLATES: [Template; 8] = [
    (&[0x76, 0xa9, 0x14], 20, &[0x88, 0xac]),
    (&[0xa9, 0x14], 20, &[0x87]),
    (&[0x21, 0x02], 32, &[0xac]),
    (&[0x21, 0x03], 32, &[0xac]),
    (&[0x41, 0x04], 64, &[0xac]),
    (&[0x00, 0x14], 20, &[]),
    (&[0x00, 0x20], 32, &[]),
    (&[0x51, 0x20], 32, &[]),
];

/// The kind of a script, and what it has beside that.
#[inline]
fn split_script(script: &[u8]) -> (u64, &[u8]) {
    match script {
        [0x76, 0xa9, 0x14, hash @ .., 0x88, 0xac] if hash.len() == 20 => (1, hash),
        [0xa9, 0x14, hash @ .., 0x87] if hash.len() == 20 => (2, hash),
        [0x21, 0x02, x @ .., 0xac] if x.len() == 32 => (3, x),
        [0x21, 0x03, x @ .., 0xac] if x.len() == 32 => (4, x),
        // With both coordinates: leaving one out needs the curve, on writing and on reading.
        [0x41, 0x04, key @ .., 0xac] if key.len() == 64 => (5, key),
        [0x00, 0x14, hash @ ..] if hash.len() == 20 => (6, hash),
        [0x00, 0x20, hash @ ..] if hash.len() == 32 => (7, hash),
        [0x51, 0x20, key @ ..] if key.len() == 32 => (8, key),
        raw => (RAW, raw),
    }
}

fn read_script(
    columns: &mut Columns<'_>,
    kind: u64,
    raw_length: impl FnOnce() -> u64,
    scratch: &mut Vec<u8>,
) -> Result<Script, CodecError> {
    let (before, length, after) = match kind.checked_sub(1) {
        None => (&[][..], raw_length(), &[][..]),
        Some(index) => usize::try_from(index)
            .ok()
            .and_then(|index| TEMPLATES.get(index))
            .map(|(before, length, after)| (*before, *length as u64, *after))
            .ok_or_else(|| {
                CodecError::invalid("the kinds of scripts", format!("{kind} is none"))
            })?,
    };
    let payload = columns.bytes("the scripts", length)?;
    // Most scripts need no memory of their own.
    scratch.clear();
    for part in [before, payload, after] {
        scratch.extend_from_slice(part);
    }
    Ok(Script::from(scratch.as_slice()))
}

#[cfg(test)]
mod tests;
