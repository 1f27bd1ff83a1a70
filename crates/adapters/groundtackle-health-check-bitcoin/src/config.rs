use std::fmt;
use std::time::Duration;

use groundtackle_health_check_json_rpc::{Comparison, Node};
use serde::Deserialize;

/// Each is a question at each run.
const MAX_BLOCKS: usize = 16;

/// What a healthy node is. Ages and counts of 0 are not looked at.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Config")]
#[non_exhaustive]
pub struct BitcoinProbe {
    /// The node.
    pub node: Node,
    /// The chain that it must be on, as `getblockchaininfo` says it: `"main"`, `"test"`, `"testnet4"`, `"signet"`, `"regtest"`, `"stn"`.
    /// BTC, BCH and BSV all say `"main"`: [`blocks`](Self::blocks) tell them apart.
    pub chain: String,
    /// Blocks that must be in its chain, at most 16. Default: none.
    pub blocks: Vec<KnownBlock>,
    /// More headers without their blocks are `Fail`. Default 3.
    pub max_behind_headers: u64,
    /// A tip that is older, by the time in its header, is `Warn`. Default `"90m"`, which a chain of ten minutes comes to once in two months.
    pub warn_tip_age: Duration,
    /// A tip that is older is `Fail`. Default `"4h"`.
    pub fail_tip_age: Duration,
    /// A tip that this process has seen stand still for longer is `Fail`, whatever time is in it. Default `"4h"`.
    pub max_standstill: Duration,
    /// Fewer connections to peers are `Fail`. Default 1.
    pub min_peers: u64,
    /// Fewer are `Warn`. Default 4.
    pub warn_peers: u64,
    /// Whether the node's own warnings are `Warn`. Default true.
    pub node_warnings: bool,
    /// Other nodes of the same chain, best of others' keeping, at most 16. Default: none.
    pub references: Vec<Node>,
    /// How many of them must answer; otherwise it is `Unknown`. Default 1.
    pub min_references: usize,
    /// More blocks behind the middle one of the references are `Fail`, and more ahead of it `Warn`. Default 3.
    pub max_lag: u64,
    /// Blocks that lie this deep under the lower of both tips must be the same for most of the references; otherwise it is `Fail`. Default
    /// 2, since at the tip chains part for a while when all is well.
    pub fork_depth: u64,
    /// How long references are waited for, twice at most. Default `"750ms"`.
    pub reference_timeout: Duration,
}

/// A block that must be at this height.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct KnownBlock {
    /// Its height.
    pub height: u64,
    /// Its hash.
    pub hash: Hash,
}

impl KnownBlock {
    /// The block of this hash, at this height.
    #[must_use]
    pub const fn new(height: u64, hash: Hash) -> Self {
        Self { height, hash }
    }
}

/// The hash of a block: 64 hexadecimal digits, as nodes and explorers show it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Hash(String);

impl Hash {
    /// Its digits, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(mut text: String) -> Result<Self, &'static str> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("is no hash of a block: write its 64 hexadecimal digits");
        }
        text.make_ascii_lowercase();
        Ok(Self(text))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    node: Node,
    chain: String,
    #[serde(default = "Vec::new")]
    blocks: Vec<KnownBlock>,
    max_behind_headers: Option<u64>,
    #[serde(
        default,
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional"
    )]
    warn_tip_age: Option<Duration>,
    #[serde(
        default,
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional"
    )]
    fail_tip_age: Option<Duration>,
    #[serde(
        default,
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional"
    )]
    max_standstill: Option<Duration>,
    min_peers: Option<u64>,
    warn_peers: Option<u64>,
    node_warnings: Option<bool>,
    #[serde(default = "Vec::new")]
    references: Vec<Node>,
    min_references: Option<usize>,
    max_lag: Option<u64>,
    fork_depth: Option<u64>,
    #[serde(
        default,
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional"
    )]
    reference_timeout: Option<Duration>,
}

impl TryFrom<Config> for BitcoinProbe {
    type Error = &'static str;

    fn try_from(config: Config) -> Result<Self, &'static str> {
        let default = Self::new(config.node, config.chain);
        let probe = Self {
            blocks: config.blocks,
            max_behind_headers: config
                .max_behind_headers
                .unwrap_or(default.max_behind_headers),
            warn_tip_age: config.warn_tip_age.unwrap_or(default.warn_tip_age),
            fail_tip_age: config.fail_tip_age.unwrap_or(default.fail_tip_age),
            max_standstill: config.max_standstill.unwrap_or(default.max_standstill),
            min_peers: config.min_peers.unwrap_or(default.min_peers),
            warn_peers: config.warn_peers.unwrap_or(default.warn_peers),
            node_warnings: config.node_warnings.unwrap_or(default.node_warnings),
            references: config.references,
            min_references: config.min_references.unwrap_or(default.min_references),
            max_lag: config.max_lag.unwrap_or(default.max_lag),
            fork_depth: config.fork_depth.unwrap_or(default.fork_depth),
            reference_timeout: config
                .reference_timeout
                .unwrap_or(default.reference_timeout),
            node: default.node,
            chain: default.chain,
        };
        probe.comparison().fits(&probe.references)?;
        if probe.blocks.len() > MAX_BLOCKS {
            return Err("has more than 16 blocks; leave some out");
        }
        Ok(probe)
    }
}

impl BitcoinProbe {
    pub(crate) const fn comparison(&self) -> Comparison {
        Comparison {
            min_references: self.min_references,
            max_lag: self.max_lag,
            fork_depth: self.fork_depth,
        }
    }

    /// A probe with the defaults, without references.
    #[must_use]
    pub fn new(node: Node, chain: impl Into<String>) -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes.saturating_mul(60));
        Self {
            node,
            chain: chain.into(),
            blocks: Vec::new(),
            max_behind_headers: 3,
            warn_tip_age: minutes(90),
            fail_tip_age: minutes(240),
            max_standstill: minutes(240),
            min_peers: 1,
            warn_peers: 4,
            node_warnings: true,
            references: Vec::new(),
            min_references: 1,
            max_lag: 3,
            fork_depth: 2,
            reference_timeout: Duration::from_millis(750),
        }
    }
}
