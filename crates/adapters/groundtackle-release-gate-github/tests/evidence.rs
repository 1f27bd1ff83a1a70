//! What GitHub knows, as evidence.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod support;

use std::collections::BTreeSet;

use groundtackle_release_gate::{
    Change, Digest, Error, Evidence, EvidenceSource, Fact, Retryability, RunOutcome, Severity,
    Timestamp,
};
use groundtackle_release_gate_github::{GitHub, GitHubConfig};
use groundtackle_release_gate_testkit::request;
use groundtackle_testkit_servers::Reply;
use serde_json::{Value, json};

use support::{ASSET, COMMIT, Fake, PREFIX, of, shapes};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.into()).collect()
}

/// A config as it is written in a file, with what a test is about.
fn with(fake: &Fake, text: &str) -> GitHubConfig {
    let text = format!(
        "repository = \"octo-org/node\"\ntoken = \"{}\"\nasset = \"{ASSET}\"\napi = \"{}\"\n{text}",
        support::TOKEN,
        fake.server.url(PREFIX)
    );
    let mut config: GitHubConfig = toml::from_str(&text).unwrap();
    config.retry = fake.config().retry;
    config
}

async fn facts(fake: &Fake, text: &str) -> Vec<(Timestamp, Fact)> {
    let found = GitHub::from(with(fake, text))
        .collect(&request())
        .await
        .unwrap();
    found
        .into_iter()
        .map(
            |Evidence {
                 observed_at, fact, ..
             }| (observed_at, fact),
        )
        .collect()
}

async fn error(fake: &Fake, text: &str) -> Error {
    let source = GitHub::from(with(fake, text));
    source.collect(&request()).await.unwrap_err()
}

const CHECK: &str = "changes = false\n[[check]]\nsuite = \"all\"\nname = \"CI / all\"\n";

fn checks(fake: &Fake, runs: Vec<Value>) {
    fake.list(
        &format!("/commits/{COMMIT}/check-runs"),
        Some("check_runs"),
        runs,
    );
}

#[tokio::test]
async fn a_check_is_a_test_of_what_was_built_from_its_commit() {
    let run = |app, conclusion| shapes::check_run("CI / all", COMMIT, app, conclusion);
    let ended = at("2026-11-04T01:14:52Z");
    for (runs, expected) in [
        (vec![run("github-actions", Some("success"))], Some(true)),
        (vec![run("github-actions", Some("failure"))], Some(false)),
        // What was left out has shown nothing.
        (vec![run("github-actions", Some("skipped"))], Some(false)),
        (vec![run("github-actions", Some("neutral"))], Some(false)),
        (vec![run("github-actions", Some("cancelled"))], Some(false)),
        (vec![run("github-actions", None)], None),
        // Any app can report under any name.
        (vec![run("mallory-ci", Some("success"))], None),
        (
            vec![
                run("github-actions", Some("success")),
                run("github-actions", Some("failure")),
            ],
            Some(false),
        ),
        (
            vec![
                run("github-actions", Some("success")),
                run("github-actions", None),
            ],
            None,
        ),
        (vec![], None),
    ] {
        let fake = Fake::start();
        fake.released(&request());
        fake.deployed("production", &[]);
        checks(&fake, runs.clone());
        let found = facts(&fake, CHECK).await;
        let test = |passed| {
            (
                ended,
                Fact::Test {
                    suite: "all".into(),
                    artefact: request().artefact,
                    passed,
                },
            )
        };
        assert_eq!(found, Vec::from_iter(expected.map(test)), "{runs:?}");
    }
}

#[tokio::test]
async fn what_another_artefacts_release_shows_is_no_evidence() {
    let good = request();
    let another = Digest::of(b"another").to_string();
    for release in [
        shapes::release(&good.tag, ASSET, Some(&another)),
        shapes::release(&good.tag, "another.json", Some(&good.artefact.to_string())),
        // From before digests were part of it.
        shapes::release(&good.tag, ASSET, None),
        {
            let mut draft = shapes::release(&good.tag, ASSET, Some(&good.artefact.to_string()));
            draft["draft"] = json!(true);
            draft
        },
        {
            let mut partial = shapes::release(&good.tag, ASSET, Some(&good.artefact.to_string()));
            partial["assets"][0]["state"] = json!("starter");
            partial
        },
    ] {
        let fake = Fake::start();
        fake.released(&good);
        fake.deployed("production", &[]);
        checks(
            &fake,
            vec![shapes::check_run(
                "CI / all",
                COMMIT,
                "github-actions",
                Some("success"),
            )],
        );
        assert_eq!(facts(&fake, CHECK).await.len(), 1);
        fake.thing(&format!("/releases/tags/{}", good.tag), release);
        assert_eq!(facts(&fake, CHECK).await, []);
    }
}

