//! A repository with real restore points of a tree of files, and real drills of them.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use groundtackle_backup::{
    BackUp, Clock, DataKey, Drill, DrillLevel, Drilled, HexBytes, KeyUnwrapping, KeyWrapping,
    Manifest, MemoryTarget, ObjectKey, Objectives, PutIf, Repository, Result, Share, SigningKey,
    SystemEntropy, Target, WrappedKey,
};
use groundtackle_backup_files::{FilesBackup, FilesConfig};
use groundtackle_backup_testkit::Faulty;
use groundtackle_release_gate_backup::{BackupEvidence, BackupEvidenceConfig, StreamRule};
use tempfile::TempDir;

/// As much as tests need.
#[derive(Debug)]
struct Open;

impl KeyWrapping for Open {
    fn wrap(&self, key: &DataKey) -> Result<WrappedKey> {
        Ok(WrappedKey {
            scheme: "test".into(),
            recipients: Vec::new(),
            blob: HexBytes(key.expose().to_vec()),
        })
    }
}

impl KeyUnwrapping for Open {
    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Option<DataKey>> {
        let key = wrapped.blob.0.clone().try_into().unwrap();
        Ok(Some(DataKey::from_bytes(key)))
    }
}

/// Goes on by an hour each time that it is set.
#[derive(Clone, Debug)]
struct Hours(Arc<AtomicU64>);

impl Clock for Hours {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(3600 * self.0.load(Ordering::Relaxed))
    }
}

/// The hour of 2026-11-10T00:00:00Z.
const BEGIN: u64 = 498_408;

pub(crate) struct Place {
    folder: TempDir,
    pub(crate) target: Arc<Faulty<MemoryTarget>>,
    repository: Repository,
    pub(crate) signer: SigningKey,
    clock: Hours,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let target = Arc::new(Faulty::new(MemoryTarget::new(), 1));
        let signer = SigningKey::random(&SystemEntropy).unwrap();
        let clock = Hours(Arc::new(AtomicU64::new(BEGIN)));
        let (time, entropy) = (Arc::new(clock.clone()), Arc::new(SystemEntropy));
        let made = Repository::init(target.clone(), "main", &signer, time, entropy);
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("wallet"), "what has to come back").unwrap();
        Self {
            folder,
            target,
            repository: made.await.unwrap(),
            signer,
            clock,
        }
    }

    /// From now on it is so many hours after midnight.
    pub(crate) fn at(&self, hour: u64) -> &Self {
        self.clock.0.store(BEGIN + hour, Ordering::Relaxed);
        self
    }

    pub(crate) async fn back_up(&self) -> Manifest {
        let how = BackUp {
            stream: "files",
            wrapping: &Open,
            signer: &self.signer,
            workers: 1,
        };
        let backup = FilesBackup::new(FilesConfig::new(self.folder.path())).unwrap();
        let made = backup.back_up(&self.repository, &how, true).await.unwrap();
        made.manifest
    }

    /// One that passes, or one whose objective can't be met.
    pub(crate) async fn drill(&self, level: DrillLevel, passes: bool) -> Drilled {
        let objectives = Objectives {
            recovery_point_age: (!passes).then_some(Duration::ZERO),
            ..Objectives::default()
        };
        let drill = Drill {
            level,
            objectives,
            keys: Some(&Open),
            ..Drill::new("files", &self.signer)
        };
        let drilled = self.repository.drill(drill).await.unwrap();
        assert_eq!(
            drilled.evidence.passed(),
            passes,
            "{:?}",
            drilled.evidence.drill.reasons
        );
        drilled
    }

    pub(crate) async fn drill_share(&self, share: Share) -> Drilled {
        let drill = Drill {
            level: DrillLevel::Read,
            share: Some(share),
            keys: Some(&Open),
            ..Drill::new("files", &self.signer)
        };
        let drilled = self.repository.drill(drill).await.unwrap();
        assert!(
            drilled.evidence.passed(),
            "{:?}",
            drilled.evidence.drill.reasons
        );
        drilled
    }

    pub(crate) fn source(&self, stream: StreamRule) -> BackupEvidence {
        let signers = vec![self.signer.public()];
        let config = BackupEvidenceConfig::new("main", signers, vec![stream]);
        BackupEvidence::new(self.target.clone(), config).unwrap()
    }

    /// As somebody would who may write to the target.
    pub(crate) async fn put(&self, key: &ObjectKey, body: Vec<u8>) {
        let _ = self.target.remove(key).await.unwrap();
        let put = self
            .target
            .put(key, body.into(), &PutIf::Absent, None)
            .await;
        put.unwrap().unwrap();
    }
}

/// A stream of files, whose drills read all there is.
pub(crate) fn files() -> StreamRule {
    let mut rule = StreamRule::new("files");
    rule.drill_level = DrillLevel::Read;
    rule
}
