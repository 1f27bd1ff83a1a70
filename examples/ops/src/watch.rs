//! Backs up on a schedule, holds the drills that are due, and keeps to the retention, until it is told to stop.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use groundtackle_backup::{Content, Due, Figures, Points, Repository};
use groundtackle_core::{RetryConfig, RetrySchedule};
use serde::{Deserialize, Serialize};

use crate::backup::{self, Config, ConfigFile, RunArgs};
use crate::drill::{self, DrillArgs};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::places::For;
use crate::prune::{self, ForgetArgs, PruneArgs};
use crate::report::{Report, note};

/// The keys of a config's `[watch]`; README.md explains each.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    backup_every: Duration,
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    base_every: Option<Duration>,
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    prune_every: Option<Duration>,
    metrics: Option<PathBuf>,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            backup_every: Duration::from_secs(600),
            base_every: None,
            prune_every: None,
            metrics: None,
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// Do what is due now, and end: with 1 if some of it failed.
    #[arg(long)]
    once: bool,
}

#[derive(Serialize)]
struct Failed<'a> {
    event: &'static str,
    what: &'a str,
    error: String,
}

pub async fn watch(
    file: &ConfigFile,
    args: &WatchArgs,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let config = file.read()?;
    let watch = config.watch.clone();
    // What no time mends is told now, rather than again and again.
    check(&config)?;
    let retry = RetryConfig::default()
        .with_initial_delay(watch.backup_every.min(Duration::from_secs(10)))
        .with_max_delay(watch.backup_every)
        .with_max_attempts(u32::MAX)
        .with_max_elapsed(Duration::MAX);
    let mut retries = RetrySchedule::new(&retry);
    let mut pruned: Option<Instant> = None;
    loop {
        let began = Instant::now();
        let mut failed = Vec::new();
        let mut done = |what: &'static str, done: Result<()>| match done {
            Ok(()) => Ok(true),
            Err(Failure::Interrupted) => Err(Failure::Interrupted),
            Err(failure) => {
                note(&format!("{what} failed"));
                failure.print();
                report.json(&Failed {
                    event: "failed",
                    what,
                    error: failure.to_string(),
                })?;
                failed.push(what);
                Ok(false)
            }
        };
        let round = async {
            done(
                "the backup",
                back_up(file, &config, report, interrupt).await,
            )?;
            if config.drill.is_scheduled() {
                done(
                    "the drill",
                    hold_drill(file, &config, report, interrupt).await,
                )?;
            }
            let due = |every| pruned.is_none_or(|last: Instant| last.elapsed() >= every);
            if watch.prune_every.is_some_and(due)
                && done("pruning", remove(file, report, interrupt).await)?
            {
                pruned = Some(began);
            }
            if let Some(path) = &watch.metrics {
                done("writing the metrics", write_metrics(&config, path).await)?;
            }
            Ok(())
        };
        match round.await {
            // As whoever runs services expects it of one that is asked to stop.
            Err(Failure::Interrupted) => return Ok(()),
            round => round?,
        }
        if args.once {
            return match failed.is_empty() {
                true => Ok(()),
                false => Err(Failure::No(format!("{} failed", failed.join(" and ")))),
            };
        }
        let wait = match failed.is_empty() {
            true => {
                retries = RetrySchedule::new(&retry);
                watch.backup_every.saturating_sub(began.elapsed())
            }
            false => retries.next_delay().unwrap_or(watch.backup_every),
        };
        if interrupt.or(tokio::time::sleep(wait)).await.is_err() {
            return Ok(());
        }
    }
}

fn check(config: &Config) -> Result<()> {
    config.signer()?;
    config.recipients()?;
    match config.tree() {
        #[cfg(target_os = "linux")]
        Some(_) => drop(crate::trees::TreeBackup::of(config)?),
        _ => drop(config.store()?),
    }
    if config.watch.backup_every.is_zero() {
        return Err(Failure::Config(
            "backup_every of [watch] is no time: write 10m".into(),
        ));
    }
    if config.watch.prune_every.is_some() && config.retention.is_none() {
        return Err(Failure::Config(
            "[watch] has prune_every, and nothing says what to keep: write a table [retention]"
                .into(),
        ));
    }
    drill::check_unattended(config)
}

async fn back_up(
    file: &ConfigFile,
    config: &Config,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let base = match config.watch.base_every {
        Some(every) => {
            let (_, points) = config.points(For::Writing, true).await?;
            is_base_due(&points, every)
        }
        None => false,
    };
    backup::run(file, &RunArgs { base }, report, interrupt).await
}

/// Whether the last whole restore point is that old; there may be none, and then the backup makes one anyway.
fn is_base_due(points: &Points, every: Duration) -> bool {
    let whole = points
        .usable
        .iter()
        .rev()
        .find(|point| match &point.content {
            Content::Base { .. } => true,
            content => content.is_tree() && content.uses().is_empty(),
        });
    let made = whole.and_then(|point| {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(point.created_unix_millis))
    });
    made.is_some_and(|made| made.elapsed().is_ok_and(|age| age >= every))
}

async fn hold_drill(
    file: &ConfigFile,
    config: &Config,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let repository = config.repository(For::Writing).await?;
    match drill::due(config, &repository).await? {
        None | Some(Due::NotYet { .. }) => Ok(()),
        Some(_) => drill::drill(file, &DrillArgs::if_due(), report, interrupt).await,
    }
}

async fn remove(file: &ConfigFile, report: Report, interrupt: &mut Interrupt) -> Result<()> {
    prune::forget(file, &ForgetArgs::default(), report).await?;
    prune::prune(file, &PruneArgs::unattended(), report, interrupt).await
}

/// A reader sees all of it, or what was there before.
async fn write_metrics(config: &Config, path: &Path) -> Result<()> {
    let repository: Repository = config.repository(For::Reading).await?;
    let found = repository.evidence().await.map_err(Failure::Backup)?;
    let points = repository.points().await.map_err(Failure::Backup)?;
    let figures = Figures::of(&config.stream, &points.usable, &found.usable);
    let written = replace(path, &figures.exposition(&config.stream));
    written.map_err(|source| Failure::ConfigFile {
        path: path.into(),
        source,
    })
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}
