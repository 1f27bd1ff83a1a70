//! A change's way to the server: a bounded number of statements, whatever its size.

use std::pin::Pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use groundtackle_utxo_store::draft::Changes;
use groundtackle_utxo_store::{Record, RecordOutput, Tip, Txid};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, CopyInSink, Error, Statement};

use crate::record::{INPUT_BYTES, pack_inputs, pack_mined, pack_txids, pack_undo};
use crate::statements::Statements;
use groundtackle_utxo_store::draft::blocking;

/// From so many rows on a `COPY` is worth its round trips.
const COPY_ROWS: usize = 512;

/// From so many bytes, too. A statement takes at most 2 GiB, and would fail after others of its call were sent.
const COPY_BYTES: usize = 16 << 20;

/// Bytes that one message of a `COPY` carries. The server takes it while the next one is put together.
const COPY_CHUNK: usize = 64 << 10;

/// Bytes that are put together before the server takes any: while it is at what was sent before.
const COPY_AHEAD: usize = 4 << 20;

/// The first column of all: a transaction.
fn txid(txid: &Txid) -> &[u8] {
    txid.as_bytes()
}

/// Executes a statement, if there is anything to do.
pub(crate) async fn execute_if<const N: usize>(
    wanted: bool,
    client: &Client,
    statement: &Statement,
    values: [&(dyn ToSql + Sync); N],
) -> Result<(), Error> {
    if wanted {
        client.execute(statement, &values).await?;
    }
    Ok(())
}

fn tip_values(tip: Option<Tip>) -> (Option<i64>, Option<Vec<u8>>, Option<i64>) {
    (
        tip.map(|tip| tip.height.into()),
        tip.map(|tip| tip.hash.as_bytes().to_vec()),
        tip.map(|tip| tip.median_time_past.into()),
    )
}

/// Outputs that change.
pub(crate) struct Slots<'a> {
    pub(crate) all: &'a [(Txid, RecordOutput)],
    /// The version in which each was seen.
    pub(crate) seen: &'a [i32],
    /// Nothing changes but who has spent them.
    pub(crate) spends: bool,
    /// Their scripts may change.
    pub(crate) scripts: bool,
    /// What was spent may be unspent.
    pub(crate) releases: bool,
}

/// Whether that is what [`write`] fails with where an output is not as it was seen.
pub(crate) fn overtaken(error: &Error) -> bool {
    error.code() == Some(&SqlState::DIVISION_BY_ZERO)
}

/// Writes all but the chain's row and what large sets are copied by. The futures of this are
/// pipelined: one round trip.
pub(crate) async fn write(
    client: &Client,
    statements: &Statements,
    changes: &Changes,
    slots: &Slots<'_>,
) -> Result<(), Error> {
    let change = async {
        if !copied(&changes.inserted) {
            change(client, statements, changes, slots, false).await?;
        }
        Ok(())
    };
    tokio::try_join!(
        biased;
        change,
        insert_records(client, statements, &changes.inserted),
        insert_outputs(client, statements, &changes.inserted),
        write_undo(client, statements, changes),
        write_expiring(client, statements, &changes.expiring),
    )?;
    Ok(())
}

pub(crate) async fn delete(
    client: &Client,
    statements: &Statements,
    txids: &[Txid],
) -> Result<(), Error> {
    let txids: Vec<&[u8]> = txids.iter().map(txid).collect();
    tokio::try_join!(
        biased;
        execute_if(!txids.is_empty(), client, &statements.delete_outputs, [&txids]),
        execute_if(!txids.is_empty(), client, &statements.delete_records, [&txids]),
    )?;
    Ok(())
}

/// What changes or goes, before anything is inserted: outputs are locked before a record that another call
/// may be inserting is waited for. As [`update_slots`].
async fn change(
    client: &Client,
    statements: &Statements,
    changes: &Changes,
    slots: &Slots<'_>,
    counted: bool,
) -> Result<u64, Error> {
    let ((), (), updated) = tokio::try_join!(
        biased;
        delete(client, statements, &changes.deleted),
        update_records(client, statements, &changes.heads),
        update_slots(client, statements, slots, counted),
    )?;
    Ok(updated)
}

/// What [`copy`] did.
pub(crate) enum Copied {
    /// Nothing: there is too little.
    Not,
    /// Others have changed what was seen.
    Overtaken,
    Begun(Copy),
}

