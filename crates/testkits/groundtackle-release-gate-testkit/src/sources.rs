//! Cases for evidence sources.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use groundtackle_release_gate::{
    Digest, Error, Evidence, EvidenceSource, Fact, Form, Request, Retryability, Timestamp,
};
use jiff::SignedDuration;
use tokio::time::timeout;

use crate::{LONG, poll_once, runtime, skipped};

/// How a harness makes what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has something about the request.
    Working,
    /// It works, and has nothing.
    Empty,
    /// It can't be read: it refuses, is damaged, or answers what is wrong.
    Broken,
    /// It takes what is sent, and never answers.
    Silent,
}

/// What the author of a source tells the kit.
#[async_trait]
pub trait SourceHarness: Send + Sync + 'static {
    /// The source, of something that works. What it needs lives as long as the harness.
    async fn source(&self) -> Arc<dyn EvidenceSource>;

    /// A request that it knows something of.
    fn request(&self) -> Request;

    /// Makes what is read be so. `false`: this harness can't; the cases about it are skipped, and say so.
    async fn make(&self, state: State) -> bool;

    /// Secrets that the source was given: none of them may be seen.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Makes a `#[test]` of every case for sources, against a [`SourceHarness`] that an expression makes anew for each.
#[macro_export]
macro_rules! source_conformance {
    ($harness:expr $(,)?) => {
        $crate::__source_conformance! { $harness;
            what_is_there_is_found,
            evidence_names_its_source,
            evidence_is_not_from_the_future,
            evidence_reads_as_it_prints,
            asking_changes_nothing,
            what_is_not_there_is_no_evidence,
            an_artefact_that_nobody_knows_has_no_evidence,
            what_cannot_be_read_is_an_error,
            what_is_silent_is_no_answer,
            it_recovers,
            a_dropped_call_leaves_nothing_behind,
            no_secret_is_seen,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __source_conformance {
    ($harness:expr; $($case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::run_source($harness, stringify!($case));
            }
        )*

        #[test]
        fn no_case_is_left_out() {
            assert_eq!($crate::source_cases().collect::<Vec<_>>(), [$(stringify!($case)),*]);
        }
    };
}

type Run = for<'a> fn(&'a Subject) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

const CASES: &[(&str, Run)] = &[
    ("what_is_there_is_found", |s| {
        Box::pin(what_is_there_is_found(s))
    }),
    ("evidence_names_its_source", |s| {
        Box::pin(evidence_names_its_source(s))
    }),
    ("evidence_is_not_from_the_future", |s| {
        Box::pin(evidence_is_not_from_the_future(s))
    }),
    ("evidence_reads_as_it_prints", |s| {
        Box::pin(evidence_reads_as_it_prints(s))
    }),
    ("asking_changes_nothing", |s| {
        Box::pin(asking_changes_nothing(s))
    }),
    ("what_is_not_there_is_no_evidence", |s| {
        Box::pin(what_is_not_there_is_no_evidence(s))
    }),
    ("an_artefact_that_nobody_knows_has_no_evidence", |s| {
        Box::pin(an_artefact_that_nobody_knows_has_no_evidence(s))
    }),
    ("what_cannot_be_read_is_an_error", |s| {
        Box::pin(what_cannot_be_read_is_an_error(s))
    }),
    ("what_is_silent_is_no_answer", |s| {
        Box::pin(what_is_silent_is_no_answer(s))
    }),
    ("it_recovers", |s| Box::pin(it_recovers(s))),
    ("a_dropped_call_leaves_nothing_behind", |s| {
        Box::pin(a_dropped_call_leaves_nothing_behind(s))
    }),
    ("no_secret_is_seen", |s| Box::pin(no_secret_is_seen(s))),
];

/// The names of all cases for sources.
pub fn source_cases() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(name, _)| *name)
}

/// Runs one case by its name, in a runtime of its own.
///
/// # Panics
/// When the source breaks the promise, or there is no such case.
pub fn run_source(harness: impl SourceHarness, name: &str) {
    let (name, case) = CASES
        .iter()
        .find(|case| case.0 == name)
        .expect("a case of this name");
    runtime().block_on(async {
        let source = harness.source().await;
        let harness = Box::new(harness);
        case(&Subject {
            name,
            harness,
            source,
        })
        .await;
    });
}

struct Subject {
    name: &'static str,
    harness: Box<dyn SourceHarness>,
    source: Arc<dyn EvidenceSource>,
}

impl Subject {
    async fn ask(&self, request: &Request) -> Result<Vec<Evidence>, Error> {
        timeout(LONG, self.source.collect(request))
            .await
            .expect("it ends")
    }

    async fn find(&self) -> Vec<Evidence> {
        let found = self.ask(&self.harness.request()).await;
        let found = found.unwrap_or_else(|error| panic!("what works can be read: {error:?}"));
        assert!(!found.is_empty(), "what is there is not found");
        found
    }

    /// Whether the harness could; otherwise says what is skipped.
    async fn make(&self, state: State) -> bool {
        let could = self.harness.make(state).await;
        if !could {
            skipped(self.name, &format!("the harness can't make it {state:?}"));
        }
        could
    }
}

/// What is said, without when: a state is looked at anew each time.
fn facts(evidence: &[Evidence]) -> BTreeSet<String> {
    evidence
        .iter()
        .map(|evidence| format!("{:?} {:?}", evidence.fact, evidence.digest))
        .collect()
}

/// "All that it knows of the request."
async fn what_is_there_is_found(subject: &Subject) {
    subject.find().await;
}

