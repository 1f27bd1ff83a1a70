use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use groundtackle_core::{RetrySchedule, fail_point};
use groundtackle_utxo_store::draft::{Draft, Loaded, Reads, Run, Stop, ops, run};
use groundtackle_utxo_store::{
    AlertStore, Applied, BlockHash, BlockStore, Capabilities, ChainBlock, ConflictStore, Connected,
    Cursor, Disconnected, Error, Fields, Health, HealthDepth, LongestChain, MaintenanceStore,
    MinedIn, NewRecord, NewTransaction, OutPoint, Outcome, OutputView, Page, Pruned, Reassignment,
    Record, Recovered, Result, RetentionStore, Retryability, ScanStore, SetDigest, SetScan,
    SpendOptions, SpendStore, Tip, Txid, UnminedTransaction, Verdict,
};
use redis::{Cmd, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{Durability, RedisUtxoStoreConfig};
use crate::connection::Link;
use crate::error::{Again, BACKEND, Failed, corrupt, in_doubt};
use crate::read::{Chain, Keys, View, array, bytes, chain_command, members};
use crate::record::Token;
use crate::scan::RedisScan;
use crate::server::{self, Server};
use crate::write::{self, Change};

/// Rounds of looking for what a call needs; each is a generation of a cascade.
const MOST_ROUNDS: usize = 100_000;

/// How often others may overtake a call before it asks to be alone in this process.
const OVERTAKEN: u32 = 3;

/// What a call waits at most before it tries again after another process was in its way.
const MOST_PAUSE_MICROS: u64 = 20_000;

/// A lane that nobody has used for this time belongs to a process that is gone.
const LANE_SECS: u64 = 86_400;

/// Coins from which on their digest is worth a thread of its own.
const MANY_COINS: usize = 256;

/// Unmined transactions that are read at once where only some are wanted.
const UNMINED_STEP: usize = 4_096;

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
    scripts: Mutex<HashMap<bool, Arc<str>>>,
    turns: Arc<Semaphore>,
    /// Those who change the chain's value take turns, since they would overtake each other.
    chain: Arc<Semaphore>,
    lanes: Arc<Mutex<Vec<Lane>>>,
    /// Whether the transactions that the last call of a kind brought were new to the store: of those that
    /// are not of the chain, and of those that are.
    new_before: [AtomicBool; 2],
    /// This process's part of a lane's name, and where its tokens begin.
    id: u64,
    tokens: AtomicU64,
}

/// Numbers the calls of one after another, so that the server knows a repeated one.
struct Lane {
    name: String,
    number: u64,
}

/// The right to change something.
pub(crate) struct Turn {
    _chain: Option<OwnedSemaphorePermit>,
    permit: Option<OwnedSemaphorePermit>,
    lane: Option<Lane>,
    lanes: Arc<Mutex<Vec<Lane>>>,
    began: Instant,
    overtaken: u32,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let lanes = &mut self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.extend(self.lane.take());
    }
}

/// A call under way: what it is about, and when it gives up.
pub(crate) struct Attempts {
    action: &'static str,
    schedule: RetrySchedule,
    failed: u32,
    retryability: Retryability,
}

impl Attempts {
    /// Waits until it is time to try again.
    pub(crate) async fn again(&mut self, failed: Failed) -> Result<()> {
        if failed.again == Again::GaveUp {
            return Err(failed.error);
        }
        self.failed += 1;
        self.retryability = failed.error.retryability().after(self.retryability);
        if failed.again == Again::No {
            return Err(self.give_up(failed.error));
        }
        let Some(delay) = self.schedule.next_delay() else {
            return Err(self.give_up(failed.error));
        };
        tracing::debug!(action = self.action, attempts = self.failed, error = %failed.error, "tries again");
        tokio::time::sleep(delay).await;
        Ok(())
    }

    fn give_up(&self, error: Error) -> Error {
        if self.failed == 1 {
            return error;
        }
        Error::GaveUp {
            action: self.action.into(),
            attempts: self.failed,
            retryability: self.retryability,
            source: Box::new(error),
        }
    }
}

/// Runs what takes a while where it hurts least: on a multi-thread runtime other tasks move on.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        _ => work(),
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(SystemTime::now())
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// What a call is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    action: &'static str,
    /// The tip is judged, or the confirmed set may change.
    chain: bool,
}

