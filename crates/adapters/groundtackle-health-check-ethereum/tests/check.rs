//! Each signal of a node, against one that answers as a test says.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod node;

use std::sync::Arc;
use std::time::{Duration, Instant};

use groundtackle_health_check::{Check, Observation, Outcome};
use groundtackle_health_check_ethereum::{EthereumCheck, EthereumProbe};
use groundtackle_health_check_testkit::{FaultClock, Watched};
use groundtackle_testkit_servers::Reply;
use node::{Node, assert_seen, block, seconds};
use proptest::prelude::*;
use serde_json::{Value, json};

fn probe(node: &Node) -> EthereumProbe {
    EthereumProbe::new(node.address(), 1)
}

async fn look(probe: EthereumProbe) -> Observation {
    EthereumCheck::from(probe).check().await
}

#[tokio::test]
async fn a_node_that_is_well_passes() {
    let node = Node::at(21_000_000);
    assert_seen(
        &look(probe(&node)).await,
        "pass",
        "ok",
        "the head, block 21000000, is ",
    );
}

#[tokio::test]
async fn each_signal_has_its_outcome_and_cause() {
    let now = seconds();
    let aged = |by: u64| block(100, now - by);
    let cases: &[(&str, Value, &str, &str, &str)] = &[
        (
            "eth_chainId",
            json!("0xaa36a7"),
            "fail",
            "wrong-chain",
            "chain 11155111",
        ),
        (
            "eth_syncing",
            json!({ "startingBlock": "0x0", "currentBlock": "0x5", "highestBlock": "0x9" }),
            "fail",
            "syncing",
            "at block 5 of 9",
        ),
        (
            "eth_syncing",
            json!({ "stages": [] }),
            "fail",
            "syncing",
            "does not say",
        ),
        ("eth_syncing", json!(true), "fail", "syncing", ""),
        ("eth_getBlockByNumber:latest", aged(10), "pass", "ok", ""),
        (
            "eth_getBlockByNumber:latest",
            aged(70),
            "warn",
            "stale-head",
            "block 100",
        ),
        (
            "eth_getBlockByNumber:latest",
            aged(310),
            "fail",
            "stale-head",
            "block 100",
        ),
        (
            "eth_getBlockByNumber:latest",
            block(100, now + 90),
            "warn",
            "clock-behind",
            "ahead",
        ),
        (
            "eth_getBlockByNumber:latest",
            block(u64::MAX, u64::MAX),
            "warn",
            "clock-behind",
            "ahead",
        ),
        (
            "eth_getBlockByNumber:latest",
            Value::Null,
            "fail",
            "no-head",
            "",
        ),
        (
            "eth_getBlockByNumber:latest",
            json!({ "number": "0x100000000000000000" }),
            "fail",
            "no-json-rpc",
            "",
        ),
        (
            "net_peerCount",
            json!("0x2"),
            "warn",
            "few-peers",
            "2 peers",
        ),
        (
            "net_peerCount",
            json!("0x0"),
            "fail",
            "few-peers",
            "0 peers",
        ),
        (
            "net_peerCount",
            json!("0x1ffffffffffffffff"),
            "fail",
            "no-json-rpc",
            "",
        ),
        (
            "net_peerCount",
            json!({ "code": -32000 }),
            "fail",
            "rpc-error",
            "no such thing",
        ),
    ];
    for (method, answer, outcome, cause, says) in cases {
        let node = Node::at(100);
        node.set(method, answer.clone());
        assert_seen(&look(probe(&node)).await, outcome, cause, says);
    }
}

#[tokio::test]
async fn what_a_node_does_not_offer_is_unknown() {
    for method in [
        "eth_chainId",
        "eth_syncing",
        "net_peerCount",
        "eth_getBlockByNumber:latest",
    ] {
        let node = Node::at(100);
        match method.split_once(':') {
            Some(_) => node.set(method, json!({ "code": -32601 })),
            None => node.forget(method),
        }
        let name = method.split(':').next().unwrap();
        assert_seen(&look(probe(&node)).await, "unknown", "not-offered", name);
    }
    // What is wrong for certain counts more, and what is not wanted is not asked for.
    let node = Node::at(100);
    node.forget("net_peerCount");
    node.forget("eth_syncing");
    let mut less = probe(&node);
    (less.syncing, less.min_peers, less.warn_peers) = (false, 0, 0);
    assert_seen(&look(less).await, "pass", "ok", "");
    node.set("eth_chainId", json!("0x5"));
    assert_seen(
        &look(probe(&node)).await,
        "fail",
        "wrong-chain",
        "net_peerCount",
    );
}

