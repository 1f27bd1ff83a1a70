//! The in-memory adapter: the executable specification.
//!
//! Every other adapter must leave the same state, give the same verdicts and have the same digest
//! after every step. So this one is written to be read: whole records in one ordered map, a full
//! walk wherever a walk is the definition.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use groundtackle_chain::model::MAX_MONEY_SAT;
use groundtackle_chain::{BlockHash, ChainBlock, OutPoint, Transaction, TxOut, Txid};

use crate::digest::{MuHash3072, coin_element};
use crate::error::{Error, Result};
use crate::store::{
    AlertStore, BlockStore, ConflictStore, MaintenanceStore, RetentionStore, ScanStore, SetScan,
    SpendStore,
};
use crate::types::{
    Applied, COINBASE_MATURITY, Capabilities, Coin, Connected, Cursor, Disconnected, Fields,
    Health, HealthDepth, LongestChain, MinedIn, NewRecord, NewTransaction, OutputView, Page,
    Pruned, Reassignment, Record, RecordOutput, Recovered, SetDigest, SpendOptions, SpentBy, Tip,
    UnminedTransaction, UnspendableRule,
};
use crate::verdict::{Outcome, Verdict};

const BACKEND: &str = "memory";
const PARTITIONS: u32 = 4;

/// A store that lives as long as the process; the specification of all the others.
#[derive(Debug, Default)]
pub struct MemoryUtxoStore {
    rule: UnspendableRule,
    state: Mutex<State>,
}

/// Records by transaction, and what a block needs to be taken back.
#[derive(Debug, Default)]
struct State {
    records: BTreeMap<Txid, Record>,
    tip: Option<Tip>,
    undo: BTreeMap<BlockHash, BlockUndo>,
    /// While a block is under way: what touched records were before, to go back to if it is refused.
    before: Option<BTreeMap<Txid, Option<Record>>>,
}

#[derive(Debug)]
struct BlockUndo {
    height: u32,
    previous: Option<Tip>,
    transactions: Vec<(Txid, Undo)>,
    replaced_coinbase: Option<Record>,
}

#[derive(Debug)]
enum Undo {
    Created,
    Existed {
        unmined_since: Option<u32>,
        entry: Option<MinedIn>,
        fee_sat: Option<u64>,
    },
}

/// Under which rules an input is judged.
#[derive(Clone, Copy)]
struct Judge {
    options: SpendOptions,
    in_block: bool,
}

const fn applied(changed: bool) -> Applied {
    if changed {
        Applied::Now
    } else {
        Applied::Before
    }
}

fn find(record: &Record, vout: u32) -> Option<&RecordOutput> {
    let at = record
        .outputs
        .binary_search_by_key(&vout, |output| output.vout)
        .ok()?;
    record.outputs.get(at)
}

fn find_mut(record: &mut Record, vout: u32) -> Option<&mut RecordOutput> {
    let at = record
        .outputs
        .binary_search_by_key(&vout, |output| output.vout)
        .ok()?;
    record.outputs.get_mut(at)
}

fn invalid<T>(txid: Txid, reason: &str) -> Outcome<T> {
    Err(Verdict::InvalidTransaction {
        txid,
        reason: reason.into(),
    })
}

fn check_amounts<'a>(txid: Txid, outputs: impl IntoIterator<Item = &'a TxOut>) -> Outcome<()> {
    if outputs
        .into_iter()
        .any(|output| output.value_sat > MAX_MONEY_SAT)
    {
        return invalid(txid, "an amount is above 21 million coins");
    }
    Ok(())
}

fn total<'a>(outputs: impl IntoIterator<Item = &'a TxOut>) -> u64 {
    outputs
        .into_iter()
        .fold(0, |sum, output| sum.saturating_add(output.value_sat))
}

fn inputs(record: &Record) -> impl Iterator<Item = (SpentBy, OutPoint)> + use<> {
    let txid = record.txid;
    record
        .inputs
        .clone()
        .into_iter()
        .zip(0..)
        .map(move |(outpoint, vin)| (SpentBy { txid, vin }, outpoint))
}

impl State {
    fn new_record(rule: UnspendableRule, tx: &Transaction) -> Record {
        let outputs = (0..)
            .zip(&tx.outputs)
            .filter(|(_, output)| !rule.is_unspendable(&output.script));
        Record {
            txid: tx.txid,
            coinbase: tx.coinbase,
            fee_sat: None,
            size_bytes: tx.size_bytes,
            lock_time: tx.lock_time,
            inputs: tx.inputs.clone(),
            outputs: outputs
                .map(|(vout, output)| RecordOutput::unspent(vout, output.clone()))
                .collect(),
            mined_in: Vec::new(),
            unmined_since: None,
            locked: false,
            conflicting: false,
            conflicting_children: Vec::new(),
            preserve_until: None,
        }
    }

    fn remember(&mut self, txid: Txid) {
        if let Some(before) = &mut self.before {
            before
                .entry(txid)
                .or_insert_with(|| self.records.get(&txid).cloned());
        }
    }

    fn edit(&mut self, txid: Txid) -> Option<&mut Record> {
        self.remember(txid);
        self.records.get_mut(&txid)
    }

    fn insert(&mut self, record: Record) {
        self.remember(record.txid);
        self.records.insert(record.txid, record);
    }

    fn delete(&mut self, txid: Txid) {
        self.remember(txid);
        self.records.remove(&txid);
    }

    fn known(&self, txid: Txid) -> Outcome<&Record> {
        self.records
            .get(&txid)
            .ok_or(Verdict::UnknownTransaction { txid })
    }

