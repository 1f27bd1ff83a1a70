use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// An authority, and a certificate of it for 127.0.0.1 with its key, made anew and good for a day.
#[derive(Debug)]
pub struct Certificates(TempDir);

impl Certificates {
    /// Makes them with `openssl`, which the Debian package postgresql brings.
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        // The system's own settings would add what the authority must have and the server must not.
        let config = "[req]\ndistinguished_name = name\n[name]\n";
        fs::write(folder.path().join("config"), config).expect("a file");
        let make = |name: &str, more: &[&str]| {
            let mut command = Command::new("openssl");
            command.current_dir(folder.path());
            command.args(["req", "-x509", "-config", "config", "-newkey", "ec"]);
            command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
            command.args(["-days", "1", "-subj", &format!("/CN=test {name}")]);
            command.args(["-keyout", &format!("{name}.key")]);
            command.args(["-out", &format!("{name}.pem")]).args(more);
            let made = command.output().expect("openssl");
            let says = String::from_utf8_lossy(&made.stderr);
            assert!(made.status.success(), "openssl: {says}");
        };
        make(
            "authority",
            &["-addext", "basicConstraints = critical, CA:TRUE"],
        );
        make(
            "server",
            &[
                "-CA",
                "authority.pem",
                "-CAkey",
                "authority.key",
                "-addext",
                "subjectAltName = IP:127.0.0.1",
            ],
        );
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.file("authority.pem")
    }

    /// The server's certificate.
    pub fn server(&self) -> PathBuf {
        self.file("server.pem")
    }

    /// The server's key.
    pub fn key(&self) -> PathBuf {
        self.file("server.key")
    }

    /// Both as text.
    pub fn server_and_key(&self) -> (String, String) {
        let read = |path: &Path| fs::read_to_string(path).expect("a file");
        (read(&self.server()), read(&self.key()))
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}
