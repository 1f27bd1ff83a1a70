use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use http::Uri;
use serde::{Deserialize, Serialize};

/// A text that is no address. What the text was is not said: it may have a key or a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseAddressError(&'static str);

const NO_PORT: ParseAddressError = ParseAddressError("is no address: the port must not be 0");

/// A host and a port: `"db.internal:5432"`, `"127.0.0.1:8332"`, `"[::1]:8332"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// The host: a name, or an address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A name, or an address without brackets, and a port, as clients of other protocols read them from their URLs.
    ///
    /// # Errors
    /// For what is no host, and for port 0.
    pub fn of(host: &str, port: u16) -> Result<Self, ParseAddressError> {
        if port == 0 {
            return Err(NO_PORT);
        }
        match host.parse::<Ipv6Addr>() {
            Ok(address) => Self::new(&format!("[{address}]"), port),
            Err(_) => Self::new(host, port),
        }
    }

    /// From a host as URLs have it.
    fn new(host: &str, port: u16) -> Result<Self, ParseAddressError> {
        let literal = host.strip_prefix('[').and_then(|of| of.strip_suffix(']'));
        if literal.is_some_and(|of| of.parse::<Ipv6Addr>().is_err()) {
            return Err(ParseAddressError(
                "is no address: in brackets stands an IPv6 address, such as [::1]:8332",
            ));
        }
        let host = literal.unwrap_or(host);
        let fine = |c: char| c.is_ascii_graphic() && !"/@[]?#\\%".contains(c);
        if host.is_empty() || host.len() > 255 || !host.chars().all(fine) {
            return Err(ParseAddressError(
                "is no address: the host must be a name or an address in ASCII, of at most 255 characters",
            ));
        }
        if literal.is_none() && host.contains(':') {
            return Err(ParseAddressError(
                "is no address: write an IPv6 address in brackets, such as [::1]:8332",
            ));
        }
        let host = host.to_owned();
        Ok(Self { host, port })
    }
}

impl FromStr for Endpoint {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let no_port = ParseAddressError(
            "is no address: write host and port, such as db.internal:5432 or [::1]:8332",
        );
        let (host, port) = text.rsplit_once(':').ok_or(no_port)?;
        let port = port.parse().map_err(|_| no_port)?;
        if port == 0 {
            return Err(NO_PORT);
        }
        Self::new(host, port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// The URL of a server that speaks HTTP. Paths and queries of such URLs carry keys, so that it prints without them.
///
/// ```
/// use groundtackle_health_check_client::HttpUrl;
///
/// let url: HttpUrl = "https://mainnet.example/v3/0123456789abcdef".parse()?;
/// assert_eq!(url.to_string(), "https://mainnet.example:443");
/// # Ok::<(), groundtackle_health_check_client::ParseAddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HttpUrl {
    tls: bool,
    endpoint: Endpoint,
    /// As the header `Host` has it: without the port that is usual.
    authority: String,
    path: String,
}

impl HttpUrl {
    /// Whether it is `https`.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// Where it leads.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Path and query. They may be secret.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for HttpUrl {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let no_url = ParseAddressError(
            "is no URL: write it like http://127.0.0.1:8332/ or https://host/path",
        );
        let uri: Uri = text.parse().map_err(|_| no_url)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(no_url),
        };
        let authority = uri.authority().ok_or(no_url)?;
        if authority.as_str().contains('@') {
            return Err(ParseAddressError(
                "is a URL with a login in it, which ends up in logs; leave it out, and give the login by a setting of its own",
            ));
        }
        let port = authority.port_u16();
        if port.is_none() && authority.as_str() != authority.host() {
            return Err(no_url);
        }
        let endpoint = Endpoint::new(authority.host(), port.unwrap_or(if tls { 443 } else { 80 }))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            tls,
            endpoint,
            authority: authority.as_str().into(),
            path: if path.starts_with('/') {
                path.into()
            } else {
                format!("/{path}")
            },
        })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.endpoint)
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}/***\"")
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = ParseAddressError;

    fn try_from(text: String) -> Result<Self, ParseAddressError> {
        text.parse()
    }
}

impl TryFrom<String> for HttpUrl {
    type Error = ParseAddressError;

    fn try_from(text: String) -> Result<Self, ParseAddressError> {
        text.parse()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test asserts")]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_print() {
        for (text, host, port) in [
            ("db.internal:5432", "db.internal", 5432),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:8332", "::1", 8332),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port));
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(Endpoint::of(host, port), Ok(endpoint));
        }
        for (host, port) in [("a", 0), ("", 1), ("a:b", 1), ("[::1]x", 1), ("a@b", 1)] {
            assert!(Endpoint::of(host, port).is_err(), "{host:?}");
        }
        for text in [
            "",
            "host",
            ":1",
            "host:",
            "host:0",
            "host:65536",
            "host:-1",
            "::1:8332",
            "[::1]",
            "[host]:1",
            "a b:1",
            "user@host:1",
            "a/b:1",
            "é:1",
            "[]:1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn urls_read_and_keep_their_keys_to_themselves() {
        for (text, shown, authority, path) in [
            (
                "http://127.0.0.1:8332",
                "http://127.0.0.1:8332",
                "127.0.0.1:8332",
                "/",
            ),
            (
                "https://a.example/v3/key?x=1",
                "https://a.example:443",
                "a.example",
                "/v3/key?x=1",
            ),
            ("http://[::1]/", "http://[::1]:80", "[::1]", "/"),
            (
                "http://a.example?key=1",
                "http://a.example:80",
                "a.example",
                "/?key=1",
            ),
        ] {
            let url: HttpUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!((url.authority(), url.path()), (authority, path));
            assert!(!format!("{url:?}").contains("key"), "{url:?}");
        }
        for text in [
            "",
            "a.example",
            "/path",
            "ftp://a.example/",
            "http://",
            "http://user:pa55@a.example/",
            "http://a.example:/",
            "http://a.example:99999/",
            "https://::1/",
            "http://a b/",
        ] {
            let error = text.parse::<HttpUrl>().unwrap_err();
            assert!(!error.to_string().contains("pa55"), "{error}");
        }
    }
}
