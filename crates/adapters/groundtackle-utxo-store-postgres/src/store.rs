use std::collections::HashSet;
use std::fmt;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use futures_util::future::maybe_done;
use groundtackle_core::RetrySchedule;
use groundtackle_core::fail_point;
use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::draft::{
    Changes, Draft, Loaded, Reads, Run, Stop, TxidHash, ops, run,
};
use groundtackle_utxo_store::{
    AlertStore, Applied, BlockHash, BlockStore, Capabilities, ChainBlock, ConflictStore, Connected,
    Cursor, Disconnected, Error, Fields, Health, HealthDepth, LongestChain, MaintenanceStore,
    MinedIn, NewRecord, NewTransaction, OutPoint, Outcome, OutputView, Page, Pruned, Reassignment,
    Record, Recovered, Result, RetentionStore, Retryability, ScanStore, SetDigest, SetScan,
    SpendOptions, SpendStore, Tip, Txid, UnminedTransaction, Verdict,
};
use tokio::task::JoinError;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::config::PostgresUtxoStoreConfig;
use crate::error::{Again, BACKEND, Failed, corrupt, failed, in_doubt, no_answer};
use crate::record::{self, Seen, column};
use crate::scan::PostgresScan;
use crate::session::{Lease, Server, Session, SessionPool};
use crate::write::{Copied, Slots};
use crate::{schema, write};

/// Rounds of looking for what a call needs; each is a generation of a cascade.
const MOST_ROUNDS: usize = 100_000;

/// A UTXO store in a PostgreSQL database. Clones share the pool of connections.
#[derive(Clone)]
pub struct PostgresUtxoStore {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for PostgresUtxoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresUtxoStore")
            .field("schema", &self.inner.config.schema)
            .finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) server: Arc<Server>,
    pub(crate) pool: SessionPool,
    pub(crate) config: PostgresUtxoStoreConfig,
    /// Whether the transactions that the last call of a kind brought were new to the store: of blocks, and
    /// of others.
    new_before: [AtomicBool; 2],
}

/// What a call keeps others from changing while it judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locks {
    /// Nothing: it only reads.
    None,
    /// Of the records it names only that they stay as they are. Its change tells which outputs it saw.
    Seen,
    /// The outputs it names as well.
    Slots,
    /// Its records with all their outputs.
    Records,
    /// The tip with the digest, and the records that it reads whole. Its change tells which outputs it saw. Of
    /// records that it does not read whole it sees no more than judging takes, and can't change them.
    ///
    /// Of other records a block needs that they are confirmed and not conflicting. Whoever confirms one or
    /// takes it back has the chain's row; and what is confirmed is neither marked nor removed.
    Block,
    /// Its records with all their outputs, and the tip with the digest: the confirmed set may change.
    Chain,
}

impl Locks {
    /// What a call keeps others from after it was overtaken: then it is not again.
    const fn firm(self) -> Self {
        match self {
            Self::Seen => Self::Slots,
            Self::Block => Self::Chain,
            other => other,
        }
    }

    /// Whether all records that change were kept from changing.
    fn cover(self, changes: &Changes, reads: &Reads) -> bool {
        let mut records = changes.heads.iter().map(|head| &head.txid);
        let whole = |txid| reads.outputs.contains(txid);
        self != Self::Block || (records.all(whole) && changes.deleted.iter().all(whole))
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

/// The chain's row.
pub(crate) struct Chain {
    pub(crate) tip: Option<Tip>,
    pub(crate) muhash: MuHash3072,
}

impl Chain {
    fn read(rows: &[Row]) -> Result<Self> {
        let damaged = |detail: &str| corrupt("the row of the chain", detail);
        let row = rows.first().ok_or_else(|| damaged("it is missing"))?;
        let bytes: &[u8] = column(row, 3)?;
        let muhash = bytes
            .try_into()
            .ok()
            .and_then(MuHash3072::from_bytes)
            .ok_or_else(|| damaged("its digest is none"))?;
        Ok(Self {
            tip: record::tip(row, 0)?,
            muhash,
        })
    }
}

/// Runs what takes a while where it hurts least: on a multi-thread runtime other tasks move on.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        _ => work(),
    }
}

