//! `ConflictStore`.

use groundtackle_utxo_store::{
    NewRecord, OutPoint, SlotState, SpendOptions, Transaction, Txid, Verdict,
};

use super::{BEFORE, NOW, by, mined_in, spender, spent};
use crate::builder::{TxBuilder, out};
use crate::harness::{Subject, all, one};

const UNKNOWN: Txid = Txid::from_bytes([9; 32]);

/// "Locks or unlocks transactions: outputs of a locked one can't be spent, blocks excepted.
/// Idempotency: yes. Verdicts: `UnknownTransaction`."
pub(crate) async fn locks_bind_transactions_and_not_blocks(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 2).await;
    let txid = coins[0].txid;
    let unknown = Err(Verdict::UnknownTransaction { txid: UNKNOWN });
    let answer = store.set_locked(&[txid, UNKNOWN, txid], true).await;
    assert_eq!(all(answer), [NOW, unknown.clone(), BEFORE]);
    assert!(store.whole_record(txid).await.locked);

    let tx = spender(2, coins[0]).build();
    let verdict = Verdict::Locked { outpoint: coins[0] };
    assert_eq!(store.submit(&tx).await, Err(verdict));
    store.mine(&[&tx]).await;
    assert_eq!(store.slot(coins[0]).await, spent(&tx, 0));

    let answer = store.set_locked(&[txid, UNKNOWN, txid], false).await;
    assert_eq!(all(answer), [NOW, unknown, BEFORE]);
    store.accept(spender(3, coins[1])).await;
}

/// A family: `root` with two outputs, a child on each, and a grandchild of both.
struct Family {
    coins: Vec<OutPoint>,
    root: Transaction,
    children: [Transaction; 2],
    grandchild: Transaction,
}

async fn family(store: &Subject) -> Family {
    let coins = store.coins(1, 2).await;
    let root = TxBuilder::new(2).spend(coins[0]).pay_each(2, 400);
    let root = store.accept(root).await;
    // In the order of the outputs, not of the identifiers or of arrival.
    let second = store.accept(spender(4, out(&root, 1))).await;
    let first = store.accept(spender(3, out(&root, 0))).await;
    let grandchild = spender(5, out(&first, 0)).spend(out(&second, 0));
    let grandchild = store.accept(grandchild).await;
    Family {
        coins,
        root,
        children: [first, second],
        grandchild,
    }
}

/// "Marks transactions and all their descendants as conflicting. What they hold stays theirs …
/// Returns the marked ones, those that were so before too: the transaction, then its descendants by
/// generation, each generation in the order of its parents and their output indexes. Atomicity: per
/// item the whole cascade. Verdicts: `UnknownTransaction`, `MinedOnLongestChain` (it or a
/// descendant)."
pub(crate) async fn marking_takes_all_descendants(store: Subject) {
    store.begin_chain().await;
    let Family {
        coins,
        root,
        children: [first, second],
        grandchild,
    } = family(&store).await;
    let cascade = vec![root.txid, first.txid, second.txid, grandchild.txid];
    let txid = UNKNOWN;
    let answer = store
        .mark_conflicting(&[UNKNOWN, first.txid, root.txid, root.txid])
        .await;
    assert_eq!(
        all(answer),
        [
            Err(Verdict::UnknownTransaction { txid }),
            Ok(vec![first.txid, grandchild.txid]),
            Ok(cascade.clone()),
            Ok(cascade.clone())
        ]
    );
    for txid in &cascade {
        assert!(store.whole_record(*txid).await.conflicting);
    }
    for (outpoint, holder) in [
        (coins[0], &root),
        (out(&root, 0), &first),
        (out(&root, 1), &second),
        (out(&first, 0), &grandchild),
    ] {
        assert_eq!(store.slot(outpoint).await, spent(holder, 0));
    }
    let children = store
        .conflicting_children(&[coins[0].txid, root.txid, UNKNOWN])
        .await;
    let mut both = [first.txid, second.txid];
    both.sort_unstable();
    assert_eq!(
        all(children),
        [
            Ok(vec![root.txid]),
            Ok(both.to_vec()),
            Err(Verdict::UnknownTransaction { txid })
        ],
        "ascending"
    );

    // A descendant that is mined is not lost: nothing is marked.
    let parent = store.accept(spender(11, coins[1])).await;
    let child = store.accept(spender(12, out(&parent, 0))).await;
    all(store
        .set_mined(&[child.txid], &mined_in(1, 201, true))
        .await);
    let before = store.state().await;
    let verdict = Verdict::MinedOnLongestChain { txid: child.txid };
    for root in [child.txid, parent.txid] {
        let answer = one(store.mark_conflicting(&[root]).await);
        assert_eq!(answer, Err(verdict.clone()));
    }
    before.assert_still(&store.state().await);
}

