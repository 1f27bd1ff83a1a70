//! Incidents: who owns them by now, what happened when, and the report.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::evidence::{Evidence, Fact};
use crate::policy::{Policy, Severity};

/// The report that is written unless another template is given. `{{name}}` stands for a value.
pub const REPORT_TEMPLATE: &str = include_str!("incident.md");

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// Its name.
    pub id: String,
    /// What it is, in a phrase.
    pub title: String,
    /// How bad it is.
    pub severity: Severity,
    /// When it began.
    pub opened_at: Timestamp,
    /// Who took it on, if anybody did: from then on it is not escalated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_by: Option<String>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
    /// What it came from, once that is known.
    #[serde(default)]
    pub cause: String,
    /// Hours that people worked on it.
    #[serde(default)]
    pub hours: f64,
    /// What happened, in the order in which it was written down.
    #[serde(default)]
    pub timeline: Vec<Moment>,
}

/// Something that happened in an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// Who says so.
    pub by: String,
    /// What.
    pub what: String,
}

impl Incident {
    /// One that begins.
    pub fn open(
        id: impl Into<String>,
        title: impl Into<String>,
        severity: Severity,
        opened_at: Timestamp,
    ) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            severity,
            opened_at,
            taken_by: None,
            resolved_at: None,
            cause: String::new(),
            hours: 0.0,
            timeline: Vec::new(),
        }
    }

    /// With one more moment.
    #[must_use]
    pub fn with_moment(
        mut self,
        at: Timestamp,
        by: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        self.timeline.push(Moment {
            at,
            by: by.into(),
            what: what.into(),
        });
        self
    }

    /// Who owns it: whoever took it on, otherwise whom the policy names for so long a time. `None` if it names nobody for the
    /// severity.
    pub fn owner<'a>(&'a self, policy: &'a Policy, now: Timestamp) -> Option<&'a str> {
        if let Some(person) = &self.taken_by {
            return Some(person);
        }
        let escalation = policy
            .escalations
            .iter()
            .find(|e| e.severity == self.severity)?;
        let now = self.resolved_at.map_or(now, |end| end.min(now));
        let reached = escalation
            .steps
            .iter()
            .rfind(|step| step.after.after(self.opened_at) <= now);
        Some(reached.map_or(escalation.owner.as_str(), |step| step.to.as_str()))
    }

    /// When it next goes to somebody else, if nobody takes it on.
    pub fn next_escalation(&self, policy: &Policy, now: Timestamp) -> Option<Timestamp> {
        if self.taken_by.is_some() || self.resolved_at.is_some() {
            return None;
        }
        let escalation = policy
            .escalations
            .iter()
            .find(|e| e.severity == self.severity)?;
        let steps = escalation
            .steps
            .iter()
            .map(|step| step.after.after(self.opened_at));
        steps.filter(|at| *at > now).min()
    }

    /// The report as Markdown.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the template names what there is not.
    pub fn report(&self, policy: &Policy, template: &str, now: Timestamp) -> Result<String> {
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                break;
            };
            text.push_str(before);
            text.push_str(&self.value(policy, name.trim(), now)?);
            rest = after;
        }
        text.push_str(rest);
        Ok(text)
    }

    fn value(&self, policy: &Policy, name: &str, now: Timestamp) -> Result<String> {
        let escape = crate::minutes::markdown;
        Ok(match name {
            "id" => escape(&self.id),
            "title" => escape(&self.title),
            "severity" => format!("{:?}", self.severity),
            "owner" => escape(self.owner(policy, now).unwrap_or("nobody")),
            "opened_at" => self.opened_at.to_string(),
            "resolved_at" => self.resolved_at.map_or("open".into(), |at| at.to_string()),
            "cause" if self.cause.is_empty() => "not known yet".into(),
            "cause" => escape(&self.cause),
            "hours" => self.hours.to_string(),
            "timeline" => {
                let mut moments: Vec<_> = self.timeline.iter().collect();
                moments.sort_by_key(|moment| moment.at);
                let line =
                    |m: &Moment| format!("- {}: {} ({})", m.at, escape(&m.what), escape(&m.by));
                moments.into_iter().map(line).collect::<Vec<_>>().join("\n")
            }
            other => {
                let what = format!(
                    "the template names {other:?}; there are id, title, severity, owner, opened_at, resolved_at, cause, hours and timeline"
                );
                return Err(Error::invalid_request(what));
            }
        })
    }
}

/// What a quarter's incidents say, as evidence: the open ones, how many of `escalated` severity began, under the name
/// `"escalations"`, and how many hours were worked on those that were not over before it, under `"incident-hours"`. All of them have to be
/// given.
pub fn incident_evidence(
    policy: &Policy,
    source: &str,
    incidents: &[Incident],
    escalated: &BTreeSet<Severity>,
    now: Timestamp,
) -> Vec<Evidence> {
    let since = policy.zone.quarter_of(now);
    let began = |incident: &&Incident| (since..=now).contains(&incident.opened_at);
    let open = incidents
        .iter()
        .filter(|incident| incident.resolved_at.is_none());
    let count = incidents
        .iter()
        .filter(began)
        .filter(|incident| escalated.contains(&incident.severity))
        .count();
    // Nobody wrote down when: hours of an incident from before count whole.
    let hours = incidents
        .iter()
        .filter(|incident| incident.opened_at <= now)
        .filter(|incident| incident.resolved_at.is_none_or(|end| end >= since))
        .map(|incident| incident.hours)
        .sum();
    // A count of what is in memory is far below 2^53.
    let measures = [("escalations", count as f64), ("incident-hours", hours)];
    let measures = measures.map(|(name, value)| Fact::Measure {
        name: name.into(),
        value,
        since,
    });
    let open = Fact::Incidents {
        open: open
            .map(|incident| (incident.id.clone(), incident.severity))
            .collect(),
    };
    let facts = [open].into_iter().chain(measures);
    facts.map(|fact| Evidence::new(source, now, fact)).collect()
}
