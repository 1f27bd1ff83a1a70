//! Restore points of a directory tree, and directories out of them.

use std::path::PathBuf;
use std::time::Instant;

use groundtackle_backup::{At, BackUp, TreeAt, Turn};
use groundtackle_backup_files::{FilesBackup, FilesConfig, RestoreOptions};
use serde::Serialize;

use crate::backup::{Config, ConfigFile, Point, RestoreArgs, RunArgs, Where};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::places::{For, bring_level, give_back, tell};
use crate::report::{Progress, Report, following, note};

pub async fn run(
    config: &Config,
    files: FilesConfig,
    args: &RunArgs,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let (signer, recipients) = (config.signer()?, config.recipients()?);
    let backup = FilesBackup::new(files).map_err(|error| Failure::Config(error.to_string()))?;
    let repository = config.repository(For::Writing).await?;
    bring_level(&repository).await?;
    let how = BackUp {
        stream: &config.stream,
        wrapping: &recipients,
        signer: &signer,
        workers: config.workers,
    };
    let lease = match &config.lease {
        Some(lease) => {
            let turn = Turn::back_up(&config.stream);
            Some(lease.take(&repository, turn, &signer).await?)
        }
        None => None,
    };
    let under = match &lease {
        Some(lease) => repository.under(lease.clone()),
        None => repository.clone(),
    };
    // It may be dropped: what is not committed is not listed.
    let making = backup.back_up(&under, &how, args.base);
    let mut progress = Progress::of_bytes("sent", None);
    let making = following(&mut progress, || config.meter.written(), making);
    let made = match &lease {
        Some(lease) => interrupt.or(lease.keep(making)).await,
        None => interrupt.or(making).await,
    };
    give_back(lease).await;
    tell(&repository);
    let made = made?.map_err(Failure::Backup)?;
    for what in &made.notes {
        note(what);
    }
    let point = Point::of(&made.manifest);
    report.answer(&point, &point.text())
}

/// Where a tree is restored to.
#[derive(Debug, clap::Args)]
pub struct Directory {
    /// The directory to make, of a tree of files; it may be there if it is empty.
    #[arg(long, value_name = "PATH")]
    pub into_directory: Option<PathBuf>,
    /// Leave out what only root may restore: owners, setuid and setgid, devices, some attributes.
    #[arg(long, requires = "into_directory")]
    unprivileged: bool,
}

#[derive(Serialize)]
struct Restored {
    entries: u64,
    file_bytes: u64,
    left_out: u64,
    /// Restore points that were read.
    points: u64,
    seconds: f64,
}

pub async fn restore(
    file: &ConfigFile,
    args: &RestoreArgs,
    directory: &Directory,
    into: PathBuf,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let began = Instant::now();
    let at = match args.at {
        Where::Moment(At::Latest) => TreeAt::Latest,
        Where::Point(point) => TreeAt::Point(point),
        Where::Moment(_) => {
            return Err(Failure::Config(
                "a tree has no blocks: let --at name a restore point, or latest".into(),
            ));
        }
    };
    let config = file.read()?;
    let identities = config.identities()?;
    let (repository, points) = config
        .points(For::Reading, matches!(at, TreeAt::Point(_)))
        .await?;
    let point = points.tree(&config.stream, at).map_err(Failure::Backup)?;
    let options = RestoreOptions::default().with_unprivileged(directory.unprivileged);
    let restoring =
        groundtackle_backup_files::restore(&repository, point, &identities, &into, options);
    let mut progress = Progress::of_bytes("read", None);
    let restoring = following(&mut progress, || config.meter.read(), restoring);
    // It may be dropped: what is there is beside the place, under another name.
    let made = interrupt.or(restoring).await?.map_err(Failure::Backup)?;
    let restored = Restored {
        entries: made.entries,
        file_bytes: made.bytes,
        left_out: made.left_out,
        points: 1 + point.content.uses().len() as u64,
        seconds: began.elapsed().as_secs_f64(),
    };
    let text = format!(
        "{}: {} entries, {} bytes in files, as they were backed up; {} restore points read, {:.2} s",
        into.display(),
        restored.entries,
        restored.file_bytes,
        restored.points,
        restored.seconds
    );
    report.answer(&restored, &text)
}
