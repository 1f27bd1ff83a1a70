//! The answers.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use groundtackle_release_gate::{
    Collected, Decision, Entry, Error, Evidence, EvidenceSource, FileLog, Gate, Request, Result,
    Retryability, Timestamp, Verdict, shared_names,
};
use serde::Serialize;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::HttpGateConfig;
use crate::question;

const BACKEND: &str = "webhook";

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

/// An answer is a record of the log, on disk before it is given.
#[async_trait]
impl Recorder for FileLog {
    async fn record(&self, decision: &Decision, evidence: &[Evidence]) -> Result<()> {
        let entry = Entry::Decision {
            decision: Box::new(decision.clone()),
            evidence: evidence.to_vec(),
        };
        let log = self.clone();
        let appended = tokio::task::spawn_blocking(move || log.append(entry)).await;
        let appended = appended.unwrap_or_else(|error| {
            let action = "writing to the log";
            Err(Error::backend(
                BACKEND,
                action,
                Retryability::Indeterminate,
                error,
            ))
        });
        match &appended {
            Ok(head) => {
                tracing::info!(verdict = %decision.verdict, records = head.records, "the gate answered");
            }
            Err(error) => tracing::warn!(%error, "an answer of the gate could not be recorded"),
        }
        appended.map(drop)
    }
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
            let refused = refuse(StatusCode::UNAUTHORIZED, "the token is missing or wrong");
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
        let Collected {
            evidence, failures, ..
        } = self.collect(&request).await;
        let failed: Vec<_> = failures.into_iter().map(|(name, _)| name).collect();
        let now = (self.webhook.clock)();
        let decision = self.webhook.gate.judge(&evidence, &request, now);
        let recorded = self.webhook.recorder.record(&decision, &evidence);
        let recorded = tokio::time::timeout(self.config.record_timeout, recorded).await;
        if !matches!(recorded, Ok(Ok(()))) {
            return refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "the answer could not be recorded; ask again",
            );
        }
        // By now a window may have closed.
        let told = (self.webhook.clock)();
        if decision.good_until.is_some_and(|until| told >= until) {
            return refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "the answer is good no more; ask again",
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

    /// By the token as a bearer's, or as the password of a URL's login: Flagger sends no headers of one's own.
    fn may_ask(&self, headers: &HeaderMap) -> bool {
        let wanted = self.config.token.expose().as_bytes();
        let Some(sent) = headers.get(header::AUTHORIZATION) else {
            return false;
        };
        let sent = sent.as_bytes();
        let sent = match sent.strip_prefix(b"Bearer ") {
            Some(token) => Some(token.to_vec()),
            None => sent.strip_prefix(b"Basic ").and_then(password),
        };
        !wanted.is_empty() && sent.is_some_and(|sent| bool::from(sent.ct_eq(wanted)))
    }

    /// All sources at once. Who fails, panics, is not done in time or has another's name is named, and counts as unread.
    async fn collect(&self, request: &Request) -> Collected {
        let sources = &self.webhook.sources;
        let shared = shared_names(sources.iter().map(|source| source.name()));
        let request = Arc::new(request.clone());
        let mut tasks = JoinSet::new();
        let mut found: Vec<Result<Vec<Evidence>>> = Vec::with_capacity(sources.len());
        for (n, source) in sources.iter().enumerate() {
            if shared.contains(source.name()) {
                found.push(Err(Error::shared_name(source.name())));
                continue;
            }
            found.push(Err(self.unanswered()));
            let (source, request) = (source.clone(), request.clone());
            tasks.spawn(async move { (n, source.collect(&request).await) });
        }
        let all = async {
            while let Some(done) = tasks.join_next().await {
                if let Ok((n, done)) = done
                    && let Some(place) = found.get_mut(n)
                {
                    *place = done;
                }
            }
        };
        // Who is late has not answered, and is stopped as the set is dropped.
        let _ = tokio::time::timeout(self.config.collect_timeout, all).await;
        let now = (self.webhook.clock)();
        let mut collected = Collected::default();
        for (source, found) in sources.iter().zip(found) {
            collected.add(source.name(), found, now);
        }
        collected
    }

    fn unanswered(&self) -> Error {
        let why = format!(
            "there was no answer within {:?}",
            self.config.collect_timeout
        );
        Error::backend(BACKEND, "collecting evidence", Retryability::Transient, why)
    }
}

/// Of a login as RFC 7617 sends it; the user is anybody.
fn password(login: &[u8]) -> Option<Vec<u8>> {
    let mut login = STANDARD.decode(login).ok()?;
    let colon = login.iter().position(|byte| *byte == b':')?;
    Some(login.split_off(colon.saturating_add(1)))
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
