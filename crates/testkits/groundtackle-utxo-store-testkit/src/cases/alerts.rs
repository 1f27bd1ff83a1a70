//! `AlertStore`.

use groundtackle_utxo_store::{OutPoint, Reassignment, Script, SlotState, Txid, Verdict};

use super::{BEFORE, NOW, by, spender};
use crate::builder::{TxBuilder, out, script};
use crate::harness::{Subject, all, one};

/// An output that is spent, and the verdict that says so.
async fn spent_coin(store: &Subject, tag: u64) -> (OutPoint, Verdict) {
    let outpoint = store.coin(tag).await;
    let holder = store.accept(spender(tag + 1, outpoint)).await;
    let by = by(&holder, 0);
    (outpoint, Verdict::AlreadySpent { outpoint, by })
}

/// Outpoints that no output has, and the verdicts that say so.
async fn nowhere(store: &Subject, tag: u64) -> [(OutPoint, Verdict); 2] {
    let parent = store.coin(tag).await;
    let missing = OutPoint::new(Txid::from_bytes([9; 32]), 0);
    let no_output = OutPoint::new(parent.txid, 1);
    [
        (missing, Verdict::MissingTransaction { outpoint: missing }),
        (
            no_output,
            Verdict::MissingOutput {
                outpoint: no_output,
            },
        ),
    ]
}

/// "Freezes outputs: nothing spends them until unfrozen. … frozen ones are `Applied::Before`.
/// Verdicts: `MissingTransaction`, `MissingOutput`, `AlreadySpent`."
pub(crate) async fn nothing_spends_frozen_outputs(store: Subject) {
    store.begin_chain().await;
    let coins = store.coins(1, 2).await;
    let (spent, already) = spent_coin(&store, 10).await;
    let [(missing, no_tx), (no_output, not_there)] = nowhere(&store, 20).await;
    let answer = store
        .freeze(&[coins[0], missing, spent, no_output, coins[0]])
        .await;
    assert_eq!(
        all(answer),
        [NOW, Err(no_tx), Err(already), Err(not_there), BEFORE]
    );
    assert_eq!(store.slot(coins[0]).await, SlotState::Frozen);
    assert_eq!(store.slot(coins[1]).await, SlotState::Unspent);

    let verdict = Verdict::Frozen { outpoint: coins[0] };
    let tx = spender(2, coins[0]).build();
    assert_eq!(store.submit(&tx).await, Err(verdict.clone()));
    store.refused_block(&[&tx], &tx, verdict).await;
    store.accept(spender(3, coins[1])).await;
    // The set is what it was: a frozen coin is a coin.
    let coins_now = store.state().await.coins;
    assert!(coins_now.iter().any(|coin| coin.outpoint == coins[0]));
}

/// "Takes freezes back. A reassigned output still waits for its height. … one that is not frozen is
/// `Applied::Before`. Verdicts: `MissingTransaction`, `MissingOutput`."
pub(crate) async fn unfreezing_opens_an_output(store: Subject) {
    store.begin_chain().await;
    let coin = store.coin(1).await;
    let before = store.state().await;
    all(store.freeze(&[coin]).await);
    let [(missing, no_tx), (no_output, not_there)] = nowhere(&store, 20).await;
    let answer = store.unfreeze(&[coin, missing, no_output, coin]).await;
    assert_eq!(all(answer), [NOW, Err(no_tx), Err(not_there), BEFORE]);
    assert_eq!(
        store.whole_record(coin.txid).await,
        before.records[&coin.txid]
    );
    store.accept(spender(2, coin)).await;

    let waiting = store.reassigned_coin(3, 300).await;
    all(store.freeze(&[waiting]).await);
    assert_eq!(store.slot(waiting).await, SlotState::Frozen);
    assert_eq!(one(store.unfreeze(&[waiting]).await), NOW);
    let refused = Verdict::FrozenUntil {
        outpoint: waiting,
        height: 300,
    };
    assert_eq!(
        store.submit(&spender(4, waiting).build()).await,
        Err(refused)
    );
}

