//! A config of backups, and a repository for it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Place, Ran, data, ops};

/// Of nothing else; its public key is `age1…` below.
pub const IDENTITY: &str =
    "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
pub const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

#[derive(Debug)]
pub struct Backups {
    pub place: Place,
    pub config: PathBuf,
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Backups {
    pub fn new() -> Self {
        let place = Place::new();
        let identities = place.file("identity.txt");
        fs::write(&identities, format!("# a comment\n{IDENTITY}\n")).unwrap();
        let config = place.file("backup.toml");
        let backups = Self { place, config };
        backups.write_config("");
        backups.backup("init", &[]).exits(0);
        backups
    }

    /// With another line.
    pub fn write_config(&self, more: &str) {
        let file = |name| self.place.file(name).display().to_string();
        let config = format!(
            "store = {:?}\njournal = {:?}\nsigner = {:?}\nrecipients = [{RECIPIENT:?}]\nidentities = {:?}\nfolder = {:?}\n{more}",
            self.place.url(),
            file("journal"),
            file("signer.key"),
            file("identity.txt"),
            file("repository"),
        );
        fs::write(&self.config, config).unwrap();
    }

    pub fn backup(&self, name: &str, args: &[&str]) -> Ran {
        let first = ["backup", name, "--json", "--config", text(&self.config)];
        ops(&[&first[..], args].concat())
    }

    pub fn restore(&self, at: &str, into: &str) -> Ran {
        let config = text(&self.config);
        ops(&[
            "restore", "--json", "--config", config, "--at", at, "--into", into,
        ])
    }

    pub fn sync_to(&self, height: u32) {
        let (journal, blocks) = (self.place.file("journal"), data());
        let (journal, height) = (text(&journal), height.to_string());
        let args = [
            "--blocks",
            text(&blocks),
            "--to",
            &height,
            "--journal",
            journal,
        ];
        self.place.utxo("sync", &args).exits(0);
    }

    pub fn other(&self, name: &str) -> String {
        format!("embedded:{}", self.place.file(name).display())
    }

    /// Every file of the repository, and the signer's key.
    pub fn objects(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.place.file("repository")];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.push(path),
                }
            }
        }
        files.sort();
        files
    }
}
