//! Eleven real processes, on free ports.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Until something that comes has come, on a machine that does much else.
const LONG: Duration = Duration::from_secs(120);

/// Who needs whom, written down once more.
const NEEDS: [(&str, &[&str]); 11] = [
    ("utxo store", &[]),
    ("cache", &[]),
    ("object store", &[]),
    ("node", &["utxo store", "object store"]),
    ("mempool", &["node"]),
    ("indexer", &["node", "utxo store", "cache"]),
    ("backup", &["utxo store", "object store"]),
    ("notifier", &["mempool", "cache"]),
    ("api", &["indexer", "cache"]),
    ("explorer", &["api"]),
    ("gateway", &["api", "explorer"]),
];

fn program(arguments: &[&str]) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_start-order"));
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", program.parent().unwrap().display());
    let mut program = Command::new(program);
    program.args(arguments).env("PATH", path);
    program
}

/// The file that is here, on free ports.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(change: impl Fn(String) -> String) -> Self {
        // All at once, so that no two are the same.
        let held: Vec<_> = NEEDS
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .into();
        let mut text = fs::read_to_string("services.toml").unwrap();
        for (held, port) in held.iter().zip(7101..) {
            let free = held.local_addr().unwrap().port().to_string();
            assert_eq!(text.matches(&format!(":{port}")).count(), 2);
            text = text.replace(&format!(":{port}"), &format!(":{free}"));
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("services.toml"), change(text)).unwrap();
        Self { folder }
    }

    fn file(&self) -> String {
        self.folder
            .path()
            .join("services.toml")
            .display()
            .to_string()
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// Where in the journal each line is.
    fn happened(&self) -> BTreeMap<String, usize> {
        let text = fs::read_to_string(self.journal()).unwrap();
        let lines: BTreeMap<_, _> = text.lines().map(str::to_owned).zip(0..).collect();
        assert_eq!(
            lines.len(),
            text.lines().count(),
            "something came twice: {text}"
        );
        lines
    }

    fn ran(&self, arguments: &[&str]) -> Output {
        let (verb, rest) = arguments.split_first().unwrap();
        let mut program = program(&[verb, &self.file()]);
        program.args(rest).output().unwrap()
    }
}

struct Running {
    child: Child,
    lines: Receiver<String>,
    said: String,
}

impl Running {
    fn start(place: &Place) -> Self {
        let mut child = program(&["run", &place.file()])
            .env("STAND_IN_JOURNAL", place.journal())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (told, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    break;
                }
            }
        });
        let said = String::new();
        Self { child, lines, said }
    }

    #[track_caller]
    fn says(&mut self, words: &str) {
        let until = Instant::now() + LONG;
        while !self.said.contains(words) {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{words:?} was not said:\n{}", self.said);
            };
            self.said += &format!("{line}\n");
        }
    }

    /// By SIGTERM; the exit code.
    fn stops(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        // The shell's own: there is no `kill` on a bare Debian.
        let told = Command::new("sh")
            .args(["-c", "kill -TERM $0", &id])
            .status();
        assert!(told.unwrap().success());
        let code = self.child.wait().unwrap().code();
        self.said.extend(self.lines.iter().map(|line| line + "\n"));
        code
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Killed, it could not stop its children.
        if self.child.try_wait().unwrap().is_none() {
            self.stops();
        }
    }
}

#[test]
fn eleven_services_start_in_order_and_stop_in_reverse() {
    let place = Place::new(|text| text);
    let mut running = Running::start(&place);
    running.says("all 11 are ready; critical path: ");
    assert_eq!(running.stops(), Some(0), "{}", running.said);
    let happened = place.happened();
    assert_eq!(happened.len(), 33, "{happened:?}");
    for (name, needs) in NEEDS {
        for need in needs {
            let at = |name: &str, what: &str| happened[&format!("{name} {what}")];
            assert!(
                at(need, "is ready") < at(name, "starts"),
                "{name} needs {need}: {happened:?}"
            );
            assert!(
                at(name, "stops") < at(need, "stops"),
                "{name} needs {need}: {happened:?}"
            );
        }
    }
    // What needs nothing does not wait for anybody.
    for first in ["utxo store", "cache", "object store"] {
        assert!(
            running
                .said
                .contains(&format!("starting {first}, which needs nothing"))
        );
    }
}

