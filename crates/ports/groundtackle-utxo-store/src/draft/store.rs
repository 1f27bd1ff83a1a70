//! The traits of a store whose calls are drafts.

use std::borrow::Cow;
use std::fmt::Debug;

use groundtackle_chain::{BlockHash, ChainBlock, OutPoint, Txid};

use super::{Draft, Reads, Stop, ops};
use crate::error::{Error, Result};
use crate::store::SetScan;
use crate::types::{
    Applied, Capabilities, Connected, Cursor, Disconnected, Fields, Health, HealthDepth,
    LongestChain, MinedIn, NewRecord, NewTransaction, OutputView, Page, Pruned, Reassignment,
    Record, Recovered, SetDigest, SpendOptions, Tip, UnminedTransaction,
};
use crate::verdict::Outcome;

/// Unmined transactions that are listed at once where only some are wanted.
const UNMINED_STEP: usize = 4_096;

/// What a call does. The store's method of that name says what, and the function of that name in [`ops`] judges
/// each item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "see the methods")]
pub enum Operation {
    SpendAndCreate,
    Create,
    Spend,
    Unspend,
    Remove,
    SetTip,
    SetMined,
    UnsetMined,
    SetLongestChain,
    ConnectBlock,
    DisconnectBlock,
    Freeze,
    Unfreeze,
    Reassign,
    Lock,
    Unlock,
    MarkConflicting,
    UnmarkConflicting,
    CounterConflicting,
    ConflictingChildren,
    Preserve,
    Prune,
    Records,
    Outputs,
    Tip,
    PreviousTip,
}

impl Operation {
    /// How errors name it.
    pub const fn action(self) -> &'static str {
        match self {
            Self::SpendAndCreate => "spend and create",
            Self::Create => "create",
            Self::Spend => "spend",
            Self::Unspend => "unspend",
            Self::Remove => "remove",
            Self::SetTip => "set the tip",
            Self::SetMined => "set mined",
            Self::UnsetMined => "unset mined",
            Self::SetLongestChain => "set the longest chain",
            Self::ConnectBlock => "connect a block",
            Self::DisconnectBlock => "disconnect a block",
            Self::Freeze => "freeze",
            Self::Unfreeze => "unfreeze",
            Self::Reassign => "reassign",
            Self::Lock | Self::Unlock => "set locked",
            Self::MarkConflicting => "mark conflicting",
            Self::UnmarkConflicting => "unmark conflicting",
            Self::CounterConflicting => "find what counters a conflict",
            Self::ConflictingChildren => "read conflicting children",
            Self::Preserve => "preserve",
            Self::Prune => "prune",
            Self::Records => "read records",
            Self::Outputs => "read outputs",
            Self::Tip => "read the tip",
            Self::PreviousTip => "read the previous tip",
        }
    }

    /// Whether it changes nothing.
    pub const fn only_reads(self) -> bool {
        matches!(
            self,
            Self::CounterConflicting
                | Self::ConflictingChildren
                | Self::Records
                | Self::Outputs
                | Self::Tip
                | Self::PreviousTip
        )
    }

    /// Whether the tip is judged, or the confirmed set may change: such calls meet at one value.
    pub const fn concerns_chain(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::SetTip
                | Self::SetMined
                | Self::UnsetMined
                | Self::SetLongestChain
                | Self::ConnectBlock
                | Self::DisconnectBlock
                | Self::Reassign
        )
    }
}

/// A call to be carried out.
#[derive(Clone, Debug)]
pub struct Call<'a, I: Clone> {
    /// What it does.
    pub operation: Operation,
    /// To what: at least one item.
    pub items: Cow<'a, [I]>,
    /// What it is sure to need.
    pub reads: Reads,
    /// Transactions that it brings, which `reads` names too: most of them are new.
    pub brought: Vec<Txid>,
}

impl<'a, I: Clone> Call<'a, I> {
    /// A call that brings nothing. `reads_of` names what an item is sure to need.
    pub fn new(operation: Operation, items: &'a [I], reads_of: impl Fn(&mut Reads, &I)) -> Self {
        let mut reads = Reads::new();
        items.iter().for_each(|item| reads_of(&mut reads, item));
        Self {
            operation,
            items: items.into(),
            reads,
            brought: Vec::new(),
        }
    }

