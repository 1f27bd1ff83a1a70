//! Of a log that the port wrote, with answers that were computed by hand.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use groundtackle_release_gate::{
    Action, Deployed, Digest, Entry, Head, Incident, Severity, Signer, Timestamp,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const OCTOBER: [&str; 4] = [
    "--from",
    "2025-10-01T00:00:00Z",
    "--until",
    "2025-11-01T00:00:00Z",
];

fn signer() -> Signer {
    Signer::from_seed(&[7; 32])
}

fn at(text: &str) -> Timestamp {
    format!("2025-{text}:00Z").parse().unwrap()
}

fn deployed(
    name: &str,
    environment: &str,
    finished_at: &str,
    succeeded: bool,
    changed_at: &[&str],
) -> Deployed {
    Deployed {
        decision: Digest::of(name.as_bytes()),
        artefact: Digest::of(b"the image"),
        environment: environment.into(),
        action: Action::Deploy,
        finished_at: at(finished_at),
        succeeded,
        changed_at: changed_at.iter().map(|time| at(time)).collect(),
        repairs: None,
    }
}

fn repairing(failed: &str, action: Action, deployed: Deployed) -> Deployed {
    Deployed {
        action,
        repairs: Some(Digest::of(failed.as_bytes())),
        ..deployed
    }
}

fn incident(id: &str, severity: Severity, opened: &str, resolved: Option<&str>) -> Entry {
    let mut incident = Incident::open(id, "blocks come late", severity, at(opened));
    incident.resolved_at = resolved.map(at);
    Entry::Incident { incident }
}

/// A quarter of a log, in the order in which it was written.
fn entries() -> Vec<(&'static str, Entry)> {
    let of = |deployment| Entry::Deployed { deployment };
    let fix = deployed("3", "production", "10-09T14:00", true, &["10-09T12:00"]);
    let back = deployed("5", "production", "10-20T10:30", true, &[]);
    vec![
        (
            "09-30T10:00",
            of(deployed(
                "0",
                "production",
                "09-30T10:00",
                false,
                &["09-29T10:00"],
            )),
        ),
        (
            "09-30T11:00",
            incident(
                "INC-0",
                Severity::Critical,
                "09-30T10:00",
                Some("09-30T11:00"),
            ),
        ),
        (
            "10-02T12:00",
            of(deployed(
                "1",
                "production",
                "10-02T12:00",
                true,
                &["10-01T12:00", "10-02T06:00"],
            )),
        ),
        (
            "10-03T12:00",
            of(deployed(
                "s",
                "staging",
                "10-03T12:00",
                true,
                &["10-03T11:00"],
            )),
        ),
        // It says no change, and was bad.
        (
            "10-09T10:00",
            of(deployed("2", "production", "10-09T10:00", true, &[])),
        ),
        (
            "10-09T11:00",
            incident("INC-1", Severity::Critical, "10-09T11:00", None),
        ),
        ("10-09T14:00", of(repairing("2", Action::Deploy, fix))),
        (
            "10-09T14:10",
            incident(
                "INC-1",
                Severity::Critical,
                "10-09T11:00",
                Some("10-09T14:00"),
            ),
        ),
        (
            "10-20T10:00",
            of(deployed(
                "4",
                "production",
                "10-20T10:00",
                false,
                &["10-19T10:00"],
            )),
        ),
        ("10-20T10:30", of(repairing("4", Action::Rollback, back))),
        (
            "10-20T10:40",
            incident("INC-2", Severity::Minor, "10-20T10:00", Some("10-20T10:30")),
        ),
        (
            "10-30T23:00",
            of(deployed("6", "production", "10-30T23:00", false, &[])),
        ),
        (
            "10-31T08:00",
            incident("INC-3", Severity::Major, "10-31T08:00", None),
        ),
    ]
}

struct Log {
    folder: TempDir,
}

impl Log {
    fn write(entries: Vec<(&str, Entry)>) -> Self {
        let log = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let (mut bytes, mut head) = (Vec::new(), Head::EMPTY);
        for (time, entry) in entries {
            let (line, next) = head.append(entry, at(time), &signer()).unwrap();
            bytes.extend(line);
            head = next;
        }
        fs::write(log.path(), bytes).unwrap();
        fs::write(
            log.path().with_extension("log.head"),
            head.seal(&signer()).unwrap(),
        )
        .unwrap();
        log
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("gate.log")
    }

    fn report(&self, environment: &str, more: &[&str]) -> (Option<i32>, String) {
        let ran = Command::new(env!("CARGO_BIN_EXE_dora-report"))
            .arg(self.path())
            .args([
                "--trust",
                &signer().public().to_string(),
                "--environment",
                environment,
            ])
            .args(more)
            .output()
            .unwrap();
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.code(), String::from_utf8(said).unwrap())
    }

    fn json(&self, environment: &str, window: &[&str]) -> Value {
        let (code, said) = self.report(environment, &[window, &["--json"]].concat());
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str(&said).unwrap()
    }
}

/// Value, known and unknown of each figure.
fn figures(report: &Value) -> Vec<(&str, Value, Value, Value)> {
    let figures = report["figures"].as_array().unwrap().iter();
    let figures = figures.map(|of| {
        assert!(of["definition"].as_str().unwrap().len() > 20);
        (
            of["name"].as_str().unwrap(),
            of["value"].clone(),
            of["samples"].clone(),
            of["unknown"].clone(),
        )
    });
    figures.collect()
}

