use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use groundtackle_utxo_store::draft::{
    Call, Draft, DraftStore, Pruning, Reads, Stop, blocking, page_of_unmined,
};
use groundtackle_utxo_store::{
    Attempts, Capabilities, Error, Fields, Health, HealthDepth, OutPoint, Outcome, OutputView,
    Page, Record, Recovered, Result, Retryability, SetDigest, SetScan, Tip, Txid,
    UnminedTransaction, Verdict, draft_store,
};
use redis::Value;
use tokio::sync::Semaphore;

use crate::call::{Lane, changing, now, random};
use crate::config::{Durability, RedisUtxoStoreConfig};
use crate::connection::Link;
use crate::error::{Again, BACKEND};
use crate::read::{Keys, View, array, bytes, members};
use crate::scan::RedisScan;
use crate::server::{self, Server};
use crate::write::Change;

/// A lane that nobody has used for this time belongs to a process that is gone.
const LANE_SECS: u64 = 86_400;

/// Lanes that are looked at in one step.
const LANES: usize = 1_000;

/// A UTXO store in a Redis server. Clones share the connection.
#[derive(Clone)]
pub struct RedisUtxoStore {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for RedisUtxoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisUtxoStore")
            .field("prefix", &self.inner.config.prefix)
            .finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) link: Link,
    pub(crate) keys: Keys,
    pub(crate) config: RedisUtxoStoreConfig,
    /// The script's names at the server, by whether it may run while memory is full.
    pub(crate) scripts: Mutex<HashMap<bool, Arc<str>>>,
    pub(crate) turns: Arc<Semaphore>,
    /// Those who change the chain's value take turns, since they would overtake each other.
    pub(crate) chain: Arc<Semaphore>,
    pub(crate) lanes: Arc<Mutex<Vec<Lane>>>,
    /// Whether the transactions that the last call of a kind brought were new to the store: of those that
    /// are not of the chain, and of those that are.
    pub(crate) new_before: [AtomicBool; 2],
    /// This process's part of a lane's name, and where its tokens begin.
    pub(crate) id: u64,
    pub(crate) tokens: AtomicU64,
}

impl RedisUtxoStore {
    /// Connects to the server, and opens the store of the config's prefix, or creates it.
    ///
    /// Runs on tokio, on whose runtime the connection lives.
    ///
    /// # Errors
    /// `InvalidRequest` for settings that make no sense, and for a server of another version or with
    /// settings under which records could be lost; `NewerFormat`; `NotFound` unless it may be created;
    /// `Backend` where the server can't be reached, or refuses user, password or rights.
    pub async fn open(config: RedisUtxoStoreConfig) -> Result<Self> {
        let inner = Arc::new(Inner::new(config)?);
        Box::pin(inner.prepare()).await?;
        Ok(Self { inner })
    }
}

impl Inner {
    fn new(config: RedisUtxoStoreConfig) -> Result<Self> {
        config.check()?;
        let permits = config.max_calls as usize;
        let permits = permits.min(Semaphore::MAX_PERMITS);
        Ok(Self {
            link: Link::new(&config)?,
            keys: Keys::new(&config.prefix),
            config,
            scripts: Mutex::default(),
            turns: Arc::new(Semaphore::new(permits)),
            chain: Arc::new(Semaphore::new(1)),
            lanes: Arc::default(),
            new_before: [const { AtomicBool::new(true) }; 2],
            id: random(),
            tokens: AtomicU64::new(random()),
        })
    }

    /// Opens what is there, or creates it.
    async fn prepare(&self) -> Result<()> {
        let action = "open the store";
        let mut attempts = self.attempts(action);
        let server = loop {
            match Server::ask(&self.link).await {
                Ok(server) => break server,
                Err(failed) if failed.again == Again::Yes => {
                    failed.again(&mut attempts).await?;
                }
                Err(failed) => return Err(failed.error),
            }
        };
        let faults = server.faults(&self.config.wanted());
        if !faults.is_empty() {
            return Err(Error::invalid_request(faults.join("; ")));
        }
        let there = server::check_settings(&self.link, &self.keys, &self.config);
        let there = there.await.map_err(|failed| failed.error)?;
        if !there && !self.config.create {
            return Err(Error::NotFound {
                store: format!("prefix {}", self.config.prefix),
            });
        }
        let mut turn = self.turn(action, true).await?;
        let probe = Change::probe(&self.keys);
        let probed = self.carry_out(&probe, &mut turn, &mut attempts).await;
        probed.map_err(|failed| failed.error)?;
        if there {
            return Ok(());
        }
        let change = server::creation(&self.keys, self.token(), &self.config);
        let created = self.carry_out(&change, &mut turn, &mut attempts).await;
        if created.map_err(|failed| failed.error)? {
            tracing::info!(prefix = self.config.prefix, "created a store");
        } else {
            // Another process was faster: its settings count.
            let there = server::check_settings(&self.link, &self.keys, &self.config);
            there.await.map_err(|failed| failed.error)?;
        }
        Ok(())
    }

