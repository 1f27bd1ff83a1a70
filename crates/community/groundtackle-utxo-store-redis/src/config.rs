use std::path::PathBuf;
use std::time::Duration;

use groundtackle_core::{ByteSize, RetryConfig, Secret};
use groundtackle_utxo_store::{Error, Result, UnspendableRule};
use serde::Deserialize;

/// How connections are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Tls {
    /// TLS with a certificate of a known authority that names the host. Needs a `rediss://` URL.
    #[default]
    Verify,
    /// No TLS: for a server on this machine or a network that nobody else listens to. Needs a
    /// `redis://` URL.
    Off,
}

/// What an acknowledged write must outlive. The server decides; the store refuses one that does less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: a server that goes down may come up empty.
    None,
    /// A killed server process; a machine that goes down can take the last seconds with it. The
    /// server's `appendonly yes`.
    EverySecond,
    /// Server and machine going down. The server's `appendonly yes` with `appendfsync always`.
    #[default]
    Always,
}

/// How a store on Redis is opened.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RedisUtxoStoreConfig {
    /// Where the server is: `rediss://user:password@host:6379/0`. The number is that of the server's
    /// database. No default.
    pub url: Secret,
    /// The password, for those who keep it apart from the URL; it comes first. Default: the URL's.
    pub password: Option<Secret>,
    /// TLS. Default `verify`.
    pub tls: Tls,
    /// A PEM file with the certificates of the authorities that may vouch for the server. Default:
    /// those of the system.
    pub tls_authorities: Option<PathBuf>,
    /// All keys of the store begin with it, in braces: letters, digits, `_`, `-`, `.` and `:`. Several
    /// stores can live in one server. Default `groundtackle`.
    pub prefix: String,
    /// Create the store if need be; otherwise that is an error. Default true.
    pub create: bool,
    /// Which outputs get no slot. Fixed when the store is created. Default `core`.
    pub unspendable: UnspendableRule,
    /// What an acknowledged write must outlive. Default `always`.
    pub durability: Durability,
    /// For servers that let nobody read their settings (`CONFIG GET`): believe that `appendfsync` is
    /// what `durability` needs. Default false.
    pub trust_server_settings: bool,
    /// Calls that change something at a time, at most; others wait. Default 64.
    pub max_calls: u32,
    /// A call waits so long for its turn; then the store is overloaded. Default `"5s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub turn_timeout: Duration,
    /// Wait so long for the server to take a connection. Default `"5s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub connect_timeout: Duration,
    /// A server that does not answer for this time counts as lost. Default `"30s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub answer_timeout: Duration,
    /// Items of one call at most. The server does nothing else while it carries a call out. Default
    /// 10,000.
    pub max_batch_items: usize,
    /// Bytes that one call may write at most, whole blocks included: the server takes them as one
    /// command. Below its `client-query-buffer-limit`. Default 256 MiB.
    pub max_write: ByteSize,
    /// Repetition of what another call or a lost connection undid. Default: 12 attempts in 30 seconds.
    pub retry: RetryConfig,
}

impl Default for RedisUtxoStoreConfig {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            password: None,
            tls: Tls::default(),
            tls_authorities: None,
            prefix: "groundtackle".into(),
            create: true,
            unspendable: UnspendableRule::default(),
            durability: Durability::default(),
            trust_server_settings: false,
            max_calls: 64,
            turn_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(30),
            max_batch_items: 10_000,
            max_write: ByteSize::mib(256),
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

pub(crate) use setters;

pub(crate) fn check_prefix(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        return Err(Error::invalid_request(format!(
            "prefix {name:?} is no good name: use letters, digits, `_`, `-`, `.` and `:`, at most 64"
        )));
    }
    Ok(())
}

impl RedisUtxoStoreConfig {
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
        with_prefix prefix: String,
        with_create create: bool,
        with_unspendable unspendable: UnspendableRule,
        with_durability durability: Durability,
        with_trust_server_settings trust_server_settings: bool,
        with_max_calls max_calls: u32,
        with_turn_timeout turn_timeout: Duration,
        with_connect_timeout connect_timeout: Duration,
        with_answer_timeout answer_timeout: Duration,
        with_max_batch_items max_batch_items: usize,
        with_max_write max_write: ByteSize,
        with_retry retry: RetryConfig,
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_prefix(&self.prefix)?;
        if self.turn_timeout.is_zero()
            || self.connect_timeout.is_zero()
            || self.answer_timeout.is_zero()
            || self.max_calls == 0
            || self.max_batch_items == 0
            || self.max_write.bytes() == 0
        {
            return Err(Error::invalid_request(
                "timeouts, max_calls, max_batch_items and max_write must be above zero",
            ));
        }
        self.retry
            .validate()
            .map_err(|error| Error::invalid_request(format!("retry: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let good = RedisUtxoStoreConfig::default();
        assert!(good.check().is_ok());
        for prefix in ["", "a b", "{a}", "ä", &"x".repeat(65)] {
            assert!(
                good.clone().with_prefix(prefix.into()).check().is_err(),
                "{prefix}"
            );
        }
        assert!(good.clone().with_max_calls(0).check().is_err());
        assert!(good.clone().with_max_batch_items(0).check().is_err());
        assert!(
            good.clone()
                .with_answer_timeout(Duration::ZERO)
                .check()
                .is_err()
        );
        let retry = RetryConfig::default().with_max_attempts(0);
        assert!(good.with_retry(retry).check().is_err());
    }
}
