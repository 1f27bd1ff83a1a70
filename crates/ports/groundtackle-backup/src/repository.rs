//! A repository: restore points on a target.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bytes_as_text::Hex;
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy, unix_millis};
use crate::envelope::{self, Envelope};
use crate::error::{Error, Result};
use crate::evidence::sha256;
use crate::forget::{FORGOTTEN, tombstone_key};
use crate::keys::SigningKey;
use crate::lease::Lease;
use crate::manifest::{FORMAT, MAX_MANIFEST_BYTES, Manifest, POINTS, of_known_format};
use crate::plan::{At, Plan};
use crate::several::{Events, PassedOver};
use crate::target::{ObjectInfo, ObjectKey, PutIf, Target};

/// The object that makes a place a repository.
pub(crate) const DESCRIPTOR: &str = "repository.json";

const DESCRIPTOR_TYPE: &str = "application/vnd.groundtackle.repository.v1+json";

/// Manifests and tombstones that may stay unread, each for as long as a target takes to give up.
const MAX_UNREAD: usize = 8;

/// Objects that are listed at a time.
pub(crate) const LISTED: usize = 1_000;

/// What a repository is for, fixed for its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// The format: 1.
    pub format: u32,
    /// Its name.
    pub repository: Hex<16>,
    /// The network: `main`, `test`, …
    pub network: String,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_millis: u64,
}

/// Whose signatures count. Whoever can write to the target can put another repository there, signed by themselves; so
/// the reader says whom it trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust(pub(crate) Vec<Hex<32>>);

impl Trust {
    /// Those who hold the secret of one of these public keys.
    ///
    /// # Errors
    /// `InvalidRequest` for none: then nothing could be read.
    pub fn new(signers: impl Into<Vec<Hex<32>>>) -> Result<Self> {
        let signers = signers.into();
        if signers.is_empty() {
            return Err(Error::invalid_request(
                "nobody is trusted: name the public key of each host that writes backups",
            ));
        }
        Ok(Self(signers))
    }
}

/// Restore points on a target. Clones share it.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(crate) target: Arc<dyn Target>,
    pub(crate) descriptor: Descriptor,
    /// Of the signed object.
    pub(crate) descriptor_sha256: Hex<32>,
    pub(crate) trust: Trust,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) lease: Option<Arc<Lease>>,
    pub(crate) events: Events,
}

/// What [`Repository::points`] found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Points {
    /// The restore points, oldest first.
    pub usable: Vec<Manifest>,
    /// Those that were forgotten and not removed yet, oldest first. They are not offered; the way to others may lead over
    /// them: see [`plan`](Self::plan).
    pub forgotten: Vec<Manifest>,
    /// Objects in their place that can't be used, and why: damaged, signed by nobody who is trusted, or the target could
    /// not read them, so that what they say is [not known](Error::is_about_data). An object that should say that a point
    /// was forgotten may be among them; the point is usable then.
    pub unusable: Vec<(ObjectKey, Error)>,
}

impl Repository {
    /// Makes a repository where there is none. Nothing in it can be read without the keys of the restore points.
    ///
    /// **Atomicity**: it is there or not. **Idempotency**: none; a second one is refused. **Cancel safety**: open it, and
    /// see.
    ///
    /// # Errors
    /// `InvalidRequest` where there is one. When the target could not answer.
    pub async fn init(
        target: Arc<dyn Target>,
        network: &str,
        signer: &SigningKey,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let mut repository = Hex::default();
        entropy.fill(&mut repository.0)?;
        let descriptor = Descriptor {
            format: FORMAT,
            repository,
            network: network.into(),
            created_unix_millis: unix_millis(clock.now()),
        };
        let body = envelope::seal(DESCRIPTOR_TYPE, &descriptor, signer)?;
        let descriptor_sha256 = sha256(&body);
        let key = DESCRIPTOR.try_into()?;
        let put = target.put(&key, body.into(), &PutIf::Absent, None).await?;
        if put.is_err() {
            return Err(Error::invalid_request(
                "there is a repository already: open it, or name another place",
            ));
        }
        Ok(Self {
            target,
            descriptor,
            descriptor_sha256,
            trust: Trust(vec![signer.public()]),
            clock,
            entropy,
            lease: None,
            events: Events::default(),
        })
    }

