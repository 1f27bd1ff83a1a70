//! Evidence from a server.

use async_trait::async_trait;
use groundtackle_health_check_client::{Authorities, HttpClient};
use groundtackle_release_gate::{Error, Evidence, EvidenceSource, Request, Result, Retryability};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::config::HttpEvidenceConfig;

const BACKEND: &str = "http";

/// A server that answers with a JSON list of evidence.
#[derive(Debug)]
pub struct HttpEvidence {
    name: String,
    client: HttpClient,
    config: HttpEvidenceConfig,
}

impl HttpEvidence {
    /// Asks as the config says; certificates are verified by `authorities`.
    #[must_use]
    pub fn new(config: HttpEvidenceConfig, authorities: Authorities) -> Self {
        let client = HttpClient::new(
            config.url.clone(),
            config.headers.clone(),
            authorities,
            config.max_answer,
        );
        Self {
            name: match &config.name {
                Some(name) => format!("{BACKEND} {name}"),
                // The path may be secret, and is not printed.
                None => format!("{BACKEND} {}", config.url),
            },
            client,
            config,
        }
    }

    fn failed(
        &self,
        action: &str,
        retryability: Retryability,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        let action = format!("{action} {}", self.config.url);
        Error::backend(BACKEND, action, retryability, source)
    }

    fn read(&self, body: &[u8]) -> Result<Vec<Evidence>> {
        let corrupt =
            |detail: String| Error::corrupt(format!("the answer of {}", self.name), detail);
        let all: Vec<Evidence> = serde_json::from_slice(body)
            .map_err(|error| corrupt(format!("it is no list of evidence: {error}")))?;
        let mut named = Vec::with_capacity(all.len());
        for mut evidence in all {
            let fact =
                serde_json::to_value(&evidence.fact).map_err(|error| corrupt(error.to_string()))?;
            let kind = fact
                .get("kind")
                .and_then(|kind| kind.as_str())
                .unwrap_or_default();
            if !self.config.kinds.contains(kind) {
                return Err(corrupt(format!(
                    "it has a fact of the kind {kind:?}, which is not taken from there; name it in `kinds` if it may be"
                )));
            }
            evidence.source.clone_from(&self.name);
            named.push(evidence);
        }
        Ok(named)
    }
}

#[async_trait]
impl EvidenceSource for HttpEvidence {
    fn name(&self) -> &str {
        &self.name
    }

    async fn collect(&self, request: &Request) -> Result<Vec<Evidence>> {
        let body = serde_json::to_vec(request)
            .map_err(|error| Error::invalid_request(error.to_string()))?;
        let mut headers = HeaderMap::new();
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json.clone());
        headers.insert(ACCEPT, json);
        let asked = self.client.request(Method::POST, headers, body.into());
        let answer = tokio::time::timeout(self.config.timeout, asked)
            .await
            .map_err(|error| self.failed("waiting for", Retryability::Transient, error))?
            .map_err(|error| {
                // Reading changes nothing, so that nothing can have been applied.
                let retryability = match error.retryability() {
                    Retryability::Permanent => Retryability::Permanent,
                    _ => Retryability::Transient,
                };
                self.failed("asking", retryability, error)
            })?;
        if answer.status != StatusCode::OK {
            let retryability = match answer.status {
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                    Retryability::Transient
                }
                status if status.is_server_error() => Retryability::Transient,
                _ => Retryability::Permanent,
            };
            let status = format!("the status is {}, and has to be 200", answer.status);
            return Err(self.failed("asking", retryability, status));
        }
        self.read(&answer.body)
    }
}
