//! The file: how it is opened, and what lies where.

use std::path::Path;
use std::time::Duration;

use groundtackle_core::fail_point;
use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::draft::{BlockUndo, Changes, Loaded, Reads};
use groundtackle_utxo_store::{
    BlockHash, Error, Fields, OutPoint, Record, RecordOutput, Retryability, Script, SpentBy, Tip,
    TxOut, Txid, UnspendableRule,
};
use rusqlite::types::FromSql;
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Params, Row, ToSql, TransactionBehavior, params,
};
use serde_json::{from_str, to_string};

pub(crate) const BACKEND: &str = "sqlite";

/// The format that this version reads and writes.
const FORMAT: u32 = 1;

/// "gtUS": by it the file is known, by SQLite's own tools too.
const APPLICATION_ID: u32 = 0x6774_5553;

/// How long to wait for another process that writes.
const BUSY: Duration = Duration::from_secs(10);

/// What stops a transaction: the port's error, SQLite's, or that of a value which can't be read.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// In the port's terms, of a transaction that was rolled back.
pub(crate) fn during(fault: Fault, action: &str, path: &Path) -> Error {
    use ErrorCode::{DatabaseBusy, DatabaseCorrupt, DiskFull, NotADatabase, SystemIoFailure};
    let source = match fault.downcast::<Error>() {
        Ok(error) => return *error,
        Err(fault) => fault,
    };
    let store = path.display().to_string();
    let sqlite = source.downcast_ref::<rusqlite::Error>();
    match sqlite.and_then(rusqlite::Error::sqlite_error_code) {
        None | Some(DatabaseCorrupt | NotADatabase) => {
            Error::corrupt(BACKEND, store, source.to_string())
        }
        Some(DiskFull) => Error::Full { store, source },
        Some(DatabaseBusy | SystemIoFailure) => {
            Error::backend(BACKEND, action, Retryability::Transient, source)
        }
        Some(_) => Error::backend(BACKEND, action, Retryability::Permanent, source),
    }
}

/// A connection that sees one moment from the first to the last read of a transaction.
pub(crate) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// The connection that writes: when a commit returns, the log with the change is on the disk.
pub(crate) fn writer(path: &Path, rule: UnspendableRule) -> Result<Connection, Fault> {
    let mut connection = connect(path)?;
    connection.set_transaction_behavior(TransactionBehavior::Immediate);
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "fullfsync", true)?;
    prepare(&connection, path.display().to_string(), rule)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    Ok(connection)
}

/// Makes the tables, or checks what is there.
fn prepare(connection: &Connection, store: String, rule: UnspendableRule) -> Result<(), Fault> {
    let change = connection.unchecked_transaction()?;
    let tables: u32 = change.query_row("SELECT count(*) FROM sqlite_schema", (), first)?;
    let id: u32 = change.pragma_query_value(None, "application_id", first)?;
    let found: u32 = change.pragma_query_value(None, "user_version", first)?;
    if (tables, id, found) == (0, 0, 0) {
        change.execute_batch(include_str!("schema.sql"))?;
        set(&change, "rule", to_string(&rule)?)?;
        set(&change, "muhash", MuHash3072::new().to_bytes())?;
        change.pragma_update(None, "application_id", APPLICATION_ID)?;
        change.pragma_update(None, "user_version", FORMAT)?;
        fail_point("sqlite.create.drawn");
        change.commit()?;
        fail_point("sqlite.create.done");
    } else if id != APPLICATION_ID {
        let what = format!("{store} is another program's database; name another file");
        return Err(Error::invalid_request(what).into());
    } else if found != FORMAT {
        let supported = FORMAT;
        return Err(Error::NewerFormat {
            store,
            found,
            supported,
        }
        .into());
    } else if get::<String>(&change, "rule")? != Some(to_string(&rule)?) {
        let what = format!("{store} has another rule for unspendable outputs; give that one");
        return Err(Error::invalid_request(what).into());
    }
    Ok(())
}

