//! How PostgreSQL's programs fail, in the words of the port.

use std::io;
use std::time::Duration;

use groundtackle_backup::{Error, Retryability};

/// The adapter's name.
pub(crate) const BACKEND: &str = "postgres";

/// How a program ended; behind it, what it said.
#[derive(Debug, thiserror::Error)]
#[error("{how}")]
pub(crate) struct Failed {
    how: String,
    #[source]
    said: Option<Said>,
}

/// The program's own words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

/// What programs and servers say where something is set up wrongly, and what helps. Servers that speak another language are not
/// understood; what they say is told all the same.
const HINTS: [(&str, &str); 17] = [
    (
        "can only write single tablespace to stdout",
        "clusters with further tablespaces can't be backed up: move what is in them to pg_default",
    ),
    (
        "number of requested standby connections exceeds",
        "set wal_level to replica and max_wal_senders to 2 more than what it is used for, and restart the server",
    ),
    (
        "must be superuser or replication role",
        "grant the role the right: alter role … replication",
    ),
    (
        "permission denied to start wal sender",
        "grant the role the right: alter role … replication",
    ),
    (
        "no pg_hba.conf entry for replication",
        "let the role in to the database replication by pg_hba.conf",
    ),
    (
        "no pg_hba.conf entry",
        "let the role in by pg_hba.conf, with TLS or without as sslmode has it",
    ),
    (
        "password authentication failed",
        "set the role's password in password or passfile",
    ),
    (
        "no password supplied",
        "set the role's password in password or passfile",
    ),
    (
        "all replication slots are in use",
        "raise max_replication_slots and restart the server, or set hold_wal to false and wal_keep_size on the server",
    ),
    (
        "replication slots can only be used if",
        "raise max_replication_slots and restart the server, or set hold_wal to false and wal_keep_size on the server",
    ),
    (
        "has already been removed",
        "set hold_wal to true, or raise max_slot_wal_keep_size or wal_keep_size on the server",
    ),
    (
        "checksum",
        "a page of the database is damaged, or a certificate: see what it says, and the server's log",
    ),
    (
        "server version mismatch",
        "set programs to the folder of the server's version",
    ),
    (
        "incompatible server version",
        "set programs to the folder of the server's version",
    ),
    (
        "root certificate file",
        "set sslrootcert to the certificates of the authorities, or sslmode to what protects the connection",
    ),
    (
        "server does not support SSL",
        "set up TLS on the server, or sslmode to disable where nobody else listens",
    ),
    (
        "does not exist",
        "write the name of a role or database that there is",
    ),
];

impl Failed {
    fn new(how: impl Into<String>, said: String) -> Self {
        Self {
            how: how.into(),
            said: Some(said).filter(|said| !said.is_empty()).map(Said),
        }
    }

    fn error(self, name: &str, retryability: Retryability) -> Error {
        Error::backend(BACKEND, format!("running {name}"), retryability, self)
    }

    /// It could not be started.
    pub(crate) fn start(name: &str, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::NotFound => Error::invalid_request(format!(
                "the program {name} is not there: install PostgreSQL's client programs, or set programs to their folder"
            )),
            _ => Error::backend(
                BACKEND,
                format!("starting {name}"),
                Retryability::Permanent,
                error,
            ),
        }
    }

    /// It brought nothing for so long.
    pub(crate) fn stalled(name: &str, stall: Duration, said: String) -> Error {
        let how = format!(
            "it brought nothing for {} s and was killed: look at the server, or raise the timeout",
            stall.as_secs_f32()
        );
        Self::new(how, said).error(name, Retryability::Transient)
    }

    /// It ended, and not well.
    pub(crate) fn ended(name: &str, how: String, said: String) -> Error {
        let hint = HINTS.iter().find(|(word, _)| said.contains(word));
        match hint {
            Some((_, hint)) => {
                Self::new(format!("{how}; {hint}"), said).error(name, Retryability::Permanent)
            }
            None => Self::new(how, said).error(name, Retryability::Transient),
        }
    }
}

/// What a program brought is not whole, or not what it should be.
pub(crate) fn incomplete(detail: impl Into<String>) -> Error {
    Error::Incomplete {
        detail: detail.into(),
    }
}

/// Nobody waits for it.
pub(crate) fn given_up() -> Error {
    incomplete("it was given up")
}

/// The thread that works on it is gone.
pub(crate) fn stopped(error: tokio::task::JoinError) -> Error {
    Error::backend(
        "the process",
        "work on a cluster",
        Retryability::Permanent,
        error,
    )
}
