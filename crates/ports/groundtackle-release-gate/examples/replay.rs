//! Generates a quarter of releases, and judges it again under three policies. Prints what that took:
//!
//! ```sh
//! cargo run --release -p groundtackle-release-gate --example replay -- 1000
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Instant;

use groundtackle_release_gate::{
    Action, Change, Digest, Entry, Evidence, Fact, Form, Gate, Length, Policy, PolicyFormat,
    Record, Request, RunOutcome, Signer, Timestamp, Verdict, Vote, replay,
};
use jiff::SignedDuration;

const OPERATIONS: &str = include_str!("../policies/operations.toml");
const TWO_PEOPLE: &str = include_str!("../policies/two-people.toml");

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

fn key(person: &str) -> Signer {
    Signer::from_seed(&Digest::of(person.as_bytes()).0)
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.into()).collect()
}

/// The example with people whose keys are here.
fn operations() -> Result<Policy, Box<dyn Error>> {
    let gate = Gate::read("operations.toml", OPERATIONS, PolicyFormat::Toml)?;
    let mut policy = gate.policy().clone();
    for person in &mut policy.people {
        person.keys = [key(&person.name).public()].into();
    }
    Ok(policy)
}

/// What is known of a release, each so many hours before it is asked for; all that the policy of operations asks.
fn facts(artefact: Digest, quarter: Timestamp) -> Vec<(i64, Fact)> {
    let (production, staging) = ("production".to_owned(), "staging".to_owned());
    let item = |id: &str, form, by: &str| Fact::Item {
        id: id.into(),
        artefact,
        form,
        passed: true,
        by: by.into(),
    };
    let approval = |by: &str| Fact::Approval {
        artefact,
        environment: production.clone(),
        by: by.into(),
    };
    let votes = [
        ("olga", Vote::Go),
        ("omar", Vote::Go),
        ("sam", Vote::Abstain),
    ];
    let mut facts = vec![
        (
            0,
            Fact::Changes {
                artefact,
                changes: vec![Change {
                    id: "#12".into(),
                    authors: names(&["ada"]),
                    reviewers: names(&["ben", "cleo"]),
                }],
            },
        ),
        (20, approval("omar")),
        (20, approval("rita")),
        (
            24,
            Fact::Meeting {
                artefact,
                environment: production.clone(),
                votes: votes.map(|(name, vote)| (name.into(), vote)).into(),
                minutes: "All items were gone through.".into(),
            },
        ),
        (24, item("notes", Form::Document, "rita")),
        (24, item("announced", Form::Statement, "rita")),
        (24, item("rollback-tried", Form::Statement, "otto")),
        (0, item("disk-headroom", Form::Probe, "olga")),
        (
            24,
            Fact::Test {
                suite: "regression".into(),
                artefact,
                passed: true,
            },
        ),
        (
            0,
            Fact::Artefact {
                artefact,
                tag: "1.4.0".into(),
                platforms: names(&["linux/amd64", "linux/arm64"]),
            },
        ),
        (
            72,
            Fact::Deployment {
                artefact,
                environment: staging.clone(),
                succeeded: true,
            },
        ),
        (
            0,
            Fact::Blockers {
                artefact,
                environment: staging.clone(),
                open: BTreeSet::new(),
                last_closed_at: None,
            },
        ),
        (
            6,
            Fact::Backup {
                name: "utxo".into(),
            },
        ),
        (
            30,
            Fact::Drill {
                name: "utxo".into(),
                passed: true,
            },
        ),
        (
            0,
            Fact::Incidents {
                open: BTreeMap::new(),
            },
        ),
    ];
    for environment in [&staging, &production] {
        let values = [("database", "17.2"), ("kernel", "6.1")];
        let settings = Fact::Settings {
            environment: environment.clone(),
            values: values.map(|(key, value)| (key.into(), value.into())).into(),
        };
        facts.push((0, settings));
    }
    for name in ["development", "staging", "production"] {
        let pipeline = Fact::Pipeline {
            name: name.into(),
            outcome: RunOutcome::Passed,
            reported_to: BTreeSet::new(),
            resolved: None,
        };
        facts.push((0, pipeline));
    }
    for (name, value) in [
        ("uptime", 99.9),
        ("escalations", 2.0),
        ("rollbacks", 0.0),
        ("missed-cadences", 0.0),
        ("incident-hours", 10.0),
    ] {
        let measure = Fact::Measure {
            name: name.into(),
            value,
            since: quarter,
        };
        facts.push((0, measure));
    }
    facts
}

/// Signed by whoever says it, as the policy asks.
fn signed(evidence: Evidence) -> Result<Evidence, Box<dyn Error>> {
    let by = match &evidence.fact {
        Fact::Approval { by, .. } => by.clone(),
        Fact::Item {
            by,
            form: Form::Statement,
            ..
        } => by.clone(),
        _ => return Ok(evidence),
    };
    Ok(evidence.sign(&key(&by))?)
}

/// Releases at any time of the quarter, each of an artefact of its own; most of them lack something.
fn quarter(gate: &Gate, count: u64) -> Result<Vec<Record>, Box<dyn Error>> {
    let mut numbers = Numbers(1);
    let begin: Timestamp = "2026-09-30T22:00:00Z".parse()?;
    let mut records = Vec::new();
    for sequence in 0..count {
        let artefact = Digest::of(&sequence.to_be_bytes());
        let seconds = i64::try_from(numbers.below(90 * 86_400))?;
        let at = begin.checked_add(SignedDuration::from_secs(seconds))?;
        let mut evidence = Vec::new();
        for (hours, fact) in facts(artefact, begin) {
            let seen = at.checked_sub(SignedDuration::from_hours(hours))?;
            let found = Evidence::new("generated", seen, fact).with_digest(artefact);
            evidence.push(signed(found)?);
        }
        let left_out = usize::try_from(numbers.below(60))?;
        if left_out < evidence.len() {
            evidence.remove(left_out);
        }
        let request = Request {
            name: "node".into(),
            tag: "1.4.0".into(),
            artefact,
            environment: "production".into(),
            action: Action::Deploy,
            actor: "olga".into(),
            takes: Some(Length::minutes(30)),
        };
        let decision = Box::new(gate.judge(&evidence, &request, at));
        records.push(Record {
            sequence,
            previous: Digest([0; 32]),
            at,
            entry: Entry::Decision { decision, evidence },
        });
    }
    Ok(records)
}

fn main() -> Result<(), Box<dyn Error>> {
    let count = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 1_000,
    };
    let policy = operations()?;
    let mut always = policy.clone();
    always.name = "operations at any time".into();
    always.windows.clear();
    always.freezes.clear();
    always.rota.clear();
    for environment in &mut always.environments {
        environment.available.clear();
    }
    let gates = [
        Gate::new(policy)?,
        Gate::new(always)?,
        Gate::read("two-people.toml", TWO_PEOPLE, PolicyFormat::Toml)?,
    ];
    let begin = Instant::now();
    let [first, ..] = &gates;
    let records = quarter(first, count)?;
    println!("{count} releases were generated in {:?}", begin.elapsed());
    let whole = Instant::now();
    for gate in &gates {
        let begin = Instant::now();
        let verdicts = replay(gate, &records).map(|replayed| replayed.would_be.verdict);
        let go = verdicts.filter(|verdict| *verdict == Verdict::Go).count();
        println!("{}: {go} go, {:?}", gate.policy().name, begin.elapsed());
    }
    println!("all three: {:?}", whole.elapsed());
    Ok(())
}
