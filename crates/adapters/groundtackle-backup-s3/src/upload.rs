//! Large objects: parts, several under way at once.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use groundtackle_backup::{
    Error, ObjectInfo, ObjectKey, Outcome, PutIf, Refused, Result, Retryability, Upload,
};
use tokio::task::JoinSet;

use crate::config::MAX_PARTS;
use crate::error::{BACKEND, Failed};
use crate::look::WRITER;
use crate::target::{Bucket, Written, unique};

#[derive(Debug)]
pub(crate) struct S3Upload {
    bucket: Arc<Bucket>,
    key: ObjectKey,
    lock_until: Option<SystemTime>,
    writer: String,
    /// What is not yet a part; less than one.
    buffer: BytesMut,
    bytes: u64,
    /// The server's number; `None` as long as everything fits one put.
    id: Option<String>,
    next_part: i32,
    sending: JoinSet<Result<CompletedPart>>,
    sent: Vec<CompletedPart>,
    failed: bool,
}

impl S3Upload {
    pub(crate) fn new(bucket: Arc<Bucket>, key: ObjectKey, lock_until: Option<SystemTime>) -> Self {
        Self {
            bucket,
            key,
            lock_until,
            writer: unique(),
            buffer: BytesMut::new(),
            bytes: 0,
            id: None,
            next_part: 1,
            sending: JoinSet::new(),
            sent: Vec::new(),
            failed: false,
        }
    }

    async fn begin(&mut self) -> Result<String> {
        if let Some(id) = &self.id {
            return Ok(id.clone());
        }
        let bucket = &self.bucket;
        let (lock_mode, retain_until) = bucket.lock_headers(self.lock_until);
        let created = bucket.retrying(|| async {
            let create = bucket.client.create_multipart_upload();
            let create = create
                .bucket(&bucket.config.bucket)
                .key(bucket.path(&self.key));
            let create = create.metadata(WRITER, &self.writer);
            let create = create.set_object_lock_mode(lock_mode.clone());
            let create = create.set_object_lock_retain_until_date(retain_until);
            let created = bucket.checked_create(create).send().await?;
            created
                .upload_id
                .ok_or_else(|| Failed::answer("an upload without a number".into()))
        });
        // An answer that was lost leaves an upload without parts.
        let id = created.await.map_err(|failure| {
            failure.into_error(format!("begin an upload of {}", self.key), false)
        })?;
        self.id = Some(id.clone());
        Ok(id)
    }

    /// Takes what has been sent; waits for one part at least where as many are under way as may be.
    async fn make_room(&mut self, most: usize) -> Result<()> {
        while let Some(done) = match self.sending.len() > most {
            true => self.sending.join_next().await,
            false => self.sending.try_join_next(),
        } {
            let part = done.map_err(|error| {
                let action = format!("upload of {}", self.key);
                Error::backend(BACKEND, action, Retryability::Transient, error)
            });
            self.sent.push(part.flatten()?);
        }
        Ok(())
    }

    async fn send(&mut self, body: Bytes) -> Result<()> {
        if u64::from(self.next_part.unsigned_abs()) > MAX_PARTS {
            return Err(Error::invalid_request(format!(
                "s3: {} has more than {MAX_PARTS} parts; set a larger part_size",
                self.key
            )));
        }
        let id = self.begin().await?;
        self.make_room(self.bucket.config.parts_in_flight.saturating_sub(1))
            .await?;
        // Never closed.
        let room = self.bucket.parts.clone().acquire_owned().await.ok();
        let (bucket, key, number) = (self.bucket.clone(), self.key.clone(), self.next_part);
        self.next_part += 1;
        self.sending.spawn(async move {
            let _room = room;
            let path = bucket.path(&key);
            let part = bucket.retrying(|| async {
                let part = bucket.client.upload_part().bucket(&bucket.config.bucket);
                let part = part.key(&path).upload_id(&id).part_number(number);
                Ok(bucket.checked_part(part, &body).send().await?)
            });
            // Nothing is an object yet.
            let part = part.await.map_err(|failure| {
                failure.into_error(format!("send part {number} of {key}"), false)
            })?;
            Ok(CompletedPart::builder()
                .part_number(number)
                .set_e_tag(part.e_tag)
                .set_checksum_crc32_c(part.checksum_crc32_c)
                .set_checksum_sha256(part.checksum_sha256)
                .build())
        });
        Ok(())
    }

