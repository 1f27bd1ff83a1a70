use std::time::Duration;

use groundtackle_backup::{DrillLevel, Hex};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// Which backups are looked at, and what is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct BackupCheckConfig {
    /// What is backed up, as the repository's owner calls it. Default `"utxo"`.
    #[serde(default = "BackupCheckConfig::utxo")]
    pub stream: String,
    /// The public keys, in hexadecimal digits, of those whose restore points and drills count. At least one; no default.
    #[serde(deserialize_with = "some")]
    pub trusted: Vec<Hex<32>>,
    /// A newest restore point that is older is `Warn`. Default: never.
    #[serde(
        default,
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional"
    )]
    pub warn_age: Option<Duration>,
    /// A newest restore point that is older is `Fail`. No default: some hours more than what lies between two backups.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub fail_age: Duration,
    /// A newest restore point that is more blocks behind the tip is `Warn`. Needs a [tip](crate::BackupCheck::with_tip). Default: never.
    #[serde(default)]
    pub warn_lag_blocks: Option<u32>,
    /// The same for `Fail`. Default: never.
    #[serde(default)]
    pub fail_lag_blocks: Option<u32>,
    /// Drills count as proof of a restore from this level on. Default `replay`; trees of files go up to `read`.
    #[serde(default)]
    pub drill_level: DrillLevel,
    /// A last proof that is older is `Warn`, and so is none at all. Default: never.
    #[serde(
        default,
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional"
    )]
    pub warn_drill_age: Option<Duration>,
    /// The same for `Fail`. Default: never.
    #[serde(
        default,
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional"
    )]
    pub fail_drill_age: Option<Duration>,
}

/// What is wrong with it is told with its line.
fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hex<32>>, D::Error> {
    let keys = Vec::<Hex<32>>::deserialize(deserializer)?;
    if keys.is_empty() {
        return Err(D::Error::custom(
            "nobody is trusted: name the public key of each host that writes backups or holds drills",
        ));
    }
    Ok(keys)
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

impl BackupCheckConfig {
    /// The defaults, with those who are trusted and the oldest that a newest restore point may be.
    pub fn new(trusted: impl Into<Vec<Hex<32>>>, fail_age: Duration) -> Self {
        Self {
            stream: Self::utxo(),
            trusted: trusted.into(),
            warn_age: None,
            fail_age,
            warn_lag_blocks: None,
            fail_lag_blocks: None,
            drill_level: DrillLevel::default(),
            warn_drill_age: None,
            fail_drill_age: None,
        }
    }

    fn utxo() -> String {
        "utxo".into()
    }

    setters! {
        with_stream stream: String,
        with_trusted trusted: Vec<Hex<32>>,
        with_warn_age warn_age: Option<Duration>,
        with_fail_age fail_age: Duration,
        with_warn_lag_blocks warn_lag_blocks: Option<u32>,
        with_fail_lag_blocks fail_lag_blocks: Option<u32>,
        with_drill_level drill_level: DrillLevel,
        with_warn_drill_age warn_drill_age: Option<Duration>,
        with_fail_drill_age fail_drill_age: Option<Duration>,
    }
}
