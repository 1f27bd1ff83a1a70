//! Real Redis servers that are stopped, hung, restarted, given other passwords, full, behind, and in a cluster.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use groundtackle_core::ByteSize;
use groundtackle_health_check::{Check, Observation, Outcome};
use groundtackle_health_check_client::{SecretSource, Tls};
use groundtackle_health_check_redis::{RedisCheck, RedisCheckConfig, Role};
use groundtackle_health_check_testkit::{Faults, ServerHarness, Watched};
use groundtackle_testkit_servers::{Certificates, Redis, RedisCluster, RedisOptions};

const PASSWORD: &str = "s3cr3t-pa55";

const PERIOD: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);

const FAULTS: Faults<Redis> = Faults {
    stop: Redis::stop,
    start: Redis::restart,
    hang: |redis| redis.freeze(),
    resume: |redis| redis.thaw(),
};

fn start() -> Redis {
    with(&[])
}

fn with(settings: &[(&str, &str)]) -> Redis {
    let settings = settings.iter();
    Redis::start(RedisOptions {
        password: Some(PASSWORD.into()),
        settings: settings.map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        ..RedisOptions::default()
    })
}

fn config(redis: &Redis) -> RedisCheckConfig {
    RedisCheckConfig::new(redis.url().as_str()).with_tls(Tls::Off)
}

async fn look(config: RedisCheckConfig) -> Observation {
    RedisCheck::from(config).check().await
}

/// Looks until it is so.
async fn becomes(config: RedisCheckConfig, outcome: Outcome, cause: &str) -> Observation {
    groundtackle_health_check_testkit::becomes(&RedisCheck::from(config), outcome, cause).await
}

