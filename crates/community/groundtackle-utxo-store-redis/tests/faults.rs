//! Killed servers, lost answers, full memory, wrong settings: nothing acknowledged is lost, nothing is half
//! done, and errors name the way out and no secret.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod common;
#[path = "faults/settings.rs"]
mod settings;

use std::env;
use std::error::Error as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use groundtackle_core::{ByteSize, RetryConfig, Secret};
use groundtackle_testkit_servers::{Certificates, Proxy, Redis, RedisOptions, SmallDisk, Way};
use groundtackle_utxo_store::{
    Applied, BlockHash, BlockStore, Error, Fields, HealthDepth, MaintenanceStore, MinedIn,
    NewTransaction, OutPoint, Result, RetentionStore, Retryability, ScanStore, SlotState,
    SpendOptions, SpendStore, UtxoStoreExt, Verdict,
};
use groundtackle_utxo_store_redis::{Durability, RedisUtxoStore, RedisUtxoStoreConfig, Tls};
use groundtackle_utxo_store_testkit::builder::{BlockBuilder, TxBuilder, tip_of};
use groundtackle_utxo_store_testkit::state::{muhash, scan_all};
use tokio::task::{JoinHandle, block_in_place};

use common::{config, prefix, server};

const PASSWORD: &str = "s3cr3t-pa55";

/// Everything that a person or a log would see of an error.
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

async fn refused(config: RedisUtxoStoreConfig, says: &str) -> Error {
    let error = RedisUtxoStore::open(config).await.unwrap_err();
    let text = shown(&error);
    assert!(text.contains(says), "{says:?} is not in {text}");
    error
}

async fn coins(store: &RedisUtxoStore, tag: u64, count: u32) -> Vec<OutPoint> {
    let seed = TxBuilder::new(tag).pay_each(count as usize, 1_000).seed(1);
    let txid = seed.txid();
    assert_eq!(store.create(&[seed]).await.unwrap(), [Ok(Applied::Now)]);
    (0..count).map(|vout| OutPoint::new(txid, vout)).collect()
}

fn spender(tag: u64, coin: OutPoint) -> NewTransaction {
    TxBuilder::new(tag).spend(coin).pay(900).build().into()
}

async fn spend(store: &RedisUtxoStore, new: NewTransaction) -> Result<Applied> {
    let answers = store
        .spend_and_create(&[new], &SpendOptions::at(201))
        .await?;
    Ok(answers[0].clone().unwrap())
}

/// The set by a scan has the digest that is kept.
async fn assert_sound(store: &RedisUtxoStore) {
    let coins = scan_all(&*store.scan().await.unwrap(), 1_000).await;
    assert_eq!(store.digest().await.unwrap().muhash, muhash(&coins));
}

/// Each coin is held by its spender, which has a record.
async fn assert_held(store: &RedisUtxoStore, done: &[(OutPoint, NewTransaction)]) {
    for part in done.chunks(1_000) {
        let coins: Vec<_> = part.iter().map(|(coin, _)| *coin).collect();
        let txids: Vec<_> = part.iter().map(|(_, new)| new.tx.txid).collect();
        let outputs = store.outputs(&coins).await.unwrap();
        for (output, txid) in outputs.into_iter().zip(&txids) {
            let state = output.unwrap().state;
            assert!(
                matches!(state, SlotState::Spent(by) if by.txid == *txid),
                "{state:?}"
            );
        }
        let records = store.records(&txids, Fields::META).await.unwrap();
        assert!(records.iter().all(Option::is_some));
    }
}

async fn assert_all_there(store: &RedisUtxoStore, done: &[(OutPoint, NewTransaction)]) {
    assert_held(store, done).await;
    assert_sound(store).await;
}

fn tip() -> groundtackle_utxo_store::Tip {
    groundtackle_utxo_store::Tip {
        height: 200,
        hash: groundtackle_utxo_store::BlockHash::from_bytes([200; 32]),
        median_time_past: 1_231_126_505,
    }
}

