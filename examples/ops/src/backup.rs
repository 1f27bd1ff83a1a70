//! Restore points of a store, and stores out of them.

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use groundtackle_backup::{
    At, BackUp, CheckDepth, Checked, Content, Error, FORMAT, Hex, Manifest, Meter, Points,
    Repository, Retention, SigningKey, SystemClock, SystemEntropy, Target, Trust, Turn,
};
use groundtackle_backup_age::{AgeIdentities, AgeRecipients};
use groundtackle_backup_s3::S3TargetConfig;
use groundtackle_backup_utxo::{Journal, JournalError, Made, SetBackup, StoreSink};
use groundtackle_chain::{BlockHash, Network};
use groundtackle_core::{ByteSize, Secret};
use groundtackle_utxo_store::UtxoStore;
use serde::{Deserialize, Serialize};

use crate::drill::DrillConfig;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::places::{self, Copies, For, LeaseConfig, PlaceConfig, bring_level, give_back, tell};
use crate::report::{Progress, Report, following};
use crate::stores::{self, Missing, StoreUrl};
use crate::watch::WatchConfig;

/// Where a signer's secret is kept: so many hexadecimal digits and a line's end.
const SEED_DIGITS: usize = 64;

#[derive(Clone, Debug, Args)]
pub struct ConfigFile {
    /// What to back up, where to, and who can read it: see README.md.
    #[arg(long = "config", value_name = "FILE")]
    path: PathBuf,
}

/// The keys of a config; README.md explains each.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    network: Option<String>,
    #[serde(default)]
    pub store: Option<String>,
    #[serde(default)]
    journal: Option<PathBuf>,
    #[serde(default = "Config::journal_keep_blocks")]
    journal_keep_blocks: u32,
    /// Empty for `utxo`, or `files` or `postgres` where there are such.
    #[serde(default)]
    pub stream: String,
    #[cfg(target_os = "linux")]
    #[serde(default)]
    pub files: Option<groundtackle_backup_files::FilesConfig>,
    #[cfg(target_os = "linux")]
    #[serde(default)]
    pub postgres: Option<groundtackle_backup_postgres::PostgresBackupConfig>,
    #[serde(default)]
    signer: Option<PathBuf>,
    #[serde(default)]
    trusted: Vec<Hex<32>>,
    #[serde(default)]
    recipients: Vec<String>,
    #[serde(default)]
    identities: Option<PathBuf>,
    #[serde(default = "Config::workers")]
    pub workers: usize,
    #[serde(default)]
    pub drill: DrillConfig,
    #[serde(default)]
    folder: Option<PathBuf>,
    #[serde(default)]
    s3: Option<S3TargetConfig>,
    #[serde(default, rename = "target")]
    targets: Vec<PlaceConfig>,
    #[serde(default)]
    copies: Copies,
    #[serde(default)]
    pub lease: Option<LeaseConfig>,
    #[serde(default)]
    pub retention: Option<Retention>,
    #[serde(default)]
    pub watch: WatchConfig,
    /// Bytes a second.
    #[serde(default)]
    write_limit: Option<ByteSize>,
    #[serde(default)]
    read_limit: Option<ByteSize>,
    #[serde(skip)]
    pub meter: Meter,
}

impl Config {
    /// A week of a chain with a block every ten minutes.
    const fn journal_keep_blocks() -> u32 {
        1_008
    }

    /// What is backed up of a tree, rather than of a store: the key that names it.
    pub const fn tree(&self) -> Option<&'static str> {
        #[cfg(target_os = "linux")]
        return match (&self.files, &self.postgres) {
            (Some(_), _) => Some("files"),
            (None, Some(_)) => Some("postgres"),
            (None, None) => None,
        };
        #[cfg(not(target_os = "linux"))]
        return None;
    }

    fn sources(&self) -> usize {
        #[cfg(target_os = "linux")]
        let trees = [self.files.is_some(), self.postgres.is_some()];
        #[cfg(not(target_os = "linux"))]
        let trees = [];
        let all = trees.into_iter().chain([self.store.is_some()]);
        all.filter(|is_there| *is_there).count()
    }

    const fn workers() -> usize {
        2
    }
}