    fn slot(&self, outpoint: OutPoint) -> Outcome<(&Record, &RecordOutput)> {
        let record = self
            .records
            .get(&outpoint.txid)
            .ok_or(Verdict::MissingTransaction { outpoint })?;
        Ok((
            record,
            find(record, outpoint.vout).ok_or(Verdict::MissingOutput { outpoint })?,
        ))
    }

    fn slot_mut(&mut self, outpoint: OutPoint) -> Option<&mut RecordOutput> {
        find_mut(self.edit(outpoint.txid)?, outpoint.vout)
    }

    fn confirmed_height(&self, txid: Txid) -> Option<u32> {
        self.records.get(&txid)?.confirmed_height()
    }

    /// Whether `me` may spend `outpoint`; `Before` where it does.
    fn judge(
        &self,
        me: SpentBy,
        outpoint: OutPoint,
        expected: Option<&TxOut>,
        judge: Judge,
    ) -> Outcome<Applied> {
        let Judge { options, in_block } = judge;
        let (parent, slot) = self.slot(outpoint)?;
        let held = slot.spent_by == Some(me);
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
        if parent.conflicting {
            return Err(Verdict::ConflictingParent { outpoint });
        }
        if parent.locked && !options.ignore_locked {
            return Err(Verdict::Locked { outpoint });
        }
        if parent.coinbase {
            let spendable_at = parent
                .confirmed_height()
                .map(|height| height.saturating_add(options.coinbase_maturity));
            if spendable_at.is_none_or(|height| height > options.height) {
                return Err(Verdict::Immature {
                    outpoint,
                    spendable_at,
                });
            }
        }
        if in_block && parent.confirmed_height().is_none() {
            return Err(Verdict::Unconfirmed { outpoint });
        }
        if expected.is_some_and(|expected| *expected != slot.output) {
            return Err(Verdict::OutputMismatch { outpoint });
        }
        Ok(applied(!held))
    }

    /// Judges every input; nothing changes. Says of each whether it is held already. Without a
    /// record a held one means that the transaction was pruned.
    fn judge_all(
        &self,
        txid: Txid,
        inputs: &[OutPoint],
        expected: &[TxOut],
        on_record: bool,
        judge: Judge,
    ) -> Outcome<Vec<Applied>> {
        let mut seen = BTreeMap::new();
        let mut answers = Vec::with_capacity(inputs.len());
        for (vin, &outpoint) in (0_u32..).zip(inputs) {
            let me = SpentBy { txid, vin };
            if let Some(first) = seen.insert(outpoint, me) {
                return Err(Verdict::AlreadySpent {
                    outpoint,
                    by: first,
                });
            }
            if !on_record
                && self
                    .slot(outpoint)
                    .is_ok_and(|(_, slot)| slot.spent_by == Some(me))
            {
                return Err(Verdict::Pruned { txid });
            }
            answers.push(self.judge(me, outpoint, expected.get(vin as usize), judge)?);
        }
        Ok(answers)
    }

    fn hold_inputs(&mut self, record: &Record) {
        for (me, outpoint) in inputs(record) {
            if let Some(slot) = self.slot_mut(outpoint) {
                slot.spent_by = Some(me);
            }
        }
    }

    fn release_inputs(&mut self, record: &Record) -> bool {
        let mut any = false;
        for (me, outpoint) in inputs(record) {
            if let Some(slot) = self
                .slot_mut(outpoint)
                .filter(|slot| slot.spent_by == Some(me))
            {
                slot.spent_by = None;
                any = true;
            }
        }
        any
    }

    fn holds_any(&self, record: &Record) -> bool {
        inputs(record).any(|(me, outpoint)| {
            self.slot(outpoint)
                .is_ok_and(|(_, slot)| slot.spent_by == Some(me))
        })
    }

    /// Tells the parents of a conflicting transaction, or of one that is it no more.
    fn tell_parents(&mut self, record: &Record, conflicting: bool) {
        for outpoint in &record.inputs {
            if let Some(parent) = self.edit(outpoint.txid) {
                parent
                    .conflicting_children
                    .retain(|child| *child != record.txid);
                if conflicting {
                    parent.conflicting_children.push(record.txid);
                    parent.conflicting_children.sort_unstable();
                }
            }
        }
    }

    fn spend_and_create(
        &mut self,
        rule: UnspendableRule,
        new: &NewTransaction,
        options: &SpendOptions,
    ) -> Outcome<Applied> {
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
        check_amounts(txid, &tx.outputs)?;
        if let Some(record) = self.records.get(&txid) {
            // What is not conflicting holds its inputs.
            return if record.conflicting {
                Err(Verdict::Conflicting { txid })
            } else {
                Ok(Applied::Before)
            };
        }
        self.judge_all(
            txid,
            &tx.inputs,
            expected,
            false,
            Judge {
                options: *options,
                in_block: false,
            },
        )?;
        let mut record = Self::new_record(rule, tx);
        record.fee_sat = *fee_sat;
        record.unmined_since = Some(options.height);
        record.locked = options.lock;
        self.hold_inputs(&record);
        self.insert(record);
        Ok(Applied::Now)
    }

