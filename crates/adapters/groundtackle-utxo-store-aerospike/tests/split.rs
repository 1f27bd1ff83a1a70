//! Networks that split: three nodes in network namespaces of their own. Needs root and `ip`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod common;

use std::time::{Duration, Instant};

use groundtackle_core::RetryConfig;
use groundtackle_testkit_servers::{Aerospike, AerospikeOptions};
use groundtackle_utxo_store::{
    Applied, BlockHash, BlockStore, Error, Fields, HealthDepth, MaintenanceStore, MemoryUtxoStore,
    NewTransaction, OutPoint, SpendOptions, SpendStore, Tip, UtxoStore,
};
use groundtackle_utxo_store_aerospike::{AerospikeUtxoStore, AerospikeUtxoStoreConfig};
use groundtackle_utxo_store_testkit::builder::{BlockBuilder, TxBuilder};
use groundtackle_utxo_store_testkit::state::{State, muhash};
use tokio::task::block_in_place;

use common::{config, patient, set, skipped, startable};

/// Why no nodes can be set apart.
fn separable() -> Option<String> {
    startable().or_else(|| {
        let missing = "no network namespaces: they take root, and ip of iproute2";
        (!Aerospike::can_be_apart()).then(|| missing.to_owned())
    })
}

fn start(replication_factor: u32, min_cluster_size: Option<usize>) -> Aerospike {
    Aerospike::start(&AerospikeOptions {
        nodes: 3,
        replication_factor,
        data_mib: 512,
        apart: true,
        min_cluster_size,
        ..AerospikeOptions::default()
    })
}

fn once(config: AerospikeUtxoStoreConfig) -> AerospikeUtxoStoreConfig {
    config.with_retry(RetryConfig::default().with_max_attempts(1))
}

