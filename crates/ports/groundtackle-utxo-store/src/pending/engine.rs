//! Calls that are judged in memory: read, judge, lock, commit, carry out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use groundtackle_chain::{OutPoint, TxOut, Txid};
use groundtackle_core::fail_point;

use super::cells::{
    Body, Cell, CellKey, Cells, Guard, Lock, Mark, Next, Page, Phase, Slot, Stored, Write,
};
use super::codec::{self, Head};
use super::intent::{Contents, Intent, IntentState, Obstacles, Patience, TURNS, applied, turn_of};
use super::{Attempts, CALL_CELLS, PART_BYTES, PendingUtxoStore, SCRIPT_BYTES, page_of, random};
use crate::digest::MuHash3072;
use crate::draft::{BlockUndo, Changes, Draft, Loaded, Reads, Run, Stop, run};
use crate::error::{Error, Result};
use crate::types::{Record, RecordOutput, Tip};
use crate::verdict::Outcome;

/// Rounds of looking for what a call needs; each is a generation of a cascade.
const MOST_ROUNDS: usize = 100_000;

/// How often others may be in a call's way before it fails.
const MOST_ATTEMPTS: u32 = 200;

/// Cells that are locked before others are shown that the call goes on.
const LOCK_STEP: usize = 1_024;

const MOST_PAUSE: Duration = Duration::from_millis(20);

/// How a call treats what others are doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It takes what counts now.
    Look,
    /// It waits for them, since it will build on what it reads.
    Change,
}

/// A cell that was read, and when.
#[derive(Debug)]
struct Seen {
    cell: Option<Cell>,
    round: u32,
}

/// A call's own intent, as it was written last.
#[derive(Debug)]
struct Own {
    stamp: u64,
    intent: Intent,
    contents: Contents,
}

/// What a call has read, and what it holds.
#[derive(Debug)]
pub(super) struct View {
    id: u64,
    mode: Mode,
    cells: HashMap<CellKey, Seen>,
    heads: HashMap<Txid, Head>,
    values: HashMap<u64, Vec<u8>>,
    round: u32,
    /// What the answer builds on.
    relied: BTreeSet<CellKey>,
    /// Records by which marks would hold, and don't.
    unheld: BTreeSet<CellKey>,
    held: BTreeSet<CellKey>,
    intent: Option<Own>,
    named: BTreeSet<CellKey>,
    /// Whether the call keeps what it holds while others are in its way: who meets it lets go.
    precedence: bool,
    stale_before: bool,
    /// When others were last shown that the call goes on.
    shown: Instant,
}

fn page(cell: &Cell) -> Option<&Page> {
    match &cell.body {
        Some(Body::Page(page)) => Some(page),
        _ => None,
    }
}

/// A locked cell as it is once its change is carried out, by the stamp that it has until then.
fn as_applied(cell: Cell) -> Option<Cell> {
    let body = match cell.lock.map(|lock| lock.next) {
        Some(Next::Delete) => None,
        Some(Next::Put(body)) => Some(body),
        Some(Next::Keep) | None => cell.body,
    };
    Some(Cell {
        stamp: cell.stamp,
        lock: None,
        body: Some(body?),
    })
}

fn is_locked(cell: Option<&Cell>, but_by: u64) -> bool {
    let lock = cell.and_then(|cell| cell.lock.as_ref());
    lock.is_some_and(|lock| lock.intent != but_by)
}

