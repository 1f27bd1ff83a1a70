//! What is asked, by which evidence, and the answer.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use groundtackle_release_gate::{
    Action, Decision, Digest, Entry, Evidence, Fact, Gate, Incident, Length, Obligation, Reason,
    Record, Request, Timestamp, Verdict, When, log_evidence,
};
use serde::Serialize;

use super::failure::Result;
use super::file::{self, MaybeLog, MaybeReading};
use crate::report::Report;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum What {
    /// An artefact goes out.
    Deploy,
    /// Settings change.
    Change,
    /// An artefact that was there before comes back.
    Rollback,
}

impl From<What> for Action {
    fn from(what: What) -> Self {
        match what {
            What::Deploy => Self::Deploy,
            What::Change => Self::Change,
            What::Rollback => Self::Rollback,
        }
    }
}

#[derive(Debug, Args)]
pub struct Question {
    /// The artefact: sha256: and 64 hexadecimal digits.
    #[arg(long, value_name = "DIGEST")]
    artefact: Digest,
    /// The artefact's name, for people.
    #[arg(long, default_value = "artefact")]
    name: String,
    /// The tag that it goes by.
    #[arg(long)]
    tag: String,
    /// Where it is to go.
    #[arg(long)]
    environment: String,
    /// What is to be done.
    #[arg(long, value_enum, default_value = "deploy")]
    action: What,
    /// Who is to do it.
    #[arg(long, value_name = "PERSON")]
    actor: String,
    /// How long it takes at most, such as 30m: windows may ask for it.
    #[arg(long, value_name = "LENGTH")]
    takes: Option<Length>,
    /// A JSON file with a list of evidence. May be given several times.
    #[arg(long, value_name = "FILE")]
    evidence: Vec<PathBuf>,
}

impl Question {
    fn request(&self) -> Request {
        Request {
            name: self.name.clone(),
            tag: self.tag.clone(),
            artefact: self.artefact,
            environment: self.environment.clone(),
            action: self.action.into(),
            actor: self.actor.clone(),
            takes: self.takes,
        }
    }

    /// Of all files, and what the log says of the artefact, of what came where, and of how often something went back or was passed.
    fn evidence(&self, gate: &Gate, records: &[Record], now: Timestamp) -> Result<Vec<Evidence>> {
        let mut all = Vec::new();
        for path in &self.evidence {
            all.extend(file::evidence(path)?);
        }
        for record in records {
            match &record.entry {
                Entry::Evidence { evidence } if is_about(&evidence.fact, &self.artefact) => {
                    all.push(evidence.clone());
                }
                Entry::Deployed { deployment } => all.push(Evidence::new(
                    "log",
                    deployment.finished_at,
                    Fact::Deployment {
                        artefact: deployment.artefact,
                        environment: deployment.environment.clone(),
                        succeeded: deployment.succeeded,
                    },
                )),
                _ => {}
            }
        }
        let counted = log_evidence(gate.policy(), "log", records, now);
        for counted in counted {
            // A file that counted more knows of more than this log.
            let more = all
                .iter()
                .any(|known| counts_more(&known.fact, &counted.fact));
            if !more {
                all.push(counted);
            }
        }
        Ok(all)
    }
}

fn counts_more(known: &Fact, counted: &Fact) -> bool {
    match (known, counted) {
        (
            Fact::Measure { name, value, .. },
            Fact::Measure {
                name: of,
                value: than,
                ..
            },
        ) => name == of && value > than,
        _ => false,
    }
}

fn is_about(fact: &Fact, artefact: &Digest) -> bool {
    match fact {
        Fact::Approval { artefact: of, .. }
        | Fact::Override { artefact: of, .. }
        | Fact::Item { artefact: of, .. }
        | Fact::Meeting { artefact: of, .. } => of == artefact,
        _ => false,
    }
}

