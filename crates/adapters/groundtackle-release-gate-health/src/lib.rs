#![doc = include_str!("../README.md")]

mod config;
mod source;

pub use config::{HealthEvidenceConfig, ItemRule, LevelRule};
pub use source::HealthEvidence;
