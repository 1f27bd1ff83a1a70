//! Measures the UTXO stores, and prints the tables of `docs/benchmarks.md`.
//!
//! Each measurement runs in a child process, so that its memory and its CPU time are its own. CPU time is that of the
//! whole process, the engine's threads included, less what reading and decoding the blocks took. Linux only.

use groundtackle_benches::BoxError;
use groundtackle_benches::generator::{ChainGenerator, GeneratorConfig, SplitMix64};
use groundtackle_benches::machine::{
    allocated, bytes_written, machine, peak_rss_mib, process_cpu, settle, thread_cpu,
};
use groundtackle_benches::regtest::{BlockReader, BlockWriter, Regtest};
use groundtackle_chain::{BlockHash, OutPoint, Script, Transaction, TxOut, Txid};
use groundtackle_core::ByteSize;
use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::{BlockStore, ChainBlock, ScanStore, StatisticsOptions, UtxoStoreExt};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const USAGE: &str = "utxo [--blocks N] [--txs-per-block N] [--seed N] [--repeat N] [--dir DIR] [--cache-mib N] [--write-buffer-mib N] [--millions 1,10] \
     [--python PYTHON --core-script benches/core.py] [--only connect,raw,core,scan,muhash,memory]";

/// Blocks until the first coinbase can be spent: they hold nothing else.
const MATURITY: u32 = 100;

const END_OF_BATCH: u8 = 0xff;

#[derive(Debug, Clone)]
struct Options {
    blocks: u32,
    txs_per_block: usize,
    seed: u64,
    repeat: usize,
    dir: PathBuf,
    millions: String,
    python: Option<String>,
    core_script: String,
    only: Option<String>,
    /// Set in a child: what it is to do.
    child: Option<String>,
    digest: bool,
    write_buffer: ByteSize,
    cache: ByteSize,
}

