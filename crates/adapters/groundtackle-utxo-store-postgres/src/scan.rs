//! Walking the confirmed set as it was at one moment.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use groundtackle_utxo_store::{
    Coin, Cursor, Error, OutPoint, Page, Result, Retryability, SetScan, Tip, TxOut,
};
use tokio_postgres::types::ToSql;

use crate::error::{BACKEND, Failed};
use crate::record::{self, column};
use crate::session::Lease;
use crate::store::Inner;

/// Partitions lie between values of the identifier's first byte.
pub(crate) const MOST_PARTITIONS: u32 = 256;

const ACTION: &str = "scan";
/// Begins to look at one moment, for as long as a scan may last.
fn begin(inner: &Inner) -> String {
    let millis = inner.config.scan_timeout.as_millis();
    let millis = i32::try_from(millis).unwrap_or(i32::MAX);
    format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL idle_in_transaction_session_timeout = {millis}"
    )
}

pub(crate) struct PostgresScan {
    inner: Arc<Inner>,
    tip: Option<Tip>,
    /// The server's name of the moment, for further connections.
    snapshot: String,
    /// The connection that keeps the moment: without it the others can't join.
    keeper: tokio::sync::Mutex<Lease>,
    /// Further connections at rest in the moment.
    joined: Mutex<Vec<Lease>>,
    began: Instant,
}

impl fmt::Debug for PostgresScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresScan")
            .field("tip", &self.tip)
            .finish_non_exhaustive()
    }
}

impl Drop for PostgresScan {
    fn drop(&mut self) {
        self.keeper.get_mut().roll_back_later();
        let joined = self.joined.get_mut();
        let joined = joined.unwrap_or_else(PoisonError::into_inner);
        joined.iter_mut().for_each(Lease::roll_back_later);
    }
}

impl PostgresScan {
    pub(crate) async fn begin(inner: Arc<Inner>) -> Result<Self> {
        let mut attempts = inner.attempts(ACTION);
        let (lease, tip, snapshot) = loop {
            let begun = async {
                let mut lease = inner.lease(ACTION).await?;
                lease.begin();
                let session = lease.session()?;
                let sql = begin(&inner);
                let begin = async {
                    tokio::try_join!(
                        biased;
                        session.client.batch_execute(&sql),
                        session.client.query_one("SELECT pg_export_snapshot()", &[]),
                        session.client.query_one(&session.statements.chain, &[]),
                    )
                };
                let ((), snapshot, chain) = lease.answer(ACTION, Box::pin(begin)).await?;
                let snapshot: String = column(&snapshot, 0)?;
                let tip = record::tip(&chain, 0)?;
                Ok::<_, Failed>((lease, tip, snapshot))
            };
            match begun.await {
                Ok(begun) => break begun,
                Err(failed) => failed.again(&mut attempts).await?,
            }
        };
        Ok(Self {
            inner,
            tip,
            snapshot,
            keeper: tokio::sync::Mutex::new(lease),
            joined: Mutex::default(),
            began: Instant::now(),
        })
    }

    /// One more connection that sees the moment.
    async fn join(&self) -> Result<Lease, Failed> {
        let resting = self
            .joined
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        if let Some(lease) = resting {
            return Ok(lease);
        }
        let mut lease = self.inner.lease(ACTION).await?;
        lease.begin();
        let client = &lease.session()?.client;
        // The server made the name: hexadecimal digits and dashes.
        let begin = format!(
            "{}; SET TRANSACTION SNAPSHOT '{}'",
            begin(&self.inner),
            self.snapshot
        );
        lease.answer(ACTION, client.batch_execute(&begin)).await?;
        Ok(lease)
    }