/// Whoever opens the store for the first time at the same time opens the same one.
#[tokio::test(flavor = "multi_thread")]
async fn many_may_create_it_at_once() {
    let config = config(server().url()).with_prefix(prefix());
    let tasks: Vec<_> = (0..8)
        .map(|_| tokio::spawn(RedisUtxoStore::open(config.clone())))
        .collect();
    for (task, tag) in tasks.into_iter().zip(1..) {
        let store = task.await.unwrap().unwrap();
        coins(&store, tag, 1).await;
    }
    let store = RedisUtxoStore::open(config).await.unwrap();
    assert_eq!(scan_all(&*store.scan().await.unwrap(), 100).await.len(), 8);
    assert_sound(&store).await;
}

/// Tasks that spend coin after coin until told to stop.
struct Load {
    tasks: Vec<JoinHandle<Vec<(OutPoint, NewTransaction)>>>,
    over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Load {
    fn start(store: &RedisUtxoStore, coins: &[OutPoint], tasks: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let tasks = coins
            .chunks(coins.len().div_ceil(tasks))
            .zip(1..)
            .map(|(coins, task)| {
                let (store, coins) = (store.clone(), coins.to_vec());
                let (over, acknowledged) = (over.clone(), acknowledged.clone());
                tokio::spawn(async move {
                    let mut done = Vec::new();
                    for (tag, coin) in (task * 1_000_000..).zip(coins) {
                        if over.load(Ordering::Acquire) {
                            break;
                        }
                        let new = spender(tag, coin);
                        loop {
                            match spend(&store, new.clone()).await {
                                Ok(_) => break,
                                Err(error) => {
                                    shown(&error);
                                    let permanent = error.retryability() == Retryability::Permanent;
                                    assert!(!permanent, "{error:?}");
                                }
                            }
                        }
                        done.push((coin, new));
                        acknowledged.fetch_add(1, Ordering::AcqRel);
                    }
                    done
                })
            })
            .collect();
        Self {
            tasks,
            over,
            acknowledged,
        }
    }

    /// Waits until so many more are acknowledged.
    async fn wait_for(&self, more: u64) {
        let begun = Instant::now();
        let wanted = self.acknowledged.load(Ordering::Acquire) + more;
        while self.acknowledged.load(Ordering::Acquire) < wanted {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing goes on");
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    async fn end(self) -> Vec<(OutPoint, NewTransaction)> {
        self.over.store(true, Ordering::Release);
        let mut done = Vec::new();
        for task in self.tasks {
            done.extend(task.await.unwrap());
        }
        done
    }
}

/// `GROUNDTACKLE_TEST_SERVER_KILLS` says how often (5). Blocks are connected beside the load; after each
/// kill the tip is one that was acknowledged, or the one under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nothing_acknowledged() {
    let kills = env::var("GROUNDTACKLE_TEST_SERVER_KILLS").map_or(5, |text| {
        text.parse::<u64>()
            .expect("GROUNDTACKLE_TEST_SERVER_KILLS is a number")
    });
    let mut server = Redis::start(RedisOptions {
        append_fsync: Some("always"),
        ..RedisOptions::default()
    });
    let config = config(server.url()).with_durability(Durability::Always);
    let store = RedisUtxoStore::open(config.clone()).await.unwrap();
    store.set_tip(&tip()).await.unwrap();
    let mut all = Vec::new();
    for tag in 0..kills.max(1) {
        all.extend(coins(&store, tag, 4_000).await);
    }
    let (for_blocks, for_load) = all.split_at(all.len() / 8);
    let load = Load::start(&store, for_load, 8);
    let mut blocks = for_blocks.chunks(20).zip(500_000_000_u64..);
    let mut connected = 200;
    for kill in 0..kills {
        load.wait_for(20 + kill * 7 % 40).await;
        let (coins, tag) = blocks.next().expect("coins for each");
        let transactions: Vec<_> = coins
            .iter()
            .zip(tag * 100..)
            .map(|(coin, tag)| spender(tag, *coin).tx)
            .collect();
        let block = BlockBuilder::after(store.tip().await.unwrap())
            .with(&transactions.iter().collect::<Vec<_>>())
            .build();
        let connecting = {
            let (store, block) = (store.clone(), block.clone());
            tokio::spawn(async move {
                loop {
                    match store.connect_block(&block).await {
                        Ok(answer) => break answer.expect("the block is good"),
                        Err(error) => assert_ne!(error.retryability(), Retryability::Permanent),
                    }
                }
            })
        };
        // Another moment of it each time.
        tokio::time::sleep(Duration::from_micros(kill * 131 % 6_000)).await;
        block_in_place(|| {
            server.kill();
            server.restart();
        });
        connecting.await.unwrap();
        connected += 1;
        let found = store.tip().await.unwrap().expect("a tip");
        assert_eq!((found.height, found.hash), (connected, block.hash));
        // As the chain has it: each of the block's transactions holds its coin.
        let mine: Vec<_> = coins
            .iter()
            .zip(transactions)
            .map(|(coin, tx)| (*coin, tx.into()))
            .collect();
        assert_held(&store, &mine).await;
    }
    let done = load.end().await;
    store.recover().await.unwrap();
    assert_all_there(&store, &done).await;
    // No output names a spender without a record, acknowledged or not.
    let fresh = RedisUtxoStore::open(config).await.unwrap();
    let mut spenders = Vec::new();
    for part in all.chunks(4_000) {
        for output in fresh.outputs(part).await.unwrap() {
            if let SlotState::Spent(by) = output.unwrap().state {
                spenders.push(by.txid);
            }
        }
    }
    assert!(spenders.len() >= done.len());
    for part in spenders.chunks(4_000) {
        let records = fresh.records(part, Fields::META).await.unwrap();
        assert!(
            records.iter().all(Option::is_some),
            "a spender without a record"
        );
    }
    println!(
        "{kills} kills, {} spends acknowledged, {} outputs held, {} blocks",
        done.len(),
        spenders.len(),
        connected - 200
    );
}

/// The answer to a change is lost: sent again, the server knows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_without_an_answer_is_carried_out_once() {
    let proxy = Proxy::to(server().port());
    let config = config(server().url_at(proxy.port())).with_prefix(prefix());
    let store = RedisUtxoStore::open(config).await.unwrap();
    let coins = coins(&store, 1, 40).await;
    for (tag, coin) in (100..).zip(&coins) {
        let new = spender(tag, *coin);
        // That to the reading, that to the change, or none.
        proxy.lose_answer_after(tag % 3);
        assert_eq!(
            spend(&store, new.clone()).await.unwrap(),
            Applied::Now,
            "{tag}"
        );
        assert_all_there(&store, &[(*coin, new)]).await;
    }
    assert!(proxy.answers_lost() >= 26, "{} lost", proxy.answers_lost());
}

/// Where it can't be found out either, the error says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_that_stays_is_indeterminate() {
    let proxy = Proxy::to(server().port());
    let retry = RetryConfig::default().with_max_attempts(2);
    let config = config(server().url_at(proxy.port())).with_prefix(prefix());
    let store = RedisUtxoStore::open(config.with_retry(retry))
        .await
        .unwrap();
    let coins = coins(&store, 1, 1).await;
    let new = spender(2, coins[0]);
    // The answer to the second round trip is that to the change.
    proxy.lose_answer_after(1);
    proxy.cut_when_lost(true);
    let error = spend(&store, new.clone()).await.unwrap_err();
    assert_eq!(
        error.retryability(),
        Retryability::Indeterminate,
        "{error:?}"
    );
    assert!(shown(&error).contains("read back"), "{error}");
    proxy.cut(false);
    assert_eq!(spend(&store, new).await.unwrap(), Applied::Before);
}

