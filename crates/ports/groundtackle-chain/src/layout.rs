//! How blocks lie in files: finding them, and reading one.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::decode::{DecodeError, DecodeOptions, HEADER_BYTES, Reader, decode_block};
use crate::error::Error;
use crate::files::BlockFilesConfig;
use crate::hash::from_hex;
use crate::model::{Block, BlockHeader};
use crate::network::Network;

// A magic and a length.
const FRAME_BYTES: usize = 8;

/// Where a block lies: its first byte, and its size without frame and as bytes, not digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) file: usize,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Bitcoin Core's block files.
    Framed,
    /// One block.
    Raw,
    /// One block a line, in hexadecimal.
    Hex,
}

/// A file and how its blocks lie in it.
#[derive(Debug)]
pub(crate) struct BlockFile {
    pub(crate) path: PathBuf,
    key: [u8; 8],
    layout: Layout,
}

impl BlockFile {
    /// Finds out what each path is; a directory stands for its block files.
    pub(crate) fn open_all(
        paths: &[PathBuf],
        config: &BlockFilesConfig,
    ) -> Result<Vec<Self>, Error> {
        let mut files = Vec::new();
        for path in paths {
            if path.is_dir() {
                for file in block_files(path)? {
                    files.push(Self::open(file, config)?);
                }
            } else {
                files.push(Self::open(path.clone(), config)?);
            }
        }
        if files.is_empty() {
            return Err(Error::NoBlockFiles {
                directory: PathBuf::new(),
            });
        }
        Ok(files)
    }

    fn open(path: PathBuf, config: &BlockFilesConfig) -> Result<Self, Error> {
        let network = config.network;
        let key = read_key(&path.with_file_name("xor.dat"))?;
        let mut handle = File::open(&path).map_err(Error::io(&path))?;
        let raw = read_at(&mut handle, 0, HEADER_BYTES as u64 * 2).map_err(Error::io(&path))?;
        if raw.is_empty() {
            return Err(Error::EmptyFile { file: path });
        }
        // A file from before the key was made may lie beside it.
        for key in [key, [0; 8]] {
            if let Some(found) = magic_of(&raw, 0, key) {
                if found != network {
                    return Err(Error::WrongNetwork {
                        file: path,
                        offset: 0,
                        expected: network,
                        found,
                    });
                }
                return Ok(Self {
                    path,
                    key,
                    layout: Layout::Framed,
                });
            }
        }
        let layout = if raw.iter().take(FRAME_BYTES).all(|byte| *byte == 0) {
            Layout::Framed
        } else if raw
            .iter()
            .all(|byte| byte.is_ascii_hexdigit() || b"\r\n".contains(byte))
        {
            Layout::Hex
        } else if raw.first_chunk().is_some_and(|header| {
            let header = BlockHeader::from_bytes(header);
            network
                .check_proof_of_work(&header.hash(), header.bits)
                .is_ok()
        }) {
            Layout::Raw
        } else {
            return Err(Error::UnknownFormat {
                file: path,
                network,
            });
        };
        Ok(Self { path, key, layout })
    }

    /// Calls `found` for every block, with its place and header.
    pub(crate) fn scan(
        &self,
        file: usize,
        config: &BlockFilesConfig,
        mut found: impl FnMut(Place, BlockHeader) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut handle = File::open(&self.path).map_err(Error::io(&self.path))?;
        let length = handle.metadata().map_err(Error::io(&self.path))?.len();
        let found = |offset, bytes, header: &[u8; HEADER_BYTES]| {
            if bytes > config.max_block_size.bytes() {
                return Err(Error::BlockTooLarge {
                    file: self.path.clone(),
                    offset,
                    bytes,
                    max_block_size: config.max_block_size,
                });
            }
            found(
                Place {
                    file,
                    offset,
                    bytes,
                },
                BlockHeader::from_bytes(header),
            )
        };
        match self.layout {
            Layout::Framed => self.scan_frames(&mut handle, length, config, found),
            Layout::Raw => self.scan_raw(&mut handle, length, found),
            Layout::Hex => self.scan_lines(BufReader::new(handle), found),
        }
    }

