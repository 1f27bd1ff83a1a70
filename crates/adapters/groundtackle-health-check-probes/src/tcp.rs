use async_trait::async_trait;
use groundtackle_health_check::{Check, Observation};
use groundtackle_health_check_client::{Dialer, Endpoint};
use serde::Deserialize;

/// A port that takes connections.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TcpProbe {
    /// Host and port, such as `"127.0.0.1:8332"` or `"[::1]:8332"`. Of a name with several addresses one must answer.
    pub address: Endpoint,
}

impl TcpProbe {
    /// A probe of this port.
    #[must_use]
    pub const fn new(address: Endpoint) -> Self {
        Self { address }
    }
}

#[derive(Debug)]
pub(crate) struct TcpCheck {
    probe: TcpProbe,
    dialer: Dialer,
}

impl From<TcpProbe> for TcpCheck {
    fn from(probe: TcpProbe) -> Self {
        let dialer = Dialer::default();
        Self { probe, dialer }
    }
}

#[async_trait]
impl Check for TcpCheck {
    async fn check(&self) -> Observation {
        match self.dialer.connect(&self.probe.address).await {
            Ok(_) => Observation::pass(),
            Err(error) => error.observation(),
        }
    }
}
