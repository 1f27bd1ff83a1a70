//! Connections, TLS and HTTP, against servers that do what they should, and what they should not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test asserts")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use groundtackle_core::{ByteSize, Retryability, Secret};
use groundtackle_health_check_client::{
    Answer, Authorities, Blocking, Error, Headers, HttpClient, SecretSource, SecretValue, bounded,
};
use groundtackle_testkit_servers::Certificates;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

const LONG: Duration = Duration::from_secs(30);
const LIMIT: u64 = 1000;

/// What a server does with each request that it has read.
type Act = Arc<dyn Fn(usize) -> Vec<u8> + Send + Sync>;

struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// What arrives: heads of requests, and an empty text where a connection ends.
    heard: mpsc::UnboundedReceiver<String>,
}

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    act: Act,
    tell: mpsc::UnboundedSender<String>,
) {
    let mut read = Vec::new();
    for request in 0.. {
        while !read.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => read.push(byte),
                Err(_) => {
                    tell.send(String::new()).ok();
                    return;
                }
            }
        }
        tell.send(String::from_utf8(std::mem::take(&mut read)).unwrap())
            .ok();
        let answer = act(request);
        if answer.is_empty() {
            continue;
        }
        if stream.write_all(&answer).await.is_err() || answer.ends_with(b"cut") {
            return;
        }
    }
}

async fn serve(
    tls: Option<&Certificates>,
    act: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static,
) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, heard) = mpsc::unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let act: Act = Arc::new(act);
    let acceptor = tls.map(|of| {
        let chain = vec![CertificateDer::from_pem_file(of.server()).unwrap()];
        let key = PrivateKeyDer::from_pem_file(of.key()).unwrap();
        let config = ServerConfig::builder_with_provider(Authorities::provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        TlsAcceptor::from(Arc::new(
            config
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap(),
        ))
    });
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let (act, tell, acceptor) = (act.clone(), tell.clone(), acceptor.clone());
            tokio::spawn(async move {
                match acceptor {
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            talk(stream, act, tell).await;
                        }
                    }
                    None => talk(stream, act, tell).await,
                }
            });
        }
    });
    Server {
        address,
        connections,
        heard,
    }
}

fn client(url: &str, authorities: Option<PathBuf>) -> HttpClient {
    let login = SecretValue::basic("user", &"pa55".into());
    HttpClient::new(
        url.parse().unwrap(),
        Headers::default().with(AUTHORIZATION, login),
        Authorities::new(authorities),
        ByteSize::new(LIMIT),
    )
}

async fn get(client: &HttpClient) -> Result<Answer, Error> {
    let request = client.request(Method::GET, HeaderMap::new(), Bytes::new());
    let answer = timeout(LONG, request).await;
    answer.unwrap_or_else(|_| panic!("{client:?} gives no answer"))
}

fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Kind: plain\r\n\r\n{body}",
        body.len()
    )
    .into()
}

#[tokio::test]
async fn a_run_asks_several_times_over_one_connection() {
    let mut server = serve(None, |request| ok(&format!("answer {request}"))).await;
    let client = client(&format!("http://{}/path?key=k3y", server.address), None);
    let mut connection = client.connect().await.unwrap();
    for expected in ["answer 0", "answer 1"] {
        let answer = connection
            .request(Method::GET, HeaderMap::new(), Bytes::new())
            .await
            .unwrap();
        assert_eq!(
            (answer.status.as_u16(), &answer.body[..]),
            (200, expected.as_bytes())
        );
        assert_eq!(answer.headers.get("x-kind").unwrap(), "plain");
        let heard = server.heard.recv().await.unwrap();
        assert!(
            heard.starts_with("GET /path?key=k3y HTTP/1.1\r\n"),
            "{heard}"
        );
        assert!(
            heard.contains(&format!("host: {}\r\n", server.address)),
            "{heard}"
        );
        // "user:pa55"
        assert!(
            heard.contains("authorization: Basic dXNlcjpwYTU1\r\n"),
            "{heard}"
        );
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    drop(connection);
    assert_eq!(
        timeout(LONG, server.heard.recv()).await.unwrap().unwrap(),
        ""
    );
}

#[tokio::test]
async fn what_is_dropped_closes_its_connection() {
    let mut server = serve(None, |_| Vec::new()).await;
    let client = client(&format!("http://{}/", server.address), None);
    {
        let mut asks = Box::pin(get(&client));
        tokio::select! {
            answer = &mut asks => panic!("{answer:?}"),
            heard = server.heard.recv() => assert!(heard.unwrap().starts_with("GET")),
        }
    }
    assert_eq!(
        timeout(LONG, server.heard.recv()).await.unwrap().unwrap(),
        ""
    );
}

#[tokio::test]
async fn whatever_goes_wrong_has_a_cause() {
    let endless = || {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            .iter()
            .chain(&b"5\r\nhello\r\n".repeat(1000))
            .copied()
            .collect()
    };
    let long_head = || {
        format!(
            "HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n",
            "x".repeat(1_000_000)
        )
        .into_bytes()
    };
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let server = serve(None, move |_| ok(&"x".repeat(LIMIT as usize + 1))).await;
    let chunked = serve(None, move |_| endless()).await;
    let long_head = serve(None, move |_| long_head()).await;
    let cut = serve(None, |_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut".to_vec()
    })
    .await;
    let greets = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = greets.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = greets.accept().await.unwrap();
            stream.write_all(b"220 mail.example ESMTP\r\n").await.ok();
        }
    });
    let (transient, in_doubt) = (Retryability::Transient, Retryability::Indeterminate);
    for (url, cause, retryability) in [
        (format!("http://{closed}/"), "refused", transient),
        // Reserved for names that do not exist: RFC 6761.
        ("http://nobody.invalid/".into(), "name-not-found", transient),
        (
            format!("http://{}/", server.address),
            "answer-too-large",
            in_doubt,
        ),
        (
            format!("http://{}/", chunked.address),
            "answer-too-large",
            in_doubt,
        ),
        (
            format!("http://{}/", long_head.address),
            "no-http",
            in_doubt,
        ),
        (format!("http://{}/", cut.address), "no-http", in_doubt),
        (format!("http://{other}/"), "no-http", in_doubt),
        (format!("https://{other}/"), "tls-failed", transient),
    ] {
        let error = get(&client(&url, Some(Certificates::new().authority())))
            .await
            .unwrap_err();
        assert_eq!(
            (error.cause(), error.retryability()),
            (cause, retryability),
            "{url}: {error:?}"
        );
        let seen = error.observation();
        assert_eq!(seen.cause.as_str(), cause);
        let detail = seen.detail.unwrap();
        assert!(
            detail.contains(url.split('/').nth(2).unwrap().split(':').next().unwrap()),
            "{detail}"
        );
    }
    // As long as it may be.
    let fits = serve(None, |_| ok(&"x".repeat(LIMIT as usize))).await;
    let answer = get(&client(&format!("http://{}/", fits.address), None))
        .await
        .unwrap();
    assert_eq!(answer.body.len() as u64, LIMIT);
}