/// What rows say, read as they come: the server makes the next ones meanwhile.
async fn rows<T, const N: usize>(
    session: &Session,
    statement: &tokio_postgres::Statement,
    values: [&(dyn ToSql + Sync); N],
    read: impl Fn(&Row) -> Result<T>,
) -> Result<Result<Vec<T>>, tokio_postgres::Error> {
    let values = values.iter().map(|value| *value as &dyn ToSql);
    let mut rows = pin!(session.client.query_raw(statement, values).await?);
    let mut all = Ok(Vec::new());
    while let Some(row) = rows.try_next().await? {
        if let Ok(some) = &mut all {
            match read(&row) {
                Ok(one) => some.push(one),
                Err(error) => all = Err(error),
            }
        }
    }
    Ok(all)
}

async fn execute_text(session: &Session, sql: &str) -> Result<(), tokio_postgres::Error> {
    if sql.is_empty() {
        return Ok(());
    }
    session.client.batch_execute(sql).await
}

/// What a call has read.
#[derive(Default)]
struct View {
    loaded: Loaded,
    seen: Seen,
    chain: Option<Chain>,
}

/// Whether any of these transactions is there.
async fn any_exists(
    action: &str,
    lease: &Lease,
    txids: impl IntoIterator<Item = &Txid>,
) -> Result<bool, Failed> {
    let txids: Vec<&[u8]> = txids.into_iter().map(bytes).collect();
    if txids.is_empty() {
        return Ok(false);
    }
    let session = lease.session()?;
    let values: [&(dyn ToSql + Sync); 1] = [&txids];
    let query = session
        .client
        .query_one(&session.statements.existing, &values);
    let count: i64 = column(&lease.answer(action, query).await?, 0)?;
    Ok(count > 0)
}

/// Reads `reads` into `view` without keeping others from anything, after `begin`, in one round trip.
async fn load(
    action: &str,
    lease: &mut Lease,
    begin: &str,
    view: &mut View,
    reads: &Reads,
) -> Result<(), Failed> {
    let at_rest = lease.begin();
    let new = Presumed::default();
    load_locked(
        action,
        lease,
        begin,
        view,
        reads,
        Locks::None,
        &new,
        async {},
    )
    .await?;
    if begin.is_empty() && at_rest {
        lease.end();
    }
    Ok(())
}

