//! The in-memory adapter is the specification; it keeps its own promises.

use async_trait::async_trait;
use groundtackle_utxo_store::{MemoryUtxoStore, Result};
use groundtackle_utxo_store_testkit::Harness;

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

groundtackle_utxo_store_testkit::conformance!(MemoryHarness);
