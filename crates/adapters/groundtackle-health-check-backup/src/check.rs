use std::error::Error as StdError;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use groundtackle_backup::{Clock, Error, Repository, Result, SystemClock, Target, Trust};
use groundtackle_health_check::{Check, Observation};

use crate::catalogue::Reader;
use crate::config::BackupCheckConfig;
use crate::judge::{Tip, judge};

/// Where the chain is that is backed up.
#[async_trait]
pub trait TipHeight: Debug + Send + Sync + 'static {
    /// Blocks before the tip.
    ///
    /// **Idempotency**, **cancel safety**: a read.
    ///
    /// # Errors
    /// When it is not known. Its text goes to operators: no secrets.
    async fn tip_height(&self) -> Result<u32, Box<dyn StdError + Send + Sync>>;
}

/// Looks how old the newest restore point of a stream is, and when a restore of it was last proven.
#[derive(Debug)]
pub struct BackupCheck {
    target: Arc<dyn Target>,
    config: BackupCheckConfig,
    tip: Option<Arc<dyn TipHeight>>,
    clock: Arc<dyn Clock>,
    reader: Reader,
}

impl BackupCheck {
    /// A check of the repository on this target. It reads, and needs no right to write, and no key that opens backups.
    pub fn new(target: Arc<dyn Target>, config: BackupCheckConfig) -> Self {
        Self {
            target,
            config,
            tip: None,
            clock: Arc::new(SystemClock),
            reader: Reader::default(),
        }
    }

    /// With the tip that restore points are compared with.
    #[must_use]
    pub fn with_tip(mut self, tip: Arc<dyn TipHeight>) -> Self {
        self.tip = Some(tip);
        self
    }

    /// With another clock than the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    async fn tip(&self) -> Tip {
        let config = &self.config;
        if config.warn_lag_blocks.or(config.fail_lag_blocks).is_none() {
            return Tip::NotAsked;
        }
        match &self.tip {
            None => Tip::NotKnown("the check was given no tip to compare with".into()),
            Some(tip) => match tip.tip_height().await {
                Ok(height) => Tip::At(height),
                Err(error) => Tip::NotKnown(format!("the tip can't be read: {error}")),
            },
        }
    }

    async fn look(&self) -> Result<Observation> {
        let trust = Trust::new(self.config.trusted.clone())?;
        let repository = Repository::open(self.target.clone(), trust).await?;
        let since = self.clock.now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or(Duration::ZERO).as_millis();
        let now = u64::try_from(since).unwrap_or(u64::MAX);
        let found = self
            .reader
            .read(&*self.target, &repository, &self.config, now)
            .await?;
        Ok(judge(&self.config, &found, &self.tip().await, now))
    }
}

/// What kept it from being read.
fn not_read(error: &Error) -> Observation {
    let cause = match error {
        Error::InvalidRequest { .. } => "bad-config",
        Error::Missing { .. } => "no-repository",
        Error::Untrusted { .. } => "untrusted",
        error if error.is_about_data() => "unusable-repository",
        _ => "no-answer",
    };
    let because = error.source().map(|source| format!(": {source}"));
    Observation::fail(cause).with_detail(format!("{error}{}", because.unwrap_or_default()))
}

#[async_trait]
impl Check for BackupCheck {
    async fn check(&self) -> Observation {
        self.look().await.unwrap_or_else(|error| not_read(&error))
    }
}
