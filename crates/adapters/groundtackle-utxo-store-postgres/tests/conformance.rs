//! The whole conformance kit against a real server.
#![allow(clippy::expect_used, reason = "a test asserts")]

mod common;

use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use groundtackle_testkit_servers::{Postgres, PostgresOptions, Proxy};
use groundtackle_utxo_store::Result;
use groundtackle_utxo_store_postgres::PostgresUtxoStore;
use groundtackle_utxo_store_testkit::differential::Differential;
use groundtackle_utxo_store_testkit::{Fault, Harness};
use tokio::task::block_in_place;

use common::{Place, server};

struct PostgresHarness;

#[async_trait]
impl Harness for PostgresHarness {
    type Store = PostgresUtxoStore;
    type Place = (Place, Proxy);

    async fn place(&self) -> (Place, Proxy) {
        (Place::new(), Proxy::to(server().port()))
    }

    async fn open(&self, (place, proxy): &(Place, Proxy)) -> Result<PostgresUtxoStore> {
        let url = server().url_at(proxy.port());
        PostgresUtxoStore::open(place.config().with_url(url.into())).await
    }

    fn round_trips(&self, (_, proxy): &(Place, Proxy)) -> Option<u64> {
        Some(proxy.round_trips())
    }

    // With copying, or looking first.
    fn round_trips_per_call(&self) -> u64 {
        4
    }

    fn address(&self, (place, _): &(Place, Proxy)) -> Option<String> {
        Some(format!("{} {}", place.schema(), server().url()))
    }

    async fn open_at(&self, address: &str) -> Result<PostgresUtxoStore> {
        let (schema, url) = address.split_once(' ').expect("this harness's address");
        let config = common::settings(url.into()).with_schema(schema.into());
        PostgresUtxoStore::open(config).await
    }

    fn write_points(&self) -> &'static [&'static str] {
        &[
            "postgres.change.locked",
            "postgres.change.copied",
            "postgres.change.committed",
            "postgres.prune.deleted",
            "postgres.prune.committed",
        ]
    }

    async fn set_fault(&self, (_, proxy): &(Place, Proxy), fault: Fault, armed: bool) -> bool {
        match fault {
            Fault::Unreachable => {
                proxy.cut(armed);
                true
            }
            // The server answers by key, and each answer's key is compared.
            _ => false,
        }
    }
}

groundtackle_utxo_store_testkit::conformance!(PostgresHarness);

/// The same with tables in parts.
struct PartitionedHarness;

#[async_trait]
impl Harness for PartitionedHarness {
    type Store = PostgresUtxoStore;
    type Place = Place;

    async fn place(&self) -> Place {
        Place::new()
    }

    async fn open(&self, place: &Place) -> Result<PostgresUtxoStore> {
        PostgresUtxoStore::open(place.config().with_partitions(3)).await
    }
}

#[test]
fn partitions_make_no_difference() {
    Differential::new()
        .with(PartitionedHarness)
        .run_sequences(16, 1);
}

/// A server of its own, which is killed.
struct KilledHarness(Mutex<Postgres>);

impl KilledHarness {
    fn start() -> Self {
        Self(Mutex::new(Postgres::start(PostgresOptions {
            fsync: true,
            ..PostgresOptions::default()
        })))
    }

    fn server(&self) -> MutexGuard<'_, Postgres> {
        self.0.lock().expect("no panic")
    }
}

#[async_trait]
impl Harness for KilledHarness {
    type Store = PostgresUtxoStore;
    type Place = Place;

    async fn place(&self) -> Place {
        Place::new()
    }

    async fn open(&self, place: &Place) -> Result<PostgresUtxoStore> {
        let config = common::settings(self.server().url()).with_schema(place.schema().into());
        PostgresUtxoStore::open(config.with_allow_unsafe_durability(false)).await
    }

    async fn kill_backend(&self, _place: &Place) -> bool {
        block_in_place(|| {
            let mut server = self.server();
            server.kill();
            server.restart();
        });
        true
    }
}

/// With `fsync`.
#[test]
fn a_killed_server_leaves_what_was_acknowledged() {
    groundtackle_utxo_store_testkit::run(KilledHarness::start(), "the_backend_is_killed");
}
