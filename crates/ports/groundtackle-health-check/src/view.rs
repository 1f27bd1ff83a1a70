//! What is known of everything at a moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::check::Kind;
use crate::clock::Moment;
use crate::objective::ServiceLevel;
use crate::outcome::{Cause, Name, Outcome};

/// What is said of one check.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reading {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub kind: Kind,
    /// How it is.
    pub outcome: Outcome,
    /// Why, for machines.
    pub cause: Cause,
    /// Why, for operators.
    pub detail: Option<Arc<str>>,
    /// The failed check that hides how this one is: the first one of the chain.
    pub caused_by: Option<Name>,
    /// When it was last looked at, in milliseconds since 1970; of a heartbeat, when it last came.
    pub observed_unix_millis: Option<u64>,
    /// Until when that holds, by the wall clock.
    pub valid_until_unix_millis: Option<u64>,
    /// Since when it is as it is, in milliseconds since 1970.
    pub since_unix_millis: u64,
    /// Whether it is under maintenance, declared in time or not.
    pub in_maintenance: bool,
    /// Whether the service can't work without it.
    pub required: bool,
    /// Whether strangers may see its name and outcome.
    pub public: bool,
    /// What it needs.
    pub depends_on: Arc<[Name]>,
    /// The subsets that it is part of.
    pub subsets: Arc<[Name]>,
}

/// What all checks of a set come to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// `Fail` if something required fails, else `Unknown` if something required is unknown or nothing at all is known, else `Warn`
    /// if anything is not `Pass`, else `Pass`.
    pub outcome: Outcome,
    /// The cause of the first check that made it so.
    pub cause: Cause,
}

impl Verdict {
    /// What these come to.
    pub(crate) fn of<'a>(readings: impl Iterator<Item = &'a Reading>) -> Self {
        let mut worst: Option<(Outcome, &Cause)> = None;
        let (mut first_unknown, mut any_known) = (None, false);
        for reading in readings {
            any_known |= reading.outcome != Outcome::Unknown;
            if reading.outcome == Outcome::Unknown {
                first_unknown.get_or_insert(&reading.cause);
            }
            let counts = match reading.outcome {
                Outcome::Fail | Outcome::Unknown if !reading.required => Outcome::Warn,
                outcome => outcome,
            };
            if worst.is_none_or(|(worst, _)| counts > worst) {
                worst = Some((counts, &reading.cause));
            }
        }
        let (outcome, cause) = match (worst, first_unknown) {
            (None, _) => (Outcome::Unknown, &Cause::NOTHING_REGISTERED),
            (Some(_), Some(cause)) if !any_known => (Outcome::Unknown, cause),
            (Some(worst), _) => worst,
        };
        Self {
            outcome,
            cause: cause.clone(),
        }
    }
}

/// Something that a start-up waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// The check that is not up, all of whose own needs are.
    pub name: Name,
    /// Why it is not.
    pub cause: Cause,
    /// How many others wait for it.
    pub holds_up: usize,
}

/// What is known at a moment. Cheap to share; it never changes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct View {
    /// When it was made.
    pub unix_millis: u64,
    /// Whether the process must be restarted: only on `Fail`. Without a heartbeat it is `Pass`: it could answer.
    pub liveness: Verdict,
    /// Whether the service can do its work: only on `Pass` and `Warn`. It includes that the start-up is complete.
    pub readiness: Verdict,
    /// Whether the service has started.
    pub startup: Verdict,
    /// What the readiness checks of each subset come to.
    pub subsets: BTreeMap<Name, Verdict>,
    /// All checks, in the order in which they were registered.
    pub readings: Vec<Reading>,
    /// What a start-up waits for, in the order in which things start: checks that are not up and all of whose needs are.
    pub waiting_for: Vec<Waiting>,
    /// The service levels, as of the last look at them.
    pub service_levels: Arc<[ServiceLevel]>,
    pub(crate) at: Moment,
    /// For how many milliseconds no reading changes by itself.
    pub(crate) good_for_millis: u64,
}

impl View {
    /// What is known of one check.
    #[must_use]
    pub fn reading(&self, name: &str) -> Option<&Reading> {
        self.readings
            .iter()
            .find(|reading| reading.name.as_str() == name)
    }

    /// What a subset comes to: one that was registered, or the name of a single check.
    #[must_use]
    pub fn subset(&self, name: &str) -> Option<Verdict> {
        if let Some(verdict) = self.subsets.get(name) {
            return Some(verdict.clone());
        }
        let reading = self.reading(name)?;
        Some(Verdict {
            outcome: reading.outcome,
            cause: reading.cause.clone(),
        })
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Audience {
    /// Anybody: outcomes, and names of what is public.
    Stranger,
    /// Who runs it: all there is.
    Operator,
}

impl Audience {
    /// What this audience may see of a reading; `None`: nothing.
    #[must_use]
    pub fn sees(self, reading: &Reading) -> Option<Seen<'_>> {
        match self {
            Self::Operator => Some(Seen {
                name: &reading.name,
                outcome: reading.outcome,
                reason: Some(reading),
            }),
            Self::Stranger => reading.public.then_some(Seen {
                name: &reading.name,
                outcome: reading.outcome,
                reason: None,
            }),
        }
    }
}

/// What somebody may see of a check.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Seen<'a> {
    /// Its name.
    pub name: &'a Name,
    /// How it is.
    pub outcome: Outcome,
    /// The rest of it, for operators alone.
    pub reason: Option<&'a Reading>,
}
