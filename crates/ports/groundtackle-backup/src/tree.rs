//! Restore points of trees of files: which may be used by later ones, and how to read them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::bytes_as_text::Hex;
use crate::error::{Error, Result};
use crate::forget::tombstone_key;
use crate::keys::KeyUnwrapping;
use crate::manifest::{Content, Manifest, Pack, point_key};
use crate::prune::PACKS;
use crate::reader::OpenPoint;
use crate::repository::{Points, Repository, verdict};
use crate::source::Segment;

/// How long after it was forgotten a tree is offered again: half of what a prune waits before it removes what it used.
const UNFORGET_LIMIT: Duration = Duration::from_secs(12 * 60 * 60);

/// Which tree to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeAt {
    /// The one made last.
    Latest,
    /// That of this restore point.
    Point(Hex<16>),
}

/// A restore point of a tree and those that it uses, opened: the segments of all of them.
#[derive(Debug)]
pub struct TreeReader {
    own: OpenPoint,
    number: u32,
    used: HashMap<u32, OpenPoint>,
}

impl Points {
    /// A tree of a stream, among those that are offered.
    ///
    /// # Errors
    /// `Unreachable` where there is none; for the latest, also where an object could not be read that may be later.
    pub fn tree(&self, stream: &str, at: TreeAt) -> Result<&Manifest> {
        if at == TreeAt::Latest
            && let Some(unread) = self.in_doubt(stream)
        {
            return Err(unread);
        }
        let trees = self.usable.iter().filter(|point| point.stream == stream);
        let mut trees = trees.filter(|point| point.content.is_tree());
        let found = match at {
            TreeAt::Latest => trees.max_by_key(|point| point.created_unix_millis),
            TreeAt::Point(name) => trees.find(|point| point.point == name),
        };
        found.ok_or_else(|| Error::Unreachable {
            what: match at {
                TreeAt::Latest => format!("there is no restore point of a tree of {stream:?}"),
                TreeAt::Point(name) => {
                    format!("there is no restore point {name} of a tree of {stream:?}")
                }
            },
        })
    }

    /// The names of all restore points without which this one can't be restored, itself among them.
    ///
    /// # Errors
    /// `Unreachable` where no base leads to its block. `Missing` where a tree uses a point that is not there.
    pub fn needs(&self, point: &Manifest) -> Result<Vec<Hex<16>>> {
        if let Some(end) = point.content.position() {
            return Ok(self
                .plan(&point.stream, crate::At::Block(end.hash))?
                .points());
        }
        let mut needs = vec![point.point];
        for used in point.content.uses() {
            let mut there = self.usable.iter().chain(&self.forgotten);
            if !there.any(|other| other.point == used.point) {
                return Err(missing(used.object()?.as_str(), point));
            }
            needs.push(used.point);
        }
        Ok(needs)
    }
}

fn missing(object: &str, user: &Manifest) -> Error {
    Error::Missing {
        object: object.into(),
        needed_by: format!("restore point {} uses its segments", user.point),
    }
}

