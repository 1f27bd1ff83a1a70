#![doc = include_str!("../README.md")]

mod discord;
mod layout;
mod text;

pub use discord::{Discord, DiscordConfig, DiscordUrl};
pub use groundtackle_health_check_notify_webhook::SafeUrl;
