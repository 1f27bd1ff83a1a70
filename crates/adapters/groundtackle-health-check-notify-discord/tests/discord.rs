//! Against a server that refuses what Discord's documentation says that it refuses.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use groundtackle_core::Secret;
use groundtackle_health_check::{
    Cause, Message, Name, News, Notifier, Outcome, Retryability, Severity,
};
use groundtackle_health_check_notify_discord::{
    Channel as Posting, Discord, DiscordConfig, DiscordUrl, Note,
};
use groundtackle_health_check_testkit::NotifierHarness;
use groundtackle_testkit_servers::{HttpServer, Reply, Request};
use proptest::prelude::*;
use serde_json::{Value, json};

const TOKEN: &str = "1234/t0kent0ken";

fn discord(server: &HttpServer) -> Discord {
    let url = Secret::from(server.url(&format!("/api/webhooks/{TOKEN}")));
    DiscordConfig::new(DiscordUrl::try_from(url).unwrap(), "node 1").into()
}

fn count(text: &Value) -> usize {
    text.as_str().unwrap_or_default().encode_utf16().count()
}

/// What is wrong with it, by <https://discord.com/developers/docs/resources/webhook#execute-webhook>.
fn problem(request: &Request) -> Option<String> {
    if request.path != format!("/api/webhooks/{TOKEN}?wait=true") {
        return Some(request.path.clone());
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return Some("no JSON".into());
    };
    let embeds = body["embeds"].as_array().cloned().unwrap_or_default();
    if count(&body["content"]) > 2000 || embeds.len() > 10 {
        return Some("content or embeds".into());
    }
    if count(&body["content"]) == 0 && embeds.is_empty() {
        return Some("empty".into());
    }
    if body["allowed_mentions"] != json!({ "parse": [] }) {
        return Some("mentions".into());
    }
    let mut all = 0;
    for embed in &embeds {
        let fields = embed["fields"].as_array().cloned().unwrap_or_default();
        if fields.len() > 25 {
            return Some(format!("{} fields", fields.len()));
        }
        for field in fields {
            let (name, value) = (count(&field["name"]), count(&field["value"]));
            if !(1..=256).contains(&name) || !(1..=1024).contains(&value) {
                return Some(format!("a field of {name} and {value}"));
            }
            all += name + value;
        }
    }
    (all > 6000).then(|| format!("{all} characters"))
}

