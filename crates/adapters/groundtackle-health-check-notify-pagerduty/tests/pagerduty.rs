//! Against a server that refuses what PagerDuty's documentation says that it refuses.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use groundtackle_health_check::{
    Cause, Message, Name, News, Notifier, Outcome, Retryability, Severity,
};
use groundtackle_health_check_notify_pagerduty::{PagerDuty, PagerDutyConfig};
use groundtackle_health_check_testkit::NotifierHarness;
use groundtackle_testkit_servers::{HttpServer, Reply, Request};
use proptest::prelude::*;
use serde_json::{Value, json};

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn pagerduty(server: &HttpServer, service: &str) -> PagerDuty {
    let mut config = PagerDutyConfig::new(KEY, service).unwrap();
    config.url = server.url("/v2/enqueue").parse().unwrap();
    config.into()
}

/// What is wrong with it, by <https://developer.pagerduty.com/docs/send-alert-event>.
fn problem(request: &Request) -> Option<&'static str> {
    if request.body.len() > 512 * 1024 {
        return Some("size");
    }
    let Ok(event) = serde_json::from_slice::<Value>(&request.body) else {
        return Some("no JSON");
    };
    let text = |of: &Value| of.as_str().map(|text| text.chars().count());
    if event["routing_key"] != KEY || request.path != "/v2/enqueue" {
        return Some("routing_key");
    }
    if !text(&event["dedup_key"]).is_some_and(|length| (1..=255).contains(&length)) {
        return Some("dedup_key");
    }
    match event["event_action"].as_str() {
        Some("resolve") => None,
        Some("trigger") => {
            let payload = &event["payload"];
            if !text(&payload["summary"]).is_some_and(|length| (1..=1024).contains(&length)) {
                return Some("summary");
            }
            if text(&payload["source"]).is_none_or(|length| length == 0) {
                return Some("source");
            }
            let severities = ["critical", "error", "warning", "info"];
            if !payload["severity"]
                .as_str()
                .is_some_and(|severity| severities.contains(&severity))
            {
                return Some("severity");
            }
            None
        }
        _ => Some("event_action"),
    }
}

