//! Real nodes that are stopped, hung, started again, full, cut off, and short of copies.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test asserts")]

use std::sync::Arc;
use std::time::Duration;

use groundtackle_health_check::{Check, Outcome};
use groundtackle_health_check_aerospike::{AerospikeCheck, AerospikeCheckConfig};
use groundtackle_health_check_client::Endpoint;
use groundtackle_health_check_testkit::{Faults, ServerHarness, Watched, skipped};
use groundtackle_testkit_servers::{Aerospike, AerospikeOptions};

const PERIOD: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(2);

/// Of its first node.
const FAULTS: Faults<Aerospike> = Faults {
    stop: |cluster| cluster.kill(0),
    start: |cluster| cluster.restart(0),
    hang: |cluster| cluster.freeze(0),
    resume: |cluster| cluster.thaw(0),
};

/// A cluster, or why there is none.
fn cluster(options: &AerospikeOptions) -> Result<Aerospike, String> {
    match Aerospike::can_be_started() {
        true => Ok(Aerospike::start(options)),
        false => Err("there is no asd on the PATH".into()),
    }
}

fn start(test: &str, options: &AerospikeOptions) -> Option<Aerospike> {
    cluster(options).map_err(|why| skipped(test, &why)).ok()
}

fn nodes(nodes: usize) -> AerospikeOptions {
    AerospikeOptions {
        nodes,
        replication_factor: if nodes == 1 { 1 } else { 2 },
        data_mib: 512,
        ..AerospikeOptions::default()
    }
}

/// The addresses of some nodes.
fn addresses(cluster: &Aerospike, of: impl IntoIterator<Item = usize>) -> Vec<Endpoint> {
    let url = cluster.url_at(of, "set");
    let hosts = url.strip_prefix("aerospike://").unwrap();
    let hosts = hosts.split('/').next().unwrap();
    hosts.split(',').map(|host| host.parse().unwrap()).collect()
}

/// Looks until it is so.
async fn becomes(config: AerospikeCheckConfig, outcome: Outcome, cause: &str) -> String {
    let check = AerospikeCheck::from(config);
    let seen = groundtackle_health_check_testkit::becomes(&check, outcome, cause).await;
    seen.detail.unwrap_or_default().to_string()
}

fn set(cluster: &Aerospike, node: usize, setting: &str) {
    let command = format!("set-config:context=namespace;namespace=test;{setting}");
    let answer = cluster.info(node, &command).unwrap();
    assert!(answer.contains("\tok"), "{answer}");
}

fn one() -> ServerHarness<Aerospike> {
    let check = |cluster: &Aerospike| -> Arc<dyn Check> {
        let config = AerospikeCheckConfig::new(addresses(cluster, [0]));
        Arc::new(AerospikeCheck::from(config))
    };
    ServerHarness::new(cluster(&nodes(1)), FAULTS, check)
}

