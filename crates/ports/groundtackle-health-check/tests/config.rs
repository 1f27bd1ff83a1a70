//! Configs that can't be used say why and where.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use groundtackle_health_check::{Error, HealthConfig};
use groundtackle_health_check_testkit::Scripted;

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Probe {
    passes: bool,
}

const GOOD: &str = r#"
[[checks]]
name = "db"
kind = "readiness"
subsets = ["storage"]
schedule = { period = "5s", timeout = "1s" }
probe = { passes = true }

[[checks]]
name = "api"
kind = "startup"
depends_on = ["db"]
probe = { passes = false }

[[objectives]]
name = "storage"
subset = "storage"
target = 0.999
window = "month"

[[objectives.alerts]]
severity = "page"
budget_spent = 0.02
long = "1h"
short = "5m"

[[maintenances]]
name = "a move"
begins = "2026-12-24T20:00:00Z"
ends = "2026-12-24T22:00:00Z"
checks = ["db"]
"#;

fn read(text: &str) -> Result<HealthConfig<Probe>, Error> {
    HealthConfig::from_toml("health.toml", text)
}

#[test]
fn a_config_becomes_what_it_says() {
    let config = read(GOOD).unwrap();
    let passes: Vec<bool> = config
        .checks
        .iter()
        .map(|check| check.probe.passes)
        .collect();
    assert_eq!(passes, [true, false]);
    let probe = |probe: Probe| {
        if probe.passes {
            Scripted::passing()
        } else {
            Scripted::failing()
        }
    };
    let health = config.into_builder(probe).build().unwrap();
    let order: Vec<_> = health.start_order().map(|name| name.as_str()).collect();
    assert_eq!(order, ["db", "api"]);
    assert_eq!(health.maintenances().len(), 1);
}

#[test]
fn errors_name_file_line_and_key() {
    for (from, to, said) in [
        (
            "subsets",
            "subset",
            "health.toml:5: checks[0].subset: unknown field `subset`",
        ),
        (
            "{ passes = true }",
            "{ pases = true }",
            "health.toml:7: checks[0].probe.pases: unknown field `pases`",
        ),
        (
            "timeout = \"1s\"",
            "timeout = \"6s\"",
            "health.toml:6: checks[0].schedule.period: check \"db\": period (5s) is below the timeout (6s)",
        ),
        (
            "name = \"api\"",
            "name = \"db\"",
            "health.toml:10: checks[1].name: check \"db\" is there twice",
        ),
        (
            "subsets = [\"storage\"]",
            "subsets = [\"storage\"]\ndepends_on = [\"api\"]",
            "health.toml:6: checks[0].depends_on: dependencies go in a circle: \"db\" needs \"api\" needs \"db\"",
        ),
        (
            "depends_on = [\"db\"]",
            "depends_on = [\"nobody\"]",
            "health.toml:12: checks[1].depends_on: check \"api\", depends_on: there is no check \"nobody\"",
        ),
        (
            "kind = \"readiness\"",
            "kind = \"liveness\"",
            "health.toml:4: checks[0].kind: check \"db\": kind is liveness",
        ),
        (
            "subset = \"storage\"",
            "subset = \"other\"",
            "health.toml:17: objectives[0].subset: the set of checks of objective \"storage\" is empty",
        ),
        (
            "target = 0.999",
            "target = 0.9",
            "health.toml:21: objectives[0].alerts: objective \"storage\": an alert at 14.40 times",
        ),
        (
            "target = 0.999",
            "target = 1.0",
            "health.toml:18: objectives[0].target: objective \"storage\": target is 1, and must be above 0 and below 1",
        ),
        (
            "22:00",
            "19:00",
            "health.toml:30: maintenances[0].ends: maintenance \"a move\": ends must be after begins",
        ),
        (
            "period = \"5s\"",
            "period = 5",
            "health.toml:6: checks[0].schedule.period: ",
        ),
        ("target = 0.999", "target = ", "health.toml:18: target: "),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = read(&GOOD.replacen(from, to, 1)).unwrap_err();
        assert!(
            error.to_string().starts_with(said),
            "{error}\n  is not\n{said}"
        );
    }
    let error = read("checks = []").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("health.toml:1: checks: checks is empty; "),
        "{error}"
    );
    let error = read("").unwrap_err();
    assert!(
        error.to_string().contains("missing field `checks`"),
        "{error}"
    );
}
