//! A folder with what each block changed, written as blocks connect.
//!
//! | file | what it is |
//! |---|---|
//! | `HEIGHT-HASH.delta` | what one block changed, and the epoch in which it was connected |
//! | `EPOCH` | the epoch now |
//! | `intent` | the block that is being connected; what a crash leaves of it is finished at the next start |
//! | `LOCK` | held by the one process that writes |
//!
//! Each file is written beside its place, made durable and renamed, so it is there whole or not at all; each part of
//! it carries a checksum.
//!
//! **Epochs.** Deltas say what blocks change. A call that changes the confirmed set in another way (coins of a
//! snapshot, an output with a new owner, transactions placed by hand) begins a new epoch, and a chain of deltas never
//! leaves its epoch: so a backup keeps, with each restore point, the epoch that it was taken in, and takes a new base
//! where no chain leads on from there.

mod error;
mod file;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod journaled;
mod reader;

pub use error::JournalError;
pub use file::Epoch;
pub use journaled::Journaled;
pub use reader::{Chain, Journal};
