use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a folder is opened as a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FsTargetConfig {
    /// Create the folder if there is none; otherwise that is an error. Default true.
    pub create: bool,
    /// How long to wait for other processes that give a name or take one, each for a moment; then the target is
    /// overloaded. Default `"30s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub lock_timeout: Duration,
}

impl Default for FsTargetConfig {
    fn default() -> Self {
        Self {
            create: true,
            lock_timeout: Duration::from_secs(30),
        }
    }
}

macro_rules! setters {
    ($($setter:ident $field:ident: $type:ty),+ $(,)?) => {$(
        #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
        #[must_use]
        pub const fn $setter(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )+};
}

impl FsTargetConfig {
    setters! {
        with_create create: bool,
        with_lock_timeout lock_timeout: Duration,
    }
}