/// "What evidence calls it": so that whoever reads a record knows where to look.
async fn evidence_names_its_source(subject: &Subject) {
    let name = subject.source.name();
    assert!(!name.trim().is_empty(), "it has no name");
    for evidence in subject.find().await {
        assert_eq!(evidence.source, name, "{evidence:?}");
    }
}

/// "At the time at which it was so": which is not later than now.
async fn evidence_is_not_from_the_future(subject: &Subject) {
    let found = subject.find().await;
    // Another machine's clock may be a little fast.
    let latest = Timestamp::now() + SignedDuration::from_secs(60);
    for evidence in found {
        assert!(evidence.observed_at <= latest, "{evidence:?}");
    }
}

/// A record of it can be written, and read again.
async fn evidence_reads_as_it_prints(subject: &Subject) {
    for evidence in subject.find().await {
        let text = serde_json::to_string(&evidence).expect("evidence is written");
        let read: Evidence = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{evidence:?} can't be read again: {error}"));
        assert_eq!(read, evidence);
    }
}

/// "Idempotency: it changes nothing."
async fn asking_changes_nothing(subject: &Subject) {
    let first = subject.find().await;
    for _ in 0..3 {
        assert_eq!(facts(&subject.find().await), facts(&first));
    }
}

/// "What is not there is no evidence": and no error either.
async fn what_is_not_there_is_no_evidence(subject: &Subject) {
    if subject.make(State::Empty).await {
        let found = subject.ask(&subject.harness.request()).await;
        let found = found.unwrap_or_else(|error| panic!("nothing is no error: {error:?}"));
        assert!(found.is_empty(), "nothing is there, and found: {found:?}");
    }
}

/// Evidence of one artefact is not passed off as another's.
async fn an_artefact_that_nobody_knows_has_no_evidence(subject: &Subject) {
    let unknown = Digest::of(b"built this morning, and told to nobody");
    let request = Request {
        artefact: unknown,
        ..subject.harness.request()
    };
    // What can't be found out about it is an error as well.
    for evidence in subject.ask(&request).await.unwrap_or_default() {
        let of = match &evidence.fact {
            // A probe may be of the place that it goes to.
            Fact::Item {
                form: Form::Probe, ..
            } => None,
            Fact::Artefact { artefact, .. }
            | Fact::Changes { artefact, .. }
            | Fact::Approval { artefact, .. }
            | Fact::Meeting { artefact, .. }
            | Fact::Item { artefact, .. }
            | Fact::Deployment { artefact, .. }
            | Fact::Test { artefact, .. }
            | Fact::Override { artefact, .. } => Some(artefact),
            // That there is no blocker is so of what nobody knows, too; without a deployment it says nothing.
            _ => None,
        };
        assert_ne!(of, Some(&unknown), "{evidence:?}");
    }
}

/// "What could not be read is an error, never left out."
async fn what_cannot_be_read_is_an_error(subject: &Subject) {
    if subject.make(State::Broken).await {
        let found = subject.ask(&subject.harness.request()).await;
        let error = found.expect_err("what can't be read was said to be all there is");
        assert_ne!(
            error.retryability(),
            Retryability::Indeterminate,
            "reading changes nothing, so that nothing may have been applied: {error:?}"
        );
    }
}

/// A source may wait, and may not say that there is nothing.
async fn what_is_silent_is_no_answer(subject: &Subject) {
    if subject.make(State::Silent).await
        && let Ok(answer) = timeout(
            Duration::from_secs(2),
            subject.source.collect(&subject.harness.request()),
        )
        .await
    {
        assert!(answer.is_err(), "nobody answered: {answer:?}");
    }
}

/// What was broken or silent is found once it works, without a new source.
async fn it_recovers(subject: &Subject) {
    let request = subject.harness.request();
    for state in [State::Broken, State::Silent, State::Empty] {
        if !subject.make(state).await {
            continue;
        }
        drop(timeout(Duration::from_secs(1), subject.source.collect(&request)).await);
        assert!(
            subject.harness.make(State::Working).await,
            "a harness can make it work again"
        );
        let until = Instant::now() + LONG;
        while subject
            .ask(&request)
            .await
            .is_ok_and(|found| found.is_empty())
            || subject.ask(&request).await.is_err()
        {
            assert!(Instant::now() < until, "it never recovers from {state:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// "Cancel safety: it can be dropped at any time."
async fn a_dropped_call_leaves_nothing_behind(subject: &Subject) {
    let request = subject.harness.request();
    let before = facts(&subject.find().await);
    for _ in 0..50 {
        drop(poll_once(subject.source.collect(&request)).await);
    }
    for micros in [10, 100, 1_000, 10_000] {
        drop(
            timeout(
                Duration::from_micros(micros),
                subject.source.collect(&request),
            )
            .await,
        );
    }
    assert_eq!(facts(&subject.find().await), before);
}

/// Neither in evidence, nor in errors, nor in what it prints.
async fn no_secret_is_seen(subject: &Subject) {
    for state in [State::Working, State::Broken] {
        if !subject.make(state).await {
            continue;
        }
        let mut seen = format!("{:?} {}", subject.source, subject.source.name());
        match subject.ask(&subject.harness.request()).await {
            Ok(found) => seen += &format!("{found:?}"),
            Err(error) => {
                seen += &format!("{error:?}");
                let mut cause: Option<&dyn std::error::Error> = Some(&error);
                while let Some(error) = cause {
                    seen += &error.to_string();
                    cause = error.source();
                }
            }
        }
        for secret in subject.harness.secrets() {
            assert!(!seen.contains(&secret), "{state:?}: a secret is seen");
        }
    }
}
