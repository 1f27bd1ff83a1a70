use std::path::PathBuf;
use std::time::Duration;

use groundtackle_core::ByteSize;
use groundtackle_health_check_client::{SecretSource, Tls, checked_url};
use serde::{Deserialize, Deserializer};

use crate::ask::place;

/// What a server is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It takes writes, but where it is set to be read-only.
    Primary,
    /// It follows another server.
    Standby,
}

/// Which server is looked at, and what is well.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PostgresCheckConfig {
    /// The server: `postgres://user:password@host:5432/database`, or that in a file. One host; `sslmode` does not count. No default.
    #[serde(deserialize_with = "url")]
    pub url: SecretSource,
    /// The password, for those who keep it apart from the URL; it comes first. Default: the URL's.
    pub password: Option<SecretSource>,
    /// TLS. Default `verify`.
    pub tls: Tls,
    /// A PEM file with the certificates of the authorities that may vouch for the server. Default: those of the system.
    pub tls_authorities: Option<PathBuf>,
    /// What the server must be; otherwise it is `Fail`. Default: either.
    pub role: Option<Role>,
    /// Whether it must take writes: a standby, or one with `default_transaction_read_only`, is `Fail`. Default false.
    pub writable: bool,
    /// Whether a standby must be streaming from another server: otherwise it is `Fail`. False for those that are fed from an archive.
    /// Default true.
    pub must_stream: bool,
    /// A server that fewer standbys stream from is `Warn`. Default 0: never.
    pub warn_standbys_below: u32,
    /// A server that fewer standbys stream from is `Fail`. Default 0: never.
    pub fail_standbys_below: u32,
    /// A standby that is further behind is `Warn`, and so is a server one of whose standbys is. For the latter above the standbys'
    /// `wal_receiver_status_interval` (10 s). Default: never.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    pub warn_lag: Option<Duration>,
    /// The same for `Fail`. Default: never.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    pub fail_lag: Option<Duration>,
    /// The same for `Warn`, in bytes of the log. Default: never.
    pub warn_lag_bytes: Option<ByteSize>,
    /// The same for `Fail`, in bytes of the log. Default: never.
    pub fail_lag_bytes: Option<ByteSize>,
    /// Connections in use, in hundredths of those that anybody may have (`max_connections` without the reserved ones), from which on it is
    /// `Warn`. Default 80.
    pub warn_connections_pct: u8,
    /// The same for `Fail`. Default 95.
    pub fail_connections_pct: u8,
}

impl Default for PostgresCheckConfig {
    fn default() -> Self {
        Self {
            url: SecretSource::default(),
            password: None,
            tls: Tls::default(),
            tls_authorities: None,
            role: None,
            writable: false,
            must_stream: true,
            warn_standbys_below: 0,
            fail_standbys_below: 0,
            warn_lag: None,
            fail_lag: None,
            warn_lag_bytes: None,
            fail_lag_bytes: None,
            warn_connections_pct: 80,
            fail_connections_pct: 95,
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

impl PostgresCheckConfig {
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
        with_writable writable: bool,
        with_must_stream must_stream: bool,
        with_warn_standbys_below warn_standbys_below: u32,
        with_fail_standbys_below fail_standbys_below: u32,
        with_warn_lag warn_lag: Option<Duration>,
        with_fail_lag fail_lag: Option<Duration>,
        with_warn_lag_bytes warn_lag_bytes: Option<ByteSize>,
        with_fail_lag_bytes fail_lag_bytes: Option<ByteSize>,
        with_warn_connections_pct warn_connections_pct: u8,
        with_fail_connections_pct fail_connections_pct: u8,
    }
}
