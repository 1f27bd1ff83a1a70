//! Each rule that operations teams wrote down, kept once and broken once.

use groundtackle_release_gate::{
    Action, Decision, Digest, Evidence, Fact, Form, Gate, Incident, Length, Obligation, Request,
    Resolution, Rule, RunOutcome, Severity, Timestamp, Verdict, Vote, Waiver, When,
    incident_evidence,
};

use crate::setting::*;

#[track_caller]
fn assert_refused(decision: &Decision, rule: Rule, verdict: Verdict) {
    assert_eq!(decision.verdict, verdict, "{:#?}", decision.reasons);
    assert!(
        decision.reasons.iter().all(|reason| reason.rule == rule),
        "{rule:?} alone: {:#?}",
        decision.reasons
    );
}

fn ask(change: impl Fn(&mut Request)) -> Decision {
    let mut request = request();
    change(&mut request);
    operations().judge(&evidence(), &request, noon())
}

/// As of another instant, all evidence moved along with it.
fn moved(now: Timestamp) -> (Gate, Vec<Evidence>) {
    let by = now.duration_since(noon());
    let mut evidence = moved_by(&evidence(), by);
    for evidence in &mut evidence {
        if let Fact::Measure { since, .. } = &mut evidence.fact {
            *since = operations().policy().zone.quarter_of(now);
        }
    }
    (operations(), evidence)
}

#[test]
fn nothing_wrong_is_go() {
    assert_go(&judge(&evidence()));
}

#[test]
fn only_the_operations_team_pushes_to_production() {
    assert_go(&ask(|request| request.actor = "omar".into()));
    assert_refused(
        &ask(|request| request.actor = "ada".into()),
        Rule::Actor,
        Verdict::NoGo,
    );
}

#[test]
fn at_least_two_other_engineers_looked_at_every_change() {
    let same = |fact: &Fact| matches!(fact, Fact::Changes { .. });
    let reviewed = |by: &[&str]| judge(&with(evidence(), same, changes(&["ada"], by)));
    assert_go(&reviewed(&["ben", "dan"]));
    assert_refused(&reviewed(&["ben"]), Rule::Reviews, Verdict::NoGo);
    assert_refused(&reviewed(&["ben", "ada"]), Rule::Reviews, Verdict::NoGo);
    assert_refused(&reviewed(&["ben", "sam"]), Rule::Reviews, Verdict::NoGo);
    let unknown = Fact::Changes {
        artefact: artefact(),
        changes: Vec::new(),
    };
    assert_refused(
        &judge(&with(evidence(), same, unknown)),
        Rule::Reviews,
        Verdict::Inconclusive,
    );
}

#[test]
fn the_author_never_approves() {
    let author = |who: &str| {
        let same = |fact: &Fact| matches!(fact, Fact::Changes { .. });
        judge(&with(evidence(), same, changes(&[who], &["ben", "cleo"])))
    };
    assert_go(&author("eve"));
    assert_refused(&author("omar"), Rule::Approvals, Verdict::NoGo);
}

#[test]
fn approvals_are_void_when_anything_changes_and_expire() {
    let by_rita = |fact: &Fact| matches!(fact, Fact::Approval { by, .. } if by == "rita");
    let approved = |fact| judge(&with(evidence(), by_rita, fact));
    assert_go(&approved(approval("rita")));
    let other = Fact::Approval {
        artefact: Digest::of(b"node 1.4.0, built again"),
        environment: "production".into(),
        by: "rita".into(),
    };
    assert_refused(&approved(other), Rule::Approvals, Verdict::NoGo);
    let elsewhere = Fact::Approval {
        artefact: artefact(),
        environment: "staging".into(),
        by: "rita".into(),
    };
    assert_refused(&approved(elsewhere), Rule::Approvals, Verdict::NoGo);
    let mut old = evidence();
    let rita = old
        .iter_mut()
        .find(|evidence| by_rita(&evidence.fact))
        .unwrap();
    rita.observed_at = at("2026-11-08T11:00:00Z");
    *rita = signed(rita.clone());
    assert_refused(&judge(&old), Rule::Approvals, Verdict::Inconclusive);
}