/// Copies what is too much for a statement's values, and changes what [`write`] then leaves out. What it
/// returns is to be ended in one round trip with that.
pub(crate) async fn copy(
    client: &Client,
    statements: &Statements,
    changes: &Changes,
    slots: &Slots<'_>,
) -> Result<Copied, Error> {
    if !copied(&changes.inserted) {
        return Ok(Copied::Not);
    }
    let records = changes.inserted.iter();
    let (updated, records) = tokio::try_join!(
        biased;
        change(client, statements, changes, slots, true),
        Copy::begin(client, &statements.copy_records, records, put_record),
    )?;
    if updated != slots.all.len() as u64 {
        // To drop the copy ends it.
        return Ok(Copied::Overtaken);
    }
    let outputs = outputs(&changes.inserted);
    let ((), outputs) = tokio::try_join!(
        biased;
        records.end(),
        Copy::begin(client, &statements.copy_outputs, outputs, put_output),
    )?;
    Ok(Copied::Begun(outputs))
}

fn put_record(rows: &mut Rows, record: &Record) {
    rows.row(13);
    rows.bytes(record.txid.as_bytes());
    for flag in [record.coinbase, record.locked, record.conflicting] {
        rows.flag(flag);
    }
    rows.number(record.fee_sat.map(u64::cast_signed));
    rows.number(Some(record.size_bytes.cast_signed()));
    rows.number(Some(record.lock_time.into()));
    rows.number(record.unmined_since.map(Into::into));
    rows.number(record.confirmed_height().map(Into::into));
    rows.number(record.preserve_until.map(Into::into));
    rows.bytes(&pack_mined(&record.mined_in));
    rows.bytes(&pack_txids(&record.conflicting_children));
    rows.bytes(&pack_inputs(&record.inputs));
}

fn put_output(rows: &mut Rows, (record, output): (&Record, &RecordOutput)) {
    rows.row(9);
    rows.bytes(record.txid.as_bytes());
    rows.number(Some(output.vout.into()));
    rows.number(Some(output.output.value_sat.cast_signed()));
    rows.number(output.spent_by.map(|by| by.vin.into()));
    rows.number(output.spendable_from.map(Into::into));
    rows.flag(record.coinbase);
    rows.flag(output.frozen);
    rows.bytes(output.output.script.as_bytes());
    match output.spent_by {
        Some(by) => rows.bytes(by.txid.as_bytes()),
        None => rows.null(),
    }
}

/// Ends what [`copy`] began.
pub(crate) async fn end(copy: Option<Copy>) -> Result<(), Error> {
    match copy {
        Some(copy) => copy.end().await,
        None => Ok(()),
    }
}

/// Whether records are many enough to be copied.
fn copied(records: &[Record]) -> bool {
    let rows: usize = records.iter().map(|record| 1 + record.outputs.len()).sum();
    let scripts = outputs(records).map(|(_, output)| output.output.script.as_bytes().len());
    let inputs = records
        .iter()
        .map(|record| record.inputs.len() * INPUT_BYTES);
    rows > COPY_ROWS || scripts.sum::<usize>() + inputs.sum::<usize>() > COPY_BYTES
}

fn outputs(records: &[Record]) -> impl Iterator<Item = (&Record, &RecordOutput)> {
    records
        .iter()
        .flat_map(|record| record.outputs.iter().map(move |output| (record, output)))
}

async fn insert_records(
    client: &Client,
    statements: &Statements,
    records: &[Record],
) -> Result<(), Error> {
    if records.is_empty() || copied(records) {
        return Ok(());
    }
    let all = || records.iter();
    let (inputs, mined_in, children): (Vec<_>, Vec<_>, Vec<_>) = (
        all().map(|r| pack_inputs(&r.inputs)).collect(),
        all().map(|r| pack_mined(&r.mined_in)).collect(),
        all().map(|r| pack_txids(&r.conflicting_children)).collect(),
    );
    let number = |of: fn(&Record) -> Option<i64>| all().map(of).collect::<Vec<_>>();
    let flag = |of: fn(&Record) -> bool| all().map(of).collect::<Vec<_>>();
    client
        .execute(
            &statements.insert_records,
            &[
                &all().map(|r| txid(&r.txid)).collect::<Vec<_>>(),
                &flag(|r| r.coinbase),
                &flag(|r| r.locked),
                &flag(|r| r.conflicting),
                &number(|r| r.fee_sat.map(u64::cast_signed)),
                &number(|r| Some(r.size_bytes.cast_signed())),
                &number(|r| Some(r.lock_time.into())),
                &number(|r| r.unmined_since.map(Into::into)),
                &number(|r| r.confirmed_height().map(Into::into)),
                &number(|r| r.preserve_until.map(Into::into)),
                &mined_in,
                &children,
                &inputs,
            ],
        )
        .await?;
    Ok(())
}