impl Repository {
    /// What a new restore point of a tree may use: this one and those that it uses itself, if it is offered and all of
    /// their objects are there, as long as they were; otherwise nothing. To be called after [`begin`](Self::begin): what is
    /// offered then lives for every prune until the backup has committed or given up (`docs/adr/0007-pruning.md`).
    ///
    /// # Errors
    /// When the target could not answer.
    pub async fn usable_by_tree(
        &self,
        stream: &str,
        point: &Hex<16>,
        created_unix_millis: u64,
    ) -> Result<Vec<Manifest>> {
        let object = point_key(created_unix_millis, point)?;
        let forgotten = match tombstone_key(&object) {
            Some(tombstone) => self.target.info(&tombstone).await?.is_some(),
            None => true,
        };
        let Ok(Some(newest)) = verdict(self.point(&object).await)? else {
            return Ok(Vec::new());
        };
        if forgotten || newest.stream != stream || !newest.content.is_tree() {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for used in newest.content.uses() {
            match verdict(self.point(&used.object()?).await)? {
                Ok(Some(used)) if used.content.is_tree() => all.push(used),
                _ => return Ok(Vec::new()),
            }
        }
        all.push(newest);
        let listed = self.list_all(PACKS).await?;
        let listed: HashSet<_> = listed.iter().map(|info| (&info.key, info.bytes)).collect();
        for pack in all.iter().flat_map(|point| &point.packs) {
            if !listed.contains(&(&Pack::key(&pack.id)?, pack.bytes)) {
                return Ok(Vec::new());
            }
        }
        Ok(all)
    }

    /// Looks once more whether what a new restore point uses is there.
    pub(crate) async fn expect_used(&self, content: &Content) -> Result<()> {
        for used in content.uses() {
            let object = used.object()?;
            if self.target.info(&object).await?.is_none() {
                return Err(Error::Incomplete {
                    detail: format!("{object}, whose segments it uses, was removed meanwhile"),
                });
            }
        }
        Ok(())
    }

    /// Opens a restore point of a tree, and those that it uses. Memory: all of their indexes, some 300 bytes for each
    /// 4 MiB.
    ///
    /// # Errors
    /// `InvalidRequest` for a set of coins. `Missing`, `Corrupt`, `WrongKey`. When the target could not answer.
    pub async fn open_tree(
        &self,
        manifest: &Manifest,
        keys: &dyn KeyUnwrapping,
    ) -> Result<TreeReader> {
        let Content::Tree { number, uses, .. } = &manifest.content else {
            return Err(Error::invalid_request(format!(
                "restore point {} is a set of coins, no tree of files",
                manifest.point
            )));
        };
        let mut used = HashMap::new();
        for other in uses {
            let object = other.object()?;
            let there = self.point(&object).await?;
            let there = there.ok_or_else(|| missing(object.as_str(), manifest))?;
            if !there.content.is_tree() || there.stream != manifest.stream {
                return Err(Error::corrupt(
                    manifest.object()?.as_str(),
                    format!("it uses {object}, which is of another kind or stream"),
                ));
            }
            used.insert(other.number, self.open_point(&there, keys).await?);
        }
        Ok(TreeReader {
            own: self.open_point(manifest, keys).await?,
            number: *number,
            used,
        })
    }

    /// Whether a forgotten tree is whole, and stays so if it is offered again: what it used goes before it does, if
    /// that was forgotten as well.
    pub(crate) async fn expect_whole_again(&self, manifest: &Manifest) -> Result<()> {
        let Some(tombstone) = tombstone_key(&manifest.object()?) else {
            return Ok(());
        };
        let Some(info) = self.target.info(&tombstone).await? else {
            return Ok(());
        };
        let now = self.target_now(&mut crate::Pruned::default()).await?;
        let age = now.duration_since(info.written).unwrap_or_default();
        if age >= UNFORGET_LIMIT {
            return Err(Error::invalid_request(format!(
                "restore point {} was forgotten more than 12 hours ago, and what it uses of others may be removed any \
                 moment: it can't be offered again; make a new one",
                manifest.point
            )));
        }
        for used in manifest.content.uses() {
            let object = used.object()?;
            if self.target.info(&object).await?.is_none() {
                return Err(missing(object.as_str(), manifest));
            }
        }
        Ok(())
    }
}

impl TreeReader {
    /// The segment to begin with: the last one of its own.
    ///
    /// # Errors
    /// `Corrupt` where there is none. When the target could not answer.
    pub async fn root(&self) -> Result<Segment> {
        let last = self
            .own
            .entries
            .last()
            .ok_or_else(|| self.lacks("a root"))?;
        self.own.segment(last.clone()).await
    }

    /// A segment of the restore point of this number.
    ///
    /// # Errors
    /// `Corrupt` where there is none. When the target could not answer.
    pub async fn segment(&self, number: u32, ordinal: u64) -> Result<Segment> {
        let point = match number == self.number {
            true => Some(&self.own),
            false => self.used.get(&number),
        };
        let entry = point.and_then(|point| {
            let at = usize::try_from(ordinal).ok()?;
            Some((point, point.entries.get(at)?))
        });
        let (point, entry) =
            entry.ok_or_else(|| self.lacks(&format!("segment {ordinal} of number {number}")))?;
        point.segment(entry.clone()).await
    }

    /// What the restore point says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.own.manifest
    }

    fn lacks(&self, what: &str) -> Error {
        let object = self.own.manifest.object();
        let object = object.map(|key| key.to_string()).unwrap_or_default();
        Error::corrupt(object, format!("it has not {what}, and needs it"))
    }
}
