//! A way to a server that counts and can be cut.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What an answer takes while round trips are counted.
const LATENCY: Duration = Duration::from_millis(20);

/// Between client and server: counts how often the client waits for an answer, and can be cut.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    round_trips: AtomicU64,
    counting: AtomicBool,
    cut: AtomicBool,
    over: AtomicBool,
    /// Answers to let through before one is lost; below zero: none is.
    lose_after: AtomicI64,
    lost: AtomicU64,
    cut_when_lost: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// A way to the port of a server on this machine.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State::default());
        state.lose_after.store(-1, Ordering::Release);
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

    /// Its own port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How often a client waited for the server so far. From the first call on answers take as long as
    /// across a network: a client that sends several requests without waiting gets all of them off
    /// before the first answer, whatever else runs here.
    pub fn round_trips(&self) -> u64 {
        self.state.counting.store(true, Ordering::Release);
        self.state.round_trips.load(Ordering::Acquire)
    }

    /// Lets so many answers through, and loses the next with its connection.
    pub fn lose_answer_after(&self, answers: u64) {
        let answers = i64::try_from(answers).expect("a few");
        self.state.lose_after.store(answers, Ordering::Release);
    }

    /// Whether from a lost answer on nothing gets through.
    pub fn cut_when_lost(&self, cut: bool) {
        self.state.cut_when_lost.store(cut, Ordering::Release);
    }

    /// How many answers it has lost.
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
    pump(clone(client), clone(server), move || {
        if requests.swap(false, Ordering::AcqRel) {
            counting.round_trips.fetch_add(1, Ordering::AcqRel);
        }
        true
    });
    let losing = state.clone();
    pump(clone(server), clone(client), move || {
        if losing.counting.load(Ordering::Acquire) {
            thread::sleep(LATENCY);
        }
        let first = !answers.swap(true, Ordering::AcqRel);
        if !first || losing.lose_after.load(Ordering::Acquire) < 0 {
            return true;
        }
        if losing.lose_after.fetch_sub(1, Ordering::AcqRel) > 0 {
            return true;
        }
        losing.lost.fetch_add(1, Ordering::AcqRel);
        if losing.cut_when_lost.load(Ordering::Acquire) {
            losing.cut.store(true, Ordering::Release);
        }
        false
    });
}

/// Passes on what comes until the end, or `passes` says no.
fn pump(mut from: TcpStream, mut to: TcpStream, passes: impl Fn() -> bool + Send + 'static) {
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if !passes()
                || to
                    .write_all(buffer.get(..count).unwrap_or_default())
                    .is_err()
            {
                break;
            }
        }
        drop(from.shutdown(Shutdown::Both));
        drop(to.shutdown(Shutdown::Both));
    });
}
