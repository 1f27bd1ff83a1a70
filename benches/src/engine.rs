//! The engines under one small interface, with the settings that each was measured with.

use crate::BoxError;
use crate::workload::{Batch, Key, PieceKey};
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, KeyspaceCreateOptions, PersistMode, Readable};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::fs::File;
use std::io::Write;
use std::path::Path;

const MIB: u64 = 1024 * 1024;

/// Gets each key and value of a table, in key order.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

/// Which table a scan goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// One record per transaction.
    Records,
    /// The txids of each unburied block, by height.
    Undo,
}

/// An engine that holds the store.
pub trait Engine: Debug {
    /// Reads one record and hands its bytes to `found`. Answers whether there is one.
    ///
    /// # Errors
    ///
    /// Whatever the engine reports.
    fn read(&self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool, BoxError>;

    /// Applies a block in one atomic step; it is on disk when this returns.
    ///
    /// # Errors
    ///
    /// Whatever the engine reports. Then it is unknown whether the block landed.
    fn commit(&mut self, batch: &Batch) -> Result<(), BoxError>;

    /// A view of everything as of now that later commits do not change.
    ///
    /// # Errors
    ///
    /// Whatever the engine reports.
    fn snapshot(&self) -> Result<Box<dyn View>, BoxError>;

    /// Closes cleanly.
    ///
    /// # Errors
    ///
    /// Whatever the engine reports.
    fn close(self: Box<Self>) -> Result<(), BoxError>;
}

/// A consistent view.
pub trait View: Send {
    /// The tip value, if a block was ever committed.
    ///
    /// # Errors
    ///
    /// Whatever the engine reports.
    fn tip(&self) -> Result<Option<Vec<u8>>, BoxError>;

    /// Visits a whole table.
    ///
    /// # Errors
    ///
    /// Whatever the engine reports.
    fn scan(&self, table: Table, visit: Visit<'_>) -> Result<(), BoxError>;
}

/// How much memory an engine may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// All of it, in MiB.
    pub total_mib: u64,
    /// Of that one memtable, for the engine that has them.
    pub memtable_mib: u64,
}

impl Budget {
    /// Two memtables are alive most of the time: one fills while the other is flushed.
    fn fjall_cache_mib(self) -> u64 {
        self.total_mib.saturating_sub(2 * self.memtable_mib).max(16)
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain file that the same bytes are appended to, one fsync a block; reads come from a hash map in memory.
    Raw,
    /// fjall within the memory budget, nothing compressed.
    Fjall,
    /// fjall as it comes.
    FjallDefault,
    /// redb within the memory budget.
    Redb,
    /// The same with quick repair: every commit also saves the allocator and syncs twice.
    RedbQuick,
}

impl Kind {
    /// All that there are.
    pub const ALL: [Self; 5] = [
        Self::Raw,
        Self::Fjall,
        Self::FjallDefault,
        Self::Redb,
        Self::RedbQuick,
    ];

    /// Its name in options and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Fjall => "fjall",
            Self::FjallDefault => "fjall-default",
            Self::Redb => "redb",
            Self::RedbQuick => "redb-quick",
        }
    }

    /// The one with that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The settings in words.
    #[must_use]
    pub fn settings(self, budget: Budget) -> String {
        let memtable = budget.memtable_mib;
        let cache = budget.fjall_cache_mib();
        match self {
            Self::Raw => "append, sync_all per block; records in a hash map".to_owned(),
            Self::Fjall => format!(
                "block cache {cache} MiB, memtable {memtable} MiB a keyspace, journals at most 128 MiB, \
                 no compression, 2 workers, SyncAll per block"
            ),
            Self::FjallDefault => format!(
                "its defaults: block cache 32 MiB, memtable 64 MiB a keyspace, journals at most 512 MiB, {}, \
                 SyncAll per block",
                if cfg!(feature = "lz4") {
                    "lz4 from level 2 down"
                } else {
                    "built without lz4, so no compression"
                }
            ),
            Self::Redb => {
                format!(
                    "cache {} MiB, Durability::Immediate, one-phase commit",
                    budget.total_mib
                )
            }
            Self::RedbQuick => {
                format!(
                    "cache {} MiB, Durability::Immediate, quick repair on",
                    budget.total_mib
                )
            }
        }
    }

    /// Opens or creates the store in `dir`.
    ///
    /// # Errors
    ///
    /// Whatever the engine reports.
    pub fn open(self, dir: &Path, budget: Budget) -> Result<Box<dyn Engine>, BoxError> {
        std::fs::create_dir_all(dir)?;
        Ok(match self {
            Self::Raw => Box::new(MemoryEngine::logging_to(&dir.join("raw.log"))?),
            Self::Fjall => Box::new(FjallEngine::tuned(dir, budget)?),
            Self::FjallDefault => Box::new(FjallEngine::as_it_comes(dir)?),
            Self::Redb | Self::RedbQuick => {
                Box::new(RedbEngine::open(dir, budget, self == Self::RedbQuick)?)
            }
        })
    }
}

