//! Where evidence comes from, and who acts on an answer.

use std::fmt;

use async_trait::async_trait;

use crate::decision::{Action, Request};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::evidence::Evidence;
use crate::permit::Permit;

/// Finds out what is known about a request.
#[async_trait]
pub trait EvidenceSource: fmt::Debug + Send + Sync + 'static {
    /// What evidence calls it: an adapter's name with the place that it reads.
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
    /// What was found.
    pub evidence: Vec<Evidence>,
    /// Who could not, and why. What they would have found is missing, so that no answer that needs it is go.
    pub failures: Vec<(String, Error)>,
}

/// Asks each source in turn.
pub async fn collect(sources: &[&dyn EvidenceSource], request: &Request) -> Collected {
    let mut collected = Collected::default();
    for source in sources {
        match source.collect(request).await {
            Ok(evidence) => collected.evidence.extend(evidence),
            Err(error) => collected.failures.push((source.name().into(), error)),
        }
    }
    collected
}
