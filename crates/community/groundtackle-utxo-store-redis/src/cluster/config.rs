use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use groundtackle_core::{RetryConfig, Secret};
use groundtackle_utxo_store::{Error, Result, UnspendableRule};
use serde::Deserialize;

use super::BACKEND;
use crate::config::{Durability, Tls, check_prefix, setters};
use crate::connection::{Access, Settings, bad_url};
use crate::server::Wanted;

/// How a store on a Redis Cluster is opened.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RedisClusterUtxoStoreConfig {
    /// Where some servers of the cluster are: `rediss://user:password@host:6379,host:6379`. The others
    /// are learnt from them, and each is reached with the same user and password. No default.
    pub url: Secret,
    /// The password, for those who keep it apart from the URL; it comes first. Default: the URL's.
    pub password: Option<Secret>,
    /// Where servers are reached whose own addresses mean nothing here, as behind a port forwarding:
    /// `host:port` as the cluster says it, and `host:port` instead. Default: none.
    pub addresses: BTreeMap<String, String>,
    /// TLS. Default `verify`: certificates must name what the servers call themselves
    /// (`cluster-announce-hostname` with `cluster-preferred-endpoint-type hostname`, or their IP addresses).
    pub tls: Tls,
    /// A PEM file with the certificates of the authorities that may vouch for the servers. Default:
    /// those of the system.
    pub tls_authorities: Option<PathBuf>,
    /// All keys of the store begin with a brace and it: letters, digits, `_`, `-`, `.` and `:`. Several
    /// stores can live in one cluster. Default `groundtackle`.
    pub prefix: String,
    /// Create the store if need be; otherwise that is an error. Default true.
    pub create: bool,
    /// Which outputs get no slot. Fixed when the store is created. Default `core`.
    pub unspendable: UnspendableRule,
    /// Over how many of the 16,384 hash slots the store is spread, at equal distances: a power of two
    /// from 16. The more, the smaller is what moves as one when slots move, and the longer takes a
    /// listing of a store that is nearly empty. Fixed when the store is created. Default 1,024.
    pub spread: u16,
    /// What an acknowledged write must outlive on its primary. Default `always`.
    pub durability: Durability,
    /// For servers that let nobody read their settings (`CONFIG GET`): believe that `appendfsync` is
    /// what `durability` needs. Default false.
    pub trust_server_settings: bool,
    /// Replicas that must have a write before it is acknowledged (`WAIT`), and that each primary must
    /// have at hand for the store to be ready. Default 0.
    pub min_replicas: u32,
    /// Steps of calls that are under way at a time, at most; others wait. Default 64.
    pub max_calls: u32,
    /// A step waits so long for its turn; then the store is overloaded. Default `"5s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub turn_timeout: Duration,
    /// How long a call waits for what another one holds before it finishes or undoes it. Longer than
    /// calls take, so that live ones are not disturbed. Default `"1s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub patience: Duration,
    /// Wait so long for a server to take a connection. Default `"5s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub connect_timeout: Duration,
    /// A server that does not answer for this time counts as lost. Default `"30s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub answer_timeout: Duration,
    /// Items of one call at most. Default 10,000.
    pub max_batch_items: usize,
    /// Repetition of a step that failed: longer than a failover takes. Default: 24 attempts in 60 seconds.
    pub retry: RetryConfig,
}

impl Default for RedisClusterUtxoStoreConfig {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            password: None,
            addresses: BTreeMap::new(),
            tls: Tls::default(),
            tls_authorities: None,
            prefix: "groundtackle".into(),
            create: true,
            unspendable: UnspendableRule::default(),
            spread: 1_024,
            durability: Durability::default(),
            trust_server_settings: false,
            min_replicas: 0,
            max_calls: 64,
            turn_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(30),
            max_batch_items: 10_000,
            retry: RetryConfig::default()
                .with_max_attempts(24)
                .with_max_elapsed(Duration::from_secs(60)),
        }
    }
}

