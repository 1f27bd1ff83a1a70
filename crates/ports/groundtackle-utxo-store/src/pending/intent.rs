//! Changes to several cells: what they name, and how they are finished or undone by anyone.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use groundtackle_chain::Txid;

use super::cells::{Body, Cell, CellKey, Cells, Next, Stored, Write};
use super::{PendingUtxoStore, codec, random};
use crate::error::Result;

/// A change to several cells.
///
/// It is written before the first cell is locked and names all of them; it is committed by one
/// write to it; it goes when no cell is locked by it any more. So a lock without an intent is one
/// that came late: nothing is to be done about it but to take it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Intent {
    pub(super) state: IntentState,
    /// [`Contents`], encoded.
    pub(super) contents: Stored,
}

/// What an intent names: cells, and values in parts with their lengths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// The cells it locks.
    pub(super) keys: Vec<CellKey>,
    /// Values of plans that were dropped: they go in any case.
    pub(super) dropped: Vec<(u64, u64)>,
    /// Values that go if it is not committed.
    pub(super) new: Vec<(u64, u64)>,
    /// Values that go when it is finished.
    pub(super) old: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntentState {
    /// Its owner locks cells. Anyone may give it up.
    Preparing,
    /// It counts: all that is left is to carry it out.
    Committed,
    /// It was given up: its locks are being taken away.
    Aborted,
}

impl Intent {
    pub(super) fn cell(&self) -> Cell {
        Cell {
            stamp: random(),
            lock: None,
            body: Some(Body::Bytes {
                due: None,
                bytes: Stored::Here(codec::pack_intent(self)),
            }),
        }
    }
}

/// What became of an intent that was in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    Forward,
    Back,
    /// It was gone.
    Gone,
    /// Its owner lives.
    GoesOn,
}

/// What others are doing with cells that a call needs.
#[derive(Debug, Default)]
pub(super) struct Obstacles {
    /// Intents, with the cells that they have locked.
    pub(super) intents: BTreeMap<u64, Vec<CellKey>>,
    /// Records that are not there yet, or no more, with their attempts.
    pub(super) pending: Vec<(Txid, u64)>,
}

impl Obstacles {
    pub(super) fn is_empty(&self) -> bool {
        self.intents.is_empty() && self.pending.is_empty()
    }
}

/// How long one waits for others, in growing steps: for each by itself, since it was first seen as it is.
pub(super) struct Patience {
    most: Duration,
    step: Duration,
    /// With the one that is waited for for longest.
    left: Duration,
    /// What was in the way, with what tells it from a later one, or from one that has gone on.
    seen: HashMap<CellKey, (u64, Instant)>,
}

impl Patience {
    pub(super) fn new(most: Duration) -> Self {
        Self {
            most,
            step: Duration::from_micros(200),
            left: most,
            seen: HashMap::new(),
        }
    }

    /// Whether what is in the way may still be waited for.
    fn lasts(&mut self, obstacle: CellKey, mark: u64) -> bool {
        let now = (mark, Instant::now());
        let seen = self.seen.entry(obstacle).or_insert(now);
        if seen.0 != mark {
            *seen = now;
        }
        let left = self.most.saturating_sub(seen.1.elapsed());
        self.left = self.left.min(left);
        !left.is_zero()
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.step.min(self.left)).await;
        self.step = (self.step * 2).min(Duration::from_millis(20));
        self.left = self.most;
    }
}

/// The cell without its lock, as it is if the change is not committed.
fn without_lock(key: CellKey, cell: Cell) -> Write {
    let expect = Some(cell.stamp);
    let cell = cell.body.is_some().then_some(Cell {
        stamp: random(),
        lock: None,
        ..cell
    });
    Write { key, expect, cell }
}

/// In which order cells are carried out. The tip comes after all that belongs to its block; deletions come
/// last: while a mark names a record, it is there.
pub(super) const TURNS: [u8; 3] = [0, 1, 2];

pub(super) const fn turn_of(key: &CellKey, next: &Next) -> u8 {
    match (key, next) {
        (_, Next::Delete) => 2,
        (CellKey::Chain, _) => 1,
        _ => 0,
    }
}

/// The cell as a committed change leaves it.
pub(super) fn applied(key: CellKey, cell: Cell) -> Write {
    match cell.lock {
        Some(lock) => Write {
            key,
            expect: Some(cell.stamp),
            cell: match lock.next {
                Next::Delete => None,
                Next::Keep => cell.body,
                Next::Put(body) => Some(body),
            }
            .map(|body| Cell {
                stamp: random(),
                lock: None,
                body: Some(body),
            }),
        },
        None => without_lock(key, cell),
    }
}

impl<C: Cells> PendingUtxoStore<C> {
    pub(super) async fn intent(&self, id: u64) -> Result<Option<(u64, Intent)>> {
        let mut cells = self.read(&[CellKey::Intent(id)]).await?;
        let Some(Some(cell)) = cells.pop() else {
            return Ok(None);
        };
        let Some(Body::Bytes {
            bytes: Stored::Here(bytes),
            ..
        }) = cell.body
        else {
            return Err(self.corrupt("an intent", "it is none"));
        };
        let intent = codec::unpack_intent(self.backend(), &bytes)?;
        Ok(Some((cell.stamp, intent)))
    }

