//! Many tasks at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use groundtackle_utxo_store::{
    Applied, Fields, NewTransaction, OutPoint, SlotState, SpendOptions, SpentBy, Txid, UtxoStore,
    Verdict,
};
use tokio::task::JoinSet;

use super::spender;
use crate::harness::{Subject, all};

const COINS: u32 = 24;
const SPENDERS: u64 = 16;

/// What readers saw of each output.
type Seen = BTreeMap<OutPoint, BTreeSet<SpentBy>>;

/// "First seen wins, across batches and tasks: of many that want one output exactly one gets it."
/// Around them outputs are frozen and thawed and records pruned; readers never see a spender that did
/// not win, nor one without a record.
pub(crate) async fn exactly_one_of_many_spenders_wins(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, COINS).await;
    let tag = |task: u64, coin: usize| 1_000 * (task + 1) + coin as u64;

    let mut spenders = JoinSet::new();
    for task in 0..SPENDERS {
        let (store, coins) = (store.share(), coins.clone());
        spenders.spawn(async move {
            let mut won = Vec::new();
            // Each begins elsewhere, so that each coin is wanted by several at the same time.
            for step in 0..coins.len() {
                let at = (step + task as usize * 3) % coins.len();
                let tx = spender(tag(task, at), coins[at]).build();
                let by = SpentBy {
                    txid: tx.txid,
                    vin: 0,
                };
                let batch = [NewTransaction::from(tx)];
                loop {
                    let answers = all(store.spend_and_create(&batch, &SpendOptions::at(201)).await);
                    match &answers[..] {
                        [Ok(Applied::Now)] => won.push((coins[at], by)),
                        [
                            Err(Verdict::AlreadySpent {
                                outpoint,
                                by: winner,
                            }),
                        ] => {
                            assert_eq!(*outpoint, coins[at]);
                            assert_ne!(*winner, by);
                        }
                        [Err(Verdict::Frozen { outpoint })] => {
                            assert_eq!(*outpoint, coins[at]);
                            tokio::task::yield_now().await;
                            continue;
                        }
                        other => panic!("{other:?}"),
                    }
                    break;
                }
            }
            won
        });
    }

    let over = Arc::new(AtomicBool::new(false));
    let mut others = JoinSet::new();
    for task in 0..2 {
        let (store, coins, over) = (store.share(), coins.clone(), over.clone());
        others.spawn(async move {
            let mut seen = Seen::new();
            while !over.load(Ordering::Acquire) {
                let mine: Vec<_> = coins.iter().skip(task).step_by(2).copied().collect();
                all(store.freeze(&mine).await);
                read(&*store, &coins, &mut seen).await;
                all(store.unfreeze(&mine).await);
                all(store.prune(200).await);
                tokio::task::yield_now().await;
            }
            read(&*store, &coins, &mut seen).await;
            seen
        });
    }

    let won: Vec<_> = spenders.join_all().await.concat();
    over.store(true, Ordering::Release);
    let seen = others.join_all().await;

    let winners: BTreeMap<OutPoint, SpentBy> = won.iter().copied().collect();
    assert_eq!(won.len(), COINS as usize, "one winner for each output");
    assert_eq!(winners.len(), COINS as usize, "one output for each winner");
    for (outpoint, spenders) in seen.iter().flatten() {
        let winner = BTreeSet::from([winners[outpoint]]);
        assert_eq!(*spenders, winner, "{outpoint} was seen in other hands");
    }
    for (outpoint, by) in winners {
        assert_eq!(store.slot(outpoint).await, SlotState::Spent(by));
    }
}

/// Notes who holds each output, and that the holder has a record.
async fn read(store: &dyn UtxoStore, coins: &[OutPoint], seen: &mut Seen) {
    for view in all(store.outputs(coins).await) {
        let view = view.expect("the output is there");
        if let SlotState::Spent(by) = view.state {
            seen.entry(view.outpoint).or_default().insert(by);
        }
    }
    let spenders: Vec<Txid> = seen.values().flatten().map(|by| by.txid).collect();
    for record in all(store.records(&spenders, Fields::META).await) {
        assert!(record.is_some(), "a spender without a record");
    }
}
