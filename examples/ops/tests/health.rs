//! Checks run once, watched and served, by the program itself.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command};
use std::time::{Duration, Instant};

use groundtackle_backup::{Hex, SigningKey};
use serde_json::Value;
use support::backups::Backups;
use support::{Place, Ran, command, ops, signal};

/// One check of a port, which is looked at ten times a second.
fn check(name: &str, port: &TcpListener, more: &str) -> String {
    format!(
        "[[checks]]\nname = \"{name}\"\nkind = \"readiness\"\n{more}\n\
         schedule = {{ period = \"100ms\", timeout = \"50ms\", failures_to_down = 1, successes_to_up = 1 }}\n\
         probe = {{ tcp = {{ address = \"{}\" }} }}\n\n",
        port.local_addr().unwrap()
    )
}

fn open() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn write(place: &Place, config: &str) -> String {
    let path = place.file("health.toml");
    fs::write(&path, config).unwrap();
    path.to_str().unwrap().to_owned()
}

fn once(config: &str) -> Ran {
    ops(&["health", "--once", "--json", "--config", config])
}

#[test]
fn once_says_what_is_and_answers_no_if_the_service_is_not_ready() {
    let place = Place::new();
    let (up, down) = (open(), open());
    let extra = "required = false";
    let checks = check("database", &up, "") + &check("cache", &down, extra);
    let config = write(&place, &checks);
    let address = down.local_addr().unwrap();
    drop(down);

    let ran = once(&config).exits(0);
    let answer = ran.answer();
    assert_eq!(answer["ready"], true);
    assert_eq!(answer["outcome"], "warn");
    let checks = answer["checks"].as_array().unwrap();
    assert_eq!(checks[0]["outcome"], "pass");
    assert_eq!(checks[1]["outcome"], "fail");
    assert!(
        checks[1]["detail"]
            .as_str()
            .unwrap()
            .contains(&address.to_string())
    );
    let text = ops(&["health", "--once", "--config", &config])
        .exits(0)
        .stdout;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "pass    database");
    assert!(lines[1].starts_with("fail    cache     "), "{text}");
    assert_eq!(lines[2], "warn    all");

    drop(up);
    let ran = once(&config).exits(1).says(&["not ready"]);
    assert_eq!(ran.answer()["ready"], false);
}

#[test]
fn a_store_is_looked_at_by_its_url() {
    let place = Place::new();
    let probe = format!(
        "[[checks]]\nname = \"coins\"\nkind = \"readiness\"\nprobe = {{ utxo_store = {{ url = \"{}\" }} }}\n",
        place.url()
    );
    let config = write(&place, &probe);
    let absent = once(&config).exits(1).answer();
    assert_eq!(absent["checks"][0]["cause"], "store-not-open");
    place.sync_to(9);
    assert_eq!(
        once(&config).exits(0).answer()["checks"][0]["outcome"],
        "pass"
    );
    let old = write(
        &place,
        &probe.replace("\" } }", "\", expect = { fail_tip_age = \"24h\" } } }"),
    );
    let old = once(&old).exits(1).answer();
    assert_eq!(old["checks"][0]["cause"], "stale-tip");
}

