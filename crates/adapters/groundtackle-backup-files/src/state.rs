//! What a host keeps of its last backup: a host that holds no key that reads can't ask the repository.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use groundtackle_backup::{Error, Hex, Manifest, Result};
use serde::{Deserialize, Serialize};

use crate::error::{damaged, of};
use crate::lock::lock;
use crate::record::{Bytes, ChunkAt, Piece, put_pieces};
use crate::walk::Seen;

/// Where each chunk is, by its BLAKE3, and how many bytes are used of each number.
pub(crate) type Chunks = (HashMap<[u8; 32], ChunkAt>, HashMap<u32, u64>);

const MAGIC: &[u8; 8] = b"GTFILES1";

/// Magic, records, trailer, its length, and the BLAKE3 of all before: what of it is fixed.
const END_BYTES: u64 = 36;

/// What is said of the whole.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    repository: Hex<16>,
    stream: String,
    pub(crate) point: Hex<16>,
    pub(crate) created_unix_millis: u64,
}

/// A file, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Empty for the listing itself.
    pub(crate) path: Vec<u8>,
    /// None if it may have changed since without showing it.
    pub(crate) seen: Option<Seen>,
    pub(crate) blake3: [u8; 32],
    pub(crate) pieces: Vec<Piece>,
    /// Of the chunks among the pieces.
    pub(crate) digests: Vec<[u8; 32]>,
}

/// A state file on its way, beside the one that it is to replace. One that was not finished is written over.
#[derive(Debug)]
pub(crate) struct NewState {
    file: BufWriter<File>,
    beside: PathBuf,
    blake3: Box<blake3::Hasher>,
}

fn state_file(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    of(
        "working on the state file",
        path.as_os_str().as_encoded_bytes(),
    )
}

impl NewState {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let mut options = File::options();
        // Readable to its owner alone: it has names.
        let opened = options.write(true).create(true).truncate(false).mode(0o600);
        let file = opened.open(&beside).map_err(state_file(path))?;
        if !lock(&file).map_err(|error| state_file(path)(error.into()))? {
            return Err(Error::invalid_request(format!(
                "another backup uses the state {}: wait for it, or name another state",
                path.display()
            )));
        }
        file.set_len(0).map_err(state_file(path))?;
        let mut new = Self {
            file: BufWriter::new(file),
            beside,
            blake3: Box::default(),
        };
        new.write(MAGIC)?;
        Ok(new)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.blake3.update(bytes);
        let written = self.file.write_all(bytes);
        written.map_err(state_file(&self.beside))
    }

    pub(crate) fn push(&mut self, known: &Known) -> Result<()> {
        let mut out = Vec::new();
        let length = u32::try_from(known.path.len()).unwrap_or(u32::MAX);
        out.extend(length.to_le_bytes());
        out.extend(&known.path);
        out.push(u8::from(known.seen.is_some()));
        if let Some(seen) = &known.seen {
            out.extend(seen.device.to_le_bytes());
            out.extend(seen.inode.to_le_bytes());
            out.extend(seen.bytes.to_le_bytes());
            for (seconds, nanos) in [seen.mtime, seen.ctime] {
                out.extend(seconds.to_le_bytes());
                out.extend(nanos.to_le_bytes());
            }
        }
        out.extend(known.blake3);
        put_pieces(&mut out, &known.pieces);
        out.extend(known.digests.concat());
        self.write(&out)
    }

    /// Puts it in its place, as that of a restore point.
    pub(crate) fn commit(mut self, path: &Path, of: &Manifest) -> Result<()> {
        let about = About {
            repository: of.repository,
            stream: of.stream.clone(),
            point: of.point,
            created_unix_millis: of.created_unix_millis,
        };
        let trailer = serde_json::to_vec(&about)
            .map_err(|error| Error::invalid_request(error.to_string()))?;
        let length = u32::try_from(trailer.len()).unwrap_or(u32::MAX);
        self.write(&trailer)?;
        self.write(&length.to_le_bytes())?;
        let digest = *self.blake3.finalize().as_bytes();
        self.write(&digest)?;
        let file = self.file.into_inner().map_err(|error| error.into_error());
        let kept = file
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&self.beside, path));
        kept.map_err(state_file(path))?;
        Ok(())
    }
}

