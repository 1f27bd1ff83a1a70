//! Into a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_backup::{
    Direction, Error, Goal, Hex, Result, Retryability, Segment, SetSummary, Sink,
};
use groundtackle_utxo_store::{BlockHash, Coin, OutPoint, SetWriter, Tip, Txid, UtxoStore};

use crate::codec::decode_coins;
use crate::delta::{DeltaPart, Joiner, Overlay, decode_parts};
use crate::error::{of_codec, of_store};
use crate::source::COINS;

/// What [`SegmentInfo::codec`](groundtackle_backup::SegmentInfo::codec) says of what blocks changed.
pub const DELTAS: &str = "deltas.1";

/// Coins of transactions that no base segment has, written at a time.
const PAGE_COINS: usize = 4_096;

/// An empty store, or one that an earlier restore of the same set left unfinished. It is marked as unfinished until a
/// scan of it has found the count and the digest of the goal. Memory: what the blocks between base and goal changed, and
/// the coins of one transaction.
#[derive(Debug)]
pub struct StoreSink {
    store: Arc<dyn UtxoStore>,
    writer: Option<SetWriter>,
    overlay: Overlay,
    /// Parts of a block, the rest of which is to come.
    parts: Vec<DeltaPart>,
    /// The last transaction of the base that came: the next segment may go on with it.
    rest: Vec<Coin>,
}

impl StoreSink {
    /// Into this store.
    pub fn new(store: Arc<dyn UtxoStore>) -> Self {
        Self {
            store,
            writer: None,
            overlay: Overlay::of_scan(),
            parts: Vec::new(),
            rest: Vec::new(),
        }
    }

    async fn write(&self, coins: &[Coin]) -> Result<()> {
        let writer = self.writer.as_ref().ok_or_else(out_of_order)?;
        let written = writer.write(&*self.store, coins).await;
        written.map_err(of_store("writing coins")).map(drop)
    }

    /// One transaction of the base, as the blocks left it.
    fn settle(&mut self, coins: Vec<Coin>, settled: &mut Vec<Coin>) {
        let Some(txid) = coins.first().map(|coin| coin.outpoint.txid) else {
            return;
        };
        let mut outputs: BTreeMap<_, _> = coins
            .into_iter()
            .filter(|coin| !self.overlay.removed().contains_key(&coin.outpoint))
            .map(|coin| (coin.outpoint, coin))
            .collect();
        for coin in self.overlay.take_added(txid) {
            outputs.insert(coin.outpoint, coin);
        }
        settled.extend(outputs.into_values());
    }
}

fn out_of_order() -> Error {
    Error::invalid_request("the sink was not begun")
}

fn contradicts(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::backend(
        "the UTXO store",
        "replaying blocks",
        Retryability::Permanent,
        error,
    )
}

/// A segment of another kind than is due.
fn wrong_codec(segment: &Segment) -> Error {
    Error::invalid_request(format!(
        "the segment is of {}, which a UTXO store does not take here",
        segment.info.codec
    ))
}

#[async_trait]
impl Sink for StoreSink {
    async fn begin(&mut self, goal: &Goal) -> Result<()> {
        let tip = Tip {
            height: goal.position.height,
            hash: BlockHash::from_bytes(goal.position.hash.0),
            median_time_past: goal.position.median_time_past,
        };
        let writer = SetWriter::begin(&*self.store, tip).await;
        self.writer = Some(writer.map_err(of_store("beginning to fill the store"))?);
        Ok(())
    }

    async fn changes(
        &mut self,
        segment: Segment,
        direction: Direction,
        heights: (u32, u32),
    ) -> Result<()> {
        if segment.info.codec != DELTAS {
            return Err(wrong_codec(&segment));
        }
        let mut parts = decode_parts(&segment.bytes).map_err(of_codec)?;
        parts.retain(|part| (heights.0..=heights.1).contains(&part.delta.tip.height));
        if direction == Direction::Backwards {
            parts.reverse();
        }
        for part in parts {
            let whole = match direction {
                Direction::Forwards => part.last,
                Direction::Backwards => part.number == 0,
            };
            self.parts.push(part);
            if !whole {
                continue;
            }
            let mut parts = std::mem::take(&mut self.parts);
            if direction == Direction::Backwards {
                parts.reverse();
            }
            let mut joiner = Joiner::default();
            let mut delta = None;
            for part in parts {
                delta = joiner.push(part).map_err(of_codec)?;
            }
            joiner.finish().map_err(of_codec)?;
            if let Some(delta) = delta {
                let applied = match direction {
                    Direction::Forwards => self.overlay.forwards(&delta),
                    Direction::Backwards => self.overlay.backwards(&delta),
                };
                applied.map_err(contradicts)?;
            }
        }
        Ok(())
    }

    async fn base(&mut self, segment: Segment) -> Result<()> {
        if segment.info.codec != COINS {
            return Err(wrong_codec(&segment));
        }
        let mut coins = std::mem::take(&mut self.rest);
        coins.extend(decode_coins(&segment.bytes).map_err(of_codec)?);
        let last = coins.last().map(|coin| coin.outpoint.txid);
        let whole = coins
            .iter()
            .rposition(|coin| Some(coin.outpoint.txid) != last)
            .map_or(0, |at| at.saturating_add(1));
        self.rest = coins.split_off(whole);
        let mut settled = Vec::with_capacity(coins.len());
        let mut group: Vec<Coin> = Vec::new();
        for coin in coins {
            if group
                .first()
                .is_some_and(|first| first.outpoint.txid != coin.outpoint.txid)
            {
                self.settle(std::mem::take(&mut group), &mut settled);
            }
            group.push(coin);
        }
        self.settle(group, &mut settled);
        self.write(&settled).await
    }

    async fn finish(&mut self, goal: &Goal) -> Result<SetSummary> {
        let mut settled = Vec::new();
        let rest = std::mem::take(&mut self.rest);
        self.settle(rest, &mut settled);
        self.write(&settled).await?;
        // Ascending, so that a transaction's coins are together.
        loop {
            let mut page = Vec::new();
            while page.len() < PAGE_COINS {
                let Some(txid) = self.overlay.first_added() else {
                    break;
                };
                page.extend(self.overlay.take_added(txid));
            }
            if page.is_empty() {
                break;
            }
            self.write(&page).await?;
        }
        let writer = self.writer.as_ref().ok_or_else(out_of_order)?;
        let written = writer
            .finish(&*self.store, goal.set.coins, &goal.set.muhash.0)
            .await
            .map_err(of_store("comparing what was written"))?;
        Ok(SetSummary {
            coins: written.txouts,
            muhash: Hex(written.muhash.unwrap_or_default()),
        })
    }
}

impl Overlay {
    /// Takes out what a transaction has gained.
    fn take_added(&mut self, txid: Txid) -> Vec<Coin> {
        let (first, last) = (OutPoint::new(txid, 0), OutPoint::new(txid, u32::MAX));
        let outpoints: Vec<_> = self
            .added()
            .range(first..=last)
            .map(|(outpoint, _)| *outpoint)
            .collect();
        outpoints
            .iter()
            .filter_map(|outpoint| self.added_mut().remove(outpoint))
            .collect()
    }

    fn first_added(&self) -> Option<Txid> {
        self.added().keys().next().map(|outpoint| outpoint.txid)
    }
}
