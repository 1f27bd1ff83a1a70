//! What a folder can be, and what it must not become.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use groundtackle_backup::{Error, ObjectKey, PutIf, Refused, Result, Retryability, Target};
use groundtackle_backup_fs::{FsTarget, FsTargetConfig};
use groundtackle_backup_testkit::content;
use groundtackle_testkit_servers::SmallDisk;
use tempfile::TempDir;

fn key(text: &str) -> ObjectKey {
    text.try_into().unwrap()
}

async fn open(path: &Path) -> FsTarget {
    let config = FsTargetConfig::default();
    FsTarget::open(path, config).await.unwrap()
}

async fn put(target: &FsTarget, name: &str, body: &[u8]) -> Result<()> {
    let body = Bytes::copy_from_slice(body);
    let put = target.put(&key(name), body, &PutIf::Absent, None).await?;
    put.map(drop)
        .map_err(|refused| Error::invalid_request(refused.to_string()))
}

async fn listed(target: &FsTarget) -> Vec<String> {
    let listed = target.list("", None, usize::MAX).await.unwrap().objects;
    listed.into_iter().map(|info| info.key.into()).collect()
}

#[tokio::test]
async fn only_what_is_wanted_is_created() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("deep/backups");
    let config = FsTargetConfig::default().with_create(false);
    let error = FsTarget::open(&path, config.clone()).await.unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    assert!(!folder.path().join("deep").exists());
    put(&open(&path).await, "a", b"a").await.unwrap();
    let target = FsTarget::open(&path, config).await.unwrap();
    assert_eq!(listed(&target).await, ["a"]);
    assert_eq!(target.path(), path);
    // A file where the folder is to be.
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = FsTarget::open(&file, FsTargetConfig::default()).await;
    assert!(error.is_err(), "{error:?}");
}

#[tokio::test]
async fn who_only_reads_writes_nothing() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("packs")).unwrap();
    fs::write(folder.path().join("packs/one"), "1").unwrap();
    let target = FsTarget::open(folder.path(), FsTargetConfig::default().with_create(false));
    let target = target.await.unwrap();
    assert_eq!(listed(&target).await, ["packs/one"]);
    let one = key("packs/one");
    assert_eq!(target.info(&one).await.unwrap().unwrap().bytes, 1);
    assert_eq!(target.read(&one, 0..1).await.unwrap().unwrap(), "1");
    assert_eq!(target.info(&key("two")).await.unwrap(), None);
    let unfinished = target.remove_unfinished(SystemTime::now()).await.unwrap();
    assert_eq!(unfinished, 0);
    let names = fs::read_dir(folder.path()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["packs"]);
}

