//! What nodes answer: Bitcoin Core from 0.14 on, SV nodes, and what came of them.

use groundtackle_health_check_json_rpc::{Result, RpcError, Session};
use serde::Deserialize;
use serde_json::{Value, json};

/// `getblockchaininfo`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Chain {
    pub(crate) chain: String,
    pub(crate) blocks: u64,
    pub(crate) headers: u64,
    #[serde(rename = "bestblockhash")]
    pub(crate) tip: String,
    /// Bitcoin Core has it since 0.16; SV nodes since 1.0.
    #[serde(rename = "initialblockdownload")]
    pub(crate) downloading: Option<bool>,
    #[serde(default)]
    pub(crate) warnings: Value,
}

/// `getblockheader`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Header {
    pub(crate) time: u64,
    #[serde(rename = "mediantime")]
    pub(crate) median_time: Option<u64>,
}

/// `getnetworkinfo`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Network {
    pub(crate) connections: u64,
    #[serde(rename = "networkactive")]
    pub(crate) active: Option<bool>,
    #[serde(default)]
    pub(crate) warnings: Value,
}

pub(crate) async fn chain(session: &mut Session) -> Result<Chain> {
    session.call("getblockchaininfo", json!([])).await
}

pub(crate) async fn header(session: &mut Session, hash: &str) -> Result<Header> {
    session.call("getblockheader", json!([hash])).await
}

pub(crate) async fn hash_at(session: &mut Session, height: u64) -> Result<String> {
    session.call("getblockhash", json!([height])).await
}

/// `getnetworkinfo`, or what of it `getconnectioncount` says, where the first is not offered.
pub(crate) async fn network(session: &mut Session) -> Result<Network> {
    match session.call("getnetworkinfo", json!([])).await {
        Err(RpcError::NotOffered { .. } | RpcError::Forbidden { .. }) => {
            let connections = session.call("getconnectioncount", json!([])).await?;
            Ok(Network {
                connections,
                active: None,
                warnings: Value::Null,
            })
        }
        answer => answer,
    }
}

/// Warnings are a text, or since Bitcoin Core 28 a list of them.
pub(crate) fn texts(warnings: &Value) -> impl Iterator<Item = &str> {
    let all = match warnings {
        Value::Array(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    };
    let texts = all.iter().filter_map(Value::as_str);
    texts.filter(|text| !text.trim().is_empty())
}
