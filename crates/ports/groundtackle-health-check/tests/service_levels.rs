//! Service levels, from what checks said by a clock that the tests move.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test asserts"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use groundtackle_health_check::{
    AlertPolicy, Clock, Error, Event, Health, LedgerEntry, LedgerStorage, Maintenance, Measure,
    Name, Objective, Observation, Reporter, Result, Schedule, ServiceLevel, Settings, Severity,
    Window, largest_burn_rate, time_to_exhaustion,
};
use groundtackle_health_check_testkit::FaultClock;
use proptest::prelude::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// 2026-02-01T00:00:00Z.
const FEBRUARY: u64 = 1_769_904_000_000;

fn name(text: &str) -> Name {
    text.try_into().unwrap()
}

fn objective(window: Window, target: f64) -> Objective {
    Objective {
        name: name("available"),
        subset: None,
        target,
        measure: Measure::Availability,
        window,
        alerts: Vec::new(),
    }
}

/// A ledger's storage that a test can take over to the next process.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<LedgerEntry>>>);

impl LedgerStorage for Memory {
    fn load(&self, each: &mut dyn FnMut(LedgerEntry)) -> Result<()> {
        self.0.lock().unwrap().iter().cloned().for_each(each);
        Ok(())
    }

    fn append(&self, entries: &[LedgerEntry]) -> Result<()> {
        self.0.lock().unwrap().extend_from_slice(entries);
        Ok(())
    }

    fn replace(&self, entries: &[LedgerEntry]) -> Result<()> {
        *self.0.lock().unwrap() = entries.to_vec();
        Ok(())
    }
}

struct Service {
    clock: FaultClock,
    health: Health,
    db: Reporter,
}

impl Service {
    fn new(clock: &FaultClock, objective: Objective, storage: &Memory) -> Self {
        let schedule = Schedule::default()
            .with_failures_to_down(1)
            .with_successes_to_up(1);
        let health = Health::builder()
            .clock(Arc::new(clock.clone()))
            .push(name("db"), Settings::default().with_schedule(schedule))
            .objective(objective)
            .ledger(Arc::new(storage.clone()))
            .build()
            .unwrap();
        let db = health.reporter("db").unwrap();
        let clock = clock.clone();
        Self { clock, health, db }
    }

    /// Time goes by, looked at often enough.
    fn spend(&self, millis: u64, observation: Option<&Observation>) {
        let mut left = millis;
        while left > 0 {
            if let Some(observation) = observation {
                self.db.report(observation.clone());
            }
            let step = left.min(5_000);
            self.clock.advance(Duration::from_millis(step));
            self.health.tick();
            left -= step;
        }
    }

    fn up(&self, millis: u64) {
        self.spend(millis, Some(&Observation::pass()));
    }

    fn down(&self, millis: u64) {
        self.spend(millis, Some(&Observation::fail("refused")));
    }

    fn level(&self) -> ServiceLevel {
        // Counted every 10 seconds: ask for it twice that far on.
        self.clock.advance(Duration::from_secs(20));
        self.health.tick();
        self.health.view().service_levels[0].clone()
    }
}

fn service(window: Window, target: f64) -> Service {
    Service::new(
        &FaultClock::at(FEBRUARY),
        objective(window, target),
        &Memory::default(),
    )
}

fn maintenance(begins: u64, ends: u64) -> Maintenance {
    let time = |millis: u64| jiff::Timestamp::from_millisecond(millis as i64).unwrap();
    Maintenance {
        name: name("a move"),
        begins: time(begins),
        ends: time(ends),
        checks: Vec::new(),
    }
}

#[test]
fn what_was_not_measured_is_neither_up_nor_down() {
    let service = service(Window::RollingDays(1), 0.9);
    service.up(HOUR);
    // Nobody looks for an hour: not even what was known holds.
    service.clock.advance(Duration::from_millis(HOUR));
    service.down(HOUR);
    let level = service.level();
    // Of the hour that nobody looked at, the first ten seconds are known.
    let close = |a: u64, b: u64| a.abs_diff(b) <= 20_000;
    assert!(
        close(level.counts.good, HOUR) && close(level.counts.bad, HOUR),
        "{level:?}"
    );
    assert!((level.level.unwrap() - 0.5).abs() < 0.01, "{level:?}");
    // The window begins with a minute.
    assert!(level.unmeasured.abs_diff(22 * HOUR) <= 90_000, "{level:?}");
    assert_eq!(level.budget, DAY / 10);
    assert_eq!(
        level.budget_left,
        (DAY / 10) as i64 - level.counts.bad as i64
    );
}

