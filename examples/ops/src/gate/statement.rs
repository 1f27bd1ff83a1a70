//! What people say, signed by themselves: on paper to be passed on, or into the log.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use groundtackle_release_gate::{
    Digest, Entry, Evidence, Fact, Form, Gate, Severity, Signer, Timestamp, Verdict,
};

use super::failure::{Failure, Result};
use super::file::{self, MaybeLog};
use crate::report::Report;

#[derive(Debug, Args)]
pub struct Said {
    /// The artefact: sha256: and 64 hexadecimal digits.
    #[arg(long, value_name = "DIGEST")]
    artefact: Digest,
    /// Who says it, as the policy names them.
    #[arg(long, value_name = "PERSON")]
    by: String,
    /// Their key: the policy has its public half.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    log: MaybeLog,
}

#[derive(Debug, Args)]
pub struct Item {
    /// The item, as the checklist of an environment of the policy names it.
    #[arg(long, value_name = "ID")]
    item: String,
    /// It was found not to be done.
    #[arg(long)]
    failed: bool,
    /// The document that shows it, for an item whose form is a document.
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HowBad {
    Minor,
    Major,
    Critical,
}

#[derive(Debug, Args)]
pub struct Need {
    /// Where it is to go.
    #[arg(long)]
    environment: String,
    /// The incident that needs it.
    #[arg(long, value_name = "ID")]
    incident: String,
    /// How bad the incident is.
    #[arg(long, value_enum)]
    severity: HowBad,
    /// Why.
    #[arg(long)]
    reason: String,
}

pub fn approve(gate: &Gate, said: &Said, environment: &str, report: Report) -> Result<Verdict> {
    known(gate, environment)?;
    let fact = Fact::Approval {
        artefact: said.artefact,
        environment: environment.into(),
        by: said.by.clone(),
    };
    say(gate, said, fact, None, report)
}

pub fn tick(gate: &Gate, said: &Said, item: &Item, report: Report) -> Result<Verdict> {
    let environments = gate.policy().environments.iter();
    let found = environments
        .flat_map(|environment| &environment.checklist)
        .find(|found| found.id == item.item);
    let form = match found.map(|found| found.form) {
        None => {
            return Err(Failure::Usage(format!(
                "no checklist of the policy has an item {:?}",
                item.item
            )));
        }
        Some(Form::Probe) => {
            return Err(Failure::Usage(format!(
                "{:?} is a probe: it is measured, and nobody's word counts",
                item.item
            )));
        }
        Some(form) => form,
    };
    if (form == Form::Document) != item.document.is_some() {
        return Err(Failure::Usage(match form {
            Form::Document => format!("{:?} is a document: name it with --document", item.item),
            _ => format!("{:?} is no document: leave --document out", item.item),
        }));
    }
    let digest = match &item.document {
        Some(path) => Some(Digest::of(&file::read(path)?)),
        None => None,
    };
    let fact = Fact::Item {
        id: item.item.clone(),
        artefact: said.artefact,
        form,
        passed: !item.failed,
        by: said.by.clone(),
    };
    say(gate, said, fact, digest, report)
}

pub fn override_(gate: &Gate, said: &Said, need: &Need, report: Report) -> Result<Verdict> {
    known(gate, &need.environment)?;
    for (key, value) in [("--reason", &need.reason), ("--incident", &need.incident)] {
        if value.trim().is_empty() {
            return Err(Failure::Usage(format!("{key} is empty")));
        }
    }
    let fact = Fact::Override {
        artefact: said.artefact,
        environment: need.environment.clone(),
        incident: need.incident.clone(),
        severity: match need.severity {
            HowBad::Minor => Severity::Minor,
            HowBad::Major => Severity::Major,
            HowBad::Critical => Severity::Critical,
        },
        reason: need.reason.clone(),
        by: [said.by.clone()].into(),
    };
    say(gate, said, fact, None, report)
}

fn known(gate: &Gate, environment: &str) -> Result<()> {
    let mut all = gate.policy().environments.iter();
    if all.any(|known| known.name == environment) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "the policy has no environment {environment:?}"
    )))
}

/// Signs it, makes sure that the policy will take the signature, and passes it on.
fn say(
    gate: &Gate,
    said: &Said,
    fact: Fact,
    digest: Option<Digest>,
    report: Report,
) -> Result<Verdict> {
    let now = Timestamp::now();
    let mut evidence = Evidence::new("ops gate", now, fact);
    evidence.digest = digest;
    let evidence = evidence.sign(&file::signer(&said.key)?)?;
    let keys = gate.policy().keys(&said.by);
    if keys.is_empty() {
        return Err(Failure::Usage(format!(
            "the policy has no key of {:?}; add a [[person]]",
            said.by
        )));
    }
    if !evidence.is_signed_by(keys) {
        return Err(Failure::BadData {
            path: said.key.clone(),
            detail: format!("it is not the key that the policy has of {:?}", said.by),
        });
    }
    let recorded = match said.log.open()? {
        Some(log) => {
            let entry = Entry::Evidence {
                evidence: evidence.clone(),
            };
            let (number, _) = log.append(entry, now)?;
            Some(format!("recorded as {number}"))
        }
        None => None,
    };
    // Without a log it is for --evidence, so that it is JSON in any case.
    let list = [evidence];
    match recorded {
        Some(recorded) => report.answer(&list, &recorded)?,
        None => Report { json: true }.json(&list)?,
    }
    Ok(Verdict::Go)
}

pub fn key(out: &Path, report: Report) -> Result<Verdict> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Failure::File {
        path: "the system's random numbers".into(),
        source: std::io::Error::other(error),
    })?;
    let digits: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    file::create(out, &format!("{digits}\n"), true)?;
    let public = Signer::from_seed(&seed).public();
    report.answer(
        &serde_json::json!({ "public": public }),
        &public.to_string(),
    )?;
    Ok(Verdict::Go)
}
