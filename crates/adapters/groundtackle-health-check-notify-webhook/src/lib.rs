#![doc = include_str!("../README.md")]

mod delivery;
mod item;
mod signature;
mod webhook;

pub use delivery::{Delivery, Posting};
pub use groundtackle_health_check_client::SafeUrl;
pub use item::{Item, Kind};
pub use signature::{SigningKey, signature};
pub use webhook::{Webhook, WebhookConfig};
