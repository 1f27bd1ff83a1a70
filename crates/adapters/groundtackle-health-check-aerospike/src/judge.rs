//! What nodes say, and what it means.

use std::collections::BTreeMap;

use groundtackle_health_check::Observation;

use crate::config::AerospikeCheckConfig;
use crate::info::Facts;

/// What one node says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// The key of the cluster that it is in, or an error.
    pub(crate) cluster: String,
    /// What it says of each namespace.
    pub(crate) namespaces: BTreeMap<String, String>,
}

/// What all of them come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// By their identifiers.
    pub(crate) looks: BTreeMap<String, Look>,
    /// Nodes of the cluster that can't be reached, and why.
    pub(crate) unreachable: Vec<String>,
    /// Addresses of the config that nobody answers at, and why.
    pub(crate) silent: Vec<String>,
}

/// All that was found, the worst first.
pub(crate) fn judge(config: &AerospikeCheckConfig, found: &Found) -> Observation {
    // Where no cluster stands, what nodes say of each other is of before.
    let mut seen = split(found).unwrap_or_else(Observation::pass);
    let reach = |detail: &String| Observation::fail("node-unreachable").with_detail(detail);
    let silent = |detail: &String| Observation::warn("address-silent").with_detail(detail);
    let parts = found.unreachable.iter().map(reach);
    let parts = parts.chain(found.silent.iter().map(silent));
    for part in parts.chain(missing(config, found)) {
        seen = seen.and(part);
    }
    for (id, look) in &found.looks {
        for (name, text) in &look.namespaces {
            let who = format!("node {id}, namespace {name}:");
            let facts = crate::info::facts(text);
            let namespace = Namespace { who, facts };
            seen = seen.and(namespace.judge(config, text));
        }
    }
    seen
}

fn missing(config: &AerospikeCheckConfig, found: &Found) -> Option<Observation> {
    let (warn, fail) = (config.warn_nodes_below, config.fail_nodes_below);
    let nodes = found.looks.len();
    let detail = format!("{nodes} nodes answer, and should be {}", warn.max(fail));
    if nodes < fail {
        return Some(Observation::fail("nodes-missing").with_detail(detail));
    }
    (nodes < warn).then(|| Observation::warn("nodes-missing").with_detail(detail))
}

/// Nodes that are in different clusters, or in none that stands.
fn split(found: &Found) -> Option<Observation> {
    let fails = |look: &Look| look.cluster.is_empty() || look.cluster.starts_with("ERROR");
    let mut looks = found.looks.iter();
    if let Some((id, _)) = looks.clone().find(|(_, look)| fails(look)) {
        let detail = format!(
            "node {id} is in no cluster that stands: nodes come or go, or are too few for min-cluster-size"
        );
        return Some(Observation::fail("no-cluster").with_detail(detail));
    }
    let (first, look) = looks.next()?;
    let (other, _) = looks.find(|(_, other)| other.cluster != look.cluster)?;
    let detail = format!("nodes {first} and {other} are in different clusters");
    Some(Observation::fail("split-cluster").with_detail(detail))
}

/// A namespace on a node.
struct Namespace {
    who: String,
    facts: Facts,
}

impl Namespace {
    fn number(&self, name: &str) -> Option<u64> {
        self.facts.get(name)?.parse().ok()
    }

    fn judge(&self, config: &AerospikeCheckConfig, text: &str) -> Observation {
        let who = &self.who;
        if text.starts_with("type=unknown") || text.starts_with("ERROR") {
            return Observation::fail("no-namespace").with_detail(format!("{who} there is none"));
        }
        match self.parts(config) {
            Ok(parts) => parts
                .into_iter()
                .fold(Observation::pass(), Observation::and),
            Err(missing) => Observation::unknown("not-told")
                .with_detail(format!("{who} the node does not say {missing}")),
        }
    }

    /// What is wrong; or what is not told, without which nothing can be said.
    fn parts(&self, config: &AerospikeCheckConfig) -> Result<Vec<Observation>, &'static str> {
        let who = &self.who;
        let told = |name: &'static str| self.number(name).ok_or(name);
        let is = |name: &'static str| match self.facts.get(name).map(String::as_str) {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            _ => Err(name),
        };
        let fails = |cause: &'static str, what: &str| {
            Observation::fail(cause).with_detail(format!("{who} {what}"))
        };
        let mut parts = Vec::new();
        // The clocks' own word comes first: they also stop writes.
        if is("clock_skew_stop_writes")? {
            parts.push(fails(
                "clock-skew",
                "it refuses writes, since the nodes' clocks differ",
            ));
        }
        if is("stop_writes")? {
            parts.push(fails("stop-writes", "it refuses writes"));
        }
        let (dead, away) = (told("dead_partitions")?, told("unavailable_partitions")?);
        if dead > 0 || away > 0 {
            let what = format!("{dead} partitions are dead, and {away} unavailable");
            parts.push(fails("partitions-missing", &what));
        }
        let (copies, wanted) = (
            told("effective_replication_factor")?,
            told("replication-factor")?,
        );
        if copies < wanted.max(config.fail_copies_below) {
            let what = format!(
                "{who} it keeps {copies} copies of each record, and should {}",
                wanted.max(config.fail_copies_below)
            );
            let seen = if copies < config.fail_copies_below {
                Observation::fail("few-copies")
            } else {
                Observation::warn("few-copies")
            };
            parts.push(seen.with_detail(what));
        }
        let (sends, receives) = (
            told("migrate_tx_partitions_remaining")?,
            told("migrate_rx_partitions_remaining")?,
        );
        if sends > 0 || receives > 0 {
            let what =
                format!("{who} {sends} partitions are still to be sent, {receives} to be received");
            parts.push(Observation::warn("migrating").with_detail(what));
        }
        parts.extend(self.space(config)?);
        Ok(parts)
    }

    fn space(&self, config: &AerospikeCheckConfig) -> Result<Option<Observation>, &'static str> {
        let used = self.number("data_used_pct").ok_or("data_used_pct")?;
        // 0 is no limit, and then all of it is.
        let limit = self.number("storage-engine.stop-writes-used-pct");
        let limit = limit.filter(|limit| *limit > 0).unwrap_or(100);
        let mut worst = (used.saturating_mul(100), limit, "data_used_pct");
        // These are told only where there is a limit.
        for name in [
            "index_mounts_used_pct",
            "sindex_mounts_used_pct",
            "indexes_memory_used_pct",
        ] {
            let used = self.number(name).unwrap_or(0).saturating_mul(100);
            if used.saturating_mul(worst.1) > worst.0.saturating_mul(100) {
                worst = (used, 100, name);
            }
        }
        let (used, limit, name) = worst;
        let what = format!(
            "{} {} % are used ({name}), and at {limit} % writes are refused",
            self.who,
            used / 100
        );
        let reached = |pct: u64| used >= limit.saturating_mul(pct);
        if reached(config.fail_used_pct) {
            return Ok(Some(Observation::fail("space").with_detail(what)));
        }
        if reached(config.warn_used_pct) {
            return Ok(Some(Observation::warn("space").with_detail(what)));
        }
        // Blocks that have room can run out before the room does.
        let least = self.number("storage-engine.stop-writes-avail-pct");
        let (Some(left), Some(least)) = (self.number("data_avail_pct"), least) else {
            return Ok(None);
        };
        let what = format!(
            "{} {left} % of its blocks are left (data_avail_pct), and below {least} % writes are refused",
            self.who
        );
        let low = least > 0 && left < least.saturating_mul(2);
        Ok(low.then(|| Observation::warn("space").with_detail(what)))
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
