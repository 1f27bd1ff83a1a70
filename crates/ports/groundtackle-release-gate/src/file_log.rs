//! A log in a file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use groundtackle_core::Retryability;
use jiff::Timestamp;

use crate::dsse::{PublicKey, Signer};
use crate::error::{Error, Result};
use crate::log::{Entry, Head, Verified, verify};

const BACKEND: &str = "log";

/// Who appends holds the lock for two syncs.
const LOCK_WITHIN: Duration = Duration::from_secs(10);

/// A log in a file, with its [`Head`] beside it in a file of the same name and `.head`. Copies are of one log.
///
/// A record is acknowledged once its line, and then the head that counts it, are on disk. What a crash leaves behind the head was told to
/// nobody: it counts if it is whole, and is cut off if it is not. Processes that write to one log, and those that read it, take turns by a
/// lock of the file, for up to 10 s. The head shows that records were cut off only to whoever keeps a copy of it elsewhere: whoever can write both files can
/// bring back older ones.
///
/// Calls block their thread, and sync files: keep them off an executor's.
#[derive(Clone, Debug)]
pub struct FileLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    signer: Signer,
    trusted: Vec<PublicKey>,
    known: Mutex<Option<Known>>,
}

/// What the log was when it was last verified. None after a failure. Where the files say otherwise, another process has gone on, and all of it
/// is verified again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    whole_bytes: u64,
    head: Head,
}

impl FileLog {
    /// Opens a log, made if neither it nor its head is there, and gives what is in it. Records of `trusted` keys count beside the signer's.
    ///
    /// # Errors
    /// [`Error::BrokenLog`] where it is not what was written, [`Error::Corrupt`] where its head is missing; [`Error::Backend`] where a file
    /// can't be read or written, or is locked for too long.
    pub fn open(
        path: impl Into<PathBuf>,
        signer: Signer,
        trusted: &[PublicKey],
    ) -> Result<(Self, Verified)> {
        let mut trusted = trusted.to_vec();
        trusted.push(signer.public());
        let inner = Inner {
            path: path.into(),
            signer,
            trusted,
            known: Mutex::default(),
        };
        let (_, known, verified) = inner.read(inner.locked()?)?;
        *inner.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        let inner = Arc::new(inner);
        Ok((Self { inner }, verified))
    }

    /// Appends a record of this moment, and gives the head that counts it. Durable when it returns; one after the other.
    ///
    /// # Errors
    /// As [`open`](Self::open). Where [`Error::Backend`] is [`Indeterminate`](Retryability::Indeterminate) the record may be in the log; after any
    /// other error it is not. The next append reads the log again before it goes on.
    pub fn append(&self, entry: Entry) -> Result<Head> {
        self.inner.append(entry)
    }

    /// All of a log, if it is what was written: with the public keys alone.
    ///
    /// # Errors
    /// As [`open`](Self::open); a log that is not there is [`Error::Backend`].
    pub fn read(path: impl AsRef<Path>, trusted: &[PublicKey]) -> Result<Verified> {
        let path = path.as_ref();
        let failed = failed(path, "reading", Retryability::Transient);
        let mut file = File::open(path).map_err(&failed)?;
        // During an append line and head don't fit together.
        in_turn(|| file.try_lock_shared()).map_err(&failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let head = head(path, &bytes, trusted)?;
        verify(&bytes, trusted, Some(&head))
    }
}

impl Inner {
    /// The file, locked until it is dropped.
    fn locked(&self) -> Result<File> {
        let failed = failed(&self.path, "opening", Retryability::Transient);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&self.path).map_err(&failed)?;
        in_turn(|| file.try_lock()).map_err(failed)?;
        Ok(file)
    }

    fn read(&self, mut file: File) -> Result<(File, Known, Verified)> {
        let failed = failed(&self.path, "reading", Retryability::Transient);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(&failed)?;
        // Before the first byte, so that a head that is missing was taken away.
        if bytes.is_empty() && !beside(&self.path, ".head").exists() {
            sync_folder(&self.path).map_err(&failed)?;
            self.write_head(Head::EMPTY)?;
        }
        let head = head(&self.path, &bytes, &self.trusted)?;
        let verified = verify(&bytes, &self.trusted, Some(&head))?;
        let whole_bytes = verified.whole_bytes as u64;
        if whole_bytes < bytes.len() as u64 {
            file.set_len(whole_bytes).map_err(&failed)?;
            file.sync_all().map_err(failed)?;
        }
        let head = verified.head;
        Ok((file, Known { whole_bytes, head }, verified))
    }

    fn append(&self, entry: Entry) -> Result<Head> {
        let mut kept = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.locked()?;
        let reading = failed(&self.path, "reading", Retryability::Transient);
        let found = Known {
            whole_bytes: file.metadata().map_err(reading)?.len(),
            head: head(&self.path, &[], &self.trusted)?,
        };
        let (mut file, known) = match kept.take() {
            Some(known) if known == found => (file, known),
            _ => {
                let (file, known, _) = self.read(file)?;
                (file, known)
            }
        };
        let (line, head) = known.head.append(entry, Timestamp::now(), &self.signer)?;
        let failed = failed(&self.path, "writing to", Retryability::Indeterminate);
        let mut write = || {
            file.seek(SeekFrom::Start(known.whole_bytes))?;
            file.write_all(&line)?;
            file.sync_all()
        };
        write().map_err(failed)?;
        self.write_head(head)?;
        let whole_bytes = known.whole_bytes.saturating_add(line.len() as u64);
        *kept = Some(Known { whole_bytes, head });
        Ok(head)
    }

    /// A reader sees the one before or this one, whole.
    fn write_head(&self, head: Head) -> Result<()> {
        let text = head.seal(&self.signer)?;
        let (path, new) = (beside(&self.path, ".head"), beside(&self.path, ".head.new"));
        let replace = || {
            let mut file = File::create(&new)?;
            writeln!(file, "{text}")?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            sync_folder(&path)
        };
        replace().map_err(failed(&path, "writing", Retryability::Indeterminate))
    }
}

fn head(log: &Path, bytes: &[u8], trusted: &[PublicKey]) -> Result<Head> {
    let path = beside(log, ".head");
    match fs::read_to_string(&path) {
        Ok(text) => Head::open(text.trim_end(), trusted),
        Err(error) if error.kind() == ErrorKind::NotFound && bytes.is_empty() => Ok(Head::EMPTY),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::corrupt(
            format!("the log {}", log.display()),
            format!(
                "its head {} is missing: bring it back, or begin another log",
                path.display()
            ),
        )),
        Err(error) => Err(failed(&path, "reading", Retryability::Transient)(error)),
    }
}

fn beside(log: &Path, suffix: &str) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// As long as another process has it, for a while.
fn in_turn(mut lock: impl FnMut() -> std::result::Result<(), TryLockError>) -> io::Result<()> {
    let until = Instant::now() + LOCK_WITHIN;
    loop {
        match lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => {
                let why = "another process has had it locked for 10 s";
                return Err(io::Error::new(ErrorKind::WouldBlock, why));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// So that a name is on disk, too.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn failed(path: &Path, doing: &str, retryability: Retryability) -> impl Fn(io::Error) -> Error {
    let action = format!("{doing} {}", path.display());
    move |error| Error::backend(BACKEND, action.clone(), retryability, error)
}
