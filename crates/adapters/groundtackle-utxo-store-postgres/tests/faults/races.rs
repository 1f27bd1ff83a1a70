//! Calls that meet others, or arrive late.

use super::*;

/// A store whose calls give up soon, and a way to it that keeps requests back.
async fn impatient(place: &Place) -> (PostgresUtxoStore, Proxy) {
    let proxy = Proxy::to(server().port());
    let config = place
        .config()
        .with_url(server().url_at(proxy.port()).into())
        .with_lock_timeout(Duration::from_millis(200))
        .with_retry(RetryConfig::default().with_max_attempts(3));
    (PostgresUtxoStore::open(config).await.unwrap(), proxy)
}

/// Writes and commit arrive when the client has given up: it was told that nothing was applied, and
/// nothing is.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_arrives_late_changes_nothing() {
    let place = Place::new();
    let (store, proxy) = impatient(&place).await;
    let coins = coins(&store, 1, 3).await;
    // The connection has a row of calls, and one that is new has none.
    for (fresh, (tag, coin)) in [false, true].into_iter().zip((2..).zip(&coins)) {
        if fresh {
            proxy.cut(true);
            proxy.cut(false);
            store.digest().await.unwrap();
        }
        // The first request reads under locks.
        proxy.hold_back(1, b"", b"COMMIT\0");
        let error = store.freeze(&[*coin]).await.unwrap_err();
        assert_eq!(error.retryability(), Retryability::Transient, "{error:?}");
        let answers = proxy.let_go();
        let text = String::from_utf8_lossy(&answers);
        assert!(text.contains("division by zero"), "{text}");
        let state = store.output(*coin).await.unwrap().unwrap().state;
        assert_eq!(state, SlotState::Unspent);
        // Whoever has the connection's place is not fenced.
        let new = spender(tag, *coin);
        spend(&store, new.clone()).await.unwrap();
        assert_all_there(&store, &[(*coin, new)]).await;
    }
}

/// A spend holds no output until it writes: while its writes are kept back its repetition is carried out, or
/// another spender. The writes that come late find another version.
#[tokio::test(flavor = "multi_thread")]
async fn a_spend_that_arrives_late_changes_nothing() {
    let place = Place::new();
    let (store, proxy) = impatient(&place).await;
    let rival = PostgresUtxoStore::open(place.config()).await.unwrap();
    for (taken, tag) in [(false, 1), (true, 2)] {
        let coin = coins(&store, tag, 1).await[0];
        let (mine, other) = (spender(10 + tag, coin), spender(20 + tag, coin));
        proxy.hold_back(1, b"", b"COMMIT\0");
        let call = tokio::spawn({
            let (store, batch) = (store.clone(), [mine.clone()]);
            async move { store.spend_and_create(&batch, &SpendOptions::at(201)).await }
        });
        if taken {
            spend(&rival, other.clone()).await.unwrap();
        }
        let answer = call.await.unwrap().unwrap().remove(0);
        let winner = if taken { other } else { mine };
        match answer {
            Ok(Applied::Now) if !taken => {}
            Err(Verdict::AlreadySpent { by, .. }) if taken => assert_eq!(by.txid, winner.tx.txid),
            other => panic!("{other:?}"),
        }
        let answers = proxy.let_go();
        let text = String::from_utf8_lossy(&answers);
        assert!(text.contains("division by zero"), "{text}");
        assert_all_there(&store, &[(coin, winner)]).await;
    }
}

/// An output that a call has read is changed by somebody else before the call writes: it waits for them, and
/// judges anew if they have done it. Small calls and copied ones, transactions and blocks.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_after_it_was_read_is_read_again() {
    for partitions in [0, 3] {
        read_again(partitions).await;
    }
}

