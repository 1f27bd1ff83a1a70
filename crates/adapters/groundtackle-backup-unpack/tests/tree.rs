//! Trees of files that `groundtackle-backup-files` wrote, read without it.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use groundtackle_backup::{
    BackUp, MemoryTarget, Repository as Engine, SigningKey, SystemClock, SystemEntropy, Target,
    TreeAt, Trust,
};
use groundtackle_backup_age::{AgeIdentities, AgeRecipients};
use groundtackle_backup_files::{FilesBackup, FilesConfig, RestoreOptions, restore};
use groundtackle_backup_fs::{FsTarget, FsTargetConfig};
use groundtackle_backup_unpack::{Error, Hex, Identities, Repository};
use groundtackle_core::Secret;
use tempfile::TempDir;

/// Of nothing else.
const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

/// What `find` and `sha256sum` say.
fn shown(tree: &Path) -> BTreeSet<String> {
    let format = "%P %y %m %U %G %T@ %l %b\\n";
    let find = [
        "find . -printf '",
        format,
        "' && find . -type f -exec sha256sum {} +",
    ]
    .concat();
    let output = Command::new("sh")
        .args(["-c", &find])
        .current_dir(tree)
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    // Blocks of directories are the file system's matter.
    let lines = text.lines().map(|line| match line.contains(" d ") {
        true => line.rsplit_once(' ').unwrap().0.to_owned(),
        false => line.to_owned(),
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_of_the_engine_are_read() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tree = at("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    let mut noise = vec![0; 6_000_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    fs::write(tree.join("a/large"), &noise).unwrap();
    fs::write(tree.join("a/text"), "text ".repeat(100_000)).unwrap();
    fs::hard_link(tree.join("a/large"), tree.join("a/b/same")).unwrap();
    symlink("../nowhere", tree.join("a/link")).unwrap();
    let sparse = File::create(tree.join("sparse")).unwrap();
    sparse.write_all_at(b"middle", 5_000_000).unwrap();
    sparse.set_len(9_000_000).unwrap();
    drop(sparse);
    fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o1750)).unwrap();

    let target = MemoryTarget::new();
    let signer = SigningKey::random(&SystemEntropy).unwrap();
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let engine = Engine::init(Arc::new(target.clone()), "main", &signer, clock, entropy);
    let engine = engine.await.unwrap();
    let recipients = AgeRecipients::new(&[RECIPIENT.to_owned()]).unwrap();
    let how = BackUp {
        stream: "files",
        wrapping: &recipients,
        signer: &signer,
        workers: 2,
    };
    let backup = FilesBackup::new(FilesConfig::new(&tree).with_state(at("state"))).unwrap();
    let first = backup.back_up(&engine, &how, false).await.unwrap().manifest;
    let as_it_was = shown(&tree);
    noise[3_000_000] ^= 1;
    fs::write(tree.join("a/large"), &noise).unwrap();
    let second = backup.back_up(&engine, &how, false).await.unwrap().manifest;
    assert_eq!(second.content.uses().len(), 1);

    let repository = at("repository");
    for info in target.list("", None, usize::MAX).await.unwrap().objects {
        let path = repository.join(info.key.as_str());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let body = target
            .read(&info.key, 0..info.bytes)
            .await
            .unwrap()
            .unwrap();
        fs::write(path, body).unwrap();
    }
    fs::write(at("identity"), IDENTITY).unwrap();
    let identities = Identities::read(&at("identity")).unwrap();
    let trust = Hex(signer.public().0);
    let open = || Repository::open(&repository, &[trust]).unwrap();
    assert!(
        open().points()[1]
            .to_string()
            .contains("tree entries 8 bytes")
    );
    let sums = open()
        .unpack_tree(None, None, &identities, &at("latest"))
        .unwrap();
    assert_eq!(sums, (8, 6_000_000 + 500_000 + 9_000_000));
    assert_eq!(shown(&at("latest")), shown(&tree));
    assert_eq!(fs::metadata(at("latest/a/b/same")).unwrap().nlink(), 2);
    let name = Hex(first.point.0);
    open()
        .unpack_tree(Some("files"), Some(&name), &identities, &at("first"))
        .unwrap();
    assert_eq!(shown(&at("first")), as_it_was);

    let again = open().unpack_tree(None, None, &identities, &at("first"));
    assert!(matches!(again, Err(Error::InvalidRequest(_))), "{again:?}");
    let none = open().unpack_tree(Some("other"), None, &identities, &at("none"));
    assert!(matches!(none, Err(Error::Unreachable(_))), "{none:?}");
    // A pack that only the first one names is needed by the second as well.
    let id = first.packs[0].id;
    let pack = repository.join(groundtackle_backup::Pack::key(&id).unwrap().as_str());
    let mut bytes = fs::read(&pack).unwrap();
    bytes[1_000] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let damaged = open().unpack_tree(None, None, &identities, &at("damaged"));
    assert!(matches!(damaged, Err(Error::Damaged(..))), "{damaged:?}");
    assert!(!at("damaged").exists());
}

/// `tests/golden/tree`: restore points of a tree, the second one of which uses segments of the first. Written once.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// The same without blocks, which are the file system's matter as well.
fn shown_anywhere(tree: &Path) -> BTreeSet<String> {
    let lines = shown(tree).into_iter();
    let lines = lines.map(|line| match line.contains(" d ") || line.contains("  ./") {
        true => line,
        false => line.rsplit_once(' ').unwrap().0.to_owned(),
    });
    lines.collect()
}

/// With `UPDATE=1`, where it is not there yet. Never over what is: it is there to stay.
async fn make_golden() {
    if std::env::var_os("UPDATE").is_none() || golden("tree").exists() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("folder/below")).unwrap();
    let mut noise = vec![0; 40_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    fs::write(tree.join("folder/file"), &noise).unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    fs::write(tree.join("text"), "the first one\n").unwrap();
    fs::hard_link(tree.join("text"), tree.join("folder/same text")).unwrap();
    symlink("../nowhere", tree.join("folder/link")).unwrap();
    let sparse = File::create(tree.join("sparse")).unwrap();
    sparse.write_all_at(b"middle", 500_000).unwrap();
    sparse.set_len(900_000).unwrap();
    drop(sparse);
    fs::set_permissions(
        tree.join("folder/below"),
        fs::Permissions::from_mode(0o1750),
    )
    .unwrap();

    let signer = SigningKey::random(&SystemEntropy).unwrap();
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let config = FsTargetConfig::default().with_create(true);
    let target = FsTarget::open(golden("tree"), config).await.unwrap();
    let engine = Engine::init(Arc::new(target), "main", &signer, clock, entropy);
    let engine = engine.await.unwrap();
    let recipients = AgeRecipients::new(&[RECIPIENT.to_owned()]).unwrap();
    let how = BackUp {
        stream: "files",
        wrapping: &recipients,
        signer: &signer,
        workers: 1,
    };
    let state = folder.path().join("state");
    let backup = FilesBackup::new(FilesConfig::new(&tree).with_state(state)).unwrap();
    let mut text = format!("trust {}\n", signer.public());
    for later in [false, true] {
        if later {
            fs::write(tree.join("text"), "the second one\n").unwrap();
            fs::remove_file(tree.join("empty")).unwrap();
        }
        let made = backup.back_up(&engine, &how, false).await.unwrap();
        assert_eq!(made.manifest.content.uses().len(), usize::from(later));
        text += &format!("point {}\n", made.manifest.point);
        for line in shown_anywhere(&tree) {
            text += &format!("{line}\n");
        }
    }
    fs::write(golden("tree.txt"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_golden_tree_is_read_by_both() {
    make_golden().await;
    let text = fs::read_to_string(golden("tree.txt")).unwrap();
    let (trust, points) = text.split_once('\n').unwrap();
    let trust: Hex<32> = Hex::try_from(trust.replace("trust ", "")).unwrap();
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: the golden tree is root's, and nobody else can restore its owners");
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("identity"), IDENTITY).unwrap();
    let identities = Identities::read(&at("identity")).unwrap();
    let open = || Repository::open(golden("tree"), &[trust]).unwrap();
    let target = FsTarget::open(golden("tree"), FsTargetConfig::default())
        .await
        .unwrap();
    let trusted = Trust::new([groundtackle_backup::Hex(trust.0)]).unwrap();
    let engine = Engine::open(Arc::new(target), trusted).await.unwrap();
    let found = engine.points().await.unwrap();
    let keys = AgeIdentities::new([Secret::from(IDENTITY)]).unwrap();
    let mut read = 0;
    for point in points.split("point ").filter(|point| !point.is_empty()) {
        let (name, lines) = point.split_once('\n').unwrap();
        let wanted: BTreeSet<_> = lines.lines().map(str::to_owned).collect();
        assert!(wanted.len() > 10, "{wanted:?}");
        let (one, other) = (at(&format!("{name}-1")), at(&format!("{name}-2")));
        let name = Hex::try_from(name.to_owned()).unwrap();
        open()
            .unpack_tree(None, Some(&name), &identities, &one)
            .unwrap();
        assert_eq!(shown_anywhere(&one), wanted);
        let point = TreeAt::Point(groundtackle_backup::Hex(name.0));
        let point = found.tree("files", point).unwrap();
        let options = RestoreOptions::default();
        restore(&engine, point, &keys, &other, options)
            .await
            .unwrap();
        assert_eq!(shown_anywhere(&other), wanted);
        read += 1;
    }
    assert_eq!(read, 2);
}
