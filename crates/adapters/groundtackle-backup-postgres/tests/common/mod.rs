//! A repository in memory, a server, and the ledger that is backed up.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use groundtackle_backup::{
    BackUp, Error, Manifest, MemoryTarget, Repository, Result, SigningKey, SystemClock,
    SystemEntropy, Target,
};
use groundtackle_backup_age::{AgeIdentities, AgeRecipients};
use groundtackle_backup_files::Made;
use groundtackle_backup_postgres::{
    ClusterRestoreOptions, PostgresBackup, PostgresBackupConfig, PostgresDump, RestoredCluster,
    SslMode, Verify, restore_cluster,
};
use groundtackle_core::Secret;
use groundtackle_testkit_servers::{Postgres, PostgresOptions};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// Of nothing else.
pub(crate) const IDENTITY: &str =
    "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
pub(crate) const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

/// Long enough for whatever comes at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) target: MemoryTarget,
    pub(crate) repository: Repository,
    pub(crate) signer: SigningKey,
    recipients: AgeRecipients,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let target = MemoryTarget::new();
        let signer = SigningKey::random(&SystemEntropy).unwrap();
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let shared = Arc::new(target.clone());
        let made = Repository::init(shared, "main", &signer, clock, entropy);
        let folder = TempDir::new().unwrap();
        // The server's user goes through it.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        Self {
            folder,
            repository: made.await.unwrap(),
            target,
            signer,
            recipients: AgeRecipients::new(&[RECIPIENT.to_owned()]).unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self, server: &Postgres) -> PostgresBackupConfig {
        PostgresBackupConfig::default()
            .with_host(Some("127.0.0.1".into()))
            .with_port(Some(server.port()))
            .with_user(Some("postgres".into()))
            .with_sslmode(SslMode::Disable)
            .with_state(Some(self.path("state")))
    }

    fn how(&self) -> BackUp<'_> {
        BackUp {
            stream: "postgres",
            wrapping: &self.recipients,
            signer: &self.signer,
            workers: 2,
        }
    }

    pub(crate) async fn back_up(&self, config: PostgresBackupConfig) -> Result<Made> {
        let backup = PostgresBackup::new(config)?;
        backup.back_up(&self.repository, &self.how(), false).await
    }

    pub(crate) async fn dump(&self, config: PostgresBackupConfig) -> Result<Made> {
        let dump = PostgresDump::new(config)?;
        dump.back_up(&self.repository, &self.how(), false).await
    }

    pub(crate) fn identities(&self) -> AgeIdentities {
        AgeIdentities::new([Secret::from(IDENTITY)]).unwrap()
    }

    pub(crate) async fn restore(
        &self,
        point: &Manifest,
        into: &str,
        options: ClusterRestoreOptions,
    ) -> Result<RestoredCluster> {
        let (into, keys) = (self.path(into), self.identities());
        restore_cluster(&self.repository, point, &keys, &into, options).await
    }

    /// Restored, PostgreSQL itself finds it whole.
    pub(crate) async fn restore_verified(&self, point: &Manifest, into: &str) -> RestoredCluster {
        let options = ClusterRestoreOptions::default().with_verify(Verify::Require);
        let restored = self.restore(point, into, options).await.unwrap();
        assert!(restored.verified);
        restored
    }

    pub(crate) async fn listed(&self) -> usize {
        self.repository.points().await.unwrap().usable.len()
    }

    /// Fails, with all of its causes in one text, and lists nothing.
    pub(crate) async fn refused(&self, config: PostgresBackupConfig) -> (Error, String) {
        let before = self.listed().await;
        let error = self.back_up(config).await.unwrap_err();
        assert_eq!(self.listed().await, before);
        let text = chain(&error);
        (error, text)
    }

    /// All that is in the repository, as files in a folder.
    pub(crate) async fn as_files(&self, name: &str) -> PathBuf {
        let folder = self.path(name);
        for info in self
            .target
            .list("", None, usize::MAX)
            .await
            .unwrap()
            .objects
        {
            let path = folder.join(info.key.as_str());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let body = self.target.read(&info.key, 0..info.bytes).await;
            fs::write(path, body.unwrap().unwrap()).unwrap();
        }
        folder
    }
}

/// An error with all of its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// All that `find` and `sha256sum` say of a tree.
pub(crate) fn shown(tree: &Path) -> BTreeSet<String> {
    let script = "find . -printf '%P %y %m %U %G %Ts %l\\n' && find . -type f -exec sha256sum {} +";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(tree)
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

pub(crate) async fn connect(server: &Postgres) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    // It ends with the client, or with the server.
    tokio::spawn(connection);
    client
}

