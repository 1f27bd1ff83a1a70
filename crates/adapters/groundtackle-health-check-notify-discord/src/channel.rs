use std::path::PathBuf;

use groundtackle_health_check::Result;
use groundtackle_health_check_client::Headers;
use groundtackle_health_check_notify_webhook::{Delivery, Posting};
use http::HeaderMap;

use crate::discord::DiscordUrl;
use crate::layout::{Post, post_of};

/// A message of one's own: a line, and below it fields with a name and a value. All of it is shown as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub(crate) line: String,
    pub(crate) color: u32,
    pub(crate) fields: Vec<(String, String)>,
}

impl Note {
    /// With a line. The color is that of the bar beside the fields: red, green and blue of eight bits each.
    #[must_use]
    pub fn new(line: impl Into<String>, color: u32) -> Self {
        Self {
            line: line.into(),
            color,
            fields: Vec::new(),
        }
    }

    /// With one more field.
    #[must_use]
    pub fn with_field(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }
}

/// A channel, by one of its webhooks: what the notifier posts by, for messages of one's own.
#[derive(Debug)]
pub struct Channel(Delivery);

impl Channel {
    /// `authorities` are the certificates of those that are believed, as a PEM file; `None`: the system's.
    #[must_use]
    pub fn new(url: DiscordUrl, authorities: Option<PathBuf>) -> Self {
        Self(Delivery::new(
            "discord",
            url.0,
            Headers::default(),
            authorities,
        ))
    }

    /// Posts a note as one message, each of its texts cut to the room that Discord has for it; of more than 25 fields the last ones are
    /// counted.
    ///
    /// **Idempotency**: none; each call is a message. **Cancel safety**: dropped, it may have arrived.
    ///
    /// # Errors
    /// `Notify`.
    pub async fn post(&self, note: &Note) -> Result<()> {
        send(&mut self.begin(), &post_of(note)).await
    }

    pub(crate) const fn begin(&self) -> Posting<'_> {
        self.0.begin()
    }
}

pub(crate) async fn send(posting: &mut Posting<'_>, post: &Post) -> Result<()> {
    // Texts and numbers are always JSON.
    let body = serde_json::to_vec(post).unwrap_or_default();
    posting.post(HeaderMap::new(), body).await
}
