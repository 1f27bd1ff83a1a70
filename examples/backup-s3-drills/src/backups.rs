//! A restore point, a drill if one is due, an end for what is kept long enough, and figures for alerts.

use std::fs;
use std::sync::Arc;
use std::time::SystemTime;

use groundtackle_backup::{
    At, BackUp, Drill, DrillLevel, DrillSchedule, Due, Figures, KeyUnwrapping, ObjectKey,
    PruneOptions, Repository, Restored, SigningKey, SystemClock, SystemEntropy, Target, Trust,
};
use groundtackle_backup_age::{AgeIdentities, AgeRecipients};
use groundtackle_backup_s3::S3Target;
use groundtackle_backup_utxo::{Journal, Made, SetBackup, StoreGround, StoreSink};
use groundtackle_utxo_store::UtxoStore;
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};

use crate::failure::{Failure, Result, While};
use crate::keys;
use crate::settings::Settings;

/// What the set is called in the repository.
pub const STREAM: &str = "utxo";

/// Segments sealed or opened at a time.
const WORKERS: usize = 2;

/// Blocks that the journal keeps below the last restore point, for reorganisations.
const JOURNAL_KEEP_BLOCKS: u32 = 1_000;

#[derive(Debug)]
pub struct Backups {
    repository: Repository,
    signer: SigningKey,
    recipients: AgeRecipients,
    identities: Option<AgeIdentities>,
}

impl Backups {
    /// Opens the repository in the bucket, or makes it.
    pub async fn open(settings: &Settings, make: bool) -> Result<Self> {
        let signer = keys::signer(&settings.signer)?;
        let named = keys::lines(&settings.recipients)?;
        let recipients = AgeRecipients::new(named.iter().map(|line| line.expose()));
        let identities = match &settings.identities {
            Some(path) => {
                Some(AgeIdentities::new(keys::lines(path)?).when("reading the identities")?)
            }
            None => None,
        };
        let target: Arc<dyn Target> = Arc::new(
            S3Target::open(settings.s3.clone())
                .await
                .when("opening the bucket")?,
        );
        let descriptor = ObjectKey::try_from("repository.json").when("looking for a repository")?;
        let found = target
            .info(&descriptor)
            .await
            .when("looking for a repository")?;
        let repository = if make && found.is_none() {
            let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
            Repository::init(target, &settings.network, &signer, clock, entropy).await
        } else {
            let trust = Trust::new([signer.public()]).when("trusting the signer")?;
            Repository::open(target, trust).await
        };
        Ok(Self {
            repository: repository.when("opening the repository")?,
            signer,
            recipients: recipients.when("reading the recipients")?,
            identities,
        })
    }

    /// All of it. What is there is proven also if nothing new came to it.
    pub async fn round(&self, store: &Arc<dyn UtxoStore>, settings: &Settings) -> Result<()> {
        let backed_up = self.back_up(store, settings).await;
        let drilled = self.drill_if_due(settings).await;
        let told = self.tell(settings).await;
        backed_up.and(drilled).and(told)?;
        self.prune(settings).await
    }

    async fn back_up(&self, store: &Arc<dyn UtxoStore>, settings: &Settings) -> Result<()> {
        let how = BackUp {
            stream: STREAM,
            wrapping: &self.recipients,
            signer: &self.signer,
            workers: WORKERS,
        };
        let journal = Journal::open(&settings.journal).when("opening the journal")?;
        let backup = SetBackup::new(store.clone(), Some(journal.clone()));
        let made = backup.back_up(&self.repository, &how).await;
        let (kind, manifest) = match made.when("the backup")? {
            Made::Base(manifest) => ("base", manifest),
            Made::Delta(manifest) => ("delta", manifest),
            _ => return Ok(()),
        };
        let height = manifest.content.position().map(|end| end.height);
        tracing::info!(kind, height, point = %manifest.point, "backed up");
        if let Some(through) = height.and_then(|height| height.checked_sub(JOURNAL_KEEP_BLOCKS)) {
            journal
                .forget_through(through)
                .when("shortening the journal")?;
        }
        Ok(())
    }

