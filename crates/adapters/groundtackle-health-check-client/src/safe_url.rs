use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;

use crate::address::{HttpUrl, ParseAddressError};

/// A URL that a secret may be sent to: `https`, or `http` to this machine itself. It prints as scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "HttpUrl")]
pub struct SafeUrl(HttpUrl);

impl TryFrom<HttpUrl> for SafeUrl {
    type Error = &'static str;

    fn try_from(url: HttpUrl) -> Result<Self, &'static str> {
        let host = url.endpoint().host();
        let here = host
            .parse::<IpAddr>()
            .map_or(host == "localhost", |ip| ip.is_loopback());
        if !url.is_tls() && !here {
            return Err(
                "is not https, so that others could read what is sent; take https, or http to a proxy on this machine",
            );
        }
        Ok(Self(url))
    }
}

impl FromStr for SafeUrl {
    type Err = Box<dyn std::error::Error + Send + Sync>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: HttpUrl = text.parse().map_err(|error: ParseAddressError| error)?;
        Ok(url.try_into()?)
    }
}

impl fmt::Display for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<SafeUrl> for HttpUrl {
    fn from(url: SafeUrl) -> Self {
        url.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test asserts")]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_to_https_or_nowhere() {
        for url in [
            "https://hooks.example/k3y",
            "http://127.0.0.1:8080/",
            "http://[::1]/",
            "http://localhost/",
        ] {
            assert!(url.parse::<SafeUrl>().is_ok(), "{url}");
        }
        for url in [
            "http://hooks.example/k3y",
            "http://10.0.0.1/k3y",
            "http://127.0.0.1.example/k3y",
            "k3y",
        ] {
            let error = url.parse::<SafeUrl>().unwrap_err();
            assert!(!error.to_string().contains("k3y"), "{error}");
        }
    }
}
