use std::collections::hash_map::RandomState;
use std::fmt::{self, Debug};
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::operation::upload_part::builders::UploadPartFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode,
    ServerSideEncryption, StorageClass,
};
use aws_smithy_types::base64;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use groundtackle_backup::{
    Error, Listing, ObjectInfo, ObjectKey, Outcome, PutIf, Refused, Result, Retryability, Target,
    TargetCapabilities, Upload,
};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::config::{Checksum, Encryption, MAX_PARTS, Retention, S3TargetConfig};
use crate::connect;
use crate::error::{BACKEND, Failed, Failure, retrying};
use crate::look::{self, Found, Version, WRITER, is_own, wrong_length};
use crate::upload::S3Upload;

/// A bucket, or what lies behind a prefix in one, as a target. Clones share it.
#[derive(Clone, Debug)]
pub struct S3Target {
    bucket: Arc<Bucket>,
}

/// A bucket as it was found when the target was opened.
pub(crate) struct Bucket {
    pub(crate) client: Client,
    pub(crate) config: S3TargetConfig,
    pub(crate) versioned: bool,
    pub(crate) conditional: bool,
    /// For parts that are under way, of all uploads.
    pub(crate) parts: Arc<Semaphore>,
}

impl Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("bucket", &self.config.bucket)
            .field("prefix", &self.config.prefix)
            .field("endpoint", &self.config.endpoint)
            .field("versioned", &self.versioned)
            .field("conditional", &self.conditional)
            .finish_non_exhaustive()
    }
}

/// A write that may have been applied.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) writer: String,
    /// From the answer, if there was one.
    pub(crate) tag: Option<String>,
    pub(crate) bytes: u64,
}

/// A text that no other write has.
pub(crate) fn unique() -> String {
    // Seeded by the system.
    let number = || RandomState::new().build_hasher().finish();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos() as u64;
    format!("{now:016x}{:016x}{:016x}", number(), number())
}

/// The second at which a lock may end.
fn seconds(until: SystemTime) -> DateTime {
    let since = until.duration_since(UNIX_EPOCH).unwrap_or_default();
    let whole = since.as_secs() + u64::from(since.subsec_nanos() > 0);
    DateTime::from_secs(i64::try_from(whole).unwrap_or(i64::MAX))
}

impl S3Target {
    /// Opens a bucket: asks whether it keeps versions and locks, and tries whether it keeps conditions.
    ///
    /// # Errors
    /// `InvalidRequest` for settings that make no sense together, or a bucket without the locks that are asked for.
    /// `Denied` without the rights to look. When the server could not answer.
    pub async fn open(config: S3TargetConfig) -> Result<Self> {
        config.check()?;
        let client = connect::client(&config).await?;
        let mut bucket = Bucket {
            client,
            parts: Arc::new(Semaphore::new(config.parts_in_flight)),
            config,
            versioned: false,
            conditional: false,
        };
        bucket.versioned = bucket.is_versioned().await?;
        bucket.check_lock().await?;
        bucket.conditional = bucket.keeps_conditions().await?;
        let bucket = Arc::new(bucket);
        Ok(Self { bucket })
    }
}

