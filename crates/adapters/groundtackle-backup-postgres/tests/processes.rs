//! Backups in a process of their own: what it has in memory, and what it leaves when it is killed.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use common::{Ledger, connect, server, until, until_none_of};
use groundtackle_backup::{BackUp, Repository, SigningKey, SystemClock, SystemEntropy, Trust};
use groundtackle_backup_age::{AgeIdentities, AgeRecipients};
use groundtackle_backup_fs::{FsTarget, FsTargetConfig};
use groundtackle_backup_postgres::{
    ClusterRestoreOptions, PostgresBackup, PostgresBackupConfig, SslMode, Verify, restore_cluster,
};
use groundtackle_core::Secret;
use groundtackle_testkit_servers::Postgres;
use tempfile::TempDir;

/// A port and a folder: this process is to back up.
const WORK: &str = "GROUNDTACKLE_TEST_VICTIM";

fn signer() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

async fn opened(folder: &Path) -> Repository {
    let target = FsTarget::open(folder.join("repository"), FsTargetConfig::default());
    let trust = Trust::new([signer().public()]).unwrap();
    Repository::open(Arc::new(target.await.unwrap()), trust)
        .await
        .unwrap()
}

async fn init(folder: &Path) {
    let config = FsTargetConfig::default().with_create(true);
    let target = FsTarget::open(folder.join("repository"), config).await;
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let target = Arc::new(target.unwrap());
    Repository::init(target, "main", &signer(), clock, entropy)
        .await
        .unwrap();
}

/// What the other process does until it is done or dead.
fn work(asked: &str) {
    let (port, folder) = asked.split_once(' ').unwrap();
    let folder = Path::new(folder);
    let config = PostgresBackupConfig::default()
        .with_host(Some("127.0.0.1".into()))
        .with_port(Some(port.parse().unwrap()))
        .with_user(Some("postgres".into()))
        .with_sslmode(SslMode::Disable)
        .with_state(Some(folder.join("state")));
    let recipients = AgeRecipients::new(&[common::RECIPIENT.to_owned()]).unwrap();
    runtime().block_on(async {
        let signer = signer();
        let how = BackUp {
            stream: "postgres",
            wrapping: &recipients,
            signer: &signer,
            workers: 2,
        };
        let backup = PostgresBackup::new(config).unwrap();
        let repository = opened(folder).await;
        backup.back_up(&repository, &how, false).await.unwrap();
    });
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.unwrap().split_whitespace().next().unwrap();
    fs::write(folder.join("peak"), kib).unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn start(test: &str, server: &Postgres, folder: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(WORK, format!("{} {}", server.port(), folder.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn peak_mib(server: &Postgres) -> u64 {
    let folder = TempDir::new().unwrap();
    runtime().block_on(init(folder.path()));
    let mut child = start("memory_is_bounded", server, folder.path());
    assert!(child.wait().unwrap().success());
    let kib: u64 = fs::read_to_string(folder.path().join("peak"))
        .unwrap()
        .parse()
        .unwrap();
    kib >> 10
}

/// Of bytes that nothing compresses, to a disk.
#[test]
fn memory_is_bounded() {
    if let Ok(asked) = env::var(WORK) {
        return work(&asked);
    }
    let server = server(&[]);
    runtime().block_on(Ledger::make(&server, 384 << 20));
    let peak = peak_mib(&server);
    println!("peak: {peak} MiB for a cluster with 384 MiB of noise");
    assert!(peak <= 150, "{peak} MiB");
}

/// `GROUNDTACKLE_TEST_KILLS` says how often; 16, as each round takes a backup of a whole cluster by programs of its own.
#[test]
fn killed_at_any_moment() {
    if let Ok(asked) = env::var(WORK) {
        return work(&asked);
    }
    let kills: u32 = env::var("GROUNDTACKLE_TEST_KILLS").map_or(16, |kills| kills.parse().unwrap());
    let seed: u64 = env::var("GROUNDTACKLE_TEST_SEED").map_or(41, |seed| seed.parse().unwrap());
    println!("GROUNDTACKLE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (server, folder, runtime) = (server(&[]), TempDir::new().unwrap(), runtime());
    runtime.block_on(async {
        Ledger::make(&server, 16_000_000).await;
        init(folder.path()).await;
    });
    let run = || start("killed_at_any_moment", &server, folder.path());
    let timed = || {
        let begun = Instant::now();
        assert!(run().wait().unwrap().success());
        begun.elapsed()
    };
    timed();
    // Those that follow have less to do.
    let took = timed();
    let (mut listed, mut killed, mut done) = (2, 0, 0);
    for round in 0..kills {
        let change = format!(
            "update accounts set amount = 1000 where id % {} = 0",
            round + 2
        );
        runtime.block_on(async {
            let client = connect(&server).await;
            client.batch_execute(&change).await.unwrap();
        });
        let mut child = run();
        thread::sleep(took.mul_f64(random.f64()).max(Duration::from_millis(1)));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        killed += u32::from(!ended.success());
        done += u32::from(ended.success());
        let points =
            runtime.block_on(async { opened(folder.path()).await.points().await.unwrap() });
        assert!(points.unusable.is_empty(), "{points:?}");
        let now = points.usable.len();
        assert!(
            now == listed || now == listed + 1,
            "round {round}: {listed}, then {now}"
        );
        assert!(
            !ended.success() || now == listed + 1,
            "round {round}: done, and not listed"
        );
        listed = now;
    }
    // Its programs and their slots end by themselves.
    runtime.block_on(async {
        until_none_of(server.port()).await;
        let client = connect(&server).await;
        let slots = "select (count(*) = 0)::int::bigint from pg_replication_slots";
        until(&client, slots).await;
    });
    assert!(timed() > Duration::ZERO);
    let keys = AgeIdentities::new([Secret::from(common::IDENTITY)]).unwrap();
    let points = runtime.block_on(async {
        let repository = opened(folder.path()).await;
        let points = repository.points().await.unwrap();
        for point in &points.usable {
            let options = ClusterRestoreOptions::default().with_verify(Verify::Require);
            let into = folder.path().join("restored");
            let restored = restore_cluster(&repository, point, &keys, &into, options);
            assert!(restored.await.unwrap().verified);
            fs::remove_dir_all(&into).unwrap();
        }
        points.usable.len()
    });
    assert_eq!(points, listed + 1);
    println!("{killed} killed, {done} came through, {points} restore points, all of them verified");
    assert!(killed > kills / 4, "{killed}");
}
