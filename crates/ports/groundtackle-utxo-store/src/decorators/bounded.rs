use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use groundtackle_core::Retryability;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::debug;

use crate::store::{SetScan, UtxoStore, forward_store};
use crate::types::{Coin, Cursor, Page, Tip};
use crate::{Error, Result};

/// Answers in a row without pressure after which a limit grows by a step.
const CALM: u32 = 16;

/// Limits of [`Bounded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BoundedConfig {
    /// Calls in flight at most. Default 64.
    pub max_in_flight: usize,
    /// Calls that may wait for their turn; more are refused as overloaded. Default 4,096.
    pub max_waiting: usize,
    /// Items in one call to the backend at most; larger batches are split and sent one part after
    /// the other. Default 1,024.
    pub max_batch_items: usize,
    /// Under pressure batches shrink to this size at least. Default 16.
    pub min_batch_items: usize,
}

impl Default for BoundedConfig {
    fn default() -> Self {
        Self {
            max_in_flight: 64,
            max_waiting: 4096,
            max_batch_items: 1024,
            min_batch_items: 16,
        }
    }
}

impl BoundedConfig {
    /// Sets [`max_in_flight`](Self::max_in_flight).
    #[must_use]
    pub const fn with_max_in_flight(mut self, calls: usize) -> Self {
        self.max_in_flight = calls;
        self
    }

    /// Sets [`max_waiting`](Self::max_waiting).
    #[must_use]
    pub const fn with_max_waiting(mut self, calls: usize) -> Self {
        self.max_waiting = calls;
        self
    }

    /// Sets [`max_batch_items`](Self::max_batch_items).
    #[must_use]
    pub const fn with_max_batch_items(mut self, items: usize) -> Self {
        self.max_batch_items = items;
        self
    }

    /// Sets [`min_batch_items`](Self::min_batch_items).
    #[must_use]
    pub const fn with_min_batch_items(mut self, items: usize) -> Self {
        self.min_batch_items = items;
        self
    }
}

/// Never sends the backend more than it can take: bounds calls in flight and items per call, halves
/// both when the backend is overloaded or fails for the moment, and grows them again step by step
/// while it is calm.
///
/// A batch larger than the bound is split, and its parts are sent in order. If a later part fails
/// the whole call is `Indeterminate`, since earlier parts were applied; repeat it.
#[derive(Debug)]
pub struct Bounded<S> {
    inner: S,
    limits: Arc<Limits>,
}

#[derive(Debug)]
struct Limits {
    backend: &'static str,
    config: BoundedConfig,
    turns: Semaphore,
    waiting: AtomicUsize,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    /// Calls that may be in flight.
    in_flight: usize,
    /// Permits that exist: above `in_flight` until enough calls have ended.
    permits: usize,
    batch_items: usize,
    calm: u32,
    /// How often the limits were cut.
    cuts: u64,
}

impl<S: UtxoStore> Bounded<S> {
    /// Around `inner`.
    ///
    /// # Errors
    /// `InvalidRequest` for a limit of zero or a minimum above its maximum.
    pub fn new(inner: S, config: BoundedConfig) -> Result<Self> {
        let BoundedConfig {
            max_in_flight,
            max_batch_items,
            min_batch_items,
            ..
        } = config;
        if max_in_flight == 0 || min_batch_items == 0 || min_batch_items > max_batch_items {
            return Err(Error::invalid_request(
                "max_in_flight and min_batch_items must be at least 1, and max_batch_items at least min_batch_items",
            ));
        }
        let max_in_flight = max_in_flight.min(Semaphore::MAX_PERMITS);
        let capabilities = inner.capabilities();
        let most = capabilities
            .max_batch_items
            .unwrap_or(max_batch_items)
            .min(max_batch_items);
        let limits = Limits {
            backend: capabilities.backend,
            turns: Semaphore::new(max_in_flight),
            waiting: AtomicUsize::new(0),
            now: Mutex::new(Now {
                in_flight: max_in_flight,
                permits: max_in_flight,
                batch_items: most,
                calm: 0,
                cuts: 0,
            }),
            config: BoundedConfig {
                max_in_flight,
                max_batch_items: most,
                min_batch_items: min_batch_items.min(most),
                ..config
            },
        };
        Ok(Self {
            inner,
            limits: Arc::new(limits),
        })
    }

    /// The limits now: calls in flight, items per call.
    pub fn limits(&self) -> (usize, usize) {
        let now = self
            .limits
            .now
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (now.in_flight, now.batch_items)
    }