impl View {
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            id: random(),
            mode,
            cells: HashMap::new(),
            heads: HashMap::new(),
            values: HashMap::new(),
            round: 0,
            relied: BTreeSet::new(),
            unheld: BTreeSet::new(),
            held: BTreeSet::new(),
            intent: None,
            named: BTreeSet::new(),
            precedence: false,
            stale_before: false,
            shown: Instant::now(),
        }
    }

    /// Another intent, before anything is locked by the one that is dropped.
    fn begin_anew(&mut self) {
        self.id = random();
        self.intent = None;
        self.named.clear();
    }

    fn cell(&self, key: CellKey) -> Option<&Cell> {
        self.cells.get(&key)?.cell.as_ref()
    }

    fn stamp(&self, key: CellKey) -> Option<u64> {
        self.cell(key).map(|cell| cell.stamp)
    }

    fn forget(&mut self, key: CellKey) {
        self.cells.remove(&key);
        if let CellKey::Page { txid, page: 0 } = key {
            self.heads.remove(&txid);
        }
    }

    fn put(&mut self, key: CellKey, cell: Option<Cell>) {
        self.forget(key);
        let round = self.round;
        self.cells.insert(key, Seen { cell, round });
    }

    /// Page 0 of a record that is there.
    fn live(&self, txid: Txid) -> Option<&Page> {
        let page = page(self.cell(CellKey::head(txid))?)?;
        (page.phase == Phase::Live && page.head.is_some()).then_some(page)
    }

    /// A page of a record that is there.
    fn page(&self, txid: Txid, number: u32) -> Option<&Page> {
        let head = self.live(txid)?;
        let found = page(self.cell(CellKey::Page { txid, page: number })?)?;
        (found.attempt == head.attempt).then_some(found)
    }

    pub(super) fn head(&self, txid: Txid) -> Option<&Head> {
        self.live(txid)?;
        self.heads.get(&txid)
    }

    fn value<'a>(&'a self, stored: &'a Stored) -> Option<&'a [u8]> {
        match stored {
            Stored::Here(bytes) => Some(bytes),
            Stored::Apart { id, .. } => self.values.get(id).map(Vec::as_slice),
        }
    }

    /// Whether a record is confirmed, if there is one.
    pub(super) fn is_confirmed(&self, txid: Txid) -> Option<bool> {
        self.live(txid).map(|page| page.guard.height.is_some())
    }

    fn holds(&self, mark: &Mark) -> bool {
        mark.attempt == 0
            || self
                .live(mark.by.txid)
                .is_some_and(|page| page.attempt == mark.attempt)
    }

    fn output(&self, vout: u32, slot: &Slot) -> Option<RecordOutput> {
        Some(RecordOutput {
            vout,
            output: TxOut {
                value_sat: slot.value_sat,
                script: self.value(&slot.script)?.to_vec().into(),
            },
            spent_by: slot
                .mark
                .filter(|mark| self.holds(mark))
                .map(|mark| mark.by),
            frozen: slot.frozen,
            spendable_from: slot.spendable_from,
        })
    }

    pub(super) fn slot(&self, outpoint: OutPoint) -> Option<RecordOutput> {
        let page = self.page(outpoint.txid, page_of(outpoint.vout))?;
        self.output(outpoint.vout, page.slots.get(&outpoint.vout)?)
    }

    /// All outputs of a record whose pages were read.
    pub(super) fn outputs(&self, txid: Txid) -> Vec<RecordOutput> {
        let pages = self.head(txid).into_iter().flat_map(|head| &head.pages);
        std::iter::once(&0)
            .chain(pages)
            .filter_map(|number| self.page(txid, *number))
            .flat_map(|page| &page.slots)
            .filter_map(|(vout, slot)| self.output(*vout, slot))
            .collect()
    }

    /// The slots that are read, each with its place.
    fn slots<'a>(&'a self, reads: &'a Reads) -> impl Iterator<Item = (CellKey, &'a Slot)> {
        let single = reads.slots.iter().filter_map(|outpoint| {
            let (txid, number) = (outpoint.txid, page_of(outpoint.vout));
            let slot = self.page(txid, number)?.slots.get(&outpoint.vout)?;
            Some((CellKey::Page { txid, page: number }, slot))
        });
        let whole = reads.outputs.iter().flat_map(|txid| {
            let pages = self.head(*txid).into_iter().flat_map(|head| &head.pages);
            std::iter::once(0).chain(pages.copied()).flat_map(|number| {
                let key = CellKey::Page {
                    txid: *txid,
                    page: number,
                };
                let page = self.page(*txid, number).into_iter();
                page.flat_map(move |page| page.slots.values().map(move |slot| (key, slot)))
            })
        });
        single.chain(whole)
    }

    /// Cells and values that are still to be read.
    fn missing(
        &mut self,
        reads: &Reads,
        chain: bool,
    ) -> (BTreeSet<CellKey>, Vec<(CellKey, Stored)>) {
        let mut keys: BTreeSet<CellKey> =
            reads.records.iter().copied().map(CellKey::head).collect();
        keys.extend(reads.slots.iter().map(|outpoint| CellKey::Page {
            txid: outpoint.txid,
            page: page_of(outpoint.vout),
        }));
        keys.extend(reads.undo.iter().copied().map(CellKey::Undo));
        keys.extend(chain.then_some(CellKey::Chain));
        for txid in &reads.outputs {
            let pages = self.head(*txid).into_iter().flat_map(|head| &head.pages);
            keys.extend(pages.map(|number| CellKey::Page {
                txid: *txid,
                page: *number,
            }));
        }
        let mut values = Vec::new();
        for key in &keys {
            let stored = match self.cell(*key).and_then(|cell| cell.body.as_ref()) {
                Some(Body::Page(page)) => page.head.as_ref(),
                Some(Body::Bytes { bytes, .. }) => Some(bytes),
                None => None,
            };
            values.extend(stored.map(|stored| (*key, stored)));
        }
        let mut spenders = BTreeSet::new();
        for (key, slot) in self.slots(reads) {
            values.push((key, &slot.script));
            let Some(mark) = slot.mark.filter(|mark| mark.attempt != 0) else {
                continue;
            };
            let spender = CellKey::head(mark.by.txid);
            // A record that was read before the mark says nothing about it, unless it is looked at again.
            let read = |key| self.cells.get(&key).map(|seen: &Seen| seen.round);
            if !keys.contains(&spender) && read(spender) <= read(key) {
                spenders.insert(spender);
            }
        }
        let unread = |stored: &Stored| self.value(stored).is_none();
        let values = values.into_iter().filter(|(_, stored)| unread(stored));
        let values = values.map(|(key, stored)| (key, stored.clone())).collect();
        self.relied.extend(&keys);
        keys.retain(|key| !self.cells.contains_key(key));
        keys.extend(spenders);
        (keys, values)
    }

    /// Decodes heads whose bytes are there.
    fn decode(&mut self, backend: &'static str) -> Result<()> {
        let mut heads = Vec::new();
        for (key, seen) in &self.cells {
            let CellKey::Page { txid, page: 0 } = key else {
                continue;
            };
            let head = seen
                .cell
                .as_ref()
                .and_then(page)
                .and_then(|page| page.head.as_ref());
            if let Some(bytes) = head.and_then(|head| self.value(head))
                && !self.heads.contains_key(txid)
            {
                heads.push((*txid, codec::unpack_head(backend, *txid, bytes)?));
            }
        }
        self.heads.extend(heads);
        Ok(())
    }

    fn loaded(&self, backend: &'static str, reads: &Reads) -> Result<Loaded> {
        let mut loaded = Loaded::new();
        loaded.asked(reads.clone());
        for txid in &reads.records {
            let Some(head) = self.head(*txid) else {
                continue;
            };
            let outputs = match reads.outputs.contains(txid) {
                true => self.outputs(*txid),
                false => Vec::new(),
            };
            loaded.put_record(Record {
                outputs,
                ..head.record.clone()
            });
        }
        for outpoint in &reads.slots {
            if let Some(output) = self.slot(*outpoint) {
                loaded.put_output(outpoint.txid, output);
            }
        }
        for block in &reads.undo {
            if let Some(undo) = self.undo(backend, CellKey::Undo(*block))? {
                loaded.put_undo(*block, undo);
            }
        }
        loaded.set_tip(self.chain(backend)?.0);
        Ok(loaded)
    }

    fn bytes(&self, key: CellKey) -> Option<&[u8]> {
        match self.cell(key)?.body.as_ref()? {
            Body::Bytes { bytes, .. } => self.value(bytes),
            Body::Page(_) => None,
        }
    }

    pub(super) fn undo(&self, backend: &'static str, key: CellKey) -> Result<Option<BlockUndo>> {
        let bytes = self.bytes(key);
        bytes
            .map(|bytes| codec::unpack_undo(backend, bytes))
            .transpose()
    }

    pub(super) fn chain(&self, backend: &'static str) -> Result<(Option<Tip>, MuHash3072)> {
        match self.bytes(CellKey::Chain) {
            Some(bytes) => codec::unpack_chain(backend, bytes),
            None => Ok((None, MuHash3072::new())),
        }
    }

    /// Pages that should be there and are not, or are of another attempt than their heads, with these: one
    /// was read before a change and the other after it.
    fn torn(&self, reads: &Reads) -> BTreeSet<CellKey> {
        let single = reads.slots.iter();
        let single = single.map(|outpoint| (outpoint.txid, page_of(outpoint.vout)));
        let whole = reads.outputs.iter().flat_map(|txid| {
            let pages = self.head(*txid).into_iter().flat_map(|head| &head.pages);
            pages.map(|number| (*txid, *number))
        });
        let torn = |(txid, number): &(Txid, u32)| {
            let named = self
                .head(*txid)
                .is_some_and(|head| head.pages.contains(number));
            named && self.page(*txid, *number).is_none()
        };
        let torn = single.chain(whole).filter(torn);
        torn.flat_map(|(txid, page)| [CellKey::head(txid), CellKey::Page { txid, page }])
            .collect()
    }

    /// The records by which marks would hold that are among what was read, and don't.
    fn note_unheld(&mut self, reads: &Reads) -> BTreeSet<CellKey> {
        let mut pages = BTreeSet::new();
        let mut unheld = BTreeSet::new();
        for (key, slot) in self.slots(reads) {
            if let Some(mark) = slot.mark.filter(|mark| !self.holds(mark)) {
                pages.insert(key);
                unheld.insert(CellKey::head(mark.by.txid));
            }
        }
        self.unheld = unheld;
        pages
    }
}

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

    fn names(&self) -> Vec<(u64, u64)> {
        let names = self.0.iter().map(|(id, bytes)| (*id, bytes.len() as u64));
        names.collect()
    }
}

