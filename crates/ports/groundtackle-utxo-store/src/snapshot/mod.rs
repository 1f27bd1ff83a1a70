//! Bitcoin Core's snapshot files: what `dumptxoutset` writes and `loadtxoutset` reads.
//!
//! [`export_snapshot`] writes version 2 (Bitcoin Core 28 and newer), byte for byte as Core does.
//! [`import_snapshot`] reads version 2 and version 1 (26 and 27), whatever the order of the transactions (each
//! with its coins together), and fills an empty store with it. [`SnapshotWriter`] and [`SnapshotReader`] are the format alone.
//!
//! A file vouches for nothing, so an import compares a digest: the one that you name ([`ExpectedDigest`]), or
//! the one that is built into Bitcoin Core for the file's block ([`KNOWN_SNAPSHOTS`]). The digest covers every
//! coin with its height, but neither the file's block nor its network: name the block too
//! ([`ImportOptions::block`]) where the file comes from elsewhere.
//!
//! # Limits
//! The format knows the five networks of [`Network`](groundtackle_chain::Network), amounts up to 21 million
//! coins, indexes up to 33,554,432 and scripts that Bitcoin Core's rule lets spend, and 1,048,576 of
//! them in 64 MiB for each transaction, where a block has room for about 111,111. A set with other coins can't be
//! exported: copy it ([`copy_set`](crate::copy_set)). A store with another rule for what can be spent refuses the
//! coins that its rule denies a place.

mod error;
mod export;
mod format;
mod import;
mod known;
mod sort;
#[cfg(test)]
mod tests;

pub use error::{SnapshotError, SnapshotFormatError};
pub use export::{ExportOptions, Exported, export_snapshot};
pub use format::{MAX_VOUT, SnapshotHeader, SnapshotReader, SnapshotWriter};
pub use import::{ExpectedDigest, ImportOptions, Imported, SnapshotFile, import_snapshot};
pub use known::{KNOWN_SNAPSHOTS, KnownSnapshot};

/// How far an export or import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotProgress {
    /// What is being done.
    pub step: SnapshotStep,
    /// Coins done in this step.
    pub coins: u64,
    /// Coins to do in this step, where that is known.
    pub total: Option<u64>,
}

/// The steps of an export (`Scan`, `Sort` where the scan has no order, `Check`) and of an import (`Check`,
/// `Load`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SnapshotStep {
    /// Reads the set.
    Scan,
    /// Puts it in order.
    Sort,
    /// Reads the file and computes its digests.
    Check,
    /// Writes to the store.
    Load,
}

/// Runs what waits for files beside the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, SnapshotError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(crate::Error::backend(
            "snapshot",
            "work on a file",
            crate::Retryability::Permanent,
            error,
        )
        .into()),
    }
}
