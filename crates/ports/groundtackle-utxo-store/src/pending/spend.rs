//! Spending and creating without reading anything first.

use std::collections::{HashMap, HashSet};

use groundtackle_chain::{OutPoint, Txid};
use groundtackle_core::fail_point;

use super::cells::{Body, Cell, CellKey, Cells, Claim, Mark, Page, Phase, Step, Write};
use super::engine::{Aside, Kind, apart, cut};
use super::intent::Patience;
use super::{PendingUtxoStore, codec, page_of, random};
use crate::draft::{Reads, ops};
use crate::error::Result;
use crate::types::{Applied, NewTransaction, Record, SpendOptions, SpentBy};
use crate::verdict::Outcome;

/// Transactions whose order does not matter, by where they are in the call.
type Wave = Vec<usize>;

/// Cuts a call so that each transaction comes after those before it with which it shares anything.
fn waves(transactions: &[NewTransaction]) -> Vec<Wave> {
    let mut waves: Vec<Wave> = Vec::new();
    let mut made: HashMap<Txid, usize> = HashMap::new();
    let mut wanted: HashMap<OutPoint, usize> = HashMap::new();
    let mut named: HashMap<Txid, usize> = HashMap::new();
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

fn head_step(txid: Txid, attempt: u64, to: Phase) -> Step {
    Step {
        txid,
        page: 0,
        attempt,
        to,
    }
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
    /// Its pages, the head first.
    writes: Vec<Write>,
    aside: Aside,
    good: bool,
}

impl<C: Cells> PendingUtxoStore<C> {
    pub(super) async fn spend_and_create_all(
        &self,
        transactions: &[NewTransaction],
        options: &SpendOptions,
    ) -> Result<Vec<Outcome<Applied>>> {
        self.check_items(transactions.len())?;
        let mut outcomes: Vec<Option<Outcome<Applied>>> = vec![None; transactions.len()];
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
            let kind = Kind {
                action: "spend and create",
                chain: false,
            };
            let judged = self
                .call(kind, &refused, reads, |draft, (_, new)| {
                    ops::spend_and_create(draft, new, options)
                })
                .await?;
            for ((at, _), judged) in refused.iter().zip(judged) {
                if let Some(outcome) = outcomes.get_mut(*at) {
                    *outcome = Some(judged);
                }
            }
        }
        let complete: Option<Vec<_>> = outcomes.into_iter().collect();
        complete.ok_or_else(|| self.corrupt("an answer", "an item has none"))
    }

    /// Draws a transaction up as pending pages, page 0 first.
    fn draw_up<'a>(
        &self,
        at: usize,
        new: &'a NewTransaction,
        options: &SpendOptions,
    ) -> Pending<'a> {
        let record = Record {
            fee_sat: new.fee_sat,
            unmined_since: Some(options.height),
            locked: options.lock,
            ..ops::new_record(self.config.unspendable, &new.tx)
        };
        let attempt = random();
        let mut aside = Aside::default();
        let pages = cut(&record, attempt, Phase::Pending, &mut aside, |_| None);
        let writes = pages.into_iter().map(|(page, content)| Write {
            key: CellKey::Page {
                txid: new.tx.txid,
                page,
            },
            expect: None,
            cell: Some(Cell {
                stamp: random(),
                lock: None,
                body: Some(Body::Page(content)),
            }),
        });
        Pending {
            at,
            new,
            attempt,
            writes: writes.collect(),
            aside,
            good: true,
        }
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
                .map(|(at, new)| self.draw_up(*at, new, options))
                .collect();
            rest.clear();
            tried.extend(drawn.iter().map(|p| (p.new.tx.txid, p.attempt)));
            let heads: Vec<_> = drawn.iter().filter_map(|p| p.writes.first()).collect();
            let heads: Vec<_> = heads.into_iter().cloned().collect();
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
        for (id, value) in begun.iter().flat_map(|pending| &pending.aside.0) {
            self.write_parts(*id, value).await?;
        }
        let pages = begun.iter().enumerate().flat_map(|(of, pending)| {
            let pages = pending.writes.iter().skip(1);
            pages.map(move |write| (of, write.clone()))
        });
        let pages: Vec<_> = pages.collect();
        for pages in pages.chunks(64) {
            let writes: Vec<_> = pages.iter().map(|(_, write)| write.clone()).collect();
            let written = self.write(&writes).await?;
            for ((of, _), written) in pages.iter().zip(written) {
                if let Some(pending) = begun.get_mut(*of) {
                    pending.good &= written;
                }
            }
        }
        let mut wanted = Vec::new();
        let mut of = Vec::new();
        for (n, pending) in begun.iter().enumerate().filter(|(_, p)| p.good) {
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
        let steps: Vec<_> = good
            .iter()
            .map(|p| head_step(p.new.tx.txid, p.attempt, Phase::Live))
            .collect();
        let mut failed: Vec<_> = bad;
        let mut more = Vec::new();
        for (pending, live) in good.into_iter().zip(self.step(&steps).await?) {
            if !live {
                failed.push(pending);
                continue;
            }
            if let Some(granted) = granted.get_mut(pending.at) {
                *granted = true;
            }
            let live = head_step(pending.new.tx.txid, pending.attempt, Phase::Live);
            more.extend(pending.writes.iter().filter_map(|write| match write.key {
                CellKey::Page {
                    page: page @ 1.., ..
                } => Some(Step { page, ..live }),
                _ => None,
            }));
        }
        // Where a page comes late, calls that are judged take the record's word for it.
        self.step(&more).await?;
        fail_point("pending.live");
        self.give_up_own(&failed).await?;
        Ok(granted)
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
        let name = |pending: &Pending<'_>| (pending.new.tx.txid, pending.attempt);
        let records: Vec<_> = pending.iter().map(name).collect();
        let steps = records.iter();
        let steps: Vec<_> = steps
            .map(|(txid, attempt)| head_step(*txid, *attempt, Phase::Aborted))
            .collect();
        self.step(&steps).await?;
        fail_point("pending.given-up");
        let (_, missed) = self.clear_away(&records).await?;
        let (mut marks, mut pages) = (Vec::new(), Vec::new());
        let template = template(&SpendOptions::at(0));
        for pending in pending.iter().filter(|p| missed.contains(&name(p))) {
            let tx = &pending.new.tx;
            marks.extend(claims(tx.txid, &tx.inputs, pending.attempt, &template));
            let others = pending.writes.iter().skip(1);
            pages.extend(others.map(|write| (write.key, pending.attempt)));
        }
        if !marks.is_empty() {
            self.unmark(&marks).await?;
        }
        self.delete_pages(&pages).await
    }

    /// Clears away records that were given up: says how many, and which of them were not there. Their marks
    /// mean nothing any more, and go first.
    async fn clear_away(&self, records: &[(Txid, u64)]) -> Result<(u64, HashSet<(Txid, u64)>)> {
        let mut missed: HashSet<_> = records.iter().copied().collect();
        let heads: Vec<_> = records
            .iter()
            .map(|(txid, _)| CellKey::head(*txid))
            .collect();
        let (mut marks, mut pages, mut gone) = (Vec::new(), Vec::new(), Vec::new());
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
            if let Some(bytes) = self.head_bytes(page).await? {
                let head = codec::unpack_head(self.backend(), *txid, &bytes)?;
                marks.extend(claims(*txid, &head.record.inputs, *attempt, &template));
                let page = |page| CellKey::Page { txid: *txid, page };
                pages.extend(
                    head.pages
                        .into_iter()
                        .map(|number| (page(number), *attempt)),
                );
            }
            gone.push((CellKey::head(*txid), cell));
        }
        self.unmark(&marks).await?;
        self.delete_pages(&pages).await?;
        let parts: Vec<_> = gone
            .iter()
            .filter_map(|(_, cell)| cell.body.as_ref())
            .flat_map(apart)
            .collect();
        self.delete_parts(&parts).await?;
        let writes: Vec<_> = gone
            .into_iter()
            .map(|(key, cell)| Write {
                key,
                expect: Some(cell.stamp),
                cell: None,
            })
            .collect();
        let done = self.write(&writes).await?;
        Ok((done.iter().filter(|done| **done).count() as u64, missed))
    }

    /// `None`: its parts were never written.
    async fn head_bytes(&self, page: &Page) -> Result<Option<Vec<u8>>> {
        match &page.head {
            None => Ok(None),
            Some(head) => self.stored_if_whole(head).await,
        }
    }

    /// Deletes pages of an attempt that came to nothing, with what they name.
    pub(super) async fn delete_pages(&self, pages: &[(CellKey, u64)]) -> Result<()> {
        for pages in pages.chunks(64) {
            let keys: Vec<_> = pages.iter().map(|(key, _)| *key).collect();
            let (mut writes, mut parts) = (Vec::new(), Vec::new());
            for ((key, attempt), cell) in pages.iter().zip(self.read(&keys).await?) {
                let Some(cell) = cell else {
                    continue;
                };
                let of_attempt =
                    |body: &&Body| matches!(body, Body::Page(page) if page.attempt == *attempt);
                // Who has locked it sees to it.
                let open = cell.body.as_ref().filter(|_| cell.lock.is_none());
                if let Some(body) = open.filter(of_attempt) {
                    parts.extend(apart(body));
                    writes.push(Write {
                        key: *key,
                        expect: Some(cell.stamp),
                        cell: None,
                    });
                }
            }
            self.delete_parts(&parts).await?;
            self.write(&writes).await?;
        }
        Ok(())
    }

    /// Deals with a record that is not there yet, or no more: waits, and then gives it up.
    pub(super) async fn resolve_pending(
        &self,
        txid: Txid,
        page: &Page,
        patience: &mut Patience,
    ) -> Result<()> {
        if patience.wait(CellKey::head(txid), page.attempt).await {
            return Ok(());
        }
        tracing::debug!("gives up what another one has left pending");
        self.give_up(&[(txid, page.attempt)]).await.map(drop)
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