#[test]
fn what_nobody_knows_is_unmeasured() {
    let service = service(Window::RollingDays(1), 0.9);
    assert_eq!(service.level().level, None);
    service.spend(HOUR, Some(&Observation::unknown("method-missing")));
    assert_eq!(service.level().level, None);
    service.up(MINUTE);
    // Its results get too old: what it was after that is not known.
    service.spend(HOUR, None);
    let level = service.level();
    assert!(
        level.counts.good <= MINUTE + 35_000 && level.counts.bad == 0,
        "{level:?}"
    );
}

#[test]
fn a_clock_that_steps_measures_nothing_and_counts_nothing_twice() {
    let service = service(Window::RollingDays(1), 0.9);
    service.up(10 * MINUTE);
    for _ in 0..20 {
        service.clock.step_wall(-120_000);
        service.up(2 * MINUTE);
    }
    let level = service.level();
    // The same few minutes over and over.
    assert!(level.counts.good <= 12 * MINUTE, "{level:?}");
    service.clock.suspend(Duration::from_millis(HOUR));
    service.up(MINUTE);
    assert!(service.level().counts.good <= 14 * MINUTE);
}

#[test]
fn maintenance_counts_unless_it_was_declared_before_it_began() {
    for (declared_before, excluded) in [(MINUTE, true), (0, false)] {
        let clock = FaultClock::at(FEBRUARY);
        let storage = Memory::default();
        let service = Service::new(&clock, objective(Window::RollingDays(1), 0.9), &storage);
        service.up(HOUR);
        let begins = clock.now().unix_millis + declared_before;
        service
            .health
            .declare(maintenance(begins, begins + HOUR))
            .unwrap();
        service.up(declared_before);
        service.down(HOUR);
        assert!(
            service
                .health
                .view()
                .reading("db")
                .is_some_and(|db| !db.in_maintenance)
        );
        // A restart within, whose config has it too, changes nothing.
        service
            .health
            .declare(maintenance(begins, begins + HOUR))
            .unwrap();
        assert_eq!(service.health.maintenances().len(), 1);
        let level = service.level();
        let (expected_bad, expected_excluded) = if excluded { (0, HOUR) } else { (HOUR, 0) };
        assert!(
            level.counts.bad.abs_diff(expected_bad) <= 20_000,
            "{level:?}"
        );
        assert!(
            level.counts.excluded.abs_diff(expected_excluded) <= 20_000,
            "{level:?}"
        );
        if excluded {
            assert_eq!(
                level.budget,
                ((DAY - level.counts.excluded) as f64 * 0.1).round() as u64
            );
        }
    }
}

#[test]
fn a_declaration_outlives_the_process() {
    let clock = FaultClock::at(FEBRUARY);
    let storage = Memory::default();
    let service = Service::new(&clock, objective(Window::RollingDays(1), 0.9), &storage);
    let begins = FEBRUARY + MINUTE;
    service
        .health
        .declare(maintenance(begins, begins + HOUR))
        .unwrap();
    clock.advance(Duration::from_millis(2 * MINUTE));
    // The next process reads the same maintenance from its config, once it has begun.
    let schedule = Schedule::default();
    let health = Health::builder()
        .clock(Arc::new(clock.clone()))
        .push(name("db"), Settings::default().with_schedule(schedule))
        .maintenance(maintenance(begins, begins + HOUR))
        .ledger(Arc::new(storage))
        .build()
        .unwrap();
    let known = health.maintenances();
    assert_eq!(known.len(), 1);
    assert!(known[0].in_time());
    assert!(health.view().reading("db").unwrap().in_maintenance);
}

#[test]
fn what_no_window_reaches_is_dropped() {
    let clock = FaultClock::at(FEBRUARY);
    let storage = Memory::default();
    let window = || objective(Window::RollingDays(1), 0.9);
    let service = Service::new(&clock, window(), &storage);
    service.up(HOUR);
    service.health.persist(true).unwrap();
    assert!(storage.0.lock().unwrap().len() >= 60);
    // The next process, three days later.
    clock.advance(Duration::from_millis(3 * DAY));
    let service = Service::new(&clock, window(), &storage);
    service.up(3 * MINUTE);
    service.health.persist(true).unwrap();
    let left = storage.0.lock().unwrap().len();
    assert!((3..=4).contains(&left), "{left}");
}

