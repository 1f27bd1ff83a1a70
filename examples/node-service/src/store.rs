//! The one place that knows which adapters are built in: add yours here, and take out what you don't need.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use groundtackle_backup_utxo::Journaled;
use groundtackle_core::Secret;
use groundtackle_utxo_store::decorators::Traced;
use groundtackle_utxo_store::{Error, UtxoStore, unfinished_copy};
use groundtackle_utxo_store_aerospike::{AerospikeUtxoStore, AerospikeUtxoStoreConfig};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use groundtackle_utxo_store_postgres::{PostgresUtxoStore, PostgresUtxoStoreConfig};
use groundtackle_utxo_store_redis::{
    RedisClusterUtxoStore, RedisClusterUtxoStoreConfig, RedisUtxoStore, RedisUtxoStoreConfig,
};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::{Map, Value};

use crate::failure::{Failure, Result, While};

const BUILT_IN: &str = "embedded:PATH, postgres://USER@HOST/DATABASE, aerospike://HOST/NAMESPACE/SET, rediss://USER@HOST \
                        and rediss+cluster://USER@HOST,HOST";

/// What a PostgreSQL URL may say of the connection; all other options are the adapter's.
const POSTGRES_OPTIONS: [&str; 6] = [
    "application_name",
    "channel_binding",
    "hostaddr",
    "options",
    "sslmode",
    "target_session_attrs",
];

/// A scheme, a colon, and what the adapter needs to find the store. Keys of the adapter's config may follow a question
/// mark: `embedded:PATH?durability=block&cache=1GiB`.
#[derive(Clone, Debug)]
pub enum StoreUrl {
    Embedded(PathBuf, EmbeddedUtxoStoreConfig),
    Postgres(Box<PostgresUtxoStoreConfig>, String),
    Redis(Box<RedisUtxoStoreConfig>, String),
    RedisCluster(Box<RedisClusterUtxoStoreConfig>, String),
    Aerospike(Box<AerospikeUtxoStoreConfig>, String),
}

impl StoreUrl {
    /// It comes before the URL's.
    pub fn with_password(self, password: Secret) -> Result<Self, String> {
        let password = Some(password);
        Ok(match self {
            Self::Embedded(..) => return Err("an embedded store has no password".into()),
            Self::Postgres(config, shown) => {
                Self::Postgres(Box::new(config.with_password(password)), shown)
            }
            Self::Redis(config, shown) => {
                Self::Redis(Box::new(config.with_password(password)), shown)
            }
            Self::RedisCluster(config, shown) => {
                Self::RedisCluster(Box::new(config.with_password(password)), shown)
            }
            Self::Aerospike(config, shown) => {
                Self::Aerospike(Box::new(config.with_password(password)), shown)
            }
        })
    }
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, options) = text.split_once('?').unwrap_or((text, ""));
        let unknown = || format!("no adapter is built in for this store; there are {BUILT_IN}");
        let (scheme, rest) = place.split_once(':').ok_or_else(unknown)?;
        // Without user and password, to be shown.
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let shown = format!("{scheme}:{}", host.trim_start_matches('/'));
        Ok(match scheme {
            "embedded" if rest.is_empty() => return Err("a path must follow embedded:".into()),
            "embedded" => Self::Embedded(rest.into(), config(options)?),
            "postgres" | "postgresql" => {
                let is_theirs = |option: &&str| {
                    let key = option.split('=').next().unwrap_or_default();
                    POSTGRES_OPTIONS.contains(&key)
                };
                let (theirs, ours): (Vec<_>, Vec<_>) = options.split('&').partition(is_theirs);
                let url = match theirs.is_empty() {
                    true => place.into(),
                    false => format!("{place}?{}", theirs.join("&")),
                };
                let config: PostgresUtxoStoreConfig = config(&ours.join("&"))?;
                Self::Postgres(Box::new(config.with_url(url.into())), shown)
            }
            "redis" | "rediss" => {
                let config: RedisUtxoStoreConfig = config(options)?;
                Self::Redis(Box::new(config.with_url(place.into())), shown)
            }
            "redis+cluster" | "rediss+cluster" => {
                let config: RedisClusterUtxoStoreConfig = config(options)?;
                let url = format!("{}:{rest}", scheme.trim_end_matches("+cluster"));
                Self::RedisCluster(Box::new(config.with_url(url.into())), shown)
            }
            "aerospike" => {
                let config: AerospikeUtxoStoreConfig = config(options)?;
                Self::Aerospike(Box::new(config.with_url(place.into())), shown)
            }
            _ => return Err(unknown()),
        })
    }
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// Where it lies, without user, password and options.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(path, _) => write!(f, "embedded:{}", path.display()),
            Self::Postgres(_, shown)
            | Self::Redis(_, shown)
            | Self::RedisCluster(_, shown)
            | Self::Aerospike(_, shown) => f.write_str(shown),
        }
    }
}

