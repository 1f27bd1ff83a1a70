//! Contents cut by content, and the chunks gathered into segments.

use std::collections::{HashMap, HashSet};

use fastcdc::v2020::FastCDC;
use groundtackle_backup::{Error, HexBytes, Result, Segment, SegmentInfo};
use tokio::sync::mpsc::Sender;

use crate::error::damaged;
use crate::record::{Bytes, ChunkAt, put_chunk};

/// The codec of segments of chunks.
pub(crate) const CHUNKS: &str = "chunks.1";

/// The codec of the segment that says where the listing is.
pub(crate) const ROOT: &str = "tree.1";

/// What a segment is worth ending for, in bytes of chunks.
const SEGMENT_BYTES: usize = 4 << 20;

/// The most that a reader takes for a segment: what a writer fills, and a chunk that did not fit any more.
const MAX_SEGMENT_BYTES: u32 = 64 << 20;

/// Least, usual and greatest length of chunks, in bytes: of files, and of the listing, where neighbours change apart.
pub(crate) const OF_FILES: [usize; 3] = [128 << 10, 512 << 10, 2 << 20];
pub(crate) const OF_LISTING: [usize; 3] = [16 << 10, 64 << 10, 256 << 10];

/// Cuts what is pushed.
#[derive(Debug)]
pub(crate) struct Cutter {
    sizes: [usize; 3],
    buffer: Vec<u8>,
}

impl Cutter {
    pub(crate) const fn new(sizes: [usize; 3]) -> Self {
        Self {
            sizes,
            buffer: Vec::new(),
        }
    }

    /// Takes what comes next; the chunks that are sure by now go to `chunk`.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        chunk: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        let [_, _, greatest] = self.sizes;
        // Where a cut is depends on so much at most.
        if self.buffer.len() >= greatest.saturating_mul(2) {
            self.cut(greatest, chunk)?;
        }
        Ok(())
    }

    /// The rest.
    pub(crate) fn finish(mut self, chunk: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.cut(0, chunk)
    }

    fn cut(&mut self, keep: usize, chunk: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let [least, usual, greatest] = self.sizes;
        let mut done = 0;
        for cut in FastCDC::new(&self.buffer, least, usual, greatest) {
            if self.buffer.len().saturating_sub(cut.offset) <= keep {
                break;
            }
            done = cut.offset.saturating_add(cut.length);
            chunk(self.buffer.get(cut.offset..done).unwrap_or_default())?;
        }
        self.buffer.drain(..done);
        Ok(())
    }
}

/// A segment on its way, not yet encoded.
#[derive(Debug)]
pub(crate) struct Raw {
    codec: &'static str,
    bytes: Vec<u8>,
    items: u64,
    first: [u8; 32],
    last: [u8; 32],
}

impl Raw {
    /// Compresses it, where that is shorter.
    pub(crate) fn encode(self) -> Result<Segment> {
        let info = SegmentInfo {
            codec: self.codec.into(),
            items: self.items,
            first: HexBytes(self.first.into()),
            last: HexBytes(self.last.into()),
            heights: None,
        };
        if self.codec == ROOT {
            let bytes = self.bytes;
            return Ok(Segment { info, bytes });
        }
        let packed = zstd::bulk::compress(&self.bytes, 1)
            .map_err(|error| Error::invalid_request(format!("a segment: {error}")))?;
        let length = u32::try_from(self.bytes.len())
            .map_err(|_| Error::invalid_request("a segment is too long"))?;
        let (form, body) = match packed.len() < self.bytes.len() {
            true => (1, packed),
            false => (0, self.bytes),
        };
        let mut bytes = vec![b'F', 1, form];
        bytes.extend(length.to_le_bytes());
        bytes.extend(body);
        Ok(Segment { info, bytes })
    }
}

/// The chunks of a segment, one after the other.
pub(crate) fn decode(segment: &Segment) -> Result<Vec<u8>> {
    if segment.info.codec != CHUNKS {
        return Err(damaged(
            "a segment of another codec is in the place of chunks",
        ));
    }
    let Some(([b'F', 1, form], [a, b, c, d], body)) = segment
        .bytes
        .split_first_chunk::<3>()
        .and_then(|(head, rest)| {
            let (length, body) = rest.split_first_chunk::<4>()?;
            Some((*head, *length, body))
        })
    else {
        return Err(damaged("a segment of chunks has another beginning"));
    };
    let length = u32::from_le_bytes([a, b, c, d]);
    if length > MAX_SEGMENT_BYTES {
        return Err(damaged("a segment of chunks is too long"));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let bytes = match form {
        0 => body.to_vec(),
        1 => zstd::bulk::decompress(body, length).map_err(|_| damaged("a frame of zstd"))?,
        _ => return Err(damaged("a segment of chunks in an unknown form")),
    };
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err(damaged(
            "a segment of chunks has another length than it says",
        )),
    }
}

