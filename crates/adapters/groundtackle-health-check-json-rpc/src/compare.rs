use groundtackle_health_check::Observation;

use crate::client::Session;
use crate::error::Result;
use crate::findings::Findings;
use crate::node::Node;
use crate::references::{References, lower_median};

/// What is asked of a node to compare its chain with that of others.
pub trait Compared: Sync {
    /// What tells a block from others of its height.
    type Hash: PartialEq + Send;

    /// The height of a reference's tip; `None` of one that is on another chain, or not ready itself, and is no reference.
    ///
    /// # Errors
    /// When it does not say: then it is no reference.
    fn height(&self, session: &mut Session) -> impl Future<Output = Result<Option<u64>>> + Send;

    /// The block at this height, of the node that is compared and of references; `None` where there is none.
    ///
    /// # Errors
    /// When it does not say.
    fn hash(
        &self,
        session: &mut Session,
        height: u64,
    ) -> impl Future<Output = Result<Option<Self::Hash>>> + Send;
}

/// What a comparison may find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// How many references must answer; otherwise it is `Unknown`, `few-references`. At least one.
    pub min_references: usize,
    /// More blocks behind the lower median of the references are `Fail`, `lag`; more ahead of it, which they can't vouch for, `Warn`,
    /// `references-behind`.
    pub max_lag: u64,
    /// Blocks that lie this deep under the lower of both heights must be the same for most of the references: otherwise it is `Fail`,
    /// `fork`; where they differ for some, `Warn`, `references-differ`.
    pub fork_depth: u64,
}

impl Comparison {
    /// Whether there are as many references as it needs.
    ///
    /// # Errors
    /// What is wrong with them, to follow what they are of.
    pub fn fits(&self, references: &[Node]) -> Result<(), &'static str> {
        if references.len() > References::MAX {
            return Err("has more than 16 references; leave some out");
        }
        if !references.is_empty() && self.min_references.max(1) > references.len() {
            return Err(
                "has a min_references above the number of references, so that it could never pass",
            );
        }
        Ok(())
    }
}

impl References {
    /// Compares a node, whose tip has this height, with the references: how far they are, then what they have where both have a block.
    /// Without references nothing is found.
    ///
    /// **Cancel safety**: dropped, the connections go with it.
    ///
    /// # Errors
    /// When the node that is compared does not say what block it has. What references don't say is a finding.
    pub async fn compare<C: Compared>(
        &self,
        chain: &C,
        session: &mut Session,
        tip: u64,
        how: Comparison,
        findings: &mut Findings,
    ) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let ask = |_, mut session: Session| async move { chain.height(&mut session).await };
        let heights = self.ask(ask).await;
        let heights: Vec<Option<u64>> = heights.into_iter().map(Option::flatten).collect();
        let (all, answers) = (heights.len(), heights.iter().flatten().count());
        let median = lower_median(heights.iter().flatten().copied());
        let Some(median) = median.filter(|_| answers >= how.min_references) else {
            findings.add(few(answers, all));
            return Ok(());
        };
        let lag = median.saturating_sub(tip);
        if lag > how.max_lag {
            let detail = format!("block {tip} is {lag} behind {answers} other nodes");
            findings.add(Observation::fail("lag").with_detail(detail));
        }
        // What it has beyond them, they can't vouch for.
        let lead = tip.saturating_sub(median);
        if lead > how.max_lag {
            let detail = format!("block {tip} is {lead} ahead of {answers} other nodes");
            findings.add(Observation::warn("references-behind").with_detail(detail));
        }
        let height = median.min(tip).saturating_sub(how.fork_depth);
        let Some(ours) = chain.hash(session, height).await? else {
            let detail = format!("it has no block {height}");
            findings.add(Observation::unknown("no-block").with_detail(detail));
            return Ok(());
        };
        let heights = &heights;
        let ask = |i: usize, mut session: Session| async move {
            match heights.get(i).copied().flatten() >= Some(height) {
                true => chain.hash(&mut session, height).await,
                false => Ok(None),
            }
        };
        let hashes: Vec<C::Hash> = self
            .ask(ask)
            .await
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        let differ = hashes.iter().filter(|hash| **hash != ours).count();
        let of = hashes.len();
        let detail = format!("block {height} is another for {differ} of {of} other nodes");
        if of < how.min_references.max(1) {
            findings.add(few(of, all));
        } else if differ > of / 2 {
            findings.add(Observation::fail("fork").with_detail(detail));
        } else if differ > 0 {
            findings.add(Observation::warn("references-differ").with_detail(detail));
        }
        Ok(())
    }
}

fn few(answers: usize, all: usize) -> Observation {
    let detail = format!("{answers} of {all} other nodes could be compared with");
    Observation::unknown("few-references").with_detail(detail)
}
