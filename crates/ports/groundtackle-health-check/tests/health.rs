//! What is known of checks, by a clock that the tests move.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test asserts"
)]

use std::sync::Arc;
use std::time::Duration;

use groundtackle_health_check::{
    Builder, Cause, Clock, Error, Event, Graph, Health, Heartbeat, Name, Observation, Outcome,
    Reporter, Schedule, Settings,
};
use groundtackle_health_check_testkit::FaultClock;
use proptest::prelude::*;

fn name(text: &str) -> Name {
    text.try_into().unwrap()
}

fn names(texts: &[&str]) -> Vec<Name> {
    texts.iter().map(|text| name(text)).collect()
}

const PERIOD: Duration = Duration::from_secs(10);
/// Three periods and the timeout.
const VALID: Duration = Duration::from_secs(32);

fn quick() -> Settings {
    Settings::default().with_schedule(
        Schedule::default()
            .with_failures_to_down(1)
            .with_successes_to_up(1),
    )
}

fn builder() -> (FaultClock, Builder) {
    let clock = FaultClock::default();
    (clock.clone(), Health::builder().clock(Arc::new(clock)))
}

fn outcome(health: &Health, check: &str) -> Outcome {
    health.view().reading(check).unwrap().outcome
}

#[test]
fn nothing_registered_and_nothing_run_are_not_ready() {
    let (_, builder) = builder();
    let view = builder.build().unwrap().view();
    assert_eq!(
        (view.readiness.outcome, &view.readiness.cause),
        (Outcome::Unknown, &Cause::NOTHING_REGISTERED)
    );
    assert_eq!(view.startup.outcome, Outcome::Unknown);
    let (_, builder) = self::builder();
    let health = builder.push(name("db"), quick()).build().unwrap();
    assert_eq!(health.view().readiness.cause, Cause::NOT_RUN);
    assert!(!health.view().readiness.outcome.is_up());
    health.reporter("db").unwrap().report(Observation::pass());
    assert!(health.view().readiness.outcome.is_up());
}

#[test]
fn results_age_by_either_clock() {
    type Passes = fn(&FaultClock, Duration);
    let ways: [Passes; 3] = [
        |clock, by| clock.advance(by),
        |clock, by| clock.suspend(by),
        |clock, by| {
            clock.step_wall(-3_600_000);
            clock.advance(by);
        },
    ];
    for passes in ways {
        let (clock, builder) = builder();
        let health = builder.push(name("db"), quick()).build().unwrap();
        let db = health.reporter("db").unwrap();
        db.report(Observation::pass());
        passes(&clock, VALID - Duration::from_millis(1));
        assert_eq!(outcome(&health, "db"), Outcome::Pass);
        clock.advance(Duration::from_millis(1));
        let view = health.view();
        let reading = view.reading("db").unwrap();
        assert_eq!(
            (reading.outcome, &reading.cause),
            (Outcome::Unknown, &Cause::STALE)
        );
        assert!(!view.readiness.outcome.is_up());
        db.report(Observation::pass());
        assert_eq!(outcome(&health, "db"), Outcome::Pass);
    }
}

/// "Each with a cause code and an observation time."
#[test]
fn each_of_the_four_outcomes_has_its_cause_and_its_time() {
    let (clock, builder) = builder();
    let health = builder.push(name("db"), quick()).build().unwrap();
    let db = health.reporter("db").unwrap();
    for (observation, cause) in [
        (Observation::pass(), "ok"),
        (Observation::warn("slow"), "slow"),
        (Observation::fail("refused"), "refused"),
        (Observation::unknown("not-offered"), "not-offered"),
    ] {
        clock.advance(Duration::from_secs(7));
        let now = clock.now().unix_millis;
        db.report(observation.clone());
        clock.advance(Duration::from_secs(1));
        let view = health.view();
        let reading = view.reading("db").unwrap();
        assert_eq!(
            (reading.outcome, reading.cause.as_str()),
            (observation.outcome, cause)
        );
        assert_eq!(reading.observed_unix_millis, Some(now));
        let until = now + VALID.as_millis() as u64;
        assert_eq!(reading.valid_until_unix_millis, Some(until));
    }
    assert_eq!(
        Outcome::ALL.map(|of| of.is_up()),
        [true, true, false, false]
    );
}

