use std::io;
use std::path::PathBuf;

use groundtackle_utxo_store::{Error, Retryability};

pub(super) const BACKEND: &str = "journal";

/// A journal that can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file system failed.
    #[error("can't {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A file can't be what was written there.
    #[error(
        "{} is damaged ({detail}); remove the journal's folder, and the next backup takes a new base",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        detail: String,
    },
    /// The block was connected again meanwhile, in another epoch.
    #[error("{} has changed while the chain was read; ask for the chain again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of the software wrote the file.
    #[error(
        "{} has format {found}, and this version reads up to {supported}; use a newer version",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format found there.
        found: u8,
        /// The newest format that this version reads.
        supported: u8,
    },
    /// There is no journal in that folder.
    #[error("there is no journal in {}; name the folder that a store is journaled to", path.display())]
    NotFound {
        /// The folder.
        path: PathBuf,
    },
    /// Another process writes to the journal.
    #[error("{} is in use by another process; stop that one first", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

impl From<JournalError> for Error {
    /// As an error of the store that is journaled.
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::InUse { path } => Self::InUse {
                store: path.display().to_string(),
            },
            JournalError::Io { path, source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                Self::Full {
                    store: path.display().to_string(),
                    source: source.into(),
                }
            }
            error @ JournalError::Io { .. } => {
                Self::backend(BACKEND, "the journal", Retryability::Indeterminate, error)
            }
            error => Self::backend(BACKEND, "the journal", Retryability::Permanent, error),
        }
    }
}
