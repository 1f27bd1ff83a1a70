//! Alert rules for Prometheus and a dashboard for Grafana, over what `/metrics` shows.

use groundtackle_health_check::Objective;
use serde_json::{Value, json};

/// The runbook of this project, which has a section for each alert of [`prometheus_rules`].
pub const RUNBOOK: &str = "https://github.com/groundtackle/groundtackle/blob/main/docs/runbook.md";

/// An alert for each way in which what [`router`](crate::router) shows under `/metrics` says that something is wrong: one for each
/// burn-rate alert of each objective, a missed objective, a service that is not live or not ready, a check that fails or is not known,
/// and a service of which nothing is heard. A file of rules for Prometheus, in YAML
/// (<https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/>).
///
/// `job` is what Prometheus calls the service; what its rules compare with the metrics' label `job`. `runbook` is the address of a page with
/// a section for each alert, such as [`RUNBOOK`]: the annotation `runbook_url` of an alert is that with `#` and its name in small letters.
#[must_use]
pub fn prometheus_rules(job: &str, objectives: &[Objective], runbook: &str) -> String {
    let of_job = |metric: &str, labels: &[(&str, &str)]| {
        let mut text = format!("{metric}{{job={}", quoted(job));
        for (label, value) in labels {
            text += &format!(",{label}={}", quoted(value));
        }
        text + "}"
    };
    let mut rules = vec![
        Rule {
            alert: "HealthNotHeardOf",
            expr: format!("absent({})", of_job("health_ready", &[])),
            lasting: "5m",
            severity: "page",
            summary: "Nothing is heard of the service".into(),
        },
        Rule {
            alert: "HealthNotLive",
            expr: format!("{} == 0", of_job("health_live", &[])),
            lasting: "1m",
            severity: "page",
            summary: "The process must be restarted".into(),
        },
        Rule {
            alert: "HealthNotReady",
            expr: format!("{} == 0", of_job("health_ready", &[])),
            lasting: "5m",
            severity: "page",
            summary: "The service can't do its work".into(),
        },
        Rule {
            alert: "HealthCheckFails",
            expr: format!(
                "{} == 1",
                of_job("health_check_outcome", &[("outcome", "fail")])
            ),
            lasting: "5m",
            severity: "ticket",
            summary: "The check {{ $labels.check }} fails".into(),
        },
        Rule {
            alert: "HealthCheckNotKnown",
            expr: format!(
                "{} == 1",
                of_job("health_check_outcome", &[("outcome", "unknown")])
            ),
            lasting: "15m",
            severity: "ticket",
            summary: "How the check {{ $labels.check }} is has not been known for a while".into(),
        },
    ];
    for objective in objectives {
        let name = objective.name.as_str();
        rules.push(Rule {
            alert: "HealthObjectiveMissed",
            expr: format!(
                "{} < 0",
                of_job("health_error_budget_left_ratio", &[("objective", name)])
            ),
            lasting: "0m",
            severity: "ticket",
            summary: format!("The objective {} is missed", literal(name)),
        });
        for alert in &objective.alerts {
            let window = format!("{}s", alert.long.as_secs());
            let labels = [
                ("objective", name),
                ("severity", alert.severity.as_str()),
                ("window", &window),
            ];
            rules.push(Rule {
                alert: "HealthErrorBudgetBurns",
                expr: format!("{} == 1", of_job("health_burn_alert_firing", &labels)),
                lasting: "0m",
                severity: alert.severity.as_str(),
                summary: format!(
                    "{} % of the error budget of {} have gone within {}, and it still is being spent",
                    alert.budget_spent * 100.0,
                    literal(name),
                    time(alert.long.as_secs())
                ),
            });
        }
    }
    let mut file = format!(
        "groups:\n  - name: {}\n    rules:\n",
        quoted(&format!("health of {job}"))
    );
    for rule in rules {
        // A text of JSON is one of YAML.
        for (before, key, value) in [
            ("      - ", "alert", rule.alert),
            ("        ", "expr", &rule.expr),
            ("        ", "for", rule.lasting),
        ] {
            file += &format!("{before}{key}: {}\n", quoted(value));
        }
        file += &format!(
            "        labels:\n          severity: {}\n",
            quoted(rule.severity)
        );
        file += &format!(
            "        annotations:\n          summary: {}\n          runbook_url: {}\n",
            quoted(&rule.summary),
            quoted(&literal(&format!(
                "{runbook}#{}",
                rule.alert.to_lowercase()
            ))),
        );
    }
    file
}

struct Rule {
    alert: &'static str,
    expr: String,
    lasting: &'static str,
    severity: &'static str,
    summary: String,
}

