use std::time::{Duration, Instant};

use groundtackle_health_check::{
    Check, Health, Name, Observation, Outcome, Schedule, Scheduler, Settings,
};

use crate::LONG;
use crate::servers::Faults;

/// What a busy machine may take beside.
const SLACK: Duration = Duration::from_secs(4);

const NAME: &str = "watched";

/// Looks until a check finds this, and gives what it found.
///
/// # Panics
/// When it does not within two minutes.
#[track_caller]
pub fn becomes<'a>(
    check: &'a dyn Check,
    outcome: Outcome,
    cause: &'a str,
) -> impl Future<Output = Observation> + Send + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        loop {
            let seen = check.check().await;
            if (seen.outcome, seen.cause.as_str()) == (outcome, cause) {
                return seen;
            }
            assert!(
                begun.elapsed() < LONG * 2,
                "{caller}: no {outcome} ({cause}): {seen:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A check that a scheduler runs: one result takes it down, and one brings it up.
#[derive(Debug)]
pub struct Watched {
    health: Health,
    scheduler: Scheduler,
    late: Duration,
}

impl Watched {
    /// Begins to run it, with a jitter of a tenth.
    ///
    /// # Panics
    /// Outside of a runtime, and when the timeout is zero or longer than the period.
    #[must_use]
    pub fn start(check: impl Check, period: Duration, timeout: Duration) -> Self {
        let schedule = Schedule::default()
            .with_period(period)
            .with_timeout(timeout)
            .with_failures_to_down(1)
            .with_successes_to_up(1);
        let late = period.mul_f64(1.0 + schedule.jitter) + timeout + SLACK;
        let settings = Settings::default().with_schedule(schedule);
        let name = Name::try_from(NAME).expect("a name");
        let health = Health::builder()
            .readiness(name, settings, check)
            .build()
            .expect("a schedule that can be kept");
        let scheduler = Scheduler::start(&health);
        Self {
            health,
            scheduler,
            late,
        }
    }

    /// Waits until it reads so.
    ///
    /// # Panics
    /// When it does not within a period and a timeout, and what a busy machine may take beside (4 s).
    #[track_caller]
    pub fn until<'a>(
        &'a self,
        outcome: Outcome,
        cause: &'a str,
    ) -> impl Future<Output = ()> + Send + 'a {
        self.until_within(self.late, outcome, cause)
    }

    /// The same with a time of one's own, for what takes longer to be so.
    ///
    /// # Panics
    /// When it does not read so by then.
    #[track_caller]
    pub fn until_within<'a>(
        &'a self,
        late: Duration,
        outcome: Outcome,
        cause: &'a str,
    ) -> impl Future<Output = ()> + Send + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let begun = Instant::now();
            loop {
                let view = self.health.view();
                let reading = view.reading(NAME).expect("it is registered");
                if (reading.outcome, reading.cause.as_str()) == (outcome, cause) {
                    return;
                }
                assert!(
                    begun.elapsed() < late,
                    "{caller}: no {outcome} ({cause}) within {late:?}: {reading:?}"
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Stops a server, starts it again, hangs it, and lets it go on. Each is seen in time: stopped as `Fail` with the cause `stopped`,
    /// hung as `Fail` with `timeout`, and both pass.
    ///
    /// # Panics
    /// When one is not.
    pub async fn rounds<S>(&self, server: &mut S, faults: &Faults<S>, stopped: &str) {
        self.until(Outcome::Pass, "ok").await;
        (faults.stop)(server);
        self.until(Outcome::Fail, stopped).await;
        (faults.start)(server);
        self.until(Outcome::Pass, "ok").await;
        (faults.hang)(server);
        self.until(Outcome::Fail, "timeout").await;
        (faults.resume)(server);
        self.until(Outcome::Pass, "ok").await;
    }

    /// Runs it no more.
    ///
    /// # Panics
    /// When the scheduler has failed.
    pub async fn stop(self) {
        self.scheduler.stop().await.expect("the scheduler ends");
    }
}
