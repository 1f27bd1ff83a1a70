//! The ready set of checks, with what the flags say of this node.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;
use groundtackle_core::Secret;
use groundtackle_health_check::{Builder, Check, HealthConfig, Kind, Observation};
use groundtackle_health_check_ethereum::{EthereumCheck, EthereumProbe, Node, sets};
use groundtackle_health_check_probes::{
    ClockProbe, DiskProbe, Probe as Machine, ProbeCheck, TcpProbe,
};
use serde::Deserialize;

pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Whom to look at. URLs may have keys of providers in them: give those by the environment, since others see flags.
#[derive(Debug, Args)]
pub struct Watched {
    /// The node's JSON-RPC.
    #[arg(
        long,
        env = "ETHEREUM_NODE",
        value_name = "URL",
        hide_env_values = true
    )]
    #[arg(default_value = "http://127.0.0.1:8545")]
    node: Secret,
    /// The chain that it must be on.
    #[arg(
        long,
        env = "ETHEREUM_CHAIN_ID",
        value_name = "NUMBER",
        default_value_t = 1
    )]
    chain_id: u64,
    /// Other nodes of the same chain, best of others' keeping, to compare with. At most 16.
    #[arg(long = "reference", env = "ETHEREUM_REFERENCES", value_name = "URL")]
    #[arg(value_delimiter = ',', hide_env_values = true)]
    references: Vec<Secret>,
    /// How many of them must answer.
    #[arg(
        long,
        env = "ETHEREUM_MIN_REFERENCES",
        value_name = "NUMBER",
        default_value_t = 1
    )]
    min_references: usize,
    /// Fewer peers fail; 0: they are not counted. Default: the set's.
    #[arg(long, env = "ETHEREUM_MIN_PEERS", value_name = "NUMBER")]
    min_peers: Option<u64>,
    /// Fewer peers warn; 0: they are not counted. Default: the set's.
    #[arg(long, env = "ETHEREUM_WARN_PEERS", value_name = "NUMBER")]
    warn_peers: Option<u64>,
    /// How often the node is looked at. Default: the set's, a slot of 12 s.
    #[arg(long, env = "ETHEREUM_PERIOD", value_name = "TIME", value_parser = duration)]
    period: Option<Duration>,
    /// Where the consensus client takes connections, such as 127.0.0.1:5052. Default: it is not looked at.
    #[arg(long, env = "ETHEREUM_CONSENSUS", value_name = "ADDRESS")]
    consensus: Option<String>,
    /// A folder on the file system of the chain's data. Default: its space is not looked at.
    #[arg(long, env = "ETHEREUM_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Time servers to compare the clock with, such as 0.pool.ntp.org:123. Default: none, it is not looked at.
    #[arg(
        long = "time-server",
        env = "TIME_SERVERS",
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    time_servers: Vec<String>,
}

fn duration(text: &str) -> Result<Duration, Fault> {
    Ok(text.parse::<jiff::SignedDuration>()?.try_into()?)
}

/// What the set's checks look at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Probe {
    Ethereum(Box<EthereumProbe>),
    Clock(ClockProbe),
    Disk(DiskProbe),
    Tcp(TcpProbe),
}

impl Watched {
    /// The set without what no flag names.
    pub fn builder(&self) -> Result<Builder, Fault> {
        let mut set: HealthConfig<Probe> =
            HealthConfig::from_toml("the ready set", sets::ETHEREUM)?;
        let node = Node::new(read("the node's URL", self.node.expose())?);
        let reference = |of: &Secret| read("a reference's URL", of.expose()).map(Node::new);
        let references = self.references.iter().map(reference);
        let references = references.collect::<Result<Vec<_>, _>>()?;
        if references.len() > 16 || self.min_references > references.len().max(1) {
            return Err(
                "there may be 16 references, and as many of them may have to answer as there are"
                    .into(),
            );
        }
        let consensus = self.consensus.as_deref();
        let consensus = consensus.map(|at| read("the consensus client's address", at));
        let consensus = consensus.transpose()?.map(TcpProbe::new);
        let servers = self.time_servers.iter();
        let servers = servers.map(|at| read("a time server's address", at));
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        set.checks.retain_mut(|check| match &mut check.probe {
            Probe::Ethereum(probe) => {
                probe.node = node.clone();
                probe.chain_id = self.chain_id;
                if let Some(period) = self.period {
                    check.schedule.period = period;
                    check.schedule.timeout = check.schedule.timeout.min(period);
                }
                // The start-up waits for no others, and for no peers.
                if check.kind == Kind::Readiness {
                    probe.references.clone_from(&references);
                    probe.min_references = self.min_references;
                    probe.min_peers = self.min_peers.unwrap_or(probe.min_peers);
                    probe.warn_peers = self.warn_peers.unwrap_or(probe.warn_peers);
                }
                true
            }
            Probe::Clock(probe) => {
                probe.servers.clone_from(&servers);
                !servers.is_empty()
            }
            Probe::Disk(probe) => match &self.data {
                Some(folder) => {
                    probe.path.clone_from(folder);
                    true
                }
                None => false,
            },
            Probe::Tcp(probe) => match &consensus {
                Some(client) => {
                    probe.clone_from(client);
                    true
                }
                None => false,
            },
        });
        let kept: Vec<_> = set.checks.iter().map(|check| check.name.clone()).collect();
        for check in &mut set.checks {
            check.depends_on.retain(|need| kept.contains(need));
        }
        Ok(set.into_builder(Looks::from))
    }
}

/// What can't be read is not said again: it may have a key in it.
fn read<T: FromStr<Err: Display>>(what: &str, text: &str) -> Result<T, Fault> {
    text.parse()
        .map_err(|error| format!("{what} {error}").into())
}

#[derive(Debug)]
struct Looks(Box<dyn Check>);

impl From<Probe> for Looks {
    fn from(probe: Probe) -> Self {
        let machine = |probe| -> Box<dyn Check> { Box::new(ProbeCheck::from(probe)) };
        Self(match probe {
            Probe::Ethereum(probe) => Box::new(EthereumCheck::from(*probe)),
            Probe::Clock(probe) => machine(Machine::Clock(probe)),
            Probe::Disk(probe) => machine(Machine::Disk(probe)),
            Probe::Tcp(probe) => machine(Machine::Tcp(probe)),
        })
    }
}

#[async_trait]
impl Check for Looks {
    async fn check(&self) -> Observation {
        self.0.check().await
    }
}
