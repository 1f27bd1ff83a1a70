use std::{
    fmt,
    time::{Duration, Instant},
};

use backoff::{ExponentialBackoff, backoff::Backoff};
use serde::{Deserialize, Serialize};

/// How long an error lives, and whether the failed call may have been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retryability {
    /// The same call fails again; nothing was applied.
    Permanent,
    /// Nothing was applied, and the same call may succeed later.
    Transient,
    /// The call may have been applied. Read back, or repeat it only if it is idempotent.
    Indeterminate,
}

impl Retryability {
    /// What a call that failed like this says after `earlier` attempts at it have failed too.
    ///
    /// It stays `Indeterminate` if any attempt was: a later refusal does not undo an earlier write.
    #[must_use]
    pub const fn after(self, earlier: Self) -> Self {
        match earlier {
            Self::Indeterminate => Self::Indeterminate,
            Self::Permanent | Self::Transient => self,
        }
    }

    /// Whether the failed call may be sent again: always if nothing was applied and it may succeed,
    /// never if it can't, and only an idempotent call if it may have been applied.
    #[must_use]
    pub const fn allows_retry(self, idempotent: bool) -> bool {
        match self {
            Self::Permanent => false,
            Self::Transient => true,
            Self::Indeterminate => idempotent,
        }
    }
}

impl fmt::Display for Retryability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Indeterminate => "indeterminate",
        })
    }
}

/// When to try again, and when to give up.
///
/// Delays double from `initial_delay` up to `max_delay`, each with a random part (from half to one and a
/// half times its value, never over `max_delay`), so that callers that failed together do not come back
/// together. Durations read and print as text, such as `"250ms"` or `"1m 30s"`.
///
/// ```
/// use std::time::Duration;
///
/// use groundtackle_core::RetryConfig;
///
/// let config: RetryConfig = serde_json::from_str(r#"{ "max_attempts": 3, "initial_delay": "250ms" }"#)?;
/// assert_eq!(config.initial_delay, Duration::from_millis(250));
/// assert_eq!(config.max_delay, RetryConfig::default().max_delay);
/// config.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetryConfig {
    /// How often a call is tried at most, the first time included. At least 1, which means no retry.
    /// Default: 5.
    pub max_attempts: u32,
    /// About how long to wait before the second attempt. Above zero. Default: `"50ms"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub initial_delay: Duration,
    /// The longest wait between two attempts. At least `initial_delay`. Default: `"2s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub max_delay: Duration,
    /// How long after the first attempt's start the last one may start. Default: `"10s"`.
    ///
    /// It does not cut an attempt short: the attempt's own timeout does that.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub max_elapsed: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            initial_delay: Duration::from_millis(50),
            max_delay: Duration::from_secs(2),
            max_elapsed: Duration::from_secs(10),
        }
    }
}

impl RetryConfig {
    /// Sets [`max_attempts`](Self::max_attempts).
    #[must_use]
    pub const fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets [`initial_delay`](Self::initial_delay).
    #[must_use]
    pub const fn with_initial_delay(mut self, delay: Duration) -> Self {
        self.initial_delay = delay;
        self
    }

    /// Sets [`max_delay`](Self::max_delay).
    #[must_use]
    pub const fn with_max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Sets [`max_elapsed`](Self::max_elapsed).
    #[must_use]
    pub const fn with_max_elapsed(mut self, elapsed: Duration) -> Self {
        self.max_elapsed = elapsed;
        self
    }

    /// Checks that the values make sense together.
    ///
    /// # Errors
    ///
    /// The first value that does not, and what it must be.
    pub fn validate(&self) -> Result<(), InvalidRetryConfig> {
        if self.max_attempts == 0 {
            return Err(InvalidRetryConfig::NoAttempt);
        }
        if self.initial_delay.is_zero() {
            return Err(InvalidRetryConfig::NoDelay);
        }
        if self.initial_delay > self.max_delay {
            return Err(InvalidRetryConfig::DelaysCrossed {
                initial_delay: self.initial_delay,
                max_delay: self.max_delay,
            });
        }
        Ok(())
    }

    /// The schedule for one call, whose first attempt starts now.
    pub fn schedule(&self) -> RetrySchedule {
        RetrySchedule::new(self)
    }
}

