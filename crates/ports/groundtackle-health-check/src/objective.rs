//! Service levels: what is promised, and what came of it.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};

use crate::burn::{AlertPolicy, BurnAlert};
use crate::error::{Error, Result};
use crate::ledger::{Bucket, MINUTE_MILLIS};
use crate::outcome::Name;

const DAY_MINUTES: u32 = 1440;

/// Over which time an objective is met or missed. All times are UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Window {
    /// The last so many days. From 1 to 92.
    RollingDays(u32),
    /// From the first of the month on.
    Month,
    /// From the first of January, April, July or October on.
    Quarter,
}

impl Window {
    /// Where alerts are scaled to, in minutes: a month counts as 30 days and a quarter as 90, so that alerts do not change with
    /// the calendar.
    #[must_use]
    pub const fn nominal_minutes(self) -> u32 {
        match self {
            Self::RollingDays(days) => days.saturating_mul(DAY_MINUTES),
            Self::Month => 30 * DAY_MINUTES,
            Self::Quarter => 90 * DAY_MINUTES,
        }
    }

    /// Its first minute and the first one after it, since 1970, for the window that the minute `now` is in.
    pub(crate) fn minutes(self, now: u32) -> (u32, u32) {
        match self {
            Self::RollingDays(_) => {
                let end = now.saturating_add(1);
                (end.saturating_sub(self.nominal_minutes()), end)
            }
            Self::Month => calendar(now, 1),
            Self::Quarter => calendar(now, 3),
        }
    }
}

/// The span of so many months, counted from January, that the minute is in.
fn calendar(minute: u32, months: i8) -> (u32, u32) {
    let date = Timestamp::from_second(i64::from(minute) * 60)
        .map(|time| time.to_zoned(TimeZone::UTC).date())
        .unwrap_or(Date::ZERO);
    let first = (date.month() - 1) / months * months + 1;
    let begin = Date::new(date.year(), first, 1).unwrap_or(date);
    let end = begin.saturating_add(jiff::Span::new().months(months));
    (minute_of(begin), minute_of(end))
}

fn minute_of(date: Date) -> u32 {
    let epoch = jiff::civil::date(1970, 1, 1);
    let days = epoch
        .until((Unit::Day, date))
        .map_or(0, |span| span.get_days());
    u32::try_from(days)
        .unwrap_or_default()
        .saturating_mul(DAY_MINUTES)
}

/// How a service level is counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Measure {
    /// The part of the measured time in which it was up.
    Availability,
    /// The part of the measured slices in which it was up long enough.
    TimeSlices {
        /// How long a slice is, in minutes: 1 to 1440, and a day must be a whole number of them.
        minutes: u32,
        /// The part of the measured time of a slice for which it must have been up. Above 0, at most 1.
        good_from: f64,
    },
}

impl Measure {
    const fn slice_minutes(self) -> u32 {
        match self {
            Self::Availability => 1,
            Self::TimeSlices { minutes, .. } => minutes,
        }
    }
}

/// What a service promises of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// What it is called.
    pub name: Name,
    /// What it is about: the readiness checks of this subset, or `None`: all that are required.
    #[serde(default)]
    pub subset: Option<Name>,
    /// The part that must be good: above 0, below 1; such as 0.999.
    pub target: f64,
    /// How it is counted.
    #[serde(default = "availability")]
    pub measure: Measure,
    /// Over which time.
    pub window: Window,
    /// When to alert.
    #[serde(default)]
    pub alerts: Vec<AlertPolicy>,
}

fn availability() -> Measure {
    Measure::Availability
}

/// Counted from a ledger, in the measure's unit: milliseconds of an availability, slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// It was up.
    pub good: u64,
    /// It was down.
    pub bad: u64,
    /// Under maintenance that was declared in time.
    pub excluded: u64,
}

impl Counts {
    /// The part that was good of what was measured; `None` if nothing was.
    #[must_use]
    pub fn level(self) -> Option<f64> {
        let measured = self.good.saturating_add(self.bad);
        (measured > 0).then(|| self.good as f64 / measured as f64)
    }
}

/// What came of an objective, as of now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServiceLevel {
    /// The objective's name.
    pub objective: Name,
    /// What was promised.
    pub target: f64,
    /// The part that was good of what was measured in the window so far; `None`: nothing was measured.
    pub level: Option<f64>,
    /// What it was counted from.
    pub counts: Counts,
    /// What of the window so far was neither measured nor left out, in the measure's unit. It counts as neither up nor down.
    pub unmeasured: u64,
    /// What may be bad in the whole window, in the measure's unit: `(1 - target)` of what is not left out.
    pub budget: u64,
    /// What of the budget is left; below zero the objective is missed.
    pub budget_left: i64,
    /// The unit of the counts: `milliseconds` or `slices`.
    pub unit: &'static str,
    /// Since when, in milliseconds since 1970.
    pub window_begin_unix_millis: u64,
    /// Its alerts.
    pub alerts: Vec<BurnAlert>,
}

