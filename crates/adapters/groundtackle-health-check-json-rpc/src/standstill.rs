use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use groundtackle_health_check::{Clock, Moment};

/// For how long something has been the same, as far as this process has seen.
#[derive(Debug)]
pub struct Standstill<T> {
    clock: Arc<dyn Clock>,
    last: Mutex<Option<(T, Moment)>>,
}

impl<T: PartialEq> Standstill<T> {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let last = Mutex::new(None);
        Self { clock, last }
    }

    /// What is seen now. Zero, if it is another than the last time.
    pub fn see(&self, now: T) -> Duration {
        let moment = self.clock.now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((same, since)) if *same == now => {
                Duration::from_millis(moment.millis_since(*since))
            }
            _ => {
                *last = Some((now, moment));
                Duration::ZERO
            }
        }
    }
}
