//! What went wrong, and whether doing it again can help.

use std::error::Error as StdError;

use groundtackle_core::Retryability;

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// A backup or a restore that could not be carried out. What a target refuses by the state of its objects is no error:
/// see [`Refused`](crate::Refused).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A target, a source or a sink failed.
    #[error("{backend}: {action} failed")]
    Backend {
        /// The adapter's name.
        backend: &'static str,
        /// What was being done, with the object's key.
        action: String,
        /// Whether the call may be repeated.
        retryability: Retryability,
        /// The backend's own error.
        #[source]
        source: Source,
    },
    /// The target has more work than it can do; nothing was applied.
    #[error("{backend} is overloaded during {action}; send less at a time, or later")]
    Overloaded {
        /// The adapter's name.
        backend: &'static str,
        /// What was being done.
        action: String,
    },
    /// There is no room left for more data.
    #[error(
        "{place} has no room left; nothing that was listed is lost: free space and do it again"
    )]
    Full {
        /// The target's or the sink's place.
        place: String,
        /// The system's error.
        #[source]
        source: Source,
    },
    /// The target denies the right to do this.
    #[error("{backend}: {action} is denied; grant the right to it, or use other credentials")]
    Denied {
        /// The adapter's name.
        backend: &'static str,
        /// What was being done.
        action: String,
    },
    /// An object that a restore point needs is not there.
    #[error(
        "object {object} is missing ({needed_by}); take another restore point, or another target"
    )]
    Missing {
        /// Its key.
        object: String,
        /// What needs it.
        needed_by: String,
    },
    /// What lies in the repository can't be what was written there.
    #[error("object {object} is damaged ({detail}); take another restore point, or another target")]
    Corrupt {
        /// Its key, with the part of it.
        object: String,
        /// How it shows.
        detail: String,
    },
    /// No key at hand opens this.
    #[error("no identity at hand opens {object}; it was sealed to {recipients}")]
    WrongKey {
        /// The object's key.
        object: String,
        /// Whom it is for.
        recipients: String,
    },
    /// The signature is by nobody who is trusted.
    #[error("{object} is not signed by a trusted key ({detail})")]
    Untrusted {
        /// The object's key.
        object: String,
        /// Who signed, if anybody.
        detail: String,
    },
    /// What was restored is not what was backed up.
    #[error(
        "{what} differs: {wanted} was backed up, {found} came back; nothing of the restore is to be used"
    )]
    Differs {
        /// The count or digest.
        what: &'static str,
        /// What the manifest says.
        wanted: String,
        /// What was found.
        found: String,
    },
    /// The chain of restore points does not reach what is asked for.
    #[error("{what}")]
    Unreachable {
        /// What is missing between what and what.
        what: String,
    },
    /// A newer version of the software wrote the object.
    #[error(
        "{object} has format {found}, and this version reads up to {supported}; use a newer version"
    )]
    NewerFormat {
        /// The object's key.
        object: String,
        /// The format found there.
        found: u32,
        /// The newest format that this version reads.
        supported: u32,
    },
    /// The source ended before it said that it was whole, or with another count than it had promised.
    #[error("the source is not whole ({detail}); nothing was listed")]
    Incomplete {
        /// What is missing.
        detail: String,
    },
    /// A backup took so long that a prune may have removed what it sent first, or what it goes on from.
    #[error(
        "the backup took more than {hours} hours; nothing was listed: let it run faster, or split the stream"
    )]
    TooSlow {
        /// What it may take.
        hours: u64,
    },
    /// It is another one's turn; nothing was done.
    #[error("{holder} is {turn} now; wait until that has ended, or its lease is over")]
    Leased {
        /// What takes turns.
        turn: String,
        /// Who has it, as it calls itself.
        holder: String,
    },
    /// A turn ended before the work that was done in it; nothing was listed or removed since.
    #[error("the lease for {turn} was lost ({detail}); nothing was listed: do it again")]
    LeaseLost {
        /// What takes turns.
        turn: String,
        /// How it shows.
        detail: String,
    },
    /// A retry that gave up.
    #[error("{action} failed {attempts} times; gave up")]
    GaveUp {
        /// What was being done.
        action: String,
        /// How often it was tried.
        attempts: u32,
        /// Whether the call may be repeated: `Indeterminate` if any attempt was, otherwise `Permanent`, so that no
        /// outer layer retries again.
        retryability: Retryability,
        /// The last attempt's error.
        #[source]
        source: Box<Error>,
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

    /// `object` can't be what was written.
    pub fn corrupt(object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Corrupt {
            object: object.into(),
            detail: detail.into(),
        }
    }

    /// The call can't be carried out as asked.
    pub fn invalid_request(what: impl Into<String>) -> Self {
        Self::InvalidRequest { what: what.into() }
    }

    /// Whether it says what is wrong with an object, rather than what kept it from being read: `Corrupt`, `Untrusted`,
    /// `NewerFormat`.
    pub const fn is_about_data(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. } | Self::Untrusted { .. } | Self::NewerFormat { .. }
        )
    }

    /// Whether the call may be repeated, and whether it may have been applied.
    pub const fn retryability(&self) -> Retryability {
        match self {
            Self::Backend { retryability, .. } | Self::GaveUp { retryability, .. } => *retryability,
            Self::Overloaded { .. } | Self::Leased { .. } => Retryability::Transient,
            Self::Full { .. } => Retryability::Indeterminate,
            Self::Denied { .. }
            | Self::Missing { .. }
            | Self::Corrupt { .. }
            | Self::WrongKey { .. }
            | Self::Untrusted { .. }
            | Self::Differs { .. }
            | Self::Unreachable { .. }
            | Self::NewerFormat { .. }
            | Self::Incomplete { .. }
            | Self::TooSlow { .. }
            | Self::LeaseLost { .. }
            | Self::InvalidRequest { .. } => Retryability::Permanent,
        }
    }
}
