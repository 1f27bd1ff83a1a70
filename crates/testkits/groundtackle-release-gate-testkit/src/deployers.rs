//! Cases for deployers.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_release_gate::{
    Action, Deployer, Digest, Environment, Error, Evidence, Fact, Gate, Permit, PermitRefused,
    Policy, Request, Retryability, Timestamp,
};
use jiff::SignedDuration;
use tokio::time::timeout;

use crate::{LONG, request, runtime, skipped};

/// What the author of a deployer tells the kit.
#[async_trait]
pub trait DeployerHarness: Send + Sync + 'static {
    /// The deployer, to somewhere that works. What it needs lives as long as the harness.
    async fn deployer(&self) -> Arc<dyn Deployer>;

    /// What its clock shows: permits begin then, and last ten minutes.
    fn now(&self) -> Timestamp;

    /// How many times something was changed in the place so far, whatever came of it.
    async fn changes(&self) -> usize;

    /// An artefact that can be deployed to `production`, and, once it was, be rolled back to.
    fn artefact(&self) -> Digest {
        request().artefact
    }

    /// Makes the place refuse what it is told, or take it again. `false`: this harness can't; the cases about it are skipped,
    /// and say so.
    async fn refuse(&self, refuse: bool) -> bool;

    /// Secrets that the deployer was given: none of them may be seen.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Makes a `#[test]` of every case for deployers, against a [`DeployerHarness`] that an expression makes anew for each.
#[macro_export]
macro_rules! deployer_conformance {
    ($harness:expr $(,)?) => {
        $crate::__deployer_conformance! { $harness;
            a_permit_lets_one_thing_happen,
            a_rollback_takes_a_permit_too,
            a_permit_for_something_else_changes_nothing,
            a_permit_that_is_late_or_early_changes_nothing,
            a_permit_works_once,
            a_permit_works_once_for_all_who_come_at_once,
            what_fails_is_an_error_and_uses_the_permit,
            no_secret_is_told,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __deployer_conformance {
    ($harness:expr; $($case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::run_deployer($harness, stringify!($case));
            }
        )*

        #[test]
        fn no_case_is_left_out() {
            assert_eq!($crate::deployer_cases().collect::<Vec<_>>(), [$(stringify!($case)),*]);
        }
    };
}

type Run = for<'a> fn(&'a Subject) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

const CASES: &[(&str, Run)] = &[
    ("a_permit_lets_one_thing_happen", |s| {
        Box::pin(a_permit_lets_one_thing_happen(s))
    }),
    ("a_rollback_takes_a_permit_too", |s| {
        Box::pin(a_rollback_takes_a_permit_too(s))
    }),
    ("a_permit_for_something_else_changes_nothing", |s| {
        Box::pin(a_permit_for_something_else_changes_nothing(s))
    }),
    ("a_permit_that_is_late_or_early_changes_nothing", |s| {
        Box::pin(a_permit_that_is_late_or_early_changes_nothing(s))
    }),
    ("a_permit_works_once", |s| Box::pin(a_permit_works_once(s))),
    ("a_permit_works_once_for_all_who_come_at_once", |s| {
        Box::pin(a_permit_works_once_for_all_who_come_at_once(s))
    }),
    ("what_fails_is_an_error_and_uses_the_permit", |s| {
        Box::pin(what_fails_is_an_error_and_uses_the_permit(s))
    }),
    ("no_secret_is_told", |s| Box::pin(no_secret_is_told(s))),
];

/// The names of all cases for deployers.
pub fn deployer_cases() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(name, _)| *name)
}

/// Runs one case by its name, in a runtime of its own.
///
/// # Panics
/// When the deployer breaks the promise, or there is no such case.
pub fn run_deployer(harness: impl DeployerHarness, name: &str) {
    let (name, case) = CASES
        .iter()
        .find(|case| case.0 == name)
        .expect("a case of this name");
    runtime().block_on(async {
        let deployer = harness.deployer().await;
        let harness = Box::new(harness);
        case(&Subject {
            name,
            harness,
            deployer,
        })
        .await;
    });
}

struct Subject {
    name: &'static str,
    harness: Box<dyn DeployerHarness>,
    deployer: Arc<dyn Deployer>,
}

impl Subject {
    /// As a gate without rules gives it; of the same instant it is the same permit.
    fn permit(&self, artefact: Digest, environment: &str, action: Action, at: Timestamp) -> Permit {
        let mut here = Environment::new(environment);
        here.actors = vec!["all".into()];
        let policy = Policy::new("kit")
            .with_role("all", &["olga"])
            .with_environment(here);
        let request = Request {
            artefact,
            environment: environment.into(),
            action,
            ..request()
        };
        let was_there = Fact::Deployment {
            artefact,
            environment: environment.into(),
            succeeded: true,
        };
        let evidence = [Evidence::new("kit", Timestamp::UNIX_EPOCH, was_there)];
        let gate = Gate::new(policy).expect("the policy makes sense");
        let (decision, permit) = gate.admit(&evidence, &request, at);
        permit.unwrap_or_else(|| panic!("nothing speaks against it: {decision:?}"))
    }

    /// For what [`deploy`](Self::deploy) does.
    fn own(&self, at: Timestamp) -> Permit {
        let artefact = self.harness.artefact();
        self.permit(artefact, "production", Action::Deploy, at)
    }