fn unusable(what: impl Into<String>) -> Failure {
    Failure::Backup(Error::invalid_request(what))
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> Failure + '_ {
    move |source| Failure::ConfigFile {
        path: path.into(),
        source,
    }
}

impl ConfigFile {
    pub fn read(&self) -> Result<Config> {
        let text = fs::read_to_string(&self.path).map_err(unreadable(&self.path))?;
        let mut config: Config = toml::from_str(&text).map_err(|error| {
            // Never the line itself: it may have a password.
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.lines().count().max(1));
            let what = match error.message().starts_with("unknown field") {
                true => error.message(),
                false => {
                    "it can't be read: look at quotes, and at what kind of value the key takes"
                }
            };
            Failure::Config(format!("{}, near line {line}: {what}", self.path.display()))
        })?;
        if config.sources() > 1 {
            return Err(Failure::Config(
                "it has more than one of store, [files] and [postgres]: write a config for each; the repository may be the \
                 same"
                    .into(),
            ));
        }
        config.meter = config.metered()?;
        if config.stream.is_empty() {
            config.stream = config.tree().unwrap_or("utxo").into();
        }
        Ok(config)
    }
}

impl Config {
    pub fn signer(&self) -> Result<SigningKey> {
        let path = self.signer.as_ref().ok_or_else(|| {
            Failure::Config("signer is missing: name the file of the key that signs".into())
        })?;
        let text = Secret::from(fs::read_to_string(path).map_err(unreadable(path))?);
        let seed = Hex::<32>::from_str(text.expose().trim()).map_err(|_| {
            Failure::Config(format!(
                "{} is no signer's key: it has {SEED_DIGITS} hexadecimal digits, as ops backup init writes them",
                path.display()
            ))
        })?;
        Ok(SigningKey::from_seed(&seed.0))
    }

    /// The signer's key, made if it is not there.
    fn new_signer(&self) -> Result<SigningKey> {
        let Some(path) = self.signer.as_ref().filter(|path| !path.exists()) else {
            return self.signer();
        };
        let mut seed = Hex::<32>::default();
        groundtackle_backup::Entropy::fill(&SystemEntropy, &mut seed.0).map_err(Failure::Backup)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(path).and_then(|mut file| {
            writeln!(file, "{seed}")?;
            file.sync_all()
        });
        written.map_err(unreadable(path))?;
        Ok(SigningKey::from_seed(&seed.0))
    }

    fn metered(&self) -> Result<Meter> {
        let mut meter = Meter::new();
        let limit = |key, limit: ByteSize| {
            NonZeroU64::new(limit.bytes()).ok_or_else(|| {
                Failure::Config(format!(
                    "{key} lets nothing through: write 10MiB, or take it out"
                ))
            })
        };
        if let Some(bytes) = self.write_limit {
            meter = meter.with_write_limit(limit("write_limit", bytes)?);
        }
        if let Some(bytes) = self.read_limit {
            meter = meter.with_read_limit(limit("read_limit", bytes)?);
        }
        Ok(meter)
    }

    fn trust(&self) -> Result<Trust> {
        let mut trusted = self.trusted.clone();
        if trusted.is_empty() && self.signer.is_some() {
            trusted.push(self.signer()?.public());
        }
        Trust::new(trusted).map_err(Failure::Backup)
    }

    pub fn recipients(&self) -> Result<AgeRecipients> {
        AgeRecipients::new(&self.recipients).map_err(Failure::Backup)
    }

