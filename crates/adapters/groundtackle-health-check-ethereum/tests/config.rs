//! Configs of nodes and accounts, and the ready sets.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod node;

use std::time::Duration;

use groundtackle_health_check::{Check, Error, HealthConfig, Observation};
use groundtackle_health_check_ethereum::{
    EthereumAccountCheck, EthereumAccountProbe, EthereumCheck, EthereumProbe, sets,
};
use groundtackle_health_check_probes::{ClockProbe, DiskProbe, Probe, ProbeCheck, TcpProbe};
use node::{Node, assert_seen, block};
use serde_json::{Value, json};

#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Any {
    Ethereum(Box<EthereumProbe>),
    EthereumAccount(Box<EthereumAccountProbe>),
    Clock(ClockProbe),
    Disk(DiskProbe),
    Tcp(TcpProbe),
}

#[derive(Debug)]
struct Made(Box<dyn Check>);

#[async_trait::async_trait]
impl Check for Made {
    async fn check(&self) -> Observation {
        self.0.check().await
    }
}

impl From<Any> for Made {
    fn from(probe: Any) -> Self {
        Self(match probe {
            Any::Ethereum(probe) => Box::new(EthereumCheck::from(*probe)),
            Any::EthereumAccount(probe) => Box::new(EthereumAccountCheck::from(*probe)),
            Any::Clock(probe) => Box::new(ProbeCheck::from(Probe::Clock(probe))),
            Any::Disk(probe) => Box::new(ProbeCheck::from(Probe::Disk(probe))),
            Any::Tcp(probe) => Box::new(ProbeCheck::from(Probe::Tcp(probe))),
        })
    }
}

fn read(file: &str, text: &str) -> Result<HealthConfig<Any>, Error> {
    HealthConfig::from_toml(file, text)
}

fn order(config: &HealthConfig<Any>) -> Vec<String> {
    let health = config.clone().into_builder(Made::from).build().unwrap();
    health.start_order().map(ToString::to_string).collect()
}

#[tokio::test]
async fn the_set_of_a_node_is_read_and_passes() {
    let config = read("ethereum.toml", sets::ETHEREUM).unwrap();
    let wanted = [
        "clock",
        "chain data",
        "consensus client",
        "node has started",
        "node",
    ];
    assert_eq!(order(&config), wanted);
    let node = Node::at(1000);
    node.set("eth_getBlockByNumber:safe", block(950, 0));
    node.set("eth_getBlockByNumber:finalized", block(900, 0));
    let mut nodes = 0;
    for check in config.checks {
        if let Any::Ethereum(mut probe) = check.probe {
            probe.node = node.address();
            assert_seen(&EthereumCheck::from(*probe).check().await, "pass", "ok", "");
            nodes += 1;
        }
    }
    assert_eq!(nodes, 2);
    let commented = sets::ETHEREUM
        .replace("# references", "references")
        .replace("# min_references", "min_references");
    let config = read("ethereum.toml", &commented).unwrap();
    let Any::Ethereum(probe) = &config.checks.last().unwrap().probe else {
        panic!("the node comes last");
    };
    assert_eq!(probe.references.len(), 2);
    assert!(!format!("{probe:?}").contains("key"), "{probe:?}");
}