    fn create(&mut self, rule: UnspendableRule, new: &NewRecord) -> Outcome<Applied> {
        let record = match new {
            NewRecord::Coinbase { tx, mined } => {
                if !tx.coinbase || !tx.inputs.is_empty() {
                    return invalid(tx.txid, "it is not a coinbase");
                }
                let unmined_since = (!mined.on_longest_chain).then_some(mined.height);
                Record {
                    mined_in: vec![*mined],
                    unmined_since,
                    ..Self::new_record(rule, tx)
                }
            }
            NewRecord::Seed {
                txid,
                coinbase,
                height,
                outputs,
            } => {
                if !outputs.is_sorted_by(|(a, _), (b, _)| a < b) {
                    return invalid(*txid, "the output indexes don't ascend");
                }
                if outputs
                    .iter()
                    .any(|(_, output)| rule.is_unspendable(&output.script))
                {
                    return invalid(*txid, "an output can't be spent, so it is in no set");
                }
                let mined = MinedIn {
                    block: None,
                    height: *height,
                    subtree_index: 0,
                    on_longest_chain: true,
                };
                let outputs = outputs
                    .iter()
                    .map(|(vout, output)| RecordOutput::unspent(*vout, output.clone()));
                Record {
                    txid: *txid,
                    coinbase: *coinbase,
                    fee_sat: None,
                    size_bytes: 0,
                    lock_time: 0,
                    inputs: Vec::new(),
                    outputs: outputs.collect(),
                    mined_in: vec![mined],
                    unmined_since: None,
                    locked: false,
                    conflicting: false,
                    conflicting_children: Vec::new(),
                    preserve_until: None,
                }
            }
            NewRecord::Conflicting {
                tx,
                fee_sat,
                unmined_since,
            } => {
                if tx.coinbase || tx.inputs.is_empty() {
                    return invalid(tx.txid, "only what spends can conflict");
                }
                Record {
                    fee_sat: *fee_sat,
                    unmined_since: Some(*unmined_since),
                    conflicting: true,
                    ..Self::new_record(rule, tx)
                }
            }
        };
        let txid = record.txid;
        check_amounts(txid, record.outputs.iter().map(|output| &output.output))?;
        if let Some(there) = self.records.get(&txid) {
            let same = there.coinbase == record.coinbase
                && there.conflicting == record.conflicting
                && there.inputs == record.inputs
                && record
                    .mined_in
                    .iter()
                    .all(|mined| there.mined_in.contains(mined))
                && there
                    .outputs
                    .iter()
                    .map(|o| (o.vout, o.output.value_sat))
                    .eq(record.outputs.iter().map(|o| (o.vout, o.output.value_sat)));
            return if same {
                Ok(Applied::Before)
            } else {
                Err(Verdict::AlreadyExists { txid })
            };
        }
        // Without a record it was pruned, and what it spent is spent for good.
        if self.holds_any(&record) {
            return Err(Verdict::Pruned { txid });
        }
        if record.conflicting {
            self.tell_parents(&record, true);
        }
        self.insert(record);
        Ok(Applied::Now)
    }

    fn spend(&mut self, txid: Txid, options: &SpendOptions) -> Outcome<Applied> {
        let record = self.known(txid)?.clone();
        if !record.conflicting {
            return Ok(Applied::Before);
        }
        let answers = self.judge_all(
            txid,
            &record.inputs,
            &[],
            true,
            Judge {
                options: *options,
                in_block: false,
            },
        )?;
        self.hold_inputs(&record);
        Ok(applied(answers.contains(&Applied::Now)))
    }

    fn unspend(&mut self, txid: Txid) -> Outcome<Applied> {
        let record = self.known(txid)?.clone();
        if !record.conflicting {
            return Err(Verdict::NotConflicting { txid });
        }
        Ok(applied(self.release_inputs(&record)))
    }

    fn remove(&mut self, txid: Txid) -> Outcome<Applied> {
        let Some(record) = self.records.get(&txid).cloned() else {
            return Ok(Applied::Before);
        };
        if record.confirmed_height().is_some() {
            return Err(Verdict::MinedOnLongestChain { txid });
        }
        still_spent(&record)?;
        self.release_inputs(&record);
        self.tell_parents(&record, false);
        self.delete(txid);
        Ok(Applied::Now)
    }

    fn set_mined(&mut self, txid: Txid, mined: &MinedIn) -> Outcome<Applied> {
        if self.known(txid)?.conflicting && mined.on_longest_chain {
            return Err(Verdict::Conflicting { txid });
        }
        let Some(record) = self.edit(txid) else {
            return Err(Verdict::UnknownTransaction { txid });
        };
        let before = (record.mined_in.clone(), record.unmined_since);
        let mut replaced = None;
        match record
            .mined_in
            .iter_mut()
            .find(|entry| entry.block == mined.block)
        {
            Some(entry) => replaced = Some(std::mem::replace(entry, *mined)),
            None => record.mined_in.push(*mined),
        }
        if mined.on_longest_chain {
            put_on_longest_chain(record, mined.block);
        } else if replaced.is_some_and(|entry| entry.on_longest_chain) {
            record.unmined_since = Some(mined.height);
        }
        Ok(applied(
            before != (record.mined_in.clone(), record.unmined_since),
        ))
    }

    fn unset_mined(
        &mut self,
        txid: Txid,
        block: &BlockHash,
        unmined_since: u32,
    ) -> Outcome<Applied> {
        let Some(record) = self.edit(txid) else {
            return Err(Verdict::UnknownTransaction { txid });
        };
        let Some(at) = record
            .mined_in
            .iter()
            .position(|entry| entry.block == Some(*block))
        else {
            return Ok(Applied::Before);
        };
        if record.mined_in.remove(at).on_longest_chain {
            record.unmined_since = Some(unmined_since);
        }
        Ok(Applied::Now)
    }