pub(super) fn guard_of(head: &Record, page: u32) -> Guard {
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

const fn parts_of(stored: &Stored) -> Option<(u64, u64)> {
    match stored {
        Stored::Here(_) => None,
        Stored::Apart { id, len } => Some((*id, *len)),
    }
}

/// What a call is going to change.
#[derive(Debug, Default)]
struct Plan {
    writes: BTreeMap<CellKey, Next>,
    aside: Aside,
    old: Vec<(u64, u64)>,
}

/// Draws the changes up as changes to cells; `Err`: what has to be read first.
fn plan(view: &View, backend: &'static str, changes: &Changes) -> Result<Result<Plan, Reads>> {
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

fn put_due(writes: &mut BTreeMap<CellKey, Next>, aside: &mut Aside, height: u32, txids: &[Txid]) {
    let bytes = aside.store(codec::pack_txids(txids), PART_BYTES);
    let body = Body::Bytes {
        due: Some(height),
        bytes,
    };
    let id = random();
    writes.insert(CellKey::Due { height, id }, Next::Put(body));
}

/// What a call does besides what its draft says.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// Cells that are taken away, which were read.
    pub(super) deleted: Vec<CellKey>,
    /// Transactions to look at in a pruning to a height.
    pub(super) due: Option<(u32, Vec<Txid>)>,
}

/// How getting hold of all that a plan needs ended.
enum Prepared {
    /// Nothing is in the way any more.
    Ready,
    /// Something was not as it was read.
    Again,
    /// Another call is in the way.
    Overtaken,
    /// Whether the intent was written is not known: it is left to whoever finds it.
    Doubtful,
    /// It was one write, and is done.
    Done,
}

/// What a call is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) action: &'static str,
    /// The tip is judged, or the confirmed set may change.
    pub(super) chain: bool,
}

