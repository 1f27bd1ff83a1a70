//! Real backups and drills of a store, on targets that work, fail, hang, and are told wrong things.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use groundtackle_backup::{
    BackUp, Clock, DataKey, Drill, DrillLevel, DrillSchedule, Evidence, Hex, HexBytes,
    KeyUnwrapping, KeyWrapping, MemoryTarget, ObjectKey, Objectives, PutIf, Repository, Result,
    Share, SigningKey, SystemEntropy, Target, Trust, WrappedKey,
};
use groundtackle_backup_fs::{FsTarget, FsTargetConfig};
use groundtackle_backup_s3::{S3Target, S3TargetConfig, StaticCredentials, Tls};
use groundtackle_backup_testkit::{Call, Fault, Faulty};
use groundtackle_backup_utxo::{DigestGround, SetBackup};
use groundtackle_core::RetryConfig;
use groundtackle_health_check::{Check, Outcome};
use groundtackle_health_check_backup::{BackupCheck, BackupCheckConfig, TipHeight};
use groundtackle_health_check_testkit::{CheckHarness, State, Watched, skipped};
use groundtackle_testkit_servers::Moto;
use groundtackle_utxo_store::{BlockStore, MemoryUtxoStore};
use groundtackle_utxo_store_testkit::builder::BlockBuilder;
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Keys in the clear: what wrapping does is another crate's matter.
#[derive(Debug)]
struct Open;

impl KeyWrapping for Open {
    fn wrap(&self, key: &DataKey) -> Result<WrappedKey> {
        Ok(WrappedKey {
            scheme: "none".into(),
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

/// Stands still until somebody moves it; milliseconds since 1970.
#[derive(Clone, Debug)]
struct Still(Arc<AtomicU64>);

impl Still {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_767_225_600_000)))
    }

    fn pass(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.0.fetch_add(millis, Ordering::Relaxed);
    }

    /// The clock of a host that is so far ahead.
    fn ahead(&self, by: Duration) -> Self {
        let clock = Self(Arc::new(AtomicU64::new(self.0.load(Ordering::Relaxed))));
        clock.pass(by);
        clock
    }
}

impl Clock for Still {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

struct Backups {
    target: Faulty<Arc<dyn Target>>,
    repository: Repository,
    signer: SigningKey,
    clock: Still,
    store: Arc<MemoryUtxoStore>,
}

impl Backups {
    async fn on(target: Arc<dyn Target>) -> Self {
        let clock = Still::new();
        let target = Faulty::new(target, 7);
        let signer = SigningKey::random(&SystemEntropy).unwrap();
        let repository = Repository::init(
            Arc::new(target.clone()),
            "main",
            &signer,
            Arc::new(clock.clone()),
            Arc::new(SystemEntropy),
        )
        .await
        .unwrap();
        let store = Arc::new(MemoryUtxoStore::new());
        let mut last = None;
        for _ in 0..3 {
            let block = BlockBuilder::after(last).build();
            store.connect_block(&block).await.unwrap().unwrap();
            last = store.tip().await.unwrap();
        }
        Self {
            target,
            repository,
            signer,
            clock,
            store,
        }
    }

    async fn new() -> Self {
        Self::on(Arc::new(MemoryTarget::new())).await
    }

    async fn back_up_as(&self, repository: &Repository, stream: &str, signer: &SigningKey) {
        let how = BackUp {
            stream,
            wrapping: &Open,
            signer,
            workers: 1,
        };
        let backup = SetBackup::new(self.store.clone(), None);
        backup.back_up_base(repository, &how).await.unwrap();
    }

    /// The set at block 2.
    async fn back_up(&self) {
        self.back_up_as(&self.repository, "utxo", &self.signer)
            .await;
    }

    async fn drill_as(&self, repository: &Repository, drill: Drill<'_>) -> bool {
        let mut ground = DigestGround;
        let drill = Drill {
            level: drill.level,
            share: drill.share,
            objectives: drill.objectives,
            keys: Some(&Open),
            ground: Some(&mut ground),
            workers: 1,
            ..Drill::new(drill.stream, drill.signer)
        };
        repository.drill(drill).await.unwrap().evidence.passed()
    }

    fn drill(&self) -> Drill<'_> {
        Drill::new("utxo", &self.signer)
    }

    async fn hold(&self, drill: Drill<'_>) -> bool {
        self.drill_as(&self.repository, drill).await
    }

