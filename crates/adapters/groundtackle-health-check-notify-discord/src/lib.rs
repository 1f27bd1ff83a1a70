#![doc = include_str!("../README.md")]

mod channel;
mod discord;
mod layout;
mod text;

pub use channel::{Channel, Note};
pub use discord::{Discord, DiscordConfig, DiscordUrl};
pub use groundtackle_health_check_client::SafeUrl;