    async fn rows(
        &self,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, Failed> {
        if let Ok(lease) = self.keeper.try_lock() {
            return rows(&lease, values).await;
        }
        let lease = match self.join().await {
            Ok(lease) => lease,
            // There are no more connections: take turns on the first.
            Err(_) => return rows(&*self.keeper.lock().await, values).await,
        };
        let rows = rows(&lease, values).await?;
        self.joined
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(lease);
        Ok(rows)
    }
}

async fn rows(
    lease: &Lease,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<tokio_postgres::Row>, Failed> {
    let session = lease.session()?;
    let query = session.client.query(&session.statements.coins, values);
    lease.answer(ACTION, query).await
}

/// The least identifier of a partition; the last one ends above all.
fn first_key(partition: u32, partitions: u32) -> Vec<u8> {
    let byte = partition * MOST_PARTITIONS / partitions;
    u8::try_from(byte).map_or_else(|_| vec![u8::MAX; 33], |byte| vec![byte])
}

fn partition_of(outpoint: &OutPoint, partitions: u32) -> u32 {
    let byte = outpoint.txid.as_bytes().first().copied();
    ((u32::from(byte.unwrap_or_default()) + 1) * partitions - 1) / MOST_PARTITIONS
}

#[async_trait]
impl SetScan for PostgresScan {
    fn tip(&self) -> Option<Tip> {
        self.tip
    }

    #[expect(
        clippy::misnamed_getters,
        reason = "the config's other partitions are those of tables"
    )]
    fn partitions(&self) -> u32 {
        self.inner.config.scan_partitions
    }

    async fn page(
        &self,
        partition: u32,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Coin>> {
        let after = after.map(Cursor::outpoint).transpose()?;
        let partitions = self.partitions();
        let elsewhere = |after| partition_of(&after, partitions) != partition;
        if partition >= partitions || after.is_some_and(elsewhere) {
            return Err(Error::invalid_request(format!(
                "no such place in partition {partition} of {partitions}"
            )));
        }
        if self.began.elapsed() > self.inner.config.scan_timeout {
            return Err(Error::backend(
                BACKEND,
                "scan (it is older than scan_timeout; begin another one and go on at the same cursor)",
                Retryability::Permanent,
                "the scan is over",
            ));
        }
        let (txid, vout) = match after {
            Some(after) => (after.txid.as_bytes().to_vec(), i64::from(after.vout)),
            None => (first_key(partition, partitions), -1),
        };
        let end = first_key(partition + 1, partitions);
        let limit = limit.clamp(1, self.inner.config.max_batch_items);
        let wanted = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let values: [&(dyn ToSql + Sync); 4] = [&txid, &vout, &end, &wanted];
        let rows = Box::pin(self.rows(&values))
            .await
            .map_err(|failed| failed.error)?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows.iter().take(limit) {
            items.push(Coin {
                outpoint: OutPoint::new(record::txid(row, 0)?, record::number(column(row, 1)?)?),
                output: TxOut {
                    value_sat: column::<i64>(row, 2)?.cast_unsigned(),
                    script: column::<Vec<u8>>(row, 3)?.into(),
                },
                coinbase: column(row, 4)?,
                height: record::number(column(row, 5)?)?,
            });
        }
        let more = rows.len() > limit;
        let next = items
            .last()
            .filter(|_| more)
            .map(|last| Cursor::from(last.outpoint));
        Ok(Page { items, next })
    }
}

#[cfg(test)]
mod tests {
    use groundtackle_utxo_store::{OutPoint, Txid};

    use super::{MOST_PARTITIONS, first_key, partition_of};

    #[test]
    fn each_identifier_lies_between_the_ends_of_its_partition() {
        for partitions in 1..=MOST_PARTITIONS {
            for byte in 0..=u8::MAX {
                let key = vec![byte; 32];
                let txid = Txid::from_bytes([byte; 32]);
                let partition = partition_of(&OutPoint::new(txid, 0), partitions);
                assert!(partition < partitions);
                assert!(first_key(partition, partitions) <= key);
                assert!(key < first_key(partition + 1, partitions));
            }
        }
    }
}
