use std::path::PathBuf;

use groundtackle_core::{ByteSize, Secret};
use groundtackle_health_check_client::{Headers, HttpUrl};
use serde::Deserialize;

/// The URL of a node's RPC. It prints as scheme, host and port: keys of providers are in the path.
pub type NodeUrl = HttpUrl;

/// A node's RPC, and the way in.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Config")]
#[non_exhaustive]
pub struct Node {
    /// Where it is, such as `"http://127.0.0.1:8332"`. Keys in path and query are not shown.
    pub url: NodeUrl,
    /// The user. Default: none.
    pub user: Option<String>,
    /// The user's password. Not shown. Default: none.
    pub password: Option<Secret>,
    /// A file of one line, `user:password`, in place of both: a node writes a new one when it starts, so that it is read anew for each
    /// run. Default: none.
    pub cookie_file: Option<PathBuf>,
    /// Further headers to send. Their values are not shown. Default: none.
    pub headers: Headers,
    /// The certificates of the authorities that are believed, as a PEM file. Default: the system's.
    pub authorities: Option<PathBuf>,
    /// Longer answers are refused. Default `"1MiB"`.
    pub max_answer: ByteSize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    url: NodeUrl,
    user: Option<String>,
    password: Option<Secret>,
    cookie_file: Option<PathBuf>,
    #[serde(default)]
    headers: Headers,
    authorities: Option<PathBuf>,
    max_answer: Option<ByteSize>,
}

impl TryFrom<Config> for Node {
    type Error = &'static str;

    fn try_from(config: Config) -> Result<Self, &'static str> {
        let login = (config.user.is_some(), config.password.is_some());
        if login.0 != login.1 {
            return Err("has one of user and password; give both, or neither");
        }
        if login.0 && config.cookie_file.is_some() {
            return Err("has both a user and a cookie_file; leave one of them out");
        }
        if config.user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err("has a user with a colon in it, which HTTP can't send");
        }
        Ok(Self {
            user: config.user,
            password: config.password,
            cookie_file: config.cookie_file,
            headers: config.headers,
            authorities: config.authorities,
            max_answer: config.max_answer.unwrap_or(ByteSize::mib(1)),
            ..Self::new(config.url)
        })
    }
}

impl Node {
    /// A node that lets everybody in.
    #[must_use]
    pub fn new(url: NodeUrl) -> Self {
        Self {
            url,
            user: None,
            password: None,
            cookie_file: None,
            headers: Headers::default(),
            authorities: None,
            max_answer: ByteSize::mib(1),
        }
    }

    /// With a user and a password.
    #[must_use]
    pub fn with_login(mut self, user: impl Into<String>, password: impl Into<Secret>) -> Self {
        self.user = Some(user.into());
        self.password = Some(password.into());
        self
    }

    /// With a file of user and password.
    #[must_use]
    pub fn with_cookie_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.cookie_file = Some(file.into());
        self
    }
}