    fn inner(&self) -> &S {
        &self.inner
    }
}

/// Counts a waiting call for as long as it waits, dropped calls too.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to one call, and the limits when it was given.
struct Turn<'a> {
    permit: SemaphorePermit<'a>,
    batch_items: usize,
    cuts: u64,
}

impl Limits {
    async fn turn(&self, operation: &'static str) -> Result<Turn<'_>> {
        let permit = match self.turns.try_acquire() {
            Ok(permit) => permit,
            Err(_) => self.wait(operation).await?,
        };
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Turn {
            permit,
            batch_items: now.batch_items,
            cuts: now.cuts,
        })
    }

    async fn wait(&self, operation: &'static str) -> Result<SemaphorePermit<'_>> {
        let already_waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if already_waiting >= self.config.max_waiting {
            return Err(Error::overloaded(self.backend, operation));
        }
        self.turns
            .acquire()
            .await
            .map_err(|_| Error::overloaded(self.backend, operation))
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let turn = self.turn(operation).await?;
        self.learn(call.await, turn)
    }

    /// Takes from the answer how the backend is, and gives the turn back or, if there are too many,
    /// up.
    fn learn<T>(&self, answer: Result<T>, turn: Turn<'_>) -> Result<T> {
        let pressure = answer
            .as_ref()
            .is_err_and(|error| error.retryability() != Retryability::Permanent);
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if pressure {
            now.calm = 0;
        }
        // Calls that were sent before the last cut tell nothing of what it did.
        if pressure && turn.cuts == now.cuts {
            now.cuts += 1;
            now.in_flight = (now.in_flight / 2).max(1);
            now.batch_items = (now.batch_items / 2).max(self.config.min_batch_items);
            debug!(
                in_flight = now.in_flight,
                batch_items = now.batch_items,
                "the backend is under pressure"
            );
        } else if !pressure {
            now.calm += 1;
            if now.calm >= CALM {
                now.calm = 0;
                now.in_flight = (now.in_flight + 1).min(self.config.max_in_flight);
                // By an eighth, so that most answers are calm even where the backend's own limit is near.
                let step = (now.batch_items / 8).max(1);
                now.batch_items = (now.batch_items + step).min(self.config.max_batch_items);
            }
        }
        if now.permits > now.in_flight {
            now.permits -= 1;
            turn.permit.forget();
        } else if now.permits < now.in_flight {
            now.permits += 1;
            self.turns.add_permits(1);
        }
        answer
    }

    fn in_doubt(&self, operation: &'static str, done: usize, error: Error) -> Error {
        if done == 0 {
            return error;
        }
        if matches!(error, Error::GaveUp { .. }) {
            return error.after_effect(self.backend, operation);
        }
        let action = format!("{operation} (the first {done} items were applied)");
        Error::backend(self.backend, action, Retryability::Indeterminate, error)
    }
}

macro_rules! bounded {
    ($self:ident, chunked, $name:ident, $items:expr, |$part:ident| $call:expr) => {{
        let mut rest = $items;
        let mut answers = Vec::with_capacity(rest.len());
        loop {
            // The size that fits is known only when the turn has come.
            let sent = async {
                let turn = $self.limits.turn(stringify!($name)).await?;
                let ($part, later) = rest.split_at(rest.len().min(turn.batch_items));
                Ok(($self.limits.learn($call.await, turn)?, later))
            };
            let (answer, later) = sent.await.map_err(|error| {
                $self
                    .limits
                    .in_doubt(stringify!($name), answers.len(), error)
            })?;
            answers.extend(answer);
            rest = later;
            if rest.is_empty() {
                break Ok(answers);
            }
        }
    }};
    ($self:ident, whole, $name:ident, $items:expr, || $call:expr) => {
        $self.limits.call(stringify!($name), $call).await
    };
    ($self:ident, scan, $name:ident, $items:expr, || $call:expr) => {{
        let inner = $self.limits.call(stringify!($name), $call).await?;
        Ok(Box::new(BoundedScan {
            inner,
            limits: $self.limits.clone(),
        }))
    }};
}

forward_store!([S: UtxoStore] Bounded<S>, inner, bounded);

#[derive(Debug)]
struct BoundedScan {
    inner: Box<dyn SetScan>,
    limits: Arc<Limits>,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl SetScan for BoundedScan {
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
        self.limits
            .call("scan_page", self.inner.page(partition, after, limit))
            .await
    }
}
