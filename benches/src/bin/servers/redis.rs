//! Redis: the store beside the least that its fields cost.

use std::process::Command;
use std::time::Duration;

use groundtackle_benches::BoxError;
use groundtackle_benches::machine::server_cpu;
use groundtackle_chain::Transaction;
use groundtackle_testkit_servers::{Redis, RedisOptions};
use groundtackle_utxo_store::BlockStore;
use groundtackle_utxo_store_redis::{
    Durability, RedisUtxoStore, RedisUtxoStoreConfig, Tls as RedisTls,
};

use super::{Chain, Tally, coins, head, seed, sizes, spend};

pub(super) async fn redis(chain: &Chain) -> Result<(), BoxError> {
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
