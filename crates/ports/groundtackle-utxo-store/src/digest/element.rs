//! The bytes of a coin that both digests are made of.

use crate::types::Coin;

/// Bytes of an element beside the script and its length.
const FIXED_BYTES: usize = 32 + 4 + 4 + 8;

/// A coin as Bitcoin Core's `kernel/coinstats.cpp` (`TxOutSer`) hashes it: txid (internal order),
/// index as `u32`, height × 2 + coinbase as `u32`, amount in satoshis as `i64`, script with its
/// length as CompactSize; integers little-endian.
pub fn coin_element(coin: &Coin) -> Vec<u8> {
    let script = coin.output.script.as_bytes();
    let mut element = Vec::with_capacity(FIXED_BYTES + 9 + script.len());
    element.extend_from_slice(coin.outpoint.txid.as_bytes());
    element.extend_from_slice(&coin.outpoint.vout.to_le_bytes());
    // As in Core, the height's top bit is lost: no chain gets there.
    element.extend_from_slice(&(coin.height << 1 | u32::from(coin.coinbase)).to_le_bytes());
    element.extend_from_slice(&coin.output.value_sat.to_le_bytes());
    match script.len() {
        len @ 0..=0xfc => element.push(len as u8),
        len @ 0xfd..=0xffff => {
            element.push(0xfd);
            element.extend_from_slice(&(len as u16).to_le_bytes());
        }
        len @ 0x1_0000..=0xffff_ffff => {
            element.push(0xfe);
            element.extend_from_slice(&(len as u32).to_le_bytes());
        }
        len => {
            element.push(0xff);
            element.extend_from_slice(&(len as u64).to_le_bytes());
        }
    }
    element.extend_from_slice(script);
    element
}
