//! Segments where they lie: keys, packs, index.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use age::x25519::Identity;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::hex;
use crate::manifest::{Manifest, Place, SegmentEntry, WrappedKey};

/// What each pack begins with.
const MAGIC: &[u8; 8] = b"GTPACK\x001";

/// What a segment is longer than its plaintext.
const TAG_BYTES: usize = 16;

/// The longest segment that is read.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// Those who can read.
pub struct Identities(Vec<Identity>);

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

impl Identities {
    /// From a file as `age-keygen` writes it: a secret key a line, `AGE-SECRET-KEY-1…`, and comments after `#`.
    ///
    /// # Errors
    /// When the file can't be read, or is something else. Nothing of it is told.
    pub fn read(path: &Path) -> Result<Self> {
        let text = Zeroizing::new(fs::read_to_string(path).map_err(Error::io(path))?);
        let lines = text.lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let identities: Result<Vec<_>, _> = keys.map(Identity::from_str).collect();
        let some = identities.ok().filter(|some| !some.is_empty());
        let wrong = || format!("{} does not have AGE-SECRET-KEY-1… a line", path.display());
        some.map(Self).ok_or_else(|| Error::InvalidRequest(wrong()))
    }

    /// The data key; `None` if it is for others.
    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Option<Zeroizing<[u8; 32]>>, String> {
        let blob = hex::decode(&wrapped.blob).filter(|_| wrapped.scheme == "age");
        let blob = blob.ok_or("its key is not wrapped with age")?;
        let damaged = |error: &dyn ToString| format!("its wrapped key: {}", error.to_string());
        let decryptor = age::Decryptor::new(&*blob).map_err(|error| damaged(&error))?;
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        let mut reader = match decryptor.decrypt(identities) {
            Err(age::DecryptError::NoMatchingKeys) => return Ok(None),
            reader => reader.map_err(|error| damaged(&error))?,
        };
        let mut key = Zeroizing::new([0; 32]);
        let read = reader.read_exact(&mut *key);
        match read.and_then(|()| reader.read(&mut [0])) {
            Ok(0) => Ok(Some(key)),
            Ok(_) => Err("its wrapped key is longer than a key".into()),
            Err(error) => Err(damaged(&error)),
        }
    }
}

/// A restore point whose packs are whole.
#[derive(Debug)]
pub(crate) struct OpenPoint<'a> {
    folder: PathBuf,
    manifest: &'a Manifest,
    key: Zeroizing<[u8; 32]>,
    pub(crate) entries: Vec<SegmentEntry>,
}

impl<'a> OpenPoint<'a> {
    /// By the first of its wrapped keys that opens it, the newest first.
    pub(crate) fn new(folder: &Path, manifest: &'a Manifest, by: &Identities) -> Result<Self> {
        let object = manifest.object();
        let (mut failed, mut whom) = (None, Vec::new());
        for wrapped in manifest.newer.iter().chain([&manifest.key]) {
            let key = by.unwrap(wrapped);
            let opened = match key.map_err(|detail| Error::damaged(&object, detail)) {
                Ok(Some(key)) => Self::by(folder, manifest, key),
                Ok(None) => {
                    whom.extend(wrapped.recipients.iter().cloned());
                    continue;
                }
                Err(error) => Err(error),
            };
            match opened {
                Ok(point) => return Ok(point),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| Error::WrongKey(object, whom.join(", "))))
    }

