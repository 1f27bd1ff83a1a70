//! Calls: read, judge, write provided that nothing has changed.

use std::hash::{BuildHasher, RandomState};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use groundtackle_core::fail_point;
use groundtackle_utxo_store::draft::{
    Call, Draft, Loaded, MOST_ROUNDS, Operation, Reads, Run, Stop, blocking, run, too_deep,
};
use groundtackle_utxo_store::{Attempts, Error, Outcome, Result, Txid, UnminedTransaction};
use redis::{Cmd, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Again, BACKEND, Failed, corrupt, in_doubt};
use crate::read::{Chain, View, bytes, chain_command, members};
use crate::record::Token;
use crate::store::Inner;
use crate::write::{self, Change};

/// How often others may overtake a call before it asks to be alone in this process.
const OVERTAKEN: u32 = 3;

/// What a call waits at most before it tries again after another process was in its way.
const MOST_PAUSE_MICROS: u64 = 20_000;

/// Coins from which on their digest is worth a thread of its own.
const MANY_COINS: usize = 256;

/// Numbers the calls of one after another, so that the server knows a repeated one.
pub(crate) struct Lane {
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

pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(SystemTime::now())
}

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
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
    pub(crate) fn attempts(&self, action: &'static str) -> Attempts {
        Attempts::new(action, self.config.retry.schedule())
    }

    pub(crate) fn token(&self) -> Token {
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
        let action = attempts.action();
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
                    failed.again(attempts).await.map_err(|error| Failed {
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

    /// Carries a call out: reads what it needs, judges, writes provided that nothing has changed. What it brings is
    /// taken to be new as long as that of the last call was: that is not read but expected when it is written.
    pub(crate) async fn call<I: Clone + Sync, T: Send>(
        &self,
        call: Call<'_, I>,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        let Call {
            operation,
            items,
            mut reads,
            brought,
        } = call;
        if operation.only_reads() {
            return self.view(operation, &items, reads, judge).await;
        }
        let action = operation.action();
        let mut attempts = self.attempts(action);
        let mut turn = self.turn(action, operation.concerns_chain()).await?;
        let mut look = Look {
            brought: &brought,
            presumed: !brought.is_empty() && self.new_before(operation).load(Ordering::Relaxed),
        };
        loop {
            let attempt = self.attempt(
                operation,
                &items,
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
                Ok(None) => self.overtaken(&mut turn, action).await?,
                Err(failed) => failed.again(&mut attempts).await?,
            }
            look.presumed = false;
        }
    }

    const fn new_before(&self, operation: Operation) -> &AtomicBool {
        let [others, of_chain] = &self.new_before;
        if operation.concerns_chain() {
            of_chain
        } else {
            others
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is another thing")]
    async fn attempt<I: Sync, T: Send>(
        &self,
        operation: Operation,
        items: &[I],
        reads: &mut Reads,
        look: Look<'_>,
        judge: &(impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync),
        turn: &mut Turn,
        attempts: &mut Attempts,
    ) -> Result<Option<Vec<Outcome<T>>>, Failed> {
        let action = operation.action();
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
                .read(link, keys, action, &missing, operation.concerns_chain())
                .await?
            {
                return Ok(None);
            }
            if round == 0 && !look.presumed && !look.brought.is_empty() {
                let there = |txid| matches!(view.records.get(txid), Some(Some(_)));
                let any = look.brought.iter().any(there);
                self.new_before(operation).store(!any, Ordering::Relaxed);
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
        Err(too_deep(operation).into())
    }

    /// Answers from what is there, without changing anything.
    async fn view<I: Sync, T: Send>(
        &self,
        operation: Operation,
        items: &[I],
        first: Reads,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        let action = operation.action();
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
                        changing(action).again(&mut attempts).await?;
                        break;
                    }
                    Err(failed) => {
                        failed.again(&mut attempts).await?;
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
                Err(failed) => failed.again(&mut attempts).await?,
            }
        }
    }

    pub(crate) async fn chain(&self, action: &'static str) -> Result<Chain> {
        Chain::read(self.ask(action, &chain_command(&self.keys)).await?)
    }

    /// Reads records, each as it was at one moment.
    pub(crate) async fn look(&self, action: &'static str, reads: &Reads) -> Result<View> {
        let mut attempts = self.attempts(action);
        loop {
            let mut view = View::default();
            match view
                .read(&self.link, &self.keys, action, reads, false)
                .await
            {
                Ok(true) => return Ok(view),
                // A record of many outputs has changed between its parts.
                Ok(false) => changing(action).again(&mut attempts).await?,
                Err(failed) => failed.again(&mut attempts).await?,
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
}