impl Options {
    fn parse() -> Result<Self, BoxError> {
        let mut options = Self {
            blocks: 205,
            txs_per_block: 2_500,
            seed: 1,
            repeat: 3,
            dir: std::env::temp_dir().join("groundtackle-utxo"),
            millions: "1,10".to_owned(),
            python: None,
            core_script: "benches/core.py".to_owned(),
            only: None,
            child: None,
            digest: false,
            write_buffer: EmbeddedUtxoStoreConfig::default().write_buffer,
            cache: EmbeddedUtxoStoreConfig::default().cache,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match name.as_str() {
                "--blocks" => options.blocks = value.parse()?,
                "--txs-per-block" => options.txs_per_block = value.parse()?,
                "--seed" => options.seed = value.parse()?,
                "--repeat" => options.repeat = value.parse()?,
                "--dir" => options.dir = value.into(),
                "--millions" => options.millions = value,
                "--python" => options.python = Some(value),
                "--core-script" => options.core_script = value,
                "--only" => options.only = Some(value),
                "--child" => options.child = Some(value),
                "--write-buffer-mib" => options.write_buffer = ByteSize::mib(value.parse()?),
                "--cache-mib" => options.cache = ByteSize::mib(value.parse()?),
                "--digest" => options.digest = value == "on",
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }

    fn wants(&self, what: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| only.split(',').any(|only| only == what))
    }

    fn chain_file(&self) -> PathBuf {
        self.dir.join("blocks.dat")
    }

    fn batches_file(&self) -> PathBuf {
        self.dir.join("batches.dat")
    }

    fn store(&self) -> PathBuf {
        self.dir
            .join(if self.digest { "store-digest" } else { "store" })
    }

    fn config(&self) -> EmbeddedUtxoStoreConfig {
        EmbeddedUtxoStoreConfig::default()
            .with_incremental_digest(self.digest)
            .with_write_buffer(self.write_buffer)
            .with_cache(self.cache)
    }
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    match options.child.as_deref() {
        None => report(&options),
        Some("generate") => generate(&options),
        Some("connect") => runtime.block_on(connect(&options)),
        Some("record") => runtime.block_on(record(&options)),
        Some("raw") => raw(&options),
        Some("scan") => runtime.block_on(scan(&options)),
        Some("memory") => runtime.block_on(memory(&options)),
        Some("muhash") => muhash(100_000, 5),
        _ => Err(USAGE.into()),
    }
}

// ---- children: they print `name value` lines ----

fn generate(options: &Options) -> Result<(), BoxError> {
    let mut generator = ChainGenerator::new(GeneratorConfig {
        seed: options.seed,
        txs_per_block: options.txs_per_block,
        coinbase_maturity: MATURITY,
        ..GeneratorConfig::default()
    });
    let mut regtest = Regtest::default();
    let mut writer = BlockWriter::create(&options.chain_file())?;
    let (mut txs, mut bytes, mut heaviest) = (0, 0, 0);
    for _ in 0..options.blocks + MATURITY {
        let block = regtest.block(&generator.next_block())?;
        txs += block.txdata.len();
        bytes += block.total_size();
        heaviest = heaviest.max(block.weight().to_wu());
        writer.write(&block)?;
    }
    writer.finish()?;
    println!("txs {txs}");
    println!("mib {}", bytes >> 20);
    println!("heaviest {heaviest}");
    Ok(())
}

/// What the blocks do to the set of coins.
#[derive(Debug, Default)]
struct Load {
    spends: u64,
    creates: u64,
    decoding: f64,
    wall: Duration,
    slowest: Duration,
}

/// Connects all blocks; `done` is called behind each.
async fn load(
    store: &EmbeddedUtxoStore,
    mut next: impl FnMut() -> Result<Option<ChainBlock>, BoxError>,
    mut done: impl FnMut() -> Result<(), BoxError>,
) -> Result<Load, BoxError> {
    let mut load = Load::default();
    loop {
        let before = thread_cpu()?;
        let block = next()?;
        load.decoding += thread_cpu()? - before;
        let Some(block) = block else { return Ok(load) };
        let start = Instant::now();
        let connected = store.connect_block(&block).await??;
        let took = start.elapsed();
        load.wall += took;
        load.slowest = load.slowest.max(took);
        load.creates += connected.created_outputs;
        load.spends += connected.spent.len() as u64;
        let before = thread_cpu()?;
        // Not the store's work either.
        drop((block, connected));
        done()?;
        load.decoding += thread_cpu()? - before;
    }
}

async fn connect(options: &Options) -> Result<(), BoxError> {
    let store = EmbeddedUtxoStore::open(options.store(), options.config())?;
    let mut blocks = BlockReader::open(&options.chain_file())?;
    let start = process_cpu()?;
    let load = load(&store, || blocks.block(), || Ok(())).await?;
    let at_end = process_cpu()? - start - load.decoding;
    // Work left to background threads is part of the price.
    settle()?;
    let cpu = process_cpu()? - start - load.decoding;
    let operations = (load.spends + load.creates) as f64;
    println!("spends {}", load.spends);
    println!("creates {}", load.creates);
    println!("cpu {cpu:.2}");
    println!("cpu_connect {at_end:.2}");
    println!("wall {:.2}", load.wall.as_secs_f64());
    println!("slowest_ms {:.0}", load.slowest.as_secs_f64() * 1e3);
    println!("rate {:.0}", operations / cpu);
    println!("rss {}", peak_rss_mib()?);
    println!("written {}", bytes_written()? >> 20);
    drop(store);
    println!("disk {}", allocated(&options.store())? >> 20);
    Ok(())
}

/// Writes the keys and values of each batch to a file.
async fn record(options: &Options) -> Result<(), BoxError> {
    let dir = options.dir.join("recorded");
    let store = EmbeddedUtxoStore::open(&dir, options.config())?;
    let file = Arc::new(Mutex::new(BufWriter::new(File::create(
        options.batches_file(),
    )?)));
    let sink = Arc::clone(&file);
    store.observe_batches(Box::new(move |key, value| {
        let mut file = sink.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = u8::from(value.is_none());
        let value = value.unwrap_or_default();
        let mut head = vec![kind];
        head.extend((key.len() as u16).to_le_bytes());
        head.extend((value.len() as u16).to_le_bytes());
        // A short file is noticed by who reads it.
        drop(file.write_all(&[&head, key, value].concat()));
    }));
    let mut blocks = BlockReader::open(&options.chain_file())?;
    let end = || {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(file.write_all(&[END_OF_BATCH])?)
    };
    load(&store, || blocks.block(), end).await?;
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(file.flush()?)
}

type Item = (u8, Vec<u8>, Vec<u8>);

/// The items of a recorded batch; `None` behind the last.
fn read_batch(file: &mut impl Read) -> Result<Option<Vec<Item>>, BoxError> {
    let mut items = Vec::new();
    loop {
        let mut kind = [0];
        match file.read_exact(&mut kind) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && items.is_empty() => {
                return Ok(None);
            }
            read => read?,
        }
        if kind == [END_OF_BATCH] {
            return Ok(Some(items));
        }
        let mut lengths = [0; 4];
        file.read_exact(&mut lengths)?;
        let [a, b, c, d] = lengths;
        let mut key = vec![0; u16::from_le_bytes([a, b]).into()];
        let mut value = vec![0; u16::from_le_bytes([c, d]).into()];
        file.read_exact(&mut key)?;
        file.read_exact(&mut value)?;
        let [kind] = kind;
        items.push((kind, key, value));
    }
}

