//! The engine's keyspace, and the file that says what lies there.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use fjall::config::CompressionPolicy;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode,
    Readable, Slice, Snapshot,
};
use groundtackle_chain::codec::{read_varint, write_varint};
use groundtackle_chain::decode::Reader;
use groundtackle_core::fail_point;
use groundtackle_utxo_store::{Error, Result, UnspendableRule};

use crate::config::EmbeddedUtxoStoreConfig;
use crate::error::{corrupt, engine_error, io_error};
use crate::record::{PART_KIND, TIP_KEY, TipState, encode_tip};

/// The newest format that this version reads and the one that it writes.
pub(crate) const FORMAT: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const FORMAT_DRAFT: &str = "FORMAT.new";
const DATA_DIRECTORY: &str = "data";
/// The file by which the engine knows its folder.
const ENGINE_MARKER: &str = "version";
const MAGIC: &str = "groundtackle-utxo-store-embedded";

/// Longer values are kept in parts. A power failure can lose a page of the engine's journal, and the
/// engine takes a lost page for a torn end only if no value covers the whole of it.
pub(crate) const MAX_VALUE_BYTES: usize = 3900;

/// The engine takes no less.
const MIN_JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
const MIN_WRITE_BUFFER_BYTES: u64 = 1024 * 1024;

const HERE: u8 = 0;
const IN_PARTS: u8 = 1;

/// What was fixed when the store was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fixed {
    pub(crate) unspendable: UnspendableRule,
    pub(crate) incremental_digest: bool,
}

pub(crate) struct Engine {
    #[cfg(feature = "__record")]
    pub(crate) recorder: std::sync::OnceLock<Recorder>,
    pub(crate) path: PathBuf,
    database: Database,
    /// One for all: the engine writes each keyspace to files by itself, so that of a batch over two which was
    /// not synced, a power failure could leave the one half without the other.
    all: Keyspace,
}

/// Sees the key, and the value unless it is deleted.
#[cfg(feature = "__record")]
#[allow(unreachable_pub)]
pub type Recorder = Box<dyn Fn(&[u8], Option<&[u8]>) + Send + Sync>;

/// A value, put together from its parts.
#[derive(Debug)]
pub(crate) struct Value {
    whole: Whole,
    /// In how many parts it lies; 0 for a value in one piece.
    pub(crate) parts: u32,
}

#[derive(Debug)]
enum Whole {
    /// After the byte that says so.
    Here(Slice),
    Joined(Vec<u8>),
}

impl Value {
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.whole {
            Whole::Here(slice) => slice.get(1..).unwrap_or_default(),
            Whole::Joined(bytes) => bytes,
        }
    }
}

/// A change under way: all of it is committed, or nothing.
pub(crate) struct Change<'a> {
    engine: &'a Engine,
    batch: OwnedWriteBatch,
    /// For one value after the other.
    buffer: Vec<u8>,
}

