//! A base out of restore points, where the store is not.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use groundtackle_backup::{
    At, BackUp, Content, Direction, Error, Goal, Hex, HexBytes, KeyUnwrapping, Manifest,
    Repository, Result, Segment, SegmentWork, SetSummary, Sink, Source, SourceEnd,
};
use groundtackle_utxo_store::Coin;
use groundtackle_utxo_store::digest::MuHash3072;
use tokio::sync::{mpsc, oneshot};

use crate::settle::Settling;
use crate::source::{SEGMENT_BYTES, bytes_of, segment};

/// Segments on their way from the restore to the backup.
const AHEAD: usize = 2;

/// What [`fold`] made.
#[derive(Debug)]
#[must_use = "what it passed over is damaged"]
#[non_exhaustive]
pub struct Folded {
    /// The restore point with the whole set.
    pub base: Manifest,
    /// As [`Restored::passed_over`](groundtackle_backup::Restored::passed_over).
    pub passed_over: Vec<Error>,
}

/// Writes the set that the latest restore point leads to as a base: what a restore of it goes over is read, settled and written
/// again, without store or node, by a host that can read. A restore of the latest block takes no changes then, and the
/// host that backs up needs to take no new base for a while. `None` where the latest block has a base already.
///
/// It is listed only if count and MuHash, computed from the coins that were written, are those that the blocks led to. It has
/// the time of the restore point whose place it takes, so what a node backs up meanwhile stays the latest.
///
/// **Atomicity**, **cancel safety**: as [`Repository::back_up`]. Memory: what the blocks since the last base changed, and twice
/// `how.workers` + 3 segments.
///
/// # Errors
/// The first one of reading or writing. `Differs` if what came out is not what was backed up. `InvalidRequest` for a stream of
/// trees.
pub async fn fold(
    repository: &Repository,
    keys: &dyn KeyUnwrapping,
    how: &BackUp<'_>,
) -> Result<Option<Folded>> {
    let points = repository.points().await?;
    points.expect_coins(how.stream)?;
    let plan = points.plan(how.stream, At::Latest)?;
    let Some(latest) = points.latest(how.stream) else {
        return Ok(None);
    };
    if plan.base.content.position() == Some(&plan.position) {
        return Ok(None);
    }
    let (to, coins) = mpsc::channel(AHEAD);
    let (written, found) = oneshot::channel();
    let (whole, verdict) = oneshot::channel();
    let mut sink = FoldSink {
        set: Settling::new(),
        coins: Vec::new(),
        to,
        found: Some(found),
    };
    let mut source = FoldSource {
        epoch: *latest.content.epoch(),
        coins,
        total: Arc::default(),
        written: Some(written),
        verdict: Some(verdict),
    };
    let restore = async {
        let restored = repository
            .restore(&plan, keys, &mut sink, how.workers)
            .await?;
        // Nobody waits for it where the backup has failed, which is told then.
        let _ = whole.send(restored.goal);
        Ok(restored.passed_over)
    };
    let back_up = repository.back_up_instead_of(latest, &mut source, how);
    // The first error ends both.
    let (passed_over, base) = tokio::try_join!(restore, back_up)?;
    Ok(Some(Folded { base, passed_over }))
}

fn ended_early() -> Error {
    Error::Incomplete {
        detail: "the other end of the fold stopped".into(),
    }
}

/// The restore's end.
#[derive(Debug)]
struct FoldSink {
    set: Settling,
    /// For the next segment.
    coins: Vec<Coin>,
    /// `None` says that all came.
    to: mpsc::Sender<Option<Vec<Coin>>>,
    found: Option<oneshot::Receiver<SetSummary>>,
}

impl FoldSink {
    async fn push(&mut self, coins: Vec<Coin>) -> Result<()> {
        self.coins.extend(coins);
        match bytes_of(&self.coins) >= SEGMENT_BYTES {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<()> {
        match std::mem::take(&mut self.coins) {
            coins if coins.is_empty() => Ok(()),
            coins => self.send(Some(coins)).await,
        }
    }

    async fn send(&self, coins: Option<Vec<Coin>>) -> Result<()> {
        self.to.send(coins).await.map_err(|_| ended_early())
    }
}

#[async_trait]
impl Sink for FoldSink {
    async fn begin(&mut self, _: &Goal) -> Result<()> {
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
        self.push(coins).await
    }

    async fn finish(&mut self, _: &Goal) -> Result<SetSummary> {
        loop {
            let page = self.set.rest();
            if page.is_empty() {
                break;
            }
            self.push(page).await?;
        }
        self.flush().await?;
        self.send(None).await?;
        let found = self.found.take().ok_or_else(ended_early)?;
        found.await.map_err(|_| ended_early())
    }
}

/// The backup's beginning.
#[derive(Debug)]
struct FoldSource {
    epoch: Hex<16>,
    coins: mpsc::Receiver<Option<Vec<Coin>>>,
    /// What was written, and its digest.
    total: Arc<Mutex<(u64, MuHash3072)>>,
    written: Option<oneshot::Sender<SetSummary>>,
    /// What the restore says once it has compared that.
    verdict: Option<oneshot::Receiver<Goal>>,
}

#[async_trait]
impl Source for FoldSource {
    async fn next(&mut self) -> Result<Option<SegmentWork>> {
        let Some(coins) = self.coins.recv().await.ok_or_else(ended_early)? else {
            return Ok(None);
        };
        let total = self.total.clone();
        Ok(Some(Box::new(move || {
            let (segment, part) = segment(&coins)?;
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.0 = total.0.saturating_add(coins.len() as u64);
            total.1.combine(&part);
            Ok(segment)
        })))
    }

    async fn finish(&mut self) -> Result<SourceEnd> {
        let (coins, muhash) = self
            .total
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (written, verdict) = self
            .written
            .take()
            .zip(self.verdict.take())
            .ok_or_else(ended_early)?;
        let set = SetSummary {
            coins,
            muhash: Hex(muhash.digest()),
        };
        written.send(set).map_err(|_| ended_early())?;
        let goal = verdict.await.map_err(|_| ended_early())?;
        Ok(SourceEnd {
            content: Content::Base {
                epoch: self.epoch,
                position: goal.position,
                set,
                muhash_state: HexBytes(muhash.to_bytes().into()),
                during: Vec::new(),
            },
            items: coins,
        })
    }
}
