//! The store: each operation in a transaction of its own.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_utxo_store::draft::{Draft, Loaded, Reads, Run, Stop, ops, run};
use groundtackle_utxo_store::{
    AlertStore, Applied, BlockHash, BlockStore, Capabilities, ChainBlock, Coin, ConflictStore,
    Connected, Cursor, Disconnected, Error, Fields, Health, HealthDepth, LongestChain,
    MaintenanceStore, MinedIn, NewRecord, NewTransaction, OutPoint, Outcome, OutputView, Page,
    Pruned, Reassignment, Record, Recovered, Result, RetentionStore, Retryability, ScanStore,
    SetDigest, SetScan, SpendOptions, SpendStore, Tip, Txid, UnminedTransaction, UnspendableRule,
    Verdict,
};
use rusqlite::{Connection, Row, params};
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

/// Rounds of looking for what a call needs; each is a generation of a cascade.
const MOST_ROUNDS: usize = 100_000;

/// Records that one step of pruning looks at: others get their turn between steps.
const STEP: usize = 512;

/// Outputs of confirmed transactions that nobody holds, or one who is not confirmed. A spender
/// without a record was confirmed, and pruned.
const COINS: &str = "SELECT o.txid, o.vout, o.value_sat, o.script, r.height, r.coinbase
    FROM output AS o CROSS JOIN record AS r ON r.txid = o.txid
    WHERE (o.txid, o.vout) > (?1, ?2) AND r.height IS NOT NULL AND (o.spender IS NULL
        OR EXISTS (SELECT 1 FROM record AS s WHERE s.txid = o.spender AND s.height IS NULL))
    ORDER BY o.txid, o.vout LIMIT ?3";

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

    /// Judges items in one transaction, and writes what changes.
    async fn call<I: Clone + Send + 'static, T: Send + 'static>(
        &self,
        pool: &Arc<Pool>,
        action: &'static str,
        items: &[I],
        each: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + 'static,
    ) -> Result<Vec<Outcome<T>>> {
        let (items, rule) = (check_items(items)?, self.rule);
        pool.transact(action, move |c| judge(c, rule, &items, each))
            .await
    }

    /// Counts what goes as soon as it has gone.
    async fn prune_into(&self, horizon: u32, pruned: &mut Pruned) -> Result<()> {
        let (rule, writer) = (self.rule, &self.writer);
        // First no block can be taken back any more, and then its records go.
        while let blocks @ 1.. = writer
            .transact("prune", move |c| prune_undo(c, horizon))
            .await?
        {
            pruned.blocks += blocks;
        }
        let step = move |c: &Connection| prune_expired(c, rule, horizon);
        while let Some(records) = writer.transact("prune", step).await? {
            pruned.records += records;
        }
        // One that goes may be all that kept another.
        let mut gone = 1;
        while gone > 0 {
            gone = 0;
            let conflicts = move |c: &Connection| old_conflicts(c, horizon);
            for txids in self.readers.ask("prune", conflicts).await?.chunks(STEP) {
                let forget = move |draft: &mut Draft<'_>, txid: &Txid| {
                    ops::prune_conflicting(draft, *txid, horizon)
                };
                gone += count(&self.call(writer, "prune", txids, forget).await?);
            }
            pruned.records += gone;
        }
        Ok(())
    }
}

fn check_items<T: Clone>(items: &[T]) -> Result<Vec<T>> {
    if items.len() > MOST_ITEMS {
        let what = format!(
            "{} items are too many: at most {MOST_ITEMS} in a call",
            items.len()
        );
        return Err(Error::invalid_request(what));
    }
    Ok(items.to_vec())
}

/// Reads what the call needs, round by round, until each item has its answer; then writes.
fn judge<I, T>(
    c: &Connection,
    rule: UnspendableRule,
    items: &[I],
    each: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop>,
) -> Result<Vec<Outcome<T>>, Fault> {
    let (mut loaded, mut missing) = (Loaded::new(), Reads::new());
    loaded.set_tip(database::tip(c)?);
    for _ in 0..MOST_ROUNDS {
        database::load(c, missing, &mut loaded)?;
        match run(&loaded, rule, items, &each) {
            Run::Incomplete(more) => missing = more,
            Run::Done(outcomes, changes) => {
                if !changes.is_empty() {
                    database::apply(c, &changes)?;
                }
                return Ok(outcomes);
            }
        }
    }
    let what = "the cascade is too deep; begin with a descendant";
    Err(Error::invalid_request(what).into())
}