/// A pruning that fails after something has gone does not say that nothing was applied, wherever it fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_pruning_cut_short_is_indeterminate() {
    let (mut nothing, mut parts) = (0, 0);
    for answers in 0.. {
        let proxy = Proxy::to(server().port());
        let retry = RetryConfig::default().with_max_attempts(1);
        let ours = config(server().url()).with_prefix(prefix());
        let direct = RedisUtxoStore::open(ours.clone()).await.unwrap();
        let ours = ours.with_url(server().url_at(proxy.port()).into());
        let store = RedisUtxoStore::open(ours.with_retry(retry)).await.unwrap();
        store.set_tip(&tip()).await.unwrap();
        let mut tip = tip();
        for tag in 1..=3 {
            let tx = spender(100 + tag, coins(&store, tag, 1).await[0]).tx;
            let block = BlockBuilder::after(Some(tip)).with(&[&tx]).build();
            store.connect_block(&block).await.unwrap().unwrap();
            tip = tip_of(&block);
        }
        proxy.cut_when_lost(true);
        proxy.lose_answer_after(answers);
        let pruned = store.prune(tip.height).await;
        proxy.cut(false);
        let left = direct.prune(tip.height).await.unwrap();
        match pruned {
            Ok(pruned) => {
                assert_eq!((pruned.records, pruned.blocks, answers > 4), (3, 3, true));
                break;
            }
            Err(error) if (left.records, left.blocks) == (3, 3) => {
                nothing += u32::from(error.retryability() == Retryability::Transient);
            }
            Err(error) => {
                assert_eq!(
                    error.retryability(),
                    Retryability::Indeterminate,
                    "{error:?}"
                );
                parts += 1;
            }
        }
        assert_sound(&direct).await;
    }
    assert!(nothing > 0 && parts > 2, "{nothing} and {parts}");
}

