//! What Prometheus's own tool says of the rules, and what they say of the metrics.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use groundtackle_health_check::{AlertPolicy, Health, Measure, Objective, Settings, Window};
use groundtackle_health_check_http::{
    HttpHealthConfig, RUNBOOK, grafana_dashboard, prometheus_rules, router,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

const JOB: &str = "a \"node\"";
const ODD: &str = "99.9 \"\\ {{ $x }}\u{e9}";

fn objectives() -> Vec<Objective> {
    ["coins", ODD]
        .map(|name| Objective {
            name: name.try_into().unwrap(),
            subset: None,
            target: 0.999,
            measure: Measure::Availability,
            window: Window::RollingDays(30),
            alerts: AlertPolicy::recommended(),
        })
        .into()
}

fn promtool(arguments: &[&str], folder: &Path) {
    let done = Command::new("promtool")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("promtool, from Debian's package prometheus, is on the PATH");
    assert!(done.status.success(), "{done:?}");
}

fn write(folder: &TempDir, name: &str, text: &str) {
    std::fs::write(folder.path().join(name), text).unwrap();
}

#[test]
fn rules_are_rules() {
    let folder = TempDir::new().unwrap();
    write(
        &folder,
        "rules.yml",
        &prometheus_rules(JOB, &objectives(), RUNBOOK),
    );
    promtool(&["check", "rules", "rules.yml"], folder.path());
    write(
        &folder,
        "none.yml",
        &prometheus_rules("node", &[], "runbook {{ $value }}"),
    );
    promtool(&["check", "rules", "none.yml"], folder.path());
}

/// One series for each way of being wrong, and the alert that comes of it and of nothing else.
#[test]
fn each_alert_fires_on_what_it_is_for() {
    let folder = TempDir::new().unwrap();
    write(
        &folder,
        "rules.yml",
        &prometheus_rules(JOB, &objectives(), RUNBOOK),
    );
    let job = json!(JOB);
    let odd = json!(ODD);
    let firing = |labels: Value, annotation: &str| json!({ "exp_labels": labels, "exp_annotations": { "summary": annotation } });
    let well = format!("health_ready{{job={job}}}");
    let live = format!("health_live{{job={job}}}");
    let other = "health_ready{job=\"other\"}";
    let fails = format!(
        "health_check_outcome{{job={job},check=\"disk\",kind=\"readiness\",outcome=\"fail\"}}"
    );
    let unknown = fails.replace("fail", "unknown");
    let missed = format!("health_error_budget_left_ratio{{job={job},objective={odd}}}");
    let burns = format!(
        "health_burn_alert_firing{{job={job},objective={odd},severity=\"page\",window=\"3600s\"}}"
    );
    let case = |series: &[(&str, &str)], alert: &str, fired: Vec<Value>| {
        let all = [
            "HealthNotHeardOf",
            "HealthNotLive",
            "HealthNotReady",
            "HealthCheckFails",
            "HealthCheckNotKnown",
            "HealthObjectiveMissed",
            "HealthErrorBudgetBurns",
        ];
        let mut input: Vec<_> = series
            .iter()
            .map(|(series, values)| json!({ "series": series, "values": values }))
            .collect();
        for (up, values) in [(&*well, "1x40"), (&*live, "1x40")] {
            if !series.iter().any(|(series, _)| *series == up) {
                input.push(json!({ "series": up, "values": values }));
            }
        }
        let tests: Vec<_> = all
            .iter()
            .map(|name| {
                let mut fired = if *name == alert {
                    fired.clone()
                } else {
                    Vec::new()
                };
                for alert in &mut fired {
                    let at = format!("{RUNBOOK}#{}", name.to_lowercase());
                    alert["exp_annotations"]["runbook_url"] = at.into();
                }
                json!({ "eval_time": "30m", "alertname": name, "exp_alerts": fired })
            })
            .collect();
        json!({ "interval": "1m", "input_series": input, "alert_rule_test": tests })
    };
    let mut not_heard_of = case(
        &[(other, "1x40")],
        "HealthNotHeardOf",
        vec![firing(
            json!({ "job": JOB, "severity": "page" }),
            "Nothing is heard of the service",
        )],
    );
    not_heard_of["input_series"]
        .as_array_mut()
        .unwrap()
        .retain(|series| series["series"] != json!(well));
    let tests = json!({
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            case(&[], "", Vec::new()),
            not_heard_of,
            case(&[(&live, "0x40")], "HealthNotLive", vec![firing(
                json!({ "job": JOB, "severity": "page" }),
                "The process must be restarted",
            )]),
            case(&[(&well, "0x40")], "HealthNotReady", vec![firing(
                json!({ "job": JOB, "severity": "page" }),
                "The service can't do its work",
            )]),
            // It came and went.
            case(&[(&well, "1x26 0 1x20")], "", Vec::new()),
            case(&[(&fails, "1x40")], "HealthCheckFails", vec![firing(
                json!({ "job": JOB, "check": "disk", "kind": "readiness", "outcome": "fail", "severity": "ticket" }),
                "The check disk fails",
            )]),
            case(&[(&unknown, "1x40")], "HealthCheckNotKnown", vec![firing(
                json!({ "job": JOB, "check": "disk", "kind": "readiness", "outcome": "unknown", "severity": "ticket" }),
                "How the check disk is has not been known for a while",
            )]),
            case(&[(&missed, "-0.1x40")], "HealthObjectiveMissed", vec![firing(
                json!({ "job": JOB, "objective": ODD, "severity": "ticket" }),
                &format!("The objective {ODD} is missed"),
            )]),
            case(&[(&burns, "1x40")], "HealthErrorBudgetBurns", vec![firing(
                json!({ "job": JOB, "objective": ODD, "severity": "page", "window": "3600s" }),
                &format!("2 % of the error budget of {ODD} have gone within 1 h, and it still is being spent"),
            )]),
        ],
    });
    write(&folder, "tests.yml", &tests.to_string());
    promtool(&["test", "rules", "tests.yml"], folder.path());
}