async fn insert_outputs(
    client: &Client,
    statements: &Statements,
    records: &[Record],
) -> Result<(), Error> {
    if copied(records) || outputs(records).next().is_none() {
        return Ok(());
    }
    let all = || outputs(records);
    let number =
        |of: fn(&RecordOutput) -> Option<i64>| all().map(|(_, o)| of(o)).collect::<Vec<_>>();
    client
        .execute(
            &statements.insert_outputs,
            &[
                &all().map(|(r, _)| txid(&r.txid)).collect::<Vec<_>>(),
                &number(|o| Some(o.vout.into())),
                &number(|o| Some(o.output.value_sat.cast_signed())),
                &number(|o| o.spent_by.map(|by| by.vin.into())),
                &number(|o| o.spendable_from.map(Into::into)),
                &all().map(|(r, _)| r.coinbase).collect::<Vec<_>>(),
                &all().map(|(_, o)| o.frozen).collect::<Vec<_>>(),
                &all()
                    .map(|(_, o)| o.output.script.as_bytes())
                    .collect::<Vec<_>>(),
                &all().map(|(_, o)| spender(o)).collect::<Vec<_>>(),
            ],
        )
        .await?;
    Ok(())
}

fn spender(output: &RecordOutput) -> Option<&[u8]> {
    output.spent_by.as_ref().map(|by| txid(&by.txid))
}

async fn update_records(
    client: &Client,
    statements: &Statements,
    heads: &[Record],
) -> Result<(), Error> {
    let all = || heads.iter();
    let number = |of: fn(&Record) -> Option<i64>| all().map(of).collect::<Vec<_>>();
    let flag = |of: fn(&Record) -> bool| all().map(of).collect::<Vec<_>>();
    execute_if(
        !heads.is_empty(),
        client,
        &statements.update_records,
        [
            &all().map(|r| txid(&r.txid)).collect::<Vec<_>>(),
            &flag(|r| r.locked),
            &flag(|r| r.conflicting),
            &number(|r| r.fee_sat.map(u64::cast_signed)),
            &number(|r| r.unmined_since.map(Into::into)),
            &number(|r| r.confirmed_height().map(Into::into)),
            &number(|r| r.preserve_until.map(Into::into)),
            &all().map(|r| pack_mined(&r.mined_in)).collect::<Vec<_>>(),
            &all()
                .map(|r| pack_txids(&r.conflicting_children))
                .collect::<Vec<_>>(),
        ],
    )
    .await
}

/// Says how many were as they had been seen, if that is counted; else fails unless it is all of them.
async fn update_slots(
    client: &Client,
    statements: &Statements,
    slots: &Slots<'_>,
    counted: bool,
) -> Result<u64, Error> {
    if slots.all.is_empty() {
        return Ok(0);
    }
    let all = || slots.all.iter();
    let txids: Vec<_> = all().map(|(t, _)| txid(t)).collect();
    let vouts: Vec<i64> = all().map(|(_, o)| o.vout.into()).collect();
    let spenders: Vec<_> = all().map(|(_, o)| spender(o)).collect();
    let vins: Vec<_> = all()
        .map(|(_, o)| o.spent_by.map(|by| i64::from(by.vin)))
        .collect();
    let (mut frozen, mut spendable_from, mut scripts) = (Vec::new(), Vec::new(), Vec::new());
    if !slots.spends {
        frozen.extend(all().map(|(_, o)| o.frozen));
        spendable_from.extend(all().map(|(_, o)| o.spendable_from.map(i64::from)));
    }
    if slots.scripts {
        scripts.extend(all().map(|(_, o)| o.output.script.as_bytes()));
    }
    let values: [&(dyn ToSql + Sync); 7] = [
        &txids,
        &vouts,
        &slots.seen,
        &spenders,
        &vins,
        &frozen,
        &spendable_from,
    ];
    let update = match (slots.spends, counted) {
        (true, true) => &statements.spend_slots,
        (true, false) => &statements.spend_slots_or_fail,
        (false, true) => &statements.update_slots,
        (false, false) => &statements.update_slots_or_fail,
    };
    let values = values.get(..update.params().len()).unwrap_or_default();
    let (updated, (), ()) = tokio::try_join!(
        biased;
        client.execute(update, values),
        execute_if(
            slots.scripts,
            client,
            &statements.update_scripts,
            [&txids, &vouts, &scripts],
        ),
        // What was spent comes back free.
        execute_if(
            slots.releases,
            client,
            &statements.end_reservations,
            [&txids, &vouts],
        ),
    )?;
    Ok(updated)
}

