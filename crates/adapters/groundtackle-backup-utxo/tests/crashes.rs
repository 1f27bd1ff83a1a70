//! A process that connects the real chain through the journal is killed again and again: after each death the journal
//! leads from the genesis block to the store's tip, and to the store's set.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::io::{self, BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, hint};

use groundtackle_backup_utxo::{Journal, Journaled};
use groundtackle_core::ByteSize;
use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::{BlockHash, BlockStore, ScanStore, Tip};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use groundtackle_utxo_store_testkit::mainnet;
use tempfile::TempDir;

const VICTIM: &str = "GROUNDTACKLE_TEST_JOURNAL_VICTIM";
/// Set for a victim that sets the tip, to what it is, and does nothing else.
const SETS_TIP: &str = "GROUNDTACKLE_TEST_JOURNAL_SETS_TIP";
const FAIL_POINT: &str = "GROUNDTACKLE_TEST_FAIL_POINT";
const DONE: &str = "victim: done";

async fn open(folder: &Path) -> Journaled<EmbeddedUtxoStore> {
    let config = EmbeddedUtxoStoreConfig::default()
        .with_cache(ByteSize::mib(8))
        .with_min_free(ByteSize::mib(1));
    let store = EmbeddedUtxoStore::open(folder.join("store"), config).unwrap();
    Journaled::open(store, folder.join("journal"))
        .await
        .unwrap()
}

/// Connects what is left of the chain, and takes two blocks back now and then.
async fn work(folder: &Path) {
    let store = open(folder).await;
    if env::var_os(SETS_TIP).is_some() {
        let tip = store.tip().await.unwrap().unwrap();
        return store.set_tip(&tip).await.unwrap();
    }
    let blocks = mainnet::blocks().await;
    let mut next = store
        .tip()
        .await
        .unwrap()
        .map_or(0, |tip| tip.height as usize + 1);
    let mut turned = next;
    while next < blocks.len() {
        let connected = store.connect_block(&blocks[next]).await.unwrap();
        connected.expect("the block is good");
        // Not by println!, which the test runner might capture.
        writeln!(io::stdout(), "\n{DONE}").expect("the parent reads");
        next += 1;
        if next > turned && next % 5 == 0 {
            turned = next;
            for _ in 0..2 {
                next -= 1;
                let block = &blocks[next];
                let back = store.disconnect_block(&block.hash, &block.previous).await;
                back.unwrap().expect("it is the tip");
            }
        }
    }
}

struct Victim {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Victim {
    fn start(test: &str, folder: &Path, dies_at: Option<(&str, u32)>) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        if test == "killed_while_an_epoch_ends" {
            command.env(SETS_TIP, "1");
        }
        command
            .args([test, "--exact", "--nocapture"])
            .env(VICTIM, folder)
            .env_remove(FAIL_POINT)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some((point, times)) = dies_at {
            command.env(FAIL_POINT, format!("{point}:{times}"));
        }
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Reads so many acknowledgements, or to the end. How many there were.
    fn wait_for(&mut self, blocks: usize) -> usize {
        let mut seen = 0;
        while seen < blocks {
            match self.lines.next() {
                Some(Ok(line)) => seen += usize::from(line == DONE),
                _ => break,
            }
        }
        seen
    }

