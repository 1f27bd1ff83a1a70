//! The traps of Bitcoin Core's formats: what is in the set, and under which bytes.

use groundtackle_utxo_store::{Script, StatisticsOptions, TxOut, UtxoStoreExt};

use super::spender;
use crate::builder::{TxBuilder, out};
use crate::harness::{Subject, all};
use crate::state::muhash;

/// "Provably unspendable outputs get no slot": `OP_RETURN` first, or longer than 10,000 bytes. An
/// empty script and an amount of zero are in the set.
pub(crate) async fn what_nobody_can_spend_is_in_no_set(store: Subject) {
    store.begin_chain().await;
    let coin = store.coin(1).await;
    let longest = Script::from_bytes(vec![0x51; 10_000]);
    let tx = TxBuilder::new(2)
        .spend(coin)
        .pay_to(1, Script::from_bytes(vec![0x6a]))
        .pay_to(1, Script::default())
        .pay_to(0, Script::from_bytes(vec![0x51]))
        .pay_to(1, Script::from_bytes(vec![0x51; 10_001]))
        .pay_to(1, longest.clone())
        .pay_to(1, Script::from_bytes(vec![0x51, 0x6a]))
        .build();
    store.mine(&[&tx]).await;
    let coins = store.state().await.coins;
    let made: Vec<_> = coins
        .iter()
        .filter(|coin| coin.outpoint.txid == tx.txid)
        .map(|coin| coin.outpoint.vout)
        .collect();
    assert_eq!(made, [1, 2, 4, 5]);
    assert_eq!(
        store.view(out(&tx, 1)).await.output,
        TxOut {
            value_sat: 1,
            script: Script::default()
        }
    );
    assert_eq!(store.view(out(&tx, 4)).await.output.script, longest);
    assert_eq!(all(store.digest().await).muhash, muhash(&coins));
}

/// A script comes back byte for byte, whatever compact form an adapter gives it: hybrid keys, keys
/// off the curve and unusual pushes look like the common forms and are none.
pub(crate) async fn scripts_come_back_byte_for_byte(store: Subject) {
    let x = [
        0x79, 0xbe, 0x66, 0x7e, 0xf9, 0xdc, 0xbb, 0xac, 0x55, 0xa0, 0x62, 0x95, 0xce, 0x87, 0x0b,
        0x07, 0x02, 0x9b, 0xfc, 0xdb, 0x2d, 0xce, 0x28, 0xd9, 0x59, 0xf2, 0x81, 0x5b, 0x16, 0xf8,
        0x17, 0x98,
    ];
    let y = [
        0x48, 0x3a, 0xda, 0x77, 0x26, 0xa3, 0xc4, 0x65, 0x5d, 0xa4, 0xfb, 0xfc, 0x0e, 0x11, 0x08,
        0xa8, 0xfd, 0x17, 0xb4, 0x48, 0xa6, 0x85, 0x54, 0x19, 0x9c, 0x47, 0xd0, 0x8f, 0xfb, 0x10,
        0xd4, 0xb8,
    ];
    let off_curve = [0x11; 64];
    let full = |kind: u8, key: &[u8]| [&[0x41, kind], key, &[0xac]].concat();
    let key = [x, y].concat();
    let scripts = [
        Vec::new(),
        vec![0x00],
        [&[0x76, 0xa9, 0x14], [7; 20].as_slice(), &[0x88, 0xac]].concat(),
        [&[0x76, 0xa9, 0x14], [7; 20].as_slice(), &[0x88, 0xad]].concat(),
        // The same hash by another push.
        [&[0x76, 0xa9, 0x4c, 20], [7; 20].as_slice(), &[0x88, 0xac]].concat(),
        [&[0xa9, 0x14], [7; 20].as_slice(), &[0x87]].concat(),
        [&[0x21, 2], x.as_slice(), &[0xac]].concat(),
        [&[0x21, 3], x.as_slice(), &[0xac]].concat(),
        // Not a point, and not checked in this form.
        [&[0x21, 2], [0xff; 32].as_slice(), &[0xac]].concat(),
        [&[0x21, 4], x.as_slice(), &[0xac]].concat(),
        [&[0x4c, 0x21, 2], x.as_slice(), &[0xac]].concat(),
        full(4, &key),
        full(6, &key),
        full(7, &key),
        full(4, &off_curve),
        [&[0x00, 0x14], [7; 20].as_slice()].concat(),
        [&[0x51, 0x20], x.as_slice()].concat(),
        vec![0x51; 3_899],
        vec![0x51; 4_096],
        vec![0x51; 10_000],
    ];
    let record = scripts.iter().fold(TxBuilder::new(1), |builder, script| {
        builder.pay_to(1_000, Script::from_bytes(script.clone()))
    });
    let tx = record.clone().build();
    store.put(record.seed(1)).await.expect("it is new");
    for (vout, script) in (0..).zip(&scripts) {
        let output = store.view(out(&tx, vout)).await.output;
        assert_eq!(output.script.as_bytes(), script.as_slice(), "output {vout}");
    }
    // After its chunk was written again too.
    store.begin_chain().await;
    store.accept(spender(2, out(&tx, 0))).await;
    for (vout, script) in (0..).zip(&scripts).skip(1) {
        let output = store.view(out(&tx, vout)).await.output;
        assert_eq!(output.script.as_bytes(), script.as_slice(), "output {vout}");
    }
}

