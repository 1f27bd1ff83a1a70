#![doc = include_str!("../README.md")]
// What ends children, and what trees are of.
#![cfg(target_os = "linux")]

mod cluster;
mod config;
mod dump;
mod error;
mod manifest;
mod program;
mod restore;

pub use cluster::PostgresBackup;
pub use config::{ClusterRestoreOptions, PostgresBackupConfig, SslMode, Verify};
pub use dump::{PostgresDump, restore_dump};
pub use restore::{RestoredCluster, restore_cluster};
