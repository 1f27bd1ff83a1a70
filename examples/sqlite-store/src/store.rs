//! The store: each operation in a transaction of its own.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_utxo_store::draft::{
    self, Call, Draft, DraftStore, Operation, Pruning, Stop, ops,
};
use groundtackle_utxo_store::{
    Capabilities, Coin, Cursor, Error, Health, HealthDepth, OutPoint, Outcome, Page, Recovered,
    Result, Retryability, SetDigest, SetScan, Tip, Txid, UnminedTransaction, UnspendableRule,
    draft_store,
};
use rusqlite::{Connection, Row, ToSql, params};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use crate::database::{self, BACKEND, Fault, connect, during, execute};
use crate::pool::Pool;

const OPEN: &str = "open the store";

/// Items of one call.
const MOST_ITEMS: usize = 10_000;

/// Reads at once.
const READERS: usize = 4;

/// Scans at once. While one is under way the write-ahead log grows.
const SCANS: usize = 4;

/// Records that one step of pruning looks at: others get their turn between steps.
const STEP: usize = 512;

/// Outputs of confirmed transactions that nobody holds, or one who is not confirmed. A spender
/// without a record was confirmed, and pruned.
const COINS: &str = "SELECT o.txid, o.vout, o.value_sat, o.script, r.height, r.coinbase
    FROM output AS o CROSS JOIN record AS r ON r.txid = o.txid
    WHERE (o.txid, o.vout) > (?1, ?2) AND r.height IS NOT NULL AND (o.spender IS NULL
        OR EXISTS (SELECT 1 FROM record AS s WHERE s.txid = o.spender AND s.height IS NULL))
    ORDER BY o.txid, o.vout LIMIT ?3";

const UNMINED: &str = "SELECT txid, unmined_since FROM record
    WHERE unmined_since < ?1 AND txid > ?2 ORDER BY txid LIMIT ?3";

/// A UTXO store in one SQLite file. Clones share it; other processes may have it open too.
#[derive(Clone, Debug)]
pub struct SqliteUtxoStore {
    rule: UnspendableRule,
    writer: Arc<Pool>,
    readers: Arc<Pool>,
    scans: Arc<Semaphore>,
}

impl SqliteUtxoStore {
    /// Opens the store in the file at `path`, or creates it. Which outputs get no slot is fixed then.
    ///
    /// # Errors
    /// `InvalidRequest` for another program's database, or a store of another rule; `NewerFormat`;
    /// `Corrupt`; `Backend` where the file can't be opened.
    pub async fn open(path: impl AsRef<Path>, rule: UnspendableRule) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let file = path.clone();
        let open = move || -> Result<Self, Fault> {
            let writer = Pool::new(&path, vec![database::writer(&path, rule)?]);
            let readers = std::iter::repeat_with(|| connect(&path)).take(READERS);
            let readers = Pool::new(&path, readers.collect::<rusqlite::Result<_>>()?);
            let scans = Arc::new(Semaphore::new(SCANS));
            Ok(Self {
                rule,
                writer,
                readers,
                scans,
            })
        };
        let lost = |lost| Err(Error::backend(BACKEND, OPEN, Retryability::Transient, lost).into());
        let opened = spawn_blocking(open).await.unwrap_or_else(lost);
        opened.map_err(|fault| during(fault, OPEN, &file))
    }
}

/// Reads what a call needs, judges it, and writes what changes.
fn carry_out<I: Clone, T>(
    c: &Connection,
    rule: UnspendableRule,
    call: Call<'_, I>,
    judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop>,
) -> Result<Vec<Outcome<T>>, Fault> {
    let load = |reads: &_, loaded: &mut _| database::load(c, reads, loaded);
    let (outcomes, changes) = draft::judge(call, rule, database::tip(c)?, load, judge)?;
    if !changes.is_empty() {
        database::apply(c, &changes)?;
    }
    Ok(outcomes)
}

