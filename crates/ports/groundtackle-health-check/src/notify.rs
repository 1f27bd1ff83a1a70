//! Tells somebody.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use groundtackle_core::RetryConfig;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::burn::Severity;
use crate::error::{Error, Result};
use crate::health::Health;
use crate::outcome::{Cause, Name, Outcome};
use crate::view::View;

/// Carries messages to people.
#[async_trait]
pub trait Notifier: Debug + Send + Sync + 'static {
    /// Delivers one message.
    ///
    /// **Atomicity**: all of it or nothing. **Idempotency**: a message that comes again after an `Indeterminate` error may be seen
    /// twice. **Cancel safety**: dropped at its timeout; the message may have been delivered.
    ///
    /// # Errors
    /// `Notify`: `Transient` if it was not delivered, and may be later; `Indeterminate` if it may have been; `Permanent` if it never
    /// can be.
    async fn notify(&self, message: &Message) -> Result<()>;
}

/// What is told at once.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// What has changed: at least one, at most [`NotifyConfig::max_items`].
    pub items: Vec<News>,
    /// How many changes could not be told before.
    pub lost: u64,
}

impl Message {
    /// A message of these items; for tests of notifiers.
    #[must_use]
    pub const fn new(items: Vec<News>, lost: u64) -> Self {
        Self { items, lost }
    }
}

/// Something that has changed since it was last told of.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum News {
    /// A check went down, or came up again.
    Check {
        /// Its name.
        name: Name,
        /// How it is.
        outcome: Outcome,
        /// Why.
        cause: Cause,
        /// Why, in more words.
        detail: Option<Arc<str>>,
        /// Since when, in milliseconds since 1970.
        since_unix_millis: u64,
        /// How many checks can't be told apart from it, since they need it.
        hides: usize,
    },
    /// A burn-rate alert began or ended.
    Alert {
        /// The objective's name.
        objective: Name,
        /// What it asks for.
        severity: Severity,
        /// Its long window, in seconds.
        long_secs: u64,
        /// Whether it fires.
        firing: bool,
    },
}

/// How messages are grouped, limited and repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NotifyConfig {
    /// How long to wait for further changes after the first one; what is undone by then is not told. Default `"5s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub group_wait: Duration,
    /// The least time from one message to the next. Default `"10s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub min_interval: Duration,
    /// How many changes one message has at most. At least 1. Default 20.
    pub max_items: usize,
    /// How long one delivery may take. Default `"10s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub timeout: Duration,
    /// How a delivery is repeated, also one that may have been done: a message that comes twice is better than none.
    pub retry: RetryConfig,
}

impl Default for NotifyConfig {
    fn default() -> Self {
        Self {
            group_wait: Duration::from_secs(5),
            min_interval: Duration::from_secs(10),
            max_items: 20,
            timeout: Duration::from_secs(10),
            retry: RetryConfig::default().with_max_elapsed(Duration::from_secs(60)),
        }
    }
}