/// The store in memory: the model that the others are checked against, and the raw limit when it keeps a log.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    records: HashMap<Key, Vec<u8>>,
    undo: BTreeMap<PieceKey, Vec<u8>>,
    tip: Option<Vec<u8>>,
    log: Option<File>,
}

impl MemoryEngine {
    fn logging_to(path: &Path) -> Result<Self, BoxError> {
        Ok(Self {
            log: Some(File::options().create(true).append(true).open(path)?),
            ..Self::default()
        })
    }

    /// Explains how `view` differs from this model, if it does.
    ///
    /// # Errors
    ///
    /// When the view can not be read.
    pub fn difference(&self, view: &dyn View) -> Result<Option<String>, BoxError> {
        if view.tip()? != self.tip {
            return Ok(Some("another tip value".to_owned()));
        }
        let (mut seen, mut wrong, mut disorder) = (0, 0, 0);
        let mut last: Option<Vec<u8>> = None;
        view.scan(Table::Records, &mut |key, value| {
            seen += 1;
            let expected = Key::try_from(key)
                .ok()
                .and_then(|key| self.records.get(&key));
            wrong += usize::from(expected.map(Vec::as_slice) != Some(value));
            disorder += usize::from(last.as_deref().is_some_and(|last| last >= key));
            last = Some(key.to_vec());
        })?;
        let mut undo = BTreeMap::new();
        view.scan(Table::Undo, &mut |key, value| {
            undo.insert(key.to_vec(), value.to_vec());
        })?;
        let expected: BTreeMap<Vec<u8>, Vec<u8>> = self
            .undo
            .iter()
            .map(|(key, txids)| (key.to_vec(), txids.clone()))
            .collect();
        let records = self.records.len();
        Ok(
            (wrong > 0 || disorder > 0 || seen != records || undo != expected).then(|| {
                format!(
                    "{seen} records for {records}, {wrong} wrong, {disorder} out of order, undo {}",
                    if undo == expected { "same" } else { "differs" }
                )
            }),
        )
    }
}

impl Engine for MemoryEngine {
    fn read(&self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool, BoxError> {
        Ok(self.records.get(key).map(|value| found(value)).is_some())
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), BoxError> {
        if let Some(log) = &mut self.log {
            let mut bytes = Vec::new();
            for (key, value) in &batch.puts {
                bytes.extend_from_slice(key);
                bytes.extend_from_slice(value);
            }
            for key in &batch.deletes {
                bytes.extend_from_slice(key);
            }
            bytes.extend_from_slice(&batch.tip);
            for (key, txids) in &batch.undo {
                bytes.extend_from_slice(key);
                bytes.extend_from_slice(txids);
            }
            log.write_all(&bytes)?;
            log.sync_all()?;
        }
        for (key, value) in &batch.puts {
            self.records.insert(*key, value.clone());
        }
        for key in &batch.deletes {
            self.records.remove(key);
        }
        self.tip = Some(batch.tip.clone());
        self.undo.extend(batch.undo.iter().cloned());
        for key in &batch.undo_deletes {
            self.undo.remove(key);
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn View>, BoxError> {
        Err("a plain file has no snapshots".into())
    }

    fn close(self: Box<Self>) -> Result<(), BoxError> {
        Ok(())
    }
}

struct FjallEngine {
    db: fjall::Database,
    records: fjall::Keyspace,
    undo: fjall::Keyspace,
    meta: fjall::Keyspace,
}

impl Debug for FjallEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallEngine").finish_non_exhaustive()
    }
}

impl FjallEngine {
    fn tuned(dir: &Path, budget: Budget) -> Result<Self, BoxError> {
        let db = fjall::Database::builder(dir.join("fjall"))
            .cache_size(budget.fjall_cache_mib() * MIB)
            .max_journaling_size(128 * MIB)
            .journal_compression(CompressionType::None)
            .worker_threads(2)
            // Every commit says itself how durable it is.
            .manual_journal_persist(true)
            .open()?;
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(budget.memtable_mib * MIB)
                .data_block_compression_policy(CompressionPolicy::disabled())
        };
        Self::with(db, options)
    }

    fn as_it_comes(dir: &Path) -> Result<Self, BoxError> {
        let db = fjall::Database::builder(dir.join("fjall")).open()?;
        Self::with(db, KeyspaceCreateOptions::default)
    }

    fn with(
        db: fjall::Database,
        options: impl Fn() -> KeyspaceCreateOptions,
    ) -> Result<Self, BoxError> {
        Ok(Self {
            records: db.keyspace("records", &options)?,
            undo: db.keyspace("undo", &options)?,
            meta: db.keyspace("meta", &options)?,
            db,
        })
    }
}

