//! The ready sets.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::time::Duration;

use groundtackle_health_check::{Health, HealthConfig, Outcome, Scheduler};
use groundtackle_health_check_probes::{Probe, ProbeCheck, sets};
use groundtackle_testkit_servers::{HttpServer, Reply, Request};

fn read(text: &str) -> Health {
    let config: HealthConfig<Probe> = HealthConfig::from_toml("teranode.toml", text).unwrap();
    config.into_builder(ProbeCheck::from).build().unwrap()
}

fn order(text: &str) -> Vec<String> {
    read(text).start_order().map(ToString::to_string).collect()
}

#[test]
fn eleven_services_start_in_their_order() {
    let wanted = [
        "blockchain",
        "validator",
        "subtree validation",
        "block validation",
        "block assembly",
        "propagation",
        "p2p",
        "asset",
        "rpc",
        "block persister",
        "utxo persister",
    ];
    assert_eq!(order(sets::TERANODE), wanted);
    // The twelfth, where it is wanted.
    let (eleven, twelfth) = sets::TERANODE
        .split_once("# For a node that speaks to the older network:")
        .unwrap();
    let twelve = format!("{eleven}{}", twelfth.replace("\n# ", "\n"));
    assert_eq!(order(&twelve).last().unwrap(), "legacy");
}

/// As `/health/readiness` of a service, where `down` is not ready.
fn services(down: &'static str) -> impl Fn(&Request) -> Reply {
    move |request| {
        let service = request
            .path
            .trim_start_matches('/')
            .trim_end_matches("/health/readiness");
        match service == down {
            true => Reply::status(503, r#"{"status":"503", "dependencies":[]}"#),
            false => Reply::ok(r#"{"status":"200", "dependencies":[]}"#),
        }
    }
}

/// Until it is so, of all checks.
async fn until(health: &Health, what: impl Fn(&str, Outcome, Option<&str>) -> bool) {
    let wait = async {
        loop {
            let view = health.view();
            let so = view.readings.iter().all(|reading| {
                let by = reading.caused_by.as_ref().map(|by| by.as_str());
                what(reading.name.as_str(), reading.outcome, by)
            });
            if so {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), wait)
        .await
        .unwrap();
}

#[tokio::test]
async fn one_service_that_fails_hides_what_needs_it() {
    let server = HttpServer::start(services("blockchain"));
    let text = sets::TERANODE
        .replace("period = \"10s\"", "period = \"200ms\"")
        .replace(
            "timeout = \"5s\"",
            "timeout = \"200ms\", valid_for = \"60s\"",
        )
        .replace(":8000/", "/")
        .replace("url = \"http://", &format!("url = \"{}", server.url("/")));
    let health = read(&text);
    let scheduler = Scheduler::start(&health);
    until(&health, |name, outcome, by| match name {
        "blockchain" => outcome == Outcome::Fail,
        _ => outcome == Outcome::Unknown && by == Some("blockchain"),
    })
    .await;
    server.script(services(""));
    until(&health, |_, outcome, _| outcome == Outcome::Pass).await;
    server.script(services("blockassembly"));
    until(&health, |name, outcome, by| match name {
        "block assembly" => outcome == Outcome::Fail,
        "rpc" => outcome == Outcome::Unknown && by == Some("block assembly"),
        _ => outcome == Outcome::Pass,
    })
    .await;
    scheduler.stop().await.unwrap();
}
