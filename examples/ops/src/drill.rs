//! Restores for practice, and the evidence of them.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use clap::Args;
use groundtackle_backup::{
    At, Drill, DrillChoice, DrillGround, DrillLevel, DrillOutcome, DrillSchedule, Due, Error,
    Evidence, Figures, Goal, Hex, KeyUnwrapping, ObjectKey, Objectives, Proof, Repository,
    Retryability, Share, Sink, TreeGround, TreeSummary,
};
use groundtackle_backup_utxo::{DigestGround, StoreGround};
use groundtackle_chain::BlockHash;
use groundtackle_utxo_store::{Tip, UtxoStore};
use serde::{Deserialize, Serialize};

use crate::backup::{Config, ConfigFile, Where};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::places::{For, tell};
use crate::report::{Report, note, output};
use crate::stores::{self, Missing, StoreUrl};

/// The keys of a config's `[drill]`; README.md explains each.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrillConfig {
    level: DrillLevel,
    share: Option<NonZeroU32>,
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    every: Option<Duration>,
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    recovery_time: Option<Duration>,
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    recovery_point_age: Option<Duration>,
    recovery_point_blocks: Option<u32>,
    /// Directories.
    production: Vec<PathBuf>,
}

impl DrillConfig {
    pub const fn is_scheduled(&self) -> bool {
        self.every.is_some()
    }

    fn schedule(&self, level: Option<DrillLevel>) -> Option<DrillSchedule> {
        let every = self.every?;
        let level = level.unwrap_or(self.level);
        Some(DrillSchedule { every, level })
    }

    fn objectives(&self) -> Objectives {
        Objectives {
            recovery_time: self.recovery_time,
            recovery_point_age: self.recovery_point_age,
            recovery_point_blocks: self.recovery_point_blocks,
        }
    }
}

/// What `--choose` takes.
#[derive(Clone, Copy, Debug)]
struct Choice(DrillChoice);

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "random" => DrillChoice::Random,
            "random-height" => DrillChoice::RandomHeight,
            "oldest" => DrillChoice::Oldest,
            _ => match text.parse::<Where>()? {
                Where::Point(point) => DrillChoice::Point(point),
                Where::Moment(At::Latest) => DrillChoice::Latest,
                Where::Moment(At::Height(height)) => DrillChoice::Height(height),
                Where::Moment(At::Block(hash)) => DrillChoice::Block(hash),
            },
        }))
    }
}

#[derive(Debug, Args)]
pub struct DrillArgs {
    /// How far to go: chain, presence, bytes, read, replay, load or serve. Default: the config's, or replay.
    #[arg(long, value_name = "LEVEL")]
    level: Option<DrillLevel>,
    /// What to restore: latest, random, oldest, or a restore point by its name; of a store random-height, a height and a
    /// block's hash, too.
    #[arg(
        long,
        value_name = "latest|random|random-height|oldest|HEIGHT|HASH|POINT",
        default_value = "latest"
    )]
    choose: Choice,
    /// An empty store to restore to at level load, never the one that is backed up; it stays as it is afterwards.
    #[arg(long, value_name = "URL")]
    scratch: Option<StoreUrl>,
    #[cfg(target_os = "linux")]
    #[command(flatten)]
    directory: crate::trees::ScratchArgs,
    /// The height of the chain's tip, for recovery_point_blocks. Default: the store's.
    #[arg(long, value_name = "HEIGHT")]
    tip: Option<u32>,
    /// Hold a drill only if one is due by the config's every, and write down one that was missed.
    #[arg(long)]
    if_due: bool,
}

impl DrillArgs {
    /// What is held if it is due.
    pub fn if_due() -> Self {
        Self {
            level: None,
            choose: Choice(DrillChoice::Latest),
            scratch: None,
            #[cfg(target_os = "linux")]
            directory: crate::trees::ScratchArgs::default(),
            tip: None,
            if_due: true,
        }
    }
}

/// Refuses what can't be held where nobody names a store for it each time.
pub fn check_unattended(config: &Config) -> Result<()> {
    let level = config.drill.level;
    if config.drill.every.is_some() && level >= DrillLevel::Load {
        return Err(Failure::Config(format!(
            "a drill of level {level} needs a new place each time: let [drill] ask for replay, and hold the others by ops \
             backup drill --scratch, or --scratch-directory"
        )));
    }
    Ok(())
}

