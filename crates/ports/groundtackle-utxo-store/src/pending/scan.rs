//! Walking the confirmed set.

use async_trait::async_trait;
use groundtackle_chain::{OutPoint, Txid};

use super::cells::Cells;
use super::view::{Mode, View};
use super::{OUTPUTS_PER_PAGE, PendingUtxoStore, page_of};
use crate::draft::Reads;
use crate::error::{Error, Result};
use crate::store::SetScan;
use crate::types::{Coin, Cursor, Page, RecordOutput, Tip};

/// Records, and pages of a wide one, that are read at once.
const STEP: usize = 512;
const PAGES: usize = 32;

#[derive(Debug)]
pub(super) struct PendingScan<C> {
    pub(super) store: PendingUtxoStore<C>,
    pub(super) tip: Option<Tip>,
}

impl<C: Cells> PendingScan<C> {
    /// The coins of records after an outpoint, in order, until there are more than `most`.
    async fn coins(
        &self,
        txids: &[Txid],
        after: Option<OutPoint>,
        most: usize,
        coins: &mut Vec<Coin>,
    ) -> Result<()> {
        let store = &self.store;
        let mut reads = Reads::new();
        txids.iter().for_each(|txid| reads.record(*txid));
        let mut view = View::new(Mode::Look);
        store.fetch(&mut view, &reads, false).await?;
        let narrow = |txid: &&Txid| view.head(**txid).is_some_and(|head| head.pages.is_empty());
        let narrow: Vec<Txid> = txids.iter().filter(narrow).copied().collect();
        reads.outputs.extend(narrow);
        store.fetch(&mut view, &reads, false).await?;
        for txid in txids {
            let after = after.filter(|after| after.txid == *txid);
            let Some(head) = view.head(*txid) else {
                continue;
            };
            if head.pages.is_empty() {
                let outputs = view.outputs(*txid);
                self.add(&view, *txid, after, outputs, coins);
                continue;
            }
            let first = after.map_or(0, |after| page_of(after.vout));
            let pages: Vec<u32> = std::iter::once(0)
                .chain(head.pages.iter().copied())
                .filter(|page| *page >= first)
                .collect();
            for pages in pages.chunks(PAGES) {
                if coins.len() > most {
                    break;
                }
                let mut reads = Reads::new();
                for page in pages {
                    let first = page.saturating_mul(OUTPUTS_PER_PAGE);
                    let vouts = first..=first.saturating_add(OUTPUTS_PER_PAGE - 1);
                    vouts.for_each(|vout| reads.slot(OutPoint::new(*txid, vout)));
                }
                let mut view = View::new(Mode::Look);
                store.fetch(&mut view, &reads, false).await?;
                let outputs = reads.slots.iter().filter_map(|slot| view.slot(*slot));
                self.add(&view, *txid, after, outputs.collect(), coins);
            }
        }
        Ok(())
    }

    fn add(
        &self,
        view: &View,
        txid: Txid,
        after: Option<OutPoint>,
        outputs: Vec<RecordOutput>,
        coins: &mut Vec<Coin>,
    ) {
        let Some(head) = view.head(txid) else {
            return;
        };
        let Some(height) = head.record.confirmed_height() else {
            return;
        };
        for output in outputs {
            // One without a record has been pruned, so it was confirmed.
            let spent = output
                .spent_by
                .is_some_and(|by| view.is_confirmed(by.txid) != Some(false));
            if !spent && after.is_none_or(|after| output.vout > after.vout) {
                coins.push(Coin {
                    outpoint: OutPoint::new(txid, output.vout),
                    output: output.output,
                    height,
                    coinbase: head.record.coinbase,
                });
            }
        }
    }
}

#[async_trait]
impl<C: Cells> SetScan for PendingScan<C> {
    fn tip(&self) -> Option<Tip> {
        self.tip
    }

    fn partitions(&self) -> u32 {
        self.store.cells.partitions()
    }

    async fn page(
        &self,
        partition: u32,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Coin>> {
        let after = after.map(Cursor::outpoint).transpose()?;
        let cells = &self.store.cells;
        let foreign = |after: OutPoint| cells.partition_of(&after.txid) != partition;
        if partition >= cells.partitions() || after.is_some_and(foreign) {
            return Err(Error::invalid_request(format!(
                "no such place in partition {partition} of {}",
                cells.partitions()
            )));
        }
        let limit = limit.clamp(1, self.store.config.max_batch_items);
        let mut items = Vec::new();
        if let Some(after) = after {
            self.coins(&[after.txid], Some(after), limit, &mut items)
                .await?;
        }
        let mut last = after.map(|after| after.txid);
        let step = STEP.min(limit + 1);
        while items.len() <= limit {
            let txids = persist!(self.store, cells.scan(partition, last, step));
            self.coins(&txids, None, limit, &mut items).await?;
            if txids.len() < step {
                break;
            }
            last = txids.last().copied();
        }
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more);
        let next = next.map(|last: &Coin| Cursor::from(last.outpoint));
        Ok(Page { items, next })
    }
}
