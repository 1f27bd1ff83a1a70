//! The connection to the server, made again when it is lost.

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use groundtackle_core::Secret;
use groundtackle_utxo_store::{Error, Result};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion,
    RedisConnectionInfo, RedisError, Value,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{RedisUtxoStoreConfig, Tls};
use crate::error::{Again, BACKEND, Failed, Source, corrupt, failed};
use crate::read::array;

const FORM: &str =
    "write rediss://user:password@host:6379/0, with special characters of the password as %XX";

/// How servers are reached: the same for all of a cluster.
pub(crate) struct Access {
    backend: &'static str,
    tls: Option<TlsConnector>,
    login: RedisConnectionInfo,
    connect_timeout: Duration,
    answer_timeout: Duration,
}

/// What a config says of that.
pub(crate) struct Settings<'a> {
    pub(crate) backend: &'static str,
    pub(crate) password: Option<&'a Secret>,
    pub(crate) tls: Tls,
    pub(crate) tls_authorities: Option<&'a Path>,
    pub(crate) connect_timeout: Duration,
    pub(crate) answer_timeout: Duration,
}

impl Access {
    /// With the host and port that the URL names.
    pub(crate) fn new(url: &str, settings: &Settings<'_>) -> Result<(Self, String, u16)> {
        // The parser's own words could have a part of the password.
        let mut url = redis::parse_redis_url(url).ok_or_else(bad_url)?;
        let secure = matches!(url.scheme(), "rediss" | "valkeys");
        if url.fragment().is_some() {
            return Err(Error::invalid_request(
                "the URL has a #; name the server's authority in tls_authorities instead of #insecure",
            ));
        }
        // TLS is ours: the client gets a stream.
        if secure && url.set_scheme("redis").is_err() {
            return Err(bad_url());
        }
        let info = url.into_connection_info().map_err(|_| bad_url())?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(bad_url());
        };
        let tls = match (secure, settings.tls) {
            (false, Tls::Off) => None,
            (true, Tls::Verify) => Some(verified(settings.tls_authorities)?),
            (false, Tls::Verify) => {
                return Err(Error::invalid_request(
                    "the URL asks for no TLS; write rediss://, or set `tls` to off for a server on this machine or a network that nobody else listens to",
                ));
            }
            (true, Tls::Off) => {
                return Err(Error::invalid_request(
                    "the URL asks for TLS and `tls` is off; set it to verify",
                ));
            }
        };
        let mut login = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        if let Some(password) = settings.password {
            login = login.set_password(password.expose());
        }
        let access = Self {
            backend: settings.backend,
            tls,
            login,
            connect_timeout: settings.connect_timeout,
            answer_timeout: settings.answer_timeout,
        };
        Ok((access, host.clone(), *port))
    }

    /// The number of the server's database.
    pub(crate) fn database(&self) -> i64 {
        self.login.db()
    }
}

pub(crate) fn bad_url() -> Error {
    Error::invalid_request(format!("the URL can't be read; {FORM}"))
}

/// One connection that all calls share; answers come in the order of the questions.
pub(crate) struct Link {
    host: String,
    port: u16,
    name: Option<ServerName<'static>>,
    access: Arc<Access>,
    /// Numbered, so that only who used the lost one throws it away.
    current: Mutex<Option<(u64, MultiplexedConnection)>>,
    /// One connects, the others wait for it.
    connecting: tokio::sync::Mutex<u64>,
}

impl Link {
    pub(crate) fn new(config: &RedisUtxoStoreConfig) -> Result<Self> {
        let settings = Settings {
            backend: BACKEND,
            password: config.password.as_ref(),
            tls: config.tls,
            tls_authorities: config.tls_authorities.as_deref(),
            connect_timeout: config.connect_timeout,
            answer_timeout: config.answer_timeout,
        };
        let (access, host, port) = Access::new(config.url.expose(), &settings)?;
        Self::to(Arc::new(access), host, port)
    }

    /// To a server, at the first question.
    pub(crate) fn to(access: Arc<Access>, host: String, port: u16) -> Result<Self> {
        let name = match access.tls {
            Some(_) => Some(ServerName::try_from(host.clone()).map_err(|_| bad_url())?),
            None => None,
        };
        Ok(Self {
            host,
            port,
            name,
            access,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        })
    }

    fn current(&self) -> Option<(u64, MultiplexedConnection)> {
        let current = self.current.lock();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_current(&self, number: u64, connection: Option<MultiplexedConnection>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.is_some() || current.as_ref().is_some_and(|(n, _)| *n == number) {
            *current = connection.map(|connection| (number, connection));
        }
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection), Failed> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let mut number = self.connecting.lock().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        *number += 1;
        let action = "connect to the server";
        let made = tokio::time::timeout(self.access.connect_timeout, self.connect(action)).await;
        let connection = match made {
            Ok(made) => made.map_err(never_sent)?,
            Err(_) => {
                return Err(never_sent(
                    self.unanswered(action, "no connection within connect_timeout"),
                ));
            }
        };
        self.set_current(*number, Some(connection.clone()));
        Ok((*number, connection))
    }

