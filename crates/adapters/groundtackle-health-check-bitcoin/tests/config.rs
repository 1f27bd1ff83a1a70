//! Configs of nodes, and the ready sets.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod node;

use std::time::Duration;

use groundtackle_health_check::{Check, Error, HealthConfig, Observation};
use groundtackle_health_check_bitcoin::{BitcoinCheck, BitcoinProbe, sets};
use groundtackle_health_check_probes::{ClockProbe, DiskProbe, Probe, ProbeCheck, TcpProbe};
use node::Node;

#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Any {
    Bitcoin(Box<BitcoinProbe>),
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
            Any::Bitcoin(probe) => Box::new(BitcoinCheck::from(*probe)),
            Any::Clock(probe) => Box::new(ProbeCheck::from(Probe::Clock(probe))),
            Any::Disk(probe) => Box::new(ProbeCheck::from(Probe::Disk(probe))),
            Any::Tcp(probe) => Box::new(ProbeCheck::from(Probe::Tcp(probe))),
        })
    }
}

fn read(file: &str, text: &str) -> Result<HealthConfig<Any>, Error> {
    HealthConfig::from_toml(file, text)
}

#[tokio::test]
async fn ready_sets_are_read_and_their_node_passes() {
    for (file, text) in [
        ("bitcoin.toml", sets::BITCOIN),
        ("bitcoin-sv.toml", sets::BITCOIN_SV),
    ] {
        let config = read(file, text).unwrap();
        let order: Vec<_> = config
            .clone()
            .into_builder(Made::from)
            .build()
            .unwrap()
            .start_order()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            order,
            [
                "clock",
                "chain data",
                "node has started",
                "node",
                "peer port"
            ]
        );
        let node = Node::at(900_000);
        let mut nodes = 0;
        for check in config.checks {
            if let Any::Bitcoin(mut probe) = check.probe {
                for block in &probe.blocks {
                    let answer = serde_json::json!(block.hash.as_str());
                    node.set(&format!("getblockhash:{}", block.height), answer);
                }
                probe.node = node.address();
                let seen = BitcoinCheck::from(*probe).check().await;
                assert!(seen.outcome.is_up(), "{file}, {}: {seen:?}", check.name);
                nodes += 1;
            }
        }
        assert_eq!(nodes, 2);
    }
}

#[test]
fn the_commented_lines_of_the_sets_are_good_too() {
    let commented = sets::BITCOIN
        .replace("# references", "references")
        .replace("# min_references", "min_references");
    let config = read("bitcoin.toml", &commented).unwrap();
    let Any::Bitcoin(probe) = &config.checks.last().unwrap().probe else {
        panic!("the node comes last");
    };
    assert_eq!((probe.references.len(), probe.min_references), (1, 1));
    assert!(!format!("{probe:?}").contains('…'), "{probe:?}");
}

const GOOD: &str = r#"
[[checks]]
name = "node"
kind = "readiness"
[checks.probe.bitcoin]
node = { url = "http://127.0.0.1:8332", user = "u", password = "pa55word" }
chain = "main"
warn_tip_age = "1h"
fail_tip_age = "0s"
blocks = [{ height = 0, hash = "000000000019D6689C085AE165831E934FF763AE46A2A6C172B3F1B60A8CE26F" }]
references = [{ url = "http://10.0.0.2:8332" }]
"#;

#[test]
fn a_config_becomes_what_it_says() {
    let config = read("health.toml", GOOD).unwrap();
    let Any::Bitcoin(probe) = &config.checks[0].probe else {
        panic!("it is a node");
    };
    assert_eq!(
        (probe.warn_tip_age, probe.fail_tip_age),
        (Duration::from_secs(3600), Duration::ZERO)
    );
    assert_eq!(
        (probe.min_peers, probe.max_lag, probe.references.len()),
        (1, 3, 1)
    );
    assert!(probe.blocks[0].hash.as_str().ends_with("8ce26f"));
    assert!(!format!("{config:?}").contains("pa55word"));
}

#[test]
fn errors_name_file_line_and_key() {
    for (from, to, said) in [
        (
            "chain = \"main\"",
            "chian = \"main\"",
            "health.toml:7: checks[0].probe.bitcoin.chian: unknown field `chian`",
        ),
        (
            ", password = \"pa55word\"",
            "",
            "health.toml:6: checks[0].probe.bitcoin.node: has one of user and password",
        ),
        (
            "user = \"u\"",
            "user = \"u\", cookie_file = \"/c\"",
            "health.toml:6: checks[0].probe.bitcoin.node: has both a user and a cookie_file",
        ),
        (
            "user = \"u\"",
            "user = \"u:v\"",
            "health.toml:6: checks[0].probe.bitcoin.node: has a user with a colon",
        ),
        (
            "8CE26F",
            "8CE26",
            "health.toml:10: checks[0].probe.bitcoin.blocks[0].hash: is no hash of a block",
        ),
        (
            "http://10",
            "10",
            "health.toml:11: checks[0].probe.bitcoin.references[0].url: is no URL",
        ),
        (
            "references =",
            "min_references = 2\nreferences =",
            "health.toml:5: checks[0].probe: has a min_references above",
        ),
        (
            "warn_tip_age = \"1h\"",
            "warn_tip_age = 1",
            "health.toml:8: checks[0].probe.bitcoin.warn_tip_age: ",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = read("health.toml", &GOOD.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(said), "{error}\n  is not\n{said}");
        assert!(!error.contains("pa55word"), "{error}");
    }
}
