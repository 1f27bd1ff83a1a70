//! What is no part of the confirmed set and must not be lost: alerts, and transactions that no block has yet.

use groundtackle_utxo_store::{
    Fields, NewRecord, NewTransaction, OutPoint, Outcome, Reassignment, Record, Script, SetReader,
    SlotState, SpendOptions, Transaction, TxOut, UnspendableRule, UtxoStore, Verdict,
};

use crate::error::{Error, Result, While};

/// Items of one call at most.
const BATCH: usize = 1_000;

fn batch(a: &dyn UtxoStore, b: &dyn UtxoStore) -> usize {
    let most = |store: &dyn UtxoStore| store.capabilities().max_batch_items.unwrap_or(BATCH);
    most(a).min(most(b)).clamp(1, BATCH)
}

fn accepted<T>(what: &str, outcomes: Vec<Outcome<T>>) -> Result<()> {
    outcomes
        .into_iter()
        .try_for_each(|outcome| outcome.when(what).map(drop))
}

/// Freezes, reassigns and locks in the copy what is so where it came from.
pub(crate) async fn alerts(from: &dyn UtxoStore, to: &dyn UtxoStore) -> Result<()> {
    let what = "carrying alerts over";
    let mut copied = SetReader::begin(to).await.when(what)?;
    while let Some(coins) = copied.next().await.when(what)? {
        for coins in coins.chunks(batch(from, to)) {
            let outpoints: Vec<_> = coins.iter().map(|coin| coin.outpoint).collect();
            let views = from
                .outputs(&outpoints)
                .await
                .when(what)?
                .into_iter()
                .flatten();
            let touched = views.filter(|view| view.locked || view.state != SlotState::Unspent);
            let touched: Vec<_> = touched.map(|view| view.outpoint).collect();
            let mut txids: Vec<_> = touched.iter().map(|outpoint| outpoint.txid).collect();
            txids.dedup();
            let (mut frozen, mut reassigned, mut locked) = (Vec::new(), Vec::new(), Vec::new());
            for record in from
                .records(&txids, Fields::ALL)
                .await
                .when(what)?
                .into_iter()
                .flatten()
            {
                locked.extend(record.locked.then_some(record.txid));
                for output in record.outputs {
                    let outpoint = OutPoint::new(record.txid, output.vout);
                    if !touched.contains(&outpoint) {
                        continue;
                    }
                    frozen.extend(output.frozen.then_some(outpoint));
                    reassigned.extend(output.spendable_from.map(|spendable_from| Reassignment {
                        outpoint,
                        script: output.output.script,
                        spendable_from,
                    }));
                }
            }
            // Only what is frozen can be reassigned, and it is not frozen then.
            let first: Vec<_> = reassigned.iter().map(|one| one.outpoint).collect();
            accepted(what, to.freeze(&first).await.when(what)?)?;
            accepted(what, to.reassign(&reassigned).await.when(what)?)?;
            accepted(what, to.freeze(&frozen).await.when(what)?)?;
            accepted(what, to.set_locked(&locked, true).await.when(what)?)?;
        }
    }
    Ok(())
}

async fn unmined(store: &dyn UtxoStore) -> Result<Vec<Record>> {
    let what = "reading what is not mined";
    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let page = store
            .unmined(None, after.as_ref(), BATCH)
            .await
            .when(what)?;
        let txids: Vec<_> = page.items.iter().map(|item| item.txid).collect();
        for txids in txids.chunks(batch(store, store)) {
            let read = store.records(txids, Fields::ALL).await.when(what)?;
            records.extend(read.into_iter().flatten());
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(records),
        }
    }
}

