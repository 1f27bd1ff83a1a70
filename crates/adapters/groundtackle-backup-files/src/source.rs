//! A tree, as segments.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use groundtackle_backup::{Content, Error, Hex, Result, SegmentWork, Source, SourceEnd, Used};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;

use crate::chunks::{Cutter, OF_FILES, OF_LISTING, Packer, Raw};
use crate::config::Globs;
use crate::error::{of, shown, stopped};
use crate::record::{ChunkAt, Entry, Kind, Piece, What, order, put_pieces};
use crate::state::{Known, NewState, Records};
use crate::walk::{Walk, seen};

/// How often a file is read that changes meanwhile.
const TRIES: u32 = 3;

/// Bytes that are read at a time.
pub(crate) const READ_BYTES: usize = 1 << 20;

/// A file that changed so shortly before it was read could change again without another time stamp: clocks of file systems
/// tick slowly.
const SETTLED_SECONDS: i64 = 2;

/// What earlier restore points have.
#[derive(Debug, Default)]
pub(crate) struct Before {
    pub(crate) uses: Vec<Used>,
    pub(crate) chunks: HashMap<[u8; 32], ChunkAt>,
    /// By file, unless all are to be read.
    pub(crate) files: Option<Records>,
}

/// What was made of the tree.
#[derive(Debug)]
pub(crate) struct Done {
    content: Content,
    items: u64,
    pub(crate) state: Option<NewState>,
    pub(crate) notes: Vec<String>,
    pub(crate) figures: Figures,
}

/// What a backup had to do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Files that were read.
    pub(crate) files_read: u64,
    /// Bytes that no restore point had.
    pub(crate) new_bytes: u64,
}

pub(crate) struct TreeSource {
    segments: Receiver<Raw>,
    reading: Option<JoinHandle<Result<Done>>>,
    pub(crate) done: Option<Done>,
}

impl fmt::Debug for TreeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeSource").finish_non_exhaustive()
    }
}

impl TreeSource {
    /// Begins to read, on a thread of its own; as far as the segments are taken. `read` says what there was, and what is
    /// not in it.
    pub(crate) fn begin(
        before: Before,
        state: Option<NewState>,
        read: impl FnOnce(&mut Store, Option<Records>) -> Result<(Listed, Vec<String>)> + Send + 'static,
    ) -> Self {
        let (to, segments) = channel(1);
        let reading = tokio::task::spawn_blocking(move || {
            let number = before
                .uses
                .last()
                .map_or(Some(0), |last| last.number.checked_add(1));
            let number = number.ok_or_else(|| {
                Error::invalid_request(
                    "the numbers of restore points are used up: remove the state",
                )
            })?;
            let mut store = Store {
                packer: Packer::new(number, before.chunks, to),
                state,
                numbers: BTreeSet::new(),
                files_read: 0,
            };
            let (listed, notes) = read(&mut store, before.files)?;
            let figures = Figures {
                files_read: store.files_read,
                new_bytes: store.packer.new_bytes,
            };
            let items = store.packer.finish(&listed.chunks)?;
            let mut uses = before.uses;
            uses.retain(|used| store.numbers.contains(&used.number));
            Ok(Done {
                content: Content::Tree {
                    entries: listed.entries,
                    bytes: listed.bytes,
                    blake3: Hex(listed.blake3),
                    number,
                    uses,
                },
                items,
                state: store.state,
                notes,
                figures,
            })
        });
        Self {
            segments,
            reading: Some(reading),
            done: None,
        }
    }

    /// Begins to read what lies on a disk.
    pub(crate) fn of_walk(
        walk: Walk,
        torn: Globs,
        before: Before,
        state: Option<NewState>,
    ) -> Self {
        Self::begin(before, state, move |store, records| {
            let files = Files {
                records,
                next: None,
            };
            let mut reading = Reading {
                store,
                walk,
                torn,
                files,
            };
            let listed = reading.all()?;
            Ok((listed, reading.walk.notes))
        })
    }
}

/// Where contents go.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) packer: Packer,
    state: Option<NewState>,
    /// Restore points that are used.
    numbers: BTreeSet<u32>,
    pub(crate) files_read: u64,
}

impl Store {
    /// Notes what is stored of a file, or of the listing.
    pub(crate) fn keep(&mut self, known: &Known) -> Result<()> {
        let numbers = known.pieces.iter().filter_map(|piece| match piece {
            Piece::Chunk(at) => Some(at.number),
            Piece::Hole(_) => None,
        });
        self.numbers.extend(numbers);
        match &mut self.state {
            Some(state) => state.push(known),
            None => Ok(()),
        }
    }
}

