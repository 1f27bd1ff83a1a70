use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use groundtackle_core::{ByteSize, RetryConfig};
use groundtackle_health_check_client::{SafeUrl, SecretSource};
use groundtackle_release_gate::{Severity, Zone};
use serde::Deserialize;

/// A repository as GitHub names it: `"owner/name"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Repository(String);

impl FromStr for Repository {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fine = |part: &str| {
            !part.is_empty()
                && part.len() <= 100
                && !part.chars().all(|c| c == '.')
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        match text.split_once('/') {
            Some((owner, name)) if fine(owner) && fine(name) => Ok(Self(text.into())),
            _ => Err("is no repository: write owner/name"),
        }
    }
}

impl TryFrom<String> for Repository {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is read of a repository, and as whom.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GitHubConfig {
    /// The repository, `"owner/name"`.
    pub repository: Repository,
    /// A token that may read what is asked for, and write issues and deployments where those are written. Read anew for each call,
    /// if it is in a file.
    pub token: SecretSource,
    /// The file of a release whose SHA-256 is the artefact's digest, such as an image's manifest.
    pub asset: String,
    /// The API. Default `"https://api.github.com"`; a GitHub Enterprise Server's ends in `/api/v3`.
    #[serde(default = "public_api")]
    pub api: SafeUrl,
    /// The certificates of the authorities that are believed, as a PEM file. Default: the system's.
    #[serde(default)]
    pub authorities: Option<PathBuf>,
    /// Logins, or addresses of authors whom GitHub does not know, and what the policy calls them. Who has none keeps the login.
    #[serde(default)]
    pub people: BTreeMap<String, String>,
    /// The environments whose deployments are read. That of the request is always read.
    #[serde(default)]
    pub environments: Vec<String>,
    /// Whether changes and who reviewed them are read. Default `true`.
    #[serde(default = "yes")]
    pub changes: bool,
    /// The commit or tag that changes count from where nothing was deployed yet.
    #[serde(default)]
    pub base: Option<String>,
    /// How many commits there may be since the release before. Default 250.
    #[serde(default = "two_hundred_and_fifty")]
    pub max_commits: usize,
    /// Checks of the artefact's commit that are tests. Of several of one suite all have to pass.
    #[serde(default, rename = "check")]
    pub checks: Vec<CheckRule>,
    /// Workflows that are pipelines. Of several of one pipeline the worst counts.
    #[serde(default, rename = "workflow")]
    pub workflows: Vec<WorkflowRule>,
    /// Labels of issues that are blockers. The repository has to have each label that is named here and below.
    #[serde(default, rename = "blocker")]
    pub blockers: Vec<BlockerRule>,
    /// Labels of issues that are incidents. Default: none are.
    #[serde(default, rename = "incident")]
    pub incidents: Option<IncidentRule>,
    /// Labels of issues that are counted.
    #[serde(default, rename = "measure")]
    pub measures: Vec<MeasureRule>,
    /// Whose quarters measures are of. Default `"UTC"`; take the policy's.
    #[serde(default = "Zone::utc")]
    pub zone: Zone,
    /// The label of issues that decisions are logged as. Default `"release-decision"`.
    #[serde(default = "decision_label")]
    pub decision_label: String,
    /// For one request. Default `"10s"`.
    #[serde(
        default = "ten_seconds",
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required"
    )]
    pub timeout: Duration,
    /// How many requests one call may take. Default 1,000; GitHub gives a token 5,000 an hour.
    #[serde(default = "one_thousand")]
    pub max_requests: usize,
    /// The longest answer. Default `"16MiB"`.
    #[serde(default = "sixteen_mebibytes")]
    pub max_answer: ByteSize,
    /// How reading is repeated after broken connections and 5xx. Writing is not.
    #[serde(default)]
    pub retry: RetryConfig,
}

/// A check whose end is the end of a test.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckRule {
    /// The suite, as the policy names it.
    pub suite: String,
    /// The check run's name.
    pub name: String,
    /// The app that alone can report it. Default `"github-actions"`.
    #[serde(default = "github_actions")]
    pub app: String,
}

/// A workflow whose last run is the state of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkflowRule {
    /// The pipeline, as the policy names it.
    pub pipeline: String,
    /// The workflow's file, such as `"staging.yml"`.
    pub file: String,
    /// The branch whose runs count. Default: all.
    #[serde(default)]
    pub branch: Option<String>,
}

/// Issues that are blockers in an environment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockerRule {
    /// The environment.
    pub environment: String,
    /// The label.
    pub label: String,
}

/// Issues that are incidents.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncidentRule {
    /// The label of all of them.
    pub label: String,
    /// The further labels that say how bad it is. An issue without any counts as critical.
    pub severities: BTreeMap<Severity, String>,
}

/// Issues that are counted, by when they were opened.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasureRule {
    /// The measure, as the policy's budget names it.
    pub name: String,
    /// The label.
    pub label: String,
}

impl GitHubConfig {
    /// Of a repository, as the owner of the token; `asset` is the file whose digest is the artefact's.
    pub fn new(repository: Repository, token: SecretSource, asset: impl Into<String>) -> Self {
        Self {
            repository,
            token,
            asset: asset.into(),
            api: public_api(),
            authorities: None,
            people: BTreeMap::new(),
            environments: Vec::new(),
            changes: true,
            base: None,
            max_commits: two_hundred_and_fifty(),
            checks: Vec::new(),
            workflows: Vec::new(),
            blockers: Vec::new(),
            incidents: None,
            measures: Vec::new(),
            zone: Zone::utc(),
            decision_label: decision_label(),
            timeout: ten_seconds(),
            max_requests: one_thousand(),
            max_answer: sixteen_mebibytes(),
            retry: RetryConfig::default(),
        }
    }
}

#[allow(clippy::expect_used, reason = "a constant that a test reads")]
fn public_api() -> SafeUrl {
    "https://api.github.com".parse().expect("it is a URL")
}

const fn yes() -> bool {
    true
}

const fn two_hundred_and_fifty() -> usize {
    250
}

fn github_actions() -> String {
    "github-actions".into()
}

fn decision_label() -> String {
    "release-decision".into()
}

const fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

const fn one_thousand() -> usize {
    1_000
}

const fn sixteen_mebibytes() -> ByteSize {
    ByteSize::mib(16)
}
