//! `SpendStore`: the halves of spend-and-create, removal and reads.

use groundtackle_utxo_store::{
    Applied, Fields, MinedIn, NewRecord, OutPoint, OutputView, Record, RecordOutput, SlotState,
    SpendOptions, Transaction, Txid, Verdict,
};

use super::{BEFORE, NOW, by, mined_in, spender, spent};
use crate::builder::{SUBSIDY_SAT, TxBuilder, out, script};
use crate::harness::{Subject, all, one};

/// "Creates records without spending: a coinbase, coins of a snapshot, a conflicting transaction
/// kept for later." The last one "holds none of its inputs".
pub(crate) async fn creates_without_spending(store: Subject) {
    let coinbase = TxBuilder::coinbase(1).pay_nobody().pay(3).build();
    let outputs = |tx: &Transaction, vouts: &[u32]| -> Vec<RecordOutput> {
        let unspent = |vout: &u32| RecordOutput::unspent(*vout, tx.outputs[*vout as usize].clone());
        vouts.iter().map(unspent).collect()
    };
    let expected = Record {
        txid: coinbase.txid,
        coinbase: true,
        fee_sat: None,
        size_bytes: coinbase.size_bytes,
        lock_time: 0,
        inputs: vec![],
        outputs: outputs(&coinbase, &[0, 2]),
        mined_in: vec![mined_in(1, 10, true)],
        unmined_since: None,
        locked: false,
        conflicting: false,
        conflicting_children: vec![],
        preserve_until: None,
    };
    let tx = coinbase.clone();
    let mined = mined_in(1, 10, true);
    assert_eq!(store.put(NewRecord::Coinbase { tx, mined }).await, NOW);
    assert_eq!(store.whole_record(coinbase.txid).await, expected);

    let stale = store.off_chain_coinbase(2).await;
    let record = store.whole_record(stale.txid).await;
    assert_eq!(record.unmined_since, Some(50));

    let seeded = TxBuilder::new(3).pay(5).pay(6).build();
    let record = NewRecord::Seed {
        txid: seeded.txid,
        coinbase: false,
        height: 7,
        outputs: vec![
            (1, seeded.outputs[1].clone()),
            (70_000, seeded.outputs[0].clone()),
        ],
    };
    assert_eq!(store.put(record).await, NOW);
    let mined = MinedIn {
        block: None,
        ..mined_in(0, 7, true)
    };
    let expected = Record {
        txid: seeded.txid,
        coinbase: false,
        size_bytes: 0,
        outputs: vec![
            RecordOutput::unspent(1, seeded.outputs[1].clone()),
            RecordOutput::unspent(70_000, seeded.outputs[0].clone()),
        ],
        mined_in: vec![mined],
        ..expected
    };
    assert_eq!(store.whole_record(seeded.txid).await, expected);

    let parent = OutPoint::new(seeded.txid, 1);
    let loser = spender(4, parent).lock_time(9).build();
    assert_eq!(store.lost(&loser, Some(11), 40).await, NOW);
    let expected = Record {
        txid: loser.txid,
        fee_sat: Some(11),
        size_bytes: loser.size_bytes,
        lock_time: 9,
        inputs: vec![parent],
        outputs: outputs(&loser, &[0]),
        mined_in: vec![],
        unmined_since: Some(40),
        conflicting: true,
        ..expected
    };
    assert_eq!(store.whole_record(loser.txid).await, expected);
    assert_eq!(store.slot(parent).await, SlotState::Unspent);
    let record = store.whole_record(seeded.txid).await;
    assert_eq!(record.conflicting_children, [loser.txid]);
}