    /// The same, to be carried out elsewhere.
    pub fn into_owned(self) -> Call<'static, I> {
        Call {
            operation: self.operation,
            items: Cow::Owned(self.items.into_owned()),
            reads: self.reads,
            brought: self.brought,
        }
    }
}

/// What an adapter writes that carries out calls by drafts; [`draft_store!`](crate::draft_store) makes the
/// [store's traits](crate::UtxoStore) of it.
///
/// Where a method has the name of one of the store's it keeps that one's promises, which are told there.
pub trait DraftStore: Debug + Send + Sync + 'static {
    /// See [`SpendStore::capabilities`](crate::SpendStore::capabilities). A call with more items than
    /// `max_batch_items` is refused before it gets here.
    fn capabilities(&self) -> Capabilities;

    /// Carries a call out: reads what it needs, [judges](super::run) each item with `judge`, and writes the
    /// [`Changes`](super::Changes), provided that nothing read has changed since.
    ///
    /// # Errors
    /// When the store could not answer.
    fn call<I, T>(
        &self,
        call: Call<'_, I>,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync + 'static,
    ) -> impl Future<Output = Result<Vec<Outcome<T>>>> + Send
    where
        I: Clone + Send + Sync + 'static,
        T: Send + 'static;

    /// See [`SpendStore::spend_and_create`](crate::SpendStore::spend_and_create): a [`call`](Self::call), unless there
    /// is a faster way.
    ///
    /// # Errors
    /// When the store could not answer.
    fn spend_and_create(
        &self,
        transactions: &[NewTransaction],
        options: &SpendOptions,
    ) -> impl Future<Output = Result<Vec<Outcome<Applied>>>> + Send {
        let reads_of = |reads: &mut Reads, new: &NewTransaction| {
            reads.of_inputs(new.tx.txid, &new.tx.inputs);
        };
        let brought = transactions.iter().map(|new| new.tx.txid).collect();
        let call = Call {
            brought,
            ..Call::new(Operation::SpendAndCreate, transactions, reads_of)
        };
        let options = *options;
        self.call(call, move |draft, new| {
            ops::spend_and_create(draft, new, &options)
        })
    }

    /// See [`SpendStore::records`](crate::SpendStore::records): a [`call`](Self::call), unless there is a shorter way.
    ///
    /// # Errors
    /// When the store could not answer.
    fn records(
        &self,
        txids: &[Txid],
        fields: Fields,
    ) -> impl Future<Output = Result<Vec<Option<Record>>>> + Send {
        let reads_of = move |reads: &mut Reads, txid: &Txid| {
            reads.record(*txid);
            reads.inputs.extend(fields.inputs.then_some(*txid));
            reads.outputs.extend(fields.outputs.then_some(*txid));
        };
        let call = Call::new(Operation::Records, txids, reads_of);
        let read = self.call(call, move |draft, txid| ops::record(draft, *txid, fields));
        async move {
            let records = read.await?.into_iter();
            Ok(records.map(|record| record.ok().flatten()).collect())
        }
    }

    /// See [`SpendStore::outputs`](crate::SpendStore::outputs): a [`call`](Self::call), unless there is a shorter way.
    ///
    /// # Errors
    /// When the store could not answer.
    fn outputs(
        &self,
        outpoints: &[OutPoint],
    ) -> impl Future<Output = Result<Vec<Outcome<OutputView>>>> + Send {
        let call = Call::new(Operation::Outputs, outpoints, slot);
        self.call(call, |draft, outpoint| ops::output(draft, *outpoint))
    }

    /// See [`BlockStore::tip`](crate::BlockStore::tip): a [`call`](Self::call), unless there is a shorter way.
    ///
    /// # Errors
    /// When the store could not answer.
    fn tip(&self) -> impl Future<Output = Result<Option<Tip>>> + Send {
        let call = self.call(Call::new(Operation::Tip, &[()], |_, ()| ()), |draft, ()| {
            Ok(ops::tip(draft))
        });
        async move {
            Ok(call
                .await?
                .into_iter()
                .next()
                .and_then(Result::ok)
                .flatten())
        }
    }

    /// See [`BlockStore::previous_tip`](crate::BlockStore::previous_tip): a [`call`](Self::call), unless there is a
    /// shorter way.
    ///
    /// # Errors
    /// When the store could not answer.
    fn previous_tip(&self) -> impl Future<Output = Result<Option<Tip>>> + Send {
        let call = Call::new(Operation::PreviousTip, &[()], |_, ()| ());
        let call = self.call(call, |draft, ()| ops::previous_tip(draft));
        async move {
            Ok(call
                .await?
                .into_iter()
                .next()
                .and_then(Result::ok)
                .flatten())
        }
    }

    /// See [`RetentionStore::unmined`](crate::RetentionStore::unmined): at most `limit` behind one, and `limit` is at least
    /// one.
    ///
    /// # Errors
    /// When the store could not answer.
    fn unmined(
        &self,
        older_than: Option<u32>,
        after: Option<Txid>,
        limit: usize,
    ) -> impl Future<Output = Result<Page<UnminedTransaction>>> + Send;

    /// The first part of a pruning: removes undo data of blocks at or below the horizon, a bounded number of blocks, and
    /// lists their records for [`prune_expired`](Self::prune_expired), if they are not. Answers whether any was
    /// left to look at.
    ///
    /// # Errors
    /// When the store could not answer; `InvalidRequest` for a horizon that is above the tip at the moment when no
    /// undo data is left: from then on none of these blocks can be taken back.
    fn prune_undo(
        &self,
        horizon: u32,
        so_far: &mut Pruning,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// The second part: of the records listed up to the horizon looks at a bounded number, removes those that
    /// [can go](ops::prune_confirmed), and lists anew what is preserved beyond it. Answers whether any was listed.
    ///
    /// # Errors
    /// When the store could not answer.
    fn prune_expired(
        &self,
        horizon: u32,
        so_far: &mut Pruning,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// The third part: transactions to look at, among them all that are conflicting and unmined since the horizon or
    /// earlier: a bounded number behind one. All old unmined transactions, unless they are listed by themselves.
    ///
    /// # Errors
    /// When the store could not answer.
    fn old_conflicts(
        &self,
        horizon: u32,
        after: Option<Txid>,
    ) -> impl Future<Output = Result<Page<Txid>>> + Send {
        async move {
            let older_than = Some(horizon.saturating_add(1));
            let listed = self.unmined(older_than, after, UNMINED_STEP);
            let Page { items, next } = listed.await?;
            let items = items.into_iter().map(|unmined| unmined.txid).collect();
            Ok(Page { items, next })
        }
    }

    /// See [`ScanStore::scan`](crate::ScanStore::scan).
    ///
    /// # Errors
    /// When the store could not answer.
    fn scan(&self) -> impl Future<Output = Result<Box<dyn SetScan>>> + Send;

    /// See [`ScanStore::digest`](crate::ScanStore::digest).
    ///
    /// # Errors
    /// When the store could not answer.
    fn digest(&self) -> impl Future<Output = Result<SetDigest>> + Send;

    /// See [`MaintenanceStore::recover`](crate::MaintenanceStore::recover).
    ///
    /// # Errors
    /// When the store could not answer.
    fn recover(&self) -> impl Future<Output = Result<Recovered>> + Send;

    /// See [`MaintenanceStore::flush`](crate::MaintenanceStore::flush).
    ///
    /// # Errors
    /// When durability could not be had.
    fn flush(&self) -> impl Future<Output = Result<()>> + Send;

    /// See [`MaintenanceStore::health`](crate::MaintenanceStore::health).
    ///
    /// # Errors
    /// When not even that could be found out.
    fn health(&self, depth: HealthDepth) -> impl Future<Output = Result<Health>> + Send;

    /// The store's operations.
    fn drafts(&self) -> Drafts<'_, Self>
    where
        Self: Sized,
    {
        Drafts(self)
    }
}

/// How far a pruning is. What goes is counted as soon as it has gone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pruning {
    /// What has gone.
    pub pruned: Pruned,
    /// Whether something may have gone that is not counted: a commit had no answer.
    pub in_doubt: bool,
}

