//! The files of a journal.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use groundtackle_core::fail_point;
use groundtackle_utxo_store::{BlockHash, Coin, OutPoint, Tip, Txid};

use super::error::JournalError;
use crate::codec::{decode_coins, encode_coins};
use crate::delta::{Cutter, Delta, DeltaPart, Joiner, decode_parts, encode_parts};

type Result<T, E = JournalError> = std::result::Result<T, E>;

pub(super) const VERSION: u8 = 1;
pub(super) const MAGIC: [u8; 7] = *b"gtutxoj";
/// Before each part: its length, and a checksum over that and the part.
const FRAME_BYTES: usize = 8;
/// Coins of a block that are encoded together.
const SEGMENT_BYTES: usize = 16 << 20;

pub(super) const EPOCH: &str = "EPOCH";
pub(super) const LOCK: &str = "LOCK";
pub(super) const INTENT: &str = "intent";
const DELTA_ENDING: &str = ".delta";
const HEAD_BYTES: usize = 16 + 4 + 32 + 32;

/// A time in which nothing but blocks changed the confirmed set. Not secret, and never the same twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch([u8; 16]);

impl Epoch {
    /// From bytes that [`as_bytes`](Self::as_bytes) gave.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// For a manifest.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The keys of the standard library's hash maps are random, which is as much as is needed here.
    pub(super) fn new() -> Self {
        let half = || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            RandomState::new().hash_one((now.ok(), std::process::id()))
        };
        Self((u128::from(half()) << 64 | u128::from(half())).to_be_bytes())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Text that names no epoch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an epoch has 32 hexadecimal digits")]
pub struct ParseEpochError(());

impl FromStr for Epoch {
    type Err = ParseEpochError;

    fn from_str(text: &str) -> Result<Self, ParseEpochError> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseEpochError(()));
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| ParseEpochError(()))?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// What is about to be done to a block, and what is needed to find out what it did. It says nothing of coins that the
/// block creates: as long as it is the tip, the store has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Intent {
    pub(super) tip: Tip,
    pub(super) previous: BlockHash,
    /// Outputs of the block that it does not spend itself, those that nobody can spend among them.
    pub(super) created: Vec<OutPoint>,
    /// Outputs of other blocks that it spends.
    pub(super) spent: Vec<OutPoint>,
    /// Coins that its coinbase overwrites: only before is it known which.
    pub(super) overwritten: Vec<Coin>,
}

/// What stands at the front of a delta's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) epoch: Epoch,
    pub(super) height: u32,
    pub(super) hash: BlockHash,
    pub(super) previous: BlockHash,
}

