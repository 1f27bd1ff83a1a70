use std::path::PathBuf;
use std::time::Duration;

use groundtackle_health_check_client::{SecretSource, Tls};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A key for the server, each part of it by itself or in a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct S3Credentials {
    /// The access key's identifier.
    pub access_key_id: SecretSource,
    /// The access key.
    pub secret_access_key: SecretSource,
    /// The token that comes with temporary keys.
    #[serde(default)]
    pub session_token: Option<SecretSource>,
}

impl S3Credentials {
    /// A key that is not temporary.
    pub fn new(
        access_key_id: impl Into<SecretSource>,
        secret_access_key: impl Into<SecretSource>,
    ) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: secret_access_key.into(),
            session_token: None,
        }
    }
}

/// Which bucket is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct S3CheckConfig {
    /// The bucket, which must exist. No default.
    #[serde(deserialize_with = "bucket")]
    pub bucket: String,
    /// What the canary's key begins with: at most 512 bytes. The rest is 32 random characters. Default `"groundtackle-health-check/"`.
    #[serde(deserialize_with = "prefix")]
    pub prefix: String,
    /// The server: `https://host:port`. Default: that of AWS for the region.
    pub endpoint: Option<String>,
    /// The region. Default: the one that the environment or the profile says, `us-east-1` with an endpoint.
    pub region: Option<String>,
    /// The bucket in the path instead of the host's name, as most servers but AWS want it. Default false.
    pub path_style: bool,
    /// A key. Default: what the chain of credentials finds: environment, profile, web identity, container, instance.
    pub credentials: Option<S3Credentials>,
    /// The profile that the chain reads. Default: `AWS_PROFILE`, or `default`.
    pub profile: Option<String>,
    /// TLS; with `verify` an endpoint `http://` is refused. Default `verify`.
    pub tls: Tls,
    /// A PEM file with certificates of authorities that may vouch for the server, instead of the system's. Default none.
    pub tls_authorities: Option<PathBuf>,
    /// Each of what is done, to get credentials, to put, to get and to delete, is given up after this time. With the check's timeout above
    /// four times as much none of them is cut off. Default `"2s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub answer_timeout: Duration,
    /// What is fine and takes longer in all is `Warn`. Default: never.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    pub warn_slower_than: Option<Duration>,
}

impl Default for S3CheckConfig {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            prefix: "groundtackle-health-check/".into(),
            endpoint: None,
            region: None,
            path_style: false,
            credentials: None,
            profile: None,
            tls: Tls::default(),
            tls_authorities: None,
            answer_timeout: Duration::from_secs(2),
            warn_slower_than: None,
        }
    }
}

fn bucket<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let bucket = String::deserialize(deserializer)?;
    let problem = bucket_problem(&bucket).map_or(Ok(()), Err);
    problem.map_err(D::Error::custom)?;
    Ok(bucket)
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let prefix = String::deserialize(deserializer)?;
    let problem = prefix_problem(&prefix).map_or(Ok(()), Err);
    problem.map_err(D::Error::custom)?;
    Ok(prefix)
}

fn bucket_problem(bucket: &str) -> Option<&'static str> {
    bucket
        .is_empty()
        .then_some("no bucket is named; set bucket")
}

fn prefix_problem(prefix: &str) -> Option<&'static str> {
    (prefix.len() > 512).then_some("prefix must have at most 512 bytes")
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

impl S3CheckConfig {
    /// The defaults, with a bucket.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            ..Self::default()
        }
    }

    setters! {
        with_bucket bucket: String,
        with_prefix prefix: String,
        with_endpoint endpoint: Option<String>,
        with_region region: Option<String>,
        with_path_style path_style: bool,
        with_credentials credentials: Option<S3Credentials>,
        with_profile profile: Option<String>,
        with_tls tls: Tls,
        with_tls_authorities tls_authorities: Option<PathBuf>,
        with_answer_timeout answer_timeout: Duration,
        with_warn_slower_than warn_slower_than: Option<Duration>,
    }

    /// Why nothing can be done with it.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let plain = |endpoint: &String| endpoint.starts_with("http://");
        if self.tls == Tls::Verify && self.endpoint.as_ref().is_some_and(plain) {
            return Some(
                "the endpoint is http://, which anybody on the way can read; use https://, or set tls to off",
            );
        }
        bucket_problem(&self.bucket).or_else(|| prefix_problem(&self.prefix))
    }
}
