use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ethers::types::H256;
use groundtackle_health_check::{Check, Clock, Observation, SystemClock};
use groundtackle_health_check_json_rpc::{
    Findings, References, RpcClient, RpcError, Session, Standstill, lower_median,
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
        self.compare(&mut session, &head, &mut findings).await;
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

    /// With the references: how far they are, then what they have where both have a block.
    async fn compare(&self, session: &mut Session, head: &Head, findings: &mut Findings) {
        if self.references.is_empty() {
            return;
        }
        let ask = |_, mut session: Session| async move {
            let id = answers::chain_id(&mut session).await?;
            let head = answers::block(&mut session, "latest").await?;
            Ok((id, head))
        };
        let heads = self.references.ask(ask).await;
        // One that is elsewhere is no reference.
        let heights: Vec<Option<u64>> = heads
            .into_iter()
            .map(|answer| {
                let (_, head) = answer.filter(|(id, _)| *id == self.probe.chain_id)?;
                Some(head?.number.0)
            })
            .collect();
        let (all, answers) = (heights.len(), heights.iter().flatten().count());
        let median = lower_median(heights.iter().flatten().copied());
        let Some(median) = median.filter(|_| answers >= self.probe.min_references) else {
            findings.add(few(answers, all));
            return;
        };
        let number = head.number.0;
        let lag = median.saturating_sub(number);
        if lag > self.probe.max_lag {
            let detail = format!("block {number} is {lag} behind {answers} other nodes");
            findings.add(Observation::fail("lag").with_detail(detail));
        }
        // What it has beyond them, they can't vouch for.
        let lead = number.saturating_sub(median);
        if lead > self.probe.max_lag {
            let detail = format!("block {number} is {lead} ahead of {answers} other nodes");
            findings.add(Observation::warn("references-behind").with_detail(detail));
        }
        let height = median.min(number).saturating_sub(self.probe.fork_depth);
        let ours = match answers::block(session, &hex(height)).await {
            Ok(Some(ours)) => ours.hash,
            Ok(None) => {
                let detail = format!("it has no block {height}");
                return findings.add(Observation::unknown("no-block").with_detail(detail));
            }
            Err(error) => return findings.add(error.observation()),
        };
        let reached = |i: usize| heights.get(i).copied().flatten() >= Some(height);
        let hashes = self
            .references
            .ask(|i, mut session| {
                let reached = reached(i);
                async move {
                    match reached {
                        true => answers::block(&mut session, &hex(height)).await,
                        false => Ok(None),
                    }
                }
            })
            .await;
        let hashes: Vec<H256> = hashes
            .into_iter()
            .flatten()
            .flatten()
            .map(|head| head.hash)
            .collect();
        let differ = hashes.iter().filter(|hash| **hash != ours).count();
        let of = hashes.len();
        let detail = format!("block {height} is another for {differ} of {of} other nodes");
        if of < self.probe.min_references.max(1) {
            findings.add(few(of, all));
        } else if differ > of / 2 {
            findings.add(Observation::fail("fork").with_detail(detail));
        } else if differ > 0 {
            findings.add(Observation::warn("references-differ").with_detail(detail));
        }
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

fn few(answers: usize, all: usize) -> Observation {
    let detail = format!("{answers} of {all} other nodes could be compared with");
    Observation::unknown("few-references").with_detail(detail)
}

#[async_trait]
impl Check for EthereumCheck {
    async fn check(&self) -> Observation {
        self.look()
            .await
            .unwrap_or_else(|error| error.observation())
    }
}
