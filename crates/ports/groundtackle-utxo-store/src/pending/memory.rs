//! Cells in memory: the specification of cells, and where faults can be put between any two of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use groundtackle_chain::Txid;
use groundtackle_core::Retryability;

use super::cells::{Body, Cell, CellKey, Cells, Claim, DueKind, Mark, Page, Phase, Step, Write};
use super::random;
use crate::error::{Error, Result};
use crate::types::{Health, HealthDepth, UnminedTransaction};

const BACKEND: &str = "memory_cells";
const PARTITIONS: u32 = 4;

/// What happens to one step, the reading or changing of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepFault {
    /// Nothing.
    None,
    /// Other tasks run first.
    Yield,
    /// It is not carried out, and the call fails, not knowing that; what it did before stays.
    NotSent,
    /// The same, and the call knows: its first step refused, it has done nothing.
    Refused,
    /// It is carried out, and the call fails.
    AnswerLost,
}

type Faults = dyn Fn(CellKey) -> StepFault + Send + Sync;

/// Cells that live as long as the process. Clones share them, each with faults of its own.
#[derive(Clone, Default)]
pub struct MemoryCells {
    cells: Arc<Mutex<BTreeMap<CellKey, Cell>>>,
    faults: Option<Arc<Faults>>,
}

impl std::fmt::Debug for MemoryCells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryCells").finish_non_exhaustive()
    }
}

fn failed(retryability: Retryability, what: &'static str) -> Error {
    Error::backend(BACKEND, "a step", retryability, what)
}

fn page(cell: &Cell) -> Option<&Page> {
    match &cell.body {
        Some(Body::Page(page)) => Some(page),
        _ => None,
    }
}

fn live_head(cell: &Cell) -> Option<&Page> {
    page(cell).filter(|page| page.phase == Phase::Live && page.head.is_some())
}

/// The page, if it is not locked, to be changed: the cell gets a new stamp.
fn open_page(cell: Option<&mut Cell>) -> Option<&mut Page> {
    let cell = cell.filter(|cell| cell.lock.is_none())?;
    match &mut cell.body {
        Some(Body::Page(page)) => {
            cell.stamp = random();
            Some(page)
        }
        _ => None,
    }
}

impl MemoryCells {
    /// No cells.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same cells, seen through faults: `faults` is asked before each step.
    #[must_use]
    pub fn with_faults(
        &self,
        faults: impl Fn(CellKey) -> StepFault + Send + Sync + 'static,
    ) -> Self {
        Self {
            cells: self.cells.clone(),
            faults: Some(Arc::new(faults)),
        }
    }

    /// Other cells that hold the same, without faults.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            cells: Arc::new(Mutex::new(self.cells().clone())),
            faults: None,
        }
    }

    /// All cells, for tests of what is left.
    pub fn all(&self) -> Vec<(CellKey, Cell)> {
        let cells = self.cells();
        cells
            .iter()
            .map(|(key, cell)| (*key, cell.clone()))
            .collect()
    }

    fn cells(&self) -> MutexGuard<'_, BTreeMap<CellKey, Cell>> {
        // Each step is whole, so that a panic leaves nothing half-made.
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn each<I: Sync, T: Send>(
        &self,
        items: &[I],
        key: impl Fn(&I) -> CellKey + Send + Sync,
        act: impl Fn(&mut BTreeMap<CellKey, Cell>, CellKey, &I) -> T + Send + Sync,
    ) -> Result<Vec<T>> {
        let mut answers = Vec::with_capacity(items.len());
        for item in items {
            let key = key(item);
            let fault = self.faults.as_ref().map_or(StepFault::None, |f| f(key));
            match fault {
                StepFault::Yield => tokio::task::yield_now().await,
                StepFault::Refused if answers.is_empty() => {
                    return Err(failed(Retryability::Transient, "refused"));
                }
                StepFault::NotSent | StepFault::Refused => {
                    return Err(failed(Retryability::Indeterminate, "not sent"));
                }
                StepFault::None | StepFault::AnswerLost => {}
            }
            answers.push(act(&mut self.cells(), key, item));
            if fault == StepFault::AnswerLost {
                return Err(failed(Retryability::Indeterminate, "the answer was lost"));
            }
        }
        Ok(answers)
    }
}

/// What is said to come in any order does.
fn shuffled(keys: impl Iterator<Item = CellKey>, limit: usize) -> Vec<CellKey> {
    let mut keys: Vec<_> = keys.map(|key| (random(), key)).collect();
    keys.sort_unstable();
    keys.into_iter().take(limit).map(|(_, key)| key).collect()
}

const fn claimed(claim: &Claim) -> CellKey {
    CellKey::Page {
        txid: claim.parent,
        page: claim.page,
    }
}

