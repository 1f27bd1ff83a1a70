//! Why a node does not say.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use groundtackle_health_check::Observation;
use groundtackle_health_check_client::Error as HttpError;

/// The result of a call.
pub type Result<T, E = RpcError> = std::result::Result<T, E>;

/// A call that brought no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// There is no answer.
    #[error("{method} has no answer")]
    Http {
        /// What was called.
        method: &'static str,
        /// The client's own error.
        #[source]
        source: HttpError,
    },
    /// The file of credentials can't be used.
    #[error("{} can't be used; it must be a line of user:password that this process may read", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The node does not let us in (401).
    #[error("{method}: the node does not take these credentials (401)")]
    Unauthorized {
        /// What was called.
        method: &'static str,
    },
    /// The node lets us in, but not to this (403).
    #[error(
        "{method}: the node forbids it (403); see its lists of addresses and methods that it allows"
    )]
    Forbidden {
        /// What was called.
        method: &'static str,
    },
    /// More was asked than is allowed (429, or error -32005).
    #[error("{method}: the node was asked too often; take a longer period")]
    RateLimited {
        /// What was called.
        method: &'static str,
    },
    /// The node does not offer the method (error -32601 or -32004).
    #[error("{method}: the node does not offer it")]
    NotOffered {
        /// What was called.
        method: &'static str,
    },
    /// The node answers with an error of its own.
    #[error("{method}: error {code}: {message}")]
    Node {
        /// What was called.
        method: &'static str,
        /// The node's number for it.
        code: i64,
        /// The node's words, at most 200 characters of them, without what we gave it as a secret.
        message: String,
    },
    /// A status that is none of these, and no JSON-RPC with it.
    #[error("{method}: HTTP status {status}")]
    Status {
        /// What was called.
        method: &'static str,
        /// The status.
        status: u16,
    },
    /// What came is no answer to what was asked.
    #[error("{method}: what came is no answer to it ({problem})")]
    Garbled {
        /// What was called.
        method: &'static str,
        /// How it shows, without what it says.
        problem: &'static str,
    },
}

impl RpcError {
    /// In a word for machines: `credentials-unreadable`, `unauthorized`, `forbidden`, `rate-limited`, `not-offered`, `rpc-error`, `status`,
    /// `no-json-rpc`, and those of [`HttpError::cause`].
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Http { source, .. } => source.cause(),
            Self::Credentials { .. } => "credentials-unreadable",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Forbidden { .. } => "forbidden",
            Self::RateLimited { .. } => "rate-limited",
            Self::NotOffered { .. } => "not-offered",
            Self::Node { .. } => "rpc-error",
            Self::Status { .. } => "status",
            Self::Garbled { .. } => "no-json-rpc",
        }
    }

    /// As what a check found: `Unknown` for what can't be seen from here (`not-offered`, `rate-limited`), otherwise `Fail`.
    #[must_use]
    pub fn observation(&self) -> Observation {
        let mut line = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            line = format!("{line}: {error}");
            source = error.source();
        }
        let seen = match self {
            Self::NotOffered { .. } | Self::RateLimited { .. } => {
                Observation::unknown(self.cause())
            }
            _ => Observation::fail(self.cause()),
        };
        seen.with_detail(line)
    }
}
