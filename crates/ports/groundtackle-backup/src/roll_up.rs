//! Changes of blocks in fewer restore points.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;

use crate::bytes_as_text::Hex;
use crate::error::{Error, Result};
use crate::keys::KeyUnwrapping;
use crate::manifest::{Content, Manifest};
use crate::plan::of_stream;
use crate::reader::Segments;
use crate::repository::Repository;
use crate::source::{SegmentWork, Source, SourceEnd};
use crate::writer::BackUp;

/// The most blocks of one restore point: a manifest names each in some 400 bytes, and is at most 64 MiB.
const MAX_BLOCKS: usize = 50_000;

impl Repository {
    /// Writes consecutive changes of the chain of the latest restore point together: those that end between two multiples
    /// of `blocks` in height, once others end above. So 144, and then 1,008, leave a restore point for each day and each week of
    /// a Bitcoin chain, and any height can be restored as before. What they are made of stays until it is forgotten;
    /// [`Retention`](crate::Retention) does not need it for anything any more.
    ///
    /// Changes on abandoned branches, and those that go on from the middle of others, are left as they are.
    ///
    /// **Atomicity**: each restore point for itself. **Idempotency**: yes; what is written together already is not again.
    /// **Cancel safety**: repeat it. Memory: all manifests, and `workers` + 1 segments twice.
    ///
    /// # Errors
    /// `InvalidRequest` for a stream of trees. The first one of the target; `WrongKey` if a key is missing. That of an object which
    /// could not be read, and may be a later restore point.
    pub async fn roll_up(
        &self,
        blocks: NonZeroU32,
        keys: &dyn KeyUnwrapping,
        how: &BackUp<'_>,
    ) -> Result<Vec<Manifest>> {
        let mut points = self.points().await?;
        points.expect_coins(how.stream)?;
        points.expect_last(how.stream)?;
        let Some(latest) = points.latest(how.stream) else {
            return Ok(Vec::new());
        };
        let offered = of_stream(&points.usable, how.stream);
        let mut made = Vec::new();
        for group in groups(&chain(&offered, latest), blocks) {
            let Some(last) = group.last() else { continue };
            let mut source = Rolled {
                repository: self,
                keys,
                left: group.clone().into_iter(),
                reading: None,
                workers: how.workers,
                group: &group,
            };
            made.push(self.back_up_instead_of(last, &mut source, how).await?);
        }
        Ok(made)
    }
}

/// The changes that lead to where the latest restore point does, oldest first; of several forms of the same the longest.
fn chain(offered: &[Arc<Manifest>], latest: &Manifest) -> Vec<Arc<Manifest>> {
    let mut ends = HashMap::<_, &Arc<Manifest>>::new();
    let epoch = latest.content.epoch();
    for point in offered {
        let Content::Delta { blocks, .. } = &point.content else {
            continue;
        };
        let Some(position) = point.content.position() else {
            continue;
        };
        let longest = ends.entry(position.hash).or_insert(point);
        if point.content.epoch() != epoch {
            continue;
        }
        if longest.content.epoch() != epoch || longest.content.blocks().len() < blocks.len() {
            *longest = point;
        }
    }
    let mut chain = Vec::new();
    let mut at = latest.content.position().map(|position| position.hash);
    // Each is taken out, so links that lead round end.
    while let Some(point) = at.and_then(|at: Hex<32>| ends.remove(&at))
        && point.content.epoch() == epoch
    {
        at = match &point.content {
            Content::Delta { from, .. } => Some(from.hash),
            _ => None,
        };
        chain.push(point.clone());
    }
    chain.reverse();
    chain
}

/// Those that are to be written together, each with more than one.
fn groups(chain: &[Arc<Manifest>], blocks: NonZeroU32) -> Vec<Vec<Arc<Manifest>>> {
    let window = |point: &Arc<Manifest>| {
        let height = point.content.position().map(|position| position.height);
        height.map(|height| height / blocks)
    };
    let mut groups = Vec::<Vec<Arc<Manifest>>>::new();
    let mut taken = 0;
    for point in chain {
        let own = point.content.blocks().len();
        let goes_on = groups.last_mut().filter(|group| {
            let same = group.last().map(window) == Some(window(point));
            same && own.saturating_add(taken) <= MAX_BLOCKS
        });
        match goes_on {
            Some(group) => {
                taken = taken.saturating_add(own);
                group.push(point.clone());
            }
            None => {
                taken = own;
                groups.push(vec![point.clone()]);
            }
        }
    }
    // More may come of the last window.
    groups.pop();
    groups.retain(|group| group.len() > 1);
    groups
}

/// Segments of one restore point after the other, as they are.
#[derive(Debug)]
struct Rolled<'a> {
    repository: &'a Repository,
    keys: &'a dyn KeyUnwrapping,
    left: std::vec::IntoIter<Arc<Manifest>>,
    reading: Option<Segments>,
    workers: usize,
    group: &'a [Arc<Manifest>],
}

#[async_trait]
impl Source for Rolled<'_> {
    async fn next(&mut self) -> Result<Option<SegmentWork>> {
        loop {
            if let Some(segments) = &mut self.reading
                && let Some(segment) = segments.next().await?
            {
                return Ok(Some(Box::new(move || Ok(segment))));
            }
            let Some(manifest) = self.left.next() else {
                return Ok(None);
            };
            let point = self.repository.open_point(&manifest, self.keys).await?;
            self.reading = Some(Segments::of(&point, point.entries.clone(), self.workers));
        }
    }

    async fn finish(&mut self) -> Result<SourceEnd> {
        let ends = self.group.first().zip(self.group.last());
        let ends = ends.map(|(first, last)| (&first.content, last.content.muhash_state()));
        let Some((
            Content::Delta {
                epoch,
                from,
                from_set,
                ..
            },
            Some(muhash_state),
        )) = ends
        else {
            return Err(Error::Incomplete {
                detail: "there are no changes".into(),
            });
        };
        let blocks = self.group.iter().flat_map(|point| point.content.blocks());
        let items = self.group.iter().map(|point| point.items);
        Ok(SourceEnd {
            content: Content::Delta {
                epoch: *epoch,
                from: *from,
                from_set: *from_set,
                blocks: blocks.copied().collect(),
                muhash_state: muhash_state.clone(),
            },
            items: items.fold(0, u64::saturating_add),
        })
    }
}
