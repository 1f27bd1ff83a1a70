//! A directory out of a restore point.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use groundtackle_backup::{
    Error, Hex, KeyUnwrapping, Manifest, Repository, Result, Segment, TreeReader, TreeSummary,
};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::chunks::{ROOT, decode, root_chunks};
use crate::config::{Globs, RestoreOptions};
use crate::error::{damaged, of, shown, stopped};
use crate::lock::lock;
use crate::record::{Attributes, Bytes, ChunkAt, Entry, Kind, Piece, What, parts};
use crate::walk::{DIRECTORY, MAX_DEPTH, Walk, by_path};

/// Segments that are kept: chunks of a file that was often backed up come from several.
const CACHED: usize = 8;

/// What a restore made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// Files, directories and all else that has a name.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Devices that were left out, as asked for.
    pub left_out: u64,
    /// The digest of the listing that what lies on the disk was compared with, and found to be.
    pub blake3: Hex<32>,
}

impl Restored {
    /// The tree as a whole.
    pub const fn tree(&self) -> TreeSummary {
        TreeSummary {
            entries: self.entries,
            bytes: self.bytes,
            blake3: self.blake3,
        }
    }
}

/// Restores a tree into a directory that is new or empty.
///
/// It is written beside `into`, under a name that begins with a dot, read back from the disk and compared with what was
/// signed: then it takes the place of `into`. So what is there under that name is whole. What an interrupted restore left is
/// removed by the next one.
///
/// **Atomicity**: all of it is there, or nothing. **Idempotency**: none; a directory with something in it is refused.
/// **Cancel safety**: repeat it. Memory: some segments of 4 MiB, and the indexes of what is read.
///
/// # Errors
/// `InvalidRequest` for a directory that is not empty, can't be replaced, or that another restore works on. `WrongKey`,
/// `Missing`, `Corrupt`. `Differs` if what lies on the disk is not what was backed up. When something may not be set, as the
/// owner by who is not root: see [`RestoreOptions::unprivileged`].
pub async fn restore(
    repository: &Repository,
    manifest: &Manifest,
    keys: &dyn KeyUnwrapping,
    into: &Path,
    options: RestoreOptions,
) -> Result<Restored> {
    restore_checked(repository, manifest, keys, into, options, |_| Ok(())).await
}

/// [`restore`], with a last look: `check` is given the directory where the tree lies, whole and flushed, before it takes
/// its place, and keeps it from there by an error. It runs on a thread where it may block, and must leave the tree as it is.
///
/// **Atomicity**, **idempotency**: as [`restore`]. **Cancel safety**: as there; a `check` that has begun goes on.
///
/// # Errors
/// As [`restore`], and that of `check`.
pub async fn restore_checked(
    repository: &Repository,
    manifest: &Manifest,
    keys: &dyn KeyUnwrapping,
    into: &Path,
    options: RestoreOptions,
    check: impl FnOnce(&Path) -> Result<()> + Send + 'static,
) -> Result<Restored> {
    let reader = repository.open_tree(manifest, keys).await?;
    let into = into.to_owned();
    let work = move |chunks| {
        let work = Work {
            chunks: RefCell::new(chunks),
            options,
            left_out: Cell::new(0),
        };
        work.run(&into, check)
    };
    with_chunks(reader, work).await
}

/// Works on the chunks of a tree on a thread where it may block, until nobody waits for it.
pub(crate) async fn with_chunks<T: Send + 'static>(
    reader: TreeReader,
    work: impl FnOnce(Chunks) -> Result<T> + Send + 'static,
) -> Result<T> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = StopOnDrop(stop.clone());
    let chunks = Chunks {
        reader: Arc::new(reader),
        handle: Handle::current(),
        cached: VecDeque::new(),
        ahead: None,
        stop,
    };
    let work = tokio::task::spawn_blocking(move || work(chunks));
    let done = work.await.map_err(stopped)?;
    drop(asked);
    done
}

