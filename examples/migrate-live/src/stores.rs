use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use groundtackle_utxo_store::{Error, UnspendableRule, UtxoStore};
use groundtackle_utxo_store_aerospike::{AerospikeUtxoStore, AerospikeUtxoStoreConfig};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use groundtackle_utxo_store_postgres::{PostgresUtxoStore, PostgresUtxoStoreConfig};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// `embedded:PATH`, `postgres://USER@HOST/DATABASE` or `aerospike://HOST/NAMESPACE/SET`. Keys of the adapter's config may follow
/// a question mark: `postgres://me@host/db?schema=utxo`.
#[derive(Clone, Debug)]
pub struct StoreUrl {
    adapter: Adapter,
    shown: String,
}

#[derive(Clone, Debug)]
enum Adapter {
    Embedded(PathBuf, EmbeddedUtxoStoreConfig),
    Postgres(Box<PostgresUtxoStoreConfig>),
    Aerospike(Box<AerospikeUtxoStoreConfig>),
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, keys) = text.split_once('?').unwrap_or((text, ""));
        let (scheme, rest) = place.split_once(':').unwrap_or((place, ""));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let mut shown = format!("{scheme}:{}", host.trim_start_matches('/'));
        let adapter = match scheme {
            "embedded" if !rest.is_empty() => Adapter::Embedded(rest.into(), config(keys)?),
            "postgres" | "postgresql" => {
                let config: PostgresUtxoStoreConfig = config(keys)?;
                shown += &format!(" schema {}", config.schema);
                Adapter::Postgres(Box::new(config.with_url(place.into())))
            }
            "aerospike" => {
                let config: AerospikeUtxoStoreConfig = config(keys)?;
                Adapter::Aerospike(Box::new(config.with_url(place.into())))
            }
            _ => {
                return Err(
                    "a store is embedded:PATH, postgres://USER@HOST/DATABASE or \
                            aerospike://HOST/NAMESPACE/SET"
                        .into(),
                );
            }
        };
        Ok(Self { adapter, shown })
    }
}

/// Without user, password and options.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// An adapter's config from `KEY=VALUE&KEY=VALUE`.
fn config<C: DeserializeOwned>(text: &str) -> Result<C, String> {
    let mut keys = Map::new();
    for option in text.split('&').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').ok_or("write KEY=VALUE")?;
        // Sizes, durations and names are text; the rest reads as JSON.
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        keys.insert(key.into(), value);
    }
    serde_json::from_value(keys.into()).map_err(|error| error.to_string())
}

impl StoreUrl {
    /// Which outputs get no slot.
    pub const fn unspendable(&self) -> UnspendableRule {
        match &self.adapter {
            Adapter::Embedded(_, config) => config.unspendable,
            Adapter::Postgres(config) => config.unspendable,
            Adapter::Aerospike(config) => config.unspendable,
        }
    }

    /// Opens the store, made if it is not there, and has it finish or undo what a crash interrupted.
    ///
    /// # Errors
    /// As the adapter.
    pub async fn open(&self) -> Result<Arc<dyn UtxoStore>, Error> {
        let store: Arc<dyn UtxoStore> = match self.adapter.clone() {
            Adapter::Embedded(path, config) => Arc::new(EmbeddedUtxoStore::open(path, config)?),
            Adapter::Postgres(config) => Arc::new(PostgresUtxoStore::open(*config).await?),
            Adapter::Aerospike(config) => Arc::new(AerospikeUtxoStore::open(*config).await?),
        };
        store.recover().await?;
        Ok(store)
    }
}
