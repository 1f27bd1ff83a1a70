//! Policies that ship, and policies that make no sense.

use groundtackle_release_gate::{
    Error, Evidence, Fact, Gate, Policy, PolicyFormat, Request, Rule, Timestamp, Verdict,
};

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
        "{ role = \"release-management\", at_least = 1,",
        "{ role = \"release-management\", at_least = 2,",
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
        "name = \"olga\"\nkeys = [\"",
        "name = \"olga\"\nkeys = [\"0100000000000000000000000000000000000000000000000000000000000000\", \"",
        "0100000000",
        "person[0].keys",
        "no key of ed25519",
    ),
    (
        "name = \"rita\"\nkeys",
        "name = \"rosa\"\nkeys",
        "rosa",
        "person[3].name",
        "in no role",
    ),
    (
        "role = \"operations\"\npeople = 2",
        "role = \"support\"\npeople = 2",
        "signed = true",
        "override.signed",
        "asks 2 of role \"support\" to sign, and 0 have a key",
    ),
    (
        "form = \"probe\" }",
        "form = \"probe\", signed = true }",
        "disk-headroom",
        "environment[2].checklist[3].signed",
        "a probe is measured",
    ),
    (
        "reviews = { role = \"engineer\", at_least = 2",
        "reviews = { role = \"engineer\", at_least = 2, signed = true",
        "reviews",
        "environment[2].reviews.signed",
        "is for approvals",
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

fn found(at: Timestamp, facts: Vec<Fact>) -> Vec<Evidence> {
    let each = facts
        .into_iter()
        .map(|fact| Evidence::new("test", at, fact));
    each.collect()
}

fn tagged(tag: &str) -> Fact {
    Fact::Artefact {
        artefact: artefact(),
        tag: tag.into(),
        platforms: set(&["linux/amd64", "linux/arm64"]),
    }
}

fn passed(suite: &str) -> Fact {
    Fact::Test {
        suite: suite.into(),
        artefact: artefact(),
        passed: true,
    }
}

fn backed_up(name: &str) -> Vec<Fact> {
    vec![
        Fact::Backup { name: name.into() },
        Fact::Drill {
            name: name.into(),
            passed: true,
        },
    ]
}

#[test]
fn two_people_look_at_what_the_other_made_and_release_nothing_on_a_friday_evening() {
    let gate = shipped("two-people.toml");
    let request = Request {
        tag: "v1.4.0".into(),
        actor: "ann".into(),
        ..request()
    };
    let ask = |reviewer: &str, now: &str| {
        let mut facts = vec![
            tagged("v1.4.0"),
            changes(&["ann"], &[reviewer]),
            passed("all"),
        ];
        facts.extend(backed_up("database"));
        gate.judge(&found(at(now), facts), &request, at(now))
    };
    assert_go(&ask("bob", "2026-11-13T14:59:00Z"));
    assert_eq!(ask("bob", "2026-11-13T15:00:00Z").verdict, Verdict::Hold);
    let alone = ask("ann", "2026-11-13T14:59:00Z");
    assert_eq!(
        (alone.verdict, alone.reasons[0].rule),
        (Verdict::NoGo, Rule::Reviews)
    );
}

#[test]
fn a_chain_release_goes_from_dev_over_qa_and_the_test_net_to_main_net_and_leaves_nothing_out() {
    let gate = shipped("chain.toml");
    let now = at("2026-11-10T11:00:00Z");
    let way = ["dev", "qa", "test-net", "main-net"];
    for (n, environment) in way.into_iter().enumerate() {
        let request = Request {
            environment: environment.into(),
            ..request()
        };
        let mut facts = vec![
            tagged("1.4.0"),
            changes(&["ada"], &["ben", "cleo"]),
            passed("regression"),
            passed("replay-of-main-net"),
            Fact::Approval {
                artefact: artefact(),
                environment: environment.into(),
                by: "omar".into(),
            },
            incidents(&[]),
        ];
        facts.extend(backed_up("utxo"));
        for place in &way[..n] {
            facts.push(Fact::Blockers {
                artefact: artefact(),
                environment: (*place).into(),
                open: set(&[]),
                last_closed_at: None,
            });
        }
        for place in ["test-net", "main-net"] {
            let values = [("consensus-rules", "7"), ("database", "17.2")];
            let values = values
                .map(|(key, value)| (String::from(key), String::from(value)))
                .into();
            facts.push(Fact::Settings {
                environment: place.into(),
                values,
            });
        }
        let mut evidence = found(now, facts);
        let before = way.get(n.wrapping_sub(1)).copied();
        // Without having been in the environment before, no further.
        let skipped = gate.judge(&evidence, &request, now);
        assert_eq!(
            skipped.verdict == Verdict::Go,
            before.is_none(),
            "{environment}"
        );
        if let Some(before) = before {
            evidence.extend(found(
                at("2026-11-03T11:00:00Z"),
                vec![deployment(before, true)],
            ));
        }
        assert_go(&gate.judge(&evidence, &request, now));
    }
}

#[test]
fn only_final_tested_products_reach_main_net() {
    let gate = shipped("chain.toml");
    let now = at("2026-11-10T11:00:00Z");
    let reasons = |tag: &str, suites: &[(&str, bool)]| {
        let request = Request {
            environment: "main-net".into(),
            tag: tag.into(),
            ..request()
        };
        let mut facts = vec![tagged(tag)];
        facts.extend(suites.iter().map(|(suite, passed)| Fact::Test {
            suite: (*suite).into(),
            artefact: artefact(),
            passed: *passed,
        }));
        let decision = gate.judge(&found(now, facts), &request, now);
        let about = |rule| {
            let reasons = decision.reasons.iter();
            reasons.filter(|reason| reason.rule == rule).count()
        };
        (about(Rule::Tag), about(Rule::Tests))
    };
    let passed = [("regression", true), ("replay-of-main-net", true)];
    assert_eq!(reasons("1.4.0", &passed), (0, 0));
    assert_eq!(reasons("1.4.0-rc.2", &passed), (1, 0));
    assert_eq!(reasons("v1.4.0", &passed), (1, 0));
    assert_eq!(
        reasons(
            "1.4.0",
            &[("regression", true), ("replay-of-main-net", false)]
        ),
        (0, 1)
    );
    assert_eq!(reasons("1.4.0", &passed[..1]), (0, 1));
}

#[test]
fn no_two_people_share_a_key() {
    let mut policy = operations().policy().clone();
    policy.people[2].keys.insert(key_of("olga").public());
    let error = Gate::new(policy).unwrap_err().to_string();
    assert!(
        error.contains("person[2].keys") && error.contains("is \"olga\"'s already"),
        "{error}"
    );
}