/// A state file that is whole.
#[derive(Debug)]
pub(crate) struct State {
    file: File,
    records_end: u64,
    pub(crate) about: About,
}

impl State {
    /// Opens the file if it is there, whole, and of this stream of this repository.
    pub(crate) fn open(path: &Path, repository: &Hex<16>, stream: &str) -> Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(state_file(path)(error)),
        };
        let opened = Self::read(file).map_err(state_file(path))?;
        let mine =
            |state: &Self| state.about.repository == *repository && state.about.stream == stream;
        Ok(opened.filter(mine))
    }

    fn read(mut file: File) -> std::io::Result<Option<Self>> {
        let bytes = file.metadata()?.len();
        let Some(before_end) = bytes.checked_sub(END_BYTES) else {
            return Ok(None);
        };
        let mut hasher = Box::<blake3::Hasher>::default();
        let hashed = before_end.saturating_add(4);
        hasher.update_reader((&mut file).take(hashed))?;
        let (mut length, mut digest) = ([0; 4], [0; 32]);
        file.read_exact(&mut digest)?;
        if hasher.finalize() != digest {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(before_end))?;
        file.read_exact(&mut length)?;
        let length = u64::from(u32::from_le_bytes(length));
        let Some(records_end) = before_end.checked_sub(length) else {
            return Ok(None);
        };
        file.seek(SeekFrom::Start(records_end))?;
        let mut trailer = Vec::new();
        (&mut file).take(length).read_to_end(&mut trailer)?;
        let mut magic = [0; 8];
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut magic)?;
        let about = serde_json::from_slice(&trailer).ok();
        Ok(about.filter(|_| magic == *MAGIC).map(|about| Self {
            file,
            records_end,
            about,
        }))
    }

    /// What it has, in the order of a listing; the listing itself last.
    pub(crate) fn records(&self) -> Result<Records> {
        let begin = MAGIC.len() as u64;
        let file = self.file.try_clone().and_then(|mut file| {
            file.seek(SeekFrom::Start(begin))?;
            Ok(file)
        });
        let file = file.map_err(of("reading", b"the state file"))?;
        let left = self.records_end.saturating_sub(begin);
        Ok(Records(BufReader::new(file).take(left)))
    }

    pub(crate) fn chunks(&self) -> Result<Chunks> {
        let (mut chunks, mut used) = (HashMap::new(), HashMap::<_, u64>::new());
        let mut records = self.records()?;
        while let Some(known) = records.next()? {
            let pieces = known.pieces.iter().filter_map(|piece| match piece {
                Piece::Chunk(at) => Some(at),
                Piece::Hole(_) => None,
            });
            for (at, digest) in pieces.zip(known.digests) {
                if chunks.insert(digest, *at).is_none() {
                    let bytes = used.entry(at.number).or_default();
                    *bytes = bytes.saturating_add(u64::from(at.bytes));
                }
            }
        }
        Ok((chunks, used))
    }
}

/// Reads a state file from its beginning.
#[derive(Debug)]
pub(crate) struct Records(std::io::Take<BufReader<File>>);

impl Bytes for Records {
    fn take(&mut self, count: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.0).take(u64::from(count)).read_to_end(&mut bytes);
        let read = read.map_err(of("reading", b"the state file"))?;
        match u32::try_from(read) == Ok(count) {
            true => Ok(bytes),
            false => Err(damaged("the state file is cut short")),
        }
    }

    fn ended(&mut self) -> Result<bool> {
        Ok(self.0.limit() == 0)
    }
}

impl Records {
    pub(crate) fn next(&mut self) -> Result<Option<Known>> {
        if self.ended()? {
            return Ok(None);
        }
        let path = self.bytes()?;
        let seen = match self.array()? {
            [0] => None,
            _ => Some(Seen {
                device: self.u64()?,
                inode: self.u64()?,
                bytes: self.u64()?,
                mtime: (i64::from_le_bytes(self.array()?), self.u32()?),
                ctime: (i64::from_le_bytes(self.array()?), self.u32()?),
            }),
        };
        let blake3 = self.array()?;
        let pieces = self.pieces()?;
        let mut digests = Vec::new();
        for piece in &pieces {
            if matches!(piece, Piece::Chunk(_)) {
                digests.push(self.array()?);
            }
        }
        Ok(Some(Known {
            path,
            seen,
            blake3,
            pieces,
            digests,
        }))
    }
}
