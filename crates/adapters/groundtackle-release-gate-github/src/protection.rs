//! Custom deployment protection rules
//! (<https://docs.github.com/en/actions/how-tos/deploy/configure-and-manage-deployments/create-custom-protection-rules>).

use std::fmt;

use groundtackle_core::Secret;
use groundtackle_release_gate::{
    Action, Decision, Digest, Error, Length, Request, Result, Timestamp, Verdict,
};
use hmac::{Hmac, Mac};
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::record::User;
use crate::source::GitHub;

/// The longest delivery; GitHub sends at most 25 MB, and deployments are far smaller.
const MAX_BYTES: usize = 1 << 20;
/// The longest comment, in characters.
const MAX_COMMENT: usize = 1_000;

/// What GitHub signs its deliveries with. Not shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Secret")]
pub struct WebhookSecret(Secret);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl TryFrom<Secret> for WebhookSecret {
    type Error = &'static str;

    fn try_from(secret: Secret) -> std::result::Result<Self, Self::Error> {
        match secret.expose().len() {
            // Anybody could try all of them.
            0..16 => Err("is too short for a secret: take 16 random characters or more"),
            _ => Ok(Self(secret)),
        }
    }
}

impl WebhookSecret {
    /// Whether GitHub sent this body, by its header `X-Hub-Signature-256`
    /// (<https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>). It takes the same time wherever a wrong
    /// signature differs.
    #[must_use]
    pub fn signed(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let mut sent = headers.get_all("x-hub-signature-256").iter();
        let (Some(signature), None) = (sent.next(), sent.next()) else {
            return false;
        };
        let digits = signature.to_str().ok();
        let digits = digits.and_then(|text| text.strip_prefix("sha256="));
        let signature = digits.and_then(|digits| format!("sha256:{digits}").parse::<Digest>().ok());
        let mac = Hmac::<Sha256>::new_from_slice(self.0.expose().as_bytes());
        match (signature, mac) {
            (Some(signature), Ok(mac)) => mac.chain_update(body).verify_slice(&signature.0).is_ok(),
            _ => false,
        }
    }

    /// Reads a delivery; `None` if it is of another event, such as the `ping` of a new webhook.
    ///
    /// # Errors
    /// [`Error::Untrusted`] if it was not signed with the secret. [`Error::Corrupt`] if it is not what GitHub documents.
    pub fn read(&self, headers: &HeaderMap, body: &[u8]) -> Result<Option<ProtectionRequest>> {
        if !self.signed(headers, body) {
            return Err(Error::Untrusted {
                what: "a delivery of a webhook".into(),
            });
        }
        let event = headers.get("x-github-event");
        if event.is_none_or(|event| event != "deployment_protection_rule") {
            return Ok(None);
        }
        let corrupt = |detail: String| Error::corrupt("a delivery of a webhook", detail);
        if body.len() > MAX_BYTES {
            return Err(corrupt(format!("it is longer than {MAX_BYTES} bytes")));
        }
        let delivery: Delivery =
            serde_json::from_slice(body).map_err(|error| corrupt(error.to_string()))?;
        if delivery.action != "requested" {
            return Ok(None);
        }
        Ok(Some(ProtectionRequest {
            repository: delivery.repository.full_name,
            environment: delivery.environment,
            reference: delivery.deployment.reference,
            sha: delivery.deployment.sha,
            sender: delivery.sender.login,
            callback: delivery.deployment_callback_url,
        }))
    }
}

#[derive(Deserialize)]
struct Delivery {
    action: String,
    environment: String,
    deployment_callback_url: String,
    deployment: Deployment,
    repository: FullName,
    sender: User,
}

#[derive(Deserialize)]
struct Deployment {
    #[serde(rename = "ref")]
    reference: String,
    sha: String,
}

#[derive(Deserialize)]
struct FullName {
    full_name: String,
}

/// A job that waits for an answer before it deploys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProtectionRequest {
    /// Whose job it is: `owner/name`.
    pub repository: String,
    /// Where it deploys to.
    pub environment: String,
    /// The tag or branch that the workflow runs on.
    pub reference: String,
    /// Its commit.
    pub sha: String,
    /// The login of whoever started it.
    pub sender: String,
    /// Where the answer goes.
    callback: String,
}

impl ProtectionRequest {
    /// The tag that the workflow runs on, if it is written as one or may be one.
    fn tag(&self) -> &str {
        let reference = self.reference.as_str();
        reference.strip_prefix("refs/tags/").unwrap_or(reference)
    }
}

/// <https://docs.github.com/en/rest/actions/workflow-runs#review-custom-deployment-protection-rules-for-a-workflow-run>
#[derive(Serialize)]
struct Review<'a> {
    environment_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    comment: &'a str,
}