/// A server that comes up anew has forgotten the script; one that is told to, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_script_is_loaded_again() {
    let store = RedisUtxoStore::open(config(server().url()).with_prefix(prefix()))
        .await
        .unwrap();
    let coins = coins(&store, 1, 3).await;
    for (tag, coin) in (10..).zip(coins) {
        server().command(&["SCRIPT", "FLUSH"]);
        assert_eq!(
            spend(&store, spender(tag, coin)).await.unwrap(),
            Applied::Now
        );
    }
}

/// A call that was given up and arrives late, behind a later one of its lane, changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_call_changes_nothing() {
    let sha = server().command(&["SCRIPT", "LOAD", include_str!("../src/scripts/change.lua")]);
    let sha = sha.lines().nth(1).expect("a name").to_owned();
    let change = |number: &str, expects: &str, value: &str| {
        let calls = "{late}:calls";
        let mut words = vec![
            "EVALSHA",
            &sha,
            "2",
            calls,
            "{late}:hash",
            "lane",
            number,
            "0",
        ];
        words.push(expects);
        words.extend(["HSET", "1", "\0\0\x02\x05field", value]);
        let answer = server().command(&words);
        answer.lines().nth(1).expect("an answer").to_owned()
    };
    let number = |number: u64| format!("{number:016x}");
    let value = || server().command(&["HGET", "{late}:hash", "field"]);
    assert_eq!(
        change(&number(2), "\0\0\x02\x05field\0", "token-01 first"),
        "+"
    );
    assert_eq!(
        change(&number(2), "\0\0\x02\x05field\0", "again"),
        "+",
        "the same call"
    );
    assert_eq!(change(&number(1), "", "late"), "late");
    assert!(value().contains("first"));
    assert_eq!(
        change(&number(3), "\0\0\x02\x05field\x08token-00", "stale"),
        "-"
    );
    // What was refused stays so, whatever has changed meanwhile.
    assert_eq!(
        change(&number(3), "\0\0\x02\x05field\x08token-01", "stale"),
        "-"
    );
    assert!(value().contains("first"));
    assert_eq!(
        change(&number(4), "\0\0\x02\x05field\x08token-01", "token-02 next"),
        "+"
    );
    assert!(value().contains("next"));
}

