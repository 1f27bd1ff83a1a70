//! Ripe coinbase outputs by locking script, and who is about to spend them.

use std::time::Duration;

use groundtackle_utxo_store::{
    COINBASE_MATURITY, Coin, Error, OutPoint, Result, Retryability, Script, TxOut,
};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::error::{BACKEND, Failed};
use crate::record::{self, column};
use crate::statements::Statements;
use crate::store::PostgresUtxoStore;

/// The coinbase outputs of a store: what a coinbase service spends from.
///
/// An output is listed while it is ripe, confirmed on the longest chain, unspent, not frozen, its
/// transaction neither locked nor marked conflicting, and not reserved. A reservation keeps it from
/// other reservations until it expires, is released, or the output is spent; it does not keep
/// anybody from spending the output.
///
/// Time is the server's clock.
#[derive(Clone, Debug)]
pub struct CoinbaseOutputs {
    store: PostgresUtxoStore,
    maturity: u32,
}

/// Coinbase outputs that are reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reserved {
    /// The outputs, oldest first.
    pub coins: Vec<Coin>,
    /// Their sum in satoshis: at least what was asked for.
    pub total_sat: u64,
}

impl PostgresUtxoStore {
    /// The store's coinbase outputs under the usual maturity of 100 blocks.
    pub fn coinbase_outputs(&self) -> CoinbaseOutputs {
        CoinbaseOutputs {
            store: self.clone(),
            maturity: COINBASE_MATURITY,
        }
    }
}

impl CoinbaseOutputs {
    /// Blocks until a coinbase output may be spent, on chains where they are not 100.
    #[must_use]
    pub const fn with_maturity(mut self, maturity: u32) -> Self {
        self.maturity = maturity;
        self
    }

    /// Outputs of `script` that a transaction in a block at `height` may spend and that nobody has
    /// reserved, oldest first; at most `limit`, and at least one.
    ///
    /// **Atomicity**: one moment. **Idempotency**, **cancel safety**: a read.
    ///
    /// # Errors
    /// When the store could not answer.
    pub async fn spendable(&self, script: &Script, height: u32, limit: usize) -> Result<Vec<Coin>> {
        let Some(ripe) = self.ripe(height) else {
            return Ok(Vec::new());
        };
        let (script, height) = (script.as_bytes(), i64::from(height));
        let limit = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
        let values: [&(dyn ToSql + Sync); 4] = [&script, &ripe, &height, &limit];
        let rows = self
            .store
            .inner
            .query("list coinbase outputs", |s| &s.spendable_coinbase, &values)
            .await?;
        rows.iter().map(coin).collect()
    }

