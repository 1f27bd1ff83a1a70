//! Files and folders below the target's root, opened part by part so that no link is followed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use groundtackle_backup::{Error, ObjectInfo, ObjectKey, ObjectTag, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::error::{Applied, BACKEND, io_error};

/// Where files lie that have no name yet. No part of a key begins with a dot.
pub(crate) const UNFINISHED: &str = ".unfinished";
const LOCK: &str = ".lock";

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE_FOLDER: Mode = Mode::RWXU;

/// How long to wait between two attempts at the lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(2);

/// The root, held open: renaming it or putting something in its place changes nothing.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) root: OwnedFd,
    lock_timeout: Duration,
}

/// The lock of all processes, until it is dropped.
#[derive(Debug)]
pub(crate) struct Locked(#[expect(dead_code, reason = "closing it unlocks")] File);

impl Folder {
    pub(crate) fn open(path: &Path, create: bool, lock_timeout: Duration) -> io::Result<Self> {
        if create {
            create_all(path)?;
        }
        // What the user names may be a link; what lies below may not.
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self {
            path: path.to_owned(),
            root,
            lock_timeout,
        })
    }

    /// Waits until no other process gives names or takes them.
    pub(crate) fn lock(&self, action: &str) -> Result<Locked> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Opened anew each time: so the threads of one process wait for each other, too.
        let file = rustix::fs::openat(&self.root, LOCK, flags, PRIVATE_FILE);
        let file = file.map_err(|error| io_error(action, Applied::Nothing, error.into()))?;
        let file = File::from(file);
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Locked(file)),
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(error)) => {
                    return Err(io_error(action, Applied::Nothing, error));
                }
            }
            if begun.elapsed() >= self.lock_timeout {
                return Err(Error::Overloaded {
                    backend: BACKEND,
                    action: format!("{action} (another process holds {LOCK})"),
                });
            }
            std::thread::sleep(LOCK_INTERVAL);
        }
    }

    /// A new file without a name. Their folder is made with the first: whoever only reads writes nothing.
    pub(crate) fn unfinished(&self) -> io::Result<Unfinished> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        make_folder(&self.root, UNFINISHED)?;
        let folder = rustix::fs::openat(&self.root, UNFINISHED, FOLDER, Mode::empty())?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let begun = since_epoch(SystemTime::now()).as_millis();
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{begun}-{}-{number}", std::process::id());
            match rustix::fs::openat(&folder, &name, flags, PRIVATE_FILE) {
                Ok(file) => {
                    return Ok(Unfinished {
                        file: file.into(),
                        folder,
                        name: Some(name),
                    });
                }
                // A process of the same number, on another machine.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Removes files without a name that were begun before then.
    pub(crate) fn remove_unfinished(&self, before: SystemTime) -> io::Result<u64> {
        let before = since_epoch(before).as_millis();
        let folder = match rustix::fs::openat(&self.root, UNFINISHED, FOLDER, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(0),
            folder => folder?,
        };
        let mut removed = 0;
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            let begun = name.split('-').next().map(str::parse::<u128>);
            if !matches!(begun, Some(Ok(begun)) if begun < before) {
                continue;
            }
            match rustix::fs::unlinkat(&folder, entry.file_name(), AtFlags::empty()) {
                Ok(()) => removed += 1,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(removed)
    }

    /// The folders that lead to a key, the root first; `None` where one is missing.
    pub(crate) fn way(&self, key: &ObjectKey) -> io::Result<Option<Vec<OwnedFd>>> {
        let mut way = vec![self.root.try_clone()?];
        for part in folders(key) {
            match rustix::fs::openat(last(&way)?, part, FOLDER, Mode::empty()) {
                Ok(folder) => way.push(folder),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(way))
    }

    /// The same, with what is missing made; `None` where something else is in the way.
    pub(crate) fn make_way(&self, key: &ObjectKey) -> io::Result<Option<Vec<OwnedFd>>> {
        let mut way = vec![self.root.try_clone()?];
        for part in folders(key) {
            make_folder(last(&way)?, part)?;
            match rustix::fs::openat(last(&way)?, part, FOLDER, Mode::empty()) {
                Ok(folder) => way.push(folder),
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(way))
    }
}

/// A file on its way; removed unless it gets a name.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) file: File,
    folder: OwnedFd,
    name: Option<String>,
}

impl Unfinished {
    /// On the disk with its content, newer than `than`.
    pub(crate) fn sync(&self, than: Option<SystemTime>) -> io::Result<()> {
        // The kernel's own stamps are milliseconds apart, and two contents of a lease may be closer.
        let mut now = SystemTime::now();
        if let Some(than) = than
            && now <= than
        {
            now = than.checked_add(Duration::from_micros(1)).unwrap_or(now);
        }
        self.file.set_modified(now)?;
        self.file.sync_all()
    }

    /// Gives it a name; where there is one only if it is to replace that. `Exists` otherwise.
    pub(crate) fn name(&mut self, folder: &OwnedFd, name: &str, replace: bool) -> io::Result<()> {
        let Some(own) = &self.name else { return Ok(()) };
        if replace {
            rustix::fs::renameat(&self.folder, own, folder, name)?;
        } else {
            rename_absent(&self.folder, own, folder, name)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Otherwise `remove_unfinished` does it.
            let _ = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty());
        }
    }
}

/// Under the lock, so that file systems without the flag can look before.
fn rename_absent(from: &OwnedFd, old: &str, to: &OwnedFd, new: &str) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    match rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        done => return Ok(done?),
    }
    match rustix::fs::statat(to, new, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(rustix::fs::renameat(from, old, to, new)?),
        Err(error) => Err(error.into()),
        Ok(_) => Err(Errno::EXIST.into()),
    }
}

