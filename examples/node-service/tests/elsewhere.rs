//! The program with what it keeps elsewhere: stores on servers, backups in a bucket, blocks of a node that reorganises.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

// What only the other file needs.
#[allow(dead_code, reason = "each file of tests takes its part")]
mod support;

use std::path::Path;

use groundtackle_testkit_servers::{
    Aerospike, AerospikeOptions, Moto, Postgres, PostgresOptions, Redis, RedisOptions,
};
use groundtackle_utxo_store::BlockStore;
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use support::chain::Chain;
use support::{FAST, Service};

/// Through the whole chain, killed on the way; then what is backed up comes back as the set of that height.
fn comes_through(place: &Path, config: &str) -> Service {
    let config = format!("{config}\n{}", FAST.replace("1ms", "5ms"));
    let mut service = Service::start(place, Some(&config));
    service.waits_for("backed up");
    service.kill();
    let often = config.replace("drill_every = \"1h\"", "drill_every = \"2s\"");
    let service = Service::start(place, Some(&often));
    service.until("/metrics/backup", "groundtackle_backup_last_height 599");
    service.until("/metrics/backup", "groundtackle_drill_last_good_height 599");
    service.until("/metrics/backup", "groundtackle_drill_last_passed 1");
    service.until_ready();
    service
}

fn stops(mut service: Service) {
    service.terminate();
    assert_eq!(service.ends(), Some(0));
}

fn store(url: &str) -> String {
    format!("[store]\nurl = \"{url}\"\n")
}

#[test]
fn a_store_in_postgres_that_goes_away_and_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let mut server = Postgres::start(PostgresOptions {
        fsync: true,
        ..PostgresOptions::default()
    });
    let service = comes_through(place.path(), &store(&format!("{}?tls=off", server.url())));
    server.kill();
    service.polls("/readyz", |answer| answer.code == 503);
    assert_eq!(service.get("/livez").code, 200);
    server.restart();
    service.until_ready();
    stops(service);
}

#[test]
fn a_store_in_redis() {
    let place = tempfile::tempdir().unwrap();
    let server = Redis::start(RedisOptions {
        append_fsync: Some("always"),
        ..RedisOptions::default()
    });
    stops(comes_through(
        place.path(),
        &store(&format!("{}?tls=off", server.url())),
    ));
}

#[test]
fn a_store_in_aerospike() {
    if !Aerospike::is_there() {
        eprintln!(
            "SKIPPED: neither asd on the PATH nor GROUNDTACKLE_TEST_AEROSPIKE: a node-service on Aerospike"
        );
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let server = Aerospike::find_or_start(&AerospikeOptions::default());
    stops(comes_through(
        place.path(),
        &store(&format!("{}?min_replicas=1", server.url("node-service"))),
    ));
}

#[test]
fn backups_in_a_bucket_that_goes_away_and_comes_back() {
    if !Moto::is_there() {
        eprintln!("SKIPPED: no moto[server], see GROUNDTACKLE_TEST_MOTO: backups in a bucket");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let server = Moto::start();
    let bucket = format!(
        "[backup.s3]\nbucket = \"{}\"\nprefix = \"main/\"\nendpoint = \"http://127.0.0.1:{}\"\npath_style = true\ntls = \"off\"\n\
         credentials = {{ access_key_id = \"key\", secret_access_key = \"geheim\" }}\n",
        server.bucket(false),
        server.port()
    );
    let service = comes_through(place.path(), &bucket);
    // The store is well: what can't be backed up warns, and takes nobody from the probes.
    server.freeze();
    service.until_ready();
    server.thaw();
    service.until("/metrics/backup", "groundtackle_drill_last_passed 1");
    stops(service);
}

#[tokio::test]
async fn a_reorganisation_is_followed_and_backed_up() {
    let place = tempfile::tempdir().unwrap();
    let blocks = place.path().join("blocks");
    std::fs::create_dir(&blocks).unwrap();
    let file = blocks.join("blk00000.dat");
    let mut left = Chain::default();
    left.grow(&file, 30, 0);
    let config = format!(
        "{}\n",
        FAST.replace(
            "[blocks]\n",
            "[blocks]\nfolder = \"blocks\"\nnetwork = \"regtest\"\n"
        )
        .replace("1h", "1s")
    );
    let mut service = Service::start(place.path(), Some(&config));
    service.until("/metrics/backup", "groundtackle_backup_last_height 29");
    service.until("/metrics/backup", "groundtackle_drill_last_good_height 29");

    // Three blocks are left for four others.
    let mut taken = left.fork(3);
    taken.grow(&file, 4, 1);
    let told = service.waits_for("reorganisation");
    assert!(told.contains("from=29") && told.contains("to=26"), "{told}");
    service.until("/metrics/backup", "groundtackle_backup_last_height 30");
    // Restored, with the digest of the new chain.
    service.until("/metrics/backup", "groundtackle_drill_last_good_height 30");
    service.until("/metrics/backup", "groundtackle_drill_last_passed 1");

    // Killed while it takes back and connects, it ends on the chain of most work all the same.
    let mut next = taken.fork(20);
    next.grow(&file, 25, 2);
    service.waits_for("reorganisation");
    service.kill();
    let service = Service::start(place.path(), Some(&config));
    service.until("/metrics/backup", "groundtackle_drill_last_good_height 35");
    service.until_ready();
    stops(service);
    let store = place.path().join("node-service-data/store");
    let store = EmbeddedUtxoStore::open(store, EmbeddedUtxoStoreConfig::default()).unwrap();
    let tip = store.tip().await.unwrap().unwrap();
    assert_eq!((tip.height, tip.hash), (35, next.tip()));
}
