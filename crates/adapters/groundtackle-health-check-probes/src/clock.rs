use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use groundtackle_health_check::{Check, Observation};
use groundtackle_health_check_client::{Dialer, Endpoint};
use rsntp::{AsyncSntpClient, Config};
use serde::Deserialize;

use crate::probe::{either, failed};

/// This machine's clock, compared with time servers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
#[non_exhaustive]
pub struct ClockProbe {
    /// Servers that speak (S)NTP, with their port: `"ntp.example:123"`. From 1 to 16; take at least three, so that one that is wrong
    /// decides nothing.
    pub servers: Vec<Endpoint>,
    /// Further away than this it is `Warn`. Default `"100ms"`.
    pub warn_skew: Duration,
    /// Further away than this it is `Fail`. Default `"1s"`.
    pub fail_skew: Duration,
    /// How long a server may take. Default `"1s"`: below the check's own timeout, so that the others decide.
    pub server_timeout: Duration,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    servers: Vec<Endpoint>,
    #[serde(
        default = "warn_skew",
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required"
    )]
    warn_skew: Duration,
    #[serde(
        default = "second",
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required"
    )]
    fail_skew: Duration,
    #[serde(
        default = "second",
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required"
    )]
    server_timeout: Duration,
}

const fn warn_skew() -> Duration {
    Duration::from_millis(100)
}

const fn second() -> Duration {
    Duration::from_secs(1)
}

/// As many servers as one check asks.
const MAX_SERVERS: usize = 16;

impl TryFrom<Written> for ClockProbe {
    type Error = &'static str;

    fn try_from(of: Written) -> Result<Self, &'static str> {
        if of.servers.is_empty() || of.servers.len() > MAX_SERVERS {
            return Err("servers must name from 1 to 16 time servers");
        }
        if of.fail_skew < of.warn_skew {
            return Err("fail_skew is below warn_skew, so that it would never warn");
        }
        let Written {
            servers,
            warn_skew,
            fail_skew,
            server_timeout,
        } = of;
        Ok(Self {
            servers,
            warn_skew,
            fail_skew,
            server_timeout,
        })
    }
}

impl ClockProbe {
    /// A probe by these servers.
    pub fn new(servers: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            servers: servers.into_iter().take(MAX_SERVERS).collect(),
            warn_skew: warn_skew(),
            fail_skew: second(),
            server_timeout: second(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct ClockCheck {
    probe: ClockProbe,
    dialer: Dialer,
}

impl From<ClockProbe> for ClockCheck {
    fn from(probe: ClockProbe) -> Self {
        let dialer = Dialer::default();
        Self { probe, dialer }
    }
}

impl ClockCheck {
    /// How far away a server says that this clock is, in seconds: above zero it is late.
    async fn ask(&self, server: &Endpoint) -> Result<f64, Observation> {
        let addresses = self
            .dialer
            .resolve(server)
            .await
            .map_err(|error| error.observation())?;
        let address = addresses
            .first()
            .ok_or_else(|| Observation::unknown("no-time"))?;
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let config = Config::default()
            .bind_address(any)
            .timeout(self.probe.server_timeout);
        let answer = AsyncSntpClient::with_config(config)
            .synchronize(*address)
            .await;
        let answer = answer.map_err(|error| failed("no-time", server, &error))?;
        // Half of the way there and back is what the answer may be wrong by.
        let error = answer.round_trip_delay().as_secs_f64().abs() / 2.0;
        if error > self.probe.warn_skew.as_secs_f64() {
            let detail =
                format!("{server}: the way there and back takes too long to tell ({error:.3} s)");
            return Err(Observation::unknown("no-time").with_detail(detail));
        }
        Ok(answer.clock_offset().as_secs_f64())
    }

    async fn look(&self) -> Result<Observation, Observation> {
        let asked = join_all(self.probe.servers.iter().map(|server| self.ask(server))).await;
        let (mut offsets, mut problems) = (Vec::new(), Vec::new());
        for answer in asked {
            match answer {
                Ok(offset) => offsets.push(offset),
                Err(seen) => problems.push(seen.detail.unwrap_or_default()),
            }
        }
        offsets.sort_by(f64::total_cmp);
        let most = offsets.len().saturating_mul(2) > self.probe.servers.len();
        let Some(offset) = offsets.get(offsets.len() / 2).filter(|_| most) else {
            return Err(Observation::unknown("no-time").with_detail(problems.join("; ")));
        };
        let skew = offset.abs();
        let seen = if skew > self.probe.fail_skew.as_secs_f64() {
            Observation::fail("clock-skew")
        } else if skew > self.probe.warn_skew.as_secs_f64() {
            Observation::warn("clock-skew")
        } else {
            Observation::pass()
        };
        let way = if *offset > 0.0 { "late" } else { "early" };
        Ok(seen.with_detail(format!("{skew:.3} s {way}, by {} servers", offsets.len())))
    }
}

#[async_trait]
impl Check for ClockCheck {
    async fn check(&self) -> Observation {
        either(self.look().await)
    }
}