    pub fn identities(&self) -> Result<AgeIdentities> {
        let path = self.identities.as_ref().ok_or_else(|| {
            Failure::Config("identities is missing: name the file that age-keygen wrote".into())
        })?;
        let text = Secret::from(fs::read_to_string(path).map_err(unreadable(path))?);
        let lines = text.expose().lines().map(str::trim);
        let secrets = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        AgeIdentities::new(secrets.map(Secret::from)).map_err(Failure::Backup)
    }

    async fn target(&self, create: bool, what_for: For) -> Result<Arc<dyn Target>> {
        if self.targets.is_empty() {
            let opened = places::one(self.folder.as_deref(), self.s3.as_ref(), create).await;
            return Ok(Arc::new(self.meter.around(opened?)));
        }
        if self.folder.is_some() || self.s3.is_some() {
            return Err(Failure::Config(
                "name the places of the repository either by tables [[target]], or by folder or [s3]".into(),
            ));
        }
        places::several(&self.targets, self.copies, what_for, create, &self.meter).await
    }

    pub async fn repository(&self, what_for: For) -> Result<Repository> {
        let target = self.target(false, what_for).await?;
        let opened = Repository::open(target, self.trust()?).await;
        let opened = opened.map_err(Failure::Backup)?;
        let found = &opened.descriptor().network;
        match self.network()? {
            Some(network) if network.to_string() != *found => Err(Failure::Config(format!(
                "the repository is of network {found}, and the config says {network}: name the right place, or the right \
                 network"
            ))),
            _ => Ok(opened),
        }
    }

    fn network(&self) -> Result<Option<Network>> {
        let name = self.network.as_ref();
        let network = name.map(|name| name.parse::<Network>()).transpose();
        network.map_err(|error| Failure::Config(error.to_string()))
    }

    /// By the config's own name for it.
    pub fn store(&self) -> Result<StoreUrl> {
        let url = self.store.as_ref().ok_or_else(|| {
            Failure::Config("store is missing: name the store to back up by its URL".into())
        })?;
        url.parse().map_err(Failure::Config)
    }

    pub async fn points(&self, what_for: For, passes_over: bool) -> Result<(Repository, Points)> {
        let repository = self.repository(what_for).await?;
        let mut points = repository.points().await.map_err(Failure::Backup)?;
        for (object, error) in &points.unusable {
            crate::report::note(&format!("{object} can't be used: {error}"));
        }
        // The last one may be among them, or the one that left an abandoned branch.
        if let (Some((_, error)), false) = (points.unusable.pop(), passes_over) {
            return Err(Failure::Backup(error));
        }
        points.usable.retain(|point| point.stream == self.stream);
        Ok((repository, points))
    }
}

#[derive(Serialize)]
struct Begun {
    repository: Hex<16>,
    format: u32,
    network: String,
    signer: Hex<32>,
}

pub async fn init(file: &ConfigFile, report: Report) -> Result<()> {
    let config = file.read()?;
    // Before anything is made.
    config.recipients()?;
    let network = config.network()?.unwrap_or(Network::Main);
    let signer = config.new_signer()?;
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let target = config.target(true, For::Changing).await?;
    let made = Repository::init(target, &network.to_string(), &signer, clock, entropy).await;
    let made = made.map_err(Failure::Backup)?;
    let descriptor = made.descriptor();
    let begun = Begun {
        repository: descriptor.repository,
        format: FORMAT,
        network: descriptor.network.clone(),
        signer: signer.public(),
    };
    let text = format!(
        "repository {} of network {}\nhosts that restore trust signer {}",
        begun.repository, begun.network, begun.signer
    );
    report.answer(&begun, &text)
}

#[derive(Serialize)]
pub struct Point {
    made: &'static str,
    point: Option<Hex<16>>,
    height: Option<u32>,
    bestblock: Option<BlockHash>,
    /// Of a delta.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<u64>,
    txouts: Option<u64>,
    muhash: Option<BlockHash>,
    /// Of a tree: what has a name, and the lengths of the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    tree: Option<Tree>,
    bytes: u64,
    created_unix_millis: Option<u64>,
}

