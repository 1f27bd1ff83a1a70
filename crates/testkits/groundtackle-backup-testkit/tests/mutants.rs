//! The kit finds targets that break a promise: each of them fails the case that is about it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test asserts")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use groundtackle_backup::{
    Listing, MemoryTarget, ObjectInfo, ObjectKey, ObjectTag, Outcome, PutIf, Refused, Result,
    Target, TargetCapabilities, Upload,
};
use groundtackle_backup_testkit::{TargetHarness, run_target, target_cases};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Nothing,
    OverwritesOnAbsent,
    OverwritesOnUnchanged,
    RacesOnAbsent,
    RacesOnUnchanged,
    CutsRanges,
    ShiftsRanges,
    FindsFolders,
    NoEmptyObjects,
    ShortKeys,
    OneTagForAll,
    RemovesByPrefix,
    RemoveTwiceFails,
    ForgetsOnReopen,
    ReplacesInTwoSteps,
    ListsByParts,
    ListsUnordered,
    ListsOneTooFew,
    ListsAThousand,
    ListsIncludingAfter,
    ListsLate,
    ListsByOffset,
    PrefixIsAFolder,
    UploadsShowEarly,
    UploadsOverwrite,
    UploadsSwapPieces,
    UploadsLoseEmptyEnd,
    DroppedUploadsFinish,
    UnfinishedTakesFinished,
    UnfinishedTakesYoung,
    UnboundedMemory,
    LocksNothing,
    LocksNoUploads,
    LocksShorten,
    LocksForever,
    LocksMissing,
    IgnoresLocksItHasNot,
}

/// Each with a case that must find it.
const FOUND_BY: &[(Break, &str)] = &[
    (Break::OverwritesOnAbsent, "absent_means_absent"),
    (Break::OverwritesOnUnchanged, "unchanged_means_unchanged"),
    (Break::RacesOnAbsent, "exactly_one_of_many_creates"),
    (Break::RacesOnUnchanged, "exactly_one_of_many_replaces"),
    (Break::RacesOnUnchanged, "no_count_is_lost"),
    (Break::CutsRanges, "a_range_beyond_the_end_is_corrupt"),
    (Break::ShiftsRanges, "parts_have_the_length_asked_for"),
    (Break::FindsFolders, "what_is_not_there_is_none"),
    (Break::NoEmptyObjects, "an_empty_object_is_an_object"),
    (Break::ShortKeys, "the_longest_keys_work"),
    (Break::OneTagForAll, "tags_tell_contents_apart"),
    (Break::RemovesByPrefix, "removed_objects_are_gone"),
    (Break::RemoveTwiceFails, "removing_is_idempotent"),
    (
        Break::ForgetsOnReopen,
        "what_is_acknowledged_outlives_a_restart",
    ),
    (Break::ForgetsOnReopen, "every_handle_sees_the_same"),
    (
        Break::ReplacesInTwoSteps,
        "readers_see_the_whole_old_or_the_whole_new",
    ),
    (Break::ListsByParts, "keys_come_in_the_order_of_their_bytes"),
    (
        Break::ListsUnordered,
        "keys_come_in_the_order_of_their_bytes",
    ),
    (Break::ListsOneTooFew, "pages_join_without_gap_or_overlap"),
    (Break::ListsAThousand, "more_than_a_thousand_are_listed"),
    (
        Break::ListsIncludingAfter,
        "pages_join_without_gap_or_overlap",
    ),
    (Break::ListsLate, "listed_once_acknowledged"),
    (
        Break::ListsByOffset,
        "what_stays_is_listed_once_beside_writers",
    ),
    (Break::PrefixIsAFolder, "a_prefix_is_any_text"),
    (Break::UploadsShowEarly, "nothing_is_seen_before_the_end"),
    (Break::UploadsOverwrite, "one_of_two_uploads_finishes"),
    (
        Break::UploadsOverwrite,
        "exactly_one_of_many_uploads_finishes",
    ),
    (Break::UploadsOverwrite, "an_upload_replaces_nothing"),
    (Break::UploadsSwapPieces, "large_objects_come_back"),
    (Break::UploadsSwapPieces, "objects_of_every_size_come_back"),
    (
        Break::UploadsLoseEmptyEnd,
        "an_upload_without_bytes_is_an_empty_object",
    ),
    (
        Break::DroppedUploadsFinish,
        "dropped_and_aborted_uploads_leave_nothing",
    ),
    (
        Break::UnfinishedTakesFinished,
        "unfinished_uploads_are_removed",
    ),
    (
        Break::UnfinishedTakesYoung,
        "uploads_under_way_are_not_removed",
    ),
    (
        Break::UnfinishedTakesYoung,
        "a_removed_upload_makes_no_object_in_part",
    ),
    (Break::UnboundedMemory, "memory_is_bounded"),
    (Break::LocksNothing, "locked_objects_stay_until_then"),
    (Break::LocksNoUploads, "locked_uploads_stay_until_then"),
    (Break::LocksShorten, "a_shorter_lock_does_not_shorten"),
    (Break::LocksShorten, "a_longer_lock_extends"),
    (Break::LocksForever, "locked_objects_stay_until_then"),
    (Break::LocksMissing, "what_is_not_there_cannot_be_locked"),
    (
        Break::IgnoresLocksItHasNot,
        "locks_are_refused_where_there_are_none",
    ),
];

