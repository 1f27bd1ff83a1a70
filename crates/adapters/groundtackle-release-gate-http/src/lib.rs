#![doc = include_str!("../README.md")]

mod config;
mod evidence;
mod question;
mod webhook;

pub use config::{HttpEvidenceConfig, HttpGateConfig};
pub use evidence::HttpEvidence;
pub use webhook::{Recorder, Webhook, router};
