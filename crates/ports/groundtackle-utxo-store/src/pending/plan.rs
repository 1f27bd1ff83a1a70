//! What a call is going to change, drawn up as changes to cells.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use groundtackle_chain::{OutPoint, Txid};

use super::cells::{Body, CellKey, Guard, Mark, Next, Page, Phase, Slot, Stored};
use super::codec::{self, Head};
use super::view::View;
use super::{PART_BYTES, SCRIPT_BYTES, page_of, random};
use crate::draft::{Changes, Reads};
use crate::error::{Error, Result};
use crate::types::{Record, RecordOutput};

/// Puts values that are too long for a cell aside.
#[derive(Debug, Default)]
pub(super) struct Aside(pub(super) Vec<(u64, Vec<u8>)>);

impl Aside {
    pub(super) fn store(&mut self, bytes: Vec<u8>, most: usize) -> Stored {
        if bytes.len() <= most {
            return Stored::Here(bytes);
        }
        let (id, len) = (random(), bytes.len() as u64);
        self.0.push((id, bytes));
        Stored::Apart { id, len }
    }

    pub(super) fn names(&self) -> Vec<(u64, u64)> {
        let names = self.0.iter().map(|(id, bytes)| (*id, bytes.len() as u64));
        names.collect()
    }
}

fn guard_of(head: &Record, page: u32) -> Guard {
    Guard {
        coinbase: head.coinbase,
        locked: head.locked,
        conflicting: head.conflicting,
        height: head
            .confirmed_height()
            .filter(|_| page == 0 || head.coinbase),
    }
}

/// A record cut into pages.
pub(super) fn cut(
    record: &Record,
    attempt: u64,
    phase: Phase,
    aside: &mut Aside,
    mark_of: impl Fn(&RecordOutput) -> Option<Mark>,
) -> BTreeMap<u32, Page> {
    let new_page = |number| Page {
        attempt,
        phase,
        guard: guard_of(record, number),
        unmined_since: record.unmined_since.filter(|_| number == 0),
        head: None,
        slots: BTreeMap::new(),
    };
    let mut pages = BTreeMap::from([(0, new_page(0))]);
    for outputs in record
        .outputs
        .chunk_by(|a, b| page_of(a.vout) == page_of(b.vout))
    {
        let scripts: usize = outputs
            .iter()
            .map(|o| o.output.script.as_bytes().len())
            .sum();
        let most = if scripts > PART_BYTES {
            SCRIPT_BYTES
        } else {
            PART_BYTES
        };
        for output in outputs {
            let number = page_of(output.vout);
            let script = output.output.script.as_bytes().to_vec();
            let slot = Slot {
                value_sat: output.output.value_sat,
                script: aside.store(script, most),
                mark: mark_of(output),
                frozen: output.frozen,
                spendable_from: output.spendable_from,
            };
            let page = pages.entry(number).or_insert_with(|| new_page(number));
            page.slots.insert(output.vout, slot);
        }
    }
    let head = Head {
        record: Record {
            outputs: Vec::new(),
            ..record.clone()
        },
        pages: pages.keys().copied().filter(|number| *number > 0).collect(),
    };
    if let Some(first) = pages.get_mut(&0) {
        first.head = Some(aside.store(codec::pack_head(&head), PART_BYTES));
    }
    pages
}

/// The values in parts that a cell's content names.
pub(super) fn apart(body: &Body) -> Vec<(u64, u64)> {
    match body {
        Body::Bytes { bytes, .. } => parts_of(bytes).into_iter().collect(),
        Body::Page(page) => {
            let scripts = page.slots.values().map(|slot| &slot.script);
            page.head
                .iter()
                .chain(scripts)
                .filter_map(parts_of)
                .collect()
        }
    }
}

pub(super) const fn parts_of(stored: &Stored) -> Option<(u64, u64)> {
    match stored {
        Stored::Here(_) => None,
        Stored::Apart { id, len } => Some((*id, *len)),
    }
}

/// What a call is going to change.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) writes: BTreeMap<CellKey, Next>,
    pub(super) aside: Aside,
    pub(super) old: Vec<(u64, u64)>,
}

