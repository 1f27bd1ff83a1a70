//! A client from the settings.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, ProvideCredentials, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use groundtackle_core::Secret;
use groundtackle_health_check::Observation;
use groundtackle_health_check_client::{Blocking, SecretSource, in_full};
use std::time::Duration;
use tokio::sync::OnceCell;

use crate::config::{S3CheckConfig, S3Credentials};

/// Pinned: newer ones change what is sent.
fn behaviour() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// A connection serves one run: in the next one, a pool would hide a server that takes no new ones.
const IDLE: Duration = Duration::from_millis(1);

/// How the server is reached. Its certificates are read when they are needed first.
#[derive(Debug, Default)]
pub(crate) struct Way {
    http: OnceCell<SharedHttpClient>,
    blocking: Blocking,
}

impl Way {
    async fn secret(&self, source: &SecretSource) -> Result<Secret, Observation> {
        let secret = source.read(&self.blocking).await;
        secret.map_err(|error| error.observation())
    }

    async fn http(&self, config: &S3CheckConfig) -> Result<SharedHttpClient, Observation> {
        let unusable = |why: String| Observation::fail("authorities-unusable").with_detail(why);
        let make = || async {
            let mut tls = TlsContext::builder();
            if let Some(path) = &config.tls_authorities {
                let file = path.clone();
                let pem = self.blocking.run(move || std::fs::read(file)).await;
                let pem = pem.unwrap_or_else(|| Err(std::io::Error::other("it was given up")));
                let pem = pem.map_err(|error| {
                    unusable(format!("{} can't be read: {error}", path.display()))
                })?;
                tls = tls.with_trust_store(TrustStore::empty().with_pem_certificate(pem));
            }
            let tls = tls.build().map_err(|error| unusable(error.to_string()))?;
            Ok(Builder::new()
                .tls_provider(Provider::rustls(CryptoMode::Ring))
                .tls_context(tls)
                .pool_idle_timeout(IDLE)
                .build_https())
        };
        self.http.get_or_try_init(make).await.cloned()
    }

    async fn given(&self, given: &S3Credentials) -> Result<Credentials, Observation> {
        let id = self.secret(&given.access_key_id).await?;
        let key = self.secret(&given.secret_access_key).await?;
        let token = match &given.session_token {
            Some(token) => Some(self.secret(token).await?.expose().to_owned()),
            None => None,
        };
        Ok(Credentials::new(
            id.expose(),
            key.expose(),
            token,
            None,
            "settings",
        ))
    }

    /// A client with the credentials as they are now.
    pub(crate) async fn client(&self, config: &S3CheckConfig) -> Result<Client, Observation> {
        let http = self.http(config).await?;
        let mut region = config.region.clone().map(Region::new);
        if region.is_none() && config.endpoint.is_some() {
            region = Some(Region::from_static("us-east-1"));
        }
        let given = match &config.credentials {
            Some(given) => Some(self.given(given).await?),
            None => None,
        };
        let (credentials, region) = match (given, region) {
            (Some(given), Some(region)) => (given, region),
            (given, region) => {
                let mut chain = aws_config::defaults(behaviour()).http_client(http.clone());
                if let Some(region) = region {
                    chain = chain.region(region);
                }
                if let Some(profile) = &config.profile {
                    chain = chain.profile_name(profile);
                }
                let chain = Box::pin(chain.load()).await;
                let region = chain.region().cloned().ok_or_else(|| {
                    Observation::fail("no-region")
                        .with_detail("no region is known; set region, or AWS_REGION")
                })?;
                let found = match given {
                    Some(given) => given,
                    None => from_chain(&chain).await?,
                };
                (found, region)
            }
        };
        let mut builder = aws_sdk_s3::Config::builder();
        builder.set_endpoint_url(config.endpoint.clone());
        let builder = builder
            .behavior_version(behaviour())
            .region(region)
            .credentials_provider(credentials)
            .http_client(http)
            .force_path_style(config.path_style)
            // What was seen is what counts: the next run is the next try.
            .retry_config(RetryConfig::disabled())
            // Each request has a timeout of its own.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Bytes are compared here, and servers differ in what they take by default.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        Ok(Client::from_conf(builder.build()))
    }
}

async fn from_chain(chain: &aws_config::SdkConfig) -> Result<Credentials, Observation> {
    let none = |why: String| Observation::fail("no-credentials").with_detail(why);
    let Some(provider) = chain.credentials_provider() else {
        return Err(none("there are none; set credentials, or a profile".into()));
    };
    let found = Box::pin(provider.provide_credentials()).await;
    found.map_err(|error| none(in_full(&error)))
}
