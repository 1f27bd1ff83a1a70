//! Measures the UTXO stores on servers against what the servers can do at most, and prints the tables of
//! `docs/benchmarks.md`. The servers are its own: temporary, on this machine, durable by commit. Linux only.
//!
//! The ways of one table take turns batch by batch in one run, so that the machine's moods meet all of them.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use groundtackle_benches::BoxError;
use groundtackle_benches::generator::{ChainGenerator, GeneratorConfig};
use groundtackle_benches::machine::{machine, process_cpu, server_cpu};
use groundtackle_benches::regtest::{BlockReader, BlockWriter, Regtest};
use groundtackle_chain::{ChainBlock, Transaction, Txid};
use groundtackle_testkit_servers::{Postgres, PostgresOptions, Redis, RedisOptions};
use groundtackle_utxo_store::{
    Applied, BlockStore, NewTransaction, SpendOptions, UnspendableRule, UtxoStore,
};
use groundtackle_utxo_store_postgres::{PostgresUtxoStore, PostgresUtxoStoreConfig, Tls};
use groundtackle_utxo_store_redis::{
    Durability, RedisUtxoStore, RedisUtxoStoreConfig, Tls as RedisTls,
};
use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls, Statement};

const USAGE: &str =
    "servers [--txs-per-block N] [--seed-blocks N] [--blocks N] [--seed N] [--only postgres,redis]";

/// Blocks until the first coinbase can be spent: they hold nothing else.
const MATURITY: u32 = 100;

/// Transactions that the way of one statement per output gets in a turn: it is slow.
const SINGLY: usize = 100;

#[derive(Debug, Clone)]
struct Options {
    txs_per_block: usize,
    seed_blocks: u32,
    blocks: u32,
    seed: u64,
    only: Option<String>,
}

impl Options {
    fn parse() -> Result<Self, BoxError> {
        let mut options = Self {
            txs_per_block: 2_500,
            seed_blocks: 20,
            blocks: 20,
            seed: 1,
            only: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match name.as_str() {
                "--txs-per-block" => options.txs_per_block = value.parse()?,
                "--seed-blocks" => options.seed_blocks = value.parse()?,
                "--blocks" => options.blocks = value.parse()?,
                "--seed" => options.seed = value.parse()?,
                "--only" => options.only = Some(value),
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }

    fn wants(&self, what: &str) -> bool {
        let wanted = |only: &String| only.split(',').any(|only| only == what);
        self.only.as_ref().is_none_or(wanted)
    }
}

/// The chain in two parts: what stores hold before, and what is measured.
struct Chain {
    before: Vec<ChainBlock>,
    blocks: Vec<ChainBlock>,
    /// What blocks tell of their transactions' fees.
    fees: HashMap<Txid, i64>,
}

impl Chain {
    fn generate(options: &Options) -> Result<Self, BoxError> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("blocks.dat");
        let mut writer = BlockWriter::create(&path)?;
        let mut regtest = Regtest::default();
        let generator = ChainGenerator::new(GeneratorConfig {
            seed: options.seed,
            txs_per_block: options.txs_per_block,
            coinbase_maturity: MATURITY,
            ..GeneratorConfig::default()
        });
        let before = MATURITY + options.seed_blocks;
        for block in generator.take((before + options.blocks) as usize) {
            writer.write(&regtest.block(&block)?)?;
        }
        writer.finish()?;
        let mut reader = BlockReader::open(&path)?;
        let mut all = Vec::new();
        while let Some(block) = reader.block()? {
            all.push(block);
        }
        let fees = fees(&all)?;
        let blocks = all.split_off(before as usize + 1);
        Ok(Self {
            before: all,
            blocks,
            fees,
        })
    }

    /// What the mempool would send of the blocks, in batches.
    fn batches(&self, size: usize) -> Vec<Vec<NewTransaction>> {
        let transactions = self.blocks.iter().flat_map(|block| &block.transactions);
        let all: Vec<NewTransaction> = transactions
            .filter(|tx| !tx.coinbase)
            .map(|tx| tx.clone().into())
            .collect();
        all.chunks(size).map(<[_]>::to_vec).collect()
    }

    /// The height at which everything of it may be spent.
    fn height(&self) -> u32 {
        self.blocks.last().map_or(0, |block| block.height) + 1
    }
}

fn fees(blocks: &[ChainBlock]) -> Result<HashMap<Txid, i64>, BoxError> {
    let mut values = HashMap::new();
    let mut fees = HashMap::new();
    for tx in blocks.iter().flat_map(|block| &block.transactions) {
        let mut fee = 0;
        for input in &tx.inputs {
            fee += values
                .remove(&(input.txid, input.vout))
                .ok_or("no such coin")?;
        }
        for (vout, output) in (0_u32..).zip(&tx.outputs) {
            let value = output.value_sat.cast_signed();
            values.insert((tx.txid, vout), value);
            fee -= value;
        }
        if !tx.coinbase {
            fees.insert(tx.txid, fee);
        }
    }
    Ok(fees)
}

/// Coins made and spent.
fn coins<'a>(transactions: impl IntoIterator<Item = &'a Transaction>) -> u64 {
    let of = |tx: &Transaction| slots(tx).count() + tx.inputs.len();
    transactions.into_iter().map(of).sum::<usize>() as u64
}

