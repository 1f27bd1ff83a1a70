//! `ops gate`: answers by exit code, and a log that outlives kill -9 and shows what was done to it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod support;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use groundtackle_release_gate::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use support::{Ran, Random, command, number, ops};

const ARTEFACT: &str = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

struct Team {
    folder: TempDir,
}

impl Team {
    /// Keys of olga, omar and the log, and a policy by which two who made no change approve, signed.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let team = Self { folder };
        let public = |name: &str| {
            let key = team.path(name);
            let ran = ops(&["gate", "key", "--out", key.to_str().unwrap()]).exits(0);
            ran.stdout.trim().to_owned()
        };
        let (olga, omar, signer) = (public("olga"), public("omar"), public("signer"));
        team.write("signer.pub", &signer);
        let policy = format!(
            r#"version = 1
name = "team"
zone = "UTC"
max_age = "1h"
permit_for = "10m"

[[role]]
name = "operations"
members = ["olga", "omar", "otto"]

[[person]]
name = "olga"
keys = ["{olga}"]

[[person]]
name = "omar"
keys = ["{omar}"]

[[environment]]
name = "production"
actors = ["operations"]
approvals = [{{ role = "operations", at_least = 2, signed = true }}]
checklist = [
    {{ id = "announced", list = "operations", owner = "operations", form = "statement", signed = true }},
    {{ id = "notes", list = "operations", owner = "operations", form = "document", signed = true }},
]

[[budget]]
name = "overrides"
unit = "count"
fewer_than = 3

[override]
role = "operations"
people = 2
severities = ["critical"]
passes = ["freezes"]
max_age = "4h"
budget = "overrides"
signed = true
"#
        );
        team.write("policy.toml", &policy);
        let now = Timestamp::now();
        let found = |fact: Value| json!({ "source": "test", "observed_at": now, "fact": fact });
        let changes = json!([{ "id": "#1", "authors": ["ada"], "reviewers": [] }]);
        let evidence = json!([
            found(json!({ "kind": "changes", "artefact": ARTEFACT, "changes": changes })),
            found(
                json!({ "kind": "measure", "name": "overrides", "value": 0.0, "since": "2020-01-01T00:00:00Z" })
            ),
        ]);
        team.write("evidence.json", &evidence.to_string());
        team
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Words that begin with @ are files of the folder.
    fn words(&self, words: &str) -> Vec<String> {
        let one = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.path(name).to_str().unwrap().to_owned(),
            None => word.to_owned(),
        };
        words.split_whitespace().map(one).collect()
    }

    fn gate(&self, words: &str) -> Ran {
        ops(&self.words(&format!("gate {words}")))
    }

    fn ask(&self, how: &str, more: &str) -> Ran {
        self.gate(&format!(
            "{how} --policy @policy.toml --artefact {ARTEFACT} --tag 1.4.0 --environment production --actor olga --evidence @evidence.json {more}"
        ))
    }

    /// What somebody says, in the log.
    fn say(&self, what: &str, by: &str, more: &str) -> Ran {
        self.gate(&format!(
            "{what} --policy @policy.toml --artefact {ARTEFACT} --by {by} --key @{by} --log @log --signer @signer {more}"
        ))
    }

    fn approve(&self) {
        for by in ["olga", "omar"] {
            self.say("approve", by, "--environment production").exits(0);
        }
    }

    /// All that the policy asks.
    fn agree(&self) {
        self.approve();
        // As it is, and no text.
        fs::write(self.path("notes.pdf"), b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n").unwrap();
        self.say("tick", "olga", "--item announced").exits(0);
        self.say("tick", "olga", "--item notes --document @notes.pdf")
            .exits(0);
    }

    fn verify(&self) -> Ran {
        let signer = self.text("signer.pub");
        self.gate(&format!("verify --json --log @log --trust {signer}"))
    }

    fn records(&self) -> u64 {
        self.verify().exits(0).answer()["records"].as_u64().unwrap()
    }
}

