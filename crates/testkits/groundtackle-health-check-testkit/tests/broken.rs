//! The kit finds checks and notifiers that break a promise: each of them fails the case that is about it.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use groundtackle_health_check::{Check, Error, Message, News, Notifier, Observation, Retryability};
use groundtackle_health_check_testkit::{
    CheckHarness, NotifierHarness, State, check_cases, notifier_cases, run_check, run_notifier,
};

const SECRET: &str = "open sesame";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Nothing,
    Flaps,
    FailsWithoutCause,
    UnknownWhenBroken,
    UpWhenSilent,
    NeverRecovers,
    KeepsALock,
    Blocks,
    TellsSecrets,
    PrintsSecrets,
    SendsTwice,
    SendsTheFirst,
    CutsLong,
    SwallowsErrors,
}

#[derive(Debug)]
struct Place {
    state: Mutex<(State, u32)>,
    held: tokio::sync::Mutex<()>,
}

struct Broken {
    how: Break,
    place: Arc<Place>,
}

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.how == Break::PrintsSecrets {
            SECRET
        } else {
            "Broken"
        })
    }
}

#[async_trait]
impl Check for Broken {
    async fn check(&self) -> Observation {
        if self.how == Break::KeepsALock {
            let guard = self.place.held.lock().await;
            let guard = Forgets(Some(guard));
            tokio::task::yield_now().await;
            guard.release();
        } else {
            tokio::task::yield_now().await;
        }
        let (state, runs) = {
            let mut state = self.place.state.lock().unwrap();
            state.1 += 1;
            *state
        };
        match (state, self.how) {
            (_, Break::Blocks) => {
                std::thread::sleep(Duration::from_millis(1_100));
                Observation::pass()
            }
            (State::Working, Break::Flaps) if runs % 5 == 4 => Observation::fail("refused"),
            (State::Working, _) => Observation::pass(),
            (State::Broken, Break::FailsWithoutCause) => Observation::fail("ok"),
            (State::Broken, Break::UnknownWhenBroken) => Observation::unknown("refused"),
            (State::Broken, Break::TellsSecrets) => {
                Observation::fail("refused").with_detail(SECRET)
            }
            (State::Broken, _) => Observation::fail("refused"),
            (State::Silent, Break::UpWhenSilent) => Observation::pass(),
            (State::Silent, _) => std::future::pending().await,
        }
    }
}

/// A lock that is not given back when a run is dropped.
struct Forgets<'a>(Option<tokio::sync::MutexGuard<'a, ()>>);

impl Forgets<'_> {
    fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Forgets<'_> {
    fn drop(&mut self) {
        std::mem::forget(self.0.take());
    }
}

struct Checks(Break, Arc<Place>);

fn checks(how: Break) -> Checks {
    let place = Place {
        state: Mutex::new((State::Working, 0)),
        held: tokio::sync::Mutex::new(()),
    };
    Checks(how, Arc::new(place))
}

#[async_trait]
impl CheckHarness for Checks {
    async fn check(&self) -> Arc<dyn Check> {
        Arc::new(Broken {
            how: self.0,
            place: self.1.clone(),
        })
    }

    async fn make(&self, state: State) -> bool {
        let mut now = self.1.state.lock().unwrap();
        if self.0 != Break::NeverRecovers || now.0 == State::Working {
            now.0 = state;
        }
        true
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.into()]
    }
}

#[derive(Debug, Default)]
struct Inbox(Mutex<(Vec<String>, bool)>);

struct Speaks(Break, Arc<Inbox>);

impl std::fmt::Debug for Speaks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0 == Break::PrintsSecrets {
            SECRET
        } else {
            "Speaks"
        })
    }
}

#[async_trait]
impl Notifier for Speaks {
    async fn notify(&self, message: &Message) -> Result<(), Error> {
        let mut inbox = self.1.0.lock().unwrap();
        if inbox.1 {
            return if self.0 == Break::SwallowsErrors {
                Ok(())
            } else {
                Err(Error::Notify {
                    notifier: "inbox",
                    action: "a delivery".into(),
                    retryability: Retryability::Transient,
                    source: "it is full".into(),
                })
            };
        }
        let name = |news: &News| match news {
            News::Check { name, .. } => name.to_string(),
            News::Alert { objective, .. } => objective.to_string(),
            _ => String::new(),
        };
        let names: Vec<String> = message.items.iter().map(name).collect();
        let mut text = match self.0 {
            Break::SendsTheFirst => names[0].clone(),
            _ => names.join(","),
        };
        if self.0 == Break::CutsLong {
            text.truncate(1_000);
        }
        if self.0 == Break::TellsSecrets {
            text += SECRET;
        }
        inbox.0.push(text.clone());
        if self.0 == Break::SendsTwice {
            inbox.0.push(text);
        }
        Ok(())
    }
}

struct Notifiers(Break, Arc<Inbox>);

#[async_trait]
impl NotifierHarness for Notifiers {
    async fn notifier(&self) -> Arc<dyn Notifier> {
        Arc::new(Speaks(self.0, self.1.clone()))
    }

    async fn received(&self) -> Vec<String> {
        self.1.0.lock().unwrap().0.clone()
    }

    async fn refuse(&self, refuse: bool) {
        self.1.0.lock().unwrap().1 = refuse;
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
    for case in check_cases() {
        run_check(checks(Break::Nothing), case);
    }
    for case in notifier_cases() {
        run_notifier(Notifiers(Break::Nothing, Arc::default()), case);
    }
}

#[test]
fn each_check_that_breaks_a_promise_is_found() {
    for (how, case) in [
        (Break::Flaps, "what_works_is_up"),
        (
            Break::FailsWithoutCause,
            "what_is_broken_fails_with_a_cause",
        ),
        (
            Break::UnknownWhenBroken,
            "what_is_broken_fails_with_a_cause",
        ),
        (Break::UpWhenSilent, "what_is_silent_is_not_up"),
        (Break::Blocks, "it_does_not_block_its_thread"),
        (Break::TellsSecrets, "no_secret_is_seen"),
        (Break::PrintsSecrets, "no_secret_is_seen"),
    ] {
        assert!(
            finds(|| run_check(checks(how), case)),
            "{case} misses {how:?}"
        );
    }
}

/// Apart, since the cases wait for a minute.
#[test]
fn a_check_that_is_stuck_after_a_drop_is_found() {
    assert!(finds(|| run_check(
        checks(Break::KeepsALock),
        "a_dropped_run_leaves_nothing_behind"
    )));
}

#[test]
fn a_check_that_never_recovers_is_found() {
    assert!(finds(|| run_check(
        checks(Break::NeverRecovers),
        "it_recovers"
    )));
}

#[test]
fn each_notifier_that_breaks_a_promise_is_found() {
    for (how, case) in [
        (Break::SendsTwice, "a_message_arrives_once"),
        (Break::SendsTheFirst, "every_item_is_told"),
        (Break::CutsLong, "long_messages_arrive"),
        (Break::SwallowsErrors, "what_is_refused_is_an_error"),
        (Break::TellsSecrets, "no_secret_is_told"),
        (Break::PrintsSecrets, "no_secret_is_told"),
    ] {
        let notifiers = Notifiers(how, Arc::default());
        assert!(
            finds(|| run_notifier(notifiers, case)),
            "{case} misses {how:?}"
        );
    }
}