/// The only answer.
fn one<T>(outcomes: Vec<Outcome<T>>) -> Result<Outcome<T>> {
    let missing = || Error::corrupt(BACKEND, "an answer", "it has no item");
    outcomes.into_iter().next().ok_or_else(missing)
}

fn count(gone: &[Outcome<bool>]) -> u64 {
    gone.iter().filter(|gone| **gone == Ok(true)).count() as u64
}

/// How many blocks' undo data went.
fn prune_undo(c: &Connection, horizon: u32) -> Result<u64, Fault> {
    if let Some(tip) = database::tip(c)? {
        tip.check_horizon(horizon)?;
    }
    let sql = "DELETE FROM undo WHERE block IN
        (SELECT block FROM undo WHERE height <= ?1 ORDER BY height LIMIT ?2)";
    Ok(execute(c, sql, params![horizon, STEP as i64])? as u64)
}

/// How many of the records that are listed went; `None` where none is listed.
fn prune_expired(
    c: &Connection,
    rule: UnspendableRule,
    horizon: u32,
) -> Result<Option<u64>, Fault> {
    let mut listed = c.prepare_cached("SELECT * FROM expiring WHERE height <= ?1 LIMIT ?2")?;
    let listed = listed.query_map(params![horizon, STEP as i64], |row| {
        Ok((row.get::<_, u32>(0)?, Txid::from_bytes(row.get(1)?)))
    })?;
    let listed = listed.collect::<rusqlite::Result<Vec<_>>>()?;
    let gone = judge(c, rule, &listed, |draft, (_, txid)| {
        ops::prune_confirmed(draft, *txid, horizon)
    })?;
    for (height, txid) in &listed {
        let done = "DELETE FROM expiring WHERE height = ?1 AND txid = ?2";
        execute(c, done, params![height, txid.as_bytes()])?;
        // What is preserved is looked at again when that is over.
        let later = "INSERT OR IGNORE INTO expiring SELECT preserve_until, txid FROM record
            WHERE txid = ?1 AND preserve_until > ?2";
        execute(c, later, params![txid.as_bytes(), horizon])?;
    }
    Ok((!listed.is_empty()).then(|| count(&gone)))
}

fn old_conflicts(c: &Connection, horizon: u32) -> Result<Vec<Txid>, Fault> {
    let sql = "SELECT txid FROM record WHERE unmined_since <= ?1 AND conflicting";
    let mut conflicts = c.prepare_cached(sql)?;
    let txids = conflicts.query_map([horizon], |row| Ok(Txid::from_bytes(row.get(0)?)))?;
    Ok(txids.collect::<rusqlite::Result<_>>()?)
}

fn view(c: &Connection, outpoint: OutPoint) -> Result<Outcome<OutputView>, Fault> {
    let Some(head) = database::record(c, &outpoint.txid, Fields::META)? else {
        return Ok(Err(Verdict::MissingTransaction { outpoint }));
    };
    let Some(slot) = database::output(c, &outpoint)? else {
        return Ok(Err(Verdict::MissingOutput { outpoint }));
    };
    Ok(Ok(OutputView {
        outpoint,
        state: slot.state(),
        output: slot.output,
        height: head.confirmed_height(),
        coinbase: head.coinbase,
        locked: head.locked,
        conflicting: head.conflicting,
    }))
}