/// Cases that no break above is about: what they find shows by chance.
const WITHOUT: [&str; 2] = [
    "what_is_put_comes_back",
    "dropped_puts_are_whole_or_not_there",
];

struct Broken(Break);

#[derive(Clone, Debug)]
struct BrokenTarget {
    how: Break,
    inner: MemoryTarget,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    removed: Vec<ObjectKey>,
    locks: BTreeMap<ObjectKey, SystemTime>,
    unlisted: Option<ObjectKey>,
    uploads: Vec<Arc<Mutex<bool>>>,
}

#[async_trait]
impl TargetHarness for Broken {
    type Target = BrokenTarget;
    type Place = BrokenTarget;

    async fn place(&self) -> BrokenTarget {
        BrokenTarget {
            how: self.0,
            inner: MemoryTarget::new(),
            state: Arc::default(),
        }
    }

    async fn open(&self, place: &BrokenTarget) -> Result<BrokenTarget> {
        let mut target = place.clone();
        if self.0 == Break::ForgetsOnReopen {
            target.inner = MemoryTarget::new();
        }
        Ok(target)
    }

    fn upload_memory_bytes(&self) -> u64 {
        if self.0 == Break::UnboundedMemory {
            1 << 20
        } else {
            0
        }
    }

    async fn stall(&self, _: &BrokenTarget, _: bool) -> bool {
        true
    }

    fn shortest_lock(&self) -> Duration {
        Duration::from_millis(50)
    }
}

impl BrokenTarget {
    fn is(&self, how: Break) -> bool {
        self.how == how
    }

    async fn force(&self, key: &ObjectKey, body: Bytes) -> Result<Outcome<ObjectInfo>> {
        loop {
            let condition = match self.inner.info(key).await? {
                Some(info) => PutIf::Unchanged(info.tag),
                None => PutIf::Absent,
            };
            if let Ok(info) = self.inner.put(key, body.clone(), &condition, None).await? {
                return Ok(Ok(info));
            }
        }
    }

    /// Looks, waits for others to look, writes.
    async fn race(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
    ) -> Result<Outcome<ObjectInfo>> {
        let found = self.inner.info(key).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        match (condition, found) {
            (PutIf::Absent, None) => self.force(key, body).await,
            (PutIf::Unchanged(tag), Some(info)) if info.tag == *tag => self.force(key, body).await,
            _ => self.inner.put(key, body, condition, None).await,
        }
    }
}

