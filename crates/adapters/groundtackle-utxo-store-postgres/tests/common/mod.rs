//! One server for all tests of a process, and a way to it that counts and can be cut.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "each test uses what it needs; a test asserts"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use groundtackle_core::RetryConfig;
use groundtackle_testkit_servers::{Postgres, PostgresOptions};
use groundtackle_utxo_store_postgres::{PostgresUtxoStoreConfig, Tls};

/// Without `fsync`: what these tests check does not depend on it. Those that kill a server start one
/// with.
pub fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(PostgresOptions::default()))
}

/// A schema of its own.
pub struct Place(String);

impl Place {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(format!("case_{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    pub fn config(&self) -> PostgresUtxoStoreConfig {
        config(server()).with_schema(self.0.clone())
    }

    pub fn schema(&self) -> &str {
        &self.0
    }
}

pub fn config(server: &Postgres) -> PostgresUtxoStoreConfig {
    settings(server.url())
}

pub fn settings(url: String) -> PostgresUtxoStoreConfig {
    PostgresUtxoStoreConfig::new(url)
        .with_tls(Tls::Off)
        .with_allow_unsafe_durability(true)
        .with_max_batch_items(4_096)
        // Most steps of the generated sequences are scans.
        .with_scan_partitions(2)
        .with_retry(
            RetryConfig::default()
                .with_max_attempts(20)
                .with_max_elapsed(Duration::from_secs(60)),
        )
}

const LATENCY: Duration = Duration::from_millis(50);

/// Between client and server: counts how often the client waits for an answer, and can be cut.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    round_trips: AtomicU64,
    cut: AtomicBool,
    over: AtomicBool,
    counting: AtomicBool,
    /// The answer to the next commit is to be lost.
    losing: AtomicBool,
    lost: AtomicU64,
    cut_when_lost: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.over.load(Ordering::Acquire) {
                    break;
                }
                let Ok(client) = client else { continue };
                if shared.cut.load(Ordering::Acquire) {
                    continue;
                }
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else {
                    continue;
                };
                join(&client, &server, &shared);
            }
        });
        Self { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// From the first call on answers take as long as across a network: a client that sends several
    /// requests without waiting gets all of them off before the first answer, whatever else runs here.
    pub fn round_trips(&self) -> u64 {
        self.state.counting.store(true, Ordering::Release);
        self.state.round_trips.load(Ordering::Acquire)
    }

    /// Lets the next commit through, and loses its answer with the connection.
    pub fn lose_answer_to_commit(&self) {
        self.state.losing.store(true, Ordering::Release);
    }

    /// From then on nothing gets through.
    pub fn cut_when_lost(&self, cut: bool) {
        self.state.cut_when_lost.store(cut, Ordering::Release);
    }

    pub fn answers_lost(&self) -> u64 {
        self.state.lost.load(Ordering::Acquire)
    }

    /// Breaks all connections and lets no new one through, or lets them through again.
    pub fn cut(&self, cut: bool) {
        self.state.cut.store(cut, Ordering::Release);
        for socket in self.state.sockets.lock().expect("no panic").drain(..) {
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Release);
        self.cut(true);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

fn join(client: &TcpStream, server: &TcpStream, state: &Arc<State>) {
    client.set_nodelay(true).expect("a socket");
    server.set_nodelay(true).expect("a socket");
    let clone = |socket: &TcpStream| socket.try_clone().expect("a socket");
    let mut sockets = state.sockets.lock().expect("no panic");
    sockets.extend([clone(client), clone(server)]);
    // A turn ends when the server has answered: what the client sends then is another round trip.
    let answered = Arc::new(AtomicBool::new(true));
    let (requests, answers) = (answered.clone(), answered);
    let counting = state.clone();
    pump(clone(client), clone(server), move |_| {
        if requests.swap(false, Ordering::AcqRel) {
            counting.round_trips.fetch_add(1, Ordering::AcqRel);
        }
        true
    });
    let losing = state.clone();
    pump(clone(server), clone(client), move |answer| {
        if losing.counting.load(Ordering::Acquire) {
            thread::sleep(LATENCY);
        }
        answers.store(true, Ordering::Release);
        let committed = answer.windows(7).any(|word| word == b"COMMIT\0");
        let lost = committed && losing.losing.swap(false, Ordering::AcqRel);
        if lost {
            losing.lost.fetch_add(1, Ordering::AcqRel);
            if losing.cut_when_lost.load(Ordering::Acquire) {
                losing.cut.store(true, Ordering::Release);
            }
        }
        !lost
    });
}

/// Passes on what comes until the end, or `passes` says no.
fn pump(mut from: TcpStream, mut to: TcpStream, passes: impl Fn(&[u8]) -> bool + Send + 'static) {
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if !passes(&buffer[..count]) || to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        drop(from.shutdown(Shutdown::Both));
        drop(to.shutdown(Shutdown::Both));
    });
}
