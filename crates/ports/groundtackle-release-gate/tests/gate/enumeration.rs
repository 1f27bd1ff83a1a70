//! The states that evidence can be in, all of them, by the example policy that holds every rule.
//!
//! Thirty pieces in four states each are more than can be gone through. They fall into groups that no rule looks at together:
//! each group's states are gone through whole; of each two groups all pairs of states, and of all groups states from numbers that
//! are the same in every run, give the reasons that the groups give alone, and none less.

use std::collections::BTreeSet;

use groundtackle_release_gate::{
    Evidence, Fact, Gate, Request, Rule, Severity, Timestamp, Verdict, Waiver,
};
use jiff::SignedDuration;

use crate::replay::Numbers;
use crate::setting::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Fresh,
    Missing,
    Stale,
    Future,
}

use State::{Fresh, Future, Missing, Stale};

/// The pieces that one rule at least looks at together. Where a piece belongs to is said for all that there are.
fn group(fact: &Fact) -> String {
    match fact {
        Fact::Changes { .. } | Fact::Approval { .. } => "who made and who approved it".into(),
        Fact::Artefact { .. } => "artefact".into(),
        Fact::Deployment { .. } | Fact::Blockers { .. } => "where it was".into(),
        Fact::Settings { .. } => "settings".into(),
        Fact::Override { .. } => "override".into(),
        Fact::Measure { name, .. } if name == "overrides" => "override".into(),
        Fact::Measure { name, .. } => format!("measure {name}"),
        Fact::Item { id, .. } => format!("item {id}"),
        Fact::Pipeline { name, .. } => format!("pipeline {name}"),
        Fact::Backup { name } => format!("backup {name}"),
        Fact::Drill { name, .. } => format!("drill {name}"),
        Fact::Test { suite, .. } => format!("test {suite}"),
        Fact::Meeting { .. } => "meeting".into(),
        Fact::Incidents { .. } => "incidents".into(),
        other => panic!("{other:?} is in no group"),
    }
}

struct World {
    gate: Gate,
    now: Timestamp,
    fresh: Vec<Evidence>,
    stale: Vec<Evidence>,
    future: Vec<Evidence>,
    groups: Vec<Vec<usize>>,
}

impl World {
    fn new(gate: Gate, now: Timestamp, fresh: Vec<Evidence>) -> Self {
        let moved = |by| moved_by(&fresh, SignedDuration::from_hours(by));
        let names: BTreeSet<_> = fresh.iter().map(|evidence| group(&evidence.fact)).collect();
        let members = |name: &String| {
            let all = fresh.iter().enumerate();
            all.filter(|(_, evidence)| group(&evidence.fact) == *name)
                .map(|(n, _)| n)
                .collect()
        };
        Self {
            groups: names.iter().map(members).collect(),
            // Before the quarter, and older than any rule takes.
            stale: moved(-24 * 200),
            future: moved(24 * 200),
            gate,
            now,
            fresh,
        }
    }

    /// That an artefact came somewhere does not go out of date.
    fn states(&self, piece: usize) -> &'static [State] {
        match self.fresh[piece].fact {
            Fact::Deployment { .. } => &[Fresh, Missing, Future],
            _ => &[Fresh, Missing, Stale, Future],
        }
    }

    /// All that a group can be in, as pieces that are not fresh.
    fn states_of(&self, group: &[usize]) -> Vec<Vec<(usize, State)>> {
        let mut all = vec![Vec::new()];
        for &piece in group {
            let each = all.iter().flat_map(|before: &Vec<_>| {
                self.states(piece).iter().map(move |state| {
                    let mut one = before.clone();
                    if *state != Fresh {
                        one.push((piece, *state));
                    }
                    one
                })
            });
            all = each.collect();
        }
        all
    }

    /// The reasons, none if it is go.
    fn reasons(&self, changed: &[(usize, State)]) -> BTreeSet<String> {
        let mut evidence = self.fresh.clone();
        for (piece, state) in changed {
            match state {
                Stale => evidence[*piece] = self.stale[*piece].clone(),
                Future => evidence[*piece] = self.future[*piece].clone(),
                Fresh | Missing => {}
            }
        }
        let mut n = 0;
        evidence.retain(|_| {
            n += 1;
            !changed.contains(&(n - 1, Missing))
        });
        let decision = self.gate.judge(&evidence, &request(), self.now);
        assert_eq!(
            decision.verdict == Verdict::Go,
            decision.reasons.is_empty(),
            "{changed:?}"
        );
        if changed.iter().any(|(_, state)| *state == Future) {
            // Of what is from the future the latest alone is named.
            assert!(decision.reasons.iter().any(|r| r.rule == Rule::Clock));
        }
        let others = decision.reasons.iter().filter(|r| r.rule != Rule::Clock);
        let mut all: BTreeSet<_> = others.map(|reason| format!("{reason:?}")).collect();
        if all.len() < decision.reasons.len() {
            all.insert("from the future".into());
        }
        all
    }
}