async fn read_again(partitions: u32) {
    let place = Place::new();
    let url = format!("{}?application_name={}", server().url(), place.schema());
    let config = place.config().with_url(url.into()).with_max_connections(2);
    let config = config.with_partitions(partitions);
    let store = PostgresUtxoStore::open(config).await.unwrap();
    store.set_tip(&tip()).await.unwrap();
    let rival = client(&server().url()).await;
    let schema = place.schema();
    let freeze = format!("UPDATE {schema}.outputs SET frozen = true WHERE txid = $1 AND vout = $2");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1";
    let mut tags = 1_u64..;
    let mut tag = || tags.next().unwrap();
    for outputs in [1, 600] {
        for (in_block, done) in [(false, true), (false, false), (true, true), (true, false)] {
            let coins = coins(&store, tag(), 3).await;
            let tx = TxBuilder::new(tag())
                .spend_all(coins.clone())
                .pay_each(outputs, 1)
                .build();
            let by = tx.txid;
            rival.batch_execute("BEGIN").await.unwrap();
            let values = (
                coins[1].txid.as_bytes().as_slice(),
                i64::from(coins[1].vout),
            );
            rival
                .execute(&freeze, &[&values.0, &values.1])
                .await
                .unwrap();
            let block = BlockBuilder::after(store.tip().await.unwrap())
                .with(&[&tx])
                .build();
            let call = tokio::spawn({
                let store = store.clone();
                async move {
                    if in_block {
                        return store.connect_block(&block).await.unwrap().map(drop);
                    }
                    let batch = [tx.into()];
                    let answers = store.spend_and_create(&batch, &SpendOptions::at(201)).await;
                    answers.unwrap().remove(0).map(drop)
                }
            });
            let waits = async || {
                let row = rival.query_one(waiting, &[&schema]).await.unwrap();
                row.get::<_, i64>(0) > 0
            };
            while !waits().await {
                assert!(!call.is_finished(), "it did not wait");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let end = if done { "COMMIT" } else { "ROLLBACK" };
            rival.batch_execute(end).await.unwrap();
            let frozen = Verdict::Frozen { outpoint: coins[1] };
            match call.await.unwrap() {
                Ok(()) if !done => {}
                Err(Verdict::InBlock { verdict, .. }) if done && in_block => {
                    assert_eq!(*verdict, frozen)
                }
                Err(verdict) if done && !in_block => assert_eq!(verdict, frozen),
                other => panic!("{outputs} outputs, block {in_block}, done {done}: {other:?}"),
            }
            assert_eq!(store.record(by).await.unwrap().is_some(), !done);
            for coin in coins {
                let state = store.output(coin).await.unwrap().unwrap().state;
                let spent = matches!(state, SlotState::Spent(found) if found.txid == by);
                assert_eq!(spent, !done, "{state:?}");
            }
            assert_sound(&store).await;
        }
    }
}

/// Calls that want the same outputs in another order, alone and in blocks, and freezes of them: whoever waits
/// for another is not waited for by it.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_in_a_circle() {
    for partitions in [0, 3] {
        no_circle(partitions).await;
    }
}

