//! Many tasks at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use groundtackle_utxo_store::{
    Applied, Error, Fields, NewTransaction, OutPoint, SlotState, SpendOptions, SpentBy, Txid,
    UtxoStore, Verdict,
};
use tokio::task::JoinSet;

use super::{NOW, spender};
use crate::builder::TxBuilder;
use crate::harness::{Subject, all, one};
use crate::state::muhash;

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

/// "`spend`: per transaction all or nothing. `unspend`: takes back what conflicting transactions hold,
/// and nothing else. `unmark_conflicting`: takes the mark back from transactions that hold all their
/// inputs." Rivals that want the same outputs take them from each other, all at once: at any end one
/// holds all of them or nobody does, and who is not marked holds its inputs.
pub(crate) async fn take_overs_leave_one_holder(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 3).await;
    let mut rivals = Vec::new();
    for n in 0..4_usize {
        let mut wanted = coins.clone();
        wanted.rotate_left(n % 3);
        let rival = TxBuilder::new(10 + n as u64)
            .spend_all(wanted)
            .pay(1)
            .build();
        assert_eq!(store.lost(&rival, None, 201).await, NOW);
        rivals.push(rival.txid);
    }
    let mut tasks = JoinSet::new();
    for me in rivals.clone() {
        let (store, rivals, coins) = (store.share(), rivals.clone(), coins.clone());
        tasks.spawn(async move {
            let mut seen = Seen::new();
            let mut taken = 0;
            for _ in 0..24 {
                let holders = one(store.counter_conflicting(&[me]).await).expect("it is on record");
                all(store.mark_conflicting(&holders).await);
                for (holder, answer) in holders.iter().zip(all(store.unspend(&holders).await)) {
                    assert!(rivals.contains(holder));
                    let unmarked = Verdict::NotConflicting { txid: *holder };
                    assert!(answer.is_ok() || answer == Err(unmarked), "{answer:?}");
                }
                match one(store.spend(&[me], &SpendOptions::at(201)).await) {
                    Ok(_) => taken += 1,
                    Err(Verdict::AlreadySpent { by, .. }) => assert!(rivals.contains(&by.txid)),
                    other => panic!("{other:?}"),
                }
                // The others' turn, also where calls don't wait for anything.
                tokio::task::yield_now().await;
                match one(store.unmark_conflicting(&[me]).await) {
                    // Another one has taken them over meanwhile.
                    Ok(_) | Err(Verdict::AlreadySpent { .. } | Verdict::NotSpending { .. }) => {}
                    other => panic!("{other:?}"),
                }
                read(&*store, &coins, &mut seen).await;
            }
            assert!(seen.values().flatten().all(|by| rivals.contains(&by.txid)));
            taken
        });
    }
    let taken: u32 = tasks.join_all().await.into_iter().sum();
    assert!(taken >= 1, "nobody stood in the way of the first");

    let holders: BTreeSet<_> = all(store.outputs(&coins).await)
        .into_iter()
        .map(|view| match view.expect("the output is there").state {
            SlotState::Spent(by) => Some(by.txid),
            _ => None,
        })
        .collect();
    assert_eq!(holders.len(), 1, "one holder of all, or none: {holders:?}");
    let mut marked = Vec::new();
    for rival in rivals {
        if store.whole_record(rival).await.conflicting {
            marked.push(rival);
        } else {
            assert!(
                holders.contains(&Some(rival)),
                "not marked, and without its inputs"
            );
        }
    }
    marked.sort_unstable();
    let children = one(store.conflicting_children(&[coins[0].txid]).await);
    assert_eq!(children, Ok(marked));
}

