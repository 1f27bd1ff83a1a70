//! Snapshots: known files, every bad one, and what is cut off.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::fs;
use std::future::poll_fn;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;

use groundtackle_chain::BlockHash;
use groundtackle_utxo_store::snapshot::{
    ExpectedDigest, ImportOptions, SnapshotFile, SnapshotStep, import_snapshot,
};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{Place, Ran, answers, command, data, ops, signal};

const WAY_OUT: &str = "what to do";

/// `ops snapshot NAME --json --store URL --file FILE ARGS`.
fn snapshot(name: &str, url: &str, file: &str, args: &[&str]) -> Ran {
    let first = ["snapshot", name, "--json", "--store", url, "--file", file];
    ops(&[&first[..], args].concat())
}

/// A store at a height, its snapshot, and a place for another store.
struct Exported {
    place: Place,
    file: String,
    other: Place,
    answer: Value,
}

impl Exported {
    fn at(height: u32) -> Self {
        let place = Place::new();
        place.sync_to(height);
        let file = text(place.file("utxo.dat"));
        let answer = snapshot("export", &place.url(), &file, &[])
            .exits(0)
            .answer();
        Self {
            place,
            file,
            other: Place::new(),
            answer,
        }
    }

    fn import(&self, args: &[&str]) -> Ran {
        snapshot("import", &self.other.url(), &self.file, args)
    }

    fn muhash(&self) -> &str {
        self.answer["muhash"].as_str().unwrap()
    }

    /// There is no other store, or it is as empty as a new one.
    #[track_caller]
    fn left_untouched(&self) {
        let ran = self.other.utxo("stats", &[]);
        if ran.code != Some(66) {
            let stats = ran.exits(0).answer();
            assert_eq!(
                (&stats["height"], &stats["txouts"]),
                (&Value::Null, &json!(0))
            );
        }
    }
}

fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().unwrap()
}

#[test]
fn each_known_height_is_exported_and_imported() {
    let known: Value =
        serde_json::from_str(&fs::read_to_string(data().join("answers.json")).unwrap()).unwrap();
    let place = Place::new();
    for (height, stats) in answers() {
        place.sync_to(height);
        let file = text(place.file("utxo.dat"));
        let exported = snapshot("export", &place.url(), &file, &["--replace"]);
        let exported = exported.exits(0).answer();
        let bytes = fs::read(&file).unwrap();
        let sha256: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(sha256, known[height.to_string()]["dumptxoutset_sha256"]);
        assert_eq!(exported["bytes"], bytes.len());

        let other = Place::new();
        let digest = stats["muhash"].as_str().unwrap();
        let args = ["--expect-muhash", digest];
        let imported = snapshot("import", &other.url(), &file, &args);
        let imported = imported.exits(0).answer();
        for answer in [&exported, &imported] {
            for key in [
                "height",
                "bestblock",
                "transactions",
                "txouts",
                "muhash",
                "hash_serialized_3",
            ] {
                assert_eq!(answer[key], stats[key], "{key} at height {height}");
            }
        }
        assert_eq!(other.stats(), stats);
        // Blocks go on from there.
        if height == 299 {
            other.sync_to(599);
            assert_eq!(other.stats(), answers()[&599]);
        }
    }
}

