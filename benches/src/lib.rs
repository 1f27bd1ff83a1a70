//! Measurements behind the decision records.
//!
//! [`generator`] makes a chain with the shape of real blocks, the same one for the same seed. [`workload`] turns its
//! blocks into what a UTXO store with one record per transaction reads and writes. [`engine`] carries that to an
//! embedded engine. The binary `engines` measures all of it and prints one table.
//!
//! [`regtest`] makes of the same blocks a chain that Bitcoin Core accepts. The binary `utxo` connects it to the
//! embedded store and to Core's engine, and prints the tables of `docs/benchmarks.md`.
//!
//! [`coins`] makes up the coins whose backups the binaries `coins` and `backup` measure, the latter beside [`peers`].
//!
//! The binary `report` runs all of them: it finds their [`tables`], and makes a [`chart`] of each one that has ratios.
//!
//! Nothing here is published, and nothing here is fit for keeping data.

pub mod chart;
pub mod coins;
pub mod engine;
pub mod generator;
pub mod machine;
pub mod peers;
pub mod regtest;
pub mod rows;
pub mod tables;
pub mod workload;

/// What can go wrong in a measurement: it is printed and the run ends.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
