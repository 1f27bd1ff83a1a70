//! From the repository back.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::bytes_as_text::Hex;
use crate::error::{Error, Result};
use crate::evidence::Share;
use crate::keys::{DataKey, KeyUnwrapping, Seal};
use crate::manifest::{BlockEntry, Content, Manifest, Pack, Place};
use crate::plan::{Plan, Step};
use crate::repository::Repository;
use crate::several::{Events, Member};
use crate::source::{Direction, Goal, Segment, SegmentEntry, Sink};
use crate::target::Target;
use crate::writer::{INDEX_CODEC, stopped};

/// The longest segment that is read, in bytes: nothing that is written comes near it.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// Bytes of a pack that are read at a time.
pub(crate) const PIECE_BYTES: u64 = 8 << 20;

/// A restore point, opened: its index was read and everything in it is where it should be.
#[derive(Debug)]
pub(crate) struct OpenPoint {
    target: Arc<dyn Target>,
    events: Events,
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
        Ok(self.open_with_key(manifest, keys).await?.0)
    }

    /// By the first of its wrapped keys that can be unwrapped and opens it, the newest first.
    pub(crate) async fn open_with_key(
        &self,
        manifest: &Manifest,
        keys: &dyn KeyUnwrapping,
    ) -> Result<(OpenPoint, DataKey)> {
        let mut failed = None;
        let mut recipients = Vec::new();
        for wrapped in self.wrapped_keys(manifest).await? {
            let opened = match keys.unwrap(&wrapped) {
                Ok(Some(key)) => self.open_by(manifest, &key).await.map(|point| (point, key)),
                Ok(None) => {
                    recipients.extend(wrapped.recipients);
                    continue;
                }
                Err(error) => Err(error),
            };
            match opened {
                Ok(opened) => return Ok(opened),
                Err(error @ Error::Corrupt { .. }) => {
                    failed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(match failed {
            Some(error) => error,
            None => Error::WrongKey {
                object: manifest.object()?.to_string(),
                recipients: recipients.join(", "),
            },
        })
    }

    pub(crate) async fn open_by(&self, manifest: &Manifest, key: &DataKey) -> Result<OpenPoint> {
        let object = manifest.object()?;
        let point = Arc::new(OpenPoint {
            target: self.target.clone(),
            events: self.events.clone(),
            seal: Arc::new(Seal::new(key, manifest.repository, manifest.point)),
            manifest: Arc::new(manifest.clone()),
            entries: Vec::new(),
        });
        let mut entries = Vec::new();
        for place in &manifest.index {
            let bytes = point.read(*place, INDEX_CODEC.into(), None).await?;
            let part: Vec<SegmentEntry> = serde_json::from_slice(&bytes)
                .map_err(|error| point.corrupt(place, &format!("index: {error}")))?;
            entries.extend(part);
        }
        let point = OpenPoint {
            target: self.target.clone(),
            events: self.events.clone(),
            seal: point.seal.clone(),
            manifest: point.manifest.clone(),
            entries,
        };
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
        check_heights(&manifest.content, &point.entries)
            .map_err(|detail| Error::corrupt(object.as_str(), detail))?;
        Ok(point)
    }

    /// Restores what a plan leads to. Where what a restore point has of blocks can't be read and others have the same, they
    /// are taken, and it is [told](Restored::passed_over).
    ///
    /// **Atomicity**: the sink's; a sink is complete only if this returns a success. **Idempotency**, **cancel safety**:
    /// the sink's. Memory: `workers` + 1 segments beside the sink's.
    ///
    /// # Errors
    /// The first one of target or sink that nothing else makes up for ends it. `WrongKey` if a key is missing. `Differs` if
    /// what came out is not what was backed up.
    pub async fn restore(
        &self,
        plan: &Plan,
        keys: &dyn KeyUnwrapping,
        sink: &mut dyn Sink,
        workers: usize,
    ) -> Result<Restored> {
        let goal = plan.goal(&self.descriptor.network);
        let base = self.open_point(&plan.base, keys).await?;
        sink.begin(&goal).await?;
        let mut passed_over = Vec::new();
        let mut steps: VecDeque<_> = plan.steps.iter().cloned().collect();
        while let Some(step) = steps.pop_front() {
            let Some(manifest) = &step.point else {
                base.replay(&step, sink, workers).await?;
                continue;
            };
            match self.open_step(manifest, &step, keys, workers).await {
                Ok(point) => point.replay(&step, sink, workers).await?,
                Err(error) => match step.by_others() {
                    Some(others) => {
                        passed_over.push(error);
                        others
                            .into_iter()
                            .rev()
                            .for_each(|step| steps.push_front(step));
                    }
                    None => return Err(error),
                },
            }
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
        Ok(Restored { goal, passed_over })
    }

    /// A restore point whose changes can be read, as far as a sink that took some of them could not do without the rest:
    /// that is looked at only where there are others to turn to.
    async fn open_step(
        &self,
        manifest: &Manifest,
        step: &Step,
        keys: &dyn KeyUnwrapping,
        workers: usize,
    ) -> Result<OpenPoint> {
        let point = self.open_point(manifest, keys).await?;
        if !step.others.is_empty() {
            let mut segments = Segments::of(&point, point.entries_of(step), workers);
            while segments.next().await?.is_some() {}
        }
        Ok(point)
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

/// What a restore came to.
#[derive(Debug)]
#[must_use = "what it passed over is damaged"]
#[non_exhaustive]
pub struct Restored {
    /// The set that is there now.
    pub goal: Goal,
    /// What could not be read. Nothing is lost, since other restore points had the same blocks; yet the repository is
    /// damaged.
    pub passed_over: Vec<Error>,
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

/// Whether segments with heights are those of the blocks, in order, and of other codecs than those without.
pub(crate) fn check_heights(
    content: &Content,
    entries: &[SegmentEntry],
) -> std::result::Result<(), &'static str> {
    let (mut changes, mut parts) = (HashSet::new(), HashSet::new());
    let blocks = content.blocks();
    let height = |block: Option<&BlockEntry>| block.map(|block| block.position.height);
    let mut least = height(blocks.first());
    for SegmentEntry { info, .. } in entries {
        let Some((first, last)) = info.heights else {
            parts.insert(&info.codec);
            continue;
        };
        changes.insert(&info.codec);
        // A block may go on in the next segment.
        let follows = least.is_some_and(|least| least <= first) && first <= last;
        if !follows || height(blocks.last()).is_none_or(|highest| last > highest) {
            return Err("its changes are not in the order of its blocks");
        }
        least = Some(last);
    }
    let whole_set = !matches!(content, Content::Delta { .. });
    match changes.is_disjoint(&parts) && (whole_set || parts.is_empty()) {
        true => Ok(()),
        false => Err("its segments are of codecs for something else"),
    }
}

pub(crate) fn missing(object: &str, manifest: &Manifest) -> Error {
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
    async fn fetch(&self, from: &dyn Target, place: &Place) -> Result<Vec<u8>> {
        let end = place.offset.checked_add(place.bytes);
        let within = self
            .pack(place)
            .zip(end)
            .filter(|(pack, end)| *end <= pack.bytes && place.bytes <= MAX_SEGMENT_BYTES);
        let (pack, end) =
            within.ok_or_else(|| self.corrupt(place, "the index leads out of the pack"))?;
        let key = Pack::key(&pack.id)?;
        let bytes = from.read(&key, place.offset..end).await?;
        let bytes = bytes.ok_or_else(|| missing(key.as_str(), &self.manifest))?;
        Ok(bytes.into())
    }

    /// From the first of several places where it is what was sealed. `blake3` is its plaintext's, where that is known.
    async fn read(
        self: &Arc<Self>,
        place: Place,
        codec: String,
        blake3: Option<Hex<32>>,
    ) -> Result<Vec<u8>> {
        let copies = self.target.copies();
        let mut failed = Vec::new();
        for number in 0..copies.len().max(1) {
            let copy = copies.get(number);
            let from = copy.map_or(&self.target, Member::target);
            let (point, codec) = (self.clone(), codec.clone());
            let sealed = self.fetch(&**from, &place).await;
            let opened = match sealed {
                Ok(sealed) => tokio::task::spawn_blocking(move || {
                    let bytes = point.seal.open(place.ordinal, &codec, sealed);
                    let bytes =
                        bytes.ok_or_else(|| point.corrupt(&place, "it can't be decrypted"))?;
                    match blake3 {
                        Some(blake3) if blake3.0 != *blake3::hash(&bytes).as_bytes() => {
                            Err(point.corrupt(&place, "its plaintext has another BLAKE3"))
                        }
                        _ => Ok(bytes),
                    }
                })
                .await
                .map_err(stopped)?,
                Err(error) => Err(error),
            };
            match opened {
                Ok(bytes) => {
                    for (name, error) in failed {
                        self.events.push(name, "reading a segment", &error);
                    }
                    return Ok(bytes);
                }
                Err(error) => failed.push((copy.map_or("", Member::name), error)),
            }
        }
        let first = failed.into_iter().next();
        Err(first.map_or_else(
            || self.corrupt(&place, "there is no target"),
            |(_, error)| error,
        ))
    }

    fn without_index(&self) -> Arc<Self> {
        Arc::new(Self {
            target: self.target.clone(),
            events: self.events.clone(),
            manifest: self.manifest.clone(),
            seal: self.seal.clone(),
            entries: Vec::new(),
        })
    }

    /// A segment that the index lists, with the BLAKE3 that it says.
    pub(crate) async fn segment(&self, entry: SegmentEntry) -> Result<Segment> {
        let SegmentEntry {
            info,
            place,
            blake3,
        } = entry;
        let point = self.without_index();
        let bytes = point.read(place, info.codec.clone(), Some(blake3)).await?;
        Ok(Segment { info, bytes })
    }

    /// The segments of a step, in the order in which they are to be applied.
    fn entries_of(&self, step: &Step) -> Vec<SegmentEntry> {
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
        entries
    }

    async fn replay(&self, step: &Step, sink: &mut dyn Sink, workers: usize) -> Result<()> {
        let mut segments = Segments::of(self, self.entries_of(step), workers);
        while let Some(segment) = segments.next().await? {
            sink.changes(segment, step.direction, step.heights).await?;
        }
        Ok(())
    }
}

/// Segments in order, some of them read ahead.
#[derive(Debug)]
pub(crate) struct Segments {
    point: Arc<OpenPoint>,
    left: std::vec::IntoIter<SegmentEntry>,
    ahead: VecDeque<JoinHandle<Result<Segment>>>,
    workers: usize,
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.ahead.iter().for_each(JoinHandle::abort);
    }
}

impl Segments {
    pub(crate) fn of(point: &OpenPoint, entries: Vec<SegmentEntry>, workers: usize) -> Self {
        Self {
            point: point.without_index(),
            left: entries.into_iter(),
            ahead: VecDeque::new(),
            workers,
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Segment>> {
        while self.ahead.len() <= self.workers
            && let Some(entry) = self.left.next()
        {
            let point = self.point.clone();
            self.ahead
                .push_back(tokio::spawn(async move { point.segment(entry).await }));
        }
        match self.ahead.pop_front() {
            Some(first) => first.await.map_err(stopped)?.map(Some),
            None => Ok(None),
        }
    }
}
