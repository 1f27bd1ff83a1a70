//! Exports and imports: what is refused leaves everything as it was, what is cut off goes on.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

#[path = "snapshot/exports.rs"]
mod exports;

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use groundtackle_chain::hash::sha256d;
use groundtackle_chain::{BlockHash, Network, TxOut, Txid};
use groundtackle_core::{ByteSize, Retryability};
use groundtackle_utxo_store::pending::{MemoryCells, PendingConfig, PendingUtxoStore};
use groundtackle_utxo_store::snapshot::{
    ExpectedDigest, ExportOptions, Exported, ImportOptions, Imported, KNOWN_SNAPSHOTS,
    SnapshotError, SnapshotFile, SnapshotFormatError, SnapshotProgress, SnapshotStep,
    SnapshotWriter, export_snapshot, import_snapshot,
};
use groundtackle_utxo_store::{
    BlockStore, Coin, Cursor, Error, MemoryUtxoStore, NewRecord, Page, ScanStore, SetScan,
    SpendStore, Tip, UnspendableRule, UtxoStore, UtxoStoreExt, copy_set, forward_store,
    unfinished_copy,
};
use tempfile::TempDir;

/// Easy enough for regtest.
const BLOCK: BlockHash = BlockHash::from_bytes([0x21; 32]);
const TIP: Tip = Tip {
    height: 9,
    hash: BLOCK,
    median_time_past: 0,
};

fn txid(number: u32) -> Txid {
    Txid::from_bytes(sha256d(&number.to_le_bytes()))
}

/// One transaction of some coins, the last of height 9.
fn seeds(count: u32) -> Vec<NewRecord> {
    let seed = |number: u32| NewRecord::Seed {
        txid: txid(number),
        coinbase: number.is_multiple_of(2),
        height: if number == 0 { 9 } else { number % 9 },
        outputs: (0..1 + number % 4)
            .map(|vout| {
                // So much that sorting spills, and little where every bit is tried.
                let length = number as usize % 70 * if number < 100 { 1 } else { 20 };
                let script = vec![0x51; length].into();
                let output = TxOut {
                    value_sat: u64::from(number) * 100,
                    script,
                };
                (vout * 9_000, output)
            })
            .collect(),
    };
    (0..count).map(seed).collect()
}

async fn filled(store: impl UtxoStore, count: u32) -> Arc<dyn UtxoStore> {
    for records in seeds(count).chunks(500) {
        for created in store.create(records).await.unwrap() {
            created.unwrap();
        }
    }
    store.set_tip(&TIP).await.unwrap();
    Arc::new(store)
}

/// Its scan has no order.
fn unordered() -> PendingUtxoStore<MemoryCells> {
    let store = PendingUtxoStore::new(MemoryCells::new(), PendingConfig::default());
    assert!(!store.capabilities().ordered_scan && !store.capabilities().snapshot_scan);
    store
}

