//! Events of the Events API v2 (<https://developer.pagerduty.com/docs/events-api-v2-overview>).

use groundtackle_health_check_notify_webhook::{Item, Kind};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Of a summary, in characters.
const MAX_SUMMARY: usize = 1024;
/// Of a detail, so that an event stays far below the 512 KB that it may have.
const MAX_DETAIL: usize = 4096;
/// Of the name of what tells.
const MAX_SOURCE: usize = 255;

#[derive(Debug, Serialize)]
pub(crate) struct Event<'a> {
    routing_key: &'a str,
    event_action: &'static str,
    dedup_key: String,
    /// What is resolved needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Payload {
    summary: String,
    source: String,
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    component: String,
    class: String,
    custom_details: Details,
}

#[derive(Debug, Serialize)]
struct Details {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    hides: usize,
    /// Changes that could not be told before, of anything.
    lost: u64,
}

impl<'a> Event<'a> {
    pub(crate) fn new(routing_key: &'a str, service: &str, item: &Item, lost: u64) -> Self {
        let dedup_key = dedup_key(service, item);
        if !item.down {
            return Self {
                routing_key,
                event_action: "resolve",
                dedup_key,
                payload: None,
                client: None,
            };
        }
        let detail = item.detail.as_deref().unwrap_or_default();
        let colon = if detail.is_empty() { "" } else { ": " };
        let summary = format!("{} {}{colon}{detail}", item.name, item.line());
        let since = item.since_unix_millis.and_then(|millis| {
            let millis = i64::try_from(millis).ok()?;
            Timestamp::from_millisecond(millis).ok()
        });
        let payload = Payload {
            summary: cut(&summary, MAX_SUMMARY),
            source: cut(service, MAX_SOURCE),
            severity: match item.state {
                "fail" | "page" => "critical",
                "unknown" => "error",
                _ => "warning",
            },
            timestamp: since.map(|since| since.to_string()),
            component: item.name.clone(),
            class: item.cause.clone().unwrap_or_else(|| "burn-rate".into()),
            custom_details: Details {
                state: item.state,
                detail: item.detail.as_deref().map(|text| cut(text, MAX_DETAIL)),
                hides: item.hides,
                lost,
            },
        };
        Self {
            routing_key,
            event_action: "trigger",
            dedup_key,
            payload: Some(payload),
            client: Some("groundtackle"),
        }
    }
}

/// The same for what goes down and comes up again, also of another process: by what tells, and what it tells of. A digest, since names of
/// both could be longer than the 255 characters that it may have.
fn dedup_key(service: &str, item: &Item) -> String {
    let kind = match item.kind {
        Kind::Alert => "alert",
        _ => "check",
    };
    let mut hash = Sha256::new();
    for part in [kind, service, &item.name] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(item.long_secs.unwrap_or_default().to_be_bytes());
    let digest: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("groundtackle-{kind}-{digest}")
}

fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.into();
    }
    let kept = text.chars().take(limit.saturating_sub(1));
    kept.chain(['…']).collect()
}