#[test]
fn from_approval_to_deployment_minutes_and_figures() {
    let team = Team::new();
    let logged = "--log @log --signer @signer";
    let no = team
        .ask("check", &format!("{logged} --permit @permit"))
        .exits(1);
    assert!(
        no.stdout
            .starts_with("no-go: deploy of artefact 1.4.0 to production by olga\n"),
        "{no:?}"
    );
    assert!(!team.path("permit").exists());
    team.agree();
    let go = team
        .ask("check", &format!("--json {logged} --permit @permit"))
        .exits(0)
        .answer();
    assert_eq!(go["verdict"], "go");
    assert!(team.text("permit").contains("payload"));
    // No permit is replaced, since it may be under way.
    team.ask("check", &format!("{logged} --permit @permit"))
        .exits(73)
        .says(&["is not replaced"]);

    team.gate("deployed --log @log --signer @signer --record 0")
        .exits(64)
        .says(&["record 0 says no-go"]);
    team.gate("deployed --log @log --signer @signer --record 99")
        .exits(66);
    team.gate("deployed --log @log --signer @signer --record 5 --changed-at 2026-11-09T10:00:00Z")
        .exits(0);
    team.gate("deployed --log @log --signer @signer --record 5")
        .exits(64)
        .says(&["in the log already"]);

    let signer = team.text("signer.pub");
    let reading = format!("--log @log --trust {signer}");
    let minutes = team
        .gate(&format!("minutes {reading} --record 5"))
        .exits(0)
        .stdout;
    assert!(
        minutes.starts_with("# deploy of artefact 1\\.4\\.0 to production: go")
            || minutes.starts_with("# deploy of artefact 1.4.0 to production: go"),
        "{minutes}"
    );
    assert!(
        minutes.contains("olga, at") && minutes.contains("omar, at"),
        "{minutes}"
    );
    let page = team
        .gate(&format!("minutes {reading} --html"))
        .exits(0)
        .stdout;
    assert!(page.starts_with("<!doctype html>"), "{page}");
    team.gate(&format!("minutes {reading} --record 1"))
        .exits(66);

    let figures =
        "--environment production --from 2026-01-01T00:00:00Z --until 2100-01-01T00:00:00Z";
    let replayed = team
        .gate(&format!(
            "replay --json --policy @policy.toml {reading} {figures}"
        ))
        .exits(0);
    let sum = replayed.answer();
    assert_eq!(
        (&sum["decisions"], &sum["differ"], &sum["go_before"]),
        (&json!(3), &json!(0), &json!(2)),
        "{sum}"
    );
    assert_eq!(sum["dora"]["deployments"], 1, "{sum}");
    // By a policy under which olga may not act.
    let strict = team
        .text("policy.toml")
        .replace("actors = [\"operations\"]", "actors = [\"others\"]")
        + "\n[[role]]\nname = \"others\"\nmembers = [\"otto\"]\n";
    team.write("strict.toml", &strict);
    let sum = team
        .gate(&format!("replay --json --policy @strict.toml {reading}"))
        .exits(0)
        .answer();
    assert_eq!(
        (&sum["differ"], &sum["go_by_this_policy"]),
        (&json!(2), &json!(0)),
        "{sum}"
    );
    assert_eq!(team.records(), 8);
}

