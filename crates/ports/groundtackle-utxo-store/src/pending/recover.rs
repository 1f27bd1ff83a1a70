//! What a crash left.

use std::collections::HashMap;

use groundtackle_core::Retryability;

use super::PendingUtxoStore;
use super::cells::{Body, CellKey, Cells, Phase};
use super::intent::Resolved;
use crate::error::{Error, Result};
use crate::types::Recovered;

/// Unfinished things of a partition that are dealt with in one round: more than those who live have there at a
/// time, so that what is left by others is among them.
const STEP: usize = 16_384;

/// Rounds at most: far more than a partition can have unfinished things for.
const MOST_ROUNDS: usize = 100_000;

/// What tells an unfinished thing from a later one of the same name.
type Unfinished = HashMap<CellKey, u64>;

/// Keeps an error that is about one thing, for the end; with one that is about the backend it is over.
fn note(failed: &mut Option<Error>, error: Error) -> Result<()> {
    if error.retryability() != Retryability::Permanent {
        return Err(error);
    }
    failed.get_or_insert(error);
    Ok(())
}

impl<C: Cells> PendingUtxoStore<C> {
    pub(super) async fn recover_all(&self) -> Result<Recovered> {
        let mut recovered = Recovered::default();
        let mut failed = None;
        let mut partitions: Vec<u32> = (0..self.cells.partitions()).collect();
        for _ in 0..MOST_ROUNDS {
            let (mut keys, mut full) = (Vec::new(), Vec::new());
            for partition in partitions {
                let listed = persist!(self, self.cells.unfinished(partition, STEP));
                if listed.len() >= STEP {
                    full.push(partition);
                }
                keys.extend(listed);
            }
            let before = self.look_at(&keys, &mut failed).await?;
            if before.is_empty() {
                break;
            }
            // Those of live owners are done by then.
            tokio::time::sleep(self.config.patience).await;
            let keys: Vec<_> = before.keys().copied().collect();
            let mut left = self.look_at(&keys, &mut failed).await?;
            left.retain(|key, attempt| before.get(key) == Some(attempt));
            let mut done = 0;
            for (key, attempt) in &left {
                match self.recover_one(*key, *attempt, &mut recovered).await {
                    Ok(()) => done += 1,
                    Err(error) => note(&mut failed, error)?,
                }
            }
            // Where a listing was full there may be more, unless all of it is of owners that live.
            partitions = full;
            if partitions.is_empty() || done == 0 {
                break;
            }
        }
        failed.map_or(Ok(recovered), Err)
    }

    /// What of these is unfinished. One that can't be read does not hide the others.
    async fn look_at(&self, keys: &[CellKey], failed: &mut Option<Error>) -> Result<Unfinished> {
        let cells = match self.read(keys).await {
            Ok(cells) => cells,
            Err(error) => {
                note(failed, error)?;
                let mut cells = Vec::with_capacity(keys.len());
                for key in keys {
                    cells.push(match self.read(&[*key]).await {
                        Ok(mut cell) => cell.pop().flatten(),
                        Err(error) => {
                            note(failed, error)?;
                            None
                        }
                    });
                }
                cells
            }
        };
        let found = keys.iter().zip(cells).filter_map(|(key, cell)| {
            let cell = cell?;
            let attempt = match cell.body {
                Some(Body::Page(page)) if page.phase != Phase::Live => page.attempt,
                // One that goes on has another stamp the next time.
                Some(Body::Bytes { .. }) => cell.stamp,
                _ => return None,
            };
            Some((*key, attempt))
        });
        Ok(found.collect())
    }

    async fn recover_one(
        &self,
        key: CellKey,
        attempt: u64,
        recovered: &mut Recovered,
    ) -> Result<()> {
        match key {
            CellKey::Intent(id) => match self.resolve_intent(id, Some(attempt)).await? {
                Resolved::Forward => recovered.rolled_forward += 1,
                Resolved::Back => recovered.rolled_back += 1,
                Resolved::Gone | Resolved::GoesOn => {}
            },
            CellKey::Page { txid, page: 0 } => {
                recovered.rolled_back += self.give_up(&[(txid, attempt)]).await?;
            }
            _ => {}
        }
        Ok(())
    }
}
