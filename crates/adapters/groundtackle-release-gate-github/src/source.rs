use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_release_gate::{
    Digest, Evidence, EvidenceSource, Fact, Request, Result, RunOutcome, Timestamp,
};

use crate::api::{Api, Session, encoded};
use crate::config::{CheckRule, GitHubConfig};
use crate::deployments::running;
use crate::error::{BACKEND, corrupt};
use crate::record::{CheckRun, CheckRuns, Commit, Release, WorkflowRuns};

/// A repository on GitHub: what it knows of an artefact, and where decisions and incidents are logged.
#[derive(Clone, Debug)]
pub struct GitHub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    api: Api,
    config: GitHubConfig,
    /// By login or address in lower case.
    people: BTreeMap<String, String>,
}

impl From<GitHubConfig> for GitHub {
    fn from(config: GitHubConfig) -> Self {
        let people = config.people.iter();
        let people = people.map(|(login, name)| (login.to_ascii_lowercase(), name.clone()));
        Self(Arc::new(Inner {
            name: format!("{BACKEND} {}", config.repository),
            api: Api::new(&config),
            people: people.collect(),
            config,
        }))
    }
}

impl GitHub {
    pub(crate) fn config(&self) -> &GitHubConfig {
        &self.0.config
    }

    pub(crate) fn source_name(&self) -> &str {
        &self.0.name
    }

    pub(crate) async fn session(&self) -> Result<Session<'_>> {
        self.0.api.session().await
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/repos/{}{rest}", self.config().repository)
    }

    /// What the policy calls somebody. GitHub's logins, and addresses, have no case.
    pub(crate) fn person(&self, login: &str) -> String {
        let login = login.to_ascii_lowercase();
        self.0.people.get(&login).cloned().unwrap_or(login)
    }

    fn evidence(&self, at: Timestamp, fact: Fact) -> Evidence {
        Evidence::new(self.source_name(), at, fact)
    }

    /// The digest of a release's file; `None` where there is no such release, or it has none yet.
    pub(crate) async fn artefact_of(
        &self,
        session: &mut Session<'_>,
        tag: &str,
    ) -> Result<Option<Digest>> {
        let what = format!("the release {tag}");
        let path = self.path(&format!("/releases/tags/{}", encoded(tag)));
        let Some(release) = session.get::<Release>(&what, &path).await? else {
            return Ok(None);
        };
        let assets = release.assets.iter();
        let asset = assets
            .filter(|_| !release.draft)
            .find(|asset| asset.name == self.config().asset && asset.state == "uploaded");
        let Some(digest) = asset.and_then(|asset| asset.digest.as_deref()) else {
            return Ok(None);
        };
        let digest = digest.parse();
        digest
            .map(Some)
            .map_err(|error: groundtackle_release_gate::ParseDigestError| {
                corrupt(&what, error.to_string())
            })
    }

    /// The commit that the artefact was built from; `None` where the release of its tag is another's, or there is none.
    async fn commit_of(
        &self,
        session: &mut Session<'_>,
        request: &Request,
    ) -> Result<Option<String>> {
        if self.artefact_of(session, &request.tag).await? != Some(request.artefact) {
            return Ok(None);
        }
        self.commit_of_tag(session, &request.tag).await
    }

    pub(crate) async fn commit_of_tag(
        &self,
        session: &mut Session<'_>,
        tag: &str,
    ) -> Result<Option<String>> {
        let path = self.path(&format!("/commits/tags/{}", encoded(tag)));
        let commit: Option<Commit> = session.get("the tag's commit", &path).await?;
        Ok(commit.map(|commit| commit.sha))
    }

    async fn tests(
        &self,
        session: &mut Session<'_>,
        request: &Request,
        commit: &str,
    ) -> Result<Vec<Evidence>> {
        if self.config().checks.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.path(&format!(
            "/commits/{}/check-runs?filter=latest&per_page=100",
            encoded(commit)
        ));
        let mut runs: Vec<CheckRun> = Vec::new();
        let take = |page: CheckRuns| {
            runs.extend(page.check_runs);
            true
        };
        session.pages("check runs", &path, take).await?;
        if runs.iter().any(|run| run.head_sha != commit) {
            return Err(corrupt("check runs", "it names another commit's"));
        }
        let rules = self.config().checks.iter();
        let found = rules.filter_map(|rule| {
            let (passed, at) = ended(rule, &runs)?;
            let fact = Fact::Test {
                suite: rule.suite.clone(),
                artefact: request.artefact,
                passed,
            };
            Some(self.evidence(at, fact))
        });
        Ok(found.collect())
    }

    async fn pipelines(&self, session: &mut Session<'_>) -> Result<Vec<Evidence>> {
        let mut found = Vec::new();
        for rule in &self.config().workflows {
            let now = Timestamp::now();
            let mut path = self.path(&format!(
                "/actions/workflows/{}/runs?per_page=1",
                encoded(&rule.file)
            ));
            if let Some(branch) = &rule.branch {
                path += &format!("&branch={}", encoded(branch));
            }
            let what = format!("runs of the workflow {}", rule.file);
            let mut last = None;
            // The newest comes first.
            let take = |page: WorkflowRuns| {
                last = page.workflow_runs.into_iter().next();
                false
            };
            session.pages(&what, &path, take).await?;
            let Some(run) = last else { continue };
            let outcome = match (run.status.as_deref(), run.conclusion.as_deref()) {
                (Some("completed"), Some("success")) => RunOutcome::Passed,
                (Some("completed"), _) => RunOutcome::Failed,
                _ => RunOutcome::Running,
            };
            let fact = Fact::Pipeline {
                name: rule.pipeline.clone(),
                outcome,
                reported_to: Default::default(),
                resolved: None,
            };
            found.push(self.evidence(now, fact));
        }
        Ok(found)
    }
}

/// How all runs of a check ended, and when the first of them did; `None` where there is none, or one has not ended.
fn ended(rule: &CheckRule, runs: &[CheckRun]) -> Option<(bool, Timestamp)> {
    let mut ended: Option<(bool, Timestamp)> = None;
    let own = runs.iter().filter(|run| {
        let app = run.app.as_ref().and_then(|app| app.slug.as_deref());
        run.name == rule.name && app == Some(rule.app.as_str())
    });
    for run in own {
        let at = run.completed_at.filter(|_| run.status == "completed")?;
        // What was skipped or cancelled has shown nothing.
        let passed = run.conclusion.as_deref() == Some("success");
        ended = Some(match ended {
            Some((all, first)) => (all && passed, first.min(at)),
            None => (passed, at),
        });
    }
    ended
}

#[async_trait]
impl EvidenceSource for GitHub {
    fn name(&self) -> &str {
        self.source_name()
    }

    async fn collect(&self, request: &Request) -> Result<Vec<Evidence>> {
        let config = self.config();
        let mut session = self.session().await?;
        let commit = self.commit_of(&mut session, request).await?;
        let events = self
            .deployments(&mut session, request, commit.as_deref())
            .await?;
        let mut found = self.deployment_evidence(&events);
        if let Some(commit) = &commit {
            found.extend(self.tests(&mut session, request, commit).await?);
            let base = running(&events, &request.environment).or(config.base.as_deref());
            if let Some(base) = base.filter(|_| config.changes) {
                let now = Timestamp::now();
                let changes = self.changes_since(&mut session, base, commit).await?;
                let artefact = request.artefact;
                found.push(self.evidence(now, Fact::Changes { artefact, changes }));
            }
        }
        found.extend(self.pipelines(&mut session).await?);
        found.extend(self.issue_evidence(&mut session, request).await?);
        Ok(found)
    }
}
