//! The real program, asked as Argo Rollouts, Flagger and GitHub ask: with what the files here say.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use groundtackle_release_gate::Timestamp;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const TOKEN: &str = "7d1f0c1f4b6a44c8a2d3c6f10d7e4b8a7d1f0c1f4b6a44c8a2d3c6f10d7e4b8a";
/// As flagger/canary.yaml has it.
const ARTEFACT: &str = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
const DAY_SECS: i64 = 86_400;

fn program(arguments: &[&str], place: &TempDir) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_release-gate-webhook"));
    program.args(arguments).current_dir(place.path());
    program
}

fn ended(arguments: &[&str], place: &TempDir) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = program(arguments, place).output().unwrap();
    let said = [stdout, stderr].concat();
    (status.code(), String::from_utf8(said).unwrap())
}

/// The files that are here, without the weekend, in which these tests would be held.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let config = fs::read_to_string("gate.toml").unwrap();
    let policy = fs::read_to_string("policy.toml").unwrap();
    let (policy, _) = policy.split_once("[[window]]").unwrap();
    for (name, text) in [
        (
            "gate.toml",
            config.replace("127.0.0.1:8090", "127.0.0.1:0").as_str(),
        ),
        ("policy.toml", policy),
        ("gate.key", &"5e".repeat(32)),
        ("gate.token", TOKEN),
    ] {
        fs::write(place.path().join(name), text).unwrap();
    }
    tick(&place, true, 0);
    place
}

/// Rita says whether it was announced, so long ago.
fn tick(place: &TempDir, passed: bool, seconds_ago: i64) {
    let at = Timestamp::from_second(Timestamp::now().as_second() - seconds_ago).unwrap();
    let item = format!(
        "version = 1\n[[item]]\nid = \"announced\"\nartefact = \"{ARTEFACT}\"\nform = \"statement\"\npassed = {passed}\nby = \"rita\"\nat = \"{at}\"\n"
    );
    fs::write(place.path().join("checklist.toml"), item).unwrap();
}

struct Gate {
    child: Child,
    at: SocketAddr,
    key: String,
}

impl Gate {
    fn start(place: &TempDir) -> Self {
        let mut program = program(&["serve"], place);
        let mut child = program.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut lines = log.lines().map_while(Result::ok);
        let mut after = |words: &str| {
            let line = lines.find_map(|line| Some(line.split_once(words)?.1.to_owned()));
            line.unwrap_or_else(|| panic!("{words:?} was not said"))
        };
        let key = after("records are signed by ");
        let at = after("serving at http://").parse().unwrap();
        // Nobody may be kept from logging.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, at, key }
    }

