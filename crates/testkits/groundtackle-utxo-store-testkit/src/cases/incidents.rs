//! What went wrong in the field; each case carries the incident's name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use groundtackle_utxo_store::decorators::{Bounded, BoundedConfig, Traced};
use groundtackle_utxo_store::{
    Applied, COINBASE_MATURITY, Error, Fields, HealthDepth, NewRecord, NewTransaction, OutPoint,
    Record, Retryability, SlotState, SpendOptions, SpendStore, Txid, UtxoStoreExt, Verdict,
};
use tokio::task::JoinSet;

use super::upkeep::dropped_after;
use super::{BEFORE, NOW, by, spender, spent};
use crate::builder::{TxBuilder, out, tip_of};
use crate::differential::Differential;
use crate::harness::{Fault, Subject, all, one};
use crate::mainnet::{self, ANSWERS, reversed_hex};
use crate::skipped;
use crate::wrappers::{Misfiled, Overloaded, Unreachable};

/// Within which a store says that it is ready once its backend can be reached again.
const READY_AGAIN: Duration = Duration::from_secs(30);

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
    let coverage = Differential::of(&store).run_for(store.capabilities().backend);
    println!("{coverage}");
}

/// "Unspend cleared a lock held for another reason." It takes back what the spender holds "and
/// nothing else: an output held by another spender stays, as does every lock, freeze and
/// reassignment".
pub(crate) async fn unspend_touches_nothing_else(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 4).await;
    let reassigned = store.reassigned_coin(2, 201).await;
    all(store.freeze(&[coins[3]]).await);
    all(store.preserve(&[coins[0].txid], 900).await);
    let winner = store.accept(spender(3, coins[0])).await;
    let before = store.state().await;
    let builder = TxBuilder::new(4).spend_all([coins[1], coins[2], reassigned]);
    let loser = store.accept(builder.pay(1)).await;
    all(store.mark_conflicting(&[loser.txid]).await);
    all(store
        .set_locked(&[coins[0].txid, loser.txid, winner.txid], true)
        .await);
    let locked = store.state().await;
    assert_eq!(one(store.unspend(&[loser.txid]).await), NOW);

    let record = store.whole_record(loser.txid).await;
    assert_eq!(record, locked.records[&loser.txid]);
    assert_eq!(
        store.whole_record(winner.txid).await,
        locked.records[&winner.txid]
    );
    for (txid, locked) in [(coins[0].txid, true), (reassigned.txid, false)] {
        let expected = Record {
            locked,
            conflicting_children: vec![loser.txid],
            ..before.records[&txid].clone()
        };
        assert_eq!(store.whole_record(txid).await, expected);
    }

    // What it held once is another's now.
    all(store.set_locked(&[coins[1].txid], false).await);
    let next = store.accept(spender(5, coins[1])).await;
    assert_eq!(one(store.unspend(&[loser.txid]).await), BEFORE);
    assert_eq!(store.slot(coins[1]).await, spent(&next, 0));
}

/// "A parent was pruned while an unmined spender still named it; a replayed child re-entered as
/// unmined." "Preserved records stay, and what an unmined transaction spends stays."
pub(crate) async fn prune_keeps_what_is_needed(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 2).await;
    let mined = spender(2, coins[0]).build();
    let waiting = store.accept(spender(3, coins[1])).await;
    let child = spender(4, out(&mined, 0)).build();
    store.mine(&[&mined, &child]).await;
    store.mine(&[]).await;
    assert_eq!(all(store.prune(202).await).records, 1, "only `mined`");
    store.whole_record(coins[0].txid).await;
    let txid = mined.txid;
    assert_eq!(store.submit(&mined).await, Err(Verdict::Pruned { txid }));
    // The child's parent is gone, and it is no news.
    assert_eq!(store.submit(&child).await, BEFORE);
    assert_eq!(store.whole_record(child.txid).await.unmined_since, None);
    // Mined at last, above the horizon and then not.
    let block = store.mine(&[&waiting]).await;
    assert_eq!(all(store.prune(202).await).records, 0);
    store.disconnect(&block).await.expect("above the horizon");
    store.connect(&block).await.expect("the block is good");
    assert_eq!(all(store.prune(203).await).records, 1);
    assert_eq!(store.find_record(coins[0].txid).await, None);
}

