//! One server for all tests of a process.
#![allow(dead_code, unreachable_pub, reason = "each test uses what it needs")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use groundtackle_core::RetryConfig;
use groundtackle_testkit_servers::{Postgres, PostgresOptions};
use groundtackle_utxo_store_postgres::{PostgresUtxoStoreConfig, Tls};

/// Without `fsync`: what these tests check does not depend on it. Those that kill a server start one
/// with.
pub fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(PostgresOptions::default()))
}

/// A schema of its own.
pub struct Place(String);

impl Place {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(format!("case_{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    pub fn config(&self) -> PostgresUtxoStoreConfig {
        config(server()).with_schema(self.0.clone())
    }

    pub fn schema(&self) -> &str {
        &self.0
    }
}

pub fn config(server: &Postgres) -> PostgresUtxoStoreConfig {
    settings(server.url())
}

pub fn settings(url: String) -> PostgresUtxoStoreConfig {
    PostgresUtxoStoreConfig::new(url)
        .with_tls(Tls::Off)
        .with_allow_unsafe_durability(true)
        .with_max_batch_items(4_096)
        // Most steps of the generated sequences are scans.
        .with_scan_partitions(2)
        .with_retry(
            RetryConfig::default()
                .with_max_attempts(20)
                .with_max_elapsed(Duration::from_secs(60)),
        )
}
