//! What a repository says of its newest restore point and of its drills: read from the newest backwards, each object once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use groundtackle_backup::{
    DrillLevel, DrillOutcome, DrillRecord, Error, Evidence, Hex, ObjectKey, Repository, Result,
    Target,
};

use crate::config::BackupCheckConfig;

/// How clocks may differ: what is further in the future than this was written by a clock that goes wrong, and is not taken for new.
const CLOCKS_DIFFER_MILLIS: u64 = 5 * 60 * 1_000;

/// The newest objects of each kind that are looked at.
const LOOKED_AT: usize = 10_000;

/// Objects that are listed at a time.
const LISTED: usize = 1_000;

/// The largest object that is read, in bytes: as the repository's reader has it.
const MAX_BYTES: u64 = 64 << 20;

/// Objects that can't be used are named, so many at most.
const NAMED: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) created_unix_millis: u64,
    /// None of a tree of files.
    pub(crate) height: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drill {
    pub(crate) level: DrillLevel,
    pub(crate) outcome: DrillOutcome,
    pub(crate) finished_unix_millis: u64,
    /// The part of all that it read, if not the whole of what was chosen.
    part: Option<(u32, u32)>,
    /// Whether what it chose came out of a restore.
    restored: bool,
    /// The first reason of one that failed.
    pub(crate) reason: String,
}

impl Drill {
    fn of(drill: &DrillRecord) -> Self {
        // Other levels go over all that was chosen, whatever share is asked for.
        let reads_parts = matches!(drill.level, DrillLevel::Bytes | DrillLevel::Read);
        let part = drill.share.filter(|_| reads_parts).map(|share| {
            let of = share.of.get();
            (share.part % of, of)
        });
        Self {
            level: drill.level,
            outcome: drill.outcome,
            finished_unix_millis: drill.finished_unix_millis,
            part: part.filter(|(_, of)| *of > 1),
            restored: drill.restored.is_some(),
            reason: drill.reasons.first().cloned().unwrap_or_default(),
        }
    }

    pub(crate) fn is_missed(&self) -> bool {
        self.outcome == DrillOutcome::Missed
    }

    fn passed(&self) -> bool {
        self.outcome == DrillOutcome::Passed
    }

    /// Whether it shows that all that was chosen can be had back, as far as this level goes.
    fn proves(&self, level: DrillLevel) -> bool {
        let restored = self.restored || self.level < DrillLevel::Replay;
        self.passed() && self.level >= level && self.part.is_none() && restored
    }

    /// Whether both make up for the same.
    fn is_like(&self, other: &Self) -> bool {
        let what = |drill: &Self| (drill.level, drill.part, drill.outcome);
        what(self) == what(other)
    }

    /// For one that was held later than `earlier`: whether it shows what that one was to show.
    fn makes_up_for(&self, earlier: &Self) -> bool {
        let held = match earlier.outcome {
            DrillOutcome::Missed => !self.is_missed(),
            _ => self.passed(),
        };
        let as_much = self.part.is_none() || self.part == earlier.part;
        held && as_much && self.level >= earlier.level
    }
}

/// What was found, of the newest objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalogue {
    /// The newest restore point of the stream.
    pub(crate) point: Option<Point>,
    /// The last drill that proves a restore.
    pub(crate) proof: Option<Drill>,
    /// The last drill since then that failed, and that none has made up for.
    pub(crate) failed: Option<Drill>,
    /// The same of one that was missed.
    pub(crate) missed: Option<Drill>,
    /// What can't be used, and is newer than what was found, with reasons.
    pub(crate) unusable: Unusable,
    /// Objects that are further in the future than clocks may differ.
    pub(crate) ahead: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unusable {
    pub(crate) count: usize,
    pub(crate) reasons: Vec<String>,
}

impl Unusable {
    fn add(&mut self, error: &Error) {
        self.count = self.count.saturating_add(1);
        if self.reasons.len() < NAMED {
            self.reasons.push(error.to_string());
        }
    }
}

/// What was read before of objects, which are never written again; `None` for those of other streams.
#[derive(Debug)]
struct Known<T>(Mutex<BTreeMap<ObjectKey, Option<T>>>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Known<T> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Option<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is not listed any more.
    fn keep(&self, listed: &VecDeque<ObjectKey>) {
        self.lock()
            .retain(|key, _| listed.binary_search(key).is_ok());
    }

    fn get(&self, key: &ObjectKey) -> Option<Option<T>> {
        self.lock().get(key).cloned()
    }

    fn insert(&self, key: ObjectKey, found: Option<T>) {
        self.lock().insert(key, found);
    }
}

/// Looks at one stream of a repository. What it has read it keeps, so that a run that is cut off is not in vain.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Whose objects are known.
    repository: Mutex<Option<Hex<16>>>,
    points: Known<Point>,
    drills: Known<Drill>,
}

