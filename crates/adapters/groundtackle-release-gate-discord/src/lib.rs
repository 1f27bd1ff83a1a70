#![doc = include_str!("../README.md")]

mod config;
mod posts;

pub use config::GateDiscordConfig;
pub use groundtackle_health_check_notify_discord::DiscordUrl;
pub use posts::GateDiscord;
