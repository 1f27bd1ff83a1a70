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
use groundtackle_benches::machine::machine;
use groundtackle_benches::peers::PEERS;
use groundtackle_benches::rows::{Measured, Row, keep_best, print, size};
use groundtackle_core::Secret;
use groundtackle_utxo_store::digest::{MuHash3072, coin_element};
use groundtackle_utxo_store::{BlockHash, Coin, Tip};
use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

const USAGE: &str = "backup [--gb 1] [--dir DIR] [--workers 2] [--rounds 3] [--only ours,peers,limits,memory]

DIR needs some ten times as much room as the records take; default: the system's temporary folder. The best of the rounds
counts. memory is measured only where it is named: a source of so many GB, and one of a
tenth, into a target that keeps nothing, and 64 MB into one that takes 3 s for each write.";

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
    rounds: u32,
    only: Option<String>,
}

impl Options {
    fn parse() -> Result<Self, BoxError> {
        let mut options = Self {
            bytes: 1_000_000_000,
            folder: std::env::temp_dir(),
            workers: 2,
            rounds: 3,
            only: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match name.as_str() {
                "--gb" => options.bytes = (value.parse::<f64>()? * 1e9) as u64,
                "--dir" => options.folder = value.into(),
                "--workers" => options.workers = value.parse()?,
                "--rounds" => options.rounds = value.parse()?,
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
    /// And where the next one begins.
    File(File, u64),
    /// The next slice, and what is left of the last one.
    Slices(Slices, u32, Vec<u8>),
}

/// The records as a base, in columns. Where nothing is known of the set, its MuHash is computed, as a backup of a store
/// does.
struct Base {
    records: Records,
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
            known,
            found: Arc::default(),
        }
    }

    /// About a segment of whole records; none at the end.
    fn read(&mut self) -> Result<Vec<u8>, BoxError> {
        match &mut self.records {
            Records::File(file, at) => {
                let mut bytes = Vec::with_capacity(SEGMENT_BYTES);
                file.seek(SeekFrom::Start(*at))?;
                file.take(SEGMENT_BYTES as u64).read_to_end(&mut bytes)?;
                bytes.truncate(coins::whole_records(&bytes));
                *at += bytes.len() as u64;
                Ok(bytes)
            }
            Records::Slices(slices, next, rest) => {
                let mut bytes = std::mem::take(rest);
                while bytes.len() < SEGMENT_BYTES && *next < slices.count() {
                    bytes.extend(raw(&slices.slice(*next).before));
                    *next += 1;
                }
                let room = bytes.len().min(SEGMENT_BYTES);
                let whole = coins::whole_records(&bytes[..room]);
                *rest = bytes.split_off(whole);
                Ok(bytes)
            }
        }
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

/// Back into a file of records, whose BLAKE3 the caller compares; no digest of the set. Decoded by as many threads as
/// there are workers, written by one.
#[derive(Debug)]
struct ToFile {
    decoded: Option<mpsc::Sender<JoinHandle<Result<Vec<u8>>>>>,
    threads: Arc<Semaphore>,
    written: Option<JoinHandle<Result<blake3::Hash>>>,
    blake3: Option<blake3::Hash>,
}

impl ToFile {
    fn new(mut file: File, workers: usize) -> Self {
        let (decoded, mut receiver) = mpsc::channel::<JoinHandle<Result<Vec<u8>>>>(workers + 1);
        let runtime = tokio::runtime::Handle::current();
        let write = move || {
            let mut blake3 = blake3::Hasher::new();
            while let Some(records) = receiver.blocking_recv() {
                let records = runtime.block_on(records).map_err(failed)??;
                blake3.update(&records);
                file.write_all(&records).map_err(failed)?;
            }
            file.sync_all().map_err(failed)?;
            Ok(blake3.finalize())
        };
        Self {
            decoded: Some(decoded),
            threads: Arc::new(Semaphore::new(workers)),
            written: Some(tokio::task::spawn_blocking(write)),
            blake3: None,
        }
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
        let thread = self.threads.clone().acquire_owned().await.map_err(failed)?;
        let decode = tokio::task::spawn_blocking(move || {
            let records = raw(&decode_coins(&segment.bytes).map_err(failed)?);
            drop(thread);
            Ok(records)
        });
        let decoded = self.decoded.as_ref().ok_or_else(|| failed("it is done"))?;
        decoded.send(decode).await.map_err(failed)
    }

    async fn finish(&mut self, goal: &Goal) -> Result<SetSummary> {
        self.decoded = None;
        if let Some(written) = self.written.take() {
            self.blake3 = Some(written.await.map_err(failed)??);
        }
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
        let records = Records::Slices(Slices::of(bytes), 0, Vec::new());
        let mut source = Base::new(records, Some(Known::default()));
        let mut row = ours.back_up(what, &mut source).await?;
        row.bytes = target.bytes.load(Ordering::Relaxed);
        rows.push(row);
    }
    print("memory: nothing kept", &rows, None);
    Ok(())
}

/// Ours in one round: first backups, second ones, restores.
async fn ours(
    options: &Options,
    folder: &Path,
    wanted: blake3::Hash,
    deltas: &[Delta],
) -> Result<[Vec<Row>; 3], BoxError> {
    let [mut firsts, mut seconds, mut restores] = [(); 3].map(|()| Vec::<Row>::new());
    let from = folder.join("before").join(RECORDS);
    // With the digest first: the other one goes by what it has found.
    let mut known = None;
    for what in ["ours, with MuHash", "ours"] {
        let place = folder.join(what);
        let target = FsTarget::open(&place, FsTargetConfig::default()).await?;
        let ours = Ours::new(Arc::new(target), Some(place.clone()), options.workers).await?;
        let records = Records::File(File::open(&from)?, 0);
        let mut base = Base::new(records, known.clone());
        firsts.insert(0, ours.back_up(what, &mut base).await?);
        let found = {
            let found = base.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.clone()
        };
        if known.is_none() {
            let mut changes = Changes::new(deltas.to_vec(), found.clone());
            seconds.push(ours.back_up("ours, with MuHash", &mut changes).await?);
            let mut sink = DigestSink::new();
            let what = "ours, the latest, into count and MuHash";
            restores.push(ours.restore(what, At::Latest, &mut sink).await?);
            known = Some(found);
            drop(ours);
            fs::remove_dir_all(&place)?;
            continue;
        }
        let at = At::Block(position(coins::TIP).hash);
        let out = folder.join("out");
        let mut sink = ToFile::new(File::create(&out)?, options.workers);
        let what = "ours, into a file, BLAKE3 alone";
        let mut row = ours.restore(what, at, &mut sink).await?;
        if sink.blake3 != Some(wanted) {
            return Err("other records came back".into());
        }
        row.bytes = size(&out)?;
        restores.insert(0, row);
        fs::remove_file(&out)?;
        fs::remove_dir_all(&place)?;
    }
    Ok([firsts, seconds, restores])
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
        "{} MB of records; then {changed} coins created and spent by {BLOCKS} blocks; the best of {} rounds",
        size(&from)? / 1_000_000,
        options.rounds
    );
    let mut wanted = blake3::Hasher::new();
    wanted.update_reader(File::open(&from)?)?;
    let wanted = wanted.finalize();
    let mut peers = Vec::new();
    for peer in PEERS.iter().filter(|_| options.wants("peers")) {
        match peer.version() {
            Some(version) => {
                println!("{}: {version}", peer.name);
                peers.push(peer);
            }
            None => println!("{} is not installed, and left out", peer.name),
        }
    }
    let mut tables = [(); 3].map(|()| Vec::<Row>::new());
    let mut keep = |rows: [Vec<Row>; 3]| {
        for (table, rows) in tables.iter_mut().zip(rows) {
            keep_best(table, rows);
        }
    };
    for _ in 0..options.rounds {
        if options.wants("ours") {
            keep(ours(&options, folder, wanted, &deltas).await?);
        }
        if options.wants("limits") {
            keep([limits(folder, options.workers)?, Vec::new(), Vec::new()]);
        }
        for peer in &peers {
            keep(peer.measure(folder)?.map(|row| vec![row]));
        }
    }
    let titles = [
        "first backup",
        "second backup, 1 % replaced: added",
        "restore",
    ];
    for (title, rows) in titles.into_iter().zip(&tables) {
        print(title, rows, rows.first().filter(|_| options.wants("ours")));
    }
    Ok(())
}