/// Reads `reads` into `view`, after `begin`, in one round trip, but for what is presumed to be new. What is asked
/// `beside` is sent last, and not waited for.
#[expect(clippy::too_many_arguments, reason = "each is another thing")]
async fn load_locked(
    action: &str,
    lease: &Lease,
    begin: &str,
    view: &mut View,
    reads: &Reads,
    locks: Locks,
    presumed: &Presumed,
    beside: impl Future<Output = ()>,
) -> Result<(), Failed> {
    let session = lease.session()?;
    let statements = &session.statements;
    let records_by = match locks {
        Locks::None => &statements.records,
        Locks::Seen | Locks::Slots => &statements.records_shared,
        Locks::Records | Locks::Block | Locks::Chain => &statements.records_locked,
    };
    let slots_by = match locks {
        Locks::Slots => &statements.slots_locked,
        // Whoever has a record has its outputs.
        _ => &statements.slots,
    };
    let chain_by = match locks {
        Locks::None => Some(&statements.chain),
        Locks::Block | Locks::Chain => Some(&statements.chain_locked),
        _ => None,
    };
    let before = view.loaded.reads();
    let (inputs_before, locked) = (&before.inputs, |txid: &Txid| {
        locks != Locks::Block || reads.outputs.contains(txid)
    });
    // What is presumed to be new has nothing to read.
    let spent = || {
        let slots = reads.slots.iter();
        slots.filter(|slot| !presumed.contains(&slot.txid))
    };
    // Of these no more is read than judging takes.
    let spent_from: HashSet<&Txid, TxidHash> = match locks {
        Locks::Block => {
            let txids = spent().map(|slot| &slot.txid);
            let more = |txid| reads.inputs.contains(txid) || reads.outputs.contains(txid);
            txids.filter(|txid| !more(*txid)).collect()
        }
        _ => HashSet::default(),
    };
    let some_records = async |by, locked_ones: bool| {
        let wanted = |txid: &&Txid| {
            let elsewhere = presumed.contains(*txid) || !locked_ones && spent_from.contains(*txid);
            locked(txid) == locked_ones && !elsewhere
        };
        let txids: Vec<_> = reads.records.iter().filter(wanted).collect();
        if txids.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let with_inputs =
            |txid: &&Txid| reads.inputs.contains(txid) || inputs_before.contains(txid);
        let with_inputs: Vec<bool> = txids.iter().map(with_inputs).collect();
        let txids: Vec<_> = txids.into_iter().map(bytes).collect();
        rows(session, by, [&txids, &with_inputs], record::record).await
    };
    let chain = async {
        match chain_by {
            Some(by) => session.client.query(by, &[]).await,
            None => Ok(Vec::new()),
        }
    };
    let slots = async {
        let txids: Vec<_> = spent().map(|slot| bytes(&slot.txid)).collect();
        let vouts: Vec<i64> = spent().map(|slot| slot.vout.into()).collect();
        if txids.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let values: [&(dyn ToSql + Sync); 2] = [&txids, &vouts];
        if locks == Locks::Block {
            let read = |row: &Row| {
                let (head, slot) = record::slot_of_block(row)?;
                Ok((Some(head), slot))
            };
            return rows(session, &statements.slots_of_block, values, read).await;
        }
        let read = |row: &Row| Ok((None, Some(record::slot(row)?)));
        rows(session, slots_by, values, read).await
    };
    let outputs = async |whole: Vec<&[u8]>| {
        if whole.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        rows(session, &statements.outputs, [&whole], record::slot).await
    };
    // A block's transactions are new or have outputs: those of new ones are not looked for. The server is at
    // `slots` when it is told which are not.
    let records_with_outputs = async {
        let records = some_records(records_by, true).await?;
        let outputs = match &records {
            Ok(there) if locks == Locks::Block => {
                let there = there.iter().map(|record| &record.txid);
                outputs(there.map(bytes).collect()).await?
            }
            _ => Ok(Vec::new()),
        };
        Ok((records, outputs))
    };
    let all_outputs = async {
        let whole = reads.outputs.iter().filter(|_| locks != Locks::Block);
        outputs(whole.map(bytes).collect()).await
    };
    let undo = async {
        if reads.undo.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let blocks: Vec<_> = reads
            .undo
            .iter()
            .map(|block| block.as_bytes().as_slice())
            .collect();
        rows(session, &statements.undo, [&blocks], record::undo).await
    };
    // Polled in this order, so sent in it; the server is at the first while the others are put together.
    let answers = async {
        tokio::try_join!(
            biased;
            execute_text(session, begin),
            chain,
            records_with_outputs,
            some_records(&statements.records, false),
            slots,
            all_outputs,
            undo,
            async {
                beside.await;
                Ok(())
            },
        )
    };
    let ((), chain, (records, outputs_there), others, slots, outputs, undo, ()) =
        lease.answer(action, Box::pin(answers)).await?;
    let has_chain = chain_by.is_some();
    let View { loaded, seen, .. } = view;
    loaded.asked(reads.clone());
    for record in records?.into_iter().chain(others?) {
        loaded.put_record(record);
    }
    let mut spent = Vec::new();
    for (head, slot) in slots? {
        if let Some(head) = head.filter(|head| spent_from.contains(&head.txid)) {
            loaded.put_record(head);
        }
        spent.extend(slot);
    }
    let mut whole = outputs_there?;
    whole.extend(outputs?);
    // As they are best put.
    whole.sort_by_key(|(txid, output, _)| (*txid, output.vout));
    for (txid, output, version) in spent.into_iter().chain(whole) {
        seen.put(OutPoint::new(txid, output.vout), version);
        loaded.put_output(txid, output);
    }
    for (block, undo) in undo? {
        loaded.put_undo(block, undo);
    }
    if has_chain {
        let chain = Chain::read(&chain)?;
        loaded.set_tip(chain.tip);
        view.chain = Some(chain);
    }
    Ok(())
}

/// Transactions that a call brings and that are taken to be new: they are looked for while it is judged.
type Presumed = HashSet<Txid, TxidHash>;

fn bytes(txid: &Txid) -> &[u8] {
    txid.as_bytes()
}

/// What a call is: its name, what it keeps others from, and whether it knows what it needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) action: &'static str,
    pub(crate) locks: Locks,
    /// What the call needs shows only as it reads: so look first, and lock all of it at once then.
    pub(crate) looks_first: bool,
    /// Of outputs nothing changes but who has spent them.
    pub(crate) spends: bool,
    /// Locking scripts may change.
    pub(crate) scripts: bool,
    /// What was spent may be unspent.
    pub(crate) releases: bool,
}

