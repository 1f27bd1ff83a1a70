//! Decisions and incidents as issues, and answers to jobs that wait.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod support;

use std::collections::BTreeMap;

use groundtackle_core::Secret;
use groundtackle_release_gate::{
    Decision, Digest, Entry, Error, Evidence, Gate, Incident, Length, Policy, Record, Request,
    Retryability, Severity, Timestamp, Verdict,
};
use groundtackle_release_gate_github::{GitHub, IncidentRule, ProtectionRequest, WebhookSecret};
use groundtackle_release_gate_testkit::{gate, now, request};
use groundtackle_testkit_servers::Reply;
use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::Sha256;

use support::{ASSET, COMMIT, Fake, PREFIX, shapes};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn record(request: &Request) -> Record {
    let decision = gate().judge(&[], request, now());
    Record {
        sequence: 4,
        previous: Digest::of(b"the line before"),
        at: now(),
        entry: Entry::Decision {
            decision: Box::new(decision),
            evidence: Vec::<Evidence>::new(),
        },
    }
}

#[tokio::test]
async fn a_decision_is_logged_as_one_issue() {
    let fake = Fake::start();
    let github = fake.github();
    let mut asked = request();
    asked.actor = "@octo-org/everyone #1".into();
    let record = record(&asked);
    assert_eq!(github.log_decision(&record).await.unwrap(), 1);
    assert_eq!(
        github.log_decision(&record).await.unwrap(),
        1,
        "it is there"
    );
    let issues = fake.state().issues.clone();
    assert_eq!(issues.len(), 1);
    assert_eq!(
        issues[0]["title"],
        "deploy of node 1.4.0 to production: no-go"
    );
    assert_eq!(issues[0]["labels"][0]["name"], "release-decision");
    let body = issues[0]["body"].as_str().unwrap();
    assert!(
        body.contains("@<!-- -->octo") && !body.contains("@octo") && !body.contains("#1"),
        "it calls nobody: {body}"
    );
    // Another record of the same decision's shape is another.
    let other = Record {
        sequence: 5,
        ..record.clone()
    };
    assert_eq!(github.log_decision(&other).await.unwrap(), 2);
    let deployed = Record {
        entry: Entry::Incident {
            incident: incident(),
        },
        ..record
    };
    assert!(matches!(
        github.log_decision(&deployed).await,
        Err(Error::InvalidRequest { .. })
    ));
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_one_issue() {
    let fake = Fake::start();
    let github = fake.github();
    let record = record(&request());
    fake.state().lose_answers = 1;
    let error = github.log_decision(&record).await.unwrap_err();
    assert_eq!(
        error.retryability(),
        Retryability::Indeterminate,
        "{error:?}"
    );
    assert_eq!(github.log_decision(&record).await.unwrap(), 1);
    assert_eq!(fake.state().issues.len(), 1);
    // Nobody repeats a write by itself.
    let posts = fake
        .paths()
        .into_iter()
        .filter(|path| path.starts_with("POST"));
    assert_eq!(posts.count(), 1);
}

#[tokio::test]
async fn whoever_opens_an_issue_without_the_label_stands_in_nobodys_way() {
    let fake = Fake::start();
    let github = fake.github();
    let record = record(&request());
    github.log_decision(&record).await.unwrap();
    let copied = fake.state().issues[0]["body"].as_str().unwrap().to_owned();
    fake.state().issues = vec![shapes::issue(
        1,
        &["question"],
        "2026-11-10T11:00:00Z",
        None,
        &copied,
    )];
    assert_eq!(github.log_decision(&record).await.unwrap(), 2);
}

fn incident() -> Incident {
    Incident::open(
        "INC-7",
        "The node <b>stands</b> still",
        Severity::Major,
        at("2026-11-10T08:00:00Z"),
    )
    .with_moment(at("2026-11-10T08:05:00Z"), "olga", "restarted it")
}

fn with_incidents(fake: &Fake) -> GitHub {
    let mut config = fake.config();
    config.incidents = Some(IncidentRule {
        label: "incident".into(),
        severities: BTreeMap::from([(Severity::Major, "sev2".into())]),
    });
    config.into()
}

#[tokio::test]
async fn an_incident_is_one_issue_that_follows_it_until_it_is_over() {
    let fake = Fake::start();
    let github = with_incidents(&fake);
    let policy: Policy = gate().policy().clone();
    let mut incident = incident();
    assert_eq!(
        github
            .log_incident(&incident, &policy, now())
            .await
            .unwrap(),
        1
    );
    let opened = fake.state().issues[0].clone();
    assert_eq!(opened["title"], "INC-7: The node <b>stands</b> still");
    let labels: Vec<_> = opened["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|label| label["name"].clone())
        .collect();
    assert_eq!(labels, ["incident", "sev2"]);
    let body = opened["body"].as_str().unwrap();
    assert!(
        body.contains("Owner: olga") && body.contains("restarted it") && !body.contains("<b>"),
        "{body}"
    );
    incident.cause = "a full disk".into();
    incident.resolved_at = Some(now());
    assert_eq!(
        github
            .log_incident(&incident, &policy, now())
            .await
            .unwrap(),
        1
    );
    let closed = fake.state().issues.clone();
    assert_eq!((closed.len(), &closed[0]["state"]), (1, &json!("closed")));
    assert!(closed[0]["body"].as_str().unwrap().contains("a full disk"));
    // One that is over by the time it is logged is closed at once.
    let other = Incident {
        id: "INC-8".into(),
        ..incident
    };
    assert_eq!(
        github.log_incident(&other, &policy, now()).await.unwrap(),
        2
    );
    assert_eq!(fake.state().issues[1]["state"], "closed");
    let without = fake.github().log_incident(&other, &policy, now()).await;
    assert!(
        matches!(without, Err(Error::InvalidRequest { .. })),
        "{without:?}"
    );
}

const SECRET: &str = "It's a Secret to Everybody";

fn secret() -> WebhookSecret {
    Secret::from(SECRET).try_into().unwrap()
}

fn signed(event: &'static str, body: &[u8]) -> HeaderMap {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())
        .unwrap()
        .chain_update(body);
    let digest = Digest(mac.finalize().into_bytes().into()).hex();
    HeaderMap::from_iter([
        (
            http::HeaderName::from_static("x-github-event"),
            HeaderValue::from_static(event),
        ),
        (
            http::HeaderName::from_static("x-hub-signature-256"),
            HeaderValue::try_from(format!("sha256={digest}")).unwrap(),
        ),
    ])
}

/// The values are GitHub's own, for whoever wants to test an implementation
/// (<https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation>).
#[test]
fn signatures_are_those_that_github_documents() {
    let body = b"Hello, World!";
    let documented = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(signed("ping", body)["x-hub-signature-256"], documented);
    assert!(secret().signed(&signed("ping", body), body));
    assert!(!secret().signed(&signed("ping", body), b"Hello, World"));
    let refuses = |value: &str| {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-hub-signature-256"),
            HeaderValue::try_from(value).unwrap(),
        )]);
        assert!(!secret().signed(&headers, body), "{value}");
    };
    for value in [
        "",
        "sha256=",
        "sha1=757107ea",
        "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    ] {
        refuses(value);
    }
    refuses(&documented.to_uppercase());
    refuses(&format!("{documented}00"));
    assert!(!secret().signed(&HeaderMap::new(), body));
    let mut twice = signed("ping", body);
    twice.append("x-hub-signature-256", HeaderValue::from_static("sha256=00"));
    assert!(!secret().signed(&twice, body));
    assert_eq!(format!("{:?}", secret()), "***");
    assert!(WebhookSecret::try_from(Secret::from("short")).is_err());
}

