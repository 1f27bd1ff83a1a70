//! A custom deployment protection rule: GitHub posts that a job waits, and is told whether it may go on.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use groundtackle_release_gate::{Error, EvidenceSource, FileLog, Gate, Length, Timestamp, collect};
use groundtackle_release_gate_github::{GitHub, ProtectionRequest, WebhookSecret};
use groundtackle_release_gate_http::Recorder;
use tokio::time::timeout;

/// GitHub waits for ten seconds.
const COLLECT_WITHIN: Duration = Duration::from_secs(6);

#[derive(Debug)]
pub struct Rule {
    pub secret: WebhookSecret,
    pub takes: Option<Length>,
    pub github: Arc<GitHub>,
    pub gate: Gate,
    pub sources: Vec<Arc<dyn EvidenceSource>>,
    pub log: FileLog,
}

pub fn routes(rule: Rule) -> Router {
    Router::new()
        .route("/github", post(delivered))
        .with_state(Arc::new(rule))
}

async fn delivered(
    State(rule): State<Arc<Rule>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let asked = match rule.secret.read(&headers, &body) {
        Ok(Some(asked)) => asked,
        Ok(None) => return (StatusCode::OK, "nothing waits for an answer\n".into()),
        Err(error @ Error::Untrusted { .. }) => {
            return (StatusCode::UNAUTHORIZED, format!("{error}\n"));
        }
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    match rule.answer(&asked).await {
        Ok(verdict) => (StatusCode::OK, format!("{verdict}\n")),
        Err(error) => {
            tracing::warn!(%error, "a job of GitHub was not answered");
            (StatusCode::BAD_GATEWAY, format!("{error}\n"))
        }
    }
}

impl Rule {
    async fn answer(&self, asked: &ProtectionRequest) -> groundtackle_release_gate::Result<String> {
        let request = self.github.question(asked, self.takes).await?;
        let sources: Vec<&dyn EvidenceSource> = self.sources.iter().map(|of| &**of).collect();
        let found = collect(&sources, &request, Timestamp::now());
        let late = |_| Error::invalid_request("the sources took too long; deliver it again");
        let found = timeout(COLLECT_WITHIN, found).await.map_err(late)?;
        let now = Timestamp::now();
        let decision = self.gate.judge(&found.evidence, &request, now);
        self.log.record(&decision, &found.evidence).await?;
        self.github
            .answer(asked, &decision, Timestamp::now())
            .await?;
        Ok(decision.verdict.to_string())
    }
}
