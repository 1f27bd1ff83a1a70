//! Sync, statistics, rewind and get on the embedded store.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use groundtackle_chain::hash::sha256d;
use serde_json::{Value, json};
use support::{Place, answers, blocks, data, ops};

#[test]
fn a_sync_goes_on_where_the_last_one_ended() {
    let place = Place::new();
    let first = place.sync_to(300);
    assert_eq!(
        first.event("started"),
        json!({"event": "started", "first_height": 0, "blocks": 301})
    );
    assert_eq!(first.event("synced")["height"], 300);

    let second = place.sync_to(599);
    assert_eq!(
        second.event("started"),
        json!({"event": "started", "first_height": 301, "blocks": 299})
    );
    assert_eq!(place.stats(), answers()[&599]);

    // Nothing is left to do, and nothing is done.
    let third = place.sync_to(599);
    assert_eq!(third.event("synced")["blocks"], 0);
    // A height below the store's is no reason to go back.
    assert_eq!(place.sync_to(100).event("synced")["height"], 599);
    assert_eq!(place.stats(), answers()[&599]);
}

#[test]
fn each_known_height_is_met_by_sync_by_rewind_and_by_sync_again() {
    let place = Place::new();
    let answers = answers();
    for (height, known) in &answers {
        place.sync_to(*height);
        assert_eq!(place.stats(), *known, "sync to {height}");
    }
    for (height, known) in &answers {
        place
            .utxo("rewind", &["--to", &height.to_string()])
            .exits(0);
        assert_eq!(place.stats(), *known, "rewind from 599 to {height}");
        place.sync_to(599);
        assert_eq!(
            place.stats(),
            answers[&599],
            "sync after rewind to {height}"
        );
    }
}

#[test]
fn standard_output_carries_the_answer_alone() {
    let place = Place::new();
    place.sync_to(9);
    let ran = place.utxo("stats", &[]).exits(0);
    // The keys, in the order in which gettxoutsetinfo has them.
    let keys = [
        "height",
        "bestblock",
        "transactions",
        "txouts",
        "bogosize",
        "total_amount_sat",
        "muhash",
        "hash_serialized_3",
    ];
    let places: Vec<_> = keys
        .iter()
        .map(|key| ran.stdout.find(&format!("\"{key}\":")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{ran:#?}");
    assert_eq!(ran.lines().len(), 1);

    let text = ops(&["utxo", "stats", "--store", &place.url()]).exits(0);
    assert!(
        text.stdout.contains("muhash             a9c5896f35c8b97a"),
        "{text:#?}"
    );
    assert_eq!(text.stderr, "");
}

/// The first payment: from block 9's coinbase, in block 170.
const PAYMENT: &str = "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16";
const COINBASE_9: &str = "0437cd7f8525ceed2324359c2d0ba26006d92d856a9c20fa0241106ee5a597c9";

#[test]
fn get_shows_records_and_outputs_with_their_states() {
    let place = Place::new();
    place.sync_to(170);
    let get = |target: &str| place.utxo("get", &[target]).exits(0).answer();

    let payment = get(PAYMENT);
    let hash = sha256d(&blocks()[170][..80]);
    let block: String = hash
        .iter()
        .rev()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(payment["txid"], PAYMENT);
    assert_eq!(payment["fee_sat"], 0);
    assert_eq!(payment["coinbase"], false);
    assert_eq!(payment["inputs"], json!([{"txid": COINBASE_9, "vout": 0}]));
    let mined =
        json!([{"block": block, "height": 170, "subtree_index": 0, "on_longest_chain": true}]);
    assert_eq!(payment["mined_in"], mined);
    let outputs: Vec<(&Value, &Value)> = payment["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|output| (&output["output"]["value_sat"], &output["state"]))
        .collect();
    assert_eq!(
        outputs,
        [
            (&json!(1_000_000_000_u64), &json!("Unspent")),
            (&json!(4_000_000_000_u64), &json!("Unspent"))
        ]
    );

    let spent = get(&format!("{COINBASE_9}:0"));
    assert_eq!(
        spent["state"],
        json!({"Spent": {"txid": PAYMENT, "vin": 0}})
    );
    assert_eq!(spent["height"], 9);
    assert_eq!(spent["coinbase"], true);

    for target in [PAYMENT.to_owned(), format!("{PAYMENT}:1")] {
        let text = ops(&["utxo", "get", "--store", &place.url(), &target]).exits(0);
        assert!(text.stdout.contains("4000000000 sat, unspent"), "{text:#?}");
    }
}

#[test]
fn get_of_what_is_not_there_answers_no() {
    let place = Place::new();
    place.sync_to(9);
    for target in [
        PAYMENT.to_owned(),
        format!("{PAYMENT}:0"),
        format!("{COINBASE_9}:7"),
    ] {
        let ran = place
            .utxo("get", &[&target])
            .exits(1)
            .says(&[&target[..64]]);
        assert_eq!(ran.answer(), Value::Null);
    }
    for target in ["f418", "f418:0", &format!("{PAYMENT}:x")] {
        place.utxo("get", &[target]).exits(2);
    }
}

#[test]
fn rewind_goes_down_only() {
    let place = Place::new();
    place.sync_to(9);
    let before = place.stats();
    place
        .utxo("rewind", &["--to", "10"])
        .exits(2)
        .says(&["ends at height 9", "10", "what to do"]);
    assert_eq!(place.stats(), before);
    assert_eq!(
        place.utxo("rewind", &["--to", "9"]).exits(0).answer()["height"],
        9
    );
    assert_eq!(place.stats(), before);
}

#[test]
fn reading_makes_no_store() {
    let place = Place::new();
    for (name, args) in [
        ("stats", vec![]),
        ("get", vec![PAYMENT]),
        ("rewind", vec!["--to", "0"]),
    ] {
        place.utxo(name, &args).exits(66).says(&[
            "there is no store at",
            "what to do",
            "ops utxo sync",
        ]);
        assert!(!place.store().exists());
        ops(&[vec!["utxo", name, "--store", "memory:"], args].concat())
            .exits(66)
            .says(&["memory:"]);
    }
    // An empty folder is no store, and stays empty.
    std::fs::create_dir(place.store()).unwrap();
    place.utxo("stats", &[]).exits(66);
    assert_eq!(std::fs::read_dir(place.store()).unwrap().count(), 0);
}

#[test]
fn files_may_be_named_one_by_one_and_in_any_order() {
    let place = Place::new();
    let list = format!("{0}/blk00001.dat,{0}/blk00000.dat", data().display());
    place.utxo("sync", &["--blocks", &list]).exits(0);
    assert_eq!(place.stats(), answers()[&599]);
}
