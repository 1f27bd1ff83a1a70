//! `SpendStore`: spend-and-create.

use groundtackle_utxo_store::{
    Applied, COINBASE_MATURITY, NewRecord, NewTransaction, OutPoint, RecordOutput, SlotState,
    SpendOptions, Transaction, TxOut, Txid, Verdict,
};

use super::{BEFORE, NOW, by, spender, spent};
use crate::builder::{SUBSIDY_SAT, TxBuilder, out, script};
use crate::harness::{Subject, all, one};

/// "Marks every input of each transaction as spent by it and creates its record, unmined."
pub(crate) async fn spends_all_inputs_and_creates_the_record(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 3).await;
    let tx = TxBuilder::new(2)
        .spend_all(coins.clone())
        .pay(10)
        .pay_nobody()
        .pay(20)
        .lock_time(77)
        .build();
    let new = NewTransaction {
        fee_sat: Some(7),
        ..tx.clone().into()
    };
    let answer = store.spend_and_create(&[new], &SpendOptions::at(201)).await;
    assert_eq!(one(answer), Ok(Applied::Now));

    for (vin, coin) in (0..).zip(&coins) {
        assert_eq!(store.slot(*coin).await, spent(&tx, vin));
    }
    let record = store.whole_record(tx.txid).await;
    assert_eq!(record.inputs, tx.inputs);
    let output = |vout: u32| RecordOutput::unspent(vout, tx.outputs[vout as usize].clone());
    assert_eq!(record.outputs, [output(0), output(2)]);
    assert_eq!(record.fee_sat, Some(7));
    assert_eq!(record.size_bytes, tx.size_bytes);
    assert_eq!(record.lock_time, 77);
    assert_eq!(record.unmined_since, Some(201));
    assert_eq!(record.mined_in, []);
    assert_eq!(record.preserve_until, None);
    assert!(!record.coinbase && !record.locked && !record.conflicting);
}

/// "Atomicity: per transaction all or nothing".
pub(crate) async fn spends_all_or_nothing(store: Subject) {
    let good = store.coins(1, 3).await;
    let gone = store.coin(2).await;
    store.accept(spender(3, gone)).await;
    let before = store.state().await;
    for bad in [gone, OutPoint::new(Txid::from_bytes([9; 32]), 0)] {
        for at in 0..=good.len() {
            let mut inputs = good.clone();
            inputs.insert(at, bad);
            let tx = TxBuilder::new(4).spend_all(inputs).pay(1).build();
            store
                .submit(&tx)
                .await
                .expect_err("one of its inputs can't be spent");
            assert_eq!(store.find_record(tx.txid).await, None);
            before.assert_still(&store.state().await);
        }
    }
}

/// "In one batch a child may follow its parent." A child before its parent is refused, since
/// "items of one call take effect in order".
pub(crate) async fn a_child_may_follow_its_parent_in_one_batch(store: Subject) {
    let parent = spender(2, store.coin(1).await).build();
    let child = spender(3, out(&parent, 0)).build();
    let grandchild = spender(4, out(&child, 0)).build();
    let family = [&parent, &child, &grandchild];
    assert_eq!(store.submit_all(&family).await, [NOW; 3]);
    assert_eq!(store.slot(out(&parent, 0)).await, spent(&child, 0));
    assert_eq!(store.slot(out(&child, 0)).await, spent(&grandchild, 0));

    let late = spender(6, store.coin(5).await).build();
    let early = spender(7, out(&late, 0)).build();
    let outpoint = out(&late, 0);
    assert_eq!(
        store.submit_all(&[&early, &late]).await,
        [
            Err(Verdict::MissingTransaction { outpoint }),
            Ok(Applied::Now)
        ]
    );
}

