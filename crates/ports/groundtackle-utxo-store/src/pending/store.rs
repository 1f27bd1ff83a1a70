//! The traits.

use async_trait::async_trait;
use groundtackle_chain::{BlockHash, ChainBlock, OutPoint, Txid};

use super::cells::{Body, CellKey, Cells};
use super::engine::Kind;
use super::scan::PendingScan;
use super::view::{Mode, View};
use super::{PendingUtxoStore, codec};
use crate::digest::MuHash3072;
use crate::draft::{Reads, ops};
use crate::error::Result;
use crate::store::{
    AlertStore, BlockStore, ConflictStore, MaintenanceStore, RetentionStore, ScanStore, SetScan,
    SpendStore,
};
use crate::types::{
    Applied, Capabilities, Connected, Cursor, Disconnected, Fields, Health, HealthDepth,
    LongestChain, MinedIn, NewRecord, NewTransaction, OutputView, Page, Pruned, Reassignment,
    Record, Recovered, SetDigest, SpendOptions, Tip, UnminedTransaction,
};
use crate::verdict::{Outcome, Verdict};

/// Unmined transactions that are read at once where only some are wanted.
const UNMINED_STEP: usize = 4_096;

impl Kind {
    const fn new(action: &'static str) -> Self {
        Self {
            action,
            chain: false,
        }
    }

    const fn chain(action: &'static str) -> Self {
        Self {
            action,
            chain: true,
        }
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

impl<C: Cells> PendingUtxoStore<C> {
    fn one<T>(&self, outcomes: Vec<Outcome<T>>) -> Result<Outcome<T>> {
        let first = outcomes.into_iter().next();
        first.ok_or_else(|| self.corrupt("an answer", "it has no item"))
    }

    async fn read_set(&self) -> Result<(Option<Tip>, MuHash3072, Option<u64>)> {
        let cell = self
            .read_as_committed(&[CellKey::Chain])
            .await?
            .pop()
            .flatten();
        let stamp = cell.as_ref().map(|cell| cell.stamp);
        match cell.and_then(|cell| cell.body) {
            Some(Body::Bytes { bytes, .. }) => {
                let bytes = self.stored(&bytes).await?;
                let (tip, muhash) = codec::unpack_chain(self.backend(), &bytes)?;
                Ok((tip, muhash, stamp))
            }
            _ => Ok((None, MuHash3072::new(), stamp)),
        }
    }

    /// The tip, and the stamp of its cell.
    pub(super) async fn read_chain(&self) -> Result<(Option<Tip>, Option<u64>)> {
        let (tip, _, stamp) = self.read_set().await?;
        Ok((tip, stamp))
    }

    async fn looked_at(&self, reads: &Reads) -> Result<View> {
        let mut view = View::new(Mode::Look);
        self.fetch(&mut view, reads, false).await?;
        Ok(view)
    }
}

#[async_trait]
impl<C: Cells> SpendStore for PendingUtxoStore<C> {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(self.backend());
        capabilities.persistent = self.cells.is_persistent();
        capabilities.incremental_digest = true;
        capabilities.max_batch_items = Some(self.config.max_batch_items);
        capabilities
    }

    async fn spend_and_create(
        &self,
        transactions: &[NewTransaction],
        options: &SpendOptions,
    ) -> Result<Vec<Outcome<Applied>>> {
        self.spend_and_create_all(transactions, options).await
    }

    async fn create(&self, records: &[NewRecord]) -> Result<Vec<Outcome<Applied>>> {
        let mut reads = Reads::new();
        for record in records {
            reads.record(record.txid());
            if let NewRecord::Conflicting { tx, .. } = record {
                reads.of_inputs(tx.txid, &tx.inputs);
            }
        }
        let kind = Kind::chain("create");
        self.call(kind, records, reads, ops::create).await
    }

    async fn spend(&self, txids: &[Txid], options: &SpendOptions) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("spend");
        self.call(kind, txids, of_spenders(txids), |draft, txid| {
            ops::spend(draft, *txid, options)
        })
        .await
    }

