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

    /// The chain of a server for 127.0.0.1 by way of an intermediate authority, and the server's key, both as text. `leaf` and `between`
    /// say in which days from now each certificate begins and ends.
    pub fn chain(&self, leaf: (i64, i64), between: (i64, i64)) -> (String, String) {
        let config = "[ca]\ndefault_ca = it\n[it]\ndatabase = index\nnew_certs_dir = .\nrand_serial = yes\n\
            default_md = sha256\npolicy = any\ncopy_extensions = copy\nunique_subject = no\n[any]\ncommonName = supplied\n";
        let folder = self.0.path();
        fs::write(folder.join("ca"), config).expect("a file");
        fs::write(folder.join("index"), "").expect("a file");
        let openssl = |args: &[&str]| {
            let made = Command::new("openssl")
                .current_dir(folder)
                .args(args)
                .output();
            let made = made.expect("openssl");
            let says = String::from_utf8_lossy(&made.stderr).into_owned();
            assert!(made.status.success(), "openssl: {says}");
        };
        let day = |from_now: i64| {
            let day = Command::new("date")
                .args(["--utc", "+%Y%m%d%H%M%SZ"])
                .arg(format!("--date=now {from_now:+} days"))
                .output();
            let day = String::from_utf8(day.expect("date").stdout).expect("a date");
            day.trim().to_owned()
        };
        let sign = |name: &str, by: &str, extension: &str, (begins, ends): (i64, i64)| {
            let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
            let subject = format!("/CN=test {name}");
            openssl(&[
                "req",
                "-new",
                "-config",
                "config",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-subj",
                &subject,
                "-addext",
                extension,
                "-keyout",
                &key,
                "-out",
                &request,
            ]);
            let (issuer, issuer_key) = (format!("{by}.pem"), format!("{by}.key"));
            openssl(&[
                "ca",
                "-batch",
                "-notext",
                "-config",
                "ca",
                "-cert",
                &issuer,
                "-keyfile",
                &issuer_key,
                "-in",
                &request,
                "-startdate",
                &day(begins),
                "-enddate",
                &day(ends),
                "-out",
                &format!("{name}.pem"),
            ]);
        };
        sign(
            "between",
            "authority",
            "basicConstraints = critical, CA:TRUE",
            between,
        );
        sign("leaf", "between", "subjectAltName = IP:127.0.0.1", leaf);
        let text = |name: &str| fs::read_to_string(self.file(name)).expect("a file");
        (text("leaf.pem") + &text("between.pem"), text("leaf.key"))
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
