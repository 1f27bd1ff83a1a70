//! Cases for checks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use groundtackle_health_check::{Cause, Check, Observation, Outcome};
use tokio::time::timeout;

use crate::{LONG, poll_once, runtime, skipped};

/// How a harness makes what is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It works.
    Working,
    /// It does not: it refuses, is stopped, or answers what is wrong.
    Broken,
    /// It takes what is sent, and never answers.
    Silent,
}

/// What the author of a check tells the kit.
#[async_trait]
pub trait CheckHarness: Send + Sync + 'static {
    /// Why there is nothing to check on this machine, such as a server that is not installed: every case is skipped then, says so and
    /// counts. `None`: there is all that is needed.
    fn missing(&self) -> Option<String> {
        None
    }

    /// The check, of something that works. What it needs lives as long as the harness.
    async fn check(&self) -> Arc<dyn Check>;

    /// Makes what is checked be so. `false`: this harness can't; the cases about it are skipped, and say so.
    async fn make(&self, state: State) -> bool;

    /// Secrets that the check was given: none of them may be seen.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Makes a `#[test]` of every case for checks, against a [`CheckHarness`] that an expression makes anew for each.
#[macro_export]
macro_rules! check_conformance {
    ($harness:expr $(,)?) => {
        $crate::__check_conformance! { $harness;
            what_works_is_up,
            what_is_broken_fails_with_a_cause,
            what_is_silent_is_not_up,
            it_recovers,
            a_dropped_run_leaves_nothing_behind,
            it_does_not_block_its_thread,
            no_secret_is_seen,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __check_conformance {
    ($harness:expr; $($case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::run_check($harness, stringify!($case));
            }
        )*

        #[test]
        fn no_case_is_left_out() {
            assert_eq!($crate::check_cases().collect::<Vec<_>>(), [$(stringify!($case)),*]);
        }
    };
}

type Run = for<'a> fn(&'a Subject) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

const CASES: &[(&str, Run)] = &[
    ("what_works_is_up", |s| Box::pin(what_works_is_up(s))),
    ("what_is_broken_fails_with_a_cause", |s| {
        Box::pin(what_is_broken_fails_with_a_cause(s))
    }),
    ("what_is_silent_is_not_up", |s| {
        Box::pin(what_is_silent_is_not_up(s))
    }),
    ("it_recovers", |s| Box::pin(it_recovers(s))),
    ("a_dropped_run_leaves_nothing_behind", |s| {
        Box::pin(a_dropped_run_leaves_nothing_behind(s))
    }),
    ("it_does_not_block_its_thread", |s| {
        Box::pin(it_does_not_block_its_thread(s))
    }),
    ("no_secret_is_seen", |s| Box::pin(no_secret_is_seen(s))),
];

/// The names of all cases for checks.
pub fn check_cases() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(name, _)| *name)
}

/// Runs one case by its name, in a runtime of its own.
///
/// # Panics
/// When the check breaks the promise, or there is no such case.
pub fn run_check(harness: impl CheckHarness, name: &str) {
    let (name, case) = CASES
        .iter()
        .find(|case| case.0 == name)
        .expect("a case of this name");
    if let Some(reason) = harness.missing() {
        static SKIPPED: AtomicUsize = AtomicUsize::new(0);
        let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
        let of = CASES.len();
        let reason = format!("{reason} (NOTHING WAS TESTED in {count} of {of} cases so far)");
        return skipped(name, &reason);
    }
    runtime().block_on(async {
        let check = harness.check().await;
        let harness = Box::new(harness);
        case(&Subject {
            name,
            harness,
            check,
        })
        .await;
    });
}

struct Subject {
    name: &'static str,
    harness: Box<dyn CheckHarness>,
    check: Arc<dyn Check>,
}

impl Subject {
    async fn look(&self) -> Observation {
        timeout(LONG, self.check.check()).await.expect("it ends")
    }