impl Kind {
    pub(crate) const fn new(action: &'static str) -> Self {
        Self {
            action,
            chain: false,
        }
    }

    const fn of_chain(action: &'static str) -> Self {
        Self {
            action,
            chain: true,
        }
    }
}

/// How a call reads.
#[derive(Clone, Copy, Debug)]
struct Look<'a> {
    /// The transactions that it brings.
    brought: &'a [Txid],
    /// They are taken to be new, and not read. Then what is read need not be of one moment: the server looks at
    /// all of it once more when something is written, and else the call reads again.
    presumed: bool,
}

/// Parts of a record that were read one after another don't belong together.
pub(crate) fn changing(action: &str) -> Failed {
    Failed {
        error: overloaded(action, "a record changes all the time"),
        again: Again::Yes,
    }
}

fn overloaded(action: &str, why: &str) -> Error {
    Error::overloaded(BACKEND, format!("{action} ({why})"))
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

    pub(crate) fn attempts(&self, action: &'static str) -> Attempts {
        Attempts {
            action,
            schedule: self.config.retry.schedule(),
            failed: 0,
            retryability: Retryability::Permanent,
        }
    }

    fn check_items(&self, items: usize) -> Result<()> {
        let most = self.config.max_batch_items;
        if items > most {
            return Err(Error::invalid_request(format!(
                "the call has {items} items, and one may have {most}; send less at a time, or raise max_batch_items"
            )));
        }
        Ok(())
    }

    fn token(&self) -> Token {
        self.tokens.fetch_add(1, Ordering::Relaxed).to_be_bytes()
    }

    async fn permit(
        &self,
        action: &str,
        of: &Arc<Semaphore>,
        permits: u32,
    ) -> Result<OwnedSemaphorePermit> {
        let permit = of.clone().acquire_many_owned(permits);
        match tokio::time::timeout(self.config.turn_timeout, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(overloaded(action, "no turn within turn_timeout")),
        }
    }

    /// Waits for the right to change something.
    pub(crate) async fn turn(&self, action: &str, chain: bool) -> Result<Turn> {
        // First the chain: who waits for that must not keep those back who wait to be alone.
        let chain = match chain {
            true => Some(self.permit(action, &self.chain, 1).await?),
            false => None,
        };
        let permit = self.permit(action, &self.turns, 1).await?;
        let rested = self
            .lanes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let lane = rested.unwrap_or_else(|| Lane {
            name: format!("{:016x}{:016x}", self.id, random()),
            number: 0,
        });
        Ok(Turn {
            _chain: chain,
            permit: Some(permit),
            lane: Some(lane),
            lanes: self.lanes.clone(),
            began: Instant::now(),
            overtaken: 0,
        })
    }

    /// Others were faster: they have made progress. Waits a little, then for a turn alone.
    pub(crate) async fn overtaken(&self, turn: &mut Turn, action: &str) -> Result<()> {
        turn.overtaken += 1;
        tracing::debug!(action, times = turn.overtaken, "overtaken, reads again");
        if turn.overtaken == OVERTAKEN {
            // Gives its own back first: two who want to be alone would wait for each other.
            turn.permit = None;
            let all = self.config.max_calls;
            turn.permit = Some(self.permit(action, &self.turns, all).await?);
        } else if turn.overtaken > OVERTAKEN {
            if turn.began.elapsed() > self.config.retry.max_elapsed {
                return Err(overloaded(
                    action,
                    "other processes change the same records all the time",
                ));
            }
            let most = MOST_PAUSE_MICROS.min(1 << turn.overtaken.min(32));
            tokio::time::sleep(Duration::from_micros(random() % most)).await;
        }
        Ok(())
    }

    fn script(&self, frees: bool) -> Option<Arc<str>> {
        let scripts = self.scripts.lock();
        let scripts = scripts.unwrap_or_else(PoisonError::into_inner);
        scripts.get(&frees).cloned()
    }

    /// Makes the server know the script.
    async fn load_script(&self, action: &str, frees: bool) -> Result<Arc<str>, Failed> {
        let mut command = redis::cmd("SCRIPT");
        let script = include_str!("scripts/change.lua");
        command.arg("LOAD").arg(match frees {
            true => script.replacen("#!lua", "#!lua flags=allow-oom", 1),
            false => script.to_owned(),
        });
        let sha = bytes(self.link.ask(action, &command).await?)?.unwrap_or_default();
        let sha: Arc<str> = String::from_utf8_lossy(&sha).into();
        let scripts = self.scripts.lock();
        let mut scripts = scripts.unwrap_or_else(PoisonError::into_inner);
        scripts.insert(frees, sha.clone());
        Ok(sha)
    }

    async fn evaluate(
        &self,
        action: &str,
        change: &Change,
        (lane, number): (&str, u64),
    ) -> Result<bool, Failed> {
        let sha = match self.script(change.frees) {
            Some(sha) => sha,
            None => self.load_script(action, change.frees).await?,
        };
        let command = change.evaluate(&sha, lane, number, now());
        let answer = match self.link.ask(action, &command).await {
            // It has come up anew.
            Err(failed) if failed.again == Again::NoScript => {
                self.load_script(action, change.frees).await?;
                self.link.ask(action, &command).await?
            }
            answer => answer?,
        };
        match bytes(answer)?.as_deref() {
            Some(b"+") => Ok(true),
            Some(b"-") => Ok(false),
            _ => Err(corrupt("an answer", "a call's number was used by another one").into()),
        }
    }

    /// Carries a change out; `false` where something it builds on is not as it was read. An answer
    /// that is lost is asked for again: the server knows the call by its number.
    pub(crate) async fn carry_out(
        &self,
        change: &Change,
        turn: &mut Turn,
        attempts: &mut Attempts,
    ) -> Result<bool, Failed> {
        change.check_size(self.config.max_write.bytes())?;
        let action = attempts.action;
        let Some(lane) = &mut turn.lane else {
            return Err(overloaded(action, "its turn is over").into());
        };
        lane.number += 1;
        fail_point("redis.change.drawn");
        let mut doubtful = false;
        loop {
            match self
                .evaluate(action, change, (&lane.name, lane.number))
                .await
            {
                Ok(done) => {
                    fail_point("redis.change.done");
                    return Ok(done);
                }
                Err(failed) => {
                    doubtful |= failed.again == Again::Unanswered;
                    attempts.again(failed).await.map_err(|error| Failed {
                        error: match doubtful {
                            true => in_doubt(action, error),
                            false => error,
                        },
                        again: Again::GaveUp,
                    })?;
                }
            }
        }
    }

    /// Carries a call out: reads what it needs, judges, writes provided that nothing has changed.
    pub(crate) async fn call<I: Sync, T: Send>(
        &self,
        kind: Kind,
        items: &[I],
        first: Reads,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        self.call_with(kind, items, first, &[], judge).await
    }

    /// As [`call`](Self::call), of one that brings transactions, which `first` names too: they are taken to
    /// be new as long as those of the last call were. That is not read but expected when it is written.
    async fn call_with<I: Sync, T: Send>(
        &self,
        kind: Kind,
        items: &[I],
        first: Reads,
        brought: &[Txid],
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        self.check_items(items.len())?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let mut attempts = self.attempts(kind.action);
        let mut turn = self.turn(kind.action, kind.chain).await?;
        let mut reads = first;
        let mut look = Look {
            brought,
            presumed: !brought.is_empty() && self.new_before(kind).load(Ordering::Relaxed),
        };
        loop {
            let attempt = self.attempt(
                kind,
                items,
                &mut reads,
                look,
                &judge,
                &mut turn,
                &mut attempts,
            );
            match attempt.await {
                Ok(Some(outcomes)) => return Ok(outcomes),
                // Something presumed may not be so: nobody was faster yet.
                Ok(None) if look.presumed => {}
                Ok(None) => self.overtaken(&mut turn, kind.action).await?,
                Err(failed) => attempts.again(failed).await?,
            }
            look.presumed = false;
        }
    }

    const fn new_before(&self, kind: Kind) -> &AtomicBool {
        let [others, of_chain] = &self.new_before;
        if kind.chain { of_chain } else { others }
    }

    #[expect(clippy::too_many_arguments, reason = "each is another thing")]
    async fn attempt<I: Sync, T: Send>(
        &self,
        kind: Kind,
        items: &[I],
        reads: &mut Reads,
        look: Look<'_>,
        judge: &(impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync),
        turn: &mut Turn,
        attempts: &mut Attempts,
    ) -> Result<Option<Vec<Outcome<T>>>, Failed> {
        let mut view = View {
            one_moment: !look.presumed,
            ..View::default()
        };
        if look.presumed {
            view.presume_new(look.brought);
        }
        let mut loaded = Loaded::new();
        let mut missing = reads.clone();
        for round in 0..MOST_ROUNDS {
            let (link, keys) = (&self.link, &self.keys);
            if !view
                .read(link, keys, kind.action, &missing, kind.chain)
                .await?
            {
                return Ok(None);
            }
            if round == 0 && !look.presumed && !look.brought.is_empty() {
                let there = |txid| matches!(view.records.get(txid), Some(Some(_)));
                let any = look.brought.iter().any(there);
                self.new_before(kind).store(!any, Ordering::Relaxed);
            }
            view.tell(&mut loaded, std::mem::take(&mut missing));
            let judged = blocking(|| run(&loaded, self.config.unspendable, items, judge));
            missing = match judged {
                Run::Incomplete(more) => more,
                Run::Done(_, changes) if changes.is_empty() && look.presumed => return Ok(None),
                // All of one moment.
                Run::Done(outcomes, changes) if changes.is_empty() && view.rounds <= 1 => {
                    return Ok(Some(outcomes));
                }
                Run::Done(outcomes, changes) => {
                    let token = self.token();
                    let drawn = blocking(|| {
                        let chain = view.chain.as_ref();
                        let chain = chain.filter(|_| changes.confirmed_set_changes());
                        let muhash = || {
                            let mut muhash = chain?.muhash.clone();
                            changes.apply_coins(&mut muhash);
                            Some(muhash)
                        };
                        std::thread::scope(|scope| {
                            let many = changes.added.len() + changes.removed.len() >= MANY_COINS;
                            let beside = many.then(|| scope.spawn(muhash));
                            write::draw_up(keys, token, &view, &changes, || match beside {
                                Some(made) => made.join().unwrap_or_else(|p| resume_unwind(p)),
                                None => muhash(),
                            })
                        })
                    })?;
                    match drawn {
                        Ok(change) => {
                            // Freed while the server is busy.
                            let tidy = async { blocking(|| drop((view, loaded, changes))) };
                            let carried = self.carry_out(&change, turn, attempts);
                            let (done, ()) = tokio::join!(biased; carried, tidy);
                            return Ok(done?.then_some(outcomes));
                        }
                        Err(more) => more,
                    }
                }
            };
            reads.extend(missing.clone());
        }
        Err(Error::invalid_request(format!(
            "{}: the cascade is deeper than {MOST_ROUNDS} generations; begin with a descendant",
            kind.action
        ))
        .into())
    }

    /// Answers from what is there, without changing anything.
    async fn view<I: Sync, T: Send>(
        &self,
        action: &'static str,
        items: &[I],
        first: Reads,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        self.check_items(items.len())?;
        let mut attempts = self.attempts(action);
        let mut reads = first;
        loop {
            let mut missing = reads.clone();
            let mut view = View::default();
            let mut loaded = Loaded::new();
            for _ in 0..MOST_ROUNDS {
                let read = view.read(&self.link, &self.keys, action, &missing, false);
                match read.await {
                    Ok(true) => {}
                    Ok(false) => {
                        attempts.again(changing(action)).await?;
                        break;
                    }
                    Err(failed) => {
                        attempts.again(failed).await?;
                        break;
                    }
                }
                view.tell(&mut loaded, std::mem::take(&mut missing));
                match blocking(|| run(&loaded, self.config.unspendable, items, &judge)) {
                    Run::Incomplete(more) => missing = more,
                    Run::Done(outcomes, _) => return Ok(outcomes),
                }
                reads.extend(missing.clone());
            }
        }
    }

    /// One command that reads.
    pub(crate) async fn ask(&self, action: &'static str, command: &Cmd) -> Result<Value> {
        let mut attempts = self.attempts(action);
        loop {
            match self.link.ask(action, command).await {
                Ok(value) => return Ok(value),
                Err(failed) => attempts.again(failed).await?,
            }
        }
    }

    pub(crate) async fn chain(&self, action: &'static str) -> Result<Chain> {
        Chain::read(self.ask(action, &chain_command(&self.keys)).await?)
    }

    /// Reads records, each as it was at one moment.
    async fn look(&self, action: &'static str, reads: &Reads) -> Result<View> {
        let mut attempts = self.attempts(action);
        loop {
            let mut view = View::default();
            match view
                .read(&self.link, &self.keys, action, reads, false)
                .await
            {
                Ok(true) => return Ok(view),
                // A record of many outputs has changed between its parts.
                Ok(false) => attempts.again(changing(action)).await?,
                Err(failed) => attempts.again(failed).await?,
            }
        }
    }

    /// Unmined transactions after one, of one moment; none after the last.
    pub(crate) async fn list_unmined(
        &self,
        after: Option<Txid>,
        limit: usize,
    ) -> Result<Vec<UnminedTransaction>> {
        let mut command = redis::cmd("ZRANGEBYLEX");
        command.arg(self.keys.unmined());
        match after {
            Some(txid) => {
                command.arg([b"(", txid.as_bytes().as_slice(), &[0xff; 5]].concat());
            }
            None => {
                command.arg("-");
            }
        }
        command.arg("+").arg("LIMIT").arg(0).arg(limit);
        let answer = self.ask("list unmined transactions", &command).await?;
        let parse = |member: Vec<u8>| {
            let (txid, since) = member.split_first_chunk()?;
            Some(UnminedTransaction {
                txid: Txid::from_bytes(*txid),
                unmined_since: u32::from_be_bytes(since.try_into().ok()?),
            })
        };
        let listed = members(answer)?.into_iter().map(parse);
        listed.collect::<Option<_>>().ok_or_else(|| {
            corrupt(
                "the list of unmined transactions",
                "a member has another length",
            )
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
                    attempts.again(failed).await?;
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
        let mut attempts = Attempts {
            // Twice, since the connection may have been lost long ago.
            schedule: self.config.retry.clone().with_max_attempts(2).schedule(),
            ..self.attempts(action)
        };
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

fn of_txids(txids: &[Txid]) -> Reads {
    let mut reads = Reads::new();
    txids.iter().for_each(|txid| reads.record(*txid));
    reads
}

fn of_whole(txids: &[Txid]) -> Reads {
    let mut reads = Reads::new();
    txids.iter().for_each(|txid| reads.whole(*txid));
    reads
}

/// Records and their inputs.
fn of_spenders(txids: &[Txid]) -> Reads {
    let mut reads = of_txids(txids);
    reads.inputs.extend(txids);
    reads
}

fn of_slots(outpoints: impl IntoIterator<Item = OutPoint>) -> Reads {
    let mut reads = Reads::new();
    outpoints
        .into_iter()
        .for_each(|outpoint| reads.slot(outpoint));
    reads
}

fn one<T>(outcomes: Vec<Outcome<T>>) -> Result<Outcome<T>> {
    outcomes
        .into_iter()
        .next()
        .ok_or_else(|| corrupt("an answer", "it has no item"))
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

#[async_trait]
impl SpendStore for RedisUtxoStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(BACKEND);
        capabilities.persistent = self.inner.config.durability > Durability::None;
        capabilities.ordered_scan = true;
        capabilities.incremental_digest = true;
        capabilities.atomic_blocks = true;
        capabilities.max_batch_items = Some(self.inner.config.max_batch_items);
        capabilities
    }

    async fn spend_and_create(
        &self,
        transactions: &[NewTransaction],
        options: &SpendOptions,
    ) -> Result<Vec<Outcome<Applied>>> {
        let mut reads = Reads::new();
        for NewTransaction { tx, .. } in transactions {
            reads.of_inputs(tx.txid, &tx.inputs);
        }
        let kind = Kind::new("spend and create");
        let brought: Vec<_> = transactions.iter().map(|new| new.tx.txid).collect();
        self.inner
            .call_with(kind, transactions, reads, &brought, |draft, new| {
                ops::spend_and_create(draft, new, options)
            })
            .await
    }

    async fn create(&self, records: &[NewRecord]) -> Result<Vec<Outcome<Applied>>> {
        let mut reads = Reads::new();
        for record in records {
            reads.record(record.txid());
            if let NewRecord::Conflicting { tx, .. } = record {
                reads.of_inputs(tx.txid, &tx.inputs);
            }
        }
        let kind = Kind::of_chain("create");
        self.inner.call(kind, records, reads, ops::create).await
    }

    async fn spend(&self, txids: &[Txid], options: &SpendOptions) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("spend");
        self.inner
            .call(kind, txids, of_spenders(txids), |draft, txid| {
                ops::spend(draft, *txid, options)
            })
            .await
    }

    async fn unspend(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("unspend");
        self.inner
            .call(kind, txids, of_spenders(txids), |draft, txid| {
                ops::unspend(draft, *txid)
            })
            .await
    }

    async fn remove(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("remove");
        self.inner
            .call(kind, txids, of_whole(txids), |draft, txid| {
                ops::remove(draft, *txid)
            })
            .await
    }

    async fn records(&self, txids: &[Txid], fields: Fields) -> Result<Vec<Option<Record>>> {
        self.inner.check_items(txids.len())?;
        let mut reads = of_txids(txids);
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
        self.inner.check_items(outpoints.len())?;
        let reads = of_slots(outpoints.iter().copied());
        let records = self.inner.look("read outputs", &reads).await?.records;
        let view = |outpoint: &OutPoint| {
            let outpoint = *outpoint;
            let Some(stored) = records.get(&outpoint.txid).and_then(Option::as_ref) else {
                return Err(Verdict::MissingTransaction { outpoint });
            };
            let Some(slot) = stored.output(outpoint.vout) else {
                return Err(Verdict::MissingOutput { outpoint });
            };
            let head = &stored.main.head;
            Ok(OutputView {
                outpoint,
                state: slot.state(),
                output: slot.output.clone(),
                height: head.confirmed_height(),
                coinbase: head.coinbase,
                locked: head.locked,
                conflicting: head.conflicting,
            })
        };
        Ok(outpoints.iter().map(view).collect())
    }
}

#[async_trait]
impl BlockStore for RedisUtxoStore {
    async fn tip(&self) -> Result<Option<Tip>> {
        Ok(self.inner.chain("read the tip").await?.tip)
    }

    async fn previous_tip(&self) -> Result<Option<Tip>> {
        let inner = &self.inner;
        let mut attempts = inner.attempts("read the previous tip");
        loop {
            let action = attempts.action;
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
                Ok(_) => attempts.again(changing(action)).await?,
                Err(failed) => attempts.again(failed).await?,
            }
        }
    }

    async fn set_tip(&self, tip: &Tip) -> Result<()> {
        let kind = Kind::of_chain("set the tip");
        self.inner
            .call(kind, &[*tip], Reads::new(), |draft, tip| {
                ops::set_tip(draft, *tip);
                Ok(())
            })
            .await
            .map(drop)
    }

    async fn set_mined(&self, txids: &[Txid], mined: &MinedIn) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::of_chain("set mined");
        self.inner
            .call(kind, txids, of_whole(txids), |draft, txid| {
                ops::set_mined(draft, *txid, mined)
            })
            .await
    }

    async fn unset_mined(
        &self,
        txids: &[Txid],
        block: &BlockHash,
        unmined_since: u32,
    ) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::of_chain("unset mined");
        self.inner
            .call(kind, txids, of_whole(txids), |draft, txid| {
                ops::unset_mined(draft, *txid, block, unmined_since)
            })
            .await
    }

    async fn set_longest_chain(
        &self,
        txids: &[Txid],
        block: &BlockHash,
        mark: LongestChain,
    ) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::of_chain("set the longest chain");
        self.inner
            .call(kind, txids, of_whole(txids), |draft, txid| {
                ops::set_longest_chain(draft, *txid, block, mark)
            })
            .await
    }

    async fn connect_block(&self, block: &ChainBlock) -> Result<Outcome<Connected>> {
        let mut reads = Reads::new();
        for tx in &block.transactions {
            // Those that are in the store, unmined, are read whole: their outputs join the set.
            reads.whole(tx.txid);
            reads.of_inputs(tx.txid, &tx.inputs);
        }
        let kind = Kind::of_chain("connect a block");
        let blocks = [block];
        let brought: Vec<_> = block.transactions.iter().map(|tx| tx.txid).collect();
        let outcomes = self
            .inner
            .call_with(kind, &blocks, reads, &brought, |draft, block| {
                ops::connect_block(draft, block)
            })
            .await?;
        one(outcomes)
    }

    async fn disconnect_block(
        &self,
        block: &BlockHash,
        previous: &BlockHash,
    ) -> Result<Outcome<Disconnected>> {
        let mut reads = Reads::new();
        reads.undo.insert(*block);
        let kind = Kind::of_chain("disconnect a block");
        let outcomes = self
            .inner
            .call(kind, &[*block], reads, |draft, block| {
                ops::disconnect_block(draft, block, previous)
            })
            .await?;
        one(outcomes)
    }
}