/// What the segment says that says where the listing is.
pub(crate) fn root_bytes(listing: &[ChunkAt]) -> Result<Vec<u8>> {
    let count = u32::try_from(listing.len())
        .map_err(|_| Error::invalid_request("the listing is too long"))?;
    let mut bytes = vec![b'T', 1];
    bytes.extend(count.to_le_bytes());
    for at in listing {
        put_chunk(&mut bytes, at);
    }
    Ok(bytes)
}

/// The chunks that it leads to.
pub(crate) fn root_chunks(bytes: &[u8]) -> Result<Vec<ChunkAt>> {
    let Some(([b'T', 1], mut body)) = bytes
        .split_first_chunk::<2>()
        .map(|(head, body)| (*head, body))
    else {
        return Err(damaged("its root has another beginning"));
    };
    let count = body.u32()?;
    let mut chunks = Vec::new();
    for _ in 0..count {
        chunks.push(body.chunk()?);
    }
    match body.ended()? {
        true => Ok(chunks),
        false => Err(damaged("bytes follow the end of its root")),
    }
}

/// Gathers chunks into segments, each chunk once.
#[derive(Debug)]
pub(crate) struct Packer {
    number: u32,
    /// Others that may be used.
    others: HashSet<u32>,
    ordinal: u64,
    known: HashMap<[u8; 32], ChunkAt>,
    open: Option<Raw>,
    to: Sender<Raw>,
    /// Chunks that were not known.
    pub(crate) new_chunks: u64,
    /// Bytes of these.
    pub(crate) new_bytes: u64,
}

impl Packer {
    /// `known` is what the restore points of other numbers have.
    pub(crate) fn new(number: u32, known: HashMap<[u8; 32], ChunkAt>, to: Sender<Raw>) -> Self {
        Self {
            number,
            others: known.values().map(|at| at.number).collect(),
            ordinal: 0,
            known,
            open: None,
            to,
            new_chunks: 0,
            new_bytes: 0,
        }
    }

    pub(crate) fn add(&mut self, chunk: &[u8]) -> Result<(ChunkAt, [u8; 32])> {
        let digest = *blake3::hash(chunk).as_bytes();
        if let Some(at) = self.known.get(&digest) {
            return Ok((*at, digest));
        }
        let raw = self.open.get_or_insert_with(|| Raw {
            codec: CHUNKS,
            bytes: Vec::with_capacity(SEGMENT_BYTES),
            items: 0,
            first: digest,
            last: digest,
        });
        let short = |length: usize| {
            u32::try_from(length).map_err(|_| Error::invalid_request("a chunk is too long"))
        };
        let at = ChunkAt {
            number: self.number,
            ordinal: self.ordinal,
            offset: short(raw.bytes.len())?,
            bytes: short(chunk.len())?,
        };
        raw.bytes.extend_from_slice(chunk);
        (raw.items, raw.last) = (raw.items.saturating_add(1), digest);
        let full = raw.bytes.len() >= SEGMENT_BYTES;
        self.known.insert(digest, at);
        self.new_chunks = self.new_chunks.saturating_add(1);
        self.new_bytes = self.new_bytes.saturating_add(u64::from(at.bytes));
        if full {
            self.send()?;
        }
        Ok((at, digest))
    }

    /// Whether somebody still waits for what comes.
    pub(crate) fn is_wanted(&self) -> Result<()> {
        match self.to.is_closed() {
            true => Err(given_up()),
            false => Ok(()),
        }
    }

    pub(crate) fn may_use(&self, number: u32) -> bool {
        self.others.contains(&number)
    }

    fn send(&mut self) -> Result<()> {
        let Some(raw) = self.open.take() else {
            return Ok(());
        };
        self.ordinal = self.ordinal.saturating_add(1);
        self.to.blocking_send(raw).map_err(|_| given_up())
    }

    /// Ends with the segment that says where the listing is; how many items there are in all.
    pub(crate) fn finish(mut self, listing: &[ChunkAt]) -> Result<u64> {
        self.send()?;
        let bytes = root_bytes(listing)?;
        self.open = Some(Raw {
            codec: ROOT,
            bytes,
            items: 0,
            first: [0; 32],
            last: [0; 32],
        });
        self.send()?;
        Ok(self.new_chunks)
    }
}

/// Nobody waits for it: the backup has ended otherwise.
fn given_up() -> Error {
    Error::Incomplete {
        detail: "the backup was given up".into(),
    }
}
