//! For backends that change one record at a time: a store of several kinds of cells.
//!
//! [`PendingUtxoStore`] keeps all promises of a store over [`Cells`], which an adapter implements. Two
//! protocols, both of which any client can finish or undo for another one that is gone:
//!
//! **Spend and create**, of a record of one page and without reading anything: the record is written as *pending*, with its inputs; each
//! input is marked by one conditional step on its cell; then the record becomes *live* by one step, and that is
//! the moment at which all of it counts. A mark names the record's *attempt*, a number drawn by lot, and
//! **holds only if the record is there, live, in that attempt**. So whoever gives a pending record up does it
//! by one step too, and marks that are left, or come late, mean nothing; whoever meets one takes its place.
//! Before a record is pruned, its marks are *settled*, so that they hold without it.
//!
//! **All else**, wider records too, and each item that the first way refuses: judged in memory over what was read (see
//! [`draft`](crate::draft)). A change to one cell is one conditional write. For several, an *intent* names
//! them; each is locked, with what becomes of it beside what it is; the intent is *committed* by one
//! conditional write to it, and that is the moment at which all of it counts; then each is carried out. What
//! was read and does not change must still be as it was when all locks are held, so that calls are as if one
//! ran after the other. Whoever finds a lock in the way waits, and then undoes an intent that is not
//! committed, or finishes one that is: its owner finds out and begins anew.
//!
//! The tip and the running digest are one cell, changed by the intent of each block.

/// Evaluates what answers with a result until it is good, or makes no sense any more.
macro_rules! persist {
    ($store:expr, $step:expr) => {{
        let mut attempts = $store.attempts();
        loop {
            match $step.await {
                Ok(answer) => break answer,
                Err(error) => attempts.again(error).await?,
            }
        }
    }};
}
mod cells;
mod codec;
mod engine;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod intent;
mod memory;
mod plan;
mod prune;
mod recover;
mod scan;
mod spend;
mod store;
mod view;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use groundtackle_core::{RetryConfig, Retryability};
use tokio::sync::Semaphore;

pub use cells::{
    Body, Cell, CellKey, Cells, Claim, DueKind, Guard, Lock, Mark, Next, Page, Phase, Slot, Step,
    Stored, Write,
};
pub use codec::{pack_body, unpack_body};
pub use memory::{MemoryCells, StepFault};

use crate::attempts::Attempts;
use crate::error::{Error, Result};
use crate::types::UnspendableRule;

/// Outputs of one page, by index.
pub const OUTPUTS_PER_PAGE: u32 = 512;

/// The longest value that a cell has in itself; longer ones lie in parts of this size.
pub const PART_BYTES: usize = 128 * 1024;

/// Scripts above this size lie apart where a page would be longer than [`PART_BYTES`] otherwise.
const SCRIPT_BYTES: usize = 128;

/// Parts that are asked for in one call: 4 MiB.
const CALL_PARTS: usize = 32;

/// Cells that are asked for in one call.
const CALL_CELLS: usize = 4_096;

/// Where the engine can be killed between two effects, for
/// `Harness::write_points` of the conformance kit.
#[doc(hidden)]
pub const WRITE_POINTS: &[&str] = &[
    "pending.begun",
    "pending.marked",
    "pending.live",
    "pending.given-up",
    "pending.intended",
    "pending.locked",
    "pending.committed",
    "pending.carried-out",
];

/// What a [`PendingUtxoStore`] is opened with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PendingConfig {
    /// What gets no slot. It belongs to the chain, so it is the same for the store's life.
    pub unspendable: UnspendableRule,
    /// Items that one call may carry; larger calls are an error.
    pub max_batch_items: usize,
    /// How long a call waits for what another one holds before it gives up the other's work, or
    /// finishes it. Longer than calls take to read and to judge, and than an answer takes: calls that are
    /// given up begin anew, and large ones may never come through otherwise.
    pub patience: Duration,
    /// How steps that fail are repeated.
    pub retry: RetryConfig,
}

impl Default for PendingConfig {
    fn default() -> Self {
        Self {
            unspendable: UnspendableRule::Core,
            max_batch_items: 10_000,
            patience: Duration::from_secs(1),
            retry: RetryConfig::default(),
        }
    }
}

/// A store over [`Cells`]. Clones share them.
#[derive(Debug)]
pub struct PendingUtxoStore<C> {
    cells: Arc<C>,
    config: Arc<PendingConfig>,
    /// Those who change the chain's cell take turns, since they would overtake each other.
    chain_turn: Arc<Semaphore>,
}

impl<C> Clone for PendingUtxoStore<C> {
    fn clone(&self) -> Self {
        Self {
            cells: self.cells.clone(),
            config: self.config.clone(),
            chain_turn: self.chain_turn.clone(),
        }
    }
}

/// Never 0, which is the attempt of settled marks.
fn random() -> u64 {
    loop {
        let drawn = RandomState::new().hash_one(0_u8);
        if drawn != 0 {
            return drawn;
        }
    }
}

