//! Work that was announced.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::outcome::Name;

/// A time in which checks may fail. Within it nobody is alerted; and what was declared before it begins is left out of the
/// service level. What is declared once it has begun counts in full: an outage does not become maintenance by being called so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// What it is called: a new time under an old name is another maintenance only once the old one is over.
    pub name: Name,
    /// When it begins, such as `"2026-12-24T20:00:00Z"`.
    pub begins: Timestamp,
    /// When it is over.
    pub ends: Timestamp,
    /// The checks that it is about; empty: all of them.
    #[serde(default)]
    pub checks: Vec<Name>,
}

/// The longest maintenance, in milliseconds: a week. A longer one would be no service.
const LONGEST_MILLIS: u64 = 7 * 86_400_000;

impl Maintenance {
    pub(crate) fn validate(&self) -> Result<()> {
        let long = self.ends_millis().saturating_sub(self.begins_millis());
        let invalid = |problem: &str| {
            let of = format!("maintenance {:?}", self.name.as_str());
            Err(Error::invalid(of, "ends", problem))
        };
        if self.ends <= self.begins {
            return invalid("must be after begins");
        }
        if long > LONGEST_MILLIS {
            return invalid("is more than a week after begins; split it up");
        }
        Ok(())
    }

    pub(crate) fn begins_millis(&self) -> u64 {
        u64::try_from(self.begins.as_millisecond()).unwrap_or_default()
    }

    pub(crate) fn ends_millis(&self) -> u64 {
        u64::try_from(self.ends.as_millisecond()).unwrap_or_default()
    }

    /// Whether it is on for this check.
    pub(crate) fn covers(&self, check: &Name, unix_millis: u64) -> bool {
        let on = self.begins_millis() <= unix_millis && unix_millis < self.ends_millis();
        on && (self.checks.is_empty() || self.checks.contains(check))
    }
}

/// A maintenance, and when it was declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// What was declared.
    pub maintenance: Maintenance,
    /// When, in milliseconds since 1970.
    pub declared_unix_millis: u64,
}

impl Declared {
    /// Whether it was declared before it begins, so that it is left out of the service level.
    #[must_use]
    pub fn in_time(&self) -> bool {
        self.declared_unix_millis < self.maintenance.begins_millis()
    }
}
