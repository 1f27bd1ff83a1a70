//! Measures backups of records of coins against restic, borg and zstd, and against the least that any of them can take:
//! a copy, and the same work without an engine. Prints the tables of `docs/benchmarks.md`. Linux only.
//!
//! All of them back up one file of records; then one transaction in a hundred is replaced, and they do it again. The file
//! is in the page cache. Peers that are not installed are left out, and told.

#![allow(
    clippy::indexing_slicing,
    reason = "a measurement that fails has nothing to say"
)]

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use async_trait::async_trait;
use bytes::Bytes;
use groundtackle_backup::{
    At, BackUp, BlockEntry, Content, Direction, Error, Goal, Hex, HexBytes, Listing, MemoryTarget,
    ObjectInfo, ObjectKey, ObjectTag, Outcome, Position, PutIf, Repository, Result, Retryability,
    Segment, SegmentInfo, SegmentWork, SetSummary, SigningKey, Sink, Source, SourceEnd,
    SystemClock, SystemEntropy, Target, TargetCapabilities, Upload,
};
use groundtackle_backup_age::{AgeIdentities, AgeRecipients};
use groundtackle_backup_fs::{FsTarget, FsTargetConfig};
use groundtackle_backup_utxo::codec::{decode_coins, encode_coins};
use groundtackle_backup_utxo::delta::{Cutter, Delta, DeltaPart, encode_parts};
use groundtackle_backup_utxo::{COINS, DELTAS, DigestSink};
use groundtackle_benches::BoxError;
use groundtackle_benches::coins::{self, Slices, raw};
use groundtackle_benches::machine::{
    children_cpu, machine, peak_rss_mib, process_cpu, reset_peak_rss,
};
use groundtackle_core::Secret;
use groundtackle_utxo_store::digest::{MuHash3072, coin_element};
use groundtackle_utxo_store::{BlockHash, Coin, Tip};
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const USAGE: &str = "backup [--gb 1] [--dir DIR] [--workers 2] [--only ours,peers,limits,memory]

DIR needs some ten times as much room as the records take; default: the system's temporary folder. memory is measured
only where it is named: a source of so many GB, and one of a tenth, into a target that keeps nothing, and 64 MB into one
that takes 3 s for each write.";

const SEGMENT_BYTES: usize = 4 << 20;
const RECORDS: &str = "records";
const BLOCKS: u32 = 144;
const STREAM: &str = "utxo";
/// Opens nothing but what this program writes.
const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

#[derive(Debug)]
struct Options {
    bytes: u64,
    folder: PathBuf,
    workers: usize,
    only: Option<String>,
}

impl Options {
    fn parse() -> Result<Self, BoxError> {
        let mut options = Self {
            bytes: 1_000_000_000,
            folder: std::env::temp_dir(),
            workers: 2,
            only: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match name.as_str() {
                "--gb" => options.bytes = (value.parse::<f64>()? * 1e9) as u64,
                "--dir" => options.folder = value.into(),
                "--workers" => options.workers = value.parse()?,
                "--only" => options.only = Some(value),
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }

    fn wants(&self, what: &str) -> bool {
        let wanted = |only: &String| only.split(',').any(|only| only == what);
        self.only.as_ref().map_or(what != "memory", wanted)
    }
}

/// What one of them took.
#[derive(Clone, Debug)]
struct Row {
    what: String,
    wall: f64,
    cpu: f64,
    /// Of the repository, or what was added to it.
    bytes: u64,
    /// Ours alone: the others' are their own.
    peak_rss_mib: Option<u64>,
}

fn print(title: &str, rows: &[Row], ours: Option<&Row>) {
    println!("\n| {title} | wall s | CPU s | MB | peak RSS MiB | times ours |");
    println!("|---|---|---|---|---|---|");
    for row in rows {
        let rss = row.peak_rss_mib.map_or("-".into(), |mib| mib.to_string());
        let times = ours.map_or("-".into(), |ours| format!("{:.2}", row.wall / ours.wall));
        let megabytes = row.bytes as f64 / 1e6;
        println!(
            "| {} | {:.2} | {:.2} | {megabytes:.1} | {rss} | {times} |",
            row.what, row.wall, row.cpu
        );
    }
}

/// Bytes of all files below.
fn size(path: &Path) -> Result<u64, BoxError> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        bytes += size(&entry?.path())?;
    }
    Ok(bytes)
}