    async fn act(&self, action: Action, permit: Permit) -> Result<(), Error> {
        let artefact = self.harness.artefact();
        let act = self
            .deployer
            .deploy(&artefact, "production", action, permit);
        timeout(LONG, act).await.expect("it ends")
    }

    async fn deploy(&self, permit: Permit) -> Result<(), Error> {
        self.act(Action::Deploy, permit).await
    }

    async fn assert_refused(&self, permit: Permit, why: &str) {
        let before = self.harness.changes().await;
        let done = self.deploy(permit).await;
        assert!(matches!(done, Err(Error::Refused(_))), "{why}: {done:?}");
        assert_eq!(
            self.harness.changes().await,
            before,
            "{why}: it was refused, and done"
        );
    }
}

/// "Redeems the permit for exactly this ..., and then does it."
async fn a_permit_lets_one_thing_happen(subject: &Subject) {
    assert_eq!(subject.harness.changes().await, 0, "nothing was asked yet");
    let done = subject.deploy(subject.own(subject.harness.now())).await;
    done.expect("the permit is for this");
    assert_eq!(subject.harness.changes().await, 1);
}

async fn a_rollback_takes_a_permit_too(subject: &Subject) {
    let now = subject.harness.now();
    let done = subject.deploy(subject.own(now)).await;
    done.expect("the permit is for this");
    let artefact = subject.harness.artefact();
    let permit = subject.permit(artefact, "production", Action::Rollback, now);
    let done = subject.act(Action::Rollback, permit).await;
    done.expect("the permit is for this");
    assert_eq!(subject.harness.changes().await, 2);
}

/// "A permit that is refused changes nothing": for another artefact, environment or action.
async fn a_permit_for_something_else_changes_nothing(subject: &Subject) {
    let now = subject.harness.now();
    let own = subject.harness.artefact();
    let other = Digest::of(b"another one");
    let deploy = Action::Deploy;
    for (permit, why) in [
        (
            subject.permit(other, "production", deploy, now),
            "for another artefact",
        ),
        (
            subject.permit(own, "staging", deploy, now),
            "for another environment",
        ),
        (
            subject.permit(own, "production", Action::Rollback, now),
            "for another action",
        ),
        (
            subject.permit(own, "production", Action::Change, now),
            "for a change of settings",
        ),
    ] {
        subject.assert_refused(permit, why).await;
    }
}

/// By its own clock, when it is used.
async fn a_permit_that_is_late_or_early_changes_nothing(subject: &Subject) {
    for (minutes, why) in [(-11, "it ended a minute ago"), (10, "it begins later")] {
        let at = subject.harness.now() + SignedDuration::from_mins(minutes);
        subject.assert_refused(subject.own(at), why).await;
    }
}

/// The same answer of the same instant is the same permit, however often it is given.
async fn a_permit_works_once(subject: &Subject) {
    let now = subject.harness.now();
    let done = subject.deploy(subject.own(now)).await;
    done.expect("the permit is for this");
    let before = subject.harness.changes().await;
    let again = subject.deploy(subject.own(now)).await;
    assert!(
        matches!(again, Err(Error::Refused(PermitRefused::Used))),
        "{again:?}"
    );
    assert_eq!(subject.harness.changes().await, before);
}

async fn a_permit_works_once_for_all_who_come_at_once(subject: &Subject) {
    let now = subject.harness.now();
    let artefact = subject.harness.artefact();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (deployer, permit) = (subject.deployer.clone(), subject.own(now));
        tasks.spawn(async move {
            deployer
                .deploy(&artefact, "production", Action::Deploy, permit)
                .await
        });
    }
    let done = timeout(LONG, tasks.join_all()).await.expect("they end");
    let went: Vec<_> = done.iter().filter(|done| done.is_ok()).collect();
    assert_eq!(went.len(), 1, "{done:?}");
    assert_eq!(subject.harness.changes().await, 1);
}

/// "Redeems the permit before it does anything": a second try needs a second answer.
async fn what_fails_is_an_error_and_uses_the_permit(subject: &Subject) {
    let now = subject.harness.now();
    if !subject.harness.refuse(true).await {
        return skipped(subject.name, "the harness can't make the place refuse");
    }
    let error = subject
        .deploy(subject.own(now))
        .await
        .expect_err("the place refuses");
    assert!(
        !matches!(error, Error::Refused(_)),
        "the permit was fine: {error:?}"
    );
    if error.retryability() != Retryability::Indeterminate {
        assert_eq!(
            subject.harness.changes().await,
            0,
            "something changed, and the error says that nothing did"
        );
    }
    assert!(subject.harness.refuse(false).await);
    subject
        .assert_refused(subject.own(now), "it was used by what failed")
        .await;
    let later = now + SignedDuration::from_nanos(-1);
    let done = subject.deploy(subject.own(later)).await;
    done.expect("it works again, with a permit of its own");
}

/// Secrets are in no error, and not in what it prints.
async fn no_secret_is_told(subject: &Subject) {
    let mut seen = format!("{:?}", subject.deployer);
    if subject.harness.refuse(true).await {
        let error = subject.deploy(subject.own(subject.harness.now())).await;
        let error = error.expect_err("the place refuses");
        seen += &format!("{error:?}");
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            seen += &error.to_string();
            cause = error.source();
        }
    }
    for secret in subject.harness.secrets() {
        assert!(!seen.contains(&secret), "a secret is seen");
    }
}