const fn page_of(vout: u32) -> u32 {
    vout / OUTPUTS_PER_PAGE
}

impl<C: Cells> PendingUtxoStore<C> {
    /// A store over cells, empty or not.
    pub fn new(cells: C, config: PendingConfig) -> Self {
        Self {
            cells: Arc::new(cells),
            config: Arc::new(config),
            chain_turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// The cells.
    pub fn cells(&self) -> &C {
        &self.cells
    }

    fn backend(&self) -> &'static str {
        self.cells.backend()
    }

    fn corrupt(&self, what: &str, detail: &str) -> Error {
        Error::corrupt(self.backend(), what, detail)
    }

    fn attempts(&self) -> Attempts {
        Attempts::new("a step", self.config.retry.schedule())
    }

    /// An answer says something of each item.
    fn whole<T>(&self, answers: Vec<T>, items: usize) -> Result<Vec<T>> {
        if answers.len() == items {
            Ok(answers)
        } else {
            Err(self.corrupt("an answer", "it has another number of items"))
        }
    }

    async fn read(&self, keys: &[CellKey]) -> Result<Vec<Option<Cell>>> {
        let mut cells = Vec::with_capacity(keys.len());
        for keys in keys.chunks(CALL_CELLS) {
            let read = persist!(self, self.cells.read(keys));
            cells.extend(self.whole(read, keys.len())?);
        }
        Ok(cells)
    }

    /// Writes cells; one that went before an answer was lost counts as gone now.
    async fn write(&self, writes: &[Write]) -> Result<Vec<bool>> {
        let mut done = Vec::with_capacity(writes.len());
        for writes in writes.chunks(CALL_CELLS) {
            let mut attempts = self.attempts();
            let mut answers = loop {
                match self.cells.write(writes).await {
                    Ok(answers) => break self.whole(answers, writes.len())?,
                    Err(error) => attempts.again(error).await?,
                }
            };
            let doubtful = |(write, done): &(&Write, &mut bool)| write.cell.is_none() && !**done;
            let doubtful = writes.iter().zip(&mut answers).filter(doubtful);
            let (deletions, answers_to): (Vec<_>, Vec<_>) = doubtful.unzip();
            if attempts.failed() > 0 && !deletions.is_empty() {
                let keys: Vec<_> = deletions.iter().map(|write| write.key).collect();
                for (answer, now) in answers_to.into_iter().zip(self.read(&keys).await?) {
                    *answer = now.is_none();
                }
            }
            done.extend(answers);
        }
        Ok(done)
    }

    async fn write_one(&self, write: Write) -> Result<bool> {
        Ok(self.write(&[write]).await? == [true])
    }

    /// One write, which others may build on as soon as it is there: `None` where an answer was lost and the cell has
    /// changed since, so that nobody knows whether it went through.
    async fn write_surely(&self, write: &Write) -> Result<Option<bool>> {
        let mut attempts = self.attempts();
        loop {
            match self.cells.write(std::slice::from_ref(write)).await {
                Ok(done) if done == [true] => return Ok(Some(true)),
                Ok(_) => return Ok((attempts.failed() == 0).then_some(false)),
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    fn overtaken(&self, action: &str) -> Error {
        Error::backend(
            self.backend(),
            action,
            Retryability::Indeterminate,
            "its answer was lost, and others have changed the same since; look, or repeat the call",
        )
    }

    /// Writes cells by which all else of an attempt is found, and which must never come back: each is sent
    /// only once, since "it is not there" is true again after another one has given the attempt up and
    /// cleared it away. `None`: nobody knows; the attempt must not be built upon.
    async fn write_once(
        &self,
        writes: &[Write],
        attempts: &mut Attempts,
    ) -> Result<Vec<Option<bool>>> {
        let mut done = Vec::with_capacity(writes.len());
        for writes in writes.chunks(CALL_CELLS) {
            match self.cells.write(writes).await {
                Ok(answers) => {
                    let answers = self.whole(answers, writes.len())?;
                    done.extend(answers.into_iter().map(Some));
                }
                Err(error) => {
                    attempts.again(error).await?;
                    // Of what is there, so that it is acknowledged as any write is.
                    let again = writes.iter().map(|write| Write {
                        expect: write.cell.as_ref().map(|cell| cell.stamp),
                        ..write.clone()
                    });
                    let there = self.write(&again.collect::<Vec<_>>()).await?;
                    done.extend(there.into_iter().map(|there| there.then_some(true)));
                }
            }
        }
        Ok(done)
    }

    async fn mark(&self, claims: &[Claim]) -> Result<Vec<bool>> {
        let mut marked = Vec::with_capacity(claims.len());
        for claims in claims.chunks(CALL_CELLS) {
            let answers = persist!(self, self.cells.mark(claims));
            marked.extend(self.whole(answers, claims.len())?);
        }
        Ok(marked)
    }

    async fn unmark(&self, claims: &[Claim]) -> Result<()> {
        for claims in claims.chunks(CALL_CELLS) {
            persist!(self, self.cells.unmark(claims));
        }
        Ok(())
    }

    /// Steps. An error where the answer to one to live was lost, and the record has changed since: it may have
    /// been there, and others may have built on it or removed it.
    async fn step(&self, steps: &[Step]) -> Result<Vec<bool>> {
        let mut done = Vec::with_capacity(steps.len());
        for steps in steps.chunks(CALL_CELLS) {
            let mut attempts = self.attempts();
            let stepped = async {
                loop {
                    match self.cells.step(steps).await {
                        Ok(answers) => return Ok(answers),
                        Err(error) => attempts.again(error).await?,
                    }
                }
            };
            let answers = match stepped.await {
                // Of which item each answer is nobody knows.
                Ok(answers) => self
                    .whole(answers, steps.len())
                    .map_err(|error| error.after_effect(self.backend(), "spend and create")),
                error => error,
            };
            let answers = match answers {
                Err(error) if done.contains(&true) => {
                    return Err(error.after_effect(self.backend(), "spend and create"));
                }
                answers => answers?,
            };
            if attempts.failed() > 0 {
                let doubtful = steps.iter().zip(&answers);
                let doubtful = doubtful.filter(|(step, done)| step.to == Phase::Live && !**done);
                let doubtful: Vec<_> = doubtful.map(|(step, _)| step).collect();
                let keys: Vec<_> = doubtful.iter().map(|s| CellKey::head(s.txid)).collect();
                let now = self.read(&keys).await;
                let now =
                    now.map_err(|error| error.after_effect(self.backend(), "spend and create"))?;
                for (step, now) in doubtful.into_iter().zip(now) {
                    let given_up = matches!(now.and_then(|cell| cell.body), Some(Body::Page(page))
                        if page.attempt == step.attempt && page.phase == Phase::Aborted);
                    if !given_up {
                        return Err(self.overtaken("spend and create"));
                    }
                }
            }
            done.extend(answers);
        }
        Ok(done)
    }

    /// A value, put together.
    async fn stored(&self, stored: &Stored) -> Result<Vec<u8>> {
        let value = self.stored_if_whole(stored).await?;
        value.ok_or_else(|| self.corrupt("a value", "a part of it is missing"))
    }

    /// The same; `None` where a part is not there.
    async fn stored_if_whole(&self, stored: &Stored) -> Result<Option<Vec<u8>>> {
        let (id, len) = match stored {
            Stored::Here(bytes) => return Ok(Some(bytes.clone())),
            Stored::Apart { id, len } => (*id, *len),
        };
        let mut value = Vec::new();
        for keys in part_keys(id, len).chunks(CALL_PARTS) {
            for cell in self.read(keys).await? {
                let Some(Body::Bytes {
                    bytes: Stored::Here(bytes),
                    ..
                }) = cell.and_then(|cell| cell.body)
                else {
                    return Ok(None);
                };
                value.extend(bytes);
            }
        }
        if value.len() as u64 == len {
            Ok(Some(value))
        } else {
            Err(self.corrupt("a value", "its parts have another length"))
        }
    }

    /// Writes a value in parts.
    async fn write_parts(&self, id: u64, value: &[u8]) -> Result<()> {
        let writes: Vec<_> = (0..)
            .zip(value.chunks(PART_BYTES))
            .map(|(part, bytes)| Write {
                key: CellKey::Part { id, part },
                expect: None,
                cell: Some(Cell {
                    stamp: random(),
                    lock: None,
                    body: Some(Body::Bytes {
                        due: None,
                        bytes: Stored::Here(bytes.to_vec()),
                    }),
                }),
            })
            .collect();
        for writes in writes.chunks(CALL_PARTS) {
            self.write(writes).await?;
        }
        Ok(())
    }

    /// Deletes values in parts, as far as they are there.
    async fn delete_parts(&self, values: &[(u64, u64)]) -> Result<()> {
        for (id, len) in values {
            let mut calls = Vec::new();
            for keys in part_keys(*id, *len).chunks(CALL_PARTS) {
                let cells = self.read(keys).await?;
                let there = keys.iter().zip(cells).filter_map(|(key, cell)| {
                    Some(Write {
                        key: *key,
                        expect: Some(cell?.stamp),
                        cell: None,
                    })
                });
                let writes: Vec<_> = there.collect();
                if writes.is_empty() {
                    break;
                }
                calls.push(writes);
            }
            // The last go first, so that what is left by a crash can be found from the first.
            for writes in calls.iter().rev() {
                self.write(writes).await?;
            }
        }
        Ok(())
    }

    async fn delete_stored(&self, stored: &Stored) -> Result<()> {
        match stored {
            Stored::Here(_) => Ok(()),
            Stored::Apart { id, len } => self.delete_parts(&[(*id, *len)]).await,
        }
    }
}

fn part_keys(id: u64, len: u64) -> Vec<CellKey> {
    // A length that is a lie ends at the first part that is missing.
    let parts = len.div_ceil(PART_BYTES as u64).min(1 << 20) as u32;
    (0..parts).map(|part| CellKey::Part { id, part }).collect()
}