#[test]
fn a_month_has_the_figures_that_were_computed_by_hand() {
    let log = Log::write(entries());
    let report = log.json("production", &OCTOBER);
    assert_eq!(report["known_from"], "2025-10-01T00:00:00Z");
    assert_eq!(report["log"]["records"], 13);
    assert_eq!(
        figures(&report),
        [
            // 1, 2, 3, 4 and 6, in 31 days.
            (
                "deployment frequency",
                json!(5.0 / 31.0),
                json!(5),
                json!(0)
            ),
            // 24 h and 6 h of the first, 2 h of the third; the second says none.
            (
                "lead time for changes",
                json!(6.0 * 3600.0),
                json!(3),
                json!(1)
            ),
            // 2, which was repaired, 4 and 6.
            ("change failure rate", json!(0.6), json!(5), json!(0)),
            // 4 h by the third, half an hour by the rollback; 6 was not made good.
            (
                "failed deployment recovery time",
                json!(1800.0),
                json!(2),
                json!(1)
            ),
            // 3 h and half an hour; one goes on.
            ("time to restore", json!(1800.0), json!(2), json!(1)),
        ]
    );
    assert_eq!(
        report["incidents"],
        json!({ "critical": 1, "major": 1, "minor": 1 })
    );
    let (_, said) = log.report("production", &OCTOBER);
    for words in [
        "deployment frequency: 0.161 a day\n  5 known, 0 unknown, of deployments\n",
        "lead time for changes: 6.0 h\n  3 known, 1 unknown, of changes",
        "change failure rate: 60.0 %\n",
        "failed deployment recovery time: 0.5 h\n  2 known, 1 unknown, ",
        "time to restore: 0.5 h\n",
    ] {
        assert!(said.contains(words), "{words:?}: {said}");
    }
}

#[test]
fn what_is_not_known_is_no_zero() {
    let log = Log::write(entries());
    let nothing = |value| ("deployment frequency", value, json!(0), json!(0));
    // The log was kept, and nothing was deployed: that is known.
    let none = log.json("test-net", &OCTOBER);
    assert_eq!(figures(&none)[0], nothing(json!(0.0)));
    for figure in &figures(&none)[1..4] {
        assert_eq!(
            (&figure.1, &figure.2),
            (&Value::Null, &json!(0)),
            "{figure:?}"
        );
    }
    // Before the log nothing is known, not even that.
    let before = [
        "--from",
        "2025-08-01T00:00:00Z",
        "--until",
        "2025-09-01T00:00:00Z",
    ];
    let unknown = log.json("production", &before);
    assert_eq!(
        (&unknown["known_from"], figures(&unknown)[0].clone()),
        (&Value::Null, nothing(Value::Null))
    );
    assert!(
        log.report("production", &before)
            .1
            .contains("the log says nothing of this time")
    );
    // Where it begins within, the time before does not count as one without deployments: one in the two days from 30 September, 10:00, on.
    let partly = [
        "--from",
        "2025-09-01T00:00:00Z",
        "--until",
        "2025-10-02T10:00:00Z",
    ];
    let partly = log.json("production", &partly);
    assert_eq!(partly["known_from"], "2025-09-30T10:00:00Z");
    assert_eq!(figures(&partly)[0].1, json!(0.5));
    let empty = Log::write(Vec::new());
    assert_eq!(
        figures(&empty.json("production", &OCTOBER))[0],
        nothing(Value::Null)
    );
}

#[test]
fn a_log_that_is_not_what_was_written_gives_no_report() {
    let log = Log::write(entries());
    let right = fs::read(log.path()).unwrap();
    let lines: Vec<_> = right.split_inclusive(|byte| *byte == b'\n').collect();
    let mut changed = right.clone();
    changed[lines[0].len() + 40] ^= 1;
    for (what, bytes) in [
        ("changed", changed),
        ("without the last record", lines[..12].concat()),
        (
            "without the second one",
            [&lines[..1], &lines[2..]].concat().concat(),
        ),
        (
            "in another order",
            [&lines[1..2], &lines[..1], &lines[2..]].concat().concat(),
        ),
        ("empty", Vec::new()),
    ] {
        fs::write(log.path(), bytes).unwrap();
        let (code, said) = log.report("production", &OCTOBER);
        assert_eq!(code, Some(1), "{what}: {said}");
        assert!(
            said.contains("record") && !said.contains("frequency"),
            "{what}: {said}"
        );
    }
    fs::write(log.path(), &right).unwrap();
    assert_eq!(log.report("production", &OCTOBER).0, Some(0));
    // Somebody wrote an older head beside a log that was cut short; the copy that was kept elsewhere shows it.
    let head = log.path().with_extension("log.head");
    let kept = log.folder.path().join("kept.head");
    fs::rename(&head, &kept).unwrap();
    assert_eq!(
        log.report("production", &OCTOBER).0,
        Some(1),
        "there is no head"
    );
    fs::write(log.path(), b"").unwrap();
    fs::write(&head, Head::EMPTY.seal(&signer()).unwrap()).unwrap();
    assert_eq!(log.report("production", &OCTOBER).0, Some(0));
    let kept = [&OCTOBER[..], &["--head", kept.to_str().unwrap()]].concat();
    assert_eq!(log.report("production", &kept).0, Some(1));
}

#[test]
fn a_time_that_cannot_be_is_refused() {
    let log = Log::write(entries());
    let backwards = ["--from", OCTOBER[3], "--until", OCTOBER[1]];
    let (code, said) = log.report("production", &backwards);
    assert!(code == Some(2) && said.contains("no later than"), "{said}");
    let to_come = ["--from", OCTOBER[1], "--until", "2999-01-01T00:00:00Z"];
    let (code, said) = log.report("production", &to_come);
    assert!(code == Some(2) && said.contains("yet to come"), "{said}");
}
