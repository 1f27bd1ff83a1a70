#![doc = include_str!("../README.md")]

mod api;
mod changes;
mod config;
mod deployments;
mod error;
mod issues;
mod protection;
mod record;
mod source;

pub use config::{
    BlockerRule, CheckRule, GitHubConfig, IncidentRule, MeasureRule, Repository, WorkflowRule,
};
pub use protection::{ProtectionRequest, WebhookSecret};
pub use source::GitHub;
