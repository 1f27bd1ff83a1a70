//! The signed log: each answer is in it before it is given.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use groundtackle_release_gate::{
    Decision, Entry, Error, Evidence, Head, PublicKey, Result, Retryability, Signer, Timestamp,
    Verified, verify,
};
use groundtackle_release_gate_http::Recorder;

#[derive(Clone, Debug)]
pub struct SignedLog(Arc<Mutex<Log>>);

impl SignedLog {
    pub fn open(path: &Path, signer: Signer) -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Log::open(path, signer)?))))
    }
}

#[async_trait]
impl Recorder for SignedLog {
    async fn record(&self, decision: &Decision, evidence: &[Evidence]) -> Result<()> {
        let entry = Entry::Decision {
            decision: Box::new(decision.clone()),
            evidence: evidence.to_vec(),
        };
        let verdict = decision.verdict.to_string();
        let log = self.0.clone();
        // One after the other: each record holds the digest of the one before.
        let append = move || {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.append(entry).inspect_err(|error| {
                tracing::warn!(%error, "an answer of the gate could not be recorded");
            })
        };
        let appended = tokio::task::spawn_blocking(append).await;
        appended.map_err(|error| failed(io::Error::other(error)))??;
        tracing::info!(verdict, "the gate answered");
        Ok(())
    }
}

fn failed(error: io::Error) -> Error {
    let action = "reading or writing it";
    Error::backend("log", action, Retryability::Indeterminate, error)
}

/// A record is acknowledged once its line and then the head that counts it are on disk. What a crash leaves behind the head
/// was told to nobody: it counts if it is whole, and is cut off if not.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    signer: Signer,
    /// None after a failure: what is on disk is not known, and is read again.
    open: Option<(File, Head)>,
}

impl Log {
    fn open(path: &Path, signer: Signer) -> Result<Self> {
        let mut log = Self {
            path: path.into(),
            signer,
            open: None,
        };
        log.open = Some(log.read()?);
        Ok(log)
    }

    fn read(&self) -> Result<(File, Head)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&self.path).map_err(failed)?;
        // Two processes would each follow the other's record.
        file.try_lock().map_err(|error| failed(error.into()))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let trusted = [self.signer.public()];
        if bytes.is_empty() && !head_path(&self.path).exists() {
            self.write_head(Head::EMPTY)?;
        }
        // A head that is missing was taken away: it is written before the first record.
        let head = read_head(&self.path, &trusted)?;
        let verified = verify(&bytes, &trusted, Some(&head))?;
        let whole = verified.whole_bytes as u64;
        file.set_len(whole).map_err(failed)?;
        file.seek(SeekFrom::Start(whole)).map_err(failed)?;
        Ok((file, verified.head))
    }

    fn append(&mut self, entry: Entry) -> Result<()> {
        let (mut file, head) = match self.open.take() {
            Some(open) => open,
            None => self.read()?,
        };
        let (line, next) = head.append(entry, Timestamp::now(), &self.signer)?;
        file.write_all(&line).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        self.write_head(next)?;
        self.open = Some((file, next));
        Ok(())
    }

    /// A reader sees the one before or this one, whole.
    fn write_head(&self, head: Head) -> Result<()> {
        let (path, text) = (head_path(&self.path), head.seal(&self.signer)?);
        let replace = || {
            let beside = path.with_extension("new");
            let mut file = File::create(&beside)?;
            writeln!(file, "{text}")?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            let folder = path.parent().filter(|folder| *folder != Path::new(""));
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        replace().map_err(failed)
    }
}

fn head_path(log: &Path) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(".head");
    path.into()
}

fn read_head(log: &Path, trusted: &[PublicKey]) -> Result<Head> {
    let head = fs::read_to_string(head_path(log)).map_err(failed)?;
    Head::open(head.trim_end(), trusted)
}

/// All of a log, if it is what was written: with the public keys alone, on any machine.
pub fn read(log: &Path, trusted: &[PublicKey]) -> Result<Verified> {
    let bytes = fs::read(log).map_err(failed)?;
    verify(&bytes, trusted, Some(&read_head(log, trusted)?))
}
