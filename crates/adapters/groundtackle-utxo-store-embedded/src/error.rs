use std::io;
use std::path::Path;

use groundtackle_utxo_store::{Error, Retryability, Verdict};

pub(crate) const BACKEND: &str = "embedded";

pub(crate) fn corrupt(what: impl Into<String>, detail: impl Into<String>) -> Error {
    Error::corrupt(BACKEND, what, detail)
}

/// The engine's error in the port's terms. A write that failed may be on the disk in part, and the
/// engine decides at the next start whether it counts.
pub(crate) fn engine_error(path: &Path, action: &str, writing: bool, error: fjall::Error) -> Error {
    let store = path.display().to_string();
    match error {
        fjall::Error::Locked => Error::InUse { store },
        fjall::Error::Poisoned => Error::Poisoned { store },
        fjall::Error::Io(error) => io_error(path, action, writing, error),
        fjall::Error::Storage(fjall_storage) => match storage_io(&fjall_storage) {
            Some(io::ErrorKind::StorageFull) => Error::Full {
                store,
                source: fjall_storage.into(),
            },
            None if !writing => Error::corrupt(BACKEND, store, fjall_storage.to_string()),
            _ => Error::backend(BACKEND, action, retryability(writing), fjall_storage),
        },
        error @ (fjall::Error::JournalRecovery(_)
        | fjall::Error::InvalidVersion(_)
        | fjall::Error::Decompress(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::Unrecoverable) => Error::corrupt(BACKEND, store, error.to_string()),
        error => Error::backend(BACKEND, action, retryability(writing), error),
    }
}

fn storage_io(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .map(io::Error::kind)
}

const fn retryability(writing: bool) -> Retryability {
    if writing {
        Retryability::Indeterminate
    } else {
        Retryability::Transient
    }
}

pub(crate) fn io_error(path: &Path, action: &str, writing: bool, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full {
            store: path.display().to_string(),
            source: error.into(),
        },
        // What was written before may be on the disk, whatever the reason.
        _ if writing => Error::backend(
            BACKEND,
            format!("{action} at {}", path.display()),
            Retryability::Indeterminate,
            error,
        ),
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            Error::corrupt(BACKEND, path.display().to_string(), error.to_string())
        }
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory => Error::backend(
            BACKEND,
            format!("{action} at {}", path.display()),
            Retryability::Permanent,
            error,
        ),
        _ => Error::backend(
            BACKEND,
            format!("{action} at {}", path.display()),
            Retryability::Transient,
            error,
        ),
    }
}

/// Why a change stops: the data don't allow it, or the store can't answer.
#[derive(Debug)]
pub(crate) enum Stop {
    Verdict(Verdict),
    Error(Error),
}

impl From<Verdict> for Stop {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The answer to an item, unless the store could not give one.
pub(crate) fn outcome<T>(result: Result<T, Stop>) -> Result<Result<T, Verdict>, Error> {
    match result {
        Ok(done) => Ok(Ok(done)),
        Err(Stop::Verdict(verdict)) => Ok(Err(verdict)),
        Err(Stop::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_failed_may_count() {
        for kind in [
            io::ErrorKind::StorageFull,
            io::ErrorKind::NotFound,
            io::ErrorKind::InvalidData,
            io::ErrorKind::ReadOnlyFilesystem,
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::Other,
        ] {
            let error = io_error(Path::new("here"), "commit", true, kind.into());
            assert_eq!(error.retryability(), Retryability::Indeterminate, "{kind}");
        }
        let read = io_error(
            Path::new("here"),
            "read",
            false,
            io::ErrorKind::Other.into(),
        );
        assert_eq!(read.retryability(), Retryability::Transient);
    }
}
