//! The one place that knows which adapters are built in: add yours here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use groundtackle_utxo_store::decorators::Traced;
use groundtackle_utxo_store::{
    Error as StoreError, MemoryUtxoStore, Recovered, UtxoStore, unfinished_copy,
};
use groundtackle_utxo_store_aerospike::{AerospikeUtxoStore, AerospikeUtxoStoreConfig};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use groundtackle_utxo_store_postgres::{PostgresUtxoStore, PostgresUtxoStoreConfig};
use groundtackle_utxo_store_redis::{
    RedisClusterUtxoStore, RedisClusterUtxoStoreConfig, RedisUtxoStore, RedisUtxoStoreConfig,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::failure::{Failure, Result};
use crate::report::note;

const BUILT_IN: &str = "embedded:PATH for a folder on this machine, postgres://USER@HOST/DATABASE, \
                        aerospike://HOST/NAMESPACE/SET, rediss://USER@HOST, redis://HOST, rediss+cluster://USER@HOST,HOST, redis+cluster://HOST,HOST, and memory: for a store that is gone when the command ends";

/// What a PostgreSQL URL may say of the connection; all other options are the adapter's.
const POSTGRES_OPTIONS: [&str; 6] = [
    "application_name",
    "channel_binding",
    "hostaddr",
    "options",
    "sslmode",
    "target_session_attrs",
];

/// Names a store: a scheme, a colon, and what the adapter needs to find it. Keys of the adapter's
/// config may follow a question mark: `embedded:PATH?durability=block&cache=1GiB`.
#[derive(Clone, Debug)]
pub struct StoreUrl {
    /// Without a password.
    text: String,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Embedded(PathBuf, EmbeddedUtxoStoreConfig),
    Postgres(Box<PostgresUtxoStoreConfig>),
    Redis(Box<RedisUtxoStoreConfig>),
    RedisCluster(Box<RedisClusterUtxoStoreConfig>),
    Aerospike(Box<AerospikeUtxoStoreConfig>),
    Memory,
}

/// Whether a store that is not there is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Create,
    Refuse,
}

impl StoreUrl {
    pub fn embedded(path: PathBuf) -> Self {
        Self {
            text: format!("embedded:{}", path.display()),
            place: Place::Embedded(path, EmbeddedUtxoStoreConfig::default()),
        }
    }

    /// Where it lies, for comparing two: without user, password and options, since these tell no places apart.
    pub fn place(&self) -> String {
        if let Place::Embedded(path, _) = &self.place {
            return format!("embedded:{}", real(path).display());
        }
        let place = self.text.split('?').next().unwrap_or_default();
        let (scheme, rest) = place.split_once(':').unwrap_or((place, ""));
        let rest = rest.trim_start_matches('/');
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let scheme = match scheme {
            "postgresql" => "postgres",
            "rediss" | "redis+cluster" | "rediss+cluster" => "redis",
            other => other,
        };
        format!("{scheme}:{}", host.trim_end_matches('/').to_lowercase())
    }
}

/// The path without links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    path.canonicalize()
        .unwrap_or_else(|_| match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => real(parent).join(name),
            _ => path.clone(),
        })
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').ok_or_else(|| {
            format!("a store is named by a scheme and a colon; built in are {BUILT_IN}")
        })?;
        let (path, options) = rest.split_once('?').unwrap_or((rest, ""));
        let place = match (scheme, path) {
            ("embedded", "") => return Err("a path must follow embedded:".into()),
            ("embedded", path) => Place::Embedded(path.into(), config(options)?),
            ("postgres" | "postgresql", _) => {
                let (theirs, ours): (Vec<_>, Vec<_>) = options
                    .split('&')
                    .partition(|option| POSTGRES_OPTIONS.iter().any(|key| names(option, key)));
                let url = match theirs.join("&") {
                    none if none.is_empty() => format!("{scheme}:{path}"),
                    theirs => format!("{scheme}:{path}?{theirs}"),
                };
                let config: PostgresUtxoStoreConfig = config(&ours.join("&"))?;
                Place::Postgres(Box::new(config.with_url(url.into())))
            }
            ("redis" | "rediss", _) => {
                let config: RedisUtxoStoreConfig = config(options)?;
                let url = format!("{scheme}:{path}");
                Place::Redis(Box::new(config.with_url(url.into())))
            }
            ("aerospike", _) => {
                let config: AerospikeUtxoStoreConfig = config(options)?;
                let url = format!("{scheme}:{path}");
                Place::Aerospike(Box::new(config.with_url(url.into())))
            }
            ("redis+cluster" | "rediss+cluster", _) => {
                let config: RedisClusterUtxoStoreConfig = config(options)?;
                let scheme = scheme.trim_end_matches("+cluster");
                let url = format!("{scheme}:{path}");
                Place::RedisCluster(Box::new(config.with_url(url.into())))
            }
            ("memory", "") if options.is_empty() => Place::Memory,
            ("memory", _) => return Err("nothing may follow memory:".into()),
            _ => {
                return Err(format!(
                    "there is no adapter {scheme:?}; built in are {BUILT_IN}"
                ));
            }
        };
        Ok(Self {
            text: without_password(text),
            place,
        })
    }
}

/// Whether an option `KEY=VALUE` has this key.
fn names(option: &str, key: &str) -> bool {
    option.split('=').next() == Some(key)
}

