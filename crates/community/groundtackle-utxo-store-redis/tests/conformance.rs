//! The whole conformance kit against a real server.

mod common;

use std::sync::OnceLock;

use async_trait::async_trait;
use groundtackle_testkit_servers::{Proxy, Redis, RedisOptions};
use groundtackle_utxo_store::Result;
use groundtackle_utxo_store_redis::{Durability, RedisUtxoStore};
use groundtackle_utxo_store_testkit::{Fault, Harness};

use common::{config, prefix};

/// With a log that is synced before each answer: as the store wants it.
fn server() -> &'static Redis {
    static SERVER: OnceLock<Redis> = OnceLock::new();
    SERVER.get_or_init(|| {
        Redis::start(RedisOptions {
            append_fsync: Some("always"),
            ..RedisOptions::default()
        })
    })
}

async fn open(url: String, prefix: &str) -> Result<RedisUtxoStore> {
    let config = config(url).with_durability(Durability::Always);
    RedisUtxoStore::open(config.with_prefix(prefix.into())).await
}

struct RedisHarness;

#[async_trait]
impl Harness for RedisHarness {
    type Store = RedisUtxoStore;
    type Place = (String, Proxy);

    async fn place(&self) -> (String, Proxy) {
        (prefix(), Proxy::to(server().port()))
    }

    async fn open(&self, (prefix, proxy): &(String, Proxy)) -> Result<RedisUtxoStore> {
        open(server().url_at(proxy.port()), prefix).await
    }

    fn round_trips(&self, (_, proxy): &(String, Proxy)) -> Option<u64> {
        Some(proxy.round_trips())
    }

    fn round_trips_per_call(&self) -> u64 {
        3
    }

    fn address(&self, (prefix, proxy): &(String, Proxy)) -> Option<String> {
        Some(format!("{} {prefix}", proxy.port()))
    }

    async fn open_at(&self, address: &str) -> Result<RedisUtxoStore> {
        let (port, prefix) = address.split_once(' ').unwrap_or_default();
        open(format!("redis://127.0.0.1:{port}/0"), prefix).await
    }

    fn write_points(&self) -> &'static [&'static str] {
        &["redis.change.drawn", "redis.change.done"]
    }

    async fn set_fault(
        &self,
        (prefix, proxy): &(String, Proxy),
        fault: Fault,
        armed: bool,
    ) -> bool {
        match fault {
            Fault::Unreachable => proxy.cut(armed),
            Fault::WrongRecord(asked, other) => {
                // Their values change places; again, and they are back.
                let _ = armed;
                let script = "local a = redis.call('HGET', KEYS[1], ARGV[1]) \
                     redis.call('HSET', KEYS[1], ARGV[1], redis.call('HGET', KEYS[2], ARGV[2])) \
                     redis.call('HSET', KEYS[2], ARGV[2], a) return 1";
                let bucket =
                    |txid: &[u8; 32]| format!("{{{prefix}}}:r:{:02x}{:02x}", txid[0], txid[1]);
                let (a, b) = (asked.as_bytes(), other.as_bytes());
                server().command_bytes(&[
                    b"EVAL",
                    script.as_bytes(),
                    b"2",
                    bucket(a).as_bytes(),
                    bucket(b).as_bytes(),
                    a,
                    b,
                ]);
            }
            _ => return false,
        }
        true
    }
}

groundtackle_utxo_store_testkit::conformance!(RedisHarness);
