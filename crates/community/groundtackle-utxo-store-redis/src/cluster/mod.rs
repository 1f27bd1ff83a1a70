//! The store on a Redis Cluster.

mod cells;
mod config;
mod layout;
mod route;

use std::hash::{BuildHasher, RandomState};

use groundtackle_utxo_store::pending::{PendingConfig, PendingUtxoStore};
use groundtackle_utxo_store::{Error, Result};
use redis::Value;
use tokio::sync::Semaphore;

pub use cells::RedisCells;
pub use config::RedisClusterUtxoStoreConfig;

use crate::error::Failed;
use crate::read::bytes;
use crate::server::rule_name;
use layout::{FIRST, Layout};
use route::{Ask, Does, Route, Wait};

const BACKEND: &str = "redis_cluster";

/// The newest format that this version reads.
const FORMAT: u32 = 1;

fn corrupt(what: impl Into<String>, detail: impl Into<String>) -> Error {
    Error::corrupt(BACKEND, what, detail)
}

/// A stamp, which never comes twice, as far as chance goes.
fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// A UTXO store in a Redis Cluster. Clones share the connections.
#[derive(Clone, Debug)]
pub struct RedisClusterUtxoStore {
    pending: PendingUtxoStore<RedisCells>,
}

impl RedisClusterUtxoStore {
    /// Looks at the cluster, and opens the store in it or creates one. Runs on tokio, on whose runtime
    /// the connections live. Call [`recover`](groundtackle_utxo_store::MaintenanceStore::recover) then.
    ///
    /// # Errors
    /// `InvalidRequest` for settings that make no sense, servers that are no cluster or keep less than
    /// `durability` asks, and a store of other settings; `NewerFormat`; `NotFound` unless it may be
    /// created; `Corrupt` where a server has lost what the store had on it; `Backend` where no server
    /// answers, or user and password are refused.
    pub async fn open(config: RedisClusterUtxoStoreConfig) -> Result<Self> {
        config.check()?;
        let (access, seeds) = config.access()?;
        let mut pending = PendingConfig::default();
        pending.unspendable = config.unspendable;
        pending.max_batch_items = config.max_batch_items;
        pending.patience = config.patience;
        pending.retry = config.retry.clone();
        let script = include_str!("../scripts/cell.lua");
        // Half, so that the answer comes in time.
        let millis = config.answer_timeout.as_millis() / 2;
        let wait = Wait {
            replicas: config.min_replicas,
            millis: u64::try_from(millis).unwrap_or(u64::MAX).max(1),
        };
        let permits = (config.max_calls as usize).min(Semaphore::MAX_PERMITS);
        let cells = RedisCells {
            route: Route::new(access, &seeds, config.addresses.clone(), script, wait)?,
            layout: Layout::new(&config.prefix, config.spread)?,
            script: String::new(),
            turns: Semaphore::new(permits),
            config,
        };
        let cells = Box::pin(cells.prepare()).await?;
        Ok(Self {
            pending: PendingUtxoStore::new(cells, pending),
        })
    }

    const fn inner(&self) -> &PendingUtxoStore<RedisCells> {
        &self.pending
    }
}

impl RedisCells {
    /// Opens what is there, or creates it.
    async fn prepare(mut self) -> Result<Self> {
        let action = "open the store";
        let failed = |failed: Failed| failed.error;
        self.route.look_again(action).await.map_err(failed)?;
        for (node, _) in self.route.primaries() {
            self.script = self
                .route
                .load_script(action, &node)
                .await
                .map_err(failed)?;
        }
        // Replicas that are away hold nobody up.
        let faults = self.node_faults(action, 0).await?;
        if !faults.is_empty() {
            return Err(Error::invalid_request(faults.join("; ")));
        }
        if !self.check_settings().await? {
            if !self.config.create {
                return Err(Error::NotFound {
                    store: format!("prefix {}", self.config.prefix),
                });
            }
            self.create(action).await?;
        }
        let lost = self.lost().await?;
        match lost.first() {
            None => Ok(self),
            Some(first) => Err(corrupt(
                format!("the store with prefix {}", self.config.prefix),
                format!(
                    "what it had in {} hash slots is gone, the first is {first}: a server came up without its data",
                    lost.len()
                ),
            )),
        }
    }

    /// Makes the lists, and then the settings.
    async fn create(&self, action: &str) -> Result<()> {
        let ask = |bucket: &layout::Bucket, name: &str| {
            let mut command = redis::cmd(name);
            command.arg(bucket.list());
            if name == "ZADD" {
                command.arg(0).arg(FIRST);
            }
            Ask {
                slot: bucket.slot,
                command,
            }
        };
        for name in ["ZCARD", "ZADD"] {
            let buckets = self.layout.buckets().iter();
            let asks: Vec<_> = buckets.map(|bucket| ask(bucket, name)).collect();
            let answers = self.route.ask_all(action, Does::Write, &asks).await;
            let answers = answers.map_err(|failed| failed.error)?;
            if name == "ZCARD" && answers.iter().any(|card| matches!(card, Value::Int(2..))) {
                return Err(corrupt(
                    format!("the store with prefix {}", self.config.prefix),
                    "its settings are gone, and its transactions are there",
                ));
            }
        }
        let Some(first) = self.layout.buckets().first() else {
            return Ok(());
        };
        let mut command = self.run(&[first.settings()], "create");
        command.arg("format").arg(FORMAT);
        command
            .arg("unspendable")
            .arg(rule_name(self.config.unspendable));
        command.arg("spread").arg(self.config.spread);
        let asks = [Ask {
            slot: first.slot,
            command,
        }];
        let created = self.route.ask_all(action, Does::Write, &asks).await;
        if created.map_err(|failed| failed.error)? == [Value::Int(1)] {
            tracing::info!(prefix = self.config.prefix, "created a store");
            return Ok(());
        }
        // Another process was faster: its settings count.
        self.check_settings().await.map(drop)
    }
}

fn judge_settings(config: &RedisClusterUtxoStoreConfig, found: Vec<Value>) -> Result<bool> {
    let mut found = found.into_iter().map(|value| {
        let bytes = bytes(value)?;
        Ok::<_, Error>(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    });
    let mut next = || found.next().transpose().map(Option::flatten);
    let Some(format) = next()? else {
        return Ok(false);
    };
    let format: u32 = format
        .parse()
        .map_err(|_| corrupt("the store's format", "it is no number"))?;
    if format != FORMAT {
        return Err(Error::NewerFormat {
            store: format!("prefix {}", config.prefix),
            found: format,
            supported: FORMAT,
        });
    }
    let asked = [
        ("unspendable", rule_name(config.unspendable).to_owned()),
        ("spread", config.spread.to_string()),
    ];
    for (name, asked) in asked {
        let found = next()?.unwrap_or_default();
        if found != asked {
            return Err(Error::invalid_request(format!(
                "the store was created with {name} {found}, which is fixed, and the config says {asked}; set it to {found}"
            )));
        }
    }
    Ok(true)
}

groundtackle_utxo_store::forward_store!([] RedisClusterUtxoStore, inner);
