//! What steps mean at the moment they are taken.

use std::collections::BTreeMap;

use groundtackle_utxo_store::{
    BlockHash, ChainBlock, LongestChain, MinedIn, NewRecord, NewTransaction, OutPoint,
    Reassignment, Record, RecordOutput, SpendOptions, Tip, Transaction, TxOut, Txid,
};

use super::{Call, Expected, Item, Pick, Rules, Step};
use crate::builder::{BlockBuilder, TxBuilder, script};
use crate::state::State;

/// What there is at a moment of a sequence, as the model has it.
pub(super) struct World {
    /// Every transaction that occurred, in order of occurrence: parents come first.
    pub(super) known: Vec<Transaction>,
    /// Connected since the beginning.
    chain: Vec<ChainBlock>,
    /// Every block that occurred.
    blocks: Vec<ChainBlock>,
    records: BTreeMap<Txid, Record>,
    tip: Tip,
}

const NOBODY: Txid = Txid::from_bytes([9; 32]);

impl World {
    /// The same for every sequence: coins, coinbases about to ripen, a tip.
    pub(super) fn begin() -> (Self, Vec<Call>) {
        let seeds: Vec<_> = (0..7)
            .map(|n| match n {
                0..3 => TxBuilder::new(n).pay_each(3, 1_000),
                _ => TxBuilder::coinbase(n),
            })
            .collect();
        let tip = Tip {
            height: 200,
            hash: BlockHash::from_bytes([200; 32]),
            median_time_past: 1,
        };
        let known = seeds.iter().cloned().map(TxBuilder::build).collect();
        let heights = [150, 150, 150, 100, 101, 102, 103];
        let records = seeds.into_iter().zip(heights);
        let create = records.map(|(tx, height)| tx.seed(height)).collect();
        let world = Self {
            known,
            chain: Vec::new(),
            blocks: Vec::new(),
            records: BTreeMap::new(),
            tip,
        };
        (world, vec![Call::Create(create), Call::SetTip(tip)])
    }

    fn height(&self, ahead: i8) -> u32 {
        self.tip.height.saturating_add_signed(ahead.into())
    }

    /// Transactions on record that fit, in order of occurrence.
    fn txids(&self, fit: impl Fn(&Record) -> bool) -> Vec<Txid> {
        let known = self.known.iter().map(|tx| tx.txid);
        known
            .filter(|txid| self.records.get(txid).is_some_and(&fit))
            .collect()
    }

    fn pick_txids(&self, picks: &[Pick], fit: impl Fn(&Record) -> bool) -> Vec<Txid> {
        let fitting = self.txids(fit);
        let mut any: Vec<_> = self.known.iter().map(|tx| tx.txid).collect();
        any.push(NOBODY);
        picks
            .iter()
            .filter_map(|pick| pick.among(&fitting, &any))
            .collect()
    }

    /// Outputs on record that fit.
    fn outputs(&self, fit: impl Fn(&Record, &RecordOutput) -> bool) -> Vec<OutPoint> {
        let records = self
            .known
            .iter()
            .filter_map(|tx| self.records.get(&tx.txid));
        records
            .flat_map(|record| {
                let outputs = record.outputs.iter().filter(|output| fit(record, output));
                outputs.map(|output| OutPoint::new(record.txid, output.vout))
            })
            .collect()
    }

    /// Every output that was ever named, some that can't be spent, and one of nobody's.
    pub(super) fn any_output(&self) -> Vec<OutPoint> {
        let known = self
            .known
            .iter()
            .flat_map(|tx| (0..=tx.outputs.len() as u32).map(|vout| OutPoint::new(tx.txid, vout)));
        known.chain([OutPoint::new(NOBODY, 0)]).collect()
    }

    fn pick_outputs(
        &self,
        picks: &[Pick],
        fit: impl Fn(&Record, &RecordOutput) -> bool,
    ) -> Vec<OutPoint> {
        let (fitting, any) = (self.outputs(fit), self.any_output());
        picks
            .iter()
            .filter_map(|pick| pick.among(&fitting, &any))
            .collect()
    }

