//! Measures what probes of a service with a thousand checks cost, beside a handler that returns a constant. Prints the table of
//! `docs/benchmarks.md`. Linux only.
//!
//! The server is a process of its own, on the first core; of its checks one hangs, one panics and one is slow. Requests come over loopback
//! from one thread on the second core, which never sleeps, so that no timer and no other thread is measured with them. They stay on open
//! connections: first each at its time, whatever the answers take, then as fast as answers come. How late the second core is by
//! itself is told as well: no server answers sooner.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use groundtackle_benches::BoxError;
use groundtackle_benches::machine::{machine, rss_mib, server_cpu};
use groundtackle_health_check::{Check, Health, Name, Observation, Schedule, Scheduler, Settings};
use groundtackle_health_check_http::{HttpHealthConfig, router};
use tokio::net::TcpListener;

const USAGE: &str = "health [--requests 1000000] [--rate 10000] [--seconds 10] [--first 1]

The server goes before all else that runs on its core, which takes root; with --first 0 it is one of many, and what the machine does
beside, for up to a time slice of milliseconds each, is measured as well.";

const CHECKS: usize = 1_000;
const CONNECTIONS: usize = 10;
const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";
const PATHS: [&str; 2] = ["/constant", "/readyz"];

#[derive(Debug)]
enum Kind {
    Passes,
    Hangs,
    Panics,
    Slow,
}

#[async_trait]
impl Check for Kind {
    #[allow(clippy::panic, reason = "that is what is measured")]
    async fn check(&self) -> Observation {
        match self {
            Self::Passes => Observation::pass(),
            Self::Hangs => std::future::pending().await,
            Self::Panics => panic!("as it should"),
            Self::Slow => {
                tokio::time::sleep(Duration::from_millis(900)).await;
                Observation::pass()
            }
        }
    }
}