fn make_folder(at: impl AsFd, name: &str) -> io::Result<()> {
    match rustix::fs::mkdirat(at, name, PRIVATE_FOLDER) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes the root with all that leads to it, each synced into the folder above.
fn create_all(path: &Path) -> io::Result<()> {
    match rustix::fs::mkdir(path, PRIVATE_FOLDER) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(Errno::NOENT) => {
            let above = path.parent().ok_or(Errno::NOENT)?;
            create_all(above)?;
            match rustix::fs::mkdir(path, PRIVATE_FOLDER) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(error) => return Err(error.into()),
    }
    let above = match path.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    File::open(above)?.sync_all()
}

/// Syncs all folders of a way, the deepest first.
pub(crate) fn sync(way: &[OwnedFd]) -> io::Result<()> {
    for folder in way.iter().rev() {
        rustix::fs::fsync(folder)?;
    }
    Ok(())
}

pub(crate) fn last(way: &[OwnedFd]) -> io::Result<&OwnedFd> {
    way.last().ok_or_else(|| Errno::NOENT.into())
}

/// The parts of a key that are folders.
pub(crate) fn folders(key: &ObjectKey) -> impl DoubleEndedIterator<Item = &str> {
    key.as_str()
        .rsplit_once('/')
        .into_iter()
        .flat_map(|(folders, _)| folders.split('/'))
}

/// The last part of a key.
pub(crate) fn file_name(key: &ObjectKey) -> &str {
    let text = key.as_str();
    text.rsplit_once('/').map_or(text, |(_, name)| name)
}

/// What is at a name, if it is an object.
pub(crate) fn object(
    folder: &OwnedFd,
    name: &str,
    key: &ObjectKey,
) -> io::Result<Option<ObjectInfo>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(info(key, &stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What is known of a file; `None` where it is no file.
pub(crate) fn info(key: &ObjectKey, stat: &Stat) -> Option<ObjectInfo> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let seconds = u64::try_from(stat.st_mtime).unwrap_or_default();
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    let bytes = u64::try_from(stat.st_size).unwrap_or_default();
    Some(ObjectInfo {
        key: key.clone(),
        bytes,
        tag: ObjectTag::new(format!("{:x}-{seconds:x}.{nanos}-{bytes:x}", stat.st_ino)),
        written: UNIX_EPOCH
            .checked_add(Duration::new(seconds, nanos))
            .unwrap_or(UNIX_EPOCH),
    })
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
