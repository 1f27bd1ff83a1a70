//! What needs a node that nobody else uses: what calls cost in round trips, as the node counts them, also those for a
//! transaction of a million outputs, which follow the records it takes; and what is said while the node is out of reach.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod common;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use groundtackle_core::RetryConfig;
use groundtackle_testkit_servers::{Aerospike, AerospikeOptions};
use groundtackle_utxo_store::pending::OUTPUTS_PER_PAGE;
use groundtackle_utxo_store::{
    Applied, BlockHash, BlockStore, ConflictStore, Fields, NewTransaction, OutPoint, Result,
    RetentionStore, SlotState, SpendOptions, SpendStore, SpentBy, Tip, Transaction, Verdict,
};
use groundtackle_utxo_store_aerospike::AerospikeUtxoStore;
use groundtackle_utxo_store_testkit::builder::{TxBuilder, out};
use groundtackle_utxo_store_testkit::{Fault, Harness};

use common::{config, set, skipped, startable};

const OUTPUTS: usize = 1_000_000;
const SPENT: usize = 1_000;

/// Records that a request carries on average, at least. It may be 1,024, but no more than 4 MiB, and pages are asked for
/// as if each held 64 KiB.
const RECORDS_PER_REQUEST: u64 = 48;

/// What the node has counted: requests, but for those about itself; and records in them.
#[derive(Clone, Copy, Debug)]
struct Count {
    requests: u64,
    records: u64,
}

impl Count {
    fn of(node: &Aerospike) -> Self {
        let sum = |command: &str, counts: fn(&str) -> bool| {
            let text = node.info(0, command).expect("the node answers");
            let numbers = text.trim_end().split(';').filter_map(|fact| {
                let (name, number) = fact.split_once('=')?;
                counts(name).then(|| number.parse::<u64>().expect("a number"))
            });
            let numbers: Vec<_> = numbers.collect();
            assert!(!numbers.is_empty(), "{command}: {text}");
            numbers.iter().sum::<u64>()
        };
        let batches = sum("statistics", |name| name == "batch_index_initiate");
        // Where a node has one record of a batch, the client asks for it alone.
        let alone = sum("namespace/test", |name| {
            ["client_read_", "client_write_", "client_delete_"]
                .iter()
                .any(|kind| name.starts_with(kind))
        });
        let queries = sum("namespace/test", |name| {
            (name.starts_with("pi_query_") || name.starts_with("si_query_"))
                && ["_complete", "_error", "_timeout", "_abort"]
                    .iter()
                    .any(|end| name.ends_with(end))
        });
        let batched = sum("namespace/test", |name| {
            ["batch_sub_read_", "batch_sub_write_", "batch_sub_delete_"]
                .iter()
                .any(|kind| name.starts_with(kind))
        });
        Self {
            requests: batches + alone + queries,
            records: batched + alone,
        }
    }
}

/// Each store on a node of its own.
struct Alone;

#[async_trait]
impl Harness for Alone {
    type Store = AerospikeUtxoStore;
    type Place = (Aerospike, String);

    fn missing(&self) -> Option<String> {
        startable()
    }

    async fn place(&self) -> (Aerospike, String) {
        let node = Aerospike::start(&AerospikeOptions {
            proxied: true,
            ..AerospikeOptions::default()
        });
        let url = node.url(&set());
        (node, url)
    }

    async fn open(&self, (_, url): &(Aerospike, String)) -> Result<AerospikeUtxoStore> {
        let retry = RetryConfig::default().with_max_elapsed(Duration::from_secs(5));
        AerospikeUtxoStore::open(config(url.clone()).with_retry(retry)).await
    }

    async fn set_fault(&self, (node, _): &(Aerospike, String), fault: Fault, armed: bool) -> bool {
        let can = fault == Fault::Unreachable;
        if can {
            node.cut(armed);
        }
        can
    }

    fn round_trips(&self, (node, _): &(Aerospike, String)) -> Option<u64> {
        Some(Count::of(node).requests)
    }

    /// The marks on one record go 64 at a time, of the 512 that it may have.
    fn round_trips_per_call(&self) -> u64 {
        16
    }
}

/// The case of the kit that needs a count, and those that need a cut.
#[test]
fn round_trips() {
    groundtackle_utxo_store_testkit::run(Alone, "round_trips");
}

#[test]
fn every_node_healthy() {
    groundtackle_utxo_store_testkit::run(Alone, "every_node_healthy");
}

#[test]
fn verdict_or_failure() {
    groundtackle_utxo_store_testkit::run(Alone, "verdict_or_failure");
}

/// The steps of one run, each with what it took.
struct Run<'a> {
    node: &'a Aerospike,
    /// Records of the transaction.
    pages: u64,
    before: Count,
    began: Instant,
    taken: Vec<(&'static str, Count)>,
}

impl<'a> Run<'a> {
    fn new(node: &'a Aerospike, outputs: usize) -> Self {
        Self {
            node,
            pages: (outputs as u64).div_ceil(u64::from(OUTPUTS_PER_PAGE)),
            before: Count::of(node),
            began: Instant::now(),
            taken: Vec::new(),
        }
    }

    fn begin(&mut self) {
        (self.before, self.began) = (Count::of(self.node), Instant::now());
    }

