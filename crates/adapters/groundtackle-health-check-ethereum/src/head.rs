//! How old a head is.

use std::time::Duration;

use groundtackle_health_check::Clock;

use crate::answers::Head;

/// By this clock; nothing, if it is in the future.
pub(crate) fn age(clock: &dyn Clock, head: &Head) -> Duration {
    let now = Duration::from_millis(clock.now().unix_millis);
    now.saturating_sub(Duration::from_secs(head.timestamp.0))
}

/// How far ahead of this clock it is.
pub(crate) fn ahead(clock: &dyn Clock, head: &Head) -> Duration {
    let now = Duration::from_millis(clock.now().unix_millis);
    Duration::from_secs(head.timestamp.0).saturating_sub(now)
}