#[test]
fn calendar_windows_begin_with_the_month_and_the_quarter() {
    for (window, begins) in [
        (Window::Month, FEBRUARY),
        (Window::Quarter, FEBRUARY - 31 * DAY),
    ] {
        let clock = FaultClock::at(FEBRUARY - HOUR);
        let service = Service::new(&clock, objective(window, 0.99), &Memory::default());
        service.down(HOUR);
        service.up(HOUR);
        let level = service.level();
        assert_eq!(level.window_begin_unix_millis, begins, "{window:?}");
        let bad = if window == Window::Month { 0 } else { HOUR };
        assert!(
            level.counts.bad.abs_diff(bad) <= 5_000,
            "{window:?} {level:?}"
        );
        // 28 days of February 2026, 90 of its first quarter.
        let days = if window == Window::Month { 28 } else { 90 };
        assert_eq!(level.budget, days * DAY / 100, "{window:?}");
    }
}

#[test]
fn time_slices_are_good_or_bad_as_a_whole() {
    let slices = Objective {
        measure: Measure::TimeSlices {
            minutes: 5,
            good_from: 0.9,
        },
        ..objective(Window::RollingDays(1), 0.5)
    };
    let service = Service::new(&FaultClock::at(FEBRUARY), slices, &Memory::default());
    service.up(5 * MINUTE);
    // 20 s of 300 are below a tenth, 60 s are not.
    for down in [20_000, 60_000] {
        service.down(down);
        service.up(5 * MINUTE - down);
    }
    let level = service.level();
    assert_eq!(
        (level.counts.good, level.counts.bad, level.unit),
        (3, 1, "slices"),
        "with the slice under way"
    );
    assert_eq!((level.budget, level.budget_left), (144, 143));
}

/// The table "Recommended parameters for an SLO-based alerting configuration" and that of burn rates, in the chapter "Alerting on
/// SLOs" of the Site Reliability Workbook, <https://sre.google/workbook/alerting-on-slos/>, for 99.9 % of 30 days.
#[test]
fn the_maths_is_that_of_the_workbook() {
    let month = Window::RollingDays(30);
    let table: Vec<_> = AlertPolicy::recommended()
        .iter()
        .map(|alert| {
            let burn = (alert.burn_rate(month) * 10.0).round() / 10.0;
            (
                alert.severity,
                alert.long.as_secs() / 60,
                alert.short.as_secs() / 60,
                burn,
            )
        })
        .collect();
    let expected = [
        (Severity::Page, 60, 5, 14.4),
        (Severity::Page, 360, 30, 6.0),
        (Severity::Ticket, 3 * 24 * 60, 360, 1.0),
    ];
    assert_eq!(table, expected);
    // Burn rate, error rate for 99.9 %, time to exhaustion.
    for (burn, minutes) in [
        (1.0, 30.0 * 1440.0),
        (2.0, 15.0 * 1440.0),
        (10.0, 3.0 * 1440.0),
        (1000.0, 43.2),
    ] {
        let took = time_to_exhaustion(burn, month).as_secs_f64() / 60.0;
        assert!((took - minutes).abs() < 1e-6, "{burn}: {took}");
    }
    // Scaled to other windows, a page still means 2 % of the budget within an hour.
    for (window, burn) in [
        (Window::RollingDays(7), 3.36),
        (Window::Month, 14.4),
        (Window::Quarter, 43.2),
    ] {
        assert!((AlertPolicy::recommended()[0].burn_rate(window) - burn).abs() < 1e-9);
    }
}

#[test]
fn an_alert_that_cannot_fire_is_refused() {
    let build = |target| {
        let mut objective = objective(Window::RollingDays(30), target);
        objective.alerts = AlertPolicy::recommended();
        Health::builder()
            .push(name("db"), Settings::default())
            .objective(objective)
            .build()
    };
    assert!((largest_burn_rate(0.9) - 10.0).abs() < 1e-9);
    assert!(build(0.9306).is_ok());
    let error = build(0.93).unwrap_err();
    assert!(matches!(error, Error::CannotFire { .. }));
    assert_eq!(
        error.to_string(),
        "objective \"available\": an alert at 14.40 times the rate that spends the budget can't fire, since a total outage burns at \
         14.29; raise the target above 0.9306, or let the alert spend less of the budget"
    );
}

