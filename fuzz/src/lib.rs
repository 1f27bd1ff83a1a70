//! The checks of the fuzz targets, which the crates' corpus tests share.

use groundtackle_backup_unpack::fuzzing;

#[path = "../../crates/adapters/groundtackle-backup-utxo/tests/checks/mod.rs"]
mod backup_checks;
#[path = "../../crates/ports/groundtackle-chain/tests/checks/mod.rs"]
mod checks;
#[path = "../../crates/ports/groundtackle-release-gate/tests/checks/mod.rs"]
mod gate_checks;
#[path = "../../crates/ports/groundtackle-health-check/tests/checks/mod.rs"]
mod health_checks;
#[path = "../../crates/adapters/groundtackle-backup-unpack/tests/checks/mod.rs"]
mod second_reader_checks;
#[path = "../../crates/ports/groundtackle-utxo-store/tests/checks/mod.rs"]
mod store_checks;

pub use backup_checks::*;
pub use checks::*;
pub use gate_checks::*;
pub use health_checks::*;
pub use second_reader_checks::*;
pub use store_checks::*;
