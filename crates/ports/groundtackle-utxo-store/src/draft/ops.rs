//! The operations of a store, item by item, as [`MemoryUtxoStore`](crate::MemoryUtxoStore) defines them.

use std::collections::{HashMap, HashSet};

use groundtackle_chain::model::MAX_MONEY_SAT;
use groundtackle_chain::{BlockHash, OutPoint, Transaction, TxOut, Txid};

pub use super::blocks::{connect_block, disconnect_block, previous_tip, set_tip, tip};
use super::{Answer, Draft, Entry, Standing, Stop, TxidHash, found};
use crate::types::{
    Applied, Fields, LongestChain, MinedIn, NewRecord, NewTransaction, OutputView, Reassignment,
    Record, RecordOutput, SpendOptions, SpentBy, UnspendableRule,
};
use crate::verdict::Verdict;

/// Under which rules an input is judged.
#[derive(Clone, Copy)]
pub(super) struct Judge {
    pub(super) options: SpendOptions,
    pub(super) in_block: bool,
}

const fn applied(changed: bool) -> Applied {
    if changed {
        Applied::Now
    } else {
        Applied::Before
    }
}

pub(super) fn invalid<T>(txid: Txid, reason: &str) -> Answer<T> {
    Err(Verdict::InvalidTransaction {
        txid,
        reason: reason.into(),
    }
    .into())
}

pub(super) fn check_amounts<'a>(
    txid: Txid,
    outputs: impl IntoIterator<Item = &'a TxOut>,
) -> Answer<()> {
    if outputs
        .into_iter()
        .any(|output| output.value_sat > MAX_MONEY_SAT)
    {
        return invalid(txid, "an amount is above 21 million coins");
    }
    Ok(())
}

/// A record that only knows its transaction.
pub(crate) fn new_record(rule: UnspendableRule, tx: &Transaction) -> Record {
    let outputs = (0..)
        .zip(&tx.outputs)
        .filter(|(_, output)| !rule.is_unspendable(&output.script));
    Record {
        txid: tx.txid,
        coinbase: tx.coinbase,
        size_bytes: tx.size_bytes,
        lock_time: tx.lock_time,
        inputs: tx.inputs.clone(),
        outputs: outputs
            .map(|(vout, output)| RecordOutput::unspent(vout, output.clone()))
            .collect(),
        ..empty_record(tx.txid)
    }
}

const fn empty_record(txid: Txid) -> Record {
    Record {
        txid,
        coinbase: false,
        fee_sat: None,
        size_bytes: 0,
        lock_time: 0,
        inputs: Vec::new(),
        outputs: Vec::new(),
        mined_in: Vec::new(),
        unmined_since: None,
        locked: false,
        conflicting: false,
        conflicting_children: Vec::new(),
        preserve_until: None,
    }
}

pub(super) fn put_on_longest_chain(record: &mut Record, block: Option<BlockHash>) {
    for entry in &mut record.mined_in {
        entry.on_longest_chain = entry.block == block;
    }
    record.unmined_since = None;
}

/// Whether `me` may spend `outpoint`; `Before` where it does.
fn judge(
    (entry, slot): (&Entry, &RecordOutput),
    me: SpentBy,
    outpoint: OutPoint,
    expected: Option<&TxOut>,
    Judge { options, in_block }: Judge,
) -> Result<Applied, Verdict> {
    let head = &entry.head;
    match slot.spent_by {
        Some(by) if by != me => return Err(Verdict::AlreadySpent { outpoint, by }),
        Some(_) if !in_block => return Ok(Applied::Before),
        _ => {}
    }
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
    if expected.is_some_and(|expected| *expected != slot.output) {
        return Err(Verdict::OutputMismatch { outpoint });
    }
    Ok(applied(slot.spent_by.is_none()))
}