/// Draws the changes up as changes to cells; `Err`: what has to be read first.
pub(super) fn plan(
    view: &View,
    backend: &'static str,
    changes: &Changes,
) -> Result<Result<Plan, Reads>> {
    let mut more = Reads::new();
    let mut aside = Aside::default();
    let mut writes: BTreeMap<CellKey, Next> = BTreeMap::new();
    let mut pages: BTreeMap<(Txid, u32), Page> = BTreeMap::new();
    let mut attempts: HashMap<Txid, u64> = HashMap::new();
    for record in &changes.inserted {
        attempts.insert(record.txid, random());
    }
    let attempt_of = |txid: &Txid| {
        let live = || view.live(*txid).map(|page| page.attempt);
        // A spender without a record has been pruned.
        attempts.get(txid).copied().or_else(live).unwrap_or(0)
    };
    let all_pages = |txid: Txid| {
        let pages = view.head(txid).into_iter().flat_map(|head| &head.pages);
        std::iter::once(0).chain(pages.copied())
    };
    for txid in &changes.deleted {
        for page in all_pages(*txid) {
            let key = CellKey::Page { txid: *txid, page };
            if view.cells.contains_key(&key) {
                writes.insert(key, Next::Delete);
            } else {
                more.whole(*txid);
            }
        }
    }
    for record in &changes.inserted {
        let mark_of = |output: &RecordOutput| {
            output.spent_by.map(|by| Mark {
                by,
                attempt: attempt_of(&by.txid),
            })
        };
        let attempt = attempt_of(&record.txid);
        for (number, page) in cut(record, attempt, Phase::Live, &mut aside, mark_of) {
            pages.insert((record.txid, number), page);
        }
    }
    for head in &changes.heads {
        let txid = head.txid;
        let Some(old) = view.head(txid) else {
            return Err(Error::corrupt(backend, "a record", "it has no head"));
        };
        let guard = |record: &Record| guard_of(record, 1);
        let numbers: Vec<u32> = match guard(&old.record) == guard(head) {
            true => vec![0],
            false => all_pages(txid).collect(),
        };
        for number in numbers {
            let Some(page) = view.page(txid, number) else {
                more.whole(txid);
                continue;
            };
            let mut page = page.clone();
            page.guard = guard_of(head, number);
            if number == 0 {
                let new = Head {
                    record: Record {
                        inputs: old.record.inputs.clone(),
                        ..head.clone()
                    },
                    pages: old.pages.clone(),
                };
                page.head = Some(aside.store(codec::pack_head(&new), PART_BYTES));
                page.unmined_since = head.unmined_since;
            }
            pages.insert((txid, number), page);
        }
    }
    let mut released = BTreeSet::new();
    for (txid, output) in &changes.slots {
        let outpoint = OutPoint::new(*txid, output.vout);
        let number = page_of(output.vout);
        let (Some(before), Some(stored)) = (view.slot(outpoint), view.page(*txid, number)) else {
            more.slot(outpoint);
            continue;
        };
        let page = pages
            .entry((*txid, number))
            .or_insert_with(|| stored.clone());
        let Some(slot) = page.slots.get_mut(&output.vout) else {
            continue;
        };
        if before.output.script != output.output.script {
            let script = output.output.script.as_bytes().to_vec();
            slot.script = aside.store(script, SCRIPT_BYTES);
        }
        slot.frozen = output.frozen;
        slot.spendable_from = output.spendable_from;
        if before.spent_by != output.spent_by {
            released.extend(before.spent_by.map(|by| by.txid));
            slot.mark = output.spent_by.map(|by| Mark {
                by,
                attempt: attempt_of(&by.txid),
            });
        }
    }
    let mut renewed = HashMap::new();
    // Who gives back begins a new attempt, so that a late mark of the old one means nothing.
    for txid in released {
        let goes = changes.deleted.contains(&txid);
        let Some(before) = view.live(txid).filter(|_| !goes).map(|page| page.attempt) else {
            continue;
        };
        let attempt = random();
        for number in all_pages(txid) {
            match view.page(txid, number) {
                Some(stored) => {
                    let page = pages.entry((txid, number));
                    page.or_insert_with(|| stored.clone()).attempt = attempt;
                }
                None => more.whole(txid),
            }
        }
        renewed.insert(txid, (before, attempt));
    }
    for slot in pages.values_mut().flat_map(|page| page.slots.values_mut()) {
        // One of an attempt before that means nothing, and stays so.
        if let Some(mark) = &mut slot.mark
            && let Some((before, attempt)) = renewed.get(&mark.by.txid)
            && mark.attempt == *before
        {
            mark.attempt = *attempt;
        }
    }
    // What holds without its record is settled.
    for txid in &changes.deleted {
        let (Some(head), Some(live)) = (view.head(*txid), view.live(*txid)) else {
            continue;
        };
        for (vin, outpoint) in (0..).zip(&head.record.inputs) {
            let parent = CellKey::Page {
                txid: outpoint.txid,
                page: page_of(outpoint.vout),
            };
            if writes.get(&parent) == Some(&Next::Delete) {
                continue;
            }
            let read = view.cells.contains_key(&parent)
                && view.cells.contains_key(&CellKey::head(outpoint.txid));
            if !read {
                more.slot(*outpoint);
                continue;
            }
            let place = (outpoint.txid, page_of(outpoint.vout));
            let mine = Mark {
                by: crate::types::SpentBy { txid: *txid, vin },
                attempt: live.attempt,
            };
            let stored = pages.get(&place).or_else(|| view.page(place.0, place.1));
            let held = stored.and_then(|page| page.slots.get(&outpoint.vout)?.mark);
            if held != Some(mine) {
                continue;
            }
            let mut page = stored.cloned();
            if let Some(slot) = page
                .as_mut()
                .and_then(|page| page.slots.get_mut(&outpoint.vout))
            {
                slot.mark = Some(Mark { attempt: 0, ..mine });
            }
            pages.extend(page.map(|page| (place, page)));
        }
    }
    if !more.is_empty() {
        return Ok(Err(more));
    }
    for ((txid, page), mut content) in pages {
        content.phase = Phase::Live;
        writes.insert(CellKey::Page { txid, page }, Next::Put(Body::Page(content)));
    }
    if changes.confirmed_set_changes() {
        let (tip, mut muhash) = view.chain(backend)?;
        changes.apply_coins(&mut muhash);
        let tip = changes.tip.unwrap_or(tip);
        let bytes = Stored::Here(codec::pack_chain(tip.as_ref(), &muhash));
        writes.insert(CellKey::Chain, Next::Put(Body::Bytes { due: None, bytes }));
    }
    if let Some((block, undo)) = &changes.undo {
        let next = match undo {
            Some(undo) => Next::Put(Body::Bytes {
                due: Some(undo.height),
                bytes: aside.store(codec::pack_undo(undo), PART_BYTES),
            }),
            None => Next::Delete,
        };
        writes.insert(CellKey::Undo(*block), next);
    }
    for due in changes.expiring.chunk_by(|a, b| a.0 == b.0) {
        let Some((height, _)) = due.first() else {
            continue;
        };
        let txids: Vec<Txid> = due.iter().map(|(_, txid)| *txid).collect();
        put_due(&mut writes, &mut aside, *height, &txids);
    }
    let mut old = Vec::new();
    for (key, next) in &writes {
        let before = view.cell(*key).and_then(|cell| cell.body.as_ref());
        let kept = match next {
            Next::Put(body) => apart(body),
            Next::Keep | Next::Delete => Vec::new(),
        };
        let before = before.map(apart).unwrap_or_default();
        old.extend(before.into_iter().filter(|name| !kept.contains(name)));
    }
    Ok(Ok(Plan { writes, aside, old }))
}

pub(super) fn put_due(
    writes: &mut BTreeMap<CellKey, Next>,
    aside: &mut Aside,
    height: u32,
    txids: &[Txid],
) {
    let bytes = aside.store(codec::pack_txids(txids), PART_BYTES);
    let body = Body::Bytes {
        due: Some(height),
        bytes,
    };
    let id = random();
    writes.insert(CellKey::Due { height, id }, Next::Put(body));
}
