//! How adapters repeat what failed.

use groundtackle_core::{RetrySchedule, Retryability};

use crate::error::{Error, Result};

/// For adapters: something under way that is repeated, and when it gives up.
#[derive(Debug)]
pub struct Attempts {
    action: &'static str,
    schedule: RetrySchedule,
    failed: u32,
    retryability: Retryability,
}

impl Attempts {
    /// None yet.
    pub const fn new(action: &'static str, schedule: RetrySchedule) -> Self {
        Self {
            action,
            schedule,
            failed: 0,
            retryability: Retryability::Permanent,
        }
    }

    /// What is being done.
    pub const fn action(&self) -> &'static str {
        self.action
    }

    /// How many have failed.
    pub const fn failed(&self) -> u32 {
        self.failed
    }

    /// Waits until it is time to try again, if that makes sense for something idempotent.
    ///
    /// # Errors
    /// The one given where it makes none, or time is up; [`Error::GaveUp`] if it was not the first.
    pub async fn again(&mut self, error: Error) -> Result<()> {
        let worth = error.retryability().allows_retry(true);
        self.again_if(worth, error).await
    }

    /// The same, where the caller knows whether it is `worth` trying again.
    ///
    /// # Errors
    /// As of [`again`](Self::again).
    pub async fn again_if(&mut self, worth: bool, error: Error) -> Result<()> {
        self.failed += 1;
        self.retryability = error.retryability().after(self.retryability);
        let Some(delay) = worth.then(|| self.schedule.next_delay()).flatten() else {
            if self.failed == 1 {
                return Err(error);
            }
            return Err(Error::GaveUp {
                action: self.action.into(),
                attempts: self.failed,
                retryability: self.retryability,
                source: Box::new(error),
            });
        };
        tracing::debug!(action = self.action, attempts = self.failed, %error, "tries again");
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