/// "A transaction larger than one backend record (up to 1,000,000 outputs)."
pub(crate) async fn wide_transactions(store: Subject) {
    const OUTPUTS: usize = 1_000_000;
    let builder = TxBuilder::new(2).spend(store.coin(1).await);
    let wide = builder.pay_each(OUTPUTS, 1).build();
    // Unmined and without `state`, so that this is no test of how fast a set is digested.
    let txid = wide.txid;
    let batch = [NewTransaction::from(wide.clone())];
    let options = SpendOptions::at(1);
    assert_eq!(one(store.spend_and_create(&batch, &options).await), NOW);
    assert_eq!(one(store.spend_and_create(&batch, &options).await), BEFORE);
    let edges = [0, 1, 255, 256, 65_535, 65_536, 500_000, OUTPUTS as u32 - 1];
    let named = edges.map(|vout| out(&wide, vout));
    for (vout, view) in edges.iter().zip(all(store.outputs(&named).await)) {
        let view = view.expect("the output is there");
        assert_eq!(view.output, wide.outputs[*vout as usize]);
    }
    let beyond = out(&wide, OUTPUTS as u32);
    let verdict = Err(Verdict::MissingOutput { outpoint: beyond });
    assert_eq!(one(store.outputs(&[beyond]).await), verdict);

    let child = TxBuilder::new(3).spend_all(named).pay(1).build();
    let batch = [NewTransaction::from(child.clone())];
    assert_eq!(one(store.spend_and_create(&batch, &options).await), NOW);
    let rival = TxBuilder::new(4).spend(named[7]).build();
    let batch = [NewTransaction::from(rival)];
    let verdict = Verdict::AlreadySpent {
        outpoint: named[7],
        by: by(&child, 7),
    };
    assert_eq!(
        one(store.spend_and_create(&batch, &options).await),
        Err(verdict)
    );
    let record = store.whole_record(txid).await;
    assert_eq!(record.outputs.len(), OUTPUTS);
    let spent = record
        .outputs
        .iter()
        .filter(|output| output.spent_by.is_some());
    assert!(spent.map(|output| output.vout).eq(edges));
    let cascade = one(store.mark_conflicting(&[txid]).await);
    assert_eq!(cascade, Ok(vec![txid, child.txid]));
    all(store.unspend(&[child.txid]).await);
    assert_eq!(all(store.remove(&[child.txid, txid]).await), [NOW, NOW]);
    assert_eq!(store.find_record(txid).await, None);
}

