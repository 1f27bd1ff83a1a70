//! The real program, beside a real node and beside one that answers as a test says.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Until something that comes has come, on a machine that does much else.
const LONG: Duration = Duration::from_secs(120);

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_ethereum-readiness"));
    let environment = [("LISTEN", "127.0.0.1:0"), ("ETHEREUM_PERIOD", "300ms")];
    program
        .args(arguments)
        .envs(environment)
        .stderr(Stdio::piped());
    program
}

struct Sidecar {
    at: SocketAddr,
    child: Ended,
}

impl Sidecar {
    fn start(mut program: Command) -> Self {
        let mut child = Ended(program.spawn().unwrap());
        let log = BufReader::new(child.0.stderr.take().unwrap());
        let mut lines = log.lines().map_while(Result::ok);
        let serving = lines.find_map(|line| {
            let (_, url) = line.split_once("serving, see http://")?;
            Some(url.strip_suffix("/status")?.parse().unwrap())
        });
        // Nobody may be kept from logging.
        std::thread::spawn(move || lines.for_each(drop));
        let at = serving.unwrap();
        Self { at, child }
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.at).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let code = text.split(' ').nth(1).unwrap().parse().unwrap();
        (code, text)
    }

    #[track_caller]
    fn becomes(&self, path: &str, wanted: u16, says: &str) {
        let until = Instant::now() + LONG;
        loop {
            let (code, text) = self.get(path);
            if code == wanted && text.contains(says) {
                return;
            }
            assert!(Instant::now() < until, "{path}, {wanted} {says:?}: {text}");
            sleep(Duration::from_millis(50));
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A chain of its own, with a block a second.
fn anvil(port: u16) -> Option<Ended> {
    let program = std::env::var("GROUNDTACKLE_TEST_ANVIL").unwrap_or_else(|_| "anvil".into());
    let started = Command::new(program)
        .args(["--silent", "--block-time", "1", "--port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match started {
        Ok(child) => Some(Ended(child)),
        Err(_) => {
            eprintln!("SKIPPED: GROUNDTACKLE_TEST_ANVIL names none, and there is none on the PATH");
            None
        }
    }
}

#[test]
fn a_real_node_is_ready_is_killed_and_comes_back() {
    let port = free_port();
    let Some(node) = anvil(port) else { return };
    let url = format!("http://127.0.0.1:{port}");
    // It has no peers to count.
    let peers = ["--min-peers", "0", "--warn-peers", "0"];
    let mut program = program(&["--chain-id", "31337"]);
    program.args(peers).env("ETHEREUM_NODE", &url);
    let sidecar = Sidecar::start(program);
    sidecar.becomes("/readyz", 200, "pass");
    sidecar.becomes("/startupz", 200, "pass");
    sidecar.becomes("/metrics", 200, "\nhealth_ready 1\n");
    sidecar.becomes("/status", 200, "Ethereum node");
    drop(node);
    sidecar.becomes("/readyz?verbose", 503, "refused");
    sidecar.becomes("/metrics", 200, "\nhealth_ready 0\n");
    // It restarts neither what watches nor what has started.
    assert_eq!(sidecar.get("/livez").0, 200);
    assert_eq!(sidecar.get("/startupz").0, 200);
    let _node = anvil(port).unwrap();
    sidecar.becomes("/readyz", 200, "pass");
}

/// Answers as it is told.
struct Scripted {
    url: String,
    answers: Arc<Mutex<HashMap<&'static str, Value>>>,
    _runtime: Runtime,
}

fn block(height: u64) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let (hash, time) = (format!("{height:#066x}"), now.unwrap().as_secs());
    json!({ "number": format!("{height:#x}"), "hash": hash, "timestamp": format!("{time:#x}"), "extraData": "0x" })
}

impl Scripted {
    /// One of main net that is well, at this height.
    fn at(height: u64) -> Self {
        let answers = Arc::new(Mutex::new(HashMap::from([
            ("eth_chainId", json!("0x1")),
            ("eth_syncing", json!(false)),
            ("net_peerCount", json!("0x19")),
            ("eth_blockNumber", json!(format!("{height:#x}"))),
        ])));
        let told = answers.clone();
        let answer = move |body: Bytes| {
            let call: Value = serde_json::from_slice(&body).unwrap();
            let method = call["method"].as_str().unwrap();
            let result = match method {
                "eth_getBlockByNumber" => {
                    let asked = call["params"][0].as_str().unwrap();
                    let digits = asked.strip_prefix("0x");
                    // Safe and finalized lag as they do on main net.
                    block(match (asked, digits) {
                        (_, Some(digits)) => u64::from_str_radix(digits, 16).unwrap(),
                        ("safe", _) => height - 40,
                        ("finalized", _) => height - 80,
                        _ => height,
                    })
                }
                _ => told.lock().unwrap()[method].clone(),
            };
            std::future::ready(
                json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }).to_string(),
            )
        };
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let url = format!("http://{}/v3/k3yk3yk3y", listener.local_addr().unwrap());
        let routes = Router::new().route("/v3/k3yk3yk3y", post(answer));
        runtime.spawn(axum::serve(listener, routes).into_future());
        Self {
            url,
            answers,
            _runtime: runtime,
        }
    }

    fn set(&self, method: &'static str, answer: Value) {
        self.answers.lock().unwrap().insert(method, answer);
    }
}

