//! Nothing is left out: what several entries of the config say of one thing, what is on pages that nothing links to, what is under
//! labels that are not there, and who made what GitHub signed.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod support;

use std::collections::BTreeSet;

use groundtackle_release_gate::{
    Digest, Error, Evidence, EvidenceSource, Fact, Result, RunOutcome, Timestamp,
};
use groundtackle_release_gate_github::{GitHub, GitHubConfig};
use groundtackle_release_gate_testkit::request;
use serde_json::{Value, json};

use support::{ASSET, COMMIT, Fake, PREFIX, of, shapes};

const OPENED: &str = "2026-11-01T00:00:00Z";

async fn collect(fake: &Fake, text: &str) -> Result<Vec<Evidence>> {
    let text = format!(
        "repository = \"octo-org/node\"\ntoken = \"{}\"\nasset = \"{ASSET}\"\napi = \"{}\"\n{text}",
        support::TOKEN,
        fake.server.url(PREFIX)
    );
    let mut config: GitHubConfig = toml::from_str(&text).unwrap();
    config.retry = fake.config().retry;
    GitHub::from(config).collect(&request()).await
}

async fn facts(fake: &Fake, text: &str) -> Vec<Fact> {
    let found = collect(fake, text).await.unwrap();
    found.into_iter().map(|evidence| evidence.fact).collect()
}

fn released() -> Fake {
    let fake = Fake::start();
    fake.released(&request());
    fake.deployed("production", &[]);
    fake
}

/// Of the request's artefact.
fn checks(fake: &Fake, runs: &[(&str, Option<&str>)]) {
    let runs = runs
        .iter()
        .map(|(name, ended)| shapes::check_run(name, COMMIT, "github-actions", *ended));
    let path = format!("/commits/{COMMIT}/check-runs");
    fake.list(&path, Some("check_runs"), runs.collect());
}

