//! What is backed up, and where it is restored to.

use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::bytes_as_text::HexBytes;
use crate::error::Result;
use crate::manifest::{Content, Place, Position, SetSummary};

/// What a segment is, besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentInfo {
    /// How its bytes are to be read: `coins.1`, `deltas.1`.
    pub codec: String,
    /// Items in it.
    pub items: u64,
    /// The key of its first item.
    pub first: HexBytes,
    /// The key of its last item.
    pub last: HexBytes,
    /// The heights of the blocks whose changes it holds, first and last; `None` for a part of a whole set.
    pub heights: Option<(u32, u32)>,
}

/// A segment ready to be sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct Segment {
    /// What it is.
    pub info: SegmentInfo,
    /// Its encoded bytes.
    pub bytes: Vec<u8>,
}

impl Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment")
            .field("info", &self.info)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// A segment of a restore point, as its index lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentEntry {
    /// What it is.
    pub info: SegmentInfo,
    /// Where it is.
    pub place: Place,
    /// The BLAKE3 of its encoded bytes.
    pub blake3: crate::bytes_as_text::Hex<32>,
}

/// The work of encoding one segment: it runs on another thread, beside others.
pub type SegmentWork = Box<dyn FnOnce() -> Result<Segment> + Send>;

/// What is backed up: segments in order, then an explicit end.
#[async_trait]
pub trait Source: Debug + Send {
    /// The next segment; `None` at the end, which is no success yet.
    ///
    /// # Errors
    /// When the source could not answer; nothing is listed then.
    async fn next(&mut self) -> Result<Option<SegmentWork>>;

    /// Says that all was whole, and what it was. Called once, after the end, when each segment was encoded.
    ///
    /// # Errors
    /// When it was not.
    async fn finish(&mut self) -> Result<SourceEnd>;
}

/// What a source says at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceEnd {
    /// What the restore point holds.
    pub content: Content,
    /// How many items all segments together must have.
    pub items: u64,
}

/// Whether blocks are connected or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// In order.
    Forwards,
    /// From the last one back.
    Backwards,
}

/// What comes out of a restore, in this order: all changes, then all of the base.
#[async_trait]
pub trait Sink: Debug + Send {
    /// Says what will come. A sink that holds something else refuses here.
    ///
    /// # Errors
    /// When the sink can't take it.
    async fn begin(&mut self, goal: &Goal) -> Result<()>;

    /// Changes of blocks, encoded; only those of heights within `heights`, both included, count. Segments come in the order
    /// in which they are to be applied: backwards, the last blocks first.
    ///
    /// # Errors
    /// When the sink can't take it.
    async fn changes(
        &mut self,
        segment: Segment,
        direction: Direction,
        heights: (u32, u32),
    ) -> Result<()>;

    /// A part of the base, encoded; once the first came, no changes follow.
    ///
    /// # Errors
    /// When the sink can't take it.
    async fn base(&mut self, segment: Segment) -> Result<()>;

    /// Completes it, and says what there is now: counted and digested from what was written. If that is not the goal,
    /// the sink must not be usable as if it were.
    ///
    /// # Errors
    /// When the sink can't complete it.
    async fn finish(&mut self, goal: &Goal) -> Result<SetSummary>;
}

/// What a restore is to end in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Goal {
    /// The network.
    pub network: String,
    /// The block.
    pub position: Position,
    /// The set there.
    pub set: SetSummary,
}
