use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a healthy store is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct UtxoStoreCheckConfig {
    /// A tip that is older is `Warn`, by its median time past. Default: never.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    pub warn_tip_age: Option<Duration>,
    /// A tip that is older is `Fail`. Default: never.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    pub fail_tip_age: Option<Duration>,
    /// Whether a store without any block is fine. Default false.
    pub may_be_empty: bool,
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

impl UtxoStoreCheckConfig {
    setters! {
        with_warn_tip_age warn_tip_age: Option<Duration>,
        with_fail_tip_age fail_tip_age: Option<Duration>,
        with_may_be_empty may_be_empty: bool,
    }
}
