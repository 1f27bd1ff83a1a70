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
    /// Permits that go when they come back.
    debt: AtomicUsize,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    throttle: &'a Throttle,
    /// `None` never is: nobody closes it.
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.throttle.pay()
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

impl Throttle {
    pub(crate) fn new(most: usize) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            permits: Semaphore::new(most),
            most,
            now: AtomicUsize::new(most),
            good: AtomicUsize::new(0),
            debt: AtomicUsize::new(0),
        }
    }

    pub(crate) async fn enter(&self) -> Turn<'_> {
        Turn {
            throttle: self,
            permit: self.permits.acquire().await.ok(),
        }
    }

    /// Whether a permit was owed, and is paid now.
    fn pay(&self) -> bool {
        let less = |debt: usize| debt.checked_sub(1);
        self.debt
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
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
        if more.is_ok() && !self.pay() {
            self.permits.add_permits(1);
        }
    }

    pub(crate) fn ease_off(&self) {
        // Those that were under way at the last one say nothing new.
        if self.debt.load(Ordering::Relaxed) > 0 {
            return;
        }
        let half = |now: usize| Some(now - now / 2);
        let before = self
            .now
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
        let less = before.map_or(0, |before| before / 2);
        // What is not free now goes when it comes back.
        let taken = self.permits.forget_permits(less);
        self.debt
            .fetch_add(less.saturating_sub(taken), Ordering::Relaxed);
        tracing::debug!(less, "a node is overloaded, sends less at a time");
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

    #[tokio::test]
    async fn it_eases_off_while_all_are_under_way() {
        let throttle = Throttle::new(8);
        let mut under_way = Vec::new();
        for _ in 0..8 {
            under_way.push(throttle.enter().await);
        }
        throttle.ease_off();
        throttle.ease_off();
        assert_eq!(throttle.limit(), 4);
        under_way.clear();
        assert_eq!(throttle.permits.available_permits(), 4);
        for _ in 0..GOOD * 20 {
            throttle.went_well();
        }
        assert_eq!(throttle.permits.available_permits(), 8);
    }

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
