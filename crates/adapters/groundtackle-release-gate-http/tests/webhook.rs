//! 200 is go, and nothing else is: from a server on a socket.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use groundtackle_core::{ByteSize, Secret};
use groundtackle_health_check_client::{Answer, Authorities, Headers, HttpClient};
use groundtackle_release_gate::{
    Decision, Error, Evidence, EvidenceSource, Fact, Gate, Request, Result, Retryability, TestRule,
    Timestamp, Verdict,
};
use groundtackle_release_gate_http::{HttpGateConfig, Recorder, Webhook, router};
use groundtackle_release_gate_testkit::{Act, ScriptedSource, frozen, now, policy, request};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const TOKEN: &str = "correct horse battery staple";

/// The kit's, which wants all tests to have passed, too.
fn gate() -> Gate {
    let mut policy = policy();
    let all = TestRule {
        suite: "all".into(),
        max_age: None,
    };
    policy.environments[0].tests.push(all);
    Gate::new(policy).unwrap()
}

#[derive(Debug, Default)]
struct Log {
    records: Mutex<Vec<(Verdict, usize)>>,
    fails: Mutex<bool>,
    hangs: Mutex<bool>,
    takes_until: Mutex<Option<Timestamp>>,
}

/// What the clock of one test shows once a record was made.
static LATER: Mutex<Option<Timestamp>> = Mutex::new(None);

fn moving() -> Timestamp {
    LATER.lock().unwrap().unwrap_or_else(now)
}

#[async_trait]
impl Recorder for Log {
    async fn record(&self, decision: &Decision, evidence: &[Evidence]) -> Result<()> {
        if *self.hangs.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        if let Some(later) = *self.takes_until.lock().unwrap() {
            *LATER.lock().unwrap() = Some(later);
        }
        if *self.fails.lock().unwrap() {
            let unknown = Retryability::Indeterminate;
            return Err(Error::backend(
                "log",
                "appending",
                unknown,
                "the disk is full",
            ));
        }
        let record = (decision.verdict, evidence.len());
        self.records.lock().unwrap().push(record);
        Ok(())
    }
}

/// As a task may.
#[derive(Debug)]
struct Panics;

#[async_trait]
impl EvidenceSource for Panics {
    fn name(&self) -> &str {
        "panics"
    }

    async fn collect(&self, _: &Request) -> Result<Vec<Evidence>> {
        panic!("as scripted")
    }
}

struct Server {
    base: String,
    tests: ScriptedSource,
    log: Arc<Log>,
}

fn tested(passed: bool, at: Timestamp) -> Act {
    let fact = Fact::Test {
        suite: "all".into(),
        artefact: request().artefact,
        passed,
    };
    Act::Find(vec![Evidence::new("tests", at, fact)])
}

impl Server {
    async fn start(clock: fn() -> Timestamp, config: HttpGateConfig) -> Self {
        Self::with(clock, config, Vec::new()).await
    }

    async fn with(
        clock: fn() -> Timestamp,
        config: HttpGateConfig,
        mut sources: Vec<Arc<dyn EvidenceSource>>,
    ) -> Self {
        let tests = ScriptedSource::new("tests");
        tests.from_now_on(tested(true, clock()));
        sources.push(Arc::new(tests.clone()));
        let log = Arc::new(Log::default());
        let webhook = Webhook::new(gate(), sources, log.clone()).with_clock(clock);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = router(webhook, config);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base, tests, log }
    }

    async fn post(&self, path: &str, token: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.post_as(path, format!("Bearer {token}"), body).await
    }

    async fn post_as(&self, path: &str, login: String, body: impl Into<Vec<u8>>) -> Answer {
        let token = Secret::from(login);
        let headers =
            Headers::default().with(http::header::AUTHORIZATION, token.try_into().unwrap());
        let url = format!("{}{path}", self.base).parse().unwrap();
        let client = HttpClient::new(url, headers, Authorities::new(None), ByteSize::mib(1));
        let body: Vec<u8> = body.into();
        let asked = client.request(http::Method::POST, Default::default(), body.into());
        asked.await.unwrap()
    }

    async fn check(&self) -> (u16, Value) {
        let body = serde_json::to_vec(&request()).unwrap();
        let answer = self.post("/check", TOKEN, body).await;
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.headers["cache-control"], "no-store");
        (
            answer.status.as_u16(),
            serde_json::from_slice(&answer.body).unwrap(),
        )
    }

    fn recorded(&self) -> Vec<(Verdict, usize)> {
        self.log.records.lock().unwrap().clone()
    }
}

