use std::any::Any;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use groundtackle_backup::{ObjectInfo, ObjectKey, Outcome, PutIf, Result, Target, Upload};

use crate::content::content;

/// What the author of a target tells the kit: where objects can lie and how a target is opened.
#[async_trait]
pub trait TargetHarness: Send + Sync + 'static {
    /// The adapter.
    type Target: Target;

    /// Where one target's objects lie, apart from all others: a folder, a bucket. Dropping it cleans up.
    type Place: Send + Sync + 'static;

    /// Why there is nothing to test with on this machine, such as a server: every case is skipped then,
    /// says so, and counts. `None`: there is all that is needed.
    fn missing(&self) -> Option<String> {
        None
    }

    /// A place without objects.
    async fn place(&self) -> Self::Place;

    /// Opens the target at `place`. Several are open at one place at once, and see the same objects.
    async fn open(&self, place: &Self::Place) -> Result<Self::Target>;

    /// Sizes around which uploads of this adapter take another way, such as the size of a part: objects of these, and of
    /// a byte less and more, are written and read back.
    fn edges(&self) -> Vec<u64> {
        Vec::new()
    }

    /// The bytes of one upload that the adapter keeps in memory at most: its own promise.
    fn upload_memory_bytes(&self) -> u64 {
        0
    }

    /// Makes the backend at `place` take nothing and answer nothing, without an end, or go on. Returns whether the
    /// harness can: `false` skips what depends on it, and says so.
    async fn stall(&self, _place: &Self::Place, _stalled: bool) -> bool {
        false
    }

    /// How long a lock of this backend lasts at least: what it counts time in.
    fn shortest_lock(&self) -> Duration {
        Duration::from_millis(300)
    }
}

pub(crate) type Place = Arc<dyn Any + Send + Sync>;

/// A [`TargetHarness`] without its types, so that cases are compiled once and not for each adapter.
#[async_trait]
pub(crate) trait Opener: Send + Sync {
    async fn place(&self) -> Place;
    async fn open(&self, place: &Place) -> Result<Arc<dyn Target>>;
    fn edges(&self) -> Vec<u64>;
    fn upload_memory_bytes(&self) -> u64;
    async fn stall(&self, place: &Place, stalled: bool) -> bool;
    fn shortest_lock(&self) -> Duration;
}

fn typed<H: TargetHarness>(place: &Place) -> &H::Place {
    place.downcast_ref().expect("a place of this harness")
}

#[async_trait]
impl<H: TargetHarness> Opener for H {
    async fn place(&self) -> Place {
        Arc::new(TargetHarness::place(self).await)
    }

    async fn open(&self, place: &Place) -> Result<Arc<dyn Target>> {
        Ok(Arc::new(
            TargetHarness::open(self, typed::<H>(place)).await?,
        ))
    }

    fn edges(&self) -> Vec<u64> {
        TargetHarness::edges(self)
    }

    fn upload_memory_bytes(&self) -> u64 {
        TargetHarness::upload_memory_bytes(self)
    }

    async fn stall(&self, place: &Place, stalled: bool) -> bool {
        TargetHarness::stall(self, typed::<H>(place), stalled).await
    }

    fn shortest_lock(&self) -> Duration {
        TargetHarness::shortest_lock(self)
    }
}

/// A failure of the target itself fails the case; refusals are returned.
#[track_caller]
pub(crate) fn done<T>(answer: Result<T>) -> T {
    answer.unwrap_or_else(|error| panic!("the target failed: {error:?}"))
}

/// A key that must be one.
pub(crate) fn key(text: &str) -> ObjectKey {
    ObjectKey::try_from(text).expect("a key")
}

/// The target under test in a place of its own, and what cases do with it over and over.
pub(crate) struct Subject {
    opener: Arc<dyn Opener>,
    // Before the place, so that the target is closed when the place is cleaned up.
    target: Option<Arc<dyn Target>>,
    place: Place,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Deref for Subject {
    type Target = dyn Target;

    fn deref(&self) -> &Self::Target {
        self.target.as_deref().expect("the target is open")
    }
}

impl Subject {
    pub(crate) async fn of(harness: impl TargetHarness) -> Self {
        let opener: Arc<dyn Opener> = Arc::new(harness);
        let place = opener.place().await;
        let target = done(opener.open(&place).await);
        Self {
            opener,
            place,
            target: Some(target),
        }
    }

    /// Another handle of the same place.
    pub(crate) async fn another(&self) -> Arc<dyn Target> {
        done(self.opener.open(&self.place).await)
    }

    /// Closes the target and opens it again.
    pub(crate) async fn reopen(&mut self) {
        self.target = None;
        self.target = Some(self.another().await);
    }

    /// The target, for tasks.
    pub(crate) fn share(&self) -> Arc<dyn Target> {
        self.target.clone().expect("the target is open")
    }

    pub(crate) fn edges(&self) -> Vec<u64> {
        self.opener.edges()
    }

    pub(crate) fn upload_memory_bytes(&self) -> u64 {
        self.opener.upload_memory_bytes()
    }

