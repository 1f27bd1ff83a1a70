//! What is there: objects and their versions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::DateTime;
use groundtackle_backup::{Listing, ObjectInfo, ObjectKey, ObjectTag, Result};

use crate::error::Failed;
use crate::target::Bucket;

/// Metadata that tells who wrote an object, so that a lost answer is settled by looking.
pub(crate) const WRITER: &str = "groundtackle-write";

/// The most that one listing request gives.
const PAGE: usize = 1_000;

/// An object as it is.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) info: ObjectInfo,
    pub(crate) version: Option<String>,
    pub(crate) writer: Option<String>,
    pub(crate) locked_until: Option<SystemTime>,
}

/// A version of an object, or a mark that it was deleted.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) id: String,
    pub(crate) is_marker: bool,
}

fn time(time: &DateTime) -> SystemTime {
    // To the second, as some answers have it: all must agree.
    let seconds = u64::try_from(time.secs()).unwrap_or_default();
    UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(UNIX_EPOCH)
}

pub(crate) fn info(key: &ObjectKey, bytes: u64, tag: &str, written: SystemTime) -> ObjectInfo {
    ObjectInfo {
        key: key.clone(),
        bytes,
        // Some answers quote it, some don't.
        tag: ObjectTag::new(tag.trim_matches('"')),
        written: time(&DateTime::from(written)),
    }
}

fn answered(
    key: &ObjectKey,
    bytes: Option<i64>,
    tag: Option<&str>,
    written: Option<&DateTime>,
) -> ObjectInfo {
    let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
    let tag = tag.unwrap_or_default();
    info(
        key,
        bytes.unwrap_or_default(),
        tag,
        written.map_or(UNIX_EPOCH, time),
    )
}

impl Bucket {
    async fn head(
        &self,
        key: &ObjectKey,
        version: Option<&str>,
    ) -> Result<Option<HeadObjectOutput>> {
        let head = self.retrying(|| async {
            let head = self.client.head_object().bucket(&self.config.bucket);
            let head = head
                .key(self.path(key))
                .set_version_id(version.map(str::to_owned));
            Ok(head.send().await?)
        });
        match head.await {
            Ok(head) => Ok(Some(head)),
            // What names a marker is answered with 405.
            Err(failure) if failure.last.is_missing() || failure.last.status == 405 => Ok(None),
            Err(failure) => Err(failure.into_error(format!("look at {key}"), false)),
        }
    }

    /// The object; a mark that it was deleted hides it as little as it frees its place.
    pub(crate) async fn look(&self, key: &ObjectKey) -> Result<Option<Found>> {
        let mut head = self.head(key, None).await?;
        if head.is_none()
            && let Some(version) = self.hidden(key).await?
        {
            head = self.head(key, Some(&version)).await?;
        }
        Ok(head.map(|head| Found {
            info: answered(
                key,
                head.content_length,
                head.e_tag.as_deref(),
                head.last_modified.as_ref(),
            ),
            version: head.version_id,
            writer: head
                .metadata
                .and_then(|mut metadata| metadata.remove(WRITER)),
            locked_until: head.object_lock_retain_until_date.as_ref().map(time),
        }))
    }

    /// The newest version behind a mark that the object was deleted.
    pub(crate) async fn hidden(&self, key: &ObjectKey) -> Result<Option<String>> {
        if !self.versioned {
            return Ok(None);
        }
        let versions = self.versions(key).await?;
        let newest = versions.into_iter().find(|version| !version.is_marker);
        Ok(newest.map(|version| version.id))
    }

    /// All versions of an object, the newest first, then all marks.
    pub(crate) async fn versions(&self, key: &ObjectKey) -> Result<Vec<Version>> {
        let path = self.path(key);
        let (mut versions, mut markers) = (Vec::new(), Vec::new());
        let (mut key_marker, mut version_marker) = (None, None);
        loop {
            let page = self.retrying(|| async {
                let list = self.client.list_object_versions();
                let list = list.bucket(&self.config.bucket).prefix(&path);
                let list = list.set_key_marker(key_marker.clone());
                let list = list.set_version_id_marker(version_marker.clone());
                Ok(list.send().await?)
            });
            let page = page
                .await
                .map_err(|failure| failure.into_error(format!("list versions of {key}"), false))?;
            let version = |id: Option<&str>, is_marker| Version {
                id: id.unwrap_or("null").to_owned(),
                is_marker,
            };
            // Keys that only begin like it come behind it.
            let mut beyond = false;
            for found in page.versions() {
                match found.key() == Some(path.as_str()) {
                    true => versions.push(version(found.version_id(), false)),
                    false => beyond = true,
                }
            }
            for found in page.delete_markers() {
                match found.key() == Some(path.as_str()) {
                    true => markers.push(version(found.version_id(), true)),
                    false => beyond = true,
                }
            }
            let next = (page.next_key_marker, page.next_version_id_marker);
            if page.is_truncated != Some(true)
                || beyond
                || next.0.is_none()
                || next == (key_marker, version_marker)
            {
                versions.append(&mut markers);
                return Ok(versions);
            }
            (key_marker, version_marker) = next;
        }
    }

    /// The key of an object of this target; `None` of what somebody else put there.
    fn key(&self, path: &str) -> Option<ObjectKey> {
        let own = path.strip_prefix(&self.config.prefix)?;
        ObjectKey::try_from(own).ok()
    }

