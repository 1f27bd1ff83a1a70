//! Backups and restores that go wrong, from seeds: every restore point that was ever listed restores to the set of its
//! block, and nothing else is listed.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use groundtackle_backup::{
    At, BackUp, CheckDepth, Hex, MIN_GRACE, MemoryTarget, Plan, Points, PruneOptions, Repository,
    Result, SigningKey, SystemClock, SystemEntropy, Target, Trust,
};
use groundtackle_backup_fs::{FsTarget, FsTargetConfig};
use groundtackle_backup_testkit::{Call, Fault, Faulty};
use groundtackle_backup_utxo::{Journal, Journaled, Made, SetBackup, StoreSink};
use groundtackle_core::ByteSize;
use groundtackle_utxo_store::{BlockStore, MemoryUtxoStore, SetDigest, UtxoStore, unfinished_copy};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use groundtackle_utxo_store_testkit::mainnet;
use tempfile::TempDir;

mod common;

use common::{Open, assert_is, connect, synced};

const VICTIM: &str = "GROUNDTACKLE_TEST_BACKUP_VICTIM";
const WORK: &str = "GROUNDTACKLE_TEST_BACKUP_WORK";
const BACKS_UP: &str = "backs up";
const RESTORES: &str = "restores";
const PRUNES: &str = "prunes";
const DONE: &str = "victim: done";
const RUNS: u64 = 200;
const STREAM: &str = "set";
/// Longer than all that answers.
const PATIENCE: Duration = Duration::from_secs(3_600);

const FAULTS: [Fault; 11] = [
    Fault::Fail,
    Fault::LoseAnswer,
    Fault::Hang,
    Fault::HangAfter,
    Fault::Overload,
    Fault::Full,
    Fault::Truncate,
    Fault::FlipBit,
    Fault::Reorder,
    Fault::Omit,
    Fault::StopShort,
];

const CALLS: [Call; 7] = [
    Call::Put,
    Call::Upload,
    Call::Write,
    Call::Finish,
    Call::Read,
    Call::Info,
    Call::List,
];

