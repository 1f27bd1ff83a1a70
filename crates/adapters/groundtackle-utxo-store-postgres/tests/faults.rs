//! Lost connections, killed servers, full disks, wrong settings: nothing acknowledged is lost, nothing is
//! half done, and errors name the way out and no secret.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod common;
#[path = "faults/races.rs"]
mod races;
#[path = "faults/settings.rs"]
mod settings;

use std::error::Error as _;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use groundtackle_core::{RetryConfig, Secret};
use groundtackle_testkit_servers::{
    Certificates, Postgres, PostgresOptions, Proxy, SmallDisk, Way,
};
use groundtackle_utxo_store::{
    AlertStore, Applied, BlockHash, BlockStore, Error, Fields, HealthDepth, MaintenanceStore,
    NewRecord, NewTransaction, OutPoint, Result, RetentionStore, Retryability, ScanStore, SetScan,
    SlotState, SpendOptions, SpendStore, Tip, UtxoStoreExt, Verdict,
};
use groundtackle_utxo_store_postgres::{PostgresUtxoStore, PostgresUtxoStoreConfig, Tls};
use groundtackle_utxo_store_testkit::builder::{BlockBuilder, TxBuilder, tip_of};
use groundtackle_utxo_store_testkit::state::{muhash, scan_all};
use tokio::task::block_in_place;
use tokio_postgres::{Client, NoTls};

use common::{Place, config, server};

const PASSWORD: &str = "s3cr3t-pa55";

/// A client beside the store.
async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a server");
    tokio::spawn(connection);
    client
}

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

async fn refused(config: PostgresUtxoStoreConfig, says: &str) -> Error {
    let error = PostgresUtxoStore::open(config).await.unwrap_err();
    let text = shown(&error);
    assert!(text.contains(says), "{says:?} is not in {text}");
    error
}

async fn coins(store: &PostgresUtxoStore, tag: u64, count: u32) -> Vec<OutPoint> {
    let seed = TxBuilder::new(tag).pay_each(count as usize, 1_000).seed(1);
    let txid = seed.txid();
    assert_eq!(store.create(&[seed]).await.unwrap(), [Ok(Applied::Now)]);
    (0..count).map(|vout| OutPoint::new(txid, vout)).collect()
}

fn spender(tag: u64, coin: OutPoint) -> NewTransaction {
    TxBuilder::new(tag).spend(coin).pay(900).build().into()
}

fn tip() -> Tip {
    Tip {
        height: 200,
        hash: BlockHash::from_bytes([200; 32]),
        median_time_past: 1_231_126_505,
    }
}

async fn spend(store: &PostgresUtxoStore, new: NewTransaction) -> Result<()> {
    let answers = store
        .spend_and_create(&[new], &SpendOptions::at(201))
        .await?;
    assert!(answers[0].is_ok(), "{answers:?}");
    Ok(())
}

/// The set by a scan has the digest that is kept.
async fn assert_sound(store: &PostgresUtxoStore) {
    let coins = scan_all(&*store.scan().await.unwrap(), 100).await;
    assert_eq!(store.digest().await.unwrap().muhash, muhash(&coins));
}

/// All partitions at once, over connections of their own, find what one walk through them finds: all of
/// one moment, though a block comes meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_parallel_scan_finds_what_a_sequential_one_finds() {
    for partitions in [0, 3] {
        let place = Place::new();
        let config = place.config().with_partitions(partitions);
        let store = PostgresUtxoStore::open(config.with_scan_partitions(8))
            .await
            .unwrap();
        store.set_tip(&tip()).await.unwrap();
        let mut spent = Vec::new();
        for tag in 1..60 {
            spent.extend(coins(&store, tag, 5).await.into_iter().skip(4));
        }
        let scan: Arc<dyn SetScan> = store.scan().await.unwrap().into();
        let expected = scan_all(&*scan, 7).await;
        let tasks: Vec<_> = (0..scan.partitions())
            .map(|partition| {
                let scan = scan.clone();
                tokio::spawn(async move {
                    let (mut coins, mut after) = (Vec::new(), None);
                    loop {
                        let page = scan.page(partition, after.as_ref(), 3).await.unwrap();
                        coins.extend(page.items);
                        after = page.next;
                        if after.is_none() {
                            break coins;
                        }
                    }
                })
            })
            .collect();
        let spends: Vec<_> = spent
            .iter()
            .zip(1_000..)
            .map(|(coin, tag)| spender(tag, *coin).tx)
            .collect();
        let block = BlockBuilder::after(Some(tip())).with(&spends.iter().collect::<Vec<_>>());
        store.connect_block(&block.build()).await.unwrap().unwrap();
        let mut found = Vec::new();
        for task in tasks {
            found.extend(task.await.unwrap());
        }
        assert_eq!(found.len(), 59 * 5);
        assert_eq!(found, expected);
        assert_ne!(scan_all(&*store.scan().await.unwrap(), 7).await, expected);
    }
}