const DEPLOYMENTS: &str = "changes = false\nenvironments = [\"staging\"]\n";

#[tokio::test]
async fn deployments_say_what_ran_where_and_when() {
    let (ours, other) = (request().artefact, Digest::of(b"node 1.3.0"));
    let fake = Fake::start();
    fake.released(&request());
    fake.deployed(
        "staging",
        &[
            // What does not name its artefact is not ours, though it is of our commit; its failure is.
            (
                5,
                COMMIT,
                json!(""),
                &[
                    ("pending", "2026-11-05T05:00:00Z"),
                    ("failure", "2026-11-05T05:01:00Z"),
                ],
            ),
            (4, COMMIT, json!({}), &[("success", "2026-11-05T04:00:00Z")]),
            // As a text, which is how it comes back where it was sent as one.
            (
                3,
                COMMIT,
                json!(of(ours).to_string()),
                &[
                    ("in_progress", "2026-11-05T03:00:00Z"),
                    ("success", "2026-11-05T03:01:00Z"),
                    ("inactive", "2026-11-05T04:00:00Z"),
                ],
            ),
            (2, "b", of(other), &[("error", "2026-11-05T02:00:00Z")]),
        ],
    );
    fake.deployed(
        "production",
        &[(1, "a", of(other), &[("success", "2026-11-01T00:00:00Z")])],
    );
    let found = facts(&fake, DEPLOYMENTS).await;
    let fact = |at_: &str, artefact, environment: &str, succeeded| {
        (
            at(at_),
            Fact::Deployment {
                artefact,
                environment: environment.into(),
                succeeded,
            },
        )
    };
    let of_commit = Digest::of(format!("commit {COMMIT}").as_bytes());
    let mut expected = vec![
        fact("2026-11-01T00:00:00Z", other, "production", true),
        fact("2026-11-05T02:00:00Z", other, "staging", false),
        fact("2026-11-05T03:01:00Z", ours, "staging", true),
        fact("2026-11-05T04:00:00Z", of_commit, "staging", true),
        fact("2026-11-05T05:01:00Z", ours, "staging", false),
    ];
    for found in &found {
        let place = expected.iter().position(|expected| expected == found);
        expected.remove(place.unwrap_or_else(|| panic!("{found:?} is not expected")));
    }
    assert_eq!(expected, []);
    // What names something that is no digest was meant to.
    fake.deployed(
        "staging",
        &[(
            6,
            "a",
            json!({ "artefact": "1.4.0" }),
            &[("success", "2026-11-05T06:00:00Z")],
        )],
    );
    let error = error(&fake, DEPLOYMENTS).await;
    assert!(error.to_string().contains("deployment 6"), "{error}");
    assert_eq!(error.retryability(), Retryability::Permanent);
}

/// Commits since the release before, the pull requests that they came with, and what those have.
fn changed(fake: &Fake, commits: Vec<Value>, pulls: &[(&str, Vec<Value>)], reviews: Vec<Value>) {
    fake.released(&request());
    fake.deployed(
        "production",
        &[(
            1,
            "base",
            of(Digest::of(b"node 1.3.0")),
            &[("success", "2026-11-01T00:00:00Z")],
        )],
    );
    for commit in &commits {
        let sha = commit["sha"].as_str().unwrap();
        fake.list(&format!("/commits/{sha}/pulls"), None, Vec::new());
    }
    for (sha, pulls) in pulls {
        fake.list(&format!("/commits/{sha}/pulls"), None, pulls.clone());
    }
    fake.list(
        "/pulls/12/commits",
        None,
        vec![shapes::commit(
            "topic",
            Some("ada-l"),
            Some("ada-l"),
            1,
            "work",
        )],
    );
    fake.list("/pulls/12/reviews", None, reviews);
    fake.list(
        &format!("/compare/base...{COMMIT}"),
        Some("commits"),
        commits,
    );
}

fn merged(number: u64, opener: &str) -> Value {
    shapes::pull(number, opener, "head", Some("2026-11-01T20:00:00Z"))
}

const PEOPLE: &str = "[people]\nAda-L = \"ada\"\n\"dan@example.org\" = \"dan\"\n";

