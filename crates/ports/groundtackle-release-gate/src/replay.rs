//! What another policy would have said, and how well a team delivers, from the records.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::decision::{Action, Decision, Obligation, ROLLBACKS, Verdict};
use crate::digest::Digest;
use crate::evidence::{Evidence, Fact};
use crate::gate::Gate;
use crate::log::{Deployed, Entry, Record};
use crate::policy::Policy;

/// A decision, and what this policy says of the same evidence at the same instant.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replayed {
    /// The record's number.
    pub sequence: u64,
    /// What was answered.
    pub was: Verdict,
    /// What would be.
    pub would_be: Decision,
}

/// Judges every decision of the records again.
pub fn replay<'a>(gate: &'a Gate, records: &'a [Record]) -> impl Iterator<Item = Replayed> + 'a {
    records.iter().filter_map(|record| match &record.entry {
        Entry::Decision { decision, evidence } => Some(Replayed {
            sequence: record.sequence,
            was: decision.verdict,
            would_be: gate.judge(evidence, &decision.request, decision.instant),
        }),
        _ => None,
    })
}

/// What a log counts of this quarter, as evidence: the rollbacks that ended, under [`ROLLBACKS`], and the overrides that let something go
/// out, under the budget that they spend. An override is of one incident, artefact and environment, however often it was asked for.
///
/// Nothing, if the log began after the quarter: it can't know of what was before.
pub fn log_evidence(
    policy: &Policy,
    source: &str,
    records: &[Record],
    now: Timestamp,
) -> Vec<Evidence> {
    let since = policy.zone.quarter_of(now);
    if records.first().is_none_or(|first| first.at > since) {
        return Vec::new();
    }
    let mut rollbacks = 0_u32;
    let mut overrides = BTreeSet::new();
    for record in records {
        match &record.entry {
            Entry::Deployed { deployment }
                if deployment.action == Action::Rollback
                    && (since..=now).contains(&deployment.finished_at) =>
            {
                rollbacks = rollbacks.saturating_add(1);
            }
            Entry::Decision { decision, .. }
                if decision.verdict == Verdict::Go && (since..=now).contains(&decision.instant) =>
            {
                let request = &decision.request;
                overrides.extend(decision.obligations.iter().filter_map(|owed| match owed {
                    Obligation::OpenIncident { incident, .. } => {
                        Some((incident, request.artefact, &request.environment))
                    }
                    Obligation::Count { .. } => None,
                }));
            }
            _ => {}
        }
    }
    let overrides = policy.overrides.as_ref().map(|rules| {
        let count = u32::try_from(overrides.len()).unwrap_or(u32::MAX);
        (rules.budget.as_str(), count)
    });
    let counts = [(ROLLBACKS, rollbacks)].into_iter().chain(overrides);
    let facts = counts.map(|(name, count)| Fact::Measure {
        name: name.into(),
        value: count.into(),
        since,
    });
    facts.map(|fact| Evidence::new(source, now, fact)).collect()
}

/// The four figures of DORA (<https://dora.dev/guides/dora-metrics-four-keys/>) for an environment. `None` where there is nothing to
/// measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Dora {
    /// How many deployments ended in the time, rollbacks aside.
    pub deployments: u64,
    /// How many of them a day.
    pub deployments_per_day: f64,
    /// How long it took from a change to its deployment: the median of all changes of deployments that succeeded. The lower of two
    /// in the middle.
    pub lead_time: Option<Duration>,
    /// How many changes that is the median of.
    pub changes: u64,
    /// How many deployments that succeeded say no change, so that it is not known how long theirs took.
    pub without_changes: u64,
    /// How many deployments failed, or were repaired later.
    pub failed: u64,
    /// Which share of the deployments failed, or were repaired later: 0 to 1.
    pub change_failure_rate: Option<f64>,
    /// How long it took from such a deployment to what repaired it: the median of those that were. The lower of two in the middle.
    pub recovery_time: Option<Duration>,
    /// How many such deployments nothing has repaired.
    pub unrepaired: u64,
}

impl Dora {
    /// Of the deployments that ended in the time from `from`, which belongs to it, to `until`, which does not. What repaired
    /// them may be later. `None` if the time is not above zero.
    pub fn of(
        records: &[Record],
        environment: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Self> {
        let days = until.duration_since(from).as_secs_f64() / 86_400.0;
        if days <= 0.0 {
            return None;
        }
        let all = records.iter().filter_map(|record| match &record.entry {
            Entry::Deployed { deployment } if deployment.environment == environment => {
                Some(deployment)
            }
            _ => None,
        });
        let all: Vec<&Deployed> = all.collect();
        let mut repaired: BTreeMap<Digest, Timestamp> = BTreeMap::new();
        let mut blamed: BTreeMap<Digest, ()> = BTreeMap::new();
        for deployed in &all {
            let Some(failed) = deployed.repairs else {
                continue;
            };
            blamed.insert(failed, ());
            if deployed.succeeded {
                let first = repaired.entry(failed).or_insert(deployed.finished_at);
                *first = deployed.finished_at.min(*first);
            }
        }
        let within = all
            .iter()
            .filter(|d| (from..until).contains(&d.finished_at) && d.action != Action::Rollback);
        let (mut deployments, mut failed, mut unrepaired) = (0u64, 0u64, 0u64);
        let mut without_changes = 0u64;
        let (mut leads, mut recoveries) = (Vec::new(), Vec::new());
        for deployed in within {
            deployments += 1;
            if deployed.succeeded {
                without_changes += u64::from(deployed.changed_at.is_empty());
                leads.extend(
                    deployed
                        .changed_at
                        .iter()
                        .map(|at| deployed.finished_at.duration_since(*at)),
                );
            }
            if !deployed.succeeded || blamed.contains_key(&deployed.decision) {
                failed += 1;
                match repaired.get(&deployed.decision) {
                    Some(at) => recoveries.push(at.duration_since(deployed.finished_at)),
                    None => unrepaired += 1,
                }
            }
        }
        Some(Self {
            deployments,
            deployments_per_day: deployments as f64 / days,
            changes: leads.len() as u64,
            lead_time: median(leads),
            without_changes,
            failed,
            change_failure_rate: (deployments > 0).then(|| failed as f64 / deployments as f64),
            recovery_time: median(recoveries),
            unrepaired,
        })
    }
}

/// Times that a clock put back made negative count as zero.
fn median(mut times: Vec<SignedDuration>) -> Option<Duration> {
    times.sort_unstable();
    let middle = times.get(times.len().checked_sub(1)? / 2)?;
    Some(Duration::try_from(*middle).unwrap_or_default())
}
