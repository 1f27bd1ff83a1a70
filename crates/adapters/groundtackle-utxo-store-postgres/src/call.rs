//! Calls: read, judge, write, commit.

use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::future::maybe_done;
use groundtackle_core::fail_point;
use groundtackle_utxo_store::draft::{
    Call, Changes, Draft, MOST_ROUNDS, Operation, Reads, Run, Stop, blocking, run, too_deep,
};
use groundtackle_utxo_store::{Attempts, Error, Fields, Outcome, Result, Retryability, Txid};
use tokio::task::JoinError;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::error::{Again, BACKEND, Failed, failed, in_doubt, no_answer};
use crate::read::{Chain, Locks, Presumed, View, any_exists, execute_text, load, load_locked};
use crate::record::column;
use crate::session::Lease;
use crate::store::Inner;
use crate::write;
use crate::write::{Copied, Slots};

/// What a call is: its name, what it keeps others from, and whether it knows what it needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    operation: Operation,
    locks: Locks,
    /// What the call needs shows only as it reads: so look first, and lock all of it at once then.
    looks_first: bool,
    /// Of outputs nothing changes but who has spent them.
    spends: bool,
    /// Locking scripts may change.
    scripts: bool,
    /// What was spent may be unspent.
    releases: bool,
}

impl Kind {
    const fn of(operation: Operation) -> Self {
        use Operation as Op;
        let locks = match operation {
            Op::CounterConflicting | Op::ConflictingChildren => Locks::None,
            Op::Records | Op::Outputs | Op::Tip | Op::PreviousTip => Locks::None,
            Op::SpendAndCreate => Locks::Seen,
            Op::Freeze | Op::Unfreeze => Locks::Slots,
            Op::Spend | Op::Unspend | Op::Remove => Locks::Records,
            Op::MarkConflicting | Op::UnmarkConflicting | Op::Prune => Locks::Records,
            Op::Lock | Op::Unlock | Op::Preserve => Locks::Records,
            Op::ConnectBlock => Locks::Block,
            Op::Create | Op::SetTip | Op::Reassign | Op::DisconnectBlock => Locks::Chain,
            Op::SetMined | Op::UnsetMined | Op::SetLongestChain => Locks::Chain,
        };
        let releases = matches!(operation, Op::Unspend | Op::Remove | Op::DisconnectBlock);
        let looks_first = matches!(
            operation,
            Op::Spend
                | Op::SetMined
                | Op::UnsetMined
                | Op::SetLongestChain
                | Op::MarkConflicting
                | Op::UnmarkConflicting
                | Op::Prune
        );
        Self {
            operation,
            locks,
            looks_first: looks_first || releases,
            spends: matches!(operation, Op::SpendAndCreate | Op::ConnectBlock),
            scripts: matches!(operation, Op::Reassign),
            releases,
        }
    }
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

impl Inner {
    pub(crate) fn attempts(&self, action: &'static str) -> Attempts {
        Attempts::new(action, self.config.retry.schedule())
    }

    pub(crate) async fn lease(&self, action: &str) -> Result<Lease, Failed> {
        Lease::of(&self.pool, &self.server, action).await
    }

    fn new_before(&self, kind: Kind) -> &AtomicBool {
        let [of_blocks, others] = &self.new_before;
        match kind.locks {
            Locks::Block => of_blocks,
            _ => others,
        }
    }

    /// Carries a call out: reads what it needs under locks, judges, writes, commits. What it brings is taken to be
    /// new as long as that of the last call was.
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
        if operation == Operation::Prune {
            // What is listed goes, mostly: so it is read whole at once.
            reads.inputs.clone_from(&reads.records);
            reads.outputs.clone_from(&reads.records);
        }
        let kind = Kind::of(operation);
        let mut attempts = self.attempts(operation.action());
        loop {
            match Box::pin(self.attempt(kind, &items, &mut reads, &brought, &judge)).await {
                Ok(outcomes) => return Ok(outcomes),
                Err(failed) => failed.again(&mut attempts).await?,
            }
        }
    }

