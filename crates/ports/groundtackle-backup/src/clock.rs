//! Time and randomness, from outside.

use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use groundtackle_core::Retryability;

/// What time it is. Tests bring their own.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time.
    fn now(&self) -> SystemTime;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// Milliseconds since 1970; 0 for a time before.
pub(crate) fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Where keys and names come from: whoever can guess these can read what is sealed.
pub trait Entropy: Debug + Send + Sync + 'static {
    /// Fills `bytes` with what nobody can foresee.
    ///
    /// # Errors
    /// When there is none.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// The system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes).map_err(|error| {
            Error::backend(
                "the system",
                "drawing random bytes",
                Retryability::Transient,
                error,
            )
        })
    }
}