fn take(request: &Request) -> Reply {
    match problem(request) {
        Some(problem) => Reply::status(400, problem),
        None => Reply::ok("{}"),
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

#[tokio::test]
async fn a_message_looks_like_this() {
    let server = HttpServer::start(take);
    let alert = News::Alert {
        objective: Name::try_from("available").unwrap(),
        severity: Severity::Page,
        long_secs: 3600,
        firing: true,
    };
    let items = vec![
        check("db_1", "@everyone: **no** answer", Outcome::Fail),
        check("api", "", Outcome::Pass),
        alert,
    ];
    discord(&server)
        .notify(&Message::new(items, 2))
        .await
        .unwrap();
    let body: Value = serde_json::from_slice(&server.seen()[0].body).unwrap();
    assert_eq!(
        body,
        json!({
            "content": "node 1: 2 down, 1 over (2 changes could not be told when they came)",
            "embeds": [{ "color": 0x00d0_2f2f, "fields": [
                { "name": "🔴 db\\_1", "value": "is down\\: fail, refused; it hides 3 more, since <t:1767225600:f>\n\\@everyone\\: \\*\\*no\\*\\* answer" },
                { "name": "🟢 api", "value": "is up again\\: pass, refused, since <t:1767225600:f>" },
                { "name": "🔴 available", "value": "spends its error budget too fast \\(over 3600s\\)\\: page" },
            ] }],
            "allowed_mentions": { "parse": [] },
        })
    );
}

#[tokio::test]
async fn what_one_post_can_not_hold_comes_in_several_and_goes_on_where_it_broke_off() {
    let server = HttpServer::start(take);
    let discord = discord(&server);
    // Names of marks alone, which are twice as long when they are escaped.
    let name = |n: usize| format!("{n:03}{}", "*".repeat(97));
    let items: Vec<News> = (0..100)
        .map(|n| check(&name(n), "detail", Outcome::Fail))
        .collect();
    let message = Message::new(items, 0);
    discord.notify(&message).await.unwrap();
    let posts = server.seen().len();
    assert!((5..=8).contains(&posts), "{posts}");
    let told = server
        .seen()
        .iter()
        .map(|request| String::from_utf8(request.body.clone()).unwrap())
        .collect::<String>();
    assert!((0..100).all(|n| told.matches(&format!("{n:03}\\\\*")).count() == 1));
    // The third is refused for a moment.
    let count = Arc::new(Mutex::new(0));
    server.script(move |request| {
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count == 3 {
            Reply::status(500, "")
        } else {
            take(request)
        }
    });
    let error = discord.notify(&message).await.unwrap_err();
    assert_eq!(error.retryability(), Retryability::Indeterminate);
    discord.notify(&message).await.unwrap();
    assert_eq!(server.seen().len(), posts + posts + 1);
}

#[tokio::test]
async fn a_rate_limit_is_kept() {
    let limited = || {
        Reply::Answer(
            429,
            vec![("Retry-After", "0.7".into())],
            br#"{"retry_after": 0.7, "global": false}"#.into(),
        )
    };
    let server = HttpServer::start(move |_| limited());
    let discord = discord(&server);
    let message = Message::new(vec![check("db", "", Outcome::Fail)], 0);
    let begun = Instant::now();
    let error = discord.notify(&message).await.unwrap_err();
    assert_eq!(error.retryability(), Retryability::Transient);
    server.script(take);
    discord.notify(&message).await.unwrap();
    assert!(
        begun.elapsed() >= Duration::from_millis(700),
        "{:?}",
        begun.elapsed()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn limits_are_kept_whatever_the_texts(
        items in prop::collection::vec(("\\PC{1,30}|[*_`]{1,100}|\\p{So}{1,25}", any::<String>(), any::<u64>(), any::<usize>()), 1..60),
        long in 0_usize..5000,
        service in any::<String>(),
        lost in any::<u64>(),
    ) {
        let news = items.iter().filter_map(|(name, detail, since, hides)| Some(News::Check {
            name: Name::try_from(name.trim()).ok()?,
            outcome: if since % 2 == 0 { Outcome::Fail } else { Outcome::Pass },
            cause: Cause::new(detail.clone()),
            detail: Some(format!("{detail}{}", "*@ 😀".repeat(long)).into()),
            since_unix_millis: *since,
            hides: *hides,
        }));
        let news: Vec<News> = news.collect();
        prop_assume!(!news.is_empty());
        let server = HttpServer::start(take);
        let url = Secret::from(server.url(&format!("/api/webhooks/{TOKEN}")));
        let discord = Discord::from(DiscordConfig::new(DiscordUrl::try_from(url).unwrap(), service));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = runtime.block_on(discord.notify(&Message::new(news.clone(), lost)));
        prop_assert!(told.is_ok(), "{:?}: {:?}", told, server.seen().last().and_then(problem));
        let fields: usize = server.seen().iter().map(|request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            body["embeds"][0]["fields"].as_array().unwrap().len()
        }).sum();
        prop_assert_eq!(fields, news.len());
    }
}

struct Channel(HttpServer, Arc<Mutex<Vec<String>>>);

impl Channel {
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
impl NotifierHarness for Channel {
    async fn notifier(&self) -> Arc<dyn Notifier> {
        Arc::new(discord(&self.0))
    }

    async fn received(&self) -> Vec<String> {
        std::mem::take(&mut *self.1.lock().unwrap())
    }

    async fn refuse(&self, refuse: bool) {
        match refuse {
            true => self.0.script(|_| Reply::status(500, "t0kent0ken")),
            false => self.0.script(taking(self.1.clone())),
        }
    }

    fn secrets(&self) -> Vec<String> {
        vec!["t0kent0ken".into()]
    }
}

groundtackle_health_check_testkit::notifier_conformance!(Channel::new());

#[test]
fn a_config_is_read_and_shows_no_secret() {
    let text = |url: &str| format!(r#"{{ "url": "{url}", "service": "node 1" }}"#);
    let config: DiscordConfig = serde_json::from_str(&text(
        "https://discord.com/api/webhooks/1/t0kent0ken?thread_id=2",
    ))
    .unwrap();
    assert!(!format!("{config:?}").contains("t0kent0ken"), "{config:?}");
    for url in ["http://discord.com/api/webhooks/1/t0kent0ken", "t0kent0ken"] {
        let error = serde_json::from_str::<DiscordConfig>(&text(url))
            .unwrap_err()
            .to_string();
        assert!(!error.contains("t0kent0ken"), "{error}");
    }
}

fn channel(server: &HttpServer) -> Posting {
    let url = Secret::from(server.url(&format!("/api/webhooks/{TOKEN}")));
    Posting::new(DiscordUrl::try_from(url).unwrap(), None)
}

#[tokio::test]
async fn a_note_looks_like_this() {
    let server = HttpServer::start(take);
    let note = Note::new("node 1.4.0: **go** @here", 0x0011_2233)
        .with_field("why [not]", "all\nis well")
        .with_field("", " ");
    channel(&server).post(&note).await.unwrap();
    channel(&server)
        .post(&Note::new("a line", 0))
        .await
        .unwrap();
    let bodies: Vec<Value> = server
        .seen()
        .iter()
        .map(|seen| serde_json::from_slice(&seen.body).unwrap())
        .collect();
    let mentions = json!({ "parse": [] });
    let fields = json!([
        { "name": "why \\[not\\]", "value": "all is well" },
        { "name": "-", "value": "-" },
    ]);
    assert_eq!(
        bodies,
        [
            json!({
                "content": "node 1.4.0\\: \\*\\*go\\*\\* \\@here",
                "embeds": [{ "color": 0x0011_2233, "fields": fields }],
                "allowed_mentions": mentions,
            }),
            json!({ "content": "a line", "embeds": [], "allowed_mentions": mentions }),
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_note_says_keeps_discords_limits(
        line in any::<String>(),
        fields in prop::collection::vec((any::<String>(), any::<String>()), 0..60),
        long in 1_usize..400,
    ) {
        let server = HttpServer::start(take);
        let note = fields.into_iter().fold(Note::new(line.repeat(long), 0), |note, (name, value)| {
            note.with_field(name.repeat(long), value.repeat(long))
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let posted = runtime.block_on(channel(&server).post(&note));
        prop_assert!(posted.is_ok(), "{:?} {:?}", posted, server.seen().first().and_then(problem));
    }
}
