//! What each operation does to a draft of one record after the other.

use std::collections::HashSet;

use groundtackle_utxo_store::{
    Applied, BlockHash, LongestChain, MinedIn, NewRecord, NewTransaction, OutPoint, Reassignment,
    Result, SpendOptions, SpentBy, Txid, Verdict,
};

use crate::draft::{Draft, Entry, Standing};
use crate::engine::Fixed;
use crate::error::Stop;
use crate::record::{CompactScript, Head, Mined, Slot};
use crate::rules::{self, Judge, applied, invalid};

pub(crate) fn spend_and_create(
    draft: &mut Draft<'_>,
    fixed: Fixed,
    new: &NewTransaction,
    options: &SpendOptions,
) -> Result<Applied, Stop> {
    let NewTransaction {
        tx,
        fee_sat,
        expected,
    } = new;
    let txid = tx.txid;
    if tx.coinbase || tx.inputs.is_empty() {
        return invalid(
            txid,
            "it spends nothing; a coinbase comes with its block, or by create",
        );
    }
    if !expected.is_empty() && expected.len() != tx.inputs.len() {
        return invalid(txid, "the expected outputs are not one per input");
    }
    rules::check_amounts(txid, rules::amounts(&tx.outputs))?;
    if let Some(entry) = draft.entry(txid)? {
        // What is not conflicting holds its inputs.
        return if entry.head.conflicting {
            Err(Verdict::Conflicting { txid }.into())
        } else {
            Ok(Applied::Before)
        };
    }
    rules::judge_all(
        draft,
        txid,
        &tx.inputs,
        expected,
        false,
        Judge {
            options: *options,
            in_block: false,
        },
    )?;
    rules::hold(draft, txid, &tx.inputs)?;
    let head = Head {
        fee_sat: *fee_sat,
        unmined_since: Some(options.height),
        locked: options.lock,
        ..rules::new_head(tx)
    };
    draft.insert(
        txid,
        Entry::new(
            head,
            tx.inputs.clone(),
            rules::new_slots(fixed.unspendable, tx),
        ),
    )?;
    Ok(Applied::Now)
}

fn mined(draft: &mut Draft<'_>, mined: &MinedIn) -> Result<Mined> {
    let MinedIn {
        block,
        height,
        subtree_index,
        on_longest_chain,
    } = *mined;
    let block = block.map(|block| draft.block_number(&block)).transpose()?;
    Ok(Mined {
        block,
        height,
        subtree_index,
        on_longest_chain,
    })
}

pub(crate) fn create(
    draft: &mut Draft<'_>,
    fixed: Fixed,
    new: &NewRecord,
) -> Result<Applied, Stop> {
    let rule = fixed.unspendable;
    let txid = new.txid();
    let (head, inputs, slots) = match new {
        NewRecord::Coinbase { tx, mined: place } => {
            if !tx.coinbase || !tx.inputs.is_empty() {
                return invalid(txid, "it is not a coinbase");
            }
            let unmined_since = (!place.on_longest_chain).then_some(place.height);
            // A block that some record names has its number for good, so check before giving one.
            rules::check_amounts(txid, rules::amounts(&tx.outputs))?;
            let mined_in = vec![mined(draft, place)?];
            (
                Head {
                    mined_in,
                    unmined_since,
                    ..rules::new_head(tx)
                },
                Vec::new(),
                rules::new_slots(rule, tx),
            )
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
            let mined_in = vec![Mined {
                block: None,
                height: *height,
                subtree_index: 0,
                on_longest_chain: true,
            }];
            let slots = outputs
                .iter()
                .map(|(vout, output)| Slot::unspent(*vout, output));
            (
                Head {
                    coinbase: *coinbase,
                    mined_in,
                    ..rules::empty_head()
                },
                Vec::new(),
                slots.collect(),
            )
        }
        NewRecord::Conflicting {
            tx,
            fee_sat,
            unmined_since,
        } => {
            if tx.coinbase || tx.inputs.is_empty() {
                return invalid(txid, "only what spends can conflict");
            }
            let head = Head {
                fee_sat: *fee_sat,
                unmined_since: Some(*unmined_since),
                conflicting: true,
                ..rules::new_head(tx)
            };
            (head, tx.inputs.clone(), rules::new_slots(rule, tx))
        }
    };
    rules::check_amounts(txid, slots.iter().map(|slot| slot.value_sat))?;
    if let Some(there) = draft.entry(txid)?.map(|entry| entry.head.clone()) {
        let same = there.coinbase == head.coinbase
            && there.conflicting == head.conflicting
            && head
                .mined_in
                .iter()
                .all(|mined| there.mined_in.contains(mined))
            && draft
                .inputs(txid)?
                .iter()
                .map(|(_, outpoint)| outpoint)
                .eq(&inputs)
            && draft
                .all_slots(txid)?
                .iter()
                .map(|slot| (slot.vout, slot.value_sat))
                .eq(slots.iter().map(|slot| (slot.vout, slot.value_sat)));
        return if same {
            Ok(Applied::Before)
        } else {
            Err(Verdict::AlreadyExists { txid }.into())
        };
    }
    // Without a record it was pruned, and what it spent is spent for good.
    for (vin, outpoint) in (0..).zip(&inputs) {
        if rules::holds(draft, SpentBy { txid, vin }, *outpoint)? {
            return Err(Verdict::Pruned { txid }.into());
        }
    }
    if head.conflicting {
        rules::tell_parents(draft, txid, &inputs, true)?;
    }
    draft.insert(txid, Entry::new(head, inputs, slots))?;
    Ok(Applied::Now)
}

