//! A store's set into a file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use groundtackle_chain::Network;
use groundtackle_core::ByteSize;
use tempfile::TempPath;

use super::error::{SnapshotError, SnapshotFormatError};
use super::format::{SnapshotWriter, encode_transaction};
use super::import::{Checked, check};
use super::sort::Sorter;
use super::{SnapshotProgress, SnapshotStep, blocking};
use crate::error::Error;
use crate::load::{WholeTransactions, begin_scan};
use crate::store::UtxoStore;
use crate::types::{Coin, Tip};

type Result<T, E = SnapshotError> = std::result::Result<T, E>;

const MIN_SORT_MEMORY: usize = 1 << 20;

/// How to write a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportOptions {
    /// The set's network, which a store does not know. Default: main net.
    pub network: Network,
    /// Replace a file that is there. Default: no.
    pub replace: bool,
    /// Memory for sorting, where a scan of the store has no order; what it can't hold goes to nameless files
    /// beside the target, which take as much room as the target. At least 1 MiB. Default: 64 MiB.
    pub sort_memory: ByteSize,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            network: Network::Main,
            replace: false,
            sort_memory: ByteSize::mib(64),
        }
    }
}

impl ExportOptions {
    /// For a set of this network.
    pub fn new(network: Network) -> Self {
        Self {
            network,
            ..Self::default()
        }
    }
}

/// What [`export_snapshot`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// The block the set belongs to.
    pub tip: Tip,
    /// Coins in the file.
    pub coins: u64,
    /// Transactions that they are of.
    pub transactions: u64,
    /// The file's size, in bytes.
    pub bytes: u64,
    /// The set's digest, internal order.
    pub muhash: [u8; 32],
    /// The set's digest, internal order: what Bitcoin Core calls `txoutset_hash`.
    pub hash_serialized_3: [u8; 32],
}

/// Writes the confirmed set of a store to a file, byte for byte as `dumptxoutset` of Bitcoin Core 28 and newer
/// does. `progress` is told how far it is. Frozen, reassigned and locked outputs are written as any other: the
/// format has no word for them.
///
/// The file is written under another name beside `path`, read back, compared with the store's digest, made
/// durable, and then takes its name. While a store without
/// [`snapshot_scan`](crate::Capabilities::snapshot_scan) is exported, nothing may write to it.
///
/// **Atomicity**: there is the whole file or none; a killed process may leave one that ends in `.partial`.
/// **Idempotency**, **cancel safety**: repeat it. Memory: a few thousand coins for each core, the coins of one
/// transaction, and [`ExportOptions::sort_memory`] where the scan has no order. Must run inside a tokio runtime.
///
/// # Errors
/// When the store could not answer or the file could not be written. `NotDurable` where it was, and only its name may
/// not last. `Exists` where the file is there. `Store` with
/// `InvalidRequest` for a store without a tip, for one that is an unfinished copy, and where the store moved on
/// meanwhile; with `Corrupt` where the file's digest is not the store's; `Transient` where blocks connect faster
/// than the store's digest is read. `Format` for a set that has no place
/// in a snapshot.
pub async fn export_snapshot(
    store: &dyn UtxoStore,
    path: &Path,
    options: &ExportOptions,
    mut progress: impl FnMut(SnapshotProgress) + Send,
) -> Result<Exported> {
    let exists = || SnapshotError::Exists {
        file: path.to_owned(),
    };
    if !options.replace && path.exists() {
        return Err(exists());
    }
    let (scan, begun) = begin_scan(store).await?;
    let tip = begun.tip;

    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    // Here, and not with the file: dropping this future removes it, whatever a thread still does.
    let (file, partial) = create(path, &folder)?;
    let partial_path = partial.to_path_buf();
    let mut sink = Sink {
        writer: SnapshotWriter::new(BufWriter::new(file), options.network, &tip.hash)
            .map_err(in_file(path))?,
        sorter: (!store.capabilities().ordered_scan).then(|| {
            let memory = usize::try_from(options.sort_memory.bytes()).unwrap_or(usize::MAX);
            // Each run is read ahead of when they are merged: many small ones would take more than they save.
            Sorter::new(folder.clone(), memory.max(MIN_SORT_MEMORY))
        }),
        path: path.to_owned(),
    };
    let mut scanned = 0;
    let mut pages = WholeTransactions::default();
    while let Some(page) = pages.next(&*scan).await? {
        scanned += page.len() as u64;
        sink = blocking(move || {
            sink.add(&page)?;
            Ok(sink)
        })
        .await?;
        progress(SnapshotProgress {
            step: SnapshotStep::Scan,
            coins: scanned,
            total: None,
        });
    }
    if sink.sorter.is_some() {
        progress(SnapshotProgress {
            step: SnapshotStep::Sort,
            coins: 0,
            total: Some(scanned),
        });
    }
    // A snapshot is a burden to some stores.
    drop(scan);
    blocking(move || sink.finish()).await?;

    let Checked {
        coins,
        transactions,
        bytes,
        muhash,
        hash_serialized_3,
        ..
    } = check(&partial_path, &mut progress).await?;
    let backend = store.capabilities().backend;
    if coins != scanned {
        let detail = format!("{scanned} coins were written, and {coins} are in it: export again");
        return Err(Error::corrupt(backend, "the file", detail).into());
    }
    begun.compare(store, &muhash, "export again").await?;
    let hash_serialized_3 = hash_serialized_3.ok_or_else(|| {
        Error::corrupt(backend, "the order of a scan", "it is not the one promised")
    })?;
    let kept = match options.replace {
        true => partial.persist(path),
        false => partial.persist_noclobber(path),
    };
    kept.map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => exists(),
        _ => failed(path, "giving the file its name")(error.error),
    })?;
    // A name lasts once its folder is durable.
    #[cfg(unix)]
    File::open(&folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| SnapshotError::NotDurable {
            file: path.to_owned(),
            source,
        })?;
    Ok(Exported {
        tip,
        coins,
        transactions,
        bytes,
        muhash,
        hash_serialized_3,
    })
}

