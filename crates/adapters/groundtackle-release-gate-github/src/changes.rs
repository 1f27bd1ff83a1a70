//! What changed since the release before, who made it, and who looked at it.

use std::collections::{BTreeMap, BTreeSet};

use groundtackle_release_gate::{Change, Error, Result};

use crate::api::{Session, encoded};
use crate::error::corrupt;
use crate::record::{Commit, Comparison, PullRequest, Review};
use crate::source::GitHub;

/// The API names no more commits of a pull request.
const MAX_PULL_COMMITS: usize = 250;

/// Whom GitHub's own merges are by.
const WEB_FLOW: &str = "web-flow";

impl GitHub {
    /// All changes that `commit` has and `base` has not.
    pub(crate) async fn changes_since(
        &self,
        session: &mut Session<'_>,
        base: &str,
        commit: &str,
    ) -> Result<Vec<Change>> {
        let commits = self.commits(session, base, commit).await?;
        let mut changes = Vec::new();
        let mut pulls: BTreeMap<u64, Change> = BTreeMap::new();
        for commit in &commits {
            let made_by_github = is_merge_by_github(commit);
            // Who merges by hand can put anything into the merge.
            let by_hand = commit.parents.len() > 1 && !made_by_github;
            let pull = match by_hand {
                true => None,
                false => self.pull_of(session, &commit.sha).await?,
            };
            let authors = match made_by_github {
                true => BTreeSet::new(),
                false => self.authors(commit),
            };
            match pull {
                Some(pull) => {
                    let change = match pulls.remove(&pull.number) {
                        Some(known) => known,
                        None => self.change_of(session, &pull).await?,
                    };
                    let change = pulls.entry(pull.number).or_insert(change);
                    change.authors.extend(authors);
                }
                // Nobody could look at it but who made it.
                None => changes.push(Change {
                    id: commit.sha.clone(),
                    authors,
                    reviewers: BTreeSet::new(),
                }),
            }
        }
        changes.extend(pulls.into_values());
        Ok(changes)
    }

    async fn commits(
        &self,
        session: &mut Session<'_>,
        base: &str,
        commit: &str,
    ) -> Result<Vec<Commit>> {
        let max = self.config().max_commits;
        let path = self.path(&format!(
            "/compare/{}...{}?per_page=100",
            encoded(base),
            encoded(commit)
        ));
        let mut commits: Vec<Commit> = Vec::new();
        let mut total = 0;
        let take = |page: Comparison| {
            total = page.total_commits;
            commits.extend(page.commits);
            total <= max && commits.len() < total
        };
        let what = format!("changes from {base} to {commit}");
        session.pages(&what, &path, take).await?;
        if total > max {
            return Err(Error::invalid_request(format!(
                "there are {total} commits from {base} to {commit}, and {max} may be; raise `max_commits`, or release more often"
            )));
        }
        if commits.len() != total {
            let detail = format!("it names {} of {total} commits", commits.len());
            return Err(corrupt(&what, detail));
        }
        Ok(commits)
    }

    /// The first pull request of this repository that brought a commit in.
    async fn pull_of(&self, session: &mut Session<'_>, sha: &str) -> Result<Option<PullRequest>> {
        let path = self.path(&format!("/commits/{}/pulls?per_page=100", encoded(sha)));
        let what = format!("pull requests of {sha}");
        let pulls: Vec<PullRequest> = session.all(&what, &path).await?;
        let own = self.config().repository.to_string();
        let merged = pulls.into_iter().filter(|pull| {
            pull.merged_at.is_some() && pull.base.repo.full_name.eq_ignore_ascii_case(&own)
        });
        Ok(merged.min_by_key(|pull| pull.number))
    }

    async fn change_of(&self, session: &mut Session<'_>, pull: &PullRequest) -> Result<Change> {
        let number = pull.number;
        let what = format!("pull request {number}");
        let path = self.path(&format!("/pulls/{number}/commits?per_page=100"));
        let commits: Vec<Commit> = session.all(&what, &path).await?;
        if commits.len() >= MAX_PULL_COMMITS {
            return Err(Error::invalid_request(format!(
                "pull request {number} has {MAX_PULL_COMMITS} commits or more, of which GitHub names no more; who made it can't be known"
            )));
        }
        // Its own merges, too: who solves conflicts on the site writes what GitHub then signs.
        let mut authors: BTreeSet<String> = commits
            .iter()
            .flat_map(|commit| self.authors(commit))
            .collect();
        let opener = pull.user.as_ref().map(|user| self.person(&user.login));
        authors.extend(opener);
        let path = self.path(&format!("/pulls/{number}/reviews?per_page=100"));
        let reviews: Vec<Review> = session.all(&what, &path).await?;
        Ok(Change {
            id: format!("#{number}"),
            authors,
            reviewers: self.reviewers(&reviews, &pull.head.sha),
        })
    }

    /// Those whose last word is that they approve what was merged, as it was.
    fn reviewers(&self, reviews: &[Review], head: &str) -> BTreeSet<String> {
        let mut last: BTreeMap<&str, bool> = BTreeMap::new();
        // They come in the order in which they were given.
        for review in reviews {
            let Some(user) = &review.user else { continue };
            // Webhooks write it in lower case.
            let agreed = match review.state.to_ascii_uppercase().as_str() {
                "APPROVED" => review.commit_id.as_deref() == Some(head),
                "CHANGES_REQUESTED" | "DISMISSED" => false,
                _ => continue,
            };
            last.insert(&user.login, agreed);
        }
        let agreed = last.into_iter().filter(|(_, agreed)| *agreed);
        agreed.map(|(login, _)| self.person(login)).collect()
    }

    /// All who made a commit: by login, or by address where GitHub knows no login.
    fn authors(&self, commit: &Commit) -> BTreeSet<String> {
        let detail = &commit.commit;
        let author = (&commit.author, &detail.author);
        let committer = (&commit.committer, &detail.committer);
        let mut authors = BTreeSet::new();
        for (maker, signature) in [author, committer] {
            let login = maker.as_ref().and_then(|maker| maker.login.as_deref());
            let email = signature
                .as_ref()
                .and_then(|signature| signature.email.as_deref());
            match (login, email) {
                (Some(WEB_FLOW), _) => {}
                (Some(login), _) => drop(authors.insert(self.person(login))),
                (None, Some(email)) => drop(authors.insert(self.author_of(email))),
                (None, None) => {}
            }
        }
        for line in detail.message.lines() {
            let line = line.trim();
            let trailer = "co-authored-by:";
            let is_trailer = line
                .get(..trailer.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(trailer));
            if let Some((_, rest)) = line.split_once('<').filter(|_| is_trailer)
                && let Some((email, _)) = rest.split_once('>')
            {
                authors.insert(self.author_of(email.trim()));
            }
        }
        authors
    }

    /// Of an address: GitHub's own have the login in them.
    fn author_of(&self, email: &str) -> String {
        let own = email
            .to_ascii_lowercase()
            .strip_suffix("@users.noreply.github.com")
            .map(|local| {
                local
                    .split_once('+')
                    .map_or(local, |(_, login)| login)
                    .to_owned()
            });
        match own {
            Some(login) => self.person(&login),
            None => self.person(email),
        }
    }
}

/// A merge that GitHub made: of a pull request, since that is where it is by nobody else.
fn is_merge_by_github(commit: &Commit) -> bool {
    let committer = commit.committer.as_ref();
    let verified = commit.commit.verification.as_ref();
    commit.parents.len() > 1
        && committer.is_some_and(|maker| maker.login.as_deref() == Some(WEB_FLOW))
        && verified.is_some_and(|verification| verification.verified)
}
