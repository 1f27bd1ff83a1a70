//! The networks and what differs between them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::BlockHash;

/// A coinbase output may be spent by blocks this many heights above the one that made it.
pub const COINBASE_MATURITY_BLOCKS: u32 = 100;

/// A network of Bitcoin. As text: `main`, `testnet3`, `testnet4`, `signet`, `regtest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Network {
    /// Where coins have a price.
    #[default]
    Main,
    /// The third public test network.
    Testnet3,
    /// The fourth public test network (BIP 94).
    Testnet4,
    /// The default signet (BIP 325).
    Signet,
    /// A private network for tests.
    Regtest,
}

/// Text that names no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a network: write main, testnet3, testnet4, signet or regtest")]
pub struct ParseNetworkError {
    text: String,
}

impl Network {
    /// Every network.
    pub const ALL: [Self; 5] = [
        Self::Main,
        Self::Testnet3,
        Self::Testnet4,
        Self::Signet,
        Self::Regtest,
    ];

    /// The network's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Testnet3 => "testnet3",
            Self::Testnet4 => "testnet4",
            Self::Signet => "signet",
            Self::Regtest => "regtest",
        }
    }

    /// The four bytes that begin every record of a block or undo file.
    pub const fn magic(self) -> [u8; 4] {
        match self {
            Self::Main => [0xf9, 0xbe, 0xb4, 0xd9],
            Self::Testnet3 => [0x0b, 0x11, 0x09, 0x07],
            Self::Testnet4 => [0x1c, 0x16, 0x3f, 0x28],
            Self::Signet => [0x0a, 0x03, 0xcf, 0x40],
            Self::Regtest => [0xfa, 0xbf, 0xb5, 0xda],
        }
    }

    /// The network with this magic.
    pub fn from_magic(magic: [u8; 4]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|network| network.magic() == magic)
    }

    /// The hash of block 0.
    pub const fn genesis_hash(self) -> BlockHash {
        BlockHash::from_bytes(match self {
            Self::Main => [
                0x6f, 0xe2, 0x8c, 0x0a, 0xb6, 0xf1, 0xb3, 0x72, 0xc1, 0xa6, 0xa2, 0x46, 0xae, 0x63,
                0xf7, 0x4f, 0x93, 0x1e, 0x83, 0x65, 0xe1, 0x5a, 0x08, 0x9c, 0x68, 0xd6, 0x19, 0x00,
                0x00, 0x00, 0x00, 0x00,
            ],
            Self::Testnet3 => [
                0x43, 0x49, 0x7f, 0xd7, 0xf8, 0x26, 0x95, 0x71, 0x08, 0xf4, 0xa3, 0x0f, 0xd9, 0xce,
                0xc3, 0xae, 0xba, 0x79, 0x97, 0x20, 0x84, 0xe9, 0x0e, 0xad, 0x01, 0xea, 0x33, 0x09,
                0x00, 0x00, 0x00, 0x00,
            ],
            Self::Testnet4 => [
                0x43, 0xf0, 0x8b, 0xda, 0xb0, 0x50, 0xe3, 0x5b, 0x56, 0x7c, 0x86, 0x4b, 0x91, 0xf4,
                0x7f, 0x50, 0xae, 0x72, 0x5a, 0xe2, 0xde, 0x53, 0xbc, 0xfb, 0xba, 0xf2, 0x84, 0xda,
                0x00, 0x00, 0x00, 0x00,
            ],
            Self::Signet => [
                0xf6, 0x1e, 0xee, 0x3b, 0x63, 0xa3, 0x80, 0xa4, 0x77, 0xa0, 0x63, 0xaf, 0x32, 0xb2,
                0xbb, 0xc9, 0x7c, 0x9f, 0xf9, 0xf0, 0x1f, 0x2c, 0x42, 0x25, 0xe9, 0x73, 0x98, 0x81,
                0x08, 0x00, 0x00, 0x00,
            ],
            Self::Regtest => [
                0x06, 0x22, 0x6e, 0x46, 0x11, 0x1a, 0x0b, 0x59, 0xca, 0xaf, 0x12, 0x60, 0x43, 0xeb,
                0x5b, 0xbf, 0x28, 0xc3, 0x4f, 0x3a, 0x5e, 0x33, 0x2a, 0x1f, 0xc7, 0xb2, 0xb7, 0x3c,
                0xf1, 0x88, 0x91, 0x0f,
            ],
        })
    }

    /// The easiest target that a block may claim, in compact form.
    pub const fn pow_limit_bits(self) -> u32 {
        match self {
            Self::Main | Self::Testnet3 | Self::Testnet4 => 0x1d00_ffff,
            Self::Signet => 0x1e03_77ae,
            Self::Regtest => 0x207f_ffff,
        }
    }

    /// Whether this block's coinbase repeats an earlier one that was still unspent, and
    /// overwrites it: true for the two blocks of main net that BIP 30 exempts.
    pub fn coinbase_may_overwrite(self, height: u32, hash: &BlockHash) -> bool {
        let exempt = match (self, height) {
            (Self::Main, 91_842) => [
                0xec, 0xca, 0xe0, 0x00, 0xe3, 0xc8, 0xe4, 0xe0, 0x93, 0x93, 0x63, 0x60, 0x43, 0x1f,
                0x3b, 0x76, 0x03, 0xc5, 0x63, 0xc1, 0xff, 0x61, 0x81, 0x39, 0x0a, 0x4d, 0x0a, 0x00,
                0x00, 0x00, 0x00, 0x00,
            ],
            (Self::Main, 91_880) => [
                0x21, 0xd7, 0x7c, 0xcb, 0x4c, 0x08, 0x38, 0x6a, 0x04, 0xac, 0x01, 0x96, 0xae, 0x10,
                0xf6, 0xa1, 0xd2, 0xc2, 0xa3, 0x77, 0x55, 0x8c, 0xa1, 0x90, 0xf1, 0x43, 0x07, 0x00,
                0x00, 0x00, 0x00, 0x00,
            ],
            _ => return false,
        };
        *hash.as_bytes() == exempt
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|network| network.name() == text)
            .ok_or_else(|| ParseNetworkError {
                text: text.chars().take(80).collect(),
            })
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
