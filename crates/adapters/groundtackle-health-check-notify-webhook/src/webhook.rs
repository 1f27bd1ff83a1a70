use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use groundtackle_health_check::{Message, Notifier, Result};
use groundtackle_health_check_client::{Headers, SafeUrl};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::delivery::Delivery;
use crate::item::Item;
use crate::signature::{SigningKey, signature};

/// Where to tell, and how to sign.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WebhookConfig {
    /// Where to. Of it scheme, host and port are shown.
    pub url: SafeUrl,
    /// What to sign with: `"whsec_…"`. Not shown.
    pub key: SigningKey,
    /// What tells: a service, or a host. It is part of each message.
    pub service: String,
    /// Further headers to send. Their values are not shown. Default: none.
    #[serde(default)]
    pub headers: Headers,
    /// The certificates of the authorities that are believed, as a PEM file. Default: the system's.
    #[serde(default)]
    pub authorities: Option<PathBuf>,
}

impl WebhookConfig {
    /// Without further headers, by the system's authorities.
    #[must_use]
    pub fn new(url: SafeUrl, key: SigningKey, service: impl Into<String>) -> Self {
        Self {
            url,
            key,
            service: service.into(),
            headers: Headers::default(),
            authorities: None,
        }
    }
}

/// Tells a webhook.
#[derive(Debug)]
pub struct Webhook {
    delivery: Delivery,
    key: SigningKey,
    service: String,
    /// What was not taken yet, with its id: repeated, it is known again.
    pending: Mutex<Option<(Message, String)>>,
}

#[derive(Serialize)]
struct Body<'a> {
    version: u8,
    service: &'a str,
    items: Vec<Item>,
    lost: u64,
}

impl From<WebhookConfig> for Webhook {
    fn from(config: WebhookConfig) -> Self {
        Self {
            delivery: Delivery::new("webhook", config.url, config.headers, config.authorities),
            key: config.key,
            service: config.service,
            pending: Mutex::new(None),
        }
    }
}

impl Webhook {
    fn id(&self, message: &Message) -> String {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        match &*pending {
            Some((same, id)) if same == message => id.clone(),
            _ => {
                let id = format!("msg_{:032x}", fastrand::u128(..));
                *pending = Some((message.clone(), id.clone()));
                id
            }
        }
    }
}

#[async_trait]
impl Notifier for Webhook {
    async fn notify(&self, message: &Message) -> Result<()> {
        let id = self.id(message);
        let body = Body {
            version: 1,
            service: &self.service,
            items: message.items.iter().filter_map(Item::new).collect(),
            lost: message.lost,
        };
        // Texts and numbers are always JSON.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let signed = signature(&self.key, &id, now.as_secs(), &body);
        let headers = [
            ("webhook-id", id),
            ("webhook-timestamp", now.as_secs().to_string()),
            ("webhook-signature", signed),
        ];
        let headers = headers.into_iter().filter_map(|(name, value)| {
            let value = HeaderValue::try_from(value).ok()?;
            Some((HeaderName::from_static(name), value))
        });
        let headers = HeaderMap::from_iter(headers);
        self.delivery.begin().post(headers, body).await?;
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}