/// Spends coin after coin until told to stop; returns those acknowledged, and those in doubt.
async fn load(
    store: PostgresUtxoStore,
    coins: Vec<OutPoint>,
    first_tag: u64,
    over: Arc<AtomicBool>,
) -> (Vec<(OutPoint, NewTransaction)>, usize) {
    let (mut done, mut doubtful) = (Vec::new(), 0);
    for (tag, coin) in (first_tag..).zip(coins) {
        if over.load(Ordering::Acquire) {
            break;
        }
        let new = spender(tag, coin);
        loop {
            match spend(&store, new.clone()).await {
                Ok(()) => break done.push((coin, new)),
                Err(error) => {
                    shown(&error);
                    doubtful += usize::from(error.retryability() == Retryability::Indeterminate);
                    assert_ne!(error.retryability(), Retryability::Permanent, "{error:?}");
                }
            }
        }
    }
    (done, doubtful)
}

async fn assert_all_there(store: &PostgresUtxoStore, done: &[(OutPoint, NewTransaction)]) {
    for (coin, new) in done {
        let state = store.output(*coin).await.unwrap().unwrap().state;
        assert!(
            matches!(state, SlotState::Spent(by) if by.txid == new.tx.txid),
            "{state:?}"
        );
        assert!(store.record(new.tx.txid).await.unwrap().is_some());
    }
    assert_sound(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_backends_lose_nothing() {
    let place = Place::new();
    let name = format!("?application_name={}", place.schema());
    let url = server().url() + &name;
    let store = PostgresUtxoStore::open(place.config().with_url(url.into()))
        .await
        .unwrap();
    let coins = coins(&store, 1, 400).await;
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = coins
        .chunks(100)
        .zip(1..)
        .map(|(coins, task)| {
            tokio::spawn(load(
                store.clone(),
                coins.to_vec(),
                task * 1_000,
                over.clone(),
            ))
        })
        .collect();
    let admin = client(&server().url()).await;
    let kill =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1";
    let mut killed = 0;
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        let row = admin.query_one(kill, &[&place.schema()]).await.unwrap();
        killed += row.get::<_, i64>(0);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(killed > 10, "{killed} killed");
    let mut done = Vec::new();
    for task in tasks {
        done.extend(task.await.unwrap().0);
    }
    assert_eq!(done.len(), 400);
    assert_all_there(&store, &done).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nothing_acknowledged() {
    let mut server = Postgres::start(PostgresOptions {
        fsync: true,
        ..PostgresOptions::default()
    });
    let config = config(&server).with_allow_unsafe_durability(false);
    let store = PostgresUtxoStore::open(config).await.unwrap();
    let coins = coins(&store, 1, 4_000).await;
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = coins
        .chunks(1_000)
        .zip(1..)
        .map(|(coins, task)| {
            tokio::spawn(load(
                store.clone(),
                coins.to_vec(),
                task * 10_000,
                over.clone(),
            ))
        })
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        block_in_place(|| {
            server.kill();
            server.restart();
        });
    }
    over.store(true, Ordering::Release);
    let mut done = Vec::new();
    for task in tasks {
        done.extend(task.await.unwrap().0);
    }
    assert!(done.len() > 8, "{} done", done.len());
    store.recover().await.unwrap();
    assert_all_there(&store, &done).await;
}

/// The answer to a commit is lost: the store finds out that it landed.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_an_answer_is_looked_up() {
    let place = Place::new();
    let proxy = Proxy::to(server().port());
    let url = server().url_at(proxy.port());
    let store = PostgresUtxoStore::open(place.config().with_url(url.into()))
        .await
        .unwrap();
    let coins = coins(&store, 1, 40).await;
    for (tag, coin) in (100..).zip(&coins) {
        let new = spender(tag, *coin);
        proxy.lose_answer_with(b"COMMIT\0");
        let answers = store
            .spend_and_create(std::slice::from_ref(&new), &SpendOptions::at(201))
            .await
            .unwrap();
        assert!(answers[0].is_ok());
        assert_all_there(&store, &[(*coin, new)]).await;
    }
    assert_eq!(proxy.answers_lost(), 40);
}

/// Where it can't be found out either, the error says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_that_stays_is_indeterminate() {
    let place = Place::new();
    let proxy = Proxy::to(server().port());
    let url = server().url_at(proxy.port());
    let retry = RetryConfig::default().with_max_attempts(2);
    let config = place.config().with_url(url.into()).with_retry(retry);
    let store = PostgresUtxoStore::open(config).await.unwrap();
    let coins = coins(&store, 1, 1).await;
    let new = spender(2, coins[0]);
    proxy.lose_answer_with(b"COMMIT\0");
    proxy.cut_when_lost(true);
    let error = spend(&store, new.clone()).await.unwrap_err();
    assert_eq!(
        error.retryability(),
        Retryability::Indeterminate,
        "{error:?}"
    );
    assert!(shown(&error).contains("read back"), "{error}");
    proxy.cut(false);
    let answers = store
        .spend_and_create(std::slice::from_ref(&new), &SpendOptions::at(201))
        .await
        .unwrap();
    assert_eq!(answers, [Ok(Applied::Before)]);
}

