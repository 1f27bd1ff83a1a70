//! The coinbase maturity view.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use groundtackle_core::RetryConfig;
use groundtackle_testkit_servers::Proxy;
use groundtackle_utxo_store::{
    AlertStore, Applied, BlockHash, Coin, MinedIn, NewRecord, OutPoint, Retryability, Script,
    SpendOptions, SpendStore, Transaction, TxOut, Txid,
};
use groundtackle_utxo_store_postgres::PostgresUtxoStore;
use groundtackle_utxo_store_testkit::builder::TxBuilder;

use common::{Place, server};

const HOUR: Duration = Duration::from_secs(3600);

fn ours() -> Script {
    vec![0x51, 0x51].into()
}

/// A coinbase with one output of 50, mined at `height`.
async fn mint(store: &PostgresUtxoStore, height: u32, script: Script) -> OutPoint {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&height.to_le_bytes());
    bytes[4] = script.as_bytes().len() as u8;
    let tx = Transaction {
        txid: Txid::from_bytes(bytes),
        inputs: Vec::new(),
        outputs: vec![TxOut {
            value_sat: 50,
            script,
        }],
        lock_time: 0,
        size_bytes: 100,
        coinbase: true,
    };
    let mined = MinedIn {
        block: Some(BlockHash::from_bytes(bytes)),
        height,
        subtree_index: 0,
        on_longest_chain: true,
    };
    let outpoint = OutPoint::new(tx.txid, 0);
    let record = NewRecord::Coinbase { tx, mined };
    assert_eq!(store.create(&[record]).await.unwrap(), [Ok(Applied::Now)]);
    outpoint
}

fn heights(coins: &[Coin]) -> Vec<u32> {
    coins.iter().map(|coin| coin.height).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ripe_unspent_outputs_of_a_script_are_listed() {
    let _ = server();
    let place = Place::new();
    let store = PostgresUtxoStore::open(place.config()).await.unwrap();
    let mut minted = Vec::new();
    for height in 1..=5 {
        minted.push(mint(&store, height, ours()).await);
    }
    mint(&store, 1, vec![0x51].into()).await;
    let view = store.coinbase_outputs();
    let listed = async |height| heights(&view.spendable(&ours(), height, 100).await.unwrap());
    // Spendable at the height of maturity, not one later.
    assert_eq!(listed(100).await, [0; 0]);
    assert_eq!(listed(101).await, [1]);
    assert_eq!(listed(200).await, [1, 2, 3, 4, 5]);
    assert_eq!(
        heights(&view.spendable(&ours(), 200, 2).await.unwrap()),
        [1, 2]
    );
    let quick = store.coinbase_outputs().with_maturity(1);
    assert_eq!(
        heights(&quick.spendable(&ours(), 3, 9).await.unwrap()),
        [1, 2]
    );

    store.freeze(&[minted[0]]).await.unwrap();
    let spender = TxBuilder::new(9).spend(minted[1]).pay(10).build();
    let spent = store
        .spend_and_create(&[spender.into()], &SpendOptions::at(200))
        .await;
    assert_eq!(spent.unwrap(), [Ok(Applied::Now)]);
    assert_eq!(listed(200).await, [3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reservations_expire_and_are_released() {
    let place = Place::new();
    let store = PostgresUtxoStore::open(place.config()).await.unwrap();
    for height in 1..=4 {
        mint(&store, height, ours()).await;
    }
    let view = store.coinbase_outputs();
    let reserve = async |owner: &str, amount, lifetime| {
        view.reserve(owner, &ours(), 200, amount, 10, lifetime)
            .await
            .unwrap()
    };
    let first = reserve("a", 60, HOUR).await.unwrap();
    assert_eq!((heights(&first.coins), first.total_sat), (vec![1, 2], 100));
    assert_eq!(reserve("b", 101, HOUR).await, None, "all or nothing");
    let second = reserve("b", 1, Duration::from_millis(50)).await.unwrap();
    assert_eq!(heights(&second.coins), [3]);
    assert_eq!(
        heights(&view.spendable(&ours(), 200, 9).await.unwrap()),
        [4]
    );

    let outpoints: Vec<_> = first.coins.iter().map(|coin| coin.outpoint).collect();
    assert_eq!(view.release("b", &outpoints).await.unwrap(), 0, "another's");
    assert_eq!(view.release("a", &outpoints[..1]).await.unwrap(), 1);
    assert_eq!(view.release("a", &outpoints[..1]).await.unwrap(), 0);
    let free = async || heights(&view.spendable(&ours(), 200, 9).await.unwrap());
    while free().await != [1, 3, 4] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A reservation does not outlive a spend, and does not come back when the spend goes.
    let spender = TxBuilder::new(9).spend(outpoints[1]).pay(10).build();
    let txid = spender.txid;
    let spent = store
        .spend_and_create(&[spender.into()], &SpendOptions::at(200))
        .await;
    assert_eq!(spent.unwrap(), [Ok(Applied::Now)]);
    store.remove(&[txid]).await.unwrap();
    assert_eq!(free().await, [1, 2, 3, 4]);
    assert_eq!(view.tidy().await.unwrap(), 1, "one expired");
    let lifetime = Duration::ZERO;
    assert!(
        view.reserve("a", &ours(), 200, 1, 1, lifetime)
            .await
            .is_err()
    );
    assert_eq!(
        view.reserve("a", &ours(), 99, 1, 1, HOUR).await.unwrap(),
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_reservations_never_overlap() {
    let place = Place::new();
    let store = PostgresUtxoStore::open(place.config()).await.unwrap();
    for height in 1..=40 {
        mint(&store, height, ours()).await;
    }
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let view = store.coinbase_outputs();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                while let Some(reserved) = view
                    .reserve(&task.to_string(), &ours(), 200, 100, 10, HOUR)
                    .await
                    .unwrap()
                {
                    mine.extend(reserved.coins.into_iter().map(|coin| coin.outpoint));
                }
                mine
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    assert_eq!(all.len(), 40);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), 40);
}

/// Nobody is told that nothing was reserved, or released, who could not hear of it.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_leave_a_doubt() {
    let place = Place::new();
    let proxy = Proxy::to(server().port());
    let config = place
        .config()
        .with_url(server().url_at(proxy.port()).into());
    let once = RetryConfig::default().with_max_attempts(1);
    let store = PostgresUtxoStore::open(config.with_retry(once));
    let store = store.await.unwrap();
    let coin = mint(&store, 1, ours()).await;
    let view = store.coinbase_outputs();
    proxy.lose_answer_with(b"COMMIT\0");
    let error = view.reserve("a", &ours(), 200, 50, 10, HOUR).await;
    assert_eq!(
        error.unwrap_err().retryability(),
        Retryability::Indeterminate
    );
    assert_eq!(proxy.answers_lost(), 1);
    let direct = PostgresUtxoStore::open(place.config()).await.unwrap();
    let view_directly = direct.coinbase_outputs();
    let second = view_directly.reserve("b", &ours(), 200, 50, 10, HOUR).await;
    assert_eq!(second.unwrap(), None, "it was reserved");
    proxy.lose_answer_with(b"DELETE ");
    let error = view.release("a", &[coin]).await.unwrap_err();
    assert_eq!(
        error.retryability(),
        Retryability::Indeterminate,
        "{error:?}"
    );
    assert_eq!(proxy.answers_lost(), 2);
    assert_eq!(view_directly.release("a", &[coin]).await.unwrap(), 0);
}
