//! The recipe's backups of a PostgreSQL server: its program, a real server, and a password that nobody sees.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::{env, fs};

use groundtackle_testkit_servers::{Postgres, PostgresOptions};
use serde_json::Value;
use tempfile::TempDir;

/// Of nothing else.
const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

const PASSWORD: &str = "aVeryParticularPassword";

const ROWS: i64 = 20_000;

struct Place {
    folder: TempDir,
    server: Postgres,
    /// All that any command said.
    said: Mutex<String>,
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?}: {}", self.stderr);
        }
        self
    }

    fn lines(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[track_caller]
    fn answer(&self) -> Value {
        self.lines().pop().expect("an answer")
    }
}

impl Place {
    fn new() -> Self {
        let server = Postgres::start(PostgresOptions {
            password: Some(PASSWORD.into()),
            ..PostgresOptions::default()
        });
        let folder = TempDir::new().unwrap();
        // The server's user goes through it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Self {
            folder,
            server,
            said: Mutex::default(),
        };
        fs::write(place.file("identity"), IDENTITY).unwrap();
        place.sql(&format!(
            "create table ledger as select id, md5(id::text) note from generate_series(1, {ROWS}) id"
        ));
        place
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sql(&self, query: &str) -> String {
        ask(&self.server.url(), query)
    }

    /// A config of that name; `first` before the tables, `last` at the end of `[postgres]`.
    fn config(&self, name: &str, first: &str, last: &str) -> PathBuf {
        let file = |name: &str| self.file(name).display().to_string();
        let text = format!(
            "{first}\nsigner = {:?}\nrecipients = [{RECIPIENT:?}]\nidentities = {:?}\nfolder = {:?}\n\
             [retention]\nlast = 1\n[postgres]\nhost = \"127.0.0.1\"\nport = {}\nuser = \"postgres\"\n\
             password = {PASSWORD:?}\nsslmode = \"disable\"\nstate = {:?}\n{last}\n",
            file("signer"),
            file("identity"),
            file("repository"),
            self.server.port(),
            file(&format!("{name}.state")),
        );
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn ops(&self, args: &[&str]) -> Ran {
        let test = env::current_exe().unwrap();
        let program = test.ancestors().nth(2).unwrap().join("ops");
        assert!(program.is_file(), "build it first: cargo build -p ops");
        let output = Command::new(program)
            .args(args)
            .arg("--json")
            .env("GROUNDTACKLE_LOG", "trace")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let ran = Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        };
        let mut said = self.said.lock().unwrap();
        said.push_str(&ran.stdout);
        said.push_str(&ran.stderr);
        drop(said);
        ran
    }

    fn backup(&self, config: &Path, name: &str, args: &[&str]) -> Ran {
        let first = ["backup", name, "--config", config.to_str().unwrap()];
        self.ops(&[&first[..], args].concat())
    }

    fn restore(&self, config: &Path, at: &str, into: &str, args: &[&str]) -> Ran {
        let (config, into) = (config.to_str().unwrap(), self.file(into));
        let into = into.to_str().unwrap();
        let first = [
            "restore",
            "--config",
            config,
            "--at",
            at,
            "--into-directory",
            into,
        ];
        self.ops(&[&first[..], args].concat())
    }

    /// No secret is said, or lies anywhere but where it was put: the password in the configs, the keys in their files.
    fn assert_no_secrets(&self, configs: &[&Path]) {
        let seed = fs::read_to_string(self.file("signer")).unwrap();
        let keys = [self.file("signer"), self.file("identity")];
        let secrets = [
            (PASSWORD, configs.to_vec()),
            (seed.trim(), vec![&*keys[0]]),
            (IDENTITY, vec![&*keys[1]]),
        ];
        let said = self.said.lock().unwrap();
        assert!(said.len() > 1_000);
        let mut folders = vec![self.file("repository")];
        let mut files: BTreeSet<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect();
        let beside = files.len();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => drop(files.insert(path)),
                }
            }
        }
        assert!(files.len() > beside + 5, "{files:?}");
        for (secret, at_home) in &secrets {
            assert!(secret.len() > 20 && !said.contains(secret));
            for path in &files {
                let bytes = fs::read(path).unwrap();
                let mut all = bytes.windows(secret.len());
                let has = all.any(|bytes| bytes == secret.as_bytes());
                assert_eq!(has, at_home.contains(&&**path), "{}", path.display());
            }
        }
    }
}

