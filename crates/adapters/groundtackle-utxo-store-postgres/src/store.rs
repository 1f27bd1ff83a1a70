use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use groundtackle_utxo_store::draft::{Call, Draft, DraftStore, Pruning, Stop, blocking};
use groundtackle_utxo_store::{
    Capabilities, Error, Fields, Health, HealthDepth, OutPoint, Outcome, OutputView, Page, Record,
    Recovered, Result, SetDigest, SetScan, Tip, Txid, UnminedTransaction, Verdict, draft_store,
};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::config::PostgresUtxoStoreConfig;
use crate::error::{BACKEND, Failed, corrupt, no_answer};
use crate::record::{self, column};
use crate::scan::PostgresScan;
use crate::schema;
use crate::session::{Server, SessionPool};

/// A UTXO store in a PostgreSQL database. Clones share the pool of connections.
#[derive(Clone)]
pub struct PostgresUtxoStore {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for PostgresUtxoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresUtxoStore")
            .field("schema", &self.inner.config.schema)
            .finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) server: Arc<Server>,
    pub(crate) pool: SessionPool,
    pub(crate) config: PostgresUtxoStoreConfig,
    /// Whether the transactions that the last call of a kind brought were new to the store: of blocks, and
    /// of others.
    pub(crate) new_before: [AtomicBool; 2],
}

impl PostgresUtxoStore {
    /// Connects to the server, and opens the store of the config's schema, creates it, or migrates it.
    ///
    /// Runs on tokio, on whose runtime the connections live.
    ///
    /// # Errors
    /// `InvalidRequest` for settings that make no sense, another server version, unsafe durability, or what
    /// differs from what was fixed at creation; `NewerFormat`; `NotFound` unless it may be created;
    /// `Backend` where the server can't be reached, or refuses user, password or rights.
    pub async fn open(config: PostgresUtxoStoreConfig) -> Result<Self> {
        schema::check_config(&config)?;
        let server = Server::new(&config)?;
        Box::pin(schema::prepare(&server, &config))
            .await
            .map_err(|failed| failed.error)?;
        let pool = server.pool(&config)?;
        Ok(Self {
            inner: Arc::new(Inner {
                server: Arc::new(server),
                pool,
                config,
                new_before: [const { AtomicBool::new(true) }; 2],
            }),
        })
    }
}