    fn config(&self) -> BackupCheckConfig {
        BackupCheckConfig::new([self.signer.public()], 26 * HOUR)
    }

    fn check(&self, config: BackupCheckConfig) -> BackupCheck {
        BackupCheck::new(Arc::new(self.target.clone()), config)
            .with_clock(Arc::new(self.clock.clone()))
    }

    async fn assert(&self, config: &BackupCheckConfig, outcome: Outcome, cause: &str, says: &str) {
        assert_seen(&self.check(config.clone()), outcome, cause, says).await;
    }

    /// The same repository, as somebody opens it who trusts both, or one with another clock.
    async fn opened(&self, trusted: &[&SigningKey], clock: &Still) -> Repository {
        let trusted: Vec<Hex<32>> = trusted.iter().map(|signer| signer.public()).collect();
        let target = Arc::new(self.target.clone());
        let repository = Repository::open(target, Trust::new(trusted).unwrap()).await;
        let entropy = Arc::new(SystemEntropy);
        repository.unwrap().with(Arc::new(clock.clone()), entropy)
    }

    async fn keys(&self, prefix: &str) -> Vec<ObjectKey> {
        let listing = self.target.inner().list(prefix, None, 1_000).await.unwrap();
        listing.objects.into_iter().map(|info| info.key).collect()
    }
}

#[track_caller]
fn assert_seen<'a>(
    check: &'a BackupCheck,
    outcome: Outcome,
    cause: &'a str,
    says: &'a str,
) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let seen = check.check().await;
        let detail = seen.detail.clone().unwrap_or_default();
        assert!(
            (seen.outcome, seen.cause.as_str()) == (outcome, cause) && detail.contains(says),
            "{caller}: no {outcome} ({cause}: {says}): {seen:?}"
        );
    }
}

#[tokio::test]
async fn the_age_of_the_newest_restore_point_is_judged() {
    let backups = Backups::new().await;
    let config = backups.config().with_warn_age(Some(12 * HOUR));
    backups
        .assert(&config, Outcome::Fail, "no-backup", "stream utxo")
        .await;
    backups.back_up().await;
    let check = backups.check(config.clone());
    assert_seen(&check, Outcome::Pass, "ok", "block 2, is 0s old").await;
    backups.clock.pass(12 * HOUR);
    assert_seen(&check, Outcome::Pass, "ok", "is 12h old").await;
    backups.clock.pass(Duration::from_millis(1));
    assert_seen(&check, Outcome::Warn, "stale-backup", "is 12h old").await;
    backups.clock.pass(14 * HOUR);
    assert_seen(&check, Outcome::Fail, "stale-backup", "is 26h old").await;
    // A backup of something else is none of this.
    backups
        .back_up_as(&backups.repository, "other", &backups.signer)
        .await;
    assert_seen(&check, Outcome::Fail, "stale-backup", "is 26h old").await;
    backups.back_up().await;
    assert_seen(&check, Outcome::Pass, "ok", "is 0s old").await;
}

#[derive(Debug)]
struct At(AtomicU32);

#[async_trait]
impl TipHeight for At {
    async fn tip_height(&self) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
        match self.0.load(Ordering::Relaxed) {
            0 => Err("the node is away".into()),
            height => Ok(height),
        }
    }
}

#[tokio::test]
async fn the_distance_to_the_tip_is_judged() {
    let backups = Backups::new().await;
    backups.back_up().await;
    let config = backups
        .config()
        .with_warn_lag_blocks(Some(6))
        .with_fail_lag_blocks(Some(144));
    backups
        .assert(&config, Outcome::Unknown, "tip-unknown", "no tip")
        .await;
    let tip = Arc::new(At(AtomicU32::new(0)));
    let check = backups.check(config).with_tip(tip.clone());
    assert_seen(&check, Outcome::Unknown, "tip-unknown", "the node is away").await;
    for (height, outcome, cause, says) in [
        (1, Outcome::Pass, "ok", "0 blocks"),
        (8, Outcome::Pass, "ok", "6 blocks"),
        (9, Outcome::Warn, "behind", "7 blocks"),
        (146, Outcome::Warn, "behind", "144 blocks"),
        (147, Outcome::Fail, "behind", "145 blocks"),
    ] {
        tip.0.store(height, Ordering::Relaxed);
        assert_seen(&check, outcome, cause, says).await;
    }
}

