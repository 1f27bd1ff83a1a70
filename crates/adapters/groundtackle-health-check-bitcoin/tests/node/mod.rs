//! A node that answers as a test says.
#![allow(
    dead_code,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "each test takes what it needs"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use groundtackle_health_check_bitcoin::Node as Address;
use groundtackle_testkit_servers::{HttpServer, Reply, Request};
use serde_json::{Value, json};

/// What it answers: to a method, or to a method with its first parameter, by `method:parameter`.
type Answers = Arc<Mutex<HashMap<String, Value>>>;

pub(crate) struct Node {
    pub(crate) server: HttpServer,
    answers: Answers,
}

/// Blocks have their height as hash, so that chains agree.
pub(crate) fn hash(height: u64) -> String {
    format!("{height:064x}")
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
    let error = |status: u16, code: i64, message: &str| {
        let body = json!({ "result": null, "error": { "code": code, "message": message }, "id": call["id"] });
        Reply::status(status, body.to_string())
    };
    match found {
        Some(Value::Null) => Reply::Hang,
        Some(answer) if answer["status"].is_u64() => {
            let body = answer["body"].as_str().unwrap_or_default();
            Reply::status(answer["status"].as_u64().unwrap() as u16, body)
        }
        Some(answer) if answer["code"].is_i64() => error(
            500,
            answer["code"].as_i64().unwrap(),
            answer["message"].as_str().unwrap(),
        ),
        Some(answer) => {
            let body = json!({ "result": answer, "error": null, "id": call["id"] });
            Reply::ok(body.to_string())
        }
        None if method == "getblockhash" => {
            let hash = hash(first.parse().unwrap());
            let body = json!({ "result": hash, "error": null, "id": call["id"] });
            Reply::ok(body.to_string())
        }
        // As Bitcoin Core does.
        None => error(404, -32601, "Method not found"),
    }
}

impl Node {
    /// One that is well, at this height.
    pub(crate) fn at(height: u64) -> Self {
        let answers = Answers::default();
        let of = answers.clone();
        let server = HttpServer::start(move |request| reply(&of, request));
        let node = Self { server, answers };
        node.is_at(height);
        node.set(
            "getnetworkinfo",
            json!({ "connections": 8, "networkactive": true, "warnings": "" }),
        );
        node
    }

    pub(crate) fn is_at(&self, height: u64) {
        let tip = hash(height);
        self.set(
            "getblockchaininfo",
            json!({
                "chain": "main", "blocks": height, "headers": height, "bestblockhash": tip,
                "initialblockdownload": false, "warnings": [],
            }),
        );
        let time = seconds();
        self.set(
            "getblockheader",
            json!({ "hash": tip, "time": time, "mediantime": time - 3000 }),
        );
    }

    pub(crate) fn set(&self, method: &str, answer: Value) {
        self.answers.lock().unwrap().insert(method.into(), answer);
    }

    pub(crate) fn change(&self, method: &str, key: &str, to: Value) {
        self.answers.lock().unwrap().get_mut(method).unwrap()[key] = to;
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
        Address::new(self.server.url("/wallet/k3yk3yk3y").parse().unwrap())
    }
}