impl Bucket {
    pub(crate) fn path(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.config.prefix)
    }

    pub(crate) async fn retrying<T, F>(&self, request: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        retrying(&self.config.retry, self.config.answer_timeout, request).await
    }

    fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        match self.config.checksum {
            Checksum::Crc32c => Some(ChecksumAlgorithm::Crc32C),
            Checksum::Sha256 => Some(ChecksumAlgorithm::Sha256),
            Checksum::Signature => None,
        }
    }

    fn encryption(&self) -> Option<ServerSideEncryption> {
        match self.config.encryption {
            Encryption::Bucket => None,
            Encryption::Aes256 => Some(ServerSideEncryption::Aes256),
            Encryption::Kms => Some(ServerSideEncryption::AwsKms),
        }
    }

    fn storage_class(&self) -> Option<StorageClass> {
        let class = self.config.storage_class.as_deref();
        class.map(StorageClass::from)
    }

    fn lock_mode(&self) -> Option<ObjectLockMode> {
        self.config.object_lock.map(|retention| match retention {
            Retention::Governance => ObjectLockMode::Governance,
            Retention::Compliance => ObjectLockMode::Compliance,
        })
    }

    /// A body's checksum, as the server wants to have it. In a header: as the SDK sends it, behind the body, many
    /// servers don't understand it.
    fn checksum(&self, body: &[u8]) -> (Option<String>, Option<String>) {
        match self.config.checksum {
            Checksum::Crc32c => {
                let sum = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, body);
                (Some(base64::encode((sum as u32).to_be_bytes())), None)
            }
            Checksum::Sha256 => (None, Some(base64::encode(Sha256::digest(body)))),
            Checksum::Signature => (None, None),
        }
    }

    pub(crate) fn checked_put(
        &self,
        put: PutObjectFluentBuilder,
        body: &Bytes,
    ) -> PutObjectFluentBuilder {
        let (crc32c, sha256) = self.checksum(body);
        put.body(ByteStream::from(body.clone()))
            .set_checksum_algorithm(self.algorithm())
            .set_checksum_crc32_c(crc32c)
            .set_checksum_sha256(sha256)
            .set_server_side_encryption(self.encryption())
            .set_ssekms_key_id(self.config.kms_key.clone())
            .set_storage_class(self.storage_class())
    }

    pub(crate) fn checked_create(
        &self,
        create: CreateMultipartUploadFluentBuilder,
    ) -> CreateMultipartUploadFluentBuilder {
        create
            .set_checksum_algorithm(self.algorithm())
            .set_server_side_encryption(self.encryption())
            .set_ssekms_key_id(self.config.kms_key.clone())
            .set_storage_class(self.storage_class())
    }

    pub(crate) fn checked_part(
        &self,
        part: UploadPartFluentBuilder,
        body: &Bytes,
    ) -> UploadPartFluentBuilder {
        let (crc32c, sha256) = self.checksum(body);
        part.body(ByteStream::from(body.clone()))
            .set_checksum_algorithm(self.algorithm())
            .set_checksum_crc32_c(crc32c)
            .set_checksum_sha256(sha256)
    }

    /// That a lock can be asked for.
    pub(crate) fn check_lockable(&self, lock_until: Option<SystemTime>) -> Result<()> {
        match lock_until {
            Some(_) if self.config.object_lock.is_none() => Err(Error::invalid_request(
                "s3: no locks without object_lock in the settings, and a bucket that has them",
            )),
            _ => Ok(()),
        }
    }

    /// The headers of a new object's lock.
    pub(crate) fn lock_headers(
        &self,
        lock_until: Option<SystemTime>,
    ) -> (Option<ObjectLockMode>, Option<DateTime>) {
        // The server takes no time that is over.
        match lock_until.filter(|until| *until > SystemTime::now()) {
            None => (None, None),
            Some(until) => (self.lock_mode(), Some(seconds(until))),
        }
    }

    pub(crate) async fn put(
        &self,
        key: &ObjectKey,
        body: &Bytes,
        condition: &PutIf,
        lock_until: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>> {
        self.check_lockable(lock_until)?;
        let refused = || match condition {
            PutIf::Absent => Refused::Exists { key: key.clone() },
            PutIf::Unchanged(_) => Refused::Changed { key: key.clone() },
        };
        // Behind a mark that it was deleted an object is still there, and the server sees none; a server without
        // conditions sees nothing at all.
        if !self.conditional || self.versioned && *condition == PutIf::Absent {
            let found = self.look(key).await?;
            let holds = match (condition, &found) {
                (PutIf::Absent, None) => true,
                (PutIf::Unchanged(tag), Some(found)) => found.info.tag == *tag,
                _ => false,
            };
            if !holds {
                return Ok(Err(refused()));
            }
        }
        let (none_match, matches) = match condition {
            _ if !self.conditional => (None, None),
            PutIf::Absent => (Some("*".to_owned()), None),
            PutIf::Unchanged(tag) => (None, Some(format!("\"{}\"", tag.as_str()))),
        };
        let writer = unique();
        let (lock_mode, retain_until) = self.lock_headers(lock_until);
        let put = self.retrying(|| async {
            let put = self.client.put_object().bucket(&self.config.bucket);
            let put = put.key(self.path(key));
            let put = put
                .set_if_none_match(none_match.clone())
                .set_if_match(matches.clone());
            let put = put.metadata(WRITER, &writer);
            let put = put.set_object_lock_mode(lock_mode.clone());
            let put = put.set_object_lock_retain_until_date(retain_until);
            Ok(self.checked_put(put, body).send().await?)
        });
        let action = || format!("put {key}");
        let mut tag = None;
        match put.await {
            Ok(put) => tag = put.e_tag,
            Err(failure)
                if failure.last.is_refused()
                    || failure.last.is_missing() && matches!(condition, PutIf::Unchanged(_)) =>
            {
                if !failure.doubtful {
                    return Ok(Err(refused()));
                }
            }
            Err(failure) => return Err(failure.into_error(action(), true)),
        }
        let bytes = body.len() as u64;
        let written = Written { writer, tag, bytes };
        self.settle(key, &written, lock_until, &action()).await
    }

    /// What a write left, once it may have been applied: ours or somebody else's.
    pub(crate) async fn settle(
        &self,
        key: &ObjectKey,
        written: &Written,
        lock_until: Option<SystemTime>,
        action: &str,
    ) -> Result<Outcome<ObjectInfo>> {
        let applied = |error| {
            Error::backend(
                BACKEND,
                format!("{action}: look at what came of it"),
                Retryability::Indeterminate,
                error,
            )
        };
        let found = self.look(key).await.map_err(applied)?;
        let bytes = written.bytes;
        let is_there = found.is_some();
        let Some(found) = found.filter(|found| is_own(Some(found), &written.writer)) else {
            // Another write has come since. Where there is nothing, the server's word alone would make a manifest name what
            // is not there.
            if let Some(tag) = written.tag.as_ref().filter(|_| is_there) {
                return Ok(Ok(look::info(key, bytes, tag, SystemTime::now())));
            }
            return Err(Error::backend(
                BACKEND,
                action,
                Retryability::Indeterminate,
                "an answer was lost, and now another write's object is there, or none",
            ));
        };
        if found.info.bytes != bytes {
            return Err(Error::corrupt(
                key.as_str(),
                format!(
                    "{bytes} bytes were sent, and the server has {}",
                    found.info.bytes
                ),
            ));
        }
        // Servers that ignore what they don't know would leave it unlocked.
        if let Some(until) = lock_until.filter(|until| *until > SystemTime::now())
            && found.locked_until.is_none_or(|locked| locked < until)
        {
            self.lock_found(key, &found, until).await.map_err(applied)?;
        }
        Ok(Ok(found.info))
    }

    async fn read(&self, key: &ObjectKey, range: &Range<u64>) -> Result<Option<Bytes>> {
        let Some(wanted) = range.end.checked_sub(range.start) else {
            return Err(Error::invalid_request(format!(
                "the range {range:?} of {key} ends before it begins"
            )));
        };
        let known = || async {
            let found = self.look(key).await?;
            let info = found.map(|found| found.info);
            info.map(|info| info.check_range(range)).transpose()
        };
        let Some(last) = range.end.checked_sub(1).filter(|_| wanted > 0) else {
            return Ok(known().await?.map(|()| Bytes::new()));
        };
        let mut version = None;
        loop {
            let get = self.retrying(|| async {
                let get = self.client.get_object().bucket(&self.config.bucket);
                let get = get
                    .key(self.path(key))
                    .range(format!("bytes={}-{last}", range.start));
                // A whole object is checked by its checksum, where it has one.
                let checked = (range.start == 0).then_some(ChecksumMode::Enabled);
                let get = get
                    .set_checksum_mode(checked)
                    .set_version_id(version.clone());
                let got = get.send().await?;
                if got.content_length.and_then(|got| u64::try_from(got).ok()) != Some(wanted) {
                    return Ok(None);
                }
                let bytes = got.body.collect().await;
                let bytes = bytes
                    .map_err(|error| Failed::answer(DisplayErrorContext(&error).to_string()))?
                    .into_bytes();
                match bytes.len() as u64 == wanted {
                    true => Ok(Some(bytes)),
                    false => Err(wrong_length(wanted, bytes.len())),
                }
            });
            match get.await {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => {}
                Err(failure) if failure.last.status == 416 => {}
                Err(failure) if failure.last.is_missing() && version.is_none() => {
                    version = self.hidden(key).await?;
                    match version {
                        None => return Ok(None),
                        Some(_) => continue,
                    }
                }
                Err(failure) if failure.last.is_missing() => return Ok(None),
                Err(failure) => {
                    return Err(failure.into_error(format!("read {range:?} of {key}"), false));
                }
            }
            // Another length than asked for: the range ends behind the object, or the server ignores ranges.
            return match known().await? {
                None => Ok(None),
                Some(()) => Err(Error::backend(
                    BACKEND,
                    format!("read {range:?} of {key}"),
                    Retryability::Permanent,
                    "the server does not answer with the range that it is asked for",
                )),
            };
        }
    }

    /// Deletes one version, or what is there in a bucket without versions.
    async fn delete(&self, path: &str, version: Option<&Version>) -> Result<(), Failure> {
        let delete = self.retrying(|| async {
            let delete = self.client.delete_object().bucket(&self.config.bucket);
            let version = version.map(|version| version.id.clone());
            let delete = delete.key(path).set_version_id(version);
            Ok(delete.send().await?)
        });
        match delete.await {
            Err(failure) if !failure.last.is_missing() => Err(failure),
            _ => Ok(()),
        }
    }

    /// Removes a path that is no object's key with all its versions.
    pub(crate) async fn remove_all(&self, path: &str) -> Result<(), Failure> {
        if !self.versioned {
            return self.delete(path, None).await;
        }
        let page = self.retrying(|| async {
            let list = self.client.list_object_versions();
            let list = list.bucket(&self.config.bucket).prefix(path);
            Ok(list.send().await?)
        });
        let page = page.await?;
        let ids = page.versions().iter().map(|version| version.version_id());
        let markers = page
            .delete_markers()
            .iter()
            .map(|marker| marker.version_id());
        for id in ids.chain(markers) {
            let version = Version {
                id: id.unwrap_or("null").to_owned(),
                is_marker: false,
            };
            self.delete(path, Some(&version)).await?;
        }
        Ok(())
    }

    async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>> {
        let action = || format!("remove {key}");
        let path = self.path(key);
        if !self.versioned {
            let deleted = self.delete(&path, None).await;
            return deleted
                .map(Ok)
                .map_err(|failure| failure.into_error(action(), true));
        }
        // The oldest first, so that none of them shows when the newest goes; the marks last, which hide nothing.
        let mut versions = self.versions(key).await?;
        let objects = versions.iter().filter(|version| !version.is_marker).count();
        if let Some(objects) = versions.get_mut(..objects) {
            objects.reverse();
        }
        for version in &versions {
            let Err(failure) = self.delete(&path, Some(version)).await else {
                continue;
            };
            if failure.last.is_denied() && self.is_locked(&path, version).await? {
                return Ok(Err(Refused::Locked { key: key.clone() }));
            }
            return Err(failure.into_error(action(), true));
        }
        Ok(Ok(()))
    }

    /// Whether it is a lock that denies.
    async fn is_locked(&self, path: &str, version: &Version) -> Result<bool> {
        let head = self.retrying(|| async {
            let head = self.client.head_object().bucket(&self.config.bucket);
            Ok(head.key(path).version_id(&version.id).send().await?)
        });
        match head.await {
            Ok(head) => Ok(head.object_lock_retain_until_date.is_some()
                || head
                    .object_lock_legal_hold_status
                    .is_some_and(|hold| hold.as_str() == "ON")),
            Err(failure) if failure.last.is_missing() => Ok(false),
            Err(failure) => Err(failure.into_error(format!("look for a lock of {path}"), false)),
        }
    }

    async fn lock(&self, key: &ObjectKey, until: SystemTime) -> Result<Outcome<()>> {
        self.check_lockable(Some(until))?;
        let Some(found) = self.look(key).await? else {
            return Ok(Err(Refused::Missing { key: key.clone() }));
        };
        // One that lasts longer stays; the server takes none that is over.
        if found.locked_until.is_none_or(|locked| locked < until) && until > SystemTime::now() {
            self.lock_found(key, &found, until).await?;
        }
        Ok(Ok(()))
    }

    async fn lock_found(&self, key: &ObjectKey, found: &Found, until: SystemTime) -> Result<()> {
        let mode = self
            .lock_mode()
            .map(|mode| ObjectLockRetentionMode::from(mode.as_str()));
        let retention = ObjectLockRetention::builder()
            .set_mode(mode)
            .retain_until_date(seconds(until))
            .build();
        let lock = self.retrying(|| async {
            let lock = self
                .client
                .put_object_retention()
                .bucket(&self.config.bucket);
            let lock = lock
                .key(self.path(key))
                .set_version_id(found.version.clone());
            let lock = lock
                .retention(retention.clone())
                .set_checksum_algorithm(self.algorithm());
            Ok(lock.send().await?)
        });
        let locked = lock.await;
        locked
            .map(drop)
            .map_err(|failure| failure.into_error(format!("lock {key}"), true))
    }

    async fn remove_unfinished(&self, before: SystemTime) -> Result<u64> {
        let action = "remove unfinished uploads";
        let mut removed = 0;
        let (mut key_marker, mut upload_marker) = (None, None);
        loop {
            let page = self.retrying(|| async {
                let list = self.client.list_multipart_uploads();
                let list = list.bucket(&self.config.bucket).prefix(&self.config.prefix);
                let list = list.set_key_marker(key_marker.clone());
                let list = list.set_upload_id_marker(upload_marker.clone());
                Ok(list.send().await?)
            });
            let page = page
                .await
                .map_err(|failure| failure.into_error(action, true))?;
            for upload in page.uploads() {
                let (Some(path), Some(id), Some(begun)) =
                    (upload.key(), upload.upload_id(), upload.initiated())
                else {
                    continue;
                };
                let begun = u64::try_from(begun.secs()).unwrap_or_default();
                if UNIX_EPOCH + Duration::from_secs(begun) >= before {
                    continue;
                }
                let abort = self.retrying(|| async {
                    let abort = self.client.abort_multipart_upload();
                    let abort = abort.bucket(&self.config.bucket).key(path).upload_id(id);
                    Ok(abort.send().await?)
                });
                match abort.await {
                    Ok(_) => removed += 1,
                    Err(failure) if failure.last.is_missing() => {}
                    Err(failure) => return Err(failure.into_error(action, true)),
                }
            }
            let next = (page.next_key_marker, page.next_upload_id_marker);
            if page.is_truncated != Some(true)
                || next.0.is_none()
                || next == (key_marker, upload_marker)
            {
                return Ok(removed);
            }
            (key_marker, upload_marker) = next;
        }
    }
}

