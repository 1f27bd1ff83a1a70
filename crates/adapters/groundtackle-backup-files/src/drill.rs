//! Where drills restore trees to.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use groundtackle_backup::{
    DrillLevel, Error, KeyUnwrapping, Manifest, Proof, Repository, Result, TreeGround, TreeSummary,
};

use crate::config::{Globs, RestoreOptions};
use crate::error::{of, stopped};
use crate::replay::replay;
use crate::restore::{Restored, restore};
use crate::walk::Walk;

/// Nowhere: a [`replay`], good for [`DrillLevel::Replay`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplayGround;

#[async_trait]
impl TreeGround for ReplayGround {
    fn reach(&self) -> DrillLevel {
        DrillLevel::Replay
    }

    fn place(&self) -> Option<String> {
        None
    }

    async fn restore(
        &mut self,
        repository: &Repository,
        point: &Manifest,
        keys: &dyn KeyUnwrapping,
    ) -> Result<TreeSummary> {
        replay(repository, point, keys).await
    }

    async fn prove(&mut self, _: DrillLevel, _: &TreeSummary) -> Result<Vec<Proof>> {
        Ok(Vec::new())
    }
}

/// A scratch directory, good for [`DrillLevel::Load`]: the tree is restored into it, compared with what was signed as it lies on
/// the disk, and looked at once more in its place. It stays there: removing it is the caller's.
///
/// Production, to a [drill](groundtackle_backup::Drill::production), is here a path: nothing is restored there, into a
/// directory within it, nor around it.
#[derive(Clone, Debug)]
pub struct DirectoryGround {
    place: PathBuf,
    options: RestoreOptions,
    restored: Option<Restored>,
}

impl DirectoryGround {
    /// A directory that is new or empty.
    ///
    /// # Errors
    /// When there is no directory for it to be in.
    pub fn new(path: &Path, options: RestoreOptions) -> Result<Self> {
        let place = resolved(path);
        let place = place.map_err(of("looking for", path.as_os_str().as_encoded_bytes()))?;
        Ok(Self {
            place,
            options,
            restored: None,
        })
    }

    /// Where it is, without links.
    pub fn path(&self) -> &Path {
        &self.place
    }
}

/// A path as the system has it, whether it is there yet or not.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let mut there = std::path::absolute(path)?;
    let mut below: Vec<OsString> = Vec::new();
    loop {
        match there.canonicalize() {
            Ok(mut found) => {
                found.extend(below.iter().rev());
                return Ok(found);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = there.file_name().ok_or(error)?.to_owned();
                below.push(name);
                there.pop();
            }
            Err(error) => return Err(error),
        }
    }
}

#[async_trait]
impl TreeGround for DirectoryGround {
    fn reach(&self) -> DrillLevel {
        DrillLevel::Load
    }

    fn place(&self) -> Option<String> {
        Some(self.place.display().to_string())
    }

    fn touches(&self, production: &str) -> bool {
        let path = Path::new(production);
        // Stores have other names.
        if !path.is_absolute() {
            return false;
        }
        // What can't be looked at is taken as it is spelt.
        let path = resolved(path).unwrap_or_else(|_| path.to_owned());
        path.starts_with(&self.place) || self.place.starts_with(path)
    }

    async fn restore(
        &mut self,
        repository: &Repository,
        point: &Manifest,
        keys: &dyn KeyUnwrapping,
    ) -> Result<TreeSummary> {
        let restored = restore(repository, point, keys, &self.place, self.options).await?;
        let tree = restored.tree();
        self.restored = Some(restored);
        Ok(tree)
    }

    async fn prove(&mut self, _: DrillLevel, _: &TreeSummary) -> Result<Vec<Proof>> {
        let Some(restored) = self.restored.clone() else {
            return Ok(Vec::new());
        };
        let place = self.place.clone();
        let looking = tokio::task::spawn_blocking(move || look(&place));
        let found = looking.await.map_err(stopped)??;
        let wanted = (
            restored.entries.saturating_sub(restored.left_out),
            restored.bytes,
        );
        if found != wanted {
            return Err(Error::Differs {
                what: "the tree in the scratch directory",
                wanted: format!("{} entries, {} bytes in files", wanted.0, wanted.1),
                found: format!("{} entries, {} bytes", found.0, found.1),
            });
        }
        let proof = |what: &str, found: u64| Proof {
            what: what.into(),
            found: found.to_string(),
        };
        Ok(vec![
            proof("entries in the scratch directory", found.0),
            proof("bytes in its files", found.1),
            proof("devices that were left out", restored.left_out),
        ])
    }
}

/// Entries, and bytes of files, as the file system has them.
fn look(place: &Path) -> Result<(u64, u64)> {
    let root = File::open(place).map_err(of("opening", place.as_os_str().as_encoded_bytes()))?;
    let mut walk = Walk::new(OwnedFd::from(root), Globs::default());
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    while let Some(found) = walk.next()? {
        entries = entries.saturating_add(1);
        if let Some(file) = found.file {
            let known = file
                .metadata()
                .map_err(of("looking at", &found.entry.path))?;
            bytes = bytes.saturating_add(known.len());
        }
    }
    Ok((entries, bytes))
}
