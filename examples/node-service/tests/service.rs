//! The program itself: from its start with no config to an orderly end, and through what is not orderly.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

// What only the other file needs.
#[allow(dead_code, reason = "each file of tests takes its part")]
mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::{Collector, FAST, LONG, Service, program};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const QUESTION: &str = r#"{"name": "node", "tag": "1.0.0", "environment": "production", "action": "deploy", "actor": "operator",
    "artefact": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_config_it_connects_backs_up_proves_serves_and_stops() {
    let place = tempfile::tempdir().unwrap();
    let mut service = Service::start(place.path(), None);
    service.waits_for("backed up");
    service.waits_for("the drill passed");
    service.until_ready();

    assert_eq!(service.get("/livez").code, 200);
    let moved = service.get("/");
    assert_eq!(moved.code, 307);
    assert!(
        moved.text.contains("location: /status\r\n"),
        "{}",
        moved.text
    );
    let page = service.get("/status");
    assert_eq!(page.code, 200);
    for check in ["node-service", "store", "blocks", "disk", "backup"] {
        assert!(page.text.contains(check), "{check}: {}", page.text);
    }
    let metrics = service.get("/metrics").text;
    assert!(metrics.contains("\nhealth_ready 1\n"), "{metrics}");
    service.until("/metrics/backup", "groundtackle_drill_last_passed 1");

    let channel = Endpoint::try_from(format!("http://{}", service.grpc)).unwrap();
    let mut grpc = HealthClient::new(channel.connect().await.unwrap());
    let asked = HealthCheckRequest::default();
    let status = grpc.check(asked).await.unwrap().into_inner().status;
    assert_eq!(status, ServingStatus::Serving as i32);

    // A watch that goes on doesn't keep the service from its end.
    let _watch = grpc.watch(HealthCheckRequest::default()).await.unwrap();
    let began = service.terminate();
    assert_eq!(service.ends(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(25),
        "{:?}",
        began.elapsed()
    );
    service.waits_for("stopped");

    let data = place.path().join("node-service-data");
    for secret in ["signer.key", "identities.txt", "gate.key", "gate.token"] {
        let mode = fs::metadata(data.join("keys").join(secret))
            .unwrap()
            .permissions();
        let mode = std::os::unix::fs::PermissionsExt::mode(&mode);
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
}

#[test]
fn the_gate_answers_by_what_is_known_and_writes_it_down_first() {
    let place = tempfile::tempdir().unwrap();
    let mut service = Service::start(place.path(), Some(FAST));
    service.waits_for("the drill passed");
    service.until_ready();
    let stranger = service.post("/gate/check", "", QUESTION);
    assert_eq!(stranger.code, 401);
    let data = place.path().join("node-service-data");
    let token = fs::read_to_string(data.join("keys/gate.token")).unwrap();
    let answer = service.post("/gate/check", token.trim(), QUESTION);
    assert_eq!(answer.code, 200, "{}", answer.text);
    assert_eq!(answer.json()["verdict"], "go");
    let nobody = QUESTION.replace("operator", "nobody");
    let answer = service.post("/gate/check", token.trim(), &nobody);
    assert_eq!(answer.code, 403, "{}", answer.text);
    let lines = || {
        fs::read_to_string(data.join("gate.log"))
            .unwrap()
            .lines()
            .count()
    };
    assert_eq!(lines(), 2);

    // What a crash cut short was told to nobody, and goes.
    service.kill();
    let mut log = fs::OpenOptions::new()
        .append(true)
        .open(data.join("gate.log"))
        .unwrap();
    std::io::Write::write_all(&mut log, b"{\"payl").unwrap();
    let mut service = Service::start(place.path(), Some(FAST));
    service.until_ready();
    let answer = service.post("/gate/check", token.trim(), &nobody);
    assert_eq!(answer.code, 403, "{}", answer.text);
    assert_eq!(lines(), 3);

    // Records that are gone are missed.
    service.terminate();
    assert_eq!(service.ends(), Some(0));
    let whole = fs::read_to_string(data.join("gate.log")).unwrap();
    fs::write(
        data.join("gate.log"),
        whole.lines().next().unwrap().to_owned() + "\n",
    )
    .unwrap();
    let refused = program(place.path(), Some(FAST)).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("gate.log") && said.contains("record 1 of the log"),
        "{said}"
    );
}

#[test]
fn it_goes_on_where_it_was_stopped() {
    let place = tempfile::tempdir().unwrap();
    let mut service = Service::start(place.path(), Some(FAST));
    service.until("/metrics/backup", "groundtackle_backup_last_height 599");
    service.terminate();
    assert_eq!(service.ends(), Some(0));
    fs::write(place.path().join("token"), "geheim\n").unwrap();
    let drains = format!(
        "{FAST}\n[http]\ndrain = \"3s\"\nall_are_operators = false\noperator_token_file = \"token\"\n"
    );
    let mut service = Service::start(place.path(), Some(&drains));
    service.until_ready();
    assert_eq!(service.get("/metrics").code, 401);
    assert_eq!(service.get_as("/metrics", "geheim").code, 200);
    service.until("/metrics/backup", "groundtackle_backup_last_height 599");
    service.terminate();
    // It answers still, for who has to see that it goes.
    service.polls("/readyz", |answer| answer.code == 503);
    assert_eq!(service.ends(), Some(0));
    let said = service.said();
    for again in ["made a key", "connected", "backed up"] {
        assert!(!said.contains(again), "{again}: {said}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let place = tempfile::tempdir().unwrap();
    let drains = format!("{FAST}\n[http]\ndrain = \"10m\"\n");
    let mut service = Service::start(place.path(), Some(&drains));
    service.terminate();
    service.waits_for("asked to stop");
    service.terminate();
    assert_eq!(service.ends(), Some(130));
}

#[test]
fn it_is_ready_again_after_kill_9() {
    let place = tempfile::tempdir().unwrap();
    let slow = FAST.replace("demo_pace = \"1ms\"", "demo_pace = \"50ms\"");
    for round in 0..3 {
        let mut service = Service::start(place.path(), Some(&slow));
        // On a slow machine the chain may be whole before the last round: nothing is left to back up then.
        if round == 0 {
            service.waits_for("backed up");
        }
        service.until_ready();
        service.kill();
    }
    let often = FAST.replace("drill_every = \"1h\"", "drill_every = \"2s\"");
    let mut service = Service::start(place.path(), Some(&often));
    service.until_ready();
    // All of it was connected once, and what was restored is what was backed up.
    service.until("/metrics/backup", "groundtackle_backup_last_height 599");
    service.until("/metrics/backup", "groundtackle_drill_last_good_height 599");
    service.until("/metrics/backup", "groundtackle_drill_last_passed 1");
    service.terminate();
    assert_eq!(service.ends(), Some(0));
}

#[test]
fn keys_that_are_gone_are_missed_and_not_made_anew() {
    let place = tempfile::tempdir().unwrap();
    let mut service = Service::start(place.path(), Some(FAST));
    service.waits_for("backed up");
    service.terminate();
    assert_eq!(service.ends(), Some(0));
    let key = place.path().join("node-service-data/keys/identities.txt");
    fs::remove_file(&key).unwrap();
    let refused = program(place.path(), Some(FAST)).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("identities.txt is missing"), "{said}");
    assert!(!key.exists());
}

#[test]
fn a_bad_config_is_named_with_file_line_and_key() {
    let place = tempfile::tempdir().unwrap();
    for (config, says) in [
        ("[http]\nlisten = \"here\"\n", "node.toml:2: listen: "),
        (
            "[backup]\nevery = \"1m\"\ndrill_evry = \"1h\"\n",
            "node.toml:3: drill_evry: unknown field",
        ),
        (
            "[store]\nurl = \"postgres://me:geheim@host/db?nonsense=1\"\n",
            "node.toml:2: url: ",
        ),
        (
            "[backup]\nrecipients = [\"age1nobody\"]\n",
            "backup.drill_level: ",
        ),
    ] {
        for also in [None, Some("--check")] {
            let mut program = program(place.path(), Some(config));
            let refused = program.args(also).output().unwrap();
            let said = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(2), "{said}");
            assert!(said.contains(says) && !said.contains("geheim"), "{said}");
        }
    }
    let mut checks = program(place.path(), Some(FAST));
    assert!(checks.arg("--check").status().unwrap().success());
    assert!(!place.path().join("node-service-data").exists());
    let absent = Command::new(env!("CARGO_BIN_EXE_node-service"))
        .args(["--config", "/nowhere/node.toml"])
        .output()
        .unwrap();
    assert_eq!(absent.status.code(), Some(1));
    let said = String::from_utf8(absent.stderr).unwrap();
    assert!(said.contains("reading /nowhere/node.toml failed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_and_metrics_reach_a_collector_and_the_log_is_json() {
    let collector = Collector::start().await;
    let place = tempfile::tempdir().unwrap();
    let config = format!(
        "{FAST}\n[log]\nformat = \"json\"\n\n[telemetry]\nendpoint = \"http://{}\"\nmetrics_every = \"1s\"\nservice_name = \"node-1\"\n\
         headers = {{ authorization = \"Bearer geheim\" }}\n",
        collector.at
    );
    let mut service = Service::start(place.path(), Some(&config));
    service.waits_for("the drill passed");
    service.terminate();
    assert_eq!(service.ends(), Some(0));
    // The end waits until the last ones are sent.
    let got = collector.got();
    for span in [
        "utxo_store.connect_block",
        "node_service.backup",
        "node_service.drill",
    ] {
        assert!(got.spans.contains(span), "{span}: {:?}", got.spans);
    }
    assert!(
        got.metrics.contains("utxo_store_call_duration_seconds"),
        "{:?}",
        got.metrics
    );
    assert_eq!(got.services.iter().collect::<Vec<_>>(), ["node-1"]);
    assert_eq!(got.tokens.iter().collect::<Vec<_>>(), ["Bearer geheim"]);
    let said = service.said();
    assert!(!said.contains("geheim"), "{said}");
    for line in said.lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            line["level"].is_string() && line["message"].is_string(),
            "{line}"
        );
    }
}

#[test]
fn an_absent_collector_stops_nothing() {
    let place = tempfile::tempdir().unwrap();
    let config =
        format!("{FAST}\n[telemetry]\nendpoint = \"http://127.0.0.1:1\"\nmetrics_every = \"1s\"\n");
    let mut service = Service::start(place.path(), Some(&config));
    service.waits_for("the drill passed");
    service.until_ready();
    let began = service.terminate();
    assert_eq!(service.ends(), Some(0));
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
}
