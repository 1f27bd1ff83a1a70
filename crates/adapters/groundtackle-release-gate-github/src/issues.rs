//! Issues by label: blockers, incidents and figures as evidence; decisions and incidents as issues.

use std::collections::{BTreeMap, BTreeSet};

use groundtackle_release_gate::{
    Digest, Entry, Error, Evidence, Fact, Incident, Policy, REPORT_TEMPLATE, Record, Request,
    Result, Severity, Timestamp, minutes_markdown,
};
use http::Method;
use jiff::SignedDuration;
use serde::Serialize;

use crate::api::{Session, encoded};
use crate::config::IncidentRule;
use crate::record::{Issue, Label};
use crate::source::GitHub;

/// Of a title.
const MAX_TITLE: usize = 256;
/// Of a body; GitHub takes 65,536.
const MAX_BODY: usize = 60_000;

#[derive(Serialize)]
struct NewIssue<'a> {
    title: &'a str,
    body: &'a str,
    labels: &'a [&'a str],
}

#[derive(Serialize)]
struct ChangedIssue<'a> {
    title: &'a str,
    body: &'a str,
    labels: &'a [&'a str],
    state: &'a str,
}

impl GitHub {
    fn issues_path(&self, label: &str, rest: &str) -> String {
        self.path(&format!(
            "/issues?labels={}&per_page=100{rest}",
            encoded(label)
        ))
    }

    /// All of a label, until `take` has enough. Pull requests are left out.
    async fn issues(
        &self,
        session: &mut Session<'_>,
        label: &str,
        rest: &str,
        mut take: impl FnMut(&Issue) -> bool,
    ) -> Result<()> {
        let what = format!("issues with the label {label:?}");
        let path = self.issues_path(label, rest);
        let page = |page: Vec<Issue>| {
            let issues = page.iter().filter(|issue| issue.pull_request.is_none());
            // Each of the page is taken.
            let mut more = true;
            for issue in issues {
                more &= take(issue);
            }
            more
        };
        session.pages(&what, &path, page).await
    }

    /// As [`issues`](Self::issues). GitHub finds nothing under a label that the repository has not: what is misspelt, or was
    /// renamed, is an error.
    async fn labelled(
        &self,
        session: &mut Session<'_>,
        label: &str,
        rest: &str,
        take: impl FnMut(&Issue) -> bool,
    ) -> Result<()> {
        let path = self.path(&format!("/labels/{}", encoded(label)));
        let known: Option<Label> = session.get(&format!("the label {label:?}"), &path).await?;
        if known.is_none() {
            return Err(Error::invalid_request(format!(
                "the repository {} has no label {label:?}, or the token may not see it; make the label, or name another",
                self.config().repository
            )));
        }
        self.issues(session, label, rest, take).await
    }

    pub(crate) async fn issue_evidence(
        &self,
        session: &mut Session<'_>,
        request: &Request,
    ) -> Result<Vec<Evidence>> {
        let config = self.config();
        let mut found = Vec::new();
        let evidence = |at, fact| Evidence::new(self.source_name(), at, fact);
        let now = Timestamp::now();
        // One label's issues stand beside another's of the same environment, or of the same figure.
        let mut blockers: BTreeMap<&str, (BTreeSet<String>, Option<Timestamp>)> = BTreeMap::new();
        for rule in &config.blockers {
            let (open, last_closed_at) = blockers.entry(&rule.environment).or_default();
            let take = |issue: &Issue| {
                if issue.state == "open" {
                    open.insert(format!("#{}", issue.number));
                }
                *last_closed_at = (*last_closed_at).max(issue.closed_at);
                true
            };
            self.labelled(session, &rule.label, "&state=all", take)
                .await?;
        }
        for (environment, (open, last_closed_at)) in blockers {
            let fact = Fact::Blockers {
                artefact: request.artefact,
                environment: environment.into(),
                open,
                last_closed_at,
            };
            found.push(evidence(now, fact));
        }
        if let Some(rule) = &config.incidents {
            let mut open = BTreeMap::new();
            let take = |issue: &Issue| {
                open.insert(format!("#{}", issue.number), rule.severity_of(issue));
                true
            };
            self.labelled(session, &rule.label, "&state=open", take)
                .await?;
            found.push(evidence(now, Fact::Incidents { open }));
        }
        let since = config.zone.quarter_of(now);
        let mut measures: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for rule in &config.measures {
            let counted = measures.entry(&rule.name).or_default();
            let take = |issue: &Issue| {
                if (since..=now).contains(&issue.created_at) {
                    counted.insert(issue.number);
                }
                true
            };
            // What was opened since then was changed since then.
            let rest = format!("&state=all&since={}", encoded(&since.to_string()));
            self.labelled(session, &rule.label, &rest, take).await?;
        }
        for (name, counted) in measures {
            let fact = Fact::Measure {
                name: name.into(),
                value: u32::try_from(counted.len()).unwrap_or(u32::MAX).into(),
                since,
            };
            found.push(evidence(now, fact));
        }
        Ok(found)
    }

