//! A tree as it lies on the disk, in the order of a listing.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use groundtackle_backup::{Error, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::config::Globs;
use crate::error::{of, shown};
use crate::record::{Attributes, Entry, Kind, What};

/// Directories within each other at most: each takes a file descriptor.
pub(crate) const MAX_DEPTH: usize = 256;

/// The longest value of an attribute, and the longest list of names, that Linux has.
const XATTR_BYTES: usize = 64 << 10;

/// Notes that are kept.
const MAX_NOTES: usize = 100;

/// What a file system says of a file, to see whether it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) bytes: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) ctime: (i64, u32),
}

impl Seen {
    fn of(stat: &Statx) -> Self {
        Self {
            device: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
            inode: stat.stx_ino,
            bytes: stat.stx_size,
            mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }
}

/// An entry, and the file to read if it is one. Length and digest of its content are for the reader to fill in.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) entry: Entry,
    pub(crate) file: Option<File>,
}

#[derive(Debug)]
struct Frame {
    directory: OwnedFd,
    names: std::vec::IntoIter<Vec<u8>>,
    /// Of the directory's own path.
    path_bytes: usize,
}

/// Reads a tree, entry by entry.
#[derive(Debug)]
pub(crate) struct Walk {
    exclude: Globs,
    root: Option<OwnedFd>,
    frames: Vec<Frame>,
    path: Vec<u8>,
    /// The first names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// What is not in the backup and is no error.
    pub(crate) notes: Vec<String>,
}

pub(crate) fn stat(file: impl AsFd) -> Result<Statx, Errno> {
    rustix::fs::statx(
        file,
        "",
        AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW,
        StatxFlags::BASIC_STATS,
    )
}

/// What a file is now.
pub(crate) fn seen(file: &File, path: &[u8]) -> Result<(Seen, Attributes)> {
    let stat = stat(file).map_err(of("looking at", path))?;
    Ok((
        Seen::of(&stat),
        attributes(&stat, &Reach::Open(file), path)?,
    ))
}

/// How attributes are reached.
enum Reach<'a, F> {
    Open(&'a F),
    /// By its name: links and devices are not opened.
    Named(Vec<u8>),
}

impl<F: AsFd> Reach<'_, F> {
    fn list(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Reach::Open(file) => rustix::fs::flistxattr(file, buffer),
            Reach::Named(path) => rustix::fs::llistxattr(&**path, buffer),
        }
    }

    fn get(&self, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Reach::Open(file) => rustix::fs::fgetxattr(file, name, buffer),
            Reach::Named(path) => rustix::fs::lgetxattr(&**path, name, buffer),
        }
    }
}

/// A name in an open directory, for calls that take paths only.
pub(crate) fn by_path(directory: impl AsFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend(name);
    path
}

fn attributes<F: AsFd>(stat: &Statx, from: &Reach<'_, F>, path: &[u8]) -> Result<Attributes> {
    let mut buffer = vec![0; XATTR_BYTES];
    let listed = match from.list(&mut buffer) {
        Ok(count) => buffer.get(..count).unwrap_or_default().to_vec(),
        Err(Errno::NOTSUP) => Vec::new(),
        Err(error) => return Err(of("listing the attributes of", path)(error)),
    };
    let mut xattrs = Vec::new();
    for name in listed
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        match from.get(name, &mut buffer) {
            Ok(count) => {
                let value = buffer.get(..count).unwrap_or_default().to_vec();
                xattrs.push((name.to_vec(), value));
            }
            // Removed since.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(of("reading an attribute of", path)(error)),
        }
    }
    xattrs.sort_unstable();
    Ok(Attributes {
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        xattrs,
    })
}

