use std::path::PathBuf;

use groundtackle_core::Secret;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::address::Endpoint;
use crate::blocking::Blocking;
use crate::dial::Dialer;
use crate::error::Result;
use crate::secret::SecretSource;
use crate::tls::Authorities;

/// The way to a server that has a protocol of its own: secrets, a connection, and TLS on it.
#[derive(Debug)]
pub struct Way {
    dialer: Dialer,
    blocking: Blocking,
    authorities: Authorities,
}

impl Way {
    /// A way on which these authorities are believed: those of a PEM file, or the system's.
    #[must_use]
    pub fn new(tls_authorities: Option<PathBuf>) -> Self {
        Self {
            dialer: Dialer::default(),
            blocking: Blocking::default(),
            authorities: Authorities::new(tls_authorities),
        }
    }

    /// What a secret is now; see [`SecretSource::read`].
    ///
    /// # Errors
    /// `Secret`.
    pub async fn secret(&self, source: &SecretSource) -> Result<Secret> {
        source.read(&self.blocking).await
    }

    /// Connects; see [`Dialer::connect`].
    ///
    /// # Errors
    /// As there.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<TcpStream> {
        self.dialer.connect(endpoint).await
    }

    /// TLS over a connection; see [`Authorities::connect`].
    ///
    /// # Errors
    /// As there.
    pub async fn secure(
        &self,
        stream: TcpStream,
        endpoint: &Endpoint,
    ) -> Result<TlsStream<TcpStream>> {
        self.authorities.connect(stream, endpoint).await
    }
}

/// Reads the URL of a config, for `deserialize_with`. Where it is written there, and not in a file, what `refuses` says of it is told
/// with its line.
///
/// # Errors
/// What `refuses` says, without the URL.
pub fn checked_url<'de, D: Deserializer<'de>>(
    deserializer: D,
    refuses: impl FnOnce(&Secret) -> Option<&'static str>,
) -> Result<SecretSource, D::Error> {
    let source = SecretSource::deserialize(deserializer)?;
    if let SecretSource::Given(url) = &source
        && let Some(why) = refuses(url)
    {
        return Err(D::Error::custom(why));
    }
    Ok(source)
}
