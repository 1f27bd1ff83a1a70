use std::time::Duration;

use serde::Deserialize;

/// Who may ask for what, and how many may watch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GrpcHealthConfig {
    /// Single checks are services also if they are not public: for a listener that strangers can't reach. Default false.
    pub all_checks: bool,
    /// Watches at once, of all clients together; one more is `RESOURCE_EXHAUSTED`. Default 256.
    pub max_watches: usize,
    /// How often a watch reads what is known; a change is told after this time at the latest. At least 10 ms. Default `"250ms"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub watch_period: Duration,
    /// A watch ends after this time with `UNAVAILABLE`, upon which clients begin another, so that those of clients that are gone don't
    /// stay. Default `"1h"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub max_watch_age: Duration,
}

impl Default for GrpcHealthConfig {
    fn default() -> Self {
        Self {
            all_checks: false,
            max_watches: 256,
            watch_period: Duration::from_millis(250),
            max_watch_age: Duration::from_secs(3600),
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

impl GrpcHealthConfig {
    setters! {
        with_all_checks all_checks: bool,
        with_max_watches max_watches: usize,
        with_watch_period watch_period: Duration,
        with_max_watch_age max_watch_age: Duration,
    }
}