impl GitHub {
    /// What a waiting job asks: may the artefact of the tag's release be deployed there? `takes` is how long it takes.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a job of another repository, of a reference without a release that has the artefact, or of
    /// another commit than the release's tag has by now. When GitHub could not be asked.
    pub async fn question(
        &self,
        asked: &ProtectionRequest,
        takes: Option<Length>,
    ) -> Result<Request> {
        let own = self.config().repository.to_string();
        if !asked.repository.eq_ignore_ascii_case(&own) {
            return Err(Error::invalid_request(format!(
                "the job is of {}, and this gate is of {own}",
                asked.repository
            )));
        }
        let tag = asked.tag();
        let mut session = self.session().await?;
        let artefact = self.artefact_of(&mut session, tag).await?;
        let Some(artefact) = artefact else {
            return Err(Error::invalid_request(format!(
                "{tag:?} has no release with the file {:?}; run the workflow on the tag of one",
                self.config().asset
            )));
        };
        let commit = self.commit_of_tag(&mut session, tag).await?;
        if commit.as_deref() != Some(asked.sha.as_str()) {
            return Err(Error::invalid_request(format!(
                "the job is of commit {}, which is not that of the tag {tag:?}; run the workflow on the tag",
                asked.sha
            )));
        }
        let (_, name) = own.split_once('/').unwrap_or(("", &own));
        Ok(Request {
            name: name.into(),
            tag: tag.into(),
            artefact,
            environment: asked.environment.clone(),
            action: Action::Deploy,
            actor: self.person(&asked.sender),
            takes,
        })
    }

    /// Answers a waiting job: go approves it, no-go rejects it. Hold and inconclusive leave it waiting, with a comment that says why;
    /// answer again when that may have changed. (GitHub rejects what has waited for 30 days.)
    ///
    /// **Idempotency**: GitHub refuses a second answer to what was approved or rejected. **Cancel safety**: dropped, it may be
    /// answered.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a decision about something else, or a go that is good no more, and for a job that is not to be
    /// answered by this API. When GitHub could not be asked, `Indeterminate` if it may be answered.
    pub async fn answer(
        &self,
        asked: &ProtectionRequest,
        decision: &Decision,
        now: Timestamp,
    ) -> Result<()> {
        let request = &decision.request;
        if request.environment != asked.environment
            || request.tag != asked.tag()
            || request.action != Action::Deploy
            || request.actor != self.person(&asked.sender)
        {
            return Err(Error::invalid_request(
                "the decision is about something else than the job; judge what it asks",
            ));
        }
        let go = decision.verdict == Verdict::Go;
        if go && decision.good_until.is_none_or(|until| now >= until) {
            return Err(Error::invalid_request(
                "the decision is good no more; judge it anew",
            ));
        }
        let mut session = self.session().await?;
        // The token goes there: a delivery does not say where to.
        let path = session.own_path(&asked.callback);
        let Some(path) = path.filter(|path| self.is_callback(path)) else {
            return Err(Error::invalid_request(
                "the job is to be answered at another place than this repository's API",
            ));
        };
        let artefact = Some(request.artefact);
        if go && self.artefact_of(&mut session, asked.tag()).await? != artefact {
            return Err(Error::invalid_request(
                "the tag's release has another artefact than was judged; judge it anew",
            ));
        }
        let comment = comment(decision);
        let state = match decision.verdict {
            Verdict::Go => Some("approved"),
            Verdict::NoGo => Some("rejected"),
            Verdict::Hold | Verdict::Inconclusive => None,
        };
        let review = Review {
            environment_name: &asked.environment,
            state,
            comment: &comment,
        };
        session
            .write("answering a job", Method::POST, &path, &review)
            .await
    }

    /// `/repos/owner/name/actions/runs/1/deployment_protection_rule`
    fn is_callback(&self, path: &str) -> bool {
        let runs = self.path("/actions/runs/");
        let of_run = path.get(runs.len()..).filter(|_| {
            path.get(..runs.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(&runs))
        });
        let run = of_run.and_then(|rest| rest.strip_suffix("/deployment_protection_rule"));
        run.is_some_and(|run| !run.is_empty() && run.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

/// The verdict, and why.
fn comment(decision: &Decision) -> String {
    let mut comment = format!("{} ({})", decision.verdict, decision.digest());
    for reason in &decision.reasons {
        comment += &format!(
            "\n- {}: {}: {}",
            reason.rule.name(),
            reason.subject,
            reason.detail
        );
    }
    let shown: String = comment
        .chars()
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .take(MAX_COMMENT)
        .collect();
    shown
}
