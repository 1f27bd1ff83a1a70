//! When drills are due, and what is told of those that were held.

use super::*;

/// One that was held then.
fn held(evidence: &Evidence, started: u64, level: DrillLevel, outcome: DrillOutcome) -> Evidence {
    let mut evidence = evidence.clone();
    evidence.drill.started_unix_millis = started;
    (evidence.drill.level, evidence.drill.outcome) = (level, outcome);
    evidence
}

#[tokio::test]
async fn a_schedule_says_what_is_due() {
    use DrillLevel::{Load, Read, Replay};
    use DrillOutcome::{Failed, Missed, Passed};
    let place = Place::filled().await;
    let some = place.holds(DrillLevel::Chain, |_| ()).await;
    let schedule = DrillSchedule {
        every: Duration::from_secs(100),
        level: Replay,
    };
    let not_yet = |until: u64| Due::NotYet { until: at(until) };
    let missed = |since: u64| Due::Missed { since: at(since) };
    // Seconds here, and in the answer.
    type Held<'a> = &'a [(u64, DrillLevel, DrillOutcome)];
    let table: [(Held<'_>, u64, Due); 13] = [
        (&[], 1_000, Due::Now),
        (&[(500, Replay, Passed)], 500, not_yet(600_000)),
        (&[(500, Replay, Passed)], 599, not_yet(600_000)),
        (&[(500, Replay, Passed)], 600, Due::Now),
        (&[(500, Replay, Passed)], 699, Due::Now),
        (&[(500, Replay, Passed)], 700, missed(600_000)),
        (&[(500, Load, Failed)], 599, not_yet(600_000)),
        // Not as far, not held, not yet.
        (
            &[(500, Replay, Passed), (650, Read, Passed)],
            700,
            missed(600_000),
        ),
        (
            &[(500, Replay, Passed), (650, Replay, Missed)],
            700,
            missed(600_000),
        ),
        (
            &[(500, Replay, Passed), (701, Replay, Passed)],
            700,
            missed(600_000),
        ),
        (&[(701, Replay, Passed)], 700, Due::Now),
        (
            &[(650, Replay, Passed), (500, Replay, Passed)],
            700,
            not_yet(750_000),
        ),
        (&[(500, Replay, Passed)], 1_000_000, missed(600_000)),
    ];
    for (drills, now, wanted) in table {
        let drills: Vec<_> = drills
            .iter()
            .map(|(started, level, outcome)| held(&some, started * 1_000, *level, *outcome))
            .collect();
        let due = schedule.due("set", &drills, at(now * 1_000));
        assert_eq!(due, wanted, "{now}");
        assert_eq!(schedule.due("other", &drills, at(now * 1_000)), Due::Now);
    }
    let never = DrillSchedule {
        every: Duration::ZERO,
        level: Replay,
    };
    let drills = [held(&some, 5, Replay, Passed)];
    assert_eq!(never.due("set", &drills, at(5)), not_yet(6));
}

/// By any number of hosts, at any times: once for each whole period without a drill.
#[tokio::test]
async fn what_was_missed_is_written_down_once() {
    let place = Place::filled().await;
    let schedule = DrillSchedule {
        every: Duration::from_secs(10),
        level: DrillLevel::Read,
    };
    let signer = &place.signer;
    let notice = || place.repository.record_missed("set", &schedule, signer);
    // There was none ever.
    place.clock.set(1_000_000);
    assert_eq!(notice().await.unwrap(), None);
    assert!(place.holds(DrillLevel::Read, |_| ()).await.passed());
    let mut written = Vec::new();
    for second in 1_000..1_065 {
        place.clock.set(second * 1_000);
        for _ in 0..2 {
            written.extend(notice().await.unwrap());
        }
    }
    let times: Vec<_> = written
        .iter()
        .map(|evidence| {
            let drill = &evidence.drill;
            assert_eq!(drill.outcome, DrillOutcome::Missed);
            assert_eq!((drill.level, drill.scheduled), (schedule.level, true));
            (drill.started_unix_millis, drill.finished_unix_millis)
        })
        .collect();
    let period = |n: u64| (1_000_000 + n * 10_000, 1_010_000 + n * 10_000);
    assert_eq!(times, (1..=5).map(period).collect::<Vec<_>>());
    assert_eq!(place.kept().await.len(), 6);
    // Held again: nothing is missed for a period.
    assert!(place.holds(DrillLevel::Replay, |_| ()).await.passed());
    place.clock.set(1_083_000);
    assert_eq!(notice().await.unwrap(), None);
    place.clock.set(1_084_000);
    assert!(notice().await.unwrap().is_some());

    let stranger = SigningKey::random(&SystemEntropy).unwrap();
    let refused = place.repository.record_missed("set", &schedule, &stranger);
    assert!(refused.await.is_err());
}

#[tokio::test]
async fn figures_tell_the_last_good_ones() {
    let none = Figures::of("set", &[], &[]);
    assert_eq!(none, Figures::default());
    assert_eq!(none.exposition("set"), "");
    let place = Place::filled().await;
    place.clock.set(6_000);
    let mut slow = Ground::new();
    slow.slow = Some((place.clock.clone(), 7_500));
    let good = place.drill(DrillLevel::Load, &mut slow, |_| ()).await;
    assert!(good.unwrap().evidence.passed());
    place.clock.set(9_000);
    place.flip(&place.objects("packs/").await[0]).await;
    let objectives = Objectives {
        recovery_time: Some(Duration::from_secs(9)),
        ..Objectives::default()
    };
    let bad = place
        .holds(DrillLevel::Replay, |drill| drill.objectives = objectives)
        .await;
    assert!(!bad.passed());
    let points = place.repository.points().await.unwrap().usable;
    let figures = Figures::of("set", &points, &place.kept().await);
    assert_eq!(figures.last_backup_unix_millis, Some(2_000));
    assert_eq!(figures.last_backup_height, Some(20));
    assert_eq!(figures.last_drill_unix_millis, Some(9_000));
    assert_eq!(figures.last_drill_outcome, Some(DrillOutcome::Failed));
    assert_eq!(figures.last_good_drill_unix_millis, Some(7_500));
    assert_eq!(figures.last_good_drill_level, Some(DrillLevel::Load));
    assert_eq!(figures.last_good_drill_height, Some(20));
    assert_eq!(figures.last_recovery_millis, Some(1_500));
    assert_eq!(figures.objectives_met, Some(false));
    let text = figures.exposition("a \"set\"\n");
    for line in [
        r#"groundtackle_backup_last_timestamp_seconds{stream="a \"set\"\n"} 2"#,
        r#"groundtackle_drill_last_good_timestamp_seconds{stream="a \"set\"\n"} 7.5"#,
        r#"groundtackle_drill_last_passed{stream="a \"set\"\n"} 0"#,
        r#"groundtackle_drill_objectives_met{stream="a \"set\"\n"} 0"#,
    ] {
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
}