#[test]
fn no_releases_or_changes_after_wednesday() {
    // Wednesday 16:29 and 17:00 in Berlin, the latter with more than the time that it takes before any other window shuts.
    for (now, rule) in [
        ("2026-11-11T15:29:00Z", None),
        ("2026-11-11T16:00:00Z", Some(Rule::Windows)),
    ] {
        let (gate, evidence) = moved(at(now));
        let decision = gate.judge(&evidence, &request(), at(now));
        match rule {
            None => assert_go(&decision),
            Some(rule) => assert_refused(&decision, rule, Verdict::Hold),
        }
    }
    for action in [Action::Deploy, Action::Change] {
        let request = Request {
            action,
            ..request()
        };
        for (now, open) in [
            ("2026-11-10T11:00:00Z", true),
            ("2026-11-12T11:00:00Z", false),
        ] {
            let (gate, evidence) = moved(at(now));
            let decision = gate.judge(&evidence, &request, at(now));
            if open {
                assert_go(&decision);
                continue;
            }
            assert_refused(&decision, Rule::Windows, Verdict::Hold);
            assert_eq!(
                decision.reasons[0].subject,
                "no releases after Wednesday 17:00"
            );
        }
    }
}

#[test]
fn support_is_available_sunday_to_friday_in_business_hours() {
    let mut policy = operations().policy().clone();
    policy.windows.clear();
    policy.freezes.clear();
    let gate = Gate::new(policy).unwrap();
    // Saturday, and Sunday.
    for (now, open) in [
        ("2026-11-14T11:00:00Z", false),
        ("2026-11-15T11:00:00Z", true),
        ("2026-11-15T17:00:00Z", false),
    ] {
        let (_, evidence) = moved(at(now));
        let decision = gate.judge(&evidence, &request(), at(now));
        match open {
            true => assert_go(&decision),
            false => assert_refused(&decision, Rule::Rota, Verdict::Hold),
        }
    }
    assert_eq!(gate.on_shift("support", noon()), ["sam", "sue"]);
    assert!(
        gate.on_shift("support", at("2026-12-25T11:00:00Z"))
            .is_empty()
    );
}

#[test]
fn windows_refuse_what_they_cannot_see_finished() {
    let takes = |minutes| ask(|request| request.takes = Some(Length::minutes(minutes)));
    assert_go(&takes(300));
    assert_refused(&takes(301), Rule::Windows, Verdict::Hold);
    assert_refused(
        &ask(|request| request.takes = None),
        Rule::Windows,
        Verdict::NoGo,
    );
}

#[test]
fn go_no_go_meeting_with_a_quorum_and_minutes() {
    let same = |fact: &Fact| matches!(fact, Fact::Meeting { .. });
    let met = |votes: &[(&str, Vote)], minutes: &str| {
        judge(&with(evidence(), same, meeting(votes, minutes)))
    };
    let (olga, omar, sam) = (("olga", Vote::Go), ("omar", Vote::Go), ("sam", Vote::Go));
    assert_go(&met(&[olga, omar, sam], "Fine."));
    assert_refused(&met(&[olga, sam], "Fine."), Rule::Meeting, Verdict::NoGo);
    assert_refused(&met(&[olga, omar], "Fine."), Rule::Meeting, Verdict::NoGo);
    assert_refused(
        &met(&[olga, omar, ("sam", Vote::NoGo)], "Fine."),
        Rule::Meeting,
        Verdict::NoGo,
    );
    assert_refused(
        &met(&[olga, omar, sam], " "),
        Rule::Meeting,
        Verdict::Inconclusive,
    );
}

#[test]
fn checklist_with_an_owner_for_each_item() {
    for (id, form, owner, stranger) in [
        ("notes", Form::Document, "rita", "olga"),
        ("announced", Form::Statement, "rita", "olga"),
        ("rollback-tried", Form::Statement, "omar", "rita"),
        ("disk-headroom", Form::Probe, "omar", "rita"),
    ] {
        let same = |fact: &Fact| matches!(fact, Fact::Item { id: found, .. } if found == id);
        let ticked = |by, passed| judge(&with(evidence(), same, item(id, form, by, passed)));
        assert_go(&ticked(owner, true));
        assert_refused(&ticked(stranger, true), Rule::Checklist, Verdict::NoGo);
        assert_refused(&ticked(owner, false), Rule::Checklist, Verdict::NoGo);
        assert_refused(
            &judge(&without(evidence(), same)),
            Rule::Checklist,
            Verdict::Inconclusive,
        );
        let mut unread = with(evidence(), same, item(id, form, owner, true));
        for evidence in &mut unread {
            evidence.digest = None;
            *evidence = signed(evidence.clone());
        }
        assert_eq!(
            judge(&unread).verdict,
            Verdict::Inconclusive,
            "the notes are a document"
        );
    }
}

