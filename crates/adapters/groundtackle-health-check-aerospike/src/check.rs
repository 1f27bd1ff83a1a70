use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use groundtackle_health_check::{Check, Observation};
use groundtackle_health_check_client::{Dialer, Endpoint, in_full};
use tokio::time::timeout;

use crate::config::AerospikeCheckConfig;
use crate::info::{Facts, Line};
use crate::judge::{Found, Look, judge};
use crate::peers::{Peer, peers};

/// As many as a cluster has.
const MAX_NODES: usize = 256;

/// As many as a cluster has.
const MAX_NAMESPACES: usize = 32;

/// Asks each node of a cluster, all at once, on connections of their own.
#[derive(Debug)]
pub struct AerospikeCheck {
    config: AerospikeCheckConfig,
    /// Of each address of the config one of its own: a name that is not to be had keeps no other from being looked up.
    seeds: Vec<(Endpoint, Dialer)>,
    /// Of what they lead to.
    peers: Dialer,
}

impl From<AerospikeCheckConfig> for AerospikeCheck {
    fn from(config: AerospikeCheckConfig) -> Self {
        let addresses = config.addresses.iter().cloned();
        Self {
            seeds: addresses.map(|of| (of, Dialer::default())).collect(),
            peers: Dialer::default(),
            config,
        }
    }
}

/// Somebody to ask.
#[derive(Clone, Debug)]
struct Target {
    /// As another node calls it.
    id: Option<String>,
    addresses: Vec<Endpoint>,
    dialer: Dialer,
}

/// What a node says of itself and of others.
struct Answer {
    id: String,
    look: Look,
    peers: Vec<Peer>,
}

impl AerospikeCheck {
    /// Each address in turn, all within a node's time.
    async fn ask(&self, target: Target) -> (Target, Result<Answer, Observation>) {
        let limit = self.config.node_timeout;
        let asked = async {
            let none = || Observation::fail("no-answer").with_detail("it has no address");
            let mut seen = none();
            for address in &target.addresses {
                match self.ask_at(&target.dialer, address).await {
                    Ok(answer) => return Ok(answer),
                    Err(problem) => seen = problem,
                }
            }
            Err(seen)
        };
        let asked = timeout(limit, asked).await.unwrap_or_else(|_| {
            let who: Vec<_> = target.addresses.iter().map(Endpoint::to_string).collect();
            let who = who.join(", ");
            let detail = format!("{who}: no answer within node_timeout ({limit:?})");
            Err(Observation::fail("timeout").with_detail(detail))
        });
        (target, asked)
    }

    async fn ask_at(&self, dialer: &Dialer, address: &Endpoint) -> Result<Answer, Observation> {
        let no_answer = |why: &dyn std::fmt::Display| {
            Observation::fail("no-answer").with_detail(format!("{address}: {why}"))
        };
        let broken = |error: std::io::Error| no_answer(&in_full(&error));
        let line = Line::to(dialer, address).await;
        let mut line = line.map_err(|error| error.observation())?;
        let of_peers = if self.config.use_alternate_addresses {
            "peers-clear-alt"
        } else {
            "peers-clear-std"
        };
        let stable = "cluster-stable:ignore-migrations=true";
        let first = ["node", of_peers, "namespaces", stable].map(str::to_owned);
        let mut said = line.ask(&first).await.map_err(broken)?;
        let mut take = |name: &str| said.remove(name).unwrap_or_default();
        let (id, listed, names, cluster) = (
            take("node"),
            take(of_peers),
            take("namespaces"),
            take(stable),
        );
        let tells = !id.is_empty() && !names.is_empty() && !names.starts_with("ERROR");
        let Some(peers) = peers(&listed).filter(|_| tells) else {
            return Err(no_answer(&format!(
                "it does not say who it is, what it has and who its peers are, as where security is on: {id} {names} {listed}"
            )));
        };
        let names: Vec<_> = if self.config.namespaces.is_empty() {
            let all = names.split(';').filter(|name| !name.is_empty());
            all.take(MAX_NAMESPACES).map(str::to_owned).collect()
        } else {
            self.config.namespaces.clone()
        };
        let questions: Vec<_> = names
            .iter()
            .map(|name| format!("namespace/{name}"))
            .collect();
        let mut said: Facts = match questions.is_empty() {
            true => Facts::new(),
            false => line.ask(&questions).await.map_err(broken)?,
        };
        let told = names.into_iter().zip(questions).map(|(name, question)| {
            let told = said.remove(&question).unwrap_or_default();
            (name, told)
        });
        let look = Look {
            cluster,
            namespaces: told.collect(),
        };
        Ok(Answer { id, look, peers })
    }

    /// Everybody that the config names, and everybody that they name.
    async fn look(&self) -> Result<Found, Observation> {
        let mut found = Found::default();
        let mut why_not = None;
        // Who is in the cluster, by all that was told; and who could not be asked.
        let (mut members, mut failed) = (BTreeMap::new(), Vec::new());
        let mut begun: HashSet<Endpoint> = HashSet::new();
        let mut asking = FuturesUnordered::new();
        begun.extend(self.config.addresses.iter().cloned());
        for (address, dialer) in &self.seeds {
            let (addresses, dialer) = (vec![address.clone()], dialer.clone());
            asking.push(self.ask(Target {
                id: None,
                addresses,
                dialer,
            }));
        }
        while let Some((target, asked)) = asking.next().await {
            let answer = match asked {
                Ok(answer) => answer,
                Err(seen) => {
                    let why = seen.detail.clone().unwrap_or_default();
                    why_not.get_or_insert(seen);
                    failed.push((target, why));
                    continue;
                }
            };
            found.looks.insert(answer.id, answer.look);
            for peer in answer.peers {
                let known = members.contains_key(&peer.id) || members.len() >= MAX_NODES;
                // At an address of the config it is asked already.
                let asked = peer.addresses.iter().any(|address| begun.contains(address));
                let Peer { id, addresses } = peer;
                if known {
                    continue;
                }
                members.insert(id.clone(), addresses.clone());
                if !asked && !found.looks.contains_key(&id) {
                    begun.extend(addresses.iter().cloned());
                    let (id, dialer) = (Some(id), self.peers.clone());
                    asking.push(self.ask(Target {
                        id,
                        addresses,
                        dialer,
                    }));
                }
            }
        }
        if found.looks.is_empty() {
            let nobody = Observation::fail("no-answer").with_detail("addresses names no node");
            return Err(why_not.unwrap_or(nobody));
        }
        for (target, why) in failed {
            let addresses = || target.addresses.iter();
            let member = target.id.clone().or_else(|| {
                let is_its = |of: &Vec<Endpoint>| addresses().any(|address| of.contains(address));
                let mut members = members.iter();
                members.find(|(_, of)| is_its(of)).map(|(id, _)| id.clone())
            });
            match member {
                // By another address it could.
                Some(id) if found.looks.contains_key(&id) => {}
                Some(id) => found.unreachable.push(format!("node {id}: {why}")),
                None => found.silent.push(why.to_string()),
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl Check for AerospikeCheck {
    async fn check(&self) -> Observation {
        match self.look().await {
            Ok(found) => judge(&self.config, &found),
            Err(seen) => seen,
        }
    }
}
