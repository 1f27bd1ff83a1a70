#![doc = include_str!("../README.md")]

mod event;
mod pagerduty;

pub use groundtackle_health_check_notify_webhook::SafeUrl;
pub use pagerduty::{PagerDuty, PagerDutyConfig};