/// "First seen wins, across batches and tasks", blocks included: while tasks spend outputs, blocks that
/// spend the same ones are connected, taken back and connected again. A block that comes too late is
/// refused as a whole and says who was first; in the end each output is held by the one spender that
/// was told so, confirmed in the block that holds it.
pub(crate) async fn blocks_and_transactions_meet(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, COINS).await;
    let mut known = BTreeMap::new();
    let mut tasks = JoinSet::new();
    for task in 0..6_u64 {
        let mut batches = Vec::new();
        for step in 0..coins.len() {
            let at = (step + task as usize * 4) % coins.len();
            let tx = spender(1_000 * (task + 1) + at as u64, coins[at]).build();
            known.insert(tx.txid, tx.clone());
            batches.push((at, NewTransaction::from(tx)));
        }
        let store = store.share();
        tasks.spawn(async move {
            let mut won = Vec::new();
            for (at, new) in batches {
                let txid = new.tx.txid;
                match one(store.spend_and_create(&[new], &SpendOptions::at(201)).await) {
                    Ok(Applied::Now) => won.push((at, txid)),
                    Err(Verdict::AlreadySpent { by, .. }) => assert_ne!(by.txid, txid),
                    other => panic!("{other:?}"),
                }
                tokio::task::yield_now().await;
            }
            won
        });
    }
    let mut connected = Vec::new();
    for (at, coin) in coins.iter().enumerate() {
        let mut mine = spender(at as u64, *coin).build();
        // The second time after having been taken back.
        for round in 0..2 {
            let block = loop {
                let block = store.next_block().await.with(&[&mine]).build();
                match store.connect(&block).await {
                    Ok(_) => break block,
                    Err(Verdict::InBlock { verdict, .. }) => match *verdict {
                        Verdict::AlreadySpent { outpoint, by } => {
                            assert_eq!(outpoint, *coin);
                            mine = known[&by.txid].clone();
                        }
                        other => panic!("{other:?}"),
                    },
                    other => panic!("{other:?}"),
                }
            };
            if round == 0 {
                store.disconnect(&block).await.expect("it is the tip");
                tokio::task::yield_now().await;
            } else {
                connected.push((block, mine.txid));
            }
        }
    }
    for (at, winner) in tasks.join_all().await.concat() {
        assert_eq!(connected[at].1, winner, "told that it holds {}", coins[at]);
    }
    for (coin, (block, holder)) in coins.iter().zip(&connected) {
        assert_eq!(
            store.slot(*coin).await,
            SlotState::Spent(SpentBy {
                txid: *holder,
                vin: 0
            })
        );
        let record = store.whole_record(*holder).await;
        assert_eq!(record.confirmed_height(), Some(block.height));
    }
    let state = store.state().await;
    assert_eq!(state.tip.map(|tip| tip.height), Some(200 + COINS));
    assert_eq!(state.unmined, []);
    assert_eq!(state.digest.muhash, muhash(&state.coins));
}

/// "Undo data of blocks at or below [the horizon], which can't be disconnected from then on": while tasks
/// prune up to the tip, blocks are connected, taken back and connected again. What can be taken back leaves
/// what it spent as it was.
pub(crate) async fn prunes_and_reorganisations_meet(store: Subject) {
    store.begin_chain().await;
    let mut rivals = Vec::new();
    for round in 0..32 {
        rivals.push((store.coin(round).await, store.coin(100 + round).await));
    }
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        let (store, over) = (store.share(), over.clone());
        tasks.spawn(async move {
            while !over.load(Ordering::Acquire) {
                if let Some(tip) = all(store.tip().await) {
                    match store.prune(tip.height).await {
                        // The tip has gone down since.
                        Ok(_) | Err(Error::InvalidRequest { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
                tokio::task::yield_now().await;
            }
        });
    }
    let mut taken_back = 0;
    for (round, (first, second)) in (0..).zip(rivals) {
        for (branch, coin) in [(1, first), (2, second)] {
            let tx = spender(1_000 * branch + round, coin).build();
            let block = store.next_block().await.branch(branch).with(&[&tx]).build();
            store.connect(&block).await.expect("the block is good");
            match store.disconnect(&block).await {
                Ok(_) => {
                    taken_back += 1;
                    assert_eq!(store.slot(coin).await, SlotState::Unspent);
                }
                Err(Verdict::NoUndo { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    over.store(true, Ordering::Release);
    tasks.join_all().await;
    println!("{taken_back} of 64 blocks were taken back");
    let state = store.state().await;
    assert_eq!(state.digest.muhash, muhash(&state.coins));
}
