//! The whole conformance kit against a journaled embedded store, with a death at each step of the journal.
#![allow(clippy::expect_used, reason = "a test asserts")]

use std::path::Path;

use async_trait::async_trait;
use groundtackle_backup_utxo::Journaled;
use groundtackle_core::ByteSize;
use groundtackle_utxo_store::Result;
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use groundtackle_utxo_store_testkit::Harness;
use tempfile::TempDir;

struct EmbeddedHarness;

#[async_trait]
impl Harness for EmbeddedHarness {
    type Store = Journaled<EmbeddedUtxoStore>;
    type Place = TempDir;

    async fn place(&self) -> TempDir {
        TempDir::new().expect("a temporary folder")
    }

    async fn open(&self, place: &TempDir) -> Result<Self::Store> {
        open(place.path()).await
    }

    fn address(&self, place: &TempDir) -> Option<String> {
        Some(place.path().to_str()?.to_owned())
    }

    async fn open_at(&self, address: &str) -> Result<Self::Store> {
        open(address.as_ref()).await
    }

    fn write_points(&self) -> &'static [&'static str] {
        &[
            "journal.intent.written",
            "journal.intent.done",
            "journal.connected",
            "journal.delta.written",
            "journal.delta.done",
            "journal.intent.removed",
            "journal.epoch.written",
            "journal.epoch.done",
        ]
    }
}

async fn open(folder: &Path) -> Result<Journaled<EmbeddedUtxoStore>> {
    let config = EmbeddedUtxoStoreConfig::default()
        .with_cache(ByteSize::mib(8))
        .with_min_free(ByteSize::mib(1));
    let store = EmbeddedUtxoStore::open(folder.join("store"), config)?;
    Journaled::open(store, folder.join("journal")).await
}

groundtackle_utxo_store_testkit::conformance!(EmbeddedHarness);
