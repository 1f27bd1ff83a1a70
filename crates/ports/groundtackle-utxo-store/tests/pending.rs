//! The store over cells in memory keeps all promises of a store: the whole kit.

use std::time::Duration;

use async_trait::async_trait;
use groundtackle_utxo_store::Result;
use groundtackle_utxo_store::pending::{MemoryCells, PendingConfig, PendingUtxoStore, StepFault};
use groundtackle_utxo_store_testkit::Harness;

struct PendingHarness;

fn config() -> PendingConfig {
    let mut config = PendingConfig::default();
    config.patience = Duration::from_millis(50);
    config
}

#[async_trait]
impl Harness for PendingHarness {
    type Store = PendingUtxoStore<MemoryCells>;
    type Place = MemoryCells;

    async fn place(&self) -> MemoryCells {
        MemoryCells::new()
    }

    async fn open(&self, place: &MemoryCells) -> Result<Self::Store> {
        // Every step is a chance for others.
        let cells = place.with_faults(|_| StepFault::Yield);
        Ok(PendingUtxoStore::new(cells, config()))
    }
}

groundtackle_utxo_store_testkit::conformance!(PendingHarness);