pub fn check(
    gate: &Gate,
    question: &Question,
    log: &MaybeLog,
    permit_file: Option<&Path>,
    report: Report,
) -> Result<Verdict> {
    let log = log.open()?;
    let now = Timestamp::now();
    let records = log.as_ref().map_or(&[][..], |log| log.records());
    let evidence = question.evidence(gate, records, now)?;
    let (decision, permit) = gate.admit(&evidence, &question.request(), now);
    if let Some(log) = log {
        let entry = Entry::Decision {
            decision: Box::new(decision.clone()),
            evidence,
        };
        // No permit is out of which nobody could find the reason, nor the incident.
        let opened = opened(&decision, log.records());
        let (_, mut log) = log.append(entry, now)?;
        for incident in opened {
            (_, log) = log.append(Entry::Incident { incident }, now)?;
        }
        if let (Some(path), Some(permit)) = (permit_file, permit) {
            file::create(path, &format!("{}\n", permit.seal(log.signer())?), true)?;
        }
    }
    report.answer(&decision, &text(&decision))?;
    Ok(decision.verdict)
}

/// The incidents that a go owes, and the log has not.
fn opened(decision: &Decision, records: &[Record]) -> Vec<Incident> {
    let go = decision.verdict == Verdict::Go;
    let owed = decision.obligations.iter().filter(|_| go);
    owed.filter_map(|owed| match owed {
        Obligation::OpenIncident {
            incident,
            severity,
            reason,
        } => {
            let known = records.iter().any(
                |record| matches!(&record.entry, Entry::Incident { incident: known } if known.id == *incident),
            );
            let request = &decision.request;
            let title = format!(
                "{} of {} {} to {} by an override",
                request.action, request.name, request.tag, request.environment
            );
            (!known).then(|| {
                Incident::open(incident, title, *severity, decision.instant).with_moment(
                    decision.instant,
                    &request.actor,
                    reason,
                )
            })
        }
        _ => None,
    })
    .collect()
}

pub fn why(
    gate: &Gate,
    question: &Question,
    log: &MaybeReading,
    at: Timestamp,
    report: Report,
) -> Result<Verdict> {
    let evidence = question.evidence(gate, &log.records()?, at)?;
    let decision = gate.judge(&evidence, &question.request(), at);
    report.answer(&decision, &text(&decision))?;
    Ok(decision.verdict)
}

#[derive(Serialize)]
struct Next {
    verdict: Verdict,
    instant: Timestamp,
    when: When,
}

pub fn when(
    gate: &Gate,
    question: &Question,
    log: &MaybeReading,
    at: Timestamp,
    report: Report,
) -> Result<Verdict> {
    let evidence = question.evidence(gate, &log.records()?, at)?;
    let request = question.request();
    let verdict = gate.judge(&evidence, &request, at).verdict;
    let when = gate.when(&evidence, &request, at);
    let text = match when {
        When::At(then) if then == at => format!("now ({at})"),
        When::At(then) => then.to_string(),
        When::Never => "never: something else than time is missing (ops gate why)".into(),
    };
    let next = Next {
        verdict,
        instant: at,
        when,
    };
    report.answer(&next, &text)?;
    Ok(verdict)
}

/// For people.
fn text(decision: &Decision) -> String {
    let request = &decision.request;
    let mut lines = vec![format!(
        "{}: {} of {} {} to {} by {}",
        decision.verdict,
        request.action,
        request.name,
        request.tag,
        request.environment,
        request.actor
    )];
    let line = |reason: &Reason| {
        let until = reason
            .holds_until
            .map(|until| format!(" (until {until} at least)"));
        format!(
            "{} {}: {}{}",
            reason.rule.name(),
            reason.subject,
            reason.detail,
            until.unwrap_or_default()
        )
    };
    for reason in &decision.reasons {
        lines.push(format!("  {}: {}", reason.verdict, line(reason)));
    }
    for passed in &decision.passed {
        lines.push(format!("  passed: {}; {}", line(&passed.reason), passed.by));
    }
    for warning in &decision.warnings {
        lines.push(format!("  warning: {warning}"));
    }
    for obligation in &decision.obligations {
        lines.push(match obligation {
            Obligation::OpenIncident {
                incident, severity, ..
            } => format!("  owed: the record of incident {incident} ({severity:?})"),
            Obligation::Count { budget } => format!("  owed: one more of {budget}"),
            other => format!("  owed: {other:?}"),
        });
    }
    if let Some(until) = decision.good_until {
        lines.push(format!("  good until {until}"));
    }
    lines.join("\n")
}
