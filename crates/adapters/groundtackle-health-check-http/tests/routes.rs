//! What strangers and operators get, from a server on a socket.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test asserts"
)]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use groundtackle_health_check::{
    Health, Heartbeat, Measure, Name, Objective, Observation, Schedule, Settings, Window,
};
use groundtackle_health_check_http::{HttpHealthConfig, router};
use groundtackle_health_check_testkit::{FaultClock, Scripted, skipped};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TOKEN: &str = "correct horse battery staple";
const SCRIPT: &str = "<script>alert('x')</script>";

struct Server {
    address: SocketAddr,
    health: Health,
    clock: FaultClock,
    pulled: Scripted,
}

fn name(text: &str) -> Name {
    text.try_into().unwrap()
}

impl Server {
    async fn start(all_are_operators: bool) -> Self {
        let clock = FaultClock::default();
        let pulled = Scripted::passing();
        let quick = || {
            let schedule = Schedule::default()
                .with_failures_to_down(1)
                .with_successes_to_up(1);
            Settings::default().with_schedule(schedule)
        };
        let health = Health::builder()
            .clock(Arc::new(clock.clone()))
            .liveness(
                name("loop"),
                Heartbeat::new(Arc::new(clock.clone()), Duration::from_secs(60)),
            )
            .push(name("wallet"), quick().with_subsets(vec![name("money")]))
            .push(name(SCRIPT), quick().with_public(true))
            .push(
                name("needs wallet"),
                quick().with_depends_on(vec![name("wallet")]),
            )
            .readiness(name("pulled"), quick().with_required(false), pulled.clone())
            .objective(Objective {
                name: name("\"99\\9\""),
                subset: None,
                target: 0.99,
                measure: Measure::Availability,
                window: Window::Month,
                alerts: Vec::new(),
            })
            .build()
            .unwrap();
        let config = HttpHealthConfig::default()
            .with_operator_token(TOKEN.into())
            .with_all_are_operators(all_are_operators)
            .with_title("R&D".into());
        assert!(!format!("{config:?}").contains(TOKEN));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = router(health.clone(), config);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self {
            address,
            health,
            clock,
            pulled,
        }
    }

    fn report(&self, observation: &Observation) {
        for check in ["wallet", SCRIPT, "needs wallet"] {
            self.health
                .reporter(check)
                .unwrap()
                .report(observation.clone());
        }
    }

    /// The status code and the whole answer.
    async fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let token = token.map_or(String::new(), |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{token}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (code, answer)
    }
}

#[tokio::test]
async fn probes_say_what_is_known() {
    let server = Server::start(false).await;
    let code = async |path: &str| server.get(path, None).await.0;
    assert_eq!(
        [
            code("/livez").await,
            code("/readyz").await,
            code("/startupz").await
        ],
        [200, 503, 503]
    );
    server.report(&Observation::pass());
    assert_eq!(
        [
            code("/readyz").await,
            code("/readyz/money").await,
            code("/health").await
        ],
        [200, 200, 200]
    );
    server.report(&Observation::fail("refused"));
    assert_eq!(
        [
            code("/readyz").await,
            code("/readyz/money").await,
            code("/health").await
        ],
        [503, 503, 503]
    );
    assert_eq!(
        [code("/readyz/nothing").await, code("/livez").await],
        [404, 200]
    );
    server.clock.advance(Duration::from_secs(61));
    assert_eq!(code("/livez").await, 503);
}

#[tokio::test]
async fn strangers_get_the_status_and_operators_the_reasons() {
    let server = Server::start(false).await;
    server.report(&Observation::fail("refused").with_detail("10.0.0.7 does not listen"));
    for path in [
        "/livez?verbose",
        "/readyz?verbose",
        "/health",
        "/status",
        "/readyz/money",
        "/readyz/wallet",
        "/metrics",
    ] {
        for token in [
            None,
            Some(""),
            Some("wrong"),
            Some("correct horse battery stapl"),
        ] {
            let (code, answer) = server.get(path, token).await;
            for secret in ["refused", "10.0.0.7", "wallet", "loop", "pulled", "99"] {
                assert!(!answer.contains(secret), "{path}: {secret} in {answer}");
            }
            assert_eq!(code == 401, path == "/metrics");
            assert_eq!(code == 404, path == "/readyz/wallet");
        }
    }
    let (_, answer) = server.get("/readyz?verbose", Some(TOKEN)).await;
    assert!(
        answer.contains("wallet: fail (refused): 10.0.0.7 does not listen"),
        "{answer}"
    );
    assert!(
        answer.contains("needs wallet: unknown (dependency), caused by wallet"),
        "{answer}"
    );
    assert_eq!(server.get("/readyz/wallet", Some(TOKEN)).await.0, 503);
    let open = Server::start(true).await;
    assert_eq!(open.get("/metrics", None).await.0, 200);
}

#[tokio::test]
async fn health_json_is_what_the_draft_says() {
    let server = Server::start(false).await;
    server.report(&Observation::fail("refused"));
    let (_, answer) = server.get("/health", Some(TOKEN)).await;
    assert!(
        answer
            .to_lowercase()
            .contains("content-type: application/health+json"),
        "{answer}"
    );
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["status"], "fail");
    assert_eq!(body["checks"]["wallet"][0]["cause"], "refused");
    assert_eq!(body["checks"]["wallet"][0]["time"], "2026-01-01T00:00:00Z");
    let child = &body["checks"]["needs wallet"][0];
    assert_eq!(
        (&child["status"], &child["outcome"], &child["causedBy"]),
        (&"fail".into(), &"unknown".into(), &"wallet".into())
    );
}

