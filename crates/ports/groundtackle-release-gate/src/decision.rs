//! What is asked, and what the answer is.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Length};
use crate::policy::{Rule, Severity};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// An artefact goes out.
    Deploy,
    /// Settings change, with the artefact that is there.
    Change,
    /// An artefact that was there before comes back. No window, freeze or budget stops it; it is recorded and counted.
    Rollback,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deploy => "deploy",
            Self::Change => "change",
            Self::Rollback => "rollback",
        })
    }
}

/// What may, or may not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The artefact's name, for people.
    pub name: String,
    /// The tag that it goes by.
    pub tag: String,
    /// The artefact.
    pub artefact: Digest,
    /// Where it is to go.
    pub environment: String,
    /// What is to be done.
    pub action: Action,
    /// Who is to do it.
    pub actor: String,
    /// How long it takes at most; windows that refuse an overrun ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes: Option<Length>,
}

/// How good an answer is; of several reasons the worst counts, which is the last of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All that is asked is there.
    Go,
    /// All that is missing is time.
    Hold,
    /// Something is not known: evidence is missing, stale, or contradicts itself.
    Inconclusive,
    /// Something is known to be wrong.
    NoGo,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Go => "go",
            Self::Hold => "hold",
            Self::Inconclusive => "inconclusive",
            Self::NoGo => "no-go",
        })
    }
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// The rule.
    pub rule: Rule,
    /// What of the rule: an item of the checklist, a role, a window.
    pub subject: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// In a phrase, with the way out.
    pub detail: String,
    /// No earlier than this does the same evidence stop giving this reason; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds_until: Option<Timestamp>,
}

/// A reason that did not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passed {
    /// The reason.
    pub reason: Reason,
    /// The waiver or the override, and who answers for it.
    pub by: String,
}

/// What whoever acts owes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Obligation {
    /// Open an incident, or add to one of that name.
    OpenIncident {
        /// Its name.
        incident: String,
        /// How bad it is.
        severity: Severity,
        /// Why.
        reason: String,
    },
    /// Count one more.
    Count {
        /// The measure's name.
        budget: String,
    },
}

/// The measure that rollbacks are counted by.
pub const ROLLBACKS: &str = "rollbacks";

/// The answer, with all that it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The answer.
    pub verdict: Verdict,
    /// What was asked.
    pub request: Request,
    /// When.
    pub instant: Timestamp,
    /// By which policy.
    pub policy: Digest,
    /// From which evidence.
    pub evidence: Digest,
    /// All that speaks against it, in the order of the rules.
    pub reasons: Vec<Reason>,
    /// What would, but for a waiver or an override.
    pub passed: Vec<Passed>,
    /// What does not yet.
    pub warnings: Vec<String>,
    /// What whoever acts owes.
    pub obligations: Vec<Obligation>,
    /// Until when the same evidence gives the same answer at least, if that is go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good_until: Option<Timestamp>,
    /// When work must stop at its next step, if a window says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_at: Option<Timestamp>,
}

impl Decision {
    /// Its digest.
    pub fn digest(&self) -> Digest {
        // It has no number and no key that is not text, and nothing else fails.
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// When it would next be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "at", rename_all = "kebab-case")]
pub enum When {
    /// The first instant at which the same evidence would give go.
    At(Timestamp),
    /// Never within 400 days: something else than time is missing.
    Never,
}
