//! Compares embedded engines for the UTXO store, and prints one Markdown table.
//!
//! Each engine runs in a child process of this one, so that its memory and its CPU time are its own. The same seed
//! gives the same chain, so that a child that starts after a kill knows what the store must hold.
//!
//! Linux only: it reads `/proc`. The disk-full case mounts a tmpfs and so needs root; it is skipped otherwise.

use groundtackle_benches::BoxError;
use groundtackle_benches::engine::{Budget, Engine, Kind, MemoryEngine, Table, View};
use groundtackle_benches::generator::{ChainGenerator, GeneratorConfig, SplitMix64};
use groundtackle_benches::machine::{
    allocated, bytes_written, peak_rss_mib, process_cpu, settle, thread_cpu,
};
use groundtackle_benches::workload::{Batch, Workload, read_tip};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const USAGE: &str = "engines [--blocks N] [--txs-per-block N] [--dir DIR] [--budget-mib N] [--memtable-mib N] [--seed N] \
     [--engines raw,fjall,fjall-default,redb,redb-quick] [--kills N] [--undo-piece BYTES] [--tmpfs-mib N] [--skip kill,torn,full]";

/// Silence of a child for this long means that it hangs.
const SILENCE: Duration = Duration::from_secs(90);

#[derive(Debug, Clone)]
struct Options {
    blocks: u32,
    txs_per_block: usize,
    dir: PathBuf,
    budget: Budget,
    seed: u64,
    engines: Vec<Kind>,
    kills: u32,
    /// Largest value of a block's list of txids, in bytes.
    undo_piece: usize,
    tmpfs_mib: u64,
    skip: String,
    /// Set in a child: what it is to do.
    child: Option<String>,
    /// In a child that loads: at which height it ends.
    until: u32,
    /// In a child that loads: from which height on it waits for a line on its input after each block.
    pause_at: u32,
}

