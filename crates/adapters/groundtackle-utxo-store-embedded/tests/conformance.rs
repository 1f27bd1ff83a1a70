//! The whole conformance kit against the embedded adapter.
#![allow(clippy::expect_used, reason = "a test asserts")]

use async_trait::async_trait;
use groundtackle_core::ByteSize;
use groundtackle_utxo_store::Result;
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use groundtackle_utxo_store_testkit::Harness;
use tempfile::TempDir;

struct EmbeddedHarness;

#[async_trait]
impl Harness for EmbeddedHarness {
    type Store = EmbeddedUtxoStore;
    type Place = TempDir;

    async fn place(&self) -> TempDir {
        TempDir::new().expect("a temporary folder")
    }

    async fn open(&self, place: &TempDir) -> Result<EmbeddedUtxoStore> {
        let config = EmbeddedUtxoStoreConfig::default()
            .with_cache(ByteSize::mib(8))
            .with_min_free(ByteSize::mib(1));
        EmbeddedUtxoStore::open(place.path().join("store"), config)
    }
}

groundtackle_utxo_store_testkit::conformance!(EmbeddedHarness);
