//! Entries of a listing: `docs/backup-format.md` has the bytes.

use groundtackle_backup::Result;

use crate::error::damaged;

/// The longest path, name or value that is read, in bytes: Linux has 4 KiB and 64 KiB.
const MAX_BYTES: u32 = 1 << 20;

/// Attributes of one entry at most; their names take 64 KiB on Linux.
const MAX_XATTRS: u32 = 1 << 16;

/// Pieces of one file at most: 32 TiB in chunks of the usual length.
const MAX_PIECES: u32 = 1 << 26;

/// Where a chunk is: which restore point, segment, and bytes of the segment's plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkAt {
    pub(crate) number: u32,
    pub(crate) ordinal: u64,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Hole(u64),
    Chunk(ChunkAt),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File { bytes: u64, blake3: [u8; 32] },
    Symlink(Vec<u8>),
    Fifo,
    Block(u32, u32),
    Char(u32, u32),
}

/// All but its name and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// The lower 12 bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// By ascending names.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Another name of a file (or whatever it is) that came before, by its path.
    Link(Vec<u8>),
    Own(Attributes, Kind),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Within the tree; empty for the root.
    pub(crate) path: Vec<u8>,
    pub(crate) what: What,
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // What a file system gives is far shorter.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend(length.to_le_bytes());
    out.extend(bytes);
}

impl Entry {
    const fn tag(&self) -> u8 {
        match &self.what {
            What::Link(_) => b'h',
            What::Own(_, kind) => match kind {
                Kind::Directory => b'd',
                Kind::File { .. } => b'f',
                Kind::Symlink(_) => b'l',
                Kind::Fifo => b'p',
                Kind::Block(..) => b'b',
                Kind::Char(..) => b'c',
            },
        }
    }

    /// As the digest of the listing has it.
    pub(crate) fn canonical(&self) -> Vec<u8> {
        let mut out = vec![self.tag()];
        put_bytes(&mut out, &self.path);
        let (attributes, kind) = match &self.what {
            What::Link(to) => {
                put_bytes(&mut out, to);
                return out;
            }
            What::Own(attributes, kind) => (attributes, kind),
        };
        out.extend(attributes.mode.to_le_bytes());
        out.extend(attributes.uid.to_le_bytes());
        out.extend(attributes.gid.to_le_bytes());
        out.extend(attributes.mtime.0.to_le_bytes());
        out.extend(attributes.mtime.1.to_le_bytes());
        let count = u32::try_from(attributes.xattrs.len()).unwrap_or(u32::MAX);
        out.extend(count.to_le_bytes());
        for (name, value) in &attributes.xattrs {
            put_bytes(&mut out, name);
            put_bytes(&mut out, value);
        }
        match kind {
            Kind::Directory | Kind::Fifo => {}
            Kind::File { bytes, blake3 } => {
                out.extend(bytes.to_le_bytes());
                out.extend(blake3);
            }
            Kind::Symlink(target) => put_bytes(&mut out, target),
            Kind::Block(major, minor) | Kind::Char(major, minor) => {
                out.extend(major.to_le_bytes());
                out.extend(minor.to_le_bytes());
            }
        }
        out
    }
}

pub(crate) fn put_chunk(out: &mut Vec<u8>, at: &ChunkAt) {
    out.extend(at.number.to_le_bytes());
    out.extend(at.ordinal.to_le_bytes());
    out.extend(at.offset.to_le_bytes());
    out.extend(at.bytes.to_le_bytes());
}

/// What follows the canonical part of a file.
pub(crate) fn put_pieces(out: &mut Vec<u8>, pieces: &[Piece]) {
    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    out.extend(count.to_le_bytes());
    for piece in pieces {
        match piece {
            Piece::Hole(bytes) => {
                out.push(0);
                out.extend(bytes.to_le_bytes());
            }
            Piece::Chunk(at) => {
                out.push(1);
                put_chunk(out, at);
            }
        }
    }
}

/// Bytes in order, from wherever they are.
pub(crate) trait Bytes {
    /// Exactly so many.
    fn take(&mut self, count: u32) -> Result<Vec<u8>>;

