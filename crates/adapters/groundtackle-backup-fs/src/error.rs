use std::io;

use groundtackle_backup::{Error, Retryability};

pub(crate) const BACKEND: &str = "fs";

/// The system's error in the port's terms. Before something gets its name nothing was applied; from then on, or while a
/// name is taken away, it may have been.
pub(crate) fn io_error(action: impl Into<String>, applied: Applied, error: io::Error) -> Error {
    let action = action.into();
    let retryability = match applied {
        Applied::Nothing => Retryability::Transient,
        Applied::Perhaps => Retryability::Indeterminate,
    };
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::Full {
                place: format!("{BACKEND}: the file system, during {action}"),
                source: error.into(),
            }
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            if applied == Applied::Nothing =>
        {
            Error::Denied {
                backend: BACKEND,
                action: format!("{action} ({error})"),
            }
        }
        _ => Error::backend(BACKEND, action, retryability, error),
    }
}

/// What a call may have done before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    Nothing,
    Perhaps,
}

/// Something that is no object lies where one is to be, or no folder where one must be.
pub(crate) fn in_the_way(key: &str) -> Error {
    Error::invalid_request(format!(
        "{BACKEND}: {key} can't be an object: a folder, a link or another object is in its way (no object's key is the \
         folder of another's)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_applied_is_indeterminate() {
        for kind in [
            io::ErrorKind::StorageFull,
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem,
            io::ErrorKind::NotFound,
            io::ErrorKind::Other,
        ] {
            let error = io_error("put", Applied::Perhaps, kind.into());
            assert_eq!(error.retryability(), Retryability::Indeterminate, "{kind}");
        }
        let error = io_error("put", Applied::Nothing, io::ErrorKind::Other.into());
        assert_eq!(error.retryability(), Retryability::Transient);
        let error = io_error(
            "put",
            Applied::Nothing,
            io::ErrorKind::PermissionDenied.into(),
        );
        assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    }
}
