//! Conveniences for users of a store.

use std::num::NonZeroUsize;

use async_trait::async_trait;
use groundtackle_chain::{OutPoint, Txid};
use tokio::task::JoinSet;

use crate::digest::{HashSerialized3, MuHash3072, coin_element};
use crate::error::{Error, Result};
use crate::store::UtxoStore;
use crate::types::{Coin, Fields, OutputView, Record, Tip};
use crate::verdict::Outcome;

/// Bytes that Bitcoin Core counts for a coin beside its script: txid, index, height and flag,
/// amount, script length (`GetBogoSize` in `kernel/coinstats.cpp`).
const BOGOSIZE_FIXED: u64 = 50;

/// Coins read at a time.
const PAGE_COINS: usize = 4096;

/// Which digests to compute along with the counts. Counts cost a scan, `hash_serialized_3` a little
/// more, `muhash` about ten times as much; it uses all cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatisticsOptions {
    /// Compute the MuHash.
    pub muhash: bool,
    /// Compute the serialised hash; needs an ordered scan.
    pub hash_serialized_3: bool,
}

impl Default for StatisticsOptions {
    fn default() -> Self {
        Self {
            muhash: true,
            hash_serialized_3: true,
        }
    }
}

/// Figures of the confirmed set, as Bitcoin Core's `gettxoutsetinfo` gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetStatistics {
    /// The block the set belongs to.
    pub tip: Option<Tip>,
    /// Transactions with a coin in the set.
    pub transactions: u64,
    /// Coins.
    pub txouts: u64,
    /// Core's measure of size: 50 and the script's length for each coin.
    pub bogosize: u64,
    /// The sum of all amounts, in satoshis.
    pub total_amount_sat: u64,
    /// MuHash3072, internal order, if asked for.
    pub muhash: Option<[u8; 32]>,
    /// The serialised hash, internal order, if asked for.
    pub hash_serialized_3: Option<[u8; 32]>,
}

/// Conveniences over [`UtxoStore`]; implemented for every store.
#[async_trait]
pub trait UtxoStoreExt: UtxoStore {
    /// One whole record.
    ///
    /// # Errors
    /// As [`records`](crate::SpendStore::records); `WrongRecord` too where the store did not notice.
    async fn record(&self, txid: Txid) -> Result<Option<Record>> {
        let record = self.records(&[txid], Fields::ALL).await?.pop().flatten();
        match &record {
            Some(other) if other.txid != txid => Err(wrong_record(
                self.capabilities().backend,
                txid,
                other.txid.to_string(),
            )),
            _ => Ok(record),
        }
    }

    /// One output.
    ///
    /// # Errors
    /// As [`outputs`](crate::SpendStore::outputs); `WrongRecord` too where the store did not notice.
    async fn output(&self, outpoint: OutPoint) -> Result<Outcome<OutputView>> {
        let mut outputs = self.outputs(&[outpoint]).await?;
        let backend = self.capabilities().backend;
        match outputs.pop().ok_or_else(|| too_few(backend))? {
            Ok(other) if other.outpoint != outpoint => Err(wrong_record(
                backend,
                outpoint.txid,
                other.outpoint.to_string(),
            )),
            output => Ok(output),
        }
    }

    /// Counts the confirmed set and computes its digests by a scan.
    ///
    /// Memory: a few thousand coins for each core. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When the store could not answer; `InvalidRequest` for a serialised hash of a store whose
    /// scan has no order.
    async fn statistics(&self, options: StatisticsOptions) -> Result<SetStatistics> {
        let capabilities = self.capabilities();
        if options.hash_serialized_3 && !capabilities.ordered_scan {
            let backend = capabilities.backend;
            return Err(Error::invalid_request(format!(
                "hash_serialized_3 needs coins in order, and a scan of {backend} has none; ask for the muhash"
            )));
        }
        let scan = self.scan().await?;
        let mut statistics = SetStatistics {
            tip: scan.tip(),
            transactions: 0,
            txouts: 0,
            bogosize: 0,
            total_amount_sat: 0,
            muhash: None,
            hash_serialized_3: None,
        };
        let mut serialized = options.hash_serialized_3.then(HashSerialized3::new);
        let mut muhash = MuHashWorkers::new();
        for partition in 0..scan.partitions() {
            let mut last_txid = None;
            let mut after = None;
            loop {
                let page = scan.page(partition, after.as_ref(), PAGE_COINS).await?;
                for coin in &page.items {
                    statistics.transactions += u64::from(
                        last_txid.replace(coin.outpoint.txid) != Some(coin.outpoint.txid),
                    );
                    statistics.txouts += 1;
                    statistics.bogosize +=
                        BOGOSIZE_FIXED + coin.output.script.as_bytes().len() as u64;
                    statistics.total_amount_sat = statistics
                        .total_amount_sat
                        .saturating_add(coin.output.value_sat);
                    if let Some(serialized) = &mut serialized {
                        serialized.update(&coin_element(coin)).map_err(|error| {
                            Error::corrupt(
                                capabilities.backend,
                                "the order of a scan",
                                error.to_string(),
                            )
                        })?;
                    }
                }
                if options.muhash {
                    muhash.add(page.items).await?;
                }
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        if options.muhash {
            statistics.muhash = Some(muhash.finish().await?.digest());
        }
        statistics.hash_serialized_3 = serialized.map(HashSerialized3::finish);
        Ok(statistics)
    }
}

impl<S: UtxoStore + ?Sized> UtxoStoreExt for S {}

fn wrong_record(backend: &'static str, asked: Txid, got: String) -> Error {
    Error::WrongRecord {
        backend,
        asked,
        got,
    }
}

fn too_few(backend: &'static str) -> Error {
    Error::corrupt(
        backend,
        "an answer",
        "it has fewer items than were asked for",
    )
}

/// Multiplies pages of coins into MuHashes on all cores, a bounded number at a time.
pub(crate) struct MuHashWorkers {
    total: MuHash3072,
    limit: usize,
    tasks: JoinSet<MuHash3072>,
}

impl MuHashWorkers {
    pub(crate) fn new() -> Self {
        let limit = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            total: MuHash3072::new(),
            limit,
            tasks: JoinSet::new(),
        }
    }

    pub(crate) async fn add(&mut self, coins: Vec<Coin>) -> Result<()> {
        while self.tasks.len() >= self.limit {
            self.join().await?;
        }
        self.tasks.spawn_blocking(move || {
            let mut part = MuHash3072::new();
            coins
                .iter()
                .for_each(|coin| part.insert(&coin_element(coin)));
            part
        });
        Ok(())
    }

    async fn join(&mut self) -> Result<()> {
        if let Some(part) = self.tasks.join_next().await {
            let part = part.map_err(|error| {
                Error::backend(
                    "statistics",
                    "multiply coins",
                    crate::Retryability::Permanent,
                    error,
                )
            })?;
            self.total.combine(&part);
        }
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<MuHash3072> {
        while !self.tasks.is_empty() {
            self.join().await?;
        }
        Ok(self.total)
    }
}
