//! A cluster whose servers are killed, lose their data, refuse writes, hand slots to each other: nothing
//! acknowledged is lost, nothing is half done, and errors name the server and the way out.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod common;

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use groundtackle_core::RetryConfig;
use groundtackle_testkit_servers::{Proxy, Redis, RedisCluster, RedisOptions, Way};
use groundtackle_utxo_store::{
    Applied, BlockHash, BlockStore, Error, Fields, HealthDepth, MaintenanceStore, NewTransaction,
    OutPoint, Retryability, ScanStore, SlotState, SpendOptions, SpendStore, Tip,
};
use groundtackle_utxo_store_redis::{
    Durability, RedisClusterUtxoStore, RedisClusterUtxoStoreConfig, RedisUtxoStore, Tls,
};
use groundtackle_utxo_store_testkit::builder::{BlockBuilder, TxBuilder};
use groundtackle_utxo_store_testkit::state::{muhash, scan_all};
use tokio::task::{JoinSet, block_in_place};

const PASSWORD: &str = "s3cr3t-pa55";

fn start(replicas: usize, append_fsync: Option<&'static str>) -> RedisCluster {
    RedisCluster::start(
        3,
        replicas,
        &RedisOptions {
            append_fsync,
            ..RedisOptions::default()
        },
    )
}

fn config(url: String) -> RedisClusterUtxoStoreConfig {
    RedisClusterUtxoStoreConfig::new(url)
        .with_tls(Tls::Off)
        .with_patience(Duration::from_millis(200))
        .with_retry(
            RetryConfig::default()
                .with_max_attempts(200)
                .with_max_delay(Duration::from_millis(500))
                .with_max_elapsed(Duration::from_secs(60)),
        )
}

fn impatient() -> RetryConfig {
    RetryConfig::default().with_max_attempts(2)
}

fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(" {error} {error:?}");
        cause = error.source();
    }
    assert!(!text.contains(PASSWORD), "{text}");
    text
}

async fn refused(config: RedisClusterUtxoStoreConfig, says: &str) -> Error {
    let error = RedisClusterUtxoStore::open(config).await.unwrap_err();
    let text = shown(&error);
    assert!(text.contains(says), "{says:?} is not in {text}");
    error
}

async fn not_ready(store: &RedisClusterUtxoStore, says: &[&str]) {
    let health = store.health(HealthDepth::Readiness).await.unwrap();
    assert!(!health.ready);
    let text = health.reasons.join("; ");
    assert!(
        says.iter().all(|word| text.contains(word)),
        "{says:?}: {text}"
    );
}

fn address(node: &Redis) -> String {
    format!("127.0.0.1:{}", node.port())
}

async fn coins(store: &RedisClusterUtxoStore, tag: u64, count: u32) -> Vec<OutPoint> {
    // Many records, so that all servers have some.
    let mut coins = Vec::new();
    for tag in tag * 1_000..tag * 1_000 + u64::from(count) / 10 {
        let seed = TxBuilder::new(tag).pay_each(10, 1_000).seed(1);
        let txid = seed.txid();
        assert_eq!(store.create(&[seed]).await.unwrap(), [Ok(Applied::Now)]);
        coins.extend((0..10).map(|vout| OutPoint::new(txid, vout)));
    }
    coins
}

fn spender(tag: u64, inputs: &[OutPoint]) -> NewTransaction {
    let inputs = inputs.iter().copied();
    TxBuilder::new(tag)
        .spend_all(inputs)
        .pay(900)
        .build()
        .into()
}

