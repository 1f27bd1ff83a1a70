//! Why the service can't go on, for whoever reads the log.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

pub type Result<T, E = Failure> = std::result::Result<T, E>;

type Source = Box<dyn Error + Send + Sync>;

#[derive(Debug)]
pub struct Failure {
    what: String,
    code: u8,
    source: Option<Source>,
}

impl Failure {
    /// What the operator has to change.
    pub fn config(what: impl Into<String>) -> Self {
        let (what, source) = (what.into(), None);
        Self {
            what,
            code: 2,
            source,
        }
    }

    pub fn of(what: impl Into<String>) -> Self {
        let (what, source) = (what.into(), None);
        Self {
            what,
            code: 1,
            source,
        }
    }

    pub fn exit(&self) -> ExitCode {
        self.code.into()
    }
}

/// Says what was being done.
pub trait While<T> {
    fn when(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Source>> While<T> for std::result::Result<T, E> {
    fn when(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|source| Failure {
            source: Some(source.into()),
            ..Failure::of(format!("{what} failed"))
        })
    }
}

/// With its causes, on one line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        let mut cause = self
            .source
            .as_ref()
            .map(|source| &**source as &(dyn Error + 'static));
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl Error for Failure {}
