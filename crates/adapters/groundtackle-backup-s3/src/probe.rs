//! What a server does, asked when a target is opened: there are servers that accept conditions and ignore them.

use aws_sdk_s3::types::{
    BucketVersioningStatus, CompletedMultipartUpload, CompletedPart, ObjectLockEnabled,
};
use bytes::Bytes;
use groundtackle_backup::{Error, Result};

use crate::error::{Failed, Failure};
use crate::target::{Bucket, unique};

const BODY: Bytes = Bytes::from_static(b"probe");

/// An answer to a request whose condition does not hold.
fn refuses<T>(answer: Result<T, Failure>) -> Result<bool, Failure> {
    match answer {
        Ok(_) => Ok(false),
        Err(failure) if failure.last.is_refused() => Ok(true),
        Err(failure) => Err(failure),
    }
}

/// No part of a key begins with a dot: no listing shows it.
fn probe_path(bucket: &Bucket) -> String {
    format!("{}.groundtackle-probe-{}", bucket.config.prefix, unique())
}

impl Bucket {
    /// Whether versions are kept: also where that is suspended, older ones may be there.
    pub(crate) async fn is_versioned(&self) -> Result<bool> {
        let status = self.retrying(|| async {
            let get = self.client.get_bucket_versioning();
            Ok(get.bucket(&self.config.bucket).send().await?)
        });
        match status.await {
            Ok(versioning) => Ok(matches!(
                versioning.status,
                Some(BucketVersioningStatus::Enabled | BucketVersioningStatus::Suspended)
            )),
            // Servers without versions, and users who may not ask: locks need the answer, and nothing else does.
            Err(failure)
                if self.config.object_lock.is_none()
                    && (failure.last.is_denied() || failure.last.status == 501) =>
            {
                Ok(false)
            }
            Err(failure) => {
                let bucket = &self.config.bucket;
                Err(failure.into_error(format!("open bucket {bucket}"), false))
            }
        }
    }

    /// That the bucket has what `object_lock` needs.
    pub(crate) async fn check_lock(&self) -> Result<()> {
        if self.config.object_lock.is_none() {
            return Ok(());
        }
        let bucket = &self.config.bucket;
        let lock = self.retrying(|| async {
            let get = self.client.get_object_lock_configuration();
            Ok(get.bucket(bucket).send().await?)
        });
        let enabled = match lock.await {
            Ok(lock) => lock
                .object_lock_configuration
                .is_some_and(|lock| lock.object_lock_enabled == Some(ObjectLockEnabled::Enabled)),
            Err(failure) if failure.last.status == 404 => false,
            Err(failure) => {
                return Err(failure.into_error(format!("ask for locks of {bucket}"), false));
            }
        };
        if enabled && self.versioned {
            return Ok(());
        }
        Err(Error::invalid_request(format!(
            "s3: bucket {bucket} has no object lock; make one that has, or leave object_lock away"
        )))
    }

    /// Whether conditions are kept: of a put that creates, of one that replaces, and of a multipart upload's end.
    pub(crate) async fn keeps_conditions(&self) -> Result<bool> {
        let path = probe_path(self);
        let kept = self.try_conditions(&path).await;
        let removed = self.remove_all(&path).await;
        match kept {
            Ok(kept) => {
                if let Err(failure) = removed
                    && !failure.last.is_denied()
                {
                    return Err(failure.into_error("remove a probe", true));
                }
                Ok(kept)
            }
            // Who may only read needs no conditions; and some servers refuse what they don't know.
            Err(failure)
                if failure.last.is_denied() || matches!(failure.last.status, 400 | 405 | 501) =>
            {
                Ok(false)
            }
            Err(failure) => Err(failure.into_error("probe conditional writes", true)),
        }
    }

    async fn try_conditions(&self, path: &str) -> Result<bool, Failure> {
        let bucket = &self.config.bucket;
        let put = |none_match: Option<&str>, matches: Option<String>| {
            let put = self.client.put_object().bucket(bucket).key(path);
            let put = put.set_if_none_match(none_match.map(str::to_owned));
            self.checked_put(put.set_if_match(matches), &BODY)
        };
        // A repetition may find what a lost answer wrote: the outcome is the same.
        let first = self.retrying(|| async { Ok(put(Some("*"), None).send().await?) });
        let first = match first.await {
            Err(failure) if !(failure.doubtful && failure.last.is_refused()) => {
                return Err(failure);
            }
            _ => {
                let head = self.retrying(|| async {
                    let head = self.client.head_object().bucket(bucket).key(path);
                    Ok(head.send().await?)
                });
                head.await?.e_tag
            }
        };
        let again = self.retrying(|| async { Ok(put(Some("*"), None).send().await?) });
        if !refuses(again.await)? {
            return Ok(false);
        }
        let other = Some("\"00000000000000000000000000000000\"".to_owned());
        let other = self.retrying(|| async { Ok(put(None, other.clone()).send().await?) });
        if !refuses(other.await)? {
            return Ok(false);
        }
        let same = self.retrying(|| async { Ok(put(None, first.clone()).send().await?) });
        if refuses(same.await)? {
            return Ok(false);
        }
        self.completes_conditionally(path).await
    }

    async fn completes_conditionally(&self, path: &str) -> Result<bool, Failure> {
        let bucket = &self.config.bucket;
        let created = self.retrying(|| async {
            let create = self.client.create_multipart_upload();
            let create = self.checked_create(create.bucket(bucket).key(path));
            let created = create.send().await?;
            created
                .upload_id
                .ok_or_else(|| Failed::answer("an upload without a number".into()))
        });
        let upload = created.await?;
        let part = self.retrying(|| async {
            let part = self.client.upload_part().bucket(bucket).key(path);
            let part = part.upload_id(&upload).part_number(1);
            let part = self.checked_part(part, &BODY);
            Ok(part.send().await?)
        });
        let part = part.await?;
        let part = CompletedPart::builder()
            .part_number(1)
            .set_e_tag(part.e_tag)
            .set_checksum_crc32_c(part.checksum_crc32_c)
            .set_checksum_sha256(part.checksum_sha256)
            .build();
        let parts = CompletedMultipartUpload::builder().parts(part).build();
        let complete = self.retrying(|| async {
            let complete = self.client.complete_multipart_upload();
            let complete = complete.bucket(bucket).key(path).upload_id(&upload);
            let complete = complete.multipart_upload(parts.clone()).if_none_match("*");
            Ok(complete.send().await?)
        });
        let refused = refuses(complete.await)?;
        // Gone already where it was completed.
        let abort = self.client.abort_multipart_upload();
        drop(
            abort
                .bucket(bucket)
                .key(path)
                .upload_id(&upload)
                .send()
                .await,
        );
        Ok(refused)
    }
}