#[tokio::test]
async fn everything_is_private() {
    let folder = TempDir::new().unwrap();
    let target = open(&folder.path().join("backups")).await;
    put(&target, "packs/ab/one", b"1").await.unwrap();
    let mut upload = target.upload(&key("packs/ab/two"), None).await.unwrap();
    upload.write(Bytes::from("2")).await.unwrap();
    let unfinished = fs::read_dir(target.path().join(".unfinished")).unwrap();
    for entry in unfinished {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    upload.finish().await.unwrap().unwrap();
    for (path, mode) in [
        ("", 0o700),
        (".unfinished", 0o700),
        (".lock", 0o600),
        ("packs", 0o700),
        ("packs/ab", 0o700),
        ("packs/ab/one", 0o600),
        ("packs/ab/two", 0o600),
    ] {
        let found = fs::metadata(target.path().join(path)).unwrap().mode();
        assert_eq!(found & 0o777, mode, "{path:?}");
    }
}

#[tokio::test]
async fn links_are_not_followed() {
    let folder = TempDir::new().unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let target = open(&folder.path().join("backups")).await;
    put(&target, "own", b"own").await.unwrap();
    symlink(&outside, target.path().join("link")).unwrap();
    symlink(outside.join("secret"), target.path().join("file")).unwrap();
    symlink(outside.join("new"), target.path().join("new")).unwrap();
    assert_eq!(listed(&target).await, ["own"]);
    for name in ["link/secret", "file", "link", "new"] {
        assert_eq!(target.read(&key(name), 0..1).await.unwrap(), None, "{name}");
        assert_eq!(target.info(&key(name)).await.unwrap(), None, "{name}");
        target.remove(&key(name)).await.unwrap().unwrap();
        let error = put(&target, name, b"x").await.unwrap_err();
        assert_eq!(error.retryability(), Retryability::Permanent, "{name}");
    }
    assert!(put(&target, "link/new", b"x").await.is_err());
    let left = fs::read_dir(&outside).unwrap().count();
    assert_eq!(
        (left, fs::read(outside.join("secret")).unwrap()),
        (1, b"secret".to_vec())
    );
    // The root itself may be one.
    symlink(target.path(), folder.path().join("root")).unwrap();
    assert_eq!(
        listed(&open(&folder.path().join("root")).await).await,
        ["own"]
    );
}

#[tokio::test]
async fn what_is_no_object_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let target = open(folder.path()).await;
    for name in ["Upper", "with space", ".hidden", "caf\u{e9}"] {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    fs::create_dir_all(folder.path().join("Folder/deeper")).unwrap();
    fs::write(folder.path().join("Folder/deeper/file"), "x").unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    rustix_fifo(&folder.path().join("pipe"));
    put(&target, "own", b"own").await.unwrap();
    assert_eq!(listed(&target).await, ["own"]);
    assert_eq!(target.read(&key("pipe"), 0..1).await.unwrap(), None);
    assert_eq!(target.info(&key("empty")).await.unwrap(), None);
    let before = SystemTime::now() + Duration::from_secs(3600);
    fs::write(folder.path().join(".unfinished/note"), "x").unwrap();
    assert_eq!(target.remove_unfinished(before).await.unwrap(), 0);
    assert!(folder.path().join(".unfinished/note").exists());
}

fn rustix_fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

#[tokio::test]
async fn a_key_that_continues_an_object_is_refused() {
    let folder = TempDir::new().unwrap();
    let target = open(folder.path()).await;
    put(&target, "a/b", b"x").await.unwrap();
    for name in ["a", "a/b/c", "a/b/c/d"] {
        let error = put(&target, name, b"x").await.unwrap_err();
        assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
        let upload = target.upload(&key(name), None).await.unwrap();
        upload.finish().await.unwrap_err();
        let unchanged = target.info(&key("a/b")).await.unwrap().unwrap().tag;
        let unchanged = PutIf::Unchanged(unchanged);
        let (key, body) = (key(name), Bytes::new());
        let put = target.put(&key, body, &unchanged, None);
        let changed = Refused::Changed { key: key.clone() };
        assert_eq!(put.await.unwrap(), Err(changed), "{name}");
    }
    assert_eq!(listed(&target).await, ["a/b"]);
    // Folders go with their last object.
    target.remove(&key("a/b")).await.unwrap().unwrap();
    put(&target, "a", b"x").await.unwrap();
    assert_eq!(listed(&target).await, ["a"]);
}

#[tokio::test]
async fn a_file_cut_short_is_corrupt() {
    let folder = TempDir::new().unwrap();
    let target = open(folder.path()).await;
    put(&target, "object", &content(1, 0..1_000)).await.unwrap();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(folder.path().join("object"));
    let mut file = file.unwrap();
    let before = target.info(&key("object")).await.unwrap().unwrap();
    file.set_len(500).unwrap();
    let error = target.read(&key("object"), 0..1_000).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    file.write_all(b"other").unwrap();
    drop(file);
    let after = target.info(&key("object")).await.unwrap().unwrap();
    assert_ne!(
        before.tag, after.tag,
        "what was changed behind our back has another tag"
    );
}

#[tokio::test]
async fn whoever_waits_too_long_for_the_lock_is_told() {
    let folder = TempDir::new().unwrap();
    let config = FsTargetConfig::default().with_lock_timeout(Duration::from_millis(50));
    let target = FsTarget::open(folder.path(), config).await.unwrap();
    put(&target, "before", b"x").await.unwrap();
    let lock = fs::File::open(folder.path().join(".lock")).unwrap();
    lock.lock().unwrap();
    for error in [
        put(&target, "object", b"x").await.unwrap_err(),
        target.remove(&key("before")).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Overloaded { .. }), "{error:?}");
    }
    // Readers don't wait.
    assert_eq!(listed(&target).await, ["before"]);
    drop(lock);
    put(&target, "object", b"x").await.unwrap();
    assert_eq!(
        fs::read_dir(folder.path().join(".unfinished"))
            .unwrap()
            .count(),
        0
    );
}

