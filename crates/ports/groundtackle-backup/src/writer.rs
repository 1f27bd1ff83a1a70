//! From a source into the repository.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::bytes_as_text::Hex;
use crate::clock::unix_millis;
use crate::error::{Error, Result};
use crate::evidence::TOOL;
use crate::keys::{DataKey, KeyWrapping, Seal, SigningKey};
use crate::lease::Turn;
use crate::manifest::{
    Content, FORMAT, MAX_MANIFEST_BYTES, Manifest, POINTS, Pack, Place, Position, SetSummary,
    points_since,
};
use crate::reader::check_heights;
use crate::repository::{LISTED, Repository, verdict};
use crate::source::{Segment, SegmentEntry, SegmentInfo, SegmentWork, Source};
use crate::target::{ObjectKey, PutIf, Refused, Upload};

/// What packs begin with.
pub(crate) const PACK_MAGIC: &[u8; 8] = b"GTPACK\x001";

/// What a pack is worth beginning a new one for, in bytes.
const PACK_BYTES: u64 = 96 << 20;

/// Segments that are ready, or on their way to that, beside those that are worked on.
const AHEAD: usize = 2;

/// Entries of one segment of the index.
pub(crate) const INDEX_ENTRIES: usize = 4_096;

/// The codec of the index's segments.
pub(crate) const INDEX_CODEC: &str = "index.1";

/// How long a backup may take, from [`Repository::begin`] to its commit. Whatever prunes waits longer before it removes
/// what no manifest names ([`MIN_GRACE`](crate::MIN_GRACE)).
pub const WRITER_LIMIT: Duration = Duration::from_secs(12 * 60 * 60);

/// When a backup began.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    wall: SystemTime,
    /// The wall clock may be set back, and this one may stand still while the machine sleeps.
    monotonic: Instant,
}

impl Began {
    fn check(&self, wall: SystemTime, monotonic: Instant) -> Result<()> {
        let wall = wall.duration_since(self.wall).unwrap_or_default();
        let monotonic = monotonic.saturating_duration_since(self.monotonic);
        match wall.max(monotonic) <= WRITER_LIMIT {
            true => Ok(()),
            false => Err(Error::TooSlow {
                hours: WRITER_LIMIT.as_secs() / 3_600,
            }),
        }
    }
}

/// How to back up.
#[derive(Debug)]
pub struct BackUp<'a> {
    /// What is backed up, as the repository's owner calls it: a word.
    pub stream: &'a str,
    /// Who will be able to read it.
    pub wrapping: &'a dyn KeyWrapping,
    /// Who says that it is so.
    pub signer: &'a SigningKey,
    /// Segments encoded and sealed at a time, each on a thread of its own.
    pub workers: usize,
}

type Sealed = (SegmentInfo, u64, Hex<32>, Vec<u8>);

impl Repository {
    /// Begins a backup. Whoever looks which restore points there are, to go on from one of them, calls this before.
    pub fn begin(&self) -> Began {
        Began {
            wall: self.clock.now(),
            monotonic: Instant::now(),
        }
    }

    /// [`back_up_begun`](Self::back_up_begun), beginning now: for what goes on from no other restore point.
    ///
    /// # Errors
    /// As there.
    pub async fn back_up(&self, source: &mut dyn Source, how: &BackUp<'_>) -> Result<Manifest> {
        self.back_up_begun(self.begin(), source, how).await
    }

    /// Backs up a source: a new restore point, once everything is on the target and the source has said that it was
    /// whole. It is made later than each one that is there of its stream, also where the clock is behind another host's.
    ///
    /// **Atomicity**: the restore point is listed as a whole, or not at all; what was sent without coming so far is in
    /// nobody's way. **Idempotency**: none; each call makes another point. **Cancel safety**: nothing is listed, or all
    /// is: look. Memory: `workers` + 4 segments and what the target holds on its way.
    ///
    /// # Errors
    /// The first one of source or target ends it. `Incomplete` when the source does not have what it said. `TooSlow` after
    /// [`WRITER_LIMIT`], `LeaseLost` after the end of a turn that it is done [under](Self::under).
    pub async fn back_up_begun(
        &self,
        began: Began,
        source: &mut dyn Source,
        how: &BackUp<'_>,
    ) -> Result<Manifest> {
        self.write(began, source, how, None).await
    }

    /// Backs up another form of what a restore point leads to: the same set at the same block, as a base or as longer
    /// changes. It gets the time of that restore point, so that it is never the latest in place of one made since.
    ///
    /// **Atomicity**, **idempotency**, **cancel safety**, memory: as [`back_up_begun`](Self::back_up_begun).
    ///
    /// # Errors
    /// As there. `Incomplete` when the source leads elsewhere.
    pub async fn back_up_instead_of(
        &self,
        point: &Manifest,
        source: &mut dyn Source,
        how: &BackUp<'_>,
    ) -> Result<Manifest> {
        if point.stream != how.stream {
            return Err(Error::invalid_request(format!(
                "restore point {} is of the stream {}, and not of {}",
                point.point, point.stream, how.stream
            )));
        }
        self.write(self.begin(), source, how, Some(point)).await
    }

