//! Whatever goes wrong fails the backup, lists nothing, leaves no program behind, and says what to do.
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
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{
    Ledger, Place, STREAMS, chain, connect, number, programs, programs_of, server, until,
    until_none_of,
};
use groundtackle_backup::{Error, Retryability};
use groundtackle_backup_postgres::{PostgresBackup, PostgresBackupConfig, PostgresDump};
use groundtackle_core::{ByteSize, Secret};
use groundtackle_testkit_servers::{Postgres, PostgresOptions};
use rustix::process::{Pid, Signal, kill_process};

/// Slow enough that what is done meanwhile is done in the middle.
fn slow(config: PostgresBackupConfig) -> PostgresBackupConfig {
    config.with_max_rate(Some(ByteSize::mib(4)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_in_the_middle() {
    let (place, mut server) = (Place::new().await, server(&[]));
    Ledger::make(&server, 16_000_000).await;
    let client = connect(&server).await;
    let config = slow(place.config(&server));
    let refused = place.refused(config.clone());
    let killed = async {
        until(&client, STREAMS).await;
        server.kill();
    };
    let ((error, text), ()) = tokio::join!(refused, killed);
    assert!(
        text.contains("running pg_basebackup failed: exit status 1"),
        "{text}"
    );
    assert_eq!(error.retryability(), Retryability::Transient);
    assert!(programs_of(server.port()).is_empty());
    // Down, it says so; up again, the next one is whole.
    let (_, text) = place.refused(config.with_hold_wal(false)).await;
    assert!(text.contains("Connection refused"), "{text}");
    server.restart();
    let made = place.back_up(place.config(&server)).await.unwrap();
    place.restore_verified(&made.manifest, "restored").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_and_a_backup_that_is_dropped() {
    let (place, server) = (Place::new().await, server(&[]));
    Ledger::make(&server, 16_000_000).await;
    let client = connect(&server).await;
    let config = slow(place.config(&server)).with_stall_timeout(Duration::from_secs(3));
    let refused = place.refused(config.clone());
    let hang = async {
        until(&client, STREAMS).await;
        let sender = "select pid::bigint from pg_stat_progress_basebackup";
        let sender = number(&client, sender).await;
        let sender = Pid::from_raw(i32::try_from(sender).unwrap()).unwrap();
        kill_process(sender, Signal::STOP).unwrap();
        sender
    };
    let ((error, text), sender) = tokio::join!(refused, hang);
    kill_process(sender, Signal::CONT).unwrap();
    assert!(
        text.contains("brought nothing for 3 s and was killed"),
        "{text}"
    );
    assert_eq!(error.retryability(), Retryability::Transient);
    assert!(programs_of(server.port()).is_empty());
    let over = "select (count(*) = 0)::int::bigint from pg_stat_progress_basebackup";
    until(&client, over).await;

    // Dropped in the middle: no program is left, nor a slot on the server.
    {
        let dropped = place.back_up(slow(place.config(&server)));
        let streams = async {
            until(&client, STREAMS).await;
            assert_eq!(programs_of(server.port()).len(), 2);
        };
        tokio::select! {
            made = dropped => panic!("it was not dropped: {made:?}"),
            () = streams => {}
        }
    }
    until_none_of(server.port()).await;
    until(&client, over).await;
    let slots = "select (count(*) = 0)::int::bigint from pg_replication_slots";
    until(&client, slots).await;
    assert_eq!(place.listed().await, 0);
}

/// What is set up wrongly, and what helps.
#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_setting_is_told_with_the_way_out() {
    let place = Place::new().await;
    let server = Postgres::start(PostgresOptions {
        password: Some("right".into()),
        ..PostgresOptions::default()
    });
    let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
        .batch_execute("create role plain login password 'right'")
        .await
        .unwrap();
    let right = place
        .config(&server)
        .with_password(Some(Secret::from("right")));
    let empty = place.path("empty");
    fs::create_dir(&empty).unwrap();
    let cases = [
        (
            right.clone().with_programs(Some(empty)),
            "psql is not there: install PostgreSQL's client programs",
        ),
        (
            right.clone().with_password(Some(Secret::from("wrong"))),
            "set the role's password in password or passfile",
        ),
        (
            right.clone().with_password(None),
            "set the role's password in password or passfile",
        ),
        (
            right.clone().with_user(Some("plain".into())),
            "alter role … replication",
        ),
        (
            right.clone().with_user(Some("nobody".into())),
            "set the role's password",
        ),
        (
            right
                .clone()
                .with_sslmode(groundtackle_backup_postgres::SslMode::Require),
            "sslmode to disable where nobody else listens",
        ),
        (
            right.clone().with_sslmode(Default::default()),
            "set up TLS on the server",
        ),
    ];
    for (config, says) in cases {
        for hold in [true, false] {
            let (error, text) = place.refused(config.clone().with_hold_wal(hold)).await;
            let says = says.replace("psql", if hold { "psql" } else { "pg_basebackup" });
            assert!(text.contains(&says), "{says}: {text}");
            assert_eq!(error.retryability(), Retryability::Permanent, "{text}");
        }
    }
    // The password file does as well.
    let passfile = place.path("pgpass");
    fs::write(
        &passfile,
        format!("127.0.0.1:{}:*:postgres:right\n", server.port()),
    )
    .unwrap();
    fs::set_permissions(
        &passfile,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let config = right.with_password(None).with_passfile(Some(passfile));
    place.back_up(config.clone()).await.unwrap();

    // A tablespace elsewhere, in a folder that the server makes itself.
    let elsewhere = tempfile::TempDir::new().unwrap();
    fs::set_permissions(
        elsewhere.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let folder = elsewhere.path().join("space");
    let (make, space) = (
        format!(
            "copy (select 1) to program 'cat > /dev/null; mkdir {}'",
            folder.display()
        ),
        format!(
            "create tablespace elsewhere location '{}'",
            folder.display()
        ),
    );
    client.batch_execute(&make).await.unwrap();
    client.batch_execute(&space).await.unwrap();
    let (_, text) = place.refused(config).await;
    assert!(
        text.contains("move what is in them to pg_default"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_replication_says_so() {
    let place = Place::new().await;
    let minimal = server(&[("wal_level", "minimal"), ("max_wal_senders", "0")]);
    let (_, text) = place.refused(place.config(&minimal)).await;
    assert!(
        text.contains("set wal_level to replica and max_wal_senders"),
        "{text}"
    );
    let none = server(&[("max_replication_slots", "0")]);
    let (_, text) = place.refused(place.config(&none)).await;
    assert!(text.contains("raise max_replication_slots"), "{text}");
    place
        .back_up(place.config(&none).with_hold_wal(false))
        .await
        .unwrap();
}

/// A stream that was cut or changed, from a program that says that all is well.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_all_that_the_server_listed_is_refused() {
    let (place, server) = (Place::new().await, server(&[]));
    let stream = place.path("stream");
    let whole = Command::new("pg_basebackup")
        .args([
            "--pgdata=-",
            "--format=tar",
            "--wal-method=fetch",
            "--checkpoint=fast",
        ])
        .args(["--manifest-checksums=CRC32C", "--dbname", &server.url()])
        .stdout(fs::File::create(&stream).unwrap())
        .status()
        .unwrap();
    assert!(whole.success());
    let bytes = fs::read(&stream).unwrap();
    let folder = programs(
        &place,
        "pg_basebackup",
        &format!("exec cat {}", stream.display()),
    );
    let config = place
        .config(&server)
        .with_hold_wal(false)
        .with_programs(Some(folder));
    let mut random = fastrand::Rng::with_seed(5);
    // Where the files' contents are; the log has sums of its own, which PostgreSQL checks.
    let mut contents = Vec::new();
    let mut archive = tar::Archive::new(&*bytes);
    let mut end = 0;
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let (at, path) = (entry.raw_file_position(), entry.path_bytes().into_owned());
        end = end.max(at + entry.size());
        if entry.size() > 0 && !path.starts_with(b"pg_wal/") {
            contents.push(at..at + entry.size());
        }
    }
    for cut in (0..12).map(|_| random.u64(0..end)).chain([0, 511, end - 1]) {
        fs::write(&stream, &bytes[..usize::try_from(cut).unwrap()]).unwrap();
        let (error, text) = place.refused(config.clone()).await;
        let whole = matches!(error, Error::Incomplete { .. } | Error::Backend { .. });
        assert!(whole, "cut at {cut}: {text}");
    }
    for _ in 0..12 {
        let content = contents[random.usize(..contents.len())].clone();
        let at = usize::try_from(random.u64(content)).unwrap();
        let mut changed = bytes.clone();
        changed[at] ^= 1 << random.u8(0..8);
        fs::write(&stream, changed).unwrap();
        let (error, text) = place.refused(config.clone()).await;
        assert!(
            matches!(error, Error::Incomplete { .. }),
            "changed at {at}: {text}"
        );
    }
    let mut longer = bytes.clone();
    longer.extend(*b"more");
    fs::write(&stream, longer).unwrap();
    let (_, text) = place.refused(config.clone()).await;
    assert!(text.contains("something follows the end"), "{text}");
    // As it was, it is taken.
    fs::write(&stream, bytes).unwrap();
    let made = place.back_up(config).await.unwrap();
    place.restore_verified(&made.manifest, "restored").await;
}

const SECRET: &str = "pa55-which-nobody-sees";

fn assert_not_in(folder: &Path) {
    let found = Command::new("grep")
        .args(["--recursive", "--text", "--files-with-matches", SECRET])
        .arg(folder)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_seen() {
    let place = Place::new().await;
    let server = Postgres::start(PostgresOptions {
        password: Some(SECRET.into()),
        ..PostgresOptions::default()
    });
    let config = place
        .config(&server)
        .with_password(Some(Secret::from(SECRET)));
    assert!(!format!("{config:?}").contains(SECRET));
    let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let backing_up = place.back_up(slow(config.clone()));
    let look = async {
        until(&client, STREAMS).await;
        let running = programs_of(server.port());
        assert_eq!(running.len(), 2);
        for program in running {
            let arguments = fs::read(program.join("cmdline")).unwrap();
            assert!(!String::from_utf8_lossy(&arguments).contains(SECRET));
        }
    };
    let (made, ()) = tokio::join!(backing_up, look);
    let made = made.unwrap();
    assert!(!format!("{made:?}").contains(SECRET));
    place.restore_verified(&made.manifest, "restored").await;
    place.as_files("repository").await;
    assert_not_in(place.folder.path());

    // Not even from a program that tells it.
    let folder = programs(
        &place,
        "pg_basebackup",
        "echo \"no: $PGPASSWORD\" >&2; exit 3",
    );
    let config = config.with_programs(Some(folder));
    let (error, text) = place.refused(config.clone()).await;
    assert!(text.ends_with("no: ***"), "{text}");
    assert!(!format!("{error:?} {text}").contains(SECRET));
    let shown = format!(
        "{:?} {:?}",
        PostgresBackup::new(config.clone()).unwrap(),
        PostgresDump::new(config.with_database(Some("postgres".into()))).unwrap()
    );
    assert!(!shown.contains(SECRET));
}

#[test]
fn configs_are_read_and_bad_ones_refused() {
    let config: PostgresBackupConfig = toml::from_str(
        "host = \"db\"\nport = 5433\nuser = \"backup\"\nsslmode = \"verify-ca\"\nstate = \"/s\"\nmax_rate = \"64MiB\"\n\
         stall_timeout = \"2m\"\nfast_checkpoint = false",
    )
    .unwrap();
    PostgresBackup::new(config.clone()).unwrap();
    assert_eq!(config.stall_timeout, Duration::from_secs(120));
    assert!(toml::from_str::<PostgresBackupConfig>("hots = \"db\"").is_err());
    assert!(toml::from_str::<PostgresBackupConfig>("sslmode = \"prefer\"").is_err());
    let default = PostgresBackupConfig::default;
    for (config, says) in [
        (default().with_host(Some(String::new())), "is empty"),
        (default().with_user(Some("a\0".into())), "zero byte"),
        (
            default().with_database(Some("password=x dbname=y".into())),
            "connection string",
        ),
        (
            default().with_database(Some("postgres://a:b@c".into())),
            "connection string",
        ),
        (
            default().with_connect_timeout(Duration::from_secs(1)),
            "connect_timeout",
        ),
        (
            default().with_stall_timeout(Duration::ZERO),
            "stall_timeout",
        ),
        (
            default().with_max_rate(Some(ByteSize::new(1))),
            "max_rate is not within",
        ),
    ] {
        let error = PostgresBackup::new(config).unwrap_err();
        assert!(matches!(error, Error::InvalidRequest { .. }));
        assert!(error.to_string().contains(says), "{}", chain(&error));
    }
    let error = PostgresDump::new(default()).unwrap_err();
    assert!(error.to_string().contains("name the one to dump"));
}