/// A full disk: `Full`, nothing is seen, nothing is left, and it goes on when there is room.
#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let Some(disk) = SmallDisk::new("16m") else {
        use std::io::Write;
        let mut error = std::io::stderr();
        writeln!(
            error,
            "skipped: a_full_disk_loses_nothing: this process may not mount"
        )
        .unwrap();
        return;
    };
    let target = open(&disk.path().join("backups")).await;
    let kept = content(1, 0..1_000_000);
    put(&target, "kept", &kept).await.unwrap();
    let large = content(2, 0..17 << 20);
    let error = put(&target, "large", &large).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    let mut upload = target.upload(&key("upload"), None).await.unwrap();
    let mut failed = None;
    for part in 0..17 {
        let piece = large.slice(part << 20..(part + 1) << 20);
        if let Err(error) = upload.write(piece).await {
            failed = Some(error);
            break;
        }
    }
    let error = failed.expect("it does not fit");
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(upload.write(Bytes::from("more")).await.is_err());
    assert!(upload.finish().await.is_err());
    assert_eq!(listed(&target).await, ["kept"]);
    let unfinished = disk.path().join("backups/.unfinished");
    assert_eq!(fs::read_dir(&unfinished).unwrap().count(), 0);
    // Not even an empty file, or a folder.
    disk.fill(65_536);
    for name in ["tiny", "new/folder/tiny"] {
        let error = put(&target, name, &[7; 100_000]).await.unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error:?}");
    }
    assert_eq!(listed(&target).await, ["kept"]);
    assert_eq!(
        target.read(&key("kept"), 0..1_000_000).await.unwrap(),
        Some(kept)
    );
    // What is there can be removed, and makes room.
    target.remove(&key("kept")).await.unwrap().unwrap();
    put(&target, "new/folder/tiny", &[7; 100_000])
        .await
        .unwrap();
    disk.make_room();
    put(&target, "large", &large.slice(..8 << 20))
        .await
        .unwrap();
    assert_eq!(listed(&target).await, ["large", "new/folder/tiny"]);
}

#[tokio::test]
async fn a_dropped_write_ends_the_upload() {
    let folder = TempDir::new().unwrap();
    let target = open(folder.path()).await;
    let mut upload = target.upload(&key("object"), None).await.unwrap();
    let body = content(1, 0..50_000_000);
    let write = tokio::time::timeout(Duration::from_micros(1), upload.write(body));
    if write.await.is_err() {
        // Until the work that was left behind is done nothing can be said; then it is whole, or the upload is over.
        let finished = upload.finish().await;
        if let Ok(info) = finished {
            assert_eq!(info.unwrap().bytes, 50_000_000);
        } else {
            assert_eq!(listed(&target).await, [] as [String; 0]);
        }
    }
}

/// A range is read into memory; its length is the caller's, but bounded by the object's.
#[tokio::test]
async fn a_huge_range_is_refused_before_memory_is_taken() {
    let folder = TempDir::new().unwrap();
    let target = open(folder.path()).await;
    put(&target, "object", b"x").await.unwrap();
    let error = target.read(&key("object"), 0..u64::MAX).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
}

#[test]
fn settings_read_as_documented() {
    let defaults = FsTargetConfig::default();
    assert_eq!(
        serde_json::from_str::<FsTargetConfig>("{}").unwrap(),
        defaults
    );
    let json = r#"{ "create": false, "lock_timeout": "5s" }"#;
    let read: FsTargetConfig = serde_json::from_str(json).unwrap();
    let built = defaults
        .clone()
        .with_create(false)
        .with_lock_timeout(Duration::from_secs(5));
    assert_eq!(read, built);
    assert!(serde_json::from_str::<FsTargetConfig>(r#"{ "creat": true }"#).is_err());
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
