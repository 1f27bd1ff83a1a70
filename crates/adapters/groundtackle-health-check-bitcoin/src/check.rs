use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use groundtackle_health_check::{Cause, Check, Clock, Observation, SystemClock};
use groundtackle_health_check_json_rpc::{
    Compared, Findings, References, RpcClient, RpcError, Session, Standstill,
};

use crate::answers::{self, Chain, Header, Network};
use crate::config::BitcoinProbe;

/// The error of a node that loads its blocks (`RPC_IN_WARMUP`).
const IN_WARMUP: i64 = -28;
/// How far ahead of a node's clock the time of a block may be, by consensus.
const MAX_AHEAD: Duration = Duration::from_secs(2 * 3600);

/// Looks at a node as a [`BitcoinProbe`] says.
#[derive(Debug)]
pub struct BitcoinCheck {
    probe: BitcoinProbe,
    node: RpcClient,
    references: References,
    clock: Arc<dyn Clock>,
    tip: Standstill<String>,
}

impl From<BitcoinProbe> for BitcoinCheck {
    fn from(probe: BitcoinProbe) -> Self {
        Self::with_clock(probe, Arc::new(SystemClock))
    }
}

impl BitcoinCheck {
    /// By another clock than the system's.
    #[must_use]
    pub fn with_clock(probe: BitcoinProbe, clock: Arc<dyn Clock>) -> Self {
        Self {
            node: probe.node.clone().into(),
            references: References::new(probe.references.clone(), probe.reference_timeout),
            tip: Standstill::new(clock.clone()),
            clock,
            probe,
        }
    }

    async fn look(&self) -> Result<Observation, RpcError> {
        let mut session = self.node.session().await?;
        let chain = answers::chain(&mut session).await?;
        let header = answers::header(&mut session, &chain.tip).await;
        let mut findings = Findings::default();
        self.judge_chain(&chain, &mut findings);
        for block in &self.probe.blocks {
            // What it has not come to yet, it can't have wrong.
            if block.height <= chain.blocks {
                let hash = answers::hash_at(&mut session, block.height).await;
                findings.maybe(judge(hash, |hash| {
                    let height = block.height;
                    (hash != block.hash.as_str()).then(|| {
                        let detail =
                            format!("block {height} is {hash}, and must be {}", block.hash);
                        Observation::fail("wrong-chain").with_detail(detail)
                    })
                }));
            }
        }
        let mut age = None;
        findings.maybe(judge(header, |header| {
            age = Some(self.age(&header));
            self.judge_age(&chain, &header)
        }));
        self.judge_standstill(&chain, &mut findings);
        if self.probe.min_peers.max(self.probe.warn_peers) > 0 || self.probe.node_warnings {
            match answers::network(&mut session).await {
                Ok(network) => self.judge_network(&chain, &network, &mut findings),
                Err(error) => findings.add(observation(&error)),
            }
        }
        let how = self.probe.comparison();
        let compared = self
            .references
            .compare(&self.probe, &mut session, chain.blocks, how, &mut findings)
            .await;
        findings.maybe(judge(compared, |()| None));
        let (blocks, age) = (chain.blocks, age.unwrap_or_default().as_secs());
        Ok(findings.sum(format!("the tip, block {blocks}, is {age} s old")))
    }

