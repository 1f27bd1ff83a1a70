//! What went wrong, as the port's errors.

use groundtackle_release_gate::{Error, Retryability};

pub(crate) const BACKEND: &str = "github";

/// Why GitHub did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the status is {status}: {message}")]
    Status { status: u16, message: String },
    #[error("requests are limited, and asked to wait for {0} s more")]
    Limited(u64),
    #[error("it took longer than {0:?}")]
    TimedOut(std::time::Duration),
    #[error("more than {0} requests would be needed; raise `max_requests`, or ask for less")]
    TooMany(usize),
}

pub(crate) fn failed(
    action: impl Into<String>,
    retryability: Retryability,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::backend(BACKEND, action, retryability, source)
}

/// An answer that is not what the API documents.
pub(crate) fn corrupt(what: &str, detail: impl Into<String>) -> Error {
    Error::corrupt(format!("GitHub's answer about {what}"), detail)
}
