//! Spending and creating without reading anything first.

use std::collections::{HashMap, HashSet};

use groundtackle_chain::{OutPoint, Txid};
use groundtackle_core::fail_point;

use super::cells::{Body, Cell, CellKey, Cells, Claim, Mark, Phase, Step, Write};
use super::plan::{Aside, cut};
use super::{PendingUtxoStore, codec, page_of, random};
use crate::draft::{Operation, Reads, TxidHash, TxidMap, ops};
use crate::error::Result;
use crate::types::{Applied, NewTransaction, Record, SpendOptions, SpentBy};
use crate::verdict::Outcome;

/// Transactions whose order does not matter, by where they are in the call.
type Wave = Vec<usize>;

/// Cuts a call so that each transaction comes after those before it with which it shares anything.
fn waves(transactions: &[NewTransaction]) -> Vec<Wave> {
    let mut waves: Vec<Wave> = Vec::new();
    let mut made = TxidMap::<usize>::default();
    let mut wanted: HashMap<OutPoint, usize, TxidHash> = HashMap::default();
    let mut named = TxidMap::<usize>::default();
    for (at, NewTransaction { tx, .. }) in transactions.iter().enumerate() {
        let own = made.get(&tx.txid).into_iter().chain(named.get(&tx.txid));
        let of_inputs = tx
            .inputs
            .iter()
            .flat_map(|input| made.get(&input.txid).into_iter().chain(wanted.get(input)));
        let wave = own.chain(of_inputs).max().map_or(0, |last| last + 1);
        made.insert(tx.txid, wave);
        for input in &tx.inputs {
            wanted.insert(*input, wave);
            let latest = named.entry(input.txid).or_default();
            *latest = wave.max(*latest);
        }
        if waves.len() <= wave {
            waves.push(Wave::new());
        }
        if let Some(wave) = waves.get_mut(wave) {
            wave.push(at);
        }
    }
    waves
}

const fn head_step(txid: Txid, attempt: u64, to: Phase) -> Step {
    Step { txid, attempt, to }
}

fn claims(txid: Txid, inputs: &[OutPoint], attempt: u64, template: &Claim) -> Vec<Claim> {
    let claim = |(vin, outpoint): (u32, &OutPoint)| Claim {
        parent: outpoint.txid,
        page: page_of(outpoint.vout),
        vout: outpoint.vout,
        mark: Mark {
            by: SpentBy { txid, vin },
            attempt,
        },
        ..template.clone()
    };
    (0..).zip(inputs).map(claim).collect()
}

/// A claim without its place.
fn template(options: &SpendOptions) -> Claim {
    Claim {
        parent: Txid::ZERO,
        page: 0,
        vout: 0,
        mark: Mark {
            by: SpentBy {
                txid: Txid::ZERO,
                vin: 0,
            },
            attempt: 0,
        },
        height: options.height,
        coinbase_maturity: options.coinbase_maturity,
        ignore_locked: options.ignore_locked,
        expected: None,
    }
}

/// A transaction on its way.
struct Pending<'a> {
    at: usize,
    new: &'a NewTransaction,
    attempt: u64,
    head: Write,
    good: bool,
}

impl Pending<'_> {
    const fn name(&self) -> (Txid, u64) {
        (self.new.tx.txid, self.attempt)
    }

    const fn step(&self, to: Phase) -> Step {
        head_step(self.new.tx.txid, self.attempt, to)
    }
}

impl<C: Cells> PendingUtxoStore<C> {
    pub(super) async fn spend_and_create_all(
        &self,
        transactions: &[NewTransaction],
        options: &SpendOptions,
    ) -> Result<Vec<Outcome<Applied>>> {
        let mut outcomes = vec![None; transactions.len()];
        let done = self.spend_in_waves(transactions, options, &mut outcomes);
        if let Err(error) = done.await {
            let applied = outcomes.contains(&Some(Ok(Applied::Now)));
            return Err(match applied {
                true => error.after_effect(self.backend(), "spend and create"),
                false => error,
            });
        }
        let complete: Option<Vec<_>> = outcomes.into_iter().collect();
        complete.ok_or_else(|| self.corrupt("an answer", "an item has none"))
    }

    async fn spend_in_waves(
        &self,
        transactions: &[NewTransaction],
        options: &SpendOptions,
        outcomes: &mut [Option<Outcome<Applied>>],
    ) -> Result<()> {
        for wave in waves(transactions) {
            let news: Vec<_> = wave.iter().filter_map(|at| transactions.get(*at)).collect();
            let granted = self.spend_without_reading(&news, options).await?;
            let mut reads = Reads::new();
            let mut refused = Vec::new();
            for ((at, new), granted) in wave.iter().zip(news).zip(granted) {
                if granted {
                    if let Some(outcome) = outcomes.get_mut(*at) {
                        *outcome = Some(Ok(Applied::Now));
                    }
                } else {
                    reads.of_inputs(new.tx.txid, &new.tx.inputs);
                    refused.push((*at, new));
                }
            }
            let judged = self
                .change(
                    Operation::SpendAndCreate.into(),
                    &refused,
                    reads,
                    |draft, (_, new)| ops::spend_and_create(draft, new, options),
                )
                .await?;
            for ((at, _), judged) in refused.iter().zip(judged) {
                if let Some(outcome) = outcomes.get_mut(*at) {
                    *outcome = Some(judged);
                }
            }
        }
        Ok(())
    }

