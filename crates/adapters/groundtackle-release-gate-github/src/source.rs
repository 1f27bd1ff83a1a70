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
        let mut total = 0;
        let take = |page: CheckRuns| {
            total = page.total_count;
            runs.extend(page.check_runs);
            true
        };
        session.pages("check runs", &path, take).await?;
        if runs.len() < total {
            let detail = format!("it names {} of {total}", runs.len());
            return Err(corrupt("check runs", detail));
        }
        if runs.iter().any(|run| run.head_sha != commit) {
            return Err(corrupt("check runs", "it names another commit's"));
        }
        let mut suites: BTreeMap<&str, Vec<&CheckRule>> = BTreeMap::new();
        for rule in &self.config().checks {
            suites.entry(&rule.suite).or_default().push(rule);
        }
        let found = suites.into_iter().filter_map(|(suite, rules)| {
            // Each of its checks has to have ended.
            let ends: Option<Vec<_>> = rules.iter().map(|rule| ended(rule, &runs)).collect();
            let (passed, at) = ends?.into_iter().reduce(both)?;
            let fact = Fact::Test {
                suite: suite.into(),
                artefact: request.artefact,
                passed,
            };
            Some(self.evidence(at, fact))
        });
        Ok(found.collect())
    }

    async fn pipelines(&self, session: &mut Session<'_>) -> Result<Vec<Evidence>> {
        let now = Timestamp::now();
        let mut outcomes: BTreeMap<&str, Option<RunOutcome>> = BTreeMap::new();
        for rule in &self.config().workflows {
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
            let outcome =
                last.map(
                    |run| match (run.status.as_deref(), run.conclusion.as_deref()) {
                        (Some("completed"), Some("success")) => RunOutcome::Passed,
                        (Some("completed"), _) => RunOutcome::Failed,
                        _ => RunOutcome::Running,
                    },
                );
            // Of several workflows the worst counts; of one that never ran nothing is known.
            let all = outcomes.entry(&rule.pipeline).or_insert(outcome);
            *all = match (*all, outcome) {
                (Some(RunOutcome::Failed), _) | (_, Some(RunOutcome::Failed)) => {
                    Some(RunOutcome::Failed)
                }
                (None, _) | (_, None) => None,
                (Some(RunOutcome::Running), _) => Some(RunOutcome::Running),
                (_, outcome) => outcome,
            };
        }
        let found = outcomes.into_iter().filter_map(|(name, outcome)| {
            let fact = Fact::Pipeline {
                name: name.into(),
                outcome: outcome?,
                reported_to: Default::default(),
                resolved: None,
            };
            Some(self.evidence(now, fact))
        });
        Ok(found.collect())
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
        let end = (passed, at);
        ended = Some(ended.map_or(end, |all| both(all, end)));
    }
    ended
}

/// Whether both passed, and when the first of them ended.
fn both(a: (bool, Timestamp), b: (bool, Timestamp)) -> (bool, Timestamp) {
    (a.0 && b.0, a.1.min(b.1))
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