/// "One `Outcome` per item out, in order. … a later item sees what an earlier one did."
pub(crate) async fn answers_in_order(store: Subject) {
    let (first, second) = (store.coin(1).await, store.coin(2).await);
    let winner = spender(3, first).build();
    let loser = TxBuilder::new(4).spend(second).spend(first).pay(1).build();
    let other = spender(5, second).build();
    let nowhere = OutPoint::new(Txid::from_bytes([9; 32]), 3);
    let orphan = spender(6, nowhere).build();
    let batch = [&winner, &loser, &orphan, &other, &winner];
    assert_eq!(
        store.submit_all(&batch).await,
        [
            Ok(Applied::Now),
            Err(Verdict::AlreadySpent {
                outpoint: first,
                by: by(&winner, 0)
            }),
            Err(Verdict::MissingTransaction { outpoint: nowhere }),
            Ok(Applied::Now),
            Ok(Applied::Before),
        ]
    );
    assert_eq!(
        all(store.spend_and_create(&[], &SpendOptions::at(9)).await),
        []
    );
}

/// Verdicts: "`MissingTransaction`, `MissingOutput`, `AlreadySpent`, `Frozen`, `FrozenUntil`,
/// `ConflictingParent`, `Locked`, `Immature`, `OutputMismatch`", each naming its outpoint; none
/// changes anything.
pub(crate) async fn names_each_fault_of_an_input(store: Subject) {
    store.begin_chain().await;
    let refused = async |outpoint: OutPoint, verdict: Verdict| {
        let before = store.state().await;
        let tx = spender(99, outpoint).build();
        assert_eq!(store.submit(&tx).await, Err(verdict));
        before.assert_still(&store.state().await);
    };

    let outpoint = OutPoint::new(Txid::from_bytes([9; 32]), 1);
    refused(outpoint, Verdict::MissingTransaction { outpoint }).await;

    let parent = TxBuilder::new(2).spend(store.coin(1).await);
    let parent = store.accept(parent.pay(5).pay_nobody()).await;
    for vout in [1, 2, u32::MAX] {
        let outpoint = out(&parent, vout);
        refused(outpoint, Verdict::MissingOutput { outpoint }).await;
    }

    let outpoint = store.coin(3).await;
    let holder = store.accept(spender(4, outpoint)).await;
    let by = by(&holder, 0);
    refused(outpoint, Verdict::AlreadySpent { outpoint, by }).await;

    let outpoint = store.coin(5).await;
    all(store.freeze(&[outpoint]).await);
    refused(outpoint, Verdict::Frozen { outpoint }).await;

    let outpoint = store.reassigned_coin(6, 202).await;
    let height = 202;
    refused(outpoint, Verdict::FrozenUntil { outpoint, height }).await;

    let parent = store.accept(spender(8, store.coin(7).await)).await;
    all(store.mark_conflicting(&[parent.txid]).await);
    let outpoint = out(&parent, 0);
    refused(outpoint, Verdict::ConflictingParent { outpoint }).await;

    let parent = store.accept(spender(10, store.coin(9).await)).await;
    all(store.set_locked(&[parent.txid], true).await);
    let outpoint = out(&parent, 0);
    refused(outpoint, Verdict::Locked { outpoint }).await;

    let young = TxBuilder::coinbase(11).seed(202 - COINBASE_MATURITY);
    let outpoint = OutPoint::new(young.txid(), 0);
    assert_eq!(store.put(young).await, Ok(Applied::Now));
    let spendable_at = Some(202);
    let verdict = Verdict::Immature {
        outpoint,
        spendable_at,
    };
    refused(outpoint, verdict).await;

    let stale = store.off_chain_coinbase(12).await;
    let outpoint = out(&stale, 0);
    let spendable_at = None;
    let verdict = Verdict::Immature {
        outpoint,
        spendable_at,
    };
    refused(outpoint, verdict).await;

    let outpoint = store.coin(13).await;
    let there = store.view(outpoint).await.output;
    let tx = spender(14, outpoint).build();
    let expecting = async |output: TxOut| {
        let new = NewTransaction {
            expected: vec![output],
            ..tx.clone().into()
        };
        one(store.spend_and_create(&[new], &SpendOptions::at(201)).await)
    };
    let richer = TxOut {
        value_sat: there.value_sat + 1,
        ..there.clone()
    };
    let elsewhere = TxOut {
        script: script(1_234),
        ..there.clone()
    };
    for other in [richer, elsewhere] {
        assert_eq!(
            expecting(other).await,
            Err(Verdict::OutputMismatch { outpoint })
        );
    }
    assert_eq!(expecting(there).await, Ok(Applied::Now));
}

