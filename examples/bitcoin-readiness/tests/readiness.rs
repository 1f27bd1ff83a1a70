//! The real program, beside nodes that answer as a test says.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    let mut program = Command::new(env!("CARGO_BIN_EXE_bitcoin-readiness"));
    let environment = [("LISTEN", "127.0.0.1:0"), ("BITCOIN_PERIOD", "300ms")];
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

/// Answers as it is told, to who sends its login.
struct Scripted {
    at: SocketAddr,
    url: String,
    answers: Arc<Mutex<HashMap<String, Value>>>,
    _runtime: Runtime,
}

fn hash(height: u64) -> String {
    format!("{height:064x}")
}

/// What Bitcoin, Bitcoin Cash and Bitcoin SV have there.
const BTC: (&str, &str) = (
    "getblockhash:478559",
    "00000000000000000019f112ec0a9982926f1258cdcc558dd7c3b7e5dc7fa148",
);
const BCH: (&str, &str) = (
    BTC.0,
    "000000000000000000651ef99cb9fcbe0dadde1d424bd9f15ff20136191a5eec",
);
const BSV: (&str, &str) = (
    "getblockhash:556767",
    "000000000000000001d956714215d96ffc00e0afda4cd0a96c96f8d802b1662b",
);

impl Scripted {
    /// One of main net that is well, at this height, and lets in who has this login.
    fn at(height: u64, login: &str) -> Self {
        Self::started(SocketAddr::from(([127, 0, 0, 1], 0)), height, login)
    }

    fn started(at: SocketAddr, height: u64, login: &str) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let chain = json!({
            "chain": "main", "blocks": height, "headers": height, "bestblockhash": hash(height),
            "initialblockdownload": false, "warnings": [],
        });
        let network = json!({ "connections": 8, "networkactive": true, "warnings": "" });
        let time = now.unwrap().as_secs();
        let answers = HashMap::from([
            ("getblockchaininfo".into(), chain),
            ("getnetworkinfo".into(), network),
            (
                "getblockheader".into(),
                json!({ "time": time, "mediantime": time - 3000 }),
            ),
            (BTC.0.into(), json!(BTC.1)),
        ]);
        let answers = Arc::new(Mutex::new(answers));
        let told = answers.clone();
        let login = format!("Basic {}", STANDARD.encode(login));
        let answer = move |headers: HeaderMap, body: Bytes| {
            let lets_in = login == "Basic "
                || headers
                    .get("authorization")
                    .is_some_and(|sent| sent == &login);
            let call: Value = serde_json::from_slice(&body).unwrap();
            let (method, first) = (call["method"].as_str().unwrap(), &call["params"][0]);
            let told = told.lock().unwrap();
            let result = told
                .get(&format!("{method}:{first}"))
                .or_else(|| told.get(method));
            let result = result
                .cloned()
                .unwrap_or_else(|| json!(hash(first.as_u64().unwrap())));
            std::future::ready(match (lets_in, result["code"].is_i64()) {
                (false, _) => (StatusCode::UNAUTHORIZED, String::new()),
                (true, true) => (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    json!({ "result": null, "error": result, "id": call["id"] }).to_string(),
                ),
                (true, false) => (
                    StatusCode::OK,
                    json!({ "result": result, "error": null, "id": call["id"] }).to_string(),
                ),
            })
        };
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(at)).unwrap();
        let at = listener.local_addr().unwrap();
        let routes = Router::new().route("/", post(answer));
        runtime.spawn(axum::serve(listener, routes).into_future());
        let url = format!("http://{at}");
        Self {
            at,
            url,
            answers,
            _runtime: runtime,
        }
    }

    fn set(&self, method: &str, answer: Value) {
        self.answers.lock().unwrap().insert(method.into(), answer);
    }

    fn change(&self, method: &str, key: &str, to: Value) {
        self.answers.lock().unwrap().get_mut(method).unwrap()[key] = to;
    }
}

#[test]
fn a_node_that_restarts_with_another_cookie_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let cookie = folder.path().join(".cookie");
    fs::write(&cookie, "__cookie__:first").unwrap();
    let node = Scripted::at(900_000, "__cookie__:first");
    let mut program = program(&["--node", &node.url, "--cookie-file"]);
    program.arg(&cookie);
    let sidecar = Sidecar::start(program);
    sidecar.becomes("/readyz", 200, "pass");
    sidecar.becomes("/startupz", 200, "pass");
    sidecar.becomes("/metrics", 200, "\nhealth_ready 1\n");
    sidecar.becomes("/status", 200, "Bitcoin node");
    let at = node.at;
    drop(node);
    sidecar.becomes("/readyz?verbose", 503, "refused");
    // It restarts neither what watches nor what has started.
    assert_eq!(sidecar.get("/livez").0, 200);
    assert_eq!(sidecar.get("/startupz").0, 200);
    let _node = Scripted::started(at, 900_001, "__cookie__:second");
    sidecar.becomes("/readyz?verbose", 503, "unauthorized");
    fs::write(&cookie, "__cookie__:second").unwrap();
    sidecar.becomes("/readyz", 200, "pass");
}

