use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use groundtackle_health_check::{Check, Observation};
use groundtackle_health_check_client::{Dialer, Endpoint};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use serde::Deserialize;

use crate::probe::{either, failed};

/// A name that has records.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
#[non_exhaustive]
pub struct DnsProbe {
    /// The name, complete: no domain is searched for it.
    pub name: DnsName,
    /// Of which type. Default: addresses, of servers IPv4 ones.
    pub record: Option<Record>,
    /// The servers to ask, as address and port, such as `"192.0.2.1:53"`; the next is asked where one does not answer. Default: the
    /// system's resolver, with what else it knows, such as `/etc/hosts`.
    pub servers: Vec<SocketAddr>,
    /// What must be among the records, as zone files have it: `"192.0.2.7"`, `"10 mail.example"`. Default: anything.
    pub expect: Vec<String>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: DnsName,
    #[serde(default)]
    record: Option<Record>,
    #[serde(default)]
    servers: Vec<SocketAddr>,
    #[serde(default)]
    expect: Vec<String>,
}

/// A name that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DnsName {
    text: String,
    name: Name,
}

impl TryFrom<String> for DnsName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no name: write labels of at most 63 characters, such as node.example"
            )
        };
        let mut name = Name::from_utf8(&text).map_err(|_| wrong())?;
        if text.is_empty() || name.is_root() {
            return Err(wrong());
        }
        name.set_fqdn(true);
        Ok(Self { text, name })
    }
}

/// The type of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum Record {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Another name.
    Cname,
    /// Mail servers.
    Mx,
    /// Name servers.
    Ns,
    /// Services.
    Srv,
    /// Texts.
    Txt,
}

impl Record {
    const fn kind(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Cname => RecordType::CNAME,
            Self::Mx => RecordType::MX,
            Self::Ns => RecordType::NS,
            Self::Srv => RecordType::SRV,
            Self::Txt => RecordType::TXT,
        }
    }
}

impl TryFrom<Written> for DnsProbe {
    type Error = &'static str;

    fn try_from(of: Written) -> Result<Self, &'static str> {
        let addresses = matches!(of.record, None | Some(Record::A | Record::Aaaa));
        if of.servers.is_empty() && !addresses {
            return Err(
                "the system's resolver knows addresses only: name servers, or leave record out",
            );
        }
        let Written {
            name,
            record,
            servers,
            expect,
        } = of;
        Ok(Self {
            name,
            record,
            servers,
            expect,
        })
    }
}

impl DnsProbe {
    /// A probe of the addresses of this name, by the system's resolver.
    #[must_use]
    pub const fn new(name: DnsName) -> Self {
        Self {
            name,
            record: None,
            servers: Vec::new(),
            expect: Vec::new(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct DnsCheck {
    probe: DnsProbe,
    dialer: Dialer,
}

impl From<DnsProbe> for DnsCheck {
    fn from(probe: DnsProbe) -> Self {
        let dialer = Dialer::default();
        Self { probe, dialer }
    }
}

/// As often as a server is asked again, and when: packets get lost.
const ATTEMPTS: usize = 2;
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What is the same for a resolver, in the same form.
fn plain(text: &str) -> String {
    text.trim_end_matches('.').to_ascii_lowercase()
}

impl DnsCheck {
    async fn look(&self) -> Result<Observation, Observation> {
        let name = &self.probe.name.text;
        let found = if self.probe.servers.is_empty() {
            self.ask_the_system().await?
        } else {
            self.ask_servers().await?
        };
        if found.is_empty() {
            return Err(
                Observation::fail("no-record").with_detail(format!("{name} has no such record"))
            );
        }
        let has = |wanted: &&String| !found.contains(&plain(wanted));
        if let Some(missing) = self.probe.expect.iter().find(has) {
            let found = found.join(", ");
            return Err(Observation::fail("unexpected-record")
                .with_detail(format!("{name} has not {missing} but {found}")));
        }
        Ok(Observation::pass().with_detail(format!("{} records", found.len())))
    }

    async fn ask_the_system(&self) -> Result<Vec<String>, Observation> {
        // The port is not asked for.
        let endpoint: Endpoint = format!("{}:1", plain(&self.probe.name.text))
            .parse()
            .map_err(|error| failed("name-not-found", &self.probe.name.text, &error))?;
        let found = self
            .dialer
            .resolve(&endpoint)
            .await
            .map_err(|error| error.observation())?;
        let wanted = |address: &SocketAddr| match self.probe.record {
            Some(Record::A) => address.is_ipv4(),
            Some(Record::Aaaa) => address.is_ipv6(),
            _ => true,
        };
        Ok(found
            .iter()
            .filter(|address| wanted(address))
            .map(|address| address.ip().to_string())
            .collect())
    }

    /// With a resolver of this run alone: nothing is cached, and nothing is left behind.
    async fn ask_servers(&self) -> Result<Vec<String>, Observation> {
        let name = &self.probe.name.text;
        let server = |address: &SocketAddr| {
            let connections =
                [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = address.port();
                    connection
                });
            NameServerConfig::new(address.ip(), true, connections.into())
        };
        let servers = self.probe.servers.iter().map(server).collect();
        let config = ResolverConfig::from_name_servers(servers);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.cache_size = 0;
        options.attempts = ATTEMPTS;
        options.timeout = AGAIN_AFTER;
        let resolver = builder
            .build()
            .map_err(|error| failed("no-answer", name, &error))?;
        let kind = self.probe.record.unwrap_or(Record::A).kind();
        match resolver.lookup(self.probe.name.name.clone(), kind).await {
            Ok(found) => {
                let records = found
                    .answers()
                    .iter()
                    .filter(|record| record.record_type() == kind);
                Ok(records
                    .map(|record| plain(&record.data.to_string()))
                    .collect())
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let known = none.response_code == ResponseCode::NoError;
                let cause = if known { "no-record" } else { "name-not-found" };
                let code = none.response_code;
                Err(Observation::fail(cause).with_detail(format!("{name}: {code}")))
            }
            Err(error @ NetError::Dns(_)) => Err(failed("server-failed", name, &error)),
            Err(error) => Err(failed("no-answer", name, &error)),
        }
    }
}

#[async_trait]
impl Check for DnsCheck {
    async fn check(&self) -> Observation {
        either(self.look().await)
    }
}