    async fn connect(&self, action: &str) -> Result<MultiplexedConnection, Failed> {
        let lost = |error| self.unanswered(action, error);
        let stream = TcpStream::connect((self.host.as_str(), self.port));
        let stream = stream.await.map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        match (&self.access.tls, &self.name) {
            (Some(tls), Some(name)) => {
                let action = "connect to the server by TLS (a server without it: `tls` off and redis://; one of an own authority: `tls_authorities`)";
                let stream = tls.connect(name.clone(), stream).await;
                let stream = stream.map_err(|error| self.unanswered(action, error))?;
                self.greet(action, stream).await
            }
            _ => self.greet(action, stream).await,
        }
    }

    async fn greet<S>(&self, action: &str, stream: S) -> Result<MultiplexedConnection, Failed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config =
            AsyncConnectionConfig::new().set_response_timeout(Some(self.access.answer_timeout));
        let made = MultiplexedConnection::new_with_config(&self.access.login, stream, config);
        let (connection, driver) = made
            .await
            .map_err(|error| failed(self.access.backend, action, error))?;
        tokio::spawn(driver);
        Ok(connection)
    }

    fn unanswered(&self, action: &str, source: impl Into<Source>) -> Failed {
        Failed::unanswered(self.access.backend, action, source)
    }

    /// Sends one command.
    pub(crate) async fn ask(&self, action: &str, command: &Cmd) -> Result<Value, Failed> {
        self.with(action, |mut connection| async move {
            let answer = connection.send_packed_command(command).await?;
            answer.extract_error()
        })
        .await
    }

    /// Sends commands in one go. Where they are of one moment, the server carries out nothing else
    /// between them; it refuses that while its memory is full.
    pub(crate) async fn ask_all(
        &self,
        action: &str,
        commands: Vec<Cmd>,
        one_moment: bool,
    ) -> Result<Vec<Value>, Failed> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let count = commands.len();
        let one_moment = one_moment && count > 1;
        // Not the client's own transactions: where the server refuses MULTI, they miscount.
        let sent = if one_moment { count + 2 } else { count };
        let mut pipeline = Pipeline::with_capacity(sent);
        if one_moment {
            pipeline.cmd("MULTI");
        }
        for command in commands {
            pipeline.add_command(command);
        }
        if one_moment {
            pipeline.cmd("EXEC");
        }
        let pipeline = &pipeline;
        let mut answers = self
            .with(action, |mut connection| async move {
                let answers = connection.send_packed_commands(pipeline, 0, sent);
                let answers = answers.await?.into_iter().map(Value::extract_error);
                answers.collect::<Result<Vec<_>, _>>()
            })
            .await?;
        if one_moment {
            answers = array(answers.pop().unwrap_or_default())?;
        }
        if answers.len() == count {
            Ok(answers)
        } else {
            Err(corrupt("an answer", "it has not one part per command").into())
        }
    }

    /// Sends commands in one go; an answer may be the server's error.
    pub(crate) async fn send_all(
        &self,
        action: &str,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, Failed> {
        let count = commands.len();
        let answers = self
            .with(action, |mut connection| async move {
                connection.send_packed_commands(commands, 0, count).await
            })
            .await?;
        match answers.len() == count {
            true => Ok(answers),
            false => Err(corrupt("an answer", "it has not one part per command").into()),
        }
    }

    async fn with<T, F>(
        &self,
        action: &str,
        call: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let (number, connection) = self.connection().await?;
        call(connection).await.map_err(|error| {
            let demoted = error.code() == Some("READONLY");
            let failed = failed(self.access.backend, action, error);
            if demoted || failed.again == Again::Unanswered {
                self.set_current(number, None);
            }
            failed
        })
    }
}

/// Nothing was sent yet.
fn never_sent(failed: Failed) -> Failed {
    Failed {
        again: match failed.again {
            Again::Unanswered => Again::Unsent,
            again => again,
        },
        ..failed
    }
}

/// TLS that verifies the server's certificate and name.
fn verified(authorities: Option<&Path>) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(path) => {
            let wrong = |why: String| {
                Error::invalid_request(format!(
                    "tls_authorities: {} can't be used ({why}); it must be a PEM file of certificates",
                    path.display()
                ))
            };
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| wrong(error.to_string()))?;
            for certificate in certificates {
                roots
                    .add(certificate)
                    .map_err(|error| wrong(error.to_string()))?;
            }
        }
        None => {
            // Some of a system's certificates are of forms that nobody reads any more.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(Error::invalid_request(
            "there is no certificate of an authority to verify the server with; name a PEM file in tls_authorities",
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::invalid_request(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
