//! Machines of their own for servers, as far as the network goes: Linux, as root, with `ip` on the PATH.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

fn ip(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("ip");
    let output = command.args(arguments).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

#[track_caller]
fn must(arguments: &[&str]) {
    if let Err(error) = ip(arguments) {
        panic!("ip {}: {error}", arguments.join(" "));
    }
}

/// Differs from those of the other networks of this process.
fn next() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A bridge, and a network namespace for each server. They go with it.
#[derive(Debug)]
pub(crate) struct Network {
    name: String,
    subnet: [u8; 2],
    spaces: Vec<String>,
}

/// One that leads nowhere here, of those for tests of networks (RFC 2544): 198.18.0.0/15.
fn free_subnet() -> [u8; 2] {
    loop {
        let number = std::process::id().wrapping_mul(7) as u16 ^ next();
        let [second, third] = (number % 512).to_be_bytes();
        let subnet = [18 + second, third];
        let range = format!("198.{}.{third}.0/24", subnet[0]);
        let taken = ip(&["route", "show", "root", &range]);
        if taken.is_ok_and(|routes| routes.trim().is_empty()) {
            return subnet;
        }
    }
}

impl Network {
    /// Whether namespaces can be made.
    pub(crate) fn is_possible() -> bool {
        let probe = format!("gtp{}n{}", std::process::id(), next());
        let made = ip(&["netns", "add", &probe])
            .and_then(|_| ip(&["link", "add", &probe, "type", "bridge"]))
            .and_then(|_| ip(&["-n", &probe, "link", "add", "eth0", "type", "veth"]));
        // What could not be made is not there to be removed.
        drop(ip(&["link", "del", &probe]));
        drop(ip(&["netns", "del", &probe]));
        made.is_ok()
    }

    pub(crate) fn new(servers: usize) -> Self {
        let (pid, number) = (std::process::id(), next());
        let network = Self {
            name: format!("gt{pid}n{number}"),
            subnet: free_subnet(),
            spaces: (0..servers)
                .map(|n| format!("gt{pid}n{number}s{n}"))
                .collect(),
        };
        let bridge = network.name.as_str();
        must(&["link", "add", bridge, "type", "bridge"]);
        let here = format!("{}/24", network.address(200));
        must(&["addr", "add", &here, "dev", bridge]);
        must(&["link", "set", bridge, "up"]);
        for (n, space) in network.spaces.iter().enumerate() {
            let (outside, inside) = (format!("{bridge}v{n}"), "eth0");
            must(&["netns", "add", space]);
            must(&[
                "link", "add", &outside, "type", "veth", "peer", "name", inside, "netns", space,
            ]);
            must(&["link", "set", &outside, "master", bridge, "up"]);
            let address = format!("{}/24", network.host(n));
            must(&["-n", space, "addr", "add", &address, "dev", inside]);
            for link in ["lo", inside] {
                must(&["-n", space, "link", "set", link, "up"]);
            }
        }
        network
    }

    const fn address(&self, last: u8) -> Ipv4Addr {
        let [second, third] = self.subnet;
        Ipv4Addr::new(198, second, third, last)
    }

    /// A server's address.
    pub(crate) fn host(&self, server: usize) -> Ipv4Addr {
        self.address(u8::try_from(server + 1).expect("few servers"))
    }

    /// Runs a program as on the server's machine.
    pub(crate) fn command(&self, server: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        let space = self.spaces.get(server).expect("a server");
        command.args(["netns", "exec", space, program]);
        command
    }

    /// Cuts a server off from here, or joins it again.
    pub(crate) fn hide(&self, server: usize, hidden: bool) {
        let to = format!("{}/32", self.host(server));
        let change = if hidden { "add" } else { "del" };
        must(&["route", change, "blackhole", &to]);
    }

    /// Cuts two servers off from each other, or joins them again; both can be reached from here as before.
    pub(crate) fn part(&self, one: usize, other: usize, apart: bool) {
        for (from, to) in [(one, other), (other, one)] {
            let space = self.spaces.get(from).expect("a server");
            let to = format!("{}/32", self.host(to));
            let change = if apart { "add" } else { "del" };
            must(&["-n", space, "route", change, "blackhole", &to]);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for (n, space) in self.spaces.iter().enumerate() {
            // Of what was hidden when a test failed.
            let host = format!("{}/32", self.host(n));
            drop(ip(&["route", "del", "blackhole", &host]));
            drop(ip(&["netns", "del", space]));
        }
        drop(ip(&["link", "del", &self.name]));
    }
}
