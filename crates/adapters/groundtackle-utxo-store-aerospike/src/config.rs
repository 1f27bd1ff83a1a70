use std::time::Duration;

use groundtackle_core::{RetryConfig, Secret};
use groundtackle_utxo_store::{Error, Result, UnspendableRule};
use serde::Deserialize;

const DEFAULT_SET: &str = "groundtackle";
const DEFAULT_PORT: u16 = 3000;

/// How a store on Aerospike is opened.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AerospikeUtxoStoreConfig {
    /// Where the cluster is: `aerospike://host[:port][,host[:port]…]/namespace[/set]`. Any node leads to
    /// the others. Several stores can live in one namespace, each in a set of its own; the set is
    /// `groundtackle` if none is named. No default.
    pub url: Secret,
    /// The user, for Enterprise Edition. Default: none.
    pub user: Option<String>,
    /// The user's password. Default: none.
    pub password: Option<Secret>,
    /// Create the store if need be; otherwise that is an error. Default true.
    pub create: bool,
    /// Which outputs get no slot. Fixed when the store is created. Default `core`.
    pub unspendable: UnspendableRule,
    /// Copies of each record, at least; the namespace decides, and the store refuses one with fewer:
    /// a node that goes down takes its only copies with it. Default 2.
    pub min_replicas: u32,
    /// Open although the nodes' `min-cluster-size` lets several parts of a cluster that was cut go on by themselves,
    /// each with what the other does not know. Default false: a cluster of more than two nodes is refused then.
    pub allow_split: bool,
    /// Requests to the cluster at a time, at most, each with up to some thousand records. Default 64.
    pub max_requests: u32,
    /// Wait so long for a node to take a connection. Default `"5s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub connect_timeout: Duration,
    /// A request that is not answered for this time has failed. Default `"5s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub answer_timeout: Duration,
    /// How long a call waits for what another one holds before it finishes the other's work or undoes it.
    /// Longer than calls take. Default `"1s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub patience: Duration,
    /// Items of one call at most. Default 10,000.
    pub max_batch_items: usize,
    /// Repetition of requests that fail. Default: 12 attempts in 30 seconds.
    pub retry: RetryConfig,
}

impl Default for AerospikeUtxoStoreConfig {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            user: None,
            password: None,
            create: true,
            unspendable: UnspendableRule::default(),
            min_replicas: 2,
            allow_split: false,
            max_requests: 64,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(1),
            max_batch_items: 10_000,
            retry: RetryConfig::default()
                .with_max_attempts(12)
                .with_max_elapsed(Duration::from_secs(30)),
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

/// What the URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) namespace: String,
    pub(crate) set: String,
}

impl AerospikeUtxoStoreConfig {
    /// The defaults, with a cluster.
    pub fn new(url: impl Into<Secret>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }

    setters! {
        with_url url: Secret,
        with_user user: Option<String>,
        with_password password: Option<Secret>,
        with_create create: bool,
        with_unspendable unspendable: UnspendableRule,
        with_min_replicas min_replicas: u32,
        with_allow_split allow_split: bool,
        with_max_requests max_requests: u32,
        with_connect_timeout connect_timeout: Duration,
        with_answer_timeout answer_timeout: Duration,
        with_patience patience: Duration,
        with_max_batch_items max_batch_items: usize,
        with_retry retry: RetryConfig,
    }

    pub(crate) fn check(&self) -> Result<Place> {
        if self.connect_timeout.is_zero()
            || self.answer_timeout.is_zero()
            || self.patience.is_zero()
            || self.max_requests == 0
            || self.max_batch_items == 0
        {
            return Err(Error::invalid_request(
                "timeouts, patience, max_requests and max_batch_items must be above zero",
            ));
        }
        if self.user.is_some() != self.password.is_some() {
            return Err(Error::invalid_request(
                "user and password go together: set both, or none",
            ));
        }
        self.retry
            .validate()
            .map_err(|error| Error::invalid_request(format!("retry: {error}")))?;
        place(self.url.expose())
    }
}

