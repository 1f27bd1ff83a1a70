use std::error::Error as StdError;
use std::fmt::Display;

/// The result of a step of the migration.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a step of the migration did not succeed. Unless it says otherwise, the service goes on with the store it had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A store, a journal or the scratch folder could not answer: do the step again.
    #[error("{what} failed")]
    Failed {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// It can't be done as things are. Doing it again is no help.
    #[error("{0}")]
    Refused(String),
    /// The two stores have different sets at one block. The store that serves is left as it is.
    #[error(
        "the stores differ after block {hash} at height {height}: the one that serves has the digest {serving}, and the other \
         one {other}; begin again with an empty store, and look for what wrote to either past the migration"
    )]
    Differ {
        /// The height at which they were compared.
        height: u32,
        /// The block there.
        hash: String,
        /// The digest of the store that serves.
        serving: String,
        /// The digest of the other one.
        other: String,
    },
    /// The switch took longer than it may, and nothing was switched.
    #[error("the switch was given up: calls would have waited longer than {max_pause_millis} ms")]
    TooLong {
        /// How long they may wait.
        max_pause_millis: u128,
    },
    /// Whether the switch is on disk is not known, so no store serves any more: start the process again.
    #[error("the service must be started again: it is not known which store serves")]
    InDoubt,
}

/// Says what was being done.
pub(crate) trait While<T> {
    fn when(self, what: impl Display) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> While<T> for std::result::Result<T, E> {
    fn when(self, what: impl Display) -> Result<T> {
        self.map_err(|source| Error::Failed {
            what: what.to_string(),
            source: source.into(),
        })
    }
}
