//! An object that is put, read and deleted; and deleted as well when nobody waits any more.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use groundtackle_health_check::Observation;
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use crate::seen::{failed, late};

/// Where it lies. It is the only key that is touched.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) limit: Duration,
}

/// One canary. Whoever holds the turn is the only one at its key.
pub(crate) struct Canary {
    client: Client,
    place: Arc<Place>,
    content: String,
    /// Of a bucket that keeps versions.
    version: Option<String>,
    /// Until there is nothing that could be left behind.
    turn: Option<OwnedMutexGuard<()>>,
}

/// Why a step was not done, and whether it may have been all the same.
struct NotDone {
    seen: Observation,
    /// The server has said that it won't.
    refused: bool,
    status: u16,
}

async fn step<T, E>(
    doing: &str,
    limit: Duration,
    request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, NotDone>
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    match timeout(limit, request).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
            let answered = matches!(error, SdkError::ServiceError(_));
            Err(NotDone {
                seen: failed(doing, &error),
                // A server that fails may have kept it all the same.
                refused: answered && (400..500).contains(&status),
                status,
            })
        }
        Err(_) => Err(NotDone {
            seen: late(doing, limit),
            refused: false,
            status: 0,
        }),
    }
}

impl Canary {
    pub(crate) fn new(client: Client, place: Arc<Place>, turn: OwnedMutexGuard<()>) -> Self {
        let random = || format!("{:032x}", fastrand::u128(..));
        Self {
            client,
            place,
            content: format!("A health check's canary. {} {}", random(), random()),
            version: None,
            turn: Some(turn),
        }
    }

    /// All three steps. What was put, or may have been, is deleted whatever else happens.
    pub(crate) async fn fly(mut self) -> Observation {
        let put = self.put().await;
        let seen = match put {
            Err(NotDone {
                refused: true,
                seen,
                ..
            }) => {
                self.turn = None;
                return seen;
            }
            Err(unclear) => unclear.seen,
            Ok(()) => self.get().await,
        };
        let deleted = step("delete", self.place.limit, self.deletion()).await;
        self.turn = None;
        seen.and(match deleted {
            Ok(()) => Observation::pass(),
            Err(NotDone {
                status: 403, seen, ..
            }) => {
                // It can be written and read, and whoever looks after it has forbidden the rest.
                let detail = seen.detail.unwrap_or_default();
                Observation::warn("not-deleted").with_detail(detail)
            }
            Err(not_done) => not_done.seen,
        })
    }

    async fn put(&mut self) -> Result<(), NotDone> {
        let Place { bucket, key, limit } = &*self.place;
        let request = self
            .client
            .put_object()
            .bucket(bucket)
            .key(key)
            .content_type("text/plain")
            .body(ByteStream::from(self.content.clone().into_bytes()));
        let done = step("put", *limit, Box::pin(request.send())).await?;
        self.version = done.version_id;
        Ok(())
    }

    async fn get(&self) -> Observation {
        let Place { bucket, key, limit } = &*self.place;
        let request = self.client.get_object().bucket(bucket).key(key);
        let begun = tokio::time::Instant::now();
        let got = match step("get", *limit, Box::pin(request.send())).await {
            Ok(got) => got,
            Err(not_done) => return not_done.seen,
        };
        let left = limit.saturating_sub(begun.elapsed());
        match timeout(left, self.is_same(got.body)).await {
            Ok(Ok(true)) => Observation::pass(),
            Ok(Ok(false)) => Observation::fail("changed")
                .with_detail("what came back of the canary is not what was put"),
            Ok(Err(error)) => {
                let detail = format!("to get the canary: {error}");
                Observation::fail("no-answer").with_detail(detail)
            }
            Err(_) => late("get", *limit),
        }
    }

    /// No more is read than there may be.
    async fn is_same(
        &self,
        mut body: ByteStream,
    ) -> Result<bool, aws_sdk_s3::primitives::ByteStreamError> {
        let mut wanted = self.content.as_bytes();
        while let Some(bytes) = body.try_next().await? {
            match wanted.strip_prefix(bytes.as_ref()) {
                Some(rest) => wanted = rest,
                None => return Ok(false),
            }
        }
        Ok(wanted.is_empty())
    }

    fn deletion(
        &self,
    ) -> impl Future<
        Output = Result<
            (),
            SdkError<aws_sdk_s3::operation::delete_object::DeleteObjectError, HttpResponse>,
        >,
    > + Send
    + use<> {
        let request = self
            .client
            .delete_object()
            .bucket(&self.place.bucket)
            .key(&self.place.key)
            .set_version_id(self.version.clone());
        async move { Box::pin(request.send()).await.map(drop) }
    }
}

/// Dropped on the way, it is deleted by whoever runs; the next one waits for that.
impl Drop for Canary {
    fn drop(&mut self) {
        let (Some(turn), Ok(runtime)) = (self.turn.take(), Handle::try_current()) else {
            return;
        };
        let (deletion, limit) = (self.deletion(), self.place.limit);
        runtime.spawn(async move {
            let _turn = turn;
            drop(timeout(limit, deletion).await);
        });
    }
}
