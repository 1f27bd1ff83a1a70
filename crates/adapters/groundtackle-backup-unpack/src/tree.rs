//! A tree of files: its listing, and what is in the files.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use ruzstd::decoding::StreamingDecoder;

use crate::error::{Error, Result};
use crate::hex::Hex;
use crate::sealed::OpenPoint;

/// Plaintexts that are kept.
const CACHED: usize = 8;

/// The longest plaintext of chunks.
const MAX_CHUNKS_BYTES: usize = 64 << 20;

#[derive(Clone, Copy)]
struct Chunk {
    number: u32,
    ordinal: usize,
    offset: usize,
    bytes: usize,
}

/// Restore points by the numbers that the listing has for them, and where it is.
pub(crate) struct Tree<'a> {
    points: BTreeMap<u32, OpenPoint<'a>>,
    own: u32,
    cached: VecDeque<((u32, usize), Vec<u8>)>,
}

/// What was unpacked: entries, and bytes of files.
pub(crate) type Sums = (u64, u64);

impl<'a> Tree<'a> {
    pub(crate) const fn new(points: BTreeMap<u32, OpenPoint<'a>>, own: u32) -> Self {
        let cached = VecDeque::new();
        Self {
            points,
            own,
            cached,
        }
    }

    /// The bytes of a chunk.
    fn chunk(&mut self, at: Chunk) -> Result<&[u8]> {
        let key = (at.number, at.ordinal);
        if !self.cached.iter().any(|(cached, _)| *cached == key) {
            let missing = || bad("a chunk is in a segment that there is not");
            let point = self.points.get(&at.number).ok_or_else(missing)?;
            let entry = point.entries.get(at.ordinal).ok_or_else(missing)?;
            let damaged = |detail| point.damaged(&entry.place, detail);
            if entry.info.codec != "chunks.1" {
                return Err(damaged("it holds no chunks"));
            }
            let bytes = unpacked(&point.read(entry)?).map_err(damaged)?;
            self.cached.truncate(CACHED.saturating_sub(1));
            self.cached.push_front((key, bytes));
        }
        let found = self.cached.iter().find(|(cached, _)| *cached == key);
        let end = at.offset.saturating_add(at.bytes);
        let chunk = found.and_then(|(_, bytes)| bytes.get(at.offset..end));
        chunk.ok_or_else(|| bad("a chunk leads out of its segment"))
    }

    /// All of the listing.
    fn listing(&mut self) -> Result<Vec<u8>> {
        let own = self.points.get(&self.own).ok_or_else(|| bad("no root"))?;
        let root = own
            .entries
            .last()
            .filter(|last| last.info.codec == "tree.1");
        let root = own.read(root.ok_or_else(|| bad("its last segment is no root"))?)?;
        let mut root = Cursor(&root);
        if root.array()? != [b'T', 1] {
            return Err(bad("its root is of another kind or version"));
        }
        let mut listing = Vec::new();
        for _ in 0..root.u32()? {
            let chunk = root.chunk()?;
            listing.extend_from_slice(self.chunk(chunk)?);
        }
        match root.0 {
            [] => Ok(listing),
            _ => Err(bad("bytes follow its root")),
        }
    }

