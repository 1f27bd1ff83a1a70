//! What went wrong.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no result. Nothing of a key is ever in it. Objects are told by their key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or a folder could not be read or written.
    #[error("{} can't be read or written", _0.display())]
    Io(PathBuf, #[source] io::Error),
    /// An object that is needed is not there.
    #[error("object {0} is missing")]
    Missing(String),
    /// An object can't be what was written; and how that shows.
    #[error("object {0} is damaged ({1})")]
    Damaged(String, String),
    /// Nobody who is trusted signed an object.
    #[error("object {0} is not signed by a trusted key")]
    Untrusted(String),
    /// A newer version of the software wrote an object, in this format.
    #[error("object {0} has format {1}, and this version reads format 1")]
    NewerFormat(String, u64),
    /// No identity opens a restore point; and whom it is for.
    #[error("no identity given opens {0}, which was sealed to {1}")]
    WrongKey(String, String),
    /// The restore points do not lead to what is asked for.
    #[error("{0}")]
    Unreachable(String),
    /// What came out is not what was backed up: what, how much was signed, how much came.
    #[error("{0} differs: {1} was backed up, and {2} came out")]
    Differs(&'static str, String, String),
    /// It can't be done as asked.
    #[error("{0}")]
    InvalidRequest(String),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io(path.clone(), source)
    }

    /// Of what was read from a file that is there, as an object's.
    pub(crate) fn of_object(object: &str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Self::Missing(object.into()),
            io::ErrorKind::UnexpectedEof => Self::damaged(object, "it is cut short"),
            _ => Self::Io(path.to_owned(), source),
        }
    }

    pub(crate) fn damaged(object: &str, detail: impl Display) -> Self {
        Self::Damaged(object.into(), detail.to_string())
    }

    pub(crate) fn unless(fine: bool, object: &str, detail: &str) -> Result<()> {
        fine.then_some(())
            .ok_or_else(|| Self::damaged(object, detail))
    }
}