fn server() -> ServerHarness<Redis> {
    let check = |redis: &Redis| -> Arc<dyn Check> { Arc::new(RedisCheck::from(config(redis))) };
    ServerHarness::new(Ok(start()), FAULTS, check).with_secret(PASSWORD)
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
    let mut redis = start();
    let url = format!("redis://127.0.0.1:{}", redis.port());
    let config = RedisCheckConfig::new(url.as_str())
        .with_tls(Tls::Off)
        .with_password(Some(SecretSource::File(file.clone())));
    let watched = Watched::start(RedisCheck::from(config), PERIOD, TIMEOUT);
    watched.rounds(&mut redis, &FAULTS, "refused").await;
    let set = redis.command(&["CONFIG", "SET", "requirepass", "another"]);
    assert!(set.starts_with("+OK"), "{set}");
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
async fn logins_and_rights_are_told_apart() {
    let redis = with(&[("maxclients", "2")]);
    let url = format!("redis://127.0.0.1:{}", redis.port());
    let no_login = RedisCheckConfig::new(url.as_str()).with_tls(Tls::Off);
    becomes(no_login.clone(), Outcome::Fail, "login-required").await;
    let as_user = |user: &str, password: &str| {
        let url = format!("redis://{user}:{password}@127.0.0.1:{}", redis.port());
        RedisCheckConfig::new(url.as_str()).with_tls(Tls::Off)
    };
    let seen = becomes(
        as_user("nobody", "pa55w0rd"),
        Outcome::Fail,
        "login-refused",
    )
    .await;
    assert!(!format!("{seen:?}").contains("pa55w0rd"), "{seen:?}");
    for (user, rights) in [("blind", "+ping"), ("health", "+ping +info +cluster|info")] {
        let mut command = vec!["ACL", "SETUSER", user, "on", ">pa55w0rd"];
        command.extend(rights.split(' '));
        let set = redis.command(&command);
        assert!(set.starts_with("+OK"), "{set}");
    }
    becomes(
        as_user("blind", "pa55w0rd"),
        Outcome::Unknown,
        "not-permitted",
    )
    .await;
    becomes(as_user("health", "pa55w0rd"), Outcome::Pass, "ok").await;
    // One more than there may be.
    let client = || std::net::TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    let _clients = [client(), client()];
    becomes(config(&redis), Outcome::Fail, "too-many-connections").await;
}

#[tokio::test]
async fn a_full_server_warns_and_then_fails() {
    let redis = start();
    // Beside which the memory of connections, which come and go, is little.
    redis.command(&["SETRANGE", "ballast", "33554432", "x"]);
    let info = redis.command(&["INFO", "memory"]);
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    let used: u64 = used.unwrap().trim().parse().unwrap();
    for (most, outcome, cause) in [
        (used * 4, Outcome::Pass, "ok"),
        (used * 100 / 87, Outcome::Warn, "memory"),
        (used * 3 / 4, Outcome::Fail, "memory"),
    ] {
        redis.command(&["CONFIG", "SET", "maxmemory", &most.to_string()]);
        let seen = look(config(&redis)).await;
        assert_eq!(
            (seen.outcome, seen.cause.as_str()),
            (outcome, cause),
            "{seen:?}"
        );
    }
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert_eq!(look(config(&redis)).await, Observation::pass());
}

#[tokio::test]
async fn a_snapshot_that_failed_is_told_until_one_succeeds() {
    let redis = with(&[("enable-protected-configs", "yes")]);
    assert!(redis.command(&["SET", "key", "value"]).starts_with("+OK"));
    let name = |name: &str| {
        let set = redis.command(&["CONFIG", "SET", "dbfilename", name]);
        assert!(set.starts_with("+OK"), "{set}");
        redis.command(&["BGSAVE"]);
    };
    // A folder of this name is in the way.
    let folder = redis.command(&["CONFIG", "GET", "dir"]);
    let folder = folder.lines().find(|line| line.starts_with('/')).unwrap();
    let blocked = Path::new(folder).join("blocked.rdb");
    fs::create_dir(&blocked).unwrap();
    fs::write(blocked.join("in-the-way"), "").unwrap();
    name("blocked.rdb");
    becomes(config(&redis), Outcome::Fail, "rdb-failed").await;
    // What fails in a child says nothing of the last one until it has ended.
    name("dump.rdb");
    becomes(config(&redis), Outcome::Pass, "ok").await;
}

#[tokio::test]
async fn replication_is_seen_from_both_sides() {
    let mut primary = start();
    let port = primary.port().to_string();
    let replica = with(&[("masterauth", PASSWORD)]);
    let of_primary = || {
        config(&primary)
            .with_role(Some(Role::Primary))
            .with_fail_replicas_below(1)
    };
    becomes(of_primary(), Outcome::Fail, "replicas-missing").await;
    let of_replica = || config(&replica).with_role(Some(Role::Replica));
    becomes(of_replica(), Outcome::Fail, "wrong-role").await;
    let follows = redis_ok(&replica, &["REPLICAOF", "127.0.0.1", &port]);
    assert!(follows);
    becomes(of_replica(), Outcome::Pass, "ok").await;
    becomes(of_primary(), Outcome::Pass, "ok").await;

    // One that stands still is behind, and not heard of.
    let behind = || of_primary().with_fail_lag_bytes(Some(ByteSize::new(100_000)));
    assert_eq!(look(behind()).await, Observation::pass());
    replica.freeze();
    let value = "x".repeat(200_000);
    assert!(redis_ok(&primary, &["SET", "key", &value]));
    let seen = becomes(behind(), Outcome::Fail, "replication-lag").await;
    assert!(seen.detail.unwrap().contains("a replica is 20"));
    let silent = of_primary().with_warn_lag(Some(Duration::from_secs(1)));
    becomes(silent.clone(), Outcome::Warn, "replication-lag").await;
    replica.thaw();
    becomes(behind(), Outcome::Pass, "ok").await;
    becomes(silent, Outcome::Pass, "ok").await;

    // A replica whose primary is silent, and then gone.
    let silent = of_replica().with_fail_lag(Some(Duration::from_secs(1)));
    primary.freeze();
    becomes(silent, Outcome::Fail, "replication-lag").await;
    primary.thaw();
    primary.stop();
    becomes(of_replica(), Outcome::Fail, "replication-link").await;
    primary.restart();
    becomes(of_replica(), Outcome::Pass, "ok").await;
}

fn redis_ok(redis: &Redis, words: &[&str]) -> bool {
    redis.command(words).starts_with("+OK")
}

#[tokio::test]
async fn a_server_that_loads_is_not_ready() {
    // A tenth of a millisecond for each key, so that it is seen.
    let slow = [
        ("key-load-delay", "100"),
        ("loading-process-events-interval-bytes", "1024"),
    ];
    let mut redis = Redis::start(RedisOptions {
        append_fsync: Some("no"),
        settings: slow.map(|(k, v)| (k.into(), v.into())).into(),
        ..RedisOptions::default()
    });
    let fill = "for i = 1, 20000 do redis.call('set', i, i) end return redis.status_reply('OK')";
    assert!(redis_ok(&redis, &["EVAL", fill, "0"]));
    redis.stop();
    let config = config(&redis);
    // It counts as started once it has loaded.
    let starting = std::thread::spawn(move || {
        redis.restart();
        redis
    });
    becomes(config.clone(), Outcome::Fail, "loading").await;
    let _redis = starting.join().unwrap();
    becomes(config, Outcome::Pass, "ok").await;
}

#[tokio::test]
async fn a_cluster_is_seen_through_each_server() {
    let mut cluster = RedisCluster::start(3, 0, &RedisOptions::default());
    let of = |cluster: &RedisCluster, node: usize| {
        let node = cluster.nodes().get(node).unwrap();
        RedisCheckConfig::new(node.url().as_str()).with_tls(Tls::Off)
    };
    assert_eq!(look(of(&cluster, 0)).await, Observation::pass());
    cluster.node_mut(2).kill();
    becomes(of(&cluster, 0), Outcome::Fail, "cluster-down").await;
    cluster.node_mut(2).restart();
    becomes(of(&cluster, 0), Outcome::Pass, "ok").await;
    becomes(of(&cluster, 2), Outcome::Pass, "ok").await;
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn tls_is_verified() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let port = free_port();
    let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let redis = with(&[
        ("tls-port", &port.to_string()),
        ("tls-cert-file", &text(ours.server())),
        ("tls-key-file", &text(ours.key())),
        ("tls-ca-cert-file", &text(ours.authority())),
        ("tls-auth-clients", "no"),
    ]);
    let url = format!("rediss://:{PASSWORD}@127.0.0.1:{port}");
    let by = |certificates: &Certificates| {
        RedisCheckConfig::new(url.as_str()).with_tls_authorities(Some(certificates.authority()))
    };
    assert_eq!(look(by(&ours)).await, Observation::pass());
    let seen = look(by(&others)).await;
    assert_eq!(seen.cause.as_str(), "certificate-untrusted", "{seen:?}");
    // A server without TLS is not asked in the clear.
    let plain = format!("rediss://:{PASSWORD}@127.0.0.1:{}", redis.port());
    // It waits for more: the check's timeout ends that.
    let asked = tokio::time::timeout(TIMEOUT, look(RedisCheckConfig::new(plain.as_str()))).await;
    assert!(asked.is_err(), "{asked:?}");
    let seen = look(RedisCheckConfig::new(redis.url().as_str())).await;
    assert_eq!(seen.cause.as_str(), "bad-url", "{seen:?}");
}

#[test]
fn a_config_that_cannot_be_used_is_refused_at_its_line() {
    let read = |text: &str| toml::from_str::<RedisCheckConfig>(text);
    let config =
        read("url = 'redis://a'\ntls = 'off'\nrole = 'replica'\nwarn_lag = '20s'").unwrap();
    let same = RedisCheckConfig::new("redis://a")
        .with_tls(Tls::Off)
        .with_role(Some(Role::Replica))
        .with_warn_lag(Some(Duration::from_secs(20)));
    assert_eq!(config, same);
    assert!(read("url = { file = '/run/secrets/redis' }").is_ok());
    for (text, says) in [
        ("tls = 'off'\nurl = 'http://:pa55@a'", "line 2"),
        ("url = 'redis://:pa55@a:b:c'", "rediss://user"),
        ("url = 'rediss://:pa55@a#insecure'", "tls_authorities"),
        ("url = 'redis+unix:///socket'", "rediss://user"),
        ("url = { path = '/x' }", "path"),
        ("nonsense = 1", "nonsense"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}