/// A thread goes on when nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn given_up() -> Error {
    Error::Incomplete {
        detail: "the restore was given up".into(),
    }
}

type SegmentKey = (u32, u64);

/// Chunks where they lie.
pub(crate) struct Chunks {
    reader: Arc<TreeReader>,
    handle: Handle,
    cached: VecDeque<(SegmentKey, Arc<Vec<u8>>)>,
    /// The segment after the last one that was asked for.
    ahead: Option<(SegmentKey, JoinHandle<Result<Segment>>)>,
    stop: Arc<AtomicBool>,
}

impl Chunks {
    /// Whether somebody still waits for what comes.
    pub(crate) fn is_wanted(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(given_up()),
            false => Ok(()),
        }
    }

    fn segment(&mut self, key: SegmentKey) -> Result<Arc<Vec<u8>>> {
        self.is_wanted()?;
        if let Some((_, bytes)) = self.cached.iter().find(|(cached, _)| *cached == key) {
            return Ok(bytes.clone());
        }
        let (number, ordinal) = key;
        let segment = match self.ahead.take() {
            Some((ahead, reading)) if ahead == key => {
                self.handle.block_on(reading).map_err(stopped)??
            }
            other => {
                if let Some((_, reading)) = other {
                    reading.abort();
                }
                self.handle.block_on(self.reader.segment(number, ordinal))?
            }
        };
        // Most restores go from segment to segment.
        let (reader, next) = (self.reader.clone(), ordinal.saturating_add(1));
        let reading = self
            .handle
            .spawn(async move { reader.segment(number, next).await });
        self.ahead = Some(((number, next), reading));
        let bytes = Arc::new(decode(&segment)?);
        if self.cached.len() >= CACHED {
            self.cached.pop_front();
        }
        self.cached.push_back((key, bytes.clone()));
        Ok(bytes)
    }

    pub(crate) fn with<T>(
        &mut self,
        at: &ChunkAt,
        then: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        let segment = self.segment((at.number, at.ordinal))?;
        let from = usize::try_from(at.offset).unwrap_or(usize::MAX);
        let to = from.saturating_add(usize::try_from(at.bytes).unwrap_or(usize::MAX));
        let chunk = segment.get(from..to);
        then(chunk.ok_or_else(|| damaged("a chunk leads out of its segment"))?)
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        if let Some((_, reading)) = &self.ahead {
            reading.abort();
        }
    }
}

/// The listing, read as it is needed.
pub(crate) struct Listing<'a> {
    chunks: &'a RefCell<Chunks>,
    left: std::vec::IntoIter<ChunkAt>,
    buffer: Vec<u8>,
    at: usize,
}

impl<'a> Listing<'a> {
    pub(crate) fn begin(chunks: &'a RefCell<Chunks>) -> Result<Self> {
        let (handle, reader) = {
            let chunks = chunks.borrow();
            (chunks.handle.clone(), chunks.reader.clone())
        };
        let root = handle.block_on(reader.root())?;
        if root.info.codec != ROOT {
            return Err(damaged("the last segment does not say where it is"));
        }
        let left = root_chunks(&root.bytes)?;
        Ok(Self {
            chunks,
            left: left.into_iter(),
            buffer: Vec::new(),
            at: 0,
        })
    }
}

impl Bytes for Listing<'_> {
    fn take(&mut self, count: u32) -> Result<Vec<u8>> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        while self.buffer.len().saturating_sub(self.at) < count {
            let next = self.left.next().ok_or_else(|| damaged("it is cut short"))?;
            self.buffer.drain(..self.at);
            self.at = 0;
            let buffer = &mut self.buffer;
            self.chunks.borrow_mut().with(&next, |chunk| {
                buffer.extend_from_slice(chunk);
                Ok(())
            })?;
        }
        let end = self.at.saturating_add(count);
        let taken = self.buffer.get(self.at..end).unwrap_or_default().to_vec();
        self.at = end;
        Ok(taken)
    }

    fn ended(&mut self) -> Result<bool> {
        Ok(self.at >= self.buffer.len() && self.left.as_slice().is_empty())
    }
}

