#![doc = include_str!("../README.md")]

#[cfg(not(unix))]
compile_error!("groundtackle-backup-fs relies on what Unix promises of files and folders");

mod config;
mod error;
mod folder;
mod target;
mod walk;

pub use config::FsTargetConfig;
pub use target::FsTarget;
