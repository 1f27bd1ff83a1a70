//! The whole conformance kit against a journaled store that keeps nothing.
#![allow(clippy::expect_used, reason = "a test asserts")]

use async_trait::async_trait;
use groundtackle_backup_utxo::Journaled;
use groundtackle_utxo_store::{MemoryUtxoStore, Result};
use groundtackle_utxo_store_testkit::Harness;
use tempfile::TempDir;

struct MemoryHarness;

#[async_trait]
impl Harness for MemoryHarness {
    type Store = Journaled<MemoryUtxoStore>;
    type Place = TempDir;

    async fn place(&self) -> TempDir {
        TempDir::new().expect("a temporary folder")
    }

    async fn open(&self, place: &TempDir) -> Result<Self::Store> {
        Journaled::open(MemoryUtxoStore::new(), place.path().join("journal")).await
    }
}

groundtackle_utxo_store_testkit::conformance!(MemoryHarness);
