//! Wrong settings, lost parts, and nodes that come and go while sets are read: what may lose something is refused,
//! and errors name the way out and no secret.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use groundtackle_core::{RetryConfig, Secret};
use groundtackle_utxo_store::{
    Error, Fields, HealthDepth, MaintenanceStore, NewTransaction, OutPoint, RetentionStore,
    Retryability, ScanStore, SpendOptions, SpendStore, UnspendableRule,
};
use groundtackle_utxo_store_aerospike::AerospikeUtxoStore;
use groundtackle_utxo_store_testkit::builder::TxBuilder;
use rustix::process::{Pid, Signal, kill_process};

use common::{config, missing, node, own, patient, set, set_config, skipped, startable};

const COINS_SCANNED: u64 = 6_000;

/// What is wrong with the settings is said at opening, and without secrets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_names_what_is_wrong() {
    if skipped("opening_names_what_is_wrong", missing()) {
        return;
    }
    let url = node().url(&set());
    let open = |config| async {
        let error = AerospikeUtxoStore::open(config).await.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let text = format!("{error}: {}; {error:?}", cause.unwrap_or_default());
        assert!(!text.contains("geheim"), "{text}");
        (error, text)
    };
    let (error, _) = open(config(url.clone()).with_create(false)).await;
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    let (error, text) = open(config(url.clone()).with_min_replicas(2)).await;
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
    assert!(text.contains("replication-factor"), "{text}");
    let nowhere = url.replace("/test/", "/nonsense/");
    let (_, text) = open(config(nowhere)).await;
    assert!(text.contains("nonsense"), "{text}");
    let secret = config(url.clone())
        .with_user(Some("me".into()))
        .with_password(Some(Secret::from("geheim")));
    let (_, text) = open(secret).await;
    assert!(text.contains("Community Edition"), "{text}");
    let silent = config("aerospike://127.0.0.1:1/test".to_owned())
        .with_connect_timeout(Duration::from_millis(200));
    let (error, _) = open(silent).await;
    assert!(matches!(error, Error::Backend { .. }), "{error:?}");

    let store = AerospikeUtxoStore::open(config(url.clone())).await.unwrap();
    drop(store);
    let (error, text) = open(config(url).with_unspendable(UnspendableRule::FalseReturn)).await;
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
    assert!(text.contains("core"), "{text}");
}

/// What an unready store gives as its reasons.
async fn unready(store: &AerospikeUtxoStore) -> String {
    let health = store.health(HealthDepth::Readiness).await.unwrap();
    assert!(!health.ready, "{:?}", health.reasons);
    health.reasons.join("; ")
}

async fn assert_ready(store: &AerospikeUtxoStore) {
    let health = store.health(HealthDepth::Readiness).await.unwrap();
    assert!(health.ready, "{:?}", health.reasons);
}

