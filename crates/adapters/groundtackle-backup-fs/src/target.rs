use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use groundtackle_backup::{
    Error, Listing, ObjectInfo, ObjectKey, Outcome, PutIf, Refused, Result, Retryability, Target,
    TargetCapabilities, Upload,
};
use groundtackle_core::fail_point;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use tokio::task::JoinHandle;

use crate::config::FsTargetConfig;
use crate::error::{Applied, BACKEND, in_the_way, io_error};
use crate::folder::{Folder, Unfinished, file_name, folders, info, last, object, sync};
use crate::walk;

/// A folder as a target. Clones share it.
#[derive(Clone, Debug)]
pub struct FsTarget {
    folder: Arc<Folder>,
}

/// Does disk work where it blocks nobody. It is carried out even if nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(Error::backend(
            BACKEND,
            "the runtime's blocking work",
            Retryability::Indeterminate,
            error,
        ))
    })
}

fn refuse_lock(lock_until: Option<SystemTime>) -> Result<()> {
    match lock_until {
        None => Ok(()),
        Some(_) => Err(no_locks()),
    }
}

fn no_locks() -> Error {
    Error::invalid_request(
        "fs: a folder has no object locks; leave the lock away, or use a target that has them",
    )
}

impl FsTarget {
    /// Opens a folder.
    ///
    /// # Errors
    /// `InvalidRequest` where there is none and none is to be made. When it can't be opened.
    pub async fn open(path: impl Into<PathBuf>, config: FsTargetConfig) -> Result<Self> {
        let path = path.into();
        blocking(move || {
            let folder = Folder::open(&path, config.create, config.lock_timeout);
            let folder = folder.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound if !config.create => Error::invalid_request(format!(
                    "fs: there is no folder {}; create it, or set create",
                    path.display()
                )),
                _ => io_error(format!("open {}", path.display()), Applied::Nothing, error),
            })?;
            let folder = Arc::new(folder);
            Ok(Self { folder })
        })
        .await
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder.path
    }
}

impl Folder {
    fn put(&self, key: &ObjectKey, body: &[u8], condition: &PutIf) -> Result<Outcome<ObjectInfo>> {
        let action = || format!("put {key}");
        let unapplied = |error| io_error(action(), Applied::Nothing, error);
        let mut file = self.unfinished().map_err(unapplied)?;
        fail_point("backup_fs.put.begun");
        file.file.write_all(body).map_err(unapplied)?;
        file.sync(None).map_err(unapplied)?;
        fail_point("backup_fs.put.synced");
        self.name(key, file, body.len() as u64, condition, &action())
    }