#[test]
fn liveness_is_a_heartbeat_and_nothing_else() {
    let (clock, builder) = builder();
    let heartbeat = Heartbeat::new(Arc::new(clock.clone()), Duration::from_secs(30));
    let health = builder
        .liveness(name("loop"), heartbeat.clone())
        .push(name("db"), quick())
        .build()
        .unwrap();
    health
        .reporter("db")
        .unwrap()
        .report(Observation::fail("refused"));
    // A dead database, a machine that was suspended, a clock that was set: no reason to restart.
    clock.suspend(Duration::from_secs(3600));
    assert_eq!(health.view().liveness.outcome, Outcome::Pass);
    clock.advance(Duration::from_secs(29));
    assert_eq!(health.view().liveness.outcome, Outcome::Pass);
    clock.advance(Duration::from_secs(1));
    assert_eq!(
        (
            health.view().liveness.outcome,
            health.view().liveness.cause.clone()
        ),
        (Outcome::Fail, Cause::SILENT)
    );
    heartbeat.beat();
    clock.advance(Duration::from_millis(100));
    assert_eq!(health.view().liveness.outcome, Outcome::Pass);
}

#[test]
fn a_start_up_says_what_it_waits_for() {
    let (_, builder) = builder();
    let on = |needs: &[&str]| quick().with_depends_on(names(needs));
    let health = builder
        .push(name("rpc"), on(&["validator"]))
        .push(name("validator"), on(&["utxo store", "blocks"]))
        .push(name("utxo store"), on(&["aerospike"]))
        .push(name("blocks"), on(&[]))
        .push(name("aerospike"), on(&[]))
        .build()
        .unwrap();
    let order: Vec<_> = health.start_order().map(Name::as_str).collect();
    assert_eq!(
        order,
        ["blocks", "aerospike", "utxo store", "validator", "rpc"]
    );
    let waiting = |health: &Health| -> Vec<(String, usize)> {
        health
            .view()
            .waiting_for
            .iter()
            .map(|w| (w.name.to_string(), w.holds_up))
            .collect()
    };
    assert_eq!(
        waiting(&health),
        [("blocks".into(), 2), ("aerospike".into(), 3)]
    );
    health
        .reporter("aerospike")
        .unwrap()
        .report(Observation::pass());
    assert_eq!(
        waiting(&health),
        [("blocks".into(), 2), ("utxo store".into(), 2)]
    );
    for check in ["blocks", "utxo store", "validator", "rpc"] {
        health.reporter(check).unwrap().report(Observation::pass());
    }
    assert_eq!(waiting(&health), []);
}

#[test]
fn a_circle_is_refused_with_the_names_in_it() {
    let (_, builder) = builder();
    let on = |needs: &[&str]| quick().with_depends_on(names(needs));
    let error = builder
        .push(name("free"), on(&["a"]))
        .push(name("a"), on(&["b"]))
        .push(name("b"), on(&["c"]))
        .push(name("c"), on(&["a"]))
        .build()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"dependencies go in a circle: "a" needs "b" needs "c" needs "a"; take one of them out"#
    );
    let (_, builder) = self::builder();
    let error = builder.push(name("a"), on(&["a"])).build().unwrap_err();
    assert!(matches!(error, Error::Cycle { path } if path == [name("a")]));
}

#[tokio::test]
async fn a_failed_parent_gives_one_alert() {
    let (clock, builder) = builder();
    let on = |needs: &[&str]| quick().with_depends_on(names(needs));
    let health = builder
        .push(name("db"), on(&[]))
        .push(name("api"), on(&["db"]))
        .push(name("page"), on(&["api"]))
        .build()
        .unwrap();
    let [db, api, page] = ["db", "api", "page"].map(|check| health.reporter(check).unwrap());
    for check in [&db, &api, &page] {
        check.report(Observation::pass());
    }
    let mut events = health.events();
    db.report(Observation::fail("refused"));
    // What they find while their parent is down is no news, now or later.
    for check in [&api, &page] {
        check.report(Observation::fail("http-500"));
    }
    let view = health.view();
    for child in ["api", "page"] {
        let reading = view.reading(child).unwrap();
        assert_eq!(
            (reading.outcome, reading.caused_by.as_ref()),
            (Outcome::Unknown, Some(&name("db")))
        );
    }
    db.report(Observation::pass());
    assert_eq!(health.view().reading("api").unwrap().cause, Cause::SETTLING);
    clock.advance(PERIOD);
    api.report(Observation::pass());
    page.report(Observation::pass());
    let mut failed = Vec::new();
    for _ in 0..6 {
        let Some(Event::Check(change)) = events.next().await else {
            break;
        };
        if change.to == Outcome::Fail {
            failed.push(change.name.to_string());
        }
    }
    assert_eq!(failed, ["db"]);
}

