//! Each signal of a node.
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
use groundtackle_health_check_bitcoin::{BitcoinCheck, BitcoinProbe, KnownBlock};
use groundtackle_health_check_testkit::{FaultClock, Watched};
use groundtackle_testkit_servers::Reply;
use node::{Node, hash, seconds};
use serde_json::{Value, json};

fn probe(node: &Node) -> BitcoinProbe {
    BitcoinProbe::new(node.address(), "main")
}

async fn look(probe: BitcoinProbe) -> Observation {
    BitcoinCheck::from(probe).check().await
}

fn assert_seen(seen: &Observation, outcome: &str, cause: &str, says: &str) {
    assert_eq!(
        (seen.outcome.as_str(), seen.cause.as_str()),
        (outcome, cause),
        "{seen:?}"
    );
    let detail = seen.detail.as_deref().unwrap_or_default();
    assert!(detail.contains(says), "{says:?} is not in {detail:?}");
}

#[tokio::test]
async fn a_node_that_is_well_passes() {
    let node = Node::at(800_000);
    let seen = look(probe(&node)).await;
    assert_seen(&seen, "pass", "ok", "the tip, block 800000, is ");
    // One connection for all of it.
    assert_eq!(node.server.seen().len(), 3);
}

#[tokio::test]
async fn each_signal_has_its_outcome_and_cause() {
    type Case = (
        &'static str,
        &'static str,
        Value,
        &'static str,
        &'static str,
        &'static str,
    );
    let now = seconds();
    let cases: &[Case] = &[
        (
            "getblockchaininfo",
            "initialblockdownload",
            json!(true),
            "fail",
            "initial-block-download",
            "800000 blocks",
        ),
        (
            "getblockchaininfo",
            "headers",
            json!(800_003),
            "pass",
            "ok",
            "",
        ),
        (
            "getblockchaininfo",
            "headers",
            json!(800_004),
            "fail",
            "behind-headers",
            "800004 headers",
        ),
        (
            "getblockchaininfo",
            "chain",
            json!("test"),
            "fail",
            "wrong-chain",
            "\"test\"",
        ),
        (
            "getblockchaininfo",
            "warnings",
            json!("unknown rules"),
            "warn",
            "node-warnings",
            "unknown rules",
        ),
        (
            "getblockchaininfo",
            "warnings",
            json!(["one", "two"]),
            "warn",
            "node-warnings",
            "one; two",
        ),
        (
            "getblockheader",
            "time",
            json!(now - 80 * 60),
            "pass",
            "ok",
            "",
        ),
        (
            "getblockheader",
            "time",
            json!(now - 100 * 60),
            "warn",
            "stale-tip",
            "median time past",
        ),
        (
            "getblockheader",
            "time",
            json!(now - 250 * 60),
            "fail",
            "stale-tip",
            "block 800000",
        ),
        (
            "getblockheader",
            "time",
            json!(now + 3 * 3600),
            "warn",
            "clock-behind",
            "ahead",
        ),
        (
            "getblockheader",
            "time",
            json!(u64::MAX),
            "warn",
            "clock-behind",
            "ahead",
        ),
        (
            "getblockheader",
            "mediantime",
            json!(u64::MAX),
            "pass",
            "ok",
            "",
        ),
        (
            "getnetworkinfo",
            "connections",
            json!(3),
            "warn",
            "few-peers",
            "3 connections",
        ),
        (
            "getnetworkinfo",
            "connections",
            json!(0),
            "fail",
            "few-peers",
            "0 connections",
        ),
        (
            "getnetworkinfo",
            "networkactive",
            json!(false),
            "fail",
            "network-off",
            "",
        ),
        (
            "getnetworkinfo",
            "warnings",
            json!("low space"),
            "warn",
            "node-warnings",
            "low space",
        ),
    ];
    for (method, key, to, outcome, cause, says) in cases {
        let node = Node::at(800_000);
        node.change(method, key, to.clone());
        let seen = look(probe(&node)).await;
        assert_seen(&seen, outcome, cause, says);
    }
}

#[tokio::test]
async fn what_a_node_does_not_offer_is_unknown() {
    let node = Node::at(7);
    // Its own way to tell peers is offered, or none is.
    node.forget("getnetworkinfo");
    node.set("getconnectioncount", json!(8));
    assert_seen(&look(probe(&node)).await, "pass", "ok", "");
    node.set("getconnectioncount", json!(0));
    assert_seen(&look(probe(&node)).await, "fail", "few-peers", "");
    node.forget("getconnectioncount");
    assert_seen(
        &look(probe(&node)).await,
        "unknown",
        "not-offered",
        "getconnectioncount",
    );
    let mut without = probe(&node);
    (without.min_peers, without.warn_peers, without.node_warnings) = (0, 0, false);
    assert_seen(&look(without.clone()).await, "pass", "ok", "");
    node.forget("getblockheader");
    assert_seen(
        &look(without).await,
        "unknown",
        "not-offered",
        "getblockheader",
    );
    // What is wrong for certain counts more.
    node.change("getblockchaininfo", "chain", json!("test"));
    assert_seen(
        &look(probe(&node)).await,
        "fail",
        "wrong-chain",
        "getblockheader",
    );
    node.forget("getblockchaininfo");
    assert_seen(
        &look(probe(&node)).await,
        "unknown",
        "not-offered",
        "getblockchaininfo",
    );
}