    fn set_longest_chain(
        &mut self,
        txid: Txid,
        block: &BlockHash,
        mark: LongestChain,
    ) -> Outcome<Applied> {
        let Some(record) = self.edit(txid) else {
            return Err(Verdict::UnknownTransaction { txid });
        };
        let conflicting = record.conflicting;
        let Some(entry) = record
            .mined_in
            .iter_mut()
            .find(|entry| entry.block == Some(*block))
        else {
            return Err(Verdict::NotMinedIn {
                txid,
                block: *block,
            });
        };
        match mark {
            LongestChain::On if conflicting => Err(Verdict::Conflicting { txid }),
            LongestChain::On => {
                let changed = !entry.on_longest_chain;
                put_on_longest_chain(record, Some(*block));
                Ok(applied(changed))
            }
            LongestChain::Off { unmined_since } => {
                let changed = std::mem::replace(&mut entry.on_longest_chain, false);
                if changed {
                    record.unmined_since = Some(unmined_since);
                }
                Ok(applied(changed))
            }
        }
    }

    /// Runs `change` and takes everything back if it is refused.
    fn whole<T>(&mut self, change: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        self.before = Some(BTreeMap::new());
        let outcome = change(self);
        let before = self.before.take().unwrap_or_default();
        if outcome.is_err() {
            for (txid, record) in before {
                match record {
                    Some(record) => drop(self.records.insert(txid, record)),
                    None => drop(self.records.remove(&txid)),
                }
            }
        }
        outcome
    }

    fn connect(&mut self, rule: UnspendableRule, block: &ChainBlock) -> Outcome<Connected> {
        let previous = self.tip;
        if previous.is_some_and(|tip| tip.hash == block.hash) {
            return Ok(self.connected_before(&block.hash));
        }
        let follows = match previous {
            None => block.height == 0,
            Some(tip) => {
                block.previous == tip.hash && tip.height.checked_add(1) == Some(block.height)
            }
        };
        if !follows {
            return Err(Verdict::NotNext {
                block: block.hash,
                tip: previous,
            });
        }
        let mut undo = BlockUndo {
            height: block.height,
            previous,
            transactions: Vec::new(),
            replaced_coinbase: None,
        };
        let mut spent = Vec::new();
        let mut created_outputs = 0;
        // Bitcoin Core never connects a genesis block: its coinbase is in no set.
        let transactions = if block.height == 0 {
            &[]
        } else {
            block.transactions.as_slice()
        };
        for (index, tx) in transactions.iter().enumerate() {
            created_outputs += self
                .connect_transaction(rule, block, index == 0, tx, &mut undo, &mut spent)
                .map_err(|verdict| Verdict::InBlock {
                    block: block.hash,
                    txid: tx.txid,
                    verdict: Box::new(verdict),
                })?;
        }
        self.undo.insert(block.hash, undo);
        self.tip = Some(Tip {
            height: block.height,
            hash: block.hash,
            median_time_past: block.median_time_past,
        });
        Ok(Connected {
            applied: Applied::Now,
            created_outputs,
            spent,
        })
    }

    /// What connecting `block`, the tip, answered; nothing where its undo data is gone.
    fn connected_before(&self, block: &BlockHash) -> Connected {
        let mut answer = Connected {
            applied: Applied::Before,
            created_outputs: 0,
            spent: Vec::new(),
        };
        let transactions = self
            .undo
            .get(block)
            .map(|undo| undo.transactions.as_slice())
            .unwrap_or_default();
        for (txid, how) in transactions {
            let Some(record) = self.records.get(txid) else {
                continue;
            };
            if matches!(how, Undo::Created) {
                answer.created_outputs += record.outputs.len() as u64;
            }
            answer.spent.extend(
                record
                    .inputs
                    .iter()
                    .filter_map(|outpoint| self.spent_coin(*outpoint)),
            );
        }
        answer
    }

    fn spent_coin(&self, outpoint: OutPoint) -> Option<Coin> {
        let (parent, slot) = self.slot(outpoint).ok()?;
        let height = parent.confirmed_height()?;
        Some(Coin {
            outpoint,
            output: slot.output.clone(),
            height,
            coinbase: parent.coinbase,
        })
    }

