use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use groundtackle_core::Secret;
use groundtackle_health_check_client::{
    Authorities, Blocking, Connection, HttpClient, HttpUrl, SecretValue,
};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Result, RpcError};
use crate::node::Node;

/// The longest file of credentials.
const MAX_COOKIE: u64 = 4096;
/// The most that is told of a node's own words.
const MAX_MESSAGE: usize = 200;

/// Calls a node. Clones share it.
#[derive(Clone, Debug)]
pub struct RpcClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: HttpClient,
    node: Node,
    blocking: Blocking,
}

impl From<Node> for RpcClient {
    fn from(node: Node) -> Self {
        let authorities = Authorities::new(node.authorities.clone());
        let http = HttpClient::new(
            node.url.clone(),
            node.headers.clone(),
            authorities,
            node.max_answer,
        );
        let blocking = Blocking::default();
        Self(Arc::new(Inner {
            http,
            node,
            blocking,
        }))
    }
}

impl RpcClient {
    /// Where it calls.
    #[must_use]
    pub fn url(&self) -> &HttpUrl {
        self.0.http.url()
    }

    /// What one run asks, over one connection. A file of credentials is read now.
    ///
    /// **Cancel safety**: dropped, nothing is left behind; a read of a file that hangs goes on, and the next one waits for it.
    ///
    /// # Errors
    /// `Credentials`.
    pub async fn session(&self) -> Result<Session> {
        let node = &self.0.node;
        let login = match (&node.user, &node.password, &node.cookie_file) {
            (_, _, Some(path)) => Some(self.read(path).await.map_err(|source| {
                let path = path.clone();
                RpcError::Credentials { path, source }
            })?),
            (Some(user), Some(password), None) => Some((user.clone(), password.clone())),
            _ => None,
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut secrets = secrets_of(&node.url);
        if let Some((user, password)) = login {
            let value = SecretValue::basic(&user, &password);
            headers.insert(AUTHORIZATION, value.expose().clone());
            secrets.push(password);
        }
        Ok(Session {
            client: self.clone(),
            headers,
            secrets,
            connection: None,
            calls: 0,
        })
    }

    async fn read(&self, path: &Path) -> io::Result<(String, Secret)> {
        let path = path.to_owned();
        let read = self.0.blocking.run(move || read_cookie(&path)).await;
        read.unwrap_or_else(|| Err(io::Error::other("reading it was given up")))
    }
}

/// A pipe would hang where a file does not.
fn read_cookie(path: &Path) -> io::Result<(String, Secret)> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > MAX_COOKIE {
        return Err(io::Error::other("it is no file of at most 4 KiB"));
    }
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_COOKIE)
        .read_to_string(&mut text)?;
    // Its own words would show what is in it.
    let (user, password) = text
        .trim_end_matches(['\r', '\n'])
        .split_once(':')
        .filter(|(_, password)| !password.contains(['\r', '\n']))
        .ok_or_else(|| io::Error::other("it is no line of user:password"))?;
    Ok((user.into(), password.into()))
}

/// The parts of a URL that may be keys.
fn secrets_of(url: &HttpUrl) -> Vec<Secret> {
    let parts = url.path().split(['/', '?', '&', '=']);
    parts
        .filter(|part| part.len() >= 8)
        .map(Secret::from)
        .collect()
}

/// Calls of one run.
pub struct Session {
    client: RpcClient,
    headers: HeaderMap,
    secrets: Vec<Secret>,
    connection: Option<Connection>,
    calls: u64,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    id: Value,
    result: Option<Value>,
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    code: i64,
    #[serde(default)]
    message: String,
}

impl Session {
    /// Calls a method.
    ///
    /// **Cancel safety**: dropped, the call may have arrived.
    ///
    /// # Errors
    /// All of them.
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        method: &'static str,
        params: Value,
    ) -> Result<T> {
        self.calls = self.calls.saturating_add(1);
        let id = self.calls;
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let http = |source| RpcError::Http { method, source };
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.client.0.http.connect().await.map_err(http)?,
        };
        let answer = connection
            .request(Method::POST, self.headers.clone(), body.to_string().into())
            .await
            .map_err(http)?;
        let closes = answer
            .headers
            .get_all(CONNECTION)
            .iter()
            .any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        if !closes {
            self.connection = Some(connection);
        }
        self.read(method, id, answer.status, &answer.body)
    }

    pub(crate) fn read<T: DeserializeOwned>(
        &self,
        method: &'static str,
        id: u64,
        status: StatusCode,
        body: &[u8],
    ) -> Result<T> {
        match status.as_u16() {
            401 => return Err(RpcError::Unauthorized { method }),
            403 => return Err(RpcError::Forbidden { method }),
            429 => return Err(RpcError::RateLimited { method }),
            _ => {}
        }
        let garbled = |problem| Err(RpcError::Garbled { method, problem });
        let envelope: Envelope = match serde_json::from_slice(body) {
            Ok(envelope) => envelope,
            Err(_) if !status.is_success() => {
                let status = status.as_u16();
                return Err(RpcError::Status { method, status });
            }
            Err(_) => return garbled("no JSON-RPC"),
        };
        // Bitcoin nodes send errors with 404 and 500, and a result with an error that is null.
        if let Some(fault) = envelope.error {
            return Err(match fault.code {
                -32601 | -32004 => RpcError::NotOffered { method },
                -32005 => RpcError::RateLimited { method },
                code => RpcError::Node {
                    method,
                    code,
                    message: self.redacted(&fault.message),
                },
            });
        }
        if !status.is_success() {
            let status = status.as_u16();
            return Err(RpcError::Status { method, status });
        }
        if envelope.id != id {
            return garbled("the id of another call");
        }
        serde_json::from_value(envelope.result.unwrap_or_default())
            .or_else(|_| garbled("a result of another form"))
    }

    /// A node's words, without ours: some providers say again what they were sent.
    fn redacted(&self, message: &str) -> String {
        let mut text = message.to_owned();
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret.expose(), "***");
        }
        text.chars().take(MAX_MESSAGE).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test asserts")]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cookie");
        for text in ["__cookie__:5ecret", "__cookie__:5ecret\n"] {
            std::fs::write(&path, text).unwrap();
            let (user, password) = read_cookie(&path).unwrap();
            assert_eq!((user.as_str(), password.expose()), ("__cookie__", "5ecret"));
        }
        let long = format!("a:5ecret{}", "x".repeat(4096));
        for text in ["", "5ecret", "a:5ecret\nb", &long] {
            std::fs::write(&path, text).unwrap();
            let error = read_cookie(&path).unwrap_err();
            assert!(!error.to_string().contains("5ecret"), "{error}");
        }
        assert!(read_cookie(folder.path()).is_err());
        assert!(read_cookie(&folder.path().join("none")).is_err());
    }
}