/// A new file beside the target, which goes if nothing is done about it.
fn create(path: &Path, folder: &Path) -> Result<(File, TempPath)> {
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".partial");
    // A set is no secret: who may read is for the process's umask to say.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder
        .tempfile_in(folder)
        .map_err(failed(path, "creating a file beside it"))?;
    Ok(file.into_parts())
}

/// What is read goes through here into the file, by way of the sorter where it has no order.
#[derive(Debug)]
struct Sink {
    writer: SnapshotWriter<BufWriter<File>>,
    sorter: Option<Sorter>,
    path: PathBuf,
}

impl Sink {
    fn add(&mut self, coins: &[Coin]) -> Result<()> {
        for coins in coins.chunk_by(|a, b| a.outpoint.txid == b.outpoint.txid) {
            match &mut self.sorter {
                None => self.writer.add(coins).map_err(in_file(&self.path))?,
                Some(sorter) => sorter.add(coins.len() as u64, |bytes| {
                    encode_transaction(bytes, coins, 0).map_err(in_file(&self.path))
                })?,
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let Self {
            mut writer,
            sorter,
            path,
        } = self;
        if let Some(sorter) = sorter {
            sorter.merge(|coins, encoded| {
                writer.add_encoded(coins, encoded).map_err(in_file(&path))
            })?;
        }
        let (_, mut buffered) = writer.finish().map_err(in_file(&path))?;
        buffered
            .flush()
            .and_then(|()| buffered.get_ref().sync_all())
            .map_err(failed(&path, "making the file durable"))
    }
}

pub(super) fn in_file(path: &Path) -> impl FnOnce(SnapshotFormatError) -> SnapshotError {
    let file = path.to_owned();
    move |source| SnapshotError::Format { file, source }
}

pub(super) fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> SnapshotError {
    let file = path.to_owned();
    move |source| SnapshotError::Io {
        file,
        doing,
        source,
    }
}