#[tokio::test]
async fn lost_events_are_counted() {
    let (_, builder) = builder();
    let health = builder.push(name("db"), quick()).build().unwrap();
    let (mut events, db) = (health.events(), health.reporter("db").unwrap());
    for n in 0..2_000 {
        db.report(if n % 2 == 0 {
            Observation::pass()
        } else {
            Observation::fail("refused")
        });
    }
    let Some(Event::Lost(lost)) = events.next().await else {
        panic!("nothing is lost")
    };
    assert_eq!(lost, 2_000 - 1_024);
    let mut left = 0;
    drop((health, db));
    while let Some(event) = events.next().await {
        assert!(matches!(event, Event::Check(_)));
        left += 1;
    }
    assert_eq!(left, 1_024);
}

#[test]
fn what_is_not_required_only_warns() {
    let (_, builder) = builder();
    let health = builder
        .push(name("db"), quick().with_subsets(names(&["storage"])))
        .push(
            name("cache"),
            quick()
                .with_required(false)
                .with_subsets(names(&["storage", "speed"])),
        )
        .build()
        .unwrap();
    health
        .reporter("cache")
        .unwrap()
        .report(Observation::fail("refused"));
    assert_eq!(health.view().readiness.outcome, Outcome::Unknown);
    health.reporter("db").unwrap().report(Observation::pass());
    let view = health.view();
    assert_eq!(view.readiness.outcome, Outcome::Warn);
    assert_eq!(view.subset("storage").unwrap().outcome, Outcome::Warn);
    assert_eq!(view.subset("db").unwrap().outcome, Outcome::Pass);
    assert!(view.subset("no such").is_none());
}

#[test]
fn duplicates_and_strangers_are_refused() {
    let (_, builder) = builder();
    let error = builder
        .push(name("a"), quick())
        .push(name("a"), quick())
        .build()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"check "a" is there twice; give each a name of its own"#
    );
    let on = quick().with_depends_on(names(&["nobody"]));
    let error = self::builder().1.push(name("a"), on).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"check "a", depends_on: there is no check "nobody""#
    );
    for bad in ["", " a", "a\n", &"x".repeat(101)] {
        assert!(Name::try_from(bad).is_err(), "{bad:?}");
    }
}

/// What is said of checks, as slowly and plainly as it can be put: all of the past is looked through each time.
#[derive(Debug, Default)]
struct Naive {
    /// Of each check, results with their times; `None` where all before is forgotten.
    seen: Vec<Vec<(u64, Option<Outcome>)>>,
    /// Failures on end that take a check down, and successes that bring it up.
    down: usize,
    up: usize,
}

impl Naive {
    fn own(&self, check: usize, now: u64) -> Outcome {
        let seen = &self.seen[check];
        match seen.iter().rev().find(|(_, outcome)| outcome.is_some()) {
            Some((at, _)) if now - at < VALID.as_millis() as u64 => {}
            _ => return Outcome::Unknown,
        }
        let mut said = Outcome::Unknown;
        let mut run: Vec<Outcome> = Vec::new();
        for (_, outcome) in seen {
            let Some(outcome) = outcome else {
                (said, run) = (Outcome::Unknown, Vec::new());
                continue;
            };
            if run
                .last()
                .is_some_and(|last| last.is_up() != outcome.is_up())
            {
                run.clear();
            }
            run.push(*outcome);
            let enough = if outcome.is_up() {
                said.is_up() || run.len() >= self.up
            } else {
                run.len() >= self.down
            };
            if enough {
                said = *outcome;
            }
        }
        said
    }

    /// The outcome and the index of the cause, in a chain of checks where each needs the one before.
    fn all(&self, now: u64) -> Vec<(Outcome, Option<usize>)> {
        let mut all: Vec<(Outcome, Option<usize>)> = Vec::new();
        for check in 0..self.seen.len() {
            let hidden = check.checked_sub(1).and_then(|parent| {
                let (outcome, caused_by) = all[parent];
                caused_by.or((outcome == Outcome::Fail).then_some(parent))
            });
            all.push(match hidden {
                Some(cause) => (Outcome::Unknown, Some(cause)),
                None => (self.own(check, now), None),
            });
        }
        all
    }

