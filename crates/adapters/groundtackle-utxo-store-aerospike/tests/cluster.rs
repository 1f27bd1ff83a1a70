//! The whole conformance kit against three nodes that keep two copies of each record.

mod common;

use std::sync::OnceLock;

use async_trait::async_trait;
use groundtackle_testkit_servers::{Aerospike, AerospikeOptions};
use groundtackle_utxo_store::Result;
use groundtackle_utxo_store_aerospike::AerospikeUtxoStore;
use groundtackle_utxo_store_testkit::Harness;

use common::{config, left_out, set, startable};

fn cluster() -> &'static Aerospike {
    static CLUSTER: OnceLock<Aerospike> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        Aerospike::start(&AerospikeOptions {
            nodes: 3,
            replication_factor: 2,
            ..AerospikeOptions::default()
        })
    })
}

struct ClusterHarness;

#[async_trait]
impl Harness for ClusterHarness {
    type Store = AerospikeUtxoStore;
    type Place = String;

    fn missing(&self) -> Option<String> {
        left_out(3).or_else(startable)
    }

    async fn place(&self) -> String {
        cluster().url(&set())
    }

    async fn open(&self, url: &String) -> Result<AerospikeUtxoStore> {
        AerospikeUtxoStore::open(config(url.clone()).with_min_replicas(2)).await
    }
}

groundtackle_utxo_store_testkit::conformance!(ClusterHarness);
