//! Backups of one tree.

use std::os::fd::OwnedFd;
use std::path::Path;

use groundtackle_backup::{BackUp, Began, Content, Error, Manifest, Repository, Result, Used};

use crate::config::FilesConfig;
use crate::error::{of, stopped};
use crate::source::{Before, TreeSource};
use crate::state::{NewState, State};
use crate::walk::Walk;

/// Restore points that one of them uses at most; with more, those that are used least are stored anew.
const MAX_USES: usize = 64;

/// What a backup made.
#[derive(Debug)]
#[non_exhaustive]
pub struct Made {
    /// The restore point.
    pub manifest: Manifest,
    /// Files that were read; the others looked as they did at the last backup.
    pub files_read: u64,
    /// Bytes of contents, and of the listing, that no restore point had.
    pub new_bytes: u64,
    /// What is not in it, though it was there: sockets, and what was removed while the tree was read. A hundred at most.
    pub notes: Vec<String>,
}

/// Backups of a directory tree.
#[derive(Clone, Debug)]
pub struct FilesBackup {
    config: FilesConfig,
}

impl FilesBackup {
    /// Of this tree.
    ///
    /// # Errors
    /// `InvalidRequest` for a config without a path, or a glob that is none.
    pub fn new(config: FilesConfig) -> Result<Self> {
        config.check()?;
        config.excluded()?;
        config.may_be_torn()?;
        Ok(Self { config })
    }

    /// Backs up the tree. With the [state](FilesConfig::state) of the last backup, only what no restore point has; `whole`
    /// stores everything anew.
    ///
    /// **Atomicity**, **cancel safety**: see [`Repository::back_up`]. The state is written after the restore point is
    /// listed; without it, or with an older one, more is stored than need be. **Idempotency**: none.
    ///
    /// # Errors
    /// `Incomplete` for a file that changes whenever it is read; it is named. When the tree could not be read, or the target
    /// could not answer. `InvalidRequest` for a stream of another kind.
    pub async fn back_up(
        &self,
        repository: &Repository,
        how: &BackUp<'_>,
        whole: bool,
    ) -> Result<Made> {
        // Before what it uses is looked for.
        let began = repository.begin();
        let state = self.config.state.as_deref();
        let read_all = self.config.read_all;
        let (before, new) = prepare(repository, how.stream, state, whole, read_all).await?;
        let config = self.config.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let root = std::fs::File::open(&config.path);
            root.map_err(of("opening", config.path.as_os_str().as_encoded_bytes()))
        });
        let root = OwnedFd::from(opened.await.map_err(stopped)??);
        let walk = Walk::new(root, self.config.excluded()?);
        let source = TreeSource::of_walk(walk, self.config.may_be_torn()?, before, new);
        make(repository, began, how, source, state).await
    }
}

/// What earlier restore points have, and the state that is to be written.
pub(crate) async fn prepare(
    repository: &Repository,
    stream: &str,
    state: Option<&Path>,
    whole: bool,
    read_all: bool,
) -> Result<(Before, Option<NewState>)> {
    let state = state.map(Path::to_owned);
    let mut before = Before::default();
    if let (Some(path), false) = (&state, whole) {
        let (path, name) = (path.clone(), repository.descriptor().repository);
        let of = stream.to_owned();
        let opened = tokio::task::spawn_blocking(move || State::open(&path, &name, &of));
        if let Some(state) = opened.await.map_err(stopped)?? {
            before = of_state(repository, stream, state, read_all).await?;
        }
    }
    // What it goes on from is a tree.
    if before.uses.is_empty() {
        repository.points().await?.expect_trees(stream)?;
    }
    let made =
        tokio::task::spawn_blocking(move || state.as_deref().map(NewState::create).transpose());
    Ok((before, made.await.map_err(stopped)??))
}

/// Backs up a source to its end, and writes the state.
pub(crate) async fn make(
    repository: &Repository,
    began: Began,
    how: &BackUp<'_>,
    mut source: TreeSource,
    state: Option<&Path>,
) -> Result<Made> {
    let manifest = repository.back_up_begun(began, &mut source, how).await?;
    let done = source.done.ok_or_else(|| Error::Incomplete {
        detail: "the tree was not read to its end".into(),
    })?;
    if let (Some(new), Some(path)) = (done.state, state.map(Path::to_owned)) {
        let of = manifest.clone();
        let kept = tokio::task::spawn_blocking(move || new.commit(&path, &of)).await;
        // The restore point is there; the next one is larger.
        if let Err(error) = kept.map_err(stopped)? {
            tracing::warn!(%error, "the state was not written: the next backup stores more than it need");
        }
    }
    Ok(Made {
        manifest,
        files_read: done.figures.files_read,
        new_bytes: done.figures.new_bytes,
        notes: done.notes,
    })
}

/// What the restore point of a state has, if it may be used.
async fn of_state(
    repository: &Repository,
    stream: &str,
    state: State,
    read_all: bool,
) -> Result<Before> {
    let (point, created) = (state.about.point, state.about.created_unix_millis);
    let there = repository.usable_by_tree(stream, &point, created).await?;
    let Some(newest) = there.last() else {
        tracing::info!(%point, "the last restore point can't be used: everything is stored anew");
        return Ok(Before::default());
    };
    let Content::Tree { number, uses, .. } = &newest.content else {
        return Ok(Before::default());
    };
    let mut uses = uses.clone();
    uses.push(Used {
        number: *number,
        point,
        created_unix_millis: created,
    });
    let read = tokio::task::spawn_blocking(move || {
        let (mut chunks, used) = state.chunks()?;
        if uses.len() > MAX_USES {
            let last = uses.pop();
            let bytes = |used_by: &Used| used.get(&used_by.number).copied().unwrap_or_default();
            uses.sort_by_key(|used| std::cmp::Reverse(bytes(used)));
            uses.truncate(MAX_USES.saturating_sub(1));
            uses.sort_by_key(|used| used.number);
            uses.extend(last);
        }
        chunks.retain(|_, at| uses.iter().any(|used| used.number == at.number));
        let files = match read_all {
            true => None,
            false => Some(state.records()?),
        };
        Ok::<_, Error>(Before {
            uses,
            chunks,
            files,
        })
    });
    read.await.map_err(stopped)?
}
