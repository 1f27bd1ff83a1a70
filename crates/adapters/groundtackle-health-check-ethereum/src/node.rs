use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ethers::types::H256;
use groundtackle_health_check::{Check, Clock, Observation, SystemClock};
use groundtackle_health_check_json_rpc::{
    Compared, Findings, References, RpcClient, RpcError, Session, Standstill,
};
use serde_json::json;

use crate::answers::{self, Head, Quantity, hex, judge};
use crate::config::EthereumProbe;
use crate::head::{age, ahead};

/// A head is made for its slot, so that one from the future tells of a wrong clock, here or there.
const MAX_AHEAD: Duration = Duration::from_secs(30);

/// Looks at a node as an [`EthereumProbe`] says.
#[derive(Debug)]
pub struct EthereumCheck {
    probe: EthereumProbe,
    node: RpcClient,
    references: References,
    clock: Arc<dyn Clock>,
    head: Standstill<H256>,
}

impl From<EthereumProbe> for EthereumCheck {
    fn from(probe: EthereumProbe) -> Self {
        Self::with_clock(probe, Arc::new(SystemClock))
    }
}

impl EthereumCheck {
    /// By another clock than the system's.
    #[must_use]
    pub fn with_clock(probe: EthereumProbe, clock: Arc<dyn Clock>) -> Self {
        Self {
            node: probe.node.clone().into(),
            references: References::new(probe.references.clone(), probe.reference_timeout),
            head: Standstill::new(clock.clone()),
            clock,
            probe,
        }
    }

    async fn look(&self) -> Result<Observation, RpcError> {
        let mut session = self.node.session().await?;
        let head = answers::block(&mut session, "latest").await?;
        let Some(head) = head else {
            return Ok(Observation::fail("no-head").with_detail("it has no block"));
        };
        let mut findings = Findings::default();
        let id = answers::chain_id(&mut session).await;
        findings.maybe(judge(id, |id| {
            answers::judge_chain(id, self.probe.chain_id)
        }));
        if self.probe.syncing {
            let syncing = answers::syncing(&mut session).await;
            findings.maybe(judge(syncing, |syncing| {
                Some(Observation::fail("syncing").with_detail(format!("it syncs: {}", syncing?)))
            }));
        }
        findings.maybe(self.judge_age(&head));
        findings.maybe(self.judge_standstill(&head));
        for (tag, cause, limit) in [
            ("safe", "safe-lag", self.probe.max_safe_lag),
            ("finalized", "finalized-lag", self.probe.max_finalized_lag),
        ] {
            if limit > 0 {
                let block = answers::block(&mut session, tag).await;
                findings.maybe(judge_lag(tag, cause, limit, &head, block));
            }
        }
        if self.probe.min_peers.max(self.probe.warn_peers) > 0 {
            let peers = session.call("net_peerCount", json!([])).await;
            findings.maybe(judge(peers, |peers: Quantity| self.judge_peers(peers.0)));
        }
        let (height, how) = (head.number.0, self.probe.comparison());
        let compared = self
            .references
            .compare(&self.probe, &mut session, height, how, &mut findings)
            .await;
        findings.maybe(judge(compared, |()| None));
        let (number, age) = (head.number.0, age(&*self.clock, &head).as_secs());
        Ok(findings.sum(format!("the head, block {number}, is {age} s old")))
    }

    fn judge_age(&self, head: &Head) -> Option<Observation> {
        let (number, age) = (head.number.0, age(&*self.clock, head));
        let older = |limit: Duration| !limit.is_zero() && age > limit;
        let ahead = ahead(&*self.clock, head);
        if ahead > MAX_AHEAD {
            let secs = ahead.as_secs();
            let detail = format!("the head, block {number}, is {secs} s ahead of this clock");
            return Some(Observation::warn("clock-behind").with_detail(detail));
        }
        let seen = if older(self.probe.fail_head_age) {
            Observation::fail("stale-head")
        } else if older(self.probe.warn_head_age) {
            Observation::warn("stale-head")
        } else {
            return None;
        };
        let secs = age.as_secs();
        Some(seen.with_detail(format!("the head, block {number}, is {secs} s old")))
    }

    fn judge_standstill(&self, head: &Head) -> Option<Observation> {
        let stands = self.head.see(head.hash);
        let limit = self.probe.max_standstill;
        (!limit.is_zero() && stands > limit).then(|| {
            let (number, secs) = (head.number.0, stands.as_secs());
            let detail = format!("the head, block {number}, has been the same for {secs} s");
            Observation::fail("standing-head").with_detail(detail)
        })
    }

    fn judge_peers(&self, peers: u64) -> Option<Observation> {
        let seen = if peers < self.probe.min_peers {
            Observation::fail("few-peers")
        } else if peers < self.probe.warn_peers {
            Observation::warn("few-peers")
        } else {
            return None;
        };
        Some(seen.with_detail(format!("{peers} peers")))
    }
}

impl Compared for EthereumProbe {
    type Hash = H256;

    async fn height(&self, session: &mut Session) -> Result<Option<u64>, RpcError> {
        let id = answers::chain_id(session).await?;
        let head = answers::block(session, "latest").await?;
        // One that is elsewhere is no reference.
        let head = head.filter(|_| id == self.chain_id);
        Ok(head.map(|head| head.number.0))
    }

    async fn hash(&self, session: &mut Session, height: u64) -> Result<Option<H256>, RpcError> {
        let block = answers::block(session, &hex(height)).await?;
        Ok(block.map(|block| block.hash))
    }
}

/// A node that knows no such block says so by nothing, or by an error.
fn judge_lag(
    tag: &'static str,
    cause: &'static str,
    limit: u64,
    head: &Head,
    block: Result<Option<Head>, RpcError>,
) -> Option<Observation> {
    let block = match block {
        Ok(Some(block)) => block,
        Ok(None) => {
            let detail = format!("it knows no {tag} block");
            return Some(Observation::unknown("not-offered").with_detail(detail));
        }
        Err(error @ RpcError::Node { .. }) => {
            let detail = format!("it knows no {tag} block: {error}");
            return Some(Observation::unknown("not-offered").with_detail(detail));
        }
        Err(error) => return Some(error.observation()),
    };
    let lag = head.number.0.saturating_sub(block.number.0);
    (lag > limit).then(|| {
        let detail = format!(
            "the {tag} block, {}, is {lag} behind the head",
            block.number.0
        );
        Observation::fail(cause).with_detail(detail)
    })
}

#[async_trait]
impl Check for EthereumCheck {
    async fn check(&self) -> Observation {
        self.look()
            .await
            .unwrap_or_else(|error| error.observation())
    }
}
