use std::path::PathBuf;
use std::time::Duration;

use groundtackle_backup::{Error, Result};
use groundtackle_core::{ByteSize, RetryConfig, Secret};
use serde::Deserialize;

/// How connections are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Tls {
    /// TLS with a certificate of a known authority that names the host; an endpoint `http://` is refused.
    #[default]
    Verify,
    /// No TLS: for a server on this machine or a network that nobody else listens to.
    Off,
}

/// A key for the server, by itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct StaticCredentials {
    /// The access key's identifier.
    pub access_key_id: Secret,
    /// The access key.
    pub secret_access_key: Secret,
    /// The token that comes with temporary keys.
    #[serde(default)]
    pub session_token: Option<Secret>,
}

impl StaticCredentials {
    /// A key that is not temporary.
    pub fn new(access_key_id: impl Into<Secret>, secret_access_key: impl Into<Secret>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: secret_access_key.into(),
            session_token: None,
        }
    }
}

/// A role to take on with the credentials.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct AssumeRole {
    /// The role: `arn:aws:iam::…:role/…`.
    pub arn: String,
    /// What the role's owner agreed on with us.
    #[serde(default)]
    pub external_id: Option<Secret>,
    /// How the session is named in the owner's logs. Default `groundtackle`.
    #[serde(default = "session_name")]
    pub session_name: String,
}

fn session_name() -> String {
    "groundtackle".into()
}

impl AssumeRole {
    /// A role without an external identifier.
    pub fn new(arn: impl Into<String>) -> Self {
        Self {
            arn: arn.into(),
            external_id: None,
            session_name: session_name(),
        }
    }
}

/// How the server encrypts what it keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Encryption {
    /// As the bucket says.
    #[default]
    Bucket,
    /// With the server's own keys (SSE-S3, `AES256`).
    Aes256,
    /// With a key of the key management service (SSE-KMS, `aws:kms`): `kms_key`, or the account's own.
    Kms,
}

/// How objects are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Retention {
    /// Whoever has the right `s3:BypassGovernanceRetention` can unlock.
    Governance,
    /// Nobody can unlock, the account's owner included.
    Compliance,
}

/// What the server checks each part by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Checksum {
    /// CRC32C.
    #[default]
    Crc32c,
    /// SHA-256: several times the work.
    Sha256,
    /// The signature's hash of the body alone, for servers that know no checksums.
    Signature,
}

/// How a bucket is opened as a target.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct S3TargetConfig {
    /// The bucket, which must exist. No default.
    pub bucket: String,
    /// What all keys begin with, such as `backups/main/`: empty or with `/` at its end. Default none.
    pub prefix: String,
    /// The server: `https://host:port`. Default: that of AWS for the region.
    pub endpoint: Option<String>,
    /// The region. Default: the one that the environment or the profile says, `us-east-1` with an endpoint.
    pub region: Option<String>,
    /// The bucket in the path instead of the host's name, as most servers but AWS want it. Default false.
    pub path_style: bool,
    /// A key. Default: what the chain of credentials finds: environment, profile, web identity, container, instance.
    pub credentials: Option<StaticCredentials>,
    /// The profile that the chain reads. Default: `AWS_PROFILE`, or `default`.
    pub profile: Option<String>,
    /// A role to take on with these credentials. Default none.
    pub assume_role: Option<AssumeRole>,
    /// TLS. Default `verify`.
    pub tls: Tls,
    /// A PEM file with certificates of authorities that may vouch for the server, instead of the system's. Default none.
    pub tls_authorities: Option<PathBuf>,
    /// Encryption by the server. Default `bucket`.
    pub encryption: Encryption,
    /// The key for `kms`. Default: the account's own.
    pub kms_key: Option<String>,
    /// The storage class, such as `STANDARD_IA`. Default: the server's.
    pub storage_class: Option<String>,
    /// Lock objects this way where a lock is asked for; the bucket must have object lock. Default: no locks.
    pub object_lock: Option<Retention>,
    /// What the server checks each part by. Default `crc32c`.
    pub checksum: Checksum,
    /// The size of a part: at least 5 MiB; an object has at most 10,000. Default 8 MiB.
    pub part_size: ByteSize,
    /// Parts that are under way at once, of all uploads together, 1 to 64. Beside these an upload holds one in memory.
    /// Default 4.
    pub parts_in_flight: usize,
    /// Wait so long for the server to take a connection. Default `"5s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub connect_timeout: Duration,
    /// A request, with the part or range that it carries, is given up after this time. Default `"2m"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub answer_timeout: Duration,
    /// Repetition of what failed and may be repeated. Default: 8 attempts in 2 minutes.
    pub retry: RetryConfig,
}

