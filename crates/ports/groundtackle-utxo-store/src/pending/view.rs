//! What a call has read, and what it holds.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use groundtackle_chain::{OutPoint, TxOut, Txid};

use super::cells::{Body, Cell, CellKey, Mark, Next, Page, Phase, Slot, Stored};
use super::codec::{self, Head};
use super::intent::{Contents, Intent};
use super::{page_of, random};
use crate::digest::MuHash3072;
use crate::draft::{BlockUndo, Loaded, Reads, TxidHash, TxidMap};
use crate::error::Result;
use crate::types::{Record, RecordOutput, Tip};

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
pub(super) struct Seen {
    pub(super) cell: Option<Cell>,
    pub(super) round: u32,
}

/// A call's own intent, as it was written last.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) stamp: u64,
    pub(super) intent: Intent,
    pub(super) contents: Contents,
}

/// What a call has read, and what it holds.
#[derive(Debug)]
pub(super) struct View {
    pub(super) id: u64,
    pub(super) mode: Mode,
    pub(super) cells: HashMap<CellKey, Seen, TxidHash>,
    pub(super) heads: TxidMap<Head>,
    pub(super) values: HashMap<u64, Vec<u8>>,
    pub(super) round: u32,
    /// What the answer builds on.
    pub(super) relied: BTreeSet<CellKey>,
    /// Records by which marks would hold, and don't.
    pub(super) unheld: BTreeSet<CellKey>,
    pub(super) held: BTreeSet<CellKey>,
    pub(super) intent: Option<Own>,
    pub(super) named: BTreeSet<CellKey>,
    /// Whether the call keeps what it holds while others are in its way: who meets it lets go.
    pub(super) precedence: bool,
    pub(super) stale_before: bool,
    /// When others were last shown that the call goes on.
    pub(super) shown: Instant,
}

pub(super) fn page(cell: &Cell) -> Option<&Page> {
    match &cell.body {
        Some(Body::Page(page)) => Some(page),
        _ => None,
    }
}