/// Judges every input; nothing changes. Says whether any is not held yet. Without a record a held
/// one means that the transaction was pruned.
pub(super) fn judge_all(
    draft: &mut Draft<'_>,
    txid: Txid,
    inputs: &[OutPoint],
    expected: &[TxOut],
    on_record: bool,
    rules: Judge,
) -> Answer<Applied> {
    let mut seen = HashMap::with_capacity_and_hasher(inputs.len(), TxidHash::default());
    let mut all = Applied::Before;
    draft.each((0_u32..).zip(inputs), |draft, (vin, &outpoint)| {
        let me = SpentBy { txid, vin };
        if let Some(by) = seen.insert(outpoint, me) {
            return Err(Verdict::AlreadySpent { outpoint, by }.into());
        }
        let found = draft.slot(outpoint)?;
        if !on_record && found.1.spent_by == Some(me) {
            draft.doubtful.insert(txid);
            return Err(Verdict::Pruned { txid }.into());
        }
        if judge(found, me, outpoint, expected.get(vin as usize), rules)? == Applied::Now {
            all = Applied::Now;
        }
        Ok(())
    })?;
    Ok(all)
}

/// Marks `inputs` as spent by `txid`; they were judged before.
pub(super) fn hold(draft: &mut Draft<'_>, txid: Txid, inputs: &[OutPoint]) -> Answer<()> {
    for (vin, outpoint) in (0..).zip(inputs) {
        if let Some(slot) = draft.slot_mut(*outpoint)? {
            slot.spent_by = Some(SpentBy { txid, vin });
        }
    }
    Ok(())
}

/// Takes back what an unmined `txid` holds, and nothing else.
pub(super) fn release(draft: &mut Draft<'_>, txid: Txid) -> Answer<bool> {
    let mut any = false;
    let inputs = draft.inputs(txid)?;
    draft.each(inputs, |draft, (me, outpoint)| {
        if holds(draft, me, outpoint)?
            && let Some(slot) = draft.slot_mut(outpoint)?
        {
            slot.spent_by = None;
            any = true;
        }
        Ok(())
    })?;
    Ok(any)
}

fn holds(draft: &mut Draft<'_>, me: SpentBy, outpoint: OutPoint) -> Answer<bool> {
    Ok(found(draft.slot(outpoint))?.is_some_and(|(_, slot)| slot.spent_by == Some(me)))
}

fn holds_any(draft: &mut Draft<'_>, txid: Txid, inputs: &[OutPoint]) -> Answer<bool> {
    let mut any = false;
    draft.each((0..).zip(inputs), |draft, (vin, outpoint)| {
        any |= holds(draft, SpentBy { txid, vin }, *outpoint)?;
        Ok(())
    })?;
    Ok(any)
}

/// Tells the parents of a conflicting transaction, or of one that is it no more.
fn tell_parents(
    draft: &mut Draft<'_>,
    txid: Txid,
    inputs: &[OutPoint],
    conflicting: bool,
) -> Answer<()> {
    draft.each(inputs, |draft, outpoint| {
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
        Ok(())
    })
}

fn outpoints(draft: &mut Draft<'_>, txid: Txid) -> Answer<Vec<OutPoint>> {
    let inputs = draft.inputs(txid)?;
    Ok(inputs.into_iter().map(|(_, outpoint)| outpoint).collect())
}

pub(super) fn still_spent(txid: Txid, outputs: &[RecordOutput]) -> Answer<()> {
    match outputs
        .iter()
        .find_map(|output| Some((output.vout, output.spent_by?)))
    {
        Some((vout, by)) => Err(Verdict::StillSpent {
            outpoint: OutPoint::new(txid, vout),
            by,
        }
        .into()),
        None => Ok(()),
    }
}

/// What has to be so of a new transaction, whatever is on record.
pub(crate) fn check_new(new: &NewTransaction) -> Answer<()> {
    let NewTransaction { tx, expected, .. } = new;
    if tx.coinbase || tx.inputs.is_empty() {
        return invalid(
            tx.txid,
            "it spends nothing; a coinbase comes with its block, or by create",
        );
    }
    if !expected.is_empty() && expected.len() != tx.inputs.len() {
        return invalid(tx.txid, "the expected outputs are not one per input");
    }
    check_amounts(tx.txid, &tx.outputs)
}