impl Default for S3TargetConfig {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            path_style: false,
            credentials: None,
            profile: None,
            assume_role: None,
            tls: Tls::default(),
            tls_authorities: None,
            encryption: Encryption::default(),
            kms_key: None,
            storage_class: None,
            object_lock: None,
            checksum: Checksum::default(),
            part_size: ByteSize::mib(8),
            parts_in_flight: 4,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(120),
            retry: RetryConfig::default()
                .with_max_attempts(8)
                .with_initial_delay(Duration::from_millis(100))
                .with_max_delay(Duration::from_secs(10))
                .with_max_elapsed(Duration::from_secs(120)),
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

/// Parts of one object at most, everywhere.
pub(crate) const MAX_PARTS: u64 = 10_000;

impl S3TargetConfig {
    /// The defaults, with a bucket.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            ..Self::default()
        }
    }

    setters! {
        with_prefix prefix: String,
        with_endpoint endpoint: Option<String>,
        with_region region: Option<String>,
        with_path_style path_style: bool,
        with_credentials credentials: Option<StaticCredentials>,
        with_profile profile: Option<String>,
        with_assume_role assume_role: Option<AssumeRole>,
        with_tls tls: Tls,
        with_tls_authorities tls_authorities: Option<PathBuf>,
        with_encryption encryption: Encryption,
        with_kms_key kms_key: Option<String>,
        with_storage_class storage_class: Option<String>,
        with_object_lock object_lock: Option<Retention>,
        with_checksum checksum: Checksum,
        with_part_size part_size: ByteSize,
        with_parts_in_flight parts_in_flight: usize,
        with_connect_timeout connect_timeout: Duration,
        with_answer_timeout answer_timeout: Duration,
        with_retry retry: RetryConfig,
    }

    pub(crate) fn part_bytes(&self) -> usize {
        usize::try_from(self.part_size.bytes()).unwrap_or(usize::MAX)
    }

    /// Whether the values make sense together.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::invalid_request(format!("s3: {what}")));
        if self.bucket.is_empty() {
            return wrong("no bucket is named; set bucket");
        }
        if !self.prefix.is_empty() && (!self.prefix.ends_with('/') || self.prefix.starts_with('/'))
        {
            return wrong("prefix must have / at its end and not at its beginning");
        }
        if self.prefix.len() > 512 {
            return wrong("prefix must have at most 512 bytes");
        }
        let plain = |endpoint: &String| endpoint.starts_with("http://");
        if self.tls == Tls::Verify && self.endpoint.as_ref().is_some_and(plain) {
            return wrong(
                "the endpoint is http://, which anybody on the way can read; use https://, or set tls to off",
            );
        }
        if self.part_size < ByteSize::mib(5) || self.part_size > ByteSize::mib(5 * 1024) {
            return wrong("part_size must be 5MiB to 5GiB");
        }
        if !(1..=64).contains(&self.parts_in_flight) {
            return wrong("parts_in_flight must be 1 to 64");
        }
        if self.answer_timeout.is_zero() || self.connect_timeout.is_zero() {
            return wrong("timeouts must be above zero");
        }
        if self.kms_key.is_some() && self.encryption != Encryption::Kms {
            return wrong("kms_key needs encryption to be kms");
        }
        if let Err(error) = self.retry.validate() {
            return wrong(&format!("retry: {error}"));
        }
        Ok(())
    }
}