    pub(crate) async fn stall(&self, stalled: bool) -> bool {
        self.opener.stall(&self.place, stalled).await
    }

    pub(crate) fn shortest_lock(&self) -> Duration {
        self.opener.shortest_lock()
    }

    /// Puts where nothing is.
    pub(crate) async fn create(&self, name: &str, body: &Bytes) -> Outcome<ObjectInfo> {
        let key = key(name);
        let put = self.put(&key, body.clone(), &PutIf::Absent, None);
        done(put.await)
    }

    /// Puts what must be accepted.
    pub(crate) async fn created(&self, name: &str, body: &Bytes) -> ObjectInfo {
        let info = self.create(name, body).await.expect("nothing was there");
        assert_eq!(info.key, key(name));
        assert_eq!(info.bytes, body.len() as u64);
        info
    }

    /// Puts over this content.
    pub(crate) async fn replace(&self, info: &ObjectInfo, body: &Bytes) -> Outcome<ObjectInfo> {
        let unchanged = PutIf::Unchanged(info.tag.clone());
        done(self.put(&info.key, body.clone(), &unchanged, None).await)
    }

    /// Begins an upload and writes `content(tag)` in pieces of odd sizes.
    pub(crate) async fn uploading(
        &self,
        name: &str,
        tag: u64,
        bytes: u64,
        lock_until: Option<SystemTime>,
    ) -> Box<dyn Upload> {
        let mut upload = done(self.upload(&key(name), lock_until).await);
        for range in pieces(bytes) {
            done(upload.write(content(tag, range)).await);
        }
        upload
    }

    /// An upload that must be accepted.
    pub(crate) async fn uploaded(&self, name: &str, tag: u64, bytes: u64) -> ObjectInfo {
        let upload = self.uploading(name, tag, bytes, None).await;
        let info = done(upload.finish().await).expect("nothing was there");
        assert_eq!((&info.key, info.bytes), (&key(name), bytes));
        info
    }

    /// The whole object; `None` where there is none.
    pub(crate) async fn whole(&self, name: &str) -> Option<Bytes> {
        let key = key(name);
        let info = done(self.info(&key).await)?;
        assert_eq!(info.key, key);
        Some(done(self.read(&key, 0..info.bytes).await).expect("what is known can be read"))
    }

    /// That there is no such object, by every way to look.
    pub(crate) async fn assert_gone(&self, name: &str) {
        let key = key(name);
        assert_eq!(done(self.info(&key).await), None, "{name}");
        assert_eq!(done(self.read(&key, 0..1).await), None, "{name}");
        assert_eq!(done(self.read(&key, 0..0).await), None, "{name}");
        let listed = done(self.list(name, None, 1).await);
        assert!(
            listed.objects.iter().all(|info| info.key != key),
            "{listed:?}"
        );
    }

    /// That `content(tag)` is the object, read in pieces.
    pub(crate) async fn assert_content(&self, name: &str, tag: u64, bytes: u64) {
        let key = key(name);
        let info = done(self.info(&key).await).expect("the object is there");
        assert_eq!(info.bytes, bytes);
        for range in pieces(bytes) {
            let read = done(self.read(&key, range.clone()).await).expect("the object is there");
            assert!(read == content(tag, range.clone()), "{name} at {range:?}");
        }
    }

    /// All keys with a prefix, by pages of `limit`.
    pub(crate) async fn listed(&self, prefix: &str, limit: usize) -> Vec<ObjectInfo> {
        list_all(&**self, prefix, limit).await
    }

    pub(crate) async fn remove_it(&self, name: &str) -> Outcome<()> {
        done(self.remove(&key(name)).await)
    }
}

/// All keys with a prefix, by pages of `limit`; each page in order, behind the one before, and no larger than asked.
pub(crate) async fn list_all(target: &dyn Target, prefix: &str, limit: usize) -> Vec<ObjectInfo> {
    let mut all: Vec<ObjectInfo> = Vec::new();
    loop {
        let after = all.last().map(|info| info.key.clone());
        let page = done(target.list(prefix, after.as_ref(), limit).await);
        assert!(page.objects.len() <= limit.max(1), "{}", page.objects.len());
        assert!(
            !page.more || !page.objects.is_empty(),
            "a page without objects has none behind it"
        );
        for info in page.objects {
            assert!(info.key.as_str().starts_with(prefix), "{info:?}");
            let last = all.last().map(|last| last.key.as_str().as_bytes());
            assert!(last < Some(info.key.as_str().as_bytes()), "{info:?}");
            all.push(info);
        }
        if !page.more {
            return all;
        }
    }
}

/// Odd pieces of so many bytes, among them empty ones and one of more than 16 MiB.
fn pieces(bytes: u64) -> impl Iterator<Item = Range<u64>> {
    const SIZES: [u64; 8] = [1, 0, 65_537, 4_096, 17_000_003, 1_048_575, 7, 3_333_333];
    let mut sizes = SIZES.into_iter().cycle();
    let mut at = 0;
    std::iter::from_fn(move || {
        let size = sizes.next()?;
        let range = at..bytes.min(at + size);
        at = range.end;
        (range.start < bytes).then_some(range)
    })
}