/// "Idempotency: a record that has the same content already is `Applied::Before`; another one with
/// that identifier is `AlreadyExists`." In order within a batch too.
pub(crate) async fn creating_again_is_judged_by_content(store: Subject) {
    let seed = |height, value_sat| NewRecord::Seed {
        txid: Txid::from_bytes([3; 32]),
        coinbase: false,
        height,
        outputs: vec![(
            0,
            TxBuilder::new(1).pay(value_sat).build().outputs.remove(0),
        )],
    };
    let txid = seed(5, 10).txid();
    let exists = Err(Verdict::AlreadyExists { txid });
    let batch = [seed(5, 10), seed(5, 10), seed(6, 10), seed(5, 11)];
    store.note(txid);
    assert_eq!(
        all(store.create(&batch).await),
        [NOW, BEFORE, exists.clone(), exists.clone()]
    );
    // What happened to it since does not make it another one.
    let coin = OutPoint::new(txid, 0);
    all(store.freeze(&[coin]).await);
    store.reassign_to(coin, 1).await;
    store.accept(spender(2, coin)).await;
    let before = store.state().await;
    assert_eq!(
        all(store.create(&batch).await),
        [BEFORE, BEFORE, exists.clone(), exists]
    );
    before.assert_still(&store.state().await);

    let tx = store.accept(spender(4, store.coin(3).await)).await;
    let txid = tx.txid;
    assert_eq!(
        store.lost(&tx, None, 1).await,
        Err(Verdict::AlreadyExists { txid }),
        "it is there and not conflicting"
    );
    let lost = spender(6, store.coin(5).await).build();
    assert_eq!(store.lost(&lost, None, 1).await, NOW);
    assert_eq!(store.lost(&lost, None, 1).await, BEFORE);
}

/// "`InvalidTransaction` (not a coinbase, a coinbase as conflicting, indexes not ascending, an
/// unspendable output in a seed, an amount above 21 million coins)."
pub(crate) async fn create_names_what_is_invalid(store: Subject) {
    let coin = store.coin(1).await;
    let output = |value_sat| TxBuilder::new(2).pay(value_sat).build().outputs.remove(0);
    let unspendable = TxBuilder::new(2).pay_nobody().build().outputs.remove(0);
    let rich = output(21_000_000 * 100_000_000 + 1);
    let seed = |outputs| NewRecord::Seed {
        txid: Txid::from_bytes([3; 32]),
        coinbase: false,
        height: 1,
        outputs,
    };
    let coinbase = |tx| NewRecord::Coinbase {
        tx,
        mined: mined_in(1, 1, true),
    };
    let conflicting = |tx| NewRecord::Conflicting {
        tx,
        fee_sat: None,
        unmined_since: 1,
    };
    let mut minting = spender(4, coin).build();
    minting.coinbase = true;
    let bad = [
        coinbase(spender(4, coin).build()),
        coinbase(minting.clone()),
        coinbase(
            TxBuilder::coinbase(4)
                .pay_to(rich.value_sat, script(1))
                .build(),
        ),
        conflicting(TxBuilder::coinbase(5).build()),
        conflicting(minting),
        conflicting(TxBuilder::new(5).pay(1).build()),
        conflicting(spender(5, coin).pay_to(rich.value_sat, script(1)).build()),
        seed(vec![(1, output(1)), (0, output(1))]),
        seed(vec![(1, output(1)), (1, output(1))]),
        seed(vec![(0, unspendable)]),
        seed(vec![(0, rich)]),
    ];
    let before = store.state().await;
    let answers = all(store.create(&bad).await);
    for (record, answer) in bad.iter().zip(&answers) {
        store.note(record.txid());
        let told = matches!(answer, Err(Verdict::InvalidTransaction { txid, .. }) if *txid == record.txid());
        assert!(told, "{answer:?} for {record:?}");
    }
    assert_eq!(answers.len(), bad.len());
    before.assert_still(&store.state().await);
}

