use std::error::Error;
use std::fmt::Display;

pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a round did not go well. The exit code tells which.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What the operator has to set.
    #[error("{0}")]
    Config(String),
    /// Store, journal or bucket could not answer.
    #[error("{what} failed")]
    Failed {
        what: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Backups may not come back.
    #[error("the drill failed: {0}")]
    Drill(String),
}

impl Failure {
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Failed { .. } => 1,
            Self::Config(_) => 2,
            Self::Drill(_) => 3,
        }
    }

    /// With its causes, on one line.
    pub fn told(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    }
}

/// Says what was being done.
pub trait While<T> {
    fn when(self, what: impl Display) -> Result<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> While<T> for std::result::Result<T, E> {
    fn when(self, what: impl Display) -> Result<T> {
        self.map_err(|source| Failure::Failed {
            what: what.to_string(),
            source: source.into(),
        })
    }
}
