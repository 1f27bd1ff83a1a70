//! Restore points of trees: of a directory, of a PostgreSQL cluster, or of a dump of one database. And directories out of
//! them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use groundtackle_backup::{
    At, BackUp, Manifest, Repository, TreeAt, TreeGround, TreeSummary, Turn,
};
use groundtackle_backup_age::AgeIdentities;
use groundtackle_backup_files::{DirectoryGround, FilesBackup, Made, ReplayGround, RestoreOptions};
use groundtackle_backup_postgres::{
    ClusterGround, ClusterRestoreOptions, DumpGround, PostgresBackup, PostgresBackupConfig,
    PostgresDump, QueryProbe, Verify, restore_cluster, restore_dump,
};
use serde::Serialize;

use crate::backup::{Config, ConfigFile, Point, RestoreArgs, RunArgs, Where};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::places::{For, bring_level, give_back, tell};
use crate::report::{Progress, Report, following, note};

/// What backs up the tree that a config names.
#[derive(Debug)]
pub enum TreeBackup {
    Files(FilesBackup),
    Cluster(PostgresBackup),
    Dump(PostgresDump),
}

impl TreeBackup {
    /// `None` where it is a store that is backed up.
    pub fn of(config: &Config) -> Result<Option<Self>> {
        let made = match (&config.files, &config.postgres) {
            (Some(files), _) => FilesBackup::new(files.clone()).map(Self::Files),
            (None, Some(server)) if is_dump(server) => {
                PostgresDump::new(server.clone()).map(Self::Dump)
            }
            (None, Some(server)) => PostgresBackup::new(server.clone()).map(Self::Cluster),
            (None, None) => return Ok(None),
        };
        let made = made.map_err(|error| Failure::Config(error.to_string()))?;
        Ok(Some(made))
    }

    async fn back_up(
        &self,
        repository: &Repository,
        how: &BackUp<'_>,
        whole: bool,
    ) -> groundtackle_backup::Result<Made> {
        match self {
            Self::Files(files) => files.back_up(repository, how, whole).await,
            Self::Cluster(cluster) => cluster.back_up(repository, how, whole).await,
            Self::Dump(dump) => dump.back_up(repository, how, whole).await,
        }
    }
}

/// One database is dumped, all of them are a cluster.
const fn is_dump(server: &PostgresBackupConfig) -> bool {
    server.database.is_some()
}