impl Objective {
    pub(crate) fn validate(&self) -> Result<()> {
        let invalid = |key, problem: String| {
            let of = format!("objective {:?}", self.name.as_str());
            Err(Error::invalid(of, key, problem))
        };
        if !(self.target > 0.0 && self.target < 1.0) {
            return invalid(
                "target",
                format!("is {}, and must be above 0 and below 1", self.target),
            );
        }
        if let Window::RollingDays(days) = self.window
            && !(1..=92).contains(&days)
        {
            return invalid(
                "window",
                format!("is {days} days, and must be from 1 to 92"),
            );
        }
        if let Measure::TimeSlices { minutes, good_from } = self.measure {
            if !(1..=DAY_MINUTES).contains(&minutes) || DAY_MINUTES.checked_rem(minutes) != Some(0)
            {
                let problem = "has slices of which a day has no whole number: take 1, 5, 10, 15, 30 or 60 minutes";
                return invalid("measure", problem.into());
            }
            if !(good_from > 0.0 && good_from <= 1.0) {
                return invalid(
                    "measure",
                    format!("has good_from {good_from}, which must be above 0 and at most 1"),
                );
            }
        }
        for alert in &self.alerts {
            alert.validate(self)?;
        }
        Ok(())
    }

    /// How many minutes of the past it is counted from.
    pub(crate) fn kept_minutes(&self) -> u32 {
        let window = match self.window {
            Window::RollingDays(_) => self.window.nominal_minutes(),
            Window::Month => 31 * DAY_MINUTES,
            Window::Quarter => 92 * DAY_MINUTES,
        };
        let longest = self.alerts.iter().map(AlertPolicy::long_minutes).max();
        window
            .max(longest.unwrap_or_default())
            .saturating_add(DAY_MINUTES)
    }

    /// Counts what lies from minute `begin` on and before `end`. Slices begin at multiples of their length since 1970; one that
    /// the end cuts counts with what there is of it.
    pub(crate) fn count(&self, buckets: impl Iterator<Item = (u32, Bucket)>) -> Counts {
        match self.measure {
            Measure::Availability => buckets.fold(Counts::default(), |mut sum, (_, bucket)| {
                sum.good = sum.good.saturating_add(bucket.good_millis.into());
                sum.bad = sum.bad.saturating_add(bucket.bad_millis.into());
                sum.excluded = sum.excluded.saturating_add(bucket.excluded_millis.into());
                sum
            }),
            Measure::TimeSlices { minutes, good_from } => {
                let mut sum = Counts::default();
                let mut slice: Option<(u32, [u64; 3])> = None;
                let mut close = |(_, [good, bad, excluded]): (u32, [u64; 3])| {
                    let measured = good.saturating_add(bad);
                    if measured == 0 {
                        sum.excluded += u64::from(excluded > 0);
                    } else if good as f64 >= good_from * measured as f64 {
                        sum.good += 1;
                    } else {
                        sum.bad += 1;
                    }
                };
                for (minute, bucket) in buckets {
                    let number = minute.checked_div(minutes).unwrap_or(minute);
                    if let Some(done) = slice.take_if(|slice| slice.0 != number) {
                        close(done);
                    }
                    let (_, [good, bad, excluded]) = slice.get_or_insert((number, [0; 3]));
                    *good += u64::from(bucket.good_millis);
                    *bad += u64::from(bucket.bad_millis);
                    *excluded += u64::from(bucket.excluded_millis);
                }
                if let Some(last) = slice {
                    close(last);
                }
                sum
            }
        }
    }

    /// What came of it: `buckets` gives what lies from one minute on and before another.
    pub(crate) fn service_level<I>(
        &self,
        unix_millis: u64,
        buckets: impl Fn(u32, u32) -> I,
    ) -> ServiceLevel
    where
        I: Iterator<Item = (u32, Bucket)>,
    {
        let now = minute(unix_millis);
        let (begin, end) = self.window.minutes(now);
        let counts = self.count(buckets(begin, now.saturating_add(1)));
        let begin_millis = u64::from(begin).saturating_mul(MINUTE_MILLIS);
        let unit_millis = match self.measure {
            Measure::Availability => 1,
            Measure::TimeSlices { minutes, .. } => u64::from(minutes).saturating_mul(MINUTE_MILLIS),
        };
        let units = |millis: u64| millis.checked_div(unit_millis).unwrap_or_default();
        let so_far = match self.measure {
            Measure::Availability => unix_millis.saturating_sub(begin_millis),
            // A slice counts from its beginning on.
            Measure::TimeSlices { .. } => unix_millis
                .saturating_sub(begin_millis)
                .saturating_add(unit_millis - 1),
        };
        let known = counts
            .good
            .saturating_add(counts.bad)
            .saturating_add(counts.excluded);
        let whole = units(u64::from(end.saturating_sub(begin)).saturating_mul(MINUTE_MILLIS));
        let budget =
            (whole.saturating_sub(counts.excluded) as f64 * (1.0 - self.target)).round() as u64;
        let burn = |minutes: u32| {
            let first = now.saturating_add(1).saturating_sub(minutes);
            let level = self.count(buckets(first, now.saturating_add(1))).level()?;
            Some((1.0 - level) / (1.0 - self.target))
        };
        ServiceLevel {
            objective: self.name.clone(),
            target: self.target,
            level: counts.level(),
            counts,
            unmeasured: units(so_far).saturating_sub(known),
            budget,
            budget_left: i64::try_from(budget)
                .unwrap_or(i64::MAX)
                .saturating_sub(i64::try_from(counts.bad).unwrap_or(i64::MAX)),
            unit: match self.measure {
                Measure::Availability => "milliseconds",
                Measure::TimeSlices { .. } => "slices",
            },
            window_begin_unix_millis: begin_millis,
            alerts: self
                .alerts
                .iter()
                .map(|alert| alert.look(self, burn))
                .collect(),
        }
    }

    pub(crate) const fn slice_minutes(&self) -> u32 {
        self.measure.slice_minutes()
    }
}

/// The minute since 1970.
pub(crate) fn minute(unix_millis: u64) -> u32 {
    u32::try_from(unix_millis / MINUTE_MILLIS).unwrap_or(u32::MAX)
}