    async fn unspend(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("unspend");
        self.call(kind, txids, of_spenders(txids), |draft, txid| {
            ops::unspend(draft, *txid)
        })
        .await
    }

    async fn remove(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("remove");
        self.call(kind, txids, of_whole(txids), |draft, txid| {
            ops::remove(draft, *txid)
        })
        .await
    }

    async fn records(&self, txids: &[Txid], fields: Fields) -> Result<Vec<Option<Record>>> {
        self.check_items(txids.len())?;
        let mut reads = of_txids(txids);
        if fields.outputs {
            reads.outputs.clone_from(&reads.records);
        }
        let view = self.looked_at(&reads).await?;
        let record = |txid: &Txid| {
            let mut record = view.head(*txid)?.record.clone();
            if !fields.inputs {
                record.inputs.clear();
            }
            if fields.outputs {
                record.outputs = view.outputs(*txid);
            }
            Some(record)
        };
        Ok(txids.iter().map(record).collect())
    }

    async fn outputs(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<OutputView>>> {
        self.check_items(outpoints.len())?;
        let reads = of_slots(outpoints.iter().copied());
        let seen = self.looked_at(&reads).await?;
        let view = |outpoint: &OutPoint| {
            let outpoint = *outpoint;
            let Some(head) = seen.head(outpoint.txid) else {
                return Err(Verdict::MissingTransaction { outpoint });
            };
            let Some(slot) = seen.slot(outpoint) else {
                return Err(Verdict::MissingOutput { outpoint });
            };
            Ok(OutputView {
                outpoint,
                state: slot.state(),
                output: slot.output,
                height: head.record.confirmed_height(),
                coinbase: head.record.coinbase,
                locked: head.record.locked,
                conflicting: head.record.conflicting,
            })
        };
        Ok(outpoints.iter().map(view).collect())
    }
}

#[async_trait]
impl<C: Cells> BlockStore for PendingUtxoStore<C> {
    async fn tip(&self) -> Result<Option<Tip>> {
        Ok(self.read_chain().await?.0)
    }

    async fn previous_tip(&self) -> Result<Option<Tip>> {
        // The tip may move between the two: then it is asked for again.
        loop {
            let (tip, stamp) = self.read_chain().await?;
            let Some(tip) = tip else {
                return Ok(None);
            };
            let mut reads = Reads::new();
            reads.undo.insert(tip.hash);
            let view = self.looked_at(&reads).await?;
            let undo = view.undo(self.backend(), CellKey::Undo(tip.hash))?;
            if self.read_chain().await?.1 == stamp {
                return Ok(undo.and_then(|undo| undo.previous));
            }
        }
    }

    async fn set_tip(&self, tip: &Tip) -> Result<()> {
        let kind = Kind::chain("set the tip");
        self.call(kind, &[*tip], Reads::new(), |draft, tip| {
            ops::set_tip(draft, *tip);
            Ok(())
        })
        .await
        .map(drop)
    }