struct Work {
    /// For the listing and for what it lists, in turns.
    chunks: RefCell<Chunks>,
    options: RestoreOptions,
    left_out: Cell<u64>,
}

/// A directory that is being filled.
struct Open {
    path: Vec<u8>,
    directory: OwnedFd,
    attributes: Attributes,
}

impl Work {
    fn run(&self, into: &Path, check: impl FnOnce(&Path) -> Result<()>) -> Result<Restored> {
        let place = Place::make(into)?;
        self.write(&place.root)?;
        let restored = self.compare(&place.root)?;
        rustix::fs::syncfs(&place.root).map_err(of::<Errno>("flushing", place.shown()))?;
        check(&place.path)?;
        self.chunks.borrow().is_wanted()?;
        place.keep(into)?;
        Ok(restored)
    }

    fn write(&self, root: &OwnedFd) -> Result<()> {
        let mut open: Vec<Open> = Vec::new();
        let mut listing = Listing::begin(&self.chunks)?;
        while let Some((entry, pieces)) = listing.entry()? {
            self.one(root, &mut open, &entry, &pieces)?;
        }
        while let Some(last) = open.pop() {
            self.close(last)?;
        }
        Ok(())
    }

    fn close(&self, directory: Open) -> Result<()> {
        let fd = &directory.directory;
        self.set(fd, &directory.attributes, &directory.path)
    }