    async fn take(&mut self, mut bytes: Bytes) -> Result<()> {
        let whole = self.bucket.config.part_bytes();
        self.make_room(self.bucket.config.parts_in_flight).await?;
        while !bytes.is_empty() {
            // A whole part that came in one piece needs no copy, but would keep the caller's memory for longer.
            let room = whole.saturating_sub(self.buffer.len());
            if self.buffer.capacity() == 0 {
                self.buffer.reserve(whole.min(bytes.len().max(1 << 16)));
            }
            self.buffer
                .extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.buffer.len() >= whole {
                let part = std::mem::take(&mut self.buffer).freeze();
                self.send(part).await?;
            }
        }
        Ok(())
    }

    async fn give_up(&mut self) -> Result<()> {
        self.sending.shutdown().await;
        let Some(id) = self.id.take() else {
            return Ok(());
        };
        let bucket = &self.bucket;
        let abort = bucket.retrying(|| async {
            let abort = bucket.client.abort_multipart_upload();
            let abort = abort
                .bucket(&bucket.config.bucket)
                .key(bucket.path(&self.key));
            Ok(abort.upload_id(&id).send().await?)
        });
        match abort.await {
            Err(failure) if !failure.last.is_missing() => {
                Err(failure.into_error(format!("abort the upload of {}", self.key), true))
            }
            _ => Ok(()),
        }
    }

    async fn complete(&mut self, id: &str) -> Result<Outcome<ObjectInfo>> {
        if !self.buffer.is_empty() {
            let part = std::mem::take(&mut self.buffer).freeze();
            self.send(part).await?;
        }
        self.make_room(0).await?;
        self.sent.sort_by_key(CompletedPart::part_number);
        let bucket = self.bucket.clone();
        let exists = Err(Refused::Exists {
            key: self.key.clone(),
        });
        // As for a put.
        if (!bucket.conditional || bucket.versioned) && bucket.look(&self.key).await?.is_some() {
            self.give_up().await?;
            return Ok(exists);
        }
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(std::mem::take(&mut self.sent)))
            .build();
        let none_match = bucket.conditional.then(|| "*".to_owned());
        let completed = bucket.retrying(|| async {
            let complete = bucket.client.complete_multipart_upload();
            let complete = complete
                .bucket(&bucket.config.bucket)
                .key(bucket.path(&self.key));
            let complete = complete.upload_id(id).multipart_upload(parts.clone());
            Ok(complete
                .set_if_none_match(none_match.clone())
                .send()
                .await?)
        });
        let action = format!("finish the upload of {}", self.key);
        let mut tag = None;
        match completed.await {
            Ok(completed) => tag = completed.e_tag,
            Err(failure) if failure.last.is_refused() && !failure.doubtful => {
                self.give_up().await?;
                return Ok(exists);
            }
            // Done by an attempt whose answer was lost, or removed as unfinished.
            Err(failure)
                if failure.doubtful && (failure.last.is_refused() || failure.last.is_missing()) => {
            }
            Err(failure) => return Err(failure.into_error(action, true)),
        }
        let written = Written {
            writer: self.writer.clone(),
            tag,
            bytes: self.bytes,
        };
        bucket
            .settle(&self.key, &written, self.lock_until, &action)
            .await
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if self.failed {
            return Err(Error::invalid_request(format!(
                "s3: an earlier write to {} failed or was dropped; begin the upload again",
                self.key
            )));
        }
        // Until it is done: a call that is dropped leaves it so.
        self.failed = true;
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.take(bytes).await?;
        self.failed = false;
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Outcome<ObjectInfo>> {
        if self.failed {
            return Err(Error::invalid_request(format!(
                "s3: an earlier write to {} failed or was dropped; begin the upload again",
                self.key
            )));
        }
        match self.id.clone() {
            Some(id) => self.complete(&id).await,
            None => {
                let body = std::mem::take(&mut self.buffer).freeze();
                self.bucket
                    .put(&self.key, &body, &PutIf::Absent, self.lock_until)
                    .await
            }
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.give_up().await
    }
}