/// A [`RetryConfig`] whose values do not make sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRetryConfig {
    /// `max_attempts` is 0.
    #[error("max_attempts must be at least 1 (1 means no retry)")]
    NoAttempt,
    /// `initial_delay` is zero, which would retry in a hot loop.
    #[error("initial_delay must be above zero (for no retry set max_attempts to 1)")]
    NoDelay,
    /// `initial_delay` is longer than `max_delay`.
    #[error("initial_delay ({initial_delay:?}) must not be longer than max_delay ({max_delay:?})")]
    DelaysCrossed {
        /// The value of `initial_delay`.
        initial_delay: Duration,
        /// The value of `max_delay`.
        max_delay: Duration,
    },
}

/// The delays between the attempts of one call. It ends; it never waits itself.
///
/// It is total: a config that [`validate`](RetryConfig::validate) refuses still ends within its
/// `max_attempts` and `max_elapsed`.
#[derive(Clone, Debug)]
pub struct RetrySchedule {
    started: Instant,
    backoff: ExponentialBackoff,
    remaining: u32,
    waited: Duration,
    max_delay: Duration,
    max_elapsed: Duration,
}

impl RetrySchedule {
    /// The schedule for one call, whose first attempt starts now.
    pub fn new(config: &RetryConfig) -> Self {
        Self {
            started: Instant::now(),
            backoff: ExponentialBackoff {
                current_interval: config.initial_delay,
                initial_interval: config.initial_delay,
                max_interval: config.max_delay,
                randomization_factor: 0.5,
                multiplier: 2.0,
                // Counted here, where no large value overflows and no clock has to be faked for a test.
                max_elapsed_time: None,
                ..ExponentialBackoff::default()
            },
            remaining: config.max_attempts.saturating_sub(1),
            waited: Duration::ZERO,
            max_delay: config.max_delay,
            max_elapsed: config.max_elapsed,
        }
    }

    /// How long to wait before the next attempt, or `None` to give up.
    pub fn next_delay(&mut self) -> Option<Duration> {
        self.next_delay_at(self.started.elapsed())
    }