#[tokio::test]
async fn the_last_proven_restore_is_judged() {
    let backups = Backups::new().await;
    backups.back_up().await;
    let config = backups
        .config()
        .with_fail_age(1_000 * DAY)
        .with_warn_drill_age(Some(7 * DAY))
        .with_fail_drill_age(Some(35 * DAY));
    let check = backups.check(config.clone());
    assert_seen(&check, Outcome::Fail, "never-proven", "level replay").await;
    let warns = config.clone().with_fail_drill_age(None);
    backups
        .assert(&warns, Outcome::Warn, "never-proven", "")
        .await;
    // It restores nothing.
    let lower = Drill {
        level: DrillLevel::Read,
        ..backups.drill()
    };
    assert!(backups.hold(lower).await);
    assert_seen(&check, Outcome::Fail, "never-proven", "level replay").await;
    let read = config.with_drill_level(DrillLevel::Read);
    backups
        .assert(&read, Outcome::Pass, "ok", "a drill of level read")
        .await;
    // A drill of another stream.
    backups
        .back_up_as(&backups.repository, "other", &backups.signer)
        .await;
    let other = Drill::new("other", &backups.signer);
    assert!(backups.hold(other).await);
    assert_seen(&check, Outcome::Fail, "never-proven", "").await;

    assert!(backups.hold(backups.drill()).await);
    assert_seen(&check, Outcome::Pass, "ok", "a drill of level replay").await;
    backups.clock.pass(7 * DAY + HOUR);
    assert_seen(&check, Outcome::Warn, "stale-proof", "169h ago").await;
    backups.clock.pass(28 * DAY);
    assert_seen(&check, Outcome::Fail, "stale-proof", "level replay").await;
    assert!(backups.hold(backups.drill()).await);
    assert_seen(&check, Outcome::Pass, "ok", "0s ago").await;
}

#[tokio::test]
async fn a_share_of_a_drill_is_no_proof() {
    let backups = Backups::new().await;
    backups.back_up().await;
    let config = backups
        .config()
        .with_drill_level(DrillLevel::Bytes)
        .with_fail_drill_age(Some(7 * DAY));
    let share = |part, of: u32| Drill {
        level: DrillLevel::Bytes,
        share: Some(Share {
            part,
            of: of.try_into().unwrap(),
        }),
        ..backups.drill()
    };
    assert!(backups.hold(share(0, 2)).await);
    backups
        .assert(&config, Outcome::Fail, "never-proven", "")
        .await;
    assert!(backups.hold(share(0, 1)).await);
    backups.assert(&config, Outcome::Pass, "ok", "").await;
}

#[tokio::test]
async fn a_failed_drill_fails_until_one_of_its_level_passes() {
    let backups = Backups::new().await;
    backups.back_up().await;
    let config = backups.config();
    backups.clock.pass(HOUR);
    let too_old = Objectives {
        recovery_point_age: Some(Duration::ZERO),
        ..Objectives::default()
    };
    let failing = |level| Drill {
        level,
        objectives: too_old,
        ..backups.drill()
    };
    let at = |level| Drill {
        level,
        ..backups.drill()
    };
    assert!(!backups.hold(failing(DrillLevel::Presence)).await);
    let check = backups.check(config);
    let says = "a drill of level presence failed 0s ago: the age of the last restore point";
    assert_seen(&check, Outcome::Fail, "drill-failed", says).await;
    backups.clock.pass(HOUR);
    assert!(backups.hold(at(DrillLevel::Chain)).await);
    assert_seen(&check, Outcome::Fail, "drill-failed", "level presence").await;
    assert!(backups.hold(at(DrillLevel::Bytes)).await);
    assert_seen(&check, Outcome::Pass, "ok", "").await;
    // The proof before a failure does not hide it.
    assert!(backups.hold(backups.drill()).await);
    backups.clock.pass(HOUR);
    assert!(!backups.hold(failing(DrillLevel::Replay)).await);
    assert_seen(&check, Outcome::Fail, "drill-failed", "level replay").await;
    backups.clock.pass(HOUR);
    assert!(backups.hold(backups.drill()).await);
    assert_seen(&check, Outcome::Pass, "ok", "").await;
}

