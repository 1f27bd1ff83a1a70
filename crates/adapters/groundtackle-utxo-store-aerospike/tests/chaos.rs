//! Nodes that are killed, stand still, are restarted one after another, and are full, under load from several
//! clients: nothing acknowledged is missing, nothing is spent twice, and each spender is on record.
//!
//! `GROUNDTACKLE_TEST_CHAOS_ROUNDS` says how many times; the default is one of each kind.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use groundtackle_testkit_servers::Aerospike;
use groundtackle_utxo_store::{
    Applied, Fields, HealthDepth, MaintenanceStore, NewRecord, NewTransaction, OutPoint,
    Retryability, SpendOptions, SpendStore, Transaction, Txid, Verdict,
};
use groundtackle_utxo_store_aerospike::AerospikeUtxoStore;
use groundtackle_utxo_store_testkit::builder::TxBuilder;
use groundtackle_utxo_store_testkit::state::{State, muhash};
use tokio::task::{JoinSet, block_in_place};

use common::{own, patient, set, set_config, skipped, startable};

const CLIENTS: u64 = 3;
const TASKS: u64 = 4;
/// Records with coins of each round, so many that they last until the trouble is over.
const SEEDS: u64 = 20;
const COINS: u32 = 400;

/// What happens to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// A node is killed and comes back empty.
    Kill,
    /// A node stands still for less time than the others wait for it.
    Pause,
    /// A node stands still until the others do without it, and is replaced by an empty one.
    Freeze,
    /// All nodes are restarted, one after another.
    Rolling,
    /// All nodes refuse writes for want of memory.
    Full,
}

const ALL: [Trouble; 5] = [
    Trouble::Kill,
    Trouble::Pause,
    Trouble::Freeze,
    Trouble::Rolling,
    Trouble::Full,
];

fn replace(cluster: &mut Aerospike, node: usize) {
    cluster.kill(node);
    // Until the others have noticed, it would be taken for the one that was there before.
    cluster.settled(2);
    cluster.restart(node);
    cluster.settled(3);
}

