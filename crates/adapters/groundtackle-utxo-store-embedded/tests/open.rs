//! Opening: what is refused, what is kept, and what the settings say.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test asserts")]

use std::error::Error as _;
use std::fs;
use std::path::Path;

use groundtackle_core::{ByteSize, Retryability};
use groundtackle_utxo_store::{
    BlockHash, BlockStore, Error, Health, HealthDepth, MaintenanceStore, Result, ScanStore,
    SpendStore, Tip, UnspendableRule,
};
use groundtackle_utxo_store_embedded::{Durability, EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use tempfile::TempDir;

fn config() -> EmbeddedUtxoStoreConfig {
    EmbeddedUtxoStoreConfig::default()
        .with_cache(ByteSize::mib(8))
        .with_min_free(ByteSize::mib(1))
}

const TIP: Tip = Tip {
    height: 7,
    hash: BlockHash::from_bytes([7; 32]),
    median_time_past: 77,
};

/// A closed store with something in it.
async fn filled(path: &Path) {
    let store = EmbeddedUtxoStore::open(path, config()).unwrap();
    store.set_tip(&TIP).await.unwrap();
}

/// What an opening was refused with; it must name the store.
fn refusal(path: &Path, opened: Result<EmbeddedUtxoStore>) -> Error {
    let error = opened.expect_err("it must not open");
    let text = format!("{error} {:?}", error.source());
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    assert_eq!(error.retryability(), Retryability::Permanent);
    error
}

#[tokio::test]
async fn what_was_written_is_there_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("deep/store");
    filled(&path).await;
    let store = EmbeddedUtxoStore::open(&path, config().with_create(false)).unwrap();
    assert_eq!(store.tip().await.unwrap(), Some(TIP));
    assert_eq!(store.path(), path);
}

#[tokio::test]
async fn a_second_opening_is_refused_until_the_first_is_closed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    let store = EmbeddedUtxoStore::open(&path, config()).unwrap();
    let clone = store.clone();
    drop(store);
    assert!(matches!(
        refusal(&path, EmbeddedUtxoStore::open(&path, config())),
        Error::InUse { .. }
    ));
    drop(clone);
    EmbeddedUtxoStore::open(&path, config()).unwrap();
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    filled(&path).await;
    let header = path.join("FORMAT");
    let text = fs::read_to_string(&header).unwrap();
    let newer = text.replace("format 1", "format 2");
    fs::write(&header, &newer).unwrap();
    let error = refusal(&path, EmbeddedUtxoStore::open(&path, config()));
    assert!(
        matches!(
            error,
            Error::NewerFormat {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(fs::read_to_string(&header).unwrap(), newer);
    fs::write(&header, text).unwrap();
    assert_eq!(
        EmbeddedUtxoStore::open(&path, config())
            .unwrap()
            .tip()
            .await
            .unwrap(),
        Some(TIP)
    );
}

#[tokio::test]
async fn a_damaged_header_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    filled(&path).await;
    let header = path.join("FORMAT");
    let text = fs::read_to_string(&header).unwrap();
    for damaged in [
        String::new(),
        "something else".into(),
        text.replace("format 1", "format x"),
        text.replace("ready", "?"),
    ] {
        fs::write(&header, damaged).unwrap();
        assert!(matches!(
            refusal(&path, EmbeddedUtxoStore::open(&path, config())),
            Error::Corrupt { .. }
        ));
    }
}

#[tokio::test]
async fn damaged_data_are_refused_and_never_begun_anew() {
    for cut in ["keyspaces", "version", "lock", "0.jnl", ""] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("store");
        filled(&path).await;
        let gone = path.join("data").join(cut);
        if gone.is_dir() {
            fs::remove_dir_all(&gone).unwrap();
        } else {
            fs::remove_file(&gone).unwrap();
        }
        // Whatever the engine makes of it: an error, or all of it, never an empty store.
        match EmbeddedUtxoStore::open(&path, config()) {
            Err(error) => assert_eq!(
                error.retryability(),
                Retryability::Permanent,
                "{cut}: {error:?}"
            ),
            Ok(store) => assert_eq!(store.tip().await.unwrap(), Some(TIP), "without {cut}"),
        }
    }
}