/// Where the files lie.
#[derive(Clone, Debug)]
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn delta_path(&self, height: u32, hash: &BlockHash) -> PathBuf {
        self.path(&format!("{height:010}-{hash}{DELTA_ENDING}"))
    }

    /// Heights and blocks of all deltas, in no order.
    pub(super) fn deltas(&self) -> Result<impl Iterator<Item = Result<(u32, BlockHash)>>> {
        let failed = |source| failed("list", &self.0, source);
        let entries = fs::read_dir(&self.0).map_err(failed)?;
        Ok(entries.filter_map(move |entry| match entry {
            Ok(entry) => {
                let name = entry.file_name();
                let name = name.to_str()?.strip_suffix(DELTA_ENDING)?;
                let (height, hash) = name.split_once('-')?;
                Some(Ok((height.parse().ok()?, hash.parse().ok()?)))
            }
            Err(error) => Some(Err(failed(error))),
        }))
    }

    pub(super) fn write_epoch(&self, epoch: Option<Epoch>) -> Result<()> {
        let bytes = epoch.map(|epoch| epoch.0.to_vec()).unwrap_or_default();
        let frame = [&[u8::from(epoch.is_some())], &bytes[..]].concat();
        self.replace(
            EPOCH,
            ["journal.epoch.written", "journal.epoch.done"],
            |file| file.frame(&frame),
        )
    }

    /// `None` while a call is under way that ends the last one, or was when the process died.
    pub(super) fn read_epoch(&self) -> Result<Option<Epoch>> {
        let path = self.path(EPOCH);
        let mut file = Frames::open(&path)?;
        let frame = file.next()?;
        file.finish()?;
        match frame.split_first() {
            Some((0, [])) => Ok(None),
            Some((1, id)) if id.len() == 16 => Ok(id.try_into().ok().map(Epoch)),
            _ => Err(damaged(&path, "it is no epoch")),
        }
    }

    pub(super) fn write_intent(&self, intent: &Intent) -> Result<()> {
        let path = self.path(INTENT);
        let mut head = Vec::with_capacity(72);
        head.extend_from_slice(&intent.tip.height.to_le_bytes());
        head.extend_from_slice(&intent.tip.median_time_past.to_le_bytes());
        head.extend_from_slice(intent.tip.hash.as_bytes());
        head.extend_from_slice(intent.previous.as_bytes());
        let overwritten =
            encode_coins(&intent.overwritten).map_err(|error| damaged(&path, error.to_string()))?;
        let names = ["journal.intent.written", "journal.intent.done"];
        self.replace(INTENT, names, |file| {
            file.frame(&head)?;
            file.frame(&overwritten)?;
            file.frame(&outpoint_bytes(&intent.created))?;
            file.frame(&outpoint_bytes(&intent.spent))
        })
    }

    pub(super) fn read_intent(&self) -> Result<Option<Intent>> {
        let path = self.path(INTENT);
        if !exists(&path)? {
            return Ok(None);
        }
        let mut file = Frames::open(&path)?;
        let head = file.next()?;
        let overwritten = file.next()?;
        let created = file.next()?;
        let spent = file.next()?;
        file.finish()?;
        let wrong = || damaged(&path, "it is no intent");
        let (height, head) = head.split_first_chunk().ok_or_else(wrong)?;
        let (time, head) = head.split_first_chunk().ok_or_else(wrong)?;
        let (hash, head) = head.split_first_chunk().ok_or_else(wrong)?;
        let previous: &[u8; 32] = head.try_into().map_err(|_| wrong())?;
        Ok(Some(Intent {
            tip: Tip {
                height: u32::from_le_bytes(*height),
                hash: BlockHash::from_bytes(*hash),
                median_time_past: u32::from_le_bytes(*time),
            },
            previous: BlockHash::from_bytes(*previous),
            created: outpoints(&created).ok_or_else(wrong)?,
            spent: outpoints(&spent).ok_or_else(wrong)?,
            overwritten: decode_coins(&overwritten)
                .map_err(|error| damaged(&path, error.to_string()))?,
        }))
    }

    /// Not made durable: an intent that is there again says what is so, or what has no effect.
    pub(super) fn remove_intent(&self) -> Result<()> {
        let path = self.path(INTENT);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path, error))
            }
            _ => {
                fail_point("journal.intent.removed");
                Ok(())
            }
        }
    }

    pub(super) fn write_delta(&self, epoch: Epoch, delta: Delta) -> Result<()> {
        let Delta { tip, previous, .. } = delta;
        let path = self.delta_path(tip.height, &tip.hash);
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(epoch.as_bytes());
        head.extend_from_slice(&tip.height.to_le_bytes());
        head.extend_from_slice(tip.hash.as_bytes());
        head.extend_from_slice(previous.as_bytes());
        let mut cutter = Cutter::new(SEGMENT_BYTES);
        let segments = cutter.push(delta);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let names = ["journal.delta.written", "journal.delta.done"];
        self.replace(&name, names, |file| {
            file.frame(&head)?;
            for parts in segments.into_iter().chain(cutter.finish()) {
                let segment =
                    encode_parts(&parts).map_err(|error| damaged(&path, error.to_string()))?;
                file.frame(&segment)?;
            }
            Ok(())
        })
    }

    /// What the file of a delta begins with; `None` if there is no such file.
    pub(super) fn read_head(&self, height: u32, hash: &BlockHash) -> Result<Option<Head>> {
        let path = self.delta_path(height, hash);
        if !exists(&path)? {
            return Ok(None);
        }
        let mut file = Frames::open(&path)?;
        head_of(&mut file, height, hash).map(Some)
    }

    pub(super) fn read_delta(&self, height: u32, hash: &BlockHash) -> Result<(Head, Delta)> {
        let path = self.delta_path(height, hash);
        let mut file = Frames::open(&path)?;
        let head = head_of(&mut file, height, hash)?;
        let mut joiner = Joiner::after(head.previous);
        loop {
            let segment = file.next()?;
            let wrong = |error: crate::codec::CodecError| damaged(&path, error.to_string());
            let parts: Vec<DeltaPart> = decode_parts(&segment).map_err(wrong)?;
            for part in parts {
                let Some(delta) = joiner.push(part).map_err(wrong)? else {
                    continue;
                };
                if delta.tip.height != height || delta.tip.hash != *hash {
                    return Err(damaged(&path, "it is the delta of another block"));
                }
                file.finish()?;
                return Ok((head, delta));
            }
        }
    }

    pub(super) fn remove_delta(&self, height: u32, hash: &BlockHash) -> Result<()> {
        let path = self.delta_path(height, hash);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// Whole or not at all, and there when this returns.
    fn replace(
        &self,
        name: &str,
        [written, done]: [&'static str; 2],
        fill: impl FnOnce(&mut Draft) -> Result<()>,
    ) -> Result<()> {
        let path = self.path("draft");
        let file = File::create(&path).map_err(|error| failed("create", &path, error))?;
        let mut draft = Draft { path, file };
        draft.write(&[&MAGIC[..], &[VERSION]].concat())?;
        fill(&mut draft)?;
        let Draft { path, file } = draft;
        file.sync_all()
            .map_err(|error| failed("make durable", &path, error))?;
        fail_point(written);
        fs::rename(&path, self.path(name)).map_err(|error| failed("rename", &path, error))?;
        sync_folder(&self.0)?;
        fail_point(done);
        Ok(())
    }
}

pub(super) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| failed("make durable", path, error))
}

