//! What a webhook receives, and what it may do to who tells it.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use groundtackle_core::{RetryConfig, Secret};
use groundtackle_health_check::{
    Cause, Error, Health, Message, Name, News, Notifications, Notifier, NotifyConfig, Outcome,
    Retryability, Schedule, Scheduler, Settings, Severity,
};
use groundtackle_health_check_notify_webhook::{SigningKey, Webhook, WebhookConfig, signature};
use groundtackle_health_check_testkit::{NotifierHarness, Scripted};
use groundtackle_testkit_servers::{HttpServer, Reply, Request};
use proptest::prelude::*;
use serde_json::Value;

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn key() -> SigningKey {
    Secret::from(KEY).try_into().unwrap()
}

fn webhook(server: &HttpServer) -> Webhook {
    let url = server.url("/hooks/k3yk3yk3y").parse().unwrap();
    WebhookConfig::new(url, key(), "node 1").into()
}

/// Takes what is signed, as a careful receiver does.
fn take(request: &Request) -> Reply {
    let header = |name| request.header(name).unwrap();
    let timestamp = header("webhook-timestamp").parse().unwrap();
    let signed = signature(&key(), header("webhook-id"), timestamp, &request.body);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let fine = signed == header("webhook-signature")
        && now.as_secs().abs_diff(timestamp) < 300
        && (request.method.as_str(), request.path.as_str()) == ("POST", "/hooks/k3yk3yk3y")
        && header("content-type") == "application/json"
        && serde_json::from_slice::<Value>(&request.body).is_ok();
    Reply::status(if fine { 204 } else { 400 }, "")
}

fn down(name: &str) -> Message {
    let news = News::Check {
        name: Name::try_from(name).unwrap(),
        outcome: Outcome::Fail,
        cause: Cause::new("refused"),
        detail: Some("nobody \"listens\"\n".into()),
        since_unix_millis: 1_767_225_600_000,
        hides: 3,
    };
    Message::new(vec![news], 2)
}

#[tokio::test]
async fn a_message_is_signed_and_says_all() {
    let server = HttpServer::start(take);
    let mut message = down("db");
    message.items.push(News::Alert {
        objective: Name::try_from("available").unwrap(),
        severity: Severity::Page,
        long_secs: 3600,
        firing: false,
    });
    webhook(&server).notify(&message).await.unwrap();
    let body: Value = serde_json::from_slice(&server.seen()[0].body).unwrap();
    let wanted = serde_json::json!({ "version": 1, "service": "node 1", "lost": 2, "items": [
        { "kind": "check", "name": "db", "down": true, "state": "fail", "cause": "refused", "detail": "nobody \"listens\"\n",
          "since_unix_millis": 1_767_225_600_000_u64, "hides": 3 },
        { "kind": "alert", "name": "available", "down": false, "state": "page", "hides": 0, "long_secs": 3600 },
    ] });
    assert_eq!(body, wanted);
}

#[tokio::test]
async fn a_message_keeps_its_id_until_it_is_taken() {
    let server = HttpServer::start(|_| Reply::status(500, ""));
    let webhook = webhook(&server);
    for _ in 0..2 {
        webhook.notify(&down("db")).await.unwrap_err();
    }
    server.script(take);
    webhook.notify(&down("db")).await.unwrap();
    // The same again is news again.
    webhook.notify(&down("db")).await.unwrap();
    let seen = server.seen();
    let ids: Vec<_> = seen
        .iter()
        .map(|request| request.header("webhook-id").unwrap())
        .collect();
    assert_eq!((ids[0], ids[1]), (ids[1], ids[2]));
    assert_ne!(ids[2], ids[3]);
}

fn assert_error(error: &Error, retryability: Retryability) {
    assert_eq!(error.retryability(), retryability, "{error:?}");
    for secret in ["k3yk3yk3y", &KEY[6..]] {
        assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
    }
}