#[test]
fn every_flipped_bit_of_a_signature_or_a_body_is_found() {
    let body = callback_body("https://api.github.com");
    let good = signed("deployment_protection_rule", &body);
    assert!(secret().read(&good, &body).unwrap().is_some());
    let value = good["x-hub-signature-256"].as_bytes().to_vec();
    for (at, bit) in (0..value.len()).flat_map(|at| (0..7).map(move |bit| (at, bit))) {
        let mut flipped = value.clone();
        flipped[at] ^= 1 << bit;
        if let Ok(flipped) = HeaderValue::from_bytes(&flipped) {
            let mut headers = good.clone();
            headers.insert("x-hub-signature-256", flipped);
            assert!(
                matches!(secret().read(&headers, &body), Err(Error::Untrusted { .. })),
                "{at} {bit}"
            );
        }
    }
    for at in 0..body.len() {
        let mut flipped = body.clone();
        flipped[at] ^= 1;
        assert!(
            matches!(secret().read(&good, &flipped), Err(Error::Untrusted { .. })),
            "{at}"
        );
    }
}

proptest! {
    #[test]
    fn whatever_was_signed_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let headers = signed("deployment_protection_rule", &body);
        let read = secret().read(&headers, &body);
        let refused = matches!(read, Err(Error::Corrupt { .. }));
        prop_assert!(refused, "{:?}", read);
    }
}