#[test]
fn only_what_is_wanted_is_created() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    let error = refusal(
        &path,
        EmbeddedUtxoStore::open(&path, config().with_create(false)),
    );
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    assert!(!path.exists());
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("letter.txt"), "dear").unwrap();
    let error = refusal(
        folder.path(),
        EmbeddedUtxoStore::open(folder.path(), config()),
    );
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_was_fixed_at_creation_stays() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    drop(EmbeddedUtxoStore::open(&path, config().with_incremental_digest(false)).unwrap());
    let other = config().with_unspendable(UnspendableRule::FalseReturn);
    let error = refusal(&path, EmbeddedUtxoStore::open(&path, other));
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
    // A digest that was not kept from the beginning can't be kept from now on.
    let store = EmbeddedUtxoStore::open(&path, config().with_incremental_digest(true)).unwrap();
    assert!(!store.capabilities().incremental_digest);
    assert_eq!(store.digest().await.unwrap().tip, None);
}

#[tokio::test]
async fn below_the_reserve_changes_are_refused_and_reads_go_on() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    filled(&path).await;
    let all_of_it = ByteSize::new(u64::MAX);
    let store = EmbeddedUtxoStore::open(&path, config().with_min_free(all_of_it)).unwrap();
    let error = store.set_tip(&TIP).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(store.tip().await.unwrap(), Some(TIP));
    let Health { ready, reasons } = store.health(HealthDepth::Readiness).await.unwrap();
    assert!(
        !ready && reasons.iter().any(|reason| reason.contains("room")),
        "{reasons:?}"
    );
    assert!(store.health(HealthDepth::Liveness).await.unwrap().ready);
}

#[test]
fn settings_read_as_documented() {
    let defaults = EmbeddedUtxoStoreConfig::default();
    assert_eq!(
        serde_json::from_str::<EmbeddedUtxoStoreConfig>("{}").unwrap(),
        defaults
    );
    let json = r#"{ "create": false, "durability": "block", "cache": "1GiB", "write_buffer": "16MiB",
                    "min_free": "0B", "incremental_digest": false, "unspendable": "false-return" }"#;
    let read: EmbeddedUtxoStoreConfig = serde_json::from_str(json).unwrap();
    let built = defaults
        .clone()
        .with_create(false)
        .with_durability(Durability::Block)
        .with_cache(ByteSize::mib(1024))
        .with_write_buffer(ByteSize::mib(16))
        .with_min_free(ByteSize::new(0))
        .with_incremental_digest(false)
        .with_unspendable(UnspendableRule::FalseReturn);
    assert_eq!(read, built);
    assert!(serde_json::from_str::<EmbeddedUtxoStoreConfig>(r#"{ "cachee": "1GiB" }"#).is_err());
    // The README lists each key with its default.
    let readme = include_str!("../README.md");
    let values = serde_json::to_value(&defaults).unwrap();
    for (key, value) in values.as_object().unwrap() {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let row = readme
            .lines()
            .find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("{key} is not in the README"));
        assert!(
            row.ends_with(&format!("| `{value}` |")),
            "{key}: {value} is not in {row}"
        );
    }
}

/// On a runtime with one thread calls block it; they work all the same. Elsewhere they step aside.
#[test]
fn calls_work_on_every_runtime() {
    let folder = TempDir::new().unwrap();
    let work = |name: &str| {
        let store = EmbeddedUtxoStore::open(folder.path().join(name), config()).unwrap();
        async move {
            store.set_tip(&TIP).await.unwrap();
            assert_eq!(store.tip().await.unwrap(), Some(TIP));
        }
    };
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(work("one"));
    tokio::runtime::Builder::new_multi_thread()
        .build()
        .unwrap()
        .block_on(work("many"));
}
