use groundtackle_chain::{BlockHash, ChainBlock, Transaction, TxOut, Txid};

use super::ops::{
    Judge, check_amounts, hold, invalid, judge_all, new_record, put_on_longest_chain, release,
    still_spent,
};
use super::{Answer, BlockUndo, Draft, Standing, Stop, Undo};
use crate::types::{Applied, Connected, Disconnected, MinedIn, Record, SpendOptions, Tip};
use crate::verdict::Verdict;

impl Draft<'_> {
    fn current_tip(&self) -> Option<Tip> {
        self.tip.unwrap_or(self.loaded.tip)
    }

    /// Takes back all that was drawn up, if it is refused.
    fn whole<T>(&mut self, change: impl FnOnce(&mut Self) -> Answer<T>) -> Answer<T> {
        let answer = change(self);
        if matches!(answer, Err(Stop::Verdict(_))) {
            self.records.clear();
            self.coins.clear();
            self.expiring.clear();
            (self.tip, self.undo) = (None, None);
        }
        answer
    }

    fn undo_of(&mut self, block: &BlockHash) -> Answer<Option<BlockUndo>> {
        if !self.loaded.asked.undo.contains(block) {
            self.missing.undo.insert(*block);
            return Err(Stop::NotLoaded);
        }
        Ok(self.loaded.undo.get(block).cloned())
    }
}

/// See [`BlockStore::tip`](crate::BlockStore::tip).
pub fn tip(draft: &Draft<'_>) -> Option<Tip> {
    draft.current_tip()
}

/// See [`BlockStore::previous_tip`](crate::BlockStore::previous_tip).
///
/// # Errors
/// What has to be read first.
pub fn previous_tip(draft: &mut Draft<'_>) -> Answer<Option<Tip>> {
    let Some(tip) = draft.current_tip() else {
        return Ok(None);
    };
    Ok(draft.undo_of(&tip.hash)?.and_then(|undo| undo.previous))
}

/// See [`BlockStore::set_tip`](crate::BlockStore::set_tip).
pub fn set_tip(draft: &mut Draft<'_>, tip: Tip) {
    draft.tip = Some(Some(tip));
}

fn total<'a>(outputs: impl IntoIterator<Item = &'a TxOut>) -> u64 {
    outputs
        .into_iter()
        .fold(0, |sum, output| sum.saturating_add(output.value_sat))
}

/// See [`BlockStore::connect_block`](crate::BlockStore::connect_block). It must be the only item of its
/// call: a block that is refused takes back all that was drawn up.
///
/// # Errors
/// The verdict.
pub fn connect_block(draft: &mut Draft<'_>, block: &ChainBlock) -> Answer<Connected> {
    draft.whole(|draft| connect(draft, block))
}

fn connect(draft: &mut Draft<'_>, block: &ChainBlock) -> Answer<Connected> {
    let previous = draft.current_tip();
    if previous.is_some_and(|tip| tip.hash == block.hash) {
        return connected_before(draft, &block.hash);
    }
    let follows = match previous {
        None => block.height == 0,
        Some(tip) => block.previous == tip.hash && tip.height.checked_add(1) == Some(block.height),
    };
    if !follows {
        return Err(Verdict::NotNext {
            block: block.hash,
            tip: previous,
        }
        .into());
    }
    draft.in_block = true;
    // Bitcoin Core never connects a genesis block: its coinbase is in no set.
    let transactions = if block.height == 0 {
        &[]
    } else {
        block.transactions.as_slice()
    };
    let mut undo = BlockUndo {
        height: block.height,
        previous,
        transactions: Vec::with_capacity(transactions.len()),
        replaced_coinbase: None,
    };
    let (spent, created) = transactions.iter().fold((0, 0), |(spent, created), tx| {
        (spent + tx.inputs.len(), created + tx.outputs.len())
    });
    let mut answer = Connected {
        applied: Applied::Now,
        created_outputs: 0,
        spent: Vec::with_capacity(spent),
    };
    draft.coins.reserve(spent + created);
    draft.each((0..).zip(transactions), |draft, (index, tx)| {
        let first = index == 0;
        connect_transaction(draft, block, first, tx, &mut undo, &mut answer).map_err(|stop| {
            match stop {
                Stop::Verdict(verdict) => Stop::Verdict(Verdict::InBlock {
                    block: block.hash,
                    txid: tx.txid,
                    verdict: Box::new(verdict),
                }),
                Stop::NotLoaded => Stop::NotLoaded,
            }
        })
    })?;
    draft.undo = Some((block.hash, Some(undo)));
    draft.tip = Some(Some(Tip {
        height: block.height,
        hash: block.hash,
        median_time_past: block.median_time_past,
    }));
    Ok(answer)
}