/// Writes the records of before and after into a folder each.
fn write_records(slices: &Slices, folder: &Path) -> Result<Vec<Delta>, BoxError> {
    let mut files = Vec::new();
    for name in ["before", "after"] {
        fs::create_dir_all(folder.join(name))?;
        files.push(BufWriter::new(File::create(
            folder.join(name).join(RECORDS),
        )?));
    }
    let mut deltas: Vec<_> = (1..=BLOCKS).map(empty_delta).collect();
    for number in 0..slices.count() {
        let slice = slices.slice(number);
        for (file, coins) in files.iter_mut().zip([&slice.before, &slice.after]) {
            file.write_all(&raw(coins))?;
        }
        // Blocks spend all over the set.
        for (at, coin) in slice.spent.into_iter().enumerate() {
            deltas[at % BLOCKS as usize].spent.push(coin);
        }
        for (at, coin) in slice.created.into_iter().enumerate() {
            deltas[at % BLOCKS as usize].created.push(coin);
        }
    }
    for file in files {
        file.into_inner()?.sync_all()?;
    }
    Ok(deltas)
}

fn block(height: u32) -> BlockHash {
    let mut hash = [7; 32];
    hash[..4].copy_from_slice(&height.to_le_bytes());
    BlockHash::from_bytes(hash)
}

fn empty_delta(number: u32) -> Delta {
    let height = coins::TIP + number;
    Delta {
        tip: Tip {
            height,
            hash: block(height),
            median_time_past: height,
        },
        previous: block(height - 1),
        created: Vec::new(),
        spent: Vec::new(),
    }
}

fn position(height: u32) -> Position {
    Position {
        height,
        hash: Hex(*block(height).as_bytes()),
        median_time_past: height,
    }
}

fn failed(error: impl Into<BoxError>) -> Error {
    Error::backend("bench", "records", Retryability::Permanent, error)
}

/// What is known of a set.
#[derive(Clone, Debug, Default)]
struct Known {
    coins: u64,
    muhash: MuHash3072,
}

impl Known {
    fn set(&self) -> SetSummary {
        SetSummary {
            coins: self.coins,
            muhash: Hex(self.muhash.digest()),
        }
    }
}

/// Records of a file, or made up on the way.
enum Records {
    File(File),
    /// The next slice.
    Slices(Slices, u32),
}

/// The records as a base, in columns. Where nothing is known of the set, its MuHash is computed, as a backup of a store
/// does.
struct Base {
    records: Records,
    rest: Vec<u8>,
    known: Option<Known>,
    found: Arc<Mutex<Known>>,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base").finish_non_exhaustive()
    }
}

impl Base {
    fn new(records: Records, known: Option<Known>) -> Self {
        Self {
            records,
            rest: Vec::new(),
            known,
            found: Arc::default(),
        }
    }

    /// About a segment of whole records; none at the end.
    fn read(&mut self) -> Result<Vec<u8>, BoxError> {
        let mut bytes = std::mem::take(&mut self.rest);
        match &mut self.records {
            Records::File(file) => {
                let room = SEGMENT_BYTES.saturating_sub(bytes.len());
                file.take(room as u64).read_to_end(&mut bytes)?;
                self.rest = bytes.split_off(coins::whole_records(&bytes));
            }
            Records::Slices(slices, next) => {
                while bytes.len() < SEGMENT_BYTES && *next < slices.count() {
                    bytes.extend(raw(&slices.slice(*next).before));
                    *next += 1;
                }
                let room = bytes.len().min(SEGMENT_BYTES);
                let whole = coins::whole_records(&bytes[..room]);
                self.rest = bytes.split_off(whole);
            }
        }
        Ok(bytes)
    }
}