/// Whether one is due, where there is a schedule.
pub async fn due(config: &Config, repository: &Repository) -> Result<Option<Due>> {
    let Some(schedule) = config.drill.schedule(None) else {
        return Ok(None);
    };
    let found = repository.evidence().await.map_err(Failure::Backup)?;
    Ok(Some(schedule.due(
        &config.stream,
        &found.usable,
        SystemTime::now(),
    )))
}

/// Opened when the drill restores, so not before it is known that it may.
#[derive(Debug)]
struct Scratch {
    url: StoreUrl,
    ground: Option<StoreGround>,
}

#[async_trait]
impl DrillGround for Scratch {
    fn reach(&self) -> DrillLevel {
        DrillLevel::Load
    }

    fn place(&self) -> Option<String> {
        Some(self.url.place())
    }

    async fn sink(&mut self) -> groundtackle_backup::Result<Box<dyn Sink>> {
        let opened = stores::open_unfinished(&self.url, Missing::Create).await;
        let store: Arc<dyn UtxoStore> = opened.map_err(|error| {
            Error::backend(
                "the scratch store",
                "opening it",
                Retryability::Permanent,
                error,
            )
        })?;
        self.ground
            .insert(StoreGround::new(store, self.url.place()))
            .sink()
            .await
    }

    async fn prove(
        &mut self,
        level: DrillLevel,
        goal: &Goal,
    ) -> groundtackle_backup::Result<Vec<Proof>> {
        match &mut self.ground {
            Some(ground) => ground.prove(level, goal).await,
            None => Ok(Vec::new()),
        }
    }
}

/// A drill, as it is shown: hashes as a node prints them.
#[derive(Serialize)]
struct Shown<'a> {
    evidence: &'a ObjectKey,
    outcome: DrillOutcome,
    level: DrillLevel,
    choice: Option<DrillChoice>,
    scheduled: bool,
    height: Option<u32>,
    bestblock: Option<BlockHash>,
    txouts: Option<u64>,
    muhash: Option<BlockHash>,
    /// Of a tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    point: Option<Hex<16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tree: Option<TreeSummary>,
    /// Whether that came out of a restore.
    restored: bool,
    /// Restore points that were looked at.
    points: u64,
    started_unix_millis: u64,
    finished_unix_millis: u64,
    recovery_seconds: Option<f64>,
    recovery_point_age_seconds: Option<f64>,
    recovery_point_blocks: Option<u32>,
    proofs: &'a [Proof],
    reasons: &'a [String],
}

impl<'a> Shown<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let drill = &evidence.drill;
        let chosen = drill.chosen.as_ref();
        let seconds = |millis: Option<u64>| Some(Duration::from_millis(millis?).as_secs_f64());
        let points = evidence.subjects.iter();
        let points = points.filter(|subject| subject.name.starts_with("points/"));
        Self {
            evidence: &evidence.object,
            outcome: drill.outcome,
            level: drill.level,
            choice: drill.choice,
            scheduled: drill.scheduled,
            height: chosen.map(|chosen| chosen.position.height),
            bestblock: chosen.map(|chosen| BlockHash::from_bytes(chosen.position.hash.0)),
            txouts: chosen.map(|chosen| chosen.set.coins),
            muhash: chosen.map(|chosen| BlockHash::from_bytes(chosen.set.muhash.0)),
            point: drill.chosen_tree.map(|chosen| chosen.point),
            tree: drill.chosen_tree.map(|chosen| chosen.tree),
            restored: drill.restored.is_some() || drill.restored_tree.is_some(),
            points: points.count() as u64,
            started_unix_millis: drill.started_unix_millis,
            finished_unix_millis: drill.finished_unix_millis,
            recovery_seconds: seconds(drill.measured.recovery_millis),
            recovery_point_age_seconds: seconds(drill.measured.recovery_point_age_millis),
            recovery_point_blocks: drill.measured.recovery_point_blocks,
            proofs: &drill.proofs,
            reasons: &drill.reasons,
        }
    }

    const fn how(&self) -> &'static str {
        match self.restored {
            true => "restored",
            false => "not restored",
        }
    }

    fn text(&self) -> String {
        let outcome = match self.outcome {
            DrillOutcome::Passed => "passed",
            DrillOutcome::Missed => "MISSED",
            _ => "FAILED",
        };
        let mut text = format!("drill {outcome}, level {}", self.level);
        if let (Some(height), Some(hash)) = (self.height, self.bestblock) {
            text += &format!(", height {height} ({hash}) {}", self.how());
        }
        if let (Some(point), Some(tree)) = (self.point, self.tree) {
            text += &format!(
                ", restore point {point} ({} entries, {} bytes in files) {}",
                tree.entries,
                tree.bytes,
                self.how()
            );
        }
        if let Some(seconds) = self.recovery_seconds {
            text += &format!(", {seconds:.2} s");
        }
        text += &format!(", evidence {}", self.evidence);
        for reason in self.reasons {
            text += &format!("\n  because: {reason}");
        }
        text
    }
}