pub(crate) const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Walk {
    /// Of an open directory.
    pub(crate) fn new(root: OwnedFd, exclude: Globs) -> Self {
        Self {
            exclude,
            root: Some(root),
            frames: Vec::new(),
            path: Vec::new(),
            links: HashMap::new(),
            notes: Vec::new(),
        }
    }

    /// Says what is left out, as far as there is room.
    pub(crate) fn note(&mut self, what: &str) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(format!("{} {what}", shown(&self.path)));
        }
    }

    fn enter(&mut self, directory: OwnedFd) -> Result<()> {
        if self.frames.len() >= MAX_DEPTH {
            return Err(Error::invalid_request(format!(
                "{} is within more than {MAX_DEPTH} directories: leave it out, or back it up by itself",
                shown(&self.path)
            )));
        }
        let read = || -> Result<Vec<Vec<u8>>, Errno> {
            let mut names = Vec::new();
            for entry in Dir::read_from(&directory)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    names.push(name.to_vec());
                }
            }
            Ok(names)
        };
        let mut names = read().map_err(of("listing", &self.path))?;
        names.sort_unstable();
        self.frames.push(Frame {
            directory,
            names: names.into_iter(),
            path_bytes: self.path.len(),
        });
        Ok(())
    }

    /// The next entry; `None` after the last one.
    pub(crate) fn next(&mut self) -> Result<Option<Found>> {
        if let Some(root) = self.root.take() {
            let stat = stat(&root).map_err(of("looking at", &self.path))?;
            let attributes = attributes(&stat, &Reach::Open(&root), &self.path)?;
            self.enter(root)?;
            return Ok(Some(self.found(What::Own(attributes, Kind::Directory))));
        }
        while let Some(frame) = self.frames.last_mut() {
            self.path.truncate(frame.path_bytes);
            let Some(name) = frame.names.next() else {
                self.frames.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend(&name);
            if self.exclude.has(&self.path) {
                continue;
            }
            match self.look(&name) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) if is_gone(&error) => self.note("was removed while the tree was read"),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn found(&self, what: What) -> Found {
        let path = self.path.clone();
        let entry = Entry { path, what };
        Found { entry, file: None }
    }

    fn look(&mut self, name: &[u8]) -> Result<Option<Found>> {
        let Some(Frame { directory, .. }) = self.frames.last() else {
            return Ok(None);
        };
        let path = &self.path;
        let stat_now = rustix::fs::statx(
            directory,
            name,
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::BASIC_STATS,
        );
        let stat_now = stat_now.map_err(of("looking at", path))?;
        let kind = FileType::from_raw_mode(u32::from(stat_now.stx_mode));
        if kind == FileType::Directory {
            let opened = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty());
            let opened = opened.map_err(of("opening", path))?;
            let stat = stat(&opened).map_err(of("looking at", path))?;
            let attributes = attributes(&stat, &Reach::Open(&opened), path)?;
            self.enter(opened)?;
            return Ok(Some(self.found(What::Own(attributes, Kind::Directory))));
        }
        let mut inode = (Seen::of(&stat_now).device, stat_now.stx_ino);
        if let Some(first) = self.links.get(&inode).filter(|_| stat_now.stx_nlink > 1) {
            return Ok(Some(self.found(What::Link(first.clone()))));
        }
        let proc = by_path(directory, name);
        let (what, file) = match kind {
            FileType::RegularFile => {
                let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let opened = rustix::fs::openat(directory, name, flags, Mode::empty());
                let opened = File::from(opened.map_err(of("opening", path))?);
                let stat = stat(&opened).map_err(of("looking at", path))?;
                if FileType::from_raw_mode(u32::from(stat.stx_mode)) != FileType::RegularFile {
                    return Err(Error::Incomplete {
                        detail: format!("{} became something else while it was read", shown(path)),
                    });
                }
                // It may have come in the place of another one.
                inode = (Seen::of(&stat).device, stat.stx_ino);
                let attributes = attributes(&stat, &Reach::Open(&opened), path)?;
                let kind = Kind::File {
                    bytes: stat.stx_size,
                    blake3: [0; 32],
                };
                (What::Own(attributes, kind), Some(opened))
            }
            FileType::Socket => {
                self.note("is a socket, which is not backed up");
                return Ok(None);
            }
            kind => {
                let kind = match kind {
                    FileType::Symlink => {
                        let target = rustix::fs::readlinkat(directory, name, Vec::new());
                        let target = target.map_err(of("reading the link", path))?;
                        Kind::Symlink(target.into_bytes())
                    }
                    FileType::Fifo => Kind::Fifo,
                    FileType::BlockDevice => {
                        Kind::Block(stat_now.stx_rdev_major, stat_now.stx_rdev_minor)
                    }
                    FileType::CharacterDevice => {
                        Kind::Char(stat_now.stx_rdev_major, stat_now.stx_rdev_minor)
                    }
                    _ => {
                        return Err(Error::invalid_request(format!(
                            "{} is of a kind that can't be backed up: leave it out",
                            shown(path)
                        )));
                    }
                };
                let from = Reach::<OwnedFd>::Named(proc);
                (What::Own(attributes(&stat_now, &from, path)?, kind), None)
            }
        };
        if stat_now.stx_nlink > 1 {
            self.links.insert(inode, path.clone());
        }
        let mut found = self.found(what);
        found.file = file;
        Ok(Some(found))
    }
}

fn is_gone(error: &Error) -> bool {
    let Error::Backend { source, .. } = error else {
        return false;
    };
    let source = source.downcast_ref::<io::Error>();
    source.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}
