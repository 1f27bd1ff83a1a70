//! What people say counts with their own signature alone, where the policy asks for it.

use groundtackle_release_gate::{Decision, Digest, Evidence, Fact, Rule, Severity, Verdict};

use crate::setting::*;

fn by_omar(fact: &Fact) -> bool {
    matches!(fact, Fact::Approval { by, .. } if by == "omar")
}

/// The whole evidence, with omar's approval changed.
fn approved(change: impl FnOnce(&mut Evidence)) -> Decision {
    let mut evidence = evidence();
    let approval = evidence
        .iter_mut()
        .find(|evidence| by_omar(&evidence.fact))
        .unwrap();
    change(approval);
    judge(&evidence)
}

#[track_caller]
fn assert_unsigned(decision: &Decision) {
    assert_eq!(decision.verdict, Verdict::NoGo, "{:#?}", decision.reasons);
    let [reason] = &decision.reasons[..] else {
        panic!("{:#?}", decision.reasons)
    };
    assert_eq!(
        (reason.rule, reason.subject.as_str()),
        (Rule::Approvals, "operations")
    );
    assert!(
        reason.detail.contains("not signed by who is said"),
        "{}",
        reason.detail
    );
}

#[test]
fn an_approval_counts_with_the_signature_of_who_gave_it() {
    assert_go(&approved(|_| {}));
    assert_unsigned(&approved(|approval| approval.signatures.clear()));
    // By somebody else of the same role, and by somebody whom nobody knows.
    for other in ["olga", "rita", "mallory"] {
        assert_unsigned(&approved(|approval| {
            approval.signatures.clear();
            *approval = approval.clone().sign(&key_of(other)).unwrap();
        }));
    }
    // One of several is enough, and what is not his does no harm.
    assert_go(&approved(|approval| {
        let own = std::mem::take(&mut approval.signatures);
        *approval = approval.clone().sign(&key_of("mallory")).unwrap();
        approval.signatures.extend(own);
    }));
}

#[test]
fn a_signature_is_of_the_artefact_the_environment_and_the_time() {
    let elsewhere = |artefact: Digest, environment: &str| {
        let other = Fact::Approval {
            artefact,
            environment: environment.into(),
            by: "omar".into(),
        };
        let other = signed(Evidence::new("test", noon(), other));
        assert!(other.is_signed_by(&[key_of("omar").public()].into()));
        other.signatures
    };
    // Taken over from what omar did sign.
    for taken in [
        elsewhere(Digest::of(b"node 1.3.0"), "production"),
        elsewhere(artefact(), "staging"),
    ] {
        assert_unsigned(&approved(|approval| approval.signatures = taken));
    }
    assert_unsigned(&approved(|approval| {
        approval.observed_at = at("2026-11-10T10:59:00Z");
    }));
    assert_unsigned(&approved(|approval| approval.digest = None));
    // Who passed it on is not what omar said.
    assert_go(&approved(|approval| approval.source = "elsewhere".into()));
}

#[test]
fn every_changed_byte_of_a_signature_is_found() {
    let omar = [key_of("omar").public()].into();
    let whole = signed(Evidence::new("test", noon(), approval("omar")));
    assert!(whole.is_signed_by(&omar));
    let text = whole.signatures[0].clone();
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let mut changed = whole.clone();
        changed.signatures = vec![String::from_utf8_lossy(&bytes).into_owned()];
        assert!(!changed.is_signed_by(&omar), "byte {at}");
    }
}

#[test]
fn a_statement_of_the_checklist_is_signed_by_who_makes_it() {
    let mut unsigned = evidence();
    for evidence in &mut unsigned {
        if matches!(&evidence.fact, Fact::Item { id, .. } if id == "rollback-tried") {
            evidence.signatures.clear();
        }
    }
    let decision = judge(&unsigned);
    assert_eq!(decision.verdict, Verdict::Inconclusive);
    assert_eq!(
        (
            decision.reasons[0].rule,
            decision.reasons[0].subject.as_str()
        ),
        (Rule::Checklist, "rollback-tried")
    );
}

/// Each on their own machine: two pieces of evidence are one override.
#[test]
fn an_override_is_of_those_who_signed_it() {
    let frozen = at("2026-12-20T03:00:00Z");
    let by = frozen.duration_since(noon());
    let mut base = moved_by(&evidence(), by);
    for evidence in &mut base {
        if let Fact::Measure { since, .. } = &mut evidence.fact {
            *since = operations().policy().zone.quarter_of(frozen);
        }
    }
    let spent = Evidence::new("test", frozen, measure("overrides", 0.0));
    let says = |by: &[&str], minutes_ago: i64| {
        let fact = overridden(by, Severity::Critical, "outputs can be lost");
        let then = frozen
            .checked_sub(jiff::SignedDuration::from_mins(minutes_ago))
            .unwrap();
        signed(Evidence::new("test", then, fact))
    };
    let judge = |more: &[Evidence]| {
        let all = [&base[..], std::slice::from_ref(&spent), more].concat();
        operations().judge(&all, &request(), frozen)
    };
    let decision = judge(&[says(&["olga"], 10), says(&["omar"], 20)]);
    assert_go(&decision);
    assert!(
        decision.passed[0]
            .by
            .starts_with("override of olga and omar for INC-7"),
        "{:?}",
        decision.passed
    );
    // Of three, the two who said so last count for longest.
    let three = [
        says(&["olga"], 10),
        says(&["omar"], 235),
        says(&["otto"], 20),
    ];
    assert_go(&judge(&three));
    assert!(judge(&three).good_until > judge(&three[..2]).good_until);
    assert_eq!(
        judge(&three[..2]).good_until,
        Some(at("2026-12-20T03:05:00Z")),
        "four hours after omar"
    );
    let mut forged = says(&["olga", "omar"], 10);
    forged.signatures.truncate(1);
    let stale = [says(&["olga"], 10), says(&["omar"], 240)];
    for (evidence, why) in [
        (&[says(&["olga"], 10)][..], "1 count"),
        (&[says(&["olga"], 10), says(&["olga"], 20)], "1 count"),
        (&[forged], "1 did not sign"),
        (&stale, "1 ran out"),
    ] {
        let decision = judge(evidence);
        assert_eq!(decision.verdict, Verdict::Hold, "{:#?}", decision.reasons);
        assert!(
            decision.warnings.iter().any(|said| said.contains(why)),
            "{why}: {:?}",
            decision.warnings
        );
    }
}

#[test]
fn only_what_people_say_of_an_artefact_is_signed() {
    let measured = Evidence::new("test", noon(), measure("uptime", 99.9));
    let error = measured.sign(&key_of("olga")).unwrap_err().to_string();
    assert!(error.contains("only an approval"), "{error}");
    let mut evidence = Evidence::new("test", noon(), approval("omar"));
    for _ in 0..16 {
        evidence = evidence.sign(&key_of("mallory")).unwrap();
    }
    let error = evidence.sign(&key_of("omar")).unwrap_err().to_string();
    assert!(error.contains("16 signatures"), "{error}");
}

#[test]
fn the_example_that_ships_takes_nobodys_word_until_keys_are_put_into_it() {
    let gate = shipped("operations.toml");
    let decision = gate.judge(&evidence(), &request(), noon());
    assert_eq!(decision.verdict, Verdict::NoGo);
    let rules: Vec<_> = decision.reasons.iter().map(|reason| reason.rule).collect();
    assert_eq!(
        rules,
        [
            Rule::Approvals,
            Rule::Approvals,
            Rule::Checklist,
            Rule::Checklist
        ]
    );
}
