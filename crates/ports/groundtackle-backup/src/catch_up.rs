//! What one of several places missed is copied from the others.

use std::collections::HashSet;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::evidence::DRILLS;
use crate::forget::FORGOTTEN;
use crate::manifest::{Manifest, POINTS, Pack};
use crate::reader::PIECE_BYTES;
use crate::rekey::WRAPPINGS;
use crate::repository::{DESCRIPTOR, LISTED, Repository, verdict, whole};
use crate::several::Member;
use crate::target::{ObjectKey, Outcome, PutIf, Target};

/// What [`Repository::catch_up`] did at one place.
#[derive(Debug)]
#[non_exhaustive]
pub struct CaughtUp {
    /// The place.
    pub place: String,
    /// Restore points that it lacked and has now.
    pub points: u64,
    /// Bytes of packs that were copied.
    pub bytes: u64,
    /// Why it is still behind.
    pub error: Option<Error>,
}

impl Repository {
    /// Brings each of [several](crate::Several) places level: copies the restore points that it lacks, the oldest first, each
    /// manifest after its packs, and what else is signed. Each pack is compared with its manifest on the way. A place that was
    /// empty becomes a copy of the repository. Nothing for a single target.
    ///
    /// Do it before a backup, and while none is sent through this repository.
    ///
    /// **Atomicity**: each object for itself; what a place lists is whole there. **Idempotency**: yes. **Cancel safety**: repeat
    /// it; it goes on.
    ///
    /// # Errors
    /// When too few places answer to know what there is. That one place can't be brought level is in what it returns.
    pub async fn catch_up(&self) -> Result<Vec<CaughtUp>> {
        let points = self.list_all(POINTS).await?;
        let mut all = Vec::new();
        for member in self.target.copies() {
            let mut caught_up = CaughtUp {
                place: member.name().into(),
                points: 0,
                bytes: 0,
                error: None,
            };
            let keys = points.iter().map(|info| &info.key);
            match self.bring_level(member, keys, &mut caught_up).await {
                Ok(()) => member.is_level_now(),
                Err(error) => caught_up.error = Some(error),
            }
            all.push(caught_up);
        }
        Ok(all)
    }

    async fn bring_level(
        &self,
        member: &Member,
        points: impl Iterator<Item = &ObjectKey>,
        done: &mut CaughtUp,
    ) -> Result<()> {
        let descriptor = DESCRIPTOR.try_into()?;
        let own = whole(&**member.target(), &descriptor).await?;
        match own {
            None => self.copy_small(member, &descriptor).await?,
            Some(own) if crate::evidence::sha256(&own) != self.descriptor_sha256 => {
                return Err(Error::invalid_request(format!(
                    "{} has another repository: name an empty place, or the right one",
                    member.name()
                )));
            }
            Some(_) => {}
        }
        // Before the points: what was forgotten is offered at no moment.
        for prefix in [FORGOTTEN, DRILLS, WRAPPINGS] {
            let there = keys_of(&**member.target(), prefix).await?;
            for info in self.list_all(prefix).await? {
                if !there.contains(&info.key) {
                    self.copy_small(member, &info.key).await?;
                }
            }
        }
        let there = keys_of(&**member.target(), POINTS).await?;
        for object in points.filter(|object| !there.contains(*object)) {
            let manifest = match verdict(self.point(object).await)? {
                Ok(Some(manifest)) => manifest,
                // Pruned since.
                Ok(None) => continue,
                Err(error) => return Err(error),
            };
            for pack in &manifest.packs {
                done.bytes = done
                    .bytes
                    .saturating_add(self.copy_pack(member, &manifest, pack).await?);
            }
            self.copy_small(member, object).await?;
            // A prune that did not see it here may have taken it, and its packs.
            if !self.is_elsewhere(member, object).await? {
                let removed = member.target().remove(object).await?;
                removed.map_err(|refused| Error::invalid_request(refused.to_string()))?;
                continue;
            }
            done.points = done.points.saturating_add(1);
        }
        Ok(())
    }

