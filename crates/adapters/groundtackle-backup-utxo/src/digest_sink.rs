//! Into nothing but a count and a digest.

use async_trait::async_trait;
use groundtackle_backup::{Direction, Error, Goal, Hex, Result, Segment, SetSummary, Sink};
use groundtackle_utxo_store::Coin;
use groundtackle_utxo_store::digest::{MuHash3072, coin_element};

use crate::blocks::stopped;
use crate::settle::Settling;

/// The set without a store: what a drill needs to know whether it comes back. Each coin is decoded, counted and digested, and
/// none is kept. Memory: what the blocks between base and goal changed, and the coins of one transaction.
///
/// Use it for one restore. One that was cut off leaves a wrong digest, which no later restore passes for its own.
#[derive(Debug)]
pub struct DigestSink {
    set: Settling,
    coins: u64,
    muhash: MuHash3072,
}

impl DigestSink {
    /// Of no coins yet.
    pub fn new() -> Self {
        Self {
            set: Settling::new(),
            coins: 0,
            muhash: MuHash3072::new(),
        }
    }

    async fn add(&mut self, coins: Vec<Coin>) -> Result<()> {
        self.coins = self.coins.saturating_add(coins.len() as u64);
        let mut muhash = std::mem::take(&mut self.muhash);
        let work = move || {
            muhash.insert_all(coins.iter().map(coin_element));
            muhash
        };
        self.muhash = tokio::task::spawn_blocking(work).await.map_err(stopped)?;
        Ok(())
    }
}

impl Default for DigestSink {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Sink for DigestSink {
    async fn begin(&mut self, _: &Goal) -> Result<()> {
        match self.coins {
            0 => Ok(()),
            _ => Err(Error::invalid_request(
                "the sink has digested another set: take a new one",
            )),
        }
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
        self.add(coins).await
    }

    async fn finish(&mut self, _: &Goal) -> Result<SetSummary> {
        loop {
            let page = self.set.rest();
            if page.is_empty() {
                break;
            }
            self.add(page).await?;
        }
        Ok(SetSummary {
            coins: self.coins,
            muhash: Hex(self.muhash.digest()),
        })
    }
}