impl Kind {
    /// See [`Kind::releases`].
    const fn releasing(action: &'static str, locks: Locks) -> Self {
        Self {
            releases: true,
            ..Self::looking(action, locks)
        }
    }

    const fn new(action: &'static str, locks: Locks) -> Self {
        Self {
            action,
            locks,
            looks_first: false,
            spends: false,
            scripts: false,
            releases: false,
        }
    }

    /// See [`Kind::spends`].
    const fn spending(action: &'static str, locks: Locks) -> Self {
        Self {
            spends: true,
            ..Self::new(action, locks)
        }
    }

    pub(crate) const fn looking(action: &'static str, locks: Locks) -> Self {
        Self {
            looks_first: true,
            ..Self::new(action, locks)
        }
    }
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

impl Inner {
    pub(crate) fn attempts(&self, action: &'static str) -> Attempts {
        Attempts {
            action,
            schedule: self.config.retry.schedule(),
            failed: 0,
            retryability: Retryability::Permanent,
        }
    }

    pub(crate) async fn lease(&self, action: &str) -> Result<Lease, Failed> {
        Lease::of(&self.pool, &self.server, action).await
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

    fn new_before(&self, kind: Kind) -> &AtomicBool {
        let [of_blocks, others] = &self.new_before;
        match kind.locks {
            Locks::Block => of_blocks,
            _ => others,
        }
    }

    /// Carries a call out: reads what it needs under locks, judges, writes, commits.
    pub(crate) async fn call<I: Sync, T: Send>(
        &self,
        kind: Kind,
        items: &[I],
        first: Reads,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        self.call_with(kind, items, first, &[], judge).await
    }

    /// As [`call`](Self::call), of one that brings transactions, which `first` names too: they are taken to be
    /// new as long as those of the last call were.
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
        let mut reads = first;
        loop {
            match Box::pin(self.attempt(kind, items, &mut reads, brought, &judge)).await {
                Ok(outcomes) => return Ok(outcomes),
                Err(failed) => attempts.again(failed).await?,
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
        let mut lease = self.lease(kind.action).await?;
        let done = Box::pin(self.work(&mut lease, kind, items, reads, brought, judge)).await;
        if done
            .as_ref()
            .is_err_and(|failed| failed.again == Again::Yes)
        {
            // It only met others: the connection is good.
            lease.rollback(kind.action).await?;
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
        let action = kind.action;
        let (mut looks, mut locks) = (kind.looks_first, kind.locks);
        let new_before = self.new_before(kind);
        let mut presumed = match new_before.load(Ordering::Relaxed) {
            true => brought.iter().copied().collect(),
            false => Presumed::default(),
        };
        for _ in 0..MOST_ROUNDS {
            if looks {
                self.look(lease, action, "", items, reads, judge).await?;
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
        Err(too_deep(action).into())
    }

    /// Judges over what is there without keeping it from changing, until it is known what is needed.
    async fn look<I: Sync, T: Send>(
        &self,
        lease: &mut Lease,
        action: &str,
        begin: &str,
        items: &[I],
        reads: &mut Reads,
        judge: &(impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync),
    ) -> Result<Vec<Outcome<T>>, Failed> {
        let mut view = View::default();
        let mut missing = reads.clone();
        let mut begin = begin;
        for _ in 0..MOST_ROUNDS {
            load(action, lease, begin, &mut view, &missing).await?;
            begin = "";
            match blocking(|| run(&view.loaded, self.config.unspendable, items, judge)) {
                Run::Incomplete(more) => {
                    reads.extend(more.clone());
                    missing = more;
                }
                Run::Done(outcomes, _) => return Ok(outcomes),
            }
        }
        Err(too_deep(action).into())
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
            action,
            spends,
            scripts,
            releases,
            ..
        } = kind;
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
                    attempts.again(Failed { error, again }).await?;
                }
            }
        }
    }

    /// Answers from one moment, without changing anything.
    async fn view<I: Sync, T: Send>(
        &self,
        action: &'static str,
        items: &[I],
        first: Reads,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        self.check_items(items.len())?;
        let mut attempts = self.attempts(action);
        loop {
            let seen = async {
                let mut lease = self.lease(action).await?;
                let mut reads = first.clone();
                let outcomes = self
                    .look(&mut lease, action, BEGIN_READ, items, &mut reads, &judge)
                    .await?;
                lease.rollback(action).await?;
                Ok(outcomes)
            };
            match seen.await {
                Ok(outcomes) => return Ok(outcomes),
                Err(failed) => attempts.again(failed).await?,
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
                Err(failed) => attempts.again(failed).await?,
            }
        }
    }

    async fn chain(&self, action: &'static str) -> Result<Chain> {
        Chain::read(&self.query(action, |s| &s.chain, &[]).await?)
    }

    async fn read_records(
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
                Err(failed) => attempts.again(failed).await?,
            }
        }
    }
}

