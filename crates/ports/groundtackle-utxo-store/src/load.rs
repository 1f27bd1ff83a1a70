//! What copies and imports share: reading a set by whole transactions, and filling an empty store with
//! one that shows only once it is whole.

use groundtackle_chain::{BlockHash, OutPoint, Transaction, Txid};
use groundtackle_core::Retryability;

use crate::error::{Error, Result};
use crate::ext::{SetStatistics, StatisticsOptions, UtxoStoreExt};
use crate::store::{SetScan, UtxoStore};
use crate::types::{Coin, Cursor, Fields, NewRecord, Tip};
use crate::verdict::Outcome;

/// Coins read at a time.
pub(crate) const PAGE_COINS: usize = 4_096;

/// Scans begun until one fits the digest.
const MAX_SCANS: u32 = 16;

/// Names the record that says "unfinished". Nothing hashes to it.
const MARK: Txid = Txid::from_bytes(*b"groundtackle: unfinished copy   ");

/// What fills a store. Only a copy carries alerts, so none finishes what another one began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filling {
    Copy,
    Import,
    Restore,
}

impl Filling {
    /// In the mark.
    const fn lock_time(self) -> u32 {
        match self {
            Self::Copy => 0,
            Self::Import => 1,
            Self::Restore => 2,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Import => "import",
            Self::Restore => "restore",
        }
    }
}

/// The coins of a scan, page by page, each transaction whole.
#[derive(Debug, Default)]
pub(crate) struct WholeTransactions {
    partition: u32,
    after: Option<Cursor>,
    /// The last transaction read: the next page may go on with it.
    rest: Vec<Coin>,
}

impl WholeTransactions {
    /// The next coins of the scan, the same each time; maybe none. `None` at the end.
    pub(crate) async fn next(&mut self, scan: &dyn SetScan) -> Result<Option<Vec<Coin>>> {
        if self.partition >= scan.partitions() {
            return Ok(None);
        }
        let page = scan
            .page(self.partition, self.after.as_ref(), PAGE_COINS)
            .await?;
        self.rest.extend(page.items);
        let whole = match (&page.next, self.rest.last()) {
            (Some(_), Some(last)) => {
                let txid = last.outpoint.txid;
                self.rest.partition_point(|coin| coin.outpoint.txid != txid)
            }
            _ => self.rest.len(),
        };
        if page.next.is_none() {
            self.partition += 1;
        }
        self.after = page.next;
        let later = self.rest.split_off(whole);
        Ok(Some(std::mem::replace(&mut self.rest, later)))
    }
}

/// The tip of the set of which an unfinished copy, import or restore is in `store`: it must not be used as if it were
/// whole. [`copy_set`](crate::copy_set) from a store at that tip finishes a copy, and
/// [`import_snapshot`](crate::snapshot::import_snapshot) of that set an import, and a [`SetWriter`] a restore.
///
/// # Errors
/// When the store could not answer.
pub async fn unfinished_copy(store: &dyn UtxoStore) -> Result<Option<(BlockHash, u32)>> {
    let mark = mark(store).await?;
    Ok(mark.map(|(_, hash, height)| (hash, height)))
}

async fn mark(store: &dyn UtxoStore) -> Result<Option<(Filling, BlockHash, u32)>> {
    Ok(store.record(MARK).await?.and_then(|mark| {
        let filling = match mark.lock_time {
            0 => Filling::Copy,
            1 => Filling::Import,
            _ => Filling::Restore,
        };
        let input = mark.inputs.first()?;
        let hash = BlockHash::from_bytes(*input.txid.as_bytes());
        Some((filling, hash, input.vout))
    }))
}

/// Whether `to` holds an unfinished load of the set at this block; where the height is not known yet, of
/// one at any height. An error if it holds anything else; nothing is written.
pub(crate) async fn begun(
    to: &dyn UtxoStore,
    filling: Filling,
    hash: &BlockHash,
    height: Option<u32>,
) -> Result<bool> {
    match mark(to).await? {
        Some((by, begun, at))
            if by == filling && begun == *hash && height.is_none_or(|height| height == at) =>
        {
            Ok(true)
        }
        Some((by, begun, at)) => Err(Error::invalid_request(format!(
            "the store to fill holds an unfinished {} of the set at height {at} ({begun}), and this is the {} of one at \
             height {} ({hash}): finish that one, or begin again with an empty store",
            by.name(),
            filling.name(),
            height.map_or("not known".into(), |height| height.to_string())
        ))),
        None if is_empty(to).await? => Ok(false),
        None => Err(Error::invalid_request(
            "the store to fill is not empty: name a new one",
        )),
    }
}

