use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::Endpoint;
use crate::blocking::Blocking;
use crate::error::{Error, Result};

/// How connections are protected, for adapters whose URLs don't say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Tls {
    /// TLS with a certificate of a known authority that names the host. A server without TLS is refused.
    #[default]
    Verify,
    /// No TLS: for a server on this machine or a network that nobody else listens to.
    Off,
}

/// Whose certificates are believed: those of a PEM file, or of the system. They are read when they are needed first; what can't be
/// read is tried again the next time.
pub struct Authorities {
    file: Option<PathBuf>,
    blocking: Blocking,
    loaded: OnceCell<Loaded>,
}

#[derive(Clone)]
struct Loaded {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Authorities {
    /// Those of this file; `None`: the system's.
    #[must_use]
    pub fn new(file: Option<PathBuf>) -> Self {
        Self {
            file,
            blocking: Blocking::default(),
            loaded: OnceCell::new(),
        }
    }

    /// The cryptography that connections use.
    #[must_use]
    pub fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    async fn load(&self) -> Result<Loaded> {
        let load = || async {
            let file = self.file.clone();
            let place = self.file.clone();
            let read = self.blocking.run(move || read(file.as_deref())).await;
            read.unwrap_or_else(|| Err("reading them was given up".into()))
                .map_err(|source| Error::Authorities { place, source })
        };
        self.loaded.get_or_try_init(load).await.cloned()
    }

    /// The certificates.
    ///
    /// # Errors
    /// `Authorities`.
    pub async fn roots(&self) -> Result<Arc<RootCertStore>> {
        Ok(self.load().await?.roots)
    }

    /// TLS over a connection, with certificate and name verified.
    ///
    /// **Cancel safety**: dropped, the connection goes with it.
    ///
    /// # Errors
    /// `Authorities` and `Tls`.
    pub async fn connect(
        &self,
        stream: TcpStream,
        endpoint: &Endpoint,
    ) -> Result<TlsStream<TcpStream>> {
        let config = self.load().await?.config;
        let failed = |source| Error::Tls {
            address: endpoint.to_string(),
            source,
        };
        let name = ServerName::try_from(endpoint.host().to_owned())
            .map_err(|error| failed(io::Error::other(error)))?;
        TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(failed)
    }
}

fn read(file: Option<&Path>) -> Result<Loaded, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(path)? {
                roots.add(certificate?)?;
            }
        }
        None => {
            // Some of a system's certificates are of forms that nobody reads any more.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".into());
    }
    let config = ClientConfig::builder_with_provider(Authorities::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    let (roots, config) = (Arc::new(roots), Arc::new(config));
    Ok(Loaded { roots, config })
}

/// The error of rustls in that of a connection.
pub(crate) fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Why TLS was not made, in a word for machines: `certificate-expired`, `certificate-not-yet-valid`, `certificate-untrusted`,
/// `certificate-wrong-name`, `certificate-refused` for all else that is wrong with it, and `tls-failed`.
#[must_use]
pub fn certificate_cause(error: &rustls::Error) -> &'static str {
    let rustls::Error::InvalidCertificate(error) = error else {
        return "tls-failed";
    };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate-expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "certificate-not-yet-valid"
        }
        // Signed by nobody who is believed, or by a namesake of one.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "certificate-untrusted",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "certificate-wrong-name"
        }
        _ => "certificate-refused",
    }
}
