//! Measures the UTXO store on Aerospike against the client doing the same batches by itself, and against a function in the
//! server, and prints the tables of `docs/benchmarks.md`. One node of its own, in memory; needs `asd` on the PATH. Linux
//! only.
//!
//! The ways of one table take turns batch by batch in one run, so that the machine's moods meet all of them.

use aerospike::expressions::{self as exp, ExpType, Expression};
use aerospike::operations::{Operation, lists, scalar};
use aerospike::policy::{AdminPolicy, ClientPolicy};
use aerospike::query::UdfLang;
use aerospike::{
    BatchDeletePolicy, BatchOperation, BatchPolicy, BatchReadPolicy, BatchUdfPolicy,
    BatchWritePolicy, Bin, Bins, Client, Host, Key, ListReturnType, RecordExistsAction, ResultCode,
    Task, Value,
};
use groundtackle_benches::BoxError;
use groundtackle_benches::machine::{
    machine, peak_rss_mib, process_cpu, reset_peak_rss, server_cpu,
};
use groundtackle_core::RetryConfig;
use groundtackle_testkit_servers::{Aerospike, AerospikeOptions};
use groundtackle_utxo_store::pending::CellKey;
use groundtackle_utxo_store::{
    Applied, BlockHash, BlockStore, ConflictStore, MinedIn, NewRecord, NewTransaction, OutPoint,
    Outcome, SpendOptions, SpendStore, Tip, Txid, UtxoStore,
};
use groundtackle_utxo_store_aerospike::{AerospikeUtxoStore, AerospikeUtxoStoreConfig};
use groundtackle_utxo_store_testkit::builder::TxBuilder;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const USAGE: &str = "aerospike [--batches N] [--batch N] [--mined N]";

const NAMESPACE: &str = "test";
/// What the client does by itself.
const RAW: &str = "raw";
/// What it does by itself of a spend alone.
const MARKS: &str = "marks";
/// What it does where it takes the store's steps, for a spend and for taking it back.
const STEPS: &str = "steps";
/// What the function in the server does.
const PEER: &str = "peer";

const HEIGHT: u32 = 200;

/// Records of one request, as the store sends them.
const REQUEST: usize = 1_024;

/// Outputs of each record that the transactions to be mined spend.
const WIDE: usize = 500;

/// The checks of a spend in the language that most projects write them in: a record per transaction, a slot per output.
const PEER_FUNCTION: &str = r#"
function spend(rec, indexes, marks, height, stamp)
  if not aerospike:exists(rec) then return 1 end
  if rec['lk'] ~= nil or rec['gtp'] ~= nil then return 2 end
  local flags = rec['g']
  if flags >= 2 then return 3 end
  if flags == 1 and (rec['h'] == nil or rec['h'] + 100 > height) then return 4 end
  local slots = rec['s']
  if slots == nil then return 5 end
  for n = 1, list.size(indexes) do
    local at = indexes[n] + 1
    local slot = slots[at]
    if slot == nil then return 6 end
    if bytes.size(slot) ~= 1 or bytes.get_byte(slot, 1) ~= 0 then
      if tostring(slot) ~= tostring(marks[n]) then return 7 end
    end
    slots[at] = marks[n]
  end
  rec['s'] = slots
  rec['st'] = stamp
  aerospike:update(rec)
  return 0
end
"#;

#[derive(Debug, Clone)]
struct Options {
    batches: usize,
    batch: usize,
    mined: usize,
}