    fn connect_transaction(
        &mut self,
        rule: UnspendableRule,
        block: &ChainBlock,
        first: bool,
        tx: &Transaction,
        undo: &mut BlockUndo,
        spent: &mut Vec<Coin>,
    ) -> Outcome<u64> {
        let txid = tx.txid;
        if tx.coinbase != first || tx.coinbase != tx.inputs.is_empty() {
            return invalid(
                txid,
                "a block begins with its only coinbase, and all else spends",
            );
        }
        check_amounts(txid, &tx.outputs)?;
        let existing = self.records.get(&txid).cloned();
        if let Some(record) = &existing {
            if record.conflicting {
                return Err(Verdict::Conflicting { txid });
            }
            if record.confirmed_height().is_some() {
                let fully_spent = record
                    .outputs
                    .iter()
                    .all(|output| output.spent_by.is_some());
                if !tx.coinbase || !(fully_spent || block.coinbase_may_overwrite) {
                    return Err(Verdict::AlreadyExists { txid });
                }
            }
        }
        let unmined = existing
            .as_ref()
            .filter(|record| record.confirmed_height().is_none());
        let options = SpendOptions {
            height: block.height,
            coinbase_maturity: COINBASE_MATURITY,
            ignore_locked: true,
            lock: false,
        };
        let judge = Judge {
            options,
            in_block: true,
        };
        self.judge_all(txid, &tx.inputs, &[], unmined.is_some(), judge)?;
        let coins: Vec<Coin> = tx
            .inputs
            .iter()
            .filter_map(|outpoint| self.spent_coin(*outpoint))
            .collect();
        let total_in = total(coins.iter().map(|coin| &coin.output));
        let fee_sat = if tx.coinbase {
            None
        } else {
            total_in.checked_sub(total(&tx.outputs))
        };
        spent.extend(coins);
        let mined = MinedIn {
            block: Some(block.hash),
            height: block.height,
            subtree_index: 0,
            on_longest_chain: true,
        };
        match unmined {
            Some(before) => {
                let entry = before
                    .mined_in
                    .iter()
                    .find(|entry| entry.block == mined.block)
                    .copied();
                let (unmined_since, known_fee) = (before.unmined_since, before.fee_sat);
                undo.transactions.push((
                    txid,
                    Undo::Existed {
                        unmined_since,
                        entry,
                        fee_sat: known_fee,
                    },
                ));
                if let Some(record) = self.edit(txid) {
                    record.fee_sat = known_fee.or(fee_sat);
                    if entry.is_none() {
                        record.mined_in.push(mined);
                    }
                    put_on_longest_chain(record, mined.block);
                }
                Ok(0)
            }
            None => {
                undo.transactions.push((txid, Undo::Created));
                undo.replaced_coinbase = undo.replaced_coinbase.take().or(existing);
                let record = Record {
                    fee_sat,
                    mined_in: vec![mined],
                    ..Self::new_record(rule, tx)
                };
                let created = record.outputs.len() as u64;
                self.hold_inputs(&record);
                self.insert(record);
                Ok(created)
            }
        }
    }

    fn disconnect(&mut self, block: &BlockHash, previous: &BlockHash) -> Outcome<Disconnected> {
        let tip_hash = self.tip.map_or(BlockHash::ZERO, |tip| tip.hash);
        if tip_hash != *block {
            if tip_hash == *previous {
                return Ok(Disconnected {
                    applied: Applied::Before,
                    kept_unmined: 0,
                    tip: self.tip,
                });
            }
            return Err(Verdict::NotTip {
                block: *block,
                tip: self.tip,
            });
        }
        let undo = self
            .undo
            .remove(block)
            .ok_or(Verdict::NoUndo { block: *block })?;
        let outcome = if undo.previous.map_or(BlockHash::ZERO, |tip| tip.hash) == *previous {
            self.take_back(*block, &undo)
        } else {
            Err(Verdict::NotTip {
                block: *block,
                tip: self.tip,
            })
        };
        match outcome {
            Ok(kept_unmined) => {
                self.tip = undo.previous;
                Ok(Disconnected {
                    applied: Applied::Now,
                    kept_unmined,
                    tip: self.tip,
                })
            }
            Err(verdict) => {
                self.undo.insert(*block, undo);
                Err(verdict)
            }
        }
    }

    fn take_back(&mut self, block: BlockHash, undo: &BlockUndo) -> Outcome<u64> {
        let mut kept_unmined = 0;
        for (txid, how) in undo.transactions.iter().rev() {
            let Some(record) = self.edit(*txid) else {
                continue;
            };
            match how {
                Undo::Existed {
                    unmined_since,
                    entry,
                    fee_sat,
                } => {
                    restore_entry(record, block, *entry);
                    leave_longest_chain(record, *unmined_since);
                    record.fee_sat = *fee_sat;
                }
                Undo::Created => {
                    restore_entry(record, block, None);
                    leave_longest_chain(record, Some(undo.height));
                    if record.coinbase {
                        still_spent(record)?;
                    }
                    if is_marked(record) {
                        kept_unmined += u64::from(record.unmined_since.is_some());
                    } else {
                        let record = record.clone();
                        self.release_inputs(&record);
                        self.delete(*txid);
                    }
                }
            }
        }
        if let Some(record) = &undo.replaced_coinbase {
            self.insert(record.clone());
        }
        Ok(kept_unmined)
    }

    /// `roots`, then what spends their outputs, by generation.
    fn with_descendants(&self, roots: Vec<Txid>, but: Option<Txid>) -> Vec<Txid> {
        let mut found = roots;
        let mut next = 0;
        while let Some(txid) = found.get(next).copied() {
            next += 1;
            let outputs = self
                .records
                .get(&txid)
                .map(|record| record.outputs.as_slice())
                .unwrap_or_default();
            for by in outputs.iter().filter_map(|output| output.spent_by) {
                if Some(by.txid) != but && !found.contains(&by.txid) {
                    found.push(by.txid);
                }
            }
        }
        found
    }

    fn mark_conflicting(&mut self, txid: Txid) -> Outcome<Vec<Txid>> {
        self.known(txid)?;
        let cascade = self.with_descendants(vec![txid], None);
        let mined = |txid: &&Txid| {
            self.records
                .get(*txid)
                .is_none_or(|record| record.confirmed_height().is_some())
        };
        if let Some(txid) = cascade.iter().find(mined).copied() {
            return Err(Verdict::MinedOnLongestChain { txid });
        }
        for txid in &cascade {
            if let Some(record) = self.edit(*txid) {
                record.conflicting = true;
                let record = record.clone();
                self.tell_parents(&record, true);
            }
        }
        Ok(cascade)
    }