#[async_trait]
impl AlertStore for RedisUtxoStore {
    async fn freeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("freeze");
        let reads = of_slots(outpoints.iter().copied());
        self.inner
            .call(kind, outpoints, reads, |draft, outpoint| {
                ops::freeze(draft, *outpoint)
            })
            .await
    }

    async fn unfreeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("unfreeze");
        let reads = of_slots(outpoints.iter().copied());
        self.inner
            .call(kind, outpoints, reads, |draft, outpoint| {
                ops::unfreeze(draft, *outpoint)
            })
            .await
    }

    async fn reassign(&self, reassignments: &[Reassignment]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::of_chain("reassign");
        let reads = of_slots(
            reassignments
                .iter()
                .map(|reassignment| reassignment.outpoint),
        );
        self.inner
            .call(kind, reassignments, reads, ops::reassign)
            .await
    }
}

#[async_trait]
impl ConflictStore for RedisUtxoStore {
    async fn set_locked(&self, txids: &[Txid], locked: bool) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("set locked");
        self.inner
            .call(kind, txids, of_txids(txids), |draft, txid| {
                ops::set_locked(draft, *txid, locked)
            })
            .await
    }

    async fn mark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        let kind = Kind::new("mark conflicting");
        self.inner
            .call(kind, txids, of_whole(txids), |draft, txid| {
                ops::mark_conflicting(draft, *txid)
            })
            .await
    }

    async fn unmark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("unmark conflicting");
        self.inner
            .call(kind, txids, of_spenders(txids), |draft, txid| {
                ops::unmark_conflicting(draft, *txid)
            })
            .await
    }

    async fn counter_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        let action = "find what counters a conflict";
        self.inner
            .view(action, txids, of_spenders(txids), |draft, txid| {
                ops::counter_conflicting(draft, *txid)
            })
            .await
    }

    async fn conflicting_children(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        let action = "read conflicting children";
        self.inner
            .view(action, txids, of_txids(txids), |draft, txid| {
                ops::conflicting_children(draft, *txid)
            })
            .await
    }
}

