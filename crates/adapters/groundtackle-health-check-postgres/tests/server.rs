//! Real PostgreSQL servers that are stopped, hung, restarted, given other passwords, full, read-only, and with a standby that is behind.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use groundtackle_core::ByteSize;
use groundtackle_health_check::{Check, Observation, Outcome};
use groundtackle_health_check_client::{SecretSource, Tls};
use groundtackle_health_check_postgres::{PostgresCheck, PostgresCheckConfig, Role};
use groundtackle_health_check_testkit::{Faults, ServerHarness, Watched};
use groundtackle_testkit_servers::{Certificates, Postgres, PostgresOptions};
use tokio_postgres::{Client, NoTls};

const PASSWORD: &str = "s3cr3t-pa55";

const PERIOD: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);

const FAULTS: Faults<Postgres> = Faults {
    stop: Postgres::stop,
    start: Postgres::restart,
    hang: |postgres| postgres.freeze(),
    resume: |postgres| postgres.thaw(),
};

fn start(password: Option<&str>, settings: &[(&str, &str)]) -> Postgres {
    let settings = settings.iter();
    Postgres::start(PostgresOptions {
        password: password.map(Into::into),
        settings: settings.map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        ..PostgresOptions::default()
    })
}

fn config(postgres: &Postgres) -> PostgresCheckConfig {
    PostgresCheckConfig::new(postgres.url().as_str()).with_tls(Tls::Off)
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn look(config: PostgresCheckConfig) -> Observation {
    PostgresCheck::from(config).check().await
}

/// Looks until it is so.
async fn becomes(config: PostgresCheckConfig, outcome: Outcome, cause: &str) -> Observation {
    groundtackle_health_check_testkit::becomes(&PostgresCheck::from(config), outcome, cause).await
}

fn server() -> ServerHarness<Postgres> {
    let check =
        |postgres: &Postgres| -> Arc<dyn Check> { Arc::new(PostgresCheck::from(config(postgres))) };
    ServerHarness::new(Ok(start(Some(PASSWORD), &[])), FAULTS, check).with_secret(PASSWORD)
}

groundtackle_health_check_testkit::check_conformance!(server());

fn write(file: &Path, password: &str) {
    fs::write(file, format!("{password}\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_the_server_is_seen_in_time_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    write(&file, PASSWORD);
    let mut postgres = start(Some(PASSWORD), &[]);
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", postgres.port());
    let config = PostgresCheckConfig::new(url.as_str())
        .with_tls(Tls::Off)
        .with_password(Some(SecretSource::File(file.clone())));
    let watched = Watched::start(PostgresCheck::from(config), PERIOD, TIMEOUT);
    watched.rounds(&mut postgres, &FAULTS, "refused").await;
    postgres.kill();
    watched.until(Outcome::Fail, "refused").await;
    postgres.restart();
    watched.until(Outcome::Pass, "ok").await;
    let client = connect(&postgres.url()).await;
    let change = "ALTER USER postgres PASSWORD 'another'";
    client.batch_execute(change).await.unwrap();
    watched.until(Outcome::Fail, "login-refused").await;
    write(&file, "another");
    watched.until(Outcome::Pass, "ok").await;
    fs::remove_file(&file).unwrap();
    watched.until(Outcome::Fail, "secret-unreadable").await;
    write(&file, "another");
    watched.until(Outcome::Pass, "ok").await;
    watched.stop().await;
}

#[tokio::test]
async fn logins_databases_and_rights_are_told_apart() {
    let postgres = start(Some(PASSWORD), &[]);
    let at = |login: &str, database: &str| {
        let url = format!(
            "postgres://{login}@127.0.0.1:{}/{database}",
            postgres.port()
        );
        PostgresCheckConfig::new(url.as_str()).with_tls(Tls::Off)
    };
    let admin = connect(&postgres.url()).await;
    admin
        .batch_execute("CREATE USER health PASSWORD 'pa55w0rd'")
        .await
        .unwrap();
    for (login, database, outcome, cause) in [
        ("health", "postgres", Outcome::Fail, "login-required"),
        ("health:pa55", "postgres", Outcome::Fail, "login-refused"),
        ("nobody:pa55", "postgres", Outcome::Fail, "login-refused"),
        ("health:pa55w0rd", "nothing", Outcome::Fail, "no-database"),
        ("health:pa55w0rd", "postgres", Outcome::Pass, "ok"),
    ] {
        let seen = look(at(login, database)).await;
        assert_eq!(
            (seen.outcome, seen.cause.as_str()),
            (outcome, cause),
            "{seen:?}"
        );
        assert!(!format!("{seen:?}").contains("pa55"), "{seen:?}");
    }
}

#[tokio::test]
async fn connections_are_counted_and_run_out() {
    // Seven are for anybody.
    let postgres = start(
        None,
        &[
            ("max_connections", "10"),
            ("superuser_reserved_connections", "3"),
        ],
    );
    let admin = connect(&postgres.url()).await;
    admin.batch_execute("CREATE USER health").await.unwrap();
    drop(admin);
    let url = postgres.url().replace("postgres@", "health@");
    // What others have is counted by whoever may not see it.
    let config = PostgresCheckConfig::new(url.as_str()).with_tls(Tls::Off);
    becomes(config.clone(), Outcome::Pass, "ok").await;
    let mut held = Vec::new();
    while held.len() < 5 {
        held.push(connect(&postgres.url()).await);
    }
    let seen = becomes(config.clone(), Outcome::Warn, "connections").await;
    assert_eq!(
        seen.detail.unwrap().as_ref(),
        "6 of 7 connections are in use"
    );
    held.push(connect(&url).await);
    let seen = becomes(config.clone(), Outcome::Fail, "connections").await;
    assert_eq!(
        seen.detail.unwrap().as_ref(),
        "7 of 7 connections are in use"
    );
    held.push(connect(&postgres.url()).await);
    becomes(config.clone(), Outcome::Fail, "too-many-connections").await;
    drop(held);
    becomes(config, Outcome::Pass, "ok").await;
}

#[tokio::test]
async fn a_read_only_server_is_told_when_asked() {
    let postgres = start(None, &[]);
    let writes = || config(&postgres).with_writable(true);
    assert_eq!(look(writes()).await, Observation::pass());
    let admin = connect(&postgres.url()).await;
    let set = "ALTER DATABASE postgres SET default_transaction_read_only = on";
    admin.batch_execute(set).await.unwrap();
    becomes(writes(), Outcome::Fail, "read-only").await;
    assert_eq!(look(config(&postgres)).await, Observation::pass());
    // What is asked each second must not fill the log.
    let log = postgres.log();
    assert!(!log.contains("WARNING") && !log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn replication_is_seen_from_both_sides() {
    let mut primary = start(
        None,
        &[
            ("wal_receiver_status_interval", "1s"),
            ("wal_retrieve_retry_interval", "200ms"),
        ],
    );
    let of_primary = || config(&primary).with_role(Some(Role::Primary));
    let with_standby = || of_primary().with_fail_standbys_below(1);
    becomes(with_standby(), Outcome::Fail, "standbys-missing").await;
    let standby = primary.standby();
    let of_standby = || config(&standby).with_role(Some(Role::Standby));
    becomes(with_standby(), Outcome::Pass, "ok").await;
    becomes(of_standby(), Outcome::Pass, "ok").await;
    becomes(
        config(&standby).with_role(Some(Role::Primary)),
        Outcome::Fail,
        "wrong-role",
    )
    .await;
    becomes(
        config(&standby).with_writable(true),
        Outcome::Fail,
        "read-only",
    )
    .await;

    // Nothing is behind, neither in bytes nor in time, however quiet it is.
    let exact = |config: PostgresCheckConfig| {
        config
            .with_fail_lag(Some(Duration::ZERO))
            .with_fail_lag_bytes(Some(ByteSize::new(0)))
    };
    let (on_primary, on_standby) = (connect(&primary.url()).await, connect(&standby.url()).await);
    on_primary
        .batch_execute("CREATE TABLE t (x text); CREATE USER health; GRANT pg_monitor TO health; CREATE USER blind")
        .await
        .unwrap();
    becomes(exact(of_standby()), Outcome::Pass, "ok").await;
    becomes(exact(of_primary()), Outcome::Pass, "ok").await;

    // A standby that replays nothing is behind, more and more.
    on_standby
        .batch_execute("SELECT pg_wal_replay_pause()")
        .await
        .unwrap();
    let fill = "INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 2000)";
    on_primary.batch_execute(fill).await.unwrap();
    let megabyte = Some(ByteSize::mib(1));
    let two_seconds = Some(Duration::from_secs(2));
    let seen = becomes(
        of_standby().with_fail_lag_bytes(megabyte),
        Outcome::Fail,
        "replication-lag",
    )
    .await;
    assert!(seen.detail.unwrap().starts_with("it is "));
    becomes(
        of_standby().with_warn_lag(two_seconds),
        Outcome::Warn,
        "replication-lag",
    )
    .await;
    let seen = becomes(
        of_primary().with_fail_lag_bytes(megabyte),
        Outcome::Fail,
        "replication-lag",
    )
    .await;
    assert!(seen.detail.unwrap().starts_with("a standby is "));
    becomes(
        of_primary().with_warn_lag(two_seconds),
        Outcome::Warn,
        "replication-lag",
    )
    .await;
    on_standby
        .batch_execute("SELECT pg_wal_replay_resume()")
        .await
        .unwrap();
    becomes(exact(of_standby()), Outcome::Pass, "ok").await;
    becomes(exact(of_primary()), Outcome::Pass, "ok").await;

    // Who may see it.
    let as_user = |user: &str, of: &Postgres| {
        let url = of.url().replace("postgres@", &format!("{user}@"));
        PostgresCheckConfig::new(url.as_str()).with_tls(Tls::Off)
    };
    becomes(exact(as_user("health", &standby)), Outcome::Pass, "ok").await;
    becomes(exact(as_user("health", &primary)), Outcome::Pass, "ok").await;
    becomes(
        as_user("blind", &standby),
        Outcome::Unknown,
        "not-permitted",
    )
    .await;
    becomes(
        exact(as_user("blind", &primary)),
        Outcome::Unknown,
        "not-permitted",
    )
    .await;
    becomes(as_user("blind", &primary), Outcome::Pass, "ok").await;

    // A standby that has lost its primary.
    drop(on_primary);
    primary.stop();
    becomes(of_standby(), Outcome::Fail, "not-streaming").await;
    becomes(of_standby().with_must_stream(false), Outcome::Pass, "ok").await;
    becomes(
        of_standby()
            .with_must_stream(false)
            .with_fail_lag(two_seconds),
        Outcome::Fail,
        "replication-lag",
    )
    .await;
    primary.restart();
    becomes(of_standby(), Outcome::Pass, "ok").await;
    becomes(
        config(&primary).with_fail_standbys_below(1),
        Outcome::Pass,
        "ok",
    )
    .await;
}

/// What receives the changes is a process of its own: hung, it tells its primary nothing.
#[tokio::test]
async fn a_standby_that_has_told_nothing_for_long_counts_as_behind() {
    let primary = start(None, &[("wal_receiver_status_interval", "1s")]);
    let standby = primary.standby();
    let limit = config(&primary).with_fail_lag(Some(Duration::from_secs(3)));
    becomes(
        config(&primary).with_fail_standbys_below(1),
        Outcome::Pass,
        "ok",
    )
    .await;
    let (on_primary, on_standby) = (connect(&primary.url()).await, connect(&standby.url()).await);
    let row = on_standby
        .query_one("SELECT pid FROM pg_stat_wal_receiver", &[])
        .await
        .unwrap();
    let receiver = rustix::process::Pid::from_raw(row.get(0)).unwrap();
    let signal = |signal| rustix::process::kill_process(receiver, signal).unwrap();
    signal(rustix::process::Signal::STOP);
    on_primary
        .batch_execute("CREATE TABLE t (x text)")
        .await
        .unwrap();
    becomes(limit.clone(), Outcome::Fail, "replication-lag").await;
    signal(rustix::process::Signal::CONT);
    becomes(limit, Outcome::Pass, "ok").await;
}

#[tokio::test]
async fn tls_is_verified() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let postgres = Postgres::start(PostgresOptions {
        password: Some(PASSWORD.into()),
        tls: Some(ours.server_and_key()),
        ..PostgresOptions::default()
    });
    let by = |certificates: &Certificates| {
        PostgresCheckConfig::new(postgres.url().as_str())
            .with_tls_authorities(Some(certificates.authority()))
    };
    assert_eq!(look(by(&ours)).await, Observation::pass());
    let seen = look(by(&others)).await;
    assert_eq!(seen.cause.as_str(), "certificate-untrusted", "{seen:?}");
    // Whatever the URL says, nothing goes to a server without TLS.
    let plain = start(Some(PASSWORD), &[]);
    let url = format!("{}?sslmode=disable", plain.url());
    let seen = look(PostgresCheckConfig::new(url.as_str())).await;
    assert_eq!(seen.cause.as_str(), "tls-refused", "{seen:?}");
    assert!(!plain.log().contains("password authentication failed"));
}

#[test]
fn a_config_that_cannot_be_used_is_refused_at_its_line() {
    let read = |text: &str| toml::from_str::<PostgresCheckConfig>(text);
    let text = "url = 'postgres://a/b'\ntls = 'off'\nrole = 'standby'\nwarn_lag = '20s'\nfail_lag_bytes = '1MiB'";
    let same = PostgresCheckConfig::new("postgres://a/b")
        .with_tls(Tls::Off)
        .with_role(Some(Role::Standby))
        .with_warn_lag(Some(Duration::from_secs(20)))
        .with_fail_lag_bytes(Some(ByteSize::mib(1)));
    assert_eq!(read(text).unwrap(), same);
    assert!(read("url = { file = '/run/secrets/postgres' }").is_ok());
    for (text, says) in [
        ("tls = 'off'\nurl = 'http://:pa55@a'", "line 2"),
        ("url = 'postgres://x:pa55@a,b/c'", "one host"),
        ("url = 'postgres://x:pa55@%2Fsocket/c'", "one host"),
        ("url = ''", "one host"),
        ("url = { path = '/x' }", "path"),
        ("nonsense = 1", "nonsense"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}