/// An adapter's config from `KEY=VALUE&KEY=VALUE`.
fn config<C: DeserializeOwned>(options: &str) -> Result<C, String> {
    let mut keys = Map::new();
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (key, value) = option
            .split_once('=')
            .ok_or("an option of the store's URL has no value: write KEY=VALUE")?;
        // Sizes, durations and names are text; the rest reads as JSON.
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        keys.insert(key.into(), value);
    }
    serde_json::from_value(keys.into()).map_err(|error| error.to_string())
}

async fn connect(url: &StoreUrl) -> Result<Arc<dyn UtxoStore>, Error> {
    Ok(match url.clone() {
        StoreUrl::Embedded(path, config) => {
            Arc::new(Traced::new(EmbeddedUtxoStore::open(path, config)?))
        }
        StoreUrl::Postgres(config, _) => {
            Arc::new(Traced::new(PostgresUtxoStore::open(*config).await?))
        }
        StoreUrl::Redis(config, _) => Arc::new(Traced::new(RedisUtxoStore::open(*config).await?)),
        StoreUrl::RedisCluster(config, _) => {
            Arc::new(Traced::new(RedisClusterUtxoStore::open(*config).await?))
        }
        StoreUrl::Aerospike(config, _) => {
            Arc::new(Traced::new(AerospikeUtxoStore::open(*config).await?))
        }
    })
}

/// Opens the store, made if it is not there, has it finish or undo what a crash interrupted, and puts the journal around it.
pub async fn open(url: &StoreUrl, journal: &Path) -> Result<Arc<dyn UtxoStore>> {
    let opening = || format!("opening the store {url}");
    let store = connect(url).await.when(opening())?;
    let recovered = store.recover().await.when(opening())?;
    tracing::info!(
        store = %url,
        rolled_forward = recovered.rolled_forward,
        rolled_back = recovered.rolled_back,
        "the store is open"
    );
    if let Some((_, height)) = unfinished_copy(&*store).await.when(opening())? {
        return Err(Failure::of(format!(
            "the store {url} holds an unfinished copy of the set at height {height}: finish the copy or the restore, or name \
             another store"
        )));
    }
    let journaled = Journaled::open(store, journal).await;
    Ok(Arc::new(journaled.when(format_args!(
        "opening the journal in {}",
        journal.display()
    ))?))
}

#[cfg(test)]
mod tests {
    use super::StoreUrl;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("postgres://me:ge@heim@host/db?schema=a", "postgres:host/db"),
            (
                "rediss://:geheim@host:6379/0?prefix=a",
                "rediss:host:6379/0",
            ),
            (
                "rediss+cluster://me:geheim@a:1,b:2",
                "rediss+cluster:a:1,b:2",
            ),
            ("embedded:/store?cache=1GiB", "embedded:/store"),
            (
                "aerospike://a,b:3100/utxo/main?user=me&password=geheim",
                "aerospike:a,b:3100/utxo/main",
            ),
        ] {
            let parsed: StoreUrl = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(parsed.to_string(), shown);
            assert!(!format!("{parsed:?}").contains("heim"), "{parsed:?}");
        }
        for url in [
            "geheim",
            "mongo:geheim",
            "postgres://me:geheim@host/db?nonsense=1",
        ] {
            let error = url.parse::<StoreUrl>().map(|_| ()).expect_err(url);
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