    /// The transactions of a batch. A new one prefers `free` outputs, those of its batch included.
    fn transactions(
        &mut self,
        items: &[Item],
        mut free: Vec<OutPoint>,
        fit: impl Fn(&Transaction, Option<&Record>) -> bool,
    ) -> Vec<Transaction> {
        let mut batch = Vec::new();
        for item in items {
            let tx = match item {
                Item::New { inputs, outputs } => {
                    let any = self.any_output();
                    let mut builder = TxBuilder::new(self.known.len() as u64);
                    for pick in inputs {
                        if let Some(outpoint) = pick.among(&free, &any) {
                            free.retain(|other| *other != outpoint);
                            builder = builder.spend(outpoint);
                        }
                    }
                    for n in 0..*outputs {
                        builder = match n {
                            2 => builder.pay_nobody(),
                            _ => builder.pay(100),
                        };
                    }
                    let tx = builder.build();
                    self.known.push(tx.clone());
                    tx
                }
                Item::Known(pick) | Item::Gone(pick) => {
                    let any: Vec<_> = self.known.iter().collect();
                    let mut fitting = any.clone();
                    if matches!(item, Item::Gone(_)) {
                        fitting.retain(|tx| !self.records.contains_key(&tx.txid));
                        if fitting.iter().any(|tx| self.holds(tx)) {
                            fitting.retain(|tx| self.holds(tx));
                        }
                    } else {
                        fitting.retain(|tx| fit(tx, self.records.get(&tx.txid)));
                    }
                    match pick.among(&fitting, &any) {
                        Some(tx) => tx.clone(),
                        None => continue,
                    }
                }
            };
            free.extend((0..tx.outputs.len().min(2)).map(|n| OutPoint::new(tx.txid, n as u32)));
            batch.push(tx);
        }
        batch
    }

    /// Whether an output on record names the transaction as its spender.
    fn holds(&self, tx: &Transaction) -> bool {
        tx.inputs.iter().any(|input| {
            let parent = self.records.get(&input.txid);
            let mut outputs = parent.into_iter().flat_map(|parent| &parent.outputs);
            outputs.any(|output| output.spent_by.is_some_and(|by| by.txid == tx.txid))
        })
    }

    fn tx(&self, txid: Txid) -> &Transaction {
        let found = self.known.iter().find(|tx| tx.txid == txid);
        found.expect("it occurred")
    }

    fn options(&self, rules: &Rules) -> SpendOptions {
        SpendOptions {
            coinbase_maturity: rules.maturity.into(),
            ignore_locked: rules.ignore_locked,
            lock: rules.lock,
            ..SpendOptions::at(self.height(rules.ahead.saturating_add(1)))
        }
    }

    /// A block by hash and height: one that occurred, or one of three that nobody connected.
    fn pick_block(&self, pick: Pick) -> (BlockHash, u32) {
        let known: Vec<_> = self.blocks.iter().map(|b| (b.hash, b.height)).collect();
        let other = (0..3_u8).map(|n| (BlockHash::from_bytes([n; 32]), 198 + u32::from(n)));
        let any: Vec<_> = known.into_iter().chain(other).collect();
        pick.of(&any)
    }

    /// One that some record names, if there is any.
    fn pick_entry(&self, pick: Pick) -> (BlockHash, u32) {
        let entries = self.records.values().flat_map(|record| &record.mined_in);
        let mut named: Vec<_> = entries
            .filter_map(|mined| Some((mined.block?, mined.height)))
            .collect();
        named.sort_unstable();
        let named = pick.among(&named, &[]);
        named.unwrap_or_else(|| self.pick_block(pick))
    }

    /// Whether a block `ahead` of the next may spend what the record has.
    fn ripe(&self, record: &Record, rules: &Rules) -> bool {
        let ripe_at = record
            .confirmed_height()
            .map(|height| height + u32::from(rules.maturity));
        !record.coinbase || ripe_at.is_some_and(|height| height <= self.options(rules).height)
    }

    /// The unmined ones that `txids` need, with them, parents first.
    fn with_ancestors(&self, txids: &[Txid]) -> Vec<Transaction> {
        let mut wanted = txids.to_vec();
        let mut next = 0;
        while let Some(txid) = wanted.get(next).copied() {
            next += 1;
            for input in &self.tx(txid).inputs {
                let unmined = self
                    .records
                    .get(&input.txid)
                    .is_some_and(|record| record.unmined_since.is_some());
                if unmined && !wanted.contains(&input.txid) {
                    wanted.push(input.txid);
                }
            }
        }
        let known = self.known.iter();
        known
            .filter(|tx| wanted.contains(&tx.txid) && !tx.coinbase)
            .cloned()
            .collect()
    }

    fn expected(&self, tx: &Transaction, expected: Expected) -> Vec<TxOut> {
        let truth = |outpoint: &OutPoint| {
            let output = self.known.iter().find(|tx| tx.txid == outpoint.txid);
            let output = output.and_then(|tx| tx.outputs.get(outpoint.vout as usize));
            output.cloned().unwrap_or(TxOut {
                value_sat: 0,
                script: script(0),
            })
        };
        let mut outputs: Vec<_> = tx.inputs.iter().map(truth).collect();
        match (expected, outputs.last_mut()) {
            (Expected::Nothing, _) => outputs.clear(),
            (Expected::Wrong, Some(last)) => last.value_sat += 1,
            (Expected::TooMany, Some(last)) => {
                let last = last.clone();
                outputs.push(last);
            }
            _ => {}
        }
        outputs
    }

