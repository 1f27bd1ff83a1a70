//! The store over cells in memory keeps all promises of a store: the whole kit.

use std::time::Duration;

use async_trait::async_trait;
use groundtackle_utxo_store::Result;
use groundtackle_utxo_store::pending::{
    CellKey, MemoryCells, PendingConfig, PendingUtxoStore, StepFault,
};
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

/// Answers get lost and steps fail all the time: all is repeated, and nothing shows.
mod lossy {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    struct LossyHarness;

    #[async_trait]
    impl Harness for LossyHarness {
        type Store = PendingUtxoStore<MemoryCells>;
        type Place = MemoryCells;

        async fn place(&self) -> MemoryCells {
            MemoryCells::new()
        }

        async fn open(&self, place: &MemoryCells) -> Result<Self::Store> {
            let steps = AtomicU64::new(1);
            let cells = place.with_faults(move |key| {
                if matches!(key, CellKey::Page { page: 1.., .. }) {
                    // Thousands in one call, each of which would begin the call anew.
                    return StepFault::None;
                }
                match steps.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed) >> 32 & 0x3ff {
                    0 => StepFault::NotSent,
                    1 => StepFault::AnswerLost,
                    2..64 => StepFault::Yield,
                    _ => StepFault::None,
                }
            });
            let mut config = config();
            config.retry = config
                .retry
                .with_max_attempts(1_000)
                .with_initial_delay(Duration::from_micros(1))
                .with_max_delay(Duration::from_micros(2))
                .with_max_elapsed(Duration::from_secs(60));
            Ok(PendingUtxoStore::new(cells, config))
        }
    }

    groundtackle_utxo_store_testkit::conformance!(LossyHarness);
}
