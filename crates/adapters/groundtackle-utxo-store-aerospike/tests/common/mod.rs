//! One cluster for all tests of a process.
#![allow(dead_code, unreachable_pub, reason = "each test uses what it needs")]

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