impl<C: Cells> PendingUtxoStore<C> {
    pub(super) fn check_items(&self, items: usize) -> Result<()> {
        let most = self.config.max_batch_items;
        if items > most {
            return Err(Error::invalid_request(format!(
                "the call has {items} items, and one may have {most}; send less at a time, or raise max_batch_items"
            )));
        }
        Ok(())
    }

    /// Reads all that is asked for, and what that leads to. `false`: another call is in the way of one
    /// that holds something itself.
    pub(super) async fn fetch(&self, view: &mut View, reads: &Reads, chain: bool) -> Result<bool> {
        let mut patience = Patience::new(self.config.patience);
        let mut obstacles = Obstacles::default();
        let mut tears = 0;
        loop {
            view.round += 1;
            // Two that wait for each other don't go on.
            let goes_on = obstacles.is_empty();
            obstacles = Obstacles::default();
            if goes_on && !self.show_progress(view).await? {
                return Ok(false);
            }
            let (keys, values) = view.missing(reads, chain);
            for (key, stored) in &values {
                let Stored::Apart { id, .. } = stored else {
                    continue;
                };
                match self.stored(stored).await {
                    Ok(value) => drop(view.values.insert(*id, value)),
                    Err(error) => {
                        // Its cell may have been given another one since.
                        let now = self.read(&[*key]).await?.pop().flatten();
                        if now.as_ref().map(|cell| cell.stamp) == view.stamp(*key) {
                            return Err(error);
                        }
                        view.forget(*key);
                    }
                }
            }
            let keys: Vec<_> = keys.into_iter().collect();
            let cells = match view.mode {
                Mode::Look => self.read_as_committed(&keys).await?,
                Mode::Change => self.read(&keys).await?,
            };
            let lets_go = !view.held.is_empty() && !view.precedence;
            for (key, cell) in keys.iter().zip(cells) {
                if view.mode == Mode::Change
                    && let Some(cell) = &cell
                {
                    if let Some(lock) = cell.lock.as_ref().filter(|lock| lock.intent != view.id) {
                        // Two who wait for each other would wait for long.
                        if lets_go {
                            return Ok(false);
                        }
                        let locked = obstacles.intents.entry(lock.intent).or_default();
                        locked.push(*key);
                        view.forget(*key);
                        continue;
                    }
                    if let (CellKey::Page { txid, page: 0 }, Some(page)) = (*key, page(cell))
                        && page.phase != Phase::Live
                    {
                        obstacles.pending.push((txid, page.attempt));
                        view.forget(*key);
                        continue;
                    }
                }
                view.put(*key, cell);
            }
            view.decode(self.backend())?;
            if !obstacles.is_empty() {
                self.get_past(&obstacles, &mut patience).await?;
            }
            if !keys.is_empty() || !values.is_empty() {
                continue;
            }
            let torn = view.torn(reads);
            let mut pages = view.note_unheld(reads);
            if view.mode == Mode::Change {
                if torn.is_empty() {
                    return Ok(true);
                }
                // One was read before a change, and the other after it.
                tears += 1;
                if tears > MOST_ATTEMPTS {
                    return Err(
                        self.corrupt("a record", "a page of it is missing, or is not its own")
                    );
                }
                torn.into_iter().for_each(|key| view.forget(key));
                continue;
            }
            pages.extend(torn);
            if pages.is_empty() {
                return Ok(true);
            }
            // Records first, and then the pages: while a mark is not settled, its record says whether it
            // holds.
            let mut changed = false;
            for keys in [view.unheld.clone(), pages] {
                let keys: Vec<_> = keys.into_iter().collect();
                for (key, cell) in keys.iter().zip(self.read_as_committed(&keys).await?) {
                    if cell.as_ref() != view.cell(*key) {
                        changed = true;
                        view.put(*key, cell);
                    }
                }
            }
            if !changed {
                return Ok(true);
            }
            view.decode(self.backend())?;
        }
    }

