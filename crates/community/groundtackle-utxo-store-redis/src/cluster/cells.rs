//! Cells in a cluster: each step is one command on keys of one hash slot.

use std::fmt;

use async_trait::async_trait;
use groundtackle_utxo_store::pending::{Cell, CellKey, Cells, Claim, DueKind, Step, Stored, Write};
use groundtackle_utxo_store::{
    Error, Health, HealthDepth, Result, Retryability, Txid, UnminedTransaction,
};
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::config::RedisClusterUtxoStoreConfig;
use super::layout::{self, Bucket, Layout, Stretch};
use super::route::{Ask, Does, Route};
use super::{BACKEND, corrupt};
use crate::config::Durability;
use crate::error::{Again, Failed};
use crate::read::{array, members};
use crate::server::Server;

/// Partitions of a scan.
const PARTITIONS: usize = 16;

/// The cells of a store in a Redis Cluster.
pub struct RedisCells {
    pub(super) route: Route,
    pub(super) layout: Layout,
    /// The script's name at the servers.
    pub(super) script: String,
    pub(super) config: RedisClusterUtxoStoreConfig,
    pub(super) turns: Semaphore,
}

impl fmt::Debug for RedisCells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCells")
            .field("prefix", &self.config.prefix)
            .finish_non_exhaustive()
    }
}

/// What has failed, in the engine's terms.
fn error(failed: Failed) -> Error {
    match failed.again {
        Again::Unanswered => Error::backend(
            BACKEND,
            "a step (all or a part of it may have been carried out)",
            Retryability::Indeterminate,
            failed.error,
        ),
        _ => failed.error,
    }
}

const fn page(txid: Txid, page: u32) -> CellKey {
    CellKey::Page { txid, page }
}

fn yes(answer: &Value) -> Result<bool> {
    match answer {
        Value::Int(1) => Ok(true),
        Value::Int(0) => Ok(false),
        Value::Int(-1) => Err(corrupt(
            "a hash slot",
            "what the store had in it is gone; its server came up without its data",
        )),
        _ => Err(corrupt("an answer", "it is no yes or no")),
    }
}