    /// The status, and what was answered.
    fn post(&self, path: &str, headers: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.at).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .unwrap();
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: gate.example\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {length}\r\n{headers}Content-Type: application/json\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        (
            status,
            serde_json::from_str(body).unwrap_or_else(|_| json!(body)),
        )
    }

    fn stop(mut self) {
        let id = self.child.id().to_string();
        // The shell's own: there is no `kill` on a bare Debian.
        let told = Command::new("sh")
            .args(["-c", "kill -TERM $0", &id])
            .status();
        assert!(told.unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What stands in a file as JSON after these words, the last ones before it.
fn json_after(file: &str, words: &str) -> Value {
    let text = fs::read_to_string(file).unwrap();
    let (_, rest) = text.rsplit_once(words).unwrap();
    let mut values = serde_json::Deserializer::from_str(rest).into_iter();
    values.next().unwrap().unwrap()
}

/// As Argo Rollouts 1.9 posts a `web` metric: `jsonBody` and headers with the arguments in their places.
fn argo(gate: &Gate, token: &str) -> (u16, Value) {
    let mut body = json_after("argo/analysis-template.yaml", "jsonBody: ").to_string();
    for (name, value) in [
        ("name", "node"),
        ("tag", "1.4.0"),
        ("artefact", ARTEFACT),
        ("environment", "production"),
        ("actor", "argo-rollouts"),
        ("takes", "20m"),
    ] {
        body = body.replace(&format!("{{{{args.{name}}}}}"), value);
    }
    assert!(!body.contains("{{"), "{body}");
    gate.post(
        "/check",
        &format!("Authorization: Bearer {token}\r\n"),
        &body,
    )
}

/// As Flagger 1.44 posts: the login of the URL, and the payload of that type of hook.
fn flagger(gate: &Gate, phase: &str, token: &str) -> (u16, Value) {
    let metadata = json_after("flagger/canary.yaml", "metadata: ");
    let body = json!({ "name": "node", "namespace": "chain", "phase": phase, "checksum": "85d557f47b", "metadata": metadata });
    let login = STANDARD.encode(format!("flagger:{token}"));
    gate.post(
        "/flagger",
        &format!("Authorization: Basic {login}\r\n"),
        &body.to_string(),
    )
}

#[test]
fn argo_rollouts_and_flagger_get_200_for_go_and_nothing_else() {
    let place = place();
    let gate = Gate::start(&place);
    let (status, answer) = argo(&gate, TOKEN);
    // Its jsonPath.
    assert_eq!(
        (status, &answer["verdict"]),
        (200, &json!("go")),
        "{answer}"
    );
    // Of confirm-rollout, again while it waits, and of pre-rollout.
    for phase in ["Initialized", "Waiting", "Progressing"] {
        assert_eq!(flagger(&gate, phase, TOKEN).0, 200, "{phase}");
    }
    let found = |passed, seconds_ago| {
        tick(&place, passed, seconds_ago);
        let answers = [argo(&gate, TOKEN), flagger(&gate, "Waiting", TOKEN)];
        answers.map(|(status, answer)| (status, answer["verdict"].as_str().unwrap().to_owned()))
    };
    let both = |status: u16, verdict: &str| [(); 2].map(|()| (status, verdict.to_owned()));
    assert_eq!(found(false, 0), both(403, "no-go"));
    // What is older than the policy allows is not known, whatever it said.
    assert_eq!(found(true, DAY_SECS + 60), both(403, "inconclusive"));
    assert_eq!(found(true, DAY_SECS - 60), both(200, "go"));
    fs::remove_file(place.path().join("checklist.toml")).unwrap();
    assert_eq!(argo(&gate, TOKEN).0, 403, "what can't be read is not known");
}

#[test]
fn who_has_not_the_token_is_not_answered_and_not_recorded() {
    let place = place();
    let gate = Gate::start(&place);
    for token in ["", "TOKEN", &TOKEN[1..]] {
        assert_eq!(argo(&gate, token).0, 401);
        assert_eq!(flagger(&gate, "Progressing", token).0, 401);
    }
    assert_eq!(gate.post("/check", "", "{}").0, 401);
    assert_eq!(
        gate.post("/github", "", "{}").0,
        404,
        "no app is configured"
    );
    gate.stop();
    assert_eq!(fs::read(place.path().join("gate.log")).unwrap(), b"");
}

#[test]
fn the_log_goes_on_after_a_restart_and_is_verified_offline() {
    let place = place();
    let gate = Gate::start(&place);
    assert_eq!(argo(&gate, TOKEN).0, 200);
    let key = gate.key.clone();
    // Without a chance to write more.
    drop(gate);
    let gate = Gate::start(&place);
    assert_eq!(gate.key, key);
    tick(&place, false, 0);
    assert_eq!(flagger(&gate, "Waiting", TOKEN).0, 403);
    gate.stop();
    let verify = || ended(&["verify", "gate.log", "--trust", &key], &place);
    let (code, said) = verify();
    assert_eq!(code, Some(0), "{said}");
    for words in [
        " go: deploy of node 1.4.0 to production by argo-rollouts\n",
        " no-go: deploy of node 1.4.0 to production by flagger\n",
        "\n2 records, the last one sha256:",
    ] {
        assert!(said.contains(words), "{words:?}: {said}");
    }
    let path = place.path().join("gate.log");
    let right = fs::read(&path).unwrap();
    let first_line = right.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut changed = right.clone();
    changed[first_line / 2] ^= 1;
    for (what, log) in [
        ("changed", &changed[..]),
        ("cut short", &right[..first_line]),
        ("cut off", &right[first_line..]),
    ] {
        fs::write(&path, log).unwrap();
        let (code, said) = verify();
        assert_eq!(code, Some(1), "{what}: {said}");
        // Nor does the gate go on with it.
        assert_eq!(ended(&["serve"], &place).0, Some(1), "{what}");
    }
    fs::write(&path, &right).unwrap();
    let stranger = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(
        ended(&["verify", "gate.log", "--trust", stranger], &place).0,
        Some(1)
    );
    assert_eq!(verify().0, Some(0));
}

/// The lines of the workflow's first `run`, without what they are indented by.
fn script() -> String {
    let text = fs::read_to_string("github/deploy.yml").unwrap();
    let (_, rest) = text.split_once("run: |\n").unwrap();
    let lines = rest
        .lines()
        .map_while(|line| line.strip_prefix("          "));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_github_workflow_goes_on_after_a_go_alone() {
    for tool in ["bash", "curl", "jq"] {
        if Command::new(tool)
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_err()
        {
            eprintln!("SKIPPED: there is no {tool}");
            return;
        }
    }
    let place = place();
    let gate = Gate::start(&place);
    let run = |url: &str, token: &str| {
        let summary = place.path().join("summary.md");
        let _ = fs::remove_file(&summary);
        // As GitHub runs `shell: bash`.
        let status = Command::new("bash")
            .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", &script()])
            .envs([
                ("GATE", url),
                ("TOKEN", token),
                ("NAME", "node"),
                ("TAG", "1.4.0"),
            ])
            .envs([("ARTEFACT", ARTEFACT), ("ACTOR", "olga")])
            .env("GITHUB_STEP_SUMMARY", &summary)
            .current_dir(place.path())
            .stderr(Stdio::null())
            .status();
        (
            status.unwrap().success(),
            fs::read_to_string(&summary).unwrap_or_default(),
        )
    };
    let url = format!("http://{}", gate.at);
    assert_eq!(run(&url, TOKEN), (true, "**go**\n".into()));
    tick(&place, false, 0);
    let (goes_on, summary) = run(&url, TOKEN);
    assert!(
        !goes_on && summary.starts_with("**no-go**\n- checklist, announced: "),
        "{summary}"
    );
    let (goes_on, summary) = run(&url, "another");
    assert!(
        !goes_on && summary.contains("the token is missing or wrong"),
        "{summary}"
    );
    tick(&place, true, 0);
    gate.stop();
    assert!(!run(&url, TOKEN).0, "nobody answers");
}

/// GitHub's API, as far as a waiting job needs it, and what was posted there.
struct Hub {
    at: SocketAddr,
    posted: Arc<Mutex<Vec<(String, Value)>>>,
    _runtime: Runtime,
}

const COMMIT: &str = "6dcb09b5b57875f334f61aebed695e2e4193db5e";

impl Hub {
    fn start() -> Self {
        let posted: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let told = posted.clone();
        let person = json!({ "login": "olga" });
        let answer = move |uri: Uri, body: Bytes| {
            let answer = match uri.path() {
                "/repos/octo-org/node/releases/tags/1.4.0" => json!({
                    "draft": false, "tag_name": "1.4.0",
                    "assets": [{ "name": "image-manifest.json", "state": "uploaded", "digest": ARTEFACT }],
                }),
                "/repos/octo-org/node/commits/tags/1.4.0" => json!({
                    "sha": COMMIT, "author": person, "committer": person, "parents": [],
                    "commit": {
                        "message": "Release", "author": { "name": "O", "email": "o@example.org" },
                        "committer": { "name": "O", "email": "o@example.org" }, "verification": { "verified": true },
                    },
                }),
                path => {
                    let body = serde_json::from_slice(&body).unwrap_or_default();
                    told.lock().unwrap().push((path.to_owned(), body));
                    json!({})
                }
            };
            std::future::ready(answer.to_string())
        };
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let at = listener.local_addr().unwrap();
        let routes = Router::new().fallback(answer);
        runtime.spawn(axum::serve(listener, routes).into_future());
        Self {
            at,
            posted,
            _runtime: runtime,
        }
    }
}

#[test]
fn a_job_that_waits_on_github_is_approved_by_a_go_and_rejected_by_a_no() {
    const SECRET: &str = "sixteen characters or more";
    let (hub, place) = (Hub::start(), place());
    let config = fs::read_to_string(place.path().join("gate.toml")).unwrap();
    let (_, rule) = config.split_once("# [github]\n").unwrap();
    // The lines that are there to be taken in.
    let rule: String = rule
        .lines()
        .map(|line| line.trim_start_matches("# ").to_owned() + "\n")
        .collect();
    let rule = rule.replace("as_evidence = true", "as_evidence = false");
    let api = format!("api = \"http://{}\"\n", hub.at);
    fs::write(
        place.path().join("gate.toml"),
        format!("{config}[github]\n{rule}{api}"),
    )
    .unwrap();
    fs::write(place.path().join("github.secret"), SECRET).unwrap();
    fs::write(place.path().join("github.token"), "ghs_1").unwrap();
    let gate = Gate::start(&place);
    let callback = format!(
        "http://{}/repos/octo-org/node/actions/runs/42/deployment_protection_rule",
        hub.at
    );
    let delivery = json!({
        "action": "requested", "environment": "production", "event": "push", "deployment_callback_url": callback,
        "deployment": { "ref": "refs/tags/1.4.0", "sha": COMMIT }, "repository": { "full_name": "octo-org/node" },
        "sender": { "login": "olga" },
    });
    let delivery = delivery.to_string();
    let deliver = |secret: &str, event: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(delivery.as_bytes());
        let digits: String = mac
            .finalize()
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let headers =
            format!("X-GitHub-Event: {event}\r\nX-Hub-Signature-256: sha256={digits}\r\n");
        gate.post("/github", &headers, &delivery)
    };
    let states = || -> Vec<String> {
        let posted = hub.posted.lock().unwrap();
        posted
            .iter()
            .map(|(path, body)| {
                assert_eq!(
                    path,
                    "/repos/octo-org/node/actions/runs/42/deployment_protection_rule"
                );
                body["state"].as_str().unwrap_or("waits").to_owned()
            })
            .collect()
    };
    assert_eq!(
        deliver(
            "another secret of some length",
            "deployment_protection_rule"
        )
        .0,
        401
    );
    assert_eq!(deliver(SECRET, "ping").0, 200);
    assert!(states().is_empty());
    assert_eq!(
        deliver(SECRET, "deployment_protection_rule"),
        (200, json!("go\n"))
    );
    tick(&place, false, 0);
    assert_eq!(
        deliver(SECRET, "deployment_protection_rule"),
        (200, json!("no-go\n"))
    );
    tick(&place, true, 2 * DAY_SECS);
    assert_eq!(
        deliver(SECRET, "deployment_protection_rule"),
        (200, json!("inconclusive\n"))
    );
    assert_eq!(states(), ["approved", "rejected", "waits"]);
    let key = gate.key.clone();
    gate.stop();
    let (code, said) = ended(&["verify", "gate.log", "--trust", &key], &place);
    assert_eq!(code, Some(0));
    assert!(said.contains("\n3 records"), "{said}");
}
