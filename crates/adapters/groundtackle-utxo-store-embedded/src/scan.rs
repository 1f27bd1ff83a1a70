use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use fjall::Snapshot;
use groundtackle_utxo_store::{Coin, Cursor, Error, OutPoint, Page, Result, SetScan, Tip, Txid};

use crate::engine::Engine;
use crate::error::corrupt;
use crate::record::{Origin, RECORD_KIND, chunk_of, record_key, skim, split_record_key};
use crate::store::blocking;

/// Partitions, by the first byte of the transaction identifier.
const PARTITIONS: u32 = 16;
const BYTES_EACH: u32 = 256 / PARTITIONS;

/// A walk over the confirmed set as it was at one moment.
pub(crate) struct EmbeddedScan {
    engine: Arc<Engine>,
    snapshot: Snapshot,
    tip: Option<Tip>,
    /// What these spend is still in the set.
    unmined: HashSet<Txid>,
}

impl std::fmt::Debug for EmbeddedScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedScan")
            .field("tip", &self.tip)
            .finish_non_exhaustive()
    }
}

impl EmbeddedScan {
    pub(crate) const fn new(
        engine: Arc<Engine>,
        snapshot: Snapshot,
        tip: Option<Tip>,
        unmined: HashSet<Txid>,
    ) -> Self {
        Self {
            engine,
            snapshot,
            tip,
            unmined,
        }
    }

    /// Walks all coins in order.
    pub(crate) fn each_coin(&self, mut act: impl FnMut(Coin)) -> Result<()> {
        for partition in 0..PARTITIONS {
            self.walk(partition, None, |coin| {
                act(coin);
                true
            })?;
        }
        Ok(())
    }

    /// Walks the coins of a partition after `after`, until `act` has enough.
    fn walk(
        &self,
        partition: u32,
        after: Option<OutPoint>,
        mut act: impl FnMut(Coin) -> bool,
    ) -> Result<()> {
        let start = match after {
            Some(after) => record_key(&after.txid, chunk_of(after.vout)).to_vec(),
            None => first_key(partition),
        };
        let end = first_key(partition + 1);
        let mut origin: Option<Origin> = None;
        for entry in self.engine.range(&self.snapshot, &start, &end) {
            let (key, value) = entry?;
            let (txid, Some(chunk)) = split_record_key(&key)? else {
                continue;
            };
            let value = self.engine.whole(&self.snapshot, &key, value)?;
            let known = match origin.filter(|known| known.txid == txid) {
                // The scan resumes in the middle of a record.
                None if chunk > 0 => Some(self.origin(txid)?),
                known => known,
            };
            let (this, more) = skim(txid, chunk, value.bytes(), known, |this, slot| {
                let outpoint = OutPoint::new(txid, slot.vout);
                let spent = slot
                    .spent_by
                    .is_some_and(|by| !self.unmined.contains(&by.txid));
                let Some(height) = this.height.filter(|_| !spent) else {
                    return Ok(true);
                };
                if after.is_some_and(|after| outpoint <= after) {
                    return Ok(true);
                }
                Ok(act(Coin {
                    outpoint,
                    output: slot.output()?,
                    height,
                    coinbase: this.coinbase,
                }))
            })?;
            if !more {
                return Ok(());
            }
            origin = Some(this);
        }
        Ok(())
    }

    fn origin(&self, txid: Txid) -> Result<Origin> {
        let value = self
            .engine
            .get(&self.snapshot, &record_key(&txid, 0))?
            .ok_or_else(|| corrupt(format!("the record of {txid}"), "its head is missing"))?;
        Ok(skim(txid, 0, value.bytes(), None, |_, _| Ok(false))?.0)
    }
}

/// The least key of a partition, or of what follows the last.
fn first_key(partition: u32) -> Vec<u8> {
    match u8::try_from(partition * BYTES_EACH) {
        Ok(byte) => vec![RECORD_KIND, byte],
        Err(_) => vec![RECORD_KIND + 1],
    }
}

fn partition_of(outpoint: &OutPoint) -> u32 {
    outpoint
        .txid
        .as_bytes()
        .first()
        .map_or(0, |byte| u32::from(*byte) / BYTES_EACH)
}

#[async_trait]
impl SetScan for EmbeddedScan {
    fn tip(&self) -> Option<Tip> {
        self.tip
    }

    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    async fn page(
        &self,
        partition: u32,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Coin>> {
        let after = after.map(Cursor::outpoint).transpose()?;
        if partition >= PARTITIONS || after.is_some_and(|after| partition_of(&after) != partition) {
            return Err(Error::invalid_request(format!(
                "no such place in partition {partition} of {PARTITIONS}"
            )));
        }
        blocking(|| {
            let mut items: Vec<Coin> = Vec::with_capacity(limit.clamp(1, 4096));
            let mut more = false;
            self.walk(partition, after, |coin| {
                more = items.len() >= limit.max(1);
                if !more {
                    items.push(coin);
                }
                !more
            })?;
            let next = if more {
                items.last().map(|last| Cursor::from(last.outpoint))
            } else {
                None
            };
            Ok(Page { items, next })
        })
    }
}
