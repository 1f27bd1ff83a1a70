//! A quarter of releases, judged again, and its figures.

use std::time::{Duration, Instant};

use groundtackle_release_gate::{
    Action, Decision, Deployed, Digest, Dora, Entry, Evidence, Fact, Gate, Head, PolicyFormat,
    Record, Request, Severity, Timestamp, Verdict, log_evidence, replay, verify,
};
use jiff::SignedDuration;

use crate::log::{decision_entry, signer};
use crate::setting::*;

/// Numbers that are the same in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn releases(count: u64) -> Vec<Record> {
    let gate = operations();
    let mut numbers = Numbers(1);
    let whole = evidence();
    let quarter = at("2026-09-30T22:00:00Z");
    (0..count)
        .map(|sequence| {
            let now = quarter
                .checked_add(SignedDuration::from_secs(numbers.below(90 * 86_400) as i64))
                .unwrap();
            let by = now.duration_since(noon());
            let mut evidence = moved_by(&whole, by);
            let left_out = numbers.below(60) as usize;
            if left_out < evidence.len() {
                evidence.remove(left_out);
            }
            let decision = gate.judge(&evidence, &request(), now);
            let entry = Entry::Decision {
                decision: Box::new(decision),
                evidence,
            };
            Record {
                sequence,
                previous: Digest([0; 32]),
                at: now,
                entry,
            }
        })
        .collect()
}

#[test]
fn a_quarter_of_1000_releases_is_replayed_under_three_policies() {
    let records = releases(1000);
    let loose = {
        let mut policy = operations().policy().clone();
        policy.windows.clear();
        policy.freezes.clear();
        policy.rota.clear();
        policy
            .environments
            .iter_mut()
            .for_each(|environment| environment.available.clear());
        Gate::new(policy).unwrap()
    };
    let chain = Gate::read("chain.toml", &policy_text("chain.toml"), PolicyFormat::Toml).unwrap();
    let gates = [operations(), loose, chain];
    let begin = Instant::now();
    let goes = gates.each_ref().map(|gate| {
        let all: Vec<_> = replay(gate, &records).collect();
        assert_eq!(all.len(), 1000);
        all.iter()
            .filter(|replayed| replayed.would_be.verdict == Verdict::Go)
            .count()
    });
    let took = begin.elapsed();
    println!("1000 releases under three policies: {took:?}, go: {goes:?}");
    let was = replay(&gates[0], &records).filter(|replayed| {
        assert_eq!(
            replayed.was, replayed.would_be.verdict,
            "by the same policy"
        );
        replayed.was == Verdict::Go
    });
    assert_eq!(was.count(), goes[0]);
    assert!(
        0 < goes[0] && goes[0] < goes[1] && goes[1] < 1000 && goes[2] == 0,
        "{goes:?}"
    );
}

#[test]
fn a_replay_from_the_log_is_the_same_answer() {
    let (line, head) = Head::EMPTY
        .append(decision_entry(), noon(), &signer())
        .unwrap();
    let records = verify(&line, &[signer().public()], Some(&head))
        .unwrap()
        .records;
    let replayed: Vec<_> = replay(&operations(), &records).collect();
    assert_eq!(replayed[0].would_be, judge(&evidence()));
}