fn first<T: FromSql>(row: &Row<'_>) -> rusqlite::Result<T> {
    row.get(0)
}

/// The first column of the first row.
fn ask<T: FromSql>(c: &Connection, sql: &str, values: impl Params) -> rusqlite::Result<Option<T>> {
    c.prepare_cached(sql)?.query_row(values, first).optional()
}

/// Changes rows, and says how many.
pub(crate) fn execute(c: &Connection, sql: &str, values: impl Params) -> rusqlite::Result<usize> {
    c.prepare_cached(sql)?.execute(values)
}

fn get<T: FromSql>(c: &Connection, name: &str) -> rusqlite::Result<Option<T>> {
    ask(c, "SELECT value FROM meta WHERE name = ?1", [name])
}

pub(crate) fn set(c: &Connection, name: &str, value: impl ToSql) -> rusqlite::Result<usize> {
    let sql = "INSERT OR REPLACE INTO meta VALUES (?1, ?2)";
    execute(c, sql, params![name, value])
}

pub(crate) fn tip(c: &Connection) -> Result<Option<Tip>, Fault> {
    let tip: Option<String> = get(c, "tip")?;
    Ok(from_str(tip.as_deref().unwrap_or("null"))?)
}

pub(crate) fn muhash(c: &Connection) -> Result<MuHash3072, Fault> {
    let bytes = get::<[u8; MuHash3072::STATE_BYTES]>(c, "muhash")?;
    let state = bytes.and_then(|bytes| MuHash3072::from_bytes(&bytes));
    Ok(state.ok_or("the digest is none")?)
}

pub(crate) fn undo(c: &Connection, block: &BlockHash) -> Result<Option<BlockUndo>, Fault> {
    let sql = "SELECT data FROM undo WHERE block = ?1";
    let undo: Option<String> = ask(c, sql, [block.as_bytes()])?;
    Ok(from_str(undo.as_deref().unwrap_or("null"))?)
}

pub(crate) fn record(c: &Connection, txid: &Txid, fields: Fields) -> Result<Option<Record>, Fault> {
    let key = [txid.as_bytes()];
    let head: Option<String> = ask(c, "SELECT head FROM record WHERE txid = ?1", key)?;
    let Some(head) = head else {
        return Ok(None);
    };
    let mut record: Record = from_str(&head)?;
    if record.txid != *txid {
        let (backend, asked, got) = (BACKEND, *txid, record.txid.to_string());
        return Err(Error::WrongRecord {
            backend,
            asked,
            got,
        }
        .into());
    }
    if fields.inputs {
        let inputs: Option<String> = ask(c, "SELECT inputs FROM record WHERE txid = ?1", key)?;
        record.inputs = from_str(&inputs.unwrap_or_default())?;
    }
    if fields.outputs {
        let mut outputs = c.prepare_cached("SELECT * FROM output WHERE txid = ?1 ORDER BY vout")?;
        let outputs = outputs.query_map(key, to_output)?;
        record.outputs = outputs.collect::<rusqlite::Result<_>>()?;
    }
    Ok(Some(record))
}

pub(crate) fn output(c: &Connection, of: &OutPoint) -> rusqlite::Result<Option<RecordOutput>> {
    let mut output = c.prepare_cached("SELECT * FROM output WHERE txid = ?1 AND vout = ?2")?;
    let key = params![of.txid.as_bytes(), of.vout];
    output.query_row(key, to_output).optional()
}

fn to_output(row: &Row<'_>) -> rusqlite::Result<RecordOutput> {
    let (spender, vin): (Option<_>, Option<u32>) = (row.get(4)?, row.get(5)?);
    let spender = spender.map(Txid::from_bytes);
    Ok(RecordOutput {
        vout: row.get(1)?,
        output: to_tx_out(row)?,
        spent_by: spender.zip(vin).map(|(txid, vin)| SpentBy { txid, vin }),
        frozen: row.get(6)?,
        spendable_from: row.get(7)?,
    })
}