    /// Reads cells as they count now: those that a committed change has locked as they become.
    pub(super) async fn read_as_committed(&self, keys: &[CellKey]) -> Result<Vec<Option<Cell>>> {
        let mut cells = self.read(keys).await?;
        let mut unsure: Vec<usize> = (0..cells.len()).collect();
        for _ in 0..MOST_ATTEMPTS {
            let lock = |at: &usize| {
                let cell = cells.get(*at)?.as_ref()?;
                Some((*at, cell.lock.as_ref()?.intent, cell.stamp))
            };
            let locked: Vec<_> = unsure.iter().filter_map(lock).collect();
            if locked.is_empty() {
                break;
            }
            let ids: BTreeSet<u64> = locked.iter().map(|(_, id, _)| *id).collect();
            let mut states = HashMap::new();
            for id in ids {
                let intent = self.intent(id).await?;
                states.insert(id, intent.map(|(_, intent)| intent.state));
            }
            // What is committed may be another plan than the one that was seen; what is gone was carried out or
            // undone since, or its lock came late, and means nothing.
            let open = |(_, id, _): &(usize, u64, u64)| {
                let state = states.get(id).copied().flatten();
                !matches!(state, Some(IntentState::Preparing | IntentState::Aborted))
            };
            let again: Vec<_> = locked.into_iter().filter(open).collect();
            let names: Vec<_> = again
                .iter()
                .filter_map(|(at, ..)| keys.get(*at))
                .copied()
                .collect();
            unsure.clear();
            for ((at, id, stamp), now) in again.into_iter().zip(self.read(&names).await?) {
                let same = now.as_ref().map(|cell| cell.stamp) == Some(stamp);
                let committed = states.get(&id).copied().flatten().is_some();
                if !same {
                    unsure.push(at);
                }
                if let Some(cell) = cells.get_mut(at) {
                    *cell = match same && committed {
                        true => now.and_then(as_applied),
                        false => now,
                    };
                }
            }
        }
        Ok(cells)
    }

    /// Answers from what is there, without changing anything.
    pub(super) async fn look<I: Sync, T: Send>(
        &self,
        items: &[I],
        mut reads: Reads,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        self.check_items(items.len())?;
        let mut view = View::new(Mode::Look);
        for _ in 0..MOST_ROUNDS {
            self.fetch(&mut view, &reads, false).await?;
            let loaded = view.loaded(self.backend(), &reads)?;
            match run(&loaded, self.config.unspendable, items, &judge) {
                Run::Incomplete(more) => reads.extend(more),
                Run::Done(outcomes, _) => return Ok(outcomes),
            }
        }
        Err(too_deep())
    }

    /// Carries a call out as if no other one ran beside it.
    pub(super) async fn call<I: Sync, T: Send>(
        &self,
        kind: Kind,
        items: &[I],
        reads: Reads,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        self.call_with(kind, items, reads, judge, |_| Ok(Extra::default()))
            .await
    }

