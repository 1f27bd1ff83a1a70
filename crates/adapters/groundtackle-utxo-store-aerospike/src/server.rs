//! What the cluster is like: indexes, settings, and the state of each node.

use std::collections::BTreeMap;
use std::time::Duration;

use aerospike::query::CollectionIndexType;
use aerospike::{AdminPolicy, IndexType, Node, ResultCode, Task};
use groundtackle_utxo_store::{Error, Health, HealthDepth, Result, Retryability};

use crate::cells::{AerospikeCells, millis};
use crate::error::{BACKEND, failed};
use crate::list::CLUSTER_PARTITIONS;
use crate::record::{DUE, UNFINISHED, UNMINED};

/// What a node says of the namespace, of itself or of its settings.
pub(crate) type Facts = BTreeMap<String, String>;

/// The largest record that the engine makes, and what the servers' defaults allow.
const RECORD_BYTES: u64 = 1 << 20;

/// A node's limits are warned of at so many hundredths of them.
const SOON: u64 = 80;

/// What one node says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    pub(crate) node: String,
    pub(crate) namespace: Facts,
    pub(crate) service: Facts,
    pub(crate) statistics: Facts,
    /// Of the store's set.
    pub(crate) set: Facts,
    /// The state of each index, by name.
    pub(crate) indexes: Facts,
    /// The key of the cluster it is in.
    pub(crate) cluster: String,
}