    /// Whether it died, as opposed to having come to its end.
    fn end(mut self) -> bool {
        self.wait_for(usize::MAX);
        !self.process.wait().unwrap().success()
    }
}

/// The tip, once the journal has been found to lead there.
async fn check(folder: &Path) -> Option<Tip> {
    let store = open(folder).await;
    let journal = Journal::open(folder.join("journal")).unwrap();
    let epoch = journal.epoch().unwrap().expect("no call is under way");
    let tip = store.tip().await.unwrap()?;
    let chain = || journal.chain(epoch, BlockHash::ZERO, tip.hash).unwrap();
    let chain = chain().unwrap_or_else(|| panic!("a gap below {}", tip.height));
    assert_eq!(chain.len(), tip.height as usize + 1);
    let mut digest = MuHash3072::new();
    let deltas: Vec<_> = chain.map(|delta| delta.unwrap()).collect();
    for (height, delta) in deltas.iter().enumerate() {
        assert_eq!(delta.tip.height as usize, height);
        delta.forwards(&mut digest);
    }
    assert_eq!(deltas.last().map(|delta| delta.tip), Some(tip));
    assert_eq!(digest.digest(), store.digest().await.unwrap().muhash);
    deltas
        .iter()
        .rev()
        .for_each(|delta| delta.backwards(&mut digest));
    assert_eq!(digest.digest(), MuHash3072::new().digest());
    Some(tip)
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
    runtime().block_on(work(folder.as_ref()));
    true
}

#[test]
fn killed_at_each_step() {
    if is_victim() {
        return;
    }
    for point in [
        "journal.epoch.written",
        "journal.epoch.done",
        "journal.intent.written",
        "journal.intent.done",
        "journal.connected",
        "journal.delta.written",
        "journal.delta.done",
        "journal.intent.removed",
    ] {
        let folder = TempDir::new().unwrap();
        for times in [1, 2, 13] {
            let once = point.starts_with("journal.epoch");
            if once && times > 1 {
                continue;
            }
            let victim = Victim::start("killed_at_each_step", folder.path(), Some((point, times)));
            assert!(victim.end(), "no process came by {point} {times} times");
            runtime().block_on(check(folder.path()));
        }
    }
}

/// Once it may have been carried out, no chain leads across such a call.
#[test]
fn killed_while_an_epoch_ends() {
    if is_victim() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    runtime().block_on(async {
        let store = open(folder).await;
        for block in &mainnet::blocks().await[..3] {
            store.connect_block(block).await.unwrap().unwrap();
        }
    });
    let journal = Journal::open(folder.join("journal")).unwrap();
    for (point, times, begun) in [
        ("journal.epoch.written", 1, false),
        ("journal.epoch.done", 1, true),
        ("journal.epoch.written", 2, true),
        ("journal.epoch.done", 2, true),
    ] {
        let before = journal.epoch().unwrap();
        let victim = Victim::start("killed_while_an_epoch_ends", folder, Some((point, times)));
        assert!(victim.end(), "no process came by {point} {times} times");
        runtime().block_on(async { drop(open(folder).await) });
        let after = journal.epoch().unwrap();
        assert!(after.is_some());
        assert_eq!(after != before, begun, "{point} {times}");
    }
}

#[test]
fn killed_at_any_moment() {
    if is_victim() {
        return;
    }
    let rounds = env::var("GROUNDTACKLE_TEST_KILLS").map_or(100, |text| text.parse().unwrap());
    let mut folder = TempDir::new().unwrap();
    let (mut deaths, mut acknowledged, mut least) = (0, 0, None);
    for round in 0_u64..rounds {
        let mut victim = Victim::start("killed_at_any_moment", folder.path(), None);
        acknowledged += victim.wait_for(1 + round as usize * 5 % 17);
        let moment = Instant::now() + Duration::from_micros(round * 397 % 12_000);
        while Instant::now() < moment {
            hint::spin_loop();
        }
        drop(victim.process.kill());
        deaths += u64::from(victim.end());
        let tip = runtime().block_on(check(folder.path()));
        // The two blocks taken back at most.
        let height = tip.map(|tip| tip.height);
        assert!(
            height.map(|height| height + 2) >= least,
            "{height:?} after {least:?}"
        );
        least = height;
        if height == Some(599) {
            (folder, least) = (TempDir::new().unwrap(), None);
        }
    }
    assert!(
        deaths * 10 >= rounds * 9,
        "{deaths} of {rounds} were killed before their end"
    );
    println!("{deaths} killed before their end, of {rounds}; {acknowledged} blocks seen");
}
