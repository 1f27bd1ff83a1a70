//! The kit's cases for checks, of each probe.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

mod servers;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use groundtackle_core::{ByteSize, Secret};
use groundtackle_health_check::Check;
use groundtackle_health_check_client::Headers;
use groundtackle_health_check_probes::{
    ClockProbe, CommandProbe, DiskProbe, DnsProbe, HttpProbe, Probe, ProbeCheck, TcpProbe, TlsProbe,
};
use groundtackle_health_check_testkit::{CheckHarness, State};
use groundtackle_testkit_servers::{Certificates, Dnsmasq, SmallDisk};
use servers::{Act, Server, Time, TimeServer, answer};
use tempfile::TempDir;

fn check(probe: Probe) -> Arc<dyn Check> {
    Arc::new(ProbeCheck::from(probe))
}

mod tcp {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::{self, JoinHandle};

    use super::*;

    struct Port {
        address: SocketAddr,
        open: Mutex<Option<Open>>,
    }

    /// Takes connections and drops them, in a thread.
    struct Open {
        shut: Arc<AtomicBool>,
        thread: JoinHandle<()>,
    }

    fn open(address: SocketAddr) -> (SocketAddr, Open) {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shut = Arc::new(AtomicBool::new(false));
        let is_shut = shut.clone();
        let thread =
            thread::spawn(
                move || {
                    while listener.accept().is_ok() && !is_shut.load(Ordering::SeqCst) {}
                },
            );
        (address, Open { shut, thread })
    }

    impl Port {
        fn open() -> Self {
            let (address, open) = open(([127, 0, 0, 1], 0).into());
            let open = Mutex::new(Some(open));
            Self { address, open }
        }
    }

    #[async_trait]
    impl CheckHarness for Port {
        async fn check(&self) -> Arc<dyn Check> {
            check(Probe::Tcp(TcpProbe::new(
                self.address.to_string().parse().unwrap(),
            )))
        }

        async fn make(&self, state: State) -> bool {
            let mut now = self.open.lock().unwrap();
            match state {
                State::Working if now.is_none() => *now = Some(open(self.address).1),
                State::Working => {}
                State::Broken => {
                    if let Some(open) = now.take() {
                        open.shut.store(true, Ordering::SeqCst);
                        // Wakes it.
                        drop(TcpStream::connect(self.address));
                        open.thread.join().unwrap();
                    }
                }
                // The kernel takes connections for who does not.
                State::Silent => return false,
            }
            true
        }
    }

    groundtackle_health_check_testkit::check_conformance!(Port::open());
}

mod http {
    use super::*;

    struct Http(Server);

    #[async_trait]
    impl CheckHarness for Http {
        async fn check(&self) -> Arc<dyn Check> {
            let url = format!("http://{}/status?key=k3y", self.0.address);
            let mut probe = HttpProbe::new(url.parse().unwrap());
            let headers = [("authorization".to_owned(), Secret::from("Bearer t0ken"))];
            probe.headers = Headers::try_from(std::collections::BTreeMap::from(headers)).unwrap();
            check(Probe::Http(probe))
        }

        async fn make(&self, state: State) -> bool {
            self.0.act(match state {
                State::Working => answer("200 OK", "fine"),
                State::Broken => answer("500 Internal Server Error", "k3y t0ken"),
                State::Silent => Act::Hang,
            });
            true
        }

        fn secrets(&self) -> Vec<String> {
            vec!["k3y".into(), "t0ken".into()]
        }
    }

    groundtackle_health_check_testkit::check_conformance!(Http(Server::start(answer(
        "200 OK", "fine"
    ))));
}

mod tls {
    use super::*;

    struct Tls {
        certificates: Certificates,
        good: Act,
        expired: Act,
        server: Server,
    }

    impl Tls {
        fn start() -> Self {
            let certificates = Certificates::new();
            let sealed = |leaf| Act::Sealed(certificates.chain(leaf, (-9, 90)), Vec::new());
            let (good, expired) = (sealed((-1, 60)), sealed((-2, -1)));
            let server = Server::start(good.clone());
            Self {
                certificates,
                good,
                expired,
                server,
            }
        }
    }

    #[async_trait]
    impl CheckHarness for Tls {
        async fn check(&self) -> Arc<dyn Check> {
            let mut probe = TlsProbe::new(self.server.address.to_string().parse().unwrap());
            probe.authorities = Some(self.certificates.authority());
            check(Probe::Tls(probe))
        }

        async fn make(&self, state: State) -> bool {
            self.server.act(match state {
                State::Working => self.good.clone(),
                State::Broken => self.expired.clone(),
                State::Silent => Act::Hang,
            });
            true
        }
    }