/// The same batches written to the engine by itself, with the store's settings: a store is created and then opened
/// without it, since the engine keeps a keyspace's settings.
fn raw(options: &Options) -> Result<(), BoxError> {
    let dir = options.dir.join("raw");
    let config = options.config();
    drop(EmbeddedUtxoStore::open(&dir, config.clone())?);
    let database = fjall::Database::builder(dir.join("data"))
        .cache_size(config.cache.bytes())
        .journal_compression(fjall::CompressionType::None)
        .max_journaling_size((config.write_buffer.bytes() * 2).max(64 << 20))
        .worker_threads(1)
        .open()?;
    let all = database.keyspace("all", fjall::KeyspaceCreateOptions::default)?;
    let mut file = BufReader::new(File::open(options.batches_file())?);
    let start = process_cpu()?;
    let (mut reading, mut items, mut bytes) = (0.0, 0, 0);
    let mut wall = Duration::ZERO;
    loop {
        let before = thread_cpu()?;
        let batch = read_batch(&mut file)?;
        reading += thread_cpu()? - before;
        let Some(batch) = batch else { break };
        items += batch.len();
        let begin = Instant::now();
        let mut write = database.batch();
        for (kind, key, value) in batch {
            bytes += key.len() + value.len();
            if kind == 0 {
                write.insert(&all, key, value);
            } else {
                write.remove(&all, key);
            }
        }
        write
            .durability(Some(fjall::PersistMode::SyncData))
            .commit()?;
        wall += begin.elapsed();
    }
    let at_end = process_cpu()? - start - reading;
    settle()?;
    println!("cpu {:.2}", process_cpu()? - start - reading);
    println!("cpu_connect {at_end:.2}");
    println!("wall {:.2}", wall.as_secs_f64());
    println!("items {items}");
    println!("mib {}", bytes >> 20);
    println!("rss {}", peak_rss_mib()?);
    println!("written {}", bytes_written()? >> 20);
    Ok(())
}

async fn scan(options: &Options) -> Result<(), BoxError> {
    let store = EmbeddedUtxoStore::open(options.store(), options.config())?;
    let counts = StatisticsOptions {
        muhash: false,
        hash_serialized_3: false,
    };
    let hash = StatisticsOptions {
        hash_serialized_3: true,
        ..counts
    };
    let muhash = StatisticsOptions {
        muhash: true,
        ..counts
    };
    // The first scan warms the engine's cache.
    for (name, wanted) in [
        ("warm", counts),
        ("counts", counts),
        ("hash_serialized_3", hash),
        ("muhash", muhash),
    ] {
        let (cpu, wall) = (process_cpu()?, Instant::now());
        let statistics = store.statistics(wanted).await?;
        println!("{name} {:.2}", process_cpu()? - cpu);
        println!("{name}_wall {:.2}", wall.elapsed().as_secs_f64());
        println!("coins {}", statistics.txouts);
        if let Some(muhash) = statistics.muhash
            && muhash != store.digest().await?.muhash
        {
            return Err("the digest that was kept and the one that was scanned differ".into());
        }
    }
    Ok(())
}