impl RedisClusterUtxoStoreConfig {
    /// The defaults, with some servers of a cluster.
    pub fn new(url: impl Into<Secret>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }

    setters! {
        with_url url: Secret,
        with_password password: Option<Secret>,
        with_addresses addresses: BTreeMap<String, String>,
        with_tls tls: Tls,
        with_tls_authorities tls_authorities: Option<PathBuf>,
        with_prefix prefix: String,
        with_create create: bool,
        with_unspendable unspendable: UnspendableRule,
        with_spread spread: u16,
        with_durability durability: Durability,
        with_trust_server_settings trust_server_settings: bool,
        with_min_replicas min_replicas: u32,
        with_max_calls max_calls: u32,
        with_turn_timeout turn_timeout: Duration,
        with_patience patience: Duration,
        with_connect_timeout connect_timeout: Duration,
        with_answer_timeout answer_timeout: Duration,
        with_max_batch_items max_batch_items: usize,
        with_retry retry: RetryConfig,
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_prefix(&self.prefix)?;
        if !self.spread.is_power_of_two() || !(16..=16_384).contains(&self.spread) {
            return Err(Error::invalid_request(format!(
                "spread {} is no power of two from 16 to 16384",
                self.spread
            )));
        }
        if self.turn_timeout.is_zero()
            || self.connect_timeout.is_zero()
            || self.answer_timeout.is_zero()
            || self.max_calls == 0
            || self.max_batch_items == 0
        {
            return Err(Error::invalid_request(
                "timeouts, max_calls and max_batch_items must be above zero",
            ));
        }
        self.retry
            .validate()
            .map_err(|error| Error::invalid_request(format!("retry: {error}")))
    }

    pub(crate) const fn wanted(&self) -> Wanted {
        Wanted {
            durability: self.durability,
            trust: self.trust_server_settings,
            cluster: true,
        }
    }

    /// How servers are reached, and which are named.
    pub(crate) fn access(&self) -> Result<(Access, Vec<(String, u16)>)> {
        let settings = Settings {
            backend: BACKEND,
            password: self.password.as_ref(),
            tls: self.tls,
            tls_authorities: self.tls_authorities.as_deref(),
            connect_timeout: self.connect_timeout,
            answer_timeout: self.answer_timeout,
        };
        let url = self.url.expose();
        let (scheme, rest) = url.split_once("://").ok_or_else(bad_url)?;
        let (place, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (login, hosts) = match place.rsplit_once('@') {
            Some((login, hosts)) => (format!("{login}@"), hosts),
            None => (String::new(), place),
        };
        let one = |host: &str| Access::new(&format!("{scheme}://{login}{host}{path}"), &settings);
        let mut all = hosts.split(',').map(one).collect::<Result<Vec<_>>>()?;
        let seeds = all
            .iter()
            .map(|(_, host, port)| (host.clone(), *port))
            .collect();
        let (access, ..) = all.pop().ok_or_else(bad_url)?;
        if access.database() != 0 {
            return Err(Error::invalid_request(
                "a cluster has no databases; leave the number out of the URL",
            ));
        }
        Ok((access, seeds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let good =
            RedisClusterUtxoStoreConfig::new("redis://:geheim@a:1,[::1]:2,b").with_tls(Tls::Off);
        good.check().unwrap();
        let (_, seeds) = good.access().unwrap();
        let place = |host: &str, port| (host.to_owned(), port);
        assert_eq!(seeds, [place("a", 1), place("::1", 2), place("b", 6_379)]);
        for spread in [0, 8, 48, 32_768] {
            assert!(
                good.clone().with_spread(spread).check().is_err(),
                "{spread}"
            );
        }
        assert!(good.clone().with_prefix("{a}".into()).check().is_err());
        assert!(good.clone().with_max_calls(0).check().is_err());
        for url in [
            "",
            "geheim",
            "redis://:geheim@a,b:x",
            "redis://:geheim@a/1",
            "rediss://a",
            "redis://a#b",
        ] {
            let error = good.clone().with_url(url.into()).access().err().unwrap();
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error}");
        }
    }
}
