use std::sync::Arc;

use groundtackle_core::RetryConfig;
use groundtackle_utxo_store::decorators::{Retrying, Traced};
use groundtackle_utxo_store::{Error, MemoryUtxoStore, Result, UtxoStore};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};

/// The one place that names adapters: `memory:`, `embedded:PATH`, and with the feature `postgres` also
/// `postgres://USER@HOST/DATABASE`; `?tls=off` may follow, for a server on the same host.
///
/// # Errors
/// As the adapter; `InvalidRequest` for a URL of none.
pub async fn open(url: &str) -> Result<Arc<dyn UtxoStore>> {
    let store: Arc<dyn UtxoStore> = match url.split_once(':') {
        Some(("memory", "")) => Arc::new(MemoryUtxoStore::new()),
        Some(("embedded", path)) => {
            let config = EmbeddedUtxoStoreConfig::default();
            Arc::new(EmbeddedUtxoStore::open(path, config)?)
        }
        #[cfg(feature = "postgres")]
        Some(("postgres", _)) => {
            use groundtackle_utxo_store_postgres::{
                PostgresUtxoStore, PostgresUtxoStoreConfig, Tls,
            };
            let config = match url.strip_suffix("?tls=off") {
                Some(url) => PostgresUtxoStoreConfig::new(url).with_tls(Tls::Off),
                None => PostgresUtxoStoreConfig::new(url),
            };
            Arc::new(PostgresUtxoStore::open(config).await?)
        }
        // Not the URL: it may have a password.
        _ => {
            return Err(Error::invalid_request(
                "no adapter is built in for this store's URL",
            ));
        }
    };
    let store = around(store)?;
    // What a crash interrupted is finished or undone before anybody asks.
    store.recover().await?;
    Ok(store)
}

/// Each call is repeated while that helps, and told to `tracing` with how long it took.
///
/// # Errors
/// None with this schedule.
pub fn around(store: Arc<dyn UtxoStore>) -> Result<Arc<dyn UtxoStore>> {
    Ok(Arc::new(Traced::new(Retrying::new(
        store,
        RetryConfig::default(),
    )?)))
}