    /// Writes a little; tells what is wrong with the server.
    async fn ready(&self) -> Result<Vec<String>> {
        let action = "check the store";
        // Twice, since the connection may have been lost long ago.
        let twice = self.config.retry.clone().with_max_attempts(2);
        let mut attempts = Attempts::new(action, twice.schedule());
        let mut turn = self.turn(action, false).await?;
        let change = Change::probe(&self.keys);
        let written = self.carry_out(&change, &mut turn, &mut attempts).await;
        written.map_err(|failed| failed.error)?;
        let server = Server::ask(&self.link)
            .await
            .map_err(|failed| failed.error)?;
        let mut faults = server.faults(&self.config.wanted());
        let there = server::check_settings(&self.link, &self.keys, &self.config);
        if !there.await.map_err(|failed| failed.error)? {
            faults.push("the store is gone from the server; restore it, or open it anew".into());
        }
        Ok(faults)
    }
}

impl DraftStore for RedisUtxoStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(BACKEND);
        capabilities.persistent = self.inner.config.durability > Durability::None;
        capabilities.ordered_scan = true;
        capabilities.incremental_digest = true;
        capabilities.atomic_blocks = true;
        capabilities.max_batch_items = Some(self.inner.config.max_batch_items);
        capabilities
    }

    async fn call<I, T>(
        &self,
        call: Call<'_, I>,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync + 'static,
    ) -> Result<Vec<Outcome<T>>>
    where
        I: Clone + Send + Sync + 'static,
        T: Send + 'static,
    {
        self.inner.call(call, judge).await
    }

    async fn records(&self, txids: &[Txid], fields: Fields) -> Result<Vec<Option<Record>>> {
        let mut reads = Reads::new();
        reads.records.extend(txids);
        if fields.inputs {
            reads.inputs.clone_from(&reads.records);
        }
        if fields.outputs {
            reads.outputs.clone_from(&reads.records);
        }
        let view = self.inner.look("read records", &reads).await?;
        let record = |txid| {
            let mut record = view.records.get(txid)?.as_ref()?.record();
            if !fields.inputs {
                record.inputs.clear();
            }
            if !fields.outputs {
                record.outputs.clear();
            }
            Some(record)
        };
        Ok(txids.iter().map(record).collect())
    }

    async fn outputs(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<OutputView>>> {
        let mut reads = Reads::new();
        outpoints.iter().for_each(|outpoint| reads.slot(*outpoint));
        let records = self.inner.look("read outputs", &reads).await?.records;
        let view = |outpoint: &OutPoint| {
            let outpoint = *outpoint;
            let Some(stored) = records.get(&outpoint.txid).and_then(Option::as_ref) else {
                return Err(Verdict::MissingTransaction { outpoint });
            };
            let Some(slot) = stored.output(outpoint.vout) else {
                return Err(Verdict::MissingOutput { outpoint });
            };
            Ok(OutputView::new(&stored.main.head, slot.clone()))
        };
        Ok(outpoints.iter().map(view).collect())
    }

    async fn tip(&self) -> Result<Option<Tip>> {
        Ok(self.inner.chain("read the tip").await?.tip)
    }

    async fn previous_tip(&self) -> Result<Option<Tip>> {
        let inner = &self.inner;
        let mut attempts = inner.attempts("read the previous tip");
        loop {
            let action = attempts.action();
            let Some(tip) = inner.chain(action).await?.tip else {
                return Ok(None);
            };
            let mut reads = Reads::new();
            reads.undo.insert(tip.hash);
            let mut view = View::default();
            let read = view.read(&inner.link, &inner.keys, action, &reads, true);
            match read.await {
                Ok(_) if view.chain.take().and_then(|chain| chain.tip) == Some(tip) => {
                    let undo = view.undo.remove(&tip.hash).flatten();
                    return Ok(undo.and_then(|(_, undo)| undo.previous));
                }
                // The tip has moved between the two.
                Ok(_) => changing(action).again(&mut attempts).await?,
                Err(failed) => failed.again(&mut attempts).await?,
            }
        }
    }

    async fn unmined(
        &self,
        older_than: Option<u32>,
        after: Option<Txid>,
        limit: usize,
    ) -> Result<Page<UnminedTransaction>> {
        let list = |after, wanted| self.inner.list_unmined(after, wanted);
        page_of_unmined(older_than, after, limit, list).await
    }

    async fn prune_undo(&self, horizon: u32, so_far: &mut Pruning) -> Result<bool> {
        let (_, more) = self.inner.step(horizon, true).await?;
        so_far.pruned.blocks += u64::from(more);
        Ok(more)
    }

    async fn prune_expired(&self, horizon: u32, so_far: &mut Pruning) -> Result<bool> {
        let (records, more) = self.inner.step(horizon, false).await?;
        so_far.pruned.records += records;
        Ok(more)
    }

    async fn scan(&self) -> Result<Box<dyn SetScan>> {
        Ok(Box::new(RedisScan::begin(self.inner.clone()).await?))
    }

    async fn digest(&self) -> Result<SetDigest> {
        let chain = self.inner.chain("read the digest").await?;
        Ok(SetDigest {
            tip: chain.tip,
            muhash: blocking(|| chain.muhash.digest()),
        })
    }

    /// The server carries each change out whole, or not at all. What is left are lanes of processes
    /// that are gone.
    async fn recover(&self) -> Result<Recovered> {
        let mut place = b"0".to_vec();
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(self.inner.keys.calls()).arg(place);
            command.arg("COUNT").arg(LANES);
            let mut answer = array(self.inner.ask("recover", &command).await?)?.into_iter();
            let mut next = || answer.next().unwrap_or_default();
            place = bytes(next())?.unwrap_or_default();
            let lanes = members(next())?;
            let mut forget = redis::cmd("HDEL");
            forget.arg(self.inner.keys.calls());
            let mut any = false;
            for (name, value) in lanes.iter().zip(lanes.iter().skip(1)).step_by(2) {
                let text = std::str::from_utf8(value).unwrap_or_default();
                let used: u64 = text.get(17..).and_then(|t| t.parse().ok()).unwrap_or(0);
                if used + LANE_SECS < now() {
                    forget.arg(name.as_slice());
                    any = true;
                }
            }
            if any {
                self.inner.ask("recover", &forget).await?;
            }
            if place.is_empty() || place == b"0" {
                return Ok(Recovered::default());
            }
        }
    }

    /// With `durability` `always` an acknowledged write is durable already.
    async fn flush(&self) -> Result<()> {
        if self.inner.config.durability != Durability::EverySecond {
            return Ok(());
        }
        let action = "flush";
        let millis = self.inner.config.answer_timeout.as_millis() / 2;
        // It waits for what its own connection has written, which may be nothing: so write. All that others
        // wrote before is in the log before that.
        let mut mark = redis::cmd("HSET");
        mark.arg(self.inner.keys.calls()).arg("flush").arg("");
        let mut wait = redis::cmd("WAITAOF");
        wait.arg(1)
            .arg(0)
            .arg(u64::try_from(millis).unwrap_or(u64::MAX));
        let link = &self.inner.link;
        let mut attempts = self.inner.attempts(action);
        let mut answers = loop {
            let answers = async {
                if !Server::ask(link).await?.has_waitaof() {
                    return Err(Error::invalid_request(
                        "the server can't say when its file is durable before Redis 7.2 (WAITAOF); set appendfsync always and `durability` to always, or use a newer server",
                    )
                    .into());
                }
                let commands = vec![mark.clone(), wait.clone()];
                link.ask_all(action, commands, false).await
            };
            match answers.await {
                Ok(answers) => break answers,
                Err(failed) => failed.again(&mut attempts).await?,
            }
        };
        let done = array(answers.pop().unwrap_or_default())?;
        if matches!(done.first(), Some(Value::Int(1..))) {
            return Ok(());
        }
        Err(Error::backend(
            BACKEND,
            action,
            Retryability::Transient,
            "the server's file was not durable within half of answer_timeout",
        ))
    }

    async fn health(&self, depth: HealthDepth) -> Result<Health> {
        let mut reasons = Vec::new();
        if self.inner.turns.available_permits() == 0 {
            reasons.push(format!(
                "{} calls are under way, and no more may be; raise max_calls, or send less at a time",
                self.inner.config.max_calls
            ));
        }
        let mut ready = true;
        if depth == HealthDepth::Readiness {
            match self.inner.ready().await {
                Ok(found) => {
                    ready = found.is_empty();
                    reasons.extend(found);
                }
                Err(error) => {
                    ready = false;
                    let source = std::error::Error::source(&error);
                    let cause = source.map(|cause| format!(": {cause}"));
                    reasons.push(format!("{error}{}", cause.unwrap_or_default()));
                }
            }
        }
        Ok(Health { ready, reasons })
    }
}

draft_store!(RedisUtxoStore);
