//! Connecting blocks and taking them back.

use fjall::Snapshot;
use groundtackle_utxo_store::{
    Applied, BlockHash, COINBASE_MATURITY, ChainBlock, Coin, Connected, Disconnected, Error,
    OutPoint, SpendOptions, Tip, Transaction, Txid, UnspendableRule, Verdict,
};

use crate::draft::{Draft, Entry, Standing};
use crate::engine::Engine;
use crate::error::Stop;
use crate::record::{BlockUndo, Head, Mined, Undo, decode_undo, undo_key};
use crate::rules::{self, Judge, total};

pub(crate) fn connect(
    draft: &mut Draft<'_>,
    engine: &Engine,
    rule: UnspendableRule,
    block: &ChainBlock,
) -> Result<Connected, Stop> {
    let previous = draft.state.tip;
    if let Some(tip) = previous.filter(|tip| tip.hash == block.hash) {
        return connected_before(draft, engine, &tip);
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
    let number = draft.block_number(&block.hash)?;
    let mut connecting = Connecting {
        block,
        rule,
        number,
        undo: BlockUndo {
            previous,
            transactions: Vec::with_capacity(block.transactions.len()),
            replaced: None,
        },
        answer: Connected {
            applied: Applied::Now,
            created_outputs: 0,
            spent: Vec::new(),
        },
    };
    // Bitcoin Core never connects a genesis block: its coinbase is in no set.
    let transactions = if block.height == 0 {
        &[]
    } else {
        block.transactions.as_slice()
    };
    draft.read_ahead(transactions.iter().flat_map(|tx| {
        let parents = tx.inputs.iter().map(|outpoint| outpoint.txid);
        parents.chain(Some(tx.txid))
    }))?;
    for (index, tx) in transactions.iter().enumerate() {
        connecting
            .transaction(draft, index == 0, tx)
            .map_err(|stop| match stop {
                Stop::Verdict(verdict) => Verdict::InBlock {
                    block: block.hash,
                    txid: tx.txid,
                    verdict: Box::new(verdict),
                }
                .into(),
                error @ Stop::Error(_) => error,
            })?;
    }
    draft.put_undo(block.height, &block.hash, connecting.undo);
    draft.set_tip(Some(Tip {
        height: block.height,
        hash: block.hash,
        median_time_past: block.median_time_past,
    }));
    Ok(connecting.answer)
}

struct Connecting<'a> {
    block: &'a ChainBlock,
    rule: UnspendableRule,
    number: u32,
    undo: BlockUndo,
    answer: Connected,
}

impl Connecting<'_> {
    fn transaction(
        &mut self,
        draft: &mut Draft<'_>,
        first: bool,
        tx: &Transaction,
    ) -> Result<(), Stop> {
        let txid = tx.txid;
        if tx.coinbase != first || tx.coinbase != tx.inputs.is_empty() {
            return rules::invalid(
                txid,
                "a block begins with its only coinbase, and all else spends",
            );
        }
        rules::check_amounts(txid, rules::amounts(&tx.outputs))?;
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
                    .all_slots(txid)?
                    .iter()
                    .all(|slot| slot.spent_by.is_some());
            if !tx.coinbase || !(fully_spent || self.block.coinbase_may_overwrite) {
                return Err(Verdict::AlreadyExists { txid }.into());
            }
        }
        let options = SpendOptions {
            ignore_locked: true,
            ..SpendOptions::at(self.block.height)
        };
        debug_assert_eq!(options.coinbase_maturity, COINBASE_MATURITY);
        let on_record = standing == Standing::Unmined;
        rules::judge_all(
            draft,
            txid,
            &tx.inputs,
            &[],
            on_record,
            Judge {
                options,
                in_block: true,
            },
        )?;
        let mut total_in: u64 = 0;
        for outpoint in &tx.inputs {
            if let Some((coin, _)) = draft.coin(*outpoint)? {
                total_in = total_in.saturating_add(coin.output.value_sat);
                self.answer.spent.push(coin);
            }
        }
        let fee_sat = if tx.coinbase {
            None
        } else {
            total_in.checked_sub(total(&tx.outputs))
        };
        if on_record {
            self.mark_mined(draft, txid, fee_sat)
        } else {
            self.create(draft, tx, fee_sat)
        }
    }

    fn mined(&self) -> Mined {
        Mined {
            block: Some(self.number),
            height: self.block.height,
            subtree_index: 0,
            on_longest_chain: true,
        }
    }

    fn mark_mined(
        &mut self,
        draft: &mut Draft<'_>,
        txid: Txid,
        fee_sat: Option<u64>,
    ) -> Result<(), Stop> {
        let mined = self.mined();
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
            rules::put_on_longest_chain(head, mined.block);
            before
        })?;
        self.undo
            .transactions
            .extend(before.map(|before| (txid, before)));
        Ok(())
    }

    fn create(
        &mut self,
        draft: &mut Draft<'_>,
        tx: &Transaction,
        fee_sat: Option<u64>,
    ) -> Result<(), Stop> {
        let txid = tx.txid;
        if let Some(head) = draft.entry(txid)?.map(|entry| entry.head.clone()) {
            let slots = draft.all_slots(txid)?;
            self.undo.replaced = Some((head, slots));
            draft.delete(txid)?;
        }
        self.undo.transactions.push((txid, Undo::Created));
        let slots = rules::new_slots(self.rule, tx);
        self.answer.created_outputs += slots.len() as u64;
        let head = Head {
            fee_sat,
            mined_in: vec![self.mined()],
            ..rules::new_head(tx)
        };
        rules::hold(draft, txid, &tx.inputs)?;
        draft.insert(txid, Entry::new(head, tx.inputs.clone(), slots))?;
        Ok(())
    }
}

