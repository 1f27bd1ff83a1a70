//! New wrappings of the data keys of restore points: for others to read, without the data being written again.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bytes_as_text::Hex;
use crate::clock::unix_millis;
use crate::envelope::{self, Envelope};
use crate::error::{Error, Result};
use crate::keys::{KeyUnwrapping, KeyWrapping, SigningKey, WrappedKey};
use crate::manifest::{FORMAT, Manifest, POINTS, of_known_format};
use crate::repository::{Repository, from_any, verdict};
use crate::target::{ObjectKey, PutIf};

/// What all of their keys begin with.
pub(crate) const WRAPPINGS: &str = "keys/";

const PAYLOAD_TYPE: &str = "application/vnd.groundtackle.wrapping.v1+json";

/// A data key, wrapped anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wrapping {
    format: u32,
    repository: Hex<16>,
    point: Hex<16>,
    /// The restore point's.
    created_unix_millis: u64,
    id: Hex<16>,
    wrapped_unix_millis: u64,
    key: WrappedKey,
}

/// What the keys of a restore point's wrappings begin with.
fn prefix(created_unix_millis: u64, point: &Hex<16>) -> String {
    format!("{WRAPPINGS}{created_unix_millis:016x}-{point}/")
}

impl Wrapping {
    /// In the order of keys, they are in that of time.
    fn object(&self) -> Result<ObjectKey> {
        let of_point = prefix(self.created_unix_millis, &self.point);
        format!("{of_point}{:016x}-{}", self.wrapped_unix_millis, self.id).try_into()
    }
}

/// The restore point's object that a wrapping belongs to.
pub(crate) fn point_of_wrapping(object: &ObjectKey) -> Option<ObjectKey> {
    let (point, _) = object.as_str().strip_prefix(WRAPPINGS)?.split_once('/')?;
    format!("{POINTS}{point}").try_into().ok()
}

impl Repository {
    /// Lets others read a restore point: wraps its data key to them, as a new signed object. No data is written again, and
    /// the manifest stays as it is, with the first wrapping in it: whoever had an identity for that can open it for as
    /// long as the manifest is there. Only a new backup, under a new data key, is out of their reach.
    ///
    /// **Atomicity**: it is there or not. **Idempotency**: none; each call adds one. **Cancel safety**: look.
    ///
    /// # Errors
    /// `WrongKey` where `keys` do not open it; `Corrupt` where what they open is not the key to its data. `InvalidRequest` for a
    /// signer who is not trusted. When the target could not answer.
    pub async fn rekey(
        &self,
        manifest: &Manifest,
        keys: &dyn KeyUnwrapping,
        wrapping: &dyn KeyWrapping,
        signer: &SigningKey,
    ) -> Result<ObjectKey> {
        self.expect_trusted(signer)?;
        let (_, data_key) = self.open_with_key(manifest, keys).await?;
        let newest = self.wrappings(manifest).await?.into_iter().next();
        let mut id = Hex::default();
        self.entropy.fill(&mut id.0)?;
        let mut new = Wrapping {
            format: FORMAT,
            repository: self.descriptor.repository,
            point: manifest.point,
            created_unix_millis: manifest.created_unix_millis,
            id,
            wrapped_unix_millis: unix_millis(self.clock.now()),
            key: wrapping.wrap(&data_key)?,
        };
        // Also where another host's clock is ahead.
        if let Some((_, newest)) = newest {
            let after = newest.wrapped_unix_millis.saturating_add(1);
            new.wrapped_unix_millis = new.wrapped_unix_millis.max(after);
        }
        let object = new.object()?;
        let body = envelope::seal(PAYLOAD_TYPE, &new, signer)?;
        let put = self.target.put(&object, body.into(), &PutIf::Absent, None);
        match put.await? {
            Ok(_) => Ok(object),
            Err(refused) => Err(Error::invalid_request(format!(
                "{refused}, and its name was drawn at random"
            ))),
        }
    }

    /// Those to whom the data key of a restore point is wrapped: by its newest wrapping, or the manifest.
    ///
    /// # Errors
    /// When the target could not answer.
    pub async fn readers(&self, manifest: &Manifest) -> Result<Vec<String>> {
        let newest = self.wrappings(manifest).await?.into_iter().next();
        Ok(match newest {
            Some((_, wrapping)) => wrapping.key.recipients,
            None => manifest.key.recipients.clone(),
        })
    }

    /// Removes all but the newest wrapping of a restore point. How many there were. The one in the manifest stays.
    ///
    /// **Atomicity**: each for itself. **Idempotency**: yes. **Cancel safety**: repeat it.
    ///
    /// # Errors
    /// `WrongKey` where `keys` do not open the newest one: then nothing is removed. `Denied` where the target keeps one. When
    /// the target could not answer.
    pub async fn remove_old_wrappings(
        &self,
        manifest: &Manifest,
        keys: &dyn KeyUnwrapping,
    ) -> Result<u64> {
        let mut wrappings = self.wrappings(manifest).await?.into_iter();
        let Some((newest, wrapping)) = wrappings.next() else {
            return Ok(0);
        };
        let opened = keys.unwrap(&wrapping.key)?;
        let opened = opened.ok_or_else(|| Error::WrongKey {
            object: newest.to_string(),
            recipients: wrapping.key.recipients.join(", "),
        })?;
        self.open_by(manifest, &opened).await?;
        let mut removed = 0_u64;
        for (object, _) in wrappings {
            if self.target.remove(&object).await?.is_err() {
                return Err(Error::Denied {
                    backend: self.target.capabilities().backend,
                    action: format!("removing {object}"),
                });
            }
            removed = removed.saturating_add(1);
        }
        Ok(removed)
    }

    /// All wrapped forms of its key, in the order in which to try them.
    pub(crate) async fn wrapped_keys(&self, manifest: &Manifest) -> Result<Vec<WrappedKey>> {
        let wrappings = self.wrappings(manifest).await?.into_iter();
        let mut all: Vec<_> = wrappings.map(|(_, wrapping)| wrapping.key).collect();
        all.push(manifest.key.clone());
        Ok(all)
    }

    /// Those by somebody who is trusted, the newest first.
    async fn wrappings(&self, manifest: &Manifest) -> Result<Vec<(ObjectKey, Wrapping)>> {
        let mut all = Vec::new();
        let prefix = prefix(manifest.created_unix_millis, &manifest.point);
        for info in self.list_all(&prefix).await?.into_iter().rev() {
            let read = |body: &Bytes| self.read_wrapping(&info.key, body, manifest);
            match verdict(from_any(&*self.target, &self.events, &info.key, read).await)? {
                Ok(Some(wrapping)) => all.push((info.key, wrapping)),
                Ok(None) => {}
                // Anybody who can write could stop every restore otherwise.
                Err(error) => self
                    .events
                    .push("", format!("reading {}", info.key), &error),
            }
        }
        Ok(all)
    }

    fn read_wrapping(
        &self,
        object: &ObjectKey,
        body: &Bytes,
        manifest: &Manifest,
    ) -> Result<Wrapping> {
        let name = object.as_str();
        let payload = Envelope::read(name, body)?.open(name, PAYLOAD_TYPE, &self.trust.0)?;
        let wrapping: Wrapping = of_known_format(name, &payload)?;
        let here = wrapping.object()? == *object
            && wrapping.point == manifest.point
            && wrapping.repository == self.descriptor.repository;
        match here {
            true => Ok(wrapping),
            false => Err(Error::corrupt(name, "it belongs to another restore point")),
        }
    }
}
