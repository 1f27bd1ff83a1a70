//! Against a server that refuses what Discord's documentation says that it refuses.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::collections::BTreeSet;

use groundtackle_core::Secret;
use groundtackle_release_gate::{
    Decision, Error, Evidence, Fact, Obligation, Passed, Reason, Resolution, Retryability, Rule,
    RunOutcome, Verdict, When,
};
use groundtackle_release_gate_discord::{DiscordUrl, GateDiscord, GateDiscordConfig};
use groundtackle_release_gate_testkit::{gate, now, request};
use groundtackle_testkit_servers::{HttpServer, Reply, Request};
use proptest::prelude::*;
use serde_json::{Value, json};

const TOKEN: &str = "1234/t0kent0ken";

fn discord(server: &HttpServer) -> GateDiscord {
    let url = Secret::from(server.url(&format!("/api/webhooks/{TOKEN}")));
    GateDiscordConfig::new(DiscordUrl::try_from(url).unwrap()).into()
}

fn count(text: &Value) -> usize {
    text.as_str().unwrap_or_default().encode_utf16().count()
}

/// What is wrong with it, by <https://discord.com/developers/docs/resources/message#embed-object-embed-limits>.
fn problem(request: &Request) -> Option<String> {
    if request.path != format!("/api/webhooks/{TOKEN}?wait=true") {
        return Some(request.path.clone());
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let embeds = body["embeds"].as_array().unwrap();
    if !(1..=2000).contains(&count(&body["content"])) || embeds.len() > 10 {
        return Some("content or embeds".into());
    }
    if body["allowed_mentions"] != json!({ "parse": [] }) {
        return Some("mentions".into());
    }
    let fields: Vec<_> = embeds
        .iter()
        .flat_map(|embed| embed["fields"].as_array().unwrap())
        .collect();
    let mut all = 0;
    for field in &fields {
        let (name, value) = (count(&field["name"]), count(&field["value"]));
        if !(1..=256).contains(&name) || !(1..=1024).contains(&value) {
            return Some(format!("a field of {name} and {value}"));
        }
        all += name + value;
    }
    (fields.len() > 25 || all > 6000).then(|| format!("{} fields, {all} characters", fields.len()))
}

fn take(request: &Request) -> Reply {
    match problem(request) {
        Some(problem) => Reply::status(400, problem),
        None => Reply::ok("{}"),
    }
}

fn told(server: &HttpServer) -> Value {
    serde_json::from_slice(&server.seen().last().unwrap().body).unwrap()
}

fn field(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

#[tokio::test]
async fn a_decision_looks_like_this() {
    let server = HttpServer::start(take);
    let discord = discord(&server);
    let (gate, request) = (gate(), request());
    let go = gate.judge(&[], &request, now());
    discord.decision(&go, None).await.unwrap();
    let artefact = request.artefact.to_string().replace(':', "\\:");
    let artefact = field("artefact", &artefact);
    assert_eq!(
        told(&server),
        json!({
            "content": "go\\: deploy of node 1.4.0 to production",
            "embeds": [{ "color": 0x002e_7d32, "fields": [
                field("asked by", "olga"),
                artefact,
                field("good until", "2026\\-11\\-10T11\\:10\\:00Z"),
            ] }],
            "allowed_mentions": { "parse": [] },
        })
    );
    let frozen = "2026-12-02T11:00:00Z".parse().unwrap();
    let hold = gate.judge(&[], &request, frozen);
    let next = gate.when(&[], &request, frozen);
    discord.decision(&hold, Some(next)).await.unwrap();
    assert_eq!(
        told(&server)["embeds"][0],
        json!({ "color": 0x00f9_a825, "fields": [
            field("asked by", "olga"),
            artefact,
            field("next go", "2026\\-12\\-08T00\\:00\\:00Z"),
            field("freezes\\: a week in December", "hold\\: nothing goes out until 2026\\-12\\-08T00\\:00\\:00Z"),
        ] })
    );
    let stranger = groundtackle_release_gate::Request {
        actor: "@everyone".into(),
        ..request
    };
    let no_go = gate.judge(&[], &stranger, now());
    discord.decision(&no_go, Some(When::Never)).await.unwrap();
    let body = told(&server);
    assert_eq!(
        body["content"],
        "no\\-go\\: deploy of node 1.4.0 to production"
    );
    assert_eq!(body["embeds"][0]["color"], 0x00d0_2f2f);
    assert_eq!(
        body["embeds"][0]["fields"][0],
        field("asked by", "\\@everyone")
    );
    assert!(body.to_string().contains("something else is missing"));
}

#[tokio::test]
async fn what_was_passed_and_what_warns_is_told() {
    let server = HttpServer::start(take);
    let mut decision = gate().judge(&[], &request(), now());
    decision.passed.push(Passed {
        reason: Reason {
            rule: Rule::Freezes,
            subject: "end of the year".into(),
            verdict: Verdict::Hold,
            detail: "nothing goes out".into(),
            holds_until: None,
        },
        by: "override of olga and omar for INC-7".into(),
    });
    decision
        .warnings
        .push("rollbacks: 1 is the last that is allowed".into());
    decision.obligations.push(Obligation::Count {
        budget: "overrides".into(),
    });
    discord(&server).decision(&decision, None).await.unwrap();
    let fields = told(&server)["embeds"][0]["fields"].clone();
    assert!(
        fields.as_array().unwrap().contains(&field(
            "passed\\: freezes\\: end of the year",
            "override of olga and omar for INC\\-7; nothing goes out"
        )),
        "{fields}"
    );
    assert!(
        fields.as_array().unwrap().contains(&field(
            "warning",
            "rollbacks\\: 1 is the last that is allowed"
        )),
        "{fields}"
    );
}

fn pipeline(outcome: RunOutcome, reported_to: &[&str], resolved: Option<Resolution>) -> Evidence {
    let reported_to: BTreeSet<String> = reported_to.iter().map(|&place| place.into()).collect();
    let fact = Fact::Pipeline {
        name: "staging".into(),
        outcome,
        reported_to,
        resolved,
    };
    Evidence::new("github octo-org/node", now(), fact)
}

#[tokio::test]
async fn a_failed_pipeline_is_told_once_and_then_counts_as_reported() {
    let server = HttpServer::start(take);
    let discord = discord(&server);
    for quiet in [
        pipeline(RunOutcome::Passed, &[], None),
        pipeline(RunOutcome::Running, &[], None),
        pipeline(RunOutcome::Failed, &["discord"], None),
    ] {
        assert_eq!(discord.pipeline(quiet.clone()).await.unwrap(), quiet);
    }
    assert!(server.seen().is_empty());
    for (resolved, shown) in [
        (None, "open\\: fix it, or roll back"),
        (Some(Resolution::Fixed), "fixed"),
        (Some(Resolution::RolledBack), "rolled back"),
    ] {
        let told_before = server.seen().len();
        let reported = discord
            .pipeline(pipeline(RunOutcome::Failed, &["mail"], resolved))
            .await
            .unwrap();
        assert_eq!(
            reported,
            pipeline(RunOutcome::Failed, &["discord", "mail"], resolved)
        );
        assert_eq!(told(&server)["content"], "pipeline staging failed");
        assert_eq!(
            told(&server)["embeds"][0]["fields"][0],
            field("state", shown)
        );
        discord.pipeline(reported).await.unwrap();
        assert_eq!(server.seen().len(), told_before + 1);
    }
    let other = Evidence::new(
        "test",
        now(),
        Fact::Backup {
            name: "utxo".into(),
        },
    );
    assert!(matches!(
        discord.pipeline(other).await,
        Err(Error::InvalidRequest { .. })
    ));
}

#[tokio::test]
async fn what_discord_did_not_store_was_not_reported() {
    for (reply, retryability) in [
        (Reply::status(400, "{}"), Retryability::Permanent),
        (Reply::status(404, "{}"), Retryability::Permanent),
        (
            Reply::Answer(429, vec![("Retry-After", "600".into())], b"{}".to_vec()),
            Retryability::Transient,
        ),
        (Reply::status(502, ""), Retryability::Indeterminate),
        (Reply::Close, Retryability::Indeterminate),
    ] {
        let server = HttpServer::start(take);
        server.script({
            let reply = reply.clone();
            move |_| reply.clone()
        });
        let discord = discord(&server);
        let error = discord
            .pipeline(pipeline(RunOutcome::Failed, &[], None))
            .await
            .unwrap_err();
        assert_eq!(error.retryability(), retryability, "{reply:?} {error:?}");
        let seen = format!("{error:?} {discord:?}");
        assert!(!seen.contains("t0ken"), "{seen}");
        if matches!(reply, Reply::Answer(429, ..)) {
            let go = gate().judge(&[], &request(), now());
            discord.decision(&go, None).await.unwrap_err();
            assert_eq!(server.seen().len(), 1, "until then it is left alone");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_decision_says_keeps_discords_limits(texts in prop::collection::vec(any::<String>(), 1..80), long in 1_usize..200) {
        let server = HttpServer::start(take);
        let mut decision: Decision = gate().judge(&[], &request(), now());
        decision.request.actor = texts[0].repeat(long);
        decision.request.tag = texts[0].repeat(long);
        decision.reasons = texts.iter().map(|text| Reason {
            rule: Rule::Checklist,
            subject: text.repeat(long),
            verdict: Verdict::NoGo,
            detail: text.repeat(long),
            holds_until: None,
        }).collect();
        decision.warnings = texts.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = runtime.block_on(discord(&server).decision(&decision, Some(When::Never)));
        prop_assert!(told.is_ok(), "{:?} {:?}", told, server.seen().first().and_then(problem));
    }
}

#[test]
fn a_config_that_makes_no_sense_is_refused() {
    let good = "url = \"https://discord.com/api/webhooks/1234/t0kent0ken\"\n";
    let config: GateDiscordConfig = toml::from_str(good).unwrap();
    assert_eq!(config.place, "discord");
    assert!(!format!("{config:?}").contains("t0ken"));
    for text in [
        good.replace("https", "http"),
        format!("{good}channel = \"x\""),
        String::new(),
    ] {
        let error = toml::from_str::<GateDiscordConfig>(&text)
            .unwrap_err()
            .to_string();
        assert!(
            !error
                .lines()
                .next_back()
                .unwrap_or_default()
                .contains("t0ken"),
            "{error}"
        );
    }
}
