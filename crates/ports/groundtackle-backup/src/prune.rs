//! Removes what was forgotten. `docs/adr/0007-pruning.md` says why nothing else is lost, without a lease.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::bytes_as_text::Hex;
use crate::error::{Error, Result};
use crate::forget::{FORGOTTEN, point_of, tombstone_key};
use crate::lease::Turn;
use crate::manifest::{Manifest, POINTS, Pack};
use crate::plan::{Map, end};
use crate::rekey::{WRAPPINGS, point_of_wrapping};
use crate::repository::{Repository, verdict};
use crate::target::{ObjectInfo, ObjectKey, PutIf};

/// The shortest grace beside others that write: twice [`WRITER_LIMIT`](crate::WRITER_LIMIT).
pub const MIN_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

const DEFAULT_GRACE: Duration = Duration::from_secs(48 * 60 * 60);

/// What packs' keys begin with.
pub(crate) const PACKS: &str = "packs/";

/// Objects that were written only to see when.
pub(crate) const CLOCK: &str = "clock/";

/// How to prune.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PruneOptions {
    grace: Duration,
    nobody_else_writes: bool,
    dry_run: bool,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            grace: DEFAULT_GRACE,
            nobody_else_writes: false,
            dry_run: false,
        }
    }
}

impl PruneOptions {
    /// A grace of 48 hours, beside others that write.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long ago a restore point must have been forgotten, and a pack without one written, before it is removed:
    /// [`MIN_GRACE`] or more. A restore that began before a point was forgotten has as long.
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// States that nothing backs up to this repository, forgets or prunes until the prune has ended, nor did since what
    /// an earlier one of these left: then any grace will do. If that is wrong, restore points are lost.
    #[must_use]
    pub const fn nobody_else_writes(mut self) -> Self {
        self.nobody_else_writes = true;
        self
    }

    /// Removes nothing, but for what it wrote to see the time, and says what would go.
    #[must_use]
    pub const fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }
}

/// What [`Repository::prune`] removed; after a dry run, what it would have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Restore points.
    pub points: u64,
    /// Objects with segments.
    pub packs: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Forgotten restore points that stay as others need them.
    pub needed: u64,
    /// Objects that can't be removed yet: locked, or denied. The next prune tries again.
    pub later: u64,
    /// Uploads that nobody finished. A dry run does not count them.
    pub unfinished: u64,
}

/// A manifest that is there.
#[derive(Debug)]
struct Present {
    object: ObjectKey,
    /// Where it is readable.
    manifest: Option<Arc<Manifest>>,
    /// Forgotten, and the grace is over.
    expired: bool,
}

impl Repository {
    /// Removes restore points that were forgotten longer than the grace ago and that no other one needs, and packs
    /// that no restore point names. Restore points of which this says nothing stay as they are, beside any number of backups,
    /// restores and other prunes.
    ///
    /// **Atomicity**: each object for itself, so that at no moment a restore point is there without what it needs.
    /// **Idempotency**: yes. **Cancel safety**: repeat it; it goes on. Memory: all manifests.
    ///
    /// # Errors
    /// `InvalidRequest` for a grace below [`MIN_GRACE`], or a target without conditional puts, unless
    /// [`nobody_else_writes`](PruneOptions::nobody_else_writes). `Corrupt`, `Untrusted` or `NewerFormat` for a manifest that
    /// can't be used: what it needs is not known, and nothing is removed; forgotten for longer than the grace, it goes.
    /// `LeaseLost` after the end of a turn that it is done [under](Self::under). When the target could not answer.
    pub async fn prune(&self, options: &PruneOptions) -> Result<Pruned> {
        if !options.nobody_else_writes {
            if options.grace < MIN_GRACE {
                return Err(Error::invalid_request(format!(
                    "a grace of {} s is below {} s: a backup under way could lose what it has sent; wait longer, or see \
                     to it that nobody else writes, and say so",
                    options.grace.as_secs(),
                    MIN_GRACE.as_secs()
                )));
            }
            let capabilities = self.target.capabilities();
            if !capabilities.conditional_put {
                return Err(Error::invalid_request(format!(
                    "{} does not let several hosts write: see to it that nobody else writes, and say so",
                    capabilities.backend
                )));
            }
        }
        let mut pruned = Pruned::default();
        let time = Time {
            now: self.target_now(&mut pruned).await?,
            grace: options.grace,
        };
        // Before the manifests: what names a pack that is older than the grace is among them then.
        let packs = self.list_all(PACKS).await?;
        let tombstones = self.list_all(FORGOTTEN).await?;
        let mut present = self.present(&tombstones, &time).await?;
        let going = going(&mut present, &mut pruned);
        self.check_lease(&Turn::Prune).await?;

        let mut staying = HashSet::new();
        for (at, needs) in going {
            let Some(Present { object, .. }) = present.get(at) else {
                continue;
            };
            // What one that could not be removed needs stays with it, until it can come along.
            let name = present.get(at).and_then(Present::name);
            let held = name.is_some_and(|name| staying.contains(&name));
            if held || !self.remove_point(object, options, &mut pruned).await? {
                staying.extend(needs);
                continue;
            }
            pruned.points = pruned.points.saturating_add(1);
            if let Some(gone) = present.get_mut(at) {
                gone.manifest = None;
            }
        }
        if !options.dry_run {
            self.remove_tombstones(&tombstones, &time, &mut pruned)
                .await?;
        }

        if !options.dry_run {
            self.remove_wrappings(&time, &mut pruned).await?;
        }

        let named: HashSet<_> = present
            .iter()
            .filter_map(|point| point.manifest.as_deref())
            .flat_map(|manifest| manifest.packs.iter().map(|pack| Pack::key(&pack.id)))
            .collect::<Result<_>>()?;
        for pack in packs {
            if named.contains(&pack.key) || !time.is_over(&pack) {
                continue;
            }
            if options.dry_run || self.remove_or_later(&pack.key, &mut pruned).await? {
                pruned.packs = pruned.packs.saturating_add(1);
                pruned.bytes = pruned.bytes.saturating_add(pack.bytes);
            }
        }
        if !options.dry_run {
            if let Some(before) = time.now.checked_sub(time.grace) {
                pruned.unfinished = self.target.remove_unfinished(before).await?;
            }
            for left in self.list_all(CLOCK).await? {
                if time.is_over(&left) {
                    self.remove_or_later(&left.key, &mut pruned).await?;
                }
            }
        }
        Ok(pruned)
    }

