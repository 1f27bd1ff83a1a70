//! What a restore point says of itself: the commit of a backup.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::bytes_as_text::{Hex, HexBytes};
use crate::envelope::{self, Envelope};
use crate::error::{Error, Result};
use crate::keys::{SigningKey, WrappedKey};
use crate::target::ObjectKey;

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The media type of a signed manifest.
pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.groundtackle.restore-point.v1+json";

/// A block, as the place in a chain that a set belongs to. Hashes are in internal order: print them reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Blocks before it.
    pub height: u32,
    /// Its hash.
    pub hash: Hex<32>,
    /// Median time past (BIP 113), in seconds since 1970.
    pub median_time_past: u32,
}

/// What a set is, at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSummary {
    /// Its coins.
    pub coins: u64,
    /// Its MuHash3072, internal order: print it reversed.
    pub muhash: Hex<32>,
}

/// A block whose changes a restore point holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockEntry {
    /// The block.
    pub position: Position,
    /// The hash of the block before it.
    pub previous: Hex<32>,
    /// The set after it.
    pub set: SetSummary,
}

/// What a restore point holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Content {
    /// A whole set.
    Base {
        /// See [`Content::epoch`].
        epoch: Hex<16>,
        /// The block it belongs to.
        position: Position,
        /// What the set is there.
        set: SetSummary,
        /// The running MuHash3072 of the set, numerator and denominator (768 bytes): what a delta goes on from.
        muhash_state: HexBytes,
        /// Where the set was read while it changed: the blocks connected meanwhile, whose changes are here as well. The
        /// first one's predecessor was the tip when the scan began, the last one is the position.
        during: Vec<BlockEntry>,
    },
    /// What blocks changed of a set.
    Delta {
        /// See [`Content::epoch`].
        epoch: Hex<16>,
        /// The block before the first.
        from: Position,
        /// The set there.
        from_set: SetSummary,
        /// The blocks, each the predecessor of the next; not none.
        blocks: Vec<BlockEntry>,
        /// The running MuHash3072 of the set after the last of them.
        muhash_state: HexBytes,
    },
    /// A tree of files. It belongs to no block.
    Tree {
        /// Files, directories, links and whatever else has a name, the root among them.
        entries: u64,
        /// What the files hold, in bytes; holes count.
        bytes: u64,
        /// The BLAKE3 of the canonical listing: what is compared after a restore.
        blake3: Hex<32>,
        /// What its own listing calls it: greater than the numbers of all that it uses.
        number: u32,
        /// The restore points some of whose segments are a part of it, by ascending numbers.
        uses: Vec<Used>,
    },
}

/// What a tree is as a whole: what is signed of it, and what a restore finds again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeSummary {
    /// See [`Content::Tree`].
    pub entries: u64,
    /// See [`Content::Tree`].
    pub bytes: u64,
    /// See [`Content::Tree`].
    pub blake3: Hex<32>,
}

/// A restore point of a tree that a later one uses segments of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Used {
    /// What the listing calls it.
    pub number: u32,
    /// Its name.
    pub point: Hex<16>,
    /// When it was made: the other part of its object's key.
    pub created_unix_millis: u64,
}

impl Used {
    pub(crate) fn object(&self) -> Result<ObjectKey> {
        point_key(self.created_unix_millis, &self.point)
    }
}

/// The epoch in which nobody watches.
const UNWATCHED: &Hex<16> = &Hex([0; 16]);

impl Content {
    /// A time in which nothing but blocks changed the set: only restore points of one epoch are linked by their blocks.
    /// All zeros where nobody watched, and for a tree.
    pub const fn epoch(&self) -> &Hex<16> {
        match self {
            Self::Base { epoch, .. } | Self::Delta { epoch, .. } => epoch,
            Self::Tree { .. } => UNWATCHED,
        }
    }

    /// The block whose set this leads to; none for a tree.
    pub fn position(&self) -> Option<&Position> {
        match self {
            Self::Base { position, .. } => Some(position),
            Self::Delta { blocks, .. } => blocks.last().map(|block| &block.position),
            Self::Tree { .. } => None,
        }
    }

    /// The set at that block.
    pub fn set(&self) -> Option<&SetSummary> {
        match self {
            Self::Base { set, .. } => Some(set),
            Self::Delta { blocks, .. } => blocks.last().map(|block| &block.set),
            Self::Tree { .. } => None,
        }
    }

    /// The running digest there; none for a tree.
    pub const fn muhash_state(&self) -> Option<&HexBytes> {
        match self {
            Self::Base { muhash_state, .. } | Self::Delta { muhash_state, .. } => {
                Some(muhash_state)
            }
            Self::Tree { .. } => None,
        }
    }

    /// The blocks whose changes are here.
    pub fn blocks(&self) -> &[BlockEntry] {
        match self {
            Self::Base { during, .. } => during,
            Self::Delta { blocks, .. } => blocks,
            Self::Tree { .. } => &[],
        }
    }

    /// The restore points that it uses segments of.
    pub fn uses(&self) -> &[Used] {
        match self {
            Self::Tree { uses, .. } => uses,
            _ => &[],
        }
    }

    /// What a tree is as a whole; none for a set of coins.
    pub const fn tree(&self) -> Option<TreeSummary> {
        match self {
            Self::Tree {
                entries,
                bytes,
                blake3,
                ..
            } => Some(TreeSummary {
                entries: *entries,
                bytes: *bytes,
                blake3: *blake3,
            }),
            _ => None,
        }
    }

    /// Whether it is a tree of files.
    pub const fn is_tree(&self) -> bool {
        matches!(self, Self::Tree { .. })
    }