/// The transaction as far as a store can tell: what nobody can spend is left out there, and comes back as some such output.
fn transaction(record: &Record, rule: UnspendableRule) -> Transaction {
    let last = record.outputs.last().map(|output| output.vout);
    let mut outputs = record.outputs.iter().peekable();
    let unspendable = [vec![0x6a], vec![0x00, 0x6a]].map(Script::from_bytes);
    let unspendable = unspendable
        .into_iter()
        .find(|script| rule.is_unspendable(script));
    let gap = TxOut {
        value_sat: 0,
        script: unspendable.unwrap_or_default(),
    };
    let outputs = (0..last.map_or(0, |last| last.saturating_add(1))).map(|vout| {
        let output = outputs.next_if(|output| output.vout == vout);
        output.map_or_else(|| gap.clone(), |output| output.output.clone())
    });
    Transaction {
        txid: record.txid,
        inputs: record.inputs.clone(),
        outputs: outputs.collect(),
        lock_time: record.lock_time,
        size_bytes: record.size_bytes,
        coinbase: record.coinbase,
    }
}

/// Gives `to` each transaction that is unmined in `from`, parents first.
pub(crate) async fn mempool(
    from: &dyn UtxoStore,
    to: &dyn UtxoStore,
    height: u32,
    rule: UnspendableRule,
) -> Result<u64> {
    let what = "carrying over what is not mined";
    let records = unmined(from).await?;
    let carried = records.len() as u64;
    let locked: Vec<_> = records
        .iter()
        .filter(|record| record.locked)
        .map(|record| record.txid)
        .collect();
    let (conflicting, mut left): (Vec<_>, Vec<_>) =
        records.into_iter().partition(|record| record.conflicting);
    let conflicting: Vec<_> = conflicting
        .iter()
        .map(|record| NewRecord::Conflicting {
            tx: transaction(record, rule),
            fee_sat: record.fee_sat,
            unmined_since: record.unmined_since.unwrap_or(height),
        })
        .collect();
    for records in conflicting.chunks(batch(from, to)) {
        accepted(what, to.create(records).await.when(what)?)?;
    }
    // They were judged when they came.
    let options = SpendOptions {
        coinbase_maturity: 0,
        ignore_locked: true,
        ..SpendOptions::at(height)
    };
    while !left.is_empty() {
        let mut later = Vec::new();
        let round = left.len();
        for records in left.chunks(batch(from, to)) {
            let new = |record: &Record| NewTransaction {
                fee_sat: record.fee_sat,
                ..transaction(record, rule).into()
            };
            let new: Vec<_> = records.iter().map(new).collect();
            let outcomes = to.spend_and_create(&new, &options).await.when(what)?;
            for (record, outcome) in records.iter().zip(outcomes) {
                match outcome {
                    Ok(_) => {}
                    Err(Verdict::MissingTransaction { .. }) => later.push(record.clone()),
                    Err(verdict) => {
                        return Err(verdict).when(format_args!("{what}: {}", record.txid));
                    }
                }
            }
        }
        if later.len() == round {
            let names: Vec<_> = later
                .iter()
                .map(|record| record.txid.to_string())
                .take(10)
                .collect();
            return Err(Error::Refused(format!(
                "{round} transactions that are not mined rest on what neither store has, such as {}",
                names.join(", ")
            )));
        }
        left = later;
    }
    for txids in locked.chunks(batch(from, to)) {
        accepted(what, to.set_locked(txids, true).await.when(what)?)?;
    }
    Ok(carried)
}

/// Removes what is not mined from the store that follows: it has only blocks. What alerts are on stays.
pub(crate) async fn forget_mempool(store: &dyn UtxoStore) -> Result<()> {
    let what = "removing what is not mined from the store that follows";
    loop {
        let touched = |record: &Record| {
            let mut outputs = record.outputs.iter();
            outputs.any(|output| output.frozen || output.spendable_from.is_some())
        };
        let records = unmined(store).await?;
        let records = records.iter().filter(|record| !touched(record));
        let txids: Vec<_> = records.map(|record| record.txid).collect();
        let mut removed = 0;
        for txids in txids.chunks(batch(store, store)) {
            // One of which another is spent goes in a later round.
            removed += store
                .remove(txids)
                .await
                .when(what)?
                .iter()
                .flatten()
                .count();
        }
        if removed == txids.len() {
            return Ok(());
        }
        if removed == 0 {
            return Err(Error::Refused(format!(
                "{what} is not possible: {} stay",
                txids.len()
            )));
        }
    }
}