/// Where a drill restores to: one of them.
struct Grounds {
    set: Option<Box<dyn DrillGround>>,
    tree: Option<Box<dyn TreeGround>>,
}

impl Grounds {
    fn of(config: &Config, args: &DrillArgs, level: DrillLevel) -> Result<Self> {
        #[cfg(target_os = "linux")]
        {
            if config.tree().is_some() {
                if args.scratch.is_some() {
                    return Err(Failure::Config(
                        "--scratch is a store: name --scratch-directory for a tree".into(),
                    ));
                }
                let tree = args.directory.ground(config, level)?;
                return Ok(Self {
                    set: None,
                    tree: Some(tree),
                });
            }
            if args.directory.scratch_directory.is_some() {
                return Err(Failure::Config(
                    "--scratch-directory is for trees: name --scratch, an empty store".into(),
                ));
            }
        }
        let set: Box<dyn DrillGround> = match (level, &args.scratch) {
            (DrillLevel::Serve, _) => {
                return Err(Failure::Config(
                    "ops starts no service on a store: hold drills of level serve from your own program, see DrillGround"
                        .into(),
                ));
            }
            (DrillLevel::Load, None) => {
                return Err(Failure::Config(
                    "level load needs --scratch, an empty store to restore to".into(),
                ));
            }
            (DrillLevel::Load, Some(url)) => Box::new(Scratch {
                url: url.clone(),
                ground: None,
            }),
            (_, Some(_)) => {
                return Err(Failure::Config(format!(
                    "level {level} restores to no store: take --scratch out, or name level load"
                )));
            }
            (_, None) => Box::new(DigestGround),
        };
        Ok(Self {
            set: Some(set),
            tree: None,
        })
    }
}

/// Where no drill restores to.
fn production(config: &Config) -> Result<Vec<String>> {
    let mut all = config.drill.production.clone();
    #[cfg(target_os = "linux")]
    all.extend(config.files.as_ref().map(|files| files.path.clone()));
    let absolute = |path: PathBuf| {
        let path =
            std::path::absolute(&path).map_err(|source| Failure::ConfigFile { path, source });
        Ok::<_, Failure>(path?.display().to_string())
    };
    let mut all: Vec<String> = all.into_iter().map(absolute).collect::<Result<_>>()?;
    if config.store.is_some() {
        all.push(config.store()?.place());
    }
    Ok(all)
}

/// The store's tip, as far as it can be read: an objective that can't be judged fails the drill.
async fn tip(config: &Config) -> Option<u32> {
    let read = async {
        let store = stores::open(&config.store()?, Missing::Refuse).await?;
        let tip: Option<Tip> = store.tip().await?;
        Ok::<_, Failure>(tip.map(|tip| tip.height))
    };
    read.await.unwrap_or_else(|failure| {
        note(&format!(
            "the tip can't be read, name it by --tip: {failure}"
        ));
        None
    })
}

