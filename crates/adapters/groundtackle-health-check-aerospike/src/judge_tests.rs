use groundtackle_health_check::Outcome;

use super::*;

/// Of Aerospike 8.1, in part.
const GOOD: &str = "ns_cluster_size=2;effective_replication_factor=2;dead_partitions=0;unavailable_partitions=0;\
    clock_skew_stop_writes=false;stop_writes=false;data_used_pct=10;data_avail_pct=60;\
    migrate_tx_partitions_remaining=0;migrate_rx_partitions_remaining=0;replication-factor=2;\
    storage-engine.stop-writes-avail-pct=5;storage-engine.stop-writes-used-pct=70";

fn config() -> AerospikeCheckConfig {
    AerospikeCheckConfig::new([])
}

fn found(nodes: &[(&str, &str, &str)]) -> Found {
    let look = |(id, cluster, text): &(&str, &str, &str)| {
        let namespaces = [("test".to_owned(), (*text).to_owned())].into();
        let cluster = (*cluster).to_owned();
        let look = Look {
            cluster,
            namespaces,
        };
        ((*id).to_owned(), look)
    };
    Found {
        looks: nodes.iter().map(look).collect(),
        ..Found::default()
    }
}

#[track_caller]
fn sees(config: &AerospikeCheckConfig, found: &Found, outcome: Outcome, cause: &str) -> String {
    let seen = judge(config, found);
    assert_eq!(
        (seen.outcome, seen.cause.as_str()),
        (outcome, cause),
        "{seen:?}"
    );
    seen.detail.unwrap_or_default().to_string()
}

/// On the second node of two, with the first one well.
#[track_caller]
fn sees_one(config: &AerospikeCheckConfig, text: &str, outcome: Outcome, cause: &str) {
    let found = found(&[("A0", "51C9", GOOD), ("A1", "51C9", text)]);
    let detail = sees(config, &found, outcome, cause);
    assert_eq!(
        outcome != Outcome::Pass,
        detail.contains("node A1, namespace test:"),
        "{detail}"
    );
    assert!(!detail.contains("A0"), "{detail}");
}

#[test]
fn each_fault_of_any_node_has_its_cause() {
    sees_one(&config(), GOOD, Outcome::Pass, "ok");
    use Outcome::{Fail, Pass, Warn};
    for (name, is, outcome, cause) in [
        ("stop_writes", "true", Fail, "stop-writes"),
        ("clock_skew_stop_writes", "true", Fail, "clock-skew"),
        ("dead_partitions", "1", Fail, "partitions-missing"),
        ("unavailable_partitions", "1", Fail, "partitions-missing"),
        ("migrate_tx_partitions_remaining", "1", Warn, "migrating"),
        ("migrate_rx_partitions_remaining", "1", Warn, "migrating"),
        ("effective_replication_factor", "1", Warn, "few-copies"),
        ("data_used_pct", "55", Pass, "ok"),
        ("data_used_pct", "56", Warn, "space"),
        ("data_used_pct", "66", Warn, "space"),
        ("data_used_pct", "67", Fail, "space"),
        ("data_avail_pct", "10", Pass, "ok"),
        ("data_avail_pct", "9", Warn, "space"),
        // No limit: all of it is.
        ("storage-engine.stop-writes-used-pct", "0", Pass, "ok"),
        ("storage-engine.stop-writes-used-pct", "12", Warn, "space"),
        ("storage-engine.stop-writes-avail-pct", "0", Pass, "ok"),
    ] {
        let changed = changed(name, is);
        sees_one(&config(), &changed, outcome, cause);
    }
    // These are told only where there is a limit.
    for name in [
        "index_mounts_used_pct",
        "sindex_mounts_used_pct",
        "indexes_memory_used_pct",
    ] {
        sees_one(&config(), &format!("{GOOD};{name}=79"), Pass, "ok");
        sees_one(&config(), &format!("{GOOD};{name}=80"), Warn, "space");
        sees_one(&config(), &format!("{GOOD};{name}=95"), Fail, "space");
    }
    let copies = config().with_fail_copies_below(2);
    sees_one(
        &copies,
        &changed("effective_replication_factor", "1"),
        Fail,
        "few-copies",
    );
    sees_one(&copies, GOOD, Pass, "ok");
}

fn changed(name: &str, is: &str) -> String {
    let pairs = GOOD.split(';').map(|pair| match pair.split_once('=') {
        Some((key, _)) if key == name => format!("{key}={is}"),
        _ => pair.to_owned(),
    });
    let changed = pairs.collect::<Vec<_>>().join(";");
    assert!(changed != GOOD, "no node says {name}");
    changed
}

/// No fact that decides may be missing without notice.
#[test]
fn what_is_not_told_is_unknown() {
    for pair in GOOD.split(';') {
        let without: Vec<_> = GOOD.split(';').filter(|other| *other != pair).collect();
        let optional = ["ns_cluster_size", "data_avail_pct", "storage-engine"];
        if optional.iter().any(|name| pair.starts_with(name)) {
            sees_one(&config(), &without.join(";"), Outcome::Pass, "ok");
        } else {
            sees_one(&config(), &without.join(";"), Outcome::Unknown, "not-told");
        }
    }
    for text in ["", "stop_writes=perhaps", "\u{0};=;=="] {
        sees_one(&config(), text, Outcome::Unknown, "not-told");
    }
    for text in ["type=unknown", "ERROR:4:no namespace"] {
        sees_one(&config(), text, Outcome::Fail, "no-namespace");
    }
}

#[test]
fn missing_silent_and_unreachable_nodes_are_told() {
    let two = found(&[("A0", "51C9", GOOD), ("A1", "51C9", GOOD)]);
    for (warn, fail, outcome) in [
        (2, 2, Outcome::Pass),
        (3, 2, Outcome::Warn),
        (3, 3, Outcome::Fail),
    ] {
        let config = config()
            .with_warn_nodes_below(warn)
            .with_fail_nodes_below(fail);
        let cause = if outcome == Outcome::Pass {
            "ok"
        } else {
            "nodes-missing"
        };
        sees(&config, &two, outcome, cause);
    }
    let silent = Found {
        silent: vec!["10.0.0.9:3000: refused".into()],
        ..two.clone()
    };
    let detail = sees(&config(), &silent, Outcome::Warn, "address-silent");
    assert!(detail.contains("10.0.0.9"), "{detail}");
    let away = Found {
        unreachable: vec!["node A2: no answer".into()],
        ..silent
    };
    let detail = sees(&config(), &away, Outcome::Fail, "node-unreachable");
    assert_eq!(detail, "node A2: no answer; 10.0.0.9:3000: refused");
}

#[test]
fn nodes_of_different_clusters_are_told() {
    for (other, cause) in [
        ("77AA", "split-cluster"),
        ("ERROR:7:unstable cluster", "no-cluster"),
        ("", "no-cluster"),
    ] {
        let found = found(&[("A0", "51C9", GOOD), ("A1", other, GOOD)]);
        let detail = sees(&config(), &found, Outcome::Fail, cause);
        assert!(detail.contains("A1"), "{detail}");
    }
}