#[derive(Serialize)]
struct Tree {
    entries: u64,
    file_bytes: u64,
    blake3: Hex<32>,
    /// Restore points that it uses segments of.
    uses: Vec<Hex<16>>,
}

impl Point {
    pub fn of(manifest: &Manifest) -> Self {
        let content = &manifest.content;
        let is_base = matches!(content, Content::Base { .. });
        let tree = match content {
            Content::Tree {
                entries,
                bytes,
                blake3,
                uses,
                ..
            } => Some(Tree {
                entries: *entries,
                file_bytes: *bytes,
                blake3: *blake3,
                uses: uses.iter().map(|used| used.point).collect(),
            }),
            _ => None,
        };
        let set = content.set();
        Self {
            made: match content {
                Content::Base { .. } => "base",
                Content::Tree { .. } => "tree",
                _ => "delta",
            },
            point: Some(manifest.point),
            height: content.position().map(|at| at.height),
            bestblock: content
                .position()
                .map(|at| BlockHash::from_bytes(at.hash.0)),
            blocks: (!is_base && tree.is_none()).then_some(content.blocks().len() as u64),
            txouts: set.map(|set| set.coins),
            muhash: set.map(|set| BlockHash::from_bytes(set.muhash.0)),
            tree,
            bytes: manifest.packs.iter().map(|pack| pack.bytes).sum(),
            created_unix_millis: Some(manifest.created_unix_millis),
        }
    }

    pub fn text(&self) -> String {
        if let (Some(point), Some(tree)) = (&self.point, &self.tree) {
            return format!(
                "tree of {} entries, {} bytes in files, {} bytes of its own, restore point {point}",
                tree.entries, tree.file_bytes, self.bytes
            );
        }
        let (Some(point), Some(height), Some(hash)) = (&self.point, self.height, self.bestblock)
        else {
            return "nothing: the last restore point is of the store's tip".into();
        };
        let what = match self.blocks {
            Some(blocks) => format!("delta of {blocks} blocks"),
            None => "base".into(),
        };
        format!(
            "{what} at height {height} ({hash}), {} coins, {} bytes, restore point {point}",
            self.txouts.unwrap_or_default(),
            self.bytes
        )
    }
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Back up the whole set, also where the journal has all changes since the last restore point; of a tree, store
    /// everything anew.
    #[arg(long)]
    pub base: bool,
}

/// Of a tree, or of a store.
pub async fn run(
    file: &ConfigFile,
    args: &RunArgs,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let config = file.read()?;
    #[cfg(target_os = "linux")]
    if let Some(tree) = crate::trees::TreeBackup::of(&config)? {
        return crate::trees::run(&config, &tree, args, report, interrupt).await;
    }
    let store = stores::open(&config.store()?, Missing::Refuse).await?;
    run_store(&config, args, store, report, interrupt).await
}

