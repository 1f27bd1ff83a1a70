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
mod muhash;
mod num3072;

pub use element::coin_element;
pub use hash_serialized::{ElementOutpoint, HashSerialized3, HashSerializedError};
pub use muhash::MuHash3072;