/// A locked cell as it is once its change is carried out, by the stamp that it has until then.
pub(super) fn as_applied(cell: Cell) -> Option<Cell> {
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

pub(super) fn is_locked(cell: Option<&Cell>, but_by: u64) -> bool {
    let lock = cell.and_then(|cell| cell.lock.as_ref());
    lock.is_some_and(|lock| lock.intent != but_by)
}

impl View {
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            id: random(),
            mode,
            cells: HashMap::default(),
            heads: TxidMap::default(),
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
    pub(super) fn begin_anew(&mut self) {
        self.id = random();
        self.intent = None;
        self.named.clear();
    }

    pub(super) fn cell(&self, key: CellKey) -> Option<&Cell> {
        self.cells.get(&key)?.cell.as_ref()
    }

    pub(super) fn stamp(&self, key: CellKey) -> Option<u64> {
        self.cell(key).map(|cell| cell.stamp)
    }

    pub(super) fn forget(&mut self, key: CellKey) {
        self.cells.remove(&key);
        if let CellKey::Page { txid, page: 0 } = key {
            self.heads.remove(&txid);
        }
    }

    pub(super) fn put(&mut self, key: CellKey, cell: Option<Cell>) {
        self.forget(key);
        let round = self.round;
        self.cells.insert(key, Seen { cell, round });
    }

    /// Page 0 of a record that is there.
    pub(super) fn live(&self, txid: Txid) -> Option<&Page> {
        let page = page(self.cell(CellKey::head(txid))?)?;
        (page.phase == Phase::Live && page.head.is_some()).then_some(page)
    }

    /// A page of a record that is there.
    pub(super) fn page(&self, txid: Txid, number: u32) -> Option<&Page> {
        let head = self.live(txid)?;
        let found = page(self.cell(CellKey::Page { txid, page: number })?)?;
        (found.attempt == head.attempt).then_some(found)
    }

    pub(super) fn head(&self, txid: Txid) -> Option<&Head> {
        self.live(txid)?;
        self.heads.get(&txid)
    }

    pub(super) fn value<'a>(&'a self, stored: &'a Stored) -> Option<&'a [u8]> {
        match stored {
            Stored::Here(bytes) => Some(bytes),
            Stored::Apart { id, .. } => self.values.get(id).map(Vec::as_slice),
        }
    }

    /// Whether a record is confirmed, if there is one.
    pub(super) fn is_confirmed(&self, txid: Txid) -> Option<bool> {
        self.live(txid).map(|page| page.guard.height.is_some())
    }

    pub(super) fn holds(&self, mark: &Mark) -> bool {
        mark.attempt == 0
            || self
                .live(mark.by.txid)
                .is_some_and(|page| page.attempt == mark.attempt)
    }

    pub(super) fn output(&self, vout: u32, slot: &Slot) -> Option<RecordOutput> {
        Some(RecordOutput {
            vout,
            output: TxOut {
                value_sat: slot.value_sat,
                script: self.value(&slot.script)?.into(),
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
    pub(super) fn slots<'a>(
        &'a self,
        reads: &'a Reads,
    ) -> impl Iterator<Item = (CellKey, &'a Slot)> {
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
    pub(super) fn missing(
        &mut self,
        reads: &Reads,
        chain: bool,
    ) -> (Vec<CellKey>, Vec<(CellKey, Stored)>) {
        let mut keys: Vec<CellKey> = reads.records.iter().copied().map(CellKey::head).collect();
        // Page 0 is there with its record.
        let pages = reads.slots.iter().map(|outpoint| CellKey::Page {
            txid: outpoint.txid,
            page: page_of(outpoint.vout),
        });
        keys.extend(pages.filter(|key| !matches!(key, CellKey::Page { page: 0, .. })));
        keys.extend(reads.undo.iter().copied().map(CellKey::Undo));
        keys.extend(chain.then_some(CellKey::Chain));
        for txid in &reads.outputs {
            let pages = self.head(*txid).into_iter().flat_map(|head| &head.pages);
            keys.extend(pages.map(|number| CellKey::Page {
                txid: *txid,
                page: *number,
            }));
        }
        keys.sort_unstable();
        keys.dedup();
        let mut values = Vec::new();
        let mut want = |key, stored| {
            if self.value(stored).is_none() {
                values.push((key, stored.clone()));
            }
        };
        for key in &keys {
            match self.cell(*key).and_then(|cell| cell.body.as_ref()) {
                Some(Body::Page(page)) => page.head.iter().for_each(|head| want(*key, head)),
                Some(Body::Bytes { bytes, .. }) => want(*key, bytes),
                None => {}
            }
        }
        let mut spenders = BTreeSet::new();
        for (key, slot) in self.slots(reads) {
            want(key, &slot.script);
            let Some(mark) = slot.mark.filter(|mark| mark.attempt != 0) else {
                continue;
            };
            let spender = CellKey::head(mark.by.txid);
            // A record that was read before the mark says nothing about it, unless it is looked at again.
            let read = |key| self.cells.get(&key).map(|seen: &Seen| seen.round);
            if keys.binary_search(&spender).is_err() && read(spender) <= read(key) {
                spenders.insert(spender);
            }
        }
        if self.mode == Mode::Change {
            self.relied.extend(&keys);
        }
        keys.retain(|key| !self.cells.contains_key(key));
        keys.extend(spenders);
        (keys, values)
    }

    /// Decodes heads whose bytes are there.
    pub(super) fn decode(&mut self, backend: &'static str) -> Result<()> {
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

    pub(super) fn loaded(&self, backend: &'static str, reads: &Reads) -> Result<Loaded> {
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

    pub(super) fn bytes(&self, key: CellKey) -> Option<&[u8]> {
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
    pub(super) fn torn(&self, reads: &Reads) -> BTreeSet<CellKey> {
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
    pub(super) fn note_unheld(&mut self, reads: &Reads) -> BTreeSet<CellKey> {
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