    /// Opens the repository that is there, with the system's clock and randomness.
    ///
    /// # Errors
    /// `Missing` where there is none, `Untrusted` where somebody else made it. When the target could not answer.
    pub async fn open(target: Arc<dyn Target>, trust: Trust) -> Result<Self> {
        let events = Events::default();
        let object = DESCRIPTOR.try_into()?;
        let opened = from_any(&*target, &events, &object, |body| {
            let envelope = Envelope::read(DESCRIPTOR, body)?;
            let payload = envelope.open(DESCRIPTOR, DESCRIPTOR_TYPE, &trust.0)?;
            let descriptor: Descriptor = of_known_format(DESCRIPTOR, &payload)?;
            Ok((descriptor, sha256(body)))
        });
        let (descriptor, descriptor_sha256) =
            opened.await?.ok_or_else(|| Error::Missing {
                object: DESCRIPTOR.into(),
                needed_by:
                    "every repository has it: make one first, or look whether the place is right"
                        .into(),
            })?;
        Ok(Self {
            target,
            descriptor,
            descriptor_sha256,
            trust,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            lease: None,
            events,
        })
    }

    /// The same with another clock and other randomness.
    #[must_use]
    pub fn with(mut self, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        self.clock = clock;
        self.entropy = entropy;
        self
    }

    /// What the repository is for.
    pub const fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Reads every manifest, and which of them were forgotten.
    ///
    /// # Errors
    /// When the target could not list them, or could read none of them, or more than 8 not. Otherwise one that can't be used
    /// or read is no error: see [`Points`].
    pub async fn points(&self) -> Result<Points> {
        let mut points = Points::default();
        let mut unread = 0;
        let mut unusable = |points: &mut Points, object, error: Error| {
            unread += usize::from(!error.is_about_data());
            if unread > MAX_UNREAD {
                return Err(error);
            }
            points.unusable.push((object, error));
            Ok(())
        };
        // Before the points: a prune removes the point first, so what is listed without is offered.
        let tombstones: HashSet<_> = self
            .list_all(FORGOTTEN)
            .await?
            .into_iter()
            .map(|info| info.key)
            .collect();
        for info in self.list_all(POINTS).await? {
            let tombstone = tombstone_key(&info.key).filter(|key| tombstones.contains(key));
            let forgotten = match tombstone {
                None => false,
                // Before the point, for the same reason.
                Some(tombstone) => match self.tombstone(&tombstone).await {
                    Ok(forgotten) => forgotten.is_some(),
                    Err(error) => {
                        unusable(&mut points, tombstone, error)?;
                        false
                    }
                },
            };
            match self.point(&info.key).await {
                Ok(Some(manifest)) if forgotten => points.forgotten.push(manifest),
                Ok(Some(manifest)) => points.usable.push(manifest),
                // Removed since it was listed.
                Ok(None) => {}
                Err(error) => unusable(&mut points, info.key, error)?,
            }
        }
        // The target is at fault, rather than some objects.
        let unread = points.unread().next();
        match unread.filter(|_| points.usable.is_empty() && points.forgotten.is_empty()) {
            Some(at) => Err(points.unusable.swap_remove(at).1),
            None => Ok(points),
        }
    }

    /// Every object below a prefix.
    pub(crate) async fn list_all(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let mut all = Vec::<ObjectInfo>::new();
        loop {
            let after = all.last().map(|info| info.key.clone());
            let listing = self.target.list(prefix, after.as_ref(), LISTED).await?;
            let more = listing.more && !listing.objects.is_empty();
            all.extend(listing.objects);
            if !more {
                return Ok(all);
            }
        }
    }

