//! Trees that are backed up, restored, and compared by means of their own: `find` and `sha256sum`, not the code that wrote
//! them.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

#[path = "trees/drills.rs"]
mod drills;
#[path = "trees/hostile.rs"]
mod hostile;
#[path = "trees/kills.rs"]
mod kills;
#[path = "trees/streamed.rs"]
mod streamed;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use groundtackle_backup::{
    BackUp, CheckDepth, DataKey, Error, HexBytes, KeyUnwrapping, KeyWrapping, Manifest,
    MemoryTarget, PruneOptions, PutIf, Repository, Result, SigningKey, SystemClock, SystemEntropy,
    Target, TreeAt, WrappedKey,
};
use groundtackle_backup_files::{FilesBackup, FilesConfig, Made, RestoreOptions, restore};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use tempfile::TempDir;

/// Opens nothing but what was wrapped under its name.
#[derive(Debug)]
struct Named(&'static str);

impl KeyWrapping for Named {
    fn wrap(&self, key: &DataKey) -> Result<WrappedKey> {
        Ok(WrappedKey {
            scheme: "test".into(),
            recipients: vec![self.0.into()],
            blob: HexBytes(key.expose().iter().rev().copied().collect()),
        })
    }
}

impl KeyUnwrapping for Named {
    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Option<DataKey>> {
        let mut key: [u8; 32] = wrapped.blob.0.clone().try_into().unwrap();
        key.reverse();
        let mine = wrapped.recipients == [self.0];
        Ok(mine.then(|| DataKey::from_bytes(key)))
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap()
}

struct Place {
    folder: TempDir,
    target: MemoryTarget,
    repository: Repository,
    signer: SigningKey,
}

impl Place {
    async fn new() -> Self {
        let target = MemoryTarget::new();
        let signer = SigningKey::random(&SystemEntropy).unwrap();
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let shared = Arc::new(target.clone());
        let made = Repository::init(shared, "main", &signer, clock, entropy);
        Self {
            folder: TempDir::new().unwrap(),
            repository: made.await.unwrap(),
            target,
            signer,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> FilesConfig {
        FilesConfig::new(self.path("tree")).with_state(self.path("state"))
    }

    async fn back_up(&self, config: FilesConfig) -> Result<Made> {
        let how = BackUp {
            stream: "files",
            wrapping: &Named("reader"),
            signer: &self.signer,
            workers: 2,
        };
        let backup = FilesBackup::new(config)?;
        backup.back_up(&self.repository, &how, false).await
    }

    async fn restore(&self, point: &Manifest, into: &Path) -> Result<u64> {
        let options = RestoreOptions::default();
        let restored = restore(&self.repository, point, &Named("reader"), into, options).await?;
        Ok(restored.entries)
    }

    /// Restored, it is what `find` and `sha256sum` said of it then.
    async fn assert_restores(&self, point: &Manifest, as_it_was: &BTreeSet<String>) {
        let into = self.path("restored");
        self.restore(point, &into).await.unwrap();
        let found = shown(&into);
        let missing: Vec<_> = as_it_was.difference(&found).take(5).collect();
        let more: Vec<_> = found.difference(as_it_was).take(5).collect();
        assert!(found == *as_it_was, "{missing:#?} {more:#?}");
        fs::remove_dir_all(into).unwrap();
    }

    async fn bytes_of(&self, prefix: &str) -> u64 {
        let listing = self.target.list(prefix, None, usize::MAX).await.unwrap();
        listing.objects.iter().map(|info| info.bytes).sum()
    }
}

fn output(command: &mut Command) -> Vec<u8> {
    let output = command.env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output.stdout
}

/// All that `find` says of a tree, what `sha256sum` says of its files, and their attributes.
fn shown(tree: &Path) -> BTreeSet<String> {
    // Kind, mode, owner, group, time, names that it has, where it leads to, path.
    let format = "%y\\t%m\\t%U\\t%G\\t%T@\\t%n\\t%l\\t%P\\0";
    let mut find = Command::new("find");
    let listed = output(find.arg(tree).args(["!", "-type", "s", "-printf", format]));
    let mut all = BTreeSet::new();
    for line in listed
        .split(|byte| *byte == 0)
        .filter(|line| !line.is_empty())
    {
        let mut fields: Vec<_> = line.splitn(8, |byte| *byte == b'\t').collect();
        let name = fields[7];
        // A directory's own names count what is in it; sockets do not come back, and are in none.
        if fields[0] == b"d" {
            fields[5] = b"";
        }
        let text = fields.join(&b' ').escape_ascii().to_string();
        all.insert(format!("entry {text}"));
        let path = tree.join(OsStr::from_bytes(name));
        let found = fs::symlink_metadata(&path).unwrap();
        let mut buffer = [0; 1 << 16];
        let names = rustix::fs::llistxattr(&path, &mut buffer[..]).unwrap_or(0);
        let names = buffer[..names].to_vec();
        for attribute in names.split(|byte| *byte == 0) {
            if let Ok(count) = rustix::fs::lgetxattr(&path, attribute, &mut buffer[..]) {
                let (attribute, value) = (attribute.escape_ascii(), buffer[..count].escape_ascii());
                all.insert(format!("{} {attribute} {value}", name.escape_ascii()));
            }
        }
        if found.is_file() {
            let sizes = format!("{} {} bytes", name.escape_ascii(), found.len());
            all.insert(sizes);
            if found.nlink() > 1 {
                // Which names are of one file.
                let mut find = Command::new("find");
                let same = find
                    .arg(tree)
                    .arg("-samefile")
                    .arg(&path)
                    .args(["-printf", "%P "]);
                let mut same: Vec<_> = output(same)
                    .escape_ascii()
                    .to_string()
                    .split(' ')
                    .map(String::from)
                    .collect();
                same.sort();
                all.insert(format!("one file: {same:?}"));
            }
        }
    }
    let mut find = Command::new("find");
    let sums = find.args([".", "-type", "f", "-exec", "sha256sum", "--zero", "{}", "+"]);
    let sums = output(sums.current_dir(tree));
    all.extend(
        sums.split(|byte| *byte == 0)
            .map(|line| line.escape_ascii().to_string()),
    );
    all
}

/// The same bytes for the same seed, which nothing compresses.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut reader = blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof();
    let mut bytes = vec![0; count];
    reader.fill(&mut bytes);
    bytes
}

fn set_mtime(path: &Path, seconds: i64, nanos: u32) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// One of each kind.
fn odd_tree(tree: &Path) {
    fs::create_dir_all(tree.join("a/deep/er")).unwrap();
    fs::create_dir(tree.join("empty")).unwrap();
    fs::write(tree.join("a/file"), b"some text").unwrap();
    fs::write(tree.join("a/nothing"), b"").unwrap();
    fs::write(tree.join("a/large"), noise(1, 9_000_001)).unwrap();
    fs::write(tree.join(OsStr::from_bytes(b"no \xff\xfe UTF-8\n\t")), b"x").unwrap();
    fs::write(tree.join("a-b"), b"between a and a/").unwrap();
    fs::hard_link(tree.join("a/large"), tree.join("a/deep/same")).unwrap();
    fs::hard_link(tree.join("a/large"), tree.join("same")).unwrap();
    symlink("../nowhere", tree.join("a/dangling")).unwrap();
    symlink(OsStr::from_bytes(b"deep/\xf0"), tree.join("a/to")).unwrap();
    fs::hard_link(tree.join("a/to"), tree.join("a/deep/to")).unwrap();
    symlink("a", tree.join("directory")).unwrap();
    rustix::fs::mknodat(CWD, tree.join("fifo"), FileType::Fifo, Mode::from(0o640), 0).unwrap();
    UnixListener::bind(tree.join("socket")).unwrap();
    // Holes at the beginning, in the middle and at the end.
    let sparse = File::create(tree.join("sparse")).unwrap();
    sparse.write_all_at(&noise(2, 100_000), 40 << 20).unwrap();
    sparse.write_all_at(&noise(3, 100_000), 80 << 20).unwrap();
    sparse.set_len(200 << 20).unwrap();
    File::create(tree.join("hole"))
        .unwrap()
        .set_len(10 << 20)
        .unwrap();

    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        for kind in [FileType::BlockDevice, FileType::CharacterDevice] {
            let device = rustix::fs::makedev(1, 3);
            let path = tree.join(format!("{kind:?}"));
            let made = rustix::fs::mknodat(CWD, &path, kind, Mode::from(0o600), device);
            if let Err(error) = made {
                println!("skipped: {kind:?} can't be made here: {error}");
            }
        }
        std::os::unix::fs::chown(tree.join("a/file"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::lchown(tree.join("directory"), Some(99), Some(98)).unwrap();
        std::os::unix::fs::chown(tree.join("empty"), Some(77), Some(78)).unwrap();
    }
    let set = |name: &str, attribute: &str, value: &[u8]| {
        let set = rustix::fs::setxattr(tree.join(name), attribute, value, XattrFlags::empty());
        if let Err(error) = set {
            println!("skipped: {attribute} can't be set here: {error}");
        }
    };
    set("a/file", "user.note", b"of a \0 file");
    set("a", "user.note", b"");
    // An access control list: version 2; user 1000 may read. The mode's group bits become its mask.
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1_u16, 6_u16, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    set("a/file", "system.posix_acl_access", &list);
    set("a/deep", "system.posix_acl_default", &list);
    let mode = |name: &str, mode| {
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("a/large", 0o4755);
    mode("a/nothing", 0o000);
    mode("empty", 0o1777);
    mode("a/deep/er", 0o2555);
    set_mtime(&tree.join("a/file"), -1, 999_999_999);
    set_mtime(&tree.join("directory"), 1_000_000_000, 1);
    set_mtime(&tree.join("fifo"), 5_000_000_000, 123_456_789);
    set_mtime(&tree.join("a/deep"), 1, 2);
    set_mtime(tree, 3, 4);
}

#[test]
fn a_tree_comes_back_as_it_was() {
    runtime().block_on(async {
        let place = Place::new().await;
        let tree = place.path("tree");
        fs::create_dir(&tree).unwrap();
        odd_tree(&tree);
        let as_it_was = shown(&tree);
        let made = place.back_up(place.config()).await.unwrap();
        assert_eq!(made.notes.len(), 1, "{:?}", made.notes);
        assert!(made.notes[0].contains("is a socket"), "{:?}", made.notes);
        place.assert_restores(&made.manifest, &as_it_was).await;

        let into = place.path("again");
        // An empty directory will do.
        fs::create_dir(&into).unwrap();
        let entries = place.restore(&made.manifest, &into).await.unwrap();
        assert_eq!(
            entries,
            as_it_was
                .iter()
                .filter(|line| line.starts_with("entry "))
                .count() as u64
        );
        for name in ["sparse", "hole"] {
            let blocks = |tree: &Path| fs::metadata(tree.join(name)).unwrap().blocks();
            assert!(
                blocks(&into) <= blocks(&tree) + 64,
                "{name} has holes: {}",
                blocks(&into)
            );
        }
        // What can't be replaced is not touched.
        for (there, why) in [
            ("again", "not empty"),
            ("tree/a/file", "no directory"),
            ("tree/directory", "no directory"),
        ] {
            let refused = place.restore(&made.manifest, &place.path(there)).await;
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        assert_eq!(shown(&tree), as_it_was);

        let config = place.config().with_exclude([
            "a/**/same".into(),
            "s*".into(),
            "empty".into(),
            "*/large".into(),
        ]);
        let without = place.back_up(config).await.unwrap().manifest;
        let into = place.path("without");
        place.restore(&without, &into).await.unwrap();
        for gone in ["a/large", "a/deep/same", "same", "sparse", "empty"] {
            assert!(fs::symlink_metadata(into.join(gone)).is_err(), "{gone}");
        }
        assert!(into.join("a/deep/er").is_dir() && into.join("a/file").is_file());
        for glob in ["/a", "a/", "[", "a**"] {
            let refused = place
                .back_up(place.config().with_exclude([glob.into()]))
                .await;
            assert!(
                refused.unwrap_err().to_string().contains("is no glob"),
                "{glob}"
            );
        }
    });
}

#[test]
fn a_hundred_thousand_files_come_back() {
    runtime().block_on(async {
        let place = Place::new().await;
        let tree = place.path("tree");
        for folder in 0..100 {
            let folder = tree.join(format!("{folder}"));
            fs::create_dir_all(&folder).unwrap();
            for file in 0..1_000_u64 {
                fs::write(folder.join(format!("file {file}")), file.to_le_bytes()).unwrap();
            }
        }
        let as_it_was = shown(&tree);
        let first = place.back_up(place.config()).await.unwrap();
        assert_eq!(first.files_read, 100_000);
        assert!(matches!(
            first.manifest.content,
            groundtackle_backup::Content::Tree {
                entries: 100_101,
                bytes: 800_000,
                ..
            }
        ));
        place.assert_restores(&first.manifest, &as_it_was).await;
        // One of them changes: that, and the part of the listing that has it.
        let before = place.bytes_of("").await;
        fs::write(tree.join("50/file 500"), b"changed").unwrap();
        let as_it_is = shown(&tree);
        let second = place.back_up(place.config()).await.unwrap();
        let added = place.bytes_of("").await - before;
        println!(
            "100,000 files: {before} bytes; one changed: {added} more, {} files read",
            second.files_read
        );
        assert!(added < before / 10, "{added} of {before}");
        place.assert_restores(&second.manifest, &as_it_is).await;
    });
}

#[test]
fn only_what_changed_is_added_and_kept_as_long_as_it_is_used() {
    runtime().block_on(async {
        let place = Place::new().await;
        let tree = place.path("tree");
        fs::create_dir(&tree).unwrap();
        for number in 0..4 {
            fs::write(tree.join(format!("{number}")), noise(number, 8 << 20)).unwrap();
        }
        let config = || place.config().with_read_all(true);
        let mut versions = Vec::new();
        let first = place.back_up(config()).await.unwrap();
        assert!(first.new_bytes > 32 << 20);
        versions.push((first.manifest, shown(&tree)));
        // A byte in the middle of one, bytes put in front of another, and a new name of a third.
        let mut bytes = noise(0, 8 << 20);
        bytes[4 << 20] ^= 1;
        fs::write(tree.join("0"), &bytes).unwrap();
        fs::write(
            tree.join("1"),
            [&b"in front"[..], &noise(1, 8 << 20)].concat(),
        )
        .unwrap();
        fs::rename(tree.join("2"), tree.join("renamed")).unwrap();
        let before = place.bytes_of("").await;
        let second = place.back_up(config()).await.unwrap();
        let added = place.bytes_of("").await - before;
        println!("32 MiB: {before} bytes; two of four files changed: {added} more");
        assert!(added < 6 << 20 && second.new_bytes < 6 << 20, "{added}");
        assert_eq!(second.manifest.content.uses().len(), 1);
        versions.push((second.manifest, shown(&tree)));
        let third = place.back_up(place.config()).await.unwrap();
        assert!(third.new_bytes < 1 << 20, "{}", third.new_bytes);
        versions.push((third.manifest, shown(&tree)));
        for (manifest, as_it_was) in &versions {
            place.assert_restores(manifest, as_it_was).await;
        }
        // The first two go, but for what the third has of them.
        let names = [versions[0].0.point, versions[1].0.point];
        place
            .repository
            .forget(&names, &place.signer)
            .await
            .unwrap();
        let options = PruneOptions::new()
            .with_grace(std::time::Duration::ZERO)
            .nobody_else_writes();
        let pruned = place.repository.prune(&options).await.unwrap();
        assert_eq!((pruned.points, pruned.needed), (0, 2));
        let (last, as_it_was) = &versions[2];
        place.assert_restores(last, as_it_was).await;
        let points = place.repository.points().await.unwrap();
        assert_eq!(points.tree("files", TreeAt::Latest).unwrap(), last);
        assert_eq!(points.needs(last).unwrap().len(), 3);
        // What it has of forgotten ones can be used again; a forgotten one is nothing to go on from.
        let fourth = place.back_up(config()).await.unwrap();
        assert!(fourth.new_bytes < 1 << 20, "{}", fourth.new_bytes);
        place.assert_restores(&fourth.manifest, as_it_was).await;
        place
            .repository
            .forget(&[fourth.manifest.point], &place.signer)
            .await
            .unwrap();
        let fifth = place.back_up(config()).await.unwrap();
        assert!(fifth.new_bytes > 32 << 20 && fifth.manifest.content.uses().is_empty());
        // A state that is damaged is none.
        let mut state = fs::read(place.path("state")).unwrap();
        let middle = state.len() / 2;
        state[middle] ^= 4;
        fs::write(place.path("state"), state).unwrap();
        let sixth = place.back_up(config()).await.unwrap();
        assert!(sixth.new_bytes > 32 << 20);
        let seventh = place.back_up(config()).await.unwrap();
        assert!(seventh.new_bytes < 1 << 20);
        // Nor is one whose packs are gone.
        for pack in &sixth.manifest.packs {
            let key = groundtackle_backup::Pack::key(&pack.id).unwrap();
            place.target.remove(&key).await.unwrap().unwrap();
        }
        let eighth = place.back_up(config()).await.unwrap();
        assert!(eighth.manifest.content.uses().is_empty());
        place.assert_restores(&eighth.manifest, as_it_was).await;
    });
}

#[test]
fn a_file_that_never_holds_still_fails_the_backup_by_its_name() {
    runtime().block_on(async {
        let place = Place::new().await;
        let tree = place.path("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a"), b"still").unwrap();
        fs::write(tree.join("busy"), noise(1, 16 << 20)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (tree.join("busy"), stop.clone());
        let writer = thread::spawn(move || {
            let file = File::options().write(true).open(path).unwrap();
            let mut number = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                number += 1;
                file.write_all_at(&number.to_le_bytes(), 8 << 20).unwrap();
            }
        });
        let failed = place.back_up(place.config()).await.unwrap_err();
        assert!(
            matches!(&failed, Error::Incomplete { detail } if detail.starts_with("busy changed")),
            "{failed:?}"
        );
        assert!(place.repository.points().await.unwrap().usable.is_empty());
        let torn = place
            .back_up(place.config().with_torn(["bus?".into()]))
            .await;
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        let torn = torn.unwrap();
        place
            .restore(&torn.manifest, &place.path("torn"))
            .await
            .unwrap();
        assert_eq!(
            fs::metadata(place.path("torn/busy")).unwrap().len(),
            16 << 20
        );
        // Not taken for what it was then.
        let still = place.back_up(place.config()).await.unwrap();
        place.assert_restores(&still.manifest, &shown(&tree)).await;
    });
}

#[test]
fn no_flipped_bit_comes_back() {
    runtime().block_on(async {
        let place = Place::new().await;
        let tree = place.path("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a"), noise(1, 60_000)).unwrap();
        fs::write(tree.join("text"), "text ".repeat(3_000)).unwrap();
        place.back_up(place.config()).await.unwrap();
        fs::write(tree.join("b"), noise(2, 60_000)).unwrap();
        let second = place.back_up(place.config()).await.unwrap().manifest;
        assert_eq!(second.content.uses().len(), 1);
        let as_it_was = shown(&tree);
        let wrong = restore(
            &place.repository,
            &second,
            &Named("somebody else"),
            &place.path("wrong"),
            RestoreOptions::default(),
        )
        .await;
        assert!(matches!(wrong, Err(Error::WrongKey { .. })), "{wrong:?}");
        assert!(!place.path("wrong").exists());
        let mut silent = 0;
        for info in place
            .target
            .list("p", None, usize::MAX)
            .await
            .unwrap()
            .objects
        {
            let body = place
                .target
                .read(&info.key, 0..info.bytes)
                .await
                .unwrap()
                .unwrap();
            for step in 0..40 {
                let at = (step * 7_919 + 13) % (info.bytes * 8);
                let mut bad = body.to_vec();
                bad[(at / 8) as usize] ^= 1 << (at % 8);
                place.target.remove(&info.key).await.unwrap().unwrap();
                let put = place
                    .target
                    .put(&info.key, bad.into(), &PutIf::Absent, None);
                put.await.unwrap().unwrap();
                let points = place.repository.points().await.unwrap();
                let mut found = !points.unusable.is_empty();
                for point in &points.usable {
                    let depth = CheckDepth::Read(&Named("reader"));
                    found |= place.repository.check(point, depth, 1).await.is_err();
                }
                let into = place.path("flipped");
                match place.restore(&second, &into).await {
                    // A bit that says nothing, as a hint in an index.
                    Ok(_) => assert_eq!(shown(&into), as_it_was),
                    Err(_) => assert!(!into.exists(), "{at} of {}", info.key),
                }
                fs::remove_dir_all(&into).ok();
                // What a signature does not cover in its envelope says nothing: who is said to have signed.
                silent += u32::from(!found && info.key.as_str().starts_with("packs/"));
            }
            place.target.remove(&info.key).await.unwrap().unwrap();
            let put = place.target.put(&info.key, body, &PutIf::Absent, None);
            put.await.unwrap().unwrap();
        }
        assert_eq!(silent, 0, "a check finds each in a pack");
        place.assert_restores(&second, &as_it_was).await;
    });
}
