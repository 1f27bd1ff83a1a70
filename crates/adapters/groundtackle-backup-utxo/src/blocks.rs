//! What blocks changed, as a delta.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::Duration;

use async_trait::async_trait;
use groundtackle_backup::{
    BlockEntry, Content, Error, Hex, HexBytes, Position, Result, Retryability, Segment,
    SegmentInfo, SegmentWork, SetSummary, Source, SourceEnd,
};
use groundtackle_utxo_store::digest::{MuHash3072, coin_element};
use groundtackle_utxo_store::{Coin, Tip};

use crate::delta::{Cutter, Delta, DeltaPart, encode_parts};
use crate::error::{of_codec, of_journal};
use crate::journal::{Chain, Epoch, Journal};
use crate::settle::DELTAS;
use crate::source::{SEGMENT_BYTES, position};

/// How often it is looked whether a journal has come as far as its store, and how long it is waited in between: five
/// seconds in all.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// Threads that digest a block.
const MAX_THREADS: usize = 4;

/// Looks whether a journal has come as far as its store, some times.
#[derive(Debug)]
pub(crate) struct CatchUp(u32);

impl CatchUp {
    pub(crate) const fn new() -> Self {
        Self(LOOKS)
    }

    /// Whether the store is to be read again, a moment later.
    pub(crate) async fn lags(
        &mut self,
        journal: Option<&Journal>,
        tip: Option<Tip>,
    ) -> Result<bool> {
        let lags = match (journal, tip) {
            (Some(journal), Some(tip)) => journal.lags(&tip).map_err(of_journal)?,
            _ => false,
        };
        self.0 = self.0.saturating_sub(1);
        if !lags || self.0 == 0 {
            return Ok(false);
        }
        tokio::time::sleep(PAUSE).await;
        Ok(true)
    }
}

/// A set at a block, with what a delta goes on from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    pub(crate) position: Position,
    pub(crate) set: SetSummary,
    pub(crate) muhash: MuHash3072,
}

impl Known {
    /// Replays a block, with some threads: of all that a backup of blocks does the digest takes longest.
    pub(crate) fn forwards(&mut self, delta: &Delta) -> Result<()> {
        let elements = |coins: &[Coin]| coins.iter().map(coin_element).collect::<Vec<_>>();
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = NonZeroUsize::new(cores.min(MAX_THREADS)).unwrap_or(NonZeroUsize::MIN);
        self.muhash
            .remove_parallel(&elements(&delta.spent), threads);
        self.muhash
            .insert_parallel(&elements(&delta.created), threads);
        self.settle(position(&delta.tip), delta.created.len(), delta.spent.len())
    }

    /// Takes the block back; before it came `previous`.
    pub(crate) fn backwards(&mut self, delta: &Delta, previous: Position) -> Result<()> {
        delta.backwards(&mut self.muhash);
        self.settle(previous, delta.spent.len(), delta.created.len())
    }

    /// After the digest has moved.
    pub(crate) fn settle(&mut self, position: Position, gained: usize, lost: usize) -> Result<()> {
        let coins = self.set.coins.saturating_add(gained as u64);
        let coins = coins.checked_sub(lost as u64).ok_or_else(|| {
            Error::invalid_request(format!(
                "block {} of the journal spends more coins than there were: take a new base",
                position.height
            ))
        })?;
        self.position = position;
        self.set = SetSummary {
            coins,
            muhash: Hex(self.muhash.digest()),
        };
        Ok(())
    }
}

/// The blocks of a journal after a restore point.
#[derive(Debug)]
pub(crate) struct BlockSource {
    epoch: Epoch,
    from: Known,
    now: Known,
    /// What the store's set is after the last block, if that is known.
    end: Option<[u8; 32]>,
    /// `None` at the end.
    chain: Option<Chain>,
    cutter: Option<Cutter>,
    segments: VecDeque<Vec<DeltaPart>>,
    blocks: Vec<BlockEntry>,
    items: u64,
}