fn coins_of(mut records: &[u8]) -> Result<Vec<Coin>> {
    // As many as there are at least.
    let mut coins = Vec::with_capacity(records.len() / 70);
    while !records.is_empty() {
        let (coin, rest) =
            coins::read_raw(records).ok_or_else(|| failed("a record is cut short"))?;
        coins.push(coin);
        records = rest;
    }
    Ok(coins)
}

#[async_trait]
impl Source for Base {
    async fn next(&mut self) -> Result<Option<SegmentWork>> {
        let records = self.read().map_err(failed)?;
        if records.is_empty() {
            return Ok(None);
        }
        let (found, digests) = (self.found.clone(), self.known.is_none());
        Ok(Some(Box::new(move || {
            let coins = coins_of(&records)?;
            drop(records);
            let mut part = Known {
                coins: coins.len() as u64,
                muhash: MuHash3072::new(),
            };
            if digests {
                part.muhash.insert_all(coins.iter().map(coin_element));
            }
            {
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.coins += part.coins;
                found.muhash.combine(&part.muhash);
            }
            Ok(Segment {
                info: SegmentInfo {
                    codec: COINS.into(),
                    items: part.coins,
                    first: HexBytes::default(),
                    last: HexBytes::default(),
                    heights: None,
                },
                bytes: encode_coins(&coins).map_err(failed)?,
            })
        })))
    }

    async fn finish(&mut self) -> Result<SourceEnd> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known.as_ref().unwrap_or(&found);
        Ok(SourceEnd {
            content: Content::Base {
                epoch: Hex([1; 16]),
                position: position(coins::TIP),
                set: known.set(),
                muhash_state: HexBytes(known.muhash.to_bytes().into()),
                during: Vec::new(),
            },
            items: found.coins,
        })
    }
}

/// What the blocks changed; with the digest after each of them, as a backup of a journal has it.
#[derive(Debug)]
struct Changes {
    deltas: std::vec::IntoIter<Delta>,
    cutter: Option<Cutter>,
    segments: std::collections::VecDeque<Vec<DeltaPart>>,
    from: Known,
    now: Known,
    blocks: Vec<BlockEntry>,
    items: u64,
}

impl Changes {
    fn new(deltas: Vec<Delta>, from: Known) -> Self {
        Self {
            deltas: deltas.into_iter(),
            cutter: Some(Cutter::new(SEGMENT_BYTES)),
            segments: std::collections::VecDeque::new(),
            now: from.clone(),
            from,
            blocks: Vec::new(),
            items: 0,
        }
    }
}

#[async_trait]
impl Source for Changes {
    async fn next(&mut self) -> Result<Option<SegmentWork>> {
        while self.segments.is_empty() && self.cutter.is_some() {
            let Some(delta) = self.deltas.next() else {
                let last = self.cutter.take().and_then(Cutter::finish);
                self.segments.extend(last);
                break;
            };
            let (created, spent) = (delta.created.len() as u64, delta.spent.len() as u64);
            let elements = |coins: &[Coin]| coins.iter().map(coin_element).collect::<Vec<_>>();
            let threads = std::thread::available_parallelism().map_err(failed)?;
            let muhash = &mut self.now.muhash;
            muhash.remove_parallel(&elements(&delta.spent), threads);
            muhash.insert_parallel(&elements(&delta.created), threads);
            self.now.coins = self.now.coins + created - spent;
            self.items += created + spent;
            self.blocks.push(BlockEntry {
                position: position(delta.tip.height),
                previous: Hex(*delta.previous.as_bytes()),
                set: self.now.set(),
            });
            if let Some(cutter) = &mut self.cutter {
                self.segments.extend(cutter.push(delta));
            }
        }
        let Some(parts) = self.segments.pop_front() else {
            return Ok(None);
        };
        Ok(Some(Box::new(move || {
            let coins = |part: &DeltaPart| part.delta.created.len() + part.delta.spent.len();
            let height = |part: Option<&DeltaPart>| part.map(|part| part.delta.tip.height);
            Ok(Segment {
                info: SegmentInfo {
                    codec: DELTAS.into(),
                    items: parts.iter().map(coins).sum::<usize>() as u64,
                    first: HexBytes::default(),
                    last: HexBytes::default(),
                    heights: height(parts.first()).zip(height(parts.last())),
                },
                bytes: encode_parts(&parts).map_err(failed)?,
            })
        })))
    }

