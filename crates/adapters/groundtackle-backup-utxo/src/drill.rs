//! Where drills restore to.

use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_backup::{DrillGround, DrillLevel, Error, Goal, Proof, Result, Sink};
use groundtackle_utxo_store::{Coin, StatisticsOptions, UtxoStore, UtxoStoreExt, unfinished_copy};

use crate::digest_sink::DigestSink;
use crate::error::of_store;
use crate::sink::{StoreSink, tip_of};

/// Coins that are asked for by name.
const ASKED_COINS: usize = 100;

/// Nowhere: a [`DigestSink`], good for [`DrillLevel::Replay`].
#[derive(Clone, Copy, Debug, Default)]
pub struct DigestGround;

#[async_trait]
impl DrillGround for DigestGround {
    fn reach(&self) -> DrillLevel {
        DrillLevel::Replay
    }

    fn place(&self) -> Option<String> {
        None
    }

    async fn sink(&mut self) -> Result<Box<dyn Sink>> {
        Ok(Box::new(DigestSink::new()))
    }

    async fn prove(&mut self, _: DrillLevel, _: &Goal) -> Result<Vec<Proof>> {
        Ok(Vec::new())
    }
}

/// A scratch store, good for [`DrillLevel::Load`]: it is filled, must say that it is whole and at the block, and is asked for
/// its statistics, its digest, and some coins by name. It stays as it is afterwards: removing it is the caller's.
#[derive(Clone, Debug)]
pub struct StoreGround {
    store: Arc<dyn UtxoStore>,
    place: String,
}

impl StoreGround {
    /// An empty store, and what it is called in evidence: no secrets.
    pub fn new(store: Arc<dyn UtxoStore>, place: impl Into<String>) -> Self {
        Self {
            store,
            place: place.into(),
        }
    }

    /// Some coins of each part of the set.
    async fn some_coins(&self) -> Result<Vec<Coin>, groundtackle_utxo_store::Error> {
        let scan = self.store.scan().await?;
        let mut coins = Vec::new();
        for partition in 0..scan.partitions() {
            let left = ASKED_COINS.saturating_sub(coins.len());
            if left == 0 {
                break;
            }
            coins.extend(scan.page(partition, None, left).await?.items);
        }
        Ok(coins)
    }
}

fn wrong(what: &str, wanted: impl ToString, found: impl ToString) -> Error {
    Error::invalid_request(format!(
        "the restored store is wrong: {what} is {}, and {} was backed up",
        found.to_string(),
        wanted.to_string()
    ))
}

#[async_trait]
impl DrillGround for StoreGround {
    fn reach(&self) -> DrillLevel {
        DrillLevel::Load
    }

    fn place(&self) -> Option<String> {
        Some(self.place.clone())
    }

    async fn sink(&mut self) -> Result<Box<dyn Sink>> {
        // An unfinished restore of the same set would be gone on with, and nothing of it proven.
        let left = unfinished_copy(&*self.store).await;
        if left
            .map_err(of_store("looking for an unfinished copy"))?
            .is_some()
        {
            return Err(Error::invalid_request(
                "the scratch store holds an unfinished copy: name an empty one",
            ));
        }
        Ok(Box::new(StoreSink::new(self.store.clone())))
    }

    async fn prove(&mut self, _: DrillLevel, goal: &Goal) -> Result<Vec<Proof>> {
        let store = &*self.store;
        let options = StatisticsOptions {
            muhash: true,
            hash_serialized_3: false,
        };
        let found = store
            .statistics(options)
            .await
            .map_err(of_store("counting the set"))?;
        if found.tip != Some(tip_of(goal)) {
            let tip = |tip| format!("{tip:?}");
            return Err(wrong("its tip", tip(Some(tip_of(goal))), tip(found.tip)));
        }
        if found.txouts != goal.set.coins {
            return Err(wrong("the number of coins", goal.set.coins, found.txouts));
        }
        // Not by the scan, where the store keeps one.
        let digest = store
            .digest()
            .await
            .map_err(of_store("reading the digest"))?;
        for muhash in [found.muhash, Some(digest.muhash)] {
            if muhash != Some(goal.set.muhash.0) {
                return Err(wrong("the MuHash", "another one", "not that"));
            }
        }
        let coins = self.some_coins().await.map_err(of_store("reading coins"))?;
        let outpoints: Vec<_> = coins.iter().map(|coin| coin.outpoint).collect();
        let outputs = store
            .outputs(&outpoints)
            .await
            .map_err(of_store("asking for coins"))?;
        let right = coins.iter().zip(&outputs).filter(|(coin, output)| {
            let is = |output: &groundtackle_utxo_store::OutputView| {
                output.output == coin.output && output.height == Some(coin.height)
            };
            output.as_ref().is_ok_and(is)
        });
        let right = right.count();
        if right != coins.len() {
            return Err(wrong("coins that answer by name", coins.len(), right));
        }
        let proof = |what: &str, found: String| Proof {
            what: what.into(),
            found,
        };
        Ok(vec![
            proof("height of the tip", goal.position.height.to_string()),
            proof("coins that a scan counts", found.txouts.to_string()),
            proof(
                "total amount in satoshis",
                found.total_amount_sat.to_string(),
            ),
            proof("digests of a scan and of the store", "as backed up".into()),
            proof("coins that answer by name", right.to_string()),
        ])
    }
}
