use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use groundtackle_health_check::{Audience, Health, Kind, Outcome, Verdict, View};
use subtle::ConstantTimeEq;

use crate::config::HttpHealthConfig;
use crate::{json, metrics, page};

#[derive(Debug)]
struct App {
    health: Health,
    config: HttpHealthConfig,
}

/// The routes: `/livez`, `/readyz`, `/readyz/{subset}`, `/startupz`, `/health`, `/metrics`, `/status` and `/status.css`. Nest them
/// where they fit. Each answers from what is known, and runs no check.
pub fn router(health: Health, config: HttpHealthConfig) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/readyz/{subset}", get(subset))
        .route("/startupz", get(started))
        .route("/health", get(health_json))
        .route("/metrics", get(prometheus))
        .route("/status", get(status))
        .route("/status.css", get(style))
        .with_state(Arc::new(App { health, config }))
}

impl App {
    fn audience(&self, headers: &HeaderMap) -> Audience {
        if self.config.all_are_operators {
            return Audience::Operator;
        }
        let wanted = self.config.operator_token.expose().as_bytes();
        let sent = headers
            .get(header::AUTHORIZATION)
            .map(HeaderValue::as_bytes);
        let sent = sent.and_then(|sent| sent.strip_prefix(b"Bearer "));
        match sent {
            Some(sent) if !wanted.is_empty() && bool::from(sent.ct_eq(wanted)) => {
                Audience::Operator
            }
            _ => Audience::Stranger,
        }
    }
}

/// Nobody on the way may keep it, and what strangers get is not what operators get.
fn answer(status: StatusCode, media_type: &'static str, body: impl Into<Body>) -> Response {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    // These, and what the connection adds.
    headers.reserve(8);
    for (name, value) in [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "authorization"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

const TEXT: &str = "text/plain; charset=utf-8";

const fn code(up: bool) -> StatusCode {
    if up {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn is_verbose(query: Option<&str>) -> bool {
    let named = |part: &str| part == "verbose" || part.starts_with("verbose=");
    query.is_some_and(|query| query.split('&').any(named))
}

/// What a probe gets that may see no more.
const fn line(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass\n",
        Outcome::Warn => "warn\n",
        Outcome::Unknown => "unknown\n",
        Outcome::Fail => "fail\n",
    }
}

/// The outcome, and with `?verbose` a line for each check that this audience may see.
fn probe(
    app: &App,
    request: &Request,
    view: &View,
    verdict: &Verdict,
    up: bool,
    kind: Kind,
) -> Response {
    let audience = app.audience(request.headers());
    let verbose = is_verbose(request.uri().query());
    if audience == Audience::Stranger && !verbose {
        return answer(code(up), TEXT, line(verdict.outcome));
    }
    let mut body = String::from(verdict.outcome.as_str());
    if audience == Audience::Operator {
        body.extend([" (", verdict.cause.as_str(), ")"]);
    }
    body.push('\n');
    if verbose {
        for reading in view.readings.iter().filter(|reading| reading.kind == kind) {
            let Some(seen) = audience.sees(reading) else {
                continue;
            };
            body += &format!("{}: {}", seen.name, seen.outcome);
            if let Some(reason) = seen.reason {
                body += &format!(" ({})", reason.cause);
                if let Some(root) = &reason.caused_by {
                    body += &format!(", caused by {root}");
                }
                if let Some(detail) = &reason.detail {
                    body += &format!(": {detail}");
                }
            }
            body.push('\n');
        }
    }
    answer(code(up), TEXT, body)
}

// The request as it is: extractors of headers and query would copy them.
async fn live(State(app): State<Arc<App>>, request: Request) -> Response {
    let view = app.health.view();
    // A process is restarted because it is known to be dead, and for no other reason.
    let up = view.liveness.outcome != Outcome::Fail;
    probe(&app, &request, &view, &view.liveness, up, Kind::Liveness)
}

async fn ready(State(app): State<Arc<App>>, request: Request) -> Response {
    let view = app.health.view();
    let up = view.readiness.outcome.is_up();
    probe(&app, &request, &view, &view.readiness, up, Kind::Readiness)
}

async fn started(State(app): State<Arc<App>>, request: Request) -> Response {
    let view = app.health.view();
    let up = view.startup.outcome.is_up();
    probe(&app, &request, &view, &view.startup, up, Kind::Startup)
}

async fn subset(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Response {
    let view = app.health.view();
    let audience = app.audience(&headers);
    let visible = match view.reading(&name) {
        Some(reading) if !view.subsets.contains_key(name.as_str()) => {
            audience.sees(reading).is_some()
        }
        _ => true,
    };
    match view.subset(&name).filter(|_| visible) {
        Some(verdict) => answer(code(verdict.outcome.is_up()), TEXT, line(verdict.outcome)),
        None => answer(
            StatusCode::NOT_FOUND,
            TEXT,
            "there is no such subset or check, or you may not see it\n",
        ),
    }
}

async fn health_json(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let view = app.health.view();
    let body = json::health(&view, app.audience(&headers));
    answer(
        code(view.readiness.outcome.is_up()),
        "application/health+json",
        body,
    )
}

async fn prometheus(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if app.audience(&headers) != Audience::Operator {
        let refused = answer(
            StatusCode::UNAUTHORIZED,
            TEXT,
            "metrics are for operators: send their bearer token\n",
        );
        return ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response();
    }
    let body = metrics::exposition(&app.health.view(), app.health.runs());
    answer(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        body,
    )
}

async fn status(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let body = page::html(
        &app.health.view(),
        app.audience(&headers),
        &app.config.title,
    );
    let policy = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let page = answer(StatusCode::OK, "text/html; charset=utf-8", body);
    ([(header::CONTENT_SECURITY_POLICY, policy)], page).into_response()
}

async fn style() -> Response {
    answer(StatusCode::OK, "text/css; charset=utf-8", page::STYLE)
}
