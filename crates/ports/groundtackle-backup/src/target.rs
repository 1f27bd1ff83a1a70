//! Where backups lie: objects under keys.

use std::fmt;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::several::Member;

/// The name of an object: parts of `a-z`, `0-9`, `.`, `_` and `-`, joined by `/`; no part is empty or begins with a dot, and
/// all together have at most 255 bytes. So each key is a relative path of any filesystem, and an S3 key. A target need
/// not hold a key beside another that continues it with `/` (`a` and `a/b`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// The longest key, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ObjectKey {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let fine = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        };
        if text.len() > Self::MAX_BYTES || !text.split('/').all(fine) {
            return Err(Error::invalid_request(format!(
                "{text:?} is no key of an object: write parts of a-z, 0-9, '.', '_' and '-', joined by '/', none of them \
                 empty or with a dot at its beginning, at most {} bytes",
                Self::MAX_BYTES
            )));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<&str> for ObjectKey {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        text.to_owned().try_into()
    }
}

impl From<ObjectKey> for String {
    fn from(key: ObjectKey) -> Self {
        key.as_str().into()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What tells one content of an object from another: opaque, from the target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectTag(String);

impl ObjectTag {
    /// From an adapter's text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The adapter's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a target knows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: ObjectKey,
    /// How long it is.
    pub bytes: u64,
    /// Its content's tag.
    pub tag: ObjectTag,
    /// When it was written, by the target's clock: to the second, or better.
    pub written: SystemTime,
}

/// When to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutIf {
    /// Only where there is none.
    Absent,
    /// Only over this content.
    Unchanged(ObjectTag),
}

/// Why a target does not do what it is asked for: the state of its objects, no failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// There is an object of that key.
    #[error("there is an object {key} already")]
    Exists {
        /// The key.
        key: ObjectKey,
    },
    /// The object has another content, or is gone.
    #[error("object {key} has changed")]
    Changed {
        /// The key.
        key: ObjectKey,
    },
    /// The object must stay for now.
    #[error("object {key} is locked")]
    Locked {
        /// The key.
        key: ObjectKey,
    },
    /// There is no such object.
    #[error("there is no object {key}")]
    Missing {
        /// The key.
        key: ObjectKey,
    },
}

/// What a target answers where the state of its objects decides.
pub type Outcome<T> = std::result::Result<T, Refused>;

/// What an adapter can do, for the engine and for the conformance kit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TargetCapabilities {
    /// The adapter's name.
    pub backend: &'static str,
    /// Of several that put under one condition at once, exactly one is told that it did. Without it a repository has
    /// one writer, by configuration, and nothing is removed beside it.
    pub conditional_put: bool,
    /// Objects can be locked until a time: nobody removes them earlier.
    pub object_lock: bool,
    /// The largest object, in bytes.
    pub max_object_bytes: u64,
}

impl TargetCapabilities {
    /// The least that an adapter can promise; set what it does better.
    pub const fn new(backend: &'static str) -> Self {
        Self {
            backend,
            conditional_put: false,
            object_lock: false,
            max_object_bytes: u64::MAX,
        }
    }
}

/// Objects of one listing, ascending by the bytes of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The objects.
    pub objects: Vec<ObjectInfo>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// Where backups lie: a filesystem, a bucket. Objects are written once and never changed, but for a lease.
