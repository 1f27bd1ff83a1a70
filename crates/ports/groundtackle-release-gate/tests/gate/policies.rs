//! Policies that ship, and policies that make no sense.

use groundtackle_release_gate::{Error, Gate, Policy, PolicyFormat};

use crate::setting::*;

#[test]
fn the_policies_that_ship_read_and_are_the_same_as_json() {
    for name in ["operations.toml", "two-people.toml", "chain.toml"] {
        let gate = Gate::read(name, &policy_text(name), PolicyFormat::of(name)).unwrap();
        let json = serde_json::to_string_pretty(gate.policy()).unwrap();
        let same = Gate::read("same.json", &json, PolicyFormat::of("same.json")).unwrap();
        assert_eq!(
            (same.policy(), same.policy_digest()),
            (gate.policy(), gate.policy_digest()),
            "{name}"
        );
    }
}

/// What is wrong, in the full example: what is replaced, by what, and the line's text, the key and the detail that the error names.
const WRONG: &[(&str, &str, &str, &str, &str)] = &[
    (
        "permit_for = \"10m\"",
        "permit_fro = \"10m\"",
        "permit_fro",
        "permit_fro",
        "unknown field",
    ),
    (
        "permit_for = \"10m\"",
        "",
        "version",
        "permit_for",
        "missing field",
    ),
    (
        "version = 1",
        "version = 2",
        "version = 2",
        "version",
        "is 2; this version reads 1",
    ),
    (
        "zone = \"Europe/Berlin\"      #",
        "zone = \"Europe/Bonn\" #",
        "Europe/Bonn",
        "zone",
        "there is no zone \"Europe/Bonn\"",
    ),
    (
        "permit_for = \"10m\"",
        "permit_for = \"1 month\"",
        "1 month",
        "permit_for",
        "is no length of time",
    ),
    (
        "{ role = \"release-management\", at_least = 1, max_age = \"2d\" }",
        "{ role = \"release-management\", at_least = 2, max_age = \"2d\" }",
        "at_least = 2, max_age = \"2d\"",
        "environment[2].approvals[1].at_least",
        "more than the 1 people of role",
    ),
    (
        "reviews = { role = \"engineer\", at_least = 2",
        "reviews = { role = \"engineer\", at_least = 6",
        "at_least = 6",
        "environment[2].reviews.at_least",
        "more than the 5 people",
    ),
    (
        "{ role = \"support\", at_least = 1 }",
        "{ role = \"suport\", at_least = 1 }",
        "suport",
        "environment[2].meeting.quorum[1].role",
        "no role \"suport\"",
    ),
    (
        "at_least = 99.0",
        "at_least = 100.1",
        "100.1",
        "budget[0].at_least",
        "can never be kept",
    ),
    (
        "fewer_than = 8",
        "fewer_than = 0",
        "fewer_than = 0",
        "budget[1].fewer_than",
        "can never be kept",
    ),
    (
        "fewer_than = 8",
        "at_least = 9\nfewer_than = 8",
        "at_least = 9",
        "budget[1].at_least",
        "can never be kept",
    ),
    (
        "start = \"wed 17:00\", end = \"sun 00:00\"",
        "days = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]",
        "days = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]",
        "window[1].hours",
        "leaves no time at all",
    ),
    (
        "start = \"wed 17:00\", end = \"sun 00:00\"",
        "start = \"wed 17:00\", end = \"sun 00:00\", from = \"09:00\"",
        "start = \"wed 17:00\"",
        "window[1].hours.start",
        "contradicts",
    ),
    (
        "after = \"staging\"",
        "after = \"production\"",
        "after = \"production\"",
        "environment[2].after",
        "leads back",
    ),
    (
        "people = 2",
        "people = 1",
        "people = 1",
        "override.people",
        "two at least",
    ),
    (
        "passes = [\"windows\"",
        "passes = [\"actor\"",
        "\"actor\"",
        "override.passes",
        "can't be passed",
    ),
    (
        "until = \"2027-01-04T09:00\"",
        "until = \"2026-01-04T09:00\"",
        "2026-01-04",
        "freeze[0].until",
        "no later than",
    ),
    (
        "except = [\"holidays\"]\noverrun",
        "except = [\"hollidays\"]\noverrun",
        "hollidays",
        "window[0].except[0]",
        "no calendar",
    ),
    (
        "people = [\"sam\", \"sue\"]",
        "people = [\"sam\", \"ada\"]",
        "\"ada\"]",
        "shift[0].people",
        "\"ada\" is not in role",
    ),
    (
        "budgets = [\"uptime\"",
        "budgets = [\"up\"",
        "budgets = [\"up\"",
        "environment[2].budgets[0]",
        "no budget \"up\"",
    ),
    (
        "actors = [\"operations\"]\n# At",
        "actors = []\n# At",
        "actors = []",
        "environment[2].actors",
        "nobody could act",
    ),
];