fn place(url: &str) -> Result<Place> {
    // Nothing of the URL is repeated: someone may have put a password into it.
    let refused = |why: &str| {
        Err(Error::invalid_request(format!(
            "the URL {why}: write aerospike://host[:port][,host[:port]…]/namespace[/set]"
        )))
    };
    let Some(rest) = url.strip_prefix("aerospike://") else {
        return refused("does not begin with aerospike://");
    };
    if rest.contains(['@', '?', '#']) {
        return refused(
            "has more than hosts, namespace and set; `user` and `password` are keys of their own",
        );
    }
    let mut parts = rest.split('/');
    let hosts = parts.next().unwrap_or_default();
    let (namespace, set) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or(DEFAULT_SET),
    );
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let good = |name: &str, most: usize| {
        !name.is_empty() && name.len() <= most && name.chars().all(allowed)
    };
    if parts.next().is_some() || !good(namespace, 31) || !good(set, 48) {
        return refused("names no good namespace or set (letters, digits, `_`, `-` and `.`)");
    }
    let mut found = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            None => host.split_once(':').unwrap_or((host, "")),
            Some(rest) => match rest.split_once(']') {
                Some((name, "")) => (name, ""),
                Some((name, port)) => (name, port.strip_prefix(':').unwrap_or("none")),
                None => ("", ""),
            },
        };
        let port = match port {
            "" if host.ends_with(':') => None,
            "" => Some(DEFAULT_PORT),
            port => port.parse().ok(),
        };
        match port {
            Some(port) if !name.is_empty() => found.push((name.to_owned(), port)),
            _ => return refused("has a host without a name, or a port that is no number"),
        }
    }
    Ok(Place {
        hosts: found,
        namespace: namespace.to_owned(),
        set: set.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_hosts_namespace_and_set() {
        let one = place("aerospike://db/test").unwrap();
        assert_eq!(one.hosts, [("db".to_owned(), 3000)]);
        assert_eq!(
            (one.namespace.as_str(), one.set.as_str()),
            ("test", "groundtackle")
        );
        let two = place("aerospike://a:3100,10.0.0.2,[::1]:3001,[::1]/utxo/main").unwrap();
        let hosts = [
            ("a", 3100),
            ("10.0.0.2", 3000),
            ("::1", 3001),
            ("::1", 3000),
        ];
        assert_eq!(two.hosts, hosts.map(|(name, port)| (name.to_owned(), port)));
        assert_eq!((two.namespace.as_str(), two.set.as_str()), ("utxo", "main"));
        for bad in [
            "",
            "redis://a/test",
            "aerospike://a",
            "aerospike:///test",
            "aerospike://a/",
            "aerospike://a:x/test",
            "aerospike://a:/test",
            "aerospike://::1/test",
            "aerospike://[::1/test",
            "aerospike://[::1]3001/test",
            "aerospike://[::1]:/test",
            "aerospike://a,/test",
            "aerospike://a/te st",
            "aerospike://a/test/s/more",
            "aerospike://me:geheim@a/test",
        ] {
            let error = place(bad).unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let good = AerospikeUtxoStoreConfig::new("aerospike://a/test");
        assert!(good.check().is_ok());
        assert!(good.clone().with_max_requests(0).check().is_err());
        assert!(good.clone().with_max_batch_items(0).check().is_err());
        assert!(good.clone().with_patience(Duration::ZERO).check().is_err());
        assert!(good.clone().with_user(Some("me".into())).check().is_err());
        let retry = RetryConfig::default().with_max_attempts(0);
        assert!(good.with_retry(retry).check().is_err());
    }

    #[test]
    fn a_config_reads_from_text_and_shows_no_secret() {
        let config: AerospikeUtxoStoreConfig = serde_json::from_str(
            r#"{ "url": "aerospike://a/test", "user": "me", "password": "geheim", "patience": "250ms" }"#,
        )
        .unwrap();
        assert_eq!(config.patience, Duration::from_millis(250));
        assert!(!format!("{config:?}").contains("geheim"));
        assert!(serde_json::from_str::<AerospikeUtxoStoreConfig>(r#"{ "nonsense": 1 }"#).is_err());
    }
}
