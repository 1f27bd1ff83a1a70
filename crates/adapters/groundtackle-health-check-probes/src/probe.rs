use std::error::Error;

use async_trait::async_trait;
use groundtackle_health_check::{Check, Observation};
use serde::Deserialize;

use crate::clock::{ClockCheck, ClockProbe};
use crate::command::CommandProbe;
use crate::disk::{DiskCheck, DiskProbe};
use crate::dns::{DnsCheck, DnsProbe};
use crate::http::{HttpCheck, HttpProbe};
use crate::tcp::{TcpCheck, TcpProbe};
use crate::tls::{TlsCheck, TlsProbe};

/// What to look at.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Probe {
    /// Whether a port takes connections.
    Tcp(TcpProbe),
    /// Whether a server answers what it should over HTTP.
    Http(HttpProbe),
    /// Whether a server's certificate is good, and for how long.
    Tls(TlsProbe),
    /// Whether a name has records.
    Dns(DnsProbe),
    /// Whether a file system has space.
    Disk(DiskProbe),
    /// Whether this machine's clock is right.
    Clock(ClockProbe),
    /// Whether a program says that all is well.
    Command(CommandProbe),
}

/// Looks as a [`Probe`] says.
#[derive(Debug)]
pub struct ProbeCheck(Box<dyn Check>);

impl From<Probe> for ProbeCheck {
    fn from(probe: Probe) -> Self {
        Self(match probe {
            Probe::Tcp(probe) => Box::new(TcpCheck::from(probe)),
            Probe::Http(probe) => Box::new(HttpCheck::from(probe)),
            Probe::Tls(probe) => Box::new(TlsCheck::from(probe)),
            Probe::Dns(probe) => Box::new(DnsCheck::from(probe)),
            Probe::Disk(probe) => Box::new(DiskCheck::from(probe)),
            Probe::Clock(probe) => Box::new(ClockCheck::from(probe)),
            Probe::Command(probe) => Box::new(probe),
        })
    }
}

#[async_trait]
impl Check for ProbeCheck {
    async fn check(&self) -> Observation {
        self.0.check().await
    }
}

/// What was found, and why there is nothing further to look at.
pub(crate) fn either(seen: Result<Observation, Observation>) -> Observation {
    let (Ok(seen) | Err(seen)) = seen;
    seen
}

pub(crate) fn failed(
    cause: &'static str,
    what: impl std::fmt::Display,
    error: &dyn Error,
) -> Observation {
    Observation::fail(cause).with_detail(format!("{what}: {error}"))
}
