use std::path::PathBuf;

use groundtackle_core::ByteSize;
use serde::Deserialize;

/// Where the checklist is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ChecklistConfig {
    /// The file. Default `"checklist.toml"`.
    pub path: PathBuf,
    /// The longest document that is read. Default 64 MiB.
    pub max_document: ByteSize,
}

impl Default for ChecklistConfig {
    fn default() -> Self {
        Self {
            path: "checklist.toml".into(),
            max_document: ByteSize::mib(64),
        }
    }
}

impl ChecklistConfig {
    /// Of this file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            ..Self::default()
        }
    }

    /// Sets [`max_document`](Self::max_document).
    #[must_use]
    pub const fn with_max_document(mut self, max_document: ByteSize) -> Self {
        self.max_document = max_document;
        self
    }
}