impl Engine for FjallEngine {
    fn read(&self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool, BoxError> {
        Ok(self.records.get(key)?.map(|value| found(&value)).is_some())
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), BoxError> {
        let mut write = self.db.batch().durability(Some(PersistMode::SyncAll));
        for (key, value) in &batch.puts {
            write.insert(&self.records, key.as_slice(), value.as_slice());
        }
        for key in &batch.deletes {
            write.remove(&self.records, key.as_slice());
        }
        write.insert(&self.meta, "tip", batch.tip.as_slice());
        for (key, txids) in &batch.undo {
            write.insert(&self.undo, key.as_slice(), txids.as_slice());
        }
        for key in &batch.undo_deletes {
            write.remove(&self.undo, key.as_slice());
        }
        Ok(write.commit()?)
    }

    fn snapshot(&self) -> Result<Box<dyn View>, BoxError> {
        Ok(Box::new(FjallView {
            snapshot: self.db.snapshot(),
            records: self.records.clone(),
            undo: self.undo.clone(),
            meta: self.meta.clone(),
        }))
    }

    fn close(self: Box<Self>) -> Result<(), BoxError> {
        self.db.persist(PersistMode::SyncAll)?;
        Ok(())
    }
}

struct FjallView {
    snapshot: fjall::Snapshot,
    records: fjall::Keyspace,
    undo: fjall::Keyspace,
    meta: fjall::Keyspace,
}

impl View for FjallView {
    fn tip(&self) -> Result<Option<Vec<u8>>, BoxError> {
        let tip = self.snapshot.get(&self.meta, "tip")?;
        Ok(tip.map(|tip| tip.to_vec()))
    }

    fn scan(&self, table: Table, visit: Visit<'_>) -> Result<(), BoxError> {
        let keyspace = match table {
            Table::Records => &self.records,
            Table::Undo => &self.undo,
        };
        for item in self.snapshot.iter(keyspace) {
            let (key, value) = item.into_inner()?;
            visit(&key, &value);
        }
        Ok(())
    }
}

const RECORDS: TableDefinition<'_, &[u8; 36], &[u8]> = TableDefinition::new("records");
const UNDO: TableDefinition<'_, &[u8; 8], &[u8]> = TableDefinition::new("undo");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

struct RedbEngine {
    db: redb::Database,
    quick_repair: bool,
    /// Reads of one block share a transaction: opening one per read would cost more than the read.
    reader: RedbReader,
}

type RedbReader = Option<redb::ReadOnlyTable<&'static [u8; 36], &'static [u8]>>;

impl Debug for RedbEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbEngine").finish_non_exhaustive()
    }
}

impl RedbEngine {
    fn open(dir: &Path, budget: Budget, quick_repair: bool) -> Result<Self, BoxError> {
        let db = redb::Builder::new()
            .set_cache_size((budget.total_mib * MIB) as usize)
            .create(dir.join("store.redb"))?;
        let mut write = db.begin_write()?;
        write.set_quick_repair(quick_repair);
        write.open_table(RECORDS)?;
        write.open_table(UNDO)?;
        write.open_table(META)?;
        write.commit()?;
        let reader = Some(db.begin_read()?.open_table(RECORDS)?);
        Ok(Self {
            db,
            quick_repair,
            reader,
        })
    }

    fn apply(&self, batch: &Batch) -> Result<(), BoxError> {
        let mut write = self.db.begin_write()?;
        write.set_quick_repair(self.quick_repair);
        {
            let mut records = write.open_table(RECORDS)?;
            for (key, value) in &batch.puts {
                records.insert(key, value.as_slice())?;
            }
            for key in &batch.deletes {
                records.remove(key)?;
            }
            write
                .open_table(META)?
                .insert("tip", batch.tip.as_slice())?;
            let mut undo = write.open_table(UNDO)?;
            for (key, txids) in &batch.undo {
                undo.insert(key, txids.as_slice())?;
            }
            for key in &batch.undo_deletes {
                undo.remove(key)?;
            }
        }
        Ok(write.commit()?)
    }
}

impl Engine for RedbEngine {
    fn read(&self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool, BoxError> {
        let Some(reader) = &self.reader else {
            return Err("no read transaction".into());
        };
        Ok(reader.get(key)?.map(|value| found(value.value())).is_some())
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), BoxError> {
        // A read transaction that is still open keeps the pages that this commit frees from being used again.
        self.reader = None;
        let applied = self.apply(batch);
        self.reader = Some(self.db.begin_read()?.open_table(RECORDS)?);
        applied
    }

    fn snapshot(&self) -> Result<Box<dyn View>, BoxError> {
        Ok(Box::new(RedbView(self.db.begin_read()?)))
    }

    fn close(mut self: Box<Self>) -> Result<(), BoxError> {
        self.reader = None;
        Ok(self.db.close()?)
    }
}

struct RedbView(redb::ReadTransaction);

impl View for RedbView {
    fn tip(&self) -> Result<Option<Vec<u8>>, BoxError> {
        let meta = self.0.open_table(META)?;
        Ok(meta.get("tip")?.map(|tip| tip.value().to_vec()))
    }

    fn scan(&self, table: Table, visit: Visit<'_>) -> Result<(), BoxError> {
        match table {
            Table::Records => {
                for item in self.0.open_table(RECORDS)?.iter()? {
                    let (key, value) = item?;
                    visit(key.value(), value.value());
                }
            }
            Table::Undo => {
                for item in self.0.open_table(UNDO)?.iter()? {
                    let (key, value) = item?;
                    visit(key.value(), value.value());
                }
            }
        }
        Ok(())
    }
}
