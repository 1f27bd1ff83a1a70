//! The target in memory shows what every other one does; it keeps its own promises.

use async_trait::async_trait;
use groundtackle_backup::{MemoryTarget, Result};
use groundtackle_backup_testkit::TargetHarness;

struct MemoryHarness;

#[async_trait]
impl TargetHarness for MemoryHarness {
    type Target = MemoryTarget;
    type Place = MemoryTarget;

    async fn place(&self) -> MemoryTarget {
        MemoryTarget::new()
    }

    async fn open(&self, place: &MemoryTarget) -> Result<MemoryTarget> {
        Ok(place.clone())
    }
}

groundtackle_backup_testkit::target_conformance!(MemoryHarness);
