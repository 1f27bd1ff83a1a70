//! PostgreSQL: the store beside the least that its rows cost.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use groundtackle_benches::BoxError;
use groundtackle_chain::{ChainBlock, Transaction, Txid};
use groundtackle_testkit_servers::{Postgres, PostgresOptions};
use groundtackle_utxo_store::BlockStore;
use groundtackle_utxo_store_postgres::{PostgresUtxoStore, PostgresUtxoStoreConfig, Tls};
use tokio_postgres::{Client, NoTls, Statement};

use super::{Chain, SINGLY, Tally, coins, head, seed, sizes, slots, spend};

pub(super) async fn postgres(chain: &Chain) -> Result<(), BoxError> {
    let server = Postgres::start(PostgresOptions {
        fsync: true,
        settings: [
            ("shared_buffers", "1GB"),
            ("synchronous_commit", "on"),
            ("autovacuum", "off"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        ..PostgresOptions::default()
    });
    let open = async |schema: &str| {
        let config = PostgresUtxoStoreConfig::new(server.url())
            .with_tls(Tls::Off)
            .with_schema(schema.into());
        let store = PostgresUtxoStore::open(config).await?;
        seed(&store, &chain.before).await?;
        Ok::<_, BoxError>(store)
    };

    let all = || chain.blocks.iter().flat_map(|block| &block.transactions);

    head("PostgreSQL: spend-and-create, 1,000 transactions a call");
    let store = open("store").await?;
    drop((open("raw").await?, open("singly").await?));
    let (raw, singly) = (
        Raw::connect(&server, "raw").await?,
        Raw::connect(&server, "singly").await?,
    );
    raw.tidy().await?;
    let pid = raw.server_pid().await?;
    let [mut ours, mut limit, mut one_by_one] = <[Tally; 3]>::default();
    let mut slowly = all().filter(|tx| !tx.coinbase);
    for batch in chain.batches(1_000) {
        let transactions: Vec<&Transaction> = batch.iter().map(|new| &new.tx).collect();
        let load = (batch.len(), coins(transactions.iter().copied()));
        let height = chain.height();
        ours.time(pid, load, spend(&store, &batch, height)).await?;
        let rows = Rows::of(&transactions, Err(height), &chain.fees);
        limit.time(pid, load, raw.write(&rows, None)).await?;
        let some: Vec<_> = slowly.by_ref().take(SINGLY).collect();
        let load = (some.len(), coins(some.iter().copied()));
        let work = singly.singly(&some, Err(height));
        one_by_one.time(pid, load, work).await?;
    }
    ours.row("store", &ours);
    limit.row("`COPY` and one prepared `UPDATE` of the same rows", &ours);
    one_by_one.row(
        "one statement per input and output, one commit per transaction",
        &ours,
    );
    raw.compare("store").await?;

    head("PostgreSQL: connect a block");
    let store = open("store_blocks").await?;
    drop((open("raw_blocks").await?, open("singly_blocks").await?));
    let (raw, singly) = (
        Raw::connect(&server, "raw_blocks").await?,
        Raw::connect(&server, "singly_blocks").await?,
    );
    raw.tidy().await?;
    let [mut ours, mut limit, mut one_by_one] = <[Tally; 3]>::default();
    let mut slowly = all();
    for block in &chain.blocks {
        let transactions: Vec<&Transaction> = block.transactions.iter().collect();
        let load = (transactions.len(), coins(transactions.iter().copied()));
        let connected = async {
            let connected = store.connect_block(block).await?;
            connected.map_err(|no| format!("{no}").into())
        };
        ours.time(pid, load, connected).await?;
        let rows = Rows::of(&transactions, Ok(block), &chain.fees);
        limit.time(pid, load, raw.write(&rows, Some(block))).await?;
        let some: Vec<_> = slowly.by_ref().take(SINGLY).collect();
        let load = (some.len(), coins(some.iter().copied()));
        let work = singly.singly(&some, Ok(block));
        one_by_one.time(pid, load, work).await?;
    }
    ours.row("store", &ours);
    limit.row("`COPY` and one prepared `UPDATE` of the same rows", &ours);
    one_by_one.row(
        "one statement per input and output, one commit per transaction",
        &ours,
    );
    raw.compare("store_blocks").await?;

    sizes(&open("sizes").await?, chain, "PostgreSQL").await
}

/// What a batch comes to: new rows as `COPY` takes them, and the older slots that it spends.
struct Rows {
    records: Bytes,
    outputs: Bytes,
    txids: Vec<Vec<u8>>,
    vouts: Vec<i64>,
    spenders: Vec<Vec<u8>>,
    vins: Vec<i64>,
    undo: Vec<u8>,
}

/// The block that transactions are mined in, or the height since which they are not.
type Mined<'a> = Result<&'a ChainBlock, u32>;

fn mined_in(mined: Mined<'_>) -> Vec<u8> {
    let Ok(block) = mined else {
        return Vec::new();
    };
    let mut bytes = block.hash.as_bytes().to_vec();
    bytes.extend(block.height.to_be_bytes());
    // Subtree 0; on the longest chain, of a known block.
    bytes.extend([0, 0, 0, 0, 3]);
    bytes
}

fn inputs(tx: &Transaction) -> Vec<u8> {
    let bytes = |input: &groundtackle_chain::OutPoint| {
        let mut bytes = input.txid.as_bytes().to_vec();
        bytes.extend(input.vout.to_be_bytes());
        bytes
    };
    tx.inputs.iter().flat_map(bytes).collect()
}

impl Rows {
    fn of(transactions: &[&Transaction], mined: Mined<'_>, fees: &HashMap<Txid, i64>) -> Self {
        let mut spent: HashMap<(Txid, u32), (Txid, u32)> = HashMap::new();
        for tx in transactions {
            for (vin, input) in (0..).zip(&tx.inputs) {
                spent.insert((input.txid, input.vout), (tx.txid, vin));
            }
        }
        let (mut records, mut outputs) = (CopyRows::default(), CopyRows::default());
        let mut undo = Vec::new();
        for tx in transactions {
            records.0.put_i16(13);
            records.bytes(tx.txid.as_bytes());
            for flag in [tx.coinbase, false, false] {
                records.flag(flag);
            }
            match mined.ok().and(fees.get(&tx.txid)) {
                Some(fee) => records.number(*fee),
                None => records.null(),
            }
            records.number(tx.size_bytes.cast_signed());
            records.number(tx.lock_time.into());
            match mined {
                Ok(block) => {
                    records.null();
                    records.number(block.height.into());
                }
                Err(since) => {
                    records.number(since.into());
                    records.null();
                }
            }
            records.null();
            records.bytes(&mined_in(mined));
            records.bytes(&[]);
            records.bytes(&inputs(tx));
            for (vout, output) in slots(tx) {
                outputs.0.put_i16(9);
                outputs.bytes(tx.txid.as_bytes());
                outputs.number(vout.into());
                outputs.number(output.value_sat.cast_signed());
                let by = spent.remove(&(tx.txid, vout));
                match by {
                    Some((_, vin)) => outputs.number(vin.into()),
                    None => outputs.null(),
                }
                outputs.null();
                outputs.flag(tx.coinbase);
                outputs.flag(false);
                outputs.bytes(output.script.as_bytes());
                match by {
                    Some((by, _)) => outputs.bytes(by.as_bytes()),
                    None => outputs.null(),
                }
            }
            undo.extend_from_slice(tx.txid.as_bytes());
            undo.push(0);
        }
        let mut older: Vec<_> = spent.into_iter().collect();
        older.sort_unstable();
        Self {
            records: records.end(),
            outputs: outputs.end(),
            txids: older
                .iter()
                .map(|((txid, _), _)| txid.as_bytes().to_vec())
                .collect(),
            vouts: older.iter().map(|((_, vout), _)| (*vout).into()).collect(),
            spenders: older
                .iter()
                .map(|(_, (by, _))| by.as_bytes().to_vec())
                .collect(),
            vins: older.iter().map(|(_, (_, vin))| (*vin).into()).collect(),
            undo,
        }
    }
}

/// Rows of a `COPY … FROM STDIN (FORMAT binary)`.
struct CopyRows(BytesMut);

impl Default for CopyRows {
    fn default() -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        Self(bytes)
    }
}

impl CopyRows {
    fn null(&mut self) {
        self.0.put_i32(-1);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.put_u32(bytes.len() as u32);
        self.0.put_slice(bytes);
    }

    fn flag(&mut self, flag: bool) {
        self.bytes(&[u8::from(flag)]);
    }

    fn number(&mut self, number: i64) {
        self.bytes(&number.to_be_bytes());
    }

    fn end(mut self) -> Bytes {
        self.0.put_i16(-1);
        self.0.freeze()
    }
}

/// A bare connection that writes what the store writes, and looks at nothing.
struct Raw {
    schema: String,
    client: Client,
    copy_records: Statement,
    copy_outputs: Statement,
    update_slots: Statement,
    insert_undo: Statement,
    update_chain: Statement,
    update_slot: Statement,
    insert_record: Statement,
    insert_output: Statement,
}

impl Raw {
    async fn connect(server: &Postgres, schema: &str) -> Result<Self, BoxError> {
        let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await?;
        tokio::spawn(connection);
        client
            .batch_execute(&format!(
                // The plans are those of the store.
                "SET search_path = {schema}; SET enable_seqscan = off; SET enable_hashjoin = off;
                 SET enable_mergejoin = off; SET enable_memoize = off; SET jit = off;
                 SET plan_cache_mode = force_generic_plan"
            ))
            .await?;
        let records = "transactions (txid, coinbase, locked, conflicting, fee_sat, size_bytes, lock_time,
             unmined_since, confirmed_height, preserve_until, mined_in, conflicting_children, inputs)";
        let outputs = "outputs (txid, vout, value_sat, spent_vin, spendable_from, coinbase, frozen, script, spent_by)";
        let prepare = async |sql: String| client.prepare(&sql).await;
        Ok(Self {
            schema: schema.to_owned(),
            copy_records: prepare(format!("COPY {records} FROM STDIN (FORMAT binary)")).await?,
            copy_outputs: prepare(format!("COPY {outputs} FROM STDIN (FORMAT binary)")).await?,
            update_slots: prepare(
                "UPDATE outputs o SET spent_by = a.spent_by, spent_vin = a.spent_vin
                 FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[])
                      AS a (txid, vout, spent_by, spent_vin)
                 WHERE o.txid = a.txid AND o.vout = a.vout"
                    .to_owned(),
            )
            .await?,
            insert_undo: prepare(
                "INSERT INTO blocks (hash, height, previous_height, previous_hash,
                     previous_median_time_past, undo) VALUES ($1, $2, $3, $4, $5, $6)"
                    .to_owned(),
            )
            .await?,
            update_chain: prepare(
                "UPDATE chain SET tip_height = $1, tip_hash = $2, tip_median_time_past = $3, muhash = $4"
                    .to_owned(),
            )
            .await?,
            update_slot: prepare(
                "UPDATE outputs SET spent_by = $3, spent_vin = $4
                 WHERE txid = $1 AND vout = $2 AND spent_by IS NULL AND NOT frozen"
                    .to_owned(),
            )
            .await?,
            insert_record: prepare(format!(
                "INSERT INTO {records} VALUES ($1, $2, false, false, NULL, $3, $4, $5, $6, NULL, $7, '', $8)"
            ))
            .await?,
            insert_output: prepare(format!(
                "INSERT INTO {outputs} VALUES ($1, $2, $3, NULL, NULL, $4, false, $5, NULL)"
            ))
            .await?,
            client,
        })
    }

    /// Leaves the server nothing to do for what was before.
    async fn tidy(&self) -> Result<(), BoxError> {
        self.client.batch_execute("VACUUM ANALYZE").await?;
        self.client.batch_execute("CHECKPOINT").await?;
        Ok(())
    }

    /// The server's first process.
    async fn server_pid(&self) -> Result<u32, BoxError> {
        let row = self
            .client
            .query_one("SELECT pg_backend_pid()", &[])
            .await?;
        let backend: i32 = row.get(0);
        let stat = std::fs::read_to_string(format!("/proc/{backend}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').ok_or("no fields")?;
        let parent = fields.split_whitespace().nth(1).ok_or("no parent")?;
        Ok(parent.parse()?)
    }

    async fn copy(&self, statement: &Statement, rows: &Bytes) -> Result<(), BoxError> {
        let mut sink = Box::pin(self.client.copy_in(statement).await?);
        for start in (0..rows.len()).step_by(1 << 20) {
            sink.send(rows.slice(start..rows.len().min(start + (1 << 20))))
                .await?;
        }
        sink.as_mut().finish().await?;
        Ok(())
    }

    async fn write(&self, rows: &Rows, block: Option<&ChainBlock>) -> Result<(), BoxError> {
        // What is sent without waiting is one round trip.
        tokio::try_join!(
            biased;
            self.text("BEGIN"),
            self.copy(&self.copy_records, &rows.records),
        )?;
        self.copy(&self.copy_outputs, &rows.outputs).await?;
        tokio::try_join!(
            biased;
            self.slots(rows),
            self.undo(rows, block),
            self.tip(block),
            self.text("COMMIT"),
        )?;
        Ok(())
    }

    async fn text(&self, sql: &str) -> Result<(), BoxError> {
        Ok(self.client.batch_execute(sql).await?)
    }

    async fn slots(&self, rows: &Rows) -> Result<(), BoxError> {
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&rows.txids, &rows.vouts, &rows.spenders, &rows.vins];
        let spent = self.client.execute(&self.update_slots, &values).await?;
        expect(spent, rows.txids.len())
    }

    async fn undo(&self, rows: &Rows, block: Option<&ChainBlock>) -> Result<(), BoxError> {
        let Some(block) = block else { return Ok(()) };
        let height = i64::from(block.height);
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] = [
            &block.hash.as_bytes().as_slice(),
            &height,
            &(height - 1),
            &block.previous.as_bytes().as_slice(),
            &i64::from(block.median_time_past),
            &rows.undo,
        ];
        self.client.execute(&self.insert_undo, &values).await?;
        Ok(())
    }

    async fn tip(&self, block: Option<&ChainBlock>) -> Result<(), BoxError> {
        let Some(block) = block else { return Ok(()) };
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] = [
            &i64::from(block.height),
            &block.hash.as_bytes().as_slice(),
            &i64::from(block.median_time_past),
            &vec![0_u8; 768],
        ];
        self.client.execute(&self.update_chain, &values).await?;
        Ok(())
    }

    /// As most do it.
    async fn singly(
        &self,
        transactions: &[&Transaction],
        mined: Mined<'_>,
    ) -> Result<(), BoxError> {
        let mined_in = mined_in(mined);
        let since = mined.err().map(i64::from);
        let height = mined.ok().map(|block| i64::from(block.height));
        for tx in transactions {
            let txid = tx.txid.as_bytes().as_slice();
            self.client.batch_execute("BEGIN").await?;
            for (vin, input) in (0_i64..).zip(&tx.inputs) {
                let parent = input.txid.as_bytes().as_slice();
                let spent = self
                    .client
                    .execute(
                        &self.update_slot,
                        &[&parent, &i64::from(input.vout), &txid, &vin],
                    )
                    .await?;
                expect(spent, 1)?;
            }
            self.client
                .execute(
                    &self.insert_record,
                    &[
                        &txid,
                        &tx.coinbase,
                        &tx.size_bytes.cast_signed(),
                        &i64::from(tx.lock_time),
                        &since,
                        &height,
                        &mined_in,
                        &inputs(tx),
                    ],
                )
                .await?;
            for (vout, output) in slots(tx) {
                self.client
                    .execute(
                        &self.insert_output,
                        &[
                            &txid,
                            &i64::from(vout),
                            &output.value_sat.cast_signed(),
                            &tx.coinbase,
                            &output.script.as_bytes(),
                        ],
                    )
                    .await?;
            }
            self.client.batch_execute("COMMIT").await?;
        }
        Ok(())
    }

    /// That it wrote the rows which the store wrote.
    async fn compare(&self, store: &str) -> Result<(), BoxError> {
        let raw = &self.schema;
        for table in ["transactions", "outputs"] {
            for (one, other) in [(store, raw.as_str()), (raw, store)] {
                let sql = format!(
                    "SELECT count(*) FROM (SELECT * FROM {one}.{table} EXCEPT SELECT * FROM {other}.{table}) d"
                );
                let different: i64 = self.client.query_one(&sql, &[]).await?.get(0);
                if different > 0 {
                    return Err(
                        format!("{different} rows of {one}.{table} are not in {other}").into(),
                    );
                }
            }
        }
        println!("\nBoth left the same rows in `transactions` and `outputs`.");
        Ok(())
    }
}

fn expect(rows: u64, wanted: usize) -> Result<(), BoxError> {
    if rows == wanted as u64 {
        return Ok(());
    }
    Err(format!("{rows} rows changed instead of {wanted}").into())
}