    async fn drill_if_due(&self, settings: &Settings) -> Result<()> {
        let schedule = DrillSchedule {
            every: settings.drill_every,
            level: self.level(),
        };
        let missed = self
            .repository
            .record_missed(STREAM, &schedule, &self.signer)
            .await;
        if missed.when("writing down a missed drill")?.is_some() {
            tracing::warn!("a drill was missed");
        }
        let evidence = self
            .repository
            .evidence()
            .await
            .when("reading the evidence")?
            .usable;
        match schedule.due(STREAM, &evidence, SystemTime::now()) {
            Due::NotYet { .. } => Ok(()),
            _ => self.drill(settings, true).await,
        }
    }

    /// Without an identity nothing can be decrypted: each byte is compared with its checksum.
    const fn level(&self) -> DrillLevel {
        match self.identities {
            Some(_) => DrillLevel::Load,
            None => DrillLevel::Bytes,
        }
    }

    /// Restores the latest set into an empty store, and asks that. The evidence is signed and in the bucket, however it ends.
    pub async fn drill(&self, settings: &Settings, scheduled: bool) -> Result<()> {
        let scratch = tempfile::tempdir().when("making a scratch folder")?;
        let path = scratch.path().join("store");
        let store = EmbeddedUtxoStore::open(&path, EmbeddedUtxoStoreConfig::default());
        let store = Arc::new(store.when("making a scratch store")?);
        let mut ground = StoreGround::new(store, path.display().to_string());
        let drill = Drill {
            level: self.level(),
            production: vec![settings.store.display().to_string()],
            scheduled,
            keys: self
                .identities
                .as_ref()
                .map(|keys| keys as &dyn KeyUnwrapping),
            ground: Some(&mut ground),
            workers: WORKERS,
            ..Drill::new(STREAM, &self.signer)
        };
        let evidence = self
            .repository
            .drill(drill)
            .await
            .when("the drill")?
            .evidence;
        if !evidence.passed() {
            return Err(Failure::Drill(evidence.drill.reasons.join("; ")));
        }
        let reached = evidence.drill.restored.as_ref();
        let height = reached.map(|reached| reached.position.height);
        let level = evidence.drill.level.to_string();
        tracing::info!(level, height, evidence = %evidence.object, "the drill passed");
        Ok(())
    }

    /// For the node exporter's textfile collector: whole or as before.
    pub async fn tell(&self, settings: &Settings) -> Result<()> {
        let evidence = self
            .repository
            .evidence()
            .await
            .when("reading the evidence")?
            .usable;
        let points = self
            .repository
            .points()
            .await
            .when("reading the restore points")?
            .usable;
        let figures = Figures::of(STREAM, &points, &evidence).exposition(STREAM);
        let beside = settings.metrics.with_extension("new");
        let written =
            fs::write(&beside, figures).and_then(|()| fs::rename(beside, &settings.metrics));
        written.when(format_args!("writing {}", settings.metrics.display()))
    }

    async fn prune(&self, settings: &Settings) -> Result<()> {
        let points = self
            .repository
            .points()
            .await
            .when("reading the restore points")?;
        if let Some((object, error)) = points.unusable.first() {
            return Err(Failure::Drill(format!(
                "nothing is forgotten while {object} can't be read: {error}"
            )));
        }
        let go = settings
            .retention
            .choose(&points, STREAM)
            .when("choosing what to keep")?
            .go;
        let forgotten = self
            .repository
            .forget(&go, &self.signer)
            .await
            .when("forgetting")?;
        let pruned = self
            .repository
            .prune(&PruneOptions::new())
            .await
            .when("pruning")?;
        if forgotten > 0 || pruned.points > 0 {
            tracing::info!(
                forgotten,
                points = pruned.points,
                bytes = pruned.bytes,
                "pruned"
            );
        }
        Ok(())
    }

    /// Fills an empty store; it is whole only if this succeeds.
    pub async fn restore(&self, into: Arc<dyn UtxoStore>, at: At) -> Result<Restored> {
        let identities = self.identities.as_ref().ok_or_else(|| {
            Failure::Config("BACKUP_IDENTITIES must name the file of the key that reads".into())
        })?;
        let points = self
            .repository
            .points()
            .await
            .when("reading the restore points")?;
        let plan = points.plan(STREAM, at).when("finding the way there")?;
        let mut sink = StoreSink::new(into);
        let restored = self
            .repository
            .restore(&plan, identities, &mut sink, WORKERS);
        restored.await.when("the restore")
    }
}
