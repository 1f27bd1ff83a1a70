//! What an override passes, and what it can't.

use groundtackle_release_gate::{
    Action, Decision, Evidence, Fact, Gate, Length, Overrun, Quorum, Request, Rule, Severity,
    Timestamp, Verdict, Waiver,
};

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

/// Two sources know of blockers: of the one that could not be read nobody knows what it would have found.
#[test]
fn what_one_source_could_not_read_no_other_stands_for() {
    let detail = "github: reading issues failed".to_owned();
    let unread = Evidence::new("github", noon(), Fact::Unread { detail });
    let all = [&evidence()[..], &[unread]].concat();
    let decision = judge(&all);
    assert_eq!(decision.verdict, Verdict::Inconclusive);
    let [reason] = &decision.reasons[..] else {
        panic!("{:#?}", decision.reasons)
    };
    assert_eq!(
        (reason.rule, reason.subject.as_str()),
        (Rule::Sources, "github")
    );
    assert!(reason.detail.contains("reading issues failed"));
    // What goes back asks for nothing but that it was there.
    let back = Request {
        action: Action::Rollback,
        ..request()
    };
    let was_there = Evidence::new("log", noon(), deployment("production", true));
    let all = [&all[..], &[was_there]].concat();
    assert_go(&operations().judge(&all, &back, noon()));
    assert_eq!(
        operations().judge(&all, &request(), noon()).verdict,
        Verdict::Inconclusive
    );
}

/// The example in a freeze of some days about noon, which all may pass in need, and nothing else.
fn frozen_about_noon(more: impl FnOnce(&mut groundtackle_release_gate::Policy)) -> Gate {
    let mut policy = operations().policy().clone();
    policy.overrides.as_mut().unwrap().passes = [Rule::Freezes].into();
    let freeze = &mut policy.freezes[0];
    (freeze.from, freeze.until) = (
        "2026-11-09T00:00".parse().unwrap(),
        "2026-11-12T00:00".parse().unwrap(),
    );
    more(&mut policy);
    Gate::new(policy).unwrap()
}

fn in_need(gate: &Gate, at: Timestamp, takes: Option<Length>) -> Decision {
    let override_ = overridden(&["olga", "omar"], Severity::Critical, "outputs can be lost");
    let more = [override_, measure("overrides", 0.0)];
    let more = more.map(|fact| signed(Evidence::new("test", noon(), fact)));
    let mut all = [&evidence()[..], &more].concat();
    for evidence in &mut all {
        // As fresh then as at noon.
        if evidence.observed_at >= "2026-11-10T10:00:00Z".parse().unwrap() {
            evidence.observed_at = at.checked_sub(jiff::SignedDuration::from_mins(5)).unwrap();
            *evidence = signed(evidence.clone());
        }
    }
    gate.judge(&all, &Request { takes, ..request() }, at)
}

/// Business hours end at 17:00 in Berlin, and refuse what would not be finished.
#[test]
fn who_passes_a_freeze_passes_no_window_and_no_end_of_one() {
    let gate = frozen_about_noon(|_| {});
    let half_an_hour = Some(Length::minutes(30));
    assert_go(&in_need(&gate, noon(), half_an_hour));
    let last = at("2026-11-10T15:30:00Z");
    let decision = in_need(&gate, last, half_an_hour);
    assert_go(&decision);
    assert!(decision.good_until.unwrap() < at("2026-11-10T15:31:00Z"));
    for (late, takes, verdict) in [
        (at("2026-11-10T15:31:00Z"), half_an_hour, Verdict::Hold),
        (noon(), None, Verdict::NoGo),
        (at("2026-11-10T16:30:00Z"), half_an_hour, Verdict::Hold),
    ] {
        let decision = in_need(&gate, late, takes);
        assert_eq!(decision.verdict, verdict, "{late}: {:#?}", decision.reasons);
        assert!(decision.reasons.iter().all(|r| r.rule == Rule::Windows));
        assert!(
            decision
                .passed
                .iter()
                .all(|passed| passed.reason.rule == Rule::Freezes)
        );
    }
    // Nor is it told to go on after the window.
    let stops = frozen_about_noon(|policy| policy.windows[0].overrun = Overrun::Stop);
    let decision = in_need(&stops, noon(), None);
    assert_go(&decision);
    assert_eq!(decision.stop_at, Some(at("2026-11-10T16:00:00Z")));
    let late = in_need(&stops, at("2026-11-10T15:55:00Z"), None);
    assert_eq!(late.good_until, Some(at("2026-11-10T16:00:00Z")));
    // A window that is waived takes none of the others with it.
    let waived = frozen_about_noon(|policy| {
        policy.windows[1].hours.start = Some("tue 12:30".parse().unwrap());
        policy.windows[1].hours.end = Some("wed 12:30".parse().unwrap());
        policy.waivers.push(Waiver {
            rule: Rule::Windows,
            subject: Some(policy.windows[1].name.clone()),
            environment: "production".into(),
            reason: "to be tested".into(),
            by: "rita".into(),
            until: Timestamp::MAX,
        });
    });
    assert_go(&in_need(&waived, at("2026-11-10T12:00:00Z"), half_an_hour));
    let late = in_need(&waived, at("2026-11-10T15:40:00Z"), half_an_hour);
    assert_eq!(late.verdict, Verdict::Hold, "{:#?}", late.reasons);
}
