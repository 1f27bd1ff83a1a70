#![doc = include_str!("../README.md")]
// What ends children, and what trees are of.
#![cfg(target_os = "linux")]

mod cluster;
mod config;
mod drill;
mod dump;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod manifest;
mod program;
mod restore;
mod serve;
mod stream;

pub use cluster::PostgresBackup;
pub use config::{ClusterRestoreOptions, PostgresBackupConfig, SslMode, Verify};
pub use drill::{ClusterGround, ClusterProbe, DumpGround, QueryProbe};
pub use dump::{PostgresDump, restore_dump};
pub use restore::{RestoredCluster, restore_cluster};
pub use serve::ScratchServer;