#[tokio::test]
async fn all_checks_of_a_suite_have_to_pass() {
    let config = "changes = false\n[[check]]\nsuite = \"all\"\nname = \"unit\"\n[[check]]\nsuite = \"all\"\nname = \"slow\"\n";
    let (good, bad) = (Some("success"), Some("failure"));
    for (unit, slow, expected) in [
        (good, good, Some(true)),
        (bad, good, Some(false)),
        (good, bad, Some(false)),
        (good, None, None),
        (None, bad, None),
    ] {
        let fake = released();
        checks(&fake, &[("unit", unit), ("slow", slow)]);
        let passed: Vec<_> = facts(&fake, config)
            .await
            .into_iter()
            .map(|fact| match fact {
                Fact::Test { suite, passed, .. } if suite == "all" => passed,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(passed, Vec::from_iter(expected), "{unit:?} {slow:?}");
    }
    // One that never ran.
    let fake = released();
    checks(&fake, &[("unit", good)]);
    assert_eq!(facts(&fake, config).await, []);
}

#[tokio::test]
async fn the_worst_workflow_of_a_pipeline_counts() {
    let config = "changes = false\n[[workflow]]\npipeline = \"staging\"\nfile = \"a.yml\"\n[[workflow]]\npipeline = \"staging\"\nfile = \"b.yml\"\n";
    let run = |ended: &str| match ended {
        "never" => Vec::new(),
        "running" => vec![shapes::workflow_run("in_progress", None)],
        ended => vec![shapes::workflow_run("completed", Some(ended))],
    };
    for (a, b, expected) in [
        ("success", "success", Some(RunOutcome::Passed)),
        ("failure", "success", Some(RunOutcome::Failed)),
        ("success", "failure", Some(RunOutcome::Failed)),
        ("running", "success", Some(RunOutcome::Running)),
        ("success", "running", Some(RunOutcome::Running)),
        ("running", "failure", Some(RunOutcome::Failed)),
        ("never", "success", None),
        ("success", "never", None),
        ("never", "failure", Some(RunOutcome::Failed)),
    ] {
        let fake = released();
        for (file, ended) in [("a", a), ("b", b)] {
            let path = format!("/actions/workflows/{file}.yml/runs");
            fake.list(&path, Some("workflow_runs"), run(ended));
        }
        let outcomes: Vec<_> = facts(&fake, config)
            .await
            .into_iter()
            .map(|fact| match fact {
                Fact::Pipeline { name, outcome, .. } if name == "staging" => outcome,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(outcomes, Vec::from_iter(expected), "{a} {b}");
    }
}

const LABELS: &str = r#"
changes = false
[[blocker]]
environment = "staging"
label = "blocker"
[[blocker]]
environment = "staging"
label = "regression"
[incident]
label = "incident"
severities = {}
[[measure]]
name = "escalations"
label = "escalation"
[[measure]]
name = "escalations"
label = "paged"
"#;

#[tokio::test]
async fn issues_of_all_labels_count_and_each_once() {
    let fake = released();
    let now = Timestamp::now().to_string();
    let closed = "2026-11-03T00:00:00Z";
    fake.state().issues = vec![
        shapes::issue(1, &["blocker"], OPENED, None, ""),
        shapes::issue(2, &["regression"], OPENED, Some("2026-11-02T00:00:00Z"), ""),
        shapes::issue(3, &["blocker"], OPENED, Some(closed), ""),
        shapes::issue(4, &["escalation", "paged"], &now, None, ""),
        shapes::issue(5, &["paged"], &now, None, ""),
        shapes::issue(6, &["escalation"], &now, None, ""),
    ];
    let found = facts(&fake, LABELS).await;
    let blockers = Fact::Blockers {
        artefact: request().artefact,
        environment: "staging".into(),
        open: ["#1".to_owned()].into(),
        last_closed_at: Some(closed.parse().unwrap()),
    };
    assert_eq!(found[0], blockers);
    let [
        _,
        Fact::Incidents { open },
        Fact::Measure { name, value, .. },
    ] = &found[..]
    else {
        panic!("{found:?}")
    };
    assert!(open.is_empty());
    assert_eq!((name.as_str(), *value), ("escalations", 3.0));
}

/// GitHub answers with an empty list.
#[tokio::test]
async fn a_label_that_is_not_there_is_an_error_and_no_clean_slate() {
    for label in ["blocker", "regression", "incident", "escalation", "paged"] {
        let fake = released();
        facts(&fake, LABELS).await;
        fake.state().no_labels.insert(label.into());
        let error = collect(&fake, LABELS).await.unwrap_err();
        assert!(
            matches!(error, Error::InvalidRequest { .. })
                && error.to_string().contains(&format!("{label:?}")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn pages_that_nothing_links_to_are_read() {
    for (count, pages) in [(99, 1), (100, 2), (101, 2), (250, 3)] {
        let fake = released();
        fake.state().unlinked = true;
        fake.state().issues = (1..=count)
            .map(|n| shapes::issue(n, &["incident"], OPENED, None, ""))
            .collect();
        let found = facts(&fake, LABELS).await;
        let open = found.iter().find_map(|fact| match fact {
            Fact::Incidents { open } => Some(open.len()),
            _ => None,
        });
        assert_eq!(open, Some(count as usize));
        let asked = fake.paths();
        let asked = asked.iter().filter(|path| path.contains("labels=incident"));
        assert_eq!(asked.count(), pages, "{count}");
    }
    // A whole page that is linked to others, and is the last one, is.
    let fake = released();
    fake.state().issues = (1..=200)
        .map(|n| shapes::issue(n, &["incident"], OPENED, None, ""))
        .collect();
    facts(&fake, LABELS).await;
    let asked = fake.paths();
    let asked = asked.iter().filter(|path| path.contains("labels=incident"));
    assert!((2..=3).contains(&asked.count()));
}

#[tokio::test]
async fn fewer_check_runs_than_there_are_is_an_error() {
    let config = "changes = false\n[[check]]\nsuite = \"all\"\nname = \"unit\"\n";
    let fake = released();
    let run = shapes::check_run("unit", COMMIT, "github-actions", Some("success"));
    let page = |total: usize| json!({ "total_count": total, "check_runs": [run.clone()] });
    let path = format!("/commits/{COMMIT}/check-runs");
    fake.thing(&path, page(1));
    assert_eq!(facts(&fake, config).await.len(), 1);
    fake.thing(&path, page(2));
    let error = collect(&fake, config).await.unwrap_err();
    assert!(error.to_string().contains("1 of 2"), "{error}");
}

/// On the site anybody who may push solves conflicts, by writing what they like: GitHub signs it as its own merge.
#[tokio::test]
async fn who_solved_conflicts_on_the_site_made_the_change_too() {
    let fake = Fake::start();
    fake.released(&request());
    let before = of(Digest::of(b"node 1.3.0"));
    fake.deployed("production", &[(1, "base", before, &[("success", OPENED)])]);
    let commit = |sha, author, committer, parents| {
        shapes::commit(sha, Some(author), Some(committer), parents, "work")
    };
    let conflicts = commit("conflicts", "ben", "web-flow", 2);
    let merge = commit("merge", "cleo", "web-flow", 2);
    let theirs = commit("theirs", "ada", "ada", 1);
    let merged: Value = shapes::pull(12, "ada", "conflicts", Some("2026-11-01T20:00:00Z"));
    for sha in ["theirs", "conflicts", "merge"] {
        fake.list(&format!("/commits/{sha}/pulls"), None, vec![merged.clone()]);
    }
    let path = format!("/compare/base...{COMMIT}");
    let all = vec![theirs.clone(), conflicts.clone(), merge];
    fake.list(&path, Some("commits"), all);
    fake.list("/pulls/12/commits", None, vec![theirs, conflicts]);
    let approve = |login| shapes::review(login, "APPROVED", "conflicts");
    let reviews = vec![approve("ben"), approve("cleo")];
    fake.list("/pulls/12/reviews", None, reviews);
    let changes = facts(&fake, "")
        .await
        .into_iter()
        .find_map(|fact| match fact {
            Fact::Changes { changes, .. } => Some(changes),
            _ => None,
        });
    let [change] = &changes.unwrap()[..] else {
        panic!("one pull request")
    };
    let authors: BTreeSet<String> = ["ada", "ben"].map(String::from).into();
    assert_eq!(change.authors, authors, "who pressed merge made nothing");
}

/// GitHub notes a moment later that what was there before is inactive.
#[tokio::test]
async fn what_was_replaced_does_not_take_away_what_replaced_it() {
    let (ours, other) = (request().artefact, Digest::of(b"node 1.3.0"));
    let at = |text: &str| -> Timestamp { text.parse().unwrap() };
    let nothing = Digest::of(b"nothing");
    for (ours_statuses, last) in [
        (&[("success", "2026-11-05T04:00:00Z")][..], ours),
        // It was taken away by hand.
        (
            &[
                ("success", "2026-11-05T04:00:00Z"),
                ("inactive", "2026-11-05T05:00:00Z"),
            ][..],
            nothing,
        ),
    ] {
        let fake = Fake::start();
        fake.released(&request());
        let before = [
            ("success", "2026-11-05T03:00:00Z"),
            ("inactive", "2026-11-05T04:00:01Z"),
        ];
        fake.deployed(
            "production",
            &[
                (2, COMMIT, of(ours), ours_statuses),
                (1, "a", of(other), &before),
            ],
        );
        let found = collect(&fake, "changes = false").await.unwrap();
        let newest = found.iter().max_by_key(|evidence| evidence.observed_at);
        let newest = newest.unwrap();
        let Fact::Deployment {
            artefact,
            succeeded,
            ..
        } = newest.fact
        else {
            panic!("{newest:?}")
        };
        assert_eq!((artefact, succeeded), (last, true));
        assert!(newest.observed_at != at("2026-11-05T04:00:01Z"));
    }
}