    fn unmark_conflicting(&mut self, txid: Txid) -> Outcome<Applied> {
        let record = self.known(txid)?.clone();
        if !record.conflicting {
            return Ok(Applied::Before);
        }
        for (me, outpoint) in inputs(&record) {
            let (parent, slot) = self.slot(outpoint)?;
            match slot.spent_by {
                Some(by) if by == me => {}
                Some(by) => return Err(Verdict::AlreadySpent { outpoint, by }),
                None => return Err(Verdict::NotSpending { outpoint }),
            }
            if parent.conflicting {
                return Err(Verdict::ConflictingParent { outpoint });
            }
        }
        self.tell_parents(&record, false);
        if let Some(record) = self.edit(txid) {
            record.conflicting = false;
        }
        Ok(Applied::Now)
    }

    fn counter_conflicting(&self, txid: Txid) -> Outcome<Vec<Txid>> {
        let mut holders = Vec::new();
        for (_, outpoint) in inputs(self.known(txid)?) {
            let holder = self
                .slot(outpoint)
                .ok()
                .and_then(|(_, slot)| slot.spent_by)
                .map(|by| by.txid);
            holders.extend(holder.filter(|holder| *holder != txid && !holders.contains(holder)));
        }
        Ok(self.with_descendants(holders, Some(txid)))
    }

    fn freeze(&mut self, outpoint: OutPoint) -> Outcome<Applied> {
        if let Some(by) = self.slot(outpoint)?.1.spent_by {
            return Err(Verdict::AlreadySpent { outpoint, by });
        }
        Ok(applied(self.slot_mut(outpoint).is_some_and(|slot| {
            !std::mem::replace(&mut slot.frozen, true)
        })))
    }

    fn unfreeze(&mut self, outpoint: OutPoint) -> Outcome<Applied> {
        self.slot(outpoint)?;
        Ok(applied(self.slot_mut(outpoint).is_some_and(|slot| {
            std::mem::replace(&mut slot.frozen, false)
        })))
    }

    fn reassign(&mut self, rule: UnspendableRule, reassignment: &Reassignment) -> Outcome<Applied> {
        let Reassignment {
            outpoint,
            script,
            spendable_from,
        } = reassignment;
        let (_, slot) = self.slot(*outpoint)?;
        if let Some(by) = slot.spent_by {
            return Err(Verdict::AlreadySpent {
                outpoint: *outpoint,
                by,
            });
        }
        if rule.is_unspendable(script) {
            return invalid(outpoint.txid, "the new script can't be spent");
        }
        if !slot.frozen {
            let same =
                slot.output.script == *script && slot.spendable_from == Some(*spendable_from);
            return if same {
                Ok(Applied::Before)
            } else {
                Err(Verdict::NotFrozen {
                    outpoint: *outpoint,
                })
            };
        }
        if let Some(slot) = self.slot_mut(*outpoint) {
            slot.output.script = script.clone();
            slot.spendable_from = Some(*spendable_from);
            slot.frozen = false;
        }
        Ok(Applied::Now)
    }

    fn prune(&mut self, horizon: u32) -> Result<Pruned> {
        let Some(tip) = self.tip else {
            return Ok(Pruned::default());
        };
        if horizon > tip.height {
            let what = format!(
                "the horizon {horizon} is above the tip at {}: prune at or below it",
                tip.height
            );
            return Err(Error::invalid_request(what));
        }
        let below = |height: Option<u32>| height.is_some_and(|height| height <= horizon);
        let kept = |record: &Record| record.preserve_until.is_some_and(|until| horizon < until);
        let done = |record: &&Record| {
            below(record.confirmed_height())
                && !kept(record)
                && record.outputs.iter().all(|output| {
                    // A spender without a record was pruned, so it was confirmed below.
                    output.spent_by.is_some_and(|by| {
                        self.records
                            .get(&by.txid)
                            .is_none_or(|spender| below(spender.confirmed_height()))
                    })
                })
        };
        let mut gone: Vec<Txid> = self
            .records
            .values()
            .filter(done)
            .map(|record| record.txid)
            .collect();
        let mut records = gone.len() as u64;
        gone.iter().for_each(|txid| self.delete(*txid));
        loop {
            let lost = |record: &&Record| {
                record.conflicting
                    && below(record.unmined_since)
                    && !kept(record)
                    && record
                        .outputs
                        .iter()
                        .all(|output| output.spent_by.is_none())
                    && !self.holds_any(record)
            };
            gone = self
                .records
                .values()
                .filter(lost)
                .map(|record| record.txid)
                .collect();
            if gone.is_empty() {
                break;
            }
            records += gone.len() as u64;
            for record in gone
                .iter()
                .filter_map(|txid| self.records.get(txid).cloned())
                .collect::<Vec<_>>()
            {
                self.tell_parents(&record, false);
                self.delete(record.txid);
            }
        }
        let blocks = self.undo.len();
        self.undo.retain(|_, undo| undo.height > horizon);
        Ok(Pruned {
            records,
            blocks: (blocks - self.undo.len()) as u64,
        })
    }

    /// The confirmed set, in order.
    fn coins(&self) -> Vec<Coin> {
        let mut coins = Vec::new();
        for record in self.records.values() {
            let Some(height) = record.confirmed_height() else {
                continue;
            };
            for output in &record.outputs {
                let spent = output.spent_by.is_some_and(|by| {
                    !self.records.contains_key(&by.txid) || self.confirmed_height(by.txid).is_some()
                });
                if !spent {
                    let outpoint = OutPoint::new(record.txid, output.vout);
                    coins.push(Coin {
                        outpoint,
                        output: output.output.clone(),
                        height,
                        coinbase: record.coinbase,
                    });
                }
            }
        }
        coins
    }
}

