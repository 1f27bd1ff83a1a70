//! Real blocks.

use std::collections::BTreeMap;

use groundtackle_utxo_store::{
    ChainBlock, Coin, NewRecord, OutPoint, SetStatistics, StatisticsOptions, Tip, UtxoStoreExt,
};

use super::NOW;
use crate::builder::tip_of;
use crate::harness::{Subject, all};
use crate::mainnet::{ANSWERS, blocks};

async fn statistics(store: &Subject) -> SetStatistics {
    let options = StatisticsOptions {
        muhash: true,
        hash_serialized_3: store.capabilities().ordered_scan,
    };
    all((**store).statistics(options).await)
}

/// Connects blocks and compares at every height that is known.
async fn sync(store: &Subject, blocks: &[ChainBlock]) {
    for block in blocks {
        let connected = all(store.connect_block(block).await).expect("the block is good");
        assert_eq!(connected.applied, groundtackle_utxo_store::Applied::Now);
        if let Some(answer) = ANSWERS.iter().find(|answer| answer.height == block.height) {
            let statistics = statistics(store).await;
            answer.check(&statistics);
            let digest = all(store.digest().await);
            assert_eq!(Some(digest.muhash), statistics.muhash);
            assert_eq!(digest.tip, statistics.tip);
        }
    }
}

/// Digests, counts and totals after sync, after rewind from 599 to each height known, and after
/// sync again.
pub(crate) async fn real_chain(mut store: Subject) {
    let blocks = blocks().await;
    sync(&store, &blocks).await;
    let last = blocks.last().expect("600 blocks");
    for answer in ANSWERS.iter().rev() {
        while all(store.tip().await).is_some_and(|tip| tip.height > answer.height) {
            let tip = all(store.tip().await).expect("it is above");
            let block = &blocks[tip.height as usize];
            store.disconnect(block).await.expect("it is the tip");
        }
        answer.check(&statistics(&store).await);
    }
    if store.capabilities().persistent {
        store.reopen().await;
    }
    sync(&store, &blocks[1..]).await;
    assert_eq!(all(store.tip().await), Some(tip_of(last)));
}

/// A block's effect on the set by definition: for each transaction spend, then add.
pub(crate) fn replay(set: &mut BTreeMap<OutPoint, Coin>, block: &ChainBlock) {
    // The genesis block's coinbase is in no set.
    if block.height == 0 {
        return;
    }
    for tx in &block.transactions {
        for input in &tx.inputs {
            set.remove(input).expect("the chain is valid");
        }
        for (vout, output) in (0..).zip(&tx.outputs) {
            if output.script.is_unspendable() {
                continue;
            }
            let outpoint = OutPoint::new(tx.txid, vout);
            let coin = Coin {
                outpoint,
                output: output.clone(),
                height: block.height,
                coinbase: tx.coinbase,
            };
            set.insert(outpoint, coin);
        }
    }
}

/// "After a crash the store is checked against the chain itself, not only against its tip's name":
/// the set is the one that a naive replay of the blocks up to the tip leaves.
pub(crate) async fn chain_oracle(mut store: Subject) {
    let blocks = blocks().await;
    let mut set = BTreeMap::new();
    for part in blocks.chunks(150) {
        for block in part {
            replay(&mut set, block);
            all(store.connect_block(block).await).expect("the block is good");
        }
        if store.capabilities().persistent {
            store.reopen().await;
        }
        let state = store.state().await;
        assert_eq!(state.tip, part.last().map(tip_of));
        assert_eq!(state.coins, set.values().cloned().collect::<Vec<_>>());
    }
}

/// A whole block, with the coins that it spends in the block's order, on a store seeded with those
/// coins: it connects and, disconnected, leaves exactly the state before.
///
/// # Panics
/// When it does not.
pub async fn check_full_block(store: &Subject, block: &ChainBlock, spent: &[Coin]) {
    let mut seeds: BTreeMap<_, Vec<&Coin>> = BTreeMap::new();
    // What the block itself made has its height.
    for coin in spent.iter().filter(|coin| coin.height < block.height) {
        seeds.entry(coin.outpoint.txid).or_default().push(coin);
    }
    let mut records = Vec::new();
    for (txid, mut coins) in seeds {
        coins.sort_by_key(|coin| coin.outpoint.vout);
        let output = |coin: &&Coin| (coin.outpoint.vout, coin.output.clone());
        records.push(NewRecord::Seed {
            txid,
            coinbase: coins[0].coinbase,
            height: coins[0].height,
            outputs: coins.iter().map(output).collect(),
        });
        store.note(txid);
    }
    let most = store.capabilities().max_batch_items.unwrap_or(1_000);
    for part in records.chunks(most) {
        let answers = all(store.create(part).await);
        assert!(answers.iter().all(|answer| *answer == NOW));
    }
    let before_block = Tip {
        height: block.height - 1,
        hash: block.previous,
        median_time_past: block.median_time_past,
    };
    all(store.set_tip(&before_block).await);
    let before = store.state().await;

    let connected = store.connect(block).await.expect("the block is good");
    assert_eq!(connected.spent, spent);
    let after = store.state().await;
    let mut set: BTreeMap<_, _> = before
        .coins
        .iter()
        .map(|c| (c.outpoint, c.clone()))
        .collect();
    replay(&mut set, block);
    assert_eq!(after.coins, set.into_values().collect::<Vec<_>>());
    assert_eq!(after.digest.muhash, crate::state::muhash(&after.coins));

    store.disconnect(block).await.expect("it is the tip");
    before.assert_still(&store.state().await);
}