    fn others<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a Member> {
        let copies = self.target.copies().iter();
        copies.filter(|other| other.name() != member.name())
    }

    async fn is_elsewhere(&self, member: &Member, object: &ObjectKey) -> Result<bool> {
        let mut failed = None;
        for other in self.others(member) {
            match other.target().info(object).await {
                Ok(Some(_)) => return Ok(true),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(false), Err)
    }

    /// What is signed; from the first place that has it in a form that can be used.
    async fn copy_small(&self, member: &Member, object: &ObjectKey) -> Result<()> {
        let mut failed = None;
        for other in self.others(member) {
            let body = match whole(&**other.target(), object).await {
                Ok(Some(body)) => body,
                Ok(None) => continue,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            if object.as_str().starts_with(POINTS)
                && let Err(error) = Manifest::read(object.as_str(), &body, &self.trust.0)
            {
                self.events
                    .push(other.name(), format!("copying {object}"), &error);
                failed = Some(error);
                continue;
            }
            let put = member
                .target()
                .put(object, body, &PutIf::Absent, None)
                .await?;
            // Somebody else was faster.
            drop(put);
            return Ok(());
        }
        match failed {
            Some(error) => Err(error),
            // Removed since it was listed.
            None => Ok(()),
        }
    }

    /// How many bytes were sent: none where it is there already.
    async fn copy_pack(&self, member: &Member, manifest: &Manifest, pack: &Pack) -> Result<u64> {
        let key = Pack::key(&pack.id)?;
        if let Some(info) = member.target().info(&key).await? {
            if info.bytes == pack.bytes {
                return Ok(0);
            }
            return Err(Error::corrupt(
                key.as_str(),
                format!(
                    "{} has {} bytes of it, and {} were written",
                    member.name(),
                    info.bytes,
                    pack.bytes
                ),
            ));
        }
        let mut failed = None;
        for other in self.others(member) {
            match send(&**other.target(), &**member.target(), &key, pack).await {
                Ok(Some(Ok(()))) => return Ok(pack.bytes),
                Ok(Some(Err(refused))) => return Err(Error::invalid_request(refused.to_string())),
                Ok(None) => {}
                Err(error) => {
                    self.events
                        .push(other.name(), format!("copying {key}"), &error);
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| crate::reader::missing(key.as_str(), manifest)))
    }
}

/// `None` where it is not there.
async fn send(
    from: &dyn Target,
    to: &dyn Target,
    key: &ObjectKey,
    pack: &Pack,
) -> Result<Option<Outcome<()>>> {
    let mut hasher = Box::<blake3::Hasher>::default();
    let mut upload = None;
    let mut at = 0;
    while at < pack.bytes {
        let end = at.saturating_add(PIECE_BYTES).min(pack.bytes);
        let Some(piece): Option<Bytes> = from.read(key, at..end).await? else {
            return Ok(None);
        };
        hasher.update(&piece);
        let mut open = match upload.take() {
            Some(open) => open,
            None => to.upload(key, None).await?,
        };
        open.write(piece).await?;
        upload = Some(open);
        at = end;
    }
    // What is not finished is no object.
    if hasher.finalize().as_bytes() != &pack.blake3.0 {
        return Err(Error::corrupt(
            key.as_str(),
            "its bytes have another BLAKE3 than those that were written",
        ));
    }
    match upload {
        Some(open) => Ok(Some(open.finish().await?.map(drop))),
        None => Ok(None),
    }
}

async fn keys_of(target: &dyn Target, prefix: &str) -> Result<HashSet<ObjectKey>> {
    let mut keys = HashSet::new();
    let mut after = None;
    loop {
        let page = target.list(prefix, after.as_ref(), LISTED).await?;
        after = page.objects.last().map(|info| info.key.clone());
        keys.extend(page.objects.into_iter().map(|info| info.key));
        if !page.more || after.is_none() {
            return Ok(keys);
        }
    }
}
