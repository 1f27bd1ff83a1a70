//! A whole cluster, by `pg_basebackup`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use groundtackle_backup::{BackUp, Error, Repository, Result};
use groundtackle_backup_files::{EntryAttributes, Made, StreamedTree};
use tar::{Archive, Entry, EntryType};

use crate::config::PostgresBackupConfig;
use crate::error::{BACKEND, incomplete};
use crate::manifest::{self, Came, compare};
use crate::program::{Children, Program};
use crate::stream;

/// The version that a cluster's folder is of.
pub(crate) const VERSION: &str = "PG_VERSION";

/// Backups of a running cluster: all of its databases, and what a server needs to start on them.
#[derive(Clone, Debug)]
pub struct PostgresBackup {
    config: PostgresBackupConfig,
}

impl PostgresBackup {
    /// Of this server.
    ///
    /// # Errors
    /// `InvalidRequest` for a config that can't be.
    pub fn new(config: PostgresBackupConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config })
    }

    /// Backs the cluster up, while it runs: a restored one begins with all that was committed before this was called, and with
    /// what was committed up to some moment before it returned. With the [state](PostgresBackupConfig::state) of the last
    /// backup, only what no restore point has; `whole` stores everything anew. Nothing of it is written to this host's disks.
    ///
    /// **Atomicity**: see [`Repository::back_up`]. **Idempotency**: none. **Cancel safety**: the programs are killed, and
    /// nothing is listed. Memory: some segments of 4 MiB, 500 bytes for each file, and 100 for each chunk (some 512 KiB).
    ///
    /// # Errors
    /// `InvalidRequest` where a program is not there. `Backend` where one failed, or brought nothing for
    /// [`stall_timeout`](PostgresBackupConfig::stall_timeout); what it said is the source's source. `Incomplete` where what
    /// came is not what the server listed. When the target could not answer.
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
    let held = match config.hold_wal {
        true => Some(hold_wal(config, children)?),
        false => None,
    };
    let rate = config.max_rate.map(|rate| {
        // In KiB, which the server calls kB.
        format!("--max-rate={}k", rate.bytes() >> 10)
    });
    let mut arguments: Vec<&OsStr> = [
        "--pgdata=-",
        "--format=tar",
        // The log comes last in the same stream, so that a restore point needs nothing else.
        "--wal-method=fetch",
        "--manifest-checksums=CRC32C",
        "--label=groundtackle",
        "--no-password",
        match config.fast_checkpoint {
            true => "--checkpoint=fast",
            false => "--checkpoint=spread",
        },
    ]
    .map(OsStr::new)
    .into();
    arguments.extend(rate.as_deref().map(OsStr::new));
    tracing::debug!(server = config.server(), "pg_basebackup begins");
    let mut program = Program::connect(config, "pg_basebackup", &arguments, children)?;
    program.close_input();
    let read = read(tree, &mut program);
    stream::ended(program, read, children)?;
    match held {
        Some(held) => held.finish(children),
        None => Ok(()),
    }
}

/// A slot that keeps the log from now on, as long as its connection lasts: `fetch` takes it at the end, when a busy server would
/// have removed its beginning.
fn hold_wal(config: &PostgresBackupConfig, children: &Children) -> Result<Program> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let name = format!(
        "groundtackle_{}_{}",
        std::process::id(),
        now.unwrap_or_default().as_nanos()
    );
    let arguments = [
        "--no-psqlrc",
        "--quiet",
        "--tuples-only",
        "--no-align",
        "--no-password",
        "--set=ON_ERROR_STOP=1",
        "--dbname=replication=true",
    ];
    let mut psql = Program::connect(config, "psql", &arguments.map(OsStr::new), children)?;
    let told = psql.tell(&format!(
        "CREATE_REPLICATION_SLOT \"{name}\" TEMPORARY PHYSICAL RESERVE_WAL;"
    ));
    let answer = told.and_then(|()| psql.line());
    match answer {
        Ok(Some(line)) if line.starts_with(&name) => Ok(psql),
        _ => {
            psql.finish(children)?;
            Err(incomplete(
                "psql made no replication slot, and said nothing: set hold_wal to false, and wal_keep_size on the server",
            ))
        }
    }
}

/// Counts and sums what is read of a file, and keeps it if asked to.
struct Summed<'a, R> {
    from: &'a mut R,
    came: Came,
    digest: crc_fast::Digest,
    kept: Option<Vec<u8>>,
}