impl Reader {
    /// Reads what is new.
    pub(crate) async fn read(
        &self,
        target: &dyn Target,
        repository: &Repository,
        config: &BackupCheckConfig,
        now: u64,
    ) -> Result<Catalogue> {
        let mut found = Catalogue::default();
        self.expect(repository.descriptor().repository);
        let latest = now.saturating_add(CLOCKS_DIFFER_MILLIS);
        let keys = newest(target, "points/").await?;
        self.points.keep(&keys);
        for key in keys.into_iter().rev() {
            let point = match self.points.get(&key) {
                Some(known) => known,
                None => match repository.point(&key).await {
                    Ok(manifest) => {
                        let mine = manifest.filter(|manifest| manifest.stream == config.stream);
                        let point = mine.map(|manifest| Point {
                            created_unix_millis: manifest.created_unix_millis,
                            height: manifest.content.position().map(|at| at.height),
                        });
                        self.points.insert(key.clone(), point);
                        point
                    }
                    Err(error) if error.is_about_data() => {
                        found.unusable.add(&error);
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            let Some(point) = point else { continue };
            if point.created_unix_millis > latest {
                found.ahead = found.ahead.saturating_add(1);
            } else if !is_forgotten(target, &key).await? {
                found.point = Some(point);
                break;
            }
        }
        self.read_drills(target, repository, config, latest, &mut found)
            .await?;
        Ok(found)
    }

    /// What is known is of another repository than the one that is there now.
    fn expect(&self, repository: Hex<16>) {
        let mut known = self
            .repository
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if known.replace(repository) != Some(repository) {
            self.points.lock().clear();
            self.drills.lock().clear();
        }
    }

    async fn read_drills(
        &self,
        target: &dyn Target,
        repository: &Repository,
        config: &BackupCheckConfig,
        latest: u64,
        found: &mut Catalogue,
    ) -> Result<()> {
        let keys = newest(target, "drills/").await?;
        self.drills.keep(&keys);
        let mut later: Vec<Drill> = Vec::new();
        for key in keys.into_iter().rev() {
            let drill = match self.drills.get(&key) {
                Some(known) => known,
                None => match evidence(target, repository, &key, &config.trusted).await {
                    Ok(evidence) => {
                        let mine =
                            evidence.filter(|evidence| evidence.drill.stream == config.stream);
                        let drill = mine.map(|evidence| Drill::of(&evidence.drill));
                        self.drills.insert(key, drill.clone());
                        drill
                    }
                    Err(error) if error.is_about_data() => {
                        found.unusable.add(&error);
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            let Some(drill) = drill else { continue };
            let made_up_for = later.iter().any(|later| later.makes_up_for(&drill));
            let ahead = drill.finished_unix_millis > latest;
            found.ahead = found.ahead.saturating_add(usize::from(ahead));
            let place = match drill.outcome {
                DrillOutcome::Passed if !ahead && drill.proves(config.drill_level) => {
                    found.proof = Some(drill);
                    break;
                }
                DrillOutcome::Passed => None,
                DrillOutcome::Missed => Some(&mut found.missed),
                _ => Some(&mut found.failed),
            };
            match place {
                Some(place) if !made_up_for && place.is_none() => *place = Some(drill.clone()),
                _ => {}
            }
            // One that a wrong clock sets in the future makes up for nothing.
            if !ahead && !later.iter().any(|later| later.is_like(&drill)) {
                later.push(drill);
            }
        }
        Ok(())
    }
}

/// The newest keys of a kind, ascending: their order is that of time.
async fn newest(target: &dyn Target, prefix: &str) -> Result<VecDeque<ObjectKey>> {
    let mut keys = VecDeque::<ObjectKey>::new();
    loop {
        let listing = target.list(prefix, keys.back(), LISTED).await?;
        let more = listing.more && !listing.objects.is_empty();
        keys.extend(listing.objects.into_iter().map(|info| info.key));
        let beyond = keys.len().saturating_sub(LOOKED_AT);
        keys.drain(..beyond);
        if !more {
            return Ok(keys);
        }
    }
}

/// Whether there is a tombstone, whoever signed it: what somebody wanted to be forgotten is nothing to rely on.
async fn is_forgotten(target: &dyn Target, point: &ObjectKey) -> Result<bool> {
    let Some(name) = point.as_str().strip_prefix("points/") else {
        return Ok(false);
    };
    let tombstone = ObjectKey::try_from(format!("forgotten/{name}"))?;
    Ok(target.info(&tombstone).await?.is_some())
}

/// Evidence of this repository, if a trusted key signed it; `None` where it was removed.
async fn evidence(
    target: &dyn Target,
    repository: &Repository,
    key: &ObjectKey,
    trusted: &[Hex<32>],
) -> Result<Option<Evidence>> {
    let Some(info) = target.info(key).await? else {
        return Ok(None);
    };
    if info.bytes > MAX_BYTES {
        let detail = format!("it has {} bytes", info.bytes);
        return Err(Error::corrupt(key.as_str(), detail));
    }
    let Some(body) = target.read(key, 0..info.bytes).await? else {
        return Ok(None);
    };
    let evidence = Evidence::read(key.as_str(), &body, trusted)?;
    match evidence.drill.repository == repository.descriptor().repository {
        true => Ok(Some(evidence)),
        false => Err(Error::corrupt(
            key.as_str(),
            "it belongs to another repository",
        )),
    }
}