/// Lets the backend answer again, and waits until its store says so: whoever looks at the backend from time to time sees
/// it a moment later.
async fn reachable_again(store: &Subject) {
    assert!(store.set_fault(Fault::Unreachable, false).await);
    let back = Instant::now();
    loop {
        match store.health(HealthDepth::Readiness).await {
            Ok(health) if health.ready => break,
            answer => assert!(back.elapsed() < READY_AGAIN, "{answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// "A failed read was reported as 'invalid transaction'; a missing parent tripped a circuit
/// breaker." Verdicts are no failures, however many, and a failure is no verdict.
pub(crate) async fn verdict_or_failure(store: Subject) {
    let coins = store.coins(1, 4).await;
    for tag in 0..200 {
        let outpoint = OutPoint::new(Txid::from_bytes([9; 32]), tag);
        let orphan = spender(u64::from(tag), outpoint).build();
        let missing = Verdict::MissingTransaction { outpoint };
        assert_eq!(store.submit(&orphan).await, Err(missing));
    }
    let health = all(store.health(HealthDepth::Readiness).await);
    assert!(health.ready, "{:?}", health.reasons);
    store.accept(spender(1_000, coins[0])).await;

    // A failure below the decorators stays one above them, and says whether to ask again.
    for (late, coin) in [(false, coins[1]), (true, coins[2])] {
        let cut = Arc::new(Unreachable::new(store.share(), late));
        let bounded = Bounded::new(cut.clone(), BoundedConfig::default());
        let above = Traced::new(all(bounded));
        cut.cut(true);
        let tx = spender(2_000 + u64::from(late), coin).build();
        store.note(tx.txid);
        let batch = [NewTransaction::from(tx)];
        let options = SpendOptions::at(1);
        let error = above
            .spend_and_create(&batch, &options)
            .await
            .expect_err("nothing answers");
        let (retryability, repeated) = match late {
            false => (Retryability::Transient, NOW),
            true => (Retryability::Indeterminate, BEFORE),
        };
        assert_eq!(error.retryability(), retryability);
        assert!(
            above
                .records(&[batch[0].tx.txid], Fields::META)
                .await
                .is_err()
        );
        assert!(above.outputs(&[coin]).await.is_err());
        cut.cut(false);
        assert_eq!(
            one(above.spend_and_create(&batch, &options).await),
            repeated
        );
    }

    if store.set_fault(Fault::Unreachable, true).await {
        let new = [NewTransaction::from(spender(3_000, coins[3]).build())];
        assert!(
            store
                .spend_and_create(&new, &SpendOptions::at(1))
                .await
                .is_err()
        );
        assert!(store.outputs(&[coins[3]]).await.is_err());
        reachable_again(&store).await;
        store.accept(spender(3_000, coins[3])).await;
    } else {
        skipped(
            "verdict_or_failure, of the backend",
            "the harness can't cut it off",
        );
    }
}

/// "An unbounded batch stalled a whole cluster, and was retried 145 times." Behind `Bounded` a
/// backend under pressure is given less until it copes, and all is done in the end.
pub(crate) async fn bounded_pressure(store: Subject) {
    const TASKS: usize = 16;
    const BATCH: usize = 256;
    let coins = store.coins(1, (TASKS * BATCH) as u32).await;
    let backend = Arc::new(Overloaded::new(store.share(), 4, 64));
    let bounded = all(Bounded::new(backend.clone(), BoundedConfig::default()));
    let bounded = Arc::new(bounded);
    let mut tasks = JoinSet::new();
    for (task, coins) in coins.chunks(BATCH).enumerate() {
        let spenders = (0..).zip(coins).map(|(n, coin)| {
            let tag = 1_000 + (task * BATCH + n) as u64;
            NewTransaction::from(spender(tag, *coin).build())
        });
        let batch: Vec<_> = spenders.collect();
        let bounded = bounded.clone();
        tasks.spawn(async move {
            let mut attempts = 0;
            loop {
                attempts += 1;
                match bounded.spend_and_create(&batch, &SpendOptions::at(1)).await {
                    Ok(answers) => {
                        assert_eq!(answers.len(), BATCH);
                        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
                        return attempts;
                    }
                    Err(error) => {
                        assert_ne!(error.retryability(), Retryability::Permanent, "{error}");
                        assert!(attempts < 145, "it never copes");
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
    }
    let attempts: u32 = tasks.join_all().await.into_iter().sum();
    let refused = backend.refused();
    // Halving gets there in a few steps, and growing again asks for too much now and then.
    assert!(
        refused < 8 * TASKS as u64,
        "{attempts} attempts of {TASKS} callers, {refused} calls refused"
    );
    for part in coins.chunks(1_000) {
        for view in all(store.outputs(part).await) {
            let view = view.expect("the output is there");
            assert!(matches!(view.state, SlotState::Spent(_)));
        }
    }
}

/// "The backend returned another record than asked and it was believed."
pub(crate) async fn wrong_record(store: Subject) {
    let asked = store.accept(spender(2, store.coin(1).await)).await;
    let other = store.accept(spender(4, store.coin(3).await)).await;
    let misfiled = Misfiled::new(store.share(), asked.txid, other.txid);
    let wrong = |error: &Error| matches!(error, Error::WrongRecord { asked: txid, .. } if *txid == asked.txid);
    let answer = misfiled.record(asked.txid).await;
    assert!(answer.as_ref().is_err_and(wrong), "{answer:?}");
    let answer = misfiled.output(out(&asked, 0)).await;
    assert!(answer.as_ref().is_err_and(wrong), "{answer:?}");
    assert!(
        misfiled
            .record(other.txid)
            .await
            .is_ok_and(|record| record.is_some())
    );

    let fault = Fault::WrongRecord(asked.txid, other.txid);
    if store.set_fault(fault, true).await {
        let answer = store.records(&[other.txid, asked.txid], Fields::ALL).await;
        assert!(answer.as_ref().is_err_and(wrong), "{answer:?}");
        let answer = store.outputs(&[out(&asked, 0)]).await;
        assert!(answer.as_ref().is_err_and(wrong), "{answer:?}");
        assert!(store.set_fault(fault, false).await);
        assert_eq!(store.submit(&asked).await, BEFORE);
    } else {
        skipped(
            "wrong_record, of the backend",
            "the harness can't misfile a record",
        );
    }
}

/// "A set digest that nobody could compare with another node": the digest is Bitcoin Core's, and
/// does not depend on how the set came about.
pub(crate) async fn comparable_digest(store: Subject) {
    let empty = all(store.digest().await);
    let known = "dd5ad2a105c2d29495f577245c357409002329b9f4d6182c0af3dc2f462555c8";
    assert_eq!(reversed_hex(&empty.muhash), known);
    let blocks = mainnet::blocks().await;
    for block in &blocks {
        store.connect(block).await.expect("the block is good");
        if let Some(answer) = ANSWERS.iter().find(|answer| answer.height == block.height) {
            let digest = all(store.digest().await);
            assert_eq!(digest.tip, Some(tip_of(block)));
            assert_eq!(reversed_hex(&digest.muhash), answer.muhash);
        }
    }
    // The same set from a snapshot, in another order.
    let seeded = store.another().await;
    let state = store.state().await;
    for coins in state
        .coins
        .chunk_by(|a, b| a.outpoint.txid == b.outpoint.txid)
        .rev()
    {
        let record = NewRecord::Seed {
            txid: coins[0].outpoint.txid,
            coinbase: coins[0].coinbase,
            height: coins[0].height,
            outputs: coins
                .iter()
                .map(|coin| (coin.outpoint.vout, coin.output.clone()))
                .collect(),
        };
        assert_eq!(seeded.put(record).await, NOW);
    }
    all(seeded.set_tip(&state.tip.expect("connected")).await);
    assert_eq!(all(seeded.digest().await), state.digest);
}

/// "A snapshot import that broke half-way could not be retried."
pub(crate) async fn resumable_import(mut store: Subject) {
    let records: Vec<_> = (0..40)
        .map(|tag| TxBuilder::new(tag).pay_each(3, 5).seed(1))
        .collect();
    records.iter().for_each(|record| store.note(record.txid()));
    all(store.create(&records[..25]).await);
    if store.capabilities().persistent {
        store.reopen().await;
    }
    let answers = all(store.create(&records).await);
    assert!(answers[..25].iter().all(|answer| *answer == BEFORE));
    assert!(answers[25..].iter().all(|answer| *answer == NOW));
    store.begin_chain().await;
    let straight = store.another().await;
    records
        .iter()
        .for_each(|record| straight.note(record.txid()));
    all(straight.create(&records).await);
    straight.begin_chain().await;
    straight.state().await.assert_still(&store.state().await);
}

/// "Conflict and reorganisation steps cut by a crash left half a state." As far as that shows
/// without killing a process: calls are dropped half-way, the store is closed and opened, and
/// `recover` leaves each change done or undone.
pub(crate) async fn crash_safe_cascades(store: Subject) {
    for polls in 0..6 {
        let mut store = store.another().await;
        store.begin_chain().await;
        let coins = store.coins(1, 2).await;
        let root = store.accept(spender(2, coins[0]).pay(9)).await;
        let children = [
            store.accept(spender(3, out(&root, 0))).await,
            store.accept(spender(4, out(&root, 1))).await,
        ];
        let before = store.state().await;
        dropped_after(polls, store.mark_conflicting(&[root.txid])).await;
        store.restart().await;
        let now = store.state().await;
        let marked = now
            .records
            .values()
            .filter(|record| record.conflicting)
            .count();
        assert!(marked == 0 || marked == 3, "{marked} of 3");
        if marked == 0 {
            before.assert_still(&now);
        }
        let cascade = vec![root.txid, children[0].txid, children[1].txid];
        assert_eq!(one(store.mark_conflicting(&[root.txid]).await), Ok(cascade));
        for tx in [&root, &children[0], &children[1]] {
            assert_eq!(one(store.unmark_conflicting(&[tx.txid]).await), NOW);
        }
        before.assert_still(&store.state().await);

        let other = spender(5, coins[1]).build();
        store.note(other.txid);
        let block = store.next_block().await.with(&[&root, &other]).build();
        block.transactions.iter().for_each(|tx| store.note(tx.txid));
        dropped_after(polls, store.connect_block(&block)).await;
        store.restart().await;
        let now = store.state().await;
        if now.tip == before.tip && store.capabilities().atomic_blocks {
            before.assert_still(&now);
        }
        store.connect(&block).await.expect("the block is good");
        let connected = store.state().await;
        let back = store.disconnect_block(&block.hash, &block.previous);
        dropped_after(polls, back).await;
        store.restart().await;
        let now = store.state().await;
        if now.tip == connected.tip && store.capabilities().atomic_blocks {
            connected.assert_still(&now);
        }
        store
            .disconnect(&block)
            .await
            .expect("it is, or was, the tip");
        before.assert_still(&store.state().await);
    }
}

/// "One node of a cluster refused writes, health said green": where health says ready, reads and
/// writes succeed; where the backend is cut off, it does not say so, and gives a reason, until the backend is back.
pub(crate) async fn every_node_healthy(store: Subject) {
    let health = all(store.health(HealthDepth::Readiness).await);
    assert!(health.ready, "{:?}", health.reasons);
    // Keys all over, so that each node of a cluster has some.
    for tag in 0..64 {
        let coin = store.coin(tag).await;
        store.accept(spender(1_000 + tag, coin)).await;
    }
    if store.set_fault(Fault::Unreachable, true).await {
        let health = store.health(HealthDepth::Readiness).await;
        // Not even finding out counts as not ready.
        assert!(health.is_err() || health.is_ok_and(|h| !h.ready && !h.reasons.is_empty()));
        reachable_again(&store).await;
        store.accept(spender(2_000, store.coin(2_000).await)).await;
    } else {
        skipped(
            "every_node_healthy, of the backend",
            "the harness can't cut it off",
        );
    }
}

/// "Unspend, large reads and conflict cascades took one round trip per output." The adapter declares
/// how many one call takes, whatever the number of its items.
pub(crate) async fn round_trips(store: Subject) {
    let items = store
        .capabilities()
        .max_batch_items
        .map_or(500, |most| most.min(500));
    let most = store.round_trips_per_call();
    let count = || store.round_trips().expect("a need");
    let taken = |what: &str, before: u64, calls: u64| {
        let taken = count() - before;
        assert!(
            taken <= most * calls,
            "{what} took {taken} round trips, above {most} a call"
        );
    };
    store.begin_chain().await;
    let coins = store.coins(1, items as u32).await;
    let wide = TxBuilder::new(2)
        .spend_all(coins.clone())
        .pay_each(items, 1)
        .build();
    let options = SpendOptions::at(201);
    let before = count();
    one(store
        .spend_and_create(&[wide.clone().into()], &options)
        .await)
    .expect("good");
    taken("spending many outputs", before, 1);
    let children: Vec<_> = (0..items as u32)
        .map(|vout| spender(1_000 + u64::from(vout), out(&wide, vout)).build())
        .collect();
    let txids: Vec<_> = children.iter().map(|tx| tx.txid).collect();
    let batch: Vec<_> = children.iter().cloned().map(NewTransaction::from).collect();
    let before = count();
    assert_eq!(
        all(store.spend_and_create(&batch, &options).await),
        vec![NOW; items]
    );
    taken("a batch of children", before, 1);
    let before = count();
    all(store.records(&txids, Fields::ALL).await);
    taken("reading many records", before, 1);
    let before = count();
    all(store
        .outputs(&children.iter().map(|tx| out(tx, 0)).collect::<Vec<_>>())
        .await);
    taken("reading many outputs", before, 1);
    let before = count();
    all(store
        .freeze(&children.iter().map(|tx| out(tx, 0)).collect::<Vec<_>>())
        .await);
    taken("freezing many outputs", before, 1);
    let before = count();
    all(store
        .set_mined(&txids, &super::mined_in(1, 201, false))
        .await);
    taken("marking many mined", before, 1);
    let before = count();
    let cascade = one(store.mark_conflicting(&[wide.txid]).await).expect("unmined");
    assert_eq!(cascade.len(), items + 1);
    taken("a cascade of two generations", before, 2);
    let before = count();
    assert_eq!(all(store.unspend(&txids).await), vec![NOW; items]);
    taken("unspending many transactions", before, 1);
    let before = count();
    assert_eq!(one(store.unspend(&[wide.txid]).await), NOW);
    taken("unspending many inputs", before, 1);
    let before = count();
    assert_eq!(all(store.remove(&txids).await), vec![NOW; items]);
    taken("removing many transactions", before, 1);
}
