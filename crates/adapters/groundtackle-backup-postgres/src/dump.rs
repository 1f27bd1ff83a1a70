//! One database, by `pg_dump`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use groundtackle_backup::{BackUp, Error, KeyUnwrapping, Manifest, Repository, Result};
use groundtackle_backup_files::{
    EntryAttributes, Made, RestoreOptions, Restored, StreamedTree, restore_checked,
};

use crate::config::PostgresBackupConfig;
use crate::error::{Failed, incomplete};
use crate::program::{Children, Program};
use crate::stream;

/// The file that a dump's tree has.
const FILE: &str = "database.dump";

/// What `pg_dump`'s custom format begins with.
const MAGIC: &[u8; 5] = b"PGDMP";

/// Backups of one database in `pg_dump`'s custom format, which `pg_restore` takes: readable by later versions of PostgreSQL, and
/// table by table. Roles and tablespaces are not in it.
#[derive(Clone, Debug)]
pub struct PostgresDump {
    config: PostgresBackupConfig,
}

impl PostgresDump {
    /// Of the config's database.
    ///
    /// # Errors
    /// `InvalidRequest` for a config that can't be, or has no database.
    pub fn new(config: PostgresBackupConfig) -> Result<Self> {
        config.check()?;
        if config.database.is_none() {
            return Err(Error::invalid_request(
                "database is missing: name the one to dump",
            ));
        }
        Ok(Self { config })
    }

    /// Dumps the database as it is at one moment after this was called. It is not compressed by `pg_dump`, so that what did not
    /// change is found in earlier restore points; the repository compresses it.
    ///
    /// **Atomicity**, **idempotency**, **cancel safety**, memory: as
    /// [`PostgresBackup::back_up`](crate::PostgresBackup::back_up).
    ///
    /// # Errors
    /// As there.
    pub async fn back_up(
        &self,
        repository: &Repository,
        how: &BackUp<'_>,
        whole: bool,
    ) -> Result<Made> {
        stream::back_up(&self.config, repository, how, whole, fill).await
    }
}

fn fill(
    tree: &mut StreamedTree<'_>,
    config: &PostgresBackupConfig,
    children: &Children,
) -> Result<()> {
    let waits = format!("--lock-wait-timeout={}", config.stall_timeout.as_millis());
    let arguments = [
        "--format=custom",
        "--compress=0",
        "--no-password",
        waits.as_str(),
    ];
    tracing::debug!(server = config.server(), "pg_dump begins");
    let mut program = Program::connect(config, "pg_dump", &arguments.map(OsStr::new), children)?;
    program.close_input();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or_default();
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let attributes = |mode| EntryAttributes::new(mode, uid.as_raw(), gid.as_raw(), now);
    let mut read = || {
        let mut magic = Vec::new();
        let begins = (&mut program)
            .take(MAGIC.len() as u64)
            .read_to_end(&mut magic);
        begins.map_err(|error| Failed::start("pg_dump", error))?;
        if magic != MAGIC {
            return Err(incomplete(
                "what pg_dump brings is not in its custom format",
            ));
        }
        tree.directory(b"", attributes(0o700))?;
        let mut content = Cursor::new(magic).chain(&mut program);
        tree.file(FILE.as_bytes(), attributes(0o600), &mut content)
    };
    let read = read().map(drop);
    stream::ended(program, read, children)
}

/// Restores a dump into a folder that is new or empty, as whoever restores; where the file is, for `pg_restore`.
///
/// **Atomicity**, **idempotency**, **cancel safety**: see [`groundtackle_backup_files::restore`].
///
/// # Errors
/// As there. `InvalidRequest` for a restore point that is no dump.
pub async fn restore_dump(
    repository: &Repository,
    manifest: &Manifest,
    keys: &dyn KeyUnwrapping,
    into: &Path,
) -> Result<PathBuf> {
    let (file, _) = restore_dump_as(repository, manifest, keys, into).await?;
    Ok(file)
}

/// The same, and what was made.
pub(crate) async fn restore_dump_as(
    repository: &Repository,
    manifest: &Manifest,
    keys: &dyn KeyUnwrapping,
    into: &Path,
) -> Result<(PathBuf, Restored)> {
    let point = manifest.point;
    let check = move |folder: &Path| {
        let mut begins = [0; MAGIC.len()];
        let read = File::open(folder.join(FILE)).and_then(|mut file| file.read_exact(&mut begins));
        match read {
            Ok(()) if begins == *MAGIC => Ok(()),
            _ => Err(Error::invalid_request(format!(
                "restore point {point} is no dump of a database; restore it as what it is"
            ))),
        }
    };
    let options = RestoreOptions::default().with_unprivileged(true);
    let restored = restore_checked(repository, manifest, keys, into, options, check).await?;
    Ok((into.join(FILE), restored))
}