/// A pruning that fails after something has gone does not say that nothing was applied, wherever it fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_pruning_cut_short_is_indeterminate() {
    let (mut nothing, mut parts) = (0, 0);
    for answers in 0.. {
        let place = Place::new();
        let proxy = Proxy::to(server().port());
        let retry = RetryConfig::default().with_max_attempts(1);
        let direct = PostgresUtxoStore::open(place.config()).await.unwrap();
        let config = place.config().with_retry(retry);
        let config = config.with_url(server().url_at(proxy.port()).into());
        let store = PostgresUtxoStore::open(config).await.unwrap();
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

/// The answer to a pruning's commit is lost, its repetition finds nothing left to do, and then it fails: what went is
/// in no count.
#[tokio::test(flavor = "multi_thread")]
async fn a_pruning_in_doubt_stays_in_doubt() {
    let place = Place::new();
    let proxy = Proxy::to(server().port());
    let config = place
        .config()
        .with_url(server().url_at(proxy.port()).into());
    let store = PostgresUtxoStore::open(config).await.unwrap();
    store.set_tip(&tip()).await.unwrap();
    let tx = spender(100, coins(&store, 1, 1).await[0]).tx;
    let block = BlockBuilder::after(Some(tip())).with(&[&tx]).build();
    store.connect_block(&block).await.unwrap().unwrap();
    let begins = AtomicUsize::new(0);
    // The first step's, its repetition's, the second step's.
    proxy.rewrite(move |way, bytes| {
        let mut bytes = bytes.to_vec();
        let begin = b"BEGIN ISOLATION";
        let at = bytes.windows(begin.len()).position(|found| found == begin);
        if let Some(at) = at.filter(|_| way == Way::Request)
            && begins.fetch_add(1, Ordering::Relaxed) == 2
        {
            bytes[at] = b'X';
        }
        bytes
    });
    proxy.lose_answer_with(b"COMMIT\0");
    let error = store.prune(201).await.unwrap_err();
    assert_eq!(proxy.answers_lost(), 1);
    assert_eq!(
        error.retryability(),
        Retryability::Indeterminate,
        "{error:?}"
    );
    proxy.rewrite(|_, bytes| bytes.to_vec());
    let left = store.prune(201).await.unwrap();
    assert_eq!((left.records, left.blocks), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_not_ready() {
    let server = Postgres::start(PostgresOptions::default());
    let config = config(&server).with_retry(RetryConfig::default().with_max_attempts(2));
    let store = PostgresUtxoStore::open(config).await.unwrap();
    let coins = coins(&store, 1, 1).await;
    let admin = client(&server.url()).await;
    admin
        .batch_execute("ALTER SYSTEM SET default_transaction_read_only = on")
        .await
        .unwrap();
    admin
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
    let begun = std::time::Instant::now();
    loop {
        let health = store.health(HealthDepth::Readiness).await.unwrap();
        if !health.ready {
            assert!(health.reasons[0].contains("read-only"), "{health:?}");
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "still ready");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    admin
        .batch_execute("SET default_transaction_read_only = off")
        .await
        .unwrap();
    admin
        .batch_execute("ALTER SYSTEM RESET default_transaction_read_only")
        .await
        .unwrap();
    admin
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
    while !store.health(HealthDepth::Readiness).await.unwrap().ready {
        assert!(begun.elapsed() < Duration::from_secs(20), "not ready again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    spend(&store, spender(2, coins[0])).await.unwrap();
}

/// Writes to a server whose disk has less and less room until it refuses, makes room, and finds all
/// that was acknowledged.
async fn fill_up(disk: &SmallDisk, options: PostgresOptions) -> (Error, String) {
    let mut server = Postgres::start(options);
    let retry = RetryConfig::default().with_max_attempts(3);
    let store = PostgresUtxoStore::open(config(&server).with_retry(retry))
        .await
        .unwrap();
    let kept = coins(&store, 1, 100).await;
    disk.fill(4 << 20);
    let mut done = Vec::new();
    let mut seeds = (2..).map(|tag| TxBuilder::new(tag).pay_each(2_000, 1_000).seed(1));
    let error = loop {
        let seed = seeds.next().expect("they have no end");
        let txid = seed.txid();
        match store.create(&[seed]).await {
            Ok(_) => done.push(txid),
            Err(error) => break error,
        }
    };
    shown(&error);
    disk.make_room();
    let begun = std::time::Instant::now();
    loop {
        block_in_place(|| server.revive());
        let health = store.health(HealthDepth::Readiness).await.unwrap();
        if health.ready {
            break;
        }
        let waited = begun.elapsed();
        assert!(
            waited < Duration::from_secs(30),
            "{health:?}: {}",
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let records = store.records(&done, Fields::ALL).await.unwrap();
    for (record, txid) in records.iter().zip(&done) {
        let found = record.as_ref().map(|r| (r.txid, r.outputs.len()));
        assert_eq!(found, Some((*txid, 2_000)));
    }
    spend(&store, spender(9_999_999, kept[0])).await.unwrap();
    assert_sound(&store).await;
    (error, server.log())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing() {
    let (Some(disk), wal) = (SmallDisk::new("180m"), tempfile::tempdir().unwrap()) else {
        eprintln!("skipped: a_full_disk_loses_nothing: no right to mount a small file system");
        return;
    };
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(wal.path(), mode).unwrap();
    let options = PostgresOptions {
        folder: Some(disk.path().to_owned()),
        wal: Some(wal.path().to_owned()),
        ..PostgresOptions::default()
    };
    let (error, log) = fill_up(&disk, options).await;
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(!log.contains("PANIC"), "{log}");
}

/// The server goes down in the middle of a commit, and may not come up before there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_log_loses_nothing() {
    let Some(disk) = SmallDisk::new("60m") else {
        eprintln!(
            "skipped: a_full_disk_of_the_log_loses_nothing: no right to mount a small file system"
        );
        return;
    };
    let options = PostgresOptions {
        wal: Some(disk.path().to_owned()),
        ..PostgresOptions::default()
    };
    let (error, log) = fill_up(&disk, options).await;
    assert_ne!(error.retryability(), Retryability::Permanent, "{error:?}");
    assert!(log.contains("PANIC"), "{log}");
}

/// Up to 512 rows: read, write; more: two further ones, to begin to copy records and then outputs.
#[tokio::test(flavor = "multi_thread")]
async fn round_trips_are_those_of_the_readme() {
    let place = Place::new();
    let proxy = Proxy::to(server().port());
    let url = server().url_at(proxy.port());
    let config = place.config().with_url(url.into());
    let store = PostgresUtxoStore::open(config.with_max_batch_items(10_000))
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
    assert_eq!(counted.0, [2, 2, 4]);
    // One more where the machine takes longer for the digest than the proxy waits.
    let within = |(counted, most): (&u64, u64)| (most - 1..=most).contains(counted);
    assert!(counted.1.iter().zip([3, 3, 5]).all(within), "{counted:?}");
}

/// Somebody else creates the record while it is copied: the call finds it and says so, and what comes after
/// it on that connection gets its own answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_copy_is_nobody_elses() {
    let place = Place::new();
    let store = PostgresUtxoStore::open(place.config().with_max_connections(2))
        .await
        .unwrap();
    let coins = coins(&store, 1, 2).await;
    let kept = NewRecord::Conflicting {
        tx: spender(2, coins[1]).tx,
        fee_sat: None,
        unmined_since: 200,
    };
    store.create(std::slice::from_ref(&kept)).await.unwrap();
    let wide = TxBuilder::new(3).spend(coins[0]).pay_each(600, 1).build();
    let (txid, model) = (wide.txid, kept.txid());
    let rival = client(&server().url()).await;
    let schema = place.schema();
    let columns = "coinbase, locked, conflicting, fee_sat, size_bytes, lock_time, unmined_since, \
                   confirmed_height, preserve_until, mined_in, conflicting_children, inputs";
    let insert = format!(
        "INSERT INTO {schema}.transactions (txid, {columns})
         SELECT $1, {columns} FROM {schema}.transactions WHERE txid = $2"
    );
    rival.batch_execute("BEGIN").await.unwrap();
    rival
        .execute(
            &insert,
            &[&txid.as_bytes().as_slice(), &model.as_bytes().as_slice()],
        )
        .await
        .unwrap();
    let call = tokio::spawn({
        let store = store.clone();
        async move {
            let wide = [wide.into()];
            store.spend_and_create(&wide, &SpendOptions::at(201)).await
        }
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'COPY%'";
    // Within a transaction the view stays as it was first seen.
    let watcher = client(&server().url()).await;
    while watcher
        .query_one(waiting, &[])
        .await
        .unwrap()
        .get::<_, i64>(0)
        == 0
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rival.batch_execute("COMMIT").await.unwrap();
    let answers = call.await.unwrap().unwrap();
    assert!(answers[0].is_err(), "{answers:?}");
    for (tag, coin) in (4..).zip(&coins) {
        let new = spender(tag, *coin);
        spend(&store, new.clone()).await.unwrap();
        assert_all_there(&store, &[(*coin, new)]).await;
    }
    assert_sound(&store).await;
}

/// A standby takes over from a server that is killed under load: under synchronous replication it has all
/// that was acknowledged, and what was in doubt is looked up there.
#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_has_all_that_was_acknowledged() {
    let mut primary = Postgres::start(PostgresOptions::default());
    let standby = primary.standby();
    let admin = client(&primary.url()).await;
    for sql in [
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
        "SELECT pg_reload_conf()",
    ] {
        admin.batch_execute(sql).await.unwrap();
    }
    let begun = std::time::Instant::now();
    let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    let count = async |sql: &str| {
        let row = admin.query_one(sql, &[]).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60), "{sql}");
        row.get::<_, i64>(0)
    };
    while count(synchronous).await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        primary.port(),
        standby.port()
    );
    let config = config(&primary).with_url(url.into());
    let store = PostgresUtxoStore::open(config).await.unwrap();
    let coins = coins(&store, 1, 800).await;
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = coins
        .chunks(200)
        .zip(1..)
        .map(|(coins, task)| {
            let coins = coins.to_vec();
            tokio::spawn(load(store.clone(), coins, task * 1_000, over.clone()))
        })
        .collect();
    // In the middle of it.
    while count("SELECT count(*) FROM groundtackle.transactions").await < 100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    block_in_place(|| primary.kill());
    assert!(!tasks.iter().all(tokio::task::JoinHandle::is_finished));
    let admin = client(&standby.url()).await;
    // What a standby replays may cancel what it is asked.
    let promote = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_promote() ELSE true END";
    while let Err(error) = admin.query_one(promote, &[]).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "{error:?}");
    }
    let mut done = Vec::new();
    for task in tasks {
        done.extend(task.await.unwrap().0);
    }
    assert_eq!(done.len(), 800);
    assert_all_there(&store, &done).await;
}