/// "`Conflicting`, … `InvalidTransaction` (a coinbase, no inputs, an amount above 21 million coins,
/// `expected` of another length than the inputs)." One output named twice is spent by the first
/// input.
pub(crate) async fn names_each_fault_of_a_transaction(store: Subject) {
    let coin = store.coin(1).await;
    let before = store.state().await;
    let invalid = async |new: NewTransaction| {
        let txid = new.tx.txid;
        let answer = one(store.spend_and_create(&[new], &SpendOptions::at(9)).await);
        assert!(
            matches!(&answer, Err(Verdict::InvalidTransaction { txid: named, .. }) if *named == txid),
            "{answer:?}"
        );
        assert_eq!(store.find_record(txid).await, None);
    };
    let mut minting: Transaction = spender(2, coin).build();
    minting.coinbase = true;
    invalid(minting.into()).await;
    invalid(TxBuilder::coinbase(3).build().into()).await;
    invalid(TxBuilder::new(4).pay(1).build().into()).await;
    let most = 21_000_000 * 100_000_000;
    invalid(spender(5, coin).pay(most + 1).build().into()).await;
    let there = store.view(coin).await.output;
    for inputs in [1, 3] {
        let tx = TxBuilder::new(6).spend_all(vec![coin; inputs]).build();
        let expected = vec![there.clone(); 2];
        invalid(NewTransaction {
            expected,
            ..tx.into()
        })
        .await;
    }

    let twice = TxBuilder::new(7).spend(coin).spend(coin).pay(1).build();
    let refused = Verdict::AlreadySpent {
        outpoint: coin,
        by: by(&twice, 0),
    };
    assert_eq!(store.submit(&twice).await, Err(refused));
    before.assert_still(&store.state().await);

    let conflicting = store.accept(spender(8, coin).pay(most)).await;
    let txid = conflicting.txid;
    all(store.mark_conflicting(&[txid]).await);
    assert_eq!(
        store.submit(&conflicting).await,
        Err(Verdict::Conflicting { txid })
    );
}

/// "Where an item has several faults, the input with the lowest index decides".
pub(crate) async fn the_lowest_faulty_input_decides(store: Subject) {
    let frozen = store.coin(1).await;
    all(store.freeze(&[frozen]).await);
    let held = store.coin(2).await;
    let holder = store.accept(spender(3, held)).await;
    let missing = OutPoint::new(Txid::from_bytes([9; 32]), 0);
    let faults = [
        (frozen, Verdict::Frozen { outpoint: frozen }),
        (
            held,
            Verdict::AlreadySpent {
                outpoint: held,
                by: by(&holder, 0),
            },
        ),
        (missing, Verdict::MissingTransaction { outpoint: missing }),
    ];
    for turn in 0..faults.len() {
        let mut faults = faults.clone();
        faults.rotate_left(turn);
        let good = store.coin(10 + turn as u64).await;
        let outpoints = faults.iter().map(|(outpoint, _)| *outpoint);
        let tx = TxBuilder::new(4).spend(good).spend_all(outpoints).build();
        assert_eq!(store.submit(&tx).await, Err(faults[0].1.clone()));
    }
}

