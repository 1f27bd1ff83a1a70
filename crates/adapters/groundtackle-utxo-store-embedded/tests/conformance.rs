//! The whole conformance kit against the embedded adapter.
#![allow(clippy::expect_used, reason = "a test asserts")]

use std::path::{Path, PathBuf};

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
        open(&path(place))
    }

    fn address(&self, place: &TempDir) -> Option<String> {
        Some(path(place).to_str()?.to_owned())
    }

    async fn open_at(&self, address: &str) -> Result<EmbeddedUtxoStore> {
        open(address.as_ref())
    }

    fn write_points(&self) -> &'static [&'static str] {
        &[
            "embedded.create.header",
            "embedded.create.engine",
            "embedded.create.tip",
            "embedded.commit.drawn",
            "embedded.commit.done",
        ]
    }
}

fn path(place: &TempDir) -> PathBuf {
    place.path().join("store")
}

fn open(path: &Path) -> Result<EmbeddedUtxoStore> {
    let config = EmbeddedUtxoStoreConfig::default()
        .with_cache(ByteSize::mib(8))
        .with_min_free(ByteSize::mib(1));
    EmbeddedUtxoStore::open(path, config)
}

groundtackle_utxo_store_testkit::conformance!(EmbeddedHarness);
