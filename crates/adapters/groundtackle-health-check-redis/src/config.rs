use std::path::PathBuf;
use std::time::Duration;

use groundtackle_core::{ByteSize, Secret};
use groundtackle_health_check_client::{SecretSource, Tls, checked_url};
use serde::{Deserialize, Deserializer};

use crate::ask::{Place, place};

/// What a server is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows another server.
    Replica,
}

/// Which server is looked at, and what is well.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RedisCheckConfig {
    /// The server: `rediss://user:password@host:6379`, or that in a file. No default.
    #[serde(deserialize_with = "url")]
    pub url: SecretSource,
    /// The password, for those who keep it apart from the URL; it comes first. Default: the URL's.
    pub password: Option<SecretSource>,
    /// TLS: `verify` needs `rediss://`, `off` needs `redis://`. Default `verify`.
    pub tls: Tls,
    /// A PEM file with the certificates of the authorities that may vouch for the server. Default: those of the system.
    pub tls_authorities: Option<PathBuf>,
    /// What the server must be; otherwise it is `Fail`. Default: either.
    pub role: Option<Role>,
    /// A primary with fewer replicas online is `Warn`. Default 0: never.
    pub warn_replicas_below: u32,
    /// A primary with fewer replicas online is `Fail`. Default 0: never.
    pub fail_replicas_below: u32,
    /// A replica that has not heard from its primary for longer is `Warn`, and so is a primary that has not heard from one of its replicas.
    /// In whole seconds; above the server's `repl-ping-replica-period` (10 s). Default: never.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    pub warn_lag: Option<Duration>,
    /// The same for `Fail`. Default: never.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    pub fail_lag: Option<Duration>,
    /// A replica that is so many bytes behind what it has received is `Warn`, and so is a primary one of whose replicas is behind it so far.
    /// Default: never.
    pub warn_lag_bytes: Option<ByteSize>,
    /// The same for `Fail`. Default: never.
    pub fail_lag_bytes: Option<ByteSize>,
    /// Memory in use, in hundredths of `maxmemory`, from which on it is `Warn`. A server without limit, or one that makes room by deleting
    /// any key (`allkeys-…`), is not judged. Default 80.
    pub warn_memory_pct: u8,
    /// The same for `Fail`. Default 95.
    pub fail_memory_pct: u8,
}

impl Default for RedisCheckConfig {
    fn default() -> Self {
        Self {
            url: SecretSource::default(),
            password: None,
            tls: Tls::default(),
            tls_authorities: None,
            role: None,
            warn_replicas_below: 0,
            fail_replicas_below: 0,
            warn_lag: None,
            fail_lag: None,
            warn_lag_bytes: None,
            fail_lag_bytes: None,
            warn_memory_pct: 80,
            fail_memory_pct: 95,
        }
    }
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretSource, D::Error> {
    checked_url(deserializer, |url| place(url).err())
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

impl RedisCheckConfig {
    /// The defaults, with a server.
    pub fn new(url: impl Into<SecretSource>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }

    setters! {
        with_url url: SecretSource,
        with_password password: Option<SecretSource>,
        with_tls tls: Tls,
        with_tls_authorities tls_authorities: Option<PathBuf>,
        with_role role: Option<Role>,
        with_warn_replicas_below warn_replicas_below: u32,
        with_fail_replicas_below fail_replicas_below: u32,
        with_warn_lag warn_lag: Option<Duration>,
        with_fail_lag fail_lag: Option<Duration>,
        with_warn_lag_bytes warn_lag_bytes: Option<ByteSize>,
        with_fail_lag_bytes fail_lag_bytes: Option<ByteSize>,
        with_warn_memory_pct warn_memory_pct: u8,
        with_fail_memory_pct fail_memory_pct: u8,
    }

    /// Where the server is by this URL, and whether that is what `tls` says.
    pub(crate) fn place(&self, url: &Secret) -> Result<Place, &'static str> {
        let place = place(url)?;
        match (place.secure, self.tls) {
            (true, Tls::Off) => Err("the URL asks for TLS and tls is off; set it to verify"),
            (false, Tls::Verify) => Err(
                "the URL asks for no TLS; write rediss://, or set tls to off for a server on this machine or a network that nobody else listens to",
            ),
            _ => Ok(place),
        }
    }
}
