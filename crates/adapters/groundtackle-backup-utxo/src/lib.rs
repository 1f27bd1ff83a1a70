#![doc = include_str!("../README.md")]

mod blocks;
pub mod codec;
pub mod delta;
mod digest_sink;
mod drill;
mod error;
mod fold;
pub mod journal;
mod run;
mod settle;
mod sink;
mod source;
mod window;

pub use digest_sink::DigestSink;
pub use drill::{DigestGround, StoreGround};
pub use fold::{Folded, fold};
pub use journal::{Epoch, Journal, JournalError, Journaled};
pub use run::{Made, SetBackup};
pub use settle::DELTAS;
pub use sink::StoreSink;
pub use source::{BaseSource, COINS};