#[test]
fn release_management_and_operations_items_are_kept_apart() {
    let policy = operations().policy().clone();
    let production = &policy.environments[2];
    for (list, owner) in [
        ("release-management", "release-management"),
        ("operations", "operations"),
    ] {
        let items: Vec<_> = production
            .checklist
            .iter()
            .filter(|item| item.list == list)
            .collect();
        assert_eq!(items.len(), 2, "{list}");
        assert!(items.iter().all(|item| item.owner == owner), "{list}");
    }
    // Somebody of the one side can't tick what is of the other, and the reason says whose it is.
    let same = |fact: &Fact| matches!(fact, Fact::Item { id, .. } if id == "announced");
    let ticked = |by| {
        let item = item("announced", Form::Statement, by, true);
        judge(&with(evidence(), same, item))
    };
    assert_go(&ticked("rita"));
    let refused = ticked("olga");
    assert_refused(&refused, Rule::Checklist, Verdict::NoGo);
    assert!(
        refused.reasons[0].detail.contains("(release-management)"),
        "{:?}",
        refused.reasons
    );
}

#[test]
fn pipelines_are_watched_and_reported_to_discord_and_failures_fixed_or_rolled_back() {
    let same = |fact: &Fact| matches!(fact, Fact::Pipeline { name, .. } if name == "staging");
    let ended = |outcome, reported: &[&str], resolved| {
        let reported_to = set(reported);
        judge(&with(
            evidence(),
            same,
            Fact::Pipeline {
                name: "staging".into(),
                outcome,
                reported_to,
                resolved,
            },
        ))
    };
    assert_go(&ended(RunOutcome::Passed, &[], None));
    assert_go(&ended(
        RunOutcome::Failed,
        &["discord"],
        Some(Resolution::Fixed),
    ));
    assert_go(&ended(
        RunOutcome::Failed,
        &["discord"],
        Some(Resolution::RolledBack),
    ));
    assert_refused(
        &ended(RunOutcome::Failed, &["discord"], None),
        Rule::Pipelines,
        Verdict::NoGo,
    );
    assert_refused(
        &ended(RunOutcome::Failed, &["mail"], Some(Resolution::Fixed)),
        Rule::Pipelines,
        Verdict::NoGo,
    );
    assert_refused(
        &ended(RunOutcome::Running, &[], None),
        Rule::Pipelines,
        Verdict::Inconclusive,
    );
}

#[test]
fn tags_say_where_an_artefact_goes() {
    let gate = Gate::read(
        "chain.toml",
        &policy_text("chain.toml"),
        groundtackle_release_gate::PolicyFormat::Toml,
    )
    .unwrap();
    for (tag, environment, fits) in [
        ("v1.4.0", "qa", true),
        ("v1.4.0", "test-net", false),
        ("v1.4.0", "main-net", false),
        ("1.4.0-rc.1", "test-net", true),
        ("1.4.0-rc.1", "main-net", false),
        ("1.4.0", "main-net", true),
    ] {
        let request = Request {
            tag: tag.into(),
            environment: environment.into(),
            ..request()
        };
        let decision = gate.judge(&[], &request, noon());
        assert_eq!(
            decision
                .reasons
                .iter()
                .all(|reason| reason.rule != Rule::Tag || reason.verdict != Verdict::NoGo),
            fits,
            "{tag} to {environment}"
        );
        assert_ne!(decision.verdict, Verdict::Go);
    }
}

#[test]
fn an_artefact_comes_from_the_environment_before() {
    let same = |fact: &Fact| matches!(fact, Fact::Deployment { .. });
    assert_go(&judge(&with(evidence(), same, deployment("staging", true))));
    assert_refused(
        &judge(&with(evidence(), same, deployment("staging", false))),
        Rule::Order,
        Verdict::NoGo,
    );
    assert_refused(
        &judge(&with(evidence(), same, deployment("development", true))),
        Rule::Order,
        Verdict::Inconclusive,
    );
}

