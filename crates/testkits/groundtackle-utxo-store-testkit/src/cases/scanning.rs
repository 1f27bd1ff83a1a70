//! `ScanStore` and `SetScan`.

use groundtackle_utxo_store::{
    Coin, Copied, Error, SlotState, StatisticsOptions, UtxoStoreExt, copy_set, unfinished_copy,
};

use super::upkeep::dropped_after;
use super::{NOW, mined_in, spender};
use crate::builder::{TxBuilder, out};
use crate::harness::{Subject, all, one};
use crate::state::{muhash, scan_all};
use crate::wrappers::Unreachable;

/// A set of some dozens of coins, with the mempool around it.
async fn fill(store: &Subject) -> Vec<Coin> {
    store.begin_chain().await;
    for tag in 0..20 {
        store.coins(1_000 + tag, 1 + tag as u32 % 5).await;
    }
    store.mine(&[]).await;
    store.state().await.coins
}

/// "The confirmed set: outputs of transactions mined on the longest chain that no such transaction
/// spends, whatever is in the mempool."
pub(crate) async fn the_set_ignores_the_mempool(store: Subject) {
    let coins = fill(&store).await;
    assert_eq!(coins.len(), 61);
    let before = store.state().await;
    let parent = store.accept(spender(1, coins[0].outpoint)).await;
    store.accept(spender(2, out(&parent, 0))).await;
    store.off_chain_coinbase(3).await;
    all(store.freeze(&[coins[1].outpoint]).await);
    let branch = store.accept(spender(4, coins[2].outpoint)).await;
    all(store
        .set_mined(&[branch.txid], &mined_in(1, 201, false))
        .await);
    let now = store.state().await;
    assert_eq!(now.coins, before.coins);
    assert_eq!(now.digest, before.digest);
    // On the longest chain it counts, however it got there.
    all(store
        .set_mined(&[branch.txid], &mined_in(1, 201, true))
        .await);
    let now = store.state().await;
    assert_eq!(now.coins.len(), before.coins.len());
    let made = now
        .coins
        .iter()
        .find(|coin| coin.outpoint == out(&branch, 0));
    assert_eq!(made.expect("in the set").height, 201);
    assert_eq!(now.digest.muhash, muhash(&now.coins));
}

/// "Together the pages have each coin once"; "coins of one transaction are next to each other, in one
/// partition"; "an error ends nothing: the same page can be asked for again".
pub(crate) async fn pages_have_each_coin_once(store: Subject) {
    let coins = fill(&store).await;
    let scan = all(store.scan().await);
    assert!(scan.partitions() >= 1);
    assert_eq!(scan.tip(), all(store.tip().await));
    for limit in [1, 2, 7, 61, 1_000] {
        assert_eq!(scan_all(&*scan, limit).await, coins);
    }
    let mut left = Vec::new();
    for partition in 0..scan.partitions() {
        let page = all(scan.page(partition, None, 1_000).await);
        assert_eq!(page, all(scan.page(partition, None, 1_000).await));
        for chunk in page
            .items
            .chunk_by(|a, b| a.outpoint.txid == b.outpoint.txid)
        {
            let txid = chunk[0].outpoint.txid;
            assert!(!left.contains(&txid), "{txid} is in two places");
            left.push(txid);
        }
    }
}

