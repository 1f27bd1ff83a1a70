//! Servers that do what none should: keep something else, lose it, break off, or never answer; and one with TLS.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use groundtackle_health_check::{Check, Outcome};
use groundtackle_health_check_client::{Authorities, Tls};
use groundtackle_health_check_s3::{S3Check, S3CheckConfig, S3Credentials};
use groundtackle_testkit_servers::Certificates;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the server does with what it has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Works,
    Changes,
    Shortens,
    Lengthens,
    Loses,
    BreaksOff,
    IsSilentAfter,
    NeverAnswersGets,
    NeverAnswersPuts,
    NeverAnswersDeletes,
    HasTooMuchToDo,
    Refuses,
}

type Heard = Arc<Mutex<Vec<String>>>;

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    act: Act,
    heard: Heard,
    kept: Arc<Mutex<Vec<u8>>>,
) {
    let mut read = Vec::new();
    loop {
        while !read.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => read.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(std::mem::take(&mut read)).unwrap();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().unwrap())
        });
        let mut body = vec![0; length.unwrap_or(0)];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let key = path.split('?').next().unwrap();
        heard.lock().unwrap().push(format!("{method} {key}"));
        let ok = |body: &[u8]| {
            let mut answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            answer.extend_from_slice(body);
            answer
        };
        let error = |status: &str, code: &str| {
            let body = format!("<Error><Code>{code}</Code><Message>so it is</Message></Error>");
            format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        };
        let answer = match (method, act) {
            ("PUT", Act::NeverAnswersPuts)
            | ("GET", Act::NeverAnswersGets)
            | ("DELETE", Act::NeverAnswersDeletes) => std::future::pending().await,
            (_, Act::Refuses) => error("403 Forbidden", "AccessDenied"),
            (_, Act::HasTooMuchToDo) => error("503 Slow Down", "SlowDown"),
            ("PUT", _) => {
                *kept.lock().unwrap() = body;
                ok(b"")
            }
            ("GET", _) => {
                let mut kept = kept.lock().unwrap().clone();
                match act {
                    Act::Changes => *kept.last_mut().unwrap() ^= 1,
                    Act::Shortens => drop(kept.pop()),
                    Act::Lengthens => kept.resize(10_000_000, b'x'),
                    _ => {}
                }
                let whole = ok(&kept);
                match act {
                    Act::Loses => error("404 Not Found", "NoSuchKey"),
                    Act::BreaksOff | Act::IsSilentAfter => {
                        whole.split_last_chunk::<10>().unwrap().0.to_vec()
                    }
                    _ => whole,
                }
            }
            _ => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        };
        // Who has seen enough goes away.
        if stream.write_all(&answer).await.is_err() || (method == "GET" && act == Act::BreaksOff) {
            return;
        }
    }
}

/// Serves, by TLS if there are certificates.
async fn serve(act: Act, tls: Option<&Certificates>) -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, kept) = (Heard::default(), Arc::default());
    let acceptor = tls.map(|certificates| {
        let certificate = CertificateDer::from_pem_file(certificates.server()).unwrap();
        let key = PrivateKeyDer::from_pem_file(certificates.key()).unwrap();
        let config = ServerConfig::builder_with_provider(Authorities::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    });
    let hears = heard.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, heard, kept) = (acceptor.clone(), hears.clone(), Arc::clone(&kept));
            tokio::spawn(async move {
                match acceptor {
                    None => talk(stream, act, heard, kept).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            talk(stream, act, heard, kept).await;
                        }
                    }
                }
            });
        }
    });
    (address, heard)
}

fn config(endpoint: String) -> S3CheckConfig {
    S3CheckConfig::new("bucket")
        .with_endpoint(Some(endpoint))
        .with_path_style(true)
        .with_credentials(Some(S3Credentials::new("id", "key")))
        .with_answer_timeout(Duration::from_secs(30))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_back_is_compared_and_what_was_put_is_deleted() {
    for (act, outcome, cause, steps) in [
        (Act::Works, Outcome::Pass, "ok", "PUT GET DELETE"),
        (Act::Changes, Outcome::Fail, "changed", "PUT GET DELETE"),
        (Act::Shortens, Outcome::Fail, "changed", "PUT GET DELETE"),
        (Act::Lengthens, Outcome::Fail, "changed", "PUT GET DELETE"),
        (Act::Loses, Outcome::Fail, "lost", "PUT GET DELETE"),
        (Act::BreaksOff, Outcome::Fail, "no-answer", "PUT GET DELETE"),
        (
            Act::IsSilentAfter,
            Outcome::Fail,
            "timeout",
            "PUT GET DELETE",
        ),
        (
            Act::NeverAnswersGets,
            Outcome::Fail,
            "timeout",
            "PUT GET DELETE",
        ),
        (
            Act::NeverAnswersPuts,
            Outcome::Fail,
            "timeout",
            "PUT DELETE",
        ),
        (
            Act::NeverAnswersDeletes,
            Outcome::Fail,
            "timeout",
            "PUT GET DELETE",
        ),
        // It may have kept it, and what was refused is not there.
        (
            Act::HasTooMuchToDo,
            Outcome::Fail,
            "throttled",
            "PUT DELETE",
        ),
        (Act::Refuses, Outcome::Fail, "denied", "PUT"),
    ] {
        let (address, heard) = serve(act, None).await;
        let mut config = config(format!("http://{address}")).with_tls(Tls::Off);
        if cause == "timeout" {
            config = config.with_answer_timeout(Duration::from_secs(2));
        }
        let begun = std::time::Instant::now();
        let seen = S3Check::from(config).check().await;
        assert_eq!(
            (seen.outcome, seen.cause.as_str()),
            (outcome, cause),
            "{act:?}: {seen:?}"
        );
        // Within the time of each step, which the one that hangs takes alone.
        assert!(begun.elapsed() < Duration::from_secs(30), "{act:?}");
        let heard = heard.lock().unwrap().clone();
        let key = heard.first().unwrap().strip_prefix("PUT ").unwrap();
        assert!(
            key.starts_with("/bucket/groundtackle-health-check/") && key.len() == 66,
            "{key}"
        );
        let expected: Vec<_> = steps
            .split(' ')
            .map(|step| format!("{step} {key}"))
            .collect();
        assert_eq!(heard, expected, "{act:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let (address, heard) = serve(Act::Works, Some(&ours)).await;
    let by =
        |authorities| config(format!("https://{address}")).with_tls_authorities(Some(authorities));
    let look = async |config| {
        let seen = S3Check::from(config).check().await;
        (seen.outcome, seen.cause.to_string())
    };
    let told = |outcome, cause: &str| (outcome, cause.to_owned());
    assert_eq!(
        look(by(others.authority())).await,
        told(Outcome::Fail, "certificate-untrusted")
    );
    assert_eq!(heard.lock().unwrap().len(), 0);
    assert_eq!(look(by(ours.authority())).await, told(Outcome::Pass, "ok"));
    let none = by("/nowhere".into());
    assert_eq!(
        look(none).await,
        told(Outcome::Fail, "authorities-unusable")
    );
}