fn still_spent(record: &Record) -> Outcome<()> {
    match record
        .outputs
        .iter()
        .find_map(|output| Some((output.vout, output.spent_by?)))
    {
        Some((vout, by)) => Err(Verdict::StillSpent {
            outpoint: OutPoint::new(record.txid, vout),
            by,
        }),
        None => Ok(()),
    }
}

/// Whether something would be lost with the record of a transaction whose block goes.
fn is_marked(record: &Record) -> bool {
    record.locked
        || record.preserve_until.is_some()
        || !record.mined_in.is_empty()
        || !record.conflicting_children.is_empty()
        || record
            .outputs
            .iter()
            .any(|o| o.spent_by.is_some() || o.frozen || o.spendable_from.is_some())
}

fn put_on_longest_chain(record: &mut Record, block: Option<BlockHash>) {
    for entry in &mut record.mined_in {
        entry.on_longest_chain = entry.block == block;
    }
    record.unmined_since = None;
}

/// Unless `set_mined` has put the transaction into another block of the longest chain meanwhile.
fn leave_longest_chain(record: &mut Record, unmined_since: Option<u32>) {
    record.unmined_since = match record.confirmed_height() {
        Some(_) => None,
        None => unmined_since,
    };
}

fn restore_entry(record: &mut Record, block: BlockHash, before: Option<MinedIn>) {
    match before {
        Some(before) => {
            record
                .mined_in
                .iter_mut()
                .filter(|entry| entry.block == Some(block))
                .for_each(|entry| *entry = before);
        }
        None => record.mined_in.retain(|entry| entry.block != Some(block)),
    }
}

impl MemoryUtxoStore {
    /// An empty store under Bitcoin Core's rule of what can't be spent.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store of a chain with another rule.
    pub fn with_rule(rule: UnspendableRule) -> Self {
        Self {
            rule,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic can't leave a half-made change that matters: nothing here outlives the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn each<I, T>(
        &self,
        items: &[I],
        mut act: impl FnMut(&mut State, &I) -> Outcome<T>,
    ) -> Result<Vec<Outcome<T>>> {
        let mut state = self.state();
        Ok(items.iter().map(|item| act(&mut state, item)).collect())
    }
}

#[async_trait]
impl SpendStore for MemoryUtxoStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(BACKEND);
        capabilities.snapshot_scan = true;
        capabilities.ordered_scan = true;
        capabilities.atomic_blocks = true;
        capabilities
    }

    async fn spend_and_create(
        &self,
        transactions: &[NewTransaction],
        options: &SpendOptions,
    ) -> Result<Vec<Outcome<Applied>>> {
        self.each(transactions, |state, new| {
            state.spend_and_create(self.rule, new, options)
        })
    }

    async fn create(&self, records: &[NewRecord]) -> Result<Vec<Outcome<Applied>>> {
        self.each(records, |state, new| state.create(self.rule, new))
    }

    async fn spend(&self, txids: &[Txid], options: &SpendOptions) -> Result<Vec<Outcome<Applied>>> {
        self.each(txids, |state, txid| state.spend(*txid, options))
    }

    async fn unspend(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        self.each(txids, |state, txid| state.unspend(*txid))
    }

    async fn remove(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        self.each(txids, |state, txid| state.remove(*txid))
    }

    async fn records(&self, txids: &[Txid], fields: Fields) -> Result<Vec<Option<Record>>> {
        let state = self.state();
        let read = |txid: &Txid| {
            let mut record = state.records.get(txid)?.clone();
            if !fields.inputs {
                record.inputs.clear();
            }
            if !fields.outputs {
                record.outputs.clear();
            }
            Some(record)
        };
        Ok(txids.iter().map(read).collect())
    }

    async fn outputs(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<OutputView>>> {
        self.each(outpoints, |state, outpoint| {
            let (record, slot) = state.slot(*outpoint)?;
            Ok(OutputView {
                outpoint: *outpoint,
                output: slot.output.clone(),
                height: record.confirmed_height(),
                coinbase: record.coinbase,
                state: slot.state(),
                locked: record.locked,
                conflicting: record.conflicting,
            })
        })
    }
}

#[async_trait]
impl BlockStore for MemoryUtxoStore {
    async fn tip(&self) -> Result<Option<Tip>> {
        Ok(self.state().tip)
    }

    async fn previous_tip(&self) -> Result<Option<Tip>> {
        let state = self.state();
        let undo = state.tip.and_then(|tip| state.undo.get(&tip.hash));
        Ok(undo.and_then(|undo| undo.previous))
    }

    async fn set_tip(&self, tip: &Tip) -> Result<()> {
        self.state().tip = Some(*tip);
        Ok(())
    }

    async fn set_mined(&self, txids: &[Txid], mined: &MinedIn) -> Result<Vec<Outcome<Applied>>> {
        self.each(txids, |state, txid| state.set_mined(*txid, mined))
    }

    async fn unset_mined(
        &self,
        txids: &[Txid],
        block: &BlockHash,
        unmined_since: u32,
    ) -> Result<Vec<Outcome<Applied>>> {
        self.each(txids, |state, txid| {
            state.unset_mined(*txid, block, unmined_since)
        })
    }

    async fn set_longest_chain(
        &self,
        txids: &[Txid],
        block: &BlockHash,
        mark: LongestChain,
    ) -> Result<Vec<Outcome<Applied>>> {
        self.each(txids, |state, txid| {
            state.set_longest_chain(*txid, block, mark)
        })
    }

