use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Process, free_port};

/// Names a cluster that is there already: `host:port`, with a namespace `test`.
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
}

impl Default for AerospikeOptions {
    fn default() -> Self {
        Self {
            nodes: 1,
            replication_factor: 1,
            data_mib: 2_048,
        }
    }
}

/// An Aerospike cluster on this machine, in memory; or the one that the environment names.
#[derive(Debug)]
pub struct Aerospike {
    nodes: Vec<Node>,
    elsewhere: Option<String>,
    // Last, so that it goes when the servers are gone.
    _folder: Option<TempDir>,
}

#[derive(Debug)]
struct Node {
    folder: PathBuf,
    port: u16,
    process: Process,
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
                _folder: None,
            },
            Err(_) => Self::start(options),
        }
    }

    /// Starts a cluster on new data.
    pub fn start(options: &AerospikeOptions) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut ports = Vec::new();
        for _ in 0..options.nodes {
            ports.push([free_port(), free_port(), free_port()]);
        }
        let mut nodes = Vec::new();
        for (n, [port, ..]) in ports.iter().enumerate() {
            let folder = folder.path().join(format!("node-{n}"));
            fs::create_dir_all(folder.join("smd")).expect("a new folder");
            fs::create_dir_all(folder.join("lua")).expect("a new folder");
            fs::write(folder.join("conf"), config(&folder, n, &ports, options)).expect("a file");
            let process = launch(&folder, *port);
            nodes.push(Node {
                folder,
                port: *port,
                process,
            });
        }
        let cluster = Self {
            nodes,
            elsewhere: None,
            _folder: Some(folder),
        };
        cluster.settled(options.nodes);
        cluster
    }

    /// Where a client begins: a node, and the namespace.
    pub fn url(&self, set: &str) -> String {
        let hosts = match &self.elsewhere {
            Some(address) => address.clone(),
            None => {
                let nodes = self.nodes.iter();
                let hosts: Vec<_> = nodes
                    .map(|node| format!("127.0.0.1:{}", node.port))
                    .collect();
                hosts.join(",")
            }
        };
        format!("aerospike://{hosts}/{NAMESPACE}/{set}")
    }

    /// Waits until so many nodes make one cluster and have nothing left to move.
    pub fn settled(&self, nodes: usize) {
        let until = Instant::now() + Duration::from_secs(120);
        let wanted = format!("cluster_size={nodes};");
        loop {
            let up = |node: &&Node| {
                let statistics = info(node.port, "statistics");
                let namespace = info(node.port, &format!("namespace/{NAMESPACE}"));
                statistics.is_some_and(|text| text.contains(&wanted))
                    && namespace.is_some_and(|text| {
                        text.contains("migrate_tx_partitions_remaining=0;")
                            && text.contains("migrate_rx_partitions_remaining=0;")
                    })
            };
            let running = self
                .nodes
                .iter()
                .filter(|node| info(node.port, "status").is_some());
            if running.filter(up).count() >= nodes {
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

    /// Makes a node stand still.
    pub fn freeze(&mut self, node: usize) {
        self.nodes
            .get_mut(node)
            .expect("a node")
            .process
            .signal(Signal::STOP);
    }

    /// Lets a node go on.
    pub fn thaw(&mut self, node: usize) {
        self.nodes
            .get_mut(node)
            .expect("a node")
            .process
            .signal(Signal::CONT);
    }

    /// Starts a node again that was killed; its memory is empty.
    pub fn restart(&mut self, node: usize) {
        let node = self.nodes.get_mut(node).expect("a node");
        node.process = launch(&node.folder, node.port);
    }

    /// Sends an info command to a node.
    pub fn info(&self, node: usize, command: &str) -> Option<String> {
        info(self.nodes.get(node)?.port, command)
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

fn launch(folder: &Path, port: u16) -> Process {
    let mut asd = Command::new("asd");
    asd.args(["--foreground", "--config-file"])
        .arg(folder.join("conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .current_dir("/");
    let mut process = Process::start(asd, folder);
    let up = process.is_up("asd", || {
        info(port, "status").is_some_and(|answer| answer.contains("ok"))
    });
    assert!(up, "asd ends: see {}", folder.join("log").display());
    process
}

fn config(folder: &Path, node: usize, ports: &[[u16; 3]], options: &AerospikeOptions) -> String {
    let [service, fabric, heartbeat] = *ports.get(node).expect("ports for each node");
    let folder = folder.display();
    let seeds: String = ports
        .iter()
        .map(|[_, _, port]| format!("  mesh-seed-address-port 127.0.0.1 {port}\n"))
        .collect();
    let AerospikeOptions {
        replication_factor,
        data_mib,
        ..
    } = options;
    format!(
        "service {{
 node-id {:x}
 cluster-name test
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
  address 127.0.0.1
  port {service}
 }}
 fabric {{
  address 127.0.0.1
  port {fabric}
 }}
 heartbeat {{
  mode mesh
  address 127.0.0.1
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
 nsup-period 0
 storage-engine memory {{
  data-size {data_mib}M
 }}
}}
",
        0xa0 + node
    )
}

/// One info command; `None` where nobody answers.
fn info(port: u16, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
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