impl Pruning {
    /// Counts those of the records looked at that went.
    pub fn count(&mut self, gone: &[Outcome<bool>]) {
        self.pruned.records += gone.iter().filter(|gone| **gone == Ok(true)).count() as u64;
    }
}

/// The operations of a [`DraftStore`], with the signatures of the store's traits.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, clippy::missing_errors_doc, reason = "see the traits")]
pub struct Drafts<'a, S>(&'a S);

#[allow(missing_docs, clippy::missing_errors_doc, reason = "see the traits")]
impl<S: DraftStore> Drafts<'_, S> {
    fn most(&self) -> usize {
        self.0.capabilities().max_batch_items.unwrap_or(usize::MAX)
    }

    fn check_items(&self, items: usize) -> Result<()> {
        let most = self.most();
        if items > most {
            return Err(Error::invalid_request(format!(
                "the call has {items} items, and one may have {most}; send less at a time, or raise max_batch_items where that can be set"
            )));
        }
        Ok(())
    }

    async fn call<I, T>(
        &self,
        operation: Operation,
        items: &[I],
        reads_of: fn(&mut Reads, &I),
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync + 'static,
    ) -> Result<Vec<Outcome<T>>>
    where
        I: Clone + Send + Sync + 'static,
        T: Send + 'static,
    {
        self.check_items(items.len())?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let call = Call::new(operation, items, reads_of);
        self.0.call(call, judge).await
    }

    fn one<T>(&self, outcomes: Vec<Outcome<T>>) -> Result<Outcome<T>> {
        let backend = self.0.capabilities().backend;
        let missing = || Error::corrupt(backend, "an answer", "it has no item");
        outcomes.into_iter().next().ok_or_else(missing)
    }

    pub fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    pub async fn spend_and_create(
        &self,
        transactions: &[NewTransaction],
        options: &SpendOptions,
    ) -> Result<Vec<Outcome<Applied>>> {
        self.check_items(transactions.len())?;
        if transactions.is_empty() {
            return Ok(Vec::new());
        }
        self.0.spend_and_create(transactions, options).await
    }

    pub async fn create(&self, records: &[NewRecord]) -> Result<Vec<Outcome<Applied>>> {
        let reads_of = |reads: &mut Reads, record: &NewRecord| {
            reads.record(record.txid());
            if let NewRecord::Conflicting { tx, .. } = record {
                reads.of_inputs(tx.txid, &tx.inputs);
            }
        };
        self.call(Operation::Create, records, reads_of, ops::create)
            .await
    }

    pub async fn spend(
        &self,
        txids: &[Txid],
        options: &SpendOptions,
    ) -> Result<Vec<Outcome<Applied>>> {
        let options = *options;
        self.call(Operation::Spend, txids, spender, move |draft, txid| {
            ops::spend(draft, *txid, &options)
        })
        .await
    }

    pub async fn unspend(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        self.call(Operation::Unspend, txids, spender, |draft, txid| {
            ops::unspend(draft, *txid)
        })
        .await
    }

    pub async fn remove(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        self.call(Operation::Remove, txids, whole, |draft, txid| {
            ops::remove(draft, *txid)
        })
        .await
    }

    pub async fn records(&self, txids: &[Txid], fields: Fields) -> Result<Vec<Option<Record>>> {
        self.check_items(txids.len())?;
        self.0.records(txids, fields).await
    }

    pub async fn outputs(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<OutputView>>> {
        self.check_items(outpoints.len())?;
        self.0.outputs(outpoints).await
    }

    pub async fn tip(&self) -> Result<Option<Tip>> {
        self.0.tip().await
    }

    pub async fn previous_tip(&self) -> Result<Option<Tip>> {
        self.0.previous_tip().await
    }

    pub async fn set_tip(&self, tip: &Tip) -> Result<()> {
        self.call(
            Operation::SetTip,
            &[*tip],
            |_, _| (),
            |draft, tip| {
                ops::set_tip(draft, *tip);
                Ok(())
            },
        )
        .await
        .map(drop)
    }

    pub async fn set_mined(
        &self,
        txids: &[Txid],
        mined: &MinedIn,
    ) -> Result<Vec<Outcome<Applied>>> {
        let mined = *mined;
        self.call(Operation::SetMined, txids, whole, move |draft, txid| {
            ops::set_mined(draft, *txid, &mined)
        })
        .await
    }

    pub async fn unset_mined(
        &self,
        txids: &[Txid],
        block: &BlockHash,
        unmined_since: u32,
    ) -> Result<Vec<Outcome<Applied>>> {
        let block = *block;
        self.call(Operation::UnsetMined, txids, whole, move |draft, txid| {
            ops::unset_mined(draft, *txid, &block, unmined_since)
        })
        .await
    }

    pub async fn set_longest_chain(
        &self,
        txids: &[Txid],
        block: &BlockHash,
        mark: LongestChain,
    ) -> Result<Vec<Outcome<Applied>>> {
        let block = *block;
        self.call(
            Operation::SetLongestChain,
            txids,
            whole,
            move |draft, txid| ops::set_longest_chain(draft, *txid, &block, mark),
        )
        .await
    }

    pub async fn connect_block(&self, block: &ChainBlock) -> Result<Outcome<Connected>> {
        let reads_of = |reads: &mut Reads, block: &ChainBlock| {
            for tx in &block.transactions {
                // Those that are in the store, unmined, are read whole: their outputs join the set.
                reads.whole(tx.txid);
                reads.of_inputs(tx.txid, &tx.inputs);
            }
        };
        let blocks = std::slice::from_ref(block);
        let call = Call {
            brought: block.transactions.iter().map(|tx| tx.txid).collect(),
            ..Call::new(Operation::ConnectBlock, blocks, reads_of)
        };
        self.one(self.0.call(call, ops::connect_block).await?)
    }

    pub async fn disconnect_block(
        &self,
        block: &BlockHash,
        previous: &BlockHash,
    ) -> Result<Outcome<Disconnected>> {
        let previous = *previous;
        let reads_of = |reads: &mut Reads, block: &BlockHash| reads.undo.extend([*block]);
        let judge = move |draft: &mut Draft<'_>, block: &BlockHash| {
            ops::disconnect_block(draft, block, &previous)
        };
        let blocks = std::slice::from_ref(block);
        let call = self.call(Operation::DisconnectBlock, blocks, reads_of, judge);
        self.one(call.await?)
    }

    pub async fn freeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>> {
        self.call(Operation::Freeze, outpoints, slot, |draft, outpoint| {
            ops::freeze(draft, *outpoint)
        })
        .await
    }

    pub async fn unfreeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>> {
        self.call(Operation::Unfreeze, outpoints, slot, |draft, outpoint| {
            ops::unfreeze(draft, *outpoint)
        })
        .await
    }

    pub async fn reassign(&self, reassignments: &[Reassignment]) -> Result<Vec<Outcome<Applied>>> {
        let reads_of = |reads: &mut Reads, item: &Reassignment| reads.slot(item.outpoint);
        self.call(Operation::Reassign, reassignments, reads_of, ops::reassign)
            .await
    }

    pub async fn set_locked(&self, txids: &[Txid], locked: bool) -> Result<Vec<Outcome<Applied>>> {
        let operation = match locked {
            true => Operation::Lock,
            false => Operation::Unlock,
        };
        self.call(operation, txids, record, move |draft, txid| {
            ops::set_locked(draft, *txid, locked)
        })
        .await
    }

    pub async fn mark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        self.call(Operation::MarkConflicting, txids, whole, |draft, txid| {
            ops::mark_conflicting(draft, *txid)
        })
        .await
    }

    pub async fn unmark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        self.call(
            Operation::UnmarkConflicting,
            txids,
            spender,
            |draft, txid| ops::unmark_conflicting(draft, *txid),
        )
        .await
    }

    pub async fn counter_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        self.call(
            Operation::CounterConflicting,
            txids,
            spender,
            |draft, txid| ops::counter_conflicting(draft, *txid),
        )
        .await
    }

    pub async fn conflicting_children(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        self.call(
            Operation::ConflictingChildren,
            txids,
            record,
            |draft, txid| ops::conflicting_children(draft, *txid),
        )
        .await
    }

    pub async fn unmined(
        &self,
        older_than: Option<u32>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<UnminedTransaction>> {
        let after = after.map(Cursor::txid).transpose()?;
        let limit = limit.clamp(1, self.most());
        self.0.unmined(older_than, after, limit).await
    }

    pub async fn preserve(
        &self,
        txids: &[Txid],
        until_height: u32,
    ) -> Result<Vec<Outcome<Applied>>> {
        self.call(Operation::Preserve, txids, record, move |draft, txid| {
            ops::preserve(draft, *txid, until_height)
        })
        .await
    }

    pub async fn prune(&self, horizon: u32) -> Result<Pruned> {
        let backend = self.0.capabilities().backend;
        let mut so_far = Pruning::default();
        match self.prune_into(horizon, &mut so_far).await {
            Err(error) if so_far.in_doubt => {
                Err(error.after_effect(backend, Operation::Prune.action()))
            }
            done => so_far.pruned.when(done, backend),
        }
    }

    async fn prune_into(&self, horizon: u32, so_far: &mut Pruning) -> Result<()> {
        let Some(tip) = self.0.tip().await? else {
            return Ok(());
        };
        tip.check_horizon(horizon)?;
        // Undo data goes first, so that no block can be taken back whose records are half gone.
        while self.0.prune_undo(horizon, so_far).await? {}
        while self.0.prune_expired(horizon, so_far).await? {}
        // One that goes may be all that kept another.
        loop {
            let before = so_far.pruned.records;
            self.prune_conflicting(horizon, so_far).await?;
            if so_far.pruned.records == before {
                return Ok(());
            }
        }
    }

    async fn prune_conflicting(&self, horizon: u32, so_far: &mut Pruning) -> Result<()> {
        let mut after = None;
        loop {
            let listed = self.0.old_conflicts(horizon, after).await?;
            for step in listed.items.chunks(self.most()) {
                let gone = self.call(Operation::Prune, step, record, move |draft, txid| {
                    ops::prune_conflicting(draft, *txid, horizon)
                });
                so_far.count(&gone.await?);
            }
            let Some(next) = listed.next else {
                return Ok(());
            };
            after = Some(next.txid()?);
        }
    }

    pub async fn scan(&self) -> Result<Box<dyn SetScan>> {
        self.0.scan().await
    }

    pub async fn digest(&self) -> Result<SetDigest> {
        self.0.digest().await
    }

    pub async fn recover(&self) -> Result<Recovered> {
        self.0.recover().await
    }

    pub async fn flush(&self) -> Result<()> {
        self.0.flush().await
    }

    pub async fn health(&self, depth: HealthDepth) -> Result<Health> {
        self.0.health(depth).await
    }
}

