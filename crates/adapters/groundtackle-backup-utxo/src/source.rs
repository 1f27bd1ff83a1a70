//! A store's set, as a base.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use groundtackle_backup::{
    Content, Error, Hex, HexBytes, Position, Result, Retryability, Segment, SegmentInfo,
    SegmentWork, SetSummary, Source, SourceEnd,
};
use groundtackle_utxo_store::digest::{MuHash3072, coin_element};
use groundtackle_utxo_store::{Coin, SetReader, Tip, UtxoStore};

use crate::blocks::{CatchUp, stopped, work};
use crate::codec::{encode_coins, raw_bytes};
use crate::delta::DeltaPart;
use crate::error::{of_codec, of_journal, of_store};
use crate::journal::{Epoch, Journal};
use crate::window::{Seen, Window};

/// What [`SegmentInfo::codec`] says of coins.
pub const COINS: &str = "coins.1";

/// What a segment's coins take without any packing, about, in bytes.
pub(crate) const SEGMENT_BYTES: usize = 4 << 20;

/// The confirmed set of a store, whole, with a digest that is computed from the coins that are read and must be the one
/// that the store has.
///
/// Where scans see one moment ([`snapshot_scan`](groundtackle_utxo_store::Capabilities::snapshot_scan)) that is the
/// moment. Otherwise blocks that are connected meanwhile are taken from the journal: what they created and spent is put
/// right afterwards, exactly, whatever the scan has seen of it. That takes 8 bytes for each coin in a nameless file of the
/// system's temporary folder. Without a journal nothing may write to such a store meanwhile.
#[derive(Debug)]
pub struct BaseSource {
    store: Arc<dyn UtxoStore>,
    journal: Option<(Journal, Epoch)>,
    reader: SetReader,
    /// Read, and in no segment yet.
    rest: Vec<Coin>,
    rest_bytes: usize,
    segment_bytes: usize,
    ended: bool,
    coins: u64,
    total: Arc<Mutex<Total>>,
    /// What came while the set was read.
    window: Option<Window>,
    changes: VecDeque<Vec<DeltaPart>>,
}

/// What the workers found.
#[derive(Debug, Default)]
struct Total {
    muhash: MuHash3072,
    /// Where the set may change meanwhile.
    seen: Option<Seen>,
}

fn lock(total: &Mutex<Total>) -> MutexGuard<'_, Total> {
    total.lock().unwrap_or_else(PoisonError::into_inner)
}

fn changed_otherwise() -> Error {
    Error::backend(
        "the UTXO store",
        "reading the set",
        Retryability::Transient,
        "something else than blocks changed it meanwhile: do it again",
    )
}

impl BaseSource {
    /// Begins a scan.
    ///
    /// # Errors
    /// When the store could not answer, has no tip, or is an unfinished copy itself.
    pub async fn begin(store: Arc<dyn UtxoStore>, journal: Option<Journal>) -> Result<Self> {
        let journal = match journal {
            Some(journal) => {
                let epoch = journal.epoch().map_err(of_journal)?;
                Some((journal, epoch.ok_or_else(changed_otherwise)?))
            }
            None => None,
        };
        let reader = SetReader::begin(&*store).await;
        let reader = reader.map_err(of_store("beginning a scan"))?;
        let changes = journal.is_some() && !store.capabilities().snapshot_scan;
        let seen = changes
            .then(|| Seen::new(reader.tip().height))
            .transpose()?;
        let total = Total {
            seen,
            ..Total::default()
        };
        Ok(Self {
            reader,
            store,
            journal,
            rest: Vec::new(),
            rest_bytes: 0,
            segment_bytes: SEGMENT_BYTES,
            ended: false,
            coins: 0,
            total: Arc::new(Mutex::new(total)),
            window: None,
            changes: VecDeque::new(),
        })
    }

    /// Segments of about so many bytes, counted as [`raw_bytes`]; one has a coin at least. Default: 4 MiB.
    #[must_use]
    pub const fn with_segment_bytes(mut self, segment_bytes: usize) -> Self {
        self.segment_bytes = if segment_bytes == 0 { 1 } else { segment_bytes };
        self
    }