    /// The time by the target's clock, which says when its objects were written.
    pub(crate) async fn target_now(&self, pruned: &mut Pruned) -> Result<SystemTime> {
        let (now, key) = self.target_time().await?;
        self.remove_or_later(&key, pruned).await?;
        Ok(now)
    }

    /// The same, and what was written to see it.
    pub(crate) async fn target_time(&self) -> Result<(SystemTime, ObjectKey)> {
        let mut name = Hex::<16>::default();
        self.entropy.fill(&mut name.0)?;
        let key: ObjectKey = format!("{CLOCK}{name}").try_into()?;
        let put = self
            .target
            .put(&key, Bytes::from_static(b"now"), &PutIf::Absent, None);
        let info = put.await?.map_err(|refused| {
            Error::invalid_request(format!("{refused}, and its name was drawn at random"))
        })?;
        if info.written <= UNIX_EPOCH {
            return Err(Error::corrupt(
                key.as_str(),
                "the target does not say when it was written",
            ));
        }
        Ok((info.written, key))
    }

    /// Every manifest that is there.
    async fn present(&self, tombstones: &[ObjectInfo], time: &Time) -> Result<Vec<Present>> {
        let written: HashMap<_, _> = tombstones.iter().map(|info| (&info.key, info)).collect();
        let mut present = Vec::new();
        for info in self.list_all(POINTS).await? {
            let tombstone = tombstone_key(&info.key);
            let over = tombstone
                .as_ref()
                .and_then(|key| written.get(key))
                .filter(|info| time.is_over(info));
            let expired = match over {
                Some(info) => matches!(verdict(self.tombstone(&info.key).await)?, Ok(Some(()))),
                None => false,
            };
            let manifest = match verdict(self.point(&info.key).await)? {
                Ok(Some(manifest)) => Some(Arc::new(manifest)),
                // Another prune removed it.
                Ok(None) => continue,
                // Nobody needs to know any more.
                Err(_) if expired => None,
                Err(error) => return Err(error),
            };
            present.push(Present {
                object: info.key,
                manifest,
                expired,
            });
        }
        Ok(present)
    }

    /// Whether it is gone. Its tombstone goes later, so that it is offered at no moment.
    async fn remove_point(
        &self,
        object: &ObjectKey,
        options: &PruneOptions,
        pruned: &mut Pruned,
    ) -> Result<bool> {
        if options.dry_run {
            return Ok(true);
        }
        let Some(tombstone) = tombstone_key(object) else {
            return Ok(false);
        };
        // Somebody may have thought better of it.
        if !matches!(verdict(self.tombstone(&tombstone).await)?, Ok(Some(()))) {
            return Ok(false);
        }
        self.remove_or_later(object, pruned).await
    }

