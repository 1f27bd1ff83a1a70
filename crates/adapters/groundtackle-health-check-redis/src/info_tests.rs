use groundtackle_core::ByteSize;
use groundtackle_health_check::Outcome;

use super::*;

/// Of Redis 7.0, in part.
const PRIMARY: &str = "# Memory\r\nused_memory:1000\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n\
    mem_not_counted_for_evict:0\r\n# Persistence\r\nloading:0\r\nrdb_last_bgsave_status:ok\r\n\
    aof_last_bgrewrite_status:ok\r\naof_last_write_status:ok\r\n# Replication\r\nrole:master\r\n\
    connected_slaves:2\r\nslave0:ip=10.0.0.2,port=6379,state=online,offset=900,lag=1\r\n\
    slave1:ip=10.0.0.3,port=6379,state=wait_bgsave,offset=0,lag=40\r\nmaster_repl_offset:1000\r\n\
    slave_priority:100\r\n# Cluster\r\ncluster_enabled:0\r\n";

const REPLICA: &str = "used_memory:1000\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\nloading:0\r\n\
    rdb_last_bgsave_status:ok\r\naof_last_bgrewrite_status:ok\r\naof_last_write_status:ok\r\nrole:slave\r\n\
    master_link_status:up\r\nmaster_last_io_seconds_ago:3\r\nmaster_sync_in_progress:0\r\n\
    slave_read_repl_offset:5000\r\nslave_repl_offset:4000\r\n";

const CLUSTER: &str = "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n\
    cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\n";

fn look(config: &RedisCheckConfig, info: &str, cluster: Option<&str>) -> (Outcome, String) {
    let said = Said {
        info: info.into(),
        cluster: cluster.map(Into::into),
    };
    let seen = judge(config, &said);
    assert_eq!(seen.outcome == Outcome::Pass, seen.detail.is_none());
    (seen.outcome, seen.cause.to_string())
}

fn sees(config: RedisCheckConfig, info: &str, outcome: Outcome, cause: &str) {
    assert_eq!(look(&config, info, None), (outcome, cause.into()), "{info}");
}

fn config() -> RedisCheckConfig {
    RedisCheckConfig::default()
}

#[test]
fn what_is_well_passes() {
    for info in [PRIMARY, REPLICA] {
        sees(config(), info, Outcome::Pass, "ok");
    }
    assert_eq!(look(&config(), PRIMARY, Some(CLUSTER)).0, Outcome::Pass);
}

#[test]
fn each_fault_has_its_cause() {
    for (was, is, outcome, cause) in [
        ("loading:0", "loading:1", Outcome::Fail, "loading"),
        (
            "rdb_last_bgsave_status:ok",
            "rdb_last_bgsave_status:err",
            Outcome::Fail,
            "rdb-failed",
        ),
        (
            "aof_last_write_status:ok",
            "aof_last_write_status:err",
            Outcome::Fail,
            "aof-failed",
        ),
        (
            "aof_last_bgrewrite_status:ok",
            "aof_last_bgrewrite_status:err",
            Outcome::Warn,
            "aof-rewrite-failed",
        ),
        (
            "master_link_status:up",
            "master_link_status:down",
            Outcome::Fail,
            "replication-link",
        ),
        ("maxmemory:0", "maxmemory:1251", Outcome::Pass, "ok"),
        ("maxmemory:0", "maxmemory:1250", Outcome::Warn, "memory"),
        ("maxmemory:0", "maxmemory:1052", Outcome::Fail, "memory"),
    ] {
        assert!(REPLICA.contains(was));
        sees(config(), &REPLICA.replace(was, is), outcome, cause);
    }
    let full = REPLICA.replace("maxmemory:0", "maxmemory:1000");
    sees(config(), &full, Outcome::Fail, "memory");
    let cache = full.replace("noeviction", "allkeys-lru");
    sees(config(), &cache, Outcome::Pass, "ok");
}

