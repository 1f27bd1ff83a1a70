#![doc = include_str!("../README.md")]

mod carry;
mod copy;
mod error;
mod live;
mod migration;
mod phase;
mod stores;

pub use error::{Error, Result};
pub use live::{Live, Serving};
pub use migration::{Blocks, Migration, Options, Switched};
pub use phase::Phase;
pub use stores::StoreUrl;