    async fn write(
        &self,
        began: Began,
        source: &mut dyn Source,
        how: &BackUp<'_>,
        instead_of: Option<&Manifest>,
    ) -> Result<Manifest> {
        self.expect_trusted(how.signer)?;
        let mut point = Hex::default();
        self.entropy.fill(&mut point.0)?;
        let data_key = DataKey::random(&*self.entropy)?;
        let key = how.wrapping.wrap(&data_key)?;
        let seal = Arc::new(Seal::new(&data_key, self.descriptor.repository, point));
        drop(data_key);

        let turn = Turn::back_up(how.stream);
        let workers = how.workers.max(1);
        let mut packs = Packs::new(self);
        let mut entries = Vec::new();
        let (mut items, mut encoded_bytes) = (0_u64, 0_u64);
        // In order, whichever is ready first. The target takes segments while the source gives others.
        let (sender, mut under_way) =
            mpsc::channel::<JoinHandle<Result<Sealed>>>(workers.saturating_add(AHEAD));
        let encode = async {
            let sender = sender;
            let threads = Arc::new(Semaphore::new(workers));
            for ordinal in 0_u64.. {
                began.check(self.clock.now(), Instant::now())?;
                let fencing = self.fencing(&turn)?;
                let Some(work) = source.next().await? else {
                    return Ok((fencing, ordinal));
                };
                let thread = threads.clone().acquire_owned().await.ok();
                let seal = seal.clone();
                let sealing = tokio::task::spawn_blocking(move || {
                    let sealed = sealed(work, &seal, ordinal);
                    drop(thread);
                    sealed
                });
                // Its other end is there until this one is done, or both are dropped.
                sender.send(sealing).await.ok();
            }
            Err(Error::invalid_request("a source without an end"))
        };
        let send = async {
            while let Some(sealing) = under_way.recv().await {
                let (info, length, blake3, bytes) = sealing.await.map_err(stopped)??;
                let place = packs.push(entries.len() as u64, bytes).await?;
                items = items.saturating_add(info.items);
                encoded_bytes = encoded_bytes.saturating_add(length);
                entries.push(SegmentEntry {
                    info,
                    place,
                    blake3,
                });
            }
            Ok(())
        };
        let ((fencing, mut ordinal), ()) = tokio::try_join!(encode, send)?;
        let end = source.finish().await?;
        // What it says is so now; the commit may take a while.
        let created_unix_millis = unix_millis(self.clock.now());
        if end.items != items {
            return Err(Error::Incomplete {
                detail: format!("it says that it has {} items, and gave {items}", end.items),
            });
        }
        if end.content.position().is_none() && !end.content.is_tree() {
            return Err(Error::Incomplete {
                detail: "it has no block".into(),
            });
        }
        // What would be refused must not be listed.
        check_heights(&end.content, &entries).map_err(|detail| Error::Incomplete {
            detail: detail.into(),
        })?;
        self.expect_used(&end.content).await?;
        let same = |point: &Manifest| end_of(&point.content) == end_of(&end.content);
        if !instead_of.is_none_or(same) {
            return Err(Error::Incomplete {
                detail: "it leads to another set than the restore point whose place it is to take"
                    .into(),
            });
        }
        let mut index = Vec::new();
        for part in entries.chunks(INDEX_ENTRIES) {
            let mut bytes = serde_json::to_vec(part)
                .map_err(|error| Error::invalid_request(error.to_string()))?;
            seal.seal(ordinal, INDEX_CODEC, &mut bytes)?;
            index.push(packs.push(ordinal, bytes).await?);
            ordinal = ordinal.saturating_add(1);
        }
        let packs = packs.finish().await?;
        let created_unix_millis = match instead_of {
            Some(point) => point.created_unix_millis,
            None => self.later_than_all(how.stream, created_unix_millis).await?,
        };
        let manifest = Manifest {
            format: FORMAT,
            repository: self.descriptor.repository,
            point,
            stream: how.stream.into(),
            network: self.descriptor.network.clone(),
            created_unix_millis,
            tool: TOOL.into(),
            content: end.content,
            key,
            packs,
            segments: entries.len() as u64,
            items,
            encoded_bytes,
            index,
            fencing,
        };
        self.commit(began, &manifest, how.signer).await?;
        Ok(manifest)
    }

    /// `now`, or a moment after the last restore point of a stream.
    async fn later_than_all(&self, stream: &str, now: u64) -> Result<u64> {
        let mut after = points_since(now)?;
        let mut later = Vec::new();
        loop {
            let listing = self.target.list(POINTS, Some(&after), LISTED).await?;
            later.extend(listing.objects.into_iter().map(|info| info.key));
            match later.last() {
                Some(last) if listing.more => after = last.clone(),
                _ => break,
            }
        }
        // None, but where clocks differ.
        for object in later.into_iter().rev() {
            // What nobody signed can't move the time.
            if let Ok(Some(point)) = verdict(self.point(&object).await)?
                && point.stream == stream
            {
                return Ok(now.max(point.created_unix_millis.saturating_add(1)));
            }
        }
        Ok(now)
    }

