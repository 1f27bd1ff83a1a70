#![doc = include_str!("../README.md")]

mod catalogue;
mod check;
mod config;
mod judge;

pub use check::{BackupCheck, TipHeight};
pub use config::BackupCheckConfig;
