//! Backups and restores of a directory tree by the program itself.

#![cfg(target_os = "linux")]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use support::backups::{IDENTITY, RECIPIENT, text};
use support::{Place, Ran, ops};

struct Backups {
    place: Place,
    config: PathBuf,
}

impl Backups {
    fn new() -> Self {
        let place = Place::new();
        fs::write(place.file("identity.txt"), IDENTITY).unwrap();
        fs::create_dir_all(place.file("tree/folder")).unwrap();
        fs::write(place.file("tree/folder/file"), "first").unwrap();
        fs::write(place.file("tree/left-out.tmp"), "of no use").unwrap();
        let config = place.file("files.toml");
        let backups = Self { place, config };
        backups.write_config("");
        backups.backup("init", &[]).exits(0);
        backups
    }

    fn write_config(&self, first: &str) {
        let file = |name| self.place.file(name).display().to_string();
        let config = format!(
            "{first}\nsigner = {:?}\nrecipients = [{RECIPIENT:?}]\nidentities = {:?}\nfolder = {:?}\n\
             [retention]\nlast = 1\n[files]\npath = {:?}\nexclude = [\"**/*.tmp\"]\nstate = {:?}\n",
            file("signer.key"),
            file("identity.txt"),
            file("repository"),
            file("tree"),
            file("state"),
        );
        fs::write(&self.config, config).unwrap();
    }

    fn backup(&self, name: &str, args: &[&str]) -> Ran {
        let first = ["backup", name, "--json", "--config", text(&self.config)];
        ops(&[&first[..], args].concat())
    }

    fn restore(&self, at: &str, into: &str) -> Ran {
        let (config, into) = (text(&self.config), self.place.file(into));
        let first = ["restore", "--json", "--config", config, "--at", at];
        ops(&[&first[..], &["--into-directory", text(&into)]].concat())
    }

    fn content(&self, tree: &str) -> String {
        fs::read_to_string(self.place.file(tree).join("folder/file")).unwrap()
    }
}

#[test]
fn a_tree_is_backed_up_checked_pruned_and_restored() {
    let backups = Backups::new();
    let first = backups.backup("run", &[]).exits(0).answer();
    assert_eq!(
        (&first["made"], &first["tree"]["entries"]),
        (&"tree".into(), &3.into())
    );
    fs::write(backups.place.file("tree/folder/file"), "second").unwrap();
    let second = backups.backup("run", &[]).exits(0).answer();
    assert_eq!(second["tree"]["file_bytes"], 6);
    let listed: Vec<Value> = backups.backup("list", &[]).exits(0).lines();
    assert_eq!(listed, [first.clone(), second.clone()]);
    for depth in ["presence", "bytes", "read"] {
        let checked = backups
            .backup("check", &["--depth", depth])
            .exits(0)
            .answer();
        assert_eq!(checked["points"], 2);
    }
    let restored = backups.restore("latest", "latest").exits(0).answer();
    assert_eq!(
        (&restored["entries"], &restored["file_bytes"]),
        (&3.into(), &6.into())
    );
    assert_eq!(backups.content("latest"), "second");
    assert!(!backups.place.file("latest/left-out.tmp").exists());
    let name = first["point"].as_str().unwrap();
    backups.restore(name, "first").exits(0);
    assert_eq!(backups.content("first"), "first");

    let forgot = backups.backup("forget", &[]).exits(0).answer();
    assert_eq!(forgot["forgotten"], 1);
    backups
        .backup("prune", &["--grace", "0s", "--nobody-else-writes"])
        .exits(0);
    backups.backup("check", &["--depth", "read"]).exits(0);
    backups.restore("latest", "again").exits(0);
    assert_eq!(backups.content("again"), "second");

    let whole = backups.backup("run", &["--base"]).exits(0).answer();
    assert_eq!(whole["tree"]["uses"], Value::Array(Vec::new()));
    backups.backup("drill", &["--level", "read"]).exits(0);
    let replayed = backups.backup("drill", &[]).exits(0).answer();
    assert_eq!(
        (&replayed["level"], &replayed["restored"], &replayed["tree"]),
        (
            &"replay".into(),
            &true.into(),
            &with_digest(&replayed, 3, 6)
        )
    );
    let at = |name: &str| text(&backups.place.file(name)).to_owned();
    let load = |into: &str, more: &[&str]| {
        let first = ["--level", "load", "--scratch-directory", into];
        backups.backup("drill", &[&first[..], more].concat())
    };
    let loaded = load(&at("scratch"), &[]).exits(0).answer();
    assert_eq!(loaded["proofs"][0]["found"], "3", "{loaded}");
    assert_eq!(backups.content("scratch"), "second");
    let name = whole["point"].as_str().unwrap();
    let named = load(&at("named"), &["--choose", name]);
    assert_eq!(named.exits(0).answer()["point"], whole["point"]);
    // Never where it comes from.
    let refused = load(&at("tree/below"), &[]).exits(1);
    refused.says(&["is production, and no drill restores there"]);
    assert!(!backups.place.file("tree/below").exists());
    let height = backups.backup("drill", &["--choose", "7"]).exits(1);
    height.says(&["a tree of files has no blocks"]);
    let serve = backups.backup("drill", &["--level", "serve", "--scratch-directory", "x"]);
    serve.exits(2).says(&["needs --query"]);
    let evidence = backups.backup("evidence", &[]).exits(1).lines();
    assert_eq!(evidence.len(), 7);
}

/// As the drill shows it.
fn with_digest(shown: &Value, entries: u64, bytes: u64) -> Value {
    let digest = &shown["tree"]["blake3"];
    assert_eq!(digest.as_str().map(str::len), Some(64), "{shown}");
    serde_json::json!({ "entries": entries, "bytes": bytes, "blake3": digest })
}

#[test]
fn what_a_tree_is_not_is_refused() {
    let backups = Backups::new();
    backups.backup("run", &[]).exits(0);
    backups
        .restore("7", "height")
        .exits(2)
        .says(&["has no blocks"]);
    backups
        .restore(&"ab".repeat(16), "nothing")
        .says(&["there is no restore point"]);
    backups.restore("latest", "tree").says(&["not empty"]);
    let config = text(&backups.config);
    let store = [
        "restore", "--config", config, "--at", "latest", "--into", "memory:",
    ];
    ops(&store).says(&["there is no restore point"]);
    ops(&["restore", "--config", config, "--at", "latest"]).exits(2);
    backups.write_config("store = \"memory:\"");
    backups
        .backup("run", &[])
        .exits(2)
        .says(&["a config for each"]);
    let of_store = backups.place.file("store.toml");
    let config = fs::read_to_string(&backups.config).unwrap();
    let (config, _) = config.split_once("[retention]").unwrap();
    let config = config.replace("memory:", &backups.place.url());
    fs::write(&of_store, format!("stream = \"files\"\n{config}")).unwrap();
    backups.place.sync_to(2).exits(0);
    ops(&["backup", "run", "--config", text(&of_store)])
        .exits(69)
        .says(&["holds a tree of files", "name another stream"]);
}
