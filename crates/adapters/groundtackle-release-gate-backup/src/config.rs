use groundtackle_backup::{DrillLevel, Hex};
use serde::Deserialize;

/// Which streams are evidence, and which drills of them count.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct BackupEvidenceConfig {
    /// What evidence calls the repository, such as `"main"`.
    pub name: String,
    /// Who may have signed descriptor, restore points and drills: public keys, 64 hexadecimal digits each. At least one.
    pub signers: Vec<Hex<32>>,
    /// The streams.
    #[serde(default, rename = "stream")]
    pub streams: Vec<StreamRule>,
}

/// A stream that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRule {
    /// The stream, in the repository and in the policy.
    pub name: String,
    /// The level that a drill must have had to count as passed. Default `"replay"`: it restored.
    #[serde(default = "replay")]
    pub drill_level: DrillLevel,
    /// Whether a drill that read only a share counts as passed. Default `false`.
    #[serde(default)]
    pub shares: bool,
}

const fn replay() -> DrillLevel {
    DrillLevel::Replay
}

impl StreamRule {
    /// Of a stream whose drills have to restore all of it.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            drill_level: replay(),
            shares: false,
        }
    }
}

impl BackupEvidenceConfig {
    /// Of a repository whose signers are these.
    #[must_use]
    pub fn new(name: impl Into<String>, signers: Vec<Hex<32>>, streams: Vec<StreamRule>) -> Self {
        Self {
            name: name.into(),
            signers,
            streams,
        }
    }
}