    /// Draws a transaction up as a pending record, if it fits into one cell.
    fn draw_up<'a>(
        &self,
        at: usize,
        new: &'a NewTransaction,
        options: &SpendOptions,
    ) -> Option<Pending<'a>> {
        let record = Record {
            fee_sat: new.fee_sat,
            unmined_since: Some(options.height),
            locked: options.lock,
            ..ops::new_record(self.config.unspendable, &new.tx)
        };
        let attempt = random();
        let mut aside = Aside::default();
        let mut pages = cut(&record, attempt, Phase::Pending, &mut aside, |_| None);
        let (_, head) = pages.pop_first()?;
        (pages.is_empty() && aside.0.is_empty()).then(|| Pending {
            at,
            new,
            attempt,
            head: Write {
                key: CellKey::head(new.tx.txid),
                expect: None,
                cell: Some(Cell {
                    stamp: random(),
                    lock: None,
                    body: Some(Body::Page(head)),
                }),
            },
            good: true,
        })
    }

    /// Writes the heads of transactions, by which all else is found and cleared away, and returns those
    /// that are there. Where the fate of one is not known, it is left to whoever finds it, and the
    /// transaction begins with another attempt. All attempts are added to `tried`.
    async fn begin<'a>(
        &self,
        news: &[&'a NewTransaction],
        options: &SpendOptions,
        tried: &mut Vec<(Txid, u64)>,
    ) -> Result<Vec<Pending<'a>>> {
        let mut rest: Vec<_> = news.iter().copied().enumerate().collect();
        rest.retain(|(_, new)| ops::check_new(new).is_ok());
        let mut attempts = self.attempts();
        let (mut begun, mut doubtful) = (Vec::new(), Vec::new());
        let mut refused = HashSet::new();
        while !rest.is_empty() {
            let drawn: Vec<_> = rest
                .iter()
                .filter_map(|(at, new)| self.draw_up(*at, new, options))
                .collect();
            rest.clear();
            tried.extend(drawn.iter().map(Pending::name));
            let heads: Vec<_> = drawn.iter().map(|p| p.head.clone()).collect();
            let written = self.write_once(&heads, &mut attempts).await?;
            for (pending, written) in drawn.into_iter().zip(written) {
                let txid = pending.new.tx.txid;
                match written {
                    Some(true) => begun.push(pending),
                    Some(false) => drop(refused.insert(txid)),
                    None => {
                        doubtful.push((txid, pending.attempt));
                        rest.push((pending.at, pending.new));
                    }
                }
            }
        }
        fail_point("pending.begun");
        // It may have been a late one of its own that was in the way.
        doubtful.retain(|(txid, _)| refused.contains(txid));
        self.give_up(&doubtful).await?;
        Ok(begun)
    }

    /// Says of each whether it is done. Where it is not, nothing is left of it, and why is to be found out.
    async fn spend_without_reading(
        &self,
        news: &[&NewTransaction],
        options: &SpendOptions,
    ) -> Result<Vec<bool>> {
        let mut tried = Vec::new();
        let granted = self.spend_pending(news, options, &mut tried).await;
        if granted.is_err() {
            // What is live stays. If this fails too, others will do it.
            let _ = self.give_up(&tried).await;
        }
        granted
    }

    async fn spend_pending(
        &self,
        news: &[&NewTransaction],
        options: &SpendOptions,
        tried: &mut Vec<(Txid, u64)>,
    ) -> Result<Vec<bool>> {
        let mut granted = vec![false; news.len()];
        let mut begun = self.begin(news, options, tried).await?;
        let mut wanted = Vec::new();
        let mut of = Vec::new();
        for (n, pending) in begun.iter().enumerate() {
            let NewTransaction { tx, expected, .. } = pending.new;
            let template = template(options);
            for (vin, mut claim) in claims(tx.txid, &tx.inputs, pending.attempt, &template)
                .into_iter()
                .enumerate()
            {
                claim.expected = expected.get(vin).cloned();
                wanted.push(claim);
                of.push(n);
            }
        }
        for (n, marked) in of.into_iter().zip(self.mark(&wanted).await?) {
            if let Some(pending) = begun.get_mut(n) {
                pending.good &= marked;
            }
        }
        fail_point("pending.marked");
        let (good, bad): (Vec<_>, Vec<_>) = begun.into_iter().partition(|p| p.good);
        let steps: Vec<_> = good.iter().map(|p| p.step(Phase::Live)).collect();
        let mut failed: Vec<_> = bad;
        for (pending, live) in good.into_iter().zip(self.step(&steps).await?) {
            match granted.get_mut(pending.at) {
                Some(granted) if live => *granted = true,
                _ => failed.push(pending),
            }
        }
        fail_point("pending.live");
        match self.give_up_own(&failed).await {
            Err(error) if granted.contains(&true) => {
                Err(error.after_effect(self.backend(), "spend and create"))
            }
            given_up => given_up.map(|()| granted),
        }
    }

    /// Gives pending records up, and clears away what is left of them.
    pub(super) async fn give_up(&self, records: &[(Txid, u64)]) -> Result<u64> {
        if records.is_empty() {
            return Ok(0);
        }
        let steps: Vec<_> = records
            .iter()
            .map(|(txid, attempt)| head_step(*txid, *attempt, Phase::Aborted))
            .collect();
        self.step(&steps).await?;
        fail_point("pending.given-up");
        Ok(self.clear_away(records).await?.0)
    }

    /// Gives up what the call itself has begun, and clears away all that it has done for it, also since another one
    /// has cleared the record away.
    async fn give_up_own(&self, pending: &[Pending<'_>]) -> Result<()> {
        if pending.is_empty() {
            return Ok(());
        }
        let records: Vec<_> = pending.iter().map(Pending::name).collect();
        let steps: Vec<_> = pending.iter().map(|p| p.step(Phase::Aborted)).collect();
        self.step(&steps).await?;
        fail_point("pending.given-up");
        let (_, missed) = self.clear_away(&records).await?;
        let mut marks = Vec::new();
        let template = template(&SpendOptions::at(0));
        for pending in pending.iter().filter(|p| missed.contains(&p.name())) {
            let tx = &pending.new.tx;
            marks.extend(claims(tx.txid, &tx.inputs, pending.attempt, &template));
        }
        self.unmark(&marks).await
    }

    /// Clears away records that were given up: says how many, and which of them were not there. Their marks
    /// mean nothing any more, and go first.
    async fn clear_away(&self, records: &[(Txid, u64)]) -> Result<(u64, HashSet<(Txid, u64)>)> {
        let mut missed: HashSet<_> = records.iter().copied().collect();
        let heads: Vec<_> = records
            .iter()
            .map(|(txid, _)| CellKey::head(*txid))
            .collect();
        let (mut marks, mut writes) = (Vec::new(), Vec::new());
        let template = template(&SpendOptions::at(0));
        for ((txid, attempt), cell) in records.iter().zip(self.read(&heads).await?) {
            let Some(cell) = cell else {
                continue;
            };
            let Some(Body::Page(page)) = &cell.body else {
                continue;
            };
            if page.phase != Phase::Aborted || page.attempt != *attempt {
                continue;
            }
            missed.remove(&(*txid, *attempt));
            if let Some(head) = &page.head {
                let head = self.stored(head).await?;
                let head = codec::unpack_head(self.backend(), *txid, &head)?;
                marks.extend(claims(*txid, &head.record.inputs, *attempt, &template));
            }
            writes.push(Write {
                key: CellKey::head(*txid),
                expect: Some(cell.stamp),
                cell: None,
            });
        }
        self.unmark(&marks).await?;
        let done = self.write(&writes).await?;
        Ok((done.iter().filter(|done| **done).count() as u64, missed))
    }
}