pub(crate) fn outpoints(draft: &mut Draft<'_>, txid: Txid) -> Result<Vec<OutPoint>> {
    Ok(draft
        .inputs(txid)?
        .into_iter()
        .map(|(_, outpoint)| outpoint)
        .collect())
}

pub(crate) fn spend(
    draft: &mut Draft<'_>,
    txid: Txid,
    options: &SpendOptions,
) -> Result<Applied, Stop> {
    if !draft.known(txid)?.head.conflicting {
        return Ok(Applied::Before);
    }
    let inputs = outpoints(draft, txid)?;
    let answer = rules::judge_all(
        draft,
        txid,
        &inputs,
        &[],
        true,
        Judge {
            options: *options,
            in_block: false,
        },
    )?;
    rules::hold(draft, txid, &inputs)?;
    Ok(answer)
}

pub(crate) fn unspend(draft: &mut Draft<'_>, txid: Txid) -> Result<Applied, Stop> {
    if !draft.known(txid)?.head.conflicting {
        return Err(Verdict::NotConflicting { txid }.into());
    }
    Ok(applied(rules::release(draft, txid)?))
}

pub(crate) fn remove(draft: &mut Draft<'_>, txid: Txid) -> Result<Applied, Stop> {
    match draft.standing(txid)? {
        Standing::Gone => return Ok(Applied::Before),
        Standing::Confirmed(_) => return Err(Verdict::MinedOnLongestChain { txid }.into()),
        Standing::Unmined => {}
    }
    let slots = draft.all_slots(txid)?;
    if let Some((vout, by)) = slots
        .iter()
        .find_map(|slot| Some((slot.vout, slot.spent_by?)))
    {
        return Err(Verdict::StillSpent {
            outpoint: OutPoint::new(txid, vout),
            by,
        }
        .into());
    }
    rules::release(draft, txid)?;
    let parents = outpoints(draft, txid)?;
    rules::tell_parents(draft, txid, &parents, false)?;
    draft.forget(txid)?;
    Ok(Applied::Now)
}

pub(crate) fn set_mined(
    draft: &mut Draft<'_>,
    txid: Txid,
    place: &MinedIn,
) -> Result<Applied, Stop> {
    if draft.known(txid)?.head.conflicting && place.on_longest_chain {
        return Err(Verdict::Conflicting { txid }.into());
    }
    let mined = mined(draft, place)?;
    let changed = draft.mine(txid, |head| {
        let before = (head.mined_in.clone(), head.unmined_since);
        let mut replaced = None;
        match head
            .mined_in
            .iter_mut()
            .find(|entry| entry.block == mined.block)
        {
            Some(entry) => replaced = Some(std::mem::replace(entry, mined)),
            None => head.mined_in.push(mined),
        }
        if mined.on_longest_chain {
            rules::put_on_longest_chain(head, mined.block);
        } else if replaced.is_some_and(|entry| entry.on_longest_chain) {
            head.unmined_since = Some(mined.height);
        }
        before != (head.mined_in.clone(), head.unmined_since)
    })?;
    Ok(applied(changed == Some(true)))
}