/// Waits until a node sees so many, itself included.
fn wait_for_size(cluster: &Aerospike, node: usize, size: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    let wanted = format!("cluster_size={size};");
    let sees = || {
        let statistics = cluster.info(node, "statistics");
        statistics.is_some_and(|text| text.contains(&wanted))
    };
    while !sees() {
        assert!(Instant::now() < until, "node {node} does not see {size}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn tip() -> Tip {
    Tip {
        height: 200,
        hash: BlockHash::from_bytes([200; 32]),
        median_time_past: 0,
    }
}

/// A node that is cut off serves nobody, the others go on; once it has come back empty, nothing acknowledged is
/// missing, and what was removed meanwhile stays away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_serves_nobody() {
    if skipped("a_node_that_is_cut_off_serves_nobody", separable()) {
        return;
    }
    let mut cluster = start(2, None);
    let name = set();
    let lonely = once(config(cluster.url_at([0], &name)));
    let store = AerospikeUtxoStore::open(patient(cluster.url(&name)));
    let store = store.await.unwrap();
    let seed = TxBuilder::new(1).pay_each(300, 1_000).seed(1);
    let txid = seed.txid();
    assert_eq!(store.create(&[seed]).await.unwrap(), [Ok(Applied::Now)]);
    let spender = |vout| {
        let tx = TxBuilder::new(2 + u64::from(vout)).spend(OutPoint::new(txid, vout));
        NewTransaction::from(tx.pay(1).build())
    };
    let txs: Vec<_> = (0..300).map(spender).collect();
    let spend = async |txs: &[NewTransaction]| {
        let done = store.spend_and_create(txs, &SpendOptions::at(1)).await;
        assert!(done.unwrap().iter().all(Result::is_ok));
    };
    spend(&txs[..100]).await;
    let before = AerospikeUtxoStore::open(lonely.clone()).await.unwrap();
    cluster.part(0, true);
    spend(&txs[100..200]).await;
    let removed: Vec<_> = txs[..50].iter().map(|new| new.tx.txid).collect();
    let done = store.remove(&removed).await.unwrap();
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    block_in_place(|| wait_for_size(&cluster, 1, 2));
    // By any node, a client finds those that serve.
    for others in [1, 2] {
        cluster.hide(others, true);
    }
    // "unavailable", or no answer at all within the time.
    let refused = AerospikeUtxoStore::open(lonely).await.unwrap_err();
    assert!(matches!(refused, Error::Backend { .. }), "{refused:?}");
    let read = before.records(&[txid], Fields::META).await;
    assert!(read.is_err(), "{read:?}");
    let last = &txs[299..];
    let spent = before.spend_and_create(last, &SpendOptions::at(1)).await;
    assert!(spent.is_err(), "{spent:?}");
    for others in [1, 2] {
        cluster.hide(others, false);
    }
    cluster.kill(0);
    cluster.part(0, false);
    cluster.restart(0);
    block_in_place(|| cluster.settled(3));
    spend(&txs[200..]).await;
    let txids: Vec<_> = txs.iter().map(|new| new.tx.txid).collect();
    let records = store.records(&txids, Fields::META).await.unwrap();
    let there: Vec<_> = records.iter().map(Option::is_some).collect();
    let right: Vec<_> = (0..txids.len()).map(|n| n >= 50).collect();
    assert_eq!(there, right);
    let health = store.health(HealthDepth::Readiness).await.unwrap();
    assert!(health.ready, "{:?}", health.reasons);
}

/// Where both sides may go on, both take what contradicts the other's. When the network is whole again the set is no state
/// of the chain, which its own digest tells from its coins, and a new one from the chain is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_that_is_allowed_is_found_and_mended() {
    if skipped("a_split_that_is_allowed_is_found_and_mended", separable()) {
        return;
    }
    let cluster = start(3, Some(1));
    let name = set();
    let refused = AerospikeUtxoStore::open(once(config(cluster.url(&name)))).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("min-cluster-size"), "{refused}");
    let open = async |nodes: &[usize], name: &str| {
        let url = cluster.url_at(nodes.iter().copied(), name);
        let config = patient(url).with_min_replicas(1).with_allow_split(true);
        AerospikeUtxoStore::open(config).await.unwrap()
    };
    let model = MemoryUtxoStore::new();
    let seed = TxBuilder::new(1).pay_each(1, 1_000).seed(1);
    let coin = OutPoint::new(seed.txid(), 0);
    let begin = async |store: &dyn UtxoStore| {
        store.set_tip(&tip()).await.unwrap();
        let done = store.create(std::slice::from_ref(&seed)).await.unwrap();
        assert_eq!(done, [Ok(Applied::Now)]);
    };
    begin(&model).await;
    let whole = open(&[0, 1, 2], &name).await;
    begin(&whole).await;
    let [left, right] = [2, 3].map(|tag| {
        let tx = TxBuilder::new(tag).spend(coin).pay(900).build();
        BlockBuilder::after(Some(tip()))
            .with(&[&tx])
            .branch(tag)
            .build()
    });
    cluster.part(0, true);
    block_in_place(|| {
        wait_for_size(&cluster, 0, 1);
        wait_for_size(&cluster, 1, 2);
    });
    let alone = open(&[0], &name).await;
    alone.connect_block(&left).await.unwrap().unwrap();
    let others = open(&[1, 2], &name).await;
    others.connect_block(&right).await.unwrap().unwrap();
    model.connect_block(&right).await.unwrap().unwrap();
    cluster.part(0, false);
    block_in_place(|| cluster.settled(3));
    let healed = open(&[0, 1, 2], &name).await;
    let state = State::of(&healed, &[]).await;
    assert_ne!(state.digest.muhash, muhash(&state.coins), "nobody can tell");

    let again = open(&[0, 1, 2], &set()).await;
    begin(&again).await;
    again.connect_block(&right).await.unwrap().unwrap();
    let (state, known) = (State::of(&again, &[]).await, State::of(&model, &[]).await);
    assert_eq!(state.digest, known.digest);
    assert_eq!(state.digest.muhash, muhash(&state.coins));
}