/// Marks an empty store as an unfinished copy of the set at `tip`, or finds that it is one.
pub(crate) async fn begin(to: &dyn UtxoStore, filling: Filling, tip: &Tip) -> Result<()> {
    if begun(to, filling, &tip.hash, Some(tip.height)).await? {
        return Ok(());
    }
    // In no set, since it is unmined; a conflicting record needs nothing that it names.
    let tx = Transaction {
        txid: MARK,
        inputs: vec![OutPoint::new(
            Txid::from_bytes(*tip.hash.as_bytes()),
            tip.height,
        )],
        outputs: Vec::new(),
        lock_time: filling.lock_time(),
        size_bytes: 0,
        coinbase: false,
    };
    let mark = NewRecord::Conflicting {
        tx,
        fee_sat: None,
        unmined_since: tip.height,
    };
    accepted(to.create(&[mark]).await?)?;
    to.flush().await
}

async fn is_empty(store: &dyn UtxoStore) -> Result<bool> {
    if store.tip().await?.is_some() || !store.unmined(None, None, 1).await?.items.is_empty() {
        return Ok(false);
    }
    let scan = store.scan().await?;
    for partition in 0..scan.partitions() {
        if !scan.page(partition, None, 1).await?.items.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the coins of whole transactions. How many were there.
pub(crate) async fn write(to: &dyn UtxoStore, coins: &[Coin]) -> Result<u64> {
    let most = to.capabilities().max_batch_items.unwrap_or(PAGE_COINS);
    let groups: Vec<_> = coins
        .chunk_by(|a, b| a.outpoint.txid == b.outpoint.txid)
        .filter_map(|group| Some((group.first()?, group)))
        .collect();
    let mut coins_before = 0;
    for groups in groups.chunks(most.max(1)) {
        let txids: Vec<_> = groups
            .iter()
            .map(|(first, _)| first.outpoint.txid)
            .collect();
        let there = to.records(&txids, Fields::META).await?;
        let mut records = Vec::new();
        for ((first, group), there) in groups.iter().zip(there) {
            if there.is_some() {
                coins_before += group.len() as u64;
                continue;
            }
            let outputs = group
                .iter()
                .map(|coin| (coin.outpoint.vout, coin.output.clone()));
            records.push(NewRecord::Seed {
                txid: first.outpoint.txid,
                coinbase: first.coinbase,
                height: first.height,
                outputs: outputs.collect(),
            });
        }
        accepted(to.create(&records).await?)?;
    }
    Ok(coins_before)
}

/// The confirmed set of a store, by whole transactions: for backups.
#[derive(Debug)]
pub struct SetReader {
    scan: Box<dyn SetScan>,
    begun: Begun,
    pages: WholeTransactions,
}

impl SetReader {
    /// Begins with the first coin.
    ///
    /// # Errors
    /// When the store could not answer. `InvalidRequest` for one without a tip, or with an unfinished copy in it.
    /// `Transient` where blocks connect faster than its digest is read.
    pub async fn begin(from: &dyn UtxoStore) -> Result<Self> {
        let (scan, begun) = begin_scan(from).await?;
        Ok(Self {
            scan,
            begun,
            pages: WholeTransactions::default(),
        })
    }

    /// The tip when the scan began. With [`snapshot_scan`](crate::Capabilities::snapshot_scan) it is that of the set.
    pub const fn tip(&self) -> Tip {
        self.begun.tip
    }

    /// The next coins, each transaction whole, maybe none at all; `None` at the end. An error ends nothing: ask again.
    ///
    /// # Errors
    /// When the store could not answer.
    pub async fn next(&mut self) -> Result<Option<Vec<Coin>>> {
        self.pages.next(&*self.scan).await
    }

    /// Whether the coins that were read, of this digest, are the set that they should be.
    ///
    /// # Errors
    /// When the store could not answer. `InvalidRequest` where it moved on meanwhile and its scans are no snapshots;
    /// `Corrupt` where its digest is another one.
    pub async fn compare(&self, from: &dyn UtxoStore, muhash: &[u8; 32]) -> Result<()> {
        self.begun.compare(from, muhash, "do it again").await
    }
}

/// Fills an empty store with a set, or one that an earlier, unfinished writer of the same set left: for restores. The
/// store is marked as unfinished ([`unfinished_copy`]) until all is there, and has no tip.
#[derive(Debug)]
pub struct SetWriter {
    tip: Tip,
}

impl SetWriter {
    /// Marks the store.
    ///
    /// # Errors
    /// When the store could not answer. `InvalidRequest` for one that holds something else.
    pub async fn begin(to: &dyn UtxoStore, tip: Tip) -> Result<Self> {
        begin(to, Filling::Restore, &tip).await?;
        Ok(Self { tip })
    }

    /// Writes coins, each transaction whole; one that is there is not written again. How many coins were there.
    ///
    /// **Atomicity**: none. **Idempotency**: yes. **Cancel safety**: repeat it.
    ///
    /// # Errors
    /// When the store could not answer. `InvalidRequest` where it refuses a coin.
    pub async fn write(&self, to: &dyn UtxoStore, coins: &[Coin]) -> Result<u64> {
        write(to, coins).await
    }

    /// Sets the tip and takes the mark away, if a scan finds so many coins of this digest; what it finds.
    ///
    /// **Atomicity**: none; the mark goes last. **Idempotency**, **cancel safety**: repeat it.
    ///
    /// # Errors
    /// When the store could not answer.
    pub async fn finish(
        &self,
        to: &dyn UtxoStore,
        coins: u64,
        muhash: &[u8; 32],
    ) -> Result<SetStatistics> {
        let written = count(to).await?;
        if written.muhash == Some(*muhash) && written.txouts == coins {
            complete(to, &self.tip).await?;
        }
        Ok(written)
    }
}

async fn count(to: &dyn UtxoStore) -> Result<SetStatistics> {
    to.statistics(StatisticsOptions {
        muhash: true,
        hash_serialized_3: false,
    })
    .await
}

/// Compares what a scan of `to` finds with what should be there, sets the tip, and takes the mark away. `hint` is what
/// else may be the cause of a difference.
pub(crate) async fn finish(
    to: &dyn UtxoStore,
    tip: &Tip,
    coins: u64,
    muhash: &[u8; 32],
    hint: &str,
) -> Result<()> {
    let written = count(to).await?;
    if written.muhash != Some(*muhash) || written.txouts != coins {
        let detail = format!(
            "{coins} coins were read, and {} are there; the digests differ{hint}: begin again with an empty store",
            written.txouts
        );
        return Err(Error::corrupt(to.capabilities().backend, "a copy", detail));
    }
    complete(to, tip).await
}

async fn complete(to: &dyn UtxoStore, tip: &Tip) -> Result<()> {
    to.set_tip(tip).await?;
    to.flush().await?;
    accepted(to.remove(&[MARK]).await?)?;
    to.flush().await
}

/// What a scan must add up to.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) tip: Tip,
    /// Of the set at that tip, where the scan is of one moment.
    muhash: Option<[u8; 32]>,
}

/// Begins a scan. Where it is of one moment, that moment is one whose digest is known: the tip may go on.
pub(crate) async fn begin_scan(from: &dyn UtxoStore) -> Result<(Box<dyn SetScan>, Begun)> {
    if unfinished_copy(from).await?.is_some() {
        return Err(Error::invalid_request(
            "the store to read is an unfinished copy itself: finish that one first",
        ));
    }
    let capabilities = from.capabilities();
    for _ in 0..MAX_SCANS {
        let scan = from.scan().await?;
        let tip = scan.tip().ok_or_else(|| {
            Error::invalid_request("the store to read has no tip: sync it to a block first")
        })?;
        if !capabilities.snapshot_scan {
            return Ok((scan, Begun { tip, muhash: None }));
        }
        let digest = from.digest().await?;
        if digest.tip == Some(tip) {
            let muhash = Some(digest.muhash);
            return Ok((scan, Begun { tip, muhash }));
        }
    }
    Err(Error::backend(
        capabilities.backend,
        "beginning a scan of the set",
        Retryability::Transient,
        format!(
            "blocks were connected faster than a digest is read, {MAX_SCANS} times: do it again when the store is \
             less busy"
        ),
    ))
}

impl Begun {
    /// What was read is the set that it should be. `again` is what to do where it is not.
    pub(crate) async fn compare(
        &self,
        from: &dyn UtxoStore,
        muhash: &[u8; 32],
        again: &str,
    ) -> Result<()> {
        if self.muhash == Some(*muhash) {
            return Ok(());
        }
        let backend = from.capabilities().backend;
        let now = from.digest().await?;
        let moved = now.tip != Some(self.tip);
        match self.muhash {
            None if moved => Err(Error::invalid_request(format!(
                "the store moved on while it was read, and a scan of {backend} is no snapshot: stop what writes to it, \
                 and {again}"
            ))),
            None if now.muhash == *muhash => Ok(()),
            // Something wrote between the scan's moment and the digest's, without a block: maybe.
            Some(then) if moved || now.muhash != then => Err(Error::invalid_request(format!(
                "the coins that were read have another digest than {backend} had then, and the store has changed \
                 meanwhile: {again}, and if that fails too, with nothing writing to it"
            ))),
            _ => Err(Error::corrupt(
                backend,
                "the set",
                "the coins that were read have another digest than the store keeps: something wrote to it meanwhile, or \
                 it is damaged",
            )),
        }
    }
}

/// A refusal here means that something else writes to the target, that its rule gives an output no slot,
/// or that a transaction comes twice.
pub(crate) fn accepted<T>(outcomes: Vec<Outcome<T>>) -> Result<()> {
    match outcomes.into_iter().find_map(Result::err) {
        Some(verdict) => Err(Error::invalid_request(format!(
            "the store to fill is in use by something else, or its rule for outputs that can't be spent denies one of these a \
             place, or a snapshot has the coins of a transaction in several places: {verdict}"
        ))),
        None => Ok(()),
    }
}
