use std::time::Duration;

use groundtackle_health_check_json_rpc::{Comparison, Node};
use serde::Deserialize;

use crate::amount::{AccountAddress, Amount, Topic};

/// What a healthy node is. Ages and counts of 0 are not looked at.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "NodeConfig")]
#[non_exhaustive]
pub struct EthereumProbe {
    /// The node.
    pub node: Node,
    /// The chain that it must be on: 1 is Ethereum's main net.
    pub chain_id: u64,
    /// Whether it is asked whether it syncs (`eth_syncing`). Default true.
    pub syncing: bool,
    /// A head that is older, by its own time, is `Warn`. Default `"1m"`, five slots.
    pub warn_head_age: Duration,
    /// A head that is older is `Fail`. Default `"5m"`.
    pub fail_head_age: Duration,
    /// A head that this process has seen stand still for longer is `Fail`, whatever time is in it. Default `"5m"`.
    pub max_standstill: Duration,
    /// Fewer peers are `Fail`. Default 1.
    pub min_peers: u64,
    /// Fewer are `Warn`. Default 3.
    pub warn_peers: u64,
    /// A safe block that is further behind the head, in blocks, is `Fail`. Default 0; on main net 32 to 64 are usual.
    pub max_safe_lag: u64,
    /// A finalized block that is further behind the head, in blocks, is `Fail`. Default 0; on main net 64 to 96 are usual.
    pub max_finalized_lag: u64,
    /// Other nodes of the same chain, best of others' keeping, at most 16. Default: none.
    pub references: Vec<Node>,
    /// How many of them must answer; otherwise it is `Unknown`. Default 1.
    pub min_references: usize,
    /// More blocks behind the middle one of the references are `Fail`, and more ahead of it `Warn`. Default 5.
    pub max_lag: u64,
    /// Blocks that lie this deep under the lower of both heads must be the same for most of the references; otherwise it is `Fail`. Default
    /// 8, since near the head chains part for a while when all is well.
    pub fork_depth: u64,
    /// How long references are waited for, twice at most. Default `"750ms"`.
    pub reference_timeout: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeConfig {
    node: Node,
    chain_id: u64,
    syncing: Option<bool>,
    #[serde(
        default,
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional"
    )]
    warn_head_age: Option<Duration>,
    #[serde(
        default,
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional"
    )]
    fail_head_age: Option<Duration>,
    #[serde(
        default,
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional"
    )]
    max_standstill: Option<Duration>,
    min_peers: Option<u64>,
    warn_peers: Option<u64>,
    max_safe_lag: Option<u64>,
    max_finalized_lag: Option<u64>,
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

impl TryFrom<NodeConfig> for EthereumProbe {
    type Error = &'static str;

    fn try_from(config: NodeConfig) -> Result<Self, &'static str> {
        let default = Self::new(config.node, config.chain_id);
        let probe = Self {
            syncing: config.syncing.unwrap_or(default.syncing),
            warn_head_age: config.warn_head_age.unwrap_or(default.warn_head_age),
            fail_head_age: config.fail_head_age.unwrap_or(default.fail_head_age),
            max_standstill: config.max_standstill.unwrap_or(default.max_standstill),
            min_peers: config.min_peers.unwrap_or(default.min_peers),
            warn_peers: config.warn_peers.unwrap_or(default.warn_peers),
            max_safe_lag: config.max_safe_lag.unwrap_or(default.max_safe_lag),
            max_finalized_lag: config
                .max_finalized_lag
                .unwrap_or(default.max_finalized_lag),
            references: config.references,
            min_references: config.min_references.unwrap_or(default.min_references),
            max_lag: config.max_lag.unwrap_or(default.max_lag),
            fork_depth: config.fork_depth.unwrap_or(default.fork_depth),
            reference_timeout: config
                .reference_timeout
                .unwrap_or(default.reference_timeout),
            ..default
        };
        probe.comparison().fits(&probe.references)?;
        Ok(probe)
    }
}

impl EthereumProbe {
    pub(crate) const fn comparison(&self) -> Comparison {
        Comparison {
            min_references: self.min_references,
            max_lag: self.max_lag,
            fork_depth: self.fork_depth,
        }
    }