fn take(request: &Request) -> Reply {
    match problem(request) {
        Some(problem) => Reply::status(400, problem),
        None => Reply::status(202, r#"{"status":"success"}"#),
    }
}

fn check(name: &str, detail: &str, outcome: Outcome) -> News {
    News::Check {
        name: Name::try_from(name).unwrap(),
        outcome,
        cause: Cause::new("refused"),
        detail: Some(detail.into()),
        since_unix_millis: 1_767_225_600_000,
        hides: 3,
    }
}

fn alert(firing: bool, long_secs: u64) -> News {
    let objective = Name::try_from("db").unwrap();
    News::Alert {
        objective,
        severity: Severity::Ticket,
        long_secs,
        firing,
    }
}

fn events(server: &HttpServer) -> Vec<Value> {
    server
        .seen()
        .iter()
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect()
}

#[tokio::test]
async fn what_fails_opens_an_incident_and_what_recovers_resolves_it() {
    let server = HttpServer::start(take);
    let pagerduty = pagerduty(&server, "node 1");
    let down = vec![
        check("db", "nobody listens", Outcome::Fail),
        alert(true, 3600),
        alert(true, 60),
        check("api", "", Outcome::Unknown),
    ];
    pagerduty.notify(&Message::new(down, 2)).await.unwrap();
    let up = vec![
        check("db", "", Outcome::Pass),
        alert(false, 3600),
        alert(false, 60),
        check("api", "", Outcome::Warn),
    ];
    pagerduty.notify(&Message::new(up, 0)).await.unwrap();
    let events = events(&server);
    let keys: Vec<&str> = events
        .iter()
        .map(|event| event["dedup_key"].as_str().unwrap())
        .collect();
    // Each of its own, and the same when it is over.
    assert_eq!(keys[..4].iter().collect::<BTreeSet<_>>().len(), 4);
    assert_eq!(keys[..4], keys[4..]);
    assert!(
        events[4..]
            .iter()
            .all(|event| event["event_action"] == "resolve" && event.get("payload").is_none())
    );
    assert_eq!(
        events[0],
        json!({
            "routing_key": KEY, "event_action": "trigger", "dedup_key": keys[0], "client": "groundtackle",
            "payload": {
                "summary": "db is down: fail, refused; it hides 3 more: nobody listens", "source": "node 1", "severity": "critical",
                "timestamp": "2026-01-01T00:00:00Z", "component": "db", "class": "refused",
                "custom_details": { "state": "fail", "detail": "nobody listens", "hides": 3, "lost": 2 },
            },
        })
    );
    let severities: Vec<_> = events[..4]
        .iter()
        .map(|event| event["payload"]["severity"].as_str().unwrap())
        .collect();
    assert_eq!(severities, ["critical", "warning", "warning", "error"]);
}

#[tokio::test]
async fn another_service_has_other_incidents() {
    let server = HttpServer::start(take);
    let message = Message::new(vec![check("db", "", Outcome::Fail)], 0);
    for service in ["node 1", "node 2", "node 1"] {
        pagerduty(&server, service).notify(&message).await.unwrap();
    }
    let keys: Vec<Value> = events(&server)
        .into_iter()
        .map(|event| event["dedup_key"].clone())
        .collect();
    assert_ne!(keys[0], keys[1]);
    // Another process of the same service goes on with its incidents.
    assert_eq!(keys[0], keys[2]);
}

#[tokio::test]
async fn a_message_goes_on_where_it_broke_off() {
    let count = Arc::new(Mutex::new(0));
    let server = HttpServer::start(move |request| {
        let mut count = count.lock().unwrap();
        *count += 1;
        let slower = || Reply::Answer(429, vec![("Retry-After", "1".into())], Vec::new());
        if *count == 3 { slower() } else { take(request) }
    });
    let pagerduty = pagerduty(&server, "node 1");
    let items = (0..5)
        .map(|n| check(&format!("db {n}"), "", Outcome::Fail))
        .collect();
    let message = Message::new(items, 0);
    let begun = Instant::now();
    let error = pagerduty.notify(&message).await.unwrap_err();
    assert_eq!(error.retryability(), Retryability::Transient);
    pagerduty.notify(&message).await.unwrap();
    assert!(
        begun.elapsed() >= Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    let names: Vec<String> = events(&server)
        .iter()
        .map(|event| event["payload"]["component"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["db 0", "db 1", "db 2", "db 2", "db 3", "db 4"]);
    for (reply, retryability) in [
        (Reply::status(400, KEY), Retryability::Permanent),
        (Reply::status(500, ""), Retryability::Indeterminate),
        (Reply::Close, Retryability::Indeterminate),
    ] {
        server.script(move |_| reply.clone());
        let error = pagerduty.notify(&message).await.unwrap_err();
        assert_eq!(error.retryability(), retryability);
        assert!(!format!("{error:?}").contains(KEY));
    }
    server.script(|_| Reply::Hang);
    let hung = tokio::time::timeout(Duration::from_millis(200), pagerduty.notify(&message));
    assert!(hung.await.is_err());
}

#[tokio::test]
async fn one_event_that_is_refused_keeps_no_other_from_being_told() {
    let server = HttpServer::start(|request| {
        let event: Value = serde_json::from_slice(&request.body).unwrap();
        match event["payload"]["component"] == "db 1" {
            true => Reply::status(400, ""),
            false => take(request),
        }
    });
    let pagerduty = pagerduty(&server, "node 1");
    let items = (0..4).map(|n| check(&format!("db {n}"), "", Outcome::Fail));
    let message = Message::new(items.collect(), 0);
    for _ in 0..2 {
        let error = pagerduty.notify(&message).await.unwrap_err();
        assert_eq!(error.retryability(), Retryability::Permanent);
    }
    let names: Vec<String> = events(&server)
        .iter()
        .map(|event| event["payload"]["component"].as_str().unwrap().to_owned())
        .collect();
    // The second time from the first that was not taken on.
    assert_eq!(
        names,
        ["db 0", "db 1", "db 2", "db 3", "db 1", "db 2", "db 3"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn limits_are_kept_whatever_the_texts(
        name in "\\PC{1,30}", detail in any::<String>(), long in 0_usize..200_000, service in any::<String>(),
        since in any::<u64>(), hides in any::<usize>(), lost in any::<u64>(),
    ) {
        let Ok(name) = Name::try_from(name.trim()) else { return Ok(()) };
        prop_assume!(!service.trim().is_empty());
        let news = News::Check {
            name, outcome: Outcome::Fail, cause: Cause::new(detail.clone()), since_unix_millis: since, hides,
            detail: Some(format!("{detail}{}", "\u{1}😀\"".repeat(long)).into()),
        };
        let server = HttpServer::start(take);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = runtime.block_on(pagerduty(&server, &service).notify(&Message::new(vec![news], lost)));
        prop_assert!(told.is_ok(), "{:?}: {:?}", told, server.seen().last().and_then(problem));
    }
}

struct Duty(HttpServer, Arc<Mutex<Vec<String>>>);

impl Duty {
    fn new() -> Self {
        let texts = Arc::new(Mutex::new(Vec::new()));
        Self(HttpServer::start(taking(texts.clone())), texts)
    }
}

/// Keeps what people see: all but the key.
fn taking(texts: Arc<Mutex<Vec<String>>>) -> impl Fn(&Request) -> Reply {
    move |request| {
        let mut event: Value = serde_json::from_slice(&request.body).unwrap();
        event.as_object_mut().unwrap().remove("routing_key");
        texts.lock().unwrap().push(event.to_string());
        take(request)
    }
}

#[async_trait]
impl NotifierHarness for Duty {
    async fn notifier(&self) -> Arc<dyn Notifier> {
        Arc::new(pagerduty(&self.0, "node 1"))
    }

    async fn received(&self) -> Vec<String> {
        std::mem::take(&mut *self.1.lock().unwrap())
    }

    async fn refuse(&self, refuse: bool) {
        match refuse {
            true => self.0.script(|_| Reply::status(500, KEY)),
            false => self.0.script(taking(self.1.clone())),
        }
    }

    fn secrets(&self) -> Vec<String> {
        vec![KEY.into()]
    }
}

groundtackle_health_check_testkit::notifier_conformance!(Duty::new());

#[test]
fn a_config_is_read_and_shows_no_secret() {
    let text = format!(r#"{{ "routing_key": "{KEY}", "service": "node 1" }}"#);
    let config: PagerDutyConfig = serde_json::from_str(&text).unwrap();
    assert_eq!(config.url.to_string(), "https://events.pagerduty.com:443");
    assert!(!format!("{config:?}").contains(KEY), "{config:?}");
    for (from, to) in [
        ("node 1", " "),
        ("cdef\"", "cde\""),
        ("cdef\"", "cde-\""),
        ("service", "servic"),
    ] {
        let error = serde_json::from_str::<PagerDutyConfig>(&text.replace(from, to))
            .unwrap_err()
            .to_string();
        assert!(!error.contains("0123456789ab"), "{error}");
    }
}
