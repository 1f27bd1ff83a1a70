//! All adapters side by side: one sequence of operations into each, and one set through each.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test asserts"
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::{env, fs};

use async_trait::async_trait;
use groundtackle_core::ByteSize;
use groundtackle_testkit_servers::{
    Aerospike, AerospikeOptions, Moto, Postgres, PostgresOptions, Redis, RedisCluster, RedisOptions,
};
use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::{BlockStore, MemoryUtxoStore, Result, ScanStore};
use groundtackle_utxo_store_aerospike::{AerospikeUtxoStore, AerospikeUtxoStoreConfig};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use groundtackle_utxo_store_postgres::{PostgresUtxoStore, PostgresUtxoStoreConfig, Tls};
use groundtackle_utxo_store_redis::{Durability, RedisUtxoStore, RedisUtxoStoreConfig};
use groundtackle_utxo_store_testkit::Harness;
use groundtackle_utxo_store_testkit::differential::Differential;
use groundtackle_utxo_store_testkit::mainnet;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio_postgres::NoTls;

fn postgres() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(PostgresOptions::default()))
}

fn redis() -> &'static Redis {
    static SERVER: OnceLock<Redis> = OnceLock::new();
    SERVER.get_or_init(|| Redis::start(RedisOptions::default()))
}

fn cluster() -> &'static RedisCluster {
    static SERVERS: OnceLock<RedisCluster> = OnceLock::new();
    SERVERS.get_or_init(|| RedisCluster::start(3, 0, &RedisOptions::default()))
}

/// One node.
fn aerospike() -> &'static Aerospike {
    static SERVER: OnceLock<Aerospike> = OnceLock::new();
    SERVER.get_or_init(|| Aerospike::find_or_start(&AerospikeOptions::default()))
}

/// Whether there is no Aerospike server to test with; said past the test runner's capture.
fn is_left_out(test: &str) -> bool {
    if Aerospike::is_there() {
        return false;
    }
    writeln!(
        std::io::stderr(),
        "skipped: {test}: no asd on the PATH, and no GROUNDTACKLE_TEST_AEROSPIKE (NOTHING WAS TESTED)"
    )
    .expect("standard error is open");
    true
}