/// Memory that is full, a replica, a server that misses its replicas: nothing is applied, and the error
/// names the way out; when that is over the store goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_says_why() {
    let server = Redis::start(RedisOptions::default());
    let retry = RetryConfig::default().with_max_attempts(2);
    let store = RedisUtxoStore::open(config(server.url()).with_retry(retry))
        .await
        .unwrap();
    let coins = coins(&store, 1, 3).await;
    let set = |name, value| assert_eq!(server.command(&["CONFIG", "SET", name, value]), "+OK\r\n");
    type Act<'a> = Box<dyn Fn() + 'a>;
    let replica = |host: &'static str, port: &'static str| {
        assert_eq!(server.command(&["REPLICAOF", host, port]), "+OK\r\n");
    };
    let faults: [(Act<'_>, Act<'_>, &str); 3] = [
        (
            Box::new(|| set("maxmemory", "1mb")),
            Box::new(|| set("maxmemory", "0")),
            "maxmemory",
        ),
        (
            Box::new(|| set("min-replicas-to-write", "1")),
            Box::new(|| set("min-replicas-to-write", "0")),
            "min-replicas-to-write",
        ),
        (
            Box::new(|| replica("127.0.0.1", "1")),
            Box::new(|| replica("NO", "ONE")),
            "replica",
        ),
    ];
    for ((break_it, mend_it, says), (coin, tag)) in faults.into_iter().zip(coins.iter().zip(10..)) {
        let new = spender(tag, *coin);
        break_it();
        let error = spend(&store, new.clone()).await.unwrap_err();
        assert!(shown(&error).contains(says), "{error:?}");
        assert_eq!(error.retryability(), Retryability::Transient, "{error:?}");
        let health = store.health(HealthDepth::Readiness).await.unwrap();
        assert!(
            !health.ready && health.reasons[0].contains(says),
            "{health:?}"
        );
        // Reads go on.
        assert_eq!(store.record(new.tx.txid).await.unwrap(), None);
        assert_sound(&store).await;
        mend_it();
        assert!(store.health(HealthDepth::Readiness).await.unwrap().ready);
        assert_eq!(spend(&store, new).await.unwrap(), Applied::Now);
    }
    assert_sound(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let config = config(server().url()).with_prefix(prefix());
    let store = RedisUtxoStore::open(config.with_max_write(ByteSize::new(64 << 10)))
        .await
        .unwrap();
    coins(&store, 1, 100).await;
    let seed = TxBuilder::new(2).pay_each(4_000, 1_000).seed(1);
    let txid = seed.txid();
    let error = store.create(&[seed]).await.unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
    assert!(error.to_string().contains("max_write"), "{error}");
    assert_eq!(store.record(txid).await.unwrap(), None);
}

