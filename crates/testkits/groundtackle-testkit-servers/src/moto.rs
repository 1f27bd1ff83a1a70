use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Process, free_port};

/// Names the Python interpreter that has `moto[server]`; otherwise `python3` is asked.
const PYTHON: &str = "GROUNDTACKLE_TEST_MOTO";

/// moto looks at a condition and writes in two steps, which two requests can do at once; S3 does not. Bodies are read
/// before, so that a slow client is in nobody's way.
const SERVER: &str = r#"
import io, logging, re, sys, threading, time
from werkzeug.serving import run_simple
from moto.core.utils import unix_time_millis
from moto.s3.models import FakeMultipart, S3Backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
logging.getLogger("werkzeug").setLevel(logging.ERROR)
app = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()

# moto says of all unfinished uploads that they were begun in 2010.
begun = {}
create = FakeMultipart.__init__
def create_and_note(self, *args, **kwargs):
    create(self, *args, **kwargs)
    begun[self.id] = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
FakeMultipart.__init__ = create_and_note

# moto leaves the first key behind a marker out, unless the marker is a key.
list_versions = S3Backend.list_object_versions
def list_versions_behind(self, bucket_name, delimiter=None, key_marker=None, max_keys=1000, prefix="", version_id_marker=None):
    if key_marker is not None and not version_id_marker:
        versions = [v for _, of_key in self.get_bucket(bucket_name).keys.iterlists() for v in of_key if v.name <= key_marker]
        versions.sort(key=lambda v: (v.name, -unix_time_millis(v.last_modified)))
        key_marker = versions[-1].name if versions else None
        version_id_marker = versions[-1].version_id if versions else None
    return list_versions(self, bucket_name, delimiter, key_marker, max_keys, prefix, version_id_marker)
S3Backend.list_object_versions = list_versions_behind

def with_time(upload):
    number = re.search(rb"<UploadId>(.*?)</UploadId>", upload.group(0))
    when = begun[number.group(1).decode()].encode()
    return re.sub(rb"<Initiated>.*?</Initiated>", b"<Initiated>" + when + b"</Initiated>", upload.group(0))

def corrected(environ, start_response):
    began = []
    body = b"".join(app(environ, lambda *begin: began.extend(begin)))
    # It names the answer after the operation, S3 does not.
    body = body.replace(b"GetBucketVersioningResponse", b"VersioningConfiguration")
    body = re.sub(rb"<Upload>.*?</Upload>", with_time, body, flags=re.DOTALL)
    headers = [header for header in began[1] if header[0].lower() != "content-length"]
    start_response(began[0], headers + [("Content-Length", str(len(body)))])
    return [body]

def one_write_at_a_time(environ, start_response):
    if environ["REQUEST_METHOD"] == "GET" and re.match("versioning|uploads", environ["QUERY_STRING"]):
        return corrected(environ, start_response)
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        return app(environ, start_response)
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    if len(body) < length:
        start_response("400 Bad Request", [])
        return [b""]
    environ["wsgi.input"] = io.BytesIO(body)
    with lock:
        return app(environ, start_response)

run_simple("127.0.0.1", int(sys.argv[1]), one_write_at_a_time, threaded=True, request_handler=MotoRequestHandler)
"#;

/// A server that speaks S3: moto, in memory.
#[derive(Debug)]
pub struct Moto {
    port: u16,
    process: Process,
    // Last, so that it goes when the server is gone.
    folder: TempDir,
}

fn python() -> String {
    std::env::var(PYTHON).unwrap_or_else(|_| "python3".into())
}

impl Moto {
    /// Whether there is a server to test with: the Python of `GROUNDTACKLE_TEST_MOTO`, or `python3`, has
    /// `moto[server]`.
    pub fn is_there() -> bool {
        let found = Command::new(python())
            .args(["-c", "import moto.server, moto.s3.models"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        found.is_ok_and(|status| status.success())
    }

    /// Starts a server without buckets.
    pub fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let port = free_port();
        Self {
            port,
            process: Self::launch(folder.path(), port),
            folder,
        }
    }

    fn launch(folder: &Path, port: u16) -> Process {
        let mut server = Command::new(python());
        server
            .args(["-c", SERVER, &port.to_string()])
            .env_remove("MOTO_PORT")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir(folder);
        let mut process = Process::start(server, folder);
        let up = process.is_up("moto", || {
            ask(port, "s3", "GET", "/moto-api/", &[], "").is_some()
        });
        assert!(up, "moto of PyPI's moto[server] ends");
        process
    }

    /// Its port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A new bucket, with object lock (and versions), or with neither.
    pub fn bucket(&self, object_lock: bool) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bucket-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let headers = [("x-amz-bucket-object-lock-enabled", "true")];
        let headers: &[_] = if object_lock { &headers } else { &[] };
        let answer = self.request("PUT", &format!("/{name}"), headers, "");
        assert!(answer.contains(" 200 "), "{answer}");
        name
    }

    /// Lets a bucket keep versions.
    pub fn keep_versions(&self, bucket: &str) {
        let body = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>Enabled</Status></VersioningConfiguration>";
        let answer = self.request("PUT", &format!("/{bucket}?versioning"), &[], body);
        assert!(answer.contains(" 200 "), "{answer}");
    }

    /// One request beside all others, and the answer as it is on the wire.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> String {
        ask(self.port, "s3", method, path, headers, body).expect("the server answers")
    }

    /// Lets in only [users](Self::user) from now on, by their keys and as far as they may; or everybody again.
    pub fn check_logins(&self, check: bool) {
        let after = if check { "0" } else { "inf" };
        let headers = [("Content-Type", "text/plain")];
        let answer = self.request("POST", "/moto-api/reset-auth", &headers, after);
        assert!(answer.contains(" 200 "), "{answer}");
    }

    /// A new key of a user, who may do these things, such as `s3:*`, and no others: its identifier, and itself. While logins are checked
    /// it can't be made.
    pub fn user(&self, name: &str, may: &[&str]) -> (String, String) {
        let may: Vec<_> = may.iter().map(|may| format!("%22{may}%22")).collect();
        let policy = format!(
            "%7B%22Version%22:%222012-10-17%22,%22Statement%22:[%7B%22Effect%22:%22Allow%22,%22Action%22:[{}],%22Resource%22:%22*%22%7D]%7D",
            may.join(",")
        );
        let manage = |action: &str| {
            let body = format!("Action={action}&UserName={name}&Version=2010-05-08");
            let headers = [("Content-Type", "application/x-www-form-urlencoded")];
            ask(self.port, "iam", "POST", "/", &headers, &body).expect("the server answers")
        };
        // It may be there already.
        manage("CreateUser");
        let put = manage(&format!(
            "PutUserPolicy&PolicyName=it&PolicyDocument={policy}"
        ));
        assert!(put.contains(" 200 "), "{put}");
        let made = manage("CreateAccessKey");
        let part = |name: &str| {
            let (_, rest) = made.split_once(&format!("<{name}>")).expect("a key");
            let (part, _) = rest.split_once('<').expect("a key");
            part.to_owned()
        };
        (part("AccessKeyId"), part("SecretAccessKey"))
    }

    /// Kills the server in the middle of whatever it does; what it had is gone.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Starts it again after [`kill`](Self::kill) on the same port, without buckets.
    pub fn restart(&mut self) {
        self.process = Self::launch(self.folder.path(), self.port);
    }

    /// Makes it stand still: it takes what is sent, and does not answer.
    pub fn freeze(&self) {
        self.process.stop_threads();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.kill();
    }
}

fn ask(
    port: u16,
    service: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .ok()?;
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}
