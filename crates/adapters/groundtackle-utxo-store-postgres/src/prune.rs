//! Removing what nothing needs any more, a bounded number of records at a time.

use std::collections::BTreeSet;

use groundtackle_core::fail_point;
use groundtackle_utxo_store::draft::Pruning;
use groundtackle_utxo_store::{Page, Result, Txid};
use tokio_postgres::types::ToSql;

use crate::error::Failed;
use crate::record::{self, column};
use crate::session::Lease;
use crate::store::Inner;
use crate::write;

/// Lists of records that one step looks at: other writers get their turn between steps.
const STEP_LISTS: i64 = 16;

/// Conflicting transactions that one step looks at.
const STEP_CONFLICTS: usize = 4096;

const ACTION: &str = "prune";

impl Inner {
    /// One block's undo data.
    pub(crate) async fn prune_undo(&self, horizon: u32, so_far: &mut Pruning) -> Result<bool> {
        let more = self
            .step(horizon, Step::Undo, &mut so_far.in_doubt)
            .await?
            .more;
        so_far.pruned.blocks += u64::from(more);
        Ok(more)
    }

    pub(crate) async fn prune_expired(&self, horizon: u32, so_far: &mut Pruning) -> Result<bool> {
        let step = self.step(horizon, Step::Expired, &mut so_far.in_doubt);
        let Done { records, more } = step.await?;
        so_far.pruned.records += records;
        Ok(more)
    }

    pub(crate) async fn old_conflicts(
        &self,
        horizon: u32,
        after: Option<Txid>,
    ) -> Result<Page<Txid>> {
        let after = after.map_or(Vec::new(), |txid| txid.as_bytes().to_vec());
        let most = STEP_CONFLICTS as i64 + 1;
        let values: [&(dyn ToSql + Sync); 3] = [&after, &i64::from(horizon), &most];
        let rows = self.query(ACTION, |s| &s.conflicting, &values).await?;
        let txids = rows.iter().map(|row| record::txid(row, 0));
        let txids = txids.collect::<Result<Vec<_>>>()?;
        Ok(Page::first(STEP_CONFLICTS, txids, |last| (*last).into()))
    }