#[cfg(test)]
mod tests {
    use groundtackle_chain::Transaction;

    use super::*;

    fn tx(tag: u8, inputs: &[(u8, u32)]) -> NewTransaction {
        let inputs = inputs.iter();
        let txid = |tag| Txid::from_bytes([tag; 32]);
        Transaction {
            txid: txid(tag),
            inputs: inputs
                .map(|(tag, vout)| OutPoint::new(txid(*tag), *vout))
                .collect(),
            outputs: Vec::new(),
            lock_time: 0,
            size_bytes: 0,
            coinbase: false,
        }
        .into()
    }

    #[test]
    fn what_shares_nothing_goes_together() {
        let independent = [tx(1, &[(9, 0)]), tx(2, &[(9, 1)]), tx(3, &[(8, 0)])];
        assert_eq!(waves(&independent), [vec![0, 1, 2]]);
        // A child, a rival, a repetition, and a parent that comes after its child.
        let family = [
            tx(1, &[(9, 0)]),
            tx(2, &[(1, 0)]),
            tx(3, &[(9, 0)]),
            tx(1, &[(9, 0)]),
            tx(5, &[(6, 0)]),
            tx(6, &[(9, 2)]),
        ];
        assert_eq!(waves(&family), [vec![0, 4], vec![1, 2, 5], vec![3]]);
    }
}