    async fn attempt<I: Sync, T: Send>(
        &self,
        kind: Kind,
        items: &[I],
        reads: &mut Reads,
        brought: &[Txid],
        judge: &(impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync),
    ) -> Result<Vec<Outcome<T>>, Failed> {
        let mut lease = self.lease(kind.operation.action()).await?;
        let done = Box::pin(self.work(&mut lease, kind, items, reads, brought, judge)).await;
        if done
            .as_ref()
            .is_err_and(|failed| failed.again == Again::Yes)
        {
            // It only met others: the connection is good.
            lease.rollback(kind.operation.action()).await?;
        }
        done
    }

    async fn work<I: Sync, T: Send>(
        &self,
        lease: &mut Lease,
        kind: Kind,
        items: &[I],
        reads: &mut Reads,
        brought: &[Txid],
        judge: &(impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync),
    ) -> Result<Vec<Outcome<T>>, Failed> {
        let action = kind.operation.action();
        let (mut looks, mut locks) = (kind.looks_first, kind.locks);
        let new_before = self.new_before(kind);
        let mut presumed = match new_before.load(Ordering::Relaxed) {
            true => brought.iter().copied().collect(),
            false => Presumed::default(),
        };
        for _ in 0..MOST_ROUNDS {
            if looks {
                self.look(lease, kind.operation, "", items, reads, judge)
                    .await?;
            }
            looks = true;
            let mut view = View::default();
            lease.begin();
            let (judged, there) = {
                let lease = &*lease;
                let mut there = pin!(maybe_done(any_exists(action, lease, &presumed)));
                let beside = poll_fn(|context| {
                    // Answered at once it is where the connection is lost.
                    let _ = there.as_mut().poll(context);
                    Poll::Ready(())
                });
                let load = load_locked(
                    action, lease, BEGIN, &mut view, reads, locks, &presumed, beside,
                );
                load.await?;
                let judged = blocking(|| run(&view.loaded, self.config.unspendable, items, judge));
                there.as_mut().await;
                (judged, there.take_output().transpose()?.unwrap_or_default())
            };
            let was_presumed = !presumed.is_empty();
            presumed.clear();
            if !was_presumed && !brought.is_empty() {
                let any = brought.iter().any(|txid| view.loaded.has_record(txid));
                new_before.store(!any, Ordering::Relaxed);
            }
            match judged {
                // Some are not new: with them read.
                _ if there => looks = false,
                // One that has gone between the reads could be taken for pruned.
                Run::Done(_, changes) if was_presumed && !changes.doubtful.is_empty() => {
                    looks = false;
                }
                // Locking more now could make others wait in a circle: begin again with all of it.
                Run::Incomplete(missing) => reads.extend(missing),
                Run::Done(outcomes, changes) => {
                    // Why a block is refused is told of what others can't change meanwhile.
                    let refused = changes.is_empty() || outcomes.iter().any(Result::is_err);
                    if locks == Locks::Block && refused {
                        (looks, locks) = (false, locks.firm());
                    } else if !self.reappeared(lease, action, &changes).await? {
                        if changes.is_empty() {
                            lease.rollback(action).await?;
                            return Ok(outcomes);
                        }
                        let covered = locks.cover(&changes, reads);
                        if covered
                            && Box::pin(self.commit(lease, kind, changes.into(), view)).await?
                        {
                            return Ok(outcomes);
                        }
                        // What is needed is known.
                        (looks, locks) = (false, locks.firm());
                    }
                }
            }
            lease.rollback(action).await?;
        }
        Err(too_deep(kind.operation).into())
    }

    /// Judges over what is there without keeping it from changing, until it is known what is needed.
    async fn look<I: Sync, T: Send>(
        &self,
        lease: &mut Lease,
        operation: Operation,
        begin: &str,
        items: &[I],
        reads: &mut Reads,
        judge: &(impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync),
    ) -> Result<Vec<Outcome<T>>, Failed> {
        let mut view = View::default();
        let mut missing = reads.clone();
        let mut begin = begin;
        for _ in 0..MOST_ROUNDS {
            load(operation.action(), lease, begin, &mut view, &missing).await?;
            begin = "";
            match blocking(|| run(&view.loaded, self.config.unspendable, items, judge)) {
                Run::Incomplete(more) => {
                    reads.extend(more.clone());
                    missing = more;
                }
                Run::Done(outcomes, _) => return Ok(outcomes),
            }
        }
        Err(too_deep(operation).into())
    }

    /// Whether a record that an output names, and that was not there, is there after all: it was being
    /// created when the records were read.
    async fn reappeared(
        &self,
        lease: &Lease,
        action: &str,
        changes: &Changes,
    ) -> Result<bool, Failed> {
        any_exists(action, lease, &changes.doubtful).await
    }

