//! When an output may be spent, and the small steps that operations are made of.

use std::collections::HashMap;

use groundtackle_chain::model::MAX_MONEY_SAT;
use groundtackle_utxo_store::{
    Applied, OutPoint, Result, SpendOptions, SpentBy, Transaction, TxOut, Txid, UnspendableRule,
    Verdict,
};

use crate::draft::{Draft, Entry};
use crate::error::Stop;
use crate::record::{CompactScript, Head, Inputs, Slot};

/// Under which rules an input is judged.
#[derive(Clone, Copy)]
pub(crate) struct Judge {
    pub(crate) options: SpendOptions,
    pub(crate) in_block: bool,
}

pub(crate) const fn applied(changed: bool) -> Applied {
    if changed {
        Applied::Now
    } else {
        Applied::Before
    }
}

pub(crate) fn invalid<T>(txid: Txid, reason: &str) -> Result<T, Stop> {
    Err(Verdict::InvalidTransaction {
        txid,
        reason: reason.into(),
    }
    .into())
}

pub(crate) fn check_amounts(
    txid: Txid,
    amounts: impl IntoIterator<Item = u64>,
) -> Result<(), Stop> {
    if amounts
        .into_iter()
        .any(|value_sat| value_sat > MAX_MONEY_SAT)
    {
        return invalid(txid, "an amount is above 21 million coins");
    }
    Ok(())
}

pub(crate) fn amounts(outputs: &[TxOut]) -> impl Iterator<Item = u64> {
    outputs.iter().map(|output| output.value_sat)
}

pub(crate) fn total(outputs: &[TxOut]) -> u64 {
    amounts(outputs).fold(0, u64::saturating_add)
}

pub(crate) fn new_slots(rule: UnspendableRule, tx: &Transaction) -> Vec<Slot> {
    (0..)
        .zip(&tx.outputs)
        .filter(|(_, output)| !rule.is_unspendable(&output.script))
        .map(|(vout, output)| Slot::unspent(vout, output))
        .collect()
}

/// A head that only knows its transaction.
pub(crate) fn new_head(tx: &Transaction) -> Head {
    Head {
        coinbase: tx.coinbase,
        size_bytes: tx.size_bytes,
        lock_time: tx.lock_time,
        ..empty_head()
    }
}

pub(crate) const fn empty_head() -> Head {
    Head {
        coinbase: false,
        locked: false,
        conflicting: false,
        fee_sat: None,
        size_bytes: 0,
        lock_time: 0,
        inputs: Inputs::Here(Vec::new()),
        mined_in: Vec::new(),
        unmined_since: None,
        conflicting_children: Vec::new(),
        preserve_until: None,
        last_chunk: 0,
    }
}

pub(crate) fn put_on_longest_chain(head: &mut Head, block: Option<u32>) {
    for entry in &mut head.mined_in {
        entry.on_longest_chain = entry.block == block;
    }
    head.unmined_since = None;
}

/// Whether `me` may spend `outpoint`; `Before` where it does.
fn judge(
    found: (&Entry, &Slot),
    me: SpentBy,
    outpoint: OutPoint,
    expected: Option<&TxOut>,
    judge: Judge,
) -> Result<Applied, Verdict> {
    let (Entry { head, .. }, slot) = found;
    let Judge { options, in_block } = judge;
    let held = match slot.spent_by {
        Some(by) if by != me => return Err(Verdict::AlreadySpent { outpoint, by }),
        Some(_) if !in_block => return Ok(Applied::Before),
        spent_by => spent_by.is_some(),
    };
    if slot.frozen {
        return Err(Verdict::Frozen { outpoint });
    }
    if let Some(height) = slot
        .spendable_from
        .filter(|height| *height > options.height)
    {
        return Err(Verdict::FrozenUntil { outpoint, height });
    }
    if head.conflicting {
        return Err(Verdict::ConflictingParent { outpoint });
    }
    if head.locked && !options.ignore_locked {
        return Err(Verdict::Locked { outpoint });
    }
    let confirmed = head.confirmed_height();
    if head.coinbase {
        let spendable_at = confirmed.map(|height| height.saturating_add(options.coinbase_maturity));
        if spendable_at.is_none_or(|height| height > options.height) {
            return Err(Verdict::Immature {
                outpoint,
                spendable_at,
            });
        }
    }
    if in_block && confirmed.is_none() {
        return Err(Verdict::Unconfirmed { outpoint });
    }
    if expected.is_some_and(|expected| {
        expected.value_sat != slot.value_sat || CompactScript::new(&expected.script) != slot.script
    }) {
        return Err(Verdict::OutputMismatch { outpoint });
    }
    Ok(applied(!held))
}

