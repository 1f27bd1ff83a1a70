//! What is asked, by which evidence, and the answer.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use groundtackle_release_gate::{
    Action, Decision, Digest, Entry, Evidence, Fact, Gate, Length, Obligation, Reason, Record,
    Request, Timestamp, Verdict, When,
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

    /// Of all files, and what the log says of the artefact and of what came where.
    fn evidence(&self, records: &[Record]) -> Result<Vec<Evidence>> {
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
        Ok(all)
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
    let evidence = question.evidence(log.as_ref().map_or(&[], |log| log.records()))?;
    let now = Timestamp::now();
    let (decision, permit) = gate.admit(&evidence, &question.request(), now);
    if let Some(log) = log {
        let entry = Entry::Decision {
            decision: Box::new(decision.clone()),
            evidence,
        };
        // No permit is out of which nobody could find the reason.
        let (_, signer) = log.append(entry, now)?;
        if let (Some(path), Some(permit)) = (permit_file, permit) {
            file::create(path, &format!("{}\n", permit.seal(&signer)?), true)?;
        }
    }
    report.answer(&decision, &text(&decision))?;
    Ok(decision.verdict)
}

pub fn why(
    gate: &Gate,
    question: &Question,
    log: &MaybeReading,
    at: Timestamp,
    report: Report,
) -> Result<Verdict> {
    let evidence = question.evidence(&log.records()?)?;
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
    let evidence = question.evidence(&log.records()?)?;
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