    fn one(
        &self,
        root: &OwnedFd,
        open: &mut Vec<Open>,
        entry: &Entry,
        pieces: &[Piece],
    ) -> Result<()> {
        let path = &*entry.path;
        let name = parts(path)?.last().unwrap_or_default();
        let parent = path.get(..path.len().saturating_sub(name.len().saturating_add(1)));
        let parent = parent.unwrap_or_default();
        if path.is_empty() {
            let What::Own(attributes, Kind::Directory) = &entry.what else {
                return Err(damaged("its root is no directory"));
            };
            if !open.is_empty() {
                return Err(damaged("it has two roots"));
            }
            open.push(Open {
                path: Vec::new(),
                directory: root.try_clone().map_err(of("opening", path))?,
                attributes: attributes.clone(),
            });
            return Ok(());
        }
        while open.last().is_some_and(|last| last.path != parent) {
            if let Some(last) = open.pop() {
                self.close(last)?;
            }
        }
        let Some(Open { directory, .. }) = open.last() else {
            return Err(damaged("an entry is in no directory"));
        };
        let failed = |action: &'static str| of::<Errno>(action, path);
        let (attributes, kind) = match &entry.what {
            What::Link(to) => {
                let (within, first) = parent_of(root, to)?;
                let linked =
                    rustix::fs::linkat(&within, &*first, directory, name, AtFlags::empty());
                return linked.map_err(failed("linking"));
            }
            What::Own(attributes, kind) => (attributes, kind),
        };
        match kind {
            Kind::Directory => {
                if open.len() > MAX_DEPTH {
                    return Err(damaged("its directories are too deep"));
                }
                let made = rustix::fs::mkdirat(directory, name, Mode::RWXU);
                made.map_err(failed("making"))?;
                let opened = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty());
                let directory = opened.map_err(failed("opening"))?;
                open.push(Open {
                    path: path.to_vec(),
                    directory,
                    attributes: attributes.clone(),
                });
                Ok(())
            }
            Kind::File { bytes, .. } => {
                let flags = OFlags::RDWR
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let made = rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR);
                let file = File::from(made.map_err(failed("making"))?);
                let mut at = 0_u64;
                for piece in pieces {
                    let length = match piece {
                        Piece::Hole(length) => *length,
                        Piece::Chunk(chunk) => {
                            self.chunks.borrow_mut().with(chunk, |chunk| {
                                file.write_all_at(chunk, at).map_err(of("writing", path))
                            })?;
                            u64::from(chunk.bytes)
                        }
                    };
                    let next = at.checked_add(length).filter(|next| next <= bytes);
                    at = next.ok_or_else(|| damaged("pieces longer than their file"))?;
                }
                if at != *bytes {
                    return Err(damaged("pieces shorter than their file"));
                }
                file.set_len(*bytes).map_err(of("writing", path))?;
                self.set(&file, attributes, path)
            }
            Kind::Symlink(target) => {
                let made = rustix::fs::symlinkat(&**target, directory, name);
                made.map_err(failed("making"))?;
                self.set_named(directory, name, attributes, path, true)
            }
            Kind::Fifo | Kind::Block(..) | Kind::Char(..) => {
                let (kind, device) = match kind {
                    Kind::Block(major, minor) => {
                        (FileType::BlockDevice, rustix::fs::makedev(*major, *minor))
                    }
                    Kind::Char(major, minor) => (
                        FileType::CharacterDevice,
                        rustix::fs::makedev(*major, *minor),
                    ),
                    _ => (FileType::Fifo, 0),
                };
                if kind != FileType::Fifo && self.options.unprivileged {
                    self.left_out.set(self.left_out.get().saturating_add(1));
                    return Ok(());
                }
                let mode = Mode::RUSR | Mode::WUSR;
                let made = rustix::fs::mknodat(directory, name, kind, mode, device);
                made.map_err(failed("making"))?;
                self.set_named(directory, name, attributes, path, false)
            }
        }
    }

    /// Attributes of what is open. Lists of who may do what come after the mode, which changes them; time comes last.
    fn set(&self, file: impl AsFd, attributes: &Attributes, path: &[u8]) -> Result<()> {
        let file = file.as_fd();
        let wanted = as_restored(attributes.clone(), self.options);
        if !self.options.unprivileged {
            let owners = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
            let set = rustix::fs::fchown(file, Some(owners.0), Some(owners.1));
            set.map_err(may_not("setting the owner of", path))?;
        }
        let set = |access: bool| {
            let these = wanted.xattrs.iter();
            let mut these = these.filter(|(name, _)| is_access(name) == access);
            these.try_for_each(|(name, value)| {
                let set = rustix::fs::fsetxattr(file, &**name, value, XattrFlags::empty());
                set.map_err(may_not("setting an attribute of", path))
            })
        };
        set(false)?;
        let mode = rustix::fs::fchmod(file, Mode::from_raw_mode(wanted.mode));
        mode.map_err(of::<Errno>("setting the mode of", path))?;
        set(true)?;
        let time = rustix::fs::futimens(file, &times(&wanted));
        time.map_err(of::<Errno>("setting the time of", path))
    }

    /// The same of what can't be opened.
    fn set_named(
        &self,
        directory: &OwnedFd,
        name: &[u8],
        attributes: &Attributes,
        path: &[u8],
        is_link: bool,
    ) -> Result<()> {
        let wanted = as_restored(attributes.clone(), self.options);
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        if !self.options.unprivileged {
            let owners = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
            let set =
                rustix::fs::chownat(directory, name, Some(owners.0), Some(owners.1), nofollow);
            set.map_err(may_not("setting the owner of", path))?;
        }
        let by_path = by_path(directory, name);
        let set = |access: bool| {
            let these = wanted.xattrs.iter();
            let mut these = these.filter(|(name, _)| is_access(name) == access);
            these.try_for_each(|(name, value)| {
                let set = rustix::fs::lsetxattr(&*by_path, &**name, value, XattrFlags::empty());
                set.map_err(may_not("setting an attribute of", path))
            })
        };
        set(false)?;
        // A link has no mode of its own. What else is here was made by us just now, in a directory that nobody else enters.
        if !is_link {
            let mode = Mode::from_raw_mode(wanted.mode);
            let set = rustix::fs::chmodat(directory, name, mode, AtFlags::empty());
            set.map_err(of::<Errno>("setting the mode of", path))?;
        }
        set(true)?;
        let time = rustix::fs::utimensat(directory, name, &times(&wanted), nofollow);
        time.map_err(of::<Errno>("setting the time of", path))
    }

    /// Compares what lies on the disk with the listing, and the listing with what was signed.
    fn compare(&self, root: &OwnedFd) -> Result<Restored> {
        let reader = self.chunks.borrow().reader.clone();
        let signed = reader.manifest().content.tree();
        let signed = signed.ok_or_else(|| damaged("it is no tree"))?;
        let again = rustix::fs::openat(root, ".", DIRECTORY, Mode::empty());
        let again = again.map_err(of::<Errno>("opening", b""))?;
        let mut walk = Walk::new(again, Globs::default());
        let mut digest = Box::<blake3::Hasher>::default();
        let mut restored = Restored {
            entries: 0,
            bytes: 0,
            left_out: self.left_out.get(),
            blake3: Hex::default(),
        };
        let unprivileged = self.options.unprivileged;
        let mut listing = Listing::begin(&self.chunks)?;
        while let Some((entry, _)) = listing.entry()? {
            digest.update(&entry.canonical());
            restored.entries = restored.entries.saturating_add(1);
            if let What::Own(_, kind) = &entry.what {
                if let Kind::File { bytes, .. } = kind {
                    restored.bytes = restored.bytes.saturating_add(*bytes);
                }
                if unprivileged && matches!(kind, Kind::Block(..) | Kind::Char(..)) {
                    continue;
                }
            }
            let wanted = with_options(entry, self.options);
            let found = walk.next()?;
            let found = match found {
                Some(found) => {
                    let mut entry = found.entry;
                    if let (Some(file), What::Own(_, Kind::File { bytes, blake3 })) =
                        (&found.file, &mut entry.what)
                    {
                        (*bytes, *blake3) = digest_of(file, &entry.path)?;
                    }
                    with_options(entry, self.options)
                }
                None => return Err(differs(&wanted.path, "it is there", "nothing")),
            };
            if found != wanted {
                let what = |entry: &Entry| match &entry.what {
                    What::Own(attributes, kind) => format!("{attributes:?} {kind:?}"),
                    What::Link(to) => format!("a link to {}", shown(to)),
                };
                let (wanted_is, found_is) = match found.path == wanted.path {
                    true => (what(&wanted), what(&found)),
                    false => ("it is there".into(), shown(&found.path)),
                };
                return Err(differs(&wanted.path, &wanted_is, &found_is));
            }
        }
        if let Some(found) = walk.next()? {
            return Err(differs(&found.entry.path, "nothing", "it is there"));
        }
        restored.blake3 = Hex(*digest.finalize().as_bytes());
        if restored.tree() != signed {
            return Err(damaged("it is not the one that was signed"));
        }
        Ok(restored)
    }
}