#[test]
fn one_that_ends_holds_up_who_needs_it_and_nobody_else() {
    let ends = |text: String| {
        let usual = "\"--ready-after\", \"600ms\"";
        assert_eq!(text.matches(usual).count(), 1);
        text.replace(
            usual,
            "\"--ready-after\", \"1h\", \"--ends-after\", \"100ms\"",
        )
    };
    let place = Place::new(ends);
    let mut running = Running::start(&place);
    running.says(
        "indexer ended before it was ready: exit status: 3; it holds up api, explorer, gateway",
    );
    for others in ["mempool", "backup", "notifier"] {
        running.says(&format!("{others} is ready"));
    }
    assert_eq!(running.stops(), Some(1), "{}", running.said);
    let happened = place.happened();
    let starts = happened.keys().filter(|line| line.ends_with(" starts"));
    assert_eq!(starts.count(), 8, "{happened:?}");
    for held in ["api", "explorer", "gateway"] {
        assert!(
            !happened.contains_key(&format!("{held} starts")),
            "{happened:?}"
        );
    }
}

#[test]
fn one_that_never_gets_ready_is_named_and_the_others_go_on() {
    let slow = |text: String| {
        let text = text.replacen(
            "takes = \"800ms\"",
            "takes = \"800ms\"\nwithin = \"1500ms\"",
            1,
        );
        text.replacen(
            "\"--ready-after\", \"800ms\"",
            "\"--ready-after\", \"1h\"",
            1,
        )
    };
    let place = Place::new(slow);
    let mut running = Running::start(&place);
    running.says("node is not ready after 1.5s (status); it holds up mempool, indexer, notifier, api, explorer, gateway");
    running.says("backup is ready");
    // Who waits by himself is told the same.
    let waited = place.ran(&["wait", "api", "--within", "1s"]);
    let said = String::from_utf8(waited.stdout).unwrap();
    assert_eq!(waited.status.code(), Some(1), "{said}");
    assert!(
        said.contains("api waits for node (") && said.contains("which holds up indexer"),
        "{said}"
    );
    let waited = place.ran(&["wait", "backup", "--within", "1m"]);
    assert_eq!(waited.status.code(), Some(0));
    assert_eq!(running.stops(), Some(1), "{}", running.said);
}

#[test]
fn the_plan_shows_order_path_and_who_waits_for_whom() {
    let ran = program(&["plan", "services.toml"]).output().unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    // 500 for the store, 800 for the node, 600 for the indexer, 300 for the API, 200 for the explorer, 100 for the gateway.
    for line in [
        "1. utxo store: needs nothing; ready after 500.0ms; it holds up node, mempool, indexer, backup, notifier, api, explorer, gateway",
        "\n11. gateway: needs api, explorer; ready after 2.5s; it holds up nothing",
        "\ncritical path: utxo store (500.0ms), node (1.3s), indexer (1.9s), api (2.2s), explorer (2.4s), gateway (2.5s)\n",
    ] {
        assert!(said.contains(line), "{line:?}: {said}");
    }
}

#[test]
fn circles_and_unknown_names_are_refused_with_the_names() {
    let circle = |text: String| {
        text.replace(
            "depends_on = [\"node\"]",
            "depends_on = [\"node\", \"notifier\"]",
        )
    };
    let unknown = |text: String| text.replace("depends_on = [\"node\"]", "depends_on = [\"nod\"]");
    let readiness = |text: String| text.replacen("\"startup\"", "\"readiness\"", 1);
    type Case = (fn(String) -> String, &'static [&'static str]);
    let changes: [Case; 3] = [
        (circle, &["services.toml:", "mempool", "notifier", "circle"]),
        (unknown, &["services.toml:", "\"nod\""]),
        (readiness, &["utxo store", "has to be startup"]),
    ];
    for (change, words) in changes {
        let place = Place::new(change);
        for verb in [&["plan"][..], &["run"], &["wait", "api"]] {
            let ran = place.ran(verb);
            let said = String::from_utf8(ran.stderr).unwrap();
            assert_eq!(ran.status.code(), Some(2), "{said}");
            assert!(
                words.iter().all(|word| said.contains(word)),
                "{words:?}: {said}"
            );
        }
    }
    let place = Place::new(|text| text);
    let ran = place.ran(&["wait", "moon"]);
    assert_eq!(ran.status.code(), Some(2));
}
