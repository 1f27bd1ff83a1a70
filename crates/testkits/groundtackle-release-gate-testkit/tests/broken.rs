//! The kit finds sources and deployers that break a promise: each of them fails the case that is about it.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use groundtackle_release_gate::{
    Action, Deployer, Digest, Error, Evidence, EvidenceSource, Fact, Permit, PermitLedger, Request,
    Result, Retryability, Timestamp,
};
use groundtackle_release_gate_testkit::{
    DeployerHarness, SourceHarness, State, deployer_cases, request, run_deployer, run_source,
    source_cases,
};
use jiff::SignedDuration;

const SECRET: &str = "open sesame";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Nothing,
    FindsNothing,
    NamesAnother,
    FromTheFuture,
    NotANumber,
    UsesUp,
    InventsWhatIsMissing,
    AnswersForAnyArtefact,
    LeavesOutWhatFailed,
    MayHaveChanged,
    EmptyWhenSilent,
    StaysBroken,
    ForgetsAfterADrop,
    TellsSecrets,
    PrintsSecrets,
}

struct Broken {
    how: Break,
    place: Arc<Mutex<State>>,
    calls: AtomicUsize,
    was_broken: AtomicBool,
    under_way: AtomicBool,
}

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.how {
            Break::PrintsSecrets => SECRET,
            _ => "Broken",
        })
    }
}

#[async_trait]
impl EvidenceSource for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    async fn collect(&self, asked: &Request) -> Result<Vec<Evidence>> {
        if self.how == Break::ForgetsAfterADrop && self.under_way.swap(true, Ordering::SeqCst) {
            return Ok(Vec::new());
        }
        tokio::task::yield_now().await;
        self.under_way.store(false, Ordering::SeqCst);
        let calls = self.calls.fetch_add(1, Ordering::SeqCst);
        let mut state = *self.place.lock().unwrap();
        if self.how == Break::StaysBroken && self.was_broken.load(Ordering::SeqCst) {
            state = State::Broken;
        }
        let mut now = Timestamp::now();
        if self.how == Break::FromTheFuture {
            now += SignedDuration::from_hours(1);
        }
        let source = match self.how {
            Break::NamesAnother => "another",
            _ => "broken",
        };
        let mut found = vec![Evidence::new(
            source,
            now,
            Fact::Measure {
                name: "uptime".into(),
                value: match self.how {
                    Break::NotANumber => f64::NAN,
                    _ => 99.9,
                },
                since: Timestamp::UNIX_EPOCH,
            },
        )];
        let known = asked.artefact == request().artefact;
        if known || self.how == Break::AnswersForAnyArtefact {
            let fact = Fact::Test {
                suite: "all".into(),
                artefact: asked.artefact,
                passed: true,
            };
            found.push(Evidence::new(source, now, fact));
        }
        match (state, self.how) {
            (State::Working, Break::FindsNothing) => Ok(Vec::new()),
            (State::Working, Break::UsesUp) if calls > 0 => Ok(found[..1].to_vec()),
            (State::Working, _) | (State::Empty, Break::InventsWhatIsMissing) => Ok(found),
            (State::Broken, Break::LeavesOutWhatFailed) => Ok(found),
            (State::Silent, Break::EmptyWhenSilent) => Ok(Vec::new()),
            (State::Empty, _) => Ok(Vec::new()),
            (State::Broken, how) => {
                self.was_broken.store(true, Ordering::SeqCst);
                let action = match how {
                    Break::TellsSecrets => SECRET,
                    _ => "reading",
                };
                let retryability = match how {
                    Break::MayHaveChanged => Retryability::Indeterminate,
                    _ => Retryability::Transient,
                };
                Err(Error::backend("broken", action, retryability, "refused"))
            }
            (State::Silent, _) => std::future::pending().await,
        }
    }
}

struct Sources(Break, Arc<Mutex<State>>);

