//! The whole conformance kit against a real cluster.

mod common;

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use groundtackle_core::RetryConfig;
use groundtackle_testkit_servers::{Proxy, Redis, RedisCluster, RedisOptions};
use groundtackle_utxo_store::Result;
use groundtackle_utxo_store::pending::WRITE_POINTS;
use groundtackle_utxo_store_redis::{
    Durability, RedisClusterUtxoStore, RedisClusterUtxoStoreConfig, Tls,
};
use groundtackle_utxo_store_testkit::{Fault, Harness};

use common::prefix;

/// Three primaries with a log that is synced before each answer: as the store wants it.
fn cluster() -> &'static RedisCluster {
    static CLUSTER: OnceLock<RedisCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let options = RedisOptions {
            append_fsync: Some("always"),
            ..RedisOptions::default()
        };
        RedisCluster::start(3, 0, &options)
    })
}

/// By way of other ports than the servers say.
async fn open(
    servers: &[u16],
    ports: &[u16],
    prefix: &str,
    patience: Duration,
) -> Result<RedisClusterUtxoStore> {
    let name = |port: &u16| format!("127.0.0.1:{port}");
    let hosts: Vec<_> = ports.iter().map(name).collect();
    let addresses = servers.iter().map(name).zip(hosts.iter().cloned());
    let config = RedisClusterUtxoStoreConfig::new(format!("redis://{}", hosts.join(",")))
        .with_addresses(addresses.collect())
        .with_tls(Tls::Off)
        .with_durability(Durability::Always)
        .with_max_batch_items(4_096)
        // Nearly empty stores by the thousand: what is listed lies in few slots.
        .with_spread(32)
        .with_patience(patience)
        .with_prefix(prefix.into())
        .with_retry(
            RetryConfig::default()
                .with_max_attempts(20)
                .with_max_elapsed(Duration::from_secs(20)),
        );
    RedisClusterUtxoStore::open(config).await
}

struct ClusterHarness;

struct Place {
    prefix: String,
    proxies: Vec<Proxy>,
}

impl Place {
    fn ports(&self) -> Vec<u16> {
        self.proxies.iter().map(Proxy::port).collect()
    }
}

fn servers() -> Vec<u16> {
    cluster().nodes().iter().map(Redis::port).collect()
}

fn words(ports: &[u16]) -> String {
    let words: Vec<_> = ports.iter().map(u16::to_string).collect();
    words.join(",")
}

#[async_trait]
impl Harness for ClusterHarness {
    type Store = RedisClusterUtxoStore;
    type Place = Place;

    async fn place(&self) -> Place {
        Place {
            prefix: prefix(),
            proxies: servers().into_iter().map(Proxy::to).collect(),
        }
    }

    async fn open(&self, place: &Place) -> Result<RedisClusterUtxoStore> {
        let patience = Duration::from_millis(200);
        open(&servers(), &place.ports(), &place.prefix, patience).await
    }

    fn round_trips(&self, place: &Place) -> Option<u64> {
        Some(place.proxies.iter().map(Proxy::round_trips).sum())
    }

    /// A dozen to each of three servers.
    fn round_trips_per_call(&self) -> u64 {
        36
    }

    fn address(&self, place: &Place) -> Option<String> {
        let (servers, ports) = (words(&servers()), words(&place.ports()));
        Some(format!("{servers} {ports} {}", place.prefix))
    }

    async fn open_at(&self, address: &str) -> Result<RedisClusterUtxoStore> {
        let mut words = address.split(' ');
        let mut ports = || -> Vec<u16> {
            let word = words.next().unwrap_or_default().split(',');
            word.filter_map(|port| port.parse().ok()).collect()
        };
        let (servers, through) = (ports(), ports());
        let prefix = words.next().unwrap_or_default();
        open(&servers, &through, prefix, Duration::from_millis(200)).await
    }

    fn write_points(&self) -> &'static [&'static str] {
        WRITE_POINTS
    }

    async fn set_fault(&self, place: &Place, fault: Fault, armed: bool) -> bool {
        if fault == Fault::Unreachable {
            place.proxies.iter().for_each(|proxy| proxy.cut(armed));
            return true;
        }
        false
    }
}

groundtackle_utxo_store_testkit::conformance!(ClusterHarness);
