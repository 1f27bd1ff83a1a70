#![doc = include_str!("../README.md")]

mod address;
mod blocking;
mod dial;
mod error;
mod http;
mod tls;

pub use address::{Endpoint, HttpUrl, ParseAddressError};
pub use blocking::Blocking;
pub use dial::Dialer;
pub use error::{Error, Result};
pub use http::{Answer, Connection, Headers, HttpClient, SecretValue};
pub use tls::{Authorities, certificate_cause};