#[test]
fn a_bad_policy_names_file_line_and_key() {
    let good = policy_text("operations.toml");
    for (old, new, marked, wanted_key, wanted_detail) in WRONG {
        assert!(good.contains(old), "{old}");
        let text = good.replacen(old, new, 1);
        let error = Gate::read("policy.toml", &text, PolicyFormat::Toml).expect_err(new);
        let Error::InvalidPolicy {
            file,
            line,
            key,
            detail,
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(
            (file.as_str(), key.as_str()),
            ("policy.toml", *wanted_key),
            "{error}"
        );
        assert!(detail.contains(wanted_detail), "{error}");
        // A key that is missing has no line of its own.
        if !detail.contains("missing") {
            let found = text.lines().nth(line - 1).unwrap();
            assert!(found.contains(marked), "line {line} is {found:?}: {error}");
        }
        assert!(
            error
                .to_string()
                .starts_with(&format!("policy.toml:{line}: {key}: "))
        );
    }
}

#[test]
fn a_bad_json_policy_names_file_line_and_key() {
    let policy = operations().policy().clone();
    let good = serde_json::to_string_pretty(&policy).unwrap();
    for (old, new, wanted_key, wanted_detail) in [
        (
            "\"permit_for\"",
            "\"permit_fro\"",
            "permit_fro",
            "unknown field",
        ),
        (
            "\"name\": \"business hours\"",
            "\"name\": \"business hours\", \"kid\": 1",
            "kid",
            "unknown field",
        ),
        (
            "\"at_least\": 99.0",
            "\"at_least\": 101.0",
            "budget[0].at_least",
            "can never be kept",
        ),
        (
            "\"people\": 2",
            "\"people\": 9",
            "override.people",
            "more than the 3 people",
        ),
    ] {
        let text = good.replacen(old, new, 1);
        let error = Gate::read("policy.json", &text, PolicyFormat::Json).expect_err(new);
        let Error::InvalidPolicy {
            line, key, detail, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(key, wanted_key, "{error}");
        assert!(
            detail.contains(wanted_detail) && text.lines().nth(line - 1).unwrap().contains(new),
            "{error}"
        );
    }
    for (file, text) in [
        ("x.toml", "version = "),
        ("x.json", "{"),
        ("x.json", "[]"),
        ("x.toml", "\u{0}"),
    ] {
        let error = Gate::read(file, text, PolicyFormat::of(file)).unwrap_err();
        assert!(
            matches!(error, Error::InvalidPolicy { line: 1, .. }),
            "{error}"
        );
    }
    let long = " ".repeat((1 << 20) + 1);
    assert!(
        Gate::read("long.toml", &long, PolicyFormat::Toml)
            .unwrap_err()
            .to_string()
            .contains("1 MiB")
    );
}

#[test]
fn a_policy_made_in_code_is_checked_too() {
    let error = Gate::new(Policy::new("empty")).unwrap_err().to_string();
    assert_eq!(
        error,
        "empty:0: environment: is missing; a policy has one at least"
    );
}
