use groundtackle_health_check::Outcome;

use super::*;

fn config() -> PostgresCheckConfig {
    PostgresCheckConfig::default()
}

fn primary() -> Status {
    Status {
        slots: 100,
        used: 10,
        ..Status::default()
    }
}

fn streams() -> Status {
    Status {
        standby: true,
        read_only: true,
        receives: true,
        receiver: Some("streaming".into()),
        behind: behind(1000, 5.0),
        ..primary()
    }
}

fn behind(bytes: u64, seconds: f64) -> Behind {
    Behind {
        bytes: Some(bytes),
        seconds: Some(seconds),
    }
}

#[track_caller]
fn sees(config: &PostgresCheckConfig, status: &Status, outcome: Outcome, cause: &str) {
    let seen = judge(config, status);
    assert_eq!(
        (seen.outcome, seen.cause.as_str()),
        (outcome, cause),
        "{seen:?}"
    );
}

fn seconds(secs: u64) -> Option<Duration> {
    Some(Duration::from_secs(secs))
}

fn bytes(bytes: u64) -> Option<ByteSize> {
    Some(ByteSize::new(bytes))
}

#[test]
fn roles_and_writes_are_as_asked() {
    let wants = |role| config().with_role(Some(role));
    let writes = config().with_writable(true);
    let read_only = Status {
        read_only: true,
        ..primary()
    };
    for (config, status, cause) in [
        (config(), primary(), "ok"),
        (config(), streams(), "ok"),
        (config(), read_only.clone(), "ok"),
        (wants(Role::Primary), primary(), "ok"),
        (wants(Role::Primary), streams(), "wrong-role"),
        (wants(Role::Standby), streams(), "ok"),
        (wants(Role::Standby), primary(), "wrong-role"),
        (writes.clone(), primary(), "ok"),
        (writes.clone(), read_only, "read-only"),
        (writes, streams(), "read-only"),
    ] {
        let outcome = if cause == "ok" {
            Outcome::Pass
        } else {
            Outcome::Fail
        };
        sees(&config, &status, outcome, cause);
    }
}

#[test]
fn connections_count_against_those_that_anybody_may_have() {
    for (used, outcome) in [
        (79, Outcome::Pass),
        (80, Outcome::Warn),
        (94, Outcome::Warn),
        (95, Outcome::Fail),
        (103, Outcome::Fail),
    ] {
        let cause = if outcome == Outcome::Pass {
            "ok"
        } else {
            "connections"
        };
        sees(&config(), &Status { used, ..primary() }, outcome, cause);
    }
    // All are reserved.
    let none = Status {
        slots: 0,
        used: 0,
        ..primary()
    };
    sees(&config(), &none, Outcome::Fail, "connections");
}

#[test]
fn a_standby_must_stream_and_keep_up() {
    let with = |receives, receiver: Option<&str>| Status {
        receives,
        receiver: receiver.map(Into::into),
        ..streams()
    };
    for state in [None, Some("starting"), Some("stopping"), Some("waiting")] {
        let status = with(state.is_some(), state);
        sees(&config(), &status, Outcome::Fail, "not-streaming");
        let archive = config().with_must_stream(false);
        sees(&archive, &status, Outcome::Pass, "ok");
        let late = archive.with_fail_lag(seconds(4));
        sees(&late, &status, Outcome::Fail, "replication-lag");
    }
    sees(
        &config(),
        &with(true, None),
        Outcome::Unknown,
        "not-permitted",
    );
    for (config, outcome) in [
        (config().with_fail_lag(seconds(5)), Outcome::Pass),
        (config().with_fail_lag(seconds(4)), Outcome::Fail),
        (config().with_warn_lag(seconds(4)), Outcome::Warn),
        (config().with_fail_lag_bytes(bytes(1000)), Outcome::Pass),
        (config().with_fail_lag_bytes(bytes(999)), Outcome::Fail),
        (
            config()
                .with_warn_lag_bytes(bytes(999))
                .with_fail_lag(seconds(9)),
            Outcome::Warn,
        ),
    ] {
        let cause = if outcome == Outcome::Pass {
            "ok"
        } else {
            "replication-lag"
        };
        sees(&config, &streams(), outcome, cause);
        // The same of another's standby.
        let other = Status {
            streaming: 1,
            followers: streams().behind,
            ..primary()
        };
        sees(&config, &other, outcome, cause);
    }
}

#[test]
fn what_a_limit_needs_and_nobody_tells_is_unknown() {
    let silent = Status {
        behind: Behind {
            seconds: None,
            ..streams().behind
        },
        ..streams()
    };
    sees(&config(), &silent, Outcome::Pass, "ok");
    sees(
        &config().with_warn_lag(seconds(4)),
        &silent,
        Outcome::Unknown,
        "not-told",
    );
    sees(
        &config().with_fail_lag(seconds(4)),
        &silent,
        Outcome::Unknown,
        "not-told",
    );
    let both = config()
        .with_fail_lag(seconds(4))
        .with_fail_lag_bytes(bytes(1));
    sees(&both, &silent, Outcome::Fail, "replication-lag");
    let hidden = Status {
        hidden: 1,
        ..primary()
    };
    sees(&config(), &hidden, Outcome::Pass, "ok");
    for config in [
        config().with_warn_lag(seconds(4)),
        config().with_fail_lag_bytes(bytes(4)),
        config().with_warn_standbys_below(1),
    ] {
        sees(&config, &hidden, Outcome::Unknown, "not-permitted");
    }
}

#[test]
fn missing_standbys_are_told() {
    let one = Status {
        streaming: 1,
        followers: behind(0, 0.0),
        ..primary()
    };
    for (warn, fail, outcome) in [
        (1, 1, Outcome::Pass),
        (2, 1, Outcome::Warn),
        (2, 2, Outcome::Fail),
    ] {
        let config = config()
            .with_warn_standbys_below(warn)
            .with_fail_standbys_below(fail);
        let cause = if outcome == Outcome::Pass {
            "ok"
        } else {
            "standbys-missing"
        };
        sees(&config, &one, outcome, cause);
    }
    // None that could be behind.
    sees(
        &config().with_fail_lag(seconds(1)),
        &primary(),
        Outcome::Pass,
        "ok",
    );
}

#[test]
fn the_worst_counts_and_all_is_told() {
    let status = Status {
        used: 90,
        behind: behind(0, 100.0),
        ..streams()
    };
    let seen = judge(&config().with_fail_lag(seconds(10)), &status);
    assert_eq!(
        (seen.outcome, seen.cause.as_str()),
        (Outcome::Fail, "replication-lag")
    );
    let detail = seen.detail.unwrap_or_default();
    assert!(detail.contains("100.0 s; 90 of 100"), "{detail}");
}