#[test]
fn people_get_a_figure_a_line() {
    let exported = Exported::at(9);
    let digest = exported.answer["hash_serialized_3"].as_str().unwrap();
    let ran = ops(&[
        "snapshot",
        "import",
        "--store",
        "memory:",
        "--file",
        &exported.file,
        "--expect-hash-serialized-3",
        digest,
    ])
    .exits(0);
    for line in [
        "height             9",
        "txouts             9",
        "txouts_before      0",
        "muhash             a9c5896f35c8b97a",
        "hash_serialized_3  7d6bc9a5866bdd81",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {ran:#?}");
    }
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_digest_must_be_given_and_right() {
    let exported = Exported::at(170);
    exported
        .import(&[])
        .exits(2)
        .says(&["no digest is built in", WAY_OUT, "--expect-muhash"]);
    for flag in ["--expect-muhash", "--expect-hash-serialized-3"] {
        let wrong = "7".repeat(64);
        exported.import(&[flag, &wrong]).exits(65).says(&[
            &exported.file,
            &wrong,
            "nothing was written",
        ]);
        exported.left_untouched();
        exported.import(&[flag, "77"]).exits(2);
    }
    let both = [
        "--expect-muhash",
        exported.muhash(),
        "--expect-hash-serialized-3",
        exported.muhash(),
    ];
    exported
        .import(&both)
        .exits(2)
        .says(&["cannot be used with"]);
    exported.left_untouched();
}

#[test]
fn the_block_and_its_height_can_be_told() {
    let exported = Exported::at(170);
    let good = ["--expect-muhash", exported.muhash()];
    let with = |args: &[&str]| exported.import(&[&good[..], args].concat());
    let other = "0".repeat(64);
    with(&["--expect-block", &other])
        .exits(65)
        .says(&["is a snapshot of block", &other]);
    with(&["--height", "169"])
        .exits(2)
        .says(&["can't have height 169", "of height 170"]);
    with(&["--network", "testnet4"])
        .exits(65)
        .says(&["is a snapshot of main", "--network main"]);
    exported.left_untouched();
    let block = exported.answer["bestblock"].as_str().unwrap();
    let told = [
        "--expect-block",
        block,
        "--height",
        "170",
        "--median-time-past",
        "1231710770",
    ];
    with(&told).exits(0);
    assert_eq!(exported.other.stats(), answers()[&170]);
}

#[test]
fn bad_files_are_refused_before_there_is_a_store() {
    let mut exported = Exported::at(9);
    let good = exported.muhash().to_owned();
    let whole = fs::read(&exported.file).unwrap();
    let missing = text(exported.place.file("missing"));
    let file = std::mem::replace(&mut exported.file, missing);
    exported
        .import(&["--expect-muhash", &good])
        .exits(66)
        .says(&[&exported.file, WAY_OUT]);
    exported.file = file;
    for (bytes, says) in [
        (&b""[..], "ends at byte 0"),
        (&[0xee; 60], "is no snapshot of main"),
        (&whole[..30], "ends at byte 30"),
        (b"utxo\xff\x09\x00", "has version 9"),
    ] {
        fs::write(&exported.file, bytes).unwrap();
        exported
            .import(&["--expect-muhash", &good])
            .exits(65)
            .says(&[&exported.file, says]);
        assert!(!exported.other.store().exists());
    }
    fs::write(&exported.file, [&whole[..], &[0]].concat()).unwrap();
    exported
        .import(&["--expect-muhash", &good])
        .exits(65)
        .says(&["bytes follow the last coin"]);
    fs::write(&exported.file, &whole[..whole.len() - 1]).unwrap();
    exported
        .import(&["--expect-muhash", &good])
        .exits(65)
        .says(&["1 coins are to come", "copy the file again"]);
    exported.left_untouched();
}

#[test]
fn stores_that_hold_something_are_left_alone() {
    let exported = Exported::at(170);
    let before = exported.place.stats();
    let args = ["--expect-muhash", exported.muhash()];
    snapshot("import", &exported.place.url(), &exported.file, &args)
        .exits(69)
        .says(&["is not empty"]);
    assert_eq!(exported.place.stats(), before);

    // And files that are there.
    let answer = snapshot("export", &exported.place.url(), &exported.file, &[]);
    answer.exits(73).says(&["is there already", "--replace"]);
    let nowhere = text(exported.place.file("gone/utxo.dat"));
    snapshot("export", &exported.place.url(), &nowhere, &[])
        .exits(73)
        .says(&[&nowhere, WAY_OUT]);
    let empty = Place::new();
    snapshot("export", &empty.url(), &nowhere, &[]).exits(66);
    assert!(!empty.store().exists());
}

/// Drops an import when all coins are written and nothing is compared yet.
async fn cut_off(exported: &Exported) {
    let mut options = ImportOptions::default();
    let digest: BlockHash = exported.muhash().parse().unwrap();
    options.expected = Some(ExpectedDigest::Muhash(*digest.as_bytes()));
    let file = SnapshotFile::open(exported.file.as_ref(), &options).await;
    let file = file.unwrap();
    let store = exported.other.store();
    let store = EmbeddedUtxoStore::open(&store, EmbeddedUtxoStoreConfig::default()).unwrap();
    // It may not wait for anything on the way, so that it is broken off where it tells of its progress.
    let mut import = pin!(import_snapshot(&file, &store, |progress| {
        if progress.step == SnapshotStep::Load {
            resume_unwind(Box::new(()));
        }
    }));
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| import.as_mut().poll(context)));
        match polled {
            Err(_) => Poll::Ready(()),
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(answer)) => panic!("it was not cut off: {answer:?}"),
        }
    })
    .await;
}

#[tokio::test]
async fn an_unfinished_import_is_no_store_until_it_is_finished() {
    let exported = Exported::at(599);
    cut_off(&exported).await;
    let again = ["--expect-muhash", exported.muhash()];
    for args in [
        &["utxo", "stats", "--store", &exported.other.url()][..],
        &[
            "snapshot",
            "export",
            "--store",
            &exported.other.url(),
            "--file",
            "never",
        ],
    ] {
        ops(args)
            .exits(69)
            .says(&["unfinished copy", "at height 599", "ops snapshot import"]);
    }
    let wrong = "7".repeat(64);
    exported.import(&["--expect-muhash", &wrong]).exits(65);
    let imported = exported.import(&again).exits(0).answer();
    assert_eq!(imported["txouts_before"], 601);
    assert_eq!(exported.other.stats(), answers()[&599]);
}

/// Killed or interrupted after ever more calls to the store, until one comes through.
#[test]
fn an_import_that_is_killed_goes_on() {
    let exported = Exported::at(599);
    let url = exported.other.url();
    let args = [
        "snapshot",
        "import",
        "--json",
        "--store",
        &url,
        "--file",
        &exported.file,
        "--expect-muhash",
        exported.muhash(),
    ];
    for attempt in 0..200 {
        let mut child = command(&args)
            .env("GROUNDTACKLE_LOG", "groundtackle_utxo_store=debug")
            .spawn()
            .unwrap();
        // Each call is a line.
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let calls = lines.by_ref().take(attempt).map_while(Result::ok).count();
        if calls == attempt {
            signal(&child, if attempt % 2 == 0 { "-KILL" } else { "-INT" });
        }
        let rest = lines.map_while(Result::ok).count();
        let ran = Ran::from(child.wait_with_output().unwrap());
        if ran.code == Some(0) {
            println!("{attempt} attempts, {rest} calls more");
            assert_eq!(ran.answer()["muhash"], exported.muhash());
            assert_eq!(exported.other.stats(), answers()[&599]);
            return;
        }
        let stats = exported.other.utxo("stats", &[]);
        match stats.code {
            // No store, or one that is marked.
            Some(66 | 69) => {}
            _ if stats.answer()["txouts"] == 0 => {}
            // All but the answer was done.
            _ => assert_eq!(stats.exits(0).answer(), answers()[&599]),
        }
        if exported.other.utxo("stats", &[]).code == Some(0)
            && exported.other.stats()["height"] == 599
        {
            fs::remove_dir_all(exported.other.store()).unwrap();
        }
    }
    panic!("it never comes through");
}