/// See [`SpendStore::spend_and_create`](crate::SpendStore::spend_and_create).
///
/// # Errors
/// The verdict.
pub fn spend_and_create(
    draft: &mut Draft<'_>,
    new: &NewTransaction,
    options: &SpendOptions,
) -> Answer<Applied> {
    check_new(new)?;
    let NewTransaction {
        tx,
        fee_sat,
        expected,
    } = new;
    let txid = tx.txid;
    if let Some(entry) = draft.entry(txid)? {
        // What is not conflicting holds its inputs.
        return if entry.head.conflicting {
            Err(Verdict::Conflicting { txid }.into())
        } else {
            Ok(Applied::Before)
        };
    }
    let rules = Judge {
        options: *options,
        in_block: false,
    };
    judge_all(draft, txid, &tx.inputs, expected, false, rules)?;
    hold(draft, txid, &tx.inputs)?;
    let record = Record {
        fee_sat: *fee_sat,
        unmined_since: Some(options.height),
        locked: options.lock,
        ..new_record(draft.rule, tx)
    };
    draft.insert(record)?;
    Ok(Applied::Now)
}

/// See [`SpendStore::create`](crate::SpendStore::create).
///
/// # Errors
/// The verdict.
pub fn create(draft: &mut Draft<'_>, new: &NewRecord) -> Answer<Applied> {
    let rule = draft.rule;
    let txid = new.txid();
    let record = match new {
        NewRecord::Coinbase { tx, mined } => {
            if !tx.coinbase || !tx.inputs.is_empty() {
                return invalid(txid, "it is not a coinbase");
            }
            Record {
                mined_in: vec![*mined],
                unmined_since: (!mined.on_longest_chain).then_some(mined.height),
                ..new_record(rule, tx)
            }
        }
        NewRecord::Seed {
            coinbase,
            height,
            outputs,
            ..
        } => {
            if !outputs.is_sorted_by(|(a, _), (b, _)| a < b) {
                return invalid(txid, "the output indexes don't ascend");
            }
            if outputs
                .iter()
                .any(|(_, output)| rule.is_unspendable(&output.script))
            {
                return invalid(txid, "an output can't be spent, so it is in no set");
            }
            let outputs = outputs
                .iter()
                .map(|(vout, output)| RecordOutput::unspent(*vout, output.clone()));
            Record {
                coinbase: *coinbase,
                outputs: outputs.collect(),
                mined_in: vec![MinedIn {
                    block: None,
                    height: *height,
                    subtree_index: 0,
                    on_longest_chain: true,
                }],
                ..empty_record(txid)
            }
        }
        NewRecord::Conflicting {
            tx,
            fee_sat,
            unmined_since,
        } => {
            if tx.coinbase || tx.inputs.is_empty() {
                return invalid(txid, "only what spends can conflict");
            }
            Record {
                fee_sat: *fee_sat,
                unmined_since: Some(*unmined_since),
                conflicting: true,
                ..new_record(rule, tx)
            }
        }
    };
    check_amounts(txid, record.outputs.iter().map(|output| &output.output))?;
    if let Some(there) = draft.entry(txid)?.map(|entry| entry.head.clone()) {
        let outputs = draft.outputs(txid)?;
        let amounts = |outputs: &[RecordOutput]| -> Vec<(u32, u64)> {
            let amounts = outputs.iter().map(|o| (o.vout, o.output.value_sat));
            amounts.collect()
        };
        let same = there.coinbase == record.coinbase
            && there.conflicting == record.conflicting
            && outpoints(draft, txid)? == record.inputs
            && record
                .mined_in
                .iter()
                .all(|mined| there.mined_in.contains(mined))
            && amounts(&outputs) == amounts(&record.outputs);
        return if same {
            Ok(Applied::Before)
        } else {
            Err(Verdict::AlreadyExists { txid }.into())
        };
    }
    // Without a record it was pruned, and what it spent is spent for good.
    if holds_any(draft, txid, &record.inputs)? {
        draft.doubtful.insert(txid);
        return Err(Verdict::Pruned { txid }.into());
    }
    if record.conflicting {
        tell_parents(draft, txid, &record.inputs, true)?;
    }
    draft.insert(record)?;
    Ok(Applied::Now)
}