/// Judges every input; nothing changes. Says whether any is not held yet. Without a record a held
/// one means that the transaction was pruned.
pub(crate) fn judge_all(
    draft: &mut Draft<'_>,
    txid: Txid,
    inputs: &[OutPoint],
    expected: &[TxOut],
    on_record: bool,
    rules: Judge,
) -> Result<Applied, Stop> {
    // Few inputs are compared faster than hashed.
    const FEW: usize = 16;
    let mut seen = HashMap::new();
    let mut all = Applied::Before;
    for (vin, &outpoint) in (0_u32..).zip(inputs) {
        let me = SpentBy { txid, vin };
        let first = if inputs.len() <= FEW {
            (0..vin)
                .zip(inputs)
                .find(|(_, earlier)| **earlier == outpoint)
                .map(|(vin, _)| SpentBy { txid, vin })
        } else {
            seen.insert(outpoint, me)
        };
        if let Some(by) = first {
            return Err(Verdict::AlreadySpent { outpoint, by }.into());
        }
        let found = draft.slot(outpoint)?;
        if !on_record && found.1.spent_by == Some(me) {
            return Err(Verdict::Pruned { txid }.into());
        }
        if judge(found, me, outpoint, expected.get(vin as usize), rules)? == Applied::Now {
            all = Applied::Now;
        }
    }
    Ok(all)
}

/// Marks `inputs` as spent by `txid`; they were judged before.
pub(crate) fn hold(draft: &mut Draft<'_>, txid: Txid, inputs: &[OutPoint]) -> Result<()> {
    for (vin, outpoint) in (0..).zip(inputs) {
        if let Some(slot) = draft.slot_mut(*outpoint)? {
            slot.spent_by = Some(SpentBy { txid, vin });
        }
    }
    Ok(())
}

/// Takes back what an unmined `txid` holds, and nothing else.
pub(crate) fn release(draft: &mut Draft<'_>, txid: Txid) -> Result<bool> {
    let mut any = false;
    for (me, outpoint) in draft.inputs(txid)? {
        if holds(draft, me, outpoint)?
            && let Some(slot) = draft.slot_mut(outpoint)?
        {
            slot.spent_by = None;
            any = true;
        }
    }
    Ok(any)
}

pub(crate) fn holds(draft: &mut Draft<'_>, me: SpentBy, outpoint: OutPoint) -> Result<bool> {
    Ok(found(draft.slot(outpoint))?.is_some_and(|(_, slot)| slot.spent_by == Some(me)))
}

/// What is there, if anything.
pub(crate) fn found<T>(slot: Result<T, Stop>) -> Result<Option<T>> {
    match slot {
        Ok(slot) => Ok(Some(slot)),
        Err(Stop::Verdict(_)) => Ok(None),
        Err(Stop::Error(error)) => Err(error),
    }
}

/// Tells the parents of a conflicting transaction, or of one that is it no more.
pub(crate) fn tell_parents(
    draft: &mut Draft<'_>,
    txid: Txid,
    parents: &[OutPoint],
    conflicting: bool,
) -> Result<()> {
    for outpoint in parents {
        let told = draft
            .entry(outpoint.txid)?
            .map(|parent| parent.head.conflicting_children.binary_search(&txid));
        match told {
            Some(Ok(at)) if !conflicting => {
                draft
                    .head_mut(outpoint.txid)?
                    .map(|head| head.conflicting_children.remove(at));
            }
            Some(Err(at)) if conflicting => {
                if let Some(head) = draft.head_mut(outpoint.txid)? {
                    head.conflicting_children.insert(at, txid);
                }
            }
            _ => {}
        }
    }
    Ok(())
}
