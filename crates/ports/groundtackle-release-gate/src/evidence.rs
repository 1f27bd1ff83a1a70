//! What is known about an artefact, and since when.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::policy::{Form, Severity};

/// Something that somebody found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Who: an adapter's name, with the place that it read.
    pub source: String,
    /// For a state, when it was looked at; for an event, when it happened.
    pub observed_at: Timestamp,
    /// Of what was read: a document, an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What.
    pub fact: Fact,
    /// Who stands for it: see [`Evidence::sign`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<String>,
}

impl Evidence {
    /// Found by `source` at an instant.
    pub fn new(source: impl Into<String>, observed_at: Timestamp, fact: Fact) -> Self {
        Self {
            source: source.into(),
            observed_at,
            digest: None,
            fact,
            signatures: Vec::new(),
        }
    }

    /// With the digest of what was read. What is signed has to have it before.
    #[must_use]
    pub const fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }
}

/// Of all evidence, in whatever order it came.
pub fn evidence_digest(evidence: &[Evidence]) -> Digest {
    let mut lines: Vec<_> = evidence
        .iter()
        // A number that is none prints as null; nothing else fails.
        .map(|evidence| serde_json::to_string(evidence).unwrap_or_default())
        .collect();
    lines.sort_unstable();
    Digest::of(lines.join("\n").as_bytes())
}

/// What can be known. Each names the artefact or the environment that it is about, and counts for no other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fact {
    /// State: what the artefact is.
    Artefact {
        /// Its digest.
        artefact: Digest,
        /// The tag that names it.
        tag: String,
        /// What it was built for, such as `"linux/arm64"`.
        platforms: BTreeSet<String>,
    },
    /// State: all changes since the release before.
    Changes {
        /// The artefact that has them.
        artefact: Digest,
        /// All of them.
        changes: Vec<Change>,
    },
    /// Event: somebody approved.
    Approval {
        /// What.
        artefact: Digest,
        /// For where.
        environment: String,
        /// Who.
        by: String,
    },
    /// Event: a go/no-go meeting.
    Meeting {
        /// About what.
        artefact: Digest,
        /// For where.
        environment: String,
        /// Who was there, and whether they said go.
        votes: BTreeMap<String, Vote>,
        /// The minutes, as text.
        minutes: String,
    },
    /// Event: an item of the checklist was done, or was found not to be.
    Item {
        /// Its name.
        id: String,
        /// For what.
        artefact: Digest,
        /// How it showed.
        form: Form,
        /// Whether all was well.
        passed: bool,
        /// Who did it; for a probe, whose it is.
        by: String,
    },
    /// State: how the last run of a pipeline ended.
    Pipeline {
        /// Its name.
        name: String,
        /// How.
        outcome: RunOutcome,
        /// Where a failure was reported.
        #[serde(default)]
        reported_to: BTreeSet<String>,
        /// What was done about a failure.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resolved: Option<Resolution>,
    },
    /// Event: an artefact came into an environment, or failed to.
    Deployment {
        /// Which.
        artefact: Digest,
        /// Where.
        environment: String,
        /// Whether it runs there.
        succeeded: bool,
    },
    /// State: blockers of an artefact in an environment.
    Blockers {
        /// Which.
        artefact: Digest,
        /// Where.
        environment: String,
        /// Those that are open, by name.
        open: BTreeSet<String>,
        /// When the last one was closed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_closed_at: Option<Timestamp>,
    },
    /// State: settings of an environment.
    Settings {
        /// Which.
        environment: String,
        /// By name.
        values: BTreeMap<String, String>,
    },
    /// State: a figure of the quarter.
    Measure {
        /// Its name.
        name: String,
        /// How much, in the budget's unit.
        value: f64,
        /// From when on it was measured: the quarter's first instant, or before for what only grows.
        since: Timestamp,
    },
    /// Event: a test ran.
    Test {
        /// The suite.
        suite: String,
        /// Of what.
        artefact: Digest,
        /// Whether all passed.
        passed: bool,
    },
    /// Event: a restore point was made.
    Backup {
        /// The stream.
        name: String,
    },
    /// Event: a restore drill ended.
    Drill {
        /// The stream.
        name: String,
        /// Whether it passed.
        passed: bool,
    },
    /// State: the incidents that are open.
    Incidents {
        /// All of them, by name.
        open: BTreeMap<String, Severity>,
    },
    /// State: the source could not be read. What it would have found is not known, and nobody else's word stands for it.
    Unread {
        /// Why.
        detail: String,
    },
    /// Event: people who may decided to pass a rule. Several pieces about one incident are one override of all their people.
    Override {
        /// For what.
        artefact: Digest,
        /// Where.
        environment: String,
        /// The incident that needs it.
        incident: String,
        /// How bad it is.
        severity: Severity,
        /// Why.
        reason: String,
        /// Who.
        by: BTreeSet<String>,
    },
}

/// A change that an artefact has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Its name, such as a pull request's number.
    pub id: String,
    /// All who made it.
    pub authors: BTreeSet<String>,
    /// Who looked at it as it is now, and agreed.
    pub reviewers: BTreeSet<String>,
}

/// What somebody said at a meeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vote {
    /// Let it go out.
    Go,
    /// Don't.
    NoGo,
    /// Neither.
    Abstain,
}

/// How a pipeline's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunOutcome {
    /// All was well.
    Passed,
    /// Something was not.
    Failed,
    /// It has not ended.
    Running,
}

/// What was done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// The cause was removed.
    Fixed,
    /// What was there before is there again.
    RolledBack,
}