/// A name that no other store has.
fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("store_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A set of its own, also on a server that other runs have used.
fn set_url() -> String {
    aerospike().url(&format!("{}-{}", name(), std::process::id()))
}

struct Memory;

#[async_trait]
impl Harness for Memory {
    type Store = MemoryUtxoStore;
    type Place = ();

    async fn place(&self) {}

    async fn open(&self, _place: &()) -> Result<MemoryUtxoStore> {
        Ok(MemoryUtxoStore::new())
    }
}

struct Embedded;

#[async_trait]
impl Harness for Embedded {
    type Store = EmbeddedUtxoStore;
    type Place = TempDir;

    async fn place(&self) -> TempDir {
        TempDir::new().expect("a temporary folder")
    }

    async fn open(&self, place: &TempDir) -> Result<EmbeddedUtxoStore> {
        let config = EmbeddedUtxoStoreConfig::default()
            .with_cache(ByteSize::mib(8))
            .with_min_free(ByteSize::mib(1));
        EmbeddedUtxoStore::open(place.path().join("store"), config)
    }
}

/// A schema, whose tables serve again when it is done with: to make them takes as long as a sequence.
struct Schema(String);

static USED_SCHEMAS: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Schema {
    async fn take() -> Self {
        let used = USED_SCHEMAS.lock().expect("no panic").pop();
        let Some(schema) = used else {
            return Self(name());
        };
        let (client, connection) = tokio_postgres::connect(&postgres().url(), NoTls)
            .await
            .expect("a connection");
        let connection = tokio::spawn(connection);
        let tables = "SELECT tablename FROM pg_tables WHERE schemaname = $1";
        let tables = client.query(tables, &[&schema]).await.expect("tables");
        let mut sql = String::new();
        for table in tables.iter().map(|row| row.get::<_, &str>(0)) {
            if table != "chain" {
                sql += &format!("DELETE FROM {schema}.{table};");
            }
        }
        client.batch_execute(&sql).await.expect("rows may go");
        let empty = MuHash3072::new().to_bytes().to_vec();
        let sql = format!(
            "UPDATE {schema}.chain SET tip_height = NULL, tip_hash = NULL, tip_median_time_past = NULL, muhash = $1"
        );
        client.execute(&sql, &[&empty]).await.expect("an empty set");
        drop(client);
        connection.await.expect("no panic").expect("a goodbye");
        Self(schema)
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        if let Ok(mut used) = USED_SCHEMAS.lock() {
            used.push(std::mem::take(&mut self.0));
        }
    }
}

struct OnPostgres;

#[async_trait]
impl Harness for OnPostgres {
    type Store = PostgresUtxoStore;
    type Place = Schema;

    async fn place(&self) -> Schema {
        Schema::take().await
    }

    async fn open(&self, Schema(schema): &Schema) -> Result<PostgresUtxoStore> {
        let config = PostgresUtxoStoreConfig::new(postgres().url())
            .with_tls(Tls::Off)
            .with_allow_unsafe_durability(true)
            .with_scan_partitions(2)
            .with_schema(schema.clone());
        PostgresUtxoStore::open(config).await
    }
}

struct OnRedis;

#[async_trait]
impl Harness for OnRedis {
    type Store = RedisUtxoStore;
    type Place = String;

    async fn place(&self) -> String {
        name()
    }

    async fn open(&self, prefix: &String) -> Result<RedisUtxoStore> {
        let config = RedisUtxoStoreConfig::new(redis().url())
            .with_tls(groundtackle_utxo_store_redis::Tls::Off)
            .with_durability(Durability::None)
            .with_prefix(prefix.clone());
        RedisUtxoStore::open(config).await
    }
}

struct OnAerospike;

#[async_trait]
impl Harness for OnAerospike {
    type Store = AerospikeUtxoStore;
    type Place = String;

    async fn place(&self) -> String {
        set_url()
    }

    async fn open(&self, url: &String) -> Result<AerospikeUtxoStore> {
        let config = AerospikeUtxoStoreConfig::new(url.clone()).with_min_replicas(1);
        AerospikeUtxoStore::open(config).await
    }
}

/// "Two backends, two behaviours: one sequence of operations run into all of them, state and verdict
/// compared after every step."
#[test]
fn backends_agree() {
    let all = Differential::new()
        .with(Memory)
        .with(Embedded)
        .with(OnPostgres)
        .with(OnRedis);
    println!("{}", all.run());
}

/// The same with Aerospike, where a store of its own for each sequence takes longer: as many sequences as
/// `GROUNDTACKLE_TEST_SEQUENCES_AEROSPIKE` says.
#[test]
fn backends_agree_with_aerospike() {
    if is_left_out("backends_agree_with_aerospike") {
        return;
    }
    let all = Differential::new()
        .with(Memory)
        .with(Embedded)
        .with(OnPostgres)
        .with(OnAerospike);
    println!("{}", all.run_for("aerospike"));
}

/// The program of the recipe, which cargo has built beside this test's.
fn run_ops(args: &[&str]) -> Output {
    let test = env::current_exe().expect("a test is a program");
    let program = test
        .ancestors()
        .nth(2)
        .expect("target/PROFILE/deps")
        .join("ops");
    assert!(program.is_file(), "build it first: cargo build -p ops");
    Command::new(program)
        .arg("--json")
        .args(args)
        .output()
        .expect("it runs")
}

fn ops(args: &[&str]) -> Value {
    let output = run_ops(args);
    assert!(output.status.success(), "{args:?}: {output:#?}");
    let text = String::from_utf8(output.stdout).expect("text");
    serde_json::from_str(text.lines().last().expect("an answer")).expect("JSON")
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ops/data")
}

/// What is known of the set at some heights, lowest first.
fn answers() -> BTreeMap<u32, Value> {
    let text = fs::read_to_string(data().join("answers.json")).expect("the answers are there");
    serde_json::from_str(&text).expect("JSON by height")
}

/// A store of its own on each server.
fn on_servers() -> [String; 3] {
    let name = name();
    [
        format!(
            "{}?schema={name}&tls=off&allow_unsafe_durability=true",
            postgres().url()
        ),
        format!("{}?prefix={name}&tls=off&durability=none", redis().url()),
        format!(
            "{}?prefix={name}&tls=off&durability=none&spread=64",
            cluster().url().replace("redis://", "redis+cluster://")
        ),
    ]
}

fn on_aerospike() -> String {
    format!("{}?min_replicas=1", set_url())
}

fn sync(store: &str, to: u32) -> Value {
    let (blocks, to) = (data(), to.to_string());
    let blocks = blocks.to_str().expect("text");
    ops(&[
        "utxo", "sync", "--store", store, "--blocks", blocks, "--to", &to,
    ])
}

#[track_caller]
fn assert_known(store: &str, known: &Value) {
    let stats = ops(&["utxo", "stats", "--store", store]);
    for (key, name) in [
        ("bestblock", "hash"),
        ("transactions", "transactions"),
        ("txouts", "txouts"),
        ("bogosize", "bogosize"),
        ("total_amount_sat", "total"),
        ("muhash", "muhash"),
        ("hash_serialized_3", "hash_serialized_3"),
    ] {
        // This digest needs an order, which the scans of clusters don't have.
        let ordered = !["redis+cluster:", "aerospike:"]
            .iter()
            .any(|scheme| store.starts_with(scheme));
        let wanted = match name == "hash_serialized_3" && !ordered {
            true => &Value::Null,
            false => &known[name],
        };
        assert_eq!(stats[key], *wanted, "{store}: {key}");
    }
}

/// Up to each known height, back down to each, and up again.
fn meet_each_known_height(store: &str) {
    let answers = answers();
    let (top, all) = answers.last_key_value().expect("there are some");
    for (height, known) in &answers {
        sync(store, *height);
        assert_known(store, known);
    }
    for (height, known) in answers.iter().rev() {
        let height = height.to_string();
        ops(&["utxo", "rewind", "--store", store, "--to", &height]);
        assert_known(store, known);
    }
    sync(store, *top);
    assert_known(store, all);
}

#[test]
fn each_known_height_is_met_on_servers() {
    for store in &on_servers() {
        meet_each_known_height(store);
    }
}

#[test]
fn each_known_height_is_met_on_aerospike() {
    if is_left_out("each_known_height_is_met_on_aerospike") {
        return;
    }
    meet_each_known_height(&on_aerospike());
}

/// Blocks 0 to 599 into the first store, and the set from there through all: one digest, the known one.
fn stay_the_same_through(stores: &[String]) {
    let answers = answers();
    let (top, known) = answers.last_key_value().expect("there are some");
    sync(&stores[0], *top);
    for pair in stores.windows(2) {
        let copied = ops(&["utxo", "copy", "--from", &pair[0], "--to", &pair[1]]);
        assert_eq!(copied["muhash"], known["muhash"]);
    }
    for store in stores {
        assert_known(store, known);
    }
}

/// From an embedded store through every server and back into one.
#[test]
fn a_set_stays_itself_through_all_stores() {
    let folder = TempDir::new().expect("a temporary folder");
    let embedded = |name: &str| format!("embedded:{}", folder.path().join(name).display());
    let [postgres, redis, cluster] = on_servers();
    let stores = [
        embedded("first"),
        postgres,
        redis,
        cluster,
        embedded("last"),
    ];
    stay_the_same_through(&stores);
}

#[test]
fn a_set_stays_itself_through_aerospike() {
    if is_left_out("a_set_stays_itself_through_aerospike") {
        return;
    }
    let folder = TempDir::new().expect("a temporary folder");
    let embedded = format!("embedded:{}", folder.path().join("first").display());
    let [postgres, ..] = on_servers();
    stay_the_same_through(&[embedded, on_aerospike(), postgres]);
}

/// Snapshots of a store at each known height, into an embedded store and into a store of the same kind: the
/// known file, and the known digests. A wrong digest leaves the store that it was for untouched.
fn go_through_snapshots(store: &str, another: impl Fn() -> String) {
    let folder = TempDir::new().expect("a temporary folder");
    let snapshot = |height: u32| folder.path().join(format!("{height}.dat"));
    for (height, known) in &answers() {
        sync(store, *height);
        let file = snapshot(*height);
        let file = file.to_str().expect("text");
        let args = ["snapshot", "export", "--store", store, "--file", file];
        let exported = ops(&args);
        let bytes = fs::read(file).expect("it was written");
        assert_eq!(
            sha256(&bytes),
            known["dumptxoutset_sha256"],
            "{store} at {height}"
        );
        assert_eq!(exported["muhash"], known["muhash"]);
        assert_eq!(exported["hash_serialized_3"], known["hash_serialized_3"]);
    }
    // A store for each would take the servers minutes.
    for height in [0, 170, 599] {
        let known = &answers()[&height];
        let file = snapshot(height);
        let file = file.to_str().expect("text");
        let embedded = format!(
            "embedded:{}",
            folder.path().join(format!("{height}")).display()
        );
        for to in [embedded, another()] {
            let args = ["snapshot", "import", "--store", &to, "--file", file];
            let wrong = known["hash"].as_str().expect("text");
            let refused = run_ops(&[&args[..], &["--expect-muhash", wrong]].concat());
            assert_eq!(refused.status.code(), Some(65), "{refused:#?}");
            let stats = ops(&["utxo", "stats", "--store", &to]);
            assert_eq!(
                (&stats["height"], &stats["txouts"]),
                (&Value::Null, &0.into())
            );

            let digest = known["hash_serialized_3"].as_str().expect("text");
            let imported = ops(&[&args[..], &["--expect-hash-serialized-3", digest]].concat());
            assert_eq!(imported["muhash"], known["muhash"]);
            assert_known(&to, known);
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn snapshots_of_servers_are_those_of_bitcoin_core() {
    for (number, store) in on_servers().iter().enumerate() {
        go_through_snapshots(store, || on_servers()[number].clone());
    }
}

#[test]
fn snapshots_of_aerospike_are_those_of_bitcoin_core() {
    if is_left_out("snapshots_of_aerospike_are_those_of_bitcoin_core") {
        return;
    }
    go_through_snapshots(&on_aerospike(), on_aerospike);
}

/// Who can read the backups of these tests, and nothing else.
const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

/// A store with a journal, and the config of its backups.
struct BackedUp {
    folder: TempDir,
    store: String,
}

impl BackedUp {
    /// `place` is the TOML that names the repository's.
    fn new(store: &str, place: impl FnOnce(&Path) -> String) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let file = |name: &str| folder.path().join(name).display().to_string();
        fs::write(file("identity"), IDENTITY).expect("a file");
        let config = format!(
            "store = {store:?}\njournal = {:?}\nsigner = {:?}\nrecipients = [{RECIPIENT:?}]\nidentities = {:?}\n{}",
            file("journal"),
            file("signer"),
            file("identity"),
            place(folder.path())
        );
        fs::write(file("config"), config).expect("a file");
        let backed_up = Self {
            folder,
            store: store.into(),
        };
        backed_up.backup("init", &[]);
        backed_up
    }

    fn in_folder(store: &str) -> Self {
        Self::new(store, |folder| {
            format!(
                "folder = {:?}",
                folder.join("repository").display().to_string()
            )
        })
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn backup(&self, name: &str, args: &[&str]) -> Value {
        ops(&[&["backup", name, "--config", &self.file("config")], args].concat())
    }

    fn sync_to(&self, height: u32) {
        let (blocks, journal, height) = (data(), self.file("journal"), height.to_string());
        let blocks = blocks.to_str().expect("text");
        ops(&[
            "utxo",
            "sync",
            "--store",
            &self.store,
            "--blocks",
            blocks,
            "--to",
            &height,
            "--journal",
            &journal,
        ]);
    }

    /// Bases and deltas of uneven lengths, up to block 599.
    fn fill(&self) {
        for (height, made) in [(0, "base"), (120, "delta"), (333, "delta"), (599, "delta")] {
            self.sync_to(height);
            assert_eq!(
                self.backup("run", &[])["made"],
                made,
                "{} at {height}",
                self.store
            );
            if height == 333 {
                assert_eq!(self.backup("run", &["--base"])["made"], "base");
            }
        }
        assert_eq!(self.backup("check", &["--depth", "read"])["points"], 5);
    }

    fn restore(&self, height: u32, into: &str) -> Value {
        let (config, height) = (self.file("config"), height.to_string());
        ops(&[
            "restore", "--config", &config, "--at", &height, "--into", into,
        ])
    }
}

/// The digest after each block, as a fresh sync finds it.
fn digests() -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("threads");
    runtime.block_on(async {
        let store = MemoryUtxoStore::new();
        let mut digests = Vec::new();
        for block in mainnet::blocks().await {
            let connected = store.connect_block(&block).await.expect("it answers");
            connected.expect("it is the next one");
            let digest = store.digest().await.expect("it answers");
            digests.push(mainnet::reversed_hex(&digest.muhash));
        }
        digests
    })
}

fn random_heights(count: usize) -> Vec<u32> {
    let mut seed = 11_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as u32 % 600
    };
    let mut heights = vec![0, 599];
    heights.extend((0..count).map(|_| next()));
    heights
}

/// Fifty heights and both ends into Postgres, from backups of an embedded store.
#[test]
fn any_height_restores_into_postgres() {
    let folder = TempDir::new().expect("a temporary folder");
    let store = format!("embedded:{}", folder.path().join("store").display());
    let backed_up = BackedUp::in_folder(&store);
    backed_up.fill();
    let digests = digests();
    for height in random_heights(50) {
        let [postgres, ..] = on_servers();
        let restored = backed_up.restore(height, &postgres);
        let wanted = digests[height as usize].as_str();
        assert_eq!(restored["muhash"], wanted, "{height}");
        let stats = ops(&["utxo", "stats", "--store", &postgres]);
        assert_eq!(
            (&stats["muhash"], &stats["height"]),
            (&wanted.into(), &height.into())
        );
    }
}

/// Backups of a store on each server, restored into a store of the same kind and into an embedded one, which goes on.
fn come_back(store: &str, another: impl Fn() -> String) {
    let backed_up = BackedUp::in_folder(store);
    backed_up.fill();
    let digests = digests();
    for (number, height) in random_heights(3).into_iter().enumerate() {
        let embedded = format!("embedded:{}", backed_up.file(&format!("restored-{number}")));
        for into in [embedded, another()] {
            let restored = backed_up.restore(height, &into);
            assert_eq!(
                restored["muhash"], digests[height as usize],
                "{store} at {height}"
            );
            sync(&into, 599);
            let stats = ops(&["utxo", "stats", "--store", &into]);
            assert_eq!(stats["muhash"], digests[599], "{store} from {height}");
        }
    }
}

#[test]
fn backups_of_servers_come_back() {
    for (number, store) in on_servers().iter().enumerate() {
        come_back(store, || on_servers()[number].clone());
    }
}

#[test]
fn backups_of_aerospike_come_back() {
    if is_left_out("backups_of_aerospike_come_back") {
        return;
    }
    come_back(&on_aerospike(), on_aerospike);
}

/// The whole cycle with a repository in a bucket.
#[test]
fn backups_lie_in_a_bucket() {
    if !Moto::is_there() {
        writeln!(
            std::io::stderr(),
            "skipped: backups_lie_in_a_bucket: no moto, and no GROUNDTACKLE_TEST_MOTO (NOTHING WAS TESTED)"
        )
        .expect("standard error is open");
        return;
    }
    let moto = Moto::start();
    let bucket = moto.bucket(false);
    let folder = TempDir::new().expect("a temporary folder");
    let store = format!("embedded:{}", folder.path().join("store").display());
    let backed_up = BackedUp::new(&store, |_| {
        format!(
            "[s3]\nbucket = {bucket:?}\nprefix = \"node-1/\"\nendpoint = {:?}\npath_style = true\ntls = \"off\"\n\
             credentials = {{ access_key_id = \"test\", secret_access_key = \"open sesame\" }}",
            format!("http://127.0.0.1:{}", moto.port())
        )
    });
    backed_up.fill();
    let digests = digests();
    for (number, height) in random_heights(5).into_iter().enumerate() {
        let into = format!("embedded:{}", backed_up.file(&format!("restored-{number}")));
        let restored = backed_up.restore(height, &into);
        assert_eq!(restored["muhash"], digests[height as usize], "{height}");
    }
}

/// The first payment: from block 9's coinbase, in block 170.
const PAYMENT: &str = "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16";
const COINBASE_9: &str = "0437cd7f8525ceed2324359c2d0ba26006d92d856a9c20fa0241106ee5a597c9";

/// Each command of the recipe on a store in Aerospike.
#[test]
fn ops_keeps_a_store_in_aerospike() {
    if is_left_out("ops_keeps_a_store_in_aerospike") {
        return;
    }
    let store = &on_aerospike();
    // Who only looks makes no store.
    for _ in 0..2 {
        let looked = run_ops(&["utxo", "stats", "--store", store]);
        assert!(!looked.status.success(), "{looked:#?}");
        let said = String::from_utf8_lossy(&looked.stderr);
        assert!(said.contains("no store"), "{said}");
    }
    assert_eq!(sync(store, 169)["height"], 169);
    let get = |target: &str| ops(&["utxo", "get", "--store", store, target]);
    let coin = format!("{COINBASE_9}:0");
    assert_eq!(get(&coin)["state"], "Unspent");
    // It goes on where it ended, and then there is nothing to do.
    let synced = sync(store, 599);
    assert_eq!(
        (&synced["height"], &synced["blocks"]),
        (&599.into(), &430.into())
    );
    assert_eq!(sync(store, 599)["blocks"], 0);
    assert_known(store, &answers()[&599]);
    let payment = get(PAYMENT);
    assert_eq!(payment["txid"], PAYMENT);
    assert_eq!(payment["mined_in"][0]["height"], 170);
    assert_eq!(payment["outputs"][0]["output"]["value_sat"], 1_000_000_000);
    assert_eq!(get(&coin)["state"]["Spent"]["txid"], PAYMENT);
    // Below the payment: it is gone, and its coin is free.
    ops(&["utxo", "rewind", "--store", store, "--to", "169"]);
    assert_eq!(get(&coin)["state"], "Unspent");
    let gone = run_ops(&["utxo", "get", "--store", store, PAYMENT]);
    assert!(!gone.status.success(), "{gone:#?}");
    sync(store, 599);
    assert_known(store, &answers()[&599]);
}