impl DraftStore for PostgresUtxoStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(BACKEND);
        capabilities.persistent = true;
        capabilities.snapshot_scan = true;
        capabilities.ordered_scan = true;
        capabilities.incremental_digest = true;
        capabilities.atomic_blocks = true;
        capabilities.max_batch_items = Some(self.inner.config.max_batch_items);
        capabilities
    }

    async fn call<I, T>(
        &self,
        call: Call<'_, I>,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync + 'static,
    ) -> Result<Vec<Outcome<T>>>
    where
        I: Clone + Send + Sync + 'static,
        T: Send + 'static,
    {
        self.inner.call(call, judge).await
    }

    async fn records(&self, txids: &[Txid], fields: Fields) -> Result<Vec<Option<Record>>> {
        let (records, outputs) = self
            .inner
            .read_records("read records", txids, fields)
            .await?;
        let mut found = std::collections::HashMap::with_capacity(records.len());
        for row in &records {
            let record = record::record(row)?;
            found.insert(record.txid, record);
        }
        for row in &outputs {
            if let Some(record) = found.get_mut(&record::txid(row, 0)?) {
                record.outputs.push(record::output(row, 1)?);
            }
        }
        let asked: std::collections::HashSet<_> = txids.iter().collect();
        if let Some(other) = found.keys().find(|txid| !asked.contains(txid)) {
            return Err(Error::WrongRecord {
                backend: BACKEND,
                asked: txids.first().copied().unwrap_or_default(),
                got: other.to_string(),
            });
        }
        Ok(txids.iter().map(|txid| found.get(txid).cloned()).collect())
    }

    async fn outputs(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<OutputView>>> {
        let txids: Vec<&[u8]> = outpoints
            .iter()
            .map(|o| o.txid.as_bytes().as_slice())
            .collect();
        let vouts: Vec<i64> = outpoints.iter().map(|o| o.vout.into()).collect();
        let rows = self
            .inner
            .query("read outputs", |s| &s.views, &[&txids, &vouts])
            .await?;
        let mut views: Vec<_> = outpoints
            .iter()
            .map(|outpoint| {
                Err(Verdict::MissingTransaction {
                    outpoint: *outpoint,
                })
            })
            .collect();
        for row in &rows {
            let at = usize::try_from(column::<i64>(row, 0)? - 1).unwrap_or(usize::MAX);
            let (Some(view), Some(outpoint)) = (views.get_mut(at), outpoints.get(at).copied())
            else {
                return Err(corrupt(
                    "an answer",
                    "it has more items than were asked for",
                ));
            };
            let txid = record::txid(row, 1)?;
            if txid != outpoint.txid {
                return Err(Error::WrongRecord {
                    backend: BACKEND,
                    asked: outpoint.txid,
                    got: txid.to_string(),
                });
            }
            *view = if column::<Option<i64>>(row, 6)?.is_none() {
                Err(Verdict::MissingOutput { outpoint })
            } else {
                let slot = record::output(row, 6)?;
                Ok(OutputView {
                    outpoint,
                    state: slot.state(),
                    output: slot.output,
                    height: record::numbers(row, 5)?,
                    coinbase: column(row, 2)?,
                    locked: column(row, 3)?,
                    conflicting: column(row, 4)?,
                })
            };
        }
        Ok(views)
    }

    async fn tip(&self) -> Result<Option<Tip>> {
        Ok(self.inner.chain("read the tip").await?.tip)
    }

    async fn previous_tip(&self) -> Result<Option<Tip>> {
        let rows = self
            .inner
            .query("read the previous tip", |s| &s.previous_tip, &[])
            .await?;
        Ok(rows
            .first()
            .map(|row| record::tip(row, 0))
            .transpose()?
            .flatten())
    }

    async fn unmined(
        &self,
        older_than: Option<u32>,
        after: Option<Txid>,
        limit: usize,
    ) -> Result<Page<UnminedTransaction>> {
        let after = after.map_or(Vec::new(), |txid| txid.as_bytes().to_vec());
        let rows = self
            .inner
            .query(
                "list unmined transactions",
                |s| &s.unmined,
                &[
                    &after,
                    &older_than.map(i64::from),
                    &i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX),
                ],
            )
            .await?;
        let item = |row: &Row| {
            Ok(UnminedTransaction {
                txid: record::txid(row, 0)?,
                unmined_since: record::number(column(row, 1)?)?,
            })
        };
        let items = rows.iter().map(item).collect::<Result<_>>()?;
        Ok(Page::first(limit, items, |last: &UnminedTransaction| {
            last.txid.into()
        }))
    }

    async fn prune_undo(&self, horizon: u32, so_far: &mut Pruning) -> Result<bool> {
        self.inner.prune_undo(horizon, so_far).await
    }

    async fn prune_expired(&self, horizon: u32, so_far: &mut Pruning) -> Result<bool> {
        self.inner.prune_expired(horizon, so_far).await
    }

    async fn old_conflicts(&self, horizon: u32, after: Option<Txid>) -> Result<Page<Txid>> {
        self.inner.old_conflicts(horizon, after).await
    }

    async fn scan(&self) -> Result<Box<dyn SetScan>> {
        Ok(Box::new(PostgresScan::begin(self.inner.clone()).await?))
    }

    async fn digest(&self) -> Result<SetDigest> {
        let chain = self.inner.chain("read the digest").await?;
        Ok(SetDigest {
            tip: chain.tip,
            muhash: blocking(|| chain.muhash.digest()),
        })
    }

    /// A change is one transaction of the server, which rolls back what a crash cut short.
    async fn recover(&self) -> Result<Recovered> {
        self.inner
            .query("recover", |s| &s.forget_calls, &[])
            .await?;
        Ok(Recovered::default())
    }

    /// A commit returns when it is durable.
    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn health(&self, depth: HealthDepth) -> Result<Health> {
        let status = self.inner.pool.status();
        let mut reasons = Vec::new();
        if status.waiting > 0 {
            reasons.push(format!(
                "all {} connections are in use and {} calls wait; raise max_connections, or send less at a time",
                status.max_size, status.waiting
            ));
        }
        let mut ready = true;
        if depth == HealthDepth::Readiness {
            match self.inner.ready().await {
                Ok(found) => {
                    ready = found.is_empty() || self.inner.config.allow_unsafe_durability;
                    reasons.extend(found);
                }
                Err(failed) => {
                    ready = false;
                    let source = std::error::Error::source(&failed.error);
                    let cause = source.map(|cause| format!(": {cause}"));
                    reasons.push(format!("{}{}", failed.error, cause.unwrap_or_default()));
                }
            }
        }
        Ok(Health { ready, reasons })
    }
}

draft_store!(PostgresUtxoStore);

impl Inner {
    /// Writes and reads a little; tells what is unsafe.
    async fn ready(&self) -> Result<Vec<String>, Failed> {
        let action = "check the store";
        let mut lease = self.lease(action).await?;
        let Some((id, number)) = lease.number_call() else {
            return Err(no_answer(action));
        };
        let id = id.as_slice();
        lease.begin();
        let session = lease.session()?;
        let values: [&(dyn ToSql + Sync); 2] = [&id, &number];
        let write = session
            .client
            .execute(&session.statements.number_call, &values);
        lease.answer(action, write).await?;
        let version = session
            .client
            .query_one("SELECT schema_version FROM chain", &[]);
        let version: i64 = column(&lease.answer(action, version).await?, 0)?;
        let off = lease
            .answer(action, schema::unsafe_settings(&session.client))
            .await?;
        lease.end();
        let mut reasons: Vec<String> = off
            .iter()
            .map(|setting| format!("the server runs with {setting} off, so a power failure can damage it; turn it on"))
            .collect();
        if version != i64::from(schema::VERSION) {
            return Err(Error::NewerFormat {
                store: format!("schema {}", self.config.schema),
                found: u32::try_from(version).unwrap_or(u32::MAX),
                supported: schema::VERSION,
            }
            .into());
        }
        reasons.sort();
        Ok(reasons)
    }
}
