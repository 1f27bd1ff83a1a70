//! The checks of the fuzz targets, which the crates' corpus tests share.

#[path = "../../crates/adapters/groundtackle-backup-utxo/tests/checks/mod.rs"]
mod backup_checks;
#[path = "../../crates/ports/groundtackle-chain/tests/checks/mod.rs"]
mod checks;
#[path = "../../crates/ports/groundtackle-utxo-store/tests/checks/mod.rs"]
mod store_checks;

pub use backup_checks::*;
pub use checks::*;
pub use store_checks::*;