/// Two stores, as two processes have them, that want the same outputs of one transaction: each output has
/// one holder, who was told so.
#[tokio::test(flavor = "multi_thread")]
async fn rivals_of_several_processes_come_to_an_end() {
    let config = config(server().url()).with_prefix(prefix());
    let mut stores = Vec::new();
    for _ in 0..3 {
        stores.push(RedisUtxoStore::open(config.clone()).await.unwrap());
    }
    let coins = coins(&stores[0], 1, 60).await;
    let tasks: Vec<_> = (0..12_u64)
        .map(|task| {
            let (store, coins) = (stores[task as usize % 3].clone(), coins.clone());
            tokio::spawn(async move {
                let mut won = Vec::new();
                for (at, coin) in coins.iter().enumerate() {
                    let new = spender(1_000 * (task + 1) + at as u64, *coin);
                    let txid = new.tx.txid;
                    let options = SpendOptions::at(201);
                    match &store.spend_and_create(&[new], &options).await.unwrap()[0] {
                        Ok(_) => won.push((*coin, txid)),
                        Err(Verdict::AlreadySpent { by, .. }) => assert_ne!(by.txid, txid),
                        other => panic!("{other:?}"),
                    }
                }
                won
            })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        won.extend(task.await.unwrap());
    }
    assert_eq!(won.len(), coins.len());
    for (coin, winner) in won {
        let state = stores[1].output(coin).await.unwrap().unwrap().state;
        assert!(matches!(state, SlotState::Spent(by) if by.txid == winner));
    }
}

/// What is full can be emptied: pruning goes on where nothing else may write.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_can_be_pruned() {
    let server = Redis::start(RedisOptions::default());
    let store = RedisUtxoStore::open(config(server.url())).await.unwrap();
    store.set_tip(&tip()).await.unwrap();
    let coins = coins(&store, 1, 2).await;
    let spends: Vec<_> = coins
        .iter()
        .zip(2..)
        .map(|(coin, tag)| spender(tag, *coin).tx)
        .collect();
    let block = BlockBuilder::after(Some(tip()))
        .with(&spends.iter().collect::<Vec<_>>())
        .build();
    store.connect_block(&block).await.unwrap().unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let pruned = store.prune(201).await.unwrap();
    assert_eq!((pruned.records, pruned.blocks), (1, 1));
    assert_eq!(store.record(coins[0].txid).await.unwrap(), None);
    assert_sound(&store).await;
}

/// What a pruning keeps may be done while it keeps it: then it is listed as it was, and must stay so.
#[tokio::test(flavor = "multi_thread")]
async fn pruning_does_not_unlist_what_is_done_meanwhile() {
    let proxy = Proxy::to(server().port());
    let prefix = prefix();
    let ours = config(server().url_at(proxy.port())).with_prefix(prefix.clone());
    let ours = RedisUtxoStore::open(ours).await.unwrap();
    let theirs = config(server().url()).with_prefix(prefix);
    let theirs = RedisUtxoStore::open(theirs).await.unwrap();
    ours.set_tip(&tip()).await.unwrap();
    let coin = coins(&ours, 1, 1).await[0];
    let new = spender(2, coin);
    spend(&ours, new.clone()).await.unwrap();
    proxy.pause(0, b"EVALSHA");
    let pruning = tokio::spawn(async move { ours.prune(200).await });
    block_in_place(|| proxy.is_paused());
    // At the height that the record is listed for already.
    let mined = MinedIn {
        block: Some(BlockHash::from_bytes([1; 32])),
        height: 1,
        subtree_index: 0,
        on_longest_chain: true,
    };
    theirs.set_mined(&[new.tx.txid], &mined).await.unwrap();
    proxy.go_on();
    assert_eq!(pruning.await.unwrap().unwrap().records, 1);
    assert_eq!(theirs.record(coin.txid).await.unwrap(), None);
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|found| found == from);
    at.map_or_else(
        || bytes.to_vec(),
        |at| [&bytes[..at], to, &bytes[at + from.len()..]].concat(),
    )
}

/// A connection that has written nothing has nothing to wait for: the flush writes first. The server here
/// is too old for WAITAOF, so that the test answers for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_waits_behind_a_write_of_its_connection() {
    let server = Redis::start(RedisOptions {
        append_fsync: Some("everysec"),
        ..RedisOptions::default()
    });
    let proxy = Proxy::to(server.port());
    let waits = Arc::new(AtomicU64::new(0));
    let seen = waits.clone();
    proxy.rewrite(move |way, bytes| {
        if way == Way::Answer {
            return replaced(bytes, b"redis_version:7.0.", b"redis_version:7.2.");
        }
        let wait = b"*4\r\n$7\r\nWAITAOF\r\n";
        let Some(at) = bytes.windows(wait.len()).position(|found| found == wait) else {
            return bytes.to_vec();
        };
        seen.fetch_add(1, Ordering::AcqRel);
        let before = &bytes[..at];
        let durable = u8::from(before.windows(4).any(|word| word == b"HSET"));
        let answer = format!("*3\r\n$4\r\nEVAL\r\n$13\r\nreturn {{{durable}, 0}}\r\n$1\r\n0\r\n");
        [before, answer.as_bytes()].concat()
    });
    let config = config(server.url_at(proxy.port())).with_durability(Durability::EverySecond);
    let store = RedisUtxoStore::open(config).await.unwrap();
    coins(&store, 1, 1).await;
    proxy.cut(true);
    proxy.cut(false);
    store.flush().await.unwrap();
    assert_eq!(waits.load(Ordering::Acquire), 1);
}