fn config() -> HttpGateConfig {
    HttpGateConfig::default().with_token(TOKEN.to_owned().into())
}

#[tokio::test]
async fn each_verdict_has_its_status_and_is_recorded() {
    let server = Server::start(now, config()).await;
    let (status, body) = server.check().await;
    assert_eq!((status, &body["verdict"]), (200, &json!("go")));
    assert_eq!(body["decision"]["request"]["actor"], "olga");
    server.tests.from_now_on(tested(false, now()));
    let (status, body) = server.check().await;
    assert_eq!((status, &body["verdict"]), (403, &json!("no-go")));
    assert_eq!(body["decision"]["reasons"][0]["rule"], "tests");
    server.tests.from_now_on(Act::Find(Vec::new()));
    let (status, body) = server.check().await;
    assert_eq!((status, &body["verdict"]), (403, &json!("inconclusive")));
    assert_eq!(
        server.recorded(),
        [
            (Verdict::Go, 1),
            (Verdict::NoGo, 1),
            (Verdict::Inconclusive, 0)
        ]
    );
    let held = Server::start(frozen, config()).await;
    let (status, body) = held.check().await;
    assert_eq!((status, &body["verdict"]), (403, &json!("hold")));
}

#[tokio::test]
async fn a_source_that_fails_hangs_or_panics_does_not_lead_to_go() {
    let config = config().with_collect_timeout(Duration::from_millis(200));
    let server = Server::start(now, config.clone()).await;
    for act in [Act::Fail, Act::Hang] {
        server.tests.from_now_on(act);
        let (status, body) = server.check().await;
        assert_eq!((status, &body["verdict"]), (403, &json!("inconclusive")));
        assert_eq!(body["failed"], json!(["tests"]));
    }
    server.tests.from_now_on(tested(true, now()));
    assert_eq!(server.check().await.0, 200, "it recovers");
    // What another one found does not stand for what it would have.
    let both = Server::with(now, config, vec![Arc::new(Panics)]).await;
    let (status, body) = both.check().await;
    assert_eq!((status, &body["failed"]), (403, &json!(["panics"])));
    assert_eq!(body["verdict"], "inconclusive");
    assert_eq!(body["decision"]["reasons"][0]["rule"], "sources");
    assert_eq!(body["decision"]["reasons"].as_array().unwrap().len(), 1);
    // It is part of what is recorded.
    assert_eq!(both.recorded(), [(Verdict::Inconclusive, 2)]);
}

/// Two services of one environment, for one: the later would be taken for news of the first.
#[tokio::test]
async fn sources_that_share_a_name_do_not_lead_to_go() {
    let twin = ScriptedSource::new("tests");
    twin.from_now_on(tested(true, now()));
    let server = Server::with(now, config(), vec![Arc::new(twin.clone())]).await;
    let (status, body) = server.check().await;
    assert_eq!((status, &body["failed"]), (403, &json!(["tests", "tests"])));
    let detail = &body["decision"]["reasons"][0]["detail"];
    assert!(
        detail.as_str().unwrap().contains("more than one source"),
        "{detail}"
    );
    assert!(twin.asked().is_empty() && server.tests.asked().is_empty());
}

#[tokio::test]
async fn what_is_not_recorded_is_not_answered() {
    let server = Server::start(now, config()).await;
    *server.log.fails.lock().unwrap() = true;
    let (status, body) = server.check().await;
    assert_eq!(status, 503);
    assert!(body.get("verdict").is_none(), "{body}");
    *server.log.fails.lock().unwrap() = false;
    assert_eq!(server.check().await.0, 200);
    // Nor is what takes too long to record.
    let hasty = config().with_record_timeout(Duration::from_millis(50));
    let server = Server::start(now, hasty).await;
    *server.log.hangs.lock().unwrap() = true;
    assert_eq!(server.check().await.0, 503);
}

/// Go is good for ten minutes, and for no longer than that is anybody told so.
#[tokio::test]
async fn a_go_that_is_good_no_more_once_it_is_recorded_is_not_told() {
    let server = Server::start(moving, config()).await;
    let minutes = |n: u64| now().checked_add(Duration::from_secs(n * 60)).unwrap();
    *server.log.takes_until.lock().unwrap() = Some(minutes(9));
    assert_eq!(server.check().await.0, 200);
    *LATER.lock().unwrap() = None;
    *server.log.takes_until.lock().unwrap() = Some(minutes(10));
    let (status, body) = server.check().await;
    assert_eq!(status, 503, "{body}");
    assert!(body.get("verdict").is_none(), "{body}");
    // What was recorded says what was judged.
    assert_eq!(server.recorded(), [(Verdict::Go, 1), (Verdict::Go, 1)]);
}

