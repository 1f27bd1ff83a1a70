//! Against a real node: anvil, frozen, killed and started again.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod node;

use std::sync::Arc;
use std::time::Duration;

use groundtackle_health_check::{Check, Outcome};
use groundtackle_health_check_ethereum::{
    EthereumAccountCheck, EthereumAccountProbe, EthereumCheck, EthereumProbe, EventProbe, Node,
};
use groundtackle_health_check_json_rpc::RpcClient;
use groundtackle_health_check_testkit::{Faults, ServerHarness, Watched, becomes, skipped};
use groundtackle_testkit_servers::Anvil;
use node::assert_seen;
use serde_json::{Value, json};

/// The first of anvil's accounts, which has 10,000 ether.
const KEEPER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

const MISSING: &str = "GROUNDTACKLE_TEST_ANVIL names none, and there is none on the PATH";

fn is_there() -> bool {
    let there = Anvil::is_there();
    if !there {
        skipped("tests with anvil", MISSING);
    }
    there
}

fn address(anvil: &Anvil) -> Node {
    Node::new(anvil.url().parse().unwrap())
}

/// It has no peers to count.
fn probe(anvil: &Anvil) -> EthereumProbe {
    let mut probe = EthereumProbe::new(address(anvil), 31_337);
    (probe.min_peers, probe.warn_peers) = (0, 0);
    // Its head is as old as it, and the machine may be busy.
    probe.warn_head_age = Duration::from_secs(3600);
    probe.fail_head_age = Duration::from_secs(3600);
    probe.reference_timeout = Duration::from_secs(20);
    probe
}

async fn call(anvil: &Anvil, method: &'static str, params: Value) -> Value {
    let mut session = RpcClient::from(address(anvil)).session().await.unwrap();
    session.call(method, params).await.unwrap()
}

#[tokio::test]
async fn a_real_node_is_judged() {
    if !is_there() {
        return;
    }
    let anvil = Anvil::start(&["--no-mining"]);
    let look = |probe: EthereumProbe| async move { EthereumCheck::from(probe).check().await };
    assert_seen(&look(probe(&anvil)).await, "pass", "ok", "block 0");
    let defaults = EthereumProbe::new(address(&anvil), 31_337);
    assert_seen(
        &look(defaults).await,
        "unknown",
        "not-offered",
        "net_peerCount",
    );
    let elsewhere = EthereumProbe::new(address(&anvil), 1);
    assert_seen(&look(elsewhere).await, "fail", "wrong-chain", "chain 31337");
    // Finality 64 blocks behind, and the safe block 32.
    call(&anvil, "anvil_mine", json!(["0x64"])).await;
    let mut lag = probe(&anvil);
    (lag.max_safe_lag, lag.max_finalized_lag) = (96, 96);
    assert_seen(&look(lag.clone()).await, "pass", "ok", "block 100");
    lag.max_finalized_lag = 10;
    assert_seen(&look(lag).await, "fail", "finalized-lag", "behind the head");
    // It is ahead of another, and on another branch than it.
    let other = Anvil::start(&["--no-mining", "--timestamp", "1700000000"]);
    call(&other, "anvil_mine", json!(["0xc8"])).await;
    let mut compared = probe(&anvil);
    compared.references = vec![address(&other)];
    let seen = look(compared.clone()).await;
    assert_seen(&seen, "fail", "lag", "100 behind 1 other nodes");
    assert!(
        seen.detail
            .unwrap()
            .contains("block 92 is another for 1 of 1")
    );
    compared.references = vec![address(&anvil), address(&anvil)];
    assert_seen(&look(compared).await, "pass", "ok", "block 100");
}

#[tokio::test]
async fn a_real_head_stands_and_goes_on() {
    if !is_there() {
        return;
    }
    let anvil = Anvil::start(&["--no-mining"]);
    let mut probe = probe(&anvil);
    probe.max_standstill = Duration::from_millis(1);
    let check = EthereumCheck::from(probe);
    assert_seen(&check.check().await, "pass", "ok", "block 0");
    let seen = becomes(&check, Outcome::Fail, "standing-head").await;
    assert_seen(&seen, "fail", "standing-head", "block 0");
    call(&anvil, "evm_mine", json!([])).await;
    assert_seen(&check.check().await, "pass", "ok", "block 1");
}