    /// Each of `records` is sent or asked for so often, at most.
    fn end(&mut self, step: &'static str, passes: u64, records: u64) {
        let seconds = self.began.elapsed().as_secs_f64();
        let now = Count::of(self.node);
        let count = Count {
            requests: now.requests - self.before.requests,
            records: now.records - self.before.records,
        };
        println!(
            "{step}: {} round trips, {} records of {} pages, {seconds:.2} s",
            count.requests, count.records, self.pages
        );
        // A few to find out, and then as many as the records fill.
        let most = 12 + count.records / RECORDS_PER_REQUEST;
        assert!(count.requests <= most, "{step}: {count:?}");
        let most = 20 + passes * records;
        assert!(count.records <= most, "{step}: {count:?}");
        assert!(count.requests > 0, "{step}: nothing was counted");
        self.taken.push((step, count));
    }
}

async fn run(node: &Aerospike, outputs: usize) -> Vec<(&'static str, Count)> {
    let url = node.url(&set());
    let store = AerospikeUtxoStore::open(config(url)).await.unwrap();
    let options = SpendOptions::at(1);
    let seed = TxBuilder::new(1).pay(1_000_000_000).seed(1);
    let coin = OutPoint::new(seed.txid(), 0);
    store.create(&[seed]).await.unwrap()[0].clone().unwrap();
    store.set_tip(&tip()).await.unwrap();
    let wide = TxBuilder::new(2).spend(coin).pay_each(outputs, 1).build();
    let spend_and_create = async |tx: &Transaction| {
        let new = [NewTransaction::from(tx.clone())];
        let done = store.spend_and_create(&new, &options).await.unwrap();
        done[0].clone()
    };
    let mut run = Run::new(node, outputs);

    run.begin();
    assert_eq!(spend_and_create(&wide).await, Ok(Applied::Now));
    run.end("create", 3, run.pages);
    assert!(run.taken[0].1.records >= run.pages, "{:?}", run.taken);

    run.begin();
    let read = store.records(&[wide.txid], Fields::ALL).await.unwrap();
    run.end("read back", 1, run.pages);
    let record = read[0].as_ref().unwrap();
    assert_eq!(record.outputs.len(), outputs);
    for (output, wanted) in record.outputs.iter().zip(&wide.outputs) {
        assert_eq!(output.output, *wanted, "{}", output.vout);
        assert_eq!(output.spent_by, None, "{}", output.vout);
    }

    // Spread over all pages.
    let step = outputs / SPENT;
    let spent: Vec<_> = (0..SPENT).map(|n| out(&wide, (n * step) as u32)).collect();
    let child = TxBuilder::new(3).spend_all(spent.clone()).pay(1).build();
    run.begin();
    assert_eq!(spend_and_create(&child).await, Ok(Applied::Now));
    run.end("spend 1,000", 2, SPENT as u64);
    let states = async || {
        let views = store.outputs(&spent).await.unwrap();
        views.into_iter().map(|view| view.unwrap().state)
    };
    for (vin, state) in (0..).zip(states().await) {
        let txid = child.txid;
        assert_eq!(state, SlotState::Spent(SpentBy { txid, vin }));
    }
    let rival = TxBuilder::new(4).spend(spent[SPENT - 1]).build();
    let refused = spend_and_create(&rival).await;
    assert!(
        matches!(refused, Err(Verdict::AlreadySpent { .. })),
        "{refused:?}"
    );
    let record = store.records(&[wide.txid], Fields::ALL).await.unwrap();
    let holders = &record[0].as_ref().unwrap().outputs;
    let held = holders.iter().filter(|output| output.spent_by.is_some());
    assert_eq!(held.count(), SPENT);

    let cascade = store.mark_conflicting(&[wide.txid]).await.unwrap();
    assert_eq!(cascade[0], Ok(vec![wide.txid, child.txid]));
    run.begin();
    let done = store.unspend(&[child.txid]).await.unwrap();
    run.end("unspend 1,000", 4, SPENT as u64);
    assert_eq!(done[0], Ok(Applied::Now));
    for state in states().await {
        assert_eq!(state, SlotState::Unspent);
    }

    // It is over when it holds nothing itself.
    assert_eq!(store.prune(1).await.unwrap().records, 1, "the child");
    let done = store.unspend(&[wide.txid]).await.unwrap();
    assert_eq!(done[0], Ok(Applied::Now));
    let objects = || {
        let text = node.info(0, "namespace/test").unwrap_or_default();
        let objects = text
            .split(';')
            .find_map(|fact| fact.strip_prefix("objects="));
        objects.expect("it says").parse::<u64>().expect("a number")
    };
    let before = objects();
    run.begin();
    let pruned = store.prune(1).await.unwrap();
    run.end("prune", 4, run.pages);
    assert_eq!(pruned.records, 1);
    // All its pages, and none stays behind.
    assert!(before - objects() >= run.pages, "{before} before");
    let read = store.records(&[wide.txid], Fields::META).await.unwrap();
    assert_eq!(read, [None]);
    let missing = store.outputs(&spent).await.unwrap();
    assert!(
        missing
            .iter()
            .all(|view| matches!(view, Err(Verdict::MissingTransaction { .. })))
    );
    run.taken
}

const fn tip() -> Tip {
    Tip {
        height: 2,
        hash: BlockHash::from_bytes([2; 32]),
        median_time_past: 1_231_126_505,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_outputs_cost_what_their_records_do() {
    let name = "a_million_outputs_cost_what_their_records_do";
    if skipped(name, startable()) {
        return;
    }
    // Nobody else is counted.
    let node = Aerospike::start(&AerospikeOptions::default());
    let some = run(&node, OUTPUTS / 8).await;
    let all = run(&node, OUTPUTS).await;
    for ((step, some), (_, all)) in some.iter().zip(&all) {
        // Eight times the outputs take no more than eight times as much.
        assert!(
            all.requests <= 8 * some.requests + 8,
            "{step}: {some:?}, {all:?}"
        );
    }
}
