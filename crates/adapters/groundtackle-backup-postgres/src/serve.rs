//! A server on a cluster that was restored for practice, which nobody else reaches and which reaches nobody.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use groundtackle_backup::{Error, Result, Retryability};

use crate::config::ClusterRestoreOptions;
use crate::error::{BACKEND, Failed};
use crate::program::{Children, Program, command};
use crate::restore::find;

/// The server's program.
const SERVER: &str = "postgres";

/// What says how the server that was backed up was set up.
const CONTROL: &str = "pg_controldata";

/// How long that may take.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(30);

/// Settings that a standby, and what was prepared for a commit, need as high as they were, and how they are called there.
const AS_HIGH: [(&str, &str); 5] = [
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
];

/// How often it is looked whether the server is ready.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The port is a part of the socket's name, and nothing else.
const PORT: u16 = 5432;

/// The longest path of a socket that Linux takes, and what the server appends to its folder.
const MAX_SOCKET_PATH: usize = 107;
const SOCKET: &str = "/.s.PGSQL.5432.lock";

/// What the server is told, over everything that the cluster's own files say. It serves nobody but who opens its socket's
/// folder; it takes nothing from production, sends it nothing and removes nothing there: no archive, no replication, no
/// subscription, none of the jobs that preloaded libraries run.
const SETTINGS: [&str; 20] = [
    "listen_addresses=",
    "port=5432",
    "ssl=off",
    "archive_mode=off",
    "archive_command=",
    "restore_command=",
    "archive_cleanup_command=",
    "recovery_end_command=",
    "primary_conninfo=",
    "primary_slot_name=",
    "synchronous_standby_names=",
    "max_logical_replication_workers=0",
    "shared_preload_libraries=",
    "session_preload_libraries=",
    "local_preload_libraries=",
    "external_pid_file=",
    "logging_collector=off",
    "log_destination=stderr",
    "log_min_messages=fatal",
    "log_connections=off",
];

/// A server that runs on a restored cluster until it is stopped or dropped. It listens at a Unix socket alone, and lets
/// whoever may open that in as any role, without a password.
#[derive(Debug)]
pub struct ScratchServer {
    program: Option<Program>,
    children: Children,
    folder: Folder,
}

/// The socket's, and the settings', removed when it is dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "the folder of a server's socket was not removed");
        }
    }
}

impl ScratchServer {
    /// The folder of its socket: what libpq takes for a host.
    pub fn host(&self) -> &Path {
        &self.folder.0
    }

    /// What libpq takes for its port.
    pub const fn port(&self) -> u16 {
        PORT
    }

    /// Starts one, and waits until it has recovered.
    pub(crate) fn start(
        cluster: &Path,
        version: u32,
        options: &ClusterRestoreOptions,
        timeout: Duration,
        children: &Children,
    ) -> Result<Self> {
        let needs = |name| {
            find(name, version, options, children).ok_or_else(|| {
                Error::invalid_request(format!(
                    "no {name} of PostgreSQL {version} is there: install it, or set programs to its folder"
                ))
            })
        };
        let path = needs(SERVER)?;
        let as_high = as_high(&needs(CONTROL)?, cluster, children)?;
        let failed = |error| Failed::start(SERVER, error);
        let owner = owner(cluster)?;
        let folder = make_folder(owner).map_err(failed)?;
        let within = |name: &str| folder.0.join(name).display().to_string();
        let mut command = command(&path);
        command.arg("-D").arg(cluster).current_dir("/");
        let files = [
            format!("config_file={}", within("postgresql.conf")),
            format!("hba_file={}", within("pg_hba.conf")),
            format!("ident_file={}", within("pg_ident.conf")),
            format!("unix_socket_directories={}", folder.0.display()),
        ];
        let own = files.iter().chain(&as_high).map(String::as_str);
        for setting in own.chain(SETTINGS) {
            command.arg("-c").arg(setting);
        }
        if let Some((uid, gid)) = owner {
            command.uid(uid).gid(gid);
        }
        let mut program = Program::start(SERVER, command, timeout, children)?;
        program.close_input();
        let begun = Instant::now();
        while !is_ready(cluster) {
            if program.has_ended_within(LOOK_EVERY).map_err(failed)? {
                program.finish(children)?;
                return Err(Failed::stalled(SERVER, begun.elapsed(), String::new()));
            }
            if children.given_up() {
                return Err(crate::error::given_up());
            }
            if begun.elapsed() >= timeout {
                return Err(Error::backend(
                    BACKEND,
                    format!("starting {SERVER}"),
                    Retryability::Permanent,
                    io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("it is not ready after {} s", timeout.as_secs_f32()),
                    ),
                ));
            }
        }
        Ok(Self {
            program: Some(program),
            children: children.clone(),
            folder,
        })
    }

    /// Has it shut down in order, so that the cluster can be started again.
    pub(crate) fn stop(mut self) -> Result<()> {
        match self.program.take() {
            Some(program) => {
                program.interrupt();
                program.finish(&self.children)
            }
            None => Ok(()),
        }
    }
}

/// Settings as the server had them that was backed up, or its primary. Without one that it needs, a server says so.
fn as_high(program: &Path, cluster: &Path, children: &Children) -> Result<Vec<String>> {
    let mut command = command(program);
    command.arg("-D").arg(cluster);
    let mut program = Program::start(CONTROL, command, CONTROL_TIMEOUT, children)?;
    program.close_input();
    let mut found = Vec::new();
    // How it ended says more than a line that could not be read.
    while let Ok(Some(line)) = program.line() {
        let Some((what, value)) = line.split_once(':') else {
            continue;
        };
        if let (Some((_, setting)), Ok(value)) = (
            AS_HIGH.iter().find(|(name, _)| *name == what),
            value.trim().parse::<u32>(),
        ) {
            found.push(format!("{setting}={value}"));
        }
    }
    program.finish(children)?;
    Ok(found)
}

/// Whom the server runs as, where that is not who runs this: it does not run as root.
fn owner(cluster: &Path) -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let found = fs::metadata(cluster).map_err(|error| Failed::start(SERVER, error))?;
    match found.uid() {
        0 => Err(Error::invalid_request(format!(
            "{} belongs to root, and no server starts as root: restore with owners, or as another user",
            cluster.display()
        ))),
        uid => Ok(Some((uid, found.gid()))),
    }
}

fn make_folder(owner: Option<(u32, u32)>) -> io::Result<Folder> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let name = format!(
        "groundtackle-{}-{}",
        std::process::id(),
        now.unwrap_or_default().as_nanos()
    );
    let path = std::env::temp_dir().join(name);
    if path.as_os_str().len().saturating_add(SOCKET.len()) > MAX_SOCKET_PATH {
        return Err(io::Error::other(format!(
            "{} is too long for a socket: set TMPDIR to a shorter path",
            path.display()
        )));
    }
    // Nobody's before, nobody else's after.
    DirBuilder::new().mode(0o700).create(&path)?;
    let folder = Folder(path);
    let files = [
        ("postgresql.conf", ""),
        ("pg_ident.conf", ""),
        ("pg_hba.conf", "local all all trust\n"),
    ];
    for (name, text) in files {
        let path = folder.0.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        if let Some((uid, gid)) = owner {
            chown(&path, Some(uid), Some(gid))?;
        }
    }
    if let Some((uid, gid)) = owner {
        chown(&folder.0, Some(uid), Some(gid))?;
    }
    Ok(folder)
}

/// As the server itself notes.
fn is_ready(cluster: &Path) -> bool {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).unwrap_or_default();
    let status = text.lines().nth(7).map(str::trim);
    matches!(status, Some("ready" | "standby"))
}
