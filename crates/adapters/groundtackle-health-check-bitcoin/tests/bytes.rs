//! Whatever a node answers, the check has an outcome.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod node;

use groundtackle_health_check::{Check, Outcome};
use groundtackle_health_check_bitcoin::{BitcoinCheck, BitcoinProbe};
use groundtackle_testkit_servers::Reply;
use node::Node;
use proptest::prelude::*;
use serde_json::{Value, json};

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,80}".prop_map(Value::from),
        prop::collection::vec(".{0,20}".prop_map(Value::from), 0..4).prop_map(Value::from),
    ]
}

const KEYS: &[(&str, &str)] = &[
    ("getblockchaininfo", "chain"),
    ("getblockchaininfo", "blocks"),
    ("getblockchaininfo", "headers"),
    ("getblockchaininfo", "bestblockhash"),
    ("getblockchaininfo", "initialblockdownload"),
    ("getblockchaininfo", "warnings"),
    ("getblockheader", "time"),
    ("getblockheader", "mediantime"),
    ("getnetworkinfo", "connections"),
    ("getnetworkinfo", "networkactive"),
    ("getnetworkinfo", "warnings"),
];

fn keys() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop::sample::select(KEYS)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn any_value_in_any_place_has_an_outcome(
        ours in prop::collection::vec((keys(), values()), 1..4),
        others in prop::collection::vec((keys(), values()), 0..4),
    ) {
        let (node, other) = (Node::at(7), Node::at(7));
        for (node, changes) in [(&node, &ours), (&other, &others)] {
            for ((method, key), value) in changes {
                node.change(method, key, value.clone());
            }
        }
        let mut probe = BitcoinProbe::new(node.address(), "main");
        probe.references = vec![other.address()];
        // Heights that are no numbers of a test's server.
        node.set("getblockhash", json!(node::hash(0)));
        other.set("getblockhash", json!(node::hash(0)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let seen = runtime.block_on(BitcoinCheck::from(probe).check());
        let changed = |method, key| ours.iter().rev().find(|((m, k), _)| (*m, *k) == (method, key)).map(|(_, value)| value);
        if changed("getblockchaininfo", "chain").is_some_and(|chain| chain != "main") {
            prop_assert_ne!(seen.outcome, Outcome::Pass);
        }
    }

    #[test]
    fn any_bytes_are_no_pass(body in prop::collection::vec(any::<u8>(), 0..200), raw in any::<bool>()) {
        let node = Node::at(7);
        node.script(if raw { Reply::Raw(body) } else { Reply::ok(body) });
        let probe = BitcoinProbe::new(node.address(), "main");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let seen = runtime.block_on(BitcoinCheck::from(probe).check());
        prop_assert_eq!(seen.outcome, Outcome::Fail, "{:?}", seen);
    }
}
