//! What went wrong in the field; each case carries the incident's name.

use groundtackle_utxo_store::{
    Applied, COINBASE_MATURITY, NewTransaction, OutPoint, SlotState, SpendOptions, Txid, Verdict,
};
use tokio::task::JoinSet;

use super::{BEFORE, by, spender, spent};
use crate::builder::{TxBuilder, out};
use crate::differential::Differential;
use crate::harness::{Subject, all, one};

/// "A later spender in another batch overwrote the first." Across batches and across tasks: of many
/// that want one output exactly one gets it, and all others are told who.
pub(crate) async fn first_seen(store: Subject) {
    let coin = store.coin(1).await;
    let first = store.accept(spender(2, coin)).await;
    let refused = Verdict::AlreadySpent {
        outpoint: coin,
        by: by(&first, 0),
    };
    for tag in 3..6 {
        let later = TxBuilder::new(tag).spend(coin).pay(999).build();
        assert_eq!(store.submit(&later).await, Err(refused.clone()));
        assert_eq!(store.slot(coin).await, spent(&first, 0));
    }

    for round in 0..8 {
        let coins = store.coins(100 + round, 4).await;
        let mut tasks = JoinSet::new();
        for rival in 0..8 {
            // In another order for each, so that stores which hold inputs one by one meet.
            let mut wanted = coins.clone();
            wanted.rotate_left(rival as usize % coins.len());
            let builder = TxBuilder::new(1_000 + round * 100 + rival).spend_all(wanted);
            let (tx, store) = (builder.pay(1).build(), store.share());
            tasks.spawn(async move {
                let new = NewTransaction::from(tx.clone());
                let answer = store.spend_and_create(&[new], &SpendOptions::at(1)).await;
                (tx, one(answer))
            });
        }
        let answers = tasks.join_all().await;
        let winners: Vec<_> = answers
            .iter()
            .filter(|(_, answer)| *answer == Ok(Applied::Now))
            .collect();
        let [(winner, _)] = winners[..] else {
            panic!("one winner, not {answers:?}");
        };
        for (tx, answer) in &answers {
            if tx.txid != winner.txid {
                let told = matches!(answer, Err(Verdict::AlreadySpent { by, .. })
                    if by.txid == winner.txid);
                assert!(told, "{answer:?} should name {}", winner.txid);
                assert_eq!(store.find_record(tx.txid).await, None);
            }
        }
        for coin in &coins {
            let SlotState::Spent(by) = store.slot(*coin).await else {
                panic!("{coin} should be spent");
            };
            assert_eq!(by.txid, winner.txid);
        }
    }
}

/// "The same spend repeated counted twice, so the record was never pruned."
pub(crate) async fn idempotent_respend(store: Subject) {
    let tip = store.begin_chain().await;
    let coins = store.coins(1, 2).await;
    let tx = store
        .accept(TxBuilder::new(2).spend_all(coins.clone()).pay(5))
        .await;
    for _ in 0..3 {
        assert_eq!(store.submit(&tx).await, Ok(Applied::Before));
        assert_eq!(store.submit_all(&[&tx, &tx]).await, [BEFORE; 2]);
    }
    store.mine(&[&tx]).await;
    let pruned = all(store.prune(tip.height + 1).await);
    assert_eq!(pruned.records, 1, "the parent is fully spent");
    assert_eq!(store.find_record(coins[0].txid).await, None);
}