#[test]
fn a_node_that_syncs_has_not_started_and_is_not_ready() {
    let node = Scripted::at(20_000_000);
    node.set(
        "eth_syncing",
        json!({ "currentBlock": "0x5", "highestBlock": "0x9" }),
    );
    let sidecar = Sidecar::start(program(&["--node", &node.url]));
    sidecar.becomes("/readyz?verbose", 503, "node: fail (syncing)");
    sidecar.becomes("/startupz", 503, "fail");
    node.set("eth_syncing", json!(false));
    sidecar.becomes("/startupz", 200, "pass");
    sidecar.becomes("/readyz", 200, "pass");
    node.set("eth_chainId", json!("0x5"));
    sidecar.becomes("/readyz?verbose", 503, "wrong-chain");
}

#[test]
fn a_node_that_is_behind_the_others_is_not_ready_and_their_keys_are_not_shown() {
    let (node, other) = (Scripted::at(20_000_000), Scripted::at(20_000_100));
    let mut program = program(&["--node", &node.url]);
    program.env("ETHEREUM_REFERENCES", format!("{0},{0}", other.url));
    let sidecar = Sidecar::start(program);
    sidecar.becomes("/readyz?verbose", 503, "node: fail (lag): ");
    for path in ["/readyz?verbose", "/status", "/health", "/metrics"] {
        assert!(!sidecar.get(path).1.contains("k3yk3yk3y"), "{path}");
    }
}

/// With a token, for who listens where strangers are.
#[test]
fn strangers_see_the_outcome_and_no_reasons() {
    let node = Scripted::at(20_000_000);
    let mut program = program(&["--node", &node.url, "--listen", "0.0.0.0:0"]);
    program.env("OPERATOR_TOKEN", "correct horse");
    let sidecar = Sidecar::start(program);
    sidecar.becomes("/readyz?verbose", 200, "\r\n\r\npass\n");
    assert_eq!(sidecar.get("/metrics").0, 401);
}

#[test]
fn what_cannot_be_is_refused_and_a_key_in_it_is_not_said() {
    for (arguments, says) in [
        (vec!["--node", "ftp://k3yk3yk3y"], "the node's URL is no "),
        (vec!["--reference", "k3yk3yk3y"], "a reference's URL is no "),
        (vec!["--min-references", "2"], "as many of them"),
        (vec!["--consensus", "nowhere"], "is no address"),
        (vec!["--period", "1ms"], "period"),
    ] {
        let ran = program(&arguments).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(says) && !said.contains("k3yk3yk3y"), "{said}");
    }
}

#[test]
fn it_ends_when_it_is_told_to() {
    let node = Scripted::at(20_000_000);
    let mut sidecar = Sidecar::start(program(&["--node", &node.url]));
    let id = sidecar.child.0.id().to_string();
    // The shell's own: there is no `kill` on a bare Debian.
    let told = Command::new("sh")
        .args(["-c", "kill -TERM $0", &id])
        .status();
    assert!(told.unwrap().success());
    assert_eq!(sidecar.child.0.wait().unwrap().code(), Some(0));
}
