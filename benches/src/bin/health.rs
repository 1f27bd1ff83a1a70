//! Measures what probes of a service with a thousand checks cost, beside a handler that returns a constant. Prints the table of
//! `docs/benchmarks.md`. Linux only.
//!
//! The server is a process of its own; of its checks one hangs, one panics and one is slow. Requests come over loopback, on
//! connections that stay open: first at a rate, whatever the answers take, then as fast as answers come.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use groundtackle_benches::BoxError;
use groundtackle_benches::machine::{machine, rss_mib, server_cpu};
use groundtackle_health_check::{Check, Health, Name, Observation, Schedule, Scheduler, Settings};
use groundtackle_health_check_http::{HttpHealthConfig, router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

const USAGE: &str = "health [--requests 1000000] [--rate 10000] [--seconds 10]";

const CHECKS: usize = 1_000;
const CONNECTIONS: u32 = 10;
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
    fn start() -> Result<Self, BoxError> {
        let mut child = Command::new(std::env::current_exe()?)
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

struct Client {
    stream: TcpStream,
    request: String,
    buffer: Vec<u8>,
}

impl Client {
    async fn new(at: SocketAddr, path: &str) -> Result<Self, BoxError> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            request: format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n"),
            buffer: vec![0; 1 << 20],
        })
    }

    /// The status and the body.
    async fn ask(&mut self) -> Result<(u16, String), BoxError> {
        self.stream.write_all(self.request.as_bytes()).await?;
        let mut have = 0;
        loop {
            let room = self.buffer.get_mut(have..).ok_or("too long an answer")?;
            match self.stream.read(room).await? {
                0 => return Err("the server went away".into()),
                read => have += read,
            }
            let text = std::str::from_utf8(self.buffer.get(..have).unwrap_or_default())?;
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let mut lines = head.lines();
            let status = lines.next().and_then(|line| line.split(' ').nth(1));
            let length = lines.find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.ok_or("no length")?.parse()?;
            if body.len() >= length {
                return Ok((status.ok_or("no status")?.parse()?, body.to_owned()));
            }
        }
    }
}

/// Each latency in microseconds: from when a request should have been sent, if the answer before it held it up.
async fn at_rate(
    at: SocketAddr,
    path: &'static str,
    requests: u32,
    rate: u32,
) -> Result<Vec<u32>, BoxError> {
    let begin = Instant::now() + Duration::from_millis(100);
    let mut tasks = Vec::new();
    for i in 0..CONNECTIONS {
        let mut client = Client::new(at, path).await?;
        tasks.push(tokio::spawn(async move {
            let every = Duration::from_secs(1) * CONNECTIONS / rate;
            let mut due = begin + every * i / CONNECTIONS;
            let mut took = Vec::new();
            for _ in 0..requests / CONNECTIONS {
                let held_up = Instant::now() > due;
                if !held_up {
                    sleep_until(due).await;
                }
                // A timer that is late is not the server's doing.
                let from = if held_up { due } else { Instant::now() };
                let (status, _) = client.ask().await.map_err(|error| error.to_string())?;
                if status != 200 {
                    return Err(format!("{path} answered {status}"));
                }
                took.push(u32::try_from(from.elapsed().as_micros()).unwrap_or(u32::MAX));
                due += every;
            }
            Ok(took)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    all.sort_unstable();
    Ok(all)
}

/// Requests a second, with one answer awaited on each connection.
async fn as_fast_as_it_goes(at: SocketAddr, path: &str, lasts: Duration) -> Result<f64, BoxError> {
    let mut tasks = Vec::new();
    let begin = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut client = Client::new(at, path).await?;
        tasks.push(tokio::spawn(async move {
            let mut done = 0_u64;
            while begin.elapsed() < lasts {
                client.ask().await.map_err(|error| error.to_string())?;
                done += 1;
            }
            Ok::<_, String>(done)
        }));
    }
    let mut done = 0;
    for task in tasks {
        done += task.await??;
    }
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}

/// Runs of checks so far.
async fn runs(at: SocketAddr) -> Result<f64, BoxError> {
    let (_, metrics) = Client::new(at, "/metrics").await?.ask().await?;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("health_check_runs_total "));
    Ok(line.ok_or("no count of runs")?.parse()?)
}

fn percentile(sorted: &[u32], part: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * part) as usize;
    f64::from(sorted.get(at).copied().unwrap_or_default())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (mut requests, mut rate, mut seconds) = (1_000_000, 10_000, 10);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "serve" {
            return serve().await;
        }
        let value = arguments.next().ok_or(USAGE)?.parse()?;
        match name.as_str() {
            "--requests" => requests = value,
            "--rate" => rate = value,
            "--seconds" => seconds = value,
            _ => return Err(USAGE.into()),
        }
    }
    println!("{}\n", machine());
    let server = Server::start()?;
    let (at, pid) = (server.at, server.child.id());
    // All have run, and are known.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (before, begin) = (runs(at).await?, Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let alone = (runs(at).await? - before) / begin.elapsed().as_secs_f64();

    println!(
        "{requests} requests at {rate} a second, {CONNECTIONS} connections, {CHECKS} checks\n"
    );
    println!(
        "| | p50 | p99 | p99.9 | most | server CPU a request | runs of checks a second | memory |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    println!(
        "| nothing asked | | | | | | {alone:.0} | {:.1} MiB |",
        rss_mib(pid)?
    );
    for path in PATHS {
        let (before, cpu, begin) = (runs(at).await?, server_cpu(pid)?, Instant::now());
        let took = at_rate(at, path, requests, rate).await?;
        let lasted = begin.elapsed().as_secs_f64();
        let each = (server_cpu(pid)? - cpu) / f64::from(requests) * 1e6;
        let ran = (runs(at).await? - before) / lasted;
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
        let rate = as_fast_as_it_goes(at, path, Duration::from_secs(seconds.into())).await?;
        let ratio = rate / *limit.get_or_insert(rate);
        println!("| `{path}` | {rate:.0} | {ratio:.2} |");
    }
    println!("\nmemory at the end: {:.1} MiB", rss_mib(pid)?);
    Ok(())
}
