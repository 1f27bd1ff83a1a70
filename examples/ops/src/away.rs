//! One of several targets that could not be opened: every call fails, and others make up for it.

use std::ops::Range;
use std::time::SystemTime;

use async_trait::async_trait;
use groundtackle_backup::{
    Error, Listing, ObjectInfo, ObjectKey, Outcome, PutIf, Result, Retryability, Target,
    TargetCapabilities, Upload,
};

#[derive(Debug)]
pub struct Away(String);

impl Away {
    pub fn new(why: &Error) -> Self {
        Self(why.to_string())
    }

    fn error(&self) -> Error {
        let why = self.0.clone();
        Error::backend("the target", "opening it", Retryability::Transient, why)
    }
}

#[async_trait]
impl Target for Away {
    /// Others decide.
    fn capabilities(&self) -> TargetCapabilities {
        let mut capabilities = TargetCapabilities::new("away");
        capabilities.conditional_put = true;
        capabilities
    }

    async fn put(
        &self,
        _: &ObjectKey,
        _: bytes::Bytes,
        _: &PutIf,
        _: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>> {
        Err(self.error())
    }

    async fn upload(&self, _: &ObjectKey, _: Option<SystemTime>) -> Result<Box<dyn Upload>> {
        Err(self.error())
    }

    async fn read(&self, _: &ObjectKey, _: Range<u64>) -> Result<Option<bytes::Bytes>> {
        Err(self.error())
    }

    async fn info(&self, _: &ObjectKey) -> Result<Option<ObjectInfo>> {
        Err(self.error())
    }

    async fn list(&self, _: &str, _: Option<&ObjectKey>, _: usize) -> Result<Listing> {
        Err(self.error())
    }

    async fn remove(&self, _: &ObjectKey) -> Result<Outcome<()>> {
        Err(self.error())
    }

    async fn lock(&self, _: &ObjectKey, _: SystemTime) -> Result<Outcome<()>> {
        Err(self.error())
    }

    async fn remove_unfinished(&self, _: SystemTime) -> Result<u64> {
        Err(self.error())
    }
}
