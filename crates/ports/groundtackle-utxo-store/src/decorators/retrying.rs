use async_trait::async_trait;
use groundtackle_core::{RetryConfig, Retryability};
use tracing::debug;

use crate::store::{SetScan, UtxoStore, forward_store};
use crate::types::{Coin, Cursor, Page, Tip};
use crate::{Error, Result};

/// Repeats calls that failed for a while, on a schedule with jitter and an end. Every operation of
/// a store is idempotent, so calls whose outcome is in doubt are repeated too; what they did before
/// then answers `Applied::Before`.
///
/// A call that is given up ends as [`Error::GaveUp`], which no outer `Retrying` repeats.
#[derive(Debug)]
pub struct Retrying<S> {
    inner: S,
    config: RetryConfig,
}

impl<S: UtxoStore> Retrying<S> {
    /// Around `inner`, on the schedule of `config`.
    ///
    /// # Errors
    /// `InvalidRequest` for a schedule that makes no sense.
    pub fn new(inner: S, config: RetryConfig) -> Result<Self> {
        config
            .validate()
            .map_err(|error| Error::invalid_request(error.to_string()))?;
        Ok(Self { inner, config })
    }

    fn inner(&self) -> &S {
        &self.inner
    }
}

/// Not worth repeating, whatever may have been applied: an inner layer gave up, or nothing gets
/// better by itself.
const fn is_final(error: &Error) -> bool {
    matches!(
        error,
        Error::GaveUp { .. } | Error::Full { .. } | Error::Poisoned { .. }
    )
}

async fn retry<T, F: Future<Output = Result<T>>>(
    config: &RetryConfig,
    operation: &'static str,
    mut call: impl FnMut() -> F,
) -> Result<T> {
    let mut schedule = config.schedule();
    let mut attempts = 0;
    let mut earlier = Retryability::Permanent;
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        attempts += 1;
        let this = error.retryability();
        let so_far = this.after(earlier);
        let delay = if is_final(&error) || !this.allows_retry(true) {
            None
        } else {
            schedule.next_delay()
        };
        let Some(delay) = delay else {
            if attempts == 1 {
                return Err(error);
            }
            let retryability = match so_far {
                Retryability::Indeterminate => Retryability::Indeterminate,
                Retryability::Permanent | Retryability::Transient => Retryability::Permanent,
            };
            return Err(Error::GaveUp {
                action: operation.into(),
                attempts,
                retryability,
                source: Box::new(error),
            });
        };
        earlier = so_far;
        debug!(operation, attempts, delay_secs = delay.as_secs_f64(), %error, "trying again");
        tokio::time::sleep(delay).await;
    }
}

macro_rules! retrying {
    ($self:ident, chunked, $name:ident, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        retry(&$self.config, stringify!($name), || $call).await
    }};
    ($self:ident, whole, $name:ident, $items:expr, || $call:expr) => {
        retry(&$self.config, stringify!($name), || $call).await
    };
    ($self:ident, scan, $name:ident, $items:expr, || $call:expr) => {{
        let inner = retry(&$self.config, stringify!($name), || $call).await?;
        Ok(Box::new(RetryingScan {
            inner,
            config: $self.config.clone(),
        }))
    }};
}

forward_store!([S: UtxoStore] Retrying<S>, inner, retrying);

#[derive(Debug)]
struct RetryingScan {
    inner: Box<dyn SetScan>,
    config: RetryConfig,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl SetScan for RetryingScan {
    fn tip(&self) -> Option<Tip> {
        self.inner.tip()
    }

    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    async fn page(
        &self,
        partition: u32,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Coin>> {
        retry(&self.config, "scan_page", || {
            self.inner.page(partition, after, limit)
        })
        .await
    }
}