#[test]
fn each_answer_has_its_exit_code_and_none_is_an_error() {
    let team = Team::new();
    let read = format!("--log @log --trust {}", team.text("signer.pub"));
    team.ask("why", "").exits(1);
    team.approve();
    team.ask("why", &read).exits(3);
    team.agree();
    team.ask("why", &read).exits(0);
    team.ask("when", &read).exits(0);
    let stranger = team.words(&format!(
        "gate why --policy @policy.toml --artefact {ARTEFACT} --tag 1.4.0 --environment production --actor mallory --evidence @evidence.json {read}"
    ));
    ops(&stranger).exits(1);

    let frozen = team.text("policy.toml")
        + "\n[[freeze]]\nname = \"until 2100\"\nzone = \"UTC\"\nfrom = \"2020-01-01T00:00\"\nuntil = \"2100-01-01T00:00\"\n";
    team.write("policy.toml", &frozen);
    team.ask("check", "--log @log --signer @signer").exits(2);
    team.ask("when", &read).exits(2);
    // One is not enough; the other says so on another day, perhaps on another machine.
    let need =
        "--environment production --incident INC-7 --severity critical --reason lost-outputs";
    team.say("override", "olga", need).exits(0);
    let held = team.ask("why", &format!("--json {read}")).exits(2).answer();
    assert!(
        held["warnings"][0].as_str().unwrap().contains("1 count"),
        "{held}"
    );
    team.say("override", "omar", need).exits(0);
    let go = team
        .ask("check", "--json --log @log --signer @signer")
        .exits(0)
        .answer();
    assert_eq!(go["obligations"][0]["incident"], "INC-7", "{go}");
    assert_eq!(go["passed"][0]["reason"]["rule"], "freezes", "{go}");

    // Errors are 64 and above, whatever they are.
    for (words, code) in [
        ("gate", 64),
        ("gate check", 64),
        ("gate check --moon", 64),
        ("--json gate why --policy", 64),
        (
            "gate approve --policy @policy.toml --artefact sha256:1 --by olga --key @olga --environment production",
            64,
        ),
    ] {
        ops(&team.words(words)).exits(code);
    }
    team.gate("--help").exits(0);
    team.ask("why", "--log @log").exits(64);
    team.ask("check", "--permit @permit").exits(64);
    team.ask("why", "--evidence @missing.json").exits(66);
    team.write("broken.json", "[{\"source\": \"x\"}]");
    team.ask("why", "--evidence @broken.json")
        .exits(65)
        .says(&["broken.json", "no list of evidence"]);
    team.ask(
        "why",
        &format!("--log @missing --trust {}", team.text("signer.pub")),
    )
    .exits(66);
    let bad = team
        .text("policy.toml")
        .replace("at_least = 2", "at_least = 4");
    team.write("policy.toml", &bad);
    team.ask("why", "").exits(65).says(&[
        "policy.toml:22: environment[0].approvals[0].at_least: is 4, more than the 3 people",
    ]);
}

/// "Each override opens an incident."
#[test]
fn an_override_opens_its_incident_in_the_log_once() {
    let team = Team::new();
    team.agree();
    let frozen = team.text("policy.toml")
        + "\n[[freeze]]\nname = \"until 2100\"\nzone = \"UTC\"\nfrom = \"2020-01-01T00:00\"\nuntil = \"2100-01-01T00:00\"\n";
    team.write("policy.toml", &frozen);
    let logged = "--log @log --signer @signer";
    team.ask("check", logged).exits(2);
    let held = team.records();
    for by in ["olga", "omar"] {
        let need =
            "--environment production --incident INC-7 --severity critical --reason lost-outputs";
        team.say("override", by, need).exits(0);
    }
    // Why is no check: nothing goes out by it.
    let read = format!("--log @log --trust {}", team.text("signer.pub"));
    team.ask("why", &read).exits(0);
    assert_eq!(team.records(), held + 2);
    team.ask("check", logged).exits(0);
    assert_eq!(team.records(), held + 4, "the answer and the incident");
    team.ask("check", logged).exits(0);
    assert_eq!(team.records(), held + 5, "it is open already");
    let key = team.text("signer.pub").parse().unwrap();
    let log = fs::read(team.path("log")).unwrap();
    let incidents: Vec<_> = groundtackle_release_gate::verify(&log, &[key], None)
        .unwrap()
        .records
        .into_iter()
        .filter_map(|record| match record.entry {
            groundtackle_release_gate::Entry::Incident { incident } => Some(incident),
            _ => None,
        })
        .collect();
    let [incident] = &incidents[..] else {
        panic!("{incidents:?}")
    };
    assert_eq!(incident.id, "INC-7");
    assert_eq!(
        incident.severity,
        groundtackle_release_gate::Severity::Critical
    );
    assert!(incident.timeline[0].what.contains("lost-outputs"));
}

#[test]
fn readme_and_help_tell_the_same_exit_codes() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let commands = [
        "check", "why", "when", "replay", "verify", "minutes", "approve", "tick", "override",
        "deployed", "key",
    ];
    for command in commands {
        let help = ops(&["gate", command, "--help"]).exits(0).stdout;
        let table = &help[help.find("Exit codes:").unwrap()..];
        assert!(readme.contains(table), "README.md must have:\n{table}");
        assert!(readme.contains(&format!("`{command}`")), "{command}");
    }
}

