//! Backups that go on by themselves, and readers who come later.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::backups::{Backups, RECIPIENT, text};
use support::{Ran, answers, command, ops, signal};

/// Of nothing else, and no reader of what is backed up.
const OTHER_IDENTITY: &str =
    "AGE-SECRET-KEY-1YSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJQMG2N0K";

struct Watching {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watching {
    fn start(backups: &Backups) -> Self {
        let args = [
            "backup",
            "watch",
            "--json",
            "--config",
            text(&backups.config),
        ];
        let mut child = command(&args).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Reads on until a line is as wanted.
    fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "it ended");
            let line: Value = serde_json::from_str(&line).unwrap();
            if wanted(&line) {
                return line;
            }
        }
    }

    fn stop(mut self) -> Ran {
        signal(&self.child, "-TERM");
        let mut stdout = String::new();
        self.lines.read_to_string(&mut stdout).unwrap();
        self.child.wait_with_output().unwrap().into()
    }
}

/// While the watch has the store open, nobody else can.
fn sync_to(backups: &Backups, height: u32) {
    let (journal, blocks) = (backups.place.file("journal"), support::data());
    let height = height.to_string();
    loop {
        let args = [
            "--blocks",
            text(&blocks),
            "--to",
            &height,
            "--journal",
            text(&journal),
        ];
        let ran = backups.place.utxo("sync", &args);
        match ran.code {
            Some(75) => thread::sleep(Duration::from_millis(20)),
            _ => return drop(ran.exits(0)),
        }
    }
}

#[test]
fn what_is_due_is_done_once() {
    let backups = Backups::new();
    backups.sync_to(9);
    let metrics = backups.place.file("backup.prom");
    backups.write_config(&format!(
        "[drill]\nevery = \"24h\"\n[retention]\nlast = 2\n[watch]\nprune_every = \"24h\"\nbase_every = \"1s\"\n\
         metrics = {metrics:?}\n"
    ));
    let ran = backups.backup("watch", &["--once"]).exits(0);
    let lines = ran.lines();
    assert_eq!(lines[0]["made"], "base", "{lines:#?}");
    assert_eq!(lines[0]["height"], 9);
    assert_eq!(lines[1]["outcome"], "passed");
    assert_eq!(
        (&lines[1]["level"], &lines[1]["height"]),
        (&"replay".into(), &9.into())
    );
    assert_eq!(lines[2]["forgotten"], 0);
    assert_eq!(lines[3]["points"], 0);
    assert_eq!(lines.len(), 4);
    let text = fs::read_to_string(&metrics).unwrap();
    assert!(text.contains("} 9\n"), "{text}");

    // A whole one again, as the last one is older than a second; no drill is due.
    backups.sync_to(170);
    thread::sleep(Duration::from_secs(1));
    let lines = backups.backup("watch", &["--once"]).exits(0).lines();
    assert_eq!(
        (&lines[0]["made"], &lines[0]["height"]),
        (&"base".into(), &170.into())
    );
    assert_eq!(lines[1]["forgotten"], 0);
    assert_eq!(lines.len(), 3);
    let text = fs::read_to_string(&metrics).unwrap();
    assert!(text.contains("} 170\n"), "{text}");
}

#[test]
fn it_follows_the_chain_through_failures_until_it_is_stopped() {
    let backups = Backups::new();
    backups.sync_to(9);
    backups.write_config("[watch]\nbackup_every = \"200ms\"\n");
    let mut watching = Watching::start(&backups);
    watching.wait_for(|line| line["made"] == "base" && line["height"] == 9);
    sync_to(&backups, 170);
    watching.wait_for(|line| line["made"] == "delta" && line["height"] == 170);

    let (repository, away) = (backups.place.file("repository"), backups.place.file("away"));
    fs::rename(&repository, &away).unwrap();
    let failed = watching.wait_for(|line| line["event"] == "failed");
    assert_eq!(failed["what"], "the backup");
    fs::rename(&away, &repository).unwrap();
    sync_to(&backups, 255);
    watching.wait_for(|line| line["made"] == "delta" && line["height"] == 255);

    watching.stop().exits(0);
    backups.backup("check", &["--depth", "read"]).exits(0);
    let into = backups.other("restored");
    backups.restore("255", &into).exits(0);
    let stats = ops(&["utxo", "stats", "--json", "--store", &into]);
    assert_eq!(stats.exits(0).answer()["muhash"], answers()[&255]["muhash"]);
}