fn facts_of(text: &str, separator: char) -> Facts {
    let pairs = text.trim_end().split(separator);
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// From `ns=…:indexname=…:…:state=RW;…`.
fn indexes_of(text: &str) -> Facts {
    let indexes = text.trim_end().split(';').map(|index| facts_of(index, ':'));
    let states = indexes.filter_map(|mut index| {
        let state = index.remove("state").unwrap_or_default();
        Some((index.remove("indexname")?, state))
    });
    states.collect()
}

fn number(facts: &Facts, name: &str) -> Option<u64> {
    facts.get(name)?.parse().ok()
}

fn is(facts: &Facts, name: &str) -> bool {
    facts.get(name).is_some_and(|value| value == "true")
}

/// Settings with which the store can't keep what it promises, each with the way out.
pub(crate) fn refused(look: &Look, min_replicas: u32) -> Vec<String> {
    let facts = &look.namespace;
    let mut refused = Vec::new();
    for (name, value, why) in [
        (
            "read-consistency-level-override",
            "one",
            "what was acknowledged may not be seen while nodes come and go: remove it",
        ),
        (
            "write-commit-level-override",
            "master",
            "what was acknowledged can be lost with one node: remove it",
        ),
        (
            "disable-write-dup-res",
            "true",
            "writes may build on an old copy while nodes come and go: set it to false",
        ),
        (
            "strong-consistency",
            "true",
            "this adapter neither asks for linearized reads nor deletes durably: use a namespace without it",
        ),
        (
            "disallow-expunge",
            "true",
            "the store could delete nothing: set it to false",
        ),
        (
            "reject-non-xdr-writes",
            "true",
            "the node takes no writes: set it to false",
        ),
    ] {
        if facts.get(name).is_some_and(|found| found == value) {
            refused.push(format!("sets {name} {value}, with which {why}"));
        }
    }
    let policy = facts.get("conflict-resolution-policy");
    if let Some(policy) = policy.filter(|policy| *policy != "last-update-time") {
        refused.push(format!(
            "sets conflict-resolution-policy {policy}, with which older records can win over newer ones when nodes meet again: set it to last-update-time"
        ));
    }
    if let Some(most) = number(facts, "max-record-size").filter(|most| *most < RECORD_BYTES) {
        refused.push(format!(
            "sets max-record-size {most}, and the store needs {RECORD_BYTES}: set it to 1M"
        ));
    }
    let copies = number(facts, "replication-factor").unwrap_or(1);
    if copies < u64::from(min_replicas) {
        refused.push(format!(
            "keeps {copies} copies of each record, and min_replicas asks for {min_replicas}: set its replication-factor, or accept fewer"
        ));
    }
    refused
}

/// Two parts of a cluster must not both be large enough to go on.
pub(crate) fn may_split(look: &Look, nodes: usize) -> Option<String> {
    let nodes = number(&look.statistics, "cluster_size")
        .unwrap_or(0)
        .max(nodes as u64);
    let least = number(&look.service, "min-cluster-size").unwrap_or(1);
    (nodes > 2 && least <= nodes / 2).then(|| {
        format!(
            "sets min-cluster-size {least} in a cluster of {nodes} nodes, so that nodes which are cut off go on by themselves, and what both sides write is lost in part: set it to {}, or accept that with allow_split",
            nodes / 2 + 1
        )
    })
}

/// What keeps a node from its work, and what soon will.
pub(crate) fn faults(look: &Look, min_replicas: u32) -> (Vec<String>, Vec<String>) {
    let (node, facts) = (&look.node, &look.namespace);
    let (mut now, mut soon) = (Vec::new(), Vec::new());
    if is(facts, "stop_writes") {
        now.push(format!(
            "node {node} refuses writes, its namespace is full; add nodes or memory, or prune"
        ));
    }
    if is(facts, "clock_skew_stop_writes") {
        now.push(format!(
            "node {node} refuses writes, since the nodes' clocks differ; set them"
        ));
    }
    if number(facts, "dead_partitions").is_some_and(|n| n > 0)
        || number(facts, "unavailable_partitions").is_some_and(|n| n > 0)
    {
        now.push(format!(
            "node {node} misses parts of the data; bring the nodes back that have them"
        ));
    }
    now.extend(too_few_copies(look, min_replicas));
    for bin in [UNFINISHED, UNMINED, DUE] {
        let name = index_name(bin);
        match look.indexes.get(&name).map(String::as_str) {
            Some("RW") => {}
            Some(_) => now.push(format!(
                "node {node} still builds the index {name}: lists have to wait"
            )),
            None => now.push(format!(
                "node {node} has no index {name}: open the store again, which makes it"
            )),
        }
    }
    for name in [
        "migrate_tx_partitions_remaining",
        "migrate_rx_partitions_remaining",
    ] {
        if let Some(left) = number(facts, name).filter(|left| *left > 0) {
            soon.push(format!("node {node} still moves {left} partitions"));
            break;
        }
    }
    let limit = |name| number(facts, name);
    let used_most = limit("storage-engine.stop-writes-used-pct").unwrap_or(70);
    for (name, most) in [
        ("data_used_pct", used_most),
        ("index_mounts_used_pct", 100),
        ("sindex_mounts_used_pct", 100),
        ("indexes_memory_used_pct", 100),
    ] {
        let used = number(facts, name).unwrap_or(0);
        // 0 is no limit.
        if most > 0 && used.saturating_mul(100) >= most * SOON {
            soon.push(format!(
                "node {node} has used {used} % ({name}), and refuses writes at {most} %"
            ));
        }
    }
    for (name, limit) in [
        ("objects", "stop-writes-count"),
        ("data_used_bytes", "stop-writes-size"),
    ] {
        let used = number(&look.set, name).unwrap_or(0);
        match number(&look.set, limit) {
            Some(most) if most > 0 && used >= most => now.push(format!(
                "node {node} refuses writes: the store's set has reached its {limit} {most}"
            )),
            Some(most) if most > 0 && used.saturating_mul(100) >= most.saturating_mul(SOON) => soon.push(format!(
                "node {node} has {used} {name} in the store's set, and refuses writes at {most} ({limit})"
            )),
            _ => {}
        }
    }
    let least = limit("storage-engine.stop-writes-avail-pct").unwrap_or(5);
    if let Some(left) = number(facts, "data_avail_pct").filter(|left| *left < least * 3) {
        soon.push(format!(
            "node {node} has {left} % of its blocks left (data_avail_pct), and refuses writes below {least} %"
        ));
    }
    // 0 is no limit here too.
    let memory_most = limit("stop-writes-sys-memory-pct").unwrap_or(90);
    let free = number(&look.statistics, "system_free_mem_pct");
    let used = free.map(|free| 100_u64.saturating_sub(free));
    if let Some(used) = used.filter(|used| memory_most > 0 && used * 100 >= memory_most * SOON) {
        soon.push(format!(
            "node {node}'s machine has used {used} % of its memory, and the node refuses writes above {memory_most} %"
        ));
    }
    (now, soon)
}

/// Fewer copies than there should be, for want of nodes.
fn too_few_copies(look: &Look, min_replicas: u32) -> Option<String> {
    let copies = number(&look.namespace, "effective_replication_factor");
    let copies = copies.filter(|copies| *copies < u64::from(min_replicas))?;
    Some(format!(
        "node {} keeps {copies} copies of each record, and min_replicas asks for {min_replicas}; bring nodes back, or set the namespace's replication-factor",
        look.node
    ))
}

/// Nodes that are in different clusters, or in none that stands.
pub(crate) fn clusters(looks: &[Look]) -> Option<String> {
    let changing = |look: &&Look| look.cluster.is_empty() || look.cluster.starts_with("ERROR");
    if let Some(look) = looks.iter().find(changing) {
        return Some(format!(
            "node {} is in no cluster that stands: nodes come or go, or are too few for min-cluster-size",
            look.node
        ));
    }
    let first = looks.first()?;
    let other = looks.iter().find(|look| look.cluster != first.cluster)?;
    Some(format!(
        "nodes {} and {} are in different clusters: the cluster is split",
        first.node, other.node
    ))
}

fn index_name(bin: &str) -> String {
    format!("groundtackle_{bin}")
}

/// An error with its cause, for a list of reasons.
fn in_full(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl AerospikeCells {
    fn admin(&self) -> AdminPolicy {
        AdminPolicy {
            timeout: millis(self.answer_timeout),
        }
    }

    /// The indexes that lists need; those that are there stay. They are the namespace's, for the stores of
    /// all its sets: a namespace has room for 256.
    pub(crate) async fn make_indexes(&self) -> Result<()> {
        let action = "make an index";
        for bin in [UNFINISHED, UNMINED, DUE] {
            let name = index_name(bin);
            let made = self
                .client
                .create_index_on_bin(
                    &self.admin(),
                    &self.namespace,
                    "",
                    bin,
                    &name,
                    IndexType::Numeric,
                    CollectionIndexType::Default,
                    None,
                )
                .await;
            let task = match made {
                Ok(task) => task,
                Err(error) if error.matches(&[ResultCode::IndexFound]) => continue,
                Err(error) => return Err(failed(action, error)),
            };
            let most = Some(Duration::from_secs(600));
            let made = task.wait_till_complete(most).await;
            made.map_err(|error| failed(action, error))?;
        }
        Ok(())
    }

    async fn look_at(&self, node: &Node) -> Result<Look> {
        let namespace = format!("namespace/{}", self.namespace);
        let service = "get-config:context=service";
        let statistics = "statistics";
        let indexes = format!("sindex-list:namespace={}", self.namespace);
        let cluster = "cluster-stable:ignore-migrations=true";
        let set = format!("sets/{}/{}", self.namespace, self.set);
        let commands = [&namespace, service, statistics, &set, &indexes, cluster];
        let answer = node.info(&self.admin(), &commands).await;
        let answer = answer.map_err(|error| failed("ask a node about itself", error))?;
        let text = |command: &str| answer.get(command).map_or("", |text| text.trim_end());
        let found = text(&namespace);
        if found.starts_with("ERROR") || found.starts_with("type=unknown") || found.is_empty() {
            return Err(Error::invalid_request(format!(
                "node {} has no namespace {}; namespaces are made in the server's configuration",
                node.name(),
                self.namespace
            )));
        }
        Ok(Look {
            node: node.name().to_owned(),
            namespace: facts_of(found, ';'),
            service: facts_of(text(service), ';'),
            statistics: facts_of(text(statistics), ';'),
            set: facts_of(text(&set).trim_end_matches(';'), ':'),
            indexes: indexes_of(text(&indexes)),
            cluster: text(cluster).to_owned(),
        })
    }

    /// Settings of a node that are refused, in words.
    fn refused(&self, look: &Look, nodes: usize) -> Option<String> {
        let mut refused = refused(look, self.min_replicas);
        if !self.allow_split {
            refused.extend(may_split(look, nodes));
        }
        (!refused.is_empty()).then(|| {
            format!(
                "the namespace {} of node {} {}",
                self.namespace,
                look.node,
                refused.join("; and ")
            )
        })
    }

    /// Refuses a cluster on which records could be lost, and says what else should be known.
    pub(crate) async fn check_settings(&self) -> Result<()> {
        let nodes = self.client.nodes();
        for node in &nodes {
            let look = self.look_at(node).await?;
            let few = || too_few_copies(&look, self.min_replicas);
            if let Some(why) = self.refused(&look, nodes.len()).or_else(few) {
                return Err(Error::invalid_request(why));
            }
            let facts = &look.namespace;
            let on_file = facts
                .get("storage-engine")
                .is_some_and(|engine| engine != "memory");
            if on_file && !is(facts, "storage-engine.commit-to-device") {
                tracing::info!(
                    namespace = self.namespace,
                    "an acknowledged write is in memory only until the node has flushed it"
                );
            }
            if number(facts, "default-ttl").is_some_and(|ttl| ttl > 0) {
                tracing::info!(
                    namespace = self.namespace,
                    "records of the store never expire, whatever the namespace's default-ttl"
                );
            }
        }
        Ok(())
    }

    pub(crate) async fn look_at_nodes(&self, depth: HealthDepth) -> Result<Health> {
        if !self.client.is_connected() {
            return Ok(Health {
                ready: false,
                reasons: vec!["no node of the cluster answers".into()],
            });
        }
        let (mut now, mut soon) = (Vec::new(), Vec::new());
        let (limit, most) = (self.throttle.limit(), self.throttle.most());
        if limit < most {
            soon.push(format!(
                "only {limit} of {most} requests are let through at a time, since nodes were overloaded"
            ));
        }
        if depth == HealthDepth::Readiness {
            let nodes = self.client.nodes();
            if nodes.is_empty() {
                return Err(Error::backend(
                    BACKEND,
                    "look at the nodes",
                    Retryability::Transient,
                    "there is none",
                ));
            }
            let looks = nodes.iter().map(|node| self.look_at(node));
            let answers = futures_util::future::join_all(looks).await;
            let mut looks = Vec::new();
            for (node, answer) in nodes.iter().zip(answers) {
                match answer {
                    Ok(look) => looks.push(look),
                    Err(error) => now.push(format!("node {}: {}", node.name(), in_full(&error))),
                }
            }
            for look in &looks {
                now.extend(self.refused(look, nodes.len()));
                let (already, later) = faults(look, self.min_replicas);
                now.extend(already);
                soon.extend(later);
            }
            now.extend(clusters(&looks));
            match self.lost_partitions().await {
                Ok(0) => now.extend(self.probe().await.err().map(|error| in_full(&error))),
                Ok(lost) => now.push(lost_partitions(lost)),
                Err(error) => now.push(in_full(&error)),
            }
        }
        let ready = now.is_empty();
        now.extend(soon);
        Ok(Health {
            ready,
            reasons: now,
        })
    }
}

pub(crate) fn lost_partitions(lost: usize) -> String {
    format!(
        "{lost} of {CLUSTER_PARTITIONS} parts of the store are not there: bring the nodes back that are cut off; if there are none, data is lost: build the store anew, in an empty set"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node of the tested version answers, with one copy and all indexes.
    fn good() -> Look {
        Look {
            node: "A".into(),
            namespace: facts_of(include_str!("../tests/answers/namespace.txt"), '\n'),
            service: facts_of("cluster-name=test;min-cluster-size=2", ';'),
            statistics: facts_of("cluster_size=3;system_free_mem_pct=93", ';'),
            set: facts_of(
                "ns=test:set=s:objects=80:data_used_bytes=79:stop-writes-count=0",
                ':',
            ),
            indexes: indexes_of(include_str!("../tests/answers/sindex-list.txt")),
            cluster: "51C90D832EFE".into(),
        }
    }

    fn with(name: &str, value: &str) -> Look {
        let mut look = good();
        assert!(look.namespace.contains_key(name), "no node says {name}");
        look.namespace.insert(name.into(), value.into());
        look
    }

    #[test]
    fn each_fault_of_a_node_is_named() {
        assert_eq!(faults(&good(), 1), (Vec::new(), Vec::new()));
        for (name, value) in [
            ("stop_writes", "true"),
            ("clock_skew_stop_writes", "true"),
            ("dead_partitions", "3"),
            ("unavailable_partitions", "1"),
            ("effective_replication_factor", "0"),
        ] {
            let (now, _) = faults(&with(name, value), 1);
            assert!(
                now.len() == 1 && now[0].contains("node A"),
                "{name}: {now:?}"
            );
        }
        for state in [None, Some("WO")] {
            let mut look = good();
            look.indexes.remove("groundtackle_gtu");
            let state = state.map(|state| ("groundtackle_gtu".to_owned(), state.to_owned()));
            look.indexes.extend(state);
            let (now, _) = faults(&look, 1);
            assert!(now.len() == 1 && now[0].contains("gtu"), "{now:?}");
        }
    }

    #[test]
    fn a_node_is_soon_full_before_it_refuses_writes() {
        for (name, no, yes) in [
            ("data_used_pct", "55", "56"),
            ("data_avail_pct", "15", "14"),
            ("migrate_rx_partitions_remaining", "0", "7"),
            // 0 is no limit.
            ("storage-engine.stop-writes-used-pct", "0", "1"),
        ] {
            let mut look = with(name, no);
            if name.contains("stop-writes") {
                look.namespace.insert("data_used_pct".into(), "17".into());
            }
            assert_eq!(faults(&look, 1), (Vec::new(), Vec::new()), "{name}");
            look.namespace.insert(name.into(), yes.into());
            let (now, soon) = faults(&look, 1);
            assert!(now.is_empty() && soon.len() == 1, "{name}: {soon:?}");
        }
        // These are told only where there is a limit.
        for name in [
            "index_mounts_used_pct",
            "sindex_mounts_used_pct",
            "indexes_memory_used_pct",
        ] {
            let mut look = good();
            look.namespace.insert(name.into(), "80".into());
            assert_eq!(faults(&look, 1).1.len(), 1, "{name}");
        }
        let mut look = good();
        for (limit, now, soon) in [("80", 1, 0), ("100", 0, 1), ("101", 0, 0)] {
            look.set.insert("stop-writes-count".into(), limit.into());
            let (is, will) = faults(&look, 1);
            assert_eq!((is.len(), will.len()), (now, soon), "{limit}");
        }
        let mut look = good();
        look.statistics
            .insert("system_free_mem_pct".into(), "28".into());
        assert_eq!(faults(&look, 1).1.len(), 1);
    }

    #[test]
    fn settings_that_lose_records_are_refused() {
        let mut look = good();
        // As it is by default.
        assert_eq!(refused(&look, 1).len(), 1, "{:?}", refused(&look, 1));
        assert!(refused(&look, 1)[0].contains("last-update-time"));
        look.namespace.insert(
            "conflict-resolution-policy".into(),
            "last-update-time".into(),
        );
        assert_eq!(refused(&look, 1), Vec::<String>::new());
        assert_eq!(refused(&look, 2).len(), 1);
        for (name, value) in [
            ("read-consistency-level-override", "one"),
            ("write-commit-level-override", "master"),
            ("disable-write-dup-res", "true"),
            ("strong-consistency", "true"),
            ("disallow-expunge", "true"),
            ("reject-non-xdr-writes", "true"),
            ("max-record-size", "1048575"),
        ] {
            let mut bad = look.clone();
            let before = bad.namespace.insert(name.into(), value.into());
            assert!(before.is_some(), "no node says {name}");
            let refused = refused(&bad, 1);
            assert!(
                refused.len() == 1 && refused[0].contains(name),
                "{name}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_cluster_that_may_split_is_refused() {
        let mut look = good();
        let mut least = |least: &str, nodes: &str, known| {
            look.service.insert("min-cluster-size".into(), least.into());
            look.statistics.insert("cluster_size".into(), nodes.into());
            may_split(&look, known).is_some()
        };
        assert!(!least("1", "1", 1) && !least("1", "2", 2));
        assert!(!least("2", "3", 3) && !least("3", "4", 4));
        assert!(least("1", "3", 3) && least("2", "4", 4) && least("1", "1", 3));
    }

    #[test]
    fn nodes_of_different_clusters_are_told() {
        let mut other = good();
        assert_eq!(clusters(&[good(), good()]), None);
        other.cluster = "51C90D832EFF".into();
        assert!(clusters(&[good(), other.clone()]).is_some());
        other.cluster = "ERROR::unstable-cluster".into();
        assert!(clusters(&[good(), other]).is_some());
    }
}