fn too_deep(action: &str) -> Error {
    Error::invalid_request(format!(
        "{action}: the cascade is deeper than {MOST_ROUNDS} generations; begin with a descendant"
    ))
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

impl PostgresUtxoStore {
    /// Connects to the server, and opens the store of the config's schema, creates it, or migrates it.
    ///
    /// Runs on tokio, on whose runtime the connections live.
    ///
    /// # Errors
    /// `InvalidRequest` for settings that make no sense, another server version, unsafe durability, or what
    /// differs from what was fixed at creation; `NewerFormat`; `NotFound` unless it may be created;
    /// `Backend` where the server can't be reached, or refuses user, password or rights.
    pub async fn open(config: PostgresUtxoStoreConfig) -> Result<Self> {
        schema::check_config(&config)?;
        let server = Server::new(&config)?;
        Box::pin(schema::prepare(&server, &config))
            .await
            .map_err(|failed| failed.error)?;
        let pool = server.pool(&config)?;
        Ok(Self {
            inner: Arc::new(Inner {
                server: Arc::new(server),
                pool,
                config,
                new_before: [const { AtomicBool::new(true) }; 2],
            }),
        })
    }
}

#[async_trait]
impl SpendStore for PostgresUtxoStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(BACKEND);
        capabilities.persistent = true;
        capabilities.snapshot_scan = true;
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
        let kind = Kind::spending("spend and create", Locks::Seen);
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
        let kind = Kind::new("create", Locks::Chain);
        self.inner.call(kind, records, reads, ops::create).await
    }

    async fn spend(&self, txids: &[Txid], options: &SpendOptions) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::looking("spend", Locks::Records);
        self.inner
            .call(kind, txids, of_spenders(txids), |draft, txid| {
                ops::spend(draft, *txid, options)
            })
            .await
    }

    async fn unspend(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::releasing("unspend", Locks::Records);
        self.inner
            .call(kind, txids, of_spenders(txids), |draft, txid| {
                ops::unspend(draft, *txid)
            })
            .await
    }

    async fn remove(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::releasing("remove", Locks::Records);
        self.inner
            .call(kind, txids, of_whole(txids), |draft, txid| {
                ops::remove(draft, *txid)
            })
            .await
    }

    async fn records(&self, txids: &[Txid], fields: Fields) -> Result<Vec<Option<Record>>> {
        self.inner.check_items(txids.len())?;
        let (records, outputs) = self
            .inner
            .read_records("read records", txids, fields)
            .await?;
        let mut found = std::collections::HashMap::with_capacity(records.len());
        for row in &records {
            let record = record::record(row)?;
            found.insert(record.txid, record);
        }
        for row in &outputs {
            if let Some(record) = found.get_mut(&record::txid(row, 0)?) {
                record.outputs.push(record::output(row, 1)?);
            }
        }
        let asked: std::collections::HashSet<_> = txids.iter().collect();
        if let Some(other) = found.keys().find(|txid| !asked.contains(txid)) {
            return Err(Error::WrongRecord {
                backend: BACKEND,
                asked: txids.first().copied().unwrap_or_default(),
                got: other.to_string(),
            });
        }
        Ok(txids.iter().map(|txid| found.get(txid).cloned()).collect())
    }

    async fn outputs(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<OutputView>>> {
        self.inner.check_items(outpoints.len())?;
        let txids: Vec<&[u8]> = outpoints
            .iter()
            .map(|o| o.txid.as_bytes().as_slice())
            .collect();
        let vouts: Vec<i64> = outpoints.iter().map(|o| o.vout.into()).collect();
        let rows = self
            .inner
            .query("read outputs", |s| &s.views, &[&txids, &vouts])
            .await?;
        let mut views: Vec<_> = outpoints
            .iter()
            .map(|outpoint| {
                Err(Verdict::MissingTransaction {
                    outpoint: *outpoint,
                })
            })
            .collect();
        for row in &rows {
            let at = usize::try_from(column::<i64>(row, 0)? - 1).unwrap_or(usize::MAX);
            let (Some(view), Some(outpoint)) = (views.get_mut(at), outpoints.get(at).copied())
            else {
                return Err(corrupt(
                    "an answer",
                    "it has more items than were asked for",
                ));
            };
            let txid = record::txid(row, 1)?;
            if txid != outpoint.txid {
                return Err(Error::WrongRecord {
                    backend: BACKEND,
                    asked: outpoint.txid,
                    got: txid.to_string(),
                });
            }
            *view = if column::<Option<i64>>(row, 6)?.is_none() {
                Err(Verdict::MissingOutput { outpoint })
            } else {
                let slot = record::output(row, 6)?;
                Ok(OutputView {
                    outpoint,
                    state: slot.state(),
                    output: slot.output,
                    height: record::numbers(row, 5)?,
                    coinbase: column(row, 2)?,
                    locked: column(row, 3)?,
                    conflicting: column(row, 4)?,
                })
            };
        }
        Ok(views)
    }
}