    async fn finish(&mut self) -> Result<SourceEnd> {
        Ok(SourceEnd {
            content: Content::Delta {
                epoch: Hex([1; 16]),
                from: position(coins::TIP),
                from_set: self.from.set(),
                blocks: std::mem::take(&mut self.blocks),
                muhash_state: HexBytes(self.now.muhash.to_bytes().into()),
            },
            items: self.items,
        })
    }
}

/// Back into a file of records, whose BLAKE3 the caller compares; no digest of the set.
#[derive(Debug)]
struct ToFile {
    file: BufWriter<File>,
    blake3: Box<blake3::Hasher>,
    under_way: std::collections::VecDeque<tokio::task::JoinHandle<Result<Vec<u8>>>>,
    workers: usize,
}

impl ToFile {
    async fn write_all_but(&mut self, count: usize) -> Result<()> {
        while self.under_way.len() > count
            && let Some(first) = self.under_way.pop_front()
        {
            let records = first.await.map_err(failed)??;
            self.blake3.update(&records);
            self.file.write_all(&records).map_err(failed)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for ToFile {
    async fn begin(&mut self, _: &Goal) -> Result<()> {
        Ok(())
    }

    async fn changes(&mut self, _: Segment, _: Direction, _: (u32, u32)) -> Result<()> {
        Err(failed("a base has no changes"))
    }

    async fn base(&mut self, segment: Segment) -> Result<()> {
        self.write_all_but(self.workers.saturating_sub(1)).await?;
        self.under_way
            .push_back(tokio::task::spawn_blocking(move || {
                Ok(raw(&decode_coins(&segment.bytes).map_err(failed)?))
            }));
        Ok(())
    }

    async fn finish(&mut self, goal: &Goal) -> Result<SetSummary> {
        self.write_all_but(0).await?;
        self.file.flush().map_err(failed)?;
        self.file.get_ref().sync_all().map_err(failed)?;
        Ok(goal.set)
    }
}

/// Keeps what is small, discards what is large, and takes its time.
#[derive(Clone, Debug)]
struct Discarding {
    small: MemoryTarget,
    pause: Duration,
    bytes: Arc<AtomicU64>,
}

#[async_trait]
impl Target for Discarding {
    fn capabilities(&self) -> TargetCapabilities {
        TargetCapabilities::new("discarding")
    }
    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
        lock_until: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>> {
        self.small.put(key, body, condition, lock_until).await
    }
    async fn upload(&self, key: &ObjectKey, _: Option<SystemTime>) -> Result<Box<dyn Upload>> {
        Ok(Box::new(Discarded(self.clone(), key.clone(), 0)))
    }
    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        self.small.read(key, range).await
    }
    async fn info(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        self.small.info(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Listing> {
        self.small.list(prefix, after, limit).await
    }
    async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>> {
        self.small.remove(key).await
    }
    async fn lock(&self, key: &ObjectKey, until: SystemTime) -> Result<Outcome<()>> {
        self.small.lock(key, until).await
    }
    async fn remove_unfinished(&self, before: SystemTime) -> Result<u64> {
        self.small.remove_unfinished(before).await
    }
}

#[derive(Debug)]
struct Discarded(Discarding, ObjectKey, u64);

#[async_trait]
impl Upload for Discarded {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        tokio::time::sleep(self.0.pause).await;
        self.2 += bytes.len() as u64;
        self.0
            .bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
    async fn finish(self: Box<Self>) -> Result<Outcome<ObjectInfo>> {
        tokio::time::sleep(self.0.pause).await;
        Ok(Ok(ObjectInfo {
            key: self.1,
            bytes: self.2,
            tag: ObjectTag::new("none"),
            written: UNIX_EPOCH,
        }))
    }
    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// One repository, and what was measured of it.
struct Ours {
    repository: Repository,
    signer: SigningKey,
    recipients: AgeRecipients,
    identities: AgeIdentities,
    folder: Option<PathBuf>,
    workers: usize,
}

impl Ours {
    async fn new(
        target: Arc<dyn Target>,
        folder: Option<PathBuf>,
        workers: usize,
    ) -> Result<Self, BoxError> {
        let signer = SigningKey::random(&SystemEntropy)?;
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let identities = AgeIdentities::new([Secret::from(IDENTITY.to_owned())])?;
        Ok(Self {
            repository: Repository::init(target, "main", &signer, clock, entropy).await?,
            signer,
            recipients: AgeRecipients::new(identities.recipients())?,
            identities,
            folder,
            workers,
        })
    }

    async fn back_up(&self, what: &str, source: &mut dyn Source) -> Result<Row, BoxError> {
        let how = BackUp {
            stream: STREAM,
            wrapping: &self.recipients,
            signer: &self.signer,
            workers: self.workers,
        };
        let size = || self.folder.as_deref().map_or(Ok(0), size);
        let before = size()?;
        let measured = Measured::begin()?;
        self.repository.back_up(source, &how).await?;
        let mut row = measured.end(what)?;
        row.bytes = size()? - before;
        Ok(row)
    }

    /// The set at a block.
    async fn restore(&self, what: &str, at: At, sink: &mut dyn Sink) -> Result<Row, BoxError> {
        let measured = Measured::begin()?;
        let points = self.repository.points().await?;
        let plan = points.plan(STREAM, at)?;
        let restored = self
            .repository
            .restore(&plan, &self.identities, sink, self.workers);
        let restored = restored.await?;
        if !restored.passed_over.is_empty() {
            return Err("a restore passed over damaged objects".into());
        }
        measured.end(what)
    }
}

struct Measured {
    wall: Instant,
    cpu: f64,
    children: f64,
}

impl Measured {
    fn begin() -> Result<Self, BoxError> {
        reset_peak_rss()?;
        Ok(Self {
            cpu: process_cpu()?,
            children: children_cpu()?,
            wall: Instant::now(),
        })
    }

    fn end(self, what: &str) -> Result<Row, BoxError> {
        let wall = self.wall.elapsed().as_secs_f64();
        let own = process_cpu()? - self.cpu;
        let children = children_cpu()? - self.children;
        Ok(Row {
            what: what.into(),
            wall,
            cpu: own + children,
            bytes: 0,
            peak_rss_mib: (children <= own).then(peak_rss_mib).transpose()?,
        })
    }
}

/// A copy, and the work that no backup of this kind is without: read, BLAKE3, AES-256-GCM, write.
fn limits(folder: &Path, workers: usize) -> Result<Vec<Row>, BoxError> {
    let from = folder.join("before").join(RECORDS);
    let to = folder.join("limit");
    let measured = Measured::begin()?;
    fs::copy(&from, &to)?;
    File::open(&to)?.sync_all()?;
    let mut copy = measured.end("copy with fsync")?;
    copy.bytes = size(&to)?;
    fs::remove_file(&to)?;

    let measured = Measured::begin()?;
    let (source, sealed) = (File::open(&from)?, File::create(&to)?);
    let (bytes, next) = (source.metadata()?.len(), AtomicU64::new(0));
    let work = || -> Result<(), BoxError> {
        let mut buffer = vec![0; SEGMENT_BYTES];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let at = number * SEGMENT_BYTES as u64;
            let Some(length) = bytes.checked_sub(at).filter(|left| *left > 0) else {
                return Ok(());
            };
            let part = &mut buffer[..length.min(SEGMENT_BYTES as u64) as usize];
            source.read_exact_at(part, at)?;
            let key = blake3::hash(&number.to_le_bytes());
            std::hint::black_box(blake3::hash(part));
            let cipher = Aes256Gcm::new(key.as_bytes().into());
            let tag = cipher.encrypt_in_place_detached(&Nonce::default(), b"", part);
            std::hint::black_box(tag.map_err(|error| error.to_string())?);
            sealed.write_all_at(part, at)?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread stopped")?)
    })?;
    sealed.sync_all()?;
    let mut pipeline = measured.end("read, BLAKE3, AES-256-GCM, write, fsync")?;
    pipeline.bytes = size(&to)?;
    fs::remove_file(&to)?;
    Ok(vec![copy, pipeline])
}

/// What a peer is asked to do.
struct Peer {
    name: &'static str,
    program: &'static str,
    init: Option<&'static str>,
    /// In the folder of the records; `R` is the repository, `N` the number of the backup.
    back_up: &'static str,
    restore: &'static str,
}

const PEERS: [Peer; 5] = [
    Peer {
        name: "restic",
        program: "restic",
        init: Some("restic -q -r $R init"),
        back_up: "restic -q -r $R backup records --tag $N",
        restore: "restic -q -r $R restore latest --tag 1 --target .",
    },
    Peer {
        name: "borg, zstd 3",
        program: "borg",
        init: Some("borg --error init -e repokey-blake2 $R"),
        back_up: "borg create -C zstd,3 $R::$N records",
        restore: "borg extract $R::1 && sync records",
    },
    Peer {
        name: "borg, zstd 1",
        program: "borg",
        init: Some("borg --error init -e repokey-blake2 $R"),
        back_up: "borg create -C zstd,1 $R::$N records",
        restore: "borg extract $R::1 && sync records",
    },
    Peer {
        name: "zstd -1, one thread, not encrypted",
        program: "zstd",
        init: Some("mkdir $R"),
        back_up: "zstd -q -1 --single-thread records -o $R/$N && sync $R/$N",
        restore: "zstd -q -d $R/1 -o records && sync records",
    },
    Peer {
        name: "zstd -3, one thread, not encrypted",
        program: "zstd",
        init: Some("mkdir $R"),
        back_up: "zstd -q -3 --single-thread records -o $R/$N && sync $R/$N",
        restore: "zstd -q -d $R/1 -o records && sync records",
    },
];

impl Peer {
    /// First backup, second one, restore; `None` where it is not installed.
    fn measure(&self, folder: &Path) -> Result<Option<[Row; 3]>, BoxError> {
        let asked = match self.program {
            "restic" => "version",
            _ => "--version",
        };
        let version = Command::new(self.program).arg(asked).output();
        let Ok(version) = version else {
            println!("{} is not installed, and left out", self.name);
            return Ok(None);
        };
        let version = String::from_utf8_lossy(&version.stdout);
        println!("{}: {}", self.name, version.lines().next().unwrap_or("?"));
        let place = TempDir::new_in(folder)?;
        let repository = place.path().join("repository");
        let run = |at: &Path, number: &str, script: &str| -> Result<(), BoxError> {
            let status = Command::new("sh")
                .args(["-ec", script])
                .current_dir(at)
                .env("R", &repository)
                .env("N", number)
                .env("RESTIC_PASSWORD", "bench")
                .env("RESTIC_CACHE_DIR", place.path().join("cache"))
                .env("BORG_PASSPHRASE", "bench")
                .env("BORG_BASE_DIR", place.path().join("cache"))
                .stdout(Stdio::null())
                .status()?;
            match status.success() {
                true => Ok(()),
                false => Err(format!("{script} failed: {status}").into()),
            }
        };
        if let Some(init) = self.init {
            run(place.path(), "0", init)?;
        }
        let mut rows = Vec::new();
        for (number, from) in [("1", "before"), ("2", "after")] {
            let before = size(&repository)?;
            let measured = Measured::begin()?;
            run(&folder.join(from), number, self.back_up)?;
            let mut row = measured.end(self.name)?;
            row.bytes = size(&repository)? - before;
            rows.push(row);
        }
        let out = place.path().join("out");
        fs::create_dir(&out)?;
        let measured = Measured::begin()?;
        run(&out, "1", self.restore)?;
        let mut row = measured.end(self.name)?;
        row.bytes = size(&out)?;
        let original = size(&folder.join("before").join(RECORDS))?;
        if row.bytes != original {
            return Err(format!("{} restored {} of {original} bytes", self.name, row.bytes).into());
        }
        rows.push(row);
        Ok(rows.try_into().ok())
    }
}

async fn memory(options: &Options) -> Result<(), BoxError> {
    let mut rows = Vec::new();
    let small = 64_000_000;
    for (what, bytes, pause) in [
        ("a tenth", options.bytes / 10, 0),
        ("all", options.bytes, 0),
        ("64 MB, 3 s a write", small, 3),
    ] {
        let target = Discarding {
            small: MemoryTarget::new(),
            pause: Duration::from_secs(pause),
            bytes: Arc::default(),
        };
        let ours = Ours::new(Arc::new(target.clone()), None, options.workers).await?;
        let records = Records::Slices(Slices::of(bytes), 0);
        let mut source = Base::new(records, Some(Known::default()));
        let mut row = ours.back_up(what, &mut source).await?;
        row.bytes = target.bytes.load(Ordering::Relaxed);
        rows.push(row);
    }
    print("memory: nothing kept", &rows, None);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let options = Options::parse()?;
    println!("{}; {} workers", machine(), options.workers);
    if options.wants("memory") {
        memory(&options).await?;
    }
    let folder = TempDir::with_prefix_in("groundtackle-bench-", &options.folder)?;
    let folder = folder.path();
    if options.only.as_deref() == Some("memory") {
        return Ok(());
    }
    let deltas = write_records(&Slices::of(options.bytes), folder)?;
    let changed: usize = deltas
        .iter()
        .map(|delta| delta.created.len() + delta.spent.len())
        .sum();
    let from = folder.join("before").join(RECORDS);
    println!(
        "{} MB of records; then {changed} coins created and spent by {BLOCKS} blocks",
        size(&from)? / 1_000_000
    );
    let [mut firsts, mut seconds, mut restores] = [(); 3].map(|()| Vec::<Row>::new());
    if options.wants("ours") {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(&from)?)?;
        let wanted = hasher.finalize();
        // With the digest first: the other one goes by what it has found.
        let mut known = None;
        for what in ["ours, with MuHash", "ours"] {
            let place = folder.join(what);
            let target = FsTarget::open(&place, FsTargetConfig::default()).await?;
            let ours = Ours::new(Arc::new(target), Some(place.clone()), options.workers).await?;
            let mut base = Base::new(Records::File(File::open(&from)?), known.clone());
            let row = ours.back_up(what, &mut base).await?;
            firsts.insert(0, row);
            let found = {
                let found = base.found.lock().unwrap_or_else(PoisonError::into_inner);
                found.clone()
            };
            if known.is_none() {
                let mut changes = Changes::new(deltas.clone(), found.clone());
                let row = ours.back_up("ours, with MuHash", &mut changes).await?;
                seconds.insert(0, row);
                let mut sink = DigestSink::new();
                let what = "ours, the latest, into count and MuHash";
                restores.insert(0, ours.restore(what, At::Latest, &mut sink).await?);
                known = Some(found);
                drop(ours);
                fs::remove_dir_all(&place)?;
                continue;
            }
            let at = At::Block(position(coins::TIP).hash);
            let out = folder.join("out");
            let mut sink = ToFile {
                file: BufWriter::new(File::create(&out)?),
                blake3: Box::default(),
                under_way: std::collections::VecDeque::new(),
                workers: options.workers,
            };
            let mut row = ours
                .restore("ours, into a file, BLAKE3 alone", at, &mut sink)
                .await?;
            if sink.blake3.finalize() != wanted {
                return Err("other records came back".into());
            }
            row.bytes = size(&out)?;
            restores.insert(0, row);
            fs::remove_file(&out)?;
            fs::remove_dir_all(&place)?;
        }
    }
    let ours = |rows: &[Row]| rows.first().filter(|_| options.wants("ours")).cloned();
    let ours = [ours(&firsts), ours(&seconds), ours(&restores)];
    if options.wants("limits") {
        firsts.extend(limits(folder, options.workers)?);
    }
    if options.wants("peers") {
        for peer in PEERS {
            if let Some([first, second, restore]) = peer.measure(folder)? {
                firsts.push(first);
                seconds.push(second);
                restores.push(restore);
            }
        }
    }
    print("first backup", &firsts, ours[0].as_ref());
    print(
        "second backup, 1 % replaced: added",
        &seconds,
        ours[1].as_ref(),
    );
    print("restore", &restores, ours[2].as_ref());
    Ok(())
}