/// What each panel asks for.
fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    targets
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let folder = TempDir::new().unwrap();
    let dashboard: Value = serde_json::from_str(&grafana_dashboard("Node", JOB)).unwrap();
    let rules: Vec<_> = expressions(&dashboard)
        .iter()
        .zip(0..)
        .map(|(expr, i)| json!({ "record": format!("panel_{i}"), "expr": expr }))
        .collect();
    assert!(rules.len() >= 8, "{rules:?}");
    let file = json!({ "groups": [{ "name": "panels", "rules": rules }] });
    write(&folder, "panels.yml", &file.to_string());
    promtool(&["check", "rules", "panels.yml"], folder.path());
}

/// The metrics' names in a text.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("health_"))
        .collect()
}

#[tokio::test]
async fn all_that_is_asked_for_is_shown() {
    let health = objectives()
        .into_iter()
        .fold(Health::builder(), |builder, objective| {
            builder.objective(objective)
        });
    let health = health
        .push("disk".try_into().unwrap(), Settings::default())
        .build()
        .unwrap();
    let config = HttpHealthConfig::default().with_all_are_operators(true);
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let response = router(health, config).oneshot(request).await.unwrap();
    let shown = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let shown = String::from_utf8(shown.into()).unwrap();
    let shown: BTreeSet<_> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let dashboard: Value = serde_json::from_str(&grafana_dashboard("Node", "node")).unwrap();
    let asked = [
        prometheus_rules("node", &objectives(), RUNBOOK),
        expressions(&dashboard).join(" "),
    ];
    for text in &asked {
        let asked = names(text);
        assert!(asked.len() >= 5, "{asked:?}");
        assert!(asked.is_subset(&shown), "{asked:?} of {shown:?}");
    }
}
