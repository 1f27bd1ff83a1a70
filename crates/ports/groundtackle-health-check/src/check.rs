//! Checks, by their kinds.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Moment, millis};
use crate::error::{Error, Result};
use crate::outcome::{Cause, Name, Observation, Outcome};

/// Looks at one thing that a service needs.
///
/// A check answers with an [`Observation`] in all cases: that a server does not answer is what it found, not an error of
/// its own. What it can't see from where it is (a method that a node does not offer) is `Unknown`.
#[async_trait]
pub trait Check: Debug + Send + Sync + 'static {
    /// Looks once.
    ///
    /// **Atomicity**: reads only, or cleans up after itself. **Idempotency**: called over and over. One run ends before
    /// the next one begins. **Cancel safety**: dropped at its timeout, at any await; what it holds (connections, files) must go
    /// with it, and nothing is left behind. It must not block its thread: such a run can't be ended, and is reported as
    /// `Fail` with [`Cause::STILL_RUNNING`] until it does.
    ///
    /// # Panics
    /// A panic is contained and read as `Unknown` with [`Cause::PANICKED`].
    async fn check(&self) -> Observation;
}

/// What a result is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Whether the process must be restarted. It comes from a [`Heartbeat`] only.
    Liveness,
    /// Whether the service can do its work now.
    Readiness,
    /// Whether the service has started. Once up, it stays so, and is not looked at again.
    Startup,
}

impl Kind {
    /// As it is written: `liveness`, `readiness` or `startup`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
            Self::Startup => "startup",
        }
    }
}

/// A sign of life: the loop that does the process's own work beats, and whoever asks sees how long ago. It is all that
/// liveness can be made of. There is no code in it that could wait for a database, so that a dead database never restarts a
/// healthy process.
///
/// ```
/// # use groundtackle_health_check::{Health, Heartbeat, Name, SystemClock};
/// let heartbeat = Heartbeat::new(std::sync::Arc::new(SystemClock), std::time::Duration::from_secs(60));
/// Health::builder().liveness(Name::try_from("main loop")?, heartbeat);
/// # Ok::<(), groundtackle_health_check::Error>(())
/// ```
///
/// A check can look at anything, so it can't be liveness:
///
/// ```compile_fail,E0308
/// # use groundtackle_health_check::{Check, Health, Name, Observation};
/// # #[derive(Debug)] struct Database;
/// # #[async_trait::async_trait]
/// # impl Check for Database { async fn check(&self) -> Observation { Observation::pass() } }
/// Health::builder().liveness(Name::try_from("database")?, Database);
/// # Ok::<(), groundtackle_health_check::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Beats>);

#[derive(Debug)]
struct Beats {
    clock: Arc<dyn Clock>,
    silence_millis: u64,
    unix_millis: AtomicU64,
    monotonic_millis: AtomicU64,
}

impl Heartbeat {
    /// Begins to beat. From `longest_silence` without a beat on, the process counts as dead: take some times what the
    /// longest round of the loop takes.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, longest_silence: Duration) -> Self {
        let beats = Beats {
            clock,
            silence_millis: millis(longest_silence).max(1),
            unix_millis: AtomicU64::new(0),
            monotonic_millis: AtomicU64::new(0),
        };
        let heartbeat = Self(Arc::new(beats));
        heartbeat.beat();
        heartbeat
    }

    /// Says that the process is alive. Costs nanoseconds.
    pub fn beat(&self) {
        let now = self.0.clock.now();
        self.0.unix_millis.store(now.unix_millis, Ordering::Relaxed);
        self.0
            .monotonic_millis
            .store(now.monotonic_millis, Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Moment {
        Moment {
            unix_millis: self.0.unix_millis.load(Ordering::Relaxed),
            monotonic_millis: self.0.monotonic_millis.load(Ordering::Relaxed),
        }
    }

    /// How it is, and for how many milliseconds that stays so without a beat. By the monotonic clock alone: a process is
    /// not dead because the machine's clock was set.
    pub(crate) fn read(&self, now: Moment) -> (Observation, u64) {
        let silent = now
            .monotonic_millis
            .saturating_sub(self.last().monotonic_millis);
        match self.0.silence_millis.checked_sub(silent) {
            Some(left @ 1..) => (Observation::pass(), left),
            _ => (Observation::new(Outcome::Fail, Cause::SILENT), 0),
        }
    }
}

/// When a check runs, and what its results are worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Schedule {
    /// From the beginning of one run to the beginning of the next. From 10 ms to a day. Default `"10s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub period: Duration,
    /// How much earlier or later a run may begin, as a part of the period, so that checks that were started together do
    /// not stay together. From 0 to 0.5. Default 0.1.
    pub jitter: f64,
    /// When a run is cut off. Above zero, at most the period. Default `"2s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub timeout: Duration,
    /// For how long a result holds; then it reads `Unknown`. At least the period with its jitter and the timeout. Default: three
    /// periods and the timeout.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    pub valid_for: Option<Duration>,
    /// How many results on end that are not up (`Fail`, `Unknown`) take it down. At least 1. Default 3.
    pub failures_to_down: u32,
    /// How many results on end that are up (`Pass`, `Warn`) bring it up. At least 1. Default 2.
    pub successes_to_up: u32,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(10),
            jitter: 0.1,
            timeout: Duration::from_secs(2),
            valid_for: None,
            failures_to_down: 3,
            successes_to_up: 2,
        }
    }
}