#[tokio::test]
async fn tls_is_verified() {
    let certificates = Certificates::new();
    let server = serve(Some(&certificates), |_| ok("sealed")).await;
    let port = server.address.port();
    let by_address = format!("https://127.0.0.1:{port}/");
    let good = client(&by_address, Some(certificates.authority()));
    assert_eq!(&get(&good).await.unwrap().body[..], b"sealed");
    let by_name = format!("https://localhost:{port}/");
    let stranger = Certificates::new();
    for (url, authority, cause) in [
        (&by_name, certificates.authority(), "certificate-wrong-name"),
        (&by_address, stranger.authority(), "certificate-untrusted"),
    ] {
        let error = get(&client(url, Some(authority))).await.unwrap_err();
        assert_eq!(error.cause(), cause, "{error:?}");
        assert_eq!(error.retryability(), Retryability::Transient);
    }
}

#[tokio::test]
async fn authorities_are_read_once_they_can_be() {
    let certificates = Certificates::new();
    let server = serve(Some(&certificates), |_| ok("sealed")).await;
    let file = certificates.authority().with_file_name("later.pem");
    let client = client(&format!("https://{}/", server.address), Some(file.clone()));
    for content in [None, Some("no certificate")] {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let error = get(&client).await.unwrap_err();
        assert_eq!(error.cause(), "authorities-unusable");
        assert!(error.to_string().contains("later.pem"), "{error}");
    }
    std::fs::copy(certificates.authority(), &file).unwrap();
    assert_eq!(&get(&client).await.unwrap().body[..], b"sealed");
}

#[test]
fn keys_stay_secret() {
    let client = client("https://node.example/v3/k3y?token=k3y", None);
    let shown = format!(
        "{client:?} {:?}",
        SecretValue::basic("user", &"pa55".into())
    );
    for secret in ["k3y", "pa55", "dXNlcjpwYTU1"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("node.example:443"), "{shown}");
    assert!(SecretValue::try_from(Secret::from("a\r\nb: c")).is_err());
}

#[tokio::test]
async fn a_secret_in_a_file_is_read_anew_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let written = format!("{{\"file\": {:?}}}", file.to_str().unwrap());
    let source: SecretSource = serde_json::from_str(&written).unwrap();
    let blocking = Blocking::default();
    for (text, secret) in [
        ("first", "first"),
        ("second\n", "second"),
        ("a b\n\r\n", "a b\n"),
    ] {
        std::fs::write(&file, text).unwrap();
        assert_eq!(source.read(&blocking).await.unwrap().expose(), secret);
    }
    for bad in [&b""[..], b"\n", b"pa55\xff", &[b'x'; 65_537]] {
        std::fs::write(&file, bad).unwrap();
        let error = source.read(&blocking).await.unwrap_err();
        assert_eq!(error.cause(), "secret-unreadable");
        assert_eq!(error.retryability(), Retryability::Transient);
        assert!(!format!("{error:?}").contains("pa55"), "{error:?}");
    }
    std::fs::remove_file(&file).unwrap();
    let seen = source.read(&blocking).await.unwrap_err().observation();
    assert!(seen.detail.unwrap().contains("No such file"));

    let given: SecretSource = serde_json::from_str("\"pa55\"").unwrap();
    assert_eq!(given.read(&blocking).await.unwrap().expose(), "pa55");
    assert!(!format!("{given:?}").contains("pa55"));
    let error = serde_json::from_str::<SecretSource>("{\"path\": \"/x\"}").unwrap_err();
    assert!(error.to_string().contains("path"), "{error}");
}

#[tokio::test]
async fn a_bounded_stream_ends_where_it_must_and_can_be_written_to() {
    let (ours, mut theirs) = tokio::io::duplex(64);
    let mut ours = bounded(ours, ByteSize::new(5));
    theirs.write_all(b"1234567").await.unwrap();
    let mut read = Vec::new();
    timeout(LONG, ours.read_to_end(&mut read))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read, b"12345");
    ours.write_all(b"more").await.unwrap();
    let mut heard = [0; 4];
    timeout(LONG, theirs.read_exact(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&heard, b"more");
}
