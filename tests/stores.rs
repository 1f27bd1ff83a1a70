//! All adapters side by side: one sequence of operations into each, and one set through each.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test asserts"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::{env, fs};

use async_trait::async_trait;
use groundtackle_core::ByteSize;
use groundtackle_testkit_servers::{Postgres, PostgresOptions, Redis, RedisCluster, RedisOptions};
use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::{MemoryUtxoStore, Result};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use groundtackle_utxo_store_postgres::{PostgresUtxoStore, PostgresUtxoStoreConfig, Tls};
use groundtackle_utxo_store_redis::{Durability, RedisUtxoStore, RedisUtxoStoreConfig};
use groundtackle_utxo_store_testkit::Harness;
use groundtackle_utxo_store_testkit::differential::Differential;
use serde_json::Value;
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

/// A name that no other store has.
fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("store_{}", NEXT.fetch_add(1, Ordering::Relaxed))
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

/// The program of the recipe, which cargo has built beside this test's.
fn ops(args: &[&str]) -> Value {
    let test = env::current_exe().expect("a test is a program");
    let program = test
        .ancestors()
        .nth(2)
        .expect("target/PROFILE/deps")
        .join("ops");
    assert!(program.is_file(), "build it first: cargo build -p ops");
    let output = Command::new(program)
        .arg("--json")
        .args(args)
        .output()
        .expect("it runs");
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

fn sync(store: &str, to: u32) {
    let (blocks, to) = (data(), to.to_string());
    let blocks = blocks.to_str().expect("text");
    ops(&[
        "utxo", "sync", "--store", store, "--blocks", blocks, "--to", &to,
    ]);
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
        // This digest needs an order, which the cluster's scans don't have.
        let ordered = !store.starts_with("redis+cluster:");
        let wanted = match name == "hash_serialized_3" && !ordered {
            true => &Value::Null,
            false => &known[name],
        };
        assert_eq!(stats[key], *wanted, "{store}: {key}");
    }
}

/// Up to each known height, back down to each, and up again.
#[test]
fn each_known_height_is_met_on_servers() {
    let answers = answers();
    let (top, all) = answers.last_key_value().expect("there are some");
    for store in &on_servers() {
        for (height, known) in &answers {
            sync(store, *height);
            assert_known(store, known);
        }
        for (height, known) in answers.iter().rev() {
            ops(&[
                "utxo",
                "rewind",
                "--store",
                store,
                "--to",
                &height.to_string(),
            ]);
            assert_known(store, known);
        }
        sync(store, *top);
        assert_known(store, all);
    }
}

/// Blocks 0 to 599 into the embedded store, the set from there through every server and back into
/// an embedded store: one digest, the known one.
#[test]
fn a_set_stays_itself_through_all_stores() {
    let answers = answers();
    let (top, known) = answers.last_key_value().expect("there are some");
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
    sync(&stores[0], *top);
    for pair in stores.windows(2) {
        let copied = ops(&["utxo", "copy", "--from", &pair[0], "--to", &pair[1]]);
        assert_eq!(copied["muhash"], known["muhash"]);
    }
    for store in &stores {
        assert_known(store, known);
    }
}
