use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::apart::Network;
use crate::process::{Process, free_port};
use crate::proxy::Proxy;

/// Names a cluster that is there already: `host:port`, with a namespace `test` as the store asks for it, which
/// resolves conflicts by last-update-time.
const ELSEWHERE: &str = "GROUNDTACKLE_TEST_AEROSPIKE";

const NAMESPACE: &str = "test";

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct AerospikeOptions {
    /// Nodes: one, or three that find each other.
    pub nodes: usize,
    /// Copies of each record.
    pub replication_factor: u32,
    /// Bytes of memory for the data of each node.
    pub data_mib: u32,
    /// Whether clients reach each node by a proxy, and can be cut off.
    pub proxied: bool,
    /// Whether each node has a network of its own, from which others can be kept.
    pub apart: bool,
    /// Nodes that must see each other to serve; more than half of all by default.
    pub min_cluster_size: Option<usize>,
}

impl Default for AerospikeOptions {
    fn default() -> Self {
        Self {
            nodes: 1,
            replication_factor: 1,
            data_mib: 2_048,
            proxied: false,
            apart: false,
            min_cluster_size: None,
        }
    }
}

/// An Aerospike cluster on this machine, in memory; or the one that the environment names.
#[derive(Debug)]
pub struct Aerospike {
    nodes: Vec<Node>,
    elsewhere: Option<String>,
    network: Option<Network>,
    // Last, so that it goes when the servers are gone.
    _folder: Option<TempDir>,
}

/// How often a cluster is started until it comes up.
const STARTS: u32 = 3;

/// Lines of a log that tell why it did not.
const LAST_WORDS: usize = 20;

#[derive(Debug)]
struct Node {
    folder: PathBuf,
    host: Ipv4Addr,
    port: u16,
    proxy: Option<Proxy>,
    process: Process,
}

impl Node {
    fn info(&self, command: &str) -> Option<String> {
        info((self.host, self.port), command)
    }
}