#[test]
fn soak_time_on_the_environment_before_without_a_blocker() {
    let same = |fact: &Fact| matches!(fact, Fact::Blockers { .. });
    let soaked = |open: &[&str], closed: Option<&str>| {
        judge(&with(evidence(), same, blockers(open, closed.map(at))))
    };
    assert_go(&soaked(&[], Some("2026-11-08T11:00:00Z")));
    assert_refused(&soaked(&["#7"], None), Rule::Soak, Verdict::NoGo);
    let held = soaked(&[], Some("2026-11-08T11:30:00Z"));
    assert_refused(&held, Rule::Soak, Verdict::Hold);
    assert_eq!(
        held.reasons[0].holds_until,
        Some(at("2026-11-10T11:30:00Z"))
    );
    // Another one took its place, before it had run long enough and after.
    for (replaced, kept) in [
        ("2026-11-08T11:00:00Z", false),
        ("2026-11-10T10:00:00Z", true),
    ] {
        let artefact = Digest::of(b"node 1.5.0");
        let other = Fact::Deployment {
            artefact,
            environment: "staging".into(),
            succeeded: true,
        };
        let decision =
            judge(&[evidence(), vec![Evidence::new("test", at(replaced), other)]].concat());
        match kept {
            true => assert_go(&decision),
            false => assert_refused(&decision, Rule::Soak, Verdict::NoGo),
        }
    }
}

/// The request alone says nothing of the tag.
#[test]
fn the_tag_is_what_the_artefact_is_tagged() {
    let same = |fact: &Fact| matches!(fact, Fact::Artefact { .. });
    let tagged = |tag: &str| Fact::Artefact {
        artefact: artefact(),
        tag: tag.into(),
        platforms: set(&["linux/amd64", "linux/arm64"]),
    };
    assert_go(&judge(&with(evidence(), same, tagged("1.4.0"))));
    assert_refused(
        &judge(&with(evidence(), same, tagged("1.4.0-rc.1"))),
        Rule::Tag,
        Verdict::NoGo,
    );
    let mut policy = operations().policy().clone();
    policy
        .environments
        .iter_mut()
        .for_each(|environment| environment.platforms = None);
    let decision = Gate::new(policy)
        .unwrap()
        .judge(&without(evidence(), same), &request(), noon());
    assert_refused(&decision, Rule::Tag, Verdict::Inconclusive);
}

#[test]
fn environments_are_at_parity() {
    let same = |fact: &Fact| matches!(fact, Fact::Settings { environment, .. } if environment == "production");
    assert_go(&judge(&with(
        evidence(),
        same,
        settings("production", "6.1"),
    )));
    assert_refused(
        &judge(&with(evidence(), same, settings("production", "6.2"))),
        Rule::Parity,
        Verdict::NoGo,
    );
}

#[test]
fn both_arm64_and_amd64_are_present() {
    let same = |fact: &Fact| matches!(fact, Fact::Artefact { .. });
    assert_go(&judge(&with(
        evidence(),
        same,
        platforms(&["linux/amd64", "linux/arm64", "linux/riscv64"]),
    )));
    assert_refused(
        &judge(&with(evidence(), same, platforms(&["linux/amd64"]))),
        Rule::Platforms,
        Verdict::NoGo,
    );
}

#[test]
fn service_levels_and_counts_of_the_quarter() {
    // The last that is kept, the first that is not.
    for (name, kept, broken) in [
        ("uptime", 99.0, 98.999),
        ("escalations", 7.0, 8.0),
        ("rollbacks", 1.0, 2.0),
        ("missed-cadences", 1.0, 2.0),
        ("incident-hours", 49.5, 50.0),
    ] {
        let same = |fact: &Fact| matches!(fact, Fact::Measure { name: found, .. } if found == name);
        let measured = |value| judge(&with(evidence(), same, measure(name, value)));
        let last = measured(kept);
        assert_go(&last);
        assert!(
            last.warnings
                .iter()
                .any(|warning| warning.starts_with(name)),
            "{name}: {:?}",
            last.warnings
        );
        assert_refused(&measured(broken), Rule::Budgets, Verdict::NoGo);
        for impossible in [f64::NAN, f64::INFINITY, -1.0] {
            assert_refused(&measured(impossible), Rule::Budgets, Verdict::Inconclusive);
        }
        let part = Fact::Measure {
            name: name.into(),
            value: kept,
            since: at("2026-10-02T00:00:00Z"),
        };
        assert_refused(
            &judge(&with(evidence(), same, part)),
            Rule::Budgets,
            Verdict::Inconclusive,
        );
    }
    assert!(judge(&evidence()).warnings.is_empty());
}