impl Change<'_> {
    /// Writes a value over one of `old_parts` parts.
    pub(crate) fn put(&mut self, key: &[u8], old_parts: u32, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut value = std::mem::take(&mut self.buffer);
        value.clear();
        value.push(HERE);
        encode(&mut value);
        let mut parts = 0;
        if value.len() > MAX_VALUE_BYTES + 1 {
            for part in value.get(1..).unwrap_or_default().chunks(MAX_VALUE_BYTES) {
                self.put_raw(&part_key(key, parts), part);
                parts += 1;
            }
            value.clear();
            value.push(IN_PARTS);
            write_varint(&mut value, u64::from(parts));
        }
        self.insert(key, &value);
        self.buffer = value;
        self.remove_parts(key, parts, old_parts);
    }

    /// Removes a value of `parts` parts.
    pub(crate) fn remove(&mut self, key: &[u8], parts: u32) {
        self.delete(key);
        self.remove_parts(key, 0, parts);
    }

    /// Writes a small value as it is.
    pub(crate) fn put_raw(&mut self, key: &[u8], value: &[u8]) {
        self.insert(key, value);
    }

    /// Removes a small value.
    pub(crate) fn remove_raw(&mut self, key: &[u8]) {
        self.delete(key);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    pub(crate) fn commit(self, durable: bool) -> Result<()> {
        let mode = if durable {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        fail_point("embedded.commit.drawn");
        self.batch
            .durability(Some(mode))
            .commit()
            .map_err(|error| engine_error(&self.engine.path, "commit a change", true, error))?;
        fail_point("embedded.commit.done");
        Ok(())
    }

    fn remove_parts(&mut self, key: &[u8], from: u32, to: u32) {
        for part in from..to {
            self.remove_raw(&part_key(key, part));
        }
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) {
        #[cfg(feature = "__record")]
        self.engine.record(key, Some(value));
        self.batch.insert(&self.engine.all, key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        #[cfg(feature = "__record")]
        self.engine.record(key, None);
        self.batch.remove(&self.engine.all, key);
    }
}

fn part_key(key: &[u8], part: u32) -> Vec<u8> {
    [&[PART_KIND], key, part.to_be_bytes().as_slice()].concat()
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn open(path: &Path, config: &EmbeddedUtxoStoreConfig) -> Result<(Self, Fixed)> {
        let wanted = Fixed {
            unspendable: config.unspendable,
            incremental_digest: config.incremental_digest,
        };
        let data = path.join(DATA_DIRECTORY);
        let io = |action: &'static str| move |error| io_error(path, action, false, error);
        let lost = || {
            let detail = format!("the data in its folder {DATA_DIRECTORY} are missing or cut");
            corrupt(path.display().to_string(), detail)
        };
        let mut header = Header::read(path)?.filter(|header| header.ready);
        let mut creating = None;
        if header.is_none() {
            if !config.create {
                return Err(Error::NotFound {
                    store: path.display().to_string(),
                });
            }
            fs::create_dir_all(path).map_err(io("create the folder"))?;
            // Held until the store is ready, or another process would take it for remains.
            creating = Some(lock(path)?);
            header = Header::read(path)?;
        }
        let ready = header.as_ref().is_some_and(|header| header.ready);
        // The engine would begin anew without a word.
        if ready && !data.join(ENGINE_MARKER).is_file() {
            return Err(lost());
        }
        let fixed = match header {
            Some(Header { ready: true, fixed }) => {
                if fixed.unspendable != wanted.unspendable {
                    return Err(Error::invalid_request(format!(
                        "{} was created with the rule {:?} of what can't be spent, and {:?} is configured; they must agree",
                        path.display(),
                        fixed.unspendable,
                        wanted.unspendable
                    )));
                }
                fixed
            }
            header => {
                // A creation that was cut off may have left the header's draft.
                if header.is_none()
                    && fs::read_dir(path)
                        .map_err(io("list the folder"))?
                        .any(|entry| !entry.is_ok_and(|entry| entry.file_name() == FORMAT_DRAFT))
                {
                    return Err(Error::invalid_request(format!(
                        "{} holds something else than an embedded store; name an empty or a new folder",
                        path.display()
                    )));
                }
                Header {
                    ready: false,
                    fixed: wanted,
                }
                .write(path)
                .map_err(io("write the header"))?;
                fail_point("embedded.create.header");
                // The engine does not go on with its own creation either. Nothing in there was
                // ever acknowledged.
                match fs::remove_dir_all(&data) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(io("remove what a creation left")(error));
                    }
                    _ => wanted,
                }
            }
        };
        // On a damaged folder the engine may panic rather than answer.
        let engine = catch_unwind(AssertUnwindSafe(|| {
            Self::open_database(path, &data, config)
        }))
        .unwrap_or_else(|_| {
            Err(corrupt(
                path.display().to_string(),
                "the engine can't make sense of it",
            ))
        })?;
        if engine.get(&engine.snapshot(), TIP_KEY)?.is_none() {
            if ready {
                return Err(lost());
            }
            fail_point("embedded.create.engine");
            let mut change = engine.change();
            let state = TipState::new(fixed.incremental_digest);
            change.put(TIP_KEY, 0, |out| encode_tip(out, &state));
            change.commit(true)?;
            fail_point("embedded.create.tip");
        }
        Header { ready: true, fixed }
            .write_if_changed(path)
            .map_err(io("write the header"))?;
        drop(creating);
        Ok((engine, fixed))
    }

    fn open_database(path: &Path, data: &Path, config: &EmbeddedUtxoStoreConfig) -> Result<Self> {
        let error = |error| engine_error(path, "open the store", false, error);
        let write_buffer = config.write_buffer.bytes().max(MIN_WRITE_BUFFER_BYTES);
        let database = Database::builder(data)
            .cache_size(config.cache.bytes())
            .journal_compression(CompressionType::None)
            .max_journaling_size(write_buffer.saturating_mul(2).max(MIN_JOURNAL_BYTES))
            // While one of two workers compacts, the other one spins: it sends itself the same message.
            .worker_threads(1)
            .open()
            .map_err(error)?;
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(write_buffer)
                .data_block_compression_policy(CompressionPolicy::disabled())
        };
        Ok(Self {
            #[cfg(feature = "__record")]
            recorder: std::sync::OnceLock::new(),
            path: path.to_path_buf(),
            all: database.keyspace("all", options).map_err(error)?,
            database,
        })
    }

    #[cfg(feature = "__record")]
    fn record(&self, key: &[u8], value: Option<&[u8]>) {
        if let Some(recorder) = self.recorder.get() {
            recorder(key, value);
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.database.snapshot()
    }

    pub(crate) fn change(&self) -> Change<'_> {
        Change {
            engine: self,
            batch: self.database.batch(),
            buffer: Vec::new(),
        }
    }

    pub(crate) fn get(&self, from: &Snapshot, key: &[u8]) -> Result<Option<Value>> {
        let found = from
            .get(&self.all, key)
            .map_err(|error| self.read_error(error))?;
        found.map(|value| self.whole(from, key, value)).transpose()
    }

    pub(crate) fn get_raw(&self, from: &Snapshot, key: &[u8]) -> Result<Option<Slice>> {
        from.get(&self.all, key)
            .map_err(|error| self.read_error(error))
    }

    /// Walks keys from `start` to before `end`.
    pub(crate) fn range(
        &self,
        from: &Snapshot,
        start: &[u8],
        end: &[u8],
    ) -> impl DoubleEndedIterator<Item = Result<(Slice, Slice)>> {
        let bounds = (
            Bound::Included(start.to_vec()),
            Bound::Excluded(end.to_vec()),
        );
        from.range(&self.all, bounds)
            .map(|guard| guard.into_inner().map_err(|error| self.read_error(error)))
    }

    /// Puts a value together.
    pub(crate) fn whole(&self, from: &Snapshot, key: &[u8], value: Slice) -> Result<Value> {
        match value.first().copied() {
            Some(HERE) => Ok(Value {
                whole: Whole::Here(value),
                parts: 0,
            }),
            Some(IN_PARTS) => {
                let damaged = || corrupt("a value in parts", "a part is missing");
                let mut reader = Reader::new(value.get(1..).unwrap_or_default());
                let parts = read_varint(&mut reader)
                    .ok()
                    .and_then(|parts| u32::try_from(parts).ok())
                    .ok_or_else(damaged)?;
                let mut joined = Vec::new();
                for part in 0..parts {
                    joined.extend_from_slice(
                        &self
                            .get_raw(from, &part_key(key, part))?
                            .ok_or_else(damaged)?,
                    );
                }
                Ok(Value {
                    whole: Whole::Joined(joined),
                    parts,
                })
            }
            _ => Err(corrupt("a value", "it begins with an unknown byte")),
        }
    }

    fn read_error(&self, error: fjall::Error) -> Error {
        engine_error(&self.path, "read", false, error)
    }

    /// Fails if an earlier write, of a background thread too, left the engine in doubt.
    pub(crate) fn check(&self) -> Result<()> {
        self.persist(PersistMode::Buffer)
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.persist(PersistMode::SyncData)
    }

    fn persist(&self, mode: PersistMode) -> Result<()> {
        self.database
            .persist(mode)
            .map_err(|error| engine_error(&self.path, "make changes durable", true, error))
    }

    pub(crate) fn free_bytes(&self) -> Result<u64> {
        fs4::available_space(&self.path)
            .map_err(|error| io_error(&self.path, "ask for free space", false, error))
    }
}

