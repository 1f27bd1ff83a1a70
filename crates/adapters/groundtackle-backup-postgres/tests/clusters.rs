//! Clusters that are backed up while they are written to, restored, verified by PostgreSQL, and started.
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
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use common::{
    IDENTITY, Ledger, Place, STREAMS, chain, connect, number, programs_of, server, shown, until,
};
use groundtackle_backup::Error;
use groundtackle_backup_postgres::{ClusterRestoreOptions, Verify};
use groundtackle_backup_unpack::{Hex, Identities, Repository as Unpacker};
use groundtackle_core::ByteSize;

/// What a segment of the server's log has.
const WAL_SEGMENT: u64 = 16 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_under_load_comes_back_whole() {
    let (place, server) = (Place::new().await, server(&[]));
    Ledger::make(&server, 24_000_000).await;
    let ledger = Ledger::load(&server, 7).await;
    let client = connect(&server).await;
    // Written to from beginning to end of the first one.
    until(&client, "select count(*) from transfers").await;
    let before = ledger.so_far();
    let first = place.back_up(place.config(&server)).await.unwrap();
    let before_second = ledger.so_far();
    assert!(before_second.len() > before.len(), "there was no load");
    let second = place.back_up(place.config(&server)).await.unwrap();
    let all = ledger.stop().await;

    for (made, at_least, into) in [
        (&first, &before, "first"),
        (&second, &before_second, "second"),
    ] {
        let restored = place.restore_verified(&made.manifest, into).await;
        assert_eq!(restored.version, 15);
        assert_modes(&place.path(into));
        let again = server.on_copy(&place.path(into));
        let there = Ledger::assert_whole(&connect(&again).await, at_least).await;
        assert!(there <= all.len());
        println!(
            "{into}: {} entries, {} bytes, {} of them new; {} transfers before it began, {there} restored, {} in the end",
            restored.restored.entries,
            restored.restored.bytes,
            made.new_bytes,
            at_least.len(),
            all.len()
        );
    }
}

/// What PostgreSQL asks for: nobody but its user.
fn assert_modes(cluster: &Path) {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(cluster), 0o700);
    assert_eq!(mode(&cluster.join("base")), 0o700);
    assert_eq!(mode(&cluster.join("global/pg_control")), 0o600);
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    assert_eq!(owner(cluster), owner(&cluster.join(PG_VERSION)));
}

