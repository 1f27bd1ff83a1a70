//! The bytes of a coin that both digests are made of.

use groundtackle_chain::decode::write_compact_size;

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
    write_compact_size(&mut element, script.len() as u64);
    element.extend_from_slice(script);
    element
}
