//! Real servers, real blocks, and what goes wrong.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod support;

use std::error::Error as _;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use groundtackle_chain::hash::to_hex;
use groundtackle_utxo_store::{
    AlertStore, Applied, BlockStore, ChainBlock, NewRecord, NewTransaction, OutPoint, ScanStore,
    SlotState, SpendOptions, SpendStore, Transaction, TxOut, Txid, UtxoStoreExt, Verdict,
};
use migrate_live::{Error, Live, Migration, Options, Phase, StoreUrl};
use support::{Node, aerospike, digest_after, losing_block, postgres, real_blocks};
use tempfile::TempDir;

fn embedded(folder: &Path, name: &str) -> String {
    format!("embedded:{}", folder.join(name).display())
}

fn options(depth_blocks: u32) -> Options {
    Options {
        depth_blocks,
        poll: Duration::from_millis(50),
        max_pause: Duration::from_secs(60),
        ..Options::default()
    }
}

async fn open(
    from: &str,
    to: &str,
    folder: &Path,
    node: &Node,
    depth: u32,
) -> Result<Migration, Error> {
    let (from, to): (StoreUrl, StoreUrl) = (from.parse().unwrap(), to.parse().unwrap());
    let (journal, work) = (folder.join("journal"), folder.join("migration"));
    Migration::open(
        &from,
        &journal,
        &to,
        &work,
        Arc::new(node.clone()),
        options(depth),
    )
    .await
}

async fn connect(live: &Live, blocks: &[ChainBlock]) {
    for block in blocks {
        let store = live.store().await.unwrap();
        store.connect_block(block).await.unwrap().unwrap();
    }
}

async fn digest(live: &Live) -> [u8; 32] {
    live.store().await.unwrap().digest().await.unwrap().muhash
}

