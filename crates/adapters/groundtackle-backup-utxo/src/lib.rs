#![doc = include_str!("../README.md")]

mod blocks;
pub mod codec;
pub mod delta;
mod error;
pub mod journal;
mod run;
mod sink;
mod source;
mod window;

pub use journal::{Epoch, Journal, JournalError, Journaled};
pub use run::{Made, SetBackup};
pub use sink::{DELTAS, StoreSink};
pub use source::{BaseSource, COINS};
