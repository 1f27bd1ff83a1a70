//! Removing what nothing needs any more, a bounded number of records at a time.

use std::collections::BTreeSet;

use groundtackle_utxo_store::draft::Reads;
use groundtackle_utxo_store::{Attempts, Result, Txid};

use crate::call::Turn;
use crate::error::Failed;
use crate::read::{View, height_member, members, split_height_member, up_to_height};
use crate::store::Inner;
use crate::write::Change;

/// Records that one step looks at: other calls get their turn between steps.
const STEP: usize = 512;

const ACTION: &str = "prune";

/// What a step came to.
enum Step {
    /// Others changed what it had read.
    Overtaken,
    Done {
        records: u64,
        more: bool,
    },
}

impl Inner {
    /// Removes one block's undo data, or some records; says how many, and whether to go on.
    pub(crate) async fn step(&self, horizon: u32, undo: bool) -> Result<(u64, bool)> {
        let mut attempts = self.attempts(ACTION);
        let mut turn = self.turn(ACTION, false).await?;
        let mut items = STEP;
        loop {
            let done = if undo {
                self.undo_step(horizon, &mut turn, &mut attempts).await
            } else {
                self.expired_step(horizon, items, &mut turn, &mut attempts)
                    .await
            };
            match done {
                Ok(Step::Done { records, more }) => return Ok((records, more)),
                // Fewer are not so easily overtaken.
                Ok(Step::Overtaken) => {
                    items = (items / 4).max(1);
                    self.overtaken(&mut turn, ACTION).await?;
                }
                Err(failed) => failed.again(&mut attempts).await?,
            }
        }
    }

    /// One block's undo data; its records are listed to be looked at.
    async fn undo_step(
        &self,
        horizon: u32,
        turn: &mut Turn,
        attempts: &mut Attempts,
    ) -> Result<Step, Failed> {
        let keys = &self.keys;
        let before = self.chain(ACTION).await?;
        let command = up_to_height(keys.heights(), horizon, 1);
        let found = members(self.link.ask(ACTION, &command).await?)?;
        let Some(member) = found.into_iter().next() else {
            // Of one moment with the tip: from then on no block at or below the horizon can be taken
            // back, and none is connected in its place.
            if self.chain(ACTION).await?.token != before.token {
                return Ok(Step::Overtaken);
            }
            if let Some(tip) = &before.tip {
                tip.check_horizon(horizon)?;
            }
            return Ok(Step::Done {
                records: 0,
                more: false,
            });
        };
        let (height, block) = split_height_member(&member)?;
        let member = height_member(height, &block);
        let block = groundtackle_utxo_store::BlockHash::from_bytes(block);
        let mut reads = Reads::new();
        reads.undo.insert(block);
        let mut view = View::default();
        view.read(&self.link, keys, ACTION, &reads, false).await?;
        let mut change = Change::new(keys);
        change.expect_view(keys, &view);
        change.remove(keys.heights(), member);
        if let Some(Some((_, undo))) = view.undo.get(&block) {
            let mut touched: BTreeSet<Txid> = undo.transactions.iter().map(|(t, _)| *t).collect();
            let mut reads = Reads::new();
            reads.records.clone_from(&touched);
            reads.inputs.clone_from(&touched);
            // Inputs never change, so that nothing is expected of these.
            let mut spenders = View::default();
            spenders
                .read(&self.link, keys, ACTION, &reads, false)
                .await?;
            for stored in spenders.records.values().flatten() {
                let inputs = stored.body.iter().flat_map(|body| &body.inputs);
                touched.extend(inputs.map(|input| input.txid));
            }
            change.unset(keys.undo(), block.as_bytes().to_vec());
            for txid in touched {
                change.add(keys.expiring(), height_member(horizon, txid.as_bytes()));
            }
        }
        self.finish(change, 0, turn, attempts).await
    }

    async fn expired_step(
        &self,
        horizon: u32,
        items: usize,
        turn: &mut Turn,
        attempts: &mut Attempts,
    ) -> Result<Step, Failed> {
        let keys = &self.keys;
        let command = up_to_height(keys.expiring(), horizon, items);
        let listed = members(self.link.ask(ACTION, &command).await?)?;
        if listed.is_empty() {
            return Ok(Step::Done {
                records: 0,
                more: false,
            });
        }
        let mut reads = Reads::new();
        for member in &listed {
            reads.whole(Txid::from_bytes(split_height_member(member)?.1));
        }
        let mut view = View::default();
        let mut same = view.read(&self.link, keys, ACTION, &reads, false).await?;
        let mut spenders = Reads::new();
        for stored in view.records.values().flatten() {
            let by = stored.outputs().filter_map(|output| output.spent_by);
            by.map(|by| by.txid)
                .filter(|txid| !view.records.contains_key(txid))
                .for_each(|txid| spenders.record(txid));
        }
        same &= view
            .read(&self.link, keys, ACTION, &spenders, false)
            .await?;
        if !same {
            return Ok(Step::Overtaken);
        }
        let mut change = Change::new(keys);
        // Of those that stay, too: whoever changes them may have listed them anew, as they are listed now.
        change.expect_view(keys, &view);
        let mut records = 0;
        for txid in &reads.records {
            let Some(Some(stored)) = view.records.get(txid) else {
                continue;
            };
            if let Some(until) = stored
                .main
                .head
                .preserve_until
                .filter(|until| *until > horizon)
            {
                change.add(keys.expiring(), height_member(until, txid.as_bytes()));
                continue;
            }
            let over = |txid: &Txid| match view.records.get(txid).and_then(Option::as_ref) {
                Some(stored) => {
                    let height = stored.main.head.confirmed_height();
                    height.is_some_and(|height| height <= horizon)
                }
                // A spender without a record was pruned.
                None => true,
            };
            let spent = |output: &groundtackle_utxo_store::RecordOutput| {
                output.spent_by.is_some_and(|by| over(&by.txid))
            };
            if over(txid) && stored.outputs().all(spent) {
                change.delete(keys, txid, stored);
                records += 1;
            }
        }
        for member in listed {
            let (height, id) = split_height_member(&member)?;
            change.remove(keys.expiring(), height_member(height, &id));
        }
        self.finish(change, records, turn, attempts).await
    }

    async fn finish(
        &self,
        mut change: Change,
        records: u64,
        turn: &mut Turn,
        attempts: &mut Attempts,
    ) -> Result<Step, Failed> {
        change.frees = true;
        let done = self.carry_out(&change, turn, attempts).await?;
        Ok(if done {
            Step::Done {
                records,
                more: true,
            }
        } else {
            Step::Overtaken
        })
    }
}