async fn changes(fake: &Fake) -> Vec<Change> {
    let mut found = facts(fake, PEOPLE)
        .await
        .into_iter()
        .filter_map(|(_, fact)| match fact {
            Fact::Changes { artefact, changes } => {
                assert_eq!(artefact, request().artefact);
                Some(changes)
            }
            _ => None,
        });
    found.next().unwrap()
}

fn change(id: &str, authors: &[&str], reviewers: &[&str]) -> Change {
    Change {
        id: id.into(),
        authors: set(authors),
        reviewers: set(reviewers),
    }
}

#[tokio::test]
async fn who_made_and_who_looked_at_every_change_is_known() {
    let fake = Fake::start();
    let squashed = "Add it (#12)\n\nCo-authored-by: Eve <123+Eve@users.noreply.github.com>\nco-authored-by: Dan <dan@example.org>";
    let commits = vec![
        shapes::commit("squash", Some("Ada-L"), Some("web-flow"), 1, squashed),
        shapes::commit("pushed", None, Some("ben"), 1, "straight to main"),
    ];
    let reviews = vec![
        shapes::review("ben", "CHANGES_REQUESTED", "head"),
        shapes::review("ben", "APPROVED", "head"),
        shapes::review("ben", "COMMENTED", "head"),
        // Of what it was before.
        shapes::review("cleo", "APPROVED", "earlier"),
        shapes::review("fay", "APPROVED", "head"),
        shapes::review("fay", "DISMISSED", "head"),
        shapes::review("gil", "APPROVED", "head"),
        shapes::review("gil", "CHANGES_REQUESTED", "head"),
    ];
    changed(
        &fake,
        commits,
        &[("squash", vec![merged(12, "Ada-L")])],
        reviews,
    );
    assert_eq!(
        changes(&fake).await,
        [
            change("pushed", &["ben", "stranger@example.com"], &[]),
            change("#12", &["ada", "dan", "eve"], &["ben"]),
        ]
    );
}

#[tokio::test]
async fn a_merge_by_hand_is_a_change_that_nobody_looked_at() {
    let fake = Fake::start();
    let commits = vec![
        shapes::commit("theirs", Some("ada-l"), Some("ada-l"), 1, "work"),
        shapes::commit(
            "by-github",
            Some("ben"),
            Some("web-flow"),
            2,
            "Merge pull request #12",
        ),
        shapes::commit(
            "by-hand",
            Some("ben"),
            Some("ben"),
            2,
            "Merge branch 'topic'",
        ),
        {
            // Anybody can write this name into a commit.
            let mut forged = shapes::commit(
                "forged",
                Some("ben"),
                Some("web-flow"),
                2,
                "Merge pull request #12",
            );
            forged["commit"]["verification"]["verified"] = json!(false);
            forged
        },
    ];
    let of_12 =
        ["theirs", "by-github", "by-hand", "forged"].map(|sha| (sha, vec![merged(12, "ada-l")]));
    changed(
        &fake,
        commits,
        &of_12,
        vec![
            shapes::review("ben", "APPROVED", "head"),
            shapes::review("cleo", "APPROVED", "head"),
        ],
    );
    assert_eq!(
        changes(&fake).await,
        [
            change("by-hand", &["ben"], &[]),
            change("forged", &["ben"], &[]),
            // Who pressed the button made nothing.
            change("#12", &["ada"], &["ben", "cleo"]),
        ]
    );
}

#[tokio::test]
async fn a_pull_request_that_was_not_merged_here_does_not_count() {
    let fake = Fake::start();
    let commits = vec![shapes::commit(
        "one",
        Some("ada-l"),
        Some("ada-l"),
        1,
        "work",
    )];
    let mut elsewhere = merged(12, "ada-l");
    elsewhere["base"]["repo"] = shapes::repository("mallory/node");
    let open = shapes::pull(12, "ada-l", "head", None);
    changed(
        &fake,
        commits,
        &[("one", vec![elsewhere, open])],
        vec![shapes::review("ben", "APPROVED", "head")],
    );
    assert_eq!(changes(&fake).await, [change("one", &["ada"], &[])]);
}