/// How many blocks' undo data went: when none does, the horizon is one that no block is taken back to.
fn prune_undo(c: &Connection, horizon: u32) -> Result<u64, Fault> {
    if let Some(tip) = database::tip(c)? {
        tip.check_horizon(horizon)?;
    }
    let sql = "DELETE FROM undo WHERE block IN
        (SELECT block FROM undo WHERE height <= ?1 ORDER BY height LIMIT ?2)";
    Ok(execute(c, sql, params![horizon, STEP as i64])? as u64)
}

/// What became of some of the records listed; of none where none is.
fn prune_expired(
    c: &Connection,
    rule: UnspendableRule,
    horizon: u32,
) -> Result<Vec<Outcome<bool>>, Fault> {
    let mut listed = c.prepare_cached("SELECT * FROM expiring WHERE height <= ?1 LIMIT ?2")?;
    let listed = listed.query_map(params![horizon, STEP as i64], |row| {
        Ok((row.get::<_, u32>(0)?, Txid::from_bytes(row.get(1)?)))
    })?;
    let listed = listed.collect::<rusqlite::Result<Vec<_>>>()?;
    let call = Call::new(Operation::Prune, &listed, |reads, (_, txid)| {
        reads.whole(*txid)
    });
    let judge =
        |draft: &mut Draft<'_>, (_, txid): &(_, Txid)| ops::prune_confirmed(draft, *txid, horizon);
    let gone = carry_out(c, rule, call, judge)?;
    for (height, txid) in &listed {
        let done = "DELETE FROM expiring WHERE height = ?1 AND txid = ?2";
        execute(c, done, params![height, txid.as_bytes()])?;
        // What is preserved is looked at again when that is over.
        let later = "INSERT OR IGNORE INTO expiring SELECT preserve_until, txid FROM record
            WHERE txid = ?1 AND preserve_until > ?2";
        execute(c, later, params![txid.as_bytes(), horizon])?;
    }
    Ok(gone)
}

