//! The checks of the fuzz targets, which the chain crate's corpus test shares.

#[path = "../../crates/ports/groundtackle-chain/tests/checks/mod.rs"]
mod checks;

pub use checks::*;
