#![doc = include_str!("../README.md")]

mod retry;
mod size;

pub use retry::{InvalidRetryConfig, RetryConfig, RetrySchedule, Retryability};
pub use size::{ByteSize, ParseByteSizeError};