groundtackle_health_check_testkit::check_conformance!(one());

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_single_node_is_seen_in_time_and_passes() {
    let Some(mut cluster) = start("a single node", &nodes(1)) else {
        return;
    };
    let config = AerospikeCheckConfig::new(addresses(&cluster, [0]));
    let watched = Watched::start(AerospikeCheck::from(config), PERIOD, TIMEOUT);
    watched.rounds(&mut cluster, &FAULTS, "refused").await;
    cluster.settled(1);
    watched.until(Outcome::Pass, "ok").await;
    // The node itself looks at its limits each ten seconds.
    let looks = Duration::from_secs(60);
    // The machine has more than one hundredth of its memory in use.
    set(&cluster, 0, "stop-writes-sys-memory-pct=1");
    watched
        .until_within(looks, Outcome::Fail, "stop-writes")
        .await;
    set(&cluster, 0, "stop-writes-sys-memory-pct=90");
    watched.until_within(looks, Outcome::Pass, "ok").await;
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_of_three_is_looked_at() {
    let Some(mut cluster) = start("three nodes", &nodes(3)) else {
        return;
    };
    // One leads to the others.
    let by_one = || AerospikeCheckConfig::new(addresses(&cluster, [0]));
    let three = by_one().with_fail_nodes_below(3);
    assert_eq!(becomes(three.clone(), Outcome::Pass, "ok").await, "");
    let four = by_one().with_warn_nodes_below(4);
    becomes(four, Outcome::Warn, "nodes-missing").await;
    let nothing = by_one().with_namespaces(vec!["nothing".into()]);
    let detail = becomes(nothing, Outcome::Fail, "no-namespace").await;
    assert_eq!(detail.matches("namespace nothing").count(), 3, "{detail}");
    let copies = by_one().with_fail_copies_below(3);
    becomes(copies, Outcome::Fail, "few-copies").await;

    // One that is not asked first refuses writes, and no other knows.
    set(&cluster, 2, "stop-writes-sys-memory-pct=1");
    let detail = becomes(three.clone(), Outcome::Fail, "stop-writes").await;
    assert!(detail.starts_with("node A2, namespace test:"), "{detail}");
    assert_eq!(detail.matches("namespace test").count(), 1, "{detail}");
    set(&cluster, 2, "stop-writes-sys-memory-pct=90");
    becomes(three.clone(), Outcome::Pass, "ok").await;

    // One that hangs is missed; of the others all is told.
    let all = AerospikeCheckConfig::new(addresses(&cluster, 0..3));
    cluster.freeze(2);
    becomes(three.clone(), Outcome::Fail, "nodes-missing").await;
    becomes(
        all.clone().with_warn_nodes_below(3),
        Outcome::Warn,
        "address-silent",
    )
    .await;
    cluster.thaw(2);
    cluster.settled(3);
    becomes(three.clone(), Outcome::Pass, "ok").await;
    becomes(all.clone(), Outcome::Pass, "ok").await;

    // Two that are gone, by kill -9: the one that is left is too few for min-cluster-size.
    cluster.kill(1);
    becomes(three.clone(), Outcome::Fail, "nodes-missing").await;
    cluster.kill(2);
    becomes(all.clone(), Outcome::Fail, "no-cluster").await;
    cluster.restart(1);
    cluster.restart(2);
    cluster.settled(3);
    becomes(three, Outcome::Pass, "ok").await;
    becomes(all, Outcome::Pass, "ok").await;
}

/// The others reach it, and its part of the data is not to be had from here.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_reached_by_the_others_alone_is_told() {
    if !Aerospike::can_be_apart() {
        return skipped("nodes apart", "namespaces of networks take root");
    }
    let apart = AerospikeOptions {
        apart: true,
        ..nodes(3)
    };
    let Some(cluster) = start("nodes apart", &apart) else {
        return;
    };
    let config = AerospikeCheckConfig::new(addresses(&cluster, [0]));
    becomes(config.clone(), Outcome::Pass, "ok").await;
    cluster.hide(2, true);
    let detail = becomes(config.clone(), Outcome::Fail, "node-unreachable").await;
    assert!(detail.contains("node A2:"), "{detail}");
    cluster.hide(2, false);
    becomes(config.clone(), Outcome::Pass, "ok").await;

    // Cut off from the others, and seen from here: parts that don't know of each other.
    let all = AerospikeCheckConfig::new(addresses(&cluster, 0..3));
    cluster.part(2, true);
    becomes(all.clone(), Outcome::Fail, "no-cluster").await;
    cluster.part(2, false);
    becomes(all, Outcome::Pass, "ok").await;
}

#[test]
fn a_config_that_cannot_be_used_is_refused_at_its_line() {
    let read = |text: &str| toml::from_str::<AerospikeCheckConfig>(text);
    let text = "addresses = ['a:3000', '[::1]:3000']\nnamespaces = ['utxo']\nwarn_nodes_below = 3";
    let addresses = ["a:3000", "[::1]:3000"].map(|address| address.parse().unwrap());
    let same = AerospikeCheckConfig::new(addresses)
        .with_namespaces(vec!["utxo".into()])
        .with_warn_nodes_below(3);
    assert_eq!(read(text).unwrap(), same);
    for (text, says) in [
        ("warn_nodes_below = 1", "addresses"),
        ("warn_nodes_below = 1\naddresses = []", "line 2"),
        ("addresses = ['a']", "host and port"),
        ("addresses = ['a:1']\nnonsense = 1", "nonsense"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}
