//! A ledger in a file.
//!
//! The file begins with [`MAGIC`]. Then come frames: the length of the payload (u32), its CRC-32 (u32, as in zlib), the payload.
//! Numbers are little-endian. Each append is one frame, so that only the last one can be torn. A payload is entries one
//! after the other: a kind (u8), then
//!
//! - 1, a minute: length of the objective's name (u8), the name, minute since 1970 (u32), milliseconds good, bad, excluded (u16
//!   each);
//! - 2, a maintenance: length (u32), [`Declared`] as JSON.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use groundtackle_core::Retryability;

use crate::error::{Error, Result};
use crate::ledger::{Bucket, LedgerEntry, LedgerStorage};
use crate::maintenance::Declared;
use crate::outcome::Name;

const MAGIC: &[u8; 8] = b"GTHLDG\x00\x01";

/// A longer frame can't have been written: the frames of `replace` are cut well before.
const MAX_FRAME_BYTES: usize = 4 << 20;

/// Entries of one frame of `replace`.
const ENTRIES_PER_FRAME: usize = 4096;

/// A ledger in a file: each append is one checksummed frame, and is synced before it is acknowledged. What a killed process left
/// unfinished at the end is cut off when it is opened; damage anywhere else is an error. One process at a time has it open.
#[derive(Debug)]
pub struct FileLedger {
    path: PathBuf,
    /// Held as long as the ledger is open. Beside it, for the file itself is replaced.
    _lock: File,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Up to where the file is known to be whole and synced.
    whole: u64,
}