fn enumerate(world: &World) {
    assert_eq!(world.reasons(&[]), BTreeSet::new(), "whole, it is go");
    let mut alone = Vec::new();
    for group in &world.groups {
        let mut each = Vec::new();
        for state in world.states_of(group) {
            let reasons = world.reasons(&state);
            assert_eq!(reasons.is_empty(), state.is_empty(), "{state:?}");
            each.push((state, reasons));
        }
        alone.push(each);
    }
    let mut pairs = 0;
    for (n, first) in alone.iter().enumerate() {
        for second in &alone[n + 1..] {
            for (a, because_of_a) in first {
                for (b, because_of_b) in second
                    .iter()
                    .filter(|(b, _)| !a.is_empty() && !b.is_empty())
                {
                    let both = world.reasons(&[a.as_slice(), b].concat());
                    assert_eq!(both, because_of_a | because_of_b, "{a:?} {b:?}");
                    pairs += 1;
                }
            }
        }
    }
    let mut numbers = Numbers(11);
    for _ in 0..2000 {
        let mut whole = Vec::new();
        let mut expected = BTreeSet::new();
        for states in &alone {
            // Half of the groups as they should be.
            let (state, reasons) = match numbers.below(2) {
                0 => &states[0],
                _ => &states[numbers.below(states.len() as u64) as usize],
            };
            whole.extend(state.iter().copied());
            expected.extend(reasons.iter().cloned());
        }
        assert_eq!(world.reasons(&whole), expected, "{whole:?}");
    }
    let states: usize = alone.iter().map(Vec::len).sum();
    println!("{} groups, {states} states, {pairs} pairs", alone.len());
    assert!(alone.len() >= 20 && pairs > 5000, "{} {pairs}", alone.len());
}

#[test]
fn no_path_to_go_with_missing_or_stale_evidence() {
    enumerate(&World::new(operations(), noon(), evidence()));
}

/// In a freeze, with an override and with a waiver of every rule that can have one: both pass over what is known to be wrong, and over
/// nothing that is not known.
#[test]
fn neither_waivers_nor_overrides_make_a_path_to_go_with_missing_or_stale_evidence() {
    let frozen = at("2026-12-20T03:00:00Z");
    let mut policy = operations().policy().clone();
    // But approvals: that nobody approved is known, and a policy may say that it is passed over.
    let rules = [
        Rule::Tag,
        Rule::Order,
        Rule::Reviews,
        Rule::Meeting,
        Rule::Checklist,
        Rule::Pipelines,
        Rule::Tests,
        Rule::Platforms,
        Rule::Soak,
        Rule::Parity,
        Rule::Budgets,
        Rule::Backups,
        Rule::Drills,
        Rule::Incidents,
        Rule::Rota,
        Rule::Windows,
        Rule::Freezes,
    ];
    assert!(rules.iter().all(|rule| rule.can_be_passed()));
    policy.overrides.as_mut().unwrap().passes = rules.into();
    // What lets it out is the override, so that its own evidence counts, too.
    let waived = rules
        .iter()
        .filter(|rule| !matches!(rule, Rule::Freezes | Rule::Windows));
    policy.waivers.extend(waived.map(|rule| Waiver {
        rule: *rule,
        subject: None,
        environment: "production".into(),
        reason: "to be tested".into(),
        by: "rita".into(),
        until: Timestamp::MAX,
    }));
    let gate = Gate::new(policy).unwrap();
    let mut fresh = moved_by(&evidence(), frozen.duration_since(noon()));
    for evidence in &mut fresh {
        if let Fact::Measure { since, .. } = &mut evidence.fact {
            *since = gate.policy().zone.quarter_of(frozen);
        }
    }
    let said = overridden(&["olga", "omar"], Severity::Critical, "outputs can be lost");
    let Fact::Measure { since, .. } = fresh.last().unwrap().fact else {
        panic!("the last is a measure")
    };
    let spent = Fact::Measure {
        name: "overrides".into(),
        value: 0.0,
        since,
    };
    let before = frozen.checked_sub(SignedDuration::from_mins(5)).unwrap();
    fresh.extend([said, spent].map(|fact| signed(Evidence::new("test", before, fact))));
    let known: Vec<_> = gate.judge(&fresh, &request(), frozen).passed;
    assert!(
        known
            .iter()
            .any(|passed| passed.reason.rule == Rule::Freezes)
    );
    enumerate(&World::new(gate, frozen, fresh));
}

#[test]
fn whoever_acts_is_not_passed_over_either() {
    for rule in [
        Rule::Environment,
        Rule::Actor,
        Rule::Clock,
        Rule::Sources,
        Rule::Rollback,
    ] {
        assert!(!rule.can_be_passed(), "{rule:?}");
    }
    let stranger = Request {
        actor: "ada".into(),
        ..request()
    };
    assert_eq!(
        operations().judge(&evidence(), &stranger, noon()).verdict,
        Verdict::NoGo
    );
}
