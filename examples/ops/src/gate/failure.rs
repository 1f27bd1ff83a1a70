//! What went wrong. Codes are 64 and above: those below are answers.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use groundtackle_release_gate::Error as GateError;
use thiserror::Error;

use crate::report::note;

#[derive(Debug, Error)]
pub enum Failure {
    #[error("the gate can't say")]
    Gate(#[from] GateError),
    #[error("{0}")]
    Usage(String),
    #[error("{} could not be read or written", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} could not be created", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("{} is damaged: {detail}", path.display())]
    BadData { path: PathBuf, detail: String },
    #[error("the head of the log, {}, is missing, and the log has records", path.display())]
    NoHead { path: PathBuf },
    #[error("{0}")]
    NotFound(String),
    #[error("standard output could not be written")]
    Output(#[source] io::Error),
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl From<crate::failure::Failure> for Failure {
    /// Of printing, which is all that is shared with the other commands.
    fn from(failure: crate::failure::Failure) -> Self {
        Self::Output(io::Error::other(failure))
    }
}

impl Failure {
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => super::USAGE,
            Self::Gate(error) => match error {
                GateError::InvalidPolicy { .. }
                | GateError::BrokenLog { .. }
                | GateError::Corrupt { .. }
                | GateError::InvalidRequest { .. } => 65,
                GateError::Untrusted { .. } => 69,
                _ => 74,
            },
            Self::BadData { .. } => 65,
            Self::NotFound(_) => 66,
            Self::File { source, .. } if source.kind() == ErrorKind::NotFound => 66,
            Self::NoHead { .. } => 69,
            Self::Create { .. } => 73,
            Self::File { .. } | Self::Output(_) => 74,
        }
    }

    fn way_out(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoHead { .. } => {
                "put the head's copy back: without it nobody can tell whether records were cut off"
            }
            Self::Create { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
                "name another file: this one is not replaced"
            }
            Self::Create { .. } => "check the path and its permissions",
            Self::Gate(GateError::Untrusted { .. }) => {
                "name the keys of all who signed it: --trust KEY"
            }
            Self::File { source, .. } if source.kind() != ErrorKind::NotFound => {
                "what was acknowledged is kept: check the disk, then run the same command again"
            }
            _ => return None,
        })
    }

    pub fn print(&self) {
        note(&format!("error: {self}"));
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
