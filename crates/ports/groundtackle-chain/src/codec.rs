//! Bitcoin Core's compact forms of numbers, amounts, scripts and coins, as in its chainstate,
//! undo files and snapshots.

use k256::elliptic_curve::sec1::{FromEncodedPoint, ToEncodedPoint};
use k256::{AffinePoint, EncodedPoint};

use crate::decode::{DecodeError, Reader};
use crate::model::{MAX_MONEY_SAT, MAX_SCRIPT_BYTES, OP_RETURN, Script, TxOut};

// The numbers below this stand for kinds of scripts, the others for a length.
const SCRIPT_KINDS: u64 = 6;

/// A coin without its outpoint, as Bitcoin Core stores it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredCoin {
    /// The height of the block that made the output.
    pub height: u32,
    /// Whether a coinbase made it.
    pub coinbase: bool,
    /// The amount and the script.
    pub output: TxOut,
}

/// What to do with a script longer than [`MAX_SCRIPT_BYTES`] while reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LongScripts {
    /// Keep it, for chains where such scripts can be spent.
    Keep,
    /// Put the single byte `OP_RETURN` in its place, as Bitcoin Core does.
    Discard,
}

/// A coin that has no compact form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeCoinError {
    /// The amount is above 21 million coins.
    #[error("{value_sat} satoshis are above 21 million coins")]
    AmountTooLarge {
        /// The amount, in satoshis.
        value_sat: u64,
    },
    /// The height needs more than 31 bits.
    #[error("height {height} is above 2147483647, the highest that has a compact form")]
    HeightTooLarge {
        /// The height.
        height: u32,
    },
}

/// Appends a VARINT: base 128, highest digit first, one less in every digit but the last, so
/// that each number has one form. It is not a CompactSize.
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    // Nearly all that are written have one digit.
    if value <= 0x7f {
        out.push(value as u8);
        return;
    }
    let start = out.len();
    let mut more = 0;
    loop {
        out.push((value & 0x7f) as u8 | more);
        if value <= 0x7f {
            break;
        }
        value = (value >> 7) - 1;
        more = 0x80;
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

/// Reads a VARINT.
///
/// # Errors
/// [`DecodeError::Truncated`], or [`DecodeError::NumberOutOfRange`] above 64 bits.
pub fn read_varint(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let mut value = 0_u64;
    loop {
        let digit = reader.u8()?;
        let next = value
            .checked_mul(0x80)
            .map(|high| high | u64::from(digit & 0x7f));
        let more = u64::from(digit >> 7);
        value = next.and_then(|value| value.checked_add(more)).ok_or(
            DecodeError::NumberOutOfRange {
                offset: reader.position(),
            },
        )?;
        if more == 0 {
            return Ok(value);
        }
    }
}

/// The compact form of an amount in satoshis, small for round amounts; `None` above
/// [`MAX_MONEY_SAT`].
pub fn compress_amount(value_sat: u64) -> Option<u64> {
    if value_sat > MAX_MONEY_SAT {
        return None;
    }
    if value_sat == 0 {
        return Some(0);
    }
    let mut rest = value_sat;
    let mut zeros = 0;
    while zeros < 9 && rest.is_multiple_of(10) {
        rest /= 10;
        zeros += 1;
    }
    // 21 million coins have 16 digits, so nothing overflows.
    Some(if zeros < 9 {
        1 + 10 * (9 * (rest / 10) + rest % 10 - 1) + zeros
    } else {
        1 + 10 * (rest - 1) + 9
    })
}

/// The amount in satoshis of a compact form; `None` above [`MAX_MONEY_SAT`].
pub fn decompress_amount(compressed: u64) -> Option<u64> {
    let Some(rest) = compressed.checked_sub(1) else {
        return Some(0);
    };
    let (rest, zeros) = (rest / 10, (rest % 10) as u32);
    let digits = if zeros < 9 {
        (rest / 9).checked_mul(10)?.checked_add(rest % 9 + 1)?
    } else {
        rest.checked_add(1)?
    };
    digits
        .checked_mul(10_u64.checked_pow(zeros)?)
        .filter(|value_sat| *value_sat <= MAX_MONEY_SAT)
}

/// Appends the compact form of a script of any length.
pub fn write_script(out: &mut Vec<u8>, script: &[u8]) {
    match script {
        [0x76, 0xa9, 0x14, hash @ .., 0x88, 0xac] if hash.len() == 20 => {
            out.push(0);
            out.extend_from_slice(hash);
        }
        [0xa9, 0x14, hash @ .., 0x87] if hash.len() == 20 => {
            out.push(1);
            out.extend_from_slice(hash);
        }
        [0x21, parity @ (2 | 3), x @ .., 0xac] if x.len() == 32 => {
            out.push(*parity);
            out.extend_from_slice(x);
        }
        // Only what decompresses to the same bytes may be shortened, so the key must be valid.
        [0x41, key @ .., 0xac] if is_full_key(key) => {
            out.push(4 | (key.last().copied().unwrap_or_default() & 1));
            out.extend(key.iter().skip(1).take(32));
        }
        raw => {
            write_varint(out, (raw.len() as u64).saturating_add(SCRIPT_KINDS));
            out.extend_from_slice(raw);
        }
    }
}

/// Reads the compact form of a script.
///
/// # Errors
/// [`DecodeError`], among them [`DecodeError::KeyNotOnCurve`].
pub fn read_script(reader: &mut Reader<'_>, long: LongScripts) -> Result<Script, DecodeError> {
    let kind = read_varint(reader)?;
    let bytes = match kind {
        0 => [&[0x76, 0xa9, 0x14], reader.bytes(20)?, &[0x88, 0xac]].concat(),
        1 => [&[0xa9, 0x14], reader.bytes(20)?, &[0x87]].concat(),
        2 => [&[0x21, 2], reader.bytes(32)?, &[0xac]].concat(),
        3 => [&[0x21, 3], reader.bytes(32)?, &[0xac]].concat(),
        4 | 5 => {
            let parity = if kind == 4 { 2 } else { 3 };
            let key = [&[parity], reader.bytes(32)?].concat();
            let key = point(&key).ok_or(DecodeError::KeyNotOnCurve {
                offset: reader.position(),
            })?;
            [&[0x41], key.to_encoded_point(false).as_bytes(), &[0xac]].concat()
        }
        length => {
            let raw = reader.bytes(length.saturating_sub(SCRIPT_KINDS))?;
            if long == LongScripts::Discard && raw.len() > MAX_SCRIPT_BYTES {
                vec![OP_RETURN]
            } else {
                raw.to_vec()
            }
        }
    };
    Ok(Script::from_bytes(bytes))
}

/// Reads the compact form of a script without taking it apart: what [`read_script`] reads.
///
/// # Errors
/// [`DecodeError::Truncated`], or [`DecodeError::NumberOutOfRange`].
pub fn read_compact_script<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let start = reader.rest();
    let length = match read_varint(reader)? {
        0 | 1 => 20,
        2..SCRIPT_KINDS => 32,
        length => length - SCRIPT_KINDS,
    };
    reader.bytes(length)?;
    let read = start.len() - reader.rest().len();
    Ok(start.get(..read).unwrap_or_default())
}