async fn coins(store: &dyn UtxoStore) -> Vec<Coin> {
    let scan = store.scan().await.unwrap();
    let mut coins = Vec::new();
    for partition in 0..scan.partitions() {
        let mut after = None;
        loop {
            let page = scan.page(partition, after.as_ref(), 1_000).await.unwrap();
            coins.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    coins.sort_by_key(|coin| coin.outpoint);
    coins
}

fn folder() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("utxo.dat");
    (folder, file)
}

fn regtest() -> ExportOptions {
    ExportOptions::new(Network::Regtest)
}

fn expecting(expected: ExpectedDigest) -> ImportOptions {
    let mut options = ImportOptions::new(Network::Regtest);
    options.expected = Some(expected);
    options
}

async fn export(store: &dyn UtxoStore, file: &Path) -> Result<Exported, SnapshotError> {
    export_snapshot(store, file, &regtest(), |_| {}).await
}

async fn import(
    file: &Path,
    options: &ImportOptions,
    to: &dyn UtxoStore,
) -> Result<Imported, SnapshotError> {
    let file = SnapshotFile::open(file, options).await?;
    import_snapshot(&file, to, |_| {}).await
}

/// The store has nothing: no coin, no tip, no mark.
async fn assert_untouched(store: &dyn UtxoStore) {
    assert_eq!(coins(store).await, []);
    assert_eq!(store.tip().await.unwrap(), None);
    assert_eq!(unfinished_copy(store).await.unwrap(), None);
    assert_eq!(store.unmined(None, None, 1).await.unwrap().items, []);
}

macro_rules! assert_fails {
    ($answer:expr, $($error:tt)+) => {{
        let answer = $answer;
        assert!(matches!(answer, Err(SnapshotError::$($error)+)), "{answer:?}");
    }};
}
use assert_fails;

fn flags(exported: &Exported) -> [ExpectedDigest; 2] {
    [
        ExpectedDigest::Muhash(exported.muhash),
        ExpectedDigest::HashSerialized3(exported.hash_serialized_3),
    ]
}

#[tokio::test]
async fn a_set_goes_through_a_file_into_any_store() {
    let (_folder, path) = folder();
    let from = filled(MemoryUtxoStore::new(), 2_000).await;
    let mut steps = Vec::new();
    let exported = export_snapshot(&*from, &path, &regtest(), |progress| steps.push(progress))
        .await
        .unwrap();
    let statistics = from.statistics(Default::default()).await.unwrap();
    assert_eq!(exported.tip, TIP);
    assert_eq!(exported.coins, statistics.txouts);
    assert_eq!(exported.transactions, statistics.transactions);
    assert_eq!(Some(exported.muhash), statistics.muhash);
    assert_eq!(
        Some(exported.hash_serialized_3),
        statistics.hash_serialized_3
    );
    assert_eq!(exported.bytes, fs::metadata(&path).unwrap().len());
    let last = |step| {
        let of_step = |progress: &&SnapshotProgress| progress.step == step;
        let last = steps
            .iter()
            .rfind(of_step)
            .map(|last| (last.coins, last.total));
        last.unwrap()
    };
    assert_eq!(last(SnapshotStep::Scan), (exported.coins, None));
    assert_eq!(
        last(SnapshotStep::Check),
        (exported.coins, Some(exported.coins))
    );

    let all = coins(&*from).await;
    for expected in flags(&exported) {
        let stores: [Arc<dyn UtxoStore>; 2] =
            [Arc::new(MemoryUtxoStore::new()), Arc::new(unordered())];
        for to in stores {
            let imported = import(&path, &expecting(expected), &*to).await.unwrap();
            assert_eq!((imported.tip, imported.coins), (TIP, exported.coins));
            assert_eq!((imported.coins_before, imported.transactions), (0, 2_000));
            assert_eq!(imported.muhash, exported.muhash);
            assert_eq!(imported.hash_serialized_3, Some(exported.hash_serialized_3));
            assert_eq!(coins(&*to).await, all);
            assert_eq!(to.tip().await.unwrap(), Some(TIP));
            assert_eq!(to.digest().await.unwrap().muhash, exported.muhash);
            assert_eq!(unfinished_copy(&*to).await.unwrap(), None);

            // And out of it again, with memory for all and for a part.
            assert!(exported.bytes > 2 << 20, "it spills");
            for memory in [ByteSize::mib(64), ByteSize::new(1)] {
                let again = path.with_extension("again");
                let mut options = regtest();
                options.replace = true;
                options.sort_memory = memory;
                let answer = export_snapshot(&*to, &again, &options, |_| {})
                    .await
                    .unwrap();
                assert_eq!(answer, exported);
                assert!(fs::read(&again).unwrap() == fs::read(&path).unwrap());
            }
        }
    }
    let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(left, 2, "only the two files");
}

#[tokio::test]
async fn what_is_not_expected_leaves_the_store_untouched() {
    let (folder, path) = folder();
    let from = filled(MemoryUtxoStore::new(), 50).await;
    let exported = export(&*from, &path).await.unwrap();
    let good = expecting(ExpectedDigest::Muhash(exported.muhash));
    let to = MemoryUtxoStore::new();

    for wrong in [
        ExpectedDigest::Muhash([7; 32]),
        ExpectedDigest::HashSerialized3([7; 32]),
    ] {
        let answer = import(&path, &expecting(wrong), &to).await;
        let text = answer.as_ref().unwrap_err().to_string();
        assert_fails!(answer, WrongDigest { .. });
        assert!(text.contains(&"07".repeat(32)), "{text}");
        assert_untouched(&to).await;
    }
    // One for the other.
    let [ExpectedDigest::Muhash(muhash), _] = flags(&exported) else {
        panic!()
    };
    let crossed = expecting(ExpectedDigest::HashSerialized3(muhash));
    assert_fails!(
        import(&path, &crossed, &to).await,
        WrongDigest {
            digest: "hash_serialized_3",
            ..
        }
    );

    let unknown = ImportOptions::new(Network::Regtest);
    assert_fails!(import(&path, &unknown, &to).await, NoDigest { .. });
    let mut other = good;
    other.network = Network::Signet;
    assert_fails!(
        import(&path, &other, &to).await,
        WrongNetwork {
            wanted: Network::Signet,
            found: Network::Regtest,
            ..
        }
    );
    let mut other = good;
    other.block = Some(BlockHash::ZERO);
    assert_fails!(import(&path, &other, &to).await, WrongBlock { .. });
    let mut other = good;
    other.height = Some(8);
    assert_fails!(
        import(&path, &other, &to).await,
        WrongHeight { given: 8, .. }
    );
    let missing = import(&folder.path().join("gone"), &good, &to).await;
    assert_fails!(missing, Io { .. });
    let junk = folder.path().join("junk");
    fs::write(&junk, [0xee; 100]).unwrap();
    assert_fails!(import(&junk, &good, &to).await, NotASnapshot { .. });
    fs::write(&junk, "short").unwrap();
    assert_fails!(import(&junk, &good, &to).await, Format { .. });
    assert_untouched(&to).await;

    // What can be known of the height, and what is believed.
    let mut higher = good;
    higher.height = Some(10);
    higher.block = Some(BLOCK);
    higher.median_time_past = 5;
    let imported = import(&path, &higher, &to).await.unwrap();
    let tip = Tip {
        height: 10,
        median_time_past: 5,
        ..TIP
    };
    assert_eq!((imported.tip, to.tip().await.unwrap()), (tip, Some(tip)));
}

/// A file with the block and the coins given, and its digests.
fn file(path: &Path, network: Network, block: &BlockHash, groups: &[&[Coin]]) {
    let file = fs::File::create(path).unwrap();
    let mut writer = SnapshotWriter::new(file, network, block).unwrap();
    for coins in groups {
        writer.add(coins).unwrap();
    }
    writer.finish().unwrap();
}

fn transactions(coins: &[Coin]) -> Vec<&[Coin]> {
    coins
        .chunk_by(|a, b| a.outpoint.txid == b.outpoint.txid)
        .collect()
}

#[tokio::test]
async fn heights_come_from_what_is_built_in_or_from_the_coins() {
    let (_folder, path) = folder();
    let from = filled(MemoryUtxoStore::new(), 2).await;
    let all = coins(&*from).await;
    let muhash = from.digest().await.unwrap().muhash;
    let empty = MemoryUtxoStore::new().digest().await.unwrap().muhash;

    let known = KNOWN_SNAPSHOTS
        .iter()
        .find(|known| known.network == Network::Regtest)
        .unwrap();
    file(&path, Network::Regtest, &known.block, &transactions(&all));
    // Without a digest the one that is built in counts.
    let to = MemoryUtxoStore::new();
    let answer = import(&path, &ImportOptions::new(Network::Regtest), &to).await;
    assert_fails!(
        answer,
        WrongDigest {
            digest: "hash_serialized_3",
            ..
        }
    );
    let mut options = expecting(ExpectedDigest::Muhash(muhash));
    options.height = Some(known.height + 1);
    assert_fails!(import(&path, &options, &to).await, WrongHeight { .. });
    assert_untouched(&to).await;
    options.height = None;
    assert_eq!(
        import(&path, &options, &to).await.unwrap().tip.height,
        known.height
    );

    // The genesis block's set is empty; no other block's is without a hint.
    for (block, height) in [
        (Network::Main.genesis_hash(), Some(0)),
        (BlockHash::from_bytes([0; 32]), None),
    ] {
        file(&path, Network::Main, &block, &[]);
        let mut options = ImportOptions::new(Network::Main);
        options.expected = Some(ExpectedDigest::Muhash(empty));
        let to = MemoryUtxoStore::new();
        let answer = import(&path, &options, &to).await;
        match height {
            Some(height) => assert_eq!(answer.unwrap().tip.height, height),
            None => {
                assert_fails!(answer, UnknownHeight { .. });
                options.height = Some(4);
                assert_eq!(import(&path, &options, &to).await.unwrap().tip.height, 4);
            }
        }
    }
}

#[tokio::test]
async fn the_order_of_transactions_matters_for_one_digest_alone() {
    let (_folder, path) = folder();
    let from = filled(MemoryUtxoStore::new(), 2).await;
    let all = coins(&*from).await;
    let mut groups = transactions(&all);
    groups.reverse();
    file(&path, Network::Regtest, &BLOCK, &groups);
    let statistics = from.statistics(Default::default()).await.unwrap();
    let serialized = ExpectedDigest::HashSerialized3(statistics.hash_serialized_3.unwrap());
    let to = MemoryUtxoStore::new();
    assert_fails!(
        import(&path, &expecting(serialized), &to).await,
        NotInOrder { .. }
    );
    assert_untouched(&to).await;
    let muhash = ExpectedDigest::Muhash(statistics.muhash.unwrap());
    let imported = import(&path, &expecting(muhash), &to).await.unwrap();
    assert_eq!(imported.hash_serialized_3, None);
    assert_eq!(coins(&to).await, all);
}

/// "With its coins together".
#[tokio::test]
async fn a_transaction_in_two_places_is_named_as_the_cause() {
    let (_folder, path) = folder();
    let from = filled(MemoryUtxoStore::new(), 2_000).await;
    let all = coins(&*from).await;
    let muhash = ExpectedDigest::Muhash(from.digest().await.unwrap().muhash);
    let mut groups = transactions(&all);
    let several = groups.iter().position(|coins| coins.len() > 1).unwrap();
    let (first, rest) = groups.remove(several).split_at(1);
    groups.insert(0, first);
    // Written with the first, and long after it.
    for at in [2, groups.len()] {
        let mut groups = groups.clone();
        groups.insert(at, rest);
        file(&path, Network::Regtest, &BLOCK, &groups);
        let to = MemoryUtxoStore::new();
        let said = match import(&path, &expecting(muhash), &to).await {
            Err(SnapshotError::Store(Error::InvalidRequest { what })) if at == 2 => what,
            Err(SnapshotError::Store(Error::Corrupt { detail, .. })) if at > 2 => detail,
            other => panic!("{at}: {other:?}"),
        };
        assert!(said.contains("in several places"), "{said}");
        assert_eq!(to.tip().await.unwrap(), None);
    }
}

/// Every bit of a file counts: the digest covers the coins, checks the rest, and the block is named.
#[tokio::test]
async fn no_flipped_bit_and_no_cut_gets_in() {
    let (_folder, path) = folder();
    let from = filled(MemoryUtxoStore::new(), 4).await;
    let exported = export(&*from, &path).await.unwrap();
    let mut options = expecting(ExpectedDigest::Muhash(exported.muhash));
    options.block = Some(BLOCK);
    let whole = fs::read(&path).unwrap();
    let to = MemoryUtxoStore::new();
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        let answer = import(&path, &options, &to).await;
        assert!(answer.is_err(), "bit {bit}: {answer:?}");
    }
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert_fails!(
            import(&path, &options, &to).await,
            Format { .. } | SnapshotError::NotASnapshot { .. }
        );
    }
    assert_untouched(&to).await;
    fs::write(&path, &whole).unwrap();
    import(&path, &options, &to).await.unwrap();
}

