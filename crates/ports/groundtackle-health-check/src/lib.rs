#![doc = include_str!("../README.md")]

mod builder;
mod burn;
mod check;
mod clock;
mod config;
mod error;
mod events;
mod file_ledger;
mod graph;
mod health;
mod hysteresis;
mod ledger;
mod maintenance;
mod notify;
mod objective;
mod outcome;
mod scheduler;
mod view;

pub use builder::Builder;
pub use burn::{AlertPolicy, BurnAlert, Severity, largest_burn_rate, time_to_exhaustion};
pub use check::{Check, Heartbeat, Kind, Schedule, Settings};
pub use clock::{Clock, Moment, SystemClock};
pub use config::{CheckConfig, HealthConfig, NoService};
pub use error::{Error, Result};
pub use events::{AlertChange, CheckChange, Event, EventStream};
pub use file_ledger::FileLedger;
pub use graph::Graph;
pub use groundtackle_core::Retryability;
pub use health::{Health, Reporter};
pub use ledger::{Bucket, LedgerEntry, LedgerStorage};
pub use maintenance::{Declared, Maintenance};
pub use notify::{Message, News, Notifications, Notifier, NotifyConfig};
pub use objective::{Counts, Measure, Objective, ServiceLevel, Window};
pub use outcome::{Cause, Name, Observation, Outcome};
pub use scheduler::Scheduler;
pub use view::{Audience, Reading, Seen, Verdict, View, Waiting};
