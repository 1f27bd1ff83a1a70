//! Restore points on a schedule, drills that prove them, and an end for what is kept long enough.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use groundtackle_backup::{
    BackUp, Drill, DrillSchedule, Due, Figures, Hex, KeyUnwrapping, ObjectKey, PruneOptions,
    Repository, SigningKey, SystemClock, SystemEntropy, Target, Trust,
};
use groundtackle_backup_age::{AgeIdentities, AgeRecipients};
use groundtackle_backup_fs::{FsTarget, FsTargetConfig};
use groundtackle_backup_s3::S3Target;
use groundtackle_backup_utxo::{DigestGround, Journal, Made, SetBackup};
use groundtackle_core::{RetryConfig, RetrySchedule};
use groundtackle_utxo_store::UtxoStore;
use tokio::sync::watch;
use tracing::Instrument as _;

use crate::config::{Backup, Config};
use crate::failure::{Failure, Result, While};
use crate::keys::{self, Missing};
use crate::shutdown::Stop;

/// What the set is called in the repository.
pub const STREAM: &str = "utxo";

#[derive(Debug)]
pub struct Backups {
    pub target: Arc<dyn Target>,
    pub signer: Hex<32>,
    /// What was last seen in the repository, for Prometheus.
    pub figures: watch::Receiver<String>,
    told: watch::Sender<String>,
    repository: Repository,
    pub config: Backup,
    key: SigningKey,
    recipients: AgeRecipients,
    /// None on a host that may not read backups.
    identities: Option<AgeIdentities>,
    store: Arc<dyn UtxoStore>,
    /// For drills, so that none restores there.
    place: String,
    journal: Journal,
}

impl Backups {
    /// Opens the repository, and makes it with its keys if there is none.
    pub async fn open(config: &mut Config, store: Arc<dyn UtxoStore>) -> Result<Self> {
        let target: Arc<dyn Target> = match &config.backup.s3 {
            Some(s3) => Arc::new(
                S3Target::open(s3.clone())
                    .await
                    .when("opening the bucket")?,
            ),
            None => {
                let folder = config.own(&config.backup.folder, "backups");
                let opened = FsTarget::open(&folder, FsTargetConfig::default().with_create(true));
                Arc::new(
                    opened
                        .await
                        .when(format_args!("opening {}", folder.display()))?,
                )
            }
        };
        let descriptor = ObjectKey::try_from("repository.json").when("looking for a repository")?;
        let found = target.info(&descriptor).await;
        let missing = match found.when("looking for a repository")? {
            Some(_) => Missing::Refuse,
            None => Missing::Make,
        };
        let path = config.own(&config.backup.signer, "keys/signer.key");
        let key = SigningKey::from_seed(&keys::random(&path, missing)?.1);
        let identities = match config.backup.has_identities() {
            false => None,
            true => {
                let path = config.own(&config.backup.identities, "keys/identities.txt");
                let secrets = keys::identities(&path, missing)?;
                Some(AgeIdentities::new(secrets).when("reading the identities")?)
            }
        };
        let recipients = match (&identities, config.backup.recipients.is_empty()) {
            (Some(identities), true) => AgeRecipients::new(identities.recipients()),
            _ => AgeRecipients::new(&config.backup.recipients),
        };
        let recipients = recipients.when("reading backup.recipients")?;
        let network = config.blocks.network.to_string();
        let repository = match missing {
            Missing::Make => {
                let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
                Repository::init(target.clone(), &network, &key, clock, entropy).await
            }
            Missing::Refuse => {
                let trust = Trust::new([key.public()]).when("trusting the signer")?;
                Repository::open(target.clone(), trust).await
            }
        };
        let repository = repository.when("opening the repository")?;
        if repository.descriptor().network != network {
            return Err(Failure::config(format!(
                "blocks.network is {network}, and the repository is of {}: name another place for backups",
                repository.descriptor().network
            )));
        }
        let (told, figures) = watch::channel(String::new());
        Ok(Self {
            target,
            signer: key.public(),
            figures,
            told,
            repository,
            key,
            recipients,
            identities,
            store,
            place: config.store_url()?.to_string(),
            journal: Journal::open(config.journal()).when("opening the journal")?,
            config: std::mem::take(&mut config.backup),
        })
    }

    /// Until it is time to stop. What fails is told, and tried again sooner.
    pub async fn run(self, mut stop: Stop) -> Result<()> {
        let every = self.config.every;
        let retry = RetryConfig::default()
            .with_initial_delay(every.min(Duration::from_secs(10)))
            .with_max_delay(every)
            .with_max_attempts(u32::MAX)
            .with_max_elapsed(Duration::MAX);
        let mut retries = RetrySchedule::new(&retry);
        let mut pruned = None;
        // There may be no block yet, and then there is nothing to keep.
        while !matches!(self.store.tip().await, Ok(Some(_))) {
            if !stop.sleep(Duration::from_secs(1)).await {
                return Ok(());
            }
        }
        loop {
            let began = Instant::now();
            // Each may be dropped: what is not finished is not listed, and done again.
            let Some(done) = stop.or(self.round(&mut pruned)).await else {
                return Ok(());
            };
            let wait = match done {
                Ok(()) => {
                    retries = RetrySchedule::new(&retry);
                    every.saturating_sub(began.elapsed())
                }
                Err(failure) => {
                    tracing::warn!(error = %failure, "backups are not as they should be");
                    retries.next_delay().unwrap_or(every)
                }
            };
            if !stop.sleep(wait).await {
                return Ok(());
            }
        }
    }