/// The URL with stars for the password, which comes before the host or as an option.
fn without_password(url: &str) -> String {
    let (place, options) = url.split_once('?').unwrap_or((url, ""));
    let place = match (place.find("://"), place.rfind('@')) {
        (Some(start), Some(end)) => {
            let user = place.get(start + 3..end).unwrap_or_default();
            match user.split_once(':') {
                Some((user, _)) => format!(
                    "{}{user}:***{}",
                    place.get(..start + 3).unwrap_or_default(),
                    place.get(end..).unwrap_or_default()
                ),
                None => place.into(),
            }
        }
        _ => place.into(),
    };
    let options: Vec<_> = options
        .split('&')
        .filter(|option| !option.is_empty())
        .map(|option| match names(option, "password") {
            true => "password=***",
            false => option,
        })
        .collect();
    match options.is_empty() {
        true => place,
        false => format!("{place}?{}", options.join("&")),
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Opens a store, and has it finish or undo what a crash interrupted. A store that an unfinished copy
/// left is refused.
pub async fn open(url: &StoreUrl, missing: Missing) -> Result<Arc<dyn UtxoStore>> {
    let store = open_unfinished(url, missing).await?;
    match unfinished_copy(&*store).await? {
        Some((_, height)) => Err(Failure::UnfinishedCopy {
            url: url.to_string(),
            height,
        }),
        None => Ok(store),
    }
}

/// Opens a store that may be an unfinished copy.
pub async fn open_unfinished(url: &StoreUrl, missing: Missing) -> Result<Arc<dyn UtxoStore>> {
    let failed = |creating: bool| {
        move |source| Failure::Open {
            url: url.to_string(),
            creating,
            source,
        }
    };
    let store = match connect(&url.place, Missing::Refuse).await {
        Err(StoreError::NotFound { .. }) if missing == Missing::Create => {
            connect(&url.place, missing).await.map_err(failed(true))?
        }
        Err(StoreError::NotFound { .. }) => return Err(Failure::NoStore(url.to_string())),
        opened => opened.map_err(failed(false))?,
    };
    let Recovered {
        rolled_forward,
        rolled_back,
    } = store.recover().await.map_err(failed(false))?;
    if (rolled_forward, rolled_back) != (0, 0) {
        note(&format!(
            "recovered {url}: {rolled_forward} changes finished, {rolled_back} undone"
        ));
    }
    Ok(store)
}

async fn connect(place: &Place, missing: Missing) -> Result<Arc<dyn UtxoStore>, StoreError> {
    let create = missing == Missing::Create;
    Ok(match place {
        // It begins with the process.
        Place::Memory if !create => {
            let store = "memory:, which lives as long as one command".into();
            return Err(StoreError::NotFound { store });
        }
        Place::Memory => Arc::new(Traced::new(MemoryUtxoStore::new())),
        Place::Embedded(path, config) => {
            let create = config.create && create;
            let config = config.clone().with_create(create);
            Arc::new(Traced::new(EmbeddedUtxoStore::open(path, config)?))
        }
        Place::Postgres(config) => {
            let create = config.create && create;
            let config = PostgresUtxoStoreConfig::clone(config).with_create(create);
            Arc::new(Traced::new(PostgresUtxoStore::open(config).await?))
        }
        Place::Redis(config) => {
            let create = config.create && create;
            let config = RedisUtxoStoreConfig::clone(config).with_create(create);
            Arc::new(Traced::new(RedisUtxoStore::open(config).await?))
        }
        Place::RedisCluster(config) => {
            let create = config.create && create;
            let config = RedisClusterUtxoStoreConfig::clone(config).with_create(create);
            Arc::new(Traced::new(RedisClusterUtxoStore::open(config).await?))
        }
        Place::Aerospike(config) => {
            let create = config.create && create;
            let config = AerospikeUtxoStoreConfig::clone(config).with_create(create);
            Arc::new(Traced::new(AerospikeUtxoStore::open(config).await?))
        }
    })
}

/// An adapter's config from `KEY=VALUE&KEY=VALUE`.
fn config<C: DeserializeOwned>(options: &str) -> Result<C, String> {
    let mut keys = Map::new();
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (key, value) = option
            .split_once('=')
            .ok_or_else(|| format!("{option:?} is no option: write KEY=VALUE"))?;
        // Sizes, durations and names are text; the rest reads as JSON.
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        keys.insert(key.into(), value);
    }
    serde_json::from_value(keys.into()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::StoreUrl;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("postgres://me:geheim@host/db", "postgres://me:***@host/db"),
            (
                "postgres://me:ge@heim@host:1/db?schema=a",
                "postgres://me:***@host:1/db?schema=a",
            ),
            (
                "postgres://me@host/db?password=geheim&schema=a",
                "postgres://me@host/db?password=***&schema=a",
            ),
            ("postgres://me@host/db", "postgres://me@host/db"),
            (
                "rediss://:geheim@host:6379/0?prefix=a",
                "rediss://:***@host:6379/0?prefix=a",
            ),
            (
                "rediss+cluster://me:geheim@a:1,b:2?spread=64",
                "rediss+cluster://me:***@a:1,b:2?spread=64",
            ),
            ("embedded:/a@b?cache=1GiB", "embedded:/a@b?cache=1GiB"),
            (
                "aerospike://a,b:3100/utxo/main?user=me&password=geheim",
                "aerospike://a,b:3100/utxo/main?user=me&password=***",
            ),
        ] {
            let parsed: Result<StoreUrl, _> = url.parse();
            let parsed = parsed.unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(parsed.to_string(), shown);
            assert!(!format!("{parsed:?}").contains("geheim"), "{parsed:?}");
        }
        let unknown = "postgres://me:geheim@host/db?nonsense=1".parse::<StoreUrl>();
        let error = unknown.expect_err("there is no such option");
        assert!(
            error.contains("nonsense") && !error.contains("geheim"),
            "{error}"
        );
    }
}
