#![doc = include_str!("../README.md")]

mod config;
mod source;

pub use config::{BackupEvidenceConfig, StreamRule};
pub use source::BackupEvidence;