    /// Whether all were taken.
    fn ended(&mut self) -> Result<bool>;

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let count = u32::try_from(N).unwrap_or(u32::MAX);
        let bytes = self.take(count)?;
        bytes.try_into().map_err(|_| damaged("it is cut short"))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        match self.u32()? {
            count if count <= MAX_BYTES => self.take(count),
            _ => Err(damaged("a path, name or value is too long")),
        }
    }

    fn chunk(&mut self) -> Result<ChunkAt> {
        Ok(ChunkAt {
            number: self.u32()?,
            ordinal: self.u64()?,
            offset: self.u32()?,
            bytes: self.u32()?,
        })
    }

    fn pieces(&mut self) -> Result<Vec<Piece>> {
        let count = self.u32()?;
        if count > MAX_PIECES {
            return Err(damaged("a file has too many pieces"));
        }
        let mut pieces = Vec::new();
        for _ in 0..count {
            pieces.push(match self.array()? {
                [0] => Piece::Hole(self.u64()?),
                [1] => Piece::Chunk(self.chunk()?),
                _ => return Err(damaged("a piece of an unknown kind")),
            });
        }
        Ok(pieces)
    }

    /// The next entry with its pieces; `None` after the last one.
    fn entry(&mut self) -> Result<Option<(Entry, Vec<Piece>)>> {
        if self.ended()? {
            return Ok(None);
        }
        let [tag] = self.array()?;
        let path = self.bytes()?;
        if tag == b'h' {
            let what = What::Link(self.bytes()?);
            return Ok(Some((Entry { path, what }, Vec::new())));
        }
        let mut attributes = Attributes {
            mode: self.u32()?,
            uid: self.u32()?,
            gid: self.u32()?,
            mtime: (i64::from_le_bytes(self.array()?), self.u32()?),
            xattrs: Vec::new(),
        };
        let count = self.u32()?;
        if attributes.mode > 0o7777 || attributes.mtime.1 >= 1_000_000_000 || count > MAX_XATTRS {
            return Err(damaged("attributes that there are not"));
        }
        for _ in 0..count {
            attributes.xattrs.push((self.bytes()?, self.bytes()?));
        }
        let mut pieces = Vec::new();
        let kind = match tag {
            b'd' => Kind::Directory,
            b'f' => {
                let (bytes, blake3) = (self.u64()?, self.array()?);
                pieces = self.pieces()?;
                Kind::File { bytes, blake3 }
            }
            b'l' => Kind::Symlink(self.bytes()?),
            b'p' => Kind::Fifo,
            b'b' => Kind::Block(self.u32()?, self.u32()?),
            b'c' => Kind::Char(self.u32()?, self.u32()?),
            _ => return Err(damaged("an entry of an unknown kind")),
        };
        let what = What::Own(attributes, kind);
        Ok(Some((Entry { path, what }, pieces)))
    }
}

impl Bytes for &[u8] {
    fn take(&mut self, count: u32) -> Result<Vec<u8>> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let (taken, rest) = self
            .split_at_checked(count)
            .ok_or_else(|| damaged("it is cut short"))?;
        *self = rest;
        Ok(taken.to_vec())
    }

    fn ended(&mut self) -> Result<bool> {
        Ok(self.is_empty())
    }
}

/// The parts of a path within the tree, if it is one that leads nowhere else.
pub(crate) fn parts(path: &[u8]) -> Result<impl Iterator<Item = &[u8]>> {
    let fine = |part: &[u8]| {
        !part.is_empty() && part.len() <= 255 && part != b"." && part != b".." && !part.contains(&0)
    };
    let all = || {
        path.split(|byte| *byte == b'/')
            .filter(|_| !path.is_empty())
    };
    match all().all(fine) {
        true => Ok(all()),
        false => Err(damaged("a path that leads out of the tree")),
    }
}

/// The order of a listing: a directory before what is in it, names by their bytes.
pub(crate) fn order(one: &[u8], other: &[u8]) -> std::cmp::Ordering {
    let parts = |path: &'_ [u8]| path.is_empty().then_some(()).is_none();
    match (parts(one), parts(other)) {
        (true, true) => one
            .split(|byte| *byte == b'/')
            .cmp(other.split(|byte| *byte == b'/')),
        (one, other) => one.cmp(&other),
    }
}

/// Whether entries come as in a listing: each once, in order, and in a directory that came before.
#[derive(Debug, Default)]
pub(crate) struct InOrder {
    last: Option<Vec<u8>>,
    /// The directories that the last entry is in, or is.
    within: Vec<Vec<u8>>,
}

impl InOrder {
    /// The next entry; why it can't be that.
    pub(crate) fn next(
        &mut self,
        path: &[u8],
        is_directory: bool,
    ) -> std::result::Result<(), &'static str> {
        match self.last.as_deref().map(|last| order(last, path)) {
            None | Some(std::cmp::Ordering::Less) => {}
            Some(std::cmp::Ordering::Equal) => return Err("comes twice"),
            Some(std::cmp::Ordering::Greater) => return Err("is not in its order"),
        }
        if path.is_empty() {
            if !is_directory {
                return Err("is no directory");
            }
        } else {
            let parent = match path.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => path.get(..slash).unwrap_or_default(),
                None => &[],
            };
            while self.within.last().is_some_and(|last| *last != parent) {
                self.within.pop();
            }
            if self.within.is_empty() {
                return Err("is in no directory");
            }
        }
        self.last = Some(path.to_vec());
        if is_directory {
            self.within.push(path.to_vec());
        }
        Ok(())
    }

    /// How many directories the last entry is in, itself counted if it is one.
    pub(crate) const fn depth(&self) -> usize {
        self.within.len()
    }

    /// Whether there is a root.
    pub(crate) const fn has_root(&self) -> bool {
        self.last.is_some()
    }
}