    /// Those whose restore points are gone, also by a prune that came no further.
    async fn remove_tombstones(
        &self,
        tombstones: &[ObjectInfo],
        time: &Time,
        pruned: &mut Pruned,
    ) -> Result<()> {
        for info in tombstones.iter().filter(|info| time.is_over(info)) {
            let Some(point) = point_of(&info.key) else {
                continue;
            };
            if self.target.info(&point).await?.is_none() {
                self.remove_or_later(&info.key, pruned).await?;
            }
        }
        Ok(())
    }

    /// Those whose restore points are gone.
    async fn remove_wrappings(&self, time: &Time, pruned: &mut Pruned) -> Result<()> {
        for info in self.list_all(WRAPPINGS).await? {
            let Some(point) = point_of_wrapping(&info.key).filter(|_| time.is_over(&info)) else {
                continue;
            };
            if self.target.info(&point).await?.is_none() {
                self.remove_or_later(&info.key, pruned).await?;
            }
        }
        Ok(())
    }

    /// Whether it is gone; otherwise it counts as one for later.
    async fn remove_or_later(&self, key: &ObjectKey, pruned: &mut Pruned) -> Result<bool> {
        match self.target.remove(key).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(_)) | Err(Error::Denied { .. }) => {
                pruned.later = pruned.later.saturating_add(1);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug)]
struct Time {
    now: SystemTime,
    grace: Duration,
}

impl Time {
    /// Whether an object was written longer ago than the grace. A target that does not know when has 1970 there.
    fn is_over(&self, info: &ObjectInfo) -> bool {
        let age = self.now.duration_since(info.written);
        info.written > UNIX_EPOCH && age.is_ok_and(|age| age >= self.grace)
    }
}

impl Present {
    fn name(&self) -> Option<Hex<16>> {
        self.manifest.as_ref().map(|manifest| manifest.point)
    }
}

/// Which of them go, by their places, in the order in which they are to be removed, each with what it needs.
fn going(present: &mut [Present], pruned: &mut Pruned) -> Vec<(usize, Vec<Hex<16>>)> {
    let mut streams = HashMap::<_, Vec<_>>::new();
    for manifest in present.iter().filter_map(|point| point.manifest.as_ref()) {
        let stream = streams.entry(manifest.stream.clone()).or_default();
        stream.push(manifest.clone());
    }
    let expired: HashSet<_> = present
        .iter()
        .filter(|point| point.expired)
        .filter_map(Present::name)
        .collect();
    let (mut needed, mut needs) = (HashSet::new(), HashMap::new());
    for all in streams.values() {
        let lives = |point: &&Arc<Manifest>| !expired.contains(&point.point);
        let living: Vec<_> = all.iter().filter(lives).cloned().collect();
        let (of_living, of_all) = (Map::of(&living), Map::of(all));
        for point in all {
            let Some(wanted) = end(point) else {
                let uses = point.content.uses().iter().map(|used| used.point);
                // What one that is kept for its segments alone uses itself may go: nothing leads there by way of it.
                match expired.contains(&point.point) {
                    true => drop(needs.insert(point.point, Ok(uses.collect()))),
                    false => needed.extend(uses),
                }
                continue;
            };
            if expired.contains(&point.point) {
                let plan = of_all.plan(all, wanted);
                needs.insert(point.point, plan.map(|plan| plan.points()));
            } else if of_living.plan(&living, wanted).is_err() {
                // Not the best way alone: another prune may see more, and find another one to be the best.
                needed.extend(of_all.all_ways(all, wanted));
            }
        }
    }
    let mut left: Vec<_> = present
        .iter()
        .enumerate()
        .filter(|(_, point)| point.expired)
        .filter(|(_, point)| point.name().is_none_or(|name| !needed.contains(&name)))
        .map(|(at, point)| {
            let mut needs = point
                .name()
                .and_then(|name| needs.remove(&name)?.ok())
                .unwrap_or_default();
            needs.retain(|other| Some(*other) != point.name());
            (at, point.name(), needs)
        })
        .collect();
    let stay = expired
        .len()
        .saturating_sub(left.iter().filter(|(_, name, _)| name.is_some()).count());
    pruned.needed = stay as u64;
    // Newest first, as a rule; whatever another one still needs comes after that.
    left.reverse();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let wanted: HashSet<_> = left
            .iter()
            .flat_map(|(_, _, needs)| needs)
            .copied()
            .collect();
        let (now, after): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|(_, name, _)| name.is_none_or(|name| !wanted.contains(&name)));
        // None at all would be a circle, which ways to the nearest base don't make.
        let circle = now.is_empty();
        let (now, after) = if circle { (after, now) } else { (now, after) };
        ordered.extend(now.into_iter().map(|(at, _, needs)| (at, needs)));
        left = after;
    }
    ordered
}