/// A page of rows, read with one more to see whether there are any.
fn page<T>(
    c: &Connection,
    sql: &str,
    values: [&dyn ToSql; 2],
    limit: usize,
    item: fn(&Row<'_>) -> rusqlite::Result<T>,
    place: fn(&T) -> Cursor,
) -> Result<Page<T>, Fault> {
    let mut rows = c.prepare_cached(sql)?;
    let [first, second] = values;
    let rows = rows.query_map(params![first, second, limit as i64 + 1], item)?;
    let items = rows.collect::<rusqlite::Result<_>>()?;
    Ok(Page::first(limit, items, place))
}

/// In one transaction that reads: all pages are of the moment when it began.
#[derive(Debug)]
struct SqliteScan {
    tip: Option<Tip>,
    worker: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

#[async_trait]
impl SetScan for SqliteScan {
    fn tip(&self) -> Option<Tip> {
        self.tip
    }

    fn partitions(&self) -> u32 {
        1
    }

    async fn page(
        &self,
        partition: u32,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Coin>> {
        if partition != 0 {
            return Err(Error::invalid_request("there is one partition, number 0"));
        }
        let after = after.map(Cursor::outpoint).transpose()?;
        let (txid, vout) = after.map_or((None, 0), |after| (Some(after.txid), after.vout));
        let limit = limit.clamp(1, MOST_ITEMS);
        let coin = |row: &Row<'_>| {
            Ok(Coin {
                outpoint: OutPoint::new(Txid::from_bytes(row.get(0)?), row.get(1)?),
                output: database::to_tx_out(row)?,
                height: row.get(4)?,
                coinbase: row.get(5)?,
            })
        };
        let read = move |c: &Connection| {
            let txid = txid.as_ref().map_or(&[][..], |txid| txid.as_bytes());
            page(c, COINS, [&txid, &vout], limit, coin, |coin| {
                coin.outpoint.into()
            })
        };
        self.worker.ask("scan", read).await
    }
}

impl DraftStore for SqliteUtxoStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(BACKEND);
        capabilities.persistent = true;
        capabilities.snapshot_scan = true;
        capabilities.ordered_scan = true;
        capabilities.incremental_digest = true;
        capabilities.atomic_blocks = true;
        capabilities.max_batch_items = Some(MOST_ITEMS);
        capabilities
    }

    async fn call<I: Clone + Send + Sync + 'static, T: Send + 'static>(
        &self,
        call: Call<'_, I>,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync + 'static,
    ) -> Result<Vec<Outcome<T>>> {
        let (rule, operation, call) = (self.rule, call.operation, call.into_owned());
        let pool = match operation.only_reads() {
            true => &self.readers,
            false => &self.writer,
        };
        let work = move |c: &Connection| carry_out(c, rule, call, judge);
        pool.transact(operation.action(), work).await
    }

    async fn unmined(
        &self,
        older_than: Option<u32>,
        after: Option<Txid>,
        limit: usize,
    ) -> Result<Page<UnminedTransaction>> {
        let below = older_than.map_or(i64::MAX, i64::from);
        let item = |row: &Row<'_>| {
            let (txid, unmined_since) = (Txid::from_bytes(row.get(0)?), row.get(1)?);
            Ok(UnminedTransaction {
                txid,
                unmined_since,
            })
        };
        let read = move |c: &Connection| {
            let after = after.as_ref().map_or(&[][..], |txid| txid.as_bytes());
            page(c, UNMINED, [&below, &after], limit, item, |tx| {
                tx.txid.into()
            })
        };
        self.readers.ask("list unmined transactions", read).await
    }

    async fn prune_undo(&self, horizon: u32, so_far: &mut Pruning) -> Result<bool> {
        let prune = move |c: &Connection| prune_undo(c, horizon);
        let blocks = self.writer.transact("prune", prune).await?;
        so_far.pruned.blocks += blocks;
        Ok(blocks > 0)
    }

    async fn prune_expired(&self, horizon: u32, so_far: &mut Pruning) -> Result<bool> {
        let rule = self.rule;
        let prune = move |c: &Connection| prune_expired(c, rule, horizon);
        let gone = self.writer.transact("prune", prune).await?;
        so_far.count(&gone);
        Ok(!gone.is_empty())
    }

    async fn scan(&self) -> Result<Box<dyn SetScan>> {
        let permit = self.scans.clone().try_acquire_owned();
        let _permit = permit.map_err(|_| Error::overloaded(BACKEND, "scan"))?;
        let path = self.readers.path.clone();
        let begin = move |_: &Connection| {
            let connection = connect(&path)?;
            connection.execute_batch("BEGIN")?;
            // What is read first is of the moment that all pages will be of.
            let tip = database::tip(&connection)?;
            Ok((tip, Pool::new(&path, vec![connection])))
        };
        let (tip, worker) = self.readers.ask("scan", begin).await?;
        Ok(Box::new(SqliteScan {
            tip,
            worker,
            _permit,
        }))
    }

    async fn digest(&self) -> Result<SetDigest> {
        let read = |c: &Connection| {
            let (tip, muhash) = (database::tip(c)?, database::muhash(c)?.digest());
            Ok(SetDigest { tip, muhash })
        };
        self.readers.transact("read the digest", read).await
    }

    /// SQLite undoes by itself what was not committed.
    async fn recover(&self) -> Result<Recovered> {
        Ok(Recovered::default())
    }

    /// What was acknowledged is durable.
    async fn flush(&self) -> Result<()> {
        match self.writer.is_poisoned() {
            true => Err(self.writer.poisoned()),
            false => Ok(()),
        }
    }

    async fn health(&self, depth: HealthDepth) -> Result<Health> {
        // Writes a little, as any change does.
        let check = |c: &Connection| Ok(database::set(c, "checked", 1).map(drop)?);
        let tried = match depth {
            HealthDepth::Liveness => self.flush().await,
            HealthDepth::Readiness => self.writer.transact("check the store", check).await,
        };
        Ok(Health::of(tried))
    }
}

draft_store!(SqliteUtxoStore);