#[async_trait]
impl Target for BrokenTarget {
    fn capabilities(&self) -> TargetCapabilities {
        let mut capabilities = self.inner.capabilities();
        capabilities.object_lock = !self.is(Break::IgnoresLocksItHasNot);
        capabilities
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
        lock_until: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>> {
        if self.is(Break::ShortKeys) && key.as_str().len() > 200 {
            return self
                .inner
                .put(&"short".try_into()?, body, condition, None)
                .await;
        }
        if self.is(Break::NoEmptyObjects) && body.is_empty() {
            return self
                .inner
                .put(&"nowhere".try_into()?, body, condition, None)
                .await;
        }
        let absent = *condition == PutIf::Absent;
        let put = match self.how {
            Break::OverwritesOnAbsent if absent => self.force(key, body).await?,
            Break::OverwritesOnUnchanged if !absent => self.force(key, body).await?,
            Break::RacesOnAbsent if absent => self.race(key, body, condition).await?,
            Break::RacesOnUnchanged if !absent => self.race(key, body, condition).await?,
            Break::ReplacesInTwoSteps if !absent => {
                let half = BytesMut::from_iter(
                    body.iter().enumerate().map(
                        |(n, byte)| {
                            if n < body.len() / 2 { *byte } else { 0 }
                        },
                    ),
                );
                drop(self.force(key, half.freeze()).await?);
                tokio::time::sleep(Duration::from_millis(1)).await;
                self.force(key, body).await?
            }
            Break::LocksNothing => self.inner.put(key, body, condition, None).await?,
            Break::LocksForever => {
                let later = lock_until.map(|until| until + Duration::from_secs(3600));
                self.inner.put(key, body, condition, later).await?
            }
            Break::LocksShorten => {
                let put = self.inner.put(key, body, condition, None).await?;
                if let (Ok(_), Some(until)) = (&put, lock_until) {
                    self.state.lock().unwrap().locks.insert(key.clone(), until);
                }
                put
            }
            _ => self.inner.put(key, body, condition, lock_until).await?,
        };
        if put.is_ok() && self.is(Break::ListsLate) {
            self.state.lock().unwrap().unlisted = Some(key.clone());
        }
        Ok(put.map(|info| self.known(info)))
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        lock_until: Option<SystemTime>,
    ) -> Result<Box<dyn Upload>> {
        let kept = !self.is(Break::LocksNoUploads) && !self.is(Break::IgnoresLocksItHasNot);
        let upload = Box::new(BrokenUpload {
            target: self.clone(),
            key: key.clone(),
            lock_until: lock_until.filter(|_| kept),
            pieces: Vec::new(),
            removed: Arc::default(),
        });
        self.state
            .lock()
            .unwrap()
            .uploads
            .push(upload.removed.clone());
        Ok(upload)
    }

    async fn read(&self, key: &ObjectKey, mut range: Range<u64>) -> Result<Option<Bytes>> {
        let Some(info) = self.info(key).await? else {
            return Ok(None);
        };
        if self.is(Break::CutsRanges) {
            range = range.start.min(info.bytes)..range.end.min(info.bytes);
        }
        if self.is(Break::ShiftsRanges) && range.start > 0 && range.end < info.bytes {
            range = range.start + 1..range.end + 1;
        }
        self.inner.read(key, range).await
    }

    async fn info(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        if self.is(Break::FindsFolders) {
            let within = self.inner.list(key.as_str(), None, 1).await?;
            return Ok(within.objects.into_iter().next());
        }
        let info = self.inner.info(key).await?;
        Ok(info.map(|info| self.known(info)))
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Listing> {
        let all = self.inner.list("", None, usize::MAX).await?.objects;
        let mut all: Vec<_> = all.into_iter().map(|info| self.known(info)).collect();
        let late = self.state.lock().unwrap().unlisted.take();
        all.retain(|info| late.as_ref() != Some(&info.key));
        match self.how {
            Break::ListsByParts => all.sort_by_key(|info| {
                let parts = info.key.as_str().split('/');
                parts.map(str::to_owned).collect::<Vec<_>>()
            }),
            Break::ListsUnordered => all.reverse(),
            Break::ListsAThousand => all.truncate(1_000),
            _ => {}
        }
        all.retain(|info| match self.how {
            Break::PrefixIsAFolder => prefix
                .rsplit_once('/')
                .is_none_or(|(folder, _)| info.key.as_str().starts_with(folder)),
            _ => info.key.as_str().starts_with(prefix),
        });
        let skipped = match self.how {
            Break::ListsByOffset => {
                all.iter()
                    .filter(|info| after.is_some_and(|after| info.key < *after))
                    .count()
                    + usize::from(after.is_some())
            }
            Break::ListsIncludingAfter => all
                .iter()
                .filter(|info| after.is_some_and(|after| info.key < *after))
                .count(),
            Break::ListsUnordered | Break::ListsByParts => after
                .and_then(|after| all.iter().position(|info| info.key == *after))
                .map_or(0, |at| at + 1),
            _ => all
                .iter()
                .filter(|info| after.is_some_and(|after| info.key <= *after))
                .count(),
        };
        let mut all = all.into_iter().skip(skipped);
        let objects: Vec<_> = all.by_ref().take(limit.max(1)).collect();
        let left = all.len();
        let more = if self.is(Break::ListsOneTooFew) {
            left > 1
        } else {
            left > 0
        };
        Ok(Listing { objects, more })
    }

    async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>> {
        if self.is(Break::RemovesByPrefix) {
            let folder = key
                .as_str()
                .rsplit_once('/')
                .map_or(key.as_str(), |(folder, _)| folder);
            for info in self.inner.list(folder, None, usize::MAX).await?.objects {
                drop(self.inner.remove(&info.key).await?);
            }
        }
        if self.is(Break::RemoveTwiceFails) {
            let mut state = self.state.lock().unwrap();
            if state.removed.contains(key) {
                return Ok(Err(Refused::Missing { key: key.clone() }));
            }
            state.removed.push(key.clone());
        }
        let until = self.state.lock().unwrap().locks.get(key).copied();
        if until.is_some_and(|until| until > SystemTime::now()) {
            return Ok(Err(Refused::Locked { key: key.clone() }));
        }
        self.inner.remove(key).await
    }

    async fn lock(&self, key: &ObjectKey, until: SystemTime) -> Result<Outcome<()>> {
        match self.how {
            Break::LocksShorten => {
                // And a longer one changes nothing.
                let mut state = self.state.lock().unwrap();
                let kept = state.locks.entry(key.clone()).or_insert(until);
                *kept = until.min(*kept);
                Ok(Ok(()))
            }
            Break::LocksNothing | Break::LocksMissing | Break::IgnoresLocksItHasNot => Ok(Ok(())),
            _ => self.inner.lock(key, until).await,
        }
    }

    async fn remove_unfinished(&self, before: SystemTime) -> Result<u64> {
        if self.is(Break::UnfinishedTakesFinished) {
            for info in self.inner.list("", None, usize::MAX).await?.objects {
                drop(self.inner.remove(&info.key).await?);
            }
        }
        if self.is(Break::UnfinishedTakesYoung) {
            for removed in &self.state.lock().unwrap().uploads {
                *removed.lock().unwrap() = true;
            }
        }
        self.inner.remove_unfinished(before).await
    }
}

impl BrokenTarget {
    fn known(&self, mut info: ObjectInfo) -> ObjectInfo {
        if self.is(Break::OneTagForAll) {
            info.tag = ObjectTag::new("same");
        }
        info
    }
}

#[derive(Debug)]
struct BrokenUpload {
    target: BrokenTarget,
    key: ObjectKey,
    lock_until: Option<SystemTime>,
    pieces: Vec<Bytes>,
    removed: Arc<Mutex<bool>>,
}

#[async_trait]
impl Upload for BrokenUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if *self.removed.lock().unwrap() {
            self.pieces.clear();
            *self.removed.lock().unwrap() = false;
        }
        let swaps = self.target.is(Break::UploadsSwapPieces) && self.pieces.len() > 2;
        let at = self.pieces.len() - usize::from(swaps);
        self.pieces.insert(at, bytes);
        if self.target.is(Break::UploadsShowEarly) {
            drop(
                self.target
                    .force(&self.key, self.pieces.concat().into())
                    .await?,
            );
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Outcome<ObjectInfo>> {
        if *self.removed.lock().unwrap() {
            self.pieces.clear();
        }
        let body = Bytes::from(self.pieces.concat());
        if self.target.is(Break::UploadsLoseEmptyEnd) && body.is_empty() {
            let info = ObjectInfo {
                key: self.key.clone(),
                bytes: 0,
                tag: ObjectTag::new("none"),
                written: SystemTime::now(),
            };
            return Ok(Ok(info));
        }
        if self.target.is(Break::UploadsOverwrite) {
            return self.target.force(&self.key, body).await;
        }
        self.target
            .put(&self.key, body, &PutIf::Absent, self.lock_until)
            .await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        if self.target.is(Break::DroppedUploadsFinish) {
            let body = self.pieces.concat();
            drop(self.target.force(&self.key, body.into()).await?);
        }
        Ok(())
    }
}

fn fails(how: Break, case: &str) -> bool {
    catch_unwind(AssertUnwindSafe(|| run_target(Broken(how), case))).is_err()
}

#[test]
fn the_kit_finds_broken_targets() {
    // What it says of them is of no interest.
    std::panic::set_hook(Box::new(|_| {}));
    let missed: Vec<_> = FOUND_BY
        .iter()
        .filter(|(how, case)| !fails(*how, case))
        .collect();
    drop(std::panic::take_hook());
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn every_case_finds_something() {
    for case in target_cases() {
        let finds = FOUND_BY.iter().any(|(_, finds)| *finds == case);
        assert_ne!(finds, WITHOUT.contains(&case), "{case}");
    }
}

/// The wrapper itself breaks nothing.
mod unbroken {
    use super::{Break, Broken};

    groundtackle_backup_testkit::target_conformance!(Broken(Break::Nothing));
}