#[tokio::test]
async fn the_set_of_a_keeper_is_read_and_passes() {
    let config = read("maker-keeper.toml", sets::MAKER_KEEPER).unwrap();
    let wanted = [
        "node",
        "keeper's gas money",
        "keeper's transactions",
        "liquidations",
    ];
    assert_eq!(order(&config), wanted);
    let node = Node::at(1000);
    node.set("eth_getBalance", json!("0x1bc16d674ec80000"));
    node.set("eth_getTransactionCount", json!("0x7"));
    node.set("eth_getLogs", json!([{ "blockNumber": "0x3e8" }]));
    for check in config.checks {
        let seen = match check.probe {
            Any::Ethereum(mut probe) => {
                probe.node = node.address();
                EthereumCheck::from(*probe).check().await
            }
            Any::EthereumAccount(mut probe) => {
                probe.node = node.address();
                EthereumAccountCheck::from(*probe).check().await
            }
            other => panic!("{other:?}"),
        };
        assert_seen(&seen, "pass", "ok", "");
    }
    // As the contract's own bindings have it.
    let mut calls = node
        .server
        .seen()
        .into_iter()
        .map(|request| serde_json::from_slice::<Value>(&request.body).unwrap());
    let filter = calls.rfind(|call| call["method"] == "eth_getLogs").unwrap()["params"][0].clone();
    assert_eq!(
        filter["topics"],
        json!(["0x85258d09e1e4ef299ff3fc11e74af99563f022d21f3f940db982229dc2a3358c"])
    );
    assert_eq!(
        filter["address"],
        "0x135954d155898d42c90d2a57824c690e0c7bef1b"
    );
}

const GOOD: &str = r#"
[[checks]]
name = "node"
kind = "readiness"
[checks.probe.ethereum]
node = { url = "http://127.0.0.1:8545", user = "u", password = "pa55word" }
chain_id = 1
warn_head_age = "0s"
references = [{ url = "http://10.0.0.2:8545" }]

[[checks]]
name = "keeper"
kind = "readiness"
[checks.probe.ethereum_account]
node = { url = "http://127.0.0.1:8545" }
chain_id = 1
address = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
min_balance = "0.5 ether"
[checks.probe.ethereum_account.event]
contract = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
topics = ["Take()"]
within = "1h"
"#;

#[test]
fn a_config_becomes_what_it_says() {
    let config = read("health.toml", GOOD).unwrap();
    let Any::Ethereum(probe) = &config.checks[0].probe else {
        panic!("it is a node");
    };
    let ages = (probe.warn_head_age, probe.fail_head_age);
    assert_eq!(ages, (Duration::ZERO, Duration::from_secs(300)));
    let Any::EthereumAccount(probe) = &config.checks[1].probe else {
        panic!("it is an account");
    };
    let event = probe.event.as_ref().unwrap();
    assert_eq!(
        (event.within, event.max_range),
        (Duration::from_secs(3600), 1000)
    );
    assert!(!format!("{config:?}").contains("pa55word"));
}

#[test]
fn errors_name_file_line_and_key() {
    for (from, to, said) in [
        (
            "chain_id = 1\nwarn",
            "chain = 1\nwarn",
            "health.toml:7: checks[0].probe.ethereum.chain: unknown field `chain`",
        ),
        (
            "chain_id = 1\nwarn",
            "chain_id = \"1\"\nwarn",
            "health.toml:7: checks[0].probe.ethereum.chain_id: invalid type",
        ),
        (
            "references =",
            "min_references = 2\nreferences =",
            "health.toml:5: checks[0].probe: has a min_references above",
        ),
        (
            ", password = \"pa55word\"",
            "",
            "health.toml:6: checks[0].probe.ethereum.node: has one of user and password",
        ),
        (
            "address = \"0x5aA",
            "address = \"0x6aA",
            "health.toml:17: checks[1].probe.ethereum_account.address: is no address: its checksum",
        ),
        (
            "0.5 ether",
            "0.5 eth",
            "health.toml:18: checks[1].probe.ethereum_account.min_balance: is no amount",
        ),
        (
            "Take()",
            "Take",
            "health.toml:21: checks[1].probe.ethereum_account.event.topics: is no topic",
        ),
        (
            "1h",
            "0s",
            "health.toml:19: checks[1].probe.ethereum_account.event: has a within or a max_range of 0",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = read("health.toml", &GOOD.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(said), "{error}\n  is not\n{said}");
    }
    let nothing = GOOD.split("min_balance").next().unwrap();
    let error = read("health.toml", nothing).unwrap_err().to_string();
    assert!(error.contains("has nothing to look at"), "{error}");
}