/// Settings that lose records are refused at opening, and make a store unready that is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_lose_records_are_refused() {
    if skipped("settings_that_lose_records_are_refused", startable()) {
        return;
    }
    let cluster = own(1, 2);
    let name = set();
    let url = cluster.url(&name);
    let store = AerospikeUtxoStore::open(config(url.clone())).await.unwrap();
    assert_ready(&store).await;
    let once = RetryConfig::default().with_max_attempts(1);
    let impatient = config(url.clone()).with_retry(once.clone());
    let impatient = AerospikeUtxoStore::open(impatient).await.unwrap();
    // Two copies are wanted, and there is one node.
    let copies = AerospikeUtxoStore::open(config(url.clone()).with_min_replicas(2)).await;
    let error = copies.unwrap_err().to_string();
    assert!(error.contains("keeps 1 copies"), "{error}");
    let namespace = "namespace;namespace=test";
    for (name, bad, good) in [
        ("disable-write-dup-res", "true", "false"),
        (
            "conflict-resolution-policy",
            "generation",
            "last-update-time",
        ),
        ("read-consistency-level-override", "one", "off"),
        ("write-commit-level-override", "master", "off"),
        ("max-record-size", "1000000", "1048576"),
        ("reject-non-xdr-writes", "true", "false"),
    ] {
        set_config(&cluster, 1, namespace, &format!("{name}={bad}"));
        let refused = AerospikeUtxoStore::open(config(url.clone())).await;
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(unready(&store).await.contains(name), "{name}");
        set_config(&cluster, 1, namespace, &format!("{name}={good}"));
        assert_ready(&store).await;
    }
    // Writes are refused for the set alone, of which the namespace says nothing.
    let of_set = format!("{namespace};set={name}");
    for limit in ["stop-writes-count", "stop-writes-size"] {
        set_config(&cluster, 1, &of_set, &format!("{limit}=1"));
        let reasons = unready(&store).await;
        assert!(reasons.contains(limit), "{reasons}");
        println!("{reasons}");
        set_config(&cluster, 1, &of_set, &format!("{limit}=0"));
        assert_ready(&store).await;
    }
    // What kept a store from being created is said.
    let of_new = format!("{namespace};set=new");
    set_config(&cluster, 1, &of_new, "stop-writes-count=1");
    let new = config(cluster.url("new")).with_retry(once);
    let error = AerospikeUtxoStore::open(new).await.unwrap_err();
    assert!(error.to_string().contains("refuses writes"), "{error}");
    // An index is gone; who opens the store makes it again.
    let dropped = cluster.info(0, "sindex-delete:namespace=test;indexname=groundtackle_gtu");
    assert!(dropped.unwrap_or_default().to_lowercase().contains("ok"));
    let reasons = unready(&store).await;
    assert!(reasons.contains("groundtackle_gtu"), "{reasons}");
    let error = impatient.unmined(None, None, 10).await.unwrap_err();
    assert_eq!(error.retryability(), Retryability::Transient, "{error:?}");
    assert!(error.to_string().contains("indexes"), "{error}");
    AerospikeUtxoStore::open(config(url)).await.unwrap();
    assert_ready(&store).await;
}

/// Nodes that are cut off would go on by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_that_may_split_are_refused() {
    if skipped("clusters_that_may_split_are_refused", startable()) {
        return;
    }
    let cluster = own(3, 2);
    let config = config(cluster.url(&set())).with_min_replicas(2);
    let store = AerospikeUtxoStore::open(config.clone()).await.unwrap();
    assert_ready(&store).await;
    set_config(&cluster, 3, "service", "min-cluster-size=1");
    let error = AerospikeUtxoStore::open(config.clone()).await.unwrap_err();
    assert!(error.to_string().contains("min-cluster-size"), "{error}");
    assert!(unready(&store).await.contains("min-cluster-size"));
    let store = AerospikeUtxoStore::open(config.with_allow_split(true)).await;
    assert_ready(&store.unwrap()).await;
}