/// A listing that is stored.
#[derive(Debug)]
pub(crate) struct Listed {
    entries: u64,
    /// Of the files.
    bytes: u64,
    /// Of the canonical listing.
    blake3: [u8; 32],
    chunks: Vec<ChunkAt>,
}

/// Stores a listing, entry by entry in its order.
#[derive(Debug)]
pub(crate) struct ListingWriter {
    entries: u64,
    bytes: u64,
    digest: Box<blake3::Hasher>,
    cutter: Cutter,
    chunks: Vec<ChunkAt>,
    digests: Vec<[u8; 32]>,
}

impl ListingWriter {
    pub(crate) fn new() -> Self {
        Self {
            entries: 0,
            bytes: 0,
            digest: Box::default(),
            cutter: Cutter::new(OF_LISTING),
            chunks: Vec::new(),
            digests: Vec::new(),
        }
    }

    /// `pieces` is what a file has, and nothing else.
    pub(crate) fn push(
        &mut self,
        store: &mut Store,
        entry: &Entry,
        pieces: Option<&[Piece]>,
    ) -> Result<()> {
        self.entries = self.entries.saturating_add(1);
        if let What::Own(_, Kind::File { bytes, .. }) = &entry.what {
            self.bytes = self.bytes.saturating_add(*bytes);
        }
        let mut record = entry.canonical();
        self.digest.update(&record);
        if let Some(pieces) = pieces {
            put_pieces(&mut record, pieces);
        }
        let Self {
            cutter,
            chunks,
            digests,
            ..
        } = self;
        cutter.push(&record, &mut |chunk| {
            let (at, digest) = store.packer.add(chunk)?;
            chunks.push(at);
            digests.push(digest);
            Ok(())
        })
    }

    pub(crate) fn finish(self, store: &mut Store) -> Result<Listed> {
        let Self {
            cutter,
            mut chunks,
            mut digests,
            ..
        } = self;
        cutter.finish(&mut |chunk| {
            let (at, digest) = store.packer.add(chunk)?;
            chunks.push(at);
            digests.push(digest);
            Ok(())
        })?;
        let blake3 = *self.digest.finalize().as_bytes();
        store.keep(&Known {
            path: Vec::new(),
            seen: None,
            blake3,
            pieces: chunks.iter().copied().map(Piece::Chunk).collect(),
            digests,
        })?;
        Ok(Listed {
            entries: self.entries,
            bytes: self.bytes,
            blake3,
            chunks,
        })
    }
}

#[async_trait]
impl Source for TreeSource {
    async fn next(&mut self) -> Result<Option<SegmentWork>> {
        if let Some(raw) = self.segments.recv().await {
            return Ok(Some(Box::new(move || raw.encode())));
        }
        // It has ended, well or not: only its own word counts.
        if let Some(reading) = self.reading.take() {
            self.done = Some(reading.await.map_err(stopped)??);
        }
        Ok(None)
    }

    async fn finish(&mut self) -> Result<SourceEnd> {
        let done = self.done.as_ref().ok_or_else(|| Error::Incomplete {
            detail: "the tree was not read to its end".into(),
        })?;
        Ok(SourceEnd {
            content: done.content.clone(),
            items: done.items,
        })
    }
}

/// Files of the last backup, in step with the walk.
#[derive(Debug)]
struct Files {
    records: Option<Records>,
    next: Option<Known>,
}

impl Files {
    fn at(&mut self, path: &[u8]) -> Result<Option<Known>> {
        let Some(records) = &mut self.records else {
            return Ok(None);
        };
        loop {
            if self.next.is_none() {
                self.next = records.next()?;
            }
            let Some(next) = &self.next else {
                return Ok(None);
            };
            // The listing itself is the last one, and no file.
            match order(&next.path, path) {
                _ if next.path.is_empty() => return Ok(None),
                Ordering::Less => self.next = None,
                Ordering::Equal => return Ok(self.next.take()),
                Ordering::Greater => return Ok(None),
            }
        }
    }
}

#[derive(Debug)]
struct Reading<'a> {
    store: &'a mut Store,
    walk: Walk,
    torn: Globs,
    files: Files,
}