#[test]
fn a_node_that_starts_and_then_downloads_is_not_ready() {
    let node = Scripted::at(900_000, "health:secret");
    let right = node.answers.lock().unwrap()["getblockchaininfo"].clone();
    node.set(
        "getblockchaininfo",
        json!({ "code": -28, "message": "Loading block index…" }),
    );
    let mut program = program(&["--node", &node.url, "--user", "health"]);
    program.env("BITCOIN_PASSWORD", "secret");
    let sidecar = Sidecar::start(program);
    sidecar.becomes("/readyz?verbose", 503, "node: fail (starting)");
    node.set("getblockchaininfo", right);
    node.change("getblockchaininfo", "initialblockdownload", json!(true));
    sidecar.becomes(
        "/readyz?verbose",
        503,
        "node: fail (initial-block-download)",
    );
    sidecar.becomes("/startupz", 503, "fail");
    node.change("getblockchaininfo", "initialblockdownload", json!(false));
    sidecar.becomes("/startupz", 200, "pass");
    sidecar.becomes("/readyz", 200, "pass");
}

#[test]
fn a_node_of_another_chain_of_the_family_is_not_ready() {
    let node = Scripted::at(900_000, "");
    let btc = Sidecar::start(program(&["--node", &node.url]));
    let bsv = Sidecar::start(program(&["--node", &node.url, "--family", "bsv"]));
    btc.becomes("/readyz", 200, "pass");
    bsv.becomes("/readyz?verbose", 503, "node: fail (wrong-chain)");
    node.set(BCH.0, json!(BCH.1));
    node.set(BSV.0, json!(BSV.1));
    btc.becomes("/readyz?verbose", 503, "node: fail (wrong-chain)");
    bsv.becomes("/readyz", 200, "pass");
}

#[test]
fn a_node_that_is_behind_the_others_is_not_ready_and_their_logins_are_not_shown() {
    let (node, other) = (
        Scripted::at(900_000, ""),
        Scripted::at(900_010, "health:pa55w0rd"),
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("references.toml");
    let text = format!(
        "[[node]]\nurl = {:?}\nuser = \"health\"\npassword = \"pa55w0rd\"\n",
        other.url
    );
    fs::write(&file, text).unwrap();
    let mut program = program(&["--node", &node.url]);
    program.env("BITCOIN_REFERENCES", &file);
    let sidecar = Sidecar::start(program);
    sidecar.becomes("/readyz?verbose", 503, "node: fail (lag): ");
    for path in ["/readyz?verbose", "/status", "/health", "/metrics"] {
        assert!(!sidecar.get(path).1.contains("pa55w0rd"), "{path}");
    }
}

#[test]
fn what_cannot_be_is_refused_and_a_password_in_it_is_not_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("references.toml");
    fs::write(
        &file,
        "[[node]]\nurl = \"http://h:1\"\npassword = \"pa55w0rd\"\n",
    )
    .unwrap();
    for (arguments, says) in [
        (
            vec!["--node", "http://me:pa55w0rd@here"],
            "the node's URL is a URL with a login",
        ),
        (
            vec!["--references", file.to_str().unwrap()],
            "has one of user and password",
        ),
        (vec!["--references", "/nowhere"], "/nowhere: "),
        (vec!["--min-references", "2"], "as many of them"),
        (vec!["--user", "me"], "--password"),
        (vec!["--period", "1ms"], "period"),
    ] {
        let ran = program(&arguments).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(says) && !said.contains("pa55w0rd"), "{said}");
    }
}

#[test]
fn it_ends_when_it_is_told_to() {
    let node = Scripted::at(900_000, "");
    let mut sidecar = Sidecar::start(program(&["--node", &node.url]));
    let id = sidecar.child.0.id().to_string();
    // The shell's own: there is no `kill` on a bare Debian.
    let told = Command::new("sh")
        .args(["-c", "kill -TERM $0", &id])
        .status();
    assert!(told.unwrap().success());
    assert_eq!(sidecar.child.0.wait().unwrap().code(), Some(0));
}