    /// Writes and commits; `false`, with nothing written, where an output is not as it was seen.
    async fn commit(
        &self,
        lease: &mut Lease,
        kind: Kind,
        changes: Arc<Changes>,
        view: View,
    ) -> Result<bool, Failed> {
        let Kind {
            operation,
            spends,
            scripts,
            releases,
            ..
        } = kind;
        let action = operation.action();
        let Some((id, number)) = lease.number_call() else {
            return Err(no_answer(action));
        };
        // The digest is multiplied while the server writes the rest.
        let View {
            loaded,
            mut seen,
            chain,
        } = view;
        let chain = chain
            .filter(|_| changes.confirmed_set_changes())
            .map(|mut chain| {
                let changes = Arc::clone(&changes);
                tokio::task::spawn_blocking(move || {
                    // The server may want a core of this machine.
                    let cores = std::thread::available_parallelism();
                    let others = cores.map_or(1, |cores| cores.get() - 1);
                    let threads = NonZeroUsize::new(others).unwrap_or(NonZeroUsize::MIN);
                    changes.apply_coins_by(threads, &mut chain.muhash);
                    let tip = changes.tip.unwrap_or(chain.tip);
                    (tip, chain.muhash.to_bytes().to_vec())
                })
            });
        let changes = changes.as_ref();
        fail_point("postgres.change.locked");
        let session = lease.session()?;
        let (client, statements) = (&session.client, &session.statements);
        let slots = Slots {
            all: &changes.slots,
            seen: &seen.versions(&changes.slots)?,
            spends,
            scripts,
            releases,
        };
        // While the server is busy.
        let tidy = async {
            drop(loaded);
            Ok(())
        };
        let copied = write::copy(client, statements, changes, &slots);
        let copied = async { tokio::try_join!(biased; copied, tidy) };
        let copied = lease.answer(action, Box::pin(copied)).await;
        // tokio-postgres takes one answer too few for a refused `COPY`: no rollback could be told from it.
        let (copied, ()) = copied.map_err(|failed| Failed {
            again: match failed.again {
                Again::Yes => Again::Reconnect,
                again => again,
            },
            ..failed
        })?;
        let copied = match copied {
            Copied::Begun(copy) => Some(copy),
            Copied::Not => None,
            Copied::Overtaken => return Ok(false),
        };
        fail_point("postgres.change.copied");
        let id = id.as_slice();
        let numbers: [&(dyn ToSql + Sync); 2] = [&id, &number];
        // What the server refuses makes the commit a rollback; what fails before it gets there does not.
        let unsent = AtomicBool::new(false);
        // All in one round trip.
        let all = async {
            let writes = async {
                let written = tokio::try_join!(
                    biased;
                    write::end(copied),
                    write::write(client, statements, changes, &slots),
                );
                unsent.store(written.is_err(), Ordering::Relaxed);
                written
            };
            let end = async {
                let chain = match chain {
                    Some(chain) => Some(chain.await?),
                    None => None,
                };
                if unsent.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let last = async {
                    tokio::try_join!(
                        biased;
                        write::write_chain(client, statements, chain),
                        write::execute_if(true, client, &statements.number_call, numbers),
                    )
                };
                let commit = client.batch_execute("COMMIT");
                Ok::<_, JoinError>(Some(tokio::join!(biased; last, commit)))
            };
            // In this order, so that what was not sent is known before the end is.
            Ok(tokio::join!(biased; writes, end))
        };
        let doubt = match lease.answer(action, Box::pin(all)).await {
            Ok((Err(error), Ok(None | Some((_, Ok(())))))) if write::overtaken(&error) => {
                return Ok(false);
            }
            Ok((writes, Ok(Some((last, Ok(())))))) => {
                lease.end();
                writes.and(last).map_err(|error| failed(action, error))?;
                fail_point("postgres.change.committed");
                return Ok(true);
            }
            Ok((_, Ok(Some((_, Err(error)))))) => failed(action, error),
            Ok((writes, Ok(None))) => {
                writes.map_err(|error| failed(action, error))?;
                return Err(no_answer(action));
            }
            Ok((_, Err(error))) => {
                return Err(Error::backend(BACKEND, action, Retryability::Transient, error).into());
            }
            Err(failed) => failed,
        };
        // The commit was sent, and its answer is not known. What follows fences the connection.
        lease.discard();
        if self.landed(id, number).await.map_err(|error| {
            tracing::debug!(action, %error, "could not learn whether a commit landed");
            in_doubt(action, error)
        })? {
            return Ok(true);
        }
        Err(Failed {
            again: Again::Reconnect,
            ..doubt
        })
    }