/// `spend`: "Marks every input of transactions that are on record as spent by them … It stays
/// conflicting until unmarked. Atomicity: per transaction all or nothing. Idempotency: inputs it
/// holds already stay so."
pub(crate) async fn a_conflicting_transaction_can_take_its_inputs(store: Subject) {
    let coins = store.coins(1, 3).await;
    let winner = store.accept(spender(2, coins[2])).await;
    let loser = TxBuilder::new(3).spend_all(coins.clone()).pay(1).build();
    assert_eq!(store.lost(&loser, None, 1).await, NOW);
    let take = async |txid| one(store.spend(&[txid], &SpendOptions::at(1)).await);

    let before = store.state().await;
    let outpoint = coins[2];
    let by = by(&winner, 0);
    let refused = Err(Verdict::AlreadySpent { outpoint, by });
    assert_eq!(take(loser.txid).await, refused);
    before.assert_still(&store.state().await);

    all(store.mark_conflicting(&[winner.txid]).await);
    all(store.unspend(&[winner.txid]).await);
    assert_eq!(take(loser.txid).await, NOW);
    for (vin, coin) in (0..).zip(&coins) {
        assert_eq!(store.slot(*coin).await, spent(&loser, vin));
    }
    assert!(store.whole_record(loser.txid).await.conflicting);
    let before = store.state().await;
    assert_eq!(take(loser.txid).await, BEFORE);
    assert_eq!(
        take(store.accept(spender(5, store.coin(4).await)).await.txid).await,
        BEFORE
    );
    for (txid, record) in before.records {
        if txid != coins[0].txid {
            assert_eq!(store.whole_record(txid).await, record);
        }
    }
    let txid = Txid::from_bytes([9; 32]);
    assert_eq!(take(txid).await, Err(Verdict::UnknownTransaction { txid }));

    let frozen = store.coin(6).await;
    all(store.freeze(&[frozen]).await);
    let stuck = spender(7, frozen).build();
    assert_eq!(store.lost(&stuck, None, 1).await, NOW);
    let refused = Err(Verdict::Frozen { outpoint: frozen });
    assert_eq!(take(stuck.txid).await, refused, "verdicts on inputs");
}

/// `unspend`: "`UnknownTransaction`, `NotConflicting` (its outputs could be spent while it holds
/// nothing)"; "holding nothing is `Applied::Before`".
pub(crate) async fn only_conflicting_transactions_give_back(store: Subject) {
    let coin = store.coin(1).await;
    let tx = store.accept(spender(2, coin)).await;
    let txid = tx.txid;
    let give_back = async |txid| one(store.unspend(&[txid]).await);
    let before = store.state().await;
    assert_eq!(give_back(txid).await, Err(Verdict::NotConflicting { txid }));
    before.assert_still(&store.state().await);
    let unknown = Txid::from_bytes([9; 32]);
    let verdict = Verdict::UnknownTransaction { txid: unknown };
    assert_eq!(give_back(unknown).await, Err(verdict));

    all(store.mark_conflicting(&[txid]).await);
    assert_eq!(give_back(txid).await, NOW);
    assert_eq!(store.slot(coin).await, SlotState::Unspent);
    let before = store.state().await;
    assert_eq!(give_back(txid).await, BEFORE);
    before.assert_still(&store.state().await);
    store.accept(spender(3, coin)).await;
}

/// `remove`: "Removes unmined transactions for good and takes back what they hold … an unknown
/// transaction is `Applied::Before`. `MinedOnLongestChain`, `StillSpent` (children go first)."
pub(crate) async fn remove_evicts_unmined_transactions(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 2).await;
    let tx = store
        .accept(TxBuilder::new(2).spend_all(coins.clone()).pay(5))
        .await;
    let child = store.accept(spender(3, out(&tx, 0))).await;
    let evict = async |txid| one(store.remove(&[txid]).await);
    let before = store.state().await;
    let verdict = Verdict::StillSpent {
        outpoint: out(&tx, 0),
        by: by(&child, 0),
    };
    assert_eq!(evict(tx.txid).await, Err(verdict));
    before.assert_still(&store.state().await);

    let answer = store.remove(&[child.txid, tx.txid, tx.txid]).await;
    assert_eq!(all(answer), [NOW, NOW, BEFORE]);
    for txid in [child.txid, tx.txid] {
        assert_eq!(store.find_record(txid).await, None);
    }
    for coin in &coins {
        assert_eq!(store.slot(*coin).await, SlotState::Unspent);
    }
    assert_eq!(evict(Txid::from_bytes([9; 32])).await, BEFORE);

    // What a conflicting one's parents know of it goes with it; what another holds stays.
    let winner = store.accept(spender(4, coins[0])).await;
    let loser = spender(5, coins[0]).spend(coins[1]).build();
    assert_eq!(store.lost(&loser, None, 1).await, NOW);
    assert_eq!(evict(loser.txid).await, NOW);
    let parent = store.whole_record(coins[0].txid).await;
    assert_eq!(parent.conflicting_children, []);
    assert_eq!(store.slot(coins[0]).await, spent(&winner, 0));

    store.mine(&[&winner]).await;
    let txid = winner.txid;
    let verdict = Verdict::MinedOnLongestChain { txid };
    assert_eq!(evict(txid).await, Err(verdict));
    // It may enter again: removed is not pruned.
    store.accept(spender(6, coins[1])).await;
}