/// See [`SpendStore::spend`](crate::SpendStore::spend).
///
/// # Errors
/// The verdict.
pub fn spend(draft: &mut Draft<'_>, txid: Txid, options: &SpendOptions) -> Answer<Applied> {
    if !draft.known(txid)?.head.conflicting {
        return Ok(Applied::Before);
    }
    let inputs = outpoints(draft, txid)?;
    let rules = Judge {
        options: *options,
        in_block: false,
    };
    let answer = judge_all(draft, txid, &inputs, &[], true, rules)?;
    hold(draft, txid, &inputs)?;
    Ok(answer)
}

/// See [`SpendStore::unspend`](crate::SpendStore::unspend).
///
/// # Errors
/// The verdict.
pub fn unspend(draft: &mut Draft<'_>, txid: Txid) -> Answer<Applied> {
    if !draft.known(txid)?.head.conflicting {
        return Err(Verdict::NotConflicting { txid }.into());
    }
    Ok(applied(release(draft, txid)?))
}

/// See [`SpendStore::remove`](crate::SpendStore::remove).
///
/// # Errors
/// The verdict.
pub fn remove(draft: &mut Draft<'_>, txid: Txid) -> Answer<Applied> {
    match draft.standing(txid)? {
        Standing::Gone => return Ok(Applied::Before),
        Standing::Confirmed(_) => return Err(Verdict::MinedOnLongestChain { txid }.into()),
        Standing::Unmined => {}
    }
    still_spent(txid, &draft.outputs(txid)?)?;
    let inputs = outpoints(draft, txid)?;
    release(draft, txid)?;
    tell_parents(draft, txid, &inputs, false)?;
    draft.forget(txid)?;
    Ok(Applied::Now)
}

/// See [`BlockStore::set_mined`](crate::BlockStore::set_mined).
///
/// # Errors
/// The verdict.
pub fn set_mined(draft: &mut Draft<'_>, txid: Txid, mined: &MinedIn) -> Answer<Applied> {
    if draft.known(txid)?.head.conflicting && mined.on_longest_chain {
        return Err(Verdict::Conflicting { txid }.into());
    }
    let changed = draft.mine(txid, |head| {
        let before = (head.mined_in.clone(), head.unmined_since);
        let mut replaced = None;
        match head
            .mined_in
            .iter_mut()
            .find(|entry| entry.block == mined.block)
        {
            Some(entry) => replaced = Some(std::mem::replace(entry, *mined)),
            None => head.mined_in.push(*mined),
        }
        if mined.on_longest_chain {
            put_on_longest_chain(head, mined.block);
        } else if replaced.is_some_and(|entry| entry.on_longest_chain) {
            head.unmined_since = Some(mined.height);
        }
        before != (head.mined_in.clone(), head.unmined_since)
    })?;
    Ok(applied(changed == Some(true)))
}

/// See [`BlockStore::unset_mined`](crate::BlockStore::unset_mined).
///
/// # Errors
/// The verdict.
pub fn unset_mined(
    draft: &mut Draft<'_>,
    txid: Txid,
    block: &BlockHash,
    unmined_since: u32,
) -> Answer<Applied> {
    let at = draft
        .known(txid)?
        .head
        .mined_in
        .iter()
        .position(|entry| entry.block == Some(*block));
    let Some(at) = at else {
        return Ok(Applied::Before);
    };
    draft.mine(txid, |head| {
        if head.mined_in.remove(at).on_longest_chain {
            head.unmined_since = Some(unmined_since);
        }
    })?;
    Ok(Applied::Now)
}

