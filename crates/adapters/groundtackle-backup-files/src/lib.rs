#![doc = include_str!("../README.md")]
// Names, holes and attributes as Linux has them.
#![cfg(target_os = "linux")]

mod chunks;
mod config;
mod error;
mod lock;
mod record;
mod restore;
mod run;
mod source;
mod state;
mod streamed;
mod walk;

pub use config::{FilesConfig, RestoreOptions};
pub use restore::{Restored, restore, restore_checked};
pub use run::{FilesBackup, Made};
pub use streamed::{EntryAttributes, StreamedBackup, StreamedTree};
