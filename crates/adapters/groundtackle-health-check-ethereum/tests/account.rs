//! Accounts, against a node that answers as a test says.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod node;

use std::sync::Arc;
use std::time::Duration;

use groundtackle_health_check::{Check, Observation};
use groundtackle_health_check_ethereum::{
    AccountAddress, EthereumAccountCheck, EthereumAccountProbe, EventProbe,
};
use groundtackle_health_check_testkit::FaultClock;
use groundtackle_testkit_servers::Reply;
use node::{Node, assert_seen, block, seconds};
use proptest::prelude::*;
use serde_json::{Value, json};

const KEEPER: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

fn address() -> AccountAddress {
    KEEPER.to_owned().try_into().unwrap()
}

fn probe(node: &Node) -> EthereumAccountProbe {
    EthereumAccountProbe::new(node.address(), 1, address())
}

async fn look(probe: EthereumAccountProbe) -> Observation {
    EthereumAccountCheck::from(probe).check().await
}

#[tokio::test]
async fn a_balance_has_a_floor() {
    let node = Node::at(100);
    let mut probe = probe(&node);
    probe.min_balance = "0.5 ether".to_owned().try_into().unwrap();
    probe.warn_balance = "1 ether".to_owned().try_into().unwrap();
    for (wei, outcome, cause, says) in [
        ("0xde0b6b3a7640000", "pass", "ok", "has 1 ether"),
        (
            "0xde0b6b3a763ffff",
            "warn",
            "low-balance",
            "has 0.999999999999999999 ether, and should have 1 ether",
        ),
        ("0x6f05b59d3b20000", "warn", "low-balance", "has 0.5 ether"),
        (
            "0x6f05b59d3b1ffff",
            "fail",
            "low-balance",
            "and should have 0.5 ether",
        ),
        ("0x0", "fail", "low-balance", KEEPER),
        (
            "0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "pass",
            "ok",
            "",
        ),
        (
            "0x1ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "fail",
            "no-json-rpc",
            "",
        ),
        ("much", "fail", "no-json-rpc", ""),
    ] {
        node.set("eth_getBalance", json!(wei));
        assert_seen(&look(probe.clone()).await, outcome, cause, says);
    }
    node.forget("eth_getBalance");
    assert_seen(
        &look(probe.clone()).await,
        "unknown",
        "not-offered",
        "eth_getBalance",
    );
    // What another chain says of an account is not about it.
    node.set("eth_chainId", json!("0x5"));
    assert_seen(&look(probe).await, "fail", "wrong-chain", "chain 5");
}

#[tokio::test]
async fn an_account_that_sends_nothing_is_idle() {
    let node = Node::at(100);
    let clock = FaultClock::at(seconds() * 1000);
    let mut probe = probe(&node);
    probe.max_idle = Duration::from_secs(3600);
    let check = EthereumAccountCheck::with_clock(probe, Arc::new(clock.clone()));
    node.set("eth_getTransactionCount", json!("0x7"));
    assert_seen(&check.check().await, "pass", "ok", "");
    clock.advance(Duration::from_secs(3599));
    assert_seen(&check.check().await, "pass", "ok", "");
    clock.advance(Duration::from_secs(2));
    assert_seen(
        &check.check().await,
        "fail",
        "idle",
        "nothing for 3601 s; its nonce is 7",
    );
    node.set("eth_getTransactionCount", json!("0x8"));
    assert_seen(&check.check().await, "pass", "ok", "");
}

fn with_event(node: &Node, within: u64) -> EthereumAccountProbe {
    let mut probe = probe(node);
    let topics =
        ["Work(bytes32,address)", "", KEEPER].map(|topic| topic.to_owned().try_into().unwrap());
    probe.event = Some(EventProbe::new(
        address(),
        topics.into(),
        Duration::from_secs(within),
    ));
    probe
}

/// Blocks of 12 s below the head.
fn chain(node: &Node, head: u64) {
    let now = seconds();
    for height in 0..=head {
        node.set(
            &format!("eth_getBlockByNumber:{height:#x}"),
            block(height, now - 12 * (head - height)),
        );
    }
    node.is_at(head);
}

fn filters(node: &Node) -> Vec<Value> {
    let calls = node
        .server
        .seen()
        .into_iter()
        .map(|request| serde_json::from_slice::<Value>(&request.body).unwrap());
    calls
        .filter(|call| call["method"] == "eth_getLogs")
        .map(|call| call["params"][0].clone())
        .collect()
}