fn runs() -> u64 {
    env::var("GROUNDTACKLE_TEST_KILLS").map_or(RUNS, |text| text.parse().unwrap())
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

fn signer() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

async fn open(target: impl Target) -> Result<Repository> {
    let trust = Trust::new([signer().public()]).unwrap();
    Repository::open(Arc::new(target), trust).await
}

async fn init(target: impl Target) {
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    Repository::init(Arc::new(target), "main", &signer(), clock, entropy)
        .await
        .unwrap();
}

async fn back_up(repository: &Repository, backup: &SetBackup) -> Result<Made> {
    let signer = signer();
    let how = BackUp {
        stream: STREAM,
        wrapping: &Open,
        signer: &signer,
        workers: 2,
    };
    backup.back_up(repository, &how).await
}

async fn restore(repository: &Repository, plan: &Plan, into: Arc<dyn UtxoStore>) -> Result<()> {
    let mut sink = StoreSink::new(into);
    let restored = repository.restore(plan, &Open, &mut sink, 2).await;
    restored.map(drop)
}

/// Each restore point by its name, with the height that it leads to.
type Listed = BTreeMap<Hex<16>, u32>;

/// What is listed now: all that was, and what may have come. Each leads to the set of its block by itself.
struct Watch {
    digests: BTreeMap<u32, SetDigest>,
    listed: Listed,
}

impl Watch {
    async fn look(&mut self, repository: &Repository) -> Points {
        let points = repository.points().await.unwrap();
        assert!(points.unusable.is_empty(), "{:?}", points.unusable);
        let mut now = Listed::new();
        for point in &points.usable {
            let at = point.content.position().unwrap();
            let digest = &self.digests[&at.height];
            assert_eq!(point.content.set().unwrap().muhash.0, digest.muhash);
            assert_eq!(at.hash.0, *digest.tip.unwrap().hash.as_bytes());
            now.insert(point.point, at.height);
        }
        for was in self.listed.keys() {
            assert!(now.contains_key(was), "{was} was listed, and is not now");
        }
        let fresh: Vec<_> = now
            .iter()
            .filter(|(point, _)| !self.listed.contains_key(point))
            .map(|(_, height)| *height)
            .collect();
        for height in fresh {
            self.restores(repository, &points, height).await;
        }
        self.listed = now;
        points
    }

    async fn restores(&self, repository: &Repository, points: &Points, height: u32) {
        let digest = &self.digests[&height];
        let block = Hex(*digest.tip.unwrap().hash.as_bytes());
        let plan = points.plan(STREAM, At::Block(block)).unwrap();
        let into = Arc::new(MemoryUtxoStore::new());
        restore(repository, &plan, into.clone()).await.unwrap();
        assert_is(&*into, digest).await;
    }
}

/// One fault in each backup and in each restore, of any kind, at any call.
#[tokio::test(start_paused = true)]
async fn targets_that_fail_lose_nothing_that_was_listed() {
    let (blocks, digests) = synced().await;
    let folder = TempDir::new().unwrap();
    let store = Arc::new(
        Journaled::open(MemoryUtxoStore::new(), folder.path())
            .await
            .unwrap(),
    );
    let journal = Journal::open(folder.path()).unwrap();
    let backup = SetBackup::new(store.clone(), Some(journal));
    let target = Faulty::new(MemoryTarget::new(), 11);
    init(target.clone()).await;
    let repository = open(target.clone()).await.unwrap();
    let mut watch = Watch {
        digests,
        listed: Listed::new(),
    };
    let mut chance = Chance(5);
    let (mut failed, mut made, mut refused, mut came) = (0, 0, 0, 0);
    let mut next = blocks.iter();
    for run in 0..RUNS {
        for block in next.by_ref().take(3) {
            connect(&*store, block).await;
        }
        // What it keeps wrong in silence is for `check`, and below.
        let silent = |call| matches!(call, Call::Put | Call::Write);
        let (call, fault) = loop {
            let call = CALLS[chance.below(CALLS.len() as u64) as usize];
            let fault = FAULTS[chance.below(FAULTS.len() as u64) as usize];
            let spoils = matches!(fault, Fault::Truncate | Fault::FlipBit);
            if fault.fits(call) && !(spoils && silent(call)) {
                break (call, fault);
            }
        };
        let most = if call == Call::Read { 12 } else { 3 };
        target.fail_at(call, 1 + chance.below(most), fault);
        let before = target.injected();
        // What never answers is given up.
        let answer = tokio::time::timeout(PATIENCE, back_up(&repository, &backup)).await;
        came += target.injected() - before;
        target.heal();
        let points = watch.look(&repository).await;
        match answer {
            Ok(Ok(Made::Base(manifest) | Made::Delta(manifest))) => {
                assert!(points.usable.contains(&manifest), "run {run}: acknowledged");
                made += 1;
            }
            Ok(Ok(other)) => assert!(matches!(other, Made::Nothing), "{other:?}"),
            Ok(Err(_)) | Err(_) => failed += 1,
        }

        let Ok(plan) = points.plan(STREAM, At::Latest) else {
            assert_eq!(points.usable, []);
            continue;
        };
        let calls = [Call::Read, Call::Info];
        let call = calls[chance.below(2) as usize];
        let fault = loop {
            let fault = FAULTS[chance.below(FAULTS.len() as u64) as usize];
            if fault.fits(call) {
                break fault;
            }
        };
        let before = target.injected();
        target.fail_at(call, 1 + chance.below(plan.points().len() as u64), fault);
        let into = Arc::new(MemoryUtxoStore::new());
        let restoring = restore(&repository, &plan, into.clone());
        let answer = tokio::time::timeout(PATIENCE, restoring).await;
        came += target.injected() - before;
        target.heal();
        let digest = &watch.digests[&plan.position.height];
        if !matches!(answer, Ok(Ok(()))) {
            refused += 1;
            assert_eq!(into.tip().await.unwrap(), None, "run {run}: {fault:?}");
            // The same restore finishes it.
            restore(&repository, &plan, into.clone()).await.unwrap();
        }
        assert_is(&*into, digest).await;
    }
    // All that ever was.
    let points = watch.look(&repository).await;
    for height in watch.listed.values() {
        watch.restores(&repository, &points, *height).await;
    }
    for point in &points.usable {
        let checked = repository.check(point, CheckDepth::Read(&Open), 2).await;
        assert!(checked.is_ok(), "{checked:?}");
    }
    println!(
        "{RUNS} backups: {made} made, {failed} failed; {refused} restores failed; {came} faults came; {} restore points",
        points.usable.len()
    );
    assert!(came > RUNS, "{came} faults came");
    assert!(failed > RUNS / 4 && made > RUNS / 4);
}

// ---- killed processes ----

fn store(folder: &Path) -> EmbeddedUtxoStore {
    let config = EmbeddedUtxoStoreConfig::default()
        .with_cache(ByteSize::mib(8))
        .with_min_free(ByteSize::mib(1));
    EmbeddedUtxoStore::open(folder, config).unwrap()
}

async fn folder_target(folder: &Path) -> FsTarget {
    let config = FsTargetConfig::default().with_create(true);
    FsTarget::open(folder.join("repository"), config)
        .await
        .unwrap()
}

fn say(what: &str) {
    // Not by println!, which the test runner might capture.
    writeln!(io::stdout(), "\n{what}").expect("the parent reads");
}

/// Connects the chain, with a backup after each two blocks, most of them deltas.
async fn backs_up(folder: &Path) {
    let journaled = Journaled::open(store(&folder.join("store")), folder.join("journal")).await;
    let journaled = Arc::new(journaled.unwrap());
    let journal = Journal::open(folder.join("journal")).unwrap();
    let backup = SetBackup::new(journaled.clone(), Some(journal)).with_base_after(4);
    let repository = open(folder_target(folder).await).await.unwrap();
    let blocks = mainnet::blocks().await;
    let tip = journaled.tip().await.unwrap();
    let next = tip.map_or(0, |tip| tip.height as usize + 1);
    say("victim: begins");
    // What the one before had connected when it was killed; nothing else would back up the last pair.
    if tip.is_some() && !matches!(back_up(&repository, &backup).await.unwrap(), Made::Nothing) {
        say(DONE);
    }
    for pair in blocks[next..].chunks(2) {
        for block in pair {
            connect(&*journaled, block).await;
        }
        back_up(&repository, &backup).await.unwrap();
        say(DONE);
    }
}

async fn restores(folder: &Path) {
    let repository = open(folder_target(folder).await).await.unwrap();
    let points = repository.points().await.unwrap();
    let plan = points.plan(STREAM, At::Latest).unwrap();
    let into = Arc::new(store(&folder.join("into")));
    say("victim: begins");
    restore(&repository, &plan, into).await.unwrap();
    say(DONE);
}

/// Until it is killed.
async fn prunes(folder: &Path) {
    let repository = open(folder_target(folder).await).await.unwrap();
    let options = PruneOptions::new().with_grace(MIN_GRACE);
    say("victim: begins");
    loop {
        repository.prune(&options).await.unwrap();
        say(DONE);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Whether this process is a victim, whose work is done then.
fn is_victim() -> bool {
    let Some(folder) = env::var_os(VICTIM) else {
        return false;
    };
    let folder = Path::new(&folder);
    match env::var(WORK).unwrap().as_str() {
        BACKS_UP => runtime().block_on(backs_up(folder)),
        RESTORES => runtime().block_on(restores(folder)),
        PRUNES => runtime().block_on(prunes(folder)),
        work => panic!("{work}?"),
    }
    true
}

fn victim(test: &str, folder: &Path, work: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(VICTIM, folder)
        .env(WORK, work)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets it begin, and kills it a while after. How often it was done, and whether it was killed before its end.
fn kill(mut child: Child, after_done: u64, after: Duration) -> (u64, bool) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut done = 0;
    let begun = lines.by_ref().map_while(io::Result::ok);
    for line in begun {
        done += u64::from(line == DONE);
        if done >= after_done && line.starts_with("victim") {
            break;
        }
    }
    thread::sleep(after);
    drop(child.kill());
    done += lines
        .map_while(io::Result::ok)
        .filter(|line| line == DONE)
        .count() as u64;
    (done, child.wait().unwrap().signal() == Some(9))
}

/// A day and more goes by for all that lies there.
fn age(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            age(&path);
            continue;
        }
        let file = std::fs::File::open(&path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified - MIN_GRACE * 5 / 4).unwrap();
    }
}

/// All the time one process backs up and another removes what was forgotten, and both are killed: what was listed and
/// not forgotten restores.
#[test]
fn killed_prunes_beside_killed_backups_lose_nothing() {
    const TEST: &str = "killed_prunes_beside_killed_backups_lose_nothing";
    if is_victim() {
        return;
    }
    let runs = runs();
    let (_, digests) = runtime().block_on(synced());
    let mut chance = Chance(3);
    let begin = || {
        let folder = TempDir::new().unwrap();
        runtime().block_on(async { init(folder_target(folder.path()).await).await });
        folder
    };
    let mut folder = begin();
    let mut watch = Watch {
        digests,
        listed: Listed::new(),
    };
    let (mut deaths, mut backups, mut prunes, mut forgotten, mut gone) = (0, 0, 0, 0, 0);
    for run in 0..runs {
        age(&folder.path().join("repository"));
        let before = runtime().block_on(async {
            let repository = open(folder_target(folder.path()).await).await.unwrap();
            // The newest stays.
            let mut points = repository.points().await.unwrap().usable;
            points.sort_unstable_by_key(|point| point.content.position().unwrap().height);
            points.pop();
            let oldest = chance.below(1 + points.len() as u64) as usize;
            let names: Vec<_> = points[..oldest].iter().map(|point| point.point).collect();
            forgotten += repository.forget(&names, &signer()).await.unwrap();
            watch.listed.retain(|name, _| !names.contains(name));
            repository.points().await.unwrap().forgotten.len()
        });
        let pruner = victim(TEST, folder.path(), PRUNES);
        let writer = victim(TEST, folder.path(), BACKS_UP);
        let (each, after) = (chance.below(3), chance.below(20_000));
        let (done, killed) = kill(writer, each, Duration::from_micros(after));
        deaths += u64::from(killed);
        backups += done;
        let (done, killed) = kill(pruner, chance.below(2), Duration::from_micros(after / 2));
        deaths += u64::from(killed);
        prunes += done;
        runtime().block_on(async {
            let repository = open(folder_target(folder.path()).await).await.unwrap();
            let points = watch.look(&repository).await;
            gone += before.saturating_sub(repository.points().await.unwrap().forgotten.len());
            if run % 10 == 0 || run + 1 == runs {
                for height in watch.listed.values() {
                    watch.restores(&repository, &points, *height).await;
                }
            }
        });
        if watch.listed.values().any(|height| *height == 599) {
            watch.listed.clear();
            folder = begin();
        }
    }
    println!(
        "{deaths} of {} killed, {backups} backups and {prunes} prunes done, {forgotten} forgotten, {gone} of them removed",
        2 * runs
    );
    assert!(deaths * 10 >= 2 * runs * 9, "{deaths} were killed");
    assert!(gone as u64 > runs / 10 && backups > runs / 2 && prunes > runs / 2);
}

#[test]
fn killed_backups_leave_what_was_listed() {
    if is_victim() {
        return;
    }
    let runs = runs();
    let (_, digests) = runtime().block_on(synced());
    let mut chance = Chance(1);
    let (mut deaths, mut points, mut acknowledged) = (0, 0, 0);
    let begin = || {
        let folder = TempDir::new().unwrap();
        runtime().block_on(async { init(folder_target(folder.path()).await).await });
        folder
    };
    let mut folder = begin();
    let mut watch = Watch {
        digests,
        listed: Listed::new(),
    };
    for _ in 0..runs {
        let child = victim(
            "killed_backups_leave_what_was_listed",
            folder.path(),
            BACKS_UP,
        );
        let after = Duration::from_micros(chance.below(20_000));
        let (done, killed) = kill(child, chance.below(4), after);
        deaths += u64::from(killed);
        acknowledged += done;
        let before = watch.listed.len() as u64;
        runtime().block_on(async {
            let target = folder_target(folder.path()).await;
            watch.look(&open(target).await.unwrap()).await;
        });
        let now = watch.listed.len() as u64;
        assert!(now >= before + done, "{before}, {done} more, and {now} now");
        if watch.listed.values().any(|height| *height == 599) {
            points += now;
            watch.listed.clear();
            folder = begin();
        }
    }
    points += watch.listed.len() as u64;
    println!(
        "{deaths} of {runs} killed, {acknowledged} backups acknowledged, {points} restore points"
    );
    assert!(deaths * 10 >= runs * 9, "{deaths} of {runs} were killed");
}

#[test]
fn killed_restores_are_never_taken_for_whole_ones() {
    if is_victim() {
        return;
    }
    let runs = runs();
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let (blocks, digests) = runtime().block_on(synced());
    runtime().block_on(async {
        init(folder_target(folder).await).await;
        let repository = open(folder_target(folder).await).await.unwrap();
        let journaled = Journaled::open(MemoryUtxoStore::new(), folder.join("journal")).await;
        let journaled = Arc::new(journaled.unwrap());
        let journal = Journal::open(folder.join("journal")).unwrap();
        let backup = SetBackup::new(journaled.clone(), Some(journal));
        for block in &blocks {
            connect(&*journaled, block).await;
            if block.height % 100 == 99 {
                back_up(&repository, &backup).await.unwrap();
            }
        }
    });
    let mut chance = Chance(2);
    let (mut deaths, mut unfinished) = (0, 0);
    for run in 0..runs {
        drop(std::fs::remove_dir_all(folder.join("into")));
        let child = victim(
            "killed_restores_are_never_taken_for_whole_ones",
            folder,
            RESTORES,
        );
        let after = Duration::from_micros(chance.below(40_000));
        let (done, killed) = kill(child, 0, after);
        deaths += u64::from(killed);
        runtime().block_on(async {
            let into = Arc::new(store(&folder.join("into")));
            let repository = open(folder_target(folder).await).await.unwrap();
            let points = repository.points().await.unwrap();
            let plan = points.plan(STREAM, At::Latest).unwrap();
            if into.tip().await.unwrap().is_none() {
                assert_eq!(done, 0, "run {run}");
                unfinished += u64::from(unfinished_copy(&*into).await.unwrap().is_some());
                restore(&repository, &plan, into.clone()).await.unwrap();
            }
            assert_is(&*into, &digests[&599]).await;
        });
    }
    println!("{deaths} of {runs} killed, {unfinished} in the middle");
    assert!(unfinished > 0);
}
