//! The whole conformance kit against the filesystem adapter.
#![allow(clippy::expect_used, reason = "a test asserts")]

use async_trait::async_trait;
use groundtackle_backup::Result;
use groundtackle_backup_fs::{FsTarget, FsTargetConfig};
use groundtackle_backup_testkit::TargetHarness;
use tempfile::TempDir;

struct FsHarness;

#[async_trait]
impl TargetHarness for FsHarness {
    type Target = FsTarget;
    type Place = TempDir;

    async fn place(&self) -> TempDir {
        TempDir::new().expect("a temporary folder")
    }

    async fn open(&self, place: &TempDir) -> Result<FsTarget> {
        FsTarget::open(place.path().join("deep/backups"), FsTargetConfig::default()).await
    }
}

groundtackle_backup_testkit::target_conformance!(FsHarness);
