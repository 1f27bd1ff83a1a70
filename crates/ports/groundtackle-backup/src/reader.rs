//! From the repository back.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::bytes_as_text::Hex;
use crate::error::{Error, Result};
use crate::evidence::Share;
use crate::keys::{KeyUnwrapping, Seal};
use crate::manifest::{Manifest, Pack, Place};
use crate::plan::{Plan, Step};
use crate::repository::Repository;
use crate::source::{Direction, Goal, Segment, SegmentEntry, Sink};
use crate::target::Target;
use crate::writer::{INDEX_CODEC, stopped};

/// The longest segment that is read, in bytes: nothing that is written comes near it.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// Bytes of a pack that are read at a time.
const PIECE_BYTES: u64 = 8 << 20;

/// A restore point, opened: its index was read and everything in it is where it should be.
#[derive(Debug)]
pub(crate) struct OpenPoint {
    target: Arc<dyn Target>,
    pub(crate) manifest: Arc<Manifest>,
    seal: Arc<Seal>,
    pub(crate) entries: Vec<SegmentEntry>,
}

impl Repository {
    pub(crate) async fn open_point(
        &self,
        manifest: &Manifest,
        keys: &dyn KeyUnwrapping,
    ) -> Result<OpenPoint> {
        let object = manifest.object()?;
        let key = keys.unwrap(&manifest.key)?.ok_or_else(|| Error::WrongKey {
            object: object.to_string(),
            recipients: manifest.key.recipients.join(", "),
        })?;
        let mut point = OpenPoint {
            target: self.target.clone(),
            seal: Arc::new(Seal::new(&key, manifest.repository, manifest.point)),
            manifest: Arc::new(manifest.clone()),
            entries: Vec::new(),
        };
        for place in &manifest.index {
            let bytes = point.read(place, INDEX_CODEC).await?;
            let part: Vec<SegmentEntry> = serde_json::from_slice(&bytes)
                .map_err(|error| point.corrupt(place, &format!("index: {error}")))?;
            point.entries.extend(part);
        }
        let items = point
            .entries
            .iter()
            .fold(0_u64, |sum, entry| sum.saturating_add(entry.info.items));
        // Each segment once, in the order in which they were written.
        let places = point.entries.iter().map(|entry| &entry.place);
        let in_order = (0..)
            .zip(places.chain(&manifest.index))
            .all(|(ordinal, place): (u64, _)| place.ordinal == ordinal);
        if point.entries.len() as u64 != manifest.segments || items != manifest.items || !in_order {
            return Err(Error::corrupt(
                object.as_str(),
                "its index does not list what it says",
            ));
        }
        Ok(point)
    }

    /// Restores what a plan leads to.
    ///
    /// **Atomicity**: the sink's; a sink is complete only if this returns a success. **Idempotency**, **cancel safety**:
    /// the sink's. Memory: `workers` + 1 segments beside the sink's.
    ///
    /// # Errors
    /// The first one of target or sink ends it. `WrongKey` if a key is missing. `Differs` if what came out is not what was
    /// backed up.
    pub async fn restore(
        &self,
        plan: &Plan,
        keys: &dyn KeyUnwrapping,
        sink: &mut dyn Sink,
        workers: usize,
    ) -> Result<Goal> {
        let goal = plan.goal(&self.descriptor.network);
        let base = self.open_point(&plan.base, keys).await?;
        sink.begin(&goal).await?;
        for step in &plan.steps {
            let other;
            let point = match &step.point {
                None => &base,
                Some(manifest) => {
                    other = self.open_point(manifest, keys).await?;
                    &other
                }
            };
            point.replay(step, sink, workers).await?;
        }
        let parts = base
            .entries
            .iter()
            .filter(|entry| entry.info.heights.is_none());
        let mut segments = Segments::of(&base, parts.cloned().collect(), workers);
        while let Some(segment) = segments.next().await? {
            sink.base(segment).await?;
        }
        let found = sink.finish(&goal).await?;
        if found.coins != goal.set.coins {
            return Err(Error::Differs {
                what: "the number of coins",
                wanted: goal.set.coins.to_string(),
                found: found.coins.to_string(),
            });
        }
        if found.muhash != goal.set.muhash {
            let shown = |digest: Hex<32>| {
                let mut digest = digest;
                digest.0.reverse();
                digest.to_string()
            };
            return Err(Error::Differs {
                what: "the MuHash of the set",
                wanted: shown(goal.set.muhash),
                found: shown(found.muhash),
            });
        }
        Ok(goal)
    }

