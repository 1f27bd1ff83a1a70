//! Servers in threads of their own: the conformance kit has a runtime of its own for each case.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each test takes what it needs"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use groundtackle_health_check_client::Authorities;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a server does with a connection.
#[derive(Clone)]
pub(crate) enum Act {
    /// Reads a request and answers this.
    Answer(Vec<u8>),
    /// The same after TLS, with this chain and key as PEM.
    Sealed((String, String), Vec<u8>),
    /// Takes it, and never answers.
    Hang,
}

/// A server of TCP connections.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    act: Arc<Mutex<Act>>,
}

pub(crate) fn answer(head: &str, body: &str) -> Act {
    let length = body.len();
    Act::Answer(format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}").into())
}

fn speak(mut stream: impl Read + Write, answer: &[u8]) -> std::io::Result<()> {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        read.push(byte[0]);
    }
    stream.write_all(answer)?;
    stream.flush()
}

fn serve(mut stream: TcpStream, act: Act) {
    // Whoever hangs up has its reasons.
    let _ = match act {
        Act::Answer(answer) => speak(stream, &answer),
        Act::Sealed((chain, key), answer) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
                .map(Result::unwrap)
                .collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            let config = ServerConfig::builder_with_provider(Authorities::provider());
            let config = config
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth();
            let config = config.with_single_cert(chain, key).unwrap();
            let connection = ServerConnection::new(Arc::new(config)).unwrap();
            speak(StreamOwned::new(connection, stream), &answer)
        }
        Act::Hang => stream.read_to_end(&mut Vec::new()).map(drop),
    };
}

impl Server {
    pub(crate) fn start(act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let act = Arc::new(Mutex::new(act));
        let acts = act.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let act = acts.lock().unwrap().clone();
                thread::spawn(move || serve(stream.unwrap(), act));
            }
        });
        Self { address, act }
    }

    pub(crate) fn act(&self, act: Act) {
        *self.act.lock().unwrap() = act;
    }
}

/// How a time server tells the time.
#[derive(Clone, Copy)]
pub(crate) enum Time {
    /// So many seconds from this clock.
    Away(f64),
    /// Only after a while.
    After(Duration),
    /// Not synchronized itself.
    Lost,
    /// Not at all.
    Silent,
}

/// A time server (RFC 5905, mode 4).
pub(crate) struct TimeServer {
    pub(crate) address: SocketAddr,
    time: Arc<Mutex<Time>>,
}

/// Since 1900, as 32 bits of seconds and 32 of their fraction.
fn ntp(away: f64) -> [u8; 8] {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let secs = now.as_secs_f64() + 2_208_988_800.0 + away;
    ((secs * 4_294_967_296.0) as u64).to_be_bytes()
}

impl TimeServer {
    pub(crate) fn start(time: Time) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let time = Arc::new(Mutex::new(time));
        let times = time.clone();
        thread::spawn(move || {
            let mut request = [0; 48];
            while let Ok((48, from)) = socket.recv_from(&mut request) {
                let time = *times.lock().unwrap();
                let (leap, away) = match time {
                    Time::Away(away) => (0, away),
                    Time::After(_) => (0, 0.0),
                    Time::Lost => (3, 0.0),
                    Time::Silent => continue,
                };
                let received = ntp(away);
                if let Time::After(delay) = time {
                    thread::sleep(delay);
                }
                let mut answer = [0; 48];
                // Version 4, a server of stratum 2.
                answer[..2].copy_from_slice(&[leap << 6 | 4 << 3 | 4, 2]);
                answer[12..16].copy_from_slice(&[192, 0, 2, 1]);
                answer[24..32].copy_from_slice(&request[40..48]);
                answer[32..40].copy_from_slice(&received);
                answer[40..48].copy_from_slice(&received);
                socket.send_to(&answer, from).unwrap();
            }
        });
        Self { address, time }
    }

    pub(crate) fn tell(&self, time: Time) {
        *self.time.lock().unwrap() = time;
    }
}