async fn write_undo(
    client: &Client,
    statements: &Statements,
    changes: &Changes,
) -> Result<(), Error> {
    let Some((block, undo)) = &changes.undo else {
        return Ok(());
    };
    let hash = block.as_bytes().as_slice();
    let Some(undo) = undo else {
        return execute_if(true, client, &statements.delete_undo, [&hash]).await;
    };
    let (height, previous_hash, median_time_past) = tip_values(undo.previous);
    // A record always has a form in JSON.
    let replaced = undo
        .replaced_coinbase
        .as_ref()
        .and_then(|record| serde_json::to_string(record).ok());
    execute_if(
        true,
        client,
        &statements.insert_undo,
        [
            &hash,
            &i64::from(undo.height),
            &height,
            &previous_hash,
            &median_time_past,
            &pack_undo(&undo.transactions),
            &replaced,
        ],
    )
    .await
}

pub(crate) async fn write_expiring(
    client: &Client,
    statements: &Statements,
    expiring: &[(u32, Txid)],
) -> Result<(), Error> {
    let lists: Vec<_> = expiring.chunk_by(|(a, _), (b, _)| a == b).collect();
    let heights: Vec<i64> = lists
        .iter()
        .filter_map(|list| list.first())
        .map(|(height, _)| (*height).into())
        .collect();
    let packed: Vec<_> = lists
        .iter()
        .map(|list| pack_txids(list.iter().map(|(_, txid)| txid)))
        .collect();
    execute_if(
        !expiring.is_empty(),
        client,
        &statements.insert_expiring,
        [&heights, &packed],
    )
    .await
}

pub(crate) async fn write_chain(
    client: &Client,
    statements: &Statements,
    chain: Option<(Option<Tip>, Vec<u8>)>,
) -> Result<(), Error> {
    let Some((tip, muhash)) = chain else {
        return Ok(());
    };
    let (height, hash, median_time_past) = tip_values(tip);
    execute_if(
        true,
        client,
        &statements.update_chain,
        [&height, &hash, &median_time_past, &muhash],
    )
    .await
}

/// A `COPY … FROM STDIN (FORMAT binary)` under way.
pub(crate) struct Copy {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    rows: Rows,
}

impl Copy {
    /// Sends all but the end.
    async fn begin<T>(
        client: &Client,
        statement: &Statement,
        mut items: impl Iterator<Item = T>,
        put: impl Fn(&mut Rows, T),
    ) -> Result<Self, Error> {
        let mut rows = Rows(BytesMut::with_capacity(COPY_CHUNK));
        rows.0.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        let ahead = async {
            blocking(|| {
                while rows.0.len() < COPY_AHEAD
                    && let Some(item) = items.next()
                {
                    put(&mut rows, item);
                }
            });
            Ok(())
        };
        let (sink, ()) = tokio::try_join!(biased; client.copy_in(statement), ahead)?;
        let mut sink = Box::pin(sink);
        loop {
            while rows.0.len() >= COPY_CHUNK {
                sink.send(rows.0.split_to(COPY_CHUNK).freeze()).await?;
            }
            let Some(item) = items.next() else {
                return Ok(Self { sink, rows });
            };
            put(&mut rows, item);
        }
    }

    async fn end(mut self) -> Result<(), Error> {
        self.rows.0.put_i16(-1);
        self.sink.send(self.rows.0.freeze()).await?;
        self.sink.as_mut().finish().await?;
        Ok(())
    }
}

/// Rows as a `COPY` takes them.
pub(crate) struct Rows(BytesMut);

impl Rows {
    fn row(&mut self, columns: i16) {
        self.0.put_i16(columns);
    }

    fn null(&mut self) {
        self.0.put_i32(-1);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        // The server refuses a value above 1 GB, and then the whole.
        self.0
            .put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        self.0.put_slice(bytes);
    }

    fn flag(&mut self, flag: bool) {
        self.0.put_i32(1);
        self.0.put_u8(u8::from(flag));
    }

    fn number(&mut self, number: Option<i64>) {
        match number {
            Some(number) => {
                self.0.put_i32(8);
                self.0.put_i64(number);
            }
            None => self.null(),
        }
    }
}
