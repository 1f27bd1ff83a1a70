//! Alerts on how fast an error budget is spent.
//!
//! The maths is that of the chapter "Alerting on SLOs" of the Site Reliability Workbook
//! (<https://sre.google/workbook/alerting-on-slos/>, approach 6, multiwindow, multi-burn-rate alerts). A burn rate of 1 spends
//! the budget exactly within the objective's window.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::millis;
use crate::error::{Error, Result};
use crate::ledger::MINUTE_MILLIS;
use crate::objective::{Objective, Window};

/// What an alert asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Severity {
    /// Somebody must look now.
    Page,
    /// Somebody must look in the next days.
    Ticket,
}

impl Severity {
    /// As it is written: `page` or `ticket`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Ticket => "ticket",
        }
    }
}

/// Fires when a part of the error budget has been spent within the long window and the short window shows that it still
/// is being spent: the burn rates of both are above [`burn_rate`](Self::burn_rate).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertPolicy {
    /// What it asks for.
    pub severity: Severity,
    /// The part of the budget: above 0, at most 1.
    pub budget_spent: f64,
    /// Within this time: whole minutes, at most the objective's window.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub long: Duration,
    /// And still going on by this one: whole minutes, shorter, usually a twelfth.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub short: Duration,
}

/// An alert, as of now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BurnAlert {
    /// What it asks for.
    pub severity: Severity,
    /// The long window, in seconds.
    pub long_secs: u64,
    /// The short window, in seconds.
    pub short_secs: u64,
    /// Above which burn rate of both it fires.
    pub threshold: f64,
    /// The burn rate over the long window; `None`: nothing was measured in it.
    pub long_burn: Option<f64>,
    /// The burn rate over the short window.
    pub short_burn: Option<f64>,
    /// Whether it fires.
    pub firing: bool,
}

impl AlertPolicy {
    /// The workbook's recommendation: 2 % of the budget within an hour and 5 % within six hours page, 10 % within three days
    /// make a ticket; each with a short window of a twelfth.
    #[must_use]
    pub fn recommended() -> Vec<Self> {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        [
            (Severity::Page, 0.02, hours(1)),
            (Severity::Page, 0.05, hours(6)),
            (Severity::Ticket, 0.10, hours(72)),
        ]
        .map(|(severity, budget_spent, long)| Self {
            severity,
            budget_spent,
            long,
            short: long / 12,
        })
        .into()
    }

    /// The burn rate that spends this part of the budget within the long window: what the workbook has for 30 days, scaled
    /// to the objective's window.
    #[must_use]
    pub fn burn_rate(&self, window: Window) -> f64 {
        self.budget_spent * f64::from(window.nominal_minutes())
            / f64::from(self.long_minutes().max(1))
    }

    pub(crate) fn long_minutes(&self) -> u32 {
        minutes(self.long)
    }

    pub(crate) fn validate(&self, objective: &Objective) -> Result<()> {
        let invalid = |problem: String| {
            let of = format!("objective {:?}", objective.name.as_str());
            Err(Error::invalid(of, "alerts", problem))
        };
        if !(self.budget_spent > 0.0 && self.budget_spent <= 1.0) {
            return invalid(format!(
                "has budget_spent {}, which must be above 0 and at most 1",
                self.budget_spent
            ));
        }
        let whole = |duration: Duration| millis(duration).checked_rem(MINUTE_MILLIS) == Some(0);
        let slice = Duration::from_secs(60 * u64::from(objective.slice_minutes()));
        if !whole(self.long) || !whole(self.short) || self.short < slice || self.short >= self.long
        {
            return invalid(format!(
                "has windows of {:?} and {:?}: both must be whole minutes, the short one at least {slice:?} and below the long one",
                self.long, self.short,
            ));
        }
        if self.long_minutes() > objective.window.nominal_minutes() {
            return invalid(format!(
                "has a long window of {:?}, which is longer than the objective's",
                self.long
            ));
        }
        let (burn, largest) = (
            self.burn_rate(objective.window),
            largest_burn_rate(objective.target),
        );
        if burn >= largest {
            return Err(Error::CannotFire {
                objective: objective.name.clone(),
                burn,
                largest,
                reachable: 1.0 - 1.0 / burn,
            });
        }
        Ok(())
    }

    pub(crate) fn look(
        &self,
        objective: &Objective,
        burn: impl Fn(u32) -> Option<f64>,
    ) -> BurnAlert {
        let threshold = self.burn_rate(objective.window);
        let (long_burn, short_burn) = (burn(self.long_minutes()), burn(minutes(self.short)));
        BurnAlert {
            severity: self.severity,
            long_secs: self.long.as_secs(),
            short_secs: self.short.as_secs(),
            threshold,
            long_burn,
            short_burn,
            firing: [long_burn, short_burn]
                .iter()
                .all(|burn| burn.is_some_and(|burn| burn > threshold)),
        }
    }
}

fn minutes(duration: Duration) -> u32 {
    u32::try_from(millis(duration) / MINUTE_MILLIS).unwrap_or(u32::MAX)
}

/// The burn rate of a total outage: `1 / (1 - target)`. No alert above it can fire.
#[must_use]
pub fn largest_burn_rate(target: f64) -> f64 {
    1.0 / (1.0 - target)
}

/// How long a burn rate takes to spend the whole budget of a window.
///
/// ```
/// use groundtackle_health_check::{Window, time_to_exhaustion};
///
/// // The workbook: a burn rate of 10 spends the budget of 30 days in 3 days.
/// let days = time_to_exhaustion(10.0, Window::RollingDays(30)).as_secs_f64() / 86_400.0;
/// assert!((days - 3.0).abs() < 1e-9);
/// ```
#[must_use]
pub fn time_to_exhaustion(burn_rate: f64, window: Window) -> Duration {
    let secs = f64::from(window.nominal_minutes()) * 60.0 / burn_rate;
    Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX)
}
