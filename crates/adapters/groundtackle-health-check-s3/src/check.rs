use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use groundtackle_health_check::{Check, Observation};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::canary::{Canary, Place};
use crate::config::S3CheckConfig;
use crate::connect::Way;

/// Puts a canary into a bucket, reads it back, compares it and deletes it.
#[derive(Debug)]
pub struct S3Check {
    config: S3CheckConfig,
    way: Way,
    place: Arc<Place>,
    turn: Arc<Mutex<()>>,
}

impl From<S3CheckConfig> for S3Check {
    fn from(config: S3CheckConfig) -> Self {
        // Of this check alone: others that look at the bucket are in nobody's way, and nobody's object is overwritten.
        let key = format!("{}{:032x}", config.prefix, fastrand::u128(..));
        let place = Arc::new(Place {
            bucket: config.bucket.clone(),
            key,
            limit: config.answer_timeout,
        });
        Self {
            way: Way::default(),
            place,
            turn: Arc::default(),
            config,
        }
    }
}

impl S3Check {
    async fn look(&self) -> Result<Observation, Observation> {
        if let Some(problem) = self.config.problem() {
            return Err(Observation::fail("bad-config").with_detail(problem));
        }
        let limit = self.config.answer_timeout;
        let turn = self.turn.clone().lock_owned().await;
        let begun = Instant::now();
        let client = timeout(limit, Box::pin(self.way.client(&self.config))).await;
        let client = client.unwrap_or_else(|_| {
            let detail = format!("nobody gives credentials within answer_timeout ({limit:?})");
            Err(Observation::fail("no-credentials").with_detail(detail))
        })?;
        let seen = Canary::new(client, self.place.clone(), turn).fly().await;
        let took = begun.elapsed();
        let slow = |limit| took > limit;
        if self.config.warn_slower_than.is_some_and(slow) {
            let slow = Observation::warn("slow").with_detail(format!("it took {took:.0?}"));
            return Ok(seen.and(slow));
        }
        Ok(seen)
    }
}

#[async_trait]
impl Check for S3Check {
    async fn check(&self) -> Observation {
        let (Ok(seen) | Err(seen)) = self.look().await;
        seen
    }
}
