//! What every evidence source promises, of a server on a socket.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use groundtackle_core::Secret;
use groundtackle_health_check_client::{Authorities, Headers};
use groundtackle_release_gate::{
    Error, Evidence, EvidenceSource, Fact, Request, Retryability, Timestamp,
};
use groundtackle_release_gate_http::{HttpEvidence, HttpEvidenceConfig};
use groundtackle_release_gate_testkit::{SourceHarness, State, request};
use tokio::net::TcpListener;

const TOKEN: &str = "Bearer correct horse";
const PATH: &str = "/hooks/0123456789abcdef";

#[derive(Clone, Copy)]
enum Answers {
    Usual(State),
    Approvals,
    HalfAList,
    Long,
    Moved,
    Limited,
}

struct Harness(Arc<Mutex<Answers>>);

impl Harness {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Answers::Usual(State::Working))))
    }

    fn answer(&self, answers: Answers) {
        *self.0.lock().unwrap() = answers;
    }

    async fn start(&self) -> HttpEvidence {
        let answers = self.0.clone();
        let serve = move |headers: HeaderMap, body: Bytes| {
            let answers = *answers.lock().unwrap();
            answer(answers, headers, body)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{PATH}", listener.local_addr().unwrap());
        let router = Router::new().route(PATH, post(serve));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let token = Secret::from(TOKEN.to_owned());
        let headers =
            Headers::default().with(http::header::AUTHORIZATION, token.try_into().unwrap());
        let config = HttpEvidenceConfig::new(url.parse().unwrap(), ["test", "backup"])
            .with_headers(headers)
            .with_max_answer(groundtackle_core::ByteSize::new(4096));
        HttpEvidence::new(config, Authorities::new(None))
    }
}

async fn answer(answers: Answers, headers: HeaderMap, body: Bytes) -> Response {
    if headers.get("authorization").unwrap() != TOKEN {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let asked: Request = serde_json::from_slice(&body).unwrap();
    let now = Timestamp::now();
    let backup = Fact::Backup {
        name: "utxo".into(),
    };
    let mut found = vec![Evidence::new("server", now, backup)];
    if asked.artefact == request().artefact {
        let passed = Fact::Test {
            suite: "all".into(),
            artefact: asked.artefact,
            passed: true,
        };
        found.push(Evidence::new("server", now, passed));
    }
    let text = serde_json::to_string(&found).unwrap();
    match answers {
        Answers::Usual(State::Working) => text.into_response(),
        Answers::Usual(State::Empty) => "[]".into_response(),
        Answers::Usual(State::Broken) => (StatusCode::INTERNAL_SERVER_ERROR, text).into_response(),
        Answers::Usual(State::Silent) => std::future::pending().await,
        Answers::Approvals => {
            let approval = Fact::Approval {
                artefact: asked.artefact,
                environment: asked.environment,
                by: "olga".into(),
            };
            found.push(Evidence::new("server", now, approval));
            serde_json::to_string(&found).unwrap().into_response()
        }
        Answers::HalfAList => text.split_at(text.len() / 2).0.to_owned().into_response(),
        Answers::Long => (text + &" ".repeat(4096)).into_response(),
        Answers::Moved => (StatusCode::FOUND, [("location", "/elsewhere")], text).into_response(),
        Answers::Limited => (StatusCode::TOO_MANY_REQUESTS, text).into_response(),
    }
}

#[async_trait]
impl SourceHarness for Harness {
    async fn source(&self) -> Arc<dyn EvidenceSource> {
        Arc::new(self.start().await)
    }

    fn request(&self) -> Request {
        request()
    }

    async fn make(&self, state: State) -> bool {
        self.answer(Answers::Usual(state));
        true
    }

    fn secrets(&self) -> Vec<String> {
        vec!["correct horse".into(), "0123456789abcdef".into()]
    }
}

groundtackle_release_gate_testkit::source_conformance!(Harness::new());

#[tokio::test]
async fn what_is_no_whole_list_of_what_is_taken_from_there_is_an_error() {
    let harness = Harness::new();
    let source = harness.start().await;
    assert_eq!(source.collect(&request()).await.unwrap().len(), 2);
    for (answers, why, retryability) in [
        (
            Answers::Approvals,
            "a fact of the kind \"approval\", which is not taken from there",
            Retryability::Permanent,
        ),
        (
            Answers::HalfAList,
            "it is no list of evidence",
            Retryability::Permanent,
        ),
        (Answers::Long, "asking", Retryability::Transient),
        (Answers::Moved, "asking", Retryability::Permanent),
        (Answers::Limited, "asking", Retryability::Transient),
    ] {
        harness.answer(answers);
        let error: Error = source.collect(&request()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
        assert_eq!(error.retryability(), retryability, "{error}");
    }
}

#[tokio::test]
async fn a_server_that_takes_too_long_is_an_error() {
    let harness = Harness::new();
    harness.answer(Answers::Usual(State::Silent));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let config = HttpEvidenceConfig::new(url.parse().unwrap(), ["test"])
        .with_timeout(std::time::Duration::from_millis(50));
    let source = HttpEvidence::new(config, Authorities::new(None));
    // It is connected to, and nobody ever reads.
    let error = source.collect(&request()).await.unwrap_err();
    assert_eq!(error.retryability(), Retryability::Transient);
    assert!(error.to_string().contains("waiting for"), "{error}");
}