fn sources(how: Break) -> Sources {
    Sources(how, Arc::new(Mutex::new(State::Working)))
}

#[async_trait]
impl SourceHarness for Sources {
    async fn source(&self) -> Arc<dyn EvidenceSource> {
        Arc::new(Broken {
            how: self.0,
            place: self.1.clone(),
            calls: AtomicUsize::new(0),
            was_broken: AtomicBool::new(false),
            under_way: AtomicBool::new(false),
        })
    }

    fn request(&self) -> Request {
        request()
    }

    async fn make(&self, state: State) -> bool {
        *self.1.lock().unwrap() = state;
        true
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.into()]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Careless {
    Nothing,
    DoesNothing,
    NeverAsksThePermit,
    ActsBeforeItAsks,
    TrustsWhatThePermitSays,
    TakesAnyAction,
    HasNoClock,
    ANewLedgerEachTime,
    SwallowsErrors,
    SaysNothingChanged,
    AsksThePermitLast,
    TellsSecrets,
}

#[derive(Debug)]
struct Reckless {
    how: Careless,
    ledger: PermitLedger,
    place: Arc<Place>,
}

#[derive(Debug, Default)]
struct Place {
    changes: AtomicUsize,
    refuses: AtomicBool,
}

fn now() -> Timestamp {
    "2026-11-10T11:00:00Z".parse().unwrap()
}

impl Reckless {
    fn act(&self) -> Result<()> {
        if self.place.refuses.load(Ordering::SeqCst) {
            if self.how == Careless::SaysNothingChanged {
                self.place.changes.fetch_add(1, Ordering::SeqCst);
            }
            let action = match self.how {
                Careless::SwallowsErrors => return Ok(()),
                Careless::TellsSecrets => SECRET,
                _ => "deploying",
            };
            let transient = Retryability::Transient;
            return Err(Error::backend("reckless", action, transient, "refused"));
        }
        if self.how != Careless::DoesNothing {
            self.place.changes.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[async_trait]
impl Deployer for Reckless {
    async fn deploy(
        &self,
        artefact: &Digest,
        environment: &str,
        action: Action,
        permit: Permit,
    ) -> Result<()> {
        let fresh = PermitLedger::new();
        let ledger = match self.how {
            Careless::ANewLedgerEachTime => &fresh,
            _ => &self.ledger,
        };
        match self.how {
            Careless::NeverAsksThePermit => {
                drop(permit);
                return self.act();
            }
            Careless::ActsBeforeItAsks => {
                self.act()?;
                permit.redeem(ledger, artefact, environment, action, now())?;
                return Ok(());
            }
            Careless::AsksThePermitLast if self.place.refuses.load(Ordering::SeqCst) => {
                return self.act();
            }
            // As far as such a thing can be written at all: it tries what the permit may be for.
            Careless::TakesAnyAction => {
                let text = format!("{permit:?}");
                let allowed = [Action::Deploy, Action::Change, Action::Rollback]
                    .into_iter()
                    .find(|action| text.contains(&format!("action: {action:?}")));
                permit.redeem(ledger, artefact, environment, allowed.unwrap(), now())?;
                return self.act();
            }
            Careless::TrustsWhatThePermitSays => {
                let text = format!("{permit:?}");
                let place = ["production", "staging"]
                    .into_iter()
                    .find(|place| text.contains(&format!("environment: {place:?}")));
                permit.redeem(ledger, artefact, place.unwrap(), action, now())?;
                return self.act();
            }
            Careless::HasNoClock => {
                let end = permit.expires_at();
                let then = end - SignedDuration::from_mins(1);
                permit.redeem(ledger, artefact, environment, action, then)?;
                return self.act();
            }
            _ => {}
        }
        permit.redeem(ledger, artefact, environment, action, now())?;
        self.act()
    }
}

struct Deployers(Careless, Arc<Place>);

fn deployers(how: Careless) -> Deployers {
    Deployers(how, Arc::default())
}

#[async_trait]
impl DeployerHarness for Deployers {
    async fn deployer(&self) -> Arc<dyn Deployer> {
        Arc::new(Reckless {
            how: self.0,
            ledger: PermitLedger::new(),
            place: self.1.clone(),
        })
    }

    fn now(&self) -> Timestamp {
        now()
    }

    async fn changes(&self) -> usize {
        self.1.changes.load(Ordering::SeqCst)
    }

    async fn refuse(&self, refuse: bool) -> bool {
        self.1.refuses.store(refuse, Ordering::SeqCst);
        true
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.into()]
    }
}

fn finds(run: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

#[test]
fn what_keeps_the_promises_passes() {
    for case in source_cases() {
        run_source(sources(Break::Nothing), case);
    }
    for case in deployer_cases() {
        run_deployer(deployers(Careless::Nothing), case);
    }
}

#[test]
fn each_source_that_breaks_a_promise_is_found() {
    for (how, case) in [
        (Break::FindsNothing, "what_is_there_is_found"),
        (Break::NamesAnother, "evidence_names_its_source"),
        (Break::FromTheFuture, "evidence_is_not_from_the_future"),
        (Break::NotANumber, "evidence_reads_as_it_prints"),
        (Break::UsesUp, "asking_changes_nothing"),
        (
            Break::InventsWhatIsMissing,
            "what_is_not_there_is_no_evidence",
        ),
        (
            Break::AnswersForAnyArtefact,
            "an_artefact_that_nobody_knows_has_no_evidence",
        ),
        (
            Break::LeavesOutWhatFailed,
            "what_cannot_be_read_is_an_error",
        ),
        (Break::MayHaveChanged, "what_cannot_be_read_is_an_error"),
        (Break::EmptyWhenSilent, "what_is_silent_is_no_answer"),
        (
            Break::ForgetsAfterADrop,
            "a_dropped_call_leaves_nothing_behind",
        ),
        (Break::TellsSecrets, "no_secret_is_seen"),
        (Break::PrintsSecrets, "no_secret_is_seen"),
    ] {
        assert!(
            finds(|| run_source(sources(how), case)),
            "{case} misses {how:?}"
        );
    }
}

/// Apart, since the case waits for a minute.
#[test]
fn a_source_that_never_recovers_is_found() {
    assert!(finds(|| run_source(
        sources(Break::StaysBroken),
        "it_recovers"
    )));
}

#[test]
fn each_deployer_that_breaks_a_promise_is_found() {
    for (how, case) in [
        (Careless::DoesNothing, "a_permit_lets_one_thing_happen"),
        (
            Careless::NeverAsksThePermit,
            "a_permit_for_something_else_changes_nothing",
        ),
        (
            Careless::ActsBeforeItAsks,
            "a_permit_for_something_else_changes_nothing",
        ),
        (
            Careless::TrustsWhatThePermitSays,
            "a_permit_for_something_else_changes_nothing",
        ),
        (
            Careless::TakesAnyAction,
            "a_permit_for_something_else_changes_nothing",
        ),
        (
            Careless::HasNoClock,
            "a_permit_that_is_late_or_early_changes_nothing",
        ),
        (Careless::ANewLedgerEachTime, "a_permit_works_once"),
        (
            Careless::ANewLedgerEachTime,
            "a_permit_works_once_for_all_who_come_at_once",
        ),
        (
            Careless::SwallowsErrors,
            "what_fails_is_an_error_and_uses_the_permit",
        ),
        (
            Careless::SaysNothingChanged,
            "what_fails_is_an_error_and_uses_the_permit",
        ),
        (
            Careless::AsksThePermitLast,
            "what_fails_is_an_error_and_uses_the_permit",
        ),
        (Careless::TellsSecrets, "no_secret_is_told"),
    ] {
        assert!(
            finds(|| run_deployer(deployers(how), case)),
            "{case} misses {how:?}"
        );
    }
}
