//! What went wrong, as the port's errors.

use std::io;
use std::path::Path;

use groundtackle_release_gate::{Error, Retryability};

pub(crate) const BACKEND: &str = "checklist";

/// A file that could not be read: somebody may be about to write it.
pub(crate) fn unreadable(path: &Path, error: io::Error) -> Error {
    let action = format!("reading {}", path.display());
    Error::backend(BACKEND, action, Retryability::Transient, error)
}

/// What a file says makes no sense.
pub(crate) fn corrupt(path: &Path, detail: impl Into<String>) -> Error {
    Error::corrupt(format!("the checklist {}", path.display()), detail)
}