fn record(reads: &mut Reads, txid: &Txid) {
    reads.record(*txid);
}

fn whole(reads: &mut Reads, txid: &Txid) {
    reads.whole(*txid);
}

fn spender(reads: &mut Reads, txid: &Txid) {
    reads.record(*txid);
    reads.inputs.insert(*txid);
}

fn slot(reads: &mut Reads, outpoint: &OutPoint) {
    reads.slot(*outpoint);
}

/// Unmined transactions of a store that lists all of them by `list`: what is behind one, so many, none after the last.
///
/// # Errors
/// That of `list`.
pub async fn page_of_unmined<F: Future<Output = Result<Vec<UnminedTransaction>>>>(
    older_than: Option<u32>,
    mut after: Option<Txid>,
    limit: usize,
    list: impl Fn(Option<Txid>, usize) -> F,
) -> Result<Page<UnminedTransaction>> {
    loop {
        // More than asked for where most may be too young.
        let wanted = match older_than {
            Some(_) => limit.max(UNMINED_STEP) + 1,
            None => limit + 1,
        };
        let listed = list(after, wanted).await?;
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

/// Implements the [store's traits](crate::UtxoStore) for a [`DraftStore`](crate::draft::DraftStore). The crate needs
/// `async-trait`.
#[macro_export]
macro_rules! draft_store {
    ([$($generics:tt)*] $store:ty) => {
        const _: () = {
            use $crate::draft::DraftStore as _;
            $crate::forward_store!([$($generics)*] $store, drafts);
        };
    };
    ($store:ty) => {
        $crate::draft_store!([] $store);
    };
}
