//! A change's way to the server: a bounded number of statements, whatever its size.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use groundtackle_utxo_store::draft::Changes;
use groundtackle_utxo_store::{Record, RecordOutput, Tip, Txid};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

use crate::record::{INPUT_BYTES, pack_inputs, pack_mined, pack_txids, pack_undo};
use crate::statements::Statements;

/// From so many rows on a `COPY` is worth its round trips.
const COPY_ROWS: usize = 512;

/// From so many bytes, too. A statement takes at most 2 GiB, and would fail after others of its call were sent.
const COPY_BYTES: usize = 16 << 20;

/// Bytes that one message of a `COPY` carries.
const COPY_CHUNK: usize = 1 << 20;

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

/// Writes all but the chain's row and what large sets are copied by. The futures of this are
/// pipelined: one round trip.
pub(crate) async fn write(
    client: &Client,
    statements: &Statements,
    changes: &Changes,
    scripts: bool,
    releases: bool,
) -> Result<(), Error> {
    tokio::try_join!(
        biased;
        delete(client, statements, if copied(&changes.inserted) { &[] } else { &changes.deleted }),
        update_records(client, statements, &changes.heads),
        update_slots(client, statements, &changes.slots, scripts, releases),
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

/// Copies what is too much for a statement's values; before [`write`], which then leaves it out. What it
/// returns is to be ended in one round trip with that.
pub(crate) async fn copy(
    client: &Client,
    statements: &Statements,
    changes: &Changes,
) -> Result<Option<Copy>, Error> {
    if !copied(&changes.inserted) {
        return Ok(None);
    }
    let ((), mut copy) = tokio::try_join!(
        biased;
        delete(client, statements, &changes.deleted),
        Copy::begin(client, &statements.copy_records),
    )?;
    for record in &changes.inserted {
        copy.row(13);
        copy.bytes(record.txid.as_bytes());
        for flag in [record.coinbase, record.locked, record.conflicting] {
            copy.flag(flag);
        }
        copy.number(record.fee_sat.map(u64::cast_signed));
        copy.number(Some(record.size_bytes.cast_signed()));
        copy.number(Some(record.lock_time.into()));
        copy.number(record.unmined_since.map(Into::into));
        copy.number(record.confirmed_height().map(Into::into));
        copy.number(record.preserve_until.map(Into::into));
        copy.bytes(&pack_mined(&record.mined_in));
        copy.bytes(&pack_txids(&record.conflicting_children));
        copy.bytes(&pack_inputs(&record.inputs));
        copy.flush().await?;
    }
    let ((), mut copy) = tokio::try_join!(
        biased;
        copy.end(),
        Copy::begin(client, &statements.copy_outputs),
    )?;
    for (record, output) in outputs(&changes.inserted) {
        copy.row(9);
        copy.bytes(record.txid.as_bytes());
        copy.number(Some(output.vout.into()));
        copy.number(Some(output.output.value_sat.cast_signed()));
        copy.number(output.spent_by.map(|by| by.vin.into()));
        copy.number(output.spendable_from.map(Into::into));
        copy.flag(record.coinbase);
        copy.flag(output.frozen);
        copy.bytes(output.output.script.as_bytes());
        match output.spent_by {
            Some(by) => copy.bytes(by.txid.as_bytes()),
            None => copy.null(),
        }
        copy.flush().await?;
    }
    Ok(Some(copy))
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

async fn update_slots(
    client: &Client,
    statements: &Statements,
    slots: &[(Txid, RecordOutput)],
    scripts: bool,
    releases: bool,
) -> Result<(), Error> {
    let all = || slots.iter();
    let txids: Vec<_> = all().map(|(t, _)| txid(t)).collect();
    let vouts: Vec<i64> = all().map(|(_, o)| o.vout.into()).collect();
    let number =
        |of: fn(&RecordOutput) -> Option<i64>| all().map(|(_, o)| of(o)).collect::<Vec<_>>();
    let (spenders, vins, frozen, spendable_from) = (
        all().map(|(_, o)| spender(o)).collect::<Vec<_>>(),
        number(|o| o.spent_by.map(|by| by.vin.into())),
        all().map(|(_, o)| o.frozen).collect::<Vec<_>>(),
        number(|o| o.spendable_from.map(Into::into)),
    );
    let scripts_now: Vec<_> = if scripts {
        all().map(|(_, o)| o.output.script.as_bytes()).collect()
    } else {
        Vec::new()
    };
    tokio::try_join!(
        biased;
        execute_if(
            !slots.is_empty(),
            client,
            &statements.update_slots,
            [&txids, &vouts, &spenders, &vins, &frozen, &spendable_from],
        ),
        execute_if(
            scripts && !slots.is_empty(),
            client,
            &statements.update_scripts,
            [&txids, &vouts, &scripts_now],
        ),
        // What was spent comes back free.
        execute_if(
            releases && !slots.is_empty(),
            client,
            &statements.end_reservations,
            [&txids, &vouts],
        ),
    )?;
    Ok(())
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
    sink: std::pin::Pin<Box<tokio_postgres::CopyInSink<Bytes>>>,
    buffer: BytesMut,
}

impl Copy {
    async fn begin(client: &Client, statement: &Statement) -> Result<Self, Error> {
        let sink = Box::pin(client.copy_in(statement).await?);
        let mut buffer = BytesMut::with_capacity(COPY_CHUNK + (COPY_CHUNK >> 2));
        buffer.put_slice(b"PGCOPY\n\xff\r\n\0");
        buffer.put_i32(0);
        buffer.put_i32(0);
        Ok(Self { sink, buffer })
    }

    fn row(&mut self, columns: i16) {
        self.buffer.put_i16(columns);
    }

    fn null(&mut self) {
        self.buffer.put_i32(-1);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        // The server refuses a value above 1 GB, and then the whole.
        self.buffer
            .put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        self.buffer.put_slice(bytes);
    }

    fn flag(&mut self, flag: bool) {
        self.buffer.put_i32(1);
        self.buffer.put_u8(u8::from(flag));
    }

    fn number(&mut self, number: Option<i64>) {
        match number {
            Some(number) => {
                self.buffer.put_i32(8);
                self.buffer.put_i64(number);
            }
            None => self.null(),
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        if self.buffer.len() >= COPY_CHUNK {
            self.sink.send(self.buffer.split().freeze()).await?;
            self.buffer.reserve(COPY_CHUNK + (COPY_CHUNK >> 2));
        }
        Ok(())
    }

    async fn end(mut self) -> Result<(), Error> {
        self.buffer.put_i16(-1);
        self.sink.send(self.buffer.split().freeze()).await?;
        self.sink.as_mut().finish().await?;
        Ok(())
    }
}
