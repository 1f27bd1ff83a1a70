//! Measures the UTXO stores on servers against what the servers can do at most, and prints the tables of
//! `docs/benchmarks.md`. The servers are its own: temporary, on this machine, durable by commit. Linux only.
//!
//! The ways of one table take turns batch by batch in one run, so that the machine's moods meet all of them.

mod postgres;
mod redis;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use groundtackle_benches::BoxError;
use groundtackle_benches::generator::{ChainGenerator, GeneratorConfig};
use groundtackle_benches::machine::{machine, process_cpu, server_cpu};
use groundtackle_benches::regtest::{BlockReader, BlockWriter, Regtest};
use groundtackle_chain::{ChainBlock, Transaction, Txid};
use groundtackle_utxo_store::{Applied, NewTransaction, SpendOptions, UnspendableRule, UtxoStore};

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
        runtime.block_on(postgres::postgres(&chain))?;
    }
    if options.wants("redis") {
        runtime.block_on(redis::redis(&chain))?;
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
