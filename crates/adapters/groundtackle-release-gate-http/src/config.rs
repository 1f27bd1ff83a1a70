use std::collections::BTreeSet;
use std::time::Duration;

use groundtackle_core::{ByteSize, Secret};
use groundtackle_health_check_client::{Headers, HttpUrl};
use serde::Deserialize;

/// Who may ask, and how much at once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HttpGateConfig {
    /// Whoever sends this as a bearer token, or as the password of a basic login, may ask. Empty: nobody may. Default empty.
    pub token: Secret,
    /// How long all sources together may take. Default `"8s"`, since Flagger waits for ten.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub collect_timeout: Duration,
    /// How long the record of an answer may take. Default `"1s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub record_timeout: Duration,
    /// How many questions are answered at once; more get 503. Default 16.
    pub max_at_once: usize,
}

impl Default for HttpGateConfig {
    fn default() -> Self {
        Self {
            token: Secret::default(),
            collect_timeout: Duration::from_secs(8),
            record_timeout: Duration::from_secs(1),
            max_at_once: 16,
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

impl HttpGateConfig {
    setters! {
        with_token token: Secret,
        with_collect_timeout collect_timeout: Duration,
        with_record_timeout record_timeout: Duration,
        with_max_at_once max_at_once: usize,
    }
}

/// Whom to ask for evidence, and what is taken from there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct HttpEvidenceConfig {
    /// What evidence calls it, such as `"scanner"`. Default: the server. Two of one server need a name each.
    #[serde(default)]
    pub name: Option<String>,
    /// Where the request is posted to.
    pub url: HttpUrl,
    /// More headers. Default none.
    #[serde(default)]
    pub headers: Headers,
    /// The kinds of facts that are taken from there, as evidence names them: `"test"`, `"pipeline"`.
    pub kinds: BTreeSet<String>,
    /// For a whole answer. Default `"10s"`.
    #[serde(
        default = "ten_seconds",
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required"
    )]
    pub timeout: Duration,
    /// The longest answer. Default `"1MiB"`.
    #[serde(default = "one_mebibyte")]
    pub max_answer: ByteSize,
}

const fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

const fn one_mebibyte() -> ByteSize {
    ByteSize::mib(1)
}

impl HttpEvidenceConfig {
    /// Of a server, for these kinds of facts.
    pub fn new<K: Into<String>>(url: HttpUrl, kinds: impl IntoIterator<Item = K>) -> Self {
        Self {
            name: None,
            url,
            headers: Headers::default(),
            kinds: kinds.into_iter().map(Into::into).collect(),
            timeout: ten_seconds(),
            max_answer: one_mebibyte(),
        }
    }

    /// Sets [`name`](Self::name).
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    setters! {
        with_headers headers: Headers,
        with_timeout timeout: Duration,
        with_max_answer max_answer: ByteSize,
    }
}