    /// Gives a synced file its name.
    fn name(
        &self,
        key: &ObjectKey,
        mut file: Unfinished,
        bytes: u64,
        condition: &PutIf,
        action: &str,
    ) -> Result<Outcome<ObjectInfo>> {
        let unapplied = |error| io_error(action, Applied::Nothing, error);
        let name = file_name(key);
        let locked = self.lock(action)?;
        let way = match condition {
            PutIf::Absent => self.make_way(key).map_err(unapplied)?,
            PutIf::Unchanged(_) => self.way(key).map_err(unapplied)?,
        };
        let Some(way) = way else {
            return match condition {
                PutIf::Absent => Err(in_the_way(key.as_str())),
                PutIf::Unchanged(_) => Ok(Err(Refused::Changed { key: key.clone() })),
            };
        };
        let folder = last(&way).map_err(unapplied)?;
        if let PutIf::Unchanged(tag) = condition {
            let found = object(folder, name, key).map_err(unapplied)?;
            let Some(found) = found.filter(|found| found.tag == *tag) else {
                return Ok(Err(Refused::Changed { key: key.clone() }));
            };
            let written = file.file.metadata().and_then(|file| file.modified());
            if written.map_err(unapplied)? <= found.written {
                file.sync(Some(found.written)).map_err(unapplied)?;
            }
        }
        let stat = rustix::fs::fstat(&file.file).map_err(|error| unapplied(error.into()))?;
        let info = info(key, &stat).filter(|info| info.bytes == bytes);
        let info = info.ok_or_else(|| {
            Error::corrupt(
                key.as_str(),
                format!("{bytes} bytes were written, and there are not as many"),
            )
        })?;
        let replace = matches!(condition, PutIf::Unchanged(_));
        if let Err(error) = file.name(folder, name, replace) {
            return match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    drop(locked);
                    if object(folder, name, key).map_err(unapplied)?.is_none() {
                        return Err(in_the_way(key.as_str()));
                    }
                    // Whoever wrote it may have died before this.
                    sync(&way).map_err(unapplied)?;
                    Ok(Err(Refused::Exists { key: key.clone() }))
                }
                io::ErrorKind::IsADirectory => Err(in_the_way(key.as_str())),
                io::ErrorKind::NotFound => Err(Error::backend(
                    BACKEND,
                    format!("{action} (what was sent has been removed as unfinished)"),
                    Retryability::Permanent,
                    error,
                )),
                _ => Err(unapplied(error)),
            };
        }
        fail_point("backup_fs.named");
        drop(locked);
        sync(&way).map_err(|error| io_error(action, Applied::Perhaps, error))?;
        fail_point("backup_fs.name_synced");
        Ok(Ok(info))
    }

    fn read(&self, key: &ObjectKey, range: &Range<u64>) -> Result<Option<Bytes>> {
        let failed = |error| io_error(format!("read {key}"), Applied::Nothing, error);
        let Some(way) = self.way(key).map_err(failed)? else {
            return Ok(None);
        };
        // A pipe would wait for somebody to write to it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let folder = last(&way).map_err(failed)?;
        let file = match rustix::fs::openat(folder, file_name(key), flags, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        // Of the file that is open, whatever has its name by now.
        let stat = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
        let Some(info) = info(key, &stat) else {
            return Ok(None);
        };
        info.check_range(range)?;
        let length = usize::try_from(range.end - range.start).map_err(|_| {
            Error::invalid_request(format!("{range:?} of {key} is more than fits memory"))
        })?;
        // Unlike a read into a slice it needs no bytes to write over.
        let mut bytes = Vec::with_capacity(length);
        let mut part = file;
        part.seek(SeekFrom::Start(range.start)).map_err(failed)?;
        part.take(length as u64)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() < length {
            return Err(Error::corrupt(
                key.as_str(),
                format!("it had {} bytes, and ends within {range:?}", info.bytes),
            ));
        }
        Ok(Some(bytes.into()))
    }

    fn known(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        let failed = |error| io_error(format!("info of {key}"), Applied::Nothing, error);
        let Some(way) = self.way(key).map_err(failed)? else {
            return Ok(None);
        };
        let folder = last(&way).map_err(failed)?;
        object(folder, file_name(key), key).map_err(failed)
    }

    fn remove(&self, key: &ObjectKey) -> Result<()> {
        let action = format!("remove {key}");
        let unapplied = |error| io_error(action.as_str(), Applied::Nothing, error);
        let applied = |error| io_error(action.as_str(), Applied::Perhaps, error);
        let locked = self.lock(&action)?;
        let Some(mut way) = self.way(key).map_err(unapplied)? else {
            return Ok(());
        };
        let folder = last(&way).map_err(unapplied)?;
        if object(folder, file_name(key), key)
            .map_err(unapplied)?
            .is_some()
        {
            match rustix::fs::unlinkat(folder, file_name(key), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(unapplied(error.into())),
            }
            fail_point("backup_fs.removed");
            // Folders that are empty now; the lock keeps those who need them.
            for name in folders(key).rev() {
                let [.., above, _] = &way[..] else { break };
                if rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR).is_err() {
                    break;
                }
                way.pop();
            }
        }
        drop(locked);
        sync(&way).map_err(applied)
    }
}