#[tokio::test]
async fn all_pages_of_the_changes_are_read_and_too_many_are_refused() {
    let fake = Fake::start();
    let commits: Vec<_> = (0..240)
        .map(|n| shapes::commit(&format!("c{n}"), Some("ada-l"), Some("ada-l"), 1, "work"))
        .collect();
    changed(&fake, commits.clone(), &[], Vec::new());
    assert_eq!(changes(&fake).await.len(), 240);
    let pages = fake
        .paths()
        .into_iter()
        .filter(|path| path.contains("/compare/"));
    assert_eq!(pages.count(), 3);
    let limited = error(&fake, &format!("max_commits = 239\n{PEOPLE}")).await;
    assert!(
        limited.to_string().contains("240 commits") && limited.to_string().contains("max_commits"),
        "{limited}"
    );
    // A page that was lost on the way is not taken for the whole.
    let short = shapes::comparison(240, &commits[..99]);
    fake.state()
        .lists
        .retain(|path, _| !path.contains("/compare/"));
    fake.thing(&format!("/compare/base...{COMMIT}"), short);
    let partial = error(&fake, PEOPLE).await;
    assert!(partial.to_string().contains("99 of 240"), "{partial}");
}

#[tokio::test]
async fn changes_count_from_what_runs_there_or_from_a_base_that_is_named() {
    let fake = Fake::start();
    fake.released(&request());
    fake.deployed(
        "production",
        &[(
            2,
            "failed",
            json!(""),
            &[("failure", "2026-11-02T00:00:00Z")],
        )],
    );
    let commits = vec![shapes::commit(
        "one",
        Some("ada-l"),
        Some("ada-l"),
        1,
        "work",
    )];
    fake.list("/commits/one/pulls", None, Vec::new());
    fake.list(
        &format!("/compare/v1.3.0...{COMMIT}"),
        Some("commits"),
        commits,
    );
    assert!(
        facts(&fake, PEOPLE)
            .await
            .iter()
            .all(|(_, fact)| !matches!(fact, Fact::Changes { .. }))
    );
    let found = facts(&fake, &format!("base = \"v1.3.0\"\n{PEOPLE}")).await;
    assert!(
        found
            .iter()
            .any(|(_, fact)| matches!(fact, Fact::Changes { changes, .. } if changes.len() == 1))
    );
}

#[tokio::test]
async fn a_workflows_last_run_is_the_state_of_a_pipeline() {
    let rule = "changes = false\n[[workflow]]\npipeline = \"staging\"\nfile = \"staging.yml\"\nbranch = \"release/1.4\"\n";
    for (run, outcome) in [
        (
            shapes::workflow_run("completed", Some("success")),
            RunOutcome::Passed,
        ),
        (
            shapes::workflow_run("completed", Some("failure")),
            RunOutcome::Failed,
        ),
        (
            shapes::workflow_run("completed", Some("cancelled")),
            RunOutcome::Failed,
        ),
        (
            shapes::workflow_run("completed", Some("startup_failure")),
            RunOutcome::Failed,
        ),
        (shapes::workflow_run("queued", None), RunOutcome::Running),
        (shapes::workflow_run("waiting", None), RunOutcome::Running),
    ] {
        let fake = Fake::start();
        fake.deployed("production", &[]);
        fake.list(
            "/actions/workflows/staging.yml/runs",
            Some("workflow_runs"),
            vec![run, shapes::workflow_run("completed", Some("success"))],
        );
        let before = Timestamp::now();
        let found = facts(&fake, rule).await;
        let [
            (
                looked,
                Fact::Pipeline {
                    name,
                    outcome: found,
                    ..
                },
            ),
        ] = &found[..]
        else {
            panic!("{found:?}");
        };
        assert_eq!((name.as_str(), *found), ("staging", outcome));
        assert!(*looked >= before && *looked <= Timestamp::now());
        assert!(
            fake.paths()
                .iter()
                .any(|path| path.contains("branch=release%2F1.4")),
            "{:?}",
            fake.paths()
        );
    }
}

const ISSUES: &str = r#"
changes = false
zone = "Europe/Berlin"
[[blocker]]
environment = "staging"
label = "blocks: staging"
[incident]
label = "incident"
severities = { critical = "sev1", major = "sev2", minor = "sev3" }
[[measure]]
name = "escalations"
label = "escalation"
"#;

