//! A cluster out of a restore point.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use groundtackle_backup::{Error, KeyUnwrapping, Manifest, Repository, Result};
use groundtackle_backup_files::{Restored, restore_checked};

use crate::cluster::VERSION;
use crate::config::{ClusterRestoreOptions, Verify};
use crate::program::{Children, Program, command};

/// PostgreSQL's own check.
const VERIFY: &str = "pg_verifybackup";

/// How long a program may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(30);

/// What a restore of a cluster made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoredCluster {
    /// Files and bytes.
    pub restored: Restored,
    /// PostgreSQL's major version, that of the server to start on it.
    pub version: u32,
    /// Whether `pg_verifybackup` found it whole; otherwise it was not there, or not asked for.
    pub verified: bool,
}

/// Restores a cluster into a folder that is new or empty. It is written beside `into`, compared with what was signed, flushed,
/// and verified by PostgreSQL: then it takes the place of `into`. A server of its version started on it recovers by the
/// log that came with it.
///
/// **Atomicity**, **idempotency**: see [`groundtackle_backup_files::restore`]. **Cancel safety**: as there; `pg_verifybackup`
/// is killed.
///
/// # Errors
/// As there. `Differs` where `pg_verifybackup` finds it damaged, `Backend` where it takes too long. `InvalidRequest` where it is
/// [required](Verify::Require) and not there, or for a restore point that is no cluster.
pub async fn restore_cluster(
    repository: &Repository,
    manifest: &Manifest,
    keys: &dyn KeyUnwrapping,
    into: &Path,
    options: ClusterRestoreOptions,
) -> Result<RestoredCluster> {
    let children = Children::default();
    let _ends_with_this = children.end_on_drop();
    let (found, point) = (
        std::sync::Arc::new(std::sync::OnceLock::new()),
        manifest.point,
    );
    let (files, tell) = (options.files, found.clone());
    let check = move |folder: &Path| {
        let version = version(folder).ok_or_else(|| {
            Error::invalid_request(format!(
                "restore point {point} is no cluster; restore it as what it is"
            ))
        })?;
        let verified = verify(folder, version, &options, &children)?;
        // Nobody else does.
        let _ = tell.set((version, verified));
        Ok(())
    };
    let restored = restore_checked(repository, manifest, keys, into, files, check).await?;
    let (version, verified) = found.get().copied().unwrap_or_default();
    Ok(RestoredCluster {
        restored,
        version,
        verified,
    })
}

/// The major version of a folder with a cluster that came from a server.
fn version(folder: &Path) -> Option<u32> {
    let manifest = std::str::from_utf8(crate::manifest::NAME).unwrap_or_default();
    let there = folder.join(manifest).is_file() && folder.join("backup_label").is_file();
    let text = fs::read_to_string(folder.join(VERSION)).ok()?;
    text.trim().parse().ok().filter(|_| there)
}

fn verify(
    folder: &Path,
    version: u32,
    options: &ClusterRestoreOptions,
    children: &Children,
) -> Result<bool> {
    if options.verify == Verify::Skip {
        return Ok(false);
    }
    let Some(program) = find(VERIFY, version, options, children) else {
        return match options.verify {
            Verify::Require => Err(Error::invalid_request(format!(
                "no {VERIFY} of PostgreSQL {version} is there: install it, set programs to its folder, or do not require it"
            ))),
            _ => {
                tracing::warn!(version, "no pg_verifybackup is there: it was not run");
                Ok(false)
            }
        };
    };
    let mut command = command(&program);
    command.args(["--quiet", "--exit-on-error"]).arg(folder);
    let mut program = Program::start(VERIFY, command, options.verify_timeout, children)?;
    program.close_input();
    // It says nothing there; its end is the end of that. Another end is told by the next line.
    let _ = program.read_to_end(&mut Vec::new());
    let stalled = program.has_stalled();
    match program.finish(children) {
        Ok(()) => Ok(true),
        Err(Error::Backend { source, .. }) if !stalled => {
            let mut found = source.to_string();
            if let Some(said) = source.source() {
                found = format!("{found}, {said}");
            }
            Err(Error::Differs {
                what: "the cluster, as pg_verifybackup finds it,",
                wanted: "what the server listed".into(),
                found,
            })
        }
        Err(error) => Err(error),
    }
}

/// A program of this version. Others do not read its log.
pub(crate) fn find(
    name: &'static str,
    version: u32,
    options: &ClusterRestoreOptions,
    children: &Children,
) -> Option<PathBuf> {
    let folders = match &options.programs {
        Some(folder) => vec![folder.clone()],
        None => vec![
            format!("/usr/lib/postgresql/{version}/bin").into(),
            format!("/usr/pgsql-{version}/bin").into(),
            PathBuf::new(),
        ],
    };
    let mut programs = folders.into_iter().map(|folder| folder.join(name));
    programs.find(|program| said_version(name, program, children) == Some(version))
}

/// As `pg_verifybackup (PostgreSQL) 15.18 (Debian …)` has it, or `17beta1`.
fn said_version(name: &'static str, program: &Path, children: &Children) -> Option<u32> {
    let mut command = command(program);
    command.arg("--version");
    let mut program = Program::start(name, command, VERSION_TIMEOUT, children).ok()?;
    program.close_input();
    let line = program.line().ok()??;
    program.finish(children).ok()?;
    let (_, version) = line.split_once("(PostgreSQL) ")?;
    let digits = version.find(|c: char| !c.is_ascii_digit());
    version.get(..digits.unwrap_or(version.len()))?.parse().ok()
}
