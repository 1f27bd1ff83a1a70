#![doc = include_str!("../README.md")]

mod address;
mod blocking;
mod dial;
mod error;
mod http;
mod limits;
mod safe_url;
mod secret;
mod server;
mod tls;

pub use address::{Endpoint, HttpUrl, ParseAddressError};
pub use blocking::Blocking;
pub use dial::{Dialer, bounded};
pub use error::{Error, Result, connection_cause, in_full};
pub use http::{Answer, Connection, Headers, HttpClient, SecretValue};
pub use limits::Limits;
pub use safe_url::SafeUrl;
pub use secret::SecretSource;
pub use server::{Way, checked_url};
pub use tls::{Authorities, Tls, certificate_cause};
