//! Calls, against a server that answers as a test says.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::time::{Duration, Instant};

use groundtackle_health_check::Outcome;
use groundtackle_health_check_json_rpc::{Node, References, RpcClient, RpcError};
use groundtackle_testkit_servers::{HttpServer, Reply, Request};
use proptest::prelude::*;
use serde_json::{Value, json};

fn answer(request: &Request) -> Reply {
    let call: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        (request.method.as_str(), call["jsonrpc"].as_str()),
        ("POST", Some("2.0"))
    );
    Reply::ok(
        json!({ "jsonrpc": "2.0", "id": call["id"], "result": call["params"][0] }).to_string(),
    )
}

fn node(server: &HttpServer) -> Node {
    Node::new(
        server
            .url("/v3/k3yk3yk3y?token=t0kent0ken")
            .parse()
            .unwrap(),
    )
}

async fn call(server: &HttpServer) -> Result<u64, RpcError> {
    let mut session = RpcClient::from(node(server).with_login("user", "pa55word"))
        .session()
        .await?;
    session.call("echo", json!([7])).await
}

#[tokio::test]
async fn what_is_asked_is_answered() {
    let server = HttpServer::start(answer);
    let mut session = RpcClient::from(node(&server)).session().await.unwrap();
    for n in 0..3_u64 {
        assert_eq!(session.call::<u64>("echo", json!([n])).await.unwrap(), n);
    }
    assert_eq!(
        session
            .call::<Option<u64>>("echo", json!([null]))
            .await
            .unwrap(),
        None
    );
    let wrong = session
        .call::<u64>("echo", json!(["seven"]))
        .await
        .unwrap_err();
    assert!(matches!(wrong, RpcError::Garbled { .. }), "{wrong:?}");
    // The connection lasts.
    assert_eq!(session.call::<u64>("echo", json!([8])).await.unwrap(), 8);
}

#[tokio::test]
async fn a_node_that_closes_after_each_answer_is_asked_anew() {
    let server = HttpServer::start(|request| {
        let Reply::Answer(status, _, body) = answer(request) else {
            return Reply::Close;
        };
        let text = String::from_utf8(body).unwrap();
        Reply::Raw(
            format!(
                "HTTP/1.1 {status} OK\r\nConnection: Close\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            )
            .into(),
        )
    });
    let mut session = RpcClient::from(node(&server)).session().await.unwrap();
    for n in 0..3_u64 {
        assert_eq!(session.call::<u64>("echo", json!([n])).await.unwrap(), n);
    }
}

#[tokio::test]
async fn errors_have_causes_and_no_secrets() {
    let server = HttpServer::start(answer);
    let error = |code: i64, message: &str| {
        json!({ "id": 1, "error": { "code": code, "message": message } }).to_string()
    };
    let echo = "no pa55word, k3yk3yk3y or t0kent0ken";
    for (reply, outcome, cause) in [
        (
            Reply::status(404, error(-32601, echo)),
            Outcome::Unknown,
            "not-offered",
        ),
        (
            Reply::ok(error(-32004, echo)),
            Outcome::Unknown,
            "not-offered",
        ),
        (
            Reply::ok(error(-32005, echo)),
            Outcome::Unknown,
            "rate-limited",
        ),
        (Reply::status(429, echo), Outcome::Unknown, "rate-limited"),
        (Reply::status(401, echo), Outcome::Fail, "unauthorized"),
        (Reply::status(403, echo), Outcome::Fail, "forbidden"),
        (
            Reply::status(500, error(-1, echo)),
            Outcome::Fail,
            "rpc-error",
        ),
        (
            Reply::ok(error(-1, &"long ".repeat(10_000))),
            Outcome::Fail,
            "rpc-error",
        ),
        (Reply::status(500, echo), Outcome::Fail, "status"),
        (
            Reply::status(302, r#"{"id":1,"result":7}"#),
            Outcome::Fail,
            "status",
        ),
        (
            Reply::ok(r#"{"id":2,"result":7}"#),
            Outcome::Fail,
            "no-json-rpc",
        ),
        (
            Reply::ok(r#"{"id":1,"result":"k3yk3yk3y"}"#),
            Outcome::Fail,
            "no-json-rpc",
        ),
        (
            Reply::ok(r#"{"id":1,"error":"k3yk3yk3y"}"#),
            Outcome::Fail,
            "no-json-rpc",
        ),
        (Reply::ok(echo), Outcome::Fail, "no-json-rpc"),
        (Reply::ok(vec![b'['; 1 << 20]), Outcome::Fail, "no-json-rpc"),
        (
            Reply::ok(vec![b' '; (1 << 20) + 1]),
            Outcome::Fail,
            "answer-too-large",
        ),
        (Reply::Close, Outcome::Fail, "no-http"),
    ] {
        server.script(move |_| reply.clone());
        let error = call(&server).await.unwrap_err();
        let seen = error.observation();
        assert_eq!(
            (seen.outcome, seen.cause.as_str()),
            (outcome, cause),
            "{seen:?}"
        );
        for secret in ["pa55word", "k3yk3yk3y", "t0kent0ken"] {
            assert!(!format!("{error:?} {seen:?}").contains(secret), "{error:?}");
        }
        assert!(seen.detail.unwrap().len() < 400);
    }
}

#[tokio::test]
async fn references_are_asked_at_once_and_not_for_long() {
    let (good, hung, broken) = (
        HttpServer::start(answer),
        HttpServer::start(|_| Reply::Hang),
        HttpServer::start(|_| Reply::Close),
    );
    let nodes = [&hung, &good, &hung, &broken, &hung].map(node);
    let references = References::new(nodes.into(), Duration::from_secs(3));
    let begun = Instant::now();
    let answers = references
        .ask(|i, mut session| async move { session.call::<usize>("echo", json!([i])).await })
        .await;
    assert_eq!(answers, [None, Some(1), None, None, None]);
    // Three that hang take as long as one.
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_an_error_or_the_answer(body in prop::collection::vec(any::<u8>(), 0..300), status in 200_u16..600, raw in any::<bool>()) {
        let server = HttpServer::start(move |_| if raw { Reply::Raw(body.clone()) } else { Reply::status(status, body.clone()) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        prop_assert!(runtime.block_on(call(&server)).is_err());
    }
}
