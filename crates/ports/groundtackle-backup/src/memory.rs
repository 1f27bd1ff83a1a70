//! The target that shows what every other one does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::target::{
    Listing, ObjectInfo, ObjectKey, ObjectTag, Outcome, PutIf, Refused, Target, TargetCapabilities,
    Upload,
};

/// Objects in memory: for tests, and as the executable specification of a target. Clones share them.
#[derive(Clone, Debug)]
pub struct MemoryTarget {
    shared: Arc<Mutex<Objects>>,
    clock: Arc<dyn Clock>,
}

impl Default for MemoryTarget {
    fn default() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }
}

#[derive(Debug, Default)]
struct Objects {
    objects: BTreeMap<ObjectKey, Object>,
    writes: u64,
}

#[derive(Debug)]
struct Object {
    info: ObjectInfo,
    body: Bytes,
    locked_until: Option<SystemTime>,
}

impl MemoryTarget {
    /// Without objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with another clock, for when an object was written and how long it is locked.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::default(),
            clock,
        }
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects {
    fn put(
        &mut self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
        locked_until: Option<SystemTime>,
        written: SystemTime,
    ) -> Outcome<ObjectInfo> {
        let key = key.clone();
        match (self.objects.get(&key), condition) {
            (None, PutIf::Absent) => {}
            (Some(_), PutIf::Absent) => return Err(Refused::Exists { key }),
            (Some(object), PutIf::Unchanged(tag)) if object.info.tag == *tag => {}
            (_, PutIf::Unchanged(_)) => return Err(Refused::Changed { key }),
        }
        self.writes += 1;
        let info = ObjectInfo {
            key: key.clone(),
            bytes: body.len() as u64,
            tag: ObjectTag::new(self.writes.to_string()),
            written,
        };
        let object = Object {
            info: info.clone(),
            body,
            locked_until,
        };
        self.objects.insert(key, object);
        Ok(info)
    }
}

#[async_trait]
impl Target for MemoryTarget {
    fn capabilities(&self) -> TargetCapabilities {
        let mut capabilities = TargetCapabilities::new("memory");
        capabilities.conditional_put = true;
        capabilities.object_lock = true;
        capabilities
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
        lock_until: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>> {
        let now = self.clock.now();
        Ok(self.objects().put(key, body, condition, lock_until, now))
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        lock_until: Option<SystemTime>,
    ) -> Result<Box<dyn Upload>> {
        Ok(Box::new(MemoryUpload {
            target: self.clone(),
            key: key.clone(),
            lock_until,
            body: BytesMut::new(),
        }))
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        let objects = self.objects();
        let Some(object) = objects.objects.get(key) else {
            return Ok(None);
        };
        object.info.check_range(&range)?;
        // What a range within the object is, fits.
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        Ok(Some(
            object.body.slice(index(range.start)..index(range.end)),
        ))
    }

    async fn info(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        let objects = self.objects();
        Ok(objects.objects.get(key).map(|object| object.info.clone()))
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Listing> {
        let objects = self.objects();
        let mut found = objects
            .objects
            .values()
            .map(|object| &object.info)
            .filter(|info| info.key.as_str().starts_with(prefix))
            .filter(|info| after.is_none_or(|after| info.key > *after));
        let listed = found.by_ref().take(limit.max(1)).cloned().collect();
        Ok(Listing {
            objects: listed,
            more: found.next().is_some(),
        })
    }

    async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>> {
        let now = self.clock.now();
        let mut objects = self.objects();
        let locked = objects
            .objects
            .get(key)
            .and_then(|object| object.locked_until);
        if locked.is_some_and(|until| until > now) {
            return Ok(Err(Refused::Locked { key: key.clone() }));
        }
        objects.objects.remove(key);
        Ok(Ok(()))
    }

    async fn lock(&self, key: &ObjectKey, until: SystemTime) -> Result<Outcome<()>> {
        let mut objects = self.objects();
        let Some(object) = objects.objects.get_mut(key) else {
            return Ok(Err(Refused::Missing { key: key.clone() }));
        };
        object.locked_until = object.locked_until.max(Some(until));
        Ok(Ok(()))
    }

    async fn remove_unfinished(&self, _: SystemTime) -> Result<u64> {
        Ok(0)
    }
}

#[derive(Debug)]
struct MemoryUpload {
    target: MemoryTarget,
    key: ObjectKey,
    lock_until: Option<SystemTime>,
    body: BytesMut,
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.body.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Outcome<ObjectInfo>> {
        let Self {
            target,
            key,
            lock_until,
            body,
        } = *self;
        let now = target.clock.now();
        let mut objects = target.objects();
        Ok(objects.put(&key, body.freeze(), &PutIf::Absent, lock_until, now))
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl ObjectInfo {
    /// For adapters: whether the range lies within the object.
    ///
    /// # Errors
    /// `Corrupt` where it does not: the object has been cut short. `InvalidRequest` for a range that ends before it
    /// begins.
    pub fn check_range(&self, range: &Range<u64>) -> Result<()> {
        if range.start > range.end {
            return Err(Error::invalid_request(format!(
                "the range {range:?} of {} ends before it begins",
                self.key
            )));
        }
        if range.end > self.bytes {
            return Err(Error::corrupt(
                self.key.as_str(),
                format!("it has {} bytes, and {range:?} were to be read", self.bytes),
            ));
        }
        Ok(())
    }
}
