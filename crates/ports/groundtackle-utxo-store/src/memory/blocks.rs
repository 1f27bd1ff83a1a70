//! Blocks, the longest chain and the tip.

use std::collections::BTreeMap;

use groundtackle_chain::{BlockHash, ChainBlock, OutPoint, Transaction, Txid};

use super::{BlockUndo, Judge, State, Undo, applied, check_amounts, invalid, still_spent, total};
use crate::types::{
    Applied, COINBASE_MATURITY, Coin, Connected, Disconnected, LongestChain, MinedIn, Record,
    SpendOptions, Tip, UnspendableRule,
};
use crate::verdict::{Outcome, Verdict};

impl State {
    pub(super) fn set_mined(&mut self, txid: Txid, mined: &MinedIn) -> Outcome<Applied> {
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

    pub(super) fn unset_mined(
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

    pub(super) fn set_longest_chain(
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
    pub(super) fn whole<T>(&mut self, change: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
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

    pub(super) fn connect(
        &mut self,
        rule: UnspendableRule,
        block: &ChainBlock,
    ) -> Outcome<Connected> {
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

    pub(super) fn disconnect(
        &mut self,
        block: &BlockHash,
        previous: &BlockHash,
    ) -> Outcome<Disconnected> {
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