    /// Writes it all into a directory that is there and empty; `wanted` is the digest of the canonical listing.
    pub(crate) fn write(&mut self, into: &Path, wanted: &Hex<32>, sums: Sums) -> Result<()> {
        let listing = self.listing()?;
        let mut digest = blake3::Hasher::new();
        let mut cursor = Cursor(&listing);
        let (mut entries, mut bytes) = (0_u64, 0_u64);
        while !cursor.0.is_empty() {
            let before = cursor.0;
            let entry = cursor.entry()?;
            let canonical = before.len().saturating_sub(cursor.0.len());
            digest.update(before.get(..canonical).unwrap_or_default());
            if entry.kind == b'f' {
                cursor.pieces(|_, _| Ok(()))?;
                bytes = bytes.saturating_add(entry.bytes);
            }
            entries = entries.saturating_add(1);
        }
        // Nothing of it is believed before.
        if (entries, bytes) != sums || digest.finalize() != wanted.0 {
            return Err(bad("it is not the one that was signed"));
        }
        let mut cursor = Cursor(&listing);
        let mut directories = Vec::new();
        while !cursor.0.is_empty() {
            let entry = cursor.entry()?;
            let path = within(into, entry.path)?;
            match entry.kind {
                b'd' if entry.path.is_empty() => {}
                b'd' => fs::create_dir(&path).map_err(Error::io(&path))?,
                b'h' => {
                    let first = within(into, entry.target)?;
                    fs::hard_link(first, &path).map_err(Error::io(&path))?;
                    continue;
                }
                b'f' => self.file(&path, &entry, &mut cursor)?,
                b'l' => {
                    let target = std::ffi::OsStr::from_bytes(entry.target);
                    let linked = std::os::unix::fs::symlink(target, &path);
                    linked.map_err(Error::io(&path))?;
                }
                kind => special(&path, kind, entry.device)?,
            }
            match entry.kind {
                // What comes into it would change its time.
                b'd' => directories.push((path, entry)),
                _ => set(&path, &entry)?,
            }
        }
        let mut last_first = directories.iter().rev();
        last_first.try_for_each(|(path, entry)| set(path, entry))
    }

    fn file(&mut self, path: &Path, entry: &Entry<'_>, cursor: &mut Cursor<'_>) -> Result<()> {
        let failed = Error::io(path);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path);
        let file = file.map_err(&failed)?;
        let length = cursor.pieces(|at, chunk| {
            let Some(chunk) = chunk else { return Ok(()) };
            let bytes = self.chunk(chunk)?;
            file.write_all_at(bytes, at).map_err(&failed)
        })?;
        file.set_len(length).map_err(&failed)?;
        let mut found = blake3::Hasher::new();
        found.update_reader(&file).map_err(&failed)?;
        match length == entry.bytes && found.finalize() == entry.blake3 {
            true => Ok(()),
            false => Err(bad(&format!("the content of {}", path.display()))),
        }
    }
}

fn bad(what: &str) -> Error {
    Error::damaged("the tree's listing", what)
}

/// A path below another one; its directories are ours, and no link is among them.
pub(crate) fn within(root: &Path, path: &[u8]) -> Result<PathBuf> {
    let mut all = root.to_owned();
    let parts: Vec<_> = match path {
        [] => Vec::new(),
        path => path.split(|byte| *byte == b'/').collect(),
    };
    for (number, part) in (1_usize..).zip(&parts) {
        let strange = part.is_empty() || part.len() > 255 || part.contains(&0);
        if strange || matches!(*part, b"." | b"..") {
            return Err(bad("a path that leads out of the tree"));
        }
        all.push(std::ffi::OsStr::from_bytes(part));
        if number < parts.len() {
            let above = fs::symlink_metadata(&all).map_err(Error::io(&all))?;
            Error::unless(
                above.is_dir(),
                "the tree's listing",
                "a path by way of a link",
            )?;
        }
    }
    Ok(all)
}

fn special(path: &Path, kind: u8, (major, minor): (u32, u32)) -> Result<()> {
    let kind = match kind {
        b'p' => FileType::Fifo,
        b'b' => FileType::BlockDevice,
        _ => FileType::CharacterDevice,
    };
    let device = rustix::fs::makedev(major, minor);
    let made = rustix::fs::mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, device);
    made.map_err(|error| Error::io(path)(error.into()))
}