    /// Finishes a committed change, undoes another one: whoever began it finds out. With the stamp that was
    /// waited for, one that has gone on since is left alone.
    pub(super) async fn resolve_intent(&self, id: u64, seen: Option<u64>) -> Result<Resolved> {
        loop {
            let Some((stamp, intent)) = self.intent(id).await? else {
                return Ok(Resolved::Gone);
            };
            if intent.state == IntentState::Committed {
                // Its owner may not have had an answer: what is seen may not be on all copies yet.
                let cell = intent.cell();
                let write = Write {
                    key: CellKey::Intent(id),
                    expect: Some(stamp),
                    cell: Some(cell),
                };
                if self.write_one(write).await? {
                    self.finish(id, &intent).await?;
                    return Ok(Resolved::Forward);
                }
                continue;
            }
            if seen.is_some_and(|seen| seen != stamp) {
                return Ok(Resolved::GoesOn);
            }
            if self.undo_intent(id, stamp, intent).await? {
                return Ok(Resolved::Back);
            }
        }
    }

    /// Undoes a change that is not committed; `false` where it has changed.
    async fn undo_intent(&self, id: u64, stamp: u64, mut intent: Intent) -> Result<bool> {
        let write = |stamp: u64, cell: Option<Cell>| Write {
            key: CellKey::Intent(id),
            expect: Some(stamp),
            cell,
        };
        intent.state = IntentState::Aborted;
        let aborted = intent.cell();
        let aborted_stamp = aborted.stamp;
        if !self.write_one(write(stamp, Some(aborted))).await? {
            return Ok(false);
        }
        if let Some(contents) = self.contents_of(id, &intent).await? {
            self.unlock(id, &contents.keys).await?;
            self.delete_parts(&contents.dropped).await?;
            self.delete_parts(&contents.new).await?;
            // While there is an intent, it can be read which cells it names.
            if self.write_one(write(aborted_stamp, None)).await? {
                self.delete_stored(&intent.contents).await?;
            }
        }
        Ok(true)
    }

    /// What an intent names; `None` if another one was faster, and it is gone.
    async fn contents_of(&self, id: u64, intent: &Intent) -> Result<Option<Contents>> {
        match self.stored_if_whole(&intent.contents).await? {
            Some(bytes) => codec::unpack_contents(self.backend(), &bytes).map(Some),
            None => match self.intent(id).await? {
                Some(_) => Err(self.corrupt("an intent", "the names of its cells are missing")),
                None => Ok(None),
            },
        }
    }

    /// Takes the locks of an intent that is given up from cells.
    pub(super) async fn unlock(&self, id: u64, keys: &[CellKey]) -> Result<()> {
        let cells = self.read(keys).await?;
        let locked = keys.iter().zip(cells).filter_map(|(key, cell)| {
            let cell = cell?;
            let ours = cell.lock.as_ref()?.intent == id;
            ours.then(|| without_lock(*key, cell))
        });
        let writes: Vec<_> = locked.collect();
        self.write(&writes).await.map(drop)
    }

    /// Carries a committed change out, as far as it is not.
    pub(super) async fn finish(&self, id: u64, intent: &Intent) -> Result<()> {
        let Some(contents) = self.contents_of(id, intent).await? else {
            return Ok(());
        };
        for turn in TURNS {
            let mut rest = contents.keys.clone();
            while !rest.is_empty() {
                let cells = self.read(&rest).await?;
                let ours = rest.iter().zip(cells).filter_map(|(key, cell)| {
                    let cell = cell?;
                    let lock = cell.lock.as_ref()?;
                    let now = lock.intent == id && turn_of(key, &lock.next) == turn;
                    now.then(|| applied(*key, cell))
                });
                let writes: Vec<_> = ours.collect();
                let done = self.write(&writes).await?;
                let again = writes.iter().zip(done).filter(|(_, done)| !done);
                rest = again.map(|(write, _)| write.key).collect();
            }
        }
        self.forget_intent(id, intent, &contents).await
    }

    /// A change that is carried out leaves nothing.
    pub(super) async fn forget_intent(
        &self,
        id: u64,
        intent: &Intent,
        contents: &Contents,
    ) -> Result<()> {
        self.delete_parts(&contents.dropped).await?;
        self.delete_parts(&contents.old).await?;
        if let Some((stamp, _)) = self.intent(id).await? {
            let gone = Write {
                key: CellKey::Intent(id),
                expect: Some(stamp),
                cell: None,
            };
            if !self.write_one(gone).await? {
                // Another one has written it again, to finish it.
                return Ok(());
            }
        }
        // While there is an intent, it can be read which cells it names.
        self.delete_stored(&intent.contents).await
    }

    /// Deals with what is in the way: waits, and then does what its owners have not done.
    pub(super) async fn get_past(
        &self,
        obstacles: &Obstacles,
        patience: &mut Patience,
    ) -> Result<()> {
        let mut waits = false;
        let keys = obstacles.intents.keys().copied().map(CellKey::Intent);
        let cells = self.read(&keys.collect::<Vec<_>>()).await?;
        for ((id, locked), cell) in obstacles.intents.iter().zip(cells) {
            match cell {
                // It came late.
                None => self.unlock(*id, locked).await?,
                Some(cell) if patience.lasts(CellKey::Intent(*id), cell.stamp) => waits = true,
                Some(cell) => {
                    let resolved = self.resolve_intent(*id, Some(cell.stamp)).await?;
                    tracing::debug!(?resolved, "a change of another one was in the way");
                }
            }
        }
        let mut left = obstacles.pending.clone();
        left.retain(|(txid, attempt)| !patience.lasts(CellKey::head(*txid), *attempt));
        waits |= left.len() < obstacles.pending.len();
        if !left.is_empty() {
            tracing::debug!(
                records = left.len(),
                "gives up what others have left pending"
            );
            self.give_up(&left).await?;
        }
        if waits {
            patience.wait().await;
        }
        Ok(())
    }
}