/// A chain that makes two coins more than it spends with each transaction, and needs no memory to be made.
#[derive(Debug)]
struct Growing {
    height: u32,
    coins: u64,
    wanted: u64,
}

impl Growing {
    const TXS: u32 = 2_500;

    fn txid(height: u32, index: u32) -> [u8; 32] {
        let mut random = SplitMix64(u64::from(height) << 32 | u64::from(index));
        let mut txid = [0; 32];
        for chunk in txid.chunks_exact_mut(8) {
            chunk.copy_from_slice(&random.next_u64().to_le_bytes());
        }
        txid
    }

    fn hash(height: u32) -> BlockHash {
        BlockHash::from_bytes(Self::txid(height, u32::MAX))
    }

    fn transaction(height: u32, index: u32) -> Transaction {
        let txid = Self::txid(height, index);
        // All descend from the first coinbase.
        let input = match height {
            0..=MATURITY => None,
            _ if index == 0 => None,
            height if height == MATURITY + 1 => Some((Self::txid(1, 0), index - 1)),
            _ => Some((Self::txid(height - 1, index), 0)),
        };
        let output = TxOut {
            value_sat: 10_000,
            script: Script::from_bytes([&[0x00, 0x20], txid.as_slice()].concat()),
        };
        let outputs = match (height, index) {
            (1, _) => Self::TXS as usize,
            (_, 0) => 1,
            _ => 3,
        };
        Transaction {
            txid: Txid::from_bytes(txid),
            inputs: input
                .map(|(txid, vout)| OutPoint::new(Txid::from_bytes(txid), vout))
                .into_iter()
                .collect(),
            outputs: vec![output; outputs],
            lock_time: 0,
            size_bytes: 200,
            coinbase: index == 0,
        }
    }

    fn block(&mut self) -> Option<ChainBlock> {
        if self.coins >= self.wanted {
            return None;
        }
        let height = self.height;
        let last = if height > MATURITY { Self::TXS } else { 0 };
        self.coins += 2 * u64::from(last);
        self.height += 1;
        Some(ChainBlock {
            height,
            hash: Self::hash(height),
            previous: height.checked_sub(1).map_or(BlockHash::ZERO, Self::hash),
            median_time_past: height,
            transactions: (0..=last)
                .map(|index| Self::transaction(height, index))
                .collect(),
            coinbase_may_overwrite: false,
        })
    }
}

async fn memory(options: &Options) -> Result<(), BoxError> {
    let store = EmbeddedUtxoStore::open(options.dir.join("growing"), options.config())?;
    let mut chain = Growing {
        height: 0,
        coins: 0,
        wanted: options.millions.parse::<u64>()? * 1_000_000,
    };
    let start = process_cpu()?;
    let load = load(&store, || Ok(chain.block()), || Ok(())).await?;
    settle()?;
    let cpu = process_cpu()? - start - load.decoding;
    println!("coins {}", load.creates - load.spends);
    println!("rate {:.0}", (load.creates + load.spends) as f64 / cpu);
    println!("rss {}", peak_rss_mib()?);
    drop(store);
    println!("disk {}", allocated(&options.dir.join("growing"))? >> 20);
    Ok(())
}

