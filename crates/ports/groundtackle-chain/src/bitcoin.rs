//! Conversions from and to the types of the `bitcoin` crate.
//!
//! Transactions and blocks convert only from there, because ours keep no witnesses and no
//! unlocking scripts.

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, CompactTarget, ScriptBuf, TxMerkleNode, block};

use crate::decode::{DecodeError, DecodeOptions, decode_block, decode_transaction};
use crate::hash::{BlockHash, Txid};
use crate::model::{Block, BlockHeader, OutPoint, Script, Transaction, TxOut};
use crate::network::Network;

macro_rules! convert_hash {
    ($($name:ident),*) => {$(
        impl From<bitcoin::$name> for $name {
            fn from(hash: bitcoin::$name) -> Self {
                Self::from_bytes(hash.to_byte_array())
            }
        }

        impl From<$name> for bitcoin::$name {
            fn from(hash: $name) -> Self {
                Self::from_byte_array(*hash.as_bytes())
            }
        }
    )*};
}

convert_hash!(Txid, BlockHash);

impl From<bitcoin::OutPoint> for OutPoint {
    fn from(outpoint: bitcoin::OutPoint) -> Self {
        Self::new(outpoint.txid.into(), outpoint.vout)
    }
}

impl From<OutPoint> for bitcoin::OutPoint {
    fn from(outpoint: OutPoint) -> Self {
        Self::new(outpoint.txid.into(), outpoint.vout)
    }
}

impl From<ScriptBuf> for Script {
    fn from(script: ScriptBuf) -> Self {
        Self::from_bytes(script.into_bytes())
    }
}

impl From<Script> for ScriptBuf {
    fn from(script: Script) -> Self {
        Self::from_bytes(script.into_bytes())
    }
}

impl From<bitcoin::TxOut> for TxOut {
    fn from(output: bitcoin::TxOut) -> Self {
        Self {
            value_sat: output.value.to_sat(),
            script: output.script_pubkey.into(),
        }
    }
}

impl From<TxOut> for bitcoin::TxOut {
    fn from(output: TxOut) -> Self {
        Self {
            value: Amount::from_sat(output.value_sat),
            script_pubkey: output.script.into(),
        }
    }
}

impl From<block::Header> for BlockHeader {
    fn from(header: block::Header) -> Self {
        Self {
            version: header.version.to_consensus(),
            previous: header.prev_blockhash.into(),
            merkle_root: header.merkle_root.to_byte_array(),
            time: header.time,
            bits: header.bits.to_consensus(),
            nonce: header.nonce,
        }
    }
}

impl From<BlockHeader> for block::Header {
    fn from(header: BlockHeader) -> Self {
        Self {
            version: block::Version::from_consensus(header.version),
            prev_blockhash: header.previous.into(),
            merkle_root: TxMerkleNode::from_byte_array(header.merkle_root),
            time: header.time,
            bits: CompactTarget::from_consensus(header.bits),
            nonce: header.nonce,
        }
    }
}

// What does not decode from bytes does not convert either.
impl TryFrom<&bitcoin::Transaction> for Transaction {
    type Error = DecodeError;

    fn try_from(transaction: &bitcoin::Transaction) -> Result<Self, DecodeError> {
        decode_transaction(&serialize(transaction))
    }
}

impl TryFrom<&bitcoin::Block> for Block {
    type Error = DecodeError;

    fn try_from(block: &bitcoin::Block) -> Result<Self, DecodeError> {
        decode_block(&serialize(block), &DecodeOptions::default())
    }
}

impl From<Network> for bitcoin::Network {
    fn from(network: Network) -> Self {
        match network {
            Network::Main => Self::Bitcoin,
            Network::Testnet3 => Self::Testnet,
            Network::Testnet4 => Self::Testnet4,
            Network::Signet => Self::Signet,
            Network::Regtest => Self::Regtest,
        }
    }
}