    async fn round(&self, pruned: &mut Option<Instant>) -> Result<()> {
        let backed_up = self
            .back_up()
            .instrument(tracing::info_span!("node_service.backup"));
        let backed_up = backed_up.await;
        // What is there can be proven also if nothing new came to it.
        let drilled = self.drill_if_due().await;
        let told = self.tell().await;
        if let Some(retention) = &self.config.retention
            && pruned.is_none_or(|last| last.elapsed() >= self.config.prune_every)
        {
            self.prune(retention)
                .instrument(tracing::info_span!("node_service.prune"))
                .await?;
            *pruned = Some(Instant::now());
        }
        backed_up.and(drilled).and(told)
    }

    async fn back_up(&self) -> Result<()> {
        let how = BackUp {
            stream: STREAM,
            wrapping: &self.recipients,
            signer: &self.key,
            workers: self.config.workers.get(),
        };
        let backup = SetBackup::new(self.store.clone(), Some(self.journal.clone()));
        let made = backup.back_up(&self.repository, &how).await;
        let (kind, manifest) = match made.when("the backup")? {
            Made::Base(manifest) => ("base", manifest),
            Made::Delta(manifest) => ("delta", manifest),
            _ => return Ok(()),
        };
        let height = manifest.content.position().map(|end| end.height);
        tracing::info!(kind, height, point = %manifest.point, "backed up");
        if let Some(through) =
            height.and_then(|height| height.checked_sub(self.config.journal_keep_blocks))
        {
            let forgotten = self.journal.forget_through(through);
            forgotten.when("shortening the journal")?;
        }
        Ok(())
    }

    async fn drill_if_due(&self) -> Result<()> {
        let schedule = DrillSchedule {
            every: self.config.drill_every,
            level: self.config.drill_level,
        };
        let missed = self
            .repository
            .record_missed(STREAM, &schedule, &self.key)
            .await;
        if missed.when("writing down a missed drill")?.is_some() {
            tracing::warn!("a drill was missed");
        }
        let evidence = self.repository.evidence().await;
        let evidence = evidence.when("reading the evidence of drills")?.usable;
        match schedule.due(STREAM, &evidence, SystemTime::now()) {
            Due::NotYet { .. } => Ok(()),
            _ => {
                let drill = self.drill();
                drill
                    .instrument(tracing::info_span!("node_service.drill"))
                    .await
            }
        }
    }

    /// The evidence is signed and in the repository, however it ends.
    async fn drill(&self) -> Result<()> {
        let mut ground = DigestGround;
        let drill = Drill {
            level: self.config.drill_level,
            production: vec![self.place.clone()],
            scheduled: true,
            keys: self
                .identities
                .as_ref()
                .map(|keys| keys as &dyn KeyUnwrapping),
            ground: Some(&mut ground),
            workers: self.config.workers.get(),
            ..Drill::new(STREAM, &self.key)
        };
        let held = self.repository.drill(drill).await.when("the drill")?;
        let evidence = held.evidence;
        let reached = evidence.drill.restored.as_ref();
        let height = reached.map(|reached| reached.position.height);
        let level = evidence.drill.level.to_string();
        if !evidence.passed() {
            let reasons = evidence.drill.reasons.join("; ");
            return Err(Failure::of(format!("the drill failed: {reasons}")));
        }
        tracing::info!(level, height, evidence = %evidence.object, "the drill passed");
        Ok(())
    }

    async fn tell(&self) -> Result<()> {
        let evidence = self.repository.evidence().await;
        let evidence = evidence.when("reading the evidence of drills")?.usable;
        let points = self.repository.points().await;
        let points = points.when("reading the restore points")?.usable;
        let figures = Figures::of(STREAM, &points, &evidence);
        self.told.send_replace(figures.exposition(STREAM));
        Ok(())
    }

    async fn prune(&self, retention: &groundtackle_backup::Retention) -> Result<()> {
        let points = self.repository.points().await;
        let points = points.when("reading the restore points")?;
        if let Some((object, error)) = points.unusable.first() {
            return Err(Failure::of(format!(
                "nothing is forgotten while a restore point can't be read, {object}: {error}"
            )));
        }
        let chosen = retention.choose(&points, STREAM);
        let go = chosen.when("choosing what to keep")?.go;
        let forgotten = self.repository.forget(&go, &self.key).await;
        let forgotten = forgotten.when("forgetting restore points")?;
        let pruned = self.repository.prune(&PruneOptions::new()).await;
        let pruned = pruned.when("pruning")?;
        tracing::info!(
            forgotten,
            points = pruned.points,
            bytes = pruned.bytes,
            "pruned"
        );
        Ok(())
    }
}
