use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use groundtackle_core::{ByteSize, Secret};
use http::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::address::HttpUrl;
use crate::dial::Dialer;
use crate::error::{Error, Result};
use crate::tls::Authorities;

/// The value of a header that is not to be seen.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Secret")]
pub struct SecretValue(HeaderValue);

impl SecretValue {
    /// For whoever has to send it.
    #[must_use]
    pub const fn expose(&self) -> &HeaderValue {
        &self.0
    }

    /// The header `Authorization` of a user with a password.
    #[must_use]
    pub fn basic(user: &str, password: &Secret) -> Self {
        use base64::Engine;
        let login = format!("{user}:{}", password.expose());
        let login = base64::engine::general_purpose::STANDARD.encode(login);
        let mut value = HeaderValue::try_from(format!("Basic {login}"))
            .unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        Self(value)
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl TryFrom<Secret> for SecretValue {
    type Error = &'static str;

    fn try_from(text: Secret) -> Result<Self, &'static str> {
        let mut value = HeaderValue::try_from(text.expose())
            .map_err(|_| "is no value of a header: it has a line break or a control character")?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// Headers to send. Their values are not to be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, Secret>")]
pub struct Headers(Vec<(HeaderName, SecretValue)>);

impl Headers {
    /// With one more; a header of the same name is replaced when it is sent.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: SecretValue) -> Self {
        self.0.push((name, value));
        self
    }
}

impl TryFrom<BTreeMap<String, Secret>> for Headers {
    type Error = &'static str;

    fn try_from(headers: BTreeMap<String, Secret>) -> Result<Self, &'static str> {
        let one = |(name, value): (String, Secret)| {
            let name = HeaderName::try_from(name).map_err(
                |_| "is no name of a header: it has other characters than letters, digits and -_",
            )?;
            Ok((name, value.try_into()?))
        };
        headers
            .into_iter()
            .map(one)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Asks a server over HTTP/1.1. Each run makes its own connection, so that nothing is left behind, and what stands still is found.
#[derive(Clone, Debug)]
pub struct HttpClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: HttpUrl,
    headers: HeaderMap,
    dialer: Dialer,
    authorities: Authorities,
    max_answer: ByteSize,
}

/// What a server answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body: at most as long as the client was told.
    pub body: Bytes,
}

impl HttpClient {
    /// Asks `url`, with these headers, and those that HTTP needs. Certificates are verified by `authorities`. Bodies longer than
    /// `max_answer` are refused.
    #[must_use]
    pub fn new(
        url: HttpUrl,
        headers: Headers,
        authorities: Authorities,
        max_answer: ByteSize,
    ) -> Self {
        let mut all = HeaderMap::new();
        all.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("groundtackle/", env!("CARGO_PKG_VERSION"))),
        );
        if let Ok(host) = HeaderValue::from_str(url.authority()) {
            all.insert(HOST, host);
        }
        for (name, value) in headers.0 {
            all.insert(name, value.0);
        }
        let dialer = Dialer::default();
        Self(Arc::new(Inner {
            url,
            headers: all,
            dialer,
            authorities,
            max_answer,
        }))
    }

    /// Where it asks.
    #[must_use]
    pub fn url(&self) -> &HttpUrl {
        &self.0.url
    }

    /// A connection, for several requests of one run.
    ///
    /// **Cancel safety**: dropped, the connection goes with it.
    ///
    /// # Errors
    /// All but `TooLarge`.
    pub async fn connect(&self) -> Result<Connection> {
        let endpoint = self.0.url.endpoint();
        let stream = self.0.dialer.connect(endpoint).await?;
        if self.0.url.is_tls() {
            let stream = self.0.authorities.connect(stream, endpoint).await?;
            self.speak(stream).await
        } else {
            self.speak(stream).await
        }
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Connection> {
        let (sender, driver) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.failed(false, error))?;
        // Its error is that of the request, too.
        let driver: Driver = Box::pin(async { drop(driver.await) });
        Ok(Connection {
            client: self.clone(),
            sender,
            driver: Some(driver),
        })
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// All of them.
    pub async fn request(&self, method: Method, headers: HeaderMap, body: Bytes) -> Result<Answer> {
        self.connect().await?.request(method, headers, body).await
    }

    fn failed(
        &self,
        sent: bool,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Http {
            address: self.0.url.endpoint().to_string(),
            sent,
            source: error.into(),
        }
    }
}

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection to a server. It ends when it is dropped.
pub struct Connection {
    client: HttpClient,
    sender: SendRequest<Full<Bytes>>,
    /// Reads and writes while a request is under way.
    driver: Option<Driver>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// One request. Redirections are not followed: they are an answer.
    ///
    /// **Cancel safety**: dropped, the request may have arrived, and the connection can't be used again.
    ///
    /// # Errors
    /// `Http` and `TooLarge`.
    pub async fn request(
        &mut self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer> {
        let path = self.client.url().path().to_owned();
        self.request_at(&path, method, headers, body).await
    }

    /// The same of another path of the server, with its query.
    ///
    /// **Cancel safety**: as [`request`](Self::request).
    ///
    /// # Errors
    /// `Http` and `TooLarge`.
    pub async fn request_at(
        &mut self,
        path: &str,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer> {
        let Self {
            client,
            sender,
            driver,
        } = self;
        let mut exchange = pin!(exchange(client, sender, path, method, headers, body));
        if let Some(driving) = driver {
            tokio::select! {
                biased;
                answer = &mut exchange => return answer,
                () = driving => *driver = None,
            }
        }
        // What was received before the connection ended is still there.
        exchange.await
    }
}

async fn exchange(
    client: &HttpClient,
    sender: &mut SendRequest<Full<Bytes>>,
    path: &str,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer> {
    sender
        .ready()
        .await
        .map_err(|error| client.failed(false, error))?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path
        .parse()
        .map_err(|error: http::uri::InvalidUri| client.failed(false, error))?;
    *request.headers_mut() = client.0.headers.clone();
    request.headers_mut().extend(headers);
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| client.failed(true, error))?;
    let (head, body) = answer.into_parts();
    let limit = client.0.max_answer.bytes();
    let body = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX));
    let body = body.collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let address = client.0.url.endpoint().to_string();
            Error::TooLarge { address, limit }
        } else {
            client.failed(true, error)
        }
    })?;
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
    })
}
