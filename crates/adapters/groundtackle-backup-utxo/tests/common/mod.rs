//! The real chain, and keys in the clear.
#![allow(dead_code, reason = "each test takes what it needs of it")]

use std::collections::BTreeMap;

use groundtackle_backup::{DataKey, HexBytes, KeyUnwrapping, KeyWrapping, Result, WrappedKey};
use groundtackle_utxo_store::{
    ChainBlock, MemoryUtxoStore, ScanStore, SetDigest, UtxoStore, UtxoStoreExt, unfinished_copy,
};
use groundtackle_utxo_store_testkit::mainnet;

/// Keys in the clear: what wrapping does is another crate's matter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open;

impl KeyWrapping for Open {
    fn wrap(&self, key: &DataKey) -> Result<WrappedKey> {
        Ok(WrappedKey {
            scheme: "none".into(),
            recipients: Vec::new(),
            blob: HexBytes(key.expose().to_vec()),
        })
    }
}

impl KeyUnwrapping for Open {
    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Option<DataKey>> {
        let key = wrapped.blob.0.clone().try_into().unwrap();
        Ok(Some(DataKey::from_bytes(key)))
    }
}

pub(crate) async fn connect(store: &dyn UtxoStore, block: &ChainBlock) {
    store.connect_block(block).await.unwrap().unwrap();
}

pub(crate) async fn assert_is(store: &dyn UtxoStore, wanted: &SetDigest) {
    assert_eq!(store.digest().await.unwrap(), *wanted);
    assert_eq!(store.tip().await.unwrap(), wanted.tip);
    assert_eq!(unfinished_copy(store).await.unwrap(), None);
    let statistics = store.statistics(Default::default()).await.unwrap();
    if let Some(muhash) = statistics.muhash {
        assert_eq!(muhash, wanted.muhash);
    }
}
/// The chain of blocks 0 to 599 as a fresh sync sees it, and what the store is after each.
pub(crate) async fn synced() -> (Vec<ChainBlock>, BTreeMap<u32, SetDigest>) {
    let blocks = mainnet::blocks().await;
    let store = MemoryUtxoStore::new();
    let mut digests = BTreeMap::new();
    for block in &blocks {
        connect(&store, block).await;
        digests.insert(block.height, store.digest().await.unwrap());
    }
    (blocks, digests)
}