impl Aerospike {
    /// Whether there is a server to test with: `asd` on the PATH, or `GROUNDTACKLE_TEST_AEROSPIKE`.
    pub fn is_there() -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::var_os(ELSEWHERE).is_some()
            || std::env::split_paths(&path).any(|folder| folder.join("asd").is_file())
    }

    /// Whether `asd` is on the PATH, so that clusters can be started and killed.
    pub fn can_be_started() -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join("asd").is_file())
    }

    /// Takes the cluster that the environment names, or starts one of its own.
    pub fn find_or_start(options: &AerospikeOptions) -> Self {
        match std::env::var(ELSEWHERE) {
            Ok(address) => Self {
                nodes: Vec::new(),
                elsewhere: Some(address),
                network: None,
                _folder: None,
            },
            Err(_) => Self::start(options),
        }
    }

    /// Starts a cluster on new data; again on other ports, if one of these was taken just then.
    pub fn start(options: &AerospikeOptions) -> Self {
        let started = (0..STARTS).find_map(|_| Self::try_start(options));
        started.expect("asd comes up")
    }

    fn try_start(options: &AerospikeOptions) -> Option<Self> {
        assert!(
            !(options.proxied && options.apart),
            "proxies lead to this machine only"
        );
        let folder = TempDir::new().expect("a temporary folder");
        let mut ports = Vec::new();
        for _ in 0..options.nodes {
            ports.push([free_port(), free_port(), free_port()]);
        }
        let network = options.apart.then(|| Network::new(options.nodes));
        let host = |n| {
            network
                .as_ref()
                .map_or(Ipv4Addr::LOCALHOST, |network| network.host(n))
        };
        let hosts: Vec<_> = (0..options.nodes).map(host).collect();
        let mut nodes = Vec::new();
        for (n, ([port, ..], host)) in ports.iter().zip(&hosts).enumerate() {
            let folder = folder.path().join(format!("node-{n}"));
            fs::create_dir_all(folder.join("smd")).expect("a new folder");
            fs::create_dir_all(folder.join("lua")).expect("a new folder");
            let proxy = options.proxied.then(|| Proxy::to(*port));
            let access = proxy.as_ref().map_or(*port, Proxy::port);
            let config = config(&folder, n, &hosts, &ports, access, options);
            fs::write(folder.join("conf"), config).expect("a file");
            let process = launch(network.as_ref(), n, &folder, (*host, *port))?;
            nodes.push(Node {
                folder,
                host: *host,
                port: *port,
                proxy,
                process,
            });
        }
        let cluster = Self {
            nodes,
            elsewhere: None,
            network,
            _folder: Some(folder),
        };
        cluster.settled(options.nodes);
        Some(cluster)
    }

    /// Where a client begins: all nodes, and the namespace.
    pub fn url(&self, set: &str) -> String {
        match &self.elsewhere {
            Some(address) => format!("aerospike://{address}/{NAMESPACE}/{set}"),
            None => self.url_at(0..self.nodes.len(), set),
        }
    }

    /// The same, with some of the nodes.
    pub fn url_at(&self, nodes: impl IntoIterator<Item = usize>, set: &str) -> String {
        let host = |node| {
            let node: &Node = self.nodes.get(node).expect("a node");
            let port = node.proxy.as_ref().map_or(node.port, Proxy::port);
            format!("{}:{port}", node.host)
        };
        let hosts: Vec<_> = nodes.into_iter().map(host).collect();
        format!("aerospike://{}/{NAMESPACE}/{set}", hosts.join(","))
    }

    /// Whether nodes can have networks of their own: `ip` makes network namespaces, which takes root.
    pub fn can_be_apart() -> bool {
        Network::is_possible()
    }

    /// Cuts a node off from all others, or joins it with them again; clients reach it as before.
    pub fn part(&self, node: usize, apart: bool) {
        let network = self
            .network
            .as_ref()
            .expect("nodes with networks of their own");
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            network.part(node, other, apart);
        }
    }

    /// Cuts clients off from a node, or joins them again; other nodes reach it as before.
    pub fn hide(&self, node: usize, hidden: bool) {
        let network = self.network.as_ref();
        network
            .expect("nodes with networks of their own")
            .hide(node, hidden);
    }

    /// Waits until so many nodes make one cluster and have nothing left to move.
    pub fn settled(&self, nodes: usize) {
        let until = Instant::now() + Duration::from_secs(120);
        // The size of the cluster and what is left to move are told apart from each other otherwise, and for a moment the one is
        // new while the other is still that of before. The answer is the key of a cluster in which nothing moves.
        let stable = format!("cluster-stable:size={nodes};ignore-migrations=false");
        loop {
            let running = self.nodes.iter();
            let running = running.filter(|node| node.info("status").is_some());
            let mut keys: Vec<_> = running.filter_map(|node| node.info(&stable)).collect();
            keys.retain(|answer| !answer.contains("ERROR"));
            keys.sort_unstable();
            if keys.len() >= nodes && keys.first() == keys.last() {
                return;
            }
            assert!(
                Instant::now() < until,
                "the nodes make no cluster of {nodes}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Kills a node in the middle of whatever it does. What it had is with the others, if anywhere.
    pub fn kill(&mut self, node: usize) {
        let node = self.nodes.get_mut(node).expect("a node");
        node.process.signal(Signal::KILL);
        node.process.wait();
    }

    /// Lets a node end by itself.
    pub fn stop(&mut self, node: usize) {
        let node = self.nodes.get_mut(node).expect("a node");
        node.process.signal(Signal::TERM);
        node.process.wait();
    }

    /// Makes a node stand still.
    pub fn freeze(&mut self, node: usize) {
        self.nodes
            .get_mut(node)
            .expect("a node")
            .process
            .stop_threads();
    }

    /// Lets a node go on.
    pub fn thaw(&mut self, node: usize) {
        self.nodes
            .get_mut(node)
            .expect("a node")
            .process
            .signal(Signal::CONT);
    }

    /// Cuts clients off from all nodes, which must be [proxied](AerospikeOptions::proxied), or lets them through
    /// again.
    pub fn cut(&self, cut: bool) {
        for node in &self.nodes {
            node.proxy.as_ref().expect("a proxy").cut(cut);
        }
    }

    /// Starts a node again that was killed or stopped; its memory is empty.
    pub fn restart(&mut self, node: usize) {
        let number = node;
        let node = self.nodes.get_mut(number).expect("a node");
        let at = (node.host, node.port);
        let process = launch(self.network.as_ref(), number, &node.folder, at);
        node.process = process.expect("asd comes up again");
    }

    /// A node's process.
    pub fn pid(&self, node: usize) -> Option<u32> {
        Some(self.nodes.get(node)?.process.id())
    }

    /// Sends an info command to a node.
    pub fn info(&self, node: usize, command: &str) -> Option<String> {
        self.nodes.get(node)?.info(command)
    }
}

impl Drop for Aerospike {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // It may be frozen.
            node.process.signal(Signal::CONT);
            node.process.signal(Signal::KILL);
            node.process.wait();
        }
    }
}

