use std::time::Duration;

use groundtackle_health_check_client::Endpoint;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// As many addresses as a config names.
const MAX_ADDRESSES: usize = 64;

/// Which cluster is looked at, and what is well.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct AerospikeCheckConfig {
    /// Nodes to begin with, `"10.0.0.1:3000"`, from 1 to 64: they lead to all others. Name all that you know; one that does not answer is
    /// told.
    #[serde(deserialize_with = "addresses")]
    pub addresses: Vec<Endpoint>,
    /// The namespaces to look at. Default: all that a node has, at most 32.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Whether nodes are reached by the addresses that they have for others than their own (`alternate-access-address`). Default false.
    #[serde(default)]
    pub use_alternate_addresses: bool,
    /// How long a node may take; below the check's own timeout, so that the others are told. Default `"1s"`.
    #[serde(
        default = "second",
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required"
    )]
    pub node_timeout: Duration,
    /// Fewer nodes that answer are `Warn`. Default 0: never.
    #[serde(default)]
    pub warn_nodes_below: usize,
    /// Fewer nodes that answer are `Fail`. Default 0: never.
    #[serde(default)]
    pub fail_nodes_below: usize,
    /// Fewer copies of each record than the namespace's `replication-factor` are `Warn`, and fewer than this are `Fail`. Default 0: never.
    #[serde(default)]
    pub fail_copies_below: u64,
    /// Space in use, in hundredths of that at which a node refuses writes (`stop-writes-used-pct`), from which on it is `Warn`. Default 80.
    #[serde(default = "warn_used")]
    pub warn_used_pct: u64,
    /// The same for `Fail`. Default 95.
    #[serde(default = "fail_used")]
    pub fail_used_pct: u64,
}

const fn second() -> Duration {
    Duration::from_secs(1)
}

const fn warn_used() -> u64 {
    80
}

const fn fail_used() -> u64 {
    95
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Endpoint>, D::Error> {
    let addresses = Vec::deserialize(deserializer)?;
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Err(D::Error::custom("addresses must name from 1 to 64 nodes"));
    }
    Ok(addresses)
}

macro_rules! setters {
    ($($setter:ident $field:ident: $type:ty),+ $(,)?) => {$(
        #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
        #[must_use]
        pub fn $setter(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )+};
}

impl AerospikeCheckConfig {
    /// The defaults, with nodes to begin with: the first 64 of them.
    pub fn new(addresses: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            addresses: addresses.into_iter().take(MAX_ADDRESSES).collect(),
            namespaces: Vec::new(),
            use_alternate_addresses: false,
            node_timeout: second(),
            warn_nodes_below: 0,
            fail_nodes_below: 0,
            fail_copies_below: 0,
            warn_used_pct: warn_used(),
            fail_used_pct: fail_used(),
        }
    }

    setters! {
        with_namespaces namespaces: Vec<String>,
        with_use_alternate_addresses use_alternate_addresses: bool,
        with_node_timeout node_timeout: Duration,
        with_warn_nodes_below warn_nodes_below: usize,
        with_fail_nodes_below fail_nodes_below: usize,
        with_fail_copies_below fail_copies_below: u64,
        with_warn_used_pct warn_used_pct: u64,
        with_fail_used_pct fail_used_pct: u64,
    }
}
