//! The one place that knows which adapters are built in: add yours here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use groundtackle_utxo_store::decorators::Traced;
use groundtackle_utxo_store::{Error as StoreError, MemoryUtxoStore, Recovered, UtxoStore};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::failure::{Failure, Result};
use crate::report::note;

const BUILT_IN: &str = "embedded:PATH for a folder on this machine, and memory: for a store that \
                        is gone when the command ends";

/// Names a store: a scheme, a colon, and what the adapter needs to find it. Keys of the adapter's
/// config may follow a question mark: `embedded:PATH?durability=block&cache=1GiB`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    text: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Embedded(PathBuf, EmbeddedUtxoStoreConfig),
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
            ("memory", "") if options.is_empty() => Place::Memory,
            ("memory", _) => return Err("nothing may follow memory:".into()),
            _ => {
                return Err(format!(
                    "there is no adapter {scheme:?}; built in are {BUILT_IN}"
                ));
            }
        };
        Ok(Self {
            text: text.into(),
            place,
        })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Opens a store, and has it finish or undo what a crash interrupted.
pub async fn open(url: &StoreUrl, missing: Missing) -> Result<Arc<dyn UtxoStore>> {
    let failed = |creating: bool| {
        move |source| Failure::Open {
            url: url.to_string(),
            creating,
            source,
        }
    };
    let store = match connect(&url.place, Missing::Refuse) {
        Err(StoreError::NotFound { .. }) if missing == Missing::Create => {
            connect(&url.place, missing).map_err(failed(true))?
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

fn connect(place: &Place, missing: Missing) -> Result<Arc<dyn UtxoStore>, StoreError> {
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