/// Waits until each node says whether it refuses writes.
fn wait_for_stop(cluster: &Aerospike, stopped: bool) {
    let until = Instant::now() + Duration::from_secs(60);
    let wanted = format!(";stop_writes={stopped};");
    let says = |node| {
        let text = cluster.info(node, "namespace/test").unwrap_or_default();
        text.contains(&wanted)
    };
    while !(0..3).all(says) {
        assert!(Instant::now() < until, "not {wanted}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn make(trouble: Trouble, cluster: &mut Aerospike, round: usize) {
    let node = round % 3;
    match trouble {
        Trouble::Kill => replace(cluster, node),
        Trouble::Pause => {
            cluster.freeze(node);
            std::thread::sleep(Duration::from_millis(700));
            cluster.thaw(node);
            cluster.settled(3);
        }
        Trouble::Freeze => {
            cluster.freeze(node);
            cluster.settled(2);
            replace(cluster, node);
        }
        Trouble::Rolling => (0..3).for_each(|node| {
            cluster.stop(node);
            cluster.restart(node);
            cluster.settled(3);
        }),
        Trouble::Full => {
            let limit = "namespace;namespace=test";
            set_config(cluster, 3, limit, "stop-writes-sys-memory-pct=1");
            wait_for_stop(cluster, true);
            set_config(cluster, 3, limit, "stop-writes-sys-memory-pct=90");
            wait_for_stop(cluster, false);
        }
    }
}

#[derive(Default)]
struct Done {
    acknowledged: Vec<Transaction>,
    /// Whose error says that nothing was applied.
    not_applied: Vec<Txid>,
    /// Acknowledged since the trouble began.
    amid: usize,
    /// To others: a client never asks twice for a coin.
    lost: usize,
    failed: usize,
}

/// What tasks see of a round.
#[derive(Debug, Default)]
struct Stage {
    coins: Vec<OutPoint>,
    trouble: AtomicBool,
    over: AtomicBool,
}

/// Spends pairs of coins, of which another client wants each in another pair, until it is over.
async fn spend(store: AerospikeUtxoStore, stage: Arc<Stage>, first: usize, tag: u64) -> Done {
    let mut done = Done::default();
    for step in 0..stage.coins.len() / 2 {
        if stage.over.load(Ordering::Relaxed) {
            break;
        }
        let pair = [0, 1].map(|n| stage.coins[(first + 2 * step + n) % stage.coins.len()]);
        let tx = TxBuilder::new(tag + step as u64).spend_all(pair);
        let tx = tx.pay(1).build();
        let new = [NewTransaction::from(tx.clone())];
        let amid = stage.trouble.load(Ordering::Relaxed);
        match store.spend_and_create(&new, &SpendOptions::at(1)).await {
            Ok(answers) => match &answers[0] {
                Ok(Applied::Now | Applied::Before) => {
                    done.acknowledged.push(tx);
                    done.amid += usize::from(amid);
                }
                Err(Verdict::AlreadySpent { .. }) => done.lost += 1,
                other => panic!("{other:?}"),
            },
            Err(error) => {
                done.failed += 1;
                if error.retryability() != Retryability::Indeterminate {
                    done.not_applied.push(tx.txid);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    done
}

async fn assert_sound(store: &AerospikeUtxoStore, seeds: &[Txid], acknowledged: &[Transaction]) {
    store.recover().await.unwrap();
    let mut held = BTreeMap::new();
    for (txid, record) in seeds
        .iter()
        .zip(store.records(seeds, Fields::ALL).await.unwrap())
    {
        let outputs = record.expect("it was acknowledged").outputs;
        assert_eq!(outputs.len(), COINS as usize, "outputs are missing");
        held.extend(
            outputs
                .iter()
                .map(|o| (OutPoint::new(*txid, o.vout), o.spent_by)),
        );
    }
    for tx in acknowledged {
        for input in &tx.inputs {
            let by = held[input].map(|by| by.txid);
            assert_eq!(by, Some(tx.txid), "{input}: its spender was acknowledged");
        }
    }
    let holders: Vec<_> = held.values().flatten().map(|by| by.txid).collect();
    let mut txids: Vec<_> = acknowledged.iter().map(|tx| tx.txid).collect();
    txids.extend(&holders);
    let mut records = Vec::with_capacity(txids.len());
    for txids in txids.chunks(1_000) {
        records.extend(store.records(txids, Fields::ALL).await.unwrap());
    }
    for (txid, record) in txids.iter().zip(&records) {
        let record = record.as_ref();
        let record =
            record.unwrap_or_else(|| panic!("{txid}: acknowledged, or a spender, and missing"));
        for input in &record.inputs {
            let by = held[input].map(|by| by.txid);
            assert_eq!(by, Some(*txid), "{txid} does not hold {input}");
        }
    }
}

/// Which of the records that should be there are not.
async fn missing(store: &AerospikeUtxoStore, there: &[(usize, Txid)]) -> Vec<(usize, Txid)> {
    let mut missing = Vec::new();
    for there in there.chunks(1_000) {
        let txids: Vec<_> = there.iter().map(|(_, txid)| *txid).collect();
        let records = store.records(&txids, Fields::META).await.unwrap();
        let gone = there.iter().zip(records).filter(|(_, r)| r.is_none());
        missing.extend(gone.map(|(named, _)| *named));
    }
    missing
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn troubles_lose_and_double_nothing() {
    if skipped("troubles_lose_and_double_nothing", startable()) {
        return;
    }
    let rounds = std::env::var("GROUNDTACKLE_TEST_CHAOS_ROUNDS");
    let rounds: usize = rounds.map_or(ALL.len(), |n| n.parse().expect("a number"));
    assert!(rounds > 0, "no rounds test nothing");
    let mut cluster = own(3, 2);
    let url = cluster.url(&set());
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(
            AerospikeUtxoStore::open(patient(url.clone()))
                .await
                .unwrap(),
        );
    }
    let store = clients[0].clone();
    let mut all: BTreeMap<Trouble, Done> = BTreeMap::new();
    let mut there: Vec<(usize, Txid)> = Vec::new();
    for round in 0..rounds {
        // Each kind meets each node.
        let trouble = ALL[round % ALL.len()];
        let tag = 1_000_000 * (round as u64 + 1);
        let seeds = (0..SEEDS).map(|n| {
            TxBuilder::new(tag + n)
                .pay_each(COINS as usize, 1_000)
                .seed(1)
        });
        let seeds: Vec<_> = seeds.collect();
        let created = store.create(&seeds).await.unwrap();
        assert!(
            created.iter().all(|done| *done == Ok(Applied::Now)),
            "{created:?}"
        );
        let seeds: Vec<_> = seeds.iter().map(NewRecord::txid).collect();
        let coins =
            (0..COINS).flat_map(|vout| seeds.iter().map(move |txid| OutPoint::new(*txid, vout)));
        let stage = Arc::new(Stage {
            coins: coins.collect(),
            ..Stage::default()
        });
        let mut tasks = JoinSet::new();
        for task in 0..CLIENTS * TASKS {
            let store = clients[(task % CLIENTS) as usize].clone();
            let tag = tag + 10_000 * (task + 1);
            // Two clients go over the same coins.
            let (place, other) = (task as usize / 2, task as usize % 2);
            let first = place * (stage.coins.len() / 6) + other;
            tasks.spawn(spend(store, stage.clone(), first, tag));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.trouble.store(true, Ordering::Relaxed);
        block_in_place(|| make(trouble, &mut cluster, round));
        stage.over.store(true, Ordering::Relaxed);
        let (mut acknowledged, mut not_applied) = (Vec::new(), Vec::new());
        let sum = all.entry(trouble).or_default();
        for done in tasks.join_all().await {
            acknowledged.extend(done.acknowledged);
            not_applied.extend(done.not_applied);
            sum.amid += done.amid;
            sum.lost += done.lost;
            sum.failed += done.failed;
        }
        assert_sound(&store, &seeds, &acknowledged).await;
        let txids = seeds.iter().copied();
        let txids = txids.chain(acknowledged.iter().map(|tx| tx.txid));
        there.extend(txids.map(|txid| (round, txid)));
        let records = store.records(&not_applied, Fields::META).await.unwrap();
        let applied = records.iter().flatten().count();
        assert_eq!(
            applied, 0,
            "round {round}, {trouble:?}: said not to be applied"
        );
        sum.acknowledged.extend(acknowledged);
        sum.not_applied.extend(not_applied);
        // Nor has a trouble taken anything away of what was acknowledged before it.
        let missing = missing(&store, &there).await;
        assert!(
            missing.is_empty(),
            "after round {round}, {trouble:?}, of {} records these are missing, by the rounds that acknowledged them: {missing:?}",
            there.len(),
        );
        let health = store.health(HealthDepth::Readiness).await.unwrap();
        assert!(
            health.ready,
            "round {round}, {trouble:?}: {:?}",
            health.reasons
        );
    }
    let state = State::of(&store, &[]).await;
    assert_eq!(state.digest.muhash, muhash(&state.coins));
    println!("{rounds} rounds on three nodes:");
    for (trouble, done) in &all {
        println!(
            "{trouble:?}: {} acknowledged, {} of them amid it; {} lost to others; {} calls failed, {} of them said that nothing was applied",
            done.acknowledged.len(),
            done.amid,
            done.lost,
            done.failed,
            done.not_applied.len(),
        );
        assert!(done.amid > 0, "{trouble:?}: nothing was spent amid it");
        assert!(done.lost > 0, "{trouble:?}: nobody wanted the same");
    }
}