fn read_undo(
    draft: &mut Draft<'_>,
    engine: &Engine,
    tip: &Tip,
) -> Result<Option<(Vec<u8>, BlockUndo, u32)>, Stop> {
    let key = undo_key(tip.height, &tip.hash);
    let Some(value) = engine.get(draft.snapshot(), &key)? else {
        return Ok(None);
    };
    let number = draft.known_block_number(&tip.hash)?;
    let undo = decode_undo(&key, number, value.bytes())?;
    Ok(Some((key, undo, value.parts)))
}

/// The block before the tip, if the tip can be taken back.
pub(crate) fn previous(
    engine: &Engine,
    snapshot: &Snapshot,
    tip: &Tip,
) -> Result<Option<Tip>, Error> {
    let key = undo_key(tip.height, &tip.hash);
    let Some(value) = engine.get(snapshot, &key)? else {
        return Ok(None);
    };
    // Only the transactions' old entries name blocks by number.
    Ok(decode_undo(&key, None, value.bytes())?.previous)
}

/// What connecting the tip answered, as far as its undo data tells.
fn connected_before(draft: &mut Draft<'_>, engine: &Engine, tip: &Tip) -> Result<Connected, Stop> {
    let mut answer = Connected {
        applied: Applied::Before,
        created_outputs: 0,
        spent: Vec::new(),
    };
    let Some((_, undo, _)) = read_undo(draft, engine, tip)? else {
        return Ok(answer);
    };
    for (txid, how) in &undo.transactions {
        if *how == Undo::Created {
            answer.created_outputs += draft.all_slots(*txid)?.len() as u64;
        }
        for (_, outpoint) in draft.inputs(*txid)? {
            let coin: Option<(Coin, _)> = draft.coin(outpoint)?;
            answer.spent.extend(coin.map(|(coin, _)| coin));
        }
    }
    Ok(answer)
}

pub(crate) fn disconnect(
    draft: &mut Draft<'_>,
    engine: &Engine,
    block: &BlockHash,
    previous: &BlockHash,
) -> Result<Disconnected, Stop> {
    let tip = draft.state.tip;
    let tip_hash = tip.map_or(BlockHash::ZERO, |tip| tip.hash);
    let (Some(at), true) = (tip, tip_hash == *block) else {
        if tip_hash == *previous {
            return Ok(Disconnected {
                applied: Applied::Before,
                kept_unmined: 0,
                tip,
            });
        }
        return Err(Verdict::NotTip { block: *block, tip }.into());
    };
    let (key, undo, parts) =
        read_undo(draft, engine, &at)?.ok_or(Verdict::NoUndo { block: *block })?;
    if undo.previous.map_or(BlockHash::ZERO, |tip| tip.hash) != *previous {
        return Err(Verdict::NotTip { block: *block, tip }.into());
    }
    let number = draft.known_block_number(block)?;
    let mut kept_unmined = 0;
    for (txid, how) in undo.transactions.iter().rev() {
        kept_unmined += u64::from(take_back(draft, *txid, how, number, at.height)?);
    }
    if let (Some((head, slots)), Some((txid, _))) = (undo.replaced, undo.transactions.first()) {
        draft.delete(*txid)?;
        draft.insert(*txid, Entry::new(head, Vec::new(), slots))?;
    }
    draft.remove_undo(key, parts);
    draft.set_tip(undo.previous);
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
    block: Option<u32>,
    height: u32,
) -> Result<bool, Stop> {
    match how {
        Undo::Existed {
            unmined_since,
            entry,
            fee_sat,
        } => {
            draft.mine(txid, |head| {
                match entry {
                    Some(before) => head
                        .mined_in
                        .iter_mut()
                        .filter(|entry| entry.block == block)
                        .for_each(|entry| *entry = *before),
                    None => head.mined_in.retain(|entry| entry.block != block),
                }
                leave_longest_chain(head, *unmined_since);
                head.fee_sat = *fee_sat;
            })?;
            Ok(false)
        }
        Undo::Created => {
            let known = draft.mine(txid, |head| {
                head.mined_in.retain(|entry| entry.block != block);
                leave_longest_chain(head, Some(height));
            })?;
            if known.is_none() {
                return Ok(false);
            }
            let slots = draft.all_slots(txid)?;
            let head = draft.known(txid)?.head.clone();
            let spent = slots
                .iter()
                .find_map(|slot| Some((slot.vout, slot.spent_by?)));
            if let (true, Some((vout, by))) = (head.coinbase, spent) {
                return Err(Verdict::StillSpent {
                    outpoint: OutPoint::new(txid, vout),
                    by,
                }
                .into());
            }
            let marked = head.locked
                || head.preserve_until.is_some()
                || !head.mined_in.is_empty()
                || !head.conflicting_children.is_empty()
                || spent.is_some()
                || slots
                    .iter()
                    .any(|slot| slot.frozen || slot.spendable_from.is_some());
            if !marked {
                rules::release(draft, txid)?;
                draft.forget(txid)?;
            }
            Ok(marked && head.unmined_since.is_some())
        }
    }
}

/// Unless `set_mined` has put the transaction into another block of the longest chain meanwhile.
fn leave_longest_chain(head: &mut Head, unmined_since: Option<u32>) {
    head.unmined_since = match head.confirmed_height() {
        Some(_) => None,
        None => unmined_since,
    };
}
