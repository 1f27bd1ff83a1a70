//! Prometheus's text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write as _;

use groundtackle_health_check::{Outcome, View};

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Into a text it can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let before = if i == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{}\"", escaped(text));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

const fn bit(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

pub(crate) fn exposition(view: &View, runs: u64) -> String {
    let mut text = Text(String::with_capacity(
        view.readings.len().saturating_mul(512),
    ));
    for (name, help, up) in [
        (
            "health_live",
            "Whether the process need not be restarted.",
            view.liveness.outcome != Outcome::Fail,
        ),
        (
            "health_ready",
            "Whether the service can do its work.",
            view.readiness.outcome.is_up(),
        ),
        (
            "health_started",
            "Whether the service has started.",
            view.startup.outcome.is_up(),
        ),
    ] {
        text.family(name, "gauge", help);
        text.line(name, &[], bit(up));
    }
    text.family(
        "health_check_runs_total",
        "counter",
        "Runs of checks that have begun.",
    );
    text.line("health_check_runs_total", &[], runs as f64);
    text.family(
        "health_check_outcome",
        "gauge",
        "1 for what the check reads, 0 for the other outcomes.",
    );
    for reading in &view.readings {
        for outcome in Outcome::ALL {
            let labels = [
                ("check", reading.name.as_str()),
                ("kind", reading.kind.as_str()),
                ("outcome", outcome.as_str()),
            ];
            text.line(
                "health_check_outcome",
                &labels,
                bit(reading.outcome == outcome),
            );
        }
    }
    text.family(
        "health_check_observed_timestamp_seconds",
        "gauge",
        "When the check was last looked at.",
    );
    for reading in &view.readings {
        if let Some(millis) = reading.observed_unix_millis {
            let name = "health_check_observed_timestamp_seconds";
            text.line(
                name,
                &[("check", reading.name.as_str())],
                millis as f64 / 1000.0,
            );
        }
    }
    text.family(
        "health_service_level_ratio",
        "gauge",
        "The good part of what was measured in the objective's window.",
    );
    for level in view.service_levels.iter() {
        if let Some(ratio) = level.level {
            text.line(
                "health_service_level_ratio",
                &[("objective", level.objective.as_str())],
                ratio,
            );
        }
    }
    text.family(
        "health_error_budget_left_ratio",
        "gauge",
        "The part of the error budget that is left; below 0 the objective is missed.",
    );
    for level in view.service_levels.iter().filter(|level| level.budget > 0) {
        let left = level.budget_left as f64 / level.budget as f64;
        text.line(
            "health_error_budget_left_ratio",
            &[("objective", level.objective.as_str())],
            left,
        );
    }
    text.family(
        "health_burn_alert_firing",
        "gauge",
        "Whether a burn-rate alert fires.",
    );
    for level in view.service_levels.iter() {
        for alert in &level.alerts {
            let window = format!("{}s", alert.long_secs);
            let labels = [
                ("objective", level.objective.as_str()),
                ("severity", alert.severity.as_str()),
                ("window", &window),
            ];
            text.line("health_burn_alert_firing", &labels, bit(alert.firing));
        }
    }
    text.0
}