/// The service goes on: blocks, two branches that lose, a freeze from before, a transaction that no block has, there and back.
async fn migrates_while_the_service_goes_on(from: &str, to: &str) {
    let folder = TempDir::new().unwrap();
    let blocks = real_blocks().await;
    let node = Node::of(&blocks);
    let mut migration = open(from, to, folder.path(), &node, 6).await.unwrap();
    let live = migration.live();
    connect(&live, &blocks[..=120]).await;
    let frozen = OutPoint::new(blocks[7].transactions[0].txid, 0);
    let done = live.store().await.unwrap().freeze(&[frozen]).await.unwrap();
    assert_eq!(done, [Ok(Applied::Now)]);

    let (service, feed, known) = (migration.live(), blocks.clone(), node.clone());
    let service = tokio::spawn(async move {
        for block in &feed[121..170] {
            // Two blocks that do not stay, now and then.
            if block.height.is_multiple_of(10) {
                let branch = block.height as u8;
                let first = losing_block(&feed[block.height as usize - 1], branch);
                let second = losing_block(&first, branch);
                known.add(&first);
                known.add(&second);
                connect(&service, &[first.clone(), second.clone()]).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                for (lost, previous) in [(&second, first.hash), (&first, block.previous)] {
                    let store = service.store().await.unwrap();
                    store
                        .disconnect_block(&lost.hash, &previous)
                        .await
                        .unwrap()
                        .unwrap();
                }
            }
            connect(&service, std::slice::from_ref(block)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    migration.copy().await.unwrap();
    assert_eq!(migration.phase(), Phase::OldServes);
    while !service.is_finished() {
        migration.follow().await.unwrap();
    }
    service.await.unwrap();
    let (tip, muhash) = migration.follow().await.unwrap();
    assert_eq!(
        (tip.height, muhash),
        (169, digest_after(&blocks[..=169]).await)
    );

    // The first payment of Bitcoin's history, a block before it was mined.
    let payment = blocks[170].transactions[1].clone();
    let mut rival = payment.clone();
    rival.txid = Txid::from_bytes([9; 32]);
    let spend = async |tx: &Transaction| {
        let new = [NewTransaction::from(tx.clone())];
        let store = live.store().await.unwrap();
        store
            .spend_and_create(&new, &SpendOptions::at(170))
            .await
            .unwrap()
            .remove(0)
    };
    assert_eq!(spend(&payment).await, Ok(Applied::Now));
    let switched = migration.switch_over().await.unwrap();
    assert_eq!(
        (switched.tip.height, switched.unmined, switched.muhash),
        (169, 1, muhash)
    );
    assert_eq!(migration.phase(), Phase::NewServes);
    assert_eq!(spend(&payment).await, Ok(Applied::Before));
    assert!(matches!(
        spend(&rival).await,
        Err(Verdict::AlreadySpent { .. })
    ));
    let view = live
        .store()
        .await
        .unwrap()
        .output(frozen)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(view.state, SlotState::Frozen);

    // The old store follows, and there is a way back.
    connect(&live, &blocks[170..190]).await;
    let (tip, muhash) = migration.follow().await.unwrap();
    assert_eq!(
        (tip.height, muhash),
        (189, digest_after(&blocks[..190]).await)
    );
    let back = migration.switch_over().await.unwrap();
    assert_eq!(
        (back.tip.height, migration.phase()),
        (189, Phase::OldServes)
    );
    connect(&live, &blocks[190..]).await;
    assert!(matches!(migration.retire(), Err(Error::Refused(_))));
    migration.switch_over().await.unwrap();
    migration.retire().unwrap();
    assert_eq!(digest(&live).await, digest_after(&blocks).await);
    drop((migration, live));
    let over = open(from, to, folder.path(), &node, 6).await;
    assert!(matches!(over, Err(Error::Refused(_))), "{over:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_becomes_postgres_while_the_service_goes_on() {
    let (server, folder) = (postgres(), TempDir::new().unwrap());
    let from = embedded(folder.path(), "old");
    migrates_while_the_service_goes_on(&from, &server.postgres_url("utxo")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_becomes_the_embedded_store_while_the_service_goes_on() {
    let (server, folder) = (postgres(), TempDir::new().unwrap());
    let to = embedded(folder.path(), "new");
    migrates_while_the_service_goes_on(&server.postgres_url("utxo"), &to).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aerospike_becomes_postgres_while_the_service_goes_on() {
    let Some((address, _aerospike)) = aerospike() else {
        let mut said = std::io::stderr();
        writeln!(
            said,
            "skipped: no asd on the PATH, and no GROUNDTACKLE_TEST_AEROSPIKE (NOTHING WAS TESTED)"
        )
        .unwrap();
        return;
    };
    let server = postgres();
    let from = format!(
        "aerospike://{address}/test/migrate-{}?min_replicas=1",
        std::process::id()
    );
    migrates_while_the_service_goes_on(&from, &server.postgres_url("utxo")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_past_the_migration_is_found_and_nothing_is_switched() {
    let (server, folder) = (postgres(), TempDir::new().unwrap());
    let (from, to) = (embedded(folder.path(), "old"), server.postgres_url("utxo"));
    let blocks = real_blocks().await;
    let mut migration = open(&from, &to, folder.path(), &Node::of(&blocks), 6)
        .await
        .unwrap();
    let live = migration.live();
    connect(&live, &blocks[..=100]).await;
    // The copy needs blocks below the tip.
    let (feeding, more) = (migration.live(), blocks.clone());
    let feed = tokio::spawn(async move {
        for block in &more[101..=150] {
            connect(&feeding, std::slice::from_ref(block)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    migration.copy().await.unwrap();
    feed.await.unwrap();
    migration.follow().await.unwrap();
    let before = digest(&live).await;

    let foreign = to.parse::<StoreUrl>().unwrap().open().await.unwrap();
    let seed = NewRecord::Seed {
        txid: Txid::from_bytes([3; 32]),
        coinbase: false,
        height: 5,
        outputs: vec![(
            0,
            TxOut {
                value_sat: 1,
                script: vec![0x51].into(),
            },
        )],
    };
    assert_eq!(foreign.create(&[seed]).await.unwrap(), [Ok(Applied::Now)]);
    let refused = migration.switch_over().await.unwrap_err();
    assert!(
        matches!(refused, Error::Differ { height: 150, .. }),
        "{refused:?}"
    );
    assert_eq!(migration.phase(), Phase::OldServes);
    connect(&live, &blocks[151..=151]).await;
    assert!(matches!(
        migration.follow().await,
        Err(Error::Differ { height: 151, .. })
    ));
    assert_ne!(digest(&live).await, before);
    assert_eq!(digest(&live).await, digest_after(&blocks[..=151]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_below_the_copy_is_refused_and_the_service_goes_on() {
    let folder = TempDir::new().unwrap();
    let (from, to) = (
        embedded(folder.path(), "old"),
        embedded(folder.path(), "new"),
    );
    let blocks = real_blocks().await;
    let node = Node::of(&blocks);
    let mut migration = open(&from, &to, folder.path(), &node, 0).await.unwrap();
    let live = migration.live();
    connect(&live, &blocks[..=20]).await;
    migration.copy().await.unwrap();
    let other = losing_block(&blocks[19], 1);
    node.add(&other);
    let (lost, before) = (blocks[20].hash, blocks[19].hash);
    let taken = live
        .store()
        .await
        .unwrap()
        .disconnect_block(&lost, &before)
        .await;
    taken.unwrap().unwrap();
    connect(&live, std::slice::from_ref(&other)).await;
    let refused = migration.switch_over().await.unwrap_err();
    let text = refused.to_string();
    assert!(
        matches!(refused, Error::Refused(_)) && text.contains("begin again"),
        "{text}"
    );
    assert_eq!(migration.phase(), Phase::OldServes);
    connect(&live, &[losing_block(&other, 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_would_keep_calls_waiting_is_given_up() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| embedded(folder.path(), name).parse::<StoreUrl>().unwrap();
    let (journal, work) = (
        folder.path().join("journal"),
        folder.path().join("migration"),
    );
    let blocks = real_blocks().await;
    let node = Arc::new(Node::of(&blocks));
    let options = Options {
        max_pause: Duration::from_secs(2),
        ..options(0)
    };
    let (from, to) = (at("old"), at("new"));
    let migration = Migration::open(&from, &journal, &to, &work, node, options);
    let mut migration = migration.await.unwrap();
    let live = migration.live();
    connect(&live, &blocks[..=20]).await;
    migration.copy().await.unwrap();
    let call = live.store().await.unwrap();
    let given_up = migration.switch_over().await.unwrap_err();
    assert!(
        matches!(
            given_up,
            Error::TooLong {
                max_pause_millis: 2_000
            }
        ),
        "{given_up:?}"
    );
    drop(call);
    assert_eq!(migration.phase(), Phase::OldServes);
    connect(&live, &blocks[21..=30]).await;
    assert_eq!(migration.switch_over().await.unwrap().tip.height, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_empty_and_another_pair_are_refused() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| embedded(folder.path(), name);
    let blocks = real_blocks().await;
    let full = at("full")
        .parse::<StoreUrl>()
        .unwrap()
        .open()
        .await
        .unwrap();
    full.connect_block(&blocks[0]).await.unwrap().unwrap();
    drop(full);
    let node = Node::of(&blocks);
    let mut migration = open(&at("old"), &at("full"), folder.path(), &node, 0)
        .await
        .unwrap();
    connect(&migration.live(), &blocks[..=20]).await;
    let refused = migration.copy().await.unwrap_err();
    assert!(
        refused.to_string().contains("not empty"),
        "{refused} {:?}",
        refused.source()
    );
    drop(migration);
    let refused = open(&at("old"), &at("another"), folder.path(), &node, 0)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("name another folder"),
        "{refused}"
    );
    let refused = open(&at("old"), &at("old"), folder.path(), &node, 0).await;
    assert!(matches!(refused, Err(Error::Refused(_))));
}

fn program(folder: &Path, to: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_migrate-live"));
    program
        .args(["--to", to, "--pace-millis", "10"])
        .current_dir(folder)
        .stdout(Stdio::piped());
    program
}

/// Runs the program until it says this, and kills it then and there; to its end without. All that it has said.
fn run(mut program: Command, until: Option<&str>) -> Vec<String> {
    let mut running = program.spawn().unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(running.stdout.take().unwrap()).lines() {
        said.push(line.unwrap());
        if until.is_some_and(|until| said.last().unwrap().starts_with(until)) {
            running.kill().unwrap();
        }
    }
    let status = running.wait().unwrap();
    // What it said last may have been its end.
    assert!(status.success() || until.is_some(), "{said:?}");
    said
}

/// Goes on to the end, where both stores have the set of the last block.
fn ends(folder: &Path, to: &str) {
    let mut last = program(folder, to);
    last.arg("--retire");
    let said = run(last, None);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut muhash = runtime.block_on(async { digest_after(&real_blocks().await).await });
    muhash.reverse();
    let wanted = format!("muhash {}", to_hex(&muhash));
    let both = said
        .iter()
        .find(|line| line.starts_with("both are at height 199 "));
    assert!(both.is_some_and(|line| line.ends_with(&wanted)), "{said:?}");
    assert!(said.last().unwrap().starts_with("retired"), "{said:?}");
}

#[test]
fn killed_at_any_moment_it_goes_on() {
    let (server, folder) = (postgres(), TempDir::new().unwrap());
    let to = server.postgres_url("utxo");
    for millis in [100, 300, 400, 500, 600, 700, 900, 1_200] {
        let mut running = program(folder.path(), &to).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        running.kill().unwrap();
        running.wait().unwrap();
    }
    ends(folder.path(), &to);
}

#[test]
fn killed_at_each_step_it_goes_on() {
    let server = postgres();
    let steps = [
        "open",
        "copying",
        "copied",
        "following",
        "switching",
        "switched",
        "both are",
    ];
    for step in steps {
        let folder = TempDir::new().unwrap();
        let to = server.postgres_url(&format!("utxo_{}", step.replace(' ', "_")));
        let said = run(program(folder.path(), &to), Some(step));
        assert!(
            said.iter().any(|line| line.starts_with(step)),
            "{step}: {said:?}"
        );
        ends(folder.path(), &to);
    }
}