pub(crate) fn unset_mined(
    draft: &mut Draft<'_>,
    txid: Txid,
    block: &BlockHash,
    unmined_since: u32,
) -> Result<Applied, Stop> {
    draft.known(txid)?;
    let Some(number) = draft.known_block_number(block)? else {
        return Ok(Applied::Before);
    };
    let changed = draft.mine(txid, |head| {
        let Some(at) = head
            .mined_in
            .iter()
            .position(|entry| entry.block == Some(number))
        else {
            return false;
        };
        if head.mined_in.remove(at).on_longest_chain {
            head.unmined_since = Some(unmined_since);
        }
        true
    })?;
    Ok(applied(changed == Some(true)))
}

pub(crate) fn set_longest_chain(
    draft: &mut Draft<'_>,
    txid: Txid,
    block: &BlockHash,
    mark: LongestChain,
) -> Result<Applied, Stop> {
    let conflicting = draft.known(txid)?.head.conflicting;
    let number = draft.known_block_number(block)?;
    let entry = draft
        .known(txid)?
        .head
        .mined_in
        .iter()
        .find(|entry| entry.block.is_some() && entry.block == number);
    let Some(on) = entry.map(|entry| entry.on_longest_chain) else {
        return Err(Verdict::NotMinedIn {
            txid,
            block: *block,
        }
        .into());
    };
    match mark {
        LongestChain::On if conflicting => return Err(Verdict::Conflicting { txid }.into()),
        LongestChain::On if on => return Ok(Applied::Before),
        LongestChain::Off { .. } if !on => return Ok(Applied::Before),
        LongestChain::On => {
            draft.mine(txid, |head| rules::put_on_longest_chain(head, number))?;
        }
        LongestChain::Off { unmined_since } => {
            draft.mine(txid, |head| {
                head.mined_in
                    .iter_mut()
                    .filter(|entry| entry.block == number)
                    .for_each(|entry| entry.on_longest_chain = false);
                head.unmined_since = Some(unmined_since);
            })?;
        }
    }
    Ok(Applied::Now)
}

/// `roots`, then what spends their outputs, by generation.
fn with_descendants(
    draft: &mut Draft<'_>,
    roots: Vec<Txid>,
    but: Option<Txid>,
) -> Result<Vec<Txid>> {
    let mut seen: HashSet<Txid> = roots.iter().copied().chain(but).collect();
    let mut found = roots;
    let mut next = 0;
    while let Some(txid) = found.get(next).copied() {
        next += 1;
        for by in draft
            .all_slots(txid)?
            .iter()
            .filter_map(|slot| slot.spent_by)
        {
            if seen.insert(by.txid) {
                found.push(by.txid);
            }
        }
    }
    Ok(found)
}

pub(crate) fn mark_conflicting(draft: &mut Draft<'_>, txid: Txid) -> Result<Vec<Txid>, Stop> {
    draft.known(txid)?;
    let cascade = with_descendants(draft, vec![txid], None)?;
    for txid in &cascade {
        if draft.standing(*txid)? != Standing::Unmined {
            return Err(Verdict::MinedOnLongestChain { txid: *txid }.into());
        }
    }
    for txid in &cascade {
        if let Some(head) = draft.head_mut(*txid)? {
            head.conflicting = true;
        }
        let parents = outpoints(draft, *txid)?;
        rules::tell_parents(draft, *txid, &parents, true)?;
    }
    Ok(cascade)
}