fn callback_body(api: &str) -> Vec<u8> {
    let callback = format!("{api}/repos/octo-org/node/actions/runs/42/deployment_protection_rule");
    shapes::delivery(&callback, "production", "refs/tags/1.4.0", COMMIT)
        .to_string()
        .into()
}

fn read(body: &[u8]) -> ProtectionRequest {
    let headers = signed("deployment_protection_rule", body);
    secret().read(&headers, body).unwrap().unwrap()
}

#[test]
fn other_events_are_no_question() {
    for event in ["ping", "deployment", "deployment_review"] {
        assert_eq!(secret().read(&signed(event, b"{}"), b"{}").unwrap(), None);
    }
    let mut other: Value =
        serde_json::from_slice(&callback_body("https://api.github.com")).unwrap();
    other["action"] = json!("completed");
    let other = other.to_string().into_bytes();
    assert_eq!(
        secret()
            .read(&signed("deployment_protection_rule", &other), &other)
            .unwrap(),
        None
    );
}

/// A fake with the release, a GitHub that knows who is who, and a job that waits.
async fn waiting() -> (Fake, GitHub, ProtectionRequest) {
    let fake = Fake::start();
    fake.released(&request());
    let mut config = fake.config();
    config.people.insert("Olga-Ops".into(), "olga".into());
    let asked = read(&callback_body(&fake.server.url(PREFIX)));
    (fake, config.into(), asked)
}

