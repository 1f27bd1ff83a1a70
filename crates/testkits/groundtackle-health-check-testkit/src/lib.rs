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

use std::io::Write;
use std::time::Duration;

pub use checks::{CheckHarness, State, check_cases, run_check};
pub use clock::FaultClock;
pub use notifiers::{NotifierHarness, notifier_cases, run_notifier};
pub use scripted::{Act, Scripted};

/// Nothing that works takes longer on any machine.
const LONG: Duration = Duration::from_secs(60);

/// Past the test runner's capture: what is not tested must be seen.
fn skipped(case: &str, reason: &str) {
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