/// A part of the only copies is gone: nothing is built on what is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_parts_are_noticed() {
    if skipped("lost_parts_are_noticed", startable()) {
        return;
    }
    let mut cluster = own(3, 1);
    let stores: Vec<_> = (0..4).map(|_| config(cluster.url(&set()))).collect();
    let store = AerospikeUtxoStore::open(stores[0].clone()).await.unwrap();
    for config in &stores {
        let store = AerospikeUtxoStore::open(config.clone()).await.unwrap();
        assert_ready(&store).await;
    }
    cluster.kill(0);
    cluster.settled(2);
    // The client finds out by and by.
    let until = std::time::Instant::now() + Duration::from_secs(30);
    let reasons = loop {
        let health = store.health(HealthDepth::Readiness).await.unwrap();
        let reasons = health.reasons.join("; ");
        if reasons.contains("parts of the store") {
            assert!(!health.ready);
            break reasons;
        }
        assert!(std::time::Instant::now() < until, "{reasons}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    println!("{reasons}");
    // Whether the settings were lost or not, each is refused.
    for config in stores {
        let error = AerospikeUtxoStore::open(config).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    }
}

/// Nodes come and go while scans go over the set: each coin comes once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_shows_each_coin_once() {
    if skipped("a_scan_shows_each_coin_once", startable()) {
        return;
    }
    let mut cluster = own(3, 2);
    let config = patient(cluster.url(&set()));
    let store = AerospikeUtxoStore::open(config).await.unwrap();
    let seeds: Vec<_> = (0..COINS_SCANNED)
        .map(|n| TxBuilder::new(9_000_000 + n).pay_each(2, 1_000).seed(1))
        .collect();
    for seeds in seeds.chunks(1_000) {
        for outcome in store.create(seeds).await.unwrap() {
            outcome.unwrap();
        }
    }
    let outpoints: Vec<_> = seeds
        .iter()
        .flat_map(|seed| {
            (0..2).map(|vout| OutPoint {
                txid: seed.txid(),
                vout,
            })
        })
        .collect();
    let mut scans = 0;
    for round in 0..2 {
        let over = Arc::new(AtomicBool::new(false));
        let scanning = tokio::spawn({
            let (store, over) = (store.clone(), over.clone());
            let outpoints = outpoints.clone();
            async move {
                let mut scans = 0;
                while !over.load(Ordering::Relaxed) || scans == 0 {
                    let scan = store.scan().await.unwrap();
                    let (mut coins, mut seen) = (0, BTreeSet::new());
                    for partition in 0..scan.partitions() {
                        let mut after = None;
                        loop {
                            let page = scan.page(partition, after.as_ref(), 700).await.unwrap();
                            coins += page.items.len();
                            seen.extend(page.items.iter().map(|coin| coin.outpoint));
                            after = page.next;
                            if after.is_none() {
                                break;
                            }
                        }
                    }
                    if seen.len() as u64 != 2 * COINS_SCANNED {
                        // Which of them the scan missed, and which are gone.
                        let missed: Vec<_> = outpoints
                            .iter()
                            .filter(|outpoint| !seen.contains(outpoint))
                            .copied()
                            .collect();
                        let views = store.outputs(&missed).await.unwrap();
                        let there = views.iter().filter(|view| view.is_ok()).count();
                        panic!(
                            "{} coins are missing, of which {there} are there",
                            missed.len()
                        );
                    }
                    assert_eq!(coins, seen.len(), "coins come twice");
                    scans += 1;
                }
                scans
            }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.kill(round);
        tokio::task::block_in_place(|| cluster.settled(2));
        cluster.restart(round);
        let cluster = &cluster;
        tokio::task::block_in_place(|| cluster.settled(3));
        over.store(true, Ordering::Relaxed);
        scans += scanning.await.unwrap();
    }
    println!(
        "{scans} scans of {} coins while nodes came and went",
        2 * COINS_SCANNED
    );
}

/// Names the store to the process that reads it.
const READER: &str = "GROUNDTACKLE_TEST_READER";

const READERS: usize = 6;

struct Reader {
    process: Child,
    commands: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Reader {
    fn start(test: &str, url: &str) -> Self {
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(READER, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = process.unwrap();
        Self {
            commands: process.stdin.take().unwrap(),
            lines: BufReader::new(process.stdout.take().unwrap()).lines(),
            process,
        }
    }

    fn read(&mut self) -> String {
        let mut counts = self.lines.by_ref().filter_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("READ ").map(str::to_owned)
        });
        counts.next().expect("the reader reads")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// How many coins a scan shows.
async fn scanned(store: &AerospikeUtxoStore) -> usize {
    let scan = store.scan().await.unwrap();
    let mut seen = BTreeSet::new();
    for partition in 0..scan.partitions() {
        let mut after = None;
        loop {
            let page = scan.page(partition, after.as_ref(), 700).await.unwrap();
            seen.extend(page.items.iter().map(|coin| coin.outpoint));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    seen.len()
}

/// While a reader stands still, a node is killed, missed and comes back empty. The reader goes on with what it knew of the nodes
/// before: to the new one too, which has a place for each record and none of them yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stood_still_misses_nothing() {
    let name = "a_reader_that_stood_still_misses_nothing";
    if let Ok(url) = std::env::var(READER) {
        let store = AerospikeUtxoStore::open(patient(url)).await.unwrap();
        println!("READ {}", scanned(&store).await);
        for line in std::io::stdin().lines() {
            assert_eq!(line.unwrap(), "again");
            println!("READ {}", scanned(&store).await);
        }
        return;
    }
    if skipped(name, startable()) {
        return;
    }
    let mut cluster = own(3, 2);
    let url = cluster.url(&set());
    let store = AerospikeUtxoStore::open(patient(url.clone()))
        .await
        .unwrap();
    let seeds: Vec<_> = (0..600)
        .map(|n| TxBuilder::new(7_000_000 + n).pay_each(2, 1_000).seed(1))
        .collect();
    for outcome in store.create(&seeds).await.unwrap() {
        outcome.unwrap();
    }
    // Each has a moment only until it hears of what happened.
    let mut readers: Vec<_> = (0..READERS).map(|_| Reader::start(name, &url)).collect();
    tokio::task::block_in_place(|| {
        let coins = (2 * seeds.len()).to_string();
        for reader in &mut readers {
            assert_eq!(reader.read(), coins);
            reader.signal(Signal::STOP);
        }
        cluster.kill(0);
        cluster.settled(2);
        // So that it stays empty.
        for node in [1, 2] {
            let still = "set-config:context=namespace;namespace=test;migrate-sleep=100000000";
            assert!(cluster.info(node, still).unwrap().contains("ok"));
        }
        cluster.restart(0);
        let three = "cluster-stable:size=3;ignore-migrations=true";
        let until = Instant::now() + Duration::from_secs(60);
        let joined = |node| {
            !cluster
                .info(node, three)
                .unwrap_or_default()
                .contains("ERROR")
        };
        while !(0..3).all(joined) {
            assert!(Instant::now() < until, "the nodes make no cluster");
            std::thread::sleep(Duration::from_millis(50));
        }
        for reader in &mut readers {
            writeln!(reader.commands, "again").unwrap();
            reader.signal(Signal::CONT);
        }
        for reader in &mut readers {
            assert_eq!(reader.read(), coins);
        }
    });
}

/// Others could change how requests are sent. A process of its own has the variable.
#[tokio::test]
async fn a_config_of_the_client_is_refused() {
    let variable = "AEROSPIKE_CLIENT_CONFIG_URL";
    if std::env::var_os(variable).is_none() {
        let name = "a_config_of_the_client_is_refused";
        let done = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(variable, "file:///nowhere")
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        assert!(String::from_utf8_lossy(&done.stdout).contains("1 passed"));
        return;
    }
    let config = config("aerospike://127.0.0.1:1/test".to_owned());
    let error = AerospikeUtxoStore::open(config).await.unwrap_err();
    assert!(error.to_string().contains(variable), "{error}");
}

/// A node stands still, is given up by the others, and comes back empty, as it has to: nothing is missing, and what was
/// removed meanwhile stays away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_is_replaced() {
    if skipped("a_frozen_node_is_replaced", startable()) {
        return;
    }
    let mut cluster = own(3, 2);
    let config = patient(cluster.url(&set()));
    let store = AerospikeUtxoStore::open(config).await.unwrap();
    let seed = TxBuilder::new(8_000_000).pay_each(300, 1_000).seed(1);
    store.create(std::slice::from_ref(&seed)).await.unwrap()[0]
        .clone()
        .unwrap();
    let txs: Vec<_> = (0..300)
        .map(|vout| {
            let tx = TxBuilder::new(8_000_001 + u64::from(vout));
            let coin = OutPoint::new(seed.txid(), vout);
            NewTransaction::from(tx.spend_all([coin]).pay(1).build())
        })
        .collect();
    let spend = async |txs: &[NewTransaction]| {
        let done = store.spend_and_create(txs, &SpendOptions::at(1)).await;
        assert!(done.unwrap().iter().all(Result::is_ok));
    };
    spend(&txs[..100]).await;
    cluster.freeze(0);
    // It does not answer, and then it is missed by the others.
    let reasons = unready(&store).await;
    println!("while a node is frozen: {reasons}");
    spend(&txs[100..200]).await;
    let removed: Vec<_> = txs[..50].iter().map(|tx| tx.tx.txid).collect();
    let done = store.remove(&removed).await.unwrap();
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    cluster.kill(0);
    cluster.restart(0);
    tokio::task::block_in_place(|| cluster.settled(3));
    spend(&txs[200..]).await;
    let txids: Vec<_> = txs.iter().map(|tx| tx.tx.txid).collect();
    let records = store.records(&txids, Fields::META).await.unwrap();
    let there: Vec<_> = records.iter().map(Option::is_some).collect();
    let right: Vec<_> = (0..txids.len()).map(|n| n >= 50).collect();
    assert_eq!(there, right);
    assert_ready(&store).await;
}