async fn run_store(
    config: &Config,
    args: &RunArgs,
    store: Arc<dyn UtxoStore>,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let (signer, recipients) = (config.signer()?, config.recipients()?);
    let repository = config.repository(For::Writing).await?;
    bring_level(&repository).await?;
    let journal = match config.journal.as_ref().map(Journal::open) {
        Some(Err(JournalError::NotFound { path })) => {
            return Err(unusable(format!(
                "there is no journal in {}: fill the store with ops utxo sync --journal, or take the key out",
                path.display()
            )));
        }
        opened => opened
            .transpose()
            .map_err(|error| Failure::Store(error.into()))?,
    };
    let how = BackUp {
        stream: &config.stream,
        wrapping: &recipients,
        signer: &signer,
        workers: config.workers,
    };
    let backup = SetBackup::new(store, journal.clone());
    let turn = Turn::back_up(&config.stream);
    let lease = match &config.lease {
        Some(lease) => Some(lease.take(&repository, turn, &signer).await?),
        None => None,
    };
    let under = match &lease {
        Some(lease) => repository.under(lease.clone()),
        None => repository.clone(),
    };
    let making = async {
        match args.base {
            true => backup.back_up_base(&under, &how).await.map(Made::Base),
            false => backup.back_up(&under, &how).await,
        }
    };
    let mut progress = Progress::of_bytes("sent", None);
    let making = following(&mut progress, || config.meter.written(), making);
    // It may be dropped: what is not committed is not listed.
    let made = match &lease {
        Some(lease) => interrupt.or(lease.keep(making)).await,
        None => interrupt.or(making).await,
    };
    give_back(lease).await;
    tell(&repository);
    let made = made?.map_err(Failure::Backup)?;
    if let (Some(journal), Made::Base(manifest) | Made::Delta(manifest)) = (&journal, &made)
        && let Some(end) = manifest.content.position()
        && let Some(through) = end.height.checked_sub(config.journal_keep_blocks)
    {
        let removed = journal.forget_through(through);
        removed.map_err(|error| Failure::Store(error.into()))?;
    }
    let point = match &made {
        Made::Base(manifest) | Made::Delta(manifest) => Point::of(manifest),
        _ => Point {
            made: "nothing",
            point: None,
            height: None,
            bestblock: None,
            blocks: None,
            txouts: None,
            muhash: None,
            tree: None,
            bytes: 0,
            created_unix_millis: None,
        },
    };
    report.answer(&point, &point.text())
}

pub async fn list(file: &ConfigFile, report: Report) -> Result<()> {
    let (repository, points) = file.read()?.points(For::Reading, true).await?;
    tell(&repository);
    for point in points.usable.iter().map(Point::of) {
        report.answer(&point, &point.text())?;
    }
    Ok(())
}

/// Bytes of the objects that hold their segments.
pub fn packed<'a>(points: impl IntoIterator<Item = &'a Manifest>) -> u64 {
    let packs = points.into_iter().flat_map(|point| &point.packs);
    packs.map(|pack| pack.bytes).sum()
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Depth {
    /// Each object is there, as long as it was.
    Presence,
    /// Each byte is what was written.
    Bytes,
    /// It can be decrypted as well: needs identities.
    Read,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// How closely to look.
    #[arg(long, value_enum, default_value = "bytes")]
    depth: Depth,
}

#[derive(Serialize)]
struct CheckAnswer {
    points: u64,
    packs: u64,
    bytes: u64,
    segments: u64,
}

pub async fn check(
    file: &ConfigFile,
    args: &CheckArgs,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let config = file.read()?;
    let identities = match args.depth {
        Depth::Read => Some(config.identities()?),
        _ => None,
    };
    let depth = match (args.depth, &identities) {
        (Depth::Presence, _) => CheckDepth::Presence,
        (_, Some(identities)) => CheckDepth::Read(identities),
        _ => CheckDepth::Bytes,
    };
    let repository = config.repository(For::Reading).await?;
    let mut points = repository.points().await.map_err(Failure::Backup)?;
    if let Some((_, error)) = points.unusable.pop() {
        return Err(Failure::Backup(error));
    }
    // Each leads somewhere, and what it needs is looked at as well.
    let mut needed = Vec::new();
    for point in &points.usable {
        needed.extend(points.needs(point).map_err(Failure::Backup)?);
    }
    let forgotten = points.forgotten.into_iter();
    let forgotten = forgotten.filter(|point| needed.contains(&point.point));
    let mut answer = CheckAnswer {
        points: 0,
        packs: 0,
        bytes: 0,
        segments: 0,
    };
    let all: Vec<_> = points.usable.into_iter().chain(forgotten).collect();
    // Whether objects are there, is no matter of bytes.
    let bytes = matches!(args.depth, Depth::Bytes | Depth::Read).then(|| packed(&all));
    let mut progress = Progress::of_bytes("read", bytes);
    for point in all {
        let checking = repository.check(&point, depth, config.workers);
        let checking = following(&mut progress, || config.meter.read(), checking);
        let checked: Checked = interrupt.or(checking).await?.map_err(Failure::Backup)?;
        answer.points += 1;
        answer.packs += checked.packs;
        answer.bytes += checked.bytes;
        answer.segments += checked.segments;
    }
    let text = format!(
        "{} restore points: {} objects are as they were written, {} bytes read, {} segments decrypted",
        answer.points, answer.packs, answer.bytes, answer.segments
    );
    report.answer(&answer, &text)
}

/// A height, `latest`, or a block's hash.
#[derive(Clone, Copy, Debug)]
pub struct Moment(pub At);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "latest" {
            return Ok(Self(At::Latest));
        }
        if let Ok(height) = text.parse() {
            return Ok(Self(At::Height(height)));
        }
        let hash: BlockHash = text
            .parse()
            .map_err(|_| format!("{text:?} is no height, no block's hash, and not \"latest\""))?;
        Ok(Self(At::Block(Hex(*hash.as_bytes()))))
    }
}

