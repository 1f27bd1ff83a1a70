//! Drills of clusters and dumps: restored for practice, verified by PostgreSQL, started, and asked.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::{Ledger, Place, connect, number, programs, server};
use groundtackle_backup::{
    Drill, DrillLevel, DrillOutcome, Evidence, Objectives, Pack, Proof, PutIf, Result, Target,
    TreeGround,
};
use groundtackle_backup_files::ReplayGround;
use groundtackle_backup_postgres::{
    ClusterGround, ClusterProbe, ClusterRestoreOptions, DumpGround, QueryProbe, ScratchServer,
};

async fn hold(
    place: &Place,
    level: DrillLevel,
    ground: &mut dyn TreeGround,
    change: impl FnOnce(&mut Drill<'_>),
) -> Evidence {
    let keys = place.identities();
    let mut drill = Drill {
        level,
        keys: Some(&keys),
        tree_ground: Some(&mut *ground),
        ..Drill::new("postgres", &place.signer)
    };
    change(&mut drill);
    place.repository.drill(drill).await.unwrap().evidence
}

#[track_caller]
fn says(evidence: &Evidence, words: &[&str]) {
    assert_eq!(evidence.drill.outcome, DrillOutcome::Failed, "{evidence:?}");
    let reasons = evidence.drill.reasons.join("\n");
    for word in words {
        assert!(reasons.contains(word), "{word:?}: {reasons}");
    }
}

fn ground(place: &Place, into: &str) -> ClusterGround {
    ClusterGround::new(&place.path(into), ClusterRestoreOptions::default()).unwrap()
}

/// Queries, and where the server was that was asked: its socket's folder.
#[derive(Debug)]
struct Noting {
    queries: QueryProbe,
    folders: Folders,
}

type Folders = Arc<Mutex<Vec<PathBuf>>>;

#[async_trait]
impl ClusterProbe for Noting {
    async fn probe(&self, server: &ScratchServer) -> Result<Vec<Proof>> {
        assert!(server.host().is_dir());
        self.folders.lock().unwrap().push(server.host().to_owned());
        self.queries.probe(server).await
    }
}

fn asks(queries: &[&str], folders: &Folders) -> Box<dyn ClusterProbe> {
    let queries = queries.iter().map(|query| (*query).to_owned());
    Box::new(Noting {
        queries: QueryProbe::new("postgres", "postgres", queries).unwrap(),
        folders: folders.clone(),
    })
}

/// So many servers were there, and nothing of them is left.
#[track_caller]
fn assert_gone(folders: &Folders, servers: usize) {
    let folders = folders.lock().unwrap();
    assert_eq!(folders.len(), servers);
    for folder in &*folders {
        assert!(!folder.exists(), "{}", folder.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_drilled_up_to_a_server_that_answers() {
    let (place, server) = (Place::new().await, server(&[]));
    Ledger::make(&server, 4_000_000).await;
    let ledger = Ledger::load(&server, 31).await;
    let client = connect(&server).await;
    common::until(&client, "select count(*) from transfers").await;
    let before = ledger.so_far();
    let made = place.back_up(place.config(&server)).await.unwrap();
    ledger.stop().await;
    let wanted = made.manifest.content.tree();

    let replayed = hold(&place, DrillLevel::Replay, &mut ReplayGround, |_| {}).await;
    assert!(replayed.passed(), "{replayed:?}");
    assert_eq!(replayed.drill.restored_tree.map(|found| found.tree), wanted);

    let mut loads = ground(&place, "loaded");
    let loaded = hold(&place, DrillLevel::Load, &mut loads, |_| {}).await;
    assert!(loaded.passed(), "{loaded:?}");
    let proofs: Vec<_> = loaded
        .drill
        .proofs
        .iter()
        .map(|proof| &*proof.found)
        .collect();
    assert_eq!(proofs, ["15", "the cluster is whole"]);
    // It is as it was restored: no server ran on it.
    assert!(place.path("loaded/backup_label").exists());
    let mut low = ground(&place, "low");
    let refused = hold(&place, DrillLevel::Serve, &mut low, |_| {}).await;
    says(&refused, &["good for level load at most"]);

    let sum = "select sum(amount) = 2000000 from accounts";
    let count = format!("select count(*) >= {} from transfers", before.len());
    let alone = "select current_setting('listen_addresses') = '' and current_setting('archive_mode') = 'off'";
    let (folders, queries) = (Folders::default(), [sum, &count, alone, "select 'as text'"]);
    let mut serves = ground(&place, "served").with_probe(asks(&queries, &folders));
    let served = hold(&place, DrillLevel::Serve, &mut serves, |_| {}).await;
    assert!(served.passed(), "{served:?}");
    let proofs: Vec<_> = served
        .drill
        .proofs
        .iter()
        .map(|proof| &*proof.found)
        .collect();
    assert_eq!(
        proofs,
        ["15", "the cluster is whole", "t", "t", "t", "as text"]
    );
    println!(
        "replay {:?} ms, load {:?}, serve {:?}",
        replayed.drill.measured.recovery_millis,
        loaded.drill.measured.recovery_millis,
        served.drill.measured.recovery_millis
    );
    // It has shut down in order, and can be started again.
    assert!(!place.path("served/postmaster.pid").exists());
    assert_gone(&folders, 1);
    let again = server.on_copy(&place.path("served"));
    Ledger::assert_whole(&connect(&again).await, &before).await;
}

/// Holds on to the server that it was shown.
#[derive(Debug)]
struct Asks;

#[async_trait]
impl ClusterProbe for Asks {
    async fn probe(&self, server: &ScratchServer) -> Result<Vec<Proof>> {
        let url = format!(
            "host={} port={} user=postgres",
            server.host().display(),
            server.port()
        );
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        assert_eq!(
            number(&client, "select count(*) from accounts").await,
            2_000
        );
        Ok(Vec::new())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_answer_fails_the_drill_and_leaves_no_server() {
    let (place, server) = (Place::new().await, server(&[]));
    Ledger::make(&server, 1_000_000).await;
    place.back_up(place.config(&server)).await.unwrap();
    let cases: [(&str, &[&str]); 4] = [
        (
            "select count(*) > 1000000 from accounts",
            &["the restored server answers", "with \"f\""],
        ),
        (
            "select id from accounts where id < 0",
            &["the restored server answers", "with nothing"],
        ),
        ("select ''", &["the restored server answers", "with \"\""]),
        ("select 1 / (id - id) from accounts", &["division by zero"]),
    ];
    let folders = Folders::default();
    for (number, (query, words)) in cases.into_iter().enumerate() {
        let mut serves =
            ground(&place, &format!("wrong-{number}")).with_probe(asks(&[query], &folders));
        let failed = hold(&place, DrillLevel::Serve, &mut serves, |_| {}).await;
        says(&failed, words);
        assert_eq!(failed.drill.restored_tree, None);
        assert_eq!(failed.drill.measured.recovery_millis, None);
        let pid = place.path(&format!("wrong-{number}/postmaster.pid"));
        assert!(!pid.exists(), "the server has stopped");
    }
    assert_gone(&folders, 4);
    // A probe that asks nothing proves nothing.
    let mut serves = ground(&place, "nothing").with_probe(Box::new(Asks));
    let failed = hold(&place, DrillLevel::Serve, &mut serves, |_| {}).await;
    says(&failed, &["nothing is proven"]);
    // A server that is not ready in time.
    let slow = place.path("slow");
    fs::create_dir(&slow).unwrap();
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o777)).unwrap();
    for name in ["postgres", "pg_verifybackup", "pg_controldata"] {
        let wait = match name {
            "postgres" => "printf '%s\\n' \"$@\" > ${0%/*}/told; exec sleep 1000",
            _ => "exit 0",
        };
        let path = slow.join(name);
        let script = format!(
            "#!/bin/sh\ncase $1 in --version) echo '{name} (PostgreSQL) 15.1';; *) {wait};; esac\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let options = ClusterRestoreOptions::default().with_programs(Some(slow.clone()));
    let serves = ClusterGround::new(&place.path("late"), options).unwrap();
    let serves = serves.with_probe(asks(&["select 1"], &folders));
    let mut serves = serves.with_start_timeout(Duration::from_secs(5));
    let failed = hold(&place, DrillLevel::Serve, &mut serves, |_| {}).await;
    says(&failed, &["starting postgres", "not ready after 5 s"]);
    let told = fs::read_to_string(slow.join("told")).unwrap();
    let socket = told
        .lines()
        .find_map(|line| line.strip_prefix("unix_socket_directories="));
    assert!(!PathBuf::from(socket.unwrap()).exists(), "{told}");
    assert_gone(&folders, 4);
}

/// What a standby's own settings say of its surroundings is not done on a copy: the archive, other servers and files are those
/// of production.
#[tokio::test(flavor = "multi_thread")]
async fn a_drill_s_server_does_nothing_outside_that_its_cluster_asks_for() {
    let place = Place::new().await;
    // More than a server has that is not told otherwise, which a standby's needs, too.
    let primary = server(&[("full_page_writes", "on"), ("max_connections", "500")]);
    Ledger::make(&primary, 1_000_000).await;
    let server = primary.standby();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    let at = |name: &str| outside.join(name).display().to_string();
    let client = connect(&server).await;
    for (setting, value) in [
        ("archive_mode", "always".to_owned()),
        ("archive_command", format!("touch {}", at("archived"))),
        (
            "archive_cleanup_command",
            format!("touch {}", at("cleaned")),
        ),
        ("restore_command", format!("touch {}; false", at("fetched"))),
        ("external_pid_file", at("pid")),
        ("listen_addresses", "*".into()),
        ("logging_collector", "on".into()),
        ("log_directory", outside.display().to_string()),
        ("unix_socket_directories", outside.display().to_string()),
        ("shared_preload_libraries", "runs_jobs".into()),
    ] {
        // The running server is not asked to read them.
        let set = format!("alter system set {setting} = '{value}'");
        client.batch_execute(&set).await.unwrap();
    }
    place.back_up(place.config(&server)).await.unwrap();
    let queries = [
        "select pg_is_in_recovery()",
        "select count(*) = 2000 from accounts",
    ];
    let folders = Folders::default();
    let mut serves = ground(&place, "served").with_probe(asks(&queries, &folders));
    let served = hold(&place, DrillLevel::Serve, &mut serves, |_| {}).await;
    assert!(served.passed(), "{served:?}");
    let settings = fs::read_to_string(place.path("served/postgresql.auto.conf")).unwrap();
    for setting in ["runs_jobs", "primary_conninfo"] {
        assert!(settings.contains(setting), "{settings}");
    }
    let port = format!("port={}", primary.port());
    assert!(settings.contains(&port), "{settings}");
    let made: Vec<_> = fs::read_dir(&outside).unwrap().collect();
    assert!(made.is_empty(), "{made:?}");
    assert_gone(&folders, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_slowness_and_production_fail_the_drill() {
    let (place, server) = (Place::new().await, server(&[]));
    Ledger::make(&server, 1_000_000).await;
    let made = place.back_up(place.config(&server)).await.unwrap();
    let data: String = connect(&server)
        .await
        .query_one("show data_directory", &[])
        .await
        .unwrap()
        .get(0);
    let mut near = ClusterGround::new(
        &PathBuf::from(&data).join("scratch"),
        ClusterRestoreOptions::default(),
    )
    .unwrap();
    let refused = hold(&place, DrillLevel::Load, &mut near, |drill| {
        drill.production = vec![data.clone()];
    })
    .await;
    says(&refused, &["is production, and no drill restores there"]);
    assert!(!PathBuf::from(&data).join("scratch").exists());
    assert!(!PathBuf::from(&data).join(".scratch.restoring").exists());

    let mut late = ground(&place, "late");
    let slow = hold(&place, DrillLevel::Load, &mut late, |drill| {
        drill.objectives = Objectives {
            recovery_time: Some(Duration::from_millis(1)),
            ..Objectives::default()
        };
    })
    .await;
    says(&slow, &["the time to recover is"]);

    // What PostgreSQL itself finds wrong, though it is what was signed.
    let folder = place.path("verifiers");
    fs::create_dir(&folder).unwrap();
    let verifier = folder.join("pg_verifybackup");
    let script = "#!/bin/sh\nfor last; do :; done; [ -d \"$last\" ] && printf x | dd of=\"$last/PG_VERSION\" conv=notrunc \
                  status=none\nexec /usr/lib/postgresql/15/bin/pg_verifybackup \"$@\"\n";
    fs::write(&verifier, script).unwrap();
    fs::set_permissions(&verifier, fs::Permissions::from_mode(0o755)).unwrap();
    let options = ClusterRestoreOptions::default().with_programs(Some(folder.clone()));
    let mut damaged = ClusterGround::new(&place.path("damaged"), options.clone()).unwrap();
    let found = hold(&place, DrillLevel::Load, &mut damaged, |_| {}).await;
    says(&found, &["checksum mismatch for file \"PG_VERSION\""]);
    assert!(!place.path("damaged").exists());
    // Without it, nothing is proven.
    fs::remove_file(&verifier).unwrap();
    let mut unseen = ClusterGround::new(&place.path("unseen"), options).unwrap();
    let found = hold(&place, DrillLevel::Load, &mut unseen, |_| {}).await;
    says(&found, &["no pg_verifybackup of PostgreSQL 15 is there"]);

    let pack = Pack::key(&made.manifest.packs[0].id).unwrap();
    let bytes = made.manifest.packs[0].bytes;
    let mut body = place
        .target
        .read(&pack, 0..bytes)
        .await
        .unwrap()
        .unwrap()
        .to_vec();
    body[bytes as usize / 2] ^= 1;
    place.target.remove(&pack).await.unwrap().unwrap();
    let put = place.target.put(&pack, body.into(), &PutIf::Absent, None);
    put.await.unwrap().unwrap();
    let mut flipped = ground(&place, "flipped");
    let found = hold(&place, DrillLevel::Load, &mut flipped, |_| {}).await;
    says(&found, &[pack.as_str()]);
    let found = hold(&place, DrillLevel::Replay, &mut ReplayGround, |_| {}).await;
    says(&found, &[pack.as_str()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_pg_restore_can_not_read_fails_the_drill() {
    let (place, server) = (Place::new().await, server(&[]));
    Ledger::make(&server, 4_000_000).await;
    let config = place.config(&server).with_database(Some("postgres".into()));
    place.dump(config.clone()).await.unwrap();
    let mut loads = DumpGround::new(&place.path("dump"), None).unwrap();
    let held = hold(&place, DrillLevel::Load, &mut loads, |_| {}).await;
    assert!(held.passed(), "{held:?}");
    let bytes: u64 = held.drill.proofs[0].found.parse().unwrap();
    // As text, a byte takes two digits.
    assert!(bytes > 8_000_000, "{bytes}");
    let mut replayed = ReplayGround;
    assert!(
        hold(&place, DrillLevel::Replay, &mut replayed, |_| {})
            .await
            .passed()
    );

    // A program that says that all is well, and leaves out the end.
    let found = Command::new("sh")
        .args(["-c", "command -v pg_dump"])
        .output()
        .unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let folder = programs(
        &place,
        "pg_dump",
        &format!("{} \"$@\" | head -c 2000000", found.trim()),
    );
    place
        .dump(config.with_programs(Some(folder)))
        .await
        .unwrap();
    let mut cut = DumpGround::new(&place.path("cut"), None).unwrap();
    let held = hold(&place, DrillLevel::Load, &mut cut, |_| {}).await;
    says(&held, &["running pg_restore failed"]);
    // A cluster's ground takes no dump.
    let mut other = ground(&place, "other");
    let held = hold(&place, DrillLevel::Load, &mut other, |_| {}).await;
    says(&held, &["is no cluster"]);
}