    /// What others sign could not be read again.
    pub(crate) fn expect_trusted(&self, signer: &SigningKey) -> Result<()> {
        match self.trust.0.contains(&signer.public()) {
            true => Ok(()),
            false => Err(Error::invalid_request(format!(
                "the signer {} is not among those trusted: what it writes could not be read again",
                signer.public()
            ))),
        }
    }

    /// Reads one manifest; `None` where there is none.
    ///
    /// # Errors
    /// `Corrupt`, `Untrusted`, `NewerFormat`. When the target could not answer.
    pub async fn point(&self, object: &ObjectKey) -> Result<Option<Manifest>> {
        let read = |body: &Bytes| self.manifest(object, body);
        from_any(&*self.target, &self.events, object, read).await
    }

    fn manifest(&self, object: &ObjectKey, body: &Bytes) -> Result<Manifest> {
        let manifest = Manifest::read(object.as_str(), body, &self.trust.0)?;
        if manifest.repository != self.descriptor.repository {
            return Err(Error::corrupt(
                object.as_str(),
                "it belongs to another repository",
            ));
        }
        if manifest.network != self.descriptor.network {
            return Err(Error::corrupt(
                object.as_str(),
                "it is of another network than its repository",
            ));
        }
        Ok(manifest)
    }

    /// What one of [several](crate::Several) places could not do, lacks or has damaged, where others made up for it, since it
    /// was asked last: of each kind the newest 1,000. Clones share it.
    pub fn passed_over(&self) -> Vec<PassedOver> {
        let mut passed = match self.target.copies().first() {
            Some(copy) => copy.events().take(),
            None => Vec::new(),
        };
        passed.extend(self.events.take());
        passed
    }
}

impl Points {
    /// Where among the unusable ones those are of which nothing is known.
    fn unread(&self) -> impl Iterator<Item = usize> {
        let numbered = (0..).zip(&self.unusable);
        numbered.filter_map(|(at, (_, error))| (!error.is_about_data()).then_some(at))
    }

    /// The same of one that may be a restore point made later than all usable ones of a stream.
    fn later_unread(&self, stream: &str) -> Option<usize> {
        let mine = self.usable.iter().filter(|point| point.stream == stream);
        let last = mine.filter_map(|point| point.object().ok()).max();
        self.unread().find(|at| {
            let unread = self.unusable.get(*at).map(|(object, _)| object);
            unread > last.as_ref()
        })
    }

    /// For whoever goes on from the last restore point of a stream.
    ///
    /// # Errors
    /// That of an object that could not be read, and may be a later one.
    pub fn expect_last(&mut self, stream: &str) -> Result<()> {
        let later = self.later_unread(stream);
        match later {
            Some(at) => Err(self.unusable.swap_remove(at).1),
            None => Ok(()),
        }
    }

    /// For whoever backs up coins.
    ///
    /// # Errors
    /// `InvalidRequest` for a stream of trees of files.
    pub fn expect_coins(&self, stream: &str) -> Result<()> {
        self.expect_kind(stream, false)
    }

    /// For whoever backs up a tree of files.
    ///
    /// # Errors
    /// `InvalidRequest` for a stream of coins.
    pub fn expect_trees(&self, stream: &str) -> Result<()> {
        self.expect_kind(stream, true)
    }

    fn expect_kind(&self, stream: &str, tree: bool) -> Result<()> {
        let mut all = self.usable.iter().chain(&self.forgotten);
        let other = all.find(|point| point.stream == stream && point.content.is_tree() != tree);
        let Some(other) = other else { return Ok(()) };
        let (holds, wanted) = match tree {
            true => ("a set of coins", "a tree of files"),
            false => ("a tree of files", "a set of coins"),
        };
        Err(Error::invalid_request(format!(
            "restore point {} of the stream {stream} holds {holds}, and {wanted} is to be backed up: name another stream \
             for it",
            other.point
        )))
    }

    /// The restore point of a stream that was made last.
    pub fn latest(&self, stream: &str) -> Option<&Manifest> {
        let mine = self.usable.iter().filter(|point| point.stream == stream);
        mine.max_by_key(|point| {
            let height = point.content.position().map(|position| position.height);
            (point.created_unix_millis, height)
        })
    }

