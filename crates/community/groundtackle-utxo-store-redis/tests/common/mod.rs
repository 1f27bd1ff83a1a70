//! One server for all tests of a process.
#![allow(dead_code, unreachable_pub, reason = "each test uses what it needs")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use groundtackle_core::RetryConfig;
use groundtackle_testkit_servers::{Redis, RedisOptions};
use groundtackle_utxo_store_redis::{Durability, RedisUtxoStoreConfig, Tls};

/// Without a log: what these tests check does not depend on it. Those that kill a server start one with.
pub fn server() -> &'static Redis {
    static SERVER: OnceLock<Redis> = OnceLock::new();
    SERVER.get_or_init(|| Redis::start(RedisOptions::default()))
}

/// A prefix of its own.
pub fn prefix() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("case-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A store that asks no durability of its server.
pub fn config(url: String) -> RedisUtxoStoreConfig {
    RedisUtxoStoreConfig::new(url)
        .with_tls(Tls::Off)
        .with_durability(Durability::None)
        .with_max_batch_items(4_096)
        .with_retry(
            RetryConfig::default()
                .with_max_attempts(20)
                .with_max_elapsed(Duration::from_secs(60)),
        )
}