/// In a longer time there are no fewer rollbacks than in the quarter; and a day without service is a smaller share of it.
#[test]
fn a_share_of_a_longer_time_than_the_quarter_is_not_the_quarters() {
    for (name, value, verdict) in [
        ("uptime", 99.9, Verdict::Inconclusive),
        ("rollbacks", 1.0, Verdict::Go),
        ("incident-hours", 10.0, Verdict::Go),
    ] {
        let same = |fact: &Fact| matches!(fact, Fact::Measure { name: found, .. } if found == name);
        let longer = Fact::Measure {
            name: name.into(),
            value,
            since: at("2026-08-10T11:00:00Z"),
        };
        let decision = judge(&with(evidence(), same, longer));
        assert_eq!(decision.verdict, verdict, "{name}: {:#?}", decision.reasons);
    }
    // Nor is what there has to be enough of.
    let mut policy = operations().policy().clone();
    let budgets = policy.budgets.iter_mut();
    let rollbacks = budgets
        .into_iter()
        .find(|budget| budget.name == "rollbacks");
    let rollbacks = rollbacks.unwrap();
    (rollbacks.at_least, rollbacks.fewer_than) = (Some(2.0), None);
    let gate = Gate::new(policy).unwrap();
    let same = |fact: &Fact| matches!(fact, Fact::Measure { name, .. } if name == "rollbacks");
    for (since, verdict) in [
        ("2026-09-30T22:00:00Z", Verdict::Go),
        ("2026-09-30T21:59:59Z", Verdict::Inconclusive),
    ] {
        let measured = Fact::Measure {
            name: "rollbacks".into(),
            value: 2.0,
            since: at(since),
        };
        let decision = gate.judge(&with(evidence(), same, measured), &request(), noon());
        assert_eq!(decision.verdict, verdict, "{since}");
    }
}

#[test]
fn regression_test_run_this_week() {
    let same = |fact: &Fact| matches!(fact, Fact::Test { .. });
    assert_go(&judge(&with(evidence(), same, regression(true))));
    assert_refused(
        &judge(&with(evidence(), same, regression(false))),
        Rule::Tests,
        Verdict::NoGo,
    );
    let mut old = evidence();
    old.iter_mut()
        .find(|evidence| same(&evidence.fact))
        .unwrap()
        .observed_at = at("2026-11-03T11:00:00Z");
    assert_refused(&judge(&old), Rule::Tests, Verdict::Inconclusive);
}

#[test]
fn backups_are_fresh_and_the_last_restore_drill_passed() {
    let backup = |fact: &Fact| matches!(fact, Fact::Backup { .. });
    let mut old = evidence();
    old.iter_mut()
        .find(|evidence| backup(&evidence.fact))
        .unwrap()
        .observed_at = at("2026-11-09T11:00:00Z");
    assert_refused(&judge(&old), Rule::Backups, Verdict::Inconclusive);
    let drill = |fact: &Fact| matches!(fact, Fact::Drill { .. });
    let ended = |passed| {
        judge(&with(
            evidence(),
            drill,
            Fact::Drill {
                name: "utxo".into(),
                passed,
            },
        ))
    };
    assert_go(&ended(true));
    assert_refused(&ended(false), Rule::Drills, Verdict::NoGo);
}

#[test]
fn open_incidents_stop_a_release() {
    let same = |fact: &Fact| matches!(fact, Fact::Incidents { .. });
    let open = |severity| judge(&with(evidence(), same, incidents(&[("INC-2", severity)])));
    assert_go(&open(Severity::Minor));
    assert_refused(&open(Severity::Major), Rule::Incidents, Verdict::NoGo);
    assert_refused(&open(Severity::Critical), Rule::Incidents, Verdict::NoGo);
}

