//! Runs the real program, and makes block files good and bad.
#![allow(dead_code, reason = "each test file uses its share")]

pub mod backups;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use groundtackle_chain::Network;
use groundtackle_chain::hash::sha256d;
use serde_json::Value;
use tempfile::TempDir;

/// What a run of the program left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Ended with this exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Said all of this on standard error.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing: {self:#?}");
        }
        self
    }

    pub fn lines(&self) -> Vec<Value> {
        json_lines(&self.stdout)
    }

    /// The last line of standard output.
    #[track_caller]
    pub fn answer(&self) -> Value {
        self.lines()
            .pop()
            .unwrap_or_else(|| panic!("no answer: {self:#?}"))
    }

    /// The line that tells of `event`.
    #[track_caller]
    pub fn event(&self, event: &str) -> Value {
        let found = self.lines().into_iter().find(|line| line["event"] == event);
        found.unwrap_or_else(|| panic!("no {event}: {self:#?}"))
    }
}

/// The whole lines; a killed process may leave half a one.
pub fn json_lines(text: &str) -> Vec<Value> {
    let lines = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub fn command(args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ops"));
    command
        .args(args)
        .env_remove("RUST_LOG")
        .env_remove("GROUNDTACKLE_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub fn ops(args: &[impl AsRef<OsStr>]) -> Ran {
    command(args).output().unwrap().into()
}

pub fn signal(child: &Child, name: &str) {
    // The shell's own: a bare machine has no program of that name.
    let status = Command::new("sh")
        .args(["-c", &format!("kill {name} {}", child.id())])
        .status();
    assert!(status.unwrap().success());
}

/// A place for a store and for files of a test.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    /// Appended to the store's URL.
    pub options: &'static str,
    /// Where else the store lies.
    pub elsewhere: Option<PathBuf>,
}

impl Place {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            options: "",
            elsewhere: None,
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.elsewhere.clone().unwrap_or_else(|| self.file("store"))
    }

    pub fn url(&self) -> String {
        format!("embedded:{}{}", self.store().display(), self.options)
    }

    /// `ops utxo NAME --json --store URL ARGS`.
    pub fn utxo(&self, name: &str, args: &[&str]) -> Ran {
        self.command(name, args).output().unwrap().into()
    }

    pub fn command(&self, name: &str, args: &[&str]) -> Command {
        let url = self.url();
        let mut all = vec!["utxo", name, "--json", "--store", &url];
        all.extend(args);
        command(&all)
    }

    /// Syncs main net blocks up to a height.
    #[track_caller]
    pub fn sync_to(&self, height: u32) -> Ran {
        let (blocks, height) = (data(), height.to_string());
        self.utxo(
            "sync",
            &["--blocks", blocks.to_str().unwrap(), "--to", &height],
        )
        .exits(0)
    }

    #[track_caller]
    pub fn stats(&self) -> Value {
        self.utxo("stats", &[]).exits(0).answer()
    }
}

/// The blocks that ship with the recipe.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// What `stats` must say at some heights.
pub fn answers() -> BTreeMap<u32, Value> {
    let text = fs::read_to_string(data().join("answers.json")).unwrap();
    let known: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    let figures = |(height, known): (String, Value)| {
        let height: u32 = height.parse().unwrap();
        let figures = serde_json::json!({
            "height": height,
            "bestblock": known["hash"],
            "transactions": known["transactions"],
            "txouts": known["txouts"],
            "bogosize": known["bogosize"],
            "total_amount_sat": known["total"],
            "muhash": known["muhash"],
            "hash_serialized_3": known["hash_serialized_3"],
        });
        (height, figures)
    };
    known.into_iter().map(figures).collect()
}

/// Main net blocks 0 to 599, each as its bytes, in order.
pub fn blocks() -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    for name in ["blk00000.dat", "blk00001.dat"] {
        let file = fs::read(data().join(name)).unwrap();
        let mut rest = file.as_slice();
        while let Some((frame, tail)) = rest.split_at_checked(8) {
            let length = u32::from_le_bytes(frame[4..].try_into().unwrap());
            let (block, tail) = tail.split_at(length as usize);
            blocks.push(block.to_vec());
            rest = tail;
        }
    }
    for pair in blocks.windows(2) {
        assert_eq!(pair[1][4..36], sha256d(&pair[0][..80]));
    }
    blocks
}

/// A block as it lies in a block file.
pub fn framed(network: Network, block: &[u8]) -> Vec<u8> {
    let length = u32::try_from(block.len()).unwrap();
    [&network.magic()[..], &length.to_le_bytes(), block].concat()
}

/// Writes a block file.
pub fn write_blocks<'a>(
    path: &Path,
    network: Network,
    blocks: impl IntoIterator<Item = &'a Vec<u8>>,
) {
    let frames: Vec<_> = blocks
        .into_iter()
        .map(|block| framed(network, block))
        .collect();
    fs::write(path, frames.concat()).unwrap();
}

/// The same on every run with the same seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// From `GROUNDTACKLE_TEST_SEED`, or else from `seed`.
    pub fn new(seed: u64) -> Self {
        let seed = number("GROUNDTACKLE_TEST_SEED", seed);
        println!("GROUNDTACKLE_TEST_SEED={seed}");
        Self(seed)
    }

    /// Below `limit`, by SplitMix64.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// An environment variable's number.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}