impl BlockSource {
    pub(crate) fn new(epoch: Epoch, from: Known, chain: Chain, end: Option<[u8; 32]>) -> Self {
        Self {
            epoch,
            now: from.clone(),
            from,
            end,
            chain: Some(chain),
            cutter: Some(Cutter::new(SEGMENT_BYTES)),
            segments: VecDeque::new(),
            blocks: Vec::new(),
            items: 0,
        }
    }

    /// Reads a block.
    async fn read(&mut self) -> Result<()> {
        let Some(mut chain) = self.chain.take() else {
            return Ok(());
        };
        let mut now = self.now.clone();
        let work = tokio::task::spawn_blocking(move || {
            let delta = chain.next().transpose().map_err(of_journal)?;
            if let Some(delta) = &delta {
                now.forwards(delta)?;
            }
            Ok::<_, Error>((delta, chain, now))
        });
        let (delta, chain, now) = work.await.map_err(stopped)??;
        let Some(delta) = delta else {
            self.segments
                .extend(self.cutter.take().and_then(Cutter::finish));
            return Ok(());
        };
        self.chain = Some(chain);
        self.now = now;
        self.items = self
            .items
            .saturating_add(delta.created.len() as u64)
            .saturating_add(delta.spent.len() as u64);
        self.blocks.push(BlockEntry {
            position: self.now.position,
            previous: Hex(*delta.previous.as_bytes()),
            set: self.now.set,
        });
        if let Some(cutter) = &mut self.cutter {
            self.segments.extend(cutter.push(delta));
        }
        Ok(())
    }
}

pub(crate) fn stopped(error: tokio::task::JoinError) -> Error {
    Error::backend(
        "the process",
        "reading the journal",
        Retryability::Permanent,
        error,
    )
}

/// The set is not the one that the blocks lead to.
pub(crate) fn past_the_journal() -> Error {
    Error::Incomplete {
        detail: "the store has another digest than the blocks of its journal lead to: something changed it past the \
                 journal; begin a new journal in an empty folder, so that the next backup is a base"
            .into(),
    }
}

/// The work of encoding some blocks.
pub(crate) fn work(parts: Vec<DeltaPart>) -> SegmentWork {
    Box::new(move || {
        let ends = parts.first().zip(parts.last());
        let hash = |part: &DeltaPart| HexBytes(part.delta.tip.hash.as_bytes().to_vec());
        let items = parts.iter().fold(0_u64, |sum, part| {
            sum.saturating_add(part.delta.created.len() as u64)
                .saturating_add(part.delta.spent.len() as u64)
        });
        let info = SegmentInfo {
            codec: DELTAS.into(),
            items,
            first: ends.map(|(first, _)| hash(first)).unwrap_or_default(),
            last: ends.map(|(_, last)| hash(last)).unwrap_or_default(),
            heights: ends.map(|(a, b)| (a.delta.tip.height, b.delta.tip.height)),
        };
        let bytes = encode_parts(&parts).map_err(of_codec)?;
        Ok(Segment { info, bytes })
    })
}

#[async_trait]
impl Source for BlockSource {
    async fn next(&mut self) -> Result<Option<SegmentWork>> {
        while self.segments.is_empty() && self.chain.is_some() {
            self.read().await?;
        }
        Ok(self.segments.pop_front().map(work))
    }

    async fn finish(&mut self) -> Result<SourceEnd> {
        if self.chain.is_some() || !self.segments.is_empty() {
            return Err(Error::Incomplete {
                detail: "the journal was not read to its end".into(),
            });
        }
        if self.end.is_some_and(|end| end != self.now.set.muhash.0) {
            return Err(past_the_journal());
        }
        Ok(SourceEnd {
            content: Content::Delta {
                epoch: Hex(*self.epoch.as_bytes()),
                from: self.from.position,
                from_set: self.from.set,
                blocks: std::mem::take(&mut self.blocks),
                muhash_state: HexBytes(self.now.muhash.to_bytes().into()),
            },
            items: self.items,
        })
    }
}