/// "Backends disagreed by one block on when a frozen or immature output may be spent." An output is
/// spendable **at** the height named, by a transaction and by a block.
pub(crate) async fn half_open_heights(store: Subject) {
    // The next block is 201.
    store.begin_chain().await;
    let ripening = async |height: u32| {
        let record = TxBuilder::coinbase(1_000).seed(height - COINBASE_MATURITY);
        let outpoint = OutPoint::new(record.txid(), 0);
        assert_eq!(store.put(record).await, Ok(Applied::Now));
        outpoint
    };
    let early_reassigned = store.reassigned_coin(10, 202).await;
    let early_coinbase = ripening(202).await;
    let waits = Verdict::FrozenUntil {
        outpoint: early_reassigned,
        height: 202,
    };
    let immature = Verdict::Immature {
        outpoint: early_coinbase,
        spendable_at: Some(202),
    };
    let reassigned_spender = spender(1, early_reassigned).build();
    let coinbase_spender = spender(2, early_coinbase).build();
    for (tx, verdict) in [
        (&reassigned_spender, &waits),
        (&coinbase_spender, &immature),
    ] {
        assert_eq!(store.submit(tx).await, Err(verdict.clone()));
        let block = store.next_block().await.with(&[tx]).build();
        let refused = Verdict::InBlock {
            block: block.hash,
            txid: tx.txid,
            verdict: Box::new(verdict.clone()),
        };
        assert_eq!(store.connect(&block).await, Err(refused));
    }
    store.mine(&[]).await;
    // The next block is 202.
    assert_eq!(store.submit(&reassigned_spender).await, Ok(Applied::Now));
    assert_eq!(store.submit(&coinbase_spender).await, Ok(Applied::Now));
    let by_block = spender(3, store.reassigned_coin(11, 202).await).build();
    store
        .mine(&[&by_block, &reassigned_spender, &coinbase_spender])
        .await;
}

/// "Some inputs were spent, a later one failed: parents named a spender that never existed, and
/// nodes wedged for good." Also while others want the same outputs.
pub(crate) async fn no_recordless_spender(store: Subject) {
    let coins = store.coins(1, 4).await;
    let missing = OutPoint::new(Txid::from_bytes([9; 32]), 0);
    let builder = TxBuilder::new(2).spend_all(coins.clone()).spend(missing);
    let failing = builder.pay(1).build();
    let mut tasks = JoinSet::new();
    for rival in 0..8 {
        let store = store.share();
        let tx = if rival % 2 == 0 {
            failing.clone()
        } else {
            let coin = coins[rival / 2 % coins.len()];
            spender(100 + rival as u64, coin).build()
        };
        tasks.spawn(async move {
            for _ in 0..16 {
                let new = NewTransaction::from(tx.clone());
                one(store.spend_and_create(&[new], &SpendOptions::at(1)).await).ok();
            }
        });
    }
    tasks.join_all().await;
    all(store.recover().await);
    assert_eq!(store.find_record(failing.txid).await, None);
    for coin in coins {
        let SlotState::Spent(by) = store.slot(coin).await else {
            panic!("{coin} has a spender that does not fail");
        };
        store.whole_record(by.txid).await;
    }
}

/// "The error named the spender, not the missing parent: nine hours to find."
pub(crate) async fn names_the_culprit(store: Subject) {
    store.begin_chain().await;
    let good = store.coin(1).await;
    let culprit = OutPoint::new(Txid::from_bytes([9; 32]), 17);
    let tx = TxBuilder::new(2).spend(good).spend(culprit).build();
    let verdict = Verdict::MissingTransaction { outpoint: culprit };
    let answer = store.submit(&tx).await.expect_err("the parent is missing");
    assert_eq!(answer, verdict);
    assert!(answer.to_string().contains(&culprit.to_string()));

    let fine = spender(3, out(&store.accept(spender(4, good)).await, 0)).build();
    let block = store.next_block().await.with(&[&tx, &fine]).build();
    let answer = store.connect(&block).await;
    let refused = Verdict::InBlock {
        block: block.hash,
        txid: tx.txid,
        verdict: Box::new(Verdict::AlreadySpent {
            outpoint: good,
            by: by(&spender(4, good).build(), 0),
        }),
    };
    assert_eq!(answer, Err(refused), "the first faulty input decides");
    let orphan = TxBuilder::new(5).spend(culprit).build();
    let block = store.next_block().await.with(&[&orphan]).build();
    let refused = Verdict::InBlock {
        block: block.hash,
        txid: orphan.txid,
        verdict: Box::new(verdict),
    };
    assert_eq!(store.connect(&block).await, Err(refused));
}

/// "Two backends, two behaviours: one sequence of operations run into all of them, state and verdict
/// compared after every step." See [`differential`](crate::differential).
pub(crate) async fn backends_agree(store: Subject) {
    let coverage = Differential::of(&store).run();
    println!("{coverage}");
}