#[test]
fn nobody_signs_for_somebody_else() {
    let team = Team::new();
    let more = "--environment production";
    team.gate(&format!(
        "approve --policy @policy.toml --artefact {ARTEFACT} --by omar --key @olga {more}"
    ))
    .exits(65)
    .says(&["it is not the key that the policy has of \"omar\""]);
    team.gate(&format!(
        "approve --policy @policy.toml --artefact {ARTEFACT} --by otto --key @olga {more}"
    ))
    .exits(64)
    .says(&["no key of \"otto\""]);
    team.say("approve", "olga", "--environment moon").exits(64);
    team.say("tick", "olga", "--item moon").exits(64);
    team.say("tick", "olga", "--item notes").exits(64);
    // Without a log it is for whoever collects evidence.
    let passed_on = team
        .gate(&format!(
            "approve --policy @policy.toml --artefact {ARTEFACT} --by omar --key @omar {more}"
        ))
        .exits(0);
    team.write("approval.json", &passed_on.stdout);
    let said = team
        .ask("why", "--json --evidence @approval.json")
        .exits(1)
        .answer();
    let approvals = said["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .find(|reason| reason["rule"] == "approvals")
        .unwrap();
    assert!(
        approvals["detail"]
            .as_str()
            .unwrap()
            .starts_with("1 of role"),
        "{said}"
    );
    let forged = passed_on
        .stdout
        .replace("\"by\":\"omar\"", "\"by\":\"olga\"");
    assert_ne!(forged, passed_on.stdout);
    team.write("approval.json", &forged);
    let said = team
        .ask("why", "--json --evidence @approval.json")
        .exits(1)
        .answer();
    let approvals = said["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .find(|reason| reason["rule"] == "approvals")
        .unwrap();
    assert!(
        approvals["detail"]
            .as_str()
            .unwrap()
            .contains("1 more are not signed"),
        "{said}"
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(team.path("olga"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    team.gate("key --out @olga").exits(73);
}

#[test]
fn what_was_done_to_the_log_is_found() {
    let team = Team::new();
    team.agree();
    let (log, head) = (team.text("log"), team.text("log.head"));
    assert_eq!(team.records(), 4);
    let kept = head.clone();
    team.write("kept", &kept);

    // Cut off, and the head wound back by who has no key.
    let lines: Vec<_> = log.split_inclusive('\n').collect();
    team.write("log", &lines[..3].concat());
    team.verify().exits(65).says(&["4 records"]);
    team.say("approve", "olga", "--environment production")
        .exits(65);
    team.write("log", &[lines[0], lines[2], lines[1], lines[3]].concat());
    team.verify().exits(65).says(&["record 1"]);
    let mut changed = log.clone().into_bytes();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(team.path("log"), changed).unwrap();
    team.verify().exits(65);
    team.write("log", &log);
    fs::remove_file(team.path("log.head")).unwrap();
    team.verify().exits(69).says(&["put the head's copy back"]);
    team.say("approve", "olga", "--environment production")
        .exits(69);
    team.write("log.head", &head);
    let other = team.gate("key --out @other").exits(0).stdout;
    team.gate(&format!("verify --log @log --trust {other}"))
        .exits(69)
        .says(&["--trust"]);

    // By somebody with the key: the copy of the head that was kept elsewhere shows it.
    fs::remove_file(team.path("log")).unwrap();
    fs::remove_file(team.path("log.head")).unwrap();
    team.say("approve", "olga", "--environment production")
        .exits(0);
    team.verify().exits(0);
    let signer = team.text("signer.pub");
    team.gate(&format!("verify --log @log --head @kept --trust {signer}"))
        .exits(65)
        .says(&["the head says that there are 4 records"]);
}

/// As a machine leaves it that loses power: whatever of the last line is there, the log verifies and takes the next record.
#[test]
fn a_record_that_was_cut_short_anywhere_is_taken_off() {
    let team = Team::new();
    let approve = || team.say("approve", "olga", "--environment production");
    approve().exits(0);
    let (one, head) = (team.text("log"), team.text("log.head"));
    approve().exits(0);
    let two = team.text("log");
    let last = two.len() - one.len();
    for cut in (0..last).step_by(last / 24).chain([last - 1]) {
        team.write("log", &two[..one.len() + cut]);
        team.write("log.head", &head);
        assert_eq!(team.records(), 1, "{cut}");
        let ran = approve().exits(0);
        if cut > 0 {
            ran.says(&["a crash cut short"]);
        }
        assert_eq!(team.records(), 2, "{cut}");
    }
    // The line was whole, and the head not yet written.
    team.write("log", &two);
    team.write("log.head", &head);
    assert_eq!(team.records(), 2);
    approve().exits(0);
    assert_eq!(team.records(), 3);
}

#[test]
fn a_log_takes_the_records_of_all_who_write_at_once() {
    let team = Team::new();
    let writers = 8;
    thread::scope(|scope| {
        for n in 0..writers {
            let by = ["olga", "omar"][n % 2];
            let team = &team;
            scope.spawn(move || team.say("approve", by, "--environment production").exits(0));
        }
    });
    assert_eq!(team.records(), writers as u64);
}

/// `GROUNDTACKLE_TEST_KILLS` says how often. What was acknowledged is there, the log verifies, and it takes the next record.
#[test]
fn kill_9_at_any_time_leaves_a_log_that_verifies_and_takes_the_next_record() {
    let team = Team::new();
    let mut random = Random::new(8);
    let kills = number("GROUNDTACKLE_TEST_KILLS", 20);
    // A record of some MiB takes time to be written.
    let evidence: Value = serde_json::from_str(&team.text("evidence.json")).unwrap();
    let pages: Vec<_> = (0..8_000)
        .map(|n| json!({ "source": format!("page {n} {}", "x".repeat(100)), "observed_at": "2026-01-01T00:00:00Z", "fact": { "kind": "backup", "name": "utxo" } }))
        .chain(evidence.as_array().unwrap().clone())
        .collect();
    team.write("evidence.json", &Value::from(pages).to_string());
    let ask = format!(
        "gate check --policy @policy.toml --artefact {ARTEFACT} --tag 1.4.0 --environment production --actor olga --evidence @evidence.json --log @log --signer @signer"
    );
    let begin = std::time::Instant::now();
    ops(&team.words(&ask)).exits(1);
    let usual = begin.elapsed().as_micros() as u64;
    let mut acknowledged = 1;
    let (mut ended, mut torn, mut half) = (0, 0, 0);
    for kill in 0..kills {
        let mut child = command(&team.words(&ask)).spawn().unwrap();
        // At any time, or as the line is being written, or right after.
        if kill % 2 == 0 {
            thread::sleep(Duration::from_micros(random.below(usual + usual / 4)));
        } else {
            let length = || fs::metadata(team.path("log")).unwrap().len();
            let before = length();
            while length() == before && child.try_wait().unwrap().is_none() {
                std::hint::spin_loop();
            }
            thread::sleep(Duration::from_micros(random.below(3) * random.below(4_000)));
        }
        child.kill().unwrap();
        let done = child.wait_with_output().unwrap();
        let whole = done.status.code().is_some();
        ended += u32::from(whole);
        acknowledged += u64::from(whole);
        let log = fs::read(team.path("log")).unwrap();
        torn += u32::from(!log.ends_with(b"\n"));
        let records = team.records();
        half += u32::from(records > acknowledged);
        assert!(
            (acknowledged..=acknowledged + 1).contains(&records),
            "kill {kill}: {records} records, {acknowledged} were acknowledged"
        );
        team.say("approve", "olga", "--environment production")
            .exits(0);
        acknowledged = team.records();
        assert_eq!(acknowledged, records + 1, "kill {kill}");
        // So that it does not grow for ever.
        if acknowledged > 8 {
            for name in ["log", "log.head"] {
                remove(&team.path(name));
            }
            ops(&team.words(&ask)).exits(1);
            acknowledged = 1;
        }
    }
    println!(
        "{kills} kills: {ended} came too late, {torn} tore a line, {half} came between line and head"
    );
}

fn remove(path: &Path) {
    // Through a handle first: nobody holds the lock any more.
    let file = OpenOptions::new().read(true).open(path).unwrap();
    file.try_lock().unwrap();
    fs::remove_file(path).unwrap();
}
