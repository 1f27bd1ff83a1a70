//! What went wrong, and whether doing it again can help. What a policy answers is no error: see
//! [`Verdict`](crate::Verdict).

use std::error::Error as StdError;

use groundtackle_core::Retryability;

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// A gate, a source of evidence or a deployment that could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A policy that can't be used.
    #[error("{file}:{line}: {key}: {detail}")]
    InvalidPolicy {
        /// The file's name, as the caller gave it.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The key, such as `window[2].hours.zone`, or the piece of text where the parser stopped.
        key: String,
        /// What is wrong, and what would be right.
        detail: String,
    },
    /// A log that is not what was written.
    #[error(
        "record {record} of the log is not what was written ({detail}); restore the log from a copy that verifies"
    )]
    BrokenLog {
        /// Its number, from 0.
        record: u64,
        /// How it shows.
        detail: String,
    },
    /// Something signed, by nobody who is trusted.
    #[error("{what} is not signed by a trusted key")]
    Untrusted {
        /// What it is.
        what: String,
    },
    /// Something that was read is not what it should be.
    #[error("{what} is damaged ({detail})")]
    Corrupt {
        /// What it is.
        what: String,
        /// How it shows.
        detail: String,
    },
    /// A permit that does not allow this.
    #[error("the permit is refused: {0}; ask the gate again")]
    Refused(#[from] crate::permit::PermitRefused),
    /// An outside system failed.
    #[error("{backend}: {action} failed")]
    Backend {
        /// The adapter's name.
        backend: &'static str,
        /// What was being done.
        action: String,
        /// Whether the call may be repeated.
        retryability: Retryability,
        /// The backend's own error.
        #[source]
        source: Source,
    },
    /// The call can't be carried out as asked.
    #[error("{what}")]
    InvalidRequest {
        /// What is wrong, and what would be right.
        what: String,
    },
}

impl Error {
    /// The backend failed while doing `action`.
    pub fn backend(
        backend: &'static str,
        action: impl Into<String>,
        retryability: Retryability,
        source: impl Into<Source>,
    ) -> Self {
        Self::Backend {
            backend,
            action: action.into(),
            retryability,
            source: source.into(),
        }
    }

    /// `what` can't be what was written.
    pub fn corrupt(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Corrupt {
            what: what.into(),
            detail: detail.into(),
        }
    }

    /// The call can't be carried out as asked.
    pub fn invalid_request(what: impl Into<String>) -> Self {
        Self::InvalidRequest { what: what.into() }
    }

    /// More than one source of evidence has this name.
    pub fn shared_name(name: &str) -> Self {
        Self::invalid_request(format!(
            "more than one source of evidence is called {name:?}; give each a name of its own"
        ))
    }

    pub(crate) fn broken(record: u64, detail: impl Into<String>) -> Self {
        Self::BrokenLog {
            record,
            detail: detail.into(),
        }
    }

    /// Whether the call may be repeated, and whether it may have been applied.
    pub const fn retryability(&self) -> Retryability {
        match self {
            Self::Backend { retryability, .. } => *retryability,
            Self::InvalidPolicy { .. }
            | Self::BrokenLog { .. }
            | Self::Untrusted { .. }
            | Self::Corrupt { .. }
            | Self::Refused(_)
            | Self::InvalidRequest { .. } => Retryability::Permanent,
        }
    }
}
