use std::path::PathBuf;

use groundtackle_health_check_notify_discord::DiscordUrl;
use serde::Deserialize;

/// Which channel is told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GateDiscordConfig {
    /// The channel's webhook. Of it scheme, host and port are shown.
    pub url: DiscordUrl,
    /// What the policy calls the place that failures of pipelines are reported to. Default `"discord"`.
    #[serde(default = "discord")]
    pub place: String,
    /// The certificates of the authorities that are believed, as a PEM file. Default: the system's.
    #[serde(default)]
    pub authorities: Option<PathBuf>,
}

fn discord() -> String {
    "discord".into()
}

impl GateDiscordConfig {
    /// As `"discord"`, by the system's authorities.
    #[must_use]
    pub fn new(url: DiscordUrl) -> Self {
        Self {
            url,
            place: discord(),
            authorities: None,
        }
    }
}