#[test]
fn a_backup_is_looked_at_where_it_lies() {
    let backups = Backups::new();
    let repository = backups.place.file("repository");
    let seed = fs::read_to_string(backups.place.file("signer.key")).unwrap();
    let seed: Hex<32> = seed.trim().parse().unwrap();
    let signer = SigningKey::from_seed(&seed.0).public();
    let check = |place: &str, more: &str| {
        format!(
            "[[checks]]\nname = \"backup\"\nkind = \"readiness\"\nschedule = {{ period = \"30s\", timeout = \"20s\" }}\n\
             probe = {{ backup = {{ {place}, tip_of = {:?}, expect = {{ trusted = [\"{signer}\"], fail_age = \"26h\", {more} }} }} }}\n",
            backups.place.url(),
        )
    };
    let folder = format!("folder = {:?}", repository.to_str().unwrap());
    let seen = |check: &str, code: i32| {
        let answer = once(&write(&backups.place, check)).exits(code).answer();
        let said = |key: &str| {
            answer["checks"][0][key]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        (said("outcome"), said("cause"), said("detail"))
    };
    let told = |outcome: &str, cause: &str| (outcome.to_owned(), cause.to_owned());
    let judged = |check: &str, code: i32| {
        let (outcome, cause, _) = seen(check, code);
        (outcome, cause)
    };
    let behind = "fail_lag_blocks = 5, fail_drill_age = \"840h\"";
    assert_eq!(judged(&check(&folder, ""), 1), told("fail", "no-backup"));
    let nowhere = format!(
        "folder = {:?}",
        backups.place.file("nowhere").to_str().unwrap()
    );
    assert_eq!(
        judged(&check(&nowhere, ""), 1),
        told("fail", "target-not-open")
    );
    backups.sync_to(9);
    backups.backup("run", &[]).exits(0);
    assert_eq!(
        judged(&check(&folder, behind), 1),
        told("fail", "never-proven")
    );
    backups.backup("drill", &[]).exits(0);
    let (outcome, cause, detail) = seen(&check(&folder, behind), 0);
    assert_eq!((outcome, cause), told("pass", "ok"));
    assert!(
        detail.contains("block 9") && detail.contains("it is 0 blocks behind the tip"),
        "{detail}"
    );
    // Several places, one of which is away, are one repository.
    let several =
        format!("target = [{{ name = \"here\", {folder} }}, {{ name = \"there\", {nowhere} }}]");
    assert_eq!(judged(&check(&several, ""), 0), told("pass", "ok"));
    backups.sync_to(15);
    let (outcome, cause, detail) = seen(&check(&folder, behind), 1);
    assert_eq!((outcome, cause), told("fail", "behind"));
    assert!(detail.contains("6 blocks behind"), "{detail}");
}

#[test]
fn a_bad_config_is_told_with_file_line_and_key() {
    let place = Place::new();
    let good = check("a", &open(), "") + "[service]\nlisten = \"127.0.0.1:0\"\n";
    for (from, to, says) in [
        (
            "kind =",
            "kid =",
            "health.toml:3: checks[0].kid: unknown field `kid`",
        ),
        (
            "{ tcp =",
            "{ tpc =",
            "checks[0].probe.tpc: unknown variant `tpc`",
        ),
        (
            "listen",
            "lisen",
            "health.toml:9: service.lisen: unknown field `lisen`",
        ),
        (
            "\"127.0.0.1:0\"",
            "\"here\"",
            "service.listen: invalid socket address",
        ),
        (
            "\"50ms\"",
            "\"5s\"",
            "health.toml:5: checks[0].schedule.period: check \"a\": period (100ms) is below the timeout (5s)",
        ),
        (
            "kind = \"readiness\"\n",
            "kind = \"readiness\"\ndepends_on = [\"a\"]\n",
            "health.toml:4: checks[0].depends_on: dependencies go in a circle: \"a\" needs \"a\"",
        ),
        (
            "[service]",
            "[[checks]]\nname = \"a\"\nkind = \"readiness\"\nprobe = { tcp = { address = \"127.0.0.1:1\" } }\n[service]",
            "health.toml:9: checks[1].name: check \"a\" is there twice",
        ),
        (
            "[service]",
            "[[objectives]]\nname = \"o\"\nsubset = \"nobody\"\ntarget = 0.9\nwindow = \"month\"\n[service]",
            "health.toml:10: objectives[0].subset: the set of checks of objective \"o\" is empty",
        ),
    ] {
        let config = write(&place, &good.replacen(from, to, 1));
        for args in [&["health", "--once"][..], &["health"], &["serve"]] {
            let ran = ops(&[args, &["--config", &config]].concat());
            ran.exits(2).says(&[says]);
        }
    }
    for args in [&["health", "--once"][..], &["health"], &["serve"]] {
        let empty = write(&place, "\nchecks = []\n");
        let ran = ops(&[args, &["--config", &empty]].concat());
        ran.exits(2)
            .says(&["health.toml:2: checks: checks is empty"]);
    }
    ops(&["health", "--config", "/nowhere/at/all.toml"])
        .exits(66)
        .says(&["/nowhere/at/all.toml"]);
    ops(&["health", "--once"]).exits(2).says(&["--config"]);
}

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = command(args).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> Value {
        let line = self.lines.next().expect("it goes on").unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn stop(mut self) -> i32 {
        signal(&self.child, "-TERM");
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The status and the body.
fn get(at: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, body.to_owned())
}

fn becomes(at: SocketAddr, path: &str, status: u16) {
    let until = Instant::now() + Duration::from_secs(30);
    while get(at, path).0 != status {
        assert!(Instant::now() < until, "{path} does not become {status}");
    }
}

#[test]
fn serve_answers_probes_and_ends_when_it_is_told_to() {
    let place = Place::new();
    let port = open();
    let ledger = place.file("ledger");
    let service = format!(
        "[service]\nlisten = \"127.0.0.1:0\"\nledger = {:?}\nhttp = {{ title = \"A & B\", all_are_operators = true }}\n",
        ledger.to_str().unwrap()
    );
    let config = write(
        &place,
        &(check("database", &port, "public = true") + &service),
    );
    let args = ["serve", "--json", "--config", &config];
    let mut serving = Running::start(&args);
    let at = serving.line()["listening"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(get(at, "/livez").0, 200);
    becomes(at, "/readyz", 200);
    let (status, page) = get(at, "/status");
    assert_eq!(status, 200);
    assert!(
        page.contains("A &amp; B") && page.contains("database"),
        "{page}"
    );
    assert!(get(at, "/metrics").1.contains("health_ready 1"));
    // One ledger has one writer.
    ops(&args).exits(75).says(&["in use by another process"]);

    drop(port);
    becomes(at, "/readyz", 503);
    // A client that says nothing holds nobody up.
    let idle = TcpStream::connect(at).unwrap();
    let begin = Instant::now();
    assert_eq!(serving.stop(), 0);
    assert!(begin.elapsed() < Duration::from_secs(20));
    drop(idle);
    assert!(ledger.exists());
    let taken = TcpListener::bind(at).unwrap();
    let config = write(&place, &service.replace("127.0.0.1:0", &at.to_string()));
    let with_check = fs::read_to_string(&config).unwrap() + &check("a", &taken, "");
    ops(&["serve", "--config", &write(&place, &with_check)])
        .exits(75)
        .says(&[&at.to_string()]);
}

/// The body of the next request to a webhook.
fn posted(hook: &TcpListener) -> Value {
    let (mut stream, _) = hook.accept().unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    stream
        .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn serve_speaks_grpc_and_tells_a_webhook() {
    let place = Place::new();
    let (port, hook) = (open(), open());
    let service = format!(
        "[service]\nlisten = \"127.0.0.1:0\"\ngrpc = \"127.0.0.1:0\"\n\
         [[service.notify]]\nhow = {{ group_wait = \"10ms\" }}\n\
         by = {{ webhook = {{ url = \"http://{}/hook\", key = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\", service = \"node 1\" }} }}\n",
        hook.local_addr().unwrap()
    );
    let config = write(
        &place,
        &(check("database", &port, "public = true") + &service),
    );
    let mut serving = Running::start(&["serve", "--json", "--config", &config]);
    let line = serving.line();
    let at = line["listening"].as_str().unwrap().parse().unwrap();
    becomes(at, "/readyz", 200);
    let grpc = format!("http://{}", line["grpc"].as_str().unwrap());
    let status = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let channel = tonic::transport::Endpoint::new(grpc)
            .unwrap()
            .connect()
            .await
            .unwrap();
        let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
        let request = tonic_health::pb::HealthCheckRequest {
            service: String::new(),
        };
        client.check(request).await.unwrap().into_inner().status()
    });
    assert_eq!(status, tonic_health::ServingStatus::Serving.into());

    drop(port);
    let message = posted(&hook);
    assert_eq!(message["service"], "node 1");
    assert_eq!(message["items"][0]["name"], "database");
    assert_eq!(message["items"][0]["down"], true);
    assert_eq!(serving.stop(), 0);
}

/// The checks that the adapters ship are configs of this program; the addresses in them are the user's to change.
#[test]
fn ready_sets_are_read() {
    let adapters = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/adapters");
    let mut read = 0;
    for adapter in fs::read_dir(adapters).unwrap() {
        let Ok(sets) = fs::read_dir(adapter.unwrap().path().join("sets")) else {
            continue;
        };
        for set in sets {
            let path = set.unwrap().path();
            let config = path.to_str().unwrap();
            let what = [
                "health",
                "export",
                "--for",
                "prometheus",
                "--config",
                config,
            ];
            ops(&what).exits(0);
            read += 1;
        }
    }
    assert!(read >= 5, "{read} sets");
}

#[test]
fn each_change_is_told() {
    let place = Place::new();
    let port = open();
    let config = write(&place, &check("database", &port, ""));
    let mut watching = Running::start(&["health", "--json", "--config", &config]);
    let up = watching.line();
    assert_eq!(
        (&up["check"], &up["to"]),
        (&"database".into(), &"pass".into()),
        "{up}"
    );
    drop(port);
    let down = watching.line();
    assert_eq!(
        (&down["from"], &down["to"]),
        (&"pass".into(), &"fail".into()),
        "{down}"
    );
    assert_eq!(watching.stop(), 0);
}

fn promtool(file: &std::path::Path) {
    let done = Command::new("promtool")
        .args(["check", "rules"])
        .arg(file)
        .output();
    let done = done.expect("promtool, from Debian's package prometheus, is on the PATH");
    assert!(done.status.success(), "{done:?}");
}

/// The config in README.md is one, and what is exported from it is what Prometheus and Grafana read.
#[test]
fn rules_and_a_dashboard_come_from_the_config() {
    let place = Place::new();
    let readme = include_str!("../README.md");
    let shown = readme.split("```toml\n").find_map(|part| {
        let part = part.split("```").next()?;
        part.contains("[[checks]]").then_some(part)
    });
    let config = write(&place, shown.unwrap());
    let export = |what| {
        ops(&["health", "export", "--config", &config, "--for", what])
            .exits(0)
            .stdout
    };
    let rules = place.file("rules.yml");
    fs::write(&rules, export("prometheus")).unwrap();
    promtool(&rules);
    assert!(
        fs::read_to_string(&rules)
            .unwrap()
            .contains("HealthErrorBudgetBurns")
    );
    let dashboard: Value = serde_json::from_str(&export("grafana")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 5);
}