#[test]
fn once_tells_a_failure() {
    let backups = Backups::new();
    backups.write_config("[watch]\nbackup_every = \"1h\"\n");
    // There is no store yet.
    let ran = backups.backup("watch", &["--once"]).exits(1);
    let ran = ran.says(&["the backup failed", "there is no store at"]);
    assert_eq!(ran.event("failed")["what"], "the backup");
}

#[test]
fn what_no_time_mends_is_refused_at_once() {
    let backups = Backups::new();
    for (more, words) in [
        ("[watch]\nprune_every = \"1h\"\n", "[retention]"),
        ("[watch]\nbackup_every = \"0s\"\n", "backup_every"),
        ("[watch]\nnothing = 1\n", "nothing"),
        ("[drill]\nevery = \"1h\"\nlevel = \"load\"\n", "--scratch"),
        ("write_limit = \"0MiB\"\n", "write_limit"),
        ("read_limit = \"0MiB\"\n", "read_limit"),
    ] {
        backups.write_config(more);
        backups.backup("watch", &[]).exits(2).says(&[words]);
    }
}

#[test]
fn limits_slow_down_and_nothing_else() {
    let backups = Backups::new();
    backups.sync_to(170);
    backups.write_config("write_limit = \"100MiB\"\nread_limit = \"100MiB\"\n");
    backups.backup("run", &[]).exits(0);
    backups.restore("170", &backups.other("restored")).exits(0);
}

#[test]
fn readers_come_later() {
    let backups = Backups::new();
    backups.sync_to(9);
    backups.backup("run", &[]).exits(0);
    backups.sync_to(170);
    let delta = backups.backup("run", &[]).exits(0).answer();
    let identity = backups.place.file("identity.txt");
    let first = fs::read_to_string(&identity).unwrap();

    // The recipient of another identity, as the age tools name it.
    let other: String = {
        let refused = |text: &str| {
            fs::write(&identity, text).unwrap();
            backups.restore("170", &backups.other("refused"))
        };
        refused(OTHER_IDENTITY).exits(69);
        groundtackle_backup_age::AgeIdentities::new([groundtackle_core::Secret::from(
            OTHER_IDENTITY,
        )])
        .unwrap()
        .recipients()
        .remove(0)
    };
    fs::write(&identity, &first).unwrap();
    let config = fs::read_to_string(&backups.config).unwrap();
    let both = format!("{RECIPIENT:?}, {other:?}");
    fs::write(
        &backups.config,
        config.replace(&format!("{RECIPIENT:?}"), &both),
    )
    .unwrap();
    backups
        .backup("rekey", &["--point", &"00".repeat(16)])
        .exits(2)
        .says(&["there is no restore point"]);
    let rekeyed = backups.backup("rekey", &[]).exits(0).answer();
    assert_eq!(
        (&rekeyed["rekeyed"], &rekeyed["unchanged"]),
        (&2.into(), &0.into())
    );
    let again = backups.backup("rekey", &["--remove-old"]).exits(0).answer();
    assert_eq!(
        (&again["rekeyed"], &again["unchanged"]),
        (&0.into(), &2.into())
    );
    assert_eq!(again["removed"], 0);

    fs::write(&identity, OTHER_IDENTITY).unwrap();
    backups.restore("170", &backups.other("restored")).exits(0);

    // To that one alone: the newest wrapping counts, and the one before it goes.
    let only = fs::read_to_string(&backups.config).unwrap();
    fs::write(&backups.config, only.replace(&both, &format!("{other:?}"))).unwrap();
    let name = delta["point"].as_str().unwrap();
    let one = ["--point", name, "--remove-old"];
    let rekeyed = backups.backup("rekey", &one).exits(0).answer();
    assert_eq!(
        (&rekeyed["rekeyed"], &rekeyed["removed"]),
        (&2.into(), &2.into())
    );
    backups.restore("9", &backups.other("nine")).exits(0);
    // What the backup itself wrapped stays.
    fs::write(&identity, &first).unwrap();
    backups.restore("170", &backups.other("first")).exits(0);
}
