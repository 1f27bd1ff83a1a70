//! Which server has which hash slot, and sending each command to the one that has its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use groundtackle_utxo_store::{Error, Result, Retryability};
use redis::{Cmd, Pipeline, RedisError, Value};

use super::layout::SLOTS;
use super::{BACKEND, corrupt};
use crate::connection::{Access, Link, bad_url};
use crate::error::{Again, Failed, failed};
use crate::read::{array, bytes};

/// How often one command is sent elsewhere: slots move one at a time.
const MOST_ROUNDS: usize = 8;

/// What goes to a server in one go, so that no answer is beyond measure.
const PIPELINE: usize = 1_024;

/// A server of the cluster.
pub(crate) struct Node {
    /// Host and port, as the cluster names it.
    pub(crate) address: String,
    pub(crate) link: Link,
}

/// A command, and the slot of its keys.
pub(crate) struct Ask {
    pub(crate) slot: u16,
    pub(crate) command: Cmd,
}

#[derive(Default)]
struct Map {
    /// Which look at the cluster it comes from.
    number: u64,
    /// One of its servers could not be reached, or is none of its primaries any more.
    stale: bool,
    owners: Vec<Option<Arc<Node>>>,
    nodes: BTreeMap<String, Arc<Node>>,
}

/// The cluster's servers.
pub(crate) struct Route {
    access: Arc<Access>,
    /// Where the cluster is first looked for.
    seeds: Vec<Arc<Node>>,
    /// Where servers are reached whose own names mean nothing here.
    addresses: BTreeMap<String, String>,
    script: &'static str,
    wait: Wait,
    map: Mutex<Map>,
    looking: tokio::sync::Mutex<()>,
}

/// How many replicas must have what is written, and how long they are waited for.
#[derive(Clone, Copy)]
pub(crate) struct Wait {
    pub(crate) replicas: u32,
    pub(crate) millis: u64,
}

/// What a command does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Read,
    Write,
}

/// Where a command goes next.
#[derive(Clone)]
enum Goal {
    Owner,
    /// The slot is moving there, and this command's keys have.
    Asking(Arc<Node>),
}

fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    // A server tells its bus port too.
    let port = port.split('@').next()?.parse().ok()?;
    Some((host.trim_matches(['[', ']']), port))
}