const PG_VERSION: &str = "PG_VERSION";

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_added() {
    let (place, server) = (Place::new().await, server(&[]));
    Ledger::make(&server, 48_000_000).await;
    let first = place.back_up(place.config(&server)).await.unwrap();
    let client = connect(&server).await;
    let change = "update accounts set amount = amount + 1 where id <= 10";
    client.batch_execute(change).await.unwrap();
    let second = place.back_up(place.config(&server)).await.unwrap();
    assert_eq!(second.manifest.content.uses().len(), 1);
    let bytes = |into: &str| -> u64 {
        let logs = fs::read_dir(place.path(into).join("pg_wal")).unwrap();
        let lengths = logs.map(|log| log.unwrap().metadata().unwrap());
        lengths
            .filter(|log| log.is_file())
            .map(|log| log.len())
            .sum()
    };
    let all = place
        .restore_verified(&second.manifest, "second")
        .await
        .restored
        .bytes;
    let log = bytes("second");
    println!(
        "first: {} new bytes; second: {} new of {all}, {log} of them the log of changes",
        first.new_bytes, second.new_bytes
    );
    // Chunks of 2 MiB at most around what changed, the log's beginning (the rest is zeros), and the listing.
    assert!(first.new_bytes > 60_000_000, "{}", first.new_bytes);
    assert!(second.new_bytes < 10_000_000, "{}", second.new_bytes);
    assert!(log <= 2 * WAL_SEGMENT, "{log}");
    // Compressed and sealed, a quiet segment of the log is next to nothing.
    assert!(
        second.manifest.encoded_bytes < 6_000_000,
        "{}",
        second.manifest.encoded_bytes
    );

    // Without the state, everything again.
    let config = place.config(&server).with_state(None);
    let whole = place.back_up(config).await.unwrap();
    assert!(whole.manifest.content.uses().is_empty());
    assert!(whole.new_bytes > 60_000_000, "{}", whole.new_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_independent_reader_reads_it_byte_for_byte() {
    let (place, server) = (Place::new().await, server(&[]));
    Ledger::make(&server, 4_000_000).await;
    place.back_up(place.config(&server)).await.unwrap();
    let ledger = Ledger::load(&server, 11).await;
    let second = place.back_up(place.config(&server)).await.unwrap();
    ledger.stop().await;
    let repository = place.as_files("repository").await;
    fs::write(place.path("identity"), IDENTITY).unwrap();
    let identities = Identities::read(&place.path("identity")).unwrap();
    let trust = Hex(place.signer.public().0);
    let unpacker = Unpacker::open(&repository, &[trust]).unwrap();
    let sums = unpacker.unpack_tree(None, None, &identities, &place.path("unpacked"));
    let restored = place.restore_verified(&second.manifest, "restored").await;
    let restored = restored.restored;
    assert_eq!(sums.unwrap(), (restored.entries, restored.bytes));
    let (unpacked, engine) = (
        shown(&place.path("unpacked")),
        shown(&place.path("restored")),
    );
    assert!(unpacked == engine);
    assert!(engine.len() > 900, "{}", engine.len());
    let verified = Command::new("/usr/lib/postgresql/15/bin/pg_verifybackup")
        .arg(place.path("unpacked"))
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_finds_damaged_does_not_take_its_place() {
    let (place, server) = (Place::new().await, server(&[]));
    let made = place.back_up(place.config(&server)).await.unwrap();
    // Its own check is run on what was restored: of another program of that name, the verdict counts.
    let folder = place.path("verifiers");
    fs::create_dir(&folder).unwrap();
    let verifier = folder.join("pg_verifybackup");
    let write = |script: &str| {
        fs::write(&verifier, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&verifier, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let options = || ClusterRestoreOptions::default().with_programs(Some(folder.clone()));
    let real = "exec /usr/lib/postgresql/15/bin/pg_verifybackup \"$@\"";

    // A byte of a table is changed before PostgreSQL looks.
    write(&format!(
        "for last; do :; done; [ -d \"$last\" ] && printf x | dd of=\"$last/PG_VERSION\" conv=notrunc status=none; {real}"
    ));
    let error = place.restore(&made.manifest, "damaged", options()).await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Differs { .. }), "{error:?}");
    assert!(
        chain(&error).contains("checksum mismatch for file \"PG_VERSION\""),
        "{error}"
    );
    assert!(!place.path("damaged").exists());

    // One that never ends.
    write(
        "case $1 in --version) echo 'pg_verifybackup (PostgreSQL) 15.1';; *) exec sleep 1000;; esac",
    );
    let short = options().with_verify_timeout(std::time::Duration::from_secs(1));
    let error = place
        .restore(&made.manifest, "endless", short)
        .await
        .unwrap_err();
    assert!(
        chain(&error).contains("brought nothing for 1 s and was killed"),
        "{error}"
    );
    assert!(!place.path("endless").exists());

    // One of another version knows nothing of this log.
    write("echo 'pg_verifybackup (PostgreSQL) 16.2'");
    let required = options().with_verify(Verify::Require);
    let error = place
        .restore(&made.manifest, "other", required)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("no pg_verifybackup of PostgreSQL 15"),
        "{error}"
    );
    assert!(!place.path("other").exists());
    let restored = place
        .restore(&made.manifest, "other", options())
        .await
        .unwrap();
    assert!(!restored.verified);
    let skipped = ClusterRestoreOptions::default().with_verify(Verify::Skip);
    let restored = place
        .restore(&made.manifest, "skipped", skipped)
        .await
        .unwrap();
    assert!(!restored.verified);

    // Not over what is there.
    let error = place
        .restore(&made.manifest, "other", options())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("it is not empty"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_restore_is_never_taken_for_a_whole_one() {
    let (place, server) = (Place::new().await, server(&[]));
    let made = place.back_up(place.config(&server)).await.unwrap();
    let options = ClusterRestoreOptions::default;
    {
        let restoring = place.restore(&made.manifest, "restored", options());
        tokio::pin!(restoring);
        // Dropped as soon as something of it is on the disk.
        loop {
            tokio::select! {
                biased;
                _ = &mut restoring => panic!("it was not interrupted"),
                () = tokio::task::yield_now() => {}
            }
            if place.path(".restored.restoring/base").exists() {
                break;
            }
        }
    }
    assert!(!place.path("restored").exists());
    // What goes on in the thread ends by itself, and the next one takes its place.
    let begun = std::time::Instant::now();
    loop {
        match place.restore(&made.manifest, "restored", options()).await {
            Ok(restored) => break assert!(restored.verified),
            Err(error) => {
                let waits = error.to_string().contains("another restore works on it");
                assert!(waits && begun.elapsed() < common::PATIENCE, "{error}");
            }
        }
    }
    server.on_copy(&place.path("restored"));
}

/// A small and busy server, which removes its log as soon as it may.
async fn busy_while_backed_up(hold: bool) -> Result<(), String> {
    let settings = [("max_wal_size", "32MB"), ("wal_keep_size", "0")];
    let (place, server) = (Place::new().await, server(&settings));
    Ledger::make(&server, 8_000_000).await;
    let config = place
        .config(&server)
        .with_hold_wal(hold)
        .with_max_rate(Some(ByteSize::mib(8)));
    let client = connect(&server).await;
    let backing_up = async {
        let made = place.back_up(config).await;
        made.map_err(|error| chain(&error))
    };
    let busy = async {
        until(&client, STREAMS).await;
        for _ in 0..6 {
            client
                .batch_execute("select pg_switch_wal()")
                .await
                .unwrap();
            client
                .batch_execute("update accounts set amount = amount")
                .await
                .unwrap();
            client.batch_execute("checkpoint").await.unwrap();
        }
        let slots = "select count(*) from pg_replication_slots where slot_name like 'groundtackle_%' and temporary";
        assert_eq!(number(&client, slots).await, i64::from(hold));
    };
    let (made, ()) = tokio::join!(backing_up, busy);
    // It goes with its connection, which the server may notice a little later.
    until(
        &client,
        "select (count(*) = 0)::int::bigint from pg_replication_slots",
    )
    .await;
    assert!(programs_of(server.port()).is_empty());
    let made = made?;
    place.restore_verified(&made.manifest, "restored").await;
    let again = server.on_copy(&place.path("restored"));
    Ledger::assert_whole(&connect(&again).await, &[]).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_that_a_backup_needs_is_kept_for_it() {
    busy_while_backed_up(true).await.unwrap();
    // Without that, it fails, and says what to do.
    let error = busy_while_backed_up(false).await.unwrap_err();
    assert!(error.contains("has already been removed"), "{error}");
    assert!(error.contains("set hold_wal to true"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_the_server_finds_damaged_fails_the_backup() {
    let (place, mut server) = (Place::new().await, server(&[]));
    Ledger::make(&server, 1_000_000).await;
    let client = connect(&server).await;
    let path =
        "select current_setting('data_directory') || '/' || pg_relation_filepath('accounts')";
    let path: String = client.query_one(path, &[]).await.unwrap().get(0);
    let data: String = client
        .query_one("show data_directory", &[])
        .await
        .unwrap()
        .get(0);
    server.stop();
    let enabled = Command::new("/usr/lib/postgresql/15/bin/pg_checksums")
        .args(["--enable", "--no-sync", "--pgdata", &data])
        .output();
    // As root it works as well, on files that stay the server's.
    let enabled = enabled.unwrap();
    assert!(enabled.status.success(), "{enabled:?}");
    server.restart();
    place.back_up(place.config(&server)).await.unwrap();
    let table = fs::File::options().write(true).open(&path).unwrap();
    table.write_all_at(b"rot", 8_192 * 3 + 5_000).unwrap();
    let (_, text) = place.refused(place.config(&server)).await;
    assert!(text.contains("checksum"), "{text}");
}
