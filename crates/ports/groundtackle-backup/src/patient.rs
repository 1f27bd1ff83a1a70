//! A target whose calls end.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use groundtackle_core::Retryability;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::several::Member;
use crate::target::{
    Listing, ObjectInfo, ObjectKey, Outcome, PutIf, Target, TargetCapabilities, Upload,
};

/// Around another one: what takes longer than `patience` has failed. It may have been done.
#[derive(Clone, Debug)]
pub(crate) struct Patient {
    pub(crate) target: Arc<dyn Target>,
    pub(crate) patience: Duration,
}

async fn within<T>(
    patience: Duration,
    backend: &'static str,
    what: impl FnOnce() -> String,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    timeout(patience, call).await.unwrap_or_else(|_| {
        Err(Error::backend(
            backend,
            what(),
            Retryability::Indeterminate,
            format!("no answer for {} s", patience.as_secs_f64()),
        ))
    })
}

impl Patient {
    async fn within<T>(
        &self,
        what: impl FnOnce() -> String,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        within(
            self.patience,
            self.target.capabilities().backend,
            what,
            call,
        )
        .await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Target for Patient {
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
        let put = self.target.put(key, body, condition, lock_until);
        self.within(|| format!("putting {key}"), put).await
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        lock_until: Option<SystemTime>,
    ) -> Result<Box<dyn Upload>> {
        let began = self.target.upload(key, lock_until);
        let upload = self.within(|| format!("beginning {key}"), began).await?;
        Ok(Box::new(PatientUpload {
            upload,
            key: key.clone(),
            patience: self.patience,
            backend: self.target.capabilities().backend,
        }))
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        let read = self.target.read(key, range);
        self.within(|| format!("reading {key}"), read).await
    }

    async fn info(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        let info = self.target.info(key);
        self.within(|| format!("looking at {key}"), info).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Listing> {
        let listing = self.target.list(prefix, after, limit);
        self.within(|| format!("listing {prefix}"), listing).await
    }

    async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>> {
        let removed = self.target.remove(key);
        self.within(|| format!("removing {key}"), removed).await
    }

    async fn lock(&self, key: &ObjectKey, until: SystemTime) -> Result<Outcome<()>> {
        let locked = self.target.lock(key, until);
        self.within(|| format!("locking {key}"), locked).await
    }

    async fn remove_unfinished(&self, before: SystemTime) -> Result<u64> {
        let removed = self.target.remove_unfinished(before);
        self.within(|| "removing unfinished uploads".into(), removed)
            .await
    }
}

#[derive(Debug)]
struct PatientUpload {
    upload: Box<dyn Upload>,
    key: ObjectKey,
    patience: Duration,
    backend: &'static str,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Upload for PatientUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let Self {
            upload,
            key,
            patience,
            backend,
        } = self;
        within(
            *patience,
            backend,
            || format!("writing {key}"),
            upload.write(bytes),
        )
        .await
    }

    async fn finish(self: Box<Self>) -> Result<Outcome<ObjectInfo>> {
        let Self {
            upload,
            key,
            patience,
            backend,
        } = *self;
        within(
            patience,
            backend,
            || format!("finishing {key}"),
            upload.finish(),
        )
        .await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let Self {
            upload,
            key,
            patience,
            backend,
        } = *self;
        within(
            patience,
            backend,
            || format!("giving up {key}"),
            upload.abort(),
        )
        .await
    }
}