/// Locks the store's folder itself, as long as the file is open.
fn lock(path: &Path) -> Result<File> {
    let failed = |error| io_error(path, "lock the folder", false, error);
    let folder = File::open(path).map_err(failed)?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            store: path.display().to_string(),
        }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The text file that says what the folder is.
struct Header {
    /// Whether the engine's folder was made.
    ready: bool,
    fixed: Fixed,
}

impl Header {
    fn render(&self) -> String {
        let unspendable = match self.fixed.unspendable {
            UnspendableRule::FalseReturn => "false-return",
            _ => "core",
        };
        format!(
            "{MAGIC}\nformat {FORMAT}\nstate {}\nunspendable {unspendable}\nincremental-digest {}\n",
            if self.ready { "ready" } else { "creating" },
            self.fixed.incremental_digest
        )
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read(path.join(FORMAT_FILE)) {
            Ok(text) => text,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(io_error(path, "read the header", false, error)),
        };
        let damaged = || {
            corrupt(
                path.join(FORMAT_FILE).display().to_string(),
                "it is not the header of an embedded store",
            )
        };
        let text = std::str::from_utf8(&text).map_err(|_| damaged())?;
        let mut lines = text.lines();
        if lines.next() != Some(MAGIC) {
            return Err(damaged());
        }
        let value = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
                .ok_or_else(damaged)
        };
        let found = u32::from_str(value("format")?).map_err(|_| damaged())?;
        if found > FORMAT {
            return Err(Error::NewerFormat {
                store: path.display().to_string(),
                found,
                supported: FORMAT,
            });
        }
        let ready = match value("state")? {
            "ready" => true,
            "creating" => false,
            _ => return Err(damaged()),
        };
        let unspendable = match value("unspendable")? {
            "core" => UnspendableRule::Core,
            "false-return" => UnspendableRule::FalseReturn,
            _ => return Err(damaged()),
        };
        let incremental_digest =
            bool::from_str(value("incremental-digest")?).map_err(|_| damaged())?;
        Ok(Some(Self {
            ready,
            fixed: Fixed {
                unspendable,
                incremental_digest,
            },
        }))
    }

    /// Whole or not at all: a new file, synced, renamed over the old one, the folder synced.
    fn write(&self, path: &Path) -> io::Result<()> {
        let temporary = path.join(FORMAT_DRAFT);
        let mut file = File::create(&temporary)?;
        file.write_all(self.render().as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path.join(FORMAT_FILE))?;
        File::open(path)?.sync_all()
    }

    fn write_if_changed(&self, path: &Path) -> io::Result<()> {
        if fs::read(path.join(FORMAT_FILE))? == self.render().as_bytes() {
            return Ok(());
        }
        self.write(path)
    }
}
