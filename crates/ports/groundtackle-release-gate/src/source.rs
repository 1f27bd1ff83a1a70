//! Where evidence comes from, and who acts on an answer.

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::decision::{Action, Request};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::evidence::{Evidence, Fact};
use crate::permit::Permit;

/// Finds out what is known about a request.
#[async_trait]
pub trait EvidenceSource: fmt::Debug + Send + Sync + 'static {
    /// What evidence calls it: an adapter's name with the place that it reads. No other source of the same gate has it.
    fn name(&self) -> &str;

    /// All that it knows of the request, at the time at which it was so.
    ///
    /// What could not be read is an error, never left out: a list that is whole where it is not is worse than none. What is not
    /// there is no evidence.
    ///
    /// **Idempotency**: it changes nothing. **Cancel safety**: it can be dropped at any time.
    ///
    /// # Errors
    /// When it could not be read.
    async fn collect(&self, request: &Request) -> Result<Vec<Evidence>>;
}

/// Does what a permit allows. To act without one does not compile:
///
/// ```
/// use groundtackle_release_gate::{Action, Deployer, Digest, Permit, Result};
///
/// async fn act(deployer: &dyn Deployer, artefact: &Digest, permit: Permit) -> Result<()> {
///     deployer.deploy(artefact, "production", Action::Deploy, permit).await
/// }
/// ```
///
/// ```compile_fail,E0061
/// use groundtackle_release_gate::{Action, Deployer, Digest, Permit, Result};
///
/// async fn act(deployer: &dyn Deployer, artefact: &Digest, permit: Permit) -> Result<()> {
///     deployer.deploy(artefact, "production", Action::Deploy).await
/// }
/// ```
///
/// Nor does it to use one twice:
///
/// ```compile_fail,E0382
/// use groundtackle_release_gate::{Action, Deployer, Digest, Permit, Result};
///
/// async fn act(deployer: &dyn Deployer, artefact: &Digest, permit: Permit) -> Result<()> {
///     deployer.deploy(artefact, "production", Action::Deploy, permit).await?;
///     deployer.deploy(artefact, "production", Action::Deploy, permit).await
/// }
/// ```
#[async_trait]
pub trait Deployer: fmt::Debug + Send + Sync + 'static {
    /// Redeems the permit for exactly this before it does anything, and then does it.
    ///
    /// **Atomicity**: a permit that is refused changes nothing. Between steps it asks
    /// [`Clearance::may_go_on`](crate::Clearance::may_go_on). **Idempotency**: none; each call takes a permit.
    ///
    /// # Errors
    /// [`Error::Refused`] if the permit does not allow it; otherwise what went wrong, `Indeterminate` if anything may have changed.
    async fn deploy(
        &self,
        artefact: &Digest,
        environment: &str,
        action: Action,
        permit: Permit,
    ) -> Result<()>;
}

/// What some sources found, and which of them could not.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Collected {
    /// What was found, and a [`Fact::Unread`] of each source that could not be read, so that no answer is go but for a rollback.
    pub evidence: Vec<Evidence>,
    /// Who could not, and why.
    pub failures: Vec<(String, Error)>,
}

impl Collected {
    /// With what a source of that name found, or that it could not, at that time.
    pub fn add(&mut self, name: &str, found: Result<Vec<Evidence>>, now: Timestamp) {
        match found {
            Ok(evidence) => self.evidence.extend(evidence),
            Err(error) => {
                let detail = error.to_string();
                let unread = Evidence::new(name, now, Fact::Unread { detail });
                self.evidence.push(unread);
                self.failures.push((name.into(), error));
            }
        }
    }
}

/// The names of more than one of these sources.
pub fn shared_names<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    names
        .into_iter()
        .filter(|name| !seen.insert(*name))
        .collect()
}

/// Asks each source in turn; `now` is when one that can't be read was found to be so. Sources that share a name are not read:
/// evidence of the later one would be taken for news of the first.
pub async fn collect(
    sources: &[&dyn EvidenceSource],
    request: &Request,
    now: Timestamp,
) -> Collected {
    let shared = shared_names(sources.iter().map(|source| source.name()));
    let mut collected = Collected::default();
    for source in sources {
        let name = source.name();
        let found = match shared.contains(name) {
            true => Err(Error::shared_name(name)),
            false => source.collect(request).await,
        };
        collected.add(name, found, now);
    }
    collected
}
