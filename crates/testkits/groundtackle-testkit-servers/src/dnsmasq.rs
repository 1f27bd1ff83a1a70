use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Process, free_port, listens};

/// A DNS server (dnsmasq) that knows what it is told, and asks nobody else.
#[derive(Debug)]
pub struct Dnsmasq {
    port: u16,
    records: Vec<String>,
    process: Process,
    // Last, so that it goes when the server is gone.
    folder: TempDir,
}

impl Dnsmasq {
    /// Starts a server of these records, each as dnsmasq's options have them: `--host-record=a.test,192.0.2.1`.
    pub fn start(records: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let records: Vec<_> = records.iter().map(|record| (*record).to_owned()).collect();
        let port = free_port();
        let process = Self::launch(port, &records, &folder);
        Self {
            port,
            records,
            process,
            folder,
        }
    }

    fn launch(port: u16, records: &[String], folder: &TempDir) -> Process {
        let mut dnsmasq = Command::new("dnsmasq");
        dnsmasq
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
            ])
            .args([
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
                "--pid-file=",
            ])
            .args(["--local=/test/", "--log-facility=/dev/null"])
            .arg(format!("--port={port}"))
            .args(records)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .current_dir("/");
        let mut process = Process::start(dnsmasq, folder.path());
        let up = process.is_up("dnsmasq", || listens(port));
        assert!(up, "dnsmasq of the Debian package dnsmasq-base ends");
        process
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Stops the server.
    pub fn stop(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait();
    }

    /// Starts it again after [`stop`](Self::stop).
    pub fn restart(&mut self) {
        self.process = Self::launch(self.port, &self.records, &self.folder);
    }

    /// Makes it stand still: it takes what is sent, and does not answer.
    pub fn freeze(&self) {
        self.process.stop_threads();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.thaw();
        self.stop();
    }
}
