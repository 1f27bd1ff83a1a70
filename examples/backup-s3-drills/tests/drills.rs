//! The program against a server that speaks S3, in a process of its own.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use groundtackle_backup::Hex;
use groundtackle_chain::{BlockFiles, BlockFilesConfig, BlockSource, Network};
use groundtackle_utxo_store::{BlockStore, MemoryUtxoStore, ScanStore};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const UP_WITHIN: Duration = Duration::from_secs(60);

/// moto, with one answer named as S3 names it.
const SERVER: &str = r#"
import logging, sys
from werkzeug.serving import run_simple
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
logging.getLogger("werkzeug").setLevel(logging.ERROR)
app = DomainDispatcherApplication(create_backend_app)

def corrected(environ, start_response):
    if not environ["QUERY_STRING"].startswith("versioning"):
        return app(environ, start_response)
    began = []
    body = b"".join(app(environ, lambda *begin: began.extend(begin)))
    body = body.replace(b"GetBucketVersioningResponse", b"VersioningConfiguration")
    headers = [header for header in began[1] if header[0].lower() != "content-length"]
    start_response(began[0], headers + [("Content-Length", str(len(body)))])
    return [body]

run_simple("127.0.0.1", int(sys.argv[1]), corrected, threaded=True)
"#;

/// A server with one bucket, and a folder for the program.
struct Place {
    server: Child,
    port: u16,
    folder: TempDir,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

impl Place {
    /// `None` where there is no server to test with, which is said.
    fn new() -> Option<Self> {
        let python = std::env::var("GROUNDTACKLE_TEST_MOTO").unwrap_or_else(|_| "python3".into());
        let found = Command::new(&python)
            .args(["-c", "import moto.server, moto.s3.models"])
            .output();
        if !found.is_ok_and(|found| found.status.success()) {
            let mut said = std::io::stderr();
            writeln!(
                said,
                "skipped: no moto[s3,server] in {python}; see README.md (NOTHING WAS TESTED)"
            )
            .unwrap();
            return None;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let server = Command::new(python)
            .args(["-c", SERVER, &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let folder = TempDir::new().unwrap();
        let place = Self {
            server,
            port,
            folder,
        };
        let until = Instant::now() + UP_WITHIN;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < until, "moto does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        place.ask("PUT", "/backups", b"");
        Some(place)
    }

    /// One request, and the body of the answer.
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n",
            self.port,
            body.len()
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        let head = String::from_utf8_lossy(&answer[..end]);
        assert!(head.contains(" 200 "), "{method} {path}: {head}");
        answer.split_off(end + 4)
    }

    /// Flips a bit in the middle of the largest object.
    fn damage(&self) {
        let listing = String::from_utf8(self.ask("GET", "/backups?list-type=2", b"")).unwrap();
        let part = |object: &str, name: &str| {
            let (_, rest) = object.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        let objects = listing.split("<Contents>").skip(1);
        let size = |object: &&str| part(object, "Size").parse::<u64>().unwrap();
        let largest = objects.max_by_key(size).unwrap();
        let path = format!("/backups/{}", part(largest, "Key"));
        let mut bytes = self.ask("GET", &path, b"");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.ask("PUT", &path, &bytes);
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    fn program(&self, args: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_backup-s3-drills"));
        program
            .args(args)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", "us-east-1")
            .env(
                "AWS_ENDPOINT_URL_S3",
                format!("http://127.0.0.1:{}", self.port),
            )
            .env("BACKUP_TLS", "off")
            .env("BACKUP_BUCKET", "backups")
            .env("BACKUP_DATA", self.folder.path().join("data"))
            .env("BACKUP_IDENTITIES", self.data("identities.txt"))
            .current_dir(self.folder.path());
        program
    }

    #[track_caller]
    fn exits(&self, code: i32, args: &[&str]) -> Output {
        let ran = self.program(args).output().unwrap();
        assert_eq!(ran.status.code(), Some(code), "{args:?}: {}", said(&ran));
        ran
    }

    fn figure(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.data("backup.prom")).unwrap_or_default();
        let start = format!("groundtackle_{name}{{stream=\"utxo\"}} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&start))
            .map(Into::into)
    }
}

fn said(ran: &Output) -> String {
    let [out, error] = [&ran.stdout, &ran.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{error}")
}

/// As `restore` prints it, from the specification.
fn digest_at(height: usize) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let config = BlockFilesConfig::new(Network::Main);
        let mut blocks = BlockFiles::open(vec![folder], config).await.unwrap();
        let store = MemoryUtxoStore::new();
        for _ in 0..=height {
            let block = blocks.next_block().await.unwrap().unwrap();
            store.connect_block(&block).await.unwrap().unwrap();
        }
        let mut muhash = store.digest().await.unwrap().muhash;
        muhash.reverse();
        format!("muhash {}", Hex(muhash))
    })
}

#[test]
fn what_is_backed_up_comes_back_at_any_height() {
    let Some(place) = Place::new() else { return };
    place.exits(0, &["init"]);
    for height in [49, 99, 149, 199] {
        place.exits(0, &["once"]);
        assert_eq!(place.figure("backup_last_height"), Some(height.to_string()));
    }
    assert_eq!(place.figure("drill_last_passed").as_deref(), Some("1"));
    // The first round's: the next one is not due before tomorrow.
    assert_eq!(
        place.figure("drill_last_good_height").as_deref(),
        Some("49")
    );
    place.exits(0, &["drill"]);
    assert_eq!(
        place.figure("drill_last_good_height").as_deref(),
        Some("199")
    );
    for (height, args) in [
        (199, &["restore", "latest"][..]),
        (120, &["restore", "at-120", "120"]),
    ] {
        let restored = said(&place.exits(0, args));
        assert!(
            restored.contains(&format!("restored height {height} ")),
            "{restored}"
        );
        assert!(restored.contains(&digest_at(height)), "{restored}");
    }
    let refused = said(&place.exits(1, &["restore", "latest"]));
    assert!(refused.contains("not empty"), "{refused}");
}

#[test]
fn damage_is_found_and_told() {
    let Some(place) = Place::new() else { return };
    place.exits(0, &["init"]);
    place.exits(0, &["once"]);
    place.damage();
    place.exits(3, &["drill"]);
    assert_eq!(place.figure("drill_last_passed").as_deref(), Some("0"));
    assert_eq!(
        place.figure("drill_last_good_height").as_deref(),
        Some("49")
    );
    place.exits(1, &["restore", "damaged"]);
}

#[test]
fn another_key_reads_nothing_and_another_signer_is_not_trusted() {
    let Some(place) = Place::new() else { return };
    place.exits(0, &["init"]);
    place.exits(0, &["once"]);
    let other = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n";
    fs::write(place.data("identities.txt"), other).unwrap();
    let refused = said(&place.exits(3, &["drill"]));
    assert!(refused.contains("no identity at hand opens"), "{refused}");
    let refused = said(&place.exits(1, &["restore", "unread"]));
    assert!(refused.contains("no identity at hand opens"), "{refused}");
    // A host that can't read backs up, and compares bytes.
    let ran = place
        .program(&["once"])
        .env_remove("BACKUP_IDENTITIES")
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", said(&ran));
    assert_eq!(place.figure("backup_last_height").as_deref(), Some("99"));
    fs::write(place.data("signer.key"), "11".repeat(32)).unwrap();
    let refused = said(&place.exits(1, &["once"]));
    assert!(refused.contains("opening the repository"), "{refused}");
}

#[test]
fn it_keeps_its_schedule_through_a_kill_and_ends_when_asked() {
    let Some(place) = Place::new() else { return };
    place.exits(0, &["init"]);
    let start = || {
        let mut program = place.program(&["run"]);
        let program = program
            .env("BACKUP_EVERY_SECONDS", "1")
            .env("RUST_LOG", "off");
        program.spawn().unwrap()
    };
    let until = |height: &str| {
        let until = Instant::now() + UP_WITHIN;
        while place.figure("backup_last_height").as_deref() != Some(height) {
            assert!(
                Instant::now() < until,
                "{height}: {:?}",
                place.figure("backup_last_height")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let mut killed = start();
    until("49");
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut running = start();
    until("199");
    kill_process(Pid::from_child(&running), Signal::INT).unwrap();
    assert!(running.wait().unwrap().success());
    let restored = said(&place.exits(0, &["restore", "after"]));
    assert!(restored.contains(&digest_at(199)), "{restored}");
}

#[test]
fn what_is_not_set_is_named() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_backup-s3-drills"));
    let ran = program
        .arg("once")
        .env_remove("BACKUP_BUCKET")
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(2));
    assert!(said(&ran).contains("BACKUP_BUCKET"), "{}", said(&ran));
}
