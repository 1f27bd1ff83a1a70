use groundtackle_health_check::Name;
use serde::Deserialize;

/// What of a service's health is evidence of what.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct HealthEvidenceConfig {
    /// The environment that the service is in.
    pub environment: String,
    /// What evidence calls the service. Default: the environment. Two services of one environment need a name each.
    #[serde(default)]
    pub name: Option<String>,
    /// Checks, or subsets of checks, that are blockers of whatever runs there while they fail. Default: none.
    #[serde(default)]
    pub blockers: Vec<Name>,
    /// Checks, or subsets of checks, that are items of a checklist.
    #[serde(default, rename = "item")]
    pub items: Vec<ItemRule>,
    /// Service levels that are figures of the quarter.
    #[serde(default, rename = "level")]
    pub levels: Vec<LevelRule>,
}

/// A check that is an item of a checklist, shown by a probe.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemRule {
    /// The item, as the policy's checklist names it.
    pub id: String,
    /// The check, or a subset of checks.
    pub check: Name,
    /// Whose probe it is: somebody of the role that owns the item.
    pub owner: String,
}

/// A service level that is a figure of the quarter, in percent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelRule {
    /// The measure, as the policy's budget names it.
    pub name: String,
    /// The objective. Its window has to be the quarter, and the policy's `zone` UTC, whose quarters a service counts: over a longer time a
    /// bad quarter would look better than it is.
    pub objective: Name,
    /// Whether time that nobody measured counts as down. Default `true`: a service that does not watch itself is never at its best.
    #[serde(default = "yes")]
    pub unmeasured_is_down: bool,
}

const fn yes() -> bool {
    true
}

impl HealthEvidenceConfig {
    /// Of a service in this environment: nothing yet.
    #[must_use]
    pub fn new(environment: impl Into<String>) -> Self {
        Self {
            environment: environment.into(),
            name: None,
            blockers: Vec::new(),
            items: Vec::new(),
            levels: Vec::new(),
        }
    }
}