    fn judge_chain(&self, chain: &Chain, findings: &mut Findings) {
        let wanted = &self.probe.chain;
        if chain.chain != *wanted {
            let is: String = chain.chain.chars().take(40).collect();
            let detail = format!("it is on chain {is:?}, and must be on {wanted:?}");
            findings.add(Observation::fail("wrong-chain").with_detail(detail));
        }
        let (blocks, headers) = (chain.blocks, chain.headers);
        if chain.downloading == Some(true) {
            let detail = format!("it has {blocks} blocks of {headers} headers");
            findings.add(Observation::fail("initial-block-download").with_detail(detail));
        } else if headers.saturating_sub(blocks) > self.probe.max_behind_headers {
            let detail = format!("it has {blocks} blocks of {headers} headers");
            findings.add(Observation::fail("behind-headers").with_detail(detail));
        }
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.clock.now().unix_millis)
    }

    fn age(&self, header: &Header) -> Duration {
        self.now().saturating_sub(Duration::from_secs(header.time))
    }

    fn judge_age(&self, chain: &Chain, header: &Header) -> Option<Observation> {
        let (height, age) = (chain.blocks, self.age(header));
        let older = |limit: Duration| !limit.is_zero() && age > limit;
        let ahead = Duration::from_secs(header.time).saturating_sub(self.now());
        let (seen, says) = if older(self.probe.fail_tip_age) {
            (
                Observation::fail("stale-tip"),
                format!("{} s old", age.as_secs()),
            )
        } else if older(self.probe.warn_tip_age) {
            (
                Observation::warn("stale-tip"),
                format!("{} s old", age.as_secs()),
            )
        } else if ahead > MAX_AHEAD {
            let says = format!(
                "{} s ahead of this clock, which must be wrong",
                ahead.as_secs()
            );
            (Observation::warn("clock-behind"), says)
        } else {
            return None;
        };
        let median = header.median_time.map(Duration::from_secs);
        let median = median.map_or_else(String::new, |median| {
            let age = self.now().saturating_sub(median).as_secs();
            format!(" ({age} s by its median time past)")
        });
        Some(seen.with_detail(format!("the tip, block {height}, is {says}{median}")))
    }

    fn judge_standstill(&self, chain: &Chain, findings: &mut Findings) {
        let stands = self.tip.see(chain.tip.clone());
        let limit = self.probe.max_standstill;
        if !limit.is_zero() && stands > limit {
            let (height, secs) = (chain.blocks, stands.as_secs());
            let detail = format!("the tip, block {height}, has been the same for {secs} s");
            findings.add(Observation::fail("standing-tip").with_detail(detail));
        }
    }

    fn judge_network(&self, chain: &Chain, network: &Network, findings: &mut Findings) {
        let (peers, probe) = (network.connections, &self.probe);
        let detail = || format!("{peers} connections to peers");
        if network.active == Some(false) {
            let detail = "its network is switched off";
            findings.add(Observation::fail("network-off").with_detail(detail));
        } else if peers < probe.min_peers {
            findings.add(Observation::fail("few-peers").with_detail(detail()));
        } else if peers < probe.warn_peers {
            findings.add(Observation::warn("few-peers").with_detail(detail()));
        }
        if probe.node_warnings {
            let mut texts: Vec<&str> = answers::texts(&network.warnings)
                .chain(answers::texts(&chain.warnings))
                .collect();
            texts.dedup();
            if !texts.is_empty() {
                let texts: String = texts.join("; ").chars().take(200).collect();
                let detail = format!("it warns: {texts}");
                findings.add(Observation::warn("node-warnings").with_detail(detail));
            }
        }
    }
}

impl Compared for BitcoinProbe {
    type Hash = String;

    async fn height(&self, session: &mut Session) -> Result<Option<u64>, RpcError> {
        let chain = answers::chain(session).await?;
        // One that is elsewhere, or not ready itself, is no reference.
        let fit = chain.chain == self.chain && chain.downloading != Some(true);
        Ok(fit.then_some(chain.blocks))
    }

    async fn hash(&self, session: &mut Session, height: u64) -> Result<Option<String>, RpcError> {
        answers::hash_at(session, height).await.map(Some)
    }
}

/// What an answer says, or that there is none.
fn judge<T>(
    answer: Result<T, RpcError>,
    judge: impl FnOnce(T) -> Option<Observation>,
) -> Option<Observation> {
    match answer {
        Ok(answer) => judge(answer),
        Err(error) => Some(observation(&error)),
    }
}

fn observation(error: &RpcError) -> Observation {
    match error {
        RpcError::Node {
            code: IN_WARMUP,
            message,
            ..
        } => Observation::fail(Cause::STARTING.as_str().to_owned()).with_detail(message),
        error => error.observation(),
    }
}

#[async_trait]
impl Check for BitcoinCheck {
    async fn check(&self) -> Observation {
        self.look()
            .await
            .unwrap_or_else(|error| observation(&error))
    }
}