/// The outputs that get a slot.
fn slots(tx: &Transaction) -> impl Iterator<Item = (u32, &groundtackle_chain::TxOut)> {
    (0..)
        .zip(&tx.outputs)
        .filter(|(_, output)| !UnspendableRule::Core.is_unspendable(&output.script))
}

/// What one way took.
#[derive(Debug, Default)]
struct Tally {
    wall: Duration,
    client: f64,
    server: f64,
    txs: u64,
    coins: u64,
    /// The client's CPU is not ours to see.
    foreign: bool,
}

impl Tally {
    async fn time<T>(
        &mut self,
        pid: u32,
        (txs, coins): (usize, u64),
        work: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        // The client's innermost: it is the client that looks at the server's.
        let (server, client, begin) = (server_cpu(pid)?, process_cpu()?, Instant::now());
        let done = work.await?;
        self.wall += begin.elapsed();
        self.client += process_cpu()? - client;
        self.server += server_cpu(pid)? - server;
        self.txs += txs as u64;
        self.coins += coins;
        Ok(done)
    }

    /// Coin operations per second.
    fn rate(&self) -> f64 {
        self.coins as f64 / self.wall.as_secs_f64()
    }

    fn row(&self, name: &str, ours: &Self) {
        println!(
            "| {name} | {} | {:.0} | {:.0} | {} | {:.1} | {:.2} |",
            self.txs,
            self.txs as f64 / self.wall.as_secs_f64(),
            self.rate(),
            if self.foreign {
                "-".to_owned()
            } else {
                format!("{:.1}", self.client * 1e6 / self.coins as f64)
            },
            self.server * 1e6 / self.coins as f64,
            ours.rate() / self.rate(),
        );
    }
}