    async fn connect_block(&self, block: &ChainBlock) -> Result<Outcome<Connected>> {
        Ok(self.state().whole(|state| state.connect(self.rule, block)))
    }

    async fn disconnect_block(
        &self,
        block: &BlockHash,
        previous: &BlockHash,
    ) -> Result<Outcome<Disconnected>> {
        Ok(self
            .state()
            .whole(|state| state.disconnect(block, previous)))
    }
}

#[async_trait]
impl AlertStore for MemoryUtxoStore {
    async fn freeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>> {
        self.each(outpoints, |state, outpoint| state.freeze(*outpoint))
    }

    async fn unfreeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>> {
        self.each(outpoints, |state, outpoint| state.unfreeze(*outpoint))
    }

    async fn reassign(&self, reassignments: &[Reassignment]) -> Result<Vec<Outcome<Applied>>> {
        self.each(reassignments, |state, reassignment| {
            state.reassign(self.rule, reassignment)
        })
    }
}

#[async_trait]
impl ConflictStore for MemoryUtxoStore {
    async fn set_locked(&self, txids: &[Txid], locked: bool) -> Result<Vec<Outcome<Applied>>> {
        self.each(txids, |state, txid| {
            let record = state
                .edit(*txid)
                .ok_or(Verdict::UnknownTransaction { txid: *txid })?;
            Ok(applied(
                std::mem::replace(&mut record.locked, locked) != locked,
            ))
        })
    }

    async fn mark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        self.each(txids, |state, txid| state.mark_conflicting(*txid))
    }

    async fn unmark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        self.each(txids, |state, txid| state.unmark_conflicting(*txid))
    }

    async fn counter_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        self.each(txids, |state, txid| state.counter_conflicting(*txid))
    }

    async fn conflicting_children(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        self.each(txids, |state, txid| {
            Ok(state.known(*txid)?.conflicting_children.clone())
        })
    }
}

#[async_trait]
impl RetentionStore for MemoryUtxoStore {
    async fn unmined(
        &self,
        older_than: Option<u32>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<UnminedTransaction>> {
        let from = match after {
            None => Bound::Unbounded,
            Some(cursor) => Bound::Excluded(cursor.txid()?),
        };
        let state = self.state();
        let mut found =
            state
                .records
                .range((from, Bound::Unbounded))
                .filter_map(|(txid, record)| {
                    let unmined_since = record.unmined_since?;
                    older_than
                        .is_none_or(|height| unmined_since < height)
                        .then_some(UnminedTransaction {
                            txid: *txid,
                            unmined_since,
                        })
                });
        let items: Vec<_> = found.by_ref().take(limit.max(1)).collect();
        let next = found
            .next()
            .and(items.last())
            .map(|last| Cursor::from(last.txid));
        Ok(Page { items, next })
    }

    async fn preserve(&self, txids: &[Txid], until_height: u32) -> Result<Vec<Outcome<Applied>>> {
        self.each(txids, |state, txid| {
            let record = state
                .edit(*txid)
                .ok_or(Verdict::UnknownTransaction { txid: *txid })?;
            Ok(applied(
                record.preserve_until.replace(until_height) != Some(until_height),
            ))
        })
    }

    async fn prune(&self, horizon: u32) -> Result<Pruned> {
        self.state().prune(horizon)
    }
}

#[async_trait]
impl ScanStore for MemoryUtxoStore {
    async fn scan(&self) -> Result<Box<dyn SetScan>> {
        let state = self.state();
        Ok(Box::new(MemoryScan {
            tip: state.tip,
            coins: state.coins(),
        }))
    }

    async fn digest(&self) -> Result<SetDigest> {
        let state = self.state();
        let mut set = MuHash3072::new();
        state
            .coins()
            .iter()
            .for_each(|coin| set.insert(&coin_element(coin)));
        Ok(SetDigest {
            tip: state.tip,
            muhash: set.digest(),
        })
    }
}

#[async_trait]
impl MaintenanceStore for MemoryUtxoStore {
    async fn recover(&self) -> Result<Recovered> {
        Ok(Recovered::default())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn health(&self, _depth: HealthDepth) -> Result<Health> {
        Ok(Health {
            ready: true,
            reasons: Vec::new(),
        })
    }
}

#[derive(Debug)]
struct MemoryScan {
    tip: Option<Tip>,
    coins: Vec<Coin>,
}

#[async_trait]
impl SetScan for MemoryScan {
    fn tip(&self) -> Option<Tip> {
        self.tip
    }

    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    async fn page(
        &self,
        partition: u32,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Coin>> {
        let of = |outpoint: &OutPoint| u32::from(outpoint.txid.as_bytes()[0]) * PARTITIONS / 256;
        let after = after.map(|cursor| cursor.outpoint()).transpose()?;
        if partition >= PARTITIONS || after.is_some_and(|after| of(&after) != partition) {
            return Err(Error::invalid_request(format!(
                "no such place in partition {partition} of {PARTITIONS}"
            )));
        }
        let mut coins = self.coins.iter().filter(|coin| {
            of(&coin.outpoint) == partition && after.is_none_or(|after| coin.outpoint > after)
        });
        let items: Vec<Coin> = coins.by_ref().take(limit.max(1)).cloned().collect();
        let next = coins
            .next()
            .and(items.last())
            .map(|last| Cursor::from(last.outpoint));
        Ok(Page { items, next })
    }
}
