//! Runs checks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::check::{Check, Schedule};
use crate::error::Result;
use crate::health::Health;
use crate::outcome::{Cause, Observation, Outcome};

/// As many runs as may be under way at once; further ones wait for their turn, and what waits too long gets too old.
const MAX_AT_ONCE: usize = 64;

/// First runs are spread over this long, or over a period if that is shorter.
const SPREAD: Duration = Duration::from_secs(1);

/// What was cut off and blocks no thread is gone by then.
const ENDS_WITHIN: Duration = Duration::from_millis(100);

const TICK: Duration = Duration::from_secs(1);

const PERSIST: Duration = Duration::from_secs(60);

/// Runs the checks of a [`Health`], each on its own period with jitter, with a hard timeout, one run at a time, and contains their
/// panics. Dropped, it ends them: what is known then gets too old, and reads `Unknown`.
#[derive(Debug)]
pub struct Scheduler {
    health: Health,
    tasks: JoinSet<()>,
}

impl Scheduler {
    /// Starts. Needs a tokio runtime with time; take one with several threads, so that a check that blocks its thread does not stop
    /// all others.
    #[must_use]
    pub fn start(health: &Health) -> Self {
        let mut tasks = JoinSet::new();
        let permits = Arc::new(Semaphore::new(MAX_AT_ONCE));
        for (i, check) in health.pulled() {
            let runner = Runner {
                health: health.clone(),
                index: i,
                check,
                schedule: health.settings(i).schedule,
                permits: permits.clone(),
            };
            tasks.spawn(runner.run());
        }
        tasks.spawn(tick(health.clone()));
        tasks.spawn(persist(health.clone()));
        let health = health.clone();
        Self { health, tasks }
    }

    /// Ends the checks, and writes what the ledger has not stored yet.
    ///
    /// # Errors
    /// Those of the ledger's storage.
    pub async fn stop(mut self) -> Result<()> {
        self.tasks.shutdown().await;
        let health = self.health.clone();
        health.tick();
        match spawn_blocking(move || health.persist(true)).await {
            Ok(stored) => stored,
            // The runtime ends: nobody is left to tell.
            Err(_) => Ok(()),
        }
    }
}

async fn tick(health: Health) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        health.tick();
    }
}

/// Apart from the ticks: a disk that hangs must not stop them.
async fn persist(health: Health) {
    let mut ticks = interval(PERSIST);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let health = health.clone();
        if let Ok(Err(error)) = spawn_blocking(move || health.persist(false)).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the ledger could not be stored; it is tried again"
            );
        }
    }
}

struct Runner {
    health: Health,
    index: usize,
    check: Arc<dyn Check>,
    schedule: Schedule,
    permits: Arc<Semaphore>,
}

/// A run, which ends when it is dropped.
struct Run(JoinHandle<(Duration, Observation)>);

impl Drop for Run {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Runner {
    async fn run(self) {
        let period = self.schedule.period;
        let mut next = Instant::now() + period.min(SPREAD).mul_f64(fastrand::f64());
        let mut cut_off: Option<Run> = None;
        loop {
            sleep_until(next).await;
            if self.health.has_started(self.index) {
                return;
            }
            let jitter = (fastrand::f64() * 2.0 - 1.0) * self.schedule.jitter;
            // What was late does not come twice.
            next = (next + period.mul_f64(1.0 + jitter)).max(Instant::now());
            if let Some(run) = &mut cut_off
                && timeout(ENDS_WITHIN, &mut run.0).await.is_err()
            {
                let still = Observation::new(Outcome::Fail, Cause::STILL_RUNNING);
                self.health.observe(
                    self.index,
                    still.with_detail("a run does not end after its timeout: it blocks its thread"),
                );
                continue;
            }
            cut_off = None;
            let Ok(_permit) = self.permits.acquire().await else {
                return;
            };
            self.health.count_run();
            let check = self.check.clone();
            let mut run = Run(tokio::spawn(async move {
                let begin = std::time::Instant::now();
                let observation = check.check().await;
                (begin.elapsed(), observation)
            }));
            let limit = self.schedule.timeout;
            let timed_out = || {
                let detail = format!("no answer within {limit:?}");
                Observation::new(Outcome::Fail, Cause::TIMEOUT).with_detail(detail)
            };
            let observation = match timeout(limit, &mut run.0).await {
                // Who blocks the thread that watches it is not cut off, and too late all the same.
                Ok(Ok((took, _))) if took > limit => timed_out(),
                Ok(Ok((_, observation))) => observation,
                Ok(Err(error)) if error.is_panic() => {
                    Observation::new(Outcome::Unknown, Cause::PANICKED)
                }
                // The runtime ends.
                Ok(Err(_)) => return,
                Err(_) => {
                    run.0.abort();
                    cut_off = Some(run);
                    timed_out()
                }
            };
            self.health.observe(self.index, observation);
        }
    }
}