#[async_trait]
impl BlockStore for PostgresUtxoStore {
    async fn tip(&self) -> Result<Option<Tip>> {
        Ok(self.inner.chain("read the tip").await?.tip)
    }

    async fn previous_tip(&self) -> Result<Option<Tip>> {
        let rows = self
            .inner
            .query("read the previous tip", |s| &s.previous_tip, &[])
            .await?;
        Ok(rows
            .first()
            .map(|row| record::tip(row, 0))
            .transpose()?
            .flatten())
    }

    async fn set_tip(&self, tip: &Tip) -> Result<()> {
        let kind = Kind::new("set the tip", Locks::Chain);
        self.inner
            .call(kind, &[*tip], Reads::new(), |draft, tip| {
                ops::set_tip(draft, *tip);
                Ok(())
            })
            .await
            .map(drop)
    }

    async fn set_mined(&self, txids: &[Txid], mined: &MinedIn) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::looking("set mined", Locks::Chain);
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
        let kind = Kind::looking("unset mined", Locks::Chain);
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
        let kind = Kind::looking("set the longest chain", Locks::Chain);
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
        let kind = Kind::spending("connect a block", Locks::Block);
        let brought: Vec<_> = block.transactions.iter().map(|tx| tx.txid).collect();
        let blocks = [block];
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
        let kind = Kind::releasing("disconnect a block", Locks::Chain);
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
impl AlertStore for PostgresUtxoStore {
    async fn freeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("freeze", Locks::Slots);
        let reads = of_slots(outpoints.iter().copied());
        self.inner
            .call(kind, outpoints, reads, |draft, outpoint| {
                ops::freeze(draft, *outpoint)
            })
            .await
    }

    async fn unfreeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("unfreeze", Locks::Slots);
        let reads = of_slots(outpoints.iter().copied());
        self.inner
            .call(kind, outpoints, reads, |draft, outpoint| {
                ops::unfreeze(draft, *outpoint)
            })
            .await
    }

    async fn reassign(&self, reassignments: &[Reassignment]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind {
            scripts: true,
            ..Kind::new("reassign", Locks::Chain)
        };
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
impl ConflictStore for PostgresUtxoStore {
    async fn set_locked(&self, txids: &[Txid], locked: bool) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("set locked", Locks::Records);
        self.inner
            .call(kind, txids, of_txids(txids), |draft, txid| {
                ops::set_locked(draft, *txid, locked)
            })
            .await
    }

    async fn mark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        let kind = Kind::looking("mark conflicting", Locks::Records);
        self.inner
            .call(kind, txids, of_whole(txids), |draft, txid| {
                ops::mark_conflicting(draft, *txid)
            })
            .await
    }

    async fn unmark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::looking("unmark conflicting", Locks::Records);
        self.inner
            .call(kind, txids, of_spenders(txids), |draft, txid| {
                ops::unmark_conflicting(draft, *txid)
            })
            .await
    }

    async fn counter_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        let reads = of_spenders(txids);
        self.inner
            .view(
                "find what counters a conflict",
                txids,
                reads,
                |draft, txid| ops::counter_conflicting(draft, *txid),
            )
            .await
    }

    async fn conflicting_children(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        let reads = of_txids(txids);
        self.inner
            .view("read conflicting children", txids, reads, |draft, txid| {
                ops::conflicting_children(draft, *txid)
            })
            .await
    }
}