    /// A probe with the defaults, without references.
    #[must_use]
    pub const fn new(node: Node, chain_id: u64) -> Self {
        Self {
            node,
            chain_id,
            syncing: true,
            warn_head_age: Duration::from_secs(60),
            fail_head_age: Duration::from_secs(300),
            max_standstill: Duration::from_secs(300),
            min_peers: 1,
            warn_peers: 3,
            max_safe_lag: 0,
            max_finalized_lag: 0,
            references: Vec::new(),
            min_references: 1,
            max_lag: 5,
            fork_depth: 8,
            reference_timeout: Duration::from_millis(750),
        }
    }
}

/// What a healthy account is: of a keeper, which stops when its money for gas ends. Amounts and times of 0 are not looked at.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "AccountConfig")]
#[non_exhaustive]
pub struct EthereumAccountProbe {
    /// The node that is asked. Its own check says whether it can be believed: let this depend on that.
    pub node: Node,
    /// The chain that it must be on.
    pub chain_id: u64,
    /// The account.
    pub address: AccountAddress,
    /// Less is `Fail`. Default 0.
    pub min_balance: Amount,
    /// Less is `Warn`. Default 0.
    pub warn_balance: Amount,
    /// An account that this process has seen send nothing for longer (its nonce stands) is `Fail`. Default `"0s"`.
    pub max_idle: Duration,
    /// An event that must have come lately. Default: none.
    pub event: Option<EventProbe>,
}

/// An event of a contract that must have come within a time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "EventConfig")]
#[non_exhaustive]
pub struct EventProbe {
    /// The contract.
    pub contract: AccountAddress,
    /// Its topics, at most 4: `["Kick(uint256,uint256,uint256,uint256,address,address,uint256)", "", "", "0x…"]`.
    pub topics: Vec<Topic>,
    /// None for longer, by the times of blocks, is `Fail`.
    pub within: Duration,
    /// How many blocks are asked for at once: nodes limit it. Default 1000. At most 32 such ranges are gone back.
    pub max_range: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountConfig {
    node: Node,
    chain_id: u64,
    address: AccountAddress,
    #[serde(default)]
    min_balance: Amount,
    #[serde(default)]
    warn_balance: Amount,
    #[serde(
        default,
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional"
    )]
    max_idle: Option<Duration>,
    event: Option<EventProbe>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventConfig {
    contract: AccountAddress,
    #[serde(default = "Vec::new")]
    topics: Vec<Topic>,
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    within: Duration,
    max_range: Option<u64>,
}

impl TryFrom<EventConfig> for EventProbe {
    type Error = &'static str;

    fn try_from(config: EventConfig) -> Result<Self, &'static str> {
        if config.topics.len() > 4 {
            return Err("has more than 4 topics, which no event has");
        }
        if config.within.is_zero() || config.max_range == Some(0) {
            return Err("has a within or a max_range of 0, in which nothing can be found");
        }
        let mut probe = Self::new(config.contract, config.topics, config.within);
        probe.max_range = config.max_range.unwrap_or(probe.max_range);
        Ok(probe)
    }
}

impl EventProbe {
    /// An event of this contract with these topics.
    #[must_use]
    pub const fn new(contract: AccountAddress, topics: Vec<Topic>, within: Duration) -> Self {
        Self {
            contract,
            topics,
            within,
            max_range: 1000,
        }
    }
}

impl TryFrom<AccountConfig> for EthereumAccountProbe {
    type Error = &'static str;

    fn try_from(config: AccountConfig) -> Result<Self, &'static str> {
        let probe = Self {
            min_balance: config.min_balance,
            warn_balance: config.warn_balance,
            max_idle: config.max_idle.unwrap_or_default(),
            event: config.event,
            ..Self::new(config.node, config.chain_id, config.address)
        };
        let balances = probe.min_balance.is_zero() && probe.warn_balance.is_zero();
        if balances && probe.max_idle.is_zero() && probe.event.is_none() {
            return Err("has nothing to look at; set min_balance, warn_balance, max_idle or event");
        }
        Ok(probe)
    }
}

impl EthereumAccountProbe {
    /// A probe that looks at nothing yet.
    #[must_use]
    pub fn new(node: Node, chain_id: u64, address: AccountAddress) -> Self {
        Self {
            node,
            chain_id,
            address,
            min_balance: Amount::default(),
            warn_balance: Amount::default(),
            max_idle: Duration::ZERO,
            event: None,
        }
    }
}