/// "A partition's coins come ascending by transaction identifier (internal bytes), then index, and
/// partitions follow each other", if the adapter claims an order.
pub(crate) async fn coins_come_in_order(store: Subject) {
    let coins = fill(&store).await;
    let scan = all(store.scan().await);
    let mut seen = Vec::new();
    for partition in 0..scan.partitions() {
        let mut after = None;
        loop {
            let page = all(scan.page(partition, after.as_ref(), 3).await);
            seen.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    assert_eq!(seen, coins);
}

/// "`next` resumes, in a later scan too."
pub(crate) async fn cursors_resume_in_a_later_scan(store: Subject) {
    let coins = fill(&store).await;
    let mut seen = Vec::new();
    for partition in 0..all(store.scan().await).partitions() {
        let mut after = None;
        loop {
            let scan = all(store.scan().await);
            let page = all(scan.page(partition, after.as_ref(), 5).await);
            seen.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    seen.sort_by_key(|coin| coin.outpoint);
    assert_eq!(seen, coins);
}

/// "Errors: … the cursor is of another … partition."
pub(crate) async fn a_cursor_belongs_to_its_partition(store: Subject) {
    fill(&store).await;
    let scan = all(store.scan().await);
    for partition in 0..scan.partitions() {
        let page = all(scan.page(partition, None, 1).await);
        let Some(cursor) = page.next else { continue };
        for other in (0..scan.partitions()).filter(|other| *other != partition) {
            let answer = scan.page(other, Some(&cursor), 1).await;
            assert!(
                matches!(answer, Err(Error::InvalidRequest { .. })),
                "{answer:?}"
            );
        }
    }
}

/// "The scan sees one moment, tip included, if `Capabilities::snapshot_scan`; writers go on."
pub(crate) async fn a_scan_sees_one_moment(store: Subject) {
    let coins = fill(&store).await;
    let tip = all(store.tip().await);
    let scan = all(store.scan().await);
    let first = all(scan.page(0, None, 2).await);
    let ripe = coins.iter().filter(|coin| !coin.coinbase);
    let spend = TxBuilder::new(1).spend_all(ripe.map(|coin| coin.outpoint));
    let spend = spend.pay(7).build();
    let block = store.mine(&[&spend]).await;
    store.mine(&[]).await;
    assert_eq!(all(scan.page(0, None, 2).await), first);
    assert_eq!(scan_all(&*scan, 3).await, coins);
    assert_eq!(scan.tip(), tip);
    let later = all(store.scan().await);
    assert_eq!(later.tip().map(|tip| tip.height), Some(block.height + 1));
    assert_ne!(scan_all(&*later, 1_000).await, coins);
}

/// "The digest of the confirmed set at the tip, as Bitcoin Core's `gettxoutsetinfo muhash`.
/// Atomicity: digest and tip belong together." It is the MuHash of a scan after every kind of
/// change.
pub(crate) async fn the_digest_is_that_of_a_scan(store: Subject) {
    let checked = async || {
        let state = store.state().await;
        assert_eq!(state.digest.muhash, muhash(&state.coins));
        assert_eq!(state.digest.tip, state.tip);
    };
    checked().await;
    let coins = fill(&store).await;
    checked().await;
    let mature: Vec<_> = coins.iter().filter(|coin| !coin.coinbase).collect();
    let parent = store.accept(spender(1, mature[0].outpoint)).await;
    let block = store
        .mine(&[&parent, &spender(2, out(&parent, 0)).build()])
        .await;
    checked().await;
    store.disconnect(&block).await.expect("it is the tip");
    checked().await;
    let entry = mined_in(1, 202, true);
    all(store.set_mined(&[parent.txid], &entry).await);
    checked().await;
    let hash = entry.block.expect("a block");
    let off = groundtackle_utxo_store::LongestChain::Off { unmined_since: 5 };
    assert_eq!(
        one(store.set_longest_chain(&[parent.txid], &hash, off).await),
        NOW
    );
    checked().await;
    let on = groundtackle_utxo_store::LongestChain::On;
    assert_eq!(
        one(store.set_longest_chain(&[parent.txid], &hash, on).await),
        NOW
    );
    checked().await;
    assert_eq!(one(store.unset_mined(&[parent.txid], &hash, 6).await), NOW);
    checked().await;
    let outpoint = mature[1].outpoint;
    all(store.freeze(&[outpoint]).await);
    checked().await;
    store.reassign_to(outpoint, 300).await;
    checked().await;
    all(store.prune(201).await);
    checked().await;
}

/// `UtxoStoreExt::statistics`: counts and digests by a scan, on any store.
pub(crate) async fn statistics_count_the_set(store: Subject) {
    let coins = fill(&store).await;
    let ordered = store.capabilities().ordered_scan;
    let options = StatisticsOptions {
        muhash: true,
        hash_serialized_3: ordered,
    };
    let statistics = all((*store).statistics(options).await);
    assert_eq!(statistics.tip, all(store.tip().await));
    assert_eq!(statistics.transactions, 21);
    assert_eq!(statistics.txouts, 61);
    let scripts: usize = coins.iter().map(|c| c.output.script.as_bytes().len()).sum();
    assert_eq!(statistics.bogosize, 50 * 61 + scripts as u64);
    let total = coins.iter().map(|coin| coin.output.value_sat).sum();
    assert_eq!(statistics.total_amount_sat, total);
    assert_eq!(statistics.muhash, Some(muhash(&coins)));
    assert_eq!(statistics.hash_serialized_3.is_some(), ordered);
}

/// `copy_set`: "Copies the confirmed set and the tip of one store into another one that is empty, or that
/// an unfinished copy of the same set left. Frozen and reassigned outputs stay so, and outputs of locked
/// transactions locked. The target is marked
/// as unfinished before its first coin, and has no tip until a scan of it has the digest of all that was
/// read." To another store of the adapter and back.
pub(crate) async fn copies_are_whole_or_unfinished(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 6).await;
    for tag in 100..140 {
        store.coins(tag, 3).await;
    }
    let reassigned = store.reassigned_coin(3, 300).await;
    let both = store.reassigned_coin(4, 301).await;
    all(store.freeze(&[coins[0], both]).await);
    let locked = store.coin(7).await.txid;
    all(store.set_locked(&[locked], true).await);
    // Not in the confirmed set; what it spends is.
    store.accept(spender(5, coins[1])).await;
    store.mine(&[&spender(6, coins[2]).build()]).await;
    let from = store.state().await;
    let tip = from.tip.expect("connected");

    let mut copy = store.another().await;
    from.records.keys().for_each(|txid| copy.note(*txid));
    let mut polls = 1;
    let copied = loop {
        let done = dropped_after(polls, copy_set(&*store, &*copy, |_| {})).await;
        polls *= 3;
        copy.restart().await;
        if let Some(copied) = done {
            break all(copied);
        }
        let unfinished = all(unfinished_copy(&*copy).await);
        assert_eq!(
            unfinished.is_none(),
            all(copy.unmined(None, None, 1).await).items.is_empty()
        );
        if unfinished.is_none() {
            // Dropped before its first write, or after its last.
            assert!(copy.state().await.coins.is_empty() || all(copy.tip().await) == Some(tip));
        }
        if unfinished.is_none() && all(copy.tip().await).is_some() {
            copy = store.another().await;
            from.records.keys().for_each(|txid| copy.note(*txid));
        }
    };
    assert_eq!((copied.tip, copied.coins), (tip, from.coins.len() as u64));
    assert_eq!(copied.muhash, from.digest.muhash);
    assert_eq!(all(unfinished_copy(&*copy).await), None);
    let now = copy.state().await;
    assert_eq!(
        (now.tip, &now.coins, now.digest),
        (from.tip, &from.coins, from.digest)
    );
    assert_eq!(now.unmined, []);
    assert!(copy.whole_record(locked).await.locked);
    assert_eq!(copy.slot(coins[0]).await, SlotState::Frozen);
    assert_eq!(copy.slot(coins[1]).await, SlotState::Unspent);
    let spendable_from = 300;
    assert_eq!(
        copy.slot(reassigned).await,
        SlotState::Reassigned { spendable_from }
    );
    assert_eq!(copy.slot(both).await, SlotState::Frozen);
    all(copy.unfreeze(&[both]).await);
    let spendable_from = 301;
    assert_eq!(
        copy.slot(both).await,
        SlotState::Reassigned { spendable_from }
    );

    // The target holds something, the source is at another block, the source is unfinished.
    let refused = |answer: Result<Copied, Error>| {
        assert!(
            matches!(answer, Err(Error::InvalidRequest { .. })),
            "{answer:?}"
        );
    };
    refused(copy_set(&*store, &*copy, |_| {}).await);
    let other = store.another().await;
    refused(copy_set(&*other, &*store.another().await, |_| {}).await);
    let cut = Unreachable::new(other.share(), false);
    let answer = copy_set(&*store, &cut, |_| cut.cut(true)).await;
    assert!(matches!(answer, Err(Error::Backend { .. })), "{answer:?}");
    let begun = all(unfinished_copy(&*other).await);
    assert_eq!(begun, Some((tip.hash, tip.height)));
    assert_eq!(all(other.tip().await), None);
    store.mine(&[]).await;
    let before = other.state().await;
    refused(copy_set(&*store, &*other, |_| {}).await);
    refused(copy_set(&*other, &*store.another().await, |_| {}).await);
    before.assert_still(&other.state().await);
}
