//! A way to a server that counts and can be cut.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How long a client must be silent, while its turns count, before it gets an answer.
const SILENCE: Duration = Duration::from_millis(30);

/// The same while something is to be kept back: on a busy machine a request comes in pieces that are further apart,
/// and the second would count as the next request.
const SILENCE_BEFORE_HOLD: Duration = Duration::from_millis(500);

/// How PostgreSQL's clients ask on a connection of its own to stop what another one does.
const CANCEL: &[u8] = &[0, 0, 0, 16, 4, 0xd2, 0x16, 0x2e];

/// Between client and server: counts how often the client waits for an answer, loses answers, keeps
/// requests back, and can be cut.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    server: AtomicU16,
    round_trips: AtomicU64,
    counting: AtomicBool,
    cut: AtomicBool,
    over: AtomicBool,
    lose: Mutex<Option<Lose>>,
    lost: AtomicU64,
    cut_when_lost: AtomicBool,
    hold: Mutex<Option<Hold>>,
    held: Mutex<Option<Held>>,
    holding: Condvar,
    rewrite: Mutex<Option<Rewrite>>,
    sockets: Mutex<Vec<(Weak<Connection>, [TcpStream; 2])>>,
}

/// Changes what passes.
type Rewrite = Arc<dyn Fn(Way, &[u8]) -> Vec<u8> + Send + Sync>;

/// Which way something passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    Request,
    /// To the client.
    Answer,
}

