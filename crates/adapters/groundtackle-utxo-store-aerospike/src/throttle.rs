//! How much is under way at a time.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Requests that have to go well before one more is let through at a time.
const GOOD: usize = 32;

/// Lets through so many requests at a time; half as many after an overload, and then slowly more.
#[derive(Debug)]
pub(crate) struct Throttle {
    permits: Semaphore,
    most: usize,
    now: AtomicUsize,
    good: AtomicUsize,
}

impl Throttle {
    pub(crate) fn new(most: usize) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            permits: Semaphore::new(most),
            most,
            now: AtomicUsize::new(most),
            good: AtomicUsize::new(0),
        }
    }

    /// `None` never comes: nobody closes it.
    pub(crate) async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        self.permits.acquire().await.ok()
    }

    pub(crate) fn went_well(&self) {
        if self.now.load(Ordering::Relaxed) == self.most
            || !(self.good.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(GOOD)
        {
            return;
        }
        let more = self
            .now
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                (now < self.most).then_some(now + 1)
            });
        if more.is_ok() {
            self.permits.add_permits(1);
        }
    }

    pub(crate) fn ease_off(&self) {
        // Only permits that are free can be taken, and one is always left.
        let free = self.permits.available_permits();
        let wanted = (self.now.load(Ordering::Relaxed) / 2).min(free);
        let taken = self.permits.forget_permits(wanted);
        self.now.fetch_sub(taken, Ordering::Relaxed);
        tracing::debug!(taken, "a node is overloaded, sends less at a time");
    }

    /// Requests that may be under way now.
    pub(crate) fn limit(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) const fn most(&self) -> usize {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_eases_off_and_comes_back() {
        let throttle = Throttle::new(8);
        throttle.ease_off();
        assert_eq!(throttle.limit(), 4);
        for _ in 0..10 {
            throttle.ease_off();
        }
        assert_eq!(throttle.limit(), 1);
        for _ in 0..GOOD * 20 {
            throttle.went_well();
        }
        assert_eq!(throttle.limit(), 8);
        assert_eq!(throttle.permits.available_permits(), 8);
    }
}