/// Reads a page of rows after a place, and one more to see whether there are any.
fn page<T>(
    c: &Connection,
    (sql, values): (&str, [&dyn rusqlite::ToSql; 2]),
    limit: usize,
    item: impl Fn(&Row<'_>) -> rusqlite::Result<(T, Cursor)>,
) -> Result<Page<T>, Fault> {
    let mut rows = c.prepare_cached(sql)?;
    let [first, second] = values;
    let rows = rows.query_map(params![first, second, limit as i64 + 1], item)?;
    let mut items = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items
        .last()
        .filter(|_| more)
        .map(|(_, place)| place.clone());
    let items = items.into_iter().map(|(item, _)| item).collect();
    Ok(Page { items, next })
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
            let outpoint = OutPoint::new(Txid::from_bytes(row.get(0)?), row.get(1)?);
            let (height, coinbase) = (row.get(4)?, row.get(5)?);
            let output = database::to_tx_out(row)?;
            Ok((
                Coin {
                    outpoint,
                    output,
                    height,
                    coinbase,
                },
                outpoint.into(),
            ))
        };
        let read = move |c: &Connection| {
            let txid = txid.as_ref().map_or(&[][..], |txid| txid.as_bytes());
            page(c, (COINS, [&txid, &vout]), limit, coin)
        };
        self.worker.ask("scan", read).await
    }
}

/// Implements a trait: of each method that judges item by item the table has the connection, the items,
/// the arguments, the answer, and what judges one item. The other methods follow as they are.
macro_rules! implement {
    ($($power:ident {
        $($pool:ident $name:ident($item:ty $(, $arg:ident: $type:ty)*) -> $answer:ty = $each:expr;)*
        $(+ $($rest:tt)*)?
    })*) => {$(
        #[async_trait]
        impl $power for SqliteUtxoStore {
            $(async fn $name(&self, items: &[$item] $(, $arg: $type)*) -> Result<Vec<Outcome<$answer>>> {
                $(let $arg = $arg.to_owned();)*
                self.call(&self.$pool, stringify!($name), items, $each).await
            })*
            $($($rest)*)?
        }
    )*};
}

