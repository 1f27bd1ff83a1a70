//! Spending and creating, and back.

use std::collections::BTreeMap;

use groundtackle_chain::{OutPoint, TxOut, Txid};

use super::{Judge, State, applied, check_amounts, inputs, invalid, still_spent};
use crate::types::{
    Applied, MinedIn, NewRecord, NewTransaction, Record, RecordOutput, SpendOptions, SpentBy,
    UnspendableRule,
};
use crate::verdict::{Outcome, Verdict};

impl State {
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
    pub(super) fn judge_all(
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

    pub(super) fn hold_inputs(&mut self, record: &Record) {
        for (me, outpoint) in inputs(record) {
            if let Some(slot) = self.slot_mut(outpoint) {
                slot.spent_by = Some(me);
            }
        }
    }

    pub(super) fn release_inputs(&mut self, record: &Record) -> bool {
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

    pub(super) fn holds_any(&self, record: &Record) -> bool {
        inputs(record).any(|(me, outpoint)| {
            self.slot(outpoint)
                .is_ok_and(|(_, slot)| slot.spent_by == Some(me))
        })
    }

    /// Tells the parents of a conflicting transaction, or of one that is it no more.
    pub(super) fn tell_parents(&mut self, record: &Record, conflicting: bool) {
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

    pub(super) fn spend_and_create(
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

    pub(super) fn create(&mut self, rule: UnspendableRule, new: &NewRecord) -> Outcome<Applied> {
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

    pub(super) fn spend(&mut self, txid: Txid, options: &SpendOptions) -> Outcome<Applied> {
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

    pub(super) fn unspend(&mut self, txid: Txid) -> Outcome<Applied> {
        let record = self.known(txid)?.clone();
        if !record.conflicting {
            return Err(Verdict::NotConflicting { txid });
        }
        Ok(applied(self.release_inputs(&record)))
    }

    pub(super) fn remove(&mut self, txid: Txid) -> Outcome<Applied> {
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
}
