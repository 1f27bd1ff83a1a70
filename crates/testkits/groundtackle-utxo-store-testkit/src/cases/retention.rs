//! `RetentionStore`.

use groundtackle_utxo_store::{
    Cursor, Error, Pruned, SpendOptions, Transaction, Txid, UnminedTransaction, Verdict,
};

use super::{BEFORE, NOW, mined_in, spender};
use crate::builder::{TxBuilder, out};
use crate::harness::{Subject, all, one};
use crate::state::unmined_all;

const UNKNOWN: Txid = Txid::from_bytes([9; 32]);

/// "Lists transactions that no block of the longest chain holds, ascending by identifier; with
/// `older_than` only those unmined since a height below it. At most `limit` a page."
pub(crate) async fn lists_unmined_transactions_in_pages(store: Subject) {
    let coins = store.coins(1, 12).await;
    let mut expected = Vec::new();
    for (height, coin) in (10..).zip(&coins) {
        let tx = spender(u64::from(height), *coin).build();
        assert_eq!(store.submit_under(&tx, SpendOptions::at(height)).await, NOW);
        let txid = tx.txid;
        expected.push(UnminedTransaction {
            txid,
            unmined_since: height,
        });
    }
    // Off the longest chain is unmined, conflicting too; on it is not.
    let mined = expected.remove(0).txid;
    all(store.set_mined(&[mined], &mined_in(1, 10, true)).await);
    all(store
        .set_mined(&[expected[0].txid], &mined_in(2, 10, false))
        .await);
    all(store.mark_conflicting(&[expected[1].txid]).await);
    expected.sort_unstable();
    for limit in [1, 2, 5, 11, 12, 1_000] {
        assert_eq!(unmined_all(&*store, None, limit).await, expected);
        for older_than in [0, 11, 12, 15, 22, u32::MAX] {
            let older: Vec<_> = expected
                .iter()
                .filter(|tx| tx.unmined_since < older_than)
                .copied()
                .collect();
            assert_eq!(unmined_all(&*store, Some(older_than), limit).await, older);
        }
    }
}

/// "Pages need not be [of one moment]. What is unmined from the first page to the last is listed
/// once."
pub(crate) async fn the_unmined_listing_goes_on_while_writers_do(store: Subject) {
    let coins = store.coins(1, 20).await;
    let mut stay = Vec::new();
    for (tag, coin) in (10..).zip(&coins[..10]) {
        stay.push(store.accept(spender(tag, *coin)).await.txid);
    }
    let mut listed = Vec::new();
    let mut after = None;
    let mut others = (100..).zip(&coins[10..]);
    let mut leaving: Option<Transaction> = None;
    loop {
        let page = all(store.unmined(None, after.as_ref(), 2).await);
        listed.extend(page.items.iter().map(|item| item.txid));
        if let Some(tx) = leaving.take() {
            assert_eq!(one(store.remove(&[tx.txid]).await), NOW);
        }
        if let Some((tag, coin)) = others.next() {
            leaving = Some(store.accept(spender(tag, *coin)).await);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    for txid in stay {
        assert_eq!(listed.iter().filter(|found| **found == txid).count(), 1);
    }
    assert!(listed.is_sorted());
}

/// "Errors: … the cursor is of another adapter."
pub(crate) async fn a_foreign_cursor_is_an_error(store: Subject) {
    store.accept(spender(2, store.coin(1).await)).await;
    let foreign = Cursor::from_bytes(b"another adapter's".to_vec());
    let answer = store.unmined(None, Some(&foreign), 1).await;
    assert!(
        matches!(answer, Err(Error::InvalidRequest { .. })),
        "{answer:?}"
    );
    let scan = all(store.scan().await);
    let answer = scan.page(0, Some(&foreign), 1).await;
    assert!(
        matches!(answer, Err(Error::InvalidRequest { .. })),
        "{answer:?}"
    );
    let answer = scan.page(scan.partitions(), None, 1).await;
    assert!(
        matches!(answer, Err(Error::InvalidRequest { .. })),
        "{answer:?}"
    );
}

/// "Keeps transactions from `prune` while its horizon is below `until_height`. The last call
/// counts."
pub(crate) async fn preserved_transactions_stay(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 1).await;
    let keep = async |until| {
        let answer = store.preserve(&[coins[0].txid, UNKNOWN], until).await;
        let [known, unknown] = &all(answer)[..] else {
            panic!("one result per item");
        };
        let verdict = Verdict::UnknownTransaction { txid: UNKNOWN };
        assert_eq!(*unknown, Err(verdict));
        known.clone()
    };
    assert_eq!(keep(900).await, NOW);
    assert_eq!(keep(202).await, NOW);
    assert_eq!(keep(202).await, BEFORE);
    let record = store.whole_record(coins[0].txid).await;
    assert_eq!(record.preserve_until, Some(202));
    store.mine(&[&spender(2, coins[0]).build()]).await;
    store.mine(&[]).await;
    assert_eq!(all(store.prune(201).await).records, 0);
    store.whole_record(coins[0].txid).await;
    assert_eq!(all(store.prune(202).await).records, 1);
    assert_eq!(store.find_record(coins[0].txid).await, None);
}

/// `prune`: "records confirmed at or below [the horizon] all of whose outputs are spent by
/// transactions confirmed at or below it (or pruned before) … The confirmed set does not change.
/// Idempotency: yes; counts are of this call."
pub(crate) async fn prune_removes_what_is_spent_below_the_horizon(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 2).await;
    let parent = spender(2, coins[0]).build();
    let child = spender(3, out(&parent, 0)).build();
    let late = spender(4, coins[1]).build();
    store.mine(&[&parent]).await;
    store.mine(&[&child]).await;
    store.mine(&[&late]).await;
    let before = store.state().await;
    assert_eq!(all(store.prune(200).await), Pruned::default());
    let records = |pruned: Pruned| pruned.records;
    // Below: the parent is spent at 202, the seeded coins by 203.
    assert_eq!(records(all(store.prune(201).await)), 0);
    assert_eq!(records(all(store.prune(202).await)), 1);
    assert_eq!(store.find_record(parent.txid).await, None);
    // One of its spenders has been pruned: that counts as confirmed below.
    assert_eq!(records(all(store.prune(203).await)), 1);
    assert_eq!(store.find_record(coins[0].txid).await, None);
    assert_eq!(all(store.prune(203).await), Pruned::default());
    let now = store.state().await;
    assert_eq!(now.coins, before.coins);
    assert_eq!(now.digest, before.digest);
    store.whole_record(child.txid).await;
}