#[test]
fn incidents_are_escalated_to_a_named_owner_and_reported() {
    let policy = operations().policy().clone();
    let began = at("2026-11-10T10:00:00Z");
    let mut incident = Incident::open("INC-7", "sync <stalls>", Severity::Critical, began)
        .with_moment(at("2026-11-10T10:05:00Z"), "otto", "peers | dropped")
        .with_moment(began, "olga", "alert");
    let owner = |incident: &Incident, minutes| {
        let now = began
            .checked_add(jiff::SignedDuration::from_mins(minutes))
            .unwrap();
        incident.owner(&policy, now).unwrap().to_owned()
    };
    assert_eq!(
        [0, 14, 15, 60].map(|minutes| owner(&incident, minutes)),
        ["olga", "olga", "omar", "rita"]
    );
    assert_eq!(
        incident.next_escalation(&policy, began),
        Some(at("2026-11-10T10:15:00Z"))
    );
    incident.taken_by = Some("otto".into());
    assert_eq!(owner(&incident, 600), "otto");
    assert_eq!(incident.next_escalation(&policy, began), None);
    let report = incident
        .report(&policy, groundtackle_release_gate::REPORT_TEMPLATE, noon())
        .unwrap();
    assert!(
        report.starts_with("# INC-7: sync \\<stalls\\>\n"),
        "{report}"
    );
    let (alert, dropped) = (
        report.find("alert").unwrap(),
        report.find("peers \\| dropped").unwrap(),
    );
    assert!(
        alert < dropped && report.contains("Owner: otto"),
        "{report}"
    );
    let error = incident
        .report(&policy, "{{blame}}", noon())
        .unwrap_err()
        .to_string();
    assert!(error.contains("\"blame\""), "{error}");

    incident.hours = 12.5;
    let old = Incident::open("INC-1", "x", Severity::Critical, at("2026-09-01T00:00:00Z"));
    let facts: Vec<_> = incident_evidence(
        &policy,
        "log",
        &[incident, old],
        &[Severity::Critical].into(),
        noon(),
    )
    .into_iter()
    .map(|evidence| evidence.fact)
    .collect();
    let open = incidents(&[("INC-1", Severity::Critical), ("INC-7", Severity::Critical)]);
    assert_eq!(
        facts,
        [
            open,
            measure("escalations", 1.0),
            measure("incident-hours", 12.5)
        ]
    );
}

#[test]
fn a_rollback_is_never_stopped_by_a_freeze_and_is_counted() {
    let frozen = at("2026-12-20T03:00:00Z");
    let back = Request {
        action: Action::Rollback,
        takes: None,
        ..request()
    };
    let was_there = [Evidence::new(
        "test",
        noon(),
        deployment("production", true),
    )];
    let decision = operations().judge(&was_there, &back, frozen);
    assert_go(&decision);
    assert_eq!(
        decision.obligations,
        [Obligation::Count {
            budget: "rollbacks".into()
        }]
    );
    let out = operations().judge(&was_there, &request(), frozen);
    assert!(
        out.verdict != Verdict::Go
            && out
                .reasons
                .iter()
                .any(|reason| reason.rule == Rule::Freezes)
    );
    assert_refused(
        &operations().judge(&[], &back, frozen),
        Rule::Rollback,
        Verdict::Inconclusive,
    );
    let stranger = Request {
        actor: "ada".into(),
        ..back
    };
    assert_refused(
        &operations().judge(&was_there, &stranger, frozen),
        Rule::Actor,
        Verdict::NoGo,
    );
}

#[test]
fn critical_may_pass_a_freeze_with_two_people_and_a_reason() {
    let frozen = at("2026-12-20T03:00:00Z");
    let (gate, base) = moved(frozen);
    let judge = |fact: Fact, spent: f64| {
        let spent = Fact::Measure {
            name: "overrides".into(),
            value: spent,
            since: gate.policy().zone.quarter_of(frozen),
        };
        let more = [fact, spent].map(|fact| signed(Evidence::new("test", frozen, fact)));
        gate.judge(&[&base[..], &more].concat(), &request(), frozen)
    };
    let critical = || overridden(&["olga", "omar"], Severity::Critical, "outputs can be lost");
    let decision = judge(critical(), 1.0);
    assert_go(&decision);
    assert!(
        decision
            .passed
            .iter()
            .any(|passed| passed.reason.rule == Rule::Freezes)
    );
    let spent = Obligation::Count {
        budget: "overrides".into(),
    };
    let incident = Obligation::OpenIncident {
        incident: "INC-7".into(),
        severity: Severity::Critical,
        reason: "outputs can be lost".into(),
    };
    assert_eq!(decision.obligations, [incident, spent]);
    assert!(decision.good_until.unwrap() <= at("2026-12-20T07:00:00Z"));
    for (fact, spent) in [
        (overridden(&["olga"], Severity::Critical, "x"), 0.0),
        (overridden(&["olga", "ada"], Severity::Critical, "x"), 0.0),
        (overridden(&["olga", "omar"], Severity::Major, "x"), 0.0),
        (overridden(&["olga", "omar"], Severity::Critical, " "), 0.0),
        (critical(), 3.0),
    ] {
        let decision = judge(fact, spent);
        assert_eq!(decision.verdict, Verdict::Hold, "{:#?}", decision.reasons);
        assert!(
            decision
                .warnings
                .iter()
                .any(|warning| warning.contains("does not count")),
            "{:?}",
            decision.warnings
        );
    }
    // What is not known is passed by nobody.
    let more = [
        Evidence::new("test", frozen, critical()),
        Evidence::new("test", frozen, measure("overrides", 0.0)),
    ];
    let missing = without(base.clone(), |fact| matches!(fact, Fact::Backup { .. }));
    assert_eq!(
        gate.judge(&[&missing[..], &more].concat(), &request(), frozen)
            .verdict,
        Verdict::Inconclusive
    );
}

