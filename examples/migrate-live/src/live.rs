use std::sync::Arc;

use groundtackle_utxo_store::UtxoStore;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Error, Result};

/// The store that serves, for one call: a switch waits until it is dropped.
pub type Serving<'a> = RwLockReadGuard<'a, Arc<dyn UtxoStore>>;

/// Through this the service reaches whichever store serves now.
#[derive(Debug)]
pub struct Live(RwLock<Option<Arc<dyn UtxoStore>>>);

impl Live {
    pub(crate) fn new(store: Arc<dyn UtxoStore>) -> Self {
        Self(RwLock::new(Some(store)))
    }

    /// The store that serves. Hold it for one call, and ask again for the next one; never hold two at once. During a switch it
    /// waits.
    ///
    /// # Errors
    /// [`Error::InDoubt`].
    pub async fn store(&self) -> Result<Serving<'_>> {
        let store = self.0.read().await;
        RwLockReadGuard::try_map(store, Option::as_ref).map_err(|_| Error::InDoubt)
    }

    /// Once no call is under way; none begins until it is dropped.
    pub(crate) async fn hold(&self) -> RwLockWriteGuard<'_, Option<Arc<dyn UtxoStore>>> {
        self.0.write().await
    }
}
