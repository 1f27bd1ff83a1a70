#![doc = include_str!("../README.md")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test kit asserts"
)]

mod checks;
mod clock;
mod notifiers;
mod scripted;
mod servers;
mod watched;

use std::io::Write;
use std::time::Duration;

pub use checks::{CheckHarness, State, check_cases, run_check};
pub use clock::FaultClock;
pub use notifiers::{NotifierHarness, notifier_cases, run_notifier};
pub use scripted::{Act, Scripted};
pub use servers::{Faults, ServerHarness};
pub use watched::{Watched, becomes};

/// Nothing that works takes longer on any machine.
const LONG: Duration = Duration::from_secs(60);

/// Says on standard error that a test was skipped, past the test runner's capture: what is not tested must be seen.
///
/// # Panics
/// Where there is no standard error.
pub fn skipped(case: &str, reason: &str) {
    writeln!(std::io::stderr(), "skipped: {case}: {reason}").expect("standard error is open");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system grants threads")
}

/// Polls once, and drops what has not ended.
async fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = std::future::ready(()) => None,
    }
}