#[test]
fn the_figures_of_dora_equal_a_naive_computation() {
    let mut numbers = Numbers(2);
    let from = at("2026-10-01T00:00:00Z");
    let until = at("2027-01-01T00:00:00Z");
    let later = |at: Timestamp, secs: u64| {
        at.checked_add(SignedDuration::from_secs(secs as i64))
            .unwrap()
    };
    let mut all: Vec<Deployed> = Vec::new();
    for n in 0..400u64 {
        let finished_at = later(from, numbers.below(100 * 86_400));
        let repairs =
            (n > 0 && numbers.below(4) == 0).then(|| all[numbers.below(n) as usize].decision);
        let rollback = repairs.is_some() && numbers.below(2) == 0;
        let changes = numbers.below(4);
        all.push(Deployed {
            decision: Digest::of(&n.to_be_bytes()),
            artefact: artefact(),
            environment: if numbers.below(5) == 0 {
                "staging".into()
            } else {
                "production".into()
            },
            action: if rollback {
                Action::Rollback
            } else {
                Action::Deploy
            },
            finished_at,
            succeeded: numbers.below(6) != 0,
            changed_at: (0..changes)
                .map(|_| {
                    finished_at
                        .checked_sub(SignedDuration::from_secs(numbers.below(9 * 86_400) as i64))
                        .unwrap()
                })
                .collect(),
            repairs,
        });
    }
    let records: Vec<_> = all
        .iter()
        .zip(0..)
        .map(|(deployment, sequence)| Record {
            sequence,
            previous: Digest([0; 32]),
            at: deployment.finished_at,
            entry: Entry::Deployed {
                deployment: deployment.clone(),
            },
        })
        .collect();
    let found = Dora::of(&records, "production", from, until).unwrap();

    let here: Vec<_> = all
        .iter()
        .filter(|d| d.environment == "production")
        .collect();
    let mut counted: Vec<&Deployed> = Vec::new();
    for d in &here {
        if d.action == Action::Deploy && d.finished_at >= from && d.finished_at < until {
            counted.push(d);
        }
    }
    let median = |mut seconds: Vec<i64>| {
        seconds.sort();
        let lower = (seconds.len() - 1) / 2;
        Some(Duration::from_secs(seconds[lower].max(0) as u64))
    };
    let mut leads = Vec::new();
    let mut failed = 0;
    let mut recoveries = Vec::new();
    for d in &counted {
        if d.succeeded {
            for change in &d.changed_at {
                leads.push(d.finished_at.as_second() - change.as_second());
            }
        }
        let repairs: Vec<_> = here
            .iter()
            .filter(|r| r.repairs == Some(d.decision))
            .collect();
        if !d.succeeded || !repairs.is_empty() {
            failed += 1;
            let good = repairs
                .iter()
                .filter(|r| r.succeeded)
                .map(|r| r.finished_at.as_second())
                .min();
            if let Some(good) = good {
                recoveries.push(good - d.finished_at.as_second());
            }
        }
    }
    assert!(failed > 10 && recoveries.len() > 10 && failed > recoveries.len());
    assert_eq!(found.deployments, counted.len() as u64);
    assert!((found.deployments_per_day - counted.len() as f64 / 92.0).abs() < 1e-9);
    let silent = |d: &&&Deployed| d.succeeded && d.changed_at.is_empty();
    let silent = counted.iter().filter(silent).count();
    assert!(silent > 10);
    assert_eq!(found.without_changes, silent as u64);
    assert_eq!(found.changes, leads.len() as u64);
    assert_eq!(found.failed, failed as u64);
    assert_eq!(found.lead_time, median(leads));
    assert_eq!(
        found.change_failure_rate,
        Some(failed as f64 / counted.len() as f64)
    );
    assert_eq!(found.unrepaired, (failed - recoveries.len()) as u64);
    assert_eq!(found.recovery_time, median(recoveries));
    assert_eq!(Dora::of(&records, "production", until, from), None);
    assert_eq!(
        Dora::of(&[], "production", from, until)
            .unwrap()
            .change_failure_rate,
        None
    );
}