#[test]
fn waivers_end_on_a_date() {
    let mut policy = operations().policy().clone();
    policy.waivers.push(Waiver {
        rule: Rule::Platforms,
        subject: Some("linux/arm64".into()),
        environment: "production".into(),
        reason: "no builder".into(),
        by: "rita".into(),
        until: at("2026-11-10T11:30:00Z"),
    });
    let gate = Gate::new(policy).unwrap();
    let same = |fact: &Fact| matches!(fact, Fact::Artefact { .. });
    let evidence = with(evidence(), same, platforms(&["linux/amd64"]));
    let decision = gate.judge(&evidence, &request(), noon());
    assert_go(&decision);
    assert!(decision.passed[0].by.contains("rita"));
    assert_refused(
        &gate.judge(&evidence, &request(), at("2026-11-10T11:30:00Z")),
        Rule::Platforms,
        Verdict::NoGo,
    );
    let neither = with(evidence, same, platforms(&["linux/arm64"]));
    assert_refused(
        &gate.judge(&neither, &request(), noon()),
        Rule::Platforms,
        Verdict::NoGo,
    );
    let missing = without(neither, same);
    let decision = gate.judge(&missing, &request(), noon());
    assert_eq!(decision.verdict, Verdict::Inconclusive);
    assert!(decision.passed.is_empty());
}

#[test]
fn an_environment_that_is_not_in_the_policy_is_no_go() {
    assert_refused(
        &ask(|request| request.environment = "moon".into()),
        Rule::Environment,
        Verdict::NoGo,
    );
}

#[test]
fn all_reasons_are_given() {
    let rules: Vec<_> = operations()
        .judge(&[], &request(), at("2026-12-20T03:00:00Z"))
        .reasons
        .into_iter()
        .map(|r| r.rule)
        .collect();
    for rule in [
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
    ] {
        assert!(rules.contains(&rule), "{rule:?}");
    }
    assert!(rules.is_sorted());
}

#[test]
fn the_order_of_evidence_does_not_count_and_the_latest_does() {
    let mut evidence = evidence();
    let go = judge(&evidence);
    evidence.reverse();
    assert_eq!(judge(&evidence), go);
    let failed = Evidence::new(
        "test",
        at("2026-11-10T10:00:00Z"),
        Fact::Drill {
            name: "utxo".into(),
            passed: false,
        },
    );
    evidence.push(failed.clone());
    assert_refused(&judge(&evidence), Rule::Drills, Verdict::NoGo);
    // Two of the same instant that contradict each other: both count.
    evidence.push(Evidence {
        fact: Fact::Drill {
            name: "utxo".into(),
            passed: true,
        },
        ..failed
    });
    assert_refused(&judge(&evidence), Rule::Drills, Verdict::NoGo);
    assert_ne!(judge(&evidence).evidence, go.evidence);
}

#[test]
fn evidence_from_the_future_is_inconclusive() {
    let mut evidence = evidence();
    evidence[0].observed_at = at("2026-11-10T11:10:00Z");
    assert_refused(&judge(&evidence), Rule::Clock, Verdict::Inconclusive);
    assert_eq!(
        operations().when(&evidence, &request(), noon()),
        When::At(at("2026-11-10T11:10:00Z"))
    );
}