fn posted(fake: &Fake) -> Vec<(String, Value)> {
    let posts = fake
        .server
        .seen()
        .into_iter()
        .filter(|asked| asked.method == "POST");
    posts
        .map(|asked| {
            (
                asked.path.clone(),
                serde_json::from_slice(&asked.body).unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_waiting_job_is_answered_by_the_verdict() {
    let (fake, github, asked) = waiting().await;
    let question = github
        .question(&asked, Some(Length::minutes(20)))
        .await
        .unwrap();
    assert_eq!(
        question,
        Request {
            takes: Some(Length::minutes(20)),
            ..request()
        }
    );
    let frozen = at("2026-12-02T00:00:00Z");
    let mut no_one = gate().policy().clone();
    no_one.environments[0].actors.clear();
    no_one = no_one.with_role("nobody", &["nobody"]);
    no_one.environments[0].actors = vec!["nobody".into()];
    for (decision, instant, state) in [
        (
            gate().judge(&[], &question, now()),
            now(),
            json!("approved"),
        ),
        (
            Gate::new(no_one).unwrap().judge(&[], &question, now()),
            now(),
            json!("rejected"),
        ),
        // It goes on waiting.
        (gate().judge(&[], &question, frozen), frozen, Value::Null),
    ] {
        github.answer(&asked, &decision, instant).await.unwrap();
        let (path, body) = posted(&fake).pop().unwrap();
        assert_eq!(
            path,
            format!("{PREFIX}/repos/octo-org/node/actions/runs/42/deployment_protection_rule")
        );
        assert_eq!(
            (&body["environment_name"], &body["state"]),
            (&json!("production"), &state)
        );
        assert_eq!(body.get("state").is_none(), state.is_null());
        let comment = body["comment"].as_str().unwrap();
        assert!(
            comment.starts_with(&decision.verdict.to_string()),
            "{comment}"
        );
        assert!(
            decision
                .reasons
                .iter()
                .all(|reason| comment.contains(&reason.detail)),
            "{comment}"
        );
    }
    assert_eq!(posted(&fake).len(), 3);
}

#[tokio::test]
async fn no_job_is_approved_but_by_a_go_about_it_that_is_still_good() {
    let (fake, github, asked) = waiting().await;
    let question = github.question(&asked, None).await.unwrap();
    let go = gate().judge(&[], &question, now());
    assert_eq!(go.verdict, Verdict::Go);
    let late = go.good_until.unwrap();
    let about = |change: fn(&mut Request)| {
        let mut decision = go.clone();
        change(&mut decision.request);
        decision
    };
    let others: [Decision; 5] = [
        about(|request| request.environment = "staging".into()),
        about(|request| request.tag = "1.4.1".into()),
        about(|request| request.artefact = Digest::of(b"another")),
        about(|request| request.actor = "mallory".into()),
        about(|request| request.action = groundtackle_release_gate::Action::Rollback),
    ];
    for other in others {
        let error = github.answer(&asked, &other, now()).await.unwrap_err();
        assert!(matches!(error, Error::InvalidRequest { .. }), "{error}");
    }
    let error = github.answer(&asked, &go, late).await.unwrap_err();
    assert!(error.to_string().contains("good no more"), "{error}");
    let endless = Decision {
        good_until: None,
        ..go.clone()
    };
    github.answer(&asked, &endless, now()).await.unwrap_err();
    assert_eq!(posted(&fake), []);
    // Neither is the token sent elsewhere.
    let stranger = Fake::start();
    let base = fake.server.url(PREFIX);
    for callback in [
        format!(
            "{}/repos/octo-org/node/actions/runs/42/deployment_protection_rule",
            stranger.server.url(PREFIX)
        ),
        format!("{base}/repos/mallory/node/actions/runs/42/deployment_protection_rule"),
        format!("{base}/repos/octo-org/node/actions/runs/../deployment_protection_rule"),
        format!("{base}/repos/octo-org/node/actions/runs/42/approvals"),
        format!(
            "{}/other/actions/runs/42/deployment_protection_rule",
            fake.server.url("")
        ),
        "not a URL".into(),
    ] {
        let body = shapes::delivery(&callback, "production", "1.4.0", COMMIT)
            .to_string()
            .into_bytes();
        let error = github.answer(&read(&body), &go, now()).await.unwrap_err();
        assert!(
            matches!(error, Error::InvalidRequest { .. }),
            "{callback}: {error}"
        );
    }
    assert!(stranger.server.seen().is_empty());
    assert_eq!(posted(&fake), []);
}

#[tokio::test]
async fn a_job_that_is_not_of_a_release_asks_nothing() {
    let (fake, github, _) = waiting().await;
    let callback = format!(
        "{}/repos/octo-org/node/actions/runs/42/deployment_protection_rule",
        fake.server.url(PREFIX)
    );
    for (reference, sha, why) in [
        ("main", COMMIT, "no release"),
        ("1.4.0", "moved", "not that of the tag"),
    ] {
        let body = shapes::delivery(&callback, "production", reference, sha)
            .to_string()
            .into_bytes();
        let error = github.question(&read(&body), None).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    let mut foreign = shapes::delivery(&callback, "production", "1.4.0", COMMIT);
    foreign["repository"] = shapes::repository("mallory/node");
    let error = github
        .question(&read(foreign.to_string().as_bytes()), None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("mallory/node"), "{error}");
    fake.thing(
        "/releases/tags/1.4.0",
        shapes::release("1.4.0", ASSET, None),
    );
    let body = shapes::delivery(&callback, "production", "1.4.0", COMMIT)
        .to_string()
        .into_bytes();
    assert!(github.question(&read(&body), None).await.is_err());
}

#[tokio::test]
async fn an_answer_that_may_have_arrived_is_in_doubt() {
    let (fake, github, asked) = waiting().await;
    let question = github.question(&asked, None).await.unwrap();
    let rejected = Decision {
        verdict: Verdict::NoGo,
        ..gate().judge(&[], &question, now())
    };
    for (fault, retryability) in [
        (Reply::status(502, ""), Retryability::Indeterminate),
        (Reply::Close, Retryability::Indeterminate),
        (
            Reply::status(422, shapes::problem("Validation Failed").to_string()),
            Retryability::Permanent,
        ),
        (
            Reply::status(404, shapes::problem("Not Found").to_string()),
            Retryability::Permanent,
        ),
    ] {
        fake.state().faults.push_back(fault.clone());
        let error = github.answer(&asked, &rejected, now()).await.unwrap_err();
        assert_eq!(error.retryability(), retryability, "{fault:?} {error:?}");
    }
    github.answer(&asked, &rejected, now()).await.unwrap();
}
