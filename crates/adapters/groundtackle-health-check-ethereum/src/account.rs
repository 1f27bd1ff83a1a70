use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ethers::types::U256;
use groundtackle_health_check::{Check, Clock, Observation, SystemClock};
use groundtackle_health_check_json_rpc::{
    Findings, Result, RpcClient, RpcError, Session, Standstill,
};
use serde_json::json;

use crate::amount::Amount;
use crate::answers::{self, Head, Log, hex, judge, judge_chain};
use crate::config::{EthereumAccountProbe, EventProbe};
use crate::head::age;

/// How many ranges of blocks are gone back for an event.
const MAX_RANGES: usize = 32;
/// The first range: what comes all the time is found without a long answer.
const FIRST_RANGE: u64 = 16;

/// Looks at an account as an [`EthereumAccountProbe`] says.
#[derive(Debug)]
pub struct EthereumAccountCheck {
    probe: EthereumAccountProbe,
    node: RpcClient,
    clock: Arc<dyn Clock>,
    nonce: Standstill<U256>,
    /// The block of the last event that was found: until it is too old, nothing need be searched.
    event: Mutex<Option<Head>>,
}

impl From<EthereumAccountProbe> for EthereumAccountCheck {
    fn from(probe: EthereumAccountProbe) -> Self {
        Self::with_clock(probe, Arc::new(SystemClock))
    }
}

impl EthereumAccountCheck {
    /// By another clock than the system's.
    #[must_use]
    pub fn with_clock(probe: EthereumAccountProbe, clock: Arc<dyn Clock>) -> Self {
        Self {
            node: probe.node.clone().into(),
            nonce: Standstill::new(clock.clone()),
            event: Mutex::new(None),
            clock,
            probe,
        }
    }

    async fn look(&self) -> Result<Observation> {
        let probe = &self.probe;
        let mut session = self.node.session().await?;
        let id = answers::chain_id(&mut session).await?;
        if let Some(wrong) = judge_chain(id, probe.chain_id) {
            // What another chain knows of the account says nothing.
            return Ok(wrong);
        }
        let account = json!([probe.address.get(), "latest"]);
        let mut findings = Findings::default();
        let mut says = format!("{}", probe.address);
        if !probe.min_balance.is_zero() || !probe.warn_balance.is_zero() {
            let balance = session.call("eth_getBalance", account.clone()).await;
            findings.maybe(judge(balance, |balance: U256| {
                let balance = Amount::new(balance);
                says += &format!(" has {balance}");
                self.judge_balance(balance)
            }));
        }
        if !probe.max_idle.is_zero() {
            let nonce = session.call("eth_getTransactionCount", account).await;
            findings.maybe(judge(nonce, |nonce: U256| self.judge_nonce(nonce)));
        }
        if let Some(event) = &probe.event {
            findings.maybe(judge(self.find(&mut session, event).await, |seen| seen));
        }
        Ok(findings.sum(says))
    }

    fn judge_balance(&self, balance: Amount) -> Option<Observation> {
        let (floor, seen) = if balance < self.probe.min_balance {
            (self.probe.min_balance, Observation::fail("low-balance"))
        } else if balance < self.probe.warn_balance {
            (self.probe.warn_balance, Observation::warn("low-balance"))
        } else {
            return None;
        };
        let address = self.probe.address;
        Some(seen.with_detail(format!("{address} has {balance}, and should have {floor}")))
    }

    fn judge_nonce(&self, nonce: U256) -> Option<Observation> {
        let idle = self.nonce.see(nonce);
        (idle > self.probe.max_idle).then(|| {
            let (address, secs) = (self.probe.address, idle.as_secs());
            let detail = format!("{address} has sent nothing for {secs} s; its nonce is {nonce}");
            Observation::fail("idle").with_detail(detail)
        })
    }

    fn is_recent(&self, block: &Head, within: Duration) -> bool {
        age(&*self.clock, block) <= within
    }

    /// The newest event, from the head back, until what is further back is too old.
    async fn find(&self, session: &mut Session, event: &EventProbe) -> Result<Option<Observation>> {
        let known = || self.event.lock().unwrap_or_else(PoisonError::into_inner);
        if known().is_some_and(|block| self.is_recent(&block, event.within)) {
            return Ok(None);
        }
        let contract = event.contract;
        let Some(head) = answers::block(session, "latest").await? else {
            return Ok(Some(
                Observation::fail("no-head").with_detail("it has no block"),
            ));
        };
        let (mut to, mut range) = (head.number.0, FIRST_RANGE.min(event.max_range));
        for _ in 0..MAX_RANGES {
            let from = to.saturating_sub(range.saturating_sub(1));
            let topics: Vec<_> = event.topics.iter().map(|topic| topic.get()).collect();
            let filter = json!([{
                "address": contract.get(), "topics": topics, "fromBlock": hex(from), "toBlock": hex(to),
            }]);
            let logs: Vec<Log> = session.call("eth_getLogs", filter).await?;
            if let Some(last) = logs.iter().map(|log| log.block.0).max() {
                let block = answers::block(session, &hex(last)).await?;
                *known() = block;
                let recent = block.is_some_and(|block| self.is_recent(&block, event.within));
                return Ok((!recent).then(|| {
                    let detail = format!("the last event of {contract} came in block {last}");
                    Observation::fail("no-event").with_detail(detail)
                }));
            }
            let Some(first) = answers::block(session, &hex(from)).await? else {
                let detail = format!("it has no block {from}");
                return Ok(Some(Observation::unknown("no-block").with_detail(detail)));
            };
            if from == 0 || !self.is_recent(&first, event.within) {
                let detail = format!("{contract} has had no such event since block {from}");
                return Ok(Some(Observation::fail("no-event").with_detail(detail)));
            }
            to = from.saturating_sub(1);
            range = range.saturating_mul(2).min(event.max_range);
        }
        let detail = format!(
            "{contract} has had no such event since block {to}, and further back is not searched; take a larger max_range"
        );
        Ok(Some(
            Observation::unknown("search-ended").with_detail(detail),
        ))
    }
}

#[async_trait]
impl Check for EthereumAccountCheck {
    async fn check(&self) -> Observation {
        let seen: Result<Observation, RpcError> = self.look().await;
        seen.unwrap_or_else(|error| error.observation())
    }
}
