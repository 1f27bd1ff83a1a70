use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::process::{Process, free_port, listens};

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// Survive a power failure. Without, tests are several times as fast.
    pub fsync: bool,
    /// Ask for this password; otherwise everybody is let in.
    pub password: Option<String>,
    /// Further settings, as in `postgresql.conf`.
    pub settings: Vec<(String, String)>,
    /// A PEM certificate and its key: the server offers TLS.
    pub tls: Option<(String, String)>,
    /// Keep the data in this folder, such as a small file system's, instead of a temporary one.
    pub folder: Option<PathBuf>,
    /// Keep the log of changes (`pg_wal`) in a new folder here, instead of with the data.
    pub wal: Option<PathBuf>,
}

/// A PostgreSQL server with the superuser `postgres` and the database `postgres`.
#[derive(Debug)]
pub struct Postgres {
    data: PathBuf,
    port: u16,
    process: Process,
    password: Option<String>,
    settings: Vec<(String, String)>,
    // Last, so that it goes when the server is gone.
    _folder: Option<TempDir>,
}

/// Where Debian keeps the programs of the newest version, or the path that the environment gives.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<_> = versions
        .map(|entry| entry.expect("a folder").path())
        .filter(|path| path.join("bin").join(name).is_file())
        .collect();
    versions.sort_by_key(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.parse::<u32>().ok())
    });
    match versions.last() {
        Some(version) => version.join("bin").join(name),
        None => name.into(),
    }
}

/// A command that may do what PostgreSQL refuses to do as root.
fn command(name: &str) -> Command {
    let program = program(name);
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
        .arg("--")
        .arg(program);
    command
}

/// Hands a file or folder to the user that the server runs as.
fn hand_over(path: &Path) {
    if geteuid().is_root() {
        let passwd = fs::read_to_string("/etc/passwd").expect("users");
        let ids = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some("postgres")).then(|| {
                let mut number = |at| fields.nth(at).and_then(|id| id.parse().ok());
                (number(1), number(0))
            })
        });
        let (user, group) = ids.expect("the Debian package postgresql makes the user postgres");
        chown(path, user, group).expect("root may");
    }
}

impl Postgres {
    /// Starts a server on new data.
    pub fn start(options: PostgresOptions) -> Self {
        let temporary = options.folder.is_none().then(|| {
            let folder = TempDir::new().expect("a temporary folder");
            fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
            folder
        });
        let folder = match (&temporary, &options.folder) {
            (Some(folder), _) => folder.path().to_owned(),
            (None, folder) => folder.clone().unwrap_or_default(),
        };
        let data = folder.join("data");
        fs::create_dir(&data).expect("a new folder");
        fs::set_permissions(&data, Permissions::from_mode(0o700)).expect("ours");
        hand_over(&data);
        let mut initdb = command("initdb");
        initdb.arg("--pgdata").arg(&data).args([
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        if let Some(wal) = &options.wal {
            let wal = wal.join("wal");
            fs::create_dir(&wal).expect("a new folder");
            hand_over(&wal);
            initdb.arg("--waldir").arg(wal);
        }
        match &options.password {
            Some(password) => {
                let file = folder.join("password");
                fs::write(&file, password).expect("a file");
                hand_over(&file);
                initdb.arg("--auth=scram-sha-256").arg("--pwfile").arg(file);
            }
            None => drop(initdb.arg("--auth=trust")),
        }
        let made = initdb
            .output()
            .expect("initdb of the Debian package postgresql");
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let on_off = |on| if on { "on" } else { "off" }.to_owned();
        let mut settings = vec![
            ("fsync".to_owned(), on_off(options.fsync)),
            ("full_page_writes".to_owned(), on_off(options.fsync)),
            ("listen_addresses".to_owned(), "127.0.0.1".to_owned()),
            ("unix_socket_directories".to_owned(), String::new()),
            ("max_connections".to_owned(), "300".to_owned()),
            ("max_wal_size".to_owned(), "4GB".to_owned()),
        ];
        if let Some((certificate, key)) = &options.tls {
            for (setting, name, text) in [
                ("ssl_cert_file", "server.crt", certificate),
                ("ssl_key_file", "server.key", key),
            ] {
                let file = data.join(name);
                fs::write(&file, text).expect("a file");
                fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("ours");
                hand_over(&file);
                settings.push((setting.to_owned(), name.to_owned()));
            }
            settings.push(("ssl".to_owned(), on_off(true)));
        }
        settings.extend(options.settings);
        let port = free_port();
        let process = Self::launch(&data, port, &settings);
        Self {
            data,
            port,
            process,
            password: options.password,
            settings,
            _folder: temporary,
        }
    }

    /// Starts a standby of this server, without a password, on a copy of its data: it is sent all changes.
    pub fn standby(&self) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("a new folder");
        fs::set_permissions(&data, Permissions::from_mode(0o700)).expect("ours");
        hand_over(&data);
        let mut copy = command("pg_basebackup");
        copy.args(["--dbname", &self.url(), "--checkpoint=fast", "--no-sync"]);
        copy.arg("--write-recovery-conf").arg("--pgdata").arg(&data);
        let made = copy.output().expect("pg_basebackup");
        let says = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "pg_basebackup: {says}");
        let port = free_port();
        Self {
            process: Self::launch(&data, port, &self.settings),
            data,
            port,
            password: None,
            settings: self.settings.clone(),
            _folder: Some(folder),
        }
    }