/// "Takes the mark back from transactions that hold all their inputs, each of which must belong to a
/// transaction without the mark. Children keep theirs. Verdicts: `UnknownTransaction`,
/// `MissingTransaction`, `MissingOutput`, `AlreadySpent`, `ConflictingParent`, `NotSpending`".
pub(crate) async fn unmarking_needs_every_input(store: Subject) {
    let Family {
        coins,
        root,
        children: [first, second],
        ..
    } = family(&store).await;
    let unmark = async |txid| one(store.unmark_conflicting(&[txid]).await);
    let txid = UNKNOWN;
    assert_eq!(
        unmark(txid).await,
        Err(Verdict::UnknownTransaction { txid })
    );
    assert_eq!(unmark(root.txid).await, BEFORE, "it has no mark");
    all(store.mark_conflicting(&[root.txid]).await);
    let outpoint = out(&root, 0);
    let verdict = Verdict::ConflictingParent { outpoint };
    assert_eq!(unmark(first.txid).await, Err(verdict));
    assert_eq!(unmark(root.txid).await, NOW);
    let parent = store.whole_record(coins[0].txid).await;
    assert_eq!(parent.conflicting_children, []);
    assert!(store.whole_record(first.txid).await.conflicting);
    assert_eq!(unmark(first.txid).await, NOW);
    let record = store.whole_record(root.txid).await;
    assert_eq!(record.conflicting_children, [second.txid]);

    // One that holds nothing yet.
    let lost = spender(20, coins[0]).spend(coins[1]).build();
    assert_eq!(store.lost(&lost, None, 1).await, NOW);
    let outpoint = coins[0];
    let by = by(&root, 0);
    let verdict = Verdict::AlreadySpent { outpoint, by };
    assert_eq!(unmark(lost.txid).await, Err(verdict));
    let other = spender(21, coins[1]).build();
    assert_eq!(store.lost(&other, None, 1).await, NOW);
    let before = store.state().await;
    let outpoint = coins[1];
    assert_eq!(
        unmark(other.txid).await,
        Err(Verdict::NotSpending { outpoint })
    );
    before.assert_still(&store.state().await);
    assert_eq!(
        one(store.spend(&[other.txid], &SpendOptions::at(1)).await),
        NOW
    );
    assert_eq!(unmark(other.txid).await, NOW);

    for (tag, outpoint, verdict) in [
        (30, OutPoint::new(UNKNOWN, 0), None),
        (31, OutPoint::new(coins[0].txid, 9), Some(())),
    ] {
        let orphan = spender(tag, outpoint).build();
        let record = NewRecord::Conflicting {
            tx: orphan.clone(),
            fee_sat: None,
            unmined_since: 1,
        };
        assert_eq!(store.put(record).await, NOW);
        let verdict = match verdict {
            None => Verdict::MissingTransaction { outpoint },
            Some(()) => Verdict::MissingOutput { outpoint },
        };
        assert_eq!(unmark(orphan.txid).await, Err(verdict));
    }
}

/// `counter_conflicting`: "What a transaction would have to displace: those that hold an output it
/// names, and their descendants, by generation. Empty where it holds all its inputs."
pub(crate) async fn names_what_a_transaction_would_displace(store: Subject) {
    let Family {
        coins,
        root,
        children: [first, second],
        grandchild,
    } = family(&store).await;
    let rival = spender(20, coins[1]).spend(coins[0]).build();
    assert_eq!(store.lost(&rival, None, 1).await, NOW);
    let deep = spender(21, out(&second, 0)).build();
    assert_eq!(store.lost(&deep, None, 1).await, NOW);
    let free = spender(22, coins[1]).build();
    assert_eq!(store.lost(&free, None, 1).await, NOW);
    let before = store.state().await;
    let asked = [rival.txid, deep.txid, free.txid, root.txid, UNKNOWN];
    assert_eq!(
        all(store.counter_conflicting(&asked).await),
        [
            Ok(vec![root.txid, first.txid, second.txid, grandchild.txid]),
            Ok(vec![grandchild.txid]),
            Ok(vec![]),
            Ok(vec![]),
            Err(Verdict::UnknownTransaction { txid: UNKNOWN })
        ]
    );
    before.assert_still(&store.state().await);
}

/// The whole way of a conflict: the loser keeps its record, the winner gives way, the loser wins.
/// `BlockStore::connect_block`: "blocks come first, the caller decides".
pub(crate) async fn a_block_displaces_what_conflicts_with_it(store: Subject) {
    store.begin_chain().await;
    let Family {
        coins,
        root,
        children: [first, second],
        grandchild,
    } = family(&store).await;
    let rival = TxBuilder::new(20).spend(coins[0]).pay(700).build();
    let outpoint = coins[0];
    let by = by(&root, 0);
    let verdict = Verdict::AlreadySpent { outpoint, by };
    store.refused_block(&[&rival], &rival, verdict).await;
    let losers = one(store.mark_conflicting(&[root.txid]).await).expect("unmined");
    assert_eq!(all(store.unspend(&losers).await), vec![NOW; losers.len()]);
    store.mine(&[&rival]).await;
    assert_eq!(store.slot(coins[0]).await, spent(&rival, 0));
    for loser in [&root, &first, &second, &grandchild] {
        let record = store.whole_record(loser.txid).await;
        assert!(record.conflicting);
        let free =
            |output: &groundtackle_utxo_store::RecordOutput| output.state() == SlotState::Unspent;
        assert!(record.outputs.iter().all(free));
        let txid = loser.txid;
        let refused = Err(Verdict::Conflicting { txid });
        assert_eq!(store.submit(loser).await, refused);
        store
            .refused_block(&[loser], loser, Verdict::Conflicting { txid })
            .await;
    }
}
