use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Process, free_port, listens};

/// Names the program; otherwise it is looked for on the `PATH`.
const PROGRAM: &str = "GROUNDTACKLE_TEST_ANVIL";

fn program() -> String {
    std::env::var(PROGRAM).unwrap_or_else(|_| "anvil".into())
}

/// An Ethereum node of a chain of its own: Foundry's anvil, which makes a block when it is told to.
#[derive(Debug)]
pub struct Anvil {
    port: u16,
    process: Process,
    // Last, so that it goes when the node is gone.
    folder: TempDir,
    options: Vec<String>,
}

impl Anvil {
    /// Whether there is one to test with: the program of `GROUNDTACKLE_TEST_ANVIL`, or `anvil`.
    pub fn is_there() -> bool {
        let found = Command::new(program())
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        found.is_ok_and(|status| status.success())
    }

    /// Starts a node with these options.
    pub fn start(options: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let port = free_port();
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let process = Self::launch(port, &options, &folder);
        Self {
            port,
            process,
            folder,
            options,
        }
    }

    fn launch(port: u16, options: &[String], folder: &TempDir) -> Process {
        let mut anvil = Command::new(program());
        anvil
            .args([
                "--silent",
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
            ])
            .args(options)
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/");
        let mut process = Process::start(anvil, folder.path());
        let up = process.is_up("anvil", || listens(port));
        assert!(up, "anvil of npm's @foundry-rs/anvil ends");
        process
    }

    /// Its port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its RPC.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills it; its chain is gone.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Starts a new one in its place, after `kill`.
    pub fn restart(&mut self) {
        self.process = Self::launch(self.port, &self.options, &self.folder);
    }

    /// Whether it was not killed.
    pub fn is_up(&mut self) -> bool {
        !self.process.is_gone()
    }

    /// Makes it stand still: its connections stay, and no answer comes.
    pub fn freeze(&self) {
        self.process.stop_threads();
    }

    /// Makes it go on.
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        self.kill();
    }
}
