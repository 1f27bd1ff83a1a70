//! The main job, and what the program promises on its command line.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use groundtackle_utxo_store::{Applied, NewRecord, Script, SpendStore, TxOut, Txid};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use support::{Place, answers, ops};

#[test]
fn the_demo_ends_with_the_known_digest() {
    let ran = ops(&["demo"]).exits(0);
    let known = &answers()[&599];
    for key in ["bestblock", "muhash", "hash_serialized_3"] {
        assert!(
            ran.stdout.contains(known[key].as_str().unwrap()),
            "{ran:#?}"
        );
    }
    assert!(
        ran.stdout.ends_with("equal to the known answer\n"),
        "{ran:#?}"
    );

    for url in ["memory:".to_owned(), Place::new().url()] {
        let mut answer = ops(&["demo", "--json", "--store", &url]).exits(0).answer();
        assert_eq!(
            answer.as_object_mut().unwrap().remove("as_known"),
            Some(true.into())
        );
        assert_eq!(answer, *known, "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_answers_no_when_the_set_is_another() {
    let place = Place::new();
    let store = EmbeddedUtxoStore::open(place.store(), EmbeddedUtxoStoreConfig::default()).unwrap();
    let output = TxOut {
        value_sat: 1,
        script: Script::default(),
    };
    let coin = NewRecord::Seed {
        txid: Txid::from_bytes([7; 32]),
        coinbase: false,
        height: 1,
        outputs: vec![(0, output)],
    };
    assert_eq!(store.create(&[coin]).await.unwrap(), [Ok(Applied::Now)]);
    drop(store);

    let url = place.url();
    let ran = ops(&["demo", "--json", "--store", &url]).exits(1);
    assert_eq!(ran.answer()["as_known"], false);
    assert_eq!(ran.answer()["txouts"], 602);
    ran.says(&[
        "not the known answer",
        answers()[&599]["muhash"].as_str().unwrap(),
    ]);
}

#[test]
fn the_demo_leaves_nothing_in_the_temporary_folder() {
    let place = Place::new();
    let temporary = place.file("tmp");
    fs::create_dir(&temporary).unwrap();
    let status = support::command(&["demo"])
        .env("TMPDIR", &temporary)
        .output()
        .unwrap();
    assert!(status.status.success());
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn readme_and_help_tell_the_same_exit_codes() {
    let help = ops(&["--help"]).exits(0).stdout;
    let table = &help[help.find("Exit codes:").unwrap()..];
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.contains(table), "README.md must have:\n{table}");
    for command in ["sync", "stats", "rewind", "get"] {
        let help = ops(&["utxo", command, "--help"]).exits(0).stdout;
        assert!(help.contains(table), "{help}");
    }
}

#[test]
fn an_unknown_kind_of_store_is_answered_with_the_known_kinds() {
    for url in [
        "rocks:/data",
        "/data",
        "embedded:",
        "memory:x",
        "embedded:/x?no_such=1",
        "embedded:/x?cache=much",
    ] {
        ops(&["utxo", "stats", "--store", url])
            .exits(2)
            .says(&["--store"]);
    }
    let ran = ops(&["utxo", "stats", "--store", "rocks:/data"]);
    ran.says(&["\"rocks\"", "embedded:PATH", "memory:"]);
}

#[test]
fn logs_are_for_standard_error_and_off_by_default() {
    let logged = |variable: &str| {
        let mut command = support::command(&["demo", "--json", "--store", "memory:"]);
        let ran = support::Ran::from(command.env(variable, "debug").output().unwrap()).exits(0);
        assert_eq!(ran.answer()["as_known"], true);
        ran.stderr.contains("utxo_store.connect_block")
    };
    assert!(logged("GROUNDTACKLE_LOG"));
    assert!(logged("RUST_LOG"));
    assert!(!logged("OTHER_LOG"));
}