fn muhash(elements_per_round: u32, rounds: usize) -> Result<(), BoxError> {
    let elements: Vec<[u8; 80]> = (0..elements_per_round)
        .map(|i| {
            let mut element = [7; 80];
            if let Some(head) = element.first_chunk_mut() {
                *head = i.to_le_bytes();
            }
            element
        })
        .collect();
    let median = |mut work: Box<dyn FnMut() + '_>| -> Result<(f64, f64), BoxError> {
        let mut walls = Vec::new();
        let mut cpus = Vec::new();
        for _ in 0..rounds {
            let (cpu, start) = (process_cpu()?, Instant::now());
            work();
            walls.push(start.elapsed().as_secs_f64());
            cpus.push(process_cpu()? - cpu);
        }
        Ok((middle(&mut walls), middle(&mut cpus)))
    };
    let mut set = MuHash3072::new();
    let count = f64::from(elements_per_round);
    let (wall, cpu) = median(Box::new(|| set.insert_all(&elements)))?;
    println!("one {:.0}", count / wall);
    println!("one_cpu {:.0}", count / cpu);
    let cores = std::thread::available_parallelism()?;
    let (wall, cpu) = median(Box::new(|| set.insert_parallel(&elements, cores)))?;
    println!("cores {cores}");
    println!("all {:.0}", count / wall);
    println!("all_cpu {:.0}", count / cpu);
    Ok(())
}

// ---- the parent ----

/// What children printed, by name: one value for each run.
type Lines = BTreeMap<String, Vec<String>>;

fn run(command: &mut Command, lines: &mut Lines) -> Result<(), BoxError> {
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status).into());
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        lines
            .entry(name.to_owned())
            .or_default()
            .push(value.to_owned());
    }
    Ok(())
}

/// Runs a job in a child process.
fn child(options: &Options, job: &str, lines: &mut Lines) -> Result<(), BoxError> {
    let digest = if options.digest { "on" } else { "off" };
    run(
        Command::new(std::env::current_exe()?)
            .args(["--child", job, "--digest", digest])
            .args(["--blocks", &options.blocks.to_string()])
            .args(["--txs-per-block", &options.txs_per_block.to_string()])
            .args(["--seed", &options.seed.to_string()])
            .args(["--millions", &options.millions])
            .args(["--cache-mib", &(options.cache.bytes() >> 20).to_string()])
            .args([
                "--write-buffer-mib",
                &(options.write_buffer.bytes() >> 20).to_string(),
            ])
            .arg("--dir")
            .arg(&options.dir),
        lines,
    )
}

fn remove(path: &Path) -> Result<(), BoxError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn median(lines: &Lines, name: &str) -> f64 {
    let values = lines.get(name).map(Vec::as_slice).unwrap_or_default();
    let mut values: Vec<f64> = values
        .iter()
        .filter_map(|value| value.parse().ok())
        .collect();
    middle(&mut values)
}