#[tokio::test]
async fn alerts_fire_in_an_outage_and_stop_after_it() {
    let mut with_alerts = objective(Window::RollingDays(30), 0.999);
    with_alerts.alerts = AlertPolicy::recommended();
    let service = Service::new(&FaultClock::at(FEBRUARY), with_alerts, &Memory::default());
    let mut events = service.health.events();
    service.up(6 * HOUR);
    // 2 % of the budget are 51.84 s of an outage.
    service.down(40_000);
    service.up(20_000);
    assert!(!service.level().alerts[0].firing);
    service.down(40_000);
    let level = service.level();
    assert!(
        level.alerts[0].firing && level.alerts[0].short_burn > Some(14.4),
        "{level:?}"
    );
    service.up(6 * MINUTE);
    let level = service.level();
    assert!(
        !level.alerts[0].firing && level.alerts[0].long_burn > Some(14.4),
        "by the short window"
    );
    let mut pages = Vec::new();
    drop(service);
    while let Some(event) = events.next().await {
        if let Event::Alert(alert) = event
            && alert.long_secs == 3600
        {
            pages.push(alert.firing);
        }
    }
    assert_eq!(pages, [true, false]);
}

#[test]
fn an_objective_about_nothing_is_refused() {
    let mut of_nothing = objective(Window::Month, 0.99);
    of_nothing.subset = Some(name("storage"));
    let error = Health::builder()
        .push(name("db"), Settings::default())
        .objective(of_nothing)
        .build()
        .unwrap_err();
    assert!(matches!(error, Error::Empty { .. }), "{error}");
}

#[derive(Clone, Debug)]
enum Happens {
    Up(u64),
    Down(u64),
    Gap(u64),
    Restart { in_order: bool },
}

fn any_story() -> impl Strategy<Value = Vec<Happens>> {
    let happens = prop_oneof![
        4 => (1..400u64).prop_map(Happens::Up),
        3 => (1..400u64).prop_map(Happens::Down),
        1 => (40..900u64).prop_map(Happens::Gap),
        2 => any::<bool>().prop_map(|in_order| Happens::Restart { in_order }),
    ];
    proptest::collection::vec(happens, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The ledger, over restarts in order and by kill, compared with a map of all seconds.
    #[test]
    fn a_ledger_is_what_a_naive_one_is(story in any_story()) {
        let clock = FaultClock::at(FEBRUARY);
        let storage = Memory::default();
        let begin = || Service::new(&clock, objective(Window::RollingDays(1), 0.9), &storage);
        let mut service = begin();
        // Each second that was measured, and whether it was up.
        let mut naive: BTreeMap<u64, bool> = BTreeMap::new();
        let now = || (clock.now().unix_millis - FEBRUARY) / 1000;
        // From when on nothing has been stored.
        let minute = || now() / 60 * 60;
        for happens in story {
            let from = now();
            match happens {
                Happens::Up(secs) | Happens::Down(secs) => {
                    let up = matches!(happens, Happens::Up(_));
                    let observation = if up { Observation::pass() } else { Observation::fail("refused") };
                    service.spend(secs * 1000, Some(&observation));
                    naive.extend((from..now()).map(|second| (second, up)));
                }
                Happens::Gap(secs) => {
                    // What was known at its beginning holds for ten seconds, if anything was.
                    let known = service.health.view().reading("db").unwrap().outcome;
                    service.clock.advance(Duration::from_secs(secs));
                    service.health.tick();
                    if known != groundtackle_health_check::Outcome::Unknown {
                        naive.extend((from..from + 10).map(|second| (second, known.is_up())));
                    }
                }
                Happens::Restart { in_order } => {
                    service.health.persist(in_order).unwrap();
                    if !in_order {
                        // The minute under way had not been stored, unless by an earlier end in order.
                        let stored: u64 = stored_in(&storage, minute());
                        let kept: Vec<u64> = naive.range(minute()..).map(|(second, _)| *second).skip(stored as usize).collect();
                        for second in kept {
                            naive.remove(&second);
                        }
                    }
                    service = begin();
                }
            }
        }
        service.clock.advance(Duration::from_secs(11));
        let level = service.level();
        let up = naive.values().filter(|up| **up).count() as u64 * 1000;
        let down = naive.values().filter(|up| !**up).count() as u64 * 1000;
        // The last known holds on for ten seconds, and a minute that is cut by a kill loses less than itself.
        prop_assert!(level.counts.good.abs_diff(up) <= 10_000, "{:?} {}", level, up);
        prop_assert!(level.counts.bad.abs_diff(down) <= 10_000, "{:?} {}", level, down);
    }
}

/// The measured seconds of a minute that lie in the storage.
fn stored_in(storage: &Memory, second: u64) -> u64 {
    let number = (FEBRUARY / MINUTE) as u32 + (second / 60) as u32;
    let entries = storage.0.lock().unwrap();
    let millis = entries.iter().rev().find_map(|entry| match entry {
        LedgerEntry::Minute { minute, bucket, .. } if *minute == number => {
            Some(bucket.good_millis + bucket.bad_millis)
        }
        _ => None,
    });
    u64::from(millis.unwrap_or_default()) / 1000
}
