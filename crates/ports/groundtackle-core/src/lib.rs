#![doc = include_str!("../README.md")]

mod fail_point;
mod retry;
mod secret;
mod size;

#[doc(hidden)]
pub use fail_point::fail_point;
pub use retry::{InvalidRetryConfig, RetryConfig, RetrySchedule, Retryability};
pub use secret::Secret;
pub use size::{ByteSize, ParseByteSizeError};
