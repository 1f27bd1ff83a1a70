//! Decorators: stores around a store, each a whole [`UtxoStore`](crate::UtxoStore), in any order.
//!
//! ```
//! use groundtackle_utxo_store::MemoryUtxoStore;
//! use groundtackle_utxo_store::decorators::{Bounded, BoundedConfig, Retrying, Traced};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let retrying = Retrying::new(MemoryUtxoStore::new(), Default::default())?;
//! let store = Traced::new(Bounded::new(retrying, BoundedConfig::default())?);
//! # Ok(())
//! # }
//! ```

mod bounded;
mod retrying;
#[cfg(test)]
mod tests;
mod traced;

pub use bounded::{Bounded, BoundedConfig};
pub use retrying::Retrying;
pub use traced::Traced;
