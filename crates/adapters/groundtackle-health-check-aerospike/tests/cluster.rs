//! Real nodes that are stopped, hung, started again, full, cut off, and short of copies.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test asserts")]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use groundtackle_health_check::{
    Check, Health, Name, Observation, Outcome, Schedule, Scheduler, Settings,
};
use groundtackle_health_check_aerospike::{AerospikeCheck, AerospikeCheckConfig};
use groundtackle_health_check_client::Endpoint;
use groundtackle_health_check_testkit::{CheckHarness, State};
use groundtackle_testkit_servers::{Aerospike, AerospikeOptions};

const PERIOD: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(2);

/// What a busy machine may take beside.
const SLACK: Duration = Duration::from_secs(3);

/// A cluster of so many nodes, or that there is none.
fn start(test: &str, options: &AerospikeOptions) -> Option<Aerospike> {
    if Aerospike::can_be_started() {
        return Some(Aerospike::start(options));
    }
    writeln!(
        std::io::stderr(),
        "skipped: {test}: there is no asd on the PATH"
    )
    .expect("standard error is open");
    None
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

/// Looks until it is so, at most two minutes.
async fn becomes(config: AerospikeCheckConfig, outcome: Outcome, cause: &str) -> String {
    let check = AerospikeCheck::from(config);
    let begun = Instant::now();
    loop {
        let seen = check.check().await;
        if (seen.outcome, seen.cause.as_str()) == (outcome, cause) {
            return seen.detail.unwrap_or_default().to_string();
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn set(cluster: &Aerospike, node: usize, setting: &str) {
    let command = format!("set-config:context=namespace;namespace=test;{setting}");
    let answer = cluster.info(node, &command).unwrap();
    assert!(answer.contains("\tok"), "{answer}");
}

struct One(Mutex<(Option<Aerospike>, bool)>);

impl One {
    fn new() -> Self {
        Self(Mutex::new((start("conformance", &nodes(1)), true)))
    }
}

/// For machines without a server: the cases that need one are skipped.
#[derive(Debug)]
struct NoServer;

#[async_trait]
impl Check for NoServer {
    async fn check(&self) -> Observation {
        Observation::pass()
    }
}

#[async_trait]
impl CheckHarness for One {
    async fn check(&self) -> Arc<dyn Check> {
        match &self.0.lock().unwrap().0 {
            Some(cluster) => {
                let config = AerospikeCheckConfig::new(addresses(cluster, [0]));
                Arc::new(AerospikeCheck::from(config))
            }
            None => Arc::new(NoServer),
        }
    }

    async fn make(&self, state: State) -> bool {
        let (Some(cluster), runs) = &mut *self.0.lock().unwrap() else {
            return false;
        };
        cluster.thaw(0);
        match (state, *runs) {
            (State::Broken, true) => cluster.kill(0),
            (State::Working | State::Silent, false) => cluster.restart(0),
            _ => {}
        }
        if state == State::Silent {
            cluster.freeze(0);
        }
        *runs = state != State::Broken;
        true
    }
}

groundtackle_health_check_testkit::check_conformance!(One::new());

/// Waits until it reads so; what is not so within a period and a timeout is too late.
async fn until(health: &Health, outcome: Outcome, cause: &str) {
    let begun = Instant::now();
    loop {
        let view = health.view();
        let reading = view.reading("aerospike").unwrap();
        if (reading.outcome, reading.cause.as_str()) == (outcome, cause) {
            return;
        }
        let late = PERIOD.mul_f64(1.1) + TIMEOUT + SLACK;
        assert!(
            begun.elapsed() < late,
            "no {outcome} ({cause}): {reading:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_single_node_is_seen_in_time_and_passes() {
    let Some(mut cluster) = start("a single node", &nodes(1)) else {
        return;
    };
    let config = AerospikeCheckConfig::new(addresses(&cluster, [0]));
    let schedule = Schedule::default()
        .with_period(PERIOD)
        .with_timeout(TIMEOUT)
        .with_failures_to_down(1)
        .with_successes_to_up(1);
    let settings = Settings::default().with_schedule(schedule);
    let health = Health::builder()
        .readiness(
            Name::try_from("aerospike").unwrap(),
            settings,
            AerospikeCheck::from(config),
        )
        .build()
        .unwrap();
    let scheduler = Scheduler::start(&health);
    until(&health, Outcome::Pass, "ok").await;
    cluster.freeze(0);
    until(&health, Outcome::Fail, "timeout").await;
    cluster.thaw(0);
    until(&health, Outcome::Pass, "ok").await;
    cluster.kill(0);
    until(&health, Outcome::Fail, "refused").await;
    cluster.restart(0);
    cluster.settled(1);
    until(&health, Outcome::Pass, "ok").await;
    // The machine has more than one hundredth of its memory in use.
    set(&cluster, 0, "stop-writes-sys-memory-pct=1");
    until_within(&health, Outcome::Fail, "stop-writes").await;
    set(&cluster, 0, "stop-writes-sys-memory-pct=90");
    until_within(&health, Outcome::Pass, "ok").await;
    scheduler.stop().await.unwrap();
}

/// The node itself looks at its limits each ten seconds.
async fn until_within(health: &Health, outcome: Outcome, cause: &str) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        let view = health.view();
        let reading = view.reading("aerospike").unwrap();
        if (reading.outcome, reading.cause.as_str()) == (outcome, cause) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until(health, outcome, cause).await;
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
        writeln!(
            std::io::stderr(),
            "skipped: nodes apart: namespaces of networks take root"
        )
        .expect("standard error is open");
        return;
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
