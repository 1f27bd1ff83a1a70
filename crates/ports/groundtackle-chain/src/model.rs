//! Transactions and blocks as a store of outputs needs them.
//!
//! Unlocking scripts are hashed and witnesses bounds-checked while decoding; neither is kept.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::hash::{BlockHash, Txid, from_hex, to_hex};

/// Satoshis in one coin.
pub const COIN_SAT: u64 = 100_000_000;

/// No amount is larger: 21 million coins, in satoshis.
pub const MAX_MONEY_SAT: u64 = 21_000_000 * COIN_SAT;

/// Scripts longer than this many bytes can't be spent, by Bitcoin Core's rule.
pub const MAX_SCRIPT_BYTES: usize = 10_000;

/// The opcode that makes an output provably unspendable when it comes first.
pub const OP_RETURN: u8 = 0x6a;

/// Names one output: the transaction that made it and the index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutPoint {
    /// The transaction that made the output.
    pub txid: Txid,
    /// The output's index in that transaction, from 0.
    pub vout: u32,
}

impl OutPoint {
    /// What the single input of a coinbase transaction names.
    pub const NULL: Self = Self {
        txid: Txid::ZERO,
        vout: u32::MAX,
    };

    /// The output `vout` of `txid`.
    pub const fn new(txid: Txid, vout: u32) -> Self {
        Self { txid, vout }
    }
}

impl fmt::Display for OutPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.txid, self.vout)
    }
}

/// Text that is not `TXID:VOUT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an outpoint: write TXID:VOUT, 64 hexadecimal digits and a number")]
pub struct ParseOutPointError {
    text: String,
}

impl FromStr for OutPoint {
    type Err = ParseOutPointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once(':')
            .and_then(|(txid, vout)| {
                Some(Self {
                    txid: txid.parse().ok()?,
                    vout: vout.parse().ok()?,
                })
            })
            .ok_or_else(|| ParseOutPointError {
                text: text.chars().take(80).collect(),
            })
    }
}

/// A locking script: the bytes that say who may spend an output.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Script(SmallVec<[u8; INLINE]>);

/// Scripts of up to this many bytes need no memory of their own: all of the usual forms but bare public keys.
const INLINE: usize = 40;

impl Script {
    /// From the raw bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        if bytes.len() <= INLINE {
            return Self::from(bytes.as_slice());
        }
        Self(SmallVec::from_vec(bytes))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes the raw bytes out.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_vec()
    }

    /// Whether no spend can ever satisfy the script, by Bitcoin Core's rule: it begins with
    /// `OP_RETURN` or is longer than [`MAX_SCRIPT_BYTES`]. An empty script can be spent.
    pub fn is_unspendable(&self) -> bool {
        self.0.first() == Some(&OP_RETURN) || self.0.len() > MAX_SCRIPT_BYTES
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({})", to_hex(&self.0))
    }
}

impl From<Vec<u8>> for Script {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_bytes(bytes)
    }
}

impl From<&[u8]> for Script {
    fn from(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }
}

impl Serialize for Script {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Script {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_hex(&String::deserialize(deserializer)?)
            .map(Self::from_bytes)
            .ok_or_else(|| serde::de::Error::custom("a script is written in hexadecimal"))
    }
}

/// An output: an amount and who may spend it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TxOut {
    /// The amount, in satoshis.
    pub value_sat: u64,
    /// The locking script.
    pub script: Script,
}

/// A transaction, as far as a store of outputs needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The identifier. Whoever builds this value by hand vouches that it is the hash.
    pub txid: Txid,
    /// The outpoints spent, in order; empty for a coinbase.
    pub inputs: Vec<OutPoint>,
    /// All outputs, in order, the unspendable ones too.
    pub outputs: Vec<TxOut>,
    /// The lock time field, raw.
    pub lock_time: u32,
    /// The size of the whole serialisation with witnesses, in bytes.
    pub size_bytes: u64,
    /// Whether it is a block's first transaction, the one that mints.
    pub coinbase: bool,
}

/// The 80 bytes that head a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockHeader {
    /// Version and signal bits.
    pub version: i32,
    /// The block before.
    pub previous: BlockHash,
    /// The merkle root of the transactions' identifiers, internal order.
    pub merkle_root: [u8; 32],
    /// Seconds since 1970 as the miner claims.
    pub time: u32,
    /// The target in compact form.
    pub bits: u32,
    /// What the miner varied.
    pub nonce: u32,
}

/// A block without its place in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The header's double SHA-256.
    pub hash: BlockHash,
    /// The header.
    pub header: BlockHeader,
    /// The transactions, in order; the first is the coinbase.
    pub transactions: Vec<Transaction>,
}

/// A block with its place in a chain: what a store connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainBlock {
    /// Blocks before this one.
    pub height: u32,
    /// The block's hash.
    pub hash: BlockHash,
    /// The hash of the block before.
    pub previous: BlockHash,
    /// The median of the times of this block and the ten before it (BIP 113), in seconds since 1970.
    pub median_time_past: u32,
    /// The transactions, in order; the first is the coinbase.
    pub transactions: Vec<Transaction>,
    /// Whether the coinbase may overwrite unspent outputs of an earlier one with the same
    /// identifier: the two exceptions to BIP 30 on main net, at heights 91,842 and 91,880.
    pub coinbase_may_overwrite: bool,
}