pub async fn drill(
    file: &ConfigFile,
    args: &DrillArgs,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let config = file.read()?;
    let level = args.level.unwrap_or(config.drill.level);
    let mut grounds = Grounds::of(&config, args, level)?;
    let signer = config.signer()?;
    let identities = match level >= DrillLevel::Read {
        true => Some(config.identities()?),
        false => None,
    };
    let production = production(&config)?;
    let repository = config.repository(For::Writing).await?;
    if args.if_due {
        let schedule = config.drill.schedule(args.level).ok_or_else(|| {
            Failure::Config(
                "--if-due needs every in [drill]: how often is a drill to be held?".into(),
            )
        })?;
        let missed = repository.record_missed(&config.stream, &schedule, &signer);
        if let Some(missed) = missed.await.map_err(Failure::Backup)? {
            note(&Shown::of(&missed).text());
        }
        let found = repository.evidence().await.map_err(Failure::Backup)?;
        let due = schedule.due(&config.stream, &found.usable, SystemTime::now());
        if let Due::NotYet { until } = due {
            let left = until.duration_since(SystemTime::now()).unwrap_or_default();
            let text = format!("no drill is due for another {} s", left.as_secs());
            return report.answer(&DueShown::of(Some(due)), &text);
        }
    }
    let objectives = config.drill.objectives();
    let tip = match (args.tip, objectives.recovery_point_blocks) {
        (None, Some(_)) => tip(&config).await,
        (tip, _) => tip,
    };
    let holding = repository.drill(Drill {
        level,
        choice: args.choose.0,
        share: config
            .drill
            .share
            .map(|of| Share::of_day(SystemTime::now(), of)),
        objectives,
        tip,
        production,
        scheduled: args.if_due,
        keys: identities.as_ref().map(|keys| keys as &dyn KeyUnwrapping),
        ground: grounds
            .set
            .as_deref_mut()
            .map(|ground| ground as &mut dyn DrillGround),
        tree_ground: grounds
            .tree
            .as_deref_mut()
            .map(|ground| ground as &mut dyn TreeGround),
        workers: config.workers,
        ..Drill::new(&config.stream, &signer)
    });
    // It may be dropped: what is not held has no evidence.
    let held = interrupt.or(holding).await?;
    tell(&repository);
    let held = held.map_err(Failure::Backup)?;
    let shown = Shown::of(&held.evidence);
    report.answer(&shown, &shown.text())?;
    match held.evidence.passed() {
        true => Ok(()),
        false => Err(Failure::No(format!(
            "the drill failed: {}",
            held.evidence.drill.reasons.join("; ")
        ))),
    }
}

/// Whether the next drill is due.
#[derive(Serialize)]
struct DueShown {
    /// `null` without a schedule.
    due: Option<&'static str>,
    /// When it is or was due.
    at_unix_millis: Option<u64>,
}

impl DueShown {
    fn of(due: Option<Due>) -> Self {
        let (due, at) = match due {
            Some(Due::NotYet { until }) => (Some("not-yet"), Some(until)),
            Some(Due::Missed { since }) => (Some("missed"), Some(since)),
            Some(_) => (Some("now"), None),
            None => (None, None),
        };
        let since = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        Self {
            due,
            at_unix_millis: since.and_then(|since| u64::try_from(since.as_millis()).ok()),
        }
    }
}

#[derive(Debug, Args)]
pub struct EvidenceArgs {
    /// Print figures as Prometheus reads them from a file, and nothing else.
    #[arg(long)]
    metrics: bool,
}

#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    figures: Figures,
    #[serde(flatten)]
    due: DueShown,
}

pub async fn evidence(file: &ConfigFile, args: &EvidenceArgs, report: Report) -> Result<()> {
    let config = file.read()?;
    let stream = &config.stream;
    let repository = config.repository(For::Reading).await?;
    let found = repository.evidence().await.map_err(Failure::Backup)?;
    let points = repository.points().await.map_err(Failure::Backup)?;
    let figures = Figures::of(stream, &points.usable, &found.usable);
    let schedule = config.drill.schedule(None);
    let due = schedule.map(|schedule| schedule.due(stream, &found.usable, SystemTime::now()));
    if args.metrics {
        use std::io::Write as _;
        let text = figures.exposition(stream);
        write!(std::io::stdout(), "{text}").map_err(output)?;
    } else {
        let mine = found.usable.iter();
        for evidence in mine.filter(|evidence| evidence.drill.stream == *stream) {
            let shown = Shown::of(evidence);
            report.answer(&shown, &shown.text())?;
        }
        let summary = Summary {
            figures: figures.clone(),
            due: DueShown::of(due),
        };
        report.json(&summary)?;
    }
    for (object, error) in &found.unusable {
        note(&format!("{object} can't be used: {error}"));
    }
    // Whoever put it there, it hides a drill or invents one.
    if let Some((_, error)) = found.unusable.into_iter().next() {
        return Err(Failure::Backup(error));
    }
    let no = match (figures.last_drill_outcome, due) {
        (_, Some(Due::Missed { .. })) => "a drill was missed, and none was held since",
        (None, Some(_)) => "no drill was ever held, and the config asks for them",
        (Some(DrillOutcome::Passed) | None, _) => return Ok(()),
        (Some(DrillOutcome::Missed), _) => "the last drill was missed",
        (Some(_), _) => "the last drill failed",
    };
    Err(Failure::No(no.into()))
}
