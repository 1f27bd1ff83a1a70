#![doc = include_str!("../README.md")]

mod config;
mod export;
mod json;
mod metrics;
mod page;
mod server;

pub use config::HttpHealthConfig;
pub use export::{RUNBOOK, grafana_dashboard, prometheus_rules};
pub use server::router;