impl Options {
    fn parse() -> Result<Self, BoxError> {
        let mut options = Self {
            batches: 40,
            batch: 1_000,
            mined: 290_000,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match name.as_str() {
                "--batches" => options.batches = value.parse()?,
                "--batch" => options.batch = value.parse()?,
                "--mined" => options.mined = value.parse()?,
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }
}

/// What one way took.
#[derive(Debug, Default)]
struct Tally {
    wall: Duration,
    client: f64,
    server: f64,
    items: usize,
    /// Records that were read or written.
    records: u64,
}

/// Records that the node was asked for, or to change, until now.
fn records_asked(node: &Aerospike) -> Result<u64, BoxError> {
    let text = node
        .info(0, &format!("namespace/{NAMESPACE}"))
        .ok_or("the node says nothing of its namespace")?;
    let kinds = ["client_", "batch_sub_"]
        .map(|of| ["read_", "write_", "delete_", "udf_"].map(|kind| format!("{of}{kind}")));
    let mut sum = 0;
    for (name, number) in text.trim_end().split(';').filter_map(|f| f.split_once('=')) {
        if kinds.iter().flatten().any(|kind| name.starts_with(kind)) {
            sum += number.parse::<u64>()?;
        }
    }
    Ok(sum)
}

impl Tally {
    async fn time<T>(
        &mut self,
        node: &Aerospike,
        items: usize,
        work: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        let pid = node.pid(0).ok_or("a node of its own")?;
        let asked = records_asked(node)?;
        // The client's innermost: it is the client that looks at the server's.
        let (server, client, begin) = (server_cpu(pid)?, process_cpu()?, Instant::now());
        let done = work.await?;
        self.wall += begin.elapsed();
        self.client += process_cpu()? - client;
        self.server += server_cpu(pid)? - server;
        self.items += items;
        self.records += records_asked(node)? - asked;
        Ok(done)
    }

    fn rate(&self) -> f64 {
        self.items as f64 / self.wall.as_secs_f64()
    }

    fn row(&self, name: &str, ours: &Self) {
        let micros = |seconds: f64| seconds * 1e6 / self.items as f64;
        println!(
            "| {name} | {:.0} | {:.1} | {:.1} | {:.1} | {:.2} |",
            self.rate(),
            micros(self.client),
            micros(self.server),
            self.records as f64 / self.items as f64,
            ours.rate() / self.rate(),
        );
    }
}

fn head(title: &str, item: &str) {
    println!("\n### {title}\n");
    println!(
        "| | {item}/s | client CPU µs for one | server CPU µs for one | records read or written for one | store's rate to this one's |"
    );
    println!("|---|---|---|---|---|---|");
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse()?;
    if !Aerospike::can_be_started() {
        return Err("there is no asd on the PATH".into());
    }
    println!("{}", machine());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> Result<(), BoxError> {
    let node = Aerospike::start(&AerospikeOptions {
        data_mib: 4_096,
        ..AerospikeOptions::default()
    });
    let store = open(&node, "store", RetryConfig::default()).await?;
    compare(&node, &store, options).await?;
    in_flight(&node).await?;
    mined(&node, options).await
}

async fn open(
    node: &Aerospike,
    set: &str,
    retry: RetryConfig,
) -> Result<AerospikeUtxoStore, BoxError> {
    let config = AerospikeUtxoStoreConfig::new(node.url(set))
        .with_min_replicas(1)
        .with_retry(retry);
    let store = AerospikeUtxoStore::open(config).await?;
    let tip = Tip {
        height: HEIGHT,
        hash: BlockHash::from_bytes([200; 32]),
        median_time_past: 0,
    };
    store.set_tip(&tip).await?;
    Ok(store)
}

fn all<T: PartialEq>(outcomes: Vec<Outcome<T>>, expected: &T) -> Result<(), BoxError> {
    for outcome in outcomes {
        if outcome.map_err(|no| format!("{no}"))? != *expected {
            return Err("something was there before".into());
        }
    }
    Ok(())
}

async fn create(store: &impl UtxoStore, seeds: &[NewRecord]) -> Result<(), BoxError> {
    for seeds in seeds.chunks(1_000) {
        all(store.create(seeds).await?, &Applied::Now)?;
    }
    Ok(())
}

async fn spend(store: &impl UtxoStore, batch: &[NewTransaction]) -> Result<(), BoxError> {
    let options = SpendOptions::at(HEIGHT);
    let outcomes = store.spend_and_create(batch, &options).await?;
    all(outcomes, &Applied::Now)
}

// ---- the client by itself ----

type Stored = HashMap<String, Value>;

struct Raw {
    client: Client,
}

fn key(set: &str, txid: Txid) -> Result<Key, BoxError> {
    let name = CellKey::head(txid).to_bytes();
    Ok(Key::new(NAMESPACE, set, Value::Blob(name))?)
}

fn put(bin: &str, value: Value) -> Operation {
    scalar::put(&Bin::new(bin, value))
}

/// The record as the store has it, in bins.
fn puts(stored: &Stored) -> Vec<Operation> {
    let bins = stored.iter();
    bins.map(|(name, value)| put(name, value.clone())).collect()
}

fn update(filter: Expression) -> BatchWritePolicy {
    BatchWritePolicy {
        record_exists_action: RecordExistsAction::UpdateOnly,
        filter_expression: Some(filter),
        ..BatchWritePolicy::default()
    }
}

/// Stamps of records that are changed in steps.
const START: i64 = 7;
const LOCKED: i64 = 8;

/// As many bytes as a lock has that holds what becomes of a record.
fn joined(stored: &Stored) -> Vec<u8> {
    let bytes = |value: &Value| match value {
        Value::Blob(bytes) => bytes.clone(),
        _ => vec![0; 8],
    };
    let all = stored.values().flat_map(|value| match value {
        Value::List(items) => items.iter().map(bytes).collect(),
        value => vec![bytes(value)],
    });
    all.flatten().collect()
}

/// The input that a slot names, without the attempt.
fn holder(slot: Value) -> Vec<u8> {
    match slot {
        Value::Blob(mut bytes) => {
            bytes.truncate(36);
            bytes
        }
        _ => Vec::new(),
    }
}

/// A spend of outputs of one record: which, and by what.
type Spends = Vec<(i64, Vec<u8>)>;

/// What the store's filter asks.
fn spendable(spends: &Spends) -> Expression {
    let slot = |index| {
        let slots = exp::list_bin("s");
        exp::lists::get_by_index(
            ListReturnType::VALUES,
            ExpType::Blob,
            exp::int_val(index),
            slots,
            &[],
        )
    };
    let mut checks = vec![
        exp::not(exp::bin_exists("lk")),
        exp::not(exp::bin_exists("gtp")),
    ];
    for (index, mark) in spends {
        checks.push(exp::or(vec![
            exp::eq(slot(*index), exp::blob_val(vec![0])),
            exp::eq(slot(*index), exp::blob_val(mark.clone())),
        ]));
    }
    let no_flag = |flags| {
        let set = exp::int_and(vec![exp::int_bin("g"), exp::int_val(flags)]);
        exp::eq(set, exp::int_val(0))
    };
    checks.push(no_flag(6));
    let ripe = exp::le(exp::int_bin("h"), exp::int_val(i64::from(HEIGHT) - 100));
    checks.push(exp::or(vec![no_flag(1), ripe]));
    exp::and(checks)
}

impl Raw {
    async fn connect(node: &Aerospike) -> Result<Self, BoxError> {
        let url = node.url("raw");
        let address = url
            .split('/')
            .nth(2)
            .and_then(|hosts| hosts.split_once(':'));
        let (host, port) = address.ok_or("no address")?;
        let hosts = vec![Host::new(host, port.parse()?)];
        let client = Client::new(&ClientPolicy::default(), &hosts).await?;
        Ok(Self { client })
    }

    /// Requests as large as the store's, all of them at once.
    async fn send(&self, mut rows: Vec<BatchOperation>) -> Result<Vec<Option<Stored>>, BoxError> {
        let policy = BatchPolicy::write_default();
        let requests = rows.chunks_mut(REQUEST);
        let requests = requests.map(|rows| self.client.batch(&policy, rows));
        for done in futures_util::future::join_all(requests).await {
            done?;
        }
        let mut answers = Vec::with_capacity(rows.len());
        for row in rows {
            let row = row.into_batch_record();
            if row.result_code() != Some(ResultCode::Ok) {
                return Err(format!("a row failed: {:?}", row.error()).into());
            }
            answers.push(row.record.map(|record| record.bins.into_iter().collect()));
        }
        Ok(answers)
    }

    async fn read(&self, set: &str, txids: &[Txid]) -> Result<Vec<Stored>, BoxError> {
        let policy = BatchReadPolicy::default();
        let row = |txid: &Txid| Ok(BatchOperation::read(&policy, key(set, *txid)?, Bins::All));
        let rows: Result<Vec<_>, BoxError> = txids.iter().map(row).collect();
        let answers = self.send(rows?).await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Writes records with one bin more.
    async fn create(
        &self,
        set: &str,
        records: &[(Txid, Stored)],
        more: Option<(&str, i64)>,
    ) -> Result<(), BoxError> {
        let policy = BatchWritePolicy {
            record_exists_action: RecordExistsAction::CreateOnly,
            ..BatchWritePolicy::default()
        };
        let mut rows = Vec::with_capacity(records.len());
        for (txid, stored) in records {
            let mut bins = puts(stored);
            bins.extend(more.map(|(name, value)| put(name, Value::Int(value))));
            rows.push(BatchOperation::write(&policy, key(set, *txid)?, bins));
        }
        self.send(rows).await.map(drop)
    }

    async fn mark(&self, set: &str, spends: &[(Txid, Spends)]) -> Result<(), BoxError> {
        let mut rows = Vec::with_capacity(spends.len());
        for (txid, spends) in spends {
            let spend =
                |(index, mark): &(i64, Vec<u8>)| lists::set("s", *index, Value::Blob(mark.clone()));
            let mut changes: Vec<_> = spends.iter().map(spend).collect();
            changes.push(put("st", Value::Int(7)));
            let policy = update(spendable(spends));
            rows.push(BatchOperation::write(&policy, key(set, *txid)?, changes));
        }
        self.send(rows).await.map(drop)
    }

    /// Writes records over those that have this stamp, with a lock that holds what becomes of them, or without.
    async fn replace(
        &self,
        records: &[(Txid, Stored)],
        becomes: Option<&[(Txid, Stored)]>,
        (from, to): (i64, i64),
    ) -> Result<(), BoxError> {
        let mut rows = Vec::with_capacity(records.len());
        for (at, (txid, stored)) in records.iter().enumerate() {
            let mut changes = puts(stored);
            changes.push(put("st", Value::Int(to)));
            let locked = becomes.and_then(|becomes| becomes.get(at));
            changes.extend(locked.map(|(_, stored)| put("lk", Value::Blob(joined(stored)))));
            let stamp = |stamp| exp::eq(exp::int_bin("st"), exp::int_val(stamp));
            let policy = BatchWritePolicy {
                record_exists_action: RecordExistsAction::ReplaceOnly,
                ..update(exp::or(vec![stamp(from), stamp(to)]))
            };
            rows.push(BatchOperation::write(&policy, key(STEPS, *txid)?, changes));
        }
        self.send(rows).await.map(drop)
    }

    /// What the store does to spend with what is there, or to take that back: it reads, names what it changes, locks it, looks
    /// again at what else it relies on, commits, puts the changes in place, and takes the name away. Spenders that give
    /// back change too: they get another attempt.
    async fn change_in_steps(
        &self,
        spenders: &[(Txid, Stored)],
        give_back: bool,
        before: &[(Txid, Stored)],
        after: &[(Txid, Stored)],
    ) -> Result<(), BoxError> {
        let names = |records: &[(Txid, Stored)]| -> Vec<Txid> {
            records.iter().map(|(txid, _)| *txid).collect()
        };
        let (relied, parents) = (names(spenders), names(before));
        self.read(STEPS, &relied).await?;
        self.read(STEPS, &parents).await?;
        let with_spenders = |records: &[(Txid, Stored)]| -> Vec<(Txid, Stored)> {
            let spenders = spenders.iter().filter(|_| give_back);
            records.iter().chain(spenders).cloned().collect()
        };
        let (before, after) = (with_spenders(before), with_spenders(after));
        let names: Vec<_> = before
            .iter()
            .map(|(txid, _)| CellKey::head(*txid).to_bytes())
            .collect();
        let intent = |stamp| {
            let value = [
                ("k", Value::Blob(vec![5; 9])),
                ("b", Value::Blob(names.concat())),
                ("gtp", Value::Int(3)),
                ("st", Value::Int(stamp)),
            ];
            value.map(|(name, value)| put(name, value)).to_vec()
        };
        let intent_key = || Key::new(NAMESPACE, STEPS, Value::Blob(vec![5; 9]));
        let fresh = BatchWritePolicy {
            record_exists_action: RecordExistsAction::CreateOnly,
            ..BatchWritePolicy::default()
        };
        let alone = async |row| self.send(vec![row]).await.map(drop);
        alone(BatchOperation::write(&fresh, intent_key()?, intent(1))).await?;
        self.replace(&before, Some(&after), (START, LOCKED)).await?;
        if !give_back {
            self.read(STEPS, &relied).await?;
        }
        let same = |stamp| exp::eq(exp::int_bin("st"), exp::int_val(stamp));
        alone(BatchOperation::write(
            &update(same(1)),
            intent_key()?,
            intent(2),
        ))
        .await?;
        self.replace(&after, None, (LOCKED, START)).await?;
        let policy = BatchDeletePolicy {
            filter_expression: Some(same(2)),
            ..BatchDeletePolicy::default()
        };
        alone(BatchOperation::delete(&policy, intent_key()?)).await
    }

    async fn unmark(&self, spends: &[(Txid, Spends)]) -> Result<(), BoxError> {
        let mut rows = Vec::with_capacity(spends.len());
        for (txid, spends) in spends {
            let unspent = |(index, _): &(i64, _)| lists::set("s", *index, Value::Blob(vec![0]));
            let mut changes: Vec<_> = spends.iter().map(unspent).collect();
            changes.push(put("st", Value::Int(9)));
            let policy = update(exp::and(vec![
                exp::not(exp::bin_exists("lk")),
                exp::not(exp::bin_exists("gtp")),
            ]));
            rows.push(BatchOperation::write(&policy, key(MARKS, *txid)?, changes));
        }
        self.send(rows).await.map(drop)
    }

    async fn make_live(&self, records: &[(Txid, Stored)]) -> Result<(), BoxError> {
        let mut rows = Vec::with_capacity(records.len());
        for (txid, stored) in records {
            let Some(Value::Int(attempt)) = stored.get("a") else {
                return Err("a record has no attempt".into());
            };
            let policy = update(exp::and(vec![
                exp::eq(exp::int_bin("gtp"), exp::int_val(1)),
                exp::eq(exp::int_bin("a"), exp::int_val(*attempt)),
                exp::not(exp::bin_exists("lk")),
            ]));
            let changes = vec![put("gtp", Value::Nil), put("st", Value::Int(8))];
            rows.push(BatchOperation::write(&policy, key(RAW, *txid)?, changes));
        }
        self.send(rows).await.map(drop)
    }

    async fn call_peer(&self, spends: &[(Txid, Spends)]) -> Result<(), BoxError> {
        let policy = BatchUdfPolicy::default();
        let mut rows = Vec::with_capacity(spends.len());
        for (txid, spends) in spends {
            let indexes = spends.iter().map(|(index, _)| Value::Int(*index)).collect();
            let marks = spends
                .iter()
                .map(|(_, mark)| Value::Blob(mark.clone()))
                .collect();
            let arguments = vec![
                Value::List(indexes),
                Value::List(marks),
                Value::Int(i64::from(HEIGHT)),
                Value::Int(7),
            ];
            let key = key(PEER, *txid)?;
            rows.push(BatchOperation::udf(
                &policy, key, "peer", "spend", arguments,
            ));
        }
        for answer in self.send(rows).await? {
            let codes: Vec<_> = answer.iter().flat_map(HashMap::values).collect();
            if codes != [&Value::Int(0)] {
                return Err(format!("the function refuses: {answer:?}").into());
            }
        }
        Ok(())
    }
}

/// The outputs that transactions spend, by record, with the marks that the store sets.
fn spends_of(
    batch: &[NewTransaction],
    records: &[(Txid, Stored)],
) -> Result<Vec<(Txid, Spends)>, BoxError> {
    let mut spends: HashMap<Txid, Spends> = HashMap::new();
    for (new, (_, stored)) in batch.iter().zip(records) {
        let Some(Value::Int(attempt)) = stored.get("a") else {
            return Err("a record has no attempt".into());
        };
        for (vin, input) in (0_u32..).zip(&new.tx.inputs) {
            let mut mark = new.tx.txid.as_bytes().to_vec();
            mark.extend(vin.to_be_bytes());
            mark.extend(attempt.to_be_bytes());
            let of_record = spends.entry(input.txid).or_default();
            of_record.push((i64::from(input.vout), mark));
        }
    }
    Ok(spends.into_iter().collect())
}

/// Records with two outputs each, and transactions that spend one of each of two records.
fn workload(tag: u64, count: u64) -> (Vec<NewRecord>, Vec<NewTransaction>) {
    let seed = |n| TxBuilder::new(tag + n).pay_each(2, 1_000).seed(1);
    let seeds: Vec<_> = (0..count).map(seed).collect();
    let neighbours = seeds.iter().zip(seeds.iter().cycle().skip(1));
    let spender = |(n, (first, second)): (u64, (&NewRecord, &NewRecord))| {
        let coins = [(first, 0), (second, 1)].map(|(of, vout)| OutPoint::new(of.txid(), vout));
        let tx = TxBuilder::new(tag + count + n).spend_all(coins);
        tx.pay_each(2, 900).build().into()
    };
    let spenders = (0..).zip(neighbours).map(spender).collect();
    (seeds, spenders)
}

async fn compare(
    node: &Aerospike,
    store: &AerospikeUtxoStore,
    options: &Options,
) -> Result<(), BoxError> {
    let raw = Raw::connect(node).await?;
    let policy = AdminPolicy::default();
    let registered =
        raw.client
            .register_udf(&policy, PEER_FUNCTION.as_bytes(), "peer.lua", UdfLang::Lua);
    registered.await?.wait_till_complete(None).await?;
    let [mut ours, mut limit, mut marks, mut peer] = [(); 4].map(|()| Tally::default());
    let [mut looked, mut read, mut unspent, mut spent] = [(); 4].map(|()| Tally::default());
    let [mut unmarks, mut steps_back, mut steps] = [(); 3].map(|()| Tally::default());
    let named = |txids: &[Txid], records: Vec<Stored>| -> Vec<(Txid, Stored)> {
        txids.iter().copied().zip(records).collect()
    };
    for number in 0..options.batches as u64 {
        // Who goes second finds more in the caches.
        let store_first = number % 2 == 0;
        let size = options.batch;
        let (seeds, batch) = workload(1 + number * 1_000_000, size as u64);
        create(store, &seeds).await?;
        let seeds: Vec<_> = seeds.iter().map(NewRecord::txid).collect();
        let copies = named(&seeds, raw.read("store", &seeds).await?);
        for set in [RAW, MARKS, PEER] {
            raw.create(set, &copies, None).await?;
        }
        ours.time(node, size, spend(store, &batch)).await?;
        let txids: Vec<_> = batch.iter().map(|new| new.tx.txid).collect();
        let outpoints: Vec<_> = txids.iter().map(|txid| OutPoint::new(*txid, 0)).collect();
        let mut records = Vec::new();
        for store_now in [store_first, !store_first] {
            if store_now {
                let look = async {
                    let found = store.outputs(&outpoints).await?;
                    match found.iter().any(Result::is_err) {
                        true => Err("an output is missing".into()),
                        false => Ok(()),
                    }
                };
                looked.time(node, size, look).await?;
            } else {
                let found = read.time(node, size, raw.read("store", &txids)).await?;
                records = named(&txids, found);
            }
        }
        let spends = spends_of(&batch, &records)?;
        let work = async {
            raw.create(RAW, &records, Some(("gtp", 1))).await?;
            raw.mark(RAW, &spends).await?;
            raw.make_live(&records).await
        };
        limit.time(node, size, work).await?;
        let inputs = 2 * size;
        marks.time(node, inputs, raw.mark(MARKS, &spends)).await?;
        peer.time(node, inputs, raw.call_peer(&spends)).await?;
        let slots = async |set| -> Result<Vec<_>, BoxError> {
            let mut records = raw.read(set, &seeds).await?;
            Ok(records
                .iter_mut()
                .map(|stored| stored.remove("s"))
                .collect())
        };
        let known = slots("store").await?;
        for set in [RAW, MARKS, PEER] {
            if slots(set).await? != known {
                return Err(format!("{set} spent something else than the store").into());
            }
        }
        unmarks.time(node, inputs, raw.unmark(&spends)).await?;
        store.mark_conflicting(&txids).await?;
        let mut held = named(&seeds, raw.read("store", &seeds).await?);
        let mut freed = copies;
        let mut spenders = named(&txids, raw.read("store", &txids).await?);
        for (_, stored) in held.iter_mut().chain(&mut freed).chain(&mut spenders) {
            stored.insert("st".into(), Value::Int(START));
        }
        raw.create(STEPS, &held, None).await?;
        raw.create(STEPS, &spenders, None).await?;
        for store_now in [store_first, !store_first] {
            if store_now {
                let work = async { all(store.unspend(&txids).await?, &Applied::Now) };
                unspent.time(node, inputs, work).await?;
            } else {
                let work = raw.change_in_steps(&spenders, true, &held, &freed);
                steps_back.time(node, inputs, work).await?;
            }
        }
        if slots(STEPS).await? != slots("store").await? {
            return Err("the client took back something else than the store".into());
        }
        store.unmark_conflicting(&txids).await?;
        for store_now in [store_first, !store_first] {
            if store_now {
                let work = async {
                    let outcomes = store.spend(&txids, &SpendOptions::at(HEIGHT)).await?;
                    all(outcomes, &Applied::Now)
                };
                spent.time(node, inputs, work).await?;
            } else {
                let work = raw.change_in_steps(&spenders, false, &freed, &held);
                steps.time(node, inputs, work).await?;
            }
        }
        // The attempts of spends that come back are others.
        let holders = async |set| -> Result<Vec<_>, BoxError> {
            let slots = slots(set).await?;
            let held = slots.into_iter().map(|slots| match slots {
                Some(Value::List(slots)) => slots.into_iter().map(holder).collect(),
                _ => Vec::new(),
            });
            Ok(held.collect())
        };
        if holders(STEPS).await? != holders("store").await? {
            return Err("the client spent something else than the store".into());
        }
    }
    head(
        &format!(
            "Aerospike: spend-and-create, {} transactions a call",
            options.batch
        ),
        "transactions",
    );
    ours.row("store", &ours);
    limit.row(
        "the client: the same records, marks and steps, in three batches",
        &ours,
    );
    head("Aerospike: look outputs up", "records");
    looked.row("store", &looked);
    read.row("the client: the same records", &looked);
    head("Aerospike: spend what is there", "outputs");
    spent.row(
        "store: `spend`, all or nothing for each transaction",
        &spent,
    );
    steps.row("the client: the store's steps", &spent);
    marks.row("the client: the marks alone, behind a filter", &spent);
    peer.row("a function in the server: the marks alone", &spent);
    head("Aerospike: take spends back", "outputs");
    unspent.row(
        "store: `unspend`, all or nothing for each transaction",
        &unspent,
    );
    steps_back.row("the client: the store's steps", &unspent);
    unmarks.row("the client: the marks alone", &unspent);
    Ok(())
}

/// Rates by how many calls of one transaction are under way. Nothing is tried again.
async fn in_flight(node: &Aerospike) -> Result<(), BoxError> {
    let once = RetryConfig::default().with_max_attempts(1);
    let store = open(node, "flight", once).await?;
    println!("\n### Aerospike: calls of one transaction under way\n");
    println!("| under way | calls | transactions/s | failed |");
    println!("|---|---|---|---|");
    for (number, tasks) in (0_u64..).zip([1, 4, 16, 64, 256, 1_024, 4_096]) {
        let count = 4_096.max(2 * tasks);
        let (seeds, spenders) = workload(1_000_000_000 + number * 1_000_000, count);
        create(&store, &seeds).await?;
        let tasks = tasks as usize;
        let queue = |task| spenders.iter().skip(task).step_by(tasks).cloned().collect();
        let queues: Vec<Vec<NewTransaction>> = (0..tasks).map(queue).collect();
        let begin = Instant::now();
        let mut running = tokio::task::JoinSet::new();
        for queue in queues {
            let store = store.clone();
            running.spawn(async move {
                let mut failed = 0;
                for new in &queue {
                    failed += usize::from(spend(&store, std::slice::from_ref(new)).await.is_err());
                }
                failed
            });
        }
        let failed: usize = running.join_all().await.into_iter().sum();
        let rate = count as f64 / begin.elapsed().as_secs_f64();
        println!("| {tasks} | {count} | {rate:.0} | {failed} |");
    }
    Ok(())
}

/// Transactions become mined, call after call; a block of 2.9 million is `--mined 2900000`.
async fn mined(node: &Aerospike, options: &Options) -> Result<(), BoxError> {
    let store = open(node, "mined", RetryConfig::default()).await?;
    let mut txids = Vec::with_capacity(options.mined);
    for first in (0..options.mined).step_by(WIDE) {
        let tag = 2_000_000_000 + first as u64 * 2;
        let seed = TxBuilder::new(tag).pay_each(WIDE, 1_000).seed(1);
        create(&store, std::slice::from_ref(&seed)).await?;
        let count = WIDE.min(options.mined - first) as u32;
        let spender = |vout: u32| {
            let tx = TxBuilder::new(tag + 1 + u64::from(vout));
            let tx = tx.spend(OutPoint::new(seed.txid(), vout));
            NewTransaction::from(tx.pay(900).build())
        };
        let batch: Vec<_> = (0..count).map(spender).collect();
        spend(&store, &batch).await?;
        txids.extend(batch.iter().map(|new| new.tx.txid));
    }
    reset_peak_rss()?;
    let before = peak_rss_mib()?;
    let place = MinedIn {
        block: Some(BlockHash::from_bytes([201; 32])),
        height: HEIGHT + 1,
        subtree_index: 0,
        on_longest_chain: true,
    };
    let mut tally = Tally::default();
    let work = async {
        for txids in txids.chunks(10_000) {
            all(store.set_mined(txids, &place).await?, &Applied::Now)?;
        }
        Ok(())
    };
    tally.time(node, txids.len(), work).await?;
    head(
        "Aerospike: transactions become mined, 10,000 a call",
        "transactions",
    );
    tally.row("store", &tally);
    println!(
        "\n{} transactions; the client's memory grew from {before} MiB to {} MiB.",
        txids.len(),
        peak_rss_mib()?
    );
    Ok(())
}