    async fn commit(&self, began: Began, manifest: &Manifest, signer: &SigningKey) -> Result<()> {
        let object = manifest.object()?;
        let body = manifest.sign(signer)?;
        // What can't be read again must not be listed.
        if body.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Error::invalid_request(format!(
                "the restore point takes a manifest of {} bytes, and {MAX_MANIFEST_BYTES} is the most: it has too many \
                 blocks or segments",
                body.len()
            )));
        }
        Manifest::read(object.as_str(), &body, &self.trust.0)?;
        self.check_lease(&Turn::back_up(&manifest.stream)).await?;
        began.check(self.clock.now(), Instant::now())?;
        let put = self
            .target
            .put(&object, Bytes::from(body), &PutIf::Absent, None)
            .await?;
        match put {
            Ok(_) => Ok(()),
            Err(refused) => Err(name_taken(refused)),
        }
    }
}

/// What must be the same of two forms of one set.
fn end_of(content: &Content) -> (&Hex<16>, Option<&Position>, Option<&SetSummary>) {
    (content.epoch(), content.position(), content.set())
}

/// Names are random.
fn name_taken(refused: Refused) -> Error {
    Error::invalid_request(format!(
        "{refused}, and its name was drawn at random: the randomness is not"
    ))
}

pub(crate) fn stopped(error: tokio::task::JoinError) -> Error {
    Error::backend(
        "the process",
        "work on a segment",
        groundtackle_core::Retryability::Permanent,
        error,
    )
}

fn sealed(work: SegmentWork, seal: &Seal, ordinal: u64) -> Result<Sealed> {
    let Segment { info, mut bytes } = work()?;
    let (length, blake3) = (bytes.len() as u64, Hex(*blake3::hash(&bytes).as_bytes()));
    seal.seal(ordinal, &info.codec, &mut bytes)?;
    Ok((info, length, blake3, bytes))
}

/// Packs, filled one after the other.
#[derive(Debug)]
struct Packs<'a> {
    repository: &'a Repository,
    done: Vec<Pack>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    id: Hex<16>,
    key: ObjectKey,
    upload: Box<dyn Upload>,
    bytes: u64,
    blake3: Box<blake3::Hasher>,
}

impl Open {
    async fn begin(repository: &Repository) -> Result<Self> {
        let mut id = Hex::default();
        repository.entropy.fill(&mut id.0)?;
        let key = Pack::key(&id)?;
        let mut open = Self {
            id,
            upload: repository.target.upload(&key, None).await?,
            key,
            bytes: 0,
            blake3: Box::default(),
        };
        open.write(PACK_MAGIC.to_vec()).await?;
        Ok(open)
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.blake3.update(&bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.upload.write(bytes.into()).await
    }
}

impl<'a> Packs<'a> {
    const fn new(repository: &'a Repository) -> Self {
        Self {
            repository,
            done: Vec::new(),
            open: None,
        }
    }

    async fn push(&mut self, ordinal: u64, sealed: Vec<u8>) -> Result<Place> {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.bytes >= PACK_BYTES)
        {
            self.close().await?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::begin(self.repository).await?,
        };
        let place = Place {
            pack: u32::try_from(self.done.len()).map_err(|_| {
                Error::invalid_request("the source is too large for one restore point")
            })?,
            offset: open.bytes,
            bytes: sealed.len() as u64,
            ordinal,
        };
        open.write(sealed).await?;
        self.open = Some(open);
        Ok(place)
    }

    async fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let info = open.upload.finish().await?.map_err(name_taken)?;
        if info.bytes != open.bytes {
            return Err(Error::corrupt(
                open.key.as_str(),
                format!(
                    "{} bytes were sent, and {} are there",
                    open.bytes, info.bytes
                ),
            ));
        }
        self.done.push(Pack {
            id: open.id,
            bytes: open.bytes,
            blake3: Hex(*open.blake3.finalize().as_bytes()),
        });
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<Pack>> {
        self.close().await?;
        Ok(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_clock_ends_a_backup() {
        let (wall, monotonic) = (SystemTime::UNIX_EPOCH + WRITER_LIMIT * 2, Instant::now());
        let began = Began { wall, monotonic };
        let over = WRITER_LIMIT + Duration::from_secs(1);
        assert!(began.check(wall, monotonic).is_ok());
        assert!(
            began
                .check(wall + WRITER_LIMIT, monotonic + WRITER_LIMIT)
                .is_ok()
        );
        // Set back.
        assert!(began.check(wall - over, monotonic).is_ok());
        for error in [
            began.check(wall + over, monotonic),
            began.check(wall, monotonic + over),
            began.check(wall - over, monotonic + over),
        ] {
            assert!(matches!(error, Err(Error::TooSlow { hours: 12 })));
        }
    }
}
