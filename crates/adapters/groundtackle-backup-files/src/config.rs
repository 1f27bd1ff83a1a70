//! What is backed up, and how it comes back.

use std::path::PathBuf;

use glob::{MatchOptions, Pattern};
use groundtackle_backup::{Error, Result};
use serde::Deserialize;

/// A tree to back up.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FilesConfig {
    /// The directory, followed if it is a link. No default.
    pub path: PathBuf,
    /// What is left out: globs over paths within the directory, without a slash at either end. `*` and `?` stop at slashes;
    /// `**` between slashes stands for any directories. A directory that is left out takes with it what is in it. Default: nothing.
    pub exclude: Vec<String>,
    /// Files that may change while they are read: what was read of them last is taken, torn as it may be. Globs as above.
    /// Default: nothing.
    pub torn: Vec<String>,
    /// Reads every file, also those that look as they did at the last backup. Default: no.
    pub read_all: bool,
    /// The file in which this host keeps what the last restore point has, so that the next one need not store it again;
    /// written anew after each backup. Without it each one is whole. Default: none.
    pub state: Option<PathBuf>,
}

impl FilesConfig {
    /// All of a directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            ..Self::default()
        }
    }

    /// Sets [`exclude`](Self::exclude).
    #[must_use]
    pub fn with_exclude(mut self, globs: impl IntoIterator<Item = String>) -> Self {
        self.exclude = globs.into_iter().collect();
        self
    }

    /// Sets [`torn`](Self::torn).
    #[must_use]
    pub fn with_torn(mut self, globs: impl IntoIterator<Item = String>) -> Self {
        self.torn = globs.into_iter().collect();
        self
    }

    /// Sets [`read_all`](Self::read_all).
    #[must_use]
    pub const fn with_read_all(mut self, read_all: bool) -> Self {
        self.read_all = read_all;
        self
    }

    /// Sets [`state`](Self::state).
    #[must_use]
    pub fn with_state(mut self, state: impl Into<PathBuf>) -> Self {
        self.state = Some(state.into());
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::invalid_request(
                "path is missing: name the directory to back up",
            ));
        }
        Ok(())
    }

    pub(crate) fn excluded(&self) -> Result<Globs> {
        globs(&self.exclude)
    }

    pub(crate) fn may_be_torn(&self) -> Result<Globs> {
        globs(&self.torn)
    }
}

/// Patterns of paths within a tree.
#[derive(Clone, Debug, Default)]
pub(crate) struct Globs(Vec<Pattern>);

impl Globs {
    /// Bytes that are no UTF-8 count as one character each that no pattern names.
    pub(crate) fn has(&self, path: &[u8]) -> bool {
        let options = MatchOptions {
            require_literal_separator: true,
            ..MatchOptions::default()
        };
        let text = String::from_utf8_lossy(path);
        let mut all = self.0.iter();
        all.any(|glob| glob.matches_with(&text, options))
    }
}

fn globs(globs: &[String]) -> Result<Globs> {
    let all = globs.iter().map(|glob| {
        // What could never match is a mistake.
        let made = match glob.starts_with('/') || glob.ends_with('/') {
            true => None,
            false => Pattern::new(glob).ok(),
        };
        made.ok_or_else(|| {
            Error::invalid_request(format!(
                "{glob:?} is no glob over paths within the directory: write it without a slash at either end, close its \
                 brackets, and let ** be all of a part"
            ))
        })
    });
    all.collect::<Result<_>>().map(Globs)
}

/// How a tree is restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// Leaves out what only root may set, and does not compare it: owners, devices, and attributes outside `user.` and
    /// `system.`. Modes are without setuid and setgid then.
    pub unprivileged: bool,
}

impl RestoreOptions {
    /// Sets [`unprivileged`](Self::unprivileged).
    #[must_use]
    pub const fn with_unprivileged(mut self, unprivileged: bool) -> Self {
        self.unprivileged = unprivileged;
        self
    }
}