    groundtackle_health_check_testkit::check_conformance!(Tls::start());
}

mod dns {
    use super::*;

    struct Dns(Mutex<(Dnsmasq, bool)>);

    impl Dns {
        fn start() -> Self {
            // Whoever keeps answers would keep these for an hour.
            let server = Dnsmasq::start(&["--host-record=node.test,192.0.2.7", "--local-ttl=3600"]);
            Self(Mutex::new((server, true)))
        }
    }

    #[async_trait]
    impl CheckHarness for Dns {
        async fn check(&self) -> Arc<dyn Check> {
            let mut probe = DnsProbe::new("node.test".to_owned().try_into().unwrap());
            probe.servers = vec![self.0.lock().unwrap().0.address()];
            probe.expect = vec!["192.0.2.7".into()];
            check(Probe::Dns(probe))
        }

        async fn make(&self, state: State) -> bool {
            let (server, runs) = &mut *self.0.lock().unwrap();
            server.thaw();
            match (state, *runs) {
                (State::Broken, true) => server.stop(),
                (State::Working | State::Silent, false) => server.restart(),
                _ => {}
            }
            if state == State::Silent {
                server.freeze();
            }
            *runs = state != State::Broken;
            true
        }
    }

    groundtackle_health_check_testkit::check_conformance!(Dns::start());
}

mod disk {
    use super::*;

    struct Disk {
        small: Option<SmallDisk>,
        other: TempDir,
    }

    impl Disk {
        fn mount() -> Self {
            let small = SmallDisk::new("8m");
            let other = TempDir::new().unwrap();
            Self { small, other }
        }
    }

    #[async_trait]
    impl CheckHarness for Disk {
        async fn check(&self) -> Arc<dyn Check> {
            let path = self
                .small
                .as_ref()
                .map_or(self.other.path(), SmallDisk::path);
            check(Probe::Disk(DiskProbe::new(path, ByteSize::mib(1))))
        }

        async fn make(&self, state: State) -> bool {
            let Some(small) = &self.small else {
                return state == State::Working;
            };
            let full = small.path().join("filler").exists();
            match state {
                State::Working if full => small.make_room(),
                State::Working => {}
                State::Broken => small.fill(64 << 10),
                State::Silent => return false,
            }
            true
        }
    }

    groundtackle_health_check_testkit::check_conformance!(Disk::mount());
}

mod clock {
    use super::*;

    struct Clock([TimeServer; 3]);

    impl Clock {
        fn start() -> Self {
            Self([0.0, 0.001, 3600.0].map(|away| TimeServer::start(Time::Away(away))))
        }
    }

    #[async_trait]
    impl CheckHarness for Clock {
        async fn check(&self) -> Arc<dyn Check> {
            let servers = self
                .0
                .iter()
                .map(|server| server.address.to_string().parse().unwrap());
            let mut probe = ClockProbe::new(servers);
            // A machine that is busy takes its time.
            probe.warn_skew = std::time::Duration::from_secs(5);
            probe.fail_skew = std::time::Duration::from_secs(5);
            check(Probe::Clock(probe))
        }

        async fn make(&self, state: State) -> bool {
            self.0[0].tell(match state {
                State::Working => Time::Away(0.0),
                State::Broken => Time::Away(60.0),
                State::Silent => Time::Silent,
            });
            self.0[1].tell(match state {
                State::Working => Time::Away(0.001),
                State::Broken => Time::Away(61.0),
                State::Silent => Time::Silent,
            });
            true
        }
    }

    groundtackle_health_check_testkit::check_conformance!(Clock::start());
}

mod command {
    use super::*;

    struct Command(TempDir);

    impl Command {
        fn new() -> Self {
            let folder = TempDir::new().unwrap();
            std::fs::write(folder.path().join("state"), "exit 0").unwrap();
            Self(folder)
        }
    }

    #[async_trait]
    impl CheckHarness for Command {
        async fn check(&self) -> Arc<dyn Check> {
            let state = self.0.path().join("state");
            check(Probe::Command(CommandProbe::new(
                "sh",
                [state.to_str().unwrap()],
            )))
        }

        async fn make(&self, state: State) -> bool {
            let script = match state {
                State::Working => "exit 0",
                State::Broken => "exit 3",
                State::Silent => "sleep 1000",
            };
            std::fs::write(self.0.path().join("state"), script).unwrap();
            true
        }
    }

    groundtackle_health_check_testkit::check_conformance!(Command::new());
}
