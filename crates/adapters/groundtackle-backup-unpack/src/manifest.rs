//! What is signed: the repository's descriptor, and the manifests of restore points.
#![allow(dead_code, reason = "each key is read, so that none is unknown")]

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::hex::Hex;

/// The most signatures that an object may have.
const MAX_SIGNATURES: usize = 16;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<SignedBy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedBy {
    keyid: String,
    sig: String,
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}

/// The value in a DSSE envelope, if one of `trusted` signed it.
pub(crate) fn open<T: DeserializeOwned>(
    object: &str,
    bytes: &[u8],
    kind: &str,
    trusted: &[Hex<32>],
) -> Result<T> {
    let json = |error: serde_json::Error| Error::damaged(object, error);
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(json)?;
    let few = envelope.signatures.len() <= MAX_SIGNATURES;
    Error::unless(few, object, "it has more than 16 signatures")?;
    let payload_type = format!("application/vnd.groundtackle.{kind}.v1+json");
    let same = envelope.payload_type == payload_type;
    Error::unless(same, object, "it is signed as something else")?;
    let payload = STANDARD.decode(&envelope.payload);
    let payload = payload.map_err(|error| Error::damaged(object, error))?;
    let (type_bytes, bytes) = (payload_type.len(), payload.len());
    let head = format!("DSSEv1 {type_bytes} {payload_type} {bytes} ");
    let message = [head.as_bytes(), &payload].concat();
    let signed = |key: &Hex<32>| {
        let key = VerifyingKey::from_bytes(&key.0).ok()?;
        let signatures = envelope.signatures.iter().filter_map(|by| {
            let bytes = STANDARD.decode(&by.sig).ok()?;
            Signature::from_slice(&bytes).ok()
        });
        let mut good = signatures.map(|signature| key.verify_strict(&message, &signature));
        good.find_map(Result::ok)
    };
    if trusted.iter().find_map(signed).is_none() {
        return Err(Error::Untrusted(object.into()));
    }
    match serde_json::from_slice(&payload).map_err(json)? {
        Format { format: 1 } => serde_json::from_slice(&payload).map_err(json),
        Format { format: 0 } => Err(Error::damaged(object, "there is no format 0")),
        Format { format } => Err(Error::NewerFormat(object.into(), format)),
    }
}

/// `repository.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Descriptor {
    format: u64,
    repository: Hex<16>,
    pub(crate) network: String,
    created_unix_millis: u64,
}

/// Says that a restore point is offered no more.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tombstone {
    format: u64,
    repository: Hex<16>,
    point: Hex<16>,
    created_unix_millis: u64,
}

impl Tombstone {
    /// Looks whether it is that of the point whose object is named like it.
    pub(crate) fn check(
        object: &str,
        bytes: &[u8],
        trusted: &[Hex<32>],
        within: &Descriptor,
    ) -> Result<()> {
        let read: Self = open(object, bytes, "forgotten", trusted)?;
        let name = format!("forgotten/{:016x}-{}", read.created_unix_millis, read.point);
        let same = name == object && read.repository == within.repository;
        Error::unless(same, object, "it belongs to another restore point")
    }
}

/// A restore point's key, wrapped for others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wrapping {
    format: u64,
    repository: Hex<16>,
    point: Hex<16>,
    created_unix_millis: u64,
    id: Hex<16>,
    wrapped_unix_millis: u64,
    pub(crate) key: WrappedKey,
}

impl Wrapping {
    /// Reads the one that is at that place.
    pub(crate) fn read(
        object: &str,
        bytes: &[u8],
        trusted: &[Hex<32>],
        within: &Descriptor,
    ) -> Result<Self> {
        let read: Self = open(object, bytes, "wrapping", trusted)?;
        let point = format!("{:016x}-{}", read.created_unix_millis, read.point);
        let name = format!("keys/{point}/{:016x}-{}", read.wrapped_unix_millis, read.id);
        let same = name == object && read.repository == within.repository;
        Error::unless(same, object, "it belongs to another restore point")?;
        Ok(read)
    }
}

/// A block. Hashes are in internal order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Blocks before it.
    pub height: u32,
    /// Its hash.
    pub hash: Hex<32>,
    /// Median time past, in seconds since 1970.
    pub median_time_past: u32,
}

impl Position {
    const NONE: Self = Self {
        height: 0,
        hash: Hex([0; 32]),
        median_time_past: 0,
    };
}

impl SetSummary {
    const NONE: Self = Self {
        coins: 0,
        muhash: Hex([0; 32]),
    };
}

/// What a set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSummary {
    /// Its coins.
    pub coins: u64,
    /// Its MuHash3072, in internal order.
    pub muhash: Hex<32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockEntry {
    pub(crate) position: Position,
    pub(crate) previous: Hex<32>,
    pub(crate) set: SetSummary,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Content {
    Base {
        epoch: Hex<16>,
        position: Position,
        set: SetSummary,
        muhash_state: String,
        during: Vec<BlockEntry>,
    },
    Delta {
        epoch: Hex<16>,
        from: Position,
        from_set: SetSummary,
        blocks: Vec<BlockEntry>,
        muhash_state: String,
    },
    Tree {
        entries: u64,
        bytes: u64,
        blake3: Hex<32>,
        number: u32,
        uses: Vec<Used>,
    },
}

/// A restore point that a tree has segments in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Used {
    pub(crate) number: u32,
    point: Hex<16>,
    created_unix_millis: u64,
}

impl Used {
    pub(crate) fn object(&self) -> String {
        format!("points/{:016x}-{}", self.created_unix_millis, self.point)
    }
}

