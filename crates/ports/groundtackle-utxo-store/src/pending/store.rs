//! What the store's traits are made of.

use groundtackle_chain::{OutPoint, Txid};

use super::cells::{Body, CellKey, Cells};
use super::scan::PendingScan;
use super::view::{Mode, View};
use super::{PendingUtxoStore, codec};
use crate::digest::MuHash3072;
use crate::draft::{Call, Draft, DraftStore, Operation, Pruning, Reads, Stop, page_of_unmined};
use crate::error::Result;
use crate::store::SetScan;
use crate::types::{
    Applied, Capabilities, Fields, Health, HealthDepth, NewTransaction, OutputView, Page, Record,
    Recovered, SetDigest, SpendOptions, Tip, UnminedTransaction,
};
use crate::verdict::{Outcome, Verdict};

impl<C: Cells> PendingUtxoStore<C> {
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

impl<C: Cells> DraftStore for PendingUtxoStore<C> {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(self.backend());
        capabilities.persistent = self.cells.is_persistent();
        capabilities.incremental_digest = true;
        capabilities.max_batch_items = Some(self.config.max_batch_items);
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
        let mut reads = call.reads;
        if call.operation.only_reads() {
            return self.look(call.operation, &call.items, reads, judge).await;
        }
        if call.operation == Operation::Lock {
            // Who is about to spend its outputs comes before the lock, or after it.
            reads.inputs.clone_from(&reads.records);
            reads.outputs.clone_from(&reads.records);
        }
        self.change(call.operation.into(), &call.items, reads, judge)
            .await
    }

    async fn spend_and_create(
        &self,
        transactions: &[NewTransaction],
        options: &SpendOptions,
    ) -> Result<Vec<Outcome<Applied>>> {
        self.spend_and_create_all(transactions, options).await
    }

    async fn records(&self, txids: &[Txid], fields: Fields) -> Result<Vec<Option<Record>>> {
        let mut reads = Reads::new();
        reads.records.extend(txids);
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
        let mut reads = Reads::new();
        outpoints.iter().for_each(|outpoint| reads.slot(*outpoint));
        let seen = self.looked_at(&reads).await?;
        let view = |outpoint: &OutPoint| {
            let outpoint = *outpoint;
            let Some(head) = seen.head(outpoint.txid) else {
                return Err(Verdict::MissingTransaction { outpoint });
            };
            let Some(slot) = seen.slot(outpoint) else {
                return Err(Verdict::MissingOutput { outpoint });
            };
            Ok(OutputView::new(&head.record, slot))
        };
        Ok(outpoints.iter().map(view).collect())
    }

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

    async fn unmined(
        &self,
        older_than: Option<u32>,
        after: Option<Txid>,
        limit: usize,
    ) -> Result<Page<UnminedTransaction>> {
        let list = async |after, wanted| Ok(persist!(self, self.cells.unmined(after, wanted)));
        page_of_unmined(older_than, after, limit, list).await
    }

    async fn prune_undo(&self, horizon: u32, so_far: &mut Pruning) -> Result<bool> {
        self.prune_blocks(horizon, so_far).await
    }

    async fn prune_expired(&self, horizon: u32, so_far: &mut Pruning) -> Result<bool> {
        self.prune_lists(horizon, so_far).await
    }

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

crate::draft_store!([C: Cells] PendingUtxoStore<C>);
