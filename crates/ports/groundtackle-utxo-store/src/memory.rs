//! The in-memory adapter: the executable specification.
//!
//! Every other adapter must leave the same state, give the same verdicts and have the same digest
//! after every step. So this one is written to be read: whole records in one ordered map, a full
//! walk wherever a walk is the definition.

mod blocks;
mod spend;

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
    Applied, Capabilities, Coin, Connected, Cursor, Disconnected, Fields, Health, HealthDepth,
    LongestChain, MinedIn, NewRecord, NewTransaction, OutputView, Page, Pruned, Reassignment,
    Record, RecordOutput, Recovered, SetDigest, SpendOptions, SpentBy, Tip, UnminedTransaction,
    UnspendableRule,
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