fn set_mark(cell: Option<&mut Cell>, vout: u32, mark: Option<Mark>) {
    if let Some(slot) = open_page(cell).and_then(|page| page.slots.get_mut(&vout)) {
        slot.mark = mark;
    }
}

#[async_trait]
impl Cells for MemoryCells {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn is_persistent(&self) -> bool {
        false
    }

    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    fn partition_of(&self, txid: &Txid) -> u32 {
        u32::from(txid.as_bytes()[0]) % PARTITIONS
    }

    async fn read(&self, keys: &[CellKey]) -> Result<Vec<Option<Cell>>> {
        self.each(keys, |key| *key, |cells, key, _| cells.get(&key).cloned())
            .await
    }

    async fn write(&self, writes: &[Write]) -> Result<Vec<bool>> {
        self.each(
            writes,
            |write| write.key,
            |cells, key, write| {
                let stamp = cells.get(&key).map(|cell| cell.stamp);
                let is_done =
                    stamp.is_some() && stamp == write.cell.as_ref().map(|cell| cell.stamp);
                let as_expected = stamp == write.expect || is_done;
                if as_expected {
                    match &write.cell {
                        Some(cell) => cells.insert(key, cell.clone()),
                        None => cells.remove(&key),
                    };
                }
                as_expected
            },
        )
        .await
    }

    async fn mark(&self, claims: &[Claim]) -> Result<Vec<bool>> {
        self.each(claims, claimed, |cells, key, claim| {
            let answer = cells.get(&key).and_then(|cell| cell.admits(claim));
            if answer == Some(true) {
                set_mark(cells.get_mut(&key), claim.vout, Some(claim.mark));
            }
            answer.is_some()
        })
        .await
    }

    async fn unmark(&self, claims: &[Claim]) -> Result<()> {
        self.each(claims, claimed, |cells, key, claim| {
            let held = cells
                .get(&key)
                .and_then(|cell| page(cell)?.slots.get(&claim.vout)?.mark);
            if held == Some(claim.mark) {
                set_mark(cells.get_mut(&key), claim.vout, None);
            }
        })
        .await
        .map(drop)
    }

    async fn step(&self, steps: &[Step]) -> Result<Vec<bool>> {
        let key = |step: &Step| CellKey::head(step.txid);
        self.each(steps, key, |cells, key, step| {
            let page = cells.get(&key).and_then(page);
            let phase = page.filter(|page| page.attempt == step.attempt);
            let phase = phase.map(|page| page.phase);
            if phase == Some(Phase::Pending)
                && let Some(page) = open_page(cells.get_mut(&key))
            {
                page.phase = step.to;
                return true;
            }
            phase == Some(step.to)
        })
        .await
    }

    async fn unmined(&self, after: Option<Txid>, limit: usize) -> Result<Vec<UnminedTransaction>> {
        let cells = self.cells();
        let found = cells.iter().filter_map(|(key, cell)| match key {
            CellKey::Page { txid, .. } if after.is_none_or(|after| *txid > after) => {
                Some(UnminedTransaction {
                    txid: *txid,
                    unmined_since: live_head(cell)?.unmined_since?,
                })
            }
            _ => None,
        });
        Ok(found.take(limit).collect())
    }

    async fn unfinished(&self, partition: u32, limit: usize) -> Result<Vec<CellKey>> {
        let cells = self.cells();
        let unfinished = |(key, cell): &(&CellKey, &Cell)| match key {
            CellKey::Intent(id) => id % u64::from(PARTITIONS) == u64::from(partition),
            CellKey::Page { txid, .. } if self.partition_of(txid) == partition => {
                page(cell).is_some_and(|page| page.phase != Phase::Live)
            }
            _ => false,
        };
        let found = cells.iter().filter(unfinished);
        Ok(shuffled(found.map(|(key, _)| *key), limit))
    }

    async fn due(&self, kind: DueKind, height: u32, limit: usize) -> Result<Vec<CellKey>> {
        let cells = self.cells();
        let due = |(key, cell): &(&CellKey, &Cell)| match &cell.body {
            Some(Body::Bytes { due: Some(due), .. }) => {
                DueKind::of(key) == Some(kind) && *due <= height
            }
            _ => false,
        };
        let found = cells.iter().filter(due);
        Ok(shuffled(found.map(|(key, _)| *key), limit))
    }

    async fn scan(&self, partition: u32, after: Option<Txid>, limit: usize) -> Result<Vec<Txid>> {
        let cells = self.cells();
        let found = cells.iter().filter_map(|(key, cell)| match key {
            CellKey::Page { txid, .. }
                if self.partition_of(txid) == partition
                    && after.is_none_or(|after| *txid > after)
                    && live_head(cell)?.guard.height.is_some() =>
            {
                Some(*txid)
            }
            _ => None,
        });
        Ok(found.take(limit).collect())
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
