//! Time, from outside.

use std::fmt::Debug;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment by two clocks: the wall's, which can step, and one that only goes forwards, but stands still while a machine
/// is suspended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970, in UTC.
    pub unix_millis: u64,
    /// Milliseconds since some moment, never going back.
    pub monotonic_millis: u64,
}

impl Moment {
    /// Milliseconds that have gone by since `earlier`, by whichever clock counts more of them: after a suspended machine
    /// wakes up, or the wall clock is set forward, what was known is old; set back, it gets no younger.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> u64 {
        let monotonic = self
            .monotonic_millis
            .saturating_sub(earlier.monotonic_millis);
        monotonic.max(self.unix_millis.saturating_sub(earlier.unix_millis))
    }
}

/// What time it is. Tests bring their own.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time, by both clocks.
    fn now(&self) -> Moment;
}

/// The system's clocks. All of a process agree.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Moment {
            unix_millis: millis(since_1970.unwrap_or_default()),
            monotonic_millis: millis(ORIGIN.elapsed()),
        }
    }
}

/// In whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