implement! {
    AlertStore {
        writer freeze(OutPoint) -> Applied = |draft, outpoint| ops::freeze(draft, *outpoint);
        writer unfreeze(OutPoint) -> Applied = |draft, outpoint| ops::unfreeze(draft, *outpoint);
        writer reassign(Reassignment) -> Applied = ops::reassign;
    }

    ConflictStore {
        writer set_locked(Txid, locked: bool) -> Applied = move |draft, txid| ops::set_locked(draft, *txid, locked);
        writer mark_conflicting(Txid) -> Vec<Txid> = |draft, txid| ops::mark_conflicting(draft, *txid);
        writer unmark_conflicting(Txid) -> Applied = |draft, txid| ops::unmark_conflicting(draft, *txid);
        readers counter_conflicting(Txid) -> Vec<Txid> = |draft, txid| ops::counter_conflicting(draft, *txid);
        readers conflicting_children(Txid) -> Vec<Txid> = |draft, txid| ops::conflicting_children(draft, *txid);
    }

    SpendStore {
        writer spend_and_create(NewTransaction, options: &SpendOptions) -> Applied =
            move |draft, new| ops::spend_and_create(draft, new, &options);
        writer create(NewRecord) -> Applied = ops::create;
        writer spend(Txid, options: &SpendOptions) -> Applied = move |draft, txid| ops::spend(draft, *txid, &options);
        writer unspend(Txid) -> Applied = |draft, txid| ops::unspend(draft, *txid);
        writer remove(Txid) -> Applied = |draft, txid| ops::remove(draft, *txid);
        +
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

        async fn records(&self, txids: &[Txid], fields: Fields) -> Result<Vec<Option<Record>>> {
            let txids = check_items(txids)?;
            let read = move |c: &Connection| txids.iter().map(|txid| database::record(c, txid, fields)).collect();
            self.readers.transact("read records", read).await
        }

        async fn outputs(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<OutputView>>> {
            let outpoints = check_items(outpoints)?;
            let read = move |c: &Connection| outpoints.iter().map(|outpoint| view(c, *outpoint)).collect();
            self.readers.transact("read outputs", read).await
        }
    }

    BlockStore {
        writer set_mined(Txid, mined: &MinedIn) -> Applied = move |draft, txid| ops::set_mined(draft, *txid, &mined);
        writer unset_mined(Txid, block: &BlockHash, unmined_since: u32) -> Applied =
            move |draft, txid| ops::unset_mined(draft, *txid, &block, unmined_since);
        writer set_longest_chain(Txid, block: &BlockHash, mark: LongestChain) -> Applied =
            move |draft, txid| ops::set_longest_chain(draft, *txid, &block, mark);
        +
        async fn tip(&self) -> Result<Option<Tip>> {
            self.readers.ask("read the tip", database::tip).await
        }

        async fn previous_tip(&self) -> Result<Option<Tip>> {
            let read = |c: &Connection| match database::tip(c)? {
                Some(tip) => Ok(database::undo(c, &tip.hash)?.and_then(|undo| undo.previous)),
                None => Ok(None),
            };
            self.readers.transact("read the previous tip", read).await
        }

        async fn set_tip(&self, tip: &Tip) -> Result<()> {
            let set = |draft: &mut Draft<'_>, tip: &Tip| -> Result<(), Stop> {
                ops::set_tip(draft, *tip);
                Ok(())
            };
            self.call(&self.writer, "set the tip", &[*tip], set).await.map(drop)
        }

        async fn connect_block(&self, block: &ChainBlock) -> Result<Outcome<Connected>> {
            let connect = |draft: &mut Draft<'_>, block: &ChainBlock| ops::connect_block(draft, block);
            one(self.call(&self.writer, "connect a block", std::slice::from_ref(block), connect).await?)
        }

        async fn disconnect_block(&self, block: &BlockHash, previous: &BlockHash) -> Result<Outcome<Disconnected>> {
            let previous = *previous;
            let disconnect = move |draft: &mut Draft<'_>, block: &BlockHash| ops::disconnect_block(draft, block, &previous);
            one(self.call(&self.writer, "disconnect a block", &[*block], disconnect).await?)
        }
    }

    RetentionStore {
        writer preserve(Txid, until_height: u32) -> Applied = move |draft, txid| ops::preserve(draft, *txid, until_height);
        +
        async fn unmined(&self, older_than: Option<u32>, after: Option<&Cursor>, limit: usize) -> Result<Page<UnminedTransaction>> {
            let after = after.map(Cursor::txid).transpose()?;
            let below = older_than.map_or(i64::MAX, i64::from);
            let item = |row: &Row<'_>| {
                let (txid, unmined_since) = (Txid::from_bytes(row.get(0)?), row.get(1)?);
                Ok((UnminedTransaction { txid, unmined_since }, txid.into()))
            };
            let read = move |c: &Connection| {
                let sql = "SELECT txid, unmined_since FROM record WHERE unmined_since < ?1 AND txid > ?2 ORDER BY txid LIMIT ?3";
                let after = after.as_ref().map_or(&[][..], |txid| txid.as_bytes());
                page(c, (sql, [&below, &after]), limit.clamp(1, MOST_ITEMS), item)
            };
            self.readers.ask("list unmined transactions", read).await
        }

        async fn prune(&self, horizon: u32) -> Result<Pruned> {
            let mut pruned = Pruned::default();
            if self.tip().await?.is_none() {
                return Ok(pruned);
            }
            let done = self.prune_into(horizon, &mut pruned).await;
            pruned.when(done, BACKEND)
        }
    }

    ScanStore {
        +
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
            Ok(Box::new(SqliteScan { tip, worker, _permit }))
        }

        async fn digest(&self) -> Result<SetDigest> {
            let read = |c: &Connection| Ok(SetDigest { tip: database::tip(c)?, muhash: database::muhash(c)?.digest() });
            self.readers.transact("read the digest", read).await
        }
    }

    MaintenanceStore {
        +
        /// SQLite undoes by itself what was not committed.
        async fn recover(&self) -> Result<Recovered> {
            Ok(Recovered::default())
        }

        /// What was acknowledged is durable.
        async fn flush(&self) -> Result<()> {
            if self.writer.is_poisoned() {
                return Err(self.writer.poisoned());
            }
            Ok(())
        }

        async fn health(&self, depth: HealthDepth) -> Result<Health> {
            let tried = match depth {
                HealthDepth::Liveness => self.flush().await,
                // Writes a little, as any change does.
                HealthDepth::Readiness => self.writer.transact("check the store", |c| Ok(database::set(c, "checked", 1).map(|_| ())?)).await,
            };
            let reason = |error: Error| match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            };
            let reasons: Vec<_> = tried.err().into_iter().map(reason).collect();
            Ok(Health { ready: reasons.is_empty(), reasons })
        }
    }
}
