#![doc = include_str!("../README.md")]

mod client;
mod compare;
mod error;
mod findings;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod node;
mod references;
mod standstill;

pub use client::{RpcClient, Session};
pub use compare::{Compared, Comparison};
pub use error::{Result, RpcError};
pub use findings::Findings;
pub use node::{Node, NodeUrl};
pub use references::{References, lower_median};
pub use standstill::Standstill;