/// Appends a coin: height and coinbase flag, amount, script.
///
/// # Errors
/// [`EncodeCoinError`]; then nothing was appended.
pub fn write_coin(out: &mut Vec<u8>, coin: &StoredCoin) -> Result<(), EncodeCoinError> {
    write_parts(out, coin, false)
}

/// Reads a coin.
///
/// # Errors
/// [`DecodeError`], by what is wrong first.
pub fn read_coin(reader: &mut Reader<'_>, long: LongScripts) -> Result<StoredCoin, DecodeError> {
    let (height, coinbase) = read_height(reader)?;
    Ok(StoredCoin {
        height,
        coinbase,
        output: read_output(reader, long)?,
    })
}

// Undo records have a zero byte after every height but 0, where a version was once.
pub(crate) fn write_undo_coin(out: &mut Vec<u8>, coin: &StoredCoin) -> Result<(), EncodeCoinError> {
    write_parts(out, coin, coin.height > 0)
}

pub(crate) fn read_undo_coin(reader: &mut Reader<'_>) -> Result<StoredCoin, DecodeError> {
    let (height, coinbase) = read_height(reader)?;
    if height > 0 {
        read_varint(reader)?;
    }
    Ok(StoredCoin {
        height,
        coinbase,
        output: read_output(reader, LongScripts::Keep)?,
    })
}

fn write_parts(
    out: &mut Vec<u8>,
    StoredCoin {
        height,
        coinbase,
        output: TxOut { value_sat, script },
    }: &StoredCoin,
    version: bool,
) -> Result<(), EncodeCoinError> {
    let (height, value_sat) = (*height, *value_sat);
    let code = height
        .checked_mul(2)
        .ok_or(EncodeCoinError::HeightTooLarge { height })?
        | u32::from(*coinbase);
    let amount = compress_amount(value_sat).ok_or(EncodeCoinError::AmountTooLarge { value_sat })?;
    write_varint(out, code.into());
    if version {
        out.push(0);
    }
    write_varint(out, amount);
    write_script(out, script.as_bytes());
    Ok(())
}

fn read_height(reader: &mut Reader<'_>) -> Result<(u32, bool), DecodeError> {
    let code = u32::try_from(read_varint(reader)?).map_err(|_| DecodeError::NumberOutOfRange {
        offset: reader.position(),
    })?;
    Ok((code >> 1, code & 1 == 1))
}

fn read_output(reader: &mut Reader<'_>, long: LongScripts) -> Result<TxOut, DecodeError> {
    let value_sat =
        decompress_amount(read_varint(reader)?).ok_or(DecodeError::NumberOutOfRange {
            offset: reader.position(),
        })?;
    Ok(TxOut {
        value_sat,
        script: read_script(reader, long)?,
    })
}

fn is_full_key(key: &[u8]) -> bool {
    key.len() == 65 && key.first() == Some(&4) && point(key).is_some()
}

fn point(key: &[u8]) -> Option<AffinePoint> {
    AffinePoint::from_encoded_point(&EncodedPoint::from_bytes(key).ok()?).into()
}