/// Answers that never agree end with the retries.
#[tokio::test(flavor = "multi_thread")]
async fn reading_what_changes_all_the_time_comes_to_an_end() {
    let proxy = Proxy::to(server().port());
    let retry = RetryConfig::default().with_max_attempts(3);
    let config = config(server().url_at(proxy.port())).with_prefix(prefix());
    let store = RedisUtxoStore::open(config.with_retry(retry))
        .await
        .unwrap();
    store.set_tip(&tip()).await.unwrap();
    let coin = coins(&store, 1, 1).await[0];
    spend(&store, spender(2, coin)).await.unwrap();
    proxy.rewrite(|way, bytes| {
        let after = [&b"$-1\r\n"[..], b":1\r\n"];
        match after.map(|start| way == Way::Answer && bytes.starts_with(start)) {
            // Undo data that is missing, and a tip; a spender's first count.
            [true, _] => replaced(bytes, &[200; 32], &[201; 32]),
            [_, true] => replaced(bytes, b":1\r\n", b":0\r\n"),
            _ => bytes.to_vec(),
        }
    });
    let scan = store.scan().await.unwrap();
    let partition = u32::from(coin.txid.as_bytes()[0]) / 16;
    let error = scan.page(partition, None, 10).await.unwrap_err();
    assert!(shown(&error).contains("all the time"), "{error:?}");
    let error = store.previous_tip().await.unwrap_err();
    assert!(shown(&error).contains("all the time"), "{error:?}");
}

/// One transaction or 10,000: one reading at one moment, one script.
#[tokio::test(flavor = "multi_thread")]
async fn round_trips_are_those_of_the_readme() {
    let proxy = Proxy::to(server().port());
    let config = config(server().url_at(proxy.port())).with_prefix(prefix());
    let store = RedisUtxoStore::open(config.with_max_batch_items(10_000))
        .await
        .unwrap();
    proxy.round_trips();
    store.set_tip(&tip()).await.unwrap();
    let mut counted = (Vec::new(), Vec::new());
    for (count, tag) in [(1, 1), (100, 2), (10_000, 3)] {
        let coins = coins(&store, tag, 2 * count).await;
        let mut spends: Vec<_> = (tag * 100_000..)
            .zip(coins)
            .map(|(tag, coin)| spender(tag, coin))
            .collect();
        let mined = spends.split_off(count as usize);
        let before = proxy.round_trips();
        let answers = store
            .spend_and_create(&spends, &SpendOptions::at(201))
            .await
            .unwrap();
        counted.0.push(proxy.round_trips() - before);
        assert!(answers.iter().all(|answer| *answer == Ok(Applied::Now)));
        // Transactions that are new, and a coinbase.
        let mined: Vec<_> = mined.iter().map(|new| &new.tx).collect();
        let at = store.tip().await.unwrap();
        let block = BlockBuilder::after(at).with(&mined).build();
        let before = proxy.round_trips();
        store.connect_block(&block).await.unwrap().unwrap();
        counted.1.push(proxy.round_trips() - before);
    }
    assert_eq!(counted, ([2, 2, 2].to_vec(), [2, 2, 2].to_vec()));
}