    async fn set_mined(&self, txids: &[Txid], mined: &MinedIn) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::chain("set mined");
        self.call(kind, txids, of_whole(txids), |draft, txid| {
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
        let kind = Kind::chain("unset mined");
        self.call(kind, txids, of_whole(txids), |draft, txid| {
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
        let kind = Kind::chain("set the longest chain");
        self.call(kind, txids, of_whole(txids), |draft, txid| {
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
        let kind = Kind::chain("connect a block");
        let blocks = [block];
        let outcomes = self
            .call(kind, &blocks, reads, |draft, block| {
                ops::connect_block(draft, block)
            })
            .await?;
        self.one(outcomes)
    }

    async fn disconnect_block(
        &self,
        block: &BlockHash,
        previous: &BlockHash,
    ) -> Result<Outcome<Disconnected>> {
        let mut reads = Reads::new();
        reads.undo.insert(*block);
        let kind = Kind::chain("disconnect a block");
        let outcomes = self
            .call(kind, &[*block], reads, |draft, block| {
                ops::disconnect_block(draft, block, previous)
            })
            .await?;
        self.one(outcomes)
    }
}

#[async_trait]
impl<C: Cells> AlertStore for PendingUtxoStore<C> {
    async fn freeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("freeze");
        let reads = of_slots(outpoints.iter().copied());
        self.call(kind, outpoints, reads, |draft, outpoint| {
            ops::freeze(draft, *outpoint)
        })
        .await
    }

    async fn unfreeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("unfreeze");
        let reads = of_slots(outpoints.iter().copied());
        self.call(kind, outpoints, reads, |draft, outpoint| {
            ops::unfreeze(draft, *outpoint)
        })
        .await
    }

    async fn reassign(&self, reassignments: &[Reassignment]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::chain("reassign");
        let reads = of_slots(
            reassignments
                .iter()
                .map(|reassignment| reassignment.outpoint),
        );
        self.call(kind, reassignments, reads, ops::reassign).await
    }
}

#[async_trait]
impl<C: Cells> ConflictStore for PendingUtxoStore<C> {
    async fn set_locked(&self, txids: &[Txid], locked: bool) -> Result<Vec<Outcome<Applied>>> {
        // Who is about to spend its outputs comes before the lock, or after it.
        let reads = if locked {
            of_whole(txids)
        } else {
            of_txids(txids)
        };
        let kind = Kind::new("set locked");
        self.call(kind, txids, reads, |draft, txid| {
            ops::set_locked(draft, *txid, locked)
        })
        .await
    }

    async fn mark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        let kind = Kind::new("mark conflicting");
        self.call(kind, txids, of_whole(txids), |draft, txid| {
            ops::mark_conflicting(draft, *txid)
        })
        .await
    }

    async fn unmark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        let kind = Kind::new("unmark conflicting");
        self.call(kind, txids, of_spenders(txids), |draft, txid| {
            ops::unmark_conflicting(draft, *txid)
        })
        .await
    }

    async fn counter_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        self.look(txids, of_spenders(txids), |draft, txid| {
            ops::counter_conflicting(draft, *txid)
        })
        .await
    }

    async fn conflicting_children(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        self.look(txids, of_txids(txids), |draft, txid| {
            ops::conflicting_children(draft, *txid)
        })
        .await
    }
}

#[async_trait]
impl<C: Cells> RetentionStore for PendingUtxoStore<C> {
    async fn unmined(
        &self,
        older_than: Option<u32>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<UnminedTransaction>> {
        let mut after = after.map(Cursor::txid).transpose()?;
        let limit = limit.clamp(1, self.config.max_batch_items);
        loop {
            // More than asked for where most may be too young.
            let wanted = match older_than {
                Some(_) => limit.max(UNMINED_STEP) + 1,
                None => limit + 1,
            };
            let listed = persist!(self, self.cells.unmined(after, wanted));
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
        self.call(kind, txids, of_txids(txids), |draft, txid| {
            ops::preserve(draft, *txid, until_height)
        })
        .await
    }

    async fn prune(&self, horizon: u32) -> Result<Pruned> {
        self.prune_all(horizon).await
    }
}

#[async_trait]
impl<C: Cells> ScanStore for PendingUtxoStore<C> {
    async fn scan(&self) -> Result<Box<dyn SetScan>> {
        let tip = self.read_chain().await?.0;
        let store = self.clone();
        Ok(Box::new(PendingScan { store, tip }))
    }

    async fn digest(&self) -> Result<SetDigest> {
        let (tip, muhash, _) = self.read_set().await?;
        Ok(SetDigest {
            tip,
            muhash: muhash.digest(),
        })
    }
}

#[async_trait]
impl<C: Cells> MaintenanceStore for PendingUtxoStore<C> {
    async fn recover(&self) -> Result<Recovered> {
        self.recover_all().await
    }

    async fn flush(&self) -> Result<()> {
        self.cells.flush().await
    }

    async fn health(&self, depth: HealthDepth) -> Result<Health> {
        self.cells.health(depth).await
    }
}
