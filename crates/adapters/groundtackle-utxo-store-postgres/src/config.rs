use std::path::PathBuf;
use std::time::Duration;

use groundtackle_core::{RetryConfig, Secret};
use groundtackle_utxo_store::UnspendableRule;
use serde::Deserialize;

/// How connections are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Tls {
    /// TLS with a certificate of a known authority that names the host. A server without TLS is
    /// refused, whatever the URL's `sslmode` says.
    #[default]
    Verify,
    /// No TLS: for a server on this machine or a network that nobody else listens to.
    Off,
}

/// How a store on PostgreSQL is opened.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PostgresUtxoStoreConfig {
    /// Where the server is: `postgres://user:password@host:5432/database`. Several hosts, one after
    /// another, with `target_session_attrs=read-write`, find the primary after a failover. No
    /// default.
    pub url: Secret,
    /// The password, for those who keep it apart from the URL; it comes first. Default: the URL's.
    pub password: Option<Secret>,
    /// TLS. Default `verify`.
    pub tls: Tls,
    /// A PEM file with the certificates of the authorities that may vouch for the server. Default:
    /// those of the system.
    pub tls_authorities: Option<PathBuf>,
    /// The schema that holds the store: lower-case letters, digits and `_`. Several stores can live in
    /// one database. Default `groundtackle`.
    pub schema: String,
    /// Create the store, or migrate it to this version, if need be; otherwise that is an error.
    /// Default true.
    pub create: bool,
    /// Cut the tables of transactions and outputs into this many parts by hash, for sets of
    /// hundreds of millions: smaller indexes, vacuumed in parallel. 0: not cut. Fixed when the store
    /// is created. Default 0.
    pub partitions: u32,
    /// Which outputs get no slot. Fixed when the store is created. Default `core`.
    pub unspendable: UnspendableRule,
    /// Connections at most. Each scan under way holds one or more. Default 16.
    pub max_connections: usize,
    /// Wait for a connection of the pool so long; then the store is overloaded. Default `"5s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub pool_timeout: Duration,
    /// Wait so long for the server to take a connection. Default `"5s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub connect_timeout: Duration,
    /// The server gives a statement up after this time. Default `"1m"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub statement_timeout: Duration,
    /// The server gives up waiting for another call's records after this time. Default `"10s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub lock_timeout: Duration,
    /// A server that answers nothing for this time counts as lost. Above `statement_timeout`. Default
    /// `"90s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub answer_timeout: Duration,
    /// Partitions of a scan, 1 to 256, which can be read in parallel; a cursor is good for scans with as
    /// many. Default 16.
    pub scan_partitions: u32,
    /// How long one scan may last: the server can't tidy up behind it. Default `"1h"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub scan_timeout: Duration,
    /// Items of one call at most. Default 100,000.
    pub max_batch_items: usize,
    /// Repetition of what another call or a lost connection undid. Default: 12 attempts in 30 seconds.
    pub retry: RetryConfig,
    /// Accept a server that can lose what it has acknowledged or damage its files when the power
    /// fails (`fsync`, `full_page_writes` off). Default false.
    pub allow_unsafe_durability: bool,
}

impl Default for PostgresUtxoStoreConfig {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            password: None,
            tls: Tls::default(),
            tls_authorities: None,
            schema: "groundtackle".into(),
            create: true,
            partitions: 0,
            unspendable: UnspendableRule::default(),
            max_connections: 16,
            pool_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(60),
            lock_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(90),
            scan_partitions: 16,
            scan_timeout: Duration::from_secs(3600),
            max_batch_items: 100_000,
            retry: RetryConfig::default()
                .with_max_attempts(12)
                .with_max_elapsed(Duration::from_secs(30)),
            allow_unsafe_durability: false,
        }
    }
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

impl PostgresUtxoStoreConfig {
    /// The defaults, with a server.
    pub fn new(url: impl Into<Secret>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }

    setters! {
        with_url url: Secret,
        with_password password: Option<Secret>,
        with_tls tls: Tls,
        with_tls_authorities tls_authorities: Option<PathBuf>,
        with_schema schema: String,
        with_create create: bool,
        with_partitions partitions: u32,
        with_unspendable unspendable: UnspendableRule,
        with_max_connections max_connections: usize,
        with_pool_timeout pool_timeout: Duration,
        with_connect_timeout connect_timeout: Duration,
        with_statement_timeout statement_timeout: Duration,
        with_lock_timeout lock_timeout: Duration,
        with_answer_timeout answer_timeout: Duration,
        with_scan_partitions scan_partitions: u32,
        with_scan_timeout scan_timeout: Duration,
        with_max_batch_items max_batch_items: usize,
        with_retry retry: RetryConfig,
        with_allow_unsafe_durability allow_unsafe_durability: bool,
    }
}