/// "… and for one outpoint the order of the variants here."
pub(crate) async fn faults_of_one_outpoint_come_in_order(store: Subject) {
    store.begin_chain().await;
    // Everything at once: frozen, reassigned, of a conflicting, locked, off-chain coinbase.
    let parent = store.off_chain_coinbase(1).await;
    let outpoint = out(&parent, 0);
    let tx = spender(2, outpoint).build();
    let expected = vec![TxOut {
        value_sat: 1,
        script: script(1),
    }];
    let judged = async || {
        let new = NewTransaction {
            expected: expected.clone(),
            ..tx.clone().into()
        };
        let answer = store.spend_and_create(&[new], &SpendOptions::at(201)).await;
        one(answer).expect_err("a fault is left")
    };
    all(store.freeze(&[outpoint]).await);
    store.reassign_to(outpoint, 300).await;
    all(store.freeze(&[outpoint]).await);
    all(store.set_locked(&[parent.txid], true).await);
    all(store.mark_conflicting(&[parent.txid]).await);

    assert_eq!(judged().await, Verdict::Frozen { outpoint });
    all(store.unfreeze(&[outpoint]).await);
    let height = 300;
    assert_eq!(judged().await, Verdict::FrozenUntil { outpoint, height });
    all(store.freeze(&[outpoint]).await);
    store.reassign_to(outpoint, 201).await;
    assert_eq!(judged().await, Verdict::ConflictingParent { outpoint });
    assert_eq!(
        one(store.unmark_conflicting(&[parent.txid]).await),
        Ok(Applied::Now)
    );
    assert_eq!(judged().await, Verdict::Locked { outpoint });
    all(store.set_locked(&[parent.txid], false).await);
    let spendable_at = None;
    assert_eq!(
        judged().await,
        Verdict::Immature {
            outpoint,
            spendable_at
        }
    );
    let mined = store.whole_record(parent.txid).await.mined_in[0];
    let on = groundtackle_utxo_store::MinedIn {
        height: 101,
        on_longest_chain: true,
        ..mined
    };
    assert_eq!(
        one(store.set_mined(&[parent.txid], &on).await),
        Ok(Applied::Now)
    );
    assert_eq!(judged().await, Verdict::OutputMismatch { outpoint });
}

/// "Repeating a transaction that is there and holds its inputs is `Applied::Before` without effect,
/// also when a parent has been pruned since."
pub(crate) async fn repeating_is_without_effect(store: Subject) {
    let tip = store.begin_chain().await;
    let parent = store.accept(spender(2, store.coin(1).await)).await;
    let child = store.accept(spender(3, out(&parent, 0))).await;
    store.mine(&[&parent]).await;
    let before = store.state().await;
    assert_eq!(store.submit_all(&[&child, &parent]).await, [BEFORE; 2]);
    let new = NewTransaction {
        fee_sat: Some(123),
        ..child.clone().into()
    };
    let options = SpendOptions {
        lock: true,
        ..SpendOptions::at(900)
    };
    assert_eq!(
        one(store.spend_and_create(&[new], &options).await),
        Ok(Applied::Before)
    );
    before.assert_still(&store.state().await);

    // Confirmed, and the parent fully spent by what is confirmed: the parent may go.
    store.mine(&[&child]).await;
    all(store.prune(tip.height + 2).await);
    assert_eq!(store.find_record(parent.txid).await, None);
    let before = store.state().await;
    assert_eq!(store.submit(&child).await, Ok(Applied::Before));
    before.assert_still(&store.state().await);
}