fn differs(path: &[u8], wanted: &str, found: &str) -> Error {
    Error::Differs {
        what: "a file of the tree",
        wanted: format!("{}: {wanted}", shown(path)),
        found: found.into(),
    }
}

/// The content of a file, read to its end.
fn digest_of(file: &File, path: &[u8]) -> Result<(u64, [u8; 32])> {
    let mut hasher = Box::<blake3::Hasher>::default();
    hasher.update_reader(file).map_err(of("reading", path))?;
    Ok((hasher.count(), *hasher.finalize().as_bytes()))
}

/// What may be set by whoever restores.
fn as_restored(mut attributes: Attributes, options: RestoreOptions) -> Attributes {
    if options.unprivileged {
        (attributes.uid, attributes.gid) = (0, 0);
        attributes.mode &= 0o1777;
        let fine = |name: &[u8]| name.starts_with(b"user.") || name.starts_with(b"system.");
        attributes.xattrs.retain(|(name, _)| fine(name));
    }
    attributes
}

fn with_options(entry: Entry, options: RestoreOptions) -> Entry {
    let what = match entry.what {
        What::Own(attributes, kind) => What::Own(as_restored(attributes, options), kind),
        link @ What::Link(_) => link,
    };
    Entry {
        path: entry.path,
        what,
    }
}

