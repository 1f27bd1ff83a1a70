//! What keeps an answer from coming.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use groundtackle_core::Retryability;
use groundtackle_health_check::Observation;

use crate::tls::{certificate_cause, rustls_error};

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// No answer, or none that can be read. What an answer says is never an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system's resolver has no address of this name.
    #[error("{name} has no address")]
    Resolve {
        /// The name.
        name: String,
        /// The system's own error.
        #[source]
        source: io::Error,
    },
    /// Nobody took the connection.
    #[error("{address} can't be connected to")]
    Connect {
        /// Host and port.
        address: String,
        /// The error of the address that was tried last.
        #[source]
        source: io::Error,
    },
    /// The certificates of authorities can't be used.
    #[error(
        "{} can't be used; name a PEM file of certificates of authorities",
        place.as_ref().map_or_else(|| "the system's certificates of authorities".into(), |path| path.display().to_string())
    )]
    Authorities {
        /// Their file; otherwise the system's.
        place: Option<PathBuf>,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A secret that a file holds can't be read.
    #[error("{} gives no secret; it must be a readable file of text, not empty, of at most 64 KiB", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A connection was made, but TLS was not.
    #[error("{address}: there is no TLS with it")]
    Tls {
        /// Host and port.
        address: String,
        /// A [`rustls::Error`] inside, or that of the connection.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("{address}: no answer came that can be read")]
    Http {
        /// Host and port.
        address: String,
        /// Whether the request may have arrived.
        sent: bool,
        /// The protocol's own error.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The answer is longer than it may be.
    #[error("{address}: the answer has more than {limit} bytes")]
    TooLarge {
        /// Host and port.
        address: String,
        /// How many there may be.
        limit: u64,
    },
}

impl Error {
    /// In a word for machines: `name-not-found`, `refused`, `unreachable`, `timeout`, `connect-failed`, `authorities-unusable`,
    /// `secret-unreadable`, `no-http`, `answer-too-large`, and those of [`certificate_cause`].
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "name-not-found",
            Self::Connect { source, .. } => io_cause(source).unwrap_or("connect-failed"),
            Self::Authorities { .. } => "authorities-unusable",
            Self::Secret { .. } => "secret-unreadable",
            Self::Tls { source, .. } => {
                rustls_error(source).map_or("tls-failed", certificate_cause)
            }
            Self::Http { .. } => "no-http",
            Self::TooLarge { .. } => "answer-too-large",
        }
    }

    /// Whether the request may be sent again, and whether it may have arrived.
    #[must_use]
    pub const fn retryability(&self) -> Retryability {
        match self {
            Self::Http { sent: true, .. } | Self::TooLarge { .. } => Retryability::Indeterminate,
            Self::Authorities { .. } => Retryability::Permanent,
            // Whoever changes a secret may be about to write it.
            Self::Secret { .. }
            | Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Http { .. } => Retryability::Transient,
        }
    }

    /// As what a check found: `Fail`, with all the causes in a line.
    #[must_use]
    pub fn observation(&self) -> Observation {
        Observation::fail(self.cause()).with_detail(in_full(self))
    }
}

fn io_cause(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some("refused"),
        io::ErrorKind::TimedOut => Some("timeout"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some("unreachable"),
        _ => None,
    }
}

/// The cause of another client's error, if somewhere below it lies that nobody took the connection, or that there is no TLS:
/// `refused`, `unreachable`, `timeout`, and those of [`certificate_cause`].
#[must_use]
pub fn connection_cause(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref() {
            return Some(certificate_cause(tls));
        }
        let io = error.downcast_ref::<io::Error>();
        if let Some(cause) = io.and_then(io_cause) {
            return Some(cause);
        }
        // What an error of I/O is made of is no source of it.
        next = match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// An error with all its causes in a line, for the detail of an observation. It must have no secret in it.
#[must_use]
pub fn in_full(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line = format!("{line}: {error}");
        source = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("another client's")]
    struct Other(#[source] io::Error);

    #[test]
    fn what_lies_below_is_found() {
        let tls = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let broken = rustls::Error::HandshakeNotComplete;
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        for (error, cause) in [
            (refused(), Some("refused")),
            (io::Error::other(refused()), Some("refused")),
            (io::Error::other(tls()), Some("certificate-untrusted")),
            (
                io::Error::other(io::Error::other(expired)),
                Some("certificate-expired"),
            ),
            (io::Error::other(broken), Some("tls-failed")),
            (io::ErrorKind::HostUnreachable.into(), Some("unreachable")),
            (io::ErrorKind::TimedOut.into(), Some("timeout")),
            (io::ErrorKind::UnexpectedEof.into(), None),
            (io::Error::other("something"), None),
        ] {
            let error = Other(error);
            assert_eq!(connection_cause(&error), cause, "{error:?}");
        }
        assert_eq!(connection_cause(&tls()), Some("certificate-untrusted"));
        assert_eq!(
            in_full(&Other(refused())),
            "another client's: connection refused"
        );
    }
}