/// Tasks that spend pairs of coins until they are told to stop; what was acknowledged is returned.
struct Load {
    tasks: JoinSet<Vec<NewTransaction>>,
    over: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

impl Load {
    fn start(store: &RedisClusterUtxoStore, coins: &[OutPoint], tasks: usize) -> Self {
        let (over, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let mut set = JoinSet::new();
        for (task, coins) in coins.chunks(coins.len().div_ceil(tasks)).enumerate() {
            let (store, coins) = (store.clone(), coins.to_vec());
            let (over, done) = (over.clone(), done.clone());
            set.spawn(async move {
                let mut acknowledged = Vec::new();
                let half = coins.len() / 2;
                // Two coins of different records.
                let pairs = coins[..half].iter().zip(&coins[half..]);
                for (n, (a, b)) in (0..).zip(pairs) {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let new = spender(1_000_000 * (task as u64 + 1) + n, &[*a, *b]);
                    loop {
                        let batch = [new.clone()];
                        match store.spend_and_create(&batch, &SpendOptions::at(201)).await {
                            Ok(answers) => {
                                answers[0].as_ref().expect("nobody else spends it");
                                break;
                            }
                            Err(error) => {
                                let text = shown(&error);
                                assert_ne!(error.retryability(), Retryability::Permanent, "{text}");
                            }
                        }
                    }
                    acknowledged.push(new);
                    done.fetch_add(1, Ordering::Relaxed);
                }
                acknowledged
            });
        }
        Self {
            tasks: set,
            over,
            done,
        }
    }

    /// Waits until so many more are done.
    async fn wait_for(&self, more: usize) {
        let wanted = self.done.load(Ordering::Relaxed) + more;
        let begun = Instant::now();
        while self.done.load(Ordering::Relaxed) < wanted {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "the load stands still at {} of {wanted}",
                self.done.load(Ordering::Relaxed)
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn end(self) -> Vec<NewTransaction> {
        self.over.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.concat()
    }
}

/// What was acknowledged is there and holds its inputs; no output names a spender without a record; the
/// set by a scan has the digest that is kept.
async fn assert_sound(store: &RedisClusterUtxoStore, all: &[OutPoint], done: &[NewTransaction]) {
    let mut acknowledged = 0;
    for new in done {
        for output in store.outputs(&new.tx.inputs).await.unwrap() {
            let state = output.unwrap().state;
            assert!(
                matches!(state, SlotState::Spent(by) if by.txid == new.tx.txid),
                "{state:?}"
            );
            acknowledged += 1;
        }
    }
    let mut spenders = Vec::new();
    for part in all.chunks(4_000) {
        for output in store.outputs(part).await.unwrap() {
            if let SlotState::Spent(by) = output.unwrap().state {
                spenders.push(by.txid);
            }
        }
    }
    assert!(spenders.len() >= acknowledged);
    for part in spenders.chunks(4_000) {
        let records = store.records(part, Fields::META).await.unwrap();
        assert!(
            records.iter().all(Option::is_some),
            "a spender without a record"
        );
    }
    let coins = scan_all(&*store.scan().await.unwrap(), 1_000).await;
    assert_eq!(store.digest().await.unwrap().muhash, muhash(&coins));
}

fn tip() -> Tip {
    Tip {
        height: 200,
        hash: BlockHash::from_bytes([200; 32]),
        median_time_past: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_name_the_way_out() {
    let cluster = start(0, Some("everysec"));
    let good = config(cluster.url())
        .with_durability(Durability::EverySecond)
        .with_retry(impatient());
    let none = good.clone().with_create(false);
    assert!(matches!(
        refused(none, "no store").await,
        Error::NotFound { .. }
    ));
    let store = RedisClusterUtxoStore::open(good.clone()).await.unwrap();
    assert!(store.health(HealthDepth::Readiness).await.unwrap().ready);
    refused(
        good.clone().with_durability(Durability::Always),
        "appendfsync always",
    )
    .await;
    refused(good.clone().with_spread(64), "set it to 1024").await;
    refused(
        good.clone().with_url("redis://127.0.0.1:1".into()),
        "connect",
    )
    .await;
    let secret = good.clone().with_password(Some(PASSWORD.into()));
    refused(secret, "user or password").await;

    // Neither store takes the other's servers.
    let single = Redis::start(RedisOptions::default());
    refused(
        good.clone().with_url(single.url().into()),
        "use RedisUtxoStore",
    )
    .await;
    let one = &cluster.nodes()[1];
    let for_one = common::config(one.url());
    let error = RedisUtxoStore::open(for_one).await.unwrap_err();
    assert!(shown(&error).contains("RedisClusterUtxoStore"), "{error}");

    // One server out of three is enough.
    one.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    refused(good.clone(), "noeviction").await;
    not_ready(&store, &["noeviction", &address(one)]).await;
    one.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    one.command(&["CONFIG", "SET", "maxmemory", "1"]);
    not_ready(&store, &["maxmemory", &address(one)]).await;
    one.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert!(store.health(HealthDepth::Readiness).await.unwrap().ready);
    let replicated = RedisClusterUtxoStore::open(good.with_min_replicas(1))
        .await
        .unwrap();
    not_ready(&replicated, &["min_replicas", &address(one)]).await;
}

/// README.md says which rights a user needs.
#[tokio::test(flavor = "multi_thread")]
async fn the_rights_of_the_readme_are_enough() {
    let cluster = start(0, Some("always"));
    let readme = include_str!("../README.md");
    let mut lines = readme
        .lines()
        .filter(|line| line.starts_with("ACL SETUSER"));
    let line = lines
        .find(|line| line.contains("+asking"))
        .expect("a line for clusters");
    let line = line.replace("PASSWORD", PASSWORD);
    let words: Vec<_> = line.split(' ').collect();
    for node in cluster.nodes() {
        assert!(node.command(&words).starts_with("+OK"), "{line}");
    }
    let url = cluster
        .url()
        .replace("//", &format!("//groundtackle:{PASSWORD}@"));
    let config = config(url);
    let store = RedisClusterUtxoStore::open(config.clone()).await.unwrap();
    assert!(!format!("{config:?} {store:?}").contains(PASSWORD));
    store.set_tip(&tip()).await.unwrap();
    let coins = coins(&store, 1, 20).await;
    let new = spender(1_000_000, &coins[..2]);
    let block = BlockBuilder::after(Some(tip())).with(&[&new.tx]).build();
    store.connect_block(&block).await.unwrap().unwrap();
    store.recover().await.unwrap();
    store.flush().await.unwrap();
    assert!(store.health(HealthDepth::Readiness).await.unwrap().ready);
    assert_sound(&store, &coins, &[new]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_loses_nothing_acknowledged() {
    let mut cluster = start(0, Some("always"));
    let config = config(cluster.url());
    let store = RedisClusterUtxoStore::open(config.clone()).await.unwrap();
    store.set_tip(&tip()).await.unwrap();
    let all = coins(&store, 1, 6_000).await;
    let load = Load::start(&store, &all, 8);
    for kill in 0..6 {
        load.wait_for(40 + kill * 7).await;
        block_in_place(|| {
            let node = cluster.node_mut(kill % 3);
            node.kill();
            node.restart();
        });
    }
    load.wait_for(20).await;
    let done = load.end().await;
    assert!(done.len() > 200, "{}", done.len());
    block_in_place(|| cluster.settle());
    let fresh = RedisClusterUtxoStore::open(config).await.unwrap();
    fresh.recover().await.unwrap();
    assert_sound(&fresh, &all, &done).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_under_load() {
    let cluster = start(0, Some("always"));
    let store = RedisClusterUtxoStore::open(config(cluster.url()))
        .await
        .unwrap();
    store.set_tip(&tip()).await.unwrap();
    let all = coins(&store, 1, 16_000).await;
    let load = Load::start(&store, &all, 8);
    load.wait_for(20).await;
    block_in_place(|| {
        cluster.reshard(0, 1, 100);
        cluster.reshard(2, 0, 100);
    });
    load.wait_for(20).await;
    let done = load.end().await;
    store.recover().await.unwrap();
    assert_sound(&store, &all, &done).await;
    assert!(store.health(HealthDepth::Readiness).await.unwrap().ready);
}

/// With `min_replicas` a failover under load loses nothing acknowledged; without a replica nothing is
/// acknowledged any more.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_take_over_under_load() {
    let mut cluster = start(3, Some("always"));
    let config = config(cluster.url())
        .with_min_replicas(1)
        .with_answer_timeout(Duration::from_secs(2));
    let store = RedisClusterUtxoStore::open(config.clone()).await.unwrap();
    store.set_tip(&tip()).await.unwrap();
    let all = coins(&store, 1, 6_000).await;
    let load = Load::start(&store, &all, 8);
    for primary in 0..3 {
        load.wait_for(40).await;
        block_in_place(|| {
            cluster.node_mut(primary).kill();
            cluster.failed_over(primary);
            // As a replica of its successor, which is waited for from now on.
            cluster.node_mut(primary).restart();
            cluster.settle();
        });
    }
    load.wait_for(40).await;
    let done = load.end().await;
    assert!(done.len() >= 160, "{}", done.len());
    assert_sound(&store, &all, &done).await;
    let ready = store.health(HealthDepth::Readiness).await.unwrap();
    assert!(ready.ready, "{:?}", ready.reasons);

    // All replicas gone: what is written is not acknowledged.
    for replica in 0..3 {
        cluster.node_mut(replica).kill();
    }
    let config = config.with_retry(impatient());
    let store = RedisClusterUtxoStore::open(config).await.unwrap();
    let unspent = store.outputs(&all).await.unwrap().into_iter().flatten();
    let unspent: Vec<_> = unspent
        .filter(|output| output.state == SlotState::Unspent)
        .map(|output| output.outpoint)
        .take(2)
        .collect();
    let batch = [spender(9_000_000, &unspent)];
    let error = store
        .spend_and_create(&batch, &SpendOptions::at(201))
        .await
        .unwrap_err();
    assert_eq!(error.retryability(), Retryability::Indeterminate);
    assert!(shown(&error).contains("min_replicas"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_came_up_empty_is_found() {
    let cluster = start(0, Some("always"));
    let config = config(cluster.url()).with_retry(impatient());
    let store = RedisClusterUtxoStore::open(config.clone()).await.unwrap();
    let coins = coins(&store, 1, 1_000).await;
    let says = "came up without its data";
    cluster.nodes()[1].command(&["FLUSHALL"]);
    not_ready(&store, &[says]).await;
    let error = refused(config.clone(), says).await;
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    // New records that would lie there are refused, rather than put beside nothing.
    let batch: Vec<_> = (1_000_000..)
        .zip(&coins[..100])
        .map(|(tag, coin)| spender(tag, &[*coin]))
        .collect();
    let error = store
        .spend_and_create(&batch, &SpendOptions::at(201))
        .await
        .unwrap_err();
    assert!(shown(&error).contains(says), "{error}");
    // Where the settings lay, a store is not made anew on what is left of the old one.
    cluster.nodes()[0].command(&["FLUSHALL"]);
    refused(config, "its settings are gone").await;
}

/// The cluster behind ways that can be disturbed, one to each server.
fn through_proxies(cluster: &RedisCluster) -> (Vec<Proxy>, RedisClusterUtxoStoreConfig) {
    let nodes = cluster.nodes().iter();
    let proxies: Vec<_> = nodes.map(|node| Proxy::to(node.port())).collect();
    let ports: Vec<_> = proxies.iter().map(Proxy::port).collect();
    let addresses = cluster.nodes().iter().zip(&ports);
    let addresses = addresses.map(|(node, port)| (address(node), format!("127.0.0.1:{port}")));
    let config = config(cluster.url_at(None, &ports)).with_addresses(addresses.collect());
    (proxies, config)
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|found| found == part)
}

/// Whether a request is one by which transactions begin to count.
fn is_step(request: &[u8]) -> bool {
    has(request, b"$4\r\nstep\r\n")
}

/// Has a server answer so to what makes transactions count.
fn refuse_steps(proxy: &Proxy, refusal: &'static str) {
    proxy.rewrite(move |way, bytes| match way {
        Way::Request if is_step(bytes) => {
            let mut bytes = bytes.to_vec();
            while let Some(at) = bytes.windows(7).position(|word| word == b"EVALSHA") {
                bytes[at] = b'X';
            }
            bytes
        }
        Way::Answer if bytes.starts_with(b"-ERR unknown command") => {
            let refusals = bytes.iter().filter(|byte| **byte == b'\n').count();
            refusal.repeat(refusals).into_bytes()
        }
        _ => bytes.to_vec(),
    });
}

/// "Nothing was applied" is not said where one server refuses what others have done.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_refuses_others_may_have_done() {
    let cluster = start(0, Some("always"));
    let (proxies, config) = through_proxies(&cluster);
    let store = RedisClusterUtxoStore::open(config.with_retry(impatient()))
        .await
        .unwrap();
    store.set_tip(&tip()).await.unwrap();
    let coins = coins(&store, 1, 40).await;
    refuse_steps(&proxies[0], "-LOADING not yet\r\n");
    let batch: Vec<_> = (1_000_000..)
        .zip(&coins)
        .map(|(tag, coin)| spender(tag, &[*coin]))
        .collect();
    let options = SpendOptions::at(201);
    let error = store.spend_and_create(&batch, &options).await.unwrap_err();
    assert!(shown(&error).contains("is coming up"), "{error:?}");
    assert_eq!(error.retryability(), Retryability::Indeterminate);
    proxies[0].rewrite(|_, bytes| bytes.to_vec());
    store.recover().await.unwrap();
    let txids: Vec<_> = batch.iter().map(|new| new.tx.txid).collect();
    let records = store.records(&txids, Fields::META).await.unwrap();
    let live = records.iter().flatten().count();
    assert!((1..batch.len()).contains(&live), "{live} were applied");
    let done = batch.into_iter().zip(records);
    let done: Vec<_> = done
        .filter_map(|(new, record)| record.map(|_| new))
        .collect();
    assert_sound(&store, &coins, &done).await;
}

/// A server's lost answer stays a doubt beside what all others refuse for good.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_beside_refusals_is_a_doubt() {
    let cluster = start(0, Some("always"));
    let (proxies, config) = through_proxies(&cluster);
    let once = RetryConfig::default().with_max_attempts(1);
    let patient = RedisClusterUtxoStore::open(config.clone()).await.unwrap();
    patient.set_tip(&tip()).await.unwrap();
    let coins = coins(&patient, 1, 40).await;
    let config = config.with_answer_timeout(Duration::from_secs(1));
    let store = RedisClusterUtxoStore::open(config.with_retry(once))
        .await
        .unwrap();
    let lost = AtomicBool::new(false);
    proxies[0].rewrite(move |way, bytes| {
        lost.fetch_or(way == Way::Request && is_step(bytes), Ordering::Relaxed);
        match way == Way::Answer && lost.load(Ordering::Relaxed) {
            true => Vec::new(),
            false => bytes.to_vec(),
        }
    });
    for proxy in &proxies[1..] {
        refuse_steps(proxy, "-NOPERM not you\r\n");
    }
    let batch: Vec<_> = (1_000_000..)
        .zip(&coins)
        .map(|(tag, coin)| spender(tag, &[*coin]))
        .collect();
    let options = SpendOptions::at(201);
    let error = store.spend_and_create(&batch, &options).await.unwrap_err();
    assert_eq!(
        error.retryability(),
        Retryability::Indeterminate,
        "{error:?}"
    );
    for proxy in &proxies {
        proxy.rewrite(|_, bytes| bytes.to_vec());
    }
    patient.recover().await.unwrap();
    let txids: Vec<_> = batch.iter().map(|new| new.tx.txid).collect();
    let records = patient.records(&txids, Fields::META).await.unwrap();
    assert!(records.iter().any(Option::is_some), "nothing was in doubt");
}

/// A step whose answer is lost is repeated, and known by its stamp: no call has effect twice, none has half.
#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_are_settled() {
    let cluster = start(0, Some("always"));
    let (proxies, config) = through_proxies(&cluster);
    let store = RedisClusterUtxoStore::open(config).await.unwrap();
    store.set_tip(&tip()).await.unwrap();
    let coins = coins(&store, 1, 400).await;
    let mut done = Vec::new();
    for (n, pair) in coins.chunks(2).enumerate() {
        proxies[n % 3].lose_answer_after(n as u64 / 3 % 4);
        let new = spender(1_000_000 + n as u64, pair);
        let options = SpendOptions::at(201);
        let batch = [new.clone()];
        let answers = store.spend_and_create(&batch, &options).await.unwrap();
        // Found done by who repeats it, or done by the repetition.
        assert!(answers[0].is_ok(), "{answers:?}");
        done.push(new);
    }
    let lost: u64 = proxies.iter().map(Proxy::answers_lost).sum();
    assert!(lost > 50, "{lost} answers were lost");
    store.recover().await.unwrap();
    assert_sound(&store, &coins, &done).await;
}