#[test]
fn lag_and_replicas_are_measured_against_their_limits() {
    let seconds = |n| Some(Duration::from_secs(n));
    let bytes = |n| Some(ByteSize::new(n));
    for (config, info, outcome) in [
        (config().with_fail_lag(seconds(3)), REPLICA, Outcome::Pass),
        (config().with_fail_lag(seconds(2)), REPLICA, Outcome::Fail),
        (config().with_warn_lag(seconds(2)), REPLICA, Outcome::Warn),
        (
            config().with_fail_lag_bytes(bytes(1000)),
            REPLICA,
            Outcome::Pass,
        ),
        (
            config().with_fail_lag_bytes(bytes(999)),
            REPLICA,
            Outcome::Fail,
        ),
        // The one that is not online yet does not count.
        (config().with_fail_lag(seconds(1)), PRIMARY, Outcome::Pass),
        (config().with_fail_lag(seconds(0)), PRIMARY, Outcome::Fail),
        (
            config().with_warn_lag_bytes(bytes(100)),
            PRIMARY,
            Outcome::Pass,
        ),
        (
            config().with_warn_lag_bytes(bytes(99)),
            PRIMARY,
            Outcome::Warn,
        ),
    ] {
        let cause = if outcome == Outcome::Pass {
            "ok"
        } else {
            "replication-lag"
        };
        sees(config, info, outcome, cause);
    }
    let few = |warn, fail| {
        config()
            .with_warn_replicas_below(warn)
            .with_fail_replicas_below(fail)
    };
    sees(few(1, 1), PRIMARY, Outcome::Pass, "ok");
    sees(few(2, 1), PRIMARY, Outcome::Warn, "replicas-missing");
    sees(few(2, 2), PRIMARY, Outcome::Fail, "replicas-missing");
    // A replica has none to have.
    sees(few(2, 2), REPLICA, Outcome::Pass, "ok");
}

#[test]
fn roles_must_be_as_asked() {
    let wants = |role| config().with_role(Some(role));
    sees(wants(Role::Primary), PRIMARY, Outcome::Pass, "ok");
    sees(wants(Role::Replica), REPLICA, Outcome::Pass, "ok");
    sees(wants(Role::Replica), PRIMARY, Outcome::Fail, "wrong-role");
    sees(wants(Role::Primary), REPLICA, Outcome::Fail, "wrong-role");
}

#[test]
fn a_cluster_is_as_its_server_sees_it() {
    for (was, is, outcome, cause) in [
        (
            "cluster_state:ok",
            "cluster_state:fail",
            Outcome::Fail,
            "cluster-down",
        ),
        (
            "cluster_slots_pfail:0",
            "cluster_slots_pfail:7",
            Outcome::Warn,
            "cluster-slots",
        ),
        (
            "cluster_slots_fail:0",
            "cluster_slots_fail:7",
            Outcome::Warn,
            "cluster-slots",
        ),
        (
            "assigned:16384",
            "assigned:16383",
            Outcome::Warn,
            "cluster-slots",
        ),
        (
            "cluster_state:ok",
            "cluster_state",
            Outcome::Unknown,
            "not-told",
        ),
    ] {
        assert!(CLUSTER.contains(was));
        let seen = look(&config(), PRIMARY, Some(&CLUSTER.replace(was, is)));
        assert_eq!(seen, (outcome, cause.into()));
    }
}

/// No line that decides may be missing without notice.
#[test]
fn what_is_not_told_is_unknown() {
    for (info, optional) in [
        (PRIMARY, &["connected_slaves", "slave0", "slave1"][..]),
        (
            REPLICA,
            &["slave_read_repl_offset", "master_sync_in_progress"],
        ),
    ] {
        for line in info.lines().filter(|line| line.contains(':')) {
            let key = line.split(':').next().unwrap_or_default();
            let decides = !optional.contains(&key)
                && ![
                    "mem_not_counted_for_evict",
                    "slave_priority",
                    "cluster_enabled",
                ]
                .contains(&key);
            let without = info.replace(&format!("{line}\r\n"), "");
            let (outcome, cause) = look(&config(), &without, None);
            match (decides, key) {
                (true, "master_link_status") => assert_eq!(cause, "replication-link"),
                (true, _) => assert_eq!(
                    (outcome, cause.as_str()),
                    (Outcome::Unknown, "not-told"),
                    "{key}"
                ),
                (false, _) => assert_eq!(outcome, Outcome::Pass, "{key}"),
            }
        }
    }
    assert_eq!(look(&config(), "", None).0, Outcome::Unknown);
}

#[test]
fn nonsense_is_no_reason_to_panic() {
    let config = config().with_fail_lag_bytes(Some(ByteSize::new(0)));
    for nonsense in [
        "\u{0}:\r\n:::\r\n",
        "role:master\r\nslave0:\r\nslave:x\r\nslave99999999999:state=online\r\nmaster_repl_offset:-1",
        "role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:99999999999999999999",
    ] {
        assert!(!look(&config, nonsense, None).0.is_up(), "{nonsense}");
    }
}