pub(crate) async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// Until a query says more than 0.
pub(crate) async fn until(client: &Client, query: &str) {
    let begun = Instant::now();
    while number(client, query).await == 0 {
        assert!(begun.elapsed() < PATIENCE, "never: {query}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A backup that is under way.
pub(crate) const STREAMS: &str =
    "select count(*) from pg_stat_progress_basebackup where backup_streamed > 1000000";

/// Programs that talk to the server: they have its port in their environment.
pub(crate) fn programs_of(port: u16) -> Vec<PathBuf> {
    let wanted = format!("PGPORT={port}").into_bytes();
    let all = fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let talks = |process: &PathBuf| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|line| line == wanted)
    };
    all.filter(talks).collect()
}

/// Until all of them are gone.
pub(crate) async fn until_none_of(port: u16) {
    let begun = Instant::now();
    loop {
        let left = programs_of(port);
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{left:?} are left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Accounts whose sum never changes, and the transfers between them.
pub(crate) struct Ledger {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
    /// Transfers that the server said to be committed.
    pub(crate) committed: Arc<Mutex<Vec<(i64, i64)>>>,
}

pub(crate) const ACCOUNTS: i64 = 2_000;

impl Ledger {
    /// Accounts with 1,000 each, and `bytes` of data that is not touched again.
    pub(crate) async fn make(server: &Postgres, bytes: usize) {
        let client = connect(server).await;
        client
            .batch_execute(&format!(
                "create table accounts (id bigint primary key, amount bigint not null, note text not null);
                 insert into accounts select id, 1000, repeat(md5(id::text), 8) from generate_series(1, {ACCOUNTS}) id;
                 create table transfers (writer bigint, sequence bigint, primary key (writer, sequence));
                 create table ballast (id bigint, noise bytea);
                 alter table ballast alter noise set storage external;
                 insert into ballast select id, decode(string_agg(md5(id::text || '.' || part), ''), 'hex')
                     from generate_series(1, {}) id, generate_series(1, 500) part group by id;",
                bytes / 8_000
            ))
            .await
            .unwrap();
        for statement in ["vacuum freeze", "checkpoint"] {
            client.batch_execute(statement).await.unwrap();
        }
    }

    /// Several connections that transfer until they are stopped.
    pub(crate) async fn load(server: &Postgres, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let committed = Arc::new(Mutex::new(Vec::new()));
        let mut writers = Vec::new();
        for writer in 0..4_i64 {
            let mut client = connect(server).await;
            let (stop, committed) = (stop.clone(), committed.clone());
            let mut random = fastrand::Rng::with_seed(seed ^ writer.unsigned_abs());
            writers.push(tokio::spawn(async move {
                let first = number(
                    &client,
                    &format!(
                        "select coalesce(max(sequence), 0) from transfers where writer = {writer}"
                    ),
                )
                .await;
                for sequence in first + 1.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut accounts = [random.i64(1..=ACCOUNTS), random.i64(1..=ACCOUNTS)];
                    // In order, so that no two wait for each other.
                    accounts.sort_unstable();
                    let amount = random.i64(-50..=50);
                    let transfer = client.transaction().await.unwrap();
                    for (account, amount) in accounts.iter().zip([amount, -amount]) {
                        let update = "update accounts set amount = amount + $2 where id = $1";
                        transfer.execute(update, &[account, &amount]).await.unwrap();
                    }
                    let insert = "insert into transfers values ($1, $2)";
                    transfer
                        .execute(insert, &[&writer, &sequence])
                        .await
                        .unwrap();
                    transfer.commit().await.unwrap();
                    committed.lock().unwrap().push((writer, sequence));
                }
            }));
        }
        Self {
            stop,
            writers,
            committed,
        }
    }

    pub(crate) fn so_far(&self) -> Vec<(i64, i64)> {
        self.committed.lock().unwrap().clone()
    }

    pub(crate) async fn stop(self) -> Vec<(i64, i64)> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap();
        }
        self.committed.lock().unwrap().clone()
    }

    /// The sum, no torn transfer, all of `at_least`, and nothing that was never written; how many transfers there are.
    pub(crate) async fn assert_whole(client: &Client, at_least: &[(i64, i64)]) -> usize {
        let sum = number(client, "select sum(amount)::bigint from accounts").await;
        assert_eq!(sum, ACCOUNTS * 1_000);
        let rows = client.query("select writer, sequence from transfers", &[]);
        let there: BTreeSet<(i64, i64)> = rows
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let missing: Vec<_> = at_least
            .iter()
            .filter(|transfer| !there.contains(transfer))
            .collect();
        assert!(
            missing.is_empty(),
            "committed before, and not there: {missing:?}"
        );
        // Each writer's come in order: what is there has no gap.
        for writer in 0..4 {
            let of: Vec<_> = there
                .iter()
                .filter(|(by, _)| *by == writer)
                .map(|(_, sequence)| *sequence)
                .collect();
            assert_eq!(of, (1..=of.len() as i64).collect::<Vec<_>>());
        }
        there.len()
    }
}

pub(crate) fn server(settings: &[(&str, &str)]) -> Postgres {
    let settings = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Postgres::start(PostgresOptions {
        settings: settings.collect(),
        ..PostgresOptions::default()
    })
}

/// A folder with one program of our own, beside those of PostgreSQL.
pub(crate) fn programs(place: &Place, name: &str, script: &str) -> PathBuf {
    let folder = place.path("programs");
    fs::create_dir_all(&folder).unwrap();
    for other in ["pg_basebackup", "pg_dump", "psql"] {
        if other != name && !folder.join(other).exists() {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {other}")])
                .output()
                .unwrap();
            let found = String::from_utf8(found.stdout).unwrap();
            std::os::unix::fs::symlink(found.trim(), folder.join(other)).unwrap();
        }
    }
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    folder
}