    /// The same, with changes to cells that no draft knows.
    pub(super) async fn call_with<I: Sync, T: Send>(
        &self,
        kind: Kind,
        items: &[I],
        mut reads: Reads,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
        extra: impl Fn(&View) -> Result<Extra> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        self.check_items(items.len())?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let _turn = match kind.chain {
            true => self.chain_turn.acquire().await.ok(),
            false => None,
        };
        for attempt in 0..MOST_ATTEMPTS {
            let mut view = View::new(Mode::Change);
            // A change of the set has many cells to lock, and would lose against smaller ones for ever.
            view.precedence = kind.chain;
            let done = self
                .attempt(kind, items, &mut reads, &judge, &extra, &mut view)
                .await;
            match done {
                Ok(Some(outcomes)) => return Ok(outcomes),
                Ok(None) => self.abandon(&view).await?,
                Err(error) => {
                    // So that others need not wait; if this fails too, they will.
                    let _ = self.abandon(&view).await;
                    return Err(error);
                }
            }
            let most = MOST_PAUSE.min(Duration::from_micros(100 << attempt.min(10)));
            let pause = random() % u64::try_from(most.as_micros()).unwrap_or(1).max(1);
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
        Err(Error::overloaded(
            self.backend(),
            format!(
                "{} (others change the same records all the time)",
                kind.action
            ),
        ))
    }

    async fn attempt<I: Sync, T: Send>(
        &self,
        kind: Kind,
        items: &[I],
        reads: &mut Reads,
        judge: &(impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync),
        extra: &(impl Fn(&View) -> Result<Extra> + Send + Sync),
        view: &mut View,
    ) -> Result<Option<Vec<Outcome<T>>>> {
        let mut chain = kind.chain;
        let mut doubts = self.attempts();
        for _ in 0..MOST_ROUNDS {
            if !self.fetch(view, reads, chain).await? {
                return Ok(None);
            }
            let loaded = view.loaded(self.backend(), reads)?;
            let (outcomes, changes) = match run(&loaded, self.config.unspendable, items, judge) {
                Run::Incomplete(more) => {
                    reads.extend(more);
                    continue;
                }
                Run::Done(outcomes, changes) => (outcomes, changes),
            };
            if changes.confirmed_set_changes() && !chain {
                chain = true;
                continue;
            }
            let mut plan = match plan(view, self.backend(), &changes)? {
                Ok(plan) => plan,
                Err(more) => {
                    reads.extend(more);
                    continue;
                }
            };
            let extra = extra(view)?;
            if let Some((height, txids)) = &extra.due {
                put_due(&mut plan.writes, &mut plan.aside, *height, txids);
            }
            for key in extra.deleted {
                if let Some(body) = view.cell(key).and_then(|cell| cell.body.as_ref()) {
                    plan.old.extend(apart(body));
                    plan.writes.insert(key, Next::Delete);
                }
            }
            match self.prepare(view, &plan, &mut doubts).await? {
                // All that it names is drawn anew too.
                Prepared::Doubtful => view.begin_anew(),
                Prepared::Done => return Ok(Some(outcomes)),
                Prepared::Again => view.stale_before = true,
                Prepared::Overtaken => return Ok(None),
                Prepared::Ready if plan.writes.is_empty() && view.intent.is_none() => {
                    return Ok(Some(outcomes));
                }
                Prepared::Ready => {
                    let committed = self.commit(view).await?;
                    return Ok(committed.then_some(outcomes));
                }
            }
        }
        Err(too_deep())
    }

    /// Looks again at cells that must be as they were read; from then on they are as they are now.
    async fn validate(&self, view: &mut View, keys: &[CellKey]) -> Result<Option<Prepared>> {
        let mut answer = None;
        let mut cells = Vec::with_capacity(keys.len());
        for keys in keys.chunks(CALL_CELLS) {
            cells.extend(self.read(keys).await?);
            if !self.show_progress(view).await? {
                return Ok(Some(Prepared::Overtaken));
            }
        }
        for (key, cell) in keys.iter().zip(cells) {
            if is_locked(cell.as_ref(), view.id) {
                if !view.precedence {
                    return Ok(Some(Prepared::Overtaken));
                }
                // It is waited for when it is read again.
                view.forget(*key);
                answer = Some(Prepared::Again);
                continue;
            }
            if cell.as_ref().map(|cell| cell.stamp) == view.stamp(*key) {
                continue;
            }
            answer = Some(Prepared::Again);
            let page = cell.as_ref().and_then(page);
            if page.is_some_and(|page| page.head.is_some() && page.phase != Phase::Live) {
                // It is waited for when it is read again.
                view.forget(*key);
            } else {
                view.put(*key, cell);
            }
        }
        Ok(answer)
    }

    /// Locks what changes, and makes sure of the rest. What was found changed is read again, while the
    /// locks are kept, so that there is an end to it.
    async fn prepare(
        &self,
        view: &mut View,
        plan: &Plan,
        doubts: &mut Attempts,
    ) -> Result<Prepared> {
        let unlocked: Vec<CellKey> = view
            .relied
            .iter()
            .filter(|key| !plan.writes.contains_key(key))
            .copied()
            .collect();
        let alone = plan.aside.0.is_empty() && plan.old.is_empty() && view.intent.is_none();
        // What is not there is made under an intent: a late write of it would come true again once another
        // one has removed it.
        let there = |(key, _): (&CellKey, _)| view.cell(*key).is_some();
        let alone = alone && plan.writes.first_key_value().is_some_and(there);
        if let (true, true, true, Some((key, next))) = (
            alone,
            unlocked.is_empty() && view.unheld.is_empty(),
            plan.writes.len() == 1,
            plan.writes.first_key_value(),
        ) {
            return self.write_alone(view, *key, next).await;
        }
        if plan.writes.is_empty() && view.intent.is_none() {
            let alone = unlocked.len() + view.unheld.len() <= 1;
            return if alone {
                Ok(Prepared::Ready)
            } else {
                self.validate_all(view, &unlocked).await
            };
        }
        let mut wanted = plan.writes.clone();
        if view.stale_before {
            let kept = unlocked.iter().filter(|key| view.cell(**key).is_some());
            wanted.extend(kept.map(|key| (*key, Next::Keep)));
        }
        for key in &view.held {
            wanted.entry(*key).or_insert(Next::Keep);
        }
        match self.name_cells(view, &wanted, plan, doubts).await? {
            Some(true) => {}
            Some(false) => return Ok(Prepared::Overtaken),
            None => return Ok(Prepared::Doubtful),
        }
        fail_point("pending.intended");
        for (id, value) in &plan.aside.0 {
            self.write_parts(*id, value).await?;
            if !self.show_progress(view).await? {
                return Ok(Prepared::Overtaken);
            }
        }
        let mut writes = Vec::new();
        for (key, next) in wanted {
            let now = view.cell(key);
            let lock = Lock {
                intent: view.id,
                next,
            };
            if now.is_some_and(|cell| cell.lock.as_ref() == Some(&lock)) {
                continue;
            }
            let cell = Cell {
                stamp: random(),
                lock: Some(lock),
                body: now.and_then(|cell| cell.body.clone()),
            };
            writes.push(Write {
                key,
                expect: now.map(|cell| cell.stamp),
                cell: Some(cell),
            });
        }
        let mut done = Vec::with_capacity(writes.len());
        let mut doubtful = false;
        // What is there is locked by its stamp. A lock on what is not there would come true again once
        // another one has removed what this change makes there: it is sent once, or the change begins anew.
        let there = |write: &Write| write.expect.is_some();
        writes.sort_by_key(there);
        for step in writes
            .chunk_by(|a, b| there(a) == there(b))
            .flat_map(|step| step.chunks(LOCK_STEP))
        {
            if step.first().is_some_and(there) {
                done.extend(self.write(step).await?);
            } else {
                for locked in self.write_once(step, doubts).await? {
                    doubtful |= locked.is_none();
                    done.push(locked == Some(true));
                }
            }
            if doubtful || !self.show_progress(view).await? {
                // What was locked since is unlocked with the rest.
                view.held.extend(writes.iter().map(|write| write.key));
                return Ok(Prepared::Overtaken);
            }
        }
        fail_point("pending.locked");
        let mut stale = Vec::new();
        for (write, done) in writes.into_iter().zip(done) {
            if done {
                view.held.insert(write.key);
                // The decoded head still counts: only the lock is new.
                let round = view.round;
                let cell = write.cell;
                view.cells.insert(write.key, Seen { cell, round });
            } else {
                stale.push(write.key);
            }
        }
        if !stale.is_empty() {
            if stale.iter().any(|key| view.held.contains(key)) {
                // Someone took the lock away: the intent was given up.
                return Ok(Prepared::Overtaken);
            }
            return Ok(match self.validate(view, &stale).await? {
                Some(Prepared::Overtaken) => Prepared::Overtaken,
                _ => Prepared::Again,
            });
        }
        let unlocked: Vec<_> = unlocked
            .into_iter()
            .filter(|key| !view.held.contains(key))
            .collect();
        self.validate_all(view, &unlocked).await
    }

    /// First the records without which marks don't hold, and then what has the marks.
    async fn validate_all(&self, view: &mut View, keys: &[CellKey]) -> Result<Prepared> {
        let held = &view.held;
        let unheld = view.unheld.iter().filter(|key| !held.contains(key));
        let unheld: Vec<_> = unheld.copied().collect();
        for keys in [unheld.as_slice(), keys] {
            if keys.is_empty() {
                continue;
            }
            if let Some(prepared) = self.validate(view, keys).await? {
                return Ok(prepared);
            }
        }
        Ok(Prepared::Ready)
    }

    /// A change to one cell, with nothing else to rely on.
    async fn write_alone(&self, view: &mut View, key: CellKey, next: &Next) -> Result<Prepared> {
        let body = match next {
            Next::Put(body) => Some(body.clone()),
            Next::Delete | Next::Keep => None,
        };
        let write = Write {
            key,
            expect: view.stamp(key),
            cell: body.map(|body| Cell {
                stamp: random(),
                lock: None,
                body: Some(body),
            }),
        };
        match self.write_surely(&write).await? {
            Some(true) => return Ok(Prepared::Done),
            Some(false) => {}
            None => return Err(self.overtaken("change a record")),
        }
        let validated = self.validate(view, &[key]).await?;
        Ok(validated.unwrap_or(Prepared::Again))
    }

    /// Writes the intent, or adds cells to it; `false` where it was given up, `None` where it is not known
    /// whether it was written.
    async fn name_cells(
        &self,
        view: &mut View,
        wanted: &BTreeMap<CellKey, Next>,
        plan: &Plan,
        doubts: &mut Attempts,
    ) -> Result<Option<bool>> {
        let all_named = wanted.keys().all(|key| view.named.contains(key));
        let new = plan.aside.names();
        let same = |own: &Own| own.contents.new == new && own.contents.old == plan.old;
        if all_named && view.intent.as_ref().is_some_and(same) {
            return Ok(Some(true));
        }
        view.named.extend(wanted.keys());
        let before = view.intent.take();
        let expect = before.as_ref().map(|own| own.stamp);
        let mut dropped = Vec::new();
        if let Some(Own {
            intent, contents, ..
        }) = before
        {
            dropped.extend(contents.dropped);
            dropped.extend(contents.new);
            dropped.extend(parts_of(&intent.contents));
        }
        let contents = Contents {
            keys: view.named.iter().copied().collect(),
            dropped,
            new,
            old: plan.old.clone(),
        };
        let mut aside = Aside::default();
        let intent = Intent {
            state: IntentState::Preparing,
            contents: aside.store(codec::pack_contents(&contents), PART_BYTES),
        };
        for (id, value) in &aside.0 {
            self.write_parts(*id, value).await?;
        }
        let cell = intent.cell();
        let stamp = cell.stamp;
        let write = Write {
            key: CellKey::Intent(view.id),
            expect,
            cell: Some(cell),
        };
        view.intent = Some(Own {
            stamp,
            intent,
            contents,
        });
        match expect {
            Some(_) => self.write_one(write).await.map(Some),
            None => {
                let written = self.write_once(&[write], doubts).await?;
                Ok(written.first().copied().flatten())
            }
        }
    }

    /// Lets those who wait for this call's locks know that it goes on; `false` where it was given up.
    async fn show_progress(&self, view: &mut View) -> Result<bool> {
        if view.shown.elapsed() < self.config.patience / 4 {
            return Ok(true);
        }
        let Some(own) = &mut view.intent else {
            return Ok(true);
        };
        let cell = own.intent.cell();
        let expect = Some(std::mem::replace(&mut own.stamp, cell.stamp));
        let write = Write {
            key: CellKey::Intent(view.id),
            expect,
            cell: Some(cell),
        };
        let written = self.write_one(write).await?;
        view.shown = Instant::now();
        Ok(written)
    }

    /// Makes the change count, and carries it out. `false`: it was given up by another one.
    async fn commit(&self, view: &mut View) -> Result<bool> {
        let Some(Own {
            stamp,
            mut intent,
            contents,
        }) = view.intent.take()
        else {
            return Ok(false);
        };
        intent.state = IntentState::Committed;
        let write = Write {
            key: CellKey::Intent(view.id),
            expect: Some(stamp),
            cell: Some(intent.cell()),
        };
        if !self.write_commit(view.id, write).await? {
            return Ok(false);
        }
        fail_point("pending.committed");
        let mut all_done = true;
        for turn in TURNS {
            let mut writes = Vec::new();
            for key in &view.held {
                let cell = view.cell(*key);
                if let Some((cell, lock)) = cell.and_then(|cell| Some((cell, cell.lock.as_ref()?)))
                    && turn_of(key, &lock.next) == turn
                {
                    writes.push(applied(*key, cell.clone()));
                }
            }
            all_done &= self.write(&writes).await?.iter().all(|done| *done);
            fail_point("pending.carried-out");
        }
        if all_done {
            self.forget_intent(view.id, &intent, &contents).await?;
        } else {
            // Another one helps.
            self.finish(view.id, &intent).await?;
        }
        Ok(true)
    }

    /// `false`: another one has given the intent up.
    async fn write_commit(&self, id: u64, write: Write) -> Result<bool> {
        if let Some(done) = self.write_surely(&write).await? {
            return Ok(done);
        }
        // It was committed or given up since; another one may be about to finish it.
        match self.intent(id).await? {
            Some((_, intent)) => Ok(intent.state == IntentState::Committed),
            None => Err(self.overtaken("commit a change")),
        }
    }

    /// Takes back what an attempt holds that came to nothing.
    async fn abandon(&self, view: &View) -> Result<()> {
        if view.intent.is_some() || !view.held.is_empty() {
            self.resolve_intent(view.id, None).await?;
            if let Some(own) = &view.intent {
                // Values that were written after another one had given the intent up.
                self.delete_parts(&own.contents.new).await?;
            }
            // Locks that were set after another one had given the intent up.
            let held: Vec<_> = view.held.iter().copied().collect();
            self.unlock(view.id, &held).await?;
        }
        Ok(())
    }
}

fn too_deep() -> Error {
    Error::invalid_request(format!(
        "the cascade is deeper than {MOST_ROUNDS} generations; begin with a descendant"
    ))
}
