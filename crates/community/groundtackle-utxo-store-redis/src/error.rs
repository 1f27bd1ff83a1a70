use groundtackle_utxo_store::{Attempts, Error, Result, Retryability};
use redis::{ErrorKind, RedisError};

pub(crate) const BACKEND: &str = "redis";

pub(crate) fn corrupt(what: impl Into<String>, detail: impl Into<String>) -> Error {
    Error::corrupt(BACKEND, what, detail)
}

/// A step that failed, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) again: Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    No,
    /// The server refused it for now.
    Yes,
    /// There is no connection.
    Unsent,
    /// No answer came: whether it was carried out is not known.
    Unanswered,
    /// All was tried; the error says so.
    GaveUp,
    /// The server does not know the script, so it was not carried out.
    NoScript,
}

impl Failed {
    /// Waits until it is time to try again.
    pub(crate) async fn again(self, attempts: &mut Attempts) -> Result<()> {
        if self.again == Again::GaveUp {
            return Err(self.error);
        }
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

impl Failed {
    pub(crate) fn unanswered(
        backend: &'static str,
        action: &str,
        source: impl Into<Source>,
    ) -> Self {
        Self {
            error: Error::backend(backend, action, Retryability::Transient, source),
            again: Again::Unanswered,
        }
    }
}

pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// The server's or the client's error in the port's terms.
pub(crate) fn failed(backend: &'static str, action: &str, error: RedisError) -> Failed {
    use Retryability::{Permanent, Transient};
    // What a script may not do has no code of its own.
    let in_script = error
        .detail()
        .is_some_and(|d| d.contains("The user executing the script"));
    let code = if in_script {
        Some("NOPERM")
    } else {
        error.code()
    };
    let (retryability, again, hint) = match (code, error.kind()) {
        (Some("LOADING"), _) => (Transient, Again::Yes, "the server is coming up"),
        (Some("BUSY"), _) => (
            Transient,
            Again::Yes,
            "the server is busy with a script; send less at a time",
        ),
        (Some("READONLY"), _) => (
            Transient,
            Again::Yes,
            "the server is a replica; give the URL of the primary",
        ),
        (Some("MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN"), _) => {
            (Transient, Again::Yes, "the server is not up to it for now")
        }
        (Some("OOM"), _) => (
            Transient,
            Again::No,
            "the server has reached its maxmemory, nothing was applied; raise it, or prune",
        ),
        (Some("MISCONF"), _) => (
            Transient,
            Again::No,
            "the server can't write to its disk, nothing was applied; free space there",
        ),
        (Some("NOREPLICAS"), _) => (
            Transient,
            Again::No,
            "the server lacks the replicas that its min-replicas-to-write asks for",
        ),
        (Some("NOAUTH" | "WRONGPASS"), _) | (_, ErrorKind::AuthenticationFailed) => (
            Permanent,
            Again::No,
            "the server refuses user or password; check them, and the server's ACL",
        ),
        (Some("NOPERM"), _) => (
            Permanent,
            Again::No,
            "the user lacks rights; README.md has the ACL that the store needs",
        ),
        (Some("MOVED" | "ASK" | "CROSSSLOT"), _) => (
            Permanent,
            Again::No,
            "the server is part of a Redis Cluster; use RedisClusterUtxoStore, or a server of its own",
        ),
        (Some("NOSCRIPT"), _) => (Transient, Again::NoScript, "the script is gone"),
        (Some("WRONGTYPE"), _) => {
            return corrupt("a key of the store", "it holds another kind of data").into();
        }
        (_, ErrorKind::Io | ErrorKind::Parse) => {
            return Failed::unanswered(backend, action, error);
        }
        _ => (Permanent, Again::No, ""),
    };
    let action = if hint.is_empty() {
        action.to_owned()
    } else {
        format!("{action} ({hint})")
    };
    Failed {
        error: Error::backend(backend, action, retryability, error),
        again,
    }
}

/// A change that got no answer, and of which nothing could be learnt since.
pub(crate) fn in_doubt(action: &str, source: Error) -> Error {
    Error::backend(
        BACKEND,
        format!("{action} (it is not known whether it was carried out: read back, or repeat it)"),
        Retryability::Indeterminate,
        source,
    )
}
