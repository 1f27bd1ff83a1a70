//! Bitcoin Core's snapshot files, from and into every store.

use std::fs;
use std::path::Path;

use groundtackle_utxo_store::decorators::{Bounded, BoundedConfig};
use groundtackle_utxo_store::snapshot::{
    ExpectedDigest, ExportOptions, ImportOptions, Imported, SnapshotError, SnapshotFile,
    export_snapshot, import_snapshot,
};
use groundtackle_utxo_store::{
    Error, Retryability, StatisticsOptions, UtxoStoreExt, unfinished_copy,
};
use sha2::{Digest, Sha256};

use super::upkeep::dropped_after;
use crate::harness::{Subject, all};
use crate::mainnet::{ANSWERS, blocks};

fn sha256(path: &Path) -> String {
    let file = fs::read(path).expect("it was written");
    Sha256::digest(file)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

async fn import(
    path: &Path,
    expected: ExpectedDigest,
    to: &Subject,
) -> Result<Imported, SnapshotError> {
    let mut options = ImportOptions::default();
    options.expected = Some(expected);
    let file = SnapshotFile::open(path, &options).await?;
    // Hundreds of records in one call are a lot for a backend that fails all the time.
    let config = BoundedConfig::default().with_max_batch_items(16);
    let to = all(Bounded::new(to.share(), config));
    let mut answer = import_snapshot(&file, &to, |_| {}).await;
    for _ in 0..50 {
        match &answer {
            Err(error) if error.retryability() != Retryability::Permanent => {
                answer = import_snapshot(&file, &to, |_| {}).await;
            }
            _ => break,
        }
    }
    answer
}

/// `export_snapshot`: "byte for byte as `dumptxoutset` of Bitcoin Core 28 and newer does", at every height that is
/// known. `import_snapshot`: the same figures and digests; "a file that is damaged or not what was expected
/// leaves the store as it was".
pub(crate) async fn snapshots_are_those_of_bitcoin_core(store: Subject) {
    let folder = tempfile::tempdir().expect("room for files");
    let path = folder.path().join("utxo.dat");
    let ordered = store.capabilities().ordered_scan;
    let mut options = ExportOptions::default();
    options.replace = true;
    for block in blocks().await {
        all(store.connect_block(&block).await).expect("the block is good");
        let Some(answer) = ANSWERS.iter().find(|answer| answer.height == block.height) else {
            continue;
        };
        let height = answer.height;
        let exported = export_snapshot(&*store, &path, &options, |_| {}).await;
        let exported = exported.expect("a whole set");
        assert_eq!(sha256(&path), answer.snapshot_sha256, "at height {height}");

        let other = store.another().await;
        let wrong = ExpectedDigest::Muhash([7; 32]);
        let refused = import(&path, wrong, &other).await;
        assert!(
            matches!(refused, Err(SnapshotError::WrongDigest { .. })),
            "{refused:?}"
        );
        let state = other.state().await;
        assert_eq!(
            (state.tip, state.coins, state.unmined),
            (None, vec![], vec![])
        );
        assert_eq!(all(unfinished_copy(&*other).await), None);

        let expected = match height % 2 {
            0 => ExpectedDigest::Muhash(exported.muhash),
            _ => ExpectedDigest::HashSerialized3(exported.hash_serialized_3),
        };
        let imported = import(&path, expected, &other).await;
        assert_eq!(imported.expect("the same file").coins, answer.txouts);
        let options = StatisticsOptions {
            muhash: true,
            hash_serialized_3: ordered,
        };
        answer.check(&all((*other).statistics(options).await));
        assert_eq!(
            all(other.digest().await).muhash,
            all(store.digest().await).muhash
        );
        let refused = import(&path, expected, &other).await;
        assert!(
            matches!(
                refused,
                Err(SnapshotError::Store(Error::InvalidRequest { .. }))
            ),
            "{refused:?}"
        );
    }
}

/// `import_snapshot`: "the store is marked as unfinished and filled, and has no tip until a scan of it has the
/// digest of the file"; "cancel safety: repeat it".
pub(crate) async fn imports_are_whole_or_unfinished(store: Subject) {
    store.begin_chain().await;
    for tag in 100..140 {
        store.coins(tag, 3).await;
    }
    // A block as regtest has them: the highest bit of its hash is not set.
    while store.mine(&[]).await.hash.as_bytes()[31] > 0x7f {}
    let from = store.state().await;
    let tip = from.tip.expect("connected");
    let folder = tempfile::tempdir().expect("room for files");
    let path = folder.path().join("utxo.dat");
    let network = groundtackle_chain::Network::Regtest;
    let exported = export_snapshot(&*store, &path, &ExportOptions::new(network), |_| {}).await;
    let exported = exported.expect("a whole set");
    let mut options = ImportOptions::new(network);
    options.expected = Some(ExpectedDigest::Muhash(exported.muhash));
    options.height = Some(tip.height);
    options.median_time_past = tip.median_time_past;
    let file = SnapshotFile::open(&path, &options).await;
    let file = file.expect("a snapshot");

    let mut to = store.another().await;
    from.records.keys().for_each(|txid| to.note(*txid));
    let mut polls = 1;
    let imported = loop {
        let done = dropped_after(polls, import_snapshot(&file, &*to, |_| {})).await;
        polls *= 2;
        to.restart().await;
        if let Some(imported) = done {
            break imported.expect("the same file");
        }
        if all(unfinished_copy(&*to).await).is_none() {
            let state = to.state().await;
            if state.tip.is_some() {
                // Dropped after its last write.
                to = store.another().await;
                from.records.keys().for_each(|txid| to.note(*txid));
            } else {
                assert_eq!(state.coins, []);
            }
        }
    };
    assert_eq!(
        (imported.tip, imported.coins),
        (tip, from.coins.len() as u64)
    );
    let now = to.state().await;
    assert_eq!(
        (now.tip, &now.coins, now.digest),
        (from.tip, &from.coins, from.digest)
    );
    assert_eq!(now.unmined, []);
    assert_eq!(all(unfinished_copy(&*to).await), None);
}
