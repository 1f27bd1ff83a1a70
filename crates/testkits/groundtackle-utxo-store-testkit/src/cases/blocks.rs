//! `BlockStore`.

use groundtackle_utxo_store::{
    Applied, BlockHash, COINBASE_MATURITY, ChainBlock, Coin, Connected, Disconnected, LongestChain,
    MinedIn, NewTransaction, OutPoint, Outcome, Record, SlotState, SpendOptions, Tip, Transaction,
    Txid, Verdict,
};
use tokio::task::JoinSet;

use super::{BEFORE, NOW, by, mined_in, spender, spent};
use crate::builder::{BlockBuilder, SUBSIDY_SAT, TxBuilder, out, script, tip_of};
use crate::harness::{Subject, all, one};

const UNKNOWN: Txid = Txid::from_bytes([9; 32]);

/// "The block up to which the store is connected; `None` when empty." "Sets the tip as one value":
/// nobody ever sees half of one.
pub(crate) async fn the_tip_is_one_value(store: Subject) {
    assert_eq!(all(store.tip().await), None);
    let tip = |n: u8| Tip {
        height: n.into(),
        hash: BlockHash::from_bytes([n; 32]),
        median_time_past: n.into(),
    };
    all(store.set_tip(&tip(0)).await);
    let mut tasks = JoinSet::new();
    for task in 0..4_u8 {
        let store = store.share();
        tasks.spawn(async move {
            for n in 0..50 {
                if task == 0 {
                    all(store.set_tip(&tip(n)).await);
                } else {
                    let seen = all(store.tip().await).expect("a tip was set");
                    assert_eq!(seen, tip(seen.height as u8));
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(all(store.tip().await), Some(tip(49)));
}

/// `set_mined`: "Records transactions as mined in a block. An entry of the same block is replaced.
/// If it is on the longest chain, the transaction leaves the unmined ones and its other entries
/// leave that chain; an entry that leaves it by being replaced makes the transaction unmined since
/// the block's height. Verdicts: `UnknownTransaction`, `Conflicting` (for the longest chain only)."
pub(crate) async fn mined_transactions_name_their_blocks(store: Subject) {
    let tx = store.accept(spender(2, store.coin(1).await)).await;
    let txid = tx.txid;
    let mine = async |entry: MinedIn| one(store.set_mined(&[txid], &entry).await);
    let expect = async |entries: &[MinedIn], unmined_since: Option<u32>| {
        let record = store.whole_record(txid).await;
        assert_eq!(record.mined_in, entries);
        assert_eq!(record.unmined_since, unmined_since);
        let unmined = store.state().await.unmined;
        assert_eq!(
            unmined.iter().any(|u| u.txid == txid),
            unmined_since.is_some()
        );
    };
    let (off, on, other) = (
        mined_in(1, 10, false),
        mined_in(1, 10, true),
        mined_in(2, 11, true),
    );
    assert_eq!(mine(off).await, NOW);
    expect(&[off], Some(1)).await;
    assert_eq!(mine(off).await, BEFORE);
    assert_eq!(mine(on).await, NOW);
    expect(&[on], None).await;
    assert_eq!(mine(on).await, BEFORE);
    assert_eq!(mine(other).await, NOW);
    expect(&[off, other], None).await;
    let off_again = MinedIn {
        subtree_index: 3,
        height: 12,
        on_longest_chain: false,
        ..other
    };
    assert_eq!(mine(off_again).await, NOW);
    expect(&[off, off_again], Some(12)).await;

    all(store.mark_conflicting(&[txid]).await);
    let verdict = Err(Verdict::Conflicting { txid });
    let answer = store.set_mined(&[UNKNOWN, txid], &on).await;
    let unknown = Err(Verdict::UnknownTransaction { txid: UNKNOWN });
    assert_eq!(all(answer), [unknown, verdict]);
    assert_eq!(mine(mined_in(3, 13, false)).await, NOW);
}

/// `unset_mined`: "Forgets that transactions are mined in a block. Where that was the longest
/// chain's, they are unmined since `unmined_since`. … no such entry is `Applied::Before`."
pub(crate) async fn unset_mined_forgets_one_block(store: Subject) {
    let tx = store.accept(spender(2, store.coin(1).await)).await;
    let txid = tx.txid;
    let (off, on) = (mined_in(1, 10, false), mined_in(2, 11, true));
    all(store.set_mined(&[txid], &off).await);
    all(store.set_mined(&[txid], &on).await);
    let unset = async |n: u8| {
        let block = BlockHash::from_bytes([n; 32]);
        all(store.unset_mined(&[txid, UNKNOWN], &block, 33).await)
    };
    let unknown = Err(Verdict::UnknownTransaction { txid: UNKNOWN });
    assert_eq!(unset(7).await, [BEFORE, unknown.clone()]);
    assert_eq!(unset(1).await, [NOW, unknown.clone()]);
    let record = store.whole_record(txid).await;
    assert_eq!((record.mined_in, record.unmined_since), (vec![on], None));
    assert_eq!(unset(2).await, [NOW, unknown.clone()]);
    let record = store.whole_record(txid).await;
    assert_eq!((record.mined_in, record.unmined_since), (vec![], Some(33)));
    assert_eq!(unset(2).await, [BEFORE, unknown]);
}

/// `set_longest_chain`: "On takes other entries off and the transaction out of the unmined ones; off
/// makes it unmined, if that entry was on. Verdicts: `UnknownTransaction`, `NotMinedIn`,
/// `Conflicting` (for on only)."
pub(crate) async fn marks_move_between_branches(store: Subject) {
    let tx = store.accept(spender(2, store.coin(1).await)).await;
    let txid = tx.txid;
    all(store.set_mined(&[txid], &mined_in(1, 10, true)).await);
    all(store.set_mined(&[txid], &mined_in(2, 10, false)).await);
    let mark = async |n: u8, mark| {
        let block = BlockHash::from_bytes([n; 32]);
        one(store.set_longest_chain(&[txid], &block, mark).await)
    };
    let off = |unmined_since| LongestChain::Off { unmined_since };
    let expect = async |entries: [bool; 2], unmined_since: Option<u32>| {
        let record = store.whole_record(txid).await;
        let on: Vec<_> = record.mined_in.iter().map(|m| m.on_longest_chain).collect();
        assert_eq!(
            (on, record.unmined_since),
            (entries.to_vec(), unmined_since)
        );
    };
    assert_eq!(mark(1, LongestChain::On).await, BEFORE);
    assert_eq!(mark(2, off(5)).await, BEFORE);
    expect([true, false], None).await;
    assert_eq!(mark(2, LongestChain::On).await, NOW);
    expect([false, true], None).await;
    assert_eq!(mark(2, off(6)).await, NOW);
    expect([false, false], Some(6)).await;
    assert_eq!(mark(2, off(7)).await, BEFORE);
    expect([false, false], Some(6)).await;

    let block = BlockHash::from_bytes([3; 32]);
    let not_there = Err(Verdict::NotMinedIn { txid, block });
    let unknown = Err(Verdict::UnknownTransaction { txid: UNKNOWN });
    let answer = store
        .set_longest_chain(&[txid, UNKNOWN], &block, LongestChain::On)
        .await;
    assert_eq!(all(answer), [not_there, unknown]);
    all(store.mark_conflicting(&[txid]).await);
    assert_eq!(
        mark(1, LongestChain::On).await,
        Err(Verdict::Conflicting { txid })
    );
    assert_eq!(mark(1, off(8)).await, BEFORE);
}

/// "Connects the block that follows the tip: for each transaction in order spends its inputs,
/// creates its record and marks it mined on the longest chain; then moves the tip. Transactions that
/// are in the store unmined are marked only. Fees not known are filled in." `Connected`: slots
/// created; "the coins spent, in the block's order; those made by the same block have its height."
/// "Connecting the tip again is `Applied::Before`."
pub(crate) async fn connecting_spends_creates_and_marks(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 4).await;
    let known = store.accept(spender(2, coins[0])).await;
    let with_fee = NewTransaction {
        fee_sat: Some(1),
        ..spender(3, coins[1]).build().into()
    };
    let batch = [with_fee.clone()];
    let answer = store.spend_and_create(&batch, &SpendOptions::at(201)).await;
    assert_eq!(one(answer), NOW);
    let with_fee = with_fee.tx;
    let fresh = TxBuilder::new(4)
        .spend(coins[2])
        .pay(600)
        .pay_nobody()
        .pay(300)
        .build();
    let child = TxBuilder::new(5)
        .spend(out(&fresh, 2))
        .spend(out(&known, 0))
        .build();
    let transactions = [&known, &with_fee, &fresh, &child];
    let block = store.next_block().await.with(&transactions).build();
    let coin = |outpoint: OutPoint, output: &groundtackle_utxo_store::TxOut, height| Coin {
        outpoint,
        output: output.clone(),
        height,
        coinbase: false,
    };
    let mut seeded = Vec::new();
    for outpoint in &coins {
        seeded.push(coin(*outpoint, &store.view(*outpoint).await.output, 1));
    }
    let mut expected = Connected {
        applied: Applied::Now,
        // The coinbase's and two of `fresh`; `known` and `with_fee` had theirs.
        created_outputs: 3,
        spent: vec![
            seeded[0].clone(),
            seeded[1].clone(),
            seeded[2].clone(),
            coin(out(&fresh, 2), &fresh.outputs[2], 201),
            coin(out(&known, 0), &known.outputs[0], 201),
        ],
    };
    assert_eq!(store.connect(&block).await, Ok(expected.clone()));
    assert_eq!(all(store.tip().await), Some(tip_of(&block)));
    let mined = MinedIn {
        block: Some(block.hash),
        height: 201,
        subtree_index: 0,
        on_longest_chain: true,
    };
    let fees = [None, Some(100), Some(1), Some(100), Some(1_200)];
    for (tx, fee_sat) in block.transactions.iter().zip(fees) {
        let record = store.whole_record(tx.txid).await;
        assert_eq!(record.mined_in, [mined]);
        assert_eq!(record.unmined_since, None);
        assert_eq!(record.fee_sat, fee_sat);
        assert_eq!(record.inputs, tx.inputs);
        for (vin, input) in (0..).zip(&tx.inputs) {
            assert_eq!(store.slot(*input).await, spent(tx, vin));
        }
    }
    let state = store.state().await;
    assert_eq!(state.unmined, []);
    let mut set: Vec<_> = state.coins.iter().map(|coin| coin.outpoint).collect();
    let mut unspent = vec![
        coins[3],
        out(&block.transactions[0], 0),
        out(&with_fee, 0),
        out(&fresh, 0),
    ];
    set.sort_unstable();
    unspent.sort_unstable();
    assert_eq!(set, unspent);

    expected.applied = Applied::Before;
    assert_eq!(store.connect(&block).await, Ok(expected));
    state.assert_still(&store.state().await);
}

/// Verdicts: "`NotNext`, or `InBlock` with the first transaction refused: an output missing, spent by
/// another …, frozen, immature, `Unconfirmed`; the transaction `Conflicting`, or `AlreadyExists` on
/// the longest chain; `InvalidTransaction` (a coinbase that is not first, or the first that is none)."
/// A refused block leaves nothing behind.
pub(crate) async fn a_refused_block_changes_nothing(store: Subject) {
    let tip = store.begin_chain().await;
    let coins = store.coins(1, 6).await;
    let good = spender(10, coins[0]).build();

    let outpoint = OutPoint::new(UNKNOWN, 0);
    let bad = spender(11, outpoint).build();
    let missing = Verdict::MissingTransaction { outpoint };
    store.refused_block(&[&good, &bad], &bad, missing).await;

    let outpoint = OutPoint::new(coins[0].txid, 66);
    let bad = spender(11, outpoint).build();
    let missing = Verdict::MissingOutput { outpoint };
    store.refused_block(&[&good, &bad], &bad, missing).await;

    let rival = TxBuilder::new(12).spend(coins[0]).pay(1).build();
    let outpoint = coins[0];
    let held = Verdict::AlreadySpent {
        outpoint,
        by: by(&good, 0),
    };
    store.refused_block(&[&good, &rival], &rival, held).await;

    let outpoint = coins[1];
    all(store.freeze(&[outpoint]).await);
    let bad = spender(13, outpoint).build();
    let frozen = Verdict::Frozen { outpoint };
    store.refused_block(&[&good, &bad], &bad, frozen).await;

    let parent = store.accept(spender(14, coins[2])).await;
    let outpoint = out(&parent, 0);
    let bad = spender(15, outpoint).build();
    let unconfirmed = Verdict::Unconfirmed { outpoint };
    store
        .refused_block(&[&good, &bad], &bad, unconfirmed.clone())
        .await;
    store.accept(spender(15, outpoint)).await;
    store.refused_block(&[&good, &bad], &bad, unconfirmed).await;
    // A child before its parent.
    let late = spender(16, coins[3]).build();
    let early = spender(17, out(&late, 0)).build();
    let outpoint = out(&late, 0);
    let missing = Verdict::MissingTransaction { outpoint };
    store.refused_block(&[&early, &late], &early, missing).await;

    let lost = spender(18, coins[4]).build();
    assert_eq!(store.lost(&lost, None, 1).await, NOW);
    let txid = lost.txid;
    let conflicting = Verdict::Conflicting { txid };
    store
        .refused_block(&[&good, &lost], &lost, conflicting)
        .await;
    let child = spender(19, out(&lost, 0)).build();
    let outpoint = out(&lost, 0);
    let conflicting = Verdict::ConflictingParent { outpoint };
    store
        .refused_block(&[&good, &child], &child, conflicting)
        .await;

    let confirmed = spender(20, coins[5]).build();
    let first = store.mine(&[&confirmed]).await;
    let txid = confirmed.txid;
    let exists = Verdict::AlreadyExists { txid };
    store
        .refused_block(&[&good, &confirmed], &confirmed, exists)
        .await;
    let coinbase = first.transactions[0].clone();
    let outpoint = out(&coinbase, 0);
    let bad = spender(21, outpoint).build();
    let immature = Verdict::Immature {
        outpoint,
        spendable_at: Some(201 + COINBASE_MATURITY),
    };
    store.refused_block(&[&good, &bad], &bad, immature).await;

    // Invalid shapes of a block.
    let block = store.next_block().await;
    let rich = TxBuilder::coinbase(30)
        .pay(21_000_000 * 100_000_000 + 1)
        .build();
    let second = TxBuilder::coinbase(31).build();
    for (block, culprit) in [
        (block.clone().coinbase(&good), &good),
        (block.clone().with(&[&second]), &second),
        (block.clone().coinbase(&rich), &rich),
    ] {
        let block = block.build();
        let before = store.state().await;
        let answer = store.connect(&block).await;
        let Err(Verdict::InBlock { txid, verdict, .. }) = &answer else {
            panic!("{answer:?}");
        };
        assert!(
            matches!(&**verdict, Verdict::InvalidTransaction { txid: named, .. } if named == txid)
        );
        assert_eq!(*txid, culprit.txid);
        before.assert_still(&store.state().await);
    }

    // Not the next one.
    let before = store.state().await;
    let next = store.next_block().await.build();
    let stranger = ChainBlock {
        previous: tip.hash,
        ..next.clone()
    };
    let too_high = ChainBlock {
        height: next.height + 1,
        ..next.clone()
    };
    let genesis = BlockBuilder::after(None).build();
    for block in [stranger, too_high, genesis] {
        let refused = Verdict::NotNext {
            block: block.hash,
            tip: Some(tip_of(&first)),
        };
        assert_eq!(store.connect(&block).await, Err(refused));
    }
    before.assert_still(&store.state().await);
    let empty = store.another().await;
    let refused = Verdict::NotNext {
        block: next.hash,
        tip: None,
    };
    assert_eq!(empty.connect(&next).await, Err(refused));
}

/// "A genesis block creates nothing." It can be taken back, which leaves an empty store.
pub(crate) async fn a_genesis_block_creates_nothing(store: Subject) {
    let empty = store.state().await;
    let genesis = BlockBuilder::after(None).build();
    let connected = Connected {
        applied: Applied::Now,
        created_outputs: 0,
        spent: vec![],
    };
    assert_eq!(store.connect(&genesis).await, Ok(connected.clone()));
    let state = store.state().await;
    assert_eq!(state.tip, Some(tip_of(&genesis)));
    assert!(state.records.is_empty() && state.coins.is_empty());
    assert_eq!(state.digest.muhash, empty.digest.muhash);
    let again = Connected {
        applied: Applied::Before,
        ..connected
    };
    assert_eq!(store.connect(&genesis).await, Ok(again));
    let next = store.mine(&[]).await;
    store.disconnect(&next).await.expect("it is the tip");
    let answer = store.disconnect(&genesis).await;
    assert_eq!(answer, taken_back(0, None));
    empty.assert_still(&store.state().await);
}

fn taken_back(kept_unmined: u64, tip: Option<Tip>) -> Outcome<Disconnected> {
    Ok(Disconnected {
        applied: Applied::Now,
        kept_unmined,
        tip,
    })
}

/// "The coinbase may replace one of the same identifier that is fully spent, or any where the block
/// says so (BIP 30)." And back: "a replaced coinbase returns".
pub(crate) async fn duplicate_coinbases_replace_and_return(store: Subject) {
    store.begin_chain().await;
    let coinbase = TxBuilder::coinbase(1).pay(7).build();
    let first = store.next_block().await.coinbase(&coinbase);
    store.connected(first).await;

    // Unspent, and the block is not exempt.
    let second = store.next_block().await.coinbase(&coinbase);
    let refused = Verdict::InBlock {
        block: second.clone().build().hash,
        txid: coinbase.txid,
        verdict: Box::new(Verdict::AlreadyExists {
            txid: coinbase.txid,
        }),
    };
    let before = store.state().await;
    assert_eq!(store.connect(&second.clone().build()).await, Err(refused));
    before.assert_still(&store.state().await);

    let exempt = store.connected(second.coinbase_may_overwrite()).await;
    let record = store.whole_record(coinbase.txid).await;
    assert_eq!(record.confirmed_height(), Some(202));
    assert_eq!(record.mined_in.len(), 1, "the earlier one is gone");
    let state = store.state().await;
    assert_eq!(state.coins.len(), 2);
    assert!(state.coins.iter().all(|coin| coin.height == 202));
    assert_eq!(state.digest.muhash, crate::state::muhash(&state.coins));
    store.disconnect(&exempt).await.expect("it is the tip");
    before.assert_still(&store.state().await);

    // Fully spent: any block may.
    for _ in 0..COINBASE_MATURITY - 1 {
        store.mine(&[]).await;
    }
    let spend = TxBuilder::new(2)
        .spend(out(&coinbase, 0))
        .spend(out(&coinbase, 1))
        .pay(3)
        .build();
    store.mine(&[&spend]).await;
    let before = store.state().await;
    let again = store.next_block().await.coinbase(&coinbase);
    let again = store.connected(again).await;
    let height = Some(again.height);
    assert_eq!(
        store.whole_record(coinbase.txid).await.confirmed_height(),
        height
    );
    assert_eq!(store.slot(out(&coinbase, 0)).await, SlotState::Unspent);
    store.disconnect(&again).await.expect("it is the tip");
    before.assert_still(&store.state().await);
}

/// "Takes back the tip, exactly: transactions that connecting it created are removed and what they
/// spent is unspent; those that were there before are unmined since when they were".
pub(crate) async fn disconnecting_takes_back_exactly(store: Subject) {
    let tip = store.begin_chain().await;
    let coins = store.coins(1, 4).await;
    let known = spender(2, coins[0]).build();
    assert_eq!(store.submit_under(&known, SpendOptions::at(150)).await, NOW);
    // One that another branch holds too, and one with a mark of its own.
    let shared = store.accept(spender(3, coins[1])).await;
    all(store
        .set_mined(&[shared.txid], &mined_in(7, 201, false))
        .await);
    all(store.set_locked(&[shared.txid], true).await);
    let before = store.state().await;
    let fresh = spender(4, coins[2]).build();
    let child = spender(5, out(&fresh, 0)).spend(out(&known, 0)).build();
    let block = store.mine(&[&known, &shared, &fresh, &child]).await;
    assert_ne!(store.state().await, before);
    assert_eq!(store.disconnect(&block).await, taken_back(0, Some(tip)));
    before.assert_still(&store.state().await);

    // Repetition.
    let answer = Disconnected {
        applied: Applied::Before,
        kept_unmined: 0,
        tip: Some(tip),
    };
    assert_eq!(store.disconnect(&block).await, Ok(answer));
    before.assert_still(&store.state().await);
    // And the same block again.
    assert!(store.connect(&block).await.is_ok());
    store.disconnect(&block).await.expect("it is the tip");
    before.assert_still(&store.state().await);
}

/// "A transaction that carries a lock, a freeze, a reassignment or a preservation, or an output of
/// which something unmined spends, stays as unmined since the block's height, so that no mark is
/// lost." The mempool's children stay too.
pub(crate) async fn marks_are_kept_on_disconnect(store: Subject) {
    let tip = store.begin_chain().await;
    let coins = store.coins(1, 7).await;
    let txs: Vec<_> = (0..7)
        .map(|n| spender(10 + n, coins[n as usize]).build())
        .collect();
    let block = store.mine(&txs.iter().collect::<Vec<_>>()).await;
    let [
        locked,
        frozen,
        reassigned,
        preserved,
        spent_unmined,
        in_conflict,
        plain,
    ] = &txs[..]
    else {
        unreachable!("seven");
    };
    all(store.set_locked(&[locked.txid], true).await);
    all(store.freeze(&[out(frozen, 0), out(reassigned, 0)]).await);
    store.reassign_to(out(reassigned, 0), 300).await;
    all(store.preserve(&[preserved.txid], 900).await);
    let child = store.accept(spender(30, out(spent_unmined, 0))).await;
    let lost = spender(31, out(in_conflict, 0)).build();
    assert_eq!(store.lost(&lost, None, 1).await, NOW);
    let marked = [
        locked,
        frozen,
        reassigned,
        preserved,
        spent_unmined,
        in_conflict,
    ];
    let mut expected: Vec<Record> = Vec::new();
    for tx in marked {
        let record = store.whole_record(tx.txid).await;
        expected.push(Record {
            mined_in: vec![],
            unmined_since: Some(201),
            ..record
        });
    }
    assert_eq!(store.disconnect(&block).await, taken_back(6, Some(tip)));
    for (expected, tx) in expected.iter().zip(marked) {
        assert_eq!(store.whole_record(tx.txid).await, *expected);
        assert_eq!(store.slot(tx.inputs[0]).await, spent(tx, 0));
    }
    assert_eq!(store.slot(out(spent_unmined, 0)).await, spent(&child, 0));
    assert_eq!(store.find_record(plain.txid).await, None);
    assert_eq!(store.slot(coins[6]).await, SlotState::Unspent);
    let coins_now = store.state().await.coins;
    assert_eq!(
        coins_now.len(),
        7,
        "of the set none is spent, whatever is in the mempool"
    );

    // It holds the block's transactions as unmined ones now.
    all(store.unfreeze(&[out(frozen, 0)]).await);
    assert!(store.connect(&block).await.is_ok());
    assert!(store.whole_record(locked.txid).await.locked);
}

/// "One that `set_mined` has put into another block of the longest chain meanwhile stays mined
/// there."
pub(crate) async fn what_is_mined_elsewhere_stays_mined(store: Subject) {
    let tip = store.begin_chain().await;
    let coins = store.coins(1, 2).await;
    let known = store.accept(spender(2, coins[0])).await;
    let fresh = spender(3, coins[1]).build();
    let block = store.mine(&[&known, &fresh]).await;
    let elsewhere = mined_in(1, 201, true);
    let txids = [known.txid, fresh.txid];
    assert_eq!(all(store.set_mined(&txids, &elsewhere).await), [NOW; 2]);
    assert_eq!(store.disconnect(&block).await, taken_back(0, Some(tip)));
    for txid in txids {
        let record = store.whole_record(txid).await;
        assert_eq!(record.mined_in, [elsewhere]);
        assert_eq!(record.unmined_since, None);
    }
    let state = store.state().await;
    assert_eq!(state.unmined, []);
    assert_eq!(state.digest.muhash, crate::state::muhash(&state.coins));
}

/// Verdicts: "`NotTip`, `NoUndo`, `StillSpent` (an unmined transaction spends the block's coinbase:
/// mark it conflicting and unspend or remove it first)." `previous` "tells a repetition from a
/// mistake".
pub(crate) async fn disconnecting_names_what_is_in_the_way(store: Subject) {
    let tip = store.begin_chain().await;
    let stranger = BlockHash::from_bytes([5; 32]);
    let take_back = async |block, previous| all(store.disconnect_block(&block, &previous).await);
    let no_undo = Err(Verdict::NoUndo { block: tip.hash });
    assert_eq!(take_back(tip.hash, stranger).await, no_undo, "seeded");
    let block = store.mine(&[]).await;
    let spend = TxBuilder::new(1)
        .spend(out(&block.transactions[0], 0))
        .pay(SUBSIDY_SAT)
        .build();
    let at_once = SpendOptions {
        coinbase_maturity: 0,
        ..SpendOptions::at(202)
    };
    assert_eq!(store.submit_under(&spend, at_once).await, NOW);
    let before = store.state().await;
    let now = Some(tip_of(&block));
    for (wrong, previous) in [
        (stranger, tip.hash),
        (tip.hash, stranger),
        (block.hash, stranger),
    ] {
        let refused = Err(Verdict::NotTip {
            block: wrong,
            tip: now,
        });
        assert_eq!(take_back(wrong, previous).await, refused);
    }
    let refused = Err(Verdict::StillSpent {
        outpoint: out(&block.transactions[0], 0),
        by: by(&spend, 0),
    });
    assert_eq!(store.disconnect(&block).await, refused);
    before.assert_still(&store.state().await);
    assert_eq!(one(store.remove(&[spend.txid]).await), NOW);
    assert_eq!(store.disconnect(&block).await, taken_back(0, Some(tip)));
}

/// A reorganisation leaves what the winning branch alone would have left, and back again.
pub(crate) async fn a_reorganisation_leaves_one_branch(store: Subject) {
    let straight = store.another().await;
    let prepare = async |store: &Subject| {
        store.begin_chain().await;
        (store.coins(1, 4).await, store.coin(2).await)
    };
    let (coins, other) = prepare(&store).await;
    prepare(&straight).await;
    let shared = spender(10, coins[0]).build();
    let only_left = spender(11, coins[1]).build();
    let left_child = spender(12, out(&only_left, 0)).spend(coins[2]).build();
    let rival = spender(13, coins[1]).pay(7).build();
    let right_child = spender(14, out(&rival, 0)).spend(other).build();
    for tx in [&only_left, &left_child, &rival, &right_child, &shared] {
        store.note(tx.txid);
        straight.note(tx.txid);
    }

    let base = store.next_block().await;
    let left_1 = store
        .connected(base.clone().with(&[&shared, &only_left]))
        .await;
    let left_2 = store.mine(&[&left_child]).await;
    let at_left = store.state().await;
    for block in [&left_2, &left_1] {
        store.disconnect(block).await.expect("it is the tip");
    }
    let right_1 = store.connected(base.branch(1).with(&[&rival])).await;
    let right_2 = store.mine(&[&shared, &right_child]).await;
    for block in [&right_1, &right_2] {
        assert!(straight.connect(block).await.is_ok());
    }
    store.state().await.assert_still(&straight.state().await);
    for block in [&right_2, &right_1] {
        store.disconnect(block).await.expect("it is the tip");
    }
    for block in [&left_1, &left_2] {
        assert!(store.connect(block).await.is_ok());
    }
    at_left.assert_still(&store.state().await);
}

/// "Freezes, reassignments and maturity do [bind blocks]", for transactions too that were accepted
/// before and hold their inputs already.
pub(crate) async fn blocks_are_judged_where_the_mempool_was_not(store: Subject) {
    store.begin_chain().await;
    let young = TxBuilder::coinbase(1).seed(150);
    let outpoint = OutPoint::new(young.txid(), 0);
    assert_eq!(store.put(young).await, NOW);
    let early = spender(2, outpoint).build();
    let at_once = SpendOptions {
        coinbase_maturity: 0,
        ..SpendOptions::at(201)
    };
    assert_eq!(store.submit_under(&early, at_once).await, NOW);
    let immature = Verdict::Immature {
        outpoint,
        spendable_at: Some(250),
    };
    store.refused_block(&[&early], &early, immature).await;

    let outpoint = store.reassigned_coin(3, 210).await;
    let waiting = spender(4, outpoint).build();
    assert_eq!(
        store.submit_under(&waiting, SpendOptions::at(210)).await,
        NOW
    );
    let height = 210;
    let until = Verdict::FrozenUntil { outpoint, height };
    store.refused_block(&[&waiting], &waiting, until).await;
    assert_eq!(script(7_777), store.view(outpoint).await.output.script);
}

impl Subject {
    /// A block of these transactions is refused because of `culprit`, and changes nothing.
    pub(crate) async fn refused_block(
        &self,
        transactions: &[&Transaction],
        culprit: &Transaction,
        verdict: Verdict,
    ) {
        let before = self.state().await;
        let block = self.next_block().await.with(transactions).build();
        let refused = Verdict::InBlock {
            block: block.hash,
            txid: culprit.txid,
            verdict: Box::new(verdict),
        };
        assert_eq!(self.connect(&block).await, Err(refused));
        before.assert_still(&self.state().await);
    }
}
