//! A store that could not answer.

use std::error::Error as StdError;

use groundtackle_chain::Txid;
use groundtackle_core::Retryability;

/// The result of a call to a store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// A store that could not answer. Verdicts about data are never errors: see
/// [`Verdict`](crate::Verdict).
///
/// From a batch call, an error means: the outcome of no item is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The backend failed.
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
    /// The backend has more work than it can do; nothing was applied.
    #[error("{backend} is overloaded during {action}; send less at a time, or later")]
    Overloaded {
        /// The adapter's name.
        backend: &'static str,
        /// What was being done.
        action: String,
    },
    /// What lies in the store can't be what was written there.
    #[error(
        "{backend}: {what} is damaged ({detail}); restore the store from a backup or sync it again"
    )]
    Corrupt {
        /// The adapter's name.
        backend: &'static str,
        /// The thing that is damaged.
        what: String,
        /// How it shows.
        detail: String,
    },
    /// The backend returned another record than the one asked for.
    #[error("{backend} returned a record of {got} for {asked}; nothing of it was used")]
    WrongRecord {
        /// The adapter's name.
        backend: &'static str,
        /// The transaction asked for.
        asked: Txid,
        /// What came back.
        got: String,
    },
    /// There is no store at that place.
    #[error("there is no store at {store}; name an existing one, or let it be created")]
    NotFound {
        /// The store's place.
        store: String,
    },
    /// Another process has the store open.
    #[error("{store} is in use by another process; stop that one first")]
    InUse {
        /// The store's place.
        store: String,
    },
    /// A newer version of the software wrote the store.
    #[error(
        "{store} has format {found}, and this version reads up to {supported}; use a newer version"
    )]
    NewerFormat {
        /// The store's place.
        store: String,
        /// The format found there.
        found: u32,
        /// The newest format that this version reads.
        supported: u32,
    },
    /// There is no room left for more data.
    #[error(
        "{store} has no room left; nothing that was acknowledged is lost: free space and open it again"
    )]
    Full {
        /// The store's place.
        store: String,
        /// The system's error.
        #[source]
        source: Source,
    },
    /// An earlier write ended in doubt, so the store refuses further ones.
    #[error("{store} refuses writes since one could not be made durable; open it again")]
    Poisoned {
        /// The store's place.
        store: String,
    },
    /// A retry that gave up.
    #[error("{action} failed {attempts} times; gave up")]
    GaveUp {
        /// What was being done.
        action: String,
        /// How often it was tried.
        attempts: u32,
        /// Whether the call may be repeated: `Indeterminate` if any attempt was, otherwise
        /// `Permanent`, so that no outer layer retries again.
        retryability: Retryability,
        /// The last attempt's error.
        #[source]
        source: Box<Error>,
    },
    /// The call can't be carried out as asked, whatever the data.
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

    /// The backend asked for less during `action`; nothing was applied.
    pub fn overloaded(backend: &'static str, action: impl Into<String>) -> Self {
        Self::Overloaded {
            backend,
            action: action.into(),
        }
    }

    /// `what` can't be what was written.
    pub fn corrupt(
        backend: &'static str,
        what: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self::Corrupt {
            backend,
            what: what.into(),
            detail: detail.into(),
        }
    }

    /// The call can't be carried out as asked.
    pub fn invalid_request(what: impl Into<String>) -> Self {
        Self::InvalidRequest { what: what.into() }
    }

    /// The error of a call, or of an action within it, a part of which may have been carried out before it failed: it is
    /// none that says that nothing was applied.
    #[must_use]
    pub fn after_effect(self, backend: &'static str, action: &str) -> Self {
        let doubt = Retryability::Indeterminate;
        let after = |action: &str| format!("{action} (a part may have been carried out)");
        match self {
            known if known.retryability() == doubt => known,
            Self::Backend {
                backend,
                action,
                source,
                ..
            } => Self::backend(backend, after(&action), doubt, source),
            // No outer schedule begins again what an inner one gave up.
            Self::GaveUp {
                action,
                attempts,
                source,
                ..
            } => Self::GaveUp {
                action: after(&action),
                attempts,
                retryability: doubt,
                source,
            },
            other => Self::backend(backend, after(action), doubt, other),
        }
    }

    /// Whether the call may be repeated, and whether it may have been applied.
    pub fn retryability(&self) -> Retryability {
        match self {
            Self::Backend { retryability, .. } | Self::GaveUp { retryability, .. } => *retryability,
            Self::Overloaded { .. } => Retryability::Transient,
            Self::Full { .. } | Self::Poisoned { .. } => Retryability::Indeterminate,
            Self::Corrupt { .. }
            | Self::WrongRecord { .. }
            | Self::NotFound { .. }
            | Self::InUse { .. }
            | Self::NewerFormat { .. }
            | Self::InvalidRequest { .. } => Retryability::Permanent,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn after_an_effect_no_error_says_that_nothing_was_applied() {
        let doubt = Retryability::Indeterminate;
        let backend = |sort| Error::backend("memory", "read, which is refused", sort, "gone");
        for (error, reason) in [
            (Error::invalid_request("no such thing"), "no such thing"),
            (backend(Retryability::Transient), "which is refused"),
            (backend(Retryability::Permanent), "which is refused"),
            (backend(doubt), "which is refused"),
        ] {
            let gave_up = Error::GaveUp {
                action: "try".into(),
                attempts: 3,
                retryability: error.retryability(),
                source: Box::new(Error::invalid_request("not asked for")),
            };
            let gave_up = gave_up.after_effect("memory", "prune");
            assert!(matches!(gave_up, Error::GaveUp { attempts: 3, .. }));
            assert_eq!(gave_up.retryability(), doubt);
            let pruned = |records| crate::Pruned { records, blocks: 0 };
            let known = error.retryability();
            let error = pruned(0).when(Err(error), "memory").expect_err("one");
            assert_eq!(error.retryability(), known);
            assert_eq!(
                pruned(2).when(Ok(()), "memory").expect("no error"),
                pruned(2)
            );
            let refused = matches!(error, Error::InvalidRequest { .. });
            let error = pruned(2).when(Err(error), "memory").expect_err("one");
            assert_eq!(error.retryability() == doubt, !refused);
            let error = error.after_effect("memory", "prune");
            assert_eq!(error.retryability(), doubt);
            let source = error.source().map(ToString::to_string);
            let told = format!("{error}: {}", source.unwrap_or_default());
            assert!(told.contains(reason), "{told}");
        }
    }
}