    /// Looks at all that a restore point needs of its own.
    ///
    /// # Errors
    /// The first thing found wrong: `Missing`, `Corrupt`, `WrongKey`. When the target could not answer.
    pub async fn check(
        &self,
        manifest: &Manifest,
        depth: CheckDepth<'_>,
        workers: usize,
    ) -> Result<Checked> {
        self.check_share(manifest, depth, None, workers).await
    }

    /// The same, with a part of its packs and segments; all of them must be there.
    pub(crate) async fn check_share(
        &self,
        manifest: &Manifest,
        depth: CheckDepth<'_>,
        share: Option<Share>,
        workers: usize,
    ) -> Result<Checked> {
        let counts = |number| share.is_none_or(|share| share.has(&manifest.point, number));
        let mut checked = Checked::default();
        for (number, pack) in (0..).zip(&manifest.packs) {
            let key = Pack::key(&pack.id)?;
            let info = self.target.info(&key).await?;
            let info = info.ok_or_else(|| missing(key.as_str(), manifest))?;
            if info.bytes != pack.bytes {
                return Err(Error::corrupt(
                    key.as_str(),
                    format!(
                        "it has {} bytes, and {} were written",
                        info.bytes, pack.bytes
                    ),
                ));
            }
            checked.packs = checked.packs.saturating_add(1);
            if matches!(depth, CheckDepth::Presence) || !counts(number) {
                continue;
            }
            let mut hasher = Box::<blake3::Hasher>::default();
            let mut at = 0;
            while at < pack.bytes {
                let end = at.saturating_add(PIECE_BYTES).min(pack.bytes);
                let piece = self.target.read(&key, at..end).await?;
                hasher.update(&piece.ok_or_else(|| missing(key.as_str(), manifest))?);
                at = end;
            }
            if hasher.finalize().as_bytes() != &pack.blake3.0 {
                return Err(Error::corrupt(
                    key.as_str(),
                    "its bytes have another BLAKE3 than those that were written",
                ));
            }
            checked.bytes = checked.bytes.saturating_add(pack.bytes);
        }
        if let CheckDepth::Read(keys) = depth {
            let point = self.open_point(manifest, keys).await?;
            let entries = point.entries.iter();
            let entries = entries.filter(|entry| counts(entry.place.ordinal));
            let mut segments = Segments::of(&point, entries.cloned().collect(), workers);
            while segments.next().await?.is_some() {
                checked.segments = checked.segments.saturating_add(1);
            }
        }
        Ok(checked)
    }
}

