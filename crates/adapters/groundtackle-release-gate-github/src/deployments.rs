//! What came to which environment when.

use std::collections::BTreeSet;

use groundtackle_release_gate::{Digest, Evidence, Fact, Request, Result, Timestamp};
use serde_json::Value;

use crate::api::{Session, encoded};
use crate::error::corrupt;
use crate::record::{Deployment, DeploymentStatus};
use crate::source::GitHub;

/// How many of an environment's newest deployments are read.
const NEWEST: usize = 30;

/// Something that a deployment came to.
#[derive(Debug)]
pub(crate) struct Event {
    deployment: u64,
    /// It was taken away.
    gone: bool,
    environment: String,
    sha: String,
    artefact: Digest,
    succeeded: bool,
    at: Timestamp,
}

/// Of a commit of which it is not known what was built from it: of nothing else's.
fn of_commit(sha: &str) -> Digest {
    Digest::of(format!("commit {sha}").as_bytes())
}

/// The artefact that a deployment's payload names.
fn named(deployment: &Deployment) -> Result<Option<Digest>> {
    let text;
    let payload = match &deployment.payload {
        // As it comes back where it was sent as a text.
        Value::String(inner) => {
            text = serde_json::from_str(inner).unwrap_or(Value::Null);
            &text
        }
        other => other,
    };
    let Some(named) = payload.get("artefact") else {
        return Ok(None);
    };
    let digest = named.as_str().and_then(|text| text.parse().ok());
    let what = format!("deployment {}", deployment.id);
    digest.map(Some).ok_or_else(|| {
        corrupt(&what, "`artefact` of its payload is no digest: write \"sha256:\" and 64 hexadecimal digits in lower case")
    })
}

impl GitHub {
    /// Of all environments that are asked for; `commit` is the one that the request's artefact was built from.
    pub(crate) async fn deployments(
        &self,
        session: &mut Session<'_>,
        request: &Request,
        commit: Option<&str>,
    ) -> Result<Vec<Event>> {
        let config = self.config();
        let mut environments: BTreeSet<&str> =
            config.environments.iter().map(String::as_str).collect();
        environments.insert(&request.environment);
        let mut events = Vec::new();
        for environment in environments {
            let path = self.path(&format!(
                "/deployments?environment={}&per_page={NEWEST}",
                encoded(environment)
            ));
            let what = format!("deployments to {environment}");
            let mut newest: Vec<Deployment> = Vec::new();
            // The newest come first, and a page has enough of them.
            let take = |page| {
                newest = page;
                false
            };
            session.pages(&what, &path, take).await?;
            for deployment in newest {
                // A server that does not know the filter answers with all of them.
                if deployment.environment != environment {
                    return Err(corrupt(&what, "it names another environment"));
                }
                self.events_of(session, request, commit, &deployment, &mut events)
                    .await?;
            }
        }
        let mut replaced = events
            .iter()
            .map(|event| event.gone && is_replaced(event, &events))
            .collect::<Vec<_>>()
            .into_iter();
        events.retain(|_| replaced.next() != Some(true));
        Ok(events)
    }

    async fn events_of(
        &self,
        session: &mut Session<'_>,
        request: &Request,
        commit: Option<&str>,
        deployment: &Deployment,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        let artefact = named(deployment)?;
        let path = self.path(&format!(
            "/deployments/{}/statuses?per_page=100",
            deployment.id
        ));
        let what = format!("deployment {}", deployment.id);
        let statuses: Vec<DeploymentStatus> = session.all(&what, &path).await?;
        for status in statuses {
            let succeeded = match status.state.as_str() {
                "success" => true,
                "failure" | "error" => false,
                // It is there no more: taken away, or replaced by what is listed too.
                "inactive" => {
                    events.push(Event {
                        deployment: deployment.id,
                        gone: true,
                        environment: deployment.environment.clone(),
                        sha: deployment.sha.clone(),
                        artefact: Digest::of(b"nothing"),
                        succeeded: true,
                        at: status.created_at,
                    });
                    continue;
                }
                _ => continue,
            };
            let artefact = artefact.unwrap_or_else(|| {
                // What does not say what it deployed is not believed to have deployed this, nor to have left it as it was.
                match !succeeded && commit == Some(deployment.sha.as_str()) {
                    true => request.artefact,
                    false => of_commit(&deployment.sha),
                }
            });
            events.push(Event {
                deployment: deployment.id,
                gone: false,
                environment: deployment.environment.clone(),
                sha: deployment.sha.clone(),
                artefact,
                succeeded,
                at: status.created_at,
            });
        }
        Ok(())
    }

    pub(crate) fn deployment_evidence(&self, events: &[Event]) -> Vec<Evidence> {
        let evidence = events.iter().map(|event| {
            let fact = Fact::Deployment {
                artefact: event.artefact,
                environment: event.environment.clone(),
                succeeded: event.succeeded,
            };
            Evidence::new(self.source_name(), event.at, fact)
        });
        evidence.collect()
    }
}

/// Whether what is there no more made room for another deployment, some time before GitHub noted it: that one is still there.
fn is_replaced(gone: &Event, events: &[Event]) -> bool {
    let came = |event: &&Event| !event.gone && event.succeeded && event.at <= gone.at;
    let own = events.iter().filter(came);
    let own = own.filter(|event| event.deployment == gone.deployment);
    let since = own.map(|event| event.at).max();
    let others = events.iter().filter(came).filter(|event| {
        event.deployment != gone.deployment && event.environment == gone.environment
    });
    let last = others.map(|event| event.at).max();
    last.is_some_and(|last| since.is_none_or(|since| last > since))
}

/// The commit that was last brought into an environment.
pub(crate) fn running<'a>(events: &'a [Event], environment: &str) -> Option<&'a str> {
    let there = events
        .iter()
        .filter(|event| event.environment == environment && event.succeeded)
        .filter(|event| !event.gone);
    let last = there.max_by_key(|event| event.at)?;
    Some(&last.sha)
}
