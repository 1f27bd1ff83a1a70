//! Files: keys, evidence, and the log with its head.
//!
//! A record is acknowledged once its line and then the head that counts it are on disk. A crash between the two leaves a line that the head
//! does not count yet, and in the middle of a line leaves what is cut off before the next one.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use groundtackle_release_gate::{
    Entry, Evidence, Head, PublicKey, Record, Signer, Timestamp, Verified, verify,
};

use super::failure::{Failure, Result};
use crate::report::note;

/// Keys and evidence are short.
const MAX_BYTES: u64 = 64 << 20;

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    move |source| Failure::File {
        path: path.into(),
        source,
    }
}

pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed(path))?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed(path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::BadData {
            path: path.into(),
            detail: "it is longer than 64 MiB".into(),
        });
    }
    Ok(bytes)
}

pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|_| Failure::BadData {
        path: path.into(),
        detail: "it is no text of UTF-8".into(),
    })
}

/// A key, as `ops gate key` writes it.
pub fn signer(path: &Path) -> Result<Signer> {
    let text = read_text(path)?;
    let seed = seed(text.trim()).ok_or_else(|| Failure::BadData {
        path: path.into(),
        detail: "it is no key: write one with ops gate key".into(),
    })?;
    Ok(Signer::from_seed(&seed))
}

/// 64 hexadecimal digits. Public keys are written alike.
fn seed(text: &str) -> Option<[u8; 32]> {
    text.parse().ok().map(|PublicKey(bytes)| bytes)
}

/// A list of evidence.
pub fn evidence(path: &Path) -> Result<Vec<Evidence>> {
    serde_json::from_str(&read_text(path)?).map_err(|error| Failure::BadData {
        path: path.into(),
        detail: format!("it is no list of evidence: {error}"),
    })
}

/// A new file, whole on disk or not there; only its owner can read it if it is `secret`.
pub fn create(path: &Path, text: &str, secret: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if secret { 0o600 } else { 0o644 });
    let mut file = options.open(path).map_err(|source| Failure::Create {
        path: path.into(),
        source,
    })?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder(path))
        .map_err(failed(path))
}

/// So that a name is on disk, too.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

/// A log to read.
#[derive(Clone, Debug, Args)]
pub struct Reading {
    /// The log; its head is beside it, in a file with `.head` after its name.
    #[arg(long = "log", id = "log", value_name = "FILE")]
    path: PathBuf,
    /// A public key whose records count. May be given several times.
    #[arg(long = "trust", value_name = "KEY", required = true)]
    trusted: Vec<PublicKey>,
    /// A copy of the head that was kept elsewhere: shows whether somebody cut off records and wrote the head anew.
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
}

/// A log to read, if one is named.
#[derive(Clone, Debug, Args)]
pub struct MaybeReading {
    /// A log whose evidence counts, too.
    #[arg(long = "log", id = "log", value_name = "FILE", requires = "trust")]
    path: Option<PathBuf>,
    /// A public key whose records count. May be given several times.
    #[arg(long = "trust", id = "trust", value_name = "KEY")]
    trusted: Vec<PublicKey>,
}

/// A log to write to.
#[derive(Clone, Debug, Args)]
pub struct Writing {
    /// The log, made if it is not there; its head is beside it, in a file with `.head` after its name.
    #[arg(long = "log", id = "log", value_name = "FILE")]
    path: PathBuf,
    /// The key that signs records.
    #[arg(long, value_name = "FILE")]
    signer: PathBuf,
    /// A public key whose records count, beside the signer's. May be given several times.
    #[arg(long = "trust", value_name = "KEY")]
    trusted: Vec<PublicKey>,
}

/// A log to write to, if one is named.
#[derive(Clone, Debug, Args)]
pub struct MaybeLog {
    /// The log, made if it is not there; its head is beside it, in a file with `.head` after its name.
    #[arg(long = "log", id = "log", value_name = "FILE", requires = "signer")]
    path: Option<PathBuf>,
    /// The key that signs records and permits.
    #[arg(long, id = "signer", value_name = "FILE", requires = "log")]
    signer: Option<PathBuf>,
    /// A public key whose records count, beside the signer's. May be given several times.
    #[arg(long = "trust", value_name = "KEY", requires = "log")]
    trusted: Vec<PublicKey>,
}

