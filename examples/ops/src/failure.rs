//! What went wrong, with which exit code, and the way out.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use groundtackle_backup::Error as BackupError;
use groundtackle_chain::{BlockHash, Error as ChainError};
use groundtackle_health_check::Error as HealthError;
use groundtackle_utxo_store::snapshot::{SnapshotError, SnapshotFormatError};
use groundtackle_utxo_store::{Error as StoreError, Tip, Verdict};
use thiserror::Error;

use crate::report::note;

/// The codes of `sysexits.h` where there is one; the table in [`crate::EXIT_CODES`] explains them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    No = 1,
    Usage = 2,
    BadData = 65,
    NotFound = 66,
    Unusable = 69,
    CannotCreate = 73,
    Io = 74,
    TryLater = 75,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[derive(Debug, Error)]
pub enum Failure {
    /// The answer is no; it has been printed.
    #[error("{0}")]
    No(String),
    #[error("interrupted")]
    Interrupted,
    #[error("there is no store at {0}")]
    NoStore(String),
    #[error("{url} could not be opened")]
    Open {
        url: String,
        creating: bool,
        source: StoreError,
    },
    #[error("{url} holds an unfinished copy of the set at height {height}")]
    UnfinishedCopy { url: String, height: u32 },
    #[error("the set could not be copied")]
    Copy(#[source] StoreError),
    #[error("the set could not be exported")]
    Export(#[source] SnapshotError),
    #[error("the snapshot could not be imported")]
    Import(#[source] SnapshotError),
    #[error("the backup or restore failed")]
    Backup(#[source] BackupError),
    #[error("{} could not be read or written", path.display())]
    ConfigFile { path: PathBuf, source: io::Error },
    #[error("the config is wrong: {0}")]
    Config(String),
    #[error("the checks can't be run")]
    Health(#[source] HealthError),
    #[error("{at} can't be listened at")]
    Listen { at: SocketAddr, source: io::Error },
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the next block could not be read")]
    Blocks(#[from] ChainError),
    #[error("block {height} could not be connected")]
    Connect { height: u32, source: StoreError },
    #[error("block {height} ({hash}) was refused")]
    Refused {
        height: u32,
        hash: BlockHash,
        source: Verdict,
    },
    #[error("block {} ({}) could not be taken back", tip.height, tip.hash)]
    NotTakenBack { tip: Tip, source: Verdict },
    #[error("the store {}, so it can't be rewound to {to}", match tip {
        Some(tip) => format!("ends at height {tip}"),
        None => "is empty".into(),
    })]
    AboveTip { tip: Option<u32>, to: u32 },
    #[error("{what} could not be made")]
    Create {
        what: &'static str,
        source: io::Error,
    },
    #[error("{what}")]
    System {
        what: &'static str,
        source: io::Error,
    },
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn exit(&self) -> Exit {
        match self {
            Self::No(_) => Exit::No,
            Self::Interrupted => Exit::Interrupted,
            Self::AboveTip { .. } | Self::Config(_) => Exit::Usage,
            Self::ConfigFile { source, .. } => match source.kind() {
                ErrorKind::NotFound => Exit::NotFound,
                _ => Exit::Io,
            },
            Self::Backup(error) => of_backup(error),
            Self::UnfinishedCopy { .. } => Exit::Unusable,
            Self::NoStore(_) => Exit::NotFound,
            Self::Refused { .. } | Self::NotTakenBack { .. } => Exit::BadData,
            Self::Create { .. } => Exit::CannotCreate,
            Self::System { .. } => Exit::Io,
            Self::Listen { source, .. } => match source.kind() {
                ErrorKind::AddrInUse => Exit::TryLater,
                _ => Exit::Io,
            },
            Self::Health(error) => match error {
                HealthError::Ledger { .. } => Exit::Io,
                HealthError::LedgerDamaged { .. } => Exit::BadData,
                HealthError::LedgerInUse { .. } => Exit::TryLater,
                _ => Exit::Usage,
            },
            Self::Blocks(error) => match error {
                ChainError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                    Exit::NotFound
                }
                ChainError::NoBlockFiles { .. } => Exit::NotFound,
                ChainError::Io { .. } | ChainError::Source { .. } | ChainError::Stopped => Exit::Io,
                _ => Exit::BadData,
            },
            Self::Export(error) => match error {
                SnapshotError::Store(source) => of_store(source),
                SnapshotError::Exists { .. } => Exit::CannotCreate,
                SnapshotError::Io { source, .. } if is_missing_or_denied(source) => {
                    Exit::CannotCreate
                }
                SnapshotError::Io { .. } => Exit::Io,
                error if is_io(error) => Exit::Io,
                _ => Exit::Unusable,
            },
            Self::Import(error) => match error {
                SnapshotError::Store(source) => of_store(source),
                SnapshotError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                    Exit::NotFound
                }
                SnapshotError::Io { .. } => Exit::Io,
                SnapshotError::NoDigest { .. }
                | SnapshotError::UnknownHeight { .. }
                | SnapshotError::WrongHeight { .. } => Exit::Usage,
                error if is_io(error) => Exit::Io,
                _ => Exit::BadData,
            },
            Self::Store(source) | Self::Copy(source) | Self::Connect { source, .. } => {
                of_store(source)
            }
            Self::Open {
                creating, source, ..
            } => match source {
                StoreError::Backend { .. } | StoreError::InvalidRequest { .. } if *creating => {
                    Exit::CannotCreate
                }
                source => of_store(source),
            },
        }
    }

    /// What to do next, where the message and its causes don't say it already.
    fn way_out(&self) -> Option<String> {
        Some(match self {
            Self::NoStore(url) if url == "memory:" => {
                "a store in memory ends with the command that filled it: use embedded:PATH".into()
            }
            Self::NoStore(url) => format!(
                "check the path, or fill a new store: ops utxo sync --store {url} --blocks PATH"
            ),
            Self::Open {
                source: StoreError::Backend { .. },
                ..
            } => "check the path, its permissions and the disk, then run the same command again"
                .into(),
            Self::Store(source) | Self::Connect { source, .. }
                if matches!(source, StoreError::Backend { .. }) =>
            {
                "all that was acknowledged is kept: check the disk, then run the same command again"
                    .into()
            }
            Self::Blocks(ChainError::WrongNetwork { found, .. }) => {
                format!("if these are the blocks you want, add --network {found}")
            }
            Self::Blocks(ChainError::BlockTooLarge { .. }) => {
                "copy the file again, or raise --max-block-size if blocks may be that large".into()
            }
            Self::Blocks(ChainError::PartialRecord { .. }) => {
                "the option is --partial-tail; a later sync goes on with the rest".into()
            }
            Self::Blocks(ChainError::StartNotFound { .. }) => {
                "if the chain of these files left that block, go below it: ops utxo rewind".into()
            }
            Self::Refused { height, .. } => format!(
                "all before the block is kept; check where the blocks come from, and compare \
                 `ops utxo stats` with a node's gettxoutsetinfo at height {}",
                height.saturating_sub(1)
            ),
            Self::NotTakenBack { .. } => {
                "sync a new store to that height, or restore one from a backup".into()
            }
            Self::UnfinishedCopy { .. } => {
                "finish it by the same ops utxo copy, ops snapshot import or ops restore as before, or use another store".into()
            }
            Self::Copy(StoreError::Backend { .. } | StoreError::GaveUp { .. }) => {
                "run the same command again: it goes on where it stopped".into()
            }
            Self::Export(SnapshotError::Exists { .. }) => {
                "name another file, or add --replace".into()
            }
            Self::Import(SnapshotError::WrongNetwork { found, .. }) => {
                format!("if this is the snapshot you want, add --network {found}")
            }
            Self::Import(SnapshotError::NoDigest { .. }) => {
                "add --expect-muhash HEX or --expect-hash-serialized-3 HEX".into()
            }
            Self::Import(SnapshotError::UnknownHeight { .. }) => "add --height HEIGHT".into(),
            Self::Import(SnapshotError::NotInOrder { .. }) => "use --expect-muhash HEX".into(),
            Self::Export(SnapshotError::Io { .. })
            | Self::Import(SnapshotError::Io { .. }) => {
                "check the path, its permissions and the disk, then run the same command again"
                    .into()
            }
            Self::Export(SnapshotError::Store(error)) | Self::Import(SnapshotError::Store(error))
                if matches!(
                    error,
                    StoreError::Backend { .. } | StoreError::GaveUp { .. }
                ) =>
            {
                "run the same command again".into()
            }
            Self::AboveTip { .. } => "name a height at or below the store's".into(),
            _ => return None,
        })
    }

    /// One line for the error, one for each cause, one for the way out; all to stderr.
    pub fn print(&self) {
        match self {
            Self::No(_) | Self::Interrupted => note(&self.to_string()),
            _ => note(&format!("error: {self}")),
        }
        let mut cause = self.source();
        while let Some(error) = cause {
            note(&format!("  because: {error}"));
            cause = error.source();
        }
        if let Some(way_out) = self.way_out() {
            note(&format!("  what to do: {way_out}"));
        }
    }
}

fn is_missing_or_denied(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::PermissionDenied
    )
}