impl RedisCells {
    async fn turn(&self, action: &str) -> Result<SemaphorePermit<'_>> {
        match tokio::time::timeout(self.config.turn_timeout, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Error::overloaded(
                BACKEND,
                format!("{action} (no turn within turn_timeout)"),
            )),
        }
    }

    async fn ask(&self, action: &str, asks: &[Ask]) -> Result<Vec<Value>> {
        self.send(action, Does::Read, asks).await
    }

    async fn send(&self, action: &str, does: Does, asks: &[Ask]) -> Result<Vec<Value>> {
        if asks.is_empty() {
            return Ok(Vec::new());
        }
        let _turn = self.turn(action).await?;
        self.route.ask_all(action, does, asks).await.map_err(error)
    }

    /// One run of the script.
    pub(super) fn run(&self, keys: &[Vec<u8>], step: &str) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.script).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        command.arg(step);
        command
    }

    /// One run on a cell, with its list if its place there may change.
    fn run_on(
        &self,
        key: &CellKey,
        listed: bool,
        step: &str,
        arguments: impl FnOnce(&mut Cmd),
    ) -> Result<Ask> {
        let (bucket, cell) = self.layout.key(key)?;
        let mut keys = vec![cell];
        if listed && layout::is_listed(key) {
            keys.push(bucket.list());
        }
        let mut command = self.run(&keys, step);
        arguments(&mut command);
        Ok(Ask {
            slot: bucket.slot,
            command,
        })
    }

    async fn run_all(&self, action: &str, asks: Result<Vec<Ask>>) -> Result<Vec<bool>> {
        let answers = self.send(action, Does::Write, &asks?).await?;
        let said: Result<_> = answers.iter().map(yes).collect();
        said.map_err(|error| match answers.contains(&Value::Int(1)) {
            true => error.after_effect(BACKEND, action),
            false => error,
        })
    }

    /// Members of lists in a stretch, bucket after bucket: first of few buckets, then of more, so that
    /// neither full nor empty ones take long.
    async fn listed(
        &self,
        action: &str,
        mut buckets: &[&Bucket],
        (from, to): Stretch,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        let mut at_once = 4;
        while found.len() < limit && !buckets.is_empty() {
            let (now, later) = buckets.split_at(buckets.len().min(at_once));
            buckets = later;
            at_once *= 8;
            let left = limit - found.len();
            let asks: Vec<_> = now
                .iter()
                .map(|bucket| {
                    let mut command = redis::cmd("ZRANGEBYLEX");
                    command.arg(bucket.list()).arg(&from).arg(&to);
                    command.arg("LIMIT").arg(0).arg(left);
                    Ask {
                        slot: bucket.slot,
                        command,
                    }
                })
                .collect();
            for answer in self.ask(action, &asks).await? {
                found.extend(members(answer)?);
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    fn all(&self) -> impl Iterator<Item = &Bucket> {
        self.layout.buckets().iter()
    }

    fn first_of(&self, partition: u32) -> usize {
        self.layout.buckets().len() / PARTITIONS * partition as usize
    }

    fn of_partition(&self, partition: u32) -> impl Iterator<Item = &Bucket> {
        let (first, end) = (self.first_of(partition), self.first_of(partition + 1));
        self.all().take(end).skip(first)
    }

    /// Buckets of transactions from one on.
    fn bucket_after(&self, after: Option<&Txid>) -> usize {
        after.map_or(0, |txid| self.layout.number_of(txid))
    }

    /// Buckets that have lost their list, and so their cells.
    pub(super) async fn lost(&self) -> Result<Vec<u16>> {
        let ask = |bucket: &Bucket| {
            let mut command = redis::cmd("EXISTS");
            command.arg(bucket.list());
            Ask {
                slot: bucket.slot,
                command,
            }
        };
        let asks: Vec<_> = self.all().map(ask).collect();
        let there = self.ask("look for the store's lists", &asks).await?;
        let lost = self
            .all()
            .zip(there)
            .filter(|(_, there)| *there != Value::Int(1));
        Ok(lost.map(|(bucket, _)| bucket.slot).collect())
    }

    async fn flush_once(&self, action: &str) -> Result<()> {
        let millis = self.config.answer_timeout.as_millis() / 2;
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        for (node, slots) in self.route.primaries() {
            let server = Server::ask(&node.link).await.map_err(error)?;
            if !server.has_waitaof() {
                return Err(Error::invalid_request(
                    "the servers can't say when their files are durable before Redis 7.2 (WAITAOF); set appendfsync always and `durability` to always, or use newer servers",
                ));
            }
            let Some(bucket) = self.all().find(|bucket| slots.contains(&bucket.slot)) else {
                continue;
            };
            // It waits for what its own connection has written, which may be nothing: so write. All that
            // others wrote before is in the log before that.
            let mut both = Pipeline::with_capacity(2);
            both.cmd("HSET").arg(bucket.flush()).arg("f").arg("");
            both.cmd("WAITAOF").arg(1).arg(0).arg(millis);
            let answers = node.link.send_all(action, &both).await.map_err(error)?;
            for answer in answers {
                let answer = answer.extract_error();
                let answer = answer.map_err(|e| crate::error::failed(BACKEND, action, e).error)?;
                if let Value::Array(done) = answer
                    && !matches!(done.first(), Some(Value::Int(1..)))
                {
                    return Err(Error::backend(
                        BACKEND,
                        action,
                        Retryability::Transient,
                        "a server's file was not durable within half of answer_timeout",
                    ));
                }
            }
        }
        Ok(())
    }
}

fn parse_unmined(member: &[u8]) -> Result<UnminedTransaction> {
    let mut reader = layout::Reader(member.get(1..).unwrap_or_default());
    let transaction = UnminedTransaction {
        txid: Txid::from_bytes(reader.array()?),
        unmined_since: reader.number()?,
    };
    reader.end(transaction)
}

#[async_trait]
impl Cells for RedisCells {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn is_persistent(&self) -> bool {
        self.config.durability > Durability::None
    }

    fn partitions(&self) -> u32 {
        PARTITIONS as u32
    }

    fn partition_of(&self, txid: &Txid) -> u32 {
        let [first, ..] = txid.as_bytes();
        u32::from(first >> 4)
    }

    async fn read(&self, keys: &[CellKey]) -> Result<Vec<Option<Cell>>> {
        let ask = |key: &CellKey| {
            let (bucket, key) = self.layout.key(key)?;
            let mut command = redis::cmd("HGETALL");
            command.arg(key);
            Ok(Ask {
                slot: bucket.slot,
                command,
            })
        };
        let asks = keys.iter().map(ask).collect::<Result<Vec<_>>>()?;
        let answers = self.ask("read", &asks).await?;
        let cells = keys.iter().zip(answers);
        cells
            .map(|(key, answer)| layout::unpack_cell(key, answer))
            .collect()
    }

    async fn write(&self, writes: &[Write]) -> Result<Vec<bool>> {
        let ask = |write: &Write| {
            self.run_on(&write.key, true, "write", |command| {
                let expect = write.expect.map(u64::to_be_bytes);
                command.arg(expect.as_ref().map_or(&[][..], |stamp| stamp));
                match &write.cell {
                    None => {
                        command.arg("");
                    }
                    Some(cell) => {
                        let (state, fields) = layout::pack_cell(cell);
                        command.arg(state);
                        for (name, value) in fields {
                            command.arg(name).arg(value);
                        }
                    }
                }
            })
        };
        self.run_all("write", writes.iter().map(ask).collect())
            .await
    }

    async fn mark(&self, claims: &[Claim]) -> Result<Vec<bool>> {
        let ask = |claim: &Claim| {
            let key = page(claim.parent, claim.page);
            self.run_on(&key, false, "mark", |command| {
                let expected = claim.expected.as_ref().map(|expected| {
                    let script = Stored::Here(expected.script.as_bytes().to_vec());
                    layout::pack_output(expected.value_sat, &script)
                });
                command
                    .arg(&claim.vout.to_be_bytes())
                    .arg(layout::pack_mark(&claim.mark))
                    .arg(claim.height)
                    .arg(claim.coinbase_maturity)
                    .arg(u8::from(claim.ignore_locked))
                    .arg(&super::random().to_be_bytes())
                    .arg(expected.unwrap_or_default());
            })
        };
        self.run_all("mark", claims.iter().map(ask).collect()).await
    }

    async fn unmark(&self, claims: &[Claim]) -> Result<()> {
        let ask = |claim: &Claim| {
            let key = page(claim.parent, claim.page);
            self.run_on(&key, false, "unmark", |command| {
                command
                    .arg(&claim.vout.to_be_bytes())
                    .arg(layout::pack_mark(&claim.mark))
                    .arg(&super::random().to_be_bytes());
            })
        };
        let unmarked = self.run_all("unmark", claims.iter().map(ask).collect());
        unmarked.await.map(drop)
    }

    async fn step(&self, steps: &[Step]) -> Result<Vec<bool>> {
        let ask = |step: &Step| {
            let key = CellKey::head(step.txid);
            self.run_on(&key, true, "step", |command| {
                command
                    .arg(&step.attempt.to_be_bytes())
                    .arg(&[layout::pack_phase(step.to)])
                    .arg(&super::random().to_be_bytes());
            })
        };
        self.run_all("step", steps.iter().map(ask).collect()).await
    }

    async fn unmined(&self, after: Option<Txid>, limit: usize) -> Result<Vec<UnminedTransaction>> {
        let after = after.as_ref();
        let buckets: Vec<_> = self.all().skip(self.bucket_after(after)).collect();
        let stretch = layout::transactions(b'u', after);
        let listed = self.listed("list unmined transactions", &buckets, stretch, limit);
        let members = listed.await?;
        members.iter().map(|member| parse_unmined(member)).collect()
    }

    async fn unfinished(&self, partition: u32, limit: usize) -> Result<Vec<CellKey>> {
        let buckets: Vec<_> = self.of_partition(partition).collect();
        let stretch = layout::unfinished();
        let listed = self.listed("list what is unfinished", &buckets, stretch, limit);
        let keys = listed.await?.into_iter();
        keys.map(|member| layout::key_of(member.get(1..).unwrap_or_default()))
            .collect()
    }

    async fn due(&self, kind: DueKind, height: u32, limit: usize) -> Result<Vec<CellKey>> {
        let buckets: Vec<_> = self.layout.due().collect();
        let stretch = layout::due(kind, height);
        let listed = self.listed("list what is due", &buckets, stretch, limit);
        let keys = listed.await?.into_iter();
        keys.map(|member| layout::key_of(member.get(5..).unwrap_or_default()))
            .collect()
    }

    async fn scan(&self, partition: u32, after: Option<Txid>, limit: usize) -> Result<Vec<Txid>> {
        let after = after.as_ref();
        let begin = after.map_or(0, |txid| self.layout.number_of(txid));
        let first = self.first_of(partition);
        let skipped = begin.saturating_sub(first);
        let buckets: Vec<_> = self.of_partition(partition).skip(skipped).collect();
        let stretch = layout::transactions(b'c', after);
        let listed = self.listed("scan", &buckets, stretch, limit).await?;
        let txid = |member: &Vec<u8>| {
            let mut reader = layout::Reader(member.get(1..).unwrap_or_default());
            let txid = Txid::from_bytes(reader.array()?);
            reader.end(txid)
        };
        listed.iter().map(txid).collect()
    }

    /// With `durability` `always` an acknowledged write is durable already.
    async fn flush(&self) -> Result<()> {
        if self.config.durability != Durability::EverySecond {
            return Ok(());
        }
        let action = "flush";
        let mut schedule = self.config.retry.schedule();
        loop {
            let Err(error) = self.flush_once(action).await else {
                return Ok(());
            };
            let again = error.retryability().allows_retry(true);
            let Some(delay) = schedule.next_delay().filter(|_| again) else {
                return Err(error);
            };
            tokio::time::sleep(delay).await;
            // A lost primary may have a successor by now.
            self.route.look_again(action).await.map_err(self::error)?;
        }
    }

    async fn health(&self, depth: HealthDepth) -> Result<Health> {
        let mut reasons = Vec::new();
        if self.turns.available_permits() == 0 {
            reasons.push(format!(
                "{} steps are under way, and no more may be; raise max_calls, or send less at a time",
                self.config.max_calls
            ));
        }
        let mut ready = true;
        if depth == HealthDepth::Readiness {
            let found = self.faults().await.unwrap_or_else(|error| {
                let source = std::error::Error::source(&error);
                let cause = source.map(|cause| format!(": {cause}"));
                vec![format!("{error}{}", cause.unwrap_or_default())]
            });
            ready = found.is_empty();
            reasons.extend(found);
        }
        Ok(Health { ready, reasons })
    }
}

impl RedisCells {
    /// What is wrong with the cluster or the store in it.
    async fn faults(&self) -> Result<Vec<String>> {
        let action = "check the store";
        self.route.look_again(action).await.map_err(error)?;
        let mut faults = self.node_faults(action, self.config.min_replicas).await?;
        // What is in slots that nobody has, or can't be read, is not missed for good.
        if faults.is_empty() {
            if !self.check_settings().await? {
                faults.push("the store's settings are gone; restore it".into());
            }
            let lost = self.lost().await?;
            if !lost.is_empty() {
                faults.push(format!(
                    "what the store had in {} hash slots is gone (the first is {}), so its server came up without its data; restore the store, or sync it anew",
                    lost.len(),
                    lost.first().copied().unwrap_or_default()
                ));
            }
        }
        Ok(faults)
    }

    /// What is wrong with the cluster's primaries.
    pub(super) async fn node_faults(&self, action: &str, min_replicas: u32) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        let uncovered = self.route.uncovered();
        if uncovered > 0 {
            faults.push(format!(
                "{uncovered} hash slots of the cluster have no server"
            ));
        }
        for (node, slots) in self.route.primaries() {
            let place = |fault: &dyn fmt::Display| format!("{}: {fault}", node.address);
            let server = match Server::ask(&node.link).await {
                Ok(server) => server,
                Err(failed) if failed.error.retryability() == Retryability::Permanent => {
                    return Err(failed.error);
                }
                Err(failed) => {
                    faults.push(place(&failed.error));
                    continue;
                }
            };
            let found = server.faults(&self.config.wanted());
            faults.extend(found.iter().map(|fault| place(fault)));
            let replicas: u32 = server.value("connected_slaves").parse().unwrap_or(0);
            if replicas < min_replicas {
                faults.push(place(&format!(
                    "it has {replicas} replicas at hand, and min_replicas is {min_replicas}"
                )));
            }
            let mut info = redis::cmd("CLUSTER");
            info.arg("INFO");
            let ok = match node.link.ask(action, &info).await {
                Ok(Value::BulkString(text)) => {
                    String::from_utf8_lossy(&text).contains("cluster_state:ok")
                }
                Ok(Value::VerbatimString { text, .. }) => text.contains("cluster_state:ok"),
                Ok(_) => return Err(corrupt("an answer", "CLUSTER INFO is no text")),
                Err(failed) => {
                    faults.push(place(&failed.error));
                    continue;
                }
            };
            if !ok {
                faults.push(place(&"the cluster is down (cluster_state), as it sees it"));
            }
            // The last one, since slots that move away begin with the first.
            let mut buckets = self.layout.buckets().iter().rev();
            let Some(bucket) = buckets.find(|bucket| slots.contains(&bucket.slot)) else {
                continue;
            };
            let asks = [Ask {
                slot: bucket.slot,
                command: self.run(&bucket.probe(), "probe"),
            }];
            if let Err(error) = self.ask("write", &asks).await {
                let source = std::error::Error::source(&error);
                let cause = source.map(|cause| format!(": {cause}"));
                faults.push(place(&format!("{error}{}", cause.unwrap_or_default())));
            }
        }
        Ok(faults)
    }

    /// The store's settings, as they lie in the first bucket; `false` where they don't.
    pub(super) async fn check_settings(&self) -> Result<bool> {
        let Some(first) = self.all().next() else {
            return Ok(false);
        };
        let mut command = redis::cmd("HMGET");
        command.arg(first.settings());
        for name in ["format", "unspendable", "spread"] {
            command.arg(name);
        }
        let asks = [Ask {
            slot: first.slot,
            command,
        }];
        let mut answers = self.ask("open the store", &asks).await?.into_iter();
        let found = array(answers.next().unwrap_or_default())?;
        super::judge_settings(&self.config, found)
    }
}
