//! The ready set of checks, with what the flags say of this node.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use clap::{Args, ValueEnum};
use groundtackle_core::Secret;
use groundtackle_health_check::{Builder, Check, HealthConfig, Kind, Observation};
use groundtackle_health_check_bitcoin::{BitcoinCheck, BitcoinProbe, Node, sets};
use groundtackle_health_check_probes::{
    ClockProbe, DiskProbe, Probe as Machine, ProbeCheck, TcpProbe,
};
use serde::Deserialize;

pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Whom to look at. Give passwords by the environment: others see flags.
#[derive(Debug, Args)]
pub struct Watched {
    /// The node's JSON-RPC.
    #[arg(long, env = "BITCOIN_NODE", value_name = "URL", hide_env_values = true)]
    #[arg(default_value = "http://127.0.0.1:8332")]
    node: Secret,
    /// The node's cookie file, which it writes anew at each start.
    #[arg(
        long,
        env = "BITCOIN_COOKIE_FILE",
        value_name = "FILE",
        conflicts_with = "user"
    )]
    cookie_file: Option<PathBuf>,
    /// The user of the RPC, in place of a cookie.
    #[arg(long, env = "BITCOIN_USER", value_name = "NAME", requires = "password")]
    user: Option<String>,
    /// The user's password.
    #[arg(long, env = "BITCOIN_PASSWORD", value_name = "TEXT", requires = "user")]
    #[arg(hide_env_values = true)]
    password: Option<Secret>,
    /// Whose chain it is. On main net a block tells which.
    #[arg(long, env = "BITCOIN_FAMILY", value_enum, default_value_t = Family::Btc)]
    family: Family,
    /// The network, as the node says it: main, test, testnet4, signet, regtest, stn.
    #[arg(
        long,
        env = "BITCOIN_CHAIN",
        value_name = "NAME",
        default_value = "main"
    )]
    chain: String,
    /// A file that names other nodes of the same chain, best of others' keeping, to compare with; README.md shows one.
    #[arg(long, env = "BITCOIN_REFERENCES", value_name = "FILE")]
    references: Option<PathBuf>,
    /// How many of them must answer.
    #[arg(
        long,
        env = "BITCOIN_MIN_REFERENCES",
        value_name = "NUMBER",
        default_value_t = 1
    )]
    min_references: usize,
    /// Fewer peers fail; 0: they are not counted. Default: the set's.
    #[arg(long, env = "BITCOIN_MIN_PEERS", value_name = "NUMBER")]
    min_peers: Option<u64>,
    /// Fewer peers warn; 0: they are not counted. Default: the set's.
    #[arg(long, env = "BITCOIN_WARN_PEERS", value_name = "NUMBER")]
    warn_peers: Option<u64>,
    /// How often the node is looked at. Default: the set's, 15 s.
    #[arg(long, env = "BITCOIN_PERIOD", value_name = "TIME", value_parser = duration)]
    period: Option<Duration>,
    /// Where peers reach the node, such as 127.0.0.1:8333. Default: it is not looked at.
    #[arg(long, env = "BITCOIN_PEER_ADDRESS", value_name = "ADDRESS")]
    peer_address: Option<String>,
    /// A folder on the file system of the chain's data. Default: its space is not looked at.
    #[arg(long, env = "BITCOIN_DATA", value_name = "FOLDER")]
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

/// Which set of checks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Family {
    /// Bitcoin Core, and what speaks its RPC.
    Btc,
    /// Bitcoin SV nodes.
    Bsv,
}

/// What the set's checks look at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Probe {
    Bitcoin(Box<BitcoinProbe>),
    Clock(ClockProbe),
    Disk(DiskProbe),
    Tcp(TcpProbe),
}

impl Watched {
    /// The set without what no flag names.
    pub fn builder(&self) -> Result<Builder, Fault> {
        let set = match self.family {
            Family::Btc => sets::BITCOIN,
            Family::Bsv => sets::BITCOIN_SV,
        };
        let mut set: HealthConfig<Probe> = HealthConfig::from_toml("the ready set", set)?;
        let node = self.node()?;
        let references = self.references.as_deref().map(references);
        let references = references.transpose()?.unwrap_or_default();
        if references.len() > 16 || self.min_references > references.len().max(1) {
            return Err(
                "there may be 16 references, and as many of them may have to answer as there are"
                    .into(),
            );
        }
        let peers = self.peer_address.as_deref();
        let peers = peers.map(|at| read("the address for peers", at));
        let peers = peers.transpose()?.map(TcpProbe::new);
        let servers = self.time_servers.iter();
        let servers = servers.map(|at| read("a time server's address", at));
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        set.checks.retain_mut(|check| match &mut check.probe {
            Probe::Bitcoin(probe) => {
                probe.node = node.clone();
                probe.chain.clone_from(&self.chain);
                if self.chain != "main" {
                    probe.blocks.clear();
                }
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
            Probe::Tcp(probe) => match &peers {
                Some(port) => {
                    probe.clone_from(port);
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

    fn node(&self) -> Result<Node, Fault> {
        let node = Node::new(read("the node's URL", self.node.expose())?);
        Ok(match (&self.cookie_file, &self.user, &self.password) {
            (Some(file), ..) => node.with_cookie_file(file),
            (None, Some(user), Some(password)) => node.with_login(user, password.expose()),
            _ => node,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct References {
    node: Vec<Node>,
}

/// Of what is wrong with it the first line is said: the rest shows the text again, with its passwords.
fn references(file: &Path) -> Result<Vec<Node>, Fault> {
    let of = |problem: &dyn Display| format!("{}: {problem}", file.display());
    let text = fs::read_to_string(file).map_err(|error| of(&error))?;
    let read: References = toml::from_str(&text).map_err(|error| of(&error.message()))?;
    Ok(read.node)
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
            Probe::Bitcoin(probe) => Box::new(BitcoinCheck::from(*probe)),
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