/// That of a set, or a restore point by its name.
#[derive(Clone, Copy, Debug)]
pub enum Where {
    Moment(At),
    Point(Hex<16>),
}

impl FromStr for Where {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(point) = text.parse() {
            return Ok(Self::Point(point));
        }
        text.parse::<Moment>().map(|moment| Self::Moment(moment.0))
    }
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// A height in the chain of the last restore point, a block's hash, or latest; for a tree, a restore point's name or
    /// latest.
    #[arg(long, value_name = "HEIGHT|HASH|POINT|latest")]
    pub at: Where,
}

#[derive(Serialize)]
struct Restored {
    height: u32,
    bestblock: BlockHash,
    txouts: u64,
    muhash: BlockHash,
    /// Restore points that were read.
    points: u64,
    seconds: f64,
}

pub async fn restore(
    file: &ConfigFile,
    args: &RestoreArgs,
    into: Arc<dyn UtxoStore>,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let began = Instant::now();
    let config = file.read()?;
    let identities = config.identities()?;
    let Where::Moment(at) = args.at else {
        return Err(Failure::Config(
            "--at names a restore point, which is for trees: name a height, a block's hash or latest".into(),
        ));
    };
    // A block that is named is that block, whatever else there is.
    let named = matches!(at, At::Block(_));
    let (repository, points) = config.points(For::Reading, named).await?;
    let plan = points.plan(&config.stream, at).map_err(Failure::Backup)?;
    let mut sink = StoreSink::new(into);
    let needed = plan.points();
    let all = points.usable.iter().chain(&points.forgotten);
    let bytes = packed(all.filter(|point| needed.contains(&point.point)));
    let mut progress = Progress::of_bytes("read", Some(bytes));
    let restoring = repository.restore(&plan, &identities, &mut sink, config.workers);
    let restoring = following(&mut progress, || config.meter.read(), restoring);
    // It may be dropped: what is there is marked as unfinished.
    let restored = interrupt.or(restoring).await?;
    tell(&repository);
    let done = restored.map_err(Failure::Backup)?;
    for error in &done.passed_over {
        crate::report::note(&format!("not used, others have the same blocks: {error}"));
    }
    let goal = done.goal;
    let restored = Restored {
        height: goal.position.height,
        bestblock: BlockHash::from_bytes(goal.position.hash.0),
        txouts: goal.set.coins,
        muhash: BlockHash::from_bytes(goal.set.muhash.0),
        points: plan.points().len() as u64,
        seconds: began.elapsed().as_secs_f64(),
    };
    let text = format!(
        "height {} ({}): {} coins, muhash {}, as they were backed up; {} restore points read, {:.2} s",
        restored.height,
        restored.bestblock,
        restored.txouts,
        restored.muhash,
        restored.points,
        restored.seconds
    );
    report.answer(&restored, &text)
}