#[async_trait]
impl RetentionStore for PostgresUtxoStore {
    async fn unmined(
        &self,
        older_than: Option<u32>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<UnminedTransaction>> {
        let after = after.map(Cursor::txid).transpose()?;
        let after = after.map_or(Vec::new(), |txid| txid.as_bytes().to_vec());
        let limit = limit.clamp(1, self.inner.config.max_batch_items);
        let rows = self
            .inner
            .query(
                "list unmined transactions",
                |s| &s.unmined,
                &[
                    &after,
                    &older_than.map(i64::from),
                    &i64::try_from(limit + 1).unwrap_or(i64::MAX),
                ],
            )
            .await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows.iter().take(limit) {
            items.push(UnminedTransaction {
                txid: record::txid(row, 0)?,
                unmined_since: record::number(column(row, 1)?)?,
            });
        }
        let more = rows.len() > limit;
        let next = items
            .last()
            .filter(|_| more)
            .map(|last| Cursor::from(last.txid));
        Ok(Page { items, next })
    }

    async fn preserve(&self, txids: &[Txid], until_height: u32) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("preserve", Locks::Records);
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
impl ScanStore for PostgresUtxoStore {
    async fn scan(&self) -> Result<Box<dyn SetScan>> {
        Ok(Box::new(PostgresScan::begin(self.inner.clone()).await?))
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
impl MaintenanceStore for PostgresUtxoStore {
    /// A change is one transaction of the server, which rolls back what a crash cut short.
    async fn recover(&self) -> Result<Recovered> {
        self.inner
            .query("recover", |s| &s.forget_calls, &[])
            .await?;
        Ok(Recovered::default())
    }

    /// A commit returns when it is durable.
    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn health(&self, depth: HealthDepth) -> Result<Health> {
        let status = self.inner.pool.status();
        let mut reasons = Vec::new();
        if status.waiting > 0 {
            reasons.push(format!(
                "all {} connections are in use and {} calls wait; raise max_connections, or send less at a time",
                status.max_size, status.waiting
            ));
        }
        let mut ready = true;
        if depth == HealthDepth::Readiness {
            match self.inner.ready().await {
                Ok(found) => {
                    ready = found.is_empty() || self.inner.config.allow_unsafe_durability;
                    reasons.extend(found);
                }
                Err(failed) => {
                    ready = false;
                    let source = std::error::Error::source(&failed.error);
                    let cause = source.map(|cause| format!(": {cause}"));
                    reasons.push(format!("{}{}", failed.error, cause.unwrap_or_default()));
                }
            }
        }
        Ok(Health { ready, reasons })
    }
}

impl Inner {
    /// Writes and reads a little; tells what is unsafe.
    async fn ready(&self) -> Result<Vec<String>, Failed> {
        let action = "check the store";
        let mut lease = self.lease(action).await?;
        let Some((id, number)) = lease.number_call() else {
            return Err(no_answer(action));
        };
        let id = id.as_slice();
        lease.begin();
        let session = lease.session()?;
        let values: [&(dyn ToSql + Sync); 2] = [&id, &number];
        let write = session
            .client
            .execute(&session.statements.number_call, &values);
        lease.answer(action, write).await?;
        let version = session
            .client
            .query_one("SELECT schema_version FROM chain", &[]);
        let version: i64 = column(&lease.answer(action, version).await?, 0)?;
        let off = lease
            .answer(action, schema::unsafe_settings(&session.client))
            .await?;
        lease.end();
        let mut reasons: Vec<String> = off
            .iter()
            .map(|setting| format!("the server runs with {setting} off, so a power failure can damage it; turn it on"))
            .collect();
        if version != i64::from(schema::VERSION) {
            return Err(Error::NewerFormat {
                store: format!("schema {}", self.config.schema),
                found: u32::try_from(version).unwrap_or(u32::MAX),
                supported: schema::VERSION,
            }
            .into());
        }
        reasons.sort();
        Ok(reasons)
    }
}
