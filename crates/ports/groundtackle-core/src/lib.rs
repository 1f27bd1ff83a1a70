#![doc = include_str!("../README.md")]

mod retry;
mod secret;
mod size;

pub use retry::{InvalidRetryConfig, RetryConfig, RetrySchedule, Retryability};
pub use secret::Secret;
pub use size::{ByteSize, ParseByteSizeError};