/// `None` if it does not come up, after its last words.
fn launch(
    network: Option<&Network>,
    node: usize,
    folder: &Path,
    at: (Ipv4Addr, u16),
) -> Option<Process> {
    let mut asd = match network {
        Some(network) => network.command(node, "asd"),
        None => Command::new("asd"),
    };
    asd.args(["--foreground", "--config-file"])
        .arg(folder.join("conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .current_dir("/");
    let mut process = Process::start(asd, folder);
    let up = process.is_up("asd", || {
        info(at, "status").is_some_and(|answer| answer.contains("ok"))
    });
    if !up {
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        let from = log.lines().count().saturating_sub(LAST_WORDS);
        log.lines()
            .skip(from)
            .for_each(|line| eprintln!("asd: {line}"));
    }
    up.then_some(process)
}

fn config(
    folder: &Path,
    node: usize,
    hosts: &[Ipv4Addr],
    ports: &[[u16; 3]],
    access: u16,
    options: &AerospikeOptions,
) -> String {
    let [service, fabric, heartbeat] = *ports.get(node).expect("ports for each node");
    let folder = folder.display();
    let host = hosts.get(node).expect("an address for each node");
    let seeds: String = hosts
        .iter()
        .zip(ports)
        .map(|(host, [_, _, port])| format!("  mesh-seed-address-port {host} {port}\n"))
        .collect();
    // Nodes that are cut off must not go on by themselves.
    let least = options.min_cluster_size.unwrap_or(options.nodes / 2 + 1);
    let AerospikeOptions {
        replication_factor,
        data_mib,
        ..
    } = options;
    format!(
        "service {{
 node-id {:x}
 cluster-name test
 min-cluster-size {least}
 migrate-threads 8
 proto-fd-max 2048
 work-directory {folder}
 pidfile {folder}/pid
}}
logging {{
 file {folder}/log {{
  context any info
 }}
}}
network {{
 service {{
  address {host}
  access-address {host}
  access-port {access}
  port {service}
 }}
 fabric {{
  address {host}
  port {fabric}
 }}
 heartbeat {{
  mode mesh
  address {host}
  port {heartbeat}
{seeds}  interval 150
  timeout 10
 }}
}}
mod-lua {{
 user-path {folder}/lua
}}
namespace {NAMESPACE} {{
 replication-factor {replication_factor}
 conflict-resolution-policy last-update-time
 nsup-period 0
 migrate-sleep 0
 storage-engine memory {{
  data-size {data_mib}M
 }}
}}
",
        0xa0 + node
    )
}

/// One info command; `None` where nobody answers.
fn info((host, port): (Ipv4Addr, u16), command: &str) -> Option<String> {
    let mut stream = TcpStream::connect((host, port)).ok()?;
    let wait = Some(Duration::from_secs(2));
    stream.set_read_timeout(wait).ok()?;
    stream.set_write_timeout(wait).ok()?;
    // Version 2, type 1 (info), and six bytes of length.
    let text = format!("{command}\n");
    let header = (2_u64 << 56 | 1 << 48 | text.len() as u64).to_be_bytes();
    stream.write_all(&header).ok()?;
    stream.write_all(text.as_bytes()).ok()?;
    let mut header = [0; 8];
    stream.read_exact(&mut header).ok()?;
    let length = u64::from_be_bytes(header) & 0xffff_ffff_ffff;
    let mut answer = Vec::new();
    stream.take(length).read_to_end(&mut answer).ok()?;
    String::from_utf8(answer).ok()
}
