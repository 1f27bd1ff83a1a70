use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use groundtackle_core::Secret;
use groundtackle_health_check::{Message, Notifier, Result};
use groundtackle_health_check_client::SafeUrl;
use serde::Deserialize;

use crate::channel::{Channel, send};
use crate::layout::posts;

/// A webhook's URL, as Discord shows it: `https://discord.com/api/webhooks/…/…`. Of it scheme, host and port are shown. It may have a
/// `thread_id`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Secret")]
pub struct DiscordUrl(pub(crate) SafeUrl);

impl TryFrom<Secret> for DiscordUrl {
    type Error = String;

    fn try_from(text: Secret) -> Result<Self, String> {
        // Discord takes what it then loses, unless it is told that somebody waits for it to be stored.
        let text = text.expose();
        let joint = if text.contains('?') { '&' } else { '?' };
        let url: Result<SafeUrl, _> = format!("{text}{joint}wait=true").parse();
        url.map(Self).map_err(|error| error.to_string())
    }
}

/// Where to tell.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DiscordConfig {
    /// The channel's webhook.
    pub url: DiscordUrl,
    /// What tells: a service, or a host. Each message begins with it; 200 characters of it are shown.
    pub service: String,
    /// The certificates of the authorities that are believed, as a PEM file. Default: the system's.
    #[serde(default)]
    pub authorities: Option<PathBuf>,
}

impl DiscordConfig {
    /// By the system's authorities.
    #[must_use]
    pub fn new(url: DiscordUrl, service: impl Into<String>) -> Self {
        Self {
            url,
            service: service.into(),
            authorities: None,
        }
    }
}

/// Tells a channel of Discord.
#[derive(Debug)]
pub struct Discord {
    channel: Channel,
    service: String,
    /// A message of several posts that was broken off, and how many of them were taken.
    begun: Mutex<Option<(Message, usize)>>,
}

impl From<DiscordConfig> for Discord {
    fn from(config: DiscordConfig) -> Self {
        Self {
            channel: Channel::new(config.url, config.authorities),
            service: config.service,
            begun: Mutex::new(None),
        }
    }
}

#[async_trait]
impl Notifier for Discord {
    async fn notify(&self, message: &Message) -> Result<()> {
        let begun = || self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = match &*begun() {
            Some((same, taken)) if same == message => *taken,
            _ => 0,
        };
        let mut posting = self.channel.begin();
        for (i, post) in posts(&self.service, message).iter().enumerate().skip(taken) {
            send(&mut posting, post).await?;
            *begun() = Some((message.clone(), i.saturating_add(1)));
        }
        *begun() = None;
        Ok(())
    }
}
