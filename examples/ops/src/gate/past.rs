//! What a log says: whether it is whole, what another policy would have said, the minutes, and how deployments ended.

use clap::Args;
use groundtackle_release_gate::{
    Deployed, Digest, Dora, Entry, Gate, Record, Timestamp, Verdict, minutes_html, minutes_markdown,
};
use serde::Serialize;

use super::failure::{Failure, Result};
use super::file::{Reading, Writing};
use crate::report::Report;

#[derive(Debug, Args)]
pub struct Figures {
    /// The environment whose figures of DORA are wanted.
    #[arg(long, requires = "from", requires = "until")]
    environment: Option<String>,
    /// From when on, such as 2026-10-01T00:00:00Z.
    #[arg(long, value_name = "INSTANT", requires = "environment")]
    from: Option<Timestamp>,
    /// Until when.
    #[arg(long, value_name = "INSTANT", requires = "environment")]
    until: Option<Timestamp>,
}

#[derive(Debug, Args)]
pub struct Ended {
    /// The number of the decision's record.
    #[arg(long, value_name = "NUMBER")]
    record: u64,
    /// It does not run there.
    #[arg(long)]
    failed: bool,
    /// When each of its changes was made, such as 2026-11-09T10:00:00Z. May be given several times.
    #[arg(long, value_name = "INSTANT")]
    changed_at: Vec<Timestamp>,
    /// The number of the record of the deployment that had failed, and that this one makes good.
    #[arg(long, value_name = "NUMBER")]
    repairs: Option<u64>,
}

pub fn verify(log: &Reading, report: Report) -> Result<Verdict> {
    let verified = log.read()?;
    let head = verified.head;
    let text = format!("{} records, the last one {}", head.records, head.digest);
    report.answer(&head, &text)?;
    Ok(Verdict::Go)
}

#[derive(Serialize)]
struct Judged {
    sequence: u64,
    instant: Timestamp,
    was: Verdict,
    would_be: Verdict,
}

#[derive(Serialize)]
struct Sum {
    decisions: usize,
    differ: usize,
    go_before: usize,
    go_by_this_policy: usize,
    dora: Option<Dora>,
}

pub fn replay(gate: &Gate, log: &Reading, figures: &Figures, report: Report) -> Result<Verdict> {
    let records = log.read()?.records;
    let mut sum = Sum {
        decisions: 0,
        differ: 0,
        go_before: 0,
        go_by_this_policy: 0,
        dora: None,
    };
    for replayed in groundtackle_release_gate::replay(gate, &records) {
        let judged = Judged {
            sequence: replayed.sequence,
            instant: replayed.would_be.instant,
            was: replayed.was,
            would_be: replayed.would_be.verdict,
        };
        sum.decisions += 1;
        sum.go_before += usize::from(judged.was == Verdict::Go);
        sum.go_by_this_policy += usize::from(judged.would_be == Verdict::Go);
        if judged.was != judged.would_be {
            sum.differ += 1;
            if !report.json {
                report.text(&format!(
                    "record {} of {}: was {}, would be {}",
                    judged.sequence, judged.instant, judged.was, judged.would_be
                ))?;
            }
        }
        report.json(&judged)?;
    }
    if let (Some(environment), Some(from), Some(until)) =
        (&figures.environment, figures.from, figures.until)
    {
        let dora = Dora::of(&records, environment, from, until)
            .ok_or_else(|| Failure::Usage("--until is no later than --from".into()))?;
        sum.dora = Some(dora);
    }
    let mut text = format!(
        "{} decisions, {} differ; go: {} before, {} by this policy",
        sum.decisions, sum.differ, sum.go_before, sum.go_by_this_policy
    );
    if let Some(dora) = &sum.dora {
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "nothing to measure".into());
        let hours = |time: std::time::Duration| format!("{:.1} h", time.as_secs_f64() / 3600.0);
        text += &format!(
            "\ndeployments: {} ({:.2} a day)\nlead time for changes: {}\nchange failure rate: {}\nrecovery time: {}\nnot repaired: {}",
            dora.deployments,
            dora.deployments_per_day,
            or_none(dora.lead_time.map(hours)),
            or_none(
                dora.change_failure_rate
                    .map(|rate| format!("{:.1} %", rate * 100.0))
            ),
            or_none(dora.recovery_time.map(hours)),
            dora.unrepaired
        );
    }
    report.answer(&sum, &text)?;
    Ok(Verdict::Go)
}

#[derive(Serialize)]
struct Minutes<'a> {
    record: u64,
    minutes: &'a str,
}

pub fn minutes(log: &Reading, number: Option<u64>, html: bool, report: Report) -> Result<Verdict> {
    let records = log.read()?.records;
    let wanted = |record: &&Record| match number {
        Some(number) => record.sequence == number,
        None => matches!(record.entry, Entry::Decision { .. }),
    };
    let missing = || match number {
        Some(number) => format!("record {number} of the log is no decision, or is not there"),
        None => "the log has no decision".into(),
    };
    let record = records.iter().rev().find(wanted);
    let minutes = record.and_then(|record| {
        let text = match html {
            true => minutes_html(record),
            false => minutes_markdown(record),
        };
        Some((record.sequence, text?))
    });
    let (record, minutes) = minutes.ok_or_else(|| Failure::NotFound(missing()))?;
    let minutes = minutes.trim_end();
    report.answer(&Minutes { record, minutes }, minutes)?;
    Ok(Verdict::Go)
}

pub fn deployed(log: &Writing, ended: &Ended, report: Report) -> Result<Verdict> {
    let log = log.open()?;
    let find = |number: u64| {
        let record = log.records().iter().find(|found| found.sequence == number);
        record.map(|record| &record.entry)
    };
    let Some(Entry::Decision { decision, .. }) = find(ended.record) else {
        return Err(Failure::NotFound(format!(
            "record {} of the log is no decision, or is not there",
            ended.record
        )));
    };
    if decision.verdict != Verdict::Go {
        return Err(Failure::Usage(format!(
            "record {} says {}: what was done without leave is an incident, not a deployment",
            ended.record, decision.verdict
        )));
    }
    let digest = decision.digest();
    let known = |digest: Digest| {
        log.records().iter().any(
            |record| matches!(&record.entry, Entry::Deployed { deployment } if deployment.decision == digest),
        )
    };
    if known(digest) {
        return Err(Failure::Usage(format!(
            "how the deployment of record {} ended is in the log already",
            ended.record
        )));
    }
    let repairs = match ended.repairs.map(|number| (number, find(number))) {
        None => None,
        Some((_, Some(Entry::Deployed { deployment }))) => Some(deployment.decision),
        Some((number, _)) => {
            return Err(Failure::NotFound(format!(
                "record {number} of the log is no deployment, or is not there"
            )));
        }
    };
    let now = Timestamp::now();
    let deployment = Deployed {
        decision: digest,
        artefact: decision.request.artefact,
        environment: decision.request.environment.clone(),
        action: decision.request.action,
        finished_at: now,
        succeeded: !ended.failed,
        changed_at: ended.changed_at.clone(),
        repairs,
    };
    let json = deployment.clone();
    let (number, _) = log.append(Entry::Deployed { deployment }, now)?;
    report.answer(&json, &format!("recorded as {number}"))?;
    Ok(Verdict::Go)
}
