//! What the REST API answers, as documented (<https://docs.github.com/en/rest>, version 2022-11-28); keys that are not used are left out.

use groundtackle_release_gate::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::api::Listed;

#[derive(Debug, Deserialize)]
pub(crate) struct Release {
    #[serde(default)]
    pub(crate) draft: bool,
    pub(crate) assets: Vec<Asset>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Asset {
    pub(crate) name: String,
    /// `uploaded` once it is whole.
    pub(crate) state: String,
    /// `sha256:…`; null for files from before 2025.
    #[serde(default)]
    pub(crate) digest: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct User {
    pub(crate) login: String,
}

/// Of a commit: null, or an empty object, where GitHub does not know the address.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Maker {
    #[serde(default)]
    pub(crate) login: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Commit {
    pub(crate) sha: String,
    pub(crate) commit: CommitDetail,
    pub(crate) author: Option<Maker>,
    pub(crate) committer: Option<Maker>,
    pub(crate) parents: Vec<Parent>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Parent {}

#[derive(Debug, Deserialize)]
pub(crate) struct CommitDetail {
    pub(crate) author: Option<Signature>,
    pub(crate) committer: Option<Signature>,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) verification: Option<Verification>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Signature {
    #[serde(default)]
    pub(crate) email: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Verification {
    pub(crate) verified: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) total_commits: usize,
    pub(crate) commits: Vec<Commit>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PullRequest {
    pub(crate) number: u64,
    pub(crate) merged_at: Option<Timestamp>,
    pub(crate) user: Option<User>,
    pub(crate) head: Head,
    pub(crate) base: Base,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Head {
    pub(crate) sha: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Base {
    pub(crate) repo: BaseRepository,
}

#[derive(Debug, Deserialize)]
pub(crate) struct BaseRepository {
    pub(crate) full_name: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Review {
    /// Null for who is gone.
    pub(crate) user: Option<User>,
    pub(crate) state: String,
    pub(crate) commit_id: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CheckRuns {
    pub(crate) total_count: usize,
    pub(crate) check_runs: Vec<CheckRun>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CheckRun {
    pub(crate) name: String,
    pub(crate) head_sha: String,
    pub(crate) status: String,
    pub(crate) conclusion: Option<String>,
    pub(crate) completed_at: Option<Timestamp>,
    pub(crate) app: Option<App>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct App {
    pub(crate) slug: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct WorkflowRuns {
    pub(crate) workflow_runs: Vec<WorkflowRun>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct WorkflowRun {
    pub(crate) status: Option<String>,
    pub(crate) conclusion: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Deployment {
    pub(crate) id: u64,
    pub(crate) sha: String,
    pub(crate) environment: String,
    /// An object, or a text with one.
    #[serde(default)]
    pub(crate) payload: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct DeploymentStatus {
    pub(crate) state: String,
    pub(crate) created_at: Timestamp,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Issue {
    pub(crate) number: u64,
    pub(crate) state: String,
    pub(crate) labels: Vec<Label>,
    pub(crate) created_at: Timestamp,
    #[serde(default)]
    pub(crate) closed_at: Option<Timestamp>,
    #[serde(default)]
    pub(crate) body: Option<String>,
    /// There if it is a pull request, which the API lists among the issues.
    #[serde(default)]
    pub(crate) pull_request: Option<Value>,
}

/// A label is an object; very old answers have its name alone.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Label {
    Object { name: Option<String> },
    Name(String),
}

impl Label {
    pub(crate) fn is(&self, wanted: &str) -> bool {
        let name = match self {
            Self::Object { name } => name.as_deref(),
            Self::Name(name) => Some(name.as_str()),
        };
        // As GitHub compares them.
        name.is_some_and(|name| name.eq_ignore_ascii_case(wanted))
    }
}

impl Listed for CheckRuns {
    fn len(&self) -> usize {
        self.check_runs.len()
    }
}

impl Listed for WorkflowRuns {
    fn len(&self) -> usize {
        self.workflow_runs.len()
    }
}

impl Listed for Comparison {
    fn len(&self) -> usize {
        self.commits.len()
    }
}
