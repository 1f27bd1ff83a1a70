//! Into a store.

use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_backup::{Direction, Error, Goal, Hex, Result, Segment, SetSummary, Sink};
use groundtackle_utxo_store::{BlockHash, Coin, SetWriter, Tip, UtxoStore};

use crate::error::of_store;
use crate::settle::Settling;

/// An empty store, or one that an earlier restore of the same set left unfinished. It is marked as unfinished until a
/// scan of it has found the count and the digest of the goal. Memory: what the blocks between base and goal changed, and
/// the coins of one transaction.
#[derive(Debug)]
pub struct StoreSink {
    store: Arc<dyn UtxoStore>,
    writer: Option<SetWriter>,
    set: Settling,
}

impl StoreSink {
    /// Into this store.
    pub fn new(store: Arc<dyn UtxoStore>) -> Self {
        Self {
            store,
            writer: None,
            set: Settling::new(),
        }
    }

    async fn write(&self, coins: &[Coin]) -> Result<()> {
        let writer = self.writer.as_ref().ok_or_else(out_of_order)?;
        let written = writer.write(&*self.store, coins).await;
        written.map_err(of_store("writing coins")).map(drop)
    }
}

fn out_of_order() -> Error {
    Error::invalid_request("the sink was not begun")
}

pub(crate) fn tip_of(goal: &Goal) -> Tip {
    Tip {
        height: goal.position.height,
        hash: BlockHash::from_bytes(goal.position.hash.0),
        median_time_past: goal.position.median_time_past,
    }
}

#[async_trait]
impl Sink for StoreSink {
    async fn begin(&mut self, goal: &Goal) -> Result<()> {
        let writer = SetWriter::begin(&*self.store, tip_of(goal)).await;
        self.writer = Some(writer.map_err(of_store("beginning to fill the store"))?);
        Ok(())
    }

    async fn changes(
        &mut self,
        segment: Segment,
        direction: Direction,
        heights: (u32, u32),
    ) -> Result<()> {
        self.set.changes(&segment, direction, heights)
    }

    async fn base(&mut self, segment: Segment) -> Result<()> {
        let coins = self.set.base(&segment)?;
        self.write(&coins).await
    }

    async fn finish(&mut self, goal: &Goal) -> Result<SetSummary> {
        loop {
            let page = self.set.rest();
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
