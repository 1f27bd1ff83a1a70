//! Listings: a walk through the folders in the order of keys.

use std::io;
use std::os::fd::OwnedFd;

use groundtackle_backup::{Listing, ObjectKey};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::folder::{Folder, info};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What is asked for, and what was found so far.
struct Walk<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    limit: usize,
    found: Listing,
}

pub(crate) fn list(
    folder: &Folder,
    prefix: &str,
    after: Option<&ObjectKey>,
    limit: usize,
) -> io::Result<Listing> {
    let mut walk = Walk {
        prefix,
        after: after.map(ObjectKey::as_str),
        limit: limit.max(1),
        found: Listing::default(),
    };
    walk.folder(&folder.root, "")?;
    Ok(walk.found)
}

impl Walk<'_> {
    /// Whether keys that begin with `path` can be among what is asked for.
    fn leads_on(&self, path: &str) -> bool {
        let wanted = path.starts_with(self.prefix) || self.prefix.starts_with(path);
        let behind = self
            .after
            .is_none_or(|after| path > after || after.starts_with(path));
        wanted && behind
    }

    /// Takes what is in the folder `at` whose keys begin with `path`. Whatever goes meanwhile is not there.
    fn folder(&mut self, at: &OwnedFd, path: &str) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in Dir::read_from(at)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            // What is no key's part is not ours.
            let text = format!("{path}{name}");
            if name.starts_with('.') || ObjectKey::try_from(text.as_str()).is_err() {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                        Err(Errno::NOENT) => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
                kind => kind,
            };
            match kind {
                FileType::RegularFile
                    if text.starts_with(self.prefix)
                        && self.after.is_none_or(|after| *text > *after) =>
                {
                    names.push(text);
                }
                FileType::Directory => {
                    let text = text + "/";
                    if self.leads_on(&text) {
                        names.push(text);
                    }
                }
                _ => {}
            }
        }
        // Folders with the slash that all their keys have: `a-b`, `a/`, `a0`.
        names.sort_unstable();
        for text in names {
            if self.found.more {
                return Ok(());
            }
            let own = text.split_at(path.len()).1;
            match own.strip_suffix('/') {
                Some(name) => match rustix::fs::openat(at, name, FOLDER, Mode::empty()) {
                    Ok(deeper) => self.folder(&deeper, &text)?,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(error) => return Err(error.into()),
                },
                None => self.file(at, own, &text)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, at: &OwnedFd, name: &str, text: &str) -> io::Result<()> {
        let stat = match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Ok(key) = ObjectKey::try_from(text) else {
            return Ok(());
        };
        if let Some(info) = info(&key, &stat) {
            if self.found.objects.len() == self.limit {
                self.found.more = true;
            } else {
                self.found.objects.push(info);
            }
        }
        Ok(())
    }
}