/// "One that was itself pruned is refused (`Pruned`)."
pub(crate) async fn a_pruned_transaction_is_refused(store: Subject) {
    let tip = store.begin_chain().await;
    let coins = store.coins(1, 2).await;
    let tx = store.accept(spender(2, coins[0])).await;
    let child = store.accept(spender(3, out(&tx, 0))).await;
    store.mine(&[&tx, &child]).await;
    all(store.prune(tip.height + 1).await);
    assert_eq!(store.find_record(tx.txid).await, None);
    let before = store.state().await;
    let txid = tx.txid;
    assert_eq!(store.submit(&tx).await, Err(Verdict::Pruned { txid }));
    // Nor does it come back as a conflict, which would make what it spent a coin again.
    let as_conflict = store.lost(&tx, None, 1).await;
    assert_eq!(as_conflict, Err(Verdict::Pruned { txid }));
    let block = store.next_block().await.with(&[&tx]).build();
    let refused = Verdict::InBlock {
        block: block.hash,
        txid,
        verdict: Box::new(Verdict::Pruned { txid }),
    };
    assert_eq!(store.connect(&block).await, Err(refused));
    before.assert_still(&store.state().await);
    // What it spent is still known to be spent.
    let late = spender(4, coins[0]).build();
    let verdict = Verdict::AlreadySpent {
        outpoint: coins[0],
        by: by(&tx, 0),
    };
    assert_eq!(store.submit(&late).await, Err(verdict));
}

/// `SpendOptions`: "New records are unmined since this height", "Spend outputs of locked
/// transactions too", "Create the record locked"; a maturity of the caller's own.
pub(crate) async fn options_are_kept(store: Subject) {
    let options = SpendOptions {
        lock: true,
        ..SpendOptions::at(33)
    };
    let locked = spender(2, store.coin(1).await).build();
    assert_eq!(store.submit_under(&locked, options).await, Ok(Applied::Now));
    let record = store.whole_record(locked.txid).await;
    assert!(record.locked);
    assert_eq!(record.unmined_since, Some(33));

    let child = spender(3, out(&locked, 0)).build();
    let outpoint = out(&locked, 0);
    let usual = SpendOptions::at(34);
    assert_eq!(
        store.submit_under(&child, usual).await,
        Err(Verdict::Locked { outpoint })
    );
    let ignoring = SpendOptions {
        ignore_locked: true,
        ..usual
    };
    assert_eq!(store.submit_under(&child, ignoring).await, Ok(Applied::Now));
    assert!(!store.whole_record(child.txid).await.locked);

    let young = TxBuilder::coinbase(4).seed(30);
    let outpoint = OutPoint::new(young.txid(), 0);
    assert_eq!(store.put(young).await, Ok(Applied::Now));
    let tx = TxBuilder::new(5).spend(outpoint).pay(SUBSIDY_SAT).build();
    let maturing = |coinbase_maturity| SpendOptions {
        coinbase_maturity,
        ..usual
    };
    let spendable_at = Some(35);
    assert_eq!(
        store.submit_under(&tx, maturing(5)).await,
        Err(Verdict::Immature {
            outpoint,
            spendable_at
        })
    );
    assert_eq!(store.submit_under(&tx, maturing(4)).await, Ok(Applied::Now));
}

impl Subject {
    /// A coin that was frozen and given a new owner.
    pub(crate) async fn reassigned_coin(&self, tag: u64, spendable_from: u32) -> OutPoint {
        let outpoint = self.coin(tag).await;
        all(self.freeze(&[outpoint]).await);
        self.reassign_to(outpoint, spendable_from).await;
        let state = SlotState::Reassigned { spendable_from };
        assert_eq!(self.slot(outpoint).await, state);
        outpoint
    }

    /// Gives a frozen output a new owner.
    pub(crate) async fn reassign_to(&self, outpoint: OutPoint, spendable_from: u32) {
        let reassignment = groundtackle_utxo_store::Reassignment {
            outpoint,
            script: script(7_777),
            spendable_from,
        };
        assert_eq!(one(self.reassign(&[reassignment]).await), Ok(Applied::Now));
    }

    /// A coinbase of a block that is not on the longest chain.
    pub(crate) async fn off_chain_coinbase(&self, tag: u64) -> Transaction {
        let tx = TxBuilder::coinbase(tag).build();
        let record = NewRecord::Coinbase {
            tx: tx.clone(),
            mined: super::mined_in(tag as u8, 50, false),
        };
        assert_eq!(self.put(record).await, Ok(Applied::Now));
        tx
    }
}