#[tokio::test]
async fn an_event_must_have_come_within_its_time() {
    let node = Node::at(0);
    chain(&node, 400);
    node.set("eth_getLogs", json!([]));
    assert_seen(
        &look(with_event(&node, 1200)).await,
        "fail",
        "no-event",
        "since block ",
    );
    let ranges: Vec<_> = filters(&node)
        .iter()
        .map(|filter| {
            (
                filter["fromBlock"].as_str().unwrap().to_owned(),
                filter["toBlock"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    // From the head back, each as wide again, without a gap, until blocks are too old: 100 blocks.
    let ranges: Vec<_> = ranges
        .iter()
        .map(|(from, to)| [from, to].map(|text| u64::from_str_radix(&text[2..], 16).unwrap()))
        .collect();
    assert_eq!(ranges, [[385, 400], [353, 384], [289, 352]]);
    let filter = &filters(&node)[0];
    assert_eq!(filter["address"], KEEPER.to_lowercase());
    assert_eq!(filter["topics"][1], Value::Null);
    assert_eq!(
        filter["topics"][2].as_str().unwrap(),
        format!("0x{:0>64}", KEEPER[2..].to_lowercase())
    );
    assert_eq!(filter["topics"].as_array().unwrap().len(), 3);
    // 90 blocks ago is 1080 s ago; 110 blocks ago is too long ago.
    for (height, outcome, cause) in [(310, "pass", "ok"), (290, "fail", "no-event")] {
        node.set("eth_getLogs", json!([{ "blockNumber": "0x1" }, { "blockNumber": format!("{height:#x}"), "data": "0x" }]));
        assert_seen(&look(with_event(&node, 1200)).await, outcome, cause, "");
    }
    // The whole chain, where it is shorter.
    node.set("eth_getLogs", json!([]));
    assert_seen(
        &look(with_event(&node, 100_000)).await,
        "fail",
        "no-event",
        "since block 0",
    );
    let mut narrow = with_event(&node, 100_000);
    narrow.event.as_mut().unwrap().max_range = 2;
    assert_seen(
        &look(narrow).await,
        "unknown",
        "search-ended",
        "since block 336",
    );
}

#[tokio::test]
async fn what_was_found_is_not_searched_again_until_it_is_too_old() {
    let node = Node::at(0);
    chain(&node, 100);
    let clock = FaultClock::at(seconds() * 1000);
    let check = EthereumAccountCheck::with_clock(with_event(&node, 600), Arc::new(clock.clone()));
    node.set("eth_getLogs", json!([{ "blockNumber": "0x64" }]));
    assert_seen(&check.check().await, "pass", "ok", "");
    clock.advance(Duration::from_secs(400));
    assert_seen(&check.check().await, "pass", "ok", "");
    assert_eq!(filters(&node).len(), 1);
    clock.advance(Duration::from_secs(300));
    assert_seen(&check.check().await, "fail", "no-event", "block 100");
    assert_eq!(filters(&node).len(), 2);
}

#[tokio::test]
async fn a_search_that_fails_says_why() {
    let node = Node::at(0);
    chain(&node, 100);
    for (answer, outcome, cause) in [
        (json!({ "code": -32601 }), "unknown", "not-offered"),
        (json!({ "code": -32005 }), "unknown", "rate-limited"),
        (json!({ "code": -32602 }), "fail", "rpc-error"),
        (json!({ "blockNumber": "0x1" }), "fail", "no-json-rpc"),
        (json!([{ "blockNumber": null }]), "fail", "no-json-rpc"),
    ] {
        node.set("eth_getLogs", answer);
        assert_seen(&look(with_event(&node, 600)).await, outcome, cause, "");
    }
    node.set("eth_getLogs", json!([]));
    node.set("eth_getBlockByNumber:0x55", Value::Null);
    assert_seen(
        &look(with_event(&node, 600)).await,
        "unknown",
        "no-block",
        "85",
    );
    node.script(Reply::status(401, ""));
    assert_seen(
        &look(with_event(&node, 600)).await,
        "fail",
        "unauthorized",
        "",
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn any_value_has_an_outcome(
        balance in "0x[0-9a-f]{0,70}|.{0,20}", nonce in "0x[0-9a-f]{0,70}|.{0,20}", logs in prop::collection::vec("0x[0-9a-f]{0,20}", 0..4),
        height in any::<u64>(), time in any::<u64>(),
    ) {
        let node = Node::at(0);
        node.set("eth_getBlockByNumber", block(height, time));
        node.set("eth_getBlockByNumber:latest", block(height, time));
        node.set("eth_getBalance", json!(balance));
        node.set("eth_getTransactionCount", json!(nonce));
        let logs: Vec<Value> = logs.iter().map(|block| json!({ "blockNumber": block })).collect();
        node.set("eth_getLogs", json!(logs));
        let mut probe = with_event(&node, 600);
        probe.max_idle = Duration::from_secs(1);
        probe.warn_balance = "1 wei".to_owned().try_into().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(look(probe));
    }
}