fn is_access(name: &[u8]) -> bool {
    name.starts_with(b"system.posix_acl_")
}

fn times(attributes: &Attributes) -> Timestamps {
    let time = Timespec {
        tv_sec: attributes.mtime.0,
        tv_nsec: attributes.mtime.1.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Only root may set everything.
fn may_not(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Error + use<> {
    let path = path.to_vec();
    move |error| match error {
        Errno::PERM | Errno::ACCESS => Error::invalid_request(format!(
            "{action} {} is not permitted: restore as root, or ask for a restore without what only root may set",
            shown(&path)
        )),
        error => of(action, &path)(error),
    }
}

/// The directory that a path is in, step by step and never by way of a link, and its name there.
fn parent_of(root: &OwnedFd, path: &[u8]) -> Result<(OwnedFd, Vec<u8>)> {
    let mut at = root.try_clone().map_err(of("opening", path))?;
    let mut parts = parts(path)?.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return Ok((at, part.to_vec()));
        }
        let next = rustix::fs::openat(&at, part, DIRECTORY, Mode::empty());
        at = next.map_err(of::<Errno>("opening", path))?;
    }
    Err(damaged("a link to the root"))
}

/// Where a restore is written, until it is whole.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    parent: File,
    root: OwnedFd,
}

impl Place {
    fn make(into: &Path) -> Result<Self> {
        let shown = || into.display();
        let refused = |why: &str| Error::invalid_request(format!("{}: {why}", shown()));
        let failed = |action: &str| of(action, into.as_os_str().as_encoded_bytes());
        let name = into
            .file_name()
            .ok_or_else(|| refused("it has no name; name a new directory"))?;
        let folder = into.parent().filter(|folder| *folder != Path::new(""));
        let folder = folder.unwrap_or(Path::new("."));
        let parent = File::open(folder).map_err(failed("opening the directory above"))?;
        match fs::symlink_metadata(into) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("looking at")(error)),
            Ok(found) => {
                if !found.is_dir() {
                    return Err(refused("it is there, and no directory; name a new one"));
                }
                let above = parent.metadata().map_err(failed("looking above"))?;
                if above.dev() != found.dev() {
                    return Err(refused(
                        "a file system is mounted there; name a directory within it",
                    ));
                }
                let mut within = fs::read_dir(into).map_err(failed("listing"))?;
                if within.next().is_some() {
                    return Err(refused("it is not empty; name a new directory"));
                }
            }
        }
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(".restoring");
        let path = folder.join(beside);
        let open = || {
            let opened = rustix::fs::open(&path, DIRECTORY, Mode::empty());
            let opened =
                opened.map_err(of::<Errno>("opening", path.as_os_str().as_encoded_bytes()))?;
            match lock(&opened) {
                Ok(true) => Ok(opened),
                Ok(false) => Err(refused("another restore works on it")),
                Err(error) => Err(failed("locking")(error.into())),
            }
        };
        if fs::symlink_metadata(&path).is_ok() {
            // What an interrupted restore left.
            let left = open()?;
            remove(&path).map_err(failed("removing what is left of a restore into"))?;
            drop(left);
        }
        rustix::fs::mkdir(&path, Mode::RWXU).map_err(|error| failed("making")(error.into()))?;
        let root = open()?;
        Ok(Self { path, parent, root })
    }

    fn shown(&self) -> &[u8] {
        self.path.as_os_str().as_encoded_bytes()
    }

    fn keep(&self, into: &Path) -> Result<()> {
        let named = fs::rename(&self.path, into);
        named.map_err(of(
            "naming the restored",
            into.as_os_str().as_encoded_bytes(),
        ))?;
        let synced = self.parent.sync_all();
        synced.map_err(of("flushing the directory above", self.shown()))
    }
}

/// A tree of our own, some of whose directories may be closed by now.
fn remove(path: &Path) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => remove(&entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    fs::remove_dir(path)
}