/// What a server says that can't answer for now: nothing was applied, and the error tells why.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_says_for_now_is_transient() {
    let proxy = Proxy::to(server().port());
    let retry = RetryConfig::default().with_max_attempts(2);
    let config = config(server().url_at(proxy.port())).with_prefix(prefix());
    let store = RedisUtxoStore::open(config.with_retry(retry))
        .await
        .unwrap();
    let coin = coins(&store, 1, 1).await[0];
    let new = spender(2, coin);
    for (answer, says) in [
        (
            "-LOADING Redis is loading the dataset in memory\r\n",
            "coming up",
        ),
        (
            "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
            "busy with a script",
        ),
        (
            "-MISCONF Errors writing to the AOF file: No space left on device\r\n",
            "free space",
        ),
        (
            "-READONLY You can't write against a read only replica.\r\n",
            "replica",
        ),
    ] {
        // The server gets a command that it refuses, and its refusal is reworded.
        proxy.rewrite(move |way, bytes| match way {
            Way::Request => replaced(bytes, b"EVALSHA", b"NOTHING"),
            Way::Answer if bytes.starts_with(b"-ERR unknown command") => answer.into(),
            Way::Answer => bytes.to_vec(),
        });
        let error = spend(&store, new.clone()).await.unwrap_err();
        assert_eq!(error.retryability(), Retryability::Transient, "{error:?}");
        assert!(shown(&error).contains(says), "{error:?}");
        let health = store.health(HealthDepth::Readiness).await.unwrap();
        assert!(!health.ready, "{health:?}");
        assert!(health.reasons[0].contains(says), "{health:?}");
    }
    proxy.rewrite(|_, bytes| bytes.to_vec());
    assert_eq!(spend(&store, new).await.unwrap(), Applied::Now);
}

/// The disk of the log runs full: under `always` the server goes down rather than acknowledge, under
/// `everysec` it refuses writes until there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_log_loses_nothing() {
    for (fsync, durability) in [
        ("always", Durability::Always),
        ("everysec", Durability::EverySecond),
    ] {
        let Some(disk) = SmallDisk::new("8m") else {
            eprintln!("skipped: a_full_disk_of_the_log_loses_nothing: no right to mount");
            return;
        };
        let mut server = Redis::start(RedisOptions {
            append_fsync: Some(fsync),
            folder: Some(disk.path().to_owned()),
            ..RedisOptions::default()
        });
        let retry = RetryConfig::default().with_max_attempts(3);
        let config = config(server.url()).with_durability(durability);
        let store = RedisUtxoStore::open(config.with_retry(retry))
            .await
            .unwrap();
        let kept = coins(&store, 1, 1).await[0];
        disk.fill(64 << 10);
        let mut seeds = (2..).map(|tag| TxBuilder::new(tag).pay_each(200, 1_000).seed(1));
        let mut done = Vec::new();
        let error = loop {
            let seed = seeds.next().expect("they have no end");
            let txid = seed.txid();
            match store.create(&[seed]).await {
                Ok(_) => done.push(txid),
                Err(error) => break error,
            }
        };
        assert_ne!(error.retryability(), Retryability::Permanent, "{error:?}");
        if durability == Durability::EverySecond {
            assert!(shown(&error).contains("free space"), "{error:?}");
        }
        let health = store.health(HealthDepth::Readiness).await.unwrap();
        assert!(!health.ready, "{fsync}: {health:?}");
        disk.make_room();
        let begun = Instant::now();
        loop {
            block_in_place(|| server.revive());
            let health = store.health(HealthDepth::Readiness).await.unwrap();
            if health.ready {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{health:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // As its log has it, too.
        block_in_place(|| {
            server.kill();
            server.restart();
        });
        let records = store.records(&done, Fields::ALL).await.unwrap();
        for record in &records {
            assert_eq!(record.as_ref().map(|r| r.outputs.len()), Some(200));
        }
        assert!(!done.is_empty());
        spend(&store, spender(9_999_999, kept)).await.unwrap();
        assert_sound(&store).await;
    }
}