#[tokio::test]
async fn nobody_asks_without_the_token() {
    let body = serde_json::to_vec(&request()).unwrap();
    let server = Server::start(now, config()).await;
    let with_more = format!("{TOKEN}x");
    for token in ["", "x", &TOKEN[1..], with_more.as_str()] {
        let answer = server.post("/check", token, body.clone()).await;
        assert_eq!(answer.status, 401, "{token:?}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let open = Server::start(now, HttpGateConfig::default()).await;
    assert_eq!(open.post("/check", "", body).await.status, 401);
    assert_eq!((server.recorded(), open.recorded()), (vec![], vec![]));
    assert!(server.tests.asked().is_empty());
}

fn flagger() -> Value {
    json!({
        "name": "node",
        "namespace": "chain",
        "phase": "Progressing",
        "checksum": "85d557f47b",
        "metadata": {
            "artefact": request().artefact,
            "tag": "1.4.0",
            "environment": "production",
            "actor": "olga",
            "takes": "30m",
        },
    })
}

#[tokio::test]
async fn flagger_is_answered() {
    let server = Server::start(now, config()).await;
    let ask = async |body: &Value| {
        let answer = server.post("/flagger", TOKEN, body.to_string()).await;
        let text: Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status.as_u16(), text)
    };
    assert_eq!(ask(&flagger()).await.0, 200);
    let asked = server.tests.asked().pop().unwrap();
    assert_eq!(
        (asked.name.as_str(), asked.actor.as_str()),
        ("node", "olga")
    );
    assert_eq!(asked.takes.unwrap().to_string(), "30m");
    let mut stranger = flagger();
    stranger["metadata"]["actor"] = json!("mallory");
    assert_eq!(ask(&stranger).await.0, 403);
    for key in ["artefact", "tag", "environment", "actor"] {
        let mut partial = flagger();
        partial["metadata"].as_object_mut().unwrap().remove(key);
        let (status, body) = ask(&partial).await;
        assert_eq!(status, 400);
        let error = body["error"].as_str().unwrap();
        assert!(error.contains(key), "{error}");
    }
}

/// As Go's client sends what is in a URL.
#[tokio::test]
async fn the_token_may_be_the_password_of_a_login() {
    let server = Server::start(now, config()).await;
    let ask = async |login: &str| {
        let login = format!("Basic {}", STANDARD.encode(login));
        let answer = server.post_as("/flagger", login, flagger().to_string());
        answer.await.status.as_u16()
    };
    for user in ["flagger", "", "anybody"] {
        assert_eq!(ask(&format!("{user}:{TOKEN}")).await, 200);
    }
    for login in ["", ":", TOKEN, "flagger:", &format!("flagger:{TOKEN}x")] {
        assert_eq!(ask(login).await, 401, "{login:?}");
    }
    for login in ["Basic ", "Basic ?", &format!("Basic {TOKEN}"), TOKEN] {
        let answer = server.post_as("/check", login.into(), "{}").await;
        assert_eq!(answer.status, 401, "{login:?}");
    }
    let open = Server::start(now, HttpGateConfig::default()).await;
    let nothing = format!("Basic {}", STANDARD.encode("flagger:"));
    assert_eq!(open.post_as("/check", nothing, "{}").await.status, 401);
    assert_eq!(server.recorded().len(), 3);
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let server = Server::start(now, config()).await;
    for body in [
        "",
        "{}",
        "null",
        "[1]",
        "\u{0}",
        "{\"artefact\": \"sha256:1\"}",
    ] {
        assert_eq!(
            server.post("/check", TOKEN, body).await.status,
            400,
            "{body}"
        );
        assert_eq!(
            server.post("/flagger", TOKEN, body).await.status,
            400,
            "{body}"
        );
    }
    let long = " ".repeat((64 << 10) + 1);
    assert_eq!(server.post("/check", TOKEN, long).await.status, 413);
    assert_eq!(server.post("/moon", TOKEN, "{}").await.status, 404);
    assert!(server.recorded().is_empty());
}

#[tokio::test]
async fn too_many_at_once_are_told_so() {
    let config = config()
        .with_max_at_once(1)
        .with_collect_timeout(Duration::from_secs(60));
    let server = Arc::new(Server::start(now, config).await);
    server.tests.then(Act::Hang);
    let first = tokio::spawn({
        let server = server.clone();
        async move { server.check().await }
    });
    while server.tests.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.check().await.0, 503);
    // Who hangs up makes room.
    first.abort();
    while server.check().await.0 != 200 {
        tokio::task::yield_now().await;
    }
}