fn connect_transaction(
    draft: &mut Draft<'_>,
    block: &ChainBlock,
    first: bool,
    tx: &Transaction,
    undo: &mut BlockUndo,
    answer: &mut Connected,
) -> Answer<()> {
    let txid = tx.txid;
    if tx.coinbase != first || tx.coinbase != tx.inputs.is_empty() {
        return invalid(
            txid,
            "a block begins with its only coinbase, and all else spends",
        );
    }
    check_amounts(txid, &tx.outputs)?;
    let standing = draft.standing(txid)?;
    if draft
        .entry(txid)?
        .is_some_and(|entry| entry.head.conflicting)
    {
        return Err(Verdict::Conflicting { txid }.into());
    }
    if matches!(standing, Standing::Confirmed(_)) {
        let fully_spent = tx.coinbase
            && draft
                .outputs(txid)?
                .iter()
                .all(|output| output.spent_by.is_some());
        if !tx.coinbase || !(fully_spent || block.coinbase_may_overwrite) {
            return Err(Verdict::AlreadyExists { txid }.into());
        }
    }
    let on_record = standing == Standing::Unmined;
    let rules = Judge {
        options: SpendOptions {
            ignore_locked: true,
            ..SpendOptions::at(block.height)
        },
        in_block: true,
    };
    judge_all(draft, txid, &tx.inputs, &[], on_record, rules)?;
    let mut total_in: u64 = 0;
    for outpoint in &tx.inputs {
        if let Some((coin, _)) = draft.coin(*outpoint)? {
            total_in = total_in.saturating_add(coin.output.value_sat);
            answer.spent.push(coin);
        }
    }
    let fee_sat = if tx.coinbase {
        None
    } else {
        total_in.checked_sub(total(&tx.outputs))
    };
    let mined = MinedIn {
        block: Some(block.hash),
        height: block.height,
        subtree_index: 0,
        on_longest_chain: true,
    };
    if on_record {
        let before = draft.mine(txid, |head| {
            let entry = head
                .mined_in
                .iter()
                .find(|entry| entry.block == mined.block)
                .copied();
            let before = Undo::Existed {
                unmined_since: head.unmined_since,
                entry,
                fee_sat: head.fee_sat,
            };
            head.fee_sat = head.fee_sat.or(fee_sat);
            if entry.is_none() {
                head.mined_in.push(mined);
            }
            put_on_longest_chain(head, mined.block);
            before
        })?;
        undo.transactions
            .extend(before.map(|before| (txid, before)));
        return Ok(());
    }
    if let Some(entry) = draft.entry(txid)?.cloned() {
        // Its inputs are none: it is a coinbase.
        draft.outputs(txid)?;
        draft.delete(txid)?;
        undo.replaced_coinbase = Some(Box::new(entry.into_record()));
    }
    undo.transactions.push((txid, Undo::Created));
    let record = Record {
        fee_sat,
        mined_in: vec![mined],
        ..new_record(draft.rule, tx)
    };
    answer.created_outputs += record.outputs.len() as u64;
    hold(draft, txid, &tx.inputs)?;
    draft.insert(record)
}

/// What connecting the tip answered, as far as its undo data tells.
fn connected_before(draft: &mut Draft<'_>, block: &BlockHash) -> Answer<Connected> {
    let mut answer = Connected {
        applied: Applied::Before,
        created_outputs: 0,
        spent: Vec::new(),
    };
    let Some(undo) = draft.undo_of(block)? else {
        return Ok(answer);
    };
    draft.each(&undo.transactions, |draft, (txid, how)| {
        if matches!(how, Undo::Created) {
            answer.created_outputs += draft.outputs(*txid)?.len() as u64;
        }
        let inputs = draft.inputs(*txid)?;
        draft.each(inputs, |draft, (_, outpoint)| {
            answer
                .spent
                .extend(draft.coin(outpoint)?.map(|(coin, _)| coin));
            Ok(())
        })
    })?;
    Ok(answer)
}

