//! `MaintenanceStore`, `Capabilities`, restarts and dropped calls.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use groundtackle_utxo_store::{
    Error, Fields, HealthDepth, NewTransaction, Recovered, SlotState, SpendOptions, Txid, Verdict,
};
use tokio::task::JoinSet;

use super::{BEFORE, NOW, spender, spent};
use crate::builder::{TxBuilder, out};
use crate::harness::{Subject, all, one};

/// `recover`: "Run it at start; twice, or beside live traffic, is safe. Idempotency: yes." On a
/// store that nothing interrupted it has nothing to do.
pub(crate) async fn recovery_is_safe_at_any_time(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 40).await;
    store.mine(&[&spender(2, coins[0]).build()]).await;
    store.accept(spender(3, coins[1])).await;
    let before = store.state().await;
    for _ in 0..2 {
        assert_eq!(all(store.recover().await), Recovered::default());
    }
    before.assert_still(&store.state().await);

    let mut tasks = JoinSet::new();
    for n in 0..4 {
        let store = store.share();
        let coins = coins[10 * n..10 * n + 10].to_vec();
        tasks.spawn(async move {
            for (tag, coin) in (100 * (n as u64 + 1)..).zip(coins.iter().skip(2)) {
                let parent = spender(tag, *coin).build();
                let child = spender(1_000 + tag, out(&parent, 0)).build();
                let family = [parent.into(), child.into()];
                let answer = store
                    .spend_and_create(&family, &SpendOptions::at(202))
                    .await;
                assert_eq!(all(answer), [NOW, NOW]);
                all(store.recover().await);
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(store.state().await.unmined.len(), 1 + 4 * 8 * 2);
}

/// `health`: "How well the store is, with reasons"; `ready`: "Whether reads and writes are expected
/// to succeed". `flush`: "Waits until all that was acknowledged is durable. Idempotency: yes."
pub(crate) async fn a_healthy_store_says_so(store: Subject) {
    for depth in [HealthDepth::Liveness, HealthDepth::Readiness] {
        let health = all(store.health(depth).await);
        assert!(health.ready, "{:?}", health.reasons);
    }
    store.accept(spender(2, store.coin(1).await)).await;
    all(store.flush().await);
    all(store.flush().await);
    store.accept(spender(4, store.coin(3).await)).await;
}

/// `Capabilities::persistent`: "What was acknowledged outlives the process": records, marks, tip,
/// the set, its digest, and what a block needs to be taken back.
pub(crate) async fn everything_outlives_a_restart(mut store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 8).await;
    let before_block = store.state().await;
    let tx = spender(2, coins[0]).build();
    let block = store.mine(&[&tx, &spender(3, out(&tx, 0)).build()]).await;
    let after_block = store.state().await;
    store.reopen().await;
    after_block.assert_still(&store.state().await);
    store.disconnect(&block).await.expect("it is the tip");
    before_block.assert_still(&store.state().await);
    assert!(store.connect(&block).await.is_ok());

    let unmined = store.accept(spender(4, coins[1])).await;
    let lost = store.accept(spender(5, coins[2])).await;
    all(store.mark_conflicting(&[lost.txid]).await);
    all(store.set_locked(&[unmined.txid], true).await);
    all(store.preserve(&[unmined.txid], 900).await);
    all(store.freeze(&[coins[3], coins[4]]).await);
    store.reassign_to(coins[4], 300).await;
    all(store.prune(201).await);
    let before = store.state().await;
    for _ in 0..2 {
        store.reopen().await;
        before.assert_still(&store.state().await);
    }
    assert_eq!(store.submit(&unmined).await, BEFORE);
}

/// `Capabilities::max_batch_items`: "Items that one call may carry; larger calls are an error." One
/// that nothing was applied of.
pub(crate) async fn larger_batches_are_an_error(store: Subject) {
    let most = store.capabilities().max_batch_items.expect("a need");
    let txids = vec![Txid::from_bytes([9; 32]); most];
    assert_eq!(
        all(store.records(&txids, Fields::META).await),
        vec![None; most]
    );
    let before = store.state().await;
    let coins = store.coins(1, 1).await;
    let new = NewTransaction::from(spender(2, coins[0]).build());
    let answer = store
        .spend_and_create(&vec![new; most + 1], &SpendOptions::at(1))
        .await;
    assert!(
        matches!(answer, Err(Error::InvalidRequest { .. })),
        "{answer:?}"
    );
    let answer = store.records(&vec![txids[0]; most + 1], Fields::META).await;
    assert!(
        matches!(answer, Err(Error::InvalidRequest { .. })),
        "{answer:?}"
    );
    assert_eq!(store.slot(coins[0]).await, SlotState::Unspent);
    assert_eq!(store.state().await.unmined, before.unmined);
}

/// Polls a call at most `polls` times and then drops it, as a timeout does.
pub(crate) async fn dropped_after<T>(polls: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    for _ in 0..polls {
        if let Poll::Ready(answer) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(answer);
        }
        // Others get on with the call's work.
        tokio::task::yield_now().await;
    }
    None
}

/// "Cancel safety: a dropped call leaves each transaction done or undone; repeat it." Here a rival
/// finds out which: it gets both outputs or neither.
pub(crate) async fn a_dropped_spend_is_done_or_undone(store: Subject) {
    for polls in 0..12 {
        let coins = store.coins(1_000 + polls as u64, 2).await;
        let tx = TxBuilder::new(1).spend_all(coins.clone()).pay(5).build();
        let new = [NewTransaction::from(tx.clone())];
        dropped_after(polls, store.spend_and_create(&new, &SpendOptions::at(1))).await;
        let rivals: Vec<_> = (2..)
            .zip(&coins)
            .map(|(tag, coin)| spender(tag, *coin).build())
            .collect();
        let [first, second] = &rivals[..] else {
            unreachable!("two coins");
        };
        let answer = store.submit(first).await;
        if answer == NOW {
            // Undone, and now it stays so.
            let refused = matches!(store.submit(&tx).await, Err(Verdict::AlreadySpent { outpoint, .. }) if outpoint == coins[0]);
            assert!(refused);
            assert_eq!(store.submit(second).await, NOW);
            assert_eq!(store.find_record(tx.txid).await, None);
        } else {
            assert_eq!(store.submit(&tx).await, BEFORE);
            for (vin, coin) in (0..).zip(&coins) {
                assert_eq!(store.slot(*coin).await, spent(&tx, vin));
            }
        }
    }
}

/// "Cancel safety: repeat the call", for a block, its way back, a cascade, a removal and a prune:
/// whatever a dropped call left, its repetition leaves what an undisturbed one would have.
pub(crate) async fn dropped_calls_can_be_repeated(store: Subject) {
    for polls in 0..6 {
        let disturbed = store.another().await;
        let calm = store.another().await;
        let mut states = Vec::new();
        for (subject, polls) in [(&disturbed, polls), (&calm, 0)] {
            let mut seen = Vec::new();
            subject.begin_chain().await;
            let coins = subject.coins(1, 3).await;
            let root = subject.accept(spender(2, coins[0])).await;
            let child = subject.accept(spender(3, out(&root, 0))).await;
            let other = spender(4, coins[1]).build();
            let block = subject.next_block().await.with(&[&root, &other]).build();
            block
                .transactions
                .iter()
                .for_each(|tx| subject.note(tx.txid));
            dropped_after(polls, subject.connect_block(&block)).await;
            subject.connect(&block).await.expect("the block is good");
            seen.push(subject.state().await);
            let back = subject.disconnect_block(&block.hash, &block.previous);
            dropped_after(polls, back).await;
            subject
                .disconnect(&block)
                .await
                .expect("it is, or was, the tip");
            seen.push(subject.state().await);
            dropped_after(polls, subject.mark_conflicting(&[root.txid])).await;
            let cascade = one(subject.mark_conflicting(&[root.txid]).await);
            assert_eq!(cascade, Ok(vec![root.txid, child.txid]));
            seen.push(subject.state().await);
            dropped_after(polls, subject.unspend(&[child.txid, root.txid])).await;
            all(subject.unspend(&[child.txid, root.txid]).await);
            dropped_after(polls, subject.remove(&[child.txid])).await;
            all(subject.remove(&[child.txid]).await);
            seen.push(subject.state().await);
            subject.mine(&[&other]).await;
            dropped_after(polls, subject.prune(201)).await;
            all(subject.prune(201).await);
            seen.push(subject.state().await);
            states.push(seen);
        }
        for (disturbed, calm) in states[0].iter().zip(&states[1]) {
            calm.assert_still(disturbed);
        }
    }
}