pub async fn run(
    config: &Config,
    backup: &TreeBackup,
    args: &RunArgs,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let (signer, recipients) = (config.signer()?, config.recipients()?);
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
    /// The directory to make, of a tree of files, a PostgreSQL cluster or a dump; it may be there if it is empty.
    #[arg(long, value_name = "PATH")]
    pub into_directory: Option<PathBuf>,
    /// Leave out what only root may restore: owners, setuid and setgid, devices, some attributes. Of a dump always.
    #[arg(long, requires = "into_directory")]
    unprivileged: bool,
    /// Whether pg_verifybackup looks at a cluster before it takes its place. Default: where it is found.
    #[arg(long, value_enum, requires = "into_directory")]
    verify: Option<Verifying>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Verifying {
    WhereFound,
    Require,
    Skip,
}

impl From<Verifying> for Verify {
    fn from(verifying: Verifying) -> Self {
        match verifying {
            Verifying::WhereFound => Self::WhereFound,
            Verifying::Require => Self::Require,
            Verifying::Skip => Self::Skip,
        }
    }
}

#[derive(Serialize)]
struct Restored {
    entries: u64,
    file_bytes: u64,
    left_out: u64,
    /// Of a cluster: the version of the server to start on it, and whether pg_verifybackup found it whole.
    #[serde(flatten)]
    cluster: Option<Cluster>,
    /// The file for pg_restore, of a dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    dump: Option<PathBuf>,
    /// Restore points that were read.
    points: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct Cluster {
    postgres: u32,
    verified: bool,
}

/// What a restore made of a directory.
struct Filled {
    entries: u64,
    bytes: u64,
    left_out: u64,
    cluster: Option<Cluster>,
    dump: Option<PathBuf>,
}

async fn fill(
    config: &Config,
    directory: &Directory,
    repository: &Repository,
    point: &Manifest,
    identities: &AgeIdentities,
    into: &Path,
) -> groundtackle_backup::Result<Filled> {
    let files = RestoreOptions::default().with_unprivileged(directory.unprivileged);
    let of = |made: groundtackle_backup_files::Restored, cluster| Filled {
        entries: made.entries,
        bytes: made.bytes,
        left_out: made.left_out,
        cluster,
        dump: None,
    };
    match &config.postgres {
        None => {
            let restoring =
                groundtackle_backup_files::restore(repository, point, identities, into, files);
            Ok(of(restoring.await?, None))
        }
        Some(server) if is_dump(server) => {
            let file = restore_dump(repository, point, identities, into).await?;
            let TreeSummary { entries, bytes, .. } = point.content.tree().unwrap_or_default();
            Ok(Filled {
                entries,
                bytes,
                left_out: 0,
                cluster: None,
                dump: Some(file),
            })
        }
        Some(server) => {
            let verify = directory.verify.map(Verify::from).unwrap_or_default();
            let options = cluster_options(server, files).with_verify(verify);
            let made = restore_cluster(repository, point, identities, into, options).await?;
            if !made.verified {
                note(
                    "pg_verifybackup has not looked at it: it is as it was backed up, and PostgreSQL has not said so",
                );
            }
            let cluster = Cluster {
                postgres: made.version,
                verified: made.verified,
            };
            Ok(of(made.restored, Some(cluster)))
        }
    }
}

fn cluster_options(server: &PostgresBackupConfig, files: RestoreOptions) -> ClusterRestoreOptions {
    ClusterRestoreOptions::default()
        .with_files(files)
        .with_programs(server.programs.clone())
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
    if directory.verify.is_some() && config.postgres.as_ref().is_none_or(is_dump) {
        return Err(Failure::Config(
            "--verify is for clusters of PostgreSQL: take it out".into(),
        ));
    }
    let identities = config.identities()?;
    let (repository, points) = config
        .points(For::Reading, matches!(at, TreeAt::Point(_)))
        .await?;
    let point = points.tree(&config.stream, at).map_err(Failure::Backup)?;
    let restoring = fill(&config, directory, &repository, point, &identities, &into);
    let mut progress = Progress::of_bytes("read", None);
    let restoring = following(&mut progress, || config.meter.read(), restoring);
    // It may be dropped: what is there is beside the place, under another name.
    let made = interrupt.or(restoring).await?.map_err(Failure::Backup)?;
    let restored = Restored {
        entries: made.entries,
        file_bytes: made.bytes,
        left_out: made.left_out,
        cluster: made.cluster,
        dump: made.dump,
        points: 1 + point.content.uses().len() as u64,
        seconds: began.elapsed().as_secs_f64(),
    };
    let text = format!(
        "{}: {} entries, {} bytes in files, as they were backed up; {} restore points read, {:.2} s",
        restored.dump.as_deref().unwrap_or(&into).display(),
        restored.entries,
        restored.file_bytes,
        restored.points,
        restored.seconds
    );
    report.answer(&restored, &text)
}

/// Where a drill of a tree restores to, and what is asked there.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ScratchArgs {
    /// A new or empty directory to restore a tree to at levels load and serve; it stays as it is afterwards.
    #[arg(long, value_name = "PATH", conflicts_with = "scratch")]
    pub scratch_directory: Option<PathBuf>,
    /// Leave out what only root may restore.
    #[arg(long, requires = "scratch_directory")]
    unprivileged: bool,
    /// At level serve, what to ask a server that is started on a restored cluster; no line, an empty one and f fail the
    /// drill. Repeat it for several. Queries and answers are kept in the evidence.
    #[arg(long = "query", value_name = "SQL", requires = "scratch_directory")]
    queries: Vec<String>,
    /// The database to ask.
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    query_database: String,
    /// The role to ask as; no password is needed.
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    query_user: String,
}

impl ScratchArgs {
    /// Where a drill of that level restores to.
    pub fn ground(
        &self,
        config: &Config,
        level: groundtackle_backup::DrillLevel,
    ) -> Result<Box<dyn TreeGround>> {
        use groundtackle_backup::DrillLevel;

        let refuse = |what: String| Err(Failure::Config(what));
        let Some(path) = &self.scratch_directory else {
            return match level {
                DrillLevel::Load | DrillLevel::Serve => refuse(format!(
                    "level {level} needs --scratch-directory, a new or empty one to restore to"
                )),
                _ => Ok(Box::new(ReplayGround)),
            };
        };
        if level < DrillLevel::Load {
            return refuse(format!(
                "level {level} restores to no directory: take --scratch-directory out, or name level load"
            ));
        }
        if self.queries.is_empty() == (level == DrillLevel::Serve) {
            return refuse(match level {
                DrillLevel::Serve => {
                    "level serve needs --query: what is the server to be asked?".into()
                }
                _ => format!("level {level} asks no server: take --query out, or name level serve"),
            });
        }
        let files = RestoreOptions::default().with_unprivileged(self.unprivileged);
        let made = match &config.postgres {
            Some(server) if !is_dump(server) => self.cluster(server, path, files),
            _ if level == DrillLevel::Serve => {
                return refuse(
                    "level serve is for clusters of PostgreSQL: hold drills of other trees up to level load".into(),
                );
            }
            Some(server) => DumpGround::new(path, server.programs.clone()).map(boxed),
            None => DirectoryGround::new(path, files).map(boxed),
        };
        made.map_err(Failure::Backup)
    }

    fn cluster(
        &self,
        server: &PostgresBackupConfig,
        path: &Path,
        files: RestoreOptions,
    ) -> groundtackle_backup::Result<Box<dyn TreeGround>> {
        let ground = ClusterGround::new(path, cluster_options(server, files))?;
        if self.queries.is_empty() {
            return Ok(boxed(ground));
        }
        let queries = self.queries.iter().cloned();
        let probe = QueryProbe::new(&self.query_user, &self.query_database, queries)?;
        let probe = probe.with_programs(server.programs.clone());
        Ok(boxed(ground.with_probe(Box::new(probe))))
    }
}

fn boxed(ground: impl TreeGround + 'static) -> Box<dyn TreeGround> {
    Box::new(ground)
}
