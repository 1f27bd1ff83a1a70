//! What changes, as it changes.

use tokio::sync::broadcast::{self, error::RecvError};

use crate::burn::Severity;
use crate::check::Kind;
use crate::outcome::{Cause, Name, Outcome};

/// Events that a slow reader may be behind, before it loses the oldest.
pub(crate) const CAPACITY: usize = 1024;

/// A check reads otherwise than before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckChange {
    /// When, in milliseconds since 1970.
    pub unix_millis: u64,
    /// Which one.
    pub name: Name,
    /// What it is for.
    pub kind: Kind,
    /// How it was.
    pub from: Outcome,
    /// How it is.
    pub to: Outcome,
    /// Why.
    pub cause: Cause,
    /// The failed check that hides how this one is.
    pub caused_by: Option<Name>,
    /// Whether it is under maintenance.
    pub in_maintenance: bool,
}

/// A burn-rate alert begins or ends.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AlertChange {
    /// When, in milliseconds since 1970.
    pub unix_millis: u64,
    /// Of which objective.
    pub objective: Name,
    /// What it asks for.
    pub severity: Severity,
    /// Its long window, in seconds.
    pub long_secs: u64,
    /// Whether it fires now.
    pub firing: bool,
    /// The burn rate over the long window.
    pub burn: Option<f64>,
}

/// Something changed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A check reads otherwise.
    Check(CheckChange),
    /// A burn-rate alert begins or ends.
    Alert(AlertChange),
    /// The reader was too slow: this many events are lost. What is now, the view says.
    Lost(u64),
}

/// Changes from when it was made on, in their order. It holds the last 1024 that were not read.
#[derive(Debug)]
pub struct EventStream(broadcast::Receiver<Event>);

impl EventStream {
    pub(crate) const fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self(receiver)
    }

    /// The next change; `None` once nobody can make any more.
    ///
    /// **Cancel safety**: nothing is lost.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(lost)) => Some(Event::Lost(lost)),
            Err(RecvError::Closed) => None,
        }
    }
}