#[async_trait]
impl Target for FsTarget {
    fn capabilities(&self) -> TargetCapabilities {
        let mut capabilities = TargetCapabilities::new(BACKEND);
        capabilities.conditional_put = true;
        capabilities.max_object_bytes = i64::MAX.unsigned_abs();
        capabilities
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
        lock_until: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>> {
        refuse_lock(lock_until)?;
        let (folder, key, condition) = (self.folder.clone(), key.clone(), condition.clone());
        blocking(move || folder.put(&key, &body, &condition)).await
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        lock_until: Option<SystemTime>,
    ) -> Result<Box<dyn Upload>> {
        refuse_lock(lock_until)?;
        let (folder, key) = (self.folder.clone(), key.clone());
        blocking(move || {
            let failed = |error| io_error(format!("upload {key}"), Applied::Nothing, error);
            let file = folder.unfinished().map_err(failed)?;
            fail_point("backup_fs.upload.begun");
            let state = Arc::new(Mutex::new(Some(Written {
                file,
                bytes: 0,
                flushed: 0,
            })));
            let upload: Box<dyn Upload> = Box::new(FsUpload {
                folder,
                key,
                state,
                flush: None,
            });
            Ok(upload)
        })
        .await
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        let (folder, key) = (self.folder.clone(), key.clone());
        blocking(move || folder.read(&key, &range)).await
    }

    async fn info(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        let (folder, key) = (self.folder.clone(), key.clone());
        blocking(move || folder.known(&key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Listing> {
        let (folder, prefix, after) = (self.folder.clone(), prefix.to_owned(), after.cloned());
        blocking(move || {
            let listed = walk::list(&folder, &prefix, after.as_ref(), limit);
            listed.map_err(|error| io_error(format!("list {prefix:?}"), Applied::Nothing, error))
        })
        .await
    }

    async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>> {
        let (folder, key) = (self.folder.clone(), key.clone());
        blocking(move || folder.remove(&key)).await.map(Ok)
    }

    async fn lock(&self, _key: &ObjectKey, _until: SystemTime) -> Result<Outcome<()>> {
        Err(no_locks())
    }

    async fn remove_unfinished(&self, before: SystemTime) -> Result<u64> {
        let folder = self.folder.clone();
        blocking(move || {
            let removed = folder.remove_unfinished(before);
            removed.map_err(|error| io_error("remove what is unfinished", Applied::Perhaps, error))
        })
        .await
    }
}

#[derive(Debug)]
struct FsUpload {
    folder: Arc<Folder>,
    key: ObjectKey,
    // `None` after a write that failed or was dropped on its way: the file goes then.
    state: Arc<Mutex<Option<Written>>>,
    /// On its way to the disk while more is written.
    flush: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug)]
struct Written {
    file: Unfinished,
    bytes: u64,
    /// How many of them a flush was begun for.
    flushed: u64,
}

/// Bytes that are worth a flush of their own, so that few are left to wait for at the end.
const FLUSH_BYTES: u64 = 16 << 20;

impl FsUpload {
    fn take(state: &Mutex<Option<Written>>, key: &ObjectKey) -> Result<Written> {
        let taken = state.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| {
            Error::invalid_request(format!(
                "fs: an earlier write to {key} failed or was dropped; begin the upload again"
            ))
        })
    }

    /// Waits for the flush that was begun. The kernel tells a failure once, so that it must not get lost here.
    async fn flushed(&mut self) -> Result<()> {
        let Some(flush) = &mut self.flush else {
            return Ok(());
        };
        let flushed = flush.await;
        // Not before: who gives up waiting must not take the failure along.
        self.flush = None;
        let error = match flushed {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(error) => io::Error::other(error),
        };
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        Err(io_error(
            format!("write to {}", self.key),
            Applied::Nothing,
            error,
        ))
    }
}

#[async_trait]
impl Upload for FsUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let mut written = Self::take(&self.state, &self.key)?;
        let (state, key) = (self.state.clone(), self.key.clone());
        let flush = blocking(move || {
            let failed = |error| io_error(format!("write to {key}"), Applied::Nothing, error);
            written.file.file.write_all(&bytes).map_err(failed)?;
            fail_point("backup_fs.upload.written");
            written.bytes += bytes.len() as u64;
            let due = written.bytes - written.flushed >= FLUSH_BYTES;
            let flush = due.then(|| written.file.file.try_clone());
            let flush = flush.transpose().map_err(failed)?;
            if due {
                written.flushed = written.bytes;
            }
            *state.lock().unwrap_or_else(PoisonError::into_inner) = Some(written);
            Ok(flush)
        })
        .await?;
        if let Some(file) = flush {
            self.flushed().await?;
            self.flush = Some(tokio::task::spawn_blocking(move || file.sync_data()));
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Outcome<ObjectInfo>> {
        self.flushed().await?;
        let Written { file, bytes, .. } = Self::take(&self.state, &self.key)?;
        let (folder, key) = (self.folder.clone(), self.key.clone());
        blocking(move || {
            let action = format!("finish {key}");
            let synced = file.sync(None);
            synced.map_err(|error| io_error(action.as_str(), Applied::Nothing, error))?;
            fail_point("backup_fs.upload.synced");
            folder.name(&key, file, bytes, &PutIf::Absent, &action)
        })
        .await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        // What a failed write left is gone.
        let taken = Self::take(&self.state, &self.key).ok();
        blocking(move || {
            drop(taken);
            Ok(())
        })
        .await
    }
}
