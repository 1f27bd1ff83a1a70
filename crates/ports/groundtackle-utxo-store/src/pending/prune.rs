//! Removing what nothing needs any more, a bounded number of records at a time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use groundtackle_chain::Txid;

use super::cells::{Body, CellKey, Cells, DueKind};
use super::engine::{Extra, Kind};
use super::plan::apart;
use super::view::{Mode, View};
use super::{PendingUtxoStore, codec};
use crate::draft::{Operation, Pruning, Reads, ops};
use crate::error::Result;
use crate::types::Tip;

/// Records that one step looks at: other calls get their turn between steps.
const STEP: usize = 512;

fn check(horizon: u32, tip: Option<&Tip>) -> Result<()> {
    tip.map_or(Ok(()), |tip| tip.check_horizon(horizon))
}

impl<C: Cells> PendingUtxoStore<C> {
    pub(super) async fn prune_blocks(&self, horizon: u32, so_far: &mut Pruning) -> Result<bool> {
        let (tip, stamp) = self.read_chain().await?;
        check(horizon, tip.as_ref())?;
        let blocks = self.due(DueKind::Undo, horizon).await?;
        if blocks.is_empty() {
            // Of one moment with the tip: from then on no block at or below the horizon can be taken
            // back, and none is connected in its place.
            return Ok(self.read_chain().await?.1 != stamp);
        }
        for block in blocks {
            so_far.pruned.blocks += u64::from(self.prune_block(block, horizon).await?);
        }
        Ok(true)
    }

    pub(super) async fn prune_lists(&self, horizon: u32, so_far: &mut Pruning) -> Result<bool> {
        let lists = self.due(DueKind::List, horizon).await?;
        let any = !lists.is_empty();
        for list in lists {
            self.prune_list(list, horizon, so_far).await?;
        }
        Ok(any)
    }

    async fn due(&self, kind: DueKind, horizon: u32) -> Result<Vec<CellKey>> {
        Ok(persist!(self, self.cells.due(kind, horizon, STEP)))
    }

    /// One block's undo data goes; its records are listed to be looked at.
    async fn prune_block(&self, key: CellKey, horizon: u32) -> Result<bool> {
        let CellKey::Undo(block) = key else {
            return Ok(false);
        };
        // What a committed change has yet to carry out would be listed again and again.
        let mut view = View::new(Mode::Change);
        let mut reads = Reads::new();
        reads.undo.insert(block);
        self.fetch(&mut view, &reads, false).await?;
        let Some(undo) = view.undo(self.backend(), key)? else {
            return Ok(false);
        };
        let mut touched: BTreeSet<Txid> = undo.transactions.iter().map(|(txid, _)| *txid).collect();
        // Inputs never change, so that nothing is expected of these.
        for txids in undo.transactions.chunks(STEP) {
            let mut reads = Reads::new();
            txids.iter().for_each(|(txid, _)| reads.record(*txid));
            let mut view = View::new(Mode::Look);
            self.fetch(&mut view, &reads, false).await?;
            for (txid, _) in txids {
                let inputs = view
                    .head(*txid)
                    .into_iter()
                    .flat_map(|head| &head.record.inputs);
                touched.extend(inputs.map(|input| input.txid));
            }
        }
        let touched: Vec<_> = touched.into_iter().collect();
        let backend = self.backend();
        let went = AtomicBool::new(false);
        self.change_with(
            Kind {
                operation: Operation::Prune,
                chain: true,
            },
            &[block],
            reads,
            |_, _| Ok(()),
            |view| {
                let (tip, _) = view.chain(backend)?;
                check(horizon, tip.as_ref())?;
                let there = view.undo(backend, key)?.is_some();
                went.store(there, Ordering::Relaxed);
                Ok(match there {
                    true => Extra {
                        deleted: vec![key],
                        due: Some((horizon, touched.clone())),
                    },
                    false => Extra::default(),
                })
            },
        )
        .await?;
        Ok(went.into_inner())
    }

    /// Records of a list, as far as they can go; then the list.
    async fn prune_list(&self, list: CellKey, horizon: u32, so_far: &mut Pruning) -> Result<()> {
        let Some(cell) = self.read(&[list]).await?.pop().flatten() else {
            return Ok(());
        };
        let Some(Body::Bytes { bytes, .. }) = &cell.body else {
            return Ok(());
        };
        let txids = match self.stored_if_whole(bytes).await? {
            Some(bytes) => codec::unpack_txids(self.backend(), &bytes)?,
            // Another one was faster, and it is gone.
            None if self.read(&[list]).await?.pop().flatten().is_none() => return Ok(()),
            None => return Err(self.corrupt("a list of transactions", "a part of it is missing")),
        };
        for txids in txids.chunks(STEP.min(self.config.max_batch_items)) {
            let mut reads = Reads::new();
            txids.iter().for_each(|txid| reads.whole(*txid));
            let gone = self
                .change(Operation::Prune.into(), txids, reads, |draft, txid| {
                    ops::prune_confirmed(draft, *txid, horizon)
                })
                .await?;
            so_far.count(&gone);
        }
        let names = apart(&Body::Bytes {
            due: None,
            bytes: bytes.clone(),
        });
        let gone = super::Write {
            key: list,
            expect: Some(cell.stamp),
            cell: None,
        };
        if self.write_one(gone).await? {
            self.delete_parts(&names).await?;
        }
        Ok(())
    }
}