/// How closely to look.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum CheckDepth<'a> {
    /// That each object is there, as long as it was.
    Presence,
    /// That each of its bytes is what was written; nothing is decrypted.
    Bytes,
    /// That it can be decrypted as well.
    Read(&'a dyn KeyUnwrapping),
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Checked {
    /// Objects with segments.
    pub packs: u64,
    /// Bytes of them that were read.
    pub bytes: u64,
    /// Segments that were decrypted.
    pub segments: u64,
}

fn missing(object: &str, manifest: &Manifest) -> Error {
    let at = manifest.content.position();
    let at = at.map(|position| format!(" at height {}", position.height));
    Error::Missing {
        object: object.into(),
        needed_by: format!(
            "restore point {}{} needs it",
            manifest.point,
            at.unwrap_or_default()
        ),
    }
}

impl OpenPoint {
    fn corrupt(&self, place: &Place, detail: &str) -> Error {
        let pack = self.pack(place).map(|pack| pack.id).unwrap_or_default();
        let object = Pack::key(&pack).map(|key| key.to_string());
        Error::corrupt(
            format!(
                "{} (bytes {} to {})",
                object.unwrap_or_default(),
                place.offset,
                place.offset.saturating_add(place.bytes)
            ),
            detail,
        )
    }

    fn pack(&self, place: &Place) -> Option<&Pack> {
        self.manifest.packs.get(usize::try_from(place.pack).ok()?)
    }

    /// A segment's sealed bytes.
    async fn fetch(&self, place: &Place) -> Result<Vec<u8>> {
        let end = place.offset.checked_add(place.bytes);
        let within = self
            .pack(place)
            .zip(end)
            .filter(|(pack, end)| *end <= pack.bytes && place.bytes <= MAX_SEGMENT_BYTES);
        let (pack, end) =
            within.ok_or_else(|| self.corrupt(place, "the index leads out of the pack"))?;
        let key = Pack::key(&pack.id)?;
        let bytes = self.target.read(&key, place.offset..end).await?;
        let bytes = bytes.ok_or_else(|| missing(key.as_str(), &self.manifest))?;
        Ok(bytes.into())
    }

    async fn read(&self, place: &Place, codec: &str) -> Result<Vec<u8>> {
        let sealed = self.fetch(place).await?;
        let opened = self.seal.open(place.ordinal, codec, sealed);
        opened.ok_or_else(|| self.corrupt(place, "it can't be decrypted"))
    }

    fn without_index(&self) -> Self {
        Self {
            target: self.target.clone(),
            manifest: self.manifest.clone(),
            seal: self.seal.clone(),
            entries: Vec::new(),
        }
    }

    /// A segment that the index lists, with the BLAKE3 that it says.
    pub(crate) async fn segment(&self, entry: SegmentEntry) -> Result<Segment> {
        let sealed = self.fetch(&entry.place).await?;
        let point = self.without_index();
        tokio::task::spawn_blocking(move || {
            let SegmentEntry {
                info,
                place,
                blake3,
            } = entry;
            let bytes = point.seal.open(place.ordinal, &info.codec, sealed);
            let bytes = bytes.ok_or_else(|| point.corrupt(&place, "it can't be decrypted"))?;
            if blake3::hash(&bytes).as_bytes() != &blake3.0 {
                return Err(point.corrupt(&place, "its plaintext has another BLAKE3"));
            }
            Ok(Segment { info, bytes })
        })
        .await
        .map_err(stopped)?
    }

    async fn replay(&self, step: &Step, sink: &mut dyn Sink, workers: usize) -> Result<()> {
        let touches = |entry: &&SegmentEntry| {
            entry
                .info
                .heights
                .is_some_and(|(first, last)| first <= step.heights.1 && last >= step.heights.0)
        };
        let mut entries: Vec<_> = self.entries.iter().filter(touches).cloned().collect();
        if step.direction == Direction::Backwards {
            entries.reverse();
        }
        let mut segments = Segments::of(self, entries, workers);
        while let Some(segment) = segments.next().await? {
            sink.changes(segment, step.direction, step.heights).await?;
        }
        Ok(())
    }
}

/// Segments in order, some of them read ahead.
struct Segments<'a> {
    point: &'a OpenPoint,
    left: std::vec::IntoIter<SegmentEntry>,
    ahead: VecDeque<JoinHandle<Result<Segment>>>,
    workers: usize,
}

impl Drop for Segments<'_> {
    fn drop(&mut self) {
        self.ahead.iter().for_each(JoinHandle::abort);
    }
}

impl<'a> Segments<'a> {
    fn of(point: &'a OpenPoint, entries: Vec<SegmentEntry>, workers: usize) -> Self {
        Self {
            point,
            left: entries.into_iter(),
            ahead: VecDeque::new(),
            workers,
        }
    }

    async fn next(&mut self) -> Result<Option<Segment>> {
        while self.ahead.len() <= self.workers
            && let Some(entry) = self.left.next()
        {
            let point = self.point.without_index();
            self.ahead
                .push_back(tokio::spawn(async move { point.segment(entry).await }));
        }
        match self.ahead.pop_front() {
            Some(first) => first.await.map_err(stopped)?.map(Some),
            None => Ok(None),
        }
    }
}
