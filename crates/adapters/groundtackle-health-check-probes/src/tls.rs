use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use groundtackle_health_check::{Check, Observation};
use groundtackle_health_check_client::{Authorities, Dialer, Endpoint, certificate_cause};
use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde::Deserialize;
use tokio_rustls::TlsConnector;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::probe::{either, failed};

/// A server whose certificate is good, and stays so for a while.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsProbe {
    /// Host and port, such as `"node.example:443"`.
    pub address: Endpoint,
    /// The name that the certificate must be for. Default: the host.
    #[serde(default)]
    pub server_name: Option<String>,
    /// The certificates of the authorities that are believed, as a PEM file. Default: the system's.
    #[serde(default)]
    pub authorities: Option<PathBuf>,
    /// Whether chain and name are verified. If not, only the times of the certificates that the server shows are judged. Default true.
    #[serde(default = "yes")]
    pub verify: bool,
    /// With fewer days left it is `Warn`. Default 21.
    #[serde(default = "warn_days")]
    pub warn_days: u16,
    /// With fewer days left it is `Fail`. Default 7.
    #[serde(default = "fail_days")]
    pub fail_days: u16,
}

const fn yes() -> bool {
    true
}

const fn warn_days() -> u16 {
    21
}

const fn fail_days() -> u16 {
    7
}

impl TlsProbe {
    /// A probe of this server, against the system's authorities.
    #[must_use]
    pub const fn new(address: Endpoint) -> Self {
        Self {
            address,
            server_name: None,
            authorities: None,
            verify: true,
            warn_days: warn_days(),
            fail_days: fail_days(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct TlsCheck {
    probe: TlsProbe,
    dialer: Dialer,
    authorities: Authorities,
}

impl From<TlsProbe> for TlsCheck {
    fn from(probe: TlsProbe) -> Self {
        let authorities = Authorities::new(probe.authorities.clone());
        Self {
            probe,
            dialer: Dialer::default(),
            authorities,
        }
    }
}

/// Takes whatever certificate is shown, to judge it afterwards; that the server has its key is verified. Nothing is sent over such
/// a connection.
#[derive(Debug)]
struct Shown {
    chain: Mutex<Vec<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        let mut shown = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = chain.map(|of| of.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// When all the certificates that were shown are good, in time since 1970.
#[derive(Clone, Copy)]
struct Validity {
    begins: Duration,
    ends: Duration,
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = i64::try_from(self.ends.as_secs()).ok();
        match ends.and_then(|secs| Timestamp::from_second(secs).ok()) {
            Some(ends) => write!(f, "the first certificate ends {ends}"),
            None => f.write_str("the certificates end later than can be told"),
        }
    }
}

impl Validity {
    fn of(chain: &[CertificateDer<'_>]) -> Result<Self, x509_cert::der::Error> {
        let mut all = Self {
            begins: Duration::ZERO,
            ends: Duration::MAX,
        };
        for certificate in chain {
            let validity = Certificate::from_der(certificate)?.tbs_certificate.validity;
            all.begins = all.begins.max(validity.not_before.to_unix_duration());
            all.ends = all.ends.min(validity.not_after.to_unix_duration());
        }
        Ok(all)
    }
}

const fn days(count: u16) -> Duration {
    Duration::from_secs(count as u64 * 86_400)
}

/// It is good now, and not for long.
const EXPIRES: &str = "certificate-expires";

impl TlsCheck {
    async fn look(&self) -> Result<Observation, Observation> {
        let address = &self.probe.address;
        let name = self.probe.server_name.as_deref().unwrap_or(address.host());
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| failed("certificate-wrong-name", address, &error))?;
        let chain = self.shown(&name).await?;
        let validity =
            Validity::of(&chain).map_err(|error| failed("certificate-refused", address, &error))?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        if self.probe.verify {
            self.judge_chain(&chain, &name, validity, now).await
        } else {
            Ok(self.judge_times(validity, now))
        }
    }

    /// What the server shows.
    async fn shown(
        &self,
        name: &ServerName<'static>,
    ) -> Result<Vec<CertificateDer<'static>>, Observation> {
        let address = &self.probe.address;
        let stream = self
            .dialer
            .connect(address)
            .await
            .map_err(|error| error.observation())?;
        let provider = Authorities::provider();
        let shown = Arc::new(Shown {
            chain: Mutex::default(),
            provider: provider.clone(),
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed("tls-failed", address, &error))?
            .dangerous()
            .with_custom_certificate_verifier(shown.clone())
            .with_no_client_auth();
        let connected = TlsConnector::from(Arc::new(config))
            .connect(name.clone(), stream)
            .await;
        drop(connected.map_err(|error: io::Error| failed("tls-failed", address, &error))?);
        let mut chain = shown.chain.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *chain))
    }

    /// As a client would, now and in some days: then all of the path that it takes must be good, whatever else is shown.
    async fn judge_chain(
        &self,
        chain: &[CertificateDer<'static>],
        name: &ServerName<'static>,
        validity: Validity,
        now: Duration,
    ) -> Result<Observation, Observation> {
        let address = &self.probe.address;
        let roots = self
            .authorities
            .roots()
            .await
            .map_err(|error| error.observation())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Authorities::provider())
            .build()
            .map_err(|error| failed("authorities-unusable", address, &error))?;
        let (first, others) = chain.split_first().ok_or_else(|| {
            Observation::fail("tls-failed").with_detail("the server shows no certificate")
        })?;
        let verify = |at: Duration| {
            let at = UnixTime::since_unix_epoch(now.saturating_add(at));
            verifier.verify_server_cert(first, others, name, &[], at)
        };
        verify(Duration::ZERO)
            .map_err(|error| failed(certificate_cause(&error), address, &error))?;
        let seen = if verify(days(self.probe.fail_days)).is_err() {
            Observation::fail(EXPIRES)
        } else if verify(days(self.probe.warn_days)).is_err() {
            Observation::warn(EXPIRES)
        } else {
            Observation::pass()
        };
        Ok(seen.with_detail(format!("{address}: {validity}")))
    }

    fn judge_times(&self, validity: Validity, now: Duration) -> Observation {
        let seen = if validity.begins > now {
            Observation::fail("certificate-not-yet-valid")
        } else if validity.ends < now {
            Observation::fail("certificate-expired")
        } else if validity.ends < now.saturating_add(days(self.probe.fail_days)) {
            Observation::fail(EXPIRES)
        } else if validity.ends < now.saturating_add(days(self.probe.warn_days)) {
            Observation::warn(EXPIRES)
        } else {
            Observation::pass()
        };
        seen.with_detail(format!("{}: {validity}; not verified", self.probe.address))
    }
}

#[async_trait]
impl Check for TlsCheck {
    async fn check(&self) -> Observation {
        either(self.look().await)
    }
}
