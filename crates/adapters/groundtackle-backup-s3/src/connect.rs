//! A client from the settings.

use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedCredentialsProvider, StalledStreamProtectionConfig, retry::RetryConfig,
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use groundtackle_backup::{Error, Result};

use crate::config::S3TargetConfig;

/// Pinned: newer ones change what is sent.
fn behaviour() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

pub(crate) async fn client(config: &S3TargetConfig) -> Result<Client> {
    let mut tls = TlsContext::builder();
    if let Some(path) = &config.tls_authorities {
        let file = path.clone();
        let pem = tokio::task::spawn_blocking(move || std::fs::read(file)).await;
        let pem = pem.map_err(std::io::Error::other).flatten();
        let pem = pem.map_err(|error| {
            let path = path.display();
            Error::invalid_request(format!("s3: tls_authorities {path} can't be read: {error}"))
        })?;
        tls = tls.with_trust_store(TrustStore::empty().with_pem_certificate(pem));
    }
    let tls = tls
        .build()
        .map_err(|error| Error::invalid_request(format!("s3: TLS: {error}")))?;
    let http = Builder::new()
        .tls_provider(Provider::rustls(CryptoMode::Ring))
        .tls_context(tls)
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(config.connect_timeout)
        .build();

    let mut region = config.region.clone().map(Region::new);
    if region.is_none() && config.endpoint.is_some() {
        region = Some(Region::from_static("us-east-1"));
    }
    let own = config.credentials.as_ref().map(|own| {
        let token = own.session_token.as_ref();
        SharedCredentialsProvider::new(Credentials::new(
            own.access_key_id.expose(),
            own.secret_access_key.expose(),
            token.map(|token| token.expose().to_owned()),
            None,
            "settings",
        ))
    });

    let mut builder = aws_sdk_s3::Config::builder();
    let needs_chain = own.is_none() || region.is_none() || config.assume_role.is_some();
    if needs_chain {
        let mut chain = aws_config::defaults(behaviour())
            .http_client(http.clone())
            .timeout_config(timeouts.clone());
        if let Some(region) = &region {
            chain = chain.region(region.clone());
        }
        if let Some(profile) = &config.profile {
            chain = chain.profile_name(profile);
        }
        if let Some(own) = &own {
            chain = chain.credentials_provider(own.clone());
        }
        let chain = Box::pin(chain.load()).await;
        region = region.or_else(|| chain.region().cloned());
        let credentials = match &config.assume_role {
            None => chain.credentials_provider(),
            Some(role) => {
                let mut provider = AssumeRoleProvider::builder(&role.arn)
                    .session_name(&role.session_name)
                    .configure(&chain);
                if let Some(region) = &region {
                    provider = provider.region(region.clone());
                }
                if let Some(external_id) = &role.external_id {
                    provider = provider.external_id(external_id.expose());
                }
                let provider = Box::pin(provider.build()).await;
                Some(SharedCredentialsProvider::new(provider))
            }
        };
        builder = builder.credentials_provider(credentials.ok_or_else(|| {
            Error::invalid_request("s3: there are no credentials; set credentials, or a profile")
        })?);
    } else if let Some(own) = own {
        builder = builder.credentials_provider(own);
    }
    let Some(region) = region else {
        return Err(Error::invalid_request(
            "s3: no region is known; set region, or AWS_REGION",
        ));
    };
    builder.set_endpoint_url(config.endpoint.clone());
    let builder = builder
        .behavior_version(behaviour())
        .region(region)
        .http_client(http)
        .force_path_style(config.path_style)
        .timeout_config(timeouts)
        // What may be done again is decided here, not there.
        .retry_config(RetryConfig::disabled())
        // Each request has a timeout of its own.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // Each request says which checksum it wants; servers differ in what they take by default.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    Ok(Client::from_conf(builder.build()))
}