impl Reading<'_> {
    fn all(&mut self) -> Result<Listed> {
        let mut listing = ListingWriter::new();
        loop {
            self.store.packer.is_wanted()?;
            let Some(found) = self.walk.next()? else {
                return listing.finish(self.store);
            };
            let mut entry = found.entry;
            let pieces = match &found.file {
                Some(file) => Some(self.content(&mut entry, file)?),
                None => None,
            };
            listing.push(self.store, &entry, pieces.as_deref())?;
        }
    }

    /// What is in a file, as it was at one moment: read again if it changed meanwhile.
    fn content(&mut self, entry: &mut Entry, file: &File) -> Result<Vec<Piece>> {
        let path = entry.path.clone();
        let (mut now, mut attributes) = seen(file, &path)?;
        let before = self.files.at(&path)?;
        let before = before.filter(|known| known.seen == Some(now));
        let mut is_torn = false;
        let mut known = match before {
            Some(known) if self.usable(&known) => known,
            _ => {
                self.store.files_read = self.store.files_read.saturating_add(1);
                let mut tries = 1;
                loop {
                    let read = self.read(file, &path, now.bytes)?;
                    let after = seen(file, &path)?;
                    let same = after.0 == now;
                    (now, attributes) = after;
                    if same && read.1 == now.bytes {
                        break read.0;
                    }
                    if tries >= TRIES {
                        if !self.torn.has(&path) {
                            return Err(Error::Incomplete {
                                detail: format!(
                                    "{} changed each of the {TRIES} times that it was read: stop what writes it, back up \
                                     a snapshot of its file system, or name it in torn",
                                    shown(&path)
                                ),
                            });
                        }
                        // As long as what was read.
                        now.bytes = read.1;
                        is_torn = true;
                        break read.0;
                    }
                    tries = tries.saturating_add(1);
                }
            }
        };
        let settled = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|time| i64::try_from(time.as_secs()).ok())
            .and_then(|time| time.checked_sub(now.ctime.0))
            .is_some_and(|age| age > SETTLED_SECONDS);
        known.seen = Some(now).filter(|_| settled && !is_torn);
        known.path = path;
        let kind = Kind::File {
            bytes: now.bytes,
            blake3: known.blake3,
        };
        entry.what = What::Own(attributes, kind);
        self.store.keep(&known)?;
        Ok(known.pieces)
    }

    /// Whether all of it is in restore points that may be used.
    fn usable(&self, known: &Known) -> bool {
        let mut chunks = known.pieces.iter().filter_map(|piece| match piece {
            Piece::Chunk(at) => Some(at),
            Piece::Hole(_) => None,
        });
        chunks.all(|at| self.store.packer.may_use(at.number))
    }

    /// Reads a file from its beginning, and how many bytes it has.
    fn read(&mut self, file: &File, path: &[u8], bytes: u64) -> Result<(Known, u64)> {
        let mut known = Known {
            path: Vec::new(),
            seen: None,
            blake3: [0; 32],
            pieces: Vec::new(),
            digests: Vec::new(),
        };
        let mut digest = Box::<blake3::Hasher>::default();
        let mut buffer = vec![0; READ_BYTES];
        let (mut at, mut ended) = (0, false);
        while at < bytes && !ended {
            let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(data) => data.min(bytes),
                Err(Errno::NXIO) => bytes,
                // The file system knows of no holes.
                Err(Errno::INVAL) => at,
                Err(error) => return Err(of("seeking in", path)(error)),
            };
            if data > at {
                let hole = data.saturating_sub(at);
                zeros(&mut digest, hole);
                known.pieces.push(Piece::Hole(hole));
                at = data;
                continue;
            }
            let end = match rustix::fs::seek(file, SeekFrom::Hole(at)) {
                Ok(hole) if hole > at => hole.min(bytes),
                _ => bytes,
            };
            let mut cutter = Cutter::new(OF_FILES);
            let Known {
                pieces, digests, ..
            } = &mut known;
            let packer = &mut self.store.packer;
            let mut keep = |chunk: &[u8]| {
                let (at, digest) = packer.add(chunk)?;
                pieces.push(Piece::Chunk(at));
                digests.push(digest);
                Ok(())
            };
            while at < end {
                let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
                let room = buffer.get_mut(..left.min(READ_BYTES)).unwrap_or_default();
                let count = file.read_at(room, at).map_err(of("reading", path))?;
                let read = buffer.get(..count).unwrap_or_default();
                if read.is_empty() {
                    // It was cut short meanwhile.
                    ended = true;
                    break;
                }
                digest.update(read);
                cutter.push(read, &mut keep)?;
                at = at.saturating_add(read.len() as u64);
            }
            cutter.finish(&mut keep)?;
        }
        known.blake3 = *digest.finalize().as_bytes();
        Ok((known, at))
    }
}

/// A hole reads as zeros.
pub(crate) fn zeros(digest: &mut blake3::Hasher, mut count: u64) {
    const ZEROS: &[u8] = &[0; 64 << 10];
    while count > 0 {
        let now = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(ZEROS.len());
        digest.update(ZEROS.get(..now).unwrap_or_default());
        count = count.saturating_sub(now as u64);
    }
}