#[tokio::test]
async fn metrics_are_those_that_are_documented() {
    let server = Server::start(false).await;
    server.report(&Observation::pass());
    server.health.tick();
    server.clock.advance(Duration::from_secs(11));
    server.health.tick();
    let (_, answer) = server.get("/metrics", Some(TOKEN)).await;
    let readme = include_str!("../README.md");
    for line in answer.lines().filter(|line| line.starts_with("# TYPE ")) {
        let metric = line.split(' ').nth(2).unwrap();
        assert!(
            readme.contains(&format!("`{metric}`")),
            "{metric} is not documented"
        );
    }
    for line in [
        "health_ready 1",
        "health_check_outcome{check=\"wallet\",kind=\"readiness\",outcome=\"pass\"} 1",
        "health_check_outcome{check=\"wallet\",kind=\"readiness\",outcome=\"fail\"} 0",
        "health_service_level_ratio{objective=\"\\\"99\\\\9\\\"\"} 1",
        "health_error_budget_left_ratio{objective=\"\\\"99\\\\9\\\"\"} 1",
    ] {
        assert!(
            answer.lines().any(|found| found == line),
            "{line} is missing in {answer}"
        );
    }
}

#[tokio::test]
async fn the_page_escapes_what_it_shows() {
    let server = Server::start(false).await;
    server.report(&Observation::fail("refused").with_detail("<img src=x onerror=y>"));
    for token in [None, Some(TOKEN)] {
        let (code, page) = server.get("/status", token).await;
        assert_eq!(code, 200);
        assert!(
            page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;")
                && page.contains("<h1>R&amp;D</h1>"),
            "{page}"
        );
        assert!(
            !page.contains("<script") && !page.contains("<img"),
            "{page}"
        );
        assert!(
            page.contains("content-security-policy: default-src 'none'; style-src 'self'"),
            "{page}"
        );
        assert!(page.contains("Does not work"), "{page}");
    }
    let (code, style) = server.get("/status.css", None).await;
    assert!(code == 200 && style.contains("prefers-color-scheme: dark"));
}

/// The relative luminance and contrast of WCAG 2: <https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio>.
fn contrast(a: &str, b: &str) -> f64 {
    let luminance = |colour: &str| -> f64 {
        let channel = |from: usize| {
            let value = f64::from(u8::from_str_radix(&colour[from..from + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn all_text_has_the_contrast_of_wcag_aa() {
    let style = include_str!("../src/status.css");
    let schemes: Vec<&str> = style
        .lines()
        .filter(|line| line.contains("--ground: "))
        .collect();
    assert_eq!(schemes.len(), 2);
    for scheme in schemes {
        let colour = |name: &str| {
            let at = scheme.find(&format!("--{name}: ")).unwrap() + name.len() + 4;
            &scheme[at..at + 7]
        };
        let mut pairs = Vec::from([
            ("text", "ground"),
            ("text", "card"),
            ("muted", "ground"),
            ("muted", "card"),
        ]);
        pairs.extend(["pass", "warn", "unknown", "fail"].map(|outcome| ("badge", outcome)));
        for (text, ground) in pairs {
            let contrast = contrast(colour(text), colour(ground));
            assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.2}");
        }
    }
}

/// What a request could start is counted by the check itself.
/// In a real browser: it shows what was sent, which has no script in it, and the console says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_the_page_without_complaints() {
    let server = Server::start(true).await;
    server.report(&Observation::fail("refused").with_detail("10.0.0.7 does not listen"));
    let folder = tempfile::tempdir().unwrap();
    for (width, scheme) in [
        (390, "dark"),
        (390, "light"),
        (1400, "dark"),
        (1400, "light"),
    ] {
        let opened = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
            .args(["--enable-logging=stderr", "--virtual-time-budget=5000"])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .arg(format!("--window-size={width},900"))
            .arg(format!(
                "--blink-settings=preferredColorScheme={}",
                i32::from(scheme == "light")
            ))
            .arg(format!("http://{}/status", server.address))
            .output();
        let Ok(opened) = opened else {
            let test = "a_browser_shows_the_page_without_complaints";
            return skipped(test, "there is no chromium on the PATH");
        };
        let page = String::from_utf8_lossy(&opened.stdout);
        let said = String::from_utf8_lossy(&opened.stderr);
        assert!(opened.status.success(), "{said}");
        assert!(!said.contains("CONSOLE"), "{width}, {scheme}: {said}");
        for text in [
            "<h1>R&amp;D</h1>",
            "Does not work",
            "10.0.0.7 does not listen",
            "&lt;script&gt;alert('x')&lt;/script&gt;",
        ] {
            assert!(page.contains(text), "{text:?} is not in {page}");
        }
        assert!(!page.contains("<script"), "{page}");
    }
}

#[tokio::test]
async fn no_request_runs_a_check() {
    let server = Server::start(true).await;
    for path in [
        "/livez",
        "/readyz?verbose",
        "/readyz/pulled",
        "/startupz",
        "/health",
        "/metrics",
        "/status",
    ] {
        for _ in 0..50 {
            server.get(path, None).await;
        }
    }
    assert_eq!((server.pulled.runs(), server.health.runs()), (0, 0));
}
