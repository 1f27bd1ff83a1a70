//! Into nothing but a count and a digest.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use async_trait::async_trait;
use groundtackle_backup::{Direction, Error, Goal, Hex, Result, Segment, SetSummary, Sink};
use groundtackle_utxo_store::Coin;
use groundtackle_utxo_store::digest::{MuHash3072, coin_element};
use tokio::task::JoinHandle;

use crate::blocks::stopped;
use crate::settle::Settling;

/// The set without a store: what a drill needs to know whether it comes back. Each coin is decoded, counted and digested, and
/// none is kept. All cores digest, a segment each. Memory: what the blocks between base and goal changed, and the coins of as
/// many segments as there are cores.
///
/// Use it for one restore. One that was cut off leaves a wrong digest, which no later restore passes for its own.
#[derive(Debug)]
pub struct DigestSink {
    set: Settling,
    coins: u64,
    muhash: MuHash3072,
    under_way: VecDeque<JoinHandle<MuHash3072>>,
    threads: usize,
}

impl DigestSink {
    /// Of no coins yet.
    pub fn new() -> Self {
        Self {
            set: Settling::new(),
            coins: 0,
            muhash: MuHash3072::new(),
            under_way: VecDeque::new(),
            threads: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        }
    }

    async fn add(&mut self, coins: Vec<Coin>) -> Result<()> {
        self.coins = self.coins.saturating_add(coins.len() as u64);
        self.wait_for_all_but(self.threads.saturating_sub(1))
            .await?;
        self.under_way
            .push_back(tokio::task::spawn_blocking(move || {
                let mut muhash = MuHash3072::new();
                muhash.insert_all(coins.iter().map(coin_element));
                muhash
            }));
        Ok(())
    }

    async fn wait_for_all_but(&mut self, count: usize) -> Result<()> {
        while self.under_way.len() > count
            && let Some(first) = self.under_way.pop_front()
        {
            self.muhash.combine(&first.await.map_err(stopped)?);
        }
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
        self.wait_for_all_but(0).await?;
        Ok(SetSummary {
            coins: self.coins,
            muhash: Hex(self.muhash.digest()),
        })
    }
}