/// See [`BlockStore::disconnect_block`](crate::BlockStore::disconnect_block). It must be the only item of
/// its call.
///
/// # Errors
/// The verdict.
pub fn disconnect_block(
    draft: &mut Draft<'_>,
    block: &BlockHash,
    previous: &BlockHash,
) -> Answer<Disconnected> {
    draft.whole(|draft| disconnect(draft, block, previous))
}

fn disconnect(
    draft: &mut Draft<'_>,
    block: &BlockHash,
    previous: &BlockHash,
) -> Answer<Disconnected> {
    let tip = draft.current_tip();
    let tip_hash = tip.map_or(BlockHash::ZERO, |tip| tip.hash);
    if tip_hash != *block {
        if tip_hash == *previous {
            return Ok(Disconnected {
                applied: Applied::Before,
                kept_unmined: 0,
                tip,
            });
        }
        return Err(Verdict::NotTip { block: *block, tip }.into());
    }
    let undo = draft
        .undo_of(block)?
        .ok_or(Verdict::NoUndo { block: *block })?;
    if undo.previous.map_or(BlockHash::ZERO, |tip| tip.hash) != *previous {
        return Err(Verdict::NotTip { block: *block, tip }.into());
    }
    let mut kept_unmined = 0;
    draft.each(undo.transactions.iter().rev(), |draft, (txid, how)| {
        kept_unmined += u64::from(take_back(draft, *txid, how, *block, undo.height)?);
        Ok(())
    })?;
    if let Some(record) = undo.replaced_coinbase {
        draft.delete(record.txid)?;
        draft.insert(*record)?;
    }
    draft.undo = Some((*block, None));
    draft.tip = Some(undo.previous);
    Ok(Disconnected {
        applied: Applied::Now,
        kept_unmined,
        tip: undo.previous,
    })
}

/// Takes one transaction of a block back; says whether it stays, unmined.
fn take_back(
    draft: &mut Draft<'_>,
    txid: Txid,
    how: &Undo,
    block: BlockHash,
    height: u32,
) -> Answer<bool> {
    if let Undo::Existed {
        unmined_since,
        entry,
        fee_sat,
    } = how
    {
        draft.mine(txid, |head| {
            restore_entry(head, block, *entry);
            leave_longest_chain(head, *unmined_since);
            head.fee_sat = *fee_sat;
        })?;
        return Ok(false);
    }
    let known = draft.mine(txid, |head| {
        restore_entry(head, block, None);
        leave_longest_chain(head, Some(height));
    })?;
    if known.is_none() {
        return Ok(false);
    }
    let outputs = draft.outputs(txid)?;
    let head = draft.known(txid)?.head.clone();
    if head.coinbase {
        still_spent(txid, &outputs)?;
    }
    // Whether something would be lost with the record.
    let marked = head.locked
        || head.preserve_until.is_some()
        || !head.mined_in.is_empty()
        || !head.conflicting_children.is_empty()
        || outputs
            .iter()
            .any(|o| o.spent_by.is_some() || o.frozen || o.spendable_from.is_some());
    if !marked {
        release(draft, txid)?;
        draft.forget(txid)?;
    }
    Ok(marked && head.unmined_since.is_some())
}

/// Unless `set_mined` has put the transaction into another block of the longest chain meanwhile.
fn leave_longest_chain(head: &mut Record, unmined_since: Option<u32>) {
    head.unmined_since = match head.confirmed_height() {
        Some(_) => None,
        None => unmined_since,
    };
}

fn restore_entry(head: &mut Record, block: BlockHash, before: Option<MinedIn>) {
    match before {
        Some(before) => head
            .mined_in
            .iter_mut()
            .filter(|entry| entry.block == Some(block))
            .for_each(|entry| *entry = before),
        None => head.mined_in.retain(|entry| entry.block != Some(block)),
    }
}