/// A check beside what it checks with. In a config each is a key.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// When it runs, and what its results are worth.
    pub schedule: Schedule,
    /// What it needs, by name: if one of these fails, this reads `Unknown` with that cause, and is no news.
    pub depends_on: Vec<Name>,
    /// The named subsets that it is part of.
    pub subsets: Vec<Name>,
    /// Whether the service can't work without it. If not, all it can do is to make the whole `Warn`. Default true.
    pub required: bool,
    /// Whether strangers may see its name and outcome. Default false.
    pub public: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            schedule: Schedule::default(),
            depends_on: Vec::new(),
            subsets: Vec::new(),
            required: true,
            public: false,
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

impl Settings {
    setters! {
        with_schedule schedule: Schedule,
        with_depends_on depends_on: Vec<Name>,
        with_subsets subsets: Vec<Name>,
        with_required required: bool,
        with_public public: bool,
    }
}

impl Schedule {
    setters! {
        with_period period: Duration,
        with_jitter jitter: f64,
        with_timeout timeout: Duration,
        with_valid_for valid_for: Option<Duration>,
        with_failures_to_down failures_to_down: u32,
        with_successes_to_up successes_to_up: u32,
    }

    /// For how many milliseconds a result holds.
    pub(crate) fn valid_millis(&self) -> u64 {
        let period = millis(self.period);
        let by_default = period
            .saturating_mul(3)
            .saturating_add(millis(self.timeout));
        self.valid_for.map_or(by_default, millis)
    }

    pub(crate) fn validate(&self, of: &str) -> Result<()> {
        let invalid = |key, problem: String| Err(Error::invalid(of, key, problem));
        let day = Duration::from_secs(86_400);
        if self.period < Duration::from_millis(10) || self.period > day {
            return invalid(
                "period",
                format!("is {:?}, and must be from 10ms to 24h", self.period),
            );
        }
        if self.timeout < Duration::from_millis(1) {
            return invalid(
                "timeout",
                format!("is {:?}, and must be at least 1ms", self.timeout),
            );
        }
        if self.period < self.timeout {
            return invalid(
                "period",
                format!(
                    "({:?}) is below the timeout ({:?}); make the period longer or the timeout shorter",
                    self.period, self.timeout
                ),
            );
        }
        if !(0.0..=0.5).contains(&self.jitter) {
            return invalid(
                "jitter",
                format!("is {}, and must be from 0 to 0.5", self.jitter),
            );
        }
        let least = self
            .period
            .mul_f64(1.0 + self.jitter)
            .saturating_add(self.timeout);
        if self.valid_for.is_some_and(|valid| valid < least) {
            return invalid(
                "valid_for",
                format!(
                    "is below {least:?}, so that each result would be too old before the next one comes; leave it out or make it longer"
                ),
            );
        }
        for (key, count) in [
            ("failures_to_down", self.failures_to_down),
            ("successes_to_up", self.successes_to_up),
        ] {
            if count == 0 {
                return invalid(key, "is 0, and must be at least 1".into());
            }
        }
        Ok(())
    }
}