#[tokio::test]
async fn safe_and_finalized_blocks_may_lag_only_so_far() {
    let node = Node::at(1000);
    let mut probe = probe(&node);
    (probe.max_safe_lag, probe.max_finalized_lag) = (64, 128);
    node.set("eth_getBlockByNumber:safe", block(960, 0));
    node.set("eth_getBlockByNumber:finalized", block(928, 0));
    assert_seen(&look(probe.clone()).await, "pass", "ok", "");
    node.set("eth_getBlockByNumber:finalized", block(871, 0));
    assert_seen(
        &look(probe.clone()).await,
        "fail",
        "finalized-lag",
        "871, is 129 behind",
    );
    node.set("eth_getBlockByNumber:safe", block(935, 0));
    assert_seen(&look(probe.clone()).await, "fail", "safe-lag", "finalized");
    // One that knows none, or begins, is not known to be well.
    for answer in [Value::Null, json!({ "code": -39001 })] {
        let node = Node::at(1000);
        node.set("eth_getBlockByNumber:safe", answer.clone());
        node.set("eth_getBlockByNumber:finalized", answer);
        probe.node = node.address();
        assert_seen(
            &look(probe.clone()).await,
            "unknown",
            "not-offered",
            "knows no safe block",
        );
    }
}

#[tokio::test]
async fn what_keeps_an_answer_from_coming_has_a_cause() {
    let node = Node::at(100);
    for (reply, outcome, cause) in [
        (Reply::status(401, ""), "fail", "unauthorized"),
        (Reply::status(429, ""), "unknown", "rate-limited"),
        (Reply::status(502, "bad gateway"), "fail", "status"),
        (Reply::ok("<html>"), "fail", "no-json-rpc"),
        (Reply::ok("[".repeat(100_000)), "fail", "no-json-rpc"),
        (Reply::ok(" ".repeat(2 << 20)), "fail", "answer-too-large"),
        (Reply::Close, "fail", "no-http"),
    ] {
        node.script(reply.clone());
        assert_seen(&look(probe(&node)).await, outcome, cause, "");
    }
    node.script(Reply::Hang);
    let hung = tokio::time::timeout(Duration::from_millis(300), look(probe(&node)));
    assert!(hung.await.is_err());
    node.unscript();
    assert_seen(&look(probe(&node)).await, "pass", "ok", "");
}

#[tokio::test]
async fn a_head_that_stands_still_fails_whatever_time_is_in_it() {
    let node = Node::at(100);
    let clock = FaultClock::at(seconds() * 1000);
    let check = EthereumCheck::with_clock(probe(&node), Arc::new(clock.clone()));
    let shows = |height| {
        node.set(
            "eth_getBlockByNumber:latest",
            block(height, seconds() + 295),
        )
    };
    assert_seen(&check.check().await, "pass", "ok", "");
    clock.advance(Duration::from_secs(299));
    shows(100);
    assert_seen(&check.check().await, "pass", "ok", "");
    clock.advance(Duration::from_secs(2));
    assert_seen(&check.check().await, "fail", "standing-head", "block 100");
    shows(101);
    assert_seen(&check.check().await, "pass", "ok", "");
}

fn with(node: &Node, references: &[&Node]) -> EthereumProbe {
    let mut probe = probe(node);
    probe.references = references.iter().map(|node| node.address()).collect();
    // What answers does so in time, also on a machine that is busy.
    probe.reference_timeout = Duration::from_secs(20);
    probe
}

fn hurried(mut probe: EthereumProbe) -> EthereumProbe {
    probe.reference_timeout = Duration::from_secs(2);
    probe
}