    /// Forgets what is too old, and what is hidden.
    fn forget(&mut self, now: u64) {
        let all = self.all(now);
        for (check, (_, caused_by)) in all.into_iter().enumerate() {
            let last = self.seen[check]
                .iter()
                .rev()
                .find(|(_, outcome)| outcome.is_some());
            let stale = last.is_some_and(|(at, _)| now - at >= VALID.as_millis() as u64);
            if caused_by.is_some() || stale {
                self.seen[check].push((now, None));
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Happens {
    Report(usize, Outcome),
    Time(u64),
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Pass),
        1 => Just(Outcome::Warn),
        4 => Just(Outcome::Fail),
        1 => Just(Outcome::Unknown),
    ]
}

fn any_story() -> impl Strategy<Value = Vec<Happens>> {
    let happens = prop_oneof![
        8 => (0..3usize, any_outcome()).prop_map(|(check, outcome)| Happens::Report(check, outcome)),
        2 => (1..12_000u64).prop_map(Happens::Time),
        1 => (25_000..40_000u64).prop_map(Happens::Time),
    ];
    proptest::collection::vec(happens, 1..80)
}

proptest! {
    /// Ageing, hysteresis and suppression together, compared after each step, with and without readers in between.
    #[test]
    fn what_is_said_is_what_a_naive_model_says(story in any_story(), ticked: bool, down in 1..5_usize, up in 1..5_usize) {
        let (clock, builder) = builder();
        let schedule = Schedule::default().with_failures_to_down(down as u32).with_successes_to_up(up as u32);
        let chained = |needs: &[&str]| Settings::default().with_schedule(schedule.clone()).with_depends_on(names(needs));
        let health = builder
            .push(name("0"), chained(&[]))
            .push(name("1"), chained(&["0"]))
            .push(name("2"), chained(&["1"]))
            .build()
            .unwrap();
        let reporters: Vec<Reporter> = ["0", "1", "2"].iter().map(|check| health.reporter(check).unwrap()).collect();
        let mut naive = Naive { seen: vec![Vec::new(); 3], down, up };
        let begin = clock.now().monotonic_millis;
        for happens in story {
            let now = |clock: &FaultClock| clock.now().monotonic_millis - begin;
            match happens {
                Happens::Time(millis) => clock.advance(Duration::from_millis(millis)),
                Happens::Report(check, outcome) => {
                    let hidden = naive.all(now(&clock))[check].1.is_some();
                    reporters[check].report(Observation::new(outcome, Cause::new("told")));
                    naive.seen[check].push((now(&clock), Some(outcome)));
                    if hidden {
                        naive.seen[check].push((now(&clock), None));
                    }
                }
            }
            naive.forget(now(&clock));
            if ticked {
                health.tick();
            }
            let view = health.view();
            let said: Vec<_> = view.readings.iter().map(|reading| {
                let cause = reading.caused_by.as_ref().map(|name| name.as_str().parse::<usize>().unwrap());
                (reading.outcome, cause)
            }).collect();
            prop_assert_eq!(said, naive.all(now(&clock)));
        }
    }

    /// A start order has each thing after all that it needs; and where there is none, the circle that is named is one.
    #[test]
    fn a_graph_is_ordered_or_has_a_circle(edges in proptest::collection::vec((0..8usize, 0..8usize), 0..16)) {
        let text = |i: usize| name(&i.to_string());
        let needs = |i: usize| edges.iter().filter(|(of, _)| *of == i).map(|(_, need)| text(*need)).collect::<Vec<_>>();
        match Graph::new((0..8).map(|i| (text(i), needs(i)))) {
            Ok(graph) => {
                let order: Vec<Name> = graph.start_order().cloned().collect();
                prop_assert_eq!(order.len(), 8);
                let place = |of: &Name| order.iter().position(|name| name == of).unwrap();
                for (of, need) in edges {
                    prop_assert!(place(&text(need)) < place(&text(of)));
                }
            }
            Err(Error::Cycle { path }) => {
                for (of, need) in path.iter().zip(path.iter().cycle().skip(1)) {
                    let of: usize = of.as_str().parse().unwrap();
                    prop_assert!(needs(of).contains(need), "{} does not need {}", of, need);
                }
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

/// "The worse outcome with its cause, the first one's if they are equal, and both details."
#[test]
fn of_several_things_the_worst_counts_and_all_is_told() {
    let (warn, fail) = (
        Observation::warn("slow").with_detail("9 s"),
        Observation::fail("full").with_detail("0 bytes"),
    );
    let both = warn.clone().and(fail.clone());
    let told = Observation::fail("full").with_detail("0 bytes; 9 s");
    assert_eq!((&both, &fail.clone().and(warn.clone())), (&told, &told));
    assert_eq!(Observation::pass().and(warn.clone()), warn);
    let second = Observation::warn("late");
    assert_eq!(warn.clone().and(second.clone()), warn);
    assert_eq!(
        second.and(warn),
        Observation::warn("late").with_detail("9 s")
    );
    let unknown = Observation::unknown("hidden");
    assert_eq!(
        unknown.and(Observation::fail("full")),
        Observation::fail("full")
    );
}
