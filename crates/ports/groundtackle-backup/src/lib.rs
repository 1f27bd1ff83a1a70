#![doc = include_str!("../README.md")]

mod bytes_as_text;
mod catch_up;
mod clock;
mod drill;
mod envelope;
mod error;
mod evidence;
mod forget;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod lease;
mod manifest;
mod memory;
mod metered;
mod patient;
mod plan;
mod prune;
mod reader;
mod rekey;
mod repository;
mod retention;
mod roll_up;
mod several;
mod source;
mod target;
mod tree;
mod writer;

pub use bytes_as_text::{Hex, HexBytes};
pub use catch_up::CaughtUp;
pub use clock::{Clock, Entropy, SystemClock, SystemEntropy};
pub use drill::{Drill, DrillChoice, DrillGround, DrillLevel, Drilled, TreeGround};
pub use error::{Error, Result};
pub use evidence::{
    DrillOutcome, DrillRecord, DrillSchedule, Due, Evidence, EvidenceFound, Figures, Measured,
    Objectives, Proof, Reached, ReachedTree, Share, Subject, SubjectDigest,
};
pub use groundtackle_core::Retryability;
pub use keys::{DataKey, KeyUnwrapping, KeyWrapping, SEAL_BYTES, SigningKey, WrappedKey};
pub use lease::{Lease, LeaseTerms, Turn};
pub use manifest::{
    BlockEntry, Content, FORMAT, Fencing, Manifest, Pack, Place, Position, SetSummary, TreeSummary,
    Used,
};
pub use memory::MemoryTarget;
pub use metered::{Meter, Metered};
pub use plan::{At, Plan, Step};
pub use prune::{MIN_GRACE, PruneOptions, Pruned};
pub use reader::{CheckDepth, Checked, Restored};
pub use repository::{Descriptor, Points, Repository, Trust};
pub use retention::{Chosen, Reason, Retention};
pub use several::{CopyPolicy, Member, PassedOver, Several};
pub use source::{
    Direction, Goal, Segment, SegmentEntry, SegmentInfo, SegmentWork, Sink, Source, SourceEnd,
};
pub use target::{
    Listing, ObjectInfo, ObjectKey, ObjectTag, Outcome, PutIf, Refused, Target, TargetCapabilities,
    Upload,
};
pub use tree::{TreeAt, TreeReader};
pub use writer::{BackUp, Began, WRITER_LIMIT};