macro_rules! setters {
    ($($setter:ident $field:ident: $type:ty),+ $(,)?) => {$(
        #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
        #[must_use]
        pub fn $setter(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )+};
}

impl NotifyConfig {
    setters! {
        with_group_wait group_wait: Duration,
        with_min_interval min_interval: Duration,
        with_max_items max_items: usize,
        with_timeout timeout: Duration,
        with_retry retry: RetryConfig,
    }
}

/// Tells a [`Notifier`] what changes: once for each change, on failure and on recovery.
///
/// What is told is the difference between what is known now and what was told last, so that nothing piles up while a notifier is
/// away. Nothing is told of what a failed check hides, of maintenance, nor of what has no result yet. Dropped, it ends.
#[derive(Debug)]
pub struct Notifications {
    task: JoinHandle<()>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    lost: AtomicU64,
}

impl Drop for Notifications {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Notifications {
    /// Starts, as if it had been told that all is well. Needs a tokio runtime with time.
    ///
    /// # Errors
    /// `Invalid` for a config that makes no sense.
    pub fn start(health: &Health, notifier: impl Notifier, config: NotifyConfig) -> Result<Self> {
        if config.max_items == 0 {
            return Err(Error::invalid(
                "notify",
                "max_items",
                "is 0, and must be at least 1",
            ));
        }
        config
            .retry
            .validate()
            .map_err(|error| Error::invalid("notify", "retry", error.to_string()))?;
        let counts = Arc::new(Counts::default());
        let teller = Teller {
            health: health.clone(),
            notifier: Box::new(notifier),
            config,
            counts: counts.clone(),
            down: HashMap::new(),
        };
        let task = tokio::spawn(teller.run());
        Ok(Self { task, counts })
    }

    /// Changes that were told.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    /// Changes that could not be told when they were to be: each time that a delivery was given up, and again if it was so again.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }
}

/// What something is told under: a check, or an objective's alert by its long window.
type Key = (Name, Option<u64>);

struct Teller {
    health: Health,
    notifier: Box<dyn Notifier>,
    config: NotifyConfig,
    counts: Arc<Counts>,
    /// What was last told to be down.
    down: HashMap<Key, ()>,
}

impl Teller {
    async fn run(mut self) {
        let mut events = self.health.events();
        let mut again = true;
        loop {
            // What changed before it listened is found the first time.
            if !again && events.next().await.is_none() {
                return;
            }
            sleep(self.config.group_wait).await;
            let news = self.news(&self.health.view());
            again = news.len() > self.config.max_items;
            let items: Vec<(Key, News)> = news.into_iter().take(self.config.max_items).collect();
            if items.is_empty() {
                continue;
            }
            if self.deliver(&items).await {
                for (key, news) in items {
                    if news.is_down() {
                        self.down.insert(key, ());
                    } else {
                        self.down.remove(&key);
                    }
                }
            } else {
                again = true;
            }
            sleep(self.config.min_interval).await;
        }
    }

    /// What differs from what was told.
    fn news(&self, view: &View) -> Vec<(Key, News)> {
        let mut news = Vec::new();
        for reading in &view.readings {
            let unsettled = reading.outcome == Outcome::Unknown
                && [Cause::SETTLING, Cause::NOT_RUN].contains(&reading.cause);
            let key = (reading.name.clone(), None);
            let told_down = self.down.contains_key(&key);
            if unsettled
                || reading.caused_by.is_some()
                || reading.in_maintenance
                || told_down != reading.outcome.is_up()
            {
                continue;
            }
            let hidden = view
                .readings
                .iter()
                .filter(|other| other.caused_by.as_ref() == Some(&reading.name));
            let check = News::Check {
                name: reading.name.clone(),
                outcome: reading.outcome,
                cause: reading.cause.clone(),
                detail: reading.detail.clone(),
                since_unix_millis: reading.since_unix_millis,
                hides: hidden.count(),
            };
            news.push((key, check));
        }
        for level in view.service_levels.iter() {
            for alert in &level.alerts {
                let key = (level.objective.clone(), Some(alert.long_secs));
                if self.down.contains_key(&key) != alert.firing {
                    let alert = News::Alert {
                        objective: level.objective.clone(),
                        severity: alert.severity,
                        long_secs: alert.long_secs,
                        firing: alert.firing,
                    };
                    news.push((key, alert));
                }
            }
        }
        news
    }

    /// Delivers, with retries. Says whether it was.
    async fn deliver(&self, items: &[(Key, News)]) -> bool {
        let message = Message {
            items: items.iter().map(|(_, news)| news.clone()).collect(),
            lost: self.counts.lost.load(Ordering::Relaxed),
        };
        let count = items.len() as u64;
        let mut schedule = self.config.retry.schedule();
        loop {
            let (retry, what) =
                match timeout(self.config.timeout, self.notifier.notify(&message)).await {
                    Ok(Ok(())) => {
                        self.counts.sent.fetch_add(count, Ordering::Relaxed);
                        return true;
                    }
                    Ok(Err(error)) => (error.retryability().allows_retry(true), error.to_string()),
                    Err(_) => (true, "no answer in time".into()),
                };
            match schedule.next_delay().filter(|_| retry) {
                Some(delay) => sleep(delay).await,
                None => {
                    tracing::warn!(
                        error = what,
                        changes = count,
                        "a notification could not be delivered"
                    );
                    self.counts.lost.fetch_add(count, Ordering::Relaxed);
                    return false;
                }
            }
        }
    }
}

impl News {
    /// Whether something went wrong: a check is down, or an alert fires. Otherwise it is over.
    #[must_use]
    pub const fn is_down(&self) -> bool {
        match self {
            Self::Check { outcome, .. } => !outcome.is_up(),
            Self::Alert { firing, .. } => *firing,
        }
    }
}
