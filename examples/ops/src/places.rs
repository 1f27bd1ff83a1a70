//! Where a repository lies: one place, or several.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use groundtackle_backup::{
    CopyPolicy, Lease, LeaseTerms, Member, Meter, Repository, Several, SigningKey, Target, Turn,
};
use groundtackle_backup_fs::{FsTarget, FsTargetConfig};
use groundtackle_backup_s3::{S3Target, S3TargetConfig};
use serde::Deserialize;

use crate::away::Away;
use crate::failure::{Failure, Result};
use crate::report::note;

/// The keys of a place; README.md explains each.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceConfig {
    name: String,
    #[serde(default)]
    folder: Option<PathBuf>,
    #[serde(default)]
    s3: Option<S3TargetConfig>,
}

/// How many of several places must have what is written.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Copies {
    #[default]
    All,
    Primary,
    Quorum(NonZeroUsize),
}

/// Turns that several hosts take.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseConfig {
    holder: String,
    #[serde(
        default = "LeaseConfig::lasts",
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required"
    )]
    lasts: Duration,
}

impl LeaseConfig {
    const fn lasts() -> Duration {
        Duration::from_secs(300)
    }

    pub async fn take(
        &self,
        repository: &Repository,
        turn: Turn,
        signer: &SigningKey,
    ) -> Result<Arc<Lease>> {
        let terms = LeaseTerms::new(&self.holder, self.lasts).map_err(Failure::Backup)?;
        let lease = repository.lease(turn, &terms, signer).await;
        lease.map_err(Failure::Backup)
    }
}

/// What a repository is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    Reading,
    Writing,
    /// Every place has to be there.
    Changing,
}

pub async fn one(
    folder: Option<&Path>,
    s3: Option<&S3TargetConfig>,
    create: bool,
) -> Result<Arc<dyn Target>> {
    match (folder, s3) {
        (Some(folder), None) => {
            let config = FsTargetConfig::default().with_create(create);
            let opened = FsTarget::open(folder, config).await;
            Ok(Arc::new(opened.map_err(Failure::Backup)?))
        }
        (None, Some(config)) => {
            let opened = S3Target::open(config.clone()).await;
            Ok(Arc::new(opened.map_err(Failure::Backup)?))
        }
        _ => Err(Failure::Config(
            "name the place of the repository: either folder, or a table [s3]; with several places, in each [[target]]"
                .into(),
        )),
    }
}

pub async fn several(
    configs: &[PlaceConfig],
    copies: Copies,
    what_for: For,
    create: bool,
    meter: &Meter,
) -> Result<Arc<dyn Target>> {
    let policy = match (what_for, copies) {
        (For::Reading, _) => CopyPolicy::Reading,
        (For::Changing, _) | (_, Copies::All) => CopyPolicy::All,
        (_, Copies::Primary) => CopyPolicy::Primary,
        (_, Copies::Quorum(quorum)) => CopyPolicy::Quorum(quorum),
    };
    let mut members = Vec::new();
    for config in configs {
        let opened = one(config.folder.as_deref(), config.s3.as_ref(), create).await;
        let target: Arc<dyn Target> = match opened {
            Ok(target) => Arc::new(meter.around(target)),
            // Others may do without it.
            Err(Failure::Backup(error)) => {
                note(&format!("target {} can't be used: {error}", config.name));
                Arc::new(Away::new(&error))
            }
            Err(wrong) => return Err(wrong),
        };
        members.push(Member::new(config.name.clone(), target));
    }
    let several = Several::new(members, policy);
    Ok(Arc::new(several.map_err(Failure::Backup)?))
}

/// What other places made up for.
pub fn tell(repository: &Repository) {
    for passed in repository.passed_over() {
        note(&format!(
            "target {}: {}: {}",
            passed.place, passed.what, passed.error
        ));
    }
}

/// Copies to each of several places what it missed. What can't be brought level is said; whether it may be missing, the
/// backup decides.
pub async fn bring_level(repository: &Repository) -> Result<()> {
    for place in repository.catch_up().await.map_err(Failure::Backup)? {
        if place.points > 0 {
            note(&format!(
                "target {}: {} restore points that it missed, {} bytes",
                place.place, place.points, place.bytes
            ));
        }
        if let Some(error) = place.error {
            note(&format!("target {} is behind: {error}", place.place));
        }
    }
    Ok(())
}

/// What is not given back ends by itself.
pub async fn give_back(lease: Option<Arc<Lease>>) {
    if let Some(lease) = lease
        && let Err(error) = lease.release().await
    {
        note(&format!("the lease ends by itself: {error}"));
    }
}