#[tokio::test]
async fn a_missed_drill_warns_until_one_is_held() {
    let backups = Backups::new().await;
    backups.back_up().await;
    let schedule = DrillSchedule {
        every: DAY,
        level: DrillLevel::Replay,
    };
    let check = backups.check(backups.config().with_fail_age(1_000 * DAY));
    assert!(backups.hold(backups.drill()).await);
    backups.clock.pass(3 * DAY);
    let missed = backups
        .repository
        .record_missed("utxo", &schedule, &backups.signer);
    assert!(missed.await.unwrap().is_some());
    let says = "a drill of level replay was missed, 0s ago";
    assert_seen(&check, Outcome::Warn, "drill-missed", says).await;
    backups.clock.pass(HOUR);
    let lower = Drill {
        level: DrillLevel::Read,
        ..backups.drill()
    };
    assert!(backups.hold(lower).await);
    assert_seen(&check, Outcome::Warn, "drill-missed", "").await;
    backups.clock.pass(HOUR);
    assert!(backups.hold(backups.drill()).await);
    assert_seen(&check, Outcome::Pass, "ok", "").await;
}

#[tokio::test]
async fn only_what_a_trusted_key_signed_counts() {
    let backups = Backups::new().await;
    backups.back_up().await;
    assert!(backups.hold(backups.drill()).await);
    let config = backups
        .config()
        .with_fail_drill_age(Some(7 * DAY))
        .with_fail_age(7 * DAY);
    backups.clock.pass(8 * DAY);
    let other = SigningKey::random(&SystemEntropy).unwrap();
    let both = backups
        .opened(&[&backups.signer, &other], &backups.clock)
        .await;
    backups.back_up_as(&both, "utxo", &other).await;
    assert!(backups.drill_as(&both, Drill::new("utxo", &other)).await);
    let check = backups.check(config.clone());
    assert_seen(&check, Outcome::Fail, "stale-backup", "is 192h old").await;
    let seen = check.check().await.detail.unwrap();
    assert!(
        seen.contains("a restore was last proven 192h ago")
            && seen.contains("2 newer objects can't be used")
            && seen.contains("not signed by a trusted key"),
        "{seen}"
    );
    // What it says is right if they are trusted.
    let trusts = config
        .clone()
        .with_trusted(vec![backups.signer.public(), other.public()]);
    backups.assert(&trusts, Outcome::Pass, "ok", "0s ago").await;
    // Of a repository that somebody else made nothing counts.
    let stranger = config.with_trusted(vec![other.public()]);
    backups
        .assert(&stranger, Outcome::Fail, "untrusted", "repository.json")
        .await;
    let nobody = trusts.with_trusted(Vec::new());
    backups
        .assert(&nobody, Outcome::Fail, "bad-config", "nobody is trusted")
        .await;
}

#[tokio::test]
async fn a_changed_drill_counts_for_nothing() {
    let backups = Backups::new().await;
    backups.back_up().await;
    let config = backups.config().with_fail_drill_age(Some(7 * DAY));
    assert!(backups.hold(backups.drill()).await);
    backups.assert(&config, Outcome::Pass, "ok", "").await;
    let key = backups.keys("drills/").await.remove(0);
    let target = backups.target.inner();
    let bytes = target.info(&key).await.unwrap().unwrap().bytes;
    let body = target.read(&key, 0..bytes).await.unwrap().unwrap();
    let put = async |key: &ObjectKey, body: Vec<u8>| {
        target.remove(key).await.unwrap().unwrap();
        let put = target.put(key, body.into(), &PutIf::Absent, None).await;
        put.unwrap().unwrap();
    };
    // In another place it is later.
    let later = key.as_str().replacen("drills/0", "drills/1", 1);
    put(&later.try_into().unwrap(), body.to_vec()).await;
    let seen = backups.check(config.clone()).check().await;
    let detail = seen.detail.unwrap_or_default();
    assert_eq!(seen.outcome, Outcome::Warn, "{detail}");
    assert!(
        detail.contains("it is the evidence of another drill"),
        "{detail}"
    );
    let trusted = [backups.signer.public()];
    let whole = Evidence::read(key.as_str(), &body, &trusted).unwrap();
    let mut refused = 0;
    for at in (0..body.len()).step_by(97) {
        let mut changed = body.to_vec();
        changed[at] ^= 1;
        // Beside what is signed, an envelope may have a hint.
        let same = Evidence::read(key.as_str(), &changed, &trusted).is_ok_and(|of| of == whole);
        put(&key, changed).await;
        let seen = backups.check(config.clone()).check().await;
        let never = seen.cause.as_str() == "never-proven";
        assert_eq!(never, !same, "byte {at}: {seen:?}");
        refused += u32::from(never);
    }
    assert!(refused > 20, "{refused}");
}

