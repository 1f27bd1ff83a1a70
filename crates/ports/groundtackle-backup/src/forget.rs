//! Restore points that are offered no more.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bytes_as_text::Hex;
use crate::envelope::{self, Envelope};
use crate::error::{Error, Result};
use crate::keys::SigningKey;
use crate::manifest::{FORMAT, POINTS, of_known_format, point_key};
use crate::repository::{Repository, from_any, verdict};
use crate::target::{ObjectInfo, ObjectKey, PutIf};

/// What the keys of tombstones begin with.
pub(crate) const FORGOTTEN: &str = "forgotten/";

const PAYLOAD_TYPE: &str = "application/vnd.groundtackle.forgotten.v1+json";

/// Says that a restore point is offered no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tombstone {
    format: u32,
    repository: Hex<16>,
    point: Hex<16>,
    /// The restore point's.
    created_unix_millis: u64,
}

/// Where a restore point's tombstone is; none for what is no restore point's key.
pub(crate) fn tombstone_key(point: &ObjectKey) -> Option<ObjectKey> {
    of_key(point)?;
    let name = point.as_str().strip_prefix(POINTS)?;
    format!("{FORGOTTEN}{name}").try_into().ok()
}

/// The other way round.
pub(crate) fn point_of(tombstone: &ObjectKey) -> Option<ObjectKey> {
    let name = tombstone.as_str().strip_prefix(FORGOTTEN)?;
    let point = format!("{POINTS}{name}").try_into().ok()?;
    of_key(&point).map(|_| point)
}

/// What a key of the shape of a restore point's says.
fn of_key(object: &ObjectKey) -> Option<(u64, Hex<16>)> {
    let (created, point) = object.as_str().strip_prefix(POINTS)?.split_once('-')?;
    let (created, point) = (u64::from_str_radix(created, 16).ok()?, point.parse().ok()?);
    let key = point_key(created, &point).ok()?;
    (key == *object).then_some((created, point))
}

impl Repository {
    /// Forgets restore points: they are offered no more, and [`prune`](Self::prune) removes them once nobody can need
    /// them. The way to others may lead over them until then. How many had not been forgotten before.
    ///
    /// **Atomicity**: each for itself. **Idempotency**: yes. **Cancel safety**: repeat it.
    ///
    /// # Errors
    /// `InvalidRequest` for a name that no restore point has, or a signer who is not trusted: nothing is forgotten then.
    /// When the target could not answer.
    pub async fn forget(&self, points: &[Hex<16>], signer: &SigningKey) -> Result<u64> {
        self.expect_trusted(signer)?;
        let mut new = 0_u64;
        for (object, tombstone) in self.named(points).await? {
            let condition = match self.target.info(&object).await? {
                None => PutIf::Absent,
                Some(info) => match verdict(self.tombstone(&object).await)? {
                    Ok(Some(_)) => continue,
                    Ok(None) => PutIf::Absent,
                    // By somebody else, or damaged.
                    Err(_) => PutIf::Unchanged(info.tag),
                },
            };
            let body = envelope::seal(PAYLOAD_TYPE, &tombstone, signer)?;
            let put = self
                .target
                .put(&object, body.into(), &condition, None)
                .await?;
            // Somebody was faster: it counts if it says so.
            if put.is_err() && self.tombstone(&object).await?.is_none() {
                return Err(Error::invalid_request(format!(
                    "{object} is being changed by somebody else: do it again"
                )));
            }
            new = new.saturating_add(1);
        }
        Ok(new)
    }

    /// Offers forgotten restore points again, while they are there. How many were forgotten.
    ///
    /// It is in time as long as a point was not forgotten longer ago than the grace of whoever prunes. After that a prune
    /// under way may remove the point all the same: look for it once that has ended. A tree of files is offered again
    /// within 12 hours: what it uses of others is not safe for longer.
    ///
    /// **Atomicity**: each for itself. **Idempotency**: yes. **Cancel safety**: repeat it.
    ///
    /// # Errors
    /// `InvalidRequest` for a name that no restore point has: it was pruned, or never was; for a tree that was forgotten too
    /// long ago. `Missing` for one that uses what is gone. `Denied` where the target does
    /// not let it be removed. When the target could not answer.
    pub async fn unforget(&self, points: &[Hex<16>]) -> Result<u64> {
        let mut removed = 0_u64;
        for (object, _) in self.named(points).await? {
            if self.target.info(&object).await?.is_none() {
                continue;
            }
            if let Some(point) = point_of(&object)
                && let Ok(Some(manifest)) = verdict(self.point(&point).await)?
                && manifest.content.is_tree()
            {
                self.expect_whole_again(&manifest).await?;
            }
            if self.target.remove(&object).await?.is_err() {
                return Err(Error::Denied {
                    backend: self.target.capabilities().backend,
                    action: format!("removing {object}"),
                });
            }
            removed = removed.saturating_add(1);
        }
        // Those that a prune took meanwhile.
        self.named(points).await?;
        Ok(removed)
    }

    /// The tombstones of restore points of these names, whatever their manifests are like.
    async fn named(&self, points: &[Hex<16>]) -> Result<Vec<(ObjectKey, Tombstone)>> {
        let listed = self.list_all(POINTS).await?;
        let there: std::collections::HashMap<_, _> = listed
            .iter()
            .filter_map(|ObjectInfo { key, .. }| {
                let (created, point) = of_key(key)?;
                Some((point, (tombstone_key(key)?, created)))
            })
            .collect();
        points
            .iter()
            .map(|point| {
                let (object, created_unix_millis) = there.get(point).cloned().ok_or_else(|| {
                    Error::invalid_request(format!("there is no restore point {point}"))
                })?;
                let tombstone = Tombstone {
                    format: FORMAT,
                    repository: self.descriptor.repository,
                    point: *point,
                    created_unix_millis,
                };
                Ok((object, tombstone))
            })
            .collect()
    }

    /// Looks whether a tombstone is one; `None` where there is none.
    pub(crate) async fn tombstone(&self, object: &ObjectKey) -> Result<Option<()>> {
        let read = |body: &Bytes| self.read_tombstone(object, body);
        from_any(&*self.target, &self.events, object, read).await
    }

    fn read_tombstone(&self, object: &ObjectKey, body: &Bytes) -> Result<()> {
        let name = object.as_str();
        let payload = Envelope::read(name, body)?.open(name, PAYLOAD_TYPE, &self.trust.0)?;
        let tombstone: Tombstone = of_known_format(name, &payload)?;
        let point = point_key(tombstone.created_unix_millis, &tombstone.point)?;
        if tombstone.repository != self.descriptor.repository
            || tombstone_key(&point).as_ref() != Some(object)
        {
            return Err(Error::corrupt(name, "it belongs to another restore point"));
        }
        Ok(())
    }
}