/// In the quotation marks of JSON, which PromQL and YAML read alike.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// As it is in a template of Prometheus.
fn literal(text: &str) -> String {
    text.replace("{{", "{{ \"{{\" }}")
}

fn time(secs: u64) -> String {
    match secs {
        _ if secs.is_multiple_of(86_400) => format!("{} d", secs / 86_400),
        _ if secs.is_multiple_of(3_600) => format!("{} h", secs / 3_600),
        _ => format!("{} min", secs / 60),
    }
}

/// A dashboard for Grafana, as it imports it from JSON: whether the service is ready, each check over time, error budgets, alerts. It
/// asks for the Prometheus data source when it is imported. `job` as for [`prometheus_rules`].
#[must_use]
pub fn grafana_dashboard(title: &str, job: &str) -> String {
    let source = json!({ "type": "prometheus", "uid": "${DS_PROMETHEUS}" });
    let of_job = format!("{{job={}", quoted(job));
    let words = json!([{
        "type": "value",
        "options": {
            "0": { "text": "no", "color": "red" },
            "1": { "text": "yes", "color": "green" },
        }
    }]);
    let panel =
        |kind: &str, title: &str, place: (u64, u64, u64, u64), targets: Value, defaults: Value| {
            let (x, y, w, h) = place;
            json!({
                "type": kind,
                "title": title,
                "datasource": source,
                "gridPos": { "x": x, "y": y, "w": w, "h": h },
                "targets": targets,
                "fieldConfig": { "defaults": defaults, "overrides": [] },
            })
        };
    let query = |expr: String, legend: &str| json!({ "refId": "A", "datasource": source, "expr": expr, "legendFormat": legend });
    let yes_or_no = |title: &str, metric: &str, x: u64| {
        let targets = json!([query(format!("{metric}{of_job}}}"), "")]);
        panel(
            "stat",
            title,
            (x, 0, 4, 4),
            targets,
            json!({ "mappings": words }),
        )
    };
    // The worst outcome that a check has: 0 passes, 1 warns, 2 is not known, 3 fails.
    let worst: Vec<_> = ["warn", "unknown", "fail"]
        .iter()
        .zip(1..)
        .map(|(outcome, place)| {
            format!(
                "{place} * max by (check) (health_check_outcome{of_job},outcome=\"{outcome}\"}})"
            )
        })
        .collect();
    let outcomes = json!([{
        "type": "value",
        "options": {
            "0": { "text": "pass", "color": "green" },
            "1": { "text": "warn", "color": "yellow" },
            "2": { "text": "unknown", "color": "gray" },
            "3": { "text": "fail", "color": "red" },
        }
    }]);
    let panels = [
        yes_or_no("Ready", "health_ready", 0),
        yes_or_no("Live", "health_live", 4),
        yes_or_no("Started", "health_started", 8),
        panel(
            "stat",
            "Alerts on error budgets",
            (12, 0, 12, 4),
            json!([query(
                format!("sum(health_burn_alert_firing{of_job}}})"),
                ""
            )]),
            json!({ "noValue": "0" }),
        ),
        panel(
            "state-timeline",
            "Checks",
            (0, 4, 24, 10),
            json!([query(worst.join(" + "), "{{check}}")]),
            json!({ "mappings": outcomes, "custom": { "fillOpacity": 80 } }),
        ),
        panel(
            "timeseries",
            "Error budget left",
            (0, 14, 12, 8),
            json!([query(
                format!("health_error_budget_left_ratio{of_job}}}"),
                "{{objective}}"
            )]),
            json!({ "unit": "percentunit", "max": 1 }),
        ),
        panel(
            "timeseries",
            "Service level",
            (12, 14, 12, 8),
            json!([query(
                format!("health_service_level_ratio{of_job}}}"),
                "{{objective}}"
            )]),
            json!({ "unit": "percentunit", "max": 1 }),
        ),
        panel(
            "timeseries",
            "Seconds since a check was last looked at",
            (0, 22, 24, 8),
            json!([query(
                format!("time() - health_check_observed_timestamp_seconds{of_job}}}"),
                "{{check}}"
            )]),
            json!({ "unit": "s" }),
        ),
    ];
    let dashboard = json!({
        "__inputs": [{
            "name": "DS_PROMETHEUS",
            "label": "Prometheus",
            "type": "datasource",
            "pluginId": "prometheus",
            "pluginName": "Prometheus",
        }],
        "title": title,
        "schemaVersion": 39,
        "editable": true,
        "time": { "from": "now-6h", "to": "now" },
        "refresh": "30s",
        "panels": panels,
    });
    format!("{dashboard:#}\n")
}
