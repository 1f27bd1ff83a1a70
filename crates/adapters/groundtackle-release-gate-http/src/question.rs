//! What others post.

use groundtackle_release_gate::{Action, Digest, Length, Request};
use serde::Deserialize;

/// As Flagger posts it (<https://docs.flagger.app/usage/webhooks>). It has keys that are not looked at.
#[derive(Debug, Deserialize)]
struct Flagger {
    name: String,
    metadata: Metadata,
}

/// What whoever wrote the hook put into it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    artefact: Digest,
    tag: String,
    environment: String,
    actor: String,
    takes: Option<Length>,
}

pub(crate) fn direct(body: &[u8]) -> serde_json::Result<Request> {
    serde_json::from_slice(body)
}

pub(crate) fn flagger(body: &[u8]) -> serde_json::Result<Request> {
    let Flagger { name, metadata } = serde_json::from_slice(body)?;
    Ok(Request {
        name,
        tag: metadata.tag,
        artefact: metadata.artefact,
        environment: metadata.environment,
        action: Action::Deploy,
        actor: metadata.actor,
        takes: metadata.takes,
    })
}
