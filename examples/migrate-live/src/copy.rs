//! The bulk: a backup of the store that serves, restored into the new one.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use age::secrecy::ExposeSecret;
use groundtackle_backup::{
    At, BackUp, Entropy, Hex, ObjectKey, Plan, Repository, SigningKey, SystemClock, SystemEntropy,
    Target, Trust,
};
use groundtackle_backup_age::{AgeIdentities, AgeRecipients};
use groundtackle_backup_fs::{FsTarget, FsTargetConfig};
use groundtackle_backup_utxo::{Journal, SetBackup, StoreSink};
use groundtackle_core::{Retryability, Secret};
use groundtackle_utxo_store::{UtxoStore, unfinished_copy};

use crate::error::{Error, Result, While};
use crate::migration::Options;

const STREAM: &str = "utxo";

/// Segments sealed or opened at a time.
const WORKERS: usize = 2;

/// Tries of one backup while something else than blocks changes the set.
const MAX_TRIES: u32 = 5;

/// Backups in the folder of the migration, with keys that only it has.
#[derive(Debug)]
pub(crate) struct Scratch {
    repository: Repository,
    signer: SigningKey,
    identities: AgeIdentities,
    recipients: AgeRecipients,
}

impl Scratch {
    pub(crate) async fn open(folder: &Path, network: &str) -> Result<Self> {
        let opening = || format!("opening the scratch folder {}", folder.display());
        let (seed, identity) = keys(&folder.join("copy-keys")).when(opening())?;
        let signer = SigningKey::from_seed(&seed);
        let identities = AgeIdentities::new([identity]).when(opening())?;
        let recipients = AgeRecipients::new(identities.recipients()).when(opening())?;
        let config = FsTargetConfig::default().with_create(true);
        let target = FsTarget::open(folder.join("copy"), config).await;
        let target: Arc<dyn Target> = Arc::new(target.when(opening())?);
        let descriptor = ObjectKey::try_from("repository.json").when(opening())?;
        let repository = match target.info(&descriptor).await.when(opening())? {
            Some(_) => {
                let trust = Trust::new([signer.public()]).when(opening())?;
                Repository::open(target, trust).await
            }
            None => {
                let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
                Repository::init(target, network, &signer, clock, entropy).await
            }
        };
        Ok(Self {
            repository: repository.when(opening())?,
            signer,
            identities,
            recipients,
        })
    }

    /// Fills `to` with the set some blocks below the tip of `from`, while blocks go on; or finishes what was begun.
    pub(crate) async fn copy(
        &self,
        from: &Arc<dyn UtxoStore>,
        journal: &Journal,
        to: &Arc<dyn UtxoStore>,
        options: &Options,
    ) -> Result<()> {
        let looking = "looking at the store to fill";
        let begun = unfinished_copy(&**to).await.when(looking)?;
        let plan = match (begun, to.tip().await.when(looking)?) {
            (Some((hash, _)), _) => self.plan(At::Block(Hex(*hash.as_bytes()))).await?,
            (None, None) => self.deep_enough(from, journal, options).await?,
            // The process ended after the copy and before it was remembered, or the store is somebody else's.
            (None, Some(tip)) => {
                let found = to.digest().await.when(looking)?;
                let plan = self.plan(At::Block(Hex(*tip.hash.as_bytes()))).await.ok();
                if plan.is_none_or(|plan| plan.set.muhash.0 != found.muhash) {
                    return Err(Error::Refused(
                        "the store to fill is not empty: name a new one".into(),
                    ));
                }
                return Ok(());
            }
        };
        let mut sink = StoreSink::new(to.clone());
        let restored = self
            .repository
            .restore(&plan, &self.identities, &mut sink, WORKERS);
        restored.await.when("filling the new store").map(drop)
    }

    /// Makes room: it is not needed any more.
    pub(crate) fn remove(self, folder: &Path) -> Result<()> {
        drop(self);
        fs::remove_dir_all(folder.join("copy")).when("removing the copy")
    }

    async fn plan(&self, at: At) -> Result<Plan> {
        let points = self.repository.points().await.when("reading the copy")?;
        points.plan(STREAM, at).when("finding the way to the copy")
    }

    /// A block that a reorganisation will not take back: the new store can't disconnect what it was filled with.
    async fn deep_enough(
        &self,
        from: &Arc<dyn UtxoStore>,
        journal: &Journal,
        options: &Options,
    ) -> Result<Plan> {
        loop {
            self.back_up(from, journal).await?;
            let points = self.repository.points().await.when("reading the copy")?;
            let latest = points
                .latest(STREAM)
                .and_then(|point| point.content.position());
            let goal = latest.and_then(|at| at.height.checked_sub(options.depth_blocks));
            if let Some(goal) = goal
                && let Ok(plan) = points.plan(STREAM, At::Height(goal))
            {
                return Ok(plan);
            }
            tokio::time::sleep(options.poll).await;
        }
    }

    /// The whole set at first, then what blocks changed.
    async fn back_up(&self, from: &Arc<dyn UtxoStore>, journal: &Journal) -> Result<()> {
        let how = BackUp {
            stream: STREAM,
            wrapping: &self.recipients,
            signer: &self.signer,
            workers: WORKERS,
        };
        let mut tries = 0;
        loop {
            let backup = SetBackup::new(from.clone(), Some(journal.clone()));
            tries += 1;
            match backup.back_up(&self.repository, &how).await {
                Err(error)
                    if error.retryability() == Retryability::Transient && tries < MAX_TRIES => {}
                made => return made.when("reading the store that serves").map(drop),
            }
        }
    }
}

/// A signer's seed and an identity of age, in a file that only its owner reads.
fn keys(path: &Path) -> Result<([u8; 32], Secret), Box<dyn std::error::Error + Send + Sync>> {
    if !path.exists() {
        let mut seed = Hex::<32>::default();
        SystemEntropy.fill(&mut seed.0)?;
        let identity = age::x25519::Identity::generate().to_string();
        let beside = path.with_extension("new");
        let mut options = OpenOptions::new();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .open(&beside)?;
        write!(file, "{seed}\n{}\n", identity.expose_secret())?;
        file.sync_all()?;
        fs::rename(beside, path)?;
    }
    let text = Secret::from(fs::read_to_string(path)?);
    let (seed, identity) = text
        .expose()
        .split_once('\n')
        .ok_or("the file of its keys is damaged")?;
    let seed: Hex<32> = seed.parse()?;
    Ok((seed.0, Secret::from(identity.trim())))
}