/// "Reads records, `None` where there is none"; "Which parts of a record to read. The rest of a
/// record is small and always there."
pub(crate) async fn reads_records_in_order_with_the_fields_asked_for(store: Subject) {
    let parent = store.accept(spender(2, store.coin(1).await)).await;
    let child = store.accept(spender(3, out(&parent, 0))).await;
    let unknown = Txid::from_bytes([9; 32]);
    let asked = [child.txid, unknown, parent.txid, child.txid];
    let whole = all(store.records(&asked, Fields::ALL).await);
    let found: Vec<_> = whole.iter().map(|r| r.as_ref().map(|r| r.txid)).collect();
    assert_eq!(
        found,
        [Some(child.txid), None, Some(parent.txid), Some(child.txid)]
    );
    for inputs in [false, true] {
        for outputs in [false, true] {
            let read = all(store.records(&asked, Fields { inputs, outputs }).await);
            let mut expected = whole.clone();
            for record in expected.iter_mut().flatten() {
                if !inputs {
                    record.inputs.clear();
                }
                if !outputs {
                    record.outputs.clear();
                }
            }
            assert_eq!(read, expected);
        }
    }
    assert_eq!(all(store.records(&[], Fields::ALL).await), []);
}

/// "Reads outputs with all that a validator needs: amount, script, height, coinbase, state.
/// Verdicts: `MissingTransaction`, `MissingOutput`."
pub(crate) async fn reads_outputs_for_validators(store: Subject) {
    store.begin_chain().await;
    let block = store.mine(&[]).await;
    let coinbase = &block.transactions[0];
    let tx = store
        .accept(spender(2, store.coin(1).await).pay_nobody())
        .await;
    let missing = OutPoint::new(Txid::from_bytes([9; 32]), 0);
    let asked = [out(coinbase, 0), missing, out(&tx, 0), out(&tx, 1)];
    let view = OutputView {
        outpoint: asked[0],
        output: coinbase.outputs[0].clone(),
        height: Some(201),
        coinbase: true,
        state: SlotState::Unspent,
        locked: false,
        conflicting: false,
    };
    let other = OutputView {
        outpoint: asked[2],
        output: tx.outputs[0].clone(),
        height: None,
        coinbase: false,
        ..view.clone()
    };
    assert_eq!(view.output.value_sat, SUBSIDY_SAT);
    assert_eq!(
        all(store.outputs(&asked).await),
        [
            Ok(view.clone()),
            Err(Verdict::MissingTransaction { outpoint: missing }),
            Ok(other.clone()),
            Err(Verdict::MissingOutput { outpoint: asked[3] }),
        ]
    );
    all(store.set_locked(&[tx.txid], true).await);
    all(store.mark_conflicting(&[tx.txid]).await);
    all(store.freeze(&[asked[2]]).await);
    let now = OutputView {
        locked: true,
        conflicting: true,
        state: SlotState::Frozen,
        ..other
    };
    assert_eq!(store.view(asked[2]).await, now);
}

impl Subject {
    /// Keeps a transaction that lost to another one.
    pub(crate) async fn lost(
        &self,
        tx: &Transaction,
        fee_sat: Option<u64>,
        unmined_since: u32,
    ) -> groundtackle_utxo_store::Outcome<Applied> {
        let tx = tx.clone();
        self.put(NewRecord::Conflicting {
            tx,
            fee_sat,
            unmined_since,
        })
        .await
    }
}