/// A contract that logs a topic of 255 whenever it is called.
const LOGS: &str = "0x6760ff60006000a10060005260086018f3";

#[tokio::test]
async fn a_real_keeper_is_watched() {
    if !is_there() {
        return;
    }
    let anvil = Anvil::start(&["--no-mining"]);
    let address_of = |text: &str| text.to_owned().try_into().unwrap();
    let keeper = || EthereumAccountProbe::new(address(&anvil), 31_337, address_of(KEEPER));
    let look = |probe: EthereumAccountProbe| async move {
        EthereumAccountCheck::from(probe).check().await
    };
    let mut probe = keeper();
    probe.min_balance = "9999 ether".to_owned().try_into().unwrap();
    assert_seen(&look(probe.clone()).await, "pass", "ok", "has 10000 ether");
    call(&anvil, "anvil_setBalance", json!([KEEPER, "0x1"])).await;
    assert_seen(
        &look(probe).await,
        "fail",
        "low-balance",
        "0.000000000000000001 ether",
    );
    call(
        &anvil,
        "anvil_setBalance",
        json!([KEEPER, "0xde0b6b3a7640000"]),
    )
    .await;

    let mut probe = keeper();
    probe.max_idle = Duration::from_millis(1);
    let check = EthereumAccountCheck::from(probe);
    assert_seen(&check.check().await, "pass", "ok", "");
    let seen = becomes(&check, Outcome::Fail, "idle").await;
    assert_seen(&seen, "fail", "idle", "its nonce is 0");
    let hash = call(
        &anvil,
        "eth_sendTransaction",
        json!([{ "from": KEEPER, "data": LOGS }]),
    )
    .await;
    call(&anvil, "evm_mine", json!([])).await;
    assert_seen(&check.check().await, "pass", "ok", "");

    let receipt = call(&anvil, "eth_getTransactionReceipt", json!([hash])).await;
    let contract = receipt["contractAddress"].as_str().unwrap();
    let topic = |digits: &str| format!("0x{digits:0>64}").try_into().unwrap();
    let mut probe = keeper();
    let within = Duration::from_secs(3600);
    probe.event = Some(EventProbe::new(
        address_of(contract),
        vec![topic("ff")],
        within,
    ));
    assert_seen(
        &look(probe.clone()).await,
        "fail",
        "no-event",
        "since block 0",
    );
    call(
        &anvil,
        "eth_sendTransaction",
        json!([{ "from": KEEPER, "to": contract }]),
    )
    .await;
    call(&anvil, "evm_mine", json!([])).await;
    assert_seen(&look(probe.clone()).await, "pass", "ok", "");
    // Found also from far above it, and another event is not taken for it.
    call(&anvil, "anvil_mine", json!(["0x64"])).await;
    let mut long = probe.clone();
    long.event.as_mut().unwrap().within = Duration::from_secs(1_000_000);
    assert_seen(&look(long.clone()).await, "pass", "ok", "");
    long.event.as_mut().unwrap().topics = vec![topic("fe")];
    assert_seen(&look(long).await, "fail", "no-event", "since block 0");
}

const FAULTS: Faults<Anvil> = Faults {
    stop: Anvil::kill,
    start: Anvil::restart,
    hang: |anvil| anvil.freeze(),
    resume: |anvil| anvil.thaw(),
};

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_real_node_is_seen_in_time_and_passes() {
    if !is_there() {
        return;
    }
    let mut anvil = Anvil::start(&["--no-mining"]);
    let check = EthereumCheck::from(probe(&anvil));
    let (period, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    let watched = Watched::start(check, period, timeout);
    watched.rounds(&mut anvil, &FAULTS, "refused").await;
    watched.stop().await;
}

fn node() -> ServerHarness<Anvil> {
    let anvil = match Anvil::is_there() {
        true => Ok(Anvil::start(&["--no-mining"])),
        false => Err(MISSING.into()),
    };
    let check = |anvil: &Anvil| -> Arc<dyn Check> { Arc::new(EthereumCheck::from(probe(anvil))) };
    ServerHarness::new(anvil, FAULTS, check)
}

groundtackle_health_check_testkit::check_conformance!(node());