fn ask(url: &str, query: &str) -> String {
    let output = Command::new("psql")
        .args([
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--dbname",
            url,
        ])
        .args(["--set=ON_ERROR_STOP=1", "--command", query])
        .output()
        .unwrap();
    assert!(output.status.success(), "{query}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

const COUNT: &str = "select count(*) || ' ' || md5(string_agg(note, '' order by id)) from ledger";

#[test]
fn a_cluster_is_backed_up_drilled_and_restored() {
    let place = Place::new();
    let config = place.config("cluster.toml", "", "");
    place.backup(&config, "init", &[]).exits(0);
    let as_it_was = place.sql(COUNT);
    let first = place.backup(&config, "run", &[]).exits(0).answer();
    assert_eq!(first["made"], "tree", "{first}");
    assert!(first["tree"]["entries"].as_u64() > Some(900), "{first}");
    place.sql("insert into ledger values (0, 'later')");
    let second = place.backup(&config, "run", &[]).exits(0).answer();
    assert_eq!(
        second["tree"]["uses"],
        Value::from(vec![first["point"].clone()])
    );
    let bytes = |point: &Value| point["bytes"].as_u64().unwrap();
    assert!(bytes(&second) < bytes(&first) / 2, "{first} {second}");
    let listed = place.backup(&config, "list", &[]).exits(0).lines();
    assert_eq!(listed, [first.clone(), second.clone()]);
    for depth in ["presence", "bytes", "read"] {
        let checked = place.backup(&config, "check", &["--depth", depth]);
        assert_eq!(checked.exits(0).answer()["points"], 2);
    }

    // As it was before what came later.
    let name = first["point"].as_str().unwrap();
    let restored = place.restore(&config, name, "first", &["--verify", "require"]);
    let restored = restored.exits(0).answer();
    assert_eq!(
        (&restored["verified"], &restored["postgres"]),
        (&true.into(), &15.into()),
        "{restored}"
    );
    assert_eq!(restored["entries"], first["tree"]["entries"]);
    let again = place.server.on_copy(&place.file("first"));
    assert_eq!(ask(&again.url(), COUNT), as_it_was);
    drop(again);
    let skipped = place.restore(&config, "latest", "latest", &["--verify", "skip"]);
    let skipped = skipped
        .exits(0)
        .says(&["pg_verifybackup has not looked at it"]);
    assert_eq!(skipped.answer()["verified"], false);
    let again = place.server.on_copy(&place.file("latest"));
    assert_eq!(ask(&again.url(), COUNT), place.sql(COUNT));

    let drill = |args: &[&str]| place.backup(&config, "drill", args);
    let replayed = drill(&[]).exits(0).answer();
    assert_eq!(
        (
            &replayed["level"],
            &replayed["restored"],
            &replayed["point"]
        ),
        (&"replay".into(), &true.into(), &second["point"])
    );
    let at = |name: &str| place.file(name).display().to_string();
    let loaded = drill(&[
        "--level",
        "load",
        "--scratch-directory",
        &at("loaded"),
        "--choose",
        name,
    ]);
    let loaded = loaded.exits(0).answer();
    assert_eq!(loaded["point"], first["point"]);
    assert_eq!(loaded["proofs"][1]["what"], "pg_verifybackup");
    let query = format!("select count(*) = {} from ledger", ROWS + 1);
    let serve = ["--level", "serve", "--scratch-directory"];
    let served = drill(&[&serve[..], &[&at("served"), "--query", &query]].concat());
    let served = served.exits(0).answer();
    assert_eq!(served["proofs"][2]["found"], "t", "{served}");
    let wrong = drill(
        &[
            &serve[..],
            &[&at("wrong"), "--query", "select count(*) = 0 from ledger"],
        ]
        .concat(),
    );
    wrong
        .exits(1)
        .says(&["the drill failed", "the restored server answers"]);
    let shown = place.backup(&config, "evidence", &[]).exits(1).lines();
    assert_eq!(shown.len(), 5);
    assert_eq!(shown[3]["outcome"], "failed");

    // What the data directory of a server is, is no scratch.
    let data = place.sql("show data_directory");
    let kept = place.config(
        "kept.toml",
        "",
        &format!("[drill]\nproduction = [{data:?}]"),
    );
    let near = format!("{data}/scratch");
    let refused = place.backup(
        &kept,
        "drill",
        &["--level", "load", "--scratch-directory", &near],
    );
    refused
        .exits(1)
        .says(&["is production, and no drill restores there"]);
    assert!(!Path::new(&near).exists());
    place.assert_no_secrets(&[&config, &kept]);
}

#[test]
fn a_dump_is_backed_up_watched_and_restored() {
    let place = Place::new();
    let metrics = place.file("metrics");
    let config = place.config(
        "dump.toml",
        "stream = \"ledger\"",
        &format!(
            "database = \"postgres\"\n[drill]\nevery = \"24h\"\n[watch]\nprune_every = \"24h\"\nmetrics = {metrics:?}"
        ),
    );
    place.backup(&config, "init", &[]).exits(0);
    let as_it_was = place.sql(COUNT);
    let lines = place.backup(&config, "watch", &["--once"]).exits(0).lines();
    assert_eq!(lines[0]["tree"]["entries"], 2, "{lines:#?}");
    assert_eq!(
        (
            &lines[1]["outcome"],
            &lines[1]["level"],
            &lines[1]["restored"]
        ),
        (&"passed".into(), &"replay".into(), &true.into())
    );
    let text = fs::read_to_string(&metrics).unwrap();
    assert!(
        text.contains("drill_last_passed{stream=\"ledger\"} 1"),
        "{text}"
    );
    let into = place.file("loaded").display().to_string();
    let loaded = ["--level", "load", "--scratch-directory", &into];
    let loaded = place.backup(&config, "drill", &loaded).exits(0).answer();
    assert!(
        loaded["proofs"][0]["what"]
            .as_str()
            .unwrap()
            .contains("pg_restore")
    );

    let restored = place
        .restore(&config, "latest", "dump", &[])
        .exits(0)
        .answer();
    let file = restored["dump"].as_str().unwrap();
    place.sql("create database again");
    let url = place.server.url();
    let (server, _) = url.rsplit_once('/').unwrap();
    let url = format!("{server}/again");
    let loads = Command::new("pg_restore")
        .args(["--exit-on-error", "--dbname", &url, file])
        .output()
        .unwrap();
    assert!(loads.status.success(), "{loads:?}");
    assert_eq!(ask(&url, COUNT), as_it_was);

    // Each wrong wish is told before anything is done.
    let drill = |args: &[&str], words: &[&str]| {
        place.backup(&config, "drill", args).exits(2).says(words);
    };
    let scratch = ["--scratch-directory", &into];
    drill(&["--level", "load"], &["needs --scratch-directory"]);
    drill(
        &[&["--level", "replay"], &scratch[..]].concat(),
        &["restores to no directory"],
    );
    drill(
        &[&["--level", "serve"], &scratch[..]].concat(),
        &["needs --query"],
    );
    let query = ["--query", "select 1"];
    drill(
        &[&["--level", "load"], &scratch[..], &query].concat(),
        &["asks no server"],
    );
    drill(
        &[&["--level", "serve"], &scratch[..], &query].concat(),
        &["for clusters of PostgreSQL"],
    );
    drill(
        &["--level", "load", "--scratch", "memory:"],
        &["--scratch is a store"],
    );
    let verify = place.restore(&config, "latest", "none", &["--verify", "require"]);
    verify.exits(2).says(&["--verify is for clusters"]);

    // As a cluster, it is refused by what it is.
    let as_cluster = place.config("cluster.toml", "stream = \"ledger\"", "");
    let refused = place.restore(&as_cluster, "latest", "none", &[]);
    refused.says(&["is no cluster"]);
    assert!(!place.file("none").exists());
    let both = place.config("both.toml", "store = \"memory:\"", "");
    place
        .backup(&both, "run", &[])
        .exits(2)
        .says(&["a config for each"]);
    // What is wrong with the server is told, and the password is not.
    let nobody = place.config("nobody.toml", "", "database = \"nowhere\"");
    let failed = place.backup(&nobody, "run", &[]).exits(74);
    failed.says(&["database \"nowhere\" does not exist"]);
    let wrong = fs::read_to_string(&config)
        .unwrap()
        .replace(PASSWORD, "aWrongOne");
    fs::write(place.file("wrong.toml"), wrong).unwrap();
    let failed = place
        .backup(&place.file("wrong.toml"), "run", &[])
        .exits(74);
    assert!(!failed.stderr.contains("aWrongOne"), "{}", failed.stderr);
    failed.says(&["password authentication failed", "set the role's password"]);
    let unread = fs::read_to_string(&config)
        .unwrap()
        .replace("port =", "port");
    fs::write(place.file("unread.toml"), unread).unwrap();
    place
        .backup(&place.file("unread.toml"), "run", &[])
        .exits(2);
    let unread = place.file("unread.toml");
    place.assert_no_secrets(&[&config, &as_cluster, &both, &nobody, &unread]);
}