    /// Logs a record of a decision as an issue, with its minutes, and returns its number.
    ///
    /// **Idempotency**: a record that has an issue gets no second one; don't log the same one twice at once. **Cancel safety**: dropped,
    /// the issue may be there; log it again.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the record is of no decision. When GitHub could not be asked, `Indeterminate` if the issue may
    /// be there.
    pub async fn log_decision(&self, record: &Record) -> Result<u64> {
        let Entry::Decision { decision, .. } = &record.entry else {
            return Err(Error::invalid_request(
                "only decisions are logged with minutes",
            ));
        };
        let minutes = minutes_markdown(record).unwrap_or_default();
        let request = &decision.request;
        let title = format!(
            "{} of {} {} to {}: {}",
            request.action, request.name, request.tag, request.environment, decision.verdict
        );
        let name = format!(
            "{} {} {}",
            record.sequence,
            record.previous,
            decision.digest()
        );
        let marker = marker("decision", &name);
        let label = self.config().decision_label.as_str();
        let mut session = self.session().await?;
        // The clocks may differ by as much.
        let since = record.at.saturating_sub(SignedDuration::from_hours(24));
        let since = since.unwrap_or(Timestamp::MIN);
        let known = self.find(&mut session, label, &marker, since).await?;
        if let Some(issue) = known {
            return Ok(issue);
        }
        let body = body(&minutes, &marker);
        let issue = NewIssue {
            title: &cut(&title, MAX_TITLE),
            body: &body,
            labels: &[label],
        };
        self.open(&mut session, "logging a decision", &issue).await
    }

    /// Logs an incident as an issue with its report, as it is by now, and returns its number. A resolved one is closed.
    ///
    /// **Idempotency**: an incident that has an issue gets no second one; don't log the same one twice at once. **Cancel safety**:
    /// dropped, the issue may be there, or changed; log it again.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] without a label for incidents in the config. When GitHub could not be asked, `Indeterminate` if
    /// the issue may be there.
    pub async fn log_incident(
        &self,
        incident: &Incident,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<u64> {
        let Some(rule) = &self.config().incidents else {
            return Err(Error::invalid_request(
                "the config has no `incident`: name the label of incidents",
            ));
        };
        let report = incident.report(policy, REPORT_TEMPLATE, now)?;
        let title = cut(&format!("{}: {}", incident.id, incident.title), MAX_TITLE);
        let marker = marker("incident", &incident.id);
        let body = body(&report, &marker);
        let severity = rule.severities.get(&incident.severity);
        let labels: Vec<&str> = [Some(&rule.label), severity]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let mut session = self.session().await?;
        let since = incident.opened_at;
        let since = since.saturating_sub(SignedDuration::from_hours(24));
        let since = since.unwrap_or(Timestamp::MIN);
        let known = self.find(&mut session, &rule.label, &marker, since).await?;
        let action = "logging an incident";
        let number = match known {
            Some(number) => number,
            None => {
                let issue = NewIssue {
                    title: &title,
                    body: &body,
                    labels: &labels,
                };
                let number = self.open(&mut session, action, &issue).await?;
                if incident.resolved_at.is_none() {
                    return Ok(number);
                }
                number
            }
        };
        let state = match incident.resolved_at {
            Some(_) => "closed",
            None => "open",
        };
        let issue = ChangedIssue {
            title: &title,
            body: &body,
            labels: &labels,
            state,
        };
        let path = self.path(&format!("/issues/{number}"));
        let changed: Issue = session.send(action, Method::PATCH, &path, &issue).await?;
        Ok(changed.number)
    }

    async fn open(
        &self,
        session: &mut Session<'_>,
        action: &str,
        issue: &NewIssue<'_>,
    ) -> Result<u64> {
        let path = self.path("/issues");
        let made: Issue = session.send(action, Method::POST, &path, issue).await?;
        Ok(made.number)
    }

    /// The issue with a label that has a marker, of those opened since.
    async fn find(
        &self,
        session: &mut Session<'_>,
        label: &str,
        marker: &str,
        since: Timestamp,
    ) -> Result<Option<u64>> {
        let mut found = None;
        let take = |issue: &Issue| {
            let here = issue
                .body
                .as_deref()
                .is_some_and(|body| body.contains(marker));
            if here {
                // The first that was opened, if there are several.
                found = Some(issue.number);
            }
            issue.created_at >= since
        };
        let rest = "&state=all&sort=created&direction=desc";
        self.issues(session, label, rest, take).await?;
        Ok(found)
    }
}

impl IncidentRule {
    /// The worst that its labels say; critical where they say nothing.
    fn severity_of(&self, issue: &Issue) -> Severity {
        let named = self.severities.iter().filter(|(_, label)| {
            issue
                .labels
                .iter()
                .any(|of_issue| of_issue.is(label.as_str()))
        });
        let worst = named.map(|(severity, _)| *severity);
        worst
            .min_by_key(|severity| match severity {
                Severity::Critical => 0,
                Severity::Major => 1,
                Severity::Minor => 2,
            })
            .unwrap_or(Severity::Critical)
    }
}

/// Not seen by readers, and the same for the same name.
fn marker(kind: &str, name: &str) -> String {
    format!(
        "<!-- groundtackle {kind} {} -->",
        Digest::of(name.as_bytes()).hex()
    )
}

/// Text and marker, without calling anybody: what is escaped already names no person and no other issue.
fn body(text: &str, marker: &str) -> String {
    let quiet = text.replace("\\@", "@<!-- -->").replace("\\#", "#<!-- -->");
    let mut body = cut(&quiet, MAX_BODY);
    body.push_str("\n\n");
    body.push_str(marker);
    body.push('\n');
    body
}

/// At most so many characters.
fn cut(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some(_) => {
            let mut short: String = text.chars().take(limit.saturating_sub(1)).collect();
            short.push('…');
            short
        }
    }
}
