#![doc = include_str!("../README.md")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test kit asserts"
)]

mod deployers;
mod scripted;
mod sources;

use std::io::Write;
use std::time::Duration;

use groundtackle_release_gate::{
    Action, Digest, Environment, Escalation, Freeze, Gate, Length, Policy, Request, Severity,
    Timestamp, Zone,
};

pub use deployers::{DeployerHarness, deployer_cases, run_deployer};
pub use scripted::{Act, Done, ScriptedDeployer, ScriptedSource};
pub use sources::{SourceHarness, State, run_source, source_cases};

/// Nothing that works takes longer on any machine.
const LONG: Duration = Duration::from_secs(60);

/// To deploy `node` 1.4.0 to `production`, asked by `olga`.
#[must_use]
pub fn request() -> Request {
    Request {
        name: "node".into(),
        tag: "1.4.0".into(),
        artefact: Digest::of(b"node 1.4.0"),
        environment: "production".into(),
        action: Action::Deploy,
        actor: "olga".into(),
        takes: None,
    }
}

/// A policy by which [`request`] is go at [`now`], and holds at [`frozen`]: operations, which is `olga`, act in `production`, but not in a
/// week in December. Major incidents are hers.
#[must_use]
pub fn policy() -> Policy {
    let mut policy = Policy::new("small").with_role("operations", &["olga"]);
    let mut production = Environment::new("production");
    production.actors = vec!["operations".into()];
    policy.environments.push(production);
    policy.permit_for = Length::minutes(10);
    policy.freezes.push(Freeze {
        name: "a week in December".into(),
        environments: Vec::new(),
        zone: Zone::utc(),
        from: jiff::civil::date(2026, 12, 1).into(),
        until: jiff::civil::date(2026, 12, 8).into(),
    });
    policy.escalations.push(Escalation {
        severity: Severity::Major,
        owner: "olga".into(),
        steps: Vec::new(),
    });
    policy
}

/// By [`policy`].
#[must_use]
pub fn gate() -> Gate {
    Gate::new(policy()).expect("the policy makes sense")
}

/// A Tuesday at noon in Berlin, in the middle of a quarter.
#[must_use]
pub fn now() -> Timestamp {
    "2026-11-10T11:00:00Z".parse().expect("it is an instant")
}

/// In the freeze of [`policy`].
#[must_use]
pub fn frozen() -> Timestamp {
    "2026-12-02T11:00:00Z".parse().expect("it is an instant")
}

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