    pub(super) fn resolve(&mut self, step: &Step) -> Call {
        let unspent = |_: &Record, output: &RecordOutput| output.spent_by.is_none();
        let unmined = |record: &Record| record.unmined_since.is_some() && !record.conflicting;
        let conflicting = |record: &Record| record.conflicting;
        match step {
            Step::Submit {
                items,
                rules,
                fee,
                expected,
            } => {
                let free = self.outputs(|record, output| {
                    unspent(record, output)
                        && !output.frozen
                        && !record.conflicting
                        && self.ripe(record, rules)
                });
                let transactions = self.transactions(items, free, |tx, _| !tx.coinbase);
                let new = |tx: Transaction| NewTransaction {
                    expected: self.expected(&tx, *expected),
                    fee_sat: fee.map(u64::from),
                    tx,
                };
                let options = self.options(rules);
                Call::SpendAndCreate(transactions.into_iter().map(new).collect(), options)
            }
            Step::CreateCoinbase { tx, block, on } => {
                let (hash, height) = self.pick_block(*block);
                let known = match tx {
                    Item::Known(_) | Item::Gone(_) => {
                        let known = std::slice::from_ref(tx);
                        self.transactions(known, vec![], |tx, _| tx.coinbase)
                    }
                    Item::New { .. } => vec![],
                };
                let tx = known.into_iter().next().unwrap_or_else(|| {
                    let tx = TxBuilder::coinbase(self.known.len() as u64).pay(5);
                    self.known.push(tx.clone().build());
                    tx.build()
                });
                let mined = MinedIn {
                    block: Some(hash),
                    height,
                    subtree_index: 0,
                    on_longest_chain: *on,
                };
                Call::Create(vec![NewRecord::Coinbase { tx, mined }])
            }
            Step::Seed {
                coinbase,
                age,
                outputs,
                again,
            } => {
                let tag = self.known.len() as u64;
                let builder = match coinbase {
                    true => TxBuilder::coinbase(tag),
                    false => TxBuilder::new(tag).pay_each((*outputs).into(), 1_000),
                };
                self.known.push(builder.clone().build());
                let record = builder.seed(self.tip.height.saturating_sub((*age).into()));
                let times = if *again { 2 } else { 1 };
                Call::Create(vec![record; times])
            }
            Step::CreateConflicting { items, since } => {
                let any = self.outputs(|_, _| true);
                let lost = |tx| NewRecord::Conflicting {
                    tx,
                    fee_sat: Some(3),
                    unmined_since: 0,
                };
                let transactions = self.transactions(items, any, |tx, _| !tx.coinbase);
                let mut records: Vec<_> = transactions.into_iter().map(lost).collect();
                let height = self.height(*since);
                for record in &mut records {
                    if let NewRecord::Conflicting { unmined_since, .. } = record {
                        *unmined_since = height;
                    }
                }
                Call::Create(records)
            }
            Step::Spend { txids, rules } => {
                Call::Spend(self.pick_txids(txids, conflicting), self.options(rules))
            }
            Step::Unspend(txids) => Call::Unspend(self.pick_txids(txids, conflicting)),
            Step::Remove(txids) => {
                Call::Remove(self.pick_txids(txids, |r| r.unmined_since.is_some()))
            }
            // Another one would leave blocks above it.
            Step::SetTip => Call::SetTip(Tip {
                median_time_past: self.tip.median_time_past + 1,
                ..self.tip
            }),
            Step::SetMined {
                txids,
                block,
                subtree,
                on,
            } => {
                let (hash, height) = self.pick_block(*block);
                let mined = MinedIn {
                    block: Some(hash),
                    height,
                    subtree_index: (*subtree).into(),
                    on_longest_chain: *on,
                };
                Call::SetMined(self.pick_txids(txids, unmined), mined)
            }
            Step::UnsetMined {
                txids,
                block,
                since,
            } => {
                let (hash, _) = self.pick_entry(*block);
                let there = |r: &Record| r.mined_in.iter().any(|m| m.block == Some(hash));
                Call::UnsetMined(self.pick_txids(txids, there), hash, self.height(*since))
            }
            Step::SetLongestChain { txids, block, on } => {
                let (hash, height) = self.pick_entry(*block);
                let there = |r: &Record| r.mined_in.iter().any(|m| m.block == Some(hash));
                let mark = match on {
                    true => LongestChain::On,
                    false => LongestChain::Off {
                        unmined_since: height,
                    },
                };
                Call::SetLongestChain(self.pick_txids(txids, there), hash, mark)
            }
            Step::Connect {
                items,
                whole,
                branch,
                coinbase,
                may_overwrite,
            } => {
                let free = self.outputs(|record, output| {
                    unspent(record, output)
                        && !output.frozen
                        && !record.conflicting
                        && record.unmined_since.is_none()
                        && self.ripe(record, &Rules::USUAL)
                });
                let mut transactions =
                    self.transactions(items, free, |_, record| record.is_some_and(unmined));
                if *whole {
                    let txids: Vec<_> = transactions.iter().map(|tx| tx.txid).collect();
                    transactions = self.with_ancestors(&txids);
                }
                let branch = (self.known.len() as u64) << 8 | u64::from(*branch);
                let mut builder = BlockBuilder::after(self.tip).branch(branch);
                if let Some(pick) = coinbase {
                    let coinbases: Vec<_> = self
                        .known
                        .iter()
                        .filter(|tx| tx.coinbase)
                        .cloned()
                        .collect();
                    builder = match pick.among(&coinbases, &self.known) {
                        Some(tx) => builder.coinbase(&tx),
                        None => builder,
                    };
                }
                if *may_overwrite {
                    builder = builder.coinbase_may_overwrite();
                }
                let block = builder
                    .with(&transactions.iter().collect::<Vec<_>>())
                    .build();
                if coinbase.is_none() {
                    self.known.push(block.transactions[0].clone());
                }
                self.blocks.push(block.clone());
                Call::ConnectBlock(block)
            }
            Step::ConnectKnown(pick) => {
                let next = |block: &&ChainBlock| {
                    block.previous == self.tip.hash || block.hash == self.tip.hash
                };
                let fitting: Vec<_> = self.blocks.iter().filter(next).cloned().collect();
                let genesis = [BlockBuilder::after(None).build()];
                let any: Vec<_> = self.blocks.iter().chain(&genesis).cloned().collect();
                let block = pick.among(&fitting, &any);
                Call::ConnectBlock(block.unwrap_or_else(|| pick.of(&any)))
            }
            Step::Disconnect => match self.chain.last() {
                Some(block) => Call::DisconnectBlock(block.hash, block.previous),
                None => Call::DisconnectBlock(self.tip.hash, BlockHash::ZERO),
            },
            Step::DisconnectKnown(block, previous) => {
                Call::DisconnectBlock(self.pick_block(*block).0, self.pick_block(*previous).0)
            }
            Step::Freeze(outputs) => Call::Freeze(self.pick_outputs(outputs, unspent)),
            Step::Unfreeze(outputs) => {
                Call::Unfreeze(self.pick_outputs(outputs, |_, output| output.frozen))
            }
            Step::Reassign {
                outputs,
                owner,
                ahead,
            } => {
                let frozen = self.pick_outputs(outputs, |_, output| {
                    output.frozen || output.spendable_from.is_some()
                });
                let script = match owner {
                    0 => groundtackle_utxo_store::Script::from_bytes(vec![0x6a]),
                    _ => script((*owner).into()),
                };
                let to = |outpoint| Reassignment {
                    outpoint,
                    script: script.clone(),
                    spendable_from: self.height(*ahead),
                };
                Call::Reassign(frozen.into_iter().map(to).collect())
            }
            Step::SetLocked { txids, locked } => {
                let other = |record: &Record| record.locked != *locked;
                Call::SetLocked(self.pick_txids(txids, other), *locked)
            }
            Step::MarkConflicting(txids) => Call::MarkConflicting(self.pick_txids(txids, unmined)),
            Step::UnmarkConflicting(txids) => {
                Call::UnmarkConflicting(self.pick_txids(txids, conflicting))
            }
            Step::CounterConflicting(txids) => {
                Call::CounterConflicting(self.pick_txids(txids, conflicting))
            }
            Step::ConflictingChildren(txids) => {
                let parent = |record: &Record| !record.conflicting_children.is_empty();
                Call::ConflictingChildren(self.pick_txids(txids, parent))
            }
            Step::Preserve { txids, ahead } => {
                Call::Preserve(self.pick_txids(txids, |_| true), self.height(*ahead))
            }
            Step::Prune(ahead) => Call::Prune(self.height(*ahead)),
            Step::Unmined(ahead) => Call::Unmined(self.height(*ahead)),
            Step::Recover => Call::Recover,
            Step::Reopen => Call::Reopen,
        }
    }

    /// Takes over what the model has after a call.
    pub(super) fn learn(&mut self, call: &Call, state: &State) {
        self.records.clone_from(&state.records);
        let tip = state.tip.expect("the sequence began with a tip");
        match call {
            Call::ConnectBlock(block) if tip.hash == block.hash && self.tip.hash != tip.hash => {
                self.chain.push(block.clone());
            }
            Call::DisconnectBlock(..) if self.tip.hash != tip.hash => {
                self.chain.pop();
            }
            _ => {}
        }
        self.tip = tip;
    }
}