#[tokio::test]
async fn a_node_is_compared_with_others() {
    let node = Node::at(100);
    let others = [Node::at(100), Node::at(101), Node::at(105)];
    let all: Vec<&Node> = others.iter().collect();
    assert_seen(&look(with(&node, &all)).await, "pass", "ok", "");
    // The middle one counts: a single one that lies, or stands, decides nothing.
    others[2].is_at(1_000_000);
    others[0].is_at(1);
    let seen = look(with(&node, &all)).await;
    assert_seen(&seen, "pass", "ok", "");
    others[1].is_at(106);
    assert_seen(
        &look(with(&node, &all)).await,
        "fail",
        "lag",
        "6 behind 3 other nodes",
    );
    // Ahead of most, nobody can vouch for it.
    others[1].is_at(95);
    assert_seen(&look(with(&node, &all)).await, "pass", "ok", "");
    others[1].is_at(94);
    assert_seen(
        &look(with(&node, &all)).await,
        "warn",
        "references-behind",
        "6 ahead of 3 other nodes",
    );
    others[1].is_at(100);
    others[2].set("eth_chainId", json!("0x5"));
    others[0].set("eth_getBlockByNumber:latest", Value::Null);
    assert_seen(&look(with(&node, &all)).await, "pass", "ok", "");
    let mut two = with(&node, &all);
    two.min_references = 2;
    assert_seen(&look(two).await, "unknown", "few-references", "1 of 3");
    others[1].script(Reply::Hang);
    let begun = Instant::now();
    assert_seen(
        &look(hurried(with(&node, &all))).await,
        "unknown",
        "few-references",
        "0 of 3",
    );
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_head_on_another_branch_is_found() {
    let node = Node::at(100);
    let others = [Node::at(100), Node::at(101), Node::at(102)];
    let all: Vec<&Node> = others.iter().collect();
    // Near the head branches part all the time.
    node.set("eth_getBlockByNumber:0x5d", block(7, seconds()));
    assert_seen(&look(with(&node, &all)).await, "pass", "ok", "");
    others[0].set("eth_getBlockByNumber:0x5c", block(7, seconds()));
    assert_seen(
        &look(with(&node, &all)).await,
        "warn",
        "references-differ",
        "1 of 3",
    );
    others[1].set("eth_getBlockByNumber:0x5c", block(7, seconds()));
    assert_seen(
        &look(with(&node, &all)).await,
        "fail",
        "fork",
        "block 92 is another for 2 of 3",
    );
    // One that answers first and not again can't vouch for it, nor can a node without the block.
    let single = Node::at(100);
    single.set("eth_getBlockByNumber:0x5c", json!("hang"));
    assert_seen(
        &look(hurried(with(&node, &[&single]))).await,
        "unknown",
        "few-references",
        "0 of 1",
    );
    node.set("eth_getBlockByNumber:0x5c", Value::Null);
    assert_seen(&look(with(&node, &all)).await, "unknown", "no-block", "92");
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "0x[0-9a-f]{0,70}".prop_map(Value::from),
        ".{0,80}".prop_map(Value::from),
        ("0x[0-9a-f]{0,20}", "0x[0-9a-f]{64}", "0x[0-9a-f]{0,20}").prop_map(
            |(number, hash, time)| json!({ "number": number, "hash": hash, "timestamp": time })
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn any_value_in_any_place_has_an_outcome(
        ours in prop::collection::vec((prop::sample::select(METHODS), values()), 1..4),
        others in prop::collection::vec((prop::sample::select(METHODS), values()), 0..4),
    ) {
        let (node, other) = (Node::at(7), Node::at(7));
        for (node, changes) in [(&node, &ours), (&other, &others)] {
            node.set("eth_getBlockByNumber", block(7, seconds()));
            for (method, value) in changes {
                node.set(method, value.clone());
            }
        }
        let mut probe = with(&node, &[&other]);
        (probe.max_safe_lag, probe.max_finalized_lag) = (1, 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let seen = runtime.block_on(look(probe));
        let chain = ours.iter().rev().find(|(method, _)| *method == "eth_chainId");
        if chain.is_some_and(|(_, id)| id != "0x1" && id != "0x01") && seen.outcome == Outcome::Pass {
            // As a number with zeros in front, it is this chain all the same.
            let id = chain.unwrap().1.as_str().unwrap_or_default().trim_start_matches("0x").trim_start_matches('0').to_owned();
            prop_assert_eq!(id, "1");
        }
    }
}

const METHODS: &[&str] = &[
    "eth_chainId",
    "eth_syncing",
    "net_peerCount",
    "eth_getBlockByNumber",
    "eth_getBlockByNumber:latest",
    "eth_getBlockByNumber:safe",
    "eth_getBlockByNumber:finalized",
];

/// Each within its period and timeout, and so is that it is well again.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_node_is_seen_in_time_and_passes() {
    let node = Node::at(100);
    let mut probe = EthereumProbe::new(node.address(), 1);
    probe.max_standstill = Duration::from_secs(60);
    let now = seconds();
    let clock = FaultClock::at(now * 1_000);
    let check = EthereumCheck::with_clock(probe, Arc::new(clock.clone()));
    let (period, timeout) = (Duration::from_secs(1), Duration::from_millis(500));
    let watched = Watched::start(check, period, timeout);
    watched.until(Outcome::Pass, "ok").await;
    let syncing = json!({ "currentBlock": "0x5", "highestBlock": "0x9" });
    node.set("eth_syncing", syncing);
    watched.until(Outcome::Fail, "syncing").await;
    node.set("eth_syncing", json!(false));
    watched.until(Outcome::Pass, "ok").await;
    node.set("eth_chainId", json!("0x5"));
    watched.until(Outcome::Fail, "wrong-chain").await;
    node.set("eth_chainId", json!("0x1"));
    watched.until(Outcome::Pass, "ok").await;
    // Its time is new, and it is the same block all the same.
    clock.advance(Duration::from_secs(61));
    node.set("eth_getBlockByNumber:latest", block(100, now + 61));
    watched.until(Outcome::Fail, "standing-head").await;
    node.set("eth_getBlockByNumber:latest", block(101, now + 61));
    watched.until(Outcome::Pass, "ok").await;
    node.forget("net_peerCount");
    watched.until(Outcome::Unknown, "not-offered").await;
    node.set("net_peerCount", json!("0x19"));
    watched.until(Outcome::Pass, "ok").await;
    node.script(Reply::Hang);
    watched.until(Outcome::Fail, "timeout").await;
    node.unscript();
    watched.until(Outcome::Pass, "ok").await;
    watched.stop().await;
}