#[tokio::test]
async fn a_store_that_holds_something_else_is_refused_first() {
    let (folder, path) = folder();
    // So many that an import of them can be cut.
    let from = filled(MemoryUtxoStore::new(), 20_000).await;
    let exported = export(&*from, &path).await.unwrap();
    let options = expecting(ExpectedDigest::Muhash(exported.muhash));
    let opened = SnapshotFile::open(&path, &options).await.unwrap();
    let before = (coins(&*from).await, from.tip().await.unwrap());
    let answer = import_snapshot(&opened, &*from, |_| panic!("nothing is read")).await;
    assert_fails!(answer, Store(Error::InvalidRequest { .. }));
    assert_eq!((coins(&*from).await, from.tip().await.unwrap()), before);

    // A half import of another set.
    let to: Arc<dyn UtxoStore> = Arc::new(MemoryUtxoStore::new());
    let other = folder.path().join("other");
    file(
        &other,
        Network::Regtest,
        &BlockHash::from_bytes([0x22; 32]),
        &[&coins(&*from).await[..1]],
    );
    cut(&path, &options, &*to, SnapshotStep::Load).await;
    let begun = unfinished_copy(&*to).await.unwrap();
    assert_eq!(begun, Some((BLOCK, 9)));
    let opened = SnapshotFile::open(&other, &options).await.unwrap();
    let answer = import_snapshot(&opened, &*to, |_| panic!("nothing is read")).await;
    assert_fails!(answer, Store(Error::InvalidRequest { .. }));
    let mut at_another_height = options;
    at_another_height.height = Some(10);
    let answer = import(&path, &at_another_height, &*to).await;
    assert_fails!(answer, Store(Error::InvalidRequest { .. }));
    // A copy would carry alerts, which an import does not know.
    let copied = copy_set(&*from, &*to, |_| {}).await;
    assert!(
        matches!(copied, Err(Error::InvalidRequest { .. })),
        "{copied:?}"
    );
    // It can't be exported, and it can be finished.
    let answer = export(&*to, &folder.path().join("half")).await;
    assert_fails!(answer, Store(Error::InvalidRequest { .. }));
    import(&path, &options, &*to).await.unwrap();
    assert_eq!(coins(&*to).await, before.0);
}