    fn scan_frames(
        &self,
        handle: &mut File,
        length: u64,
        config: &BlockFilesConfig,
        mut found: impl FnMut(u64, u64, &[u8; HEADER_BYTES]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let file = || self.path.clone();
        let mut offset = 0_u64;
        loop {
            let mut frame = read_at(handle, offset, (FRAME_BYTES + HEADER_BYTES) as u64)
                .map_err(Error::io(&self.path))?;
            match magic_of(&frame, offset, self.key) {
                Some(network) if network == config.network => {}
                Some(found) => {
                    let expected = config.network;
                    return Err(Error::WrongNetwork {
                        file: file(),
                        offset,
                        expected,
                        found,
                    });
                }
                // The node reserves space ahead of its writing, and writes zeros without the key.
                None if all_zero(frame.get(..FRAME_BYTES).unwrap_or(&frame)) => {
                    match self
                        .after_zeros(handle, offset)
                        .map_err(Error::io(&self.path))?
                    {
                        None => return Ok(()),
                        Some(next) => offset = next,
                    }
                    continue;
                }
                None if config.tolerate_partial_tail && frame.len() < FRAME_BYTES => return Ok(()),
                None => {
                    return Err(Error::NotARecord {
                        file: file(),
                        offset,
                    });
                }
            }

            let unwritten = all_zero(frame.get(FRAME_BYTES..).unwrap_or_default());
            unmask(&mut frame, offset, self.key);
            let mut reader = Reader::new(&frame);
            let claimed = reader
                .array::<4>()
                .and_then(|_magic| reader.u32())
                .map_or(0, u64::from);
            let start = offset.saturating_add(FRAME_BYTES as u64);
            let available = length.saturating_sub(start);
            match reader.array() {
                Ok(header) if claimed <= available && !unwritten => {
                    if claimed < HEADER_BYTES as u64 {
                        return Err(Error::NotARecord {
                            file: file(),
                            offset,
                        });
                    }
                    found(start, claimed, &header)?;
                    offset = start.saturating_add(claimed);
                }
                // Nothing may follow what is not filled yet.
                _ if config.tolerate_partial_tail
                    && (claimed > available
                        || self
                            .after_zeros(handle, start)
                            .map_err(Error::io(&self.path))?
                            .is_none()) =>
                {
                    tracing::warn!(file = %self.path.display(), offset, "a record is not complete");
                    return Ok(());
                }
                _ => {
                    let file = file();
                    return Err(Error::PartialRecord {
                        file,
                        offset,
                        claimed,
                        available,
                    });
                }
            }
        }
    }

    /// Where the next record begins after zeros at `offset`; `None` if only zeros follow.
    fn after_zeros(&self, handle: &mut File, mut offset: u64) -> io::Result<Option<u64>> {
        loop {
            let bytes = read_at(handle, offset, 1 << 16)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            if let Some(zeros) = bytes.iter().position(|byte| *byte != 0) {
                offset = offset.saturating_add(zeros as u64);
                break;
            }
            offset = offset.saturating_add(bytes.len() as u64);
        }
        // The key can make a record's own first bytes zero.
        for start in (offset.saturating_sub(3)..offset).rev() {
            if magic_of(&read_at(handle, start, 4)?, start, self.key).is_some() {
                return Ok(Some(start));
            }
        }
        Ok(Some(offset))
    }

    fn scan_raw(
        &self,
        handle: &mut File,
        length: u64,
        mut found: impl FnMut(u64, u64, &[u8; HEADER_BYTES]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut header = [0; HEADER_BYTES];
        handle
            .read_exact(&mut header)
            .map_err(Error::io(&self.path))?;
        found(0, length, &header)
    }

    fn scan_lines(
        &self,
        mut text: impl BufRead,
        mut found: impl FnMut(u64, u64, &[u8; HEADER_BYTES]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut offset = 0_u64;
        loop {
            // A line may be larger than memory; its first digits and its length are enough.
            let mut start = Vec::new();
            let mut digits = 0_u64;
            let mut ended = false;
            let mut valid = true;
            let mut length = 0_u64;
            while !ended {
                let chunk = text.fill_buf().map_err(Error::io(&self.path))?;
                if chunk.is_empty() {
                    break;
                }
                let line = chunk
                    .split_inclusive(|byte| *byte == b'\n')
                    .next()
                    .unwrap_or(chunk);
                ended = line.ends_with(b"\n");
                let hex = line.trim_ascii_end();
                valid &=
                    hex.iter().all(u8::is_ascii_hexdigit) && (digits == length || hex.is_empty());
                start.extend(hex.iter().take(2 * HEADER_BYTES - start.len()));
                digits = digits.saturating_add(hex.len() as u64);
                length = length.saturating_add(line.len() as u64);
                let consumed = line.len();
                text.consume(consumed);
            }
            if digits > 0 || !valid {
                let header = str::from_utf8(&start).ok().and_then(from_hex);
                match header.as_deref().and_then(|header| header.first_chunk()) {
                    Some(header) if valid && digits.is_multiple_of(2) => {
                        found(offset, digits / 2, header)?
                    }
                    _ => {
                        return Err(Error::NotHex {
                            file: self.path.clone(),
                            offset,
                        });
                    }
                }
            }
            if !ended {
                return Ok(());
            }
            offset = offset.saturating_add(length);
        }
    }

    /// Reads and decodes the block at `place`. With `may_be_partial`, `None` stands for a damaged
    /// block after which nothing has been written.
    pub(crate) fn read(
        &self,
        place: Place,
        may_be_partial: bool,
    ) -> io::Result<Result<Option<Block>, DecodeError>> {
        let mut handle = File::open(&self.path)?;
        let digits = if self.layout == Layout::Hex { 2 } else { 1 };
        let mut bytes = read_at(
            &mut handle,
            place.offset,
            place.bytes.saturating_mul(digits),
        )?;
        match self.layout {
            Layout::Framed => unmask(&mut bytes, place.offset, self.key),
            Layout::Raw => {}
            Layout::Hex => {
                bytes = str::from_utf8(&bytes)
                    .ok()
                    .and_then(from_hex)
                    .unwrap_or_default();
            }
        }
        // The size was checked when the block was found.
        let block = decode_block(&bytes, &DecodeOptions::default());
        if block.is_err() && may_be_partial && self.layout == Layout::Framed {
            let end = place.offset.saturating_add(place.bytes);
            if self.after_zeros(&mut handle, end)?.is_none() {
                return Ok(Ok(None));
            }
        }
        Ok(block.map(Some))
    }
}

fn block_files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io(directory))? {
        let name = entry.map_err(Error::io(directory))?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with("blk") && text.ends_with(".dat") {
            files.push(directory.join(&name));
        }
    }
    if files.is_empty() {
        return Err(Error::NoBlockFiles {
            directory: directory.to_owned(),
        });
    }
    files.sort();
    Ok(files)
}

fn read_key(file: &Path) -> Result<[u8; 8], Error> {
    match fs::read(file) {
        Ok(key) => key.as_slice().try_into().map_err(|_| Error::XorKeyLength {
            file: file.to_owned(),
            bytes: key.len() as u64,
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok([0; 8]),
        Err(error) => Err(Error::io(file)(error)),
    }
}

// As many of `count` bytes at `offset` as there are.
fn read_at(handle: &mut File, offset: u64, count: u64) -> io::Result<Vec<u8>> {
    handle.seek(SeekFrom::Start(offset))?;
    // No more than the file has, whatever is claimed.
    let there = handle.metadata()?.len().saturating_sub(offset).min(count);
    let mut bytes = Vec::with_capacity(usize::try_from(there).unwrap_or_default());
    handle.take(count).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Puts a node's obfuscation on bytes, or takes it off: `key` is what `xor.dat` holds, and
/// `offset` says where in their file the bytes stand.
pub fn unmask(bytes: &mut [u8], offset: u64, mut key: [u8; 8]) {
    if key == [0; 8] {
        return;
    }
    key.rotate_left((offset % 8) as usize);
    for chunk in bytes.chunks_mut(8) {
        chunk
            .iter_mut()
            .zip(key)
            .for_each(|(byte, key)| *byte ^= key);
    }
}

fn magic_of(bytes: &[u8], offset: u64, key: [u8; 8]) -> Option<Network> {
    let mut magic = *bytes.first_chunk()?;
    unmask(&mut magic, offset, key);
    Network::from_magic(magic)
}
