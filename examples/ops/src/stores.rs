//! The one place that knows which adapters are built in: add yours here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use groundtackle_utxo_store::decorators::Traced;
use groundtackle_utxo_store::{MemoryUtxoStore, Result as StoreResult, UtxoStore};

use crate::failure::{Failure, Result};

/// For messages; one line per scheme that [`StoreUrl`] knows.
pub const BUILT_IN: &str =
    "embedded:PATH (a folder on this machine), memory: (gone when the command ends)";

/// Names a store: scheme, colon, and what the adapter needs to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    Embedded(PathBuf),
    Memory,
}

/// Whether a store that is not there is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Create,
    Refuse,
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("embedded", "")) => Err("a path must follow embedded:".into()),
            Some(("embedded", path)) => Ok(Self::Embedded(path.into())),
            Some(("memory", "")) => Ok(Self::Memory),
            Some(("memory", _)) => Err("nothing may follow memory:".into()),
            Some((scheme, _)) => Err(format!(
                "no adapter is built in for {scheme:?}; there are {BUILT_IN}"
            )),
            None => Err(format!(
                "a store is named by scheme and colon; there are {BUILT_IN}"
            )),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(path) => write!(f, "embedded:{}", path.display()),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

/// Opens a store, and has it finish or undo what a crash interrupted.
pub async fn open(url: &StoreUrl, missing: Missing) -> Result<Arc<dyn UtxoStore>> {
    if missing == Missing::Refuse {
        match url {
            StoreUrl::Memory => return Err(Failure::Fleeting(url.clone())),
            StoreUrl::Embedded(path) if !is_filled_folder(path) => {
                return Err(Failure::NoStore(url.clone()));
            }
            StoreUrl::Embedded(_) => {}
        }
    }
    let opened = async {
        let store = connect(url)?;
        let recovered = store.recover().await?;
        Ok((store, recovered))
    };
    let (store, recovered) = opened.await.map_err(|source| Failure::Open {
        url: url.clone(),
        creating: missing == Missing::Create,
        source,
    })?;
    if recovered != Default::default() {
        eprintln!(
            "recovered {url}: {} changes finished, {} undone",
            recovered.rolled_forward, recovered.rolled_back
        );
    }
    Ok(store)
}

fn connect(url: &StoreUrl) -> StoreResult<Arc<dyn UtxoStore>> {
    let store: Arc<dyn UtxoStore> = match url {
        StoreUrl::Memory => Arc::new(MemoryUtxoStore::default()),
        StoreUrl::Embedded(path) => embedded(path)?,
    };
    Ok(Arc::new(Traced::new(store)))
}

fn embedded(path: &std::path::Path) -> StoreResult<Arc<dyn UtxoStore>> {
    let what = format!(
        "{} can't be opened: the embedded store is not built in yet",
        path.display()
    );
    Err(groundtackle_utxo_store::Error::invalid_request(what))
}

/// An empty folder holds no store, and opening would make one there.
fn is_filled_folder(path: &std::path::Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}
