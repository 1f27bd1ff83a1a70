//! All that can be seen of a store, to compare.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Write};

use groundtackle_utxo_store::digest::{MuHash3072, coin_element};
use groundtackle_utxo_store::{
    Coin, Fields, MemoryUtxoStore, Record, ScanStore, SetDigest, SetScan, Tip, Txid,
    UnminedTransaction, UtxoStore,
};

use crate::harness::all;

/// What a store shows of some transactions, and of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct State {
    /// The tip.
    pub tip: Option<Tip>,
    /// Of the transactions asked for, those on record.
    pub records: BTreeMap<Txid, Record>,
    /// All unmined transactions.
    pub unmined: Vec<UnminedTransaction>,
    /// The confirmed set, by outpoint.
    pub coins: Vec<Coin>,
    /// Its digest.
    pub digest: SetDigest,
}

/// The digest of coins by definition.
pub fn muhash(coins: &[Coin]) -> [u8; 32] {
    let mut set = MuHash3072::new();
    coins
        .iter()
        .for_each(|coin| set.insert(&coin_element(coin)));
    set.digest()
}

/// The confirmed set by outpoint, in pages of `limit`.
pub async fn scan_all(scan: &dyn SetScan, limit: usize) -> Vec<Coin> {
    let mut coins = Vec::new();
    for partition in 0..scan.partitions() {
        let mut after = None;
        loop {
            let page = all(scan.page(partition, after.as_ref(), limit).await);
            assert!(page.items.len() <= limit, "a page above its limit");
            coins.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    coins.sort_by_key(|coin| coin.outpoint);
    let outpoints: BTreeSet<_> = coins.iter().map(|coin| coin.outpoint).collect();
    assert_eq!(outpoints.len(), coins.len(), "a scan has each coin once");
    coins
}

/// All unmined transactions, in pages of `limit`.
pub async fn unmined_all(
    store: &dyn UtxoStore,
    older_than: Option<u32>,
    limit: usize,
) -> Vec<UnminedTransaction> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = all(store.unmined(older_than, after.as_ref(), limit).await);
        assert!(page.items.len() <= limit, "a page above its limit");
        found.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => break found,
        }
    }
}

impl State {
    /// What `store` shows of `txids` and of the set.
    pub async fn of(store: &dyn UtxoStore, txids: &[Txid]) -> Self {
        let digest = all(store.digest().await);
        Self::with_digest(store, txids, digest).await
    }

    /// The same of a model, whose digest costs more than all else: with the same coins as in `last`
    /// it is the same.
    pub(crate) async fn after(model: &MemoryUtxoStore, txids: &[Txid], last: &Self) -> Self {
        let mut state = Self::with_digest(model, txids, last.digest).await;
        state.digest.tip = state.tip;
        if state.coins != last.coins {
            state.digest = all(model.digest().await);
        }
        state
    }

    async fn with_digest(store: &dyn UtxoStore, txids: &[Txid], digest: SetDigest) -> Self {
        let records = all(store.records(txids, Fields::ALL).await);
        assert_eq!(records.len(), txids.len(), "one result per item");
        let records = txids.iter().zip(records);
        Self {
            tip: all(store.tip().await),
            records: records
                .filter_map(|(txid, record)| Some((*txid, record?)))
                .inspect(|(txid, record)| assert_eq!(*txid, record.txid, "another than asked"))
                .collect(),
            unmined: unmined_all(store, None, 1_000).await,
            coins: scan_all(&*all(store.scan().await), 1_000).await,
            digest,
        }
    }

    /// Where `other` differs; `None` where nothing does.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let mut text = String::new();
        let mut part =
            |name: &dyn fmt::Display, left: &dyn Debug, right: &dyn Debug, same: bool| {
                if !same {
                    write!(text, "{name}:\n    {left:?}\n    {right:?}\n").expect("text grows");
                }
            };
        part(&"tip", &self.tip, &other.tip, self.tip == other.tip);
        let txids: BTreeSet<_> = self.records.keys().chain(other.records.keys()).collect();
        for txid in txids {
            let (left, right) = (self.records.get(txid), other.records.get(txid));
            part(txid, &left, &right, left == right);
        }
        let same = self.unmined == other.unmined;
        part(&"unmined", &self.unmined, &other.unmined, same);
        let only = |these: &Self, those: &Self| -> Vec<Coin> {
            let those = &those.coins;
            let coins = these.coins.iter();
            coins.filter(|c| !those.contains(c)).cloned().collect()
        };
        let same = self.coins == other.coins;
        part(&"coins", &only(self, other), &only(other, self), same);
        let same = self.digest == other.digest;
        part(&"digest", &self.digest, &other.digest, same);
        (self != other).then_some(text)
    }

    /// Fails where `now` differs.
    #[track_caller]
    pub fn assert_still(&self, now: &Self) {
        if let Some(difference) = self.difference(now) {
            panic!("the state changed (before, then now):\n{difference}");
        }
    }
}
