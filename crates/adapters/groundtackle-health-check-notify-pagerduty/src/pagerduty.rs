use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use groundtackle_core::Secret;
use groundtackle_health_check::{Message, Notifier, Result, Retryability};
use groundtackle_health_check_client::Headers;
use groundtackle_health_check_notify_webhook::{Delivery, Item, SafeUrl};
use http::HeaderMap;
use serde::Deserialize;

use crate::event::Event;

/// Where to tell.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Config")]
#[non_exhaustive]
pub struct PagerDutyConfig {
    /// The integration key of a service's Events API v2 integration: 32 characters. Not shown.
    pub routing_key: Secret,
    /// What tells: a service, or a host. Incidents have it as their source, and are told apart by it: two processes that check the same
    /// under the same name open and resolve one incident.
    pub service: String,
    /// Where events go. Default `"https://events.pagerduty.com/v2/enqueue"`; in the EU `"https://events.eu.pagerduty.com/v2/enqueue"`.
    pub url: SafeUrl,
    /// The certificates of the authorities that are believed, as a PEM file. Default: the system's.
    pub authorities: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    routing_key: Secret,
    service: String,
    url: Option<SafeUrl>,
    authorities: Option<PathBuf>,
}

impl TryFrom<Config> for PagerDutyConfig {
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn try_from(config: Config) -> Result<Self, Self::Error> {
        let of = Self::new(config.routing_key, config.service)?;
        Ok(Self {
            url: config.url.unwrap_or(of.url),
            authorities: config.authorities,
            ..of
        })
    }
}

impl PagerDutyConfig {
    /// At PagerDuty's own address, by the system's authorities.
    ///
    /// # Errors
    /// For a key that is none, or a service without a name. Neither is told.
    pub fn new(
        routing_key: impl Into<Secret>,
        service: impl Into<String>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let (routing_key, service) = (routing_key.into(), service.into());
        let key = routing_key.expose();
        if key.len() != 32 || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(
                "has a routing_key that is no integration key: it has 32 letters and digits".into(),
            );
        }
        if service.trim().is_empty() {
            return Err("has an empty service; name what tells".into());
        }
        Ok(Self {
            routing_key,
            service,
            url: "https://events.pagerduty.com/v2/enqueue".parse()?,
            authorities: None,
        })
    }
}

/// Opens and resolves incidents of PagerDuty.
#[derive(Debug)]
pub struct PagerDuty {
    delivery: Delivery,
    routing_key: Secret,
    service: String,
    /// A message that was broken off, and how many of its events were taken.
    begun: Mutex<Option<(Message, usize)>>,
}

impl From<PagerDutyConfig> for PagerDuty {
    fn from(config: PagerDutyConfig) -> Self {
        let headers = Headers::default();
        Self {
            delivery: Delivery::new("pagerduty", config.url, headers, config.authorities),
            routing_key: config.routing_key,
            service: config.service,
            begun: Mutex::new(None),
        }
    }
}

#[async_trait]
impl Notifier for PagerDuty {
    async fn notify(&self, message: &Message) -> Result<()> {
        let begun = || self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = match &*begun() {
            Some((same, taken)) if same == message => *taken,
            _ => 0,
        };
        let mut posting = self.delivery.begin();
        let mut refused = None;
        for (i, news) in message.items.iter().enumerate().skip(taken) {
            let Some(item) = Item::new(news) else {
                continue;
            };
            let key = self.routing_key.expose();
            let event = Event::new(key, &self.service, &item, message.lost);
            // Texts and numbers are always JSON.
            let body = serde_json::to_vec(&event).unwrap_or_default();
            match posting.post(HeaderMap::new(), body).await {
                Ok(()) if refused.is_none() => {
                    *begun() = Some((message.clone(), i.saturating_add(1)));
                }
                Ok(()) => {}
                // One that is never taken must not keep the others from being told.
                Err(error) if error.retryability() == Retryability::Permanent => {
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = refused {
            return Err(error);
        }
        *begun() = None;
        Ok(())
    }
}