/// "Gives frozen outputs a new locking script and unfreezes them … The set's digest has the new
/// script. … the same reassignment again is `Applied::Before`. Verdicts: `MissingTransaction`,
/// `MissingOutput`, `AlreadySpent`, `NotFrozen`, `InvalidTransaction` (a script that can't be
/// spent)."
pub(crate) async fn reassigned_outputs_have_a_new_owner(store: Subject) {
    store.begin_chain().await;
    let coin = store.coin(1).await;
    let to = |outpoint, spendable_from, script: Script| Reassignment {
        outpoint,
        script,
        spendable_from,
    };
    let owner = script(5);
    let not_frozen = Verdict::NotFrozen { outpoint: coin };
    let answer = store.reassign(&[to(coin, 203, owner.clone())]).await;
    assert_eq!(one(answer), Err(not_frozen.clone()));

    all(store.freeze(&[coin]).await);
    let before = store.state().await;
    let unspendable = Script::from_bytes(vec![0x6a]);
    let answer = one(store.reassign(&[to(coin, 203, unspendable)]).await);
    let told =
        matches!(&answer, Err(Verdict::InvalidTransaction { txid, .. }) if *txid == coin.txid);
    assert!(told, "{answer:?}");
    before.assert_still(&store.state().await);

    let (spent, already) = spent_coin(&store, 10).await;
    let [(missing, no_tx), (no_output, not_there)] = nowhere(&store, 20).await;
    let asked = [
        to(coin, 203, owner.clone()),
        to(missing, 203, owner.clone()),
        to(spent, 203, owner.clone()),
        to(no_output, 203, owner.clone()),
        to(coin, 203, owner.clone()),
        to(coin, 204, owner.clone()),
        to(coin, 203, script(6)),
    ];
    assert_eq!(
        all(store.reassign(&asked).await),
        [
            NOW,
            Err(no_tx),
            Err(already),
            Err(not_there),
            BEFORE,
            Err(not_frozen.clone()),
            Err(not_frozen)
        ]
    );
    let view = store.view(coin).await;
    assert_eq!(
        view.state,
        SlotState::Reassigned {
            spendable_from: 203
        }
    );
    assert_eq!(view.output.script, owner);
    let value_sat = before.coins[0].output.value_sat;
    assert_eq!(view.output.value_sat, value_sat, "the amount stays");
    // `state` compares nothing by itself: the coin, and the digest by definition.
    let now = store.state().await;
    let of_set = now.coins.iter().find(|found| found.outpoint == coin);
    assert_eq!(of_set.expect("a coin").output.script, owner);
    assert_eq!(now.digest.muhash, crate::state::muhash(&now.coins));
    assert_ne!(now.digest.muhash, before.digest.muhash);
}

/// `RecordOutput::spendable_from`: "It outlives freeze and spend, so that neither an unfreeze nor an
/// unspend opens the output early."
pub(crate) async fn a_reassignment_outlives_freeze_and_spend(store: Subject) {
    store.begin_chain().await;
    let coin = store.reassigned_coin(1, 201).await;
    let tx = store.accept(TxBuilder::new(2).spend(coin).pay(5)).await;
    let record = store.whole_record(coin.txid).await;
    assert_eq!(record.outputs[0].spendable_from, Some(201));
    all(store.mark_conflicting(&[tx.txid]).await);
    all(store.unspend(&[tx.txid]).await);
    let spendable_from = 201;
    assert_eq!(
        store.slot(coin).await,
        SlotState::Reassigned { spendable_from }
    );
    all(store.freeze(&[coin]).await);
    all(store.unfreeze(&[coin]).await);
    assert_eq!(
        store.slot(coin).await,
        SlotState::Reassigned { spendable_from }
    );
    assert_eq!(store.slot(out(&tx, 0)).await, SlotState::Unspent);
}