/// Drops an import once a step has begun.
async fn cut(path: &Path, options: &ImportOptions, to: &dyn UtxoStore, step: SnapshotStep) {
    let file = SnapshotFile::open(path, options).await.unwrap();
    let reached = std::sync::atomic::AtomicBool::new(false);
    let mut import = pin!(import_snapshot(&file, to, |progress| {
        if progress.step == step {
            reached.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }));
    std::future::poll_fn(|context| {
        let polled = import.as_mut().poll(context);
        assert!(polled.is_pending(), "it ended before it was cut");
        match reached.load(std::sync::atomic::Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

#[tokio::test]
async fn an_interrupted_import_goes_on() {
    let (_folder, path) = folder();
    let from = filled(MemoryUtxoStore::new(), 20_000).await;
    let exported = export(&*from, &path).await.unwrap();
    let options = expecting(ExpectedDigest::HashSerialized3(exported.hash_serialized_3));
    let to: Arc<dyn UtxoStore> = Arc::new(MemoryUtxoStore::new());
    cut(&path, &options, &*to, SnapshotStep::Check).await;
    assert_untouched(&*to).await;
    cut(&path, &options, &*to, SnapshotStep::Load).await;
    assert_eq!(to.tip().await.unwrap(), None);
    assert_eq!(unfinished_copy(&*to).await.unwrap(), Some((BLOCK, 9)));
    let there = coins(&*to).await.len() as u64;
    assert!(there > 0 && there < exported.coins, "{there}");
    let imported = import(&path, &options, &*to).await.unwrap();
    assert_eq!(imported.coins_before, there);
    assert_eq!(coins(&*to).await, coins(&*from).await);
}

#[tokio::test]
async fn a_file_that_changes_after_its_check_is_not_taken_for_whole() {
    let (_folder, path) = folder();
    let from = filled(MemoryUtxoStore::new(), 50).await;
    let exported = export(&*from, &path).await.unwrap();
    let options = expecting(ExpectedDigest::Muhash(exported.muhash));
    let opened = SnapshotFile::open(&path, &options).await.unwrap();
    let to = MemoryUtxoStore::new();
    let answer = import_snapshot(&opened, &to, |progress| {
        if progress.step == SnapshotStep::Check {
            file(&path, Network::Regtest, &BLOCK, &[]);
        }
    })
    .await;
    assert_fails!(answer, Store(Error::Corrupt { .. }));
    assert_eq!(to.tip().await.unwrap(), None);
    assert_eq!(unfinished_copy(&to).await.unwrap(), Some((BLOCK, 9)));
}

#[tokio::test]
async fn errors_name_the_place_and_say_how_long_they_live() {
    let (_folder, path) = folder();
    let from = filled(MemoryUtxoStore::new(), 3).await;
    let exported = export(&*from, &path).await.unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let whole = bytes.clone();
    bytes.pop();
    fs::write(&path, &bytes).unwrap();
    let options = expecting(ExpectedDigest::Muhash(exported.muhash));
    let error = import(&path, &options, &MemoryUtxoStore::new())
        .await
        .unwrap_err();
    assert_eq!(error.retryability(), Retryability::Permanent);
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    let SnapshotError::Format { source, .. } = error else {
        panic!("{error}")
    };
    assert!(
        matches!(source, SnapshotFormatError::Truncated { coins_left: 1, .. }),
        "{source}"
    );
    assert!(
        source
            .to_string()
            .contains(&format!("ends at byte {}", bytes.len())),
        "{source}"
    );

    let io = |kind: std::io::ErrorKind| SnapshotError::Io {
        file: path.clone(),
        doing: "reading",
        source: kind.into(),
    };
    assert_eq!(
        io(std::io::ErrorKind::StorageFull).retryability(),
        Retryability::Transient
    );
    assert_eq!(
        io(std::io::ErrorKind::NotFound).retryability(),
        Retryability::Permanent
    );
    assert_eq!(
        io(std::io::ErrorKind::IsADirectory).retryability(),
        Retryability::Permanent
    );
    let lost = SnapshotError::NotDurable {
        file: path.clone(),
        source: std::io::ErrorKind::StorageFull.into(),
    };
    assert_eq!(lost.retryability(), Retryability::Indeterminate);
    // A folder in the file's place, before it is read again.
    let to = MemoryUtxoStore::new();
    fs::write(&path, &whole).unwrap();
    let opened = SnapshotFile::open(&path, &options).await.unwrap();
    let answer = import_snapshot(&opened, &to, |progress| {
        if progress.step == SnapshotStep::Check {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }
    });
    assert_eq!(
        answer.await.unwrap_err().retryability(),
        Retryability::Permanent
    );
    let full = Error::Full {
        store: "a".into(),
        source: "b".into(),
    };
    assert_eq!(
        SnapshotError::from(full).retryability(),
        Retryability::Indeterminate
    );
}
