//! Killed nodes, wrong settings: nothing acknowledged is lost, nothing is half done, and errors name the way
//! out and no secret.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use groundtackle_core::Secret;
use groundtackle_testkit_servers::{Aerospike, AerospikeOptions};
use groundtackle_utxo_store::{
    Applied, Error, Fields, HealthDepth, MaintenanceStore, NewTransaction, OutPoint, SpendOptions,
    SpendStore, UnspendableRule, Verdict,
};
use groundtackle_utxo_store_aerospike::AerospikeUtxoStore;
use groundtackle_utxo_store_testkit::builder::TxBuilder;
use groundtackle_utxo_store_testkit::state::{State, muhash};
use tokio::task::JoinSet;

use common::{config, missing, node, set};

/// Whether a test has to be left out; said past the test runner's capture.
fn skipped(name: &str, reason: Option<String>) -> bool {
    if let Some(reason) = &reason {
        writeln!(
            std::io::stderr(),
            "skipped: {name}: {reason} (NOTHING WAS TESTED)"
        )
        .expect("standard error is open");
    }
    reason.is_some()
}

const TASKS: u64 = 8;
const COINS: u32 = 400;
const ROUNDS: usize = 3;

/// Nodes are killed one after another under load, each comes up empty and gets its copies back. No acknowledged
/// transaction is missing, each holds its inputs, and what is spent has a spender.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_takes_nothing_with_it() {
    let started = (!Aerospike::can_be_started()).then(|| "no asd on the PATH".to_owned());
    if skipped("a_killed_node_takes_nothing_with_it", started) {
        return;
    }
    let mut cluster = Aerospike::start(&AerospikeOptions {
        nodes: 3,
        replication_factor: 2,
        data_mib: 512,
    });
    let url = cluster.url(&set());
    let mut config = config(url)
        .with_min_replicas(2)
        .with_answer_timeout(Duration::from_secs(2));
    config.retry = config
        .retry
        .with_max_attempts(200)
        .with_max_delay(Duration::from_millis(200))
        .with_max_elapsed(Duration::from_secs(60));
    let store = AerospikeUtxoStore::open(config).await.unwrap();
    let (mut spent, mut refused, mut failed) = (0, 0, 0);
    for round in 0..ROUNDS {
        let tag = 1_000_000 * (round as u64 + 1);
        let seed = TxBuilder::new(tag).pay_each(COINS as usize, 1_000).seed(1);
        let coins: Vec<_> = (0..COINS)
            .map(|vout| OutPoint::new(seed.txid(), vout))
            .collect();
        store.create(std::slice::from_ref(&seed)).await.unwrap()[0]
            .clone()
            .unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (store, coins, over) = (store.clone(), coins.clone(), over.clone());
            tasks.spawn(async move {
                let (mut won, mut lost, mut failed) = (Vec::new(), 0, 0);
                // Each coin is wanted by several, in pairs that overlap.
                for step in 0..COINS as usize {
                    let at = (step + task as usize * 50) % (coins.len() - 1);
                    let tx = TxBuilder::new(tag + 10_000 * (task + 1) + step as u64);
                    let tx = tx.spend_all([coins[at], coins[at + 1]]).pay(1).build();
                    let new = [NewTransaction::from(tx.clone())];
                    match store.spend_and_create(&new, &SpendOptions::at(1)).await {
                        Ok(answers) => match &answers[0] {
                            Ok(Applied::Now | Applied::Before) => won.push(tx),
                            Err(Verdict::AlreadySpent { .. }) => lost += 1,
                            other => panic!("{other:?}"),
                        },
                        Err(_) => failed += 1,
                    }
                    if !over.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                (won, lost, failed)
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.kill(round % 3);
        tokio::time::sleep(Duration::from_secs(4)).await;
        over.store(true, Ordering::Relaxed);
        let mut acknowledged = Vec::new();
        for (won, lost, not) in tasks.join_all().await {
            spent += won.len();
            refused += lost;
            failed += not;
            acknowledged.extend(won);
        }
        let health = store.health(HealthDepth::Readiness).await.unwrap();
        store.recover().await.unwrap();
        let mut held = BTreeMap::new();
        let whole = store.records(&[seed.txid()], Fields::ALL).await.unwrap();
        for output in &whole[0].as_ref().unwrap().outputs {
            held.insert(output.vout, output.spent_by);
        }
        for tx in &acknowledged {
            let record = store.records(&[tx.txid], Fields::META).await.unwrap();
            assert!(
                record[0].is_some(),
                "round {round}: acknowledged, and missing"
            );
            for input in &tx.inputs {
                let by = held[&input.vout].map(|by| by.txid);
                assert_eq!(by, Some(tx.txid), "round {round}: {input}");
            }
        }
        let holders: Vec<_> = held.values().flatten().map(|by| by.txid).collect();
        let records = store.records(&holders, Fields::META).await.unwrap();
        assert!(
            records.iter().all(Option::is_some),
            "a spender without a record"
        );
        println!("round {round}: health after the kill: {:?}", health.reasons);
        cluster.restart(round % 3);
        let cluster = &cluster;
        tokio::task::block_in_place(|| cluster.settled(3));
    }
    let state = State::of(&store, &[]).await;
    assert_eq!(state.digest.muhash, muhash(&state.coins));
    println!("{spent} spent, {refused} refused, {failed} calls failed, {ROUNDS} nodes killed");
    assert!(spent > 100, "{spent}");
}

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