/// The server's process.
async fn serve() -> Result<(), BoxError> {
    // One that panics each second says nothing new.
    std::panic::set_hook(Box::new(|_| ()));
    let mut builder = Health::builder();
    for i in 0..CHECKS {
        let (kind, required) = match i {
            0 => (Kind::Hangs, false),
            1 => (Kind::Panics, false),
            2 => (Kind::Slow, true),
            _ => (Kind::Passes, true),
        };
        let schedule = Schedule::default()
            .with_period(Duration::from_secs(1))
            .with_timeout(Duration::from_secs(1));
        let settings = Settings::default()
            .with_schedule(schedule)
            .with_required(required);
        builder = builder.readiness(Name::try_from(format!("check {i}"))?, settings, kind);
    }
    let health = builder.build()?;
    let _scheduler = Scheduler::start(&health);
    let config = HttpHealthConfig::default().with_all_are_operators(true);
    let constant = Router::new().route("/constant", get(|| async { "pass\n" }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, router(health, config).merge(constant)).await?;
    Ok(())
}

struct Server {
    child: Child,
    at: SocketAddr,
}

impl Server {
    fn start(first: bool) -> Result<Self, BoxError> {
        let scheduling: &[&str] = match first {
            true => &["--rr", "1"],
            false => &["--other", "0"],
        };
        let mut child = Command::new("chrt")
            .args(scheduling)
            .args(["taskset", "--cpu-list", SERVER_CORE])
            .arg(std::env::current_exe()?)
            .arg("serve")
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        let line = BufReader::new(out).lines().next().ok_or("no address")??;
        Ok(Self {
            child,
            at: line.parse()?,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Puts this process on its core.
fn stay_apart() -> Result<(), BoxError> {
    let moved = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", CLIENT_CORE])
        .arg(std::process::id().to_string())
        .stdout(Stdio::null())
        .status()?;
    match moved.success() {
        true => Ok(()),
        false => Err("client and server need a core each, and taskset of util-linux".into()),
    }
}

struct Client {
    stream: TcpStream,
    request: String,
    buffer: Vec<u8>,
    have: usize,
    /// When the request should have been sent that is under way.
    due: Instant,
}

impl Client {
    fn new(at: SocketAddr, path: &str) -> Result<Self, BoxError> {
        let stream = TcpStream::connect(at)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            request: format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n"),
            buffer: vec![0; 1 << 20],
            have: 0,
            due: Instant::now(),
        })
    }

    fn several(at: SocketAddr, path: &str) -> Result<Vec<Self>, BoxError> {
        (0..CONNECTIONS).map(|_| Self::new(at, path)).collect()
    }

    /// One request after another fits into the socket's buffer.
    fn send(&mut self, due: Instant) -> Result<(), BoxError> {
        (self.have, self.due) = (0, due);
        Ok(self.stream.write_all(self.request.as_bytes())?)
    }

    /// The status and the body, once they are there.
    fn poll(&mut self) -> Result<Option<(u16, &str)>, BoxError> {
        let room = self
            .buffer
            .get_mut(self.have..)
            .ok_or("too long an answer")?;
        match self.stream.read(room) {
            Ok(0) => return Err("the server went away".into()),
            Ok(read) => self.have += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let text = std::str::from_utf8(self.buffer.get(..self.have).unwrap_or_default())?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return Ok(None);
        };
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let length = lines.find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.ok_or("no length")?.parse()?;
        let status = status.ok_or("no status")?.parse()?;
        Ok((body.len() >= length).then_some((status, body)))
    }

    /// Whether the answer is there; it must be that all is well.
    fn is_answered(&mut self) -> Result<bool, BoxError> {
        match self.poll()? {
            None => Ok(false),
            Some((200, _)) => Ok(true),
            Some((status, _)) => Err(format!("it answered {status}").into()),
        }
    }
}

/// Each latency in microseconds, from when the request should have been sent: what waits for a connection is late.
fn at_rate(
    at: SocketAddr,
    path: &'static str,
    requests: u32,
    rate: u32,
) -> Result<Vec<u32>, BoxError> {
    let (mut idle, mut busy) = (Client::several(at, path)?, Vec::new());
    let mut took = Vec::with_capacity(requests.try_into()?);
    let every = Duration::from_secs(1) / rate;
    let mut due = Instant::now() + Duration::from_millis(100);
    let mut left = requests;
    while left > 0 || !busy.is_empty() {
        if left > 0
            && Instant::now() >= due
            && let Some(mut client) = idle.pop()
        {
            client.send(due)?;
            busy.push(client);
            due += every;
            left -= 1;
        }
        let mut waiting = Vec::with_capacity(CONNECTIONS);
        for mut client in busy {
            if client.is_answered()? {
                took.push(u32::try_from(client.due.elapsed().as_micros()).unwrap_or(u32::MAX));
                idle.push(client);
            } else {
                waiting.push(client);
            }
        }
        busy = waiting;
    }
    took.sort_unstable();
    Ok(took)
}

/// How late a core is that does nothing but look at the clock: what the machine takes away from it.
fn lateness(requests: u32, rate: u32) -> Vec<u32> {
    let every = Duration::from_secs(1) / rate;
    let mut due = Instant::now();
    let mut late: Vec<_> = (0..requests)
        .map(|_| {
            due += every;
            loop {
                if let Some(late) = Instant::now().checked_duration_since(due) {
                    break u32::try_from(late.as_micros()).unwrap_or(u32::MAX);
                }
            }
        })
        .collect();
    late.sort_unstable();
    late
}

/// Requests a second, with one answer awaited on each connection.
fn as_fast_as_it_goes(at: SocketAddr, path: &str, lasts: Duration) -> Result<f64, BoxError> {
    let mut clients = Client::several(at, path)?;
    let begin = Instant::now();
    for client in &mut clients {
        client.send(begin)?;
    }
    let mut done = 0_u64;
    while begin.elapsed() < lasts {
        for client in &mut clients {
            if client.is_answered()? {
                done += 1;
                client.send(begin)?;
            }
        }
    }
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}

/// Runs of checks so far.
fn runs(at: SocketAddr) -> Result<f64, BoxError> {
    let mut client = Client::new(at, "/metrics")?;
    client.send(Instant::now())?;
    loop {
        if let Some((_, metrics)) = client.poll()? {
            let line = metrics
                .lines()
                .find_map(|line| line.strip_prefix("health_check_runs_total "));
            return Ok(line.ok_or("no count of runs")?.parse()?);
        }
    }
}

fn percentile(sorted: &[u32], part: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * part) as usize;
    f64::from(sorted.get(at).copied().unwrap_or_default())
}

fn main() -> Result<(), BoxError> {
    let (mut requests, mut rate, mut seconds, mut first) = (1_000_000, 10_000, 10, 1);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "serve" {
            // As many threads as it has cores.
            return tokio::runtime::Runtime::new()?.block_on(serve());
        }
        let value = arguments.next().ok_or(USAGE)?.parse()?;
        match name.as_str() {
            "--requests" => requests = value,
            "--rate" => rate = value,
            "--seconds" => seconds = value,
            "--first" => first = value,
            _ => return Err(USAGE.into()),
        }
    }
    println!("{}\n", machine());
    stay_apart()?;
    let server = Server::start(first != 0)?;
    let (at, pid) = (server.at, server.child.id());
    // All have run, and are known.
    std::thread::sleep(Duration::from_secs(5));
    let (before, begin) = (runs(at)?, Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let alone = (runs(at)? - before) / begin.elapsed().as_secs_f64();

    println!(
        "{requests} requests at {rate} a second, {CONNECTIONS} connections, {CHECKS} checks; a core for the server{} and one for the client\n",
        match first {
            0 => "",
            _ => ", before all else there,",
        }
    );
    println!(
        "| | p50 | p99 | p99.9 | most | server CPU a request | runs of checks a second | memory |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    println!(
        "| nothing asked | | | | | | {alone:.0} | {:.1} MiB |",
        rss_mib(pid)?
    );
    let late = lateness(requests, rate);
    println!(
        "| a core that looks at the clock | {:.0} µs | {:.0} µs | {:.0} µs | {:.1} ms | | | |",
        percentile(&late, 0.5),
        percentile(&late, 0.99),
        percentile(&late, 0.999),
        percentile(&late, 1.0) / 1e3
    );
    for path in PATHS {
        let (before, cpu, begin) = (runs(at)?, server_cpu(pid)?, Instant::now());
        let took = at_rate(at, path, requests, rate)?;
        let lasted = begin.elapsed().as_secs_f64();
        let each = (server_cpu(pid)? - cpu) / f64::from(requests) * 1e6;
        let ran = (runs(at)? - before) / lasted;
        println!(
            "| `{path}` | {:.0} µs | {:.0} µs | {:.0} µs | {:.1} ms | {each:.1} µs | {ran:.0} | {:.1} MiB |",
            percentile(&took, 0.5),
            percentile(&took, 0.99),
            percentile(&took, 0.999),
            percentile(&took, 1.0) / 1e3,
            rss_mib(pid)?,
        );
    }
    println!("\nAs fast as it goes\n\n| | requests a second | ratio |\n|---|---|---|");
    let mut limit = None;
    for path in PATHS {
        let rate = as_fast_as_it_goes(at, path, Duration::from_secs(seconds.into()))?;
        let ratio = rate / *limit.get_or_insert(rate);
        println!("| `{path}` | {rate:.0} | {ratio:.2} |");
    }
    println!("\nmemory at the end: {:.1} MiB", rss_mib(pid)?);
    Ok(())
}