impl Options {
    fn parse() -> Result<Self, BoxError> {
        let mut options = Self {
            blocks: 200,
            txs_per_block: 2_500,
            dir: std::env::temp_dir().join("groundtackle-engines"),
            budget: Budget {
                total_mib: 256,
                memtable_mib: 64,
            },
            seed: 1,
            engines: Kind::ALL.to_vec(),
            kills: 5,
            undo_piece: 3_968,
            tmpfs_mib: 64,
            skip: String::new(),
            child: None,
            until: 0,
            pause_at: u32::MAX,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match name.as_str() {
                "--blocks" => options.blocks = value.parse()?,
                "--txs-per-block" => options.txs_per_block = value.parse()?,
                "--dir" => options.dir = value.into(),
                "--budget-mib" => options.budget.total_mib = value.parse()?,
                "--memtable-mib" => options.budget.memtable_mib = value.parse()?,
                "--seed" => options.seed = value.parse()?,
                "--kills" => options.kills = value.parse()?,
                "--undo-piece" => options.undo_piece = value.parse()?,
                "--tmpfs-mib" => options.tmpfs_mib = value.parse()?,
                "--skip" => options.skip = value,
                "--child" => options.child = Some(value),
                "--pause-at" => options.pause_at = value.parse()?,
                "--until" => options.until = value.parse()?,
                "--engines" => {
                    options.engines = value
                        .split(',')
                        .map(|name| Kind::parse(name).ok_or(USAGE))
                        .collect::<Result<_, _>>()?;
                }
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }

    fn chain(&self) -> ChainGenerator {
        ChainGenerator::new(GeneratorConfig {
            seed: self.seed,
            txs_per_block: self.txs_per_block,
            ..GeneratorConfig::default()
        })
    }

    /// 288 blocks as in the store, less on a chain too short to delete anything otherwise.
    fn window(&self) -> u32 {
        (self.blocks / 4).clamp(1, 288)
    }

    fn skips(&self, what: &str) -> bool {
        self.skip.split(',').any(|skip| skip == what)
    }
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse()?;
    match options.child.as_deref() {
        None => report(&options),
        Some(job) => {
            let kind = *options.engines.first().ok_or(USAGE)?;
            match job {
                "generate" => generate(&options),
                "load" => load(&options, kind),
                "reopen" => reopen(&options, kind),
                "resume" => resume(&options, kind),
                _ => Err(USAGE.into()),
            }
        }
    }
}

// ---- children: they print `name value` lines ----

/// The cost of making the chain, to be seen beside the engines' cost.
fn generate(options: &Options) -> Result<(), BoxError> {
    let start = Instant::now();
    let txs: usize = options
        .chain()
        .take(options.blocks as usize)
        .map(|block| block.txs.len())
        .sum();
    println!("wall {:.2}", start.elapsed().as_secs_f64());
    println!("cpu {:.2}", process_cpu()?);
    println!("rss {}", peak_rss_mib()?);
    println!("txs {txs}");
    Ok(())
}

fn load(options: &Options, kind: Kind) -> Result<(), BoxError> {
    let mut engine = kind.open(&options.dir, options.budget)?;
    let mut chain = options.chain();
    let mut workload = Workload::new(options.window(), options.undo_piece);
    let mut commits = Vec::new();
    let (mut operations, mut bytes, mut chain_cpu) = (0, 0, 0.0);
    let mut wall = Duration::ZERO;
    for _ in 0..options.blocks {
        let before = thread_cpu()?;
        let block = chain.next_block();
        chain_cpu += thread_cpu()? - before;
        let start = Instant::now();
        let batch = workload.apply(&block, |key, found| engine.read(key, found))?;
        commits.push(timed_commit(engine.as_mut(), &batch)?);
        wall += start.elapsed();
        operations += batch.creates + batch.spends;
        bytes += payload(&batch);
    }
    let cpu_at_end = process_cpu()?;
    let settling = Instant::now();
    settle()?;
    // Work left to background threads is part of the price, so the CPU time is read once they are done.
    let cpu = process_cpu()? - chain_cpu;
    println!("wall {:.2}", wall.as_secs_f64());
    println!("cpu {cpu:.2}");
    println!("cpu_background_after {:.2}", cpu + chain_cpu - cpu_at_end);
    println!("settled {:.1}", settling.elapsed().as_secs_f64());
    println!("per_cpu {:.0}", operations as f64 / cpu);
    println!("per_wall {:.0}", operations as f64 / wall.as_secs_f64());
    println!("operations {operations}");
    println!("payload {}", bytes >> 20);
    let committing = commits.iter().sum::<f64>() / 1e3;
    println!("reading {:.2}", wall.as_secs_f64() - committing);
    println!("p50 {:.1}", quantile(&mut commits, 0.5));
    println!("p99 {:.1}", quantile(&mut commits, 0.99));
    println!("max {:.1}", quantile(&mut commits, 1.0));
    println!("rss {}", peak_rss_mib()?);
    println!("written {}", bytes_written()? >> 20);

    if kind != Kind::Raw {
        let start = Instant::now();
        let records = count(engine.snapshot()?.as_ref())?;
        println!("scan {:.2}", start.elapsed().as_secs_f64());
        println!("records {records}");
        scan_beside_writer(engine.as_mut(), &mut chain, &mut workload)?;
        println!("rss_with_scans {}", peak_rss_mib()?);
    }
    let start = Instant::now();
    engine.close()?;
    println!("close {:.3}", start.elapsed().as_secs_f64());
    println!("disk {}", allocated(&options.dir)? >> 20);
    Ok(())
}

/// Does a scan stop the writer, and does the writer disturb the scan?
fn scan_beside_writer(
    engine: &mut dyn Engine,
    chain: &mut ChainGenerator,
    workload: &mut Workload,
) -> Result<(), BoxError> {
    const BLOCKS: usize = 20;
    let mut write = |engine: &mut dyn Engine| -> Result<Vec<f64>, BoxError> {
        let mut commits = Vec::new();
        for block in chain.take(BLOCKS) {
            let batch = workload.apply(&block, |key, found| engine.read(key, found))?;
            commits.push(timed_commit(engine, &batch)?);
        }
        Ok(commits)
    };
    let mut alone = write(engine)?;
    let view = engine.snapshot()?;
    let written = AtomicBool::new(false);
    let done = &written;
    let mut beside = std::thread::scope(|scope| -> Result<Vec<f64>, BoxError> {
        let scan = scope.spawn(move || -> Result<f64, BoxError> {
            let start = Instant::now();
            let mut scans = 0.0;
            while scans == 0.0 || !done.load(Ordering::Acquire) {
                count(view.as_ref())?;
                scans += 1.0;
            }
            Ok(start.elapsed().as_secs_f64() / scans)
        });
        let commits = write(engine);
        done.store(true, Ordering::Release);
        let seconds = scan.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        println!("scan_beside {seconds:.2}");
        commits
    })?;
    println!("alone_p50 {:.1}", quantile(&mut alone, 0.5));
    println!("alone_max {:.1}", quantile(&mut alone, 1.0));
    println!("beside_p50 {:.1}", quantile(&mut beside, 0.5));
    println!("beside_max {:.1}", quantile(&mut beside, 1.0));
    Ok(())
}

fn reopen(options: &Options, kind: Kind) -> Result<(), BoxError> {
    let start = Instant::now();
    let engine = kind.open(&options.dir, options.budget)?;
    println!("open_ms {:.0}", start.elapsed().as_secs_f64() * 1e3);
    let tip = engine.snapshot()?.tip()?;
    let (height, records) = tip.as_deref().and_then(read_tip).ok_or("no tip")?;
    println!("height {height}");
    let found = count(engine.snapshot()?.as_ref())?;
    if found != records {
        println!("wrong {found} records where the tip says {records}");
    }
    println!("close_begins 1");
    engine.close()
}

/// Opens whatever is there, checks it against the chain, and loads on until told to end, killed or out of room.
fn resume(options: &Options, kind: Kind) -> Result<(), BoxError> {
    let start = Instant::now();
    let mut engine = match kind.open(&options.dir, options.budget) {
        Ok(engine) => engine,
        Err(error) => {
            println!("wrong open: {}", one_line(&error.to_string()));
            return Ok(());
        }
    };
    println!("open_ms {:.0}", start.elapsed().as_secs_f64() * 1e3);
    let view = engine.snapshot()?;
    let tip = view.tip()?.as_deref().and_then(read_tip);
    let mut chain = options.chain();
    let mut workload = Workload::new(options.window(), options.undo_piece);
    let mut model = MemoryEngine::default();
    let mut height = 0;
    if let Some((last, _)) = tip {
        while height <= last {
            let batch = workload.apply(&chain.next_block(), |key, found| model.read(key, found))?;
            model.commit(&batch)?;
            height += 1;
        }
    }
    match model.difference(view.as_ref())? {
        None => println!("checked {}", i64::from(height) - 1),
        Some(difference) => println!("wrong {difference}"),
    }
    drop((view, model));
    while height < options.until {
        let batch = workload.apply(&chain.next_block(), |key, found| engine.read(key, found));
        let outcome = batch.map(|batch| match engine.commit(&batch) {
            Ok(()) => None,
            Err(error) => Some((error, batch)),
        });
        match outcome {
            Ok(None) => {
                println!("ack {height}");
                if height >= options.pause_at {
                    std::io::stdin().read_line(&mut String::new())?;
                }
            }
            Ok(Some((error, batch))) => {
                println!("failed {}", one_line(&error.to_string()));
                match engine.commit(&batch) {
                    Ok(()) => println!("again ok"),
                    Err(error) => println!("again {}", one_line(&error.to_string())),
                }
                break;
            }
            Err(error) => {
                println!("failed_read {}", one_line(&error.to_string()));
                break;
            }
        }
        height += 1;
    }
    match engine.snapshot().and_then(|view| view.tip()) {
        Ok(_) => println!("read_after ok"),
        Err(error) => println!("read_after {}", one_line(&error.to_string())),
    }
    match engine.close() {
        Ok(()) => println!("closed ok"),
        Err(error) => println!("closed {}", one_line(&error.to_string())),
    }
    Ok(())
}

fn timed_commit(engine: &mut dyn Engine, batch: &Batch) -> Result<f64, BoxError> {
    let start = Instant::now();
    engine.commit(batch)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Counts the records and makes sure that they come in order.
fn count(view: &dyn View) -> Result<u64, BoxError> {
    let (mut records, mut disorder) = (0, false);
    let mut last = Vec::new();
    view.scan(Table::Records, &mut |key, value| {
        disorder |= last.as_slice() >= key || value.is_empty();
        last.clear();
        last.extend_from_slice(key);
        records += 1;
    })?;
    if disorder {
        return Err("the scan is out of order".into());
    }
    Ok(records)
}

fn payload(batch: &Batch) -> u64 {
    let puts: usize = batch.puts.iter().map(|(_, value)| value.len() + 36).sum();
    let undo: usize = batch.undo.iter().map(|(_, txids)| txids.len() + 8).sum();
    let deletes = batch.deletes.len() * 36 + batch.undo_deletes.len() * 8;
    (puts + deletes + batch.tip.len() + undo) as u64
}

fn quantile(samples: &mut [f64], at: f64) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    let index = (last as f64 * at).round() as usize;
    samples.get(index).copied().unwrap_or_default()
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

// ---- the parent ----

/// What a child printed, by name; of equal names the last.
type Lines = BTreeMap<String, String>;

struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(
        options: &Options,
        kind: Kind,
        job: &str,
        dir: &Path,
        until: u32,
    ) -> Result<Self, BoxError> {
        Self::start_pausing(options, kind, job, dir, until, u32::MAX)
    }

    fn start_pausing(
        options: &Options,
        kind: Kind,
        job: &str,
        dir: &Path,
        until: u32,
        pause_at: u32,
    ) -> Result<Self, BoxError> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--child", job, "--engines", kind.name()])
            .args(["--blocks", &options.blocks.to_string()])
            .args(["--txs-per-block", &options.txs_per_block.to_string()])
            .args(["--budget-mib", &options.budget.total_mib.to_string()])
            .args(["--memtable-mib", &options.budget.memtable_mib.to_string()])
            .args(["--undo-piece", &options.undo_piece.to_string()])
            .args(["--seed", &options.seed.to_string()])
            .args(["--until", &until.to_string()])
            .args(["--pause-at", &pause_at.to_string()])
            .arg("--dir")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no pipe")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// Reads to the end. `stop` sees each line and may ask for a kill.
    fn finish(
        mut self,
        silence: Duration,
        mut stop: impl FnMut(&str, &str) -> Option<Duration>,
    ) -> Result<(Lines, ExitStatus, bool), BoxError> {
        let mut read = Lines::new();
        let mut hung = false;
        loop {
            match self.lines.recv_timeout(silence) {
                Ok(line) => {
                    let (name, value) = line.split_once(' ').unwrap_or((&line, ""));
                    if let Some(delay) = stop(name, value) {
                        std::thread::sleep(delay);
                        self.child.kill()?;
                    }
                    read.insert(name.to_owned(), value.to_owned());
                }
                Err(RecvTimeoutError::Timeout) => {
                    hung = true;
                    self.child.kill()?;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok((read, self.child.wait()?, hung))
    }
}

fn run(options: &Options, kind: Kind, job: &str, dir: &Path) -> Result<Lines, BoxError> {
    let long = Duration::from_secs(3_600);
    let (lines, status, _) =
        Running::start(options, kind, job, dir, 0)?.finish(long, |_, _| None)?;
    if !status.success() {
        return Err(format!("{job} of {}: {status}", kind.name()).into());
    }
    Ok(lines)
}

fn report(options: &Options) -> Result<(), BoxError> {
    let mut columns = Vec::new();
    let generator = run(options, Kind::Raw, "generate", &options.dir)?;
    for kind in &options.engines {
        let dir = options.dir.join(kind.name());
        remove(&dir)?;
        eprintln!("{}: load", kind.name());
        let mut lines = run(options, *kind, "load", &dir)?;
        if *kind != Kind::Raw {
            let reopened = run(options, *kind, "reopen", &dir)?;
            lines.insert("reopen_clean".into(), said(&reopened, "open_ms"));
            if let Some(wrong) = reopened.get("wrong") {
                lines.insert("reopen_clean".into(), format!("WRONG: {wrong}"));
            }
            remove(&dir)?;
            if !options.skips("kill") {
                eprintln!("{}: kills", kind.name());
                kills(options, *kind, &dir, &mut lines)?;
                remove(&dir)?;
            }
            if !options.skips("torn") {
                eprintln!("{}: power loss", kind.name());
                power_loss(options, *kind, &dir, &mut lines)?;
                remove(&dir)?;
            }
            if !options.skips("full") {
                eprintln!("{}: full disk", kind.name());
                if let Err(error) = full_disk(options, *kind, &dir, &mut lines) {
                    lines.insert("full".into(), format!("not run: {error}"));
                }
            }
        }
        remove(&dir)?;
        lines.insert("crates".into(), crates(*kind));
        columns.push((*kind, lines));
    }
    print_report(options, &generator, &columns);
    Ok(())
}

/// Kills the loading process at several places; each next one checks all that its forerunner left.
fn kills(options: &Options, kind: Kind, dir: &Path, lines: &mut Lines) -> Result<(), BoxError> {
    let mut rng = SplitMix64(options.seed);
    let mut acknowledged = -1;
    let mut verdict = "all kept".to_owned();
    let mut opens = Vec::new();
    let mut ahead = 0;
    for round in 1..=options.kills + 1 {
        let target = i64::from(options.blocks * round / (options.kills + 1));
        let until = if round > options.kills { 0 } else { u32::MAX };
        let delay = Duration::from_micros(rng.below(40_000));
        let mut killed = false;
        let mut last = acknowledged;
        let (said_lines, status, hung) = Running::start(options, kind, "resume", dir, until)?
            .finish(SILENCE, |name, value| {
                let height = value.parse().unwrap_or(-1);
                if name == "ack" {
                    last = height;
                }
                let now = name == "ack" && height >= target && !killed;
                killed |= now;
                now.then_some(delay)
            })?;
        if round > 1 {
            let checked: i64 = said(&said_lines, "checked").parse().unwrap_or(-2);
            // One more than acknowledged is right: the kill came between the sync and the answer.
            if said_lines.contains_key("wrong")
                || checked < acknowledged
                || checked > acknowledged + 1
            {
                verdict = format!(
                    "WRONG after kill {}: acknowledged {acknowledged}, found {checked}, {}",
                    round - 1,
                    said(&said_lines, "wrong")
                );
                break;
            }
            ahead += checked - acknowledged;
            opens.push(said(&said_lines, "open_ms"));
        }
        if hung || !(killed || status.success()) {
            verdict = format!("WRONG: round {round} ended with {status}, hung: {hung}");
            break;
        }
        acknowledged = last;
    }
    lines.insert(
        "killed".into(),
        format!("{verdict}, {ahead} unanswered blocks kept too"),
    );
    lines.insert("reopen_killed".into(), opens.join(" / "));
    Ok(())
}

/// What a power loss leaves of a commit: of the pages that it wrote, any of them, in any mixture of old and new.
///
/// Holds for engines that sync once in a commit and wrote nothing else meanwhile, which is so this early in a load.
/// With two syncs a mixture over both is no state that a disk can be in, so that engine is left out.
fn power_loss(
    options: &Options,
    kind: Kind,
    dir: &Path,
    lines: &mut Lines,
) -> Result<(), BoxError> {
    const TRIALS: u64 = 100;
    const BLOCKS: i64 = 8;
    if kind == Kind::RedbQuick {
        return Ok(());
    }
    let (before, after, mixed) = (dir.join("before"), dir.join("after"), dir.join("mixed"));
    let live = dir.join("live");
    let pause_at = u32::try_from(BLOCKS)?;
    let mut running = Running::start_pausing(options, kind, "resume", &live, u32::MAX, pause_at)?;
    let mut input = running.child.stdin.take().ok_or("no pipe")?;
    for copy in [&before, &after] {
        loop {
            let line = running.lines.recv_timeout(SILENCE)?;
            let height = line
                .strip_prefix("ack ")
                .and_then(|height| height.parse().ok());
            if height.is_some_and(|height: i64| height >= BLOCKS) {
                break;
            }
        }
        mix(&live, &live, copy, 1, &mut SplitMix64(0))?;
        input.write_all(b"\n")?;
    }
    running.child.kill()?;
    running.child.wait()?;

    let (mut old, mut new) = (0, 0);
    let mut bad = BTreeMap::new();
    // From every other page lost to about one in the whole commit.
    let losses = [2, 8, 64, 512].into_iter().cycle();
    for (trial, lost_one_in) in (0..TRIALS).zip(losses) {
        remove(&mixed)?;
        let mut rng = SplitMix64(options.seed ^ (trial << 32));
        mix(&before, &after, &mixed, lost_one_in, &mut rng)?;
        let (read, status, hung) =
            Running::start(options, kind, "resume", &mixed, 0)?.finish(SILENCE, |_, _| None)?;
        let checked: i64 = said(&read, "checked").parse().unwrap_or(-2);
        if !hung && status.success() && checked == BLOCKS {
            old += 1;
        } else if !hung && status.success() && checked == BLOCKS + 1 {
            new += 1;
        } else {
            let why = read
                .get("wrong")
                .cloned()
                .unwrap_or_else(|| status.to_string());
            *bad.entry(why).or_insert(0) += 1;
        }
    }
    let bad: Vec<_> = bad
        .iter()
        .map(|(why, times)| format!("; {times} of {TRIALS} BAD: `{why}`"))
        .collect();
    lines.insert(
        "torn".into(),
        format!(
            "{old} of {TRIALS} back at the block before, {new} at the block itself{}",
            bad.concat()
        ),
    );
    Ok(())
}

/// Writes to `to` a copy of `new`, but of the pages that differ from `old` one in `lost_one_in` is still the old one.
fn mix(
    old: &Path,
    new: &Path,
    to: &Path,
    lost_one_in: u64,
    rng: &mut SplitMix64,
) -> Result<(), BoxError> {
    const PAGE: usize = 4_096;
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(new)? {
        let name = entry?.file_name();
        let (old, new, to) = (old.join(&name), new.join(&name), to.join(&name));
        if new.is_dir() {
            mix(&old, &new, &to, lost_one_in, rng)?;
            continue;
        }
        let fresh = std::fs::read(&new)?;
        let stale = std::fs::read(&old).unwrap_or_default();
        let file = std::fs::File::create(&to)?;
        file.set_len(fresh.len() as u64)?;
        for (page, at) in fresh.chunks(PAGE).zip((0_usize..).step_by(PAGE)) {
            let was = stale
                .get(at..(at + page.len()).min(stale.len()))
                .unwrap_or_default();
            let keep = was == page || rng.below(lost_one_in) > 0;
            let bytes = if keep { page } else { was };
            // Holes stay holes: journals are preallocated.
            if bytes.iter().any(|byte| *byte != 0) {
                file.write_all_at(bytes, at as u64)?;
            }
        }
    }
    Ok(())
}

/// Fills a small file system, gives it room, and checks what is left.
fn full_disk(options: &Options, kind: Kind, dir: &Path, lines: &mut Lines) -> Result<(), BoxError> {
    std::fs::create_dir_all(dir)?;
    mount(
        &[
            "-t",
            "tmpfs",
            "-o",
            &format!("size={}m", options.tmpfs_mib),
            "tmpfs",
        ],
        dir,
    )?;
    let outcome = full_disk_mounted(options, kind, dir, lines);
    Command::new("umount").arg(dir).status()?;
    outcome
}

fn full_disk_mounted(
    options: &Options,
    kind: Kind,
    dir: &Path,
    lines: &mut Lines,
) -> Result<(), BoxError> {
    let mut acknowledged = -1;
    let (filled, status, hung) = Running::start(options, kind, "resume", dir, u32::MAX)?.finish(
        SILENCE,
        |name, value| {
            if name == "ack" {
                acknowledged = value.parse().unwrap_or(-1);
            }
            None
        },
    )?;
    let ended = if hung {
        format!("HUNG for {} s, no error", SILENCE.as_secs())
    } else if status.success() {
        format!(
            "reads after: {}, close: {}",
            said(&filled, "read_after"),
            said(&filled, "closed")
        )
    } else {
        format!("process ended with {status}")
    };
    let failed = filled.get("failed").or(filled.get("failed_read"));
    lines.insert(
        "full".into(),
        format!(
            "block {}: `{}`, then `{}`; {ended}",
            acknowledged + 1,
            failed.map_or("-", String::as_str),
            said(&filled, "again"),
        ),
    );
    let room = format!("remount,size={}m", options.tmpfs_mib * 8);
    mount(&["-o", &room], dir)?;
    let until = u32::try_from(acknowledged + 12)?;
    let (after, status, hung) =
        Running::start(options, kind, "resume", dir, until)?.finish(SILENCE, |_, _| None)?;
    let checked: i64 = said(&after, "checked").parse().unwrap_or(-2);
    let kept =
        checked >= acknowledged && checked <= acknowledged + 1 && !after.contains_key("wrong");
    lines.insert(
        "full_after".into(),
        format!(
            "{}, tip {checked} of {acknowledged} acknowledged, opened in {} ms, {}",
            if kept {
                "all kept".to_owned()
            } else {
                format!("WRONG: {}", said(&after, "wrong"))
            },
            said(&after, "open_ms"),
            if !hung && status.success() && said(&after, "ack") == (until - 1).to_string() {
                "writes again"
            } else {
                "does NOT write again"
            }
        ),
    );
    Ok(())
}

fn mount(arguments: &[&str], dir: &Path) -> Result<(), BoxError> {
    let status = Command::new("mount").args(arguments).arg(dir).status()?;
    if !status.success() {
        return Err("mount failed; it needs root".into());
    }
    Ok(())
}

/// Counts the engine's dependency tree, itself included, where cargo is at hand.
fn crates(kind: Kind) -> String {
    let package = match kind {
        Kind::Raw => return "-".to_owned(),
        Kind::Fjall | Kind::FjallDefault => "fjall",
        Kind::Redb | Kind::RedbQuick => "redb",
    };
    let output = Command::new("cargo")
        .args([
            "tree",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--no-dedupe",
        ])
        .args(["--package", package])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            text.lines().collect::<BTreeSet<_>>().len().to_string()
        }
        _ => "-".to_owned(),
    }
}

fn remove(dir: &Path) -> Result<(), BoxError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn said(lines: &Lines, name: &str) -> String {
    lines.get(name).cloned().unwrap_or_else(|| "-".to_owned())
}

const ROWS: [(&str, &str); 28] = [
    ("wall s", "wall"),
    ("of that reading parents, and our own part", "reading"),
    ("CPU s, all threads, chain making left out", "cpu"),
    (
        "of that after the last block, in the background",
        "cpu_background_after",
    ),
    ("coin operations per CPU s", "per_cpu"),
    ("coin operations per wall s", "per_wall"),
    ("commit p50 ms", "p50"),
    ("commit p99 ms", "p99"),
    ("commit max ms", "max"),
    ("peak RSS MiB", "rss"),
    ("payload MiB", "payload"),
    ("written to disk MiB", "written"),
    ("on disk after close MiB", "disk"),
    ("records at the end of the load", "records"),
    ("ordered scan s", "scan"),
    ("ordered scan beside a writer s", "scan_beside"),
    ("commit p50 ms of 20 blocks, no scan", "alone_p50"),
    ("commit p50 ms of 20 blocks beside a scan", "beside_p50"),
    ("commit max ms of 20 blocks, no scan", "alone_max"),
    ("commit max ms of 20 blocks beside a scan", "beside_max"),
    ("close s", "close"),
    ("reopen after clean close ms", "reopen_clean"),
    ("reopen after kill -9, store growing, ms", "reopen_killed"),
    ("acknowledged blocks after the kills", "killed"),
    ("power loss in a commit, simulated", "torn"),
    ("disk full", "full"),
    ("after room was made", "full_after"),
    ("crates in the dependency tree", "crates"),
];

fn print_report(options: &Options, generator: &Lines, columns: &[(Kind, Lines)]) {
    println!(
        "{} blocks, {} transactions, seed {}, window {} blocks, budget {} MiB. Making the chain alone: {} s of CPU, \
         {} MiB of memory, both part of no row but peak RSS.\n",
        options.blocks,
        said(generator, "txs"),
        options.seed,
        options.window(),
        options.budget.total_mib,
        said(generator, "cpu"),
        said(generator, "rss"),
    );
    for (kind, _) in columns {
        println!("- {}: {}", kind.name(), kind.settings(options.budget));
    }
    let names: Vec<_> = columns.iter().map(|(kind, _)| kind.name()).collect();
    println!("\n| | {} |", names.join(" | "));
    println!("|---{}|", "|---".repeat(columns.len()));
    for (title, name) in ROWS {
        let cells: Vec<_> = columns.iter().map(|(_, lines)| said(lines, name)).collect();
        println!("| {title} | {} |", cells.join(" | "));
    }
}