/// Which answer is lost.
enum Lose {
    After(u64),
    With(&'static [u8]),
}

/// From where on requests are kept back.
struct Hold {
    turns: u64,
    from: &'static [u8],
    to: &'static [u8],
}

/// A connection whose requests are kept back.
struct Held {
    server: TcpStream,
    connection: Arc<Connection>,
    answers: Receiver<Vec<u8>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic")
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|found| found == word)
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
        state.server.store(server, Ordering::Release);
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
                let server = shared.server.load(Ordering::Acquire);
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else {
                    continue;
                };
                Connection::join(&client, &server, &shared);
            }
        });
        Self { port, state }
    }

    /// Its own port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Leads new connections to another server.
    pub fn lead_to(&self, server: u16) {
        self.state.server.store(server, Ordering::Release);
    }

    /// How often a client waited for the server so far. From the first call on answers wait until the
    /// client has been silent for a moment: what it sends without waiting is one round trip, however
    /// long it takes to send.
    pub fn round_trips(&self) -> u64 {
        self.state.counting.store(true, Ordering::Release);
        self.state.round_trips.load(Ordering::Acquire)
    }

    /// Lets so many answers through, and loses the next with its connection.
    pub fn lose_answer_after(&self, answers: u64) {
        *lock(&self.state.lose) = Some(Lose::After(answers));
    }

    /// Loses the next answer that has these bytes in it, with its connection.
    pub fn lose_answer_with(&self, word: &'static [u8]) {
        *lock(&self.state.lose) = Some(Lose::With(word));
    }

    /// Whether from a lost answer on nothing gets through.
    pub fn cut_when_lost(&self, cut: bool) {
        self.state.cut_when_lost.store(cut, Ordering::Release);
    }

    /// How many answers it has lost.
    pub fn answers_lost(&self) -> u64 {
        self.state.lost.load(Ordering::Acquire)
    }

    /// Lets so many requests through, and keeps back what comes then on one connection: from a request's
    /// beginning or these bytes, to those bytes. For the client the connection is lost, for the server it is not; its cancellation is lost.
    pub fn hold_back(&self, requests: u64, from: &'static [u8], to: &'static [u8]) {
        let hold = Hold {
            turns: requests,
            from,
            to,
        };
        *lock(&self.state.hold) = Some(hold);
    }

    /// Lets so many requests through, and keeps back what comes then on one connection from these bytes on,
    /// until [`go_on`](Self::go_on).
    pub fn pause(&self, requests: u64, from: &'static [u8]) {
        self.hold_back(requests, from, b"");
    }

    fn held(&self) -> Held {
        let held = lock(&self.state.held);
        let patience = Duration::from_secs(60);
        let none = |held: &mut Option<Held>| held.is_none();
        let waited = self.state.holding.wait_timeout_while(held, patience, none);
        let taken = waited.expect("no panic").0.take();
        taken.expect("something is kept back")
    }

    /// Waits until something is kept back; then its client and others can go on.
    pub fn is_paused(&self) {
        let held = self.held();
        *lock(&self.state.held) = Some(held);
    }

    /// Sends what was kept back, and whatever comes behind it.
    pub fn go_on(&self) {
        let mut held = self.held();
        let mut kept = lock(&held.connection.kept);
        let requests = kept.take().expect("it is kept").requests;
        held.server
            .write_all(&requests)
            .expect("the server listens");
    }

    /// Sends what was kept back, and returns what the server answers until it is done with it. Its client
    /// hears nothing of that.
    pub fn let_go(&self) -> Vec<u8> {
        let mut held = self.held();
        let mut kept = lock(&held.connection.kept);
        let requests = std::mem::take(&mut kept.as_mut().expect("it is kept").requests);
        drop(kept);
        held.server
            .write_all(&requests)
            .expect("the server listens");
        held.server.shutdown(Shutdown::Write).expect("a socket");
        held.answers.iter().flatten().collect()
    }

    /// Changes what passes from now on, piece by piece as it comes.
    pub fn rewrite(&self, how: impl Fn(Way, &[u8]) -> Vec<u8> + Send + Sync + 'static) {
        *lock(&self.state.rewrite) = Some(Arc::new(how));
    }

    /// Breaks all connections and lets no new one through, or lets them through again.
    pub fn cut(&self, cut: bool) {
        self.state.cut.store(cut, Ordering::Release);
        for socket in lock(&self.state.sockets)
            .drain(..)
            .flat_map(|(_, sockets)| sockets)
        {
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

/// Requests, and what they end with.
struct Kept {
    requests: Vec<u8>,
    to: &'static [u8],
}

impl Kept {
    fn push(&mut self, bytes: &[u8], passed: usize) -> Fate {
        self.requests.extend_from_slice(bytes);
        if !self.to.is_empty() && find(&self.requests, self.to).is_some() {
            Fate::Leave(passed)
        } else {
            Fate::Keep(passed)
        }
    }
}

/// What becomes of some bytes.
enum Fate {
    Pass,
    /// Only so many pass, the rest is kept.
    Keep(usize),
    /// The same, and whoever sent them is left.
    Leave(usize),
    /// The connection breaks.
    Lose,
}

struct Connection {
    state: Arc<State>,
    /// A turn ends when the server has answered: what the client sends then is another round trip.
    answered: AtomicBool,
    last_request: Mutex<Instant>,
    kept: Mutex<Option<Kept>>,
}

impl Connection {
    fn join(client: &TcpStream, server: &TcpStream, state: &Arc<State>) {
        client.set_nodelay(true).expect("a socket");
        server.set_nodelay(true).expect("a socket");
        let clone = |socket: &TcpStream| socket.try_clone().expect("a socket");
        let connection = Arc::new(Self {
            state: state.clone(),
            answered: AtomicBool::new(true),
            last_request: Mutex::new(Instant::now()),
            kept: Mutex::default(),
        });
        let mut sockets = lock(&state.sockets);
        // Those of connections that have ended would use up what a process may open.
        sockets.retain(|(connection, _)| connection.strong_count() > 0);
        let ends = [clone(client), clone(server)];
        sockets.push((Arc::downgrade(&connection), ends));
        drop(sockets);
        let (late, answers) = channel();
        let (requests, held_server) = (connection.clone(), clone(server));
        let mut held = Some((held_server, answers));
        let rewriting = state.clone();
        let rewritten = move |way, bytes: &[u8]| {
            let rewrite = lock(&rewriting.rewrite).clone();
            rewrite.map_or_else(|| bytes.to_vec(), |rewrite| rewrite(way, bytes))
        };
        let rewrite = rewritten.clone();
        let keeps = |connection: &Arc<Self>| {
            let connection = connection.clone();
            move || lock(&connection.kept).is_some()
        };
        pump(
            clone(client),
            clone(server),
            keeps(&connection),
            move |bytes| {
                *bytes = rewrite(Way::Request, bytes);
                requests.request(bytes, &mut held)
            },
        );
        pump(
            clone(server),
            clone(client),
            keeps(&connection),
            move |bytes| {
                *bytes = rewritten(Way::Answer, bytes);
                connection.answer(bytes, &late)
            },
        );
    }

    fn request(
        self: &Arc<Self>,
        bytes: &[u8],
        held: &mut Option<(TcpStream, Receiver<Vec<u8>>)>,
    ) -> Fate {
        *lock(&self.last_request) = Instant::now();
        if bytes.starts_with(CANCEL) && lock(&self.state.held).is_some() {
            return Fate::Lose;
        }
        let turn = self.answered.swap(false, Ordering::AcqRel);
        if turn {
            self.state.round_trips.fetch_add(1, Ordering::AcqRel);
        }
        let mut kept = lock(&self.kept);
        if let Some(kept) = &mut *kept {
            return kept.push(bytes, 0);
        }
        let mut armed = lock(&self.state.hold);
        let Some(hold) = &mut *armed else {
            return Fate::Pass;
        };
        if turn && hold.turns > 0 {
            hold.turns -= 1;
            return Fate::Pass;
        }
        let at = match hold.from {
            [] => turn.then_some(0),
            from => find(bytes, from),
        };
        let at = at.filter(|_| hold.turns == 0);
        let Some((at, (server, answers))) = at.and_then(|at| Some((at, held.take()?))) else {
            return Fate::Pass;
        };
        let to = hold.to;
        *armed = None;
        *lock(&self.state.held) = Some(Held {
            server,
            connection: self.clone(),
            answers,
        });
        self.state.holding.notify_all();
        let here = kept.insert(Kept {
            requests: Vec::new(),
            to,
        });
        here.push(bytes.split_at(at).1, at)
    }

    fn answer(&self, bytes: &[u8], late: &Sender<Vec<u8>>) -> Fate {
        // Turns count.
        loop {
            let silence = if lock(&self.state.hold).is_some() {
                SILENCE_BEFORE_HOLD
            } else if self.state.counting.load(Ordering::Acquire) {
                SILENCE
            } else {
                break;
            };
            let silent = lock(&self.last_request).elapsed();
            match silence.checked_sub(silent) {
                Some(rest) if !rest.is_zero() => thread::sleep(rest),
                _ => break,
            }
        }
        let first = !self.answered.swap(true, Ordering::AcqRel);
        if lock(&self.kept).is_some() {
            // Whoever keeps it back may be gone.
            let _ = late.send(bytes.to_vec());
            return Fate::Keep(0);
        }
        let mut lose = lock(&self.state.lose);
        let lost = match &mut *lose {
            None => false,
            Some(Lose::With(word)) => find(bytes, word).is_some(),
            Some(Lose::After(0)) => first,
            Some(Lose::After(left)) => {
                *left -= u64::from(first);
                false
            }
        };
        if !lost {
            return Fate::Pass;
        }
        *lose = None;
        self.state.lost.fetch_add(1, Ordering::AcqRel);
        if self.state.cut_when_lost.load(Ordering::Acquire) {
            self.state.cut.store(true, Ordering::Release);
        }
        Fate::Lose
    }
}

/// Passes on what comes until the end.
fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    keeps: impl Fn() -> bool + Send + 'static,
    mut fate: impl FnMut(&mut Vec<u8>) -> Fate + Send + 'static,
) {
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut bytes = buffer.split_at(count).0.to_vec();
            let (passes, left) = match fate(&mut bytes) {
                Fate::Pass => (bytes.len(), false),
                Fate::Keep(passes) => (passes, false),
                Fate::Leave(passes) => (passes, true),
                Fate::Lose => break,
            };
            let sent = to.write_all(bytes.split_at(passes).0);
            // Whoever sent what is kept back may be gone since it was looked at.
            if left || sent.is_err() && !keeps() {
                break;
            }
        }
        drop(from.shutdown(Shutdown::Both));
        // The server still waits for what was kept back.
        if !keeps() {
            drop(to.shutdown(Shutdown::Both));
        }
    });
}