impl<R: Read> Read for Summed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        let read = buffer.get(..count).unwrap_or_default();
        self.digest.update(read);
        self.came.bytes = self.came.bytes.saturating_add(read.len() as u64);
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(read);
        }
        Ok(count)
    }
}

fn cut_short(error: io::Error) -> Error {
    Error::backend(
        BACKEND,
        "reading what pg_basebackup sends",
        groundtackle_backup::Retryability::Transient,
        error,
    )
}

/// The stream into the tree, and what came compared with the server's list.
fn read(tree: &mut StreamedTree<'_>, program: &mut Program) -> Result<()> {
    let mut came = HashMap::new();
    let mut listed = None;
    let mut owner = None;
    let mut archive = Archive::new(&mut *program);
    for entry in archive.entries().map_err(cut_short)? {
        let mut entry = entry.map_err(cut_short)?;
        let path = entry.path_bytes();
        let path = path.strip_prefix(b"./").unwrap_or(&path);
        let path = path.strip_suffix(b"/").unwrap_or(path).to_vec();
        let attributes = attributes(&entry).map_err(cut_short)?;
        let shown = || String::from_utf8_lossy(&path).escape_debug().to_string();
        match entry.header().entry_type() {
            EntryType::Directory => tree.directory(&path, attributes)?,
            EntryType::Regular => {
                let length = entry.size();
                let is_list = path == manifest::NAME;
                if is_list && length > manifest::MAX_BYTES {
                    return Err(incomplete(format!(
                        "backup_manifest has {length} bytes, and {} is the most",
                        manifest::MAX_BYTES
                    )));
                }
                let mut content = Summed {
                    from: &mut entry,
                    came: Came {
                        bytes: 0,
                        crc32c: 0,
                    },
                    digest: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi),
                    kept: is_list.then(Vec::new),
                };
                tree.file(&path, attributes, &mut content)?;
                let (mut this, kept) = (content.came, content.kept);
                // 32 bits of 64.
                this.crc32c = u32::try_from(content.digest.finalize()).unwrap_or_default();
                if this.bytes != length {
                    return Err(incomplete(format!("{} is cut short", shown())));
                }
                owner = owner.or(Some(attributes));
                match kept {
                    Some(kept) if listed.is_none() => listed = Some(kept),
                    Some(_) => return Err(incomplete("backup_manifest came twice")),
                    None => drop(came.insert(path, this)),
                }
            }
            EntryType::Symlink if path.starts_with(b"pg_tblspc/") => {
                return Err(Error::invalid_request(format!(
                    "{} is a tablespace elsewhere, which can't be backed up: move what is in it to pg_default",
                    shown()
                )));
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                tree.symlink(&path, attributes, &target)?;
            }
            other => {
                return Err(incomplete(format!(
                    "{} is of a kind that a server does not send ({other:?})",
                    shown()
                )));
            }
        }
    }
    // What fills up the last block; with it, the end is known to be the end.
    let mut rest = [0; 4 << 10];
    loop {
        let count = program.read(&mut rest).map_err(cut_short)?;
        let read = rest.get(..count).unwrap_or_default();
        if read.is_empty() {
            break;
        }
        if read.iter().any(|byte| *byte != 0) {
            return Err(incomplete(
                "something follows the end of what pg_basebackup sends",
            ));
        }
    }
    let listed = listed.ok_or_else(|| {
        incomplete("no backup_manifest came: PostgreSQL 13 is the oldest that can be backed up")
    })?;
    compare(&listed, &came)?;
    if !came.contains_key(VERSION.as_bytes()) {
        return Err(incomplete("no PG_VERSION came"));
    }
    let owner = owner.ok_or_else(|| incomplete("nothing came"))?;
    // The folder itself is not sent.
    let root = EntryAttributes::new(0o700, owner.uid, owner.gid, owner.mtime_seconds);
    tree.directory(b"", root)
}

fn attributes<R: Read>(entry: &Entry<'_, R>) -> io::Result<EntryAttributes> {
    let header = entry.header();
    let number = |number: u64| {
        u32::try_from(number).map_err(|_| io::Error::other("an owner's number is too large"))
    };
    Ok(EntryAttributes::new(
        header.mode()? & 0o7777,
        number(header.uid()?)?,
        number(header.gid()?)?,
        i64::try_from(header.mtime()?).unwrap_or_default(),
    ))
}
