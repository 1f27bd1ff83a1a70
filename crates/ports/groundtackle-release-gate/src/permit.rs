//! What a deployment needs: proof that the gate was asked, and said go.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::decision::{Action, Decision, Obligation, Request, Verdict};
use crate::digest::Digest;
use crate::dsse::{self, PublicKey, Signer};
use crate::error::{Error, Result};
use crate::evidence::Evidence;
use crate::gate::Gate;

const PAYLOAD_TYPE: &str = "application/vnd.groundtackle.release-permit.v1+json";

/// How many permits that have not ended a ledger remembers.
const MAX_SPENT: usize = 65_536;

/// Leave to do one thing once: bound to an artefact, an environment and an action, for some minutes.
///
/// [`Gate::admit`] alone makes one. It can't be copied, and [`redeem`](Self::redeem) takes it.
#[derive(Debug)]
#[must_use]
pub struct Permit(Body);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    decision: Digest,
    artefact: Digest,
    environment: String,
    action: Action,
    actor: String,
    from: Timestamp,
    expires_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop_at: Option<Timestamp>,
    obligations: Vec<Obligation>,
}

/// Why a permit does not allow something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PermitRefused {
    /// It is for another artefact.
    #[error("it is for artefact {0}")]
    OtherArtefact(Digest),
    /// It is for another environment.
    #[error("it is for environment {0:?}")]
    OtherEnvironment(String),
    /// It is for another action.
    #[error("it is for the action {0}")]
    OtherAction(Action),
    /// It is over.
    #[error("it ended at {0}")]
    Late(Timestamp),
    /// By this clock it has not begun.
    #[error("it begins at {0}; check the clocks")]
    Early(Timestamp),
    /// It was used before.
    #[error("it was used already")]
    Used,
    /// The ledger has no room to remember it.
    #[error(
        "the ledger remembers {MAX_SPENT} permits that have not ended, and has room for no more"
    )]
    LedgerFull,
}

impl Gate {
    /// Judges, and gives a permit if the answer is go.
    pub fn admit(
        &self,
        evidence: &[Evidence],
        request: &Request,
        instant: Timestamp,
    ) -> (Decision, Option<Permit>) {
        let decision = self.judge(evidence, request, instant);
        let permit = match (decision.verdict, decision.good_until) {
            (Verdict::Go, Some(expires_at)) => Some(Permit(Body {
                decision: decision.digest(),
                artefact: request.artefact,
                environment: request.environment.clone(),
                action: request.action,
                actor: request.actor.clone(),
                from: instant,
                expires_at,
                stop_at: decision.stop_at,
                obligations: decision.obligations.clone(),
            })),
            _ => None,
        };
        (decision, permit)
    }
}

impl Permit {
    /// The decision that gave it, which is its name: the same answer at the same instant is the same permit.
    pub const fn decision(&self) -> Digest {
        self.0.decision
    }

    /// When it ends.
    pub const fn expires_at(&self) -> Timestamp {
        self.0.expires_at
    }

    /// As a signed text, for another process.
    ///
    /// # Errors
    /// None that can be met.
    pub fn seal(self, signer: &Signer) -> Result<String> {
        let payload = serde_json::to_vec(&self.0)
            .map_err(|error| Error::invalid_request(error.to_string()))?;
        dsse::seal(PAYLOAD_TYPE, &payload, signer)
    }

    /// From a text that one of `trusted` signed. Whoever opens it twice can use it once, if the ledger is the same.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Untrusted`].
    pub fn open(text: &str, trusted: &[PublicKey]) -> Result<Self> {
        let payload = dsse::open("permit", text.as_bytes(), PAYLOAD_TYPE, trusted)?;
        let body = serde_json::from_slice(&payload)
            .map_err(|error| Error::corrupt("permit", error.to_string()))?;
        Ok(Self(body))
    }

    /// Uses it, for exactly this, now.
    ///
    /// # Errors
    /// [`PermitRefused`]; a permit that was refused is gone all the same.
    pub fn redeem(
        self,
        ledger: &PermitLedger,
        artefact: &Digest,
        environment: &str,
        action: Action,
        now: Timestamp,
    ) -> Result<Clearance, PermitRefused> {
        let body = self.0;
        if body.artefact != *artefact {
            return Err(PermitRefused::OtherArtefact(body.artefact));
        }
        if body.environment != environment {
            return Err(PermitRefused::OtherEnvironment(body.environment));
        }
        if body.action != action {
            return Err(PermitRefused::OtherAction(body.action));
        }
        if now < body.from {
            return Err(PermitRefused::Early(body.from));
        }
        ledger.spend(body.decision, body.expires_at, now)?;
        Ok(Clearance(body))
    }
}

/// Which permits were used, as long as they could be used again. One for each place that deploys.
#[derive(Debug, Default)]
pub struct PermitLedger(Mutex<Spent>);

#[derive(Debug, Default)]
struct Spent {
    /// The latest time that was seen, so that a clock that is put back brings nothing back.
    now: Option<Timestamp>,
    ends: BTreeMap<Digest, Timestamp>,
}

impl PermitLedger {
    /// One that knows of none.
    pub fn new() -> Self {
        Self::default()
    }

    fn spend(
        &self,
        permit: Digest,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), PermitRefused> {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = spent.now.map_or(now, |seen| seen.max(now));
        spent.now = Some(now);
        if now >= expires_at {
            return Err(PermitRefused::Late(expires_at));
        }
        spent.ends.retain(|_, end| *end > now);
        if spent.ends.contains_key(&permit) {
            return Err(PermitRefused::Used);
        }
        if spent.ends.len() >= MAX_SPENT {
            return Err(PermitRefused::LedgerFull);
        }
        spent.ends.insert(permit, expires_at);
        Ok(())
    }
}

/// A permit that was used: what is being done is allowed.
#[derive(Debug)]
pub struct Clearance(Body);

impl Clearance {
    /// The decision that it comes from.
    pub const fn decision(&self) -> Digest {
        self.0.decision
    }

    /// The artefact.
    pub const fn artefact(&self) -> Digest {
        self.0.artefact
    }

    /// Where.
    pub fn environment(&self) -> &str {
        &self.0.environment
    }

    /// What.
    pub const fn action(&self) -> Action {
        self.0.action
    }

    /// Who.
    pub fn actor(&self) -> &str {
        &self.0.actor
    }

    /// What whoever acts owes.
    pub fn obligations(&self) -> &[Obligation] {
        &self.0.obligations
    }

    /// Whether the next step may begin: always, unless the window says that work stops when it closes.
    pub fn may_go_on(&self, now: Timestamp) -> bool {
        self.0.stop_at.is_none_or(|stop_at| now < stop_at)
    }
}
