//! The generator reaches what it is there for.

use async_trait::async_trait;
use groundtackle_utxo_store::{MemoryUtxoStore, Result};
use groundtackle_utxo_store_testkit::Harness;
use groundtackle_utxo_store_testkit::differential::Differential;

struct MemoryHarness;

#[async_trait]
impl Harness for MemoryHarness {
    type Store = MemoryUtxoStore;
    type Place = ();

    async fn place(&self) {}

    async fn open(&self, _place: &()) -> Result<MemoryUtxoStore> {
        Ok(MemoryUtxoStore::new())
    }
}

#[test]
fn sequences_reach_every_verdict() {
    let coverage = Differential::new().with(MemoryHarness).run();
    println!("{coverage}");
}
