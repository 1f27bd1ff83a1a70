//! For the fuzz target and the corpus test: what must hold of whatever a node answers.

#![allow(clippy::unwrap_used, reason = "a check asserts")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::client::RpcClient;
use crate::error::RpcError;
use crate::node::Node;

const PASSWORD: &str = "pa55word";
const KEY: &str = "0123456789abcdef";

/// A status in two bytes, and a body. There is a result with a status of success, the id of the call and no error alone; what a node
/// says of an error is short, and has nothing of what it was given as a secret.
pub fn rpc_answer(bytes: &[u8]) {
    let [high, low, body @ ..] = bytes else {
        return;
    };
    let status = u16::from_be_bytes([*high, *low]) % 500 + 100;
    let status = StatusCode::from_u16(status).unwrap();
    let url = format!("https://node.example/v3/{KEY}").parse().unwrap();
    let client = RpcClient::from(Node::new(url).with_login("user", PASSWORD));
    // Nothing is read from a disk.
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(session) = pin!(client.session()).poll(&mut context) else {
        return;
    };
    let session = session.unwrap();
    look(session.read::<Value>("m", 1, status, body), status, body);
    look(session.read::<u64>("m", 1, status, body), status, body);
    look(session.read::<String>("m", 1, status, body), status, body);
    look(
        session.read::<Option<Header>>("m", 1, status, body),
        status,
        body,
    );
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "it is read, which is enough")]
struct Header {
    time: u64,
    hash: String,
}

/// Other keys may have anything.
#[derive(Deserialize)]
struct Said {
    id: u64,
    error: Option<IgnoredAny>,
}

fn look<T>(read: Result<T, RpcError>, status: StatusCode, body: &[u8]) {
    match read {
        Ok(_) => {
            let said: Said = serde_json::from_slice(body).unwrap();
            assert!(status.is_success());
            assert!(said.id == 1 && said.error.is_none());
        }
        Err(error) => {
            let shown = format!("{error} {error:?} {:?}", error.observation());
            assert!(!shown.contains(PASSWORD) && !shown.contains(KEY), "{shown}");
            if let RpcError::Node { message, .. } = &error {
                assert!(message.chars().count() <= 200);
            }
        }
    }
}

/// The seeds of [`rpc_answer`].
pub fn answer(status: u16, body: &str) -> Vec<u8> {
    [&(status - 100).to_be_bytes(), body.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Replays the fuzz target's corpus, without a fuzzer.
    #[test]
    fn corpus() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/rpc_answer");
        if !corpus.is_dir() {
            eprintln!("SKIPPED: {} is not there", corpus.display());
            return;
        }
        let mut count = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            // Shown if the check fails.
            eprintln!("{}", path.display());
            rpc_answer(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }
}
