//! Digests of a UTXO set, equal to Bitcoin Core's `gettxoutsetinfo`.
//!
//! Both digest the same element per coin, as raw bytes:
//!
//! ```text
//! txid, 32 bytes in internal order | vout, u32 | height * 2 + coinbase, u32 | value, i64 | script length, CompactSize | script
//! ```
//!
//! with integers in little-endian order. They differ in what they ask of the caller:
//!
//! | digest | order | remove | combine shards |
//! |---|---|---|---|
//! | [`MuHash3072`] (`muhash`) | any | yes | yes |
//! | [`HashSerialized3`] (`hash_serialized_3`) | by outpoint, enforced | no | no |
//!
//! Digests are returned in internal byte order; Core displays them reversed.

mod element;
mod hash_serialized;
mod inverse;
mod muhash;
mod num3072;

pub use element::coin_element;
pub use hash_serialized::{ElementOutpoint, HashSerialized3, HashSerializedError};
pub use muhash::MuHash3072;

#[cfg(test)]
mod tests {
    /// Hex as Core displays a digest.
    pub(super) fn display(digest: [u8; 32]) -> String {
        digest
            .iter()
            .rev()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The element of the coin that block 1 of mainnet created.
    pub(super) fn first_coin() -> Vec<u8> {
        let element = concat!(
            "982051fd1e4ba744bbbe680e1fee14677ba1a3c3540bf7b1cdb606e857233e0e",
            "00000000",
            "03000000",
            "00f2052a01000000",
            "43",
            "410496b538e853519c726a2c91e61ec11600ae1390813a627c66fb8be7947be63c",
            "52da7589379515d4e0a604f8141781e62294721166bf621e73a82cbf2342c858eeac",
        );
        let digits = element.as_bytes().as_chunks::<2>().0;
        let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.iter().map(byte).collect()
    }
}
