//! Tests with servers: where there is one, and where there is none.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test asserts")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use groundtackle_health_check::{Check, Observation, Outcome};
use groundtackle_health_check_testkit::{
    Faults, Scripted, ServerHarness, State, Watched, becomes, check_cases, run_check,
};

/// As simple a server as there is. It must be stopped before it is started, and may be told to go on at any time.
#[derive(Clone, Debug)]
struct Bulb(Arc<Mutex<State>>);

impl Bulb {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State::Working)))
    }

    fn go(&self, from: &[State], to: State) {
        let mut state = self.0.lock().unwrap();
        assert!(from.contains(&state), "{state:?} to {to:?}");
        *state = to;
    }
}

const FAULTS: Faults<Bulb> = Faults {
    stop: |bulb| bulb.go(&[State::Working], State::Broken),
    start: |bulb| bulb.go(&[State::Broken], State::Working),
    hang: |bulb| bulb.go(&[State::Working], State::Silent),
    resume: |bulb| {
        let state = *bulb.0.lock().unwrap();
        if state == State::Silent {
            bulb.go(&[State::Silent], State::Working);
        }
    },
};

#[async_trait]
impl Check for Bulb {
    async fn check(&self) -> Observation {
        let state = *self.0.lock().unwrap();
        match state {
            State::Working => Observation::pass(),
            State::Broken => Observation::fail("dark"),
            State::Silent => std::future::pending().await,
        }
    }
}

groundtackle_health_check_testkit::check_conformance!(ServerHarness::new(
    Ok(Bulb::new()),
    FAULTS,
    |bulb| Arc::new(bulb.clone())
));

#[test]
fn where_there_is_no_server_no_case_is_run() {
    for case in check_cases() {
        let none = Err("there is no bulb".into());
        let harness = ServerHarness::<Bulb>::new(none, FAULTS, |_| panic!("nothing is checked"));
        run_check(harness, case);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_find_each_fault_and_that_it_passes() {
    let mut bulb = Bulb::new();
    let (period, timeout) = (Duration::from_millis(50), Duration::from_millis(20));
    let watched = Watched::start(bulb.clone(), period, timeout);
    watched.rounds(&mut bulb, &FAULTS, "dark").await;
    (FAULTS.stop)(&mut bulb);
    let seen = becomes(&bulb, Outcome::Fail, "dark").await;
    assert_eq!(seen, Observation::fail("dark"));
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "no fail (dark) within 200ms")]
async fn what_is_not_seen_in_time_is_too_late() {
    let (period, timeout) = (Duration::from_millis(50), Duration::from_millis(20));
    let watched = Watched::start(Scripted::passing(), period, timeout);
    watched.until(Outcome::Pass, "ok").await;
    let late = Duration::from_millis(200);
    watched.until_within(late, Outcome::Fail, "dark").await;
}