/// Owner, attributes, mode and time, in the order in which none undoes another.
fn set(path: &Path, entry: &Entry<'_>) -> Result<()> {
    let failed = |error: std::io::Error| Error::io(path)(error);
    let now = fs::symlink_metadata(path).map_err(failed)?;
    if (now.uid(), now.gid()) != (entry.user, entry.group) {
        let owned = std::os::unix::fs::lchown(path, Some(entry.user), Some(entry.group));
        owned.map_err(failed)?;
    }
    let lists = |(name, _): &&(&[u8], &[u8])| name.starts_with(b"system.posix_acl_");
    let attributes = |(name, value): &(&[u8], &[u8])| {
        let set = rustix::fs::lsetxattr(path, *name, value, XattrFlags::empty());
        set.map_err(|error| failed(error.into()))
    };
    let others = |attribute: &&(&[u8], &[u8])| !lists(attribute);
    entry
        .xattrs
        .iter()
        .filter(others)
        .try_for_each(attributes)?;
    if entry.kind != b'l' {
        let mode = fs::Permissions::from_mode(entry.mode);
        fs::set_permissions(path, mode).map_err(failed)?;
    }
    entry.xattrs.iter().filter(lists).try_for_each(attributes)?;
    let time = Timespec {
        tv_sec: entry.seconds,
        tv_nsec: entry.nanos.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let set = rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
    set.map_err(|error| failed(error.into()))
}

/// The plaintext of a segment of chunks, without its head.
fn unpacked(segment: &[u8]) -> Result<Vec<u8>, &'static str> {
    let Some(([b'F', 1, form, a, b, c, d], mut body)) = segment
        .split_first_chunk::<7>()
        .map(|(head, body)| (*head, body))
    else {
        return Err("it is of another kind or version");
    };
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let bytes = match form {
        _ if length > MAX_CHUNKS_BYTES => return Err("it is too long"),
        0 => body.to_vec(),
        1 => {
            let mut bytes = Vec::new();
            let frame = StreamingDecoder::new(&mut body).map_err(|_| "a frame of zstd")?;
            let mut frame = frame.take(u64::try_from(length).unwrap_or(0).saturating_add(1));
            frame
                .read_to_end(&mut bytes)
                .map_err(|_| "a frame of zstd")?;
            bytes
        }
        _ => return Err("it is of an unknown form"),
    };
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err("it has another length than it says"),
    }
}

#[derive(Default)]
struct Entry<'a> {
    kind: u8,
    path: &'a [u8],
    target: &'a [u8],
    mode: u32,
    user: u32,
    group: u32,
    seconds: i64,
    nanos: u32,
    xattrs: Vec<(&'a [u8], &'a [u8])>,
    bytes: u64,
    blake3: [u8; 32],
    device: (u32, u32),
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: u32) -> Result<&'a [u8]> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let (bytes, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| bad("it is cut short"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (array, rest) = self
            .0
            .split_first_chunk()
            .ok_or_else(|| bad("it is cut short"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()?;
        self.take(length)
    }

    fn chunk(&mut self) -> Result<Chunk> {
        let size = |number| usize::try_from(number).map_err(|_| bad("a number is too large"));
        Ok(Chunk {
            number: self.u32()?,
            ordinal: size(self.u64()?)?,
            offset: size(self.u32()?.into())?,
            bytes: size(self.u32()?.into())?,
        })
    }

    /// The canonical part of an entry.
    fn entry(&mut self) -> Result<Entry<'a>> {
        let [kind] = self.array()?;
        let path = self.bytes()?;
        let mut entry = Entry {
            kind,
            path,
            ..Entry::default()
        };
        if kind == b'h' {
            entry.target = self.bytes()?;
            return Ok(entry);
        }
        (entry.mode, entry.user, entry.group) = (self.u32()?, self.u32()?, self.u32()?);
        (entry.seconds, entry.nanos) = (self.array().map(i64::from_le_bytes)?, self.u32()?);
        for _ in 0..self.u32()? {
            entry.xattrs.push((self.bytes()?, self.bytes()?));
        }
        match kind {
            b'd' | b'p' => {}
            b'f' => (entry.bytes, entry.blake3) = (self.u64()?, self.array()?),
            b'l' => entry.target = self.bytes()?,
            b'b' | b'c' => entry.device = (self.u32()?, self.u32()?),
            _ => return Err(bad("an entry of an unknown kind")),
        }
        Ok(entry)
    }

    /// Where each piece begins, and its chunk if it is no hole; how long they are together.
    fn pieces(&mut self, mut each: impl FnMut(u64, Option<Chunk>) -> Result<()>) -> Result<u64> {
        let mut at = 0_u64;
        for _ in 0..self.u32()? {
            let (length, chunk) = match self.array()? {
                [0] => (self.u64()?, None),
                [1] => {
                    let chunk = self.chunk()?;
                    (u64::try_from(chunk.bytes).unwrap_or(u64::MAX), Some(chunk))
                }
                _ => return Err(bad("a piece of an unknown kind")),
            };
            each(at, chunk)?;
            at = at
                .checked_add(length)
                .ok_or_else(|| bad("a file is too long"))?;
        }
        Ok(at)
    }
}
