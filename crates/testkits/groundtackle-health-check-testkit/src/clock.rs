use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use groundtackle_health_check::{Clock, Moment};

/// A clock that goes as a test says, wrongly too. Clones are the same clock. It begins in 2026.
#[derive(Clone, Debug)]
pub struct FaultClock(Arc<Mutex<Moment>>);

impl Default for FaultClock {
    fn default() -> Self {
        Self::at(1_767_225_600_000)
    }
}

impl FaultClock {
    /// A clock that shows this many milliseconds since 1970.
    #[must_use]
    pub fn at(unix_millis: u64) -> Self {
        let monotonic_millis = 1_000_000;
        Self(Arc::new(Mutex::new(Moment {
            unix_millis,
            monotonic_millis,
        })))
    }

    fn change(&self, change: impl FnOnce(&mut Moment)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Time goes by.
    pub fn advance(&self, by: Duration) {
        let by = by.as_millis() as u64;
        self.change(|now| {
            now.unix_millis += by;
            now.monotonic_millis += by;
        });
    }

    /// The machine is suspended: time goes by, and the monotonic clock stands still.
    pub fn suspend(&self, by: Duration) {
        self.change(|now| now.unix_millis += by.as_millis() as u64);
    }

    /// Somebody sets the wall clock, forwards or back.
    pub fn step_wall(&self, millis: i64) {
        self.change(|now| now.unix_millis = now.unix_millis.saturating_add_signed(millis));
    }
}

impl Clock for FaultClock {
    fn now(&self) -> Moment {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
