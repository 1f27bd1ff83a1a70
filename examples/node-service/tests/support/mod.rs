//! Runs the real program, and asks it over the network.

pub mod chain;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::resource::v1::Resource;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Until something that comes has come, on a machine that does much else.
pub const LONG: Duration = Duration::from_secs(120);

/// All that has a schedule, as fast as it goes.
pub const FAST: &str = "[blocks]\nevery = \"200ms\"\ndemo_pace = \"1ms\"\n\n[backup]\nevery = \"500ms\"\ndrill_every = \"1h\"\n";

/// In this folder, on free ports.
pub fn program(place: &Path, config: Option<&str>) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_node-service"));
    program.current_dir(place);
    if let Some(config) = config {
        fs::write(place.join("node.toml"), config).unwrap();
        program.args(["--config", "node.toml"]);
    }
    program.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
    program
}

#[derive(Debug)]
pub struct Service {
    child: Child,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    lines: Receiver<String>,
    said: String,
}

#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    /// With the headers.
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        let (_, body) = self.text.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }
}

impl Service {
    /// Until it serves.
    #[track_caller]
    pub fn start(place: &Path, config: Option<&str>) -> Self {
        let mut child = program(place, config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (told, lines) = channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    break;
                }
            }
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut service = Self {
            child,
            http: nowhere,
            grpc: nowhere,
            lines,
            said: String::new(),
        };
        let serving = service.waits_for("serving, see ");
        let address = |key: &str| {
            let (_, rest) = serving
                .rsplit_once(&format!("{key}="))
                .or_else(|| serving.rsplit_once(&format!("\"{key}\":\"")))
                .unwrap_or_else(|| panic!("{key}: {serving}"));
            let end = rest.find([' ', '"']).unwrap_or(rest.len());
            rest[..end].parse::<SocketAddr>().unwrap()
        };
        (service.http, service.grpc) = (address("http"), address("grpc"));
        service
    }

    /// A line of the log with these words.
    #[track_caller]
    pub fn waits_for(&mut self, words: &str) -> String {
        let until = Instant::now() + LONG;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{words:?} was not said:\n{}", self.said);
            };
            self.said += &format!("{line}\n");
            if line.contains(words) {
                return line;
            }
        }
    }

    /// All of the log, of a service that has ended.
    pub fn said(&mut self) -> String {
        for line in self.lines.iter() {
            self.said += &format!("{line}\n");
        }
        self.said.clone()
    }

    fn ask(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let code = text.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { code, text }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"
        ))
    }

    pub fn get_as(&self, path: &str, token: &str) -> Answer {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
        ))
    }

    pub fn post(&self, path: &str, token: &str, body: &str) -> Answer {
        self.ask(&format!(
            "POST {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    #[track_caller]
    pub fn polls(&self, path: &str, is_it: impl Fn(&Answer) -> bool) {
        let until = Instant::now() + LONG;
        loop {
            let answer = self.get(path);
            if is_it(&answer) {
                return;
            }
            assert!(Instant::now() < until, "{path}: {}", answer.text);
            sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    pub fn until_ready(&self) {
        self.polls("/readyz", |answer| answer.code == 200);
    }

    /// A line of metrics, whatever its labels.
    #[track_caller]
    pub fn until(&self, path: &str, metric: &str) {
        let (name, value) = metric.split_once(' ').unwrap();
        let is_it = |line: &str| line.starts_with(name) && line.ends_with(&format!(" {value}"));
        self.polls(path, |answer| answer.text.lines().any(is_it));
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// When.
    pub fn terminate(&self) -> Instant {
        self.signal(Signal::TERM);
        Instant::now()
    }

    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// The exit code.
    #[track_caller]
    pub fn ends(&mut self) -> Option<i32> {
        let until = Instant::now() + LONG;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not end");
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came over OTLP.
#[derive(Clone, Debug, Default)]
pub struct Got {
    pub spans: BTreeSet<String>,
    pub metrics: BTreeSet<String>,
    pub services: BTreeSet<String>,
    pub tokens: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub struct Collector {
    pub at: SocketAddr,
    got: Arc<Mutex<Got>>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self {
            at: listener.local_addr().unwrap(),
            got: Arc::default(),
        };
        let server = Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .add_service(MetricsServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        collector
    }

    pub fn got(&self) -> Got {
        self.got.lock().unwrap().clone()
    }

    fn note<T>(&self, request: &Request<T>, of: Option<&Resource>) {
        let mut got = self.got.lock().unwrap();
        if let Some(token) = request.metadata().get("authorization") {
            got.tokens.insert(token.to_str().unwrap().into());
        }
        let attributes = of.into_iter().flat_map(|resource| &resource.attributes);
        for attribute in attributes.filter(|attribute| attribute.key == "service.name") {
            if let Some(Any::StringValue(name)) = attribute
                .value
                .as_ref()
                .and_then(|value| value.value.clone())
            {
                got.services.insert(name);
            }
        }
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of in &request.get_ref().resource_spans {
            self.note(&request, of.resource.as_ref());
            let spans = of.scope_spans.iter().flat_map(|scope| &scope.spans);
            let names = spans.map(|span| span.name.clone());
            self.got.lock().unwrap().spans.extend(names);
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        for of in &request.get_ref().resource_metrics {
            self.note(&request, of.resource.as_ref());
            let metrics = of.scope_metrics.iter().flat_map(|scope| &scope.metrics);
            let names = metrics.map(|metric| metric.name.clone());
            self.got.lock().unwrap().metrics.extend(names);
        }
        Ok(Response::new(Default::default()))
    }
}