    /// Starts a server like this one, on a copy of its data, such as a restore made; owned by whom it was there.
    pub fn on_copy(&self, data: &Path) -> Self {
        let port = free_port();
        Self {
            process: Self::launch(data, port, &self.settings),
            data: data.to_owned(),
            port,
            password: self.password.clone(),
            settings: self.settings.clone(),
            _folder: None,
        }
    }

    /// Starts the server, again if need be: what the children of a killed one still hold goes in a moment.
    fn launch(data: &Path, port: u16, settings: &[(String, String)]) -> Process {
        for _ in 0..100 {
            let log = fs::File::options()
                .create(true)
                .append(true)
                .open(data.with_extension("log"))
                .expect("a log");
            let mut postgres = command("postgres");
            postgres.arg("-D").arg(data).args(["-p", &port.to_string()]);
            for (name, value) in settings {
                postgres.arg("-c").arg(format!("{name}={value}"));
            }
            postgres.stdout(log.try_clone().expect("a log")).stderr(log);
            postgres.stdin(Stdio::null()).current_dir("/");
            let mut process = Process::start(postgres, data.parent().unwrap_or(data));
            if process.is_up("postgres", || listens(port) && Self::is_ready(data)) {
                return process;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let log = fs::read_to_string(data.with_extension("log"));
        panic!("postgres does not stay up: {log:?}");
    }

    /// As the server itself notes.
    fn is_ready(data: &Path) -> bool {
        fs::read_to_string(data.join("postmaster.pid")).is_ok_and(|text| {
            text.lines()
                .nth(7)
                .is_some_and(|line| matches!(line.trim(), "ready" | "standby"))
        })
    }

    /// The server's port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The URL of its superuser, with the password if there is one.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same by way of another port: that of a proxy.
    pub fn url_at(&self, port: u16) -> String {
        let password = self
            .password
            .as_ref()
            .map(|password| format!(":{password}"));
        let password = password.unwrap_or_default();
        format!("postgres://postgres{password}@127.0.0.1:{port}/postgres")
    }

    /// What the server has written to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.data.with_extension("log")).expect("a log")
    }

    /// Kills the server in the middle of whatever it does, as a lost machine would but for its disk.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Stops the server: those who are connected are thrown out.
    pub fn stop(&mut self) {
        self.process.signal(Signal::INT);
        self.process.wait();
    }

    /// Makes the server stand still: the system still takes connections for it, and nobody answers. Who is connected already is served
    /// on by a process of its own.
    pub fn freeze(&self) {
        self.process.stop_threads();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Starts it again where it went down by itself: after a failed recovery it does, and whoever
    /// runs a server has it started again.
    pub fn revive(&mut self) {
        if self.process.is_gone() {
            self.process.wait();
            self.restart();
        }
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop), on the same data and port.
    pub fn restart(&mut self) {
        self.process = Self::launch(&self.data, self.port, &self.settings);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.thaw();
        self.stop();
    }
}
