//! How much goes to targets and comes back, and how fast it may.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use crate::error::Result;
use crate::several::Member;
use crate::target::{
    Listing, ObjectInfo, ObjectKey, Outcome, PutIf, Target, TargetCapabilities, Upload,
};

/// Counts the contents of objects on their way, and slows them down. One may be around several targets, whose contents it
/// counts, and limits, together. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    written: Arc<Lane>,
    read: Arc<Lane>,
}

#[derive(Debug, Default)]
struct Lane {
    bytes: AtomicU64,
    pace: Option<Pace>,
}

#[derive(Debug)]
struct Pace {
    bytes_per_second: NonZeroU64,
    /// When what was let through has had its time.
    free: Mutex<Option<Instant>>,
}

impl Meter {
    /// Counts alone, unless a limit is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// So many bytes are written a second at most, on average: each piece goes at once, and the next one waits. Pieces have
    /// up to 8 MiB; a [`Several`](crate::Several) needs [patience](crate::Several::with_patience) for one. Counts from zero.
    #[must_use]
    pub fn with_write_limit(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.written = Lane::limited(bytes_per_second);
        self
    }

    /// The same of what is read.
    #[must_use]
    pub fn with_read_limit(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.read = Lane::limited(bytes_per_second);
        self
    }

    /// A target whose contents are counted here. It does what the other one does, also where it is one of several, but for
    /// its [`copies`](Target::copies), which are read past it: put a meter around each of those.
    pub fn around(&self, target: Arc<dyn Target>) -> Metered {
        Metered {
            target,
            meter: self.clone(),
        }
    }

    /// Bytes that targets took. They may not have become objects.
    pub fn written(&self) -> u64 {
        self.written.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that targets gave.
    pub fn read(&self) -> u64 {
        self.read.bytes.load(Ordering::Relaxed)
    }
}

impl Lane {
    fn limited(bytes_per_second: NonZeroU64) -> Arc<Self> {
        let free = Mutex::default();
        let pace = Some(Pace {
            bytes_per_second,
            free,
        });
        Arc::new(Self {
            bytes: AtomicU64::new(0),
            pace,
        })
    }

    /// Waits until so many bytes may go.
    async fn wait(&self, bytes: u64) {
        if let Some(pace) = &self.pace
            && bytes > 0
        {
            sleep_until(pace.turn(bytes)).await;
        }
    }

    fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Pace {
    /// When they may go. Those after them wait until these have had their time.
    fn turn(&self, bytes: u64) -> Instant {
        let now = Instant::now();
        let takes = bytes as f64 / self.bytes_per_second.get() as f64;
        let takes = Duration::try_from_secs_f64(takes).unwrap_or(Duration::MAX);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = free.map_or(now, |free| free.max(now));
        *free = Some(turn.checked_add(takes).unwrap_or(turn));
        turn
    }
}

/// A target around which a [`Meter`] is.
#[derive(Clone, Debug)]
pub struct Metered {
    target: Arc<dyn Target>,
    meter: Meter,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Target for Metered {
    fn capabilities(&self) -> TargetCapabilities {
        self.target.capabilities()
    }

    fn copies(&self) -> &[Member] {
        self.target.copies()
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
        lock_until: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>> {
        let bytes = body.len();
        self.meter.written.wait(bytes as u64).await;
        let put = self.target.put(key, body, condition, lock_until).await?;
        self.meter.written.count(bytes);
        Ok(put)
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        lock_until: Option<SystemTime>,
    ) -> Result<Box<dyn Upload>> {
        let upload = self.target.upload(key, lock_until).await?;
        let written = self.meter.written.clone();
        Ok(Box::new(MeteredUpload { upload, written }))
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        let bytes = range.end.saturating_sub(range.start);
        self.meter.read.wait(bytes).await;
        let body = self.target.read(key, range).await?;
        self.meter.read.count(body.as_ref().map_or(0, Bytes::len));
        Ok(body)
    }

    async fn info(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        self.target.info(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Listing> {
        self.target.list(prefix, after, limit).await
    }

    async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>> {
        self.target.remove(key).await
    }

    async fn lock(&self, key: &ObjectKey, until: SystemTime) -> Result<Outcome<()>> {
        self.target.lock(key, until).await
    }

    async fn remove_unfinished(&self, before: SystemTime) -> Result<u64> {
        self.target.remove_unfinished(before).await
    }
}

#[derive(Debug)]
struct MeteredUpload {
    upload: Box<dyn Upload>,
    written: Arc<Lane>,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Upload for MeteredUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let count = bytes.len();
        self.written.wait(count as u64).await;
        self.upload.write(bytes).await?;
        self.written.count(count);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Outcome<ObjectInfo>> {
        self.upload.finish().await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.upload.abort().await
    }
}