async fn no_circle(partitions: u32) {
    let server = Postgres::start(PostgresOptions::default());
    let config = config(&server).with_partitions(partitions);
    let store = PostgresUtxoStore::open(config).await.unwrap();
    store.set_tip(&tip()).await.unwrap();
    for round in 0..24_u64 {
        // Of several transactions, so in several partitions.
        let seeds: Vec<_> = (0..10)
            .map(|seed| TxBuilder::new(100 * (1 + round) + seed))
            .map(|seed| seed.pay_each(4, 1_000).seed(1))
            .collect();
        let outpoints = |txid| (0..4).map(move |vout| OutPoint::new(txid, vout));
        let coins: Vec<_> = seeds.iter().flat_map(|s| outpoints(s.txid())).collect();
        store.create(&seeds).await.unwrap();
        let spends: Vec<_> = (10_000 * (1 + round)..)
            .zip(&coins)
            .map(|(tag, coin)| TxBuilder::new(tag).spend(*coin).pay_each(16, 1).build())
            .collect();
        let mut tasks = Vec::new();
        for task in 0..4_usize {
            let (store, coins, mut mine) = (store.clone(), coins.clone(), spends.clone());
            mine.rotate_left(10 * task);
            if task % 2 == 1 {
                mine.reverse();
            }
            tasks.push(tokio::spawn(async move {
                match task {
                    0 => {
                        let block = BlockBuilder::after(store.tip().await.unwrap());
                        let block = block.with(&mine.iter().collect::<Vec<_>>()).build();
                        drop(store.connect_block(&block).await.unwrap());
                    }
                    1 => {
                        store.freeze(&coins).await.unwrap();
                        store.unfreeze(&coins).await.unwrap();
                    }
                    _ => {
                        let batch: Vec<_> = mine.into_iter().map(Into::into).collect();
                        let answers = store.spend_and_create(&batch, &SpendOptions::at(201)).await;
                        drop(answers.unwrap());
                    }
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    }
    assert!(
        !server.log().contains("deadlock detected"),
        "{}",
        server.log()
    );
    assert_sound(&store).await;
}

/// Until the query counts something. Asked outside of transactions: within one the server's views stay as they
/// were first seen.
async fn until_there(watcher: &Client, query: &str, name: &str) {
    let begun = std::time::Instant::now();
    let count = async || {
        let row = watcher.query_one(query, &[&name]).await.unwrap();
        row.get::<_, i64>(0)
    };
    while count().await == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{query}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A block finds an output spent by one of its own transactions whose record was not there just before, and is
/// not there any more when it looks again. That one was not pruned, but created and removed: the block is good.
#[tokio::test(flavor = "multi_thread")]
async fn a_spender_that_comes_and_goes_refuses_no_block() {
    let place = Place::new();
    let proxy = Proxy::to(server().port());
    let url = format!(
        "{}?application_name={}",
        server().url_at(proxy.port()),
        place.schema()
    );
    let store = PostgresUtxoStore::open(place.config().with_url(url.into()))
        .await
        .unwrap();
    let others = PostgresUtxoStore::open(place.config()).await.unwrap();
    store.set_tip(&tip()).await.unwrap();
    let coins = coins(&store, 1, 3).await;
    let (known, fleeting) = (spender(2, coins[0]), spender(3, coins[1]));
    spend(&others, known.clone()).await.unwrap();
    // After a block of a transaction that was there, those of the next are not taken to be new.
    let there = spender(4, coins[2]);
    spend(&others, there.clone()).await.unwrap();
    let before = BlockBuilder::after(Some(tip())).with(&[&there.tx]).build();
    store.connect_block(&before).await.unwrap().unwrap();

    // The block has read that there is no such record, and waits for the other one.
    let rival = client(&server().url()).await;
    rival.batch_execute("BEGIN").await.unwrap();
    let lock = format!(
        "SELECT FROM {}.transactions WHERE txid = $1 FOR UPDATE",
        place.schema()
    );
    let txid = known.tx.txid;
    let locked = rival.query(&lock, &[&txid.as_bytes().as_slice()]).await;
    assert_eq!(locked.unwrap().len(), 1);
    proxy.pause(1, b"");
    let block = BlockBuilder::after(Some(tip_of(&before)))
        .with(&[&known.tx, &fleeting.tx])
        .build();
    let call = tokio::spawn({
        let store = store.clone();
        async move { store.connect_block(&block).await }
    });
    let watcher = client(&server().url()).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1";
    until_there(&watcher, waits, place.schema()).await;
    spend(&others, fleeting.clone()).await.unwrap();
    rival.batch_execute("ROLLBACK").await.unwrap();
    // It has read the outputs, and what it asks next is kept back.
    block_in_place(|| proxy.is_paused());
    let has_read = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' \
                    AND query LIKE '%AS a (txid, vout)%' AND application_name = $1";
    until_there(&watcher, has_read, place.schema()).await;
    let removed = others.remove(&[fleeting.tx.txid]).await.unwrap();
    assert_eq!(removed, [Ok(Applied::Now)]);
    block_in_place(|| proxy.go_on());

    let connected = call.await.unwrap().unwrap().unwrap();
    assert_eq!(connected.spent.len(), 2);
    assert_all_there(&store, &[(coins[0], known), (coins[1], fleeting)]).await;
}

/// A transaction has the number of the one that wrote an output 2^32 transactions ago: the output looks as it
/// was seen, though this one has changed it.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_comes_again_gives_nothing_away() {
    let place = Place::new();
    let proxy = Proxy::to(server().port());
    let url = server().url_at(proxy.port());
    let store = PostgresUtxoStore::open(place.config().with_url(url.into()))
        .await
        .unwrap();
    store.set_tip(&tip()).await.unwrap();
    let schema = place.schema();
    let rival = client(&server().url()).await;
    let number = async |sql: &str| {
        let row = rival.query_one(sql, &[]).await.unwrap();
        u32::try_from(row.get::<_, i64>(0)).unwrap().to_be_bytes()
    };
    let mut tags = 1_u64..;
    let mut tag = || tags.next().unwrap();
    for change in ["frozen = true", "spent_by = sha256(txid), spent_vin = 0"] {
        for (outputs, in_block) in [(1, false), (600, false), (1, true), (600, true)] {
            // One connection is kept back once.
            proxy.cut(true);
            proxy.cut(false);
            let coin = coins(&store, tag(), 1).await[0];
            let tx = TxBuilder::new(tag()).spend(coin).pay_each(outputs, 1);
            let tx = tx.build();
            let (by, previous) = (tx.txid, store.tip().await.unwrap());
            let txid = coin.txid.as_bytes();
            let hex: String = txid.iter().map(|byte| format!("{byte:02x}")).collect();
            let (table, of_coin) = (
                format!("{schema}.outputs"),
                format!("WHERE txid = '\\x{hex}'"),
            );
            let read = format!("SELECT xmin::text::bigint FROM {table} {of_coin}");
            let seen = number(&read).await;
            rival.batch_execute("BEGIN").await.unwrap();
            let later = number("SELECT txid_current() & 4294967295").await;
            // An array's element with its length.
            let element = |number: [u8; 4]| [[0, 0, 0, 4], number].concat();
            let (seen, later) = (element(seen), element(later));
            proxy.rewrite(move |way, bytes| {
                let mut bytes = bytes.to_vec();
                let at = bytes.windows(8).position(|found| found == seen);
                if let Some(at) = at.filter(|_| way == Way::Request) {
                    bytes[at..at + 8].copy_from_slice(&later);
                }
                bytes
            });
            proxy.pause(1, b"");
            let call = tokio::spawn({
                let store = store.clone();
                async move {
                    if in_block {
                        let block = BlockBuilder::after(previous).with(&[&tx]).build();
                        return store.connect_block(&block).await.unwrap().map(drop);
                    }
                    let batch = [tx.into()];
                    let answers = store.spend_and_create(&batch, &SpendOptions::at(201)).await;
                    answers.unwrap().remove(0).map(drop)
                }
            });
            block_in_place(|| proxy.is_paused());
            let set = format!("UPDATE {table} SET {change} {of_coin}");
            rival.batch_execute(&set).await.unwrap();
            rival.batch_execute("COMMIT").await.unwrap();
            block_in_place(|| proxy.go_on());
            let refused = match call.await.unwrap() {
                Err(Verdict::InBlock { verdict, .. }) if in_block => *verdict,
                Err(verdict) => verdict,
                Ok(()) => panic!("{change}, {outputs} outputs, block {in_block}"),
            };
            let as_it_is = match refused {
                Verdict::Frozen { outpoint } => change.contains("frozen") && outpoint == coin,
                Verdict::AlreadySpent { outpoint, .. } => {
                    change.contains("spent") && outpoint == coin
                }
                _ => false,
            };
            assert!(as_it_is, "{refused:?}");
            assert_eq!(store.record(by).await.unwrap(), None);
        }
    }
}

/// What is sent behind a statement that fails is refused as well. That refusal, if it is read first, does not
/// tell why: the call is done again.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_behind_a_failure_is_not_the_reason() {
    let place = Place::new();
    let proxy = Proxy::to(server().port());
    let url = server().url_at(proxy.port());
    let store = PostgresUtxoStore::open(place.config().with_url(url.into()))
        .await
        .unwrap();
    let others = PostgresUtxoStore::open(place.config()).await.unwrap();
    let coin = coins(&store, 1, 1).await[0];
    proxy.rewrite(|way, bytes| {
        let mut bytes = bytes.to_vec();
        let (failed, behind) = (b"C22012", b"C25P02");
        let at = bytes.windows(6).position(|found| found == failed);
        if let Some(at) = at.filter(|_| way == Way::Answer) {
            bytes[at..at + 6].copy_from_slice(behind);
        }
        bytes
    });
    proxy.pause(1, b"");
    let call = tokio::spawn({
        let (store, batch) = (store.clone(), [spender(2, coin)]);
        async move { store.spend_and_create(&batch, &SpendOptions::at(201)).await }
    });
    block_in_place(|| proxy.is_paused());
    others.freeze(&[coin]).await.unwrap();
    block_in_place(|| proxy.go_on());
    let answers = call.await.unwrap().unwrap();
    assert_eq!(answers, [Err(Verdict::Frozen { outpoint: coin })]);
}

/// The commit alone arrives late: until then nobody can know.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_late_is_indeterminate() {
    let place = Place::new();
    let (store, proxy) = impatient(&place).await;
    let coin = coins(&store, 1, 1).await[0];
    let new = spender(2, coin);
    proxy.hold_back(1, b"Q\0\0\0\x0bCOMMIT\0", b"COMMIT\0");
    let error = spend(&store, new.clone()).await.unwrap_err();
    assert_eq!(
        error.retryability(),
        Retryability::Indeterminate,
        "{error:?}"
    );
    let answers = proxy.let_go();
    assert!(answers.windows(7).any(|word| word == b"COMMIT\0"));
    assert_all_there(&store, &[(coin, new)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_others_ends() {
    let place = Place::new();
    let config = place
        .config()
        .with_lock_timeout(Duration::from_millis(200))
        .with_statement_timeout(Duration::from_secs(2));
    let store = PostgresUtxoStore::open(config.clone()).await.unwrap();
    let coins = coins(&store, 1, 1).await;
    let rival = client(&server().url()).await;
    rival
        .batch_execute(&format!(
            "BEGIN; SELECT FROM {}.transactions FOR UPDATE",
            place.schema()
        ))
        .await
        .unwrap();
    let error = spend(&store, spender(2, coins[0])).await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }), "{error:?}");

    let patient = config
        .with_lock_timeout(Duration::from_secs(5))
        .with_statement_timeout(Duration::from_millis(300));
    let patient = PostgresUtxoStore::open(patient).await.unwrap();
    let error = spend(&patient, spender(2, coins[0])).await.unwrap_err();
    assert_eq!(error.retryability(), Retryability::Transient, "{error:?}");
    assert!(error.to_string().contains("statement_timeout"), "{error}");
    rival.batch_execute("ROLLBACK").await.unwrap();
    spend(&store, spender(2, coins[0])).await.unwrap();
    spend(&patient, spender(2, coins[0])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_lets_others_go_on() {
    let place = Place::new();
    let store = PostgresUtxoStore::open(place.config()).await.unwrap();
    let coins = coins(&store, 1, 1).await;
    let rival = client(&server().url()).await;
    rival
        .batch_execute(&format!(
            "BEGIN; SELECT FROM {}.transactions FOR UPDATE",
            place.schema()
        ))
        .await
        .unwrap();
    let call = spend(&store, spender(2, coins[0]));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), call)
            .await
            .is_err()
    );
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    // Told to stop, though the rival still holds what it waits for.
    let begun = std::time::Instant::now();
    while rival
        .query_one(waiting, &[])
        .await
        .unwrap()
        .get::<_, i64>(0)
        > 0
    {
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "the server still waits"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rival.batch_execute("ROLLBACK").await.unwrap();
    spend(&store, spender(3, coins[0])).await.unwrap();
}
