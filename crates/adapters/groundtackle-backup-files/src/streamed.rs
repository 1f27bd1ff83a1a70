//! Trees that come as a stream, from elsewhere than a disk.

use std::io::Read;
use std::path::PathBuf;

use groundtackle_backup::{BackUp, Error, Repository, Result};

use crate::chunks::{Cutter, OF_FILES};
use crate::error::{of, shown};
use crate::record::{Attributes, Entry, InOrder, Kind, Piece, What, order, parts};
use crate::run::{Made, make, prepare};
use crate::source::{Listed, ListingWriter, READ_BYTES, Store, TreeSource};
use crate::state::Known;

/// What an entry of a [`StreamedTree`] has besides its name and content. It has no extended attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryAttributes {
    /// Permissions, with setuid, setgid and sticky: the lower 12 bits of Unix' mode.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// When the content changed last, in seconds since 1970.
    pub mtime_seconds: i64,
}

impl EntryAttributes {
    /// Of this mode and owner, changed at this time.
    pub const fn new(mode: u32, uid: u32, gid: u32, mtime_seconds: i64) -> Self {
        Self {
            mode,
            uid,
            gid,
            mtime_seconds,
        }
    }
}

impl From<EntryAttributes> for Attributes {
    fn from(from: EntryAttributes) -> Self {
        Self {
            mode: from.mode & 0o7777,
            uid: from.uid,
            gid: from.gid,
            mtime: (from.mtime_seconds, 0),
            xattrs: Vec::new(),
        }
    }
}

/// Backups of a tree that a stream brings, such as another program's archive: nothing of it has to lie on a disk. The same
/// restore points as those of a directory, restored by [`restore`](crate::restore).
#[derive(Clone, Debug, Default)]
pub struct StreamedBackup {
    state: Option<PathBuf>,
}

impl StreamedBackup {
    /// With the file in which this host keeps what the last restore point has: see
    /// [`FilesConfig::state`](crate::FilesConfig::state).
    pub const fn new(state: Option<PathBuf>) -> Self {
        Self { state }
    }

    /// Backs up what `fill` puts into the tree, and nothing if it fails. It runs on a thread where it may block, and waits
    /// there for a slow target; with `whole`, everything is stored anew. Memory: some segments of 4 MiB, 200 bytes for each
    /// entry, and 100 for each chunk (some 512 KiB).
    ///
    /// **Atomicity**: see [`Repository::back_up`]. **Idempotency**: none. **Cancel safety**: nothing is listed; `fill` fails
    /// when it puts something into the tree next.
    ///
    /// # Errors
    /// That of `fill`. `Incomplete` for a tree without a root, an entry in no directory, or one that comes twice. When the
    /// target could not answer. `InvalidRequest` for a stream of another kind.
    pub async fn back_up(
        &self,
        repository: &Repository,
        how: &BackUp<'_>,
        whole: bool,
        fill: impl FnOnce(&mut StreamedTree<'_>) -> Result<()> + Send + 'static,
    ) -> Result<Made> {
        // Before what it uses is looked for.
        let began = repository.begin();
        let state = self.state.as_deref();
        // Without the files of the last one: a stream is read to its end, whatever was there before.
        let (before, new) = prepare(repository, how.stream, state, whole, true).await?;
        let source = TreeSource::begin(before, new, move |store, _| {
            let mut tree = StreamedTree {
                store,
                entries: Vec::new(),
            };
            fill(&mut tree)?;
            Ok((tree.finish()?, Vec::new()))
        });
        make(repository, began, how, source, state).await
    }
}

/// A tree that is being filled, in any order: an empty path is its root, which there must be.
#[derive(Debug)]
pub struct StreamedTree<'a> {
    store: &'a mut Store,
    entries: Vec<(Entry, Option<Vec<Piece>>)>,
}

impl StreamedTree<'_> {
    fn put(&mut self, path: &[u8], what: What, pieces: Option<Vec<Piece>>) -> Result<()> {
        self.store.packer.is_wanted()?;
        if parts(path).is_err() {
            return Err(Error::Incomplete {
                detail: format!("{} leads out of the tree, or is no path", shown(path)),
            });
        }
        let path = path.to_vec();
        self.entries.push((Entry { path, what }, pieces));
        Ok(())
    }

    /// A directory.
    ///
    /// # Errors
    /// `Incomplete` for a path that leads out of the tree, or when the backup was given up.
    pub fn directory(&mut self, path: &[u8], attributes: EntryAttributes) -> Result<()> {
        let what = What::Own(attributes.into(), Kind::Directory);
        self.put(path, what, None)
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// As [`directory`](Self::directory).
    pub fn symlink(
        &mut self,
        path: &[u8],
        attributes: EntryAttributes,
        target: &[u8],
    ) -> Result<()> {
        let what = What::Own(attributes.into(), Kind::Symlink(target.to_vec()));
        self.put(path, what, None)
    }

    /// A file with what `content` has up to its end; how many bytes that was. Whether that is all of it is for the caller
    /// to know.
    ///
    /// # Errors
    /// When `content` can't be read. `Full`, and as [`directory`](Self::directory).
    pub fn file(
        &mut self,
        path: &[u8],
        attributes: EntryAttributes,
        content: &mut dyn Read,
    ) -> Result<u64> {
        self.store.packer.is_wanted()?;
        self.store.files_read = self.store.files_read.saturating_add(1);
        let (mut pieces, mut digests) = (Vec::new(), Vec::new());
        let (mut digest, mut bytes) = (Box::<blake3::Hasher>::default(), 0_u64);
        let mut cutter = Cutter::new(OF_FILES);
        let packer = &mut self.store.packer;
        let mut keep = |chunk: &[u8]| {
            let (at, digest) = packer.add(chunk)?;
            pieces.push(Piece::Chunk(at));
            digests.push(digest);
            Ok(())
        };
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.map_err(of("reading", path))?,
            };
            let read = buffer.get(..count).unwrap_or_default();
            digest.update(read);
            cutter.push(read, &mut keep)?;
            bytes = bytes.saturating_add(read.len() as u64);
        }
        cutter.finish(&mut keep)?;
        let known = Known {
            path: path.to_vec(),
            seen: None,
            blake3: *digest.finalize().as_bytes(),
            pieces,
            digests,
        };
        self.store.keep(&known)?;
        let kind = Kind::File {
            bytes,
            blake3: known.blake3,
        };
        self.put(path, What::Own(attributes.into(), kind), Some(known.pieces))?;
        Ok(bytes)
    }

    /// The listing, in its order.
    fn finish(mut self) -> Result<Listed> {
        self.entries
            .sort_by(|(one, _), (other, _)| order(&one.path, &other.path));
        let refused = |path: &[u8], why: &str| Error::Incomplete {
            detail: format!("{} {why}", shown(path)),
        };
        let mut listing = ListingWriter::new();
        let mut in_order = InOrder::default();
        for (entry, pieces) in &self.entries {
            let is_directory = matches!(entry.what, What::Own(_, Kind::Directory));
            let placed = in_order.next(&entry.path, is_directory);
            placed.map_err(|why| refused(&entry.path, why))?;
            listing.push(self.store, entry, pieces.as_deref())?;
        }
        match in_order.has_root() {
            true => listing.finish(self.store),
            false => Err(refused(&[], "is not there")),
        }
    }
}
