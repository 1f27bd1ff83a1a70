//! What `INFO` says, and what it means.

use std::time::Duration;

use groundtackle_health_check::Observation;
use groundtackle_health_check_client::Limits;

use crate::ask::Said;
use crate::config::{RedisCheckConfig, Role};

/// All hash slots of a Redis Cluster.
const SLOTS: u64 = 16_384;

/// The value of a key, in lines of `key:value`.
pub(crate) fn value<'a>(info: &'a str, key: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .map(str::trim)
}

fn number(info: &str, key: &str) -> Option<u64> {
    value(info, key)?.parse().ok()
}

/// A replica as its primary sees it.
#[derive(Debug, Default)]
struct Replica {
    online: bool,
    offset: u64,
    /// Seconds since it was last heard of.
    lag: u64,
}

/// From `ip=…,port=…,state=online,offset=…,lag=…`.
fn replica(text: &str) -> Option<Replica> {
    let part = |name: &str| {
        text.split(',')
            .filter_map(|part| part.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    Some(Replica {
        online: part("state")? == "online",
        offset: part("offset")?.parse().ok()?,
        lag: part("lag")?.parse().ok()?,
    })
}

/// All that was found, the worst first.
pub(crate) fn judge(config: &RedisCheckConfig, said: &Said) -> Observation {
    let info = &said.info;
    let parts = [
        loading(info),
        replication(config, info),
        memory(config, info),
        persistence(info),
        said.cluster.as_deref().map(cluster),
    ];
    let found = parts.into_iter().flatten();
    found.fold(Observation::pass(), Observation::and)
}

/// A server that does not say what it should is not well.
fn not_told(what: &str) -> Observation {
    let detail = format!("the server's INFO does not say {what}");
    Observation::unknown("not-told").with_detail(detail)
}

fn loading(info: &str) -> Option<Observation> {
    match value(info, "loading") {
        Some("0") => None,
        Some(_) => Some(Observation::fail("loading").with_detail("it loads its data from disk")),
        None => Some(not_told("whether it is loading")),
    }
}

fn replication(config: &RedisCheckConfig, info: &str) -> Option<Observation> {
    let role = match value(info, "role") {
        Some("master") => Role::Primary,
        Some("slave") => Role::Replica,
        _ => return Some(not_told("its role")),
    };
    let seen = match role {
        Role::Primary => primary(config, info),
        Role::Replica => follows(config, info),
    };
    if config.role.is_none_or(|wanted| wanted == role) {
        return seen;
    }
    let is = match role {
        Role::Primary => "a primary, and should be a replica",
        Role::Replica => "a replica, and should be a primary",
    };
    let wrong = Observation::fail("wrong-role").with_detail(format!("it is {is}"));
    Some(match seen {
        Some(seen) => wrong.and(seen),
        None => wrong,
    })
}

fn follows(config: &RedisCheckConfig, info: &str) -> Option<Observation> {
    if value(info, "master_link_status") != Some("up") {
        let since = number(info, "master_link_down_since_seconds");
        let since = since.map(|seconds| format!(" for {seconds} s"));
        let syncs = value(info, "master_sync_in_progress") == Some("1");
        let copies = if syncs {
            ", a new copy is under way"
        } else {
            ""
        };
        let detail = format!(
            "there is no link to its primary{}{copies}",
            since.unwrap_or_default()
        );
        return Some(Observation::fail("replication-link").with_detail(detail));
    }
    let (Some(silent), Some(applied)) = (
        number(info, "master_last_io_seconds_ago"),
        number(info, "slave_repl_offset"),
    ) else {
        return Some(not_told("how far it follows"));
    };
    // Since Redis 7; before, what is received is applied at once.
    let received = number(info, "slave_read_repl_offset").unwrap_or(applied);
    lag(config, silent, received.saturating_sub(applied), "it")
}

fn primary(config: &RedisCheckConfig, info: &str) -> Option<Observation> {
    let Some(offset) = number(info, "master_repl_offset") else {
        return Some(not_told("its offset"));
    };
    let replicas = info.lines().filter_map(|line| {
        let (number, text) = line.strip_prefix("slave")?.split_once(':')?;
        number.parse::<u32>().ok()?;
        replica(text)
    });
    let online: Vec<_> = replicas.filter(|replica| replica.online).collect();
    let count = online.len() as u64;
    let few = Limits {
        warn: config.warn_replicas_below,
        fail: config.fail_replicas_below,
    };
    let few = few.few("replicas-missing", count, "replicas are online");
    let silent = online.iter().map(|replica| replica.lag).max();
    let behind = online
        .iter()
        .map(|replica| offset.saturating_sub(replica.offset));
    let behind = behind.max().unwrap_or(0);
    let late = lag(config, silent.unwrap_or(0), behind, "a replica");
    few.into_iter().chain(late).reduce(Observation::and)
}

fn lag(config: &RedisCheckConfig, silent: u64, behind: u64, who: &str) -> Option<Observation> {
    let longer = |limit: Option<Duration>| limit.is_some_and(|of| silent > of.as_secs());
    let further =
        |limit: Option<groundtackle_core::ByteSize>| limit.is_some_and(|of| behind > of.bytes());
    let detail =
        format!("{who} is {behind} bytes behind, and the other side was heard {silent} s ago");
    if longer(config.fail_lag) || further(config.fail_lag_bytes) {
        return Some(Observation::fail("replication-lag").with_detail(detail));
    }
    let warns = longer(config.warn_lag) || further(config.warn_lag_bytes);
    warns.then(|| Observation::warn("replication-lag").with_detail(detail))
}

fn memory(config: &RedisCheckConfig, info: &str) -> Option<Observation> {
    let (Some(used), Some(most), Some(policy)) = (
        number(info, "used_memory"),
        number(info, "maxmemory"),
        value(info, "maxmemory_policy"),
    ) else {
        return Some(not_told("how much memory it uses"));
    };
    if most == 0 || policy.starts_with("allkeys-") {
        return None;
    }
    // What replicas are sent, and the like, does not count against the limit.
    let used = used.saturating_sub(number(info, "mem_not_counted_for_evict").unwrap_or(0));
    let limits = Limits {
        warn: config.warn_memory_pct,
        fail: config.fail_memory_pct,
    };
    let detail = format!("it uses {used} of {most} bytes ({policy})");
    limits.full("memory", used, most, &detail)
}

fn persistence(info: &str) -> Option<Observation> {
    let is_ok = |key| value(info, key).map(|value| value == "ok");
    let (Some(saved), Some(written), Some(rewritten)) = (
        is_ok("rdb_last_bgsave_status"),
        is_ok("aof_last_write_status"),
        is_ok("aof_last_bgrewrite_status"),
    ) else {
        return Some(not_told("whether it could write to disk"));
    };
    let failed = |cause: &'static str, detail: &str| Observation::fail(cause).with_detail(detail);
    if !written {
        return Some(failed(
            "aof-failed",
            "its last write to the append-only file failed",
        ));
    }
    if !saved {
        return Some(failed(
            "rdb-failed",
            "its last snapshot failed; with stop-writes-on-bgsave-error it refuses writes",
        ));
    }
    (!rewritten).then(|| {
        Observation::warn("aof-rewrite-failed")
            .with_detail("the append-only file could not be written anew, and grows")
    })
}

fn cluster(info: &str) -> Observation {
    let slots = |key| number(info, key);
    let (Some(state), Some(assigned), Some(suspected), Some(failed)) = (
        value(info, "cluster_state"),
        slots("cluster_slots_assigned"),
        slots("cluster_slots_pfail"),
        slots("cluster_slots_fail"),
    ) else {
        return not_told("how its cluster is");
    };
    let detail = format!(
        "the cluster is {state}: of {SLOTS} slots {assigned} have a server, {failed} a failed one and {suspected} one that does not answer"
    );
    if state != "ok" {
        Observation::fail("cluster-down").with_detail(detail)
    } else if assigned < SLOTS || failed > 0 || suspected > 0 {
        Observation::warn("cluster-slots").with_detail(detail)
    } else {
        Observation::pass()
    }
}

#[cfg(test)]
#[path = "info_tests.rs"]
mod tests;