    /// Why the latest restore point of a stream is not known, if it is not.
    pub(crate) fn in_doubt(&self, stream: &str) -> Option<Error> {
        self.later_unread(stream).and_then(|at| self.not_known(at))
    }

    fn not_known(&self, unread: usize) -> Option<Error> {
        let (object, error) = self.unusable.get(unread)?;
        Some(Error::Unreachable {
            what: format!(
                "which restore point is meant is not known, since {object} could not be read ({error}): name a block by \
                 its hash, or a restore point, or try again"
            ),
        })
    }

    /// As [`Plan::find`] by what is usable; where that does not lead there, by way of what was forgotten and is still
    /// there. The last restore point is none of the latter.
    ///
    /// # Errors
    /// `Unreachable` where there is no way; it says what can be reached. Also where what is asked for depends on an object
    /// that could not be read: for the latest, one that may be later; for a height, any. A block that is named does not.
    pub fn plan(&self, stream: &str, at: At) -> Result<Plan> {
        let in_doubt = match at {
            At::Latest => self.later_unread(stream),
            At::Height(_) => self.unread().next(),
            At::Block(_) => None,
        };
        if let Some(unread) = in_doubt.and_then(|at| self.not_known(at)) {
            return Err(unread);
        }
        match Plan::find(&self.usable, stream, at) {
            Err(Error::Unreachable { .. }) if !self.forgotten.is_empty() => {
                Plan::by_way_of(&self.usable, &self.forgotten, stream, at)
            }
            found => found,
        }
    }
}

/// What is wrong with an object itself, apart from what kept it from being read.
pub(crate) fn verdict<T>(read: Result<T>) -> Result<Result<T>> {
    match read {
        Err(error) if error.is_about_data() => Ok(Err(error)),
        read => read.map(Ok),
    }
}

/// What `read` makes of a small object, from the first of several places where it can be used.
pub(crate) async fn from_any<T>(
    target: &dyn Target,
    events: &Events,
    object: &ObjectKey,
    read: impl Fn(&Bytes) -> Result<T>,
) -> Result<Option<T>> {
    let (mut failed, mut places) = (Vec::new(), Vec::new());
    for copy in target.copies() {
        places.push((copy.name(), &**copy.target()));
    }
    if places.is_empty() {
        places.push(("", target));
    }
    for (name, place) in places {
        let body = match whole(place, object).await {
            Ok(None) => continue,
            body => body,
        };
        match body.and_then(|body| read(&body.unwrap_or_default())) {
            Ok(found) => {
                for (name, error) in failed {
                    events.push(name, format!("reading {object}"), &error);
                }
                return Ok(Some(found));
            }
            Err(error) => failed.push((name, error)),
        }
    }
    match failed.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(None),
    }
}

/// A small object, all of it.
pub(crate) async fn whole(target: &dyn Target, key: &ObjectKey) -> Result<Option<Bytes>> {
    let Some(info) = target.info(key).await? else {
        return Ok(None);
    };
    if info.bytes > MAX_MANIFEST_BYTES {
        return Err(Error::corrupt(
            key.as_str(),
            format!("it has {} bytes", info.bytes),
        ));
    }
    target.read(key, 0..info.bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let read = |payload: &str| of_known_format::<Descriptor>(DESCRIPTOR, payload.as_bytes());
        let newer = read(r#"{"format":2,"purpose":"what nobody knows yet"}"#);
        assert!(matches!(newer, Err(Error::NewerFormat { found: 2, .. })));
        let known = r#""repository":"00000000000000000000000000000000","network":"main","created_unix_millis":0"#;
        assert!(read(&format!(r#"{{"format":1,{known}}}"#)).is_ok());
        for damaged in [
            format!(r#"{{"format":0,{known}}}"#),
            format!(r#"{{"format":1,"other":2,{known}}}"#),
            format!("{{{known}}}"),
        ] {
            assert!(matches!(read(&damaged), Err(Error::Corrupt { .. })));
        }
    }
}
