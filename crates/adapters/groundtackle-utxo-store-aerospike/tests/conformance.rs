//! The whole conformance kit against a real server.

mod common;

use async_trait::async_trait;
use groundtackle_utxo_store::Result;
use groundtackle_utxo_store::pending::WRITE_POINTS;
use groundtackle_utxo_store_aerospike::AerospikeUtxoStore;
use groundtackle_utxo_store_testkit::Harness;

use common::{config, left_out, missing, node, set};

struct AerospikeHarness;

#[async_trait]
impl Harness for AerospikeHarness {
    type Store = AerospikeUtxoStore;
    type Place = String;

    fn missing(&self) -> Option<String> {
        left_out(1).or_else(missing)
    }

    fn write_points(&self) -> &'static [&'static str] {
        WRITE_POINTS
    }

    async fn place(&self) -> String {
        node().url(&set())
    }

    async fn open(&self, url: &String) -> Result<AerospikeUtxoStore> {
        AerospikeUtxoStore::open(config(url.clone())).await
    }

    fn address(&self, url: &String) -> Option<String> {
        Some(url.clone())
    }

    async fn open_at(&self, address: &str) -> Result<AerospikeUtxoStore> {
        AerospikeUtxoStore::open(config(address.to_owned())).await
    }
}

groundtackle_utxo_store_testkit::conformance!(AerospikeHarness);