fn head(title: &str) {
    println!("\n### {title}\n");
    println!(
        "| | transactions | transactions/s | coin operations/s | client CPU µs per coin operation | server CPU µs per coin operation | store's rate to this one's |"
    );
    println!("|---|---|---|---|---|---|---|");
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse()?;
    let chain = Chain::generate(&options)?;
    println!("{}", machine());
    println!(
        "Seeded with {} blocks of {} transactions; measured are {} blocks with {}.",
        options.seed_blocks,
        options.txs_per_block,
        chain.blocks.len(),
        chain
            .blocks
            .iter()
            .map(|block| block.transactions.len())
            .sum::<usize>(),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    if options.wants("postgres") {
        runtime.block_on(postgres(&chain))?;
    }
    if options.wants("redis") {
        runtime.block_on(redis(&chain))?;
    }
    Ok(())
}

// ---- the store ----

async fn seed(store: &impl UtxoStore, blocks: &[ChainBlock]) -> Result<(), BoxError> {
    for block in blocks {
        store
            .connect_block(block)
            .await?
            .map_err(|no| format!("{no}"))?;
    }
    Ok(())
}

async fn spend(
    store: &impl UtxoStore,
    batch: &[NewTransaction],
    height: u32,
) -> Result<(), BoxError> {
    let options = SpendOptions::at(height);
    for outcome in store.spend_and_create(batch, &options).await? {
        if outcome.map_err(|no| format!("{no}"))? != Applied::Now {
            return Err("something was there before".into());
        }
    }
    Ok(())
}

/// Rates from one transaction a call on.
async fn sizes(store: &impl UtxoStore, chain: &Chain, name: &str) -> Result<(), BoxError> {
    println!("\n### {name}: transactions a call, one call at a time\n");
    println!("| transactions a call | calls | ms a call | transactions/s |");
    println!("|---|---|---|---|");
    let mut all = chain.batches(1).into_iter().flatten();
    for (size, calls) in [(1, 500), (10, 200), (100, 50), (1_000, 10), (10_000, 2)] {
        let batches: Vec<Vec<NewTransaction>> = (0..calls)
            .map(|_| all.by_ref().take(size).collect())
            .collect();
        if batches.iter().any(|batch| batch.len() < size) {
            println!("| {size} | the chain is too short | | |");
            break;
        }
        let begin = Instant::now();
        for batch in &batches {
            spend(store, batch, chain.height()).await?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        println!(
            "| {size} | {calls} | {:.2} | {:.0} |",
            seconds * 1e3 / f64::from(calls),
            (size as f64) * f64::from(calls) / seconds,
        );
    }
    Ok(())
}

// ---- PostgreSQL ----

async fn postgres(chain: &Chain) -> Result<(), BoxError> {
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

// ---- Redis ----

async fn redis(chain: &Chain) -> Result<(), BoxError> {
    for (fsync, durability) in [
        ("always", Durability::Always),
        ("everysec", Durability::EverySecond),
    ] {
        let server = Redis::start(RedisOptions {
            append_fsync: Some(fsync),
            // To rewrite the log would make it shrink in the middle of a measurement.
            settings: vec![("auto-aof-rewrite-percentage".to_owned(), "0".to_owned())],
            ..RedisOptions::default()
        });
        let open = async |prefix: &str| {
            let config = RedisUtxoStoreConfig::new(server.url())
                .with_tls(RedisTls::Off)
                .with_prefix(prefix.into())
                .with_durability(durability);
            let store = RedisUtxoStore::open(config).await?;
            seed(&store, &chain.before).await?;
            Ok::<_, BoxError>(store)
        };

        head(&format!(
            "Redis, `appendfsync {fsync}`: spend-and-create, 1,000 transactions a call"
        ));
        let store = open("spend").await?;
        let mut run = RedisRun::new(&server)?;
        for batch in chain.batches(1_000) {
            let transactions: Vec<&Transaction> = batch.iter().map(|new| &new.tx).collect();
            run.turn(&transactions, spend(&store, &batch, chain.height()))
                .await?;
        }
        run.finish()?;

        head(&format!("Redis, `appendfsync {fsync}`: connect a block"));
        let store = open("blocks").await?;
        let mut run = RedisRun::new(&server)?;
        for block in &chain.blocks {
            let transactions: Vec<&Transaction> = block.transactions.iter().collect();
            let connected = async {
                let connected = store.connect_block(block).await?;
                connected.map(drop).map_err(|no| format!("{no}").into())
            };
            run.turn(&transactions, connected).await?;
        }
        run.finish()?;

        sizes(
            &open("sizes").await?,
            chain,
            &format!("Redis, `appendfsync {fsync}`"),
        )
        .await?;
    }
    Ok(())
}

/// From so many writes on Redis's own tool has its turn: fewer, and its figure is about its start.
const TURN: u64 = 20_000;

/// Fields that one command of Redis's own tool sets, where that is not one.
const FIELDS: u64 = 1_000;

/// The store against Redis's own tool, which does as many writes with as many bytes in all: one a command, which is
/// how it is used, and many a command, since a pipeline of small ones is logged and synced in pieces of a few dozen.
struct RedisRun<'a> {
    server: &'a Redis,
    pid: u32,
    ours: Tally,
    single: Tally,
    many: Tally,
    load: (usize, u64),
    /// Fields that the store's scripts have set, and bytes that its log has grown by.
    writes: u64,
    bytes: u64,
}

impl<'a> RedisRun<'a> {
    fn new(server: &'a Redis) -> Result<Self, BoxError> {
        let foreign = || Tally {
            foreign: true,
            ..Tally::default()
        };
        Ok(Self {
            server,
            pid: info(server, "process_id")?.try_into()?,
            ours: Tally::default(),
            single: foreign(),
            many: foreign(),
            load: (0, 0),
            writes: 0,
            bytes: 0,
        })
    }

    fn written(&self) -> Result<(u64, u64), BoxError> {
        let stats = self.server.command(&["INFO", "commandstats"]);
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_hset:calls="));
        let calls = line
            .and_then(|line| line.split(',').next())
            .ok_or("no statistics")?;
        Ok((calls.parse()?, info(self.server, "aof_current_size")?))
    }

    async fn turn(
        &mut self,
        transactions: &[&Transaction],
        work: impl Future<Output = Result<(), BoxError>>,
    ) -> Result<(), BoxError> {
        let load = (transactions.len(), coins(transactions.iter().copied()));
        let before = self.written()?;
        self.ours.time(self.pid, load, work).await?;
        let after = self.written()?;
        self.writes += after.0 - before.0;
        self.bytes += after.1 - before.1;
        self.load = (self.load.0 + load.0, self.load.1 + load.1);
        if self.writes >= TURN {
            self.benchmark()?;
        }
        Ok(())
    }

    fn benchmark(&mut self) -> Result<(), BoxError> {
        let load = std::mem::take(&mut self.load);
        let writes = std::mem::take(&mut self.writes);
        let each = std::mem::take(&mut self.bytes) / writes;
        for (fields, tally) in [(1, &mut self.single), (FIELDS, &mut self.many)] {
            // What field and value have around them takes 28 bytes, a command with its key 39.
            let value = "x".repeat(each.saturating_sub(28 + 39 / fields).max(1) as usize);
            let commands = writes.div_ceil(fields);
            let before = server_cpu(self.pid)?;
            let mut tool = Command::new("redis-benchmark");
            tool.args(["-p", &self.server.port().to_string(), "-c", "1", "--csv"]);
            tool.args(["-P", if fields == 1 { "1000" } else { "1" }]);
            tool.args(["-n", &commands.to_string(), "-r", "65536"]);
            tool.args(["HSET", "bench:__rand_int__"]);
            for _ in 0..fields {
                tool.args(["__rand_int__", &value]);
            }
            // Its own figure: without its start.
            let text = String::from_utf8(tool.output()?.stdout)?;
            let rate = text
                .lines()
                .last()
                .and_then(|line| line.rsplit("\",\"").nth(6));
            let rate: f64 = rate
                .and_then(|rate| rate.parse().ok())
                .ok_or_else(|| format!("redis-benchmark gives no rate: {text}"))?;
            tally.wall += Duration::from_secs_f64(commands as f64 / rate);
            tally.server += server_cpu(self.pid)? - before;
            tally.txs += load.0 as u64;
            tally.coins += load.1;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), BoxError> {
        if self.writes > 0 {
            self.benchmark()?;
        }
        self.ours.row("store", &self.ours);
        self.single.row(
            "`redis-benchmark -c 1 -P 1000 HSET`, as many fields and bytes",
            &self.ours,
        );
        self.many
            .row("the same with 1,000 fields a command", &self.ours);
        Ok(())
    }
}

fn info(server: &Redis, field: &str) -> Result<u64, BoxError> {
    let info = server.command(&["INFO"]);
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.ok_or("no such field")?.trim().parse()?)
}