#[test]
fn requests_and_evidence_read_as_they_print() {
    let evidence = evidence();
    let text = serde_json::to_string(&evidence).unwrap();
    assert_eq!(
        serde_json::from_str::<Vec<Evidence>>(&text).unwrap(),
        evidence
    );
    let text = serde_json::to_string(&request()).unwrap();
    assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request());
    assert!(serde_json::from_str::<Fact>(r#"{"kind":"backup","name":"x","fresh":true}"#).is_err());
    assert!(serde_json::from_str::<Fact>(r#"{"kind":"moon"}"#).is_err());
}

/// Rollbacks and overrides of the quarter, against the budgets of the example: the log itself says how many there were.
#[test]
fn rollbacks_and_overrides_are_counted_from_the_log() {
    let gate = operations();
    let quarter = at("2026-09-30T22:00:00Z");
    let back = |finished_at: Timestamp, action| Entry::Deployed {
        deployment: Deployed {
            decision: Digest::of(finished_at.to_string().as_bytes()),
            artefact: artefact(),
            environment: "production".into(),
            action,
            finished_at,
            succeeded: true,
            changed_at: Vec::new(),
            repairs: None,
        },
    };
    let frozen = at("2026-12-20T03:00:00Z");
    let passed = |incident: &str, at: Timestamp| {
        let by = frozen.duration_since(noon());
        let mut all = moved_by(&evidence(), by);
        for evidence in &mut all {
            if let Fact::Measure { since, .. } = &mut evidence.fact {
                *since = quarter;
            }
        }
        let mut fact = overridden(&["olga", "omar"], Severity::Critical, "outputs can be lost");
        if let Fact::Override { incident: id, .. } = &mut fact {
            *id = incident.into();
        }
        let more = [fact, measure("overrides", 0.0)];
        all.extend(more.map(|fact| signed(Evidence::new("test", frozen, fact))));
        let decision = Decision {
            instant: at,
            ..gate.judge(&all, &request(), frozen)
        };
        assert_go(&decision);
        Entry::Decision {
            decision: Box::new(decision),
            evidence: all,
        }
    };
    let log = |entries: Vec<(Timestamp, Entry)>| -> Vec<Record> {
        let each = entries.into_iter().zip(0..);
        each.map(|((at, entry), sequence)| Record {
            sequence,
            previous: Digest([0; 32]),
            at,
            entry,
        })
        .collect()
    };
    let before = at("2026-09-30T21:59:59Z");
    let records = log(vec![
        (before, back(before, Action::Rollback)),
        (before, passed("INC-0", before)),
        (quarter, back(quarter, Action::Rollback)),
        (noon(), back(noon(), Action::Deploy)),
        (noon(), decision_entry()),
        (frozen, back(frozen, Action::Rollback)),
        // Asked for twice, it is one override; of another incident it is another.
        (frozen, passed("INC-7", frozen)),
        (frozen, passed("INC-7", frozen)),
        (frozen, passed("INC-8", frozen)),
    ]);
    let found = log_evidence(gate.policy(), "log", &records, frozen);
    let facts: Vec<_> = found.iter().map(|evidence| evidence.fact.clone()).collect();
    assert_eq!(
        facts,
        [measure("rollbacks", 2.0), measure("overrides", 2.0)]
    );
    assert!(found.iter().all(|evidence| evidence.observed_at == frozen));
    // Two rollbacks are as many as there may not be.
    let same = |fact: &Fact| matches!(fact, Fact::Measure { name, .. } if name == "rollbacks");
    let others = without(evidence(), same);
    let at_noon = log_evidence(gate.policy(), "log", &records[..5], noon());
    assert_go(&gate.judge(&[&others[..], &at_noon].concat(), &request(), noon()));
    let twice = log(vec![
        (before, back(before, Action::Deploy)),
        (quarter, back(quarter, Action::Rollback)),
        (noon(), back(noon(), Action::Rollback)),
    ]);
    let twice = log_evidence(gate.policy(), "log", &twice, noon());
    let decision = gate.judge(&[&others[..], &twice].concat(), &request(), noon());
    assert_eq!(decision.verdict, Verdict::NoGo, "{:#?}", decision.reasons);
    // A log that began after the quarter does not know.
    assert_eq!(
        log_evidence(gate.policy(), "log", &records[3..], frozen),
        []
    );
    assert_eq!(log_evidence(gate.policy(), "log", &[], frozen), []);
}