#[tokio::test]
async fn issues_are_blockers_incidents_and_figures_by_their_labels() {
    let fake = Fake::start();
    fake.deployed("production", &[]);
    let opened = "2026-11-01T00:00:00Z";
    let now = Timestamp::now();
    let quarter =
        groundtackle_release_gate::Zone::quarter_of(&"Europe/Berlin".parse().unwrap(), now);
    let before = quarter
        .checked_sub(jiff::SignedDuration::from_secs(1))
        .unwrap()
        .to_string();
    let later = now
        .checked_sub(jiff::SignedDuration::from_secs(60))
        .unwrap()
        .to_string();
    let (quarter_text, now_text) = (quarter.to_string(), now.to_string());
    let mut issues = vec![
        shapes::issue(1, &["blocks: staging"], opened, None, ""),
        shapes::issue(
            2,
            &["blocks: staging"],
            opened,
            Some("2026-11-03T00:00:00Z"),
            "",
        ),
        shapes::issue(
            3,
            &["blocks: staging"],
            opened,
            Some("2026-11-02T00:00:00Z"),
            "",
        ),
        shapes::issue(4, &["incident", "SEV3"], opened, None, ""),
        shapes::issue(5, &["incident", "sev3", "sev2"], opened, None, ""),
        // Nobody has said how bad it is.
        shapes::issue(6, &["incident"], opened, None, ""),
        shapes::issue(
            7,
            &["incident", "sev1"],
            opened,
            Some("2026-11-02T00:00:00Z"),
            "",
        ),
        shapes::pull_as_issue(8, &["incident", "blocks: staging", "escalation"]),
        // Of the quarter before, though it was closed in this one.
        shapes::issue(9, &["escalation"], &before, Some(&now_text), ""),
        shapes::issue(10, &["escalation"], &quarter_text, Some(&now_text), ""),
        shapes::issue(11, &["escalation"], &later, None, ""),
    ];
    // More than a page.
    issues.extend((100..220).map(|n| shapes::issue(n, &["escalation"], &quarter_text, None, "")));
    fake.state().issues = issues;
    let found: Vec<_> = facts(&fake, ISSUES)
        .await
        .into_iter()
        .map(|(_, fact)| fact)
        .collect();
    let incidents = [
        ("#4", Severity::Minor),
        ("#5", Severity::Major),
        ("#6", Severity::Critical),
    ];
    assert_eq!(
        found,
        [
            Fact::Blockers {
                artefact: request().artefact,
                environment: "staging".into(),
                open: set(&["#1"]),
                last_closed_at: Some(at("2026-11-03T00:00:00Z")),
            },
            Fact::Incidents {
                open: incidents
                    .map(|(name, severity)| (name.into(), severity))
                    .into()
            },
            Fact::Measure {
                name: "escalations".into(),
                value: 122.0,
                since: quarter
            },
        ]
    );
}

#[tokio::test]
async fn the_next_page_is_of_the_same_server_or_none() {
    let fake = Fake::start();
    let stranger = Fake::start();
    fake.deployed("production", &[]);
    fake.state().issues = (1..150)
        .map(|n| shapes::issue(n, &["incident"], "2026-11-01T00:00:00Z", None, ""))
        .collect();
    fake.state().elsewhere = Some(stranger.server.url(PREFIX));
    let error = error(&fake, ISSUES).await;
    assert!(error.to_string().contains("of another server"), "{error}");
    assert!(stranger.server.seen().is_empty(), "the token went there");
}