impl Route {
    pub(crate) fn new(
        access: Access,
        seeds: &[(String, u16)],
        addresses: BTreeMap<String, String>,
        script: &'static str,
        wait: Wait,
    ) -> Result<Self> {
        let access = Arc::new(access);
        let seed = |(host, port): &(String, u16)| {
            Ok(Arc::new(Node {
                address: format!("{host}:{port}"),
                link: Link::to(access.clone(), host.clone(), *port)?,
            }))
        };
        Ok(Self {
            seeds: seeds.iter().map(seed).collect::<Result<_>>()?,
            access: access.clone(),
            addresses,
            script,
            wait,
            map: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        })
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some primaries may have no slot of the store.
    pub(crate) fn primaries(&self) -> Vec<(Arc<Node>, BTreeSet<u16>)> {
        let mut primaries: BTreeMap<String, (Arc<Node>, BTreeSet<u16>)> = BTreeMap::new();
        for (slot, owner) in (0..).zip(&self.map().owners) {
            let Some(owner) = owner else { continue };
            let entry = primaries.entry(owner.address.clone());
            let (_, slots) = entry.or_insert_with(|| (owner.clone(), BTreeSet::new()));
            slots.insert(slot);
        }
        primaries.into_values().collect()
    }

    /// Slots that no server has.
    pub(crate) fn uncovered(&self) -> usize {
        let map = self.map();
        usize::from(SLOTS) - map.owners.iter().flatten().count()
    }

    fn node(&self, map: &mut Map, address: &str) -> Result<Arc<Node>> {
        if let Some(node) = map.nodes.get(address) {
            return Ok(node.clone());
        }
        let reached = self.addresses.get(address);
        let (host, port) = host_and_port(reached.map_or(address, String::as_str))
            .ok_or_else(|| corrupt("an answer", "a server of the cluster has no address"))?;
        let link = Link::to(self.access.clone(), host.into(), port).map_err(|_| bad_url())?;
        let node = Arc::new(Node {
            address: address.into(),
            link,
        });
        map.nodes.insert(address.into(), node.clone());
        Ok(node)
    }

    fn set_stale(&self) {
        self.map().stale = true;
    }

    /// Looks at the cluster, unless another one has since `seen`.
    async fn look(&self, action: &str, seen: u64) -> Result<(), Failed> {
        let _looking = self.looking.lock().await;
        let known: Vec<_> = {
            let map = self.map();
            if map.number != seen {
                return Ok(());
            }
            map.nodes.values().chain(&self.seeds).cloned().collect()
        };
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let mut last = None;
        for node in known {
            match node.link.ask(action, &command).await {
                Ok(answer) => match self.learn(&node, answer)? {
                    true => return Ok(()),
                    // It has not joined, or was thrown out.
                    false => {
                        let error = Error::backend(
                            BACKEND,
                            action,
                            Retryability::Transient,
                            format!("{} knows of no slots", node.address),
                        );
                        last.get_or_insert(Failed {
                            error,
                            again: Again::Yes,
                        });
                    }
                },
                Err(failed) if is_no_cluster(&failed) => {
                    return Err(Error::invalid_request(format!(
                        "{} is no Redis Cluster; use RedisUtxoStore for a single server",
                        node.address
                    ))
                    .into());
                }
                Err(failed) => last = Some(failed),
            }
        }
        Err(last.unwrap_or_else(|| bad_url().into()))
    }

    fn learn(&self, from: &Node, answer: Value) -> Result<bool> {
        let mut map = self.map();
        let mut owners = vec![None; usize::from(SLOTS)];
        let mut named = BTreeSet::new();
        let ranges = array(answer)?;
        for range in &ranges {
            let Value::Array(parts) = range else {
                return Err(corrupt("an answer", "CLUSTER SLOTS has no ranges"));
            };
            let [
                Value::Int(first),
                Value::Int(last),
                Value::Array(primary),
                ..,
            ] = parts.as_slice()
            else {
                return Err(corrupt("an answer", "CLUSTER SLOTS has a range of no form"));
            };
            let [host, Value::Int(port), ..] = primary.as_slice() else {
                return Err(corrupt(
                    "an answer",
                    "CLUSTER SLOTS has a server of no form",
                ));
            };
            let host = bytes(host.clone())?.unwrap_or_default();
            let host = String::from_utf8_lossy(&host);
            let address = address_of(&host, *port, from);
            let node = self.node(&mut map, &address)?;
            named.insert(address);
            let slots = usize::try_from(*first)
                .ok()
                .zip(usize::try_from(*last).ok());
            let owned = slots.and_then(|(first, last)| owners.get_mut(first..=last));
            owned
                .ok_or_else(|| corrupt("an answer", "CLUSTER SLOTS names slots that are none"))?
                .fill(Some(node));
        }
        if ranges.is_empty() {
            return Ok(false);
        }
        map.owners = owners;
        map.nodes.retain(|address, _| named.contains(address));
        map.number += 1;
        map.stale = false;
        Ok(true)
    }

    /// Looks at the cluster anew.
    pub(crate) async fn look_again(&self, action: &str) -> Result<(), Failed> {
        let seen = self.map().number;
        self.look(action, seen).await
    }

    /// Sends commands to the servers that have their slots, all at once; answers are in their order.
    /// Where some have failed, the fate of all is open: what one server refuses another one may have done.
    pub(crate) async fn ask_all(
        &self,
        action: &str,
        does: Does,
        asks: &[Ask],
    ) -> Result<Vec<Value>, Failed> {
        let done = AtomicBool::new(false);
        let asked = self.ask_in_rounds(action, does, asks, &done).await;
        asked.map_err(|failed| match does == Does::Write && done.into_inner() {
            true => Failed {
                again: Again::Unanswered,
                ..failed
            },
            false => failed,
        })
    }

    async fn ask_in_rounds(
        &self,
        action: &str,
        does: Does,
        asks: &[Ask],
        done: &AtomicBool,
    ) -> Result<Vec<Value>, Failed> {
        let (seen, stale) = {
            let map = self.map();
            (map.number, map.stale || map.owners.is_empty())
        };
        if stale {
            self.look(action, seen).await?;
        }
        let mut answers: Vec<Option<Value>> = asks.iter().map(|_| None).collect();
        let mut open: Vec<(usize, Goal)> = (0..asks.len()).map(|at| (at, Goal::Owner)).collect();
        let mut without_script: BTreeSet<String> = BTreeSet::new();
        for _ in 0..MOST_ROUNDS {
            let groups = self.group(action, asks, std::mem::take(&mut open))?;
            let sent = groups.iter().map(|(node, asking, group)| {
                let load = without_script.contains(&node.address);
                self.send(action, does, asks, node, *asking, group, load, done)
            });
            let mut failure: Option<Failed> = None;
            let all = join_all(sent).await;
            without_script.clear();
            for ((node, _, group), sent) in groups.iter().zip(all) {
                let sent = match sent {
                    Ok(sent) => sent,
                    Err(failed) => {
                        self.set_stale();
                        // Another one's refusal does not make it certain.
                        done.fetch_or(failed.again == Again::Unanswered, Ordering::Relaxed);
                        worse(&mut failure, failed);
                        continue;
                    }
                };
                for (at, answer) in group.iter().zip(sent) {
                    let error = match answer.extract_error() {
                        Ok(answer) => {
                            if let Some(place) = answers.get_mut(*at) {
                                *place = Some(answer);
                            }
                            continue;
                        }
                        Err(error) => error,
                    };
                    match self.elsewhere(node, &error)? {
                        Some(goal) => open.push((*at, goal)),
                        None if error.code() == Some("NOSCRIPT") => {
                            without_script.insert(node.address.clone());
                            open.push((*at, Goal::Owner));
                        }
                        None => {
                            if matches!(error.code(), Some("READONLY" | "CLUSTERDOWN")) {
                                self.set_stale();
                            }
                            worse(&mut failure, failed(BACKEND, action, error));
                        }
                    }
                }
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
            if open.is_empty() {
                let complete: Option<Vec<_>> = answers.into_iter().collect();
                return Ok(complete.ok_or_else(|| corrupt("an answer", "a part is missing"))?);
            }
        }
        self.set_stale();
        Err(Failed {
            error: Error::backend(
                BACKEND,
                action,
                Retryability::Transient,
                "the servers send each other what none of them has",
            ),
            again: Again::Yes,
        })
    }

    /// What goes to one server in one go.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn group(
        &self,
        action: &str,
        asks: &[Ask],
        open: Vec<(usize, Goal)>,
    ) -> Result<Vec<(Arc<Node>, bool, Vec<usize>)>, Failed> {
        let mut groups: HashMap<(String, bool), (Arc<Node>, Vec<usize>)> = HashMap::new();
        let map = self.map();
        for (at, goal) in open {
            let slot = asks.get(at).map_or(0, |ask| usize::from(ask.slot));
            let (node, asking) = match goal {
                Goal::Asking(node) => (Some(node), true),
                Goal::Owner => (map.owners.get(slot).cloned().flatten(), false),
            };
            let Some(node) = node else {
                drop(map);
                self.set_stale();
                let error = Error::backend(
                    BACKEND,
                    action,
                    Retryability::Transient,
                    format!("no server of the cluster has hash slot {slot}"),
                );
                return Err(Failed {
                    error,
                    again: Again::Yes,
                });
            };
            let group = groups.entry((node.address.clone(), asking));
            group.or_insert_with(|| (node, Vec::new())).1.push(at);
        }
        let groups = groups.into_iter();
        Ok(groups
            .map(|((_, asking), (node, group))| (node, asking, group))
            .collect())
    }

    #[expect(clippy::too_many_arguments, reason = "it is a part of its only caller")]
    async fn send(
        &self,
        action: &str,
        does: Does,
        asks: &[Ask],
        node: &Node,
        asking: bool,
        group: &[usize],
        load: bool,
        done: &AtomicBool,
    ) -> Result<Vec<Value>, Failed> {
        let mut answers = Vec::with_capacity(group.len());
        if load {
            self.load_script(action, node).await?;
        }
        for part in group.chunks(PIPELINE) {
            let mut pipeline = Pipeline::with_capacity(2 * part.len());
            for ask in part.iter().filter_map(|at| asks.get(*at)) {
                if asking {
                    pipeline.cmd("ASKING");
                }
                pipeline.add_command(ask.command.clone());
            }
            let waits = does == Does::Write && self.wait.replicas > 0;
            if waits {
                let Wait { replicas, millis } = self.wait;
                pipeline.cmd("WAIT").arg(replicas).arg(millis);
            }
            let mut sent = node.link.send_all(action, &pipeline).await?;
            if waits {
                let have = sent.pop();
                let enough = i64::from(self.wait.replicas)..;
                if !matches!(have, Some(Value::Int(have)) if enough.contains(&have)) {
                    return Err(Failed::unanswered(
                        BACKEND,
                        action,
                        format!("{}: fewer than min_replicas replicas have it", node.address),
                    ));
                }
            }
            let (skipped, step) = if asking { (1, 2) } else { (0, 1) };
            let sent = sent.into_iter().skip(skipped).step_by(step);
            answers.extend(sent.inspect(|answer| {
                let refused = matches!(answer, Value::ServerError(_));
                done.fetch_or(!refused, Ordering::Relaxed);
            }));
        }
        Ok(answers)
    }

    /// The script's name at the servers: of its text, so that all of them have the same.
    pub(crate) async fn load_script(&self, action: &str, node: &Node) -> Result<String, Failed> {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(self.script);
        let sha = bytes(node.link.ask(action, &command).await?)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&sha).into_owned())
    }

    /// Where a server says that a command belongs.
    fn elsewhere(&self, from: &Node, error: &RedisError) -> Result<Option<Goal>> {
        let code = error.code();
        if !matches!(code, Some("MOVED" | "ASK")) {
            return Ok(None);
        }
        let mut words = error.detail().unwrap_or_default().split(' ');
        let slot = words.next().and_then(|slot| slot.parse::<usize>().ok());
        let place = words.next().and_then(host_and_port);
        let (Some(slot), Some((host, port))) = (slot, place) else {
            return Err(corrupt("an answer", "a server names no place for a slot"));
        };
        let address = address_of(host, port.into(), from);
        let mut map = self.map();
        let node = self.node(&mut map, &address)?;
        if code == Some("ASK") {
            return Ok(Some(Goal::Asking(node)));
        }
        if let Some(owner) = map.owners.get_mut(slot) {
            *owner = Some(node);
        }
        Ok(Some(Goal::Owner))
    }
}

/// A server that does not know its own name means the one under which it was asked.
fn address_of(host: &str, port: i64, from: &Node) -> String {
    let host = match (host, host_and_port(&from.address)) {
        ("" | "?", Some((host, _))) => host,
        _ => host,
    };
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn is_no_cluster(failed: &Failed) -> bool {
    let source = std::error::Error::source(&failed.error);
    source.is_some_and(|source| source.to_string().contains("cluster support disabled"))
}

/// What no repetition mends comes first, then what may have been carried out.
fn worse(before: &mut Option<Failed>, now: Failed) {
    let rank = |failed: &Failed| match (failed.again, failed.error.retryability()) {
        (_, Retryability::Permanent) => 2,
        (Again::Unanswered, _) => 1,
        _ => 0,
    };
    if before
        .as_ref()
        .is_none_or(|before| rank(before) < rank(&now))
    {
        *before = Some(now);
    }
}