#[async_trait]
impl RetentionStore for RedisUtxoStore {
    async fn unmined(
        &self,
        older_than: Option<u32>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<UnminedTransaction>> {
        let mut after = after.map(Cursor::txid).transpose()?;
        let limit = limit.clamp(1, self.inner.config.max_batch_items);
        loop {
            // More than asked for where most may be too young.
            let wanted = match older_than {
                Some(_) => limit.max(UNMINED_STEP) + 1,
                None => limit + 1,
            };
            let listed = self.inner.list_unmined(after, wanted).await?;
            let last = listed.last().map(|tx| tx.txid);
            let complete = listed.len() < wanted;
            let mut items: Vec<_> = listed
                .into_iter()
                .filter(|tx| older_than.is_none_or(|height| tx.unmined_since < height))
                .collect();
            let more = items.len() > limit;
            items.truncate(limit);
            let next = match items.last() {
                Some(item) if more || !complete => Some(item.txid),
                _ => None,
            };
            if !items.is_empty() || complete {
                let next = next.map(Cursor::from);
                return Ok(Page { items, next });
            }
            after = last;
        }
    }

    async fn preserve(&self, txids: &[Txid], until_height: u32) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("preserve");
        self.inner
            .call(kind, txids, of_txids(txids), |draft, txid| {
                ops::preserve(draft, *txid, until_height)
            })
            .await
    }

    async fn prune(&self, horizon: u32) -> Result<Pruned> {
        self.inner.prune(horizon).await
    }
}

#[async_trait]
impl ScanStore for RedisUtxoStore {
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
}

#[async_trait]
impl MaintenanceStore for RedisUtxoStore {
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
                Err(failed) => attempts.again(failed).await?,
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
