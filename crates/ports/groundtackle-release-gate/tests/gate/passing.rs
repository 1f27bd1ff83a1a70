//! What an override passes, and what it can't.

use groundtackle_release_gate::{Decision, Evidence, Fact, Gate, Quorum, Rule, Severity, Verdict};

use crate::setting::*;

/// The example without anybody's approval, in a quiet hour, with an override of two people.
fn unapproved(passes: Option<&[Rule]>, evidence: Vec<Evidence>) -> Decision {
    let mut policy = operations().policy().clone();
    if let Some(passes) = passes {
        policy.overrides.as_mut().unwrap().passes = passes.iter().copied().collect();
    }
    let gate = Gate::new(policy).unwrap();
    let override_ = overridden(&["olga", "omar"], Severity::Critical, "outputs can be lost");
    let more = [override_, measure("overrides", 0.0)];
    let more = more.map(|fact| signed(Evidence::new("test", noon(), fact)));
    gate.judge(&[&evidence[..], &more].concat(), &request(), noon())
}

/// "An approval that nobody gave is no missing evidence."
#[test]
fn an_approval_that_nobody_gave_is_passed_by_an_override_only_where_the_policy_lists_approvals() {
    let none = || without(evidence(), |fact| matches!(fact, Fact::Approval { .. }));
    let as_shipped = unapproved(None, none());
    assert_eq!(as_shipped.verdict, Verdict::NoGo);
    assert!(
        as_shipped
            .reasons
            .iter()
            .all(|reason| reason.rule == Rule::Approvals)
    );
    let listed = unapproved(Some(&[Rule::Approvals]), none());
    assert_go(&listed);
    // It is written down what was passed, and by whom.
    assert_eq!(
        listed.passed.len(),
        2,
        "one for each role that approves: {:#?}",
        listed.passed
    );
    for passed in &listed.passed {
        assert_eq!(
            (passed.reason.rule, passed.reason.verdict),
            (Rule::Approvals, Verdict::NoGo)
        );
        assert!(
            passed.by.starts_with("override of olga and omar for INC-7"),
            "{}",
            passed.by
        );
    }
    // Approvals that were given, and ran out, are stale evidence: nobody passes that.
    let mut policy = operations().policy().clone();
    policy.overrides.as_mut().unwrap().passes = [Rule::Approvals].into();
    for approvals in &mut policy.environments[2].approvals {
        *approvals = Quorum {
            max_age: Some("1h".parse().unwrap()),
            ..approvals.clone()
        };
    }
    let gate = Gate::new(policy).unwrap();
    let override_ = overridden(&["olga", "omar"], Severity::Critical, "outputs can be lost");
    let more = [override_, measure("overrides", 0.0)];
    let more = more.map(|fact| signed(Evidence::new("test", noon(), fact)));
    let stale = gate.judge(&[&evidence()[..], &more].concat(), &request(), noon());
    assert_eq!(stale.verdict, Verdict::Inconclusive, "{:#?}", stale.reasons);
    // Nor who made the changes, without which no approval is one.
    let unknown = without(evidence(), |fact| matches!(fact, Fact::Changes { .. }));
    let unknown = unapproved(Some(&[Rule::Approvals, Rule::Reviews]), unknown);
    assert_eq!(unknown.verdict, Verdict::Inconclusive);
}

/// Two sources know of blockers, or of incidents: that the one finds none does not undo what the other found.
#[test]
fn what_one_source_finds_open_another_does_not_close() {
    let both = |here: Fact, there: Fact| {
        let seen = [
            ("issues", at("2026-11-10T10:50:00Z"), here),
            ("health", at("2026-11-10T10:55:00Z"), there),
        ];
        let seen = seen.map(|(source, at, fact)| Evidence::new(source, at, fact));
        judge(&[&evidence()[..], &seen].concat())
    };
    assert_go(&both(blockers(&[], None), blockers(&[], None)));
    let refused = both(blockers(&["#7"], None), blockers(&[], None));
    assert_eq!(
        (refused.verdict, refused.reasons[0].rule),
        (Verdict::NoGo, Rule::Soak)
    );
    let waits = both(
        blockers(&[], Some(at("2026-11-10T10:00:00Z"))),
        blockers(&[], None),
    );
    assert_eq!(
        (waits.verdict, waits.reasons[0].rule),
        (Verdict::Hold, Rule::Soak)
    );
    assert_go(&both(incidents(&[]), incidents(&[])));
    let refused = both(incidents(&[("#8", Severity::Major)]), incidents(&[]));
    assert_eq!(
        (refused.verdict, refused.reasons[0].rule),
        (Verdict::NoGo, Rule::Incidents)
    );
    // What one of them has not looked at for too long is not known.
    let old = Evidence::new("issues", at("2026-11-10T09:00:00Z"), incidents(&[]));
    let stale = judge(&[&evidence()[..], &[old]].concat());
    assert_eq!(
        (stale.verdict, stale.reasons[0].rule),
        (Verdict::Inconclusive, Rule::Incidents)
    );
}