    /// Follows the links between the blocks.
    fn check(&self) -> Result<(), &'static str> {
        if let Self::Tree { number, uses, .. } = self {
            let numbers = uses.iter().map(|used| used.number);
            let after = numbers.clone().skip(1).chain([*number]);
            return match numbers.zip(after).all(|(one, next)| one < next) {
                true => Ok(()),
                false => Err("the restore points that it uses are not numbered in order"),
            };
        }
        let blocks = self.blocks();
        let linked = blocks.iter().zip(blocks.iter().skip(1)).all(|(a, b)| {
            b.previous == a.position.hash
                && Some(b.position.height) == a.position.height.checked_add(1)
        });
        let ends = match self {
            Self::Base {
                position,
                set,
                during,
                ..
            } => during
                .last()
                .is_none_or(|last| last.position == *position && last.set == *set),
            Self::Delta { from, blocks, .. } => blocks.first().is_some_and(|first| {
                first.previous == from.hash
                    && Some(first.position.height) == from.height.checked_add(1)
            }),
            Self::Tree { .. } => true,
        };
        if linked && ends {
            Ok(())
        } else {
            Err("its blocks don't follow each other")
        }
    }
}

/// An object with segments in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// Its name.
    pub id: Hex<16>,
    /// Its length.
    pub bytes: u64,
    /// The BLAKE3 of all of it.
    pub blake3: Hex<32>,
}

impl Pack {
    /// Its key.
    ///
    /// # Errors
    /// None; what is made of hexadecimal digits is a key.
    pub fn key(id: &Hex<16>) -> Result<ObjectKey> {
        let id = id.to_string();
        format!("packs/{}/{id}", id.get(..2).unwrap_or_default()).try_into()
    }
}

/// Where a sealed segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Which of the manifest's packs, from 0.
    pub pack: u32,
    /// Where it begins there.
    pub offset: u64,
    /// How long it is there.
    pub bytes: u64,
    /// Its number within the restore point, from 0: a part of its key.
    pub ordinal: u64,
}

/// In whose turn a restore point was made. It decides nothing: a higher token was taken later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fencing {
    /// Counted up with each turn of the stream.
    pub token: u64,
    /// Who had it, as it calls itself.
    pub holder: String,
}

/// A restore point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format: 1.
    pub format: u32,
    /// The repository it belongs to.
    pub repository: Hex<16>,
    /// Its own name.
    pub point: Hex<16>,
    /// What was backed up, as the repository's owner calls it.
    pub stream: String,
    /// The network: `main`, `test`, …
    pub network: String,
    /// When its source said what it holds, in milliseconds since 1970.
    pub created_unix_millis: u64,
    /// The software that wrote it.
    pub tool: String,
    /// What it holds.
    pub content: Content,
    /// The data key, wrapped to those who may read.
    pub key: WrappedKey,
    /// Its packs.
    pub packs: Vec<Pack>,
    /// Segments, without those of the index and those of restore points that it uses.
    pub segments: u64,
    /// Items in them: coins of a base, coins created and spent of a delta, chunks of a tree.
    pub items: u64,
    /// The plaintext's length in bytes, encoded.
    pub encoded_bytes: u64,
    /// Where the index is: the list of segments, sealed like them.
    pub index: Vec<Place>,
    /// None where it was made without a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing: Option<Fencing>,
}

/// How a manifest's object is called: in order of time.
pub(crate) fn point_key(created_unix_millis: u64, point: &Hex<16>) -> Result<ObjectKey> {
    format!("points/{created_unix_millis:016x}-{point}").try_into()
}

/// What keys of restore points of that time and later come after. `-` and all that follows it are greater than nothing.
pub(crate) fn points_since(created_unix_millis: u64) -> Result<ObjectKey> {
    format!("points/{created_unix_millis:016x}").try_into()
}

/// What all of them begin with.
pub(crate) const POINTS: &str = "points/";

/// The longest manifest that is read, in bytes.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// Reads a payload, the format first: a newer one may have keys that this version does not know.
pub(crate) fn of_known_format<T: DeserializeOwned>(object: &str, payload: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let corrupt = |error: serde_json::Error| Error::corrupt(object, error.to_string());
    let Format { format } = serde_json::from_slice(payload).map_err(corrupt)?;
    if format > FORMAT {
        return Err(Error::NewerFormat {
            object: object.into(),
            found: format,
            supported: FORMAT,
        });
    }
    if format < 1 {
        return Err(Error::corrupt(object, "there is no format 0"));
    }
    serde_json::from_slice(payload).map_err(corrupt)
}

impl Manifest {
    /// Its object's key.
    ///
    /// # Errors
    /// None; what is made of hexadecimal digits is a key.
    pub fn object(&self) -> Result<ObjectKey> {
        point_key(self.created_unix_millis, &self.point)
    }

    /// As it is written.
    ///
    /// # Errors
    /// None that is known; serialisation says that it may.
    pub fn sign(&self, by: &SigningKey) -> Result<Vec<u8>> {
        envelope::seal(PAYLOAD_TYPE, self, by)
    }

    /// Reads one, and who of `trusted` signed it. `object` is for what is told of errors.
    ///
    /// # Errors
    /// `Corrupt`, `Untrusted`, `NewerFormat`.
    pub fn read(object: &str, bytes: &[u8], trusted: &[Hex<32>]) -> Result<Self> {
        let payload = Envelope::read(object, bytes)?.open(object, PAYLOAD_TYPE, trusted)?;
        let corrupt = |detail: String| Error::corrupt(object, detail);
        let manifest: Self = of_known_format(object, &payload)?;
        manifest
            .content
            .check()
            .map_err(|detail| corrupt(detail.into()))?;
        if manifest.object()?.as_str() != object {
            return Err(corrupt(
                "it is the manifest of another restore point".into(),
            ));
        }
        Ok(manifest)
    }
}