fn head_of(file: &mut Frames, height: u32, hash: &BlockHash) -> Result<Head> {
    let bytes = file.next()?;
    let wrong = || damaged(&file.path, "it does not begin as a delta");
    let (epoch, bytes) = bytes.split_first_chunk().ok_or_else(wrong)?;
    let (number, bytes) = bytes.split_first_chunk().ok_or_else(wrong)?;
    let (block, bytes) = bytes.split_first_chunk().ok_or_else(wrong)?;
    let previous: &[u8; 32] = bytes.try_into().map_err(|_| wrong())?;
    let head = Head {
        epoch: Epoch(*epoch),
        height: u32::from_le_bytes(*number),
        hash: BlockHash::from_bytes(*block),
        previous: BlockHash::from_bytes(*previous),
    };
    if head.height != height || head.hash != *hash {
        return Err(damaged(&file.path, "it is of another block than its name"));
    }
    Ok(head)
}

fn outpoint_bytes(outpoints: &[OutPoint]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(outpoints.len().saturating_mul(36));
    for outpoint in outpoints {
        bytes.extend_from_slice(outpoint.txid.as_bytes());
        bytes.extend_from_slice(&outpoint.vout.to_le_bytes());
    }
    bytes
}

fn outpoints(bytes: &[u8]) -> Option<Vec<OutPoint>> {
    let (outpoints, rest) = bytes.as_chunks::<36>();
    let outpoint = |bytes: &[u8; 36]| {
        let (txid, vout) = bytes.split_first_chunk()?;
        let vout = u32::from_le_bytes(vout.try_into().ok()?);
        Some(OutPoint::new(Txid::from_bytes(*txid), vout))
    };
    rest.is_empty()
        .then(|| outpoints.iter().map(outpoint).collect())
        .flatten()
}

/// A file that is being written.
struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(|error| failed("write", &self.path, error))
    }

    fn frame(&mut self, bytes: &[u8]) -> Result<()> {
        let length = u32::try_from(bytes.len())
            .map_err(|_| damaged(&self.path, "a part of it would have more than 4 GB"))?
            .to_le_bytes();
        self.write(&length)?;
        self.write(&checksum(length, bytes).to_le_bytes())?;
        self.write(bytes)
    }
}

pub(super) fn checksum(length: [u8; 4], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(bytes);
    hasher.finalize()
}

/// A file that is being read.
struct Frames {
    path: PathBuf,
    file: BufReader<File>,
    /// Bytes that are left.
    left: u64,
}

impl Frames {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| failed("open", path, error))?;
        let length = file
            .metadata()
            .map_err(|error| failed("open", path, error))?
            .len();
        let mut frames = Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            left: length,
        };
        let mut header = [0; MAGIC.len() + 1];
        frames.read(&mut header)?;
        match header.split_last() {
            Some((version, magic)) if *magic == MAGIC => match *version {
                VERSION => Ok(frames),
                0 => Err(damaged(path, "there is no format 0")),
                found => Err(JournalError::NewerFormat {
                    path: path.to_owned(),
                    found,
                    supported: VERSION,
                }),
            },
            _ => Err(damaged(path, "it is no file of a journal")),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| damaged(&self.path, "it is cut short"))?;
        self.file
            .read_exact(bytes)
            .map_err(|error| failed("read", &self.path, error))
    }

    fn next(&mut self) -> Result<Vec<u8>> {
        let mut header = [0; FRAME_BYTES];
        self.read(&mut header)?;
        let (length, sum) = (
            read_u32(&header),
            read_u32(header.get(4..).unwrap_or_default()),
        );
        if u64::from(length) > self.left {
            return Err(damaged(&self.path, "it is cut short"));
        }
        let mut bytes = vec![0; length as usize];
        self.read(&mut bytes)?;
        if checksum(length.to_le_bytes(), &bytes) != sum {
            return Err(damaged(&self.path, "a checksum does not fit"));
        }
        Ok(bytes)
    }

    fn finish(&self) -> Result<()> {
        match self.left {
            0 => Ok(()),
            _ => Err(damaged(&self.path, "something follows its end")),
        }
    }
}

fn read_u32(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

pub(super) fn exists(path: &Path) -> Result<bool> {
    fs::exists(path).map_err(|error| failed("look for", path, error))
}

pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

pub(super) fn damaged(path: &Path, detail: impl Into<String>) -> JournalError {
    JournalError::Damaged {
        path: path.to_owned(),
        detail: detail.into(),
    }
}
