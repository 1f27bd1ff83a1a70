#![doc = include_str!("../README.md")]

#[cfg(not(unix))]
compile_error!("groundtackle-health-check-probes asks Unix for the space of file systems");

mod clock;
mod command;
mod disk;
mod dns;
mod http;
mod probe;
pub mod sets;
mod tcp;
mod tls;

pub use clock::ClockProbe;
pub use command::CommandProbe;
pub use disk::DiskProbe;
pub use dns::{DnsName, DnsProbe, Record};
pub use http::{ExpectedHeaders, HttpMethod, HttpProbe, JsonAssertion, Pointer};
pub use probe::{Probe, ProbeCheck};
pub use tcp::TcpProbe;
pub use tls::TlsProbe;