/// Amounts from nothing to all there is come back as they are.
pub(crate) async fn amounts_come_back_exactly(store: Subject) {
    let most = 21_000_000 * 100_000_000;
    let mut amounts = vec![0, 1, 9, 10, 11, 99, 100, 101, most - 1, most];
    let mut power = 1_000_u64;
    while power < most {
        amounts.extend([power - 1, power, power + 1, power * 9]);
        power *= 10;
    }
    amounts.retain(|amount| *amount <= most);
    let builder = TxBuilder::new(1);
    let tx = amounts
        .iter()
        .fold(builder, |builder, amount| builder.pay(*amount));
    store.put(tx.clone().seed(1)).await.expect("it is new");
    let tx = tx.build();
    for (vout, amount) in (0..).zip(&amounts) {
        assert_eq!(store.view(out(&tx, vout)).await.output.value_sat, *amount);
    }
}

/// "Intra-block spends: created and spent in one block – net effect none"; the coin that
/// `connect_block` returns has the block's own height.
pub(crate) async fn a_coin_spent_in_its_own_block_leaves_no_trace(store: Subject) {
    store.begin_chain().await;
    let coin = store.coin(1).await;
    let parent = TxBuilder::new(2).spend(coin).pay(900).build();
    let child = TxBuilder::new(3).spend(out(&parent, 0)).pay(800).build();
    let block = store.next_block().await.with(&[&parent, &child]).build();
    let connected = store.connect(&block).await.expect("the block is good");
    let spent: Vec<_> = connected
        .spent
        .iter()
        .map(|coin| (coin.outpoint, coin.height))
        .collect();
    assert_eq!(spent, [(coin, 1), (out(&parent, 0), block.height)]);
    let coins = store.state().await.coins;
    assert!(coins.iter().all(|coin| coin.outpoint.txid != parent.txid));
    assert_eq!(all(store.digest().await).muhash, muhash(&coins));
}

/// "Ordered by txid … then vout numeric", beyond the place where the order of bytes differs.
pub(crate) async fn indexes_are_ordered_as_numbers(store: Subject) {
    store.coins(1, 17_000).await;
    let coins = store.state().await.coins;
    let indexes: Vec<_> = coins.iter().map(|coin| coin.outpoint.vout).collect();
    assert_eq!(indexes, (0..17_000).collect::<Vec<_>>());
    let options = StatisticsOptions::default();
    let statistics = all(store.statistics(options).await);
    assert_eq!(statistics.txouts, 17_000);
    assert!(statistics.hash_serialized_3.is_some());
}