fn limited(status: u16, headers: &[(&'static str, String)], message: &str) -> Reply {
    Reply::Answer(
        status,
        headers.to_vec(),
        shapes::problem(message).to_string().into(),
    )
}

#[tokio::test]
async fn a_rate_limit_is_kept() {
    let seconds = |n: i64| (Timestamp::now().as_second() + n).to_string();
    let remaining = ("x-ratelimit-remaining", "0".to_owned());
    let primary = "API rate limit exceeded for user ID 1.";
    let secondary =
        "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
    for fault in [
        limited(
            403,
            &[remaining.clone(), ("x-ratelimit-reset", seconds(3000))],
            primary,
        ),
        limited(
            429,
            &[remaining.clone(), ("x-ratelimit-reset", seconds(3000))],
            primary,
        ),
        limited(403, &[("retry-after", "120".into())], secondary),
        limited(429, &[("retry-after", "120".into())], secondary),
        // "Otherwise, wait for at least one minute."
        limited(403, &[], secondary),
        limited(429, &[], ""),
    ] {
        let fake = Fake::start();
        fake.released(&request());
        fake.deployed("production", &[]);
        fake.state().faults.push_back(fault.clone());
        let source = GitHub::from(with(&fake, "changes = false"));
        for _ in 0..3 {
            let error = source.collect(&request()).await.unwrap_err();
            assert_eq!(error.retryability(), Retryability::Transient, "{error:?}");
        }
        assert_eq!(
            fake.server.seen().len(),
            1,
            "nobody asks until then: {fault:?}"
        );
    }
    // A short wait is waited for.
    for fault in [
        limited(
            403,
            &[remaining.clone(), ("x-ratelimit-reset", seconds(1))],
            primary,
        ),
        limited(429, &[("retry-after", "1".into())], secondary),
    ] {
        let fake = Fake::start();
        fake.released(&request());
        fake.deployed("production", &[]);
        fake.state().faults.push_back(fault);
        let begun = std::time::Instant::now();
        assert_eq!(facts(&fake, "changes = false").await, []);
        assert!(
            begun.elapsed() >= std::time::Duration::from_millis(900),
            "{:?}",
            begun.elapsed()
        );
    }
    // What is forbidden for good is no limit.
    let fake = Fake::start();
    let forbidden = limited(
        403,
        &[("x-ratelimit-remaining", "4999".into())],
        "Resource not accessible by integration",
    );
    fake.state().faults.push_back(forbidden);
    let error = error(&fake, "changes = false").await;
    assert_eq!(error.retryability(), Retryability::Permanent);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        cause.contains("403") && cause.contains("Resource not accessible"),
        "{cause}"
    );
}

#[tokio::test]
async fn what_breaks_for_a_moment_is_read_again_and_what_stays_broken_is_an_error() {
    for fault in [
        Reply::status(500, "{}"),
        Reply::status(502, "<html>"),
        Reply::status(503, ""),
        Reply::Close,
        Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[".to_vec()),
    ] {
        let fake = Fake::start();
        fake.released(&request());
        fake.deployed("production", &[]);
        fake.state().faults.extend([fault.clone(), fault.clone()]);
        assert_eq!(facts(&fake, "changes = false").await, [], "{fault:?}");
        fake.state().always = Some(fault.clone());
        let before = fake.server.seen().len();
        let error = error(&fake, "changes = false").await;
        assert_eq!(
            error.retryability(),
            Retryability::Transient,
            "{fault:?} {error:?}"
        );
        assert_eq!(fake.server.seen().len() - before, 3, "{fault:?}");
    }
    for (fault, retryability) in [
        (
            Reply::status(401, shapes::problem("Bad credentials").to_string()),
            Retryability::Permanent,
        ),
        (
            Reply::status(422, shapes::problem("Validation Failed").to_string()),
            Retryability::Permanent,
        ),
        (Reply::status(301, "{}"), Retryability::Permanent),
        (Reply::ok("{}"), Retryability::Permanent),
        (Reply::ok("null"), Retryability::Permanent),
    ] {
        let fake = Fake::start();
        fake.state().always = Some(fault.clone());
        let error = error(&fake, "changes = false").await;
        assert_eq!(error.retryability(), retryability, "{fault:?} {error:?}");
        assert_eq!(fake.server.seen().len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn requests_are_bounded() {
    let fake = Fake::start();
    fake.deployed("production", &[]);
    fake.state().issues = (1..1000)
        .map(|n| shapes::issue(n, &["incident"], "2026-11-01T00:00:00Z", None, ""))
        .collect();
    let error = error(&fake, &format!("max_requests = 5\n{ISSUES}")).await;
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("max_requests"), "{cause}");
    assert_eq!(fake.server.seen().len(), 5);
}

#[test]
fn a_config_that_makes_no_sense_is_refused() {
    let good = "repository = \"octo-org/node\"\ntoken = \"t\"\nasset = \"a\"\n";
    let config: GitHubConfig = toml::from_str(good).unwrap();
    assert_eq!(
        config,
        GitHubConfig::new("octo-org/node".parse().unwrap(), "t".into(), "a")
    );
    assert!(!format!("{config:?}").contains("\"t\""), "{config:?}");
    for (text, why) in [
        (good.replace("octo-org/node", "octo-org"), "owner/name"),
        (good.replace("octo-org/node", "../node"), "owner/name"),
        (
            good.replace("octo-org/node", "octo-org/no de"),
            "owner/name",
        ),
        (format!("{good}api = \"http://api.github.com\""), "https"),
        (format!("{good}brnch = \"main\""), "unknown field"),
        (
            format!("{good}zone = \"Europe/Atlantis\""),
            "there is no zone",
        ),
        (
            format!("{good}[incident]\nlabel = \"incident\"\nseverities = {{ bad = \"x\" }}"),
            "unknown variant",
        ),
    ] {
        let error = toml::from_str::<GitHubConfig>(&text)
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}
