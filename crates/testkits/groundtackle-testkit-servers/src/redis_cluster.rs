use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::free_port;
use crate::redis::{Redis, RedisOptions};

/// How long a cluster may take to agree on something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis Cluster: primaries that share the hash slots evenly, and replicas of the first ones.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts so many primaries, and so many replicas: the first is the first primary's, and so on. A server
    /// that is silent for a second is given up.
    pub fn start(primaries: usize, replicas: usize, options: &RedisOptions) -> Self {
        let start = |_| {
            let bus = free_port().to_string();
            let mut options = options.clone();
            for (name, value) in [
                ("cluster-enabled", "yes"),
                ("cluster-port", &bus),
                ("cluster-node-timeout", "1000"),
            ] {
                options.settings.push((name.into(), value.into()));
            }
            (Redis::start(options), bus)
        };
        let started: Vec<_> = (0..primaries + replicas).map(start).collect();
        let (first, _) = started.first().expect("a server");
        for (number, (node, bus)) in started.iter().enumerate() {
            let port = node.port().to_string();
            let epoch = (number + 1).to_string();
            is_ok(&node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]));
            is_ok(&first.command(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]));
            if number < primaries {
                let from = (16_384 * number / primaries).to_string();
                let to = (16_384 * (number + 1) / primaries - 1).to_string();
                is_ok(&node.command(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]));
            }
        }
        let nodes: Vec<_> = started.into_iter().map(|(node, _)| node).collect();
        let cluster = Self { nodes };
        cluster.settle();
        for (replica, primary) in cluster.nodes.iter().skip(primaries).zip(&cluster.nodes) {
            let id = cluster_id(primary);
            wait(|| {
                replica
                    .command(&["CLUSTER", "REPLICATE", &id])
                    .starts_with("+OK")
            });
            wait(|| {
                replica
                    .command(&["INFO", "replication"])
                    .contains("master_link_status:up")
            });
        }
        cluster
    }

    /// Waits until all servers know each other and find the cluster well.
    pub fn settle(&self) {
        let known = format!("cluster_known_nodes:{}\r", self.nodes.len());
        for node in &self.nodes {
            wait(|| {
                let info = node.command(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains(&known)
            });
        }
    }

    /// Waits until another server has taken over from one that was killed.
    pub fn failed_over(&self, killed: usize) {
        let others = self.nodes.iter().enumerate();
        let others: Vec<_> = others.filter(|(number, _)| *number != killed).collect();
        let port = self.nodes.get(killed).expect("a server").port();
        let address = format!("127.0.0.1:{port}@");
        for (_, node) in others {
            wait(|| {
                let nodes = node.command(&["CLUSTER", "NODES"]);
                let mut lines = nodes.lines();
                let of_killed = lines.find(|line| line.contains(&address));
                // A line ends with the slots that its server has.
                of_killed.is_some_and(|line| line.split(' ').count() <= 8)
                    && node
                        .command(&["CLUSTER", "INFO"])
                        .contains("cluster_state:ok")
            });
        }
    }

    /// Its servers, primaries first as it began.
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// One of them, to be killed or started again.
    pub fn node_mut(&mut self, number: usize) -> &mut Redis {
        self.nodes.get_mut(number).expect("a server")
    }

    /// The URL of all servers, by their own ports or others.
    pub fn url_at(&self, password: Option<&str>, ports: &[u16]) -> String {
        let hosts: Vec<_> = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let login = password.map(|password| format!(":{password}@"));
        format!("redis://{}{}", login.unwrap_or_default(), hosts.join(","))
    }

    /// The URL of all servers.
    pub fn url(&self) -> String {
        let ports: Vec<_> = self.nodes.iter().map(Redis::port).collect();
        self.url_at(None, &ports)
    }

    /// Moves so many slots from one primary to another, with what lies in them.
    pub fn reshard(&self, from: usize, to: usize, slots: u16) {
        let ids: Vec<_> = self.nodes.iter().map(cluster_id).collect();
        let (Some(from), Some(to), Some(first)) = (ids.get(from), ids.get(to), self.nodes.first())
        else {
            panic!("there are no such servers")
        };
        let moved = Command::new("redis-cli")
            .args([
                "--cluster",
                "reshard",
                &format!("127.0.0.1:{}", first.port()),
            ])
            .args(["--cluster-from", from, "--cluster-to", to])
            .args(["--cluster-slots", &slots.to_string(), "--cluster-yes"])
            .stdin(Stdio::null())
            .output()
            .expect("redis-cli of the Debian package redis-tools");
        let said = String::from_utf8_lossy(&moved.stdout);
        assert!(moved.status.success(), "{said}");
    }
}

fn cluster_id(node: &Redis) -> String {
    let answer = node.command(&["CLUSTER", "MYID"]);
    answer.lines().nth(1).expect("an identifier").to_owned()
}

fn is_ok(answer: &str) {
    assert!(answer.starts_with("+OK"), "{answer}");
}

fn wait(mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < PATIENCE, "the cluster does not settle");
        thread::sleep(Duration::from_millis(20));
    }
}