#[tokio::test]
async fn what_a_wrong_clock_wrote_is_not_new() {
    let backups = Backups::new().await;
    let config = backups.config().with_fail_drill_age(Some(7 * DAY));
    let check = backups.check(config);
    // Clocks differ a little.
    let little = backups
        .opened(&[&backups.signer], &backups.clock.ahead(4 * HOUR / 60))
        .await;
    backups.back_up_as(&little, "utxo", &backups.signer).await;
    assert!(backups.drill_as(&little, backups.drill()).await);
    assert_seen(&check, Outcome::Pass, "ok", "is 0s old").await;
    backups.clock.pass(30 * HOUR);
    let year = backups
        .opened(&[&backups.signer], &backups.clock.ahead(365 * DAY))
        .await;
    backups.back_up_as(&year, "utxo", &backups.signer).await;
    assert!(backups.drill_as(&year, backups.drill()).await);
    let says = "2 restore points or drills are in the future";
    assert_seen(&check, Outcome::Fail, "stale-backup", says).await;
}

#[tokio::test]
async fn what_was_forgotten_does_not_count() {
    let backups = Backups::new().await;
    backups.back_up().await;
    backups.clock.pass(20 * HOUR);
    backups.back_up().await;
    let check = backups.check(backups.config().with_warn_age(Some(HOUR)));
    assert_seen(&check, Outcome::Pass, "ok", "is 0s old").await;
    let points = backups.repository.points().await.unwrap().usable;
    let last = points.last().unwrap().point;
    let forgotten = backups.repository.forget(&[last], &backups.signer).await;
    assert_eq!(forgotten.unwrap(), 1);
    assert_seen(&check, Outcome::Warn, "stale-backup", "is 20h old").await;
    backups.repository.unforget(&[last]).await.unwrap();
    assert_seen(&check, Outcome::Pass, "ok", "is 0s old").await;
    // One that is gone is gone.
    for key in backups.keys("points/").await {
        drop(backups.target.inner().remove(&key).await.unwrap());
    }
    assert_seen(&check, Outcome::Fail, "no-backup", "").await;
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_each_object_is_read_once() {
    let absent = BackupCheck::new(Arc::new(MemoryTarget::new()), {
        let signer = SigningKey::random(&SystemEntropy).unwrap();
        BackupCheckConfig::new([signer.public()], HOUR)
    });
    assert_seen(&absent, Outcome::Fail, "no-repository", "repository.json").await;
    let backups = Backups::new().await;
    for _ in 0..3 {
        backups.back_up().await;
        assert!(backups.hold(backups.drill()).await);
        backups.clock.pass(HOUR);
    }
    let check = backups.check(backups.config());
    let reads = async || {
        let before = backups.target.calls(Call::Read);
        assert_seen(&check, Outcome::Pass, "ok", "").await;
        backups.target.calls(Call::Read) - before
    };
    // The repository's own, and the newest of both.
    assert_eq!(reads().await, 3);
    assert_eq!(reads().await, 1);
    backups.back_up().await;
    assert_eq!(reads().await, 2);
    for call in [Call::List, Call::Info, Call::Read] {
        backups.target.fail_at(call, 1, Fault::Fail);
        assert_seen(&check, Outcome::Fail, "no-answer", "").await;
        assert_seen(&check, Outcome::Pass, "ok", "").await;
    }
    // Cut off anywhere, the next run goes on.
    let fresh = backups.check(backups.config());
    backups.target.fail_at(Call::Read, 3, Fault::Hang);
    let cut_off = tokio::time::timeout(Duration::from_millis(200), fresh.check()).await;
    assert!(cut_off.is_err());
    let before = backups.target.calls(Call::Read);
    assert_seen(&fresh, Outcome::Pass, "ok", "").await;
    assert_eq!(backups.target.calls(Call::Read) - before, 2);
    // A damaged point is told, and the one before it counts.
    backups.clock.pass(HOUR);
    backups.back_up().await;
    let last = backups.keys("points/").await.pop().unwrap();
    let target = backups.target.inner();
    target.remove(&last).await.unwrap().unwrap();
    let garbage = target.put(&last, "{}".into(), &PutIf::Absent, None).await;
    garbage.unwrap().unwrap();
    assert_seen(&check, Outcome::Warn, "unusable-object", last.as_str()).await;
}

/// A folder with a repository, or without the file that makes it one, or whose disk does not answer.
struct Folder {
    folder: TempDir,
    backups: Backups,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let backups = runtime.block_on(async {
            let config = FsTargetConfig::default().with_create(true);
            let target = FsTarget::open(folder.path(), config).await;
            let backups = Backups::on(Arc::new(target.unwrap())).await;
            backups.back_up().await;
            assert!(backups.hold(backups.drill()).await);
            backups
        });
        Self { folder, backups }
    }
}