#[async_trait]
impl Target for S3Target {
    fn capabilities(&self) -> TargetCapabilities {
        let config = &self.bucket.config;
        let mut capabilities = TargetCapabilities::new(BACKEND);
        capabilities.conditional_put = self.bucket.conditional;
        capabilities.object_lock = config.object_lock.is_some();
        // AWS keeps objects of at most 5 TiB.
        let parts = config.part_size.bytes().saturating_mul(MAX_PARTS);
        capabilities.max_object_bytes = parts.min(5 << 40);
        capabilities
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
        lock_until: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>> {
        self.bucket.put(key, &body, condition, lock_until).await
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        lock_until: Option<SystemTime>,
    ) -> Result<Box<dyn Upload>> {
        self.bucket.check_lockable(lock_until)?;
        Ok(Box::new(S3Upload::new(
            self.bucket.clone(),
            key.clone(),
            lock_until,
        )))
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        self.bucket.read(key, &range).await
    }

    async fn info(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        Ok(self.bucket.look(key).await?.map(|found| found.info))
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Listing> {
        self.bucket.list(prefix, after, limit).await
    }

    async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>> {
        self.bucket.remove(key).await
    }

    async fn lock(&self, key: &ObjectKey, until: SystemTime) -> Result<Outcome<()>> {
        self.bucket.lock(key, until).await
    }

    async fn remove_unfinished(&self, before: SystemTime) -> Result<u64> {
        self.bucket.remove_unfinished(before).await
    }
}
