//! What went wrong, and whether doing it again can help.

use std::error::Error as StdError;

use groundtackle_core::Retryability;

use crate::outcome::Name;

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Health that can't be told as asked, or a record of it that can't be kept. How a service is, is no error: see
/// [`Outcome`](crate::Outcome).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text that is no name.
    #[error(
        "{name:?} is no name: write 1 to 100 bytes without control characters, and without a space at either end"
    )]
    BadName {
        /// The text.
        name: String,
    },
    /// Two of one name.
    #[error("{what} {name:?} is there twice; give each a name of its own")]
    Duplicate {
        /// What it is: `check`, `objective`, `maintenance`.
        what: &'static str,
        /// The name.
        name: Name,
    },
    /// A name that nothing has.
    #[error("{what}: there is no {wanted} {name:?}")]
    NotFound {
        /// What names it.
        what: String,
        /// What it should be.
        wanted: &'static str,
        /// The name.
        name: String,
    },
    /// Checks that depend on themselves.
    #[error("dependencies go in a circle: {}; take one of them out", circle(.path))]
    Cycle {
        /// Each depends on the next one, and the last on the first.
        path: Vec<Name>,
    },
    /// Nothing where something must be.
    #[error("{what} is empty; {way_out}")]
    Empty {
        /// The set.
        what: String,
        /// What to do.
        way_out: &'static str,
    },
    /// More of something than there may be.
    #[error(
        "there are more than {limit} {what}; leave some out, or spread them over two processes"
    )]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// A setting that makes no sense.
    #[error("{of}: {key} {problem}")]
    Invalid {
        /// Whose setting.
        of: String,
        /// Which one.
        key: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// An alert that no outage could set off.
    #[error(
        "objective {objective:?}: an alert at {burn:.2} times the rate that spends the budget can't fire, since a total outage \
         burns at {largest:.2}; raise the target above {reachable:.4}, or let the alert spend less of the budget"
    )]
    CannotFire {
        /// The objective's name.
        objective: Name,
        /// The burn rate that the alert needs.
        burn: f64,
        /// The burn rate of a total outage: 1 / (1 - target).
        largest: f64,
        /// The target from which such an alert can fire.
        reachable: f64,
    },
    /// A config that can't be used.
    #[error("{file}:{line}: {key}: {problem}")]
    Config {
        /// Its file.
        file: String,
        /// Where, counted from 1.
        line: usize,
        /// The key, from the top.
        key: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The ledger of service levels could not be read or written.
    #[error("ledger {place}: {action} failed")]
    Ledger {
        /// Where it lies.
        place: String,
        /// What was being done.
        action: &'static str,
        /// Whether the call may be repeated.
        retryability: Retryability,
        /// The storage's own error.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// What lies in the ledger can't be what was written there.
    #[error(
        "ledger {place} is damaged at byte {offset} ({detail}); move it away to begin a new one, in which the time before is unmeasured"
    )]
    LedgerDamaged {
        /// Where it lies.
        place: String,
        /// The first byte that is wrong.
        offset: u64,
        /// How it shows.
        detail: &'static str,
    },
    /// Another process keeps its ledger there.
    #[error("ledger {place} is in use by another process; give each its own")]
    LedgerInUse {
        /// Where it lies.
        place: String,
    },
    /// A message could not be delivered.
    #[error("{notifier}: {action} failed")]
    Notify {
        /// The adapter's name.
        notifier: &'static str,
        /// What was being done.
        action: String,
        /// Whether it may be sent again.
        retryability: Retryability,
        /// The adapter's own error.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

fn circle(path: &[Name]) -> String {
    let names = path
        .iter()
        .chain(path.first())
        .map(|name| format!("{:?}", name.as_str()));
    names.collect::<Vec<_>>().join(" needs ")
}

impl Error {
    pub(crate) fn invalid(
        of: impl Into<String>,
        key: &'static str,
        problem: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            of: of.into(),
            key,
            problem: problem.into(),
        }
    }

    /// Whether the call may be repeated, and whether it may have been applied.
    #[must_use]
    pub const fn retryability(&self) -> Retryability {
        match self {
            Self::Ledger { retryability, .. } | Self::Notify { retryability, .. } => *retryability,
            Self::LedgerInUse { .. } => Retryability::Transient,
            Self::BadName { .. }
            | Self::Duplicate { .. }
            | Self::NotFound { .. }
            | Self::Cycle { .. }
            | Self::Empty { .. }
            | Self::TooMany { .. }
            | Self::Invalid { .. }
            | Self::CannotFire { .. }
            | Self::Config { .. }
            | Self::LedgerDamaged { .. } => Retryability::Permanent,
        }
    }
}