    pub(crate) async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing> {
        let limit = limit.max(1);
        let mut found = Listing::default();
        // Keys are plain; what can be none begins none, and a server may choke on it.
        let plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/');
        if prefix.len() > ObjectKey::MAX_BYTES || !prefix.bytes().all(plain) {
            return Ok(found);
        }
        let path = format!("{}{prefix}", self.config.prefix);
        let mut at = after.map(|after| self.path(after));
        loop {
            // One more than asked for tells whether there is more.
            let wanted = limit
                .saturating_sub(found.objects.len())
                .saturating_add(1)
                .min(PAGE);
            let (objects, next) = match self.versioned {
                false => self.page(&path, at.as_deref(), wanted).await?,
                true => self.page_of_versions(&path, at.as_deref()).await?,
            };
            for (path, object) in objects {
                let Some(key) = self.key(&path) else { continue };
                // A server that begins a page with what the last one ended with.
                if found.objects.last().is_some_and(|last| last.key >= key)
                    || after.is_some_and(|after| key <= *after)
                {
                    continue;
                }
                if found.objects.len() == limit {
                    found.more = true;
                    return Ok(found);
                }
                found.objects.push(ObjectInfo { key, ..object });
            }
            match next {
                Some(next) if Some(&next) != at.as_ref() => at = Some(next),
                _ => return Ok(found),
            }
        }
    }

    /// Objects behind a path, and where the next page begins if there is one.
    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        wanted: usize,
    ) -> Result<(Vec<(String, ObjectInfo)>, Option<String>)> {
        let page = self.retrying(|| async {
            let list = self.client.list_objects_v2().bucket(&self.config.bucket);
            let list = list
                .prefix(prefix)
                .set_start_after(after.map(str::to_owned));
            let list = list.max_keys(i32::try_from(wanted).unwrap_or(i32::MAX));
            Ok(list.send().await?)
        });
        let page = page
            .await
            .map_err(|failure| failure.into_error(format!("list {prefix:?}"), false))?;
        let objects: Vec<_> = page
            .contents()
            .iter()
            .filter_map(|object| {
                let path = object.key()?.to_owned();
                let info = answered(
                    &self.any_key()?,
                    object.size(),
                    object.e_tag(),
                    object.last_modified(),
                );
                Some((path, info))
            })
            .collect();
        let last = objects.last().map(|(path, _)| path.clone());
        Ok((objects, last.filter(|_| page.is_truncated == Some(true))))
    }

    /// The same of the newest version of each key.
    async fn page_of_versions(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<(Vec<(String, ObjectInfo)>, Option<String>)> {
        let (mut key_marker, mut version_marker) = (after.map(str::to_owned), None);
        loop {
            let page = self.retrying(|| async {
                let list = self.client.list_object_versions();
                let list = list.bucket(&self.config.bucket).prefix(prefix);
                let list = list.set_key_marker(key_marker.clone());
                let list = list.set_version_id_marker(version_marker.clone());
                Ok(list.send().await?)
            });
            let page = page
                .await
                .map_err(|failure| failure.into_error(format!("list {prefix:?}"), false))?;
            let mut objects: Vec<(String, ObjectInfo)> = Vec::new();
            for version in page.versions() {
                let (Some(path), Some(any)) = (version.key(), self.any_key()) else {
                    continue;
                };
                // The newest comes first.
                if objects.last().is_some_and(|(last, _)| last == path) {
                    continue;
                }
                let info = answered(
                    &any,
                    version.size(),
                    version.e_tag(),
                    version.last_modified(),
                );
                objects.push((path.to_owned(), info));
            }
            // A page that ends within the versions of a key goes on behind that key.
            let markers = page
                .delete_markers()
                .iter()
                .filter_map(|marker| marker.key());
            let paths = objects.iter().map(|(path, _)| path.as_str());
            let last = paths.chain(markers).max().map(str::to_owned);
            if page.is_truncated != Some(true) {
                return Ok((objects, None));
            }
            // Of its last key older versions may come first in the next page, behind a marker here.
            let seen = objects.iter().any(|(path, _)| Some(path) == last.as_ref());
            if seen || last.is_none() {
                return Ok((objects, last));
            }
            let next = (
                page.next_key_marker.clone(),
                page.next_version_id_marker.clone(),
            );
            if !objects.is_empty() {
                let last = objects.last().map(|(path, _)| path.clone());
                return Ok((objects, last));
            }
            if next.0.is_none() || next == (key_marker.clone(), version_marker.clone()) {
                return Ok((objects, None));
            }
            (key_marker, version_marker) = next;
        }
    }

    /// A key to be replaced by the right one.
    fn any_key(&self) -> Option<ObjectKey> {
        ObjectKey::try_from("a").ok()
    }
}

/// Where a condition did not hold, after an attempt that may have been applied: whose is what is there?
pub(crate) fn is_own(found: Option<&Found>, writer: &str) -> bool {
    found.is_some_and(|found| found.writer.as_deref() == Some(writer))
}

/// How an answer of another length than asked for is told.
pub(crate) fn wrong_length(wanted: u64, got: usize) -> Failed {
    Failed::answer(format!("{wanted} bytes were asked for, and {got} came"))
}
