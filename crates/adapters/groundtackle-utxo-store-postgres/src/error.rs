use std::io;

use groundtackle_utxo_store::{Attempts, Error, Result, Retryability};
use tokio_postgres::error::SqlState;

pub(crate) const BACKEND: &str = "postgres";

pub(crate) fn corrupt(what: impl Into<String>, detail: impl Into<String>) -> Error {
    Error::corrupt(BACKEND, what, detail)
}

/// A call that failed, and whether to begin it again.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) again: Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    No,
    /// Others were in the way.
    Yes,
    /// The connection is lost, or of no use: take another one.
    Reconnect,
}

impl Failed {
    /// Waits until it is time to try again.
    pub(crate) async fn again(self, attempts: &mut Attempts) -> Result<()> {
        attempts.again_if(self.again != Again::No, self.error).await
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self {
            error,
            again: Again::No,
        }
    }
}

/// The server's error in the port's terms, of a statement that was not a commit: nothing was applied.
pub(crate) fn failed(action: &str, error: tokio_postgres::Error) -> Failed {
    use Retryability::{Permanent, Transient};
    let backend =
        |action: String, retryability, error| Error::backend(BACKEND, action, retryability, error);
    let Some(code) = error.code().cloned() else {
        // No answer, or one that makes no sense.
        let lost = error.is_closed() || io_source(&error);
        let (retryability, again) = if lost {
            (Transient, Again::Reconnect)
        } else {
            (Permanent, Again::No)
        };
        return Failed {
            error: backend(action.into(), retryability, error),
            again,
        };
    };
    let with = |hint: &str| format!("{action} ({hint})");
    let (error, again) = match code {
        SqlState::T_R_SERIALIZATION_FAILURE
        | SqlState::T_R_DEADLOCK_DETECTED
        // Another call created the same record.
        | SqlState::UNIQUE_VIOLATION
        // Of what was sent behind a statement that failed: whose own answer may be read later.
        | SqlState::IN_FAILED_SQL_TRANSACTION => (backend(action.into(), Transient, error), Again::Yes),
        // "Starting up" and "shutting down"; a failover ends in a server that is read-only no more.
        SqlState::ADMIN_SHUTDOWN
        | SqlState::CRASH_SHUTDOWN
        | SqlState::CANNOT_CONNECT_NOW
        | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
        | SqlState::READ_ONLY_SQL_TRANSACTION => {
            let hint = "the server is going down, coming up or read-only; with several hosts in the URL and target_session_attrs=read-write the primary is found";
            (backend(with(hint), Transient, error), Again::Reconnect)
        }
        SqlState::LOCK_NOT_AVAILABLE
        | SqlState::TOO_MANY_CONNECTIONS
        | SqlState::OUT_OF_MEMORY
        | SqlState::CONFIGURATION_LIMIT_EXCEEDED => (Error::overloaded(BACKEND, action), Again::No),
        SqlState::DISK_FULL => (
            Error::Full {
                store: BACKEND.into(),
                source: error.into(),
            },
            Again::No,
        ),
        SqlState::QUERY_CANCELED => (
            backend(
                with("it took longer than statement_timeout, or was cancelled; send less at a time, or allow more"),
                Transient,
                error,
            ),
            Again::No,
        ),
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => (
            backend(
                with("the server refuses user or password; check them and the server's pg_hba.conf"),
                Permanent,
                error,
            ),
            Again::No,
        ),
        SqlState::INSUFFICIENT_PRIVILEGE => (
            backend(
                with("the user lacks rights; it must own the store's schema, or have CREATE on the database to make it"),
                Permanent,
                error,
            ),
            Again::No,
        ),
        SqlState::UNDEFINED_DATABASE => (
            backend(with("create the database first"), Permanent, error),
            Again::No,
        ),
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN | SqlState::INVALID_SCHEMA_NAME => (
            backend(
                with("the store's tables are not what they should be: dropped, or changed by hand"),
                Permanent,
                error,
            ),
            Again::No,
        ),
        SqlState::IO_ERROR => (
            backend(with("the server can't use its disk"), Transient, error),
            Again::No,
        ),
        code if code.code().starts_with("08") => {
            (backend(action.into(), Transient, error), Again::Reconnect)
        }
        code if code.code().starts_with("XX001") || code.code().starts_with("XX002") => {
            (corrupt("the server's data", error.to_string()), Again::No)
        }
        _ => (backend(action.into(), Permanent, error), Again::No),
    };
    Failed { error, again }
}

fn io_source(error: &tokio_postgres::Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<io::Error>());
    // A certificate that is refused stays so.
    let refused = |source: &io::Error| {
        let tls = source.get_ref().and_then(|cause| cause.downcast_ref());
        matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
    };
    source.is_some_and(|source| !refused(source)) || error.to_string().contains("timeout")
}

/// No answer in time: the connection is given up.
pub(crate) fn no_answer(action: &str) -> Failed {
    Failed {
        error: Error::backend(
            BACKEND,
            action,
            Retryability::Transient,
            "the server gave no answer within answer_timeout",
        ),
        again: Again::Reconnect,
    }
}

/// A commit that got no answer, and of which nothing could be learnt since.
pub(crate) fn in_doubt(action: &str, source: Error) -> Error {
    Error::backend(
        BACKEND,
        format!("{action} (it is not known whether it was committed: read back, or repeat it)"),
        Retryability::Indeterminate,
        source,
    )
}