impl MaybeLog {
    pub fn open(&self) -> Result<Option<Log>> {
        let (Some(path), Some(signer)) = (&self.path, &self.signer) else {
            return Ok(None);
        };
        let writing = Writing {
            path: path.clone(),
            signer: signer.clone(),
            trusted: self.trusted.clone(),
        };
        writing.open().map(Some)
    }
}

impl MaybeReading {
    pub fn records(&self) -> Result<Vec<Record>> {
        let Some(path) = &self.path else {
            return Ok(Vec::new());
        };
        let reading = Reading {
            path: path.clone(),
            trusted: self.trusted.clone(),
            head: None,
        };
        Ok(reading.read()?.records)
    }
}

impl Reading {
    /// All of it, if it is what was written.
    pub fn read(&self) -> Result<Verified> {
        let mut file = File::open(&self.path).map_err(failed(&self.path))?;
        // While somebody appends, line and head don't fit together.
        file.lock_shared().map_err(failed(&self.path))?;
        let log = read_all(&mut file, &self.path)?;
        let head = head(&head_path(&self.path), &log, &self.trusted)?;
        let verified = verify(&log, &self.trusted, Some(&head))?;
        if let Some(path) = &self.head {
            let kept = Head::open(read_text(path)?.trim_end(), &self.trusted)?;
            verify(&log, &self.trusted, Some(&kept))?;
        }
        Ok(verified)
    }
}

impl Writing {
    /// Locks it, until it is dropped.
    pub fn open(&self) -> Result<Log> {
        let signer = signer(&self.signer)?;
        let mut trusted = self.trusted.clone();
        trusted.push(signer.public());
        let head_path = head_path(&self.path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)
            .map_err(|source| Failure::Create {
                path: self.path.clone(),
                source,
            })?;
        file.lock().map_err(failed(&self.path))?;
        sync_folder(&self.path).map_err(failed(&self.path))?;
        let log = read_all(&mut file, &self.path)?;
        // Before the first byte, so that a head that is missing was taken away.
        if log.is_empty() && !head_path.exists() {
            write_head(&head_path, Head::EMPTY, &signer)?;
        }
        let head = head(&head_path, &log, &trusted)?;
        let verified = verify(&log, &trusted, Some(&head))?;
        let whole = verified.whole_bytes as u64;
        if whole < log.len() as u64 {
            note("what a crash cut short, and nobody was told of, is taken off the log");
            file.set_len(whole)
                .and_then(|()| file.sync_all())
                .map_err(failed(&self.path))?;
        }
        file.seek(SeekFrom::Start(whole))
            .map_err(failed(&self.path))?;
        Ok(Log {
            path: self.path.clone(),
            file,
            signer,
            records: verified.records,
            head: verified.head,
        })
    }
}

fn head_path(log: &Path) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(".head");
    path.into()
}

/// A reader sees the one before or this one, whole.
fn write_head(path: &Path, head: Head, signer: &Signer) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let text = format!("{}\n", head.seal(signer)?);
    let replaced = || {
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_folder(path)
    };
    replaced().map_err(failed(path))
}

fn read_all(file: &mut File, path: &Path) -> Result<Vec<u8>> {
    let mut log = Vec::new();
    file.read_to_end(&mut log).map_err(failed(path))?;
    Ok(log)
}

fn head(path: &Path, log: &[u8], trusted: &[PublicKey]) -> Result<Head> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Head::open(text.trim_end(), trusted)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && log.is_empty() => {
            Ok(Head::EMPTY)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::NoHead { path: path.into() })
        }
        Err(error) => Err(failed(path)(error)),
    }
}

/// A log that is locked, and was verified.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    signer: Signer,
    records: Vec<Record>,
    head: Head,
}

impl Log {
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// One record more, on disk when this returns. Gives its number, and the log back. After an error open the log again.
    pub fn append(mut self, entry: Entry, at: Timestamp) -> Result<(u64, Self)> {
        let (line, next) = self.head.append(entry, at, &self.signer)?;
        self.file
            .write_all(&line)
            .and_then(|()| self.file.sync_all())
            .map_err(failed(&self.path))?;
        write_head(&head_path(&self.path), next, &self.signer)?;
        let number = self.head.records;
        self.head = next;
        Ok((number, self))
    }
}
