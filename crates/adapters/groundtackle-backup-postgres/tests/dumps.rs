//! One database, dumped and restored by PostgreSQL's own `pg_restore`.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod common;

use std::process::Command;

use common::{Ledger, Place, chain, connect, number, programs, server};
use groundtackle_backup::Error;
use groundtackle_backup_postgres::{ClusterRestoreOptions, restore_dump};

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_comes_back_by_pg_restore() {
    let (place, server) = (Place::new().await, server(&[]));
    Ledger::make(&server, 16_000_000).await;
    let config = place.config(&server).with_database(Some("postgres".into()));
    let ledger = Ledger::load(&server, 3).await;
    let before = ledger.so_far();
    let first = place.dump(config.clone()).await.unwrap();
    ledger.stop().await;
    let second = place.dump(config).await.unwrap();
    println!(
        "first: {} new bytes; second: {}",
        first.new_bytes, second.new_bytes
    );
    // What did not change is found again, wherever it begins.
    assert!(first.new_bytes > 16_000_000, "{}", first.new_bytes);
    assert!(second.new_bytes < 6_000_000, "{}", second.new_bytes);

    let keys = place.identities();
    let into = place.path("dump");
    let file = restore_dump(&place.repository, &first.manifest, &keys, &into);
    let file = file.await.unwrap();
    let client = connect(&server).await;
    client.batch_execute("create database again").await.unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/again", server.port());
    let restored = Command::new("pg_restore")
        .args(["--exit-on-error", "--dbname"])
        .arg(&url)
        .arg(&file)
        .output()
        .unwrap();
    assert!(restored.status.success(), "{restored:?}");
    let (again, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    Ledger::assert_whole(&again, &before).await;
    assert_eq!(number(&again, "select count(*) from ballast").await, 2_000);

    // Each is restored as what it is.
    let error = place
        .restore(&first.manifest, "cluster", ClusterRestoreOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
    assert!(!place.path("cluster").exists());
    let cluster = place.back_up(place.config(&server)).await.unwrap();
    let into = place.path("none");
    let error = restore_dump(&place.repository, &cluster.manifest, &keys, &into).await;
    assert!(error.unwrap_err().to_string().contains("is no dump"));
    assert!(!into.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_fails_half_way_lists_nothing() {
    let (place, server) = (Place::new().await, server(&[]));
    Ledger::make(&server, 16_000_000).await;
    let config = place.config(&server).with_database(Some("postgres".into()));
    let there = Command::new("sh")
        .args(["-c", "command -v pg_dump"])
        .output()
        .unwrap();
    let there = String::from_utf8(there.stdout).unwrap();
    let there = there.trim();

    // The server throws it out after it has sent some.
    let folder = programs(
        &place,
        "pg_dump",
        &format!(
            "{there} \"$@\" | {{ head -c 3000000; psql -c \"select pg_terminate_backend(pid) from pg_stat_activity \
             where application_name = 'groundtackle-backup' and pid <> pg_backend_pid()\" >/dev/null; cat; }}; \
             {there} --file=/nonexistent/file"
        ),
    );
    let cut = config.clone().with_programs(Some(folder.clone()));
    let error = place.dump(cut).await.unwrap_err();
    assert!(chain(&error).contains("exit status 1"), "{error:?}");
    assert!(
        chain(&error).contains("running pg_dump failed"),
        "{error:?}"
    );

    // What is not in the format is not taken, though the program says that all is well.
    programs(&place, "pg_dump", "echo 'select 1'");
    let error = place
        .dump(config.clone().with_programs(Some(folder)))
        .await
        .unwrap_err();
    assert!(chain(&error).contains("custom format"), "{error:?}");

    let none = config.clone().with_database(Some("nowhere".into()));
    let error = place.dump(none).await.unwrap_err();
    let text = chain(&error);
    assert!(
        text.contains("database \"nowhere\" does not exist"),
        "{text}"
    );
    assert!(
        text.contains("write the name of a role or database"),
        "{text}"
    );

    // A table that another one holds.
    let client = connect(&server).await;
    client
        .batch_execute("begin; lock table accounts in access exclusive mode")
        .await
        .unwrap();
    let short = config.with_stall_timeout(std::time::Duration::from_secs(1));
    let error = place.dump(short).await.unwrap_err();
    println!("{}", chain(&error));
    assert!(matches!(error, Error::Backend { .. }), "{error:?}");
    assert_eq!(place.listed().await, 0);
}
