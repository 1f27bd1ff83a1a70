//! What the cluster is like: indexes, settings, and the state of each node.

use std::collections::BTreeMap;
use std::time::Duration;

use aerospike::query::CollectionIndexType;
use aerospike::{AdminPolicy, IndexType, Node, ResultCode, Task};
use groundtackle_utxo_store::{Error, Health, HealthDepth, Result, Retryability};

use crate::cells::{AerospikeCells, millis};
use crate::error::{BACKEND, failed};
use crate::record::{DUE, UNFINISHED, UNMINED};

/// What a node says of itself and of the namespace.
pub(crate) type Facts = BTreeMap<String, String>;

fn number(facts: &Facts, name: &str) -> Option<u64> {
    facts.get(name)?.parse().ok()
}

fn is(facts: &Facts, name: &str) -> bool {
    facts.get(name).is_some_and(|value| value == "true")
}

/// A setting that answers before all copies are written, or from one that may be old.
fn weakened(facts: &Facts) -> Option<String> {
    let weak = [
        ("read-consistency-level-override", "one"),
        ("write-commit-level-override", "master"),
    ];
    let weak = weak
        .into_iter()
        .find(|(name, value)| facts.get(*name).is_some_and(|found| found == value));
    weak.map(|(name, value)| format!("{name} {value}"))
}

/// What keeps a node from its work, and what soon will.
pub(crate) fn faults(node: &str, facts: &Facts, min_replicas: u32) -> (Vec<String>, Vec<String>) {
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
    let copies = number(facts, "effective_replication_factor");
    if let Some(copies) = copies.filter(|copies| *copies < u64::from(min_replicas)) {
        now.push(format!(
            "node {node} keeps {copies} copies of each record, and min_replicas asks for {min_replicas}; bring nodes back, or set the namespace's replication-factor"
        ));
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
    for name in ["data_used_pct", "index_used_pct", "sindex_used_pct"] {
        if let Some(used) = number(facts, name).filter(|used| *used >= 80) {
            soon.push(format!(
                "node {node} is full to {used} % ({name}); it refuses writes at its limit"
            ));
        }
    }
    (now, soon)
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
            let name = format!("groundtackle_{bin}");
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

    pub(crate) async fn facts(&self, node: &Node) -> Result<Facts> {
        let command = format!("namespace/{}", self.namespace);
        let answer = node.info(&self.admin(), &[&command]).await;
        let answer = answer.map_err(|error| failed("ask a node about itself", error))?;
        let text = answer.values().next().map_or("", String::as_str);
        if text.starts_with("ERROR") || text.starts_with("type=unknown") || text.is_empty() {
            return Err(Error::invalid_request(format!(
                "node {} has no namespace {}; namespaces are made in the server's configuration",
                node.name(),
                self.namespace
            )));
        }
        let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
        Ok(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// Refuses a cluster on which records could be lost, and says what else should be known.
    pub(crate) async fn check_settings(&self) -> Result<()> {
        for node in self.client.nodes() {
            let facts = self.facts(&node).await?;
            let copies = number(&facts, "replication-factor").unwrap_or(1);
            if copies < u64::from(self.min_replicas) {
                return Err(Error::invalid_request(format!(
                    "the namespace {} keeps {copies} copies of each record, and min_replicas asks for {}: set its replication-factor, or accept fewer",
                    self.namespace, self.min_replicas
                )));
            }
            if let Some(setting) = weakened(&facts) {
                return Err(Error::invalid_request(format!(
                    "the namespace {} sets {setting}, with which what was acknowledged can be lost or not be seen: remove that setting",
                    self.namespace
                )));
            }
            let on_file = facts
                .get("storage-engine")
                .is_some_and(|engine| engine != "memory");
            if on_file && !is(&facts, "storage-engine.commit-to-device") {
                tracing::info!(
                    namespace = self.namespace,
                    "an acknowledged write is in memory only until the node has flushed it"
                );
            }
            if number(&facts, "default-ttl").is_some_and(|ttl| ttl > 0) {
                tracing::info!(
                    namespace = self.namespace,
                    "records of the store never expire, whatever the namespace's default-ttl"
                );
            }
        }
        Ok(())
    }

    pub(crate) async fn look_at_nodes(&self, depth: HealthDepth) -> Result<Health> {
        let mut reasons = Vec::new();
        if !self.client.is_connected() {
            return Ok(Health {
                ready: false,
                reasons: vec!["no node of the cluster answers".into()],
            });
        }
        let (now, most) = (self.throttle.limit(), self.throttle.most());
        if now < most {
            reasons.push(format!(
                "only {now} of {most} requests are let through at a time, since nodes were overloaded"
            ));
        }
        let mut ready = true;
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
            for node in nodes {
                match self.facts(&node).await {
                    Ok(facts) => {
                        let (now, soon) = faults(node.name(), &facts, self.min_replicas);
                        ready &= now.is_empty();
                        reasons.extend(now.into_iter().chain(soon));
                    }
                    Err(error) => {
                        ready = false;
                        reasons.push(format!("node {}: {error}", node.name()));
                    }
                }
            }
        }
        Ok(Health { ready, reasons })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pairs: &[(&str, &str)]) -> Facts {
        let pairs = pairs.iter();
        pairs
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn each_fault_of_a_node_is_named() {
        let good = facts(&[
            ("stop_writes", "false"),
            ("clock_skew_stop_writes", "false"),
            ("effective_replication_factor", "2"),
            ("data_used_pct", "10"),
            ("migrate_tx_partitions_remaining", "0"),
        ]);
        assert_eq!(faults("A", &good, 2), (Vec::new(), Vec::new()));
        for (name, value) in [
            ("stop_writes", "true"),
            ("clock_skew_stop_writes", "true"),
            ("dead_partitions", "3"),
            ("unavailable_partitions", "1"),
            ("effective_replication_factor", "1"),
        ] {
            let mut bad = good.clone();
            bad.insert(name.into(), value.into());
            let (now, _) = faults("A", &bad, 2);
            assert!(
                now.len() == 1 && now[0].contains("node A"),
                "{name}: {now:?}"
            );
        }
        for (name, value) in [
            ("data_used_pct", "91"),
            ("migrate_rx_partitions_remaining", "7"),
        ] {
            let mut bad = good.clone();
            bad.insert(name.into(), value.into());
            let (now, soon) = faults("A", &bad, 2);
            assert!(now.is_empty() && soon.len() == 1, "{name}: {soon:?}");
        }
    }
}