    async fn step(&self, horizon: u32, step: Step, doubt: &mut bool) -> Result<Done> {
        let mut attempts = self.attempts(ACTION);
        loop {
            let mut committing = false;
            let done = async {
                let mut lease = self.lease(ACTION).await?;
                lease.begin();
                let begin = async {
                    let session = lease.session()?;
                    let begin = async {
                        // Nothing joins or leaves the confirmed set meanwhile.
                        tokio::try_join!(
                            biased;
                            session.client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"),
                            session.client.query(&session.statements.chain_locked, &[]),
                        )
                    };
                    lease.answer(ACTION, begin).await
                };
                let ((), chain) = begin.await?;
                // While no block can go: once no undo data is left, none at or below the horizon can be
                // taken back, and none is connected in its place.
                let row = chain.first();
                let tip = row.map(|row| record::tip(row, 0)).transpose()?.flatten();
                if let (Step::Undo, Some(tip)) = (step, tip) {
                    tip.check_horizon(horizon)?;
                }
                let done = match step {
                    Step::Undo => undo_step(&lease, horizon).await?,
                    Step::Expired => expired_step(&lease, horizon).await?,
                };
                fail_point("postgres.prune.deleted");
                committing = true;
                let commit = lease.session()?.client.batch_execute("COMMIT");
                lease.answer(ACTION, commit).await?;
                fail_point("postgres.prune.committed");
                lease.end();
                Ok::<_, Failed>(done)
            };
            match Box::pin(done).await {
                Ok(done) => return Ok(done),
                // A step may be done twice: what is gone is not counted again.
                Err(failed) => {
                    *doubt |= committing;
                    failed.again(&mut attempts).await?;
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// One block's undo data; its records are listed to be looked at.
    Undo,
    /// Some lists of records.
    Expired,
}

struct Done {
    records: u64,
    more: bool,
}

fn bytes(txid: &Txid) -> &[u8] {
    txid.as_bytes()
}

async fn undo_step(lease: &Lease, horizon: u32) -> Result<Done, Failed> {
    let session = lease.session()?;
    let (client, statements) = (&session.client, &session.statements);
    let values: [&(dyn ToSql + Sync); 1] = [&i64::from(horizon)];
    let rows = lease
        .answer(ACTION, client.query(&statements.blocks_below, &values))
        .await?;
    let Some(row) = rows.first() else {
        return Ok(Done {
            records: 0,
            more: false,
        });
    };
    let hash: &[u8] = column(row, 0)?;
    let undo = record::unpack_undo(column(row, 1)?)?;
    let txids: Vec<&[u8]> = undo.iter().map(|(txid, _)| bytes(txid)).collect();
    let values: [&(dyn ToSql + Sync); 1] = [&txids];
    let rows = lease
        .answer(ACTION, client.query(&statements.inputs_of, &values))
        .await?;
    let mut touched: BTreeSet<Txid> = undo.iter().map(|(txid, _)| *txid).collect();
    for row in &rows {
        touched.extend(
            record::inputs(column(row, 0)?)?
                .iter()
                .map(|input| input.txid),
        );
    }
    let expiring: Vec<_> = touched.into_iter().map(|txid| (horizon, txid)).collect();
    let writes = async {
        tokio::try_join!(
            biased;
            write::write_expiring(client, statements, &expiring),
            write::execute_if(true, client, &statements.delete_undo, [&hash]),
        )
    };
    lease.answer(ACTION, writes).await?;
    Ok(Done {
        records: 0,
        more: true,
    })
}

async fn expired_step(lease: &Lease, horizon: u32) -> Result<Done, Failed> {
    let session = lease.session()?;
    let (client, statements) = (&session.client, &session.statements);
    let height = i64::from(horizon);
    let values: [&(dyn ToSql + Sync); 2] = [&height, &STEP_LISTS];
    let rows = lease
        .answer(ACTION, client.query(&statements.expiring, &values))
        .await?;
    let (mut heights, mut numbers, mut txids) = (Vec::new(), Vec::new(), BTreeSet::new());
    for row in &rows {
        heights.push(column::<i64>(row, 0)?);
        numbers.push(column::<i64>(row, 1)?);
        txids.extend(record::txids(column(row, 2)?)?);
    }
    if rows.is_empty() {
        return Ok(Done {
            records: 0,
            more: false,
        });
    }
    let txids: Vec<&[u8]> = txids.iter().map(bytes).collect();
    let with_inputs = vec![false; txids.len()];
    let locked: [&(dyn ToSql + Sync); 2] = [&txids, &with_inputs];
    let judged: [&(dyn ToSql + Sync); 2] = [&txids, &height];
    let reads = async {
        tokio::try_join!(
            biased;
            client.query(&statements.records_locked, &locked),
            client.query(&statements.done, &judged),
            client.query(&statements.preserved, &judged),
        )
    };
    let (_, done, preserved) = lease.answer(ACTION, reads).await?;
    let done = done
        .iter()
        .map(|row| record::txid(row, 0))
        .collect::<Result<Vec<_>>>()?;
    let mut later = preserved
        .iter()
        .map(|row| Ok((record::number(column(row, 1)?)?, record::txid(row, 0)?)))
        .collect::<Result<Vec<_>>>()?;
    later.sort_unstable();
    let listed: [&(dyn ToSql + Sync); 2] = [&heights, &numbers];
    let writes = async {
        tokio::try_join!(
            biased;
            write::delete(client, statements, &done),
            write::execute_if(true, client, &statements.delete_expiring, listed),
            write::write_expiring(client, statements, &later),
        )
    };
    lease.answer(ACTION, writes).await?;
    Ok(Done {
        records: done.len() as u64,
        more: true,
    })
}