/// See [`BlockStore::set_longest_chain`](crate::BlockStore::set_longest_chain).
///
/// # Errors
/// The verdict.
pub fn set_longest_chain(
    draft: &mut Draft<'_>,
    txid: Txid,
    block: &BlockHash,
    mark: LongestChain,
) -> Answer<Applied> {
    let block = *block;
    let head = &draft.known(txid)?.head;
    let conflicting = head.conflicting;
    let entry = head
        .mined_in
        .iter()
        .find(|entry| entry.block == Some(block));
    let Some(on) = entry.map(|entry| entry.on_longest_chain) else {
        return Err(Verdict::NotMinedIn { txid, block }.into());
    };
    match mark {
        LongestChain::On if conflicting => return Err(Verdict::Conflicting { txid }.into()),
        LongestChain::On if on => return Ok(Applied::Before),
        LongestChain::Off { .. } if !on => return Ok(Applied::Before),
        LongestChain::On => {
            draft.mine(txid, |head| put_on_longest_chain(head, Some(block)))?;
        }
        LongestChain::Off { unmined_since } => {
            draft.mine(txid, |head| {
                head.mined_in
                    .iter_mut()
                    .filter(|entry| entry.block == Some(block))
                    .for_each(|entry| entry.on_longest_chain = false);
                head.unmined_since = Some(unmined_since);
            })?;
        }
    }
    Ok(Applied::Now)
}

/// See [`ConflictStore::set_locked`](crate::ConflictStore::set_locked).
///
/// # Errors
/// The verdict.
pub fn set_locked(draft: &mut Draft<'_>, txid: Txid, locked: bool) -> Answer<Applied> {
    if draft.known(txid)?.head.locked == locked {
        return Ok(Applied::Before);
    }
    if let Some(head) = draft.head_mut(txid)? {
        head.locked = locked;
    }
    Ok(Applied::Now)
}

/// See [`RetentionStore::preserve`](crate::RetentionStore::preserve).
///
/// # Errors
/// The verdict.
pub fn preserve(draft: &mut Draft<'_>, txid: Txid, until_height: u32) -> Answer<Applied> {
    if draft.known(txid)?.head.preserve_until == Some(until_height) {
        return Ok(Applied::Before);
    }
    if let Some(head) = draft.head_mut(txid)? {
        head.preserve_until = Some(until_height);
    }
    draft.expiring.insert((until_height, txid));
    Ok(Applied::Now)
}

/// `roots`, then what spends their outputs, by generation.
fn with_descendants(
    draft: &mut Draft<'_>,
    roots: Vec<Txid>,
    but: Option<Txid>,
) -> Answer<Vec<Txid>> {
    let mut seen: HashSet<Txid> = roots.iter().copied().chain(but).collect();
    let mut found = roots;
    let mut next = 0;
    let mut complete = true;
    while let Some(txid) = found.get(next).copied() {
        next += 1;
        // The rest of a generation can be read in the same round.
        let Ok(outputs) = draft.outputs(txid) else {
            complete = false;
            continue;
        };
        for by in outputs.iter().filter_map(|output| output.spent_by) {
            if seen.insert(by.txid) {
                found.push(by.txid);
            }
        }
    }
    if complete {
        Ok(found)
    } else {
        Err(Stop::NotLoaded)
    }
}

/// See [`ConflictStore::mark_conflicting`](crate::ConflictStore::mark_conflicting).
///
/// # Errors
/// The verdict.
pub fn mark_conflicting(draft: &mut Draft<'_>, txid: Txid) -> Answer<Vec<Txid>> {
    draft.known(txid)?;
    let cascade = with_descendants(draft, vec![txid], None)?;
    draft.each(&cascade, |draft, txid| {
        if draft.standing_of_spender(*txid)? != Standing::Unmined {
            return Err(Verdict::MinedOnLongestChain { txid: *txid }.into());
        }
        Ok(())
    })?;
    draft.each(&cascade, |draft, txid| {
        if let Some(head) = draft.head_mut(*txid)? {
            head.conflicting = true;
        }
        let parents = outpoints(draft, *txid)?;
        tell_parents(draft, *txid, &parents, true)
    })?;
    Ok(cascade)
}