    /// Reserves outputs of `script` for `owner`, oldest first, until they hold `amount_sat`; `None`
    /// where all that is free holds less, and nothing is reserved then. At most `most` outputs.
    ///
    /// **Atomicity**: all of them or none; two reservations never overlap, and one does not wait for
    /// another. **Idempotency**: none: each call reserves further outputs.
    /// **Cancel safety**: reserved or not; what nobody uses expires.
    ///
    /// # Errors
    /// When the store could not answer; `InvalidRequest` for a lifetime of nothing.
    pub async fn reserve(
        &self,
        owner: &str,
        script: &Script,
        height: u32,
        amount_sat: u64,
        most: usize,
        lifetime: Duration,
    ) -> Result<Option<Reserved>> {
        const ACTION: &str = "reserve coinbase outputs";
        if lifetime.is_zero() {
            return Err(Error::invalid_request(
                "a reservation needs a lifetime above zero",
            ));
        }
        let Some(ripe) = self.ripe(height) else {
            return Ok(None);
        };
        let (script, height) = (script.as_bytes(), i64::from(height));
        let limit = i64::try_from(most.max(1)).unwrap_or(i64::MAX);
        let lifetime = lifetime.as_secs_f64();
        let inner = &self.store.inner;
        let mut attempts = inner.attempts(ACTION);
        let mut committing = false;
        loop {
            let reserved = async {
                let mut lease = inner.lease(ACTION).await?;
                lease.begin();
                let session = lease.session()?;
                let (client, statements) = (&session.client, &session.statements);
                let values: [&(dyn ToSql + Sync); 4] = [&script, &ripe, &height, &limit];
                let begin = async {
                    tokio::try_join!(
                        biased;
                        client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"),
                        // One at a time for each script, so that two don't pick the same.
                        client.execute(&statements.lock_script, &values[..1]),
                        client.query(&statements.spendable_coinbase, &values),
                    )
                };
                let (_, _, rows) = lease.answer(ACTION, Box::pin(begin)).await?;
                let mut reserved = Reserved {
                    coins: Vec::new(),
                    total_sat: 0,
                };
                for row in &rows {
                    if reserved.total_sat >= amount_sat && !reserved.coins.is_empty() {
                        break;
                    }
                    let coin = coin(row)?;
                    reserved.total_sat = reserved.total_sat.saturating_add(coin.output.value_sat);
                    reserved.coins.push(coin);
                }
                if reserved.coins.is_empty() || reserved.total_sat < amount_sat {
                    lease.rollback(ACTION).await?;
                    return Ok(None);
                }
                let (txids, vouts) = columns(reserved.coins.iter().map(|coin| &coin.outpoint));
                let values: [&(dyn ToSql + Sync); 4] = [&txids, &vouts, &owner, &lifetime];
                let write = async {
                    tokio::try_join!(
                        biased;
                        client.execute(&statements.insert_reservations, &values),
                        client.batch_execute("COMMIT"),
                    )
                };
                // If this is in doubt and tried again, the first reservation expires unused.
                committing = true;
                lease.answer(ACTION, Box::pin(write)).await?;
                lease.end();
                Ok::<_, Failed>(Some(reserved))
            };
            match Box::pin(reserved).await {
                Ok(reserved) => return Ok(reserved),
                Err(failed) => {
                    let again = failed.again(&mut attempts).await;
                    again.map_err(|error| match committing {
                        true => error.after_effect(BACKEND, ACTION),
                        false => error,
                    })?;
                }
            }
        }
    }

    /// Releases what `owner` has reserved of `outpoints`. Says how many that were.
    ///
    /// **Atomicity**: all of them. **Idempotency**: yes. **Cancel safety**: repeat it.
    ///
    /// # Errors
    /// When the store could not answer.
    pub async fn release(&self, owner: &str, outpoints: &[OutPoint]) -> Result<u64> {
        let (txids, vouts) = columns(outpoints);
        let values: [&(dyn ToSql + Sync); 3] = [&txids, &vouts, &owner];
        self.delete("release coinbase outputs", |s| &s.release, &values)
            .await
    }

    /// Forgets reservations that have expired, or whose outputs are spent or gone. Nothing depends on it
    /// but the size of a table. Says how many went.
    ///
    /// **Atomicity**: all of them. **Idempotency**: yes. **Cancel safety**: repeat it.
    ///
    /// # Errors
    /// When the store could not answer.
    pub async fn tidy(&self) -> Result<u64> {
        self.delete("tidy reservations", |s| &s.tidy_reservations, &[])
            .await
    }

    /// A statement that commits by itself: without an answer, it may have had effect.
    async fn delete(
        &self,
        action: &'static str,
        statement: impl Fn(&Statements) -> &tokio_postgres::Statement + Send + Sync,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<u64> {
        match self.store.inner.query(action, statement, values).await {
            Ok(rows) => Ok(rows.len() as u64),
            Err(error) if error.retryability() == Retryability::Permanent => Err(error),
            Err(error) => Err(error.after_effect(BACKEND, action)),
        }
    }

    /// The last height whose coinbase is ripe for a block at `height`.
    fn ripe(&self, height: u32) -> Option<i64> {
        height.checked_sub(self.maturity).map(i64::from)
    }
}

fn columns<'a>(outpoints: impl IntoIterator<Item = &'a OutPoint>) -> (Vec<&'a [u8]>, Vec<i64>) {
    outpoints
        .into_iter()
        .map(|outpoint| {
            (
                outpoint.txid.as_bytes().as_slice(),
                i64::from(outpoint.vout),
            )
        })
        .unzip()
}

fn coin(row: &Row) -> Result<Coin> {
    Ok(Coin {
        outpoint: OutPoint::new(record::txid(row, 0)?, record::number(column(row, 1)?)?),
        output: TxOut {
            value_sat: column::<i64>(row, 2)?.cast_unsigned(),
            script: column::<Vec<u8>>(row, 3)?.into(),
        },
        height: record::number(column(row, 4)?)?,
        coinbase: true,
    })
}
