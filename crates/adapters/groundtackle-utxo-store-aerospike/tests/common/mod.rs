//! One cluster for all tests of a process.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    reason = "each test uses what it needs, and asserts"
)]

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use groundtackle_core::RetryConfig;
use groundtackle_testkit_servers::{Aerospike, AerospikeOptions};
use groundtackle_utxo_store_aerospike::AerospikeUtxoStoreConfig;

/// Why there is nothing to test with.
pub fn missing() -> Option<String> {
    let missing = "no asd on the PATH, and no GROUNDTACKLE_TEST_AEROSPIKE";
    (!Aerospike::is_there()).then(|| missing.to_owned())
}

/// The whole kit takes ten minutes on one node, and as long on three: `GROUNDTACKLE_TEST_AEROSPIKE_NODES`, if it is set, says
/// on how many it is to run (`1,3`). Faults, chaos and splits always run.
pub fn left_out(nodes: u32) -> Option<String> {
    let wanted = std::env::var("GROUNDTACKLE_TEST_AEROSPIKE_NODES").ok()?;
    let nodes = nodes.to_string();
    let runs = wanted.split(',').any(|wanted| wanted.trim() == nodes);
    (!runs).then(|| format!("GROUNDTACKLE_TEST_AEROSPIKE_NODES is {wanted:?}, without {nodes}"))
}

/// Why no cluster can be started.
pub fn startable() -> Option<String> {
    (!Aerospike::can_be_started()).then(|| "no asd on the PATH".to_owned())
}

/// Whether a test has to be left out; said past the test runner's capture.
pub fn skipped(name: &str, reason: Option<String>) -> bool {
    if let Some(reason) = &reason {
        writeln!(
            std::io::stderr(),
            "skipped: {name}: {reason} (NOTHING WAS TESTED)"
        )
        .expect("standard error is open");
    }
    reason.is_some()
}

/// One node.
pub fn node() -> &'static Aerospike {
    static NODE: OnceLock<Aerospike> = OnceLock::new();
    NODE.get_or_init(|| Aerospike::find_or_start(&AerospikeOptions::default()))
}

/// A set of its own, also beside other runs on a cluster that is there already.
pub fn set() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("case-{}-{next}", std::process::id())
}

/// A store that asks for one copy of each record.
pub fn config(url: String) -> AerospikeUtxoStoreConfig {
    AerospikeUtxoStoreConfig::new(url)
        .with_min_replicas(1)
        .with_patience(Duration::from_millis(200))
        .with_max_batch_items(4_096)
        .with_retry(
            RetryConfig::default()
                .with_max_attempts(20)
                .with_max_elapsed(Duration::from_secs(60)),
        )
}

/// A store that outlasts what a killed node takes to be missed.
pub fn patient(url: String) -> AerospikeUtxoStoreConfig {
    let config = config(url)
        .with_min_replicas(2)
        .with_answer_timeout(Duration::from_secs(2));
    let retry = config.retry.clone();
    config.with_retry(
        retry
            .with_max_attempts(200)
            .with_max_delay(Duration::from_millis(200))
            .with_max_elapsed(Duration::from_secs(60)),
    )
}

pub fn own(nodes: usize, replication_factor: u32) -> Aerospike {
    Aerospike::start(&AerospikeOptions {
        nodes,
        replication_factor,
        data_mib: 512,
        ..AerospikeOptions::default()
    })
}

/// Changes a setting of every node.
pub fn set_config(cluster: &Aerospike, nodes: usize, context: &str, setting: &str) {
    for node in 0..nodes {
        let command = format!("set-config:context={context};{setting}");
        let answer = cluster.info(node, &command).unwrap_or_default();
        assert!(answer.contains("ok"), "{command}: {answer}");
    }
}
