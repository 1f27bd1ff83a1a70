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
const READ_BYTES: usize = 1 << 20;

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
    /// Begins to read, on a thread of its own; as far as the segments are taken.
    pub(crate) fn begin(walk: Walk, torn: Globs, before: Before, state: Option<NewState>) -> Self {
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
            let mut reading = Reading {
                packer: Packer::new(number, before.chunks, to),
                walk,
                torn,
                files: Files {
                    records: before.files,
                    next: None,
                },
                state,
                numbers: BTreeSet::new(),
                figures: Figures::default(),
            };
            let (entries, bytes, blake3, listing) = reading.all()?;
            let figures = Figures {
                new_bytes: reading.packer.new_bytes,
                ..reading.figures
            };
            let items = reading.packer.finish(&listing)?;
            let mut uses = before.uses;
            uses.retain(|used| reading.numbers.contains(&used.number));
            Ok(Done {
                content: Content::Tree {
                    entries,
                    bytes,
                    blake3: Hex(blake3),
                    number,
                    uses,
                },
                items,
                state: reading.state,
                notes: reading.walk.notes,
                figures,
            })
        });
        Self {
            segments,
            reading: Some(reading),
            done: None,
        }
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
struct Reading {
    walk: Walk,
    torn: Globs,
    packer: Packer,
    files: Files,
    state: Option<NewState>,
    /// Restore points that are used.
    numbers: BTreeSet<u32>,
    figures: Figures,
}

impl Reading {
    /// How many entries and bytes, the digest of the canonical listing, and where the listing is.
    fn all(&mut self) -> Result<(u64, u64, [u8; 32], Vec<ChunkAt>)> {
        let (mut entries, mut bytes) = (0_u64, 0_u64);
        let mut digest = Box::<blake3::Hasher>::default();
        let mut cutter = Cutter::new(OF_LISTING);
        let (mut listing, mut digests) = (Vec::new(), Vec::new());
        loop {
            self.packer.is_wanted()?;
            let found = self.walk.next()?;
            let mut record = Vec::new();
            if let Some(found) = &found {
                let mut entry = found.entry.clone();
                let pieces = match &found.file {
                    Some(file) => Some(self.content(&mut entry, file)?),
                    None => None,
                };
                entries = entries.saturating_add(1);
                if let What::Own(_, Kind::File { bytes: of_file, .. }) = &entry.what {
                    bytes = bytes.saturating_add(*of_file);
                }
                record = entry.canonical();
                digest.update(&record);
                if let Some(pieces) = pieces {
                    put_pieces(&mut record, &pieces);
                }
            }
            let packer = &mut self.packer;
            let mut keep = |chunk: &[u8]| {
                let (at, digest) = packer.add(chunk)?;
                listing.push(at);
                digests.push(digest);
                Ok(())
            };
            if found.is_none() {
                cutter.finish(&mut keep)?;
                break;
            }
            cutter.push(&record, &mut keep)?;
        }
        self.numbers.extend(listing.iter().map(|at| at.number));
        if let Some(state) = &mut self.state {
            state.push(&Known {
                path: Vec::new(),
                seen: None,
                blake3: *digest.finalize().as_bytes(),
                pieces: listing.iter().copied().map(Piece::Chunk).collect(),
                digests,
            })?;
        }
        Ok((entries, bytes, *digest.finalize().as_bytes(), listing))
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
                self.figures.files_read = self.figures.files_read.saturating_add(1);
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
        let numbers = known.pieces.iter().filter_map(|piece| match piece {
            Piece::Chunk(at) => Some(at.number),
            Piece::Hole(_) => None,
        });
        self.numbers.extend(numbers);
        if let Some(state) = &mut self.state {
            state.push(&known)?;
        }
        Ok(known.pieces)
    }

    /// Whether all of it is in restore points that may be used.
    fn usable(&self, known: &Known) -> bool {
        let mut chunks = known.pieces.iter().filter_map(|piece| match piece {
            Piece::Chunk(at) => Some(at),
            Piece::Hole(_) => None,
        });
        chunks.all(|at| self.packer.may_use(at.number))
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
            let packer = &mut self.packer;
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
