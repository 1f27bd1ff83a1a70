//! Minutes of a go/no-go, from its record.

use crate::decision::{Decision, Reason};
use crate::evidence::{Evidence, Fact, Vote};
use crate::log::{Entry, Record};

enum Block {
    Title(String),
    Heading(&'static str),
    Text(String),
    List(Vec<String>),
}

/// Of the record of a decision, as Markdown; `None` of any other record.
pub fn minutes_markdown(record: &Record) -> Option<String> {
    let mut text = String::new();
    for block in blocks(record)? {
        text.push_str(&match block {
            Block::Title(title) => format!("# {}\n\n", markdown(&title)),
            Block::Heading(heading) => format!("## {heading}\n\n"),
            Block::Text(line) => format!("{}\n\n", markdown(&line)),
            Block::List(items) => {
                let items: String = items
                    .iter()
                    .map(|item| format!("- {}\n", markdown(item)))
                    .collect();
                format!("{items}\n")
            }
        });
    }
    Some(text.trim_end().to_owned() + "\n")
}

/// Of the record of a decision, as a page of HTML; `None` of any other record.
pub fn minutes_html(record: &Record) -> Option<String> {
    let blocks = blocks(record)?;
    let title = blocks.iter().find_map(|block| match block {
        Block::Title(title) => Some(html(title)),
        _ => None,
    });
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{}</title>\n",
        title.unwrap_or_default()
    );
    for block in blocks {
        text.push_str(&match block {
            Block::Title(title) => format!("<h1>{}</h1>\n", html(&title)),
            Block::Heading(heading) => format!("<h2>{heading}</h2>\n"),
            Block::Text(line) => format!("<p>{}</p>\n", html(&line)),
            Block::List(items) => {
                let items: String = items
                    .iter()
                    .map(|item| format!("<li>{}</li>\n", html(item)))
                    .collect();
                format!("<ul>\n{items}</ul>\n")
            }
        });
    }
    text.push_str("</html>\n");
    Some(text)
}

fn blocks(record: &Record) -> Option<Vec<Block>> {
    let Entry::Decision { decision, evidence } = &record.entry else {
        return None;
    };
    let Decision { request, .. } = &**decision;
    let mut blocks = vec![
        Block::Title(format!(
            "{} of {} {} to {}: {}",
            request.action, request.name, request.tag, request.environment, decision.verdict
        )),
        Block::List(vec![
            format!("Artefact: {}", request.artefact),
            format!("Asked by: {}", request.actor),
            format!("Judged at: {}", decision.instant),
            format!("Policy: {}", decision.policy),
            format!("Evidence: {}", decision.evidence),
            format!("Record: {} after {}", record.sequence, record.previous),
        ]),
    ];
    let about_this = |evidence: &&Evidence| match &evidence.fact {
        Fact::Meeting {
            artefact,
            environment,
            ..
        }
        | Fact::Approval {
            artefact,
            environment,
            ..
        } => *artefact == request.artefact && *environment == request.environment,
        _ => false,
    };
    let mut approvals = Vec::new();
    for evidence in evidence.iter().filter(about_this) {
        match &evidence.fact {
            Fact::Meeting { votes, minutes, .. } => {
                blocks.push(Block::Heading("Meeting"));
                blocks.push(Block::Text(format!("Held at {}.", evidence.observed_at)));
                let said = |vote: &Vote| match vote {
                    Vote::Go => "go",
                    Vote::NoGo => "no-go",
                    Vote::Abstain => "abstained",
                };
                blocks.push(Block::List(
                    votes
                        .iter()
                        .map(|(person, vote)| format!("{person}: {}", said(vote)))
                        .collect(),
                ));
                blocks.push(Block::Text(minutes.clone()));
            }
            Fact::Approval { by, .. } => {
                approvals.push(format!("{by}, at {}", evidence.observed_at))
            }
            _ => {}
        }
    }
    let reason = |reason: &Reason| {
        format!(
            "{} ({}, {}): {}",
            reason.subject,
            reason.rule.name(),
            reason.verdict,
            reason.detail
        )
    };
    let lists = [
        ("Approvals", approvals),
        ("Against", decision.reasons.iter().map(reason).collect()),
        (
            "Passed over",
            decision
                .passed
                .iter()
                .map(|p| format!("{}; {}", reason(&p.reason), p.by))
                .collect(),
        ),
        ("Warnings", decision.warnings.clone()),
    ];
    for (heading, items) in lists {
        if !items.is_empty() {
            blocks.push(Block::Heading(heading));
            blocks.push(Block::List(items));
        }
    }
    Some(blocks)
}

/// Text that Markdown takes as it is, on one line.
pub(crate) fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // Digits and letters apart, any of ASCII's may mean something, and each can be escaped.
            c if c.is_ascii_punctuation()
                && !matches!(c, ',' | ':' | ';' | '\'' | '/' | '?' | '%' | '.' | '-') =>
            {
                escaped.extend(['\\', c]);
            }
            // In front of a line these make lists.
            c @ ('-' | '.') if escaped.chars().all(|c| c.is_ascii_digit()) => {
                escaped.extend(['\\', c])
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() && c != '\n' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
