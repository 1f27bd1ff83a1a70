//! What a crash left.

use std::collections::HashMap;

use super::PendingUtxoStore;
use super::cells::{Body, CellKey, Cells, Phase, Step};
use super::intent::Resolved;
use crate::error::Result;
use crate::types::Recovered;

/// Unfinished things that are dealt with in one step.
const STEP: usize = 1_024;

/// What tells an unfinished thing from a later one of the same name.
type Unfinished = HashMap<CellKey, u64>;

impl<C: Cells> PendingUtxoStore<C> {
    pub(super) async fn recover_all(&self) -> Result<Recovered> {
        let mut recovered = Recovered::default();
        loop {
            let before = self.list_unfinished().await?;
            if before.is_empty() {
                return Ok(recovered);
            }
            // Those of live owners are done by then.
            tokio::time::sleep(self.config.patience).await;
            let mut left = self.list_unfinished().await?;
            left.retain(|key, attempt| before.get(key) == Some(attempt));
            for (key, attempt) in &left {
                self.recover_one(*key, *attempt, &mut recovered).await?;
            }
            if before.len() < STEP {
                return Ok(recovered);
            }
        }
    }

    async fn list_unfinished(&self) -> Result<Unfinished> {
        let keys = persist!(self, self.cells.unfinished(STEP));
        let cells = self.read(&keys).await?;
        let found = keys.into_iter().zip(cells).filter_map(|(key, cell)| {
            let cell = cell?;
            let attempt = match cell.body {
                Some(Body::Page(page)) if page.phase != Phase::Live => page.attempt,
                // One that goes on has another stamp the next time.
                Some(Body::Bytes { .. }) => cell.stamp,
                _ => return None,
            };
            Some((key, attempt))
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
            CellKey::Intent(id) => match self.resolve_intent(id).await? {
                Resolved::Forward => recovered.rolled_forward += 1,
                Resolved::Back => recovered.rolled_back += 1,
                Resolved::Gone => {}
            },
            CellKey::Page { txid, page: 0 } => {
                recovered.rolled_back += self.give_up(&[(txid, attempt)]).await?;
            }
            CellKey::Page { txid, page } => {
                let head = self.read(&[CellKey::head(txid)]).await?.pop().flatten();
                let of_head = match head.and_then(|cell| cell.body) {
                    Some(Body::Page(head)) => Some((head.attempt, head.phase)),
                    _ => None,
                };
                if of_head == Some((attempt, Phase::Live)) {
                    let to = Phase::Live;
                    let step = Step {
                        txid,
                        page,
                        attempt,
                        to,
                    };
                    self.step(&[step]).await?;
                } else if of_head.is_none_or(|(of_head, _)| of_head != attempt) {
                    self.delete_pages(&[(key, attempt)]).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
