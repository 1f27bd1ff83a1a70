//! A release to production by the example policy that holds every rule, with nothing wrong.

use std::collections::{BTreeMap, BTreeSet};

use groundtackle_release_gate::{
    Action, Change, Decision, Digest, Evidence, Fact, Form, Gate, Length, PolicyFormat, Request,
    RunOutcome, Severity, Signer, Timestamp, Verdict, Vote,
};
use jiff::SignedDuration;

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.into()).collect()
}

pub(crate) fn policy_text(name: &str) -> String {
    let path = format!("{}/policies/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// Whose keys the tests know.
pub(crate) const SIGNERS: [&str; 4] = ["olga", "omar", "otto", "rita"];

pub(crate) fn key_of(person: &str) -> Signer {
    Signer::from_seed(&Digest::of(person.as_bytes()).0)
}

/// The example as it ships: the secret halves of its keys are gone.
pub(crate) fn shipped(name: &str) -> Gate {
    Gate::read(name, &policy_text(name), PolicyFormat::of(name)).unwrap()
}

/// The example with people whose keys the tests have.
pub(crate) fn operations() -> Gate {
    let mut policy = shipped("operations.toml").policy().clone();
    for person in &mut policy.people {
        person.keys = [key_of(&person.name).public()].into();
    }
    Gate::new(policy).unwrap()
}

/// As each would say it, if the policy asks them to sign; with a new time or fact, anew.
pub(crate) fn signed(mut evidence: Evidence) -> Evidence {
    evidence.signatures.clear();
    let by: Vec<String> = match &evidence.fact {
        Fact::Approval { by, .. } => vec![by.clone()],
        Fact::Item {
            by,
            form: Form::Statement,
            ..
        } => vec![by.clone()],
        Fact::Override { by, .. } => by.iter().cloned().collect(),
        _ => Vec::new(),
    };
    for person in by.iter().filter(|by| SIGNERS.contains(&by.as_str())) {
        evidence = evidence.sign(&key_of(person)).unwrap();
    }
    evidence
}

/// Evidence moved along with the instant that is asked for.
pub(crate) fn moved_by(evidence: &[Evidence], by: SignedDuration) -> Vec<Evidence> {
    let each = evidence.iter().cloned().map(|mut evidence| {
        evidence.observed_at = evidence.observed_at.checked_add(by).unwrap();
        signed(evidence)
    });
    each.collect()
}

/// Tuesday in a quarter's middle, 12:00 in Berlin.
pub(crate) fn noon() -> Timestamp {
    at("2026-11-10T11:00:00Z")
}

pub(crate) fn artefact() -> Digest {
    Digest::of(b"node 1.4.0")
}

pub(crate) fn request() -> Request {
    Request {
        name: "node".into(),
        tag: "1.4.0".into(),
        artefact: artefact(),
        environment: "production".into(),
        action: Action::Deploy,
        actor: "olga".into(),
        takes: Some(Length::minutes(30)),
    }
}

pub(crate) fn measure(name: &str, value: f64) -> Fact {
    Fact::Measure {
        name: name.into(),
        value,
        since: at("2026-09-30T22:00:00Z"),
    }
}

pub(crate) fn overridden(by: &[&str], severity: Severity, reason: &str) -> Fact {
    Fact::Override {
        artefact: artefact(),
        environment: "production".into(),
        incident: "INC-7".into(),
        severity,
        reason: reason.into(),
        by: set(by),
    }
}

pub(crate) fn deployment(environment: &str, succeeded: bool) -> Fact {
    Fact::Deployment {
        artefact: artefact(),
        environment: environment.into(),
        succeeded,
    }
}

pub(crate) fn item(id: &str, form: Form, by: &str, passed: bool) -> Fact {
    Fact::Item {
        id: id.into(),
        artefact: artefact(),
        form,
        passed,
        by: by.into(),
    }
}

pub(crate) fn pipeline(name: &str) -> Fact {
    Fact::Pipeline {
        name: name.into(),
        outcome: RunOutcome::Passed,
        reported_to: set(&[]),
        resolved: None,
    }
}

pub(crate) fn settings(environment: &str, kernel: &str) -> Fact {
    let values = [("database", "17.2"), ("kernel", kernel)];
    Fact::Settings {
        environment: environment.into(),
        values: values
            .map(|(name, value)| (name.into(), value.into()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
    }
}

pub(crate) fn changes(authors: &[&str], reviewers: &[&str]) -> Fact {
    let change = Change {
        id: "#12".into(),
        authors: set(authors),
        reviewers: set(reviewers),
    };
    Fact::Changes {
        artefact: artefact(),
        changes: vec![change],
    }
}

pub(crate) fn approval(by: &str) -> Fact {
    Fact::Approval {
        artefact: artefact(),
        environment: "production".into(),
        by: by.into(),
    }
}

pub(crate) fn meeting(votes: &[(&str, Vote)], minutes: &str) -> Fact {
    Fact::Meeting {
        artefact: artefact(),
        environment: "production".into(),
        votes: votes
            .iter()
            .map(|(person, vote)| ((*person).into(), *vote))
            .collect(),
        minutes: minutes.into(),
    }
}

pub(crate) fn blockers(open: &[&str], last_closed_at: Option<Timestamp>) -> Fact {
    Fact::Blockers {
        artefact: artefact(),
        environment: "staging".into(),
        open: set(open),
        last_closed_at,
    }
}

pub(crate) fn platforms(names: &[&str]) -> Fact {
    Fact::Artefact {
        artefact: artefact(),
        tag: "1.4.0".into(),
        platforms: set(names),
    }
}

pub(crate) fn incidents(open: &[(&str, Severity)]) -> Fact {
    Fact::Incidents {
        open: open
            .iter()
            .map(|(name, severity)| ((*name).into(), *severity))
            .collect(),
    }
}

pub(crate) fn regression(passed: bool) -> Fact {
    Fact::Test {
        suite: "regression".into(),
        artefact: artefact(),
        passed,
    }
}

/// All that is asked, found at some time before noon: events when they happened, states five minutes ago.
pub(crate) fn evidence() -> Vec<Evidence> {
    let now = at("2026-11-10T10:55:00Z");
    let yesterday = at("2026-11-09T10:00:00Z");
    let votes = [
        ("olga", Vote::Go),
        ("omar", Vote::Go),
        ("sam", Vote::Abstain),
    ];
    let mut facts = vec![
        (now, changes(&["ada"], &["ben", "cleo"])),
        (yesterday, approval("omar")),
        (yesterday, approval("rita")),
        (yesterday, meeting(&votes, "All items were gone through.")),
        (yesterday, item("notes", Form::Document, "rita", true)),
        (yesterday, item("announced", Form::Statement, "rita", true)),
        (
            yesterday,
            item("rollback-tried", Form::Statement, "otto", true),
        ),
        (now, item("disk-headroom", Form::Probe, "olga", true)),
        (yesterday, regression(true)),
        (now, platforms(&["linux/amd64", "linux/arm64"])),
        (at("2026-11-07T09:00:00Z"), deployment("staging", true)),
        (now, blockers(&[], None)),
        (now, settings("staging", "6.1")),
        (now, settings("production", "6.1")),
        (
            yesterday,
            Fact::Backup {
                name: "utxo".into(),
            },
        ),
        (
            yesterday,
            Fact::Drill {
                name: "utxo".into(),
                passed: true,
            },
        ),
        (now, incidents(&[("INC-1", Severity::Minor)])),
    ];
    // A backup of yesterday 10:00 is older than a day at 11:00.
    facts[14].0 = now;
    facts.extend(["development", "staging", "production"].map(|name| (now, pipeline(name))));
    let figures = [
        ("uptime", 99.9),
        ("escalations", 2.0),
        ("rollbacks", 0.0),
        ("missed-cadences", 0.0),
        ("incident-hours", 10.0),
    ];
    facts.extend(figures.map(|(name, value)| (now, measure(name, value))));
    let digest = Digest::of(b"what was read");
    facts
        .into_iter()
        .map(|(at, fact)| signed(Evidence::new("test", at, fact).with_digest(digest)))
        .collect()
}

/// With the evidence about the same thing replaced.
pub(crate) fn with(
    mut evidence: Vec<Evidence>,
    same: impl Fn(&Fact) -> bool,
    fact: Fact,
) -> Vec<Evidence> {
    let found = evidence
        .iter_mut()
        .find(|evidence| same(&evidence.fact))
        .expect("there is such evidence");
    found.fact = fact;
    *found = signed(found.clone());
    evidence
}

pub(crate) fn without(mut evidence: Vec<Evidence>, same: impl Fn(&Fact) -> bool) -> Vec<Evidence> {
    let before = evidence.len();
    evidence.retain(|evidence| !same(&evidence.fact));
    assert!(evidence.len() < before, "there is such evidence");
    evidence
}

pub(crate) fn judge(evidence: &[Evidence]) -> Decision {
    operations().judge(evidence, &request(), noon())
}

#[track_caller]
pub(crate) fn assert_go(decision: &Decision) {
    assert_eq!(decision.verdict, Verdict::Go, "{:#?}", decision.reasons);
    assert!(decision.reasons.is_empty());
}
