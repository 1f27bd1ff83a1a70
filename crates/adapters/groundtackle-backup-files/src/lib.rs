#![doc = include_str!("../README.md")]
// Names, holes and attributes as Linux has them.
#![cfg(target_os = "linux")]

mod chunks;
mod config;
mod drill;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod lock;
mod record;
mod replay;
mod restore;
mod run;
mod source;
mod state;
mod streamed;
mod walk;

pub use config::{FilesConfig, RestoreOptions};
pub use drill::{DirectoryGround, ReplayGround};
pub use replay::replay;
pub use restore::{Restored, restore, restore_checked};
pub use run::{FilesBackup, Made};
pub use streamed::{EntryAttributes, StreamedBackup, StreamedTree};