    /// As [`next_delay`](Self::next_delay), for a caller with a clock of its own: `elapsed` is the time since
    /// the first attempt started. The delays handed out so far count even if that clock stood still.
    pub fn next_delay_at(&mut self, elapsed: Duration) -> Option<Duration> {
        self.remaining = self.remaining.checked_sub(1)?;
        let delay = self.backoff.next_backoff()?.min(self.max_delay);
        let next_start = elapsed.max(self.waited).checked_add(delay);
        if next_start.is_none_or(|next_start| next_start > self.max_elapsed) {
            self.remaining = 0;
            return None;
        }
        self.waited = self.waited.saturating_add(delay);
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0..10_000_000u64).prop_map(Duration::from_micros),
            any::<u64>().prop_map(Duration::from_nanos),
            Just(Duration::MAX),
        ]
    }

    fn any_config() -> impl Strategy<Value = RetryConfig> {
        (0..40u32, any_duration(), any_duration(), any_duration()).prop_map(
            |(max_attempts, initial_delay, max_delay, max_elapsed)| RetryConfig {
                max_attempts,
                initial_delay,
                max_delay,
                max_elapsed,
            },
        )
    }

    /// Delays until the schedule gives up, with attempts that take no time.
    fn delays(config: &RetryConfig) -> Vec<Duration> {
        let mut schedule = config.schedule();
        std::iter::from_fn(|| schedule.next_delay_at(Duration::ZERO)).collect()
    }

    proptest! {
        #[test]
        fn any_config_gives_a_bounded_schedule(config in any_config()) {
            let delays = delays(&config);
            prop_assert!(delays.len() <= config.max_attempts.saturating_sub(1) as usize);
            prop_assert!(delays.iter().all(|delay| *delay <= config.max_delay));
            let total = delays.iter().try_fold(Duration::ZERO, |sum, delay| sum.checked_add(*delay));
            prop_assert!(total.is_some_and(|total| total <= config.max_elapsed));
        }

        #[test]
        fn delays_double_with_jitter(initial in 1..1000u64, max in 1..100_000u64, attempts in 1..20u32) {
            let (initial, max) = (Duration::from_millis(initial), Duration::from_millis(initial.max(max)));
            let config = RetryConfig::default()
                .with_max_attempts(attempts)
                .with_initial_delay(initial)
                .with_max_delay(max)
                .with_max_elapsed(Duration::MAX);
            prop_assert_eq!(config.validate(), Ok(()));
            let delays = delays(&config);
            prop_assert_eq!(delays.len(), attempts as usize - 1, "nothing but the attempts bounds it");
            for (n, delay) in delays.into_iter().enumerate() {
                let middle = initial.saturating_mul(1 << n).min(max);
                // A nanosecond of slack: the schedule counts in floating point.
                let slack = Duration::from_nanos(1);
                prop_assert!(delay + slack >= middle / 2, "{:?} is below half of {:?}", delay, middle);
                prop_assert!(delay <= (middle * 3 / 2 + slack).min(max), "{:?} is over {:?}", delay, middle);
            }
        }

        #[test]
        fn the_time_that_attempts_take_counts(
            config in any_config(),
            took in prop::collection::vec(any_duration(), 40),
        ) {
            let mut schedule = config.schedule();
            let mut now = Duration::ZERO;
            for took in took {
                now = now.saturating_add(took);
                let Some(delay) = schedule.next_delay_at(now) else { break };
                now += delay;
                prop_assert!(now <= config.max_elapsed);
            }
        }

        #[test]
        fn a_schedule_that_gave_up_stays_so(config in any_config()) {
            let mut schedule = config.schedule();
            while schedule.next_delay_at(Duration::ZERO).is_some() {}
            prop_assert_eq!(schedule.next_delay_at(Duration::ZERO), None);
        }
    }

    #[test]
    fn a_time_beyond_measure_ends_it_too() {
        let config = RetryConfig {
            max_attempts: 36,
            initial_delay: Duration::from_secs(17_551_959_989),
            max_delay: Duration::MAX,
            max_elapsed: Duration::MAX,
        };
        let mut schedule = config.schedule();
        while schedule.next_delay_at(Duration::MAX).is_some() {}
        assert_eq!(schedule.next_delay_at(Duration::ZERO), None);
    }

    #[test]
    fn the_clock_is_read_when_none_is_given() {
        let mut schedule = RetryConfig::default().schedule();
        schedule.started -= Duration::from_secs(11);
        assert_eq!(schedule.next_delay(), None, "max_elapsed is over");
        assert!(RetryConfig::default().schedule().next_delay().is_some());
    }

    #[test]
    fn two_callers_do_not_come_back_together() {
        let config = RetryConfig::default()
            .with_max_attempts(20)
            .with_max_elapsed(Duration::MAX);
        assert_ne!(delays(&config), delays(&config));
    }

    #[test]
    fn a_config_that_makes_no_sense_says_why() {
        let config = RetryConfig::default;
        assert_eq!(config().validate(), Ok(()));
        assert_eq!(
            config().with_max_attempts(0).validate(),
            Err(InvalidRetryConfig::NoAttempt)
        );
        assert_eq!(
            config().with_initial_delay(Duration::ZERO).validate(),
            Err(InvalidRetryConfig::NoDelay)
        );
        let crossed = config()
            .with_max_delay(Duration::from_millis(1))
            .validate()
            .unwrap_err();
        assert_eq!(
            crossed.to_string(),
            "initial_delay (50ms) must not be longer than max_delay (1ms)"
        );
    }

    #[test]
    fn a_config_reads_and_prints_as_text() {
        let json = serde_json::to_value(RetryConfig::default()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({ "max_attempts": 5, "initial_delay": "50ms", "max_delay": "2s", "max_elapsed": "10s" }),
        );
        assert_eq!(
            serde_json::from_value::<RetryConfig>(json).unwrap(),
            RetryConfig::default()
        );
        assert_eq!(
            serde_json::from_str::<RetryConfig>("{}").unwrap(),
            RetryConfig::default()
        );
        for wrong in [
            r#"{"max_delay":2}"#,
            r#"{"max_delay":"-2s"}"#,
            r#"{"delay":"2s"}"#,
            r#"{"max_delay":"1 month"}"#,
        ] {
            assert!(
                serde_json::from_str::<RetryConfig>(wrong).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_doubtful_attempt_stays_doubtful() {
        use Retryability::{Indeterminate, Permanent, Transient};
        for last in [Permanent, Transient, Indeterminate] {
            assert_eq!(last.after(Permanent), last);
            assert_eq!(last.after(Transient), last);
            assert_eq!(last.after(Indeterminate), Indeterminate);
        }
    }

    #[test]
    fn only_what_is_safe_is_retried() {
        use Retryability::{Indeterminate, Permanent, Transient};
        for (idempotent, retried) in [(false, [false, true, false]), (true, [false, true, true])] {
            assert_eq!(
                [Permanent, Transient, Indeterminate].map(|r| r.allows_retry(idempotent)),
                retried
            );
        }
    }

    #[test]
    fn a_retryability_prints_as_it_serializes() {
        for r in [
            Retryability::Permanent,
            Retryability::Transient,
            Retryability::Indeterminate,
        ] {
            assert_eq!(serde_json::to_value(r).unwrap(), r.to_string());
        }
    }
}
