#![doc = include_str!("../README.md")]

mod open;
mod service;

pub use open::{around, open};
pub use service::{Answer, Broken, Service};
