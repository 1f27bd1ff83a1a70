//! One result is no news.

use crate::outcome::Observation;

/// What is said of a check, from its results: it comes up after some successes on end, and goes down after some
/// others on end.
#[derive(Clone, Debug)]
pub(crate) struct Hysteresis {
    failures_to_down: u32,
    successes_to_up: u32,
    failures: u32,
    successes: u32,
    /// The observation that what is said was taken from; `None`: not enough were seen.
    settled: Option<Observation>,
}

impl Hysteresis {
    pub(crate) const fn new(failures_to_down: u32, successes_to_up: u32) -> Self {
        Self {
            failures_to_down,
            successes_to_up,
            failures: 0,
            successes: 0,
            settled: None,
        }
    }

    pub(crate) fn observe(&mut self, observation: &Observation) {
        let is_up = |of: &Option<Observation>| of.as_ref().is_some_and(|o| o.outcome.is_up());
        let enough = if observation.outcome.is_up() {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            is_up(&self.settled) || self.successes >= self.successes_to_up
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            self.failures >= self.failures_to_down
        };
        if enough {
            self.settled = Some(observation.clone());
        }
    }

    /// As if nothing had been seen.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.failures_to_down, self.successes_to_up);
    }

    pub(crate) const fn settled(&self) -> Option<&Observation> {
        self.settled.as_ref()
    }
}
