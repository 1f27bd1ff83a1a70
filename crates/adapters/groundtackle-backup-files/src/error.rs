//! Errors of the file system, and of what lies in segments, in the words of the port.

use std::io;

use groundtackle_backup::{Error, Retryability};

/// A path as messages show it.
pub(crate) fn shown(path: &[u8]) -> String {
    match path {
        [] => "the directory itself".into(),
        path => String::from_utf8_lossy(path).escape_debug().to_string(),
    }
}

/// Doing something with a path failed.
pub(crate) fn of<E: Into<io::Error>>(
    action: &str,
    path: &[u8],
) -> impl FnOnce(E) -> Error + use<E> {
    let (place, action) = (shown(path), format!("{action} {}", shown(path)));
    move |error| {
        let error = error.into();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full {
                place,
                source: error.into(),
            },
            _ => Error::backend("files", action, Retryability::Permanent, error),
        }
    }
}

/// What no writer makes.
pub(crate) fn damaged(what: &str) -> Error {
    Error::corrupt("the listing of the tree", what)
}

pub(crate) fn stopped(error: tokio::task::JoinError) -> Error {
    Error::backend(
        "the process",
        "work on files",
        Retryability::Permanent,
        error,
    )
}
