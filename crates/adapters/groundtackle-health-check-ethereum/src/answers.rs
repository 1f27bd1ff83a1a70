//! What nodes answer (<https://ethereum.github.io/execution-apis/>).

use ethers::types::{H256, U256};
use groundtackle_health_check::Observation;
use groundtackle_health_check_json_rpc::{Result, RpcError, Session};
use serde::Deserialize;
use serde_json::{Value, json};

/// What is used of a block.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Head {
    pub(crate) number: Quantity,
    pub(crate) hash: H256,
    pub(crate) timestamp: Quantity,
}

/// A number that fits 64 bits, as heights and times do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "U256")]
pub(crate) struct Quantity(pub(crate) u64);

impl TryFrom<U256> for Quantity {
    type Error = &'static str;

    fn try_from(number: U256) -> std::result::Result<Self, &'static str> {
        u64::try_from(number).map(Self)
    }
}

/// What is used of a log.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Log {
    #[serde(rename = "blockNumber")]
    pub(crate) block: Quantity,
}

pub(crate) async fn chain_id(session: &mut Session) -> Result<u64> {
    let id: Quantity = session.call("eth_chainId", json!([])).await?;
    Ok(id.0)
}

/// `None` where the node has none.
pub(crate) async fn block(session: &mut Session, which: &str) -> Result<Option<Head>> {
    session
        .call("eth_getBlockByNumber", json!([which, false]))
        .await
}

pub(crate) fn hex(height: u64) -> String {
    format!("{height:#x}")
}

/// `None` where it does not sync; otherwise how far it is, as far as it says so.
pub(crate) async fn syncing(session: &mut Session) -> Result<Option<String>> {
    let answer: Value = session.call("eth_syncing", json!([])).await?;
    if answer == Value::Bool(false) {
        return Ok(None);
    }
    let at = |key: &str| {
        let number = answer.get(key)?.clone();
        serde_json::from_value::<Quantity>(number).ok()
    };
    Ok(Some(match (at("currentBlock"), at("highestBlock")) {
        (Some(current), Some(highest)) => format!("at block {} of {}", current.0, highest.0),
        _ => "it does not say how far it is".into(),
    }))
}

/// What an answer says, or that there is none.
pub(crate) fn judge<T>(
    answer: Result<T, RpcError>,
    judge: impl FnOnce(T) -> Option<Observation>,
) -> Option<Observation> {
    match answer {
        Ok(answer) => judge(answer),
        Err(error) => Some(error.observation()),
    }
}

pub(crate) fn judge_chain(id: u64, wanted: u64) -> Option<Observation> {
    let detail = format!("it is on chain {id}, and must be on {wanted}");
    (id != wanted).then(|| Observation::fail("wrong-chain").with_detail(detail))
}