    /// Whether the call of a connection that was given up was committed. If not, it never will be.
    async fn landed(&self, id: &[u8], number: i64) -> Result<bool> {
        let action = "learn whether a commit landed";
        let mut attempts = self.attempts(action);
        loop {
            let last = async {
                let mut lease = self.lease(action).await?;
                lease.begin();
                let session = lease.session()?;
                let values: [&(dyn ToSql + Sync); 2] = [&id, &number];
                let query = session
                    .client
                    .query_one(&session.statements.last_call, &values);
                let row = lease.answer(action, query).await?;
                lease.end();
                Ok(column::<i64>(&row, 0)?)
            };
            match last.await {
                Ok(last) => return Ok(last == number),
                Err(Failed { error, .. }) => {
                    let again = Again::Reconnect;
                    Failed { error, again }.again(&mut attempts).await?;
                }
            }
        }
    }

    /// Answers from one moment, without changing anything.
    async fn view<I: Sync, T: Send>(
        &self,
        operation: Operation,
        items: &[I],
        first: Reads,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        let action = operation.action();
        let mut attempts = self.attempts(action);
        loop {
            let seen = async {
                let mut lease = self.lease(action).await?;
                let mut reads = first.clone();
                let outcomes = self
                    .look(&mut lease, operation, BEGIN_READ, items, &mut reads, &judge)
                    .await?;
                lease.rollback(action).await?;
                Ok(outcomes)
            };
            match seen.await {
                Ok(outcomes) => return Ok(outcomes),
                Err(failed) => Failed::again(failed, &mut attempts).await?,
            }
        }
    }

    /// One statement that reads.
    pub(crate) async fn query(
        &self,
        action: &'static str,
        statement: impl Fn(&crate::statements::Statements) -> &tokio_postgres::Statement + Send + Sync,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let mut attempts = self.attempts(action);
        loop {
            let rows = async {
                let mut lease = self.lease(action).await?;
                lease.begin();
                let session = lease.session()?;
                let query = session.client.query(statement(&session.statements), values);
                let rows = lease.answer(action, query).await?;
                lease.end();
                Ok(rows)
            };
            match rows.await {
                Ok(rows) => return Ok(rows),
                Err(failed) => Failed::again(failed, &mut attempts).await?,
            }
        }
    }

    pub(crate) async fn chain(&self, action: &'static str) -> Result<Chain> {
        Chain::read(&self.query(action, |s| &s.chain, &[]).await?)
    }

    pub(crate) async fn read_records(
        &self,
        action: &'static str,
        txids: &[Txid],
        fields: Fields,
    ) -> Result<(Vec<Row>, Vec<Row>)> {
        let txids: Vec<&[u8]> = txids
            .iter()
            .map(|txid| txid.as_bytes().as_slice())
            .collect();
        let with_inputs = vec![fields.inputs; txids.len()];
        let mut attempts = self.attempts(action);
        loop {
            let rows = async {
                let mut lease = self.lease(action).await?;
                lease.begin();
                let session = lease.session()?;
                let statements = &session.statements;
                let values: [&(dyn ToSql + Sync); 2] = [&txids, &with_inputs];
                let outputs = async {
                    if !fields.outputs {
                        return Ok(Vec::new());
                    }
                    let by = &statements.outputs_ordered;
                    session.client.query(by, &values[..1]).await
                };
                // Both see one moment.
                let all = async {
                    tokio::try_join!(
                        biased;
                        execute_text(session, BEGIN_READ),
                        session.client.query(&statements.records, &values),
                        outputs,
                        execute_text(session, "COMMIT"),
                    )
                };
                let (_, records, outputs, _) = lease.answer(action, Box::pin(all)).await?;
                lease.end();
                Ok((records, outputs))
            };
            match rows.await {
                Ok(rows) => return Ok(rows),
                Err(failed) => Failed::again(failed, &mut attempts).await?,
            }
        }
    }
}