#[tokio::test]
async fn a_node_that_starts_says_so() {
    let node = Node::at(7);
    node.set(
        "getblockchaininfo",
        json!({ "code": -28, "message": "Loading block index…" }),
    );
    assert_seen(
        &look(probe(&node)).await,
        "fail",
        "starting",
        "Loading block index…",
    );
    node.is_at(7);
    assert_seen(&look(probe(&node)).await, "pass", "ok", "");
}

#[tokio::test]
async fn what_keeps_an_answer_from_coming_has_a_cause() {
    let node = Node::at(7);
    for (reply, outcome, cause) in [
        (Reply::status(401, ""), "fail", "unauthorized"),
        (Reply::status(403, ""), "fail", "forbidden"),
        (Reply::status(429, ""), "unknown", "rate-limited"),
        (
            Reply::status(503, "Work queue depth exceeded"),
            "fail",
            "status",
        ),
        (Reply::ok("<html>"), "fail", "no-json-rpc"),
        (Reply::ok("{}"), "fail", "no-json-rpc"),
        (Reply::ok("[1]"), "fail", "no-json-rpc"),
        (
            Reply::ok(r#"{"id":1,"result":{"chain":7}}"#),
            "fail",
            "no-json-rpc",
        ),
        (Reply::ok(r#"{"id":9,"result":{}}"#), "fail", "no-json-rpc"),
        (Reply::ok("[".repeat(100_000)), "fail", "no-json-rpc"),
        (Reply::ok(" ".repeat(2 << 20)), "fail", "answer-too-large"),
        (Reply::Raw(vec![0xff; 64]), "fail", "no-http"),
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
async fn a_tip_that_stands_still_fails_whatever_time_is_in_it() {
    let node = Node::at(7);
    let clock = FaultClock::at(seconds() * 1000);
    let check = BitcoinCheck::with_clock(probe(&node), Arc::new(clock.clone()));
    assert_seen(&check.check().await, "pass", "ok", "");
    clock.advance(Duration::from_secs(4 * 3600 - 1));
    node.change("getblockheader", "time", json!(seconds() + 5 * 3600));
    assert_seen(&check.check().await, "pass", "ok", "");
    clock.advance(Duration::from_secs(2));
    assert_seen(&check.check().await, "fail", "standing-tip", "block 7");
    node.is_at(8);
    node.change("getblockheader", "time", json!(seconds() + 5 * 3600));
    assert_seen(&check.check().await, "pass", "ok", "");
}

#[tokio::test]
async fn blocks_tell_chains_apart() {
    let node = Node::at(800_000);
    let block = |height, hash: String| KnownBlock::new(height, hash.try_into().unwrap());
    let mut probe = probe(&node);
    probe.blocks = vec![block(556_767, hash(556_767)), block(900_000, hash(0))];
    assert_seen(&look(probe.clone()).await, "pass", "ok", "");
    probe.blocks = vec![block(556_767, hash(1))];
    assert_seen(&look(probe).await, "fail", "wrong-chain", "block 556767");
}

fn with(node: &Node, references: &[&Node]) -> BitcoinProbe {
    let mut probe = probe(node);
    probe.references = references.iter().map(|node| node.address()).collect();
    // What answers does so in time, also on a machine that is busy.
    probe.reference_timeout = Duration::from_secs(20);
    probe
}

fn hurried(mut probe: BitcoinProbe) -> BitcoinProbe {
    probe.reference_timeout = Duration::from_secs(2);
    probe
}

#[tokio::test]
async fn a_node_is_compared_with_others() {
    let node = Node::at(100);
    let others = [Node::at(100), Node::at(101), Node::at(103)];
    let all: Vec<&Node> = others.iter().collect();
    assert_seen(&look(with(&node, &all)).await, "pass", "ok", "");
    // The middle one counts: a single one that lies, or stands, decides nothing.
    others[2].is_at(1_000_000);
    others[0].is_at(1);
    assert_seen(&look(with(&node, &all)).await, "pass", "ok", "");
    others[1].is_at(104);
    assert_seen(
        &look(with(&node, &all)).await,
        "fail",
        "lag",
        "4 behind 3 other nodes",
    );
    // Ahead of most, nobody can vouch for it.
    others[1].is_at(97);
    assert_seen(&look(with(&node, &all)).await, "pass", "ok", "");
    others[1].is_at(96);
    assert_seen(
        &look(with(&node, &all)).await,
        "warn",
        "references-behind",
        "4 ahead of 3 other nodes",
    );
    // Those that are not ready themselves, on another chain, or silent, don't count.
    others[1].is_at(100);
    others[0].change("getblockchaininfo", "initialblockdownload", json!(true));
    others[2].change("getblockchaininfo", "chain", json!("regtest"));
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
async fn a_tip_on_another_branch_is_found() {
    let node = Node::at(100);
    let others = [Node::at(100), Node::at(101), Node::at(102)];
    let all: Vec<&Node> = others.iter().collect();
    // At the tip branches part all the time; two blocks below they do not.
    node.set("getblockhash:100", json!(hash(1)));
    node.set("getblockhash:99", json!(hash(2)));
    assert_seen(&look(with(&node, &all)).await, "pass", "ok", "");
    others[0].set("getblockhash:98", json!(hash(3)));
    assert_seen(
        &look(with(&node, &all)).await,
        "warn",
        "references-differ",
        "1 of 3",
    );
    others[1].set("getblockhash:98", json!(hash(3)));
    assert_seen(
        &look(with(&node, &all)).await,
        "fail",
        "fork",
        "block 98 is another for 2 of 3",
    );
    // One that answers first and not again can't vouch for it.
    let single = [Node::at(100)];
    single[0].set("getblockhash", Value::Null);
    assert_seen(
        &look(hurried(with(&node, &[&single[0]]))).await,
        "unknown",
        "few-references",
        "0 of 1",
    );
}

#[tokio::test]
async fn a_chain_without_blocks_is_compared_too() {
    let node = Node::at(0);
    let other = Node::at(0);
    assert_seen(&look(with(&node, &[&other])).await, "pass", "ok", "");
    other.is_at(u64::MAX);
    assert_seen(&look(with(&node, &[&other])).await, "fail", "lag", "");
}

#[tokio::test]
async fn a_cookie_is_read_anew_for_each_run() {
    let folder = tempfile::tempdir().unwrap();
    let cookie = folder.path().join(".cookie");
    let node = Node::at(7);
    let mut probe = probe(&node);
    probe.node = probe.node.with_cookie_file(&cookie);
    let check = BitcoinCheck::from(probe);
    assert_seen(
        &check.check().await,
        "fail",
        "credentials-unreadable",
        ".cookie",
    );
    for password in ["first", "5ecret"] {
        std::fs::write(&cookie, format!("__cookie__:{password}")).unwrap();
        assert_seen(&check.check().await, "pass", "ok", "");
    }
    let sent: Vec<_> = node
        .server
        .seen()
        .iter()
        .map(|request| request.header("authorization").unwrap().to_owned())
        .collect();
    // "__cookie__:first" and "__cookie__:5ecret".
    assert_eq!(sent.first().unwrap(), "Basic X19jb29raWVfXzpmaXJzdA==");
    assert_eq!(sent.last().unwrap(), "Basic X19jb29raWVfXzo1ZWNyZXQ=");
    assert!(
        node.server
            .seen()
            .iter()
            .all(|request| request.path == "/wallet/k3yk3yk3y")
    );
    // What a node says again of what it was sent is not shown.
    node.set(
        "getblockchaininfo",
        json!({ "code": -1, "message": "bad password 5ecret for k3yk3yk3y" }),
    );
    let seen = check.check().await;
    assert_seen(&seen, "fail", "rpc-error", "bad password *** for ***");
}

/// Each within its period and timeout, and so is that it is well again.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_node_is_seen_in_time_and_passes() {
    let node = Node::at(7);
    let check = BitcoinCheck::from(probe(&node));
    let (period, timeout) = (Duration::from_secs(1), Duration::from_millis(500));
    let watched = Watched::start(check, period, timeout);
    watched.until(Outcome::Pass, "ok").await;
    let starting = json!({ "code": -28, "message": "Verifying blocks…" });
    node.set("getblockchaininfo", starting);
    watched.until(Outcome::Fail, "starting").await;
    node.is_at(7);
    node.change("getblockchaininfo", "initialblockdownload", json!(true));
    watched.until(Outcome::Fail, "initial-block-download").await;
    node.is_at(8);
    watched.until(Outcome::Pass, "ok").await;
    node.change("getblockheader", "time", json!(seconds() - 5 * 3600));
    watched.until(Outcome::Fail, "stale-tip").await;
    node.is_at(9);
    watched.until(Outcome::Pass, "ok").await;
    node.change("getblockchaininfo", "chain", json!("test"));
    watched.until(Outcome::Fail, "wrong-chain").await;
    node.is_at(10);
    node.forget("getnetworkinfo");
    watched.until(Outcome::Unknown, "not-offered").await;
    node.set("getconnectioncount", json!(8));
    watched.until(Outcome::Pass, "ok").await;
    node.script(Reply::Hang);
    watched.until(Outcome::Fail, "timeout").await;
    node.unscript();
    watched.until(Outcome::Pass, "ok").await;
    watched.stop().await;
}