/// See [`ConflictStore::unmark_conflicting`](crate::ConflictStore::unmark_conflicting).
///
/// # Errors
/// The verdict.
pub fn unmark_conflicting(draft: &mut Draft<'_>, txid: Txid) -> Answer<Applied> {
    if !draft.known(txid)?.head.conflicting {
        return Ok(Applied::Before);
    }
    let inputs = draft.inputs(txid)?;
    draft.each(inputs, |draft, (me, outpoint)| {
        let (parent, slot) = draft.slot(outpoint)?;
        match slot.spent_by {
            Some(by) if by == me => {}
            Some(by) => return Err(Verdict::AlreadySpent { outpoint, by }.into()),
            None => return Err(Verdict::NotSpending { outpoint }.into()),
        }
        if parent.head.conflicting {
            return Err(Verdict::ConflictingParent { outpoint }.into());
        }
        Ok(())
    })?;
    let parents = outpoints(draft, txid)?;
    tell_parents(draft, txid, &parents, false)?;
    if let Some(head) = draft.head_mut(txid)? {
        head.conflicting = false;
    }
    Ok(Applied::Now)
}

/// See [`ConflictStore::counter_conflicting`](crate::ConflictStore::counter_conflicting).
///
/// # Errors
/// The verdict.
pub fn counter_conflicting(draft: &mut Draft<'_>, txid: Txid) -> Answer<Vec<Txid>> {
    draft.known(txid)?;
    let inputs = outpoints(draft, txid)?;
    let mut seen = HashSet::from([txid]);
    let mut holders = Vec::new();
    draft.each(inputs, |draft, outpoint| {
        let holder = found(draft.slot(outpoint))?.and_then(|(_, slot)| slot.spent_by);
        holders.extend(holder.map(|by| by.txid).filter(|txid| seen.insert(*txid)));
        Ok(())
    })?;
    with_descendants(draft, holders, Some(txid))
}

/// See [`ConflictStore::conflicting_children`](crate::ConflictStore::conflicting_children).
///
/// # Errors
/// The verdict.
pub fn conflicting_children(draft: &mut Draft<'_>, txid: Txid) -> Answer<Vec<Txid>> {
    Ok(draft.known(txid)?.head.conflicting_children.clone())
}

/// See [`SpendStore::records`](crate::SpendStore::records).
///
/// # Errors
/// What has to be read first.
pub fn record(draft: &mut Draft<'_>, txid: Txid, fields: Fields) -> Answer<Option<Record>> {
    if fields.inputs {
        draft.inputs(txid)?;
    }
    if fields.outputs {
        draft.whole_entry(txid)?;
    }
    let record = draft.entry(txid)?.map(|entry| entry.clone().into_record());
    Ok(record.map(|mut record| {
        if !fields.inputs {
            record.inputs.clear();
        }
        if !fields.outputs {
            record.outputs.clear();
        }
        record
    }))
}

/// See [`SpendStore::outputs`](crate::SpendStore::outputs).
///
/// # Errors
/// The verdict.
pub fn output(draft: &mut Draft<'_>, outpoint: OutPoint) -> Answer<OutputView> {
    let (entry, slot) = draft.slot(outpoint)?;
    Ok(OutputView::new(&entry.head, slot.clone()))
}

/// See [`AlertStore::freeze`](crate::AlertStore::freeze).
///
/// # Errors
/// The verdict.
pub fn freeze(draft: &mut Draft<'_>, outpoint: OutPoint) -> Answer<Applied> {
    if let Some(by) = draft.slot(outpoint)?.1.spent_by {
        return Err(Verdict::AlreadySpent { outpoint, by }.into());
    }
    set_frozen(draft, outpoint, true)
}

/// See [`AlertStore::unfreeze`](crate::AlertStore::unfreeze).
///
/// # Errors
/// The verdict.
pub fn unfreeze(draft: &mut Draft<'_>, outpoint: OutPoint) -> Answer<Applied> {
    set_frozen(draft, outpoint, false)
}

