//! Whether it is to be a base or a delta.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use groundtackle_backup::{BackUp, Content, Error, Hex, Manifest, Position, Repository, Result};
use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::{BlockHash, Tip, UtxoStore};

use crate::blocks::{BlockSource, CatchUp, Known, past_the_journal, stopped};
use crate::error::{of_journal, of_store};
use crate::journal::{Epoch, Journal};
use crate::source::{BaseSource, position};

/// Blocks of one delta at most; a manifest names each in some 400 bytes, and is at most 64 MiB.
const MAX_DELTA_BLOCKS: usize = 50_000;

/// Coins created and spent in deltas since a base, after which a new one is taken. A restore may keep as many in memory, some
/// 150 bytes each.
const BASE_AFTER: u64 = 20_000_000;

/// What a backup of a set made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Made {
    /// A restore point with the whole set.
    Base(Manifest),
    /// One with what blocks changed since an earlier one.
    Delta(Manifest),
    /// None: the last one is of the store's tip.
    Nothing,
}

/// Backups of one store's set.
#[derive(Clone, Debug)]
pub struct SetBackup {
    store: Arc<dyn UtxoStore>,
    journal: Option<Journal>,
    base_after: u64,
}

impl SetBackup {
    /// Of this store. With the journal that it writes, later backups are deltas.
    pub fn new(store: Arc<dyn UtxoStore>, journal: Option<Journal>) -> Self {
        Self {
            store,
            journal,
            base_after: BASE_AFTER,
        }
    }

    /// Takes a new base once the deltas since the last one have so many coins, created and spent: a restore may keep
    /// them all in memory, some 150 bytes each. Default: 20,000,000.
    #[must_use]
    pub const fn with_base_after(mut self, coins: u64) -> Self {
        self.base_after = coins;
        self
    }

    /// Backs up what blocks changed since the last restore point, where the journal has all of it and they are at most
    /// 50,000; otherwise, where there is none, and [now and then](Self::with_base_after), the whole set.
    ///
    /// **Atomicity**, **cancel safety**: see [`Repository::back_up`].
    ///
    /// # Errors
    /// When store, journal or target could not answer. `InvalidRequest` for a store without a tip.
    pub async fn back_up(&self, repository: &Repository, how: &BackUp<'_>) -> Result<Made> {
        // Before the epoch: what ends that shows then.
        let now = self.now().await?;
        // Before what it goes on from is looked for.
        let began = repository.begin();
        let journal = self.journal_now()?;
        let mut points = repository.points().await?;
        points.expect_coins(how.stream)?;
        if let Some((journal, epoch)) = journal {
            points.expect_last(how.stream)?;
            let points = points.usable;
            let linked: Vec<_> = points
                .iter()
                .filter(|point| point.stream == how.stream)
                .filter(|point| point.content.epoch().0 == *epoch.as_bytes())
                .collect();
            let newest = linked.last().and_then(|point| point.content.position());
            let is_long = since_base(&linked) > self.base_after;
            for start in starts(&linked) {
                let at = start.content.position().map(|at| at.hash);
                if at == Some(Hex(*now.tip.hash.as_bytes())) {
                    // The chain went back to it: what was made since would stay the latest.
                    if newest.map(|at| at.hash) != at {
                        break;
                    }
                    let known = start.content.set().map(|set| set.muhash.0);
                    return match now.muhash.is_none_or(|muhash| Some(muhash) == known) {
                        true => Ok(Made::Nothing),
                        false => Err(past_the_journal()),
                    };
                }
                if is_long {
                    break;
                }
                let source = blocks_since(&journal, epoch, start, &linked, &now).await?;
                if let Some(mut source) = source {
                    let manifest = repository.back_up_begun(began, &mut source, how).await?;
                    return Ok(Made::Delta(manifest));
                }
            }
        }
        self.whole(repository, how).await.map(Made::Base)
    }

    /// Backs up the whole set.
    ///
    /// **Atomicity**, **cancel safety**: see [`Repository::back_up`].
    ///
    /// # Errors
    /// When store, journal or target could not answer. `InvalidRequest` for a store without a tip. `Incomplete` where
    /// something else than blocks changed the set meanwhile: do it again. `InvalidRequest` for a stream of trees.
    pub async fn back_up_base(
        &self,
        repository: &Repository,
        how: &BackUp<'_>,
    ) -> Result<Manifest> {
        repository.points().await?.expect_coins(how.stream)?;
        self.whole(repository, how).await
    }

    /// The same, into a stream that is one of coins.
    async fn whole(&self, repository: &Repository, how: &BackUp<'_>) -> Result<Manifest> {
        let mut source = BaseSource::begin(self.store.clone(), self.journal.clone()).await?;
        repository.back_up(&mut source, how).await
    }

    async fn now(&self) -> Result<Now> {
        let mut catch_up = CatchUp::new();
        loop {
            let (tip, muhash) = if self.store.capabilities().incremental_digest {
                let digest = self.store.digest().await;
                let digest = digest.map_err(of_store("reading the digest"))?;
                (digest.tip, Some(digest.muhash))
            } else {
                let tip = self.store.tip().await;
                (tip.map_err(of_store("reading the tip"))?, None)
            };
            if catch_up.lags(self.journal.as_ref(), tip).await? {
                continue;
            }
            let tip = tip.ok_or_else(|| {
                Error::invalid_request("the store has no tip: sync it to a block first")
            })?;
            return Ok(Now { tip, muhash });
        }
    }