    /// Reads until there is enough for a segment, or all.
    async fn fill(&mut self) -> Result<()> {
        while !self.ended && self.rest_bytes < self.segment_bytes {
            let page = self.reader.next().await;
            match page.map_err(of_store("scanning the set"))? {
                Some(page) => {
                    self.rest_bytes = self.rest_bytes.saturating_add(bytes_of(&page));
                    self.rest.extend(page);
                }
                None => self.end().await?,
            }
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        self.ended = true;
        let Some((journal, epoch)) = self.journal.clone() else {
            return Ok(());
        };
        if self.store.capabilities().snapshot_scan {
            return Ok(());
        }
        let began = self.reader.tip();
        let mut catch_up = CatchUp::new();
        let digest = loop {
            let digest = self.store.digest().await;
            let digest = digest.map_err(of_store("reading the digest"))?;
            if !catch_up.lags(Some(&journal), digest.tip).await? {
                break digest;
            }
        };
        let read =
            tokio::task::spawn_blocking(move || Window::read(&journal, epoch, &began, digest));
        let (window, changes) = read.await.map_err(stopped)??;
        (self.window, self.changes) = (Some(window), changes.into());
        Ok(())
    }

    /// The next coins, not none.
    fn coins(&mut self) -> Option<Vec<Coin>> {
        self.rest.first()?;
        let (mut bytes, segment_bytes) = (0_usize, self.segment_bytes);
        let fits = |coin: &&Coin| {
            let before = bytes;
            bytes = bytes.saturating_add(raw_bytes(coin));
            before < segment_bytes
        };
        let count = self.rest.iter().take_while(fits).count();
        let later = self.rest.split_off(count);
        let coins = std::mem::replace(&mut self.rest, later);
        self.rest_bytes = bytes_of(&self.rest);
        self.coins = self.coins.saturating_add(coins.len() as u64);
        Some(coins)
    }
}

pub(crate) fn bytes_of(coins: &[Coin]) -> usize {
    coins
        .iter()
        .fold(0, |sum, coin| sum.saturating_add(raw_bytes(coin)))
}

pub(crate) const fn position(tip: &Tip) -> Position {
    Position {
        height: tip.height,
        hash: Hex(*tip.hash.as_bytes()),
        median_time_past: tip.median_time_past,
    }
}

/// Some coins of a set, and their digest.
pub(crate) fn segment(coins: &[Coin]) -> Result<(Segment, MuHash3072)> {
    let mut muhash = MuHash3072::new();
    muhash.insert_all(coins.iter().map(coin_element));
    let info = SegmentInfo {
        codec: COINS.into(),
        items: coins.len() as u64,
        first: key(coins.first()),
        last: key(coins.last()),
        heights: None,
    };
    let bytes = encode_coins(coins).map_err(of_codec)?;
    Ok((Segment { info, bytes }, muhash))
}

/// In the order of keys.
fn key(coin: Option<&Coin>) -> HexBytes {
    let Some(Coin { outpoint, .. }) = coin else {
        return HexBytes::default();
    };
    let mut key = outpoint.txid.as_bytes().to_vec();
    key.extend_from_slice(&outpoint.vout.to_be_bytes());
    HexBytes(key)
}

#[async_trait]
impl Source for BaseSource {
    async fn next(&mut self) -> Result<Option<SegmentWork>> {
        self.fill().await?;
        let Some(coins) = self.coins() else {
            return Ok(self.changes.pop_front().map(work));
        };
        let total = self.total.clone();
        Ok(Some(Box::new(move || {
            let (segment, part) = segment(&coins)?;
            let mut total = lock(&total);
            total.muhash.combine(&part);
            if let Some(seen) = &mut total.seen {
                seen.add(&coins)?;
            }
            drop(total);
            Ok(segment)
        })))
    }

    async fn finish(&mut self) -> Result<SourceEnd> {
        if !self.ended || !self.rest.is_empty() || !self.changes.is_empty() {
            return Err(Error::Incomplete {
                detail: "the scan has not come to its end".into(),
            });
        }
        let Total { muhash, seen } = std::mem::take(&mut *lock(&self.total));
        let (known, during, items) = match (self.window.take(), seen) {
            (Some(window), Some(seen)) => {
                let (coins, items) = (self.coins, window.items());
                let settle = move || window.settle(seen, coins, muhash);
                let settled = tokio::task::spawn_blocking(settle).await;
                let (known, during) = settled.map_err(stopped)??;
                (known, during, self.coins.saturating_add(items))
            }
            _ => {
                let digest = muhash.digest();
                let compared = self.reader.compare(&*self.store, &digest).await;
                compared.map_err(of_store("comparing the digest"))?;
                let known = crate::blocks::Known {
                    position: position(&self.reader.tip()),
                    set: SetSummary {
                        coins: self.coins,
                        muhash: Hex(digest),
                    },
                    muhash,
                };
                (known, Vec::new(), self.coins)
            }
        };
        let epoch = match &self.journal {
            Some((journal, epoch)) => {
                let now = journal.epoch().map_err(of_journal)?;
                if now != Some(*epoch) {
                    return Err(changed_otherwise());
                }
                Hex(*epoch.as_bytes())
            }
            None => Hex::default(),
        };
        Ok(SourceEnd {
            content: Content::Base {
                epoch,
                position: known.position,
                set: known.set,
                muhash_state: HexBytes(known.muhash.to_bytes().into()),
                during,
            },
            items,
        })
    }
}