fn set_frozen(draft: &mut Draft<'_>, outpoint: OutPoint, frozen: bool) -> Answer<Applied> {
    if draft.slot(outpoint)?.1.frozen == frozen {
        return Ok(Applied::Before);
    }
    if let Some(slot) = draft.slot_mut(outpoint)? {
        slot.frozen = frozen;
    }
    Ok(Applied::Now)
}

/// See [`AlertStore::reassign`](crate::AlertStore::reassign).
///
/// # Errors
/// The verdict.
pub fn reassign(draft: &mut Draft<'_>, reassignment: &Reassignment) -> Answer<Applied> {
    let Reassignment {
        outpoint,
        script,
        spendable_from,
    } = reassignment;
    let outpoint = *outpoint;
    let rule = draft.rule;
    let (_, slot) = draft.slot(outpoint)?;
    if let Some(by) = slot.spent_by {
        return Err(Verdict::AlreadySpent { outpoint, by }.into());
    }
    if rule.is_unspendable(script) {
        return invalid(outpoint.txid, "the new script can't be spent");
    }
    if !slot.frozen {
        let same = slot.output.script == *script && slot.spendable_from == Some(*spendable_from);
        return if same {
            Ok(Applied::Before)
        } else {
            Err(Verdict::NotFrozen { outpoint }.into())
        };
    }
    let coin = draft.coin(outpoint)?;
    if let Some(slot) = draft.slot_mut(outpoint)? {
        slot.output.script = script.clone();
        slot.spendable_from = Some(*spendable_from);
        slot.frozen = false;
    }
    if let Some((mut coin, _)) = coin {
        draft.remove_coin(coin.clone());
        coin.output.script = script.clone();
        draft.add_coin(coin);
    }
    Ok(Applied::Now)
}

/// Forgets a conflicting transaction that is over, for
/// [`RetentionStore::prune`](crate::RetentionStore::prune): unmined since `horizon` or earlier, not
/// preserved, holding nothing, of which nothing is spent. Says whether it did.
///
/// # Errors
/// What has to be read.
pub fn prune_conflicting(draft: &mut Draft<'_>, txid: Txid, horizon: u32) -> Answer<bool> {
    let over = draft.entry(txid)?.is_some_and(|entry| {
        entry.head.conflicting
            && entry
                .head
                .unmined_since
                .is_some_and(|since| since <= horizon)
            && entry
                .head
                .preserve_until
                .is_none_or(|until| until <= horizon)
    });
    if !over {
        return Ok(false);
    }
    let outputs = draft.outputs(txid)?;
    let inputs = outpoints(draft, txid)?;
    if outputs.iter().any(|output| output.spent_by.is_some()) || holds_any(draft, txid, &inputs)? {
        return Ok(false);
    }
    tell_parents(draft, txid, &inputs, false)?;
    draft.forget(txid)?;
    Ok(true)
}

/// Forgets a confirmed transaction that nothing needs any more, for
/// [`RetentionStore::prune`](crate::RetentionStore::prune): confirmed at `horizon` or below, not preserved,
/// all outputs of which transactions spend that are so too, or pruned. Says whether it did. The confirmed
/// set stays as it is. What the transaction holds stays held; a backend that knows by its record that it
/// does has to keep that.
///
/// # Errors
/// What has to be read.
pub fn prune_confirmed(draft: &mut Draft<'_>, txid: Txid, horizon: u32) -> Answer<bool> {
    let below = |standing| match standing {
        Standing::Gone => true,
        Standing::Confirmed(height) => height <= horizon,
        Standing::Unmined => false,
    };
    let kept = draft.entry(txid)?.is_none_or(|entry| {
        let preserved = entry.head.preserve_until;
        preserved.is_some_and(|until| horizon < until)
    });
    if kept || !below(draft.standing(txid)?) {
        return Ok(false);
    }
    let mut over = true;
    let outputs = draft.outputs(txid)?;
    draft.each(outputs, |draft, output| {
        over &= match output.spent_by {
            Some(by) => below(draft.standing_of_spender(by.txid)?),
            None => false,
        };
        Ok(())
    })?;
    if over {
        draft.forget(txid)?;
    }
    Ok(over)
}
