//! `application/health+json`, as draft-inadarei-api-health-check-06 has it, which expired in 2022.

use groundtackle_health_check::{Audience, Outcome, Reading, View};
use serde_json::{Map, Value, json};

/// The draft knows `pass`, `warn` and `fail`: what is not known is not up.
const fn status(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Warn => "warn",
        Outcome::Unknown | Outcome::Fail => "fail",
    }
}

pub(crate) fn health(view: &View, audience: Audience) -> String {
    let mut body =
        json!({ "status": status(view.readiness.outcome), "outcome": view.readiness.outcome });
    let mut checks = Map::new();
    for seen in view
        .readings
        .iter()
        .filter_map(|reading| audience.sees(reading))
    {
        let mut check = json!({ "status": status(seen.outcome), "outcome": seen.outcome });
        if let (Some(reason), Some(check)) = (seen.reason, check.as_object_mut()) {
            add_reason(check, reason);
        }
        checks.insert(seen.name.to_string(), json!([check]));
    }
    if let Some(body) = body.as_object_mut().filter(|_| !checks.is_empty()) {
        body.insert("checks".into(), Value::Object(checks));
    }
    body.to_string()
}

fn add_reason(check: &mut Map<String, Value>, reading: &Reading) {
    check.insert("componentType".into(), reading.kind.as_str().into());
    check.insert("cause".into(), reading.cause.as_str().into());
    if let Some(detail) = &reading.detail {
        check.insert("output".into(), detail.as_ref().into());
    }
    if let Some(root) = &reading.caused_by {
        check.insert("causedBy".into(), root.as_str().into());
    }
    if let Some(time) = reading.observed_unix_millis.map(time) {
        check.insert("time".into(), time.into());
    }
}

/// In UTC, to the second.
pub(crate) fn time(unix_millis: u64) -> String {
    let millis = i64::try_from(unix_millis).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(millis / 1000).unwrap_or(jiff::Timestamp::MAX);
    time.to_string()
}
