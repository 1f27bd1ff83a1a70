//! The answers.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use groundtackle_release_gate::{
    Decision, Evidence, EvidenceSource, Gate, Request, Result, Timestamp, Verdict,
};
use serde::Serialize;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::HttpGateConfig;
use crate::question;

/// The longest question.
const MAX_BODY: usize = 64 << 10;

/// Writes answers down.
#[async_trait]
pub trait Recorder: fmt::Debug + Send + Sync + 'static {
    /// Returns once it is durable. Until then nobody is told of the answer.
    ///
    /// **Cancel safety**: dropped, it may be recorded or not; nobody was told.
    ///
    /// # Errors
    /// When it is not, or may not be, recorded: whoever asked gets 503.
    async fn record(&self, decision: &Decision, evidence: &[Evidence]) -> Result<()>;
}

/// What answers: a gate, where its evidence comes from, and who writes it down.
#[derive(Debug)]
pub struct Webhook {
    gate: Gate,
    sources: Vec<Arc<dyn EvidenceSource>>,
    recorder: Arc<dyn Recorder>,
    clock: fn() -> Timestamp,
}

impl Webhook {
    /// By the system's clock.
    #[must_use]
    pub fn new(
        gate: Gate,
        sources: Vec<Arc<dyn EvidenceSource>>,
        recorder: Arc<dyn Recorder>,
    ) -> Self {
        Self {
            gate,
            sources,
            recorder,
            clock: Timestamp::now,
        }
    }

    /// By another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Timestamp) -> Self {
        self.clock = clock;
        self
    }
}

#[derive(Debug)]
struct App {
    webhook: Webhook,
    config: HttpGateConfig,
    under_way: Semaphore,
}

/// The routes `/check` and `/flagger`. Nest them where they fit.
pub fn router(webhook: Webhook, config: HttpGateConfig) -> Router {
    let under_way = Semaphore::new(config.max_at_once.min(Semaphore::MAX_PERMITS));
    Router::new()
        .route("/check", post(check))
        .route("/flagger", post(flagger))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(App {
            webhook,
            config,
            under_way,
        }))
}

async fn check(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    app.respond(&headers, || question::direct(&body)).await
}

async fn flagger(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    app.respond(&headers, || question::flagger(&body)).await
}

#[derive(Serialize)]
struct Answer<'a> {
    verdict: Verdict,
    decision: &'a Decision,
    /// The sources that could not say what they know.
    failed: &'a [String],
}

#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a str,
}

impl App {
    async fn respond(
        &self,
        headers: &HeaderMap,
        read: impl FnOnce() -> serde_json::Result<Request>,
    ) -> Response {
        if !self.may_ask(headers) {
            let refused = refuse(
                StatusCode::UNAUTHORIZED,
                "the bearer token is missing or wrong",
            );
            return ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response();
        }
        let Ok(_turn) = self.under_way.try_acquire() else {
            return refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many ask at once; ask again",
            );
        };
        let request = match read() {
            Ok(request) => request,
            Err(error) => {
                return refuse(
                    StatusCode::BAD_REQUEST,
                    &format!("what was posted is no question: {error}"),
                );
            }
        };
        let (evidence, failed) = self.collect(&request).await;
        let now = (self.webhook.clock)();
        let decision = self.webhook.gate.judge(&evidence, &request, now);
        if self
            .webhook
            .recorder
            .record(&decision, &evidence)
            .await
            .is_err()
        {
            return refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "the answer could not be recorded; ask again",
            );
        }
        let status = match decision.verdict {
            Verdict::Go => StatusCode::OK,
            Verdict::NoGo | Verdict::Hold | Verdict::Inconclusive => StatusCode::FORBIDDEN,
        };
        let answer = Answer {
            verdict: decision.verdict,
            decision: &decision,
            failed: &failed,
        };
        json(status, &answer)
    }

    fn may_ask(&self, headers: &HeaderMap) -> bool {
        let wanted = self.config.token.expose().as_bytes();
        let sent = headers
            .get(header::AUTHORIZATION)
            .map(HeaderValue::as_bytes)
            .and_then(|sent| sent.strip_prefix(b"Bearer "));
        !wanted.is_empty() && sent.is_some_and(|sent| bool::from(sent.ct_eq(wanted)))
    }

    /// All sources at once. Who fails, panics or is not done in time is named; their evidence is missing.
    async fn collect(&self, request: &Request) -> (Vec<Evidence>, Vec<String>) {
        let request = Arc::new(request.clone());
        let mut tasks = JoinSet::new();
        for (n, source) in self.webhook.sources.iter().enumerate() {
            let (source, request) = (source.clone(), request.clone());
            tasks.spawn(async move { (n, source.collect(&request).await) });
        }
        let mut found: Vec<Option<Vec<Evidence>>> = vec![None; self.webhook.sources.len()];
        let all = async {
            while let Some(done) = tasks.join_next().await {
                if let Ok((n, Ok(evidence))) = done
                    && let Some(place) = found.get_mut(n)
                {
                    *place = Some(evidence);
                }
            }
        };
        // Who is late is named below, and stopped as the set is dropped.
        let _ = tokio::time::timeout(self.config.collect_timeout, all).await;
        let mut failed = Vec::new();
        let mut evidence = Vec::new();
        for (source, found) in self.webhook.sources.iter().zip(found) {
            match found {
                Some(found) => evidence.extend(found),
                None => failed.push(source.name().to_owned()),
            }
        }
        (evidence, failed)
    }
}

fn refuse(status: StatusCode, error: &str) -> Response {
    json(status, &Refusal { error })
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    match serde_json::to_vec(value) {
        Ok(body) => (status, headers, body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