impl FileLedger {
    /// Opens the ledger at `path`, or begins one. Beside it lies `<path>.lock`, and while it is replaced `<path>.new`.
    ///
    /// # Errors
    /// `Ledger`, `LedgerInUse`, `LedgerDamaged`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let fail = |action| failed(&path, action);
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .open(beside(&path, ".lock"));
        let lock = lock.map_err(fail("opening its lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::LedgerInUse {
                    place: path.display().to_string(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(fail("locking it")(error)),
        }
        if !path.exists() {
            // Whole or not there, as when it is replaced.
            write_new(&path, &[])?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let mut file = file.map_err(fail("opening it"))?;
        let whole = scan(&path, &mut file, &mut |_| ())?;
        cut(&file, whole).map_err(fail("cutting off what was not finished"))?;
        let open = Mutex::new(Open { file, whole });
        Ok(Self {
            path,
            _lock: lock,
            open,
        })
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LedgerStorage for FileLedger {
    fn load(&self, each: &mut dyn FnMut(LedgerEntry)) -> Result<()> {
        scan(&self.path, &mut self.opened().file, each).map(drop)
    }

    fn append(&self, entries: &[LedgerEntry]) -> Result<()> {
        let mut open = self.opened();
        for entries in entries.chunks(ENTRIES_PER_FRAME) {
            let frame = frame(entries);
            let Open { file, whole } = &mut *open;
            // Whatever an append that failed has left behind is cut off first.
            let appended = cut(file, *whole)
                .and_then(|()| file.seek(SeekFrom::Start(*whole)).map(drop))
                .and_then(|()| file.write_all(&frame))
                .and_then(|()| file.sync_data());
            appended.map_err(failed(&self.path, "appending to it"))?;
            *whole = whole.saturating_add(frame.len() as u64);
        }
        Ok(())
    }

    fn replace(&self, entries: &[LedgerEntry]) -> Result<()> {
        let mut open = self.opened();
        write_new(&self.path, entries)?;
        let file = OpenOptions::new().read(true).write(true).open(&self.path);
        let mut file = file.map_err(failed(&self.path, "opening it again"))?;
        let whole = scan(&self.path, &mut file, &mut |_| ())?;
        *open = Open { file, whole };
        Ok(())
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn failed<'a>(path: &'a Path, action: &'static str) -> impl Fn(io::Error) -> Error + 'a {
    move |error| Error::Ledger {
        place: path.display().to_string(),
        action,
        // Entries are facts: appending again says the same.
        retryability: Retryability::Indeterminate,
        source: error.into(),
    }
}

/// A new file in the place of what is there.
fn write_new(path: &Path, entries: &[LedgerEntry]) -> Result<()> {
    let new = beside(path, ".new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(MAGIC)?;
        for entries in entries.chunks(ENTRIES_PER_FRAME) {
            file.write_all(&frame(entries))?;
        }
        file.sync_all()?;
        fs::rename(&new, path)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(failed(path, "writing it anew"))
}

fn cut(file: &File, whole: u64) -> io::Result<()> {
    if file.metadata()?.len() > whole {
        file.set_len(whole)?;
        file.sync_data()?;
    }
    Ok(())
}

fn frame(entries: &[LedgerEntry]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(entries.len().saturating_mul(48));
    for entry in entries {
        encode(entry, &mut payload);
    }
    let mut frame = Vec::with_capacity(payload.len().saturating_add(8));
    frame.extend((payload.len() as u32).to_le_bytes());
    frame.extend(crc32fast::hash(&payload).to_le_bytes());
    frame.append(&mut payload);
    frame
}

fn encode(entry: &LedgerEntry, into: &mut Vec<u8>) {
    match entry {
        LedgerEntry::Minute {
            objective,
            minute,
            bucket,
        } => {
            into.push(1);
            // A name has at most 100 bytes.
            into.push(objective.as_str().len() as u8);
            into.extend(objective.as_str().as_bytes());
            into.extend(minute.to_le_bytes());
            for millis in [
                bucket.good_millis,
                bucket.bad_millis,
                bucket.excluded_millis,
            ] {
                into.extend(millis.to_le_bytes());
            }
        }
        LedgerEntry::Maintenance(declared) => {
            // Names and numbers always have a JSON.
            let json = serde_json::to_vec(declared).unwrap_or_default();
            into.push(2);
            into.extend((json.len() as u32).to_le_bytes());
            into.extend(json);
        }
    }
}

/// Reads the file from its beginning. Returns up to where it is whole; what comes after was being written when the process
/// was killed.
fn scan(path: &Path, file: &mut File, each: &mut dyn FnMut(LedgerEntry)) -> Result<u64> {
    let fail = |error| failed(path, "reading it")(error);
    let damaged = |offset, detail| {
        let place = path.display().to_string();
        Err(Error::LedgerDamaged {
            place,
            offset,
            detail,
        })
    };
    let bytes = file.metadata().map_err(fail)?.len();
    file.seek(SeekFrom::Start(0)).map_err(fail)?;
    let mut input = io::BufReader::new(file);
    let mut magic = [0; MAGIC.len()];
    if bytes < magic.len() as u64 {
        return damaged(0, "it is shorter than its head");
    }
    input.read_exact(&mut magic).map_err(fail)?;
    if magic != *MAGIC {
        return damaged(0, "it is no ledger, or one of a newer version");
    }
    let mut at = magic.len() as u64;
    let mut payload = Vec::new();
    loop {
        let left = bytes.saturating_sub(at);
        if left < 8 {
            return Ok(at);
        }
        let mut head = [0; 8];
        input.read_exact(&mut head).map_err(fail)?;
        let [a, b, c, d, e, f, g, h] = head;
        let (length, crc) = (
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]),
        );
        let end = 8 + u64::from(length);
        if end > left || (length == 0 && crc == 0) {
            // The end of the file was being written, or, after a loss of power, is zeros.
            return if length as usize <= MAX_FRAME_BYTES {
                Ok(at)
            } else {
                damaged(at, "a frame is longer than any")
            };
        }
        if length as usize > MAX_FRAME_BYTES {
            return damaged(at, "a frame is longer than any");
        }
        payload.resize(length as usize, 0);
        input.read_exact(&mut payload).map_err(fail)?;
        if crc32fast::hash(&payload) != crc {
            return if end == left {
                Ok(at)
            } else {
                damaged(at, "a checksum is wrong")
            };
        }
        let mut rest = payload.as_slice();
        while !rest.is_empty() {
            match decode(&mut rest) {
                Some(entry) => each(entry),
                None => return damaged(at, "an entry makes no sense"),
            }
        }
        at = at.saturating_add(end);
    }
}

fn decode(input: &mut &[u8]) -> Option<LedgerEntry> {
    let [kind] = take(input)?;
    match kind {
        1 => {
            let [length] = take(input)?;
            let (name, rest) = input.split_at_checked(length.into())?;
            *input = rest;
            let objective = Name::try_from(std::str::from_utf8(name).ok()?).ok()?;
            let minute = u32::from_le_bytes(take(input)?);
            let [good_millis, bad_millis, excluded_millis] =
                [take(input)?, take(input)?, take(input)?].map(u16::from_le_bytes);
            let sum: u32 = [good_millis, bad_millis, excluded_millis]
                .into_iter()
                .map(u32::from)
                .sum();
            let bucket = Bucket {
                good_millis,
                bad_millis,
                excluded_millis,
            };
            (sum <= 60_000).then_some(LedgerEntry::Minute {
                objective,
                minute,
                bucket,
            })
        }
        2 => {
            let length = u32::from_le_bytes(take(input)?);
            let (json, rest) = input.split_at_checked(usize::try_from(length).ok()?)?;
            *input = rest;
            let declared: Declared = serde_json::from_slice(json).ok()?;
            Some(LedgerEntry::Maintenance(declared))
        }
        _ => None,
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*first)
}