    /// Reads all of its packs once, to compare their digests, and its index.
    fn by(folder: &Path, manifest: &'a Manifest, key: Zeroizing<[u8; 32]>) -> Result<Self> {
        let object = manifest.object();
        let mut point = Self {
            folder: folder.into(),
            manifest,
            key,
            entries: Vec::new(),
        };
        for pack in &manifest.packs {
            let (object, mut magic) = (pack.object(), [0; MAGIC.len()]);
            let path = folder.join(&object);
            let mut hasher = blake3::Hasher::new();
            File::open(&path)
                .and_then(|mut file| {
                    file.read_exact(&mut magic)?;
                    hasher.update(&magic).update_reader(file).map(drop)
                })
                .map_err(Error::of_object(&object, &path))?;
            let same = hasher.count() == pack.bytes && hasher.finalize() == pack.blake3.0;
            Error::unless(same && magic == *MAGIC, &object, "other bytes were written")?;
        }
        for place in &manifest.index {
            let part: Vec<SegmentEntry> = serde_json::from_slice(&point.segment(place, "index.1")?)
                .map_err(|error| point.damaged(place, error))?;
            point.entries.extend(part);
        }
        let entries = &point.entries;
        let places = entries
            .iter()
            .map(|entry| &entry.place)
            .chain(&manifest.index);
        let mut ordinals = (0_u64..).zip(places.map(|place| place.ordinal));
        let sum = |of: fn(&SegmentEntry) -> Option<u64>| {
            entries
                .iter()
                .try_fold(0_u64, |sum, entry| sum.checked_add(of(entry)?))
        };
        let listed = ordinals.all(|(ordinal, found)| ordinal == found)
            && entries.len() as u64 == manifest.segments
            && sum(|entry| Some(entry.info.items)) == Some(manifest.items)
            && sum(|entry| entry.place.bytes.checked_sub(16)) == Some(manifest.encoded_bytes);
        Error::unless(listed, &object, "its index does not list what it says")?;
        Ok(point)
    }

    /// The plaintext of a segment that the index lists.
    pub(crate) fn read(&self, entry: &SegmentEntry) -> Result<Vec<u8>> {
        let bytes = self.segment(&entry.place, &entry.info.codec)?;
        match blake3::hash(&bytes) == entry.blake3.0 {
            true => Ok(bytes),
            false => Err(self.damaged(&entry.place, "its plaintext has another BLAKE3")),
        }
    }

    pub(crate) fn damaged(&self, place: &Place, detail: impl std::fmt::Display) -> Error {
        let object = format!("{}, segment {}", self.manifest.object(), place.ordinal);
        Error::damaged(&object, detail)
    }

    fn segment(&self, place: &Place, codec: &str) -> Result<Vec<u8>> {
        let pack = self.manifest.packs.get(place.pack).filter(|pack| {
            let end = place.offset.checked_add(place.bytes);
            end.is_some_and(|end| end <= pack.bytes) && place.bytes <= MAX_SEGMENT_BYTES
        });
        let pack = pack.ok_or_else(|| self.damaged(place, "it is in no pack"))?;
        let path = self.folder.join(pack.object());
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(place.offset))?;
                file.take(place.bytes).read_to_end(&mut bytes)
            })
            .map_err(Error::of_object(&pack.object(), &path))?;
        let opened = self.decrypt(place.ordinal, codec, bytes);
        opened.ok_or_else(|| self.damaged(place, "it can't be decrypted"))
    }

    fn decrypt(&self, ordinal: u64, codec: &str, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let tag = bytes.split_off(bytes.len().checked_sub(TAG_BYTES)?);
        let mut identity = b"groundtackle segment 1".to_vec();
        identity.extend(self.manifest.repository.0);
        identity.extend(self.manifest.point.0);
        identity.extend(ordinal.to_be_bytes());
        let mut key = Zeroizing::new([0; 32]);
        let hkdf = Hkdf::<Sha256>::new(Some(&self.manifest.repository.0), &*self.key);
        hkdf.expand(&identity, &mut *key).ok()?;
        identity.extend(codec.as_bytes());
        let (cipher, nonce) = (Aes256Gcm::new((&*key).into()), Nonce::default());
        let tag = Tag::from_slice(&tag);
        let opened = cipher.decrypt_in_place_detached(&nonce, &identity, &mut bytes, tag);
        opened.is_ok().then_some(bytes)
    }
}
