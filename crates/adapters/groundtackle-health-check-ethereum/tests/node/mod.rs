//! A node that answers as a test says.
#![allow(
    dead_code,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "each test takes what it needs"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use groundtackle_health_check::Observation;
use groundtackle_health_check_ethereum::Node as Address;
use groundtackle_testkit_servers::{HttpServer, Reply, Request};
use serde_json::{Value, json};

/// What it answers: to a method, or to a method with its first parameter, by `method:parameter`.
type Answers = Arc<Mutex<HashMap<String, Value>>>;

pub(crate) struct Node {
    pub(crate) server: HttpServer,
    answers: Answers,
}

/// Blocks have their height as hash, so that chains agree.
pub(crate) fn block(height: u64, time: u64) -> Value {
    json!({ "number": format!("{height:#x}"), "hash": format!("{height:#066x}"), "timestamp": format!("{time:#x}"), "extraData": "0x" })
}

pub(crate) fn seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs()
}

fn reply(answers: &Answers, request: &Request) -> Reply {
    let call: Value = serde_json::from_slice(&request.body).unwrap();
    let (method, first) = (call["method"].as_str().unwrap(), &call["params"][0]);
    let answers = answers.lock().unwrap();
    let first = first
        .as_str()
        .map_or_else(|| first.to_string(), str::to_owned);
    let found = answers
        .get(&format!("{method}:{first}"))
        .or_else(|| answers.get(method));
    let error = |code: i64, message: &str| {
        let error = json!({ "code": code, "message": message });
        Reply::ok(json!({ "jsonrpc": "2.0", "id": call["id"], "error": error }).to_string())
    };
    let ok = |answer: &Value| {
        Reply::ok(json!({ "jsonrpc": "2.0", "id": call["id"], "result": answer }).to_string())
    };
    match found {
        Some(Value::String(text)) if text == "hang" => Reply::Hang,
        Some(answer) if answer["code"].is_i64() => {
            error(answer["code"].as_i64().unwrap(), "no such thing")
        }
        Some(answer) => ok(answer),
        None if method == "eth_getBlockByNumber" && first.starts_with("0x") => {
            let height = u64::from_str_radix(&first[2..], 16).unwrap();
            ok(&block(height, seconds()))
        }
        None => error(-32601, "the method does not exist"),
    }
}

impl Node {
    /// One of main net that is well, at this height.
    pub(crate) fn at(height: u64) -> Self {
        let answers = Answers::default();
        let of = answers.clone();
        let server = HttpServer::start(move |request| reply(&of, request));
        let node = Self { server, answers };
        node.is_at(height);
        node.set("eth_chainId", json!("0x1"));
        node.set("eth_syncing", json!(false));
        node.set("net_peerCount", json!("0x19"));
        node
    }

    pub(crate) fn is_at(&self, height: u64) {
        self.set("eth_getBlockByNumber:latest", block(height, seconds()));
    }

    pub(crate) fn set(&self, method: &str, answer: Value) {
        self.answers.lock().unwrap().insert(method.into(), answer);
    }

    pub(crate) fn forget(&self, method: &str) {
        self.answers.lock().unwrap().remove(method);
    }

    /// Whatever is asked.
    pub(crate) fn script(&self, reply: Reply) {
        self.server.script(move |_| reply.clone());
    }

    /// As told by `set` again.
    pub(crate) fn unscript(&self) {
        let answers = self.answers.clone();
        self.server
            .script(move |request| self::reply(&answers, request));
    }

    pub(crate) fn address(&self) -> Address {
        Address::new(self.server.url("/v3/k3yk3yk3y").parse().unwrap())
    }
}

pub(crate) fn assert_seen(seen: &Observation, outcome: &str, cause: &str, says: &str) {
    assert_eq!(
        (seen.outcome.as_str(), seen.cause.as_str()),
        (outcome, cause),
        "{seen:?}"
    );
    let detail = seen.detail.as_deref().unwrap_or_default();
    assert!(detail.contains(says), "{says:?} is not in {detail:?}");
}