    fn journal_now(&self) -> Result<Option<(Journal, Epoch)>> {
        let Some(journal) = &self.journal else {
            return Ok(None);
        };
        let epoch = journal.epoch().map_err(of_journal)?;
        Ok(epoch.map(|epoch| (journal.clone(), epoch)))
    }
}

/// What the store is now.
#[derive(Clone, Copy, Debug)]
struct Now {
    tip: Tip,
    /// Where it is known without a scan.
    muhash: Option<[u8; 32]>,
}

/// Coins created and spent in the deltas that were made after the last base; of those that were rolled up in these alone.
fn since_base(linked: &[&Manifest]) -> u64 {
    let base = linked.iter().rfind(|point| is_base(point));
    let base = base.map_or(0, |base| base.created_unix_millis);
    let later = |point: &&&Manifest| !is_base(point) && point.created_unix_millis > base;
    let mut deltas: Vec<_> = linked.iter().filter(later).collect();
    deltas.sort_by_key(|delta| Reverse(delta.content.blocks().len()));
    let mut counted = HashSet::new();
    deltas.into_iter().fold(0, |sum, delta| {
        let blocks = delta.content.blocks().iter();
        let new = blocks.filter(|block| counted.insert(block.position.hash));
        match new.count() {
            0 => sum,
            _ => sum.saturating_add(delta.items),
        }
    })
}

const fn is_base(point: &Manifest) -> bool {
    matches!(point.content, Content::Base { .. })
}

/// Restore points to go on from. Deltas go on from the last delta, also past a base that was made since: so every block of
/// the epoch stays linked to each of its bases.
fn starts<'a>(linked: &[&'a Manifest]) -> Vec<&'a Manifest> {
    let bases = linked.iter().filter(|point| is_base(point)).copied();
    match linked.iter().rfind(|point| !is_base(point)) {
        Some(delta) => std::iter::once(*delta).chain(bases.rev()).collect(),
        None => bases.collect(),
    }
}

/// What the journal has between a restore point, or where the chain has left it, and the tip; `None` where that is not all.
async fn blocks_since(
    journal: &Journal,
    epoch: Epoch,
    start: &Manifest,
    linked: &[&Manifest],
    now: &Now,
) -> Result<Option<BlockSource>> {
    let Some(known) = known(start) else {
        return Ok(None);
    };
    let (tip, muhash) = (now.tip.hash, now.muhash);
    let mut candidates = ancestors(known.position, linked);
    candidates.insert(block_hash(known.position), known.position);
    let journal = journal.clone();
    let work = tokio::task::spawn_blocking(move || {
        let from = candidates.keys().copied().collect();
        let chain = journal
            .chain_from_any(epoch, &from, tip)
            .map_err(of_journal)?;
        let Some((at, chain)) = chain else {
            return Ok(None);
        };
        let Some(at) = candidates.get(&at) else {
            return Ok(None);
        };
        // It may be of a branch that was left before.
        let known = rewound(&journal, epoch, known, *at)?;
        let fits = (1..=MAX_DELTA_BLOCKS).contains(&chain.len());
        let known = known.filter(|_| fits);
        Ok(known.map(|known| BlockSource::new(epoch, known, chain, muhash)))
    });
    work.await.map_err(stopped)?
}

const fn block_hash(at: Position) -> BlockHash {
    BlockHash::from_bytes(at.hash.0)
}

/// What a delta could go on from at the end of a restore point.
fn known(point: &Manifest) -> Option<Known> {
    let state =
        <&[u8; MuHash3072::STATE_BYTES]>::try_from(&*point.content.muhash_state()?.0).ok()?;
    Some(Known {
        position: *point.content.position()?,
        set: *point.content.set()?,
        muhash: MuHash3072::from_bytes(state)?,
    })
}

/// The blocks below `tip` that restore points know.
fn ancestors(tip: Position, linked: &[&Manifest]) -> HashMap<BlockHash, Position> {
    let blocks = linked.iter().flat_map(|point| {
        let from = match &point.content {
            Content::Delta { from, .. } => Some(*from),
            _ => None,
        };
        let blocks = point.content.blocks().iter().map(|block| block.position);
        from.into_iter().chain(blocks)
    });
    let below = blocks.filter(|at| at.height < tip.height);
    below.map(|at| (block_hash(at), at)).collect()
}

/// The set at an earlier block of the branch that `known` ends; `None` where the journal has forgotten it.
fn rewound(
    journal: &Journal,
    epoch: Epoch,
    mut known: Known,
    to: Position,
) -> Result<Option<Known>> {
    let chain = journal.chain(epoch, block_hash(to), block_hash(known.position));
    let Some(chain) = chain.map_err(of_journal)? else {
        return Ok(None);
    };
    // A branch of few blocks.
    let mut deltas = Vec::new();
    for delta in chain {
        deltas.push(delta.map_err(of_journal)?);
    }
    let mut tips: Vec<_> = deltas.iter().map(|delta| position(&delta.tip)).collect();
    tips.insert(0, to);
    for (delta, before) in deltas.iter().zip(tips).rev() {
        known.backwards(delta, before)?;
    }
    Ok(Some(known))
}