fn is_io(error: &SnapshotError) -> bool {
    let SnapshotError::Format { source, .. } = error else {
        return false;
    };
    matches!(source, SnapshotFormatError::Io { .. })
}

fn of_backup(error: &BackupError) -> Exit {
    match error {
        // What a store said is the cause.
        BackupError::Backend { source, .. } => match source.downcast_ref() {
            Some(error) => of_store(error),
            None => Exit::Io,
        },
        BackupError::Overloaded { .. }
        | BackupError::Leased { .. }
        | BackupError::LeaseLost { .. } => Exit::TryLater,
        BackupError::Missing { object, .. } if object == "repository.json" => Exit::NotFound,
        BackupError::Missing { .. }
        | BackupError::Corrupt { .. }
        | BackupError::Differs { .. }
        | BackupError::Incomplete { .. } => Exit::BadData,
        BackupError::Unreachable { .. } => Exit::Usage,
        BackupError::WrongKey { .. }
        | BackupError::Untrusted { .. }
        | BackupError::NewerFormat { .. }
        | BackupError::Denied { .. }
        | BackupError::InvalidRequest { .. } => Exit::Unusable,
        _ => Exit::Io,
    }
}

fn of_store(error: &StoreError) -> Exit {
    match error {
        StoreError::InUse { .. } | StoreError::Overloaded { .. } => Exit::TryLater,
        StoreError::NewerFormat { .. } | StoreError::InvalidRequest { .. } => Exit::Unusable,
        StoreError::NotFound { .. } => Exit::NotFound,
        StoreError::Corrupt { .. } | StoreError::WrongRecord { .. } => Exit::BadData,
        StoreError::GaveUp { source, .. } => of_store(source),
        _ => Exit::Io,
    }
}