/// The same where those who place transactions in blocks themselves place a later spender below an
/// earlier one, and below its parent: the highest of all decides.
pub(crate) async fn prune_waits_for_the_highest_block(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 2).await;
    let parent = store.connected(store.next_block().await).await;
    let parent = out(&parent.transactions[0], 0);
    store.mine(&[&spender(2, coins[0]).build()]).await;
    let options = SpendOptions {
        coinbase_maturity: 0,
        ..SpendOptions::at(203)
    };
    for (tag, outpoint) in [(3, coins[1]), (4, parent)] {
        let tx = spender(tag, outpoint).build();
        assert_eq!(store.submit_under(&tx, options).await, NOW);
        let placed = store.set_mined(&[tx.txid], &mined_in(7, 150, true)).await;
        assert_eq!(one(placed), NOW);
    }
    let records = async |horizon| all(store.prune(horizon).await).records;
    assert_eq!(records(200).await, 0);
    assert_eq!(records(201).await, 1, "the parent, made at 201");
    assert_eq!(store.find_record(parent.txid).await, None);
    assert_eq!(
        records(202).await,
        1,
        "the coins, of which one was spent at 202"
    );
    assert_eq!(store.find_record(coins[0].txid).await, None);
}

/// `prune`: "conflicting records unmined since [the horizon] or earlier of which nothing is spent
/// and which hold nothing, until none is left".
pub(crate) async fn prune_removes_conflicts_that_are_over(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 2).await;
    let loser = store.accept(spender(2, coins[0])).await;
    let child = store.accept(spender(3, out(&loser, 0))).await;
    let young = spender(4, coins[1]).build();
    assert_eq!(store.lost(&young, None, 201).await, NOW);
    let losers = one(store.mark_conflicting(&[loser.txid]).await).expect("unmined");
    store.mine(&[]).await;
    store.mine(&[]).await;
    let records = async |horizon| all(store.prune(horizon).await).records;
    assert_eq!(records(200).await, 0, "unmined since 201");
    assert_eq!(
        records(201).await,
        1,
        "the young one: the others hold outputs"
    );
    all(store.unspend(&losers).await);
    all(store.preserve(&[child.txid], 202).await);
    assert_eq!(records(201).await, 1, "the loser");
    store.whole_record(child.txid).await;
    assert_eq!(records(202).await, 1);
    for tx in [&loser, &child, &young] {
        assert_eq!(store.find_record(tx.txid).await, None);
    }
    let parent = store.whole_record(coins[0].txid).await;
    assert_eq!(parent.conflicting_children, []);
}

/// `prune`: "undo data of blocks at or below it, which can't be disconnected from then on";
/// "`InvalidRequest` for a horizon above the tip".
pub(crate) async fn pruned_blocks_cannot_be_disconnected(store: Subject) {
    store.begin_chain().await;
    let first = store.mine(&[]).await;
    let second = store.mine(&[]).await;
    let before = store.state().await;
    let answer = store.prune(203).await;
    assert!(
        matches!(answer, Err(Error::InvalidRequest { .. })),
        "{answer:?}"
    );
    before.assert_still(&store.state().await);
    let one_block = Pruned {
        records: 0,
        blocks: 1,
    };
    assert_eq!(all(store.prune(201).await), one_block);
    store.disconnect(&second).await.expect("above the horizon");
    let before = store.state().await;
    let refused = Err(Verdict::NoUndo { block: first.hash });
    assert_eq!(store.disconnect(&first).await, refused);
    before.assert_still(&store.state().await);
    // An empty store has nothing to prune.
    let empty = store.another().await;
    assert_eq!(all(empty.prune(0).await), Pruned::default());
    let tx = TxBuilder::new(1).build();
    assert_eq!(empty.find_record(tx.txid).await, None);
}