///
/// An object is there as a whole or not at all, for every reader, at every moment; and what is acknowledged stays after
/// a crash of the machine that keeps it.
#[async_trait]
pub trait Target: Debug + Send + Sync + 'static {
    /// What this target can do.
    fn capabilities(&self) -> TargetCapabilities;

    /// The places of [`Several`](crate::Several), each of which may have what another one lacks or has damaged. None, where it
    /// is one place.
    fn copies(&self) -> &[Member] {
        &[]
    }

    /// Writes a small object, in one piece. `lock_until` needs
    /// [`object_lock`](TargetCapabilities::object_lock).
    ///
    /// **Atomicity**: whole or not at all. With [`conditional_put`](TargetCapabilities::conditional_put) the condition
    /// holds at that moment; without, the adapter looks before it writes. **Idempotency**: none; the repetition of a
    /// put whose answer was lost is refused. **Cancel safety**: it may have been written; look.
    ///
    /// Refusals: `Exists`, `Changed`.
    ///
    /// # Errors
    /// `InvalidRequest` for a lock from a target without locks. When the target could not answer.
    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
        lock_until: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>>;

    /// Begins a large object, of which nothing is seen before [`Upload::finish`].
    ///
    /// # Errors
    /// `InvalidRequest` for a lock from a target without locks. When the target could not answer.
    async fn upload(
        &self,
        key: &ObjectKey,
        lock_until: Option<SystemTime>,
    ) -> Result<Box<dyn Upload>>;

    /// Reads a part of an object; `None` where there is none of that key. What comes has the length asked for.
    ///
    /// **Idempotency**, **cancel safety**: a read.
    ///
    /// # Errors
    /// `Corrupt` where the object ends before the range does; `InvalidRequest` for a range that ends before it begins.
    /// When the target could not answer.
    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>>;

    /// What is known of an object; `None` where there is none.
    ///
    /// **Idempotency**, **cancel safety**: a read.
    ///
    /// # Errors
    /// When the target could not answer.
    async fn info(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>>;

    /// Lists objects whose keys begin with `prefix` (any text, also half a part), in order, behind `after`, at most
    /// `limit` and at least one if there is one. Objects that are neither written nor removed meanwhile come exactly
    /// once over all pages; an object is listed once its write is acknowledged. Unfinished uploads are in no listing.
    ///
    /// **Idempotency**, **cancel safety**: a read.
    ///
    /// # Errors
    /// When the target could not answer.
    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Listing>;

    /// Removes an object; one that is gone already counts as removed.
    ///
    /// **Atomicity**: whole or not at all. **Idempotency**: yes. **Cancel safety**: repeat it.
    ///
    /// Refusals: `Locked`.
    ///
    /// # Errors
    /// When the target could not answer.
    async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>>;

    /// Locks an object until then; a lock that lasts longer stays. Needs
    /// [`object_lock`](TargetCapabilities::object_lock).
    ///
    /// **Idempotency**: yes. **Cancel safety**: repeat it.
    ///
    /// Refusals: `Missing`.
    ///
    /// # Errors
    /// `InvalidRequest` from a target without locks. When the target could not answer.
    async fn lock(&self, key: &ObjectKey, until: SystemTime) -> Result<Outcome<()>>;

    /// Removes what uploads left that were begun before `before` and never finished. How many there were.
    ///
    /// **Idempotency**: yes. **Cancel safety**: repeat it.
    ///
    /// # Errors
    /// When the target could not answer.
    async fn remove_unfinished(&self, before: SystemTime) -> Result<u64>;
}

/// A large object on its way. Dropped without [`finish`](Self::finish) it never becomes an object.
#[async_trait]
pub trait Upload: Debug + Send {
    /// Takes the next bytes, any number of them. It returns when there is room for more, so that memory stays bounded
    /// with a slow target; the adapter may send them later.
    ///
    /// **Cancel safety**: none; drop the upload.
    ///
    /// # Errors
    /// When the target could not take these or earlier bytes. Nothing can follow.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Makes it an object, if there is none of its key, once the target has confirmed every byte by a checksum.
    ///
    /// **Atomicity**: whole or not at all. **Cancel safety**: it may have been written; look.
    ///
    /// Refusals: `Exists`.
    ///
    /// # Errors
    /// When the target could not answer.
    async fn finish(self: Box<Self>) -> Result<Outcome<ObjectInfo>>;

    /// Gives it up, and what was sent goes.
    ///
    /// # Errors
    /// When the target could not answer; what was sent stays until
    /// [`remove_unfinished`](Target::remove_unfinished).
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// Forwards each method to what it is wrapped around.
macro_rules! forward_target {
    ($([$($generics:tt)*] $wrapper:ty),+ $(,)?) => {$(
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<$($generics)*> Target for $wrapper {
            fn capabilities(&self) -> TargetCapabilities {
                (**self).capabilities()
            }
            fn copies(&self) -> &[Member] {
                (**self).copies()
            }
            async fn put(
                &self,
                key: &ObjectKey,
                body: Bytes,
                condition: &PutIf,
                lock_until: Option<SystemTime>,
            ) -> Result<Outcome<ObjectInfo>> {
                (**self).put(key, body, condition, lock_until).await
            }
            async fn upload(
                &self,
                key: &ObjectKey,
                lock_until: Option<SystemTime>,
            ) -> Result<Box<dyn Upload>> {
                (**self).upload(key, lock_until).await
            }
            async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
                (**self).read(key, range).await
            }
            async fn info(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
                (**self).info(key).await
            }
            async fn list(
                &self,
                prefix: &str,
                after: Option<&ObjectKey>,
                limit: usize,
            ) -> Result<Listing> {
                (**self).list(prefix, after, limit).await
            }
            async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>> {
                (**self).remove(key).await
            }
            async fn lock(&self, key: &ObjectKey, until: SystemTime) -> Result<Outcome<()>> {
                (**self).lock(key, until).await
            }
            async fn remove_unfinished(&self, before: SystemTime) -> Result<u64> {
                (**self).remove_unfinished(before).await
            }
        }
    )+};
}

forward_target!([T: Target + ?Sized] Box<T>, [T: Target + ?Sized] Arc<T>);
