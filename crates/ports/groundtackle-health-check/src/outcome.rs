//! What a check finds.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It works.
    Pass,
    /// It works, and somebody should look at it.
    Warn,
    /// Nobody knows: it was not looked at, not lately, or it could not be seen from here.
    Unknown,
    /// It does not work.
    Fail,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Warn, Self::Unknown, Self::Fail];

    /// Whether it works: `Pass` or `Warn`. What is not known does not.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Pass | Self::Warn)
    }

    /// As it is written: `pass`, `warn`, `unknown` or `fail`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Unknown => "unknown",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why, in a word for machines: 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`. A cause is a label of metrics: a check has a few,
/// and never one with a number or a name in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Cause(Cow<'static, str>);

impl Cause {
    /// It works as it should.
    pub const OK: Self = Self(Cow::Borrowed("ok"));
    /// The check did not answer in its time.
    pub const TIMEOUT: Self = Self(Cow::Borrowed("timeout"));
    /// The run before has been cut off by its timeout and has not ended yet.
    pub const STILL_RUNNING: Self = Self(Cow::Borrowed("still-running"));
    /// The check panicked.
    pub const PANICKED: Self = Self(Cow::Borrowed("panicked"));
    /// The last result is older than it may be.
    pub const STALE: Self = Self(Cow::Borrowed("stale"));
    /// There is no result yet.
    pub const NOT_RUN: Self = Self(Cow::Borrowed("not-run"));
    /// There are results, and not yet enough of them that agree.
    pub const SETTLING: Self = Self(Cow::Borrowed("settling"));
    /// What it depends on has failed.
    pub const DEPENDENCY: Self = Self(Cow::Borrowed("dependency"));
    /// A heartbeat has not come.
    pub const SILENT: Self = Self(Cow::Borrowed("silent"));
    /// The start-up is complete.
    pub const STARTED: Self = Self(Cow::Borrowed("started"));
    /// The start-up is not complete.
    pub const STARTING: Self = Self(Cow::Borrowed("starting"));
    /// Nothing is registered that could say.
    pub const NOTHING_REGISTERED: Self = Self(Cow::Borrowed("nothing-registered"));

    const MAX_BYTES: usize = 64;

    /// A cause of this name. Whatever can't be part of one becomes `-`, and what is too long is cut.
    pub fn new(code: impl Into<Cow<'static, str>>) -> Self {
        let code = code.into();
        let fine = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.');
        if !code.is_empty() && code.len() <= Self::MAX_BYTES && code.chars().all(fine) {
            return Self(code);
        }
        let clean = code.chars().map(|c| c.to_ascii_lowercase());
        let clean = clean.map(|c| if fine(c) { c } else { '-' });
        let clean: String = clean.take(Self::MAX_BYTES).collect();
        Self(if clean.is_empty() {
            "-".into()
        } else {
            clean.into()
        })
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one run of a check found. Its time is taken by whoever receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Observation {
    /// How it is.
    pub outcome: Outcome,
    /// Why, for machines.
    pub cause: Cause,
    /// Why, for operators: one line of at most [`MAX_DETAIL_BYTES`](Self::MAX_DETAIL_BYTES), without secrets.
    pub detail: Option<Arc<str>>,
}

impl Observation {
    /// Longer details are cut.
    pub const MAX_DETAIL_BYTES: usize = 1024;

    /// An observation without detail.
    #[must_use]
    pub const fn new(outcome: Outcome, cause: Cause) -> Self {
        Self {
            outcome,
            cause,
            detail: None,
        }
    }

    /// It works.
    #[must_use]
    pub const fn pass() -> Self {
        Self::new(Outcome::Pass, Cause::OK)
    }

    /// It works, and somebody should look at it.
    pub fn warn(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Outcome::Warn, Cause::new(cause))
    }

    /// It does not work.
    pub fn fail(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Outcome::Fail, Cause::new(cause))
    }

    /// It can't be told.
    pub fn unknown(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Outcome::Unknown, Cause::new(cause))
    }

    /// Both, for a check that looks at several things: the worse outcome with its cause, the first one's if they are equal, and both
    /// details.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (worse, better) = if other.outcome > self.outcome {
            (other, self)
        } else {
            (self, other)
        };
        match (&worse.detail, &better.detail) {
            (_, None) => worse,
            (None, detail) => Self {
                detail: detail.clone(),
                ..worse
            },
            (Some(first), Some(second)) => {
                let both = format!("{first}; {second}");
                worse.with_detail(both)
            }
        }
    }

    /// With a line for operators. Control characters become spaces.
    #[must_use]
    pub fn with_detail(mut self, detail: impl AsRef<str>) -> Self {
        let mut line = String::new();
        for c in detail.as_ref().chars() {
            if line.len() + c.len_utf8() > Self::MAX_DETAIL_BYTES {
                break;
            }
            line.push(if c.is_control() { ' ' } else { c });
        }
        self.detail = Some(line.into());
        self
    }
}

/// What a check, a subset or an objective is called: 1 to 100 bytes, without control characters, and neither
/// beginning nor ending with a space. Whoever shows it must escape it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name.
    pub const MAX_BYTES: usize = 100;

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Name {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        let fine = !text.is_empty() && text.len() <= Self::MAX_BYTES && text.trim() == text;
        if !fine || text.chars().any(char::is_control) {
            return Err(Error::BadName { name: text.into() });
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.as_str().try_into()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().into()
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