pub(crate) fn unmark_conflicting(draft: &mut Draft<'_>, txid: Txid) -> Result<Applied, Stop> {
    if !draft.known(txid)?.head.conflicting {
        return Ok(Applied::Before);
    }
    let inputs = draft.inputs(txid)?;
    for (me, outpoint) in &inputs {
        let outpoint = *outpoint;
        let (parent, slot) = draft.slot(outpoint)?;
        match slot.spent_by {
            Some(by) if by == *me => {}
            Some(by) => return Err(Verdict::AlreadySpent { outpoint, by }.into()),
            None => return Err(Verdict::NotSpending { outpoint }.into()),
        }
        if parent.head.conflicting {
            return Err(Verdict::ConflictingParent { outpoint }.into());
        }
    }
    let parents = outpoints(draft, txid)?;
    rules::tell_parents(draft, txid, &parents, false)?;
    if let Some(head) = draft.head_mut(txid)? {
        head.conflicting = false;
    }
    Ok(Applied::Now)
}

pub(crate) fn counter_conflicting(draft: &mut Draft<'_>, txid: Txid) -> Result<Vec<Txid>, Stop> {
    draft.known(txid)?;
    let mut holders = Vec::new();
    for (_, outpoint) in draft.inputs(txid)? {
        let holder = rules::found(draft.slot(outpoint))?
            .and_then(|(_, slot)| slot.spent_by)
            .map(|by| by.txid);
        holders.extend(holder.filter(|holder| *holder != txid && !holders.contains(holder)));
    }
    Ok(with_descendants(draft, holders, Some(txid))?)
}

pub(crate) fn freeze(draft: &mut Draft<'_>, outpoint: OutPoint) -> Result<Applied, Stop> {
    let (_, slot) = draft.slot(outpoint)?;
    if let Some(by) = slot.spent_by {
        return Err(Verdict::AlreadySpent { outpoint, by }.into());
    }
    set_frozen(draft, outpoint, true)
}

pub(crate) fn set_frozen(
    draft: &mut Draft<'_>,
    outpoint: OutPoint,
    frozen: bool,
) -> Result<Applied, Stop> {
    if draft.slot(outpoint)?.1.frozen == frozen {
        return Ok(Applied::Before);
    }
    if let Some(slot) = draft.slot_mut(outpoint)? {
        slot.frozen = frozen;
    }
    Ok(Applied::Now)
}

pub(crate) fn reassign(
    draft: &mut Draft<'_>,
    fixed: Fixed,
    reassignment: &Reassignment,
) -> Result<Applied, Stop> {
    let Reassignment {
        outpoint,
        script,
        spendable_from,
    } = reassignment;
    let outpoint = *outpoint;
    let compact = CompactScript::new(script);
    let (_, slot) = draft.slot(outpoint)?;
    if let Some(by) = slot.spent_by {
        return Err(Verdict::AlreadySpent { outpoint, by }.into());
    }
    if fixed.unspendable.is_unspendable(script) {
        return invalid(outpoint.txid, "the new script can't be spent");
    }
    if !slot.frozen {
        let same = slot.script == compact && slot.spendable_from == Some(*spendable_from);
        return if same {
            Ok(Applied::Before)
        } else {
            Err(Verdict::NotFrozen { outpoint }.into())
        };
    }
    let coin = draft.coin(outpoint)?;
    if let Some(slot) = draft.slot_mut(outpoint)? {
        slot.script = compact;
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

/// The horizon from which on nothing needs a confirmed record any more: it and all its spenders are
/// confirmed there. `None` while an output is unspent or one of these unmined; whatever ends that has
/// the pruning look again.
pub(crate) fn done_at(draft: &mut Draft<'_>, txid: Txid) -> Result<Option<u32>> {
    let Some(mut done_at) = draft
        .entry(txid)?
        .and_then(|entry| entry.head.confirmed_height())
    else {
        return Ok(None);
    };
    for slot in draft.all_slots(txid)? {
        let Some(by) = slot.spent_by else {
            return Ok(None);
        };
        match draft.standing(by.txid)? {
            // A spender without a record was pruned, so it was confirmed below.
            Standing::Gone => {}
            Standing::Confirmed(height) => done_at = done_at.max(height),
            Standing::Unmined => return Ok(None),
        }
    }
    Ok(Some(done_at))
}

pub(crate) fn kept_until(draft: &mut Draft<'_>, txid: Txid, horizon: u32) -> Result<Option<u32>> {
    Ok(draft
        .entry(txid)?
        .and_then(|entry| entry.head.preserve_until)
        .filter(|until| horizon < *until))
}