/// SQLite's numbers are signed: of an amount the same 64 bits lie there.
pub(crate) fn to_tx_out(row: &Row<'_>) -> rusqlite::Result<TxOut> {
    let value_sat = row.get::<_, i64>(2)?.cast_unsigned();
    let script = Script::from_bytes(row.get(3)?);
    Ok(TxOut { value_sat, script })
}

/// Reads all that is asked for, and tells what is there.
pub(crate) fn load(c: &Connection, reads: &Reads, loaded: &mut Loaded) -> Result<(), Fault> {
    for txid in &reads.records {
        // What was asked for earlier would be lost without.
        if let Some(record) = record(c, txid, loaded.fields(txid))? {
            loaded.put_record(record);
        }
    }
    for outpoint in &reads.slots {
        if let Some(output) = output(c, outpoint)? {
            loaded.put_output(outpoint.txid, output);
        }
    }
    for block in &reads.undo {
        if let Some(undo) = undo(c, block)? {
            loaded.put_undo(*block, undo);
        }
    }
    Ok(())
}

/// Writes all that a call changes.
pub(crate) fn apply(c: &Connection, changes: &Changes) -> Result<(), Fault> {
    if changes.confirmed_set_changes() {
        let mut muhash = muhash(c)?;
        changes.apply_coins(&mut muhash);
        set(c, "muhash", muhash.to_bytes())?;
    }
    if let Some(tip) = &changes.tip {
        set(c, "tip", to_string(tip)?)?;
    }
    for txid in &changes.deleted {
        execute(c, "DELETE FROM record WHERE txid = ?1", [txid.as_bytes()])?;
        execute(c, "DELETE FROM output WHERE txid = ?1", [txid.as_bytes()])?;
    }
    for record in &changes.inserted {
        let (key, height) = (record.txid.as_bytes(), record.confirmed_height());
        let (inputs, head) = (to_string(&record.inputs)?, to_string(&record.head())?);
        let sql = "INSERT INTO record VALUES (?1, ?2, ?3, ?4)";
        execute(c, sql, params![key, inputs, head, height])?;
        for output in &record.outputs {
            put_output(c, &record.txid, output)?;
        }
    }
    for head in &changes.heads {
        let (key, height) = (head.txid.as_bytes(), head.confirmed_height());
        let sql = "UPDATE record SET head = ?2, height = ?3 WHERE txid = ?1";
        execute(c, sql, params![key, to_string(head)?, height])?;
    }
    for (txid, output) in &changes.slots {
        put_output(c, txid, output)?;
    }
    for (height, txid) in changes.listed() {
        let sql = "INSERT OR IGNORE INTO expiring VALUES (?1, ?2)";
        execute(c, sql, params![height, txid.as_bytes()])?;
    }
    if let Some((block, undo)) = &changes.undo {
        let key = block.as_bytes();
        execute(c, "DELETE FROM undo WHERE block = ?1", [key])?;
        if let Some(undo) = undo {
            let sql = "INSERT INTO undo VALUES (?1, ?2, ?3)";
            execute(c, sql, params![key, undo.height, to_string(undo)?])?;
        }
    }
    Ok(())
}

fn put_output(c: &Connection, txid: &Txid, slot: &RecordOutput) -> rusqlite::Result<usize> {
    let sql = "INSERT OR REPLACE INTO output VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let (key, vout, script) = (txid.as_bytes(), slot.vout, slot.output.script.as_bytes());
    let value = slot.output.value_sat.cast_signed();
    let spender = slot.spent_by.as_ref().map(|by| by.txid.as_bytes());
    let (vin, from) = (slot.spent_by.map(|by| by.vin), slot.spendable_from);
    let state = params![key, vout, value, script, spender, vin, slot.frozen, from];
    execute(c, sql, state)
}