fn report(options: &Options) -> Result<(), BoxError> {
    std::fs::create_dir_all(&options.dir)?;
    println!("{}.", machine());
    let mut chain = Lines::new();
    child(options, "generate", &mut chain)?;
    println!(
        "{} transactions in {} blocks, the first {MATURITY} of them coinbases alone; {} MiB, at most {} weight units a \
         block; seed {}. Medians of {} runs.\n",
        median(&chain, "txs"),
        options.blocks + MATURITY,
        median(&chain, "mib"),
        median(&chain, "heaviest"),
        options.seed,
        options.repeat,
    );
    let with_digest = Options {
        digest: true,
        ..options.clone()
    };
    let mut columns = [
        ("embedded", Lines::new()),
        ("embedded, digest", Lines::new()),
    ];
    let (mut raw, mut core) = (Lines::new(), Lines::new());
    if options.wants("raw") {
        remove(&options.dir.join("recorded"))?;
        child(options, "record", &mut Lines::new())?;
        remove(&options.dir.join("recorded"))?;
    }
    // In turns, so that whatever else the machine does hits all alike.
    for _ in 0..options.repeat {
        if options.wants("connect") {
            for (options, (_, lines)) in [options, &with_digest].into_iter().zip(&mut columns) {
                remove(&options.store())?;
                child(options, "connect", lines)?;
            }
        }
        if options.wants("raw") {
            child(options, "raw", &mut raw)?;
            remove(&options.dir.join("raw"))?;
        }
        if let Some(python) = options.python.as_ref().filter(|_| options.wants("core")) {
            let dir = options.dir.join("core");
            remove(&dir)?;
            std::fs::create_dir_all(&dir)?;
            run(
                Command::new(python)
                    .arg(&options.core_script)
                    .arg(options.chain_file())
                    .arg(&dir),
                &mut core,
            )?;
            remove(&dir)?;
        }
    }
    let [(_, plain), (_, digest)] = &columns;
    connect_table(plain, digest, &raw, &core);
    if options.wants("scan") {
        let mut lines = Lines::new();
        for _ in 0..options.repeat {
            child(&with_digest, "scan", &mut lines)?;
        }
        let coins = median(&lines, "coins");
        println!(
            "\n| scan of {coins} coins | CPU s | wall s | coins per CPU s |\n|---|---|---|---|"
        );
        for name in ["counts", "hash_serialized_3", "muhash"] {
            let cpu = median(&lines, name);
            let wall = median(&lines, &format!("{name}_wall"));
            println!("| {name} | {cpu:.2} | {wall:.2} | {:.0} |", coins / cpu);
        }
    }
    if options.wants("muhash") {
        let mut lines = Lines::new();
        child(options, "muhash", &mut lines)?;
        let (one, all) = (median(&lines, "one"), median(&lines, "all"));
        println!("\n| MuHash | elements per s | per CPU s |\n|---|---|---|");
        println!(
            "| one thread | {one:.0} | {:.0} |",
            median(&lines, "one_cpu")
        );
        println!(
            "| {} threads | {all:.0}, {:.2}x | {:.0} |",
            median(&lines, "cores"),
            all / one,
            median(&lines, "all_cpu")
        );
    }
    if options.wants("memory") {
        println!(
            "\n| coins in the set | peak RSS MiB | on disk MiB | coin operations per CPU s |\n|---|---|---|---|"
        );
        for millions in options.millions.split(',') {
            let growing = Options {
                millions: millions.to_owned(),
                ..with_digest.clone()
            };
            let mut lines = Lines::new();
            remove(&options.dir.join("growing"))?;
            child(&growing, "memory", &mut lines)?;
            println!(
                "| {} | {} | {} | {} |",
                median(&lines, "coins"),
                median(&lines, "rss"),
                median(&lines, "disk"),
                median(&lines, "rate")
            );
        }
        remove(&options.dir.join("growing"))?;
    }
    Ok(())
}

fn connect_table(plain: &Lines, digest: &Lines, raw: &Lines, core: &Lines) {
    let spends = median(plain, "spends");
    let creates = median(plain, "creates");
    let operations = spends + creates;
    let columns = [plain, digest, raw, core];
    println!("{operations} coin operations: {creates} coins made, {spends} spent.\n");
    println!(
        "| | embedded | embedded, digest kept | raw engine, same bytes | Core's engine |\n|---|---|---|---|---|"
    );
    let row = |title: &str, value: &dyn Fn(&Lines) -> f64, digits: usize| {
        let cells = columns.map(|lines| match value(lines) {
            value if value.is_finite() => format!("{value:.digits$}"),
            _ => "-".to_owned(),
        });
        println!("| {title} | {} |", cells.join(" | "));
    };
    let rate = |lines: &Lines| operations / median(lines, "cpu");
    row("coin operations per CPU s", &rate, 0);
    row("of the raw engine's", &|lines| rate(lines) / rate(raw), 2);
    row("of Core's engine", &|lines| rate(lines) / rate(core), 2);
    for (title, name, digits) in [
        ("CPU s, all threads", "cpu", 2),
        ("of that until the last block", "cpu_connect", 2),
        ("wall s", "wall", 2),
        ("slowest block ms", "slowest_ms", 0),
        ("keys written", "items", 0),
        ("MiB of keys and values", "mib", 0),
        ("written to disk MiB", "written", 0),
        ("on disk after close MiB", "disk", 0),
        ("peak RSS MiB", "rss", 0),
    ] {
        row(title, &|lines| median(lines, name), digits);
    }
}