    /// Whether the harness could; otherwise says what is skipped.
    async fn make(&self, state: State) -> bool {
        let could = self.harness.make(state).await;
        if !could {
            skipped(self.name, &format!("the harness can't make it {state:?}"));
        }
        could
    }

    async fn assert_up(&self, when: &str) {
        let seen = self.look().await;
        assert!(seen.outcome.is_up(), "{when}: {seen:?}");
    }
}

/// "How it is": what works is `Pass` or `Warn`, each time.
async fn what_works_is_up(subject: &Subject) {
    for _ in 0..10 {
        subject.assert_up("it works").await;
    }
}

/// "That a server does not answer is what it found": `Fail`, and the cause says more than `ok`.
async fn what_is_broken_fails_with_a_cause(subject: &Subject) {
    if subject.make(State::Broken).await {
        let seen = subject.look().await;
        assert_eq!(seen.outcome, Outcome::Fail, "{seen:?}");
        assert!(
            seen.cause != Cause::OK && seen.cause != Cause::new("-"),
            "{seen:?}"
        );
    }
}

/// A run may wait until its timeout, and may not say that it works.
async fn what_is_silent_is_not_up(subject: &Subject) {
    if subject.make(State::Silent).await
        && let Ok(seen) = timeout(Duration::from_secs(2), subject.check.check()).await
    {
        assert!(!seen.outcome.is_up(), "{seen:?}");
    }
}

/// What was broken or silent is up once it works, without a new check.
async fn it_recovers(subject: &Subject) {
    for state in [State::Broken, State::Silent] {
        if !subject.make(state).await {
            continue;
        }
        // Its timeout drops it, as in service.
        if let Ok(seen) = timeout(Duration::from_secs(1), subject.check.check()).await {
            assert!(!seen.outcome.is_up(), "{state:?}: {seen:?}");
        }
        assert!(
            subject.harness.make(State::Working).await,
            "a harness can make it work again"
        );
        let until = Instant::now() + LONG;
        while !subject.look().await.outcome.is_up() {
            assert!(Instant::now() < until, "it never recovers from {state:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// "Dropped at its timeout, at any await": the next run works.
async fn a_dropped_run_leaves_nothing_behind(subject: &Subject) {
    for _ in 0..200 {
        // A check that ends at once has no await to be dropped at.
        drop(poll_once(subject.check.check()).await);
    }
    for micros in [10, 100, 1_000, 10_000] {
        drop(timeout(Duration::from_micros(micros), subject.check.check()).await);
    }
    subject.assert_up("after runs that were dropped").await;
}

/// "It must not block its thread": no single poll takes a second.
async fn it_does_not_block_its_thread(subject: &Subject) {
    for state in [State::Working, State::Broken, State::Silent] {
        if !subject.make(state).await {
            continue;
        }
        let mut run = subject.check.check();
        let until = Instant::now() + Duration::from_secs(2);
        let longest = Arc::new(std::sync::Mutex::new(Duration::ZERO));
        let polled = std::future::poll_fn(|context| {
            let begin = Instant::now();
            let polled = run.as_mut().poll(context).map(drop);
            let mut longest = longest.lock().expect("nobody panics");
            *longest = begin.elapsed().max(*longest);
            polled
        });
        drop(timeout(until - Instant::now(), polled).await);
        let longest = *longest.lock().expect("nobody panics");
        assert!(
            longest < Duration::from_secs(1),
            "{state:?}: it held its thread for {longest:?}"
        );
    }
}

/// "Without secrets": neither in what it finds nor in what it prints.
async fn no_secret_is_seen(subject: &Subject) {
    for state in [State::Working, State::Broken] {
        if !subject.make(state).await {
            continue;
        }
        let seen = format!("{:?} {:?}", subject.check, subject.look().await);
        for secret in subject.harness.secrets() {
            assert!(!seen.contains(&secret), "{state:?}: a secret is seen");
        }
    }
}