#[tokio::test]
async fn each_refusal_says_whether_it_may_be_repeated() {
    use Retryability::{Indeterminate, Permanent, Transient};
    let server = HttpServer::start(take);
    let webhook = webhook(&server);
    for (reply, retryability) in [
        (Reply::status(400, "k3yk3yk3y"), Permanent),
        (Reply::status(404, ""), Permanent),
        (Reply::status(301, ""), Permanent),
        (Reply::status(408, ""), Transient),
        (Reply::status(429, ""), Transient),
        (Reply::status(503, ""), Transient),
        (Reply::status(500, ""), Indeterminate),
        (Reply::status(502, ""), Indeterminate),
        (Reply::Close, Indeterminate),
        (Reply::Raw(b"no HTTP\r\n\r\n".into()), Indeterminate),
        (Reply::ok(vec![b'x'; 65 * 1024]), Indeterminate),
    ] {
        server.script(move |_| reply.clone());
        assert_error(
            &webhook.notify(&down("db")).await.unwrap_err(),
            retryability,
        );
    }
    server.script(|_| Reply::Hang);
    let message = down("db");
    let hung = tokio::time::timeout(Duration::from_millis(200), webhook.notify(&message));
    assert!(hung.await.is_err());
    server.script(take);
    webhook.notify(&down("db")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_asks_for_time_gets_it() {
    let wait = |secs: &str| Reply::Answer(429, vec![("Retry-After", secs.to_owned())], Vec::new());
    let server = HttpServer::start(move |_| wait("1"));
    let webhook = webhook(&server);
    let begun = Instant::now();
    assert_error(
        &webhook.notify(&down("db")).await.unwrap_err(),
        Retryability::Transient,
    );
    server.script(take);
    webhook.notify(&down("db")).await.unwrap();
    assert!(
        begun.elapsed() >= Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    // Of a long time it is told at once, and the server not asked.
    server.script(move |_| wait("3600"));
    webhook.notify(&down("db")).await.unwrap_err();
    let asked = server.seen().len();
    let begun = Instant::now();
    assert_error(
        &webhook.notify(&down("db")).await.unwrap_err(),
        Retryability::Transient,
    );
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(server.seen().len(), asked);
}

/// With the port: once per change, repeated until it is taken, though a receiver may see it twice.
#[tokio::test]
async fn a_change_is_repeated_until_it_is_taken_and_told_once() {
    let server = HttpServer::start(|_| Reply::status(502, ""));
    let schedule = Schedule::default()
        .with_period(Duration::from_millis(20))
        .with_timeout(Duration::from_millis(10));
    let settings = Settings::default().with_schedule(schedule);
    let health = Health::builder()
        .readiness(Name::try_from("db").unwrap(), settings, Scripted::failing())
        .build()
        .unwrap();
    let retry = RetryConfig::default()
        .with_max_attempts(1000)
        .with_max_delay(Duration::from_millis(50));
    let config = NotifyConfig::default()
        .with_group_wait(Duration::from_millis(50))
        .with_min_interval(Duration::from_millis(10))
        .with_retry(retry);
    let notifications = Notifications::start(&health, webhook(&server), config).unwrap();
    let scheduler = Scheduler::start(&health);
    let until = async |done: &dyn Fn() -> bool| {
        let wait = async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .unwrap();
    };
    until(&|| server.seen().len() >= 3).await;
    server.script(take);
    until(&|| notifications.sent() > 0).await;
    let taken = server.seen().len();
    // Ten more of its runs fail, and are no news.
    let runs = health.runs();
    until(&|| health.runs() >= runs + 10).await;
    scheduler.stop().await.unwrap();
    assert_eq!(
        (
            notifications.sent(),
            notifications.lost(),
            server.seen().len()
        ),
        (1, 0, taken)
    );
    let ids: std::collections::BTreeSet<_> = server
        .seen()
        .iter()
        .map(|request| request.header("webhook-id").unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_text_arrives_as_it_is(name in "[^\\p{C} ][^\\p{Cc}]{0,20}[^\\p{C} ]", detail in any::<String>(), cause in any::<String>(), lost in any::<u64>(), since in any::<u64>(), hides in any::<usize>()) {
        let Ok(name) = Name::try_from(name.as_str()) else { return Ok(()) };
        let news = News::Check { name: name.clone(), outcome: Outcome::Unknown, cause: Cause::new(cause), detail: Some(detail.as_str().into()), since_unix_millis: since, hides };
        let server = HttpServer::start(take);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(webhook(&server).notify(&Message::new(vec![news], lost))).unwrap();
        let body: Value = serde_json::from_slice(&server.seen()[0].body).unwrap();
        prop_assert_eq!(body["items"][0]["name"].as_str(), Some(name.as_str()));
        prop_assert_eq!(body["items"][0]["detail"].as_str(), Some(detail.as_str()));
    }
}

struct Hook(HttpServer, Arc<Mutex<Vec<String>>>);

impl Hook {
    fn new() -> Self {
        let texts = Arc::new(Mutex::new(Vec::new()));
        Self(HttpServer::start(taking(texts.clone())), texts)
    }
}

fn taking(texts: Arc<Mutex<Vec<String>>>) -> impl Fn(&Request) -> Reply {
    move |request| {
        texts
            .lock()
            .unwrap()
            .push(String::from_utf8(request.body.clone()).unwrap());
        take(request)
    }
}

#[async_trait]
impl NotifierHarness for Hook {
    async fn notifier(&self) -> Arc<dyn Notifier> {
        Arc::new(webhook(&self.0))
    }

    async fn received(&self) -> Vec<String> {
        std::mem::take(&mut *self.1.lock().unwrap())
    }

    async fn refuse(&self, refuse: bool) {
        match refuse {
            true => self.0.script(|_| Reply::status(503, "k3yk3yk3y")),
            false => self.0.script(taking(self.1.clone())),
        }
    }

    fn secrets(&self) -> Vec<String> {
        vec!["k3yk3yk3y".into(), KEY[6..].into()]
    }
}

groundtackle_health_check_testkit::notifier_conformance!(Hook::new());

#[test]
fn a_config_is_read_and_shows_no_secret() {
    let text = |url: &str, key: &str| {
        format!(r#"{{ "url": "{url}", "key": "{key}", "service": "node 1" }}"#)
    };
    let config: WebhookConfig =
        serde_json::from_str(&text("https://hooks.example/k3yk3yk3y", KEY)).unwrap();
    let shown = format!("{config:?}");
    assert!(
        !shown.contains("k3yk3yk3y") && !shown.contains(&KEY[6..]),
        "{shown}"
    );
    for (url, key) in [
        ("http://hooks.example/k3yk3yk3y", KEY),
        ("hooks.example", KEY),
        ("https://hooks.example/", "whsec_c2hvcnQ="),
    ] {
        let error = serde_json::from_str::<WebhookConfig>(&text(url, key))
            .unwrap_err()
            .to_string();
        assert!(
            !error.contains("k3yk3yk3y") && !error.contains("c2hvcnQ"),
            "{error}"
        );
    }
}
