#![doc = include_str!("../README.md")]

mod config;
mod error;
mod record;
mod source;

pub use config::ChecklistConfig;
pub use record::line;
pub use source::Checklist;