/// What a tree says of itself.
#[derive(Debug)]
pub(crate) struct TreeContent<'a> {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) blake3: &'a Hex<32>,
    pub(crate) number: u32,
    pub(crate) uses: &'a [Used],
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrappedKey {
    pub(crate) scheme: String,
    pub(crate) recipients: Vec<String>,
    pub(crate) blob: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pack {
    pub(crate) id: Hex<16>,
    pub(crate) bytes: u64,
    pub(crate) blake3: Hex<32>,
}

impl Pack {
    pub(crate) fn object(&self) -> String {
        let [first, ..] = self.id.0;
        format!("packs/{first:02x}/{}", self.id)
    }
}

/// Where a sealed segment is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) pack: usize,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) ordinal: u64,
}

/// What the index says of a segment.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SegmentEntry {
    pub(crate) info: SegmentInfo,
    pub(crate) place: Place,
    pub(crate) blake3: Hex<32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SegmentInfo {
    pub(crate) codec: String,
    pub(crate) items: u64,
    first: String,
    last: String,
    pub(crate) heights: Option<(u32, u32)>,
}

/// What a restore point says of itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u64,
    pub(crate) repository: Hex<16>,
    pub(crate) point: Hex<16>,
    pub(crate) stream: String,
    network: String,
    pub(crate) created_unix_millis: u64,
    tool: String,
    content: Content,
    pub(crate) key: WrappedKey,
    pub(crate) packs: Vec<Pack>,
    pub(crate) segments: u64,
    pub(crate) items: u64,
    pub(crate) encoded_bytes: u64,
    pub(crate) index: Vec<Place>,
    fencing: Option<Fencing>,
    /// Its key, wrapped anew since; the newest first.
    #[serde(skip)]
    pub(crate) newer: Vec<WrappedKey>,
}

/// In whose turn it was made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fencing {
    token: u64,
    holder: String,
}

impl Manifest {
    pub(crate) fn read(
        object: &str,
        bytes: &[u8],
        trusted: &[Hex<32>],
        within: &Descriptor,
    ) -> Result<Self> {
        let read: Self = open(object, bytes, "restore-point", trusted)?;
        Error::unless(read.object() == object, object, "it is another's manifest")?;
        let here = (read.repository, &read.network) == (within.repository, &within.network);
        Error::unless(here, object, "it belongs to another repository")?;
        Error::unless(
            read.is_linked(),
            object,
            "its blocks or numbers don't follow each other",
        )?;
        Ok(read)
    }

    /// The key of its object.
    pub fn object(&self) -> String {
        format!("points/{:016x}-{}", self.created_unix_millis, self.point)
    }

    /// None of a set of coins.
    pub(crate) fn tree(&self) -> Option<TreeContent<'_>> {
        match &self.content {
            Content::Tree {
                entries,
                bytes,
                blake3,
                number,
                uses,
            } => Some(TreeContent {
                entries: *entries,
                bytes: *bytes,
                blake3,
                number: *number,
                uses,
            }),
            _ => None,
        }
    }

    pub(crate) const fn is_base(&self) -> bool {
        matches!(self.content, Content::Base { .. })
    }

    pub(crate) const fn epoch(&self) -> Hex<16> {
        match self.content {
            Content::Base { epoch, .. } | Content::Delta { epoch, .. } => epoch,
            Content::Tree { .. } => Hex([0; 16]),
        }
    }

    /// The set of a base, or that to which the changes apply; zeros of a tree.
    pub(crate) const fn known(&self) -> (Position, SetSummary) {
        match self.content {
            Content::Base { position, set, .. } => (position, set),
            Content::Delta { from, from_set, .. } => (from, from_set),
            Content::Tree { .. } => (Position::NONE, SetSummary::NONE),
        }
    }

    /// The blocks whose changes are here.
    pub(crate) fn blocks(&self) -> &[BlockEntry] {
        match &self.content {
            Content::Base { during, .. } => during,
            Content::Delta { blocks, .. } => blocks,
            Content::Tree { .. } => &[],
        }
    }

    /// The block that it leads to, and the set there; zeros of a tree.
    pub fn end(&self) -> (Position, SetSummary) {
        let last = self.blocks().last();
        last.map_or_else(|| self.known(), |last| (last.position, last.set))
    }

    fn is_linked(&self) -> bool {
        if let Some(tree) = self.tree() {
            let numbers = tree.uses.iter().map(|used| used.number);
            let next = numbers.clone().skip(1).chain([tree.number]);
            return numbers.zip(next).all(|(one, next)| one < next);
        }
        let mut before = (!self.is_base()).then(|| self.known().0);
        for block in self.blocks() {
            let at = block.position;
            let follows = |before: Position| {
                before.hash == block.previous && before.height.checked_add(1) == Some(at.height)
            };
            if !before.is_none_or(follows) {
                return false;
            }
            before = Some(at);
        }
        match self.is_base() {
            true => self.end() == self.known(),
            false => !self.blocks().is_empty(),
        }
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tree) = self.tree() {
            let (object, stream) = (self.object(), &self.stream);
            let (entries, bytes) = (tree.entries, tree.bytes);
            return write!(
                f,
                "{object} {stream} tree entries {entries} bytes {bytes} blake3 {}",
                tree.blake3
            );
        }
        let (position, set) = self.end();
        let kind = if self.is_base() { "base" } else { "delta" };
        let from = self
            .blocks()
            .first()
            .map_or(position.height, |first| first.position.height);
        write!(
            f,
            "{} {} {kind} blocks {from}..={} ",
            self.object(),
            self.stream,
            position.height
        )?;
        let (hash, muhash) = (position.hash.reversed(), set.muhash.reversed());
        write!(f, "hash {hash} coins {} muhash {muhash}", set.coins)
    }
}