#[async_trait]
impl CheckHarness for Folder {
    async fn check(&self) -> Arc<dyn Check> {
        let config = self.backups.config().with_fail_drill_age(Some(DAY));
        Arc::new(self.backups.check(config))
    }

    async fn make(&self, state: State) -> bool {
        let (here, away) = (
            self.folder.path().join("repository.json"),
            self.folder.path().join("away"),
        );
        self.backups.target.heal();
        match state {
            State::Broken if here.exists() => std::fs::rename(here, away).unwrap(),
            State::Working | State::Silent if away.exists() => {
                std::fs::rename(away, here).unwrap();
            }
            _ => {}
        }
        if state == State::Silent {
            self.backups.target.fail_often(None, 1_000_000, Fault::Hang);
        }
        true
    }
}

groundtackle_health_check_testkit::check_conformance!(Folder::new());

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_server_is_seen_in_time_and_passes() {
    if !Moto::is_there() {
        let reason = "there is no moto; GROUNDTACKLE_TEST_MOTO names its Python";
        return skipped(
            "what_happens_to_a_server_is_seen_in_time_and_passes",
            reason,
        );
    }
    let mut moto = Moto::start();
    let bucket = moto.bucket(false);
    let config = S3TargetConfig::new(bucket)
        .with_endpoint(Some(format!("http://127.0.0.1:{}", moto.port())))
        .with_path_style(true)
        .with_tls(Tls::Off)
        .with_credentials(Some(StaticCredentials::new("id", "key")))
        .with_retry(RetryConfig::default().with_max_attempts(1));
    let target = Arc::new(S3Target::open(config).await.unwrap());
    let backups = Backups::on(target).await;
    backups.back_up().await;
    assert!(backups.hold(backups.drill()).await);
    let check = backups.check(backups.config().with_fail_drill_age(Some(DAY)));
    let (period, timeout) = (Duration::from_secs(3), Duration::from_secs(2));
    let watched = Watched::start(check, period, timeout);
    watched.until(Outcome::Pass, "ok").await;
    moto.freeze();
    watched.until(Outcome::Fail, "timeout").await;
    moto.thaw();
    watched.until(Outcome::Pass, "ok").await;
    backups.clock.pass(25 * HOUR);
    watched.until(Outcome::Fail, "stale-proof").await;
    assert!(backups.hold(backups.drill()).await);
    watched.until(Outcome::Pass, "ok").await;
    moto.kill();
    watched.until(Outcome::Fail, "no-answer").await;
    watched.stop().await;
}

#[test]
fn a_config_that_cannot_be_used_is_refused_at_its_line() {
    let read = |text: &str| toml::from_str::<BackupCheckConfig>(text);
    let key = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
    let text = format!(
        "stream = 'files'\ntrusted = ['{key}']\nfail_age = '26h'\ndrill_level = 'read'\nfail_drill_age = '840h'\nfail_lag_blocks = 144"
    );
    let same = BackupCheckConfig::new([key.parse().unwrap()], 26 * HOUR)
        .with_stream("files".into())
        .with_drill_level(DrillLevel::Read)
        .with_fail_drill_age(Some(35 * DAY))
        .with_fail_lag_blocks(Some(144));
    assert_eq!(read(&text).unwrap(), same);
    for (text, says) in [
        ("fail_age = '1h'\ntrusted = []", "line 2"),
        ("fail_age = '1h'\ntrusted = []", "nobody is trusted"),
        ("fail_age = '1h'\ntrusted = ['ab']", "line 2"),
        ("fail_age = '1h'", "trusted"),
        (&format!("trusted = ['{key}']"), "fail_age"),
        (&format!("{text}\nnonsense = 1"), "nonsense"),
        (&text.replace("'read'", "'most'"), "most"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}
